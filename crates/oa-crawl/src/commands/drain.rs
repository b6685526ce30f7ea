//! `oa-crawl drain`: what waits in the spool goes to PostgreSQL now. `oa-crawl forget`: a task is run no more.

use oa_core::cli::Failure;
use oa_core::config::Config;
use oa_core::exit;
use oa_core::output::{Format, Listing};
use oa_core::runs::{Recorder, due};
use serde_json::json;

use crate::PROGRAM;

/// A task that is run no more, because its source was removed or renamed, is not missed either, and its trouble is over.
/// Exits 2 when there is no such task, 75 when PostgreSQL cannot be reached.
pub(crate) fn forget(config: &Config, task: &str) -> Result<u8, Failure> {
    let recorder = Recorder::open(config, PROGRAM)?;
    let (mut client, _) = recorder.connect()?;
    let known = due::forget(&mut client, task, recorder.policy()).map_err(anyhow::Error::from)?;
    if !known {
        return Err(Failure::new(
            exit::USAGE,
            anyhow::anyhow!("no task {task} has ever run or been due"),
        ));
    }
    Ok(exit::OK)
}

/// Drains the spool and prints what was done. Every other command does so too when it connects.
/// Exits 75 when PostgreSQL cannot be reached, 1 when it refuses an entry.
pub(crate) fn run(config: &Config, format: Format) -> Result<u8, Failure> {
    let recorder = Recorder::open(config, PROGRAM)?;
    let before = recorder
        .spool()
        .and_then(|s| s.pending())
        .map_err(anyhow::Error::from)?;
    let (_, drained) = recorder.connect()?;
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
    listing.print(format).map_err(anyhow::Error::from)?;
    Ok(if after.entries == 0 {
        exit::OK
    } else {
        exit::FAILED
    })
}
