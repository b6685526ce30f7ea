//! One task with its last runs and days.

use chrono::Utc;
use oa_core::app::config::Config;
use postgres::Transaction;
use schemars::JsonSchema;
use serde::Serialize;

use super::Result;
use super::health::{self, TaskHealth};
use super::history::{self, Day, RecentRun};

/// A task.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TaskDetail {
    /// How it is.
    pub(crate) task: TaskHealth,
    /// Its last 48 runs, oldest first.
    pub(crate) runs: Vec<RecentRun>,
    /// Its last 30 days on which it ran, oldest first.
    pub(crate) days: Vec<Day>,
}

/// The task of that name; `None` when there is none, or it was given up.
pub(crate) fn detail(
    tx: &mut Transaction<'_>,
    config: &Config,
    name: &str,
) -> Result<Option<TaskDetail>> {
    let Some(task) = health::tasks(tx, config, Some(name))?.pop() else {
        return Ok(None);
    };
    // A task that is absent from these maps has no run, or no day.
    let runs = history::recent_runs(tx, &[name])?.remove(name);
    let days = history::days(tx, &[name], Utc::now())?.remove(name);
    Ok(Some(TaskDetail {
        task,
        runs: runs.unwrap_or_default(),
        days: days.unwrap_or_default(),
    }))
}
