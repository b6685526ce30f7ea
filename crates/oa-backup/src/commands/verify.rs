//! `oa-backup verify`: is everything there, and with `--read-data` does every byte read back as it was written?

use oa_core::cli::Failure;
use oa_core::config::Config;
use oa_core::exit;
use oa_core::output::{Format, Listing};
use oa_core::runs::work::{self, Ended, Job};
use oa_core::runs::{Recorder, Status, Trigger};
use serde_json::json;

use super::list::place;
use crate::PROGRAM;
use crate::catalog::{self, Checked};
use crate::repository::{Backup, Bars, Damage, Place};

/// What is verified.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Only the backup whose id begins so.
    pub id: Option<String>,
    /// Read every byte.
    pub read_data: bool,
    /// The second repository.
    pub second: bool,
    /// Who started it.
    pub trigger: Trigger,
}

/// Verifies. A damaged backup is a failure; `oa-alert check` tells of it, or else the run like any other.
///
/// # Errors
/// When the repository cannot be opened; exit code 1 when something is damaged.
pub fn run(config: &Config, wanted: &Wanted, bars: &Bars, format: Format) -> Result<u8, Failure> {
    let recorder = Recorder::open(config, PROGRAM)?;
    let place = place(config, wanted.second)?;
    let job = Job {
        trigger: wanted.trigger,
        ..Job::by_hand(PROGRAM, "backup-verify", "备份校验")
    };
    let checked = if wanted.read_data {
        Checked::Data
    } else {
        Checked::Structure
    };
    let result = work::recorded(&recorder, &job, |_| {
        let repository = place.open(bars)?;
        let (mut backups, mut damages) = repository.readable_backups()?;
        if let Some(id) = &wanted.id {
            damages.retain(|d| d.backup.as_ref().is_some_and(|b| b.starts_with(id)));
            backups.retain(|b| b.id.starts_with(id));
            if backups.is_empty() && damages.is_empty() {
                return Err(crate::repository::RepositoryError::NoBackup(id.clone()).into());
            }
        }
        let files = repository.check_files()?;
        damages.retain(|d| !files.iter().any(|f| f.backup == d.backup));
        damages.extend(files);
        if !lacks_index(&damages) {
            damages.extend(repository.check(&backups, wanted.read_data)?);
        }
        let mut ended = Ended::success((backups, damages));
        let (backups, damages) = &ended.value;
        ended.fetched = backups.len() as u64;
        ended.batches.push(catalog::rows(&place, backups));
        if let Some(first) = damages.first() {
            ended.status = Status::Failed;
            ended.error = Some(format!(
                "{} finding(s) in {}: {}",
                damages.len(),
                place.shown(),
                told(first)
            ));
            ended.told_by_check = !wanted.second
                && !config.alert.is_off("backup_unverified")
                && is_on_record(&recorder, &place, backups, damages, checked);
        }
        ended
            .details
            .insert("read_data".to_owned(), json!(wanted.read_data));
        Ok(ended)
    });
    oa_core::alerts::flush_now(config);
    let (backups, damages) = result?;
    let done: &[Backup] = if lacks_index(&damages) { &[] } else { &backups };
    if let Ok((mut client, _)) = recorder.connect()
        && let Err(e) = catalog::mark_checked(&mut client, done, &damages, checked)
    {
        tracing::warn!(
            "could not record the verification: {}",
            oa_core::pg::describe(&e)
        );
    }
    listing(&backups, &damages)
        .print(format)
        .map_err(anyhow::Error::from)?;
    for damage in &damages {
        tracing::error!("{}", told(damage));
    }
    if damages.is_empty() {
        return Ok(exit::OK);
    }
    let rest = if lacks_index(&damages) {
        "no backup was checked"
    } else {
        "the backups without findings are whole"
    };
    tracing::error!(
        "{rest}; take damaged files out with oa-backup repair, then make a new full one"
    );
    Ok(exit::FAILED)
}

/// Marks the damaged backups, before the run is recorded: killed between the two, `oa-alert check` tells of them all the same.
/// Returns whether it will, so that the run need not.
fn is_on_record(
    recorder: &Recorder,
    place: &Place,
    backups: &[Backup],
    damages: &[Damage],
    checked: Checked,
) -> bool {
    let ids: Vec<&str> = damages.iter().filter_map(|d| d.backup.as_deref()).collect();
    let damaged: Vec<Backup> = backups
        .iter()
        .filter(|b| ids.contains(&b.id.as_str()))
        .cloned()
        .collect();
    let Ok((mut client, _)) = recorder.connect() else {
        return false;
    };
    let marked = catalog::mark_checked(&mut client, &damaged, damages, checked).and_then(|()| {
        client.query_one(
            "SELECT EXISTS (SELECT FROM oa.backups WHERE repository = $1 AND id = ANY($2) AND removed_at IS NULL AND check_error IS NOT NULL)",
            &[&place.shown(), &ids],
        )
    });
    marked.is_ok_and(|row| row.get(0))
}

/// Without its index the engine finds nothing, so no backup can be checked, nor restored before `oa-backup repair` has made it anew.
fn lacks_index(damages: &[Damage]) -> bool {
    damages.iter().any(|d| d.what.starts_with("index/"))
}

fn told(damage: &Damage) -> String {
    match &damage.backup {
        Some(id) => format!("backup {}: {}", id.get(..8).unwrap_or(id), damage.what),
        None => damage.what.clone(),
    }
}

fn listing(backups: &[Backup], damages: &[Damage]) -> Listing {
    let mut listing = Listing::new(&[
        ("short_id", "id"),
        ("kind", "kind"),
        ("level", "level"),
        ("result", "result"),
        ("finding", "finding"),
    ]);
    let unchecked = lacks_index(damages);
    let of = |id: &str| {
        damages
            .iter()
            .filter(move |d| d.backup.as_deref() == Some(id))
            .map(|d| d.what.as_str())
            .collect::<Vec<_>>()
    };
    for b in backups {
        let found = of(&b.id);
        listing.push(json!({
            "id": b.id, "short_id": b.short_id(), "kind": b.meta.kind, "level": b.meta.level,
            "result": if !found.is_empty() { "damaged" } else if unchecked { "not checked" } else { "ok" }, "finding": found.first(), "findings": found,
        }));
    }
    let known = |d: &&Damage| {
        d.backup
            .as_ref()
            .is_none_or(|id| !backups.iter().any(|b| b.id == *id))
    };
    for d in damages.iter().filter(known) {
        let id = d.backup.as_deref().unwrap_or("");
        listing.push(json!({
            "id": id, "short_id": id.get(..8), "kind": null, "level": null, "result": "damaged", "finding": d.what, "findings": [d.what],
        }));
    }
    listing
}
