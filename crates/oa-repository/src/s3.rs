//! S3-compatible storage as a repository: the five requests that the engine needs, signed by `rusty-s3` and made by `ureq`.
//! Requests that fail in passing (no answer, 429, 5xx) are repeated; an object appears as a whole or not at all.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use oa_core::app::config::{Config, ConfigError, S3 as S3Config};
use oa_core::base::resolver;
use oa_core::base::secrets::Secret;
use oa_core::base::supervise::StopSignal;
use oa_core::base::text::{beginning, error_text};
use rustic_core::{
    BytesList, ErrorKind, FileType, Id, ReadBackend, RusticError, RusticResult, WriteBackend,
};
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};

use crate::stop::go_on;

/// How long a signed request is valid.
const VALID: Duration = Duration::from_secs(600);
/// One request's own limit, for a pack of some tens of MiB on a slow line.
const LIMIT: Duration = Duration::from_secs(300);
/// A passing failure is followed by so many more tries, after twice the wait each.
const RETRIES: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Largest answer that is read: the engine's packs are far smaller.
const MOST: u64 = 1 << 30;

/// How to reach the storage.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    endpoint: String,
    region: String,
    access_key: Secret,
    secret_key: Secret,
    path_style: bool,
}

impl Access {
    pub(crate) fn from_config(config: &Config, s3: &S3Config) -> Result<Self, ConfigError> {
        Ok(Self {
            endpoint: s3.endpoint.clone(),
            region: s3.region.clone(),
            access_key: config.secret(&s3.access_key, "access_key in [backup.s3]")?,
            secret_key: config.secret(&s3.secret_key, "secret_key in [backup.s3]")?,
            path_style: s3.path_style,
        })
    }
}

pub(crate) struct S3 {
    bucket: Bucket,
    prefix: String,
    credentials: Credentials,
    agent: ureq::Agent,
}

impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3")
            .field("location", &self.location())
            .finish_non_exhaustive()
    }
}

impl S3 {
    /// `rest` is `BUCKET` or `BUCKET/PREFIX`.
    pub(crate) fn new(rest: &str, access: &Access) -> Result<Self, String> {
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let endpoint = access.endpoint.parse().map_err(|e| {
            format!(
                "endpoint {} in [backup.s3] is no address: {e}",
                access.endpoint
            )
        })?;
        let style = if access.path_style {
            UrlStyle::Path
        } else {
            UrlStyle::VirtualHost
        };
        let bucket = Bucket::new(endpoint, style, name.to_owned(), access.region.clone()).map_err(|e| {
            format!("endpoint {} in [backup.s3] does not fit bucket \"{name}\": {e:?}; path_style = true may be needed", access.endpoint)
        })?;
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(LIMIT))
            .http_status_as_error(false)
            .max_redirects(0)
            .build();
        let prefix = prefix.trim_matches('/');
        Ok(Self {
            bucket,
            prefix: if prefix.is_empty() {
                String::new()
            } else {
                format!("{prefix}/")
            },
            credentials: Credentials::new(access.access_key.expose(), access.secret_key.expose()),
            agent: resolver::agent(config),
        })
    }

    fn key(&self, kind: FileType, id: &Id) -> String {
        let hex = id.to_hex();
        match kind {
            FileType::Config => format!("{}config", self.prefix),
            FileType::Pack => format!("{}data/{}/{}", self.prefix, &hex[..2], hex.as_str()),
            _ => format!("{}{}/{}", self.prefix, kind.dirname(), hex.as_str()),
        }
    }

    /// Makes a request until it is answered for good. The address is signed anew each time, and in no error.
    fn ask(
        &self,
        doing: &'static str,
        key: &str,
        request: impl Fn(&ureq::Agent) -> Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> RusticResult<(u16, Bytes)> {
        let mut wait = FIRST_WAIT;
        let mut tries = 0;
        loop {
            let answered = request(&self.agent).and_then(|response| {
                let status = response.status().as_u16();
                let mut body = Vec::new();
                response
                    .into_body()
                    .into_with_config()
                    .limit(MOST)
                    .reader()
                    .read_to_end(&mut body)?;
                Ok((status, Bytes::from(body)))
            });
            let reason = match answered {
                Ok((status, body)) if status < 500 && status != 429 => return Ok((status, body)),
                Ok((status, body)) => format!("HTTP {status} {}", said(&body)),
                Err(e) => e.to_string(),
            };
            if tries == RETRIES {
                return Err(self.error(doing, key, &reason));
            }
            tracing::info!("could not {doing} {key}: {reason}; trying again in {wait:?}");
            if !StopSignal.wait(wait) {
                return Err(self.error(doing, key, "this process was asked to stop"));
            }
            wait *= 2;
            tries += 1;
        }
    }

    fn error(&self, doing: &str, key: &str, reason: &str) -> Box<RusticError> {
        let text = format!("could not {doing} {key} at {}: {reason}", self.location());
        RusticError::new(ErrorKind::Backend, text)
    }

    fn done(
        &self,
        doing: &'static str,
        key: &str,
        (status, body): (u16, Bytes),
    ) -> RusticResult<Bytes> {
        if (200..300).contains(&status) {
            Ok(body)
        } else {
            Err(self.error(doing, key, &format!("HTTP {status} {}", said(&body))))
        }
    }

    fn get(&self, key: &str, range: Option<(u32, u32)>) -> RusticResult<Bytes> {
        let answer = self.ask("read", key, |agent| {
            let action = self.bucket.get_object(Some(&self.credentials), key);
            let request = agent.get(action.sign(VALID).as_str());
            match range {
                Some((offset, length)) => request
                    .header(
                        "range",
                        format!(
                            "bytes={offset}-{}",
                            u64::from(offset) + u64::from(length) - 1
                        ),
                    )
                    .call(),
                None => request.call(),
            }
        })?;
        self.done("read", key, answer)
    }
}

/// The code and message of an error answer, which is XML, as they may be shown.
pub(crate) fn said(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let part = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>"))
            .map(|(value, _)| value.to_owned())
    };
    error_text(&match (part("Code"), part("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code,
        _ => beginning(&text, 200),
    })
}

impl ReadBackend for S3 {
    fn location(&self) -> String {
        format!("s3://{}/{}", self.bucket.name(), self.prefix)
    }

    fn list_with_size(&self, kind: FileType) -> RusticResult<Vec<(Id, u32)>> {
        let prefix = match kind {
            FileType::Config => format!("{}config", self.prefix),
            _ => format!("{}{}/", self.prefix, kind.dirname()),
        };
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let answer = self.ask("list", &prefix, |agent| {
                let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
                action.with_prefix(prefix.as_str());
                if let Some(token) = &token {
                    action.with_continuation_token(token.as_str());
                }
                agent.get(action.sign(VALID).as_str()).call()
            })?;
            let body = self.done("list", &prefix, answer)?;
            let text = String::from_utf8_lossy(&body);
            let page = ListObjectsV2::parse_response(&text)
                .map_err(|e| self.error("list", &prefix, &format!("the answer is no list: {e}")))?;
            for object in page.contents {
                let size = object
                    .size
                    .ok_or_else(|| self.error("list", &prefix, "the answer names no size"))?;
                let size = u32::try_from(size).unwrap_or(u32::MAX);
                let name = object
                    .key
                    .rsplit_once('/')
                    .map_or(&*object.key, |(_, name)| name);
                match kind {
                    FileType::Config if object.key == prefix => found.push((Id::default(), size)),
                    FileType::Config => {}
                    _ => found.extend(Id::parse_some(name, kind).map(|id| (id, size))),
                }
            }
            token = page.next_continuation_token;
            if token.is_none() {
                return Ok(found);
            }
        }
    }

    fn read_full(&self, kind: FileType, id: &Id) -> RusticResult<Bytes> {
        go_on(kind)?;
        self.get(&self.key(kind, id), None)
    }

    fn read_partial(
        &self,
        kind: FileType,
        id: &Id,
        _cacheable: bool,
        offset: u32,
        length: u32,
    ) -> RusticResult<Bytes> {
        go_on(kind)?;
        let key = self.key(kind, id);
        let body = self.get(&key, Some((offset, length)))?;
        if body.len() as u64 == u64::from(length) {
            Ok(body)
        } else {
            Err(self.error(
                "read",
                &key,
                &format!("{} bytes came instead of {length}", body.len()),
            ))
        }
    }

    fn warmup_path(&self, kind: FileType, id: &Id) -> String {
        self.key(kind, id)
    }
}

impl WriteBackend for S3 {
    fn write_bytes(
        &self,
        kind: FileType,
        id: &Id,
        _cacheable: bool,
        content: BytesList,
    ) -> RusticResult<()> {
        go_on(kind)?;
        let key = self.key(kind, id);
        let content: Vec<u8> = content.into_vec().concat();
        let answer = self.ask("write", &key, |agent| {
            let action = self.bucket.put_object(Some(&self.credentials), &key);
            agent.put(action.sign(VALID).as_str()).send(&content)
        })?;
        self.done("write", &key, answer).map(drop)
    }

    fn remove(&self, kind: FileType, id: &Id, _cacheable: bool) -> RusticResult<()> {
        let key = self.key(kind, id);
        let answer = self.ask("remove", &key, |agent| {
            let action = self.bucket.delete_object(Some(&self.credentials), &key);
            agent.delete(action.sign(VALID).as_str()).call()
        })?;
        self.done("remove", &key, answer).map(drop)
    }
}
