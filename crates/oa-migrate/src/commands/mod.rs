//! One file a command.

pub mod dedupe;
pub mod init;
pub mod plan;
pub mod rollback;
pub mod run;
pub mod status;
pub mod sync;
pub mod to_sqlite;
pub mod verify;
