//! The chain of a server's backups: which full one its WAL goes on from, how far that is stored, and what is said of a new one.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use oa_core::base::supervise::ProcessId;
use oa_core::model::run::RunStart;
use oa_repository::{Backup, Counts, Kind, Level, Lsn, MAX_CLOCK_SKEW, Meta};

use crate::capture::server::Server;
use crate::capture::wal::Since;

pub(crate) fn is_of(server: &Server, backup: &Backup) -> bool {
    backup.meta.system_id == server.system_id
}

/// The full backup that the WAL continues from. One of the future was made while a clock was wrong: the server's, whose times they are.
pub(crate) fn newest_full(server: &Server, backups: &[Backup]) -> Option<Backup> {
    let now = server.clock() + MAX_CLOCK_SKEW;
    backups
        .iter()
        .filter(|b| is_of(server, b) && b.meta.timeline <= server.timeline)
        .filter(|b| b.meta.kind == Kind::Physical && b.meta.level == Level::Full)
        .filter(|b| b.meta.restorable_to <= now)
        .max_by_key(|b| b.meta.restorable_to)
        .cloned()
}

/// What is stored of a full backup's WAL.
pub(crate) fn since(server: &Server, backups: &[Backup], full: &Backup) -> Since {
    let full_start = full.meta.start_lsn.unwrap_or(Lsn(0));
    let mine = || backups.iter().filter(|b| is_of(server, b));
    let of_it = mine().filter(|b| b.meta.full.as_ref() == Some(&full.id));
    let ends = |b: &Backup| b.meta.wal.as_ref().map(|w| w.to);
    Since {
        full_start,
        end: of_it.filter_map(ends).max().unwrap_or(full_start),
        before: mine()
            .filter_map(ends)
            .filter(|to| *to <= full_start)
            .max()
            .unwrap_or(Lsn(0)),
    }
}

/// What can no longer be restored, because the WAL that was stored before and the new WAL, which begins there, do not meet.
pub(crate) fn lost_before(server: &Server, before: &[Backup], begins: Lsn) -> Option<String> {
    let end = before
        .iter()
        .filter(|b| is_of(server, b) && b.meta.timeline <= server.timeline)
        .filter(|b| b.meta.wal.is_some())
        .max_by_key(|b| b.meta.wal.as_ref().map(|w| w.to))?;
    let ended = end.meta.wal.as_ref()?.to;
    (begins > ended).then(|| {
        format!(
            "the WAL between {ended} ({}) and {begins} is lost: no time from then to the new full backup can be restored",
            end.meta.restorable_to.format("%Y-%m-%d %H:%M:%S UTC")
        )
    })
}

/// What is said of a backup that a run makes now, before more is known.
pub(crate) fn meta(
    run: &RunStart,
    server: &Server,
    (kind, level): (Kind, Level),
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    began: DateTime<Utc>,
) -> Meta {
    Meta {
        oa: 1,
        run_id: run.id,
        kind,
        level,
        full: None,
        host: ProcessId::current().host,
        database: server.database.clone(),
        server_version: server.version,
        system_id: server.system_id.clone(),
        timeline: server.timeline,
        start_lsn: None,
        end_lsn: None,
        wal: None,
        restorable_from: from,
        restorable_to: to,
        started_at: began,
        captured_at: server.clock(),
        finished_at: None,
        settings: BTreeMap::new(),
        tablespaces: BTreeMap::new(),
        damaged: Vec::new(),
        mark: None,
        stored: Counts::default(),
    }
}
