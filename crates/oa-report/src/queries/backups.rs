//! Backups: which there are, whether they can be relied on, what drills said, and how the repository grows.

use chrono::{DateTime, Utc};
use oa_core::app::config::{Config, Locale};
use oa_core::base::secrets::redact;
use oa_core::journal::catalog::{self, Limits};
use oa_core::model::event::{Finding, Severity};
use oa_wording::Wording;
use postgres::GenericClient;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::recovery::{self, Recovery};
use super::{Result, redacted, some_text, text};
use crate::lang::Lang;

/// One backup.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Backup {
    /// The snapshot's id in the repository.
    pub(crate) id: String,
    /// physical, logical or files.
    pub(crate) kind: String,
    /// full or incremental.
    pub(crate) level: String,
    /// The full one that an incremental one continues.
    pub(crate) parent_id: Option<String>,
    /// The repository.
    pub(crate) repository: String,
    /// The machine that made it.
    pub(crate) host: String,
    /// The database.
    pub(crate) database: String,
    /// When it began (UTC).
    pub(crate) started_at: DateTime<Utc>,
    /// When it ended (UTC).
    pub(crate) finished_at: DateTime<Utc>,
    /// The first point in time it can restore (UTC).
    pub(crate) restorable_from: DateTime<Utc>,
    /// The last point in time it can restore (UTC).
    pub(crate) restorable_to: DateTime<Utc>,
    /// Bytes that were backed up.
    pub(crate) size_bytes: i64,
    /// Bytes by which the repository grew.
    pub(crate) added_bytes: i64,
    /// The last verification: none, structure or data.
    pub(crate) checked: String,
    /// When that was (UTC).
    pub(crate) checked_at: Option<DateTime<Utc>>,
    /// What it found wrong.
    pub(crate) check_error: Option<String>,
    /// When it was pruned (UTC).
    pub(crate) removed_at: Option<DateTime<Utc>>,
    /// When the repository was first seen without it, although it was not pruned (UTC).
    pub(crate) missing_since: Option<DateTime<Utc>>,
    /// Why it cannot be restored although it is there.
    pub(crate) unrestorable: Option<String>,
    /// The newest point in time to which a private server recovered with it (UTC).
    pub(crate) recovered_to: Option<DateTime<Utc>>,
    /// Where pages of the server were damaged when it was made, and so are in it.
    pub(crate) damaged_pages: Option<String>,
}

/// One rehearsed restore.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Drill {
    /// The backup.
    pub(crate) backup_id: String,
    /// The repository.
    pub(crate) repository: String,
    /// The machine.
    pub(crate) host: String,
    /// The point in time that was restored (UTC).
    pub(crate) target: DateTime<Utc>,
    /// When it began (UTC).
    pub(crate) started_at: DateTime<Utc>,
    /// When it ended (UTC).
    pub(crate) finished_at: DateTime<Utc>,
    /// Whether all was as recorded.
    pub(crate) ok: bool,
    /// From the first byte out of the repository until the server answered, in seconds.
    pub(crate) rto_seconds: Option<f64>,
    /// What would have been lost, in seconds.
    pub(crate) rpo_seconds: Option<f64>,
    /// Tables that were compared.
    pub(crate) tables: i32,
    /// What was compared, and what came of it.
    pub(crate) checks: Value,
    /// What was wrong.
    pub(crate) error: Option<String>,
}

/// The size of a repository at a point in time.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Size {
    /// The repository.
    pub(crate) repository: String,
    /// When (UTC).
    pub(crate) measured_at: DateTime<Utc>,
    /// Bytes.
    pub(crate) size_bytes: i64,
    /// How many backups it held.
    pub(crate) backups: i32,
    /// Bytes left on its disk.
    pub(crate) free_bytes: Option<i64>,
}

/// How it is with the backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// They can be relied on.
    Ok,
    /// Something is overdue.
    Warning,
    /// There is none, or none that can be relied on.
    Error,
}

impl State {
    /// The name under which it is given out.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The newest backup as the service's own plan names it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Latest {
    /// Its id in the repository.
    pub(crate) file: String,
    /// When it ended (UTC).
    pub(crate) time: DateTime<Utc>,
    /// Its size in megabytes (1,000,000 bytes).
    pub(crate) size_mb: f64,
    /// physical, logical or files.
    pub(crate) kind: String,
    /// full or incremental.
    pub(crate) level: String,
}

/// Whether the backups can be relied on.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Status {
    /// The worst of what follows.
    pub(crate) status: State,
    /// What is wrong, or that nothing is, in a sentence.
    pub(crate) message: String,
    /// The same in Chinese and in English: what is known is for everybody, and each page says it in its own language.
    #[serde(skip)]
    pub(crate) messages: (String, String),
    /// The newest backup of any kind.
    pub(crate) latest_backup: Option<Latest>,
    /// The newest full one of the kind that can restore the newest point in time: a weekly dump does not stand in for the copy beside it.
    pub(crate) latest_full: Option<Latest>,
    /// Backups in the repositories.
    pub(crate) total_backups: i64,
    /// Incremental ones since the newest full one.
    pub(crate) chain_length: i64,
    /// The last point in time that can be restored (UTC).
    pub(crate) restorable_to: Option<DateTime<Utc>>,
    /// When a backup was last read back, every byte, without a fault (UTC).
    pub(crate) last_verified: Option<DateTime<Utc>>,
    /// The last rehearsed restore.
    pub(crate) last_drill: Option<Drill>,
    /// The newest size of the repository.
    pub(crate) repository: Option<Size>,
    /// Which points in time can be restored, and what proves it.
    pub(crate) recovery: Recovery,
}

const COLUMNS: &str = "id, kind, level, parent_id, repository, host, database, started_at, finished_at, restorable_from, restorable_to, size_bytes,
    added_bytes, checked, checked_at, left(check_error, 8000), removed_at, missing_since, unrestorable, recovered_to,
    left(damaged_pages, 8000)";

fn backup(row: &postgres::Row) -> Backup {
    Backup {
        id: row.get(0),
        kind: row.get(1),
        level: row.get(2),
        parent_id: row.get(3),
        repository: text(row, 4),
        host: row.get(5),
        database: row.get(6),
        started_at: row.get(7),
        finished_at: row.get(8),
        restorable_from: row.get(9),
        restorable_to: row.get(10),
        size_bytes: row.get(11),
        added_bytes: row.get(12),
        checked: row.get(13),
        checked_at: row.get(14),
        check_error: some_text(row, 15),
        removed_at: row.get(16),
        missing_since: row.get(17),
        unrestorable: some_text(row, 18),
        recovered_to: row.get(19),
        damaged_pages: some_text(row, 20),
    }
}

/// Backups, newest first, with those that were pruned when asked for, and the id after which the next page begins.
pub(crate) fn list(
    client: &mut impl GenericClient,
    removed: bool,
    before: Option<&str>,
    limit: u16,
) -> Result<(Vec<Backup>, Option<String>)> {
    let rows = client.query(
        &format!(
            "SELECT {COLUMNS} FROM oa.backups WHERE ($1 OR removed_at IS NULL) AND ($2::text IS NULL OR (finished_at, id) < (SELECT finished_at, id FROM oa.backups WHERE id = $2))
             ORDER BY finished_at DESC, id DESC LIMIT $3"
        ),
        &[&removed, &before, &(i64::from(limit) + 1)],
    )?;
    let mut all: Vec<Backup> = rows.iter().map(backup).collect();
    let more = all.len() > usize::from(limit);
    all.truncate(usize::from(limit));
    let next = all.last().map(|b| b.id.clone()).filter(|_| more);
    Ok((all, next))
}

pub(crate) fn drills(client: &mut impl GenericClient, limit: u16) -> Result<Vec<Drill>> {
    drills_in(client, None, limit)
}

fn drills_in(
    client: &mut impl GenericClient,
    repository: Option<&str>,
    limit: u16,
) -> Result<Vec<Drill>> {
    let rows = client.query(
        "SELECT backup_id, repository, host, target, started_at, finished_at, ok, rto_seconds, rpo_seconds, tables, checks, error
         FROM oa.drills WHERE $2::text IS NULL OR repository = $2 ORDER BY seq DESC LIMIT $1",
        &[&i64::from(limit), &repository],
    )?;
    let drill = |row: &postgres::Row| Drill {
        backup_id: row.get(0),
        repository: row.get(1),
        host: row.get(2),
        target: row.get(3),
        started_at: row.get(4),
        finished_at: row.get(5),
        ok: row.get(6),
        rto_seconds: row.get(7),
        rpo_seconds: row.get(8),
        tables: row.get(9),
        checks: redacted(row.get(10)),
        error: some_text(row, 11),
    };
    Ok(rows.iter().map(drill).collect())
}

/// Sizes of the repositories of the last 90 days, oldest first.
pub(crate) fn sizes(client: &mut impl GenericClient) -> Result<Vec<Size>> {
    let rows = client.query(
        "SELECT repository, measured_at, size_bytes, backups, free_bytes FROM (
           SELECT * FROM oa.repositories WHERE measured_at > now() - interval '90 days' ORDER BY measured_at DESC LIMIT 400) last
         ORDER BY measured_at",
        &[],
    )?;
    Ok(rows.iter().map(size).collect())
}

fn size(row: &postgres::Row) -> Size {
    Size {
        repository: row.get(0),
        measured_at: row.get(1),
        size_bytes: row.get(2),
        backups: row.get(3),
        free_bytes: row.get(4),
    }
}

/// Whether the backups can be relied on: the verdict is [`catalog`]'s, of the repository of `[backup]`, or without one of that which can
/// restore the newest time, or could before its backups disappeared. A secondary repository does not stand in for the first. Files that
/// are backed up along do not bring the database back.
pub(crate) fn status(
    client: &mut impl GenericClient,
    config: &Config,
    wording: &Wording,
) -> Result<Status> {
    let configured = config
        .backup
        .as_ref()
        .map(oa_core::app::config::Backup::repository_name);
    let repository = match configured {
        Some(name) => Some(name),
        None => client
            .query_opt(
                "SELECT repository FROM (SELECT repository, restorable_to, true AS restores FROM oa.repository_state
                   UNION ALL SELECT repository, restorable_to, false FROM oa.backups WHERE removed_at IS NULL AND kind <> 'files') r
                 ORDER BY restores DESC, restorable_to DESC LIMIT 1",
                &[],
            )?
            .map(|row| row.get(0)),
    };
    let Some(repository) = repository else {
        let recovery = recovery::recovery(client, None)?;
        return Ok(Status::not_configured(wording.locale, recovery));
    };
    let facts = catalog::facts(client, &repository)?;
    let limits = Limits::from_config(config).unwrap_or_else(|| Limits::without_objectives(config));
    let found = facts.assess(&limits);
    let of = Some(repository.as_str());
    let latest_full = newest(
        client,
        "AND id = (SELECT full_id FROM oa.repository_state WHERE repository = $1)",
        of,
    )?;
    let counts = client.query_one(
        "SELECT count(*) FILTER (WHERE missing_since IS NULL), count(*) FILTER (WHERE level = 'incremental' AND kind = 'physical' AND finished_at > $2)
         FROM oa.backups WHERE removed_at IS NULL AND repository = $1",
        &[&of, &latest_full.as_ref().map(|b| b.time)],
    )?;
    let measured = client.query_opt(
        "SELECT repository, measured_at, size_bytes, backups, free_bytes FROM oa.repositories
         WHERE repository = $1 ORDER BY measured_at DESC LIMIT 1",
        &[&of],
    )?;
    let say = |locale| {
        message(
            &found,
            facts.drill.is_some(),
            &Wording { locale, ..*wording },
        )
    };
    Ok(Status {
        messages: (say(Locale::Zh), say(Locale::En)),
        status: found.iter().map(State::of).max().unwrap_or(State::Ok),
        message: message(&found, facts.drill.is_some(), wording),
        latest_backup: newest(client, "ORDER BY finished_at DESC", of)?,
        latest_full,
        total_backups: counts.get(0),
        chain_length: counts.get(1),
        restorable_to: facts.recoverable_to,
        last_verified: facts.read_back_at,
        last_drill: drills_in(client, of, 1)?.pop(),
        repository: measured.as_ref().map(size),
        recovery: recovery::recovery(client, of)?,
    })
}

fn message(found: &[Finding], drilled: bool, wording: &Wording) -> String {
    let sentences: Vec<String> = found
        .iter()
        .map(|f| redact(&oa_wording::sentence(f, wording)))
        .collect();
    let lang = Lang(wording.locale);
    if !sentences.is_empty() {
        return sentences.join(lang.say("；", "; "));
    }
    let (zh, en) = if drilled {
        (
            "备份正常，最近一次恢复演练通过",
            "backups are made, and the last restore drill passed",
        )
    } else {
        (
            "备份正常，恢复演练尚未到期：oa-restore drill",
            "backups are made; the first restore drill is not due yet: oa-restore drill",
        )
    };
    lang.say(zh, en).to_owned()
}

impl Status {
    fn not_configured(locale: Locale, recovery: Recovery) -> Self {
        let (zh, en) = (
            "没有配置备份：在 [backup] 中配置仓库，然后执行 oa-backup init",
            "no backup is configured: set up [backup], then run oa-backup init",
        );
        Self {
            status: State::Error,
            message: Lang(locale).say(zh, en).to_owned(),
            messages: (zh.to_owned(), en.to_owned()),
            latest_backup: None,
            latest_full: None,
            total_backups: 0,
            chain_length: 0,
            restorable_to: None,
            last_verified: None,
            last_drill: None,
            repository: None,
            recovery,
        }
    }
}

impl State {
    fn of(finding: &Finding) -> Self {
        match finding.severity() {
            Severity::Critical => Self::Error,
            Severity::Warning | Severity::Info => Self::Warning,
        }
    }
}

/// The first of those that are there and bring the database back; `which` is the rest of the condition and the order.
fn newest(
    client: &mut impl GenericClient,
    which: &str,
    repository: Option<&str>,
) -> Result<Option<Latest>> {
    let row = client.query_opt(
        &format!(
            "SELECT {COLUMNS} FROM oa.backups WHERE removed_at IS NULL AND missing_since IS NULL AND kind <> 'files' AND ($1::text IS NULL OR repository = $1) {which} LIMIT 1"
        ),
        &[&repository],
    )?;
    Ok(row.map(|row| {
        let backup = backup(&row);
        Latest {
            file: backup.id,
            time: backup.finished_at,
            size_mb: (backup.size_bytes as f64 / 10_000.0).round() / 100.0,
            kind: backup.kind,
            level: backup.level,
        }
    }))
}
