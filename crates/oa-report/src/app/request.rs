//! What is asked, as the rest of the program sees it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version, header};
use oa_core::app::config::{BasePath, Config};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::answer::Answer;
use super::guard::Credentials;
use crate::lang::Lang;

/// Longest body in bytes: a form, or one object.
const MOST_BODY: usize = 16 << 10;
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// The cookie of a login.
pub(crate) const SESSION: &str = "oa_session";
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
    /// The browser's connection is encrypted up to the proxy, which says so.
    pub(crate) is_https: bool,
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
            .or_else(|| Lang::from_code(cookie_in(header("cookie")?, "oa_lang")?))
            .unwrap_or_else(|| Lang::from(config.locale));
        Self {
            from: forwarded.filter(|_| behind_proxy).unwrap_or(peer.ip()),
            path: rest.split('/').skip(1).map(decode).collect(),
            query,
            base,
            is_https: behind_proxy && header("x-forwarded-proto") == Some("https"),
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

    /// A header that has no name in [`header`].
    pub(crate) fn text(&self, name: &'static str) -> Option<&str> {
        self.head.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// A cookie's value.
    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        cookie_in(self.header(header::COOKIE)?, name)
    }

    /// What it says of itself who asks.
    pub(crate) fn credentials(&self) -> Credentials<'_> {
        Credentials {
            authorization: self.header(header::AUTHORIZATION),
            session: self.cookie(SESSION),
        }
    }

    /// A cookie of this server, which no script can read and no form of another site sends.
    pub(crate) fn set_cookie(&self, name: &str, value: &str, seconds: u64) -> String {
        let secure = if self.is_https { "; Secure" } else { "" };
        format!(
            "{name}={value}; Path={}/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}",
            self.base
        )
    }

    /// Whether the answer may be packed. Not when another site makes the browser ask: from the size of what comes back it could guess
    /// what is in it.
    pub(crate) fn takes_gzip(&self) -> bool {
        let accepted = self.header(header::ACCEPT_ENCODING).unwrap_or_default();
        let mut each = accepted.split(',').map(|e| e.trim().to_ascii_lowercase());
        !self.is_from_another_site()
            && each.any(|e| {
                let (name, weight) = e.split_once(';').unwrap_or((&e, ""));
                let refused = weight
                    .trim()
                    .strip_prefix("q=")
                    .is_some_and(|q| q.parse() == Ok(0.0));
                matches!(name.trim(), "gzip" | "*") && !refused
            })
    }

    /// The path as it is asked for, without the base path.
    pub(crate) fn local_target(&self) -> String {
        let path = self.path.iter().map(|p| escape(p));
        let query = self.head.uri.query().map(|q| format!("?{q}"));
        format!(
            "/{}{}",
            path.collect::<Vec<_>>().join("/"),
            query.unwrap_or_default()
        )
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

/// A path of this server to go on to; anything else is the overview.
pub(crate) fn own_page(path: &str) -> &str {
    let own = path.starts_with('/')
        && !path.starts_with("//")
        && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if own { path } else { "/admin/" }
}

fn cookie_in<'a>(cookies: &'a str, name: &str) -> Option<&'a str> {
    let mut all = cookies.split(';').filter_map(|c| c.trim().split_once('='));
    all.find(|(n, _)| *n == name).map(|(_, value)| value)
}

const PART: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Escapes a value for a path or a query.
pub(crate) fn escape(text: &str) -> String {
    utf8_percent_encode(text, PART).to_string()
}

#[cfg(test)]
mod tests {
    use super::own_page;

    #[test]
    fn what_goes_on_leads_to_a_page_of_this_server_only() {
        for own in ["/admin/", "/admin/logs?status=failed&task=a%20b", "/act/x"] {
            assert_eq!(own_page(own), own);
        }
        for other in [
            "",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/a\r\nSet-Cookie: x",
            "javascript:alert(1)",
        ] {
            assert_eq!(own_page(other), "/admin/");
        }
    }
}
