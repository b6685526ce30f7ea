//! What is kept and what may go.
//!
//! As restic counts: of each of the last `daily` days that have a full backup the newest one is kept, and so for weeks; of backups
//! that stand alone (dumps, files) also one for each of the last hours. What was not made takes no place: a machine that was off for
//! a month loses nothing. The newest of each sort never goes.
//!
//! Whatever can be restored of the time since the first full backup of the oldest of those days stays so: on every timeline, also on one
//! whose LSNs are lower because the server was put back to an older backup, and also where WAL is missing in between. Which WAL goes on
//! from which full backup is asked of [`timeline`]; a backup of WAL that another one covers may go.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use chrono::{DateTime, Datelike, Timelike, Utc};
use chrono_tz::Tz;

use oa_repository::timeline::{self, RecoveryChain, TimelinePaths};
use oa_repository::{Backup, Kind, Level, MAX_CLOCK_SKEW};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keep {
    /// Hours with a backup that stands alone.
    pub(crate) hourly: u32,
    /// Days with a full backup.
    pub(crate) daily: u32,
    /// Weeks with a full backup.
    pub(crate) weekly: u32,
}

/// The indices of backups that may go, in the order given. `backups` are oldest first.
///
/// Backups that are newer than `now` were made while a clock was wrong, or it is wrong now: they stay and take no place.
pub(crate) fn removable(
    backups: &[Backup],
    paths: &TimelinePaths,
    keep: Keep,
    zone: Tz,
    now: DateTime<Utc>,
) -> Vec<usize> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let future = |b: &Backup| b.meta.restorable_to > now + MAX_CLOCK_SKEW;
    for (i, backup) in backups.iter().enumerate().filter(|(_, b)| !future(b)) {
        let same = |j: &usize| {
            let (a, b) = (&backups[*j].meta, &backup.meta);
            a.kind == b.kind
                && a.system_id == b.system_id
                && (a.kind == Kind::Physical || a.database == b.database)
                && (a.kind != Kind::Files || a.host == b.host)
        };
        match groups.iter_mut().find(|g| g.first().is_some_and(same)) {
            Some(group) => group.push(i),
            None => groups.push(vec![i]),
        }
    }
    let mut kept = HashSet::new();
    for group in &groups {
        let days = keep_of(backups, group, keep, zone, &mut kept);
        if let Some(oldest) = days.last() {
            let day = |i: usize| {
                backups[i]
                    .meta
                    .restorable_to
                    .with_timezone(&zone)
                    .date_naive()
            };
            let of_it = group.iter().filter(|i| day(**i) == day(*oldest));
            let first = of_it.filter(|i| backups[**i].meta.stands_alone()).min();
            let since = backups[*first.unwrap_or(oldest)].meta.restorable_to;
            keep_reachable(backups, paths, group, since, &mut kept);
        } else {
            // Without a full backup nobody knows what the WAL is good for: it stays.
            kept.extend(group.iter().filter(|i| backups[**i].meta.wal.is_some()));
        }
    }
    // WAL of the future stays, and restores nothing without its full backup.
    let bases: HashSet<&str> = backups
        .iter()
        .filter(|b| future(b))
        .filter_map(|b| b.meta.full.as_deref())
        .collect();
    kept.extend((0..backups.len()).filter(|i| bases.contains(backups[*i].id.as_str())));
    (0..backups.len())
        .filter(|i| !kept.contains(i) && !future(&backups[*i]))
        .collect()
}

/// The same where some are damaged: they take the place of nothing that is whole. What would be kept if they were not there is kept as
/// well, but for WAL to which only damaged ones lead: it goes when they do, or it would stay and restore nothing.
pub(crate) fn removable_beside_damaged(
    backups: &[Backup],
    paths: &TimelinePaths,
    damaged: &dyn Fn(&Backup) -> bool,
    keep: Keep,
    zone: Tz,
    now: DateTime<Utc>,
) -> Vec<usize> {
    let mut going = removable(backups, paths, keep, zone, now);
    let whole = (0..backups.len()).filter(|i| !damaged(&backups[*i]));
    let whole: Vec<usize> = whole.collect();
    if whole.len() < backups.len() {
        let alone: Vec<Backup> = whole.iter().map(|i| backups[*i].clone()).collect();
        let alone_paths: TimelinePaths = whole.iter().map(|i| paths[*i].clone()).collect();
        let goes = removable(&alone, &alone_paths, keep, zone, now);
        let goes: HashSet<usize> = goes.into_iter().map(|i| whole[i]).collect();
        let led: HashSet<usize> = led_to(&alone, &alone_paths)
            .into_iter()
            .map(|i| whole[i])
            .collect();
        going.retain(|i| {
            let is_led = backups[*i].meta.wal.is_none() || led.contains(i);
            goes.contains(i) || damaged(&backups[*i]) || !is_led
        });
    }
    going
}

/// The backups of WAL to which a full one leads.
fn led_to(backups: &[Backup], paths: &TimelinePaths) -> HashSet<usize> {
    let mut clusters: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, backup) in backups.iter().enumerate() {
        if backup.meta.kind == Kind::Physical {
            let group = clusters.entry(backup.meta.system_id.as_str()).or_default();
            group.push(i);
        }
    }
    let mut led = HashSet::new();
    for group in clusters.values() {
        for chain in timeline::chains(backups, paths, group) {
            led.extend(chain.wal.iter().map(|(i, _)| *i));
        }
    }
    led
}

/// Keeps those that are kept for their hour, day or week. Returns those of the days, or the newest one if none is kept for its day.
fn keep_of(
    backups: &[Backup],
    group: &[usize],
    keep: Keep,
    zone: Tz,
    kept: &mut HashSet<usize>,
) -> Vec<usize> {
    let alone: Vec<usize> = group
        .iter()
        .copied()
        .filter(|i| backups[*i].meta.stands_alone())
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
    // A dump that was made as a full one has the more thorough record for a drill.
    for level in [Level::Full, Level::Incremental] {
        kept.extend(
            alone
                .iter()
                .rev()
                .find(|i| backups[**i].meta.level == level),
        );
    }
    let days = newest_of_each(keep.daily, &|t| (t.year(), t.ordinal(), 0));
    kept.extend(&days);
    kept.extend(newest_of_each(keep.weekly, &|t| {
        (t.iso_week().year(), t.iso_week().week(), 0)
    }));
    if group
        .iter()
        .any(|i| backups[*i].meta.kind != Kind::Physical)
    {
        kept.extend(newest_of_each(keep.hourly, &|t| {
            (t.year(), t.ordinal(), t.hour())
        }));
    }
    if days.is_empty() {
        return alone.last().copied().into_iter().collect();
    }
    days
}

/// Keeps what is needed to restore all that can be restored of the time since `since`.
fn keep_reachable(
    backups: &[Backup],
    paths: &TimelinePaths,
    group: &[usize],
    since: DateTime<Utc>,
    kept: &mut HashSet<usize>,
) {
    let is_wal = |i: &&usize| backups[**i].meta.wal.is_some();
    let mut wal = BTreeSet::new();
    let mut reached = HashSet::new();
    for run in timeline::chains(backups, paths, group) {
        reached.extend(run.wal.iter().map(|(i, _)| *i));
        let Some(base) = base_of(backups, &run, since) else {
            continue;
        };
        kept.insert(base);
        let begins = backups[base].meta.start_lsn;
        let needed = run.wal.iter().filter(|(_, to)| Some(*to) > begins);
        wal.extend(needed.map(|(i, _)| *i));
    }
    // What nothing is known to lead to is kept for as long as the rest, and the newest in any case.
    wal.extend(group.iter().filter(is_wal).filter(|i| {
        paths[**i].is_none() || !reached.contains(*i) && backups[**i].meta.restorable_to >= since
    }));
    wal.extend(group.iter().rev().find(is_wal));
    let covers = |j: &usize, i: &usize| match (&backups[*j].meta.wal, &backups[*i].meta.wal) {
        (Some(b), Some(a)) => {
            b.from <= a.from && b.to >= a.to && paths[*i].is_some() && paths[*j] == paths[*i]
        }
        _ => false,
    };
    // The next one mostly does.
    let last = wal
        .iter()
        .filter(|i| !wal.range(**i + 1..).any(|j| covers(j, i)));
    kept.extend(last);
}

/// The full backup of a run from which all of it since then can be restored; `None` when the run ended before.
fn base_of(backups: &[Backup], run: &RecoveryChain, since: DateTime<Utc>) -> Option<usize> {
    let lately = |i: usize| backups[i].meta.restorable_to >= since;
    let end = |i: usize| backups[i].meta.end_lsn;
    let fulls = run
        .fulls
        .iter()
        .copied()
        .filter(|i| lately(*i))
        .filter_map(end);
    // What another timeline has ended says nothing of the time of its end.
    let whole = run
        .wal
        .iter()
        .filter(|(i, to)| lately(*i) && backups[*i].meta.wal.as_ref().is_some_and(|w| w.to == *to));
    let first = fulls.chain(whole.map(|(_, to)| *to)).min()?;
    let before =
        run.fulls.iter().rev().copied().find(|i| {
            end(*i).is_some_and(|e| e <= first) && backups[*i].meta.restorable_to <= since
        });
    before.or(run.fulls.first().copied())
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod timelines;
