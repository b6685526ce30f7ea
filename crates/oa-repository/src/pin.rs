//! Backups that are kept whatever retention says, each with a reason. A pin is a snapshot of its own beside the backup's, with the same
//! tree and without our tag: so the backup's id does not change, a stock `restic` sees what holds the data, and the repository knows it
//! without the database.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rustic_core::repofile::SnapshotFile;
use serde::{Deserialize, Serialize};

use crate::engine::one_line;
use crate::{Backup, Repository, RepositoryError};

/// Tag and label of a pin. The label must not begin as those of backups do, see [`crate::Meta::label`].
const TAG: &str = "oa-pin";

/// Why a backup is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The backup's id.
    pub backup: String,
    /// Why.
    pub reason: String,
    /// Since when (UTC).
    pub at: DateTime<Utc>,
}

impl Repository {
    /// What is pinned, by the backup's id.
    pub fn pins(&self) -> Result<BTreeMap<String, Pin>, RepositoryError> {
        let pins = self.pin_snapshots()?.into_iter();
        Ok(pins.map(|(_, pin)| (pin.backup.clone(), pin)).collect())
    }

    /// Pins a backup. A former pin of it is replaced once the new one is there.
    pub fn pin(&self, backup: &Backup, reason: &str) -> Result<(), RepositoryError> {
        let former = self.pin_snapshots()?;
        let pin = Pin {
            backup: backup.id.clone(),
            reason: reason.to_owned(),
            at: Utc::now(),
        };
        let described = TAG
            .parse()
            .map_err(|e| one_line(&format!("{e}")))
            .and_then(|tags| {
                let text = serde_json::to_string(&pin).map_err(|e| e.to_string())?;
                Ok((tags, text))
            });
        let (tags, text) = described.map_err(|reason| RepositoryError::Engine {
            doing: "pin the backup",
            place: self.location.shown(),
            reason,
            system: None,
        })?;
        let mut snapshot = backup.snapshot.clone();
        snapshot.set_tags(vec![tags]);
        TAG.clone_into(&mut snapshot.label);
        snapshot.description = Some(text);
        self.engine
            .save_snapshots(vec![snapshot])
            .map_err(self.failed("pin the backup"))?;
        self.remove_pins(&former, &backup.id)
    }

    /// Lets a backup go when retention does.
    pub fn unpin(&self, id: &str) -> Result<(), RepositoryError> {
        self.remove_pins(&self.pin_snapshots()?, id)
    }

    fn remove_pins(&self, pins: &[(SnapshotFile, Pin)], id: &str) -> Result<(), RepositoryError> {
        let of_it = pins.iter().filter(|(_, pin)| pin.backup == id);
        let ids: Vec<_> = of_it.map(|(snapshot, _)| snapshot.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        self.engine
            .delete_snapshots(&ids)
            .map_err(self.failed("unpin the backup"))
    }

    fn pin_snapshots(&self) -> Result<Vec<(SnapshotFile, Pin)>, RepositoryError> {
        let snapshots = self
            .engine
            .get_all_snapshots()
            .map_err(self.failed("list what is pinned"))?;
        let read = |snapshot: SnapshotFile| {
            let pin = serde_json::from_str(snapshot.description.as_deref()?).ok()?;
            Some((snapshot, pin))
        };
        let pins = snapshots.into_iter().filter(|s| s.tags.contains(TAG));
        Ok(pins.filter_map(read).collect())
    }
}
