//! Child processes with a time limit. The child belongs to a process group of its own, so that everything it started ends with it, and
//! with this process.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::StopSignal;
use super::guard::Guard;
use crate::secrets::redact;

/// How a child ended, and the end of what it printed, without known secrets.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status; the signal's when it was killed.
    pub status: ExitStatus,
    /// Why it was ended, if it did not end by itself.
    pub ended: Option<Ended>,
    /// The last part of its stdout.
    pub stdout: Vec<u8>,
    /// The last part of its stderr.
    pub stderr: Vec<u8>,
    /// Lines of its stdout that were JSON objects.
    pub json_lines: u64,
}

/// Why a child was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its time was up.
    TimedOut,
    /// This process was asked to stop.
    Stopped,
}

/// What is kept of each output stream, in bytes, unless more is asked for.
pub const TAIL: usize = 16 << 10;
/// A line longer than this is no record, and is passed on in pieces.
const LONGEST_LINE: usize = 4 << 20;
/// Between the polite and the final signal.
const GRACE: Duration = Duration::from_secs(5);
/// How long output is waited for after the end: something that left the group may still hold the pipe.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// Runs a command to its end, or ends it: SIGTERM to its whole group when `timeout` is over or this process is asked to stop,
/// SIGKILL five seconds later. The group also gets SIGKILL after a normal end, and when this process is killed, so that no
/// grandchild stays behind. With `echo` everything it prints also goes to this process's stderr, line by line as it comes.
/// Known secrets are removed from its output before any of it is shown, kept or cut. Of its stdout the last `keep` bytes are kept.
///
/// # Errors
/// When the command cannot be started or waited for.
pub fn run(
    command: &mut Command,
    timeout: Duration,
    stop: StopSignal,
    echo: bool,
    keep: usize,
) -> io::Result<Finished> {
    run_with_input(command, Stdio::null(), timeout, stop, echo, keep)
}

/// The same with something on stdin.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(
    command: &mut Command,
    input: Stdio,
    timeout: Duration,
    stop: StopSignal,
    echo: bool,
    keep: usize,
) -> io::Result<Finished> {
    let guard = Guard::start()
        .inspect_err(|e| {
            tracing::warn!("a program could outlive this one, should this one be killed: {e}");
        })
        .ok();
    let mut child = command
        .process_group(
            guard
                .as_ref()
                .map_or(0, |g| g.group().as_raw_nonzero().get()),
        )
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let group = guard
        .as_ref()
        .map_or_else(|| Pid::from_child(&child), Guard::group);
    let stdout = child.stdout.take().map(|s| watch(s, echo, keep));
    let stderr = child.stderr.take().map(|s| watch(s, echo, TAIL));
    let signal = |signal| {
        let _ = kill_process_group(group, signal);
    };
    let mut ended = None;
    let mut status = wait(&mut child, timeout, Some(stop))?;
    if status.is_none() {
        ended = Some(if stop.requested() {
            Ended::Stopped
        } else {
            Ended::TimedOut
        });
        signal(Signal::TERM);
        status = wait(&mut child, GRACE, None)?;
    }
    signal(Signal::KILL);
    drop(guard);
    let status = match status {
        Some(status) => status,
        None => child.wait()?,
    };
    let (stdout, stderr) = (collect(stdout), collect(stderr));
    Ok(Finished {
        status,
        ended,
        stdout: stdout.tail,
        stderr: stderr.tail,
        json_lines: stdout.json_lines,
    })
}

fn wait(
    child: &mut Child,
    limit: Duration,
    stop: Option<StopSignal>,
) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || stop.is_some_and(StopSignal::requested) {
            return Ok(None);
        }
        thread::sleep(left.min(pause));
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// What was seen of an output stream.
#[derive(Debug, Default)]
struct Output {
    keep: usize,
    tail: Vec<u8>,
    line: Vec<u8>,
    in_pieces: bool,
    json_lines: u64,
}

impl Output {
    /// Takes what came, and gives back the lines that are complete now. A progress bar's lines end with a carriage return.
    fn add(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut complete = Vec::new();
        for part in bytes.split_inclusive(|b| matches!(b, b'\n' | b'\r')) {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || part.ends_with(b"\r") {
                complete.extend(self.end_line());
                self.in_pieces = false;
            } else if self.line.len() > LONGEST_LINE {
                self.in_pieces = true;
                complete.extend(self.end_line());
            }
        }
        complete
    }

    /// Redacted as a whole line: a secret that is cut in two would not be found.
    fn end_line(&mut self) -> Vec<u8> {
        let line = std::mem::take(&mut self.line);
        if !self.in_pieces
            && line.starts_with(b"{")
            && serde_json::from_slice::<serde::de::IgnoredAny>(&line).is_ok()
        {
            self.json_lines += 1;
        }
        let line = without_secrets(line);
        self.tail.extend_from_slice(&line);
        if self.tail.len() > 2 * self.keep {
            self.tail.drain(..self.tail.len() - self.keep);
        }
        line
    }

    fn finish(mut self) -> Self {
        self.end_line();
        let excess = self.tail.len().saturating_sub(self.keep);
        self.tail = self.tail.split_off(excess);
        self
    }
}

/// Bytes that are not UTF-8 stay as they are, unless there is a secret among them.
fn without_secrets(line: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8_lossy(&line);
    let redacted = redact(&text);
    if redacted == text {
        line
    } else {
        redacted.into_bytes()
    }
}

type Watched = (Arc<Mutex<Output>>, mpsc::Receiver<()>);

fn watch(mut stream: impl Read + Send + 'static, echo: bool, keep: usize) -> Watched {
    let output = Arc::new(Mutex::new(Output {
        keep,
        ..Output::default()
    }));
    let (done, receiver) = mpsc::channel();
    let shared = Arc::clone(&output);
    let show = move |text: &[u8]| {
        if echo {
            let _ = io::stderr().lock().write_all(text);
        }
    };
    thread::spawn(move || {
        let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = [0; 8192];
        loop {
            match stream.read(&mut buffer) {
                Ok(n @ 1..) => {
                    let complete = lock().add(&buffer[..n]);
                    show(&complete);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        let rest = lock().end_line();
        show(&rest);
        let _ = done.send(());
    });
    (output, receiver)
}

fn collect(watched: Option<Watched>) -> Output {
    let Some((output, done)) = watched else {
        return Output::default();
    };
    let _ = done.recv_timeout(LAST_OUTPUT);
    std::mem::take(&mut *output.lock().unwrap_or_else(PoisonError::into_inner)).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout: Duration) -> Finished {
        run(
            Command::new("sh").args(["-c", script]),
            timeout,
            StopSignal,
            false,
            TAIL,
        )
        .unwrap()
    }

    #[test]
    fn status_and_both_outputs_come_back() {
        let done = sh("echo out; echo err >&2; exit 3", Duration::from_secs(20));
        assert_eq!(done.status.code(), Some(3));
        assert_eq!(
            (done.stdout.as_slice(), done.stderr.as_slice()),
            (&b"out\n"[..], &b"err\n"[..])
        );
        assert_eq!(done.ended, None);
    }

    #[test]
    fn a_child_that_takes_too_long_goes_with_its_grandchildren() {
        let done = sh("sleep 300 & echo $!; wait", Duration::from_millis(300));
        assert_eq!(done.ended, Some(Ended::TimedOut));
        let grandchild: i32 = String::from_utf8(done.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let gone = || {
            std::fs::read_to_string(format!("/proc/{grandchild}/stat"))
                .map_or(true, |s| s.contains(") Z "))
        };
        let end = Instant::now() + Duration::from_secs(10);
        while !gone() {
            assert!(Instant::now() < end, "process {grandchild} still runs");
            thread::yield_now();
        }
    }

    #[test]
    fn only_the_end_of_a_long_output_is_kept() {
        let done = sh(
            "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done",
            Duration::from_secs(60),
        );
        assert!(done.stdout.len() <= TAIL && done.stdout.ends_with(b"line 19999\n"));
    }

    #[test]
    fn lines_that_are_json_objects_are_counted() {
        let done = sh(
            "echo '{\"a\": 1}'; echo text; echo '{broken'; printf '{\"a\": 2}'",
            Duration::from_secs(20),
        );
        assert_eq!(done.json_lines, 2);
    }

    #[test]
    fn secrets_are_gone_before_anything_is_cut() {
        let secret = crate::secrets::Secret::new("a-secret-of-the-child".to_owned());
        let script = format!(
            "printf '%016400d' 0; echo {0} end; printf 'a-secret-of-'; printf 'the-child\\n' >&1; printf '\\377\\n' >&2",
            secret.expose()
        );
        let done = sh(&script, Duration::from_secs(20));
        let text = String::from_utf8(done.stdout).unwrap();
        assert!(text.ends_with("[redacted] end\n[redacted]\n"), "{text}");
        assert_eq!(done.stderr, b"\xff\n");
    }

    #[test]
    fn a_process_that_left_the_group_and_holds_the_pipe_holds_up_nothing() {
        let began = Instant::now();
        let done = sh(
            "echo before; setsid sleep 30 & exit 0",
            Duration::from_secs(20),
        );
        assert!(done.status.success() && began.elapsed() < Duration::from_secs(15));
        assert_eq!(done.stdout, b"before\n");
    }
}
