//! `oa-report backups`: which backups there are, and whether they can be relied on.

use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::pg::describe;
use serde_json::json;

use super::local;
use crate::pool;
use crate::queries::backups;

/// Prints them, newest first, with those that were pruned when `removed`. What is wrong goes to stderr.
///
/// # Errors
/// 75 when PostgreSQL is away, 78 when its schema does not fit.
pub fn run(config: &Config, removed: bool, limit: u16, format: Format) -> Result<u8, Failure> {
    let mut client = pool::reader(config)?;
    let failed =
        |e: postgres::Error| anyhow::anyhow!("could not read the backups: {}", describe(&e));
    let (list, _) = backups::list(&mut client, removed, None, limit).map_err(failed)?;
    let status = backups::status(&mut client, config, config.locale).map_err(failed)?;
    let mut listing = Listing::new(&[
        ("ended", "ENDED"),
        ("level", "LEVEL"),
        ("kind", "KIND"),
        ("restorable_until", "RESTORABLE UNTIL"),
        ("size", "SIZE"),
        ("added", "ADDED"),
        ("checked", "VERIFIED"),
        ("id", "ID"),
    ]);
    for backup in &list {
        let size = |bytes: i64| oa_core::base::units::Bytes(bytes.unsigned_abs()).to_string();
        let mut row = json!(backup);
        row["ended"] = json!(local(backup.finished_at, config.timezone));
        row["restorable_until"] = json!(local(backup.restorable_to, config.timezone));
        row["size"] = json!(size(backup.size_bytes));
        row["added"] = json!(size(backup.added_bytes));
        if backup.check_error.is_some() {
            row["checked"] = json!("FAILED");
        }
        listing.push(row);
    }
    listing.print(format).map_err(anyhow::Error::from)?;
    if status.status != backups::State::Ok {
        tracing::warn!("{}", status.message);
    }
    Ok(exit::OK)
}
