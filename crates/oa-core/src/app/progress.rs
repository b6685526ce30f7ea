//! Shows on stderr how far the work has come, when it takes longer than a second: a line that changes on a terminal; elsewhere, where
//! that is wanted, one every ten seconds.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::base::{terminal, threads};

/// Work that is over by then shows nothing.
const FIRST: Duration = Duration::from_secs(1);
const ON_A_TERMINAL: Duration = Duration::from_millis(200);
const ELSEWHERE: Duration = Duration::from_secs(10);
/// What a program of the user has just written stays to be read.
const PAUSE: Duration = Duration::from_secs(2);

/// The line, until it is dropped.
#[derive(Debug)]
pub struct Progress {
    /// Ends the thread when it is dropped.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// `line` says how far it is; an empty one is not shown. `elsewhere`: also where stderr is no terminal.
    pub fn show(program: &'static str, elsewhere: bool, line: fn() -> String) -> Self {
        let width = terminal::width();
        // `--quiet` means errors alone.
        let wanted = tracing::enabled!(tracing::Level::WARN) && (elsewhere || width.is_some());
        if !wanted {
            return Self {
                stop: None,
                thread: None,
            };
        }
        let (stop, stopped) = mpsc::channel();
        let thread = threads::spawn("show progress", move || {
            let mut wait = if width.is_some() { FIRST } else { ELSEWHERE };
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                let text = line();
                match width {
                    Some(width) => {
                        wait = ON_A_TERMINAL;
                        terminal::show(&fit(&text, width), PAUSE);
                    }
                    None if !text.is_empty() => {
                        terminal::write(format!("{program}: {text}\n").as_bytes());
                    }
                    None => {}
                }
            }
            terminal::show("", Duration::ZERO);
        });
        Self {
            stop: Some(stop),
            // Without one nothing is shown.
            thread: thread.ok(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// As much of a text as fits on a line, without what would leave it. Outside ASCII a letter takes two cells at the most.
fn fit(text: &str, width: usize) -> String {
    let mut left = width.saturating_sub(1);
    let mut fitting = String::new();
    for letter in text.chars().filter(|c| !c.is_control()) {
        let cells = if letter.is_ascii() { 1 } else { 2 };
        if cells > left {
            break;
        }
        left -= cells;
        fitting.push(letter);
    }
    fitting
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_never_leaves_its_line() {
        assert_eq!(fit("abc", 80), "abc");
        assert_eq!(fit("abcdef", 4), "abc");
        assert_eq!(fit("螺纹钢", 6), "螺纹");
        assert_eq!(fit("a\nb\x1b[2J", 80), "ab[2J");
        assert_eq!(fit("a", 0), "");
    }
}
