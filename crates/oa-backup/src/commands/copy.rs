//! `oa-backup copy`: the secondary repository.

use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::work::{self, Job, JobOutcome};
use oa_core::journal::Recorder;
use serde_json::json;

use super::{print, trigger};
use crate::PROGRAM;
use crate::catalog::{self, OwnClusters};
use oa_repository::ProgressReporter;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Started by cron: recorded in the run log
    #[arg(long)]
    pub(crate) cron: bool,
}

/// Copies what the secondary repository does not have.
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
        let copied = from.copy_to(&to)?;
        let there = to.backups()?;
        let ids: Vec<String> = there.iter().map(|b| b.id.clone()).collect();
        let mut ended = JobOutcome::success((copied, ids));
        ended.fetched = copied as u64;
        let own = recorder
            .connect()
            .ok()
            .and_then(|(mut client, _)| OwnClusters::ask(&mut client).ok());
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
    let (copied, there) = result?;
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
    print(&format!(
        "{copied} backup(s) copied to {}\n",
        secondary.shown()
    ))?;
    Ok(exit::OK)
}
