//! `oa-report logs`: the run log, newest first, or as it grows.

use std::collections::HashSet;
use std::time::Duration;

use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::supervise::install_stop_signal;
use oa_core::base::text::printable;
use oa_core::pg::{describe, is_connection_error};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{local, seconds};
use crate::pool;
use crate::queries::logs::{Entry, Filter, MOST, by_id, page};
use crate::queries::run::{RunDetail, detail};

/// Prints runs. With `follow` first those that ended, oldest first, then each one as it ends, until the process is stopped.
///
/// # Errors
/// 75 when PostgreSQL is away, 78 when its schema does not fit.
pub fn run(
    config: &Config,
    mut filter: Filter,
    limit: u32,
    follow: bool,
    format: Format,
) -> Result<u8, Failure> {
    if follow {
        return follow_log(config, filter, format);
    }
    let mut client = pool::reader(config)?;
    let mut listing = listing();
    let mut left = limit;
    while left > 0 {
        filter.limit = u16::try_from(left).unwrap_or(MOST).min(MOST);
        let (runs, next) = page(&mut client, &filter)
            .map_err(|e| anyhow::anyhow!("could not read the run log: {}", describe(&e)))?;
        left = left.saturating_sub(runs.len() as u32);
        for run in &runs {
            listing.push(row(run, config));
        }
        let Some(next) = next else { break };
        filter.before = Some(next);
    }
    listing.print(format).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}

/// Prints one run in full: what was wrong, each try, and what its program printed.
///
/// # Errors
/// 1 when there is none of that id, 75 when PostgreSQL is away, 78 when its schema does not fit.
pub fn one(config: &Config, id: Uuid, format: Format) -> Result<u8, Failure> {
    let mut client = pool::reader(config)?;
    let run = detail(&mut client, id)
        .map_err(|e| anyhow::anyhow!("could not read the run log: {}", describe(&e)))?;
    let Some(run) = run else {
        let what = format!("there is no run {id}; oa-report logs lists them");
        return Err(anyhow::anyhow!(what).into());
    };
    let text = match format {
        Format::Json => format!("{}\n", json!(run)),
        _ => in_words(&run, config),
    };
    oa_core::app::cli::print(&text).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}

fn in_words(run: &RunDetail, config: &Config) -> String {
    let at = |moment| local(moment, config.timezone);
    let entry = &run.run;
    let mut text = format!(
        "{} {}\n{} {} on {}\n",
        printable(&entry.task_name),
        printable(&run.title),
        at(entry.start_time),
        entry.status,
        printable(&entry.host),
    );
    let mut block = |heading: &str, content: &str| {
        text.push_str(&format!("\n{heading}\n"));
        for line in content.lines() {
            text.push_str(&format!("  {}\n", printable(line)));
        }
    };
    if let Some(error) = &entry.error {
        block("ERROR", error);
    }
    for a in &run.attempts {
        let heading = format!("TRY {} {} {}", a.attempt, at(a.started_at), a.outcome);
        block(&heading, a.error.as_deref().unwrap_or_default());
    }
    for (name, value) in run.details.as_object().into_iter().flatten() {
        let content = match value {
            Value::String(text) => text.clone(),
            other => serde_json::to_string_pretty(other).unwrap_or_default(),
        };
        block(&printable(&name.to_uppercase()), &content);
    }
    text
}

fn listing() -> Listing {
    Listing::new(&[
        ("started", "STARTED"),
        ("task_name", "TASK"),
        ("status", "STATUS"),
        ("seconds", "SECONDS"),
        ("records", "RECORDS"),
        ("retry_count", "RETRIES"),
        ("error", "ERROR"),
        ("id", "RUN"),
    ])
}

fn row(run: &Entry, config: &Config) -> Value {
    let mut row = json!(run);
    row["started"] = json!(local(run.start_time, config.timezone));
    row["seconds"] = json!(seconds(run.duration));
    row
}

/// Runs appear when they end. One that is recorded late, out of a spool, is older than what was shown and does not appear.
fn follow_log(config: &Config, mut filter: Filter, format: Format) -> Result<u8, Failure> {
    const EACH: Duration = Duration::from_secs(1);
    let stop = install_stop_signal().map_err(anyhow::Error::from)?;
    let mut client = pool::reader(config)?;
    let status = filter.status.take();
    let wanted = |run: &Entry| status.as_ref().is_none_or(|s| *s == run.status);
    let mut running: HashSet<Uuid> = HashSet::new();
    let mut first = true;
    loop {
        let asked = |client: &mut _| -> Result<Vec<Entry>, postgres::Error> {
            let ids: Vec<Uuid> = running.iter().copied().collect();
            let mut runs = by_id(client, &ids)?;
            let (mut new, _) = page(client, &filter)?;
            new.reverse();
            runs.append(&mut new);
            Ok(runs)
        };
        match asked(&mut client) {
            Ok(runs) => {
                let mut ended = listing();
                let mut any = false;
                for run in runs {
                    filter.after = filter.after.max(Some(run.id));
                    if run.end_time.is_none() {
                        running.insert(run.id);
                        continue;
                    }
                    running.remove(&run.id);
                    if wanted(&run) {
                        ended.push(row(&run, config));
                        any = true;
                    }
                }
                if any {
                    // One heading is enough.
                    let text = ended.render(format);
                    let lines = if first { 0 } else { heading(format) };
                    let shown: String = text.split_inclusive('\n').skip(lines).collect();
                    oa_core::app::cli::print(&shown).map_err(anyhow::Error::from)?;
                    first = false;
                }
                filter.limit = MOST;
            }
            Err(e) if is_connection_error(&e) => {
                tracing::warn!("PostgreSQL does not answer, trying again: {}", describe(&e));
                if let Ok(new) = pool::reader(config) {
                    client = new;
                }
            }
            Err(e) => {
                return Err(anyhow::anyhow!("could not read the run log: {}", describe(&e)).into());
            }
        }
        if !stop.wait(EACH) {
            return Ok(exit::OK);
        }
    }
}

fn heading(format: Format) -> usize {
    match format {
        Format::Json => 0,
        Format::Table | Format::Csv => 1,
        Format::Markdown => 2,
    }
}
