//! How answers are read that are not plain JSON: text in columns, spreadsheets, XML, anything by a pattern.

use std::collections::BTreeMap;
use std::time::Duration;

use oa_core::base::units::{ClockTime, Span};
use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Answer, Source};

/// `[answer.rows]`: how rows of cells become records, for text in columns, spreadsheets and HTML tables. Either `headings`: cells are
/// found by the heading above them, in whatever order; or `columns`: by their place.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Rows {
    /// Fields of a record, and the headings they stand under: one, or several that the site has used.
    pub(crate) headings: BTreeMap<String, Names>,
    /// The same for columns that may be absent.
    pub(crate) optional_headings: BTreeMap<String, Names>,
    /// Instead of `headings`: names for the cells, in their order; "" for one that is not needed.
    pub(crate) columns: Vec<String>,
    /// With `columns`: so many rows before the first record.
    pub(crate) skip_rows: usize,
    /// Rows that match one of these regular expressions (their cells joined by blanks) are no records.
    pub(crate) skip: Vec<String>,
    /// A row that matches this regular expression begins a block; its named groups (`(?<variety>…)`) are fields of the block's records.
    pub(crate) block: Option<String>,
    /// Fields that are empty where the row above says the same.
    pub(crate) fill_down: Vec<String>,
}

/// One name or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Names {
    /// One.
    One(String),
    /// Any of these.
    Any(Vec<String>),
}

impl Names {
    pub(crate) fn all(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Any(names) => names,
        }
    }
}

/// `[answer.delimited]`: text in columns, such as CSV.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Delimited {
    /// What parts the columns: one character or several, or "blanks" for any number of blanks and tabs.
    #[serde(default = "comma")]
    pub(crate) separator: String,
    /// The quotation mark around cells that hold separators or line breaks; "" when the site has none.
    #[serde(default = "quote")]
    pub(crate) quote: String,
}

fn comma() -> String {
    ",".to_owned()
}

fn quote() -> String {
    "\"".to_owned()
}

/// `[answer.sheet]`: a sheet of an xlsx or xls file, also of a web page that calls itself one.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sheet {
    /// Its name; without one, the first sheet.
    pub(crate) name: Option<String>,
}

/// `[answer.xml]`: records of an XML document, such as RSS. A record's fields are its elements by name, its attributes as `@name`, and
/// what is in its elements as `outer/inner` and `outer/@name`; names are without their namespace.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Xml {
    /// Path of the records from the root, such as `rss/channel/item`.
    pub(crate) records: String,
}

/// `[answer.text]`: records out of any text.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Text {
    /// Every match of this regular expression is a record; its named groups (`(?<price>…)`) are the fields.
    pub(crate) record: String,
}

/// `[[exclude]]`: records that are none, such as totals. They are skipped and counted in a finding.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Exclude {
    /// Field of the record.
    pub(crate) field: String,
    /// It is one of these.
    pub(crate) is: Vec<String>,
    /// It contains one of these.
    pub(crate) contains: Vec<String>,
    /// It matches this regular expression.
    pub(crate) pattern: Option<String>,
}

/// `not_yet`: a file that is not there yet (404, a page or nothing in its place, or another day's) is asked for again until a time of the
/// day, and that is no failure before.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NotYet {
    /// Until this time, such as "18:30"; then the source's retries count.
    #[schemars(with = "String")]
    pub(crate) until: ClockTime,
    /// How often, such as "5m".
    #[schemars(with = "String")]
    pub(crate) every: Span,
}

impl Answer {
    /// Whether the body is text in another form than JSON, so that all values come as text.
    pub(crate) fn is_text(&self) -> bool {
        self.delimited.is_some() || self.xml.is_some() || self.text.is_some()
    }

    /// Whether the answer is anything but JSON and the page of `[answer.table]`.
    pub(crate) fn is_other_form(&self) -> bool {
        self.is_text() || self.sheet.is_some()
    }
}

const MOST_OFTEN: Duration = Duration::from_secs(1);
const SELDOM: Duration = Duration::from_secs(3600);

/// What is wrong with how other forms are read, if anything is.
pub(super) fn check(source: &Source) -> Result<(), String> {
    let rules = &source.answer;
    if let Some(not_yet) = &source.not_yet
        && !(MOST_OFTEN..=SELDOM).contains(&not_yet.every.0)
    {
        return Err("every in not_yet must be from 1s to 1h".to_owned());
    }
    if let Some(label) = &rules.charset
        && encoding_rs::Encoding::for_label(label.as_bytes()).is_none()
    {
        return Err(format!(
            "charset \"{label}\" in [answer] is not known; gbk, utf-8 and big5 are some that are"
        ));
    }
    let json = rules.records.is_some() || !rules.lists.is_empty();
    for (key, given) in [
        ("script", rules.script.is_some()),
        ("columns", !rules.columns.is_empty()),
        ("key_as", rules.key_as.is_some()),
    ] {
        if given && !json {
            return Err(format!("{key} in [answer] is for JSON"));
        }
    }
    if rules.day_pattern.is_some() && json && rules.table.is_none() {
        return Err(
            "day_pattern in [answer] is for text, sheets and pages; say by day where it is in JSON"
                .to_owned(),
        );
    }
    if let Some(pattern) = &rules.day_pattern {
        let pattern = regex("day_pattern in [answer]", pattern)?;
        if pattern.captures_len() != 2 {
            return Err("day_pattern in [answer] needs one group, (…), around the day".to_owned());
        }
    }
    let tabular = rules.delimited.is_some() || rules.sheet.is_some();
    let by_rows = rules.table.as_ref().is_some_and(|t| t.columns.is_empty());
    match &rules.rows {
        Some(_) if !tabular && !by_rows => {
            return Err("[answer.rows] needs [answer.delimited], [answer.sheet], or [answer.table] without columns".to_owned());
        }
        None if tabular => {
            return Err("[answer.delimited] and [answer.sheet] need [answer.rows]".to_owned());
        }
        None if by_rows => {
            return Err("[answer.table] needs columns, or [answer.rows]".to_owned());
        }
        Some(rows) => check_rows(rows)?,
        None => {}
    }
    if let Some(delimited) = &rules.delimited {
        if delimited.separator.is_empty() {
            return Err("separator in [answer.delimited] is empty; \"blanks\" stands for any number of blanks and tabs".to_owned());
        }
        if delimited.quote.len() > 1 {
            return Err("quote in [answer.delimited] must be one character, or \"\"".to_owned());
        }
    }
    if let Some(text) = &rules.text {
        let pattern = regex("record in [answer.text]", &text.record)?;
        if pattern.capture_names().flatten().next().is_none() {
            return Err("record in [answer.text] needs named groups, (?<field>…)".to_owned());
        }
    }
    if let Some(xml) = &rules.xml
        && xml.records.split('/').any(str::is_empty)
    {
        return Err("records in [answer.xml] must be a path such as rss/channel/item".to_owned());
    }
    check_exclude(source)
}

fn check_rows(rows: &Rows) -> Result<(), String> {
    if rows.headings.is_empty() == rows.columns.is_empty() {
        return Err("[answer.rows] needs either headings or columns".to_owned());
    }
    if !rows.columns.is_empty() && !rows.optional_headings.is_empty() {
        return Err("optional_headings in [answer.rows] belongs to headings".to_owned());
    }
    if rows.skip_rows > 0 && rows.columns.is_empty() {
        return Err(
            "skip_rows in [answer.rows] belongs to columns; headings are found wherever they are"
                .to_owned(),
        );
    }
    let headings = rows.headings.iter().chain(&rows.optional_headings);
    for (name, texts) in headings.clone() {
        if texts.all().is_empty() || texts.all().iter().any(|t| t.trim().is_empty()) {
            return Err(format!("heading of \"{name}\" in [answer.rows] is empty"));
        }
    }
    let block = rows.block.as_deref();
    let block = block
        .map(|p| regex("block in [answer.rows]", p))
        .transpose()?;
    for pattern in &rows.skip {
        regex("skip in [answer.rows]", pattern)?;
    }
    let of_block = block.iter().flat_map(|b| b.capture_names().flatten());
    let fields: Vec<&str> = headings
        .map(|(name, _)| name.as_str())
        .chain(rows.columns.iter().map(String::as_str))
        .chain(of_block)
        .collect();
    match rows
        .fill_down
        .iter()
        .find(|f| !fields.contains(&f.as_str()))
    {
        Some(field) => Err(format!(
            "fill_down in [answer.rows] names \"{field}\", which is none of its fields"
        )),
        None => Ok(()),
    }
}

fn check_exclude(source: &Source) -> Result<(), String> {
    for rule in &source.exclude {
        if rule.field.is_empty() {
            return Err("[[exclude]] needs field".to_owned());
        }
        if rule.is.is_empty() && rule.contains.is_empty() && rule.pattern.is_none() {
            return Err("[[exclude]] needs is, contains or pattern".to_owned());
        }
        if let Some(pattern) = &rule.pattern {
            regex("pattern in [[exclude]]", pattern)?;
        }
    }
    Ok(())
}

fn regex(key: &str, pattern: &str) -> Result<Regex, String> {
    Regex::new(pattern).map_err(|e| format!("{key}: {e}"))
}
