//! What is wrong with an installation, and the command that mends each thing. Everything is looked at that an operator would look at
//! by hand, and nothing is changed.
//!
//! `machine` needs nothing but this machine, `server` and `access` ask PostgreSQL, `certificates` whoever speaks TLS, `programs` the other
//! programs what they know of their own settings. A check that cannot be made because of an earlier one is left out: what is in its way is
//! reported already.

mod access;
mod certificates;
mod crontab;
mod machine;
mod programs;
mod schedule;
mod server;
mod times;

use std::path::Path;

use oa_core::app::config::{Config, ConfigError};
use oa_core::base::secrets::redact;
use oa_core::base::trust::{TrustError, account, quoted};
use rustix::process::geteuid;
use serde::Serialize;

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// It works, and should be mended all the same.
    Warning,
    /// Something does not work, or data are in danger.
    Error,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    pub(crate) check: String,
    pub(crate) state: State,
    pub(crate) detail: String,
    /// What mends it; none where it is well.
    pub(crate) command: Option<String>,
}

/// All that was found, in the order in which it has to be mended.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) lines: Vec<Line>,
}

impl Findings {
    fn ok(&mut self, check: &str, detail: impl Into<String>) {
        self.push(check, State::Ok, &detail.into(), None);
    }

    fn warn(&mut self, check: &str, detail: impl Into<String>, command: impl Into<String>) {
        self.push(check, State::Warning, &detail.into(), Some(&command.into()));
    }

    fn error(&mut self, check: &str, detail: impl Into<String>, command: impl Into<String>) {
        self.push(check, State::Error, &detail.into(), Some(&command.into()));
    }

    fn push(&mut self, check: &str, state: State, detail: &str, command: Option<&str>) {
        self.lines.push(Line {
            check: check.to_owned(),
            state,
            detail: redact(detail),
            command: command.filter(|_| state != State::Ok).map(redact),
        });
    }

    pub(crate) fn worst(&self) -> State {
        let states = self.lines.iter().map(|line| line.state);
        states.max().unwrap_or(State::Ok)
    }
}

/// What can be said without a configuration: why there is none.
pub(crate) fn unconfigured(error: &ConfigError) -> Findings {
    let mut findings = Findings::default();
    programs::installed(&mut findings);
    let command = match error {
        // What is in a folder that this account may not enter is not there for it.
        ConfigError::Absent(_) => service().unwrap_or_else(|| "sudo oa-setup".to_owned()),
        ConfigError::Unreadable { path, source }
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            let me = account(geteuid().as_raw());
            let own = format!("sudo chgrp {me} {0} && sudo chmod 640 {0}", quoted(path));
            service().unwrap_or(own)
        }
        ConfigError::Unreadable { path, .. } | ConfigError::Invalid { path, .. } => edit(path),
        ConfigError::Untrusted { source, .. } => trust(source),
        _ => "sudo oa-setup".to_owned(),
    };
    findings.error("configuration", error.to_string(), command);
    findings
}

/// Looks at everything. `crontab` is looked at instead of this account's.
pub(crate) fn examine(config: &Config, crontab: Option<&Path>) -> Findings {
    let mut findings = Findings::default();
    programs::installed(&mut findings);
    programs::others(&mut findings);
    programs::outdated(&mut findings);
    findings.ok("configuration", config.path.display().to_string());
    for warning in config.warnings() {
        findings.warn("configuration", warning, edit(&config.path));
    }
    for name in config.overridden() {
        findings.warn(
            "configuration",
            format!("this shell has another {name} than the .env beside {}, which cron's and systemd's programs take", config.path.display()),
            format!("unset {name}"),
        );
    }
    machine::state_dir(config, &mut findings);
    machine::disks(config, &mut findings);
    schedule::look(config, crontab, &mut findings);
    server::look(config, &mut findings);
    programs::channels(config, &mut findings);
    programs::repository(config, &mut findings);
    programs::sources(config, &mut findings);
    findings
}

/// How to run this as the account that an installation is for, when this is another one.
fn service() -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let owner = std::fs::metadata("/var/lib/oa").ok()?.uid();
    (owner != 0 && owner != geteuid().as_raw())
        .then(|| format!("sudo -u {} oa-report doctor", account(owner)))
}

/// Opens a file in an editor, as whoever owns it.
fn edit(path: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let owner = std::fs::metadata(path).map_or(0, |found| found.uid());
    match owner == geteuid().as_raw() {
        true => format!("${{EDITOR:-vi}} {}", quoted(path)),
        false => format!("sudoedit {}", quoted(path)),
    }
}

fn trust(error: &TrustError) -> String {
    match error {
        TrustError::Io(_) => "sudo oa-setup".to_owned(),
        TrustError::Owner { path, me, .. } => format!("sudo chown {me} {}", quoted(path)),
        TrustError::Writable { path, .. } => format!("sudo chmod go-w {}", quoted(path)),
        TrustError::Readable { path, advice, .. } => {
            format!("sudo chmod {advice} {}", quoted(path))
        }
    }
}
