//! `oa-backup`: backups of PostgreSQL and of files, verified when they are made.
//!
//! ```text
//! capture    ─ PostgreSQL's own programs take the data: pg_basebackup, pg_receivewal, pg_dump
//! repository ─ restic's format through rustic_core: encrypted, deduplicated, listed only when complete
//! retain     ─ what is kept, and what may go
//! backup     ─ the order of it all: capture, check, store, record
//! ```
//! The library is also `oa-restore`'s, which reads what this one writes.

pub mod backup;
pub mod capture;
pub mod catalog;
pub mod commands;
pub mod progress;
pub mod repository;
pub mod retain;
pub mod timeline;

/// This program's name, in the run log and in the database's list of sessions.
pub const PROGRAM: &str = "oa-backup";
