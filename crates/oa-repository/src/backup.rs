//! A backup as it is listed: a snapshot with our tag, which describes itself ([`Meta`]).

use std::time::SystemTime;

use chrono::{DateTime, SubsecRound, Utc};
use rustic_core::jiff;
use rustic_core::repofile::SnapshotFile;

use crate::Meta;

/// Tag of every snapshot of ours.
pub(crate) const TAG: &str = "oa";

/// A backup that is in a repository.
#[derive(Debug, Clone)]
pub struct Backup {
    /// The snapshot's id, 64 hexadecimal digits.
    pub id: String,
    /// What it is.
    pub meta: Meta,
    pub(crate) snapshot: SnapshotFile,
}

impl Backup {
    /// One that is in no repository, for tests of what decides over backups.
    #[doc(hidden)]
    #[must_use]
    pub fn for_tests(id: String, meta: Meta) -> Self {
        Self {
            id,
            meta,
            snapshot: SnapshotFile::default(),
        }
    }

    /// When all of it was in the repository (UTC), by the server's clock; of a backup of an earlier version by the clock of the machine
    /// that made it.
    #[must_use]
    pub fn finished_at(&self) -> DateTime<Utc> {
        if let Some(at) = self.meta.finished_at {
            return at;
        }
        let summary = self.snapshot.summary.as_ref();
        summary.map_or(self.meta.captured_at, |s| utc(&s.backup_end))
    }

    /// The first digits of the id, as they are shown.
    #[must_use]
    pub fn short_id(&self) -> &str {
        self.id.get(..8).unwrap_or(&self.id)
    }
}

/// The backups among snapshots, oldest first.
pub(crate) fn listed(mut snapshots: Vec<SnapshotFile>) -> Vec<Backup> {
    snapshots.sort_by(|a, b| a.time.cmp(&b.time));
    snapshots
        .into_iter()
        .filter(|s| s.tags.contains(TAG))
        .filter_map(|snapshot| {
            let meta = Meta::from_text(snapshot.description.as_deref()?)?;
            Some(Backup {
                id: snapshot.id.to_hex().to_string(),
                meta,
                snapshot,
            })
        })
        .collect()
}

/// A time of the engine's.
pub(crate) fn utc(at: &jiff::Zoned) -> DateTime<Utc> {
    DateTime::<Utc>::from(SystemTime::from(at.timestamp())).trunc_subsecs(6)
}
