//! The proof: both sides are read back and compared by content, row by row.
//!
//! Every row becomes a string of bytes in a normal form ([`canon`]): each value with a tag for its kind and its length, so that no
//! two different rows give the same bytes. SQLite's side is made from the snapshot by handling texts; PostgreSQL's side is made
//! from binary COPY output by code that goes the other way than the loader did. A row's SHA-256 is added, as a number of 256 bits,
//! to the table's sum ([`digest`]).
//!
//! Why a sum: it does not depend on the order of rows, needs no sorting and no memory, and counts a row that is there twice twice
//! (XOR would lose pairs). Two tables with different rows and the same sum would need a set of SHA-256 values that happens to add
//! up to the same number, which chance does once in 2^256 and nobody is here to do on purpose.
//!
//! Beside the sum, each table keeps partial sums in buckets by its rows' keys. Where two tables differ, a second pass looks only at
//! the rows of the buckets that differ and names their keys ([`diff`]). Sums per column say in which columns.

pub mod canon;
pub mod constraints;
pub mod diff;
pub mod digest;
pub mod missing;
pub mod readback;
pub mod report;
pub mod source;
pub mod tables;

use crate::plan::PgType;
use chrono_tz::Tz;

/// A column to compare.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its name in SQLite.
    pub source: String,
    /// Its name in PostgreSQL.
    pub target: String,
    /// Its type as PostgreSQL's catalogue has it.
    pub pg: PgType,
    /// The zone of timestamps without an offset, for `timestamptz`.
    pub zone: Option<Tz>,
    /// Part of the key.
    pub is_key: bool,
}

/// A table to compare: the same columns in the same order on both sides.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// Its name in SQLite.
    pub source: String,
    /// SQL that reads its columns from SQLite, without rows that were quarantined.
    pub source_sql: String,
    /// Its schema in PostgreSQL.
    pub schema: String,
    /// Its name in PostgreSQL.
    pub target: String,
    /// The columns.
    pub columns: Vec<Column>,
}
