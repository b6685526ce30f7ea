//! Upserts by natural key that count what they did: inserted, updated, unchanged.
//!
//! Rows travel as JSON and PostgreSQL converts them to the columns' own types, so that one statement serves every table. A
//! row that PostgreSQL refuses (too long, out of range, a violated check, what a trigger or a policy says of it) does not take the others with
//! it: the chunk is halved behind savepoints until the bad rows stand alone, and those are handed back with the server's reason.
//!
//! Many rows come by COPY into a temporary table (`bulk`), from where one statement takes those that are new or have
//! changed. Where PostgreSQL refuses one of them, they take longer than `statement_timeout`, or its role may make no temporary
//! tables, they come as JSON.
//!
//! Local times are those of the batch's zone, also where a column holds points in time (`timestamptz`): what the server's own zone is
//! changes nothing.

mod circle;
mod refused;
mod rounded;
mod table;
mod zoned;

use postgres::Transaction;
use postgres::error::SqlState;
use postgres::types::ToSql;
use serde_json::Value;
use uuid::Uuid;

use super::deferred::CHECK;
use super::fresh::{Fresh, Noted};
use super::revisions::{Kept, arbiter};
use super::{Deferred, Meaning, Prepared, Tx, bulk, describe, quote_ident};
use crate::model::run::Batch;

pub(super) use rounded::Rounded;
use table::Table;
pub(super) use zoned::Zoned;
use zoned::holds_points_in_time;

/// What an upsert did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upserted {
    /// Rows that were not there.
    pub inserted: u64,
    /// Rows that were there with other values.
    pub updated: u64,
    /// Rows that were there just so.
    pub unchanged: u64,
    /// Rows that PostgreSQL refused, and its reason.
    pub refused: Vec<Refused>,
    /// Columns whose type does not hold all digits of what came, in sentences.
    pub rounded: Vec<String>,
}

/// A row that PostgreSQL refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its number among the batch's rows, from 0.
    pub index: usize,
    /// The row.
    pub row: Vec<Value>,
    /// What PostgreSQL said.
    pub reason: String,
    /// The same as a code.
    code: Option<SqlState>,
}

/// The upsert could not be done at all.
#[derive(Debug, thiserror::Error)]
pub enum UpsertError {
    /// The table is not there.
    #[error(
        "table {0} does not exist; create the service's tables with: oa-migrate init, one of your own by its CREATE TABLE"
    )]
    NoTable(String),
    /// It is in another schema: what is made without naming one is put into that of the role's name first.
    #[error(
        "table {table} is in schema {found}, not in {due}; move it: ALTER TABLE {found}.{table} SET SCHEMA {due}"
    )]
    Elsewhere {
        /// The table.
        table: String,
        /// Where it is, quoted.
        found: String,
        /// Where it should be.
        due: String,
    },
    /// The table lacks a column that the source fills.
    #[error(
        "table {table} has no column {column}; add it (to the service's tables with: oa-migrate init), or correct the source file"
    )]
    NoColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// Without its unique index an upsert would store records twice.
    #[error(
        "table {table} has no unique index on {key}: CREATE UNIQUE INDEX ON {table} ({key}); where one of the service's tables holds duplicates, run oa-migrate dedupe {table} first"
    )]
    NoKey {
        /// The table.
        table: String,
        /// The columns by which records are told apart.
        key: String,
    },
    /// Its rows cannot be told apart in the way that an upsert needs.
    #[error("rows cannot be stored in table {table}: {why}")]
    Unfit {
        /// The table.
        table: String,
        /// What about it, and what to do.
        why: &'static str,
    },
    /// Others change the same rows all the time, so that what was replaced is not known.
    #[error("rows of table {0} were changed by somebody else each time they were to be stored")]
    Contended(String),
    /// Not some of its rows are at fault, then.
    #[error(
        "PostgreSQL refused each of the first {count} rows for table {table}, the first with: {reason}; correct the table, its triggers and policies, or the source file"
    )]
    AllRefused {
        /// The table.
        table: String,
        /// How many rows.
        count: usize,
        /// What it said of the first.
        reason: String,
    },
    /// The rows that wait cannot be read back.
    #[error("could not read what waits for table {table}: {source}")]
    Unreadable {
        /// The table.
        table: String,
        /// What the file system said.
        source: std::io::Error,
    },
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
            Self::NoTable(_)
            | Self::Elsewhere { .. }
            | Self::NoColumn { .. }
            | Self::NoKey { .. }
            | Self::Unfit { .. } => Meaning::Misconfigured,
            Self::Contended(_) => Meaning::Passing,
            Self::Unreadable { .. } | Self::AllRefused { .. } => Meaning::Refused,
            Self::Database { source, .. } => Meaning::of(source),
        }
    }
}

/// Rows per statement: enough to make the statement's own cost vanish, few enough to keep memory small.
const CHUNK: usize = 1000;

/// So often rows that somebody else changes meanwhile are locked and stored again, and rows that lack others are tried again.
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
    let mut prepared = Prepared::default();
    upsert_in(
        &mut Tx::new(tx, &mut prepared),
        batch,
        by,
        Deferred::AtTheEnd,
    )
}

/// Whether rows of these columns could be stored at all: table, columns, unique index and rights. Stores nothing.
///
/// # Errors
/// As [`upsert`].
pub fn check(tx: &mut Transaction<'_>, batch: &Batch) -> Result<(), UpsertError> {
    let mut prepared = Prepared::default();
    let tx = &mut Tx::new(tx, &mut prepared);
    let table = Table::look_up(tx, batch)?;
    let how = (Input::Json, Deferred::AtTheEnd);
    let statement = Statement::prepare(tx, batch, &table, None, how)?;
    Statement::check_index(tx, batch)?;
    let stored = statement.store(tx, batch, "[]");
    stored.map_err(|e| statement.failed(batch, e))?;
    Ok(())
}

/// The same with statements that stay prepared. `deferred`: when what is checked at the commit is.
///
/// # Errors
/// As [`upsert`].
pub fn upsert_in(
    tx: &mut Tx<'_, '_>,
    batch: &Batch,
    by: Option<Uuid>,
    deferred: Deferred,
) -> Result<Upserted, UpsertError> {
    let table = Table::look_up(tx, batch)?;
    let zoned = Zoned::of(batch, &table.types);
    let mut done = Upserted::default();
    let mut rounded = Rounded::of(batch, &table.types);
    let mut first = 0;
    let many = batch.rows.len() >= bulk::FEWEST && deferred == Deferred::AtTheEnd;
    if many && bulk::is_possible(tx, batch, &table.types)? {
        let how = (Input::Copied, deferred);
        let statement = Statement::prepare(tx, batch, &table, by, how)?;
        let mut failed = false;
        while first < batch.rows.len() && !failed {
            let before = rounded.counts();
            let input = (table.types.as_slice(), &zoned);
            match bulk::store(tx, batch, input, first, &statement, &mut rounded)? {
                Some((rows, inserted, updated)) => {
                    done.inserted += inserted;
                    done.updated += updated;
                    done.unchanged += (rows as u64).saturating_sub(inserted + updated);
                    first += rows;
                }
                None => {
                    rounded.restore(before);
                    failed = true;
                }
            }
        }
    }
    if first == batch.rows.len() {
        done.rounded = rounded.findings();
        return Ok(done);
    }
    let statement = Statement::prepare(tx, batch, &table, by, (Input::Json, deferred))?;
    let mut chunk = Vec::with_capacity(CHUNK.min(batch.rows.len()));
    for row in batch.rows.iter().skip(first) {
        let mut row = row
            .map_err(|source| unreadable(batch, source))?
            .into_owned();
        rounded.look_at(&row);
        zoned.put(&mut row);
        chunk.push(row);
        if chunk.len() == CHUNK {
            statement.run(tx, batch, first, &chunk, &mut done)?;
            first += chunk.len();
            chunk.clear();
            statement.may_go_on(first, &done)?;
        }
    }
    if !chunk.is_empty() {
        statement.run(tx, batch, first, &chunk, &mut done)?;
    }
    if deferred == Deferred::AtOnce {
        statement.again(tx, batch, &table.types, &mut done)?;
    }
    done.rounded = rounded.findings();
    Ok(done)
}

pub(super) fn unreadable(batch: &Batch, source: std::io::Error) -> UpsertError {
    UpsertError::Unreadable {
        table: batch.table.clone(),
        source,
    }
}

/// Where a statement takes its rows from. `$1` is their JSON, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Json,
    /// They are in the temporary table already.
    Copied,
}

impl Input {
    /// As an item of `FROM`, by the name `input`.
    fn item(self, definitions: &str) -> String {
        match self {
            Self::Json => format!("json_to_recordset($1::text::json) AS input({definitions})"),
            Self::Copied => format!(
                "(SELECT oa_copied.* FROM {} oa_copied, (SELECT $1::text) oa_nothing) AS input",
                bulk::TABLE
            ),
        }
    }
}

pub(super) struct Statement {
    sql: String,
    table: String,
    /// What is tried before, where many rows have been copied.
    pub(super) fresh: Option<Fresh>,
    /// Who changes the rows, and what is done where somebody else did meanwhile.
    kept: Option<(Uuid, Repeat)>,
    deferred: Deferred,
}

/// The rows are locked, and then stored by a statement that knows so.
struct Repeat {
    lock: String,
    sql: String,
}

impl Statement {
    fn prepare(
        tx: &mut Tx<'_, '_>,
        batch: &Batch,
        of: &Table,
        by: Option<Uuid>,
        (input, deferred): (Input, Deferred),
    ) -> Result<Self, UpsertError> {
        let table = batch.table.clone();
        let from = input.item(&definitions(batch, &of.types));
        let refused = |source| match is_no_key(&source) {
            true => no_key(batch),
            false => UpsertError::Database {
                table: batch.table.clone(),
                source,
            },
        };
        let kept = match by {
            Some(run) => {
                let kept = Kept::prepare(tx, batch, &from).map_err(refused)?;
                kept.map(|kept| (run, kept))
            }
            None => None,
        };
        // Rows that are inserted as they are would be stored twice without it.
        if input == Input::Copied {
            Self::check_index(tx, batch)?;
        }
        let all = from;
        let from = match input {
            Input::Json => all.clone(),
            Input::Copied => but_unchanged(batch, &all),
        };
        let type_of = |column: &str| {
            let found = of.columns.iter().find(|(name, _)| name == column);
            found.map(|(_, of_type)| of_type.as_str())
        };
        let columns = Columns::of(batch, type_of);
        let noted = kept.as_ref().map(|(run, kept)| Noted {
            schema: &kept.name.0,
            table: &kept.name.1,
            key: &kept.key,
            run: *run,
        });
        let may_be_fresh = input == Input::Copied && kept.as_ref().is_none_or(|(_, k)| k.together);
        let fresh = may_be_fresh.then(|| Fresh::new(batch, &all, &columns, noted.as_ref()));
        let sql = |kept: Option<(&str, &str)>| text(batch, &from, &columns, kept);
        Ok(Self {
            fresh,
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
            deferred,
        })
    }

    /// Whether `ON CONFLICT` can go by the unique index. PostgreSQL itself says of a deferred one only when a row comes that it cannot.
    fn check_index(tx: &mut Tx<'_, '_>, batch: &Batch) -> Result<(), UpsertError> {
        let fail = |source| match is_no_key(&source) {
            true => no_key(batch),
            false => UpsertError::Database {
                table: batch.table.clone(),
                source,
            },
        };
        let index = arbiter(tx, batch).map_err(fail)?;
        let deferred = tx.query_opt(
            "SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
             WHERE i.indrelid = to_regclass(format('%I.%I', $1::text, $2::text)) AND c.relname = $3 AND NOT i.indimmediate",
            &[&batch.schema, &batch.table, &index],
        );
        match deferred.map_err(fail)? {
            None => Ok(()),
            Some(_) => Err(UpsertError::Unfit {
                table: batch.table.clone(),
                why: "its unique constraint is DEFERRABLE, by which ON CONFLICT cannot go; make it anew without",
            }),
        }
    }

    pub(super) fn failed(&self, batch: &Batch, source: postgres::Error) -> UpsertError {
        let table = self.table.clone();
        if is_no_key(&source) {
            return no_key(batch);
        }
        UpsertError::Database { table, source }
    }

    /// Stores one chunk behind a savepoint, which is gone after an error. Gives the rows inserted and updated; `None` when it cannot be
    /// known what they replaced.
    pub(super) fn store(
        &self,
        tx: &mut Tx<'_, '_>,
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
            let again = self.kept.as_ref().map(|(_, again)| again);
            let done = tx.attempt(|tx| {
                let row = tx.query_one(sql, &parameters)?;
                let count = |i| row.get::<_, i64>(i).unsigned_abs();
                let (inserted, updated) = (count(0), count(1));
                if again.is_some() && count(2) < inserted + updated {
                    return Ok((None, false));
                }
                if self.deferred == Deferred::AtOnce {
                    tx.batch_execute(CHECK)?;
                }
                Ok((Some((inserted, updated)), true))
            })?;
            let (None, Some(again)) = (done, again) else {
                return Ok(done);
            };
            tx.execute(&again.lock, &[&json])?;
            sql = &again.sql;
        }
        Ok(None)
    }
}

/// A privilege is missing, or a policy forbids a row.
pub(super) fn is_denied(error: &postgres::Error) -> bool {
    error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
}

/// The batch's columns with their types.
pub(super) fn definitions(batch: &Batch, types: &[String]) -> String {
    let columns = batch.columns.iter().zip(types);
    let columns = columns.map(|(column, of_type)| format!("{} {of_type}", quote_ident(column)));
    columns.collect::<Vec<_>>().join(", ")
}

/// The parts of the key as columns of their own.
pub(super) fn key_names(batch: &Batch) -> String {
    let keys = batch.key.iter().enumerate();
    let keys: Vec<String> = keys.map(|(i, key)| format!("{key} AS oa_k{i}")).collect();
    keys.join(", ")
}

/// Whether two rows with these columns have the same key: that of the table, `oa_there`, and that of `input`.
pub(super) fn same_key(batch: &Batch) -> String {
    let same = (0..batch.key.len()).map(|i| format!("oa_there.oa_k{i} = input.oa_k{i}"));
    same.collect::<Vec<_>>().join(" AND ")
}

/// Of many rows those that are there already just so are found by one join: `ON CONFLICT` would look up and lock each of them.
fn but_unchanged(batch: &Batch, input: &str) -> String {
    let columns = |of: &str| {
        let columns = batch
            .columns
            .iter()
            .map(|c| format!("{of}.{}", quote_ident(c)));
        columns.collect::<Vec<_>>().join(", ")
    };
    let keys = key_names(batch);
    format!(
        "(SELECT input.*, {keys} FROM {input}) AS input
         WHERE NOT EXISTS (
           SELECT FROM (SELECT {}, {keys} FROM {}.{} oa_row) oa_there
           WHERE {} AND ({}) IS NOT DISTINCT FROM ({}))",
        columns("oa_row"),
        quote_ident(&batch.schema),
        quote_ident(&batch.table),
        same_key(batch),
        columns("oa_there"),
        columns("input"),
    )
}

fn no_key(batch: &Batch) -> UpsertError {
    UpsertError::NoKey {
        table: batch.table.clone(),
        key: batch.key.join(", "),
    }
}

fn is_no_key(error: &postgres::Error) -> bool {
    error.code().is_some_and(|c| c.code() == "42P10")
}

/// What is inserted.
pub(super) struct Columns<'a> {
    /// The batch's columns, and those for the time at which it was collected.
    pub(super) names: Vec<String>,
    pub(super) values: Vec<String>,
    /// The time as a local one.
    pub(super) stamp: &'a str,
    is_updated: bool,
}

impl Columns<'_> {
    /// `type_of` tells which columns the table has.
    fn of<'t>(batch: &Batch, type_of: impl Fn(&str) -> Option<&'t str>) -> Self {
        let stamp = "$2::timestamptz AT TIME ZONE $3::text";
        let mut names: Vec<String> = batch.columns.iter().map(|c| quote_ident(c)).collect();
        let mut values = names.clone();
        let mut is_updated = false;
        for column in ["created_at", "updated_at"] {
            let Some(of_type) = type_of(column) else {
                continue;
            };
            if batch.columns.iter().any(|c| c == column) {
                continue;
            }
            is_updated |= column == "updated_at";
            names.push(column.to_owned());
            values.push(match holds_points_in_time(of_type) {
                true => "$2::timestamptz".to_owned(),
                false => stamp.to_owned(),
            });
        }
        Self {
            names,
            values,
            stamp,
            is_updated,
        }
    }
}

/// The statement; `kept` is what [`Kept`] returns and writes.
fn text(batch: &Batch, input: &str, columns: &Columns<'_>, kept: Option<(&str, &str)>) -> String {
    let given: Vec<String> = batch.columns.iter().map(|c| quote_ident(c)).collect();
    let mut assignments: Vec<String> = given
        .iter()
        .map(|c| format!("{c} = EXCLUDED.{c}"))
        .collect();
    if columns.is_updated {
        assignments.push("updated_at = EXCLUDED.updated_at".to_owned());
    }
    let current: Vec<String> = given.iter().map(|c| format!("oa_row.{c}")).collect();
    let excluded: Vec<String> = given.iter().map(|c| format!("EXCLUDED.{c}")).collect();
    let newer = batch.newest_by.as_deref().map(quote_ident);
    let newer = newer.map_or_else(String::new, |at| {
        format!(" AND (oa_row.{at} IS NULL OR oa_row.{at} <= EXCLUDED.{at})")
    });
    let (returning, written, counted) = match kept {
        Some((returning, written)) => (returning, written, "(SELECT count(*) FROM kept)"),
        None => ("", "", "0::bigint"),
    };
    format!(
        "WITH done AS (
           INSERT INTO {}.{} AS oa_row ({}) SELECT {} FROM {input}
           ON CONFLICT ({}) DO UPDATE SET {} WHERE ({}) IS DISTINCT FROM ({}){newer}
           RETURNING oa_row.xmax = 0 AS inserted{returning}){written}
         SELECT count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted), {counted} FROM done, (SELECT {}) AS used",
        quote_ident(&batch.schema),
        quote_ident(&batch.table),
        columns.names.join(", "),
        columns.values.join(", "),
        batch.key.join(", "),
        assignments.join(", "),
        current.join(", "),
        excluded.join(", "),
        columns.stamp,
    )
}
