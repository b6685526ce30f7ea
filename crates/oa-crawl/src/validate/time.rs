//! Local times.

use chrono::NaiveDateTime;
use serde_json::Value;

use super::kind::name_of;
use crate::dates::day;
use crate::source::Field;

/// A local time. One with an offset is refused: the service's columns have none, and a silent shift is a wrong value.
pub(super) fn local(field: &Field, raw: &Value) -> Result<Value, String> {
    let Value::String(text) = raw else {
        return Err(format!("is {} where a time was due", name_of(raw)));
    };
    let text = text.trim();
    if text.is_empty() {
        return if field.required {
            Err("is empty".to_owned())
        } else {
            Ok(Value::Null)
        };
    }
    read(text)
        .map(|t| Value::String(t.format("%Y-%m-%d %H:%M:%S%.f").to_string()))
        .ok_or_else(|| format!("is \"{text}\", which is not a time such as 2025-12-01 08:50"))
}

fn read(text: &str) -> Option<NaiveDateTime> {
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

    #[test]
    fn local_times_are_read_and_shifted_ones_refused() {
        for (text, read_as) in [
            ("2025-12-01 08:50", "2025-12-01 08:50:00"),
            ("2025/12/1T08:50:07.25", "2025-12-01 08:50:07.250"),
        ] {
            let time = read(text).unwrap();
            assert_eq!(time.format("%Y-%m-%d %H:%M:%S%.f").to_string(), read_as);
        }
        for text in [
            "2025-12-01",
            "2025-12-01 08:50:00+08:00",
            "2025-12-01 25:00",
            "08:50",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
