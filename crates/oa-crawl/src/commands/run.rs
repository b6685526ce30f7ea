//! `oa-crawl run`: collects sources now.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use chrono::{DateTime, NaiveDate, Utc};
use clap::Args as ClapArgs;
use oa_core::cli::{self, Failure};
use oa_core::config::{Config, ConfigError};
use oa_core::exit;
use oa_core::output::{Format, Listing};
use oa_core::pg::upsert::Batch;
use oa_core::runs::{RawRecord, Recorder, Trigger};
use oa_core::schedule::Calendar;
use oa_core::secrets::Secret;
use oa_core::state_dir::StateDir;
use oa_core::supervise::{self, StopSignal};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::args::{CronArg, RetryArgs, SourcesArg, parse_date};
use crate::PROGRAM;
use crate::archive::Archive;
use crate::collect::{Collected, Context, Folders, collect};
use crate::commands::{broken, due, enable, list, report};
use crate::fetch::Client;
use crate::fetch::gate::Gate;
use crate::program::environment::Programs;
use crate::source::{Broken, FetchKind, Source, Sources};
use crate::validate::{Moment, columns, validate};
use crate::verdict::assess;
use crate::wrapper::{Job, Report, Wrapper, start_of};
use oa_core::runs::attempts::longest;

/// Collect sources now; a task that is named runs whether it is enabled or not
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
    /// Every source that is enabled, due and not run yet, here or on another machine: for one crontab line a minute
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
            true => list::report_broken(&loaded, code),
            false => code,
        });
    }
    let trigger = args.trigger();
    let tools = Tools::open(config, &calendar, trigger).map_err(|e| {
        let starts = chosen.iter().map(|s| start_of(s, trigger));
        report::unstarted(config, starts.collect(), e)
    })?;
    if args.all || args.due {
        let by_hand = args.all || cli::interactive();
        enable::look(config, &loaded, &tools.recorder, by_hand)?;
    }
    let enable = config.crawl.enable.as_deref().unwrap_or_default();
    let mut reports = if (args.all || args.due) && enable.is_empty() {
        // Where nothing is expected nobody is notified; it is said all the same.
        list::report_broken(&loaded, exit::OK);
        Vec::new()
    } else if args.all || args.due {
        broken::report(&tools.recorder, &loaded, trigger)
    } else {
        named_but_broken(&tools.recorder, &loaded, &args.tasks, trigger)
    };
    let jobs = if args.due {
        due::jobs(config, &loaded, &calendar, &tools.recorder)
    } else {
        if args.date.is_none() {
            // Which day it is, the server knows. What keeps us from it is reported by each run.
            drop(tools.recorder.connect());
        }
        let day = day_at(tools.recorder.now());
        let job = |source| Job {
            source,
            date: day(source),
            due_at: None,
        };
        chosen.into_iter().map(job).collect()
    };
    reports.extend(tools.run_all(&jobs));
    let code = if args.due && reports.is_empty() {
        exit::OK // cron mails what a command prints.
    } else {
        report::conclude(config, reports, args.format)?
    };
    Ok(if args.all || args.due {
        list::with_broken(&loaded, code)
    } else {
        code
    })
}

/// Tasks that were asked for by name, and whose files cannot be used.
fn named_but_broken(
    recorder: &Recorder,
    sources: &Sources,
    tasks: &[String],
    trigger: Trigger,
) -> Vec<Result<Report, Failure>> {
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

/// What runs need, opened once.
pub(super) struct Tools<'a> {
    config: &'a Config,
    calendar: &'a Calendar,
    trigger: Trigger,
    gate: Gate,
    pub(super) recorder: Recorder,
    pub(super) archive: Archive,
    pub(super) stop: StopSignal,
}

impl<'a> Tools<'a> {
    pub(super) fn open(
        config: &'a Config,
        calendar: &'a Calendar,
        trigger: Trigger,
    ) -> Result<Self, Failure> {
        let recorder = Recorder::open(config, PROGRAM)?;
        Ok(Self {
            config,
            calendar,
            trigger,
            gate: Gate::new(config.crawl.per_host),
            archive: Archive::open(recorder.state())?,
            recorder,
            stop: supervise::install_stop_signal().map_err(anyhow::Error::from)?,
        })
    }

    fn wrapper(&self) -> Wrapper<'_> {
        Wrapper {
            config: self.config,
            recorder: &self.recorder,
            archive: &self.archive,
            gate: &self.gate,
            calendar: self.calendar,
            stop: self.stop,
            trigger: self.trigger,
        }
    }

    /// See [`Wrapper::replay`].
    pub(super) fn replay(
        &self,
        source: &Source,
        moment: Moment,
        of: Uuid,
        raw: Vec<RawRecord>,
        collected: Collected,
    ) -> Result<Report, Failure> {
        self.wrapper().replay(source, moment, of, raw, collected)
    }

    /// Rows as they would be stored.
    pub(super) fn batch(&self, source: &Source, rows: Vec<Vec<Value>>) -> Batch {
        self.wrapper().batch(source, rows)
    }

    /// Does all jobs, several at a time, and gives back what became of each, in their order.
    pub(super) fn run_all(&self, jobs: &[Job<'_>]) -> Vec<Result<Report, Failure>> {
        let wrapper = self.wrapper();
        let parallel = self.config.crawl.parallel.min(jobs.len());
        let longest = jobs.iter().map(|j| longest(&j.source.retry)).max();
        let rounds = u32::try_from(jobs.len().div_ceil(parallel.max(1))).unwrap_or(u32::MAX);
        cli::end_at_the_latest(longest.unwrap_or_default().saturating_mul(rounds));

        let next = AtomicUsize::new(0);
        let results: Mutex<Vec<(usize, Result<Report, Failure>)>> = Mutex::new(Vec::new());
        let work = || {
            while let Some((i, job)) = take(&next, jobs) {
                let result = wrapper.run(job);
                if let Ok(report) = &result {
                    log(report);
                }
                if let Ok(mut results) = results.lock() {
                    results.push((i, result));
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..parallel {
                scope.spawn(work);
            }
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_by_key(|(i, _)| *i);
        results.into_iter().map(|(_, r)| r).collect()
    }
}

fn log(report: &Report) {
    tracing::info!(
        "{}: {} after {} tries, {} records",
        report.task,
        report.status.as_str(),
        report.attempts,
        report.fetched
    );
}

fn take<'a, T>(next: &AtomicUsize, all: &'a [T]) -> Option<(usize, &'a T)> {
    let i = next.fetch_add(1, Ordering::Relaxed);
    all.get(i).map(|one| (i, one))
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

/// One try of each source, shown instead of stored: nothing is written anywhere.
fn dry_run(
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
    for source in chosen {
        let date = day(source);
        if let Some(reason) = source.cannot_show(date, now, calendar) {
            worst = exit::REFUSED;
            tracing::error!("{reason}");
            listing.push(json!({ "task": source.name, "error": reason }));
            continue;
        }
        let (row, ok) = dry_run_one(config, source, date)?;
        if !ok {
            worst = worst.max(exit::FAILED);
        }
        listing.push(row);
    }
    listing.print(format).map_err(anyhow::Error::from)?;
    Ok(worst)
}

/// The source's secrets, resolved: headers by their names, inputs of the browser by their selectors. What only a login needs may
/// be absent.
pub(crate) fn secrets(
    config: &Config,
    source: &Source,
) -> Result<Vec<(String, Secret)>, ConfigError> {
    let mut resolved = Vec::new();
    for (name, reference) in &source.fetch.secret_headers {
        let place = format!("header {name} of source {}", source.name);
        resolved.push((name.clone(), config.secret(reference, &place)?));
    }
    for (input, reference) in source.input_secrets() {
        let place = format!("{input} of source {}", source.name);
        let secret = config.secret(reference, &place).ok();
        resolved.extend(secret.map(|s| (input, s)));
    }
    Ok(resolved)
}

fn dry_run_one(
    config: &Config,
    source: &Source,
    date: NaiveDate,
) -> Result<(Value, bool), Failure> {
    if source.fetch.kind == FetchKind::Browser {
        StateDir::open(&config.state_dir)?;
    }
    let gate = Gate::new(config.crawl.per_host);
    let client = Client::new(config.crawl.max_body.0, gate, &source.fetch.base);
    let context = Context {
        source: source.clone(),
        date,
        client,
        archive: None,
        replayed: None,
        folders: Folders::below(&config.state_dir).without_files(),
        browser: Mutex::default(),
        max_body: config.crawl.max_body.0,
        secrets: secrets(config, source)?,
        programs: Programs::unrecorded(config, source)?,
        attempt: 1,
        deadline: Instant::now() + source.retry.timeout,
    };
    Ok(match collect(&context) {
        Err(e) => (
            json!({ "task": source.name, "error": e.error.message, "error_kind": e.error.kind.as_str() }),
            false,
        ),
        Ok(collected) => {
            let validated = validate(source, Moment::now(date), &collected.records);
            let names = columns(source);
            let example: Option<Map<String, Value>> = validated
                .rows
                .first()
                .map(|r| names.into_iter().zip(r.iter().cloned()).collect());
            let (error, _) = assess(source, date, None, &collected, &validated);
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
