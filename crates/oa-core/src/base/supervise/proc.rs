//! What `/proc` says about processes, and signals that reach the process that was meant and no other.

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal, test_kill_process,
};

/// One process, named for ever by its id and its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub pid: i32,
    pub parent: i32,
    pub group: i32,
    /// In clock ticks since boot.
    pub started: i64,
    /// It has ended; only its parent has not looked yet.
    pub ended: bool,
    /// The program's name as the kernel keeps it: the first 15 bytes.
    pub name: String,
}

impl Process {
    pub(super) fn read(pid: i32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        // The name, in brackets, may hold anything; the fields after it are numbers.
        let (before, after) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let number = |i: usize| fields.get(i)?.parse::<i64>().ok();
        let id = |i: usize| i32::try_from(number(i)?).ok();
        Some(Self {
            pid,
            parent: id(1)?,
            group: id(2)?,
            started: number(19)?,
            ended: matches!(fields.first(), Some(&("Z" | "X"))),
            name: before.split_once('(')?.1.to_owned(),
        })
    }

    /// All that this process may see, except threads.
    pub(super) fn all() -> Vec<Self> {
        fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(Self::read)
            .collect()
    }

    pub(super) fn id(&self) -> (i32, i64) {
        (self.pid, self.started)
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        let name: String = self.name.chars().filter(|c| !c.is_control()).collect();
        format!("{name} (process {})", self.pid)
    }

    /// The value of a variable in its environment as it was started with, where it may be read.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let environment = fs::read(format!("/proc/{}/environ", self.pid)).ok()?;
        let mut variables = environment.split(|b| *b == 0);
        let value = variables.find_map(|v| v.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    /// Sends a signal, unless the process has ended and its number belongs to another one now.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(());
        };
        // Opened first and compared then: from here on the descriptor means this process, however its number is used.
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => Some(handle),
            Err(Errno::SRCH) => return Ok(()),
            Err(_) => None,
        };
        if Self::read(self.pid).is_none_or(|now| now.id() != self.id()) {
            return Ok(());
        }
        let sent = match handle {
            Some(handle) => pidfd_send_signal(handle, signal),
            None => kill_process(pid, signal),
        };
        match sent {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// Whether there is a process of this number, also when `/proc` shows only one's own (`hidepid`).
pub(super) fn exists(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| !matches!(test_kill_process(pid), Err(Errno::SRCH)))
}
