//! The order of a backup: capture, check, store, record.
//!
//! ```text
//! full         copy or dump → stored, and checked against its manifest meanwhile → structure checked → listed → log up to now
//! incremental  log up to now, without a gap → stored → structure checked → listed   |   dump → the same
//! ```
//! Killed anywhere: what is listed in the repository is whole, and the next one removes what was staged.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use oa_core::config::{Backup as Settings, BackupKind, Bytes, Config};
use oa_core::pg::{self, upsert::Batch};
use oa_core::runs::RunStart;
use oa_core::state_dir::{Lock, StateDir};
use oa_core::supervise::{ProcessId, StopSignal};
use postgres::Client;
use uuid::Uuid;

use crate::capture::server::{self, Server};
use crate::capture::slot::Source;
use crate::capture::wal::{Since, WalFolder};
use crate::capture::{logical, physical};
use crate::catalog;
use crate::error::CaptureError;
use oa_repository::MAX_CLOCK_SKEW;
use oa_repository::Programs;
use oa_repository::progress::Growing;
use oa_repository::timeline;
use oa_repository::{
    Backup, ContentFingerprint, Counts, Kind, Level, Lsn, Meta, ProgressReporter, Repository,
    RepositoryError, RepositoryLocation, UnpublishedBackup, fingerprint, staging,
};

/// Reading the tables for the record takes no longer than this for a full backup, and for an incremental one.
const MARK_FULL: Duration = Duration::from_secs(60);
const MARK_INCREMENTAL: Duration = Duration::from_millis(400);
/// With `kind = "auto"` a dump is made beside physical backups when the newest one is older than this.
const DUMP_EVERY: chrono::TimeDelta = chrono::TimeDelta::days(7);
/// Another process may be receiving the log.
const WAL_LOCK_WAIT: Duration = Duration::from_secs(600);

/// What a backup run did.
#[derive(Debug, Default)]
pub(crate) struct BackupOutcome {
    /// The backups that it made.
    pub(crate) backups: Vec<Backup>,
    /// What went wrong although the backups were made.
    pub(crate) problems: Vec<String>,
    /// Why a full backup was made where an incremental one was asked for.
    pub(crate) full_instead: Option<String>,
    /// The ids of all backups that are in the repository now, also of those that cannot be read.
    pub(crate) there: BTreeSet<String>,
    /// Those that cannot be restored, and why.
    pub(crate) unrestorable: BTreeMap<String, String>,
    /// Rows to record.
    pub(crate) batches: Vec<Batch>,
}

/// Everything that a backup needs, connected and opened.
pub(crate) struct Session<'a> {
    settings: &'a Settings,
    limit_rate: Option<Bytes>,
    bars: ProgressReporter,
    repository: Repository,
    client: Client,
    server: Server,
    programs: Programs,
    staging: StateDir,
    kind: Kind,
    /// Why it is a dump only, with `kind = "auto"`.
    obstacle: Option<String>,
    auto: bool,
    run_id: Uuid,
    started_at: DateTime<Utc>,
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("repository", &self.repository)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl<'a> Session<'a> {
    /// Opens the repository and connects.
    ///
    /// # Errors
    /// When one of them is not possible, with the exit code that fits.
    pub(crate) fn open(
        config: &'a Config,
        run: &RunStart,
        kind: Option<BackupKind>,
        staging: StateDir,
        bars: &ProgressReporter,
    ) -> Result<Self, CaptureError> {
        let settings = config.backup_settings()?;
        let place = RepositoryLocation::primary(config)?;
        let repository = place.open_recorded(config, bars)?;
        place.close_to_others();
        if let Err(e) = place.keep_spares() {
            tracing::warn!("{e}");
        }
        let connection = server::settings(config)?;
        let mut client = pg::connect(&connection)?;
        // A copy may take hours; each statement here has its own limit.
        client
            .batch_execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
            .map_err(CaptureError::query("could not set up the session"))?;
        let server = Server::ask(&mut client)?;
        let wanted = kind.unwrap_or(settings.kind);
        let folder = Programs::find(settings.bin_dir.as_deref(), server.major())?;
        let programs = Programs::new(folder, &connection, None)?;
        let (kind, obstacle) = server.kind(wanted, &programs)?;
        Ok(Self {
            settings,
            limit_rate: settings.limit_rate,
            bars: bars.clone(),
            repository,
            client,
            server,
            programs,
            staging,
            kind,
            obstacle,
            auto: wanted == BackupKind::Auto,
            run_id: run.id,
            started_at: run.started_at,
        })
    }

    /// The server.
    #[must_use]
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// How it is backed up.
    #[must_use]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Makes a backup; an incremental one only where the WAL has no gap since the last one, else a full one. `limit_rate`: instead of
    /// the configured one. Without any backup it is an error.
    pub(crate) fn make(
        mut self,
        level: Level,
        limit_rate: Option<Bytes>,
    ) -> Result<BackupOutcome, CaptureError> {
        self.limit_rate = limit_rate.or(self.limit_rate);
        let mut done = self.begin()?;
        match level {
            Level::Full => self.take_full(&mut done)?,
            Level::Incremental => self.take_incremental(&mut done)?,
        }
        self.take_files(level, &mut done);
        self.conclude(done)
    }

    fn take_incremental(&mut self, done: &mut BackupOutcome) -> Result<(), CaptureError> {
        let taken = match self.kind {
            Kind::Physical => self.take_wal(None, done),
            Kind::Logical | Kind::Files => self
                .lock_staging()
                .and_then(|_lock| self.take_dump(Level::Incremental, done)),
        };
        match taken {
            Ok(backup) => done.backups.push(backup),
            Err(CaptureError::Gap(why)) => {
                tracing::warn!("a full backup is made instead: {why}");
                done.full_instead = Some(why);
                self.take_full(done)?;
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// With what is wrong before anything is done.
    fn begin(&self) -> Result<BackupOutcome, CaptureError> {
        let mut done = BackupOutcome::default();
        let (backups, damages) = self.repository.readable_backups()?;
        done.problems.extend(
            damages
                .into_iter()
                .map(|d| format!("{}; take it out with oa-backup repair", d.what)),
        );
        let physical = |b: &Backup| b.meta.kind == Kind::Physical && self.is_mine(b);
        match &self.obstacle {
            Some(obstacle) if backups.iter().any(physical) => done.problems.push(format!(
                "only a dump was made, although there are physical backups of this server: {obstacle}. Meanwhile slot {} goes on holding log on the server",
                self.settings.slot
            )),
            Some(obstacle) => tracing::info!("backing up logically: {obstacle}"),
            None => {}
        }
        Ok(done)
    }

    fn is_mine(&self, backup: &Backup) -> bool {
        backup.meta.system_id == self.server.system_id
    }

    fn conclude(self, mut done: BackupOutcome) -> Result<BackupOutcome, CaptureError> {
        let place = self.repository.place();
        let (all, damages) = self.repository.readable_backups()?;
        done.there = all.iter().map(|b| b.id.clone()).collect();
        done.there
            .extend(damages.into_iter().filter_map(|d| d.backup));
        done.unrestorable = timeline::stranded(&self.repository, &all)?;
        done.batches.push(catalog::rows(place, &all));
        if done.backups.iter().any(|b| b.meta.level == Level::Full) {
            let size = self.repository.size_bytes()?;
            done.batches.push(catalog::size(place, size, all.len()));
        }
        Ok(done)
    }

    fn take_full(&mut self, done: &mut BackupOutcome) -> Result<(), CaptureError> {
        let _lock = self.lock_staging()?;
        match self.kind {
            Kind::Physical => {
                let (backups, _) = self.repository.readable_backups()?;
                {
                    let _lock = self.lock_wal()?;
                    let since = self.newest_full(&backups).map(|f| self.since(&backups, &f));
                    let wal = WalFolder::open(self.staging.path(), &self.server)?;
                    wal.prepare(&mut self.source(), since)?;
                }
                let (full, mark) = self.take_copy(done)?;
                done.backups.push(full.clone());
                match self.take_wal(Some((full.clone(), mark)), done) {
                    Ok(wal) => done.backups.push(wal),
                    // It stands alone; only what comes after it cannot be restored to the second.
                    Err(CaptureError::Gap(why) | CaptureError::Busy(why)) => {
                        done.problems.push(format!(
                            "the log after the full backup: {why}; the next incremental backup goes on from it or begins anew"
                        ));
                        done.problems.extend(
                            full.meta
                                .start_lsn
                                .and_then(|start| self.lost_before(&backups, start)),
                        );
                    }
                    Err(e) => return Err(e),
                }
                if self.auto && self.dump_is_due()? {
                    match self.take_dump(Level::Full, done) {
                        Ok(dump) => done.backups.push(dump),
                        Err(e) => done
                            .problems
                            .push(format!("the weekly dump beside it: {e}")),
                    }
                }
            }
            Kind::Logical | Kind::Files => {
                let dump = self.take_dump(Level::Full, done)?;
                done.backups.push(dump);
            }
        }
        Ok(())
    }

    /// What can no longer be restored, because the log that was stored before and the new one, which begins there, do not meet.
    fn lost_before(&self, before: &[Backup], begins: Lsn) -> Option<String> {
        let end = before
            .iter()
            .filter(|b| self.is_mine(b) && b.meta.timeline <= self.server.timeline)
            .filter(|b| b.meta.wal.is_some())
            .max_by_key(|b| b.meta.wal.as_ref().map(|w| w.to))?;
        let ended = end.meta.wal.as_ref()?.to;
        (begins > ended).then(|| {
            format!(
                "the log between {ended} ({}) and {begins} is lost: the moments from then to the new full backup cannot be restored",
                end.meta.restorable_to.format("%Y-%m-%d %H:%M:%S UTC")
            )
        })
    }

    /// Up to where what is stored since a full backup is in the server's past: after the server was put back to an earlier time it
    /// is not all of it, and WAL of the new timeline does not go on from the rest, whatever its LSNs are.
    fn still_reached(
        &mut self,
        backups: &[Backup],
        full: &Backup,
        end: Lsn,
    ) -> Result<Lsn, CaptureError> {
        let of_it = |b: &&Backup| b.meta.full.as_ref() == Some(&full.id);
        let newest = backups.iter().filter(of_it);
        let newest = newest.max_by_key(|b| b.meta.wal.as_ref().map(|w| w.to));
        let timeline = newest.unwrap_or(full).meta.timeline;
        let needed = full.meta.end_lsn.unwrap_or(end);
        match self.source().shares(timeline, end.max(needed))? {
            Some(shared) if shared >= needed => Ok(shared.min(end)),
            _ => Err(CaptureError::Gap(format!(
                "the server was put back to before the end of full backup {}, {needed}",
                full.short_id()
            ))),
        }
    }

    /// What is stored of a full backup's log.
    fn since(&self, backups: &[Backup], full: &Backup) -> Since {
        let full_start = full.meta.start_lsn.unwrap_or(Lsn(0));
        let mine = || backups.iter().filter(|b| self.is_mine(b));
        let of_it = mine().filter(|b| b.meta.full.as_ref() == Some(&full.id));
        let ends = |b: &Backup| b.meta.wal.as_ref().map(|w| w.to);
        Since {
            full_start,
            end: of_it.filter_map(ends).max().unwrap_or(full_start),
            before: mine()
                .filter_map(ends)
                .filter(|to| *to <= full_start)
                .max()
                .unwrap_or(Lsn(0)),
        }
    }

    fn source(&mut self) -> Source<'_> {
        Source {
            client: &mut self.client,
            programs: &self.programs,
            server: &self.server,
            slot: &self.settings.slot,
        }
    }

    fn take_copy(
        &mut self,
        done: &mut BackupOutcome,
    ) -> Result<(Backup, ContentFingerprint), CaptureError> {
        let began = Utc::now();
        let copied = {
            let folder = physical::staging_folder(self.staging.path());
            let _shown = Growing::watch(
                &self.bars,
                "copying the cluster",
                &folder,
                self.server.size_bytes,
            );
            physical::copy(
                &mut self.client,
                &self.programs,
                &self.server,
                self.limit_rate,
                self.staging.path(),
                &self.run_id.to_string(),
            )?
        };
        let mut meta = Meta {
            timeline: copied.timeline,
            start_lsn: Some(copied.start),
            end_lsn: Some(copied.end),
            settings: self.server.settings.clone(),
            tablespaces: self.server.tablespaces.clone(),
            ..self.meta(Kind::Physical, Level::Full, copied.at, copied.at, began)
        };
        // A large copy is read from the disk once for both, not twice.
        let (client, programs, server) = (&mut self.client, &self.programs, &self.server);
        let (pending, mark) = thread::scope(|scope| {
            let compared = scope.spawn(|| {
                physical::verify(programs, &copied)?;
                Ok(fingerprint::take(client, server.standby, MARK_FULL)?)
            });
            let pending = store(&self.repository, &copied.folder, &meta);
            let mark = compared.join().unwrap_or_else(|panic| resume_unwind(panic));
            (pending, mark)
        });
        let mark = match mark {
            Ok(mark) => mark,
            Err(e) => {
                if let Ok(pending) = pending {
                    pending.withdraw()?;
                }
                return Err(e);
            }
        };
        meta.mark = Some(mark.clone());
        let full = publish(pending?, meta, &mut done.problems)?;
        staging::remove_folder(&copied.folder)?;
        Ok((full, mark))
    }

    /// The log since the full backup that was just made, or since the newest one.
    fn take_wal(
        &mut self,
        after: Option<(Backup, ContentFingerprint)>,
        done: &mut BackupOutcome,
    ) -> Result<Backup, CaptureError> {
        let _lock = self.lock_wal()?;
        let began = Utc::now();
        let (backups, _) = self.repository.readable_backups()?;
        let (full, mark) = match after {
            Some((full, mark)) => (Some(full), Some(mark)),
            None => (self.newest_full(&backups), None),
        };
        let Some(full) = full else {
            return Err(CaptureError::Gap(
                "there is no full backup of this server yet".to_owned(),
            ));
        };
        // It must connect to what is stored since that full backup, or to its beginning.
        let mut since = self.since(&backups, &full);
        if mark.is_none() {
            since.end = self.still_reached(&backups, &full, since.end)?;
        }
        let wal = WalFolder::open(self.staging.path(), &self.server)?;
        let mark = match mark {
            Some(mark) => mark,
            None => fingerprint::take(&mut self.client, self.server.standby, MARK_INCREMENTAL)?,
        };
        let received = wal.receive(&mut self.source(), Some(&mark), Some(since), true)?;
        let begins = received.range.from;
        let from = full.meta.restorable_from;
        let meta = Meta {
            full: Some(full.id.clone()),
            wal: Some(received.range),
            mark: Some(mark),
            ..self.meta(Kind::Physical, Level::Incremental, from, received.at, began)
        };
        let pending = store(&self.repository, wal.path(), &meta)?;
        let backup = publish(pending, meta, &mut done.problems)?;
        // The first one of a full backup shows whether its log meets that of the one before.
        if since.end == since.full_start {
            done.problems.extend(self.lost_before(&backups, begins));
        }
        wal.drop_before(since.full_start)?;
        Ok(backup)
    }

    fn take_dump(
        &mut self,
        level: Level,
        done: &mut BackupOutcome,
    ) -> Result<Backup, CaptureError> {
        let began = Utc::now();
        let dumped = {
            let folder = physical::staging_folder(self.staging.path());
            let _shown = Growing::watch(
                &self.bars,
                "dumping the database",
                &folder,
                self.server.database_bytes,
            );
            logical::dump(
                &mut self.client,
                &self.programs,
                &self.server,
                self.settings,
                self.staging.path(),
                if level == Level::Full {
                    MARK_FULL
                } else {
                    MARK_INCREMENTAL
                },
            )?
        };
        let meta = Meta {
            mark: Some(dumped.mark),
            ..self.meta(Kind::Logical, level, dumped.at, dumped.at, began)
        };
        let pending = store(&self.repository, &dumped.folder, &meta)?;
        let backup = publish(pending, meta, &mut done.problems)?;
        staging::remove_folder(&dumped.folder)?;
        Ok(backup)
    }

    /// Files of the operator go along; trouble with them takes nothing from the backup of the database.
    fn take_files(&mut self, level: Level, done: &mut BackupOutcome) {
        let (there, absent): (Vec<PathBuf>, Vec<PathBuf>) = self
            .settings
            .paths
            .iter()
            .cloned()
            .partition(|path| path.exists());
        for path in absent {
            done.problems.push(format!(
                "files: {} is not there, or not to be seen by this user; correct paths in [backup]",
                path.display()
            ));
        }
        if there.is_empty() {
            return;
        }
        let now = Utc::now();
        let meta = self.meta(Kind::Files, level, now, now, now);
        let stored = self.repository.store_files(&there, &meta);
        match stored.map_err(CaptureError::from) {
            Ok(None) => {}
            Ok(Some(pending)) => match publish(pending, meta, &mut done.problems) {
                Ok(backup) => done.backups.push(backup),
                Err(e) => done.problems.push(format!("files: {e}")),
            },
            Err(e) => done.problems.push(format!("files: {e}")),
        }
    }

    fn dump_is_due(&self) -> Result<bool, CaptureError> {
        let (backups, _) = self.repository.readable_backups()?;
        // One of the future was made by a clock that was wrong.
        let lately = Utc::now() - DUMP_EVERY..Utc::now() + DUMP_EVERY;
        Ok(!backups.iter().any(|b| {
            b.meta.kind == Kind::Logical
                && self.is_mine(b)
                && lately.contains(&b.meta.restorable_to)
        }))
    }

    fn meta(
        &self,
        kind: Kind,
        level: Level,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        began: DateTime<Utc>,
    ) -> Meta {
        Meta {
            oa: 1,
            run_id: self.run_id,
            kind,
            level,
            full: None,
            host: ProcessId::current().host,
            database: self.server.database.clone(),
            server_version: self.server.version,
            system_id: self.server.system_id.clone(),
            timeline: self.server.timeline,
            start_lsn: None,
            end_lsn: None,
            wal: None,
            restorable_from: from,
            restorable_to: to,
            started_at: began.max(self.started_at),
            captured_at: Utc::now(),
            settings: std::collections::BTreeMap::new(),
            tablespaces: std::collections::BTreeMap::new(),
            mark: None,
            stored: Counts::default(),
        }
    }

    /// The full backup that the log goes on from. One of the future was made while a clock was wrong.
    fn newest_full(&self, backups: &[Backup]) -> Option<Backup> {
        let now = Utc::now() + MAX_CLOCK_SKEW;
        backups
            .iter()
            .filter(|b| self.is_mine(b) && b.meta.timeline <= self.server.timeline)
            .filter(|b| b.meta.kind == Kind::Physical && b.meta.level == Level::Full)
            .filter(|b| b.meta.restorable_to <= now)
            .max_by_key(|b| b.meta.restorable_to)
            .cloned()
    }

    fn lock_wal(&self) -> Result<Lock, CaptureError> {
        self.lock("wal", WAL_LOCK_WAIT)?.ok_or_else(|| {
            CaptureError::Busy("another process receives the log and does not end".to_owned())
        })
    }

    fn lock_staging(&self) -> Result<Lock, CaptureError> {
        self.lock("full", Duration::ZERO)?.ok_or_else(|| {
            CaptureError::Busy(format!(
                "another backup is staged in {} now",
                self.staging.path().display()
            ))
        })
    }

    fn lock(&self, name: &str, wait: Duration) -> Result<Option<Lock>, CaptureError> {
        let end = Instant::now() + wait;
        loop {
            if let Some(lock) = self.staging.try_lock(name)? {
                return Ok(Some(lock));
            }
            if StopSignal.requested() {
                return Err(CaptureError::Stopped);
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn store<'a>(
    repository: &'a Repository,
    folder: &Path,
    meta: &Meta,
) -> Result<UnpublishedBackup<'a>, CaptureError> {
    if StopSignal.requested() {
        return Err(CaptureError::Stopped);
    }
    Ok(repository.store(folder, meta)?)
}

/// Lists what is stored, if everything it needs is there. Damage to other backups is told, and keeps no new one from being made.
fn publish(
    pending: UnpublishedBackup<'_>,
    meta: Meta,
    problems: &mut Vec<String>,
) -> Result<Backup, CaptureError> {
    let damages = match pending.check() {
        Ok(damages) => damages,
        Err(e) => {
            pending.withdraw()?;
            return Err(e.into());
        }
    };
    if let Some(own) = damages.iter().find(|d| d.backup.is_some()) {
        let what = own.what.clone();
        pending.withdraw()?;
        return Err(RepositoryError::Damaged(what).into());
    }
    if let Some(first) = damages.first() {
        let what = format!(
            "the repository is damaged elsewhere: {}; see oa-backup verify",
            first.what
        );
        if !problems.contains(&what) {
            problems.push(what);
        }
    }
    Ok(pending.publish(meta)?)
}
