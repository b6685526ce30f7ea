//! From a staged folder to a backup that is listed: stored, checked, published, and what is there afterwards.

use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;

use oa_core::base::supervise::StopSignal;
use oa_core::base::threads;
use oa_repository::timeline;
use oa_repository::{
    Backup, Checksums, CopyInProgress, Level, Meta, Repository, RepositoryError, StoredAhead,
    UnpublishedBackup,
};

use crate::capture::physical::Copied;
use crate::capture::server::Server;
use crate::catalog;
use crate::error::BackupError;
use crate::session::BackupOutcome;

/// What is there afterwards, for the records.
pub(crate) fn conclude(
    server: &Server,
    repository: &Repository,
    mut outcome: BackupOutcome,
) -> Result<BackupOutcome, BackupError> {
    let location = repository.location();
    let (all, damages) = repository.readable_backups()?;
    outcome.there = all.iter().map(|b| b.id.clone()).collect();
    outcome
        .there
        .extend(damages.into_iter().filter_map(|d| d.backup));
    outcome.unrestorable = timeline::stranded(repository, &all)?;
    if outcome.backups.iter().any(|b| b.meta.level == Level::Full) {
        let size = repository.size_bytes()?;
        outcome
            .batches
            .push(catalog::size(location, size, all.len(), server.clock()));
    }
    outcome.all = all;
    Ok(outcome)
}

/// Copies the cluster, and stores meanwhile what is complete of the copy.
pub(crate) fn copy_and_store<'a>(
    repository: &'a Repository,
    copy: &CopyInProgress,
    meta: &Meta,
    checksums: &Checksums,
    make: impl FnOnce() -> Result<Copied, BackupError>,
) -> Result<(Copied, StoredAhead<'a>), BackupError> {
    thread::scope(|scope| {
        let store = || repository.store_ahead(copy, meta, checksums);
        let storing = threads::spawn_in(scope, "store what is copied", store);
        let copied = make();
        copy.ended.store(true, Ordering::Release);
        let ahead = match storing {
            Ok(storing) => {
                storing.thread().unpark();
                storing.join().unwrap_or_else(|panic| resume_unwind(panic))
            }
            Err(e) => {
                tracing::info!("{e}");
                // Nothing, as it has ended.
                store()
            }
        };
        Ok((copied?, ahead))
    })
}

pub(crate) fn store<'a>(
    repository: &'a Repository,
    folder: &Path,
    meta: &Meta,
) -> Result<UnpublishedBackup<'a>, BackupError> {
    if StopSignal.requested() {
        return Err(BackupError::Stopped);
    }
    Ok(repository.store(folder, meta)?)
}

/// Lists what is stored, if everything it needs is there. Damage to other backups is reported, and keeps no new one from being made.
pub(crate) fn publish(
    server: &Server,
    pending: UnpublishedBackup<'_>,
    mut meta: Meta,
    problems: &mut Vec<String>,
) -> Result<Backup, BackupError> {
    let damages = match pending.check() {
        Ok(damages) => damages,
        Err(e) => {
            pending.withdraw()?;
            return Err(e.into());
        }
    };
    if let Some(own) = damages.iter().find(|d| d.backup.is_some()) {
        let what = own.what.clone();
        pending.withdraw()?;
        return Err(RepositoryError::Damaged(what).into());
    }
    if let Some(first) = damages.first() {
        let what = format!(
            "the repository is damaged elsewhere: {}; see oa-backup verify",
            first.what
        );
        if !problems.contains(&what) {
            problems.push(what);
        }
    }
    meta.finished_at = Some(server.clock());
    Ok(pending.publish(meta)?)
}
