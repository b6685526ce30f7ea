//! One file a command: its arguments, and what it does from reading them to reporting.

pub(crate) mod check_export;
pub(crate) mod dedupe;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod init;
pub(crate) mod output;
pub(crate) mod plan;
pub(crate) mod rollback;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod to_sqlite;
pub(crate) mod verify;

use std::time::Duration;

use indicatif::ProgressBar;
use oa_core::app::cli::Failure;
use oa_core::app::exit;

use crate::errors::Refused;

// No documentation comment: clap would print it as the command's own.
#[derive(Debug, clap::Args)]
pub(crate) struct JobsArg {
    /// Tables read, loaded and compared at a time [default: number of processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
}

impl JobsArg {
    fn count(&self) -> usize {
        self.jobs.map_or_else(
            || std::thread::available_parallelism().map_or(2, usize::from),
            usize::from,
        )
    }
}

/// The exit code of an error: 77 for [`Refused`], the library's own for its errors, else 1.
fn failure(error: impl Into<anyhow::Error>) -> Failure {
    let error = error.into();
    if error.is::<Refused>() {
        Failure::new(exit::REFUSED, error)
    } else {
        Failure::from(error)
    }
}

fn refused(text: String) -> Failure {
    failure(Refused(text))
}

fn spinner() -> ProgressBar {
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(Duration::from_millis(120));
    progress
}
