//! Answers, before they become HTTP.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use maud::Markup;
use oa_core::base::secrets::redact;
use schemars::JsonSchema;
use serde::Serialize;

use super::body::{Body, Pieces};
use crate::digest::change_tag;
use crate::pool::QueryError;
use crate::snapshot::LatestSnapshot;

/// How long an answer may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CachePolicy {
    /// Asked again each time, with the `ETag` of the last one.
    Revalidate,
    /// Its name changes with its content.
    Forever,
    /// Not at all.
    Never,
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
    pub(crate) cache: CachePolicy,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// What the `ETag` is made of, when that is not the whole body.
    pub(crate) tag: Option<String>,
    /// The body as it is sent to whoever takes gzip.
    packed: Option<Box<Bytes>>,
    /// A large body instead, and whether it is packed.
    pieces: Option<Box<(Vec<Bytes>, bool)>>,
}

/// `application/problem+json` (RFC 9457).
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Problem {
    /// Always `about:blank`: the status says what kind it is.
    pub(crate) r#type: &'static str,
    /// The status in words.
    pub(crate) title: String,
    /// The status.
    pub(crate) status: u16,
    /// What happened, to which thing, and what to do.
    pub(crate) detail: String,
}

impl CachePolicy {
    fn as_header(self) -> &'static str {
        match self {
            Self::Revalidate => "private, no-cache",
            Self::Forever => "public, max-age=31536000, immutable",
            Self::Never => "no-store",
        }
    }
}

impl Answer {
    fn new(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type,
            body: body.into(),
            cache: CachePolicy::Revalidate,
            headers: Vec::new(),
            tag: None,
            packed: None,
            pieces: None,
        }
    }

    pub(crate) fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(json) => Self::new("application/json", json),
            Err(e) => {
                tracing::error!("an answer cannot be written as JSON: {e}");
                Self::own_mistake()
            }
        }
    }

    /// JSON that is written already.
    pub(crate) fn json_bytes(body: Bytes) -> Self {
        Self::new("application/json", body)
    }

    /// The same in pieces, packed or not as who asked takes it.
    pub(crate) fn json_pieces(pieces: Pieces) -> Self {
        let (pieces, tag, is_packed) = pieces.end();
        Self {
            tag: Some(tag),
            pieces: Some(Box::new((pieces, is_packed))),
            ..Self::new("application/json", Bytes::new())
        }
    }

    pub(crate) fn page(page: Markup) -> Self {
        let text = page.into_string();
        let tag = change_tag(without_its_time(&text).as_bytes());
        Self {
            tag: Some(tag),
            ..Self::new("text/html; charset=utf-8", text)
        }
    }

    pub(crate) fn text(content_type: &'static str, text: impl Into<Bytes>) -> Self {
        Self {
            cache: CachePolicy::Never,
            ..Self::new(content_type, text)
        }
    }

    /// A file of the page; its name changes with its content.
    pub(crate) fn asset(content_type: &'static str, text: &'static str) -> Self {
        Self {
            cache: CachePolicy::Forever,
            ..Self::new(content_type, text)
        }
    }

    pub(crate) fn redirect(status: StatusCode, to: &str) -> Self {
        let mut answer = Self::text("text/plain; charset=utf-8", "");
        answer.status = status;
        answer.with(header::LOCATION, to)
    }

    pub(crate) fn problem(status: StatusCode, detail: impl Into<String>) -> Self {
        let problem = Problem {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: redact(&detail.into()),
        };
        Self {
            status,
            cache: CachePolicy::Never,
            ..Self::new(
                "application/problem+json",
                // Four plain fields, which JSON can always hold.
                serde_json::to_vec(&problem).unwrap_or_default(),
            )
        }
    }

    pub(crate) fn missing(detail: impl Into<String>) -> Self {
        Self::problem(StatusCode::NOT_FOUND, detail)
    }

    /// What was asked made this program panic.
    pub(crate) fn own_mistake() -> Self {
        Self::problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "this program made a mistake; its log has more",
        )
    }

    /// Nothing was ever known.
    pub(crate) fn unavailable(latest: &LatestSnapshot) -> Self {
        let reason = latest
            .outage
            .clone()
            .unwrap_or_else(|| "PostgreSQL does not answer".to_owned());
        Self::problem(StatusCode::SERVICE_UNAVAILABLE, reason).with(header::RETRY_AFTER, "5")
    }

    /// With a header; a value that no header can hold is skipped.
    pub(crate) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Packs it now; whether there is anything to gain by that.
    pub(crate) fn pack(&mut self) -> bool {
        if self.body.len() >= WORTH_PACKING && self.packed.is_none() {
            self.packed = pack(&self.body).map(Box::new);
        }
        self.packed.is_some()
    }

    /// The same for whoever takes gzip, without the whole body.
    pub(crate) fn packed_alone(&self) -> Self {
        Self {
            body: Bytes::new(),
            ..self.clone()
        }
    }

    /// As HTTP. `if_none_match` is the request's header: the same answer is not sent again, nor the headers that came with it.
    pub(crate) fn into_response(
        mut self,
        if_none_match: Option<&str>,
        gzip: bool,
    ) -> Response<Body> {
        let mut response = Response::new(Body::default());
        let headers = response.headers_mut();
        let put = HeaderValue::from_static;
        let tag = self.entity_tag();
        headers.insert(header::CACHE_CONTROL, put(self.cache.as_header()));
        if let Some(tag) = tag.as_deref().and_then(|t| HeaderValue::from_str(t).ok()) {
            headers.insert(header::ETAG, tag);
        }
        headers.insert(header::VARY, put("accept-encoding, cookie"));
        for (name, value) in std::mem::take(&mut self.headers) {
            headers.append(name, value);
        }
        let is_known = |tag: &str| {
            if_none_match.is_some_and(|known| {
                known.trim() == "*" || known.split(',').any(|k| same_tag(k, tag))
            })
        };
        if tag.is_some_and(|tag| is_known(&tag)) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, put("nosniff"));
        headers.insert(header::REFERRER_POLICY, put("same-origin"));
        headers.insert(header::X_FRAME_OPTIONS, put("DENY"));
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            put(if self.content_type.starts_with("text/html") {
                PAGE_POLICY
            } else {
                DATA_POLICY
            }),
        );
        // Badges stand on pages of others.
        headers
            .entry("cross-origin-resource-policy")
            .or_insert(put("same-origin"));
        if let Some((pieces, is_packed)) = self.pieces.take().map(|both| *both) {
            headers.insert(header::CONTENT_TYPE, put(self.content_type));
            if is_packed {
                headers.insert(header::CONTENT_ENCODING, put("gzip"));
            }
            *response.status_mut() = self.status;
            *response.body_mut() = pieces.into();
            return response;
        }
        let packed = self.packed.take().filter(|_| gzip).map(|packed| *packed);
        if !self.body.is_empty() || packed.is_some() {
            headers.insert(header::CONTENT_TYPE, put(self.content_type));
        }
        let packs = || {
            gzip && self.body.len() >= WORTH_PACKING && !self.content_type.starts_with("image/p")
        };
        if let Some(packed) = packed.or_else(|| packs().then(|| pack(&self.body)).flatten()) {
            headers.insert(header::CONTENT_ENCODING, put("gzip"));
            self.body = packed;
        }
        *response.status_mut() = self.status;
        *response.body_mut() = self.body.into();
        response
    }

    /// What says whether it has changed since; weak, because it may come packed.
    fn entity_tag(&mut self) -> Option<String> {
        if self.cache != CachePolicy::Revalidate || self.status != StatusCode::OK {
            return None;
        }
        let tag = self.tag.take().unwrap_or_else(|| change_tag(&self.body));
        Some(format!("W/\"{tag}\""))
    }
}

/// Smaller ones are one packet anyway.
const WORTH_PACKING: usize = 1024;

fn pack(body: &[u8]) -> Option<Bytes> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::new(6));
    packed.write_all(body).ok()?;
    packed.finish().ok().map(Bytes::from)
}

/// A page without what only says how late it is: when it was made, and how long ago things were, which its script keeps right by itself.
fn without_its_time(page: &str) -> String {
    let mut kept = String::with_capacity(page.len());
    let mut rest = page;
    while let Some(at) = rest.find("<time class=\"") {
        let (before, time) = rest.split_at(at);
        kept.push_str(before);
        let (tag, after) = time.split_once('>').unwrap_or((time, ""));
        kept.push_str(tag);
        rest = after.split_once("</time>").map_or("", |(_, after)| after);
    }
    kept.push_str(rest);
    let made = kept.find("data-made=\"").map(|at| at + 11);
    if let Some((from, to)) = made.and_then(|from| Some((from, from + kept[from..].find('"')?))) {
        kept.replace_range(from..to, "");
    }
    kept
}

/// Everything is ours and from a file: nothing inline, nothing from elsewhere, no frame, no form to another place.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; manifest-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// Weak comparison, as `If-None-Match` demands it.
fn same_tag(known: &str, tag: &str) -> bool {
    let bare = |t: &str| t.trim().trim_start_matches("W/").to_owned();
    bare(known) == bare(tag)
}

impl From<QueryError> for Answer {
    fn from(error: QueryError) -> Self {
        let unavailable = match &error {
            QueryError::Connect(e) => e.is_passing(),
            QueryError::Config(_) | QueryError::Schema(_) => false,
            QueryError::Database(e) => oa_core::pg::is_passing(e),
        };
        let status = if unavailable {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        tracing::warn!("{}", redact(&error.to_string()));
        let answer = Self::problem(status, error.to_string());
        if unavailable {
            answer.with(header::RETRY_AFTER, "5")
        } else {
            answer
        }
    }
}

#[cfg(test)]
mod tests {
    use super::without_its_time;

    #[test]
    fn a_page_that_is_only_later_is_the_same() {
        let page = |made, updated, ago, at| {
            format!(
                "<span><time class=\"made\">{updated}</time></span><main data-made=\"{made}\" data-zone=\"x\"><p><time class=\"ago\" datetime=\"{at}\">{ago}</time> <time datetime=\"1\">08:00</time></p></main>"
            )
        };
        let first = without_its_time(&page("1", "10:00:00", "1 min ago", "9"));
        assert_eq!(
            first,
            without_its_time(&page("2", "10:01:00", "2 min ago", "9"))
        );
        assert_ne!(
            first,
            without_its_time(&page("2", "10:01:00", "2 min ago", "8"))
        );
        assert!(first.contains("08:00") && !first.contains("1 min"));
    }
}
