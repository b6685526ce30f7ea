//! Starts another of the six programs when one needs it, as a process with its own row in the run log.

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::app::config::Config;
use crate::base::supervise::{Finished, Launch, TAIL};

/// Where a program is that is installed beside this one.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let me = std::env::current_exe().ok()?;
    Some(me.parent()?.join(program)).filter(|p| p.is_file())
}

/// Runs a program that is installed beside this one to its end, with this one's configuration. It is ended when this one is asked to
/// stop.
///
/// # Errors
/// `NotFound` when it is not installed there; or when it cannot be started.
pub fn run(
    program: &str,
    config: &Config,
    arguments: &[&str],
    limit: Duration,
) -> io::Result<Finished> {
    let path = find(program).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("{program} is not installed beside this program"),
        )
    })?;
    let mut command = Command::new(path);
    command.arg("--config").arg(&config.path).args(arguments);
    Launch {
        keep: 4 * TAIL,
        ..Launch::new(limit)
    }
    .run(&mut command)
}
