//! `oa-report`: what ran and what came of it, for people.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod commands;
pub mod daily;

/// This program's name.
pub const PROGRAM: &str = "oa-report";
