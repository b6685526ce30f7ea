//! What is listed on stdout: tables for people, JSON, CSV and Markdown for programs and reports. What sites and programs have put into it
//! reaches no terminal as a command (`plain`), and no spreadsheet as a formula.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::app::config::Locale;
use crate::base::secrets::redact_json;
use crate::base::text::printable;

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns; Chinese characters count two cells.
    #[default]
    Table,
    /// One JSON object a line, with every field.
    Json,
    /// A header line and one line a row.
    Csv,
    /// A Markdown table.
    Markdown,
}

/// A duration as people say it: two units at most.
#[must_use]
pub fn human_duration(duration: Duration, locale: Locale) -> String {
    let units: [(u64, &str, &str); 4] = [
        (86_400, " 天", "d"),
        (3600, " 小时", "h"),
        (60, " 分钟", "min"),
        (1, " 秒", "s"),
    ];
    let mut rest = duration.as_secs();
    let mut parts = Vec::new();
    for (size, zh, en) in units {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            parts.push(match locale {
                Locale::Zh => format!("{count}{zh}"),
                Locale::En => format!("{count} {en}"),
            });
        }
        if parts.len() == 2 || (parts.len() == 1 && count == 0) {
            break;
        }
    }
    if parts.is_empty() {
        return match locale {
            Locale::Zh => "不到 1 秒".to_owned(),
            Locale::En => "less than 1 s".to_owned(),
        };
    }
    parts.join(" ")
}

/// A cell that a spreadsheet takes for text: it reads what begins with one of these signs as a formula.
fn no_formula(cell: String) -> String {
    let is_number = || cell.parse::<f64>().is_ok_and(f64::is_finite);
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) && !is_number() {
        format!("'{cell}")
    } else {
        cell
    }
}

/// A list: columns (JSON key, heading) and one JSON object a row. Rows may hold more keys than are shown as columns; JSON
/// prints them all.
#[derive(Debug, Default)]
pub struct Listing {
    columns: Vec<(String, String)>,
    rows: Vec<Map<String, Value>>,
}

impl Listing {
    /// A list with these columns.
    #[must_use]
    pub fn new(columns: &[(&str, &str)]) -> Self {
        Self {
            columns: columns
                .iter()
                .map(|(key, heading)| ((*key).to_owned(), (*heading).to_owned()))
                .collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; anything that is not a JSON object becomes an empty row.
    pub fn push(&mut self, row: Value) {
        self.rows.push(match redact_json(row) {
            Value::Object(map) => map,
            _ => Map::new(),
        });
    }

    /// Prints to stdout. A reader that has seen enough (`oa-crawl run | head`) is no error: the exit code still tells how the
    /// work went.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn print(&self, format: Format) -> io::Result<()> {
        let text = self.render(format);
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }

    /// The text that [`Listing::print`] prints.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Json => self
                .rows
                .iter()
                .map(|row| format!("{}\n", Value::Object(row.clone())))
                .collect(),
            Format::Csv => self.csv(),
            Format::Table | Format::Markdown => self.table(format),
        }
    }

    fn cells(&self, row: &Map<String, Value>) -> Vec<String> {
        self.columns
            .iter()
            .map(|(key, _)| row.get(key).map(cell).unwrap_or_default())
            .collect()
    }

    fn csv(&self) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let _ = writer.write_record(self.columns.iter().map(|(key, _)| key));
        for row in &self.rows {
            let cells = self.cells(row).into_iter().map(no_formula);
            let _ = writer.write_record(cells);
        }
        String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
    }

    fn table(&self, format: Format) -> String {
        let mut table = comfy_table::Table::new();
        let headings = self.columns.iter().map(|(_, heading)| heading);
        let preset = if format == Format::Markdown {
            comfy_table::presets::ASCII_MARKDOWN
        } else {
            comfy_table::presets::NOTHING
        };
        table.load_style(preset).set_header(headings);
        if format == Format::Markdown {
            table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
        }
        for row in &self.rows {
            let cells = self.cells(row);
            table.add_row(cells.into_iter().map(|c| {
                if format == Format::Markdown {
                    c.replace('|', "\\|").replace('\n', " ")
                } else {
                    c
                }
            }));
        }
        let mut text: String = table
            .lines()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect();
        if text.is_empty() {
            text.push('\n');
        }
        text
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        other => printable(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn listing() -> Listing {
        let mut listing = Listing::new(&[("task", "TASK"), ("title", "TITLE"), ("rows", "ROWS")]);
        listing.push(json!({"task": "a", "title": "多空全景", "rows": 75, "extra": true}));
        listing.push(json!({"task": "bb", "title": "x|y", "rows": null}));
        listing
    }

    #[test]
    fn a_table_aligns_chinese_characters_as_two_cells() {
        assert_eq!(
            listing().render(Format::Table),
            " TASK  TITLE     ROWS\n a     多空全景  75\n bb    x|y\n"
        );
    }

    #[test]
    fn json_keeps_every_field_and_csv_the_columns() {
        assert!(listing().render(Format::Json).contains("\"extra\":true}\n"));
        assert_eq!(
            listing().render(Format::Csv),
            "task,title,rows\na,多空全景,75\nbb,x|y,\n"
        );
    }

    #[test]
    fn what_sites_put_in_commands_no_terminal_and_no_spreadsheet() {
        let mut listing = Listing::new(&[("a", "A"), ("b", "B")]);
        listing.push(json!({"a": "\u{1b}]0;x\u{7}\u{1b}[31mrot\r\u{9b}2J\u{202e}", "b": "=1+1"}));
        listing.push(json!({"a": "-1.5", "b": "-1+cmd"}));
        for format in [Format::Table, Format::Markdown, Format::Csv] {
            let text = listing.render(format);
            let raw = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
            assert!(!text.contains(raw), "{text:?}");
            assert!(text.contains("rot") && !text.contains("[31m"), "{text:?}");
        }
        let csv = listing.render(Format::Csv);
        assert!(
            csv.contains(",'=1+1\n") && csv.contains("-1.5,'-1+cmd\n"),
            "{csv}"
        );
        assert!(!listing.render(Format::Json).contains('\u{1b}'));
    }

    #[test]
    fn markdown_escapes_the_column_separator() {
        assert!(listing().render(Format::Markdown).contains("x\\|y"));
    }
}
