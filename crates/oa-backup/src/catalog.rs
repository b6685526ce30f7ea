//! What `oa.backups` and `oa.repositories` say. The repository is the truth; rows follow it.

use std::collections::BTreeMap;

use chrono::Utc;
use oa_core::pg::upsert::Batch;
use postgres::GenericClient;
use serde_json::{Value, json};

use crate::repository::{Backup, Damage, Place};

/// How much of a backup was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// Everything it needs is there.
    Structure,
    /// Every byte was read back.
    Data,
}

impl Checked {
    fn as_str(self) -> &'static str {
        match self {
            Self::Structure => "structure",
            Self::Data => "data",
        }
    }
}

/// The rows of backups, for storing together with an outcome.
#[must_use]
pub fn rows(place: &Place, backups: &[Backup]) -> Batch {
    let columns = [
        "id",
        "run_id",
        "repository",
        "kind",
        "level",
        "parent_id",
        "host",
        "database",
        "server_version",
        "system_id",
        "timeline",
        "start_lsn",
        "end_lsn",
        "restorable_from",
        "restorable_to",
        "started_at",
        "finished_at",
        "files",
        "size_bytes",
        "added_bytes",
        "tables",
        "removed_at",
    ];
    let row = |b: &Backup| -> Vec<Value> {
        let m = &b.meta;
        let (start, end) = match &m.wal {
            Some(wal) => (Some(wal.from), Some(wal.to)),
            None => (m.start_lsn, m.end_lsn),
        };
        vec![
            json!(b.id),
            json!(m.run_id),
            json!(place.shown()),
            json!(m.kind),
            json!(m.level),
            json!(m.full),
            json!(m.host),
            json!(m.database),
            json!(m.server_version),
            json!(m.system_id),
            json!(m.timeline),
            json!(start),
            json!(end),
            json!(m.restorable_from),
            json!(m.restorable_to),
            json!(m.started_at),
            json!(b.finished_at()),
            json!(m.stored.files),
            json!(m.stored.size_bytes),
            json!(m.stored.added_bytes),
            m.mark
                .as_ref()
                .map_or_else(|| json!({}), |mark| json!(mark.tables)),
            // One that is listed is there, whatever a process said that had looked a moment earlier.
            Value::Null,
        ]
    };
    batch(
        "backups",
        &columns,
        &["id"],
        backups.iter().map(row).collect(),
    )
}

/// The row of a repository's size.
#[must_use]
pub fn size(place: &Place, size_bytes: u64, backups: usize) -> Batch {
    let free = place
        .folder()
        .and_then(|folder| rustix::fs::statvfs(folder).ok());
    let free = free.map(|disk| disk.f_bavail * disk.f_frsize);
    let row = vec![
        json!(place.shown()),
        json!(Utc::now()),
        json!(size_bytes),
        json!(backups),
        json!(free),
    ];
    let columns = [
        "repository",
        "measured_at",
        "size_bytes",
        "backups",
        "free_bytes",
    ];
    batch(
        "repositories",
        &columns,
        &["repository", "measured_at"],
        vec![row],
    )
}

fn batch(table: &str, columns: &[&str], key: &[&str], rows: Vec<Vec<Value>>) -> Batch {
    let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    Batch {
        schema: "oa".to_owned(),
        table: table.to_owned(),
        columns: owned(columns),
        key: owned(key),
        rows,
        collected_at: Utc::now(),
        timezone: "UTC".to_owned(),
    }
}

/// Marks the rows of backups that are no longer in the repository.
///
/// # Errors
/// When PostgreSQL fails.
pub fn mark_removed(
    client: &mut impl GenericClient,
    place: &Place,
    there: &[Backup],
) -> Result<u64, postgres::Error> {
    let ids: Vec<&str> = there.iter().map(|b| b.id.as_str()).collect();
    client.execute(
        "UPDATE oa.backups SET removed_at = now() WHERE repository = $1 AND removed_at IS NULL AND id <> ALL($2)",
        &[&place.shown(), &ids],
    )
}

/// Records what a verification found: of `backups`, which were checked, and of others that it came across, such as those whose
/// snapshots cannot be read. Only reading every byte shows that what it has found before is over, and a check of the structure
/// without findings does not undo that every byte was read.
///
/// # Errors
/// When PostgreSQL fails.
pub fn mark_checked(
    client: &mut impl GenericClient,
    backups: &[Backup],
    damages: &[Damage],
    checked: Checked,
) -> Result<(), postgres::Error> {
    let mut found: BTreeMap<&str, Vec<&str>> =
        backups.iter().map(|b| (b.id.as_str(), vec![])).collect();
    for damage in damages {
        if let Some(id) = &damage.backup {
            found.entry(id).or_default().push(&damage.what);
        }
    }
    for (id, wrong) in found {
        let error = (!wrong.is_empty()).then(|| wrong.join("; "));
        client.execute(
            "UPDATE oa.backups SET check_error = $3, checked_at = now(),
                    checked = CASE WHEN checked = 'data' AND check_error IS NOT NULL THEN checked ELSE $2 END
             WHERE id = $1 AND NOT (checked = 'data' AND $2 = 'structure' AND $3::text IS NULL)",
            &[&id, &checked.as_str(), &error],
        )?;
    }
    Ok(())
}
