//! Text in columns.

use csv::ReaderBuilder;
use oa_core::model::retry::ErrorKind;
use serde_json::Value;

use super::ReadError;
use super::grid::{Grid, check_size};
use crate::source::Delimited;

/// The separator that stands for any number of blanks and tabs.
const BLANKS: &str = "blanks";

pub(crate) fn rows(rules: &Delimited, text: &str) -> Result<Grid, ReadError> {
    let mut grid = Grid::default();
    let mut cells = 0;
    let mut add = |row: Vec<Value>| {
        cells += row.len();
        check_size(row.len(), cells)?;
        grid.rows.push(row);
        Ok(())
    };
    match rules.separator.as_bytes() {
        [separator] => quoted(rules, *separator, text, &mut add)?,
        _ => {
            for line in text.lines() {
                let cells: Vec<Value> = match rules.separator.as_str() {
                    BLANKS => line.split_whitespace().map(Value::from).collect(),
                    other => line.split(other).map(|c| Value::from(c.trim())).collect(),
                };
                add(cells)?;
            }
        }
    }
    Ok(grid)
}

fn quoted(
    rules: &Delimited,
    separator: u8,
    text: &str,
    add: &mut dyn FnMut(Vec<Value>) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let quote = rules.quote.as_bytes().first().copied();
    let mut builder = ReaderBuilder::new();
    builder
        .has_headers(false)
        .flexible(true)
        .delimiter(separator)
        .quoting(quote.is_some())
        .quote(quote.unwrap_or(b'"'));
    let mut reader = builder.from_reader(text.as_bytes());
    let mut record = csv::StringRecord::new();
    let mut spans_lines = false;
    loop {
        let more = reader.read_record(&mut record);
        if !more.map_err(|e| {
            (
                ErrorKind::Shape,
                format!("text that is not in columns ({e})"),
            )
        })? {
            break;
        }
        spans_lines |= record.iter().any(|c| c.contains('\n'));
        add(record.iter().map(|c| Value::from(c.trim())).collect())?;
    }
    // A quote that is not closed swallows all rows after it.
    let quotes = quote.map_or(0, |q| text.bytes().filter(|b| *b == q).count());
    if spans_lines && !quotes.is_multiple_of(2) {
        let what = "a quotation mark that is not closed, which swallows the rows after it; where the site does not quote, say quote = \"\" in [answer.delimited]";
        return Err((ErrorKind::Shape, what.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(rules: &str, text: &str) -> Result<Vec<Vec<Value>>, ReadError> {
        Ok(rows(&toml::from_str(rules).unwrap(), text)?.rows)
    }

    #[test]
    fn text_is_parted_as_its_site_parts_it() {
        for (rules, text, due) in [
            (
                "",
                "a, b \r\n\"1,2\",\"x\"\"y\"\n",
                json!([["a", "b"], ["1,2", "x\"y"]]),
            ),
            (
                "separator = \"|\"\nquote = \"\"",
                "a|5\"\nb|6",
                json!([["a", "5\""], ["b", "6"]]),
            ),
            ("separator = \"\\t\"", "a\t\tb", json!([["a", "", "b"]])),
            (
                "separator = \"blanks\"",
                " a  b\tc ",
                json!([["a", "b", "c"]]),
            ),
            ("separator = \"$$\"", "a$$ b$$", json!([["a", "b", ""]])),
            ("", "\"two\nlines\",b", json!([["two\nlines", "b"]])),
        ] {
            assert_eq!(json!(read(rules, text).unwrap()), due, "{text}");
        }
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let (_, what) = read("", "a,b\n\"c,d\ne,f\n").unwrap_err();
        assert!(what.contains("not closed"), "{what}");
        let (_, what) = read("", &",".repeat(1_000_000)).unwrap_err();
        assert!(what.contains("1000001 cells"), "{what}");
    }
}
