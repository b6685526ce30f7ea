//! What a SQLite file holds: opened without ever creating or changing it, copied by SQLite's online backup, described, and
//! scanned value by value.

pub mod ddl;
mod open;
pub mod scan;
pub mod schema;
pub mod virtual_table;

pub use open::{SourceError, integrity, open, snapshot};
pub use schema::{Column, Database, ForeignKey, Generated, Index, IndexPart, Origin, Table};
pub use virtual_table::VirtualTable;

/// Quotes a name for SQLite.
#[must_use]
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a string for SQLite.
#[must_use]
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
