//! What `sync` and `to-sqlite` report: the changes of each table, and whether both sides are the same then.

use serde_json::{Map, Value, json};

use crate::proof::tables::ComparisonResult;

/// What was done to a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Rows that were not there.
    pub(crate) inserted: u64,
    /// Rows with other values.
    pub(crate) updated: u64,
    /// Rows that are no longer on the side that is followed.
    pub(crate) deleted: u64,
    /// New rows that do not fit their columns; they are in `oa.rejects`.
    pub(crate) quarantined: u64,
}

#[derive(Debug)]
pub(crate) struct TableChanges {
    pub(crate) table: String,
    pub(crate) target: String,
    pub(crate) changes: Changes,
    /// Rows that are in `oa.rejects` now, whoever put them there.
    pub(crate) quarantined: u64,
    /// The table or some of its columns came with this sync.
    pub(crate) grown: bool,
    pub(crate) compared: ComparisonResult,
}

#[derive(Debug, Default)]
pub(crate) struct AllChanges {
    pub(crate) tables: Vec<TableChanges>,
    pub(crate) warnings: Vec<String>,
    /// What of the source is not in the target at all.
    pub(crate) incomplete: Vec<String>,
    pub(crate) seconds: f64,
}

impl AllChanges {
    /// Both sides hold the same rows in every table.
    pub(crate) fn matched(&self) -> bool {
        self.tables.iter().all(|t| t.compared.matched())
    }

    pub(crate) fn sum(&self, of: fn(&Changes) -> u64) -> u64 {
        self.tables.iter().map(|t| of(&t.changes)).sum()
    }

    /// Rows that are on one side only, on purpose.
    pub(crate) fn quarantined(&self) -> u64 {
        self.tables.iter().map(|t| t.quarantined).sum()
    }

    pub(crate) fn details(&self) -> Map<String, Value> {
        [
            ("inserted", self.sum(|c| c.inserted)),
            ("updated", self.sum(|c| c.updated)),
            ("deleted", self.sum(|c| c.deleted)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect()
    }
}

/// As few changed rows as this are never many; of deleted ones, a single one.
const FEW: u64 = 5;

impl TableChanges {
    /// Says so when more than a tenth of the rows that were there were deleted or changed.
    pub(crate) fn many(&self) -> Option<String> {
        let Changes {
            inserted,
            updated,
            deleted,
            ..
        } = self.changes;
        let before = (self.compared.target.rows + deleted).saturating_sub(inserted);
        // Rows that have a value in a new column have changed, which nobody needs to be asked about.
        let (updated, deleted) = if self.grown {
            (0, deleted.saturating_sub(inserted))
        } else {
            (updated, deleted)
        };
        let few = deleted <= 1 && deleted + updated <= FEW;
        (!few && (deleted + updated) * 10 > before).then(|| {
            format!(
                "{}: {deleted} of {before} rows deleted, {updated} changed",
                self.target
            )
        })
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "table": self.table,
            "target": self.target,
            "inserted": self.changes.inserted,
            "updated": self.changes.updated,
            "deleted": self.changes.deleted,
            "rows_quarantined": self.changes.quarantined,
            "rows_in_rejects": self.quarantined,
            "rows": self.compared.target.rows,
            "source_hash": self.compared.source.hex(),
            "target_hash": self.compared.target.hex(),
            "matched": self.compared.matched(),
            "difference": self.compared.difference,
        })
    }
}
