//! How an application writes the values of a column, learned from those that are there, so that what comes back from PostgreSQL
//! is written the same way: times as texts, booleans as words, UUIDs with or without hyphens.

use chrono::{NaiveDateTime, TimeDelta};
use rusqlite::types::Value;

use crate::plan::PgType;
use crate::proof::Column;
use crate::values::conversion::Conversion;
use crate::values::time::parse_timestamp;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Spelling {
    Time(TimeSpelling),
    /// The words for false and true.
    Words(String, String),
    Uuid {
        blob: bool,
        hyphens: bool,
        upper: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TimeSpelling {
    /// Between date and time; none: a bare date.
    separator: Option<char>,
    seconds: bool,
    /// Digits of the second, at least.
    digits: usize,
    /// The offset as written, blanks before it included, and its seconds.
    offset: Option<(String, i32)>,
}

impl TimeSpelling {
    /// As SQLAlchemy's SQLite types write times (six digits of the second, always), which other readers of ISO 8601 take too.
    fn usual(column: &Column) -> Self {
        let zoned = matches!(column.pg, PgType::Timestamptz(_)) && column.zone.is_none();
        Self {
            separator: Some(' '),
            seconds: true,
            digits: 6,
            offset: zoned.then(|| ("+00:00".to_owned(), 0)),
        }
    }

    fn of(pg: PgType, text: &str) -> Option<Self> {
        let (separator, time) = if pg == PgType::Time {
            (Some(' '), text)
        } else {
            parse_timestamp(text.as_bytes())?;
            match text.get(10..).and_then(|rest| rest.chars().next()) {
                None => (None, ""),
                Some(separator) => (Some(separator), text.get(11..)?),
            }
        };
        let end = time
            .find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.'))
            .unwrap_or(time.len());
        let (clock, offset) = time.split_at(end);
        let offset = if offset.is_empty() {
            None
        } else {
            let seconds = parse_timestamp(text.as_bytes())?.offset_seconds?;
            Some((offset.to_owned(), seconds))
        };
        let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
        Some(Self {
            separator,
            seconds: separator.is_none() || whole.len() > 5,
            digits: fraction.len().min(6),
            offset,
        })
    }

    /// Writes a time that is given as the proof writes it: `YYYY-MM-DD HH:MM:SS[.f]`, in UTC where the column holds instants.
    fn write(&self, column: &Column, normal: &str) -> Option<String> {
        let zoned = matches!(column.pg, PgType::Timestamptz(_)) && column.zone.is_none();
        let usual;
        let offset = match &self.offset {
            Some(offset) if zoned => Some(offset),
            None if zoned => {
                usual = ("+00:00".to_owned(), 0);
                Some(&usual)
            }
            _ => None,
        };
        let shifted;
        let mut local = normal;
        if let Some((_, seconds)) = offset.filter(|(_, seconds)| *seconds != 0) {
            let at = NaiveDateTime::parse_from_str(normal, "%Y-%m-%d %H:%M:%S%.f").ok()?;
            let at = at.checked_add_signed(TimeDelta::seconds(i64::from(*seconds)))?;
            shifted = at.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
            local = shifted.trim_end_matches('0').trim_end_matches('.');
            // A whole second loses no zero of its own.
            if !shifted.contains('.') || local.len() < 19 {
                local = shifted.get(..19)?;
            }
        }
        let (date, clock) = match local.split_once(' ') {
            Some((date, clock)) => (Some(date), clock),
            None => (None, local),
        };
        let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
        let mut out = String::new();
        if let Some(date) = date {
            out.push_str(date);
            if self.separator.is_none() && whole == "00:00:00" && fraction.is_empty() {
                return Some(out);
            }
            out.push(self.separator.unwrap_or(' '));
        }
        match whole.strip_suffix(":00") {
            Some(short) if !self.seconds && fraction.is_empty() => out.push_str(short),
            _ => {
                out.push_str(whole);
                let digits = self.digits.max(fraction.len());
                if digits > 0 {
                    out.push('.');
                    out.push_str(&format!("{fraction:0<digits$}"));
                }
            }
        }
        if let Some((text, _)) = offset {
            out.push_str(text);
        }
        Some(out)
    }
}

/// Whether values of a column can be written in several ways.
pub(crate) fn varies(column: &Column) -> bool {
    match column.pg {
        PgType::Time | PgType::Timestamp(_) | PgType::Timestamptz(_) | PgType::Bool => true,
        PgType::Other(name) => name.as_str() == "uuid",
        _ => false,
    }
}

const WORDS: [(&str, &str); 4] = [("false", "true"), ("f", "t"), ("no", "yes"), ("off", "on")];

impl Spelling {
    /// The spelling of a value; none where there is only one.
    pub(crate) fn of(column: &Column, value: &Value) -> Option<Self> {
        match (column.pg, value) {
            _ if column.conversion.is_some_and(Conversion::is_of_numbers) => None,
            (PgType::Time | PgType::Timestamp(_) | PgType::Timestamptz(_), Value::Text(text)) => {
                TimeSpelling::of(column.pg, text).map(Self::Time)
            }
            (PgType::Bool, Value::Text(text)) => {
                let lower = text.to_ascii_lowercase();
                let (no, yes) = WORDS.iter().find(|(n, y)| *n == lower || *y == lower)?;
                let like = |word: &str| {
                    let mut letters = text.chars();
                    let first = letters.next().is_some_and(char::is_uppercase);
                    if first && letters.next().is_none_or(char::is_uppercase) {
                        word.to_ascii_uppercase()
                    } else if first {
                        word[..1].to_ascii_uppercase() + &word[1..]
                    } else {
                        word.to_owned()
                    }
                };
                Some(Self::Words(like(no), like(yes)))
            }
            (PgType::Other(name), value) if name.as_str() == "uuid" => match value {
                Value::Text(text) => Some(Self::Uuid {
                    blob: false,
                    hyphens: text.contains('-'),
                    upper: text.chars().any(char::is_uppercase),
                }),
                Value::Blob(_) => Some(Self::Uuid {
                    blob: true,
                    hyphens: false,
                    upper: false,
                }),
                _ => None,
            },
            _ => None,
        }
    }

    /// A value as it is stored where nothing shows how the application writes it.
    pub(crate) fn usual(column: &Column, value: Value) -> Value {
        let is_time = matches!(
            column.pg,
            PgType::Time | PgType::Timestamp(_) | PgType::Timestamptz(_)
        );
        match value {
            Value::Text(text) if column.conversion.is_some_and(Conversion::is_of_numbers) => {
                number(text)
            }
            Value::Text(text) if is_time && text.starts_with(|c: char| c.is_ascii_digit()) => {
                let written = TimeSpelling::usual(column).write(column, &text);
                Value::Text(written.unwrap_or(text))
            }
            // SQLite keeps no such number.
            Value::Real(x) if x.is_nan() => Value::Text("NaN".to_owned()),
            other => other,
        }
    }

    /// A value of PostgreSQL's side in this spelling.
    pub(crate) fn write(&self, column: &Column, value: Value) -> Value {
        match (self, value) {
            (Self::Time(spelling), Value::Text(text))
                if text.starts_with(|c: char| c.is_ascii_digit()) =>
            {
                let written = spelling.write(column, &text);
                written.map_or_else(|| Self::usual(column, Value::Text(text)), Value::Text)
            }
            (Self::Words(no, yes), Value::Integer(n)) => {
                Value::Text(if n == 0 { no } else { yes }.clone())
            }
            (
                Self::Uuid {
                    blob,
                    hyphens,
                    upper,
                },
                Value::Text(mut text),
            ) => {
                if !hyphens || *blob {
                    text.retain(|c| c != '-');
                }
                if *blob {
                    let bytes: Option<Vec<u8>> = (0..text.len() / 2)
                        .map(|i| u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok())
                        .collect();
                    return bytes.map_or(Value::Text(text), Value::Blob);
                }
                Value::Text(if *upper {
                    text.to_ascii_uppercase()
                } else {
                    text
                })
            }
            (_, other) => Self::usual(column, other),
        }
    }
}

fn number(text: String) -> Value {
    match (text.parse::<i64>(), text.parse::<f64>()) {
        (Ok(n), _) => Value::Integer(n),
        (_, Ok(x)) => Value::Real(x),
        _ => Value::Text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(pg: PgType) -> Column {
        Column {
            source: "c".to_owned(),
            target: "c".to_owned(),
            pg,
            zone: None,
            conversion: None,
            is_key: false,
        }
    }

    fn again(pg: PgType, like: &str, value: &str) -> String {
        let column = column(pg);
        let spelling = Spelling::of(&column, &Value::Text(like.to_owned()));
        let value = Value::Text(value.to_owned());
        match spelling.map(|s| s.write(&column, value)) {
            Some(Value::Text(text)) => text,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn times_are_written_as_the_application_writes_them() {
        let naive = PgType::Timestamp(6);
        let zoned = PgType::Timestamptz(6);
        for (pg, like, value, expected) in [
            (
                naive,
                "2024-01-02T10:00:00.500",
                "2025-01-02 03:04:05",
                "2025-01-02T03:04:05.000",
            ),
            (
                naive,
                "2024-01-02T10:00:00.500",
                "2025-01-02 03:04:05.123456",
                "2025-01-02T03:04:05.123456",
            ),
            (naive, "2024-01-02", "2025-01-02 00:00:00", "2025-01-02"),
            (
                naive,
                "2024-01-02",
                "2025-01-02 10:00:00",
                "2025-01-02 10:00:00",
            ),
            (
                naive,
                "2024-01-02 10:00",
                "2025-01-02 11:30:00",
                "2025-01-02 11:30",
            ),
            (
                naive,
                "2024-01-02 10:00",
                "2025-01-02 11:30:01",
                "2025-01-02 11:30:01",
            ),
            (naive, "2024-01-02", "infinity", "infinity"),
            (
                zoned,
                "2024-01-02T10:00:00.500Z",
                "2025-01-02 03:04:05",
                "2025-01-02T03:04:05.000Z",
            ),
            (
                zoned,
                "2024-01-02 10:00:00+08:00",
                "2025-01-02 23:04:10",
                "2025-01-03 07:04:10+08:00",
            ),
            (
                zoned,
                "2024-01-02 10:00:00 +0800",
                "2025-01-02 23:04:10.5",
                "2025-01-03 07:04:10.5 +0800",
            ),
            (PgType::Time, "10:00", "11:30:00", "11:30"),
            (
                PgType::Time,
                "10:00:00.000000",
                "11:30:00",
                "11:30:00.000000",
            ),
        ] {
            assert_eq!(again(pg, like, value), expected, "{like}");
        }
    }

    #[test]
    fn words_and_uuids_too() {
        let truth = column(PgType::Bool);
        let yes = Spelling::of(&truth, &Value::Text("No".to_owned()));
        assert_eq!(
            yes.map(|s| s.write(&truth, Value::Integer(1))),
            Some(Value::Text("Yes".to_owned()))
        );
        let uuid = PgType::of_catalogue("uuid");
        assert_eq!(
            again(
                uuid,
                "0123456789ABCDEF0123456789ABCDEF",
                "11111111-2222-3333-4444-55555555555a"
            ),
            "1111111122223333444455555555555A"
        );
    }
}
