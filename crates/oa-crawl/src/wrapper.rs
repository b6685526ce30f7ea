//! The wrapper around every task: it is recorded before it starts, tried as often as its policy says, and its outcome is stored
//! in one transaction with its rows.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Days, NaiveDate, Utc};
use oa_core::cli::Failure;
use oa_core::config::Config;
use oa_core::exit;
use oa_core::pg::upsert::Batch;
use oa_core::retry::ErrorKind;
use oa_core::runs::{
    Attempt, Begun, Outcome, Quality, RawRecord, Recorded, Recorder, Run, RunError, RunStart,
    Status, Stopwatch, Trigger,
};
use oa_core::schedule::{Calendar, Schedule};
use oa_core::secrets::Secret;
use oa_core::service;
use oa_core::supervise::{Owner, StopSignal};
use serde_json::json;
use uuid::Uuid;

use crate::PROGRAM;
use crate::archive::Archive;
use crate::collect::{Collected, Context, Folders, collect};
use crate::commands::run;
use crate::fetch::gate::Gate;
use crate::fetch::{Client, FetchError};
use crate::program::environment::{Environment, Programs};
use crate::source::Source;
use crate::validate::shape::Shape;
use crate::validate::{Moment, Validated, columns, validate};
use crate::verdict::{assess, is_fresh, other_days};
use oa_core::runs::attempts::{Failed, until_done};

/// What all tasks of one `oa-crawl run` share.
#[derive(Debug)]
pub(crate) struct Wrapper<'a> {
    /// The configuration.
    pub(crate) config: &'a Config,
    /// The run log.
    pub(crate) recorder: &'a Recorder,
    /// The raw archive.
    pub(crate) archive: &'a Archive,
    /// Trading days.
    pub(crate) calendar: &'a Calendar,
    /// Requests under way.
    pub(crate) gate: &'a Gate,
    /// Somebody may ask this process to stop.
    pub(crate) stop: StopSignal,
    /// Who started it.
    pub(crate) trigger: Trigger,
}

/// One task for one day.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
    /// The task.
    pub(crate) source: &'a Source,
    /// The day.
    pub(crate) date: NaiveDate,
    /// The moment of the schedule that it is for (UTC), when it is for one.
    pub(crate) due_at: Option<DateTime<Utc>>,
}

/// What became of a task, for `oa-crawl run` to print.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// The task.
    pub(crate) task: String,
    /// Its title.
    pub(crate) title: String,
    /// Final state.
    pub(crate) status: Status,
    /// Tries.
    pub(crate) attempts: usize,
    /// Records that came.
    pub(crate) fetched: u64,
    /// Rows that were not there.
    pub(crate) inserted: u64,
    /// Rows that were there with other values.
    pub(crate) updated: u64,
    /// Rows that were there just so.
    pub(crate) unchanged: u64,
    /// Records that are not stored.
    pub(crate) rejected: u64,
    /// The run's id.
    pub(crate) run_id: Uuid,
    /// Why, unless it succeeded.
    pub(crate) error: Option<RunError>,
    /// Why PostgreSQL has not got it yet, when the outcome waits in the spool.
    pub(crate) spooled: Option<String>,
    /// Somebody is to be told.
    pub(crate) alerted: bool,
    /// What it took, in seconds.
    pub(crate) seconds: f64,
    /// The configuration is at fault: a secret is missing.
    pub(crate) misconfigured: bool,
    /// The site cannot show that day.
    pub(crate) refused: bool,
}

impl Report {
    /// A report of a run that has brought nothing yet.
    pub(crate) fn of(start: &RunStart, status: Status) -> Self {
        Self {
            task: start.task.clone(),
            title: start.title.clone(),
            status,
            attempts: 0,
            fetched: 0,
            inserted: 0,
            updated: 0,
            unchanged: 0,
            rejected: 0,
            run_id: start.id,
            error: None,
            spooled: None,
            alerted: false,
            seconds: 0.0,
            misconfigured: false,
            refused: false,
        }
    }

    /// The exit code that this task alone would give.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.status {
            _ if self.misconfigured => exit::CONFIG,
            _ if self.refused => exit::REFUSED,
            Status::Success if self.spooled.is_some() => exit::UNREACHABLE,
            Status::Success | Status::Skipped => exit::OK,
            _ => exit::FAILED,
        }
    }
}

/// The start of a source's run.
pub(crate) fn start_of(source: &Source, trigger: Trigger) -> RunStart {
    let mut start = RunStart::now(
        PROGRAM,
        env!("CARGO_PKG_VERSION"),
        &source.name,
        &source.title,
        trigger,
        source.retry.lease(),
    );
    start.schedule = is_expected(source, trigger).then(|| source.schedule.clone());
    start
}

/// The detail of a run that names what an earlier one had left.
pub(crate) const LEFTOVERS: &str = "ended_of_earlier_run";
/// Whether the next start is missed when it does not come: a source that is off and was run by hand owes nothing, one that has a
/// crontab line of its own does.
fn is_expected(source: &Source, trigger: Trigger) -> bool {
    source.enabled || trigger == Trigger::Cron
}

/// How often a try under way looks for a signal to stop.
const POLL: Duration = Duration::from_millis(100);
/// What a try may take beyond its limit, which every request keeps by itself.
const GRACE: Duration = Duration::from_secs(10);

/// How the tries ended.
#[derive(Default)]
struct Ended {
    attempts: Vec<Attempt>,
    raw: Vec<RawRecord>,
    /// The best that came: the last complete try, or the fullest incomplete one.
    collected: Option<(Collected, Validated)>,
    error: Option<RunError>,
    /// What an earlier run had left and was ended.
    leftovers: Vec<String>,
    /// What the records of earlier runs looked like.
    shape: Option<Shape>,
}

impl Wrapper<'_> {
    /// Does one job.
    /// Fails when neither PostgreSQL nor the spool can take even the record of it, or the schema does not fit.
    pub(crate) fn run(&self, job: &Job<'_>) -> Result<Report, Failure> {
        let (source, date) = (job.source, job.date);
        let mut start = start_of(source, self.trigger);
        start.due_at = job.due_at;
        start.day = Some(date);
        let clock = Stopwatch::start(start.started_at);
        if let Some(reason) = self.left_out(source, date) {
            self.recorder.record_skipped(start.clone(), &reason)?;
            let mut report = Report::of(&start, Status::Skipped);
            report.error = Some(RunError::new(ErrorKind::Internal, reason));
            return Ok(report);
        }
        if let Some(reason) = self.cannot_show(source, date) {
            return self.refuse(&start, &reason);
        }
        let mut run = match self.recorder.begin(start.clone())? {
            Begun::Run(run) => run,
            Begun::Skipped { reason } => {
                let mut report = Report::of(&start, Status::Skipped);
                report.error = Some(RunError::new(ErrorKind::Internal, reason));
                return Ok(report);
            }
        };
        let secrets = run::secrets(self.config, source)
            .and_then(|secrets| Ok((secrets, Environment::of_source(self.config, source)?)));
        let (ended, misconfigured) = match secrets {
            _ if self.stop.requested() => (
                Ended {
                    error: Some(RunError::new(
                        ErrorKind::Internal,
                        "stopped by a signal before its first try",
                    )),
                    ..Ended::default()
                },
                false,
            ),
            Ok((secrets, environment)) => (
                self.try_until_done(source, date, &secrets, &environment, clock, &mut run),
                false,
            ),
            Err(e) => {
                let error = Some(RunError::new(ErrorKind::Auth, e.to_string()));
                (
                    Ended {
                        error,
                        ..Ended::default()
                    },
                    true,
                )
            }
        };
        let outcome = self.outcome(source, date, start.clone(), clock, ended);
        let mut report = conclude(self.recorder, *run, outcome, clock)?;
        report.misconfigured |= misconfigured;
        Ok(report)
    }

    /// Stores what was made anew of the answers of an earlier run, `of`, as a run of its own.
    pub(crate) fn replay(
        &self,
        source: &Source,
        moment: Moment,
        of: Uuid,
        raw: Vec<RawRecord>,
        collected: Collected,
    ) -> Result<Report, Failure> {
        let mut start = start_of(source, self.trigger);
        start.day = Some(moment.date);
        let clock = Stopwatch::start(start.started_at);
        let run = match self.recorder.begin(start.clone())? {
            Begun::Run(run) => run,
            Begun::Skipped { reason } => {
                let mut report = Report::of(&start, Status::Skipped);
                report.error = Some(RunError::new(ErrorKind::Internal, reason));
                return Ok(report);
            }
        };
        let mut ended = Ended {
            raw,
            ..Ended::default()
        };
        ended.error = judge(source, moment, None, collected, &mut ended);
        let mut outcome = self.outcome(source, moment.date, start, clock, ended);
        outcome
            .details
            .insert("replayed_from".to_owned(), json!(of));
        conclude(self.recorder, *run, outcome, clock)
    }

    fn try_until_done(
        &self,
        source: &Source,
        date: NaiveDate,
        secrets: &[(String, Secret)],
        environment: &Environment,
        clock: Stopwatch,
        run: &mut Run,
    ) -> Ended {
        let client = Client::new(
            self.config.crawl.max_body.0,
            self.gate.clone(),
            &source.fetch.base,
        );
        let mut ended = Ended::default();
        let archive = match self.archive.of_run(run.start().id) {
            Ok(archive) => Arc::new(archive),
            Err(e) => {
                ended.error = Some(RunError::new(ErrorKind::Internal, e.to_string()));
                return ended;
            }
        };
        let usual = self.usual_count(source, date, run);
        let start = run.start();
        let programs = Programs {
            owner: Some(Owner::new(
                &start.task,
                start.id,
                self.recorder.state().path(),
            )),
            environment: environment.clone(),
        };
        ended.leftovers = run.leftovers().to_vec();
        ended.shape = run.shape().as_ref().and_then(Shape::from_json);
        let (attempts, error) = until_done(&source.retry, self.stop, clock, run, |number| {
            // Midnight, or the schedule's next moment, may have come since the last try.
            if let Some(reason) = self.cannot_show(source, date) {
                let error = RunError::new(ErrorKind::Internal, reason);
                return Err(Failed::by_kind(error, None));
            }
            let context = Context {
                source: source.clone(),
                date,
                client: client.clone(),
                archive: Some(archive.clone()),
                replayed: None,
                folders: Folders::below(self.recorder.state().path()),
                browser: Mutex::default(),
                max_body: self.config.crawl.max_body.0,
                secrets: secrets.to_vec(),
                programs: programs.clone(),
                attempt: number,
                deadline: Instant::now() + source.retry.timeout,
            };
            let collected = self
                .collect(context)
                .map_err(|e| Failed::by_kind(e.error, e.retry_after))?;
            judge(source, self.moment(date), usual, collected, &mut ended)
                .map_or(Ok(()), |error| Err(Failed::by_kind(error, None)))
        });
        ended.raw = archive.entries();
        ended.attempts = attempts;
        ended.error = error;
        ended
    }

    /// A day whose data are received now, by the server's clock.
    fn moment(&self, date: NaiveDate) -> Moment {
        let at = self.recorder.now();
        Moment { date, at }
    }

    /// Collects on a thread of its own, so that a signal, or a limit that is not kept, ends the try however long a site is silent.
    fn collect(&self, context: Context) -> Result<Collected, FetchError> {
        let limit = context.deadline + GRACE;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let collected = collect(&context);
            // Its browser ends before this process may.
            drop(context);
            sender.send(collected)
        });
        loop {
            let (kind, message) = match receiver.recv_timeout(POLL) {
                Ok(collected) => return collected,
                Err(RecvTimeoutError::Timeout) if self.stop.requested() => {
                    (ErrorKind::Internal, "stopped by a signal while fetching")
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < limit => continue,
                Err(RecvTimeoutError::Timeout) => {
                    (ErrorKind::Timeout, "the try did not end by its limit")
                }
                Err(RecvTimeoutError::Disconnected) => (
                    ErrorKind::Internal,
                    "the fetching thread ended by a mistake of this program; its message is in the log",
                ),
            };
            return Err(FetchError::new(kind, message));
        }
    }

    fn outcome(
        &self,
        source: &Source,
        date: NaiveDate,
        start: RunStart,
        clock: Stopwatch,
        ended: Ended,
    ) -> Outcome {
        let status = match (&ended.error, &ended.collected) {
            (None, _) => Status::Success,
            (Some(_), Some((_, validated))) if !validated.rows.is_empty() => Status::Partial,
            (Some(e), _) if e.kind == ErrorKind::Timeout => Status::Timeout,
            (Some(_), _) => Status::Failed,
        };
        let mut outcome = Outcome::bare(start, status, clock.now());
        outcome.attempts = ended.attempts;
        outcome.raw = ended.raw;
        outcome.error = ended.error;
        let now = self.recorder.now();
        let today = now.with_timezone(&self.config.timezone).date_naive();
        if self.trigger != Trigger::Backfill && (outcome.start.due_at.is_some() || date == today) {
            // Another day does not take care of today.
            outcome.next_due_at = self.next_due(source, now);
        }
        outcome.alert_after = source.alert_after;
        outcome
            .details
            .insert("provider".to_owned(), json!(source.provider));
        outcome
            .details
            .insert("table".to_owned(), json!(source.store.table));
        outcome.details.insert("day".to_owned(), json!(date));
        if !ended.leftovers.is_empty() {
            let ended = json!(ended.leftovers);
            outcome.details.insert(LEFTOVERS.to_owned(), ended);
        }
        if let Some((collected, validated)) = ended.collected {
            outcome.fetched = collected.records.len() as u64;
            outcome
                .details
                .insert("requests".to_owned(), json!(collected.pages));
            let mut findings = collected.findings;
            findings.extend(validated.findings);
            findings.extend(other_days(source, date, &validated.rows));
            let mut shape = Shape::of(&collected.records);
            if let Some(before) = &ended.shape {
                findings.extend(shape.differences(before, &collected.records));
                shape = shape.with_kinds_of(before);
            }
            outcome.shape = (status == Status::Success).then(|| shape.to_json());
            outcome.quality = Some(Quality {
                day: Some(date),
                expected: collected.expected,
                collected: outcome.fetched,
                duplicates: collected.duplicates + validated.duplicates,
                fresh: is_fresh(source, date, &validated.rows),
                findings,
            });
            outcome.rejects = validated.rejects;
            outcome.batches.push(self.batch(source, validated.rows));
        }
        outcome
    }

    /// Rows as they are stored.
    pub(crate) fn batch(&self, source: &Source, rows: Vec<Vec<serde_json::Value>>) -> Batch {
        let key = if source.store.key.is_empty() {
            service::natural_key(&source.store.table).map_or_else(Vec::new, |k| {
                k.key.iter().map(|s| (*s).to_owned()).collect()
            })
        } else {
            source.store.key.clone()
        };
        Batch {
            schema: source.store.schema.clone(),
            table: source.store.table.clone(),
            columns: columns(source),
            key,
            rows,
            collected_at: self.recorder.now(),
            timezone: service::TIMEZONE.name().to_owned(),
        }
    }

    /// How many records are usual on such a day: the same weekday, or else other recent days, that are trading days or none as
    /// this one is. Only what is collected on its own day is compared with what was collected on its own day.
    fn usual_count(&self, source: &Source, date: NaiveDate, run: &mut Run) -> Option<u64> {
        let now = self.recorder.now().with_timezone(&self.config.timezone);
        if source.min_of_usual <= 0.0 || now.date_naive() != date {
            return None;
        }
        let is_open = |day: NaiveDate| self.calendar.is_trading_day(day).is_open();
        let alike = |step: usize, count: usize| -> Vec<NaiveDate> {
            (1..=count)
                .filter_map(|n| date.checked_sub_days(Days::new((n * step) as u64)))
                .filter(|day| is_open(*day) == is_open(date))
                .collect()
        };
        let mut usual =
            |days: &[NaiveDate]| run.usual_count(days, now.time(), self.config.timezone);
        usual(&alike(7, 8)).or_else(|| usual(&alike(1, 14)))
    }

    /// A crontab line knows neither holidays nor sessions: why its start, for the day it is on, comes to nothing.
    fn left_out(&self, source: &Source, date: NaiveDate) -> Option<String> {
        let now = self.recorder.now();
        let today = now.with_timezone(&self.config.timezone).date_naive();
        if self.trigger != Trigger::Cron || date != today {
            return None;
        }
        let schedule = self.schedule(source)?;
        schedule
            .leaves_out(now, self.calendar)
            .then(|| format!("{date} is no day, or this no session, of {}", source.name))
    }

    fn cannot_show(&self, source: &Source, date: NaiveDate) -> Option<String> {
        let now = self.recorder.now().with_timezone(&self.config.timezone);
        source.cannot_show(date, now, self.calendar)
    }

    /// A day that the site cannot show is in the run log, with the reason, and nothing is fetched. What was missed stays missed.
    fn refuse(&self, start: &RunStart, reason: &str) -> Result<Report, Failure> {
        let reason = match start.due_at {
            Some(due) => {
                let due = due.with_timezone(&self.config.timezone);
                let due = due.format("%Y-%m-%d %H:%M");
                format!("the run of {due} was missed and cannot be made up for: {reason}")
            }
            None => reason.to_owned(),
        };
        tracing::error!("{}: {reason}", start.task);
        self.recorder.record_skipped(start.clone(), &reason)?;
        let mut report = Report::of(start, Status::Skipped);
        report.error = Some(RunError::new(ErrorKind::Internal, reason));
        report.refused = true;
        Ok(report)
    }

    fn schedule(&self, source: &Source) -> Option<Schedule> {
        Some(
            Schedule::parse(&source.schedule, self.config.timezone)
                .ok()?
                .on(source.days)
                .within(&source.sessions),
        )
    }

    fn next_due(&self, source: &Source, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if !is_expected(source, self.trigger) {
            return None;
        }
        self.schedule(source)?.next_after(now, self.calendar)
    }
}

/// Stores the outcome of a run and tells what became of it.
/// Fails when neither PostgreSQL nor the spool can take it.
pub(crate) fn conclude(
    recorder: &Recorder,
    run: Run,
    outcome: Outcome,
    clock: Stopwatch,
) -> Result<Report, Failure> {
    let mut report = Report::of(&outcome.start, outcome.status);
    report.attempts = outcome.attempts.len();
    report.fetched = outcome.fetched;
    report.rejected = outcome.rejects.len() as u64;
    report.error.clone_from(&outcome.error);
    match recorder.finish(run, outcome)? {
        Recorded::Stored(applied) => {
            report.inserted = applied.inserted;
            report.updated = applied.updated;
            report.unchanged = applied.unchanged;
            report.rejected = applied.rejected;
            report.alerted = applied.alerted;
        }
        Recorded::Spooled { reason } => {
            tracing::error!("{}: the outcome waits in the spool: {reason}", report.task);
            report.spooled = Some(oa_core::secrets::redact(&reason));
            report.alerted = true;
        }
        Recorded::Refused {
            error,
            misconfigured,
        } => {
            // A missing table or index is for a person to mend.
            report.misconfigured = misconfigured;
            report.status = Status::Failed;
            report.error = Some(error);
            report.alerted = true;
        }
    }
    report.seconds = clock.elapsed().as_secs_f64();
    Ok(report)
}

/// Judges what a try brought, and keeps it if it is the best so far. Returns why it is not a success, if it is not.
fn judge(
    source: &Source,
    moment: Moment,
    usual: Option<u64>,
    collected: Collected,
    ended: &mut Ended,
) -> Option<RunError> {
    let validated = validate(source, moment, &collected.records);
    let (error, storable) = assess(source, moment.date, usual, &collected, &validated);
    let better = ended.collected.as_ref().is_none_or(|(before, _)| {
        error.is_none() || collected.records.len() >= before.records.len()
    });
    if storable && better {
        ended.collected = Some((collected, validated));
    }
    error
}
