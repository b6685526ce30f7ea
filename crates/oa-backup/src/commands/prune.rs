//! `oa-backup prune`: what retention no longer keeps goes.

use chrono::Utc;
use oa_core::cli::{self, Failure};
use oa_core::config::{Bytes, Config};
use oa_core::exit;
use oa_core::output::Format;
use oa_core::runs::work::{self, Ended, Job};
use oa_core::runs::{Recorder, Trigger};
use serde_json::json;

use super::list::place;
use super::take::listing;
use crate::PROGRAM;
use crate::catalog;
use crate::repository::{Backup, Bars};
use crate::retain::{Keep, removable};
use crate::timeline;

/// How it is done.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Only say what would go.
    pub dry_run: bool,
    /// The second repository.
    pub second: bool,
    /// Do not ask.
    pub yes: bool,
    /// Who started it.
    pub trigger: Trigger,
}

/// Removes backups by the rules of `[backup]`, and bytes that nothing uses.
///
/// # Errors
/// When the repository cannot be opened or written; 77 off a terminal without `--yes`.
pub fn run(config: &Config, wanted: Wanted, bars: &Bars, format: Format) -> Result<u8, Failure> {
    let settings = config.backup_settings()?;
    let keep = Keep {
        hourly: settings.keep_hourly,
        daily: settings.keep_daily,
        weekly: settings.keep_weekly,
    };
    let place = place(config, wanted.second)?;
    let repository = place.open(bars)?;
    let backups = repository.backups()?;
    let paths = timeline::paths(&repository, &backups)?;
    let going: Vec<Backup> = removable(&backups, &paths, keep, config.timezone, Utc::now())
        .into_iter()
        .map(|i| backups[i].clone())
        .collect();
    listing(&place, &going)
        .print(format)
        .map_err(anyhow::Error::from)?;
    if wanted.dry_run {
        let (now, marked) = repository.prune(true)?;
        tracing::warn!(
            "{} of {} backups would go, and {} be freed now, {} a day later; nothing was done",
            going.len(),
            backups.len(),
            Bytes(now),
            Bytes(marked)
        );
        return Ok(exit::OK);
    }
    if !going.is_empty() && wanted.trigger != Trigger::Cron {
        cli::confirm(
            &format!("Remove these {} of {} backups?", going.len(), backups.len()),
            wanted.yes,
        )?;
    }
    let recorder = Recorder::open(config, PROGRAM)?;
    let job = Job {
        trigger: wanted.trigger,
        ..Job::by_hand(PROGRAM, "backup-prune", "备份清理")
    };
    let left = work::recorded(&recorder, &job, |_| {
        if !going.is_empty() {
            repository.forget(&going)?;
        }
        oa_core::failpoint::hit("backup.forgotten");
        let (freed, marked) = repository.prune(false)?;
        let left = repository.backups()?;
        let mut ended = Ended::success(left);
        ended.batches.push(catalog::size(
            &place,
            repository.size_bytes()?,
            ended.value.len(),
        ));
        ended
            .details
            .insert("removed".to_owned(), json!(going.len()));
        ended.details.insert("freed_bytes".to_owned(), json!(freed));
        ended
            .details
            .insert("marked_bytes".to_owned(), json!(marked));
        Ok(ended)
    });
    oa_core::alerts::flush_now(config);
    let left = left?;
    let left: Vec<&str> = left.iter().map(|b| b.id.as_str()).collect();
    if let Ok((mut client, _)) = recorder.connect()
        && let Err(e) = catalog::mark_removed(&mut client, &place, &left)
    {
        tracing::warn!(
            "could not record what was removed: {}",
            oa_core::pg::describe(&e)
        );
    }
    Ok(exit::OK)
}
