//! What can go wrong: with the repository, and with PostgreSQL and its programs.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use oa_core::app::cli::Failure;
use oa_core::app::exit;
use oa_core::pg;

/// The repository could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// There is none.
    #[error("there is no repository at {0}; create it with: oa-backup init")]
    Absent(String),
    /// There is none where PostgreSQL has recorded backups.
    #[error(
        "there is no repository at {place}, although {backups} backups were recorded there (the newest, {newest}, is of {at}); is its disk mounted? If they are lost, start over with: oa-backup init --anew"
    )]
    Vanished {
        /// Where it should be.
        place: String,
        /// How many backups were recorded there.
        backups: i64,
        /// The newest one.
        newest: String,
        /// What it restores.
        at: String,
    },
    /// There is one already.
    #[error("there is a repository at {0} already; nothing was changed")]
    Exists(String),
    /// Something is there without which a new repository would be one more thing to untangle.
    #[error("{0}")]
    Occupied(String),
    /// What opens it is damaged in both copies.
    #[error("{0}")]
    Lost(String),
    /// The key does not open it.
    #[error("the password does not open the repository at {0}; check password in [backup]")]
    Password(String),
    /// The location is not usable as it is configured.
    #[error("{0}")]
    Place(String),
    /// What was to be stored was not stored as a whole.
    #[error("{what} was not stored as a whole: {stored} of {expected}; nothing is listed")]
    Incomplete {
        /// What was stored.
        what: String,
        /// Files and bytes in the repository.
        stored: String,
        /// Files and bytes that were to be stored.
        expected: String,
    },
    /// What was stored needs something that is damaged: chunks that older backups had stored already.
    #[error(
        "what was just stored is not whole and not listed: {0}; take the damage out with oa-backup repair, then make a full backup"
    )]
    Damaged(String),
    /// Backups are listed that lack data, so nobody can say what is unused.
    #[error(
        "nothing can be freed at {0} while backups are listed that lack data (oa-backup verify names them); after oa-backup repair and oa-backup full those that still do can be given up with oa-backup prune --damaged"
    )]
    Lacking(String),
    /// This process was asked to stop.
    #[error("stopped by a signal")]
    Stopped,
    /// There is no such backup.
    #[error("there is no backup {0}; see oa-backup list")]
    NoBackup(String),
    /// The engine, or the disk or service below it.
    #[error("could not {doing} at {place}: {reason}")]
    Engine {
        /// What was being done.
        doing: &'static str,
        /// The repository.
        place: String,
        /// What the engine said.
        reason: String,
        /// What the operating system said below it, where that is known.
        system: Option<ErrorKind>,
    },
}

impl RepositoryError {
    /// Whether what was read may be the reason. A disk that takes nothing more says nothing of what was to be written.
    pub(crate) fn may_be_of_reading(&self) -> bool {
        let Self::Engine { system, .. } = self else {
            return false;
        };
        !matches!(
            system,
            Some(
                ErrorKind::StorageFull
                    | ErrorKind::QuotaExceeded
                    | ErrorKind::FileTooLarge
                    | ErrorKind::ReadOnlyFilesystem
            )
        )
    }
}

/// PostgreSQL, one of its programs, or this machine's disk did not do what was needed.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] pg::ConnectError),
    /// The server refused a statement.
    #[error("{doing}: {}", pg::describe(source))]
    Query {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        source: postgres::Error,
    },
    /// One of PostgreSQL's programs is not installed, or not in the server's version.
    #[error("{0}")]
    Program(String),
    /// What the server or one of its programs gave is not what it should be.
    #[error("{0}")]
    Wrong(String),
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
    /// This program was asked to stop.
    #[error("stopped by a signal")]
    Stopped,
}

impl PostgresError {
    /// For a statement that the server refuses.
    pub fn query(doing: &'static str) -> impl Fn(postgres::Error) -> Self {
        move |source| Self::Query { doing, source }
    }

    /// For a file that cannot be used.
    pub fn disk(doing: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Disk {
            doing,
            path: path.clone(),
            source,
        }
    }
}

impl From<PostgresError> for Failure {
    fn from(error: PostgresError) -> Self {
        match error {
            PostgresError::Connect(e) => e.into(),
            PostgresError::Query { ref source, .. } if pg::is_connection_error(source) => {
                Self::new(exit::UNREACHABLE, error)
            }
            PostgresError::Program(_) => Self::new(exit::CONFIG, error),
            other => Self::new(exit::FAILED, other),
        }
    }
}

impl From<RepositoryError> for Failure {
    fn from(error: RepositoryError) -> Self {
        let code = match error {
            RepositoryError::Absent(_)
            | RepositoryError::Vanished { .. }
            | RepositoryError::Password(_)
            | RepositoryError::Place(_) => exit::CONFIG,
            RepositoryError::Exists(_) | RepositoryError::Occupied(_) => exit::REFUSED,
            _ => exit::FAILED,
        };
        Self::new(code, error)
    }
}
