//! What an upsert writes into `oa.revisions`: the rows that it replaces, and the keys of those that it inserts.
//!
//! `INSERT … ON CONFLICT DO UPDATE` returns the new row alone. The old one is still what the statement's snapshot shows, so it is looked up
//! there by the natural key, and only for rows that really change. Another transaction may have changed it after the snapshot: then the
//! version that was replaced (its xmax) is not the one that is seen, fewer rows are kept than changed, and the rows are locked and the
//! statement is repeated.

use postgres::Transaction;
use serde_json::Value;

use super::{quote_ident, quote_literal};
use crate::model::run::Batch;

/// What goes into the upsert's statement.
pub(super) struct Kept {
    /// After the row's state in `RETURNING`: its key, and the row that it replaces.
    pub(super) returning: String,
    /// The same when the rows are locked.
    pub(super) returning_locked: String,
    /// Locks the rows that the input is about.
    pub(super) lock: String,
}

/// Part of the statement that writes them: `done` is the upsert, `$4` the run.
pub(super) fn written(batch: &Batch) -> String {
    format!(
        ", kept AS (
           INSERT INTO oa.revisions (schema_name, table_name, key, operation, old_row, run_id, seq)
           SELECT {}, {}, oa_key, CASE WHEN inserted THEN 'insert' ELSE 'update' END, oa_old, $4::uuid, (SELECT oa.next_in_order())
           FROM done WHERE inserted OR oa_old IS NOT NULL
           RETURNING 1)",
        quote_literal(&batch.schema),
        quote_literal(&batch.table),
    )
}

impl Kept {
    /// `input`: the rows as an item of `FROM`. The error has the code 42P10 when there is no unique index on the key.
    pub(super) fn prepare(
        tx: &mut Transaction<'_>,
        batch: &Batch,
        input: &str,
    ) -> Result<Self, postgres::Error> {
        let table = format!(
            "{}.{}",
            quote_ident(&batch.schema),
            quote_ident(&batch.table)
        );
        let index = arbiter(tx, batch, &table)?;
        let parts = tx.query(
            "SELECT expression, format('%L, %s', name, value) FROM oa.key_parts(to_regclass(format('%I.%I', $1::text, $2::text)))",
            &[&batch.schema, &index],
        )?;
        let parts: Vec<(String, String)> = parts.iter().map(|r| (r.get(0), r.get(1))).collect();
        let named = parts.iter().enumerate();
        let named: Vec<String> = named.map(|(i, (e, _))| format!("{e} AS oa_k{i}")).collect();
        let named = named.join(", ");
        let same = |equals: &str| {
            let all: Vec<String> = (0..parts.len())
                .map(|i| format!("oa_was.oa_k{i} {equals} oa_is.oa_k{i}"))
                .collect();
            all.join(" AND ")
        };
        let key: Vec<&str> = parts.iter().map(|(_, k)| k.as_str()).collect();
        let returning = |condition: &str| {
            format!(
                ", jsonb_build_object({}) AS oa_key, CASE WHEN cur.xmax <> 0 THEN (
                   SELECT to_jsonb(oa_was.oa_row) FROM (SELECT {named}) oa_is
                   JOIN (SELECT oa_row, oa_row.xmax AS oa_xmax, {named} FROM {table} oa_row) oa_was ON {condition}) END AS oa_old",
                key.join(", "),
            )
        };
        Ok(Self {
            returning: returning(&format!("{} AND oa_was.oa_xmax = cur.xmin", same("="))),
            returning_locked: returning(&same("IS NOT DISTINCT FROM")),
            lock: format!(
                "SELECT FROM (SELECT {named} FROM {input}) oa_is
                 CROSS JOIN LATERAL (SELECT FROM (SELECT oa_row, {named} FROM {table} oa_row) oa_was WHERE {} FOR UPDATE) oa_locked",
                same("=")
            ),
        })
    }
}

/// The unique index that decides what is the same row.
fn arbiter(
    tx: &mut Transaction<'_>,
    batch: &Batch,
    table: &str,
) -> Result<String, postgres::Error> {
    let plan: Value = tx
        .query_one(
            &format!(
                "EXPLAIN (FORMAT JSON, COSTS OFF) INSERT INTO {table} DEFAULT VALUES ON CONFLICT ({}) DO NOTHING",
                batch.key.join(", ")
            ),
            &[],
        )?
        .get(0);
    let index = &plan[0]["Plan"]["Conflict Arbiter Indexes"][0];
    Ok(index.as_str().unwrap_or_default().to_owned())
}
