//! A program that works beside this one, with everything it starts, until it is dropped.

use std::io;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Pid;

use super::tree::Tree;

/// Ends with SIGKILL to all of it: when it is dropped, and when this process dies in whatever way.
#[derive(Debug)]
pub struct Group(Tree);

impl Group {
    /// Starts a program with something on stdin; what it prints on stderr goes to `log`, what it prints on stdout nowhere.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_with(command: &mut Command, input: Stdio, log: Stdio) -> io::Result<Self> {
        Self::start(command.stdin(input).stdout(Stdio::null()).stderr(log))
    }

    /// Starts a program whose streams are already arranged.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        Tree::start(command, None).map(Self)
    }

    /// The number of the group in which it began.
    #[must_use]
    pub fn id(&self) -> Pid {
        self.0.group()
    }

    /// The program itself, for its streams.
    pub fn child(&mut self) -> &mut std::process::Child {
        self.0.child()
    }

    /// How the program ended, if it has.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.ended()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.0.end(Duration::ZERO);
    }
}
