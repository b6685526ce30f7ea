//! Child processes with a time limit. The child leads a process group of its own, so that everything it started ends with it.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How a child ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status; the signal's when it was killed.
    pub status: ExitStatus,
    /// It was ended because its time was up.
    pub timed_out: bool,
    /// The last part of its stdout.
    pub stdout: Vec<u8>,
    /// The last part of its stderr.
    pub stderr: Vec<u8>,
}

/// What is kept of each output stream, in bytes.
const TAIL: usize = 16 << 10;
/// Between the polite and the final signal.
const GRACE: Duration = Duration::from_secs(5);

/// Runs a command to its end, or ends it: SIGTERM to its whole group when `timeout` is over, SIGKILL five seconds later. The
/// group also gets SIGKILL after a normal end, so that no grandchild stays behind.
///
/// # Errors
/// When the command cannot be started or waited for.
pub fn run(command: &mut Command, timeout: Duration) -> io::Result<Finished> {
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let stdout = child.stdout.take().map(|s| thread::spawn(move || tail(s)));
    let stderr = child.stderr.take().map(|s| thread::spawn(move || tail(s)));
    let signal = |signal| {
        if let Some(group) = group {
            let _ = kill_process_group(group, signal);
        }
    };
    let mut timed_out = false;
    let mut status = wait(&mut child, timeout)?;
    if status.is_none() {
        timed_out = true;
        signal(Signal::TERM);
        status = wait(&mut child, GRACE)?;
    }
    signal(Signal::KILL);
    let status = match status {
        Some(status) => status,
        None => child.wait()?,
    };
    let collect =
        |t: Option<thread::JoinHandle<Vec<u8>>>| t.and_then(|t| t.join().ok()).unwrap_or_default();
    Ok(Finished {
        status,
        timed_out,
        stdout: collect(stdout),
        stderr: collect(stderr),
    })
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        thread::sleep(left.min(pause));
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn tail(mut stream: impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = [0; 8192];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..n]);
        if kept.len() > 2 * TAIL {
            kept.drain(..kept.len() - TAIL);
        }
    }
    let excess = kept.len().saturating_sub(TAIL);
    kept.split_off(excess)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout: Duration) -> Finished {
        run(Command::new("sh").args(["-c", script]), timeout).unwrap()
    }

    #[test]
    fn status_and_both_outputs_come_back() {
        let done = sh("echo out; echo err >&2; exit 3", Duration::from_secs(20));
        assert_eq!(done.status.code(), Some(3));
        assert_eq!(
            (done.stdout.as_slice(), done.stderr.as_slice()),
            (&b"out\n"[..], &b"err\n"[..])
        );
        assert!(!done.timed_out);
    }

    #[test]
    fn a_child_that_takes_too_long_goes_with_its_grandchildren() {
        let done = sh("sleep 300 & echo $!; wait", Duration::from_millis(300));
        assert!(done.timed_out);
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
}
