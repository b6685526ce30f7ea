//! Everything that a program has started, held together until all of it has ended.
//!
//! A process group holds only what does not leave it: `timeout`, `setsid` and daemons do. So this process is the one to which
//! orphans fall (a child subreaper), and whatever was started through a program stays below this process, however often it
//! forks. Where several programs are supervised at once, the mark in their environment says whose an orphan is; one that has
//! cleared its environment too is ended with the last program that it can belong to.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitOptions, getpgrp, kill_process_group, set_child_subreaper, waitpid,
};
use uuid::Uuid;

use super::guard::Guard;
use super::held;
use super::mark::{self, Mark, Owner, own_pid};
use super::proc::Process;
use super::scope::Scope;
use crate::base::limits;

/// How long killed processes are waited for. Only the kernel can hold one longer, in a call to a disk or a file server.
const LAST: Duration = Duration::from_secs(10);

/// The children that this process has started itself. Whatever else becomes its child was started by one of them.
#[derive(Debug, Default)]
struct Registry {
    children: HashSet<i32>,
    /// Programs under supervision.
    active: HashSet<Uuid>,
    /// Daemons that are to live on.
    kept: HashSet<(i32, i64)>,
}

fn registry() -> MutexGuard<'static, Registry> {
    static REGISTRY: OnceLock<Mutex<Registry>> = OnceLock::new();
    let all = REGISTRY.get_or_init(Mutex::default);
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a child of this process. Its number is known before anybody else may look for orphans.
pub(super) fn spawn(command: &mut Command) -> io::Result<Child> {
    let mut registry = registry();
    let child = command.spawn().map_err(limits::of_program)?;
    registry.children.insert(pid_of(&child));
    Ok(child)
}

/// Call it when a child's end was seen.
pub(super) fn forget(child: &Child) {
    registry().children.remove(&pid_of(child));
}

fn pid_of(child: &Child) -> i32 {
    Pid::from_child(child).as_raw_nonzero().get()
}

/// A program and everything it has started.
#[derive(Debug)]
pub(super) struct Tree {
    mark: Mark,
    guard: Option<Guard>,
    scope: Option<Scope>,
    child: Child,
    status: Option<ExitStatus>,
    owner: Option<Owner>,
}

/// What was still there when a program was over, or had to be.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// What was asked to end, for people.
    pub asked: Vec<String>,
    /// What not even SIGKILL has ended.
    pub left: Vec<String>,
}

impl Tree {
    /// Starts a program in a process group of its own, and that of a run in a control group, where that can be made.
    pub(super) fn start(command: &mut Command, owner: Option<&Owner>) -> io::Result<Self> {
        let mark = Mark::new();
        let scope = owner.and_then(|_| Scope::make(mark.id()));
        Self::start_in(scope, mark, command, owner)
    }

    fn start_in(
        scope: Option<Scope>,
        mark: Mark,
        command: &mut Command,
        owner: Option<&Owner>,
    ) -> io::Result<Self> {
        if let Err(e) = set_child_subreaper(Some(rustix::process::getpid())) {
            tracing::warn!("what leaves a program's process group cannot be held: {e}");
        }
        let guard = Guard::start(mark.id(), scope.as_ref())
            .inspect_err(|e| {
                tracing::warn!("a program could outlive this one, should this one be killed: {e}");
            })
            .ok();
        mark.put(command, owner);
        command.process_group(
            guard
                .as_ref()
                .map_or(0, |g| g.group().as_raw_nonzero().get()),
        );
        registry().active.insert(mark.id());
        let child = spawn(command).inspect_err(|_| {
            registry().active.remove(&mark.id());
            scope.iter().for_each(Scope::remove);
        })?;
        let mut tree = Self {
            mark,
            guard,
            scope,
            child,
            status: None,
            owner: owner.cloned(),
        };
        tree.move_in();
        Ok(tree)
    }

    /// The program, and what it has started until then, goes into its control group.
    fn move_in(&mut self) {
        let Some(scope) = &self.scope else {
            return;
        };
        if let Err(e) = scope.take(pid_of(&self.child)) {
            // It may have ended already; then what it has left is found in another way.
            tracing::debug!("a program is held without a control group: {e}");
            scope.remove();
            self.scope = None;
            return;
        }
        // Once they are all inside, nothing is started outside any more. Mostly it has started nothing yet.
        for _ in 0..5 {
            if !has_children(pid_of(&self.child)) {
                break;
            }
            let inside: Vec<(i32, i64)> = scope.processes().iter().map(Process::id).collect();
            let members = self.members();
            let mut outside = members.iter().filter(|p| !inside.contains(&p.id()));
            let Some(first) = outside.next() else {
                break;
            };
            for process in std::iter::once(first).chain(outside) {
                let _ = scope.take(process.pid);
            }
        }
        if let Some(owner) = &self.owner {
            held::note(owner, &[], self.scope.as_ref());
        }
    }

    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The group in which the program began.
    pub(super) fn group(&self) -> Pid {
        self.guard
            .as_ref()
            .map_or_else(|| Pid::from_child(&self.child), Guard::group)
    }

    /// How the program ended, if it has. What it started may still run.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none()
            && let Some(status) = self.child.try_wait()?
        {
            forget(&self.child);
            self.status = Some(status);
        }
        Ok(self.status)
    }

    /// Ends all of it: SIGTERM, and SIGKILL after `grace`, until nothing is left. Cleaning up may start processes of its own,
    /// so only what is there now gets SIGTERM.
    pub(super) fn end(&mut self, grace: Duration) -> Ending {
        let began = Instant::now();
        // From then on, and not from the beginning: a machine that stood still has killed nothing meanwhile.
        let mut killed: Option<Instant> = None;
        let mut ending = Ending::default();
        let mut pause = Duration::from_millis(2);
        for round in 0.. {
            let _ = self.ended();
            let members = self.members();
            if members.is_empty() {
                break;
            }
            if round == 0 {
                ending.asked = members.iter().map(Process::shown).collect();
                self.note();
            }
            if killed.is_some_and(|since| since.elapsed() >= LAST) {
                ending.left = members.iter().map(Process::shown).collect();
                return ending;
            }
            if began.elapsed() >= grace {
                killed.get_or_insert_with(Instant::now);
                // The group at once: between two signals to single processes they could start others.
                self.kill_group();
                self.scope.iter().for_each(Scope::kill);
                send(&members, Signal::KILL);
            } else if round == 0 {
                send(&members, Signal::TERM);
                // What is stopped would not notice.
                send(&members, Signal::CONT);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        if let Some(owner) = &self.owner {
            held::forget(owner);
        }
        ending
    }

    /// Writes down what it consists of now, for the case that this process is killed.
    pub(super) fn note(&self) {
        if let Some(owner) = &self.owner {
            held::note(owner, &self.members(), self.scope.as_ref());
        }
    }

    /// Lets daemons live on that the program has left.
    pub(super) fn keep_daemons(&self) {
        let members = self.members();
        registry().kept.extend(members.iter().map(Process::id));
    }

    /// Its number is not given anew while its leader has not been waited for.
    fn kill_group(&self) {
        if self.guard.is_some() || self.status.is_none() {
            let _ = kill_process_group(self.group(), Signal::KILL);
        }
    }

    /// All its processes that have not ended.
    fn members(&self) -> Vec<Process> {
        let all = Process::all();
        let registry = registry();
        let me = own_pid();
        let mut below: HashMap<i32, Vec<&Process>> = HashMap::new();
        for process in &all {
            below.entry(process.parent).or_default().push(process);
        }
        let child = pid_of(&self.child);
        let is_root = |process: &&Process| {
            if registry.children.contains(&process.pid) {
                return process.pid == child;
            }
            is_adopted(process, me)
                && !registry.kept.contains(&process.id())
                && !reaped(process)
                && self.owns(process, &registry)
        };
        let children = below.get(&me).into_iter().flatten().copied();
        let mut found: Vec<&Process> = children.filter(is_root).collect();
        let mut next = 0;
        while let Some(process) = found.get(next) {
            next += 1;
            found.extend(below.get(&process.pid).into_iter().flatten().copied());
        }
        let mut members: Vec<Process> = found.into_iter().filter(|p| !p.ended).cloned().collect();
        let inside = self.scope.iter().flat_map(Scope::processes);
        let inside: Vec<Process> = inside
            .filter(|p| !p.ended && !members.iter().any(|m| m.id() == p.id()))
            .collect();
        members.extend(inside);
        members
    }

    /// Whether an orphan was started by this program.
    fn owns(&self, orphan: &Process, registry: &Registry) -> bool {
        if orphan.group == self.group().as_raw_nonzero().get() {
            return true;
        }
        let marks = mark::ids_on(orphan);
        if marks.contains(&self.mark.id()) {
            return true;
        }
        let of_another = marks.iter().any(|id| registry.active.contains(id));
        !of_another && registry.active.len() == 1
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.end(Duration::ZERO);
        }
        self.kill_group();
        // Ends by the signal above, so this waits for nothing.
        if self.status.is_none() {
            let _ = self.child.wait();
            forget(&self.child);
        }
        registry().active.remove(&self.mark.id());
        self.scope.iter().for_each(Scope::remove);
    }
}

fn has_children(pid: i32) -> bool {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    children.map_or(true, |pids| !pids.trim().is_empty())
}

/// A process that fell to this one. What this one starts by other means than [`spawn`] stays in its group.
fn is_adopted(process: &Process, me: i32) -> bool {
    process.parent == me && process.group != getpgrp().as_raw_nonzero().get()
}

/// Looks at the end of an orphan, as the parent it has lost would have done.
fn reaped(orphan: &Process) -> bool {
    let pid = Pid::from_raw(orphan.pid);
    orphan.ended && pid.is_some() && matches!(waitpid(pid, WaitOptions::NOHANG), Ok(Some(_)))
}

/// Looks at the ends of all orphans, for a program that leaves many of them.
pub(super) fn reap_orphans() {
    let registry = registry();
    let me = own_pid();
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
    for thread in threads.flatten() {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for pid in children.split_whitespace().filter_map(|c| c.parse().ok()) {
            if !registry.children.contains(&pid)
                && let Some(process) = Process::read(pid)
                && is_adopted(&process, me)
            {
                reaped(&process);
            }
        }
    }
}

fn send(to: &[Process], signal: Signal) {
    for process in to {
        if let Err(e) = process.signal(signal) {
            tracing::debug!("{} gets no {signal:?}: {e}", process.shown());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    use super::*;

    #[test]
    fn all_of_a_program_ends_with_a_control_group_and_without() {
        let marked = Mark::new();
        let made = Scope::make(marked.id());
        for (mark, scope) in [(Mark::new(), None), (marked, made)] {
            let folder = scope.as_ref().map(|s| s.path().to_owned());
            let mut command = Command::new("/bin/sh");
            let script = "env -i setsid /bin/sleep 600 & echo $!; exec sleep 600";
            command.args(["-c", script]).stdout(Stdio::piped());
            let mut tree = Tree::start_in(scope, mark, &mut command, None).unwrap();
            let mut line = String::new();
            let stdout = tree.child().stdout.take().unwrap();
            BufReader::new(stdout).read_line(&mut line).unwrap();
            let left: i32 = line.trim().parse().unwrap();
            if let Some(scope) = &tree.scope {
                assert!(scope.processes().iter().any(|p| p.pid == left));
            }
            tree.end(Duration::ZERO);
            assert!(Process::read(left).is_none_or(|p| p.ended));
            drop(tree);
            assert!(folder.is_none_or(|folder| !folder.exists()));
        }
    }
}
