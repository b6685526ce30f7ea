//! A directory that is filled by a restore. It must be absent or empty, or one that the same restore has begun to fill.
//!
//! A marker in it says by what it is being filled. Killed while copying: the next run goes on. Killed after the server had begun to
//! recover: its files are neither the backup's nor a finished cluster's, so the next run empties the directory, which holds nothing
//! else, and begins again. Killed when all was done but the marker: the same.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use chrono::Utc;
use oa_core::app::cli::{self, Failure};
use oa_core::base::failpoint;
use oa_core::base::state_dir::write_durably;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

use crate::RestoreError;
use crate::disk::DiskNeed;
use crate::recover::MARKER;

/// When the directory's disk has too little.
const REMEDY: &str = "free space there, or restore to another disk";
/// The same when it became full on the way.
pub(crate) const REMEDY_ON_THE_WAY: &str =
    "free space there and run the same command again, which goes on, or restore to another disk";

#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Marker {
    /// What it is being filled with.
    of: String,
    /// Whether the files may have been changed since they were copied.
    changing: bool,
    /// The second directory that is filled with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    part: Option<PathBuf>,
}

/// Refuses a directory where the backups themselves are, or around it: moved aside they would be gone, in the middle of the restore. The
/// same holds for `staging`, where the private servers stand.
pub(crate) fn keep_off(
    path: &Path,
    repository: Option<&Path>,
    staging: &Path,
) -> Result<(), Failure> {
    let target = resolved(path);
    let refused = |what: &str, folder: &Path| {
        let text = format!(
            "{what} {} is, or lies within, {}, and would be moved aside or filled; restore into another directory",
            folder.display(),
            target.display()
        );
        Failure::from(RestoreError::Refused(text))
    };
    if let Some(folder) = repository {
        let real = resolved(folder);
        if real.starts_with(&target) {
            return Err(refused("the repository", folder));
        }
        if target.starts_with(&real) {
            return Err(RestoreError::Refused(format!(
                "{} lies within the repository {}; restore into another directory",
                target.display(),
                folder.display()
            ))
            .into());
        }
    }
    if resolved(staging).starts_with(&target) {
        return Err(refused("staging", staging));
    }
    Ok(())
}

/// Without links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for there in path.ancestors() {
        if let Ok(real) = fs::canonicalize(there) {
            let rest = path.strip_prefix(there).unwrap_or(Path::new(""));
            return real.components().chain(rest.components()).collect();
        }
    }
    path
}

#[derive(Debug)]
pub(crate) struct TargetDir {
    path: PathBuf,
    of: String,
    aside: Option<PathBuf>,
    /// The same restore has begun to fill it.
    begun: bool,
    /// What is there can be gone on with.
    resumed: bool,
    /// A second directory that belongs to it.
    part: Option<PathBuf>,
}

impl TargetDir {
    /// Looks at it. With `force` what is there is moved aside by [`TargetDir::begin`], after a confirmation.
    pub(crate) fn look(path: &Path, of: &str, force: bool, yes: bool) -> Result<Self, Failure> {
        let path = std::path::absolute(path)
            .map_err(RestoreError::disk("could not find", path))
            .map_err(Failure::from)?;
        let mut dir = Self {
            path,
            of: of.to_owned(),
            aside: None,
            begun: false,
            resumed: false,
            part: None,
        };
        if !dir.path.symlink_metadata().is_ok_and(|_| true) || dir.is_empty()? {
            return Ok(dir);
        }
        if let Some(marker) = dir.marker()
            && marker.of == dir.of
        {
            dir.begun = true;
            dir.resumed = !marker.changing;
            return Ok(dir);
        }
        let shown = dir.path.display();
        if let Some(pid) = server_in(&dir.path) {
            return Err(RestoreError::Refused(format!(
                "a server runs in {shown} (process {pid}); stop it first, or restore into another directory"
            ))
            .into());
        }
        if !force {
            return Err(RestoreError::Refused(format!(
                "{shown} is not empty; name another directory, or move it aside with --force"
            ))
            .into());
        }
        let aside = beside(&dir.path);
        cli::confirm(
            &format!(
                "Move {shown} to {} and restore into its place?",
                aside.display()
            ),
            yes,
        )?;
        dir.aside = Some(aside);
        Ok(dir)
    }

    /// A second directory goes along with it, filled and emptied together: `usual`, unless something is in that which is not ours. What
    /// is in it may belong to a cluster that was moved aside, whose links lead there: it stays where it is, and so that cluster stays
    /// whole wherever this is interrupted.
    pub(crate) fn with(mut self, usual: &Path) -> Self {
        let begun = self.marker().filter(|m| m.of == self.of);
        let ours = begun.map(|m| m.part.unwrap_or_else(|| usual.to_owned()));
        self.part = ours.or_else(|| {
            let name = usual.file_name().unwrap_or_default().to_string_lossy();
            let numbered = |n: u32| usual.with_file_name(format!("{name}-{n}"));
            std::iter::once(usual.to_owned())
                .chain((2..=u32::MAX).map(numbered))
                .find(|folder| holds_nothing(folder))
        });
        self
    }

    pub(crate) fn part(&self) -> Option<&Path> {
        self.part.as_deref()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What filling it with `bytes` takes of its disk: not again what the same restore has brought there, to go on with or to remove.
    pub(crate) fn need(&self, bytes: u64) -> DiskNeed {
        let held = |folder: &Path| if self.begun { size(folder) } else { 0 };
        let part = self.part.as_deref().map_or(0, held);
        DiskNeed {
            folder: self.parent().to_owned(),
            bytes: bytes.saturating_sub(held(&self.path) + part),
            remedy: REMEDY,
        }
    }

    /// The folder that exists and that it is, or will be, in.
    pub(crate) fn parent(&self) -> &Path {
        self.path
            .ancestors()
            .skip(1)
            .find(|p| p.exists())
            .unwrap_or(Path::new("/"))
    }

    fn is_empty(&self) -> Result<bool, RestoreError> {
        if !self.path.is_dir() {
            return Ok(false);
        }
        let failed = RestoreError::disk("could not read", &self.path);
        Ok(fs::read_dir(&self.path).map_err(failed)?.next().is_none())
    }

    fn marker(&self) -> Option<Marker> {
        serde_json::from_slice(&fs::read(self.path.join(MARKER)).ok()?).ok()
    }

    fn write_marker(&self, changing: bool) -> Result<(), RestoreError> {
        let marker = Marker {
            of: self.of.clone(),
            changing,
            part: self.part.clone(),
        };
        let failed = RestoreError::disk("could not write to", &self.path);
        let text = serde_json::to_vec(&marker).map_err(|e| failed(e.into()))?;
        write_durably(&self.path.join(MARKER), &text).map_err(failed)
    }

    /// Moves what is there aside, makes the directory, and marks it.
    pub(crate) fn begin(&self) -> Result<(), RestoreError> {
        if let Some(aside) = &self.aside {
            fs::rename(&self.path, aside)
                .map_err(RestoreError::disk("could not move aside", &self.path))?;
            tracing::warn!(
                "what was in {} is in {}",
                self.path.display(),
                aside.display()
            );
            failpoint::hit("restore.moved_aside");
            for folder in tablespaces_in(aside) {
                tracing::warn!(
                    "a tablespace of what is in {} is in {}, and stays there",
                    aside.display(),
                    folder.display()
                );
            }
        } else if !self.resumed && self.marker().is_some() {
            tracing::info!("beginning again in {}", self.path.display());
            let failed = RestoreError::disk("could not empty", &self.path);
            if let Some(part) = self.part.as_ref().filter(|p| p.exists()) {
                fs::remove_dir_all(part).map_err(&failed)?;
            }
            for entry in fs::read_dir(&self.path).map_err(&failed)? {
                let path = entry.map_err(&failed)?.path();
                if path.file_name().is_some_and(|n| n == MARKER) {
                    continue;
                }
                if path.is_dir() && !path.is_symlink() {
                    fs::remove_dir_all(&path).map_err(&failed)?;
                } else {
                    fs::remove_file(&path).map_err(&failed)?;
                }
            }
        }
        let failed = RestoreError::disk("could not create", &self.path);
        if let Some(parent) = self.path.parent() {
            let mut folders = fs::DirBuilder::new();
            folders.recursive(true).mode(0o755);
            folders.create(parent).map_err(&failed)?;
        }
        // Only its owner gets into it; who may walk to it is for others to say.
        match fs::DirBuilder::new().mode(0o700).create(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(e)),
            _ => {}
        }
        self.write_marker(false)
    }

    /// From here on the files change.
    pub(crate) fn changing(&self) -> Result<(), RestoreError> {
        self.write_marker(true)
    }

    /// It is as it should be.
    pub(crate) fn done(&self) -> Result<(), RestoreError> {
        let marker = self.path.join(MARKER);
        fs::remove_file(&marker).map_err(RestoreError::disk("could not remove", &marker))
    }
}

/// `NAME_before_YYYYMMDDHHMMSS`, for what is moved aside (UTC).
pub(crate) fn before(name: &str) -> String {
    format!("{name}_before_{}", Utc::now().format("%Y%m%d%H%M%S"))
}

/// Bytes of the files in a folder.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(before(&name))
}

/// It is absent, or an empty folder.
fn holds_nothing(folder: &Path) -> bool {
    match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    }
}

/// Where the tablespaces of a cluster are.
fn tablespaces_in(data: &Path) -> Vec<PathBuf> {
    let links = fs::read_dir(data.join("pg_tblspc"));
    let links = links.into_iter().flatten().flatten();
    links.filter_map(|l| fs::read_link(l.path()).ok()).collect()
}

fn server_in(data: &Path) -> Option<i32> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: i32 = text.lines().next()?.trim().parse().ok()?;
    let alive = Pid::from_raw(pid).is_some_and(|p| test_kill_process(p).is_ok());
    // A number that was left behind may be somebody else's by now.
    let here = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data);
    (alive && here).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_same_restore_has_begun_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        let first = TargetDir::look(&path, "x", false, false).unwrap();
        first.begin().unwrap();
        fs::write(path.join("copied"), "").unwrap();
        let again = TargetDir::look(&path, "x", false, false).unwrap();
        again.begin().unwrap();
        assert!(path.join("copied").exists());
        assert_eq!(
            TargetDir::look(&path, "y", false, false).unwrap_err().code,
            77
        );
        again.changing().unwrap();
        let anew = TargetDir::look(&path, "x", false, false).unwrap();
        anew.begin().unwrap();
        assert!(!path.join("copied").exists());
        anew.done().unwrap();
        assert!(fs::read_dir(&path).unwrap().next().is_none());
    }

    #[test]
    fn what_is_there_is_moved_aside_and_only_when_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("precious"), "").unwrap();
        for (force, yes) in [(false, true), (true, false)] {
            assert_eq!(
                TargetDir::look(&path, "x", force, yes).unwrap_err().code,
                77
            );
        }
        TargetDir::look(&path, "x", true, true)
            .unwrap()
            .begin()
            .unwrap();
        let names: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names.len(), 2);
        assert!(
            names
                .iter()
                .any(|n| n.starts_with("d_before_")
                    && folder.path().join(n).join("precious").exists())
        );
    }
}
