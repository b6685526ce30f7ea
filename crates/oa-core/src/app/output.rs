//! What is listed on stdout: tables for people, as wide as their terminal and with colours for states there, JSON, CSV and Markdown for programs and reports. What sites and programs have put into it
//! reaches no terminal as a command (`plain`), and no spreadsheet as a formula.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Table, Width, presets};

use serde_json::{Map, Value};

use crate::app::config::Locale;
use crate::app::words;
use crate::base::secrets::redact_json;
use crate::base::text::{printable, with_escapes};

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns; a Chinese character takes two cells.
    #[default]
    Table,
    /// One JSON object per line, with every field.
    Json,
    /// A header line and one line per row.
    Csv,
    /// The same, with the mark by which Excel recognises UTF-8.
    CsvExcel,
    /// A Markdown table.
    Markdown,
}

/// What stdout is: a terminal of some width, or anything else, which takes lines of any length and no colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Screen {
    width: Option<u16>,
    colour: bool,
}

impl Screen {
    fn of_stdout() -> Self {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Self::default();
        }
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            width: rustix::termios::tcgetwinsize(&stdout)
                .ok()
                .map(|size| size.ws_col)
                .filter(|width| *width > 0),
            // https://no-color.org
            colour: !set("NO_COLOR") && !is_dumb,
        }
    }
}

/// How wide the terminal on stdout is, in cells; `None` where there is none.
#[must_use]
pub fn terminal_width() -> Option<usize> {
    Screen::of_stdout().width.map(usize::from)
}

/// A column that folds has at least so many cells.
const FOLDED: u16 = 22;
/// And never fewer than so many, with its padding.
const NARROWEST: u16 = 8;
/// One cell before and one behind each column.
const PADDING: u16 = 2;

/// Without it a Chinese Excel reads GBK.
pub const BYTE_ORDER_MARK: char = '\u{feff}';

/// The columns that say how something is. Their words are in the language of people in tables.
const STATES: [&str; 10] = [
    "state",
    "state_shown",
    "status",
    "status_shown",
    "health",
    "severity",
    "outcome",
    "checked",
    "result",
    "ok",
];
/// The same, without a colour.
const KIND: &str = "kind";

/// The colour of a state, by the word under which it is stored.
fn colour(word: &str) -> Option<Color> {
    match word {
        "ok" | "success" | "healthy" | "complete" | "sent" | "done" | "passed" | "data"
        | "resolved" => Some(Color::Green),
        "warning" | "partial" | "late" | "stale" | "unknown" | "skipped" | "waiting" => {
            Some(Color::Yellow)
        }
        "critical" | "failed" | "FAILED" | "timeout" | "abandoned" | "error" | "missing"
        | "MISSING" | "unfetchable" | "damaged" | "SERVER DAMAGED" | "unrestorable"
        | "UNRESTORABLE" | "broken" | "wrong" | "WRONG" | "misconfigured" | "refused"
        | "given up" => Some(Color::Red),
        "running" | "retrying" => Some(Color::Cyan),
        _ => None,
    }
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
        let text = self.render_on(format, Screen::of_stdout());
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }

    /// The text that [`Listing::print`] prints.
    #[must_use]
    pub fn render_here(&self, format: Format) -> String {
        self.render_on(format, Screen::of_stdout())
    }

    /// The text that [`Listing::print`] prints where no terminal is.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        self.render_on(format, Screen::default())
    }

    fn render_on(&self, format: Format, screen: Screen) -> String {
        match format {
            Format::Json => self
                .rows
                .iter()
                .map(|row| {
                    format!(
                        "{}\n",
                        with_escapes(&Value::Object(row.clone()).to_string())
                    )
                })
                .collect(),
            Format::Csv => self.csv(),
            Format::CsvExcel => format!("{BYTE_ORDER_MARK}{}", self.csv()),
            Format::Table | Format::Markdown => self.table(format, screen),
        }
    }

    fn cells(&self, row: &Map<String, Value>) -> Vec<String> {
        self.columns
            .iter()
            .map(|(key, _)| row.get(key).map(cell).unwrap_or_default())
            .collect()
    }

    /// The same for people.
    fn shown(&self, row: &Map<String, Value>) -> Vec<String> {
        let locale = words::locale();
        let columns = self.columns.iter().zip(self.cells(row));
        columns
            .map(
                |((key, _), cell)| match STATES.contains(&key.as_str()) || key == KIND {
                    true => words::state(&cell, locale).to_owned(),
                    false => cell,
                },
            )
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

    fn table(&self, format: Format, screen: Screen) -> String {
        let markdown = format == Format::Markdown;
        let all: Vec<usize> = (0..self.columns.len()).collect();
        let mut table = new_table(markdown, screen);
        table.set_header(self.columns.iter().map(|(_, name)| heading(name)));
        for row in &self.rows {
            table.add_row(self.row(row, &all, markdown, screen));
        }
        if let (Some(width), false) = (screen.width, markdown) {
            let natural = table.column_max_content_widths();
            let needed: u32 = natural
                .iter()
                .map(|cells| u32::from(*cells) + u32::from(PADDING))
                .sum();
            if needed > u32::from(width) {
                return self.fitted(&natural, width, screen);
            }
        }
        let text = lines(&table);
        if text.is_empty() {
            "\n".to_owned()
        } else {
            text
        }
    }

    fn row(
        &self,
        row: &Map<String, Value>,
        columns: &[usize],
        markdown: bool,
        screen: Screen,
    ) -> Vec<Cell> {
        let cells = self.shown(row);
        let one = |column: &usize| {
            let text = &cells[*column];
            if markdown {
                return Cell::new(text.replace('|', "\\|").replace('\n', " "));
            }
            match colour_of(row, &self.columns[*column].0).filter(|_| screen.colour) {
                Some(colour) => Cell::new(text).fg(colour),
                None => Cell::new(text),
            }
        };
        columns.iter().map(one).collect()
    }

    /// For a terminal that is too narrow: wide columns fold, and where that would leave them too little, the widest stand on a line of
    /// their own below each row, all but the first two.
    fn fitted(&self, natural: &[u16], width: u16, screen: Screen) -> String {
        let least = |column: &usize| natural[*column].min(FOLDED) + PADDING;
        let mut beside: Vec<usize> = (0..self.columns.len()).collect();
        let mut below = Vec::new();
        while beside.iter().map(least).sum::<u16>() > width && beside.len() > 2 {
            let widest = (2..beside.len()).max_by_key(|at| natural[beside[*at]]);
            below.extend(widest.map(|at| beside.remove(at)));
        }
        below.sort_unstable();
        let widths = widths(&beside, natural, width);
        let print = |cells: Vec<Cell>| {
            let mut table = new_table(false, screen);
            table.add_row(cells);
            for (column, width) in table.column_iter_mut().zip(&widths) {
                column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(*width)));
            }
            lines(&table)
        };
        let mut text = print(
            beside
                .iter()
                .map(|column| Cell::new(heading(&self.columns[*column].1)))
                .collect(),
        );
        for row in &self.rows {
            text.push_str(&print(self.row(row, &beside, false, screen)));
            let cells = self.shown(row);
            let below = below.iter().filter(|column| !cells[**column].is_empty());
            let below = below
                .map(|column| format!("{} {}", heading(&self.columns[*column].1), cells[*column]));
            text.push_str(&folded(below, usize::from(width)));
        }
        text
    }
}

/// One style for all programs.
fn heading(name: &str) -> String {
    name.to_uppercase()
}

/// What stands below a row, as many of them on a line as fit. What is longer than a line goes on in the next; a name or an address is
/// not torn apart.
fn folded(parts: impl Iterator<Item = String>, width: usize) -> String {
    const INDENT: usize = 5;
    // A wide character has room in it.
    let room = width.saturating_sub(INDENT).max(2);
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        let fits = |line: &&mut String| wide(line) + 2 + wide(&part) <= room;
        if let Some(line) = lines.last_mut().filter(fits) {
            line.push_str("  ");
            line.push_str(&part);
            continue;
        }
        lines.push(String::new());
        for word in part.split_inclusive(' ') {
            let mut rest = word;
            // A Chinese sentence has no spaces, and may end a line anywhere.
            while !rest.is_empty() {
                let Some(line) = lines.last_mut() else { break };
                let left = room.saturating_sub(wide(line));
                let torn = rest.chars().any(is_wide) && wide(rest.trim_end()) > room;
                let most = if torn { left } else { usize::MAX };
                if !torn && wide(rest.trim_end()) > left && !line.is_empty() {
                    lines.push(String::new());
                    continue;
                }
                let mut used = 0;
                let end = rest.char_indices().find(|(_, c)| {
                    used += 1 + usize::from(is_wide(*c));
                    used > most
                });
                let (now, later) = rest.split_at(end.map_or(rest.len(), |(at, _)| at));
                line.push_str(now);
                rest = later;
                if !rest.is_empty() {
                    lines.push(String::new());
                }
            }
        }
    }
    lines
        .iter()
        .map(|line| format!("{:INDENT$}{}\n", "", line.trim_end()))
        .collect()
}

/// Whether a terminal gives it two cells: what East Asia writes, and pictures.
fn is_wide(c: char) -> bool {
    const WIDE: [(u32, u32); 10] = [
        (0x1100, 0x115f),
        (0x2e80, 0xa4cf),
        (0xac00, 0xd7a3),
        (0xf900, 0xfaff),
        (0xfe30, 0xfe6f),
        (0xff00, 0xff60),
        (0xffe0, 0xffe6),
        (0x1f300, 0x1f64f),
        (0x1f900, 0x1f9ff),
        (0x20000, 0x3fffd),
    ];
    WIDE.iter()
        .any(|(first, last)| (*first..=*last).contains(&(c as u32)))
}

/// How many cells it takes.
fn wide(text: &str) -> usize {
    text.chars().map(|c| 1 + usize::from(is_wide(c))).sum()
}

fn new_table(markdown: bool, screen: Screen) -> Table {
    let mut table = Table::new();
    if markdown {
        table
            .load_style(presets::ASCII_MARKDOWN)
            .set_content_arrangement(ContentArrangement::Disabled);
    } else {
        table.load_style(presets::NOTHING);
    }
    if screen.colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table
}

fn lines(table: &Table) -> String {
    table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

/// How wide columns are, with their padding: those that fold share what the others leave.
fn widths(columns: &[usize], natural: &[u16], width: u16) -> Vec<u16> {
    let mut widths: Vec<u16> = columns
        .iter()
        .map(|column| natural[*column].min(FOLDED) + PADDING)
        .collect();
    // On a very narrow one even two columns give way.
    while widths.iter().sum::<u16>() > width {
        let Some(widest) = widths.iter_mut().max().filter(|w| **w > NARROWEST) else {
            break;
        };
        *widest -= 1;
    }
    let mut left = width.saturating_sub(widths.iter().sum());
    while left > 0 {
        let short = (0..widths.len())
            .filter(|at| widths[*at] < natural[columns[*at]].saturating_add(PADDING))
            .min_by_key(|at| widths[*at]);
        let Some(at) = short else { break };
        widths[at] += 1;
        left -= 1;
    }
    widths
}

/// The colour of a cell: a state that is shown in people's language has its severity beside it.
fn colour_of(row: &Map<String, Value>, key: &str) -> Option<Color> {
    let word = |key: &str| row.get(key).and_then(Value::as_str);
    if !STATES.contains(&key) {
        return None;
    }
    let by = match key {
        "state_shown" => "severity",
        "status_shown" => "status",
        key => key,
    };
    colour(word(by)?)
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
    fn on_a_terminal_wide_cells_fold_and_states_have_colours() {
        let mut listing =
            Listing::new(&[("task", "TASK"), ("status", "STATUS"), ("error", "ERROR")]);
        let error = "登录被拒绝：密码错误或账号已过期 ".repeat(6);
        listing.push(json!({"task": "zhihui-reports", "status": "failed", "error": error}));
        listing.push(json!({"task": "b", "status": "success", "error": null}));
        let screen = Screen {
            width: Some(60),
            colour: true,
        };
        let text = listing.render_on(Format::Table, screen);
        assert!(
            text.contains("\u{1b}[38;5;9m") && text.contains("\u{1b}[38;5;10m"),
            "{text:?}"
        );
        let plain = Screen {
            colour: false,
            ..screen
        };
        let text = listing.render_on(Format::Table, plain);
        assert!(!text.contains('\u{1b}'), "{text:?}");
        let cells = |line: &str| -> usize {
            line.chars()
                .map(|c| if (c as u32) < 0x1100 { 1 } else { 2 })
                .sum()
        };
        assert!(text.lines().all(|line| cells(line) <= 60), "{text}");
        assert!(text.lines().count() > 4, "the whole text is there: {text}");
        // On one that is narrower still, it stands below.
        let narrow = Screen {
            width: Some(40),
            colour: false,
        };
        let text = listing.render_on(Format::Table, narrow);
        assert!(text.contains("\n     ERROR\n     登录被拒绝"), "{text}");
        assert_eq!(text.matches("账号已过期").count(), 6, "{text}");
        assert!(text.lines().all(|line| cells(line) <= 40), "{text}");
        let parts = [
            "RETRIES 0",
            "RUN 01a21f8f-1340-7000-0000-5f1099b5b248",
            "FOUND 没有空格的一个很长的句子也可以在任何地方换行",
        ];
        assert_eq!(
            folded(parts.map(str::to_owned).into_iter(), 40),
            "     RETRIES 0\n     RUN\n     01a21f8f-1340-7000-0000-5f1099b5b248\n     FOUND 没有空格的一个很长的句子也可\n     以在任何地方换行\n"
        );
        // Two columns that are too wide for it fold.
        let mut two = Listing::new(&[("check", "CHECK"), ("detail", "DETAIL")]);
        two.push(json!({"check": "a".repeat(30), "detail": "配置文件的位置".repeat(4)}));
        let text = two.render_on(Format::Table, narrow);
        assert!(text.lines().all(|line| cells(line) <= 40), "{text}");
        // A pipe takes any length, and one line a row.
        let piped = listing.render(Format::Table);
        assert_eq!(piped.lines().count(), 3, "{piped}");
        assert!(!piped.contains('\u{1b}'));
    }

    #[test]
    fn json_keeps_every_field_and_csv_the_columns() {
        assert!(listing().render(Format::Json).contains("\"extra\":true}\n"));
        let csv = "task,title,rows\na,多空全景,75\nbb,x|y,\n";
        assert_eq!(listing().render(Format::Csv), csv);
        // Excel knows by its first three bytes that it is UTF-8.
        assert_eq!(
            listing().render(Format::CsvExcel).as_bytes(),
            [b"\xef\xbb\xbf", csv.as_bytes()].concat()
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
        let json = listing.render(Format::Json);
        let raw = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!json.contains(raw), "{json:?}");
        let first: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
        assert_eq!(
            first,
            Value::Object(listing.rows[0].clone()),
            "the value itself stays"
        );
    }

    #[test]
    fn markdown_escapes_the_column_separator() {
        assert!(listing().render(Format::Markdown).contains("x\\|y"));
    }
}
