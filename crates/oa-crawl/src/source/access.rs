//! What a site requires before it answers: a login by plain requests, and signatures.

use std::collections::BTreeMap;

use oa_core::app::config::SecretRef;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::placeholders::{names, texts};
use super::{FetchKind, Source, selector};

/// `[login]`: posted before the first request of an attempt, and again when the site asks for it. Cookies are kept. In `form`, `json` and
/// `headers`, `{NAME}` stands for what `secrets`, `take` and `answer` name.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpLogin {
    /// Path of a page that is read first.
    pub(crate) page: Option<String>,
    /// Values on that page, such as a CSRF token.
    #[serde(default)]
    pub(crate) take: BTreeMap<String, Taken>,
    /// Secrets, by reference.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub(crate) secrets: BTreeMap<String, SecretRef>,
    /// Path to which the login is posted.
    pub(crate) path: String,
    /// What is posted, as a form.
    #[serde(default)]
    pub(crate) form: BTreeMap<String, String>,
    /// Or as JSON.
    pub(crate) json: Option<Value>,
    /// Values in the JSON answer to it, such as a token: JSON pointers.
    #[serde(default)]
    pub(crate) answer: BTreeMap<String, String>,
    /// Headers of all requests after it.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// JSON pointer in the answer: must be `true` there, or what `equals` says.
    pub(crate) ok: Option<String>,
    /// What `ok` must be, if not `true`.
    pub(crate) equals: Option<Value>,
    /// A text that the answer, or the address that it comes from, has only after a login that succeeded.
    pub(crate) done: Option<String>,
}

/// A value on a page.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Taken {
    /// CSS selector of its element.
    pub(crate) selector: Option<String>,
    /// The element's attribute.
    #[serde(default = "value_attribute")]
    pub(crate) attribute: String,
    /// Or a JSON pointer, where the page is JSON.
    pub(crate) pointer: Option<String>,
}

fn value_attribute() -> String {
    "value".to_owned()
}

/// `[sign]`: a signature of each request. `text` is what is signed: in it `{method}`, `{path}`, `{query}` (sorted, `a=1&b=2`, as it is
/// before it is escaped), `{body}`, `{timestamp}`, `{timestamp_ms}` and `{secret}` are filled in.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sign {
    /// The key, by reference.
    #[schemars(with = "String")]
    pub(crate) secret: SecretRef,
    /// What is signed.
    pub(crate) text: String,
    /// How.
    pub(crate) hash: Hash,
    /// How the signature is written.
    #[serde(default)]
    pub(crate) encoding: Encoding,
    /// Query parameters that are added, with `{signature}`, `{timestamp}` or `{timestamp_ms}`; those without the signature are signed too.
    #[serde(default)]
    pub(crate) query: BTreeMap<String, String>,
    /// Headers that are added.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
}

/// See [`Sign::hash`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Hash {
    /// HMAC with SHA-256, keyed by the secret.
    HmacSha256,
    /// HMAC with MD5, keyed by the secret.
    HmacMd5,
    /// SHA-256 of the text, in which `{secret}` stands.
    Sha256,
    /// MD5 of the text, in which `{secret}` stands.
    Md5,
}

/// See [`Sign::encoding`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum Encoding {
    /// Small hexadecimal digits.
    #[default]
    #[serde(rename = "hex")]
    Hex,
    /// Capital ones.
    #[serde(rename = "HEX")]
    UpperHex,
    /// Base64.
    #[serde(rename = "base64")]
    Base64,
}

/// The name under which a secret of the login is resolved.
pub(crate) fn login_secret(name: &str) -> String {
    format!("{name} of [login]")
}

/// The name under which the key of signatures is resolved.
pub(crate) const SIGN_SECRET: &str = "secret of [sign]";

impl Source {
    /// References to secrets of login and signatures, by the names under which they are resolved.
    pub(super) fn access_secrets(&self) -> Vec<(String, &SecretRef)> {
        let login = self.login.iter().flat_map(|l| &l.secrets);
        let login = login.map(|(name, reference)| (login_secret(name), reference));
        let sign = self
            .sign
            .as_ref()
            .map(|s| (SIGN_SECRET.to_owned(), &s.secret));
        login.chain(sign).collect()
    }
}

/// What is wrong with login and signature, if anything is.
pub(super) fn check(source: &Source) -> Result<(), String> {
    if (source.login.is_some() || source.sign.is_some()) && source.fetch.kind != FetchKind::Http {
        return Err("[login] and [sign] need kind = \"http\" in [fetch]".to_owned());
    }
    if let Some(login) = &source.login {
        check_login(login)?;
    }
    let Some(sign) = &source.sign else {
        return Ok(());
    };
    let added = || sign.query.values().chain(sign.headers.values());
    if !added().any(|text| names(text).contains(&"signature")) {
        return Err("[sign] puts {signature} into neither query nor headers".to_owned());
    }
    let keyed = matches!(sign.hash, Hash::HmacSha256 | Hash::HmacMd5);
    if !keyed && !names(&sign.text).contains(&"secret") {
        return Err("text in [sign] lacks {secret}: without it anybody could sign".to_owned());
    }
    let known = [
        "method",
        "path",
        "query",
        "body",
        "timestamp",
        "timestamp_ms",
        "secret",
    ];
    refuse_unknown("text in [sign]", [sign.text.as_str()].into_iter(), &known)?;
    let known = ["signature", "timestamp", "timestamp_ms"];
    refuse_unknown(
        "query or headers in [sign]",
        added().map(String::as_str),
        &known,
    )
}

fn check_login(login: &HttpLogin) -> Result<(), String> {
    if login.form.is_empty() == login.json.is_none() {
        return Err("[login] needs either form or json".to_owned());
    }
    if !login.take.is_empty() && login.page.is_none() {
        return Err("take in [login] needs page, the path of the page with the values".to_owned());
    }
    for (name, taken) in &login.take {
        if taken.selector.is_some() == taken.pointer.is_some() {
            return Err(format!(
                "take of \"{name}\" in [login] needs either selector or pointer"
            ));
        }
        if let Some(css) = &taken.selector {
            selector(css).map_err(|e| format!("take of \"{name}\" in [login] has {e}"))?;
        }
    }
    let pointers = login.answer.values().chain(&login.ok);
    let pointers = pointers.chain(login.take.values().filter_map(|t| t.pointer.as_ref()));
    for pointer in pointers {
        if !pointer.starts_with('/') {
            return Err(format!(
                "\"{pointer}\" in [login] must begin with /, as JSON pointers do"
            ));
        }
    }
    let posted = login
        .secrets
        .keys()
        .chain(login.take.keys())
        .map(String::as_str);
    let posted: Vec<&str> = posted.collect();
    let form = login.form.values().map(String::as_str);
    refuse_unknown(
        "form or json in [login]",
        form.chain(login.json.iter().flat_map(texts)),
        &posted,
    )?;
    let answered = login.answer.keys().map(String::as_str);
    let after: Vec<&str> = posted.into_iter().chain(answered).collect();
    refuse_unknown(
        "headers in [login]",
        login.headers.values().map(String::as_str),
        &after,
    )
}

fn refuse_unknown<'a>(
    key: &str,
    mut all: impl Iterator<Item = &'a str>,
    known: &[&str],
) -> Result<(), String> {
    let strange = all.find_map(|text| names(text).into_iter().find(|n| !known.contains(n)));
    strange.map_or(Ok(()), |name| {
        let known: Vec<String> = known.iter().map(|k| format!("{{{k}}}")).collect();
        Err(format!(
            "{key} has the unknown placeholder {{{name}}}; known there: {}",
            known.join(", ")
        ))
    })
}
