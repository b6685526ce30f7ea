//! What the API gives and takes.

use chrono::{DateTime, NaiveDate, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::queries::alerts::{AlertEntry, HeldSilence, Incident};
use crate::queries::backups::{Backup, Drill, Size, Status};
use crate::queries::days::{SourceDay, Summary};
use crate::queries::logs::Entry;
use crate::queries::quality::Quality;
use crate::queries::requests::RequestEntry;

/// A page of the run log.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LogsAnswer {
    /// Newest first.
    pub(crate) logs: Vec<Entry>,
    /// `before` of the next page; null on the last one.
    pub(crate) next: Option<Uuid>,
}

/// What sources owe for each day, and what came.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DaysAnswer {
    /// The first day.
    pub(crate) from: NaiveDate,
    /// The last day.
    pub(crate) to: NaiveDate,
    /// By source and day.
    pub(crate) days: Vec<SourceDay>,
    /// How complete that is: it stands last, when all are known.
    pub(crate) summary: Summary,
}

impl DaysAnswer {
    /// What stands before its days and behind them, of one that holds none.
    pub(crate) fn around(&self) -> (String, String) {
        let whole = serde_json::to_string(self).unwrap_or_default();
        let (before, behind) = whole.split_once("[]").unwrap_or_default();
        (format!("{before}["), format!("]{behind}"))
    }
}

/// Open incidents, and alerts.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AlertsAnswer {
    /// Open incidents.
    pub(crate) open: Vec<Incident>,
    /// Alerts, newest first.
    pub(crate) alerts: Vec<AlertEntry>,
    /// `before` of the next page; null on the last one.
    pub(crate) next: Option<Uuid>,
}

/// What somebody acknowledges.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ack {
    /// The incident.
    #[schemars(length(min = 1, max = 500), regex(pattern = "^[^\\u0000]+$"))]
    pub(crate) fingerprint: String,
    /// What others should know.
    #[serde(default)]
    #[schemars(length(max = 500), regex(pattern = "^[^\\u0000]*$"))]
    pub(crate) note: String,
}

/// What was acknowledged.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AckAnswer {
    /// The incident.
    pub(crate) fingerprint: String,
    /// The name of the token.
    pub(crate) by: String,
    /// What others should know.
    pub(crate) note: String,
}

/// What somebody asks for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Ask {
    /// Collect a source now.
    Run {
        /// The source.
        #[schemars(length(min = 1, max = 200), regex(pattern = "^[^\\u0000]+$"))]
        task: String,
        /// The day to collect; without it, the present one.
        #[serde(default)]
        day: Option<NaiveDate>,
    },
    /// Collect the days of a source that are not there.
    Backfill {
        /// The source.
        #[schemars(length(min = 1, max = 200), regex(pattern = "^[^\\u0000]+$"))]
        task: String,
        /// The first day.
        from: NaiveDate,
        /// The last day, at most 400 days after the first.
        to: NaiveDate,
    },
    /// Send a test message.
    TestChannel {
        /// The channel.
        #[schemars(length(min = 1, max = 200), regex(pattern = "^[^\\u0000]+$"))]
        channel: String,
    },
}

/// What was asked for.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AskAnswer {
    /// Its number; the same while what was asked for before is not done.
    pub(crate) id: i64,
}

/// What people asked for.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RequestsAnswer {
    /// Newest first.
    pub(crate) requests: Vec<RequestEntry>,
}

/// Silences.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SilencesAnswer {
    /// By their number.
    pub(crate) silences: Vec<HeldSilence>,
}

/// How good the collected data are.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct QualityAnswer {
    /// The last run of each task that collected, worst first; or those of the task that was named, newest first.
    pub(crate) quality: Vec<Quality>,
    /// `before` of the next page; null on the last one.
    pub(crate) next: Option<Uuid>,
}

/// Whether the backups can be relied on.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct BackupStatusAnswer<'a> {
    /// What is known.
    #[serde(flatten)]
    pub(crate) status: &'a Status,
    /// When it was taken (UTC).
    pub(crate) timestamp: DateTime<Utc>,
    /// PostgreSQL does not answer, and this is the last that is known.
    pub(crate) stale: bool,
}

/// Backups.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct BackupsAnswer {
    /// Newest first.
    pub(crate) backups: Vec<Backup>,
    /// `before` of the next page; null on the last one.
    pub(crate) next: Option<String>,
}

/// Rehearsed restores, and how the repositories grow.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DrillsAnswer {
    /// Newest first.
    pub(crate) drills: Vec<Drill>,
    /// Sizes of the last 90 days, oldest first.
    pub(crate) repositories: Vec<Size>,
}

/// The process runs.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AliveAnswer {
    /// Always `ok`.
    pub(crate) status: &'static str,
    /// The program.
    pub(crate) program: &'static str,
    /// Its version.
    pub(crate) version: &'static str,
}

/// PostgreSQL answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ReadyAnswer {
    /// Always `ok`.
    pub(crate) status: &'static str,
}
