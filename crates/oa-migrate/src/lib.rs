//! `oa-migrate`: moves a SQLite database into PostgreSQL and proves that nothing changed.
//!
//! ```text
//! inspect ─ snapshot, schema, one scan of every value
//! plan    ─ names, types that hold every value exactly, keys, indexes, constraints
//! load    ─ bad rows aside, binary COPY into a staging schema, indexes and constraints
//! proof   ─ both sides read back and compared, row by row, before anything becomes visible
//! load    ─ one transaction puts the finished tables in place
//! ```
//! Killed at any point before the last transaction, the target is as it was; the next run removes what was left in between.

pub mod base;
pub mod changes;
pub mod commands;
pub mod identity;
pub mod inspect;
pub mod jobs;
pub mod load;
pub mod migration;
pub mod plan;
pub mod proof;
pub mod state;
pub mod sync;
pub mod transfer;
pub mod values;
pub mod write_back;

/// This program's name, in the run log and in the database's list of sessions.
pub const PROGRAM: &str = "oa-migrate";
