//! From an answer to records: the places that a source file names, and the proof that they hold what the answer announces.

pub(crate) mod day;
mod delimited;
mod grid;
pub(crate) mod json;
pub(crate) mod propose;
mod script;
mod sheet;
pub(crate) mod table;
mod xml;

use chrono::NaiveDate;
use oa_core::base::exact;
use oa_core::model::retry::ErrorKind;
use regex::Regex;
use serde_json::{Map, Value};

use crate::dates;
use crate::fetch::{FetchError, Response, body};
use crate::source::{Answer, DayNames, fill};
use grid::Grid;

pub(crate) use script::unwrap as unwrap_script;

/// What is wrong with an answer, as the end of "the answer has …".
pub(crate) type ReadError = (ErrorKind, String);

/// Larger files are not unpacked, however small they are packed.
const MOST_UNPACKED: u64 = 64 << 20;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Extracted {
    /// The records, as they came, with the constants of their list.
    pub(crate) records: Vec<Value>,
    /// How many the answer announces, where it does.
    pub(crate) total: Option<u64>,
    /// Lists that do not have the length that the answer announces for them, in sentences.
    pub(crate) miscounted: Vec<String>,
    /// The next page's cursor or address.
    pub(crate) next: Option<String>,
    /// What was noticed, in sentences.
    pub(crate) findings: Vec<String>,
}

/// A record's field by its name, or by a JSON pointer into it.
pub(crate) fn field<'a>(record: &'a Value, name: &str) -> Option<&'a Value> {
    let direct = record.get(name);
    direct.or_else(|| name.starts_with('/').then(|| record.pointer(name))?)
}

/// Takes the member that the rules name out of a zip file.
pub(crate) fn unpack(
    rules: &Answer,
    day: NaiveDate,
    response: &Response,
) -> Result<Response, ReadError> {
    let Some(member) = &rules.member else {
        return Ok(response.clone());
    };
    let days = DayNames {
        date: day,
        previous_trading_day: None,
    };
    let member = fill(member, |name, form| days.text(name, form));
    Ok(Response {
        body: sheet::member(&member, &response.body, MOST_UNPACKED)?,
        // It was the zip file's.
        content_type: None,
        ..response.clone()
    })
}

/// Reads an answer that is not JSON.
pub(crate) fn read(
    rules: &Answer,
    day: NaiveDate,
    url: &str,
    response: &Response,
) -> Result<Extracted, FetchError> {
    let fail =
        |(kind, what): ReadError| FetchError::new(kind, format!("the answer has {what}: {url}"));
    let charset = rules.charset.as_deref();
    let mut findings = Vec::new();
    let mut text = || -> Result<String, FetchError> {
        let (text, finding) = body::text(url, response, charset)?;
        findings.extend(finding);
        Ok(text)
    };
    let mut extracted = if let (Some(sheet), Some(rows)) = (&rules.sheet, &rules.rows) {
        let grid = match sheet::kind(&response.body) {
            sheet::Kind::Page => table::grid(&text()?, "tr", "td, th").map_err(fail)?,
            _ => sheet::rows(sheet, &response.body, MOST_UNPACKED).map_err(fail)?,
        };
        check_day(rules, day, url, || grid.text())?;
        grid::take(rows, grid).map_err(fail)?
    } else if let (Some(delimited), Some(rows)) = (&rules.delimited, &rules.rows) {
        let text = text()?;
        body::refuse_page(url, text.trim_start())?;
        check_day(rules, day, url, || text.clone())?;
        let grid: Grid = delimited::rows(delimited, &text).map_err(fail)?;
        grid::take(rows, grid).map_err(fail)?
    } else if let Some(table) = &rules.table {
        let (page, finding) = body::page(url, response, charset)?;
        findings.extend(finding);
        check_day(rules, day, url, || table::visible(&page))?;
        if let Some(said) = day::other_in_page(rules, &page, day) {
            return Err(another_day(day, &said, url));
        }
        match &rules.rows {
            None => table::take(table, &page).map_err(fail)?,
            Some(rows) => {
                let cells = table.cells.as_deref().unwrap_or("td, th");
                let grid = table::grid(&page, &table.rows, cells).map_err(fail)?;
                grid::take(rows, grid).map_err(fail)?
            }
        }
    } else if let Some(xml) = &rules.xml {
        let text = text()?;
        check_day(rules, day, url, || text.clone())?;
        xml::take(xml, &text).map_err(fail)?
    } else if let Some(pattern) = &rules.text {
        let text = text()?;
        check_day(rules, day, url, || text.clone())?;
        matches(&pattern.record, &text).map_err(fail)?
    } else {
        return Err(fail((ErrorKind::Internal, "no rules".to_owned())));
    };
    extracted.findings.splice(0..0, findings);
    Ok(extracted)
}

/// Transient: a site is often some minutes late.
pub(crate) fn another_day(date: NaiveDate, said: &str, url: &str) -> FetchError {
    FetchError::new(
        ErrorKind::Empty,
        format!("nothing of {date} is there yet, the answer is of another day ({said}): {url}"),
    )
}

/// The day that the answer says in its text must be the one that was asked for. A site is often some minutes late.
fn check_day(
    rules: &Answer,
    day: NaiveDate,
    url: &str,
    text: impl Fn() -> String,
) -> Result<(), FetchError> {
    let Some(pattern) = rules.day_pattern.as_ref().and_then(|p| Regex::new(p).ok()) else {
        return Ok(());
    };
    let text = text();
    let said = pattern
        .captures(&text)
        .and_then(|c| Some(c.get(1)?.as_str().trim().to_owned()));
    match said {
        Some(said) if dates::day_of(&said) == Some(day) => Ok(()),
        said => {
            let said = said.unwrap_or_else(|| "no day at day_pattern".to_owned());
            Err(another_day(day, &said, url))
        }
    }
}

/// Every match is a record.
fn matches(pattern: &str, text: &str) -> Result<Extracted, ReadError> {
    if text.trim().is_empty() {
        return Err((ErrorKind::Empty, "an empty body".to_owned()));
    }
    let pattern = Regex::new(pattern).map_err(|e| (ErrorKind::Internal, e.to_string()))?;
    let names: Vec<&str> = pattern.capture_names().flatten().collect();
    let record = |found: regex::Captures<'_>| {
        let fields = names.iter().map(|name| {
            let value = found.name(name).map(|m| Value::from(m.as_str().trim()));
            ((*name).to_owned(), value.unwrap_or(Value::Null))
        });
        Value::Object(fields.collect::<Map<_, _>>())
    };
    let records: Vec<Value> = pattern.captures_iter(text).map(record).collect();
    if records.is_empty() {
        let start: String = text.trim().chars().take(200).collect();
        let what = format!(
            "nothing that matches record in [answer.text]; it begins: {}",
            start.escape_debug()
        );
        return Err((ErrorKind::Shape, what));
    }
    Ok(Extracted {
        records,
        ..Extracted::default()
    })
}

/// A finding about keys that stand more than once in one object.
pub(crate) fn repeated(keys: &[String]) -> Option<String> {
    let keys: Vec<String> = keys
        .iter()
        .map(|k| exact::to_text(&Value::from(k.as_str())))
        .collect();
    (!keys.is_empty()).then(|| {
        format!(
            "an object of the answer has the same key more than once ({}); the last value counts",
            keys.join(", ")
        )
    })
}
