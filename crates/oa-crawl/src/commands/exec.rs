//! `oa-crawl exec`: any program, with retries, a time limit and a complete run log.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::output::Format;
use oa_core::base::supervise::{self, Owner, Progress, StopSignal};
use oa_core::journal::attempts::{Failed, longest};
use oa_core::journal::due::{Scheduled, Times, register};
use oa_core::journal::live_output::LiveOutput;
use oa_core::journal::{Recorder, Run};
use oa_core::model::retry::{ErrorKind, Policy};
use oa_core::model::run::{Outcome, RunStart};
use oa_core::pg::{self, describe};
use oa_core::schedule::Calendar;
use serde_json::{Value, json};

use super::args::{CronArg, RetryArgs};
use super::report;
use crate::PROGRAM;
use crate::program::environment::{Environment, Programs};
use crate::program::{AttemptOutput, LEFTOVERS, Program, Query};
use crate::progress;
use crate::source::{self, Source, Sources};
use oa_core::journal::runner::{self, NotReady, Task};

/// The output of so many attempts before the last one is kept.
const EARLIER: usize = 3;

/// Run any program with retries, a time limit and a complete run log
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "The program's output goes to stderr; the run log keeps its end. Records are lines of its stdout that are JSON objects, or those of the result file (JSON lines, a JSON array, or {\"records\": N}). Exit codes 2, 77, 78, 126 and 127 of the program are not retried. A program that prints more than max_body of [crawl] (64 MiB) is ended.\n\nExamples:\n  oa-crawl exec --task fangqi-daily --min-records 50 -- python3 crawlers/fangqi.py\n  oa-crawl exec --task receipts --timeout 10m --retries 1 --result-file out.json -- ./receipts.sh --out out.json"
)]
pub(crate) struct Args {
    /// Name of the task in the run log
    #[arg(long, value_name = "NAME", value_parser = parse_task)]
    task: String,
    /// Title for people, in alerts and reports [default: title in [exec.TASK], else the name]
    #[arg(long)]
    title: Option<String>,
    #[command(flatten)]
    retry: RetryArgs,
    /// With fewer records than this, the attempt is repeated, and the run ends as partial, or as failed if there are none
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

/// Runs the program until it succeeds or its attempts are used up, and prints what became of it. The program's own output goes to
/// stderr.
/// Fails when neither PostgreSQL nor the spool can take even the record of it, or the schema does not fit.
pub(crate) fn run(args: Args, mut config: Config) -> Result<u8, Failure> {
    args.retry.apply(&mut config.crawl);
    let config = &config;
    let program = Program {
        query: query(config, &args.task)?,
        command: args.command,
        policy: source::policy(Policy::DEFAULT, &config.crawl),
        most: config.crawl.max_body.0,
        min_records: args.min_records,
        result_file: args.result_file,
    };
    remember_secrets(config);
    let stop = supervise::install_stop_signal().map_err(anyhow::Error::from)?;
    cli::end_at_the_latest(longest(&program.policy));
    let configured = config.exec.get(&args.task);
    let title = configured.and_then(|e| e.title.as_deref());
    let start = RunStart::now(
        PROGRAM,
        env!("CARGO_PKG_VERSION"),
        &args.task,
        args.title.as_deref().or(title).unwrap_or(&args.task),
        args.cron.trigger(),
        program.policy.lease(),
    );
    let recorder = Recorder::open(config, PROGRAM)
        .map_err(|e| report::unstarted(config, vec![start.clone()], e.into()))?;
    if let Some(scheduled) = configured.and_then(|e| e.scheduled(&args.task)) {
        make_known(config, &recorder, scheduled);
    }
    let mut task = ProgramRun {
        config,
        recorder: &recorder,
        stop,
        start: &start,
        program: &program,
        programs: Programs::default(),
        last: AttemptOutput::default(),
        earlier: VecDeque::new(),
        live: None,
        leftovers: Vec::new(),
    };
    // What the program prints says more, where it prints anything.
    let shown = progress::show(args.format, true);
    let work = progress::work(&args.task);
    let report = runner::run(&recorder, stop, start.clone(), &mut task);
    drop((work, shown));
    report::conclude(config, vec![report], args.format)
}

struct ProgramRun<'a> {
    config: &'a Config,
    recorder: &'a Recorder,
    stop: StopSignal,
    start: &'a RunStart,
    program: &'a Program,
    programs: Programs,
    last: AttemptOutput,
    /// The output of attempts before it.
    earlier: VecDeque<Value>,
    /// What it prints, for who looks on.
    live: Option<LiveOutput>,
    /// What an earlier run had left behind and was ended.
    leftovers: Vec<String>,
}

impl Task for ProgramRun<'_> {
    fn policy(&self) -> Option<Policy> {
        Some(self.program.policy)
    }

    fn prepare(&mut self, run: &mut Run) -> Result<(), NotReady> {
        self.leftovers = run.leftovers().to_vec();
        let environment = Environment::of(self.config, &self.start.task)
            .map_err(|e| NotReady::misconfigured(ErrorKind::Auth, e.to_string()))?;
        let state = self.recorder.state();
        self.live = Some(LiveOutput::create(state, &self.start.task, self.start.id));
        let state_dir = state.path();
        self.programs = Programs {
            owner: Some(Owner::new(&self.start.task, self.start.id, state_dir)),
            environment,
        };
        Ok(())
    }

    fn attempt(&mut self, number: u32) -> Result<(), Failed> {
        if number > 1 {
            self.earlier.push_back(json!({ "attempt": number - 1, "ended": self.last.status, "output": self.last.output }));
        }
        if self.earlier.len() > EARLIER {
            self.earlier.pop_front();
        }
        progress::say(&self.start.task, format!("attempt {number}"));
        let (start, stop) = (self.start, self.stop);
        let mut live = self.live.as_mut();
        if let Some(live) = &mut live {
            live.attempt(number);
        }
        let live = live.map(|l| l as &mut dyn Progress);
        self.program
            .attempt(start, number, &self.programs, stop, live, &mut self.last)
    }

    fn complete(&mut self, outcome: &mut Outcome) {
        let last = &self.last;
        outcome.fetched = last.records;
        let details = [
            ("program", json!(self.program.name())),
            ("ended", json!(last.status)),
            ("output", json!(last.output)),
        ];
        let lists = [
            ("earlier_output", json!(self.earlier)),
            ("left_behind", json!(last.left_behind)),
            (LEFTOVERS, json!(self.leftovers)),
        ];
        let lists = lists
            .into_iter()
            .filter(|(_, list)| list.as_array().is_some_and(|all| !all.is_empty()));
        for (name, detail) in details.into_iter().chain(lists) {
            outcome.details.insert(name.to_owned(), detail);
        }
    }
}

/// Writes the slots of a program that has a schedule, so that this run closes its own. Without PostgreSQL the next one does.
fn make_known(config: &Config, recorder: &Recorder, scheduled: Scheduled) {
    let calendar = Calendar::load(config.calendar.as_deref()).unwrap_or_else(|e| {
        tracing::warn!("{e}");
        Calendar::shipped()
    });
    let times = Times {
        zone: config.timezone,
        calendar: &calendar,
    };
    let tasks = [scheduled];
    let known = recorder
        .connected(|client| register(client, PROGRAM, &tasks, times))
        .map_err(|e| e.to_string())
        .and_then(|known| known.map_err(|e| describe(&e)));
    match known {
        Ok(left) if left.is_empty() => {}
        Ok(_) => tracing::warn!("could not write slots: somebody else has the task locked"),
        Err(e) => tracing::warn!("could not write slots: {e}"),
    }
}

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
        for reference in sources.iter().flat_map(Source::secret_references) {
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
