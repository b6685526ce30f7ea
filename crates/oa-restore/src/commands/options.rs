//! Options that several commands take.

use clap::{Args, ValueEnum};
use oa_core::app::config::BackupKind;
use oa_core::app::output::Format;
use oa_repository::ProgressReporter;
use oa_repository::progress;

/// The recovery target, and out of which backups.
#[derive(Debug, Clone, Args)]
pub(crate) struct TargetArgs {
    /// The recovery target: a time, "10 min ago", name:POINT, an LSN, a backup's id, or latest
    #[arg(
        long,
        value_name = "TARGET",
        long_help = "The recovery target:\n  \"2026-11-23 14:05\"          a time in the configured time zone, or with its own\n  2026-11-23T14:05:00+08:00   the same in RFC 3339\n  \"10 min ago\", \"2h ago\"      that long before now\n  now, \"yesterday 14:00\"      and 今天, 昨天, \"10分钟前\"\n  name:POINT                  the newest of pg_create_restore_point\n  16/B374D848                 an LSN: what was written before it\n  3f2a9c81                    what that backup holds\n  latest                      everything that is backed up"
    )]
    pub(crate) to: String,
    /// Restore from the secondary repository, [backup.copy]
    #[arg(long)]
    pub(crate) from_copy: bool,
    /// Which kind of backup to restore from
    #[arg(long, value_enum, default_value_t)]
    pub(crate) kind: Kind,
    /// Use the backups of the cluster with this system id [default: the live server's, or this service's]
    #[arg(long, value_name = "ID")]
    pub(crate) system: Option<String>,
    /// Begin with the full physical backup whose id starts with this [default: the newest whole one that leads there]
    #[arg(long, value_name = "ID")]
    pub(crate) full: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Kind {
    /// Physical if it reaches the target, else the newest dump before it
    #[default]
    Auto,
    /// From the cluster's files and WAL, exactly to the target
    Physical,
    /// From a dump
    Logical,
}

impl From<Kind> for BackupKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Auto => Self::Auto,
            Kind::Physical => Self::Physical,
            Kind::Logical => Self::Logical,
        }
    }
}

/// Options of every command that changes something.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// Do not ask for confirmation
    #[arg(long)]
    pub(crate) yes: bool,
    /// Only print what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

impl RunArgs {
    /// Progress bars; none where the output is for programs.
    pub(crate) fn bars(&self, quiet: bool) -> ProgressReporter {
        progress::bars(quiet || self.format != Format::Table)
    }
}
