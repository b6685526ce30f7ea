//! `oa-backup prune`: removes what retention no longer keeps.

use std::collections::{BTreeMap, BTreeSet};

use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::Format;
use oa_core::app::work::{self, Job, JobOutcome};
use oa_core::base::units::Bytes;
use oa_core::journal::Recorder;
use oa_core::pg::{self, Settings};
use postgres::Client;
use serde_json::json;

use super::overview::Overview;
use super::{short, trigger};
use crate::PROGRAM;
use crate::catalog::{self, OwnClusters};
use crate::retention::{Keep, removable_beside_damaged};
use oa_repository::timeline;
use oa_repository::{Backup, ProgressReporter, Repository, RepositoryError, RepositoryLocation};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only show what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Use the secondary repository, [backup.copy]
    #[arg(long)]
    copy: bool,
    /// Also remove from the record backups that are missing from the repository and lost for good
    #[arg(long)]
    missing: bool,
    /// Also remove backups that lack data for good, and WAL that restores nothing without them
    #[arg(long)]
    damaged: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Started by cron: recorded in the run log; asks nothing
    #[arg(long)]
    pub(crate) cron: bool,
    /// Output format of the list of what is removed
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Removes backups by the rules of `[backup]`, and bytes that nothing uses.
pub(crate) fn run(
    config: &Config,
    args: &Args,
    reporter: &ProgressReporter,
) -> Result<u8, Failure> {
    let settings = config.backup_settings()?;
    let keep = Keep {
        hourly: settings.keep_hourly,
        daily: settings.keep_daily,
        weekly: settings.keep_weekly,
    };
    let location = super::location(config, args.copy)?;
    // What is only taken off the record is not deleted.
    if !args.missing {
        super::check_may_delete(config, args.copy, "prune")?;
    }
    let repository = location.open_recorded(config, reporter)?;
    if super::is_append_only(config, args.copy) {
        let recorder = Recorder::open(config, PROGRAM)?;
        take_off_the_record(&recorder, &location, &repository, args.yes)?;
        return Ok(exit::OK);
    }
    let backups = repository.backups()?;
    let paths = timeline::paths(&repository, &backups)?;
    let pinned = pinned(&repository, &backups)?;
    let now = super::clock(config);
    let (own, failed) = recorded(config, &location, &backups);
    let damaged = |b: &Backup| !b.meta.damaged.is_empty() || failed.contains_key(&b.id);
    let zone = config.timezone;
    let mut going: Vec<Backup> =
        removable_beside_damaged(&backups, &paths, &damaged, keep, zone, now)
            .into_iter()
            .map(|i| backups[i].clone())
            .filter(|b| own.contains(&b.id) && !pinned.contains(&b.id))
            .collect();
    if args.damaged {
        let lacking = lacking(&repository, &backups)?;
        for b in backups.iter().filter(|b| lacking.contains(&b.id)) {
            if pinned.contains(&b.id) {
                tracing::warn!(
                    "backup {} lacks data, and stays because it or what needs it is pinned: oa-backup unpin",
                    b.short_id()
                );
            } else if own.contains(&b.id) && !going.iter().any(|g| g.id == b.id) {
                going.push(b.clone());
            }
        }
    }
    let others = backups.iter().filter(|b| !own.contains(&b.id)).count();
    if others > 0 && !args.cron {
        tracing::warn!(
            "{others} backups are of other services, or of a server before this one, and stay"
        );
    }
    Overview::of(&location, config)
        .listing(&going)
        .print(args.format)
        .map_err(anyhow::Error::from)?;
    if args.dry_run {
        let freed = match repository.prune(true) {
            Ok((now, marked)) => {
                format!(
                    "and {} be freed now, {} a day later",
                    Bytes(now),
                    Bytes(marked)
                )
            }
            Err(RepositoryError::Lacking(_)) if args.damaged => {
                "and what they alone need be freed a day later".to_owned()
            }
            Err(e) => return Err(e.into()),
        };
        tracing::warn!(
            "{} of {} backups would go, {freed}; nothing was done",
            going.len(),
            backups.len()
        );
        return Ok(exit::OK);
    }
    let recorder = Recorder::open(config, PROGRAM)?;
    if args.missing {
        take_off_the_record(&recorder, &location, &repository, args.yes)?;
    }
    if !going.is_empty() && !args.cron {
        cli::confirm(
            &format!("Remove these {} of {} backups?", going.len(), backups.len()),
            args.yes,
        )?;
    }
    location.close_to_others();
    let job = Job {
        trigger: trigger(args.cron),
        ..Job::by_hand(PROGRAM, "backup-prune", "备份清理")
    };
    let left = work::recorded(&recorder, &job, |_| {
        if !going.is_empty() {
            // Persisted first: killed in between, what is gone is not taken for lost, and what is still there is recorded anew by the
            // next backup. While PostgreSQL is unreachable no backup goes: it may be what must be restored.
            let (mut client, _) = recorder.connect()?;
            forget(&mut client, &repository, &backups, &going)?;
        }
        oa_core::base::failpoint::hit("backup.forgotten");
        let (freed, marked) = repository.prune(false)?;
        let left = repository.backups()?;
        let mut ended = JobOutcome::success(left);
        ended.batches.push(catalog::size(
            &location,
            repository.size_bytes()?,
            ended.value.len(),
            super::clock(config),
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
    oa_core::app::flush_now(config);
    left.map(|_| exit::OK)
}

/// Takes backups off the list, recorded before and after.
fn forget(
    client: &mut Client,
    repository: &Repository,
    backups: &[Backup],
    going: &[Backup],
) -> Result<(), Failure> {
    // Nobody could say whose they are, if PostgreSQL did not answer before.
    let own = OwnClusters::ask(client).map_err(|e| could_not_record(&e))?;
    let own = own.among(backups);
    let is_own = |b: &&Backup| own.iter().any(|o| o.id == b.id);
    let going: Vec<Backup> = going.iter().filter(is_own).cloned().collect();
    let ids: Vec<&str> = going.iter().map(|b| b.id.as_str()).collect();
    catalog::mark_removed(client, &ids).map_err(|e| could_not_record(&e))?;
    repository.forget(&going)?;
    if let Err(e) = catalog::mark_gone(client, &ids) {
        tracing::warn!(
            "could not record once more what was removed: {}",
            oa_core::pg::describe(&e)
        );
    }
    Ok(())
}

/// Those of this service, and what verification has found wrong: those of other services that use the same repository are theirs to keep.
/// Whose they are is asked of PostgreSQL, without which none is removed.
fn recorded(
    config: &Config,
    location: &RepositoryLocation,
    backups: &[Backup],
) -> (BTreeSet<String>, BTreeMap<String, String>) {
    let mut client = Settings::from_config(config, PROGRAM)
        .ok()
        .and_then(|settings| pg::connect(&settings).ok());
    let own = client.as_mut().and_then(|c| OwnClusters::ask(c).ok());
    let failed = client.and_then(|mut c| catalog::check_errors(&mut c, location).ok());
    let first = backups.first().map(|b| &b.meta.system_id);
    let several = backups.iter().any(|b| Some(&b.meta.system_id) != first);
    if own.is_none() && several {
        tracing::warn!(
            "without PostgreSQL nobody knows which backups are of other services; those would stay"
        );
    }
    let own = own.map_or_else(|| backups.iter().collect(), |own| own.among(backups));
    let own = own.into_iter().map(|b| b.id.clone()).collect();
    (own, failed.unwrap_or_default())
}

/// Those that lack data, which nobody has any more, and WAL to which nothing leads without them.
fn lacking(repository: &Repository, backups: &[Backup]) -> Result<BTreeSet<String>, Failure> {
    // What only the index does not know, or what is not there for the moment, is not lost.
    if repository.needs_new_index()? {
        return Err(Failure::new(
            exit::REFUSED,
            anyhow::anyhow!(
                "nobody can say yet which backups lack data for good, and nothing was removed; first: oa-backup repair, then oa-backup full"
            ),
        ));
    }
    let damages = repository.check(backups, false)?;
    let mut found: BTreeSet<String> = damages.into_iter().filter_map(|d| d.backup).collect();
    if found.is_empty() {
        return Ok(found);
    }
    let left = backups.iter().filter(|b| !found.contains(&b.id));
    let left: Vec<Backup> = left.cloned().collect();
    let before = timeline::stranded(repository, backups)?;
    let stranded = timeline::stranded(repository, &left)?;
    found.extend(stranded.into_keys().filter(|id| !before.contains_key(id)));
    Ok(found)
}

/// What is pinned, and the full backups without which that restores nothing.
fn pinned(
    repository: &Repository,
    backups: &[Backup],
) -> Result<BTreeSet<String>, RepositoryError> {
    let pins = repository.pins()?;
    let kept = backups.iter().filter(|b| pins.contains_key(&b.id));
    let with_full = |b: &Backup| [Some(b.id.clone()), b.meta.full.clone()];
    Ok(kept.flat_map(with_full).flatten().collect())
}

fn could_not_record(error: &postgres::Error) -> Failure {
    let code = match oa_core::pg::is_connection_error(error) {
        true => exit::UNREACHABLE,
        false => exit::FAILED,
    };
    Failure::new(
        code,
        anyhow::anyhow!(
            "could not record what is removed, so nothing was: {}",
            oa_core::pg::describe(error)
        ),
    )
}

/// What is lost for good is reported until somebody says that it is.
fn take_off_the_record(
    recorder: &Recorder,
    location: &RepositoryLocation,
    repository: &Repository,
    yes: bool,
) -> Result<(), Failure> {
    let (mut client, _) = recorder.connect()?;
    let recorded = catalog::recorded(&mut client, location);
    let (recorded, _) = recorded.map_err(|e| could_not_record(&e))?;
    let (backups, damages) = repository.readable_backups()?;
    let mut there: BTreeSet<String> = backups.into_iter().map(|b| b.id).collect();
    there.extend(damages.into_iter().filter_map(|d| d.backup));
    let gone = catalog::missing(&mut client, recorded, &there).map_err(|e| could_not_record(&e))?;
    if gone.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = gone.iter().map(|b| b.id.as_str()).collect();
    let short: Vec<&str> = ids.iter().map(|id| short(id)).collect();
    cli::confirm(
        &format!(
            "Give up {} missing backups ({})?",
            gone.len(),
            short.join(", ")
        ),
        yes,
    )?;
    catalog::mark_removed(&mut client, &ids).map_err(|e| could_not_record(&e))?;
    Ok(())
}
