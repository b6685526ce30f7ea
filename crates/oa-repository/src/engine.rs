//! The engine's errors and panics, as our errors.

use std::cell::Cell;
use std::error::Error;
use std::io;
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::{panic, thread};

use oa_core::base::limits;
use oa_core::base::secrets::redact;
use oa_core::base::supervise::StopSignal;
use oa_core::base::threads::NoThread;
use rustic_core::{RusticError, RusticResult};
use rustix::io::Errno;

use crate::{RepositoryError, RepositoryLocation};

impl RepositoryLocation {
    pub(crate) fn failed(&self, doing: &'static str, error: &RusticError) -> RepositoryError {
        let system = of_disk(error).map(|(e, _)| e.kind());
        self.engine_error(doing, reason(error), system)
    }

    /// Work of the engine on many files: it panics in its threads when a pack is damaged, the disk is full or a read fails.
    pub(crate) fn guarded<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce() -> RusticResult<T>,
    ) -> Result<T, RepositoryError> {
        quietly(work)
            .map_err(|reason| {
                let system = system_error(&reason).map(|e| e.kind());
                self.engine_error(doing, reason, system)
            })?
            .map_err(|e| self.failed(doing, &e))
    }

    /// Starts the engine's threads, which it takes for granted and panics without.
    pub(crate) fn start_threads(&self) -> Result<(), RepositoryError> {
        static REFUSED: OnceLock<Option<String>> = OnceLock::new();
        let refused = REFUSED.get_or_init(|| {
            let started = rayon::ThreadPoolBuilder::new().build_global();
            // Without a cause, they run already.
            let refused = started.err().filter(|e| e.source().is_some());
            refused.map(|e| NoThread::new("read it", io::Error::other(e)).to_string())
        });
        refused.as_ref().map_or(Ok(()), |why| {
            Err(self.engine_error("open the repository", why.clone(), None))
        })
    }

    fn engine_error(
        &self,
        doing: &'static str,
        reason: String,
        system: Option<io::ErrorKind>,
    ) -> RepositoryError {
        // See the module `stop`.
        if StopSignal.requested() {
            return RepositoryError::Stopped;
        }
        RepositoryError::Engine {
            doing,
            place: self.shown(),
            reason,
            system,
        }
    }
}

/// The engine's messages have several lines and its own prefix.
pub(crate) fn reason(error: &RusticError) -> String {
    let text = error.display_log();
    let text = match of_disk(error) {
        Some((error, _)) if is_no_thread(error) => no_thread(error.raw_os_error()),
        Some((error, remedy)) => {
            // The only thing of value in the engine's words is which file it was.
            let path = text.split('`').nth(1).unwrap_or("its disk");
            let remedy = remedy.map_or_else(String::new, |remedy| format!("; {remedy}"));
            format!("{}: {error}{remedy}", path.trim_end_matches("-tmp-"))
        }
        None => text,
    };
    redact(&one_line(text.strip_prefix("Error: ").unwrap_or(&text)))
}

/// What the operating system said, if it was that, and what to do.
fn of_disk(error: &RusticError) -> Option<(&io::Error, Option<&'static str>)> {
    let mut cause = error.source();
    let error = loop {
        let found = cause?;
        match found.downcast_ref::<io::Error>() {
            Some(error) => break error,
            None => cause = found.source(),
        }
    };
    Some((error, remedy(error)))
}

fn remedy(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(
            "make room on that disk (df, and df -i for the number of files), or let repository in [backup] name a larger one",
        ),
        io::ErrorKind::ReadOnlyFilesystem => Some("mount that disk so that it can be written to"),
        io::ErrorKind::PermissionDenied => Some("let the user who runs this read and write there"),
        _ => limits::remedy(error),
    }
}

/// The engine waits for nothing but threads in such a way that the system could tell it to try again.
fn is_no_thread(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::AGAIN)
}

fn no_thread(code: Option<i32>) -> String {
    let error = code.map_or_else(io::Error::last_os_error, io::Error::from_raw_os_error);
    NoThread::new("read or write it", error).to_string()
}

/// What a panic says of an error of the system is its code, in the form of Rust's `Debug`.
fn system_error(panic: &str) -> Option<io::Error> {
    let (_, rest) = panic.split_once("Os { code: ")?;
    let (code, _) = rest.split_once(',')?;
    Some(io::Error::from_raw_os_error(code.parse().ok()?))
}

/// A panic's text, with what to do.
fn explained(panic: &str) -> String {
    let error = system_error(panic);
    match error.as_ref().map(|e| (e, remedy(e))) {
        Some((error, _)) if is_no_thread(error) => no_thread(error.raw_os_error()),
        Some((_, Some(remedy))) => format!("{}; {remedy}", one_line(panic)),
        _ => one_line(panic),
    }
}

/// Without the backtrace that `RUST_BACKTRACE` adds to it.
pub(crate) fn one_line(text: &str) -> String {
    let (text, _) = text.split_once("Backtrace:").unwrap_or((text, ""));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What the first panic within has said; the engine's threads may go on, and panic, after its work has ended.
static SAID: Mutex<Option<String>> = Mutex::new(None);

fn said() -> MutexGuard<'static, Option<String>> {
    SAID.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a panic within says, as an error. Other threads' panics are not to be expected meanwhile.
fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(keep_the_engine_quiet);
    *said() = None;
    let within = WITHIN.replace(true);
    let result = panic::catch_unwind(panic::AssertUnwindSafe(work));
    WITHIN.set(within);
    result.map_err(|_| {
        let text = said().take().unwrap_or_else(|| NO_REASON.to_owned());
        redact(&explained(&text))
    })
}

thread_local! {
    /// Whether this thread waits for the engine.
    static WITHIN: Cell<bool> = const { Cell::new(false) };
}

const NO_REASON: &str = "it does not say why";

/// The engine's own threads have no names. Which of them are still running when its work ends nobody knows, so the hook stays.
fn keep_the_engine_quiet() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if thread::current().name().is_some() && !WITHIN.get() {
            return before(info);
        }
        let text = info.payload_as_str().unwrap_or(NO_REASON);
        tracing::debug!("a thread of the repository's engine has ended: {text}");
        said().get_or_insert_with(|| text.to_owned());
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_for_an_error_of_the_system_names_what_to_raise() {
        let refused = |code: i32| -> io::Result<()> { Err(io::Error::from_raw_os_error(code)) };
        let panics = |code| {
            let work = || refused(code).expect("failed to spawn thread");
            quietly(work).unwrap_err()
        };
        let no_thread = panics(Errno::AGAIN.raw_os_error());
        assert!(no_thread.contains("(ulimit -u)"), "{no_thread}");
        assert!(panics(Errno::NOMEM.raw_os_error()).contains("(ulimit -v, MemoryMax)"));
        assert!(panics(Errno::NOSPC.raw_os_error()).contains("make room"));
        assert_eq!(quietly(|| panic!("of its own")).unwrap_err(), "of its own");
    }

    #[test]
    fn a_thread_pool_that_the_system_refuses_names_what_to_raise() {
        let error = io::Error::from_raw_os_error(Errno::AGAIN.raw_os_error());
        let error = RusticError::with_source(rustic_core::ErrorKind::Internal, "no pool", error);
        let text = reason(&error);
        assert!(
            text.contains("(ulimit -u)") && !text.contains("its disk"),
            "{text}"
        );
    }
}
