//! Work that ends with an exit code, such as a backup or a migration, as a task of the runner.

use std::time::Duration;

use anyhow::anyhow;
use chrono::NaiveDate;
use serde_json::{Map, Value};

use crate::app::cli::{Busy, Failure};
use crate::app::exit;
use crate::base::supervise::StopSignal;
use crate::journal::attempts::{Failed, longest};
use crate::journal::runner::{self, NotReady, Task};
use crate::journal::{Recorder, Run};
use crate::model::retry::{ErrorKind, Policy};
use crate::model::run::Batch;
use crate::model::{Outcome, RunError, RunStart, Status, Trigger};

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
    /// The day that it is about, whatever the server's clock says when it runs.
    pub day: Option<NaiveDate>,
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
            day: None,
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

/// Does work under a run row of its own ([`runner`]). A failure with exit code 1 or 75 is followed by another try where [`Job::retry`]
/// says so.
///
/// # Errors
/// The work's own error, or the run log's; 77 when the same task runs already.
pub fn recorded<T>(
    recorder: &Recorder,
    job: &Job,
    once: impl FnMut(&RunStart) -> Result<JobOutcome<T>, Failure>,
) -> Result<T, Failure> {
    let mut start = RunStart::now(
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
    start.day = job.day;
    let mut work = Work {
        job,
        once,
        start: start.clone(),
        last: None,
    };
    let report = runner::run(recorder, StopSignal, start, &mut work)?;
    match work.last {
        Some(result) => result.map(|done| done.value),
        None => {
            let why = report.error.map_or_else(String::new, |e| e.message);
            Err(match report.status {
                Status::Skipped => Busy(why).into(),
                _ => anyhow!("nothing was tried: {why}").into(),
            })
        }
    }
}

/// A job as the runner has it: attempts are calls, and the last of them decides.
struct Work<'a, T, F> {
    job: &'a Job,
    once: F,
    start: RunStart,
    last: Option<Result<JobOutcome<T>, Failure>>,
}

impl<T, F: FnMut(&RunStart) -> Result<JobOutcome<T>, Failure>> Task for Work<'_, T, F> {
    fn policy(&self) -> Option<Policy> {
        self.job.retry
    }

    fn prepare(&mut self, run: &mut Run) -> Result<(), NotReady> {
        self.start = run.start().clone();
        Ok(())
    }

    fn attempt(&mut self, _number: u32) -> Result<(), Failed> {
        let result = (self.once)(&self.start);
        let failed = result.as_ref().err().map(|failure| Failed {
            error: run_error(failure),
            retry: matches!(failure.code, exit::FAILED | exit::UNREACHABLE)
                && !failure.is_lasting(),
            asked: None,
            not_yet: None,
        });
        self.last = Some(result);
        failed.map_or(Ok(()), Err)
    }

    fn complete(&mut self, outcome: &mut Outcome) {
        match &mut self.last {
            Some(Ok(done)) => {
                outcome.status = done.status;
                outcome.fetched = done.fetched;
                outcome.details.clone_from(&done.details);
                outcome.batches = std::mem::take(&mut done.batches);
                outcome.reported_by_check = done.reported_by_check;
                let error = done.error.as_deref();
                outcome.error = error.map(|e| RunError::new(ErrorKind::Invalid, e));
            }
            Some(Err(failure)) => {
                outcome.error = Some(run_error(failure));
                outcome.status = Status::Failed;
                let refused = failure.code == exit::REFUSED && !self.job.must_be_done;
                if failure.is_busy() || refused {
                    // Refusing is what was right to do, not a failure that somebody must be woken for.
                    outcome.status = Status::Skipped;
                }
            }
            None => {}
        }
    }
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
