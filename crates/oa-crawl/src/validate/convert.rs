//! One value of a record into one column's value, without loss.

use chrono::NaiveDate;
use regex::Regex;
use serde_json::{Number, Value};

use super::{time, variety};
use crate::source::{Field, FieldType};

/// A converted value.
#[derive(Debug, PartialEq)]
pub struct Converted {
    /// As the table takes it.
    pub value: Value,
    /// A number that came as text.
    pub from_text: bool,
}

/// Converts a value as its field demands; `pattern` is the field's own, compiled.
///
/// # Errors
/// The reason for which the record is rejected.
pub fn convert(field: &Field, pattern: Option<&Regex>, given: &Value) -> Result<Converted, String> {
    if given.is_null() {
        return if field.required {
            Err("is absent".to_owned())
        } else {
            Ok(plain(Value::Null))
        };
    }
    let converted = match field.of_type {
        FieldType::Text => plain(text(field, given)?),
        FieldType::Integer | FieldType::Number => number(field, given)?,
        FieldType::Date => plain(date(field, given)?),
        FieldType::DateTime => plain(time::local(field, given)?),
        FieldType::Variety => plain(variety(field, given)?),
    };
    if field.required && converted.value.is_null() {
        return Err("is empty".to_owned());
    }
    allowed(field, pattern, &converted.value)?;
    Ok(converted)
}

/// What is absent is not a wrong value: that is what `required` is for.
fn allowed(field: &Field, pattern: Option<&Regex>, value: &Value) -> Result<(), String> {
    let text = match value {
        Value::Null => return Ok(()),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if !field.one_of.is_empty() && !field.one_of.contains(&text) {
        return Err(format!(
            "is \"{text}\", which is not one of {}",
            field.one_of.join(", ")
        ));
    }
    match pattern {
        Some(pattern) if !pattern.is_match(&text) => {
            Err(format!("is \"{text}\", which does not match {pattern}"))
        }
        _ => Ok(()),
    }
}

fn plain(value: Value) -> Converted {
    Converted {
        value,
        from_text: false,
    }
}

fn text(field: &Field, given: &Value) -> Result<Value, String> {
    let text = match given {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => return Err(format!("is {} where text was due", name_of(other))),
    };
    if text.contains('\0') {
        return Err("contains the character U+0000, which PostgreSQL cannot store".to_owned());
    }
    let mut text = if field.required || field.upper {
        text.trim().to_owned()
    } else {
        text
    };
    if field.upper {
        text = text.to_uppercase();
    }
    if !field.map.is_empty() {
        text = match (field.map.get(text.trim()), &field.otherwise) {
            (Some(mapped), _) => mapped.clone(),
            (None, Some(otherwise)) => otherwise.clone(),
            (None, None) => {
                return Err(format!(
                    "is \"{text}\", which the source's map does not name"
                ));
            }
        };
    }
    if field.required && text.is_empty() {
        return Err("is empty".to_owned());
    }
    let length = text.chars().count();
    if let Some(longest) = field.max_length.filter(|m| length > *m) {
        return Err(format!("has {length} characters, {longest} are allowed"));
    }
    Ok(Value::String(text))
}

fn variety(field: &Field, given: &Value) -> Result<Value, String> {
    let text = text(field, given)?;
    let name = text.as_str().unwrap_or_default();
    if name.is_empty() && !field.required {
        return Ok(Value::Null);
    }
    variety::code(name)
        .map(Value::String)
        .ok_or_else(|| format!("is \"{name}\", which names no variety"))
}

fn number(field: &Field, given: &Value) -> Result<Converted, String> {
    let (number, from_text) = match given {
        Value::Number(number) => (number.clone(), false),
        Value::String(text) if text.trim().is_empty() => {
            return if field.required {
                Err("is empty".to_owned())
            } else {
                Ok(plain(Value::Null))
            };
        }
        Value::String(text) => (
            read_number(text).ok_or_else(|| format!("is \"{text}\", which is not a number"))?,
            true,
        ),
        other => return Err(format!("is {} where a number was due", name_of(other))),
    };
    let float = number
        .as_f64()
        .filter(|f| f.is_finite())
        .ok_or("is not a finite number")?;
    if let Some(min) = field.min.filter(|m| float < *m) {
        return Err(format!("is {number}, below {min}"));
    }
    if let Some(max) = field.max.filter(|m| float > *m) {
        return Err(format!("is {number}, above {max}"));
    }
    let value = match field.of_type {
        FieldType::Integer => Value::from(
            whole(&number, float)
                .ok_or_else(|| format!("is {number}, which is not a whole number"))?,
        ),
        _ => Value::Number(number),
    };
    Ok(Converted { value, from_text })
}

fn whole(number: &Number, float: f64) -> Option<i64> {
    // 75.0 is whole; beyond 2^53 a float no longer says which whole number it is.
    number
        .as_i64()
        .or_else(|| (float.fract() == 0.0 && float.abs() < 9.0e15).then_some(float as i64))
}

/// `1,234.5`, `１２３` (full width) and `12.5%` are numbers as sites write them.
fn read_number(text: &str) -> Option<Number> {
    let ascii: String = text
        .trim()
        .chars()
        .map(|c| match c {
            '０'..='９' => {
                char::from(b'0' + u8::try_from(u32::from(c) - u32::from('０')).unwrap_or_default())
            }
            '．' => '.',
            '－' | '−' => '-',
            '，' => ',',
            '％' => '%',
            other => other,
        })
        .collect();
    let ascii = ascii.strip_suffix('%').unwrap_or(&ascii).trim();
    let digits: String = if groups_are_thousands(ascii) {
        ascii.replace(',', "")
    } else {
        return None;
    };
    if let Ok(whole) = digits.parse::<i64>() {
        return Some(Number::from(whole));
    }
    if !digits
        .chars()
        .all(|c| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E'))
    {
        return None;
    }
    digits.parse::<f64>().ok().and_then(Number::from_f64)
}

/// Whether the commas, if there are any, stand where thousands end: `1.5,3` and `1.234,5` are not what they seem.
fn groups_are_thousands(text: &str) -> bool {
    if !text.contains(',') {
        return true;
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or_default();
    (1..=3).contains(&first.len())
        && digits(first)
        && groups.all(|g| g.len() == 3 && digits(g))
        && digits(fraction)
}

fn date(field: &Field, given: &Value) -> Result<Value, String> {
    let Value::String(text) = given else {
        return Err(format!("is {} where a date was due", name_of(given)));
    };
    let text = text.trim();
    if text.is_empty() && !field.required {
        return Ok(Value::Null);
    }
    let day = text.split([' ', 'T']).next().unwrap_or_default();
    match self::day(day) {
        Some(day) => Ok(Value::String(day.to_string())),
        None if text.is_empty() => Err("is empty".to_owned()),
        None => Err(format!("is \"{text}\", which is not a date")),
    }
}

/// A day as `2025-12-01` or `2025/12/1`. A year of two digits would become one of antiquity.
#[must_use]
pub fn day(text: &str) -> Option<NaiveDate> {
    let year = text.split(['-', '/']).next()?;
    if year.len() != 4 || !year.starts_with(['1', '2']) {
        return None;
    }
    NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .or_else(|_| NaiveDate::parse_from_str(text, "%Y/%m/%d"))
        .ok()
}

pub(super) fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_sites_write_them() {
        for (text, number) in [
            ("1,234", 1234.0),
            ("-12.50%", -12.5),
            ("１２３", 123.0),
            ("+7", 7.0),
            ("1e3", 1000.0),
            ("12,345,678.9", 12_345_678.9),
        ] {
            assert_eq!(
                read_number(text).and_then(|n| n.as_f64()),
                Some(number),
                "{text}"
            );
        }
        for text in [
            "", "-", "NaN", "inf", "12 34", "1,23", "0x10", "1,2345", "1.5,3", "1.234,5", "1,2e3",
            "1,234e3", "--1,234", ",123",
        ] {
            assert_eq!(read_number(text), None, "{text}");
        }
    }

    #[test]
    fn a_day_has_a_whole_year() {
        assert_eq!(day("2025/12/1"), NaiveDate::from_ymd_opt(2025, 12, 1));
        for text in [
            "25-12-01",
            "25/12/01",
            "0025-12-01",
            "2025-13-01",
            "12-01-2025",
            "",
        ] {
            assert_eq!(day(text), None, "{text}");
        }
    }
}
