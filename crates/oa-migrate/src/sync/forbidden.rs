//! Rows that came and that a `CHECK` of the target's table forbids: they are quarantined, as `run` does.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use oa_core::pg::{describe, quote_ident};
use postgres::Transaction;
use postgres::error::SqlState;
use rusqlite::{Connection, params};

use super::{SyncTable, delta};
use crate::inspect::literal;
use crate::load::{forms, misfits, rejects};

/// Moves such rows from the temporary table of rows that came to the quarantined ones. Returns how many there are.
pub(crate) fn quarantine(
    tx: &mut Transaction<'_>,
    connection: &Connection,
    sync: &SyncTable,
) -> Result<u64> {
    let bad = forbidden(tx, sync)?;
    if bad.is_empty() {
        return Ok(0);
    }
    let table = &sync.table;
    let key = delta::key_of(table);
    let sql = format!(
        "{} {} AND NOT EXISTS (SELECT 1 FROM main.rejects AS q WHERE q.tbl = {} AND q.key = {key})",
        delta::select(sync, "new"),
        delta::only_in(sync, "new", "old")?,
        literal(&table.name)
    );
    let mut found = Vec::new();
    {
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        let mut number = 0;
        while let Some(row) = rows.next()? {
            number += 1;
            if let Some(constraint) = bad.get(&number) {
                let key: Option<String> = row.get(0)?;
                let key = key.with_context(|| {
                    format!("the constraint {constraint} forbids a row of table {}, which has no key by which it could be found again", table.name)
                })?;
                found.push((key, constraint, rejects::record(table, row)?.to_string()));
            }
        }
    }
    let mut insert = connection.prepare(rejects::INSERT)?;
    for (key, constraint, record) in &found {
        insert.execute(params![
            table.name,
            sync.comparison.target,
            key,
            Option::<String>::None,
            format!("the target's constraint {constraint} forbids it"),
            record,
            Option::<Vec<u8>>::None
        ])?;
    }
    let added = sync.added();
    let numbers: Vec<i64> = bad.keys().copied().collect();
    tx.execute(
        &format!(
            "DELETE FROM {added} WHERE ctid IN (SELECT ctid FROM (SELECT ctid, row_number() OVER (ORDER BY ctid) AS n FROM {added}) AS u WHERE n = ANY ($1))"
        ),
        &[&numbers],
    )
    .map_err(|e| anyhow!("could not quarantine rows of {}: {}", table.name, describe(&e)))?;
    Ok(found.len() as u64)
}

/// The numbers of such rows, in the order in which they came, and the constraint that each violates.
fn forbidden(tx: &mut Transaction<'_>, sync: &SyncTable) -> Result<BTreeMap<i64, String>> {
    let explain = |e: &postgres::Error| {
        anyhow!(
            "could not check the changes of {}: {}",
            sync.table.name,
            describe(e)
        )
    };
    let columns: Vec<String> = sync
        .columns
        .iter()
        .map(|(_, c, codec)| {
            let name = quote_ident(c);
            format!("{} AS {name}", forms::cast(&name, codec.pg))
        })
        .collect();
    let mut bad = BTreeMap::new();
    for (constraint, condition) in misfits::conditions(tx, &sync.qualified())? {
        let names = sync.columns.iter().map(|(_, c, _)| c.as_str());
        let number = misfits::free_name("oa_number", names, &condition);
        let sql = format!(
            "SELECT {number} FROM (SELECT {}, row_number() OVER (ORDER BY ctid) AS {number} FROM {}) AS t WHERE NOT ({condition})",
            columns.join(", "),
            sync.added()
        );
        let mut attempt = tx.transaction().map_err(|e| explain(&e))?;
        match attempt.query(&sql, &[]) {
            Ok(rows) => {
                attempt.commit().map_err(|e| explain(&e))?;
                for row in &rows {
                    bad.entry(row.get(0)).or_insert_with(|| constraint.clone());
                }
            }
            // About a column that the source has not: PostgreSQL checks it when the rows are written.
            Err(e) if e.code() == Some(&SqlState::UNDEFINED_COLUMN) => {
                attempt.rollback().map_err(|e| explain(&e))?;
            }
            Err(e) => return Err(explain(&e)),
        }
    }
    Ok(bad)
}
