//! Threads. The system may refuse one: a user, a service or a container may have no more processes, or a process no more memory. That is
//! an error like any other; where a thread only makes something quicker, it is done without.

use std::io;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle, scope};

/// The system refused a thread.
#[derive(Debug, thiserror::Error)]
#[error(
    "could not start a thread to {purpose}: {source}; raise how many processes this user (ulimit -u), service (TasksMax) or container may have, or how much memory (ulimit -v)"
)]
pub struct NoThread {
    purpose: &'static str,
    source: io::Error,
}

impl NoThread {
    /// As others say it who start threads.
    #[must_use]
    pub fn new(purpose: &'static str, source: io::Error) -> Self {
        Self { purpose, source }
    }
}

impl From<NoThread> for io::Error {
    fn from(error: NoThread) -> Self {
        // Not of the kind of its source, `WouldBlock`: whoever waits for something takes that for a time that is over.
        Self::other(error)
    }
}

/// Starts a thread; `purpose` as in "a thread to read SQLite".
///
/// # Errors
/// When the system refuses it.
pub fn spawn<T: Send + 'static>(
    purpose: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, NoThread> {
    let started = Builder::new().name(purpose.to_owned()).spawn(work);
    started.map_err(|e| NoThread::new(purpose, e))
}

/// Starts a thread that ends before its scope does.
///
/// # Errors
/// When the system refuses it.
pub fn spawn_in<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    purpose: &'static str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, NoThread> {
    let started = Builder::new()
        .name(purpose.to_owned())
        .spawn_scoped(scope, work);
    started.map_err(|e| NoThread::new(purpose, e))
}

/// Does two things at the same time; where there is no thread for the first, that one after the other. A panic in either goes on here.
pub fn both<A: Send, B>(
    purpose: &'static str,
    beside: impl FnOnce() -> A + Send,
    here: impl FnOnce() -> B,
) -> (A, B) {
    let beside = Mutex::new(Some(beside));
    let work = || {
        let work = beside.lock().unwrap_or_else(PoisonError::into_inner).take();
        work.map(|work| work())
    };
    scope(|scope| {
        let started = spawn_in(scope, purpose, work);
        let b = here();
        let a = match started {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(e) => {
                tracing::info!("{e}");
                work()
            }
        };
        match a {
            Some(a) => (a, b),
            None => unreachable!("it is done by one of them"),
        }
    })
}

/// Does the same here and in further threads, `count` of them in all, or as many as there can be.
pub fn several(purpose: &'static str, count: usize, work: impl Fn() + Sync) {
    scope(|scope| {
        for _ in 1..count {
            if let Err(e) = spawn_in(scope, purpose, &work) {
                tracing::info!("{e}");
                break;
            }
        }
        work();
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn both_are_done_and_so_are_several() {
        let mut here = 0;
        let (a, b) = both(
            "be tested",
            || 1,
            || {
                here += 2;
                here
            },
        );
        assert_eq!((a, b), (1, 2));
        let done = AtomicUsize::new(0);
        several("be tested", 3, || {
            done.fetch_add(1, Ordering::Relaxed);
        });
        several("be tested", 0, || {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 4);
    }

    #[test]
    fn a_panic_of_a_thread_goes_on_in_who_waits_for_it() {
        let both = std::panic::catch_unwind(|| both("be tested", || panic!("x"), || ()));
        assert!(both.is_err());
    }
}
