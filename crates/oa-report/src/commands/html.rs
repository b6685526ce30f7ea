//! `oa-report html`: the overview as one file that needs nothing else, to be kept, sent, or put on any web server.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use chrono::Utc;
use oa_core::app::cli;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::base::state_dir;
use oa_core::schedule::Calendar;

use crate::pool::Pool;
use crate::snapshot::{Known, Snapshot};
use crate::web::layout::{self, Frame};
use crate::web::overview::{self, Overview};
use crate::web::words::{Clock, Lang};

/// Prints the file, or writes it to `output`: complete, or not at all.
///
/// # Errors
/// 75 when PostgreSQL is away, 78 when its schema does not fit, 1 when the file cannot be written.
pub fn run(config: &Config, output: Option<&Path>) -> Result<u8, Failure> {
    let calendar =
        Calendar::load(config.calendar.as_deref()).map_err(|e| Failure::new(exit::CONFIG, e))?;
    let pool = Pool::from_config(config)?;
    let (snapshot, overview) = pool.ask(|tx| {
        let snapshot = Snapshot::take(tx, config)?;
        let shown = overview::ordered(&snapshot)
            .iter()
            .map(|t| t.name.clone())
            .collect();
        let overview = Overview::take(tx, config, &calendar, shown)?;
        Ok((Arc::new(snapshot), overview))
    })?;
    let lang = Lang::from(config.locale);
    let clock = Clock {
        now: Utc::now(),
        zone: config.timezone,
        lang,
    };
    let frame = Frame::alone(lang, clock, Known::of(Arc::clone(&snapshot)));
    let title = lang.say("总览", "Overview");
    let text = layout::page(
        &frame,
        title,
        &overview::body(&frame, &snapshot, &overview, (1, 1)),
    )
    .into_string();
    match output {
        None => cli::print(&text).map_err(anyhow::Error::from)?,
        Some(path) => {
            write(path, &text).with_context(|| format!("could not write {}", path.display()))?;
        }
    }
    Ok(exit::OK)
}

/// A web server, which is another user, may read the file at any moment, and nobody else may change it. Where others may make files, what
/// stands in the way is not followed.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", uuid::Uuid::now_v7()));
    let beside = path.with_file_name(name);
    let mut new = state_dir::new_file();
    let written = new.mode(0o644).open(&beside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}
