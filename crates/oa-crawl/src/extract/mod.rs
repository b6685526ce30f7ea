//! From an answer to records: the places that a source file names, and the proof that they hold what the answer announces.

pub(crate) mod delimited;
pub(crate) mod grid;
pub(crate) mod json;
pub(crate) mod nesting;
pub(crate) mod propose;
pub(crate) mod room;
mod script;
pub(crate) mod sheet;
pub(crate) mod table;
pub(crate) mod xls;
pub(crate) mod xml;

use oa_core::base::exact;
use oa_core::base::secrets::redact;
use oa_core::base::text::beginning;
use oa_core::model::retry::ErrorKind;
use regex::Regex;
use serde_json::{Map, Value};

pub(crate) use script::unwrap as unwrap_script;

/// What is wrong with an answer, as the end of "the answer has …".
pub(crate) type ReadError = (ErrorKind, String);

/// Larger files are not unpacked, however small they are packed.
pub(crate) const MOST_UNPACKED: u64 = 64 << 20;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Extracted {
    /// The records, as they came, with the constants of their list.
    pub(crate) records: Vec<Value>,
    /// How many the answer announces, where it does.
    pub(crate) total: Option<u64>,
    /// Lists that do not have the length that the answer announces for them, in sentences.
    pub(crate) miscounted: Vec<String>,
    /// The next page's cursor or address.
    pub(crate) next: Option<String>,
    /// What was noticed, in sentences.
    pub(crate) findings: Vec<String>,
}

/// A record's field by its name, or by a JSON pointer into it.
pub(crate) fn field<'a>(record: &'a Value, name: &str) -> Option<&'a Value> {
    let direct = record.get(name);
    direct.or_else(|| name.starts_with('/').then(|| record.pointer(name))?)
}

/// Every match is a record.
pub(crate) fn matches(pattern: &str, text: &str) -> Result<Extracted, ReadError> {
    if text.trim().is_empty() {
        return Err((ErrorKind::Empty, "an empty body".to_owned()));
    }
    let pattern = Regex::new(pattern).map_err(|e| (ErrorKind::Internal, e.to_string()))?;
    let names: Vec<&str> = pattern.capture_names().flatten().collect();
    let record = |found: regex::Captures<'_>| {
        let fields = names.iter().map(|name| {
            let value = found.name(name).map(|m| Value::from(m.as_str().trim()));
            ((*name).to_owned(), value.unwrap_or(Value::Null))
        });
        Value::Object(fields.collect::<Map<_, _>>())
    };
    let records: Vec<Value> = pattern.captures_iter(text).map(record).collect();
    if records.is_empty() {
        let start = beginning(text.trim(), 200);
        let what = format!(
            "nothing that matches record in [answer.text]; it begins: {}",
            start.escape_debug()
        );
        return Err((ErrorKind::Shape, what));
    }
    Ok(Extracted {
        records,
        ..Extracted::default()
    })
}

/// What stands at a byte of a text, cut short: for a person to recognise the place. Nothing of a secret, also where the place is within it.
pub(crate) fn beginning_at(at: usize, text: &str) -> String {
    const AROUND: usize = 64 << 10;
    let (mut from, mut to) = (at.saturating_sub(AROUND), text.len().min(at + AROUND));
    while !text.is_char_boundary(from) {
        from -= 1;
    }
    while !text.is_char_boundary(to) {
        to -= 1;
    }
    let (Some(before), Some(rest)) = (text.get(from..at), text.get(at..to)) else {
        return String::new();
    };
    let clean = redact(rest);
    if redact(&format!("{before}{rest}")) != redact(before) + &clean {
        return "[redacted]".to_owned();
    }
    clean.chars().take(20).collect()
}

/// A finding about keys that stand more than once in one object.
pub(crate) fn repeated(keys: &[String]) -> Option<String> {
    let keys: Vec<String> = keys
        .iter()
        .map(|k| exact::to_text(&Value::from(k.as_str())))
        .collect();
    (!keys.is_empty()).then(|| {
        format!(
            "an object of the answer has the same key more than once ({}); the last value counts",
            keys.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use oa_core::base::secrets::Secret;

    use super::*;

    #[test]
    fn a_place_within_a_secret_shows_nothing_of_it() {
        let secret = Secret::new("shown-nowhere-not-even-half-of-it".to_owned());
        let text = format!("{{\"a\": 中文 {} and more", secret.expose());
        let begin = text.find("shown").unwrap();
        assert_eq!(beginning_at(begin + 6, &text), "[redacted]");
        assert_eq!(beginning_at(begin, &text), "[redacted] and more");
        assert_eq!(beginning_at(6, &text), "中文 [redacted] and mo");
        assert_eq!(beginning_at(0, "{a: 中}"), "{a: 中}");
        assert_eq!(beginning_at(9, "short"), "");
    }
}
