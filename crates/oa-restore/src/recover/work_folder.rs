//! A private restore's folder: `restore-…` in the staging folder. It goes when this process ends; one whose process was killed is
//! removed by the next.
//!
//! A lock file beside each folder is locked for as long as its process lives. It is made, and looked at by others, under one
//! common lock: nobody can take a folder for a dead one's that is just being made.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

use super::account::Account;
use crate::RestoreError;

/// The folder of one restore. Removed when it is dropped.
#[derive(Debug)]
pub(crate) struct WorkFolder {
    folder: PathBuf,
    socket: PathBuf,
    lock: PathBuf,
    _held: File,
}

impl WorkFolder {
    /// Makes one, and removes what killed ones have left.
    pub(crate) fn begin(staging: &Path) -> Result<Self, RestoreError> {
        let common = open(&staging.join("restore.lock"))?;
        flock(&common, FlockOperation::LockExclusive)
            .map_err(|e| RestoreError::disk("could not lock", staging)(e.into()))?;
        remove_left(staging)?;
        let id = Uuid::now_v7().simple().to_string();
        let folder = staging.join(format!("restore-{id}"));
        let lock = lock_of(&folder);
        let held = open(&lock)?;
        flock(&held, FlockOperation::NonBlockingLockExclusive)
            .map_err(|e| RestoreError::disk("could not lock", &lock)(e.into()))?;
        make(&folder)?;
        // A socket's path may have 107 bytes only, and a staging folder's may be longer.
        let socket = std::env::temp_dir().join(format!("oa-restore-{}", &id[20..]));
        std::os::unix::fs::symlink(&socket, folder.join("socket"))
            .map_err(RestoreError::disk("could not write to", &folder))?;
        make(&socket)?;
        Ok(Self {
            folder,
            socket,
            lock,
            _held: held,
        })
    }

    pub(crate) fn staging(&self) -> &Path {
        self.folder.parent().unwrap_or(&self.folder)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the private server's socket is: only the account that runs it can reach it.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Lets the server's account use folder and socket.
    pub(crate) fn give_to(&self, account: &Account) -> Result<(), RestoreError> {
        account.own(&self.folder)?;
        account.own(&self.socket)
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if let Err(e) = remove(&self.folder) {
            tracing::warn!("the next oa-restore will remove what is left: {e}");
            return;
        }
        let _ = fs::remove_dir_all(&self.socket);
        let _ = fs::remove_file(&self.lock);
    }
}

fn lock_of(folder: &Path) -> PathBuf {
    folder.with_extension("lock")
}

fn open(path: &Path) -> Result<File, RestoreError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(RestoreError::disk("could not open", path))
}

fn make(folder: &Path) -> Result<(), RestoreError> {
    DirBuilder::new()
        .mode(0o700)
        .create(folder)
        .map_err(RestoreError::disk("could not create", folder))
}

/// A server whose starter was killed ends by itself, and may still write meanwhile.
fn remove(folder: &Path) -> Result<(), RestoreError> {
    let mut attempts = 0;
    loop {
        match fs::remove_dir_all(folder) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound && !folder.exists() => return Ok(()),
            Err(_) if attempts < 50 => {
                attempts += 1;
                thread::sleep(Duration::from_millis(100));
            }
            Err(e) => return Err(RestoreError::disk("could not remove", folder)(e)),
        }
    }
}

fn remove_left(staging: &Path) -> Result<(), RestoreError> {
    let failed = RestoreError::disk("could not read", staging);
    for entry in fs::read_dir(staging).map_err(&failed)? {
        let folder = entry.map_err(&failed)?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with("restore-") || name.ends_with(".lock") || !folder.is_dir() {
            continue;
        }
        let lock = lock_of(&folder);
        let held = open(&lock)?;
        if flock(&held, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        tracing::info!(
            "removing {}, which a killed restore has left",
            folder.display()
        );
        let socket = fs::read_link(folder.join("socket"));
        remove(&folder)?;
        if let Ok(socket) = socket
            && socket.starts_with(std::env::temp_dir())
        {
            let _ = fs::remove_dir_all(socket);
        }
        let _ = fs::remove_file(&lock);
    }
    // A lock without a folder: killed between the two.
    for entry in fs::read_dir(staging).map_err(&failed)? {
        let lock = entry.map_err(&failed)?.path();
        let name = lock.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("restore-") && name.ends_with(".lock") {
            let held = open(&lock)?;
            if flock(&held, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let _ = fs::remove_file(&lock);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_a_killed_restore_has_left_is_removed_and_a_living_ones_is_not() {
        let staging = tempfile::tempdir().unwrap();
        let living = WorkFolder::begin(staging.path()).unwrap();
        let dead = staging.path().join("restore-0123");
        let socket = std::env::temp_dir().join(format!("oa-restore-test-{}", Uuid::now_v7()));
        fs::create_dir_all(dead.join("data")).unwrap();
        fs::create_dir(&socket).unwrap();
        std::os::unix::fs::symlink(&socket, dead.join("socket")).unwrap();
        fs::write(lock_of(&dead), "").unwrap();
        fs::write(staging.path().join("restore-4567.lock"), "").unwrap();
        let next = WorkFolder::begin(staging.path()).unwrap();
        // Also where the umask forbids nothing.
        let mode = fs::metadata(lock_of(next.folder())).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        assert!(!dead.exists() && !socket.exists() && living.folder().exists());
        let (one, two) = (living.folder().to_owned(), next.folder().to_owned());
        assert_ne!(one, two);
        drop((living, next));
        let left: Vec<_> = fs::read_dir(staging.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["restore.lock"]);
    }
}
