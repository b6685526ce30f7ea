//! Whether the disks have room for what is going to be written to them.

use std::fs;
use std::path::{Path, PathBuf};

use oa_core::base::units::Bytes;

use crate::RestoreError;

/// What is going to be written to a folder's disk.
#[derive(Debug, Clone)]
pub(crate) struct DiskNeed {
    /// It exists.
    pub(crate) folder: PathBuf,
    /// An estimate.
    pub(crate) bytes: u64,
    /// What to do when there is less room.
    pub(crate) remedy: &'static str,
}

/// When the staging folder's disk has too little.
pub(crate) const STAGING_REMEDY: &str =
    "free space there, or set staging in [backup] to a larger disk";
/// This much more must be free: estimates are estimates, and others write too.
const RESERVE: u64 = 64 << 20;

/// Refuses when a disk has less than everything that is needed on it, and a reserve.
pub(crate) fn check_room(needs: &[DiskNeed]) -> Result<(), RestoreError> {
    let device = |folder: &Path| {
        let meta = fs::metadata(folder).map_err(RestoreError::disk("could not read", folder));
        meta.map(|m| std::os::unix::fs::MetadataExt::dev(&m))
    };
    for need in needs.iter().filter(|n| n.bytes > 0) {
        let here = device(&need.folder)?;
        let mut needed = RESERVE;
        for other in needs {
            if device(&other.folder)? == here {
                needed += other.bytes;
            }
        }
        let disk = rustix::fs::statvfs(&need.folder).map_err(|e| {
            RestoreError::disk("could not measure the disk of", &need.folder)(e.into())
        })?;
        let free = disk.f_bavail * disk.f_frsize;
        if free < needed {
            return Err(RestoreError::NoRoom {
                path: need.folder.clone(),
                free: Bytes(free),
                needed: Bytes(needed),
                remedy: need.remedy,
            });
        }
    }
    Ok(())
}
