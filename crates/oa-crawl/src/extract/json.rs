//! Records out of a JSON answer.
//!
//! A path is a JSON pointer; a part `*` in it stands for every element of a list, so that `/result/*/varietyList` is all the
//! lists below `result`, one after the other.

use oa_core::base::exact;
use serde_json::Value;

use super::Extracted;
use crate::source::{Answer, List};

/// Whether the answer says that it succeeded; `None` when it does not say.
pub(crate) fn is_ok(rules: &Answer, answer: &Value) -> Option<bool> {
    let Some(pointer) = &rules.ok else {
        return Some(true);
    };
    let said = answer.pointer(pointer)?;
    let Some(expected) = &rules.equals else {
        return said.as_bool();
    };
    // A code is a number at some servers of a site and a text at others.
    let as_text = expected.to_string();
    let texts = [said.as_str(), exact::number(said)];
    Some(said == expected || texts.contains(&Some(&as_text)))
}

/// Extracts the records of an answer.
/// The error is what the answer lacks, as the end of "the answer has …".
pub(crate) fn take(rules: &Answer, answer: &mut Value) -> Result<Extracted, String> {
    if rules.lists.is_empty() {
        let total = rules.total.as_ref().map(|p| whole(answer, p)).transpose()?;
        let path = rules.records.as_deref();
        let path = path.ok_or("no place for records in [answer]")?;
        let records = match &rules.key_as {
            Some(name) => by_key(answer, path, name)?,
            None => list(answer, path)?,
        };
        return Ok(Extracted {
            records: records.into_iter().map(|r| named(rules, r)).collect(),
            total,
            ..Extracted::default()
        });
    }
    let mut all = Extracted::default();
    for rule in &rules.lists {
        let announced = rule.total.as_ref().map(|p| whole(answer, p)).transpose()?;
        let records = list(answer, &rule.records)?;
        let came = records.len() as u64;
        if let (Some(announced), Some(pointer)) = (announced, &rule.total) {
            all.total = Some(all.total.unwrap_or(0) + announced);
            if announced != came {
                all.miscounted.push(format!(
                    "{pointer} announces {announced} records, {} holds {came}",
                    rule.records
                ));
            }
        }
        for record in records {
            let record = named(rules, record);
            all.records.push(with_constants(rule, record)?);
        }
    }
    // A sum over some of the lists says nothing about all of them.
    if rules.lists.iter().any(|l| l.total.is_none()) {
        all.total = None;
    }
    Ok(all)
}

/// The next page's cursor or address, where a page says one.
pub(crate) fn next(answer: &Value, pointer: &str) -> Option<String> {
    let said = answer.pointer(pointer)?;
    let text = match (exact::number(said), said) {
        (Some(digits), _) => digits.to_owned(),
        (None, Value::String(text)) => text.clone(),
        (None, Value::Number(number)) => number.to_string(),
        // `false` and null: no other page.
        _ => return None,
    };
    (!text.trim().is_empty()).then_some(text)
}

/// A list as a record, its values named by `columns`. One of another length stays a list, which validation rejects.
fn named(rules: &Answer, record: Value) -> Value {
    match record {
        Value::Array(values) if values.len() == rules.columns.len() => {
            let fields = rules.columns.iter().cloned().zip(values);
            Value::Object(fields.filter(|(name, _)| !name.is_empty()).collect())
        }
        other => other,
    }
}

/// The values of an object, each with its key as a field.
fn by_key(answer: &mut Value, path: &str, name: &str) -> Result<Vec<Value>, String> {
    let records = match answer.pointer_mut(path) {
        Some(Value::Object(records)) => std::mem::take(records),
        Some(Value::Null) => return Ok(Vec::new()),
        _ => return Err(format!("no object at {path}, whose keys are {name}")),
    };
    let with_key = |(key, mut record): (String, Value)| {
        match &mut record {
            Value::Object(fields) => {
                let hidden = fields.insert(name.to_owned(), Value::String(key));
                if hidden.is_some() {
                    return Err(format!(
                        "a field {name} of its own below {path}, which key_as would hide"
                    ));
                }
            }
            Value::Array(values) => values.insert(0, Value::String(key)),
            _ => {}
        }
        Ok(record)
    };
    records.into_iter().map(with_key).collect()
}

/// The record that a line of a program's output is; other lines are ignored. Some programs begin with a byte order mark.
pub(crate) fn record_in(line: &[u8]) -> Option<&[u8]> {
    let line = line.trim_ascii();
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    line.starts_with(b"{").then_some(line)
}

/// Records of a program's output, each in a line of its own: see [`record_in`].
/// A line that begins as an object and is none is an error.
pub(crate) fn lines(output: &[u8]) -> Result<Extracted, String> {
    let mut extracted = Extracted::default();
    for (number, line) in output.split(|b| *b == b'\n').enumerate() {
        if let Some(line) = record_in(line) {
            let exact = std::str::from_utf8(line).ok().and_then(exact::parse_noting);
            let (exact, keys) = exact.map_or((None, Vec::new()), |(v, keys)| (Some(v), keys));
            if extracted.findings.is_empty() {
                extracted.findings.extend(super::repeated(&keys));
            }
            let record = exact
                .map_or_else(|| serde_json::from_slice(line), Ok)
                .map_err(|e| format!("a line {} that is no JSON object ({e})", number + 1))?;
            extracted.records.push(record);
        }
    }
    Ok(extracted)
}

/// Anything that is no object stays as it is: validation rejects it and keeps it as it came.
fn with_constants(rule: &List, mut record: Value) -> Result<Value, String> {
    if let Value::Object(fields) = &mut record {
        for (name, value) in &rule.set {
            let hidden = fields.insert(name.clone(), Value::String(value.clone()));
            if hidden.is_some() {
                return Err(format!(
                    "a field {name} of its own in {}, which set in [[answer.lists]] would hide",
                    rule.records
                ));
            }
        }
    }
    Ok(record)
}

fn whole(answer: &Value, pointer: &str) -> Result<u64, String> {
    let found = match answer.pointer(pointer) {
        Some(Value::Number(n)) => n.as_u64(),
        Some(value @ Value::String(text)) => match exact::number(value) {
            Some(digits) => exact::whole(digits).and_then(|n| n.try_into().ok()),
            None => text.trim().parse().ok(),
        },
        _ => None,
    };
    found.ok_or_else(|| format!("no whole number at {pointer}"))
}

fn list(answer: &mut Value, path: &str) -> Result<Vec<Value>, String> {
    let mut found = Vec::new();
    gather(answer, path, &mut found).ok_or_else(|| format!("no list at {path}"))?;
    Ok(found)
}

fn gather(value: &mut Value, path: &str, found: &mut Vec<Value>) -> Option<()> {
    let (pointer, rest) = match split(path) {
        Some((pointer, rest)) => (pointer, Some(rest)),
        None => (path, None),
    };
    match (value.pointer_mut(pointer)?, rest) {
        (Value::Array(records), None) => found.append(records),
        (record @ Value::Object(_), None) => found.push(record.take()),
        (Value::Array(elements), Some(rest)) => {
            for element in elements {
                gather(element, rest, found)?;
            }
        }
        // "No data" is null at some sites and an empty list at others.
        (Value::Null, _) => {}
        _ => return None,
    }
    Some(())
}

/// `/a/*/b` into `/a` and `/b`.
fn split(path: &str) -> Option<(&str, &str)> {
    let mut from = 0;
    loop {
        let at = from + path[from..].find("/*")?;
        let rest = &path[at + 2..];
        if rest.is_empty() || rest.starts_with('/') {
            return Some((&path[..at], rest));
        }
        from = at + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(text: &str) -> Answer {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_byte_order_mark_hides_no_record() {
        let read = lines(b"\xef\xbb\xbf{\"a\":1}\r\nx\n {\"a\":2}").unwrap();
        assert_eq!(read.records, [json!({"a": 1}), json!({"a": 2})]);
    }

    #[test]
    fn nested_lists_are_read_one_after_the_other() {
        let rules = rules("records = \"/result/*/list\"");
        let mut answer = json!({"result": [{"list": [1, 2]}, {"list": []}, {"list": [3]}]});
        assert_eq!(
            take(&rules, &mut answer).unwrap().records,
            [json!(1), json!(2), json!(3)]
        );
        let mut answer = json!({"result": [{"list": [1]}, {"other": [3]}]});
        assert_eq!(
            take(&rules, &mut answer).unwrap_err(),
            "no list at /result/*/list",
            "an element without its list"
        );
        assert!(
            take(&rules, &mut json!({"result": null}))
                .unwrap()
                .records
                .is_empty()
        );
        assert_eq!(split("/a/*b/*/c"), Some(("/a/*b", "/c")));
        assert_eq!(split("/a/*"), Some(("/a", "")));
    }

    #[test]
    fn lists_bring_their_constants_and_must_have_the_announced_length() {
        let rules = rules(
            "[[lists]]\nrecords = \"/up\"\ntotal = \"/ups\"\nset = { view = \"多\" }\n[[lists]]\nrecords = \"/down\"\ntotal = \"/downs\"\nset = { view = \"空\" }\n",
        );
        let mut answer =
            json!({"up": [{"c": 1}], "ups": 1, "down": [{"c": 2}, "text"], "downs": "2"});
        let got = take(&rules, &mut answer).unwrap();
        assert_eq!(
            got.records,
            [
                json!({"c": 1, "view": "多"}),
                json!({"c": 2, "view": "空"}),
                json!("text")
            ]
        );
        assert_eq!((got.total, got.miscounted.len()), (Some(3), 0));
        // One too many and one too few are not enough together.
        let mut answer = json!({"up": [{"c": 1}], "ups": 2, "down": [{"c": 2}], "downs": 0});
        let got = take(&rules, &mut answer).unwrap();
        assert_eq!(
            got.miscounted,
            [
                "/ups announces 2 records, /up holds 1",
                "/downs announces 0 records, /down holds 1"
            ]
        );
        let mut answer = json!({"up": [{"c": 1, "view": "?"}], "ups": 1, "down": [], "downs": 0});
        assert!(
            take(&rules, &mut answer)
                .unwrap_err()
                .contains("a field view of its own")
        );
        let mut answer = json!({"up": [], "down": [], "downs": 0});
        assert_eq!(
            take(&rules, &mut answer).unwrap_err(),
            "no whole number at /ups"
        );
    }

    #[test]
    fn records_may_be_lists_or_be_named_by_their_key() {
        let lists = rules("records = \"/d\"\ncolumns = [\"code\", \"\", \"px\"]");
        let mut answer = json!({"d": [["A", 0, 1.5], ["B"], {"code": "C"}]});
        assert_eq!(
            take(&lists, &mut answer).unwrap().records,
            [
                json!({"code": "A", "px": 1.5}),
                json!(["B"]),
                json!({"code": "C"})
            ]
        );
        let keyed = rules("records = \"/d\"\nkey_as = \"code\"");
        let mut answer = json!({"d": {"A": {"px": 1}, "B": 7}});
        assert_eq!(
            take(&keyed, &mut answer).unwrap().records,
            [json!({"px": 1, "code": "A"}), json!(7)]
        );
        let both = rules("records = \"/d\"\nkey_as = \"code\"\ncolumns = [\"code\", \"px\"]");
        let got = take(&both, &mut json!({"d": {"A": [2]}})).unwrap();
        assert_eq!(got.records, [json!({"code": "A", "px": 2})]);
        assert!(
            take(&keyed, &mut json!({"d": [1]}))
                .unwrap_err()
                .contains("no object at /d")
        );
        let hides = take(&keyed, &mut json!({"d": {"A": {"code": 1}}})).unwrap_err();
        assert!(hides.contains("key_as would hide"), "{hides}");
    }

    #[test]
    fn the_last_page_names_no_next_one() {
        for (value, due) in [
            (json!("x1"), Some("x1")),
            (json!(7), Some("7")),
            (json!(""), None),
            (json!(null), None),
            (json!(false), None),
        ] {
            assert_eq!(next(&json!({"next": value}), "/next").as_deref(), due);
        }
        assert_eq!(next(&json!({}), "/next"), None);
    }

    #[test]
    fn an_answer_says_yes_by_true_or_by_a_code() {
        let code = rules("ok = \"/code\"\nequals = 200\nrecords = \"/d\"");
        assert_eq!(is_ok(&code, &json!({"code": 200})), Some(true));
        assert_eq!(is_ok(&code, &json!({"code": "200"})), Some(true));
        assert_eq!(is_ok(&code, &json!({"code": 403})), Some(false));
        assert_eq!(is_ok(&code, &json!({"status": 200})), None);
        let truth = rules("ok = \"/success\"\nrecords = \"/d\"");
        assert_eq!(is_ok(&truth, &json!({"success": false})), Some(false));
        assert_eq!(is_ok(&truth, &json!({"success": "yes"})), None);
    }
}
