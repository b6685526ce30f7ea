//! `oa-migrate check-export`: whether an export is whole. Needs no database.

use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use oa_core::app::cli::Failure;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use serde_json::json;

use super::export::row;
use crate::transfer::check::check;

/// Reads everything back and says what is wrong.
///
/// # Errors
/// When there is no readable manifest (1).
pub fn run(folder: &Path, format: Format) -> Result<u8, Failure> {
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(Duration::from_millis(120));
    let result = check(folder, |table| {
        progress.set_message(format!("reading {table}"));
    });
    progress.finish_and_clear();
    let (_, checked, strays) = result?;
    let mut listing = Listing::new(&[
        ("table", "TABLE"),
        ("file", "FILE"),
        ("rows", "ROWS"),
        ("bytes", "BYTES"),
        ("whole", "WHOLE"),
    ]);
    let mut whole = strays.is_empty();
    for file in &checked {
        whole &= file.findings.is_empty();
        let mut line = row(&file.of);
        line["whole"] = if format == Format::Table {
            json!(if file.findings.is_empty() {
                "yes"
            } else {
                "NO"
            })
        } else {
            json!(file.findings.is_empty())
        };
        line["findings"] = json!(file.findings);
        listing.push(line);
    }
    listing.print(format).map_err(anyhow::Error::from)?;
    for finding in checked.iter().flat_map(|f| &f.findings).chain(&strays) {
        tracing::error!("{finding}");
    }
    Ok(if whole { exit::OK } else { exit::FAILED })
}
