//! `oa-backup list`: the backups in the repository.

use std::collections::BTreeMap;

use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::Format;
use oa_repository::timeline;
use oa_repository::{ProgressReporter, RepositoryLocation};

use super::overview::Overview;
use super::{short, status};
use crate::catalog::{self, Recovered};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Use the secondary repository, [backup.copy]
    #[arg(long)]
    copy: bool,
    /// Output format of the list
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Lists the backups of the repository itself, oldest first. PostgreSQL is not needed; it knows which of them were recovered.
pub(crate) fn run(config: &Config, args: &Args) -> Result<u8, Failure> {
    let location = super::location(config, args.copy)?;
    let repository = location.open_recorded(config, &ProgressReporter::hidden())?;
    let (backups, damages) = repository.readable_backups()?;
    let stranded = timeline::stranded(&repository, &backups).unwrap_or_else(|e| {
        tracing::warn!("could not find out whether all of these can be restored: {e}");
        BTreeMap::new()
    });
    let (recovered, failed) = recorded(config, &location);
    let overview = Overview {
        stranded,
        recovered,
        failed,
        // What keeps the list from being read is named below.
        pins: repository.pins().unwrap_or_default(),
        ..Overview::of(&location, config)
    };
    overview
        .listing(&backups)
        .print(args.format)
        .map_err(anyhow::Error::from)?;
    for backup in backups.iter().filter(|b| !b.meta.damaged.is_empty()) {
        tracing::warn!(
            "backup {} has damage of the server itself: {}",
            backup.short_id(),
            backup.meta.damaged.join("; ")
        );
    }
    let there = |id: &&String| backups.iter().any(|b| b.id == **id);
    for id in overview.failed.keys().filter(there) {
        tracing::warn!(
            "the verification of backup {} failed: {}",
            short(id),
            overview.failed[id]
        );
    }
    for damage in &damages {
        tracing::error!("{}", damage.what);
    }
    for (id, why) in &overview.stranded {
        tracing::error!("backup {}: {why}", short(id));
    }
    Ok(if damages.is_empty() && overview.stranded.is_empty() {
        exit::OK
    } else {
        exit::FAILED
    })
}

/// What came of recovering the backups, and what verification has found wrong with them.
fn recorded(
    config: &Config,
    location: &RepositoryLocation,
) -> (BTreeMap<String, Recovered>, BTreeMap<String, String>) {
    let mut why = None;
    let client = status::connect(config, &mut why);
    let read = client.map(|mut client| {
        let recovered = catalog::recovered(&mut client, location);
        let errors = catalog::check_errors(&mut client, location);
        (
            status::known(recovered, &mut why),
            status::known(errors, &mut why),
        )
    });
    if let Some(why) = why {
        tracing::warn!(
            "what PostgreSQL has recorded of the backups (recoveries, damage) is not known: {why}"
        );
    }
    let (recovered, errors) = read.unwrap_or_default();
    (recovered.unwrap_or_default(), errors.unwrap_or_default())
}
