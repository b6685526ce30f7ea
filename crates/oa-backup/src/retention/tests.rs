use chrono::{TimeDelta, TimeZone};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use oa_repository::timeline::TimelinePath;
use oa_repository::{Counts, Lsn, Meta, WalRange};

pub(crate) const ZONE: Tz = chrono_tz::Asia::Shanghai;
const KEEP: Keep = Keep {
    hourly: 24,
    daily: 30,
    weekly: 12,
};

/// Where nothing is known of other timelines than the first.
fn removable(backups: &[Backup], keep: Keep, zone: Tz, now: DateTime<Utc>) -> Vec<usize> {
    let first = |b: &Backup| (b.meta.timeline == 1).then(|| TimelinePath::only(1));
    let paths = backups.iter().map(first).collect();
    super::removable(backups, &paths, keep, zone, now)
}

pub(crate) fn backup(kind: Kind, level: Level, hours: i64, wal: Option<(u64, u64)>) -> Backup {
    let at = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap() + TimeDelta::hours(hours);
    let lsn = Lsn(u64::try_from(hours).unwrap() * 100);
    let full = kind == Kind::Physical && level == Level::Full;
    Backup::for_tests(
        Uuid::now_v7().to_string(),
        Meta {
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
            finished_at: None,
            settings: std::collections::BTreeMap::new(),
            tablespaces: std::collections::BTreeMap::new(),
            damaged: Vec::new(),
            mark: None,
            stored: Counts::default(),
        },
    )
}

/// A full backup each day at two, the WAL each hour, all of it since the last full one.
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
fn what_a_wrong_clock_has_made_stays_and_replaces_no_other() {
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
fn what_is_damaged_takes_the_place_of_nothing_that_is_whole() {
    let all: Vec<Backup> = (0..90)
        .flat_map(|day| {
            [2, 14].map(|hour| backup(Kind::Physical, Level::Full, day * 24 + hour, None))
        })
        .collect();
    let first = |b: &Backup| (b.meta.timeline == 1).then(|| TimelinePath::only(1));
    let paths = all.iter().map(first).collect();
    let (now, keep) = (after(&all), Keep { weekly: 1, ..KEEP });
    let gone = |damaged: &dyn Fn(&Backup) -> bool| {
        removable_beside_damaged(&all, &paths, damaged, keep, ZONE, now)
    };
    let all_whole = gone(&|_| false);
    assert_eq!(all_whole, removable(&all, keep, ZONE, now));
    // Since the fiftieth day each is: the newest thirty days before that stay, and of the damaged ones no more than usual.
    let hours = |b: &Backup| (b.meta.restorable_to - all[0].meta.restorable_to).num_hours();
    let damaged = gone(&|b| hours(b) >= 50 * 24);
    assert!(
        !damaged.contains(&99) && damaged.contains(&0),
        "{damaged:?}"
    );
    let kept = (0..100).filter(|i| !damaged.contains(i)).count();
    assert!((30..=60).contains(&kept), "{kept}");
    let usual = all_whole.iter().filter(|i| **i >= 100);
    assert!(usual.eq(damaged.iter().filter(|i| **i >= 100)));
}

#[test]
fn wal_to_which_only_damaged_ones_lead_goes_with_them() {
    let all = days(150);
    let paths = all.iter().map(|_| Some(TimelinePath::only(1))).collect();
    let (now, none) = (after(&all), |b: &Backup| b.meta.level == Level::Full);
    let gone = removable_beside_damaged(&all, &paths, &none, KEEP, ZONE, now);
    assert!(!gone.is_empty());
    assert_eq!(gone, removable(&all, KEEP, ZONE, now));
    // Since a whole one everything is kept that it leads to.
    let first = all[2].id.clone();
    let but_one = |b: &Backup| b.meta.level == Level::Full && b.id != first;
    let gone = removable_beside_damaged(&all, &paths, &but_one, KEEP, ZONE, now);
    let kept: Vec<Backup> = (0..all.len())
        .filter(|i| !gone.contains(i))
        .map(|i| all[i].clone())
        .collect();
    let there = kept.iter().map(|_| Some(TimelinePath::only(1))).collect();
    let group: Vec<usize> = (0..kept.len()).collect();
    let chains = timeline::chains(&kept, &there, &group);
    assert_eq!(chains.len(), 1);
    assert_eq!(kept[chains[0].fulls[0]].id, first);
}

#[test]
fn on_the_first_day_every_moment_since_the_first_full_backup_stays_restorable() {
    let mut all = Vec::new();
    let mut from = 0;
    for hour in 1..10 {
        let lsn = u64::try_from(hour).unwrap() * 100;
        all.push(backup(Kind::Physical, Level::Full, hour, None));
        // To the end of this one, from the one before.
        all.push(backup(
            Kind::Physical,
            Level::Incremental,
            hour,
            Some((from, lsn + 50)),
        ));
        from = lsn;
    }
    let gone = removable(&all, KEEP, ZONE, after(&all));
    let kept: Vec<usize> = (0..all.len()).filter(|i| !gone.contains(i)).collect();
    let fulls = kept.iter().filter(|i| all[**i].meta.level == Level::Full);
    assert_eq!(fulls.copied().collect::<Vec<_>>(), [0, all.len() - 2]);
    let wal = (0..all.len()).filter(|i| all[*i].meta.wal.is_some());
    assert!(wal.clone().all(|i| kept.contains(&i)), "{kept:?}");
}

#[test]
fn the_wal_of_another_timeline_does_not_stand_in() {
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
fn of_a_year_there_stay_thirty_days_to_the_hour_and_twelve_weeks() {
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
        "one backup of WAL a day: {}",
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
    fn every_time_of_the_kept_days_stays_restorable(
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
        // What the WAL covered since the oldest kept daily full backup is still covered.
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
