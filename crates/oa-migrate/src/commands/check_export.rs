//! `oa-migrate check-export`: whether an export is complete and unchanged. Needs no database.

use std::path::PathBuf;

use oa_core::app::cli::Failure;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use serde_json::json;

use super::export::row;
use super::{Progress, failure};
use crate::transfer::check::check;

/// Read an export back and compare it with its manifest: sizes, hashes, every line
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder
    folder: PathBuf,
    /// How the list of files is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args) -> Result<u8, Failure> {
    let progress = Progress::start();
    let result = check(&args.folder, |table| {
        progress.set_message(format!("reading {table}"));
    });
    progress.finish_and_clear();
    let check = result?;
    let mut listing = Listing::new(&[
        ("table", "TABLE"),
        ("file", "FILE"),
        ("rows", "ROWS"),
        ("bytes", "BYTES"),
        ("whole", "WHOLE"),
    ]);
    for file in &check.files {
        let whole = file.findings.is_empty();
        let mut line = row(&file.table);
        line["whole"] = match (args.format, whole) {
            (Format::Table, true) => json!("yes"),
            (Format::Table, false) => json!("NO"),
            _ => json!(whole),
        };
        line["findings"] = json!(file.findings);
        listing.push(line);
    }
    listing.print(args.format).map_err(failure)?;
    let mut whole = true;
    for finding in check.findings() {
        whole = false;
        tracing::error!("{finding}");
    }
    Ok(if whole { exit::OK } else { exit::FAILED })
}
