//! One file a command.

pub mod check;
pub mod drain;
pub mod list;
pub mod run;
