//! `oa-backup list`: what is in the repository.

use oa_core::cli::Failure;
use oa_core::config::Config;
use oa_core::exit;
use oa_core::output::Format;

use super::backup::listing_of;
use super::{location, short};
use oa_repository::ProgressReporter;
use oa_repository::timeline;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The secondary repository, of [backup.copy]
    #[arg(long)]
    copy: bool,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Lists the backups of the repository itself, oldest first; PostgreSQL is not needed.
///
/// # Errors
/// When the repository cannot be opened.
pub(crate) fn run(config: &Config, args: &Args) -> Result<u8, Failure> {
    let place = location(config, args.copy)?;
    let repository = place.open_recorded(config, &ProgressReporter::hidden())?;
    let (backups, damages) = repository.readable_backups()?;
    let stranded = timeline::stranded(&repository, &backups).unwrap_or_default();
    listing_of(&place, &backups, &stranded)
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
