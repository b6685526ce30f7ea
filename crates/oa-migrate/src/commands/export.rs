//! `oa-migrate export`: a SQLite database as a folder of JSON lines, written beside its place and renamed when all of it is
//! durable.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Result;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::app::work::{self, Job, JobOutcome};
use oa_core::journal::Recorder;
use oa_core::model::run::Status;
use rusqlite::Connection;
use serde_json::json;

use super::{Progress, failure, refused};
use crate::PROGRAM;
use crate::inspect::{self, VirtualTable};
use crate::transfer::export::export;
use crate::transfer::partial::PartialFolder;
use crate::transfer::{Manifest, TableFile};

/// Write a SQLite database as a folder of JSON lines with a manifest of counts and hashes
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Nothing is lost: every value keeps its storage class and its bits. The format is described in docs/export-format.md.\n\nExamples:\n  oa-migrate export option_tracker.db export-2026-11-23\n  oa-migrate check-export export-2026-11-23\n  jq -r .comm_code export-2026-11-23/*option_flows.jsonl | sort | uniq -c"
)]
pub(crate) struct Args {
    /// The SQLite file; it is opened read-only
    database: PathBuf,
    /// The folder to create; it must be empty or absent
    folder: PathBuf,
    /// Exit with 0 even if the contents of a virtual table cannot be exported
    #[arg(long)]
    allow_missing: bool,
    /// How the list of files is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let source = inspect::open(&args.database).map_err(failure)?;
    refuse_existing(&args.folder)?;
    let recorder = Recorder::open(config, PROGRAM)?;
    let manifest = work::recorded(
        &recorder,
        &Job::by_hand(PROGRAM, "export", "导出 JSON Lines"),
        |_| {
            let manifest = write(&source, args).map_err(failure)?;
            let lost: Vec<String> = manifest
                .not_exported()
                .iter()
                .filter(|v| v.lost && !args.allow_missing)
                .map(not_exported)
                .collect();
            let mut details = serde_json::Map::new();
            details.insert("database".to_owned(), json!(args.database));
            details.insert("folder".to_owned(), json!(args.folder));
            Ok(JobOutcome {
                fetched: manifest.tables.iter().map(|t| t.rows).sum(),
                status: if lost.is_empty() {
                    Status::Success
                } else {
                    Status::Partial
                },
                error: (!lost.is_empty()).then(|| lost.join("; ")),
                details,
                ..JobOutcome::success(manifest)
            })
        },
    )?;
    let mut listing = Listing::new(&[
        ("table", "TABLE"),
        ("file", "FILE"),
        ("rows", "ROWS"),
        ("bytes", "BYTES"),
        ("sha256", "SHA-256"),
    ]);
    for table in &manifest.tables {
        listing.push(row(table));
    }
    listing.print(args.format).map_err(failure)?;
    let mut complete = true;
    for table in manifest.not_exported() {
        if table.lost && !args.allow_missing {
            complete = false;
            tracing::error!("{}", not_exported(&table));
        } else {
            tracing::warn!("{}", not_exported(&table));
        }
    }
    Ok(if complete { exit::OK } else { exit::FAILED })
}

fn not_exported(table: &VirtualTable) -> String {
    format!(
        "virtual table {} was not exported: it {}",
        table.name, table.why
    )
}

/// A file's line in the list.
pub(crate) fn row(table: &TableFile) -> serde_json::Value {
    json!({
        "table": table.table,
        "file": table.file,
        "rows": table.rows,
        "bytes": table.bytes,
        "sha256": table.sha256,
    })
}

fn refuse_existing(folder: &Path) -> Result<(), Failure> {
    let free = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    };
    if free {
        return Ok(());
    }
    Err(refused(format!(
        "{} exists already and is not overwritten; name a folder that is empty or absent",
        folder.display()
    )))
}

fn write(source: &Connection, args: &Args) -> Result<Manifest> {
    let progress = Progress::start();
    progress.set_message("looking for damage");
    let part = PartialFolder::create(&args.folder)?;
    let result = export(source, &args.database, part.path(), |table| {
        progress.set_message(format!("writing {table}"));
    })
    .and_then(|manifest| part.put_in_place().map(|()| manifest));
    progress.finish_and_clear();
    result
}
