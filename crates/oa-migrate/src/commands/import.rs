//! `oa-migrate import`: an export into PostgreSQL, with the proof of `run`.
//!
//! The SQLite database is rebuilt from the export, proven to be what was exported, and moved as `run` does.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::base::state_dir::StateDir;

use super::run::{MoveArgs, Source, move_database};
use super::{Progress, failure, refused};
use crate::inspect::VirtualTable;
use crate::transfer::Manifest;
use crate::transfer::check::check;
use crate::transfer::rebuild::rebuild;

/// Move an export into PostgreSQL, with the same proof as run
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The export is checked, rebuilt as a SQLite database, proven to be what was exported, and then moved as by run.\n\nExamples:\n  oa-migrate import export-2026-11-23 --rehearse\n  oa-migrate import export-2026-11-23 --schema archive"
)]
pub(crate) struct Args {
    /// The folder of an export
    folder: PathBuf,
    #[command(flatten)]
    options: MoveArgs,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let state = StateDir::open(&config.state_dir)?;
    let Some(_lock) = state.try_lock("import").map_err(failure)? else {
        return Err(refused(
            "another oa-migrate import runs on this machine; wait until it ends".to_owned(),
        ));
    };
    // Nobody else works there now, so what is there is left over from an import that was killed.
    let work = state.folder("import").map_err(failure)?;
    empty(&work)?;
    let database = work.join("rebuilt.sqlite");
    let result = rebuild_export(&args.folder, &database)
        .map_err(failure)
        .and_then(|absent| {
            let source = Source {
                database,
                export: Some(args.folder.clone()),
                absent,
            };
            move_database(&source, &args.options, config)
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
fn rebuild_export(folder: &Path, database: &Path) -> Result<Vec<VirtualTable>> {
    let progress = Progress::start();
    let result = check_whole(folder, |table| {
        progress.set_message(format!("checking {table}"));
    })
    .and_then(|manifest| {
        rebuild(folder, &manifest, database, |table| {
            progress.set_message(format!("reading {table}"));
        })?;
        Ok(manifest.not_exported())
    });
    progress.finish_and_clear();
    let absent = result?;
    for table in &absent {
        tracing::warn!(
            "virtual table {} is not in the export: it {}",
            table.name,
            table.why
        );
    }
    Ok(absent)
}

fn check_whole(folder: &Path, progress: impl FnMut(&str)) -> Result<Manifest> {
    let check = check(folder, progress)?;
    let mut findings = check.findings();
    if let Some(first) = findings.next() {
        return Err(anyhow!(
            "{} is not whole ({} finding(s), the first: {first}); see oa-migrate check-export {0}",
            folder.display(),
            1 + findings.count()
        ));
    }
    drop(findings);
    Ok(check.manifest)
}
