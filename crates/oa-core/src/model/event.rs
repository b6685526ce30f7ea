//! What people are to hear of, as facts. What an [`Event`] says in Chinese or English is decided where it is shown or sent
//! (`oa-wording`): an alert can be worded again, in another language, long after it was raised.
//!
//! An event is stored as JSON with a version, in the outbox (`oa.alerts.event`) and in the spool. Fields may be added with a default;
//! one that changes its meaning gets a new name.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use super::finding::{Age, Expected, Finding, Missed, MissedEnd, MissedTask, NamedBackup};
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
    /// The spool cannot be read or written: should PostgreSQL go down as well, results would be lost.
    SpoolBroken,
    /// Neither PostgreSQL nor the disk takes anything: nothing is collected, or what was is lost.
    NoStore,
    /// PostgreSQL refuses what waits in the spool of a task.
    SpoolStuck,
    /// PostgreSQL can be reached and does not answer what `oa-alert check` asks, or takes none of its findings.
    CheckFailed,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::DatabaseUnreachable,
        Self::SchemaUnfit,
        Self::SpoolFull,
        Self::SpoolBroken,
        Self::NoStore,
        Self::SpoolStuck,
        Self::CheckFailed,
    ];

    /// The rule under which it is stored.
    #[must_use]
    pub fn rule(self) -> &'static str {
        match self {
            Self::DatabaseUnreachable => "database_unreachable",
            Self::SchemaUnfit => "schema_unfit",
            Self::SpoolFull => "spool_full",
            Self::SpoolBroken => "spool_broken",
            Self::NoStore => "no_store",
            Self::SpoolStuck => "spool_stuck",
            Self::CheckFailed => "check_failed",
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
    /// The machine on which it ran.
    #[serde(default)]
    pub host: String,
    /// The site it collects; empty where it collects none.
    #[serde(default)]
    pub provider: String,
    /// PostgreSQL was down: nobody knows the task's last success, nor how often it has failed in a row.
    #[serde(default)]
    pub history_unknown: bool,
}

/// The first of the alerts that a channel has not got, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lost {
    /// The first of them.
    pub first: Vec<Event>,
    /// All of them.
    pub count: usize,
}

/// Why an alert is sent to a channel no more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GivenUp {
    /// The channel has refused it for a day.
    #[default]
    Refused,
    /// It was sent three times, and not answered: more would only be repeats.
    Unanswered,
    /// The channel does not take what is in it.
    Content,
}

/// Versions of the schema `oa`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaVersions {
    /// The one in the database; `None`: there is none.
    pub found: Option<i32>,
    /// The one that the programs of the machine need.
    pub needed: i32,
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
        /// Of a schema that does not fit: which version there is, and which is needed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        schema: Option<SchemaVersions>,
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
        /// What became of runs that were missed, when it was about such.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ended: Vec<MissedEnd>,
    },
    /// A channel has not taken alerts, and they are given up.
    ChannelGaveUp {
        /// The channel.
        channel: String,
        /// What it has not got.
        lost: Lost,
        /// What it said.
        error: String,
        /// Why they are tried no more.
        #[serde(default)]
        why: GivenUp,
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
        /// Of that it may have got something: it was sent, and not answered.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unsure: bool,
    },
    /// No machine uses the channel of an open incident any more.
    ChannelRemoved {
        /// The channel.
        channel: String,
        /// What it has not got.
        lost: Lost,
        /// Of that it may have got something: it was sent, and not answered.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unsure: bool,
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
    /// A full backup was made, for the channels that are notified of that.
    BackupMade {
        /// The repository.
        repository: String,
        /// The first digits of its id.
        backup: String,
        /// Physical or a dump.
        kind: String,
        /// What it restores to (UTC).
        restorable_to: DateTime<Utc>,
        /// Bytes of what was backed up.
        size: u64,
        /// Bytes that it added to the repository.
        added: u64,
        /// How long it took, in seconds.
        took: u64,
        /// The channels.
        channels: Vec<String>,
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
    /// In place of one of which only this is known.
    #[must_use]
    pub fn unknown(rule: &str, fingerprint: &str) -> Self {
        Self::Message {
            title: format!("{rule} ({fingerprint})"),
            body: format!("**{rule} ({fingerprint})**\n"),
        }
    }

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
            | Self::ChannelRecovered { .. }
            | Self::ChannelRemoved { .. } => Kind::Recovery,
            Self::MessageRefused { .. } | Self::BackupMade { .. } | Self::Message { .. } => {
                Kind::Message
            }
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
            | Self::ChannelRecovered { .. }
            | Self::ChannelRemoved { .. } => "channel_refuses",
            Self::MessageRefused { .. } => "message_refused",
            Self::BackupMade { .. } => "backup_made",
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

    /// The machine on which it happened, where that is known.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::RunFailed(run) => Some(run.host.as_str()).filter(|h| !h.is_empty()),
            Self::Machine { host, .. } | Self::MachineRecovered { host, .. } => Some(host),
            Self::Found(finding) => finding.host(),
            Self::FoundNoMore { of, .. } => of.host(),
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
            | Self::ChannelRecovered { channel, .. }
            | Self::ChannelRemoved { channel, .. } => channel_fingerprint(channel),
            Self::MessageRefused { .. } | Self::BackupMade { .. } | Self::Message { .. } => {
                return None;
            }
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
    event: Option<serde_json::Value>,
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
        let event = match event {
            Some(event) => from_json(event, &rule, &fingerprint),
            None => Event::Message { title, body },
        };
        Self {
            id,
            fingerprint,
            rule,
            task,
            run_id,
            severity,
            kind,
            event,
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
    serde_json::from_value(value).unwrap_or_else(|_| Event::unknown(rule, fingerprint))
}
