//! What a SQLite file holds: opened without ever creating or changing it, copied by SQLite's online backup, described, and
//! scanned value by value.

pub(crate) mod ddl;
pub(crate) mod identity;
mod open;
pub(crate) mod scan;
pub(crate) mod schema;
pub(crate) mod stand_ins;
pub(crate) mod virtual_table;

pub(crate) use open::{copy, damage, integrity, open, snapshot};
pub(crate) use schema::{Column, Database, Index, Origin, Table};
pub(crate) use virtual_table::VirtualTable;

/// Quotes a name for SQLite.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a string for SQLite.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
