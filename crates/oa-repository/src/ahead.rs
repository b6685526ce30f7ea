//! Storing a copy of a cluster while it is still being made, and noting the checksum of every file as it is stored.
//!
//! Whoever copies writes one file after the other and comes back to none, so most of what is there is complete while the rest is still
//! coming. It is stored in batches, each a snapshot that is no backup. The backup itself then takes over, as of any earlier one, the
//! files whose size and times are as they were when they were stored, and reads only the others. Killed in between: the snapshots are
//! removed by a later backup, like whatever a killed one has left.
//!
//! The file that is being copied now is read while it grows, if it is known how large it will be: most of a cluster may be one table. What
//! was read of it counts only if it came out as large, and the server's checksum of it decides as it does of every file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use chrono::TimeDelta;
use oa_core::base::supervise::StopSignal;
use rustic_core::repofile::{self, SnapshotId};
use rustic_core::{
    BackupOptions, Excludes, LocalSource, LocalSourceFilterOptions, LocalSourceSaveOptions,
    ReadSource, ReadSourceEntry, ReadSourceOpen, RusticResult,
};

use crate::follow::{Follow, Following};
use crate::{Meta, ProgressReporter, Repository, RepositoryError};

/// Smaller files are left to the backup itself: they are many, and hold little.
const LARGE: u64 = 1 << 20;
/// A batch has this many bytes at least, and this part of what was stored before it: then there are few of them.
const BATCH: (u64, u64) = (32 << 20, 8);
/// What is there is stored after this long in any case: the newest snapshot of a backup says that it still runs.
const RENEW: Duration = Duration::from_secs(3600);
/// How long a look at the folder is over before the next one, in looks, and at least.
const PAUSE: (u32, Duration) = (20, Duration::from_millis(50));

/// The CRC-32C of each file as it was read to be stored, by its path in the backup.
#[derive(Debug, Clone, Default)]
pub struct Checksums(Arc<Mutex<HashMap<PathBuf, u32>>>);

impl Checksums {
    /// That of a file; `None`: it was not read to its end.
    #[must_use]
    pub fn of(&self, path: &Path) -> Option<u32> {
        self.all().get(path).copied()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<PathBuf, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A copy that another program is making.
#[derive(Debug, Clone, Default)]
pub struct CopyInProgress {
    /// Where it is made.
    pub folder: PathBuf,
    /// Files below this are written more than once.
    pub unfinished: PathBuf,
    /// How many bytes files will have when they are complete, as far as that is known, by their paths within the folder.
    pub sizes: HashMap<PathBuf, u64>,
    /// Set when nothing is written any more.
    pub ended: Arc<AtomicBool>,
}

/// What was stored of a copy while it was made. The snapshots go when it is dropped, and their bytes with the next prune, unless a
/// backup has taken them over.
pub struct StoredAhead<'a> {
    repository: &'a Repository,
    pub(crate) snapshots: Vec<SnapshotId>,
    pub(crate) added_bytes: u64,
    /// The files that were read while they grew, and not again.
    pub(crate) followed: HashMap<PathBuf, Followed>,
}

/// A file that was read while it grew.
#[derive(Debug, Clone)]
pub(crate) struct Followed {
    /// What it was stored with.
    metadata: repofile::Metadata,
    /// When it was changed last, as it was when all of it had been read: where a copy is made once more meanwhile, another file may have
    /// its name, size and number.
    changed: Option<SystemTime>,
}

impl Followed {
    fn is(&self, metadata: &repofile::Metadata) -> bool {
        let stored = &self.metadata;
        (stored.size, stored.inode) == (metadata.size, metadata.inode)
            && self.changed.is_some()
            && self.changed == metadata.mtime.map(SystemTime::from)
    }
}

impl std::fmt::Debug for StoredAhead<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredAhead")
            .field("snapshots", &self.snapshots.len())
            .finish_non_exhaustive()
    }
}

impl Drop for StoredAhead<'_> {
    fn drop(&mut self) {
        if self.snapshots.is_empty() {
            return;
        }
        // What is left harms nothing, and is removed later.
        let removed = self.repository.engine.delete_snapshots(&self.snapshots);
        if let Err(e) = removed.map_err(self.repository.failed("tidy up after the backup")) {
            tracing::warn!("{e}");
        }
    }
}

impl Repository {
    /// Stores the large files of a copy while it is made, until it has ended. What goes wrong here is left to the backup itself, which
    /// meets it again.
    pub fn store_ahead(
        &self,
        copy: &CopyInProgress,
        meta: &Meta,
        checksums: &Checksums,
    ) -> StoredAhead<'_> {
        let mut ahead = StoredAhead {
            repository: self,
            snapshots: Vec::new(),
            added_bytes: 0,
            followed: HashMap::new(),
        };
        if let Err(e) = self.store_batches(copy, meta, checksums, &mut ahead) {
            tracing::info!("not stored while it was copied: {e}");
        }
        ahead
    }

    fn store_batches(
        &self,
        copy: &CopyInProgress,
        meta: &Meta,
        checksums: &Checksums,
        ahead: &mut StoredAhead<'_>,
    ) -> Result<(), RepositoryError> {
        let mut indexed = None;
        let mut copied = Copied::default();
        let (start, mut stored_last) = (Instant::now(), Instant::now());
        let mut indexed_at = start;
        while !copy.ended.load(Ordering::Relaxed) && !StopSignal.requested() {
            let began = Instant::now();
            let batch = copied.next(copy);
            let enough = match stored_last.elapsed() < RENEW {
                true => BATCH.0.max(copied.stored_bytes / BATCH.1),
                false => 1,
            };
            if batch.bytes < enough {
                thread::park_timeout(PAUSE.1.max(began.elapsed() * PAUSE.0));
                continue;
            }
            // What a prune marks meanwhile is there for a day, and known as used again only if it was not counted on for longer.
            let lately = indexed_at.elapsed() < RENEW;
            let engine = match indexed.take().filter(|_| lately) {
                Some(engine) => engine,
                None => {
                    indexed_at = Instant::now();
                    self.again_with(ProgressReporter::hidden())?
                        .to_indexed_ids()
                        .map_err(self.failed("read the index"))?
                }
            };
            let mut options = BackupOptions::default().no_scan(true);
            options.parent_opts.force = true;
            let names = batch.complete.keys().chain(batch.growing.keys());
            let mut paths: Vec<PathBuf> = names.map(|path| copy.folder.join(path)).collect();
            // The engine makes one tree of a folder whose files come one after the other.
            paths.sort();
            let following = Following::new(
                batch
                    .growing
                    .iter()
                    .map(|(path, size)| (in_backup(path), *size))
                    .collect(),
                &copy.ended,
            );
            let source = Staged::new(&copy.folder, &paths, checksums)
                .map_err(self.failed("store the copy"))?
                .following(&following);
            let at = TimeDelta::from_std(start.elapsed()).unwrap_or_default();
            let snapshot = self.snapshot_at(meta, meta.restorable_to + at)?;
            stored_last = Instant::now();
            // From here on their checksums are those of what is read now.
            for path in batch.complete.keys().chain(batch.growing.keys()) {
                ahead.followed.remove(&in_backup(path));
            }
            let stored = self.location.guarded("store the copy", || {
                engine.archive(&options, &source, snapshot, &[PathBuf::from("/")])
            })?;
            ahead.snapshots.push(stored.id);
            for (path, (metadata, changed)) in following.stored() {
                if changed.is_none() {
                    let within = path.strip_prefix("/").unwrap_or(&path);
                    copied.given_up.insert(within.to_owned());
                }
                ahead.followed.insert(path, Followed { metadata, changed });
            }
            let summary = stored.summary.as_ref();
            ahead.added_bytes += summary.map_or(0, |summary| summary.data_added_packed);
            copied.take(batch, &copy.folder);
            indexed = Some(engine);
        }
        Ok(())
    }
}

/// The path in the backup of what has this one within the copy's folder.
fn in_backup(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}

/// By these a file is known to be the same.
type Seen = (u64, Option<SystemTime>);

fn seen(meta: &Metadata) -> Seen {
    (meta.len(), meta.modified().ok())
}

/// What is known of a copy that is being made.
#[derive(Default)]
struct Copied {
    stored: BTreeMap<PathBuf, Seen>,
    stored_bytes: u64,
    /// Files that did not become what they were expected to be: they are stored when they are complete.
    given_up: BTreeSet<PathBuf>,
}

/// What of a copy is to be stored next, by paths within its folder.
#[derive(Default)]
struct Batch {
    complete: BTreeMap<PathBuf, Seen>,
    /// With the sizes that they will have.
    growing: BTreeMap<PathBuf, u64>,
    bytes: u64,
}

impl Copied {
    /// The large files that are not stored. Those that were changed last are still being written.
    fn next(&self, copy: &CopyInProgress) -> Batch {
        let mut complete = BTreeMap::new();
        let mut newest = None;
        let mut left = vec![copy.folder.clone()];
        while let Some(path) = left.pop() {
            for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
                let path = entry.path();
                let Ok(meta) = entry.metadata() else { continue };
                if meta.is_dir() && path != copy.unfinished {
                    left.push(path);
                } else if meta.is_file() {
                    newest = newest.max(meta.modified().ok());
                    if meta.len() >= LARGE
                        && let Ok(path) = path.strip_prefix(&copy.folder)
                        && self.stored.get(path) != Some(&seen(&meta))
                    {
                        complete.insert(path.to_owned(), seen(&meta));
                    }
                }
            }
        }
        let mut growing = BTreeMap::new();
        complete.retain(|path, (size, changed)| {
            let known = copy.sizes.get(path).filter(|known| **known >= *size);
            let expected = known.filter(|_| !self.given_up.contains(path));
            match expected {
                _ if *changed < newest => return true,
                Some(expected) => growing.insert(path.clone(), *expected),
                None => None,
            };
            false
        });
        let sizes = complete.values().map(|(size, _)| size);
        Batch {
            bytes: sizes.chain(growing.values()).sum(),
            complete,
            growing,
        }
    }

    /// Of a file that grew, what it is now was read: it had its size then, or is met again.
    fn take(&mut self, batch: Batch, folder: &Path) {
        self.stored.extend(batch.complete);
        for (path, expected) in batch.growing {
            let now = folder.join(&path).metadata().ok();
            if let Some(now) = now.filter(|now| now.len() == expected) {
                self.stored.insert(path, seen(&now));
            }
        }
        self.stored_bytes += batch.bytes;
    }
}

/// Files of a folder as the engine reads them, named by their paths within it.
pub(crate) struct Staged {
    folder: PathBuf,
    files: LocalSource,
    checksums: Checksums,
    following: Following,
    followed: HashMap<PathBuf, Followed>,
}

impl Staged {
    pub(crate) fn new(
        folder: &Path,
        paths: &[PathBuf],
        checksums: &Checksums,
    ) -> RusticResult<Self> {
        let files = LocalSource::new(
            LocalSourceSaveOptions::default(),
            &Excludes::default(),
            &LocalSourceFilterOptions::default(),
            paths,
        )?;
        Ok(Self {
            folder: folder.to_owned(),
            files,
            checksums: checksums.clone(),
            following: Following::default(),
            followed: HashMap::new(),
        })
    }

    /// These of them are read while they grow.
    fn following(mut self, following: &Following) -> Self {
        self.following = following.clone();
        self
    }

    /// These of them were read while they grew, and are known by what they were stored with.
    pub(crate) fn known(mut self, followed: &HashMap<PathBuf, Followed>) -> Self {
        self.followed.clone_from(followed);
        self
    }
}

impl ReadSource for Staged {
    type Open = StagedFile;
    type Iter = StagedFiles;

    fn size(&self) -> RusticResult<Option<u64>> {
        self.files.size()
    }

    fn entries(&self) -> StagedFiles {
        StagedFiles {
            folder: self.folder.clone(),
            files: self.files.entries(),
            checksums: self.checksums.clone(),
            following: self.following.clone(),
            followed: self.followed.clone(),
        }
    }
}

pub(crate) struct StagedFiles {
    folder: PathBuf,
    files: <LocalSource as ReadSource>::Iter,
    checksums: Checksums,
    following: Following,
    followed: HashMap<PathBuf, Followed>,
}

impl Iterator for StagedFiles {
    type Item = RusticResult<ReadSourceEntry<StagedFile>>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.files.next()?.map(|entry| {
            let path = entry.path.strip_prefix(&self.folder).unwrap_or(&entry.path);
            let path = in_backup(path);
            let mut node = entry.node;
            let follow = self.following.begin(&path, &mut node.meta);
            if let Some(followed) = self.followed.get(&path)
                && followed.is(&node.meta)
                && self.checksums.of(&path).is_some()
            {
                node.meta.clone_from(&followed.metadata);
            }
            ReadSourceEntry {
                open: entry.open.map(|file| StagedFile {
                    file,
                    path: path.clone(),
                    checksums: self.checksums.clone(),
                    follow,
                }),
                node,
                path,
            }
        });
        Some(entry)
    }
}

pub(crate) struct StagedFile {
    file: <LocalSource as ReadSource>::Open,
    path: PathBuf,
    checksums: Checksums,
    follow: Option<Follow>,
}

impl ReadSourceOpen for StagedFile {
    type Reader = Summing;

    fn open(self) -> RusticResult<Self::Reader> {
        self.checksums.all().remove(&self.path);
        Ok(Summing {
            file: self.file.open()?,
            path: self.path,
            checksums: self.checksums,
            follow: self.follow,
            read: 0,
            sum: 0,
        })
    }
}

/// A file that notes its checksum when it has been read to its end.
pub(crate) struct Summing {
    file: File,
    path: PathBuf,
    checksums: Checksums,
    follow: Option<Follow>,
    read: u64,
    sum: u32,
}

impl Read for Summing {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = match &self.follow {
            Some(follow) => follow.read(&mut self.file, self.read, buffer)?,
            None => self.file.read(buffer)?,
        };
        if let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) {
            self.sum = crc32c::crc32c_append(self.sum, bytes);
            self.read += read as u64;
        } else if !buffer.is_empty()
            && self
                .follow
                .as_ref()
                .is_none_or(|f| f.is_complete(self.read))
        {
            if let Some(follow) = &self.follow {
                follow.completed(&self.file);
            }
            self.checksums.all().insert(self.path.clone(), self.sum);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_still_being_written_is_left_for_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, size: u64| {
            let file = std::fs::File::create(path(name)).unwrap();
            file.set_len(size).unwrap();
            file
        };
        let before = SystemTime::now() - Duration::from_secs(60);
        for name in ["pg_wal", "base"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        for name in ["pg_wal/1", "base/1", "base/2"] {
            write(name, 2 * LARGE).set_modified(before).unwrap();
        }
        write("base/small", 10).set_modified(before).unwrap();
        write("base/3", LARGE);
        let mut copy = CopyInProgress {
            folder: folder.path().to_owned(),
            unfinished: path("pg_wal"),
            ..CopyInProgress::default()
        };
        let mut copied = Copied::default();
        let batch = copied.next(&copy);
        let names: Vec<&Path> = batch.complete.keys().map(PathBuf::as_path).collect();
        assert_eq!(names, [Path::new("base/1"), Path::new("base/2")]);
        assert_eq!(batch.bytes, 4 * LARGE);
        copied.take(batch, folder.path());
        write("base/2", 3 * LARGE).set_modified(before).unwrap();
        let again = copied.next(&copy);
        let names: Vec<&Path> = again.complete.keys().map(PathBuf::as_path).collect();
        assert_eq!(names, [Path::new("base/2")], "it was changed");
        assert!(again.growing.is_empty(), "nobody knows how it will end");

        let growing = PathBuf::from("base/3");
        copy.sizes.insert(growing.clone(), 5 * LARGE);
        let batch = copied.next(&copy);
        assert_eq!(batch.growing.get(&growing), Some(&(5 * LARGE)));
        copied.take(batch, folder.path());
        let batch = copied.next(&copy);
        assert!(batch.growing.contains_key(&growing), "it is not complete");
        copied.given_up.insert(growing.clone());
        assert!(copied.next(&copy).growing.is_empty(), "nor will it be");
        copied.given_up.clear();
        write("base/3", 5 * LARGE);
        copied.take(batch, folder.path());
        assert_eq!(copied.next(&copy).bytes, 0);
    }

    /// What was read of a file that had so many bytes at first and gets more, and whether its checksum was noted.
    fn followed(first: usize, more: usize, expected: usize) -> (usize, bool) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |bytes: usize| {
            let mut file = std::fs::File::options()
                .append(true)
                .open(file.path())
                .unwrap();
            std::io::Write::write_all(&mut file, &vec![7; bytes]).unwrap();
        };
        write(first);
        let name = PathBuf::from("/base/1");
        let ended = Arc::new(AtomicBool::new(false));
        let sizes = HashMap::from([(name.clone(), expected as u64)]);
        let checksums = Checksums::default();
        let following = Following::new(sizes, &ended);
        let mut reader = Summing {
            file: File::open(file.path()).unwrap(),
            path: name.clone(),
            checksums: checksums.clone(),
            follow: following.begin(&name, &mut repofile::Metadata::default()),
            read: 0,
            sum: 0,
        };
        let mut content = Vec::new();
        thread::scope(|scope| {
            let reading = scope.spawn(|| reader.read_to_end(&mut content).unwrap());
            write(more);
            ended.store(true, Ordering::Release);
            reading.join().unwrap();
        });
        let noted = checksums.of(&name);
        assert!(noted.is_none_or(|sum| sum == crc32c::crc32c(&content)));
        let known = following.stored();
        assert_eq!(known[&name].1.is_some(), noted.is_some());
        (content.len(), noted.is_some())
    }

    #[test]
    fn a_file_that_grows_is_read_to_its_end_and_counts_only_if_that_is_where_it_was_expected() {
        assert_eq!(followed(1000, 200_000, 201_000), (201_000, true));
        assert_eq!(followed(1000, 0, 2000), (1000, false));
        assert_eq!(followed(0, 9000, 8000), (8000, true), "and is met again");
    }
}
