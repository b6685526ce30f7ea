//! What form an answer has, and an `[answer]` that reads it: a proposal for a person to correct.

use std::collections::{HashMap, HashSet};

use oa_core::base::exact;
use oa_core::base::text::beginning;
use regex::Regex;
use serde_json::Value;

use super::grid::Grid;
use super::{MOST_UNPACKED, ReadError, beginning_at, delimited, sheet, table, unwrap_script};
use crate::source::{Delimited, Sheet};

/// TOML of `[answer]` and what belongs to it.
pub(crate) fn answer(body: &[u8], text: Option<&str>) -> Result<String, String> {
    let plain = |(_, what): ReadError| format!("the answer has {what}");
    match sheet::kind(body) {
        sheet::Kind::Xls => return spreadsheet(body).map_err(plain),
        sheet::Kind::Xlsx if sheet::member("xl/workbook.xml", body, MOST_UNPACKED).is_ok() => {
            return spreadsheet(body).map_err(plain);
        }
        sheet::Kind::Xlsx => return member(body),
        _ => {}
    }
    let text = text.ok_or("the answer is neither text nor a spreadsheet or zip file")?;
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err("the answer is empty".to_owned());
    }
    match exact::parse_records(trimmed) {
        Ok((value, _)) => return json(&value, ""),
        Err(at)
            if trimmed.starts_with(['{', '['])
                && trimmed[1..].trim_start().starts_with(['"', '{', '[']) =>
        {
            if at >= trimmed.len() {
                return Err(format!(
                    "the answer is JSON that is cut short after {} bytes; ask once more, or look whether the site limits its answers",
                    body.len()
                ));
            }
            let there = beginning_at(at, trimmed);
            return Err(format!(
                "the answer begins as JSON and is none (at byte {at}, {there:?}); a program that prints one object a line can be a source (kind = \"command\")"
            ));
        }
        Err(_) => {}
    }
    if trimmed.starts_with('<')
        && !trimmed.to_ascii_lowercase().contains("<html")
        && let Some(found) = xml(trimmed)
    {
        return Ok(found);
    }
    if let Some((name, value)) = script(trimmed) {
        return json(&value, &format!("script = {}\n", quoted(&name)));
    }
    if trimmed.starts_with('<') {
        let grid = table::grid(text, "table tr", "td, th").map_err(plain)?;
        let rows = by_headings(&grid).ok_or("no table of the page has a row of headings")?;
        return Ok(format!("[answer.table]\nrows = \"table tr\"\n\n{rows}"));
    }
    columns(text)
}

/// As TOML writes it.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn member(body: &[u8]) -> Result<String, String> {
    let names = sheet::members(body);
    let name = names.first().ok_or("the zip file has no member")?;
    let inner = sheet::member(name, body, MOST_UNPACKED).map_err(|(_, what)| what)?;
    let text = String::from_utf8(inner.clone());
    let text = text.unwrap_or_else(|_| encoding_rs::GB18030.decode(&inner).0.into_owned());
    let found = answer(&inner, Some(&text))?;
    let found = found
        .strip_prefix("[answer]\n")
        .unwrap_or(&found)
        .to_owned();
    Ok(format!("[answer]\nmember = {}\n{found}", quoted(name)))
}

fn spreadsheet(body: &[u8]) -> Result<String, ReadError> {
    let grid = sheet::rows(&Sheet::default(), body, MOST_UNPACKED)?;
    let rows = by_headings(&grid).unwrap_or_else(|| by_place(&grid));
    Ok(format!("[answer.sheet]\n\n{rows}"))
}

fn columns(text: &str) -> Result<String, String> {
    let head: Vec<&str> = text
        .lines()
        .filter(|l| !l.trim().is_empty())
        .take(20)
        .collect();
    let most = ["|", "\t", ";", ","].into_iter().max_by_key(|separator| {
        let counts: Vec<usize> = head.iter().map(|l| l.matches(separator).count()).collect();
        // Commas inside numbers make lines differ.
        let steady = counts
            .windows(2)
            .filter(|pair| pair[0] == pair[1] && pair[0] > 0)
            .count();
        (steady, counts.iter().sum::<usize>())
    });
    let separator = most.filter(|s| head.iter().any(|l| l.contains(s)));
    let separator = separator.ok_or_else(|| {
        let start = beginning(text.trim(), 80);
        format!(
            "the form of the answer is not known; it begins: {}",
            start.escape_debug()
        )
    })?;
    let rules = Delimited {
        separator: separator.to_owned(),
        quote: "\"".to_owned(),
    };
    let grid = delimited::rows(&rules, text).map_err(|(_, what)| what)?;
    let rows = by_headings(&grid).unwrap_or_else(|| by_place(&grid));
    Ok(format!(
        "[answer.delimited]\nseparator = {}\n\n{rows}",
        quoted(separator)
    ))
}

fn is_number(text: &str) -> bool {
    let digits = text.chars().filter(char::is_ascii_digit).count();
    digits > 0
        && text
            .chars()
            .all(|c| c.is_ascii_digit() || ",.%-+ ".contains(c))
}

pub(crate) fn cell(value: &Value) -> String {
    match exact::text(value) {
        Some(text) => text.trim().to_owned(),
        None if value.is_null() => String::new(),
        None => exact::to_text(value),
    }
}

/// The first row of different texts that has a row as long below it.
fn by_headings(grid: &Grid) -> Option<String> {
    let rows: Vec<Vec<String>> = grid
        .rows
        .iter()
        .map(|r| r.iter().map(cell).collect())
        .collect();
    let filled = |row: &[String]| row.iter().filter(|c| !c.is_empty()).count();
    let widest = rows.iter().map(|r| filled(r)).max()?;
    let at = rows.iter().enumerate().position(|(at, row)| {
        let different: HashSet<&String> = row.iter().filter(|c| !c.is_empty()).collect();
        let texts = row.iter().all(|c| !is_number(c));
        let below = rows.get(at + 1).is_some_and(|r| filled(r) > 1);
        texts
            && below
            && different.len() == filled(row)
            && different.len() > 1
            && 2 * different.len() > widest
    })?;
    let named = rows[at].iter().enumerate().filter(|(_, c)| !c.is_empty());
    let lines: String = named
        .map(|(number, heading)| format!("{} = {}\n", name(heading, number), quoted(heading)))
        .collect();
    Some(format!("[answer.rows.headings]\n{lines}"))
}

fn by_place(grid: &Grid) -> String {
    let width = grid.rows.iter().map(Vec::len).max().unwrap_or(0);
    let names: Vec<String> = (1..=width).map(|n| format!("\"column_{n}\"")).collect();
    format!("[answer.rows]\ncolumns = [{}]\n", names.join(", "))
}

/// A column's name of a heading: letters of ASCII as they are, others by their place.
pub(crate) fn name(heading: &str, number: usize) -> String {
    let usable = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name: String = heading
        .chars()
        .map(|c| {
            if usable(c) {
                c.to_ascii_lowercase()
            } else {
                '_'
            }
        })
        .collect();
    let name = name.trim_matches('_').to_owned();
    match name.starts_with(|c: char| c.is_ascii_alphabetic()) && heading.is_ascii() {
        true => name,
        false => format!("column_{}", number + 1),
    }
}

/// The longest list of objects or lists, or object of such.
fn json(value: &Value, before: &str) -> Result<String, String> {
    let mut best: Option<(usize, String, String)> = None;
    look(value, "", 0, &mut best);
    let (_, pointer, more) = best.ok_or("the answer is JSON, but has no list of records in it")?;
    Ok(format!(
        "[answer]\n{before}records = {}\n{more}",
        quoted(&pointer)
    ))
}

fn look(value: &Value, at: &str, depth: u32, best: &mut Option<(usize, String, String)>) {
    const DEEPEST: u32 = 5;
    let mut offer = |count: usize, more: String| {
        if best.as_ref().is_none_or(|(most, _, _)| count > *most) {
            *best = Some((count, at.to_owned(), more));
        }
    };
    match value {
        Value::Array(all) => match all.first() {
            Some(Value::Object(_)) => offer(all.len(), String::new()),
            Some(Value::Array(values)) => {
                let names: Vec<String> = (1..=values.len())
                    .map(|n| format!("\"column_{n}\""))
                    .collect();
                offer(all.len(), format!("columns = [{}]\n", names.join(", ")));
            }
            _ => {}
        },
        Value::Object(fields) => {
            let keys = |v: &Value| v.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>());
            let first = fields.values().next().and_then(keys);
            if fields.len() > 2 && first.is_some() && fields.values().all(|v| keys(v) == first) {
                offer(fields.len(), "key_as = \"key\"\n".to_owned());
            }
            for (key, inner) in fields.iter().filter(|_| depth < DEEPEST) {
                let key = key.replace('~', "~0").replace('/', "~1");
                look(inner, &format!("{at}/{key}"), depth + 1, best);
            }
        }
        _ => {}
    }
}

fn script(text: &str) -> Option<(String, Value)> {
    /// Each is looked for in the whole text: a page of many would take as long as somebody likes.
    const MOST: usize = 20;
    let mut seen = HashSet::new();
    let pattern = Regex::new(r"([A-Za-z_$][\w$.]*)\s*(?:\(|=)\s*[\[{]").ok()?;
    let mut names = pattern
        .captures_iter(text)
        .filter_map(|c| Some(c.get(1)?.as_str()))
        .filter(|name| seen.insert(*name))
        .take(MOST);
    names.find_map(|name| Some((name.to_owned(), exact::parse(unwrap_script(name, text)?)?)))
}

/// The most frequent path of elements that have elements.
fn xml(text: &str) -> Option<String> {
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        nodes_limit: super::xml::MOST_NODES,
        ..roxmltree::ParsingOptions::default()
    };
    let document = roxmltree::Document::parse_with_options(text, options).ok()?;
    let mut counts: Vec<(String, usize)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for node in document.descendants().filter(roxmltree::Node::is_element) {
        let has_fields = node.children().any(|n| n.is_element()) || node.attributes().len() > 1;
        if !has_fields || node.parent_element().is_none() {
            continue;
        }
        let mut path: Vec<&str> = node
            .ancestors()
            .filter(roxmltree::Node::is_element)
            .map(|n| n.tag_name().name())
            .collect();
        path.reverse();
        let path = path.join("/");
        match places.get(&path) {
            Some(place) => counts[*place].1 += 1,
            None => {
                places.insert(path.clone(), counts.len());
                counts.push((path, 1));
            }
        }
    }
    // Of equal ones the outer one.
    let most = counts.iter().map(|(_, n)| *n).max()?;
    let (path, _) = counts.iter().find(|(_, n)| *n == most)?;
    Some(format!("[answer.xml]\nrecords = {}\n", quoted(path)))
}
