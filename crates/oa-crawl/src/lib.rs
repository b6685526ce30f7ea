//! `oa-crawl`: runs sources. Fetch, archive what came, extract, validate, store, with retries and a complete run log.
//!
//! A source is one TOML file ([`source`]). A try ([`collect`]) fetches ([`fetch`]), keeps every answer in the raw archive
//! ([`archive`]) before anything else is made of it, takes records out ([`extract`]), and turns them into typed rows or rejects
//! ([`validate`]). The wrapper
//! ([`wrapper`]) repeats tries as the policy says ([`oa_core::journal::attempts`]) and hands the outcome to the run log, in one transaction with the
//! rows. A program that stores its own data is wrapped the same way ([`exec`]).

pub mod archive;
pub mod collect;
pub mod commands;
pub mod environment;
pub mod exec;
pub mod extract;
pub mod fetch;
pub mod records;
pub mod source;
pub mod validate;
pub mod verdict;
pub mod wrapper;

/// This program's name, in the run log and in the database's list of sessions.
pub const PROGRAM: &str = "oa-crawl";
