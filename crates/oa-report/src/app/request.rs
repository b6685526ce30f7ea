//! What is asked, as the rest of the program sees it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version, header};
use oa_core::app::config::{BasePath, Config};
use percent_encoding::percent_decode_str;

use super::answer::Answer;
use crate::lang::Lang;

/// Longest body in bytes: a form, or one object.
const MOST_BODY: usize = 16 << 10;
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// Headers that proxies add.
const PROXIED: [&str; 6] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];

#[derive(Debug)]
pub(crate) struct Request {
    head: Parts,
    /// The address that asks; behind a known proxy the one that it names.
    pub(crate) from: IpAddr,
    /// The path's parts, decoded, without the base path.
    pub(crate) path: Vec<String>,
    /// The query's names and values, decoded, in their order.
    pub(crate) query: Vec<(String, String)>,
    /// What comes before the path of every link.
    pub(crate) base: String,
    /// Only the head of the answer is wanted.
    pub(crate) is_head: bool,
    /// The language of pages: `?lang=`, else what was chosen before, else the configuration's.
    pub(crate) lang: Lang,
}

impl Request {
    pub(crate) fn new(config: &Config, peer: SocketAddr, head: Parts) -> Self {
        let report = &config.report;
        let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok());
        let behind_proxy = report.proxies.contains(&peer.ip());
        // A proxy adds the address that it saw at the end; what stands before may be anything.
        let forwarded =
            header("x-forwarded-for").and_then(|list| list.rsplit(',').next()?.trim().parse().ok());
        let prefix = header("x-forwarded-prefix").and_then(|p| p.parse::<BasePath>().ok());
        let base = match prefix {
            Some(prefix) if behind_proxy => prefix.0,
            _ => report.base_path.0.clone(),
        };
        let raw = head.uri.path();
        // Some proxies take the base path off, others leave it.
        let rest = raw
            .strip_prefix(base.as_str())
            .filter(|r| r.is_empty() || r.starts_with('/'))
            .unwrap_or(raw);
        let query = pairs(head.uri.query().unwrap_or_default());
        let chosen = query
            .iter()
            .find(|(name, _)| name == "lang")
            .map(|(_, value)| value.as_str());
        let lang = chosen
            .and_then(Lang::from_code)
            .or_else(|| header("cookie").and_then(language_of_cookie))
            .unwrap_or_else(|| Lang::from(config.locale));
        Self {
            from: forwarded.filter(|_| behind_proxy).unwrap_or(peer.ip()),
            path: rest.split('/').skip(1).map(decode).collect(),
            query,
            base,
            is_head: head.method == Method::HEAD,
            lang,
            head,
        }
    }

    pub(crate) fn method(&self) -> &Method {
        &self.head.method
    }

    /// Path and query as they came.
    pub(crate) fn target(&self) -> &str {
        self.head.uri.path_and_query().map_or("", |p| p.as_str())
    }

    /// The same for the access log, without what would let its reader act.
    pub(crate) fn logged_target(&self) -> &str {
        match self.path.first().map(String::as_str) {
            Some("act") => "/act/…",
            _ => self.target(),
        }
    }

    pub(crate) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.head.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// The name under which this server was asked.
    pub(crate) fn host(&self) -> Option<&str> {
        self.header(header::HOST).or_else(|| {
            self.head
                .uri
                .authority()
                .map(hyper::http::uri::Authority::as_str)
        })
    }

    /// Whether a proxy asks for somebody else. nginx says so only when it is told to, but then it asks in HTTP/1.0, which nobody else
    /// does any more.
    pub(crate) fn is_proxied(&self) -> bool {
        PROXIED
            .iter()
            .any(|name| self.head.headers.contains_key(*name))
            || self.head.version == Version::HTTP_10
    }

    /// Whether a page of another site made the browser ask.
    pub(crate) fn is_from_another_site(&self) -> bool {
        let text = |name: &'static str| {
            self.head
                .headers
                .get(name)
                // What is no text is none of the values that are let through.
                .map(|v| v.to_str().unwrap_or_default())
        };
        let fetched =
            text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"));
        // Behind a proxy the own name may differ from the one in the address bar; browsers that send no sec-fetch-site still send this.
        let origin = text("origin").is_some_and(|origin| {
            text("sec-fetch-site").is_none()
                && origin.split_once("://").map(|(_, host)| host) != self.host()
        });
        fetched || origin
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// The address of a path of this server.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

/// The body, if it comes in time and is no longer than a form; else the answer to give instead.
pub(crate) async fn read_body(body: Incoming) -> Result<Bytes, Answer> {
    let too_long = || {
        Answer::problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is longer than {MOST_BODY} bytes"),
        )
    };
    if body.size_hint().lower() > MOST_BODY as u64 {
        return Err(too_long());
    }
    match tokio::time::timeout(BODY_WITHIN, Limited::new(body, MOST_BODY).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => Err(too_long()),
        Ok(Err(_)) => Err(Answer::problem(
            StatusCode::BAD_REQUEST,
            "the body ended too early",
        )),
        Err(_) => Err(Answer::problem(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come in time",
        )),
    }
}

pub(crate) fn pairs(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (
                decode(&name.replace('+', " ")),
                decode(&value.replace('+', " ")),
            )
        })
        .collect()
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn language_of_cookie(cookies: &str) -> Option<Lang> {
    let mut all = cookies.split(';').filter_map(|c| c.trim().split_once('='));
    all.find(|(name, _)| *name == "oa_lang")
        .and_then(|(_, value)| Lang::from_code(value))
}
