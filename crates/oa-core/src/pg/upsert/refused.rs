//! Rows that PostgreSQL refuses: found among the others by halves, and what they say about all of them.

use serde_json::Value;

use super::{CHUNK, ROUNDS, Refused, Statement, UpsertError, Upserted, is_denied};
use crate::model::run::Batch;
use crate::pg::{Deferred, Meaning, Tx, bulk, describe};

impl Statement {
    /// Stores a chunk, and hands back the rows that PostgreSQL does not take.
    pub(super) fn run(
        &self,
        tx: &mut Tx<'_, '_>,
        batch: &Batch,
        first: usize,
        rows: &[Vec<Value>],
        done: &mut Upserted,
    ) -> Result<(), UpsertError> {
        let json = batch.json(rows);
        match self.store(tx, batch, &json) {
            Ok(Some((inserted, updated))) => {
                done.inserted += inserted;
                done.updated += updated;
                done.unchanged += (rows.len() as u64).saturating_sub(inserted + updated);
                Ok(())
            }
            Ok(None) => Err(UpsertError::Contended(self.table.clone())),
            // A few rows of as many take less than the time limit.
            Err(error) if bulk::is_cancelled(&error) && rows.len() > CHUNK / 8 => {
                self.halves(tx, batch, first, rows, done)
            }
            Err(error) if self.is_of_rows(tx, batch, &error)? => {
                if let [row] = rows {
                    done.refused.push(Refused {
                        index: first,
                        row: row.clone(),
                        reason: describe(&error),
                        code: error.code().cloned(),
                    });
                    return Ok(());
                }
                self.halves(tx, batch, first, rows, done)
            }
            Err(error) => Err(self.failed(batch, error)),
        }
    }

    fn halves(
        &self,
        tx: &mut Tx<'_, '_>,
        batch: &Batch,
        first: usize,
        rows: &[Vec<Value>],
        done: &mut Upserted,
    ) -> Result<(), UpsertError> {
        let (left, right) = rows.split_at(rows.len() / 2);
        self.run(tx, batch, first, left, done)?;
        self.run(tx, batch, first + left.len(), right, done)
    }

    /// Whether PostgreSQL may take others of the rows. That a policy forbids one has the code of a privilege that is missing.
    fn is_of_rows(
        &self,
        tx: &mut Tx<'_, '_>,
        batch: &Batch,
        error: &postgres::Error,
    ) -> Result<bool, UpsertError> {
        if !is_denied(error) {
            return Ok(Meaning::of(error) == Meaning::BadData);
        }
        let by_policy = tx.query_one(
            "SELECT row_security_active(c.oid) AND (SELECT bool_and(has_any_column_privilege(c.oid, p)) FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) p)
             FROM pg_class c WHERE c.oid = to_regclass(format('%I.%I', $1::text, $2::text))",
            &[&batch.schema, &batch.table],
        );
        Ok(by_policy.map_err(|e| self.failed(batch, e))?.get(0))
    }

    /// When each of many rows is refused, it is not the rows: nobody needs a thousand others one by one.
    pub(super) fn may_go_on(&self, tried: usize, done: &Upserted) -> Result<(), UpsertError> {
        match done.refused.first() {
            Some(first) if self.deferred == Deferred::AtTheEnd && done.refused.len() == tried => {
                Err(UpsertError::AllRefused {
                    table: self.table.clone(),
                    count: tried,
                    reason: first.reason.clone(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Rows that were refused may have been in want of others that came later: they are tried until none of them is taken any more, and those
    /// that are in want of each other together.
    pub(super) fn again(
        &self,
        tx: &mut Tx<'_, '_>,
        batch: &Batch,
        types: &[String],
        done: &mut Upserted,
    ) -> Result<(), UpsertError> {
        for _ in 0..ROUNDS {
            let before = done.refused.len();
            self.once_more(tx, batch, done)?;
            if done.refused.len() == before && !self.together(tx, batch, types, done)? {
                break;
            }
        }
        Ok(())
    }

    fn once_more(
        &self,
        tx: &mut Tx<'_, '_>,
        batch: &Batch,
        done: &mut Upserted,
    ) -> Result<(), UpsertError> {
        let waiting = std::mem::take(&mut done.refused);
        let rows: Vec<Vec<Value>> = waiting.iter().map(|r| r.row.clone()).collect();
        for (i, chunk) in rows.chunks(CHUNK).enumerate() {
            self.run(tx, batch, i * CHUNK, chunk, done)?;
        }
        for refused in &mut done.refused {
            refused.index = waiting[refused.index].index;
        }
        Ok(())
    }
}
