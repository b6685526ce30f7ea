//! `oa-report as-of`: a table as it was known at a time.

use std::io::{self, Write};

use anyhow::anyhow;
use chrono::Utc;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::secrets::redact;
use serde_json::{Map, Value};

use super::{failed, local, table_named};
use crate::queries::revisions::{self, TextRow};
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
    let mut first = true;
    let mut printed: io::Result<bool> = Ok(true);
    // Columns are as wide as their widest cell, so a table for people is printed when all of it is there.
    let mut whole: Option<(Vec<String>, Vec<TextRow>)> = None;
    let mut take = |columns: &[String], rows: Vec<TextRow>| {
        match args.format {
            Format::Json => {
                // As PostgreSQL writes it: no digit of a number is lost.
                let lines = rows.iter().map(|(json, _)| format!("{}\n", redact(json)));
                printed = print(&lines.collect::<String>());
            }
            Format::Csv | Format::CsvExcel => {
                let heading = listing(columns, Vec::new()).render(args.format);
                let text = listing(columns, rows).render(args.format);
                let lines = text.strip_prefix(heading.as_str()).unwrap_or(text.as_str());
                printed = print(if first { text.as_str() } else { lines });
            }
            Format::Table | Format::Markdown => {
                let (_, all) = whole.get_or_insert_with(|| (columns.to_vec(), Vec::new()));
                all.extend(rows);
            }
        }
        first = false;
        matches!(printed, Ok(true))
    };
    let since =
        revisions::as_of(&mut client, &table, at, &args.condition, &mut take).map_err(|e| {
            failed(
                &e,
                &format!(
                    "could not read {} as of {}",
                    table.shown(),
                    local(at, config.timezone)
                ),
            )
        })?;
    printed.map_err(anyhow::Error::from)?;
    if let Some((columns, rows)) = whole {
        let listing = listing(&columns, rows);
        listing.print(args.format).map_err(anyhow::Error::from)?;
    }
    match since {
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
    Ok(exit::OK)
}

fn listing(columns: &[String], rows: Vec<TextRow>) -> Listing {
    let headings: Vec<(&str, &str)> = columns.iter().map(|c| (c.as_str(), c.as_str())).collect();
    let mut listing = Listing::new(&headings);
    for (_, cells) in rows {
        let row = columns.iter().cloned();
        let row: Map<String, Value> = row.zip(cells.into_iter().map(Value::from)).collect();
        listing.push(Value::Object(row));
    }
    listing
}

/// Gives whether somebody still reads.
fn print(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true),
    }
}
