//! What tasks did before: their last runs, their days, and when they are and were due today.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use oa_core::schedule::{Calendar, Days, Schedule, Session};
use postgres::GenericClient;
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::{Asked, Result, number};

/// One of the last runs of a task.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct RecentRun {
    /// The run.
    pub(crate) id: Uuid,
    /// How it ended, or `running` or `retrying`.
    pub(crate) status: String,
    /// When it started (UTC).
    pub(crate) started_at: DateTime<Utc>,
    /// How long it took, in seconds.
    pub(crate) duration: Option<f64>,
    /// Records that came and were good.
    pub(crate) records: u64,
}

/// A day of a task.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Day {
    /// The day of Asia/Shanghai.
    pub(crate) day: NaiveDate,
    /// Runs that ended, without skipped ones and backfills.
    pub(crate) runs: u64,
    /// Of these, successes.
    pub(crate) success: u64,
    /// Of these, partial ones.
    pub(crate) partial: u64,
    /// Good records of a run, on average over those that stored any.
    pub(crate) records: Option<f64>,
    /// `records` compared with the median of the days before; absent with fewer than five of them.
    pub(crate) usual: Option<f64>,
}

impl Day {
    /// Whether much less or much more came than usual: below half, or more than twice.
    pub(crate) fn is_unusual(&self) -> bool {
        match (self.records, self.usual) {
            (Some(records), Some(usual)) if usual > 0.0 => {
                !(0.5..=2.0).contains(&(records / usual))
            }
            _ => false,
        }
    }
}

/// So many recent runs of each task.
pub(crate) const RECENT_RUNS: i64 = 48;
/// So many days of each task.
pub(crate) const DAYS: u32 = 30;
/// So many days before make what is usual.
const BEFORE: usize = 14;
const FEWEST: usize = 5;

const COLUMNS: &str = "t.name, r.id, r.status, r.started_at, extract(epoch FROM r.finished_at - r.started_at)::float8, greatest(r.fetched - r.rejected, 0)";

fn by_task(rows: &[postgres::Row]) -> HashMap<String, Vec<RecentRun>> {
    let mut all: HashMap<String, Vec<RecentRun>> = HashMap::new();
    for row in rows {
        all.entry(row.get(0)).or_default().push(RecentRun {
            id: row.get(1),
            status: row.get(2),
            started_at: row.get(3),
            duration: row.get(4),
            records: number(row, 5),
        });
    }
    all
}

/// The last runs of each of these tasks, oldest first.
pub(crate) fn recent_runs(
    client: &mut impl Asked,
    tasks: &[&str],
) -> Result<HashMap<String, Vec<RecentRun>>> {
    let rows = client.query(
        &format!(
            "SELECT {COLUMNS}
         FROM unnest($1::text[]) t (name), LATERAL (
           SELECT * FROM oa.runs r WHERE r.task = t.name AND r.status <> 'skipped' ORDER BY r.seq DESC LIMIT $2) r ORDER BY t.name, r.seq"
        ),
        &[&tasks, &RECENT_RUNS],
    )?;
    Ok(by_task(&rows))
}

/// A run and those of its task before it, oldest first.
pub(crate) fn up_to(
    client: &mut impl GenericClient,
    task: &str,
    id: Uuid,
    limit: i64,
) -> Result<Vec<RecentRun>> {
    let rows = client.query(
        &format!(
            "SELECT {COLUMNS} FROM (SELECT $1::text AS name) t, LATERAL (
               SELECT * FROM oa.runs r WHERE r.task = $1 AND r.seq <= (SELECT seq FROM oa.runs WHERE id = $2) AND r.status <> 'skipped'
               ORDER BY r.seq DESC LIMIT $3) r ORDER BY r.seq"
        ),
        &[&task, &id, &limit],
    )?;
    Ok(by_task(&rows).remove(task).unwrap_or_default())
}

/// The runs of a span of time of each of these tasks, oldest first; at most 1,500 per task.
pub(crate) fn between(
    client: &mut impl Asked,
    tasks: &[&str],
    from: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<HashMap<String, Vec<RecentRun>>> {
    let rows = client.query(
        &format!(
            "SELECT {COLUMNS}
         FROM unnest($1::text[]) t (name), LATERAL (
           SELECT * FROM oa.runs r WHERE r.task = t.name AND r.started_at >= $2 AND r.started_at < $3 AND r.status <> 'skipped'
           ORDER BY r.started_at DESC LIMIT 1500) r ORDER BY t.name, r.started_at"
        ),
        &[&tasks, &from, &until],
    )?;
    Ok(by_task(&rows))
}

/// The last days of each of these tasks on which it ran, oldest first; days are those of Asia/Shanghai, whatever zone is shown.
pub(crate) fn days(
    client: &mut impl Asked,
    tasks: &[&str],
    now: DateTime<Utc>,
) -> Result<HashMap<String, Vec<Day>>> {
    let shown = day_of(now) - chrono::Days::new(u64::from(DAYS) - 1);
    let first = shown - chrono::Days::new(BEFORE as u64 * 2);
    let rows = client.query(
        "SELECT task, day, sum(runs)::bigint, (sum(runs) FILTER (WHERE status = 'success'))::bigint,
                (sum(runs) FILTER (WHERE status = 'partial'))::bigint,
                (sum(fetched - rejected) FILTER (WHERE status IN ('success', 'partial')) / nullif(sum(runs) FILTER (WHERE status IN ('success', 'partial')), 0))::float8
         FROM oa.run_days WHERE task = ANY($1) AND day >= $2 AND status <> 'skipped' AND runs > 0 GROUP BY task, day ORDER BY task, day",
        &[&tasks, &first],
    )?;
    let mut all: HashMap<String, Vec<Day>> = HashMap::new();
    for row in &rows {
        all.entry(row.get(0)).or_default().push(Day {
            day: row.get(1),
            runs: number(row, 2),
            success: number(row, 3),
            partial: number(row, 4),
            records: row.get(5),
            usual: None,
        });
    }
    for days in all.values_mut() {
        compare(days);
        days.retain(|d| d.day >= shown);
    }
    Ok(all)
}

/// The day of Asia/Shanghai, as `oa.run_days` has it.
pub(crate) fn day_of(at: DateTime<Utc>) -> NaiveDate {
    at.with_timezone(&chrono_tz::Asia::Shanghai).date_naive()
}

fn compare(days: &mut [Day]) {
    for at in 0..days.len() {
        let before = &days[at.saturating_sub(BEFORE)..at];
        let mut records: Vec<f64> = before.iter().filter_map(|d| d.records).collect();
        if records.len() >= FEWEST {
            records.sort_by(f64::total_cmp);
            days[at].usual = Some(records[records.len() / 2]);
        }
    }
}

/// The schedule that `oa.tasks` has of a task. Without sessions it applies at any hour.
pub(crate) fn schedule_of(
    cron: &str,
    days: Option<&str>,
    sessions: Option<Vec<String>>,
    zone: Tz,
) -> Option<Schedule> {
    let days = match days {
        Some("trading") => Days::Trading,
        Some("night") => Days::Night,
        _ => Days::All,
    };
    let session = |name: &String| {
        if name == "night" {
            Session::Night
        } else {
            Session::Day
        }
    };
    let sessions: Vec<Session> = sessions.unwrap_or_default().iter().map(session).collect();
    Some(Schedule::parse(cron, zone).ok()?.on(days).within(&sessions))
}

/// When each of these tasks was and is due within a span, of those whose schedule is known in full, since its runs are expected; at most
/// 2,000 times per task.
pub(crate) fn due(
    client: &mut impl Asked,
    tasks: &[&str],
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    zone: Tz,
    calendar: &Calendar,
) -> Result<HashMap<String, Vec<DateTime<Utc>>>> {
    let rows = client.query(
        "SELECT name, schedule, days, sessions, expected_since FROM oa.tasks WHERE name = ANY($1) AND schedule IS NOT NULL AND days IS NOT NULL",
        &[&tasks],
    )?;
    let due = |row: &postgres::Row| {
        let schedule = schedule_of(row.get(1), row.get(2), row.get(3), zone)?;
        let first = schedule.next_after(from - chrono::TimeDelta::seconds(1), calendar);
        let all = std::iter::successors(first, |at| schedule.next_after(*at, calendar));
        // Before it was added or had this schedule it owed nothing.
        let since: Option<DateTime<Utc>> = row.get(4);
        let owed = all
            .take_while(|at| *at < until)
            .filter(|at| since.is_none_or(|since| *at >= since));
        Some((row.get(0), owed.take(2000).collect()))
    };
    Ok(rows.iter().filter_map(due).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_unusual_against_the_days_before_it() {
        let mut days: Vec<Day> = [75.0, 75.0, 74.0, 76.0, 75.0, 30.0, 75.0, 160.0, 75.0]
            .iter()
            .enumerate()
            .map(|(i, records)| Day {
                day: NaiveDate::from_ymd_opt(2025, 12, 1 + i as u32).unwrap(),
                runs: 1,
                success: 1,
                partial: 0,
                records: Some(*records),
                usual: None,
            })
            .collect();
        compare(&mut days);
        let unusual: Vec<bool> = days.iter().map(Day::is_unusual).collect();
        assert_eq!(
            unusual,
            [false, false, false, false, false, true, false, true, false]
        );
        assert_eq!((days[4].usual, days[5].usual), (None, Some(75.0)));
    }
}
