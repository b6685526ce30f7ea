//! What only one process may do at a time, until the end of its transaction.

use postgres::Transaction;

/// Waits until no other process does what has this name. It is a row that is locked: whoever may connect could hold an advisory
/// lock for ever, but a row is locked only by who may change it.
///
/// # Errors
/// When PostgreSQL fails, or somebody else holds it for longer than `lock_timeout`.
pub fn alone(tx: &mut Transaction<'_>, name: &str) -> Result<(), postgres::Error> {
    const TAKE: &str = "SELECT FROM oa.locks WHERE name = $1 FOR UPDATE";
    if tx.query(TAKE, &[&name])?.is_empty() {
        tx.execute(
            "INSERT INTO oa.locks (name) VALUES ($1) ON CONFLICT DO NOTHING",
            &[&name],
        )?;
        tx.query(TAKE, &[&name])?;
    }
    Ok(())
}
