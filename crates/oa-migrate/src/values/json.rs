//! JSON: whether a text is one, what PostgreSQL's `jsonb` would lose of it, and a normal form for comparing.
//!
//! The normal form sorts the keys of an object, keeps the last of two equal keys (as `jsonb` does), spells strings without
//! needless escapes and numbers as plain decimals, so that two texts have the same normal form just when `jsonb` would hold the
//! same for both.

use std::collections::BTreeMap;

use super::decimal::Decimal;

/// PostgreSQL's parser gives up when its stack is full; no real document comes near this.
const MAX_DEPTH: usize = 256;

/// What reading a JSON text found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Json {
    pub(crate) normal: Vec<u8>,
    /// `jsonb` holds all of it: no key twice, keys in `jsonb`'s own order already.
    pub(crate) order_kept: bool,
    /// `jsonb` takes it at all: no U+0000, no lone surrogate, no absurd exponent.
    pub(crate) fits_jsonb: bool,
}

/// Reads a whole text as JSON (RFC 8259).
pub(crate) fn parse(text: &[u8]) -> Option<Json> {
    std::str::from_utf8(text).ok()?;
    let mut reader = Reader {
        text,
        at: 0,
        order_kept: true,
        fits_jsonb: true,
    };
    let mut normal = Vec::with_capacity(text.len());
    reader.blanks();
    reader.value(&mut normal, 0)?;
    reader.blanks();
    (reader.at == text.len()).then_some(Json {
        normal,
        order_kept: reader.order_kept,
        fits_jsonb: reader.fits_jsonb,
    })
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    order_kept: bool,
    fits_jsonb: bool,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, expected: u8) -> Option<()> {
        (self.peek()? == expected).then(|| self.at += 1)
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            b'{' => self.object(out, depth),
            b'[' => self.array(out, depth),
            b'"' => {
                let text = self.string()?;
                write_string(&text, out);
                Some(())
            }
            b't' => self.word(b"true", out),
            b'f' => self.word(b"false", out),
            b'n' => self.word(b"null", out),
            _ => self.number(out),
        }
    }

    fn word(&mut self, word: &[u8], out: &mut Vec<u8>) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| {
            self.at += word.len();
            out.extend_from_slice(word);
        })
    }

    fn array(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        self.take(b'[')?;
        out.push(b'[');
        self.blanks();
        if self.peek()? == b']' {
            self.at += 1;
            out.push(b']');
            return Some(());
        }
        loop {
            self.blanks();
            self.value(out, depth + 1)?;
            self.blanks();
            match self.peek()? {
                b',' => out.push(b','),
                b']' => {
                    self.at += 1;
                    out.push(b']');
                    return Some(());
                }
                _ => return None,
            }
            self.at += 1;
        }
    }

    fn object(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        self.take(b'{')?;
        let mut members: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut last: Option<Vec<u8>> = None;
        self.blanks();
        if self.peek()? == b'}' {
            self.at += 1;
            out.extend_from_slice(b"{}");
            return Some(());
        }
        loop {
            self.blanks();
            let key = self.string()?;
            self.blanks();
            self.take(b':')?;
            self.blanks();
            let mut value = Vec::new();
            self.value(&mut value, depth + 1)?;
            // jsonb orders keys by length, then bytes.
            if last
                .as_ref()
                .is_some_and(|l| (l.len(), l) >= (key.len(), &key))
            {
                self.order_kept = false;
            }
            last = Some(key.clone());
            members.insert(key, value);
            self.blanks();
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    break;
                }
                _ => return None,
            }
        }
        out.push(b'{');
        for (i, (key, value)) in members.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            write_string(key, out);
            out.push(b':');
            out.extend_from_slice(value);
        }
        out.push(b'}');
        Some(())
    }

    fn number(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let whole = self.digits();
        if whole == 0 || (whole > 1 && self.text[self.at - whole] == b'0') {
            return None;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return None;
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return None;
            }
        }
        let text = &self.text[start..self.at];
        match Decimal::parse(text) {
            Some(decimal) => decimal.write_normal(out),
            None => {
                self.fits_jsonb = false;
                out.extend_from_slice(text);
            }
        }
        Some(())
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        self.take(b'"')?;
        let mut out = Vec::new();
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(out),
                b'\\' => self.escape(&mut out)?,
                0..=0x1f => return None,
                _ => out.push(byte),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let byte = self.peek()?;
        self.at += 1;
        out.push(match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut unit = self.hex()?;
                if (0xD800..0xDC00).contains(&unit) && self.text[self.at..].starts_with(b"\\u") {
                    let back = self.at;
                    self.at += 2;
                    let low = self.hex()?;
                    if (0xDC00..0xE000).contains(&low) {
                        unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
                    } else {
                        self.at = back;
                    }
                }
                let Some(c) = char::from_u32(unit).filter(|c| *c != '\0') else {
                    self.fits_jsonb = false;
                    out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                    return Some(());
                };
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Some(());
            }
            _ => return None,
        });
        Some(())
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }
}

fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0..=0x1f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn normal(text: &str) -> Option<String> {
        parse(text.as_bytes()).map(|j| String::from_utf8(j.normal).unwrap())
    }

    #[test]
    fn what_jsonb_holds_alike_has_one_normal_form() {
        assert_eq!(
            normal(r#" {"b": 1.50, "a": [1e2, "\u54c1\/"], "b": 2} "#).unwrap(),
            r#"{"a":[100,"品/"],"b":2}"#
        );
    }

    #[test]
    fn what_is_not_json_is_not_read() {
        for text in [
            "", "{", "[1,]", "{\"a\":}", "'a'", "01", "+1", "1.", "nul", "[1] x", "\"\n\"",
            "\"\\x\"",
        ] {
            assert_eq!(normal(text), None, "{text}");
        }
    }

    #[test]
    fn losses_of_jsonb_are_seen() {
        assert!(parse(br#"{"a":1,"b":2,"aa":3}"#).unwrap().order_kept);
        assert!(!parse(br#"{"b":1,"a":2}"#).unwrap().order_kept);
        assert!(!parse(br#"{"a":1,"a":2}"#).unwrap().order_kept);
        for text in [&b"\"\\u0000\""[..], b"\"\\ud800\"", b"1e999999"] {
            assert!(!parse(text).unwrap().fits_jsonb);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_like_another_parser(text in "[\\[\\]{}\",:0-9eE.tru\\\\ n-]{0,24}") {
            let other = serde_json::from_str::<serde_json::Value>(&text);
            // That parser refuses lone surrogates and numbers that are too big for it, this one notes them.
            if let Ok(value) = other {
                let mine = parse(text.as_bytes());
                prop_assert!(mine.is_some(), "{value}");
            } else if let Some(mine) = parse(text.as_bytes()) {
                prop_assert!(!mine.fits_jsonb || text.to_lowercase().contains('e'));
            }
        }
    }
}
