//! `oa-report backups`: which backups there are, and whether you can rely on them.

use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::units::Bytes;
use oa_core::pg::describe;
use serde_json::json;

use super::local;
use crate::pool;
use crate::queries::backups;

/// Backups, newest first
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  oa-report backups\n  oa-report backups --removed --format markdown"
)]
pub(crate) struct Args {
    /// Include those that were pruned
    #[arg(long)]
    removed: bool,
    /// Show at most this many
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u16,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What is wrong with the backups goes to stderr.
pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let mut client = pool::connect_read_only(config)?;
    let failed =
        |e: postgres::Error| anyhow::anyhow!("could not read the backups: {}", describe(&e));
    let (list, _) = backups::list(&mut client, args.removed, None, args.limit).map_err(failed)?;
    let status =
        backups::status(&mut client, config, &crate::lang::wording(config)).map_err(failed)?;
    let mut columns = vec![
        ("ended", "ENDED"),
        ("level", "LEVEL"),
        ("kind", "KIND"),
        ("restorable_until", "RESTORABLE UNTIL"),
        ("size", "SIZE"),
        ("added", "ADDED"),
        ("checked", "VERIFIED"),
        ("id", "ID"),
    ];
    // Each backup is there once more in the secondary one, under another id.
    if list.windows(2).any(|w| w[0].repository != w[1].repository) {
        columns.push(("repository", "REPOSITORY"));
    }
    let mut listing = Listing::new(&columns);
    for backup in &list {
        let size = |bytes: i64| Bytes(bytes.unsigned_abs()).to_string();
        let mut row = json!(backup);
        row["ended"] = json!(local(backup.finished_at, config.timezone));
        row["restorable_until"] = json!(local(backup.restorable_to, config.timezone));
        row["size"] = json!(size(backup.size_bytes));
        row["added"] = json!(size(backup.added_bytes));
        // What is not there, or restores nothing, was verified before that.
        let wrong = [
            (backup.missing_since.is_some(), "MISSING"),
            (backup.check_error.is_some(), "FAILED"),
            (backup.unrestorable.is_some(), "UNRESTORABLE"),
            (backup.damaged_pages.is_some(), "SERVER DAMAGED"),
        ];
        if let Some((_, word)) = wrong.iter().find(|(is_so, _)| *is_so) {
            row["checked"] = json!(word);
        }
        listing.push(row);
    }
    listing.print(args.format).map_err(anyhow::Error::from)?;
    if status.status != backups::State::Ok {
        tracing::warn!("{}", status.message);
    }
    Ok(exit::OK)
}
