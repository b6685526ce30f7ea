//! Everything ever recorded, by task and status: what counters need that never go back.

use postgres::GenericClient;

use super::{Result, number};

/// Outcomes of one task with one status.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Total {
    pub(crate) task: String,
    pub(crate) status: String,
    pub(crate) runs: u64,
    /// Sum of their durations in seconds.
    pub(crate) seconds: f64,
    pub(crate) inserted: u64,
    pub(crate) updated: u64,
    /// Rows that were there just so.
    pub(crate) unchanged: u64,
    pub(crate) rejected: u64,
}

/// All of them, by task.
pub(crate) fn all(client: &mut impl GenericClient) -> Result<Vec<Total>> {
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
