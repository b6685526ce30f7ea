//! The normal form of a value, from both sides.
//!
//! `tag, length (32 bits), bytes`. The tag distinguishes NULL, number, text …, so that 1, '1' and 1.0 differ unless the column's
//! type makes them the same on purpose (a DATETIME's text and PostgreSQL's timestamp).

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use rusqlite::types::{Value, ValueRef};

use super::Column;
use super::digest::RowParts;
use crate::inspect::scan::parse_bool;
use crate::plan::PgType;
use crate::values::conversion::{Conversion, cut_fraction};
use crate::values::decimal::{Decimal, write_normal_of_binary};
use crate::values::{LARGE, decimal_text, float_text, json, time};

const NULL: u8 = 0;
const INTEGER: u8 = 1;
const FLOAT: u8 = 2;
const TEXT: u8 = 3;
const NUMERIC: u8 = 4;
const BOOL: u8 = 5;
const TIME: u8 = 6;
const JSON: u8 = 7;
const BYTES: u8 = 8;
/// A value that the column's type cannot hold; never equal to anything of the other side.
const FOREIGN: u8 = 255;

/// PostgreSQL sent something that is not a value of the column's type.
#[derive(Debug, thiserror::Error)]
#[error("PostgreSQL sent {length} bytes that are not a {pg}")]
pub(crate) struct NotAValue {
    length: usize,
    pg: PgType,
}

#[inline]
fn put(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Appends what `write` writes, with its tag and length.
#[inline]
fn put_with(out: &mut Vec<u8>, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Tag and bytes of a value of SQLite's side of which the normal form is its own bytes.
#[inline]
fn as_it_is<'a>(column: &Column, value: ValueRef<'a>) -> Option<(u8, &'a [u8])> {
    if column.conversion.is_some() {
        return None;
    }
    match (column.pg, value) {
        (PgType::Text | PgType::Varchar(_) | PgType::Other(_), ValueRef::Text(text)) => {
            Some((TEXT, text))
        }
        (PgType::Bytea, ValueRef::Blob(bytes) | ValueRef::Text(bytes)) => Some((BYTES, bytes)),
        (PgType::Json, ValueRef::Text(text)) => Some((JSON, text)),
        _ => None,
    }
}

/// The tag of a value of PostgreSQL's side of which the normal form is its own bytes.
#[inline]
fn tag_of_bytes(pg: PgType) -> Option<u8> {
    match pg {
        PgType::Text | PgType::Varchar(_) | PgType::Other(_) => Some(TEXT),
        PgType::Bytea => Some(BYTES),
        PgType::Json => Some(JSON),
        _ => None,
    }
}

/// Adds a value of SQLite's side to its row.
#[inline]
pub(crate) fn add_of_source(
    column: &Column,
    position: usize,
    value: ValueRef<'_>,
    row: &mut RowParts,
) {
    match as_it_is(column, value) {
        Some((tag, bytes)) if bytes.len() >= LARGE => row.add_large(position, tag, bytes),
        Some((tag, bytes)) => put(row.bytes(), tag, bytes),
        None => of_source(column, value, row.bytes()),
    }
}

/// Adds a value of PostgreSQL's side to its row.
#[inline]
pub(crate) fn add_of_target(
    column: &Column,
    position: usize,
    value: Option<&[u8]>,
    row: &mut RowParts,
) -> Result<(), NotAValue> {
    match (tag_of_bytes(column.pg), value) {
        (Some(tag), Some(bytes)) if bytes.len() >= LARGE => {
            row.add_large(position, tag, bytes);
            Ok(())
        }
        _ => of_target(column, value, row.bytes()),
    }
}

/// Appends the normal form of what SQLite holds.
#[inline]
pub(crate) fn of_source(column: &Column, value: ValueRef<'_>, out: &mut Vec<u8>) {
    match column.conversion {
        Some(c) if c.is_of_numbers() && value != ValueRef::Null => return numeric(value, out),
        Some(Conversion::SinceEpoch) => {
            return match value {
                ValueRef::Null => out.push(NULL),
                ValueRef::Text(text) => put_with(out, TIME, |o| time::normal_timestamp(text, o)),
                other => foreign(other, out),
            };
        }
        Some(_) => {
            let plain = Column {
                conversion: None,
                ..column.clone()
            };
            return match value {
                ValueRef::Text(text) => of_source(&plain, ValueRef::Text(&cut_fraction(text)), out),
                _ => of_source(&plain, value, out),
            };
        }
        None => {}
    }
    if let Some((tag, bytes)) = as_it_is(column, value) {
        return put(out, tag, bytes);
    }
    match (column.pg, value) {
        (_, ValueRef::Null) => out.push(NULL),
        (PgType::Int2 | PgType::Int4 | PgType::Int8, ValueRef::Integer(n)) => {
            put(out, INTEGER, &n.to_le_bytes());
        }
        (PgType::Float8, ValueRef::Real(x)) => put(out, FLOAT, &x.to_bits().to_le_bytes()),
        // What comes back from PostgreSQL and SQLite has no number for.
        (PgType::Float8, ValueRef::Text(b"NaN")) => {
            put(out, FLOAT, &f64::NAN.to_bits().to_le_bytes());
        }
        (PgType::Numeric(_), ValueRef::Text(b"NaN")) => put(out, NUMERIC, b"NaN"),
        (PgType::Float8, ValueRef::Integer(n)) if (n as f64) as i128 == i128::from(n) => {
            put(out, FLOAT, &(n as f64).to_bits().to_le_bytes());
        }
        (PgType::Text | PgType::Varchar(_), ValueRef::Integer(n)) => {
            put(out, TEXT, n.to_string().as_bytes());
        }
        (PgType::Text | PgType::Varchar(_), ValueRef::Real(x)) => {
            put(out, TEXT, float_text(x).as_bytes());
        }
        (PgType::Bytea, ValueRef::Integer(n)) => put(out, BYTES, n.to_string().as_bytes()),
        (PgType::Bytea, ValueRef::Real(x)) => put(out, BYTES, float_text(x).as_bytes()),
        (PgType::Numeric(_), value) => numeric(value, out),
        (PgType::Bool, ValueRef::Integer(n @ 0..=1)) => put(out, BOOL, &[n as u8]),
        (PgType::Bool, ValueRef::Text(text)) => match parse_bool(text) {
            Some(truth) => put(out, BOOL, &[u8::from(truth)]),
            None => foreign(value, out),
        },
        (PgType::Date, ValueRef::Text(text)) => put(out, TIME, text),
        (PgType::Time, ValueRef::Text(text)) => put_with(out, TIME, |o| time::normal_time(text, o)),
        (PgType::Timestamp(_), ValueRef::Text(text)) => {
            put_with(out, TIME, |o| time::normal_timestamp(text, o));
        }
        (PgType::Timestamptz(_), ValueRef::Text(text)) => match (zoned(text), column.zone) {
            (Some(at), Some(zone)) => put_local(at.with_timezone(&zone).naive_local(), out),
            (Some(at), None) => put_local(at.naive_utc(), out),
            (None, _) => put_with(out, TIME, |o| time::normal_timestamp(text, o)),
        },
        (PgType::Json | PgType::Jsonb, ValueRef::Integer(n)) => {
            of_source(column, ValueRef::Text(n.to_string().as_bytes()), out);
        }
        (PgType::Json | PgType::Jsonb, ValueRef::Real(x)) => {
            of_source(column, ValueRef::Text(float_text(x).as_bytes()), out);
        }
        (PgType::Jsonb, ValueRef::Text(text)) => match json::parse(text) {
            Some(parsed) => put(out, JSON, &parsed.normal),
            None => foreign(value, out),
        },
        (_, value) => foreign(value, out),
    }
}

fn foreign(value: ValueRef<'_>, out: &mut Vec<u8>) {
    match value {
        ValueRef::Null => put(out, FOREIGN, b"null"),
        ValueRef::Integer(n) => put(out, FOREIGN, &n.to_le_bytes()),
        ValueRef::Real(x) => put(out, FOREIGN, &x.to_bits().to_le_bytes()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => put(out, FOREIGN, bytes),
    }
}

fn numeric(value: ValueRef<'_>, out: &mut Vec<u8>) {
    let text = match value {
        ValueRef::Integer(n) => n.to_string(),
        ValueRef::Real(x) if x.is_infinite() => {
            return put(out, NUMERIC, float_text(x).as_bytes());
        }
        ValueRef::Real(x) => decimal_text(x),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        _ => return foreign(value, out),
    };
    match Decimal::parse(text.as_bytes()) {
        Some(decimal) => put_with(out, NUMERIC, |o| decimal.write_normal(o)),
        None => foreign(value, out),
    }
}

/// A text with an offset, read by chrono and not by the loader's reader.
fn zoned(text: &[u8]) -> Option<DateTime<FixedOffset>> {
    let text = std::str::from_utf8(text).ok()?.replacen('T', " ", 1);
    let text = match text.strip_suffix(['Z', 'z']) {
        Some(rest) => format!("{rest}+00:00"),
        None => text,
    };
    // An offset is what follows a sign after the date.
    let sign = text.get(10..)?.rfind(['+', '-'])? + 10;
    let mut offset = text[sign..].to_owned();
    if offset.len() == 3 {
        offset.push_str(":00");
    }
    let local = text[..sign].trim_end();
    let formats = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"];
    let naive = formats
        .iter()
        .find_map(|f| NaiveDateTime::parse_from_str(local, f).ok())?;
    let offset: FixedOffset = offset.parse().ok()?;
    offset.from_local_datetime(&naive).single()
}

fn put_local(at: NaiveDateTime, out: &mut Vec<u8>) {
    let text = at.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
    put_with(out, TIME, |o| time::normal_timestamp(text.as_bytes(), o));
}

/// Appends the normal form of what PostgreSQL sent in binary; `None` is NULL.
#[inline]
pub(crate) fn of_target(
    column: &Column,
    value: Option<&[u8]>,
    out: &mut Vec<u8>,
) -> Result<(), NotAValue> {
    let Some(bytes) = value else {
        out.push(NULL);
        return Ok(());
    };
    let wrong = || NotAValue {
        length: bytes.len(),
        pg: column.pg,
    };
    match column.pg {
        PgType::Int2 => {
            let n = i16::from_be_bytes(bytes.try_into().map_err(|_| wrong())?);
            put(out, INTEGER, &i64::from(n).to_le_bytes());
        }
        PgType::Int4 => {
            let n = i32::from_be_bytes(bytes.try_into().map_err(|_| wrong())?);
            put(out, INTEGER, &i64::from(n).to_le_bytes());
        }
        PgType::Int8 => {
            let n = i64::from_be_bytes(bytes.try_into().map_err(|_| wrong())?);
            put(out, INTEGER, &n.to_le_bytes());
        }
        PgType::Float8 => {
            let bits = u64::from_be_bytes(bytes.try_into().map_err(|_| wrong())?);
            let bits = if f64::from_bits(bits).is_nan() {
                f64::NAN.to_bits()
            } else {
                bits
            };
            put(out, FLOAT, &bits.to_le_bytes());
        }
        PgType::Bool => put(out, BOOL, bytes),
        PgType::Numeric(_) => {
            let mut good = false;
            put_with(out, NUMERIC, |o| good = write_normal_of_binary(bytes, o));
            if !good {
                return Err(wrong());
            }
        }
        PgType::Date => {
            let days = i32::from_be_bytes(bytes.try_into().map_err(|_| wrong())?);
            match days {
                i32::MAX => put(out, TIME, b"infinity"),
                i32::MIN => put(out, TIME, b"-infinity"),
                _ => put_with(out, TIME, |o| time::write_date(days, o)),
            }
        }
        PgType::Time => {
            let micros = i64::from_be_bytes(bytes.try_into().map_err(|_| wrong())?);
            put_with(out, TIME, |o| time::write_time(micros, o));
        }
        PgType::Interval => interval(column, bytes, out).ok_or_else(wrong)?,
        PgType::Timestamp(_) | PgType::Timestamptz(_) => {
            let micros = i64::from_be_bytes(bytes.try_into().map_err(|_| wrong())?);
            timestamp(column, micros, out).ok_or_else(wrong)?;
        }
        PgType::Jsonb => {
            let text = bytes.strip_prefix(&[1]).ok_or_else(wrong)?;
            put(out, JSON, &json::parse(text).ok_or_else(wrong)?.normal);
        }
        PgType::Text | PgType::Varchar(_) | PgType::Other(_) | PgType::Bytea | PgType::Json => {
            put(out, tag_of_bytes(column.pg).ok_or_else(wrong)?, bytes);
        }
    }
    Ok(())
}

/// A length of time as the number that it was.
fn interval(column: &Column, bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let micros = i64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
    let days = i32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?);
    let months = bytes.get(12..16)?;
    let whole = micros.checked_add(i64::from(days) * 86_400_000_000);
    let mut number = Vec::new();
    if column.conversion == Some(Conversion::SinceEpoch) {
        match whole.filter(|_| months == [0; 4]) {
            Some(micros) if Conversion::write_since_epoch(micros, &mut number) => {
                put(out, TIME, &number);
            }
            _ => put(out, FOREIGN, bytes),
        }
        return Some(());
    }
    let decimal = column
        .conversion
        .zip(whole)
        .filter(|(c, micros)| months == [0; 4] && c.write_back(*micros, &mut number))
        .and_then(|_| Decimal::parse(&number));
    match decimal {
        Some(decimal) => put_with(out, NUMERIC, |o| decimal.write_normal(o)),
        // A month has no length.
        None => put(out, FOREIGN, bytes),
    }
    Some(())
}

/// A point in time as the text, or as the number that it was.
fn timestamp(column: &Column, micros: i64, out: &mut Vec<u8>) -> Option<()> {
    let numbers = column.conversion.filter(|c| c.is_of_numbers());
    match (micros, numbers, column.zone) {
        (i64::MAX, ..) => put(out, TIME, b"infinity"),
        (i64::MIN, ..) => put(out, TIME, b"-infinity"),
        (_, Some(conversion), _) => {
            let mut number = Vec::new();
            let decimal = conversion
                .write_back(micros, &mut number)
                .then(|| Decimal::parse(&number))
                .flatten();
            match decimal {
                Some(decimal) => put_with(out, NUMERIC, |o| decimal.write_normal(o)),
                // Finer than the unit: no number stands for it.
                None => put_with(out, TIME, |o| time::write_timestamp(micros, o)),
            }
        }
        (_, None, Some(zone)) => put_local(local(micros, zone)?, out),
        (_, None, None) => put_with(out, TIME, |o| time::write_timestamp(micros, o)),
    }
    Some(())
}

fn local(micros: i64, zone: Tz) -> Option<NaiveDateTime> {
    let epoch = NaiveDate::from_ymd_opt(2000, 1, 1)?.and_hms_opt(0, 0, 0)?;
    let at = Utc.from_utc_datetime(&epoch.checked_add_signed(TimeDelta::microseconds(micros))?);
    Some(at.with_timezone(&zone).naive_local())
}

/// The end of a value's normal form that begins at `start`.
#[inline]
pub(crate) fn end_of_value(row: &[u8], start: usize) -> usize {
    match row[start] {
        NULL => start + 1,
        _ => {
            let length = u32::from_le_bytes([
                row[start + 1],
                row[start + 2],
                row[start + 3],
                row[start + 4],
            ]);
            start + 5 + length as usize
        }
    }
}

/// The value that a normal form of PostgreSQL's side stands for, as SQLite stores it: booleans as 0 and 1, numbers of any
/// length and times as texts. None for bytes that are no normal form.
pub(crate) fn value_of(value: &[u8]) -> Option<Value> {
    let (tag, rest) = value.split_first()?;
    if *tag == NULL {
        return Some(Value::Null);
    }
    let bytes = rest.get(4..)?;
    Some(match *tag {
        INTEGER => Value::Integer(i64::from_le_bytes(bytes.try_into().ok()?)),
        FLOAT => Value::Real(f64::from_bits(u64::from_le_bytes(bytes.try_into().ok()?))),
        BOOL => Value::Integer(i64::from(bytes == [1])),
        BYTES => Value::Blob(bytes.to_vec()),
        _ => Value::Text(String::from_utf8(bytes.to_vec()).ok()?),
    })
}

/// A value's normal form for people: a key in a report.
pub(crate) fn show(value: &[u8]) -> String {
    let Some((tag, rest)) = value.split_first() else {
        return String::new();
    };
    let bytes = rest.get(4..).unwrap_or_default();
    match *tag {
        NULL => "NULL".to_owned(),
        INTEGER => bytes
            .try_into()
            .map_or_else(|_| "?".to_owned(), |b| i64::from_le_bytes(b).to_string()),
        FLOAT => bytes.try_into().map_or_else(
            |_| "?".to_owned(),
            |b| float_text(f64::from_bits(u64::from_le_bytes(b))),
        ),
        BOOL => (bytes == [1]).to_string(),
        BYTES => bytes.iter().take(32).map(|b| format!("{b:02x}")).collect(),
        _ => {
            let text = String::from_utf8_lossy(bytes);
            if text.chars().count() > 60 {
                format!("{}…", text.chars().take(60).collect::<String>())
            } else {
                text.into_owned()
            }
        }
    }
}
