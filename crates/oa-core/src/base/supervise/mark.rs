//! The mark that a supervised program and everything it starts carry in their environment.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use uuid::Uuid;

use super::proc::{self, Process};

/// The variable. Programs within programs carry several marks, separated by commas.
const VARIABLE: &str = "OA_SUPERVISED";

/// The run for which a program is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its task.
    pub task: String,
    /// Its id.
    pub run: Uuid,
    /// Tells state directories apart: its task is locked there.
    state: String,
    /// Where it is noted of which processes its program consists.
    pub(super) folder: PathBuf,
}

impl Owner {
    /// A run of a task that is locked in a state directory.
    #[must_use]
    pub fn new(task: &str, run: Uuid, state_dir: &Path) -> Self {
        let state = std::fs::metadata(state_dir)
            .map_or_else(|_| String::new(), |m| format!("{}-{}", m.dev(), m.ino()));
        Self {
            task: task.to_owned(),
            run,
            state,
            folder: state_dir.join("held"),
        }
    }

    /// Whether it is written down of which processes a program of the task consists: it runs, or was killed.
    #[must_use]
    pub fn is_noted(&self) -> bool {
        self.folder.join(&self.task).exists()
    }

    /// Whether the mark was given in the same state directory.
    pub(super) fn shares_state(&self, other: &Self) -> bool {
        !self.state.is_empty() && self.state == other.state
    }
}

/// One start of a program.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    id: Uuid,
}

impl Mark {
    pub(super) fn new() -> Self {
        Self { id: Uuid::now_v7() }
    }

    /// What tells its processes from all others.
    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    pub(super) fn put(&self, command: &mut Command, owner: Option<&Owner>) {
        let me = Process::read(own_pid());
        let started = me.map_or(0, |p| p.started);
        let of = owner.map_or_else(String::new, |o| {
            let (run, state, task) = (o.run, &o.state, &o.task);
            let namespace = namespace();
            format!("/{run}/{state}/{}.{started}.{namespace}/{task}", own_pid())
        });
        let outer = std::env::var(VARIABLE).unwrap_or_default();
        let outer = outer.split(',').filter(|m| !m.is_empty());
        let own = format!("{}{of}", self.id);
        let marks: Vec<&str> = outer.chain([own.as_str()]).collect();
        command.env(VARIABLE, marks.join(","));
    }
}

/// The starts whose marks a process carries.
pub(super) fn ids_on(process: &Process) -> Vec<Uuid> {
    let marks = process.variable(VARIABLE).unwrap_or_default();
    marks.split(',').filter_map(id_of).collect()
}

/// The process that had started a marked one.
#[derive(Debug)]
pub(super) struct Supervisor {
    pid: i32,
    started: i64,
    namespace: String,
}

impl Supervisor {
    /// Whether it has ended. Where its number does not count here, in a container, that is not known.
    pub(super) fn is_gone(&self) -> bool {
        self.namespace == namespace()
            && Process::read(self.pid).map_or_else(
                || !proc::exists(self.pid),
                |now| now.ended || now.started != self.started,
            )
    }
}

/// The pid namespace of this process.
fn namespace() -> String {
    let link = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let digits = |c: &char| c.is_ascii_digit();
    link.to_string_lossy().chars().filter(digits).collect()
}

/// The runs whose marks a process carries, each with the process that had started it.
pub(super) fn owners_on(process: &Process) -> Vec<(Owner, Supervisor)> {
    let marks = process.variable(VARIABLE).unwrap_or_default();
    marks.split(',').filter_map(owner_of).collect()
}

fn id_of(mark: &str) -> Option<Uuid> {
    mark.split('/').next()?.parse().ok()
}

fn owner_of(mark: &str) -> Option<(Owner, Supervisor)> {
    let mut parts = mark.split('/').skip(1);
    let (run, state) = (parts.next()?.parse().ok()?, parts.next()?.to_owned());
    let mut numbers = parts.next()?.split('.');
    let supervisor = Supervisor {
        pid: numbers.next()?.parse().ok()?,
        started: numbers.next()?.parse().ok()?,
        namespace: numbers.next()?.to_owned(),
    };
    let task = parts.next()?.to_owned();
    let owner = Owner {
        task,
        run,
        state,
        folder: PathBuf::new(),
    };
    Some((owner, supervisor))
}

pub(super) fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}
