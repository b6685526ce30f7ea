//! Records out of an HTML table.

use oa_core::model::retry::ErrorKind;
use scraper::{ElementRef, Html};
use serde_json::{Map, Value};

use super::Extracted;
use crate::source::{NotASelector, Table, selector};

pub(crate) type TableError = (ErrorKind, String);

fn wrong(error: &NotASelector) -> TableError {
    (ErrorKind::Shape, error.to_string())
}

/// Takes the rows of a table out of a page: one record a row, its fields named by `columns`.
/// Fails with `blocked` when the page has no table at all (a login or verification page), with `shape` when it has another one.
pub(crate) fn take(rules: &Table, page: &str) -> Result<Extracted, TableError> {
    let page = Html::parse_document(page);
    let title = first_text(&page, "title");
    let (rows, cells) = (
        selector(&rules.rows).map_err(|e| wrong(&e))?,
        selector(&rules.cells).map_err(|e| wrong(&e))?,
    );
    if page
        .select(&selector("table").map_err(|e| wrong(&e))?)
        .next()
        .is_none()
    {
        return Err((
            ErrorKind::Blocked,
            format!("a page titled \"{title}\" without any table"),
        ));
    }
    check_headings(rules, &page, &title)?;
    let mut matched = 0;
    let mut extracted = Extracted::default();
    for row in page.select(&rows) {
        matched += 1;
        let cells: Vec<ElementRef<'_>> = row.select(&cells).collect();
        // A row of headings, whose cells are `th`.
        if cells.is_empty() {
            continue;
        }
        // "No data" is one cell across all columns.
        if cells.len() == 1 && cells[0].value().attr("colspan").is_some() {
            continue;
        }
        if cells.len() != rules.columns.len() {
            let problem = format!(
                "a row of {} cells where {} were due ({}): {}",
                cells.len(),
                rules.columns.len(),
                rules.columns.join(", "),
                text(row)
            );
            return Err((ErrorKind::Shape, problem));
        }
        let record: Map<String, Value> = rules
            .columns
            .iter()
            .zip(cells)
            .map(|(name, cell)| (name.clone(), Value::String(text(cell))))
            .collect();
        extracted.records.push(Value::Object(record));
    }
    if matched == 0 && rules.headings.is_empty() {
        let problem = format!(
            "no element that matches \"{}\" on the page titled \"{title}\"",
            rules.rows
        );
        return Err((ErrorKind::Shape, problem));
    }
    Ok(extracted)
}

/// The headings must be there, one after the other, or the columns would mean something else now.
fn check_headings(rules: &Table, page: &Html, title: &str) -> Result<(), TableError> {
    let found: Vec<String> = page
        .select(&selector("th").map_err(|e| wrong(&e))?)
        .map(text)
        .collect();
    let due = rules.headings.as_slice();
    if due.is_empty() || found.windows(due.len()).any(|some| some == due) {
        return Ok(());
    }
    let problem = format!(
        "the headings ({}) on the page titled \"{title}\" where ({}) were due",
        found.join(", "),
        due.join(", ")
    );
    Err((ErrorKind::Shape, problem))
}

/// The value of an attribute of the first element that matches, for example `src` of an image.
pub(crate) fn attribute(page: &str, css: &str, name: &str) -> Result<String, TableError> {
    let page = Html::parse_document(page);
    page.select(&selector(css).map_err(|e| wrong(&e))?)
        .find_map(|e| e.value().attr(name))
        .map(str::to_owned)
        .ok_or_else(|| {
            (
                ErrorKind::Shape,
                format!("no element that matches \"{css}\""),
            )
        })
}

fn first_text(page: &Html, css: &str) -> String {
    let found = selector(css)
        .ok()
        .and_then(|css| page.select(&css).next().map(text));
    found.unwrap_or_default().chars().take(80).collect()
}

/// The text as it is seen: white space, also the kind that does not break, counts once.
pub(super) fn text(element: ElementRef<'_>) -> String {
    let text: String = element.text().collect();
    text.split(|c: char| c.is_whitespace() || c == '\u{a0}')
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules() -> Table {
        toml::from_str(
            "rows = \"table tbody tr\"\ncolumns = [\"variety\", \"rsi\"]\nheadings = [\"品种\", \"RSI\"]",
        )
        .unwrap()
    }

    fn page(rows: &str) -> String {
        format!(
            "<title>指标</title><table><thead><tr><th>品种<th> RSI </thead><tbody>{rows}</tbody></table>"
        )
    }

    #[test]
    fn rows_become_records_whatever_the_markup_lacks() {
        let got = take(
            &rules(),
            &page("<tr><td> RB\n <td>1,234.5&nbsp;%<tr><td><b>HC</b></td><td></td>"),
        )
        .unwrap();
        assert_eq!(
            got.records,
            [
                json!({"variety": "RB", "rsi": "1,234.5 %"}),
                json!({"variety": "HC", "rsi": ""})
            ]
        );
    }

    #[test]
    fn no_rows_are_no_records_and_no_table_is_no_answer() {
        assert!(take(&rules(), &page("")).unwrap().records.is_empty());
        let nothing = page("<tr><td colspan=2>暂无数据</td></tr>");
        assert!(take(&rules(), &nothing).unwrap().records.is_empty());
        let (kind, text) = take(&rules(), "<title>安全验证</title><p>x").unwrap_err();
        assert_eq!(kind, ErrorKind::Blocked);
        assert!(text.contains("安全验证"), "{text}");
    }

    #[test]
    fn columns_that_moved_are_noticed() {
        for (page, says) in [
            (page("<tr><td>RB").as_str(), "a row of 1 cells where 2"),
            (
                "<table><tr><th>RSI<th>品种</table>",
                "the headings (RSI, 品种)",
            ),
        ] {
            let (kind, text) = take(&rules(), page).unwrap_err();
            assert_eq!(kind, ErrorKind::Shape);
            assert!(text.contains(says), "{text}");
        }
    }
}
