//! A process's identity that survives the reuse of its pid, a reboot, and two machines of one name: host, machine, boot, pid,
//! start time.

use std::fs;

use serde::{Deserialize, Serialize};

/// Names one process on one machine for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The machine's name.
    pub host: String,
    /// `/etc/machine-id`, which tells two machines of one name apart; empty where there is none.
    pub machine_id: String,
    /// The kernel's random id of this boot.
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
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            pid,
            pid_started: start_of(pid).unwrap_or_default(),
        }
    }

    /// Whether that process still runs. `None` when it belongs to another machine, about which nothing can be said here.
    #[must_use]
    pub fn is_alive(&self) -> Option<bool> {
        let me = Self::current();
        if self.host != me.host || self.machine_id != me.machine_id {
            return None;
        }
        Some(self.boot_id == me.boot_id && start_of(self.pid) == Some(self.pid_started))
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn start_of(pid: i32) -> Option<i64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name, in brackets, may hold anything; the fields after it are numbers.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    // A zombie has ended; only its parent has not looked yet.
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
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
            pid_started: start_of(pid).unwrap(),
            ..me.clone()
        };
        assert_eq!(other.is_alive(), Some(true));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(other.is_alive(), Some(false));
    }

    #[test]
    fn a_reused_pid_an_earlier_boot_and_another_host_are_told_apart() {
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
