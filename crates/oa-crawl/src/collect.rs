//! One try of a source: all its pages, archived, and the proof that they are all.
//!
//! A source with pages announces a total. Records are counted by their id, because a record that moves to the next page while
//! paging comes twice. When fewer came than announced, the pages are read again, because the total grows during the day and
//! pushes records across page borders; what is still missing then makes the try partial.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use chrono::NaiveDate;
use oa_core::retry::ErrorKind;
use oa_core::runs::RunError;
use oa_core::secrets::Secret;
use serde_json::Value;

use crate::archive::RunArchive;
use crate::extract::{Extracted, json, table};
use crate::fetch::{Client, FetchError, Request, body, check_status};
use crate::source::{Paging, Source};

/// What a try needs.
#[derive(Debug)]
pub struct Context {
    /// The source.
    pub source: Source,
    /// The day to collect.
    pub date: NaiveDate,
    /// HTTP.
    pub client: Client,
    /// Where answers are kept; `None` for a dry run.
    pub archive: Option<Arc<RunArchive>>,
    /// The source's secret headers, resolved.
    pub secret_headers: Vec<(String, Secret)>,
    /// The number of this try.
    pub attempt: u32,
    /// When it must be over.
    pub deadline: Instant,
}

/// What a try brought.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    /// Different records, as they came.
    pub records: Vec<Value>,
    /// Records that came again.
    pub duplicates: u64,
    /// Records that the source announced.
    pub expected: Option<u64>,
    /// Requests that were answered.
    pub pages: u32,
    /// What was noticed, in sentences.
    pub findings: Vec<String>,
    /// Why this is not all, where the totals of pages do not say it.
    pub incomplete: Option<String>,
}

impl Collected {
    /// Why this is not all, if it is not.
    #[must_use]
    pub fn shortfall(&self) -> Option<RunError> {
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
///
/// # Errors
/// When a request fails. Fewer records than announced are no error here, see [`Collected::shortfall`].
pub fn collect(context: &Context) -> Result<Collected, FetchError> {
    let mut collected = Collected::default();
    let Some(paging) = &context.source.paging else {
        let page = fetch_page(context, None, &mut collected)?;
        collected.expected = page.total;
        collected.records = page.records;
        if !page.miscounted.is_empty() {
            collected.incomplete = Some(page.miscounted.join("; "));
        }
        too_few(&context.source, &mut collected);
        return Ok(collected);
    };
    let mut seen = HashSet::new();
    for _ in 0..PASSES {
        let before = seen.len();
        read_pages(context, paging, &mut collected, &mut seen)?;
        if collected.shortfall().is_none() || seen.len() == before {
            break;
        }
    }
    too_few(&context.source, &mut collected);
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

fn read_pages(
    context: &Context,
    paging: &Paging,
    collected: &mut Collected,
    seen: &mut HashSet<String>,
) -> Result<(), FetchError> {
    let mut in_this_pass: HashSet<String> = HashSet::new();
    for number in 1..=paging.max_pages {
        let page = fetch_page(context, Some((paging, number)), collected)?;
        // The total grows while paging. A smaller one counts with the next try only: an overloaded site answers an empty page
        // with a total of 0, and a day that was cut off there would look complete.
        collected.expected = collected.expected.max(page.total);
        if page.records.is_empty() {
            return Ok(());
        }
        let known_before = in_this_pass.len();
        let mut again = 0;
        for record in page.records {
            let id = record
                .get(&paging.id)
                .map_or_else(|| record.to_string(), Value::to_string);
            if !in_this_pass.insert(id.clone()) {
                again += 1;
            }
            if seen.insert(id) {
                collected.records.push(record);
            }
        }
        collected.duplicates += again;
        if in_this_pass.len() == known_before {
            // A server that repeats a page for ever.
            collected.findings.push(format!(
                "page {number} held nothing that was not on an earlier page; stopped there"
            ));
            return Ok(());
        }
        if collected
            .expected
            .is_some_and(|total| in_this_pass.len() as u64 >= total)
        {
            return Ok(());
        }
    }
    collected.findings.push(format!(
        "stopped after {} pages (max_pages in [paging])",
        paging.max_pages
    ));
    Ok(())
}

fn fetch_page(
    context: &Context,
    page: Option<(&Paging, u32)>,
    collected: &mut Collected,
) -> Result<Extracted, FetchError> {
    let request = request(context, page);
    let url = request.display();
    let response = context.client.get(&request, context.deadline)?;
    if let Some(archive) = &context.archive {
        archive
            .keep(context.attempt, &url, &response)
            .map_err(|e| FetchError::new(ErrorKind::Internal, format!("could not keep the answer in the raw archive ({e}; free space in state_dir): GET {url}")))?;
    }
    check_status(&url, &response)?;
    let (extracted, finding) = match &context.source.answer.table {
        Some(rules) => {
            let (page, finding) = body::page(&url, &response)?;
            let extracted = table::take(rules, &page).map_err(|(kind, what)| {
                FetchError::new(kind, format!("the answer has {what}: GET {url}"))
            })?;
            (extracted, finding)
        }
        None => {
            let (answer, finding) = body::json(&url, &response)?;
            let extracted = read(&context.source, context.date, &url, answer)?;
            (extracted, finding)
        }
    };
    collected.pages += 1;
    if let Some(finding) = finding.filter(|f| !collected.findings.contains(f)) {
        collected.findings.push(finding);
    }
    Ok(extracted)
}

fn request(context: &Context, page: Option<(&Paging, u32)>) -> Request {
    let fetch = &context.source.fetch;
    let date = context.date.to_string();
    let mut query: Vec<(String, String)> = fetch
        .query
        .iter()
        .map(|(k, v)| (k.clone(), v.replace("{date}", &date)))
        .collect();
    if let Some((paging, number)) = page {
        query.push((paging.page.clone(), number.to_string()));
        query.push((paging.size.clone(), paging.page_size.to_string()));
    }
    Request {
        url: format!(
            "{}{}",
            fetch.base.trim_end_matches('/'),
            fetch.path.replace("{date}", &date)
        ),
        query,
        headers: fetch
            .headers
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        secret_headers: context.secret_headers.clone(),
    }
}

/// Takes records and total out of an answer.
fn read(
    source: &Source,
    date: NaiveDate,
    url: &str,
    mut answer: Value,
) -> Result<Extracted, FetchError> {
    let rules = &source.answer;
    let shape = |what: String| {
        FetchError::new(
            ErrorKind::Shape,
            format!("the answer has {what}: GET {url}"),
        )
    };
    match json::is_ok(rules, &answer) {
        Some(true) => {}
        Some(false) => return Err(refused(source, url, &answer)),
        None => {
            return Err(shape(format!(
                "no {}",
                rules.ok.as_deref().unwrap_or_default()
            )));
        }
    }
    if let Some(day) = json::other_day(rules, &answer, date) {
        // Transient: a site is often some minutes late.
        return Err(FetchError::new(
            ErrorKind::Empty,
            format!(
                "nothing of {date} is there yet, the answer is of another day ({day}): GET {url}"
            ),
        ));
    }
    json::take(rules, &mut answer).map_err(shape)
}

fn refused(source: &Source, url: &str, answer: &Value) -> FetchError {
    let said = source
        .answer
        .error
        .as_ref()
        .and_then(|p| answer.pointer(p))
        .and_then(Value::as_str)
        .unwrap_or("no reason given");
    let lower = said.to_lowercase();
    let login = source
        .answer
        .auth_words
        .iter()
        .any(|w| lower.contains(&w.to_lowercase()));
    let kind = if login {
        ErrorKind::Auth
    } else {
        ErrorKind::Blocked
    };
    FetchError::new(kind, format!("the site refused ({said}): GET {url}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::parse;
    use serde_json::json;

    fn read_it(answer: Value) -> Result<Extracted, FetchError> {
        let source = parse("x", include_str!("../sources/zhihui-reports.toml")).unwrap();
        read(&source, NaiveDate::default(), "http://x", answer)
    }

    fn kind(answer: Value) -> ErrorKind {
        read_it(answer).err().unwrap().error.kind
    }

    #[test]
    fn an_answer_is_taken_apart_and_its_refusals_are_understood() {
        let page =
            read_it(json!({"success": true, "result": {"records": [{"id": 1}], "total": 1}}))
                .ok()
                .unwrap();
        assert_eq!((page.records.len(), page.total), (1, Some(1)));
        assert_eq!(
            kind(json!({"success": false, "errDesc": "登录已过期，请重新登录"})),
            ErrorKind::Auth
        );
        assert_eq!(
            kind(json!({"success": false, "errDesc": "Token expired"})),
            ErrorKind::Auth
        );
        assert_eq!(
            kind(json!({"success": false, "errDesc": "系统繁忙"})),
            ErrorKind::Blocked
        );
        assert_eq!(kind(json!({"result": []})), ErrorKind::Shape);
        assert_eq!(
            kind(json!({"success": true, "result": {"records": [], "total": "viel"}})),
            ErrorKind::Shape
        );
        assert_eq!(
            kind(json!({"success": true, "result": {"list": [], "total": 1}})),
            ErrorKind::Shape
        );
    }
}
