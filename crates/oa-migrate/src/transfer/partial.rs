//! The folder in which an export grows: beside its destination, `DIR.ID.part`, until it is whole and gets its name.
//!
//! Its writer holds a lock on it, which the kernel releases however the writer ends, so the next export to the same destination
//! knows which ones were left over from killed exports and removes them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

use crate::errors::Refused;

/// A folder that is removed unless it is put in place.
#[derive(Debug)]
pub(crate) struct PartialFolder {
    path: PathBuf,
    destination: PathBuf,
    lock: File,
}

impl PartialFolder {
    /// Makes the folder, and removes those of exports to the same destination that died.
    pub(crate) fn create(destination: &Path) -> Result<Self> {
        // Without the slash that a shell's completion puts at the end.
        let destination = PathBuf::from(destination.components().as_path());
        sweep(&destination);
        let mut path = destination.clone().into_os_string();
        path.push(format!(".{}.part", Uuid::now_v7().simple()));
        let path = PathBuf::from(path);
        let lock = fs::create_dir(&path)
            .and_then(|()| File::open(&path))
            .with_context(|| format!("could not create {}", path.display()))?;
        // Some network file systems cannot lock a folder; there nothing is swept either.
        let _ = flock(&lock, FlockOperation::LockExclusive);
        ensure!(
            path.exists(),
            "another export removed {}; try again",
            path.display()
        );
        Ok(Self {
            path,
            destination,
            lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn put_in_place(self) -> Result<()> {
        let context = || {
            format!(
                "could not rename {} to {}",
                self.path.display(),
                self.destination.display()
            )
        };
        self.lock.sync_all().with_context(context)?;
        oa_core::base::failpoint::hit("export.written");
        fs::rename(&self.path, &self.destination).map_err(|e| match e.kind() {
            io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::NotADirectory => Refused(format!("{}: {e}", context())).into(),
            _ => anyhow::Error::from(e).context(context()),
        })?;
        File::open(parent(&self.destination))
            .and_then(|f| f.sync_all())
            .with_context(|| format!("could not sync {}", self.destination.display()))?;
        Ok(())
    }
}

impl Drop for PartialFolder {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn parent(destination: &Path) -> &Path {
    destination
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Removes folders whose writer is gone. What cannot be read or locked stays.
fn sweep(destination: &Path) {
    let Some(name) = destination
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
    else {
        return;
    };
    for entry in fs::read_dir(parent(destination))
        .into_iter()
        .flatten()
        .flatten()
    {
        let of_export = entry.file_name().to_str().is_some_and(|n| {
            n.strip_prefix(&name)
                .and_then(|n| n.strip_prefix('.'))
                .and_then(|n| n.strip_suffix(".part"))
                .is_some_and(|id| id.len() == 32 && Uuid::try_parse(id).is_ok())
        });
        if !of_export || !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        let Ok(folder) = File::open(entry.path()) else {
            continue;
        };
        if flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove(&entry.path());
            tracing::warn!(
                "removed {}, left over from an export that died",
                entry.path().display()
            );
        }
    }
}

fn remove(folder: &Path) {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("could not remove {}: {e}", folder.display());
        }
        _ => {}
    }
}
