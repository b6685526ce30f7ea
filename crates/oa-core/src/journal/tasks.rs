//! The order of locks. A task's row in `oa.tasks` is the first that is locked by whatever changes its runs, its days or its slots; of several
//! tasks, by name; then runs, days, slots, incidents. So nobody waits for somebody who waits for him.

use postgres::GenericClient;

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
