//! What `sync` and `to-sqlite` report: the changes of each table, and whether both sides are the same then.

use anyhow::Result;
use oa_core::app::output::{Format, Listing};
use serde_json::{Map, Value, json};

use crate::proof::tables::Compared;

/// What was done to a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Rows that were not there.
    pub inserted: u64,
    /// Rows with other values.
    pub updated: u64,
    /// Rows that are no longer on the side that is followed.
    pub deleted: u64,
    /// Rows that came and fit no column; they are in `oa.rejects`.
    pub quarantined: u64,
}

/// A table, what was done to it, and the proof.
#[derive(Debug)]
pub struct TableChanges {
    /// Its name in SQLite.
    pub table: String,
    /// Its name in PostgreSQL.
    pub target: String,
    /// What was done.
    pub changes: Changes,
    /// The proof.
    pub compared: Compared,
}

/// All tables.
#[derive(Debug)]
pub struct AllChanges {
    /// The tables.
    pub tables: Vec<TableChanges>,
    /// What a person should know besides.
    pub warnings: Vec<String>,
    /// What of the source is not in the target at all.
    pub incomplete: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

impl AllChanges {
    /// Both sides hold the same rows in every table.
    #[must_use]
    pub fn matched(&self) -> bool {
        self.tables.iter().all(|t| t.compared.matched())
    }

    /// A sum over the tables.
    #[must_use]
    pub fn sum(&self, of: fn(&Changes) -> u64) -> u64 {
        self.tables.iter().map(|t| of(&t.changes)).sum()
    }

    /// For the run row.
    #[must_use]
    pub fn details(&self) -> Map<String, Value> {
        [
            ("inserted", self.sum(|c| c.inserted)),
            ("updated", self.sum(|c| c.updated)),
            ("deleted", self.sum(|c| c.deleted)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect()
    }

    /// Prints one JSON object that begins with `head`, or a table; what is not as it should be goes to the log.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn print(&self, mut head: Map<String, Value>, format: Format) -> Result<()> {
        if format == Format::Json {
            let rows: Vec<Value> = self.tables.iter().map(TableChanges::json).collect();
            head.insert("matched".to_owned(), json!(self.matched()));
            head.insert("seconds".to_owned(), json!(self.seconds));
            head.insert("tables".to_owned(), json!(rows));
            head.insert("warnings".to_owned(), json!(self.warnings));
            head.insert("incomplete".to_owned(), json!(self.incomplete));
            let mut listing = Listing::new(&[]);
            listing.push(Value::Object(head));
            return Ok(listing.print(format)?);
        }
        for table in &self.tables {
            if let Some(d) = &table.compared.difference {
                tracing::error!(
                    "{}: {} row(s) only in SQLite, {} only in PostgreSQL, {} different: {}",
                    table.table,
                    d.only_source,
                    d.only_target,
                    d.changed,
                    d.examples.join("; ")
                );
            }
        }
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        for sentence in &self.incomplete {
            tracing::error!("{sentence}");
        }
        let mut listing = Listing::new(&[
            ("table", "TABLE"),
            ("target", "TARGET"),
            ("inserted", "INSERTED"),
            ("updated", "UPDATED"),
            ("deleted", "DELETED"),
            ("rows_quarantined", "QUARANTINED"),
            ("rows", "ROWS"),
            ("matched", "SAME"),
        ]);
        for table in &self.tables {
            let mut row = table.json();
            row["matched"] = json!(if table.compared.matched() {
                "yes"
            } else {
                "NO"
            });
            listing.push(row);
        }
        Ok(listing.print(format)?)
    }
}

/// So few changed rows are never many; of deleted ones, a single one.
const FEW: u64 = 5;

impl TableChanges {
    /// Says so when more than a tenth of the rows that were there were deleted or changed.
    #[must_use]
    pub fn many(&self) -> Option<String> {
        let Changes {
            inserted,
            updated,
            deleted,
            ..
        } = self.changes;
        let before = (self.compared.target.rows + deleted).saturating_sub(inserted);
        let few = deleted <= 1 && deleted + updated <= FEW;
        (!few && (deleted + updated) * 10 > before).then(|| {
            format!(
                "{}: {deleted} of {before} rows deleted, {updated} changed",
                self.target
            )
        })
    }

    fn json(&self) -> Value {
        json!({
            "table": self.table,
            "target": self.target,
            "inserted": self.changes.inserted,
            "updated": self.changes.updated,
            "deleted": self.changes.deleted,
            "rows_quarantined": self.changes.quarantined,
            "rows": self.compared.target.rows,
            "source_hash": self.compared.source.hex(),
            "target_hash": self.compared.target.hex(),
            "matched": self.compared.matched(),
            "difference": self.compared.difference,
        })
    }
}
