//! One file per command: its arguments, and what it does from reading them to reporting.

pub(crate) mod check_export;
pub(crate) mod dedupe;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod init;
pub(crate) mod output;
pub(crate) mod plan;
pub(crate) mod rollback;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod to_sqlite;
pub(crate) mod verify;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::ProgressBar;
use oa_core::app::cli::{Failure, GlobalArgs};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::base::threads;

use crate::errors::Refused;
use crate::{PROGRAM, progress};

// No documentation comment: clap would print it as the command's own.
#[derive(Debug, clap::Args)]
pub(crate) struct JobsArg {
    /// Tables read, loaded and compared at a time [default: number of processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
}

impl JobsArg {
    fn count(&self) -> usize {
        self.jobs.map_or_else(
            || std::thread::available_parallelism().map_or(2, usize::from),
            usize::from,
        )
    }
}

/// The exit code of an error: 77 for [`Refused`], the library's own for its errors, else 1.
fn failure(error: impl Into<anyhow::Error>) -> Failure {
    let error = error.into();
    if error.is::<Refused>() {
        Failure::new(exit::REFUSED, error)
    } else {
        Failure::from(error)
    }
}

fn refused(text: String) -> Failure {
    failure(Refused(text))
}

/// The configuration, with another target if one is named. Without a file, what is kept lies in the user's own state directory.
pub(crate) fn load_config(global: &GlobalArgs, to: Option<&str>) -> Result<Config, Failure> {
    let Some(to) = to else {
        return Ok(global.load_config()?);
    };
    if let Some(config) = global.load_config_if_any()? {
        return Err(refused(format!(
            "--to is for a look without a configuration, and there is {}; leave --to out, or go to another folder",
            config.path.display()
        )));
    }
    if to != "env:DATABASE_URL" && std::env::var_os("DATABASE_URL").is_some_and(|v| !v.is_empty()) {
        return Err(refused(
            "DATABASE_URL is set and would win over --to; unset it, or use --to env:DATABASE_URL"
                .to_owned(),
        ));
    }
    let folder = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let state = folder("XDG_STATE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local/state")))
        .ok_or_else(|| {
            refused(
                "--to needs $HOME or $XDG_STATE_HOME, where copies and reports are kept".to_owned(),
            )
        })?
        .join("oa-migrate");
    std::fs::create_dir_all(&state)
        .with_context(|| format!("could not create {}", state.display()))?;
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let text = format!(
        "state_dir = {}\n[database]\nurl = {}\n",
        quoted(&state.to_string_lossy()),
        quoted(to)
    );
    let config = Config::parse(&state.join("--to"), &text)?;
    config.remember_secrets();
    Ok(config)
}

/// Shows on stderr how far the work has come: a line that changes on a terminal, elsewhere one every ten seconds.
struct Progress {
    bar: ProgressBar,
    /// Ends the thread when it is dropped.
    stop: Option<Sender<()>>,
}

impl Progress {
    fn start() -> Self {
        let bar = ProgressBar::new_spinner();
        let (stop, stopped) = mpsc::channel();
        let shown = bar.clone();
        let terminal = std::io::stderr().is_terminal();
        let every = if terminal {
            Duration::from_millis(200)
        } else {
            Duration::from_secs(10)
        };
        let shows = threads::spawn("show progress", move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let line = progress::line();
                if line.is_empty() {
                    continue;
                }
                if terminal {
                    shown.set_message(line);
                    shown.tick();
                } else if tracing::enabled!(tracing::Level::WARN) {
                    // Nobody may be reading; the work goes on.
                    let _ = writeln!(std::io::stderr(), "{PROGRAM}: {line}");
                }
            }
        });
        if let Err(e) = shows {
            tracing::debug!("{e}");
        }
        Self {
            bar,
            stop: Some(stop),
        }
    }

    fn set_message(&self, phase: impl Into<String>) {
        self.begin(phase, 0);
    }

    /// A phase with so many rows.
    fn begin(&self, phase: impl Into<String>, rows: u64) {
        progress::begin(phase, rows);
        self.bar.set_message(progress::line());
        self.bar.tick();
    }

    fn finish_and_clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.bar.finish_and_clear();
    }
}
