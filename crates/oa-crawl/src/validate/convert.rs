//! One value of a record into one column's value, without loss.

use oa_core::base::exact;
use regex::Regex;
use serde_json::{Number, Value};

use super::kind::name_of;
use super::{time, variety};
use crate::dates::{day_of, half_width};
use crate::source::{Field, FieldType};

#[derive(Debug, PartialEq)]
pub(crate) struct Converted {
    /// As the table takes it.
    pub(crate) value: Value,
    /// A number that came as text.
    pub(crate) from_text: bool,
}

/// The regular expressions of a field.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    pattern: Option<Regex>,
    extract: Option<Regex>,
}

impl Compiled {
    pub(crate) fn of(field: &Field) -> Self {
        let compiled = |text: &Option<String>| Regex::new(text.as_deref()?).ok();
        Self {
            pattern: compiled(&field.pattern),
            extract: compiled(&field.extract),
        }
    }
}

/// Converts a value as its field demands.
/// The error is the reason for which the record is rejected.
pub(crate) fn convert(field: &Field, rules: &Compiled, raw: &Value) -> Result<Converted, String> {
    let means_null = |raw: &Value| {
        let text = exact::text(raw).map(str::trim);
        text.is_some_and(|t| field.null.iter().any(|n| n == t))
    };
    if means_null(raw) {
        return convert(field, rules, &Value::Null);
    }
    let part = match (&rules.extract, scalar_text(raw)) {
        (Some(extract), Some(text)) if !text.trim().is_empty() => {
            let found = extract
                .captures(&text)
                .ok_or_else(|| format!("is \"{text}\", of which nothing matches {extract}"))?;
            let part = found
                .get(1)
                .or_else(|| found.get(0))
                .map_or("", |m| m.as_str());
            Some(Value::from(part.trim()))
        }
        _ => None,
    };
    if part.as_ref().is_some_and(means_null) {
        return convert(field, rules, &Value::Null);
    }
    let raw = part.as_ref().unwrap_or(raw);
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
    allowed(field, rules.pattern.as_ref(), &converted.value)?;
    Ok(converted)
}

/// What is absent is not a wrong value: that is what `required` is for.
fn allowed(field: &Field, pattern: Option<&Regex>, value: &Value) -> Result<(), String> {
    if field.one_of.is_empty() && pattern.is_none() {
        return Ok(());
    }
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

/// A text or a number, as text.
fn scalar_text(raw: &Value) -> Option<String> {
    match (exact::number(raw), exact::text(raw), raw) {
        (Some(digits), _, _) => Some(digits.to_owned()),
        (_, Some(text), _) => Some(text.to_owned()),
        (_, _, Value::Number(number)) => Some(number.to_string()),
        _ => None,
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
    let mut text = if (field.required || field.upper) && text.trim().len() < text.len() {
        text.trim().to_owned()
    } else {
        text
    };
    if field.upper && text.is_ascii() {
        text.make_ascii_uppercase();
    } else if field.upper {
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
    if let Some(longest) = field.max_length {
        let length = text.chars().count();
        if length > longest {
            return Err(format!("has {length} characters, {longest} are allowed"));
        }
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
    let is_within = |n: f64| field.min.is_none_or(|m| n >= m) && field.max.is_none_or(|m| n <= m);
    if raw.as_i64().is_some_and(|n| is_within(n as f64)) {
        return Ok(plain(raw.clone()));
    }
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

/// `1,234.5`, `１２３` (full width), `12.5%`, `(1,234)` for a negative number, `1.2万` and `3亿` are numbers as sites write them. Gives
/// the digits.
fn read_number(text: &str) -> Option<String> {
    let plain = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = plain.split_once('.').unwrap_or((plain, "0"));
    let are_digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if are_digits(whole) && are_digits(fraction) {
        return Some(text.to_owned());
    }
    let ascii = half_width(text);
    let ascii = ascii.trim();
    let inner = ascii.strip_prefix('(').and_then(|t| t.strip_suffix(')'));
    if let Some(inner) = inner {
        let unsigned =
            read_number(inner).filter(|n| n.starts_with(|c: char| c.is_ascii_digit()))?;
        let is_zero = exact::whole(&unsigned) == Some(0);
        return Some(if is_zero {
            unsigned
        } else {
            format!("-{unsigned}")
        });
    }
    for (unit, zeros) in [("万亿", 12), ("亿", 8), ("万", 4)] {
        if let Some(count) = ascii.strip_suffix(unit) {
            let is_plain = |t: &str| !t.contains(['%', '万', '亿', 'e', 'E']);
            return read_number(count)
                .filter(|_| is_plain(count))
                .map(|n| shifted(&n, zeros));
        }
    }
    let ascii = ascii.strip_suffix('%').unwrap_or(ascii).trim();
    if !groups_are_thousands(ascii) {
        return None;
    }
    let digits = ascii.replace(',', "");
    let known = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E');
    let is_number = digits.chars().all(known) && digits.parse::<f64>().is_ok();
    is_number.then(|| digits.strip_prefix('+').unwrap_or(&digits).to_owned())
}

/// A plain decimal number times a power of ten, with all its digits.
fn shifted(number: &str, zeros: usize) -> String {
    let (sign, unsigned) = match number.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", number),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let moved = zeros.min(fraction.len());
    let (up, rest) = fraction.split_at(moved);
    let whole = format!("{whole}{up}{}", "0".repeat(zeros - moved));
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    match rest.trim_end_matches('0') {
        "" => format!("{sign}{whole}"),
        rest => format!("{sign}{whole}.{rest}"),
    }
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
        (Some(text), _) => half_width(text).trim().to_owned(),
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
    if let Some(epoch) = field.epoch {
        let time = time::of_epoch(epoch, &text)?;
        return Ok(Value::String(time.date().to_string()));
    }
    day_of(&text)
        .map(|day| Value::String(day.to_string()))
        .ok_or_else(|| format!("is \"{text}\", which is not a date{}", time::hint(&text)))
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
            ("(1,234.5)", -1234.5),
            ("（７）", -7.0),
            ("(0)", 0.0),
            ("1.2万", 12_000.0),
            ("-1,234.56789万", -12_345_678.9),
            ("３亿", 300_000_000.0),
            ("1.5 万亿", 1_500_000_000_000.0),
            ("(2万)", -20_000.0),
            ("0.00万", 0.0),
        ] {
            assert_eq!(
                read_number(text).and_then(|n| n.parse().ok()),
                Some(number),
                "{text}"
            );
        }
        assert_eq!(
            read_number("1234567890123456789.123456789万").as_deref(),
            Some("12345678901234567891234.56789")
        );
        for text in [
            "", "-", "NaN", "inf", "12 34", "1,23", "0x10", "1,2345", "1.5,3", "1.234,5", "1,2e3",
            "1,234e3", "--1,234", ",123", "()", "(-1)", "((1))", "(1", "万", "1万万", "1亿万",
            "1e2万", "1%万", "万1", "1.2.3万",
        ] {
            assert_eq!(read_number(text), None, "{text}");
        }
    }
}
