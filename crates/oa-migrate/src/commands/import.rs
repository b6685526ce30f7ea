//! `oa-migrate import`: an export into PostgreSQL, with the proof of `run`.
//!
//! The SQLite database is made again from the export, proven to be what was exported, and moved by `run`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use indicatif::ProgressBar;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::base::state_dir::StateDir;

use super::run;
use crate::inspect::VirtualTable;
use crate::transfer::check::check;
use crate::transfer::rebuild::rebuild;

/// Checks the export, makes the database again and moves it. `options.database` is the folder.
///
/// # Errors
/// The export is not whole (1); and all of [`run::run`].
pub fn run(config: &Config, mut options: run::Options) -> Result<u8, Failure> {
    let folder = options.database.clone();
    let state = StateDir::open(&config.state_dir)?;
    let Some(_lock) = state.try_lock("import").map_err(anyhow::Error::from)? else {
        return Err(Failure::new(
            exit::REFUSED,
            anyhow!("another oa-migrate import runs on this machine; wait for it to end"),
        ));
    };
    // Nobody else works there now, so what is there is left over from one that was killed.
    let work = state.folder("import").map_err(anyhow::Error::from)?;
    empty(&work)?;
    let file = work.join("rebuilt.sqlite");
    let result = make(&folder, &file)
        .map_err(Failure::from)
        .and_then(|absent| {
            options.absent = absent;
            options.database.clone_from(&file);
            options.shown = Some(folder.clone());
            run::run(config, &options)
        });
    if let Err(e) = empty(&work) {
        tracing::warn!("{e:#}");
    }
    result
}

fn empty(folder: &Path) -> Result<()> {
    let context = || format!("could not empty {}", folder.display());
    for entry in fs::read_dir(folder).with_context(context)? {
        fs::remove_file(entry.with_context(context)?.path()).with_context(context)?;
    }
    Ok(())
}

/// Returns the virtual tables that are not in the export.
fn make(folder: &Path, file: &Path) -> Result<Vec<VirtualTable>> {
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(Duration::from_millis(120));
    let (manifest, checked, strays) = check(folder, |table| {
        progress.set_message(format!("checking {table}"));
    })?;
    let findings: Vec<&String> = checked
        .iter()
        .flat_map(|f| &f.findings)
        .chain(&strays)
        .collect();
    if let Some(first) = findings.first() {
        progress.finish_and_clear();
        return Err(anyhow!(
            "{} is not whole ({} finding(s), the first: {first}); see oa-migrate check-export {0}",
            folder.display(),
            findings.len()
        ));
    }
    let result = rebuild(folder, &manifest, file, |table| {
        progress.set_message(format!("reading {table}"));
    });
    progress.finish_and_clear();
    result?;
    let absent = manifest.not_exported();
    for table in &absent {
        tracing::warn!(
            "virtual table {} is not in the export: it {}",
            table.name,
            table.why
        );
    }
    Ok(absent)
}
