//! The one error that commands answer with an exit code of its own.

/// Refused, with the reason and the remedy: going on would overwrite something or act on a guess. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) String);
