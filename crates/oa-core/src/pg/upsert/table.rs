//! The table that rows are stored in: what the server knows of it.

use super::UpsertError;
use crate::model::run::Batch;
use crate::pg::Tx;

/// What the server knows of the table.
pub(super) struct Table {
    /// Names and types of its columns.
    pub(super) columns: Vec<(String, String)>,
    /// Types of the batch's columns.
    pub(super) types: Vec<String>,
}

impl Table {
    pub(super) fn look_up(tx: &mut Tx<'_, '_>, batch: &Batch) -> Result<Self, UpsertError> {
        let fail = |source| UpsertError::Database {
            table: batch.table.clone(),
            source,
        };
        let rows = tx
            .query(
                "SELECT attname::text, format_type(atttypid, atttypmod), (SELECT relkind = 'p' FROM pg_class c WHERE c.oid = attrelid) FROM pg_attribute
                 WHERE attrelid = to_regclass(format('%I.%I', $1::text, $2::text)) AND attnum > 0 AND NOT attisdropped",
                &[&batch.schema, &batch.table],
            )
            .map_err(fail)?;
        if rows.iter().any(|row| row.get(2)) {
            return Err(UpsertError::Unfit {
                table: batch.table.clone(),
                why: "it is partitioned, and there PostgreSQL does not tell which rows are new; name a table without partitions",
            });
        }
        let columns = rows.iter().map(|row| (row.get(0), row.get(1)));
        let columns: Vec<(String, String)> = columns.collect();
        if columns.is_empty() {
            let found = tx.query_opt(
                "SELECT quote_ident(n.nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relname = $1 AND c.relkind IN ('r', 'p') AND n.nspname = current_user",
                &[&batch.table],
            );
            return Err(match found.map_err(fail)?.map(|row| row.get(0)) {
                None => UpsertError::NoTable(batch.table.clone()),
                Some(found) => UpsertError::Elsewhere {
                    table: batch.table.clone(),
                    found,
                    due: batch.schema.clone(),
                },
            });
        }
        let type_of = |column: &String| {
            let found = columns.iter().find(|(name, _)| name == column);
            found
                .map(|(_, of_type)| of_type.clone())
                .ok_or_else(|| UpsertError::NoColumn {
                    table: batch.table.clone(),
                    column: column.clone(),
                })
        };
        let types = batch
            .columns
            .iter()
            .map(type_of)
            .collect::<Result<_, _>>()?;
        Ok(Self { columns, types })
    }
}
