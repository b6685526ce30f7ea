//! Bad rows, quarantined before anything is loaded.
//!
//! They are kept in a small SQLite file of the run (so that their number costs no memory) and copied to `oa.rejects` in the
//! transaction that makes the run's tables visible. The loader and the proof skip them by their keys.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use postgres::GenericClient;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::encode::Codec;
use super::forms;
use crate::inspect::{self, Table, literal, quote, stand_ins};
use crate::plan::{Plan, PlannedForeignKey, PlannedTable};

/// The file of a run's bad rows.
#[derive(Debug, Clone)]
pub(crate) struct Rejects {
    path: PathBuf,
}

impl Rejects {
    /// Creates an empty file, to be attached to that snapshot.
    pub(crate) fn create(path: &Path, snapshot: &Path) -> Result<Self> {
        let _ = std::fs::remove_file(path);
        let connection = Connection::open(path)?;
        // SQLite attaches only files of the same encoding.
        let encoding: String =
            inspect::open(snapshot)?.query_row("PRAGMA encoding", [], |row| row.get(0))?;
        connection.pragma_update(None, "encoding", encoding)?;
        connection
            .execute_batch(
                "PRAGMA synchronous = OFF;
                 CREATE TABLE rejects (seq INTEGER PRIMARY KEY AUTOINCREMENT, tbl TEXT NOT NULL, target TEXT NOT NULL, key TEXT NOT NULL, field TEXT,
                                       reason TEXT NOT NULL, record TEXT NOT NULL, raw BLOB);
                 CREATE UNIQUE INDEX of_row ON rejects (tbl, key);",
            )
            .with_context(|| format!("could not write {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// The file as a finished run left it.
    pub(crate) fn of_run(path: &Path) -> Result<Self> {
        anyhow::ensure!(
            path.is_file(),
            "{} is missing: which rows the run quarantined is unknown; run again with --replace",
            path.display()
        );
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// A copy to go on with.
    pub(crate) fn copy_to(&self, path: &Path) -> Result<Self> {
        std::fs::copy(&self.path, path)
            .with_context(|| format!("could not write {}", path.display()))?;
        Self::of_run(path)
    }

    /// Adds these rows to another file, which may have them already.
    pub(crate) fn add_to(&self, other: Self) -> Result<Self> {
        let connection = Connection::open(&other.path)?;
        connection.execute(
            "ATTACH DATABASE ?1 AS more",
            [self.path.to_string_lossy().as_ref()],
        )?;
        connection.execute_batch(
            "INSERT OR IGNORE INTO main.rejects (tbl, target, key, field, reason, record, raw)
             SELECT tbl, target, key, field, reason, record, raw FROM more.rejects",
        )?;
        Ok(other)
    }

    /// The file, for writing.
    pub(crate) fn open(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open(&self.path)?;
        connection.execute_batch("PRAGMA synchronous = OFF")?;
        Ok(connection)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file readable as schema `quarantine` of a connection to the snapshot.
    pub(crate) fn attach(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection
            .execute(
                "ATTACH DATABASE ?1 AS quarantine",
                [self.path.to_string_lossy().as_ref()],
            )
            .map(|_| ())
    }

    /// How many rows of a table of the source are quarantined.
    pub(crate) fn count(&self, table: &str) -> rusqlite::Result<u64> {
        Connection::open(&self.path)?.query_row(
            "SELECT count(*) FROM rejects WHERE tbl = ?1",
            [table],
            |row| row.get::<_, i64>(0).map(i64::unsigned_abs),
        )
    }

    /// Why rows of a table were quarantined, the most frequent reasons first: how many, the column, and one reason.
    pub(crate) fn reasons(&self, table: &str) -> rusqlite::Result<Vec<String>> {
        let connection = Connection::open(&self.path)?;
        let mut statement = connection.prepare(
            "SELECT count(*), field, min(reason) FROM rejects WHERE tbl = ?1 AND reason <> '' GROUP BY field ORDER BY 1 DESC LIMIT 3",
        )?;
        let rows = statement.query_map([table], |row| {
            let (count, field): (i64, Option<String>) = (row.get(0)?, row.get(1)?);
            let column = field.map_or_else(String::new, |f| format!("column {f}: "));
            Ok(format!("{count} with {column}{}", row.get::<_, String>(2)?))
        })?;
        rows.collect()
    }

    /// Notes rows that are quarantined already: table and key.
    pub(crate) fn note(&self, rows: &[(String, String)]) -> rusqlite::Result<()> {
        let mut connection = Connection::open(&self.path)?;
        let tx = connection.transaction()?;
        for (table, key) in rows {
            tx.execute(
                "INSERT OR IGNORE INTO rejects (tbl, target, key, reason, record) VALUES (?1, '', ?2, '', '')",
                params![table, key],
            )?;
        }
        tx.commit()
    }

    /// Copies the rows that came after number `after` to `oa.rejects`.
    pub(crate) fn store(
        &self,
        client: &mut impl GenericClient,
        run: Uuid,
        after: i64,
    ) -> Result<()> {
        let connection = Connection::open(&self.path)?;
        let insert = client.prepare(
            "INSERT INTO oa.rejects (run_id, seq, task, target, source_key, field, reason, record, raw)
             VALUES ($1, $2, 'migrate', $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
        )?;
        let mut statement = connection.prepare(
            "SELECT seq, target, key, field, reason, record, raw FROM rejects WHERE seq > ?1 ORDER BY seq",
        )?;
        let mut rows = statement.query([after])?;
        while let Some(row) = rows.next()? {
            let record: Value = serde_json::from_str(&row.get::<_, String>(5)?)?;
            client.execute(
                &insert,
                &[
                    &run,
                    &row.get::<_, i64>(0)?,
                    &row.get::<_, String>(1)?,
                    &row.get::<_, String>(2)?,
                    &row.get::<_, Option<String>>(3)?,
                    &row.get::<_, String>(4)?,
                    &record,
                    &row.get::<_, Option<Vec<u8>>>(6)?,
                ],
            )?;
        }
        Ok(())
    }
}

/// `WHERE …` that skips the quarantined rows of a table; needs [`Rejects::attach`].
pub(crate) fn skip_clause(table: &Table) -> String {
    skip_condition(table, &table.name).map_or_else(String::new, |c| format!(" WHERE {c}"))
}

/// The condition of [`skip_clause`], for a table that has the name `of` in the statement.
fn skip_condition(table: &Table, of: &str) -> Option<String> {
    let key = table.key_expression(of)?;
    Some(format!(
        "NOT EXISTS (SELECT 1 FROM quarantine.rejects AS q WHERE q.tbl = {} AND q.key = {key})",
        literal(&table.name)
    ))
}

/// Finds the rows of a table that its planned types cannot hold and quarantines them.
pub(crate) fn vet(connection: &Connection, rejects: &Rejects, table: &PlannedTable) -> Result<()> {
    let codecs: Vec<_> = table.loaded().map(|(i, c)| (i, c, Codec::of(c))).collect();
    let mut store = Connection::open(&rejects.path)?;
    store.execute_batch("PRAGMA synchronous = OFF")?;
    let tx = store.transaction()?;
    let mut insert = tx.prepare(INSERT)?;
    let mut statement = connection.prepare(&keyed_select(&table.source)?)?;
    let mut rows = statement.query([])?;
    let mut scratch = Vec::new();
    while let Some(row) = rows.next()? {
        for (i, column, codec) in &codecs {
            scratch.clear();
            let value = row.get_ref(i + 1)?;
            let refused = if codec.pg.is_other() && value != ValueRef::Null {
                forms::refusal(&tx, codec.pg, value)?
            } else {
                let tried = match codec.as_it_is(value) {
                    Some(large) => large.map(|_| ()),
                    None => codec.encode(value, &mut scratch),
                };
                tried.err().map(str::to_owned)
            };
            let Some(reason) = refused else {
                continue;
            };
            insert.execute(params![
                table.source.name,
                table.target,
                row.get::<_, String>(0)?,
                column.source,
                format!("{reason} ({})", column.pg),
                record(&table.source, row)?.to_string(),
                raw(value),
            ])?;
            break;
        }
    }
    drop(rows);
    drop(insert);
    tx.commit()?;
    Ok(())
}

pub(crate) const INSERT: &str = "INSERT OR IGNORE INTO rejects (tbl, target, key, field, reason, record, raw) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// All columns, with the row's key before them.
fn keyed_select(table: &Table) -> Result<String> {
    let Some(key) = table.key_expression(&table.name) else {
        bail!(
            "table {} has rows with bad values, and neither a rowid nor a primary key by which they could be found again; correct them, or use --on-bad-value widen",
            table.name
        );
    };
    let columns: Vec<String> = table.columns.iter().map(|c| quote(&c.name)).collect();
    Ok(format!(
        "SELECT {key}, {} FROM {}",
        columns.join(", "),
        quote(&table.name)
    ))
}

/// The value's own bytes: of a text or a blob as they are, of a number as its text.
pub(crate) fn raw(value: ValueRef<'_>) -> Option<Vec<u8>> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(n) => Some(n.to_string().into_bytes()),
        ValueRef::Real(x) => Some(crate::values::float_text(x).into_bytes()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
    }
}

/// The whole row, which follows its key in the statement, as JSON; what JSON cannot hold becomes `{"hex": "…"}`.
pub(crate) fn record(table: &Table, row: &rusqlite::Row<'_>) -> rusqlite::Result<Value> {
    let mut object = Map::new();
    for (i, column) in table.columns.iter().enumerate() {
        let hex = |bytes: &[u8]| {
            let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            json!({ "hex": text })
        };
        let value = match row.get_ref(i + 1)? {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(n) => json!(n),
            ValueRef::Real(x) if x.is_finite() => json!(x),
            ValueRef::Real(x) => json!(crate::values::float_text(x)),
            ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) if !text.contains('\0') => json!(text),
                _ => hex(bytes),
            },
            ValueRef::Blob(bytes) => hex(bytes),
        };
        object.insert(column.name.replace('\0', "\u{fffd}"), value);
    }
    Ok(Value::Object(object))
}

/// Rows that a `CHECK` of the target's table forbids, by their number in the order of loading, from 1 on.
#[derive(Debug)]
pub(crate) struct Misfits {
    pub(crate) constraint: String,
    pub(crate) rows: Vec<i64>,
}

/// Quarantines such rows; the ones that are quarantined already were not loaded. A row counts for the first constraint only.
pub(crate) fn quarantine_misfits(
    connection: &Connection,
    rejects: &Rejects,
    table: &PlannedTable,
    misfits: &[Misfits],
) -> Result<()> {
    let mut numbers: Vec<(i64, &str)> = misfits
        .iter()
        .flat_map(|m| m.rows.iter().map(|n| (*n, m.constraint.as_str())))
        .collect();
    numbers.sort_by_key(|(n, _)| *n);
    numbers.dedup_by_key(|(n, _)| *n);
    let mut found = Vec::new();
    {
        let mut statement = connection.prepare(&format!(
            "{}{}{}",
            keyed_select(&table.source)?,
            forms::in_order(&table.source),
            skip_clause(&table.source)
        ))?;
        let mut rows = statement.query([])?;
        let mut next = numbers.into_iter().peekable();
        let mut number = 0;
        while let Some(row) = rows.next()? {
            number += 1;
            if let Some((_, constraint)) = next.next_if(|(n, _)| *n == number) {
                let key: String = row.get(0)?;
                found.push((key, constraint, record(&table.source, row)?.to_string()));
            }
        }
    }
    let mut store = rejects.open()?;
    let tx = store.transaction()?;
    for (key, constraint, record) in &found {
        tx.execute(
            INSERT,
            params![
                table.source.name,
                table.target,
                key,
                Option::<String>::None,
                format!("the target's constraint {constraint} forbids it"),
                record,
                Option::<Vec<u8>>::None
            ],
        )?;
    }
    tx.commit()?;
    Ok(())
}

/// Quarantines the rows whose foreign keys refer to a missing row, or to one that was quarantined itself, until there are no
/// more. With `keep`, only counts them. Returns `(table, foreign key, rows)` of each.
pub(crate) fn vet_foreign_keys(
    connection: &Connection,
    rejects: &Rejects,
    plan: &Plan,
    keep: bool,
) -> Result<Vec<(String, String, u64)>> {
    let mut found: Vec<(String, String, u64)> = Vec::new();
    loop {
        let mut news = 0;
        for table in &plan.tables {
            for key in &table.foreign_keys {
                let Some(sql) = orphans(plan, table, key)? else {
                    continue;
                };
                let count = if keep {
                    connection
                        .prepare(&format!("SELECT count(*) FROM ({sql})"))?
                        .query_row([], |row| row.get::<_, i64>(0))?
                        .unsigned_abs()
                } else {
                    quarantine(connection, rejects, table, key, &sql)?
                };
                if count > 0 {
                    news += count;
                    let columns = key.columns.join(", ");
                    match found
                        .iter_mut()
                        .find(|(t, c, _)| *t == table.source.name && *c == columns)
                    {
                        Some((_, _, n)) => *n += count,
                        None => found.push((table.source.name.clone(), columns, count)),
                    }
                }
            }
        }
        if news == 0 || keep {
            return Ok(found);
        }
    }
}

fn quarantine(
    connection: &Connection,
    rejects: &Rejects,
    table: &PlannedTable,
    key: &PlannedForeignKey,
    sql: &str,
) -> Result<u64> {
    // Read to the end first: the file that is written to is attached to the connection that reads.
    let mut bad = Vec::new();
    {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            bad.push((row.get::<_, String>(0)?, record(&table.source, row)?));
        }
    }
    let mut store = Connection::open(&rejects.path)?;
    let tx = store.transaction()?;
    let mut count = 0;
    for (row_key, record) in &bad {
        let reason = format!("no row of {} has this key (foreign key)", key.parent);
        count += tx.execute(
            INSERT,
            params![
                table.source.name,
                table.target,
                row_key,
                key.columns.join(", "),
                reason,
                record.to_string(),
                Option::<Vec<u8>>::None
            ],
        )?;
    }
    tx.commit()?;
    Ok(count as u64)
}

/// SQL for the rows (key first) of which a foreign key dangles; `None` where SQLite cannot answer quickly or at all.
fn orphans(plan: &Plan, table: &PlannedTable, key: &PlannedForeignKey) -> Result<Option<String>> {
    let Some(parent) = plan
        .tables
        .iter()
        .find(|t| t.target == key.parent && key.parent_moves)
    else {
        return Ok(None);
    };
    let source_of = |table: &PlannedTable, target: &str| {
        table
            .columns
            .iter()
            .find(|c| c.target == target)
            .map(|c| c.source.clone())
    };
    let mut pairs = Vec::new();
    for (mine, other) in key.columns.iter().zip(&key.parent_columns) {
        let (Some(mine), Some(other)) = (source_of(table, mine), source_of(parent, other)) else {
            return Ok(None);
        };
        pairs.push((mine, other));
    }
    let others: Vec<&str> = pairs.iter().map(|(_, o)| o.as_str()).collect();
    let is = |list: &[&str]| {
        list.len() == others.len()
            && others
                .iter()
                .all(|o| list.iter().any(|l| l.eq_ignore_ascii_case(o)))
    };
    let keys: Vec<&str> = parent
        .source
        .primary_key
        .iter()
        .map(String::as_str)
        .collect();
    let unique = parent.source.indexes.iter().any(|i| {
        let columns: Vec<&str> = i.parts.iter().filter_map(|p| p.column.as_deref()).collect();
        i.unique && i.condition.is_none() && is(&columns)
    });
    if !is(&keys) && !unique {
        return Ok(None);
    }
    let select = keyed_select(&table.source)?;
    let child = quote(&table.source.name);
    let not_null: Vec<String> = pairs
        .iter()
        .map(|(m, _)| format!("{child}.{} IS NOT NULL", quote(m)))
        .collect();
    let same: Vec<String> = pairs
        .iter()
        .map(|(m, o)| {
            let plus = stand_ins::without_index(&parent.source, o);
            format!("{plus}parent.{} = {child}.{}", quote(o), quote(m))
        })
        .collect();
    let own = skip_condition(&table.source, &table.source.name).unwrap_or_else(|| "1".to_owned());
    let theirs =
        skip_condition(&parent.source, "parent").map_or_else(String::new, |c| format!(" AND {c}"));
    Ok(Some(format!(
        "{select} WHERE {} AND {own} AND NOT EXISTS (SELECT 1 FROM {} AS parent WHERE {}{theirs})",
        not_null.join(" AND "),
        quote(&parent.source.name),
        same.join(" AND ")
    )))
}
