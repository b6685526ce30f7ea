//! One try of a source: all its pages, archived, and the proof that they are all.
//!
//! A source with pages announces a total. Records are counted by their id, because a record that moves to the next page while
//! paging comes twice. When fewer came than announced, the pages are read again, because the total grows during the day and
//! pushes records across page borders; what is still missing then makes the try partial.
//!
//! Without a total, only the end that the source declares proves that nothing is missing ([`pages`]).

mod answer;
pub(crate) mod image;
mod pages;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use chrono::NaiveDate;
use oa_core::exact;
use oa_core::retry::ErrorKind;
use oa_core::runs::{RawRecord, RunError};
use oa_core::secrets::{Secret, redact};
use oa_core::supervise::StopSignal;
use serde_json::Value;

use crate::archive::{Archive, RunArchive};
use crate::extract::Extracted;
use crate::fetch::browser::Browser;
use crate::fetch::{Client, FetchError, Response};
use crate::program::environment::Programs;
use crate::source::{Each, Source};
use answer::ask;
pub(crate) use answer::{Vars, extract, fetch};
pub(crate) use pages::gave_more;

/// What a try needs.
#[derive(Debug)]
pub(crate) struct Context {
    /// The source.
    pub(crate) source: Source,
    /// The day to collect.
    pub(crate) date: NaiveDate,
    /// HTTP.
    pub(crate) client: Client,
    /// Where answers are kept; `None` for a dry run.
    pub(crate) archive: Option<Arc<RunArchive>>,
    /// Images come from the archive, not from the site.
    pub(crate) replayed: Option<Replayed>,
    /// Folders for what is not an answer.
    pub(crate) folders: Folders,
    /// Chromium, once a source has needed it.
    pub(crate) browser: Mutex<Option<Browser>>,
    /// Largest body in bytes.
    pub(crate) max_body: u64,
    /// The source's secrets, resolved (see [`Source::secrets`]).
    pub(crate) secrets: Vec<(String, Secret)>,
    /// How its programs are started.
    pub(crate) programs: Programs,
    /// The number of this try.
    pub(crate) attempt: u32,
    /// When it must be over.
    pub(crate) deadline: Instant,
}

impl Context {
    /// A first attempt, without secrets, that archives nothing.
    pub(crate) fn new(
        source: &Source,
        date: NaiveDate,
        client: Client,
        state_dir: &Path,
        max_body: u64,
    ) -> Self {
        Self {
            source: source.clone(),
            date,
            client,
            archive: None,
            replayed: None,
            folders: Folders::below(state_dir),
            browser: Mutex::default(),
            max_body,
            secrets: Vec::new(),
            programs: Programs::default(),
            attempt: 1,
            deadline: Instant::now() + source.retry.timeout,
        }
    }
}

/// The answers of an earlier run, by their address.
#[derive(Debug)]
pub(crate) struct Replayed {
    archive: Archive,
    answers: HashMap<String, RawRecord>,
}

impl Replayed {
    /// Those in the archive.
    pub(crate) fn new(archive: &Archive, raw: &[RawRecord]) -> Self {
        let answers = raw.iter().map(|one| (redact(&one.url), one.clone()));
        Self {
            archive: archive.clone(),
            answers: answers.collect(),
        }
    }

    fn answer(&self, url: &str) -> Result<Response, FetchError> {
        let gone = |why: String| FetchError::new(ErrorKind::Internal, format!("{why}: {url}"));
        let found = self.answers.get(&redact(url));
        let one = found.ok_or_else(|| gone("that run did not receive this image".to_owned()))?;
        self.archive.answer(one).map_err(|e| gone(e.to_string()))
    }
}

/// Folders for what is not an answer.
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
    /// Those below a state directory.
    pub(crate) fn below(state_dir: &Path) -> Self {
        Self {
            files: Some(state_dir.join("files")),
            browser: state_dir.join("browser"),
            failures: state_dir.join("failures"),
        }
    }

    /// The same, but keeping no images.
    pub(crate) fn without_files(mut self) -> Self {
        self.files = None;
        self
    }
}

/// What a try brought.
#[derive(Debug, Clone, Default)]
pub(crate) struct Collected {
    /// Different records, as they came.
    pub(crate) records: Vec<Value>,
    /// Records that came again.
    pub(crate) duplicates: u64,
    /// Records that the source announced.
    pub(crate) expected: Option<u64>,
    /// Requests that were answered.
    pub(crate) pages: u32,
    /// What was noticed, in sentences.
    pub(crate) findings: Vec<String>,
    /// Why this is not all, where the totals of pages do not say it.
    pub(crate) incomplete: Option<String>,
}

impl Collected {
    /// What a single answer brought.
    pub(crate) fn of(source: &Source, answer: Extracted) -> Self {
        let mut collected = Self {
            pages: 1,
            ..Self::default()
        };
        collected.take(answer);
        collected.keep(source);
        too_few(source, &mut collected);
        collected
    }

    /// Each once, however often it is noticed.
    fn note(&mut self, findings: &[String]) {
        for finding in findings {
            if !self.findings.contains(finding) {
                self.findings.push(finding.clone());
            }
        }
    }

    fn take(&mut self, answer: Extracted) {
        self.expected = answer.total;
        self.records = answer.records;
        if !answer.miscounted.is_empty() {
            self.incomplete = Some(answer.miscounted.join("; "));
        }
    }

    fn add(&mut self, part: Self) {
        self.expected = match (self.expected, part.expected) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        self.records.extend(part.records);
        self.duplicates += part.duplicates;
        self.pages += part.pages;
        self.note(&part.findings);
        self.incomplete = self.incomplete.take().or(part.incomplete);
    }

    /// Passes over records that the source does not want.
    pub(crate) fn keep(&mut self, source: &Source) {
        if source.keep.is_empty() {
            return;
        }
        let before = self.records.len();
        // A record without the field is none of those: validation names what is wrong with it.
        self.records.retain(|record| {
            source.keep.iter().all(|rule| {
                let text = record.get(&rule.field).and_then(exact::text);
                text.is_none_or(|t| rule.contains.iter().any(|part| t.contains(part.as_str())))
            })
        });
        let passed_over = before - self.records.len();
        if passed_over > 0 {
            // Those were not announced, as far as completeness goes.
            let less = |n: u64| n.saturating_sub(passed_over as u64);
            self.expected = self.expected.map(less);
            let finding = format!("{passed_over} records were passed over ([[keep]])");
            self.findings.push(finding);
        }
    }

    /// Why this is not all, if it is not.
    pub(crate) fn shortfall(&self) -> Option<RunError> {
        if let Some(reason) = &self.incomplete {
            return Some(RunError::new(ErrorKind::Partial, reason));
        }
        let expected = self.expected?;
        let came = self.records.len() as u64;
        (came < expected)
            .then(|| RunError::new(ErrorKind::Partial, format!("the source announced {expected} records, only {came} different ones came in {} requests", self.pages)))
    }
}

/// How often the pages are read again when records are missing.
const PASSES: u32 = 3;

/// Collects. Answers are archived as they come, also those of a try that fails.
/// Fewer records than announced are no error here, see [`Collected::shortfall`].
pub(crate) fn collect(context: &Context) -> Result<Collected, FetchError> {
    let mut collected = match &context.source.each {
        None => collect_one(context, &Vars::new(context.date))?,
        Some(each) => collect_each(context, each)?,
    };
    collected.keep(&context.source);
    if let Some(image) = &context.source.image {
        image::attach(context, image, &mut collected)?;
    }
    too_few(&context.source, &mut collected);
    Ok(collected)
}

/// The same request for each value. One that fails costs its own records, and the run is partial; when the login fails, or all of
/// them, the try fails.
fn collect_each(context: &Context, each: &Each) -> Result<Collected, FetchError> {
    let mut all = Collected::default();
    let mut missing: Vec<String> = Vec::new();
    let mut failed: Option<FetchError> = None;
    for (number, value) in each.values.iter().enumerate() {
        if number > 0
            && let Some(pause) = each.pause
            && !StopSignal.wait(pause.0)
        {
            return Err(FetchError::new(
                ErrorKind::Internal,
                "stopped by a signal between two requests",
            ));
        }
        let vars = Vars::new(context.date).with(&each.name, value);
        let mut part = match collect_one(context, &vars) {
            Ok(part) => part,
            // The next value would only be another attempt to log in.
            Err(e) if matches!(e.error.kind, ErrorKind::Auth | ErrorKind::Internal) => {
                return Err(e);
            }
            Err(e) => {
                missing.push(format!("{} {value}: {}", each.name, e.error.message));
                failed.get_or_insert(e);
                continue;
            }
        };
        for record in &mut part.records {
            if let Value::Object(fields) = record {
                fields.insert(each.name.clone(), Value::String(value.to_owned()));
            }
        }
        if part.records.is_empty() {
            missing.push(format!("nothing came for {} {value}", each.name));
        } else if let Some(short) = part.shortfall() {
            missing.push(format!("{} {value}: {}", each.name, short.message));
        }
        part.incomplete = None;
        all.add(part);
    }
    if let (Some(failed), true) = (failed, all.records.is_empty()) {
        return Err(failed);
    }
    if !missing.is_empty() {
        all.incomplete = Some(missing.join("; "));
    }
    Ok(all)
}

fn collect_one(context: &Context, vars: &Vars) -> Result<Collected, FetchError> {
    let mut collected = Collected::default();
    let Some(paging) = &context.source.paging else {
        let page = ask(context, vars, None, &mut collected)?;
        collected.take(page);
        return Ok(collected);
    };
    let mut seen = HashSet::new();
    let mut cut = None;
    for _ in 0..PASSES {
        let before = seen.len();
        cut = pages::read(context, vars, paging, &mut collected, &mut seen)?;
        let came = collected.records.len() as u64;
        match collected.expected {
            Some(total) if came < total && seen.len() > before => {}
            _ => break,
        }
    }
    // A total that was reached is proof, whatever ended the reading.
    let came = collected.records.len() as u64;
    if let Some(cut) = cut.filter(|_| collected.expected.is_none_or(|total| came < total)) {
        collected.findings.push(cut.clone());
        if collected.expected.is_none() {
            collected.incomplete = Some(cut);
        }
    }
    Ok(collected)
}

/// Nothing at all is another failure, which the caller names.
fn too_few(source: &Source, collected: &mut Collected) {
    let came = collected.records.len() as u64;
    if came > 0 && came < source.min_records && collected.incomplete.is_none() {
        collected.incomplete = Some(format!(
            "only {came} records came, at least {} were due (min_records)",
            source.min_records
        ));
    }
}
