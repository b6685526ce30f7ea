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

/// For how long whoever has other tasks to begin waits for those that somebody else has.
const SHORTLY: &str = "2s";

/// Until the transaction's end nothing is waited for longer than that, whatever `lock_timeout` says.
///
/// # Errors
/// When PostgreSQL fails.
pub fn wait_shortly(tx: &mut Transaction<'_>) -> Result<(), postgres::Error> {
    tx.execute(
        "SELECT set_config('lock_timeout', $1, true) FROM pg_settings
         WHERE name = 'lock_timeout' AND (setting = '0' OR setting::bigint * interval '1 ms' > $1::text::interval)",
        &[&SHORTLY],
    )?;
    Ok(())
}

/// The same within a short time, whatever `lock_timeout` says, for whoever has other tasks to begin.
///
/// # Errors
/// When PostgreSQL fails.
pub fn lock_shortly(
    tx: &mut Transaction<'_>,
    names: &[&str],
) -> Result<Vec<String>, postgres::Error> {
    let mut waiting = tx.transaction()?;
    let before = waiting.query_one("SELECT current_setting('lock_timeout')", &[])?;
    let before: &str = before.get(0);
    wait_shortly(&mut waiting)?;
    match lock_or_leave(&mut waiting, names) {
        Ok(left) => {
            waiting.execute("SELECT set_config('lock_timeout', $1, true)", &[&before])?;
            waiting.commit()?;
            Ok(left)
        }
        // Somebody has the whole table.
        Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            waiting.rollback()?;
            Ok(names.iter().map(|name| (*name).to_owned()).collect())
        }
        Err(e) => Err(e),
    }
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
