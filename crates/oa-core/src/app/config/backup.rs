//! `[backup]`: what `oa-backup` and `oa-restore` do, and what `oa-alert check` and `oa-report` measure them by.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::SecretRef;
use crate::base::secrets::redact;
use crate::base::units::{Bytes, Span};
use crate::journal::due::Scheduled;
use crate::schedule::Schedule;

/// `[backup]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Where the repository is: a folder, or `s3://BUCKET/PREFIX`.
    pub repository: String,
    /// The key that encrypts the repository.
    pub password: SecretRef,
    /// Access to a repository on S3-compatible storage.
    pub s3: Option<S3>,
    /// What kind of backup is made.
    #[serde(default)]
    pub kind: BackupKind,
    /// Connection as a role that may replicate and read all tables. Default: `[database]`'s.
    pub database_url: Option<SecretRef>,
    /// Where a copy of the data directory or a dump stands until it is in the repository, and where WAL is received.
    /// Default: `backup` in the state directory.
    pub staging: Option<PathBuf>,
    /// Folder with PostgreSQL's programs. Default: the system's usual places.
    pub bin_dir: Option<PathBuf>,
    /// The replication slot that keeps the server from removing WAL before it is backed up.
    /// Default: `oa_backup`, or a name of its own where somebody else uses that.
    pub slot: Option<String>,
    /// Files and folders that are backed up along with the database.
    #[serde(default)]
    pub paths: Vec<PathBuf>,
    /// Connections of one dump or restore.
    #[serde(default = "default_jobs")]
    pub jobs: u32,
    /// Most bytes a second of a full physical copy. Default: no limit.
    pub limit_rate: Option<Bytes>,
    /// Tries after the first one.
    #[serde(default = "default_retries")]
    pub retries: u32,
    /// Wait between two tries.
    #[serde(default = "default_retry_delay")]
    pub retry_delay: Span,
    /// The newest restore point of each of so many hours is kept.
    #[serde(default = "default_keep_hourly")]
    pub keep_hourly: u32,
    /// The newest full backup of each of so many days is kept, and with it every moment since the oldest of them.
    #[serde(default = "default_keep_daily")]
    pub keep_daily: u32,
    /// The newest full backup of each of so many weeks is kept.
    #[serde(default = "default_keep_weekly")]
    pub keep_weekly: u32,
    /// Objective: no more than this may be lost. An older newest restore point is reported.
    #[serde(default = "default_rpo")]
    pub rpo: Span,
    /// Objective: a restore takes no longer than this. A slower drill is reported.
    #[serde(default = "default_rto")]
    pub rto: Span,
    /// A full backup is late when the newest one is older than this.
    #[serde(default = "default_full_every")]
    pub full_every: Span,
    /// A drill is overdue after this long.
    #[serde(default = "default_drill_every")]
    pub drill_every: Span,
    /// When its crontab lines run.
    #[serde(default)]
    pub schedule: BackupSchedule,
    /// After each full physical backup, and after `oa-backup verify --read-data`, a private server recovers the newest one to the end of
    /// its WAL.
    #[serde(default = "default_verify_recovery")]
    pub verify_recovery: bool,
    /// The secondary repository.
    pub copy: Option<BackupCopy>,
}

/// `[backup.schedule]`: five-field cron expressions in the configuration's zone, as in the crontab that starts them. What has one and does
/// not start is reported at once, not only when it is too old.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackupSchedule {
    /// `oa-backup full`.
    pub full: Option<String>,
    /// `oa-backup incremental`.
    pub incremental: Option<String>,
    /// `oa-backup verify`.
    pub verify: Option<String>,
    /// `oa-restore drill`.
    pub drill: Option<String>,
}

impl BackupSchedule {
    /// What `oa-backup` does by it.
    #[must_use]
    pub fn backups(&self) -> Vec<Scheduled> {
        let all = [
            ("backup-full", "全量备份", &self.full),
            ("backup-incremental", "增量备份", &self.incremental),
            ("backup-verify", "备份校验", &self.verify),
        ];
        let scheduled = |(task, title, at): (_, _, &Option<String>)| {
            Some(Scheduled::program(task, title, at.as_ref()?))
        };
        all.into_iter().filter_map(scheduled).collect()
    }

    /// What `oa-restore` does by it.
    #[must_use]
    pub fn drills(&self) -> Vec<Scheduled> {
        let drill = |at: &String| Scheduled::program("restore-drill", "恢复演练", at);
        self.drill.iter().map(drill).collect()
    }

    pub(super) fn check(&self) -> Result<(), String> {
        for (key, at) in [
            ("full", &self.full),
            ("incremental", &self.incremental),
            ("verify", &self.verify),
            ("drill", &self.drill),
        ] {
            if let Some(at) = at {
                Schedule::parse(at, chrono_tz::UTC)
                    .map_err(|e| format!("{key} in [backup.schedule]: {e}"))?;
            }
        }
        Ok(())
    }
}

impl Backup {
    /// Relative paths start at the configuration's folder.
    pub(super) fn within(mut self, folder: &Path) -> Self {
        let within = |p: PathBuf| if p.is_absolute() { p } else { folder.join(p) };
        let place = |r: String| {
            if r.contains("://") {
                r
            } else {
                // The same folder has the same name in the records, wherever a program is started.
                let path = within(PathBuf::from(r));
                let path = std::path::absolute(&path).unwrap_or(path);
                path.to_string_lossy().into_owned()
            }
        };
        self.repository = place(self.repository);
        self.staging = self.staging.map(within);
        self.paths = self.paths.into_iter().map(within).collect();
        if let Some(copy) = &mut self.copy {
            copy.repository = place(std::mem::take(&mut copy.repository));
        }
        self
    }

    /// The repository as it is named in the records, without secrets.
    #[must_use]
    pub fn repository_name(&self) -> String {
        redact(&self.repository)
    }

    /// Every place on this machine.
    pub(super) fn paths_in_use(&self) -> impl Iterator<Item = &Path> {
        let copy = self.copy.as_ref().map(|c| Path::new(&c.repository));
        let more = [self.staging.as_deref(), self.bin_dir.as_deref(), copy];
        std::iter::once(Path::new(&self.repository))
            .chain(more.into_iter().flatten())
            .chain(self.paths.iter().map(PathBuf::as_path))
    }

    /// Every reference to a secret.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &SecretRef> {
        let copy = self.copy.as_ref();
        let s3 = self.s3.iter().chain(copy.and_then(|c| c.s3.as_ref()));
        let keys = s3.flat_map(|s| [&s.access_key, &s.secret_key]);
        std::iter::once(&self.password)
            .chain(self.database_url.as_ref())
            .chain(copy.and_then(|c| c.password.as_ref()))
            .chain(keys)
    }
}

/// `[backup.copy]`: a second repository, for `oa-backup copy`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupCopy {
    /// Where it is: a folder on another disk or machine, or `s3://BUCKET/PREFIX`.
    pub repository: String,
    /// Its key. Default: the first repository's.
    pub password: Option<SecretRef>,
    /// Access to S3-compatible storage.
    pub s3: Option<S3>,
    /// This machine's key cannot delete there, so that whoever takes this machine over cannot either: nothing here tries to.
    #[serde(default)]
    pub append_only: bool,
}

/// `[backup.s3]` and `[backup.copy.s3]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// The service's address, for example `https://oss-cn-shanghai.aliyuncs.com`.
    pub endpoint: String,
    /// Its region.
    pub region: String,
    /// Access key id.
    pub access_key: SecretRef,
    /// Secret access key.
    pub secret_key: SecretRef,
    /// The bucket stands in the path instead of the host name, as MinIO wants it.
    #[serde(default)]
    pub path_style: bool,
}

/// See [`Backup::kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupKind {
    /// Physical where the role may replicate, else logical.
    #[default]
    Auto,
    /// Base backup and WAL.
    Physical,
    /// Dump.
    Logical,
}

fn default_jobs() -> u32 {
    2
}
fn default_retries() -> u32 {
    3
}
fn default_retry_delay() -> Span {
    Span::seconds(60)
}
fn default_keep_hourly() -> u32 {
    24
}
fn default_keep_daily() -> u32 {
    30
}
fn default_keep_weekly() -> u32 {
    12
}
fn default_rpo() -> Span {
    Span::seconds(2 * 3600)
}
fn default_rto() -> Span {
    Span::seconds(3600)
}
fn default_full_every() -> Span {
    Span::seconds(26 * 3600)
}
fn default_drill_every() -> Span {
    Span::seconds(35 * 24 * 3600)
}
fn default_verify_recovery() -> bool {
    true
}
