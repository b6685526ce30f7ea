//! What is kept and what may go.
//!
//! As restic counts: of each of the last `daily` days that have a full backup the newest one is kept, and so for weeks; of backups
//! that stand alone (dumps, files) also one for each of the last hours. What was not made takes no place: a machine that was off for
//! a month loses nothing. Of the log everything is kept that continues a full backup of one of those days, so that any moment since
//! the oldest of them can be restored; a piece that another one covers may go. The newest of each sort never goes.

use std::collections::HashSet;

use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;

use crate::repository::{Backup, Kind, Level};

/// The clocks of server and repository may differ by this much.
pub const CLOCKS_DIFFER: TimeDelta = TimeDelta::minutes(10);

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
///
/// Backups that are newer than `now` were made while a clock was wrong, or it is wrong now: they stay and take no place.
#[must_use]
pub fn removable(backups: &[Backup], keep: Keep, zone: Tz, now: DateTime<Utc>) -> Vec<usize> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let future = |b: &Backup| b.meta.restorable_to > now + CLOCKS_DIFFER;
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
        keep_of(backups, group, keep, zone, &mut kept);
    }
    (0..backups.len())
        .filter(|i| !kept.contains(i) && !future(&backups[*i]))
        .collect()
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
                // Another timeline has another content at the same place.
                && backups[*j].meta.timeline == backups[*i].meta.timeline
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

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::repository::{Counts, Lsn, Meta, WalRange};

    const ZONE: Tz = chrono_tz::Asia::Shanghai;
    const KEEP: Keep = Keep {
        hourly: 24,
        daily: 30,
        weekly: 12,
    };

    fn backup(kind: Kind, level: Level, hours: i64, wal: Option<(u64, u64)>) -> Backup {
        let at = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap() + TimeDelta::hours(hours);
        let lsn = Lsn(u64::try_from(hours).unwrap() * 100);
        let full = kind == Kind::Physical && level == Level::Full;
        Backup::of(Meta {
            oa: 1,
            run_id: Uuid::nil(),
            kind,
            level,
            full: None,
            host: "h".to_owned(),
            database: "d".to_owned(),
            server_version: 150_000,
            system_id: "1".to_owned(),
            timeline: 1,
            start_lsn: full.then_some(lsn),
            end_lsn: full.then_some(lsn),
            wal: wal.map(|(from, to)| WalRange {
                from: Lsn(from),
                to: Lsn(to),
                segment_bytes: 10,
            }),
            restorable_from: at,
            restorable_to: at,
            started_at: at,
            captured_at: at,
            settings: std::collections::BTreeMap::new(),
            tablespaces: std::collections::BTreeMap::new(),
            mark: None,
            stored: Counts::default(),
        })
    }

    /// A full backup each day at two, the log each hour, all of it since the last full one.
    fn days(days: i64) -> Vec<Backup> {
        let mut all = Vec::new();
        let mut from = 0;
        for hour in 0..days * 24 {
            let lsn = u64::try_from(hour).unwrap() * 100;
            if hour % 24 == 2 {
                all.push(backup(Kind::Physical, Level::Full, hour, None));
            }
            all.push(backup(
                Kind::Physical,
                Level::Incremental,
                hour,
                Some((from, lsn + 50)),
            ));
            if hour % 24 == 2 {
                from = lsn;
            }
        }
        all
    }

    fn after(backups: &[Backup]) -> DateTime<Utc> {
        let last = backups.iter().map(|b| b.meta.restorable_to).max();
        last.unwrap_or_default() + TimeDelta::hours(1)
    }

    #[test]
    fn what_a_wrong_clock_has_made_stays_and_takes_no_place() {
        let mut all: Vec<Backup> = (0..24 * 40)
            .map(|h| backup(Kind::Logical, Level::Incremental, h, None))
            .collect();
        let now = after(&all);
        let before = removable(&all, KEEP, ZONE, now);
        // The clock was a year ahead for a day.
        all.extend((9000..9024).map(|h| backup(Kind::Logical, Level::Incremental, h, None)));
        assert_eq!(removable(&all, KEEP, ZONE, now), before);
        // It is years behind now.
        let past = now - TimeDelta::days(2000);
        assert_eq!(removable(&all, KEEP, ZONE, past), Vec::<usize>::new());
    }

    #[test]
    fn the_log_of_another_timeline_does_not_stand_in() {
        let mut all = days(3);
        let first = all
            .iter()
            .position(|b| b.meta.wal.is_some() && b.meta.restorable_to > all[2].meta.restorable_to);
        let mut branch = backup(Kind::Physical, Level::Incremental, 71, Some((0, 9999)));
        branch.meta.timeline = 2;
        let now = after(&all);
        let before = removable(&all, KEEP, ZONE, now);
        all.push(branch);
        assert!(first.is_some() && removable(&all, KEEP, ZONE, now) == before);
    }

    #[test]
    fn files_of_two_machines_are_counted_apart() {
        let mut all = Vec::new();
        for hour in 0..24 * 5 {
            for host in ["a", "b"] {
                let mut one = backup(Kind::Files, Level::Incremental, hour, None);
                one.meta.host = host.to_owned();
                all.push(one);
            }
        }
        let gone = removable(&all, KEEP, ZONE, after(&all));
        let kept = |host: &str| {
            (0..all.len())
                .filter(|i| !gone.contains(i) && all[*i].meta.host == host)
                .count()
        };
        assert_eq!(kept("a"), kept("b"));
        assert!(kept("a") > 24);
    }

    #[test]
    fn of_a_year_there_stay_thirty_days_with_every_moment_and_twelve_weeks() {
        let all = days(365);
        let gone = removable(&all, KEEP, ZONE, after(&all));
        let kept: Vec<&Backup> = (0..all.len())
            .filter(|i| !gone.contains(i))
            .map(|i| &all[i])
            .collect();
        let fulls = kept.iter().filter(|b| b.meta.level == Level::Full).count();
        assert!(
            (37..=38).contains(&fulls),
            "30 days, and of the 12 weeks those before: {fulls}"
        );
        let wal: Vec<_> = kept.iter().filter_map(|b| b.meta.wal.as_ref()).collect();
        assert!(
            (30..=31).contains(&wal.len()),
            "one piece of the log a day: {}",
            wal.len()
        );
        assert!(
            wal.windows(2).all(|w| w[0].to >= w[1].from),
            "without a gap"
        );
    }

    #[test]
    fn of_dumps_hours_days_and_weeks_are_kept() {
        let all: Vec<Backup> = (0..24 * 100)
            .map(|h| backup(Kind::Logical, Level::Incremental, h, None))
            .collect();
        let kept = all.len() - removable(&all, KEEP, ZONE, after(&all)).len();
        assert!(
            (59..=61).contains(&kept),
            "24 hours, the days and the weeks before them: {kept}"
        );
    }

    proptest! {
        #[test]
        fn every_moment_of_the_kept_days_stays_restorable(
            hours in proptest::collection::vec((0_i64..3000, 0_u8..4), 1..120),
            hourly in 0_u32..30, daily in 0_u32..40, weekly in 0_u32..15,
        ) {
            let mut hours = hours;
            hours.sort_unstable();
            hours.dedup_by_key(|h| h.0);
            let (mut all, mut from) = (Vec::new(), 0);
            for (hour, what) in hours {
                let lsn = u64::try_from(hour).unwrap() * 100;
                match what {
                    0 => {
                        all.push(backup(Kind::Physical, Level::Full, hour, None));
                        all.push(backup(Kind::Physical, Level::Incremental, hour, Some((from, lsn + 50))));
                        from = lsn;
                    }
                    1 => all.push(backup(Kind::Logical, Level::Full, hour, None)),
                    _ => all.push(backup(Kind::Physical, Level::Incremental, hour, Some((from, lsn + 50)))),
                }
            }
            let keep = Keep { hourly, daily, weekly };
            let gone = removable(&all, keep, ZONE, after(&all));
            let kept = |i: &usize| !gone.contains(i);
            // The newest of each sort stays.
            for level in [Level::Full, Level::Incremental] {
                for kind in [Kind::Physical, Kind::Logical] {
                    let last = (0..all.len()).rfind(|i| all[*i].meta.kind == kind && all[*i].meta.level == level);
                    let has_full = all.iter().any(|b| b.meta.kind == kind && b.meta.level == Level::Full);
                    prop_assert!(last.is_none_or(|i| kept(&i)) || !has_full || (kind == Kind::Physical && level == Level::Incremental
                        && all.iter().any(|b| b.meta.start_lsn >= all[last.unwrap()].meta.wal.as_ref().map(|w| w.to))));
                }
            }
            // What the log covered since the oldest kept daily full backup is still covered.
            let for_days = removable(&all, Keep { weekly: 0, ..keep }, ZONE, after(&all));
            let oldest = (0..all.len()).filter(|i| !for_days.contains(i)).filter_map(|i| all[i].meta.start_lsn).next();
            if let Some(oldest) = oldest {
                for b in &all {
                    let Some(wal) = &b.meta.wal else { continue };
                    if wal.to <= oldest { continue; }
                    let covered = (0..all.len()).filter(kept).filter_map(|i| all[i].meta.wal.as_ref())
                        .any(|k| k.from <= wal.from && k.to >= wal.to);
                    prop_assert!(covered, "{wal:?} after {oldest}");
                }
            }
            // A second time there is nothing left to do.
            let left: Vec<Backup> = (0..all.len()).filter(kept).map(|i| all[i].clone()).collect();
            prop_assert!(removable(&left, keep, ZONE, after(&left)).is_empty());
        }
    }
}
