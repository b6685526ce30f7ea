//! One run with everything that belongs to it.

use chrono::{DateTime, NaiveDate, Utc};
use postgres::GenericClient;
use postgres::types::Json;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::history::{self, RecentRun};
use super::logs::{COLUMNS, Entry, entry};
use super::{Result, number, redacted, redacted_texts, some_text, text};

/// Most rejected records of one page.
pub(crate) const MOST_REJECTS: i64 = 200;
/// So many runs before it are compared with it.
const HISTORY: i64 = 30;

/// A run in full.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct RunDetail {
    /// As in the log.
    #[serde(flatten)]
    pub(crate) run: Entry,
    /// Its task's title for people.
    pub(crate) title: String,
    /// The program.
    pub(crate) tool: String,
    /// The program's version.
    pub(crate) version: String,
    /// Its process on the machine.
    pub(crate) pid: i32,
    /// Records that came.
    pub(crate) fetched: u64,
    /// Rows that were there just so.
    pub(crate) unchanged: u64,
    /// What kind of error it was.
    pub(crate) error_kind: Option<String>,
    /// What else the program noted.
    pub(crate) details: Value,
    /// The run of the task before it.
    pub(crate) previous: Option<Uuid>,
    /// The run of the task after it.
    pub(crate) next: Option<Uuid>,
    /// The last 30 runs of the task up to this one, oldest first.
    pub(crate) history: Vec<RecentRun>,
    /// Each attempt.
    pub(crate) attempts: Vec<Attempt>,
    /// How good the data were.
    pub(crate) quality: Option<RunQuality>,
    /// What was received, before anything was made of it.
    pub(crate) raw: Vec<Raw>,
    /// Records that were not stored; at most 200, `rejected` says how many there are.
    pub(crate) rejects: Vec<Reject>,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Attempt {
    /// 1 for the first.
    pub(crate) attempt: i32,
    /// When it began (UTC).
    pub(crate) started_at: DateTime<Utc>,
    /// When it ended (UTC).
    pub(crate) finished_at: DateTime<Utc>,
    /// success, partial, failed or timeout.
    pub(crate) outcome: String,
    /// What kind of error it was.
    pub(crate) error_kind: Option<String>,
    /// What was wrong.
    pub(crate) error: Option<String>,
}

/// How good the data of a run were.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct RunQuality {
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
    /// Whether the data are of the day that was asked for.
    pub(crate) fresh: Option<bool>,
    /// 0 to 100.
    pub(crate) score: i32,
    /// What was noticed, in sentences.
    pub(crate) findings: Vec<String>,
}

/// One answer in the raw archive.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Raw {
    /// Its number within the run.
    pub(crate) seq: i32,
    /// The attempt it belongs to.
    pub(crate) attempt: i32,
    /// What the answer is of, when a run asks for several things.
    pub(crate) part: Option<String>,
    /// The address.
    pub(crate) url: String,
    /// HTTP status.
    pub(crate) status: i32,
    /// The `content-type` header.
    pub(crate) content_type: Option<String>,
    /// SHA-256 of the body; also its file's name in the archive.
    pub(crate) sha256: String,
    /// Size of the body in bytes.
    pub(crate) size_bytes: i64,
    /// When it was received (UTC).
    pub(crate) fetched_at: DateTime<Utc>,
}

/// One record that was not stored.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Reject {
    /// Its number within the run.
    pub(crate) seq: i64,
    /// The table it was meant for.
    pub(crate) target: Option<String>,
    /// Its key at the source.
    pub(crate) source_key: Option<String>,
    /// The field that is wrong.
    pub(crate) field: Option<String>,
    /// What is wrong with it.
    pub(crate) reason: String,
    /// The record as it came; a text where JSON cannot hold it.
    pub(crate) record: Value,
}

pub(crate) fn detail(client: &mut impl GenericClient, id: Uuid) -> Result<Option<RunDetail>> {
    let Some(row) = client.query_opt(
        &format!(
            "SELECT {COLUMNS}, coalesce(nullif(t.title, ''), r.task), r.tool, r.version, r.pid, r.fetched, r.unchanged, r.error_kind,
                    CASE WHEN length(r.details::text) <= 400000 THEN r.details ELSE jsonb_build_object('cut', left(r.details::text, 100000)) END
             FROM oa.runs r LEFT JOIN oa.tasks t ON t.name = r.task WHERE r.id = $1"
        ),
        &[&id],
    )?
    else {
        return Ok(None);
    };
    let task: String = row.get(1);
    let (previous, next) = neighbours(client, &task, id)?;
    Ok(Some(RunDetail {
        previous,
        next,
        history: history::up_to(client, &task, id, HISTORY)?,
        run: entry(&row),
        title: row.get(14),
        tool: row.get(15),
        version: row.get(16),
        pid: row.get(17),
        fetched: number(&row, 18),
        unchanged: number(&row, 19),
        error_kind: row.get(20),
        details: redacted(row.get(21)),
        attempts: attempts(client, id)?,
        quality: quality(client, id)?,
        raw: raw(client, id)?,
        rejects: rejects(client, id)?,
    }))
}

/// The runs before and after one of its task that were not skipped.
fn neighbours(
    client: &mut impl GenericClient,
    task: &str,
    id: Uuid,
) -> Result<(Option<Uuid>, Option<Uuid>)> {
    let row = client.query_one(
        "WITH this AS (SELECT seq FROM oa.runs WHERE id = $2)
         SELECT (SELECT id FROM oa.runs WHERE task = $1 AND seq < (SELECT seq FROM this) AND status <> 'skipped' ORDER BY seq DESC LIMIT 1),
                (SELECT id FROM oa.runs WHERE task = $1 AND seq > (SELECT seq FROM this) AND status <> 'skipped' ORDER BY seq LIMIT 1)",
        &[&task, &id],
    )?;
    Ok((row.get(0), row.get(1)))
}

/// The answer of a run with this number: its SHA-256, and its type.
pub(crate) fn raw_answer(
    client: &mut impl GenericClient,
    id: Uuid,
    seq: i32,
) -> Result<Option<(String, Option<String>)>> {
    let row = client.query_opt(
        "SELECT sha256, content_type FROM oa.raw WHERE run_id = $1 AND seq = $2",
        &[&id, &seq],
    )?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

/// A task, and when it began and ended.
type Span = (String, DateTime<Utc>, Option<DateTime<Utc>>);

/// The task of a run, and when it was.
pub(crate) fn span(client: &mut impl GenericClient, id: Uuid) -> Result<Option<Span>> {
    let row = client.query_opt(
        "SELECT task, started_at, finished_at FROM oa.runs WHERE id = $1",
        &[&id],
    )?;
    Ok(row.map(|row| (row.get(0), row.get(1), row.get(2))))
}

fn attempts(client: &mut impl GenericClient, id: Uuid) -> Result<Vec<Attempt>> {
    let rows = client.query(
        "SELECT attempt, started_at, finished_at, outcome, error_kind, left(error_message, 8000) FROM oa.attempts WHERE run_id = $1 ORDER BY attempt",
        &[&id],
    )?;
    let attempt = |row: &postgres::Row| Attempt {
        attempt: row.get(0),
        started_at: row.get(1),
        finished_at: row.get(2),
        outcome: row.get(3),
        error_kind: row.get(4),
        error: some_text(row, 5),
    };
    Ok(rows.iter().map(attempt).collect())
}

fn quality(client: &mut impl GenericClient, id: Uuid) -> Result<Option<RunQuality>> {
    let row = client.query_opt(
        "SELECT day, expected, collected, completeness, duplicates, fresh, score,
                CASE WHEN length(findings::text) <= 100000 THEN findings ELSE jsonb_build_array(left(findings::text, 8000)) END FROM oa.quality WHERE run_id = $1",
        &[&id],
    )?;
    let Some(row) = row else {
        return Ok(None);
    };
    let Json(findings): Json<Vec<String>> = row.try_get(7)?;
    Ok(Some(RunQuality {
        day: row.get(0),
        expected: row.get(1),
        collected: row.get(2),
        completeness: row.get(3),
        duplicates: row.get(4),
        fresh: row.get(5),
        score: row.get(6),
        findings: redacted_texts(&findings),
    }))
}

fn raw(client: &mut impl GenericClient, id: Uuid) -> Result<Vec<Raw>> {
    let rows = client.query(
        "SELECT attempt, part, left(url, 8000), status, content_type, sha256, size_bytes, fetched_at, seq FROM oa.raw WHERE run_id = $1 ORDER BY seq LIMIT 500",
        &[&id],
    )?;
    let raw = |row: &postgres::Row| Raw {
        attempt: row.get(0),
        part: row.get(1),
        url: text(row, 2),
        status: row.get(3),
        content_type: row.get(4),
        sha256: row.get(5),
        size_bytes: row.get(6),
        fetched_at: row.get(7),
        seq: row.get(8),
    };
    Ok(rows.iter().map(raw).collect())
}

fn rejects(client: &mut impl GenericClient, id: Uuid) -> Result<Vec<Reject>> {
    let rows = client.query(
        "SELECT seq, target, left(source_key, 8000), left(field, 8000), left(reason, 8000),
                CASE WHEN length(record::text) <= 16000 THEN record ELSE to_jsonb(left(record::text, 8000)) END, substr(raw, 1, 8000) FROM oa.rejects WHERE run_id = $1 ORDER BY seq LIMIT $2",
        &[&id, &MOST_REJECTS],
    )?;
    let reject = |row: &postgres::Row| Reject {
        seq: row.get(0),
        target: row.get(1),
        source_key: row.get(2),
        field: row.get(3),
        reason: text(row, 4),
        record: redacted(row.get::<_, Option<Value>>(5).unwrap_or_else(|| {
            row.get::<_, Option<&[u8]>>(6).map_or(Value::Null, |bytes| {
                Value::String(String::from_utf8_lossy(bytes).into_owned())
            })
        })),
    };
    Ok(rows.iter().map(reject).collect())
}
