//! One file a command.

pub mod copy;
pub mod init;
pub mod list;
pub mod prune;
pub mod repair;
pub mod status;
pub mod take;
pub mod verify;
