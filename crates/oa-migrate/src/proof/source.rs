//! SQLite's side of the proof.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::Comparison;
use super::canon::{add_of_source, of_source};
use super::digest::{Digest, RowFingerprint, RowParts};
use crate::progress;

/// What is added up of a table's rows while they are read.
#[derive(Debug)]
pub(crate) struct SourceRows {
    comparison: Comparison,
    digest: Digest,
    row: RowParts,
}

impl SourceRows {
    pub(crate) fn new(comparison: Comparison) -> Self {
        Self {
            digest: Digest::new(&comparison),
            comparison,
            row: RowParts::default(),
        }
    }

    /// Adds the next value of a row of the comparison's statement.
    #[inline]
    pub(crate) fn add_value(&mut self, position: usize, value: ValueRef<'_>) {
        let column = &self.comparison.columns[position];
        add_of_source(column, position, value, &mut self.row);
    }

    /// The row has all its values.
    #[inline]
    pub(crate) fn end_row(&mut self) {
        self.digest.add_parts(&mut self.row);
    }

    pub(crate) fn finish(self) -> (Comparison, Digest) {
        (self.comparison, self.digest)
    }
}

/// Adds up what SQLite holds.
pub(crate) fn sum(connection: &Connection, comparison: &Comparison) -> rusqlite::Result<Digest> {
    let mut sum = SourceRows::new(comparison.clone());
    each(connection, comparison, |row| {
        for position in 0..comparison.columns.len() {
            sum.add_value(position, row.get_ref(position)?);
        }
        sum.end_row();
        Ok(())
    })?;
    Ok(sum.digest)
}

/// The same, while `see` gets every row in its normal form.
pub(crate) fn read(
    connection: &Connection,
    comparison: &Comparison,
    mut see: impl FnMut(&[u8], RowFingerprint),
) -> rusqlite::Result<Digest> {
    let mut digest = Digest::new(comparison);
    let mut bytes = Vec::new();
    each(connection, comparison, |row| {
        bytes.clear();
        for (i, column) in comparison.columns.iter().enumerate() {
            of_source(column, row.get_ref(i)?, &mut bytes);
        }
        let fingerprint = digest.add(&bytes);
        see(&bytes, fingerprint);
        Ok(())
    })?;
    Ok(digest)
}

fn each(
    connection: &Connection,
    comparison: &Comparison,
    mut see: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&comparison.source_sql)?;
    let mut rows = statement.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        see(row)?;
        count += 1;
        progress::rows(count);
    }
    Ok(())
}
