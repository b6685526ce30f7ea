//! `oa-backup full` and `oa-backup incremental`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use oa_core::alerts;
use oa_core::cli::Failure;
use oa_core::config::{BackupKind, Bytes, Config};
use oa_core::exit;
use oa_core::output::{Format, Listing};
use oa_core::retry::{Backoff, Policy};
use oa_core::runs::work::{self, Ended, Job};
use oa_core::runs::{Recorder, RunStart, Status, Trigger};
use serde_json::{Map, Value, json};

use crate::PROGRAM;
use crate::backup::{Done, Session};
use crate::capture::CaptureError;
use crate::capture::server::Server;
use crate::catalog::{self, Checked};
use oa_repository::{Backup, Level, ProgressReporter, RepositoryLocation};

/// The most that a retry policy allows; a copy of a large cluster takes hours.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Full or incremental.
    pub level: Level,
    /// Replaces the configured kind.
    pub kind: Option<BackupKind>,
    /// Replaces the configured limit.
    pub limit_rate: Option<Bytes>,
    /// Who started it.
    pub trigger: Trigger,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// Makes a backup.
///
/// # Errors
/// With the exit code that fits: 75 when PostgreSQL is away, 77 when another one runs or the role may not, 78 for configuration.
pub fn run(
    config: &Config,
    wanted: Wanted,
    bars: &ProgressReporter,
    format: Format,
) -> Result<u8, Failure> {
    let settings = config.backup_settings()?;
    let recorder = Recorder::open(config, PROGRAM)?;
    if wanted.dry_run {
        return preview(config, wanted);
    }
    // Gives way to everything else on the machine; the kernel's I/O priority follows.
    let _ = rustix::process::nice(10);
    let (task, title) = match wanted.level {
        Level::Full => ("backup-full", "全量备份"),
        Level::Incremental => ("backup-incremental", "增量备份"),
    };
    let job = Job {
        program: PROGRAM,
        task,
        title,
        trigger: wanted.trigger,
        retry: Some(Policy {
            retries: settings.retries,
            delay: settings.retry_delay.0,
            timeout: LONGEST,
            backoff: Backoff::Fixed,
        }),
        must_be_done: true,
    };
    let place = RepositoryLocation::primary(config)?;
    let mut recorded = Vec::new();
    let result = work::recorded(&recorder, &job, |run| {
        let known = || {
            if let Ok((mut client, _)) = recorder.connect() {
                recorded = catalog::recorded(&mut client, &place).unwrap_or_default();
            }
        };
        let done = once(config, wanted, run, bars, known).map_err(|failure| {
            // Whoever started it by hand sees what is wrong at once, and does not wait for what will not pass.
            let passing = failure.error.downcast_ref::<CaptureError>();
            let passes = failure.is_busy() || passing.is_some_and(CaptureError::is_passing);
            if wanted.trigger == Trigger::Manual && !passes {
                failure.lasting()
            } else {
                failure
            }
        })?;
        Ok(ended(done))
    });
    alerts::flush_now(config);
    let done = result?;
    if let Ok((mut client, _)) = recorder.connect() {
        let marked = catalog::mark_checked(&mut client, &done.backups, &[], Checked::Structure)
            .and_then(|()| {
                catalog::reconcile(&mut client, &place, recorded, &done.there, &done.stranded)
            });
        if let Err(e) = marked {
            tracing::warn!(
                "could not bring oa.backups up to date: {}",
                oa_core::pg::describe(&e)
            );
        }
    }
    listing(&place, &done.backups)
        .print(format)
        .map_err(anyhow::Error::from)?;
    for trouble in &done.troubles {
        tracing::error!("{trouble}");
    }
    Ok(if done.troubles.is_empty() {
        exit::OK
    } else {
        exit::FAILED
    })
}

/// Calls `opened` when the repository is this program's, before anything changes in it.
fn once(
    config: &Config,
    wanted: Wanted,
    run: &RunStart,
    bars: &ProgressReporter,
    opened: impl FnOnce(),
) -> Result<Done, Failure> {
    let mut session = Session::open(config, run, wanted.kind, bars)?;
    opened();
    if let Some(rate) = wanted.limit_rate {
        session.limit_rate(rate);
    }
    match wanted.level {
        Level::Full => session.full(),
        Level::Incremental => session.incremental(),
    }
}

fn ended(mut done: Done) -> Ended<Done> {
    let mut details = Map::new();
    let ids: Vec<&str> = done.backups.iter().map(|b| b.id.as_str()).collect();
    details.insert("backups".to_owned(), json!(ids));
    let added: u64 = done.backups.iter().map(|b| b.meta.stored.added_bytes).sum();
    details.insert("added_bytes".to_owned(), json!(added));
    if let Some(why) = &done.instead {
        details.insert("full_instead".to_owned(), json!(why));
    }
    let status = if done.troubles.is_empty() {
        Status::Success
    } else {
        Status::Partial
    };
    Ended {
        status,
        fetched: done.backups.iter().map(|b| b.meta.stored.files).sum(),
        error: (!done.troubles.is_empty()).then(|| done.troubles.join("; ")),
        batches: std::mem::take(&mut done.batches),
        details,
        ..Ended::success(done)
    }
}

fn preview(config: &Config, wanted: Wanted) -> Result<u8, Failure> {
    let run = oa_core::runs::RunStart::now(
        PROGRAM,
        env!("CARGO_PKG_VERSION"),
        "",
        "",
        wanted.trigger,
        LONGEST,
    );
    let session = Session::open(config, &run, wanted.kind, &ProgressReporter::hidden())?;
    let Server {
        version,
        size_bytes,
        database,
        database_bytes,
        ..
    } = session.server();
    let what = match (session.kind(), wanted.level) {
        (oa_repository::Kind::Physical, Level::Full) => {
            format!("copy the whole cluster ({}) with pg_basebackup, check it, store it, and the log up to its end", Bytes(*size_bytes))
        }
        (oa_repository::Kind::Physical, Level::Incremental) => {
            "receive the log since the last backup with pg_receivewal, check it for gaps, and store it".to_owned()
        }
        _ => format!("dump database {database} ({}) with pg_dump and store it", Bytes(*database_bytes)),
    };
    let place = RepositoryLocation::primary(config)?.shown();
    oa_core::cli::print(&format!(
        "would {what}\nfrom PostgreSQL {} into {place}; nothing was done\n",
        version / 10_000
    ))
    .map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}

/// Backups as they are listed.
#[must_use]
pub fn listing(place: &RepositoryLocation, backups: &[Backup]) -> Listing {
    listing_of(place, backups, &BTreeMap::new())
}

/// The same, with why some of them cannot be restored.
#[must_use]
pub fn listing_of(
    place: &RepositoryLocation,
    backups: &[Backup],
    stranded: &BTreeMap<String, String>,
) -> Listing {
    let mut listing = Listing::new(&[
        ("short_id", "id"),
        ("kind", "kind"),
        ("level", "level"),
        ("restorable_to", "restorable to (UTC)"),
        ("size", "size"),
        ("added", "added"),
        ("seconds", "seconds"),
    ]);
    for b in backups {
        let mut row = row(place, b);
        row["unrestorable"] = json!(stranded.get(&b.id));
        listing.push(row);
    }
    listing
}

fn row(place: &RepositoryLocation, b: &Backup) -> Value {
    let m = &b.meta;
    let seconds = (b.finished_at() - m.started_at).as_seconds_f64();
    json!({
        "id": b.id, "short_id": b.short_id(), "run_id": m.run_id, "repository": place.shown(), "kind": m.kind, "level": m.level,
        "full": m.full, "host": m.host, "database": m.database, "server_version": m.server_version, "system_id": m.system_id,
        "timeline": m.timeline, "start_lsn": m.wal.as_ref().map(|w| w.from).or(m.start_lsn),
        "end_lsn": m.wal.as_ref().map(|w| w.to).or(m.end_lsn),
        "restorable_from": time(m.restorable_from), "restorable_to": time(m.restorable_to), "started_at": time(m.started_at),
        "finished_at": time(b.finished_at()), "seconds": (seconds * 10.0).round() / 10.0, "files": m.stored.files,
        "size_bytes": m.stored.size_bytes, "added_bytes": m.stored.added_bytes, "size": Bytes(m.stored.size_bytes).to_string(),
        "added": Bytes(m.stored.added_bytes).to_string(), "tables": m.mark.as_ref().map(|k| k.tables.len()),
    })
}

fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}
