//! Stderr, on which a line may stand that says how far the work has come: whatever else is written there takes its place.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// To the beginning of the line, and nothing behind it.
const CLEAR: &[u8] = b"\r\x1b[K";

struct State {
    /// A line stands there.
    shown: bool,
    /// When something else was written.
    written: Option<Instant>,
}

static STATE: Mutex<State> = Mutex::new(State {
    shown: false,
    written: None,
});

/// Writes, in place of the line. Nobody may be reading; that is no error.
pub fn write(bytes: &[u8]) {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut stderr = io::stderr().lock();
    if std::mem::take(&mut state.shown) {
        let _ = stderr.write_all(CLEAR);
    }
    state.written = Some(Instant::now());
    let _ = stderr.write_all(bytes);
}

/// Shows a line in place of the one before, unless something else was written within `pause`; an empty one clears it.
pub fn show(line: &str, pause: Duration) {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    let lately = state.written.is_some_and(|at| at.elapsed() < pause);
    if lately && !line.is_empty() || line.is_empty() && !state.shown {
        return;
    }
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(CLEAR);
    let _ = stderr.write_all(line.as_bytes());
    let _ = stderr.flush();
    state.shown = !line.is_empty();
}

/// The width of the terminal on stderr, in cells; `None`: it is none.
#[must_use]
pub fn width() -> Option<usize> {
    let stderr = io::stderr();
    if !stderr.is_terminal() || std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stderr).ok();
    let width = size.map(|s| usize::from(s.ws_col)).filter(|w| *w > 0);
    Some(width.unwrap_or(80))
}
