//! `oa-migrate init`: creates or upgrades schema `oa` and the service's own tables. Running it again changes nothing.

use anyhow::anyhow;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::pg::{self, describe, schema};
use oa_core::service;
use serde_json::json;

use super::failure;
use crate::PROGRAM;

/// Create or upgrade schema oa and the service's own tables
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let mut client = pg::connect(&pg::Settings::from_config(config, PROGRAM)?)?;
    let applied = schema::upgrade(&mut client)?;
    let refused = service::create_missing(&mut client)
        .map_err(|e| anyhow!("could not create the service's tables: {}", describe(&e)))?;
    let mut listing = Listing::new(&[("what", "WHAT"), ("state", "STATE")]);
    listing.push(json!({
        "what": "schema oa",
        "state": if applied.is_empty() { "up to date".to_owned() } else { format!("applied {}", applied.join(", ")) },
        "version": schema::needed(),
    }));
    for key in service::NATURAL_KEYS {
        let state = if refused.contains(&key.table) {
            format!(
                "duplicates prevent its unique index: run oa-migrate dedupe {}",
                key.table
            )
        } else {
            "ready".to_owned()
        };
        listing.push(json!({ "what": format!("table {}", key.table), "state": state }));
    }
    listing.print(args.format).map_err(failure)?;
    Ok(exit::OK)
}
