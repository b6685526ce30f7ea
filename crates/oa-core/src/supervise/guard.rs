//! Ends a process group when this process dies without a chance to do so itself: `kill -9`, the kernel's out-of-memory killer, a
//! panic.
//!
//! The guard is a shell that leads the group, before anything else is in it, and waits for the end of a pipe. Only this process holds the pipe's other end, so the kernel closes it
//! however this process ends, and then the shell kills the group. `PR_SET_PDEATHSIG` would reach the child alone, and none of
//! the processes that it has started.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::Pid;

/// The leader of a process group.
#[derive(Debug)]
pub struct Guard(Child);

impl Guard {
    /// Starts a group, for others to join.
    ///
    /// # Errors
    /// When there is no `/bin/sh`, or no process can be started.
    pub fn start() -> io::Result<Self> {
        Command::new("/bin/sh")
            // What asks the group to end must not end the guard before the others.
            .args(["-c", "trap '' TERM INT HUP QUIT; read -r _; kill -s KILL 0"])
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Self)
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> Pid {
        Pid::from_child(&self.0)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // In this order: waiting closes the pipe, which is the sign that the guard waits for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
