//! One file a command.

pub mod daily;
