//! Fetching: one request, its answer, and why it may have failed.

pub(crate) mod body;
pub(crate) mod browser;
pub(crate) mod gate;
mod http;
mod network;
mod origin;

use std::time::Duration;

use oa_core::model::retry::ErrorKind;
use oa_core::model::run::RunError;
use serde::{Deserialize, Serialize};

pub(crate) use http::{Client, Request, USER_AGENT};
pub(crate) use network::Network;
pub(crate) use origin::HomeOrigin;

#[derive(Debug, Clone, Default)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) content_type: Option<String>,
    /// The address that answered, after redirects.
    pub(crate) final_url: String,
    /// `Retry-After`.
    pub(crate) retry_after: Option<Duration>,
    /// The headers that came with it, their names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// The next page's address in the header `Link`.
    pub(crate) next_link: Option<String>,
    /// The validators of this answer.
    pub(crate) state: Validators,
    /// The body, decompressed.
    pub(crate) body: Vec<u8>,
    /// What was noticed on the way to it, in sentences.
    pub(crate) findings: Vec<String>,
}

impl Response {
    /// The value of a header. An answer that says "nothing has changed" was last modified when the one before was.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        let kept = || {
            let is_validator = name.eq_ignore_ascii_case("last-modified");
            self.state.last_modified.clone().filter(|_| is_validator)
        };
        found.map(|(_, value)| value.clone()).or_else(kept)
    }
}

/// `ETag` and `Last-Modified`: with them the site can say that nothing has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Validators {
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
}

impl Validators {
    pub(crate) fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchError {
    pub(crate) error: RunError,
    pub(crate) retry_after: Option<Duration>,
    /// What was asked for is not there, and may come.
    pub(crate) not_there: bool,
}

impl FetchError {
    pub(crate) fn new(kind: ErrorKind, message: impl AsRef<str>) -> Self {
        Self {
            error: RunError::new(kind, message),
            retry_after: None,
            not_there: kind == ErrorKind::Empty,
        }
    }
}

/// Decides by status and final address whether the answer is usable.
pub(crate) fn check_status(url: &str, response: &Response) -> Result<(), FetchError> {
    let status = response.status;
    if let Some(page) = login_page(url, &response.final_url) {
        return Err(FetchError::new(
            ErrorKind::Auth,
            format!("redirected to the login page {page}: {url}"),
        ));
    }
    let kind = match status {
        // Nobody asked for a part.
        206 => {
            return Err(FetchError::new(
                ErrorKind::Network,
                format!("HTTP 206, a part of the answer: {url}"),
            ));
        }
        // 304: nothing has changed since the answer that the archive has; its body is that one's.
        200..=299 | 304 => return Ok(()),
        401 | 403 => ErrorKind::Auth,
        429 => ErrorKind::Http429,
        500..=599 => ErrorKind::Http5xx,
        _ => ErrorKind::Http4xx,
    };
    Err(FetchError {
        error: RunError::new(kind, format!("HTTP {status}: {url}")),
        retry_after: response.retry_after,
        not_there: status == 404,
    })
}

fn login_page<'a>(requested: &str, answered: &'a str) -> Option<&'a str> {
    let path = |url: &str| {
        url.split(['?', '#'])
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase()
    };
    (path(answered).contains("login") && !path(requested).contains("login")).then_some(answered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, final_url: &str) -> Response {
        Response {
            status,
            final_url: final_url.to_owned(),
            ..Response::default()
        }
    }

    fn kind(status: u16) -> ErrorKind {
        check_status("http://x/a", &response(status, "http://x/a"))
            .unwrap_err()
            .error
            .kind
    }

    #[test]
    fn statuses_are_distinguished() {
        assert!(check_status("http://x/a", &response(200, "http://x/a")).is_ok());
        assert_eq!(kind(206), ErrorKind::Network);
        assert_eq!(kind(500), ErrorKind::Http5xx);
        assert_eq!(kind(429), ErrorKind::Http429);
        assert_eq!(kind(401), ErrorKind::Auth);
        assert_eq!(kind(404), ErrorKind::Http4xx);
    }

    #[test]
    fn a_login_page_is_recognised_even_when_it_answers_200() {
        let error = check_status(
            "http://x/data?x=1",
            &response(200, "http://x/user/Login?next=/data"),
        )
        .unwrap_err();
        assert_eq!(error.error.kind, ErrorKind::Auth);
        assert!(check_status("http://x/login", &response(200, "http://x/login")).is_ok());
    }
}
