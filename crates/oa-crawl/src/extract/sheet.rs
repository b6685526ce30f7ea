//! Spreadsheets: xlsx and xls, and web pages that call themselves one.

use std::cell::Cell;
use std::io::{Cursor, Read};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use calamine::{Data, Dimensions, ExcelDateTime, Reader, Xls, Xlsx};
use oa_core::base::exact;
use oa_core::base::text::beginning;
use oa_core::model::retry::ErrorKind;
use serde_json::{Number, Value};
use zip::ZipArchive;

use super::ReadError;
use super::grid::{Grid, MOST_CELLS, TextSize, check_size};
use crate::source::Sheet;

/// How the file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Xlsx,
    Xls,
    Page,
    Other,
}

pub(crate) fn kind(body: &[u8]) -> Kind {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    match body {
        [b'P', b'K', 3, 4, ..] => Kind::Xlsx,
        [0xD0, 0xCF, 0x11, 0xE0, ..] => Kind::Xls,
        _ if text.trim_ascii_start().starts_with(b"<") => Kind::Page,
        _ => Kind::Other,
    }
}

/// The cells of an xlsx or xls file. `most` is how many bytes it may have, unpacked.
pub(crate) fn rows(rules: &Sheet, body: &[u8], most: u64) -> Result<Grid, ReadError> {
    match kind(body) {
        Kind::Xlsx => guarded(|| xlsx(rules, body, most)),
        Kind::Xls => super::xls::rows(rules, body),
        Kind::Page | Kind::Other if body.trim_ascii().is_empty() => {
            Err((ErrorKind::Empty, "an empty body".to_owned()))
        }
        Kind::Page | Kind::Other => {
            let start = beginning(&String::from_utf8_lossy(body), 80);
            let what = format!("no spreadsheet; it begins: {}", start.escape_debug());
            Err((ErrorKind::Shape, what))
        }
    }
}

fn damaged(error: impl std::fmt::Display) -> ReadError {
    (
        ErrorKind::Shape,
        format!("a spreadsheet that cannot be read ({error})"),
    )
}

/// A file that begins as it should and cannot be opened was cut short, most likely (the directory of a zip file is at its end), and may
/// come whole when it is asked for again.
fn cut_short((_, what): ReadError) -> ReadError {
    (ErrorKind::Network, what)
}

thread_local! {
    /// A spreadsheet is being read on this thread.
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// The library that reads spreadsheets panics at some damaged files, mostly those that were cut short. That is one more error, and no bug
/// of this program that its messages would have to describe.
fn guarded(read: impl FnOnce() -> Result<Grid, ReadError>) -> Result<Grid, ReadError> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !READING.get() {
                before(info);
            }
        }));
    });
    READING.set(true);
    let read = panic::catch_unwind(AssertUnwindSafe(read));
    READING.set(false);
    read.unwrap_or_else(|_| Err(cut_short(damaged("it breaks off, or is damaged inside"))))
}

/// The name of the sheet that is meant.
fn chosen(rules: &Sheet, names: &[String]) -> Result<String, ReadError> {
    let found = match &rules.name {
        Some(name) => names.iter().find(|n| n.trim() == name.trim()),
        None => names.first(),
    };
    found.cloned().ok_or_else(|| {
        let what = match &rules.name {
            Some(name) => format!("no sheet \"{name}\", but {}", names.join(", ")),
            None => "no sheet".to_owned(),
        };
        (ErrorKind::Shape, what)
    })
}

fn xlsx(rules: &Sheet, body: &[u8], most: u64) -> Result<Grid, ReadError> {
    check_unpacked(body, most)?;
    let mut book: Xlsx<_> = Xlsx::new(Cursor::new(body)).map_err(damaged)?;
    let name = chosen(rules, &book.sheet_names())?;
    let merged = book.merge_cells_by_sheet_name(&name).map_err(damaged)?;
    let mut cells = Cells::default();
    let mut reader = book.worksheet_cells_reader(&name).map_err(damaged)?;
    while let Some(cell) = reader.next_cell().map_err(damaged)? {
        cells.put(
            cell.get_position(),
            value(&Data::from(cell.get_value().clone())),
        )?;
    }
    cells.spread(&merged)?;
    Ok(cells.grid)
}

/// The rows of an xls file, whatever memory that takes.
pub(super) fn in_this_process(rules: &Sheet, body: &[u8]) -> Result<Grid, ReadError> {
    guarded(|| xls(rules, body))
}

fn xls(rules: &Sheet, body: &[u8]) -> Result<Grid, ReadError> {
    let book = Xls::new(Cursor::new(body));
    let mut book: Xls<_> = book.map_err(|e| cut_short(damaged(e)))?;
    let name = chosen(rules, &book.sheet_names())?;
    let merged = book.merge_cells_by_sheet_name(&name).unwrap_or_default();
    let range = book.worksheet_range(&name).map_err(damaged)?;
    let (top, left) = range.start().unwrap_or_default();
    let mut cells = Cells::default();
    for (row, column, data) in range.used_cells() {
        let at = |n: usize, start: u32| u32::try_from(n).unwrap_or(u32::MAX).saturating_add(start);
        cells.put((at(row, top), at(column, left)), value(data))?;
    }
    cells.spread(&merged)?;
    Ok(cells.grid)
}

/// Unpacks every member once, only to count: what a bomb says of its own size is not true.
fn check_unpacked(body: &[u8], most: u64) -> Result<(), ReadError> {
    let mut archive = ZipArchive::new(Cursor::new(body)).map_err(|e| cut_short(damaged(e)))?;
    let mut left = most;
    for index in 0..archive.len() {
        let member = archive.by_index(index).map_err(damaged)?;
        let unpacked = std::io::copy(&mut member.take(left + 1), &mut std::io::sink());
        let unpacked = unpacked.map_err(damaged)?;
        left = left.checked_sub(unpacked).ok_or_else(|| {
            let what = format!(
                "a spreadsheet of more than {most} bytes, unpacked; larger ones are not read"
            );
            (ErrorKind::Shape, what)
        })?;
    }
    Ok(())
}

/// Of any sheet.
const MOST_ROWS: usize = 1 << 20;

/// Only cells that are there take memory: one in the last corner of a sheet does not make a million.
#[derive(Default)]
struct Cells {
    grid: Grid,
    count: usize,
    text: TextSize,
}

impl Cells {
    fn put(&mut self, (row, column): (u32, u32), value: Value) -> Result<(), ReadError> {
        if value.is_null() {
            return Ok(());
        }
        self.text.add(value.as_str().unwrap_or_default())?;
        self.grid.may_be_short = true;
        let (row, column) = (row as usize, column as usize);
        let rows = &mut self.grid.rows;
        if row >= rows.len() {
            if row >= MOST_ROWS {
                let what = format!("a row beyond the {MOST_ROWS} that a sheet can have");
                return Err((ErrorKind::Shape, what));
            }
            rows.resize(row + 1, Vec::new());
        }
        if column >= rows[row].len() {
            self.count += column + 1 - rows[row].len();
            check_size(column + 1, self.count)?;
            rows[row].resize(column + 1, Value::Null);
        }
        rows[row][column] = value;
        Ok(())
    }

    /// A merged cell says the same in all its places.
    fn spread(&mut self, merged: &[Dimensions]) -> Result<(), ReadError> {
        let last = u32::try_from(self.grid.rows.len()).unwrap_or(u32::MAX);
        let mut left = MOST_CELLS as u64;
        for area in merged {
            let (top, first) = area.start;
            let row = self.grid.rows.get(top as usize);
            let Some(value) = row.and_then(|r| r.get(first as usize)).cloned() else {
                continue;
            };
            let bottom = area.end.0.min(last.saturating_sub(1));
            let cells = u64::from(bottom.saturating_sub(top) + 1)
                * u64::from(area.end.1.saturating_sub(first) + 1);
            left = left.checked_sub(cells).ok_or_else(|| {
                let what = format!("a spreadsheet with more than {MOST_CELLS} merged cells");
                (ErrorKind::Shape, what)
            })?;
            for row in top..=bottom {
                for column in first..=area.end.1 {
                    self.put((row, column), value.clone())?;
                }
            }
        }
        Ok(())
    }
}

fn value(data: &Data) -> Value {
    match data {
        Data::Int(number) => Value::from(*number),
        Data::Float(number) => number_of(*number),
        Data::String(text) => Value::from(text.trim()),
        Data::Bool(truth) => Value::from(*truth),
        Data::DateTime(time) => Value::from(time_of(time)),
        Data::DateTimeIso(text) | Data::DurationIso(text) => Value::from(text.as_str()),
        // A formula that failed: its record is rejected.
        Data::Error(error) => exact::as_malformed(&error.to_string()),
        Data::Empty => Value::Null,
    }
}

/// 2601 is stored as 2601.0.
fn number_of(number: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT {
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

fn time_of(time: &ExcelDateTime) -> String {
    if !time.is_datetime() {
        return time.as_f64().to_string();
    }
    let (year, month, day, hour, minute, second, _) = time.to_ymd_hms_milli();
    let date = format!("{year:04}-{month:02}-{day:02}");
    match (hour, minute, second) {
        (0, 0, 0) => date,
        _ => format!("{date} {hour:02}:{minute:02}:{second:02}"),
    }
}

/// Takes one member out of a zip file. `*` in the name stands for anything; one member must match.
pub(crate) fn member(name: &str, body: &[u8], most: u64) -> Result<Vec<u8>, ReadError> {
    let fail = |what: String| (ErrorKind::Shape, what);
    if body.trim_ascii().is_empty() {
        return Err((ErrorKind::Empty, "an empty body".to_owned()));
    }
    let mut archive = ZipArchive::new(Cursor::new(body)).map_err(|e| {
        let what = format!("no zip file ({e}), where its member {name} was due");
        match kind(body) {
            Kind::Xlsx => cut_short(fail(what)),
            Kind::Page => (ErrorKind::Blocked, format!("a web page and {what}")),
            Kind::Xls | Kind::Other => fail(what),
        }
    })?;
    let matching: Vec<usize> = (0..archive.len())
        .filter(|i| {
            let member = archive.by_index_raw(*i);
            member.is_ok_and(|m| m.is_file() && matches(name, &name_of(m.name_raw())))
        })
        .collect();
    let index = match matching.as_slice() {
        [index] => *index,
        // The files of a month are there day by day.
        [] => {
            return Err((
                ErrorKind::Empty,
                format!("a zip file without the member {name}"),
            ));
        }
        _ => return Err(fail(format!("a zip file with several members {name}"))),
    };
    let member = archive.by_index(index).map_err(|e| fail(e.to_string()))?;
    let mut unpacked = Vec::new();
    let read = member.take(most + 1).read_to_end(&mut unpacked);
    read.map_err(|e| (ErrorKind::Network, format!("a damaged zip file ({e})")))?;
    if unpacked.len() as u64 > most {
        return Err(fail(format!(
            "the member {name} with more than {most} bytes, unpacked; larger ones are not read"
        )));
    }
    Ok(unpacked)
}

/// The names of a zip file's members.
pub(crate) fn members(body: &[u8]) -> Vec<String> {
    let Ok(mut archive) = ZipArchive::new(Cursor::new(body)) else {
        return Vec::new();
    };
    let names = (0..archive.len()).filter_map(|i| {
        let member = archive.by_index_raw(i).ok()?;
        member.is_file().then(|| name_of(member.name_raw()))
    });
    names.collect()
}

/// Old programs write names in GBK.
fn name_of(raw: &[u8]) -> String {
    match std::str::from_utf8(raw) {
        Ok(name) => name.to_owned(),
        Err(_) => encoding_rs::GB18030.decode(raw).0.into_owned(),
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    let parts: Vec<String> = pattern.split('*').map(regex::escape).collect();
    let pattern = format!("^{}$", parts.join(".*"));
    regex::Regex::new(&pattern).is_ok_and(|p| p.is_match(name))
}
