//! What one attempt needs.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use chrono::NaiveDate;
use oa_core::base::secrets::{Secret, redact};
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::RawRecord;

use super::access::Session;
use crate::archive::{Archive, RunArchive};
use crate::fetch::browser::Browser;
use crate::fetch::{Client, FetchError, Response};
use crate::program::environment::Programs;
use crate::source::{DayNames, Source};
use oa_core::schedule::Calendar;

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) source: Source,
    pub(crate) date: NaiveDate,
    pub(crate) days: DayNames,
    pub(crate) client: Client,
    /// Where answers are kept; `None` for a dry run.
    pub(crate) archive: Option<Arc<RunArchive>>,
    /// Images come from the archive, not from the site.
    pub(crate) archived: Option<ArchivedAnswers>,
    pub(crate) folders: Folders,
    /// What the source's login gave.
    pub(crate) session: Mutex<Session>,
    /// Chromium, once a source has needed it.
    pub(crate) browser: Mutex<Option<Browser>>,
    pub(crate) max_body: u64,
    /// The source's secrets, resolved (see [`Source::secrets`]).
    pub(crate) secrets: Vec<(String, Secret)>,
    pub(crate) programs: Programs,
    pub(crate) attempt: u32,
    /// When the attempt must be over.
    pub(crate) deadline: Instant,
    /// When what is asked for now must be there: one value of `[each]` that hangs leaves time for the others.
    pub(crate) until: Cell<Instant>,
}

impl Context {
    /// A first attempt, without secrets, that archives nothing.
    pub(crate) fn new(
        source: &Source,
        date: NaiveDate,
        calendar: &Calendar,
        client: Client,
        state_dir: &Path,
        max_body: u64,
    ) -> Self {
        let deadline = Instant::now() + source.retry.timeout;
        Self {
            source: source.clone(),
            date,
            days: DayNames {
                date,
                previous_trading_day: calendar.previous_trading_day(date),
            },
            client,
            archive: None,
            archived: None,
            folders: Folders::below(state_dir),
            session: Mutex::default(),
            browser: Mutex::default(),
            max_body,
            secrets: Vec::new(),
            programs: Programs::default(),
            attempt: 1,
            deadline,
            until: Cell::new(deadline),
        }
    }

    /// Half of the time that is left, or all of it for the last value: a slow first one, which may have to log in, gets enough.
    pub(super) fn share_time(&self, is_last: bool) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let until = if is_last {
            self.deadline
        } else {
            self.deadline - left / 2
        };
        self.until.set(until);
    }
}

/// The answers of an earlier run, by their address.
#[derive(Debug)]
pub(crate) struct ArchivedAnswers {
    archive: Archive,
    answers: HashMap<String, RawRecord>,
}

impl ArchivedAnswers {
    pub(crate) fn new(archive: &Archive, raw: &[RawRecord]) -> Self {
        let answers = raw.iter().map(|one| (redact(&one.url), one.clone()));
        Self {
            archive: archive.clone(),
            answers: answers.collect(),
        }
    }

    pub(super) fn answer(&self, url: &str) -> Result<Response, FetchError> {
        let gone = |why: String| FetchError::new(ErrorKind::Internal, format!("{why}: {url}"));
        let found = self.answers.get(&redact(url));
        let one = found.ok_or_else(|| gone("that run did not receive this image".to_owned()))?;
        self.archive.answer(one).map_err(|e| gone(e.to_string()))
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Folders {
    /// Images; `None` for a dry run, which keeps none.
    pub(crate) files: Option<PathBuf>,
    /// Profiles and cookies of the browser.
    pub(crate) browser: PathBuf,
    /// Screenshots and pages of the browser's failures.
    pub(crate) failures: PathBuf,
}

impl Folders {
    pub(crate) fn below(state_dir: &Path) -> Self {
        Self {
            files: Some(state_dir.join("files")),
            browser: state_dir.join("browser"),
            failures: state_dir.join("failures"),
        }
    }

    pub(crate) fn without_files(mut self) -> Self {
        self.files = None;
        self
    }
}
