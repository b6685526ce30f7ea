//! A program that works beside this one, with everything it starts in one process group, until it is dropped.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use super::guard::Guard;

/// Ends with SIGKILL to the whole group: when it is dropped, and when this process dies in whatever way.
#[derive(Debug)]
pub struct Group {
    child: Child,
    guard: Guard,
}

impl Group {
    /// Starts a program without input and output.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        Self::start_with(command, Stdio::null(), Stdio::null())
    }

    /// The same with something on stdin; what it prints on stderr goes to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_with(command: &mut Command, input: Stdio, log: Stdio) -> io::Result<Self> {
        let guard = Guard::start()?;
        let child = command
            .process_group(guard.group().as_raw_nonzero().get())
            .stdin(input)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Self { child, guard })
    }

    /// The group's number, which is that of all its processes.
    #[must_use]
    pub fn id(&self) -> Pid {
        self.guard.group()
    }

    /// How the program ended, if it has.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = kill_process_group(self.guard.group(), Signal::KILL);
        let _ = self.child.wait();
    }
}
