//! What one attempt brought, and whether that is all.

use oa_core::base::exact;
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::RunError;
use serde_json::Value;

use crate::extract::Extracted;
use crate::source::Source;

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
    pub(crate) fn of(source: &Source, answer: Extracted) -> Self {
        let mut collected = Self {
            pages: 1,
            ..Self::default()
        };
        collected.take(answer);
        collected.suspect_limit(source);
        collected.keep(source);
        collected.require_minimum(source);
        collected
    }

    /// Each once, however often it is noticed.
    pub(super) fn note(&mut self, findings: &[String]) {
        for finding in findings {
            if !self.findings.contains(finding) {
                self.findings.push(finding.clone());
            }
        }
    }

    pub(super) fn take(&mut self, answer: Extracted) {
        self.expected = answer.total;
        self.records = answer.records;
        if !answer.miscounted.is_empty() {
            self.incomplete = Some(answer.miscounted.join("; "));
        }
    }

    pub(super) fn add(&mut self, part: Self) {
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

    /// Skips records that the source does not keep.
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
        let skipped = before - self.records.len();
        if skipped > 0 {
            // Those were not announced, as far as completeness goes.
            let less = |n: u64| n.saturating_sub(skipped as u64);
            self.expected = self.expected.map(less);
            let finding = format!("{skipped} records were skipped ([[keep]])");
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

    /// As many records as a parameter of the request asks for at most are rarely all there are.
    pub(super) fn suspect_limit(&mut self, source: &Source) {
        if self.expected.is_none() && self.incomplete.is_none() {
            self.incomplete = limit_reached(source, self.records.len());
        }
    }

    /// Nothing at all is another failure, which the caller names.
    pub(super) fn require_minimum(&mut self, source: &Source) {
        let came = self.records.len() as u64;
        if came > 0 && came < source.min_records && self.incomplete.is_none() {
            self.incomplete = Some(format!(
                "only {came} records came, at least {} were due (min_records)",
                source.min_records
            ));
        }
    }
}

/// Parameters whose value limits how many records come, as sites name them.
const LIMITS: [&str; 8] = ["limit", "size", "count", "num", "rows", "top", "per", "max"];

/// Why these may not be all, when exactly as many came as the request asks for.
pub(super) fn limit_reached(source: &Source, came: usize) -> Option<String> {
    if source.paging.is_some() || source.answer.end.is_some() || came < 2 {
        return None;
    }
    let pairs = source.fetch.query.iter().chain(&source.fetch.form);
    let is_limit = |name: &str| {
        let name = name.to_ascii_lowercase();
        LIMITS.iter().any(|limit| name.contains(limit))
    };
    let (name, _) = pairs
        .filter(|(name, _)| is_limit(name))
        .find(|(_, value)| value.trim().parse() == Ok(came))?;
    Some(format!(
        "{came} records came, as many as {name} in [fetch] asks for: there may be more; read all pages with [paging], ask for more than there can be, or say end = \"one answer\" in [answer] when no more are wanted"
    ))
}
