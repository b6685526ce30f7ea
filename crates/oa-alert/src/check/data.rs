//! Runs succeed, and the data are stale or grow fewer from day to day.
//!
//! What a single run can see, `oa-crawl` turns into a partial run: nothing of the day that was asked for, far fewer records than such
//! days usually have. These rules look at days: a site that shows the same page for a week, a list that loses a third each month.

use std::collections::BTreeMap;

use chrono::{DateTime, Days, NaiveDate, Utc};
use oa_core::app::config::{Alert, Config};
use oa_core::model::event::Finding;
use oa_core::schedule::Calendar;
use postgres::Client;

/// Days that are looked at.
const DAYS: u64 = 35;
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
    let tasks = succeeding(client, config, today)?;
    let mut days: Vec<NaiveDate> = (1..=DAYS).map(|ago| today - Days::new(ago)).collect();
    for task in days_of_news(client, config, &days, &tasks)? {
        if let Some((last, days)) = stale(&task.days, calendar, &config.alert) {
            found.push(Finding::DataStale {
                task: task.name,
                title: task.title,
                last,
                days,
            });
        }
    }
    // Of the others nothing is said.
    days.retain(|day| calendar.is_trading_day(*day).is_open());
    for task in days_of_counts(client, config, &days, &tasks)? {
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

/// A task with a schedule whose data the rules look at.
struct Succeeding {
    name: String,
    title: String,
    /// It has brought nothing new since yesterday began.
    is_idle: bool,
}

fn succeeding(
    client: &mut Client,
    config: &Config,
    today: NaiveDate,
) -> Result<Vec<Succeeding>, postgres::Error> {
    let rows = client.query(
        &format!(
            "SELECT t.name, coalesce(nullif(t.title, ''), t.name), NOT EXISTS (
               SELECT FROM oa.runs r WHERE r.task = t.name AND r.started_at >= ($2::date - 1)::timestamp AT TIME ZONE $1
                 AND r.inserted + r.updated > 0 AND r.trigger <> 'backfill' AND NOT r.other_day)
             FROM oa.tasks t WHERE t.schedule IS NOT NULL AND t.name <> ALL($3) AND {SUCCEEDS} ORDER BY t.name"
        ),
        &[&config.timezone.name(), &today, &config.crawl.skip],
    )?;
    let task = |row: &postgres::Row| Succeeding {
        name: row.get(0),
        title: row.get(1),
        is_idle: row.get(2),
    };
    Ok(rows.iter().map(task).collect())
}

/// A task and something of each of its days before today.
struct Task<T> {
    name: String,
    title: String,
    days: BTreeMap<NaiveDate, T>,
}

/// The days of `$2`, each reckoned once and not for each task and month.
const DAYS_BEFORE: &str = "WITH days AS MATERIALIZED (
   SELECT day, day::timestamp AT TIME ZONE $1 AS first, (day + 1)::timestamp AT TIME ZONE $1 AS next FROM unnest($2::date[]) d (day))";

/// Of each of these tasks these days as a query of [`DAYS_BEFORE`] gives them, whose parameter `$3` their names are: by name and day.
fn by_task<T>(
    client: &mut Client,
    (config, days): (&Config, &[NaiveDate]),
    tasks: &[&Succeeding],
    query: &str,
    value: impl Fn(&postgres::Row) -> T,
) -> Result<Vec<Task<T>>, postgres::Error> {
    let names: Vec<&str> = tasks.iter().map(|t| t.name.as_str()).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let rows = client.query(
        &format!("{DAYS_BEFORE} {query}"),
        &[&config.timezone.name(), &days, &names],
    )?;
    let mut found: BTreeMap<&str, BTreeMap<NaiveDate, T>> = BTreeMap::new();
    for row in &rows {
        let of = found.entry(row.get(0)).or_default();
        of.insert(row.get(1), value(row));
    }
    let with_days = |task: &&Succeeding| {
        Some(Task {
            name: task.name.clone(),
            title: task.title.clone(),
            days: found.remove(task.name.as_str())?,
        })
    };
    Ok(tasks.iter().filter_map(with_days).collect())
}

/// Days with successful runs of tasks that have brought nothing new since yesterday began, and whether they brought something.
fn days_of_news(
    client: &mut Client,
    config: &Config,
    days: &[NaiveDate],
    tasks: &[Succeeding],
) -> Result<Vec<Task<bool>>, postgres::Error> {
    let idle: Vec<&Succeeding> = tasks.iter().filter(|t| t.is_idle).collect();
    by_task(
        client,
        (config, days),
        &idle,
        "SELECT i.name, d.day, EXISTS (
                  SELECT FROM oa.runs r WHERE r.task = i.name AND r.started_at >= d.first AND r.started_at < d.next
                    AND r.inserted + r.updated > 0 AND r.trigger <> 'backfill' AND NOT r.other_day)
         FROM unnest($3::text[]) i (name) CROSS JOIN days d
         WHERE EXISTS (SELECT FROM oa.runs r WHERE r.task = i.name AND r.started_at >= d.first AND r.started_at < d.next
                         AND r.status = 'success' AND r.trigger <> 'backfill' AND NOT r.other_day)",
        |row| row.get(2),
    )
}

/// Records of the last run of each of these days.
fn days_of_counts(
    client: &mut Client,
    config: &Config,
    days: &[NaiveDate],
    tasks: &[Succeeding],
) -> Result<Vec<Task<u64>>, postgres::Error> {
    let all: Vec<&Succeeding> = tasks.iter().collect();
    by_task(
        client,
        (config, days),
        &all,
        "SELECT t.name, d.day, q.collected
         FROM unnest($3::text[]) t (name) CROSS JOIN days d CROSS JOIN LATERAL (
           SELECT q.collected FROM oa.quality q JOIN oa.runs r ON r.id = q.run_id
           WHERE q.task = t.name AND r.task = t.name AND r.started_at >= d.first AND r.started_at < d.next
             AND (q.day IS NULL OR q.day = d.day)
           -- As the index has it: by seq alone all runs of a task since that day would be looked through.
           ORDER BY r.started_at DESC, r.seq DESC LIMIT 1) q",
        |row| row.get::<_, i64>(2).unsigned_abs(),
    )
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
