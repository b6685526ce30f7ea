//! `oa-report health`: how each task is, for people and for pipelines.

use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::pg::describe;
use serde_json::{Value, json};

use super::local;
use crate::pool;
use crate::queries::health::{self, Health, TaskHealth};

/// From what on it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FailOn {
    /// A warning, or worse.
    Warning,
    /// Only what is critical.
    Critical,
}

/// Prints how the tasks are, only `task` when it is named. The exit code with `fail_on` is that of monitoring plug-ins: 0, 1 for a
/// warning, 2 for something critical.
///
/// # Errors
/// 1 for a task that is not known, 75 when PostgreSQL is away, 78 when its schema does not fit.
pub fn run(
    config: &Config,
    task: Option<&str>,
    fail_on: Option<FailOn>,
    format: Format,
) -> Result<u8, Failure> {
    let mut client = pool::reader(config)?;
    let tasks = health::tasks(&mut client, config, task)
        .map_err(|e| anyhow::anyhow!("could not ask for health: {}", describe(&e)))?;
    if let (Some(name), true) = (task, tasks.is_empty()) {
        return Err(anyhow::anyhow!("there is no task \"{name}\", or it was given up; oa-report health shows those there are").into());
    }
    let mut listing = Listing::new(&[
        ("health", "HEALTH"),
        ("task", "TASK"),
        ("title", "TITLE"),
        ("success", "OK"),
        ("runs", "RUNS"),
        ("success_rate", "%"),
        ("last_success_local", "LAST SUCCESS"),
        ("next_due_local", "NEXT DUE"),
        ("why", "WHY"),
    ]);
    for task in &tasks {
        listing.push(row(task, config));
    }
    listing.print(format).map_err(anyhow::Error::from)?;
    let worst = tasks
        .iter()
        .map(|t| t.health)
        .max()
        .unwrap_or(Health::Healthy);
    Ok(match (fail_on, worst) {
        (Some(_), Health::Critical) => 2,
        (Some(FailOn::Warning), Health::Warning) => 1,
        _ => exit::OK,
    })
}

fn row(task: &TaskHealth, config: &Config) -> Value {
    let mut row = json!(task);
    let at =
        |moment: Option<chrono::DateTime<chrono::Utc>>| moment.map(|m| local(m, config.timezone));
    let reasons: Vec<String> = row["reasons"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|r| r.as_str().map(str::to_owned))
        .collect();
    row["task"] = json!(task.name);
    row["last_success_local"] = json!(at(task.last_success));
    row["next_due_local"] = json!(at(task.next_due));
    row["why"] = json!(reasons.join(", "));
    row
}
