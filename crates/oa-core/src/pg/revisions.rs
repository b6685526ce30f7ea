//! What an upsert writes into `oa.revisions`: the rows that it replaces, and the keys of those that it inserts.
//!
//! `INSERT … ON CONFLICT DO UPDATE` returns the new row alone. The old one is still what the statement's snapshot shows, so it is looked
//! up there by the natural key, and only for rows that really change. Another transaction may have changed it after the snapshot: then the
//! version that was replaced (its xmax) is not the one that is seen, fewer rows are kept than changed, and the rows are locked and the
//! statement is repeated.

use postgres::GenericClient;
use serde_json::Value;
use uuid::Uuid;

use super::upsert::Zoned;
use super::{Tx, quote_ident, quote_literal};
use crate::model::run::Batch;

/// What goes into the upsert's statement.
pub(super) struct Kept {
    /// Schema and table under which they stand.
    pub(super) name: (String, String),
    /// SQL that gives the key of a row `oa_row`.
    pub(super) key: String,
    /// Many rows may have one revision, see `oa.may_insert_together`.
    pub(super) together: bool,
    /// After the row's state in `RETURNING`: its key, and the row that it replaces.
    pub(super) returning: String,
    /// The same when the rows are locked.
    pub(super) returning_locked: String,
    /// The statement's part that writes them: `done` is the upsert, `$4` the run.
    pub(super) written: String,
    /// Locks the rows that the input is about.
    pub(super) lock: String,
}

impl Kept {
    /// `input`: the rows as an item of `FROM`. `None` when the table's own triggers keep its revisions (`oa-migrate init --audit`), and
    /// for schema `oa`. The error has the code 42P10 when there is no unique index on the key.
    pub(super) fn prepare(
        tx: &mut Tx<'_, '_>,
        batch: &Batch,
        input: &str,
    ) -> Result<Option<Self>, postgres::Error> {
        // The programs' own tables say themselves what came when, and change with each backup, which may be each minute.
        if batch.schema == "oa" {
            return Ok(None);
        }
        let table = format!(
            "{}.{}",
            quote_ident(&batch.schema),
            quote_ident(&batch.table)
        );
        let index = arbiter(tx, batch)?;
        let audited = tx.query_one("SELECT oa.is_audited($1::text::regclass)", &[&table])?;
        if audited.get(0) {
            return Ok(None);
        }
        let known = tx.query_one(
            "SELECT t.schema_name, t.table_name, t.key_value, ARRAY(SELECT expression FROM oa.key_parts(key)), oa.may_insert_together()
             FROM to_regclass(format('%I.%I', $2::text, $3::text)) key, oa.begin_revisions($1::text::regclass, key) t",
            &[&table, &batch.schema, &index],
        )?;
        let parts: Vec<String> = known.get(3);
        let named = parts.iter().enumerate();
        let named: Vec<String> = named.map(|(i, e)| format!("{e} AS oa_k{i}")).collect();
        let named = named.join(", ");
        let same = |equals: &str| {
            let all: Vec<String> = (0..parts.len())
                .map(|i| format!("oa_was.oa_k{i} {equals} oa_is.oa_k{i}"))
                .collect();
            all.join(" AND ")
        };
        let key: String = known.get(2);
        // The old row becomes JSON only where it is written.
        let returning = |condition: &str| {
            format!(
                ", {key} AS oa_key, CASE WHEN oa_row.xmax <> 0 THEN (
                   SELECT oa_was.oa_past FROM (SELECT {named}) oa_is
                   JOIN (SELECT oa_past, oa_past.xmax AS oa_xmax, {named} FROM {table} oa_past) oa_was ON {condition}) END AS oa_old",
            )
        };
        let name: (String, String) = (known.get(0), known.get(1));
        Ok(Some(Self {
            returning: returning(&format!("{} AND oa_was.oa_xmax = oa_row.xmin", same("="))),
            returning_locked: returning(&same("IS NOT DISTINCT FROM")),
            // The order is taken when all rows are stored: until then the statement may wait for somebody else's changes, which come first.
            written: format!(
                ", kept AS (
                   INSERT INTO oa.revisions (schema_name, table_name, key, operation, old_row, run_id, oldest_xid, at, seq)
                   SELECT {}, {}, oa_key, CASE WHEN inserted THEN 'insert' ELSE 'update' END, row_to_json(oa_old), $4::uuid, (SELECT pg_snapshot_xmin(pg_current_snapshot())),
                          (SELECT clock_timestamp() FROM (SELECT count(*) FROM done) oa_all), (SELECT oa.next_in_order() FROM (SELECT count(*) FROM done) oa_all)
                   FROM done WHERE inserted OR NOT oa_old IS NULL
                   RETURNING 1)",
                quote_literal(&name.0),
                quote_literal(&name.1),
            ),
            together: known.get(4),
            lock: format!(
                "SELECT FROM (SELECT {named} FROM {input}) oa_is
                 CROSS JOIN LATERAL (SELECT FROM (SELECT oa_past, {named} FROM {table} oa_past) oa_was WHERE {} FOR UPDATE) oa_locked",
                same("=")
            ),
            name,
            key,
        }))
    }
}

/// See [`name_run`].
pub const NAME_RUN: &str = "SELECT set_config('oa.run_id', $1, true)";

/// Notes what the transaction's run is, for the triggers of audited tables (`oa.audit`).
///
/// # Errors
/// When PostgreSQL fails.
pub fn name_run(tx: &mut impl GenericClient, run: Uuid) -> Result<(), postgres::Error> {
    tx.execute(NAME_RUN, &[&run.to_string()]).map(|_| ())
}

/// Whether the database has a schema `oa` that keeps revisions.
///
/// # Errors
/// When PostgreSQL fails.
pub fn are_there(tx: &mut impl GenericClient) -> Result<bool, postgres::Error> {
    let row = tx.query_one(
        "SELECT to_regprocedure('oa.replace_table(regclass, regclass, uuid)') IS NOT NULL",
        &[],
    )?;
    Ok(row.get(0))
}

/// What differs between two states of some rows of a table goes into `oa.revisions`, unless its own triggers have put it there. Both are
/// items of `FROM`.
///
/// # Errors
/// When PostgreSQL fails.
pub fn rows_changed(
    tx: &mut impl GenericClient,
    table: &str,
    (old_rows, new_rows): (&str, &str),
    run: Uuid,
) -> Result<(), postgres::Error> {
    tx.execute(
        "SELECT oa.note_difference($1::text::regclass, $2, $3, $4)",
        &[&table, &old_rows, &new_rows, &run],
    )
    .map(|_| ())
}

/// Whether triggers of its own keep revisions of a table, whatever `[store] revisions` says.
///
/// # Errors
/// When PostgreSQL fails.
pub fn is_audited(tx: &mut impl GenericClient, table: &str) -> Result<bool, postgres::Error> {
    let row = tx.query_one("SELECT oa.is_audited($1::text::regclass)", &[&table])?;
    Ok(row.get(0))
}

/// One table has taken another's place, or has come back: what differs goes into `oa.revisions`, if there are any of the table, or it is
/// audited.
///
/// # Errors
/// When PostgreSQL fails.
pub fn table_replaced(
    tx: &mut impl GenericClient,
    was: Option<&str>,
    is_now: &str,
    run: Uuid,
) -> Result<(), postgres::Error> {
    tx.execute(
        "SELECT oa.begin_revisions(c.oid, oa.revised_index(c.oid)) FROM pg_class c
         WHERE c.oid = $2::text::regclass AND oa.is_audited(c.oid) AND oa.revised_index(c.oid) IS NOT NULL
           AND (oa.revised_table(c.oid)).relation IS NULL AND (oa.revised_table($1::text::regclass)).relation IS NULL",
        &[&was, &is_now],
    )?;
    tx.execute(
        "SELECT oa.replace_table($1::text::regclass, $2::text::regclass, $3)",
        &[&was, &is_now, &run],
    )
    .map(|_| ())
}

/// Which of these rows of a batch have that key, written as in `oa.revisions`: their numbers, from 0.
///
/// # Errors
/// When PostgreSQL fails: the table has no unique index whose columns are all in the batch, or a row is none of the table.
pub fn rows_with_key(
    client: &mut impl GenericClient,
    batch: &Batch,
    rows: &[Vec<Value>],
    key: &str,
) -> Result<Vec<usize>, postgres::Error> {
    let table = format!(
        "{}.{}",
        quote_ident(&batch.schema),
        quote_ident(&batch.table)
    );
    let types = client.query(
        "SELECT c.name, coalesce(format_type(a.atttypid, a.atttypmod), 'text') FROM unnest($2::text[]) WITH ORDINALITY c (name, n)
         LEFT JOIN pg_attribute a ON a.attrelid = $1::text::regclass AND a.attname = c.name AND NOT a.attisdropped ORDER BY c.n",
        &[&table, &batch.columns],
    )?;
    let value: Option<String> = client
        .query_one(
            "SELECT oa.key_value(oa.revised_index($1::text::regclass))",
            &[&table],
        )?
        .get(0);
    let Some(value) = value else {
        return Ok(Vec::new());
    };
    let names: Vec<String> = types.iter().map(|r| quote_ident(r.get(0))).collect();
    let typed = types.iter().zip(&names);
    let typed: Vec<String> = typed
        .map(|(r, name)| format!("{name} {}", r.get::<_, &str>(1)))
        .collect();
    let of_types: Vec<String> = types.iter().map(|r| r.get(1)).collect();
    let zoned = Zoned::of(batch, &of_types);
    let mut rows = rows.to_vec();
    for row in &mut rows {
        zoned.put(row);
    }
    let found = client.query(
        &format!(
            "SELECT oa_number FROM ROWS FROM (json_to_recordset($1::text::json) AS ({})) WITH ORDINALITY oa_row ({}, oa_number)
             WHERE {value} = $2::text::jsonb",
            typed.join(", "),
            names.join(", ")
        ),
        &[&batch.json(&rows), &key],
    )?;
    let numbers = found.iter().map(|r| r.get::<_, i64>(0) - 1);
    Ok(numbers.filter_map(|n| usize::try_from(n).ok()).collect())
}

/// The unique index that decides what is the same row. The error has the code 42P10 when there is none.
pub(super) fn arbiter(tx: &mut Tx<'_, '_>, batch: &Batch) -> Result<String, postgres::Error> {
    let row = tx.query_one(
        &format!(
            "EXPLAIN (FORMAT JSON, COSTS OFF) INSERT INTO {}.{} DEFAULT VALUES ON CONFLICT ({}) DO NOTHING",
            quote_ident(&batch.schema),
            quote_ident(&batch.table),
            batch.key.join(", ")
        ),
        &[],
    )?;
    let plan: Value = row.get(0);
    let index = &plan[0]["Plan"]["Conflict Arbiter Indexes"][0];
    Ok(index.as_str().unwrap_or_default().to_owned())
}
