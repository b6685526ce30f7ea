//! One file a command.

pub mod check_export;
pub mod dedupe;
pub mod export;
pub mod import;
pub mod init;
pub mod plan;
pub mod rollback;
pub mod run;
pub mod status;
pub mod sync;
pub mod to_sqlite;
pub mod verify;
