//! The folder in which data wait on their way into a repository and out of it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use oa_core::app::config::{Backup as Settings, Config};
use oa_core::base::state_dir::{StateDir, StateDirError};

use crate::PostgresError;

/// Where copies and WAL are staged, by one process at a time; made if absent, for this user only.
pub fn open(config: &Config, settings: &Settings) -> Result<StateDir, StateDirError> {
    let path = settings
        .staging
        .clone()
        .unwrap_or_else(|| config.state_dir.join("backup"));
    let staging = StateDir::open(&path)?;
    close_to_others(staging.path());
    Ok(staging)
}

/// The folder of a cluster's WAL within the staging folder; where it is there, this machine has backed that cluster up.
#[must_use]
pub fn wal_folder(staging: &Path, system_id: &str) -> PathBuf {
    staging.join(format!("wal-{system_id}"))
}

/// What an older version has staged for everybody to read. Folders of others, should they stand there, are left alone.
fn close_to_others(staging: &Path) {
    for entry in std::fs::read_dir(staging).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "full" && !name.starts_with("wal-") {
            continue;
        }
        let closed = entry.metadata().and_then(|meta| {
            if !meta.is_dir() || meta.permissions().mode() & 0o077 == 0 {
                return Ok(());
            }
            std::fs::set_permissions(entry.path(), Permissions::from_mode(0o700))
        });
        if let Err(e) = closed {
            tracing::warn!(
                "could not keep others from reading {}: {e}",
                entry.path().display()
            );
        }
    }
}

/// Whatever was left there goes, and the folder is made anew.
pub fn empty_folder(folder: &Path) -> Result<(), PostgresError> {
    remove_folder(folder)?;
    std::fs::create_dir_all(folder).map_err(PostgresError::disk("could not create", folder))
}

/// Removes a folder, if it is there.
pub fn remove_folder(folder: &Path) -> Result<(), PostgresError> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(PostgresError::disk("could not remove", folder)(e))
        }
        _ => Ok(()),
    }
}
