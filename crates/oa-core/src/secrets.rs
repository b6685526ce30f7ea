//! Secrets by reference, and redaction of everything that is printed or stored.
//!
//! A secret is written in the configuration as `env:NAME` or `file:PATH`. Its value lives in a [`Secret`], which cannot be
//! formatted, and is remembered by [`redact`], which removes it from log lines, error texts and alert bodies, together with
//! passwords and tokens inside any URL.

mod forms;

use std::fmt;
use std::sync::{LazyLock, OnceLock, RwLock};

use aho_corasick::{AhoCorasick, MatchKind};

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
/// Query parameters whose values are secrets in the addresses this project deals with.
const SECRET_PARAMETERS: [&str; 9] = [
    "access_token",
    "token",
    "key",
    "sign",
    "secret",
    "password",
    "sig",
    "signature",
    "auth",
];

static KNOWN: LazyLock<RwLock<Known>> = LazyLock::new(RwLock::default);

#[derive(Default)]
struct Known {
    values: Vec<String>,
    /// Finds all forms of all values in one pass, the longest first: a secret that contains another one goes as a whole.
    matcher: OnceLock<Option<AhoCorasick>>,
}

impl Known {
    fn matcher(&self) -> Option<&AhoCorasick> {
        let build = || {
            let forms: Vec<String> = self.values.iter().flat_map(|v| forms::forms(v)).collect();
            let built = AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .build(forms);
            built.ok().filter(|m| m.patterns_len() > 0)
        };
        self.matcher.get_or_init(build).as_ref()
    }
}

fn remember(value: &str) {
    if value.len() < SHORTEST {
        return;
    }
    if let Ok(mut known) = KNOWN.write()
        && !known.values.iter().any(|k| k == value)
    {
        known.values.push(value.to_owned());
        known.matcher = OnceLock::new();
    }
}

/// Removes every known secret value, also where it is encoded for an address, JSON or base64, and passwords and tokens inside URLs, from a text.
#[must_use]
pub fn redact(text: &str) -> String {
    let out = redact_urls(text);
    let Ok(known) = KNOWN.read() else {
        return out;
    };
    match known.matcher() {
        Some(matcher) if matcher.is_match(&out) => {
            matcher.replace_all(&out, &vec![MARK; matcher.patterns_len()])
        }
        _ => out,
    }
}

fn redact_urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let start = at + 3;
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest
            .find(|c: char| {
                c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`' | '，' | '。')
            })
            .unwrap_or(rest.len());
        out.push_str(&redact_one_url(&rest[..end]));
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// `url` is what follows `scheme://`.
fn redact_one_url(url: &str) -> String {
    let authority_end = url.find(['/', '?', '#']).unwrap_or(url.len());
    let (authority, tail) = url.split_at(authority_end);
    let mut out = String::with_capacity(url.len());
    match authority.rsplit_once('@') {
        Some((user, host)) => {
            out.push_str(user.split(':').next().unwrap_or_default());
            if user.contains(':') {
                out.push(':');
                out.push_str(MARK);
            }
            out.push('@');
            out.push_str(host);
        }
        None => out.push_str(authority),
    }
    let (path, query) = tail
        .split_once('?')
        .map_or((tail, None), |(p, q)| (p, Some(q)));
    // A Feishu robot carries its secret as the last part of the path.
    match path.split_once("/hook/") {
        Some((before, token)) if !token.is_empty() => {
            out.push_str(before);
            out.push_str("/hook/");
            out.push_str(MARK);
        }
        _ => out.push_str(path),
    }
    if let Some(query) = query {
        for (i, pair) in query.split('&').enumerate() {
            out.push(if i == 0 { '?' } else { '&' });
            match pair.split_once('=') {
                Some((name, value))
                    if !value.is_empty()
                        && SECRET_PARAMETERS
                            .iter()
                            .any(|s| name.eq_ignore_ascii_case(s)) =>
                {
                    out.push_str(name);
                    out.push('=');
                    out.push_str(MARK);
                }
                _ => out.push_str(pair),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
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
    fn encoded_secrets_are_removed_too() {
        let _secret = Secret::new("p@ss w/rd+1='ü".to_owned());
        for text in [
            "p%40ss%20w%2Frd%2B1%3D%27%C3%BC",
            "p%40ss%20w%2frd%2b1%3d%27%c3%bc",
            "p%40ss+w%2Frd%2B1%3D%27%C3%BC",
            "p%40ss%20w/rd%2B1%3D%27%C3%BC",
            "p%40ss%20w%2Frd%2B1%3D'%C3%BC",
            "p@ss w\\/rd+1='ü",
        ] {
            assert_eq!(redact(&format!("a {text} b")), "a [redacted] b", "{text}");
        }
        use base64::Engine as _;
        let engine = base64::engine::general_purpose::STANDARD;
        for before in ["", "u", "us", "usr:"] {
            let text = engine.encode(format!("{before}p@ss w/rd+1='ü and more"));
            let shown = redact(&text);
            assert!(
                shown.contains(MARK) && shown.len() < text.len(),
                "{text}: {shown}"
            );
        }
    }

    #[test]
    fn urls_lose_passwords_tokens_and_hooks_but_stay_recognisable() {
        for (from, to) in [
            (
                "could not open postgresql://oa:hunter2@db:5432/oa",
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
        ] {
            assert_eq!(redact(from), to);
        }
    }
}
