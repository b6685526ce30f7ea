//! Rows of which none is there yet, which is what most batches of many are: inserted as they are, without a look for each of them at
//! what it might replace, and with one revision for all of them.
//!
//! What is there is found by one join before. A row that somebody else inserts meanwhile, and one that comes twice, breaks the unique
//! index: then nothing has happened, and the upsert takes all of them.

use postgres::Transaction;
use postgres::types::ToSql;
use uuid::Uuid;

use super::upsert::{Columns, key_names, same_key};
use super::{Prepared, Tx, bulk, quote_ident, quote_literal};
use crate::model::run::Batch;

/// So many rows, the first ones, say whether it is worth trying.
const LOOKED_AT: usize = 100;

/// The statements for rows that are in the temporary table.
pub(super) struct Fresh {
    /// Whether one of the first rows is there.
    look: String,
    insert: String,
    run: Option<Uuid>,
}

/// Under which name, and by what SQL, the keys of rows go into `oa.revisions`, and for which run.
pub(super) struct Noted<'a> {
    pub(super) schema: &'a str,
    pub(super) table: &'a str,
    pub(super) key: &'a str,
    pub(super) run: Uuid,
}

impl Fresh {
    /// `input`: the rows as an item of `FROM`.
    pub(super) fn new(
        batch: &Batch,
        input: &str,
        columns: &Columns<'_>,
        noted: Option<&Noted<'_>>,
    ) -> Self {
        let (schema, table) = (quote_ident(&batch.schema), quote_ident(&batch.table));
        let keys = key_names(batch);
        let there = format!(
            "(SELECT {keys} FROM {schema}.{table} oa_row) oa_there WHERE {}",
            same_key(batch)
        );
        let look = format!(
            "SELECT EXISTS (SELECT FROM (SELECT {keys} FROM {} LIMIT {LOOKED_AT}) input
                            WHERE EXISTS (SELECT FROM {there}))",
            bulk::TABLE
        );
        let (key, written) = match noted {
            None => ("NULL::jsonb", String::new()),
            // The order is taken when all rows are stored: see `revisions`.
            Some(noted) => (
                noted.key,
                format!(
                    ", kept AS (
                       INSERT INTO oa.revisions (schema_name, table_name, keys, operation, run_id, oldest_xid, at, seq)
                       SELECT {}, {}, oa_keys, 'insert', $4::uuid, pg_snapshot_xmin(pg_current_snapshot()), clock_timestamp(), oa.next_in_order()
                       FROM together WHERE oa_rows > 0)",
                    quote_literal(noted.schema),
                    quote_literal(noted.table),
                ),
            ),
        };
        let keys_of_all = if noted.is_some() {
            "array_agg(oa_key)"
        } else {
            "NULL"
        };
        let insert = format!(
            "WITH done AS (
               INSERT INTO {schema}.{table} AS oa_row ({}) SELECT {} FROM (SELECT input.*, {keys} FROM {input}) AS input
               WHERE NOT EXISTS (SELECT FROM {there})
               RETURNING {key} AS oa_key),
             together AS MATERIALIZED (SELECT count(*) AS oa_rows, {keys_of_all} AS oa_keys FROM done){written}
             SELECT oa_rows FROM together, (SELECT {}) AS used",
            columns.names.join(", "),
            columns.values.join(", "),
            columns.stamp,
        );
        Self {
            look,
            insert,
            run: noted.map(|n| n.run),
        }
    }

    /// Inserts those that are not there, of rows of which probably none is. Gives how many.
    pub(super) fn insert(
        &self,
        tx: &mut Transaction<'_>,
        batch: &Batch,
    ) -> Result<u64, postgres::Error> {
        if tx.query_one(&self.look, &[])?.get(0) {
            return Ok(0);
        }
        let mut parameters: Vec<&(dyn ToSql + Sync)> =
            vec![&"", &batch.collected_at, &batch.timezone];
        if let Some(run) = &self.run {
            parameters.push(run);
        }
        let mut savepoint = tx.transaction()?;
        let mut own = Prepared::default();
        let row = Tx::new(&mut savepoint, &mut own).query_one(&self.insert, &parameters)?;
        savepoint.commit()?;
        Ok(row.get::<_, i64>(0).unsigned_abs())
    }
}
