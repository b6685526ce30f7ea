//! What is kept and what may go.
//!
//! As restic counts: of each of the last `daily` days that have a full backup the newest one is kept, and so for weeks; of backups
//! that stand alone (dumps, files) also one for each of the last hours. What was not made takes no place: a machine that was off for
//! a month loses nothing. Of the log everything is kept that continues a full backup of one of those days, so that any moment since
//! the oldest of them can be restored; a piece that another one covers may go. The newest of each sort never goes.

use std::collections::HashSet;

use chrono::{DateTime, Datelike, Timelike, Utc};
use chrono_tz::Tz;

use crate::repository::{Backup, Kind, Level};

/// How many are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Hours with a backup that stands alone.
    pub hourly: u32,
    /// Days with a full backup.
    pub daily: u32,
    /// Weeks with a full backup.
    pub weekly: u32,
}

/// The indices of backups that may go, in the order given. `backups` are oldest first.
#[must_use]
pub fn removable(backups: &[Backup], keep: Keep, zone: Tz) -> Vec<usize> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (i, backup) in backups.iter().enumerate() {
        let same = |j: &usize| {
            let (a, b) = (&backups[*j].meta, &backup.meta);
            a.kind == b.kind
                && a.system_id == b.system_id
                && (a.kind == Kind::Physical || a.database == b.database)
        };
        match groups.iter_mut().find(|g| g.first().is_some_and(same)) {
            Some(group) => group.push(i),
            None => groups.push(vec![i]),
        }
    }
    let mut kept = HashSet::new();
    for group in &groups {
        keep_of(backups, group, keep, zone, &mut kept);
    }
    (0..backups.len()).filter(|i| !kept.contains(i)).collect()
}

fn keep_of(backups: &[Backup], group: &[usize], keep: Keep, zone: Tz, kept: &mut HashSet<usize>) {
    let physical = group
        .first()
        .is_some_and(|i| backups[*i].meta.kind == Kind::Physical);
    let alone: Vec<usize> = group
        .iter()
        .copied()
        .filter(|i| !physical || backups[*i].meta.level == Level::Full)
        .collect();
    let at = |i: usize| backups[i].meta.restorable_to.with_timezone(&zone);
    let newest_of_each = |count: u32, bucket: &dyn Fn(DateTime<Tz>) -> (i32, u32, u32)| {
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        for i in alone.iter().rev() {
            if seen.len() as u64 >= u64::from(count) {
                break;
            }
            if seen.insert(bucket(at(*i))) {
                found.push(*i);
            }
        }
        found
    };
    kept.extend(alone.last());
    let days = newest_of_each(keep.daily, &|t| (t.year(), t.ordinal(), 0));
    kept.extend(&days);
    kept.extend(newest_of_each(keep.weekly, &|t| {
        (t.iso_week().year(), t.iso_week().week(), 0)
    }));
    if !physical {
        kept.extend(newest_of_each(keep.hourly, &|t| {
            (t.year(), t.ordinal(), t.hour())
        }));
        return;
    }
    // The log since the oldest full backup that is kept for its day, or since the newest one if none is.
    let oldest = days
        .last()
        .or(alone.last())
        .and_then(|i| backups[*i].meta.start_lsn);
    let wal: Vec<usize> = group
        .iter()
        .copied()
        .filter(|i| match (&backups[*i].meta.wal, oldest) {
            (Some(wal), Some(oldest)) => wal.to > oldest,
            // Without a full backup nobody knows what it is good for: it stays.
            (Some(_), None) => true,
            (None, _) => false,
        })
        .collect();
    for i in &wal {
        let mine = backups[*i].meta.wal.as_ref();
        let covered = wal.iter().any(|j| {
            j > i
                && match (mine, &backups[*j].meta.wal) {
                    (Some(a), Some(b)) => b.from <= a.from && b.to >= a.to,
                    _ => false,
                }
        });
        if !covered {
            kept.insert(*i);
        }
    }
}

/// The moments between which everything can be restored: since the oldest full backup whose log is complete up to the newest.
#[must_use]
pub fn newest(backups: &[Backup]) -> Option<DateTime<Utc>> {
    backups
        .iter()
        .filter(|b| b.meta.kind != Kind::Files)
        .map(|b| b.meta.restorable_to)
        .max()
}
