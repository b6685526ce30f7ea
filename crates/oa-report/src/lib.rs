//! `oa-report`: what ran and what came of it, for people.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod api;
pub mod commands;
pub mod daily;
pub mod metrics;
pub mod pool;
pub mod queries;
pub mod server;
pub mod snapshot;
pub mod web;
pub mod when;

/// This program's name.
pub const PROGRAM: &str = "oa-report";
