//! The common library of the oa programs: what two or more of them need, and nothing else.
//!
//! The programs share one PostgreSQL and nothing more at run time. This crate holds the ideas they have in common:
//!
//! - [`config`] and [`secrets`]: one TOML file, secrets by reference only, redaction of whatever is printed;
//! - [`pg`]: connections (TLS, several hosts, timeouts), the versioned schema `oa`, quoting, upserts;
//! - [`runs`]: the run log: a row before the work starts, a final state in the same transaction as the data;
//! - [`spool`]: the local queue that takes outcomes, data and alerts while PostgreSQL is away;
//! - [`model`]: the facts, and the events that people hear of;
//! - [`journal`]: incidents, and the outbox that programs put alerts in (delivery is `oa-alert`'s work);
//! - [`schedule`]: cron in a time zone, trading days and sessions;
//! - [`retry`]: what kinds of error there are and which of them are worth another try;
//! - [`supervise`]: child processes, stop signals, process identity;
//! - [`service`]: the data service's own tables and their natural keys;
//! - [`text`]: texts of others, before they are stored or shown;
//! - [`exact`]: JSON with all digits of its numbers;
//! - [`cli`], [`exit`], [`output`], [`logging`]: what makes six programs feel like one.

pub mod cli;
pub mod config;
pub mod exact;
pub mod exit;
pub mod failpoint;
pub mod flush;
pub mod journal;
pub mod logging;
pub mod model;
pub mod output;
pub mod pg;
pub mod retry;
pub mod runs;
pub mod schedule;
pub mod secrets;
pub mod service;
pub mod spool;
pub mod state_dir;
pub mod supervise;
pub mod text;
pub mod trust;
