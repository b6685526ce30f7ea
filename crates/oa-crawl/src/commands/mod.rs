//! One file a command.

pub mod backfill;
mod broken;
pub mod check;
pub mod cookies;
pub mod crontab;
pub mod drain;
mod due;
pub mod exec;
pub mod export;
pub mod list;
pub mod prune;
pub mod replay;
pub mod report;
pub mod run;
pub mod try_source;
