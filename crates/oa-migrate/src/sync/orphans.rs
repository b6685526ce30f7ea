//! Rows whose foreign keys dangle since the source changed: quarantined, as `run` does.

use anyhow::{Context, Result, anyhow, bail};
use oa_core::pg::describe;
use postgres::Transaction;
use rusqlite::{Connection, params};

use super::{Changes, SyncTable, apply, delta};
use crate::inspect::{Table, literal, quote, stand_ins};
use crate::load::rejects;

/// A foreign key of the target between two tables of the run, in SQLite's names.
struct ForeignKey {
    child: usize,
    parent: usize,
    /// Columns of the child, and of the parent.
    pairs: Vec<(String, String)>,
    /// Without it, older rows may dangle.
    validated: bool,
}

/// Quarantined by one foreign key: table, and numbers of the rows in the file.
struct QuarantinedBatch {
    table: usize,
    after: i64,
    last: i64,
}

/// Quarantines the rows that refer to a missing row, or to one that was quarantined itself, until there are no more, deletes them
/// from the target, and corrects the counts. The changes have been applied.
pub(crate) fn quarantine(
    tx: &mut Transaction<'_>,
    connection: &Connection,
    schema: &str,
    work: &[(SyncTable, bool)],
    changes: &mut [Changes],
) -> Result<()> {
    let keys = foreign_keys(tx, schema, work)?;
    let mut batches: Vec<QuarantinedBatch> = Vec::new();
    loop {
        let before = batches.len();
        for key in &keys {
            let after = last_number(connection)?;
            let found = quarantine_by(connection, key, work)?;
            if found > 0 {
                changes[key.child].quarantined += found;
                batches.push(QuarantinedBatch {
                    table: key.child,
                    after,
                    last: last_number(connection)?,
                });
            }
        }
        if batches.len() == before {
            break;
        }
    }
    // The last ones found lead to those found before them.
    for (number, batch) in batches.iter().enumerate().rev() {
        let sync = &work[batch.table].0;
        let quarantined = format!("pg_temp.oa_quarantined_{number}");
        let rows = format!(
            "FROM new.{} AS a WHERE {} IN (SELECT key FROM main.rejects WHERE tbl = {} AND seq > {} AND seq <= {})",
            quote(&sync.table.name),
            key_of(&sync.table, "a")?,
            literal(&sync.table.name),
            batch.after,
            batch.last
        );
        delta::send_rows(tx, connection, sync, &quarantined, &rows)?;
        let (deleted, new) = apply::delete_quarantined(tx, sync, &quarantined)?;
        let counts = &mut changes[batch.table];
        counts.inserted = counts.inserted.saturating_sub(new);
        counts.deleted += deleted.saturating_sub(new);
    }
    Ok(())
}

fn last_number(connection: &Connection) -> Result<i64> {
    Ok(
        connection.query_row("SELECT coalesce(max(seq), 0) FROM main.rejects", [], |r| {
            r.get(0)
        })?,
    )
}

fn foreign_keys(
    tx: &mut Transaction<'_>,
    schema: &str,
    work: &[(SyncTable, bool)],
) -> Result<Vec<ForeignKey>> {
    let targets: Vec<&str> = work
        .iter()
        .map(|(s, _)| s.comparison.target.as_str())
        .collect();
    let columns = |of: &str, numbers: &str| {
        format!(
            "ARRAY (SELECT a.attname::text FROM unnest({numbers}) WITH ORDINALITY AS u(n, place)
                    JOIN pg_attribute a ON a.attrelid = {of} AND a.attnum = u.n ORDER BY u.place)"
        )
    };
    let rows = tx
        .query(
            &format!(
                "SELECT c.relname::text, p.relname::text, k.convalidated, {}, {}
                 FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class p ON p.oid = k.confrelid
                 WHERE k.contype = 'f' AND c.relnamespace = to_regnamespace(quote_ident($1::text)) AND p.relnamespace = c.relnamespace
                   AND c.relname = ANY ($2) AND p.relname = ANY ($2) ORDER BY k.oid",
                columns("k.conrelid", "k.conkey"),
                columns("k.confrelid", "k.confkey")
            ),
            &[&schema, &targets],
        )
        .map_err(|e| anyhow!("could not read the foreign keys of {schema}: {}", describe(&e)))?;
    let mut keys = Vec::new();
    for row in rows {
        let position = |name: String| targets.iter().position(|t| *t == name);
        let (Some(child), Some(parent)) = (position(row.get(0)), position(row.get(1))) else {
            continue;
        };
        let source_of = |table: usize, names: Vec<String>| -> Option<Vec<String>> {
            let columns = &work[table].0.comparison.columns;
            let find = |n: &String| columns.iter().find(|c| c.target == *n);
            names
                .iter()
                .map(|n| find(n).map(|c| c.source.clone()))
                .collect()
        };
        // A column that only PostgreSQL has says nothing about SQLite's rows.
        let (Some(own), Some(other)) =
            (source_of(child, row.get(3)), source_of(parent, row.get(4)))
        else {
            continue;
        };
        keys.push(ForeignKey {
            child,
            parent,
            pairs: own.into_iter().zip(other).collect(),
            validated: row.get(2),
        });
    }
    Ok(keys)
}

fn key_of(table: &Table, of: &str) -> Result<String> {
    table.key_expression(of).with_context(|| {
        format!(
            "table {} has neither a rowid nor a primary key, by which rows with dangling foreign keys could be found again; correct them in SQLite",
            table.name
        )
    })
}

/// Quarantines what one foreign key finds. Returns how many rows there are.
fn quarantine_by(
    connection: &Connection,
    key: &ForeignKey,
    work: &[(SyncTable, bool)],
) -> Result<u64> {
    let (child, parent) = (&work[key.child].0, &work[key.parent].0);
    let not_quarantined = |table: &Table, of: &str| -> Result<String> {
        Ok(format!(
            "NOT EXISTS (SELECT 1 FROM main.rejects AS q WHERE q.tbl = {} AND q.key = {})",
            literal(&table.name),
            key_of(table, of)?
        ))
    };
    let mut conditions: Vec<String> = key
        .pairs
        .iter()
        .map(|(own, _)| format!("a.{} IS NOT NULL", quote(own)))
        .collect();
    conditions.push(not_quarantined(&child.table, "a")?);
    let same: Vec<String> = key
        .pairs
        .iter()
        .map(|(own, other)| {
            let plus = stand_ins::without_index(&parent.table, other);
            format!("{plus}p.{} = a.{}", quote(other), quote(own))
        })
        .collect();
    conditions.push(format!(
        "NOT EXISTS (SELECT 1 FROM new.{} AS p WHERE {} AND {})",
        quote(&parent.table.name),
        same.join(" AND "),
        not_quarantined(&parent.table, "p")?
    ));
    let from = if key.validated {
        format!("FROM new.{} AS a WHERE 1", quote(&child.table.name))
    } else {
        delta::only_in(child, "new", "old")?
    };
    let columns: Vec<String> = child
        .table
        .columns
        .iter()
        .map(|c| format!("a.{}", quote(&c.name)))
        .collect();
    let mut statement = connection.prepare(&format!(
        "SELECT {}, {} {from} AND {}",
        key_of(&child.table, "a")?,
        columns.join(", "),
        conditions.join(" AND ")
    ))?;
    // Read to the end first: the file that is written to is read from.
    let mut found: Vec<(String, String)> = Vec::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        found.push((row.get(0)?, rejects::record(&child.table, row)?.to_string()));
    }
    drop(rows);
    let own: Vec<&str> = key.pairs.iter().map(|(own, _)| own.as_str()).collect();
    let mut insert = connection.prepare(rejects::INSERT)?;
    for (row_key, record) in &found {
        let added = insert.execute(params![
            child.table.name,
            child.comparison.target,
            row_key,
            own.join(", "),
            format!(
                "no row of {} has this key (foreign key)",
                parent.comparison.target
            ),
            record,
            Option::<Vec<u8>>::None
        ])?;
        if added == 0 {
            bail!(
                "row {row_key} of table {} was quarantined twice",
                child.table.name
            );
        }
    }
    Ok(found.len() as u64)
}
