//! What an earlier run of a task has left, when its supervisor was killed together with the guard: it is ended before the task
//! begins again.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use uuid::Uuid;

use super::held;
use super::mark::{Owner, own_pid, owners_on};
use super::proc::Process;
use super::scope::Scope;

/// Between the polite and the final signal.
const GRACE: Duration = Duration::from_secs(5);
/// How long killed processes are waited for.
const LAST: Duration = Duration::from_secs(10);

/// Processes of an earlier run that this user may not end, or that the kernel holds.
#[derive(Debug, thiserror::Error)]
#[error("an earlier run of {task} has left {}, which could not be ended ({why}); end it as the user that started it, then start {task} again", left.join(", "))]
pub struct Stubborn {
    task: String,
    left: Vec<String>,
    why: String,
}

/// Ends what earlier runs of the owner's task have left on this machine: SIGTERM, five seconds later SIGKILL. The caller holds the
/// task's lock in the state directory, so whatever was started there is over. `known` tells whether a run of another state
/// directory is one of the same task, see the run log. Returns what was ended, for people.
///
/// # Errors
/// When something is left all the same: a second copy must not run beside it.
pub fn end_leftovers(
    owner: &Owner,
    mut known: impl FnMut(Uuid) -> bool,
) -> Result<Vec<String>, Stubborn> {
    let mut found = held::noted(owner);
    let scope = held::noted_scope(owner);
    if found.is_empty() && scope.is_none() && !is_marked_lately(&owner.task) {
        return Ok(Vec::new());
    }
    let mut answers: HashMap<Uuid, bool> = HashMap::new();
    let mut ended = Vec::new();
    let mut denied = None;
    let began = Instant::now();
    // From then on: a machine that stood still has killed nothing meanwhile.
    let mut killed: Option<Instant> = None;
    for round in 0.. {
        let all = Process::all();
        let above = above(&all);
        for process in all.iter().filter(|p| !p.ended && !above.contains(&p.pid)) {
            let is_left = owners_on(process).iter().any(|(of, supervisor)| {
                of.task == owner.task
                    && of.run != owner.run
                    && (of.shares_state(owner)
                        || supervisor.is_gone()
                            && *answers.entry(of.run).or_insert_with(|| known(of.run)))
            });
            if is_left {
                found.insert(process.id());
            }
        }
        found.extend(scope.iter().flat_map(Scope::processes).map(|p| p.id()));
        let left = with_descendants(&all, &mut found);
        if left.is_empty() {
            break;
        }
        if round == 0 {
            ended = left.iter().map(Process::shown).collect();
        }
        let passed = began.elapsed();
        if killed.is_some_and(|since| since.elapsed() > LAST) || denied.is_some() {
            return Err(Stubborn {
                task: owner.task.clone(),
                left: left.iter().map(Process::shown).collect(),
                why: denied.unwrap_or_else(|| "not even SIGKILL ends it".to_owned()),
            });
        }
        let signal = match round {
            0 => Some(Signal::TERM),
            _ if passed >= GRACE => {
                killed.get_or_insert_with(Instant::now);
                Some(Signal::KILL)
            }
            _ => None,
        };
        for process in left.iter().filter(|_| signal.is_some()) {
            let sent = signal.map_or(Ok(()), |s| process.signal(s));
            denied = denied.or(sent.err().map(|e| e.to_string()));
            let _ = process.signal(Signal::CONT);
        }
        thread::sleep(Duration::from_millis(20));
    }
    scope.iter().for_each(Scope::remove);
    held::forget(owner);
    Ok(ended)
}

/// How long it is known which tasks' marks there are.
const KNOWN: Duration = Duration::from_secs(1);

/// Whether any process carries a mark of the task: what a killed run has left was there before that run's lock was free, and when a
/// thousand tasks begin one after the other, not each of them looks at all processes.
fn is_marked_lately(task: &str) -> bool {
    static MARKED: Mutex<Option<(Instant, HashSet<String>)>> = Mutex::new(None);
    let mut known = MARKED.lock().unwrap_or_else(PoisonError::into_inner);
    if known.as_ref().is_none_or(|(at, _)| at.elapsed() >= KNOWN) {
        let at = Instant::now();
        let all = Process::all();
        let owners = all.iter().filter(|p| !p.ended).flat_map(owners_on);
        *known = Some((at, owners.map(|(of, _)| of.task).collect()));
    }
    known
        .as_ref()
        .is_some_and(|(_, tasks)| tasks.contains(task))
}

/// This process and those that have started it, which may carry marks of their own.
fn above(all: &[Process]) -> HashSet<i32> {
    let parents: HashMap<i32, i32> = all.iter().map(|p| (p.pid, p.parent)).collect();
    let mut above = HashSet::new();
    let mut pid = own_pid();
    while pid > 0 && above.insert(pid) {
        pid = parents.get(&pid).copied().unwrap_or_default();
    }
    above
}

/// Those that have not ended, and what they have started, which is known from then on.
fn with_descendants(all: &[Process], found: &mut HashSet<(i32, i64)>) -> Vec<Process> {
    let above = above(all);
    loop {
        let pids: HashSet<i32> = all
            .iter()
            .filter(|p| found.contains(&p.id()))
            .map(|p| p.pid)
            .collect();
        let before = found.len();
        let below = all
            .iter()
            .filter(|p| pids.contains(&p.parent) && !above.contains(&p.pid));
        found.extend(below.map(Process::id));
        if found.len() == before {
            break;
        }
    }
    let living = all.iter().filter(|p| !p.ended && found.contains(&p.id()));
    living.cloned().collect()
}
