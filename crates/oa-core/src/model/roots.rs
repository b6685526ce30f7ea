//! Root causes: what is down, and what fails because of it. Of a follower people hear by the message about its cause, and by itself only
//! when it stays after that is over.

use super::event::{Event, Fault, Finding, RunFailed, Severity, Work};
use super::retry::ErrorKind;

/// Rules whose incidents others follow from.
pub const ROOT_RULES: [&str; 5] = [
    "database_unreachable",
    "schema_unfit",
    "network_down",
    "disk_filling",
    "cron_stopped",
];

/// Rules whose incidents may follow from another.
pub const FOLLOWER_RULES: [&str; 7] = [
    "run_failed",
    "run_abandoned",
    "run_partial",
    "run_missed",
    "spool_broken",
    "spool_full",
    "check_failed",
];

/// What is down.
enum Root<'a> {
    Database(&'a str),
    Network(&'a str),
    Disk(&'a str),
    Cron(&'a Finding),
}

impl<'a> Root<'a> {
    /// What an event is about, also one that says that it is over.
    fn of(event: &'a Event) -> Option<Self> {
        match event {
            Event::Machine { fault, host, .. } | Event::MachineRecovered { fault, host, .. } => {
                let database = matches!(fault, Fault::DatabaseUnreachable | Fault::SchemaUnfit);
                database.then_some(Self::Database(host))
            }
            Event::FoundNoMore { of, .. } => Self::of(of),
            Event::Found(finding) => match finding {
                Finding::NetworkDown { host, .. } => Some(Self::Network(host)),
                Finding::DiskFilling {
                    host,
                    severity: Severity::Critical,
                    ..
                } => Some(Self::Disk(host)),
                Finding::CronStopped { .. } => Some(Self::Cron(finding)),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Event {
    /// Whether others may follow from it.
    #[must_use]
    pub fn is_root(&self) -> bool {
        Root::of(self).is_some()
    }

    /// Whether this follows from that, were both true at the same time. Decided by kinds of error and by machines, never by words.
    #[must_use]
    pub fn follows_from(&self, root: &Self) -> bool {
        let Some(root) = Root::of(root) else {
            return false;
        };
        match (&root, self) {
            (Root::Database(host), Self::RunFailed(run)) => {
                run.host == **host && fails_without_database(run)
            }
            (
                Root::Database(host),
                Self::Machine {
                    fault, host: on, ..
                },
            ) => on == host && *fault == Fault::CheckFailed,
            (Root::Network(host), Self::RunFailed(run)) => {
                run.host == **host && run.error.kind.is_of_the_network()
            }
            (Root::Disk(host), Self::RunFailed(run)) => {
                run.host == **host && matches!(run.error.kind, ErrorKind::Internal | ErrorKind::Db)
            }
            (
                Root::Disk(host),
                Self::Machine {
                    fault, host: on, ..
                },
            ) => on == host && matches!(fault, Fault::SpoolBroken | Fault::SpoolFull),
            (
                Root::Cron(Finding::CronStopped { since, until, .. }),
                Self::Found(Finding::RunMissed { due_at, missed, .. }),
            ) => {
                let last = missed.last_due_at.unwrap_or(*due_at);
                due_at >= since && until.is_none_or(|until| last <= until)
            }
            _ => false,
        }
    }
}

/// A source keeps what it fetched in the spool; programs of the operator's own, backups and tools fail.
fn fails_without_database(run: &RunFailed) -> bool {
    match run.error.kind {
        ErrorKind::Db => true,
        ErrorKind::Internal | ErrorKind::Network | ErrorKind::Timeout => run.work != Work::Source,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, Utc};
    use uuid::Uuid;

    use super::super::event::Missed;
    use super::*;
    use crate::model::run::{RunError, Status};

    fn failed(work: Work, kind: ErrorKind, host: &str) -> Event {
        Event::RunFailed(Box::new(RunFailed {
            run: Uuid::nil(),
            task: "t".to_owned(),
            title: String::new(),
            work,
            status: Status::Failed,
            error: RunError::new(kind, ""),
            attempts: 1,
            started_at: Utc::now(),
            finished_at: Utc::now(),
            failing_since: None,
            failures: 1,
            last_success_at: None,
            tables: String::new(),
            day: None,
            collected: 0,
            expected: None,
            host: host.to_owned(),
            provider: String::new(),
            history_unknown: false,
        }))
    }

    #[test]
    fn what_fails_because_of_something_else_follows_from_it_and_the_rest_does_not() {
        let database = Event::Machine {
            fault: Fault::DatabaseUnreachable,
            host: "a".to_owned(),
            task: None,
            reason: String::new(),
            schema: None,
            at: Utc::now(),
        };
        let network = Event::Found(Finding::NetworkDown {
            host: "a".to_owned(),
            since: Utc::now(),
            tasks: Vec::new(),
        });
        let disk = |severity| {
            Event::Found(Finding::DiskFilling {
                host: "a".to_owned(),
                path: String::new(),
                size: 100,
                free: 0,
                full_at: None,
                severity,
            })
        };
        let program = failed(Work::Program, ErrorKind::Internal, "a");
        assert!(program.follows_from(&database));
        assert!(!failed(Work::Program, ErrorKind::Internal, "b").follows_from(&database));
        assert!(!failed(Work::Source, ErrorKind::Network, "a").follows_from(&database));
        assert!(failed(Work::Source, ErrorKind::Dns, "a").follows_from(&network));
        for own in [ErrorKind::Auth, ErrorKind::Shape, ErrorKind::Invalid] {
            let own = failed(Work::Program, own, "a");
            for root in [&database, &network, &disk(Severity::Critical)] {
                assert!(!own.follows_from(root), "a person must act: {own:?}");
            }
        }
        assert!(program.follows_from(&disk(Severity::Critical)));
        assert!(!program.follows_from(&disk(Severity::Warning)));
        assert!(!disk(Severity::Warning).is_root() && !program.is_root());

        let now = Utc::now();
        let cron = |until| {
            Event::Found(Finding::CronStopped {
                since: now - TimeDelta::hours(2),
                until,
                tasks: Vec::new(),
            })
        };
        let missed = |hours: i64| {
            Event::Found(Finding::RunMissed {
                task: "t".to_owned(),
                title: String::new(),
                due_at: now - TimeDelta::hours(hours),
                late: 0,
                last_started_at: None,
                last_success_at: None,
                never: false,
                missed: Missed::default(),
                expected: super::super::event::Expected::Configured,
            })
        };
        assert!(missed(1).follows_from(&cron(None)));
        assert!(!missed(3).follows_from(&cron(None)), "it was missed before");
        assert!(!missed(1).follows_from(&cron(Some(now - TimeDelta::minutes(90)))));
    }
}
