//! Programs under the wrapper, and what became of them.

use std::fs;
use std::path::Path;

use rustix::process::Pid;

use super::{Done, Service};

/// `oa-crawl exec --task job MORE -- sh -c SCRIPT` in the service's folder.
pub fn exec(service: &Service, more: &[&str], script: &str) -> Done {
    let mut arguments = vec!["exec", "--task", "job", "--format", "json"];
    arguments.extend(more);
    arguments.extend(["--", "sh", "-c", script]);
    let mut command = service.command(&arguments);
    command
        .current_dir(service.dir.path())
        .output()
        .unwrap()
        .into()
}

/// The process id in a file that the process has written.
pub fn pid_in(path: &Path) -> Option<Pid> {
    let text = fs::read_to_string(path).ok()?;
    Pid::from_raw(text.trim().parse().ok()?)
}

/// Gone, or a zombie that nobody has looked at yet.
pub fn has_ended(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
        .map_or(true, |stat| stat.contains(") Z "))
}
