//! What `oa.backups` and `oa.repositories` say. The repository is the truth about what can be restored; the rows know what should
//! be there. Only what these programs remove themselves is recorded as removed, and before it is: whatever else is not there any
//! more is missing.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use oa_core::journal::catalog::own_clusters;
use oa_core::model::run::Batch;
use postgres::GenericClient;
use serde_json::{Value, json};

use oa_repository::{Backup, Damage, RepositoryLocation};

/// How much of a backup was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checked {
    Structure,
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

/// The clusters whose backups this run log is about: its own database's, and those of which its runs have made some. Other services may use
/// the same repository; their backups are neither recorded, nor missing, nor removed here.
#[derive(Debug, Clone)]
pub(crate) struct OwnClusters(BTreeSet<String>);

impl OwnClusters {
    pub(crate) fn ask(client: &mut impl GenericClient) -> Result<Self, postgres::Error> {
        own_clusters(client).map(Self)
    }

    /// And those of what was just made, which is on no record yet.
    pub(crate) fn with(mut self, made: &[Backup]) -> Self {
        self.0.extend(made.iter().map(|b| b.meta.system_id.clone()));
        self
    }

    /// Those of a repository; none where all are of others.
    pub(crate) fn among<'b>(&self, backups: &'b [Backup]) -> Vec<&'b Backup> {
        let own = |b: &&Backup| self.0.contains(&b.meta.system_id);
        backups.iter().filter(own).collect()
    }

    fn ids(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }

    /// Takes the others off the record, where earlier versions have put them.
    pub(crate) fn disown_others(
        &self,
        client: &mut impl GenericClient,
        location: &RepositoryLocation,
    ) -> Result<u64, postgres::Error> {
        client.execute(
            "UPDATE oa.backups SET removed_at = now(), missing_since = NULL
             WHERE repository = $1 AND removed_at IS NULL AND NOT system_id = ANY($2)
               AND EXISTS (SELECT FROM oa.backups o WHERE o.repository = $1 AND o.removed_at IS NULL AND o.system_id = ANY($2))",
            &[&location.shown(), &self.ids()],
        )
    }
}

/// The rows of backups, for storing together with an outcome.
pub(crate) fn rows<'b>(
    location: &RepositoryLocation,
    backups: impl IntoIterator<Item = &'b Backup>,
) -> Batch {
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
        "damaged_pages",
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
            json!(location.shown()),
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
            json!((!m.damaged.is_empty()).then(|| m.damaged.join("; "))),
        ]
    };
    batch(
        "backups",
        &columns,
        &["id"],
        backups.into_iter().map(row).collect(),
    )
}

/// The row of a repository's size, at a time of the server's clock.
pub(crate) fn size(
    location: &RepositoryLocation,
    size_bytes: u64,
    backups: usize,
    at: DateTime<Utc>,
) -> Batch {
    let free = location
        .folder()
        .and_then(|folder| rustix::fs::statvfs(folder).ok());
    let free = free.map(|disk| disk.f_bavail * disk.f_frsize);
    let row = vec![
        json!(location.shown()),
        json!(at),
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
        rows: rows.into(),
        collected_at: Utc::now(),
        timezone: "UTC".to_owned(),
        newest_by: None,
    }
}

/// A backup that was recorded and is not in the repository any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) level: String,
    /// The last time that it could restore.
    pub(crate) restorable_to: DateTime<Utc>,
}

impl Missing {
    pub(crate) fn what(&self, zone: Tz) -> String {
        format!(
            "it was recorded when it was made ({} {}, up to {}), and the repository does not have it any more",
            self.level,
            self.kind,
            self.restorable_to
                .with_timezone(&zone)
                .format("%Y-%m-%d %H:%M:%S")
        )
    }
}

/// The backups that should be in a repository, and when that was asked. To be asked before the repository is listed: what is published
/// meanwhile is not missing, and what is pruned meanwhile was recorded as removed before.
pub(crate) fn recorded(
    client: &mut impl GenericClient,
    location: &RepositoryLocation,
) -> Result<(Vec<Missing>, DateTime<Utc>), postgres::Error> {
    let asked_at = client.query_one("SELECT clock_timestamp()", &[])?.get(0);
    let own = OwnClusters::ask(client)?;
    let rows = client.query(
        "SELECT id, kind, level, restorable_to FROM oa.backups b WHERE repository = $1 AND removed_at IS NULL
           AND (system_id = ANY($2) OR NOT EXISTS (SELECT FROM oa.backups o WHERE o.repository = $1 AND o.removed_at IS NULL AND o.system_id = ANY($2)))
         ORDER BY restorable_to",
        &[&location.shown(), &own.ids()],
    )?;
    let one = |row: &postgres::Row| Missing {
        id: row.get(0),
        kind: row.get(1),
        level: row.get(2),
        restorable_to: row.get(3),
    };
    Ok((rows.iter().map(one).collect(), asked_at))
}

/// What came of recovering a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// The newest point in time to which it ever was.
    pub(crate) to: Option<DateTime<Utc>>,
    /// Why the last recovery failed.
    pub(crate) error: Option<String>,
}

/// The backups of a repository of which it is known what came of recovering them, by id.
pub(crate) fn recovered(
    client: &mut impl GenericClient,
    location: &RepositoryLocation,
) -> Result<BTreeMap<String, Recovered>, postgres::Error> {
    let rows = client.query(
        "SELECT id, recovered_to, recovery_error FROM oa.backups WHERE repository = $1 AND recovery_at IS NOT NULL",
        &[&location.shown()],
    )?;
    let one = |row: &postgres::Row| {
        let recovered = Recovered {
            to: row.get(1),
            error: row.get(2),
        };
        (row.get(0), recovered)
    };
    Ok(rows.iter().map(one).collect())
}

/// What verification has found wrong with backups of a repository, by id.
pub(crate) fn check_errors(
    client: &mut impl GenericClient,
    location: &RepositoryLocation,
) -> Result<BTreeMap<String, String>, postgres::Error> {
    let rows = client.query(
        "SELECT id, left(check_error, 8000) FROM oa.backups WHERE repository = $1 AND removed_at IS NULL AND check_error IS NOT NULL",
        &[&location.shown()],
    )?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Those of the recorded backups that are not there: `there` are the ids of all that is listed now, readable or not.
pub(crate) fn missing(
    client: &mut impl GenericClient,
    recorded: Vec<Missing>,
    there: &BTreeSet<String>,
) -> Result<Vec<Missing>, postgres::Error> {
    let mut gone = recorded;
    gone.retain(|b| !there.contains(&b.id));
    if gone.is_empty() {
        return Ok(gone);
    }
    let ids: Vec<&str> = gone.iter().map(|b| b.id.as_str()).collect();
    let rows = client.query(
        "SELECT id FROM oa.backups WHERE id = ANY($1) AND removed_at IS NULL",
        &[&ids],
    )?;
    let still: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    gone.retain(|b| still.contains(&b.id));
    Ok(gone)
}

/// Records which backups are missing and which cannot be restored, and that those that are back are neither missing nor removed any more.
/// `recorded` and `there` are what should be there and what is; what was removed since that was asked is not back. `stranded`: which cannot
/// be restored; `None`: nobody can say, so what was recorded of that stays.
pub(crate) fn reconcile(
    client: &mut impl GenericClient,
    location: &RepositoryLocation,
    (recorded, asked_at): (Vec<Missing>, DateTime<Utc>),
    there: &BTreeSet<String>,
    stranded: Option<&BTreeMap<String, String>>,
) -> Result<Vec<Missing>, postgres::Error> {
    let gone = missing(client, recorded, there)?;
    let ids: Vec<&str> = gone.iter().map(|b| b.id.as_str()).collect();
    client.execute(
        "UPDATE oa.backups SET missing_since = now() WHERE id = ANY($1) AND removed_at IS NULL AND missing_since IS NULL",
        &[&ids],
    )?;
    let there: Vec<&str> = there.iter().map(String::as_str).collect();
    client.execute(
        "UPDATE oa.backups SET missing_since = NULL WHERE id = ANY($1) AND missing_since IS NOT NULL",
        &[&there],
    )?;
    let own = OwnClusters::ask(client)?;
    client.execute(
        "UPDATE oa.backups SET removed_at = NULL WHERE id = ANY($1) AND removed_at < $2
           AND (system_id = ANY($4) OR NOT EXISTS (SELECT FROM oa.backups o WHERE o.repository = $3 AND o.system_id = ANY($4)))",
        &[&there, &asked_at, &location.shown(), &own.ids()],
    )?;
    let Some(stranded) = stranded else {
        return Ok(gone);
    };
    let (ids, reasons): (Vec<&String>, Vec<&String>) = stranded.iter().unzip();
    client.execute(
        "UPDATE oa.backups b SET unrestorable = s.reason
         FROM (SELECT b.id, s.reason FROM oa.backups b LEFT JOIN unnest($2::text[], $3::text[]) s (id, reason) ON s.id = b.id WHERE b.repository = $1) s
         WHERE s.id = b.id AND b.unrestorable IS DISTINCT FROM s.reason",
        &[&location.shown(), &ids, &reasons],
    )?;
    Ok(gone)
}

/// Marks the rows of backups that are being removed.
pub(crate) fn mark_removed(
    client: &mut impl GenericClient,
    ids: &[&str],
) -> Result<u64, postgres::Error> {
    client.execute(
        "UPDATE oa.backups SET removed_at = now(), missing_since = NULL WHERE id = ANY($1) AND removed_at IS NULL",
        &[&ids],
    )
}

/// The same once they are gone: meanwhile another process may have found them there, and said so.
pub(crate) fn mark_gone(
    client: &mut impl GenericClient,
    ids: &[&str],
) -> Result<u64, postgres::Error> {
    client.execute(
        "UPDATE oa.backups SET removed_at = clock_timestamp(), missing_since = NULL WHERE id = ANY($1)",
        &[&ids],
    )
}

/// Marks those that are not there under the ids under which they were recorded, but have been copied there anew: `there` are the ids
/// of all that is listed now.
pub(crate) fn mark_replaced(
    client: &mut impl GenericClient,
    location: &RepositoryLocation,
    there: &[&str],
) -> Result<u64, postgres::Error> {
    client.execute(
        "UPDATE oa.backups gone SET removed_at = now(), missing_since = NULL
         WHERE repository = $1 AND removed_at IS NULL AND NOT id = ANY($2) AND EXISTS (
           SELECT FROM oa.backups anew WHERE anew.repository = $1 AND anew.id = ANY($2) AND anew.run_id = gone.run_id
             AND anew.kind = gone.kind AND anew.level = gone.level AND anew.restorable_to = gone.restorable_to)",
        &[&location.shown(), &there],
    )
}

/// Marks everything that was recorded of a location: a new repository begins there.
pub(crate) fn begin_anew(
    client: &mut impl GenericClient,
    location: &RepositoryLocation,
) -> Result<u64, postgres::Error> {
    client.execute(
        "UPDATE oa.backups SET removed_at = now(), missing_since = NULL WHERE repository = $1 AND removed_at IS NULL",
        &[&location.shown()],
    )
}

/// Records what a verification found: of `backups`, which were checked, and of others that it came across, such as those whose
/// snapshots cannot be read. Only reading every byte shows that what it has found before is over, and a check of the structure
/// without findings does not undo that every byte was read.
pub(crate) fn mark_checked(
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
