//! Every start of a command that works leaves a row in the run log, with its outcome.

use std::time::Duration;

use anyhow::anyhow;
use chrono::Utc;
use oa_core::cli::Failure;
use oa_core::exit;
use oa_core::retry::ErrorKind;
use oa_core::runs::{Begun, Outcome, Recorder, RunError, RunStart, Status, Trigger};
use serde_json::{Map, Value};

use crate::PROGRAM;

/// How work ended that came to an end.
#[derive(Debug)]
pub struct Ended<T> {
    /// What it gives back.
    pub value: T,
    /// A final state.
    pub status: Status,
    /// Rows that were read.
    pub fetched: u64,
    /// Why it is not a success.
    pub error: Option<String>,
    /// For the run row.
    pub details: Map<String, Value>,
}

/// Does work under a run row of its own.
///
/// # Errors
/// The work's own error, or the run log's; 77 when the same task runs already.
pub fn recorded<T>(
    recorder: &Recorder,
    task: &str,
    title: &str,
    work: impl FnOnce(&RunStart) -> Result<Ended<T>, Failure>,
) -> Result<T, Failure> {
    let start = RunStart::now(
        PROGRAM,
        env!("CARGO_PKG_VERSION"),
        task,
        title,
        Trigger::Manual,
        // Only another machine waits for this long; on this one a dead process is found by its number.
        Duration::from_secs(24 * 3600),
    );
    let run = match recorder.begin(start)? {
        Begun::Run(run) => run,
        Begun::Skipped { reason } => return Err(Failure::new(exit::REFUSED, anyhow!(reason))),
    };
    let result = work(run.start());
    let mut outcome = Outcome::bare(run.start().clone(), Status::Failed, Utc::now());
    match &result {
        Ok(ended) => {
            outcome.status = ended.status;
            outcome.fetched = ended.fetched;
            outcome.details.clone_from(&ended.details);
            let error = ended.error.as_deref();
            outcome.error = error.map(|e| RunError::new(ErrorKind::Invalid, e));
        }
        Err(failure) if failure.code == exit::REFUSED => {
            // Refusing is what was right to do, not a failure that somebody must be woken for.
            outcome.status = Status::Skipped;
            outcome.error = Some(RunError::new(
                ErrorKind::Invalid,
                format!("{:#}", failure.error),
            ));
        }
        Err(failure) => {
            outcome.error = Some(RunError::new(
                ErrorKind::Internal,
                format!("{:#}", failure.error),
            ));
        }
    }
    recorder.finish(*run, outcome)?;
    result.map(|ended| ended.value)
}
