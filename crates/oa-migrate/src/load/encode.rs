//! SQLite's values in PostgreSQL's binary COPY format (PostgreSQL documentation, COPY, "Binary Format").
//!
//! A value is either written exactly or refused with a reason; nothing is rounded, cut or replaced.

use chrono::{LocalResult, NaiveDate, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use rusqlite::types::ValueRef;

use crate::inspect::scan::parse_bool;
use crate::plan::{PgType, PlannedColumn};
use crate::values::conversion::{Conversion, cut_fraction};
use crate::values::decimal::{Decimal, infinity_binary};
use crate::values::{LARGE, decimal_text, float_text, json, time};

/// Why a value cannot be stored in its column's type.
pub(crate) type Refusal = &'static str;

/// The type of a column, with what else the conversion needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Codec {
    pub(crate) pg: PgType,
    pub(crate) not_null: bool,
    /// The zone of timestamps without an offset, for `timestamptz`.
    pub(crate) zone: Option<Tz>,
    /// What the values are, as the mapping says.
    pub(crate) conversion: Option<Conversion>,
}

pub(crate) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
pub(crate) const TRAILER: [u8; 2] = (-1i16).to_be_bytes();

impl Codec {
    /// How a planned column's values are written.
    pub(crate) fn of(column: &PlannedColumn) -> Self {
        Self {
            pg: column.pg,
            not_null: column.not_null,
            zone: column.zone,
            conversion: column.conversion,
        }
    }

    /// The bytes of a large value that is sent as it is, so that it is sent from where it is; refused as by [`Codec::encode`].
    #[inline]
    pub(crate) fn as_it_is<'a>(&self, value: ValueRef<'a>) -> Option<Result<&'a [u8], Refusal>> {
        let (ValueRef::Text(bytes) | ValueRef::Blob(bytes)) = value else {
            return None;
        };
        if bytes.len() < LARGE || self.conversion.is_some() {
            return None;
        }
        match (self.pg, value) {
            (PgType::Text | PgType::Other(_), ValueRef::Text(text)) => {
                Some(check_text(text).and_then(|_| length(text.len()).map(|_| text)))
            }
            (PgType::Bytea, _) => Some(length(bytes.len()).map(|_| bytes)),
            _ => None,
        }
    }

    /// Appends length and bytes of a value. On refusal, what was appended is to be thrown away.
    #[inline]
    pub(crate) fn encode(&self, value: ValueRef<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
        if let Some(conversion) = self.conversion
            && value != ValueRef::Null
        {
            return self.converted(conversion, value, out);
        }
        match (self.pg, value) {
            (_, ValueRef::Null) => {
                if self.not_null {
                    return Err("NULL where the column is NOT NULL");
                }
                out.extend_from_slice(&(-1i32).to_be_bytes());
                Ok(())
            }
            (PgType::Int4, ValueRef::Integer(n)) => match i32::try_from(n) {
                Ok(n) => fixed(out, n.to_be_bytes()),
                Err(_) => Err("integer beyond 32 bits"),
            },
            (PgType::Int8, ValueRef::Integer(n)) => fixed(out, n.to_be_bytes()),
            (PgType::Int2, ValueRef::Integer(n)) => match i16::try_from(n) {
                Ok(n) => fixed(out, n.to_be_bytes()),
                Err(_) => Err("integer beyond 16 bits"),
            },
            (PgType::Float8, ValueRef::Real(x)) => fixed(out, x.to_bits().to_be_bytes()),
            (PgType::Float8, ValueRef::Integer(n)) if n.unsigned_abs() <= 1 << 53 => {
                fixed(out, (n as f64).to_bits().to_be_bytes())
            }
            (PgType::Float8, ValueRef::Integer(_)) => Err("integer that a double cannot hold"),
            (PgType::Text, ValueRef::Text(text)) => {
                check_text(text)?;
                variable(out, text)
            }
            (PgType::Varchar(n), ValueRef::Text(text)) => {
                let valid = check_text(text)?;
                if text.len() > n as usize && valid.chars().count() > n as usize {
                    return Err("text longer than the column");
                }
                variable(out, text)
            }
            (PgType::Text | PgType::Varchar(_), ValueRef::Integer(n)) => {
                self.encode(ValueRef::Text(n.to_string().as_bytes()), out)
            }
            (PgType::Text | PgType::Varchar(_), ValueRef::Real(x)) => {
                self.encode(ValueRef::Text(float_text(x).as_bytes()), out)
            }
            (PgType::Text | PgType::Varchar(_), ValueRef::Blob(_)) => Err("blob in a text column"),
            (PgType::Bytea, ValueRef::Blob(bytes) | ValueRef::Text(bytes)) => variable(out, bytes),
            (PgType::Bytea, ValueRef::Integer(n)) => variable(out, n.to_string().as_bytes()),
            (PgType::Bytea, ValueRef::Real(x)) => variable(out, float_text(x).as_bytes()),
            (PgType::Numeric(limits), value) => numeric(value, limits, out),
            (PgType::Bool, value) => {
                let truth = match value {
                    ValueRef::Integer(0) => Some(false),
                    ValueRef::Integer(1) => Some(true),
                    ValueRef::Text(text) => parse_bool(text),
                    _ => None,
                };
                fixed(out, [u8::from(truth.ok_or("not a boolean")?)])
            }
            (PgType::Date, ValueRef::Text(text)) => {
                let days = time::parse_date(text).ok_or("not a date YYYY-MM-DD")?;
                fixed(out, days.to_be_bytes())
            }
            (PgType::Time, ValueRef::Text(text)) => {
                let micros = time::parse_time(text).ok_or("not a time HH:MM:SS")?;
                fixed(out, micros.to_be_bytes())
            }
            (PgType::Timestamp(digits), ValueRef::Text(text)) => {
                let stamp = time::parse_timestamp(text)
                    .filter(|s| s.offset_seconds.is_none())
                    .ok_or("not a timestamp YYYY-MM-DD HH:MM:SS without an offset")?;
                fixed(out, within_digits(stamp.micros, digits)?.to_be_bytes())
            }
            (PgType::Timestamptz(digits), ValueRef::Text(text)) => {
                let micros = instant(text, self.zone)?;
                fixed(out, within_digits(micros, digits)?.to_be_bytes())
            }
            (PgType::Other(_), ValueRef::Text(text)) => {
                check_text(text)?;
                variable(out, text)
            }
            (PgType::Json | PgType::Jsonb, value) => self.json(value, out),
            (PgType::Int2 | PgType::Int4 | PgType::Int8, ValueRef::Real(_)) => {
                Err("fraction in an integer column")
            }
            (PgType::Int2 | PgType::Int4 | PgType::Int8, _) => Err("not an integer"),
            (PgType::Float8, _) => Err("not a number"),
            (PgType::Date, _) => Err("not a date YYYY-MM-DD"),
            (PgType::Time, _) => Err("not a time HH:MM:SS"),
            (PgType::Timestamp(_) | PgType::Timestamptz(_), _) => Err("not a timestamp"),
            (PgType::Other(_) | PgType::Interval, _) => Err("value that PostgreSQL does not take"),
        }
    }
}

impl Codec {
    fn json(&self, value: ValueRef<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let written;
        let text = match value {
            ValueRef::Text(text) => text,
            // A column of numeric affinity turns a JSON number into one of SQLite's own.
            ValueRef::Integer(n) => {
                written = n.to_string();
                written.as_bytes()
            }
            ValueRef::Real(x) => {
                written = float_text(x);
                written.as_bytes()
            }
            _ => return Err("not JSON"),
        };
        check_text(text)?;
        let parsed = json::parse(text).ok_or("not JSON")?;
        if self.pg == PgType::Json {
            return variable(out, text);
        }
        if !parsed.fits_jsonb {
            return Err("JSON that jsonb cannot hold");
        }
        out.extend_from_slice(&length(text.len() + 1)?);
        out.push(1);
        out.extend_from_slice(text);
        Ok(())
    }

    fn converted(
        &self,
        conversion: Conversion,
        value: ValueRef<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        match (self.pg, value) {
            (PgType::Timestamp(digits) | PgType::Timestamptz(digits), _)
                if conversion.is_of_numbers() =>
            {
                let micros = conversion.micros(value).ok_or(
                    "not a point in time in the unit that the mapping names, to the microsecond",
                )?;
                fixed(out, within_digits(micros, digits)?.to_be_bytes())
            }
            (PgType::Interval, _) => {
                let micros = conversion.micros(value).ok_or(
                    "not a length of time in the unit that the mapping names, to the microsecond",
                )?;
                // Microseconds, days and months.
                let mut interval = [0; 16];
                interval[..8].copy_from_slice(&micros.to_be_bytes());
                fixed(out, interval)
            }
            (_, ValueRef::Text(text)) => {
                let plain = Self {
                    conversion: None,
                    ..*self
                };
                plain.encode(ValueRef::Text(&cut_fraction(text)), out)
            }
            _ => Err("not a timestamp"),
        }
    }
}

fn length(bytes: usize) -> Result<[u8; 4], Refusal> {
    // PostgreSQL's limit for one value is 1 GB.
    i32::try_from(bytes)
        .ok()
        .filter(|n| *n < (1 << 30) - 1024)
        .map(i32::to_be_bytes)
        .ok_or("value of more than 1 GB")
}

fn variable(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Refusal> {
    out.extend_from_slice(&length(bytes.len())?);
    out.extend_from_slice(bytes);
    Ok(())
}

fn fixed<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) -> Result<(), Refusal> {
    out.extend_from_slice(&(N as i32).to_be_bytes());
    out.extend_from_slice(&bytes);
    Ok(())
}

fn check_text(text: &[u8]) -> Result<&str, Refusal> {
    if text.contains(&0) {
        return Err("U+0000 in a text");
    }
    std::str::from_utf8(text).map_err(|_| "text that is not UTF-8")
}

fn numeric(
    value: ValueRef<'_>,
    limits: Option<(u16, u16)>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let parsed = match value {
        ValueRef::Integer(n) => Decimal::parse(n.to_string().as_bytes()),
        ValueRef::Real(x) if x.is_infinite() && limits.is_none() => {
            return variable(out, &infinity_binary(x < 0.0));
        }
        ValueRef::Real(x) => Decimal::parse(decimal_text(x).as_bytes()),
        ValueRef::Text(text) => Decimal::parse(text),
        _ => None,
    };
    let decimal = parsed.ok_or("not a decimal number")?;
    if limits.is_some_and(|(p, s)| {
        decimal.scale() > usize::from(s) || decimal.whole_digits() > usize::from(p - s)
    }) {
        return Err("number with more digits than the column");
    }
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    decimal.write_binary(out);
    let size = length(out.len() - start - 4)?;
    out[start..start + 4].copy_from_slice(&size);
    Ok(())
}

/// Refuses microseconds that a type with so many digits of the second would round.
fn within_digits(micros: i64, digits: u8) -> Result<i64, Refusal> {
    let step = 10i64.pow(6u32.saturating_sub(u32::from(digits)));
    if micros % step == 0 {
        Ok(micros)
    } else {
        Err("time with more digits of the second than the column")
    }
}

/// Microseconds since 2000-01-01 UTC.
fn instant(text: &[u8], zone: Option<Tz>) -> Result<i64, Refusal> {
    let stamp = time::parse_timestamp(text).ok_or("not a timestamp")?;
    match (stamp.offset_seconds, zone) {
        (Some(offset), _) => Ok(stamp.micros - i64::from(offset) * 1_000_000),
        (None, None) => Err("timestamp without an offset; --timestamps-in names its zone"),
        (None, Some(zone)) => {
            let epoch = NaiveDate::from_ymd_opt(2000, 1, 1)
                .and_then(|d| d.and_hms_opt(0, 0, 0))
                .ok_or("not a timestamp")?;
            let local = epoch + TimeDelta::microseconds(stamp.micros);
            match zone.from_local_datetime(&local) {
                LocalResult::Single(at) => (at.with_timezone(&Utc).naive_utc() - epoch)
                    .num_microseconds()
                    .ok_or("not a timestamp"),
                LocalResult::Ambiguous(..) => Err("time that the zone's clocks show twice"),
                LocalResult::None => Err("time that the zone's clocks never show"),
            }
        }
    }
}
