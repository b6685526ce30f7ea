//! The difference of two snapshots, made by SQLite and sent to temporary tables.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use oa_core::pg::{describe, quote_ident};
use postgres::Transaction;
use rusqlite::{Connection, params};

use super::{Fresh, SyncTable};
use crate::inspect::{Table, literal, quote, stand_ins};
use crate::load::encode::{Codec, HEADER, TRAILER};
use crate::load::forms;
use crate::load::rejects::{self, Rejects};
use crate::proof::Comparison;

/// A chunk of COPY data is sent when it has this size.
const CHUNK_BYTES: usize = 256 << 10;

/// Both snapshots and the quarantined rows, side by side in one connection: schemas `old`, `new` and `main`.
pub(crate) fn open(old: &Path, new: &Path, rejects: &Rejects) -> Result<Connection> {
    let connection = Connection::open(rejects.path())?;
    for (path, name) in [(old, "old"), (new, "new")] {
        connection
            .execute(
                &format!("ATTACH DATABASE ?1 AS {name}"),
                [path.to_string_lossy().as_ref()],
            )
            .with_context(|| format!("could not open {}", path.display()))?;
    }
    for name in ["old", "new"] {
        stand_ins::register(&connection, name)?;
    }
    forms::register(&connection)?;
    // Nobody needs this file after a crash before it is copied; it is made durable before the commit that needs it.
    connection.execute_batch("PRAGMA main.synchronous = OFF; PRAGMA temp_store = FILE")?;
    Ok(connection)
}

/// Adds what PostgreSQL's catalogue says about the columns of a table.
pub(crate) fn describe_table(
    tx: &mut Transaction<'_>,
    table: Table,
    comparison: Comparison,
    number: usize,
    fresh: Fresh,
) -> Result<SyncTable> {
    let rows = tx
        .query(
            "SELECT a.attname::text, a.attnotnull FROM pg_attribute a
             WHERE a.attrelid = format('%I.%I', $1::text, $2::text)::regclass AND a.attnum > 0 AND NOT a.attisdropped
               AND a.attgenerated = ''",
            &[&comparison.schema, &comparison.target],
        )
        .map_err(|e| anyhow!("could not look at {}: {}", comparison.target, describe(&e)))?;
    let written: Vec<(String, bool)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let columns = comparison
        .columns
        .iter()
        .enumerate()
        .filter_map(|(i, column)| {
            let (_, not_null) = written.iter().find(|(name, _)| *name == column.target)?;
            let codec = Codec {
                pg: column.pg,
                not_null: *not_null,
                zone: column.zone,
                conversion: column.conversion,
            };
            Some((i, column.target.clone(), codec))
        })
        .collect();
    let key = comparison
        .columns
        .iter()
        .filter(|c| c.is_key)
        .map(|c| c.target.clone())
        .collect();
    Ok(SyncTable {
        table,
        comparison,
        columns,
        key,
        number,
        fresh,
    })
}

/// `FROM` and `WHERE` of the rows of `this` snapshot that the `other` one does not have unchanged.
pub(crate) fn only_in(sync: &SyncTable, this: &str, other: &str) -> Result<String> {
    let table = &sync.table;
    if sync.fresh.whole {
        let all = if this == "new" { "1" } else { "0" };
        return Ok(format!("FROM new.{} AS a WHERE {all}", quote(&table.name)));
    }
    let keys: Vec<String> = if table.primary_key.is_empty() {
        let rowid = table.rowid_name.with_context(|| {
            format!(
                "table {} has neither a primary key nor a rowid, by which its rows could be distinguished; run again with --replace",
                table.name
            )
        })?;
        vec![format!("b.{rowid} = a.{rowid}")]
    } else {
        table
            .primary_key
            .iter()
            .map(|k| {
                // A rowid is never NULL, and a virtual table finds one by "=" only.
                let is = if table.rowid_alias.as_ref() == Some(k) {
                    "="
                } else {
                    "IS"
                };
                format!("b.{0} {is} a.{0}", quote(k))
            })
            .collect()
    };
    let same = table.columns.iter().map(|c| {
        let [a, b] = [("a", this), ("b", other)].map(|(alias, of)| value(sync, of, alias, &c.name));
        format!("{b} IS {a} COLLATE BINARY AND typeof({b}) = typeof({a})")
    });
    let condition: Vec<String> = keys.into_iter().chain(same).collect();
    let name = quote(&table.name);
    Ok(format!(
        "FROM {this}.{name} AS a WHERE NOT EXISTS (SELECT 1 FROM {other}.{name} AS b WHERE {})",
        condition.join(" AND ")
    ))
}

/// A column in a snapshot: in the base, new ones are NULL, as they are in PostgreSQL before the changes come.
fn value(sync: &SyncTable, snapshot: &str, alias: &str, column: &str) -> String {
    if snapshot == "old" && sync.fresh.columns.iter().any(|c| c == column) {
        "NULL".to_owned()
    } else {
        format!("{alias}.{}", quote(column))
    }
}

/// A row that cannot be found again has no key; nothing of such a table is quarantined.
pub(super) fn key_of(table: &Table) -> String {
    table
        .key_expression("a")
        .unwrap_or_else(|| "NULL".to_owned())
}

/// The key, all columns, and those once more that are sent in PostgreSQL's own form.
pub(super) fn select(sync: &SyncTable, snapshot: &str) -> String {
    let mut list = vec![key_of(&sync.table)];
    let columns = sync.table.columns.iter();
    list.extend(columns.map(|c| value(sync, snapshot, "a", &c.name)));
    let others = sync.comparison.columns.iter().filter(|c| c.pg.is_other());
    list.extend(others.map(|c| {
        let value = value(sync, snapshot, "a", &c.source);
        forms::expression(&value, c.pg, "main.forms")
    }));
    format!("SELECT {}", list.join(", "))
}

/// Where the value that is sent of each written column stands in [`select`].
fn places(sync: &SyncTable) -> Vec<usize> {
    let columns = &sync.comparison.columns;
    let others: Vec<usize> = (0..columns.len())
        .filter(|i| columns[*i].pg.is_other())
        .collect();
    sync.columns
        .iter()
        .map(|(i, ..)| match others.iter().position(|o| o == i) {
            Some(other) => 1 + columns.len() + other,
            None => i + 1,
        })
        .collect()
}

/// Sends the rows that went and those that came to two temporary tables, and quarantines what came and does not fit.
/// Returns how many rows went, came, and were quarantined.
pub(crate) fn send(
    tx: &mut Transaction<'_>,
    connection: &Connection,
    sync: &SyncTable,
) -> Result<(u64, u64, u64)> {
    let (table, target) = (&sync.table, &sync.comparison.target);
    for name in [sync.removed(), sync.added()] {
        make_temporary(tx, &name, sync)?;
    }
    let snapshots = if sync.fresh.whole {
        &["new"][..]
    } else {
        &["old", "new"]
    };
    for snapshot in snapshots {
        let columns = sync.comparison.columns.iter();
        let there =
            columns.filter(|c| *snapshot == "new" || !sync.fresh.columns.contains(&c.source));
        let others = forms::others(there.map(|c| (c.source.as_str(), c.pg)));
        let name = format!("{snapshot}.{}", quote(&table.name));
        forms::ask(tx, connection, &name, &others, connection)?;
    }
    let was_quarantined = format!(
        "EXISTS (SELECT 1 FROM main.rejects AS q WHERE q.tbl = {} AND q.key = {})",
        literal(&table.name),
        key_of(table)
    );
    let removed = only_in(sync, "old", "new")?;
    let removed_count = copy(
        tx,
        &sync.removed(),
        connection,
        &format!(
            "{} {removed} AND NOT {was_quarantined}",
            select(sync, "old")
        ),
        sync,
        |codec, column, _| {
            // It was written to the target once, so it can be written again; NULLs are refused there by what refused them then.
            Err(anyhow!(
                "column {column}: a value of the base does not fit {}",
                codec.pg
            ))
        },
    )?;
    // Quarantined rows that are no longer there unchanged: they come again below, or are gone.
    connection.execute(
        &format!(
            "DELETE FROM main.rejects WHERE tbl = {} AND key IN (SELECT {} {removed})",
            literal(&table.name),
            key_of(table)
        ),
        [],
    )?;

    let mut quarantined: Vec<QuarantinedRow> = Vec::new();
    let added = only_in(sync, "new", "old")?;
    let added_count = copy(
        tx,
        &sync.added(),
        connection,
        &format!("{} {added}", select(sync, "new")),
        sync,
        |codec, column, refused| {
            let (row, position, reason) = refused;
            let key: Option<String> = row.get(0)?;
            let refused = forms::refusal(connection, codec.pg, row.get_ref(position)?)?;
            let reason = refused.as_deref().unwrap_or(reason);
            quarantined.push(QuarantinedRow {
                key: key.with_context(|| {
                    format!("table {} has a row with a bad value ({reason}) and no key by which it could be found again", table.name)
                })?,
                column: column.to_owned(),
                reason: format!("{reason} ({})", codec.pg),
                record: rejects::record(table, row)?.to_string(),
                raw: rejects::raw(row.get_ref(position)?),
            });
            Ok(())
        },
    )?;
    let mut insert = connection.prepare(rejects::INSERT)?;
    for row in &quarantined {
        insert.execute(params![
            table.name, target, row.key, row.column, row.reason, row.record, row.raw
        ])?;
    }
    Ok((removed_count, added_count, quarantined.len() as u64))
}

/// An empty temporary table for rows of a table.
fn make_temporary(tx: &mut Transaction<'_>, name: &str, sync: &SyncTable) -> Result<()> {
    let target = &sync.comparison.target;
    let list: Vec<String> = sync
        .columns
        .iter()
        .map(|(_, c, codec)| forms::as_text(&quote_ident(c), codec.pg))
        .collect();
    tx.batch_execute(&format!(
        "CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS SELECT {} FROM {}.{} WITH NO DATA",
        list.join(", "),
        quote_ident(&sync.comparison.schema),
        quote_ident(target)
    ))
    .map_err(|e| {
        anyhow!(
            "could not create a temporary table for {target}: {}",
            describe(&e)
        )
    })
}

/// Sends rows that fit their columns to a temporary table; `rows` is what stands from `FROM` on, the table being `a` there.
pub(crate) fn send_rows(
    tx: &mut Transaction<'_>,
    connection: &Connection,
    sync: &SyncTable,
    name: &str,
    rows: &str,
) -> Result<u64> {
    make_temporary(tx, name, sync)?;
    let select = select(sync, "new");
    copy(
        tx,
        name,
        connection,
        &format!("{select} {rows}"),
        sync,
        |codec, column, _| {
            Err(anyhow!(
                "column {column}: a value does not fit {}",
                codec.pg
            ))
        },
    )
}

struct QuarantinedRow {
    key: String,
    column: String,
    reason: String,
    record: String,
    raw: Option<Vec<u8>>,
}

/// Streams the rows of a statement (key first) to a temporary table; `refused` decides about rows that do not fit.
fn copy(
    tx: &mut Transaction<'_>,
    into: &str,
    connection: &Connection,
    sql: &str,
    sync: &SyncTable,
    mut refused: impl FnMut(&Codec, &str, (&rusqlite::Row<'_>, usize, &str)) -> Result<()>,
) -> Result<u64> {
    let context = || format!("could not send the changes of table {}", sync.table.name);
    let mut statement = connection.prepare(sql).with_context(context)?;
    let mut rows = statement.query([]).with_context(context)?;
    let mut writer = tx
        .copy_in(&format!("COPY {into} FROM STDIN (FORMAT binary)"))
        .map_err(|e| anyhow!(describe(&e)))
        .with_context(context)?;
    let fields = i16::try_from(sync.columns.len())?.to_be_bytes();
    let places = places(sync);
    let mut buffer = HEADER.to_vec();
    'rows: while let Some(row) = rows.next().with_context(context)? {
        let start = buffer.len();
        buffer.extend_from_slice(&fields);
        for ((i, _, codec), place) in sync.columns.iter().zip(&places) {
            if let Err(reason) = codec.encode(row.get_ref(*place)?, &mut buffer) {
                buffer.truncate(start);
                refused(codec, &sync.table.columns[*i].name, (row, i + 1, reason))
                    .with_context(context)?;
                continue 'rows;
            }
        }
        if buffer.len() >= CHUNK_BYTES {
            writer.write_all(&buffer).with_context(context)?;
            buffer.clear();
        }
    }
    buffer.extend_from_slice(&TRAILER);
    writer.write_all(&buffer).with_context(context)?;
    writer
        .finish()
        .map_err(|e| anyhow!(describe(&e)))
        .with_context(context)
}
