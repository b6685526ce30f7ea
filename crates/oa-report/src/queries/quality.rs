//! How good what was collected is: the last run of each task that collected, or the history of one.

use chrono::{DateTime, NaiveDate, Utc};
use postgres::GenericClient;
use postgres::types::Json;
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::{Result, redacted_texts};

/// How good the data of one run were.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Quality {
    /// Its task.
    pub(crate) task: String,
    /// The task's title for people.
    pub(crate) title: String,
    /// The run.
    pub(crate) run_id: Uuid,
    /// When it started (UTC).
    pub(crate) started_at: DateTime<Utc>,
    /// How it ended.
    pub(crate) status: String,
    /// The day the data are of.
    pub(crate) day: Option<NaiveDate>,
    /// Records that the source announced.
    pub(crate) expected: Option<i64>,
    /// Different records that came.
    pub(crate) collected: i64,
    /// Share of the announced ones, 0 to 1.
    pub(crate) completeness: Option<f64>,
    /// Records that came twice.
    pub(crate) duplicates: i64,
    /// Records that were not stored.
    pub(crate) rejected: i64,
    /// Whether the data are of the day that was asked for.
    pub(crate) fresh: Option<bool>,
    /// 0 to 100: completeness, minus what was rejected, minus 30 when the data are of another day.
    pub(crate) score: i32,
    /// What was noticed, in sentences.
    pub(crate) findings: Vec<String>,
}

const COLUMNS: &str = "q.task, coalesce(nullif(t.title, ''), q.task), q.run_id, r.started_at, r.status, q.day, q.expected, q.collected, q.completeness,
    q.duplicates, r.rejected, q.fresh, q.score, q.findings";

fn quality(row: &postgres::Row) -> Result<Quality> {
    let Json(findings): Json<Vec<String>> = row.try_get(13)?;
    Ok(Quality {
        task: row.get(0),
        title: row.get(1),
        run_id: row.get(2),
        started_at: row.get(3),
        status: row.get(4),
        day: row.get(5),
        expected: row.get(6),
        collected: row.get(7),
        completeness: row.get(8),
        duplicates: row.get(9),
        rejected: row.get(10),
        fresh: row.get(11),
        score: row.get(12),
        findings: redacted_texts(&findings),
    })
}

/// The last run of each task that collected, the worst first.
pub(crate) fn last(client: &mut impl GenericClient, skip: &[String]) -> Result<Vec<Quality>> {
    let rows = client.query(
        &format!(
            "SELECT {COLUMNS} FROM oa.tasks t, LATERAL (SELECT * FROM oa.quality q WHERE q.task = t.name ORDER BY q.run_id DESC LIMIT 1) q
             JOIN oa.runs r ON r.id = q.run_id
             WHERE t.name <> ALL($1) AND (t.forgotten_at IS NULL OR t.forgotten_at < t.last_started_at) ORDER BY q.score, q.task"
        ),
        &[&skip],
    )?;
    rows.iter().map(quality).collect()
}

/// The last runs of a task that collected, newest first, and the run before which the next page begins.
pub(crate) fn of(
    client: &mut impl GenericClient,
    task: &str,
    before: Option<Uuid>,
    limit: u16,
) -> Result<(Vec<Quality>, Option<Uuid>)> {
    let rows = client.query(
        &format!(
            "SELECT {COLUMNS} FROM oa.quality q JOIN oa.runs r ON r.id = q.run_id LEFT JOIN oa.tasks t ON t.name = q.task
             WHERE q.task = $1 AND q.run_id < $2 ORDER BY q.run_id DESC LIMIT $3"
        ),
        &[&task, &before.unwrap_or(Uuid::max()), &(i64::from(limit) + 1)],
    )?;
    let mut all = rows.iter().map(quality).collect::<Result<Vec<Quality>>>()?;
    let more = all.len() > usize::from(limit);
    all.truncate(usize::from(limit));
    let next = all.last().map(|q| q.run_id).filter(|_| more);
    Ok((all, next))
}
