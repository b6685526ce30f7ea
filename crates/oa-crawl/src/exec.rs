//! A program that stores its own data, under the same wrapper as a source: one try of it, and what it brought.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Result, bail};
use chrono::{DateTime, Utc};
use oa_core::alerts::human_duration;
use oa_core::config::Locale;
use oa_core::pg;
use oa_core::retry::{ErrorKind, Policy};
use oa_core::runs::{RunError, RunStart};
use oa_core::secrets::redact;
use oa_core::supervise::{self, Ended, Finished, StopSignal};
use rustix::io::Errno;

use crate::records;
use oa_core::runs::attempts::Failed;

/// Exit codes that a second try would only repeat: usage (2), not permitted (77), configuration (78), not executable (126), not
/// found (127).
pub(crate) const PERMANENT: [i32; 5] = [2, 77, 78, 126, 127];
/// What is kept of the output, in characters from its end.
const KEPT: usize = 4000;

/// A program to run.
#[derive(Debug)]
pub struct Program {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// How often, and how long each try may take.
    pub policy: Policy,
    /// Fewer records are a failure.
    pub min_records: Option<u64>,
    /// Where the program writes its records, or their number; its stdout otherwise.
    pub result_file: Option<PathBuf>,
    /// Asks PostgreSQL for their number instead.
    pub query: Option<Query>,
}

/// How the records that a try stored are counted in PostgreSQL.
#[derive(Debug)]
pub struct Query {
    /// Gives one number. `$1`, where it occurs, is the moment at which the try began (timestamptz).
    pub sql: String,
    /// The database.
    pub settings: pg::Settings,
}

impl Query {
    fn count(&self, since: DateTime<Utc>) -> Result<u64> {
        let mut client = pg::connect(&self.settings)?;
        let mut tx = client.build_transaction().read_only(true).start()?;
        let statement = tx.prepare(&self.sql).map_err(|e| described(&e))?;
        let row = match statement.params().len() {
            0 => tx.query_one(&statement, &[]),
            1 => tx.query_one(&statement, &[&since]),
            n => bail!("it has {n} parameters; $1 alone, a timestamptz, is given"),
        };
        let row = row.map_err(|e| described(&e))?;
        let count: i64 = row.try_get(0).map_err(|_| {
            anyhow::anyhow!("its first column is not a bigint, as count(*) gives it")
        })?;
        Ok(count.unsigned_abs())
    }
}

fn described(error: &postgres::Error) -> anyhow::Error {
    anyhow::anyhow!(pg::describe(error))
}

/// What the last try left.
#[derive(Debug, Default)]
pub struct Brought {
    /// Records.
    pub records: u64,
    /// The end of stdout and stderr, without secrets.
    pub output: String,
    /// `exit status: 1` or the like.
    pub status: String,
}

impl Program {
    /// The program's name for people. Its arguments may hold secrets.
    #[must_use]
    pub fn name(&self) -> String {
        self.command
            .first()
            .map(|c| {
                Path::new(c)
                    .file_name()
                    .unwrap_or(c)
                    .to_string_lossy()
                    .into_owned()
            })
            .unwrap_or_default()
    }

    /// Runs it once, until its end or the end of its time. The program finds task, run and try in its environment
    /// (`OA_TASK`, `OA_RUN_ID`, `OA_ATTEMPT`).
    ///
    /// # Errors
    /// Why the try failed, and whether another may help.
    pub fn once(
        &self,
        start: &RunStart,
        attempt: u32,
        stop: StopSignal,
        brought: &mut Brought,
    ) -> Result<(), Failed> {
        let (Some(program), arguments) = (self.command.first(), self.command.get(1..)) else {
            return Err(permanent("no program was given"));
        };
        let before = self.result_file.as_deref().and_then(modified);
        let began = Utc::now();
        let mut command = Command::new(program);
        command
            .args(arguments.unwrap_or_default())
            .env("OA_TASK", &start.task)
            .env("OA_RUN_ID", start.id.to_string())
            .env("OA_ATTEMPT", attempt.to_string());
        *brought = Brought::default();
        let done = supervise::run(
            &mut command,
            self.policy.timeout,
            stop,
            true,
            supervise::TAIL,
        )
        .map_err(|e| self.not_started(&e))?;
        brought.output = tail(&done);
        brought.status = done.status.to_string();
        self.judge_end(&done)?;
        brought.records = match (&self.query, &self.result_file) {
            (Some(query), _) => query.count(began).map_err(|e| Failed {
                error: RunError::new(
                    ErrorKind::Db,
                    format!(
                        "the records could not be counted by the query of [exec.{}]: {e:#}",
                        start.task
                    ),
                ),
                retry: true,
                asked: None,
            })?,
            (None, None) => done.json_lines,
            (None, Some(path)) => self.count(path, before).map_err(|e| Failed {
                error: RunError::new(ErrorKind::Shape, format!("{e:#}")),
                retry: true,
                asked: None,
            })?,
        };
        let Some(min) = self.min_records.filter(|min| brought.records < *min) else {
            return Ok(());
        };
        let kind = if brought.records == 0 {
            ErrorKind::Empty
        } else {
            ErrorKind::Partial
        };
        let message = format!(
            "{} brought {} record(s), at least {min} were due",
            self.name(),
            brought.records
        );
        Err(Failed::by_kind(RunError::new(kind, message), None))
    }

    /// A machine that is short of processes or memory may have some later; a program that is not there will not be.
    fn not_started(&self, error: &io::Error) -> Failed {
        let (retry, remedy) = match error.kind() {
            io::ErrorKind::NotFound => (
                false,
                "; check its path, PATH (cron's is short), and the interpreter in its first line",
            ),
            io::ErrorKind::PermissionDenied => (
                false,
                "; make it executable for this user (chmod +x), or name its interpreter: -- python3 FILE",
            ),
            _ if error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => (
                false,
                "; its first line names no interpreter: name it, -- python3 FILE",
            ),
            _ => (true, ""),
        };
        let message = format!("could not start {}: {error}{remedy}", self.name());
        Failed {
            error: RunError::new(ErrorKind::Internal, message),
            retry,
            asked: None,
        }
    }

    fn judge_end(&self, done: &Finished) -> Result<(), Failed> {
        let name = self.name();
        let last = last_words(done);
        match done.ended {
            Some(Ended::TimedOut) => {
                let limit = human_duration(self.policy.timeout, Locale::En);
                let message = format!("{name} was ended after {limit}, its time limit{last}");
                Err(Failed::by_kind(
                    RunError::new(ErrorKind::Timeout, message),
                    None,
                ))
            }
            Some(Ended::Stopped) => Err(permanent(&format!(
                "{name} was ended because oa-crawl was asked to stop"
            ))),
            None if done.status.success() => Ok(()),
            None => Err(Failed {
                error: RunError::new(
                    ErrorKind::Internal,
                    format!("{name} ended with {}{last}", done.status),
                ),
                retry: !done.status.code().is_some_and(|c| PERMANENT.contains(&c)),
                asked: None,
            }),
        }
    }

    /// The number of records in the result file, which this try must have written.
    fn count(&self, path: &Path, before: Option<SystemTime>) -> Result<u64> {
        let Some(after) = modified(path) else {
            bail!("{} has not written {}", self.name(), path.display());
        };
        if before == Some(after) {
            bail!(
                "{} has not written {}: the file is an older one",
                self.name(),
                path.display()
            );
        }
        records::count(path)
    }
}

fn permanent(message: &str) -> Failed {
    Failed {
        error: RunError::new(ErrorKind::Internal, message),
        retry: false,
        asked: None,
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|m| m.modified()).ok()
}

/// The last line that says something, for the error's message: of stderr, else of stdout.
fn last_words(done: &Finished) -> String {
    let of = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let line = text.lines().rev().find(|l| !l.trim().is_empty())?;
        Some(line.trim().chars().take(300).collect::<String>())
    };
    of(&done.stderr)
        .or_else(|| of(&done.stdout))
        .map_or_else(String::new, |line| format!(": {line}"))
}

fn tail(done: &Finished) -> String {
    let mut text = String::from_utf8_lossy(&done.stdout).into_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&String::from_utf8_lossy(&done.stderr));
    let text = redact(&text.replace('\0', "\u{fffd}"));
    let skip = text.chars().count().saturating_sub(KEPT);
    text.chars().skip(skip).collect()
}
