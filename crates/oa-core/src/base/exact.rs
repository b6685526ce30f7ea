//! JSON as it came: every digit of a number, and values that are not JSON but stand where a value would.
//!
//! [`serde_json`] keeps a number as 64 bits, and refuses a whole document for one `NaN`, one raw control character or one lone
//! surrogate. Records of a site are worth more: a number whose text a [`Number`] would not give back, and a value that is none, are
//! kept as marked texts, which [`number`] and [`malformed`] recognise and [`to_text`] writes out again. Marks are for values on their
//! way through a program; nothing but [`to_text`] may write them anywhere.

use std::borrow::Cow;

use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

/// Begins a marked text: a character that no text may hold (Unicode, noncharacters).
const MARK: char = '\u{10FFFE}';
const NUMBER: &str = "\u{10FFFE}n";
const MALFORMED: &str = "\u{10FFFE}m";

/// Stands where bytes are no character of their text's character set (Unicode, noncharacters).
pub const UNREADABLE: char = '\u{10FFFF}';

/// Deeper documents are an attack.
const DEEPEST: u32 = 120;

/// Reads a document. `None` when its structure is not JSON; [`serde_json`] then says where and why.
#[must_use]
pub fn parse(text: &str) -> Option<Value> {
    Some(parse_noting(text)?.0)
}

/// The same, and an object or a list in a list whose own structure is not JSON is malformed, and no other: one broken record of many.
/// The error is where (in bytes) the document itself is none.
///
/// # Errors
/// When its structure is not JSON.
pub fn parse_records(text: &str) -> Result<(Value, Vec<String>), usize> {
    let mut parser = Parser {
        text,
        at: 0,
        repeated: Vec::new(),
        recovers: MOST_BROKEN,
        too_deep: false,
    };
    let value = parser.value(0).ok_or(parser.at)?;
    parser.blank();
    match parser.at == text.len() {
        true => Ok((value, parser.repeated)),
        false => Err(parser.at),
    }
}

/// The same with the first few keys that stand more than once in one object, of which the last value counts.
#[must_use]
pub fn parse_noting(text: &str) -> Option<(Value, Vec<String>)> {
    let mut parser = Parser {
        text,
        at: 0,
        repeated: Vec::new(),
        recovers: 0,
        too_deep: false,
    };
    let value = parser.value(0)?;
    parser.blank();
    (parser.at == text.len()).then_some((value, parser.repeated))
}

/// A value that is none, as [`malformed`] finds it.
#[must_use]
pub fn as_malformed(raw: &str) -> Value {
    Value::String(format!("{MALFORMED}{raw}"))
}

/// The digits of a number that is kept as text.
#[must_use]
pub fn number(value: &Value) -> Option<&str> {
    value.as_str()?.strip_prefix(NUMBER)
}

/// The text of a value that is not JSON.
#[must_use]
pub fn malformed(value: &Value) -> Option<&str> {
    value.as_str()?.strip_prefix(MALFORMED)
}

/// A text, and not a number or anything else that is kept as one.
#[must_use]
pub fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.starts_with(MARK))
}

/// A text as it can be shown and stored.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    match text.contains(UNREADABLE) {
        true => Cow::Owned(text.replace(UNREADABLE, "\u{fffd}")),
        false => Cow::Borrowed(text),
    }
}

/// The first value in it that is not JSON, or has what cannot be read, with the name of its field.
#[must_use]
pub fn malformed_within(record: &Value) -> Option<(String, &str)> {
    match record {
        Value::Object(fields) => fields
            .iter()
            .find_map(|(name, value)| Some((name.clone(), malformed_at(value)?))),
        Value::Array(all) => all
            .iter()
            .find_map(|value| Some((String::new(), malformed_at(value)?))),
        _ => None,
    }
}

fn malformed_at(value: &Value) -> Option<&str> {
    malformed(value)
        .or_else(|| unreadable(value))
        .or_else(|| Some(malformed_within(value)?.1))
}

fn unreadable(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| text.contains(UNREADABLE))
}

/// As JSON, numbers with all their digits. What was not JSON is a text.
#[must_use]
pub fn to_text(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

/// The same at the end of a text.
pub fn write(value: &Value, out: &mut String) {
    match value {
        Value::Array(all) => {
            out.push('[');
            for (i, one) in all.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(one, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (i, (name, one)) in fields.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_text(name, out);
                out.push(':');
                write(one, out);
            }
            out.push('}');
        }
        other => match (number(other), malformed(other)) {
            (Some(digits), _) => out.push_str(digits),
            (_, Some(raw)) => write_text(&shown(raw), out),
            (None, None) => match other {
                Value::String(text) => write_text(&shown(text), out),
                other => out.push_str(&other.to_string()),
            },
        },
    }
}

/// A text as JSON has it.
fn write_text(text: &str, out: &mut String) {
    if text.bytes().any(|b| b < 0x20 || matches!(b, b'"' | b'\\')) {
        out.push_str(&Value::from(text).to_string());
        return;
    }
    out.push('"');
    out.push_str(text);
    out.push('"');
}

/// Whether 64 bits of floating point give a decimal number back as it was written.
#[must_use]
pub fn fits_double(digits: &str) -> bool {
    if has_few_digits(digits) {
        return true;
    }
    let double = digits.parse::<f64>().ok().filter(|d| d.is_finite());
    double.is_some_and(|d| {
        Decimal::of(digits).is_some_and(|n| Some(n) == Decimal::of(&format!("{d:e}")))
    })
}

/// A plain number of so few digits that 64 bits of floating point hold them all.
fn has_few_digits(digits: &str) -> bool {
    let unsigned = digits.strip_prefix('-').unwrap_or(digits).as_bytes();
    let points = unsigned.iter().filter(|b| **b == b'.').count();
    let count = unsigned.iter().filter(|b| b.is_ascii_digit()).count();
    (1..=15).contains(&count) && points <= 1 && count + points == unsigned.len()
}

/// Whether a decimal number is the one that 32 bits of binary give back.
#[must_use]
pub fn fits_single(digits: &str) -> bool {
    let single = digits.parse::<f32>().ok().filter(|d| d.is_finite());
    single.is_some_and(|d| {
        Decimal::of(digits).is_some_and(|n| Some(n) == Decimal::of(&format!("{d:e}")))
    })
}

/// A decimal number as a whole one of 64 bits, if it is one.
#[must_use]
pub fn whole(digits: &str) -> Option<i64> {
    let number = Decimal::of(digits)?;
    if number.digits.is_empty() {
        return Some(0);
    }
    let zeros = usize::try_from(number.exponent).ok().filter(|z| *z < 20)?;
    let sign = if number.negative { "-" } else { "" };
    format!("{sign}{}{}", number.digits, "0".repeat(zeros))
        .parse()
        .ok()
}

/// How many decimals a number has.
#[must_use]
pub fn decimals(digits: &str) -> u64 {
    Decimal::of(digits).map_or(0, |n| n.exponent.min(0).unsigned_abs())
}

/// A number's value: digits without zeros at either end, times a power of ten.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn of(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let negative = mantissa.starts_with('-');
        let mantissa = mantissa.trim_start_matches(['-', '+']);
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        if all.is_empty() || !all.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let digits = all.trim_start_matches('0');
        let kept = digits.trim_end_matches('0');
        if kept.is_empty() {
            return Some(Self {
                negative: false,
                digits: String::new(),
                exponent: 0,
            });
        }
        let zeros = i64::try_from(digits.len() - kept.len()).ok()?;
        let exponent = exponent
            .checked_sub(i64::try_from(fraction.len()).ok()?)?
            .checked_add(zeros)?;
        Some(Self {
            negative,
            digits: kept.to_owned(),
            exponent,
        })
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    repeated: Vec<String>,
    /// So many broken elements are passed over, see [`parse_records`].
    recovers: usize,
    too_deep: bool,
}

/// So many are enough to look for them.
const MOST_REPEATED: usize = 5;
/// More are no accident, and to look for the end of each takes time.
const MOST_BROKEN: usize = 1000;
/// No record is longer, in bytes.
const LONGEST_BROKEN: usize = 64 << 10;

impl Parser<'_> {
    fn rest(&self) -> &[u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn blank(&mut self) {
        let blank = |b: &&u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
        self.at += self.rest().iter().take_while(blank).count();
    }

    fn eat(&mut self, token: &str) -> Option<()> {
        self.rest()
            .starts_with(token.as_bytes())
            .then(|| self.at += token.len())
    }

    fn value(&mut self, depth: u32) -> Option<Value> {
        if depth > DEEPEST {
            self.too_deep = true;
            return None;
        }
        self.blank();
        match *self.rest().first()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(Value::String),
            b't' => self.eat("true").map(|()| Value::Bool(true)),
            b'f' => self.eat("false").map(|()| Value::Bool(false)),
            b'n' => self.eat("null").map(|()| Value::Null),
            _ => ["NaN", "Infinity", "-Infinity"]
                .into_iter()
                .find(|word| self.eat(word).is_some())
                .map(|word| Value::String(format!("{MALFORMED}{word}")))
                .or_else(|| self.number()),
        }
    }

    fn object(&mut self, depth: u32) -> Option<Value> {
        self.at += 1;
        let mut fields = Map::new();
        self.blank();
        if self.eat("}").is_some() {
            return Some(Value::Object(fields));
        }
        loop {
            self.blank();
            if self.rest().first() != Some(&b'"') {
                return None;
            }
            let name = self.string().filter(|name| !name.starts_with(MARK))?;
            self.blank();
            self.eat(":")?;
            let value = self.value(depth + 1)?;
            match fields.entry(name) {
                Entry::Vacant(new) => {
                    new.insert(value);
                }
                Entry::Occupied(mut known) => {
                    let is_news = !self.repeated.contains(known.key());
                    if is_news && self.repeated.len() < MOST_REPEATED {
                        self.repeated.push(known.key().clone());
                    }
                    known.insert(value);
                }
            }
            self.blank();
            if self.eat("}").is_some() {
                return Some(Value::Object(fields));
            }
            self.eat(",")?;
        }
    }

    fn array(&mut self, depth: u32) -> Option<Value> {
        self.at += 1;
        let mut all = Vec::new();
        self.blank();
        if self.eat("]").is_some() {
            return Some(Value::Array(all));
        }
        loop {
            self.blank();
            let start = self.at;
            let one = self.value(depth + 1).filter(|_| self.ends_here());
            all.push(match one {
                Some(one) => one,
                None => self.broken(start)?,
            });
            self.blank();
            if self.eat("]").is_some() {
                return Some(Value::Array(all));
            }
            self.eat(",")?;
        }
    }

    /// Whether what follows is what may follow an element of a list.
    fn ends_here(&self) -> bool {
        let mut rest = self.rest().trim_ascii_start().iter();
        self.recovers == 0 || matches!(rest.next(), Some(b',' | b']'))
    }

    /// An element of a list that begins there and is not JSON: to the bracket that ends it, or, where a quotation mark too many hides that,
    /// to the first after which the next one begins. Where it does not end the document is cut short, and the place of that is kept.
    fn broken(&mut self, start: usize) -> Option<Value> {
        if self.recovers == 0 || self.too_deep {
            return None;
        }
        self.recovers -= 1;
        let rest = &self.text.as_bytes()[start..];
        let bytes = &rest[..rest.len().min(LONGEST_BROKEN)];
        let open = *bytes.first()?;
        let close = closing(open)?;
        let length = nested(bytes).filter(|n| goes_on(&rest[*n..], None));
        let length = length.or_else(|| {
            let ends = |n: &usize| bytes[*n - 1] == close && goes_on(&rest[*n..], Some(open));
            (2..=bytes.len()).find(ends)
        })?;
        let raw = self.text.get(start..start + length)?;
        self.at = start + length;
        Some(as_malformed(raw))
    }

    /// A text. What JSON does not allow within one makes it a marked one.
    fn string(&mut self) -> Option<String> {
        let start = self.at + 1;
        let bytes = self.text.as_bytes();
        let mut end = start;
        let mut plain = true;
        loop {
            let Some(byte) = bytes.get(end) else {
                self.at = bytes.len();
                return None;
            };
            match byte {
                b'"' => break,
                b'\\' => {
                    plain = false;
                    end += 2;
                }
                byte => {
                    plain &= *byte >= 0x20;
                    end += 1;
                }
            }
        }
        self.at = end + 1;
        let inner = self.text.get(start..end)?;
        let read = if plain {
            Some(inner.to_owned())
        } else {
            serde_json::from_str::<String>(self.text.get(start - 1..=end)?).ok()
        };
        let read = read.filter(|text| !text.starts_with(MARK));
        Some(read.unwrap_or_else(|| format!("{MALFORMED}{inner}")))
    }

    fn number(&mut self) -> Option<Value> {
        let part = |b: &&u8| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let length = self.rest().iter().take_while(part).count();
        let token = self.text.get(self.at..self.at + length)?;
        if !is_number(token) {
            return None;
        }
        self.at += length;
        let short = token.len() < 19 && token != "-0";
        if let Some(whole) = token.parse::<i64>().ok().filter(|_| short) {
            return Some(Value::from(whole));
        }
        let number: Option<Number> = match token.parse::<i64>() {
            Ok(whole) => Some(whole.into()),
            Err(_) => token.parse::<f64>().ok().and_then(Number::from_f64),
        };
        let same = number.filter(|n| n.to_string() == token);
        Some(same.map_or_else(|| Value::String(format!("{NUMBER}{token}")), Value::Number))
    }
}

/// The length of the object or list that begins there, by its brackets outside of texts.
fn nested(bytes: &[u8]) -> Option<usize> {
    let (mut open, mut in_text, mut at) = (Vec::new(), false, 0);
    while let Some(byte) = bytes.get(at) {
        match (in_text, byte) {
            (true, b'\\') => at += 1,
            (_, b'"') => in_text = !in_text,
            (false, b'{' | b'[') => open.extend(closing(*byte)),
            (false, b'}' | b']') if open.pop() != Some(*byte) => return None,
            (false, b'}' | b']') if open.is_empty() => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    None
}

fn closing(bracket: u8) -> Option<u8> {
    match bracket {
        b'{' => Some(b'}'),
        b'[' => Some(b']'),
        _ => None,
    }
}

/// Whether the list ends there or goes on, with this where it is given.
fn goes_on(bytes: &[u8], with: Option<u8>) -> bool {
    let rest = bytes.trim_ascii_start();
    let next = || rest[1..].trim_ascii_start().first().copied();
    match rest.first() {
        Some(b']') => true,
        Some(b',') => with.is_none() || next() == with,
        _ => false,
    }
}

/// JSON's own grammar of numbers.
fn is_number(token: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let unsigned = token.strip_prefix('-').unwrap_or(token);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|e| digits(e.strip_prefix(['-', '+']).unwrap_or(e)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_digit_comes_back() {
        for number in [
            "0",
            "-1",
            "1.5",
            "1234567.890123456789",
            "12345678901234567891",
            "1.10",
            "1e3",
            "-0",
            "0.1",
            "100000000000000000000.5",
            "1E-7",
            "9007199254740993",
            "1e400",
            "-9223372036854775808",
            "18446744073709551615",
        ] {
            let text = format!("{{\"a\":[{number}]}}");
            let value = parse(&text).unwrap();
            assert_eq!(to_text(&value), text);
        }
        assert_eq!(parse(" [1.5, 2 ] ").unwrap(), json!([1.5, 2]));
        for wrong in [
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "--1",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "",
            "[1",
            "[1] 2",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn it_reads_what_serde_json_reads() {
        for text in [
            r#"{"a": "x\n\u4e2d\ud83d\ude00\"\\", "b": [true, false, null, {}], "a": 2}"#,
            "\"\u{7f}中\"",
            "[]",
            r#"{"": {"x": [[[1]]]}}"#,
        ] {
            assert_eq!(parse(text), serde_json::from_str(text).ok(), "{text}");
        }
    }

    #[test]
    fn a_value_that_is_none_is_kept_and_found() {
        for (value, raw) in [
            ("NaN", "NaN"),
            ("-Infinity", "-Infinity"),
            ("\"a\nb\"", "a\nb"),
            (r#""x\ud800y""#, r"x\ud800y"),
            (r#""\q""#, r"\q"),
            ("\"\u{10FFFE}n7\"", "\u{10FFFE}n7"),
        ] {
            let record = parse(&format!("{{\"a\": 1, \"b\": {{\"c\": {value}}}}}")).unwrap();
            assert_eq!(
                malformed_within(&record),
                Some(("b".to_owned(), raw)),
                "{value}"
            );
            let back: Value = serde_json::from_str(&to_text(&record)).unwrap();
            assert_eq!(back["b"]["c"], raw);
        }
        assert_eq!(malformed_within(&json!({"a": "b"})), None);
    }

    #[test]
    fn one_broken_record_of_many_is_kept_and_found() {
        for broken in [
            r#"{"a":2,}"#,
            r#"{"a":,"b":2}"#,
            r#"{"a":"x"y","b":1}"#,
            r#"{"a":1 "b":2}"#,
            r#"{a:2}"#,
            r#"{"a":[1,2}"#,
            "{\"a\":01}",
            "[1,,2]",
        ] {
            let text = format!(r#"{{"data":[{{"a":1}}, {broken} ,{{"a":3}}],"n":3}}"#);
            let (value, _) = parse_records(&text).unwrap_or_else(|at| panic!("{text}: {at}"));
            let records = value["data"].as_array().unwrap();
            assert_eq!((records.len(), &value["n"]), (3, &json!(3)), "{text}");
            let raw = malformed(&records[1]).or_else(|| Some(malformed_within(&records[1])?.1));
            assert!(
                raw.is_some_and(|raw| broken.contains(raw)),
                "{text}: {value}"
            );
            assert_eq!(records[2], json!({"a": 3}));
            assert_eq!(parse(&text), None);
        }
        for cut in [
            r#"{"data":[{"a":1},{"a"#,
            r#"[{"a":1},{"a":2}"#,
            r#"{"a":1,}"#,
            "[1,]",
            "[x,1]",
        ] {
            assert!(parse_records(cut).is_err(), "{cut}");
        }
        // Nobody may keep it busy for long.
        assert!(parse_records(&format!("[{}", "{{},".repeat(1 << 20))).is_err());
        let deep = format!("{}1{}", "[".repeat(2000), "]".repeat(2000));
        assert!(parse_records(&deep).is_err());
    }

    #[test]
    fn decimals_are_compared_and_read_whole() {
        for (digits, fits) in [
            ("0.1", true),
            ("1.50", true),
            ("1234567.890123456789", false),
            ("9007199254740993", false),
            ("1e400", false),
            ("-0.0", true),
        ] {
            assert_eq!(fits_double(digits), fits, "{digits}");
        }
        for (digits, due) in [
            ("9007199254740993.0", Some(9_007_199_254_740_993)),
            ("1e3", Some(1000)),
            ("-12.00", Some(-12)),
            ("0.00", Some(0)),
            ("1.5", None),
            ("9223372036854775808", None),
            ("1e999999999", None),
        ] {
            assert_eq!(whole(digits), due, "{digits}");
        }
        assert_eq!(
            (decimals("1.250"), decimals("1e3"), decimals("1e-4")),
            (2, 0, 4)
        );
    }
}
