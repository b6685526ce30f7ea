//! `oa-restore`: what `oa-backup` has stored, as it was at any moment.
//!
//! ```text
//! options  ─ what several commands take on their command lines
//! target   ─ the moment that is meant: a time, a place in the log, a named point, a backup, the latest
//! choose   ─ the backups and the log that lead there, or why nothing does
//! recover  ─ files from the repository, settings, a private server that recovers and ends with this process
//! live     ─ the server that goes on working, and what is brought back into it
//! commands ─ plan, cluster, database, table, files, drill
//! ```
//! Nothing that exists is overwritten: it is moved aside, and only after a confirmation.

pub mod choose;
pub mod commands;
pub mod content;
mod error;
pub mod live;
pub mod options;
pub mod recover;
pub mod session;
pub mod target;

pub use error::RestoreError;

/// This program's name, in the run log and in the database's list of sessions.
pub const PROGRAM: &str = "oa-restore";
