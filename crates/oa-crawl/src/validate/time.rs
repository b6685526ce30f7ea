//! Local times.

use chrono::{DateTime, NaiveDateTime};
use oa_core::base::exact;
use oa_core::service;
use serde_json::Value;

use super::kind::name_of;
use crate::dates::{day, half_width, with_offset};
use crate::source::{Epoch, Field};

/// A local time. One with an offset is put into the service's zone: the columns have none.
pub(super) fn local(field: &Field, raw: &Value) -> Result<Value, String> {
    let text = match (exact::number(raw), raw) {
        (Some(digits), _) => digits.to_owned(),
        (None, Value::String(text)) => half_width(text).trim().to_owned(),
        (None, Value::Number(number)) => number.to_string(),
        (None, other) => return Err(format!("is {} where a time was due", name_of(other))),
    };
    if text.is_empty() {
        return if field.required {
            Err("is empty".to_owned())
        } else {
            Ok(Value::Null)
        };
    }
    let time = match field.epoch {
        Some(epoch) => of_epoch(epoch, &text)?,
        None => read(&text).ok_or_else(|| {
            format!(
                "is \"{text}\", which is not a time such as 2025-12-01 08:50{}",
                hint(&text)
            )
        })?,
    };
    let written = time.format("%Y-%m-%d %H:%M:%S%.f").to_string();
    Ok(Value::String(written))
}

/// The local time of seconds or milliseconds since 1970. Only times of our days are believed: the other unit gives none.
pub(super) fn of_epoch(epoch: Epoch, text: &str) -> Result<NaiveDateTime, String> {
    let (per_second, unit) = match epoch {
        Epoch::Seconds => (1, 1_000_000_000),
        Epoch::Milliseconds => (1000, 1_000_000),
    };
    // A part of the unit may follow, as many programs write it.
    let (whole, part) = match text.split_once('.') {
        Some((whole, part)) if part.bytes().all(|b| b.is_ascii_digit()) => (whole, part),
        _ => (text, ""),
    };
    let part = format!("0.{part}0").parse::<f64>().unwrap_or_default();
    let time = exact::whole(whole).and_then(|n| {
        // Many nines would be rounded to a whole unit, which is none of this second.
        let part = ((part * unit as f64).round() as i64).min(unit - 1);
        let nanos = n.rem_euclid(per_second) * unit + part;
        DateTime::from_timestamp(n.div_euclid(per_second), u32::try_from(nanos).ok()?)
    });
    let time = time.map(|t| t.with_timezone(&service::TIMEZONE).naive_local());
    let years = 1990..2100;
    time.filter(|t| years.contains(&chrono::Datelike::year(t)))
        .ok_or_else(|| {
            let unit = match epoch {
                Epoch::Seconds => "seconds",
                Epoch::Milliseconds => "milliseconds",
            };
            format!(
                "is \"{text}\", which as {unit} since 1970 (epoch) is no time from 1990 to 2099"
            )
        })
}

/// What a number may be.
pub(super) fn hint(text: &str) -> &'static str {
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    match text.len() {
        10 if is_number => "; if it is seconds since 1970, say epoch = \"s\"",
        13 if is_number => "; if it is milliseconds since 1970, say epoch = \"ms\"",
        _ => "",
    }
}

fn read(text: &str) -> Option<NaiveDateTime> {
    if let Some(time) = with_offset(text) {
        return Some(time.with_timezone(&service::TIMEZONE).naive_local());
    }
    // chrono would read fewer digits as an earlier year.
    let compact = text.len() == 14 && text.bytes().all(|b| b.is_ascii_digit());
    if compact {
        let date = day(&text[..8])?;
        let time = chrono::NaiveTime::parse_from_str(&text[8..], "%H%M%S").ok()?;
        return Some(date.and_time(time));
    }
    let (date, time) = text.split_once([' ', 'T'])?;
    let time = format!("2000-01-01 {}", time.trim());
    let time = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"]
        .iter()
        .find_map(|f| NaiveDateTime::parse_from_str(&time, f).ok())?;
    Some(day(date)?.and_time(time.time()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(time: NaiveDateTime) -> String {
        time.format("%Y-%m-%d %H:%M:%S%.f").to_string()
    }

    #[test]
    fn times_are_read_and_shifted_ones_come_into_the_zone() {
        for (text, read_as) in [
            ("2025-12-01 08:50", "2025-12-01 08:50:00"),
            ("2025/12/1T08:50:07.25", "2025-12-01 08:50:07.250"),
            ("2025年12月1日 08:50", "2025-12-01 08:50:00"),
            ("20251201 15:34:43", "2025-12-01 15:34:43"),
            ("20251201153443", "2025-12-01 15:34:43"),
            ("Mon, 01 Dec 2025 00:50:00 GMT", "2025-12-01 08:50:00"),
            ("2025-12-01T08:50:00+08:00", "2025-12-01 08:50:00"),
            ("2025-11-30T23:00:00Z", "2025-12-01 07:00:00"),
        ] {
            assert_eq!(written(read(text).unwrap()), read_as, "{text}");
        }
        for text in [
            "2025-12-01",
            "2025-12-01 08:50:00+08:00x",
            "2025-12-01 25:00",
            "20251201250000",
            "202512010850",
            "08:50",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn seconds_and_milliseconds_are_not_mixed_up() {
        let seconds = of_epoch(Epoch::Seconds, "1764550200").unwrap();
        assert_eq!(written(seconds), "2025-12-01 08:50:00");
        let millis = of_epoch(Epoch::Milliseconds, "1764550200250").unwrap();
        assert_eq!(written(millis), "2025-12-01 08:50:00.250");
        for (epoch, text) in [
            (Epoch::Seconds, "1764550200.25"),
            (Epoch::Milliseconds, "1764550200250.0"),
        ] {
            assert_eq!(
                written(of_epoch(epoch, text).unwrap()),
                "2025-12-01 08:50:00.250"
            );
        }
        let nines = of_epoch(Epoch::Seconds, "1764550200.9999999999").unwrap();
        assert_eq!(written(nines), "2025-12-01 08:50:00.999999999");
        for (epoch, text) in [
            (Epoch::Seconds, "1764550200250"),
            (Epoch::Milliseconds, "1764550200"),
            (Epoch::Seconds, "0"),
            (Epoch::Seconds, "1.5"),
            (Epoch::Milliseconds, "9223372036854775807"),
            (Epoch::Seconds, "9223372036854775807"),
        ] {
            assert!(of_epoch(epoch, text).is_err(), "{text}");
        }
    }
}
