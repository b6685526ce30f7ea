//! `oa-backup list`: what is in the repository.

use oa_core::cli::Failure;
use oa_core::config::Config;
use oa_core::exit;
use oa_core::output::Format;

use super::take::listing;
use crate::repository::{Bars, Place, RepositoryError};

/// Lists the backups of the repository itself, oldest first; PostgreSQL is not needed.
///
/// # Errors
/// When the repository cannot be opened.
pub fn run(config: &Config, second: bool, format: Format) -> Result<u8, Failure> {
    let place = place(config, second)?;
    let repository = place.open(&Bars::hidden())?;
    let (backups, damages) = repository.readable_backups()?;
    listing(&place, &backups)
        .print(format)
        .map_err(anyhow::Error::from)?;
    for damage in &damages {
        tracing::error!("{}", damage.what);
    }
    Ok(if damages.is_empty() {
        exit::OK
    } else {
        exit::FAILED
    })
}

/// The repository that is meant.
pub(super) fn place(config: &Config, second: bool) -> Result<Place, Failure> {
    if !second {
        return Ok(Place::first(config)?);
    }
    Place::second(config)?.ok_or_else(|| {
        RepositoryError::Place(
            "there is no [backup.copy] in the configuration; see docs/backup.md".to_owned(),
        )
        .into()
    })
}
