//! Answers in other forms than JSON, from their bytes to records.

use chrono::NaiveDate;
use oa_core::model::retry::ErrorKind;
use regex::Regex;
use serde_json::Value;

use crate::answer_day;
use crate::dates;
use crate::extract::grid::{self, Grid};
use crate::extract::{
    Extracted, MOST_UNPACKED, ReadError, delimited, matches, nesting, sheet, table, xml,
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
        let mut cut = None;
        let grid = match sheet::kind(&response.body) {
            sheet::Kind::Page => {
                let page = text()?;
                cut = ends_in_a_table(&page);
                table::grid(&page, "tr", "td, th").map_err(fail)?
            }
            _ => sheet::rows(sheet, &response.body, MOST_UNPACKED).map_err(fail)?,
        };
        check_day(rules, date, url, || grid.text())?;
        let mut taken = grid::take(rows, grid).map_err(fail)?;
        taken.miscounted.extend(cut);
        taken
    } else if let (Some(delimited), Some(rows)) = (&rules.delimited, &rules.rows) {
        let text = text()?;
        body::refuse_page(url, text.trim_start())?;
        check_day(rules, date, url, || text.clone())?;
        let grid: Grid = delimited::rows(delimited, &text).map_err(fail)?;
        let mut taken = grid::take(rows, grid).map_err(fail)?;
        let is_open = !text.ends_with(['\n', '\r']);
        if is_open && taken.records.last().is_some_and(Value::is_array) {
            taken.miscounted.push(
                "the text ends in the middle of a row, without a line break: it was cut short"
                    .to_owned(),
            );
        }
        taken
    } else if let Some(table) = &rules.table {
        let (page, finding) = body::page(url, response, charset)?;
        findings.extend(finding);
        nesting::check(&page).map_err(fail)?;
        check_day(rules, date, url, || {
            table::visible(&page).unwrap_or_default()
        })?;
        if let Some(said) = answer_day::other_in_page(rules, &page, date) {
            return Err(another_day(date, &said, url));
        }
        let mut taken = match &rules.rows {
            None => table::take(table, &page).map_err(fail)?,
            Some(rows) => {
                let cells = table.cells.as_deref().unwrap_or("td, th");
                let grid = table::grid(&page, &table.rows, cells).map_err(fail)?;
                grid::take(rows, grid).map_err(fail)?
            }
        };
        taken.miscounted.extend(ends_in_a_table(&page));
        taken
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

/// Why the rows of a page may not be all: it breaks off inside a table, which HTML forgives in silence.
fn ends_in_a_table(page: &str) -> Option<String> {
    let page = page.to_ascii_lowercase();
    let has_end = page.contains("</body") || page.contains("</html");
    let is_open = page.matches("<table").count() > page.matches("</table").count();
    (is_open && !has_end)
        .then(|| "the page ends in the middle of a table: it was cut short".to_owned())
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
