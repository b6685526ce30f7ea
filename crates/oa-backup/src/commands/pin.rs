//! `oa-backup pin` and `oa-backup unpin`: a backup that `prune` keeps whatever retention says.

use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::base::text::printable;
use oa_repository::{Level, ProgressReporter, RepositoryError};

use super::{print, short};

#[derive(Debug, clap::Args)]
pub(crate) struct PinArgs {
    /// The backup whose id starts with this
    id: String,
    /// Why it is kept
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
    /// Use the secondary repository, [backup.copy]
    #[arg(long)]
    copy: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UnpinArgs {
    /// The backup whose id starts with this
    id: String,
    /// Use the secondary repository, [backup.copy]
    #[arg(long)]
    copy: bool,
}

/// Pins it. Pinned twice it has the newer reason.
pub(crate) fn pin(config: &Config, args: &PinArgs) -> Result<u8, Failure> {
    let location = super::location(config, args.copy)?;
    let repository = location.open_recorded(config, &ProgressReporter::hidden())?;
    let backup = match repository.find(&args.id) {
        // There it has another id.
        Err(RepositoryError::NoBackup(id)) if args.copy => {
            return Err(anyhow::anyhow!(
                "there is no backup {id} in the secondary repository; see oa-backup list --copy"
            )
            .into());
        }
        found => found?,
    };
    repository.pin(&backup, &printable(args.reason.trim()))?;
    location.close_to_others();
    let with = match (&backup.meta.full, backup.meta.level) {
        (Some(full), Level::Incremental) => {
            format!(", with full backup {}, which it needs", short(full))
        }
        _ => String::new(),
    };
    let there = if args.copy { " --copy" } else { "" };
    print(&format!(
        "backup {} is kept until oa-backup unpin {}{there}{with}\n",
        backup.short_id(),
        backup.short_id()
    ))?;
    Ok(exit::OK)
}

/// Lets it go when retention does.
pub(crate) fn unpin(config: &Config, args: &UnpinArgs) -> Result<u8, Failure> {
    let location = super::location(config, args.copy)?;
    let repository = location.open_recorded(config, &ProgressReporter::hidden())?;
    super::check_may_delete(config, args.copy, "unpin")?;
    let pins = repository.pins()?;
    let mut named = pins.keys().filter(|id| id.starts_with(&args.id));
    // Also one that is not there any more.
    let text = match (named.next(), named.next()) {
        (Some(id), None) => {
            repository.unpin(id)?;
            format!(
                "backup {} is kept for as long as retention says\n",
                short(id)
            )
        }
        (Some(_), Some(_)) => {
            return Err(RepositoryError::NoBackup(format!(
                "{} (it begins more than one id)",
                args.id
            ))
            .into());
        }
        (None, _) => format!(
            "backup {} was not pinned\n",
            repository.find(&args.id)?.short_id()
        ),
    };
    print(&text)?;
    Ok(exit::OK)
}
