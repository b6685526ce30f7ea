//! What a run keeps on disk, under `state_dir/migrations/RUN`: the snapshot, the bad rows, `run.json` and the report.
//!
//! `run.json` is written before the tables are put in place and says how to roll them back; that of the last run also shows later
//! commands how names were mapped. Snapshots are removed after seven days, those of runs that never came to an end at once.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use oa_core::base::state_dir::{StateDir, write_durably};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::inspect::identity::{Identity, canonical};
use crate::plan::Plan;
use crate::values::conversion::Conversion;

/// How long a snapshot is kept.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);

/// The folder of a run.
#[derive(Debug, Clone)]
pub(crate) struct RunFolder {
    pub(crate) path: PathBuf,
}

/// A run, as later commands need to know it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    pub(crate) run_id: Uuid,
    /// When it began (UTC).
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) database: PathBuf,
    pub(crate) schema: String,
    /// Zone of timestamps without an offset.
    pub(crate) timestamps_in: Option<String>,
    /// How far it came.
    pub(crate) stage: Stage,
    pub(crate) tables: Vec<TableRecord>,
    /// The id in `oa.commits` of the transaction of a sync that may or may not have been committed, see [`super::base`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pending_sync: Option<String>,
    /// The tables as they are when that transaction is committed, where they have grown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) pending_tables: Vec<TableRecord>,
    /// The database, see [`super::target::id`].
    #[serde(default)]
    pub(crate) target: Option<String>,
    /// The source as the run or its last sync read it.
    #[serde(default)]
    pub(crate) source: Option<Identity>,
    /// Files that `to-sqlite` has made of it.
    #[serde(default)]
    pub(crate) written_back: Vec<Identity>,
    /// Tables and virtual tables of the source that were skipped on purpose; older versions did not note them.
    #[serde(default)]
    pub(crate) skipped: Option<Vec<String>>,
}

/// How far a run came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    /// Proven; the tables are being put in place. Only the database knows whether they are.
    Swapping,
    /// The tables are in place.
    Done,
    RolledBack,
}

/// A table of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TableRecord {
    pub(crate) source: String,
    pub(crate) target: String,
    /// There was a table of this name before.
    pub(crate) replaced: bool,
    /// It took the rows itself; older versions replaced it by another one.
    #[serde(default)]
    pub(crate) in_place: bool,
    /// Its columns: name in SQLite, name in PostgreSQL.
    pub(crate) columns: Vec<(String, String)>,
    /// What values of columns are, by their names in SQLite, where the mapping said so.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) conversions: BTreeMap<String, Conversion>,
}

impl TableRecord {
    /// The name of a column in PostgreSQL.
    pub(crate) fn target_of(&self, source: &str) -> String {
        self.columns
            .iter()
            .find(|(s, _)| s == source)
            .map_or_else(|| source.to_ascii_lowercase(), |(_, t)| t.clone())
    }
}

impl RunFolder {
    /// Creates the folder of a run.
    pub(crate) fn create(state: &StateDir, run: Uuid) -> Result<Self> {
        let path = state.folder(&format!("migrations/{run}"))?;
        Ok(Self { path })
    }

    /// The copy of the source.
    pub(crate) fn snapshot(&self) -> PathBuf {
        self.path.join("snapshot.sqlite")
    }

    /// The file of quarantined rows.
    pub(crate) fn rejects(&self) -> PathBuf {
        self.path.join("rejects.sqlite")
    }

    /// The copy of the source that a sync is about to make the new base.
    pub(crate) fn next_snapshot(&self) -> PathBuf {
        self.path.join("next.sqlite")
    }

    /// The bad rows that belong to [`RunFolder::next_snapshot`].
    pub(crate) fn next_rejects(&self) -> PathBuf {
        self.path.join("next-rejects.sqlite")
    }

    pub(crate) fn write(&self, record: &RunRecord) -> Result<()> {
        let path = self.path.join("run.json");
        write_durably(&path, &serde_json::to_vec_pretty(record)?)
            .with_context(|| format!("could not write {}", path.display()))
    }

    /// Changes `run.json`. A record in memory may hold only a part of its tables.
    pub(crate) fn update(&self, change: impl FnOnce(&mut RunRecord)) -> Result<()> {
        let mut record = self.read()?;
        change(&mut record);
        self.write(&record)
    }

    /// The number of a sync's transaction that may have been committed.
    pub(crate) fn pending(&self) -> Result<Option<String>> {
        Ok(self.read()?.pending_sync)
    }

    fn read(&self) -> Result<RunRecord> {
        let path = self.path.join("run.json");
        let context = || format!("could not read {}", path.display());
        serde_json::from_slice(&fs::read(&path).with_context(context)?).with_context(context)
    }

    /// Removes `run.json`, for a run that changed nothing.
    pub(crate) fn forget(&self) -> Result<()> {
        let path = self.path.join("run.json");
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("could not remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Removes the folder, for a run that left nothing behind.
    pub(crate) fn remove(&self) {
        if let Err(e) = fs::remove_dir_all(&self.path) {
            tracing::warn!("could not remove {}: {e}", self.path.display());
        }
    }
}

/// All runs that came as far as `run.json`, newest first.
pub(crate) fn runs(state: &StateDir) -> Result<Vec<(RunFolder, RunRecord)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(state.folder("migrations")?)? {
        let path = entry?.path();
        if path.join("run.json").is_file() {
            let folder = RunFolder { path };
            let record = folder.read()?;
            found.push((folder, record));
        }
    }
    found.sort_by_key(|(_, r)| std::cmp::Reverse(r.run_id));
    Ok(found)
}

/// Finds out what became of runs that ended between proof and confirmation, and of rollbacks that were killed. The last
/// transaction drops the staging schema, so where `unfinished` finds one, the transaction was not committed; that of a rollback
/// creates a schema, which `rolled_back` finds. Runs that are not `here` have another database, which alone could say. Only for
/// the holder of the database's lock.
pub(crate) fn settle(
    state: &StateDir,
    here: impl Fn(Uuid) -> bool,
    unfinished: impl Fn(Uuid) -> bool,
    rolled_back: impl Fn(Uuid) -> bool,
) -> Result<()> {
    for (folder, mut record) in runs(state)? {
        if !here(record.run_id) {
            continue;
        }
        if record.stage == Stage::Done && rolled_back(record.run_id) {
            record.stage = Stage::RolledBack;
            folder.write(&record)?;
        }
        if record.stage != Stage::Swapping {
            continue;
        }
        if unfinished(record.run_id) {
            folder.remove();
        } else {
            record.stage = Stage::Done;
            folder.write(&record)?;
        }
    }
    Ok(())
}

/// Removes snapshots that are too old, and whatever runs left that died. Only for the holder of the database's lock; `own` is
/// kept.
pub(crate) fn prune(state: &StateDir, own: &Path) -> Result<()> {
    for entry in fs::read_dir(state.folder("migrations")?)? {
        let path = entry?.path();
        if path == own {
            continue;
        }
        let snapshot = path.join("snapshot.sqlite");
        let old = fs::metadata(&snapshot)
            .and_then(|m| m.modified())
            .is_ok_and(|at| {
                SystemTime::now()
                    .duration_since(at)
                    .is_ok_and(|age| age > KEEP)
            });
        let died = !path.join("report.json").exists() && !path.join("run.json").exists();
        let removed = if died {
            fs::remove_dir_all(&path)
        } else if old {
            fs::remove_file(&snapshot)
        } else {
            Ok(())
        };
        if let Err(e) = removed {
            tracing::warn!("could not remove old files in {}: {e}", path.display());
        }
    }
    Ok(())
}

/// The record of a plan that is about to be put in place.
pub(crate) fn record_of(
    plan: &Plan,
    run: Uuid,
    started_at: DateTime<Utc>,
    database: &Path,
    timestamps_in: Option<chrono_tz::Tz>,
) -> RunRecord {
    RunRecord {
        run_id: run,
        started_at,
        database: canonical(database),
        schema: plan.schema.clone(),
        timestamps_in: timestamps_in.map(|z| z.name().to_owned()),
        stage: Stage::Swapping,
        pending_sync: None,
        pending_tables: Vec::new(),
        target: None,
        source: None,
        written_back: Vec::new(),
        skipped: Some(plan.skipped.clone()),
        tables: plan
            .tables
            .iter()
            .map(|t| TableRecord {
                source: t.source.name.clone(),
                target: t.target.clone(),
                replaced: t.existing.is_some(),
                in_place: t.existing.is_some(),
                columns: t
                    .columns
                    .iter()
                    .map(|c| (c.source.clone(), c.target.clone()))
                    .collect(),
                conversions: t
                    .columns
                    .iter()
                    .filter_map(|c| Some((c.source.clone(), c.conversion?)))
                    .collect(),
            })
            .collect(),
    }
}
