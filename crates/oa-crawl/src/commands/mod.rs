//! One file a command.

pub mod check;
pub mod drain;
mod due;
pub mod exec;
pub mod list;
pub mod report;
pub mod run;
