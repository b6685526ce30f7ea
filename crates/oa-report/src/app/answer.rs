//! Answers, before they become HTTP.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use maud::Markup;
use oa_core::base::secrets::redact;
use oa_core::pg::ConnectError;
use schemars::JsonSchema;
use serde::Serialize;

use crate::digest::short_hash;
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

impl Answer {
    fn new(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type,
            body: body.into(),
            cache: CachePolicy::Revalidate,
            headers: Vec::new(),
            tag: None,
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

    pub(crate) fn page(page: Markup) -> Self {
        Self::new("text/html; charset=utf-8", page.into_string())
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

    /// As HTTP. `if_none_match` is the request's header: the same answer is not sent again.
    pub(crate) fn into_response(self, if_none_match: Option<&str>) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::new()));
        let headers = response.headers_mut();
        let put = HeaderValue::from_static;
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
        headers.insert(
            HeaderName::from_static("cross-origin-resource-policy"),
            put("same-origin"),
        );
        headers.insert(
            header::CACHE_CONTROL,
            put(match self.cache {
                CachePolicy::Revalidate => "private, no-cache",
                CachePolicy::Forever => "public, max-age=31536000, immutable",
                CachePolicy::Never => "no-store",
            }),
        );
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        *response.status_mut() = self.status;
        if self.cache == CachePolicy::Revalidate && self.status == StatusCode::OK {
            let tag = format!(
                "W/\"{}\"",
                self.tag.unwrap_or_else(|| short_hash(&self.body))
            );
            let known = if_none_match.is_some_and(|known| {
                known.trim() == "*" || known.split(',').any(|k| same_tag(k, &tag))
            });
            if let Ok(value) = HeaderValue::from_str(&tag) {
                headers_of(&mut response).insert(header::ETAG, value);
            }
            if known {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                return response;
            }
        }
        if !self.body.is_empty() {
            headers_of(&mut response).insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static(self.content_type),
            );
        }
        *response.body_mut() = Full::new(self.body);
        response
    }
}

/// Everything is ours and from a file: nothing inline, nothing from elsewhere, no frame, no form to another place.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

fn headers_of(response: &mut Response<Full<Bytes>>) -> &mut hyper::HeaderMap {
    response.headers_mut()
}

/// Weak comparison, as `If-None-Match` demands it.
fn same_tag(known: &str, tag: &str) -> bool {
    let bare = |t: &str| t.trim().trim_start_matches("W/").to_owned();
    bare(known) == bare(tag)
}

impl From<QueryError> for Answer {
    fn from(error: QueryError) -> Self {
        let unavailable = match &error {
            QueryError::Connect(e) => matches!(e, ConnectError::Unreachable { .. }),
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
