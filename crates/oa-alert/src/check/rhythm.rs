//! A program that cron started regularly, and that has no schedule in the configuration, is expected to go on as it did.
//!
//! Days decide: it ran on nearly all days, or on nearly all trading days, at about the same time of the day. What ran at even intervals
//! day and night is late sooner, by its interval.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;
use oa_core::app::config::Config;
use oa_core::model::event::{Expected, Finding, Missed};
use oa_core::schedule::Calendar;
use postgres::Client;

use super::seconds_since;

/// So many runs, or days with one, make a rhythm.
const LEAST: usize = 5;
/// What a person starts again and again is no rhythm: even intervals count when they go on for so long. Of what runs each minute the starts
/// that are asked for reach a little further.
const ENDURING: TimeDelta = TimeDelta::hours(3);
/// What has not run for longer has been given up.
const FORGOTTEN: TimeDelta = TimeDelta::days(30);
/// Cron's lines begin late at times.
const LATE: TimeDelta = TimeDelta::minutes(30);

pub(super) fn find(
    client: &mut Client,
    config: &Config,
    calendar: &Calendar,
    now: DateTime<Utc>,
) -> Result<Vec<Finding>, postgres::Error> {
    let grace = TimeDelta::from_std(config.alert.grace.0).unwrap_or(LATE);
    let late = grace.max(LATE);
    let stopped = stopped(client)?;
    let mut found = Vec::new();
    if stopped.programs {
        found = programs(client, config, calendar, now, late)?;
    }
    if stopped.stream {
        found.extend(stream(client, config.timezone, now, late)?);
    }
    Ok(found)
}

/// What has run within the last month and does not now.
struct Stopped {
    /// A program without a schedule.
    programs: bool,
    /// The stream of WAL.
    stream: bool,
}

/// Mostly there is none, and that takes no look at runs.
fn stopped(client: &mut Client) -> Result<Stopped, postgres::Error> {
    let row = client.query_one(
        "SELECT coalesce(bool_or(tool = 'oa-crawl' AND schedule IS NULL), false), coalesce(bool_or(tool = 'oa-backup' AND name = 'backup-stream'), false)
         FROM oa.tasks WHERE last_started_at BETWEEN now() - interval '30 days' AND now() - interval '10 minutes'
           AND (lease_until IS NULL OR lease_until < now())",
        &[],
    )?;
    Ok(Stopped {
        programs: row.get(0),
        stream: row.get(1),
    })
}

fn programs(
    client: &mut Client,
    config: &Config,
    calendar: &Calendar,
    now: DateTime<Utc>,
    late: TimeDelta,
) -> Result<Vec<Finding>, postgres::Error> {
    // Backups have rules of their own but for their stream, and a source that is off owes nothing.
    let rows = client.query(
        "SELECT t.name, t.title, t.last_success_at, array_agg(r.started_at ORDER BY r.started_at)
         FROM oa.tasks t CROSS JOIN LATERAL (
           SELECT r.started_at FROM oa.runs r
           WHERE r.task = t.name AND r.started_at > now() - interval '90 days' AND r.started_at <= now() AND r.status <> 'skipped'
             AND (r.trigger = 'cron' OR r.details ? 'program')
           ORDER BY r.started_at DESC LIMIT 200) r
         WHERE t.tool = 'oa-crawl' AND t.schedule IS NULL AND t.forgotten_at IS NULL AND t.name <> ALL($1)
           AND t.last_started_at BETWEEN now() - interval '30 days' AND now() - interval '10 minutes'
           AND (t.lease_until IS NULL OR t.lease_until < now())
         GROUP BY t.name, t.title, t.last_success_at HAVING count(*) >= $2 ORDER BY t.name",
        &[&config.crawl.skip, &(LEAST as i64)],
    )?;
    let finding = |row: &postgres::Row| {
        let starts: Vec<DateTime<Utc>> = row.get(3);
        let (due_at, days) = due_since(&starts, config.timezone, calendar, now, late)?;
        Some(Finding::RunMissed {
            task: row.get(0),
            title: row.get(1),
            due_at,
            late: seconds_since(due_at, now),
            last_started_at: starts.last().copied(),
            last_success_at: row.get(2),
            never: false,
            missed: Missed {
                times: days.len() as u64,
                days,
                ..Missed::default()
            },
            expected: Expected::Rhythm,
        })
    };
    Ok(rows.iter().filter_map(finding).collect())
}

/// A stream of WAL that has worked for hours and ended: the hourly backups beside it hide that hours can be lost again, and not a minute.
/// It stores in the interval of its `--every`, more often where it is started again, and begins again whenever it likes.
fn stream(
    client: &mut Client,
    zone: Tz,
    now: DateTime<Utc>,
    late: TimeDelta,
) -> Result<Option<Finding>, postgres::Error> {
    let row = client.query_opt(
        "SELECT t.name, t.title, t.last_success_at, t.last_started_at,
                ARRAY(SELECT r.started_at FROM oa.runs r
                      WHERE r.task = t.name AND r.started_at > now() - interval '90 days' AND r.started_at <= now()
                      ORDER BY r.seq DESC LIMIT 20)
         FROM oa.tasks t
         WHERE t.name = 'backup-stream' AND t.tool = 'oa-backup' AND (t.forgotten_at IS NULL OR t.forgotten_at < t.last_started_at)
           AND t.last_started_at BETWEEN now() - interval '30 days' AND now() - interval '10 minutes'
           AND (t.lease_until IS NULL OR t.lease_until < now())
           AND EXISTS (SELECT FROM oa.runs r WHERE r.task = t.name AND r.started_at < t.last_started_at - interval '3 hours'
                       AND r.started_at > now() - interval '90 days')",
        &[],
    )?;
    let Some(row) = row else {
        return Ok(None);
    };
    let last: DateTime<Utc> = row.get(3);
    let starts: Vec<DateTime<Utc>> = row.get(4);
    let mut gaps: Vec<TimeDelta> = starts.windows(2).map(|w| w[0] - w[1]).collect();
    gaps.sort();
    let usual = gaps.get(gaps.len() / 2).copied().unwrap_or(LATE);
    let due_at = last + usual;
    if now <= due_at + (usual / 2).max(late) {
        return Ok(None);
    }
    Ok(Some(Finding::RunMissed {
        task: row.get(0),
        title: row.get(1),
        due_at,
        late: seconds_since(due_at, now),
        last_started_at: Some(last),
        last_success_at: row.get(2),
        never: false,
        missed: Missed {
            times: 1,
            days: vec![due_at.with_timezone(&zone).date_naive()],
            ..Missed::default()
        },
        expected: Expected::Rhythm,
    }))
}

/// When it should have run by its rhythm and did not: the first time, and the days.
fn due_since(
    starts: &[DateTime<Utc>],
    zone: Tz,
    calendar: &Calendar,
    now: DateTime<Utc>,
    late: TimeDelta,
) -> Option<(DateTime<Utc>, Vec<NaiveDate>)> {
    let last = *starts.last()?;
    if now - last > FORGOTTEN {
        return None;
    }
    let day = |at: DateTime<Utc>| at.with_timezone(&zone).date_naive();
    if let Some(interval) = even_interval(starts) {
        let due = last + interval;
        return (now > due + (interval / 2).max(late)).then(|| (due, vec![day(due)]));
    }
    let mut firsts: BTreeMap<NaiveDate, NaiveTime> = BTreeMap::new();
    for at in starts {
        firsts
            .entry(day(*at))
            .or_insert(at.with_timezone(&zone).time());
    }
    let days: BTreeSet<NaiveDate> = firsts.keys().copied().collect();
    let is_open = |d: &NaiveDate| calendar.is_trading_day(*d).is_open();
    let only_trading = days.iter().all(is_open);
    let (first, newest) = (*days.first()?, *days.last()?);
    let expected = |d: &NaiveDate| !only_trading || is_open(d);
    let span = first
        .iter_days()
        .take_while(|d| *d <= newest)
        .filter(expected);
    let all = span.count();
    // Nearly all of them: at most one in five without it.
    if days.len() < LEAST || days.len() * 5 < all * 4 {
        return None;
    }
    let mut times: Vec<NaiveTime> = firsts.into_values().collect();
    times.sort();
    let (usual, latest) = (times[times.len() / 2], *times.last()?);
    let since = newest.iter_days().skip(1).take_while(|d| *d <= day(now));
    let missed: Vec<NaiveDate> = since
        .filter(expected)
        .filter(|d| at(*d, latest, zone).is_some_and(|at| now > at + late))
        .collect();
    Some((at(*missed.first()?, usual, zone)?, missed))
}

/// The usual time between two starts, when all are about that far apart.
fn even_interval(starts: &[DateTime<Utc>]) -> Option<TimeDelta> {
    let mut gaps: Vec<TimeDelta> = starts.windows(2).map(|w| w[1] - w[0]).collect();
    gaps.sort();
    let usual = *gaps.get(gaps.len() / 2)?;
    let even = starts.len() > LEAST
        && *starts.last()? - *starts.first()? >= ENDURING
        && *gaps.last()? <= usual * 3 / 2
        && *gaps.first()? >= usual / 2
        && usual >= TimeDelta::minutes(1);
    even.then_some(usual)
}

fn at(day: NaiveDate, time: NaiveTime, zone: Tz) -> Option<DateTime<Utc>> {
    let local = day.and_time(time).and_local_timezone(zone);
    local.earliest().map(|at| at.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;
    use chrono_tz::Asia::Shanghai;

    fn moment(text: &str) -> DateTime<Utc> {
        let local = chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap();
        Shanghai.from_local_datetime(&local).unwrap().to_utc()
    }

    fn missed(starts: &[String], now: &str) -> Option<String> {
        let starts: Vec<_> = starts.iter().map(|s| moment(s)).collect();
        let calendar = Calendar::shipped();
        let (due, days) = due_since(&starts, Shanghai, &calendar, moment(now), LATE)?;
        let due = due.with_timezone(&Shanghai).format("%m-%d %H:%M");
        Some(format!("{due} {}", days.len()))
    }

    fn trading(time: &str) -> Vec<String> {
        ["11-18", "11-19", "11-20", "11-23", "11-24", "11-25"]
            .map(|d| format!("2026-{d} {time}"))
            .to_vec()
    }

    #[test]
    fn what_ran_on_each_trading_day_is_missed_on_the_next_one() {
        let starts = trading("18:00");
        assert_eq!(missed(&starts, "2026-11-26 18:29"), None);
        assert_eq!(
            missed(&starts, "2026-11-26 18:31").unwrap(),
            "11-26 18:00 1"
        );
        assert_eq!(
            missed(&starts, "2026-11-29 12:00").unwrap(),
            "11-26 18:00 2"
        );
        assert_eq!(missed(&starts[..4], "2026-11-29 12:00"), None, "too few");
        // A weekend is none of its days.
        let friday: Vec<String> = starts
            .iter()
            .map(|s| s.replace("11-18", "11-17").replace("11-25", "11-27"))
            .collect();
        assert_eq!(missed(&friday, "2026-11-29 20:00"), None);
    }

    #[test]
    fn what_ran_now_and_then_is_not_missed() {
        let starts: Vec<String> = ["11-01", "11-05", "11-06", "11-19", "11-20", "11-25"]
            .map(|d| format!("2026-{d} 10:00"))
            .to_vec();
        assert_eq!(missed(&starts, "2026-11-29 12:00"), None);
    }

    #[test]
    fn what_somebody_tried_a_few_times_is_not_missed() {
        let starts: Vec<String> = (10..18).map(|m| format!("2026-11-25 10:{m}")).collect();
        assert_eq!(missed(&starts, "2026-11-25 12:00"), None);
        assert_eq!(missed(&starts, "2026-11-29 12:00"), None);
    }

    #[test]
    fn what_ran_each_hour_is_missed_within_two() {
        let starts: Vec<String> = (0..8).map(|h| format!("2026-11-25 0{h}:00")).collect();
        assert_eq!(missed(&starts, "2026-11-25 08:20"), None);
        assert_eq!(
            missed(&starts, "2026-11-25 08:31").unwrap(),
            "11-25 08:00 1"
        );
    }
}
