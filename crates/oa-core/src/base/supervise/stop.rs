//! SIGTERM, SIGINT and SIGHUP ask a program to finish cleanly: what runs is recorded as stopped, and nothing new is begun.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::base::threads;

static REQUESTED: AtomicBool = AtomicBool::new(false);
/// The same, where the system refuses the thread that listens.
static WITHOUT_THREAD: OnceLock<Arc<AtomicBool>> = OnceLock::new();
static INSTALLED: Mutex<bool> = Mutex::new(false);
/// A signal often comes twice at once: `timeout` and a terminal send it to a program and to its group.
const TWICE: Duration = Duration::from_secs(1);

/// Tells whether somebody asked this process to stop.
#[derive(Debug, Clone, Copy, Default)]
pub struct StopSignal;

/// Starts listening. A second SIGTERM or SIGINT, more than a second later, ends the process at once, for an operator who is in a
/// hurry. SIGHUP stays ignored where `nohup` has started the program.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn install() -> io::Result<StopSignal> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *installed {
        return Ok(StopSignal);
    }
    let mut heard = vec![SIGTERM, SIGINT];
    if !is_ignored(SIGHUP) {
        heard.push(SIGHUP);
    }
    let mut signals = Signals::new(&heard)?;
    let listen = move || {
        let mut first: Option<Instant> = None;
        for signal in signals.forever() {
            REQUESTED.store(true, Ordering::Relaxed);
            let since = first.get_or_insert_with(Instant::now).elapsed();
            if since > TWICE && signal != SIGHUP {
                signal_hook::low_level::exit(128 + signal);
            }
        }
    };
    if let Err(e) = threads::spawn("take signals", listen) {
        tracing::warn!("{e}");
        // One that has no time to lose uses SIGKILL.
        let requested = WITHOUT_THREAD.get_or_init(Arc::default);
        for signal in heard {
            signal_hook::flag::register(signal, Arc::clone(requested))?;
        }
    }
    *installed = true;
    Ok(StopSignal)
}

/// Whether the signal was ignored when this program was started.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok());
    mask.is_some_and(|m| m & (1 << (signal - 1)) != 0)
}

impl StopSignal {
    /// Whether the process was asked to stop.
    #[must_use]
    pub fn requested(self) -> bool {
        let without = WITHOUT_THREAD.get();
        REQUESTED.load(Ordering::Relaxed) || without.is_some_and(|r| r.load(Ordering::Relaxed))
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
