//! `oa-backup list`: what is in the repository.

use std::collections::BTreeMap;

use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::Format;

use super::backup::listing_of;
use super::short;
use oa_repository::ProgressReporter;
use oa_repository::timeline;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The secondary repository, of [backup.copy]
    #[arg(long)]
    copy: bool,
    /// Output format of the list
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Lists the backups of the repository itself, oldest first; PostgreSQL is not needed.
pub(crate) fn run(config: &Config, args: &Args) -> Result<u8, Failure> {
    let location = super::location(config, args.copy)?;
    let repository = location.open_recorded(config, &ProgressReporter::hidden())?;
    let (backups, damages) = repository.readable_backups()?;
    let stranded = timeline::stranded(&repository, &backups).unwrap_or_else(|e| {
        tracing::warn!("could not find out whether all of these can be restored: {e}");
        BTreeMap::new()
    });
    listing_of(&location, &backups, &stranded)
        .print(args.format)
        .map_err(anyhow::Error::from)?;
    for damage in &damages {
        tracing::error!("{}", damage.what);
    }
    for (id, why) in &stranded {
        tracing::error!("backup {}: {why}", short(id));
    }
    Ok(if damages.is_empty() && stranded.is_empty() {
        exit::OK
    } else {
        exit::FAILED
    })
}
