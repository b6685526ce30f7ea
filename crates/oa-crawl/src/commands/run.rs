//! `oa-crawl run`: collects sources now.

use chrono::{DateTime, NaiveDate, Utc};
use clap::Args as ClapArgs;
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::state_dir::StateDir;
use oa_core::journal::Recorder;
use oa_core::model::run::{Status, Trigger};
use oa_core::pg::describe;
use oa_core::schedule::Calendar;
use serde_json::{Map, Value, json};

use super::args::{CronArg, RetryArgs, SourcesArg, parse_date};
use super::idle::Seen;
use super::{broken, due, enable, list, report, requested};
use crate::PROGRAM;
use crate::collect::{Context, Folders, collect};
use crate::collector::{Collector, Job, is_expected, start_of};
use crate::fetch::gate::Gate;
use crate::fetch::{Client, Network};
use crate::program::environment::Programs;
use crate::progress;
use crate::source::{Broken, FetchKind, Source, Sources};
use crate::validate::{CollectionTime, columns, validate};
use crate::verdict::{Before, assess};
use oa_core::journal::JournalError;
use oa_core::journal::runner::RunReport;

/// Collect sources now; a task that you name runs whether it is enabled or not
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  oa-crawl run zhihui-full-view\n  * * * * * oa-crawl run --due\n  oa-crawl run --all --format json | jq -r 'select(.status != \"success\") | .task'\n  oa-crawl run zhihui-reports --date 2025-12-01 --dry-run --format json"
)]
pub(crate) struct Args {
    /// Names of tasks, as `oa-crawl list` shows them
    #[arg(
        value_name = "TASK",
        required_unless_present_any = ["all", "due"],
        conflicts_with_all = ["all", "due"]
    )]
    tasks: Vec<String>,
    /// Every source that is enabled
    #[arg(long)]
    all: bool,
    /// Every enabled source that is due and has not run yet, here or on another machine: for a crontab line that runs each minute
    #[arg(long, conflicts_with_all = ["all", "date", "dry_run", "cron"])]
    due: bool,
    /// The day to collect; refused (77) when the site cannot show it [default: today in the configured time zone]
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = parse_date)]
    date: Option<NaiveDate>,
    /// Fetch once and validate; store nothing, record nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    retry: RetryArgs,
    #[command(flatten)]
    cron: CronArg,
    #[command(flatten)]
    sources: SourcesArg,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Args {
    fn trigger(&self) -> Trigger {
        match self.due {
            true => Trigger::Due,
            false => self.cron.trigger(),
        }
    }
}

/// Runs the tasks, several at a time, and prints what became of each.
/// Exits 2 for wrong names, 78 for a wrong configuration or schema, 77 for an unusable state directory.
pub(crate) fn run(args: &Args, mut config: Config) -> Result<u8, Failure> {
    args.retry.apply(&mut config.crawl);
    let config = &config;
    let seen = args.due.then(|| Seen::look(config, args.sources.folder()));
    let seen = seen.flatten();
    // What is wrong with it is said below.
    let opened = seen
        .as_ref()
        .and_then(|_| Recorder::open(config, PROGRAM).ok());
    if let (Some(seen), Some(recorder)) = (&seen, &opened)
        && seen.nothing_is_due(config, recorder)
    {
        return Ok(exit::OK);
    }
    let loaded = args.sources.load(config)?;
    let calendar =
        Calendar::load(config.calendar.as_deref()).map_err(|e| Failure::new(exit::CONFIG, e))?;
    let day_at = |now: DateTime<Utc>| {
        let today = now.with_timezone(&config.timezone).date_naive();
        let calendar = &calendar;
        move |source: &Source| match (args.date, args.trigger()) {
            (Some(date), _) => date,
            // A crontab line is for the day it is on.
            (None, Trigger::Cron) => today,
            (None, _) => source.present_day(today, calendar),
        }
    };
    let chosen = choose(&loaded, args)?;
    if args.dry_run {
        let code = dry_run(config, &chosen, &day_at(Utc::now()), &calendar, args.format)?;
        let named = |task: &String| loaded.broken_one(task).is_some();
        let touched = args.all || args.tasks.iter().any(named);
        return Ok(match touched {
            true => list::log_broken(&loaded, code),
            false => code,
        });
    }
    let trigger = args.trigger();
    let shown = progress::show(args.format, trigger != Trigger::Manual);
    let opened = opened.map_or_else(|| Recorder::open(config, PROGRAM), Ok);
    let collector =
        opened.and_then(|recorder| Collector::new(config, &calendar, trigger, recorder));
    let mut collector = collector.map_err(|e| {
        let starts = chosen.iter().map(|s| start_of(s, trigger));
        report::unstarted(config, starts.collect(), e.into())
    })?;
    if args.all || args.due {
        let by_hand = args.all || cli::interactive();
        enable::reconcile(config, &loaded, &collector.recorder, by_hand)?;
    }
    let enable = config.crawl.enable.as_deref().unwrap_or_default();
    let mut reports = if (args.all || args.due) && enable.is_empty() {
        // Where nothing is expected nobody is notified; the log names the files all the same.
        list::log_broken(&loaded, exit::OK);
        Vec::new()
    } else if args.all || args.due {
        broken::report(&collector.recorder, &loaded, trigger)
    } else {
        named_but_broken(&collector.recorder, &loaded, &args.tasks, trigger)
    };
    if args.due {
        // Whatever waits for its site meanwhile is started by the next minute's program.
        reports.extend(requested::carry_out(
            config,
            &loaded,
            &calendar,
            &mut collector,
        ));
        collector.set_trigger(trigger);
        let jobs = due::jobs(
            config,
            &loaded,
            &calendar,
            &collector.recorder,
            seen.as_ref(),
        );
        progress::expect(jobs.iter().map(Vec::len).sum());
        reports.extend(run_due(config, &collector, jobs));
    } else {
        // Which day it is, the server knows. What keeps us from it is reported by each run.
        make_known(config, &collector.recorder, &calendar, &chosen, trigger);
        let day = day_at(collector.recorder.now());
        let job = |source| Job {
            source,
            date: day(source),
            due_at: None,
            again: false,
        };
        let jobs: Vec<Job<'_>> = chosen.into_iter().map(job).collect();
        progress::expect(jobs.len());
        reports.extend(collector.run_all(&jobs));
    }
    drop(shown);
    let code = if args.due && reports.is_empty() {
        exit::OK // cron mails what a command prints.
    } else {
        report::conclude(config, reports, args.format)?
    };
    let code = match args.all || args.due {
        true => list::with_broken(&loaded, code),
        false => code,
    };
    if args.due && !matches!(code, exit::OK | exit::FAILED) {
        due::note_failed(&collector.recorder);
    }
    Ok(code)
}

fn make_known(
    config: &Config,
    recorder: &Recorder,
    calendar: &Calendar,
    chosen: &[&Source],
    trigger: Trigger,
) {
    let expected = chosen.iter().copied();
    let expected: Vec<&Source> = expected.filter(|s| is_expected(s, trigger)).collect();
    let known = recorder.connected(|client| due::make_known(client, config, calendar, &expected));
    if let Ok(Err(e)) = known {
        tracing::warn!("could not write slots: {}", describe(&e));
    }
}

/// The sources at the same time, what was missed of one after the other. Only one process of a machine makes up for more than one run of a
/// source, or nobody would keep the pause.
fn run_due(
    config: &Config,
    collector: &Collector<'_>,
    mut jobs: Vec<Vec<Job<'_>>>,
) -> Vec<Result<RunReport, JournalError>> {
    let mut reports: Vec<Result<RunReport, JournalError>> = Vec::new();
    let mut asked = false;
    let longest = jobs.iter().map(Vec::len).max().unwrap_or_default();
    let lock = (longest > 1).then(|| collector.recorder.state().try_lock("catch-up"));
    if matches!(lock, Some(Ok(None))) {
        // The other one has all of these slots, and goes on.
        jobs.retain(|of| of.len() == 1);
    }
    for round in 0..longest {
        let now: Vec<Job<'_>> = jobs
            .iter()
            .filter_map(|of| of.get(round).copied())
            .collect();
        let pauses = now.iter().map(|job| due::pause(job.source, config));
        let pause = pauses.max().unwrap_or_default();
        cli::end_at_the_latest(pause);
        if asked && !collector.stop.wait(pause) {
            break;
        }
        let done = collector.run_all(&now);
        asked = done.iter().any(|r| !r.as_ref().is_ok_and(|r| r.refused));
        // What fails is not asked for more: its slots stay open until the next success.
        for (job, result) in now.iter().zip(&done) {
            let fine = result
                .as_ref()
                .is_ok_and(|r| matches!(r.status, Status::Success | Status::Partial) || r.refused);
            if !fine {
                jobs.retain(|of| of[0].source.name != job.source.name || of.len() <= round + 1);
            }
        }
        reports.extend(done);
    }
    reports
}

/// Tasks named on the command line whose files cannot be used.
fn named_but_broken(
    recorder: &Recorder,
    sources: &Sources,
    tasks: &[String],
    trigger: Trigger,
) -> Vec<Result<RunReport, JournalError>> {
    let mut found: Vec<&Broken> = Vec::new();
    for one in tasks.iter().filter_map(|task| sources.broken_one(task)) {
        if !found.iter().any(|f| f.task == one.task) {
            tracing::error!("{}", one.reason);
            found.push(one);
        }
    }
    let record = |one: &&Broken| broken::record(recorder, one, trigger);
    found.iter().map(record).collect()
}

fn choose<'a>(sources: &'a Sources, args: &Args) -> Result<Vec<&'a Source>, Failure> {
    if args.all || args.due {
        return Ok(sources.enabled().collect());
    }
    let mut chosen: Vec<&Source> = Vec::new();
    for name in &args.tasks {
        if sources.broken_one(name).is_some() {
            continue; // It leaves a failed run, and the others are collected.
        }
        let source = sources.get(name)?;
        if !chosen.iter().any(|s| s.name == source.name) {
            chosen.push(source);
        }
    }
    Ok(chosen)
}

/// One attempt of each source, shown instead of stored: nothing is written anywhere.
pub(super) fn dry_run(
    config: &Config,
    chosen: &[&Source],
    day: &dyn Fn(&Source) -> NaiveDate,
    calendar: &Calendar,
    format: Format,
) -> Result<u8, Failure> {
    let mut listing = Listing::new(&[
        ("task", "TASK"),
        ("fetched", "FETCHED"),
        ("valid", "VALID"),
        ("rejected", "REJECTED"),
        ("error", "ERROR"),
    ]);
    let mut worst = exit::OK;
    let now = Utc::now().with_timezone(&config.timezone);
    let shown = progress::show(format, false);
    progress::expect(chosen.len());
    for source in chosen {
        let _shown = progress::run(&source.name);
        let date = day(source);
        if let Some(reason) = source.cannot_show(date, now, calendar) {
            worst = exit::REFUSED;
            tracing::error!("{reason}");
            listing.push(json!({ "task": source.name, "error": reason }));
            continue;
        }
        let (row, ok) = dry_run_one(config, source, date, calendar)?;
        if !ok {
            worst = worst.max(exit::FAILED);
        }
        listing.push(row);
    }
    drop(shown);
    listing.print(format).map_err(anyhow::Error::from)?;
    Ok(worst)
}

fn dry_run_one(
    config: &Config,
    source: &Source,
    date: NaiveDate,
    calendar: &Calendar,
) -> Result<(Value, bool), Failure> {
    if source.fetch.kind == FetchKind::Browser {
        StateDir::open(&config.state_dir)?;
    }
    let gate = Gate::new(config.crawl.per_host);
    let network = Network::load(config.crawl.ca_file.as_deref());
    let network = network.map_err(|e| Failure::new(exit::CONFIG, anyhow::anyhow!(e)))?;
    let client = Client::new(config.crawl.max_body.0, gate, &source.fetch.base, &network)
        .allowing(&source.fetch.redirects);
    let max_body = config.crawl.max_body.0;
    let context = Context {
        folders: Folders::below(&config.state_dir).without_files(),
        secrets: source.secrets(config)?,
        programs: Programs::unrecorded(config, source)?,
        ..Context::new(source, date, calendar, client, &config.state_dir, max_body)
    };
    Ok(match collect(&context) {
        Err(e) => (
            json!({ "task": source.name, "error": e.error.message, "error_kind": e.error.kind.as_str() }),
            false,
        ),
        Ok(collected) => {
            let validated = validate(source, CollectionTime::now(date), &collected.records)
                .map_err(anyhow::Error::from)?;
            let names = columns(source);
            let example: Option<Map<String, Value>> = validated
                .rows
                .first()
                .map_err(anyhow::Error::from)?
                .map(|r| names.into_iter().zip(r).collect());
            let error = assess(source, date, &Before::default(), &collected, &validated).error;
            let missing = (!validated.missing_everywhere.is_empty()).then(|| {
                format!(
                    "no record has the field(s) {}",
                    validated.missing_everywhere.join(", ")
                )
            });
            let error = missing.or(error.map(|e| e.message));
            let ok = error.is_none();
            let row = json!({
                "task": source.name, "fetched": collected.records.len(), "expected": collected.expected, "valid": validated.rows.len(),
                "rejected": validated.rejects.len(), "first_reject": validated.rejects.first().map(|r| &r.reason), "example": example, "error": error,
            });
            (row, ok)
        }
    })
}
