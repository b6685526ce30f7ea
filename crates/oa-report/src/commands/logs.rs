//! `oa-report logs`: the run log, newest first, or as it grows.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::anyhow;
use chrono::Utc;
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::supervise::install_stop_signal;
use oa_core::base::text::printable;
use oa_core::pg::{describe, is_connection_error};
use postgres::Client;
use serde_json::{Value, json};
use uuid::Uuid;

use super::follow_run;
use super::{known_task, local, no_task, task_names};
use crate::lang::Lang;
use crate::queries::kept;
use crate::queries::logs::{Entry, Filter, MOST, by_id, page, statuses};
use crate::queries::run::{RunDetail, detail};
use crate::{pool, when};

/// How often the run log is looked at while it is followed.
pub(super) const POLL: Duration = Duration::from_secs(1);

/// The run log, newest first
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A TIME is 2h (ago), today, yesterday, 2025-12-01 or \"2025-12-01 09:30\", in the configured time zone.\n\nExamples:\n  oa-report logs --status not-ok --since yesterday\n  oa-report logs --status '!success' --since 2025-12-01 --until 2025-12-01\n  oa-report logs --task zhihui-reports --limit 200 --format csv\n  oa-report logs --follow --status failed --format json\n  oa-report logs --run ID --follow"
)]
pub(crate) struct Args {
    /// Show only runs of this task
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// Show this run in full: its cause, its attempts and the output of its program
    #[arg(long, value_name = "ID", conflicts_with_all = ["task", "status", "since", "until"])]
    run: Option<Uuid>,
    /// Show only runs with these statuses, separated by commas; !success for all others, not-ok for partial, failed, timeout and abandoned
    #[arg(long, value_name = "STATUS")]
    status: Vec<String>,
    /// Show only runs that started at this time or later
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show only runs that started before this time; the same day as --since means that whole day
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show at most this many; with --follow, this many to begin with
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,
    /// Keep printing runs as they end; with --run, what its program prints, until it ends
    #[arg(long, conflicts_with = "until")]
    pub(crate) follow: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: Args, config: &Config) -> Result<u8, Failure> {
    if let Some(id) = args.run {
        if args.follow {
            return follow_run::follow(config, id, args.format);
        }
        return print_one(config, id, args.format);
    }
    let usage = |e: String| Failure::new(exit::USAGE, anyhow!("--{e}"));
    let (since, until) = when::span(
        args.since.as_deref(),
        args.until.as_deref(),
        Utc::now(),
        config.timezone,
    )
    .map_err(usage)?;
    let wanted = match args.status.as_slice() {
        [] => Vec::new(),
        some => statuses(&some.join(",")).map_err(|e| usage(format!("status: {e}")))?,
    };
    let mut filter = Filter {
        since,
        until,
        statuses: wanted,
        limit: u16::try_from(args.limit).unwrap_or(MOST).clamp(1, MOST),
        task: args.task,
        ..Filter::default()
    };
    if args.follow {
        return follow(config, filter, args.format);
    }
    let mut client = pool::connect_read_only(config)?;
    known_task(&mut client, filter.task.as_deref())?;
    let mut listing = listing(args.format);
    let mut left = args.limit;
    while left > 0 {
        filter.limit = u16::try_from(left).unwrap_or(MOST).min(MOST);
        let (runs, next) = page(&mut client, &filter).map_err(|e| unreadable(&e))?;
        left = left.saturating_sub(runs.len() as u32);
        for run in &runs {
            listing.push(row(run, config));
        }
        let Some(next) = next else { break };
        filter.before = Some(next);
    }
    listing.print(args.format).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}

pub(super) fn unreadable(error: &postgres::Error) -> anyhow::Error {
    anyhow!("could not read the run log: {}", describe(error))
}

/// So many of the records that a run did not store are shown.
const REJECTS: usize = 20;

pub(super) fn print_one(config: &Config, id: Uuid, format: Format) -> Result<u8, Failure> {
    let mut client = pool::connect_read_only(config)?;
    let Some(mut run) = detail(&mut client, id).map_err(|e| unreadable(&e))? else {
        return Err(anyhow!("there is no run {id}; oa-report logs lists them").into());
    };
    kept::add_live_output(&config.state_dir, &mut run);
    let text = match format {
        Format::Json => format!("{}\n", json!(run)),
        _ => in_words(&run, config),
    };
    cli::print(&text).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}

fn in_words(run: &RunDetail, config: &Config) -> String {
    let at = |at| local(at, config.timezone);
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
        let heading = format!("ATTEMPT {} {} {}", a.attempt, at(a.started_at), a.outcome);
        block(&heading, a.error.as_deref().unwrap_or(""));
    }
    if entry.rejected > 0 {
        let lines = run.rejects.iter().take(REJECTS).map(|r| {
            let parts = [
                r.source_key.as_deref(),
                r.field.as_deref(),
                Some(&*r.reason),
            ];
            let parts: Vec<&str> = parts.into_iter().flatten().collect();
            parts.join(" ")
        });
        let mut lines: Vec<String> = lines.collect();
        if entry.rejected > lines.len() as u64 {
            lines.push("the records themselves, and the others, are in oa.rejects".to_owned());
        }
        block(&format!("NOT STORED {}", entry.rejected), &lines.join("\n"));
    }
    for (name, value) in run.details.as_object().into_iter().flatten() {
        let content = match value {
            Value::String(text) => text.clone(),
            other => format!("{other:#}"),
        };
        block(&printable(&name.to_uppercase()), &content);
    }
    text
}

/// In people's words where people read it.
fn listing(format: Format) -> Listing {
    let status = match format {
        Format::Table | Format::Markdown => "status_shown",
        Format::Json | Format::Csv | Format::CsvExcel => "status",
    };
    Listing::new(&[
        ("started", "STARTED"),
        ("task_name", "TASK"),
        (status, "STATUS"),
        ("seconds", "SECONDS"),
        ("records", "RECORDS"),
        ("retry_count", "RETRIES"),
        ("error", "ERROR"),
        ("id", "RUN"),
    ])
}

fn row(run: &Entry, config: &Config) -> Value {
    let mut row = json!(run);
    row["status_shown"] = json!(Lang::from(config.locale).status(&run.status));
    row["started"] = json!(local(run.start_time, config.timezone));
    row["seconds"] = json!(run.duration.map(|s| (s * 10.0).round() / 10.0));
    row
}

/// The runs that are still to be printed: those that start after the last one seen, and those that were seen before they ended.
struct Follower {
    filter: Filter,
    /// Applied here: a run that is still under way has another status, and must be remembered.
    statuses: Vec<&'static str>,
    running: HashSet<Uuid>,
    /// What there was at first is shown.
    begun: bool,
}

impl Follower {
    /// Runs that ended since the last call, oldest first.
    fn ended(&mut self, client: &mut Client) -> Result<Vec<Entry>, postgres::Error> {
        let running: Vec<Uuid> = self.running.iter().copied().collect();
        let mut runs = by_id(client, &running)?;
        let mut new = Vec::new();
        self.filter.before = None;
        loop {
            let (some, next) = page(client, &self.filter)?;
            new.extend(some);
            // To begin with it is as many as were asked for, and then all that come.
            self.filter.before = next.filter(|_| self.begun);
            if self.filter.before.is_none() {
                break;
            }
        }
        self.begun = true;
        // By the order of the list: ids are names.
        if let Some(newest) = new.first() {
            self.filter.after = Some(newest.id);
        }
        new.reverse();
        runs.append(&mut new);
        for run in &runs {
            if run.end_time.is_none() {
                self.running.insert(run.id);
            } else {
                self.running.remove(&run.id);
            }
        }
        self.filter.limit = MOST;
        runs.retain(|run| {
            run.end_time.is_some()
                && (self.statuses.is_empty() || self.statuses.contains(&run.status.as_str()))
        });
        Ok(runs)
    }
}

/// Prints runs when they end, until the process is stopped. One that is recorded late, out of a spool, is older than what was shown and
/// does not appear.
fn follow(config: &Config, mut filter: Filter, format: Format) -> Result<u8, Failure> {
    let stop = install_stop_signal().map_err(anyhow::Error::from)?;
    let mut client = pool::connect_read_only(config)?;
    if let Some(name) = &filter.task {
        // It may come yet.
        let names = task_names(&mut client)?;
        if !names.contains(name) {
            tracing::warn!("{}", no_task(name, &names));
        }
    }
    let mut follower = Follower {
        statuses: std::mem::take(&mut filter.statuses),
        filter,
        running: HashSet::new(),
        begun: false,
    };
    let mut first = true;
    loop {
        match follower.ended(&mut client) {
            Ok(ended) if ended.is_empty() => {}
            Ok(ended) => {
                let mut listing = listing(format);
                for run in &ended {
                    listing.push(row(run, config));
                }
                let text = listing.render(format);
                // One heading is enough.
                let skipped = if first { 0 } else { heading_lines(format) };
                let shown: String = text.split_inclusive('\n').skip(skipped).collect();
                cli::print(&shown).map_err(anyhow::Error::from)?;
                first = false;
            }
            Err(e) if is_connection_error(&e) => {
                tracing::warn!("PostgreSQL does not answer, trying again: {}", describe(&e));
                if let Ok(new) = pool::connect_read_only(config) {
                    client = new;
                }
            }
            Err(e) => return Err(unreadable(&e).into()),
        }
        if !stop.wait(POLL) {
            return Ok(exit::OK);
        }
    }
}

fn heading_lines(format: Format) -> usize {
    match format {
        Format::Json => 0,
        Format::Table | Format::Csv | Format::CsvExcel => 1,
        Format::Markdown => 2,
    }
}
