//! One file per command.

pub(crate) mod backup;
pub(crate) mod copy;
pub(crate) mod doctor;
pub(crate) mod init;
pub(crate) mod list;
mod overview;
pub(crate) mod pin;
pub(crate) mod prune;
pub(crate) mod repair;
pub(crate) mod status;
pub(crate) mod stream;
pub(crate) mod verify;

use chrono::{DateTime, Utc};
use oa_core::app::cli::{self, Busy, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::model::run::Trigger;
use oa_core::pg::{self, Settings};
use oa_repository::{RepositoryError, RepositoryLocation};

use crate::PROGRAM;
use crate::error::BackupError;

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Config(e) => e.into(),
            BackupError::Postgres(e) => e.into(),
            BackupError::Repository(e) => e.into(),
            BackupError::NotAllowed(_) => Self::new(exit::REFUSED, error),
            BackupError::Busy(reason) => Busy(reason).into(),
            other => Self::new(exit::FAILED, other),
        }
    }
}

/// The primary repository, or the secondary one.
fn location(config: &Config, secondary: bool) -> Result<RepositoryLocation, Failure> {
    if !secondary {
        return Ok(RepositoryLocation::primary(config)?);
    }
    RepositoryLocation::secondary(config)?.ok_or_else(|| {
        RepositoryError::Place(
            "there is no [backup.copy] in the configuration; see docs/backup.md".to_owned(),
        )
        .into()
    })
}

/// Whether this machine may only add to the repository.
fn is_append_only(config: &Config, secondary: bool) -> bool {
    let copy = config.backup.as_ref().and_then(|b| b.copy.as_ref());
    secondary && copy.is_some_and(|copy| copy.append_only)
}

/// Refuses what takes something out of a repository to which this machine may only add.
fn check_may_delete(config: &Config, secondary: bool, command: &str) -> Result<(), Failure> {
    if !is_append_only(config, secondary) {
        return Ok(());
    }
    Err(Failure::new(
        exit::REFUSED,
        anyhow::anyhow!(
            "append_only in [backup.copy] says that this machine cannot delete there; run oa-backup {command} --copy on a machine whose key can, with a configuration without it"
        ),
    ))
}

fn trigger(cron: bool) -> Trigger {
    if cron { Trigger::Cron } else { Trigger::Manual }
}

fn print(text: &str) -> Result<(), Failure> {
    cli::print(text).map_err(|e| anyhow::Error::from(e).into())
}

/// The server's clock; this machine's where it does not answer.
fn clock(config: &Config) -> DateTime<Utc> {
    let client = Settings::from_config(config, PROGRAM)
        .ok()
        .and_then(|settings| pg::connect(&settings).ok());
    let asked = client.and_then(|mut c| c.query_one("SELECT clock_timestamp()", &[]).ok());
    asked.map_or_else(Utc::now, |row| row.get(0))
}

/// The first digits of a backup's id, as they are shown.
fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}
