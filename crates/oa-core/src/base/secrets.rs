//! Secrets by reference, and redaction of everything that is printed or stored.
//!
//! A secret is written in the configuration as `env:NAME` or `file:PATH`. Its value lives in a [`Secret`], which cannot be
//! formatted, and is remembered by [`redact`], which removes it in all its forms from log lines, error texts and alert bodies,
//! together with whatever looks like a secret although nobody has said so.

mod environment;
mod forms;

use std::borrow::Cow;
use std::fmt;
use std::sync::{LazyLock, OnceLock, RwLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use percent_encoding::percent_decode_str;
use regex::{Captures, Regex};
use serde_json::Value;

pub use self::environment::{is_secret_variable, keep_from};

/// A value that must never be shown. Its `Debug` prints `[redacted]`; there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value and makes [`redact`] remove it from now on.
    #[must_use]
    pub fn new(value: String) -> Self {
        remember(&value);
        Self(value)
    }

    /// The value itself, for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

const MARK: &str = "[redacted]";
/// Shorter values would redact ordinary words.
const SHORTEST: usize = 6;
/// What stands for a password in our own advice, and words that are no secret although people use them as one.
const NOT_SECRET: [&str; 6] = [
    "PASSWORD",
    "password",
    "postgres",
    "postgresql",
    "localhost",
    "secret",
];

/// Values to be removed, in every form in which a program may print them.
#[derive(Default)]
struct Known {
    values: Forms,
    /// Whole addresses. Their secret parts are among the values: what is left of an address says where something happened.
    addresses: Forms,
}

/// Finds all forms of all values in one pass, the longest first: a secret that contains another one goes as a whole.
#[derive(Default)]
struct Forms {
    values: Vec<String>,
    matcher: OnceLock<Option<AhoCorasick>>,
}

impl Forms {
    /// Returns whether it is new.
    fn add(&mut self, value: &str) -> bool {
        if !is_secret(value) || self.values.iter().any(|v| v == value) {
            return false;
        }
        self.values.push(value.to_owned());
        self.matcher = OnceLock::new();
        true
    }

    fn matcher(&self) -> Option<&AhoCorasick> {
        let build = || {
            let forms: Vec<String> = self.values.iter().flat_map(|v| forms::forms(v)).collect();
            let built = AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                // A program that ends soon searches less than building the tables of a DFA takes.
                .kind(Some(AhoCorasickKind::ContiguousNFA))
                .build(forms);
            built.ok().filter(|m| m.patterns_len() > 0)
        };
        self.matcher.get_or_init(build).as_ref()
    }

    fn are_in(&self, text: &str) -> bool {
        self.matcher().is_some_and(|m| m.is_match(text))
    }

    /// How many bytes at the end of a text are the beginning of a value, and tell something of it.
    fn begun_at_end(&self, text: &str) -> Option<usize> {
        let forms = self.values.iter().flat_map(|v| forms::forms(v));
        let begun = forms.filter_map(|form| {
            let least = SHORTEST.max(form.len() / 4);
            let mut lengths = (least..form.len()).rev();
            lengths.find(|n| form.get(..*n).is_some_and(|begin| text.ends_with(begin)))
        });
        begun.max()
    }

    fn remove(&self, text: &mut String) {
        if let Some(matcher) = self.matcher()
            && matcher.is_match(text.as_str())
        {
            *text = matcher.replace_all(text, &vec![MARK; matcher.patterns_len()]);
        }
    }
}

fn is_secret(value: &str) -> bool {
    value.len() >= SHORTEST && !NOT_SECRET.contains(&value)
}

static KNOWN: LazyLock<RwLock<Known>> = LazyLock::new(RwLock::default);

fn remember(value: &str) {
    if let Ok(mut known) = KNOWN.write() {
        let Known { values, addresses } = &mut *known;
        let list = if value.contains("://") {
            addresses
        } else {
            &mut *values
        };
        if list.add(value) {
            for part in secret_parts(value) {
                values.add(&part);
            }
            // What is printed line by line is seen line by line, and each line may stand behind something else.
            if value.contains('\n') {
                for line in value.lines().map(str::trim) {
                    values.add(line);
                }
            }
        }
    }
}

/// The secrets inside an address: its password, tokens among its parameters, the end of a robot's path. Where the password is not
/// encoded nobody can say where it ends: then each piece of it is one.
fn secret_parts(address: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    if let Some((_, rest)) = address.split_once("://") {
        if let Some((before, _)) = rest.rsplit_once('@')
            && let Some((_, password)) = before.split_once(':')
        {
            parts.extend([password.to_owned(), decoded(password)]);
            let pieces = password.split(['@', ':', '/', '?', '#']);
            parts.extend(pieces.map(str::to_owned));
        }
        if let Some((_, token)) = rest.split_once("/hook/") {
            parts.push(token.to_owned());
        }
    }
    for found in PARAMETER.captures_iter(address) {
        if is_secret_parameter(&found[2]) {
            parts.extend([found[3].to_owned(), decoded(&found[3])]);
        }
    }
    parts.extend(ASSIGNMENT.captures_iter(address).map(|c| c[3].to_owned()));
    // libpq's other form, where a value may hold anything.
    let pairs = super::conninfo::pairs(address)
        .unwrap_or_default()
        .into_iter();
    let secret = pairs.filter(|pair| is_secret_parameter(pair.name));
    parts.extend(secret.map(|pair| pair.value));
    parts
}

macro_rules! pattern {
    ($name:ident, $doc:literal, $text:literal) => {
        #[doc = $doc]
        static $name: LazyLock<Regex> = LazyLock::new(|| {
            #[allow(clippy::expect_used, reason = "a constant, which the tests use")]
            Regex::new($text).expect("a valid pattern")
        });
    };
}

// No value goes beyond a quotation mark or a backslash: what is redacted inside JSON stays JSON.
pattern!(
    PARAMETER,
    "A parameter of a request, with or without what stands before it.",
    r#"([?&;])([A-Za-z0-9_.-]+)=([^&\s"'<>`\\，。；]+)"#
);
pattern!(
    ASSIGNMENT,
    "A secret by its name: `password=…` of libpq, `token: \"…\"` of JSON, Python and logs.",
    r#"(?i)(?-u:\b)([a-z0-9_.-]*(?:token|secret|passw(?:or)?d|pwd|api[_-]?key|access[_-]?key|private[_-]?key))(\s*=\s*\\?["']?|\\?["']?\s*[:=]\s*\\?["'])([^\s"'<>`\\&,;，。；{\[(][^\s"'<>`\\&,;，。；]*)"#
);
pattern!(
    QUOTED,
    "The same in quotation marks, where a value may hold spaces and commas.",
    r#"(?i)(?-u:\b)([a-z0-9_.-]*(?:token|secret|passw(?:or)?d|pwd|passphrase|api[_-]?key|access[_-]?key|private[_-]?key))(\\?["']?\s*[:=]\s*\\?)("[^"\\\r\n{\[(][^"\\\r\n]*|'[^'"\\\r\n{\[(][^'"\\\r\n]*)"#
);
pattern!(
    HEADER,
    "A header that carries a secret, to the end of its line.",
    r#"(?i)(?-u:\b)((?:proxy-)?authorization|(?:set-)?cookie|x-api-key|x-auth-token|x-access-token)(\\?["']\s*:\s*\\?["']|\s*:\s*\\?["']?)([^"'\\\r\n{\[\s][^"'\\\r\n]*)"#
);
pattern!(
    BEARER,
    "A token that is named by its scheme alone.",
    r"(?i)(?-u:\b)(bearer\s+)([a-z0-9._~+/=-]*[0-9][a-z0-9._~+/=-]*)"
);
pattern!(
    USERINFO,
    "`user:password@host` without a scheme.",
    r#"(^|[^A-Za-z0-9_.:/@-])([A-Za-z0-9_.-]+):([^\s:@/"'<>`\\\[]+)@([A-Za-z0-9\[])"#
);
pattern!(
    ADDRESS,
    "An address, to its end.",
    r#"([A-Za-z][A-Za-z0-9+.-]*)://([^\s"'<>`\\，。；]+)"#
);

/// Names that are secret only where it is certain that they name a parameter of a request.
const SECRET_PARAMETERS: [&str; 6] = ["key", "sign", "sig", "auth", "jwt", "sessionid"];
/// Ends of names that are secret everywhere.
const SECRET_ENDINGS: [&str; 9] = [
    "token",
    "secret",
    "password",
    "passwd",
    "pwd",
    "signature",
    "apikey",
    "_key",
    "credential",
];

/// Whether a parameter of a request is a secret, by its name.
#[must_use]
pub fn is_secret_parameter(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_PARAMETERS.contains(&name.as_str())
        || SECRET_ENDINGS.iter().any(|end| name.ends_with(end))
}

/// Removes from a text every known secret, and whatever looks like one: passwords and tokens in addresses, with or without their
/// scheme, secret parameters, headers, assignments.
#[must_use]
pub fn redact(text: &str) -> String {
    let mut out = text.to_owned();
    let known = KNOWN.read();
    if let Ok(known) = &known {
        known.values.remove(&mut out);
    }
    if SIGNS.as_ref().is_none_or(|signs| signs.is_match(&out)) {
        redact_by_form(&mut out);
    }
    if let Ok(known) = &known {
        known.addresses.remove(&mut out);
    }
    out
}

/// The same for a text that may have been cut off within a secret: the beginning of a known one, at its end, goes as well.
#[must_use]
pub fn redact_cut_off(text: &str) -> String {
    let mut out = redact(text);
    let begun = KNOWN.read().ok().and_then(|k| k.values.begun_at_end(&out));
    if let Some(length) = begun {
        out.truncate(out.len() - length);
        out.push_str(MARK);
    }
    out
}

/// Whether [`redact`] leaves a text, and each part of it, as it is: so that nobody has to look at each of many lines.
#[must_use]
pub fn is_free_of_secrets(text: &str) -> bool {
    let signs = SIGNS.as_ref().is_none_or(|signs| signs.is_match(text));
    let known = KNOWN.read();
    let known = known.is_ok_and(|k| k.values.are_in(text) || k.addresses.are_in(text));
    !signs && !known
}

/// Without one of these no pattern finds anything, and most texts have none: a program prints millions of lines.
static SIGNS: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .kind(Some(AhoCorasickKind::ContiguousNFA))
        .build([
            "://",
            "@",
            "token",
            "secret",
            "passw",
            "passphrase",
            "pwd",
            "apikey",
            "api_key",
            "api-key",
            "accesskey",
            "access_key",
            "access-key",
            "privatekey",
            "private_key",
            "private-key",
            "authorization",
            "cookie",
            "bearer",
            "key=",
            "sign=",
            "sig=",
            "auth=",
            "jwt=",
            "sessionid=",
            "signature=",
            "credential=",
        ])
        .ok()
});

/// Whatever looks like a secret although nobody has said so.
fn redact_by_form(out: &mut String) {
    replace(out, &ADDRESS, &["://"], |c| {
        format!("{}://{}", &c[1], redact_address(&c[1], &c[2]))
    });
    replace(out, &PARAMETER, &["="], |c| {
        match is_secret_parameter(&c[2]) {
            true => format!("{}{}={MARK}", &c[1], &c[2]),
            false => c[0].to_owned(),
        }
    });
    // A reference names a secret and is none.
    let is_name = |value: &str| {
        value.starts_with("env:") || value.starts_with("file:") || NOT_SECRET.contains(&value)
    };
    replace(out, &QUOTED, &["\"", "'"], |c| {
        let (mark, value) = c[3].split_at(1);
        match is_name(value) {
            true => c[0].to_owned(),
            false => format!("{}{}{mark}{MARK}", &c[1], &c[2]),
        }
    });
    replace(out, &ASSIGNMENT, &["=", ":"], |c| match is_name(&c[3]) {
        true => c[0].to_owned(),
        false => format!("{}{}{MARK}", &c[1], &c[2]),
    });
    replace(out, &HEADER, &[":"], |c| {
        format!("{}{}{MARK}", &c[1], &c[2])
    });
    replace(out, &BEARER, &["earer", "EARER"], |c| {
        format!("{}{MARK}", &c[1])
    });
    replace(out, &USERINFO, &["@"], |c| match &c[2] {
        "mailto" | "sha256" => c[0].to_owned(),
        _ => format!("{}{}:{MARK}@{}", &c[1], &c[2], &c[4]),
    });
}

/// Most texts hold none of the signs without which there is nothing to find.
fn replace(
    text: &mut String,
    pattern: &Regex,
    signs: &[&str],
    with: impl Fn(&Captures<'_>) -> String,
) {
    if !signs.iter().any(|sign| text.contains(sign)) {
        return;
    }
    if let Cow::Owned(changed) = pattern.replace_all(text, with) {
        *text = changed;
    }
}

/// The same for every text inside a JSON value.
#[must_use]
pub fn redact_json(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(redact(&text)),
        Value::Array(all) => all.into_iter().map(redact_json).collect(),
        Value::Object(all) => {
            let all = all.into_iter().map(|(k, v)| (k, redact_json(v)));
            Value::Object(all.collect())
        }
        other => other,
    }
}

/// `rest` is what follows `scheme://`.
fn redact_address(scheme: &str, rest: &str) -> String {
    let (user, tail) = split_userinfo(scheme, rest);
    let mut out = match user {
        None => String::new(),
        Some(user) => match user.split_once(':') {
            Some((_, "PASSWORD")) => format!("{user}@"),
            Some((name, _)) => format!("{name}:{MARK}@"),
            // Sites take a token in the place of the user, a database takes a user without a password.
            None if scheme.starts_with("http") => format!("{MARK}@"),
            None => format!("{user}@"),
        },
    };
    // A Feishu robot carries its secret as the last part of the path.
    match tail.split_once("/hook/") {
        Some((before, token)) if !token.is_empty() => {
            let end = token.find(['?', '#']).unwrap_or(token.len());
            out.push_str(&format!("{before}/hook/{MARK}{}", &token[end..]));
        }
        _ => out.push_str(tail),
    }
    out
}

/// Where a password is not encoded, it ends with the last @ that may end it: nothing of it may be left.
fn split_userinfo<'a>(scheme: &str, rest: &'a str) -> (Option<&'a str>, &'a str) {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = &rest[..end];
    let port = authority.rsplit_once(':').map_or("", |(_, port)| port);
    let is_password = !port.bytes().all(|b| b.is_ascii_digit());
    let last = match rest.rfind('@') {
        None => None,
        // An @ in a path is no secret; after something like a password that is cut by a / it is.
        Some(at) if at < end || scheme.starts_with("postgres") || is_password => Some(at),
        Some(_) => authority.rfind('@'),
    };
    match last {
        Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
        None => (None, rest),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    use super::*;

    #[test]
    fn a_secret_cannot_be_printed_and_is_removed_from_texts() {
        let secret = Secret::new("s3cr3t-value".to_owned());
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(
            redact("token s3cr3t-value refused"),
            "token [redacted] refused"
        );
    }

    #[test]
    fn urls_lose_passwords_tokens_and_hooks_but_stay_recognisable() {
        for (from, to) in [
            (
                "could not open postgresql://oa:tiger9@db:5432/oa",
                "could not open postgresql://oa:[redacted]@db:5432/oa",
            ),
            (
                "POST https://oapi.dingtalk.com/robot/send?access_token=abc&timestamp=1 failed",
                "POST https://oapi.dingtalk.com/robot/send?access_token=[redacted]&timestamp=1 failed",
            ),
            (
                "https://open.feishu.cn/open-apis/bot/v2/hook/aa-bb",
                "https://open.feishu.cn/open-apis/bot/v2/hook/[redacted]",
            ),
            ("http://x/?a=1&b=2", "http://x/?a=1&b=2"),
            ("no url here: 12:30", "no url here: 12:30"),
            (
                "it should look like postgresql://USER:PASSWORD@HOST:5432/DATABASE",
                "it should look like postgresql://USER:PASSWORD@HOST:5432/DATABASE",
            ),
            (
                "https://medium.com/@somebody/a?b=c",
                "https://medium.com/@somebody/a?b=c",
            ),
            ("https://h:8080/@somebody", "https://h:8080/@somebody"),
            (
                "https://ghp_0123456789@github.com/x",
                "https://[redacted]@github.com/x",
            ),
        ] {
            assert_eq!(redact(from), to);
            assert_eq!(redact(to), to, "once is enough");
        }
    }

    #[test]
    fn what_looks_like_a_secret_goes_without_being_known() {
        for text in [
            "Max retries exceeded with url: /data/receipts?token=HIDDEN1 (Caused by NewConnectionError)",
            "GET /a?b=1&access_token=HIDDEN1&c=2",
            "/a?x=1&amp;sign=HIDDEN1",
            "/a?API_KEY=HIDDEN1",
            "could not reach PostgreSQL at HIDDEN0:HIDDEN1@127.0.0.1:54999",
            "postgresql://u:HIDDEN1@HIDDEN2@h/d failed",
            "postgresql://u:HIDDEN1/HIDDEN2@h/d failed",
            "postgresql://u:HIDDEN1?HIDDEN2@h/d failed",
            "postgresql://u:HIDDEN1#HIDDEN2:HIDDEN3@h/d failed",
            "https://u:HIDDEN1/HIDDEN2@h/d failed",
            "ftp://u:HIDDEN1@h",
            "host=h password=HIDDEN1 dbname=d",
            "host=h password = 'HIDDEN1' dbname=d",
            "PGPASSWORD=HIDDEN1 psql",
            "host=h password='HIDDEN1 and HIDDEN2, HIDDEN3' dbname=d",
            r#"{"password": "HIDDEN1, it's HIDDEN2", "a": 1}"#,
            r#"{\"passphrase\": \"HIDDEN1 HIDDEN2\"}"#,
            r#"{"token": "HIDDEN1", "a": 1}"#,
            r#"{\"password\":\"HIDDEN1\"}"#,
            "{'access_token': 'HIDDEN1'}",
            "Authorization: Bearer HIDDEN1",
            "> authorization: Basic HIDDEN1=",
            r#"{"Authorization": "HIDDEN1 HIDDEN2"}"#,
            "curl -H 'Cookie: a=HIDDEN1; b=HIDDEN2' https://h/",
            "Set-Cookie: sid=HIDDEN1; Path=/",
            "refused: Bearer HIDDEN1",
        ] {
            let shown = redact(text);
            for hidden in ["HIDDEN1", "HIDDEN2", "HIDDEN3"] {
                assert!(!shown.contains(hidden), "{text} -> {shown}");
            }
            assert!(shown.contains("[redacted]"), "{shown}");
            assert_eq!(redact(&shown), shown, "once is enough");
        }
    }

    #[test]
    fn ordinary_texts_stay_as_they_are() {
        for text in [
            "write password = \"env:OA_BACKUP_PASSWORD\" below [backup]",
            "password is not set; see docs/configuration.md",
            "wrong password: check it",
            "duplicate key value violates unique constraint: Key (code)=(ZZ)",
            "ops@example.com at 12:30, mailto:ops@example.com",
            "header authorization of source zhihui refers to env:ZHIHUI_AUTH_TOKEN, which is not set",
            "Cookies of rongda expire: log in again",
            "GET /a?page=2&day=2025-12-01",
            "the key=value form",
            "a bearer of news",
        ] {
            assert_eq!(redact(text), text);
        }
    }

    #[test]
    fn encoded_secrets_are_removed_too() {
        let _secret = Secret::new("p@ss w/rd+1='ü".to_owned());
        for text in [
            "p%40ss%20w%2Frd%2B1%3D%27%C3%BC",
            "p%40ss%20w%2frd%2b1%3d%27%c3%bc",
            "p%40ss+w%2Frd%2B1%3D%27%C3%BC",
            "p%40ss%20w/rd%2B1%3D%27%C3%BC",
            "p%40ss%20w%2Frd%2B1%3D'%C3%BC",
            "p@ss w\\/rd+1='ü",
            "p@ss w/rd+1='\\u00fc",
            "p@ss w/rd+1=&#39;ü",
            "p@ss w/rd+1=&#x27;ü",
        ] {
            assert_eq!(redact(&format!("a {text} b")), "a [redacted] b", "{text}");
        }
        for before in ["", "u", "us", "usr:"] {
            let text = STANDARD.encode(format!("{before}p@ss w/rd+1='ü and more"));
            let shown = redact(&text);
            assert!(
                shown.contains(MARK) && shown.len() < text.len(),
                "{text}: {shown}"
            );
        }
    }

    #[test]
    fn base64_in_lines_and_addresses_in_addresses_hide_nothing() {
        let value = "a-long-one/with 9 and more ".repeat(8);
        let _ = Secret::new(value.clone());
        let encoded = STANDARD.encode(&value);
        for width in [64, 76] {
            let (whole, _) = encoded.split_at(encoded.len() / width * width);
            for line in whole.as_bytes().chunks(width) {
                let line = std::str::from_utf8(line).unwrap();
                assert_eq!(redact(&format!("{line}\n")), "[redacted]\n");
            }
        }
        let _ = Secret::new("once/twice+9".to_owned());
        assert_eq!(
            redact("/login?next=%2Fa%3Ft%3Donce%252Ftwice%252B9"),
            "/login?next=%2Fa%3Ft%3D[redacted]"
        );
    }

    #[test]
    fn each_line_of_a_secret_goes_by_itself() {
        let _ = Secret::new(
            "-----BEGIN KEY-----\r\n  bGluZQ-one\r\nbGluZQ-two\n-----END KEY-----\n".to_owned(),
        );
        assert_eq!(
            redact("12:00 key: bGluZQ-one\n12:00 key: bGluZQ-two\n"),
            "12:00 key: [redacted]\n12:00 key: [redacted]\n"
        );
    }

    #[test]
    fn a_known_secret_goes_in_every_form() {
        let _ = Secret::new("a\"b c/d+e@f".to_owned());
        let _ = Secret::new("postgresql://oa:p%40rt-one%2Fx@db/oa".to_owned());
        let _ = Secret::new("https://robot/send?access_token=robot-value-7".to_owned());
        let _ = Secret::new("host=h password='part one/d+e  tail' dbname=d".to_owned());
        let json = serde_json::to_string("a\"b c/d+e@f").unwrap();
        for text in [
            "a\"b c/d+e@f",
            "a%22b%20c%2Fd%2Be%40f",
            &STANDARD.encode("a\"b c/d+e@f"),
            &URL_SAFE.encode("a\"b c/d+e@f"),
            &json,
            "p@rt-one/x",
            "p%40rt-one%2Fx",
            "robot-value-7",
            "part one/d+e  tail",
            "part%20one%2Fd%2Be%20%20tail",
        ] {
            let shown = redact(&format!("x {text} y"));
            assert!(
                shown.contains("[redacted]") && !shown.contains("rt-one"),
                "{shown}"
            );
            assert!(
                !shown.contains("d+e") && !shown.contains("value-7") && !shown.contains("tail"),
                "{shown}"
            );
        }
        // Where it happened is still said.
        assert_eq!(
            redact("POST https://robot/send?access_token=robot-value-7 failed"),
            "POST https://robot/send?access_token=[redacted] failed"
        );
    }

    #[test]
    fn json_stays_json() {
        let value = serde_json::json!({
            "token": null, "secret": { "a": 1 }, "password": [2], "cookie": 7, "authorization": { "b": null },
            "m": "say \"token=abc\" and\nCookie: x=\"1\"", "u": "/a?token=\"q\"" });
        let shown = redact(&value.to_string());
        assert!(serde_json::from_str::<Value>(&shown).is_ok(), "{shown}");
    }
}
