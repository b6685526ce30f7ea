//! Backups that are late, unverified, missing or were never restored in a drill, and a repository that fills.
//!
//! Only of the repository that is configured here: the verdict is [`catalog`]'s. What a failed run of `oa-backup` or `oa-restore` would
//! report is left to these rules where they see it too (`reported_by_check`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use oa_core::app::config::{Backup, Config};
use oa_core::base::state_dir::{StateDir, write_durably};
use oa_core::base::supervise::ProcessId;
use oa_core::journal::catalog::{self, Facts, Limits};
use oa_core::model::event::Finding;
use postgres::Client;

pub(super) fn find(
    client: &mut Client,
    state: &StateDir,
    config: &Config,
) -> Result<Vec<Finding>, postgres::Error> {
    let (Some(backup), Some(limits)) = (config.backup.as_ref(), Limits::from_config(config)) else {
        return Ok(Vec::new());
    };
    let repository = backup.repository_name();
    let since = note_configured(state, &repository);
    let mut facts = catalog::facts(client, &repository)?;
    find_gone(client, &backup.repository, &mut facts)?;
    let mut found = facts.assess(&limits);
    // The first one is due as often as a full one: counted from when the repository was configured, by this machine's clock.
    let is_due =
        since > Utc::now() || (Utc::now() - since).to_std().unwrap_or_default() > limits.full_every;
    found.retain(|f| is_due || !matches!(f, Finding::BackupAbsent { .. }));
    for finding in &mut found {
        if let Finding::BackupAbsent { configured_at, .. } = finding {
            *configured_at = Some(since);
        }
    }
    Ok(found)
}

/// The repositories that this machine has had in its configuration, and since when: that of now, and until the next check has
/// resolved its incidents, the one before.
pub(super) fn configured(state: &StateDir) -> BTreeMap<String, DateTime<Utc>> {
    let text = fs::read(path(state)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Since when this machine knows that the repository is configured.
fn note_configured(state: &StateDir, repository: &str) -> DateTime<Utc> {
    let mut since = configured(state);
    if let Some(known) = since.get(repository) {
        return *known;
    }
    let now = Utc::now();
    since.insert(repository.to_owned(), now);
    note(state, &since);
    now
}

/// What is configured no more is looked at no more. Another machine may still have it.
pub(super) fn forget_former(state: &StateDir, config: &Config) {
    let now = config.backup.as_ref().map(Backup::repository_name);
    let mut since = configured(state);
    let known = since.len();
    since.retain(|repository, _| Some(repository) == now.as_ref());
    if since.len() < known {
        note(state, &since);
    }
}

fn note(state: &StateDir, since: &BTreeMap<String, DateTime<Utc>>) {
    let path = path(state);
    let noted = serde_json::to_vec(since)
        .map_err(std::io::Error::from)
        .and_then(|text| write_durably(&path, &text));
    if let Err(e) = noted {
        tracing::warn!(
            "could not note which repository is configured in {}: {e}",
            path.display()
        );
    }
}

fn path(state: &StateDir) -> PathBuf {
    state.path().join("backup-since.json")
}

/// Adds the backups of this machine whose snapshots are gone from a repository on its disks, before `oa-backup` has noticed it. `location` is
/// where it is; its name in the records lacks what looks like a secret.
fn find_gone(
    client: &mut Client,
    location: &str,
    facts: &mut Facts,
) -> Result<(), postgres::Error> {
    const STANDING: &str = "SELECT id, kind, level, restorable_to FROM oa.backups
        WHERE repository = $1 AND host = $2 AND removed_at IS NULL AND missing_since IS NULL ORDER BY finished_at DESC";
    let host = ProcessId::current().host;
    let ids = |rows: &[postgres::Row]| -> Vec<String> {
        let ids = rows.iter().map(|r| r.get::<_, String>(0));
        ids.filter(|id| is_gone(location, id)).collect()
    };
    let before = ids(&client.query(STANDING, &[&facts.repository, &host])?);
    if before.is_empty() {
        return Ok(());
    }
    // What a prune removes was recorded as removed before.
    let rows = client.query(STANDING, &[&facts.repository, &host])?;
    let mut gone = Vec::new();
    for row in &rows {
        let id: String = row.get(0);
        if before.contains(&id) {
            let named = catalog::named(&id, row.get(1), row.get(2), row.get(3));
            facts.stranded.retain(|s| s.short_id != named.short_id);
            gone.push(named);
        }
    }
    facts.gone.extend(gone);
    Ok(())
}

/// Whether a backup's snapshot is not in a repository on this machine's disks. What cannot be looked at is not known to be gone.
fn is_gone(repository: &str, id: &str) -> bool {
    let is_id = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if repository.contains("://") || !is_id {
        return false;
    }
    let snapshot = Path::new(repository).join("snapshots").join(id);
    matches!(snapshot.symlink_metadata(), Err(e) if e.kind() == std::io::ErrorKind::NotFound)
}
