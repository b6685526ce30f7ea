//! `oa-report quality`: how good the collected data are.

use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::pg::describe;
use serde_json::json;

use super::{known_task, local};
use crate::pool;
use crate::queries::quality;

/// How good the collected data are: the last run of each task, worst first
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  oa-report quality\n  oa-report quality --task zhihui-reports --limit 20"
)]
pub(crate) struct Args {
    /// Show the last runs of this task instead, newest first
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// Show at most this many of its runs
    #[arg(long, value_name = "N", default_value_t = 50, requires = "task")]
    limit: u16,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let mut client = pool::connect_read_only(config)?;
    known_task(&mut client, args.task.as_deref())?;
    let found = match &args.task {
        Some(task) => quality::of(&mut client, task, None, args.limit).map(|(all, _)| all),
        None => quality::last(&mut client, &config.crawl.skip),
    };
    let found =
        found.map_err(|e| anyhow::anyhow!("could not read the quality: {}", describe(&e)))?;
    let mut listing = Listing::new(&[
        ("score", "SCORE"),
        ("task", "TASK"),
        ("title", "TITLE"),
        ("collected", "COLLECTED"),
        ("expected", "EXPECTED"),
        ("rejected", "REJECTED"),
        ("duplicates", "TWICE"),
        ("fresh", "FRESH"),
        ("started", "STARTED"),
        ("found", "FOUND"),
    ]);
    for quality in &found {
        let mut row = json!(quality);
        row["started"] = json!(local(quality.started_at, config.timezone));
        row["found"] = json!(quality.findings.join("; "));
        listing.push(row);
    }
    listing.print(args.format).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}
