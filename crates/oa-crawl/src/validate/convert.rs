//! One value of a record into one column's value, without loss.

use oa_core::base::exact;
use regex::Regex;
use serde_json::{Number, Value};

use super::kind::name_of;
use super::{time, variety};
use crate::dates::day_of;
use crate::source::{Field, FieldType};

#[derive(Debug, PartialEq)]
pub(crate) struct Converted {
    /// As the table takes it.
    pub(crate) value: Value,
    /// A number that came as text.
    pub(crate) from_text: bool,
}

/// Converts a value as its field demands; `pattern` is the field's own, compiled.
/// The error is the reason for which the record is rejected.
pub(crate) fn convert(
    field: &Field,
    pattern: Option<&Regex>,
    raw: &Value,
) -> Result<Converted, String> {
    if raw.is_null() {
        return if field.required {
            Err("is absent".to_owned())
        } else {
            Ok(plain(Value::Null))
        };
    }
    let converted = match field.of_type {
        FieldType::Text => plain(text(field, raw)?),
        FieldType::Integer | FieldType::Number => number(field, raw)?,
        FieldType::Date => plain(date(field, raw)?),
        FieldType::DateTime => plain(time::local(field, raw)?),
        FieldType::Variety => plain(variety(field, raw)?),
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

fn text(field: &Field, raw: &Value) -> Result<Value, String> {
    let text = match (exact::number(raw), raw) {
        (Some(digits), _) => digits.to_owned(),
        (None, Value::String(text)) => text.clone(),
        (None, Value::Number(number)) => number.to_string(),
        (None, other) => return Err(format!("is {} where text was due", name_of(other))),
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

fn variety(field: &Field, raw: &Value) -> Result<Value, String> {
    let text = text(field, raw)?;
    let name = text.as_str().unwrap_or_default();
    if name.is_empty() && !field.required {
        return Ok(Value::Null);
    }
    variety::code(name)
        .map(Value::String)
        .ok_or_else(|| format!("is \"{name}\", which names no variety"))
}

fn number(field: &Field, raw: &Value) -> Result<Converted, String> {
    let (digits, from_text) = match (exact::number(raw), raw) {
        (Some(digits), _) => (digits.to_owned(), false),
        (None, Value::Number(number)) => (number.to_string(), false),
        (None, Value::String(text)) if text.trim().is_empty() => {
            return if field.required {
                Err("is empty".to_owned())
            } else {
                Ok(plain(Value::Null))
            };
        }
        (None, Value::String(text)) => (
            read_number(text).ok_or_else(|| format!("is \"{text}\", which is not a number"))?,
            true,
        ),
        (None, other) => return Err(format!("is {} where a number was due", name_of(other))),
    };
    let float = digits.parse::<f64>().ok().filter(|f| f.is_finite());
    let float = float.ok_or_else(|| format!("is {digits}, which is no finite number"))?;
    if let Some(min) = field.min.filter(|m| float < *m) {
        return Err(format!("is {digits}, below {min}"));
    }
    if let Some(max) = field.max.filter(|m| float > *m) {
        return Err(format!("is {digits}, above {max}"));
    }
    let value = match field.of_type {
        FieldType::Integer => exact::whole(&digits).map(Value::from).ok_or_else(|| {
            match exact::decimals(&digits) {
                0 => format!("is {digits}, which is more than 64 bits hold"),
                _ => format!("is {digits}, which is not a whole number"),
            }
        })?,
        _ => as_it_is(raw, digits, float),
    };
    Ok(Converted { value, from_text })
}

/// A number where 64 bits hold all its digits, else a text, which PostgreSQL reads as its column's type.
fn as_it_is(raw: &Value, digits: String, float: f64) -> Value {
    if raw.is_number() {
        return raw.clone();
    }
    if let Ok(whole) = digits.parse::<i64>() {
        return Value::from(whole);
    }
    match Number::from_f64(float).filter(|_| exact::fits_double(&digits)) {
        Some(number) => Value::Number(number),
        None => Value::String(digits),
    }
}

/// `1,234.5`, `１２３` (full width) and `12.5%` are numbers as sites write them. Gives the digits.
fn read_number(text: &str) -> Option<String> {
    let ascii: String = text
        .trim()
        .chars()
        .map(|c| match c {
            '０'..='９' => char::from_digit(u32::from(c) - u32::from('０'), 10).unwrap_or(c),
            '．' => '.',
            '－' | '−' => '-',
            '，' => ',',
            '％' => '%',
            other => other,
        })
        .collect();
    let ascii = ascii.strip_suffix('%').unwrap_or(&ascii).trim();
    if !groups_are_thousands(ascii) {
        return None;
    }
    let digits = ascii.replace(',', "");
    let known = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E');
    let is_number = digits.chars().all(known) && digits.parse::<f64>().is_ok();
    is_number.then(|| digits.strip_prefix('+').unwrap_or(&digits).to_owned())
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

fn date(field: &Field, raw: &Value) -> Result<Value, String> {
    let text = match (exact::text(raw), raw) {
        (Some(text), _) => text.trim().to_owned(),
        (None, Value::Number(number)) => number.to_string(),
        (None, other) => return Err(format!("is {} where a date was due", name_of(other))),
    };
    if text.is_empty() {
        return if field.required {
            Err("is empty".to_owned())
        } else {
            Ok(Value::Null)
        };
    }
    day_of(&text)
        .map(|day| Value::String(day.to_string()))
        .ok_or_else(|| format!("is \"{text}\", which is not a date"))
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
                read_number(text).and_then(|n| n.parse().ok()),
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
}
