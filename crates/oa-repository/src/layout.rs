//! Where things are in a backup, and in the staging folder before that.

/// The cluster's files in the staging folder, and in the backup.
pub const DATA: &str = "data";
/// The tablespaces', one folder each, named by their number.
pub const TABLESPACES: &str = "tablespaces";
/// The dump in the staging folder, and in the backup.
pub const DUMP: &str = "dump";
/// The roles and tablespaces.
pub const GLOBALS: &str = "globals.sql";
