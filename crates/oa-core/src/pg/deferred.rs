//! What PostgreSQL checks only at the commit: constraints and triggers that are `INITIALLY DEFERRED`. Left to the commit, a row that breaks
//! one takes everything with it, and the error says neither which row it is nor that it is one.
//!
//! So all of it is checked before, behind the last row: rows that need each other come together, in whatever order. Where that fails the rows
//! are stored once more, and checked behind each statement.

use super::{Meaning, Tx};

/// Checks what has been deferred until now, and what comes from now on behind each statement.
pub(super) const CHECK: &str = "SET CONSTRAINTS ALL IMMEDIATE";

/// When what is deferred is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deferred {
    /// By [`settled`], when everything is stored.
    AtTheEnd,
    /// With each statement, so that it costs the rows that are at fault.
    AtOnce,
}

/// Stores rows behind a savepoint, so that nothing about them is left to be checked at the commit. `store` is called once more, and what it
/// did is undone before, when a row is at fault that was not checked at once.
///
/// # Errors
/// Those of `store`, and of PostgreSQL.
pub fn settled<T, E: From<postgres::Error>>(
    tx: &mut Tx<'_, '_>,
    mut store: impl FnMut(&mut Tx<'_, '_>, Deferred) -> Result<T, E>,
) -> Result<T, E> {
    let (mut savepoint, prepared) = tx.savepoint()?;
    let stored = store(&mut Tx::new(&mut savepoint, prepared), Deferred::AtTheEnd)?;
    match savepoint.batch_execute(CHECK) {
        Ok(()) => {
            savepoint.commit()?;
            return Ok(stored);
        }
        Err(e) if Meaning::of(&e) == Meaning::BadData => savepoint.rollback()?,
        Err(e) => return Err(e.into()),
    }
    let (mut savepoint, prepared) = tx.savepoint()?;
    let stored = store(&mut Tx::new(&mut savepoint, prepared), Deferred::AtOnce)?;
    savepoint.commit()?;
    Ok(stored)
}
