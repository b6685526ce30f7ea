//! Which backups and which log lead to a moment, or why none do. Whatever is missing is found here, before anything is restored.

mod named;
mod physical;
pub mod wal;

use std::path::{Path as FilePath, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use oa_core::config::{Backup as Settings, BackupKind};
use oa_repository::Programs;
use oa_repository::{Backup, Kind, Level, Lsn, Reader};

use crate::RestoreError;
use crate::live::Live;
use crate::target::{Target, shown};

/// Where a recovery ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With the log.
    Log,
    /// As soon as the full backup is consistent.
    Consistent,
    /// With what was committed at this time or before.
    Time(DateTime<Utc>),
    /// Before this place.
    Lsn(Lsn),
}

/// One file of the log to fetch.
#[derive(Debug, Clone)]
pub struct WalFile {
    /// Index into [`Physical::sources`].
    pub source: usize,
    /// Its name there.
    pub stored: String,
    /// Its name in `pg_wal`.
    pub name: String,
}

/// A full physical backup, and the log from it to the moment.
#[derive(Debug, Clone)]
pub struct Physical {
    /// Where it begins.
    pub full: Backup,
    /// The backups that the log is taken from.
    pub sources: Vec<Backup>,
    /// The log.
    pub wal: Vec<WalFile>,
    /// Size of a segment, in bytes.
    pub segment_bytes: u64,
    /// Where it ends.
    pub end: End,
    /// At least so far it must come.
    pub reaches: Lsn,
    /// The timeline to follow; `None`: the full backup's own.
    pub timeline: Option<u32>,
    /// The folder with the programs of its version.
    pub programs: PathBuf,
}

impl Physical {
    /// Bytes that are written: the cluster, its log, and what replaying that adds to the cluster.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.full.meta.stored.size_bytes + 2 * self.wal.len() as u64 * self.segment_bytes
    }
}

/// A dump.
#[derive(Debug, Clone)]
pub struct Logical {
    /// The dump.
    pub backup: Backup,
    /// The folder with programs that can read it.
    pub programs: PathBuf,
}

/// How a moment is reached.
#[derive(Debug, Clone)]
pub enum Way {
    /// Exactly.
    Physical(Box<Physical>),
    /// As far as there was a dump.
    Logical(Box<Logical>),
}

/// What was chosen.
#[derive(Debug, Clone)]
pub struct Choice {
    /// What was asked for.
    pub target: Target,
    /// How it is reached.
    pub way: Way,
    /// The moment that is restored (UTC); for a place in the log or a named point no later than this.
    pub moment: DateTime<Utc>,
    /// How much earlier that is than what was asked for.
    pub behind: Option<TimeDelta>,
    /// What an operator should know.
    pub notes: Vec<String>,
}

impl Choice {
    /// The backup that everything begins with.
    #[must_use]
    pub fn backup(&self) -> &Backup {
        match &self.way {
            Way::Physical(p) => &p.full,
            Way::Logical(l) => &l.backup,
        }
    }

    /// The database that is meant: a dump holds one; of a cluster it is the one that is connected to, or, where the live server is
    /// another cluster, the one that was marked.
    #[must_use]
    pub fn database_for(&self, live: &Live) -> String {
        let meta = &self.backup().meta;
        match &self.way {
            Way::Physical(_)
                if live
                    .system_id
                    .as_ref()
                    .is_none_or(|id| *id == meta.system_id) =>
            {
                live.database.clone()
            }
            _ => meta.database.clone(),
        }
    }

    /// Where the programs are.
    #[must_use]
    pub fn programs(&self) -> &FilePath {
        match &self.way {
            Way::Physical(p) => &p.programs,
            Way::Logical(l) => &l.programs,
        }
    }

    /// Bytes that are written for it.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        match &self.way {
            Way::Physical(p) => p.size_bytes(),
            // A database takes more room than its dump: indexes.
            Way::Logical(l) => l.backup.meta.stored.size_bytes * 3,
        }
    }
}

/// What is chosen from.
#[derive(Debug)]
pub struct Chooser<'a> {
    /// Oldest first.
    pub backups: &'a [Backup],
    /// The clusters whose backups may be taken, the newest first. A backup that is named is taken whosever it is.
    pub systems: &'a [&'a str],
    /// The open repository.
    pub reader: &'a Reader,
    /// `[backup]`
    pub settings: &'a Settings,
    /// The database of the connection, where it is known.
    pub database: Option<&'a str>,
    /// For texts.
    pub zone: Tz,
    /// A folder for what must be looked at.
    pub scratch: &'a FilePath,
}

impl Chooser<'_> {
    fn shown(&self, at: DateTime<Utc>) -> String {
        shown(at, self.zone)
    }

    /// The backups that may be taken.
    fn mine(&self) -> impl DoubleEndedIterator<Item = &Backup> {
        self.backups
            .iter()
            .filter(|b| self.systems.contains(&b.meta.system_id.as_str()))
    }

    /// Finds the way to a moment.
    ///
    /// # Errors
    /// When there is none: what the earliest or newest moment is, which segment is missing, which programs are.
    pub fn choose(&self, target: &Target, kind: BackupKind) -> Result<Choice, RestoreError> {
        if let Target::Backup(id) = target {
            return self.of_backup(id);
        }
        let newest = self.newest(kind)?;
        if let Target::Time(at) = target
            && *at > newest
        {
            return Err(RestoreError::NoWay(format!(
                "{} is later than anything in the repository: the newest moment is {}. Restore to that with --to latest, or make a backup first if the server still runs: oa-backup incremental",
                self.shown(*at),
                self.shown(newest)
            )));
        }
        let physical = match kind {
            BackupKind::Logical => None,
            _ => Some(self.physical(target)),
        };
        match (physical, kind) {
            (Some(Ok(choice)), _) if !self.dump_is_much_newer(target, &choice) => Ok(choice),
            (Some(Ok(choice)), BackupKind::Physical) => Ok(choice),
            (Some(Err(e)), BackupKind::Physical) => Err(e),
            (Some(Ok(choice)), _) => Ok(self.logical(target).unwrap_or(choice)),
            // Without any physical backup there is nothing to explain.
            (Some(Err(_)), _) if !self.mine().any(|b| b.meta.kind == Kind::Physical) => {
                self.logical(target)
            }
            (Some(Err(e)), _) => match self.logical(target) {
                Ok(mut choice) => {
                    choice.notes.insert(0, format!("no physical restore: {e}"));
                    Ok(choice)
                }
                Err(_) => Err(e),
            },
            (None, _) => self.logical(target),
        }
    }

    /// The newest moment of any backup of that kind.
    fn newest(&self, kind: BackupKind) -> Result<DateTime<Utc>, RestoreError> {
        let fits = |k: Kind| match kind {
            BackupKind::Auto => k != Kind::Files,
            BackupKind::Physical => k == Kind::Physical,
            BackupKind::Logical => k == Kind::Logical,
        };
        let all = self.mine().filter(|b| fits(b.meta.kind));
        all.map(|b| b.meta.restorable_to).max().ok_or_else(|| {
            RestoreError::NoWay(
                match kind {
                    BackupKind::Physical => "there is no physical backup in the repository; a dump is restored with oa-restore database or oa-restore table",
                    BackupKind::Logical => "there is no dump in the repository; see oa-backup list",
                    BackupKind::Auto => "there is no backup of a database in the repository; make one with oa-backup full",
                }
                .to_owned(),
            )
        })
    }

    /// The latest there is, is a dump: the server has become one that is backed up so. The dump that is made beside physical
    /// backups now and then is no reason to lose all other databases.
    fn dump_is_much_newer(&self, target: &Target, physical: &Choice) -> bool {
        let much = TimeDelta::from_std(self.settings.rpo.0).unwrap_or(TimeDelta::MAX);
        let database = self.database.unwrap_or(&physical.backup().meta.database);
        *target == Target::Latest
            && self.mine().any(|b| {
                b.meta.kind == Kind::Logical
                    && b.meta.database == database
                    && b.meta.restorable_to - physical.moment > much
            })
    }

    fn of_backup(&self, id: &str) -> Result<Choice, RestoreError> {
        let mut found = self.backups.iter().filter(|b| b.id.starts_with(id));
        let backup = match (found.next(), found.next()) {
            (Some(backup), None) => backup,
            (Some(_), Some(_)) => {
                return Err(RestoreError::NoWay(format!(
                    "more than one backup's id begins with {id}; give more of it, see oa-backup list"
                )));
            }
            _ => {
                return Err(RestoreError::NoWay(format!(
                    "there is no backup {id}; see oa-backup list"
                )));
            }
        };
        let target = Target::Backup(backup.id.clone());
        match (backup.meta.kind, backup.meta.level) {
            (Kind::Files, _) => Err(RestoreError::NoWay(format!(
                "backup {} holds files, no database; restore them with oa-restore files",
                backup.short_id()
            ))),
            (Kind::Logical, _) => self.of_dump(&target, backup),
            (Kind::Physical, Level::Full) => self.full_alone(&target, backup),
            (Kind::Physical, Level::Incremental) => self.any_full(&target, backup),
        }
    }

    fn logical(&self, target: &Target) -> Result<Choice, RestoreError> {
        let at = match target {
            Target::Latest => None,
            Target::Time(at) => Some(*at),
            other => {
                return Err(RestoreError::NoWay(format!(
                    "only a physical backup can be restored to {other}"
                )));
            }
        };
        let dumps = || self.mine().filter(|b| b.meta.kind == Kind::Logical);
        let mut names: Vec<&str> = dumps().map(|b| b.meta.database.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let name = match (self.database, names.as_slice()) {
            (_, []) => {
                return Err(RestoreError::NoWay(
                    "there is no dump in the repository".to_owned(),
                ));
            }
            (Some(name), all) if all.contains(&name) => name,
            // A server that was made anew does not have that database yet.
            (_, [only]) => *only,
            (_, all) => {
                return Err(RestoreError::NoWay(format!(
                    "there are dumps of {}, and the address names none of these; name a dump by its id (oa-backup list)",
                    all.join(", ")
                )));
            }
        };
        let mine = |b: &&Backup| b.meta.database == name;
        let found = dumps()
            .filter(mine)
            .filter(|b| at.is_none_or(|at| b.meta.restorable_to <= at))
            .max_by_key(|b| b.meta.restorable_to);
        let Some(dump) = found else {
            let first = dumps().filter(mine).map(|b| b.meta.restorable_to).min();
            return Err(RestoreError::NoWay(match first {
                Some(first) => format!(
                    "there is no dump so old; the earliest is of {}",
                    self.shown(first)
                ),
                None => "there is no dump in the repository".to_owned(),
            }));
        };
        let mut choice = self.of_dump(target, dump)?;
        if let Some(at) = at {
            let behind = at - dump.meta.restorable_to;
            choice.behind = Some(behind);
            choice.notes.push(format!(
                "a dump holds one moment only: this one is {} older than what was asked for",
                humantime::format_duration(std::time::Duration::from_secs(
                    behind.num_seconds().unsigned_abs()
                ))
            ));
        }
        Ok(choice)
    }

    fn of_dump(&self, target: &Target, dump: &Backup) -> Result<Choice, RestoreError> {
        let major = dump.meta.server_version / 10_000;
        // Any newer version can read it.
        let folder = (major..major + 12)
            .find_map(|m| Programs::find(self.settings.bin_dir.as_deref(), m).ok())
            .filter(|f| f.join("initdb").is_file());
        let programs = folder.ok_or_else(|| {
            RestoreError::Programs(format!(
                "the dump is of PostgreSQL {major}, and no server programs of that version or a newer one are found; apt-get install postgresql-{major}, or set bin_dir in [backup]"
            ))
        })?;
        Ok(Choice {
            target: target.clone(),
            moment: dump.meta.restorable_to,
            behind: None,
            notes: Vec::new(),
            way: Way::Logical(Box::new(Logical {
                backup: dump.clone(),
                programs,
            })),
        })
    }
}

/// The files of the operator: the newest backup of them at a moment.
///
/// # Errors
/// When there is none so old.
pub fn files(
    backups: &[Backup],
    target: &Target,
    shown: impl Fn(DateTime<Utc>) -> String,
) -> Result<Backup, RestoreError> {
    let all = || backups.iter().filter(|b| b.meta.kind == Kind::Files);
    let found = match target {
        Target::Latest => all().max_by_key(|b| b.meta.restorable_to),
        Target::Time(at) => all()
            .filter(|b| b.meta.restorable_to <= *at)
            .max_by_key(|b| b.meta.restorable_to),
        Target::Backup(id) => all().find(|b| b.id.starts_with(id)),
        Target::Lsn(_) | Target::Name(_) => {
            return Err(RestoreError::Target(
                "files were backed up at times: give a time, a backup's id, or latest".to_owned(),
            ));
        }
    };
    found.cloned().ok_or_else(|| {
        RestoreError::NoWay(match all().map(|b| b.meta.restorable_to).min() {
            Some(first) => format!(
                "no backup of files is so old, or has that id; the earliest is of {}",
                shown(first)
            ),
            None => {
                "there is no backup of files in the repository; name them with paths in [backup]"
                    .to_owned()
            }
        })
    })
}
