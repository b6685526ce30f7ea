//! `oa-report html`: the overview as one file that needs nothing else, to be kept, sent, or put on any web server.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use chrono::Utc;
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::base::state_dir;

use crate::lang::Lang;
use crate::pages::layout::{self, Frame};
use crate::pages::overview;
use crate::pages::words::Clock;
use crate::pool::Pool;
use crate::queries::overview::Overview;
use crate::snapshot::{LatestSnapshot, Snapshot};

/// The overview as one HTML file that needs nothing else
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  oa-report html > overview.html\n  oa-report html --output /var/www/html/oa.html"
)]
pub(crate) struct Args {
    /// Write the file here: complete, or not at all [default: stdout]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let calendar = super::calendar(config)?;
    let pool = Pool::from_config(config)?;
    let (snapshot, overview) = pool.read(|tx| {
        let snapshot = Snapshot::take(tx, config)?;
        let shown = overview::by_site(&snapshot);
        let shown = shown.iter().map(|t| t.name.clone()).collect();
        let aside = overview::aside(&snapshot);
        let overview = Overview::take(tx, config, &calendar, shown, &aside)?;
        Ok((Arc::new(snapshot), overview))
    })?;
    let lang = Lang::from(config.locale);
    let clock = Clock {
        now: Utc::now(),
        zone: config.timezone,
        lang,
    };
    let frame = Frame::standalone(lang, clock, LatestSnapshot::of(Arc::clone(&snapshot)));
    let text = layout::page(
        &frame,
        lang.say("总览", "Overview"),
        &overview::body(&frame, &snapshot, &overview, (1, 1)),
    )
    .into_string();
    match &args.output {
        None => cli::print(&text).map_err(anyhow::Error::from)?,
        Some(path) => {
            write(path, &text).with_context(|| format!("could not write {}", path.display()))?;
        }
    }
    Ok(exit::OK)
}

/// A web server, which is another user, may read the file at any time, and nobody else may change it. Where others may make files, what
/// stands in the way is not followed.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not the name of a file",
        ));
    };
    state_dir::replaceable(path)?;
    let mut name = name.to_owned();
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
