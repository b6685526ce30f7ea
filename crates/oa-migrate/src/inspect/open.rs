//! Opening the source and taking the snapshot that everything else reads.
//!
//! The file is opened read-only, so a missing one is never created. The snapshot is one SQLite online backup, made in one step, or a
//! copy of the file under SQLite's lock: all tables are as of one point in time, even while the application writes (in WAL mode it
//! is not held up at all, in the other modes for as long as the copy takes).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::stand_ins;

/// The SQLite file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// No such file; none was created.
    #[error("there is no file {}; check the path", .0.display())]
    Missing(PathBuf),
    /// A folder, a device or the like.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// SQLite takes an empty file for an empty database; nobody means that.
    #[error("{} is empty (0 bytes), not a database; check the path, or restore it from a backup", .0.display())]
    Empty(PathBuf),
    /// Another format, or encrypted.
    #[error("{} is not a SQLite database, or it is encrypted (its first bytes are not \"SQLite format 3\"); decrypt it first if it is one", .0.display())]
    NotADatabase(PathBuf),
    /// Shorter than its header says.
    #[error("{} is truncated: its header says {expected} bytes, the file has {found}; copy it again, or restore it from a backup", path.display())]
    Truncated {
        path: PathBuf,
        /// Bytes that its header announces.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// SQLite found damage.
    #[error("{} is damaged: {reason}; restore it from a backup, or try `sqlite3 FILE .recover` into a new file", path.display())]
    Corrupt { path: PathBuf, reason: String },
    /// Somebody else writes to it for too long.
    #[error("{} is locked by another program for more than {} s; stop the writer, or try again later", path.display(), waited.as_secs())]
    Locked {
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A crashed writer left a journal that must be rolled back first.
    #[error("{} has an unfinished transaction of a crashed program (a -journal file beside it); open it once with that program or with sqlite3, which rolls it back", .0.display())]
    HotJournal(PathBuf),
    /// SQLite needs to write beside it.
    #[error("{} is in WAL mode with changes in its -wal file, and its folder is read-only, so SQLite cannot read both together; copy the file and its -wal to a folder where you may write, and use that copy", .0.display())]
    ReadOnlyWal(PathBuf),
    /// The file system refuses.
    #[error("could not read {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The copy could not be written.
    #[error("could not write the snapshot {}: {reason}; free space there, or set another state_dir", path.display())]
    Snapshot { path: PathBuf, reason: String },
    /// Anything else that SQLite says.
    #[error("could not read {}: {source}", path.display())]
    Sqlite {
        path: PathBuf,
        source: rusqlite::Error,
    },
}

/// How long a locked file is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(15);

/// Names the kind of an error that SQLite gave while this file was read.
pub(crate) fn classify(path: &Path, error: rusqlite::Error) -> SourceError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => SourceError::Locked {
            path,
            waited: LOCK_WAIT,
        },
        Some(ErrorCode::NotADatabase) => SourceError::NotADatabase(path),
        Some(ErrorCode::DatabaseCorrupt) => SourceError::Corrupt {
            path,
            reason: error.to_string(),
        },
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen) if journal_beside(&path) => {
            SourceError::HotJournal(path)
        }
        _ => SourceError::Sqlite {
            path,
            source: error,
        },
    }
}

/// An error while rows were read; of damage it says what to do.
pub(crate) fn damage(path: &Path, error: rusqlite::Error) -> anyhow::Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => classify(path, error).into(),
        _ => error.into(),
    }
}

fn journal_beside(path: &Path) -> bool {
    fs::metadata(beside(path, "-journal")).is_ok_and(|m| m.len() > 0)
}

/// Opens a SQLite file read-only, after looking at its header.
pub(crate) fn open(path: &Path) -> Result<Connection, SourceError> {
    let wal_mode = check_header(path)?;
    if wal_mode && !beside(path, "-wal").exists() {
        tracing::warn!(
            "{} is in WAL mode and has no -wal file beside it: that is so after the application has closed it; if it was copied while the application ran, its newest transactions are missing",
            path.display()
        );
    }
    match connect(path, "") {
        Err(e)
            if wal_mode
                && matches!(
                    e.sqlite_error_code(),
                    Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen)
                ) =>
        {
            if wal_beside(path) {
                return Err(SourceError::ReadOnlyWal(path.to_owned()));
            }
            // Nothing is in a -wal file and nobody can make one here.
            connect(path, "?immutable=1").map_err(|e| classify(path, e))
        }
        other => other.map_err(|e| classify(path, e)),
    }
}

/// Opens a file read-only, with stand-ins for what only the application knows.
fn connect(path: &Path, options: &str) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = if options.is_empty() {
        Connection::open_with_flags(path, flags)?
    } else {
        let uri = format!("file:{}{options}", uri_path(path));
        Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?
    };
    connection.busy_timeout(LOCK_WAIT)?;
    connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| {
        row.get::<_, i64>(0)
    })?;
    stand_ins::register(&connection, "main")?;
    Ok(connection)
}

/// A path in a URI, with everything quoted that means something there.
fn uri_path(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = path.as_os_str().as_bytes();
    bytes
        .iter()
        .map(|b| match b {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                char::from(*b).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// Looks at the header; returns whether the file is in WAL mode.
fn check_header(path: &Path) -> Result<bool, SourceError> {
    let io = |source: io::Error| {
        if source.kind() == io::ErrorKind::NotFound {
            SourceError::Missing(path.to_owned())
        } else {
            SourceError::Io {
                path: path.to_owned(),
                source,
            }
        }
    };
    let metadata = fs::metadata(path).map_err(io)?;
    if !metadata.is_file() {
        return Err(SourceError::NotAFile(path.to_owned()));
    }
    if metadata.len() == 0 {
        return Err(SourceError::Empty(path.to_owned()));
    }
    let mut header = [0; 100];
    let mut file = File::open(path).map_err(io)?;
    if file.read_exact(&mut header).is_err() || !header.starts_with(b"SQLite format 3\0") {
        return Err(SourceError::NotADatabase(path.to_owned()));
    }
    // https://www.sqlite.org/fileformat2.html: the size in the header counts only when the two change counters agree.
    let word = |at: usize| {
        u64::from(u32::from_be_bytes([
            header[at],
            header[at + 1],
            header[at + 2],
            header[at + 3],
        ]))
    };
    let page_size = match u64::from(u16::from_be_bytes([header[16], header[17]])) {
        1 => 65_536,
        size => size,
    };
    let expected = page_size * word(28);
    if word(24) == word(92)
        && metadata.len() < expected
        && !wal_beside(path)
        && !journal_beside(path)
    {
        return Err(SourceError::Truncated {
            path: path.to_owned(),
            expected,
            found: metadata.len(),
        });
    }
    Ok(header[18] == 2 || header[19] == 2)
}

/// The name of a file that belongs to a database. As for SQLite, it is beside the file itself, not beside a link to it.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let file = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = file.into_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

fn wal_beside(path: &Path) -> bool {
    fs::metadata(beside(path, "-wal")).is_ok_and(|m| m.len() > 0)
}

/// Copies the database as of one point in time to a new file. On failure there is no such file.
pub(crate) fn snapshot(source: &Connection, path: &Path, to: &Path) -> Result<(), SourceError> {
    copy(source, path, to)?;
    let synced = File::open(to).and_then(|f| f.sync_all());
    synced.map_err(|e| {
        let _ = fs::remove_file(to);
        cannot_write(to, &e)
    })
}

/// The same, of which nobody knows yet whether it would survive a power cut.
pub(crate) fn copy(source: &Connection, path: &Path, to: &Path) -> Result<(), SourceError> {
    room_for_copy(source, to)?;
    let result = match copy_file(path, to) {
        Ok(true) => Ok(()),
        Ok(false) => back_up(source, path, to),
        Err(e) => Err(cannot_write(to, &e)),
    };
    if result.is_err() {
        let _ = fs::remove_file(to);
    }
    result
}

/// A copy for which there is no room is not begun.
fn room_for_copy(source: &Connection, to: &Path) -> Result<(), SourceError> {
    let pragma = |name: &str| {
        source.query_row(&format!("PRAGMA {name}"), [], |row| {
            row.get::<_, i64>(0).map(i64::unsigned_abs)
        })
    };
    let disk = to.parent().and_then(|f| rustix::fs::statvfs(f).ok());
    let (Ok(pages), Ok(size), Some(disk)) = (pragma("page_count"), pragma("page_size"), disk)
    else {
        return Ok(());
    };
    let (needed, free) = (pages * size, disk.f_bavail * disk.f_frsize);
    if free < needed {
        let reason = format!(
            "it takes {} MB, and {} MB are free",
            needed >> 20,
            free >> 20
        );
        return Err(cannot_write(to, &reason));
    }
    Ok(())
}

fn cannot_write(to: &Path, error: &dyn std::fmt::Display) -> SourceError {
    SourceError::Snapshot {
        path: to.to_owned(),
        reason: error.to_string(),
    }
}

/// Outside WAL mode, a file does not change while a reader holds its lock, so the kernel can copy it, or share its blocks where the
/// file system does that. False where SQLite has to make the copy.
fn copy_file(path: &Path, to: &Path) -> io::Result<bool> {
    // A connection of its own: the source was perhaps opened long ago, and another file may have its name by now.
    let (Ok(named), Ok(source)) = (fs::metadata(path), connect(path, "")) else {
        return Ok(false);
    };
    let Ok(reading) = source.unchecked_transaction() else {
        return Ok(false);
    };
    let locked = reading.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()));
    if locked.is_err() {
        return Ok(false);
    }
    // Asked under the lock, because the application may change the mode until then.
    let mode = reading.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0));
    if !mode.is_ok_and(|m| ["delete", "truncate", "persist"].contains(&m.as_str())) {
        return Ok(false);
    }
    let Ok(mut from) = File::open(path) else {
        return Ok(false);
    };
    let same = |m: fs::Metadata| m.dev() == named.dev() && m.ino() == named.ino();
    if !from.metadata().is_ok_and(same) {
        return Ok(false);
    }
    let mut into = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(to)?;
    if rustix::fs::ioctl_ficlone(&into, &from).is_err() {
        io::copy(&mut from, &mut into)?;
    }
    // Closing any file drops the locks that the process has on it, so this one is closed after the copy.
    drop(from);
    drop(reading);
    Ok(true)
}

fn back_up(source: &Connection, path: &Path, to: &Path) -> Result<(), SourceError> {
    let cannot_write = |e: &dyn std::fmt::Display| cannot_write(to, e);
    let mut target = Connection::open(to).map_err(|e| cannot_write(&e))?;
    let started = Instant::now();
    {
        let backup = Backup::new(source, &mut target).map_err(|e| cannot_write(&e))?;
        loop {
            match backup.step(-1) {
                Ok(StepResult::Done) => break,
                Ok(_) if started.elapsed() < LOCK_WAIT => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(_) => {
                    return Err(SourceError::Locked {
                        path: path.to_owned(),
                        waited: LOCK_WAIT,
                    });
                }
                Err(e) => {
                    return Err(match e.sqlite_error_code() {
                        Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure) => cannot_write(&e),
                        _ => classify(path, e),
                    });
                }
            }
        }
    }
    // Nobody writes to the copy again; without WAL it is one file.
    target
        .pragma_update(None, "journal_mode", "DELETE")
        .map_err(|e| cannot_write(&e))
        .map(|_| ())
}

/// Looks for damage in the tables' pages (`PRAGMA quick_check`).
pub(crate) fn integrity(snapshot: &Connection, path: &Path) -> Result<(), SourceError> {
    let found = match quick_check(snapshot, "1") {
        // A virtual table that its module cannot open, a function that nobody knows: the tables are looked at one by one.
        Err(e) if e.sqlite_error_code() == Some(ErrorCode::Unknown) => {
            each_table(snapshot).map_err(|e| classify(path, e))?
        }
        other => vec![other.map_err(|e| classify(path, e))?],
    };
    // "NULL value in" and "non-… value in" are rows that break the declared rules: bad values, not damage.
    let harmless = |found: &String| {
        found == "ok"
            || found.starts_with("NULL value in ")
            || found.starts_with("CHECK constraint failed")
            || found.starts_with("non-")
            || found.starts_with("TEXT value in")
            || found.starts_with("NUMERIC value in")
    };
    match found.into_iter().find(|f| !harmless(f)) {
        None => Ok(()),
        Some(reason) => Err(SourceError::Corrupt {
            path: path.to_owned(),
            reason,
        }),
    }
}

fn quick_check(snapshot: &Connection, argument: &str) -> rusqlite::Result<String> {
    snapshot.query_row(&format!("PRAGMA quick_check({argument})"), [], |row| {
        row.get(0)
    })
}

fn each_table(snapshot: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = snapshot.prepare(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0 ORDER BY name",
    )?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut found = Vec::new();
    for name in names {
        match quick_check(snapshot, &super::literal(&name?)) {
            // A generated column with a function of the application's own, see `stand_ins`.
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::Unknown) => {}
            other => found.push(other?),
        }
    }
    Ok(found)
}
