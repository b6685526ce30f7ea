//! Which points in time the backups can restore, and what proves it.

use chrono::{DateTime, TimeDelta, Utc};
use postgres::GenericClient;
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::{Result, some_text};

/// Spans of WAL that follow each other are one, although their ends differ by what it takes to write them down.
const SEAM: TimeDelta = TimeDelta::seconds(1);

/// A span of points in time that can be restored; one point of a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Restorable {
    /// The first one (UTC).
    pub(crate) from: DateTime<Utc>,
    /// The last one (UTC).
    pub(crate) to: DateTime<Utc>,
}

/// The last recovery that was tried in a private server.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Recovered {
    /// The backup.
    pub(crate) backup_id: String,
    /// When it was tried (UTC).
    pub(crate) tried_at: DateTime<Utc>,
    /// The point in time to which it came (UTC); null when it failed.
    pub(crate) recovered_to: Option<DateTime<Utc>>,
    /// How long it took, in seconds.
    pub(crate) seconds: Option<f64>,
    /// Why it failed.
    pub(crate) error: Option<String>,
}

/// The last proof that what was migrated is what was there.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Proof {
    /// The task of `oa-migrate`.
    pub(crate) task: String,
    /// Its run.
    pub(crate) run_id: Option<Uuid>,
    /// When it last succeeded (UTC).
    pub(crate) at: DateTime<Utc>,
}

/// What can be restored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Recovery {
    /// Oldest first, none touching another.
    pub(crate) spans: Vec<Restorable>,
    /// Ends of the full backups, oldest first (UTC).
    pub(crate) fulls: Vec<DateTime<Utc>>,
    /// Whether backups copy the server, so that each point of a span can be restored.
    pub(crate) physical: bool,
    /// The last recovery in a private server.
    pub(crate) recovered: Option<Recovered>,
    /// The last proof of a migration.
    pub(crate) migration: Option<Proof>,
}

/// Of one repository; without one only the proof of a migration.
pub(crate) fn recovery(
    client: &mut impl GenericClient,
    repository: Option<&str>,
) -> Result<Recovery> {
    let rows = client.query(
        "SELECT kind, level, restorable_from, restorable_to, finished_at FROM oa.backups
         WHERE repository = $1 AND removed_at IS NULL AND missing_since IS NULL AND unrestorable IS NULL AND kind <> 'files'
           AND restorable_to <= now() + interval '10 minutes' ORDER BY restorable_from, restorable_to",
        &[&repository],
    )?;
    let mut found = Recovery::default();
    for row in &rows {
        let (from, to): (DateTime<Utc>, DateTime<Utc>) = (row.get(2), row.get(3));
        found.physical |= row.get::<_, &str>(0) == "physical";
        if row.get::<_, &str>(1) == "full" {
            found.fulls.push(row.get(4));
        }
        match found.spans.last_mut() {
            Some(last) if from <= last.to + SEAM => last.to = last.to.max(to),
            _ => found.spans.push(Restorable { from, to }),
        }
    }
    found.fulls.sort_unstable();
    let row = client.query_opt(
        "SELECT id, recovery_at, recovered_to, recovery_seconds, left(recovery_error, 8000) FROM oa.backups
         WHERE repository = $1 AND recovery_at IS NOT NULL AND removed_at IS NULL ORDER BY recovery_at DESC LIMIT 1",
        &[&repository],
    )?;
    found.recovered = row.map(|row| {
        let error = some_text(&row, 4);
        Recovered {
            backup_id: row.get(0),
            tried_at: row.get(1),
            recovered_to: row.get::<_, Option<_>>(2).filter(|_| error.is_none()),
            seconds: row.get(3),
            error,
        }
    });
    let row = client.query_opt(
        "SELECT name, last_run_id, last_success_at FROM oa.tasks WHERE tool = 'oa-migrate' AND last_success_at IS NOT NULL
         ORDER BY last_success_at DESC LIMIT 1",
        &[],
    )?;
    found.migration = row.map(|row| Proof {
        task: row.get(0),
        run_id: row.get(1),
        at: row.get(2),
    });
    Ok(found)
}
