//! `oa-backup list`: what is in the repository.

use oa_core::cli::Failure;
use oa_core::config::Config;
use oa_core::exit;
use oa_core::output::Format;

use super::take::listing_of;
use oa_repository::timeline;
use oa_repository::{ProgressReporter, RepositoryError, RepositoryLocation};

/// Lists the backups of the repository itself, oldest first; PostgreSQL is not needed.
///
/// # Errors
/// When the repository cannot be opened.
pub fn run(config: &Config, second: bool, format: Format) -> Result<u8, Failure> {
    let place = place(config, second)?;
    let repository = place.open_recorded(config, &ProgressReporter::hidden())?;
    let (backups, damages) = repository.readable_backups()?;
    let stranded = timeline::stranded(&repository, &backups).unwrap_or_default();
    listing_of(&place, &backups, &stranded)
        .print(format)
        .map_err(anyhow::Error::from)?;
    for damage in &damages {
        tracing::error!("{}", damage.what);
    }
    for (id, why) in &stranded {
        tracing::error!("backup {}: {why}", id.get(..8).unwrap_or(id));
    }
    Ok(if damages.is_empty() && stranded.is_empty() {
        exit::OK
    } else {
        exit::FAILED
    })
}

/// The repository that is meant.
pub(super) fn place(config: &Config, second: bool) -> Result<RepositoryLocation, Failure> {
    if !second {
        return Ok(RepositoryLocation::primary(config)?);
    }
    RepositoryLocation::secondary(config)?.ok_or_else(|| {
        RepositoryError::Place(
            "there is no [backup.copy] in the configuration; see docs/backup.md".to_owned(),
        )
        .into()
    })
}
