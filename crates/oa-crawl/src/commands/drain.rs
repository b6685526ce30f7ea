//! `oa-crawl drain`: stores in PostgreSQL what waits in the spool.

use std::time::Duration;

use clap::Args as ClapArgs;
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::journal::Recorder;
use serde_json::json;

use crate::PROGRAM;
use crate::progress;

/// Store in PostgreSQL what waits in the local spool
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Drains the spool and prints what was done. Every other command does so too when it connects.
/// Exits 75 when PostgreSQL cannot be reached, 1 when it refuses an entry.
pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    cli::end_at_the_latest(Duration::ZERO);
    let recorder = Recorder::open(config, PROGRAM)?;
    let before = recorder
        .spool()
        .and_then(|s| s.pending())
        .map_err(anyhow::Error::from)?;
    let shown = progress::show(args.format, false);
    let work = progress::work("spool");
    let (_, drained) = recorder.connect()?;
    drop((work, shown));
    let after = recorder
        .spool()
        .and_then(|s| s.pending())
        .map_err(anyhow::Error::from)?;
    let mut listing = Listing::new(&[
        ("waiting", "WAITED"),
        ("applied", "APPLIED"),
        ("stuck", "REFUSED"),
        ("held_back", "HELD BACK"),
        ("left", "LEFT"),
    ]);
    listing.push(json!({
        "waiting": before.entries, "applied": drained.applied, "stuck": drained.stuck.len(), "held_back": drained.held_back,
        "left": after.entries, "left_bytes": after.bytes, "errors": drained.stuck.iter().map(|(_, e)| e).collect::<Vec<_>>(),
    }));
    listing.print(args.format).map_err(anyhow::Error::from)?;
    Ok(if after.entries == 0 {
        exit::OK
    } else {
        exit::FAILED
    })
}
