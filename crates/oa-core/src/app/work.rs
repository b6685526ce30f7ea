//! Job that is not a crawl leaves a row in the run log as well, with its outcome.

use std::time::Duration;

use anyhow::anyhow;
use chrono::Utc;
use serde_json::{Map, Value};

use crate::app::cli::{Busy, Failure};
use crate::app::exit;
use crate::base::supervise::StopSignal;
use crate::journal::attempts::{Failed, longest, until_done};
use crate::journal::{Recorder, Run, StartOutcome, Stopwatch};
use crate::model::retry::{ErrorKind, Policy};
use crate::model::run::Batch;
use crate::model::{Attempt, Outcome, RunError, RunStart, Status, Trigger};

/// What is done, for the run log.
#[derive(Debug, Clone)]
pub struct Job {
    /// The program that does it.
    pub program: &'static str,
    /// The task's fixed name.
    pub task: &'static str,
    /// The task's title for people.
    pub title: &'static str,
    /// Who started it.
    pub trigger: Trigger,
    /// Whether a failure is followed by another try; without it the first one is the last, and no tries are recorded.
    pub retry: Option<Policy>,
    /// Being refused (exit code 77) is a failure that somebody must hear of: the work is due all the same.
    pub must_be_done: bool,
}

impl Job {
    /// Started by hand, and tried once.
    #[must_use]
    pub fn by_hand(program: &'static str, task: &'static str, title: &'static str) -> Self {
        Self {
            program,
            task,
            title,
            trigger: Trigger::Manual,
            retry: None,
            must_be_done: false,
        }
    }
}

/// How work ended that came to an end.
#[derive(Debug)]
pub struct JobOutcome<T> {
    /// What it gives back.
    pub value: T,
    /// A final state.
    pub status: Status,
    /// Rows that were read.
    pub fetched: u64,
    /// Why it is not a success.
    pub error: Option<String>,
    /// Rows that are stored together with the outcome.
    pub batches: Vec<Batch>,
    /// For the run row.
    pub details: Map<String, Value>,
    /// See [`Outcome::reported_by_check`].
    pub reported_by_check: bool,
}

impl<T> JobOutcome<T> {
    /// A success that has nothing more to say.
    #[must_use]
    pub fn success(value: T) -> Self {
        Self {
            value,
            status: Status::Success,
            fetched: 0,
            error: None,
            batches: Vec::new(),
            details: Map::new(),
            reported_by_check: false,
        }
    }
}

/// Does work under a run row of its own. A failure with exit code 1 or 75 is followed by another try where [`Job::retry`] says so.
///
/// # Errors
/// The work's own error, or the run log's; 77 when the same task runs already.
pub fn recorded<T>(
    recorder: &Recorder,
    job: &Job,
    mut once: impl FnMut(&RunStart) -> Result<JobOutcome<T>, Failure>,
) -> Result<T, Failure> {
    let start = RunStart::now(
        job.program,
        env!("CARGO_PKG_VERSION"),
        job.task,
        job.title,
        job.trigger,
        // Only another machine waits for this long; on this one a dead process is found by its number.
        job.retry
            .as_ref()
            .map_or(Duration::from_secs(24 * 3600), longest),
    );
    let clock = Stopwatch::start(start.started_at);
    let mut run = match recorder.begin(start)? {
        StartOutcome::Run(run) => run,
        StartOutcome::Skipped { reason } => return Err(Busy(reason).into()),
    };
    let start = run.start().clone();
    let mut outcome = Outcome::bare(start.clone(), Status::Failed, Utc::now());
    let result = match &job.retry {
        None => once(&start),
        Some(policy) => {
            let (attempts, result) = with_retries(policy, clock, &mut run, || once(&start));
            outcome.attempts = attempts;
            result
        }
    };
    outcome.finished_at = clock.now();
    let result = result.map(|mut ended| {
        outcome.status = ended.status;
        outcome.fetched = ended.fetched;
        outcome.details.clone_from(&ended.details);
        outcome.batches = std::mem::take(&mut ended.batches);
        outcome.reported_by_check = ended.reported_by_check;
        let error = ended.error.as_deref();
        outcome.error = error.map(|e| RunError::new(ErrorKind::Invalid, e));
        ended.value
    });
    if let Err(failure) = &result {
        outcome.error = Some(run_error(failure));
        if failure.is_busy() || failure.code == exit::REFUSED && !job.must_be_done {
            // Refusing is what was right to do, not a failure that somebody must be woken for.
            outcome.status = Status::Skipped;
        }
    }
    recorder.finish(*run, outcome)?;
    result
}

/// A program's failure as the run log has it.
#[must_use]
pub fn run_error(failure: &Failure) -> RunError {
    let kind = match failure.code {
        exit::REFUSED => ErrorKind::Invalid,
        exit::UNREACHABLE => ErrorKind::Network,
        _ => ErrorKind::Internal,
    };
    RunError::new(kind, failure.to_string())
}

fn with_retries<T>(
    policy: &Policy,
    clock: Stopwatch,
    run: &mut Run,
    mut once: impl FnMut() -> Result<JobOutcome<T>, Failure>,
) -> (Vec<Attempt>, Result<JobOutcome<T>, Failure>) {
    let mut last = None;
    let (attempts, error) = until_done(policy, StopSignal, clock, run, |_| match once() {
        Ok(ended) => {
            last = Some(Ok(ended));
            Ok(())
        }
        Err(failure) => {
            let failed = Failed {
                error: run_error(&failure),
                retry: matches!(failure.code, exit::FAILED | exit::UNREACHABLE)
                    && !failure.is_lasting(),
                asked: None,
            };
            last = Some(Err(failure));
            Err(failed)
        }
    });
    let result = last.unwrap_or_else(|| {
        let message = error.map_or_else(String::new, |e| e.message);
        Err(anyhow!("nothing was tried: {message}").into())
    });
    (attempts, result)
}
