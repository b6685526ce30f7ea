//! A process's identity that survives the reuse of its pid, a reboot, two machines of one name, and containers of one machine:
//! host, machine, boot, pid namespace, pid, start time.

use std::fs;

use serde::{Deserialize, Serialize};

use super::proc::{self, Process};

/// The machine's own pid namespace, `PROC_PID_INIT_INO` of the kernel.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// Names one process on one machine for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The machine's name.
    pub host: String,
    /// `/etc/machine-id`, which tells two machines of one name apart; empty where there is none.
    pub machine_id: String,
    /// The kernel's random id of this boot; within a container followed by `/` and its pid namespace, in which `pid` counts.
    pub boot_id: String,
    /// The process id.
    pub pid: i32,
    /// Start of the process in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub pid_started: i64,
}

impl ProcessId {
    /// This process.
    #[must_use]
    pub fn current() -> Self {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        Self {
            host: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            machine_id: read("/etc/machine-id"),
            boot_id: boot_and_namespace(),
            pid,
            pid_started: Process::read(pid).map_or(0, |p| p.started),
        }
    }

    /// Whether that process still runs. `None` when nothing can be said about it here: it belongs to another machine, or to
    /// another container of this one.
    #[must_use]
    pub fn is_alive(&self) -> Option<bool> {
        self.is_alive_seen_by(&Self::current())
    }

    fn is_alive_seen_by(&self, me: &Self) -> Option<bool> {
        if self.host != me.host || self.machine_id != me.machine_id {
            return None;
        }
        if self.boot() != me.boot() {
            // Without the machine's id it may be another machine of the same name.
            return (!self.machine_id.is_empty()).then_some(false);
        }
        if self.boot_id != me.boot_id {
            return None;
        }
        match Process::read(self.pid) {
            Some(process) => Some(!process.ended && process.started == self.pid_started),
            // Processes of other users may be hidden.
            None if proc::exists(self.pid) => None,
            None => Some(false),
        }
    }

    fn boot(&self) -> &str {
        self.boot_id.split('/').next().unwrap_or_default()
    }
}

fn boot_and_namespace() -> String {
    let boot = read("/proc/sys/kernel/random/boot_id");
    match fs::read_link("/proc/self/ns/pid") {
        Ok(link) if link.as_os_str() != FIRST_NAMESPACE => format!("{boot}/{}", link.display()),
        _ => boot,
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_a_finished_one_is_not() {
        let me = ProcessId::current();
        assert_eq!(me.is_alive(), Some(true));
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let other = ProcessId {
            pid,
            pid_started: Process::read(pid).unwrap().started,
            ..me.clone()
        };
        assert_eq!(other.is_alive(), Some(true));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(other.is_alive(), Some(false));
    }

    #[test]
    fn a_reused_pid_an_earlier_boot_another_host_and_another_container_are_distinguished() {
        let me = ProcessId::current();
        assert_eq!(
            ProcessId {
                pid_started: me.pid_started - 1,
                ..me.clone()
            }
            .is_alive(),
            Some(false)
        );
        assert_eq!(
            ProcessId {
                boot_id: "earlier".into(),
                ..me.clone()
            }
            .is_alive(),
            Some(false)
        );
        assert_eq!(
            ProcessId {
                boot_id: format!("{}/pid:[1]", me.boot()),
                ..me.clone()
            }
            .is_alive(),
            None,
            "another container of this machine"
        );
        let nameless = ProcessId {
            machine_id: String::new(),
            ..me.clone()
        };
        assert_eq!(nameless.is_alive_seen_by(&nameless), Some(true));
        assert_eq!(
            ProcessId {
                boot_id: "another machine's".into(),
                ..nameless.clone()
            }
            .is_alive_seen_by(&nameless),
            None
        );
        assert_eq!(
            ProcessId {
                machine_id: "another of the same name".into(),
                ..me.clone()
            }
            .is_alive(),
            None
        );
        assert_eq!(
            ProcessId {
                host: "elsewhere".into(),
                ..me
            }
            .is_alive(),
            None
        );
    }
}
