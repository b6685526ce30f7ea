//! `oa-migrate export`: a SQLite database as a folder of JSON lines.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow};
use indicatif::ProgressBar;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::journal::Recorder;
use oa_core::model::run::Status;
use serde_json::json;

use crate::PROGRAM;
use crate::inspect;
use crate::transfer::export::export;
use crate::transfer::part::Part;
use crate::transfer::{Manifest, TableFile};
use oa_core::app::work;
use oa_core::app::work::{Job, JobOutcome};

/// What `export` was asked for.
#[derive(Debug)]
pub struct Options {
    /// The SQLite file.
    pub database: PathBuf,
    /// The folder to make.
    pub folder: PathBuf,
    /// End with 0 although a virtual table's contents are not in the export.
    pub allow_missing: bool,
    /// How the result is printed.
    pub format: Format,
}

/// Writes the folder beside its place and renames it when all of it is durable.
///
/// # Errors
/// The source cannot be read, the folder cannot be written, or contents of a virtual table cannot be exported (1), the folder is there and not empty (77).
pub fn run(config: &Config, options: &Options) -> Result<u8, Failure> {
    let source = inspect::open(&options.database).map_err(anyhow::Error::from)?;
    refuse_existing(&options.folder)?;
    let recorder = Recorder::open(config, PROGRAM)?;
    let manifest = work::recorded(
        &recorder,
        &Job::by_hand(PROGRAM, "export", "导出 JSON Lines"),
        |_| {
            let progress = ProgressBar::new_spinner();
            progress.enable_steady_tick(Duration::from_millis(120));
            let result = write(&source, options, &progress);
            progress.finish_and_clear();
            let manifest = result?;
            let rows: u64 = manifest.tables.iter().map(|t| t.rows).sum();
            let mut details = serde_json::Map::new();
            details.insert("database".to_owned(), json!(options.database));
            details.insert("folder".to_owned(), json!(options.folder));
            let lost: Vec<String> = manifest
                .not_exported()
                .into_iter()
                .filter(|v| v.lost && !options.allow_missing)
                .map(|v| format!("virtual table {} was not exported: it {}", v.name, v.why))
                .collect();
            Ok(JobOutcome {
                fetched: rows,
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
    let mut listing = listing();
    for table in &manifest.tables {
        listing.push(row(table));
    }
    listing.print(options.format).map_err(anyhow::Error::from)?;
    let mut lost = false;
    for table in manifest.not_exported() {
        if table.lost && !options.allow_missing {
            lost = true;
            tracing::error!(
                "virtual table {} was not exported: it {}",
                table.name,
                table.why
            );
        } else {
            tracing::warn!(
                "virtual table {} was not exported: it {}",
                table.name,
                table.why
            );
        }
    }
    Ok(if lost { exit::FAILED } else { exit::OK })
}

/// The columns of a listing of an export's files.
#[must_use]
pub fn listing() -> Listing {
    Listing::new(&[
        ("table", "TABLE"),
        ("file", "FILE"),
        ("rows", "ROWS"),
        ("bytes", "BYTES"),
        ("sha256", "SHA-256"),
    ])
}

/// A line of [`listing`].
#[must_use]
pub fn row(table: &TableFile) -> serde_json::Value {
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
        Err(e) => e.kind() == std::io::ErrorKind::NotFound,
    };
    if free {
        return Ok(());
    }
    Err(Failure::new(
        exit::REFUSED,
        anyhow!(
            "{} is there already and is not overwritten; name a folder that is empty or not there",
            folder.display()
        ),
    ))
}

fn write(
    source: &rusqlite::Connection,
    options: &Options,
    progress: &ProgressBar,
) -> Result<Manifest, Failure> {
    let part = Part::create(&options.folder)?;
    progress.set_message("looking for damage");
    let manifest = export(source, &options.database, part.path(), |table| {
        progress.set_message(format!("writing {table}"));
    })?;
    part.put_in_place()?;
    Ok(manifest)
}
