//! Storing a copy of a cluster while it is still being made, and noting the checksum of every file as it is stored.
//!
//! Whoever copies writes one file after the other and comes back to none, so most of what is there is complete while the rest is still
//! coming. It is stored in batches, each a snapshot that is no backup. The backup itself then takes over, as of any earlier one, the
//! files whose size and times are as they were when they were stored, and reads only the others. Killed in between: the snapshots are
//! removed by a later backup, like whatever a killed one has left.

use std::collections::{BTreeMap, HashMap};
use std::fs::Metadata;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use chrono::TimeDelta;
use oa_core::base::supervise::StopSignal;
use rustic_core::repofile::SnapshotId;
use rustic_core::{
    BackupOptions, Excludes, LocalSource, LocalSourceFilterOptions, LocalSourceSaveOptions,
    ReadSource, ReadSourceEntry, ReadSourceOpen, RusticResult,
};

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

/// What was stored of a copy while it was made. The snapshots go when it is dropped, and their bytes with the next prune, unless a
/// backup has taken them over.
pub struct StoredAhead<'a> {
    repository: &'a Repository,
    pub(crate) snapshots: Vec<SnapshotId>,
    pub(crate) added_bytes: u64,
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
    /// Stores the large files of a folder while another program fills it, until `done` is set. Never those below `unfinished`, which are
    /// written more than once. What goes wrong here is left to the backup itself, which meets it again.
    pub fn store_ahead(
        &self,
        folder: &Path,
        unfinished: &Path,
        meta: &Meta,
        checksums: &Checksums,
        done: &AtomicBool,
    ) -> StoredAhead<'_> {
        let mut ahead = StoredAhead {
            repository: self,
            snapshots: Vec::new(),
            added_bytes: 0,
        };
        let stored = self.store_batches(folder, unfinished, meta, checksums, done, &mut ahead);
        if let Err(e) = stored {
            tracing::info!("not stored while it was copied: {e}");
        }
        ahead
    }

    fn store_batches(
        &self,
        folder: &Path,
        unfinished: &Path,
        meta: &Meta,
        checksums: &Checksums,
        done: &AtomicBool,
        ahead: &mut StoredAhead<'_>,
    ) -> Result<(), RepositoryError> {
        let mut indexed = None;
        let mut copied = Copied::default();
        let (start, mut stored_last) = (Instant::now(), Instant::now());
        while !done.load(Ordering::Relaxed) && !StopSignal.requested() {
            let began = Instant::now();
            let (batch, bytes) = copied.complete(folder, unfinished);
            let enough = match stored_last.elapsed() < RENEW {
                true => BATCH.0.max(copied.stored_bytes / BATCH.1),
                false => 1,
            };
            if bytes < enough {
                thread::park_timeout(PAUSE.1.max(began.elapsed() * PAUSE.0));
                continue;
            }
            let engine = match indexed.take() {
                Some(engine) => engine,
                None => self
                    .again_with(ProgressReporter::hidden())?
                    .to_indexed_ids()
                    .map_err(self.failed("read the index"))?,
            };
            let mut options = BackupOptions::default().no_scan(true);
            options.parent_opts.force = true;
            let paths: Vec<PathBuf> = batch.keys().map(|path| folder.join(path)).collect();
            let source =
                Staged::new(folder, &paths, checksums).map_err(self.failed("store the copy"))?;
            let at = TimeDelta::from_std(start.elapsed()).unwrap_or_default();
            let snapshot = self.snapshot_at(meta, meta.restorable_to + at)?;
            stored_last = Instant::now();
            let stored = self.location.guarded("store the copy", || {
                engine.archive(&options, &source, snapshot, &[PathBuf::from("/")])
            })?;
            ahead.snapshots.push(stored.id);
            let summary = stored.summary.as_ref();
            ahead.added_bytes += summary.map_or(0, |summary| summary.data_added_packed);
            copied.take(batch, bytes);
            indexed = Some(engine);
        }
        Ok(())
    }
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
}

impl Copied {
    /// The large files that are complete and not stored, by their paths within the folder, and their bytes. Those that were changed last
    /// are still being written.
    fn complete(&self, folder: &Path, unfinished: &Path) -> (BTreeMap<PathBuf, Seen>, u64) {
        let mut found = BTreeMap::new();
        let mut newest = None;
        let mut left = vec![folder.to_owned()];
        while let Some(path) = left.pop() {
            for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
                let path = entry.path();
                let Ok(meta) = entry.metadata() else { continue };
                if meta.is_dir() && path != unfinished {
                    left.push(path);
                } else if meta.is_file() {
                    newest = newest.max(meta.modified().ok());
                    if meta.len() >= LARGE
                        && let Ok(path) = path.strip_prefix(folder)
                        && self.stored.get(path) != Some(&seen(&meta))
                    {
                        found.insert(path.to_owned(), seen(&meta));
                    }
                }
            }
        }
        found.retain(|_, (_, changed)| *changed < newest);
        let bytes = found.values().map(|(size, _)| size).sum();
        (found, bytes)
    }

    fn take(&mut self, batch: BTreeMap<PathBuf, Seen>, bytes: u64) {
        self.stored.extend(batch);
        self.stored_bytes += bytes;
    }
}

/// Files of a folder as the engine reads them, named by their paths within it.
pub(crate) struct Staged {
    folder: PathBuf,
    files: LocalSource,
    checksums: Checksums,
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
        })
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
        }
    }
}

pub(crate) struct StagedFiles {
    folder: PathBuf,
    files: <LocalSource as ReadSource>::Iter,
    checksums: Checksums,
}

impl Iterator for StagedFiles {
    type Item = RusticResult<ReadSourceEntry<StagedFile>>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.files.next()?.map(|entry| {
            let path = entry.path.strip_prefix(&self.folder).unwrap_or(&entry.path);
            let path = Path::new("/").join(path);
            ReadSourceEntry {
                open: entry.open.map(|file| StagedFile {
                    file,
                    path: path.clone(),
                    checksums: self.checksums.clone(),
                }),
                node: entry.node,
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
}

impl ReadSourceOpen for StagedFile {
    type Reader = Summing<<<LocalSource as ReadSource>::Open as ReadSourceOpen>::Reader>;

    fn open(self) -> RusticResult<Self::Reader> {
        self.checksums.all().remove(&self.path);
        Ok(Summing {
            file: self.file.open()?,
            path: self.path,
            checksums: self.checksums,
            sum: 0,
        })
    }
}

/// A file that notes its checksum when it has been read to its end.
pub(crate) struct Summing<R> {
    file: R,
    path: PathBuf,
    checksums: Checksums,
    sum: u32,
}

impl<R: Read> Read for Summing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        if let Some(read) = buffer.get(..read).filter(|read| !read.is_empty()) {
            self.sum = crc32c::crc32c_append(self.sum, read);
        } else if !buffer.is_empty() {
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
        let mut copied = Copied::default();
        let (batch, bytes) = copied.complete(folder.path(), &path("pg_wal"));
        let names: Vec<&Path> = batch.keys().map(PathBuf::as_path).collect();
        assert_eq!(names, [Path::new("base/1"), Path::new("base/2")]);
        assert_eq!(bytes, 4 * LARGE);
        copied.take(batch, bytes);
        write("base/2", 3 * LARGE).set_modified(before).unwrap();
        let (again, _) = copied.complete(folder.path(), &path("pg_wal"));
        let names: Vec<&Path> = again.keys().map(PathBuf::as_path).collect();
        assert_eq!(names, [Path::new("base/2")], "it was changed");
    }
}
