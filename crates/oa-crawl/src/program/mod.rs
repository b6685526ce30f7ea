//! A program that stores its own data: one attempt, and what it left.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use chrono::{DateTime, Utc};
use oa_core::app::config::Locale;
use oa_core::app::output::human_duration;
use oa_core::base::secrets::redact;
use oa_core::base::supervise::{Ended, Finished, Launch, Progress, StopSignal, readable};
use oa_core::base::text::beginning;
use oa_core::model::retry::{ErrorKind, Policy};
use oa_core::model::run::{RunError, RunStart};
use oa_core::pg;
use oa_core::service;
use postgres::types::{ToSql, Type};
use rustix::io::Errno;

use oa_core::journal::attempts::Failed;

pub(crate) mod environment;
mod result_file;

use environment::Programs;

/// Exit codes that a second attempt would only repeat: usage (2), not permitted (77), configuration (78), not executable (126), not
/// found (127).
pub(crate) const PERMANENT: [i32; 5] = [2, 77, 78, 126, 127];
/// The detail of a run that names what an earlier one had left behind.
pub(crate) const LEFTOVERS: &str = "ended_of_earlier_run";
/// What is kept of the output of each attempt, in bytes from its end.
const KEPT: usize = 64 << 10;
/// How often the records are counted while PostgreSQL cannot be reached, and the wait before the second time, which doubles.
const COUNTS: u32 = 4;
const COUNT_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) command: Vec<OsString>,
    /// How often it is attempted, and how long each attempt may take.
    pub(crate) policy: Policy,
    /// How many bytes it may print on stdout, and on stderr.
    pub(crate) most: u64,
    pub(crate) min_records: Option<u64>,
    /// Where the program writes its records, or their number; its stdout otherwise.
    pub(crate) result_file: Option<PathBuf>,
    /// Asks PostgreSQL for their number instead.
    pub(crate) query: Option<Query>,
}

/// How the records that an attempt stored are counted in PostgreSQL.
#[derive(Debug)]
pub(crate) struct Query {
    /// Gives one number. `$1`, where it occurs, is the time at which the attempt began.
    pub(crate) sql: String,
    pub(crate) settings: pg::Settings,
}

impl Query {
    /// The number of records since the attempt started. A failed connection is made again: the program has done its work and is not run
    /// again for that.
    fn count(&self, started: Instant, stop: StopSignal) -> Result<u64> {
        let mut pause = COUNT_AGAIN;
        for _ in 1..COUNTS {
            match pg::connect(&self.settings) {
                Ok(mut client) => return self.count_with(&mut client, started),
                Err(e) => tracing::warn!("the records are not counted yet: {e}"),
            }
            if !stop.wait(pause) {
                bail!("stopped by a signal");
            }
            pause *= 2;
        }
        self.count_with(&mut pg::connect(&self.settings)?, started)
    }

    /// Tries the query, for `oa-crawl check`.
    pub(crate) fn check(&self, client: &mut postgres::Client) -> Result<u64> {
        self.count_with(client, Instant::now())
    }

    fn count_with(&self, client: &mut postgres::Client, started: Instant) -> Result<u64> {
        let mut tx = client.build_transaction().read_only(true).start()?;
        // The server's clock, because its rows have the server's times. Measured last, so that the time lies rather before the
        // beginning than after it.
        let now: DateTime<Utc> = tx
            .query_one("SELECT clock_timestamp()", &[])
            .map_err(|e| described(&e))?
            .get(0);
        let since = now - started.elapsed();
        let statement = tx.prepare(&self.sql).map_err(|e| described(&e))?;
        let row = match statement.params() {
            [] => tx.query_one(&statement, &[]),
            [type_] => tx.query_one(&statement, &[parameter(type_, since)?.as_ref()]),
            all => bail!(
                "it has {} parameters; only $1, the time at which the attempt began, is given",
                all.len()
            ),
        };
        let row = row.map_err(|e| described(&e))?;
        let count: i64 = row
            .try_get(0)
            .ok()
            .context("its first column is not a bigint, as count(*) gives it")?;
        u64::try_from(count)
            .ok()
            .context("it gives a negative number")
    }
}

/// The time in the type that PostgreSQL expects there. Times without a zone are the service's, see [`service::TIMEZONE`].
fn parameter(type_: &Type, since: DateTime<Utc>) -> Result<Box<dyn ToSql + Sync>> {
    let local = since.with_timezone(&service::TIMEZONE);
    Ok(match *type_ {
        Type::TIMESTAMPTZ => Box::new(since),
        Type::TIMESTAMP => Box::new(local.naive_local()),
        Type::DATE => Box::new(local.date_naive()),
        Type::TIME => Box::new(local.time()),
        _ => bail!(
            "$1 is compared with a {type_}, and it is a time; write what it is to be compared with, for example $1::timestamptz or to_char($1::timestamp, 'YYYY-MM-DD')"
        ),
    })
}

fn described(error: &postgres::Error) -> anyhow::Error {
    anyhow::anyhow!(pg::describe(error))
}

/// What an attempt left.
#[derive(Debug, Default)]
pub(crate) struct AttemptOutput {
    pub(crate) records: u64,
    /// The end of stdout and stderr, without secrets.
    pub(crate) output: String,
    /// For example `exit status: 1`.
    pub(crate) status: String,
    /// What it left in the background, which was ended.
    pub(crate) left_behind: Vec<String>,
}

impl Program {
    /// The program's name for people. Its arguments may hold secrets.
    pub(crate) fn name(&self) -> String {
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

    /// Runs it once, until it ends or its time is up. The program finds task, run and attempt in its environment
    /// (`OA_TASK`, `OA_RUN_ID`, `OA_ATTEMPT`).
    pub(crate) fn attempt<'a>(
        &self,
        start: &RunStart,
        attempt: u32,
        programs: &'a Programs,
        stop: StopSignal,
        progress: Option<&'a mut dyn Progress>,
        left: &mut AttemptOutput,
    ) -> Result<(), Failed> {
        let (Some(program), arguments) = (self.command.first(), self.command.get(1..)) else {
            return Err(permanent("no program was given"));
        };
        let before = self.result_file.as_deref().and_then(modified);
        let started = Instant::now();
        let mut command = Command::new(program);
        // A pipe makes Python keep back what it prints; who follows the run, or ends it, would not see it.
        if std::env::var_os("PYTHONUNBUFFERED").is_none() {
            command.env("PYTHONUNBUFFERED", "1");
        }
        programs.environment.give_to(&mut command);
        command
            .args(arguments.unwrap_or_default())
            .env("OA_TASK", &start.task)
            .env("OA_RUN_ID", start.id.to_string())
            .env("OA_ATTEMPT", attempt.to_string());
        *left = AttemptOutput::default();
        let launch = Launch {
            echo: true,
            keep: KEPT,
            keep_errors: KEPT,
            most: Some(self.most),
            owner: programs.owner.as_ref(),
            progress,
            ..Launch::new(self.policy.timeout)
        };
        let done = launch.run(&mut command).map_err(|e| self.not_started(&e))?;
        report_background(&self.name(), &done);
        left.left_behind.clone_from(&done.left_behind);
        left.output = tail(&done);
        left.status = done.status.to_string();
        self.assess_end(&done)?;
        left.records = match (&self.query, &self.result_file) {
            (Some(query), _) => query.count(started, stop).map_err(|e| Failed {
                error: RunError::new(
                    ErrorKind::Db,
                    format!(
                        "{} ended well, but its records could not be counted by the query of [exec.{}]: {e:#}; it is not run again for that",
                        self.name(),
                        start.task
                    ),
                ),
                retry: false,
                asked: None,
                not_yet: None,
            })?,
            (None, None) => done.json_lines,
            (None, Some(path)) => self.count(path, before).map_err(|e| Failed {
                error: RunError::new(ErrorKind::Shape, format!("{e:#}")),
                retry: true,
                asked: None,
                not_yet: None,
            })?,
        };
        let Some(min) = self.min_records.filter(|min| left.records < *min) else {
            return Ok(());
        };
        let kind = if left.records == 0 {
            ErrorKind::Empty
        } else {
            ErrorKind::Partial
        };
        let message = format!(
            "{} brought {} record(s), at least {min} were due",
            self.name(),
            left.records
        );
        Err(Failed::by_kind(RunError::new(kind, message), None))
    }

    /// A machine that is short of processes or memory may have some later; a missing program stays missing.
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
            not_yet: None,
        }
    }

    fn assess_end(&self, done: &Finished) -> Result<(), Failed> {
        let name = self.name();
        if !done.still_there.is_empty() {
            // Not beside what is still there.
            let left = done.still_there.join(", ");
            return Err(permanent(&format!(
                "could not end {left}, which {name} has started: it belongs to another user, or hangs in a call to a disk or file server; end it, then start the task again"
            )));
        }
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
            Some(Ended::PrintedTooMuch(stream)) => Err(permanent(&format!(
                "{name} {}",
                printed_too_much(stream, self.most)
            ))),
            None if done.status.success() => Ok(()),
            None => Err(Failed {
                error: RunError::new(
                    ErrorKind::Internal,
                    format!("{name} ended with {}{last}", done.status),
                ),
                retry: !done.status.code().is_some_and(|c| PERMANENT.contains(&c)),
                asked: None,
                not_yet: None,
            }),
        }
    }

    /// The number of records in the result file, which this attempt must have written.
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
        result_file::count(path)
    }
}

fn permanent(message: &str) -> Failed {
    Failed {
        error: RunError::new(ErrorKind::Internal, message),
        retry: false,
        asked: None,
        not_yet: None,
    }
}

/// What is said of a program that was ended for that.
pub(crate) fn printed_too_much(stream: &str, most: u64) -> String {
    format!(
        "printed more than {most} bytes on {stream} and was ended; let it write them to a file, or raise max_body in [crawl]"
    )
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|m| m.modified()).ok()
}

/// Whatever a program leaves in the background ends with it; that is no failure.
fn report_background(name: &str, done: &Finished) {
    if !done.left_behind.is_empty() {
        let left = done.left_behind.join(", ");
        tracing::warn!("{name} left in the background, and with it ended: {left}");
    }
    if !done.still_there.is_empty() {
        let left = done.still_there.join(", ");
        tracing::error!("{name}: could not end {left}");
    }
}

/// The last line that says something, for the error's message: of stderr, else of stdout.
fn last_words(done: &Finished) -> String {
    let of = |bytes: &[u8]| {
        let text = readable(bytes);
        let line = text.lines().rev().find(|l| !l.trim().is_empty())?;
        Some(beginning(line.trim(), 300))
    };
    of(&done.stderr)
        .or_else(|| of(&done.stdout))
        .map_or_else(String::new, |line| format!(": {line}"))
}

/// The end of stdout, then that of stderr. Each has at least half of the room.
fn tail(done: &Finished) -> String {
    let (out, err) = (readable(&done.stdout), readable(&done.stderr));
    let (mut out, err) = (redact(&out), redact(&err));
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    let of_out = KEPT - err.len().min(KEPT / 2);
    let out = last_bytes(&out, of_out);
    format!("{out}{}", last_bytes(&err, KEPT - out.len()))
}

fn last_bytes(text: &str, most: usize) -> &str {
    let mut from = text.len().saturating_sub(most);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}
