//! The repository: restic's format, read and written by `rustic_core`, so that a stock `restic` can restore from it should this
//! project vanish. This module adds what a backup needs besides: what is stored is complete, it is durable before it is called
//! done, and every snapshot says in itself what it is ([`meta`]).
//!
//! A snapshot's file is written last, after everything it refers to. Killed before that: nothing is listed; what was written is
//! removed by a later `prune`. Two programs may write at once; what `prune` finds unused it only marks, and removes a day later.

mod durable;
pub mod meta;
mod repair;
mod s3;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Utc};
use oa_core::config::{Bytes, Config, ConfigError, S3 as S3Config};
use oa_core::secrets::{Secret, redact};
use rustic_core::repofile::{Chunker, Node, SnapshotFile};
use rustic_core::{
    BackupOptions, CheckOptions, CheckResults, ConfigOptions, Credentials, IndexedFullStatus,
    KeyOptions, LocalDestination, LsOptions, OpenStatus, PathList, Progress, ProgressBars,
    ProgressType, PruneOptions, Repository as Engine, RepositoryBackends, RepositoryOptions,
    RestoreOptions, RusticError, SnapshotOptions, WriteBackend, jiff,
};

use self::durable::Durable;
pub use self::meta::{Counts, Kind, Level, Lsn, Mark, Meta, TableMark, WalRange};
pub use self::repair::Repaired;

/// Tag of every snapshot of ours.
const TAG: &str = "oa";
/// Pieces of this size, at most, are stored again for one changed page.
const CHUNK: u64 = 128 << 10;
/// What is unused is only marked, and removed after this long: a backup that runs meanwhile may still use it.
const KEEP_UNUSED: Duration = Duration::from_secs(23 * 3600);

/// The repository could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// There is none.
    #[error("there is no repository at {0}; create it with: oa-backup init")]
    Absent(String),
    /// There is one already.
    #[error("there is a repository at {0} already; nothing was changed")]
    Exists(String),
    /// The key does not open it.
    #[error("the password does not open the repository at {0}; check password in [backup]")]
    Password(String),
    /// The place itself is not usable as it is configured.
    #[error("{0}")]
    Place(String),
    /// What was to be stored was not stored as a whole.
    #[error("{what} was not stored as a whole: {stored} of {expected}; nothing is listed")]
    Incomplete {
        /// What was stored.
        what: String,
        /// Files and bytes in the repository.
        stored: String,
        /// Files and bytes that were to be stored.
        expected: String,
    },
    /// There is no such backup.
    #[error("there is no backup {0}; see oa-backup list")]
    NoBackup(String),
    /// The engine, or the disk or service below it.
    #[error("could not {doing} at {place}: {reason}")]
    Engine {
        /// What was being done.
        doing: &'static str,
        /// The repository.
        place: String,
        /// What the engine said.
        reason: String,
    },
}

/// Where a repository is and what opens it.
#[derive(Debug, Clone)]
pub struct Place {
    location: String,
    password: Secret,
    s3: Option<s3::Access>,
    cache: Option<PathBuf>,
}

impl Place {
    /// The first repository of the configuration.
    ///
    /// # Errors
    /// When `[backup]` is absent, or a reference to a secret leads nowhere.
    pub fn first(config: &Config) -> Result<Self, ConfigError> {
        let backup = config.backup_settings()?;
        Self::new(
            config,
            &backup.repository,
            config.secret(&backup.password, "password in [backup]")?,
            backup.s3.as_ref(),
        )
    }

    /// The second one, where there is one.
    ///
    /// # Errors
    /// As [`Place::first`].
    pub fn second(config: &Config) -> Result<Option<Self>, ConfigError> {
        let backup = config.backup_settings()?;
        let Some(copy) = &backup.copy else {
            return Ok(None);
        };
        let password = copy.password.as_ref().unwrap_or(&backup.password);
        let password = config.secret(password, "password in [backup.copy]")?;
        Self::new(config, &copy.repository, password, copy.s3.as_ref()).map(Some)
    }

    fn new(
        config: &Config,
        location: &str,
        password: Secret,
        s3: Option<&S3Config>,
    ) -> Result<Self, ConfigError> {
        let s3 = match s3 {
            Some(s3) => Some(s3::Access::from_config(config, s3)?),
            None => None,
        };
        let remote = location.contains("://");
        Ok(Self {
            location: location.to_owned(),
            password,
            s3,
            // What is read often; the repository's own files are as near.
            cache: remote.then(|| config.state_dir.join("backup-cache")),
        })
    }

    /// The place as it is shown and recorded: it has no secret in it.
    #[must_use]
    pub fn shown(&self) -> String {
        redact(&self.location)
    }

    /// The folder, when it is one.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        (!self.location.contains("://")).then(|| Path::new(&self.location))
    }

    fn raw(&self) -> Result<Arc<dyn WriteBackend>, RepositoryError> {
        let backend: Arc<dyn WriteBackend> = if let Some(rest) = self.location.strip_prefix("s3://")
        {
            let access = self.s3.as_ref().ok_or_else(|| {
                RepositoryError::Place(format!(
                    "repository {} needs [backup.s3] with endpoint, region, access_key and secret_key; see docs/configuration.md",
                    self.shown()
                ))
            })?;
            Arc::new(s3::S3::new(rest, access).map_err(RepositoryError::Place)?)
        } else if self.location.contains("://") {
            return Err(RepositoryError::Place(format!(
                "repository {} is neither a folder nor s3://BUCKET/PREFIX",
                self.shown()
            )));
        } else {
            let local =
                Durable::new(&self.location).map_err(|e| self.failed("use the folder", &e))?;
            Arc::new(local)
        };
        Ok(backend)
    }

    fn engine(&self, bars: Bars) -> Result<Engine<()>, RepositoryError> {
        let mut options = RepositoryOptions::default();
        match &self.cache {
            Some(folder) => options.cache_dir = Some(folder.clone()),
            None => options.no_cache = true,
        }
        Engine::new_with_progress(&options, &RepositoryBackends::new(self.raw()?, None), bars)
            .map_err(|e| self.failed("open the repository", &e))
    }

    fn credentials(&self) -> Credentials {
        Credentials::Password(self.password.expose().to_owned())
    }

    /// Whether there is a repository.
    ///
    /// # Errors
    /// When the place cannot be read.
    pub fn exists(&self) -> Result<bool, RepositoryError> {
        let engine = self.engine(Bars::hidden())?;
        let id = engine
            .config_id()
            .map_err(|e| self.failed("look for a repository", &e))?;
        Ok(id.is_some())
    }

    /// Creates the repository.
    ///
    /// # Errors
    /// When there is one, or the place cannot be written.
    pub fn create(&self) -> Result<(), RepositoryError> {
        if self.exists()? {
            return Err(RepositoryError::Exists(self.shown()));
        }
        let mut options = ConfigOptions::default();
        options.set_version = Some(2);
        options.set_chunker = Some(Chunker::FixedSize);
        options.set_chunk_size = Some(bytesize::ByteSize(CHUNK));
        self.engine(Bars::hidden())?
            .init(&self.credentials(), &KeyOptions::default(), &options)
            .map_err(|e| self.failed("create the repository", &e))?;
        self.keep_spares()
    }

    /// Opens the repository.
    ///
    /// # Errors
    /// When there is none, or the password is wrong.
    pub fn open(&self, bars: &Bars) -> Result<Repository, RepositoryError> {
        if !self.exists()? {
            return Err(RepositoryError::Absent(self.shown()));
        }
        let engine = self
            .engine(bars.clone())?
            .open(&self.credentials())
            .map_err(|e| {
                if let Some(why) = self.why_it_does_not_open() {
                    RepositoryError::Place(why)
                } else if e.is_incorrect_password() {
                    RepositoryError::Password(self.shown())
                } else {
                    self.failed("open the repository", &e)
                }
            })?;
        Ok(Repository {
            place: self.clone(),
            bars: bars.clone(),
            engine,
        })
    }

    fn failed(&self, doing: &'static str, error: &RusticError) -> RepositoryError {
        RepositoryError::Engine {
            doing,
            place: self.shown(),
            reason: reason(error),
        }
    }
}

/// Who is told of progress.
#[derive(Debug, Clone)]
pub struct Bars(Arc<dyn ProgressBars>);

impl Bars {
    /// Somebody.
    #[must_use]
    pub fn new(bars: impl ProgressBars) -> Self {
        Self(Arc::new(bars))
    }

    /// Nobody.
    #[must_use]
    pub fn hidden() -> Self {
        Self::new(rustic_core::NoProgressBars)
    }
}

impl ProgressBars for Bars {
    fn progress(&self, kind: ProgressType, prefix: &str) -> Progress {
        self.0.progress(kind, prefix)
    }
}

/// A backup that is in a repository.
#[derive(Debug, Clone)]
pub struct Backup {
    /// The snapshot's id, 64 hexadecimal digits.
    pub id: String,
    /// What it is.
    pub meta: Meta,
    snapshot: SnapshotFile,
}

impl Backup {
    #[cfg(test)]
    pub(crate) fn of(meta: Meta) -> Self {
        let snapshot = SnapshotOptions::default().to_snapshot().unwrap();
        Self {
            id: uuid::Uuid::now_v7().to_string(),
            meta,
            snapshot,
        }
    }

    /// When all of it was in the repository (UTC).
    #[must_use]
    pub fn finished_at(&self) -> DateTime<Utc> {
        let summary = self.snapshot.summary.as_ref();
        summary.map_or(self.meta.captured_at, |s| moment(&s.backup_end))
    }

    /// The first digits of the id, as they are shown.
    #[must_use]
    pub fn short_id(&self) -> &str {
        self.id.get(..8).unwrap_or(&self.id)
    }
}

/// What the engine stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Files and links.
    pub files: u64,
    /// Their bytes.
    pub size_bytes: u64,
    /// What the repository grew by, in bytes.
    pub added_bytes: u64,
}

/// What a verification found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The backup; `None` for what belongs to none, or to all.
    pub backup: Option<String>,
    /// What is wrong, with the name of the file in the repository.
    pub what: String,
}

/// An open repository.
pub struct Repository {
    place: Place,
    bars: Bars,
    engine: Engine<OpenStatus>,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository")
            .field("place", &self.place.shown())
            .finish_non_exhaustive()
    }
}

impl Repository {
    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    fn failed(&self, doing: &'static str) -> impl Fn(Box<RusticError>) -> RepositoryError + '_ {
        move |e| self.place.failed(doing, &e)
    }

    /// The engine gives itself up when it reads the index; it is opened once more, by the key that was found before.
    fn again(&self) -> Result<Engine<OpenStatus>, RepositoryError> {
        let key = Credentials::Masterkey(self.engine.key());
        let engine = self.place.engine(self.bars.clone())?;
        engine
            .open(&key)
            .map_err(self.failed("open the repository"))
    }

    /// All backups, oldest first.
    ///
    /// # Errors
    /// When the list cannot be read. A snapshot that cannot be read is an error too: see [`Repository::unreadable_snapshots`].
    pub fn backups(&self) -> Result<Vec<Backup>, RepositoryError> {
        let snapshots = self
            .engine
            .get_all_snapshots()
            .map_err(self.failed("list the backups"))?;
        Ok(ours(snapshots))
    }

    /// The backups whose snapshots can be read, and what is wrong with the others.
    ///
    /// # Errors
    /// When the repository cannot be listed.
    pub fn readable_backups(&self) -> Result<(Vec<Backup>, Vec<Damage>), RepositoryError> {
        let ids = self
            .engine
            .list::<rustic_core::repofile::SnapshotId>()
            .map_err(self.failed("list the backups"))?;
        let (mut snapshots, mut damages) = (Vec::new(), Vec::new());
        for id in ids {
            let name = id.to_hex().to_string();
            match self.engine.get_snapshots(&[name.as_str()]) {
                Ok(found) => snapshots.extend(found),
                Err(e) => damages.push(Damage {
                    backup: Some(name.clone()),
                    what: format!("snapshots/{name} cannot be read: {}", reason(&e)),
                }),
            }
        }
        Ok((ours(snapshots), damages))
    }

    /// The backup whose id begins so.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn find(&self, id: &str) -> Result<Backup, RepositoryError> {
        let mut found = self.backups()?.into_iter().filter(|b| b.id.starts_with(id));
        match (found.next(), found.next()) {
            (Some(backup), None) => Ok(backup),
            (Some(_), Some(_)) => Err(RepositoryError::NoBackup(format!(
                "{id} (it begins more than one id)"
            ))),
            _ => Err(RepositoryError::NoBackup(id.to_owned())),
        }
    }

    /// Stores everything in `folder` as one backup. It is listed only when all of it is there: what the engine could not read or
    /// write it leaves out, so files and bytes are counted before and after.
    ///
    /// Killed before its end: a snapshot without our tag may be left, which is no backup, and which the next one removes.
    ///
    /// # Errors
    /// When not everything is stored; nothing is listed then.
    pub fn store(&self, folder: &Path, meta: Meta) -> Result<Backup, RepositoryError> {
        let list = PathList::from_iter(Some(folder.to_owned()));
        let stored = self.store_paths(&list, Some(Path::new("/")), meta)?;
        stored.ok_or_else(|| RepositoryError::NoBackup("that was just stored".to_owned()))
    }

    /// The same for files where they are, under their own paths. `None` when nothing has changed since the last time, and
    /// `meta.level` is incremental.
    ///
    /// # Errors
    /// As [`Repository::store`].
    pub fn store_files(
        &self,
        paths: &[PathBuf],
        meta: Meta,
    ) -> Result<Option<Backup>, RepositoryError> {
        let existing: Result<Vec<PathBuf>, RepositoryError> = paths
            .iter()
            .map(|path| {
                path.canonicalize().map_err(|e| {
                    RepositoryError::Place(format!(
                        "could not read {}: {e}; correct paths in [backup]",
                        path.display()
                    ))
                })
            })
            .collect();
        self.store_paths(&PathList::from_iter(existing?), None, meta)
    }

    fn store_paths(
        &self,
        list: &PathList,
        as_path: Option<&Path>,
        mut meta: Meta,
    ) -> Result<Option<Backup>, RepositoryError> {
        let before = census(&list.paths()).map_err(|e| {
            RepositoryError::Place(format!("could not read what is to be stored: {e}"))
        })?;
        self.remove_unfinished()?;
        let indexed = self
            .again()?
            .to_indexed_ids()
            .map_err(self.failed("read the index"))?;
        let mut options = BackupOptions::default().as_path(as_path.map(Path::to_owned));
        // A data directory's copy has new files only. WAL and files of the operator are compared with the last backup of the same
        // kind by size, time of change, inode and time of the inode's change.
        options.parent_opts.skip_if_unchanged =
            meta.kind == Kind::Files && meta.level == Level::Incremental;
        options.parent_opts.force = meta.level == Level::Full && meta.kind == Kind::Physical;
        let mut wanted = SnapshotOptions::default()
            .host(meta.host.clone())
            .label(meta.label());
        wanted.time = Some(zoned(meta.restorable_to));
        wanted.command = Some(String::from("oa-backup"));
        let snapshot = wanted
            .to_snapshot()
            .map_err(self.failed("begin a backup"))?;
        let stored = indexed
            .backup(&options, list, snapshot)
            .map_err(self.failed("store the backup"))?;
        oa_core::failpoint::hit("backup.stored");
        let summary = stored.summary.clone().unwrap_or_default();
        let after = Stored {
            files: summary.total_files_processed,
            size_bytes: summary.total_bytes_processed,
            added_bytes: summary.data_added_packed,
        };
        // Files of the operator may grow or shrink meanwhile, but none may be left out.
        let whole = before.files == after.files
            && (as_path.is_none() || before.size_bytes == after.size_bytes);
        if !whole {
            self.engine
                .delete_snapshots(&[stored.id])
                .map_err(self.failed("take back an incomplete backup"))?;
            let shown = |s: Stored| format!("{} files, {}", s.files, Bytes(s.size_bytes));
            return Err(RepositoryError::Incomplete {
                what: meta.label(),
                stored: shown(after),
                expected: shown(before),
            });
        }
        if stored.id == rustic_core::repofile::SnapshotId::default() {
            return Ok(None);
        }
        meta.stored = after.into();
        self.publish(&stored, &meta).map(Some)
    }

    /// Makes a snapshot that is whole a backup: it gets its description and our tag.
    fn publish(&self, unfinished: &SnapshotFile, meta: &Meta) -> Result<Backup, RepositoryError> {
        let mut snapshot = unfinished.clone();
        let tags = format!("{TAG},{},{}", meta.kind.as_str(), meta.level.as_str());
        snapshot.add_tags(vec![tags.parse().unwrap_or_default()]);
        snapshot.description = Some(meta.to_text());
        self.engine
            .save_snapshots(vec![snapshot])
            .map_err(self.failed("list the backup"))?;
        oa_core::failpoint::hit("backup.published");
        self.engine
            .delete_snapshots(&[unfinished.id])
            .map_err(self.failed("tidy up after the backup"))?;
        let run = meta.run_id;
        let level = (meta.kind, meta.level);
        self.backups()?
            .into_iter()
            .rfind(|b| b.meta.run_id == run && (b.meta.kind, b.meta.level) == level)
            .ok_or_else(|| RepositoryError::NoBackup(format!("of run {run}, just stored")))
    }

    /// Removes what a killed backup has left. Only what is older than any backup that may still run.
    fn remove_unfinished(&self) -> Result<(), RepositoryError> {
        let snapshots = self
            .engine
            .get_all_snapshots()
            .map_err(self.failed("list the backups"))?;
        let old = Utc::now() - KEEP_UNUSED;
        let left: Vec<_> = snapshots
            .iter()
            .filter(|s| {
                s.label.starts_with("oa ") && !s.tags.contains(TAG) && moment(&s.time) < old
            })
            .map(|s| s.id)
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        self.engine
            .delete_snapshots(&left)
            .map_err(self.failed("remove an unfinished backup"))
    }

    /// Takes backups off the list. Their bytes stay until [`Repository::prune`].
    ///
    /// # Errors
    /// When they cannot be removed.
    pub fn forget(&self, backups: &[Backup]) -> Result<(), RepositoryError> {
        let ids: Vec<_> = backups.iter().map(|b| b.snapshot.id).collect();
        self.engine
            .delete_snapshots(&ids)
            .map_err(self.failed("remove backups"))
    }

    /// Removes what no backup uses: marks it first, and removes what was marked a day ago. Returns the bytes that are removed now
    /// and those that are marked.
    ///
    /// # Errors
    /// When it fails; what it has done so far is no harm.
    pub fn prune(&self, dry_run: bool) -> Result<(u64, u64), RepositoryError> {
        let mut options = PruneOptions::default();
        options.keep_delete = jiff::Span::new().seconds(KEEP_UNUSED.as_secs().cast_signed());
        let plan = self
            .engine
            .prune_plan(&options)
            .map_err(self.failed("plan what to remove"))?;
        let stats = &plan.stats;
        let now = stats.size_to_delete.remove;
        let marked = stats.size_sum().remove + stats.size_sum().repackrm;
        if !dry_run {
            self.engine
                .prune(&options, plan)
                .map_err(self.failed("remove what is unused"))?;
        }
        Ok((now, marked))
    }

    /// Checks that everything the backups need is there; with `read`, also reads every byte back. What is wrong is told by backup.
    ///
    /// # Errors
    /// When the check itself cannot be done, for example because the index cannot be read.
    pub fn check(&self, backups: &[Backup], read: bool) -> Result<Vec<Damage>, RepositoryError> {
        let options = CheckOptions::default().read_data(read);
        let check = |trees| {
            let found = self
                .engine
                .check_with_trees(options, trees)
                .map_err(self.failed("check the repository"))?;
            let text = |(level, e)| {
                let text = one_line(&format!("{e}"));
                // Warnings are about what costs space, not data.
                CheckResults(vec![(level, e)])
                    .is_ok()
                    .is_err()
                    .then_some(text)
            };
            Ok::<Vec<String>, RepositoryError>(found.0.into_iter().filter_map(text).collect())
        };
        let all = check(backups.iter().map(|b| b.snapshot.tree).collect())?;
        if all.is_empty() {
            return Ok(Vec::new());
        }
        // Something is wrong: whose is it?
        let mut damages = Vec::new();
        for backup in backups {
            for what in check(vec![backup.snapshot.tree])? {
                damages.push(Damage {
                    backup: Some(backup.id.clone()),
                    what,
                });
            }
        }
        for what in all {
            if !damages.iter().any(|d| d.what == what) {
                damages.push(Damage { backup: None, what });
            }
        }
        Ok(damages)
    }

    /// The bytes of all its files.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn size_bytes(&self) -> Result<u64, RepositoryError> {
        let infos = self
            .engine
            .infos_files()
            .map_err(self.failed("measure the repository"))?;
        Ok(infos.repo.iter().map(|i| i.size).sum())
    }

    /// Copies backups that the other repository does not have. Returns how many.
    ///
    /// # Errors
    /// When the copy fails; what was copied whole is listed there.
    pub fn copy_to(&self, other: &Self) -> Result<usize, RepositoryError> {
        let mine = self.backups()?;
        let theirs = other.backups()?;
        let missing: Vec<&SnapshotFile> = mine
            .iter()
            .filter(|b| {
                !theirs
                    .iter()
                    .any(|t| t.snapshot.original == Some(b.snapshot.id) || t.meta == b.meta)
            })
            .map(|b| &b.snapshot)
            .collect();
        if missing.is_empty() {
            return Ok(0);
        }
        let count = missing.len();
        let source = self
            .again()?
            .to_indexed()
            .map_err(self.failed("read the index"))?;
        let target = other
            .again()?
            .to_indexed_ids()
            .map_err(other.failed("read the index"))?;
        source
            .copy(&target, missing)
            .map_err(other.failed("copy backups"))?;
        Ok(count)
    }

    /// Reads the index, for reading what is in backups.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn reader(&self) -> Result<Reader, RepositoryError> {
        let engine = self
            .again()?
            .to_indexed()
            .map_err(self.failed("read the index"))?;
        Ok(Reader {
            place: self.place.clone(),
            bars: self.bars.clone(),
            engine,
        })
    }
}

/// A file in a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Its path within what was asked for.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// A repository whose index is in memory.
pub struct Reader {
    place: Place,
    bars: Bars,
    engine: Engine<IndexedFullStatus>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("place", &self.place.shown())
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// The files of a backup below `within` (empty: all).
    ///
    /// # Errors
    /// When there is no such folder, or it cannot be read.
    pub fn files(
        &self,
        backup: &Backup,
        within: &Path,
    ) -> Result<Vec<StoredFile>, RepositoryError> {
        let failed = |e: Box<RusticError>| self.place.failed("list the files of a backup", &e);
        let node = self
            .engine
            .node_from_path(backup.snapshot.tree, within)
            .map_err(failed)?;
        let mut files = Vec::new();
        for item in self
            .engine
            .ls(&node, &LsOptions::default())
            .map_err(failed)?
        {
            let (path, node) = item.map_err(failed)?;
            if node.is_file() {
                files.push(StoredFile {
                    path,
                    size_bytes: node.meta.size,
                });
            }
        }
        Ok(files)
    }

    /// Writes what a backup holds below `within` into a folder, which is made. Files that are there already and are the same in
    /// size and content are kept, so that an interrupted restore goes on where it was. Returns the bytes of all files.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn restore(
        &self,
        backup: &Backup,
        within: &Path,
        to: &Path,
    ) -> Result<u64, RepositoryError> {
        self.restore_some(backup, within, to, false, |_| true)
    }

    /// The same for those files of which `wanted` says so; it is given the path below `within`. Folders are made all. With `owners`
    /// files get the users and groups that they had, as far as this process may.
    ///
    /// # Errors
    /// As [`Reader::restore`].
    pub fn restore_some(
        &self,
        backup: &Backup,
        within: &Path,
        to: &Path,
        owners: bool,
        wanted: impl Fn(&Path) -> bool,
    ) -> Result<u64, RepositoryError> {
        let failed = |e: Box<RusticError>| self.place.failed("restore a backup", &e);
        let node = self
            .engine
            .node_from_path(backup.snapshot.tree, within)
            .map_err(failed)?;
        let mut options = RestoreOptions::default();
        options.no_ownership = !owners;
        options.verify_existing = true;
        let folder = to.to_owned();
        let to =
            LocalDestination::new(&to.to_string_lossy(), true, !node.is_dir()).map_err(failed)?;
        let nodes: Vec<(PathBuf, Node)> = self
            .engine
            .ls(&node, &LsOptions::default())
            .map_err(failed)?
            .filter(|item| match item {
                Ok((path, node)) => node.is_dir() || wanted(path),
                Err(_) => true,
            })
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        if node.is_dir() && self.place.folder().is_some() {
            self.write_files(&nodes, &folder)?;
            // What has the right size and time now is as it should be; the engine adds links, rights and folders' times.
            options.verify_existing = false;
        }
        let nodes = || nodes.iter().cloned().map(Ok);
        // The engine panics in its threads when a pack is damaged or the disk is full.
        let restored = quietly(|| {
            let plan = self.engine.prepare_restore(&options, nodes(), &to, false)?;
            let bytes = plan.restore_size + plan.matched_size;
            self.engine.restore(plan, &options, nodes(), &to)?;
            Ok(bytes)
        });
        restored
            .map_err(|reason| RepositoryError::Engine {
                doing: "restore a backup",
                place: self.place.shown(),
                reason,
            })?
            .map_err(failed)
    }

    /// Writes files one blob after the other. The engine itself reads up to twenty packs at once into memory, as it should from
    /// far away; from a folder that gains nothing.
    fn write_files(&self, nodes: &[(PathBuf, Node)], to: &Path) -> Result<(), RepositoryError> {
        let mut files = Vec::new();
        let mut size = 0;
        for (path, node) in nodes {
            if node.is_dir() {
                let folder = to.join(path);
                std::fs::create_dir_all(&folder).map_err(|e| self.unwritable(&folder, &e))?;
            } else if node.is_file() && node.meta.links <= 1 {
                files.push((path, node));
                size += node.meta.size;
            }
        }
        files.sort_by_key(|(_, node)| std::cmp::Reverse(node.meta.size));
        let progress = self.bars.progress(ProgressType::Bytes, "restoring files");
        progress.set_length(size);
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        let threads = thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4));
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some((path, node)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(e) = self.write_file(node, &to.join(path)) {
                            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                            next.store(files.len(), Ordering::Relaxed);
                        }
                        progress.inc(node.meta.size);
                    }
                });
            }
        });
        progress.finish();
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.map_or(Ok(()), Err)
    }

    fn write_file(&self, node: &Node, path: &Path) -> Result<(), RepositoryError> {
        let unwritable = |e| self.unwritable(path, &e);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(unwritable)?;
        self.engine
            .dump(node, &mut file)
            .map_err(|e| self.place.failed("restore a backup", &e))?;
        if let Some(at) = node.meta.mtime {
            file.set_modified(at.into()).map_err(unwritable)?;
        }
        Ok(())
    }

    fn unwritable(&self, path: &Path, error: &std::io::Error) -> RepositoryError {
        RepositoryError::Engine {
            doing: "restore a backup",
            place: self.place.shown(),
            reason: format!("{}: {error}", path.display()),
        }
    }

    /// The content of one small file of a backup.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    pub fn read(&self, backup: &Backup, path: &Path) -> Result<Vec<u8>, RepositoryError> {
        let failed = |e: Box<RusticError>| self.place.failed("read a file of a backup", &e);
        let node = self
            .engine
            .node_from_path(backup.snapshot.tree, path)
            .map_err(failed)?;
        let mut content = Vec::new();
        self.engine.dump(&node, &mut content).map_err(failed)?;
        Ok(content)
    }
}

/// What a panic within says, as an error. Other threads' panics are not to be expected meanwhile.
fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static SAID: Mutex<Option<String>> = Mutex::new(None);
    let said = || SAID.lock().unwrap_or_else(PoisonError::into_inner);
    *said() = None;
    let before = panic::take_hook();
    panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("it does not say why");
        let mut first = SAID.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| text.to_owned());
    }));
    let result = panic::catch_unwind(panic::AssertUnwindSafe(work));
    panic::set_hook(before);
    result.map_err(|_| {
        let text = said().take().unwrap_or_default();
        redact(&one_line(&text))
    })
}

fn ours(mut snapshots: Vec<SnapshotFile>) -> Vec<Backup> {
    snapshots.sort_by(|a, b| a.time.cmp(&b.time));
    snapshots
        .into_iter()
        .filter(|s| s.tags.contains(TAG))
        .filter_map(|snapshot| {
            let meta = Meta::from_text(snapshot.description.as_deref()?)?;
            Some(Backup {
                id: snapshot.id.to_hex().to_string(),
                meta,
                snapshot,
            })
        })
        .collect()
}

fn census(paths: &[PathBuf]) -> std::io::Result<Stored> {
    let mut sum = Stored::default();
    let mut folders = Vec::new();
    for path in paths {
        let meta = path.symlink_metadata()?;
        if meta.is_dir() {
            folders.push(path.clone());
        } else {
            sum.files += 1;
            sum.size_bytes += meta.len();
        }
    }
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                folders.push(entry.path());
            } else {
                sum.files += 1;
                sum.size_bytes += if meta.is_file() { meta.len() } else { 0 };
            }
        }
    }
    Ok(sum)
}

fn zoned(at: DateTime<Utc>) -> jiff::Zoned {
    jiff::Timestamp::from_microsecond(at.timestamp_micros())
        .unwrap_or_default()
        .to_zoned(jiff::tz::TimeZone::UTC)
}

fn moment(at: &jiff::Zoned) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(at.timestamp().as_microsecond()).unwrap_or_default()
}

/// The engine's messages have several lines and its own prefix.
fn reason(error: &RusticError) -> String {
    let text = error.display_log();
    redact(&one_line(text.strip_prefix("Error: ").unwrap_or(&text)))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
