//! The folder in which the programs keep what must survive them: spool, locks, raw archive.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The state directory could not be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to state_dir {}: {source}; create it, make it writable for this user, or free space there", path.display())]
pub struct StateDirError {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

/// A state directory that was found to exist and to be writable.
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Creates the directory if it is absent (mode 0700: it holds collected data) and proves by writing and syncing a
    /// small file that it can take what will be put there.
    ///
    /// # Errors
    /// When it cannot be created or written, also because the disk is full.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let fail = |source| StateDirError {
            path: path.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(fail)?;
        let probe = path.join(format!(".probe-{}", std::process::id()));
        let written = File::create(&probe)
            .and_then(|mut f| f.write_all(&[0; 4096]).and_then(|()| f.sync_all()));
        let removed = fs::remove_file(&probe);
        written.and(removed).map_err(fail)?;
        Ok(Self(path.to_owned()))
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A folder below it, created if absent.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn folder(&self, name: &str) -> Result<PathBuf, StateDirError> {
        let path = self.0.join(name);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|source| StateDirError {
                path: path.clone(),
                source,
            })?;
        Ok(path)
    }

    /// Takes the named lock, or returns `None` when another process holds it. The kernel releases it when the holder
    /// ends, however it ends, so a lock is never stale.
    ///
    /// # Errors
    /// When the lock file cannot be opened.
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>, StateDirError> {
        let path = self.folder("locks")?.join(format!("{name}.lock"));
        let fail = |source| StateDirError {
            path: path.clone(),
            source,
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(fail)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(fail(errno.into())),
        }
    }
}

/// A lock held until this value is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Writes a file so that after a crash there is either the whole new content or none of it: temporary file in the same
/// folder, fsync, rename, fsync of the folder.
///
/// # Errors
/// Whatever the file system says; the temporary file is removed then.
pub fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path
        .parent()
        .ok_or_else(|| io::Error::other("a file needs a folder"))?;
    let temporary = folder.join(format!(
        ".{}.{}.tmp",
        path.file_name().unwrap_or_default().to_string_lossy(),
        uuid::Uuid::now_v7()
    ));
    let written = File::create(&temporary)
        .and_then(|mut f| f.write_all(content).and_then(|()| f.sync_all()))
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_once_and_free_again_after_drop() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let first = state.try_lock("task").unwrap();
        assert!(first.is_some());
        assert!(state.try_lock("task").unwrap().is_none());
        drop(first);
        assert!(state.try_lock("task").unwrap().is_some());
    }

    #[test]
    fn an_impossible_folder_is_named_in_the_error() {
        let error = StateDir::open(Path::new("/proc/oa-state")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot write to state_dir /proc/oa-state"),
            "{error}"
        );
    }
}
