//! The common library of the oa programs: what two or more of them need, and nothing else. The programs share one PostgreSQL and nothing
//! more at run time.
//!
//! Layers, each of which imports only from those before it (`oa-testkit`, `tests/tidy.rs`, reads the `use` lines):
//!
//! - [`base`]: what knows nothing of the service: texts, secrets and their redaction, files, processes;
//! - [`model`]: facts without input and output: runs, outcomes, events, kinds of error;
//! - [`pg`]: connections (TLS, several hosts, timeouts), the versioned schema `oa`, quoting, upserts, what an SQLSTATE means;
//! - [`journal`]: runs, incidents, the outbox, the spool for while PostgreSQL is down, the verdict on backups;
//! - [`schedule`]: cron in a time zone, trading days and sessions;
//! - [`service`]: the data service's own tables and their natural keys;
//! - [`app`]: configuration, command line, exit codes, output.

pub mod app;
pub mod base;
#[cfg(test)]
mod fuzz;
pub mod journal;
pub mod model;
pub mod pg;
pub mod schedule;
pub mod service;
