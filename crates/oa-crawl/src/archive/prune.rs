//! Removes answers from the archive once they need not be kept any longer: first from the index, then the files.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use postgres::{Client, Transaction};

use super::{Archive, KeptFile};

/// Younger files stay whatever the index says: the run that received them may not be in it yet.
const YOUNG: Duration = Duration::from_secs(7 * 24 * 3600);
const BATCH: usize = 10_000;

/// What was removed, or would be.
#[derive(Debug, Default)]
pub(crate) struct Pruned {
    pub(crate) answers: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) left_files: u64,
    pub(crate) left_bytes: u64,
    /// Months of `oa.revisions`.
    pub(crate) revisions: Vec<String>,
    /// Closed slots.
    pub(crate) slots: u64,
    /// Requests that have ended, and links of messages that were used.
    pub(crate) requests: u64,
}

pub(crate) struct Rules {
    /// How long revisions are kept; without it, for ever.
    revisions: Option<Duration>,
    default: DateTime<Utc>,
    /// By task, where its source file says it.
    own: Vec<(String, DateTime<Utc>)>,
}

impl Rules {
    pub(crate) fn new(
        default: Duration,
        own: impl Iterator<Item = (String, Duration)>,
        revisions: Option<Duration>,
    ) -> Self {
        let before = |keep: Duration| Utc::now() - keep;
        Self {
            revisions,
            default: before(default),
            own: own.map(|(task, keep)| (task, before(keep))).collect(),
        }
    }
}

/// With `remove`, removes the index of what is too old, and then the files that nothing refers to any more. In this order: killed
/// between the two, files without an index stay, and the next time removes them.
pub(crate) fn prune(
    client: &mut Client,
    archive: &Archive,
    rules: &Rules,
    remove: bool,
) -> anyhow::Result<Pruned> {
    let mut pruned = Pruned::default();
    let mut tx = client.transaction()?;
    // The first time after years may take long; nothing waits for these rows.
    tx.batch_execute("SET LOCAL statement_timeout = 0")?;
    pruned.answers = forget(&mut tx, rules)?;
    let slots = tx.query_one("SELECT oa.prune_slots($1)", &[&rules.default])?;
    pruned.slots = slots.get::<_, i64>(0).unsigned_abs();
    let requests = tx.query_one("SELECT oa.prune_answers($1)", &[&rules.default])?;
    pruned.requests = requests.get::<_, i64>(0).unsigned_abs();
    let mut unused = Vec::new();
    let mut candidates = Vec::new();
    for file in archive.files()? {
        let file = file?;
        pruned.left_files += 1;
        pruned.left_bytes += file.bytes;
        if is_old(&file) {
            candidates.push(file);
        }
        if candidates.len() == BATCH {
            unused.extend(without_use(&mut tx, &mut candidates)?);
        }
    }
    unused.extend(without_use(&mut tx, &mut candidates)?);
    if remove {
        tx.commit()?;
    } else {
        tx.rollback()?;
    }
    for file in unused {
        if !remove || archive.remove_unless(&file, |now| !is_old(now))? {
            pruned.files += 1;
            pruned.bytes += file.bytes;
        }
    }
    if let Some(keep) = rules.revisions {
        pruned.revisions = forget_revisions(client, keep, remove)?;
    }
    pruned.left_files -= pruned.files;
    pruned.left_bytes -= pruned.bytes;
    Ok(pruned)
}

fn is_old(file: &KeptFile) -> bool {
    SystemTime::now()
        .duration_since(file.modified)
        .is_ok_and(|age| age > YOUNG)
}

/// Last, and for itself: whoever stores rows waits for it.
fn forget_revisions(
    client: &mut Client,
    keep: Duration,
    remove: bool,
) -> Result<Vec<String>, postgres::Error> {
    let mut tx = client.transaction()?;
    let months = tx.query(
        "SELECT oa.prune_revisions(now() - make_interval(secs => $1))",
        &[&keep.as_secs_f64()],
    )?;
    if remove {
        tx.commit()?;
    } else {
        tx.rollback()?;
    }
    Ok(months.iter().map(|row| row.get(0)).collect())
}

fn forget(tx: &mut Transaction<'_>, rules: &Rules) -> Result<u64, postgres::Error> {
    let names: Vec<&str> = rules.own.iter().map(|(task, _)| task.as_str()).collect();
    let mut forgotten = tx.execute(
        "DELETE FROM oa.raw w WHERE w.run_id < oa.uuid_floor($1)
           AND NOT EXISTS (SELECT FROM oa.runs r WHERE r.id = w.run_id AND r.task = ANY($2))",
        &[&rules.default, &names],
    )?;
    for (task, before) in &rules.own {
        forgotten += tx.execute(
            "DELETE FROM oa.raw w USING oa.runs r WHERE r.id = w.run_id AND r.task = $2 AND w.run_id < oa.uuid_floor($1)",
            &[before, task],
        )?;
    }
    Ok(forgotten)
}

/// Those of the files that no answer in the index refers to.
fn without_use(
    tx: &mut Transaction<'_>,
    files: &mut Vec<KeptFile>,
) -> Result<Vec<KeptFile>, postgres::Error> {
    let names: Vec<&str> = files.iter().map(|f| f.sha256.as_str()).collect();
    let rows = tx.query(
        "SELECT n FROM unnest($1::text[]) n WHERE EXISTS (SELECT FROM oa.raw w WHERE w.sha256 = n)",
        &[&names],
    )?;
    let used: HashSet<String> = rows.iter().map(|r| r.get(0)).collect();
    let mut unused = std::mem::take(files);
    unused.retain(|f| !used.contains(&f.sha256));
    Ok(unused)
}
