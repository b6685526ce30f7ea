//! Exit codes, the same for every program. Scripts rely on them; a number never changes its meaning.

/// The work was done.
pub const OK: u8 = 0;
/// The work failed; what failed is in the run log and on stderr.
pub const FAILED: u8 = 1;
/// The command line was wrong.
pub const USAGE: u8 = 2;
/// What a command was asked to look for with `--fail-on` is there: a warning, or a day that is not complete.
pub const FOUND_WARNING: u8 = 10;
/// The same, and it is critical.
pub const FOUND_CRITICAL: u8 = 20;
/// PostgreSQL could not be reached; where there was an outcome, it waits in the local spool.
pub const UNREACHABLE: u8 = 75;
/// Refused: permission, a lock held by somebody else, or a confirmation that was not given.
pub const REFUSED: u8 = 77;
/// The configuration, or the database's schema version, does not fit this program.
pub const CONFIG: u8 = 78;

/// The table shown under every program's `--help` and in its man page.
pub const HELP: &str = "\
Exit codes:
  0   done
  1   the work failed
  2   wrong usage
  10  oa-report --fail-on found a warning, or a day that is not complete
  20  oa-report --fail-on found something critical
  75  PostgreSQL could not be reached (what was collected is in the local spool)
  77  refused: permission, lock, or missing confirmation
  78  configuration or schema version does not fit";
