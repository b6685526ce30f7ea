//! Answers in other forms than JSON, from their bytes to records.

use chrono::NaiveDate;
use oa_core::model::retry::ErrorKind;
use regex::Regex;

use crate::dates;
use crate::extract::grid::{self, Grid};
use crate::extract::{
    Extracted, MOST_UNPACKED, ReadError, day, delimited, matches, sheet, table, xml,
};
use crate::fetch::{FetchError, Response, body};
use crate::source::{Answer, DayNames, fill};

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
    date: NaiveDate,
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
        check_day(rules, date, url, || grid.text())?;
        grid::take(rows, grid).map_err(fail)?
    } else if let (Some(delimited), Some(rows)) = (&rules.delimited, &rules.rows) {
        let text = text()?;
        body::refuse_page(url, text.trim_start())?;
        check_day(rules, date, url, || text.clone())?;
        let grid: Grid = delimited::rows(delimited, &text).map_err(fail)?;
        grid::take(rows, grid).map_err(fail)?
    } else if let Some(table) = &rules.table {
        let (page, finding) = body::page(url, response, charset)?;
        findings.extend(finding);
        check_day(rules, date, url, || table::visible(&page))?;
        if let Some(said) = day::other_in_page(rules, &page, date) {
            return Err(another_day(date, &said, url));
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
        check_day(rules, date, url, || text.clone())?;
        xml::take(xml, &text).map_err(fail)?
    } else if let Some(pattern) = &rules.text {
        let text = text()?;
        check_day(rules, date, url, || text.clone())?;
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
