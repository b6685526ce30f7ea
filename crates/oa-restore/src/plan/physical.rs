//! The physical strategy: the newest full backup before the target from which the WAL leads there without a gap.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use oa_repository::MAX_CLOCK_SKEW;
use oa_repository::Programs;
use oa_repository::layout::DATA;
use oa_repository::timeline::{self, TimelinePath, history_name, timeline_of};
use oa_repository::{Backup, Kind, Level, Lsn};

use super::segments::{LocatedSegment, SegmentIndex};
use super::target::Target;
use super::{Physical, Planner, RestorePlan, StopAt, Strategy, WalFile, clock, restore_point};
use crate::RestoreError;

impl Planner<'_> {
    pub(super) fn physical(&self, target: &Target) -> Result<RestorePlan, RestoreError> {
        let mut first = None;
        let has_one = |system: &&&str| {
            let mut all = self.backups.iter();
            all.any(|b| b.meta.kind == Kind::Physical && b.meta.system_id == **system)
        };
        for system in self.systems.iter().filter(has_one) {
            match self.physical_of(target, system) {
                Ok(mut plan) => {
                    if first.is_some() {
                        plan.notes.push(format!(
                            "this is another cluster than the newest one in the repository (system {system}): it was the one that ran then"
                        ));
                    }
                    return Ok(plan);
                }
                Err(e) => first = first.or(Some(e)),
            }
        }
        Err(first.unwrap_or_else(|| {
            RestoreError::NoPlan("there is no physical backup in the repository".to_owned())
        }))
    }

    fn physical_of(&self, target: &Target, system: &str) -> Result<RestorePlan, RestoreError> {
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
                        "the earliest point in time that can be restored is {}",
                        self.shown(at)
                    )
                },
            )
        };
        match target {
            Target::Latest => {
                // What a wrong clock has dated into the future comes after everything else.
                let all = || mine(Level::Full).chain(mine(Level::Incremental));
                let now = clock(all()) + MAX_CLOCK_SKEW;
                let newest = |b: &&Backup| (b.meta.restorable_to <= now, b.meta.restorable_to);
                let wal_backup = mine(Level::Incremental).max_by_key(newest);
                let whole = |b: &&Backup| (b.meta.restorable_to <= now, !self.is_failed(b));
                let full = mine(Level::Full).filter(|b| self.may_begin(b));
                let full = full.max_by_key(|b| (whole(b), b.meta.restorable_to));
                let mut plan = match (wal_backup, full) {
                    (Some(wal_backup), full)
                        if full.is_none_or(|f| newest(&f) <= newest(&wal_backup)) =>
                    {
                        self.any_full(target, wal_backup)
                    }
                    (_, Some(full)) => self.full_alone(target, full),
                    (_, None) => Err(RestoreError::NoPlan(earliest())),
                }?;
                let left_out = mine(Level::Full)
                    .filter(|b| self.is_failed(b) && b.meta.restorable_to <= now)
                    .max_by_key(|b| b.meta.restorable_to)
                    .filter(|b| self.full.is_none() && b.meta.restorable_to > plan.as_of);
                if let Some(full) = left_out {
                    plan.notes.push(format!(
                        "full backup {} of {} is newer, and is left out because its verification failed (--full {} takes it all the same)",
                        full.short_id(),
                        self.shown(full.meta.restorable_to),
                        full.short_id()
                    ));
                }
                let last = all().map(|b| b.meta.restorable_to).max();
                if let Some(last) = last.filter(|last| *last > now && plan.as_of <= now) {
                    plan.notes.push(format!(
                        "there are backups up to {}, which is in the future, and they were left out: a clock was ahead when they were made, for what was backed up after them is of an earlier time",
                        self.shown(last)
                    ));
                }
                Ok(plan)
            }
            Target::Time(at) => {
                let mut wal_backups: Vec<&Backup> = mine(Level::Incremental)
                    .filter(|b| b.meta.restorable_to >= *at)
                    .collect();
                wal_backups.sort_by_key(|b| b.meta.restorable_to);
                if wal_backups.is_empty() {
                    return Err(RestoreError::NoPlan(format!(
                        "the WAL is backed up to {} only",
                        mine(Level::Incremental)
                            .map(|b| b.meta.restorable_to)
                            .max()
                            .map_or_else(|| "nowhere".to_owned(), |at| self.shown(at))
                    )));
                }
                self.first_of(&wal_backups, |wal_backup| {
                    self.best_full(target, wal_backup, &StopAt::Time(*at), |full| {
                        full.meta.restorable_to <= *at
                    })
                })?
                .ok_or_else(|| {
                    RestoreError::NoPlan(format!(
                        "no full backup is older than {}; {}",
                        self.shown(*at),
                        earliest()
                    ))
                })
            }
            Target::Lsn(lsn) => self.to_lsn(target, system, *lsn, None),
            Target::Name(name) => {
                // By its LSN: PostgreSQL itself would stop at the first point of that name.
                let point = restore_point::find(self, system, name)?;
                self.to_lsn(target, system, point.lsn, Some(point.timeline))
            }
            Target::Backup(id) => self.of_backup(id),
        }
    }

    /// The newest timeline that has the LSN, or `on` which it is, and on it the WAL backup that came to it first.
    fn to_lsn(
        &self,
        target: &Target,
        system: &str,
        lsn: Lsn,
        on: Option<u32>,
    ) -> Result<RestorePlan, RestoreError> {
        let mut wal_backups: Vec<&Backup> = self
            .backups
            .iter()
            .filter(|b| {
                b.meta.system_id == system && b.meta.wal.as_ref().is_some_and(|w| w.to >= lsn)
            })
            .collect();
        wal_backups.sort_by_key(|b| (Reverse(b.meta.timeline), b.meta.restorable_to));
        if wal_backups.is_empty() {
            return Err(RestoreError::NoPlan(format!(
                "the WAL in the repository does not come as far as {lsn}"
            )));
        }
        self.first_of(&wal_backups, |wal_backup| {
            if let Some(on) = on
                && !self.own_path_of(wal_backup)?.holds(on, lsn)
            {
                return Err(RestoreError::NoPlan(format!(
                    "{lsn} is on timeline {on}, and backup {} is not",
                    wal_backup.short_id()
                )));
            }
            self.best_full(target, wal_backup, &StopAt::Lsn(lsn), |full| {
                full.meta.end_lsn.is_some_and(|e| e <= lsn)
            })
        })?
        .ok_or_else(|| RestoreError::NoPlan(format!("no full backup ended before {lsn}")))
    }

    /// The first WAL backup with which it works. `None` when none of them had a full backup before it; else the first reason.
    fn first_of(
        &self,
        wal_backups: &[&Backup],
        attempt: impl Fn(&Backup) -> Result<Option<RestorePlan>, RestoreError>,
    ) -> Result<Option<RestorePlan>, RestoreError> {
        let mut reason = None;
        for wal_backup in wal_backups {
            match attempt(wal_backup) {
                Ok(Some(plan)) => return Ok(Some(plan)),
                Ok(None) => {}
                Err(e) => reason = reason.or(Some(e)),
            }
        }
        reason.map_or(Ok(None), Err)
    }

    pub(super) fn full_alone(
        &self,
        target: &Target,
        full: &Backup,
    ) -> Result<RestorePlan, RestoreError> {
        Ok(RestorePlan {
            target: target.clone(),
            as_of: full.meta.restorable_to,
            behind: None,
            notes: self.note_of_failed(full).into_iter().collect(),
            strategy: Strategy::Physical(Box::new(Physical {
                programs: self.programs(full)?,
                full: full.clone(),
                sources: Vec::new(),
                wal: Vec::new(),
                segment_bytes: 0,
                end: StopAt::Consistent,
                reaches: full.meta.end_lsn.unwrap_or(Lsn(0)),
                timeline: None,
            })),
        })
    }

    /// To the end of `wal_backup` from whichever full backup leads there.
    pub(super) fn any_full(
        &self,
        target: &Target,
        wal_backup: &Backup,
    ) -> Result<RestorePlan, RestoreError> {
        let found = self.best_full(target, wal_backup, &StopAt::EndOfWal, |_| true)?;
        found.ok_or_else(|| {
            let full = wal_backup.meta.full.as_deref();
            RestoreError::NoPlan(format!(
                "backup {} cannot be restored: its full backup{} is gone, and there is no other one of this cluster in the repository; see oa-backup verify",
                wal_backup.short_id(),
                full.map_or_else(String::new, |id| format!(" {}", id.get(..8).unwrap_or(id)))
            ))
        })
    }

    /// The newest full backup from which the WAL leads to the end of `wal_backup` without a gap; `None` when there is no full backup that
    /// `fits`, else the first reason why none leads there.
    pub(super) fn best_full(
        &self,
        target: &Target,
        wal_backup: &Backup,
        end: &StopAt,
        fits: impl Fn(&Backup) -> bool,
    ) -> Result<Option<RestorePlan>, RestoreError> {
        let fulls = self.backups.iter().rev().filter(|b| {
            b.meta.kind == Kind::Physical
                && b.meta.level == Level::Full
                && b.meta.system_id == wal_backup.meta.system_id
                && self.may_begin(b)
                && fits(b)
        });
        let mut fulls: Vec<&Backup> = fulls.collect();
        let newest = fulls.first().copied();
        fulls.sort_by_key(|b| self.is_failed(b));
        let mut reason: Option<(RestoreError, &Backup)> = None;
        for full in fulls {
            match self.join(target, wal_backup, full, end) {
                Ok(mut plan) => {
                    plan.notes.extend(self.note_of_failed(full));
                    if let Some(newest) =
                        newest.filter(|b| self.is_failed(b) && !self.is_failed(full))
                    {
                        plan.notes.push(format!(
                            "full backup {} is left out, because its verification failed; from {} it takes longer (--full {} takes it all the same)",
                            newest.short_id(),
                            full.short_id(),
                            newest.short_id()
                        ));
                    }
                    return Ok(Some(plan));
                }
                Err(e @ RestoreError::Programs(_)) => return Err(e),
                Err(e) => reason = reason.or(Some((e, full))),
            }
        }
        match reason {
            Some((RestoreError::NoPlan(why), full)) => {
                Err(RestoreError::NoPlan(why + &self.reach_of(full)))
            }
            Some((e, _)) => Err(e),
            None => Ok(None),
        }
    }

    fn may_begin(&self, full: &Backup) -> bool {
        self.full.is_none_or(|id| full.id.starts_with(id))
    }

    fn is_failed(&self, backup: &Backup) -> bool {
        self.failed.contains(&backup.id)
    }

    /// Where nothing whole leads to the target, or it was asked for.
    fn note_of_failed(&self, full: &Backup) -> Option<String> {
        self.is_failed(full).then(|| {
            format!(
                "the verification of full backup {} failed: what is damaged in it cannot be restored from it (oa-backup verify)",
                full.short_id()
            )
        })
    }

    fn join(
        &self,
        target: &Target,
        wal_backup: &Backup,
        full: &Backup,
        end: &StopAt,
    ) -> Result<RestorePlan, RestoreError> {
        let span = WalSpan::between(full, wal_backup)?;
        let files = self.names(wal_backup)?;
        let path = self.path(wal_backup, &files, span.segment_bytes, full)?;
        if !path.holds(full.meta.timeline, span.full_end) {
            return Err(RestoreError::NoPlan(format!(
                "full backup {} is on timeline {}, which had ended before it where timeline {} came from",
                full.short_id(),
                full.meta.timeline,
                path.timeline()
            )));
        }
        let (sources, found) = self.gather(wal_backup, &files, full, &path, &span)?;
        let mut wal: Vec<WalFile> = found
            .into_iter()
            .filter_map(|f| {
                Some(WalFile {
                    source: f.source?,
                    stored: f.segment.file(),
                    name: f.segment.name,
                })
            })
            .collect();
        let histories = path.timelines().map(history_name);
        wal.extend(
            histories
                .filter(|name| files.contains(name))
                .map(|name| WalFile {
                    source: 0,
                    stored: name.clone(),
                    name,
                }),
        );
        // The tables were counted right before the WAL was received: what is before that must be there for certain.
        let counted = wal_backup.meta.mark.as_ref().map(|m| m.lsn);
        let last_segment = Lsn((span.to.0 - 1) / span.segment_bytes * span.segment_bytes);
        let as_of = match end {
            StopAt::Time(at) => *at,
            _ => wal_backup.meta.restorable_to,
        };
        Ok(RestorePlan {
            target: target.clone(),
            as_of,
            behind: None,
            notes: Vec::new(),
            strategy: Strategy::Physical(Box::new(Physical {
                programs: self.programs(full)?,
                full: full.clone(),
                sources,
                wal,
                segment_bytes: span.segment_bytes,
                end: end.clone(),
                reaches: span
                    .full_end
                    .max(last_segment)
                    .max(counted.unwrap_or(Lsn(0))),
                timeline: (path.timeline() != full.meta.timeline).then(|| path.timeline()),
            })),
        })
    }

    /// The segments along `path`, and the backups that they are in, `wal_backup` first. Usually it has everything; others are asked only
    /// for what it has not.
    fn gather(
        &self,
        wal_backup: &Backup,
        files: &[String],
        full: &Backup,
        path: &TimelinePath,
        span: &WalSpan,
    ) -> Result<(Vec<Backup>, Vec<LocatedSegment>), RestoreError> {
        let mut segments = SegmentIndex::new(span.segment_bytes);
        segments.add_full(full.meta.timeline, span.start, span.full_end);
        segments.add(0, span.to, files.iter().map(String::as_str));
        let mut sources = vec![wal_backup.clone()];
        let others = self.backups.iter().rev().filter(|b| {
            b.id != wal_backup.id
                && b.meta.system_id == wal_backup.meta.system_id
                && b.meta.wal.as_ref().is_some_and(|w| w.to > span.start)
        });
        let mut found = segments.along(path, span.start, span.to);
        for other in others {
            if found.is_ok() {
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
            found = segments.along(path, span.start, span.to);
        }
        let found = found.map_err(|missing| {
            RestoreError::NoPlan(format!(
                "the WAL has a gap: segment {missing} is missing between full backup {} and {}",
                full.short_id(),
                self.shown(wal_backup.meta.restorable_to)
            ))
        })?;
        Ok((sources, found))
    }

    /// How far one comes from a full backup all the same, for an error that says that it does not lead to the target.
    fn reach_of(&self, full: &Backup) -> String {
        if let Some(known) = self.reached.borrow().get(&full.id) {
            return known.clone();
        }
        let of_it = |b: &&Backup| b.meta.full.as_ref() == Some(&full.id) && b.meta.wal.is_some();
        let mut wal_backups: Vec<&Backup> = self.backups.iter().filter(of_it).collect();
        wal_backups.sort_by_key(|b| Reverse(b.meta.restorable_to));
        let mut last = None;
        for wal_backup in wal_backups {
            match self.join(&Target::Latest, wal_backup, full, &StopAt::EndOfWal) {
                Ok(_) => {
                    last = Some(wal_backup);
                    break;
                }
                Err(RestoreError::NoPlan(_)) => {}
                // Nobody knows.
                Err(_) => return String::new(),
            }
        }
        let id = full.short_id();
        let text = match last {
            Some(wal_backup) => format!(
                "; full backup {id} leads to {} (--full {id} --to {})",
                self.shown(wal_backup.meta.restorable_to),
                wal_backup.short_id()
            ),
            None => format!(
                "; full backup {id} by itself is of {} (--to {id})",
                self.shown(full.meta.restorable_to)
            ),
        };
        self.reached
            .borrow_mut()
            .insert(full.id.clone(), text.clone());
        text
    }

    /// The names of the files of a backup of WAL, which are read once.
    pub(super) fn names(&self, backup: &Backup) -> Result<Rc<[String]>, RestoreError> {
        if let Some(known) = self.names.borrow().get(&backup.id) {
            return Ok(Rc::clone(known));
        }
        let names: Rc<[String]> = timeline::names(self.reader, backup)?.into();
        self.names
            .borrow_mut()
            .insert(backup.id.clone(), Rc::clone(&names));
        Ok(names)
    }

    /// The timelines that lead to the end of a WAL backup.
    fn path(
        &self,
        wal_backup: &Backup,
        files: &[String],
        segment_bytes: u64,
        full: &Backup,
    ) -> Result<TimelinePath, RestoreError> {
        let timeline = timeline_of(&wal_backup.meta, files, segment_bytes);
        if timeline == full.meta.timeline {
            return Ok(TimelinePath::only(timeline));
        }
        let name = history_name(timeline);
        if !files.contains(&name) {
            return Err(RestoreError::NoPlan(format!(
                "backup {} is on timeline {timeline} and does not have its history, {name}",
                wal_backup.short_id()
            )));
        }
        self.history(wal_backup, timeline)
    }

    /// The same, as far as the WAL backup itself knows.
    fn own_path_of(&self, wal_backup: &Backup) -> Result<TimelinePath, RestoreError> {
        let files = self.names(wal_backup)?;
        let segment_bytes = wal_backup.meta.wal.as_ref().map_or(1, |w| w.segment_bytes);
        let timeline = timeline_of(&wal_backup.meta, &files, segment_bytes);
        if files.contains(&history_name(timeline)) {
            self.history(wal_backup, timeline)
        } else {
            Ok(TimelinePath::only(timeline))
        }
    }

    fn history(&self, wal_backup: &Backup, timeline: u32) -> Result<TimelinePath, RestoreError> {
        let name = history_name(timeline);
        let text = self.reader.read(wal_backup, Path::new(&name))?;
        TimelinePath::parse(timeline, &String::from_utf8_lossy(&text)).map_err(|e| {
            RestoreError::NoPlan(format!("{name} in backup {}: {e}", wal_backup.short_id()))
        })
    }

    /// The histories of all timelines of a cluster that the repository knows, by file name. PostgreSQL gives a new timeline the first
    /// number without one: where they are absent it would use a number again that others have used already.
    pub(crate) fn histories(
        &self,
        system: &str,
    ) -> Result<BTreeMap<String, Vec<u8>>, RestoreError> {
        let mut histories = BTreeMap::new();
        // The newest WAL backup of a timeline since a full backup has all that the older ones have.
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
                Level::Full => Path::new(DATA).join("pg_wal"),
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

    /// The plan from this full backup to an LSN, by the first WAL backup that leads there from it; `None` when none does.
    pub(crate) fn plan_from_full(
        &self,
        target: &Target,
        full: &Backup,
        lsn: Lsn,
    ) -> Result<Option<RestorePlan>, RestoreError> {
        let mut wal_backups: Vec<&Backup> = self
            .backups
            .iter()
            .filter(|b| {
                b.meta.system_id == full.meta.system_id
                    && b.meta.wal.as_ref().is_some_and(|w| w.to >= lsn)
            })
            .collect();
        wal_backups.sort_by_key(|b| b.meta.restorable_to);
        for wal_backup in wal_backups {
            match self.join(target, wal_backup, full, &StopAt::Lsn(lsn)) {
                Ok(plan) => return Ok(Some(plan)),
                Err(RestoreError::NoPlan(_)) => {}
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

/// The WAL that a recovery replays.
struct WalSpan {
    start: Lsn,
    /// The full backup is consistent from here on.
    full_end: Lsn,
    to: Lsn,
    segment_bytes: u64,
}

impl WalSpan {
    /// From the start of a full backup to the end of a WAL backup.
    fn between(full: &Backup, wal_backup: &Backup) -> Result<Self, RestoreError> {
        let (Some(wal), Some(start), Some(full_end)) =
            (&wal_backup.meta.wal, full.meta.start_lsn, full.meta.end_lsn)
        else {
            return Err(RestoreError::NoPlan(format!(
                "backup {} or {} does not say which WAL it has",
                wal_backup.short_id(),
                full.short_id()
            )));
        };
        if full_end > wal.to {
            return Err(RestoreError::NoPlan(format!(
                "the WAL of backup {} ends before full backup {}",
                wal_backup.short_id(),
                full.short_id()
            )));
        }
        Ok(Self {
            start,
            full_end,
            to: wal.to,
            segment_bytes: wal.segment_bytes,
        })
    }
}
