//! Logging in by plain requests, and signing requests.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use oa_core::base::exact;
use oa_core::base::secrets::Secret;
use oa_core::model::retry::ErrorKind;
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::Url;

use super::answer::Placeholders;
use super::context::Context;
use crate::extract::{json, table};
use crate::fetch::{FetchError, Request, Response, body, check_status};
use crate::source::{
    Answer, Hash, HttpLogin, SIGN_SECRET, Sign, SignatureEncoding, fill, login_secret,
};

/// What a login gave: headers of all requests after it. The client keeps its cookies.
#[derive(Debug, Default)]
pub(crate) struct Session {
    headers: Option<Vec<(String, Secret)>>,
}

/// The headers of the session, which begins with the first request.
pub(super) fn headers(context: &Context) -> Result<Vec<(String, Secret)>, FetchError> {
    let Some(login) = &context.source.login else {
        return Ok(Vec::new());
    };
    let mut session = context
        .session
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(headers) = &session.headers {
        return Ok(headers.clone());
    }
    let headers = log_in(context, login)?;
    session.headers = Some(headers.clone());
    Ok(headers)
}

/// Forgets the session, so that the next request logs in anew. `false` when there is none.
pub(super) fn forget(context: &Context) -> bool {
    let mut session = context
        .session
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    session.headers.take().is_some()
}

fn log_in(context: &Context, login: &HttpLogin) -> Result<Vec<(String, Secret)>, FetchError> {
    let mut values: BTreeMap<&str, String> = BTreeMap::new();
    for name in login.secrets.keys() {
        let known = login_secret(name);
        let secret = context.secrets.iter().find(|(n, _)| *n == known);
        let secret = secret.ok_or_else(|| refused(login, "a secret is not there"))?;
        values.insert(name, secret.1.expose().to_owned());
    }
    if let Some(page) = &login.page {
        let (line, response) = send(context, page, Request::default())?;
        for (name, taken) in &login.take {
            let value = match (&taken.selector, &taken.pointer) {
                (Some(css), _) => {
                    let (page, _) = body::page(&line, &response, None)?;
                    table::attribute(&page, css, &taken.attribute).map_err(|(kind, what)| {
                        FetchError::new(
                            kind,
                            format!("the page before the login has {what}: {line}"),
                        )
                    })?
                }
                (None, pointer) => {
                    let (answer, _) = body::json(&line, &response, &Answer::default())?;
                    said(&answer, pointer.as_deref().unwrap_or_default(), &line)?
                }
            };
            values.insert(name, value);
        }
    }
    let filled = |text: &str| fill(text, |name, _| values.get(name).cloned());
    let form = login.form.iter().map(|(k, v)| (k.clone(), filled(v)));
    let request = Request {
        form: form.collect(),
        json: login
            .json
            .as_ref()
            .map(|json| fill_json(json, &filled).to_string()),
        ..Request::default()
    };
    let (line, response) = send(context, &login.path, request)?;
    check_done(login, &line, &response)?;
    if !login.answer.is_empty() {
        let (answer, _) = body::json(&line, &response, &Answer::default())?;
        for (name, pointer) in &login.answer {
            values.insert(name, said(&answer, pointer, &line)?);
        }
    }
    let headers = login.headers.iter().map(|(name, text)| {
        let value = fill(text, |name, _| values.get(name).cloned());
        (name.clone(), Secret::new(value))
    });
    Ok(headers.collect())
}

/// Answers are not kept in the archive: tokens are in them.
fn send(context: &Context, path: &str, request: Request) -> Result<(String, Response), FetchError> {
    let fetch = &context.source.fetch;
    let placeholders = Placeholders::new(context);
    let headers = fetch.headers.iter();
    let headers = headers.map(|(name, text)| (name.clone(), placeholders.fill(text)));
    let request = Request {
        url: format!("{}{path}", fetch.base.trim_end_matches('/')),
        headers: headers.collect(),
        pause: fetch.pause.map_or(Duration::ZERO, |s| s.0),
        ..request
    };
    let line = format!("{} {}", request.method(), request.display());
    let response = context.client.send(&request, context.deadline)?;
    check_status(&line, &response)?;
    Ok((line, response))
}

fn refused(login: &HttpLogin, why: &str) -> FetchError {
    let what = format!(
        "the login at {} was refused ({why}); check the account and [login] of the source file",
        login.path
    );
    FetchError::new(ErrorKind::Auth, what)
}

fn check_done(login: &HttpLogin, line: &str, response: &Response) -> Result<(), FetchError> {
    if let Some(pointer) = &login.ok {
        let (answer, _) = body::json(line, response, &Answer::default())?;
        let rules = Answer {
            ok: Some(pointer.clone()),
            equals: login.equals.clone(),
            ..Answer::default()
        };
        if json::is_ok(&rules, &answer) != Some(true) {
            return Err(refused(login, &format!("{pointer} does not say yes")));
        }
    }
    if let Some(done) = &login.done {
        let (text, _) = body::text(line, response, None)?;
        if !text.contains(done.as_str()) && !response.final_url.contains(done.as_str()) {
            return Err(refused(
                login,
                &format!("neither the answer nor its address has \"{done}\""),
            ));
        }
    }
    Ok(())
}

fn said(answer: &Value, pointer: &str, line: &str) -> Result<String, FetchError> {
    let found = answer.pointer(pointer);
    let text = found.and_then(|v| match (exact::number(v), exact::text(v)) {
        (Some(digits), _) => Some(digits.to_owned()),
        (None, Some(text)) => Some(text.to_owned()),
        (None, None) => v.is_number().then(|| exact::to_text(v)),
    });
    text.ok_or_else(|| {
        FetchError::new(
            ErrorKind::Shape,
            format!("the answer has no text at {pointer}: {line}"),
        )
    })
}

fn fill_json(value: &Value, filled: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(filled(text)),
        Value::Array(all) => all.iter().map(|v| fill_json(v, filled)).collect(),
        Value::Object(fields) => {
            let filled = fields
                .iter()
                .map(|(k, v)| (k.clone(), fill_json(v, filled)));
            Value::Object(filled.collect())
        }
        other => other.clone(),
    }
}

/// Adds the signature and what belongs to it.
pub(super) fn sign(context: &Context, request: &mut Request) -> Result<(), FetchError> {
    let Some(rules) = &context.source.sign else {
        return Ok(());
    };
    let secret = context.secrets.iter().find(|(name, _)| name == SIGN_SECRET);
    let secret =
        secret.ok_or_else(|| FetchError::new(ErrorKind::Auth, "the key of [sign] is not there"))?;
    add_signature(
        rules,
        secret.1.expose(),
        Utc::now().timestamp_millis(),
        request,
    );
    Ok(())
}

fn add_signature(rules: &Sign, secret: &str, now: i64, request: &mut Request) {
    let time = |name: &str| match name {
        "timestamp" => Some((now / 1000).to_string()),
        "timestamp_ms" => Some(now.to_string()),
        _ => None,
    };
    let (signatures, plain): (Vec<_>, Vec<_>) = rules
        .query
        .iter()
        .partition(|(_, text)| text.contains("{signature}"));
    for (name, text) in plain {
        request
            .unlisted_query
            .push((name.clone(), fill(text, |name, _| time(name))));
    }
    let mut query: Vec<String> = request
        .query
        .iter()
        .chain(&request.unlisted_query)
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    if let Ok(url) = Url::parse(&request.url) {
        query.extend(url.query_pairs().map(|(k, v)| format!("{k}={v}")));
    }
    query.sort();
    let form: Vec<String> = request
        .form
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    let text = fill(&rules.text, |name, _| match name {
        "method" => Some(request.method().to_owned()),
        "path" => {
            Some(Url::parse(&request.url).map_or_else(|_| String::new(), |u| u.path().to_owned()))
        }
        "query" => Some(query.join("&")),
        "body" => Some(request.json.clone().unwrap_or_else(|| form.join("&"))),
        "secret" => Some(secret.to_owned()),
        other => time(other),
    });
    let signature = signature(rules, secret, &text);
    let filled = |text: &str| {
        fill(text, |name, _| match name {
            "signature" => Some(signature.clone()),
            other => time(other),
        })
    };
    let signatures: Vec<(String, String)> = signatures
        .into_iter()
        .map(|(name, text)| (name.clone(), filled(text)))
        .collect();
    request.unlisted_query.extend(signatures);
    let headers = rules
        .headers
        .iter()
        .map(|(name, text)| (name.clone(), filled(text)));
    request.headers.extend(headers);
}

fn signature(rules: &Sign, secret: &str, text: &str) -> String {
    fn keyed<M: Mac + KeyInit>(secret: &str, text: &str) -> Vec<u8> {
        // A key of any length is one.
        M::new_from_slice(secret.as_bytes()).map_or_else(
            |_| Vec::new(),
            |mut mac| {
                mac.update(text.as_bytes());
                mac.finalize().into_bytes().to_vec()
            },
        )
    }
    let bytes = match rules.hash {
        Hash::HmacSha256 => keyed::<Hmac<Sha256>>(secret, text),
        Hash::HmacMd5 => keyed::<Hmac<Md5>>(secret, text),
        Hash::Sha256 => Sha256::digest(text).to_vec(),
        Hash::Md5 => Md5::digest(text).to_vec(),
    };
    let hex = || bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    match rules.encoding {
        SignatureEncoding::Hex => hex(),
        SignatureEncoding::UpperHex => hex().to_uppercase(),
        SignatureEncoding::Base64 => BASE64_STANDARD.encode(&bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(rules: &str) -> Request {
        let rules: Sign = toml::from_str(&format!("secret = \"env:K\"\n{rules}")).unwrap();
        let mut request = Request {
            url: "https://x.example/api/q".to_owned(),
            query: vec![
                ("b".to_owned(), "2".to_owned()),
                ("a".to_owned(), "1".to_owned()),
            ],
            ..Request::default()
        };
        add_signature(&rules, "key", 1_764_550_200_123, &mut request);
        request
    }

    #[test]
    fn requests_are_signed_as_the_recipe_says() {
        // By openssl dgst -sha256 -hmac key, and md5sum.
        let request = signed(
            "hash = \"hmac-sha256\"\ntext = \"{method}\\n{path}\\n{query}\"\nheaders = { x-sign = \"v1 {signature}\" }\nquery = { t = \"{timestamp}\" }",
        );
        assert_eq!(
            request.unlisted_query,
            [("t".to_owned(), "1764550200".to_owned())]
        );
        let due = "v1 f11146d9545354cb7a5b339422a20b9b143fdc1460adb069812f77c15ce14ded";
        assert_eq!(request.headers, [("x-sign".to_owned(), due.to_owned())]);
        let request = signed(
            "hash = \"md5\"\nencoding = \"HEX\"\ntext = \"{query}{secret}\"\nquery = { sign = \"{signature}\" }",
        );
        assert_eq!(
            request.unlisted_query[0].1,
            "1C123A5DC12E90DEEAA1CD94681F0D88"
        );
        let request = signed(
            "hash = \"hmac-md5\"\nencoding = \"base64\"\ntext = \"{timestamp_ms}\"\nquery = { sign = \"{signature}\" }",
        );
        assert_eq!(request.unlisted_query[0].1, "ugt+gsHKDbVboyAAf5oqIA==");
    }
}
