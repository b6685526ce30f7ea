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

use crate::{RepositoryError, RepositoryLocation};

impl RepositoryLocation {
    pub(crate) fn failed(&self, doing: &'static str, error: &RusticError) -> RepositoryError {
        self.engine_error(doing, reason(error))
    }

    /// Work of the engine on many files: it panics in its threads when a pack is damaged, the disk is full or a read fails.
    pub(crate) fn guarded<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce() -> RusticResult<T>,
    ) -> Result<T, RepositoryError> {
        quietly(work)
            .map_err(|reason| self.engine_error(doing, reason))?
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
            Err(self.engine_error("open the repository", why.clone()))
        })
    }

    fn engine_error(&self, doing: &'static str, reason: String) -> RepositoryError {
        // See the module `stop`.
        if StopSignal.requested() {
            return RepositoryError::Stopped;
        }
        RepositoryError::Engine {
            doing,
            place: self.shown(),
            reason,
        }
    }
}

/// The engine's messages have several lines and its own prefix.
pub(crate) fn reason(error: &RusticError) -> String {
    let text = error.display_log();
    let text = match of_disk(error) {
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
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(
            "make room on that disk (df, and df -i for the number of files), or let repository in [backup] name a larger one",
        ),
        io::ErrorKind::ReadOnlyFilesystem => Some("mount that disk so that it can be written to"),
        io::ErrorKind::PermissionDenied => Some("let the user who runs this read and write there"),
        _ => limits::remedy(error),
    };
    Some((error, remedy))
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
        redact(&one_line(&text))
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
