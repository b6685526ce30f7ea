//! What earlier runs of a task say about what is to be expected of the next one.

use chrono::{NaiveDate, NaiveTime};
use postgres::Client;
use serde_json::Value;
use uuid::Uuid;

use crate::model::RawRecord;
use crate::pg::Session;

/// How many records a task has on such days by this time of day: the median of its last successful runs until then, one a day.
/// `None` when fewer than three of the days have one. `at` is a local time of `zone`.
///
/// # Errors
/// When PostgreSQL fails.
pub fn usual_count(
    session: &mut Session,
    task: &str,
    days: &[NaiveDate],
    at: NaiveTime,
    zone: &str,
) -> Result<Option<u64>, postgres::Error> {
    let row = session.query_opt(
        "SELECT count(*), percentile_disc(0.5) WITHIN GROUP (ORDER BY collected) FROM unnest($2::date[]) d, LATERAL (
           SELECT q.collected FROM oa.quality q JOIN oa.runs r ON r.id = q.run_id
           WHERE q.task = $1 AND q.day = d AND r.status = 'success'
             AND r.started_at >= d::timestamp AT TIME ZONE $4
             AND r.started_at < (d + $3::time + interval '5 minutes') AT TIME ZONE $4
           ORDER BY r.seq DESC LIMIT 1) last",
        &[&task, &days, &at, &zone],
    )?;
    let enough = row.filter(|row| row.get::<_, i64>(0) >= 3);
    let usual = enough.and_then(|row| row.get::<_, Option<i64>>(1));
    Ok(usual.map(i64::unsigned_abs))
}

/// The fields of a task's records and their kinds, as its last success left them; see [`Outcome::shape`](crate::model::Outcome::shape).
///
/// # Errors
/// When PostgreSQL fails.
pub fn shape(session: &mut Session, task: &str) -> Result<Option<Value>, postgres::Error> {
    let row = session.query_opt("SELECT shape FROM oa.tasks WHERE name = $1", &[&task])?;
    Ok(row.and_then(|r| r.get(0)))
}

/// The days of a span that a task has collected with success, and of which nothing since has shown that they are not complete: no later
/// run, and no slot that was missed after it.
///
/// # Errors
/// When PostgreSQL fails.
pub fn collected_days(
    client: &mut Client,
    task: &str,
    from: NaiveDate,
    to: NaiveDate,
) -> Result<Vec<NaiveDate>, postgres::Error> {
    let rows = client.query(
        "SELECT DISTINCT q.day FROM oa.quality q JOIN oa.runs r ON r.id = q.run_id
         WHERE q.task = $1 AND q.day BETWEEN $2 AND $3 AND r.status = 'success'
           AND NOT EXISTS (SELECT FROM oa.days d WHERE d.task = q.task AND d.day = q.day AND d.state IN ('partial', 'stale', 'failed'))
           AND NOT EXISTS (SELECT FROM oa.slots s WHERE s.task = q.task AND s.day = q.day AND s.owed AND s.state IN ('missed', 'unfetchable')
                           AND s.filled_by IS NULL)",
        &[&task, &from, &to],
    )?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}

/// What the last try of a run received: of the run that is named, else of the task's last one for that day that received
/// anything.
///
/// # Errors
/// When PostgreSQL fails.
pub fn answers(
    client: &mut Client,
    task: &str,
    day: NaiveDate,
    run: Option<Uuid>,
) -> Result<Option<(Uuid, Vec<RawRecord>)>, postgres::Error> {
    let found = client.query_opt(
        "SELECT r.id FROM oa.runs r WHERE r.task = $1 AND (r.id = $3 OR ($3 IS NULL AND r.details ->> 'day' = $2::text))
           AND EXISTS (SELECT 1 FROM oa.raw w WHERE w.run_id = r.id)
         ORDER BY r.seq DESC LIMIT 1",
        &[&task, &day.to_string(), &run],
    )?;
    let Some(id) = found.map(|r| r.get::<_, Uuid>(0)) else {
        return Ok(None);
    };
    let rows = client.query(
        "SELECT attempt, url, status, content_type, sha256, size_bytes, stored_bytes, fetched_at, part FROM oa.raw
         WHERE run_id = $1 AND attempt = (SELECT max(attempt) FROM oa.raw WHERE run_id = $1) ORDER BY seq",
        &[&id],
    )?;
    let raw = rows.iter().map(|r| RawRecord {
        attempt: r.get::<_, i32>(0).unsigned_abs(),
        url: r.get(1),
        status: u16::try_from(r.get::<_, i32>(2)).unwrap_or_default(),
        content_type: r.get(3),
        sha256: r.get(4),
        size_bytes: r.get::<_, i64>(5).unsigned_abs(),
        stored_bytes: r.get::<_, i64>(6).unsigned_abs(),
        fetched_at: r.get(7),
        part: r.get(8),
    });
    Ok(Some((id, raw.collect())))
}
