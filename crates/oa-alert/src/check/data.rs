//! Runs succeed, and the data are stale or grow fewer from day to day.
//!
//! What a single run can see, `oa-crawl` turns into a partial run: nothing of the day that was asked for, far fewer records than such
//! days usually have. These rules look at days: a site that shows the same page for a week, a list that loses a third each month.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use oa_core::app::config::{Alert, Config};
use oa_core::model::event::Finding;
use oa_core::schedule::Calendar;
use postgres::Client;

/// Days that are looked at.
const DAYS: i32 = 35;
/// A task is assessed by its own past only when it has so many days of one.
const LEAST_DAYS: usize = 5;
/// A task brings something new as a rule when it did on this share of its days.
const AS_A_RULE: f64 = 0.8;
/// So many days in a row below the usual are a fall; one is a bad day.
const FALLING_DAYS: usize = 3;
/// Fewer records on a usual day say nothing.
const LEAST_RECORDS: u64 = 10;

/// The newest run of task `t` that ended is a success. Not `last_status`: while a run is under way that says nothing of its data.
const SUCCEEDS: &str = "(SELECT r.status FROM oa.runs r WHERE r.task = t.name AND r.finished_at IS NOT NULL AND r.status <> 'skipped'
   AND r.trigger <> 'backfill' AND NOT r.other_day ORDER BY r.seq DESC LIMIT 1) = 'success'";

pub(super) fn find(
    client: &mut Client,
    config: &Config,
    calendar: &Calendar,
    now: DateTime<Utc>,
) -> Result<Vec<Finding>, postgres::Error> {
    let today = now.with_timezone(&config.timezone).date_naive();
    let mut found = Vec::new();
    for task in days_of_news(client, config, today)? {
        if let Some((last, days)) = stale(&task.days, calendar, &config.alert) {
            found.push(Finding::DataStale {
                task: task.name,
                title: task.title,
                last,
                days,
            });
        }
    }
    for task in days_of_counts(client, config, today)? {
        if let Some((came, usual)) = falling(&task.days, calendar, &config.alert) {
            found.push(Finding::DataFalling {
                task: task.name,
                title: task.title,
                came,
                usual,
            });
        }
    }
    Ok(found)
}

/// A task and something of each of its days before today.
struct Task<T> {
    name: String,
    title: String,
    days: BTreeMap<NaiveDate, T>,
}

fn by_task<T>(rows: impl Iterator<Item = (String, String, NaiveDate, T)>) -> Vec<Task<T>> {
    let mut tasks: Vec<Task<T>> = Vec::new();
    for (name, title, day, value) in rows {
        if tasks.last().is_none_or(|t| t.name != name) {
            let days = BTreeMap::new();
            tasks.push(Task { name, title, days });
        }
        if let Some(task) = tasks.last_mut() {
            task.days.insert(day, value);
        }
    }
    tasks
}

/// Days with successful runs of tasks that have brought nothing new since yesterday began, and whether they brought something.
fn days_of_news(
    client: &mut Client,
    config: &Config,
    today: NaiveDate,
) -> Result<Vec<Task<bool>>, postgres::Error> {
    let query = format!(
        "WITH idle AS (
           SELECT t.name, coalesce(nullif(t.title, ''), t.name) AS title FROM oa.tasks t
           WHERE t.schedule IS NOT NULL AND t.name <> ALL($4) AND {SUCCEEDS} AND NOT EXISTS (
             SELECT FROM oa.runs r WHERE r.task = t.name AND r.started_at >= ($2::date - 1)::timestamp AT TIME ZONE $1
               AND r.inserted + r.updated > 0 AND r.trigger <> 'backfill' AND NOT r.other_day)),
         days AS (
           SELECT day::date AS day, day AT TIME ZONE $1 AS first, (day + interval '1 day') AT TIME ZONE $1 AS next
           FROM generate_series($2::date - $3::integer, $2::date - 1, interval '1 day') s, LATERAL (SELECT s::timestamp AS day) d)
         SELECT i.name, i.title, d.day, EXISTS (
                  SELECT FROM oa.runs r WHERE r.task = i.name AND r.started_at >= d.first AND r.started_at < d.next
                    AND r.inserted + r.updated > 0 AND r.trigger <> 'backfill' AND NOT r.other_day)
         FROM idle i CROSS JOIN days d
         WHERE EXISTS (SELECT FROM oa.runs r WHERE r.task = i.name AND r.started_at >= d.first AND r.started_at < d.next
                         AND r.status = 'success' AND r.trigger <> 'backfill' AND NOT r.other_day)
         ORDER BY i.name, d.day"
    );
    let rows = client.query(
        &query,
        &[&config.timezone.name(), &today, &DAYS, &config.crawl.skip],
    )?;
    let row = |r: &postgres::Row| (r.get(0), r.get(1), r.get(2), r.get(3));
    Ok(by_task(rows.iter().map(row)))
}

/// Records of the last run of each day.
fn days_of_counts(
    client: &mut Client,
    config: &Config,
    today: NaiveDate,
) -> Result<Vec<Task<u64>>, postgres::Error> {
    let query = format!(
        "WITH days AS (
           SELECT day::date AS day, day AT TIME ZONE $1 AS first, (day + interval '1 day') AT TIME ZONE $1 AS next
           FROM generate_series($2::date - $3::integer, $2::date - 1, interval '1 day') s, LATERAL (SELECT s::timestamp AS day) d)
         SELECT t.name, coalesce(nullif(t.title, ''), t.name), d.day, q.collected
         FROM oa.tasks t CROSS JOIN days d CROSS JOIN LATERAL (
           SELECT q.collected FROM oa.quality q JOIN oa.runs r ON r.id = q.run_id
           WHERE q.task = t.name AND r.task = t.name AND r.started_at >= d.first AND r.started_at < d.next
             AND (q.day IS NULL OR q.day = d.day)
           -- As the index has it: by seq alone all runs of a task since that day would be looked through.
           ORDER BY r.started_at DESC, r.seq DESC LIMIT 1) q
         WHERE t.schedule IS NOT NULL AND t.name <> ALL($4) AND {SUCCEEDS} ORDER BY t.name, d.day"
    );
    let rows = client.query(
        &query,
        &[&config.timezone.name(), &today, &DAYS, &config.crawl.skip],
    )?;
    let row = |r: &postgres::Row| {
        let collected: i64 = r.get(3);
        (r.get(0), r.get(1), r.get(2), collected.unsigned_abs())
    };
    Ok(by_task(rows.iter().map(row)))
}

/// The last day that brought something new and the trading days since, when these are too many and such days bring something as a rule.
fn stale(
    days: &BTreeMap<NaiveDate, bool>,
    calendar: &Calendar,
    limits: &Alert,
) -> Option<(NaiveDate, usize)> {
    let is_open = |day: &NaiveDate| calendar.is_trading_day(*day).is_open();
    let last = *days.iter().rev().find(|(_, news)| **news)?.0;
    let since = days
        .range(last..)
        .skip(1)
        .filter(|(d, _)| is_open(d))
        .count();
    let before: Vec<bool> = days
        .range(..=last)
        .filter(|(d, _)| is_open(d))
        .map(|(_, news)| *news)
        .collect();
    let with_news = before.iter().filter(|n| **n).count();
    let as_a_rule =
        before.len() >= LEAST_DAYS && with_news as f64 >= AS_A_RULE * before.len() as f64;
    (as_a_rule && since >= limits.stale_limit as usize).then_some((last, since))
}

/// The records of the last trading days, and what is usual, when they are far below that.
fn falling(
    days: &BTreeMap<NaiveDate, u64>,
    calendar: &Calendar,
    limits: &Alert,
) -> Option<(Vec<(NaiveDate, u64)>, u64)> {
    let counts: Vec<(NaiveDate, u64)> = days
        .iter()
        .filter(|(d, _)| calendar.is_trading_day(**d).is_open())
        .map(|(d, n)| (*d, *n))
        .collect();
    let (before, last) = counts.split_at(counts.len().checked_sub(FALLING_DAYS)?);
    if before.len() < LEAST_DAYS {
        return None;
    }
    let mut usual: Vec<u64> = before.iter().map(|(_, n)| *n).collect();
    usual.sort_unstable();
    let usual = usual[usual.len() / 2];
    let few = |n: u64| (n as f64) < limits.falling_share * usual as f64;
    (usual >= LEAST_RECORDS && last.iter().all(|(_, n)| few(*n))).then(|| (last.to_vec(), usual))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days<T: Copy>(values: &[T]) -> BTreeMap<NaiveDate, T> {
        // From a Monday, trading days only.
        let calendar = Calendar::shipped();
        let start = NaiveDate::from_ymd_opt(2025, 11, 3).unwrap();
        let trading = start
            .iter_days()
            .filter(|d| calendar.is_trading_day(*d).is_open());
        trading.zip(values.iter().copied()).collect()
    }

    #[test]
    fn only_what_brings_something_each_day_is_stale_when_it_does_not() {
        let stale = |values: &[bool]| {
            let mut days = days(values);
            // A weekend without news says nothing.
            days.insert(NaiveDate::from_ymd_opt(2025, 11, 8).unwrap(), false);
            stale(&days, &Calendar::shipped(), &Alert::default()).map(|(last, _)| last)
        };
        let (yes, no) = (true, false);
        assert_eq!(stale(&[yes, yes, yes, yes, yes, no]), None, "one day");
        assert_eq!(
            stale(&[yes, yes, yes, yes, yes, no, no]),
            NaiveDate::from_ymd_opt(2025, 11, 7)
        );
        assert_eq!(
            stale(&[yes, no, no, yes, no, yes, no, no, no]),
            None,
            "seldom"
        );
        assert_eq!(stale(&[yes, yes, no, no, no]), None, "too short a past");
        assert_eq!(stale(&[no; 9]), None, "never");
    }

    #[test]
    fn three_days_far_below_the_usual_are_a_fall() {
        let falling = |values: &[u64]| {
            falling(&days(values), &Calendar::shipped(), &Alert::default()).map(|f| f.1)
        };
        assert_eq!(falling(&[100, 90, 2000, 110, 105, 49, 50, 40]), Some(105));
        assert_eq!(falling(&[100, 90, 100, 110, 105, 49, 60, 40]), None);
        assert_eq!(
            falling(&[100, 90, 100, 110, 1, 1, 1]),
            None,
            "too short a past"
        );
        assert_eq!(falling(&[9, 9, 9, 9, 9, 1, 1, 1]), None, "too few to say");
        assert_eq!(falling(&[1, 1]), None);
    }
}
