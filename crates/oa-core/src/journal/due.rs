//! Which tasks there are, and which of them nobody has taken care of since they were due.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, NaiveDate, Utc};
use postgres::{Client, GenericClient};

use crate::journal::incidents;
use crate::schedule::{Days, Session};

/// A task that has a schedule: name, title, schedule, and when it is due next (UTC).
#[derive(Debug, Clone)]
pub struct Scheduled {
    /// Its name.
    pub name: String,
    /// Its title for people.
    pub title: String,
    /// Its schedule as it is written.
    pub schedule: String,
    /// On which days it applies.
    pub days: Days,
    /// Within which sessions; empty for any time.
    pub sessions: Vec<Session>,
    /// When it is due next.
    pub next_due_at: Option<DateTime<Utc>>,
}

/// Makes tasks known before their first run, and after a change of their schedule, so that a run that never happens is missed. The
/// moments are to be found by the server's clock.
///
/// # Errors
/// When PostgreSQL fails.
pub fn register(
    client: &mut impl GenericClient,
    tool: &str,
    tasks: &[Scheduled],
) -> Result<(), postgres::Error> {
    let column = |of: fn(&Scheduled) -> &str| tasks.iter().map(of).collect::<Vec<_>>();
    let due: Vec<Option<DateTime<Utc>>> = tasks.iter().map(|t| t.next_due_at).collect();
    // An array of arrays must be rectangular: sessions go as words.
    let sessions: Vec<String> = tasks
        .iter()
        .map(|t| {
            t.sessions
                .iter()
                .map(|s| s.as_str())
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    client.execute(
        // A run by hand of what is off, or of a broken file, leaves no schedule: what was expected before still is.
        "INSERT INTO oa.tasks AS t (name, tool, title, schedule, next_due_at, days, sessions, expected_since)
         SELECT n, $1, i, s, d, a, string_to_array(e, ' '), now()
         FROM unnest($2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::text[]) x (n, i, s, d, a, e)
         ON CONFLICT (name) DO UPDATE SET schedule = excluded.schedule, title = excluded.title, days = excluded.days, sessions = excluded.sessions,
           next_due_at = CASE WHEN t.schedule IS NULL THEN least(t.next_due_at, excluded.next_due_at) ELSE excluded.next_due_at END,
           expected_since = CASE WHEN t.schedule IS NOT DISTINCT FROM excluded.schedule AND (t.days, t.sessions) IS NOT DISTINCT FROM (excluded.days, excluded.sessions)
                                   OR t.schedule IS NULL THEN coalesce(t.expected_since, now()) ELSE now() END,
           forgotten_at = NULL
         WHERE (t.schedule, t.days, t.sessions) IS DISTINCT FROM (excluded.schedule, excluded.days, excluded.sessions)
            -- Only a clock that was ahead can have seen no earlier moment, see `ahead`.
            OR t.next_due_at > excluded.next_due_at",
        &[
            &tool,
            &column(|t| &t.name),
            &column(|t| &t.title),
            &column(|t| &t.schedule),
            &due,
            &column(|t| t.days.as_str()),
            &sessions,
        ],
    )?;
    Ok(())
}

/// The tasks whose next moment was written by a clock that was ahead, and since when (UTC) moments of their schedule may be open: the
/// last one that a run has taken care of, or the time since when they are expected.
///
/// # Errors
/// When PostgreSQL fails.
pub fn ahead(
    client: &mut impl GenericClient,
    tasks: &[Scheduled],
) -> Result<HashMap<String, DateTime<Utc>>, postgres::Error> {
    let column = |of: fn(&Scheduled) -> &str| tasks.iter().map(of).collect::<Vec<_>>();
    let due: Vec<Option<DateTime<Utc>>> = tasks.iter().map(|t| t.next_due_at).collect();
    let rows = client.query(
        "SELECT t.name, greatest(t.expected_since, (
           SELECT coalesce(r.due_at, r.started_at) FROM oa.runs r
           WHERE r.task = t.name AND r.started_at <= now() AND r.status <> 'abandoned' AND oa.takes_care(r, coalesce(r.due_at, r.started_at))
           ORDER BY r.started_at DESC LIMIT 1)) AS since
         FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) x (name, schedule, days, due) JOIN oa.tasks t USING (name)
         WHERE t.next_due_at > x.due AND t.schedule = x.schedule AND t.days = x.days",
        &[
            &column(|t| &t.name),
            &column(|t| &t.schedule),
            &column(|t| t.days.as_str()),
            &due,
        ],
    )?;
    let since = rows
        .iter()
        .filter_map(|r| Some((r.get(0), r.get::<_, Option<DateTime<Utc>>>(1)?)));
    Ok(since.collect())
}

/// Since when runs of the tasks are expected: what was due before is not missed.
///
/// # Errors
/// When PostgreSQL fails.
pub fn expected_since(
    client: &mut impl GenericClient,
    tasks: &[&str],
) -> Result<HashMap<String, DateTime<Utc>>, postgres::Error> {
    let rows = client.query(
        "SELECT name, least(expected_since, next_due_at) FROM oa.tasks WHERE name = ANY($1) AND coalesce(expected_since, next_due_at) IS NOT NULL",
        &[&tasks],
    )?;
    Ok(rows.iter().map(|r| (r.get(0), r.get(1))).collect())
}

/// A task that is run no more is not missed either, and no success of its will resolve the incident of its runs: that is resolved now. Returns
/// whether there is such a task.
///
/// # Errors
/// When PostgreSQL fails.
pub fn forget(client: &mut Client, task: &str) -> Result<bool, postgres::Error> {
    let mut tx = client.transaction()?;
    let forgotten = tx.query_opt(
        "UPDATE oa.tasks SET schedule = NULL, next_due_at = NULL, expected_since = NULL, forgotten_at = now() WHERE name = $1
         RETURNING coalesce(nullif(title, ''), name)",
        &[&task],
    )?;
    if let Some(row) = &forgotten {
        incidents::resolve_retired(&mut tx, task, row.get(0))?;
    }
    tx.commit()?;
    Ok(forgotten.is_some())
}

/// Of tasks and the moments at which they were due, the tasks that no run has taken care of (`oa.takes_care`). A run that was killed
/// does not count, unless it was the third: then it is the task that kills.
///
/// # Errors
/// When PostgreSQL fails.
pub fn overdue_tasks(
    client: &mut impl GenericClient,
    tasks: &[&str],
    due: &[DateTime<Utc>],
) -> Result<HashSet<String>, postgres::Error> {
    let rows = client.query(
        "SELECT t.task FROM unnest($1::text[], $2::timestamptz[]) t (task, due), LATERAL (
           SELECT count(*) FILTER (WHERE status <> 'abandoned') AS runs, count(*) FILTER (WHERE status = 'abandoned') AS killed
           FROM oa.runs r WHERE r.task = t.task AND r.started_at >= t.due AND oa.takes_care(r, t.due)) since
         WHERE since.runs = 0 AND since.killed < 3",
        &[&tasks, &due],
    )?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}

/// Of tasks, days, and the moments since which these are to be collected once more, the tasks that no run has done that for. What was
/// due before a task was expected is not. Killed runs count: a third one is the task that kills.
///
/// # Errors
/// When PostgreSQL fails.
pub fn not_collected_since(
    client: &mut impl GenericClient,
    tasks: &[&str],
    days: &[NaiveDate],
    since: &[DateTime<Utc>],
) -> Result<HashSet<String>, postgres::Error> {
    let rows = client.query(
        // The day of a run is known at its end; until then nobody can collect another one.
        "SELECT t.task FROM unnest($1::text[], $2::date[], $3::timestamptz[]) t (task, day, since)
         JOIN oa.tasks k ON k.name = t.task AND k.expected_since <= t.since, LATERAL (
           SELECT count(*) FILTER (WHERE r.status <> 'abandoned' AND (r.finished_at IS NULL OR r.details ->> 'day' = t.day::text)) AS runs,
                  count(*) FILTER (WHERE r.status = 'abandoned' AND r.other_day) AS killed
           FROM oa.runs r WHERE r.task = t.task AND r.status <> 'skipped' AND r.started_at BETWEEN t.since AND now() + interval '1 minute') later
         WHERE later.runs = 0 AND later.killed < 3",
        &[&tasks, &days, &since],
    )?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}
