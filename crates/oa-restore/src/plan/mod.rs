//! Which backups and which WAL lead to a recovery target, or why none do. Whatever is missing is found here, before anything is restored.

mod physical;
mod planner;
mod restore_point;
mod segments;
pub(crate) mod target;

use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use oa_repository::{Backup, Lsn};

pub(crate) use self::planner::{Planner, clock, files};
use self::target::Target;

/// Where a recovery ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StopAt {
    /// With everything that was fetched.
    EndOfWal,
    /// As soon as the full backup is consistent.
    Consistent,
    /// With what was committed at this time or before.
    Time(DateTime<Utc>),
    Lsn(Lsn),
}

/// A file of the WAL to fetch.
#[derive(Debug, Clone)]
pub(crate) struct WalFile {
    /// Index into [`Physical::sources`].
    pub(crate) source: usize,
    /// Its name there.
    pub(crate) stored: String,
    /// Its name in `pg_wal`.
    pub(crate) name: String,
}

/// A full physical backup, and the WAL from it to the target.
#[derive(Debug, Clone)]
pub(crate) struct Physical {
    pub(crate) full: Backup,
    /// The backups that the WAL is fetched from.
    pub(crate) sources: Vec<Backup>,
    pub(crate) wal: Vec<WalFile>,
    pub(crate) segment_bytes: u64,
    pub(crate) end: StopAt,
    /// Recovery must come this far at least.
    pub(crate) reaches: Lsn,
    /// The timeline to follow; `None`: the full backup's own.
    pub(crate) timeline: Option<u32>,
    /// The folder with the programs of its major version.
    pub(crate) programs: PathBuf,
}

impl Physical {
    /// Bytes that are written: the cluster, its WAL, and what replaying that adds to the cluster.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.full.meta.stored.size_bytes + 2 * self.wal.len() as u64 * self.segment_bytes
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Logical {
    pub(crate) backup: Backup,
    /// The folder with programs that can read it.
    pub(crate) programs: PathBuf,
}

#[derive(Debug, Clone)]
pub(crate) enum Strategy {
    /// Exactly.
    Physical(Box<Physical>),
    /// As far as there was a dump.
    Logical(Box<Logical>),
}

#[derive(Debug, Clone)]
pub(crate) struct RestorePlan {
    pub(crate) target: Target,
    pub(crate) strategy: Strategy,
    /// The point in time that is restored (UTC); for an LSN or a named point no later than this.
    pub(crate) as_of: DateTime<Utc>,
    /// How much earlier that is than the target.
    pub(crate) behind: Option<TimeDelta>,
    /// For the operator.
    pub(crate) notes: Vec<String>,
}

impl RestorePlan {
    /// The backup that everything begins with.
    pub(crate) fn backup(&self) -> &Backup {
        match &self.strategy {
            Strategy::Physical(p) => &p.full,
            Strategy::Logical(l) => &l.backup,
        }
    }

    pub(crate) fn programs(&self) -> &Path {
        match &self.strategy {
            Strategy::Physical(p) => &p.programs,
            Strategy::Logical(l) => &l.programs,
        }
    }

    /// Bytes that are written for it.
    pub(crate) fn size_bytes(&self) -> u64 {
        match &self.strategy {
            Strategy::Physical(p) => p.size_bytes(),
            // A database takes more room than its dump: indexes.
            Strategy::Logical(l) => l.backup.meta.stored.size_bytes * 3,
        }
    }
}
