//! Chooses the strategy: physical if it reaches the target, else the newest dump before it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use oa_core::app::config::{Backup as Settings, BackupKind};
use oa_repository::Programs;
use oa_repository::{Backup, Kind, Level, Reader};

use super::target::{Target, shown};
use super::{Logical, RestorePlan, Strategy};
use crate::RestoreError;

#[derive(Debug)]
pub(crate) struct Planner<'a> {
    /// Oldest first.
    pub(crate) backups: &'a [Backup],
    /// The clusters whose backups may be taken, the newest first. A backup that is named is taken whosever it is.
    pub(crate) systems: &'a [&'a str],
    pub(crate) reader: &'a Reader,
    /// The full backup to begin with, by the first digits of its id.
    pub(crate) full: Option<&'a str>,
    /// Those whose verification failed: what leads to the target without them is taken first.
    pub(crate) failed: BTreeSet<String>,
    /// `[backup]`
    pub(crate) settings: &'a Settings,
    /// The database of the connection, where it is known.
    pub(crate) database: Option<&'a str>,
    pub(crate) zone: Tz,
    /// A folder for what must be looked at.
    pub(crate) scratch: &'a Path,
    /// How far full backups lead that do not lead to the target, by id.
    pub(crate) reached: RefCell<BTreeMap<String, String>>,
    /// The names of the files of backups of WAL that were looked at, by id.
    pub(crate) names: RefCell<BTreeMap<String, Rc<[String]>>>,
}

impl Planner<'_> {
    pub(super) fn shown(&self, at: DateTime<Utc>) -> String {
        shown(at, self.zone)
    }

    /// The backups that may be taken.
    fn mine(&self) -> impl DoubleEndedIterator<Item = &Backup> {
        self.backups
            .iter()
            .filter(|b| self.systems.contains(&b.meta.system_id.as_str()))
    }

    /// The plan for a target. The error says what is missing: the earliest or newest point in time, a segment, programs.
    pub(crate) fn plan(
        &self,
        target: &Target,
        kind: BackupKind,
    ) -> Result<RestorePlan, RestoreError> {
        if let Target::Backup(id) = target {
            return self.of_backup(id);
        }
        let newest = self.newest(kind)?;
        if let Target::Time(at) = target
            && *at > newest
        {
            return Err(RestoreError::NoPlan(format!(
                "{} is later than anything in the repository: the newest point in time is {}. Restore to that with --to latest, or make a backup first if the server still runs: oa-backup incremental",
                self.shown(*at),
                self.shown(newest)
            )));
        }
        let physical = match kind {
            BackupKind::Logical => None,
            _ => Some(self.physical(target)),
        };
        match (physical, kind) {
            (Some(Ok(plan)), _) if !self.dump_is_much_newer(target, &plan) => Ok(plan),
            (Some(Ok(plan)), BackupKind::Physical) => Ok(plan),
            (Some(Err(e)), BackupKind::Physical) => Err(e),
            (Some(Ok(plan)), _) => Ok(self.logical(target).unwrap_or(plan)),
            // Without any physical backup there is nothing to explain.
            (Some(Err(_)), _) if !self.mine().any(|b| b.meta.kind == Kind::Physical) => {
                self.logical(target)
            }
            (Some(Err(e)), _) => match self.logical(target) {
                Ok(mut plan) => {
                    plan.notes.insert(0, format!("no physical restore: {e}"));
                    Ok(plan)
                }
                Err(_) => Err(e),
            },
            (None, _) => self.logical(target),
        }
    }

    /// The newest point in time of any backup of that kind.
    fn newest(&self, kind: BackupKind) -> Result<DateTime<Utc>, RestoreError> {
        let fits = |k: Kind| match kind {
            BackupKind::Auto => k != Kind::Files,
            BackupKind::Physical => k == Kind::Physical,
            BackupKind::Logical => k == Kind::Logical,
        };
        let all = self.mine().filter(|b| fits(b.meta.kind));
        all.map(|b| b.meta.restorable_to).max().ok_or_else(|| {
            RestoreError::NoPlan(
                match kind {
                    BackupKind::Physical => "there is no physical backup in the repository; a dump is restored with oa-restore database or oa-restore table",
                    BackupKind::Logical => "there is no dump in the repository; see oa-backup list",
                    BackupKind::Auto => "there is no backup of a database in the repository; make one with oa-backup full",
                }
                .to_owned(),
            )
        })
    }

    /// The newest backup is a dump: the server has become one that is backed up so. The dump that is made beside physical
    /// backups now and then is no reason to lose all other databases.
    fn dump_is_much_newer(&self, target: &Target, physical: &RestorePlan) -> bool {
        let much = TimeDelta::from_std(self.settings.rpo.0).unwrap_or(TimeDelta::MAX);
        let database = self.database.unwrap_or(&physical.backup().meta.database);
        *target == Target::Latest
            && self.mine().any(|b| {
                b.meta.kind == Kind::Logical
                    && b.meta.database == database
                    && b.meta.restorable_to - physical.as_of > much
            })
    }

    pub(super) fn of_backup(&self, id: &str) -> Result<RestorePlan, RestoreError> {
        let mut found = self.backups.iter().filter(|b| b.id.starts_with(id));
        let backup = match (found.next(), found.next()) {
            (Some(backup), None) => backup,
            (Some(_), Some(_)) => {
                return Err(RestoreError::NoPlan(format!(
                    "more than one backup's id begins with {id}; give more of it, see oa-backup list"
                )));
            }
            _ => {
                return Err(RestoreError::NoPlan(format!(
                    "there is no backup {id}; see oa-backup list"
                )));
            }
        };
        let target = Target::Backup(backup.id.clone());
        match (backup.meta.kind, backup.meta.level) {
            (Kind::Files, _) => Err(RestoreError::NoPlan(format!(
                "backup {} holds files, no database; restore them with oa-restore files",
                backup.short_id()
            ))),
            (Kind::Logical, _) => self.of_dump(&target, backup),
            (Kind::Physical, Level::Full) => self.full_alone(&target, backup),
            (Kind::Physical, Level::Incremental) => self.any_full(&target, backup),
        }
    }

    fn logical(&self, target: &Target) -> Result<RestorePlan, RestoreError> {
        let at = match target {
            Target::Latest => None,
            Target::Time(at) => Some(*at),
            other => {
                return Err(RestoreError::NoPlan(format!(
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
                return Err(RestoreError::NoPlan(
                    "there is no dump in the repository".to_owned(),
                ));
            }
            (Some(name), all) if all.contains(&name) => name,
            // A server that was made anew does not have that database yet.
            (_, [only]) => *only,
            (_, all) => {
                return Err(RestoreError::NoPlan(format!(
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
            return Err(RestoreError::NoPlan(match first {
                Some(first) => format!(
                    "there is no dump so old; the earliest is of {}",
                    self.shown(first)
                ),
                None => "there is no dump in the repository".to_owned(),
            }));
        };
        let mut plan = self.of_dump(target, dump)?;
        if let Some(at) = at {
            let behind = at - dump.meta.restorable_to;
            plan.behind = Some(behind);
            plan.notes.push(format!(
                "a dump holds one point in time only: this one is {} older than the target",
                humantime::format_duration(std::time::Duration::from_secs(
                    behind.num_seconds().unsigned_abs()
                ))
            ));
        }
        Ok(plan)
    }

    fn of_dump(&self, target: &Target, dump: &Backup) -> Result<RestorePlan, RestoreError> {
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
        Ok(RestorePlan {
            target: target.clone(),
            as_of: dump.meta.restorable_to,
            behind: None,
            notes: Vec::new(),
            strategy: Strategy::Logical(Box::new(Logical {
                backup: dump.clone(),
                programs,
            })),
        })
    }
}

/// The time now, of which physical backups tell as well: whatever was backed up last was not backed up in the future, so a clock that
/// says so is behind. Before that a wrong clock may have dated anything.
pub(crate) fn clock<'b>(physical: impl Iterator<Item = &'b Backup>) -> DateTime<Utc> {
    let end = |b: &Backup| b.meta.wal.as_ref().map(|w| w.to).or(b.meta.end_lsn);
    let last = physical.max_by_key(|b| (b.meta.timeline, end(b)));
    let now = Utc::now();
    last.map_or(now, |b| now.max(b.meta.restorable_to))
}

/// The newest backup of the operator's files up to a target.
pub(crate) fn files(
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
        RestoreError::NoPlan(match all().map(|b| b.meta.restorable_to).min() {
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
