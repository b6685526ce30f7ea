//! `oa-migrate init`: creates or upgrades schema `oa` and the service's own tables.

use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::pg;
use oa_core::pg::{describe, schema};
use oa_core::service;
use serde_json::json;

use crate::PROGRAM;

/// Creates what is absent. Running it again changes nothing.
///
/// # Errors
/// When PostgreSQL is away (75), its schema is newer than this program (78), or it refuses (1).
pub fn run(config: &Config, format: Format) -> Result<u8, Failure> {
    let mut client = pg::connect(&pg::Settings::from_config(config, PROGRAM)?)?;
    let applied = schema::upgrade(&mut client)?;
    let refused = service::create_missing(&mut client)
        .map_err(|e| anyhow::anyhow!("could not create the service's tables: {}", describe(&e)))?;
    let mut listing = Listing::new(&[("what", "WHAT"), ("state", "STATE")]);
    listing.push(json!({
        "what": "schema oa",
        "state": if applied.is_empty() { "up to date".to_owned() } else { format!("applied {}", applied.join(", ")) },
        "version": schema::needed(),
    }));
    for key in service::NATURAL_KEYS {
        let state = if refused.contains(&key.table) {
            format!(
                "duplicates forbid its unique index: run oa-migrate dedupe {}",
                key.table
            )
        } else {
            "ready".to_owned()
        };
        listing.push(json!({ "what": format!("table {}", key.table), "state": state }));
    }
    listing.print(format).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}
