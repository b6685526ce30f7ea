//! The forms in which programs print a secret without meaning to: in an address, in JSON, in a header.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but what needs no encoding anywhere in an address (RFC 3986).
const STRICT: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// As Python's `quote` does it.
const PATH: AsciiSet = STRICT.remove(b'/');
/// As `encodeURIComponent` does it.
const COMPONENT: AsciiSet = STRICT
    .remove(b'!')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');
/// The lengths of lines of base64 (RFC 2045, RFC 7468).
const LINES: [usize; 2] = [76, 64];
/// A shorter part of a base64 text says nothing.
const SHORTEST: usize = 7;

/// The value and its encodings, each once.
pub(super) fn forms(value: &str) -> Vec<String> {
    let mut forms = vec![value.to_owned()];
    for set in [NON_ALPHANUMERIC, &STRICT, &PATH, &COMPONENT] {
        let encoded = utf8_percent_encode(value, set).to_string();
        // Within an address that is a parameter of another one.
        let twice = utf8_percent_encode(&encoded, &STRICT).to_string();
        forms.extend([
            encoded.replace("%20", "+"),
            lower_hex(&encoded),
            encoded,
            twice,
        ]);
    }
    let json = serde_json::Value::from(value).to_string();
    let json = json[1..json.len() - 1].to_owned();
    let ascii = without_other_letters(&json);
    forms.extend([ascii.replace('/', "\\/"), ascii]);
    forms.extend([json.replace('/', "\\/"), json]);
    forms.extend(in_markup(value));
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        // Within a longer text (user:password) it begins at any of three places of a group.
        for before in 0..3 {
            let mut bytes = vec![0; before];
            bytes.extend_from_slice(value.as_bytes());
            let encoded = engine.encode(&bytes);
            // Without the letters that also depend on what is around it.
            let from = [0, 2, 3][before];
            let to = bytes.len() * 8 / 6;
            if let Some(inner) = encoded.get(from..to).filter(|i| i.len() >= SHORTEST) {
                forms.push(inner.to_owned());
                if before == 0 {
                    forms.extend(LINES.iter().flat_map(|width| lines(inner, *width)));
                }
            }
        }
    }
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// As `base64`, Python and OpenSSL break a longer text into lines.
fn lines(encoded: &str, width: usize) -> Vec<String> {
    let lines = encoded.as_bytes().chunks(width);
    let texts = lines.filter_map(|line| std::str::from_utf8(line).ok());
    let whole = texts.filter(|line| line.len() >= SHORTEST && line.len() < encoded.len());
    whole.map(str::to_owned).collect()
}

fn lower_hex(encoded: &str) -> String {
    let mut parts = encoded.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (hex, rest) = part.split_at(part.len().min(2));
        out.extend(["%", &hex.to_ascii_lowercase(), rest]);
    }
    out
}

/// As Python's `json.dumps` and others write it.
fn without_other_letters(json: &str) -> String {
    let mut out = String::new();
    for letter in json.chars() {
        if letter.is_ascii() {
            out.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// In XML and HTML, where quotation marks have several names, or none.
fn in_markup(value: &str) -> Vec<String> {
    let least = value.replace('&', "&amp;");
    let least = least.replace('<', "&lt;").replace('>', "&gt;");
    let named = [
        ("&quot;", "&#39;"),
        ("&quot;", "&#x27;"),
        ("&#34;", "&#39;"),
        ("&quot;", "&apos;"),
    ];
    let named = named.map(|(double, single)| least.replace('"', double).replace('\'', single));
    named.into_iter().chain([least]).collect()
}
