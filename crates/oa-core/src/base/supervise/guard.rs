//! Ends a program when this process dies without a chance to do so itself: `kill -9`, the kernel's out-of-memory killer, a panic.
//!
//! The guard is a shell that leads the program's process group, before anything else is in it, and waits for the end of a pipe.
//! Only this process holds the pipe's other end, so the kernel closes it however this process ends. Then the shell kills what
//! carries the program's mark, its control group, and the group. `PR_SET_PDEATHSIG` would reach the child alone, and none of the processes that it
//! has started.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Pid;
use uuid::Uuid;

use super::scope::Scope;
use super::tree;

/// Looked at once more just before each signal: a number may belong to another process by then.
const SCRIPT: &str = "trap '' TERM INT HUP QUIT; read -r _
[ -z \"$2\" ] || echo 1 > \"$2/cgroup.kill\" || for pid in $(cat \"$2/cgroup.procs\"); do kill -s KILL \"$pid\"; done
for round in 1 2; do
  for file in $(grep -ls \"$1\" /proc/[0-9]*/environ); do
    pid=${file#/proc/}; grep -qs \"$1\" \"$file\" && kill -s KILL \"${pid%/environ}\"
  done
done
# What was killed may take a moment to be gone.
for round in 1 2 3 4 5; do [ -d \"$2\" ] || break; rmdir \"$2\" && break; sleep 0.2; done
kill -s KILL 0";

/// The leader of a process group.
#[derive(Debug)]
pub struct Guard(Child);

impl Guard {
    /// Starts a group, for others to join, whose processes carry a mark, and are in a control group if there is one.
    ///
    /// # Errors
    /// When there is no `/bin/sh`, or no process can be started.
    pub(super) fn start(mark: Uuid, scope: Option<&Scope>) -> io::Result<Self> {
        let scope = scope.map_or_else(|| Path::new(""), Scope::path);
        let mut command = Command::new("/bin/sh");
        command
            // What asks the group to end must not end the guard before the others.
            .args(["-c", SCRIPT, "sh", &mark.to_string()])
            .arg(scope)
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        tree::spawn(&mut command).map(Self)
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
        tree::forget(&self.0);
    }
}
