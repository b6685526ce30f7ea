//! One file a command.

pub mod cluster;
pub mod database;
pub mod drill;
pub mod files;
pub mod plan;
pub mod table;
mod target_dir;

/// Stands in a target directory while it is being filled, and says by what.
pub const MARKER: &str = ".oa-restore";
