//! The order of locks. A task's row in `oa.tasks` is the first that is locked by whatever changes its runs, its days or its slots; of several
//! tasks, by name; then runs, days, slots, incidents. So nobody waits for somebody who waits for him.

use postgres::error::SqlState;
use postgres::{GenericClient, Transaction};

/// Waits for the rows of these tasks, until the end of the transaction.
///
/// # Errors
/// When PostgreSQL fails.
pub fn lock(client: &mut impl GenericClient, names: &[&str]) -> Result<(), postgres::Error> {
    client.execute(
        "SELECT FROM oa.tasks WHERE name = ANY($1) ORDER BY name FOR NO KEY UPDATE",
        &[&names],
    )?;
    Ok(())
}

/// Takes those of these tasks that nobody else has, without waiting, until the end of the transaction. Returns the others.
///
/// # Errors
/// When PostgreSQL fails.
pub fn lock_free(
    client: &mut impl GenericClient,
    names: &[&str],
) -> Result<Vec<String>, postgres::Error> {
    let rows = client.query(
        "WITH free AS (SELECT name FROM oa.tasks WHERE name = ANY($1) ORDER BY name FOR NO KEY UPDATE SKIP LOCKED)
         SELECT name FROM oa.tasks WHERE name = ANY($1) AND name NOT IN (SELECT name FROM free) ORDER BY name",
        &[&names],
    )?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}

/// Waits for these tasks as long as `lock_timeout` says, and takes those that are free then. Returns the others: one that stores a long
/// outcome, or that somebody has locked by hand, keeps nobody from the rest.
///
/// # Errors
/// When PostgreSQL fails.
pub fn lock_or_leave(
    tx: &mut Transaction<'_>,
    names: &[&str],
) -> Result<Vec<String>, postgres::Error> {
    let mut waiting = tx.transaction()?;
    match lock(&mut waiting, names) {
        Ok(()) => {
            waiting.commit()?;
            Ok(Vec::new())
        }
        Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            waiting.rollback()?;
            lock_free(tx, names)
        }
        Err(e) => Err(e),
    }
}
