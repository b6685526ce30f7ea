//! Storing a backup: all of it or nothing, and listed only once it is whole.
//!
//! A snapshot's file is written last, after everything it refers to. Killed before that: nothing is listed; what was written is
//! removed by a later `prune`.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use oa_core::base::units::Bytes;
use rustic_core::repofile::{SnapshotFile, SnapshotId};
use rustic_core::{BackupOptions, PathList, SnapshotOptions, StringList, jiff};

use crate::ahead::{Checksums, Staged, StoredAhead};
use crate::backup::{TAG, utc};
use crate::engine::one_line;
use crate::repository::KEEP_UNUSED;
use crate::{Backup, Counts, Damage, Kind, Level, Meta, Repository, RepositoryError};

impl Repository {
    /// Stores everything in `folder`. It is a backup, and listed, only with [`UnpublishedBackup::publish`].
    pub fn store(
        &self,
        folder: &Path,
        meta: &Meta,
    ) -> Result<UnpublishedBackup<'_>, RepositoryError> {
        let list = PathList::from_iter(Some(folder.to_owned()));
        let stored = self.store_paths(&list, Some(Path::new("/")), meta)?;
        stored.ok_or_else(|| RepositoryError::NoBackup("that was just stored".to_owned()))
    }

    /// The same for a copy of which `ahead` was stored while it was made. The checksum of each file is noted as it is stored.
    pub fn store_copy<'a>(
        &'a self,
        folder: &Path,
        meta: &Meta,
        ahead: StoredAhead<'a>,
        checksums: &Checksums,
    ) -> Result<UnpublishedBackup<'a>, RepositoryError> {
        let paths = [folder.to_owned()];
        let (expected, _) = census(&paths, false)?;
        // Copying may have taken longer than what is unfinished is kept.
        self.remove_unfinished(&ahead.snapshots, meta.captured_at)?;
        let indexed = self
            .again()?
            .to_indexed_ids()
            .map_err(self.failed("read the index"))?;
        let mut options = BackupOptions::default();
        options.parent_opts.force = ahead.snapshots.is_empty();
        let ids = ahead.snapshots.iter();
        options.parent_opts.parents = ids.map(|id| id.to_hex().to_string()).collect();
        let source = Staged::new(folder, &paths, checksums)
            .map_err(self.failed("store the copy"))?
            .known(&ahead.followed);
        let snapshot = self.snapshot(meta)?;
        let mut stored = self.location.guarded("store the backup", || {
            indexed.archive(&options, &source, snapshot, &[PathBuf::from("/")])
        })?;
        // They go, and it stands alone.
        stored.parent = None;
        stored.parents = Vec::new();
        oa_core::base::failpoint::hit("backup.stored");
        let mut counts = counted(&stored);
        counts.added_bytes += ahead.added_bytes;
        let pending = UnpublishedBackup {
            repository: self,
            snapshot: stored,
            stored: counts,
            _ahead: Some(ahead),
        };
        if expected.files == counts.files && expected.size_bytes == counts.size_bytes {
            return Ok(pending);
        }
        pending.withdraw()?;
        Err(RepositoryError::Incomplete {
            what: meta.label(),
            stored: shown(counts),
            expected: shown(expected),
        })
    }

    /// The same for files where they are, under their own paths. `None` when nothing has changed since the last time, and
    /// `meta.level` is incremental.
    pub fn store_files(
        &self,
        paths: &[PathBuf],
        meta: &Meta,
    ) -> Result<Option<UnpublishedBackup<'_>>, RepositoryError> {
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

    /// What the engine could not read or write it skips, so files and bytes are counted before and after.
    fn store_paths(
        &self,
        list: &PathList,
        as_path: Option<&Path>,
        meta: &Meta,
    ) -> Result<Option<UnpublishedBackup<'_>>, RepositoryError> {
        let staged = as_path.is_some();
        let (before, there) = census(&list.paths(), !staged)?;
        self.remove_unfinished(&[], meta.captured_at)?;
        let indexed = self
            .again()?
            .to_indexed_ids()
            .map_err(self.failed("read the index"))?;
        let mut options = BackupOptions::default().as_path(as_path.map(Path::to_owned));
        // WAL and files of the operator are compared with the last backup of the same kind by size, time of change, inode and time of
        // the inode's change.
        options.parent_opts.skip_if_unchanged =
            meta.kind == Kind::Files && meta.level == Level::Incremental;
        let snapshot = self.snapshot(meta)?;
        let stored = self.location.guarded("store the backup", || {
            indexed.backup(&options, list, snapshot)
        })?;
        oa_core::base::failpoint::hit("backup.stored");
        let after = counted(&stored);
        let unchanged = stored.id == rustic_core::repofile::SnapshotId::default();
        let pending = UnpublishedBackup {
            repository: self,
            snapshot: stored,
            stored: after,
            _ahead: None,
        };
        if unchanged {
            return Ok(None);
        }
        if before.files == after.files && (!staged || before.size_bytes == after.size_bytes) {
            return Ok(Some(pending));
        }
        // Files of the operator may come and go meanwhile, but none that was there all the time may be skipped.
        let expected = if staged {
            shown(before)
        } else {
            match self.skipped(&pending, &list.paths(), &there) {
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

    /// A snapshot that says of itself what it will be.
    fn snapshot(&self, meta: &Meta) -> Result<SnapshotFile, RepositoryError> {
        self.snapshot_at(meta, meta.restorable_to)
    }

    pub(crate) fn snapshot_at(
        &self,
        meta: &Meta,
        at: DateTime<Utc>,
    ) -> Result<SnapshotFile, RepositoryError> {
        let mut options = SnapshotOptions::default()
            .host(meta.host.clone())
            .label(meta.label());
        let time = zoned(at).ok_or_else(|| RepositoryError::Engine {
            doing: "begin a backup",
            place: self.location.shown(),
            reason: format!("{at} is no time that it knows"),
            system: None,
        })?;
        options.time = Some(time);
        options.command = Some(String::from("oa-backup"));
        options.to_snapshot().map_err(self.failed("begin a backup"))
    }

    /// A file that was not stored, although it was there before and still is.
    fn skipped(
        &self,
        pending: &UnpublishedBackup<'_>,
        paths: &[PathBuf],
        before: &HashSet<FileIdentity>,
    ) -> Result<Option<PathBuf>, RepositoryError> {
        let stored: HashSet<PathBuf> = self
            .reader()?
            .paths(pending.snapshot.tree)?
            .into_iter()
            .map(|path| Path::new("/").join(path))
            .collect();
        let (_, after) = census(paths, true)?;
        let mut there = after.into_iter().filter(|file| before.contains(file));
        let skipped = there.find(|file| !stored.contains(&file.path));
        Ok(skipped.map(|file| file.path))
    }

    /// Removes what killed backups have left. Of a full backup that runs beside this one the newest snapshot says that it still does. Times
    /// are the server's, `now` as well.
    fn remove_unfinished(
        &self,
        own: &[SnapshotId],
        now: DateTime<Utc>,
    ) -> Result<(), RepositoryError> {
        // One that is damaged is reported elsewhere.
        let Ok(mut snapshots) = self.engine.get_all_snapshots() else {
            return Ok(());
        };
        snapshots.retain(|s| s.label.starts_with("oa ") && !s.tags.contains(TAG));
        let running: HashSet<_> = snapshots
            .iter()
            .filter(|s| utc(&s.time) >= now - KEEP_UNUSED)
            .map(|s| (&s.hostname, &s.label))
            .collect();
        let left: Vec<_> = snapshots
            .iter()
            .filter(|s| !running.contains(&(&s.hostname, &s.label)) && !own.contains(&s.id))
            .map(|s| s.id)
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        self.engine
            .delete_snapshots(&left)
            .map_err(self.failed("remove an unfinished backup"))
    }
}

/// What is stored as a whole, and not yet a backup. Killed before it is published or withdrawn: a snapshot without our tag is left,
/// which is no backup, and which a later backup removes.
#[derive(Debug)]
pub struct UnpublishedBackup<'a> {
    repository: &'a Repository,
    snapshot: SnapshotFile,
    stored: Counts,
    _ahead: Option<StoredAhead<'a>>,
}

impl UnpublishedBackup<'_> {
    /// What is wrong with what it needs (`Damage::backup` is set), and with the rest of the repository.
    pub fn check(&self) -> Result<Vec<Damage>, RepositoryError> {
        let id = self.snapshot.id.to_hex();
        self.repository
            .check_trees(&[(id.as_str(), self.snapshot.tree)], false)
    }

    /// Makes it a backup: it gets its description and our tag.
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
                    place: repository.location.shown(),
                    reason,
                    system: None,
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
    pub fn withdraw(self) -> Result<(), RepositoryError> {
        self.repository
            .engine
            .delete_snapshots(&[self.snapshot.id])
            .map_err(self.repository.failed("tidy up after the backup"))
    }
}

/// Without a summary nothing counts as stored.
fn counted(stored: &SnapshotFile) -> Counts {
    let summary = stored.summary.as_ref();
    summary.map_or_else(Counts::default, |summary| Counts {
        files: summary.total_files_processed,
        size_bytes: summary.total_bytes_processed,
        added_bytes: summary.data_added_packed,
    })
}

fn shown(counts: Counts) -> String {
    format!("{} files, {}", counts.files, Bytes(counts.size_bytes))
}

/// A file, which another one under the same name is not.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FileIdentity {
    path: PathBuf,
    inode: u64,
    created: Option<SystemTime>,
}

/// How much there is, and with `named` also which files. What disappears meanwhile is skipped.
fn census(
    paths: &[PathBuf],
    named: bool,
) -> Result<(Counts, HashSet<FileIdentity>), RepositoryError> {
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
            names.insert(FileIdentity {
                inode: meta.ino(),
                created: meta.created().ok(),
                path,
            });
        }
    }
    Ok((sum, names))
}

/// A time for the engine; `None` where it knows no such year.
fn zoned(at: DateTime<Utc>) -> Option<jiff::Zoned> {
    let at = jiff::Timestamp::from_microsecond(at.timestamp_micros()).ok()?;
    Some(at.to_zoned(jiff::tz::TimeZone::UTC))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RepositoryLocation;

    #[test]
    fn a_copy_that_takes_days_keeps_what_was_stored_of_it_while_others_back_up() {
        let folder = tempfile::tempdir().unwrap();
        let location = RepositoryLocation::for_tests(&folder.path().join("repository"));
        location.create_for_tests().unwrap();
        let repository = location.open(&crate::ProgressReporter::hidden()).unwrap();
        let now: DateTime<Utc> = "2024-02-29T12:00:00Z".parse().unwrap();
        let leave = |host: &str, hours: i64| {
            let meta = Meta::from_text(&format!(
                r#"{{"oa": 1, "run_id": "00000000-0000-0000-0000-000000000000", "kind": "physical", "level": "full", "host": "{host}",
                    "database": "oa", "server_version": 150018, "system_id": "7", "timeline": 1, "restorable_from": "{now}",
                    "restorable_to": "{now}", "started_at": "{now}", "captured_at": "{now}"}}"#,
                now = now.to_rfc3339()
            ))
            .unwrap();
            let at = now - chrono::TimeDelta::hours(hours);
            let snapshot = repository.snapshot_at(&meta, at).unwrap();
            repository.engine.save_snapshots(vec![snapshot]).unwrap();
        };
        let left = || {
            let all = repository.engine.get_all_snapshots().unwrap();
            let mut hosts: Vec<String> = all.into_iter().map(|s| s.hostname).collect();
            hosts.sort();
            hosts
        };
        for (host, hours) in [
            ("copies", 60),
            ("copies", 30),
            ("copies", 1),
            ("killed", 30),
        ] {
            leave(host, hours);
        }
        repository.remove_unfinished(&[], now).unwrap();
        assert_eq!(left(), ["copies", "copies", "copies"]);
        // Killed, and a day later.
        repository
            .remove_unfinished(&[], now + chrono::TimeDelta::hours(24))
            .unwrap();
        assert_eq!(left(), [""; 0]);
    }
}
