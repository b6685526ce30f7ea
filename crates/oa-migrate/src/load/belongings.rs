//! What belongs to a table besides its rows: read from PostgreSQL's catalogue, created again on the table that takes its place,
//! and read once more, so that nothing is lost silently.

use anyhow::{Result, anyhow};
use oa_core::pg::describe;
use postgres::{GenericClient, Transaction};

use crate::plan::Missing;

const QUERY: &str = include_str!("belongings.sql");

#[derive(Debug, Clone)]
pub(crate) struct Belonging {
    /// When it can be created.
    pub(crate) phase: Phase,
    pub(crate) item: String,
    pub(crate) definition: String,
    pub(crate) statement: String,
}

/// When an item can be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// On the empty table.
    Empty,
    /// When the table is in its place.
    InPlace,
    /// Not at all by this program.
    Never,
}

/// Reads what belongs to a table, in the order in which it can be created. `name` is what the statements call it.
pub(crate) fn of(
    client: &mut impl GenericClient,
    table: &str,
    name: &str,
) -> Result<Vec<Belonging>> {
    let explain =
        |e: postgres::Error| anyhow!("could not read what belongs to {table}: {}", describe(&e));
    let oid: u32 = client
        .query_one("SELECT $1::text::regclass::oid", &[&table])
        .map_err(explain)?
        .get(0);
    let rows = client.query(QUERY, &[&oid, &name]).map_err(explain)?;
    rows.iter()
        .map(|row| {
            Ok(Belonging {
                phase: match row.get::<_, i32>(0) {
                    1 => Phase::Empty,
                    2 => Phase::InPlace,
                    _ => Phase::Never,
                },
                item: row.get(2),
                definition: row.try_get(3).map_err(explain)?,
                statement: row.get(4),
            })
        })
        .collect()
}

/// Creates the items of a phase. What PostgreSQL refuses, [`carry_over`] finds missing.
pub(crate) fn make(tx: &mut Transaction<'_>, items: &[Belonging], phase: Phase) -> Result<()> {
    for item in items.iter().filter(|i| i.phase == phase) {
        let explain =
            |e: postgres::Error| anyhow!("could not create {}: {}", item.item, describe(&e));
        let mut attempt = tx.transaction().map_err(explain)?;
        match attempt.batch_execute(&item.statement) {
            Ok(()) => attempt.commit().map_err(explain)?,
            Err(e) if oa_core::pg::is_connection_error(&e) => return Err(explain(e)),
            Err(_) => attempt.rollback().map_err(explain)?,
        }
    }
    Ok(())
}

/// Creates on the table of that name what it lacks of `had`, revokes privileges that the old one did not give, and returns what
/// is missing then.
pub(crate) fn carry_over(
    tx: &mut Transaction<'_>,
    table: &str,
    had: &[Belonging],
) -> Result<Vec<Missing>> {
    let now = of(tx, table, table)?;
    let lacking: Vec<Belonging> = had
        .iter()
        .filter(|old| !now.iter().any(|new| same(old, new)))
        .cloned()
        .collect();
    make(tx, &lacking, Phase::InPlace)?;
    let now = of(tx, table, table)?;
    for extra in now.iter().filter(|new| {
        new.item.starts_with("privilege ") && !had.iter().any(|old| old.item == new.item)
    }) {
        // GRANT … ON … TO role [WITH GRANT OPTION]
        let grant = extra.statement.trim_end_matches(" WITH GRANT OPTION");
        let Some((what, role)) = grant.rsplit_once(" TO ") else {
            continue;
        };
        let revoke = format!("{} FROM {role}", what.replacen("GRANT ", "REVOKE ", 1));
        tx.batch_execute(&revoke)
            .map_err(|e| anyhow!("could not revoke {}: {}", extra.item, describe(&e)))?;
    }
    Ok(had
        .iter()
        .filter(|old| !now.iter().any(|new| same(old, new)))
        .map(|old| Missing {
            table: table.to_owned(),
            item: old.item.clone(),
            had: old.definition.clone(),
            has: now
                .iter()
                .find(|new| new.item == old.item)
                .map_or_else(|| "nothing".to_owned(), |new| new.definition.clone()),
            sql: old.statement.clone(),
        })
        .collect())
}

/// A constraint that was not valid may be so now.
fn same(old: &Belonging, new: &Belonging) -> bool {
    old.item == new.item
        && (old.definition == new.definition
            || old.definition.strip_suffix(" NOT VALID") == Some(&new.definition))
}
