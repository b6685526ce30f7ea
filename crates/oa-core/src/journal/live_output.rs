//! What the program of a run has printed so far, on this machine's disk, for whoever looks at the run meanwhile: the page, and
//! `oa-report logs --run ID --follow`.
//!
//! One file a task, because a task runs once at a time: the next run takes the place, and whoever marks a killed run as abandoned takes its
//! output from here. Written anew and renamed, so that a reader finds a whole text; not synced, because nothing is decided by it. A disk
//! that takes nothing costs the view, not the run.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::base::secrets::redact;
use crate::base::state_dir::{StateDir, new_file};
use crate::base::supervise::{Progress, readable};

/// What is kept, in bytes from the end.
const KEPT: usize = 64 << 10;
const FOLDER: &str = "output";

/// The output of one run, as it comes.
#[derive(Debug)]
pub struct LiveOutput {
    /// `None` where the disk takes nothing.
    path: Option<PathBuf>,
    head: Head,
    text: String,
}

/// The first line of the file.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Head {
    run: Uuid,
    attempt: u32,
    /// Bytes of the run's output that are not kept any more.
    before: u64,
}

/// What a program has printed so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printed {
    /// The attempt that it is of; 0 before the first.
    pub attempt: u32,
    /// So many bytes of the run's output came before it.
    pub before: u64,
    /// Its end, without secrets and control characters.
    pub text: String,
}

impl LiveOutput {
    /// Takes the place of the task's last run.
    #[must_use]
    pub fn create(state: &StateDir, task: &str, run: Uuid) -> Self {
        let path = state.folder(FOLDER).ok();
        let mut new = Self {
            path: path.and_then(|_| path_of(state.path(), task)),
            head: Head {
                run,
                attempt: 0,
                before: 0,
            },
            text: String::new(),
        };
        new.write();
        new
    }

    /// Another attempt begins; what the one before it has printed is not its own.
    pub fn attempt(&mut self, number: u32) {
        self.head.attempt = number;
        self.head.before += self.text.len() as u64;
        self.text.clear();
        self.write();
    }

    fn write(&mut self) {
        let Some(path) = &self.path else { return };
        if let Err(e) = write(path, self.head, &self.text) {
            tracing::debug!("the output so far is not kept: {}: {e}", path.display());
            self.path = None;
        }
    }
}

impl Progress for LiveOutput {
    fn printed(&mut self, text: &[u8]) {
        // A secret may be whole only without the escape sequences in it.
        self.text.push_str(&redact(&readable(text)));
        let excess = self.text.len().saturating_sub(KEPT);
        if excess > 0 {
            let from = self.text.ceil_char_boundary(excess);
            let line = self.text[from..].find('\n').map(|at| from + at + 1);
            let from = line.filter(|at| *at < self.text.len()).unwrap_or(from);
            self.head.before += from as u64;
            self.text.drain(..from);
        }
        self.write();
    }
}

fn write(path: &Path, head: Head, text: &str) -> io::Result<()> {
    // The task's lock lets nobody else write it.
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = new_file().open(&temporary)?;
    serde_json::to_writer(&mut file, &head)?;
    file.write_all(b"\n")?;
    file.write_all(text.as_bytes())?;
    fs::rename(&temporary, path)
}

/// What a run has printed so far: `None` when it runs no program, runs on another machine, or is not the task's last.
#[must_use]
pub fn read(state_dir: &Path, task: &str, run: Uuid) -> Option<Printed> {
    let text = fs::read_to_string(path_of(state_dir, task)?).ok()?;
    let (head, text) = text.split_once('\n')?;
    let head: Head = serde_json::from_str(head).ok()?;
    (head.run == run).then(|| Printed {
        attempt: head.attempt,
        before: head.before,
        text: text.to_owned(),
    })
}

/// Names of tasks that run programs are plain; of others nothing is here.
fn path_of(state_dir: &Path, task: &str) -> Option<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let name = format!("{task}.txt");
    (!task.is_empty() && task.chars().all(plain)).then(|| state_dir.join(FOLDER).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_what_was_printed_is_there_in_whole_lines_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let (first, run) = (Uuid::now_v7(), Uuid::now_v7());
        drop(LiveOutput::create(&state, "job", first));
        let mut live = LiveOutput::create(&state, "job", run);
        assert_eq!(read(dir.path(), "job", first), None);
        live.attempt(1);
        live.printed(b"\x1b[31mtoken=abcdef123456\x1b[0m\x07\n");
        let seen = read(dir.path(), "job", run).unwrap();
        assert_eq!((seen.attempt, seen.before), (1, 0));
        assert_eq!(seen.text, "token=[redacted]\n");
        live.attempt(2);
        let mut all = seen.text.len();
        for n in 0..20_000 {
            let line = format!("行 {n}\n");
            all += line.len();
            live.text.push_str(&line);
        }
        live.printed(b"last\n");
        let seen = read(dir.path(), "job", run).unwrap();
        assert!(seen.text.len() <= KEPT && seen.text.starts_with("行 "));
        assert!(seen.text.ends_with("行 19999\nlast\n"));
        assert_eq!(seen.before + seen.text.len() as u64, all as u64 + 5);
        for other in ["", "../job", "a/b"] {
            assert_eq!(read(dir.path(), other, run), None);
        }
    }
}
