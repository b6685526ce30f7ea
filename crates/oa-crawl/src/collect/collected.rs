//! What one attempt brought, and whether that is all.

use std::io;

use oa_core::base::exact;
use oa_core::base::pile::Pile;
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::RunError;
use regex::Regex;
use serde_json::Value;

use super::pages::Met;
use crate::extract::{Extracted, field};
use crate::source::{Exclude, Source};
use crate::validate::Validated;

#[derive(Debug, Clone, Default)]
pub(crate) struct Collected {
    /// Different records, as they came.
    pub(crate) records: Pile<Value>,
    /// Records that came again.
    pub(crate) duplicates: u64,
    /// Those of the records whose id another one had before: they are kept, and prove nothing about how many there are.
    pub(crate) others: u64,
    /// Records that the source announced.
    pub(crate) expected: Option<u64>,
    /// Requests that were answered.
    pub(crate) pages: u32,
    /// What was noticed, in sentences.
    pub(crate) findings: Vec<String>,
    /// Why this is not all, where the totals of pages do not say it.
    pub(crate) incomplete: Option<String>,
    /// What is missing is not there yet, and may come.
    pub(crate) not_there: bool,
    /// What was made of the records while they came, where that was possible.
    pub(crate) validated: Option<Validated>,
}

impl Collected {
    pub(crate) fn of(source: &Source, answer: Extracted) -> io::Result<Self> {
        let mut collected = Self {
            pages: 1,
            ..Self::default()
        };
        collected.take(answer);
        collected.suspect_limit(source);
        collected.keep(source)?;
        collected.require_minimum(source);
        Ok(collected)
    }

    /// How many of the announced records came.
    pub(super) fn came(&self) -> u64 {
        (self.records.len() as u64).saturating_sub(self.others)
    }

    pub(super) fn meet(&mut self, met: &Met, record: Value) -> io::Result<()> {
        match met {
            Met::Again => return Ok(()),
            Met::New => {}
            Met::Other => {
                self.others += 1;
                self.note(&["records changed their row's key while they were read, or their id in [paging] does not tell them apart; all are kept".to_owned()]);
            }
        }
        self.records.push(record)
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
        self.note(&answer.findings);
        self.expected = answer.total;
        self.records = answer.records.into();
        if !answer.miscounted.is_empty() {
            self.incomplete = Some(answer.miscounted.join("; "));
        }
    }

    pub(super) fn add(&mut self, part: Self) -> io::Result<()> {
        self.expected = match (self.expected, part.expected) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        self.records.append(part.records)?;
        self.duplicates += part.duplicates;
        self.others += part.others;
        self.pages += part.pages;
        self.note(&part.findings);
        self.incomplete = self.incomplete.take().or(part.incomplete);
        Ok(())
    }

    /// Skips records that the source does not keep.
    pub(crate) fn keep(&mut self, source: &Source) -> io::Result<()> {
        self.exclude(source)?;
        if source.keep.is_empty() {
            return Ok(());
        }
        // A record without the field is none of those: validation names what is wrong with it.
        let skipped = self.retain(|record| {
            source.keep.iter().all(|rule| {
                let text = field(record, &rule.field).and_then(exact::text);
                text.is_none_or(|t| rule.contains.iter().any(|part| t.contains(part.as_str())))
            })
        })?;
        self.note_skipped(skipped, "[[keep]]");
        Ok(())
    }

    /// Skips records that are none, such as totals.
    fn exclude(&mut self, source: &Source) -> io::Result<()> {
        if source.exclude.is_empty() {
            return Ok(());
        }
        let rules: Vec<(&Exclude, Option<Regex>)> = source
            .exclude
            .iter()
            .map(|rule| {
                (
                    rule,
                    rule.pattern.as_deref().and_then(|p| Regex::new(p).ok()),
                )
            })
            .collect();
        let skipped = self.retain(|record| {
            !rules.iter().any(|(rule, pattern)| {
                let value = field(record, &rule.field).filter(|v| !v.is_null());
                let text =
                    value.map(|v| exact::text(v).map_or_else(|| exact::to_text(v), str::to_owned));
                text.is_some_and(|text| {
                    let text = text.trim();
                    rule.is.iter().any(|one| one == text)
                        || rule
                            .contains
                            .iter()
                            .any(|part| text.contains(part.as_str()))
                        || pattern.as_ref().is_some_and(|p| p.is_match(text))
                })
            })
        })?;
        self.note_skipped(skipped, "[[exclude]]");
        Ok(())
    }

    /// Puts a field into all of them.
    pub(super) fn set(&mut self, name: &str, value: &str) -> io::Result<()> {
        let all = std::mem::take(&mut self.records);
        for record in all.iter() {
            let mut record = record?.into_owned();
            if let Value::Object(fields) = &mut record {
                fields.insert(name.to_owned(), Value::from(value));
            }
            self.records.push(record)?;
        }
        Ok(())
    }

    /// Gives how many are gone.
    fn retain(&mut self, keep: impl Fn(&Value) -> bool) -> io::Result<usize> {
        let all = std::mem::take(&mut self.records);
        for record in all.iter() {
            let record = record?;
            if keep(&record) {
                self.records.push(record.into_owned())?;
            }
        }
        Ok(all.len() - self.records.len())
    }

    fn note_skipped(&mut self, skipped: usize, rule: &str) {
        if skipped > 0 {
            // Those were not announced, as far as completeness goes.
            let less = |n: u64| n.saturating_sub(skipped as u64);
            self.expected = self.expected.map(less);
            self.note(&[format!("{skipped} records were skipped ({rule})")]);
        }
    }

    /// Why this is not all, if it is not.
    pub(crate) fn shortfall(&self) -> Option<RunError> {
        if let Some(reason) = &self.incomplete {
            return Some(RunError::new(ErrorKind::Partial, reason));
        }
        let expected = self.expected?;
        let came = self.came();
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
    let text = |(name, value): (&String, &String)| (name.clone(), value.clone());
    let pairs = source
        .fetch
        .query
        .iter()
        .chain(&source.fetch.form)
        .map(text);
    let of_path = source.fetch.path.split_once('?').map(|(_, query)| query);
    let of_path = of_path.unwrap_or_default().split('&');
    let of_path = of_path.filter_map(|pair| pair.split_once('='));
    let of_path = of_path.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let body = source.fetch.json.as_ref().and_then(Value::as_object);
    let body = body.into_iter().flatten().map(|(name, value)| {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        (name.clone(), text)
    });
    let is_limit = |name: &str| {
        let name = name.to_ascii_lowercase();
        LIMITS.iter().any(|limit| name.contains(limit))
    };
    let (name, _) = pairs
        .chain(of_path)
        .chain(body)
        .filter(|(name, _)| is_limit(name))
        .find(|(_, value)| value.trim().parse() == Ok(came))?;
    Some(format!(
        "{came} records came, as many as {name} in [fetch] asks for: there may be more; read all pages with [paging], ask for more than there can be, or say end = \"one answer\" in [answer] when no more are wanted"
    ))
}
