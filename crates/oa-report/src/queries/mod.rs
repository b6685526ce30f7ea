//! What is asked of PostgreSQL, one file a question. Nothing here writes, except [`alerts::acknowledge`].
//!
//! Ids of runs are ordered by time, so a span of time is a span of ids, and a page of the log continues at an id. Counts come from
//! `oa.run_hours` and `oa.run_totals`, which the database keeps: no question reads the log as a whole.

pub mod alerts;
pub mod backups;
pub mod health;
pub mod history;
pub mod logs;
pub mod quality;
pub mod run;
pub mod totals;

/// What these questions give.
pub type Result<T> = std::result::Result<T, postgres::Error>;

/// A count or a size: never negative in the tables.
fn number(row: &postgres::Row, column: usize) -> u64 {
    row.get::<_, Option<i64>>(column)
        .unwrap_or(0)
        .unsigned_abs()
}
