//! One run of a task, whatever the task is: begin, attempts, outcome, finish.
//!
//! The run is in the run log before anything is done for it; it is attempted as often as its policy says, every attempt is recorded,
//! and its outcome is stored in one transaction with its rows. Killed between begin and finish: the run stays open until the next
//! program that connects finds its process or its lease gone, and marks it `abandoned`. While PostgreSQL is unreachable the outcome
//! waits in the spool.
//!
//! It knows neither sources nor programs: a [`Task`] says what an attempt is, and what the attempts brought.

use uuid::Uuid;

use super::attempts::{Failed, until_done};
use super::{JournalError, Persisted, Recorder, Run, StartOutcome, Stopwatch, days};
use crate::base::secrets::redact;
use crate::base::supervise::StopSignal;
use crate::model::retry::{ErrorKind, Policy};
use crate::model::run::{Attempt, Outcome, RunError, RunStart, Status};

/// What is run.
pub trait Task {
    /// How often it is attempted. Without a policy once, and that attempt has no record of its own.
    fn policy(&self) -> Option<Policy> {
        None
    }

    /// Whether its attempts start programs; where they do not, nothing of the kind is left by a run that was killed.
    fn starts_programs(&self) -> bool {
        true
    }

    /// Gets everything that the attempts need, once the run is in the run log.
    fn prepare(&mut self, _run: &mut Run) -> Result<(), NotReady> {
        Ok(())
    }

    /// `number` counts from 1.
    fn attempt(&mut self, number: u32) -> Result<(), Failed>;

    /// Adds to the outcome what the attempts brought. Its error is that of the last attempt, and its status follows from that; a task
    /// that knows better replaces it.
    fn complete(&mut self, outcome: &mut Outcome);
}

/// Why there is no attempt at all: the run fails with this.
#[derive(Debug)]
pub struct NotReady {
    /// For the run log.
    pub error: RunError,
    /// A person must correct the configuration.
    pub misconfigured: bool,
}

impl NotReady {
    /// A person must correct the configuration.
    #[must_use]
    pub fn misconfigured(kind: ErrorKind, message: impl AsRef<str>) -> Self {
        Self {
            error: RunError::new(kind, message),
            misconfigured: true,
        }
    }
}

impl From<RunError> for NotReady {
    fn from(error: RunError) -> Self {
        Self {
            error,
            misconfigured: false,
        }
    }
}

/// What became of a run.
#[derive(Debug, Clone)]
pub struct RunReport {
    /// Its name.
    pub task: String,
    /// Its title for people.
    pub title: String,
    /// A final state.
    pub status: Status,
    /// How often it was attempted.
    pub attempts: usize,
    /// Records that came.
    pub fetched: u64,
    /// Rows that were not there.
    pub inserted: u64,
    /// Rows that were there with other values.
    pub updated: u64,
    /// Rows that were there with the same values.
    pub unchanged: u64,
    /// Records that are not stored.
    pub rejected: u64,
    /// Its id in the run log.
    pub run_id: Uuid,
    /// Why, unless it succeeded.
    pub error: Option<RunError>,
    /// Why PostgreSQL has not got it yet, when the outcome waits in the spool.
    pub spooled: Option<String>,
    /// An alert waits to be delivered.
    pub alerted: bool,
    /// How long it took.
    pub seconds: f64,
    /// A person must correct the configuration, or the database's tables.
    pub misconfigured: bool,
    /// It was asked for something that it cannot do, and nothing was attempted.
    pub refused: bool,
}

impl RunReport {
    fn new(start: &RunStart, status: Status) -> Self {
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

    fn skipped(start: &RunStart, reason: &str) -> Self {
        let mut report = Self::new(start, Status::Skipped);
        report.error = Some(RunError::new(ErrorKind::Internal, reason));
        report
    }
}

/// Runs a task from its start to its stored outcome.
///
/// # Errors
/// When neither PostgreSQL nor the spool takes the record of the run, or the schema does not fit.
pub fn run(
    recorder: &Recorder,
    stop: StopSignal,
    start: RunStart,
    task: &mut impl Task,
) -> Result<RunReport, JournalError> {
    let clock = Stopwatch::start(start.started_at);
    // A signal that comes later ends the attempt under way.
    let stopped = task.policy().is_some() && stop.requested();
    let mut run = match recorder.begin_with(start.clone(), task.starts_programs())? {
        StartOutcome::Run(run) => run,
        StartOutcome::Skipped { reason } => return Ok(RunReport::skipped(&start, &reason)),
    };
    let mut misconfigured = false;
    let (attempts, error) = match ready(task, stopped, &mut run) {
        Ok(()) => attempt(task, stop, clock, &mut run),
        Err(e) => {
            misconfigured = e.misconfigured;
            (Vec::new(), Some(e.error))
        }
    };
    let mut outcome = Outcome::bare(start, status_after(error.as_ref()), clock.now());
    outcome.attempts = attempts;
    outcome.error = error;
    task.complete(&mut outcome);
    let mut report = finish(recorder, *run, outcome)?;
    report.seconds = clock.elapsed().as_secs_f64();
    report.misconfigured |= misconfigured;
    Ok(report)
}

/// Records that a run came to nothing before it began, and why.
///
/// # Errors
/// As [`run`].
pub fn skip(
    recorder: &Recorder,
    start: &RunStart,
    reason: &str,
) -> Result<RunReport, JournalError> {
    recorder.record_skipped(start.clone(), reason)?;
    Ok(RunReport::skipped(start, reason))
}

fn ready(task: &mut impl Task, stopped: bool, run: &mut Run) -> Result<(), NotReady> {
    if stopped {
        let message = "stopped by a signal before its first attempt";
        return Err(RunError::new(ErrorKind::Internal, message).into());
    }
    task.prepare(run)
}

fn attempt(
    task: &mut impl Task,
    stop: StopSignal,
    clock: Stopwatch,
    run: &mut Run,
) -> (Vec<Attempt>, Option<RunError>) {
    match task.policy() {
        Some(policy) => until_done(&policy, stop, clock, run, |number| task.attempt(number)),
        None => (Vec::new(), task.attempt(1).err().map(|f| f.error)),
    }
}

fn status_after(error: Option<&RunError>) -> Status {
    match error {
        None => Status::Success,
        Some(e) if e.kind == ErrorKind::Partial => Status::Partial,
        Some(e) if e.kind == ErrorKind::Timeout => Status::Timeout,
        Some(_) => Status::Failed,
    }
}

fn finish(recorder: &Recorder, run: Run, outcome: Outcome) -> Result<RunReport, JournalError> {
    let mut report = RunReport::new(&outcome.start, outcome.status);
    report.attempts = outcome.attempts.len();
    report.fetched = outcome.fetched;
    report.rejected = outcome.rejects.len() as u64;
    report.error.clone_from(&outcome.error);
    let day = outcome.day.as_ref().map(|of| of.day);
    match recorder.finish(run, outcome)? {
        Persisted::Stored(applied) => {
            report.inserted = applied.inserted;
            report.updated = applied.updated;
            report.unchanged = applied.unchanged;
            report.rejected = applied.rejected;
            report.alerted = applied.alerted;
            if let Some(earlier) = applied.repeated {
                report.status = Status::Partial;
                report.error = day.map(|day| days::repeats(day, earlier));
            }
            if let Some((status, error)) = applied.refused {
                report.status = status;
                report.error = Some(error);
            }
        }
        Persisted::Spooled { reason } => {
            tracing::error!("{}: the outcome waits in the spool: {reason}", report.task);
            report.spooled = Some(redact(&reason));
            report.alerted = true;
        }
        Persisted::Refused {
            error,
            misconfigured,
        } => {
            report.misconfigured = misconfigured;
            report.status = Status::Failed;
            report.error = Some(error);
            report.alerted = true;
        }
    }
    Ok(report)
}
