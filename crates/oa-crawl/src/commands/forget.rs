//! `oa-crawl forget`: a task no longer runs.

use clap::Args as ClapArgs;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::journal::{Recorder, due};

use crate::PROGRAM;
use crate::source::Sources;

/// Forget a task that no longer runs, so that it is not reported as missed
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  oa-crawl forget old-quotes")]
pub(crate) struct Args {
    /// The task
    task: String,
}

/// A task that is run no more, because its source was removed or renamed, is not missed either, and its incident is resolved.
/// Exits 2 when there is no such task, 75 when PostgreSQL cannot be reached.
pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let task = args.task.as_str();
    let recorder = Recorder::open(config, PROGRAM)?;
    let (mut client, _) = recorder.connect()?;
    let known = due::forget(&mut client, task).map_err(anyhow::Error::from)?;
    if !known {
        return Err(Failure::new(
            exit::USAGE,
            anyhow::anyhow!("no task {task} has ever run or been due"),
        ));
    }
    let scheduled = config.scheduled();
    let mut scheduled = scheduled.iter().flat_map(|(_, tasks)| tasks);
    if scheduled.any(|of| of.name == task) {
        tracing::warn!(
            "the configuration still gives {task} a schedule, so that it is expected again from the next oa-alert check on; take that out, and forget it once more"
        );
    } else if Sources::load(config, None).is_ok_and(|all| all.enabled().any(|s| s.name == task)) {
        tracing::warn!(
            "{task} is enabled, so that it is expected again from the next oa-crawl run --due on; use oa-crawl disable {task}"
        );
    }
    Ok(exit::OK)
}
