//! `oa-backup verify`: is everything there, and with `--read-data` does every byte read back as it was written?

use std::collections::BTreeSet;

use chrono_tz::Tz;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::app::work::{self, Job, JobOutcome};
use oa_core::journal::Recorder;
use oa_core::model::run::Status;
use serde_json::json;

use super::{short, trigger};
use crate::PROGRAM;
use crate::catalog::{self, Checked, OwnClusters};
use crate::recovery;
use oa_repository::timeline;
use oa_repository::{
    Backup, Damage, ProgressReporter, Repository, RepositoryError, RepositoryLocation,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the backup whose id starts with this
    id: Option<String>,
    /// Read every byte back, and recover the newest physical backup (unless the configuration says otherwise)
    #[arg(long)]
    read_data: bool,
    /// Use the secondary repository, [backup.copy]
    #[arg(long)]
    copy: bool,
    /// Started by cron: recorded in the run log
    #[arg(long)]
    pub(crate) cron: bool,
    /// Output format of the result
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Verifies. A damaged backup is a failure; `oa-alert check` reports it, or else the run like any other.
pub(crate) fn run(
    config: &Config,
    args: &Args,
    reporter: &ProgressReporter,
) -> Result<u8, Failure> {
    let recorder = Recorder::open(config, PROGRAM)?;
    let location = super::location(config, args.copy)?;
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
        let repository = location.open_recorded(config, reporter)?;
        let found = assess(config, args, &recorder, &repository)?;
        if let Some(path) = location.open_to_others() {
            tracing::warn!(
                "other users of this machine may read or write {}; close it: oa-backup repair, or chmod -R go= {}",
                path.display(),
                location.shown()
            );
        }
        let texts = found.texts();
        let mut outcome = JobOutcome::success(found);
        let found = &outcome.value;
        outcome.fetched = found.backups.len() as u64;
        // Whose they are the database of the run log knows.
        let own = recorder
            .connect()
            .ok()
            .filter(|_| args.id.is_none())
            .and_then(|(mut client, _)| OwnClusters::ask(&mut client).ok());
        outcome
            .batches
            .extend(own.map(|own| catalog::rows(&location, own.among(&found.backups))));
        if let Some(first) = texts.first() {
            outcome.status = Status::Failed;
            outcome.error = Some(format!(
                "{} finding(s) in {}: {first}",
                texts.len(),
                location.shown(),
            ));
            let damage_is = found.damages.is_empty()
                || !config.alert.is_off("backup_unverified")
                    && is_on_record(&recorder, &location, found, checked);
            let absence_is = found.absent.damages.is_empty()
                || found.absent.recorded && !config.alert.is_off("backup_missing");
            outcome.reported_by_check = !args.copy && damage_is && absence_is;
        }
        outcome
            .details
            .insert("read_data".to_owned(), json!(args.read_data));
        Ok(outcome)
    });
    oa_core::app::flush_now(config);
    let found = result?;
    record(&recorder, &found, checked);
    listing(&found.backups, &found.damages, &found.absent.damages)
        .print(args.format)
        .map_err(anyhow::Error::from)?;
    report(&found, args.copy);
    // That every byte is there does not say that PostgreSQL takes it.
    let all = args.read_data && !args.copy && args.id.is_none();
    let unrecoverable = (all && recovery::is_due(&found.backups))
        .then(|| recovery::verify(config))
        .flatten();
    if let Some(problem) = &unrecoverable {
        tracing::error!("{problem}");
    }
    Ok(if found.texts().is_empty() && unrecoverable.is_none() {
        exit::OK
    } else {
        exit::FAILED
    })
}

/// What a verification has found.
struct Findings {
    /// Those that were checked.
    backups: Vec<Backup>,
    damages: Vec<Damage>,
    absent: Absent,
}

impl Findings {
    /// Each finding once.
    fn texts(&self) -> Vec<String> {
        one_line_each(self.damages.iter().chain(&self.absent.damages))
    }
}

fn assess(
    config: &Config,
    args: &Args,
    recorder: &Recorder,
    repository: &Repository,
) -> Result<Findings, Failure> {
    let (mut backups, mut damages, mut absent) = list(recorder, repository, config.timezone)?;
    if let Some(id) = &args.id {
        let of_it = |d: &Damage| d.backup.as_ref().is_some_and(|b| b.starts_with(id));
        damages.retain(of_it);
        absent.damages.retain(of_it);
        backups.retain(|b| b.id.starts_with(id));
        if backups.is_empty() && damages.is_empty() && absent.damages.is_empty() {
            return Err(RepositoryError::NoBackup(id.clone()).into());
        }
    }
    let files = repository.check_files()?;
    damages.retain(|d| !files.iter().any(|f| f.backup == d.backup));
    damages.extend(files);
    if !lacks_index(&damages) {
        damages.extend(repository.check(&backups, args.read_data)?);
    }
    let removed = removed_meanwhile(recorder, repository, &backups);
    backups.retain(|b| !removed.contains(&b.id));
    damages.retain(|d| d.backup.as_ref().is_none_or(|id| !removed.contains(id)));
    Ok(Findings {
        backups,
        damages,
        absent,
    })
}

fn record(recorder: &Recorder, found: &Findings, checked: Checked) {
    let done: &[Backup] = if lacks_index(&found.damages) {
        &[]
    } else {
        &found.backups
    };
    if let Ok((mut client, _)) = recorder.connect()
        && let Err(e) = catalog::mark_checked(&mut client, done, &found.damages, checked)
    {
        tracing::warn!(
            "could not record the verification: {}",
            oa_core::pg::describe(&e)
        );
    }
}

/// Says what was found, and what to do about it.
fn report(found: &Findings, secondary: bool) {
    for text in found.texts() {
        tracing::error!("{text}");
    }
    if !found.absent.damages.is_empty() && secondary {
        tracing::error!(
            "what the primary repository still has is copied anew by oa-backup copy; if the rest is lost for good: oa-backup prune --missing --copy"
        );
    } else if !found.absent.damages.is_empty() {
        tracing::error!(
            "look for what is missing in another copy of the repository, and put its files back; if it is lost for good: oa-backup full, then oa-backup prune --missing"
        );
    }
    if found.damages.is_empty() {
        return;
    }
    let rest = if lacks_index(&found.damages) {
        "no backup was checked"
    } else {
        "the backups without findings are whole"
    };
    tracing::error!(
        "{rest}; take damaged files out with oa-backup repair, then make a new full one"
    );
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
    let location = repository.location();
    let mut client = recorder.connect().ok().map(|(client, _)| client);
    let recorded = client.as_mut().map(|c| catalog::recorded(c, location));
    let (backups, damages) = repository.readable_backups()?;
    // Without its index nobody can say what leads to what; the damage is named.
    let stranded = timeline::stranded(repository, &backups).ok();
    let mut there: BTreeSet<String> = backups.iter().map(|b| b.id.clone()).collect();
    there.extend(damages.iter().filter_map(|d| d.backup.clone()));
    let gone = match (&mut client, recorded) {
        (Some(client), Some(Ok(recorded))) => {
            catalog::reconcile(client, location, recorded, &there, stranded.as_ref()).ok()
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
    for (id, why) in stranded.into_iter().flatten() {
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

/// Marks the damaged backups, before the run is recorded: killed between the two, `oa-alert check` reports them all the same.
/// Returns whether it will, so that the run need not.
fn is_on_record(
    recorder: &Recorder,
    location: &RepositoryLocation,
    found: &Findings,
    checked: Checked,
) -> bool {
    let ids: Vec<&str> = found
        .damages
        .iter()
        .filter_map(|d| d.backup.as_deref())
        .collect();
    let damaged: Vec<Backup> = found
        .backups
        .iter()
        .filter(|b| ids.contains(&b.id.as_str()))
        .cloned()
        .collect();
    let Ok((mut client, _)) = recorder.connect() else {
        return false;
    };
    let marked = catalog::mark_checked(&mut client, &damaged, &found.damages, checked).and_then(|()| {
        client.query_one(
            "SELECT EXISTS (SELECT FROM oa.backups WHERE repository = $1 AND id = ANY($2) AND removed_at IS NULL AND check_error IS NOT NULL)",
            &[&location.shown(), &ids],
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
        let marked = format!(
            "whole, but for what was damaged on the server: {}",
            b.meta.damaged.join("; ")
        );
        let mut found = of(&b.id);
        let is_whole = found.is_empty();
        if is_whole && !b.meta.damaged.is_empty() {
            found.push(&marked);
        }
        let stranded = gone.iter().any(|d| d.backup.as_ref() == Some(&b.id));
        let wrong = if stranded { "unrestorable" } else { "damaged" };
        listing.push(json!({
            "id": b.id, "short_id": b.short_id(), "kind": b.meta.kind, "level": b.meta.level,
            "result": if !is_whole { wrong } else if unchecked { "not checked" } else { "ok" }, "finding": found.first(), "findings": found,
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
