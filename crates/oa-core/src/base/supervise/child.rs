//! Child processes with a time limit, that are ended together with everything they have started.

use std::io::{self, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::mark::Owner;
use super::output::Output;
use super::tree::{Tree, reap_orphans};
use super::{StopSignal, tree};
use crate::base::{terminal, threads};

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
    /// What it had left in the background when it ended by itself, for people. It was ended.
    pub left_behind: Vec<String>,
    /// What could not be ended, for people: it belongs to another user, or the kernel holds it.
    pub still_there: Vec<String>,
}

/// Why a child was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its time was up.
    TimedOut,
    /// This process was asked to stop.
    Stopped,
    /// It has printed more than it may, on the stream of that name. It may have ended by itself meanwhile.
    PrintedTooMuch(&'static str),
}

/// Takes a program's stdout, line by line as it comes, each with its line break and without known secrets. What is too long for a line
/// comes in chunks.
pub trait Lines: std::fmt::Debug + Send {
    /// The next one.
    fn line(&mut self, line: &[u8]);
}

/// Is shown a program's output while it runs.
pub trait Progress: std::fmt::Debug {
    /// What it has printed on both streams since the last time, in the order in which it came: whole lines, without known secrets. Of very
    /// much only the end. Called now and then, when there is something, and once more at the end.
    fn printed(&mut self, text: &[u8]);
}

/// What is kept of each output stream, in bytes, unless more is asked for.
pub const TAIL: usize = 16 << 10;
/// Between the polite and the final signal.
const GRACE: Duration = Duration::from_secs(5);
/// The same for what a program leaves in the background.
const GRACE_BEHIND: Duration = Duration::from_secs(2);
/// How long output is waited for after the end: something that could not be ended may still hold the pipe.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
/// And no longer than this, although some comes.
const LAST_OUTPUT_ALL: Duration = Duration::from_secs(60);
/// What is kept of the output for who follows it, between two looks at it.
const FRESH: usize = 64 << 10;
/// How often the ends of orphans are looked at, what the program consists of is noted, and its output is shown; sooner at first.
const REAP: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_millis(200);

/// How a program is started, and what holds for it.
#[derive(Debug)]
pub struct Launch<'a> {
    /// When it is ended.
    pub timeout: Duration,
    /// What it finds on stdin.
    pub input: Stdio,
    /// Everything it prints also goes to this process's stderr, line by line as it comes.
    pub echo: bool,
    /// Of its stdout the last so many bytes are kept.
    pub keep: usize,
    /// Its stdout goes here besides, and its lines are not counted.
    pub lines: Option<Arc<Mutex<dyn Lines>>>,
    /// The same as `keep` for its stderr.
    pub keep_errors: usize,
    /// More bytes than this on one of its streams, and it is ended.
    pub most: Option<u64>,
    /// The run for which it works: what it might leave, should this process be killed, is ended before the task's next run.
    pub owner: Option<&'a Owner>,
    /// It succeeds by leaving a daemon, which lives on.
    pub leaves_daemon: bool,
    /// Is shown what it prints while it runs.
    pub progress: Option<&'a mut dyn Progress>,
}

impl Launch<'_> {
    /// With nothing on stdin.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            input: Stdio::null(),
            echo: false,
            keep: TAIL,
            lines: None,
            keep_errors: TAIL,
            most: None,
            owner: None,
            leaves_daemon: false,
            progress: None,
        }
    }

    /// Runs a command to its end, or ends it: SIGTERM to it and all that it has started when its time is over, it prints too much, or this
    /// process is asked to stop, SIGKILL five seconds later. What it leaves in the background after a normal end is ended as well. Known
    /// secrets are removed from its output before any of it is shown, kept or cut.
    ///
    /// # Errors
    /// When the command cannot be started or waited for.
    pub fn run(self, command: &mut Command) -> io::Result<Finished> {
        command
            .stdin(self.input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut fresh = Fresh::for_who_follows(self.progress);
        let shown = Shown {
            echo: self.echo,
            fresh: fresh.text.clone(),
        };
        let limit = Limit {
            most: self.most.unwrap_or(u64::MAX),
            passed: Arc::default(),
        };
        // Before the program is started: one whose output nobody could read would have to be ended.
        let output = Output::new(self.keep, self.lines);
        let (to_stdout, stdout) = watch("stdout", shown.clone(), limit.clone(), output)?;
        let output = Output::new(self.keep_errors, None);
        let (to_stderr, stderr) = watch("stderr", shown, limit.clone(), output)?;
        let mut tree = Tree::start(command, self.owner)?;
        let child = tree.child();
        if let Some(stream) = child.stdout.take() {
            let _ = to_stdout.send(Box::new(stream));
        }
        if let Some(stream) = child.stderr.take() {
            let _ = to_stderr.send(Box::new(stream));
        }
        let mut status = wait(&mut tree, self.timeout, &limit, &mut fresh)?;
        let mut ended = None;
        let mut left_behind = Vec::new();
        let ending = if let Some(status) = status {
            if self.leaves_daemon && status.success() {
                tree.keep_daemons();
                tree::Ending::default()
            } else {
                let ending = tree.end(GRACE_BEHIND);
                left_behind.clone_from(&ending.asked);
                ending
            }
        } else {
            ended = Some(match limit.passed() {
                _ if StopSignal.requested() => Ended::Stopped,
                Some(too_much) => too_much,
                None => Ended::TimedOut,
            });
            let ending = tree.end(GRACE);
            status = tree.ended()?;
            ending
        };
        let status =
            status.ok_or_else(|| io::Error::other("the system does not let it be ended"))?;
        drop(tree);
        let (stdout, stderr) = (collect(stdout), collect(stderr));
        fresh.show();
        Ok(Finished {
            status,
            // It may have been too quick to be ended.
            ended: ended.or_else(|| limit.passed()),
            stdout: stdout.tail,
            stderr: stderr.tail,
            json_lines: stdout.json_lines,
            left_behind,
            still_there: ending.left,
        })
    }
}

/// Runs a command without input, see [`Launch::run`]. Of its stdout the last `keep` bytes are kept.
///
/// # Errors
/// When the command cannot be started or waited for.
pub fn run(
    command: &mut Command,
    timeout: Duration,
    _stop: StopSignal,
    echo: bool,
    keep: usize,
) -> io::Result<Finished> {
    Launch {
        echo,
        keep,
        ..Launch::new(timeout)
    }
    .run(command)
}

/// Until the program ends, its time is over, it has printed too much, or this process is asked to stop.
fn wait(
    tree: &mut Tree,
    timeout: Duration,
    limit: &Limit,
    fresh: &mut Fresh<'_>,
) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + timeout;
    let mut interval = SOON;
    let mut reap = Instant::now() + interval;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = tree.ended()? {
            return Ok(Some(status));
        }
        let now = Instant::now();
        let left = end.saturating_duration_since(now);
        if left.is_zero() || limit.passed().is_some() || StopSignal.requested() {
            return Ok(None);
        }
        if now >= reap {
            reap_orphans();
            tree.note();
            fresh.show();
            interval = (interval * 2).min(REAP);
            reap = now + interval;
        }
        thread::sleep(left.min(pause));
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Where the lines of both streams go as they come.
#[derive(Debug, Clone)]
struct Shown {
    /// To this process's stderr.
    echo: bool,
    /// To who follows.
    fresh: Option<Arc<Mutex<Vec<u8>>>>,
}

impl Shown {
    fn take(&self, lines: &[u8]) {
        if self.echo {
            terminal::write(lines);
        }
        if let Some(fresh) = &self.fresh {
            let mut fresh = fresh.lock().unwrap_or_else(PoisonError::into_inner);
            fresh.extend_from_slice(lines);
            let excess = fresh.len().saturating_sub(FRESH);
            if excess > FRESH {
                fresh.drain(..excess);
            }
        }
    }
}

/// What came since it was last shown to who follows.
struct Fresh<'a> {
    text: Option<Arc<Mutex<Vec<u8>>>>,
    progress: Option<&'a mut dyn Progress>,
}

impl<'a> Fresh<'a> {
    fn for_who_follows(progress: Option<&'a mut dyn Progress>) -> Self {
        Self {
            text: progress.is_some().then(Arc::default),
            progress,
        }
    }

    fn show(&mut self) {
        let (Some(text), Some(progress)) = (&self.text, &mut self.progress) else {
            return;
        };
        let new = std::mem::take(&mut *text.lock().unwrap_or_else(PoisonError::into_inner));
        if !new.is_empty() {
            progress.printed(&new);
        }
    }
}

/// How much a stream may bring, and which of them has brought more.
#[derive(Debug, Clone)]
struct Limit {
    most: u64,
    passed: Arc<OnceLock<&'static str>>,
}

impl Limit {
    fn passed(&self) -> Option<Ended> {
        self.passed.get().copied().map(Ended::PrintedTooMuch)
    }
}

type Watched = (Arc<Mutex<Output>>, mpsc::Receiver<()>);
type Stream = Box<dyn Read + Send>;

/// Watches the stream that is sent to it.
fn watch(
    name: &'static str,
    shown: Shown,
    limit: Limit,
    mut output: Output,
) -> io::Result<(mpsc::Sender<Stream>, Watched)> {
    output.is_unseen = !shown.echo && shown.fresh.is_none();
    let output = Arc::new(Mutex::new(output));
    let (done, receiver) = mpsc::channel();
    let shared = Arc::clone(&output);
    let (sender, stream) = mpsc::channel::<Stream>();
    threads::spawn("read what a program prints", move || {
        let Ok(mut stream) = stream.recv() else {
            return;
        };
        let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
        // As much as a pipe holds.
        let mut buffer = vec![0; 64 << 10];
        loop {
            match stream.read(&mut buffer) {
                Ok(n @ 1..) => {
                    let (complete, received) = {
                        let mut output = lock();
                        (output.add(&buffer[..n]), output.received)
                    };
                    shown.take(&complete);
                    // Nothing more is read: whoever prints on finds the pipe closed.
                    if received > limit.most {
                        let _ = limit.passed.set(name);
                        break;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        let rest = lock().end_line();
        shown.take(&rest);
        let _ = done.send(());
    })?;
    Ok((sender, (output, receiver)))
}

fn collect((output, done): Watched) -> Output {
    let received = || {
        let output = output.lock().unwrap_or_else(PoisonError::into_inner);
        output.received
    };
    // What has been printed already is read to its end, however slowly that goes.
    let until = Instant::now() + LAST_OUTPUT_ALL;
    let mut before = received();
    while done.recv_timeout(LAST_OUTPUT) == Err(RecvTimeoutError::Timeout) && Instant::now() < until
    {
        let now = received();
        if now == std::mem::replace(&mut before, now) {
            break;
        }
    }
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
        let secret = crate::base::secrets::Secret::new("a-secret-of-the-child".to_owned());
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
