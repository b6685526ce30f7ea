//! Upserts by natural key that count what they did: inserted, updated, unchanged.
//!
//! Rows travel as JSON and PostgreSQL converts them to the columns' own types, so that one statement serves every table. A
//! row that PostgreSQL refuses (too long, out of range, a violated check) does not take the others with it: the chunk is
//! halved behind savepoints until the bad rows stand alone, and those are handed back with the server's reason.

use postgres::Transaction;
use serde_json::{Map, Value, json};

use super::{Meaning, describe, quote_ident};
use crate::base::exact;
use crate::model::run::Batch;

/// What an upsert did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upserted {
    /// Rows that were not there.
    pub inserted: u64,
    /// Rows that were there with other values.
    pub updated: u64,
    /// Rows that were there just so.
    pub unchanged: u64,
    /// Rows that PostgreSQL refused: index into [`Batch::rows`], and its reason.
    pub refused: Vec<(usize, String)>,
    /// Columns whose type does not hold all digits of what came, in sentences.
    pub rounded: Vec<String>,
}

/// The upsert could not be done at all.
#[derive(Debug, thiserror::Error)]
pub enum UpsertError {
    /// The table is not there.
    #[error("table {0} does not exist; create the service's tables with: oa-migrate init")]
    NoTable(String),
    /// The table lacks a column that the source fills.
    #[error(
        "table {table} has no column {column}; add it with: oa-migrate init, or correct the source file"
    )]
    NoColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// Without its unique index an upsert would store records twice.
    #[error(
        "table {0} has no unique index on its natural key, because it holds duplicates; run oa-migrate dedupe {0} first"
    )]
    NoKey(String),
    /// Anything else that PostgreSQL said.
    #[error("could not store rows in {table}: {}", describe(source))]
    Database {
        /// The table.
        table: String,
        /// What it said.
        source: postgres::Error,
    },
}

impl UpsertError {
    /// What it means for whoever wanted to store rows.
    #[must_use]
    pub fn meaning(&self) -> Meaning {
        match self {
            Self::NoTable(_) | Self::NoColumn { .. } | Self::NoKey(_) => Meaning::Misconfigured,
            Self::Database { source, .. } => Meaning::of(source),
        }
    }
}

/// Rows per statement: enough to make the statement's own cost vanish, few enough to keep memory small.
const CHUNK: usize = 1000;

/// Upserts the rows within the caller's transaction.
///
/// # Errors
/// See [`UpsertError`]; the transaction is then of no more use.
pub fn upsert(tx: &mut Transaction<'_>, batch: &Batch) -> Result<Upserted, UpsertError> {
    let statement = Statement::prepare(tx, batch)?;
    let mut done = Upserted {
        rounded: statement.rounded(batch),
        ..Upserted::default()
    };
    for (i, rows) in batch.rows.chunks(CHUNK).enumerate() {
        statement.run(tx, batch, i * CHUNK, rows, &mut done)?;
    }
    Ok(done)
}

struct Statement {
    sql: String,
    table: String,
    /// Of the batch's columns.
    types: Vec<String>,
}

impl Statement {
    fn prepare(tx: &mut Transaction<'_>, batch: &Batch) -> Result<Self, UpsertError> {
        let table = batch.table.clone();
        let fail = |source| UpsertError::Database {
            table: table.clone(),
            source,
        };
        let types: Vec<(String, String)> = tx
            .query(
                "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
                 WHERE attrelid = to_regclass(format('%I.%I', $1::text, $2::text)) AND attnum > 0 AND NOT attisdropped",
                &[&batch.schema, &batch.table],
            )
            .map_err(fail)?
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        if types.is_empty() {
            return Err(UpsertError::NoTable(batch.table.clone()));
        }
        let mut definitions = Vec::new();
        let mut of_columns = Vec::new();
        for column in &batch.columns {
            let Some((_, of_type)) = types.iter().find(|(name, _)| name == column) else {
                return Err(UpsertError::NoColumn {
                    table: batch.table.clone(),
                    column: column.clone(),
                });
            };
            definitions.push(format!("{} {of_type}", quote_ident(column)));
            of_columns.push(of_type.clone());
        }
        let given: Vec<String> = batch.columns.iter().map(|c| quote_ident(c)).collect();
        let stamps: Vec<&str> = ["created_at", "updated_at"]
            .into_iter()
            .filter(|s| {
                types.iter().any(|(name, _)| name == s) && !batch.columns.iter().any(|c| c == s)
            })
            .collect();
        let stamp = "$2::timestamptz AT TIME ZONE $3::text";
        let insert_columns: Vec<&str> = given
            .iter()
            .map(String::as_str)
            .chain(stamps.iter().copied())
            .collect();
        let insert_values: Vec<&str> = given
            .iter()
            .map(String::as_str)
            .chain(stamps.iter().map(|_| stamp))
            .collect();
        let mut assignments: Vec<String> = given
            .iter()
            .map(|c| format!("{c} = EXCLUDED.{c}"))
            .collect();
        if stamps.contains(&"updated_at") {
            assignments.push("updated_at = EXCLUDED.updated_at".to_owned());
        }
        let current: Vec<String> = given.iter().map(|c| format!("cur.{c}")).collect();
        let excluded: Vec<String> = given.iter().map(|c| format!("EXCLUDED.{c}")).collect();
        let sql = format!(
            "WITH done AS (
               INSERT INTO {}.{} AS cur ({}) SELECT {} FROM json_to_recordset($1::text::json) AS input({})
               ON CONFLICT ({}) DO UPDATE SET {} WHERE ({}) IS DISTINCT FROM ({})
               RETURNING cur.xmax = 0 AS inserted)
             SELECT count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted) FROM done, (SELECT {stamp}) AS used",
            quote_ident(&batch.schema),
            quote_ident(&batch.table),
            insert_columns.join(", "),
            insert_values.join(", "),
            definitions.join(", "),
            batch.key.join(", "),
            assignments.join(", "),
            current.join(", "),
            excluded.join(", "),
        );
        Ok(Self {
            sql,
            table: batch.table.clone(),
            types: of_columns,
        })
    }

    /// PostgreSQL rounds to what a column can hold without a word.
    fn rounded(&self, batch: &Batch) -> Vec<String> {
        let columns = batch.columns.iter().zip(&self.types).enumerate();
        let counted = columns.filter_map(|(i, (column, of_type))| {
            let loses = loses_digits(of_type)?;
            let values = batch.rows.iter().filter_map(|row| row.get(i));
            let mut lost = values.filter(|v| loses(v)).filter_map(digits);
            let first = lost.next()?;
            let count = 1 + lost.count();
            Some(format!(
                "column {column} is {of_type}, which does not hold all digits of {count} value(s), for example {first}"
            ))
        });
        counted.collect()
    }

    fn run(
        &self,
        tx: &mut Transaction<'_>,
        batch: &Batch,
        first: usize,
        rows: &[Vec<Value>],
        done: &mut Upserted,
    ) -> Result<(), UpsertError> {
        let objects: Vec<Map<String, Value>> = rows
            .iter()
            .map(|row| {
                batch
                    .columns
                    .iter()
                    .cloned()
                    .zip(row.iter().cloned())
                    .collect()
            })
            .collect();
        let json = json!(objects).to_string();
        let fail = |source| UpsertError::Database {
            table: self.table.clone(),
            source,
        };
        let mut savepoint = tx.transaction().map_err(fail)?;
        match savepoint.query_one(&self.sql, &[&json, &batch.collected_at, &batch.timezone]) {
            Ok(row) => {
                savepoint.commit().map_err(fail)?;
                let (inserted, updated): (i64, i64) = (row.get(0), row.get(1));
                done.inserted += inserted.unsigned_abs();
                done.updated += updated.unsigned_abs();
                done.unchanged += (rows.len() as u64)
                    .saturating_sub(inserted.unsigned_abs() + updated.unsigned_abs());
                Ok(())
            }
            Err(error) if Meaning::of(&error) == Meaning::BadData => {
                savepoint.rollback().map_err(fail)?;
                if rows.len() == 1 {
                    done.refused.push((first, describe(&error)));
                    return Ok(());
                }
                let (left, right) = rows.split_at(rows.len() / 2);
                self.run(tx, batch, first, left, done)?;
                self.run(tx, batch, first + left.len(), right, done)
            }
            Err(error) if error.code().is_some_and(|c| c.code() == "42P10") => {
                Err(UpsertError::NoKey(self.table.clone()))
            }
            Err(error) => Err(fail(error)),
        }
    }
}

/// The digits of a number, which is a text where JSON's own numbers would lose some.
fn digits(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// Whether a value loses digits.
type Loses = dyn Fn(&Value) -> bool;

/// How a type loses digits, if it can.
fn loses_digits(of_type: &str) -> Option<Box<Loses>> {
    if of_type == "double precision" {
        return Some(Box::new(|value| match value {
            Value::Number(n) if n.is_f64() => false,
            Value::Number(n) if n.as_i64().is_some_and(|n| n.unsigned_abs() < 1 << 53) => false,
            other => digits(other).is_some_and(|d| !exact::fits_double(&d)),
        }));
    }
    if of_type == "real" {
        let single = |value: &Value| digits(value).is_some_and(|d| !exact::fits_single(&d));
        return Some(Box::new(single));
    }
    let scale = of_type.strip_prefix("numeric(")?.strip_suffix(')')?;
    let scale: u64 = scale.split_once(',').map_or("0", |(_, s)| s).parse().ok()?;
    let many = move |value: &Value| digits(value).is_some_and(|d| exact::decimals(&d) > scale);
    Some(Box::new(many))
}
