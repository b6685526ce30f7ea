//! The reasons why something was not restored.

use std::path::{Path, PathBuf};

use oa_core::app::config::ConfigError;
use oa_core::base::supervise::StopSignal;
use oa_core::base::units::Bytes;
use oa_repository::PostgresError;
use oa_repository::RepositoryError;
use postgres::error::SqlState;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// `--to` cannot be understood.
    #[error("{0}")]
    Target(String),
    /// No backup leads to that target.
    #[error("{0}")]
    NoPlan(String),
    /// Something stands where the restore would go, or it may not be done.
    #[error("{0}")]
    Refused(String),
    /// PostgreSQL's programs are not here, or not in the version that is needed.
    #[error("{0}")]
    Programs(String),
    #[error("{doing} {}: {said}", path.display())]
    Disk {
        doing: &'static str,
        path: PathBuf,
        said: std::io::Error,
    },
    #[error("{} has {free} left, and about {needed} are needed to restore; {remedy}", path.display())]
    NoRoom {
        path: PathBuf,
        free: Bytes,
        needed: Bytes,
        remedy: &'static str,
    },
    /// A disk became full on the way.
    #[error("the disk of {owner} is full: {said}; {remedy}")]
    Full {
        owner: String,
        said: String,
        remedy: &'static str,
    },
    /// The same, as long as it is not said whose disk it is.
    #[error("{0}")]
    DiskFull(String),
    /// The private server did not do its work.
    #[error("{doing}: {said}")]
    Server {
        doing: &'static str,
        /// The end of its log file.
        said: String,
    },
    /// A statement failed in the live server.
    #[error("{doing}: {}", oa_core::pg::describe(said))]
    Query {
        doing: String,
        /// Not a source: the message has it already.
        said: postgres::Error,
    },
    /// What was restored is not what was recorded.
    #[error("{0}")]
    Differs(String),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Capture(#[from] PostgresError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The live server.
    #[error(transparent)]
    Connect(#[from] oa_core::pg::ConnectError),
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
            | Self::Capture(PostgresError::Query { .. } | PostgresError::Connect(_)) => {
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
    pub(crate) fn on_disk_of(self, owner: impl std::fmt::Display, remedy: &'static str) -> Self {
        if !self.is_full() {
            return self;
        }
        Self::Full {
            owner: owner.to_string(),
            said: self.to_string(),
            remedy,
        }
    }

    /// Whether it is about a full disk, or a quota that is used up.
    fn is_full(&self) -> bool {
        match self {
            Self::DiskFull(_) => true,
            Self::Disk { said, .. } => said.raw_os_error().is_some_and(|n| FULL.contains(&n)),
            Self::Query { said, .. } | Self::Capture(PostgresError::Query { source: said, .. }) => {
                said.code() == Some(&SqlState::DISK_FULL)
            }
            Self::Capture(PostgresError::Disk { source, .. }) => {
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

/// Between steps that take long.
pub(crate) fn stop_if_asked() -> Result<(), RestoreError> {
    if StopSignal.requested() {
        return Err(RestoreError::Stopped);
    }
    Ok(())
}
