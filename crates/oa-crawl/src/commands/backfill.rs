//! `oa-crawl backfill`: days that were not collected, one after the other.

use std::time::Duration;

use chrono::{NaiveDate, Utc};
use clap::Args as ClapArgs;
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::Format;
use oa_core::base::units::Span;
use oa_core::journal::history;
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::Trigger;
use oa_core::schedule::Calendar;

use super::args::{SourcesArg, parse_date, parse_delay};
use super::report;
use crate::collector::{Collector, Job};
use crate::progress;
use crate::source::Source;
use oa_core::journal::JournalError;
use oa_core::journal::runner::RunReport;

/// After so many failed days in a row the next ones will fail too.
const ENOUGH: usize = 3;

/// Collect past days that the site can show, one after the other; run it again to resume
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  oa-crawl backfill zhihui-full-view --from 2025-11-01 --to 2025-11-30\n  oa-crawl backfill zhihui-reports --from 2025-11-01 --to 2025-11-30 --pause 30s --dry-run"
)]
pub(crate) struct Args {
    /// Name of the task
    #[arg(value_name = "TASK")]
    task: String,
    /// The first day
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = parse_date)]
    from: NaiveDate,
    /// The last day
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = parse_date)]
    to: NaiveDate,
    /// Also the days that were collected before
    #[arg(long)]
    again: bool,
    /// Wait between two days
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_delay)]
    pause: Span,
    /// Only print the days
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    sources: SourcesArg,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Collects the days of a span on which the source has data and for which there is no success yet, oldest first. Stopped halfway,
/// it resumes there when it is started again.
/// Exits 2 for wrong names or days, 77 for days that the site cannot show, 78 for a wrong configuration or schema, 75 when PostgreSQL is
/// unreachable: without the run log nobody knows which days are there.
pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    if args.from > args.to {
        let (from, to) = (args.from, args.to);
        return Err(Failure::new(
            exit::USAGE,
            anyhow::anyhow!("--from {from} is after --to {to}"),
        ));
    }
    let sources = args.sources.load(config)?;
    let source = sources.get(&args.task)?;
    let calendar =
        Calendar::load(config.calendar.as_deref()).map_err(|e| Failure::new(exit::CONFIG, e))?;
    let in_span = || {
        let days = args.from.iter_days();
        days.take_while(|day| *day <= args.to)
            .filter(|day| source.days.include(*day, &calendar))
    };
    let now = Utc::now().with_timezone(&config.timezone);
    let refused: Vec<String> = in_span()
        .filter_map(|day| source.cannot_show(day, now, &calendar))
        .collect();
    if let Some(first) = refused.first() {
        let more = match refused.len() - 1 {
            0 => String::new(),
            n => format!("; and so for {n} more of these days"),
        };
        return Err(Failure::new(
            exit::REFUSED,
            anyhow::anyhow!("{first}{more}; nothing was collected"),
        ));
    }
    let collector = Collector::open(config, &calendar, Trigger::Backfill)?;
    let (mut client, _) = collector.recorder.connect().map_err(Failure::from)?;
    let there = if args.again {
        Vec::new()
    } else {
        history::collected_days(&mut client, &source.name, args.from, args.to)
            .map_err(anyhow::Error::from)?
    };
    drop(client);
    let days: Vec<NaiveDate> = in_span().filter(|day| !there.contains(day)).collect();
    tracing::info!(
        "{}: {} day(s) to collect, {} there already",
        source.name,
        days.len(),
        there.len()
    );
    if args.dry_run {
        let text: String = days.iter().map(|day| format!("{day}\n")).collect();
        cli::print(&text).map_err(anyhow::Error::from)?;
        return Ok(exit::OK);
    }
    let shown = progress::show(args.format, false);
    progress::expect(days.len());
    let reports = collect_days(&collector, source, &days, args.pause.0, || {});
    drop(shown);
    report::conclude(config, reports, args.format)
}

/// Collects days one after the other, with a pause between two and `before_each`; ends early when the next ones would fail too.
pub(super) fn collect_days(
    collector: &Collector<'_>,
    source: &Source,
    days: &[NaiveDate],
    pause: Duration,
    mut before_each: impl FnMut(),
) -> Vec<Result<RunReport, JournalError>> {
    let mut reports: Vec<Result<RunReport, JournalError>> = Vec::new();
    for (number, date) in days.iter().enumerate() {
        cli::end_at_the_latest(pause);
        if number > 0 && !collector.stop.wait(pause) {
            tracing::warn!("stopped by a signal before {date}; start it again to resume there");
            break;
        }
        before_each();
        let job = Job {
            source,
            date: *date,
            due_at: None,
            again: false,
        };
        reports.extend(collector.run_all(&[job]));
        let of = days.len();
        tracing::info!("{}: day {} of {of}, {date}", source.name, number + 1);
        if is_hopeless(&reports) {
            tracing::error!(
                "stopped after {date}: {ENOUGH} days failed in a row, or for good; fix the cause and start it again to resume there"
            );
            break;
        }
    }
    reports
}

fn is_hopeless(reports: &[Result<RunReport, JournalError>]) -> bool {
    let failed = |result: &&Result<RunReport, JournalError>| {
        !result
            .as_ref()
            .is_ok_and(|r| report::exit_code(r) == exit::OK)
    };
    let for_good = reports.last().is_some_and(|last| match last {
        Err(_) => true,
        Ok(report) => report
            .error
            .as_ref()
            .is_some_and(|e| matches!(e.kind, ErrorKind::Auth | ErrorKind::Shape)),
    });
    for_good || reports.iter().rev().take_while(failed).count() >= ENOUGH
}
