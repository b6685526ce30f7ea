//! Many rows of a batch at once: by COPY into a temporary table with the columns' own types, and from there by one statement.
//!
//! COPY reads a value as [`json_to_recordset`] reads it, by its type's own input function, where it is a text, a number or a truth
//! value. Types that are read from JSON otherwise (JSON itself, lists, whatever a user has defined) stay with the statement for a few.
//!
//! [`json_to_recordset`]: https://www.postgresql.org/docs/15/functions-json.html

use std::io::{self, Write};

use postgres::Transaction;
use postgres::error::SqlState;
use serde_json::Value;

use super::upsert::{Rounded, Statement, UpsertError, Zoned, definitions, is_denied, unreadable};
use super::{Meaning, Prepared, Tx};
use crate::base::exact;
use crate::model::run::Batch;

/// Fewer rows than this are not worth a table.
pub(super) const FEWEST: usize = 2000;
/// So many rows come at once: a statement that takes hours would hold locks for hours.
const MOST: usize = 200_000;
/// The temporary table, which is gone after each use.
pub(super) const TABLE: &str = "pg_temp.oa_batch";
/// And so many bytes, at least: their keys are one value of `oa.revisions`.
const MOST_BYTES: usize = 64 << 20;
/// So many bytes are sent at once.
const BLOCK: usize = 256 << 10;

/// Types without parameters, or before them.
const PLAIN: [&str; 15] = [
    "text",
    "character varying",
    "character",
    "smallint",
    "integer",
    "bigint",
    "numeric",
    "real",
    "double precision",
    "date",
    "timestamp",
    "time",
    "boolean",
    "uuid",
    "interval",
];

fn is_plain(of_type: &str) -> bool {
    if of_type.ends_with("[]") || of_type.contains('"') {
        return false;
    }
    PLAIN.iter().any(|plain| {
        let rest = of_type.strip_prefix(plain);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '(']))
    })
}

/// Whether rows of these types may come this way, and this role may make a temporary table.
pub(super) fn is_possible(
    tx: &mut Transaction<'_>,
    batch: &Batch,
    types: &[String],
) -> Result<bool, UpsertError> {
    if !types.iter().all(|t| is_plain(t)) {
        return Ok(false);
    }
    let allowed = tx.query_one(
        "SELECT has_database_privilege(current_database(), 'TEMPORARY')",
        &[],
    );
    let allowed = allowed.map_err(|source| UpsertError::Database {
        table: batch.table.clone(),
        source,
    })?;
    Ok(allowed.get(0))
}

/// Stores rows from the given one on; `input` is their columns' types. Gives how many it has taken, and how many of them were inserted
/// and updated; `None` when PostgreSQL refuses one of them, or they take too long at once, and then nothing has happened.
pub(super) fn store(
    tx: &mut Transaction<'_>,
    batch: &Batch,
    input: (&[String], &Zoned<'_>),
    first: usize,
    statement: &Statement,
    rounded: &mut Rounded,
) -> Result<Option<(usize, u64, u64)>, UpsertError> {
    let mut savepoint = tx.transaction().map_err(|e| statement.failed(batch, e))?;
    let copied = copy(&mut savepoint, batch, input, first, rounded);
    let stored = match copied {
        Ok(Some(rows)) => match from_table(&mut savepoint, batch, rows, statement) {
            Ok(Some((inserted, updated)))
                if repeats(&mut savepoint, batch, (rows, inserted, updated))? =>
            {
                return Ok(None);
            }
            stored => stored.map(|s| s.map(|(inserted, updated)| (rows, inserted, updated))),
        },
        Ok(None) => return Ok(None),
        Err(CopyError::Rows(e)) => return Err(unreadable(batch, e)),
        Err(CopyError::Database(e)) => Err(e),
    };
    match stored {
        Ok(Some(stored)) => {
            let dropped = savepoint.batch_execute(&format!("DROP TABLE {TABLE}"));
            let kept = dropped.and_then(|()| savepoint.commit());
            kept.map_err(|e| statement.failed(batch, e))?;
            Ok(Some(stored))
        }
        Ok(None) => Err(UpsertError::Contended(batch.table.clone())),
        // The statement for a few finds out which rows it is about, if it is.
        Err(e) if Meaning::of(&e) == Meaning::BadData || is_cancelled(&e) || is_denied(&e) => {
            Ok(None)
        }
        Err(e) => Err(statement.failed(batch, e)),
    }
}

/// Stores the rows that have been copied. Gives how many were inserted and updated; `None` when it cannot be known what they replaced.
fn from_table(
    tx: &mut Transaction<'_>,
    batch: &Batch,
    rows: usize,
    statement: &Statement,
) -> Result<Option<(u64, u64)>, postgres::Error> {
    let fresh = match &statement.fresh {
        Some(fresh) => fresh.insert(tx, batch),
        None => Ok(0),
    };
    let fresh = match fresh {
        // Another row is there, or one that came before: the upsert knows what to do.
        Err(e) if e.code() == Some(&SqlState::UNIQUE_VIOLATION) => 0,
        fresh => fresh?,
    };
    if fresh == rows as u64 {
        return Ok(Some((fresh, 0)));
    }
    let mut own = Prepared::default();
    let stored = statement.store(&mut Tx::new(tx, &mut own), batch, "")?;
    Ok(stored.map(|(inserted, updated)| (fresh + inserted, updated)))
}

/// Whether a key came with a row that is there just so, which was left out, and with one that was stored: only one after the other do they
/// leave what came last. Where nothing was left out, or nothing but that was done, PostgreSQL says so itself, or it does not matter.
fn repeats(
    tx: &mut Transaction<'_>,
    batch: &Batch,
    (rows, inserted, updated): (usize, u64, u64),
) -> Result<bool, UpsertError> {
    let left_out = (rows as u64).saturating_sub(inserted + updated);
    if updated == 0 || left_out == 0 {
        return Ok(false);
    }
    let query = format!(
        "SELECT EXISTS (SELECT FROM {TABLE} GROUP BY {} HAVING count(*) > 1)",
        batch.key.join(", ")
    );
    match tx.query_one(&query, &[]) {
        Ok(row) => Ok(row.get(0)),
        // Then one after the other, as if they did.
        Err(e) if is_cancelled(&e) => Ok(true),
        Err(source) => Err(UpsertError::Database {
            table: batch.table.clone(),
            source,
        }),
    }
}

/// It took longer than `statement_timeout`, and would the next time: a smaller statement does not.
pub(super) fn is_cancelled(error: &postgres::Error) -> bool {
    error.code().is_some_and(|c| c.code() == "57014")
}

enum CopyError {
    /// They cannot be read back.
    Rows(io::Error),
    Database(postgres::Error),
}

impl From<postgres::Error> for CopyError {
    fn from(error: postgres::Error) -> Self {
        Self::Database(error)
    }
}

/// Gives how many rows there are now; `None` when there is one that COPY does not read as JSON is read.
fn copy(
    tx: &mut Transaction<'_>,
    batch: &Batch,
    (types, zoned): (&[String], &Zoned<'_>),
    first: usize,
    rounded: &mut Rounded,
) -> Result<Option<usize>, CopyError> {
    let columns = definitions(batch, types);
    // Rows are joined with those that are there: not by way of the disk, as far as that can be.
    tx.batch_execute(&format!(
        "SELECT set_config('work_mem', '64MB', true) WHERE pg_size_bytes(current_setting('work_mem')) < 67108864;
         CREATE TEMPORARY TABLE oa_batch ({columns})"
    ))?;
    let mut writer = tx.copy_in(&format!("COPY {TABLE} FROM STDIN"))?;
    let mut block = Vec::with_capacity(BLOCK + BLOCK / 4);
    let (mut rows, mut bytes) = (0, 0);
    // What the driver says when the server has refused something is the server's error, which `finish` gives.
    let mut refused = false;
    for row in batch.rows.iter().skip(first).take(MOST) {
        let mut row = row.map_err(CopyError::Rows)?;
        rounded.look_at(&row);
        if zoned.changes(&row) {
            zoned.put(row.to_mut());
        }
        if !write(&row, &mut block) {
            return Ok(None);
        }
        rows += 1;
        if block.len() >= BLOCK {
            bytes += block.len();
            refused = writer.write_all(&block).is_err();
            block.clear();
            if refused || bytes >= MOST_BYTES {
                break;
            }
        }
    }
    if !refused {
        let _ = writer.write_all(&block);
    }
    writer.finish()?;
    Ok(Some(rows))
}

/// One row in COPY's text format. Gives whether all its values have one.
fn write(row: &[Value], out: &mut Vec<u8>) -> bool {
    for (i, value) in row.iter().enumerate() {
        if i > 0 {
            out.push(b'\t');
        }
        match value {
            Value::Null => out.extend_from_slice(b"\\N"),
            Value::Bool(true) => out.extend_from_slice(b"true"),
            Value::Bool(false) => out.extend_from_slice(b"false"),
            Value::Number(number) => {
                let _ = write!(out, "{number}");
            }
            Value::String(_) => match exact::text(value) {
                Some(text) => escape(text, out),
                None => return false,
            },
            Value::Array(_) | Value::Object(_) => return false,
        }
    }
    out.push(b'\n');
    true
}

fn escape(text: &str, out: &mut Vec<u8>) {
    if !text
        .bytes()
        .any(|b| matches!(b, b'\\' | b'\t' | b'\n' | b'\r'))
    {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_types_that_copy_reads_as_json_is_read_come_by_copy() {
        for (of_type, plain) in [
            ("text", true),
            ("character varying(20)", true),
            ("numeric(10,2)", true),
            ("timestamp with time zone", true),
            ("timestamp(3) without time zone", true),
            ("double precision", true),
            ("text[]", false),
            ("json", false),
            ("jsonb", false),
            ("texture", false),
            ("public.price", false),
            ("\"text\"", false),
        ] {
            assert_eq!(is_plain(of_type), plain, "{of_type}");
        }
    }
}
