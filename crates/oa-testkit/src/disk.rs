//! Disks that are full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system in memory, for as long as this value lives.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// `None`, with a word, where tests may not mount one.
    ///
    /// # Panics
    /// When the folder cannot be made.
    #[must_use]
    pub fn mount(path: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size},mode=700"),
                "none",
            ])
            .arg(path)
            .output();
        if !mounted.is_ok_and(|o| o.status.success()) {
            crate::skip("a small tmpfs", "run the tests as root");
            return None;
        }
        Some(Self {
            path: path.to_owned(),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
