//! PostgreSQL's own programs: finding those of the server's version, and running them with limits.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use oa_core::base::secrets::keep_from;
use oa_core::base::supervise::{self, Ended, Finished, Group, StopSignal};
use oa_core::pg::libpq;
use oa_core::pg::{ConnectError, Settings};

use crate::PostgresError;

/// No program may take longer than this.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// The programs of one major version, and how they connect.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Programs {
    /// Looks for the programs of `major`, at the configured folder or at the usual places.
    pub fn find(configured: Option<&Path>, major: i32) -> Result<PathBuf, PostgresError> {
        let candidates = match configured {
            Some(folder) => vec![folder.to_owned()],
            None => {
                let usual = [
                    format!("/usr/lib/postgresql/{major}/bin"),
                    format!("/usr/pgsql-{major}/bin"),
                    format!("/opt/homebrew/opt/postgresql@{major}/bin"),
                ];
                let path = std::env::var_os("PATH").unwrap_or_default();
                usual
                    .into_iter()
                    .map(PathBuf::from)
                    .chain(std::env::split_paths(&path))
                    .collect()
            }
        };
        let mut seen = Vec::new();
        for folder in candidates {
            match version_of(&folder) {
                Some(found) if found == major => return Ok(folder),
                Some(found) => seen.push(format!("{} is version {found}", folder.display())),
                None => {}
            }
        }
        let seen = if seen.is_empty() {
            String::new()
        } else {
            format!(" ({})", seen.join(", "))
        };
        Err(PostgresError::Program(format!(
            "the server is PostgreSQL {major}, and its programs are not found{seen}; install postgresql-{major}, or set bin_dir in [backup]"
        )))
    }

    /// The programs in `folder`, connecting as `settings` say, to `database` if it is given.
    pub fn new(
        folder: PathBuf,
        settings: &Settings,
        database: Option<&str>,
    ) -> Result<Self, ConnectError> {
        Ok(Self {
            folder,
            environment: libpq::environment(settings, database)?,
        })
    }

    /// Where they are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs one of them to its end.
    pub fn run(&self, program: &'static str, arguments: &[String]) -> Result<(), PostgresError> {
        let finished = self.finish(program, arguments)?;
        if finished.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&finished.stderr);
        let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        let said = lines[lines.len().saturating_sub(6)..].join("; ");
        Err(PostgresError::Failed {
            program,
            status: finished.status.to_string(),
            said,
        })
    }

    /// The same, with whatever status and output it ends.
    pub fn finish(
        &self,
        program: &'static str,
        arguments: &[String],
    ) -> Result<Finished, PostgresError> {
        let mut command = self.command(program, arguments);
        let finished = supervise::run(&mut command, LIMIT, StopSignal, false, supervise::TAIL)
            .map_err(|e| self.not_started(program, e))?;
        if finished.ended == Some(Ended::Stopped) {
            return Err(PostgresError::Stopped);
        }
        Ok(finished)
    }

    /// Starts one of them that works until it is dropped, as a session with the name `application`. What it says goes to `log`.
    pub fn start(
        &self,
        program: &'static str,
        arguments: &[String],
        application: &str,
        log: File,
    ) -> Result<Group, PostgresError> {
        let mut command = self.command(program, arguments);
        command.env("PGAPPNAME", application);
        Group::start_with(&mut command, Stdio::null(), log.into())
            .map_err(|e| self.not_started(program, e))
    }

    fn command(&self, program: &str, arguments: &[String]) -> Command {
        let mut command = Command::new(self.folder.join(program));
        command.args(arguments);
        keep_from(&mut command);
        // What libpq would take from elsewhere must not decide where data go.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command
            .env("LC_ALL", "C.UTF-8")
            .envs(self.environment.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Where the system has no more of something, it is there, and may be started a minute later.
    fn not_started(&self, program: &str, error: std::io::Error) -> PostgresError {
        let path = self.folder.join(program);
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::PermissionDenied => {
                PostgresError::Program(format!("could not start {}: {error}", path.display()))
            }
            _ => PostgresError::disk("could not start", &path)(error),
        }
    }
}

fn version_of(folder: &Path) -> Option<i32> {
    let program = folder.join("pg_basebackup");
    if !program.is_file() {
        return None;
    }
    let mut command = Command::new(program);
    keep_from(&mut command);
    let output = command.arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // pg_basebackup (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)
    let (_, version) = text.split_once(") ")?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
