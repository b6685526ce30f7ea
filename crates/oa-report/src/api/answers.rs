//! What the API gives and takes.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::queries::alerts::{Told, Trouble};
use crate::queries::backups::{Backup, Drill, Size, Status};
use crate::queries::health::TaskHealth;
use crate::queries::history::{Day, Mark};
use crate::queries::logs::Entry;
use crate::queries::quality::Quality;

/// A page of the run log.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LogsAnswer {
    /// Newest first.
    pub logs: Vec<Entry>,
    /// `before` of the next page; null on the last one.
    pub next: Option<Uuid>,
}

/// A task.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TaskAnswer {
    /// How it is.
    pub task: TaskHealth,
    /// Its last 48 runs, oldest first.
    pub runs: Vec<Mark>,
    /// Its last 30 days on which it ran, oldest first.
    pub days: Vec<Day>,
}

/// Troubles and alerts.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AlertsAnswer {
    /// What is wrong and not over.
    pub open: Vec<Trouble>,
    /// What was told, newest first.
    pub alerts: Vec<Told>,
    /// `before` of the next page; null on the last one.
    pub next: Option<Uuid>,
}

/// What somebody takes on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    /// The trouble.
    #[schemars(length(min = 1, max = 500), regex(pattern = "^[^\\u0000]+$"))]
    pub fingerprint: String,
    /// What others should know.
    #[serde(default)]
    #[schemars(length(max = 500), regex(pattern = "^[^\\u0000]*$"))]
    pub note: String,
}

/// What was taken on.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AckAnswer {
    /// The trouble.
    pub fingerprint: String,
    /// The name of the token.
    pub by: String,
    /// What others should know.
    pub note: String,
}

/// How good what was collected is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct QualityAnswer {
    /// The last run of each task that collected, worst first; or those of the task that was named, newest first.
    pub quality: Vec<Quality>,
    /// `before` of the next page; null on the last one.
    pub next: Option<Uuid>,
}

/// Whether the backups can be relied on.
#[derive(Debug, Serialize, JsonSchema)]
pub struct BackupStatusAnswer<'a> {
    /// What is known.
    #[serde(flatten)]
    pub status: &'a Status,
    /// The moment it is of (UTC).
    pub timestamp: DateTime<Utc>,
    /// PostgreSQL does not answer, and this is the last that is known.
    pub stale: bool,
}

/// Backups.
#[derive(Debug, Serialize, JsonSchema)]
pub struct BackupsAnswer {
    /// Newest first.
    pub backups: Vec<Backup>,
    /// `before` of the next page; null on the last one.
    pub next: Option<String>,
}

/// Rehearsed restores, and how the repositories grow.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DrillsAnswer {
    /// Newest first.
    pub drills: Vec<Drill>,
    /// Sizes of the last 90 days, oldest first.
    pub repositories: Vec<Size>,
}

/// The process runs.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AliveAnswer {
    /// Always `ok`.
    pub status: String,
    /// The program.
    pub program: String,
    /// Its version.
    pub version: String,
}

/// PostgreSQL answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReadyAnswer {
    /// Always `ok`.
    pub status: String,
}
