//! From the repository to a server that runs: files, settings, recovery.
//!
//! [`Private`] is a throwaway server in the staging folder, for looking and for taking things out. [`in_place`] recovers a data
//! directory that stays.

pub mod account;
mod dump;
mod server;
mod settings;
mod work;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use oa_backup::capture::physical::{DATA, TABLESPACES};
use oa_backup::repository::Reader;
use oa_core::config::Bytes;
use oa_core::failpoint;
use oa_core::supervise::StopSignal;

use self::account::Account;
use self::server::Down;
pub use self::server::Server;
use self::settings::Wanted;
pub use self::work::Work;
use crate::RestoreError;
use crate::choose::{Choice, End, Physical, Way};

/// Private servers run as the first of these that exists, when this process is root.
pub const SERVER_ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

/// A throwaway server with what was chosen, recovered and promoted. Ends, and its files go, when it is dropped.
#[derive(Debug)]
pub struct Private {
    /// The server.
    pub server: Server,
    /// From the first byte out of the repository until it answered, without what was checked in between.
    pub took: Duration,
    /// Its folder; dropped after the server.
    work: Work,
}

impl Private {
    /// Restores what was chosen into a folder of the staging folder and starts a server there. `check` looks at the files before the
    /// server changes them; its time does not count.
    ///
    /// # Errors
    /// When there is no room, the repository is damaged, or the server does not come up.
    pub fn start(
        reader: &Reader,
        choice: &Choice,
        work: Work,
        users: &[String],
        check: impl FnOnce(&Physical, &Path) -> Result<(), RestoreError>,
    ) -> Result<Self, RestoreError> {
        let account = Account::find(&SERVER_ACCOUNTS)?;
        room(
            work.folder(),
            choice.size_bytes(),
            "free space there, or set staging in [backup] to a larger disk",
        )?;
        let began = Instant::now();
        let data = work.folder().join(DATA);
        let log = work.folder().join("log");
        let mut checked = Duration::ZERO;
        let server = match &choice.way {
            Way::Physical(physical) => {
                copy(reader, physical, &data, &work.folder().join(TABLESPACES))?;
                link(&data, Path::new("../../tablespaces"))?;
                let begins = Instant::now();
                check(physical, &data)?;
                checked = begins.elapsed();
                log_of(reader, physical, &data)?;
                failpoint::hit("restore.copied");
                work.give_to(&account)?;
                let how = How {
                    account: &account,
                    data: &data,
                    socket: work.socket(),
                    log: &log,
                    users,
                    durable: false,
                };
                recover(physical, &how)?
            }
            Way::Logical(logical) => dump::load(reader, logical, &work, &account)?,
        };
        failpoint::hit("restore.recovered");
        Ok(Self {
            server,
            took: began.elapsed().saturating_sub(checked),
            work,
        })
    }

    /// A folder for what is taken out of it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.work.folder()
    }
}

/// Recovers a data directory that stays, and shuts the server down.
///
/// # Errors
/// As [`Private::start`].
pub fn in_place(
    physical: &Physical,
    account: &Account,
    data: &Path,
    work: &Work,
    users: &[String],
) -> Result<(), RestoreError> {
    account.own(work.socket())?;
    let how = How {
        account,
        data,
        socket: work.socket(),
        log: &work.folder().join("log"),
        users,
        durable: true,
    };
    recover(physical, &how)?.shut_down()
}

/// Writes the settings that a recovered data directory keeps. Returns what an operator should know of them.
///
/// # Errors
/// When a file cannot be written.
pub fn finish_settings(
    physical: &Physical,
    data: &Path,
    port: u16,
    socket: &Path,
    account: &Account,
) -> Result<Vec<String>, RestoreError> {
    settings::finished(data, &physical.full.meta, port, socket, account)
}

/// Copies the cluster's files out of the repository; those that are there and the same stay. Counts them afterwards: nothing may be
/// missing.
///
/// # Errors
/// When the repository is damaged or the disk is full.
pub fn copy(
    reader: &Reader,
    physical: &Physical,
    data: &Path,
    tablespaces: &Path,
) -> Result<(), RestoreError> {
    stop_if_asked()?;
    let full = &physical.full;
    reader.restore(full, Path::new(DATA), data)?;
    let mut count = Count::default();
    count.add(data)?;
    if !full.meta.tablespaces.is_empty() {
        reader.restore(full, Path::new(TABLESPACES), tablespaces)?;
        count.add(tablespaces)?;
    }
    let stored = &full.meta.stored;
    if count.files != stored.files || count.bytes != stored.size_bytes {
        return Err(RestoreError::Differs(format!(
            "backup {} has {} files with {}, and {} files with {} came out of the repository; check it with oa-backup verify --read-data",
            full.short_id(),
            stored.files,
            Bytes(stored.size_bytes),
            count.files,
            Bytes(count.bytes)
        )));
    }
    fs::set_permissions(data, fs::Permissions::from_mode(0o700))
        .map_err(RestoreError::disk("could not protect", data))?;
    for standby in ["standby.signal", "recovery.signal"] {
        let _ = fs::remove_file(data.join(standby));
    }
    Ok(())
}

#[derive(Default)]
struct Count {
    files: u64,
    bytes: u64,
}

impl Count {
    fn add(&mut self, folder: &Path) -> Result<(), RestoreError> {
        let failed = RestoreError::disk("could not read", folder);
        for entry in fs::read_dir(folder).map_err(&failed)? {
            let entry = entry.map_err(&failed)?;
            let meta = entry.metadata().map_err(&failed)?;
            if meta.is_dir() {
                self.add(&entry.path())?;
            } else if entry.file_name() != crate::commands::MARKER {
                self.files += 1;
                self.bytes += if meta.is_file() { meta.len() } else { 0 };
            }
        }
        Ok(())
    }
}

/// Fetches the log into `pg_wal`. The last segment is usually one that was still being filled: where it ends, recovery does.
///
/// # Errors
/// As [`copy`].
pub fn log_of(reader: &Reader, physical: &Physical, data: &Path) -> Result<(), RestoreError> {
    let folder = data.join("pg_wal");
    for (index, source) in physical.sources.iter().enumerate() {
        stop_if_asked()?;
        let mine: Vec<_> = physical.wal.iter().filter(|f| f.source == index).collect();
        if mine.is_empty() {
            continue;
        }
        reader.restore_some(source, Path::new(""), &folder, false, |path| {
            mine.iter().any(|f| path == Path::new(&f.stored))
        })?;
        for file in mine {
            let stored = folder.join(&file.stored);
            if file.stored != file.name {
                fs::rename(&stored, folder.join(&file.name))
                    .map_err(RestoreError::disk("could not rename", &stored))?;
            }
        }
    }
    // The repository's root lends the folder its own rights.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))
        .map_err(RestoreError::disk("could not protect", &folder))
}

/// Makes the links to the tablespaces lead to where they are now.
///
/// # Errors
/// When they cannot be made.
pub fn link(data: &Path, tablespaces: &Path) -> Result<(), RestoreError> {
    let folder = data.join("pg_tblspc");
    let failed = RestoreError::disk("could not set the links of", &folder);
    for entry in fs::read_dir(&folder).map_err(&failed)? {
        let entry = entry.map_err(&failed)?;
        let link = entry.path();
        if link.is_symlink() {
            fs::remove_file(&link).map_err(&failed)?;
            std::os::unix::fs::symlink(tablespaces.join(entry.file_name()), &link)
                .map_err(&failed)?;
        }
    }
    Ok(())
}

struct How<'a> {
    account: &'a Account,
    data: &'a Path,
    socket: &'a Path,
    log: &'a Path,
    users: &'a [String],
    durable: bool,
}

fn recover(physical: &Physical, how: &How<'_>) -> Result<Server, RestoreError> {
    let mut end = physical.end.clone();
    loop {
        settings::private(
            how.data,
            &Wanted {
                socket: how.socket,
                meta: &physical.full.meta,
                timeline: physical.timeline,
                end: Some(&end),
                durable: how.durable,
            },
        )?;
        for file in [
            settings::CONFIG,
            settings::HBA,
            settings::IDENT,
            settings::SIGNAL,
        ] {
            how.account.own(&how.data.join(file))?;
        }
        let started = Server::start(
            how.account,
            &physical.programs,
            how.data,
            how.socket,
            how.log,
            how.users,
        );
        match started {
            Ok(server) => {
                // With a target that was met, PostgreSQL itself has found it.
                if end == End::Log {
                    came_far_enough(&server, physical)?;
                }
                return Ok(server);
            }
            // Everything that is there was written before the moment, and the log was complete beyond it: all of it is wanted.
            Err(Down::EndedBefore) if matches!(end, End::Time(_) | End::Lsn(_)) => end = End::Log,
            Err(Down::EndedBefore) => {
                return Err(RestoreError::NoWay(format!(
                    "the log does not come to what was asked for ({end:?})"
                )));
            }
            Err(Down::Failed(e)) => return Err(e),
        }
    }
}

/// Recovery takes the first record that does not fit for the end of the log, also when it is in the middle.
fn came_far_enough(server: &Server, physical: &Physical) -> Result<(), RestoreError> {
    let reached = server.recovered_to()?;
    if reached.is_some_and(|r| r >= physical.reaches) {
        return Ok(());
    }
    let reached = reached.map_or_else(|| "nowhere".to_owned(), |r| r.to_string());
    Err(RestoreError::Differs(format!(
        "recovery ended at {reached}, before {}: the log in between cannot be read; try an earlier moment, or the dump with --kind logical, and check the repository with oa-backup verify --read-data",
        physical.reaches
    )))
}

/// Refuses when a folder's disk has less than what is needed.
///
/// # Errors
/// Then, and when it cannot be measured.
pub fn room(folder: &Path, needed: u64, remedy: &'static str) -> Result<(), RestoreError> {
    let disk = rustix::fs::statvfs(folder)
        .map_err(|e| RestoreError::disk("could not measure the disk of", folder)(e.into()))?;
    let free = disk.f_bavail * disk.f_frsize;
    if free < needed {
        return Err(RestoreError::NoRoom {
            path: folder.to_owned(),
            free: Bytes(free),
            needed: Bytes(needed),
            remedy,
        });
    }
    Ok(())
}

pub(crate) fn stop_if_asked() -> Result<(), RestoreError> {
    if StopSignal.requested() {
        return Err(RestoreError::Stopped);
    }
    Ok(())
}
