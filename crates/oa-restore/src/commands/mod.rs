//! One file per command: its arguments and what it does. Exit codes are decided here and nowhere below.

pub(crate) mod cluster;
pub(crate) mod database;
pub(crate) mod drill;
pub(crate) mod files;
mod options;
pub(crate) mod plan;
mod quick;
mod session;
pub(crate) mod table;
mod target_dir;

use oa_core::app::cli::Failure;
use oa_core::app::exit;
use oa_repository::PostgresError;

use crate::RestoreError;

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        let code = match &error {
            RestoreError::Target(_) => exit::USAGE,
            RestoreError::Refused(_) => exit::REFUSED,
            RestoreError::Programs(_) => exit::CONFIG,
            RestoreError::Query { said, .. } if oa_core::pg::is_connection_error(said) => {
                exit::UNREACHABLE
            }
            RestoreError::Connect(e) if e.is_passing() => exit::UNREACHABLE,
            RestoreError::Connect(_) => exit::CONFIG,
            RestoreError::Config(_) => exit::CONFIG,
            RestoreError::Repository(_) => {
                let RestoreError::Repository(e) = error else {
                    unreachable!("it was matched just before")
                };
                return e.into();
            }
            // The hint of the backups' role is none for a restore.
            RestoreError::Capture(PostgresError::Failed { .. }) => exit::FAILED,
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
