//! Ends a process group when this process dies without a chance to do so itself: `kill -9`, the kernel's out-of-memory killer, a
//! panic.
//!
//! The guard is a shell that waits for the end of a pipe. Only this process holds the pipe's other end, so the kernel closes it
//! however this process ends, and then the shell kills the group. `PR_SET_PDEATHSIG` would reach the child alone, and none of
//! the processes that it has started.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::Pid;

/// Guards one process group for as long as it lives.
#[derive(Debug)]
pub struct Guard(Child);

impl Guard {
    /// Starts guarding.
    ///
    /// # Errors
    /// When there is no `/bin/sh`, or no process can be started.
    pub fn over(group: Pid) -> io::Result<Self> {
        Command::new("/bin/sh")
            .args(["-c", "read -r _; kill -s KILL -- \"-$1\"", "guard"])
            .arg(group.as_raw_nonzero().to_string())
            .env_clear()
            .current_dir("/")
            // What ends this process's own group must not end the guard first.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Self)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // In this order: waiting closes the pipe, which is the sign that the guard waits for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
