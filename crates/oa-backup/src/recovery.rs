//! A backup that is listed is one that recovered: `oa-restore` tries it in a private server, and records what came of it.

use std::io;
use std::time::Duration;

use chrono::{DateTime, Utc};
use oa_core::app::config::Config;
use oa_core::app::{exit, sibling};
use oa_core::base::supervise::readable;
use oa_repository::{Backup, Kind, Level};
use serde::Deserialize;

const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// What `oa-restore drill --quick` prints.
#[derive(Debug, Deserialize)]
struct Answer {
    recovered_to: Option<DateTime<Utc>>,
    rto_seconds: Option<f64>,
    error: Option<String>,
}

/// Whether there is a new full physical backup among these.
pub(crate) fn is_due(backups: &[Backup]) -> bool {
    backups
        .iter()
        .any(|b| b.meta.kind == Kind::Physical && b.meta.level == Level::Full)
}

/// Recovers the newest physical backup. Returns what is wrong, if anything is; where it could not even be tried, the run of
/// `oa-restore` itself has failed and is reported.
pub(crate) fn verify(config: &Config) -> Option<String> {
    if !config.backup.as_ref().is_some_and(|b| b.verify_recovery) {
        return None;
    }
    let arguments = ["drill", "--quick", "--cron", "--format", "json"];
    let done = match sibling::run("oa-restore", config, &arguments, LIMIT) {
        Ok(done) => done,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Some(
                "nobody tried whether the newest backup recovers: oa-restore is not installed beside oa-backup; install it there, or set verify_recovery = false in [backup]".to_owned(),
            );
        }
        Err(e) => {
            return Some(format!(
                "could not try whether the newest backup recovers: {e}"
            ));
        }
    };
    let answer = String::from_utf8_lossy(&done.stdout)
        .lines()
        .last()
        .and_then(|line| serde_json::from_str::<Answer>(line).ok());
    match answer {
        Some(Answer {
            recovered_to: Some(to),
            rto_seconds,
            ..
        }) if done.status.code() == Some(i32::from(exit::OK)) => {
            let to = to.with_timezone(&config.timezone);
            let to = to.format("%Y-%m-%d %H:%M:%S %Z");
            let seconds = rto_seconds.unwrap_or_default();
            tracing::info!("the newest backup recovers to {to}, in {seconds:.1} s");
            None
        }
        Some(Answer {
            error: Some(error), ..
        }) => Some(format!(
            "the newest backup does not recover: {error}; make another one with oa-backup full, and try older ones with oa-restore drill ID"
        )),
        // Another one tries it now.
        None if done.status.code() == Some(i32::from(exit::REFUSED)) => {
            tracing::warn!("{}", readable(&done.stderr).trim());
            None
        }
        _ => Some(format!(
            "could not try whether the newest backup recovers (verify_recovery = false in [backup] turns that off): {}",
            readable(&done.stderr).trim()
        )),
    }
}
