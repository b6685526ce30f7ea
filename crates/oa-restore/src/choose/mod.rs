//! Which backups and which log lead to a moment, or why none do. Whatever is missing is found here, before anything is restored.

mod named;
pub mod wal;

use std::path::{Path as FilePath, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use oa_backup::capture::programs::Programs;
use oa_backup::repository::{Backup, Kind, Level, Lsn, Reader};
use oa_core::config::{Backup as Settings, BackupKind};

use self::wal::{Path, Segments};
use crate::RestoreError;
use crate::target::Target;

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
    /// At a named point.
    Name(String),
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
    /// Bytes that are written: the cluster and its log.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.full.meta.stored.size_bytes + self.wal.len() as u64 * self.segment_bytes
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
        at.with_timezone(&self.zone)
            .format("%Y-%m-%d %H:%M:%S %Z")
            .to_string()
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
            (Some(Err(e)), _) => match self.logical(target) {
                Ok(mut choice) => {
                    // Without any physical backup there is nothing to explain.
                    if self.backups.iter().any(|b| b.meta.kind == Kind::Physical) {
                        choice.notes.insert(0, format!("no physical restore: {e}"));
                    }
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
        let all = self.backups.iter().filter(|b| fits(b.meta.kind));
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
        *target == Target::Latest
            && self.backups.iter().any(|b| {
                b.meta.kind == Kind::Logical && b.meta.restorable_to - physical.moment > much
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
            (Kind::Physical, Level::Incremental) => {
                self.best_full(&target, backup, &End::Log, |_| true)
            }
        }
    }

    /// The server's numbers, that of the newest backup first.
    fn systems(&self) -> Vec<&str> {
        let mut systems: Vec<&str> = Vec::new();
        for backup in self.backups.iter().rev() {
            let id = backup.meta.system_id.as_str();
            if backup.meta.kind == Kind::Physical && !systems.contains(&id) {
                systems.push(id);
            }
        }
        systems
    }

    fn physical(&self, target: &Target) -> Result<Choice, RestoreError> {
        let mut first = None;
        let systems = self.systems();
        for system in &systems {
            match self.physical_of(target, system) {
                Ok(mut choice) => {
                    if first.is_some() {
                        choice.notes.push(format!(
                            "this is another cluster than the newest one in the repository (system {system}): it was the one that ran then"
                        ));
                    }
                    return Ok(choice);
                }
                Err(e) => first = first.or(Some(e)),
            }
        }
        Err(first.unwrap_or_else(|| {
            RestoreError::NoWay("there is no physical backup in the repository".to_owned())
        }))
    }

    fn physical_of(&self, target: &Target, system: &str) -> Result<Choice, RestoreError> {
        let mine = |level: Level| {
            self.backups.iter().filter(move |b| {
                b.meta.kind == Kind::Physical && b.meta.level == level && b.meta.system_id == system
            })
        };
        let earliest = || {
            let first = mine(Level::Full).map(|b| b.meta.restorable_to).min();
            first.map_or_else(
                || "there is no full physical backup".to_owned(),
                |at| {
                    format!(
                        "the earliest moment that can be restored is {}",
                        self.shown(at)
                    )
                },
            )
        };
        match target {
            Target::Latest => {
                let log = mine(Level::Incremental).max_by_key(|b| b.meta.restorable_to);
                let full = mine(Level::Full).max_by_key(|b| b.meta.restorable_to);
                match (log, full) {
                    (Some(log), full)
                        if full.is_none_or(|f| f.meta.restorable_to <= log.meta.restorable_to) =>
                    {
                        self.best_full(target, log, &End::Log, |_| true)
                    }
                    (_, Some(full)) => self.full_alone(target, full),
                    (_, None) => Err(RestoreError::NoWay(earliest())),
                }
            }
            Target::Time(at) => {
                let mut logs: Vec<&Backup> = mine(Level::Incremental)
                    .filter(|b| b.meta.restorable_to >= *at)
                    .collect();
                logs.sort_by_key(|b| b.meta.restorable_to);
                if logs.is_empty() {
                    return Err(RestoreError::NoWay(format!(
                        "the log is backed up to {} only",
                        mine(Level::Incremental)
                            .map(|b| b.meta.restorable_to)
                            .max()
                            .map_or_else(|| "nowhere".to_owned(), |at| self.shown(at))
                    )));
                }
                self.first_of(&logs, |log| {
                    self.best_full(target, log, &End::Time(*at), |full| {
                        full.meta.restorable_to <= *at
                    })
                })
                .unwrap_or_else(|| {
                    Err(RestoreError::NoWay(format!(
                        "no full backup is older than {}; {}",
                        self.shown(*at),
                        earliest()
                    )))
                })
            }
            Target::Lsn(place) => self.to_place(target, system, *place, &End::Lsn(*place)),
            Target::Name(name) => {
                let place = named::find(self, system, name)?;
                self.to_place(target, system, place, &End::Name(name.clone()))
            }
            Target::Backup(id) => self.of_backup(id),
        }
    }

    /// The newest timeline that has the place, and on it the log that came to it first.
    fn to_place(
        &self,
        target: &Target,
        system: &str,
        place: Lsn,
        end: &End,
    ) -> Result<Choice, RestoreError> {
        let mut logs: Vec<&Backup> = self
            .backups
            .iter()
            .filter(|b| {
                b.meta.system_id == system && b.meta.wal.as_ref().is_some_and(|w| w.to >= place)
            })
            .collect();
        logs.sort_by_key(|b| (std::cmp::Reverse(b.meta.timeline), b.meta.restorable_to));
        if logs.is_empty() {
            return Err(RestoreError::NoWay(format!(
                "the log in the repository does not come as far as {place}"
            )));
        }
        self.first_of(&logs, |log| {
            self.best_full(target, log, end, |full| {
                full.meta.end_lsn.is_some_and(|e| e <= place)
            })
        })
        .unwrap_or_else(|| {
            Err(RestoreError::NoWay(format!(
                "no full backup ended before {place}"
            )))
        })
    }

    /// The first log with which it works. `None` when none of them had a full backup before it; else the first reason.
    fn first_of(
        &self,
        logs: &[&Backup],
        attempt: impl Fn(&Backup) -> Result<Choice, RestoreError>,
    ) -> Option<Result<Choice, RestoreError>> {
        let mut reason = None;
        for log in logs {
            match attempt(log) {
                Ok(choice) => return Some(Ok(choice)),
                Err(RestoreError::NoWay(text)) if text.is_empty() => {}
                Err(e) => reason = reason.or(Some(e)),
            }
        }
        reason.map(Err)
    }

    fn full_alone(&self, target: &Target, full: &Backup) -> Result<Choice, RestoreError> {
        Ok(Choice {
            target: target.clone(),
            moment: full.meta.restorable_to,
            behind: None,
            notes: Vec::new(),
            way: Way::Physical(Box::new(Physical {
                programs: self.programs(full)?,
                full: full.clone(),
                sources: Vec::new(),
                wal: Vec::new(),
                segment_bytes: 0,
                end: End::Consistent,
                reaches: full.meta.end_lsn.unwrap_or(Lsn(0)),
                timeline: None,
            })),
        })
    }

    /// The newest full backup from which the log leads to the end of `log` without a gap.
    fn best_full(
        &self,
        target: &Target,
        log: &Backup,
        end: &End,
        fits: impl Fn(&Backup) -> bool,
    ) -> Result<Choice, RestoreError> {
        let fulls = self.backups.iter().rev().filter(|b| {
            b.meta.kind == Kind::Physical
                && b.meta.level == Level::Full
                && b.meta.system_id == log.meta.system_id
                && fits(b)
        });
        let mut reason = None;
        for full in fulls {
            match self.with(target, log, full, end) {
                Ok(choice) => return Ok(choice),
                Err(e @ RestoreError::Programs(_)) => return Err(e),
                Err(e) => reason = reason.or(Some(e)),
            }
        }
        // An empty text: there was nothing to try.
        Err(reason.unwrap_or_else(|| RestoreError::NoWay(String::new())))
    }

    fn with(
        &self,
        target: &Target,
        log: &Backup,
        full: &Backup,
        end: &End,
    ) -> Result<Choice, RestoreError> {
        let (Some(wal), Some(start), Some(full_end)) =
            (&log.meta.wal, full.meta.start_lsn, full.meta.end_lsn)
        else {
            return Err(RestoreError::NoWay(format!(
                "backup {} or {} does not say which log it is",
                log.short_id(),
                full.short_id()
            )));
        };
        if full_end > wal.to {
            return Err(RestoreError::NoWay(format!(
                "the log of backup {} ends before full backup {}",
                log.short_id(),
                full.short_id()
            )));
        }
        let files = self.names(log)?;
        let path = self.path(log, &files, wal.segment_bytes, full)?;
        if !path.holds(full.meta.timeline, full_end) {
            return Err(RestoreError::NoWay(format!(
                "full backup {} is on timeline {}, which had ended before it where timeline {} came from",
                full.short_id(),
                full.meta.timeline,
                path.timeline()
            )));
        }
        let mut segments = Segments::new(wal.segment_bytes);
        segments.add_full(full.meta.timeline, start, full_end);
        segments.add(0, wal.to, files.iter().map(String::as_str));
        let mut sources = vec![log.clone()];
        // Usually this one backup has everything; others are asked only for what it has not.
        let others = self.backups.iter().rev().filter(|b| {
            b.id != log.id
                && b.meta.system_id == log.meta.system_id
                && b.meta.wal.as_ref().is_some_and(|w| w.to > start)
        });
        let mut missing = segments.along(&path, start, wal.to);
        for other in others {
            if missing.is_ok() {
                break;
            }
            let Some(range) = &other.meta.wal else {
                continue;
            };
            segments.add(
                sources.len(),
                range.to,
                self.names(other)?.iter().map(String::as_str),
            );
            sources.push(other.clone());
            missing = segments.along(&path, start, wal.to);
        }
        let found = missing.map_err(|name| {
            RestoreError::NoWay(format!(
                "the log has a gap: segment {name} is missing between full backup {} and {}",
                full.short_id(),
                self.shown(log.meta.restorable_to)
            ))
        })?;
        let mut wal_files: Vec<WalFile> = found
            .into_iter()
            .filter_map(|f| {
                Some(WalFile {
                    source: f.source?,
                    stored: f.segment.file(),
                    name: f.segment.name,
                })
            })
            .collect();
        for timeline in path.timelines() {
            let name = history_name(timeline);
            if files.contains(&name) {
                wal_files.push(WalFile {
                    source: 0,
                    stored: name.clone(),
                    name,
                });
            }
        }
        // A mark was taken right before the log was received: what is before it must be there for certain.
        let marked = log.meta.mark.as_ref().map(|m| m.lsn);
        let last_segment = Lsn((wal.to.0 - 1) / wal.segment_bytes * wal.segment_bytes);
        let moment = match end {
            End::Time(at) => *at,
            _ => log.meta.restorable_to,
        };
        Ok(Choice {
            target: target.clone(),
            moment,
            behind: None,
            notes: Vec::new(),
            way: Way::Physical(Box::new(Physical {
                programs: self.programs(full)?,
                full: full.clone(),
                sources,
                wal: wal_files,
                segment_bytes: wal.segment_bytes,
                end: end.clone(),
                reaches: full_end.max(last_segment).max(marked.unwrap_or(Lsn(0))),
                timeline: (path.timeline() != full.meta.timeline).then(|| path.timeline()),
            })),
        })
    }

    fn names(&self, backup: &Backup) -> Result<Vec<String>, RestoreError> {
        let files = self.reader.files(backup, FilePath::new(""))?;
        Ok(files
            .iter()
            .filter_map(|f| f.path.file_name())
            .map(|n| n.to_string_lossy().into_owned())
            .collect())
    }

    /// The timelines that lead to the end of a log. What the server said of itself right after a promotion may be too old: the
    /// segments tell.
    fn path(
        &self,
        log: &Backup,
        files: &[String],
        segment_bytes: u64,
        full: &Backup,
    ) -> Result<Path, RestoreError> {
        let last = files
            .iter()
            .filter_map(|f| oa_backup::capture::wal::Segment::parse(f, segment_bytes))
            .max_by_key(|s| (s.start, s.timeline));
        let timeline = last.map_or(log.meta.timeline, |s| s.timeline);
        if timeline == full.meta.timeline {
            return Ok(Path::only(timeline));
        }
        let name = history_name(timeline);
        if !files.contains(&name) {
            return Err(RestoreError::NoWay(format!(
                "backup {} is on timeline {timeline} and does not have its history, {name}",
                log.short_id()
            )));
        }
        let text = self.reader.read(log, FilePath::new(&name))?;
        Path::parse(timeline, &String::from_utf8_lossy(&text))
            .map_err(|e| RestoreError::NoWay(format!("{name} in backup {}: {e}", log.short_id())))
    }

    /// Only the same major version can run what was copied.
    fn programs(&self, full: &Backup) -> Result<PathBuf, RestoreError> {
        let major = full.meta.server_version / 10_000;
        let folder = Programs::find(self.settings.bin_dir.as_deref(), major)
            .ok()
            .filter(|f| f.join("postgres").is_file());
        folder.ok_or_else(|| {
            RestoreError::Programs(format!(
                "full backup {} is of PostgreSQL {major}, and only that version can run it; its server programs are not found: apt-get install postgresql-{major}, or set bin_dir in [backup]. A dump can go into any newer version",
                full.short_id()
            ))
        })
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
        let dumps = || self.backups.iter().filter(|b| b.meta.kind == Kind::Logical);
        let known = self
            .database
            .filter(|name| dumps().any(|b| b.meta.database == *name));
        let mine = |b: &&Backup| known.is_none_or(|name| b.meta.database == name);
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

fn history_name(timeline: u32) -> String {
    format!("{timeline:08X}.history")
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
