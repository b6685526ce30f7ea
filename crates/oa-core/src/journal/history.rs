//! What earlier runs of a task say about what is to be expected of the next one.

use chrono::{NaiveDate, NaiveTime};
use postgres::Client;
use serde_json::Value;

/// How many records a task has on such days by this time of day: the median of its last successful runs until then, one a day.
/// `None` when fewer than three of the days have one. `at` is a local time of `zone`.
///
/// # Errors
/// When PostgreSQL fails.
pub fn usual_count(
    client: &mut Client,
    task: &str,
    days: &[NaiveDate],
    at: NaiveTime,
    zone: &str,
) -> Result<Option<u64>, postgres::Error> {
    let row = client.query_one(
        "SELECT count(*), percentile_disc(0.5) WITHIN GROUP (ORDER BY collected) FROM unnest($2::date[]) d, LATERAL (
           SELECT q.collected FROM oa.quality q JOIN oa.runs r ON r.id = q.run_id
           WHERE q.task = $1 AND q.day = d AND r.status = 'success'
             AND r.started_at >= d::timestamp AT TIME ZONE $4
             AND r.started_at < (d + $3::time + interval '5 minutes') AT TIME ZONE $4
           ORDER BY r.seq DESC LIMIT 1) last",
        &[&task, &days, &at, &zone],
    )?;
    let enough = row.get::<_, i64>(0) >= 3;
    Ok(row
        .get::<_, Option<i64>>(1)
        .filter(|_| enough)
        .map(i64::unsigned_abs))
}

/// The fields of a task's records and their kinds, as its last success left them; see [`super::Outcome::shape`].
///
/// # Errors
/// When PostgreSQL fails.
pub fn shape(client: &mut Client, task: &str) -> Result<Option<Value>, postgres::Error> {
    let row = client.query_opt("SELECT shape FROM oa.tasks WHERE name = $1", &[&task])?;
    Ok(row.and_then(|r| r.get(0)))
}
