//! The physical way: the newest full backup before the moment from which the log leads there without a gap.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path as FilePath, PathBuf};

use chrono::Utc;
use oa_repository::MAX_CLOCK_SKEW as CLOCKS_DIFFER;
use oa_repository::Programs;
use oa_repository::layout::DATA;
use oa_repository::timeline::{self, TimelinePath, history_name, timeline_of};
use oa_repository::{Backup, Kind, Level, Lsn};

use super::wal::Segments;
use super::{Choice, Chooser, End, Physical, WalFile, Way, named};
use crate::RestoreError;
use crate::target::Target;

impl Chooser<'_> {
    pub(super) fn physical(&self, target: &Target) -> Result<Choice, RestoreError> {
        let mut first = None;
        let has_one = |system: &&&str| {
            let mut all = self.backups.iter();
            all.any(|b| b.meta.kind == Kind::Physical && b.meta.system_id == **system)
        };
        for system in self.systems.iter().filter(has_one) {
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
                // What a wrong clock has dated into the future comes after everything else.
                let now = Utc::now() + CLOCKS_DIFFER;
                let newest = |b: &&Backup| (b.meta.restorable_to <= now, b.meta.restorable_to);
                let log = mine(Level::Incremental).max_by_key(newest);
                let full = mine(Level::Full).max_by_key(newest);
                match (log, full) {
                    (Some(log), full) if full.is_none_or(|f| newest(&f) <= newest(&log)) => {
                        self.any_full(target, log)
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
            Target::Lsn(place) => self.to_place(target, system, *place, None),
            Target::Name(name) => {
                // By its place: PostgreSQL itself would stop at the first point of that name.
                let point = named::find(self, system, name)?;
                self.to_place(target, system, point.place, Some(point.timeline))
            }
            Target::Backup(id) => self.of_backup(id),
        }
    }

    /// The newest timeline that has the place, or `on` which it is, and on it the log that came to it first.
    fn to_place(
        &self,
        target: &Target,
        system: &str,
        place: Lsn,
        on: Option<u32>,
    ) -> Result<Choice, RestoreError> {
        let mut logs: Vec<&Backup> = self
            .backups
            .iter()
            .filter(|b| {
                b.meta.system_id == system && b.meta.wal.as_ref().is_some_and(|w| w.to >= place)
            })
            .collect();
        logs.sort_by_key(|b| (Reverse(b.meta.timeline), b.meta.restorable_to));
        if logs.is_empty() {
            return Err(RestoreError::NoWay(format!(
                "the log in the repository does not come as far as {place}"
            )));
        }
        self.first_of(&logs, |log| {
            if let Some(on) = on
                && !self.path_of(log)?.holds(on, place)
            {
                return Err(RestoreError::NoWay(format!(
                    "{place} is on timeline {on}, and backup {} is not",
                    log.short_id()
                )));
            }
            self.best_full(target, log, &End::Lsn(place), |full| {
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

    pub(super) fn full_alone(
        &self,
        target: &Target,
        full: &Backup,
    ) -> Result<Choice, RestoreError> {
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

    /// To the end of `log` from whichever full backup leads there.
    pub(super) fn any_full(&self, target: &Target, log: &Backup) -> Result<Choice, RestoreError> {
        self.best_full(target, log, &End::Log, |_| true).map_err(|e| match e {
            RestoreError::NoWay(text) if text.is_empty() => {
                let full = log.meta.full.as_deref().unwrap_or_default();
                RestoreError::NoWay(format!(
                    "backup {} cannot be restored: its full backup {} is gone, and there is no other one of this cluster in the repository; see oa-backup verify",
                    log.short_id(),
                    full.get(..8).unwrap_or(full)
                ))
            }
            other => other,
        })
    }

    /// The newest full backup from which the log leads to the end of `log` without a gap.
    pub(super) fn best_full(
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

    pub(super) fn names(&self, backup: &Backup) -> Result<Vec<String>, RestoreError> {
        Ok(timeline::names(self.reader, backup)?)
    }

    /// The timelines that lead to the end of a log.
    fn path(
        &self,
        log: &Backup,
        files: &[String],
        segment_bytes: u64,
        full: &Backup,
    ) -> Result<TimelinePath, RestoreError> {
        let timeline = timeline_of(&log.meta, files, segment_bytes);
        if timeline == full.meta.timeline {
            return Ok(TimelinePath::only(timeline));
        }
        let name = history_name(timeline);
        if !files.contains(&name) {
            return Err(RestoreError::NoWay(format!(
                "backup {} is on timeline {timeline} and does not have its history, {name}",
                log.short_id()
            )));
        }
        self.history(log, timeline)
    }

    /// The same, as far as the log itself knows.
    fn path_of(&self, log: &Backup) -> Result<TimelinePath, RestoreError> {
        let files = self.names(log)?;
        let segment_bytes = log.meta.wal.as_ref().map_or(1, |w| w.segment_bytes);
        let timeline = timeline_of(&log.meta, &files, segment_bytes);
        if files.contains(&history_name(timeline)) {
            self.history(log, timeline)
        } else {
            Ok(TimelinePath::only(timeline))
        }
    }

    fn history(&self, log: &Backup, timeline: u32) -> Result<TimelinePath, RestoreError> {
        let name = history_name(timeline);
        let text = self.reader.read(log, FilePath::new(&name))?;
        TimelinePath::parse(timeline, &String::from_utf8_lossy(&text))
            .map_err(|e| RestoreError::NoWay(format!("{name} in backup {}: {e}", log.short_id())))
    }

    /// The histories of all timelines of a cluster that the repository knows, by file name. PostgreSQL gives a new timeline the first
    /// number without one: where they are absent it would use a number again that others have used already.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn histories(&self, system: &str) -> Result<BTreeMap<String, Vec<u8>>, RestoreError> {
        let mut histories = BTreeMap::new();
        // The newest log of a timeline since a full backup has all that the older ones have.
        let mut seen = HashSet::new();
        for backup in self.backups.iter().rev() {
            let meta = &backup.meta;
            if meta.kind != Kind::Physical
                || meta.system_id != system
                || !seen.insert((meta.level == Level::Full, meta.timeline, meta.full.as_ref()))
            {
                continue;
            }
            let folder = match meta.level {
                Level::Full => FilePath::new(DATA).join("pg_wal"),
                Level::Incremental => PathBuf::new(),
            };
            for file in self.reader.files(backup, &folder)? {
                let name = file.path.to_string_lossy().into_owned();
                if name.ends_with(".history") && !histories.contains_key(&name) {
                    let text = self.reader.read(backup, &folder.join(&name))?;
                    histories.insert(name, text);
                }
            }
        }
        Ok(histories)
    }

    /// The way from this full backup to a place, by the first log that leads there from it; `None` when none does.
    ///
    /// # Errors
    /// When the programs are not there.
    pub fn from_full(
        &self,
        target: &Target,
        full: &Backup,
        place: Lsn,
    ) -> Result<Option<Choice>, RestoreError> {
        let mut logs: Vec<&Backup> = self
            .backups
            .iter()
            .filter(|b| {
                b.meta.system_id == full.meta.system_id
                    && b.meta.wal.as_ref().is_some_and(|w| w.to >= place)
            })
            .collect();
        logs.sort_by_key(|b| b.meta.restorable_to);
        for log in logs {
            match self.with(target, log, full, &End::Lsn(place)) {
                Ok(choice) => return Ok(Some(choice)),
                Err(RestoreError::NoWay(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// Only the same major version can run what was copied.
    pub(super) fn programs(&self, full: &Backup) -> Result<PathBuf, RestoreError> {
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
}
