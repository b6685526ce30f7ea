//! Rows of cells into records, by headings or by place. A row that does not fit becomes a list of its cells, which validation rejects:
//! one broken row does not cost the day, and is not lost either.

use oa_core::base::exact;
use oa_core::base::text::beginning;
use oa_core::model::retry::ErrorKind;
use regex::Regex;
use serde_json::{Map, Value};

use super::{Extracted, ReadError};
use crate::source::{Names, Rows};

/// Wider rows are damage, or meant to do some.
pub(crate) const MOST_COLUMNS: usize = 16_384;
/// More cells than this are not read into memory.
pub(crate) const MOST_CELLS: usize = 1_000_000;

/// Rows as they come, and what they may be.
#[derive(Debug, Default)]
pub(crate) struct Grid {
    pub(crate) rows: Vec<Vec<Value>>,
    /// Cells at the end of a row may be absent, as spreadsheets leave out empty ones.
    pub(crate) may_be_short: bool,
}

impl Grid {
    /// All text of it, a line a row.
    pub(crate) fn text(&self) -> String {
        let lines: Vec<String> = self.rows.iter().map(|row| joined(row)).collect();
        lines.join("\n")
    }
}

/// Refuses more cells than anybody means to send.
pub(crate) fn check_size(columns: usize, cells: usize) -> Result<(), ReadError> {
    if columns > MOST_COLUMNS {
        return Err(shape(format!(
            "a row of {columns} cells; more than {MOST_COLUMNS} are not read"
        )));
    }
    if cells > MOST_CELLS {
        return Err(shape(format!("more than {MOST_CELLS} cells")));
    }
    Ok(())
}

/// In bytes: of all cells, and so of all records. A text that stands in many cells counts in each.
const MOST_TEXT: usize = 64 << 20;

/// How much text there is; refuses more than anybody means to send.
#[derive(Debug, Default)]
pub(crate) struct TextSize(usize);

impl TextSize {
    pub(crate) fn add(&mut self, text: &str) -> Result<(), ReadError> {
        self.0 += text.len();
        if self.0 > MOST_TEXT {
            let what = format!(
                "more than {MOST_TEXT} bytes of text in its cells, most of it again and again"
            );
            return Err(shape(what));
        }
        Ok(())
    }
}

fn shape(what: String) -> ReadError {
    (ErrorKind::Shape, what)
}

/// Where the fields are.
struct Mapping {
    fields: Vec<(String, usize)>,
    /// How many cells the headings have.
    width: usize,
    /// So many cells a row must have.
    least: usize,
    /// Optional columns that are not there.
    absent: Vec<String>,
}

pub(crate) fn take(rules: &Rows, grid: Grid) -> Result<Extracted, ReadError> {
    let compiled = |pattern: &String| Regex::new(pattern).ok();
    let skip: Vec<Regex> = rules.skip.iter().filter_map(compiled).collect();
    let block = rules.block.as_ref().and_then(compiled);
    let mut reader = Reader {
        rules,
        may_be_short: grid.may_be_short,
        mapping: by_place(rules),
        of_block: Map::new(),
        above: Map::new(),
        repeated: TextSize::default(),
        extracted: Extracted::default(),
    };
    let mut first = None;
    for (number, row) in grid.rows.into_iter().enumerate() {
        if number < rules.skip_rows || row.iter().all(is_blank) {
            continue;
        }
        let text = joined(&row);
        first.get_or_insert_with(|| beginning(&text, 200));
        if skip.iter().any(|pattern| pattern.is_match(&text)) {
            continue;
        }
        if let Some((pattern, found)) = block.as_ref().and_then(|p| Some((p, p.captures(&text)?))) {
            let names = pattern.capture_names().flatten();
            let fields = names.filter_map(|name| {
                let value = found.name(name)?.as_str().trim();
                Some((name.to_owned(), Value::from(value)))
            });
            reader.of_block = fields.collect();
            reader.above.clear();
            continue;
        }
        reader.row(row)?;
    }
    match (reader.mapping, first) {
        (None, Some(first)) => {
            let due: Vec<&str> = rules.headings.values().filter_map(first_name).collect();
            Err(shape(format!(
                "no row with the headings ({}); it begins: {first}",
                due.join(", ")
            )))
        }
        (_, None) => Err((ErrorKind::Empty, "no rows".to_owned())),
        _ => Ok(reader.extracted),
    }
}

fn first_name(names: &Names) -> Option<&str> {
    names.all().first().map(String::as_str)
}

struct Reader<'a> {
    rules: &'a Rows,
    may_be_short: bool,
    mapping: Option<Mapping>,
    of_block: Map<String, Value>,
    /// The last values of the fields that are filled down.
    above: Map<String, Value>,
    /// What records have of rows above them.
    repeated: TextSize,
    extracted: Extracted,
}

impl Reader<'_> {
    fn row(&mut self, row: Vec<Value>) -> Result<(), ReadError> {
        if self.rules.columns.is_empty()
            && let Some(mapping) = by_headings(self.rules, &row)?
        {
            self.mapping = Some(mapping);
            self.above.clear();
            return Ok(());
        }
        // A title above the headings.
        let Some(mapping) = &self.mapping else {
            return Ok(());
        };
        let used = row.len() - row.iter().rev().take_while(|c| is_blank(c)).count();
        if used > mapping.width || (!self.may_be_short && row.len() < mapping.least) {
            self.extracted.records.push(Value::Array(row));
            return Ok(());
        }
        for text in self.of_block.values().filter_map(Value::as_str) {
            self.repeated.add(text)?;
        }
        let mut record = self.of_block.clone();
        for (name, at) in &mapping.fields {
            let mut value = row.get(*at).cloned().unwrap_or_default();
            if self.rules.fill_down.contains(name) {
                if is_blank(&value) {
                    let above = self.above.get(name).and_then(Value::as_str);
                    self.repeated.add(above.unwrap_or_default())?;
                    value = self.above.get(name).cloned().unwrap_or(value);
                } else {
                    self.above.insert(name.clone(), value.clone());
                }
            }
            record.insert(name.clone(), value);
        }
        for name in &mapping.absent {
            record.insert(name.clone(), Value::Null);
        }
        self.extracted.records.push(Value::Object(record));
        Ok(())
    }
}

fn by_place(rules: &Rows) -> Option<Mapping> {
    let named = rules.columns.iter().enumerate();
    let named = named.filter(|(_, name)| !name.is_empty());
    (!rules.columns.is_empty()).then(|| Mapping {
        fields: named.map(|(at, name)| (name.clone(), at)).collect(),
        width: rules.columns.len(),
        least: rules.columns.len(),
        absent: Vec::new(),
    })
}

/// The places of the headings, if this is the row of headings.
fn by_headings(rules: &Rows, row: &[Value]) -> Result<Option<Mapping>, ReadError> {
    let cells: Vec<String> = row.iter().map(heading).collect();
    let find = |names: &Names| -> Vec<usize> {
        let wanted: Vec<String> = names.all().iter().map(|n| without_blanks(n)).collect();
        let places = cells.iter().enumerate();
        let places = places.filter(|(_, cell)| wanted.contains(cell));
        places.map(|(at, _)| at).collect()
    };
    let mut fields = Vec::new();
    let mut absent = Vec::new();
    let mut twice = None;
    let optional = rules.optional_headings.iter().map(|(n, h)| (n, h, false));
    let all = rules.headings.iter().map(|(n, h)| (n, h, true));
    for (name, names, required) in all.chain(optional) {
        match find(names).as_slice() {
            [] if required => return Ok(None),
            [] => absent.push(name.clone()),
            [at] => fields.push((name.clone(), *at)),
            _ => twice = twice.or(first_name(names)),
        }
    }
    if let Some(heading) = twice {
        return Err(shape(format!(
            "the heading {heading} more than once; name the columns by their place (columns in [answer.rows])"
        )));
    }
    let blank = cells.iter().rev().take_while(|c| c.is_empty()).count();
    Ok(Some(Mapping {
        least: fields.iter().map(|(_, at)| at + 1).max().unwrap_or(0),
        fields,
        width: cells.len() - blank,
        absent,
    }))
}

fn heading(cell: &Value) -> String {
    without_blanks(&plain(cell))
}

/// Headings are laid out with blanks of all kinds, which mean nothing.
fn without_blanks(text: &str) -> String {
    let blank = |c: &char| c.is_whitespace() || matches!(c, '\u{a0}' | '\u{feff}');
    text.chars().filter(|c| !blank(c)).collect()
}

fn is_blank(cell: &Value) -> bool {
    match cell {
        Value::Null => true,
        other => exact::text(other).is_some_and(|t| without_blanks(t).is_empty()),
    }
}

fn plain(cell: &Value) -> String {
    match (cell, exact::text(cell)) {
        (Value::Null, _) => String::new(),
        (_, Some(text)) => text.trim().to_owned(),
        (other, None) => exact::to_text(other),
    }
}

fn joined(row: &[Value]) -> String {
    let cells: Vec<String> = row.iter().map(plain).filter(|c| !c.is_empty()).collect();
    cells.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(text: &str) -> Rows {
        toml::from_str(text).unwrap()
    }

    fn grid(rows: &[&str]) -> Grid {
        let cells = |row: &&str| row.split('|').map(Value::from).collect();
        Grid {
            rows: rows.iter().map(cells).collect(),
            may_be_short: false,
        }
    }

    #[test]
    fn columns_are_found_by_their_headings_in_any_order() {
        let rules = rules(
            "headings = { code = [\"合约代码\", \"品种月份\"], close = \"今收盘\" }\noptional_headings = { delta = \"Delta\" }\nskip = [\"^注\"]",
        );
        for rows in [
            [
                "标题",
                "合约代码|今 收盘|Delta",
                "IF2401|3439.8|--",
                "注：x|",
            ],
            ["", "今收盘|　品种月份 |Delta", "3439.8|IF2401|--", ""],
        ] {
            let got = take(&rules, grid(&rows)).unwrap().records;
            assert_eq!(
                got,
                [json!({"code": "IF2401", "close": "3439.8", "delta": "--"})]
            );
        }
        let got = take(
            &rules,
            grid(&["今收盘|合约代码", "1|A", "2", "3|C|x", "4|D|"]),
        );
        assert_eq!(
            got.unwrap().records,
            [
                json!({"code": "A", "close": "1", "delta": null}),
                json!(["2"]),
                json!(["3", "C", "x"]),
                json!({"code": "D", "close": "4", "delta": null}),
            ],
            "rows of another width are lists"
        );
        let (kind, what) = take(&rules, grid(&["合约|今收盘", "A|1"])).unwrap_err();
        assert_eq!(kind, ErrorKind::Shape);
        assert!(
            what.contains("no row with the headings (今收盘, 合约代码)")
                || what.contains("合约代码"),
            "{what}"
        );
        let (_, what) = take(&rules, grid(&["合约代码|今收盘|今收盘"])).unwrap_err();
        assert!(what.contains("今收盘 more than once"), "{what}");
        assert_eq!(
            take(&rules, grid(&["", "|"])).unwrap_err().0,
            ErrorKind::Empty
        );
    }

    #[test]
    fn blocks_have_headings_of_their_own_and_values_are_filled_down() {
        let rules = rules(
            "headings = { house = \"仓库\", n = \"数量\" }\nblock = \"^品种：(?<variety>\\\\S+)\"\nfill_down = [\"house\"]",
        );
        let got = take(
            &rules,
            grid(&[
                "品种：白糖",
                "仓库|数量",
                "甲|1",
                "|2",
                "品种：棉花|",
                "数量|仓库",
                "3|",
                "4|乙",
            ]),
        );
        assert_eq!(
            got.unwrap().records,
            [
                json!({"variety": "白糖", "house": "甲", "n": "1"}),
                json!({"variety": "白糖", "house": "甲", "n": "2"}),
                json!({"variety": "棉花", "house": "", "n": "3"}),
                json!({"variety": "棉花", "house": "乙", "n": "4"}),
            ]
        );
    }

    #[test]
    fn columns_are_named_by_their_place() {
        let rules = rules("columns = [\"code\", \"\", \"n\"]\nskip_rows = 1");
        let got = take(&rules, grid(&["a|b|c", "A|x|1", "B|x", "C||3|"])).unwrap();
        assert_eq!(
            got.records,
            [
                json!({"code": "A", "n": "1"}),
                json!(["B", "x"]),
                json!({"code": "C", "n": "3"})
            ]
        );
    }
}
