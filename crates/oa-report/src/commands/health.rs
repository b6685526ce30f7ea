//! `oa-report health`: how each task is, for people and for pipelines.

use chrono::{DateTime, Utc};
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::pg::describe;
use serde_json::{Value, json};

use super::local;
use crate::pool;
use crate::queries::health::{self, Health, TaskHealth};

/// How each task is, over the last 24 hours
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A task is healthy when at least 90 % of its runs succeeded. It is a warning from 70 %, or when it is late, has never run, keeps failing or has old data; else it is critical.\nWith --fail-on the exit code is that of monitoring plug-ins: 0 healthy, 1 a warning, 2 something critical.\n\nExamples:\n  oa-report health\n  oa-report health --fail-on warning && echo deploy\n  oa-report health --task zhihui-reports --format json"
)]
pub(crate) struct Args {
    /// Show only this task
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// Exit with 1 for a warning and 2 for something critical, from this level on
    #[arg(long, value_enum, value_name = "HEALTH")]
    fail_on: Option<FailOn>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// A warning, or worse
    Warning,
    /// Only what is critical
    Critical,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let mut client = pool::connect_read_only(config)?;
    let tasks = health::tasks(&mut client, config, args.task.as_deref())
        .map_err(|e| anyhow::anyhow!("could not read the health of tasks: {}", describe(&e)))?;
    if let (Some(name), true) = (&args.task, tasks.is_empty()) {
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
    listing.print(args.format).map_err(anyhow::Error::from)?;
    Ok(match (args.fail_on, health::worst(&tasks)) {
        (Some(_), Health::Critical) => 2,
        (Some(FailOn::Warning), Health::Warning) => 1,
        _ => exit::OK,
    })
}

fn row(task: &TaskHealth, config: &Config) -> Value {
    let mut row = json!(task);
    let at = |at: Option<DateTime<Utc>>| at.map(|at| local(at, config.timezone));
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
