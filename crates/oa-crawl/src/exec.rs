//! A program that stores its own data, under the same wrapper as a source: one try of it, and what it brought.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use oa_core::alerts::human_duration;
use oa_core::config::Locale;
use oa_core::retry::{ErrorKind, Policy};
use oa_core::runs::{RunError, RunStart};
use oa_core::secrets::redact;
use oa_core::supervise::{self, Ended, Finished, StopSignal};
use serde::de::IgnoredAny;

use crate::attempts::Failed;

/// Exit codes that a second try would only repeat: usage (2), not permitted (77), configuration (78), not executable (126), not
/// found (127).
const PERMANENT: [i32; 5] = [2, 77, 78, 126, 127];
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
        let mut command = Command::new(program);
        command
            .args(arguments.unwrap_or_default())
            .env("OA_TASK", &start.task)
            .env("OA_RUN_ID", start.id.to_string())
            .env("OA_ATTEMPT", attempt.to_string());
        let done = supervise::run(&mut command, self.policy.timeout, stop, true)
            .map_err(|e| permanent(&format!("could not start {}: {e}", self.name())))?;
        brought.output = tail(&done);
        brought.status = done.status.to_string();
        brought.records = 0;
        self.judge_end(&done)?;
        brought.records = match &self.result_file {
            None => done.json_lines,
            Some(path) => self.count(path, before).map_err(|e| Failed {
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
        count_records(path)
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

/// Counts the records of a file: the elements of a JSON array, the values of JSON lines, or what `{"records": N}` says.
fn count_records(path: &Path) -> Result<u64> {
    let context = || format!("could not read the result file {}", path.display());
    let is_array = BufReader::new(File::open(path).with_context(context)?)
        .bytes()
        .map_while(Result::ok)
        .find(|b| !b.is_ascii_whitespace())
        == Some(b'[');
    let reader = BufReader::new(File::open(path).with_context(context)?);
    if is_array {
        return serde_json::from_reader::<_, Elements>(reader)
            .map(|e| e.0)
            .with_context(context);
    }
    let mut count = 0;
    for value in serde_json::Deserializer::from_reader(reader).into_iter::<IgnoredAny>() {
        value.with_context(context)?;
        count += 1;
    }
    if count == 1
        && let Ok(Summary { records }) =
            serde_json::from_reader(BufReader::new(File::open(path).with_context(context)?))
    {
        return Ok(records);
    }
    Ok(count)
}

#[derive(serde::Deserialize)]
struct Summary {
    records: u64,
}

/// The number of an array's elements, without holding them.
struct Elements(u64);

impl<'de> serde::Deserialize<'de> for Elements {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counting;
        impl<'de> serde::de::Visitor<'de> for Counting {
            type Value = Elements;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array of records")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<Elements, A::Error> {
                let mut count = 0;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Elements(count))
            }
        }
        deserializer.deserialize_seq(Counting)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> Result<u64> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        count_records(file.path())
    }

    #[test]
    fn records_are_counted_in_every_usual_form() {
        assert_eq!(count("{\"a\":1}\n{\"a\":2}\n").unwrap(), 2);
        assert_eq!(count(" \n[{\"a\": [1, 2]}, {}, 3]").unwrap(), 3);
        assert_eq!(
            count("{\"records\": 75, \"day\": \"2025-11-26\"}").unwrap(),
            75
        );
        assert_eq!(count("{\"rows\": 75}").unwrap(), 1);
        assert_eq!(count("").unwrap(), 0);
        assert_eq!(count("[]").unwrap(), 0);
        assert!(count("[1, 2").is_err());
        assert!(count("done").is_err());
    }
}
