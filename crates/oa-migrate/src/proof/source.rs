//! SQLite's side of the proof.

use rusqlite::Connection;

use super::Comparison;
use super::canon::of_source;
use super::digest::{Digest, RowFingerprint};
use crate::progress;

/// Adds up what SQLite holds; `see` gets every row in its normal form.
pub(crate) fn read(
    connection: &Connection,
    comparison: &Comparison,
    mut see: impl FnMut(&[u8], RowFingerprint),
) -> rusqlite::Result<Digest> {
    let mut digest = Digest::new(comparison);
    let mut statement = connection.prepare(&comparison.source_sql)?;
    let mut rows = statement.query([])?;
    let mut row_bytes = Vec::with_capacity(1024);
    while let Some(row) = rows.next()? {
        row_bytes.clear();
        for (i, column) in comparison.columns.iter().enumerate() {
            of_source(column, row.get_ref(i)?, &mut row_bytes);
        }
        let fingerprint = digest.add(&row_bytes);
        progress::rows(digest.rows);
        see(&row_bytes, fingerprint);
    }
    Ok(digest)
}
