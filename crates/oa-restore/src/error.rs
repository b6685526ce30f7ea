//! Why something was not restored.

use std::path::{Path, PathBuf};

use oa_core::cli::Failure;
use oa_core::config::Bytes;
use oa_core::exit;
use oa_repository::PostgresError as CaptureError;
use oa_repository::RepositoryError;
use postgres::error::SqlState;

/// Something was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// `--to` cannot be understood.
    #[error("{0}")]
    Target(String),
    /// No backup leads to that moment.
    #[error("{0}")]
    NoWay(String),
    /// Something stands where the restore would go, or it may not be done.
    #[error("{0}")]
    Refused(String),
    /// PostgreSQL's programs are not here, or not in the version that is needed.
    #[error("{0}")]
    Programs(String),
    /// This machine's disk.
    #[error("{doing} {}: {said}", path.display())]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        said: std::io::Error,
    },
    /// Too little room.
    #[error("{} has {free} left, and about {needed} are needed to restore; {remedy}", path.display())]
    NoRoom {
        /// The folder.
        path: PathBuf,
        /// What is free.
        free: Bytes,
        /// What is needed.
        needed: Bytes,
        /// What to do.
        remedy: &'static str,
    },
    /// A disk became full on the way.
    #[error("the disk of {place} is full: {said}; {remedy}")]
    Full {
        /// Whose disk.
        place: String,
        /// What was said.
        said: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The same, as long as it is not said whose disk it is.
    #[error("{0}")]
    DiskFull(String),
    /// The private server did not do its work.
    #[error("{doing}: {said}")]
    Server {
        /// What was being done.
        doing: &'static str,
        /// The end of its log.
        said: String,
    },
    /// A statement failed in the live server.
    #[error("{doing}: {}", oa_core::pg::describe(said))]
    Query {
        /// What was being done.
        doing: String,
        /// What the server said. Not a source: it is told already.
        said: postgres::Error,
    },
    /// What was restored is not what was recorded.
    #[error("{0}")]
    Differs(String),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// One of PostgreSQL's programs failed.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The live server.
    #[error(transparent)]
    Connect(#[from] oa_core::pg::ConnectError),
    /// This program was asked to stop.
    #[error("stopped by a signal; the next oa-restore removes what is left, or goes on with it")]
    Stopped,
}

/// No space left on the device, and a quota that is used up (`ENOSPC`, `EDQUOT`).
const FULL: [i32; 2] = [28, 122];

impl RestoreError {
    /// What happened in the private server is no matter of reaching the live one, or of what its role may do.
    pub(crate) fn in_private(self) -> Self {
        match self {
            Self::Query { .. }
            | Self::Connect(_)
            | Self::Capture(CaptureError::Query { .. } | CaptureError::Connect(_)) => {
                if self.is_full() {
                    return Self::DiskFull(format!("in the private server: {self}"));
                }
                Self::Server {
                    doing: "in the private server",
                    said: self.to_string(),
                }
            }
            other => other,
        }
    }

    /// Says whose disk is full, if that is what it is about.
    pub(crate) fn on_disk_of(self, place: impl std::fmt::Display, remedy: &'static str) -> Self {
        if !self.is_full() {
            return self;
        }
        Self::Full {
            place: place.to_string(),
            said: self.to_string(),
            remedy,
        }
    }

    /// Whether it is about a full disk, or a quota that is used up.
    fn is_full(&self) -> bool {
        match self {
            Self::DiskFull(_) => true,
            Self::Disk { said, .. } => said.raw_os_error().is_some_and(|n| FULL.contains(&n)),
            Self::Query { said, .. } | Self::Capture(CaptureError::Query { source: said, .. }) => {
                said.code() == Some(&SqlState::DISK_FULL)
            }
            Self::Capture(CaptureError::Disk { source, .. }) => {
                source.raw_os_error().is_some_and(|n| FULL.contains(&n))
            }
            // These are texts, of programs that run in this machine's own language.
            Self::Repository(_) | Self::Capture(_) | Self::Server { .. } | Self::Differs(_) => {
                let said = self.to_string();
                FULL.iter().any(|n| {
                    let number = format!("os error {n}");
                    let words = std::io::Error::from_raw_os_error(*n).to_string();
                    let words = words.split(" (").next().unwrap_or_default().to_owned();
                    said.contains(&number) || said.contains(&words)
                })
            }
            _ => false,
        }
    }

    pub(crate) fn disk(doing: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Self {
        let path = path.to_owned();
        move |said| Self::Disk {
            doing,
            path: path.clone(),
            said,
        }
    }

    pub(crate) fn query(doing: impl Into<String>) -> impl Fn(postgres::Error) -> Self {
        let doing = doing.into();
        move |said| Self::Query {
            doing: doing.clone(),
            said,
        }
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        let code = match &error {
            RestoreError::Target(_) => exit::USAGE,
            RestoreError::Refused(_) => exit::REFUSED,
            RestoreError::Programs(_) => exit::CONFIG,
            RestoreError::Query { said, .. } if oa_core::pg::is_connection_error(said) => {
                exit::UNREACHABLE
            }
            RestoreError::Connect(e) => e.exit_code(),
            RestoreError::Repository(_) => {
                let RestoreError::Repository(e) = error else {
                    unreachable!("it was matched just before")
                };
                return e.into();
            }
            // The hint of the backups' role is none for a restore.
            RestoreError::Capture(CaptureError::Failed { .. }) => exit::FAILED,
            RestoreError::Capture(_) => {
                let RestoreError::Capture(e) = error else {
                    unreachable!("it was matched just before")
                };
                return e.into();
            }
            _ => exit::FAILED,
        };
        Self::new(code, error)
    }
}
