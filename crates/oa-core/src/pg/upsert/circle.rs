//! Rows that need each other, round about, among others that nobody takes: halves would part them, so that none of them was ever stored.
//!
//! A foreign key says which rows each of them needs: those that need nothing but what is there, or each other, are stored by one statement.
//! Of a unique or exclusion constraint nothing says so: rows that exchange their values are stored together, or without one of them.

use postgres::error::SqlState;
use serde_json::Value;

use super::{Refused, Statement, UpsertError, Upserted, definitions};
use crate::model::run::Batch;
use crate::pg::{Meaning, Tx, bulk, quote_ident};

/// Of more rows no single one is looked for that keeps the others from being stored.
const FEW: usize = 50;

/// More refused rows than these do not need each other: something else is wrong, and to look for circles among them would take too long.
const MANY: usize = 1000;

/// So often the rows that lack something are removed before what is left is taken for a chain without its beginning.
const ROUNDS: usize = 50;

/// A foreign key of the table.
struct Reference {
    /// Its columns.
    from: Vec<String>,
    /// Those of the table that it refers to.
    to: Vec<String>,
    /// That table, quoted.
    table: String,
    /// It is the same table.
    is_own: bool,
}

impl Statement {
    /// Stores those of the refused rows that need each other. Returns whether there were some.
    pub(super) fn together(
        &self,
        tx: &mut Tx<'_, '_>,
        batch: &Batch,
        types: &[String],
        done: &mut Upserted,
    ) -> Result<bool, UpsertError> {
        let with = |codes: &[SqlState]| -> Vec<usize> {
            let refused = done.refused.iter().enumerate();
            let found = refused.filter(|(_, r)| r.code.as_ref().is_some_and(|c| codes.contains(c)));
            found.map(|(i, _)| i).collect()
        };
        let lacking = with(&[SqlState::FOREIGN_KEY_VIOLATION]);
        let lacking = self.need_each_other(tx, batch, types, &done.refused, lacking)?;
        let in_the_way = with(&[SqlState::UNIQUE_VIOLATION, SqlState::EXCLUSION_VIOLATION]);
        let mut stored = self.store_some(tx, batch, &lacking, done)?;
        if stored.is_empty() && in_the_way.len() > 1 {
            stored = self.store_some(tx, batch, &in_the_way, done)?;
            for without in 0..in_the_way.len() {
                if !stored.is_empty() || in_the_way.len() > FEW || in_the_way.len() < 3 {
                    break;
                }
                let mut others = in_the_way.clone();
                others.remove(without);
                stored = self.store_some(tx, batch, &others, done)?;
            }
        }
        let mut number = 0;
        done.refused.retain(|_| {
            number += 1;
            stored.binary_search(&(number - 1)).is_err()
        });
        Ok(!stored.is_empty())
    }

    /// Stores these of the refused rows by one statement. Gives those that are stored: all of them, or none.
    fn store_some(
        &self,
        tx: &mut Tx<'_, '_>,
        batch: &Batch,
        some: &[usize],
        done: &mut Upserted,
    ) -> Result<Vec<usize>, UpsertError> {
        if some.len() < 2 || some.len() > MANY {
            return Ok(Vec::new());
        }
        let rows: Vec<Vec<Value>> = some.iter().map(|i| done.refused[*i].row.clone()).collect();
        match self.store(tx, batch, &batch.json(&rows)) {
            Ok(Some((inserted, updated))) => {
                done.inserted += inserted;
                done.updated += updated;
                done.unchanged += (rows.len() as u64).saturating_sub(inserted + updated);
                Ok(some.to_vec())
            }
            Ok(None) => Err(UpsertError::Contended(self.table.clone())),
            // What took too long is not tried again: they stay refused.
            Err(e) if Meaning::of(&e) == Meaning::BadData || bulk::is_cancelled(&e) => {
                Ok(Vec::new())
            }
            Err(e) => Err(self.failed(batch, e)),
        }
    }

    /// Of these rows those that refer to nothing but what is there, or to each other.
    fn need_each_other(
        &self,
        tx: &mut Tx<'_, '_>,
        batch: &Batch,
        types: &[String],
        refused: &[Refused],
        some: Vec<usize>,
    ) -> Result<Vec<usize>, UpsertError> {
        if some.len() < 2 || some.len() > MANY {
            return Ok(Vec::new());
        }
        let (mut savepoint, prepared) = tx.savepoint().map_err(|e| self.failed(batch, e))?;
        let found = closed(
            &mut Tx::new(&mut savepoint, prepared),
            batch,
            types,
            refused,
            some,
        );
        match found {
            Ok(found) => {
                savepoint.commit().map_err(|e| self.failed(batch, e))?;
                Ok(found)
            }
            Err(e) if Meaning::of(&e) == Meaning::Unreachable => Err(self.failed(batch, e)),
            // The role may not read a table that is referred to, for one: then they stay refused.
            Err(_) => {
                savepoint.rollback().map_err(|e| self.failed(batch, e))?;
                Ok(Vec::new())
            }
        }
    }
}

fn closed(
    tx: &mut Tx<'_, '_>,
    batch: &Batch,
    types: &[String],
    refused: &[Refused],
    mut some: Vec<usize>,
) -> Result<Vec<usize>, postgres::Error> {
    let references = references(tx, batch)?;
    if !references.iter().any(|r| r.is_own) {
        return Ok(Vec::new());
    }
    let sql = satisfied(batch, types, &references);
    for _ in 0..ROUNDS {
        let rows: Vec<Vec<Value>> = some.iter().map(|i| refused[*i].row.clone()).collect();
        let found = tx.query(&sql, &[&batch.json(&rows)])?;
        let numbers = found.iter().map(|row| row.get::<_, i64>(0));
        let found: Vec<usize> = numbers
            .filter_map(|n| some.get(usize::try_from(n - 1).ok()?).copied())
            .collect();
        if found.len() == some.len() {
            return Ok(some);
        }
        some = found;
    }
    Ok(Vec::new())
}

fn references(tx: &mut Tx<'_, '_>, batch: &Batch) -> Result<Vec<Reference>, postgres::Error> {
    let names = "SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest(c.{keys}) WITH ORDINALITY k (attnum, n)
                 JOIN pg_attribute a ON a.attrelid = c.{of} AND a.attnum = k.attnum";
    let names = |keys: &str, of: &str| names.replace("{keys}", keys).replace("{of}", of);
    let sql = format!(
        "SELECT ({}), ({}), c.confrelid::regclass::text, c.confrelid = c.conrelid FROM pg_constraint c
         WHERE c.contype = 'f' AND c.conrelid = to_regclass(format('%I.%I', $1::text, $2::text))
           -- A partitioned table that is referred to has one more for each of its partitions.
           AND NOT EXISTS (SELECT FROM pg_constraint p WHERE p.oid = c.conparentid AND p.conrelid = c.conrelid)",
        names("conkey", "conrelid"),
        names("confkey", "confrelid"),
    );
    let rows = tx.query(&sql, &[&batch.schema, &batch.table])?;
    let reference = |row: &postgres::Row| Reference {
        from: row.get(0),
        to: row.get(1),
        table: row.get(2),
        is_own: row.get(3),
    };
    let all = rows.iter().map(reference);
    // What a column has that does not come with the rows is not known here.
    Ok(all
        .filter(|r| r.from.iter().all(|c| batch.columns.contains(c)))
        .collect())
}

/// The numbers, from 1, of the rows in `$1` that refer to nothing but what is there, or to each other.
fn satisfied(batch: &Batch, types: &[String], references: &[Reference]) -> String {
    let columns: Vec<String> = batch.columns.iter().map(|c| quote_ident(c)).collect();
    let rows = format!(
        "oa_rows AS (SELECT * FROM ROWS FROM (json_to_recordset($1::text::json) AS ({})) WITH ORDINALITY AS oa_row ({}, oa_number))",
        definitions(batch, types),
        columns.join(", ")
    );
    let exists = |reference: &Reference, table: &str| {
        let pairs = reference.from.iter().zip(&reference.to);
        let same =
            pairs.map(|(from, to)| format!("oa_to.{} = r.{}", quote_ident(to), quote_ident(from)));
        let same: Vec<String> = same.collect();
        format!(
            "EXISTS (SELECT FROM {table} oa_to WHERE {})",
            same.join(" AND ")
        )
    };
    let holds = references.iter().map(|reference| {
        let absent = reference
            .from
            .iter()
            .map(|c| format!("r.{} IS NULL", quote_ident(c)));
        let mut any: Vec<String> = absent.collect();
        any.push(exists(reference, &reference.table));
        // What it refers to may come with the rows, if all of that does.
        if reference.is_own && reference.to.iter().all(|c| batch.columns.contains(c)) {
            any.push(exists(reference, "oa_rows"));
        }
        format!("({})", any.join(" OR "))
    });
    let holds: Vec<String> = holds.collect();
    format!(
        "WITH {rows} SELECT r.oa_number FROM oa_rows r WHERE {} ORDER BY 1",
        holds.join(" AND ")
    )
}
