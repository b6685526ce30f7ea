//! `oa-crawl exec`: any program, with retries, a time limit and a complete run log.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use oa_core::cli::{self, Failure};
use oa_core::config::Config;
use oa_core::output::Format;
use oa_core::pg;
use oa_core::retry::{ErrorKind, Policy};
use oa_core::runs::{Begun, Outcome, Recorder, RunError, RunStart, Status, Stopwatch};
use oa_core::supervise::{self, Owner};
use serde_json::json;

use super::args::{CronArg, RetryArgs};
use super::report;
use crate::PROGRAM;
use crate::program::environment::{Environment, Programs};
use crate::program::{Brought, Program, Query};
use crate::source::{self, Sources};
use crate::wrapper::{self, LEFTOVERS, Report};
use oa_core::runs::attempts::{longest, until_done};

/// The output of so many tries before the last one is kept.
const EARLIER: usize = 3;

/// Run any program with retries, a time limit and a complete run log
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "The program's output goes to stderr; its end is kept in the run log. Records are counted from lines of its stdout that are JSON\nobjects, or from the result file (JSON lines, a JSON array, or {\"records\": N}). Exit codes 2, 77, 78, 126 and 127 of the program\nare not retried.\n\nExamples:\n  oa-crawl exec --task fangqi-daily --min-records 50 -- python3 crawlers/fangqi.py\n  oa-crawl exec --task receipts --timeout 10m --retries 1 --result-file out.json -- ./receipts.sh --out out.json"
)]
pub(crate) struct Args {
    /// Name of the task in the run log
    #[arg(long, value_name = "NAME", value_parser = parse_task)]
    task: String,
    /// Title for people, in alerts and reports [default: the name]
    #[arg(long)]
    title: Option<String>,
    #[command(flatten)]
    retry: RetryArgs,
    /// Fewer records than this are a failure
    #[arg(long, value_name = "N")]
    min_records: Option<u64>,
    /// File in which the program leaves its records or their number, written anew by each attempt
    #[arg(long, value_name = "FILE")]
    result_file: Option<PathBuf>,
    #[command(flatten)]
    cron: CronArg,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Runs the program until it succeeds or its tries are used up, and prints what became of it. The program's own output goes to
/// stderr.
/// Fails when neither PostgreSQL nor the spool can take even the record of it, or the schema does not fit.
pub(crate) fn run(args: Args, mut config: Config) -> Result<u8, Failure> {
    args.retry.apply(&mut config.crawl);
    let config = &config;
    let program = Program {
        query: query(config, &args.task)?,
        command: args.command,
        policy: source::policy(Policy::DEFAULT, &config.crawl),
        min_records: args.min_records,
        result_file: args.result_file,
    };
    remember_secrets(config);
    let stop = supervise::install_stop_signal().map_err(anyhow::Error::from)?;
    cli::end_at_the_latest(longest(&program.policy));
    let start = RunStart::now(
        PROGRAM,
        env!("CARGO_PKG_VERSION"),
        &args.task,
        args.title.as_ref().unwrap_or(&args.task),
        args.cron.trigger(),
        program.policy.lease(),
    );
    let clock = Stopwatch::start(start.started_at);
    let recorder = Recorder::open(config, PROGRAM)
        .map_err(|e| report::unstarted(config, vec![start.clone()], e))?;
    let report = match recorder.begin(start.clone())? {
        Begun::Skipped { reason } => {
            let mut report = Report::of(&start, Status::Skipped);
            report.error = Some(RunError::new(ErrorKind::Internal, reason));
            report
        }
        Begun::Run(mut run) => {
            let mut brought = Brought::default();
            let mut earlier = VecDeque::new();
            let environment = Environment::of(config, &start.task);
            let misconfigured = environment.is_err();
            let (attempts, error) = match environment {
                Err(e) => {
                    let error = RunError::new(ErrorKind::Auth, e.to_string());
                    (Vec::new(), Some(error))
                }
                Ok(environment) => {
                    let programs = Programs {
                        owner: Some(Owner::new(&start.task, start.id, recorder.state().path())),
                        environment,
                    };
                    until_done(&program.policy, stop, clock, &mut run, |number| {
                        if number > 1 {
                            earlier.push_back(json!({ "attempt": number - 1, "ended": brought.status, "output": brought.output }));
                        }
                        if earlier.len() > EARLIER {
                            earlier.pop_front();
                        }
                        program.once(&start, number, &programs, stop, &mut brought)
                    })
                }
            };
            let status = match &error {
                None => Status::Success,
                Some(e) if e.kind == ErrorKind::Partial => Status::Partial,
                Some(e) if e.kind == ErrorKind::Timeout => Status::Timeout,
                Some(_) => Status::Failed,
            };
            let mut outcome = Outcome::bare(start, status, clock.now());
            outcome.attempts = attempts;
            outcome.error = error;
            outcome.fetched = brought.records;
            outcome.details = [
                ("program", json!(program.name())),
                ("ended", json!(brought.status)),
                ("output", json!(brought.output)),
            ]
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v))
            .collect();
            for (name, what) in [
                ("earlier_output", json!(earlier)),
                ("left_behind", json!(brought.left_behind)),
                (LEFTOVERS, json!(run.leftovers())),
            ] {
                if what.as_array().is_some_and(|all| !all.is_empty()) {
                    outcome.details.insert(name.to_owned(), what);
                }
            }
            let mut report = wrapper::conclude(&recorder, *run, outcome, clock)?;
            report.misconfigured |= misconfigured;
            report
        }
    };
    report::conclude(config, vec![Ok(report)], args.format)
}

/// How the configuration says that a task's records are counted.
fn query(config: &Config, task: &str) -> Result<Option<Query>, Failure> {
    let Some(sql) = config.exec.get(task).and_then(|e| e.records.clone()) else {
        return Ok(None);
    };
    let settings = pg::Settings::from_config(config, PROGRAM)?;
    Ok(Some(Query { sql, settings }))
}

/// What the program prints is passed on and kept: it must not bring a secret with it that can be known here.
fn remember_secrets(config: &Config) {
    config.remember_secrets();
    // Broken source files are no reason not to run a program.
    if let Ok(sources) = Sources::load(config, None) {
        for (_, reference) in sources.iter().flat_map(|s| &s.fetch.secret_headers) {
            config.remember(reference);
        }
    }
}

/// The name of a task: what can stand in a shell line, a file name and a URL without quotes.
fn parse_task(text: &str) -> Result<String, String> {
    let good = !text.is_empty()
        && text.len() <= 64
        && !text.starts_with('-')
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
    if good {
        Ok(text.to_owned())
    } else {
        Err("a task's name has up to 64 small letters, digits, - and _".to_owned())
    }
}
