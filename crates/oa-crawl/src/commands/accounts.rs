//! What enabled sources need of an account: asked for on a terminal, without showing it, and kept in the `.env` beside the configuration.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use oa_core::app::cli::Failure;
use oa_core::app::config::{Config, SecretRef};
use oa_core::app::exit;
use oa_core::base::supervise::install_stop_signal;
use oa_core::base::threads;
use rustix::fs::{FlockOperation, flock};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::enable::replace;
use crate::source::Source;

/// How often it is looked whether a signal has come.
const LOOK: Duration = Duration::from_millis(50);

/// Asks for the variables that are not set, each once. Gives the configuration with what was answered; nothing is a later answer.
///
/// Exits 77 for a `.env` that may not be written, 78 for a value that cannot stand in one.
pub(super) fn ask(config: &Config, sources: &[&Source]) -> Result<Option<Config>, Failure> {
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for source in sources {
        for reference in source.secret_references() {
            if let SecretRef::Env(name) = reference
                && config.env(name).is_none()
            {
                missing.entry(name).or_default().push(&source.name);
            }
        }
    }
    let mut answers = Vec::new();
    for (name, mut tasks) in missing {
        tasks.dedup();
        let question = format!("{name}, for {} (empty: later): ", tasks.join(", "));
        let answer = without_echo(&question).map_err(anyhow::Error::from)?;
        let answer = answer.trim();
        if !answer.is_empty() {
            answers.push(format!("{name}={}\n", quoted(name, answer)?));
        }
    }
    if answers.is_empty() {
        return Ok(None);
    }
    let folder = config.path.parent().filter(|p| !p.as_os_str().is_empty());
    let path = folder.unwrap_or(Path::new(".")).join(".env");
    append(&path, &config.path, &answers.concat()).map_err(|e| {
        let what = format!(
            "could not write {}: {e}; run this as its owner, or write the values there",
            path.display()
        );
        Failure::new(exit::REFUSED, anyhow::anyhow!(what))
    })?;
    Ok(Some(Config::load(Some(&config.path))?))
}

/// As the file's reader gives it back. Between single quotes everything stays as it is.
fn quoted(name: &str, value: &str) -> Result<String, Failure> {
    match value.contains('\'') || value.chars().any(char::is_control) {
        false => Ok(format!("'{value}'")),
        true => Err(Failure::new(
            exit::CONFIG,
            anyhow::anyhow!(
                "the value for {name} has a ' or a control character in it; put it into a file and say {name} by file:PATH in the source file"
            ),
        )),
    }
}

/// There is either the old file, or the whole new one with its mode and owner: the service reads it by its group. A new one belongs to whom
/// the configuration belongs.
fn append(path: &Path, like: &Path, lines: &str) -> io::Result<()> {
    // A link stays one.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().unwrap_or(Path::new("/"));
    // Two at the same time would each write what they have read.
    let lock = File::open(folder)?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let (owner, mode, mut text) = match fs::read_to_string(&path) {
        Ok(text) => (path.as_path(), None, text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            (like, Some(mode_beside(&fs::metadata(like)?)), String::new())
        }
        Err(e) => return Err(e),
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(lines);
    replace(&path, owner, mode, text.as_bytes())
}

/// The service's group needs root's file.
fn mode_beside(like: &Metadata) -> u32 {
    let by_group = like.uid() == 0 && like.gid() != 0 && like.mode() & 0o040 != 0;
    if by_group { 0o640 } else { 0o600 }
}

/// A signal ends the question, and not the process at once, which would leave the terminal as it is.
fn without_echo(question: &str) -> io::Result<String> {
    let stop = install_stop_signal()?;
    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    // Before it asks: what is typed at once is not shown either.
    tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    let restored = Restored(before);
    io::stderr().write_all(question.as_bytes())?;
    let (said, heard) = sync_channel(1);
    threads::spawn("hear the answer", move || {
        let mut line = String::new();
        let read = io::stdin().read_line(&mut line).map(|_| line);
        let _ = said.send(read);
    })?;
    let answer = loop {
        match heard.recv_timeout(LOOK) {
            Ok(answer) => break answer,
            Err(RecvTimeoutError::Timeout) if !stop.requested() => {}
            Err(_) => break Err(io::Error::other("stopped by a signal")),
        }
    };
    drop(restored);
    io::stderr().write_all(b"\n")?;
    answer
}

/// The terminal shows again what is typed.
struct Restored(Termios);

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
