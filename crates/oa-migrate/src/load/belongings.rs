//! What belongs to a table besides its rows: read from PostgreSQL's catalogue before and after rows come, so that nothing is lost
//! silently, and created again where it had to be dropped.

use anyhow::{Result, anyhow};
use oa_core::pg::describe;
use postgres::{GenericClient, Transaction};

use crate::errors::is_passing;
use crate::plan::Missing;

const QUERY: &str = include_str!("belongings.sql");

#[derive(Debug, Clone)]
pub(crate) struct Belonging {
    /// Its statement makes it on a table that has rows.
    makeable: bool,
    pub(crate) item: String,
    pub(crate) definition: String,
    pub(crate) statement: String,
}

impl Belonging {
    /// A constraint that was not valid may be so now.
    pub(crate) fn same_as(&self, new: &Self) -> bool {
        self.item == new.item
            && (self.definition == new.definition
                || self.definition.strip_suffix(" NOT VALID") == Some(&new.definition))
    }
}

/// Reads what belongs to a table, in the order in which it can be created.
pub(crate) fn of(client: &mut impl GenericClient, table: &str) -> Result<Vec<Belonging>> {
    let explain =
        |e: postgres::Error| anyhow!("could not read what belongs to {table}: {}", describe(&e));
    let oid: u32 = client
        .query_one("SELECT $1::text::regclass::oid", &[&table])
        .map_err(explain)?
        .get(0);
    let rows = client.query(QUERY, &[&oid, &table]).map_err(explain)?;
    rows.iter()
        .map(|row| {
            Ok(Belonging {
                makeable: row.get::<_, i32>(0) == 2,
                item: row.get(2),
                definition: row.try_get(3).map_err(explain)?,
                statement: row.get(4),
            })
        })
        .collect()
}

/// Creates items. What PostgreSQL refuses, [`carry_over`] finds missing.
fn make(tx: &mut Transaction<'_>, items: &[Belonging]) -> Result<()> {
    for item in items.iter().filter(|i| i.makeable) {
        let explain =
            |e: postgres::Error| anyhow!("could not create {}: {}", item.item, describe(&e));
        let mut attempt = tx.transaction().map_err(explain)?;
        match attempt.batch_execute(&item.statement) {
            Ok(()) => attempt.commit().map_err(explain)?,
            Err(e) if is_passing(&e) => return Err(explain(e)),
            Err(_) => attempt.rollback().map_err(explain)?,
        }
    }
    Ok(())
}

/// Creates on the table of that name what it lacks of `had`, and returns what is missing then.
pub(crate) fn carry_over(
    tx: &mut Transaction<'_>,
    table: &str,
    had: &[Belonging],
) -> Result<Vec<Missing>> {
    let now = of(tx, table)?;
    let lacking: Vec<Belonging> = had
        .iter()
        .filter(|old| !now.iter().any(|new| old.same_as(new)))
        .cloned()
        .collect();
    make(tx, &lacking)?;
    let now = of(tx, table)?;
    Ok(had
        .iter()
        .filter(|old| !now.iter().any(|new| old.same_as(new)))
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
