//! The facts of the run log.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::base::clock;
use crate::base::pile::Pile;
use crate::base::supervise::ProcessId;
use crate::base::text::error_text;
use crate::model::retry::ErrorKind;

/// State of a run. The first two are not final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The first try is under way.
    Running,
    /// A try failed, another follows.
    Retrying,
    /// All that was due is stored.
    Success,
    /// Something is stored, but not all that was due.
    Partial,
    /// Nothing could be stored.
    Failed,
    /// The last try took too long.
    Timeout,
    /// Not begun, because the task runs already.
    Skipped,
    /// The process ended without a word; found later.
    Abandoned,
}

impl Status {
    /// The name under which it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Success => "success",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Skipped => "skipped",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Who started the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// A crontab line.
    Cron,
    /// A person or a script.
    #[default]
    Manual,
    /// `run --due`.
    Due,
    /// `backfill`.
    Backfill,
}

impl Trigger {
    /// The name under which it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cron => "cron",
            Self::Manual => "manual",
            Self::Due => "due",
            Self::Backfill => "backfill",
        }
    }
}

/// What is known when a run begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStart {
    /// UUID version 7, of when it begins.
    pub id: Uuid,
    /// The program.
    pub tool: String,
    /// The task's fixed name.
    pub task: String,
    /// The task's title for people.
    pub title: String,
    /// The task's schedule as its source gives it.
    pub schedule: Option<String>,
    /// Who started it.
    pub trigger: Trigger,
    /// When (UTC).
    pub started_at: DateTime<Utc>,
    /// The process that does it.
    pub process: ProcessId,
    /// The program's version.
    pub version: String,
    /// How long this run holds the task without a sign of life.
    pub lease: Duration,
    /// When its slot was due (UTC), where it is for one; it does not begin when another machine has done that.
    #[serde(default)]
    pub due_at: Option<DateTime<Utc>>,
    /// The day it is about, where it is about one.
    #[serde(default)]
    pub day: Option<NaiveDate>,
    /// It is about another day than the one on which it starts, and so is for no slot. Found out when it begins.
    #[serde(default)]
    pub other_day: bool,
    /// What the server's clock was ahead of this machine's, in seconds. Set: all times of this run are corrected by it; `None`: they are
    /// this machine's own.
    #[serde(default)]
    pub clock_offset: Option<f64>,
}

impl RunStart {
    /// A run of this process that begins now.
    #[must_use]
    pub fn now(
        tool: &str,
        version: &str,
        task: &str,
        title: &str,
        trigger: Trigger,
        lease: Duration,
    ) -> Self {
        Self {
            id: Uuid::now_v7(),
            tool: tool.to_owned(),
            task: task.to_owned(),
            title: title.to_owned(),
            schedule: None,
            trigger,
            started_at: clock::now(),
            process: ProcessId::current(),
            version: version.to_owned(),
            lease,
            due_at: None,
            day: None,
            other_day: false,
            clock_offset: None,
        }
    }

    /// Corrects times that are this machine's own; see [`RunStart::clock_offset`].
    pub fn on_server_clock(&mut self, offset: TimeDelta) {
        if self.clock_offset.is_none() {
            self.clock_offset = Some(offset.as_seconds_f64());
            self.started_at += offset;
        }
    }

    /// Finds out whether it is about another day than the one on which it starts.
    pub fn compare_days(&mut self, zone: Tz) {
        let today = self.started_at.with_timezone(&zone).date_naive();
        self.other_day = self.due_at.is_none() && self.day.is_some_and(|day| day != today);
    }
}

/// Why a try, or a run, failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// The kind, which decides about retries.
    pub kind: ErrorKind,
    /// What happened, to which thing; without secrets.
    pub message: String,
}

impl RunError {
    /// An error whose message is redacted, freed of control characters and cut on the way in, see [`error_text`].
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl AsRef<str>) -> Self {
        Self {
            kind,
            message: error_text(message.as_ref()),
        }
    }
}

/// One try.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// When it began (UTC).
    pub started_at: DateTime<Utc>,
    /// When it ended: the beginning plus the time that a clock that never jumps has measured.
    pub finished_at: DateTime<Utc>,
    /// `Success`, `Partial`, `Failed` or `Timeout`.
    pub outcome: Status,
    /// Why, unless it succeeded.
    pub error: Option<RunError>,
}

/// One answer in the raw archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawRecord {
    /// The try it belongs to.
    pub attempt: u32,
    /// The address, without secrets.
    pub url: String,
    /// What the answer is of, when a run asks for several things.
    #[serde(default)]
    pub part: Option<String>,
    /// HTTP status.
    pub status: u16,
    /// The `content-type` header.
    pub content_type: Option<String>,
    /// SHA-256 of the body in hexadecimal; also its file's name.
    pub sha256: String,
    /// Size of the body.
    pub size_bytes: u64,
    /// Size of its file.
    pub stored_bytes: u64,
    /// When it was received (UTC).
    pub fetched_at: DateTime<Utc>,
}

/// A record that was not stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reject {
    /// The table it was meant for.
    pub target: Option<String>,
    /// The record's key at the source, where it has one.
    pub source_key: Option<String>,
    /// The field that is wrong.
    pub field: Option<String>,
    /// What is wrong with it.
    pub reason: String,
    /// The record as it came.
    pub record: Value,
}

/// Rows for one table. Serialisable, because it waits in the spool while PostgreSQL is down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Schema of the table.
    pub schema: String,
    /// The table.
    pub table: String,
    /// Columns that every row gives a value for, in this order.
    pub columns: Vec<String>,
    /// The natural key: SQL expressions over the columns, as in the table's unique index.
    pub key: Vec<String>,
    /// The rows' values, in the columns' order.
    pub rows: Pile<Vec<Value>>,
    /// When the rows were collected; becomes `created_at` and `updated_at` where the table has them.
    pub collected_at: DateTime<Utc>,
    /// The zone in which the service's naive times are written.
    pub timezone: String,
    /// A table of newest values, which is filled besides: a row that has a later value in this column stays as it is. What is done there
    /// is not counted, and where the table is not fit for it, that is a finding and no failure.
    #[serde(default)]
    pub newest_by: Option<String>,
}

impl Batch {
    /// Some of its rows as a JSON array of objects.
    #[must_use]
    pub fn json(&self, rows: &[Vec<Value>]) -> String {
        let object = |row: &Vec<Value>| -> Map<String, Value> {
            let columns = self.columns.iter().cloned();
            columns.zip(row.iter().cloned()).collect()
        };
        let objects: Vec<Value> = rows.iter().map(object).map(Value::Object).collect();
        Value::Array(objects).to_string()
    }
}

/// How good what was collected is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// The day the data are of.
    pub day: Option<NaiveDate>,
    /// Records that the source announced.
    pub expected: Option<u64>,
    /// Different records that came.
    pub collected: u64,
    /// Records that came twice.
    pub duplicates: u64,
    /// Whether the data are of the day that was asked for; `None` when the source does not tell.
    pub fresh: Option<bool>,
    /// What was noticed, in sentences.
    pub findings: Vec<String>,
}

impl Quality {
    /// Share of the announced records that came, 0 to 1.
    #[must_use]
    pub fn completeness(&self) -> Option<f64> {
        let expected = self.expected.filter(|n| *n > 0)?;
        Some((self.collected as f64 / expected as f64).min(1.0))
    }

    /// 0 to 100: completeness, minus the share that was rejected, minus 30 when the data are of another day.
    #[must_use]
    pub fn score(&self, rejected: u64) -> i32 {
        let complete = self
            .completeness()
            .unwrap_or(if self.collected > 0 { 1.0 } else { 0.0 });
        let good = if self.collected > 0 {
            1.0 - (rejected as f64 / self.collected as f64).min(1.0)
        } else {
            0.0
        };
        let stale = if self.fresh == Some(false) { 30.0 } else { 0.0 };
        (100.0 * complete * good - stale).clamp(0.0, 100.0).round() as i32
    }
}

/// What came for a day of a source, beside its records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayOutcome {
    /// The day.
    pub day: NaiveDate,
    /// SHA-256 of its records in hexadecimal, whatever their order, without what the run itself has put in; `None` when none came.
    pub content: Option<String>,
    /// That it has the content of an earlier day is normal.
    pub may_repeat: bool,
    /// By what it is known that these are all, when they are.
    pub evidence: Option<Evidence>,
    /// How many such days usually have by this time.
    pub usual: Option<u64>,
}

/// By what it is known that a day is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// The site says how many there are.
    Total,
    /// The end of the list, as the source says how it is known.
    End,
    /// Such days usually have no more.
    History,
}

impl Evidence {
    /// The name under which it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::End => "end",
            Self::History => "history",
        }
    }
}

/// How a run ended, with everything that has to be stored together with that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The run.
    pub start: RunStart,
    /// A final state.
    pub status: Status,
    /// When it ended (UTC).
    pub finished_at: DateTime<Utc>,
    /// All tries.
    pub attempts: Vec<Attempt>,
    /// Records that came.
    pub fetched: u64,
    /// Why, unless it succeeded.
    pub error: Option<RunError>,
    /// Rows to store.
    pub batches: Vec<Batch>,
    /// Records that are not stored.
    pub rejects: Vec<Reject>,
    /// More of them than this share (0 to 1), those that PostgreSQL refuses included, and the run is no success.
    #[serde(default = "tenth")]
    pub max_rejected: f64,
    /// Answers in the archive.
    pub raw: Vec<RawRecord>,
    /// Findings about the data.
    pub quality: Option<Quality>,
    /// The day that the run was for, where it is one of `oa.days`.
    #[serde(default)]
    pub day: Option<DayOutcome>,
    /// Anything else worth keeping.
    pub details: Map<String, Value>,
    /// When the task is due next (UTC); `None` keeps what is known.
    pub next_due_at: Option<DateTime<Utc>>,
    /// The fields of the records and their kinds, kept for comparison with the next run's; `None` keeps what is there.
    #[serde(default)]
    pub shape: Option<Value>,
    /// So many failed runs in a row before somebody is notified.
    #[serde(default = "one")]
    pub alert_after: u32,
    /// An alert of this outcome was already put into the spool; none is made when it is replayed.
    #[serde(default)]
    pub alerted: bool,
    /// What is wrong stands in rows that a rule of `oa-alert check` reads, and that rule reports it: the run itself does not, or one
    /// incident would be reported twice. When those rows cannot be stored, or not now, the run reports it all the same.
    #[serde(default, alias = "told_by_check")]
    pub reported_by_check: bool,
}

fn one() -> u32 {
    1
}

/// As where a source does not say it.
fn tenth() -> f64 {
    0.1
}

impl Outcome {
    /// An outcome without data.
    #[must_use]
    pub fn bare(start: RunStart, status: Status, finished_at: DateTime<Utc>) -> Self {
        Self {
            start,
            status,
            finished_at,
            attempts: Vec::new(),
            fetched: 0,
            error: None,
            batches: Vec::new(),
            rejects: Vec::new(),
            max_rejected: tenth(),
            raw: Vec::new(),
            quality: None,
            day: None,
            details: Map::new(),
            next_due_at: None,
            shape: None,
            alert_after: 1,
            alerted: false,
            reported_by_check: false,
        }
    }

    /// Corrects times that are this machine's own; see [`RunStart::clock_offset`].
    pub fn on_server_clock(&mut self, offset: TimeDelta) {
        if self.start.clock_offset.is_some() {
            return;
        }
        self.start.on_server_clock(offset);
        self.finished_at += offset;
        self.shift(offset);
    }

    /// Makes of it the failure of a run whose rows cannot be stored. What they were made of is in the raw archive.
    pub(crate) fn fail_without_rows(&mut self, error: &RunError) {
        self.status = Status::Failed;
        self.error = Some(error.clone());
        self.batches.clear();
        self.reported_by_check = false;
        if let Some(last) = self.attempts.last_mut() {
            last.outcome = Status::Failed;
            last.error = Some(error.clone());
        }
    }

    /// Whatever clock has measured it, it has ended by now.
    pub fn not_after(&mut self, now: DateTime<Utc>) {
        if self.finished_at > now {
            let by = now - self.finished_at;
            self.start.started_at += by;
            self.finished_at += by;
            self.shift(by);
        }
    }

    fn shift(&mut self, offset: TimeDelta) {
        for attempt in &mut self.attempts {
            attempt.started_at += offset;
            attempt.finished_at += offset;
        }
        for raw in &mut self.raw {
            raw.fetched_at += offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_falls_with_what_is_missing_rejected_or_stale() {
        let quality = |expected, collected, fresh| Quality {
            day: None,
            expected,
            collected,
            duplicates: 0,
            fresh,
            findings: vec![],
        };
        assert_eq!(quality(Some(100), 100, Some(true)).score(0), 100);
        assert_eq!(quality(Some(2434), 100, None).score(0), 4);
        assert_eq!(quality(None, 75, None).score(0), 100);
        assert_eq!(quality(Some(100), 100, Some(false)).score(10), 60);
        assert_eq!(quality(None, 0, None).score(0), 0);
    }
}
