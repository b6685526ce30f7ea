//! Who may read a repository in a folder: nobody but its user, as restic has it. Its keys are worth guessing at.
//!
//! What is made is made so (the program's umask); what an older version, or `cp`, has left open is closed by the next command that
//! writes. `verify` reports what is still open, for not every file system knows modes and not every file is this user's.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::RepositoryLocation;
use crate::spare::{ASIDE, SPARE};

/// Everything that is the repository's in its folder; what else is in there is somebody else's.
const OURS: [&str; 8] = [
    "keys",
    "snapshots",
    "index",
    "locks",
    "data",
    SPARE,
    ASIDE,
    "config",
];
/// Reading, writing and passing through, for the group and for all others.
const OTHERS: u32 = 0o077;

impl RepositoryLocation {
    /// Takes the rights of everybody else away. What cannot be closed is warned of, and keeps nothing from being backed up.
    pub fn close_to_others(&self) {
        let Some(folder) = self.folder().filter(|f| f.join("config").exists()) else {
            return;
        };
        if self.open_to_others().is_none() {
            return;
        }
        // The outermost last: killed before, the next one begins again.
        let mut left: Vec<PathBuf> = OURS.iter().map(|name| folder.join(name)).collect();
        let mut closed = Vec::new();
        while let Some(path) = left.pop() {
            if path.is_dir() && !path.is_symlink() {
                let entries = fs::read_dir(&path).into_iter().flatten().flatten();
                left.extend(entries.map(|e| e.path()));
            }
            closed.push(path);
        }
        closed.push(folder.to_owned());
        for path in closed {
            if let Err(e) = close(&path) {
                tracing::warn!(
                    "could not keep other users of this machine from reading {}: {e}",
                    path.display()
                );
                return;
            }
        }
    }

    /// A file or folder of the repository that others may read, or write, if there is one near its root.
    #[must_use]
    pub fn open_to_others(&self) -> Option<PathBuf> {
        let folder = self.folder()?;
        let mut looked_at = vec![folder.to_owned()];
        for name in OURS {
            looked_at.push(folder.join(name));
        }
        for keys in [
            folder.join("keys"),
            folder.join(SPARE),
            folder.join(SPARE).join("keys"),
        ] {
            let entries = fs::read_dir(keys).into_iter().flatten().flatten();
            looked_at.extend(entries.map(|e| e.path()));
        }
        looked_at.into_iter().find(|path| {
            path.symlink_metadata()
                .is_ok_and(|meta| !meta.is_symlink() && meta.mode() & OTHERS != 0)
        })
    }
}

fn close(path: &Path) -> std::io::Result<()> {
    let meta = match path.symlink_metadata() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        meta => meta?,
    };
    if meta.is_symlink() || meta.mode() & OTHERS == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(meta.mode() & 0o700))
}
