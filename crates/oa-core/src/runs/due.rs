//! Which tasks there are, and which of them nobody has taken care of since they were due.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use postgres::{Client, GenericClient};

use crate::alerts::{self, Policy};
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
        "INSERT INTO oa.tasks AS t (name, tool, title, schedule, next_due_at, days, sessions)
         SELECT n, $1, i, s, d, a, string_to_array(e, ' ')
         FROM unnest($2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::text[]) x (n, i, s, d, a, e)
         ON CONFLICT (name) DO UPDATE SET schedule = excluded.schedule, title = excluded.title, days = excluded.days, sessions = excluded.sessions,
           next_due_at = excluded.next_due_at, forgotten_at = NULL
         WHERE (t.schedule, t.days, t.sessions) IS DISTINCT FROM (excluded.schedule, excluded.days, excluded.sessions)
            -- Only a clock that was ahead can have seen no earlier moment.
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

/// A task that is run no more is not missed either, and no success of its will end the trouble of its runs: that is over now. Returns
/// whether there is such a task.
///
/// # Errors
/// When PostgreSQL fails.
pub fn forget(client: &mut Client, task: &str, policy: &Policy) -> Result<bool, postgres::Error> {
    let mut tx = client.transaction()?;
    let forgotten = tx.query_opt(
        "UPDATE oa.tasks SET schedule = NULL, next_due_at = NULL, forgotten_at = now() WHERE name = $1
         RETURNING coalesce(nullif(title, ''), name)",
        &[&task],
    )?;
    if let Some(row) = &forgotten {
        alerts::given_up(&mut tx, task, row.get(0), policy)?;
    }
    tx.commit()?;
    Ok(forgotten.is_some())
}

/// Of tasks and the moments at which they were due, the tasks that no run has taken care of (`oa.takes_care`). A run that was killed
/// does not count, unless it was the third: then it is the task that kills.
///
/// # Errors
/// When PostgreSQL fails.
pub fn not_taken_care_of(
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
