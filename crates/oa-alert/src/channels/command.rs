//! A program of this machine: it gets the message as JSON on stdin and ends with 0 when it has it. Of this process's
//! environment it sees what it needs to run, and what the configuration gives to it.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use oa_core::app::config::{self, Config, ConfigError, SecretRef};
use oa_core::base::secrets::{Secret, redact};
use oa_core::base::supervise::{Ended, Launch};
use rustix::fs::Access;

use super::{Channel, SendError, TIMEOUT, event};
use crate::render::Message;

/// Longest text in bytes.
const LIMIT: usize = 200_000;
/// What is kept of its output for the error, in bytes.
const KEPT: usize = 2000;
/// What it may print.
const MOST: u64 = 64 << 20;

/// What a program finds in its environment without being given it: everything else may be a secret that is meant for this program alone.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// What `env` of a channel names.
pub(super) fn environment(
    config: &Config,
    channel: &config::Channel,
) -> Result<Vec<(String, Secret)>, ConfigError> {
    let given = channel.env.iter().map(|name| {
        let setting = format!("{name} (env of channel \"{}\")", channel.name);
        let value = config.secret(&SecretRef::Env(name.clone()), &setting)?;
        Ok((name.clone(), value))
    });
    given.collect()
}

/// Whether the program is on this machine and may be run.
pub(super) fn check(channel: &Channel) -> Result<(), String> {
    let program = channel.command.first().map_or("", String::as_str);
    let may_run = |path: &Path| rustix::fs::access(path, Access::EXEC_OK).is_ok() && path.is_file();
    let found = if program.contains('/') {
        may_run(Path::new(program))
    } else {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders).any(|folder| may_run(&folder.join(program)))
    };
    if found {
        return Ok(());
    }
    Err(format!(
        "the program {program} is not on this machine, or may not be run; name it with its whole path, because cron knows few folders"
    ))
}

pub(super) fn send(channel: &Channel, message: &Message) -> Result<(), SendError> {
    let Some((program, arguments)) = channel.command.split_first() else {
        return Err(SendError::new("command is empty"));
    };
    let text = channel.form(LIMIT, false, true).fit(message);
    let input = event::object(message, &text);
    let failed = |what: String| SendError::new(redact(&format!("{program} {what}")));
    // A file rather than a pipe: a program that does not read it must not stop this one.
    let mut file = tempfile::tempfile().map_err(|e| failed(format!("gets no input: {e}")))?;
    file.write_all(input.to_string().as_bytes())
        .and_then(|()| std::io::Seek::rewind(&mut file))
        .map_err(|e| failed(format!("gets no input: {e}")))?;
    let mut command = Command::new(program);
    let kept = INHERITED
        .iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)));
    command.args(arguments).env_clear().envs(kept);
    command.envs(
        channel
            .env
            .iter()
            .map(|(name, value)| (name, value.expose())),
    );
    let launch = Launch {
        input: file.into(),
        keep: KEPT,
        most: Some(MOST),
        ..Launch::new(TIMEOUT)
    };
    let done = launch
        .run(&mut command)
        .map_err(|e| failed(format!("could not be started: {e}")))?;
    let said = String::from_utf8_lossy(&done.stderr);
    let last = said.lines().rev().find(|l| !l.trim().is_empty());
    let last = last.map_or_else(String::new, |l| format!(": {}", l.trim()));
    match done.ended {
        Some(Ended::TimedOut) => Err(SendError {
            unknown: true,
            ..failed(format!("did not end within {} s{last}", TIMEOUT.as_secs()))
        }),
        Some(Ended::Stopped) => Err(SendError {
            unknown: true,
            ..failed("was ended because oa-alert was asked to stop".to_owned())
        }),
        Some(Ended::PrintedTooMuch(stream)) => Err(SendError {
            unknown: true,
            ..failed(format!(
                "printed more than {MOST} bytes on {stream} and was ended"
            ))
        }),
        None if done.status.success() => Ok(()),
        None => Err(failed(format!("ended with {}{last}", done.status))),
    }
}
