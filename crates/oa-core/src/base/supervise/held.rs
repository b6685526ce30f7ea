//! Which processes a supervised program consists of, on this machine's disk. What has cleared its environment carries no mark any more,
//! and when its supervisor is killed it falls to another parent: only who has written down its number and its start still knows it.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::identity::ProcessId;
use super::mark::Owner;
use super::proc::Process;
use super::scope::Scope;
use crate::base::state_dir::make_folder;

/// Before the folder of its control group.
const IN: &str = "in ";

/// Notes what there is now. Numbers and starts say nothing after a restart of the machine, which is part of the note.
pub(super) fn note(owner: &Owner, members: &[Process], scope: Option<&Scope>) {
    let mut text = ProcessId::current().boot_id;
    if let Some(path) = scope.and_then(|scope| scope.path().to_str()) {
        text.push_str(&format!("\n{IN}{path}"));
    }
    for process in members {
        text.push_str(&format!("\n{} {}", process.pid, process.started));
    }
    let path = path(owner);
    let temporary = path.with_extension("new");
    let written = make_folder(&owner.folder)
        .and_then(|()| private(&temporary))
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&temporary, &path));
    if let Err(e) = written {
        tracing::debug!("could not note the processes of {}: {e}", owner.task);
    }
}

/// What was noted, as number and start.
pub(super) fn noted(owner: &Owner) -> HashSet<(i32, i64)> {
    let text = fs::read_to_string(path(owner)).unwrap_or_default();
    let mut lines = text.lines();
    if lines.next() != Some(ProcessId::current().boot_id.as_str()) {
        return HashSet::new();
    }
    let id = |line: &str| {
        let (pid, started) = line.split_once(' ')?;
        Some((pid.parse().ok()?, started.parse().ok()?))
    };
    lines.filter_map(id).collect()
}

/// The control group that was noted, if it is still there.
pub(super) fn noted_scope(owner: &Owner) -> Option<Scope> {
    let text = fs::read_to_string(path(owner)).ok()?;
    let mut lines = text.lines();
    let same_boot = lines.next() == Some(ProcessId::current().boot_id.as_str());
    let scope = lines.find_map(|line| line.strip_prefix(IN));
    scope.filter(|_| same_boot).and_then(Scope::noted)
}

/// All of it has ended.
pub(super) fn forget(owner: &Owner) {
    let _ = fs::remove_file(path(owner));
}

/// Nobody else reads it, whatever the umask.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    options.open(path)
}

fn path(owner: &Owner) -> PathBuf {
    owner.folder.join(&owner.task)
}
