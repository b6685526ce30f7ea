//! Requests as they come, answers as they go.

use std::collections::HashMap;
use std::io::{self, Read};

use percent_encoding::percent_decode_str;
use serde_json::Value;

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub raw_query: String,
    pub query: HashMap<String, String>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    pub fn param(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.param(name).parse().ok()
    }
}

/// An answer before transport faults.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            body: body.into(),
        }
    }

    pub fn json(value: &Value) -> Self {
        Self::new(200, "application/json; charset=utf-8", value.to_string())
    }

    pub fn html(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, "text/html; charset=utf-8", body)
    }

    pub fn not_found() -> Self {
        Self::new(404, "text/plain", "not found")
    }

    pub fn redirect(to: &str) -> Self {
        Self::new(302, "text/plain", "").with("location", to)
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

const LARGEST: usize = 4 << 20;

/// Reads one request; `None` when the peer has closed the connection.
pub fn read_request(stream: &mut impl Read, pending: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut buffer = [0; 8192];
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(pending).map_err(|e| bad(&e.to_string()))? {
            httparse::Status::Complete(head) => {
                let target = parsed.path.unwrap_or("/").to_owned();
                let method = parsed.method.unwrap_or("GET").to_owned();
                let headers: Vec<(String, String)> = parsed
                    .headers
                    .iter()
                    .map(|h| {
                        (
                            h.name.to_owned(),
                            String::from_utf8_lossy(h.value).into_owned(),
                        )
                    })
                    .collect();
                let length = headers
                    .iter()
                    .find(|(n, _)| n.eq_ignore_ascii_case("content-length"))
                    .and_then(|(_, v)| v.trim().parse().ok())
                    .unwrap_or(0);
                if length > LARGEST {
                    return Err(bad("body too large"));
                }
                while pending.len() < head + length {
                    let n = stream.read(&mut buffer)?;
                    if n == 0 {
                        return Err(bad("body cut short"));
                    }
                    pending.extend_from_slice(&buffer[..n]);
                }
                let body = pending[head..head + length].to_vec();
                pending.drain(..head + length);
                return Ok(Some(build(method, &target, headers, body)));
            }
            httparse::Status::Partial => {
                let n = stream.read(&mut buffer)?;
                if n == 0 {
                    return Ok(None);
                }
                pending.extend_from_slice(&buffer[..n]);
                if pending.len() > LARGEST {
                    return Err(bad("head too large"));
                }
            }
        }
    }
}

fn build(method: String, target: &str, headers: Vec<(String, String)>, body: Vec<u8>) -> Request {
    let (path, raw_query) = target.split_once('?').unwrap_or((target, ""));
    Request {
        method,
        path: decode(path),
        raw_query: raw_query.to_owned(),
        query: parse_form(raw_query),
        headers,
        body,
    }
}

/// `a=1&b=%E5%85%A8` as a map.
pub fn parse_form(text: &str) -> HashMap<String, String> {
    text.split('&')
        .filter(|p| !p.is_empty())
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
