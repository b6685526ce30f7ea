//! Upserts by natural key that count what they did: inserted, updated, unchanged.
//!
//! Rows travel as JSON and PostgreSQL converts them to the columns' own types, so that one statement serves every table. A
//! row that PostgreSQL refuses (too long, out of range, a violated check) does not take the others with it: the chunk is
//! halved behind savepoints until the bad rows stand alone, and those are handed back with the server's reason.

use postgres::Transaction;
use postgres::types::ToSql;
use serde_json::Value;
use uuid::Uuid;

use super::revisions::Kept;
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
    /// Others change the same rows all the time, so that what was replaced is not known.
    #[error("rows of table {0} were changed by somebody else each time they were to be stored")]
    Contended(String),
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
            Self::Contended(_) => Meaning::Passing,
            Self::Database { source, .. } => Meaning::of(source),
        }
    }
}

/// Rows per statement: enough to make the statement's own cost vanish, few enough to keep memory small.
const CHUNK: usize = 1000;

/// So often rows that somebody else changes meanwhile are locked and stored again.
const ROUNDS: usize = 5;

/// Upserts the rows within the caller's transaction. `by`: the run for which the old rows are kept in `oa.revisions`; without it they are
/// not kept.
///
/// # Errors
/// See [`UpsertError`]; the transaction is then of no more use.
pub fn upsert(
    tx: &mut Transaction<'_>,
    batch: &Batch,
    by: Option<Uuid>,
) -> Result<Upserted, UpsertError> {
    let statement = Statement::prepare(tx, batch, by)?;
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
    /// Who changes the rows, and what is done where somebody else did meanwhile.
    kept: Option<(Uuid, Repeat)>,
    /// Of the batch's columns.
    types: Vec<String>,
}

/// The rows are locked, and then stored by a statement that knows so.
struct Repeat {
    lock: String,
    sql: String,
}

impl Statement {
    fn prepare(
        tx: &mut Transaction<'_>,
        batch: &Batch,
        by: Option<Uuid>,
    ) -> Result<Self, UpsertError> {
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
        let input = format!(
            "json_to_recordset($1::text::json) AS input({})",
            definitions.join(", ")
        );
        let kept = match by {
            Some(run) => match Kept::prepare(tx, batch, &input) {
                Ok(kept) => kept.map(|kept| (run, kept)),
                Err(e) if is_no_key(&e) => return Err(UpsertError::NoKey(table)),
                Err(e) => return Err(fail(e)),
            },
            None => None,
        };
        let has = |column: &str| types.iter().any(|(name, _)| name == column);
        let sql = |kept: Option<(&str, &str)>| text(batch, &input, has, kept);
        Ok(Self {
            sql: sql(kept
                .as_ref()
                .map(|(_, k)| (k.returning.as_str(), k.written.as_str()))),
            kept: kept.map(|(run, kept)| {
                let again = Repeat {
                    sql: sql(Some((&kept.returning_locked, &kept.written))),
                    lock: kept.lock,
                };
                (run, again)
            }),
            table,
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
        let json = batch.json(rows);
        let fail = |source| UpsertError::Database {
            table: self.table.clone(),
            source,
        };
        match self.store(tx, batch, &json) {
            Ok(Some((inserted, updated))) => {
                done.inserted += inserted;
                done.updated += updated;
                done.unchanged += (rows.len() as u64).saturating_sub(inserted + updated);
                Ok(())
            }
            Ok(None) => Err(UpsertError::Contended(self.table.clone())),
            Err(error) if Meaning::of(&error) == Meaning::BadData => {
                if rows.len() == 1 {
                    done.refused.push((first, describe(&error)));
                    return Ok(());
                }
                let (left, right) = rows.split_at(rows.len() / 2);
                self.run(tx, batch, first, left, done)?;
                self.run(tx, batch, first + left.len(), right, done)
            }
            Err(error) if is_no_key(&error) => Err(UpsertError::NoKey(self.table.clone())),
            Err(error) => Err(fail(error)),
        }
    }

    /// Stores one chunk behind a savepoint, which is gone after an error. Gives the rows inserted and updated; `None` when it cannot be
    /// known what they replaced.
    fn store(
        &self,
        tx: &mut Transaction<'_>,
        batch: &Batch,
        json: &str,
    ) -> Result<Option<(u64, u64)>, postgres::Error> {
        let mut parameters: Vec<&(dyn ToSql + Sync)> =
            vec![&json, &batch.collected_at, &batch.timezone];
        if let Some((run, _)) = &self.kept {
            parameters.push(run);
        }
        let mut sql = &self.sql;
        for _ in 0..ROUNDS {
            let mut savepoint = tx.transaction()?;
            let row = savepoint.query_one(sql, &parameters)?;
            let count = |i| row.get::<_, i64>(i).unsigned_abs();
            let (inserted, updated) = (count(0), count(1));
            let Some((_, again)) = self.kept.as_ref().filter(|_| count(2) < inserted + updated)
            else {
                savepoint.commit()?;
                return Ok(Some((inserted, updated)));
            };
            savepoint.rollback()?;
            tx.execute(&again.lock, &[&json])?;
            sql = &again.sql;
        }
        Ok(None)
    }
}

fn is_no_key(error: &postgres::Error) -> bool {
    error.code().is_some_and(|c| c.code() == "42P10")
}

/// The statement; `has` tells which columns the table has, and `kept` is what [`Kept`] returns and writes.
fn text(
    batch: &Batch,
    input: &str,
    has: impl Fn(&str) -> bool,
    kept: Option<(&str, &str)>,
) -> String {
    let given: Vec<String> = batch.columns.iter().map(|c| quote_ident(c)).collect();
    let stamps: Vec<&str> = ["created_at", "updated_at"]
        .into_iter()
        .filter(|s| has(s) && !batch.columns.iter().any(|c| c == s))
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
    let current: Vec<String> = given.iter().map(|c| format!("oa_row.{c}")).collect();
    let excluded: Vec<String> = given.iter().map(|c| format!("EXCLUDED.{c}")).collect();
    let (returning, written, counted) = match kept {
        Some((returning, written)) => (returning, written, "(SELECT count(*) FROM kept)"),
        None => ("", "", "0::bigint"),
    };
    format!(
        "WITH done AS (
           INSERT INTO {}.{} AS oa_row ({}) SELECT {} FROM {input}
           ON CONFLICT ({}) DO UPDATE SET {} WHERE ({}) IS DISTINCT FROM ({})
           RETURNING oa_row.xmax = 0 AS inserted{returning}){written}
         SELECT count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted), {counted} FROM done, (SELECT {stamp}) AS used",
        quote_ident(&batch.schema),
        quote_ident(&batch.table),
        insert_columns.join(", "),
        insert_values.join(", "),
        batch.key.join(", "),
        assignments.join(", "),
        current.join(", "),
        excluded.join(", "),
    )
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
