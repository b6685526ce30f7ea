//! `oa-report quality`: how good what was collected is.

use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::pg::describe;
use serde_json::json;

use super::local;
use crate::pool;
use crate::queries::quality;

/// Prints the last run of each task that collected, worst first; with a `task` its last ones, newest first.
///
/// # Errors
/// 75 when PostgreSQL is away, 78 when its schema does not fit.
pub fn run(config: &Config, task: Option<&str>, limit: u16, format: Format) -> Result<u8, Failure> {
    let mut client = pool::reader(config)?;
    let found = match task {
        Some(task) => quality::of(&mut client, task, None, limit).map(|(all, _)| all),
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
    for one in &found {
        let mut row = json!(one);
        row["started"] = json!(local(one.started_at, config.timezone));
        row["found"] = json!(one.findings.join("; "));
        listing.push(row);
    }
    listing.print(format).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}
