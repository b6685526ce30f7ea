//! `oa-backup copy`: the secondary repository.

use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::work::{self, Job, JobOutcome};
use oa_core::journal::Recorder;
use oa_core::model::run::Status;
use serde_json::json;

use super::{print, short, trigger};
use crate::PROGRAM;
use crate::catalog::{self, OwnClusters};
use oa_repository::{Backup, Damage, ProgressReporter};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also the backups of other services that use the same repository
    #[arg(long)]
    all: bool,
    /// Started by cron: recorded in the run log
    #[arg(long)]
    pub(crate) cron: bool,
}

/// Copies what the secondary repository does not have of this service's backups.
pub(crate) fn run(
    config: &Config,
    args: &Args,
    reporter: &ProgressReporter,
) -> Result<u8, Failure> {
    let (primary, secondary) = (
        super::location(config, false)?,
        super::location(config, true)?,
    );
    let recorder = Recorder::open(config, PROGRAM)?;
    let job = Job {
        trigger: trigger(args.cron),
        ..Job::by_hand(PROGRAM, "backup-copy", "备份异地复制")
    };
    let result = work::recorded(&recorder, &job, |_| {
        let from = primary.open_recorded(config, reporter)?;
        let to = secondary.open_recorded(config, reporter)?;
        secondary.close_to_others();
        secondary.keep_spares()?;
        let own = recorder
            .connect()
            .ok()
            .and_then(|(mut client, _)| OwnClusters::ask(&mut client).ok());
        let all = from.backups()?;
        let chosen = chosen(&all, own.as_ref(), args.all);
        let others = all.len() - chosen.len();
        let copies = from.copy_to(&to, &chosen)?;
        let lacking = lacking(&copies.lacking);
        let there = to.backups()?;
        let ids: Vec<String> = there.iter().map(|b| b.id.clone()).collect();
        let copied = copies.count;
        let mut ended = JobOutcome::success((copied, others, ids, lacking.clone()));
        ended.fetched = copied as u64;
        if lacking.is_some() {
            ended.status = Status::Partial;
            ended.error = lacking;
        }
        ended
            .batches
            .extend(own.map(|own| catalog::rows(&secondary, own.among(&there))));
        ended.batches.push(catalog::size(
            &secondary,
            to.size_bytes()?,
            there.len(),
            super::clock(config),
        ));
        ended.details.insert("copied".to_owned(), json!(copied));
        Ok(ended)
    });
    oa_core::app::flush_now(config);
    let (copied, others, there, lacking) = result?;
    // What had disappeared there has another id now.
    if copied > 0
        && let Ok((mut client, _)) = recorder.connect()
    {
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        if let Err(e) = catalog::mark_replaced(&mut client, &secondary, &there) {
            tracing::warn!(
                "could not record which missing backups were copied anew: {}",
                oa_core::pg::describe(&e)
            );
        }
    }
    let rest = match others {
        0 => String::new(),
        count => format!(
            "; {count} of other services, or of a server before this one, are not copied (--all does)"
        ),
    };
    print(&format!(
        "{copied} backup(s) copied to {}{rest}\n",
        secondary.shown()
    ))?;
    Ok(match lacking {
        None => exit::OK,
        Some(lacking) => {
            tracing::error!("{lacking}");
            exit::FAILED
        }
    })
}

/// What was not copied, and what to do about it.
fn lacking(damages: &[Damage]) -> Option<String> {
    let mut ids: Vec<&str> = damages
        .iter()
        .filter_map(|d| d.backup.as_deref())
        .map(short)
        .collect();
    ids.dedup();
    let first = damages.first()?;
    Some(format!(
        "{} backup(s) lack data and were not copied ({}): {}; first oa-backup repair, then oa-backup full; give up those that still lack data with oa-backup prune --damaged",
        ids.len(),
        ids.join(", "),
        first.what
    ))
}

/// Those of other services that use the same repository are theirs to copy. Without PostgreSQL nobody knows whose they are; then too many
/// are better than too few.
fn chosen<'b>(all: &'b [Backup], own: Option<&OwnClusters>, wants_all: bool) -> Vec<&'b Backup> {
    let Some(own) = own.filter(|_| !wants_all) else {
        let first = all.first().map(|b| &b.meta.system_id);
        if !wants_all && all.iter().any(|b| Some(&b.meta.system_id) != first) {
            tracing::warn!(
                "without PostgreSQL nobody knows which backups are of other services; all are copied"
            );
        }
        return all.iter().collect();
    };
    own.among(all)
}
