//! Records out of an HTML table.

use oa_core::base::text::beginning;
use oa_core::model::retry::ErrorKind;
use scraper::{ElementRef, Html};
use serde_json::{Map, Value};

use super::grid::{Grid, TextSize, check_size};
use super::nesting;
use super::{Extracted, ReadError};
use crate::source::{NotASelector, Table, selector};

fn wrong(error: &NotASelector) -> ReadError {
    (ErrorKind::Shape, error.to_string())
}

/// Takes the rows of a table out of a page: one record a row, its fields named by `columns`.
/// Fails with `blocked` when the page has no table at all (a login or verification page), with `shape` when it has another one.
pub(crate) fn take(rules: &Table, page: &str) -> Result<Extracted, ReadError> {
    let page = nesting::parse(page)?;
    let title = first_text(&page, "title");
    require_table(&page, &title)?;
    check_headings(rules, &page, &title)?;
    let cells = rules.cells.as_deref().unwrap_or("td");
    let mut extracted = Extracted::default();
    let rows = spread_rows(&page, &rules.rows, cells)?;
    let matched = rows.len();
    let mut misfit: Option<String> = None;
    for Row {
        element: row,
        own,
        cells,
    } in rows
    {
        // A row of headings, whose cells are `th`.
        if own.is_empty() {
            continue;
        }
        // "No data" is one cell across all columns.
        if own.len() == 1 && own[0].value().attr("colspan").is_some() {
            continue;
        }
        if cells.len() != rules.columns.len() {
            misfit.get_or_insert_with(|| {
                format!(
                    "a row of {} cells where {} were due ({}): {}",
                    cells.len(),
                    rules.columns.len(),
                    rules.columns.join(", "),
                    text(row)
                )
            });
            // Validation rejects it, and no other.
            let cells = cells.into_iter().map(Value::String).collect();
            extracted.records.push(Value::Array(cells));
            continue;
        }
        let record: Map<String, Value> = rules
            .columns
            .iter()
            .zip(cells)
            .map(|(name, cell)| (name.clone(), Value::String(cell)))
            .collect();
        extracted.records.push(Value::Object(record));
    }
    if let Some(problem) = misfit
        && !extracted.records.iter().any(Value::is_object)
    {
        return Err((ErrorKind::Shape, problem));
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

/// The rows of a page, for headings wherever they are.
pub(crate) fn grid(page: &str, rows: &str, cells: &str) -> Result<Grid, ReadError> {
    let page = nesting::parse(page)?;
    require_table(&page, &first_text(&page, "title"))?;
    let rows = spread_rows(&page, rows, cells)?.into_iter();
    let rows = rows.map(|row| row.cells.into_iter().map(Value::String).collect());
    Ok(Grid {
        rows: rows.collect(),
        may_be_short: false,
    })
}

/// All text of a page.
pub(crate) fn visible(page: &str) -> Result<String, ReadError> {
    Ok(text(nesting::parse(page)?.root_element()))
}

fn require_table(page: &Html, title: &str) -> Result<(), ReadError> {
    let table = selector("table").map_err(|e| wrong(&e))?;
    match page.select(&table).next() {
        Some(_) => Ok(()),
        None => Err((
            ErrorKind::Blocked,
            format!("a page titled \"{title}\" without any table"),
        )),
    }
}

struct Row<'a> {
    element: ElementRef<'a>,
    /// The cells that stand in it.
    own: Vec<ElementRef<'a>>,
    /// The texts of all its columns: a cell across several stands in each, and one from the rows above too.
    cells: Vec<String>,
}

/// Largest `colspan` and `rowspan`; browsers allow 1000 and 65534.
const MOST_SPANNED: usize = 1000;

fn spread_rows<'a>(page: &'a Html, rows: &str, cells: &str) -> Result<Vec<Row<'a>>, ReadError> {
    let rows = selector(rows).map_err(|e| wrong(&e))?;
    let cells = selector(cells).map_err(|e| wrong(&e))?;
    let mut spread: Vec<Row<'a>> = Vec::new();
    let mut size = 0;
    let mut all = TextSize::default();
    // By column: a cell from above, and in how many rows it still stands.
    let mut above: Vec<Option<(usize, String)>> = Vec::new();
    let mut table = None;
    for element in page.select(&rows) {
        let own: Vec<ElementRef<'a>> = element.select(&cells).collect();
        let mut parents = element.ancestors();
        let here = parents.find(|n| n.value().as_element().is_some_and(|e| e.name() == "table"));
        if here.map(|n| n.id()) != table {
            table = here.map(|n| n.id());
            above.clear();
        }
        let mut texts: Vec<String> = Vec::new();
        let from_above = |texts: &mut Vec<String>, above: &mut Vec<Option<(usize, String)>>| {
            while let Some(Some((left, text))) = above.get_mut(texts.len()) {
                texts.push(text.clone());
                *left -= 1;
                if *left == 0 {
                    above[texts.len() - 1] = None;
                }
            }
        };
        for cell in &own {
            from_above(&mut texts, &mut above);
            let span = |name: &str| {
                let said = cell.value().attr(name).and_then(|v| v.trim().parse().ok());
                said.unwrap_or(1).clamp(1, MOST_SPANNED)
            };
            let (columns, rows) = (span("colspan"), span("rowspan"));
            let said = text(*cell);
            for _ in 0..columns {
                all.add(&said)?;
                if rows > 1 {
                    if above.len() <= texts.len() {
                        above.resize(texts.len() + 1, None);
                    }
                    above[texts.len()] = Some((rows - 1, said.clone()));
                }
                texts.push(said.clone());
            }
            check_size(texts.len(), size + texts.len())?;
        }
        from_above(&mut texts, &mut above);
        let spread_down = texts.len().saturating_sub(own.len());
        if spread_down > 0 {
            texts.iter().try_for_each(|t| all.add(t))?;
        }
        size += texts.len();
        check_size(texts.len(), size)?;
        spread.push(Row {
            element,
            own,
            cells: texts,
        });
    }
    Ok(spread)
}

/// The headings must be there, one after the other, or the columns would mean something else now.
fn check_headings(rules: &Table, page: &Html, title: &str) -> Result<(), ReadError> {
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
pub(crate) fn attribute(page: &str, css: &str, name: &str) -> Result<String, ReadError> {
    let page = nesting::parse(page)?;
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
    beginning(&found.unwrap_or_default(), 80)
}

/// The text as it is seen: white space, also the kind that does not break, counts once.
pub(crate) fn text(element: ElementRef<'_>) -> String {
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
    fn cells_across_rows_and_columns_stand_in_all_of_them() {
        let page = "<table><tr><td rowspan=2>品种<td colspan=2>价格<tr><td>开<td>收
            <tr><td rowspan='3'>RB<td>1<td>2<tr><td>3<td>4<tr><td colspan=2>5</table><table><tr><td>HC<td>6<td>7</table>";
        let got = grid(page, "tr", "td").unwrap().rows;
        let due = json!([
            ["品种", "价格", "价格"],
            ["品种", "开", "收"],
            ["RB", "1", "2"],
            ["RB", "3", "4"],
            ["RB", "5", "5"],
            ["HC", "6", "7"]
        ]);
        assert_eq!(json!(got), due);
        let wide = format!("<table><tr>{}</table>", "<td colspan=1000>x".repeat(20));
        assert!(grid(&wide, "tr", "td").unwrap_err().1.contains("cells"));
        // A few thousand bytes that would stand in millions of cells.
        let rows = "<tr>".repeat(1000);
        let tall = format!(
            "<table><tr>{}{rows}</table>",
            "<td colspan=1000 rowspan=1000>x".repeat(16)
        );
        assert!(grid(&tall, "tr", "td").unwrap_err().1.contains("cells"));
        let rules = toml::from_str("rows = \"tr\"\ncolumns = [\"a\", \"b\"]").unwrap();
        let page = "<table><tr><td rowspan=2>RB<td>1<tr><td>2</table>";
        let got = take(&rules, page).unwrap().records;
        assert_eq!(got[1], json!({"a": "RB", "b": "2"}));
    }

    #[test]
    fn a_row_of_another_width_costs_no_other() {
        let got = take(&rules(), &page("<tr><td>RB<td>1<tr><td>HC")).unwrap();
        let due = [json!({"variety": "RB", "rsi": "1"}), json!(["HC"])];
        assert_eq!(got.records, due);
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
