//! The proof: both sides are read back and compared by content, row by row.
//!
//! Every row becomes a string of bytes in a normal form ([`canon`]): each value with a tag for its kind and its length, so that
//! no two different rows give the same bytes. SQLite's side is made from the snapshot by handling texts; PostgreSQL's side is
//! made from binary COPY output by code that goes the other way than the loader did. A row's SHA-256 is added, as a number of
//! 256 bits, to the table's sum ([`digest`]).
//!
//! Why a sum: it does not depend on the order of rows, needs no sorting and no memory, and counts a row that is there twice twice
//! (XOR would lose pairs). Two tables with different rows and the same sum would need a set of SHA-256 values that happens to add
//! up to the same number, which chance does once in 2^256 and nobody is here to do on purpose.
//!
//! Beside the sum, each table keeps partial sums in buckets by its rows' keys. Where two tables differ, a second pass looks
//! only at the rows of the buckets that differ and names their keys ([`diff`]). Sums per column say in which columns.

pub(crate) mod canon;
pub(crate) mod constraints;
pub(crate) mod diff;
pub(crate) mod digest;
pub(crate) mod plan;
pub(crate) mod readback;
pub(crate) mod report;
pub(crate) mod source;
pub(crate) mod tables;

use crate::plan::PgType;
use crate::values::conversion::Conversion;
use chrono_tz::Tz;

#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) source: String,
    pub(crate) target: String,
    /// Its type as PostgreSQL's catalogue has it.
    pub(crate) pg: PgType,
    /// The zone of timestamps without an offset, for `timestamptz`.
    pub(crate) zone: Option<Tz>,
    /// What the values are, as the mapping says.
    pub(crate) conversion: Option<Conversion>,
    pub(crate) is_key: bool,
}

/// A table to compare: the same columns in the same order on both sides.
#[derive(Debug, Clone)]
pub(crate) struct Comparison {
    pub(crate) source: String,
    /// SQL that reads its columns from SQLite, without rows that were quarantined.
    pub(crate) source_sql: String,
    pub(crate) schema: String,
    pub(crate) target: String,
    pub(crate) columns: Vec<Column>,
}
