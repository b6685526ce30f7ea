//! `oa-crawl list`: which sources there are and when they are due.

use std::time::Duration;

use chrono::Utc;
use clap::Args as ClapArgs;
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::schedule::Calendar;
use serde_json::json;

use super::args::SourcesArg;
use crate::source::Sources;

/// List the sources, whether they are enabled, and when they are due
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    sources: SourcesArg,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    cli::end_at_the_latest(Duration::ZERO);
    let sources = args.sources.load(config)?;
    let calendar =
        Calendar::load(config.calendar.as_deref()).map_err(|e| Failure::new(exit::CONFIG, e))?;
    let mut listing = Listing::new(&[
        ("task", "TASK"),
        ("title", "TITLE"),
        ("provider", "PROVIDER"),
        ("state", "STATE"),
        ("schedule", "SCHEDULE"),
        ("next_due", "NEXT DUE"),
        ("table", "TABLE"),
    ]);
    for source in sources.iter() {
        let mut due_times = source.due_times(Utc::now(), config.timezone, &calendar);
        let due = due_times.next().filter(|_| source.enabled);
        listing.push(json!({
            "task": source.name,
            "title": source.title,
            "provider": source.provider,
            "state": if source.enabled { "enabled" } else { "off" },
            "base": source.fetch.base,
            "schedule": source.schedule,
            "timezone": config.timezone.name(),
            "next_due": due.map(|d| d.at.with_timezone(&config.timezone).format("%Y-%m-%d %H:%M").to_string()),
            "next_day": due.map(|d| d.day),
            "again": source.again.map(|again| again.to_string()),
            "table": source.store.table,
            "shows": source.shows().as_str(),
            "retries": source.retry.retries,
            "retry_delay_seconds": source.retry.delay.as_secs_f64(),
            "timeout_seconds": source.retry.timeout.as_secs_f64(),
        }));
    }
    for one in sources.broken() {
        listing.push(
            json!({ "task": one.task, "title": "broken", "state": "broken", "error": one.reason }),
        );
    }
    listing.print(args.format).map_err(anyhow::Error::from)?;
    Ok(log_broken(&sources, exit::OK))
}

/// Logs what cannot be used. Gives the exit code: what a person must fix counts most.
pub(super) fn log_broken(sources: &Sources, code: u8) -> u8 {
    for one in sources.broken() {
        tracing::error!("{}", one.reason);
    }
    with_broken(sources, code)
}

/// The exit code of what was done without the sources that cannot be used.
pub(super) fn with_broken(sources: &Sources, code: u8) -> u8 {
    match sources.broken().next() {
        Some(_) => exit::CONFIG,
        None => code,
    }
}
