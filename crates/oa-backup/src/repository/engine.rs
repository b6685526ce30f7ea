//! The engine's errors and panics, as our errors.

use std::panic;
use std::sync::{Mutex, PoisonError};

use oa_core::secrets::redact;
use oa_core::supervise::StopSignal;
use rustic_core::{RusticError, RusticResult};

use super::{Place, RepositoryError};

impl Place {
    pub(super) fn failed(&self, doing: &'static str, error: &RusticError) -> RepositoryError {
        self.engine_error(doing, reason(error))
    }

    /// Work of the engine on many files: it panics in its threads when a pack is damaged, the disk is full or a read fails.
    pub(super) fn guarded<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce() -> RusticResult<T>,
    ) -> Result<T, RepositoryError> {
        quietly(work)
            .map_err(|reason| self.engine_error(doing, reason))?
            .map_err(|e| self.failed(doing, &e))
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
pub(super) fn reason(error: &RusticError) -> String {
    let text = error.display_log();
    redact(&one_line(text.strip_prefix("Error: ").unwrap_or(&text)))
}

/// Without the backtrace that `RUST_BACKTRACE` adds to it.
pub(super) fn one_line(text: &str) -> String {
    let (text, _) = text.split_once("Backtrace:").unwrap_or((text, ""));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a panic within says, as an error. Other threads' panics are not to be expected meanwhile.
fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static SAID: Mutex<Option<String>> = Mutex::new(None);
    let said = || SAID.lock().unwrap_or_else(PoisonError::into_inner);
    *said() = None;
    let before = panic::take_hook();
    panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("it does not say why");
        let mut first = SAID.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| text.to_owned());
    }));
    let result = panic::catch_unwind(panic::AssertUnwindSafe(work));
    panic::set_hook(before);
    result.map_err(|_| {
        let text = said().take().unwrap_or_default();
        redact(&one_line(&text))
    })
}
