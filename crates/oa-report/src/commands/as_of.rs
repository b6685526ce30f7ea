//! `oa-report as-of`: a table as it was known at a time.

use anyhow::anyhow;
use chrono::Utc;
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::secrets::redact;
use serde_json::{Map, Value};

use super::{failed, local, table_named};
use crate::queries::revisions;
use crate::{pool, when};

/// A table as it was known at a time: without what was corrected or added later
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A TIME is 2h (ago), yesterday, 2025-12-01 or \"2025-12-01 09:30\", in the configured time zone.\n\nExamples:\n  oa-report as-of market_full_view --at \"2025-12-01 16:00\" --format csv\n  oa-report as-of option_flows --at yesterday --where \"contract_code LIKE 'rb%'\""
)]
pub(crate) struct Args {
    /// The table, with its schema unless that is public
    #[arg(value_name = "TABLE")]
    table: String,
    /// The time
    #[arg(long, value_name = "TIME")]
    at: String,
    /// Show only rows for which this SQL condition holds
    #[arg(long = "where", value_name = "SQL", default_value = "true")]
    condition: String,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let at = when::parse(&args.at, Utc::now(), config.timezone)
        .map_err(|e| Failure::new(exit::USAGE, anyhow!("--at: {e}")))?;
    let mut client = pool::connect_read_only(config)?;
    let table = table_named(&mut client, &args.table)?;
    let found = revisions::as_of(&mut client, &table, at, &args.condition).map_err(|e| {
        failed(
            &e,
            &format!(
                "could not read {} as of {}",
                table.shown(),
                local(at, config.timezone)
            ),
        )
    })?;
    match found.since {
        None => tracing::warn!(
            "no change of {} was kept: it is shown as it is now",
            table.shown()
        ),
        Some(since) if since > at => tracing::warn!(
            "changes of {} are kept since {}: it is shown as it was then",
            table.shown(),
            local(since, config.timezone)
        ),
        Some(_) => {}
    }
    if args.format == Format::Json {
        // As PostgreSQL writes it: no digit of a number is lost.
        let lines: String = found
            .rows
            .iter()
            .map(|(json, _)| format!("{}\n", redact(json)))
            .collect();
        cli::print(&lines).map_err(anyhow::Error::from)?;
        return Ok(exit::OK);
    }
    let columns = found.columns.iter().map(|c| (c.as_str(), c.as_str()));
    let mut listing = Listing::new(&columns.collect::<Vec<_>>());
    for (_, cells) in found.rows {
        let row = found.columns.iter().cloned();
        let row: Map<String, Value> = row.zip(cells.into_iter().map(Value::from)).collect();
        listing.push(Value::Object(row));
    }
    listing.print(args.format).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}
