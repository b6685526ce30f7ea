//! What a person should look at, worst first: open incidents, tasks that are not well, days that are lacking, backups, and the watching
//! itself.

use crate::queries::alerts::Incident;
use crate::queries::backups::State;
use crate::queries::days::Unfilled;
use crate::queries::health::{Health, TaskHealth};
use crate::queries::watch::{self, Fault};
use crate::snapshot::Snapshot;

/// The worst of everything: tasks, open incidents, backups.
pub(crate) fn worst(snapshot: &Snapshot) -> Health {
    problems(snapshot)
        .iter()
        .map(|i| i.severity)
        .max()
        .unwrap_or(Health::Healthy)
}

#[derive(Debug)]
pub(crate) enum Item<'a> {
    Incident(&'a Incident),
    /// A task that is not well, and of which no incident tells.
    Task(&'a TaskHealth),
    Backups,
    /// Days that are lacking, of so many sources, of which nothing else here says anything: they are well again, and these days are not.
    Holes {
        days: i64,
        sources: usize,
        most: &'a Unfilled,
    },
    /// Nobody watches, or what was found reaches nobody.
    Watching(Fault<'a>),
}

/// Something that a person should look at.
#[derive(Debug)]
pub(crate) struct Problem<'a> {
    pub(crate) severity: Health,
    pub(crate) item: Item<'a>,
}

impl Problem<'_> {
    pub(crate) fn is_acknowledged(&self) -> bool {
        matches!(self.item, Item::Incident(t) if t.acknowledged_by.is_some())
    }
}

/// What is wrong: open incidents, tasks that are not well and that no incident is about, days that can be filled, backups. Worst first, acknowledged last.
pub(crate) fn problems(snapshot: &Snapshot) -> Vec<Problem<'_>> {
    let severity_of = |t: &Incident| match t.severity.as_str() {
        "critical" => Health::Critical,
        _ => Health::Warning,
    };
    let has_incident = |task: &TaskHealth| {
        snapshot
            .incidents
            .iter()
            .any(|t| t.task.as_deref() == Some(&task.name))
    };
    let incidents = snapshot.incidents.iter().map(|t| Problem {
        severity: severity_of(t),
        item: Item::Incident(t),
    });
    let tasks = snapshot
        .tasks
        .iter()
        .filter(|t| t.severity != Health::Healthy && !has_incident(t))
        .map(|t| Problem {
            severity: t.severity,
            item: Item::Task(t),
        });
    let backups = (snapshot.backups.status != State::Ok).then_some(Problem {
        severity: if snapshot.backups.status == State::Error {
            Health::Critical
        } else {
            Health::Warning
        },
        item: Item::Backups,
    });
    let is_listed = |task: &str| {
        let incident = snapshot
            .incidents
            .iter()
            .any(|t| t.task.as_deref() == Some(task));
        let mut tasks = snapshot.tasks.iter();
        incident || tasks.any(|t| t.name == task && t.severity != Health::Healthy)
    };
    let unfilled: Vec<&Unfilled> = snapshot
        .unfilled
        .iter()
        .filter(|u| !is_listed(&u.task))
        .collect();
    let holes = unfilled.first().copied().map(|most| Problem {
        severity: Health::Warning,
        item: Item::Holes {
            days: unfilled.iter().map(|u| u.days).sum(),
            sources: unfilled.len(),
            most,
        },
    });
    let watching = watch::faults(&snapshot.watches, !snapshot.tasks.is_empty())
        .into_iter()
        .map(|fault| Problem {
            severity: fault.severity(),
            item: Item::Watching(fault),
        });
    let all = watching
        .chain(incidents)
        .chain(tasks)
        .chain(holes)
        .chain(backups);
    let mut all: Vec<Problem<'_>> = all.collect();
    // What follows from something else goes with it.
    let follows = |p: &Problem<'_>| matches!(p.item, Item::Incident(t) if t.follows.is_some());
    all.sort_by_key(|p| {
        (
            p.is_acknowledged(),
            std::cmp::Reverse(p.severity),
            follows(p),
        )
    });
    all
}
