//! What people are to hear of, as facts. What an [`Event`] says in Chinese or English is decided where it is shown or sent
//! (`oa-wording`): an alert can be worded again, in another language, long after it was raised.
//!
//! An event is stored as JSON with a version, in the outbox (`oa.alerts.event`) and in the spool. Fields may be added with a default;
//! one that changes its meaning gets a new name.

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::retry::ErrorKind;
use crate::model::run::{RunError, Status};

/// How bad it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    #[default]
    Info,
    /// Look at it today.
    Warning,
    /// Look at it now.
    Critical,
}

impl Severity {
    /// The name under which it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// The severity that is stored under this name; an unknown one is the least.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        match name {
            "critical" => Self::Critical,
            "warning" => Self::Warning,
            _ => Self::Info,
        }
    }
}

/// What an event does to its incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It opens the incident, or says that it goes on.
    Problem,
    /// It resolves the incident.
    Recovery,
    /// Neither: a report, a test, a message from a script.
    Message,
}

impl Kind {
    /// The name under which it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Recovery => "recovery",
            Self::Message => "message",
        }
    }

    /// The kind that is stored under this name.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        match name {
            "problem" => Self::Problem,
            "recovery" => Self::Recovery,
            _ => Self::Message,
        }
    }
}

/// What a run does, which decides what its failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Collects a site.
    Source,
    /// Runs a program of the operator's own.
    Program,
    /// Makes, verifies or restores backups.
    Backup,
    /// Anything else: a migration.
    Tool,
}

/// What is wrong between a machine's programs and PostgreSQL, or with the machine itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// PostgreSQL cannot be reached; what was collected waits in the spool.
    DatabaseUnreachable,
    /// The schema `oa` is absent, older or newer: nothing is collected.
    SchemaUnfit,
    /// The spool is full: what is collected now reaches only the raw archive.
    SpoolFull,
    /// The spool cannot be read or written: should PostgreSQL go away as well, results would be lost.
    SpoolBroken,
    /// PostgreSQL refuses what waits in the spool of a task.
    SpoolStuck,
}

impl Fault {
    /// The rule under which it is stored.
    #[must_use]
    pub fn rule(self) -> &'static str {
        match self {
            Self::DatabaseUnreachable => "database_unreachable",
            Self::SchemaUnfit => "schema_unfit",
            Self::SpoolFull => "spool_full",
            Self::SpoolBroken => "spool_broken",
            Self::SpoolStuck => "spool_stuck",
        }
    }

    /// The fingerprint of this fault on that machine.
    #[must_use]
    pub fn fingerprint(self, host: &str, task: Option<&str>) -> String {
        let rule = self.rule();
        task.map_or_else(
            || format!("{rule}:{host}"),
            |task| format!("{rule}:{host}:{task}"),
        )
    }

    /// Whether it is about reaching PostgreSQL: such an incident is resolved once it can be stored there.
    #[must_use]
    pub fn ends_when_stored(rule: &str) -> bool {
        [Self::DatabaseUnreachable.rule(), Self::SchemaUnfit.rule()].contains(&rule)
    }
}

/// A backup, as far as people need to know which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedBackup {
    /// The beginning of its id.
    pub short_id: String,
    /// `physical`, `logical` or `files`.
    pub kind: String,
    /// `full` or `incremental`.
    pub level: String,
    /// Up to when it restores.
    pub restorable_to: DateTime<Utc>,
}

/// What `oa-alert check` finds although no run failed. Ages and spans are in seconds, by the server's clock when it was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// A due run did not start.
    RunMissed {
        /// The task's name.
        task: String,
        /// Its title for people; may be empty.
        title: String,
        /// When it was due.
        due_at: DateTime<Utc>,
        /// How long ago.
        late: u64,
        /// Its last start.
        last_started_at: Option<DateTime<Utc>>,
        /// Its last success.
        last_success_at: Option<DateTime<Utc>>,
        /// It has never run at all.
        never: bool,
    },
    /// A task's runs bring incomplete data time after time.
    PartialStreak {
        /// The task's name.
        task: String,
        /// Its title for people; may be empty.
        title: String,
        /// So many times in a row.
        times: u32,
        /// What the last one lacked.
        error: String,
        /// Its last complete run.
        last_success_at: Option<DateTime<Utc>>,
    },
    /// A run does not end.
    RunTooLong {
        /// The task's name.
        task: String,
        /// Its title for people; may be empty.
        title: String,
        /// When it began.
        started_at: DateTime<Utc>,
        /// How long ago.
        lasts: u64,
        /// The machine on which it runs.
        host: String,
    },
    /// PostgreSQL's connections are nearly used up.
    Connections {
        /// In use.
        used: i64,
        /// `max_connections`.
        limit: i64,
    },
    /// Nobody reads a replication slot.
    WalHeld {
        /// The slot.
        slot: String,
        /// Bytes of WAL that it holds.
        bytes: u64,
    },
    /// A machine's clock is off the server's.
    ClockOff {
        /// The machine.
        host: String,
        /// By how much.
        seconds: u64,
    },
    /// The disk of the state directory fills.
    DiskFilling {
        /// The machine.
        host: String,
        /// The state directory.
        path: String,
        /// Bytes of the disk.
        size: u64,
        /// Bytes left.
        free: u64,
        /// When it will be full at the present rate.
        full_at: Option<DateTime<Utc>>,
        /// How bad that is.
        severity: Severity,
    },
    /// Runs succeed and bring nothing new.
    DataStale {
        /// The task's name.
        task: String,
        /// Its title for people; may be empty.
        title: String,
        /// The last day that brought something.
        last: NaiveDate,
        /// Trading days since.
        days: usize,
    },
    /// Runs succeed and bring far fewer records than before.
    DataFalling {
        /// The task's name.
        task: String,
        /// Its title for people; may be empty.
        title: String,
        /// The last days, and the records of each.
        came: Vec<(NaiveDate, u64)>,
        /// What such a day usually brought.
        usual: u64,
    },
    /// Results wait in a machine's spool for longer than it takes to store them.
    SpoolWaiting {
        /// The machine.
        host: String,
        /// Entries that wait.
        entries: u64,
        /// Their bytes.
        bytes: u64,
        /// When the oldest was put in.
        oldest: DateTime<Utc>,
        /// How long ago.
        waits: u64,
    },
    /// A login that only a person can renew ends soon, or has ended.
    CookieExpiring {
        /// The machine with the cookies.
        host: String,
        /// The provider.
        provider: String,
        /// When it ends.
        ends_at: DateTime<Utc>,
        /// How long that is from now; `None`: it has ended.
        left: Option<u64>,
    },
    /// The certificate of the database's server ends soon, or has ended.
    CertificateExpiring {
        /// Host and port.
        server: String,
        /// When it ends.
        ends_at: DateTime<Utc>,
        /// How long that is from now; `None`: it has ended.
        left: Option<u64>,
    },
    /// There is no backup although one was due.
    BackupAbsent {
        /// The repository.
        repository: String,
        /// Since when it is configured on the machine that looked, where that is known.
        configured_at: Option<DateTime<Utc>>,
    },
    /// Too much would be lost now, or the last full backup is too old.
    BackupLate {
        /// The repository.
        repository: String,
        /// The newest recoverable time, its age, and the objective (`rpo`), when that is exceeded.
        recoverable: Option<Age>,
        /// The end of the last full backup, its age, and the interval (`full_every`), when that is exceeded.
        full: Option<Age>,
    },
    /// Backups that were recorded are gone from the repository, or their full backup is.
    BackupMissing {
        /// The repository.
        repository: String,
        /// Those that are gone; the first of them.
        gone: Vec<NamedBackup>,
        /// How many are gone.
        gone_count: usize,
        /// Those whose full backup is gone; the first of them.
        stranded: Vec<NamedBackup>,
        /// How many of these.
        stranded_count: usize,
    },
    /// A backup did not pass its verification.
    BackupDamaged {
        /// The repository.
        repository: String,
        /// The backup.
        id: String,
        /// What was found.
        error: String,
    },
    /// Nobody has read the backups back for too long.
    BackupUnverified {
        /// The repository.
        repository: String,
        /// The last time that they were read back, or the end of the first backup; its age, and the interval (`verify_limit`).
        last: Age,
        /// They were never read back.
        never: bool,
    },
    /// The last drill failed.
    DrillFailed {
        /// The repository.
        repository: String,
        /// When it ended.
        at: DateTime<Utc>,
        /// The backup that was restored.
        backup: String,
        /// What was wrong.
        error: String,
    },
    /// The last drill took longer than promised.
    DrillSlow {
        /// The repository.
        repository: String,
        /// When it ended.
        at: DateTime<Utc>,
        /// How long it took.
        took: u64,
        /// The objective (`rto`).
        objective: u64,
    },
    /// No drill has succeeded for too long.
    DrillOverdue {
        /// The repository.
        repository: String,
        /// The last success, or the end of the first backup; its age, and the interval (`drill_every`).
        last: Age,
        /// None has ever succeeded.
        never: bool,
    },
    /// The repository's disk has no room for another full backup, or will be full soon.
    RepositoryFilling {
        /// The repository.
        repository: String,
        /// Its bytes.
        size: u64,
        /// Bytes left on its disk.
        free: u64,
        /// What the last full backup added, when that is more than is left.
        needed: Option<u64>,
        /// When it will be full at the present rate.
        full_at: Option<DateTime<Utc>>,
    },
}

/// Something that is too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Age {
    /// When it was.
    pub at: DateTime<Utc>,
    /// How long ago, in seconds.
    pub age: u64,
    /// How old it may be, in seconds.
    pub limit: u64,
}

impl Finding {
    /// The rule under which it is stored and silenced.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        match self {
            Self::RunMissed { never: true, .. } => "never_run",
            Self::RunMissed { .. } => "run_missed",
            Self::PartialStreak { .. } => "partial_streak",
            Self::RunTooLong { .. } => "run_too_long",
            Self::Connections { .. } => "connections",
            Self::WalHeld { .. } => "wal_held",
            Self::ClockOff { .. } => "clock_off",
            Self::DiskFilling { .. } => "disk_filling",
            Self::DataStale { .. } => "data_stale",
            Self::DataFalling { .. } => "data_falling",
            Self::SpoolWaiting { .. } => "spool_waiting",
            Self::CookieExpiring { .. } => "cookie_expiring",
            Self::CertificateExpiring { .. } => "certificate_expiring",
            Self::BackupAbsent { .. } | Self::BackupLate { .. } => "backup_late",
            Self::BackupMissing { .. } => "backup_missing",
            Self::BackupDamaged { .. } | Self::BackupUnverified { .. } => "backup_unverified",
            Self::DrillFailed { .. } => "drill_failed",
            Self::DrillSlow { .. } => "drill_slow",
            Self::DrillOverdue { .. } => "drill_overdue",
            Self::RepositoryFilling { .. } => "repository_filling",
        }
    }

    /// All rules that `oa-alert check` asks.
    pub const RULES: [&'static str; 20] = [
        "run_missed",
        "never_run",
        "partial_streak",
        "run_too_long",
        "connections",
        "wal_held",
        "clock_off",
        "disk_filling",
        "data_stale",
        "data_falling",
        "spool_waiting",
        "cookie_expiring",
        "certificate_expiring",
        "backup_late",
        "backup_unverified",
        "backup_missing",
        "drill_overdue",
        "drill_failed",
        "drill_slow",
        "repository_filling",
    ];

    /// What it is about: a task, a machine, a replication slot, a repository.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::RunMissed { task, .. }
            | Self::PartialStreak { task, .. }
            | Self::RunTooLong { task, .. }
            | Self::DataStale { task, .. }
            | Self::DataFalling { task, .. } => task.clone(),
            Self::Connections { .. } => "database".to_owned(),
            Self::WalHeld { slot, .. } => slot.clone(),
            Self::ClockOff { host, .. }
            | Self::DiskFilling { host, .. }
            | Self::SpoolWaiting { host, .. } => host.clone(),
            Self::CookieExpiring { host, provider, .. } => format!("{host}/{provider}"),
            Self::CertificateExpiring { server, .. } => server.clone(),
            Self::BackupAbsent { repository, .. }
            | Self::BackupLate { repository, .. }
            | Self::BackupMissing { repository, .. }
            | Self::BackupDamaged { repository, .. }
            | Self::BackupUnverified { repository, .. }
            | Self::DrillFailed { repository, .. }
            | Self::DrillSlow { repository, .. }
            | Self::DrillOverdue { repository, .. }
            | Self::RepositoryFilling { repository, .. } => repository.clone(),
        }
    }

    /// The task, when it is about one.
    #[must_use]
    pub fn task(&self) -> Option<&str> {
        match self {
            Self::RunMissed { task, .. }
            | Self::PartialStreak { task, .. }
            | Self::RunTooLong { task, .. }
            | Self::DataStale { task, .. }
            | Self::DataFalling { task, .. } => Some(task),
            _ => None,
        }
    }

    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::DiskFilling { severity, .. } => *severity,
            Self::RunMissed { .. }
            | Self::PartialStreak { .. }
            | Self::SpoolWaiting { .. }
            | Self::CookieExpiring { left: None, .. }
            | Self::CertificateExpiring { left: None, .. }
            | Self::BackupAbsent { .. }
            | Self::BackupLate {
                recoverable: Some(_),
                ..
            }
            | Self::BackupMissing { .. }
            | Self::BackupDamaged { .. }
            | Self::DrillFailed { .. }
            | Self::RepositoryFilling {
                needed: Some(_), ..
            } => Severity::Critical,
            _ => Severity::Warning,
        }
    }
}

/// A run that failed, timed out, was cut off, or brought less than was due.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFailed {
    /// The run.
    pub run: Uuid,
    /// The task's name.
    pub task: String,
    /// Its title for people; may be empty.
    pub title: String,
    /// What it does.
    pub work: Work,
    /// Its final state.
    pub status: Status,
    /// Why.
    pub error: RunError,
    /// How often it was tried.
    pub attempts: usize,
    /// When it began (UTC).
    pub started_at: DateTime<Utc>,
    /// When it ended (UTC).
    pub finished_at: DateTime<Utc>,
    /// The start of the first of the failed runs in a row.
    pub failing_since: Option<DateTime<Utc>>,
    /// Failed runs in a row, this one included.
    pub failures: u32,
    /// The task's last success.
    pub last_success_at: Option<DateTime<Utc>>,
    /// The tables that have no new data; empty where it is not about data.
    pub tables: String,
    /// The day the data are of.
    pub day: Option<String>,
    /// Records that came.
    pub collected: u64,
    /// Records that were due.
    pub expected: Option<u64>,
}

/// The first of the alerts that a channel has not got, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lost {
    /// The first of them.
    pub first: Vec<Event>,
    /// All of them.
    pub count: usize,
}

/// Something that people are to hear of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A run is no success.
    RunFailed(Box<RunFailed>),
    /// The first success after failures.
    RunRecovered {
        /// The run.
        run: Uuid,
        /// The task's name.
        task: String,
        /// Its title for people; may be empty.
        title: String,
        /// The start of the first of the failed runs.
        failing_since: Option<DateTime<Utc>>,
        /// How many failed.
        failures: u32,
        /// When this run ended (UTC).
        finished_at: DateTime<Utc>,
        /// Records that came.
        fetched: u64,
    },
    /// The task of an open incident is run no more.
    TaskRetired {
        /// The task's name.
        task: String,
        /// Its title for people; may be empty.
        title: String,
        /// When people were last notified of the incident.
        notified_at: DateTime<Utc>,
    },
    /// Something is wrong with a machine.
    Machine {
        /// What.
        fault: Fault,
        /// The machine.
        host: String,
        /// The task whose results are refused.
        task: Option<String>,
        /// What was said.
        reason: String,
        /// When it was found (UTC).
        at: DateTime<Utc>,
    },
    /// It is over.
    MachineRecovered {
        /// What.
        fault: Fault,
        /// The machine.
        host: String,
        /// The task whose results were refused.
        task: Option<String>,
        /// Since when (UTC).
        opened_at: DateTime<Utc>,
        /// Until when (UTC).
        at: DateTime<Utc>,
    },
    /// A rule of `oa-alert check` finds something.
    Found(Finding),
    /// It finds that no more.
    FoundNoMore {
        /// The incident.
        fingerprint: String,
        /// Its rule.
        rule: String,
        /// The task it was about.
        task: Option<String>,
        /// What was found last.
        of: Box<Event>,
        /// Since when (UTC).
        opened_at: DateTime<Utc>,
        /// Until when (UTC).
        at: DateTime<Utc>,
    },
    /// A channel has not taken alerts for a day, and they are given up.
    ChannelGaveUp {
        /// The channel.
        channel: String,
        /// What it has not got.
        lost: Lost,
        /// What it said.
        error: String,
    },
    /// A channel refuses whatever it is sent: it must be set up anew.
    ChannelRefuses {
        /// The channel.
        channel: String,
        /// What it said.
        error: String,
    },
    /// A channel works again.
    ChannelRecovered {
        /// The channel.
        channel: String,
        /// How long it did not, in seconds.
        lasted: u64,
        /// What it has not got.
        lost: Lost,
    },
    /// A channel does not take one message for what is in it, although it takes others.
    MessageRefused {
        /// The channel.
        channel: String,
        /// The alert.
        alert: Uuid,
        /// What it is about.
        of: Box<Event>,
        /// The task of that alert.
        task: Option<String>,
        /// How bad that alert is.
        severity: Severity,
        /// What the channel said.
        error: String,
    },
    /// A text of a person, a script or a report, or an alert of a version that stored texts.
    Message {
        /// One line.
        title: String,
        /// Markdown in the small subset that every robot understands: lines, `**bold**`, `- ` lists. Begins with the title.
        body: String,
    },
}

impl Event {
    /// What it does to its incident.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::RunFailed(_)
            | Self::Machine { .. }
            | Self::Found(_)
            | Self::ChannelGaveUp { .. }
            | Self::ChannelRefuses { .. } => Kind::Problem,
            Self::RunRecovered { .. }
            | Self::TaskRetired { .. }
            | Self::MachineRecovered { .. }
            | Self::FoundNoMore { .. }
            | Self::ChannelRecovered { .. } => Kind::Recovery,
            Self::MessageRefused { .. } | Self::Message { .. } => Kind::Message,
        }
    }

    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::RunFailed(run) if run.status == Status::Partial => Severity::Warning,
            Self::RunFailed(_)
            | Self::Machine { .. }
            | Self::ChannelGaveUp { .. }
            | Self::ChannelRefuses { .. } => Severity::Critical,
            Self::Found(finding) => finding.severity(),
            Self::MessageRefused { severity, .. } => (*severity).max(Severity::Warning),
            _ => Severity::Info,
        }
    }

    /// The rule under which it is stored and silenced.
    #[must_use]
    pub fn rule(&self) -> &str {
        match self {
            Self::RunFailed(run) => match run.status {
                Status::Partial => "run_partial",
                Status::Abandoned => "run_abandoned",
                _ => "run_failed",
            },
            Self::RunRecovered { .. } | Self::TaskRetired { .. } => "run_failed",
            Self::Machine { fault, .. } | Self::MachineRecovered { fault, .. } => fault.rule(),
            Self::Found(finding) => finding.rule(),
            Self::FoundNoMore { rule, .. } => rule,
            Self::ChannelGaveUp { .. }
            | Self::ChannelRefuses { .. }
            | Self::ChannelRecovered { .. } => "channel_refuses",
            Self::MessageRefused { .. } => "message_refused",
            Self::Message { .. } => "message",
        }
    }

    /// The task it is about.
    #[must_use]
    pub fn task(&self) -> Option<&str> {
        match self {
            Self::RunFailed(run) => Some(&run.task),
            Self::RunRecovered { task, .. } | Self::TaskRetired { task, .. } => Some(task),
            Self::Machine { task, .. }
            | Self::MachineRecovered { task, .. }
            | Self::FoundNoMore { task, .. }
            | Self::MessageRefused { task, .. } => task.as_deref(),
            Self::Found(finding) => finding.task(),

            _ => None,
        }
    }

    /// The run that caused it.
    #[must_use]
    pub fn run(&self) -> Option<Uuid> {
        match self {
            Self::RunFailed(run) => Some(run.run),
            Self::RunRecovered { run, .. } => Some(*run),
            _ => None,
        }
    }

    /// Why a run failed: another cause is news, see [`ErrorKind::cause`].
    #[must_use]
    pub fn cause(&self) -> Option<ErrorKind> {
        match self {
            Self::RunFailed(run) => Some(run.error.kind.cause()),
            _ => None,
        }
    }

    /// What belongs to one incident; `None` for a message, which belongs to none.
    #[must_use]
    pub fn fingerprint(&self) -> Option<String> {
        Some(match self {
            Self::RunFailed(run) => run_fingerprint(&run.task),
            Self::RunRecovered { task, .. } | Self::TaskRetired { task, .. } => {
                run_fingerprint(task)
            }
            Self::Machine {
                fault, host, task, ..
            }
            | Self::MachineRecovered {
                fault, host, task, ..
            } => fault.fingerprint(host, task.as_deref()),
            Self::Found(finding) => format!("{}:{}", finding.rule(), finding.subject()),
            Self::FoundNoMore { fingerprint, .. } => fingerprint.clone(),
            Self::ChannelGaveUp { channel, .. }
            | Self::ChannelRefuses { channel, .. }
            | Self::ChannelRecovered { channel, .. } => channel_fingerprint(channel),
            Self::MessageRefused { .. } | Self::Message { .. } => return None,
        })
    }
}

/// The fingerprint of everything that is wrong with a task's runs.
#[must_use]
pub fn run_fingerprint(task: &str) -> String {
    format!("run:{task}")
}

/// The fingerprint of everything that is wrong with a channel. Alerts with it are not sent to that channel.
#[must_use]
pub fn channel_fingerprint(channel: &str) -> String {
    format!("channel:{channel}")
}

/// An event on its way to people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "StoredAlert")]
pub struct Alert {
    /// UUID version 7 of its making.
    pub id: Uuid,
    /// What belongs to one incident; of a message it is its own.
    pub fingerprint: String,
    /// The rule that found it.
    pub rule: String,
    /// The task it is about.
    pub task: Option<String>,
    /// The run that caused it.
    pub run_id: Option<Uuid>,
    /// How bad it is.
    pub severity: Severity,
    /// What it does to its incident.
    pub kind: Kind,
    /// What happened.
    pub event: Event,
    /// When (UTC), by the clock of the machine that made it; PostgreSQL keeps its own time.
    pub created_at: DateTime<Utc>,
}

impl Alert {
    /// An event that happens now.
    #[must_use]
    pub fn new(event: Event) -> Self {
        let id = Uuid::now_v7();
        Self {
            id,
            fingerprint: event
                .fingerprint()
                .unwrap_or_else(|| format!("{}:{id}", event.rule())),
            rule: event.rule().to_owned(),
            task: event.task().map(str::to_owned),
            run_id: event.run(),
            severity: event.severity(),
            kind: event.kind(),
            event,
            created_at: Utc::now(),
        }
    }
}

/// An alert in the spool: those of versions before events carry texts instead.
#[derive(Deserialize)]
struct StoredAlert {
    id: Uuid,
    fingerprint: String,
    rule: String,
    task: Option<String>,
    run_id: Option<Uuid>,
    severity: Severity,
    kind: Kind,
    event: Option<Event>,
    #[serde(default)]
    title: String,
    #[serde(default)]
    body: String,
    created_at: DateTime<Utc>,
}

impl From<StoredAlert> for Alert {
    fn from(stored: StoredAlert) -> Self {
        let StoredAlert {
            id,
            fingerprint,
            rule,
            task,
            run_id,
            severity,
            kind,
            event,
            title,
            body,
            created_at,
        } = stored;
        Self {
            id,
            fingerprint,
            rule,
            task,
            run_id,
            severity,
            kind,
            event: event.unwrap_or(Event::Message { title, body }),
            created_at,
        }
    }
}

/// The version of events that this program writes.
const VERSION: u64 = 1;

/// An event as it is stored.
///
/// # Errors
/// When it has no JSON form.
pub fn to_json(event: &Event) -> Result<serde_json::Value, serde_json::Error> {
    let mut value = serde_json::to_value(event)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("v".to_owned(), VERSION.into());
    }
    Ok(value)
}

/// A stored event. One that this program does not understand, of a newer one, is shown by its rule.
#[must_use]
pub fn from_json(value: serde_json::Value, rule: &str, fingerprint: &str) -> Event {
    serde_json::from_value(value).unwrap_or_else(|_| Event::Message {
        title: format!("{rule} ({fingerprint})"),
        body: format!("**{rule} ({fingerprint})**\n"),
    })
}
