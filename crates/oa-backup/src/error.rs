//! The reasons why a backup was not made.

use std::path::{Path, PathBuf};

use oa_repository::{PostgresError, RepositoryError};

/// A backup could not be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    #[error(transparent)]
    Config(#[from] oa_core::app::config::ConfigError),
    /// PostgreSQL, one of its programs, or this machine's disk.
    #[error(transparent)]
    Postgres(PostgresError),
    /// The WAL has a gap since the last backup, or there is no full backup: only a new one helps, and one is made at once.
    #[error("{0}")]
    Gap(String),
    #[error("{0}")]
    Busy(String),
    /// The server, or this role, does not allow it.
    #[error("{0}")]
    NotAllowed(String),
    /// The staging folder cannot be used.
    #[error(transparent)]
    Staging(#[from] oa_core::base::state_dir::StateDirError),
    /// Too little room for what has to be staged.
    #[error("{} has {free} left, and about {needed} are needed to stage the backup; free space there or set staging in [backup] to a larger disk", path.display())]
    NoRoom {
        path: PathBuf,
        free: oa_core::base::units::Bytes,
        needed: oa_core::base::units::Bytes,
    },
    #[error(transparent)]
    Repository(RepositoryError),
    #[error("stopped by a signal; what it was making is not listed, and the next backup tidies up")]
    Stopped,
}

impl From<RepositoryError> for BackupError {
    fn from(error: RepositoryError) -> Self {
        match error {
            RepositoryError::Stopped => Self::Stopped,
            other => Self::Repository(other),
        }
    }
}

impl From<PostgresError> for BackupError {
    fn from(error: PostgresError) -> Self {
        match error {
            PostgresError::Stopped => Self::Stopped,
            other => Self::Postgres(other),
        }
    }
}

impl From<oa_core::pg::ConnectError> for BackupError {
    fn from(error: oa_core::pg::ConnectError) -> Self {
        Self::Postgres(error.into())
    }
}

impl BackupError {
    /// Whether the same may succeed a minute later, by what kind of error it is.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Postgres(PostgresError::Query { source, .. }) => oa_core::pg::is_passing(source),
            _ => false,
        }
    }

    pub(crate) fn query(doing: &'static str) -> impl Fn(postgres::Error) -> Self {
        let failed = PostgresError::query(doing);
        move |source| Self::Postgres(failed(source))
    }

    pub(crate) fn disk(doing: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Self {
        let failed = PostgresError::disk(doing, path);
        move |source| Self::Postgres(failed(source))
    }
}
