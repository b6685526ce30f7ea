//! `oa-backup status`: what could be lost now, and how long a restore takes, in one sentence.

use chrono::{DateTime, TimeDelta, Utc};
use oa_core::alerts::human_duration;
use oa_core::cli::{self, Failure};
use oa_core::config::{Bytes, Config, Locale};
use oa_core::exit;
use oa_core::output::Format;
use oa_core::pg::{self, Settings};
use serde_json::json;

use super::list::place;
use crate::PROGRAM;
use crate::repository::{Backup, Bars, Kind, Level};
use crate::retain::CLOCKS_DIFFER;

/// Prints it. Exit code 1 when the objectives of `[backup]` are not met.
///
/// # Errors
/// When the repository cannot be opened.
pub fn run(config: &Config, format: Format) -> Result<u8, Failure> {
    let settings = config.backup_settings()?;
    let place = place(config, false)?;
    let repository = place.open(&Bars::hidden())?;
    let backups = repository.backups()?;
    let now = Utc::now();
    let age = |b: &Backup| (now - b.meta.restorable_to).to_std().unwrap_or_default();
    // What a wrong clock has dated into the future counts only where there is nothing else.
    let is_future = |b: &Backup| b.meta.restorable_to > now + CLOCKS_DIFFER;
    let last = backups
        .iter()
        .filter(|b| b.meta.kind != Kind::Files)
        .max_by_key(|b| (!is_future(b), b.meta.restorable_to));
    // As oa.repository_state has it: the weekly dump beside physical backups is no full backup that the log goes on from.
    let full = last.and_then(|last| {
        let lately = last.meta.restorable_to - TimeDelta::days(1)..=last.meta.restorable_to;
        let physical = backups
            .iter()
            .any(|b| b.meta.kind == Kind::Physical && lately.contains(&b.meta.restorable_to));
        let kind = if physical {
            Kind::Physical
        } else {
            last.meta.kind
        };
        backups
            .iter()
            .filter(|b| b.meta.kind == kind && b.meta.level == Level::Full)
            .max_by_key(|b| (!is_future(b), b.meta.restorable_to))
    });
    let drill = last_drill(config);
    let future = backups.iter().find(|b| is_future(b));
    let late = last.is_none_or(|b| is_future(b) || age(b) > settings.rpo.0)
        || full.is_none_or(|b| age(b) > settings.full_every.0);
    let size = repository.size_bytes()?;
    if format == Format::Json {
        let value = json!({
            "repository": place.shown(), "backups": backups.len(), "size_bytes": size, "ok": !late,
            "newest": last.map(|b| &b.id), "restorable_to": last.map(|b| b.meta.restorable_to),
            "newest_full": full.map(|b| &b.id), "full_at": full.map(|b| b.meta.restorable_to),
            "rpo_seconds": last.map(|b| age(b).as_secs()), "rto_seconds": drill.as_ref().and_then(|d| d.1),
            "drill_at": drill.as_ref().map(|d| d.0), "drill_ok": drill.as_ref().map(|d| d.2),
        });
        cli::print(&format!("{value}\n")).map_err(anyhow::Error::from)?;
    } else {
        let text = match last {
            None => format!(
                "There is no backup in {}: everything would be lost. Make one with: oa-backup full",
                place.shown()
            ),
            Some(b) => format!(
                "If this machine died now, {} of changes would be lost; {}.",
                human_duration(age(b), Locale::En),
                match &drill {
                    Some((at, Some(seconds), true)) => format!(
                        "the last drill ({}) restored in {}",
                        at.with_timezone(&config.timezone).format("%Y-%m-%d"),
                        human_duration(std::time::Duration::from_secs_f64(*seconds), Locale::En)
                    ),
                    Some((at, _, _)) => format!(
                        "the last drill ({}) failed",
                        at.with_timezone(&config.timezone).format("%Y-%m-%d")
                    ),
                    None => "no restore was ever rehearsed: oa-restore drill".to_owned(),
                }
            ),
        };
        let full = full.map_or_else(String::new, |b| {
            format!(
                "The newest full backup is {} ({}, {}).\n",
                b.short_id(),
                b.meta.kind.as_str(),
                b.meta
                    .restorable_to
                    .with_timezone(&config.timezone)
                    .format("%Y-%m-%d %H:%M:%S")
            )
        });
        let future = future.map_or_else(String::new, |b| {
            format!(
                "Backup {} is of the future ({}): the clock of this machine or of the server is wrong, or was.\n",
                b.short_id(),
                b.meta.restorable_to.with_timezone(&config.timezone).format("%Y-%m-%d %H:%M:%S")
            )
        });
        let rest = format!(
            "{} backups, {} in {}\n",
            backups.len(),
            Bytes(size),
            place.shown()
        );
        cli::print(&format!("{text}\n{full}{future}{rest}")).map_err(anyhow::Error::from)?;
    }
    Ok(if late { exit::FAILED } else { exit::OK })
}

/// When, how long, and whether it went well; `None` also when PostgreSQL does not answer.
fn last_drill(config: &Config) -> Option<(DateTime<Utc>, Option<f64>, bool)> {
    let mut client = pg::connect(&Settings::from_config(config, PROGRAM).ok()?).ok()?;
    let row = client
        .query_opt(
            "SELECT started_at, rto_seconds, ok FROM oa.drills ORDER BY started_at DESC LIMIT 1",
            &[],
        )
        .ok()??;
    Some((row.get(0), row.get(1), row.get(2)))
}
