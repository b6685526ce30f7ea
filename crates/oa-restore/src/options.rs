//! Options that several commands take.

use clap::{Args, ValueEnum};
use oa_core::app::config::BackupKind;
use oa_core::app::output::Format;

/// Which moment, and out of which backups.
#[derive(Debug, Clone, Args)]
pub struct Asked {
    /// The moment: a time, "2h ago", name:POINT, a place in the log, a backup's id, or latest
    #[arg(
        long,
        value_name = "MOMENT",
        long_help = "The moment that is restored:\n  \"2026-11-23 14:05\"          a time in the zone of the configuration; seconds and a zone may follow\n  2026-11-23T14:05:00+08:00   the same in RFC 3339\n  \"2h ago\"                    that long before now\n  name:POINT                  a point made with pg_create_restore_point; the newest of that name\n  16/B374D848                 a place in the log: what was written before it\n  3f2a9c81                    what that backup holds\n  latest                      everything that is backed up"
    )]
    pub to: String,
    /// Out of the second repository, of [backup.copy]
    #[arg(long)]
    pub from_copy: bool,
    /// From which kind of backup
    #[arg(long, value_enum, default_value_t)]
    pub kind: Kind,
    /// From the backups of this cluster, by its system id [default: the live server's; where there is none, any]
    #[arg(long, value_name = "ID")]
    pub system: Option<String>,
}

/// `--kind`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Kind {
    /// Physical where that leads there, else the newest dump before
    #[default]
    Auto,
    /// From the cluster's files and its log: exactly
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

/// How a command that does something goes about it.
#[derive(Debug, Clone, Args)]
pub struct Manner {
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}
