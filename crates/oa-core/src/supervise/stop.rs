//! SIGTERM and SIGINT ask a program to finish cleanly: what runs is recorded as stopped, and nothing new is begun.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

static REQUESTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(false)));

/// Tells whether somebody asked this process to stop.
#[derive(Debug, Clone, Copy, Default)]
pub struct StopSignal;

/// Starts listening. A second signal of the same kind ends the process at once, for an operator who is in a hurry.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn install() -> io::Result<StopSignal> {
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register_conditional_shutdown(
            signal,
            128 + signal,
            Arc::clone(&REQUESTED),
        )?;
        signal_hook::flag::register(signal, Arc::clone(&REQUESTED))?;
    }
    Ok(StopSignal)
}

impl StopSignal {
    /// Whether the process was asked to stop.
    #[must_use]
    pub fn requested(self) -> bool {
        REQUESTED.load(Ordering::Relaxed)
    }

    /// Waits, but not longer than until the process is asked to stop. Returns whether the whole time has passed.
    #[must_use]
    pub fn wait(self, duration: Duration) -> bool {
        let end = Instant::now() + duration;
        loop {
            if self.requested() {
                return false;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }
}
