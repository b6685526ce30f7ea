//! A task is tried until it succeeds, fails for good, or has used up its tries. Every try is recorded.

use std::time::Duration;

use super::{Run, Stopwatch};
use crate::base::failpoint;
use crate::base::supervise::StopSignal;
use crate::model::retry::{ErrorKind, Policy};
use crate::model::{Attempt, RunError, Status};

/// Why a try failed.
#[derive(Debug)]
pub struct Failed {
    /// For the run log.
    pub error: RunError,
    /// Another try may help.
    pub retry: bool,
    /// How long the other side asks to wait.
    pub asked: Option<Duration>,
    /// What was asked for is not there yet: the wait until the next try, which uses up no retry.
    pub not_yet: Option<Duration>,
}

impl Failed {
    /// A failure whose kind tells whether another try may help.
    #[must_use]
    pub fn by_kind(error: RunError, asked: Option<Duration>) -> Self {
        Self {
            retry: error.kind.is_transient(),
            error,
            asked,
            not_yet: None,
        }
    }
}

/// Tries `once` (which gets the number of the try, from 1) as the policy says. Gives back all tries, and why the last one failed.
pub fn until_done(
    policy: &Policy,
    stop: StopSignal,
    clock: Stopwatch,
    run: &mut Run,
    mut once: impl FnMut(u32) -> Result<(), Failed>,
) -> (Vec<Attempt>, Option<RunError>) {
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut free = 0;
    for number in 1.. {
        let started_at = clock.now();
        let failed = once(number).err();
        let error = failed.as_ref().map(|f| f.error.clone());
        let attempt = Attempt {
            number,
            started_at,
            finished_at: clock.now(),
            outcome: match &error {
                None => Status::Success,
                Some(e) if matches!(e.kind, ErrorKind::Partial | ErrorKind::Stale) => {
                    Status::Partial
                }
                Some(e) if e.kind == ErrorKind::Timeout => Status::Timeout,
                Some(_) => Status::Failed,
            },
            error,
        };
        attempts.push(attempt.clone());
        let Some(failed) = failed else {
            return (attempts, None);
        };
        free += u32::from(failed.not_yet.is_some());
        let by_policy = || {
            let delay = policy.delay_after(number.saturating_sub(free), failed.asked);
            delay.filter(|_| failed.retry)
        };
        let delay = failed.not_yet.or_else(by_policy);
        let Some(delay) = delay else {
            return (attempts, Some(failed.error));
        };
        tracing::warn!(
            "{}: try {number} failed: {}; next try in {} s",
            run.start().task,
            failed.error.message,
            delay.as_secs()
        );
        run.attempt_failed(&attempt);
        failpoint::hit("run.attempt_failed");
        if !stop.wait(delay) {
            let message = format!(
                "{}; stopped by a signal before the next try",
                failed.error.message
            );
            return (attempts, Some(RunError::new(failed.error.kind, message)));
        }
    }
    (attempts, None)
}

/// What a task can take at the longest, with all its tries and waits.
#[must_use]
pub fn longest(policy: &Policy) -> Duration {
    // Ending a program takes some seconds too.
    const ENDING: Duration = Duration::from_secs(10);
    policy
        .timeout
        .saturating_add(policy.longest_delay().max(policy.timeout))
        .saturating_add(ENDING)
        .saturating_mul(policy.retries.saturating_add(1))
}
