//! `[exec.TASK]`.

use serde::Deserialize;

use crate::journal::due::Scheduled;
use crate::schedule::{Days, Schedule, Session};

/// `[exec.TASK]`: a program that `oa-crawl exec` runs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// SQL that counts the records that a try stored; `$1` is the time at which the try began.
    pub records: Option<String>,
    /// Variables, also of `.env`, that the program is given. Those to which the configuration refers it gets only so.
    #[serde(default)]
    pub env: Vec<String>,
    /// When it is due: a five-field cron expression in the configuration's zone. Its crontab line stays what starts it.
    pub schedule: Option<String>,
    /// The days on which it runs.
    #[serde(default)]
    pub days: Days,
    /// Within which sessions.
    #[serde(default)]
    pub sessions: Vec<Session>,
    /// Its title for people.
    pub title: Option<String>,
}

impl Exec {
    /// What is expected of it, where it has a schedule.
    #[must_use]
    pub fn scheduled(&self, task: &str) -> Option<Scheduled> {
        let schedule = self.schedule.as_ref()?;
        Some(Scheduled {
            days: self.days,
            sessions: self.sessions.clone(),
            ..Scheduled::program(task, self.title.as_deref().unwrap_or(""), schedule)
        })
    }

    pub(super) fn check(&self, task: &str) -> Result<(), String> {
        match &self.schedule {
            Some(schedule) => {
                Schedule::parse(schedule, chrono_tz::UTC)
                    .map_err(|e| format!("schedule in [exec.{task}]: {e}"))?;
            }
            None if self.days != Days::All || !self.sessions.is_empty() => {
                return Err(format!(
                    "[exec.{task}] has days or sessions and no schedule; add schedule = \"0 18 * * *\""
                ));
            }
            None => {}
        }
        check_names(&self.env, &format!("env in [exec.{task}]"))
    }
}

/// Whether these are names of variables.
pub(super) fn check_names(names: &[String], setting: &str) -> Result<(), String> {
    let good = |name: &String| {
        let mut letters = name.chars();
        letters
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if names.iter().all(good) {
        return Ok(());
    }
    // Not quoted: it may be NAME=VALUE, with a secret.
    Err(format!(
        "{setting} holds something that is no variable's name; write names alone: env = [\"NAME\"]"
    ))
}
