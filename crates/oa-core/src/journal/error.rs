//! The reasons why something could not be recorded.

use super::spool::SpoolError;
use crate::base::state_dir::StateDirError;
use crate::base::supervise::Stubborn;
use crate::model::event::{Fault, SchemaVersions};
use crate::pg::schema::{self, SchemaError};
use crate::pg::{ConnectError, Meaning};

/// There is no usable PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum DbUnavailable {
    /// Not reachable, or it does not let us in.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Its schema is not ours; nothing may be written.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// It went down while the spool was drained.
    #[error("{0}")]
    Drain(String),
}

impl DbUnavailable {
    /// What is wrong: a server that answers and refuses the question is not one that cannot be reached.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Schema(SchemaError::Query(e)) if Meaning::of(e) != Meaning::Unreachable => {
                Fault::CheckFailed
            }
            Self::Schema(e) if e.is_for_a_person() => Fault::SchemaUnfit,
            _ => Fault::DatabaseUnreachable,
        }
    }

    /// The versions of a schema that does not fit.
    #[must_use]
    pub fn versions(&self) -> Option<SchemaVersions> {
        let (found, needed) = match self {
            Self::Schema(SchemaError::Absent) => (None, schema::needed()),
            Self::Schema(
                SchemaError::Older { found, needed } | SchemaError::Newer { found, needed },
            ) => (Some(*found), *needed),
            _ => return None,
        };
        Some(SchemaVersions { found, needed })
    }
}

/// A run could not be begun, or its outcome not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateDirError),
    /// PostgreSQL cannot be used, and only a person can change that.
    #[error(transparent)]
    Unavailable(#[from] DbUnavailable),
    /// The spool cannot take it.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Neither PostgreSQL nor the spool can take an outcome.
    #[error("{reason}; and the outcome cannot wait on this machine: {spool}")]
    Lost {
        /// Why PostgreSQL did not.
        reason: String,
        /// Why the spool did not.
        spool: SpoolError,
    },
    /// What an earlier run has left does not end.
    #[error(transparent)]
    Leftover(#[from] Stubborn),
}
