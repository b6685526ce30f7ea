//! The one error that commands answer with an exit code of its own, and what an error of PostgreSQL says about a statement.

/// Refused, with the reason and the remedy: going on would overwrite something or act on a guess. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) String);

/// Whether an error says nothing about the statement or the values: a full disk, a lock of others, a cancellation. Extensions report bad
/// values as internal errors.
pub(crate) fn is_passing(error: &postgres::Error) -> bool {
    let internal = error.code().is_some_and(|c| c.code().starts_with("XX"));
    oa_core::pg::is_passing(error) && !internal
}
