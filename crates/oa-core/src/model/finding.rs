//! What `oa-alert check` finds, as facts.

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

use super::event::Severity;

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

/// What of a task did not run when it was due, nor since.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// So many times.
    pub times: u64,
    /// The last of them.
    pub last_due_at: Option<DateTime<Utc>>,
    /// The days that they are for; the last ones.
    pub days: Vec<NaiveDate>,
    /// So many days are before these.
    #[serde(default)]
    pub earlier_days: u64,
    /// The first and the last day that `oa-crawl backfill` can collect.
    pub backfill: Option<(NaiveDate, NaiveDate)>,
    /// So many times of days that the site shows no more.
    pub unfetchable: u64,
    /// It has run since.
    pub runs_again: bool,
}

/// How it is known when a task is due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// `oa-crawl run --due` starts it.
    #[default]
    Source,
    /// The configuration says when its crontab line should.
    Configured,
    /// It ran regularly until now.
    Rhythm,
}

/// A task, and what of it is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissedTask {
    /// The task's name.
    pub task: String,
    /// Its title for people; may be empty.
    pub title: String,
    /// The first that is missing.
    pub due_at: DateTime<Utc>,
    /// All that is missing.
    pub missed: Missed,
}

/// What became of what was missed, when that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissedEnd {
    /// The task's name.
    pub task: String,
    /// Its title for people; may be empty.
    pub title: String,
    /// `oa-crawl backfill` can collect its past days.
    pub backfills: bool,
    /// Days that were made up for.
    pub made_up: Vec<NaiveDate>,
    /// Days of which something stays missing.
    pub left: Vec<NaiveDate>,
    /// So many times.
    pub left_count: u64,
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
        /// All that is missing.
        #[serde(default)]
        missed: Missed,
        /// How it is known that it was due.
        #[serde(default)]
        expected: Expected,
    },
    /// Nothing was started for a while: cron stood still, or the machine was off.
    CronStopped {
        /// The last start before that.
        since: DateTime<Utc>,
        /// The first one after it; `None`: it goes on.
        until: Option<DateTime<Utc>>,
        /// What was not run.
        tasks: Vec<MissedTask>,
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
    /// A session opens soon, and a source of it is broken.
    OpeningAtRisk {
        /// The task's name.
        task: String,
        /// Its title for people; may be empty.
        title: String,
        /// `day` or `night`.
        session: String,
        /// When it opens.
        opens_at: DateTime<Utc>,
        /// Since when the source fails.
        failing_since: DateTime<Utc>,
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
    /// A machine reaches none of several sites.
    NetworkDown {
        /// The machine.
        host: String,
        /// When the first of the runs that failed began.
        since: DateTime<Utc>,
        /// The tasks that failed for it, as people know them.
        tasks: Vec<String>,
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
    /// Nobody takes what is pressed on the messages of a channel.
    ListenerDown {
        /// The channel.
        channel: String,
        /// When somebody last did; `None`: never.
        last_at: Option<DateTime<Utc>>,
        /// Why not; may be empty.
        error: String,
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
    /// Pages of the server were damaged when its newest full backup was made, and are in it as they were.
    ServerDamaged {
        /// The repository.
        repository: String,
        /// The backup.
        id: String,
        /// When it ended.
        at: DateTime<Utc>,
        /// Where.
        pages: String,
    },
    /// The last backup that was tried does not recover.
    BackupUnrecoverable {
        /// The repository.
        repository: String,
        /// When it was tried.
        at: DateTime<Utc>,
        /// The backup.
        id: String,
        /// Why.
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
            Self::CronStopped { .. } => "cron_stopped",
            Self::PartialStreak { .. } => "partial_streak",
            Self::OpeningAtRisk { .. } => "opening_at_risk",
            Self::RunTooLong { .. } => "run_too_long",
            Self::Connections { .. } => "connections",
            Self::WalHeld { .. } => "wal_held",
            Self::ClockOff { .. } => "clock_off",
            Self::NetworkDown { .. } => "network_down",
            Self::DiskFilling { .. } => "disk_filling",
            Self::DataStale { .. } => "data_stale",
            Self::DataFalling { .. } => "data_falling",
            Self::SpoolWaiting { .. } => "spool_waiting",
            Self::CookieExpiring { .. } => "cookie_expiring",
            Self::CertificateExpiring { .. } => "certificate_expiring",
            Self::ListenerDown { .. } => "listener_down",
            Self::BackupAbsent { .. } | Self::BackupLate { .. } => "backup_late",
            Self::BackupMissing { .. } => "backup_missing",
            Self::BackupDamaged { .. } | Self::BackupUnverified { .. } => "backup_unverified",
            Self::ServerDamaged { .. } => "server_damaged",
            Self::BackupUnrecoverable { .. } => "backup_unrecoverable",
            Self::DrillFailed { .. } => "drill_failed",
            Self::DrillSlow { .. } => "drill_slow",
            Self::DrillOverdue { .. } => "drill_overdue",
            Self::RepositoryFilling { .. } => "repository_filling",
        }
    }

    /// All rules that `oa-alert check` asks.
    pub const RULES: [&'static str; 26] = [
        "run_missed",
        "never_run",
        "cron_stopped",
        "partial_streak",
        "opening_at_risk",
        "run_too_long",
        "connections",
        "wal_held",
        "clock_off",
        "network_down",
        "disk_filling",
        "data_stale",
        "data_falling",
        "spool_waiting",
        "cookie_expiring",
        "certificate_expiring",
        "listener_down",
        "backup_late",
        "backup_unverified",
        "backup_missing",
        "server_damaged",
        "backup_unrecoverable",
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
            | Self::OpeningAtRisk { task, .. }
            | Self::DataStale { task, .. }
            | Self::DataFalling { task, .. } => task.clone(),
            Self::CronStopped { .. } => "due".to_owned(),
            Self::Connections { .. } => "database".to_owned(),
            Self::WalHeld { slot, .. } => slot.clone(),
            Self::ClockOff { host, .. }
            | Self::NetworkDown { host, .. }
            | Self::DiskFilling { host, .. }
            | Self::SpoolWaiting { host, .. } => host.clone(),
            Self::CookieExpiring { host, provider, .. } => format!("{host}/{provider}"),
            Self::CertificateExpiring { server, .. } => server.clone(),
            Self::ListenerDown { channel, .. } => channel.clone(),
            Self::BackupAbsent { repository, .. }
            | Self::BackupLate { repository, .. }
            | Self::BackupMissing { repository, .. }
            | Self::BackupDamaged { repository, .. }
            | Self::BackupUnverified { repository, .. }
            | Self::ServerDamaged { repository, .. }
            | Self::BackupUnrecoverable { repository, .. }
            | Self::DrillFailed { repository, .. }
            | Self::DrillSlow { repository, .. }
            | Self::DrillOverdue { repository, .. }
            | Self::RepositoryFilling { repository, .. } => repository.clone(),
        }
    }

    /// The machine, when it is about one.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::RunTooLong { host, .. }
            | Self::ClockOff { host, .. }
            | Self::NetworkDown { host, .. }
            | Self::DiskFilling { host, .. }
            | Self::SpoolWaiting { host, .. }
            | Self::CookieExpiring { host, .. } => Some(host),
            _ => None,
        }
    }

    /// The task, when it is about one.
    #[must_use]
    pub fn task(&self) -> Option<&str> {
        match self {
            Self::RunMissed { task, .. }
            | Self::PartialStreak { task, .. }
            | Self::RunTooLong { task, .. }
            | Self::OpeningAtRisk { task, .. }
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
            // What is missing stays to be filled; but new data come.
            Self::RunMissed { missed, .. } if missed.runs_again => Severity::Warning,
            Self::CronStopped {
                tasks,
                until: Some(_),
                ..
            } if tasks.iter().all(|t| t.missed.runs_again) => Severity::Warning,
            Self::CronStopped { .. } => Severity::Critical,
            Self::RunMissed { .. }
            | Self::NetworkDown { .. }
            | Self::OpeningAtRisk { .. }
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
            | Self::ServerDamaged { .. }
            | Self::BackupUnrecoverable { .. }
            | Self::DrillFailed { .. }
            | Self::RepositoryFilling {
                needed: Some(_), ..
            } => Severity::Critical,
            _ => Severity::Warning,
        }
    }
}
