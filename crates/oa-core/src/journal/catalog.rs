//! One verdict on backups. What is known of a repository ([`Facts`]: from the records in PostgreSQL, or from the repository itself) is
//! measured by the objectives of `[backup]` ([`Limits`]) in one function, [`Facts::assess`]: alerts, the page, the API, the daily report
//! and `oa-backup status` all say what that finds.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use postgres::GenericClient;

use crate::model::event::{Age, Finding, NamedBackup};

/// A forecast needs measurements over at least this long, in days, and looks at no older ones than that.
const FORECAST_DAYS: (f64, i32) = (2.0, 30);
/// So many backups are named.
const NAMED: usize = 5;

/// The objectives of `[backup]`, and what `[alert]` says about backups.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// No more than this may be lost.
    pub rpo: Duration,
    /// A restore takes no longer than this.
    pub rto: Duration,
    /// A full backup is due this often.
    pub full_every: Duration,
    /// A drill is due this often.
    pub drill_every: Duration,
    /// The backups are read back this often.
    pub verify_every: Duration,
    /// A disk that will be full within this long is a finding.
    pub forecast: Duration,
}

/// A restore drill.
#[derive(Debug, Clone, PartialEq)]
pub struct Drill {
    /// When it ended (UTC).
    pub at: DateTime<Utc>,
    /// The backup that was restored.
    pub backup: String,
    /// How long it took until the server answered.
    pub took: Option<Duration>,
    /// All was as recorded.
    pub ok: bool,
    /// What was wrong.
    pub error: String,
}

/// A backup that was recovered in a private server, to the end of its WAL.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovery {
    /// When it was tried (UTC).
    pub at: DateTime<Utc>,
    /// The backup.
    pub backup: String,
    /// How far it came, and how long that took; or why it failed.
    pub result: Result<(DateTime<Utc>, Duration), String>,
}

/// The room that a repository has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Space {
    /// Its bytes.
    pub size: u64,
    /// Bytes left on its disk.
    pub free: u64,
    /// When that was measured (UTC).
    pub measured_at: DateTime<Utc>,
    /// By how many bytes it grew over `days`.
    pub grown: i64,
    /// Days between the first measurement and the last.
    pub days: f64,
}

impl Space {
    /// When the disk will be full at the present rate.
    #[must_use]
    pub fn full_at(&self) -> Option<DateTime<Utc>> {
        if self.grown <= 0 || self.days < FORECAST_DAYS.0 {
            return None;
        }
        let days = self.free as f64 / (self.grown as f64 / self.days);
        let left = TimeDelta::try_milliseconds((days * 86_400_000.0) as i64)?;
        self.measured_at.checked_add_signed(left)
    }
}

/// What is known of a repository.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Where it is, without secrets.
    pub repository: String,
    /// The current time, by the server's clock.
    pub now: DateTime<Utc>,
    /// The newest time that can be restored.
    pub recoverable_to: Option<DateTime<Utc>>,
    /// The end of the newest full backup of the kind that restores most, so not of a dump beside physical ones, and the bytes that it added.
    pub full: Option<(DateTime<Utc>, u64)>,
    /// The end of the first backup, also of one that is gone.
    pub first_at: Option<DateTime<Utc>>,
    /// When one was last read back, every byte, without a fault; also of one that is gone.
    pub read_back_at: Option<DateTime<Utc>>,
    /// Id and finding of those whose verification failed, newest first.
    pub damaged: Vec<(String, String)>,
    /// The newest full backup, as above, when the server had damaged pages as it was made: its id, the end of it, and where.
    pub server_damaged: Option<(String, DateTime<Utc>, String)>,
    /// Those that were recorded and are gone from the repository, newest first.
    pub gone: Vec<NamedBackup>,
    /// Those that are there and restore nothing, because their full backup is gone.
    pub stranded: Vec<NamedBackup>,
    /// The last recovery that was tried without comparing anything.
    pub recovery: Option<Recovery>,
    /// The last drill.
    pub drill: Option<Drill>,
    /// When a drill last succeeded.
    pub drilled_at: Option<DateTime<Utc>>,
    /// The room it has, where its disk is known.
    pub space: Option<Space>,
}

/// What PostgreSQL knows of a repository.
///
/// # Errors
/// When PostgreSQL fails.
pub fn facts(client: &mut impl GenericClient, repository: &str) -> Result<Facts, postgres::Error> {
    let row = client.query_one(
        "SELECT s.restorable_to, s.full_at, coalesce(s.full_added_bytes, 0), e.first_at, e.read_back, now(),
                (SELECT max(finished_at) FROM oa.drills WHERE repository = $1 AND ok), s.full_id,
                (SELECT left(b.damaged_pages, 8000) FROM oa.backups b WHERE b.id = s.full_id)
         FROM (SELECT min(finished_at) AS first_at, max(checked_at) FILTER (WHERE kind <> 'files' AND checked = 'data' AND check_error IS NULL) AS read_back
               FROM oa.backups WHERE repository = $1) e
         LEFT JOIN oa.repository_state s ON s.repository = $1",
        &[&repository],
    )?;
    let mut facts = Facts {
        repository: repository.to_owned(),
        recoverable_to: row.get(0),
        full: row
            .get::<_, Option<DateTime<Utc>>>(1)
            .map(|at| (at, row.get::<_, i64>(2).unsigned_abs())),
        first_at: row.get(3),
        read_back_at: row.get(4),
        now: row.get(5),
        drilled_at: row.get(6),
        damaged: Vec::new(),
        server_damaged: server_damaged(&row),
        gone: Vec::new(),
        stranded: Vec::new(),
        recovery: recovery(client, repository)?,
        drill: drill(client, repository)?,
        space: space(client, repository)?,
    };
    let rows = client.query(
        "SELECT id, kind, level, restorable_to, missing_since IS NOT NULL, unrestorable IS NOT NULL, check_error FROM oa.backups
         WHERE repository = $1 AND removed_at IS NULL AND (missing_since IS NOT NULL OR unrestorable IS NOT NULL OR check_error IS NOT NULL)
         ORDER BY finished_at DESC",
        &[&repository],
    )?;
    for row in rows {
        let id: String = row.get(0);
        let named = named(&id, row.get(1), row.get(2), row.get(3));
        if let Some(error) = row.get(6) {
            facts.damaged.push((id, error));
        }
        if row.get(4) {
            facts.gone.push(named);
        } else if row.get(5) {
            facts.stranded.push(named);
        }
    }
    Ok(facts)
}

/// Of the first row of [`facts`].
fn server_damaged(row: &postgres::Row) -> Option<(String, DateTime<Utc>, String)> {
    let pages: Option<String> = row.get(8);
    Some((
        row.get::<_, Option<_>>(7)?,
        row.get::<_, Option<_>>(1)?,
        pages?,
    ))
}

/// The system ids of the clusters whose backups a run log is about: its own database's, and those of which its runs have made some. Other
/// services may use the same repository.
///
/// # Errors
/// When PostgreSQL fails.
pub fn own_clusters(client: &mut impl GenericClient) -> Result<BTreeSet<String>, postgres::Error> {
    let rows = client.query(
        "SELECT system_identifier::text FROM pg_control_system()
         UNION SELECT b.system_id FROM oa.backups b WHERE EXISTS (SELECT FROM oa.runs r WHERE r.id = b.run_id)",
        &[],
    )?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A backup by the beginning of its id.
#[must_use]
pub fn named(id: &str, kind: String, level: String, restorable_to: DateTime<Utc>) -> NamedBackup {
    NamedBackup {
        short_id: id.chars().take(8).collect(),
        kind,
        level,
        restorable_to,
    }
}

fn drill(
    client: &mut impl GenericClient,
    repository: &str,
) -> Result<Option<Drill>, postgres::Error> {
    let row = client.query_opt(
        "SELECT finished_at, backup_id, rto_seconds, ok, coalesce(error, '') FROM oa.drills WHERE repository = $1 ORDER BY seq DESC LIMIT 1",
        &[&repository],
    )?;
    Ok(row.map(|row| Drill {
        at: row.get(0),
        backup: row.get(1),
        took: row
            .get::<_, Option<f64>>(2)
            .and_then(|s| Duration::try_from_secs_f64(s).ok()),
        ok: row.get(3),
        error: row.get(4),
    }))
}

fn recovery(
    client: &mut impl GenericClient,
    repository: &str,
) -> Result<Option<Recovery>, postgres::Error> {
    // With the full backup its newest WAL is marked, at the same time.
    let row = client.query_opt(
        "SELECT recovery_at, id, recovered_to, coalesce(recovery_seconds, 0), recovery_error FROM oa.backups
         WHERE repository = $1 AND removed_at IS NULL AND missing_since IS NULL AND recovery_at IS NOT NULL
         ORDER BY recovery_at DESC, level = 'full' DESC LIMIT 1",
        &[&repository],
    )?;
    Ok(row.and_then(|row| {
        let to: Option<DateTime<Utc>> = row.get(2);
        let took = Duration::try_from_secs_f64(row.get(3)).unwrap_or_default();
        let result = match (row.get::<_, Option<String>>(4), to) {
            (Some(error), _) => Err(error),
            (None, Some(to)) => Ok((to, took)),
            (None, None) => return None,
        };
        Some(Recovery {
            at: row.get(0),
            backup: row.get(1),
            result,
        })
    }))
}

/// Records what came of recovering backups: the full one, and the WAL that was used. Returns how many are on record.
///
/// # Errors
/// When PostgreSQL fails.
pub fn mark_recovery(
    client: &mut impl GenericClient,
    ids: &[&str],
    result: &Result<(DateTime<Utc>, Duration), String>,
) -> Result<u64, postgres::Error> {
    let (to, took, error) = match result {
        Ok((to, took)) => (Some(to), Some(took.as_secs_f64()), None),
        Err(error) => (None, None, Some(error)),
    };
    client.execute(
        "UPDATE oa.backups SET recovery_at = now(), recovered_to = greatest(recovered_to, $2), recovery_seconds = coalesce($3, recovery_seconds),
                recovery_error = $4
         WHERE id = ANY($1)",
        &[&ids, &to, &took, &error],
    )
}

fn space(
    client: &mut impl GenericClient,
    repository: &str,
) -> Result<Option<Space>, postgres::Error> {
    let row = client.query_opt(
        "WITH m AS (SELECT * FROM oa.repositories WHERE repository = $1 AND measured_at > now() - make_interval(days => $2)),
              first AS (SELECT * FROM m ORDER BY measured_at LIMIT 1),
              last AS (SELECT * FROM m ORDER BY measured_at DESC LIMIT 1)
         SELECT last.size_bytes, last.free_bytes, last.measured_at, last.size_bytes - first.size_bytes,
                extract(epoch FROM last.measured_at - first.measured_at)::float8 / 86400
         FROM first, last WHERE last.free_bytes IS NOT NULL",
        &[&repository, &FORECAST_DAYS.1],
    )?;
    Ok(row.map(|row| Space {
        size: row.get::<_, i64>(0).unsigned_abs(),
        free: row.get::<_, i64>(1).unsigned_abs(),
        measured_at: row.get(2),
        grown: row.get(3),
        days: row.get(4),
    }))
}

impl Facts {
    /// Of a repository of which PostgreSQL says nothing now.
    #[must_use]
    pub fn unrecorded(repository: &str, now: DateTime<Utc>) -> Self {
        Self {
            repository: repository.to_owned(),
            now,
            recoverable_to: None,
            full: None,
            first_at: None,
            read_back_at: None,
            damaged: Vec::new(),
            server_damaged: None,
            gone: Vec::new(),
            stranded: Vec::new(),
            recovery: None,
            drill: None,
            drilled_at: None,
            space: None,
        }
    }

    /// Everything that is wrong.
    #[must_use]
    pub fn assess(&self, limits: &Limits) -> Vec<Finding> {
        let mut found = Vec::new();
        found.extend(self.late(limits));
        found.extend(self.missing());
        found.extend(self.server_damage());
        found.extend(self.unverified(limits));
        found.extend(self.unrecoverable());
        found.extend(self.drills(limits));
        found.extend(self.filling(limits));
        found
    }

    fn age(&self, at: DateTime<Utc>, limit: Duration) -> Age {
        Age {
            at,
            age: (self.now - at).to_std().unwrap_or_default().as_secs(),
            limit: limit.as_secs(),
        }
    }

    fn too_old(&self, at: Option<DateTime<Utc>>, limit: Duration) -> Option<Age> {
        let age = self.age(at?, limit);
        (age.age > age.limit).then_some(age)
    }

    fn late(&self, limits: &Limits) -> Option<Finding> {
        let repository = self.repository.clone();
        if self.recoverable_to.is_none() {
            return Some(Finding::BackupAbsent {
                repository,
                configured_at: None,
            });
        }
        let recoverable = self.too_old(self.recoverable_to, limits.rpo);
        let full = self.full.map(|(at, _)| at).or(self.first_at);
        let full = self.too_old(full, limits.full_every);
        (recoverable.is_some() || full.is_some()).then_some(Finding::BackupLate {
            repository,
            recoverable,
            full,
        })
    }

    fn missing(&self) -> Option<Finding> {
        let first = |of: &[NamedBackup]| of.iter().take(NAMED).cloned().collect();
        (!self.gone.is_empty() || !self.stranded.is_empty()).then(|| Finding::BackupMissing {
            repository: self.repository.clone(),
            gone: first(&self.gone),
            gone_count: self.gone.len(),
            stranded: first(&self.stranded),
            stranded_count: self.stranded.len(),
        })
    }

    fn server_damage(&self) -> Option<Finding> {
        let (id, at, pages) = self.server_damaged.as_ref()?;
        Some(Finding::ServerDamaged {
            repository: self.repository.clone(),
            id: id.clone(),
            at: *at,
            pages: pages.clone(),
        })
    }

    fn unverified(&self, limits: &Limits) -> Option<Finding> {
        let repository = self.repository.clone();
        if let Some((id, error)) = self.damaged.first() {
            return Some(Finding::BackupDamaged {
                repository,
                id: id.clone(),
                error: error.clone(),
            });
        }
        // Without any the first one is due as long after the first backup.
        let last = self.too_old(self.read_back_at.or(self.first_at), limits.verify_every)?;
        Some(Finding::BackupUnverified {
            repository,
            last,
            never: self.read_back_at.is_none(),
        })
    }

    fn unrecoverable(&self) -> Option<Finding> {
        let recovery = self.recovery.as_ref()?;
        let error = recovery.result.as_ref().err()?;
        Some(Finding::BackupUnrecoverable {
            repository: self.repository.clone(),
            at: recovery.at,
            id: recovery.backup.clone(),
            error: error.clone(),
        })
    }

    fn drills(&self, limits: &Limits) -> Vec<Finding> {
        let mut found = Vec::new();
        if let Some(drill) = &self.drill {
            if !drill.ok {
                found.push(Finding::DrillFailed {
                    repository: self.repository.clone(),
                    at: drill.at,
                    backup: drill.backup.clone(),
                    error: drill.error.clone(),
                });
            }
            if let Some(took) = drill.took.filter(|took| drill.ok && *took > limits.rto) {
                found.push(Finding::DrillSlow {
                    repository: self.repository.clone(),
                    at: drill.at,
                    took: took.as_secs(),
                    objective: limits.rto.as_secs(),
                });
            }
        }
        // Without any drill the first one is due as long after the first backup.
        let last = self.too_old(self.drilled_at.or(self.first_at), limits.drill_every);
        found.extend(last.map(|last| Finding::DrillOverdue {
            repository: self.repository.clone(),
            last,
            never: self.drilled_at.is_none(),
        }));
        found
    }

    fn filling(&self, limits: &Limits) -> Option<Finding> {
        let space = self.space?;
        let soon = TimeDelta::from_std(limits.forecast).unwrap_or(TimeDelta::MAX);
        let full_at = space.full_at().filter(|at| *at - self.now < soon);
        let needed = self
            .full
            .map(|(_, added)| added)
            .filter(|added| space.free < *added);
        (needed.is_some() || full_at.is_some()).then(|| Finding::RepositoryFilling {
            repository: self.repository.clone(),
            size: space.size,
            free: space.free,
            needed,
            full_at,
        })
    }
}
