//! Sync: what changed in SQLite since the last run or sync is brought to PostgreSQL, until the service writes there itself.
//!
//! ```text
//! (runs::grown ─ tables and columns that the source has more are created)
//! delta ─ the base snapshot and a new one compared inside SQLite: rows that went, rows that came (a changed row is both)
//! delta ─ both to temporary tables by binary COPY; rows that no longer fit their columns are quarantined
//! forbidden ─ so are those that a CHECK forbids
//! apply ─ rows that went must be in the target as they were: else somebody wrote there, and nothing is done
//! apply ─ DELETE, UPDATE, INSERT by key; numbers of identities
//! orphans ─ only when a foreign key is broken then: everything is repeated, with the dangling rows quarantined
//! proof ─ the new snapshot against what the transaction sees, row by row; then COMMIT
//! ```
//! All in one transaction that locks the tables against other writers. The number of the transaction is written down before COMMIT,
//! so that after a `kill -9` the next command can ask PostgreSQL whether it was committed (`runs::base`).
//!
//! [`reverse`] goes the other way: PostgreSQL's rows to a copy of the base snapshot.

pub(crate) mod apply;
pub(crate) mod changes;
pub(crate) mod delta;
pub(crate) mod forbidden;
pub(crate) mod orphans;
pub(crate) mod reverse;
mod spelling;

pub(crate) use changes::{AllChanges, Changes, TableChanges};

use oa_core::pg::quote_ident;

use crate::inspect::Table;
use crate::load::encode::Codec;
use crate::proof::Comparison;

#[derive(Debug)]
pub(crate) struct SyncTable {
    pub(crate) table: Table,
    pub(crate) comparison: Comparison,
    /// Columns to write: position in SQLite, name in PostgreSQL, how values are written. Without those that PostgreSQL computes.
    pub(crate) columns: Vec<(usize, String, Codec)>,
    /// Key columns in PostgreSQL's names; empty: a row is its own key.
    pub(crate) key: Vec<String>,
    pub(crate) number: usize,
    pub(crate) fresh: Fresh,
}

/// What a base does not have of a table.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    /// All of it.
    pub(crate) whole: bool,
    /// Columns, by their names in SQLite.
    pub(crate) columns: Vec<String>,
}

impl SyncTable {
    /// Its name in PostgreSQL with its schema, quoted.
    pub(crate) fn qualified(&self) -> String {
        format!(
            "{}.{}",
            quote_ident(&self.comparison.schema),
            quote_ident(&self.comparison.target)
        )
    }

    /// The temporary table of rows that went.
    pub(crate) fn removed(&self) -> String {
        format!("pg_temp.oa_removed_{}", self.number)
    }

    /// The temporary table of rows that came.
    pub(crate) fn added(&self) -> String {
        format!("pg_temp.oa_added_{}", self.number)
    }
}
