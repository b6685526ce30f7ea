//! Taking the data from the server: PostgreSQL's own programs do it, this module guards them.

pub mod logical;
pub mod mark;
pub mod parameters;
pub mod physical;
pub mod programs;
pub mod rights;
pub mod server;
pub mod slot;
pub mod wal;

use std::path::{Path, PathBuf};

use crate::repository::RepositoryError;

/// A backup could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] oa_core::pg::ConnectError),
    /// The server refused a statement.
    #[error("{doing}: {}", oa_core::pg::describe(source))]
    Query {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        source: postgres::Error,
    },
    /// One of PostgreSQL's programs is not installed, or not in the server's version.
    #[error("{0}")]
    Program(String),
    /// One of PostgreSQL's programs failed.
    #[error("{program} failed ({status}): {said}")]
    Failed {
        /// The program.
        program: &'static str,
        /// Its exit status.
        status: String,
        /// The end of what it printed.
        said: String,
    },
    /// The server's own data are damaged.
    #[error(
        "pages of database {databases} do not have the checksums that they should, so no physical backup can be made: {said}; the server's log names the file. Until it is mended (REINDEX, or restore the table), make dumps: --kind logical"
    )]
    Damaged {
        /// The databases.
        databases: String,
        /// The end of what the program printed.
        said: String,
    },
    /// The log has a gap since the last backup, or there is no full backup: only a new one helps, and one is made at once.
    #[error("{0}")]
    Gap(String),
    /// Another process does the same.
    #[error("{0}")]
    Busy(String),
    /// The server, or this role, does not allow it.
    #[error("{0}")]
    NotAllowed(String),
    /// The staging folder cannot be used.
    #[error(transparent)]
    Staging(#[from] oa_core::base::state_dir::StateDirError),
    /// This machine's disk.
    #[error("{doing} {}: {source}", path.display())]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Too little room for what has to be staged.
    #[error("{} has {free} left, and about {needed} are needed to stage the backup; free space there or set staging in [backup] to a larger disk", path.display())]
    NoRoom {
        /// The staging folder.
        path: PathBuf,
        /// What is free.
        free: oa_core::base::units::Bytes,
        /// What is needed.
        needed: oa_core::base::units::Bytes,
    },
    /// The repository.
    #[error(transparent)]
    Repository(RepositoryError),
    /// This program was asked to stop.
    #[error("stopped by a signal; what it was making is not listed, and the next backup tidies up")]
    Stopped,
}

impl From<RepositoryError> for CaptureError {
    fn from(error: RepositoryError) -> Self {
        match error {
            RepositoryError::Stopped => Self::Stopped,
            other => Self::Repository(other),
        }
    }
}

impl CaptureError {
    /// Whether the same may succeed a minute later, by what kind of error it is.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Query { source, .. } => oa_core::pg::is_passing(source),
            _ => false,
        }
    }

    pub(crate) fn query(doing: &'static str) -> impl Fn(postgres::Error) -> Self {
        move |source| Self::Query { doing, source }
    }

    pub(crate) fn disk(doing: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Disk {
            doing,
            path: path.clone(),
            source,
        }
    }
}

/// Whatever was left there goes, and the folder is made anew.
pub(crate) fn empty_folder(folder: &Path) -> Result<(), CaptureError> {
    remove_folder(folder)?;
    std::fs::create_dir_all(folder).map_err(CaptureError::disk("could not create", folder))
}

/// Removes a folder, if it is there.
pub(crate) fn remove_folder(folder: &Path) -> Result<(), CaptureError> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(CaptureError::disk("could not remove", folder)(e))
        }
        _ => Ok(()),
    }
}
