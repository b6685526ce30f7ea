//! `oa-backup`: backups of PostgreSQL and of files, verified when they are made.
//!
//! ```text
//! capture    ─ PostgreSQL's own programs take the data: pg_basebackup, pg_receivewal, pg_dump
//! retain     ─ what is kept, and what may go
//! backup     ─ the order of it all: capture, check, store, record
//! ```
//! The repository itself is [`oa_repository`], which `oa-restore` reads.

pub mod backup;
pub mod capture;
pub mod catalog;
pub mod commands;
pub mod retain;

/// This program's name, in the run log and in the database's list of sessions.
pub const PROGRAM: &str = "oa-backup";
