//! Everything ever recorded, by task and status: what counters need that never go back.

use postgres::GenericClient;

use super::{Result, number};

/// Outcomes of one task with one status.
#[derive(Debug, Clone, PartialEq)]
pub struct Total {
    /// The task.
    pub task: String,
    /// How they ended.
    pub status: String,
    /// How many.
    pub runs: u64,
    /// Sum of their durations in seconds.
    pub seconds: f64,
    /// Rows that were not there before.
    pub inserted: u64,
    /// Rows that were there with other values.
    pub updated: u64,
    /// Rows that were there just so.
    pub unchanged: u64,
    /// Records that were not stored.
    pub rejected: u64,
}

/// All of them, by task.
///
/// # Errors
/// When PostgreSQL fails.
pub fn all(client: &mut impl GenericClient) -> Result<Vec<Total>> {
    let rows = client.query(
        "SELECT task, status, runs, seconds, inserted, updated, unchanged, rejected FROM oa.run_totals ORDER BY task, status",
        &[],
    )?;
    let total = |row: &postgres::Row| Total {
        task: row.get(0),
        status: row.get(1),
        runs: number(row, 2),
        seconds: row.get(3),
        inserted: number(row, 4),
        updated: number(row, 5),
        unchanged: number(row, 6),
        rejected: number(row, 7),
    };
    Ok(rows.iter().map(total).collect())
}
