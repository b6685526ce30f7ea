//! The repository: restic's format, read and written by `rustic_core`, so that a stock `restic` can restore from it should this
//! project vanish. This module adds what a backup needs besides: what is stored is complete, it is durable before it is called
//! done, and every snapshot says in itself what it is ([`meta`]).
//!
//! A snapshot's file is written last, after everything it refers to. Killed before that: nothing is listed; what was written is
//! removed by a later `prune`. Two programs may write at once; what `prune` finds unused it only marks, and removes a day later.

mod damage;
mod durable;
mod engine;
pub mod meta;
mod modes;
mod place;
mod reader;
mod repair;
mod s3;
mod spare;
mod stop;

use std::collections::{BTreeSet, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use oa_core::base::supervise::StopSignal;
use oa_core::base::units::Bytes;
use rustic_core::repofile::SnapshotFile;
use rustic_core::{
    BackupOptions, CheckOptions, CheckResults, Credentials, FileType, Id, OpenStatus, PathList,
    Progress, ProgressBars, ProgressType, PruneOptions, ReadBackend, Repository as Engine,
    RusticError, SnapshotOptions, StringList, TreeId, jiff,
};
use sha2::{Digest, Sha256};

use self::engine::{one_line, reason};
pub use self::meta::{Counts, Kind, Level, Lsn, Mark, Meta, TableMark, WalRange};
pub use self::place::{Place, RepositoryError};
pub use self::reader::{Reader, StoredFile};
pub use self::repair::Repaired;
pub use self::spare::Healed;

/// Tag of every snapshot of ours.
const TAG: &str = "oa";
/// What is unused is only marked, and removed after this long: a backup that runs meanwhile may still use it.
const KEEP_UNUSED: Duration = Duration::from_secs(23 * 3600);

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
    /// When the list cannot be read. A snapshot that cannot be read is an error too: see [`Repository::readable_backups`].
    pub fn backups(&self) -> Result<Vec<Backup>, RepositoryError> {
        let snapshots = self
            .engine
            .get_all_snapshots()
            .map_err(self.failed("list the backups (oa-backup verify names a damaged one, oa-backup repair takes it out)"))?;
        Ok(ours(snapshots))
    }

    /// The backups whose snapshots can be read, and what is wrong with the others.
    ///
    /// # Errors
    /// When the repository cannot be listed.
    pub fn readable_backups(&self) -> Result<(Vec<Backup>, Vec<Damage>), RepositoryError> {
        if let Ok(snapshots) = self.engine.get_all_snapshots() {
            return Ok((ours(snapshots), Vec::new()));
        }
        let ids = self
            .engine
            .list::<rustic_core::repofile::SnapshotId>()
            .map_err(self.failed("list the backups"))?;
        let (mut snapshots, mut damages) = (Vec::new(), Vec::new());
        for id in ids {
            let name = id.to_hex().to_string();
            match self.engine.get_snapshots(&[name.as_str()]) {
                Ok(found) => snapshots.extend(found),
                Err(_) => damages.push(Damage {
                    backup: Some(name),
                    what: self.wrong_with(FileType::Snapshot, &id)?,
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

    /// Stores everything in `folder`. It is a backup, and listed, only with [`Pending::publish`].
    ///
    /// # Errors
    /// When not everything is stored, or this process is asked to stop.
    pub fn store(&self, folder: &Path, meta: &Meta) -> Result<Pending<'_>, RepositoryError> {
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
        meta: &Meta,
    ) -> Result<Option<Pending<'_>>, RepositoryError> {
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

    /// What the engine could not read or write it leaves out, so files and bytes are counted before and after.
    fn store_paths(
        &self,
        list: &PathList,
        as_path: Option<&Path>,
        meta: &Meta,
    ) -> Result<Option<Pending<'_>>, RepositoryError> {
        let staged = as_path.is_some();
        let (before, there) = census(&list.paths(), !staged)?;
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
        let stored = self.place.guarded("store the backup", || {
            indexed.backup(&options, list, snapshot)
        })?;
        oa_core::base::failpoint::hit("backup.stored");
        let summary = stored.summary.clone().unwrap_or_default();
        let after = Counts {
            files: summary.total_files_processed,
            size_bytes: summary.total_bytes_processed,
            added_bytes: summary.data_added_packed,
        };
        let unchanged = stored.id == rustic_core::repofile::SnapshotId::default();
        let pending = Pending {
            repository: self,
            snapshot: stored,
            stored: after,
        };
        if unchanged {
            return Ok(None);
        }
        if before.files == after.files && (!staged || before.size_bytes == after.size_bytes) {
            return Ok(Some(pending));
        }
        // Files of the operator may come and go meanwhile, but none that was there all the time may be left out.
        let shown = |s: Counts| format!("{} files, {}", s.files, Bytes(s.size_bytes));
        let expected = if staged {
            shown(before)
        } else {
            match self.left_out(&pending, &list.paths(), &there) {
                Ok(None) => return Ok(Some(pending)),
                Ok(Some(path)) => format!("{}, and {} is not in it", shown(before), path.display()),
                Err(e) => e.to_string(),
            }
        };
        pending.withdraw()?;
        Err(RepositoryError::Incomplete {
            what: meta.label(),
            stored: shown(after),
            expected,
        })
    }

    /// A file that was not stored, although it was there before and still is.
    fn left_out(
        &self,
        pending: &Pending<'_>,
        paths: &[PathBuf],
        before: &HashSet<File>,
    ) -> Result<Option<PathBuf>, RepositoryError> {
        let stored: HashSet<PathBuf> = self
            .reader()?
            .paths(pending.snapshot.tree)?
            .into_iter()
            .map(|path| Path::new("/").join(path))
            .collect();
        let (_, after) = census(paths, true)?;
        let mut there = after.into_iter().filter(|file| before.contains(file));
        let left_out = there.find(|file| !stored.contains(&file.path));
        Ok(left_out.map(|file| file.path))
    }

    /// Removes what a killed backup has left. Only what is older than any backup that may still run.
    fn remove_unfinished(&self) -> Result<(), RepositoryError> {
        // One that is damaged is told of elsewhere.
        let Ok(snapshots) = self.engine.get_all_snapshots() else {
            return Ok(());
        };
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

    /// Checks that everything the backups need is there; with `read`, also reads every byte back. What is wrong is told by backup;
    /// what none of these backups needs belongs to none.
    ///
    /// # Errors
    /// When the check itself cannot be done, for example because the index cannot be read.
    pub fn check(&self, backups: &[Backup], read: bool) -> Result<Vec<Damage>, RepositoryError> {
        let trees: Vec<(&str, TreeId)> = backups
            .iter()
            .map(|b| (b.id.as_str(), b.snapshot.tree))
            .collect();
        self.check_trees(&trees, read)
    }

    fn check_trees(
        &self,
        trees: &[(&str, TreeId)],
        read: bool,
    ) -> Result<Vec<Damage>, RepositoryError> {
        let check = |trees: Vec<TreeId>, read| {
            let options = CheckOptions::default().read_data(read);
            let found = self.place.guarded("check the repository", || {
                self.engine.check_with_trees(options, trees)
            })?;
            let text = |(level, e)| {
                let text = one_line(&format!("{e}"));
                // Warnings are about what costs space, not data.
                CheckResults(vec![(level, e)])
                    .is_ok()
                    .is_err()
                    .then_some(text)
            };
            let found = found.0.into_iter().filter_map(text);
            let found = found.filter(|what| !damage::is_going_anyway(what));
            if StopSignal.requested() {
                return Err(RepositoryError::Stopped);
            }
            Ok(found.collect::<Vec<String>>())
        };
        let all = check(trees.iter().map(|(_, tree)| *tree).collect(), read)?;
        if all.is_empty() {
            return Ok(Vec::new());
        }
        // Something is wrong: whose is it? Findings about packs are the same for every tree.
        let indexed = self
            .again()?
            .to_indexed()
            .map_err(self.failed("read the index"))?;
        let again = read && all.iter().any(|what| damage::ends_the_reading(what));
        let mut words = damage::Words::new(self)?;
        let mut damages = Vec::new();
        let mut whose = BTreeSet::new();
        for (id, tree) in trees {
            let packs = damage::packs_of(&indexed, *tree);
            let found = check(vec![*tree], again)?;
            let own = found
                .iter()
                .filter(|what| damage::pack_named_in(what).is_none());
            let of_packs = all.iter().chain(&found).filter(|what| {
                damage::pack_named_in(what)
                    .is_some_and(|named| packs.keys().any(|p| p.starts_with(named)))
            });
            let mine: BTreeSet<&String> = own.chain(of_packs).collect();
            whose.extend(mine.iter().map(|what| (*what).clone()));
            damages.extend(words.say(&mine, &packs)?.into_iter().map(|what| Damage {
                backup: Some((*id).to_owned()),
                what,
            }));
        }
        let others: BTreeSet<&String> = all.iter().filter(|what| !whose.contains(*what)).collect();
        for what in words.say(&others, &std::collections::BTreeMap::new())? {
            if !damages.iter().any(|d| d.what == what) {
                damages.push(Damage { backup: None, what });
            }
        }
        Ok(damages)
    }

    /// What is wrong with a file, found by reading it: its name is the hash of its content.
    fn wrong_with(&self, kind: FileType, id: &Id) -> Result<String, RepositoryError> {
        let name = repair::name(kind, id);
        let backend = self.place.raw()?;
        let content = backend.read_full(kind, id);
        if StopSignal.requested() {
            return Err(RepositoryError::Stopped);
        }
        Ok(match content {
            Ok(content) if repair::hex(&Sha256::digest(&content)) == *id.to_hex() => {
                format!("{name}: {}", damage::FITS_NOT)
            }
            Ok(_) => format!("{name}: its content is not what was written"),
            Err(e) => match backend.list(kind) {
                Ok(there) if !there.contains(id) => format!("{name}: it is missing"),
                _ => format!("{name}: {}", reason(&e)),
            },
        })
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

    /// Copies backups that the other repository does not have, and checks that all of them is there. Returns how many.
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
        other
            .place
            .guarded("copy backups", || source.copy(&target, missing))?;
        let new: Vec<Backup> = other
            .backups()?
            .into_iter()
            .filter(|b| !theirs.iter().any(|t| t.id == b.id))
            .collect();
        let damages = other.check(&new, false)?;
        let damaged = |b: &Backup| damages.iter().find(|d| d.backup.as_ref() == Some(&b.id));
        if let Some(damage) = new.iter().find_map(damaged) {
            let broken: Vec<Backup> = new
                .iter()
                .filter(|b| damaged(b).is_some())
                .cloned()
                .collect();
            other.forget(&broken)?;
            return Err(RepositoryError::Damaged(damage.what.clone()));
        }
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

/// What is stored as a whole, and not yet a backup. Killed before it is published or withdrawn: a snapshot without our tag is left,
/// which is no backup, and which a later backup removes.
#[derive(Debug)]
pub struct Pending<'a> {
    repository: &'a Repository,
    snapshot: SnapshotFile,
    stored: Counts,
}

impl Pending<'_> {
    /// What is wrong with what it needs (`Damage::backup` is set), and with the rest of the repository.
    ///
    /// # Errors
    /// As [`Repository::check`].
    pub fn check(&self) -> Result<Vec<Damage>, RepositoryError> {
        let id = self.snapshot.id.to_hex();
        self.repository
            .check_trees(&[(id.as_str(), self.snapshot.tree)], false)
    }

    /// Makes it a backup: it gets its description and our tag.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn publish(self, mut meta: Meta) -> Result<Backup, RepositoryError> {
        let repository = self.repository;
        meta.stored = self.stored;
        let mut snapshot = self.snapshot.clone();
        // Without either it would be listed nowhere, and taken for what a killed backup has left.
        let tags = format!("{TAG},{},{}", meta.kind.as_str(), meta.level.as_str());
        let described = tags
            .parse::<StringList>()
            .map_err(|e| one_line(&format!("{e}")))
            .and_then(|tags| Ok((tags, meta.to_text().map_err(|e| e.to_string())?)));
        let (tags, text) = match described {
            Ok(described) => described,
            Err(reason) => {
                let failed = RepositoryError::Engine {
                    doing: "describe the backup",
                    place: repository.place.shown(),
                    reason,
                };
                self.withdraw()?;
                return Err(failed);
            }
        };
        snapshot.add_tags(vec![tags]);
        snapshot.description = Some(text);
        repository
            .engine
            .save_snapshots(vec![snapshot])
            .map_err(repository.failed("list the backup"))?;
        oa_core::base::failpoint::hit("backup.published");
        // It is a backup now; what is left over harms nothing, and is removed later.
        if let Err(e) = self.withdraw() {
            tracing::warn!("{e}");
        }
        repository
            .readable_backups()?
            .0
            .into_iter()
            .find(|b| b.meta == meta)
            .ok_or_else(|| RepositoryError::NoBackup("that was just stored".to_owned()))
    }

    /// Removes it. Its bytes stay until [`Repository::prune`].
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn withdraw(self) -> Result<(), RepositoryError> {
        self.repository
            .engine
            .delete_snapshots(&[self.snapshot.id])
            .map_err(self.repository.failed("tidy up after the backup"))
    }
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

/// A file, which another one under the same name is not.
#[derive(Debug, PartialEq, Eq, Hash)]
struct File {
    path: PathBuf,
    inode: u64,
    created: Option<SystemTime>,
}

/// How much there is, and with `named` also which files. What goes away meanwhile is passed over.
fn census(paths: &[PathBuf], named: bool) -> Result<(Counts, HashSet<File>), RepositoryError> {
    let (mut sum, mut names) = (Counts::default(), HashSet::new());
    let mut left = paths.to_vec();
    let gone = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
    while let Some(path) = left.pop() {
        let failed = |e| {
            RepositoryError::Place(format!(
                "could not read {}, which is to be stored: {e}",
                path.display()
            ))
        };
        let meta = match path.symlink_metadata() {
            Err(e) if gone(&e) => continue,
            meta => meta.map_err(failed)?,
        };
        if meta.is_dir() {
            match std::fs::read_dir(&path) {
                Err(e) if gone(&e) => {}
                entries => {
                    for entry in entries.map_err(failed)? {
                        left.push(entry.map_err(failed)?.path());
                    }
                }
            }
            continue;
        }
        sum.files += 1;
        sum.size_bytes += if meta.is_file() { meta.len() } else { 0 };
        if named {
            names.insert(File {
                inode: meta.ino(),
                created: meta.created().ok(),
                path,
            });
        }
    }
    Ok((sum, names))
}

fn zoned(at: DateTime<Utc>) -> jiff::Zoned {
    jiff::Timestamp::from_microsecond(at.timestamp_micros())
        .unwrap_or_default()
        .to_zoned(jiff::tz::TimeZone::UTC)
}

fn moment(at: &jiff::Zoned) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(at.timestamp().as_microsecond()).unwrap_or_default()
}
