//! The folder in which the programs keep what must survive them: spool, locks, raw archive.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::geteuid;

use crate::base::limits;
use crate::base::trust::{account, check_link, quoted};

/// The state directory could not be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to state_dir {}: {source}; {}", path.display(), remedy(path, source))]
pub struct StateDirError {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

impl StateDirError {
    /// Whether it is somebody else's, or others may change it.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.source
            .get_ref()
            .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Foreign>)
    }

    /// Whether the disk is full or broken, and not somebody's mistake.
    #[must_use]
    pub fn is_disk(&self) -> bool {
        disk_fault(&self.source).is_some()
    }
}

/// The error number of a disk that is full or broken.
pub(super) fn disk_fault(error: &io::Error) -> Option<Errno> {
    let errno = Errno::from_io_error(error)?;
    let of_a_disk = [
        Errno::NOSPC,
        Errno::DQUOT,
        // As `ulimit -f` has it: for this process it is as full.
        Errno::FBIG,
        Errno::IO,
        Errno::ROFS,
        Errno::STALE,
        Errno::NODEV,
        Errno::NXIO,
    ];
    of_a_disk.contains(&errno).then_some(errno)
}

fn remedy(path: &Path, source: &io::Error) -> String {
    let owner = |path: &Path| fs::symlink_metadata(path).ok().map(|found| found.uid());
    let me = geteuid().as_raw();
    let foreign = path.ancestors().find(|p| p.exists());
    match foreign.and_then(owner) {
        // What a run by another account, by root as a rule, has left there.
        Some(uid)
            if source.kind() == io::ErrorKind::PermissionDenied && uid != me && path.exists() =>
        {
            format!(
                "it belongs to {}; run: sudo chown -R {} {}",
                account(uid),
                account(me),
                quoted(path)
            )
        }
        _ if source
            .get_ref()
            .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Foreign>) =>
        {
            "nothing was changed there".to_owned()
        }
        _ => limits::remedy(source)
            .unwrap_or("create it, make it writable for this user, or free space there")
            .to_owned(),
    }
}

/// A folder that this user must not use.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Foreign(String);

/// Refuses a folder of somebody else, above all to root, whose files would lock its owner out, and one that others may change.
fn check(path: &Path) -> io::Result<()> {
    let refuse = |text: String| Err(io::Error::other(Foreign(text)));
    if let Err(e) = check_link(path) {
        return refuse(e.to_string());
    }
    let found = fs::metadata(path)?;
    let (me, owner) = (geteuid().as_raw(), found.uid());
    if owner != me {
        let name = account(owner);
        let this = std::env::args_os().next().unwrap_or_default();
        let this = Path::new(&this)
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let instead = match me {
            0 => format!("run it as {name}: sudo -u {name} {this} …"),
            _ => format!(
                "run it as {name}, or: sudo chown -R {} {}",
                account(me),
                quoted(path)
            ),
        };
        return refuse(format!(
            "it belongs to {name}, and this runs as {}; {instead}",
            account(me)
        ));
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return refuse(format!(
            "others may change it (mode {mode:04o}); run: chmod 700 {}",
            quoted(path)
        ));
    }
    Ok(())
}

/// How a file is made that nobody but this user may read, whatever the umask. What stands there is not followed nor taken over.
#[must_use]
pub fn new_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create_new(true).write(true).mode(0o600);
    options
}

/// Makes a folder, and those above it that are absent, that nobody but this user may enter, whatever the umask.
///
/// # Errors
/// Whatever the file system says.
pub fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A state directory that was found to exist, and to be writable unless it says otherwise.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
    /// Its disk takes nothing.
    fault: Option<Errno>,
}

impl StateDir {
    /// Creates the directory if it is absent (mode 0700: it holds collected data) and proves by writing and syncing a
    /// small file that it can take what will be put there.
    ///
    /// # Errors
    /// When it cannot be created or written, also because the disk is full; when it is somebody else's, or others may change it.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let fail = |source| StateDirError {
            path: path.to_owned(),
            source,
        };
        make_folder(path).and_then(|()| check(path)).map_err(fail)?;
        let probe = path.join(format!(".probe-{}", uuid::Uuid::now_v7()));
        let written = new_file()
            .open(&probe)
            .and_then(|mut f| f.write_all(&[0; 4096]).and_then(|()| f.sync_all()));
        let removed = fs::remove_file(&probe);
        written.and(removed).map_err(fail)?;
        super::pile::keep_below(path);
        Ok(Self {
            path: path.to_owned(),
            fault: None,
        })
    }

    /// The same, except that a full or broken disk is no error: what is collected can still go to PostgreSQL.
    ///
    /// # Errors
    /// When it is somebody else's, others may change it, or its path leads nowhere.
    pub fn open_on_any_disk(path: &Path) -> Result<Self, StateDirError> {
        Self::open(path).or_else(|e| match disk_fault(&e.source) {
            Some(fault) => Ok(Self {
                path: path.to_owned(),
                fault: Some(fault),
            }),
            None => Err(e),
        })
    }

    /// Why its disk took nothing when it was opened.
    #[must_use]
    pub fn fault(&self) -> Option<StateDirError> {
        self.fault.map(|errno| StateDirError {
            path: self.path.clone(),
            source: errno.into(),
        })
    }

    /// A folder in this machine's memory for what must be remembered while the disk takes nothing. It is gone after a restart.
    ///
    /// # Errors
    /// When it is somebody else's, or cannot be made.
    pub fn in_memory(&self) -> Result<Self, StateDirError> {
        Self::open(&self.memory_path())
    }

    /// Whether anything was put there, by this user: in a folder of everybody somebody else may have made one of that name.
    #[must_use]
    pub fn has_memory(&self) -> bool {
        let found = fs::symlink_metadata(self.memory_path());
        found.is_ok_and(|m| m.is_dir() && m.uid() == geteuid().as_raw())
    }

    /// One for each user and state directory.
    fn memory_path(&self) -> PathBuf {
        let shared = Path::new("/dev/shm");
        let folder = match shared.is_dir() {
            true => shared.to_owned(),
            false => std::env::temp_dir(),
        };
        let path = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        let name: String = path
            .to_string_lossy()
            .chars()
            .map(|c| if c.is_alphanumeric() { c } else { '-' })
            .collect();
        let end = name.ceil_char_boundary(name.len().saturating_sub(180));
        folder.join(format!("oa-{}{}", geteuid().as_raw(), &name[end..]))
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder below it, created if absent.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn folder(&self, name: &str) -> Result<PathBuf, StateDirError> {
        let path = self.path.join(name);
        make_folder(&path).map_err(|source| StateDirError {
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
            .mode(0o600)
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
/// folder, fsync, rename, fsync of the folder. Nobody but this user may read it.
///
/// # Errors
/// Whatever the file system says; the temporary file is removed then.
pub fn write_durably(path: &Path, mut content: &[u8]) -> io::Result<()> {
    write_durably_from(path, &mut content)
}

/// The same from something that is read.
///
/// # Errors
/// As [`write_durably`], and when it cannot be read.
pub fn write_durably_from(path: &Path, content: &mut impl io::Read) -> io::Result<()> {
    replaceable(path)?;
    let folder = path
        .parent()
        .ok_or_else(|| io::Error::other("a file needs a folder"))?;
    let temporary = folder.join(format!(
        ".{}.{}.tmp",
        path.file_name().unwrap_or_default().to_string_lossy(),
        uuid::Uuid::now_v7()
    ));
    let written = new_file()
        .open(&temporary)
        .and_then(|mut f| io::copy(content, &mut f).and_then(|_| f.sync_all()))
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Whether a new file may take the place of what is there. For root `/dev/stdout` and `/dev/null` could be replaced like any other file.
///
/// # Errors
/// When it is a device, a pipe, a socket or a folder.
pub fn replaceable(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(there) if !there.is_file() => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file, and is left as it is",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_file_is_replaced_by_one() {
        use std::os::unix::fs::{FileTypeExt, symlink};

        let dir = tempfile::tempdir().unwrap();
        let (socket, link) = (dir.path().join("socket"), dir.path().join("link"));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        symlink(&socket, &link).unwrap();
        for path in [&socket, &link, &dir.path().to_owned()] {
            assert!(write_durably(path, b"text").is_err(), "{path:?}");
        }
        assert!(fs::metadata(&link).unwrap().file_type().is_socket());
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

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
