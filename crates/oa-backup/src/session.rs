//! The order of a backup: capture, check, store, record.
//!
//! ```text
//! full         copy or dump, stored as it comes → checked against its manifest → structure checked → listed → WAL up to now
//! incremental  WAL up to now, without a gap → stored → structure checked → listed   |   dump → the same
//! ```
//! Killed anywhere: what is listed in the repository is whole, and the next one removes what was staged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use oa_core::app::config::{Backup as Settings, BackupKind, Config};
use oa_core::base::state_dir::{Lock, StateDir};
use oa_core::base::supervise::StopSignal;
use oa_core::base::threads;
use oa_core::base::units::Bytes;
use oa_core::model::run::Batch;
use oa_core::model::run::RunStart;
use postgres::Client;

use crate::capture::server::{self, Connected, Server};
use crate::capture::slot::Source;
use crate::capture::slot_name::{self, SlotChoice};
use crate::capture::wal::WalFolder;
use crate::capture::{logical, physical};
use crate::chain;
use crate::error::BackupError;
use crate::publish::{conclude, copy_and_store, publish, store};
use oa_repository::Programs;
use oa_repository::progress::Growing;
use oa_repository::{
    Backup, Checksums, ContentFingerprint, CopyInProgress, Kind, Level, Lsn, Meta,
    ProgressReporter, Repository, RepositoryLocation, fingerprint, staging,
};

/// Reading the tables for the record takes no longer than this for a full backup, and for an incremental one.
const FINGERPRINT_FULL: Duration = Duration::from_secs(60);
const FINGERPRINT_INCREMENTAL: Duration = Duration::from_millis(400);
/// With `kind = "auto"` a dump is made beside physical backups when the newest one is older than this.
const DUMP_EVERY: chrono::TimeDelta = chrono::TimeDelta::days(7);
/// Another process may be receiving the WAL.
const WAL_LOCK_WAIT: Duration = Duration::from_secs(600);

/// What a backup run did.
#[derive(Debug, Default)]
pub(crate) struct BackupOutcome {
    pub(crate) backups: Vec<Backup>,
    /// What went wrong although the backups were made.
    pub(crate) problems: Vec<String>,
    /// Why a full backup was made instead of an incremental one.
    pub(crate) full_instead: Option<String>,
    /// All backups that are in the repository now.
    pub(crate) all: Vec<Backup>,
    /// The ids of all of them, also of those that cannot be read.
    pub(crate) there: BTreeSet<String>,
    /// Those that cannot be restored, and why.
    pub(crate) unrestorable: BTreeMap<String, String>,
    pub(crate) batches: Vec<Batch>,
}

/// Everything that a backup needs, connected and opened.
pub(crate) struct Session<'a> {
    settings: &'a Settings,
    /// The address for backups.
    address: oa_core::pg::Settings,
    slot: String,
    limit_rate: Option<Bytes>,
    reporter: ProgressReporter,
    repository: Repository,
    client: Client,
    server: Server,
    programs: Programs,
    staging: StateDir,
    kind: Kind,
    /// Why it is a dump only, with `kind = "auto"`.
    obstacle: Option<String>,
    auto: bool,
    run: RunStart,
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
    pub(crate) fn open(
        config: &'a Config,
        run: &RunStart,
        kind: Option<BackupKind>,
        staging: StateDir,
        reporter: &ProgressReporter,
    ) -> Result<Self, BackupError> {
        let settings = config.backup_settings()?;
        let location = RepositoryLocation::primary(config)?;
        let repository = location.open_recorded(config, reporter)?;
        location.close_to_others();
        if let Err(e) = location.keep_spares() {
            tracing::warn!("{e}");
        }
        let Connected {
            mut client,
            server,
            programs,
        } = Connected::open(config)?;
        // A copy may take hours; each statement here has its own limit.
        client
            .batch_execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
            .map_err(BackupError::query("could not set up the session"))?;
        let requested = kind.unwrap_or(settings.kind);
        let (kind, obstacle) = server.kind(requested, &programs, &mut client)?;
        Ok(Self {
            settings,
            address: server::settings(config)?,
            slot: slot_name::known(settings, &staging, &server),
            limit_rate: settings.limit_rate,
            reporter: reporter.clone(),
            repository,
            client,
            server,
            programs,
            staging,
            kind,
            obstacle,
            auto: requested == BackupKind::Auto,
            run: run.clone(),
        })
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Makes a backup; an incremental one only where the WAL has no gap since the last one, else a full one. `limit_rate`: instead of
    /// the configured one. Without any backup it is an error.
    pub(crate) fn make(
        mut self,
        level: Level,
        limit_rate: Option<Bytes>,
    ) -> Result<BackupOutcome, BackupError> {
        self.limit_rate = limit_rate.or(self.limit_rate);
        let mut outcome = self.begin()?;
        match level {
            Level::Full => self.take_full(&mut outcome)?,
            Level::Incremental => self.take_incremental(&mut outcome)?,
        }
        self.take_files(level, &mut outcome);
        conclude(&self.server, &self.repository, outcome)
    }

    fn take_incremental(&mut self, outcome: &mut BackupOutcome) -> Result<(), BackupError> {
        let taken = match self.kind {
            Kind::Physical => self.take_wal(None, outcome),
            Kind::Logical | Kind::Files => self
                .lock_staging()
                .and_then(|_lock| self.take_dump(Level::Incremental, outcome)),
        };
        match taken {
            Ok(backup) => outcome.backups.push(backup),
            Err(BackupError::Gap(why)) => {
                tracing::warn!("a full backup is made instead: {why}");
                outcome.full_instead = Some(why);
                self.take_full(outcome)?;
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// With what is wrong before anything is outcome.
    fn begin(&mut self) -> Result<BackupOutcome, BackupError> {
        let mut outcome = BackupOutcome::default();
        let (backups, damages) = self.repository.readable_backups()?;
        if self.kind == Kind::Physical {
            self.choose_slot(&backups)?;
        }
        outcome.problems.extend(
            damages
                .into_iter()
                .map(|d| format!("{}; take it out with oa-backup repair", d.what)),
        );
        let physical = |b: &Backup| b.meta.kind == Kind::Physical && chain::is_of(&self.server, b);
        match &self.obstacle {
            Some(obstacle) if backups.iter().any(physical) => outcome.problems.push(format!(
                "only a dump was made, although there are physical backups of this server: {obstacle}. Meanwhile slot {} keeps holding WAL on the server",
                self.slot
            )),
            Some(obstacle) => tracing::info!("backing up logically: {obstacle}"),
            None => {}
        }
        Ok(outcome)
    }

    fn choose_slot(&mut self, backups: &[Backup]) -> Result<(), BackupError> {
        // Since this began another one may have chosen it.
        if let Some(slot) = slot_name::chosen(self.settings, &self.staging, &self.server) {
            self.slot = slot;
            return Ok(());
        }
        let _alone = lock_wal(&self.staging)?;
        let choice = SlotChoice {
            staging: &self.staging,
            server: &self.server,
            repository: &self.repository,
            backups,
            address: &self.address,
        };
        self.slot = choice.make(self.settings, &mut self.client)?;
        Ok(())
    }

    fn take_full(&mut self, outcome: &mut BackupOutcome) -> Result<(), BackupError> {
        let _lock = self.lock_staging()?;
        match self.kind {
            Kind::Physical => {
                let (backups, _) = self.repository.readable_backups()?;
                {
                    let _lock = lock_wal(&self.staging)?;
                    let since = chain::newest_full(&self.server, &backups)
                        .map(|f| chain::since(&self.server, &backups, &f));
                    let wal = WalFolder::open(&self.staging, &self.server)?;
                    wal.prepare(&mut self.source(), since)?;
                }
                let (full, fingerprint) = self.take_copy(outcome)?;
                outcome.backups.push(full.clone());
                match self.take_wal(Some((full.clone(), fingerprint)), outcome) {
                    Ok(wal) => outcome.backups.push(wal),
                    // It stands alone; only what comes after it cannot be restored to the second.
                    Err(BackupError::Gap(why) | BackupError::Busy(why)) => {
                        outcome.problems.push(format!(
                            "the WAL after the full backup: {why}; the next incremental backup continues from it or starts over"
                        ));
                        outcome.problems.extend(
                            full.meta.start_lsn.and_then(|start| {
                                chain::lost_before(&self.server, &backups, start)
                            }),
                        );
                    }
                    Err(e) => return Err(e),
                }
                if self.auto && self.dump_is_due()? {
                    match self.take_dump(Level::Full, outcome) {
                        Ok(dump) => outcome.backups.push(dump),
                        Err(e) => outcome
                            .problems
                            .push(format!("the weekly dump beside it: {e}")),
                    }
                }
            }
            Kind::Logical | Kind::Files => {
                let dump = self.take_dump(Level::Full, outcome)?;
                outcome.backups.push(dump);
            }
        }
        Ok(())
    }

    /// Up to where what is stored since a full backup is in the server's past: after the server was put back to an earlier time it
    /// is not all of it, and WAL of the new timeline does not go on from the rest, whatever its LSNs are.
    fn still_reached(
        &mut self,
        backups: &[Backup],
        full: &Backup,
        end: Lsn,
    ) -> Result<Lsn, BackupError> {
        let of_it = |b: &&Backup| b.meta.full.as_ref() == Some(&full.id);
        let newest = backups.iter().filter(of_it);
        let newest = newest.max_by_key(|b| b.meta.wal.as_ref().map(|w| w.to));
        let timeline = newest.unwrap_or(full).meta.timeline;
        let needed = full.meta.end_lsn.unwrap_or(end);
        match self.source().shares(timeline, end.max(needed))? {
            Some(shared) if shared >= needed => Ok(shared.min(end)),
            _ => Err(BackupError::Gap(format!(
                "the server was put back to before the end of full backup {}, {needed}",
                full.short_id()
            ))),
        }
    }

    fn source(&mut self) -> Source<'_> {
        Source {
            client: &mut self.client,
            programs: &self.programs,
            server: &self.server,
            slot: &self.slot,
        }
    }

    fn take_copy(
        &mut self,
        outcome: &mut BackupOutcome,
    ) -> Result<(Backup, ContentFingerprint), BackupError> {
        let began = self.server.clock();
        let checksums = Checksums::default();
        let announced = self.meta((Kind::Physical, Level::Full), (began, began), began);
        let folder = physical::staging_folder(self.staging.path());
        // What a killed one has left is not stored.
        staging::empty_folder(&folder)?;
        let copy = CopyInProgress {
            unfinished: physical::unfinished(&folder),
            folder: folder.clone(),
            sizes: physical::sizes(&mut self.client),
            ended: Arc::default(),
        };
        let (copied, ahead) =
            copy_and_store(&self.repository, &copy, &announced, &checksums, || {
                let _shown = Growing::watch(
                    &self.reporter,
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
                    &self.run.id.to_string(),
                )
            })?;
        let mut meta = Meta {
            timeline: copied.timeline,
            start_lsn: Some(copied.start),
            end_lsn: Some(copied.end),
            settings: self.server.settings.clone(),
            tablespaces: self.server.tablespaces.clone(),
            damaged: copied.damaged.clone(),
            ..self.meta((Kind::Physical, Level::Full), (copied.at, copied.at), began)
        };
        let (client, programs, server) = (&mut self.client, &self.programs, &self.server);
        let repository = &self.repository;
        let compare = || {
            physical::verify(programs, &copied)?;
            Ok(fingerprint::take(client, server.standby, FINGERPRINT_FULL)?)
        };
        let store = || {
            if StopSignal.requested() {
                return Err(BackupError::Stopped);
            }
            let stored = repository.store_copy(&copied.folder, &meta, ahead, &checksums);
            stored.map_err(BackupError::from)
        };
        let (fingerprint, pending) = threads::both("compare the copy", compare, store);
        let fingerprint = match &pending {
            Ok(_) => physical::compare(&copied, &checksums).and(fingerprint),
            Err(_) => fingerprint,
        };
        let fingerprint = match fingerprint {
            Ok(fingerprint) => fingerprint,
            Err(e) => {
                if let Ok(pending) = pending {
                    pending.withdraw()?;
                }
                return Err(e);
            }
        };
        meta.mark = Some(fingerprint.clone());
        if !copied.damaged.is_empty() {
            outcome.problems.push(format!(
                "the server's data are damaged, and so is what was backed up of them: {}. The backup was made and is marked; the rest of it is whole. Rebuild damaged indexes with REINDEX; bring damaged tables back with oa-restore table NAME --to a time before the damage, and keep a backup from then: oa-backup pin",
                copied.damaged.join("; ")
            ));
        }
        let full = publish(&self.server, pending?, meta, &mut outcome.problems)?;
        staging::remove_folder(&copied.folder)?;
        Ok((full, fingerprint))
    }

    /// The WAL since the full backup that was just made, or since the newest one.
    fn take_wal(
        &mut self,
        after: Option<(Backup, ContentFingerprint)>,
        outcome: &mut BackupOutcome,
    ) -> Result<Backup, BackupError> {
        let _lock = lock_wal(&self.staging)?;
        let began = self.server.clock();
        let (backups, _) = self.repository.readable_backups()?;
        let (full, fingerprint) = match after {
            Some((full, fingerprint)) => (Some(full), Some(fingerprint)),
            None => (chain::newest_full(&self.server, &backups), None),
        };
        let Some(full) = full else {
            return Err(BackupError::Gap(
                "there is no full backup of this server yet".to_owned(),
            ));
        };
        // It must connect to what is stored since that full backup, or to its beginning.
        let mut since = chain::since(&self.server, &backups, &full);
        if fingerprint.is_none() {
            since.end = self.still_reached(&backups, &full, since.end)?;
        }
        let wal = WalFolder::open(&self.staging, &self.server)?;
        let fingerprint = match fingerprint {
            Some(fingerprint) => fingerprint,
            None => fingerprint::take(
                &mut self.client,
                self.server.standby,
                FINGERPRINT_INCREMENTAL,
            )?,
        };
        let received = wal.receive(&mut self.source(), Some(&fingerprint), Some(since), true)?;
        let begins = received.range.from;
        let from = full.meta.restorable_from;
        let meta = Meta {
            full: Some(full.id.clone()),
            wal: Some(received.range),
            mark: Some(fingerprint),
            ..self.meta(
                (Kind::Physical, Level::Incremental),
                (from, received.at),
                began,
            )
        };
        let pending = store(&self.repository, wal.path(), &meta)?;
        let backup = publish(&self.server, pending, meta, &mut outcome.problems)?;
        // The first one of a full backup shows whether its WAL meets that of the one before.
        if since.end == since.full_start {
            outcome
                .problems
                .extend(chain::lost_before(&self.server, &backups, begins));
        }
        wal.drop_before(since.full_start)?;
        Ok(backup)
    }

    fn take_dump(
        &mut self,
        level: Level,
        outcome: &mut BackupOutcome,
    ) -> Result<Backup, BackupError> {
        let began = self.server.clock();
        let dumped = {
            let folder = physical::staging_folder(self.staging.path());
            let _shown = Growing::watch(
                &self.reporter,
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
                    FINGERPRINT_FULL
                } else {
                    FINGERPRINT_INCREMENTAL
                },
            )?
        };
        let meta = Meta {
            mark: Some(dumped.fingerprint),
            ..self.meta((Kind::Logical, level), (dumped.at, dumped.at), began)
        };
        let pending = store(&self.repository, &dumped.folder, &meta)?;
        let backup = publish(&self.server, pending, meta, &mut outcome.problems)?;
        staging::remove_folder(&dumped.folder)?;
        Ok(backup)
    }

    /// Files of the operator go along; a problem with them takes nothing from the backup of the database.
    fn take_files(&mut self, level: Level, outcome: &mut BackupOutcome) {
        let (there, absent): (Vec<PathBuf>, Vec<PathBuf>) = self
            .settings
            .paths
            .iter()
            .cloned()
            .partition(|path| path.exists());
        for path in absent {
            outcome.problems.push(format!(
                "files: {} is not there, or not to be seen by this user; correct paths in [backup]",
                path.display()
            ));
        }
        if there.is_empty() {
            return;
        }
        let now = self.server.clock();
        let meta = self.meta((Kind::Files, level), (now, now), now);
        let stored = self.repository.store_files(&there, &meta);
        match stored.map_err(BackupError::from) {
            Ok(None) => {}
            Ok(Some(pending)) => {
                match publish(&self.server, pending, meta, &mut outcome.problems) {
                    Ok(backup) => outcome.backups.push(backup),
                    Err(e) => outcome.problems.push(format!("files: {e}")),
                }
            }
            Err(e) => outcome.problems.push(format!("files: {e}")),
        }
    }

    fn dump_is_due(&self) -> Result<bool, BackupError> {
        let (backups, _) = self.repository.readable_backups()?;
        // One of the future was made by a clock that was wrong.
        let now = self.server.clock();
        let lately = now - DUMP_EVERY..now + DUMP_EVERY;
        Ok(!backups.iter().any(|b| {
            b.meta.kind == Kind::Logical
                && chain::is_of(&self.server, b)
                && lately.contains(&b.meta.restorable_to)
        }))
    }

    fn meta(
        &self,
        what: (Kind, Level),
        times: (DateTime<Utc>, DateTime<Utc>),
        began: DateTime<Utc>,
    ) -> Meta {
        chain::meta(&self.run, &self.server, what, times, began)
    }

    fn lock_staging(&self) -> Result<Lock, BackupError> {
        lock(&self.staging, "full", Duration::ZERO)?.ok_or_else(|| {
            BackupError::Busy(format!(
                "another backup is staged in {} now",
                self.staging.path().display()
            ))
        })
    }
}

/// Makes the incremental backup that a stream has left to make when its server stopped to answer: of what it had received by `seen`,
/// an LSN and a time of the server's clock. `None` where that is stored already.
pub(crate) fn store_left_behind(
    config: &Config,
    run: &RunStart,
    server: &Server,
    programs: &Programs,
    seen: (Lsn, DateTime<Utc>),
    reporter: &ProgressReporter,
) -> Result<Option<BackupOutcome>, BackupError> {
    let staging = staging::open(config, config.backup_settings()?)?;
    let location = RepositoryLocation::primary(config)?;
    let repository = location.open_recorded(config, reporter)?;
    let _lock = lock_wal(&staging)?;
    let (backups, _) = repository.readable_backups()?;
    let Some(full) = chain::newest_full(server, &backups) else {
        return Ok(None);
    };
    let since = chain::since(server, &backups, &full);
    if since.end >= seen.0 {
        return Ok(None);
    }
    let began = server.clock();
    let wal = WalFolder::open(&staging, server)?;
    let received = wal.left_behind(programs, seen, since)?;
    let times = (full.meta.restorable_from, received.at);
    let what = (Kind::Physical, Level::Incremental);
    let meta = Meta {
        full: Some(full.id.clone()),
        wal: Some(received.range),
        ..chain::meta(run, server, what, times, began)
    };
    let mut outcome = BackupOutcome::default();
    let pending = store(&repository, wal.path(), &meta)?;
    let backup = publish(server, pending, meta, &mut outcome.problems)?;
    outcome.backups.push(backup);
    conclude(server, &repository, outcome).map(Some)
}

/// Nobody else touches the folder from which WAL is stored.
pub(crate) fn lock_wal(staging: &StateDir) -> Result<Lock, BackupError> {
    lock(staging, "wal", WAL_LOCK_WAIT)?.ok_or_else(|| {
        BackupError::Busy("another process is storing the WAL and does not end".to_owned())
    })
}

fn lock(staging: &StateDir, name: &str, wait: Duration) -> Result<Option<Lock>, BackupError> {
    let end = Instant::now() + wait;
    loop {
        if let Some(lock) = staging.try_lock(name)? {
            return Ok(Some(lock));
        }
        if StopSignal.requested() {
            return Err(BackupError::Stopped);
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(100));
    }
}
