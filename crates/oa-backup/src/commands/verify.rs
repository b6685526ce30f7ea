//! `oa-backup verify`: is everything there, and with `--read-data` does every byte read back as it was written?

use std::collections::BTreeSet;

use chrono_tz::Tz;
use oa_core::cli::Failure;
use oa_core::config::Config;
use oa_core::exit;
use oa_core::output::{Format, Listing};
use oa_core::runs::work::{self, Ended, Job};
use oa_core::runs::{Recorder, Status};
use serde_json::json;

use super::{location, short, trigger};
use crate::PROGRAM;
use crate::catalog::{self, Checked};
use oa_repository::timeline;
use oa_repository::{Backup, Damage, ProgressReporter, Repository, RepositoryLocation};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the backup whose id begins so
    id: Option<String>,
    /// Read every byte back
    #[arg(long)]
    read_data: bool,
    /// The secondary repository, of [backup.copy]
    #[arg(long)]
    copy: bool,
    /// Started by cron: noted in the run log
    #[arg(long)]
    pub(crate) cron: bool,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Verifies. A damaged backup is a failure; `oa-alert check` tells of it, or else the run like any other.
///
/// # Errors
/// When the repository cannot be opened; exit code 1 when something is damaged.
pub(crate) fn run(
    config: &Config,
    args: &Args,
    reporter: &ProgressReporter,
) -> Result<u8, Failure> {
    let recorder = Recorder::open(config, PROGRAM)?;
    let place = location(config, args.copy)?;
    let job = Job {
        trigger: trigger(args.cron),
        ..Job::by_hand(PROGRAM, "backup-verify", "备份校验")
    };
    let checked = if args.read_data {
        Checked::Data
    } else {
        Checked::Structure
    };
    let result = work::recorded(&recorder, &job, |_| {
        let repository = place.open_recorded(config, reporter)?;
        let (mut backups, mut damages, mut absent) = list(&recorder, &repository, config.timezone)?;
        if let Some(id) = &args.id {
            damages.retain(|d| d.backup.as_ref().is_some_and(|b| b.starts_with(id)));
            absent
                .damages
                .retain(|d| d.backup.as_ref().is_some_and(|b| b.starts_with(id)));
            backups.retain(|b| b.id.starts_with(id));
            if backups.is_empty() && damages.is_empty() && absent.damages.is_empty() {
                return Err(oa_repository::RepositoryError::NoBackup(id.clone()).into());
            }
        }
        let files = repository.check_files()?;
        damages.retain(|d| !files.iter().any(|f| f.backup == d.backup));
        damages.extend(files);
        if !lacks_index(&damages) {
            damages.extend(repository.check(&backups, args.read_data)?);
        }
        let removed = removed_meanwhile(&recorder, &repository, &backups);
        backups.retain(|b| !removed.contains(&b.id));
        damages.retain(|d| d.backup.as_ref().is_none_or(|id| !removed.contains(id)));
        if let Some(path) = place.open_to_others() {
            tracing::warn!(
                "other users of this machine may read or write {}; close it: oa-backup repair, or chmod -R go= {}",
                path.display(),
                place.shown()
            );
        }
        let mut ended = Ended::success((backups, damages, absent.damages));
        let (backups, damages, gone) = &ended.value;
        ended.fetched = backups.len() as u64;
        ended.batches.push(catalog::rows(&place, backups));
        let texts = one_line_each(damages.iter().chain(gone));
        if let Some(first) = texts.first() {
            ended.status = Status::Failed;
            ended.error = Some(format!(
                "{} finding(s) in {}: {first}",
                texts.len(),
                place.shown(),
            ));
            let damage_is = damages.is_empty()
                || !config.alert.is_off("backup_unverified")
                    && is_on_record(&recorder, &place, backups, damages, checked);
            let absence_is =
                gone.is_empty() || absent.recorded && !config.alert.is_off("backup_missing");
            ended.told_by_check = !args.copy && damage_is && absence_is;
        }
        ended
            .details
            .insert("read_data".to_owned(), json!(args.read_data));
        Ok(ended)
    });
    oa_core::alerts::flush_now(config);
    let (backups, damages, gone) = result?;
    let done: &[Backup] = if lacks_index(&damages) { &[] } else { &backups };
    if let Ok((mut client, _)) = recorder.connect()
        && let Err(e) = catalog::mark_checked(&mut client, done, &damages, checked)
    {
        tracing::warn!(
            "could not record the verification: {}",
            oa_core::pg::describe(&e)
        );
    }
    listing(&backups, &damages, &gone)
        .print(args.format)
        .map_err(anyhow::Error::from)?;
    for text in one_line_each(damages.iter().chain(&gone)) {
        tracing::error!("{text}");
    }
    if !gone.is_empty() && args.copy {
        tracing::error!(
            "what the first repository still has is copied anew by oa-backup copy; if the rest is lost for good: oa-backup prune --missing --copy"
        );
    } else if !gone.is_empty() {
        tracing::error!(
            "look for what is missing in another copy of the repository, and put its files back; if it is lost for good: oa-backup full, then oa-backup prune --missing"
        );
    }
    if damages.is_empty() {
        return Ok(if gone.is_empty() {
            exit::OK
        } else {
            exit::FAILED
        });
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

/// What should be there and is not, or is there and restores nothing.
struct Absent {
    damages: Vec<Damage>,
    /// `oa-alert check` sees it as well.
    recorded: bool,
}

/// Lists the backups, and finds which are missing and which have lost the full backup that they need.
fn list(
    recorder: &Recorder,
    repository: &Repository,
    zone: Tz,
) -> Result<(Vec<Backup>, Vec<Damage>, Absent), Failure> {
    let place = repository.place();
    let mut client = recorder.connect().ok().map(|(client, _)| client);
    let recorded = client.as_mut().map(|c| catalog::recorded(c, place));
    let (backups, damages) = repository.readable_backups()?;
    // Without its index nobody can say what leads to what; the damage is named.
    let stranded = timeline::stranded(repository, &backups).unwrap_or_default();
    let mut there: BTreeSet<String> = backups.iter().map(|b| b.id.clone()).collect();
    there.extend(damages.iter().filter_map(|d| d.backup.clone()));
    let gone = match (&mut client, recorded) {
        (Some(client), Some(Ok(recorded))) => {
            catalog::reconcile(client, place, recorded, &there, &stranded).ok()
        }
        _ => None,
    };
    if gone.is_none() {
        tracing::warn!("without PostgreSQL nobody knows which backups should be there as well");
    }
    let finding = |id: &String, what: String| Damage {
        backup: Some(id.clone()),
        what,
    };
    let mut absent = Absent {
        damages: Vec::new(),
        recorded: gone.is_some(),
    };
    for missing in gone.iter().flatten() {
        absent
            .damages
            .push(finding(&missing.id, missing.what(zone)));
    }
    for (id, why) in stranded {
        absent.damages.push(finding(&id, why));
    }
    Ok((backups, damages, absent))
}

/// Each finding once, with the backups that it concerns.
fn one_line_each<'a>(damages: impl Iterator<Item = &'a Damage>) -> Vec<String> {
    let mut whose: Vec<(&str, Vec<&str>)> = Vec::new();
    for damage in damages {
        let id = damage.backup.as_deref().map(short);
        match whose.iter_mut().find(|(what, _)| *what == damage.what) {
            Some((_, ids)) => ids.extend(id),
            None => whose.push((&damage.what, id.into_iter().collect())),
        }
    }
    let text = |(what, ids): &(&str, Vec<&str>)| match ids.as_slice() {
        [] => (*what).to_owned(),
        [id] => format!("backup {id}: {what}"),
        [first, rest @ ..] => format!("{what} (backup {first} and {} more)", rest.len()),
    };
    whose.iter().map(text).collect()
}

/// Marks the damaged backups, before the run is recorded: killed between the two, `oa-alert check` tells of them all the same.
/// Returns whether it will, so that the run need not.
fn is_on_record(
    recorder: &Recorder,
    place: &RepositoryLocation,
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

/// What `oa-backup prune` has removed, and recorded as removed, while this looked at it: no finding, and no backup any more.
fn removed_meanwhile(
    recorder: &Recorder,
    repository: &Repository,
    backups: &[Backup],
) -> BTreeSet<String> {
    let Ok((there, unreadable)) = repository.readable_backups() else {
        return BTreeSet::new();
    };
    let there: BTreeSet<&str> = there
        .iter()
        .map(|b| b.id.as_str())
        .chain(unreadable.iter().filter_map(|d| d.backup.as_deref()))
        .collect();
    let gone: Vec<&str> = backups
        .iter()
        .map(|b| b.id.as_str())
        .filter(|id| !there.contains(id))
        .collect();
    if gone.is_empty() {
        return BTreeSet::new();
    }
    let removed = recorder.connect().map(|(mut client, _)| {
        client.query(
            "SELECT id FROM oa.backups WHERE id = ANY($1) AND removed_at IS NOT NULL",
            &[&gone],
        )
    });
    match removed {
        Ok(Ok(rows)) => rows.iter().map(|row| row.get(0)).collect(),
        _ => BTreeSet::new(),
    }
}

/// Without its index the engine finds nothing, so no backup can be checked, nor restored before `oa-backup repair` has made it anew.
fn lacks_index(damages: &[Damage]) -> bool {
    damages.iter().any(|d| d.what.starts_with("index/"))
}

fn listing(backups: &[Backup], damages: &[Damage], gone: &[Damage]) -> Listing {
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
            .chain(gone)
            .filter(move |d| d.backup.as_deref() == Some(id))
            .map(|d| d.what.as_str())
            .collect::<Vec<_>>()
    };
    for b in backups {
        let found = of(&b.id);
        let stranded = gone.iter().any(|d| d.backup.as_ref() == Some(&b.id));
        let wrong = if stranded { "unrestorable" } else { "damaged" };
        listing.push(json!({
            "id": b.id, "short_id": b.short_id(), "kind": b.meta.kind, "level": b.meta.level,
            "result": if !found.is_empty() { wrong } else if unchecked { "not checked" } else { "ok" }, "finding": found.first(), "findings": found,
        }));
    }
    let known = |d: &&Damage| {
        d.backup
            .as_ref()
            .is_none_or(|id| !backups.iter().any(|b| b.id == *id))
    };
    for d in damages.iter().chain(gone).filter(known) {
        let id = d.backup.as_deref().unwrap_or("");
        let result = if gone.contains(d) {
            "missing"
        } else {
            "damaged"
        };
        listing.push(json!({
            "id": id, "short_id": id.get(..8), "kind": null, "level": null, "result": result, "finding": d.what, "findings": [d.what],
        }));
    }
    listing
}
