//! SQLite's side of the proof.

use rusqlite::{Connection, Row};

use super::Comparison;
use super::canon::of_source;
use super::digest::{Digest, RowFingerprint};
use crate::progress;

/// What is added up of a table's rows while they are read.
#[derive(Debug)]
pub(crate) struct SourceRows {
    comparison: Comparison,
    digest: Digest,
    row_bytes: Vec<u8>,
}

/// Room for a row that is kept for the next one.
const USUAL_ROW: usize = 1 << 20;

impl SourceRows {
    pub(crate) fn new(comparison: Comparison) -> Self {
        Self {
            digest: Digest::new(&comparison),
            comparison,
            row_bytes: Vec::with_capacity(1024),
        }
    }

    /// Adds a row of the comparison's statement.
    pub(crate) fn add(&mut self, row: &Row<'_>) -> rusqlite::Result<RowFingerprint> {
        if self.row_bytes.capacity() > USUAL_ROW {
            self.row_bytes = Vec::with_capacity(1024);
        }
        self.row_bytes.clear();
        for (i, column) in self.comparison.columns.iter().enumerate() {
            of_source(column, row.get_ref(i)?, &mut self.row_bytes);
        }
        Ok(self.digest.add(&self.row_bytes))
    }

    pub(crate) fn finish(self) -> (Comparison, Digest) {
        (self.comparison, self.digest)
    }
}

/// Adds up what SQLite holds; `see` gets every row in its normal form.
pub(crate) fn read(
    connection: &Connection,
    comparison: &Comparison,
    mut see: impl FnMut(&[u8], RowFingerprint),
) -> rusqlite::Result<Digest> {
    let mut sum = SourceRows::new(comparison.clone());
    let mut statement = connection.prepare(&comparison.source_sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let fingerprint = sum.add(row)?;
        progress::rows(sum.digest.rows);
        see(&sum.row_bytes, fingerprint);
    }
    Ok(sum.digest)
}
