//! HTTP with ureq: one client per source, with a limit on every time and size.

use std::borrow::Cow;
use std::io;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use oa_core::base::resolver::SparingResolver;
use oa_core::base::secrets::Secret;
use oa_core::model::retry::ErrorKind;
use ureq::tls::RootCerts;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{RequestBuilder, ResponseExt};
use url::Url;

use super::gate::Gate;
use super::network::Network;
use super::origin::{Asker, HomeOrigin, host_and_port, shown};
use super::{FetchError, Response, Validators};

/// The sites expect a browser.
pub(crate) const USER_AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";
/// One request's own limit; the attempt's deadline may be nearer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Makes requests. Keeps connections and cookies between them.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: ureq::Agent,
    max_body: u64,
    gate: Gate,
    /// Whose the secrets and cookies are.
    home: HomeOrigin,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    /// The address without its query.
    pub(crate) url: String,
    /// Query parameters, unescaped.
    pub(crate) query: Vec<(String, String)>,
    /// More of them, which are in no error and in no archive: signatures and times.
    pub(crate) unlisted_query: Vec<(String, String)>,
    /// A form to post, unescaped.
    pub(crate) form: Vec<(String, String)>,
    /// Or a JSON body to post.
    pub(crate) json: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    /// Headers whose values are secrets.
    pub(crate) secret_headers: Vec<(String, Secret)>,
    /// Least time between the starts of two requests to this host.
    pub(crate) pause: Duration,
    /// Asks only for what has changed since this state (HTTP 304 otherwise).
    pub(crate) validators: Validators,
}

impl Request {
    /// The address with its query, escaped.
    pub(crate) fn with_query(&self) -> String {
        if self.query.is_empty() {
            return self.url.clone();
        }
        let escape = |text: &str| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
                .to_string()
        };
        let pairs: Vec<String> = self
            .query
            .iter()
            .map(|(k, v)| format!("{}={}", escape(k), escape(v)))
            .collect();
        format!("{}?{}", self.url, pairs.join("&"))
    }

    pub(crate) fn method(&self) -> &'static str {
        if self.posts() { "POST" } else { "GET" }
    }

    fn posts(&self) -> bool {
        !self.form.is_empty() || self.json.is_some()
    }

    /// The address with its query, as it is shown in errors and in the archive's index.
    pub(crate) fn display(&self) -> String {
        let pairs: Vec<String> = self.query.iter().map(|(k, v)| format!("{k}={v}")).collect();
        if pairs.is_empty() {
            self.url.clone()
        } else {
            format!("{}?{}", self.url, pairs.join("&"))
        }
    }
}

/// So many redirects may follow one another.
const MOST_REDIRECTS: u32 = 5;

/// One request of a chain of redirects.
struct Hop {
    url: Url,
    /// What was asked for; a redirect's address has its own query, and mostly no form.
    is_first: bool,
    posts: bool,
}

impl Client {
    /// A client for the source at `base`, which accepts bodies up to `max_body` bytes. Proxies are taken from the usual variables.
    pub(crate) fn new(max_body: u64, gate: Gate, base: &str, network: &Network) -> Self {
        let config = ureq::Agent::config_builder()
            .user_agent(USER_AGENT)
            .tls_config(network.tls.clone())
            .http_status_as_error(false)
            // Followed here, where it is known what must not go along.
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(15)))
            .build();
        let home = HomeOrigin::of(base);
        Self {
            agent: agent(config, &home),
            max_body,
            gate,
            home,
        }
    }

    /// The same, whose site may redirect to these origins as well.
    pub(crate) fn allowing(self, origins: &[String]) -> Self {
        let home = self.home.allowing(origins);
        Self {
            agent: agent(self.agent.config().clone(), &home),
            home,
            ..self
        }
    }

    /// Whose certificates are trusted.
    pub(crate) fn roots(&self) -> RootCerts {
        self.agent.config().tls_config().root_certs().clone()
    }

    /// Why no request may go there, as far as that is known before its name is resolved for the connection.
    fn forbids(&self, url: &Url) -> Option<&'static str> {
        self.home.forbids(url).or_else(|| {
            let proxy = self.agent.config().proxy()?;
            let uri: ureq::http::Uri = url.as_str().parse().ok()?;
            let connects = !proxy.resolve_target() && !proxy.is_no_proxy(&uri);
            connects.then(|| self.home.forbids_through_proxy(url))?
        })
    }

    /// What to do where an address was refused and is right all the same; nothing where naming it would not help.
    fn remedy(&self, url: &Url) -> String {
        let is_home = host_and_port(url).is_none_or(|(host, port)| self.home.is_home(host, port));
        if is_home || !matches!(url.scheme(), "http" | "https") {
            return String::new();
        }
        let origin = url.origin().ascii_serialization();
        format!("; if that is right, add {origin} to redirects in [fetch]")
    }

    /// Makes a request and reads the whole answer, before `deadline` at the latest.
    /// A status that is not 2xx is an answer too.
    pub(crate) fn send(
        &self,
        request: &Request,
        deadline: Instant,
    ) -> Result<Response, FetchError> {
        let request_line = format!("{} {}", request.method(), request.display());
        let permit = self.gate.enter(&request.url, request.pause, deadline);
        let late = || {
            let what = format!("no time was left for this request: {request_line}");
            FetchError::new(ErrorKind::Timeout, what)
        };
        let _permit = permit.ok_or_else(late)?;
        let url = Url::parse(&request.url).map_err(|e| {
            let what = format!("not a valid request ({e}): {request_line}");
            FetchError::new(ErrorKind::Shape, what)
        })?;
        let mut hop = Hop {
            url,
            is_first: true,
            posts: request.posts(),
        };
        let mut findings = Vec::new();
        for _ in 0..=MOST_REDIRECTS {
            let refuse = |why: &str| {
                let remedy = self.remedy(&hop.url);
                let what = format!(
                    "refused to ask {} ({why}){remedy}: {request_line}",
                    shown(&hop.url)
                );
                FetchError::new(ErrorKind::Blocked, what)
            };
            if let Some(why) = self.forbids(&hop.url) {
                return Err(refuse(why));
            }
            let left = deadline
                .saturating_duration_since(Instant::now())
                .min(REQUEST_TIMEOUT);
            if left.is_zero() {
                return Err(late());
            }
            let fail = |e: ureq::Error| match forbidden(&e) {
                Some(why) => refuse(why),
                None => explain(&request_line, left, &e),
            };
            let answer = self.ask(request, &hop, left).map_err(fail)?;
            match redirect(&answer, &hop) {
                None => {
                    let response = self.read(answer, findings);
                    return response.map_err(fail);
                }
                Some(next) => {
                    hop = self.follow(&hop, next?).map_err(|why| {
                        let what = format!("refused to follow a redirect ({why}): {request_line}");
                        FetchError::new(ErrorKind::Blocked, what)
                    })?;
                    if !self.home.is(&hop.url) {
                        findings.push(format!(
                            "redirected to another origin, {}; secrets, cookies and headers stayed behind",
                            shown(&hop.url)
                        ));
                    }
                }
            }
        }
        let what = format!("redirected in a circle: {request_line}");
        Err(FetchError::new(ErrorKind::Blocked, what))
    }

    fn ask(
        &self,
        request: &Request,
        hop: &Hop,
        limit: Duration,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let at_home = self.home.is(&hop.url);
        // An agent of its own for others: it has none of the site's cookies.
        let agent = match at_home {
            true => self.agent.clone(),
            false => agent(self.agent.config().clone(), &self.home),
        };
        let url = match hop.is_first {
            true => with_host_in_ascii(&request.url, &hop.url),
            false => Cow::from(hop.url.as_str()),
        };
        let url = &*url;
        if !hop.posts {
            return prepare(agent.get(url), request, hop, at_home, limit).call();
        }
        if let Some(json) = &request.json {
            return prepare(agent.post(url), request, hop, at_home, limit)
                .content_type("application/json; charset=utf-8")
                .send(json.as_str());
        }
        let form = request.form.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        prepare(agent.post(url), request, hop, at_home, limit).send_form(form)
    }

    /// The next request, unless it would give away what this one was trusted with, or goes where nobody has said that it may.
    fn follow(&self, from: &Hop, (url, posts): (Url, bool)) -> Result<Hop, String> {
        if from.url.scheme() == "https" && url.scheme() == "http" {
            return Err(format!("from https to {}", shown(&url)));
        }
        if posts && from.url.origin() != url.origin() {
            return Err(format!("a form would go to {}", shown(&url)));
        }
        if self.forbids(&url).is_none() && !self.home.lets_redirect(&from.url, &url) {
            return Err(format!(
                "to another origin, {}; if that is right, ask there, or add {} to redirects in [fetch]",
                shown(&url),
                url.origin().ascii_serialization()
            ));
        }
        Ok(Hop {
            url,
            is_first: false,
            posts,
        })
    }

    fn read(
        &self,
        mut answer: ureq::http::Response<ureq::Body>,
        findings: Vec<String>,
    ) -> Result<Response, ureq::Error> {
        let header = |name: &str| {
            answer
                .headers()
                .get(name)
                .and_then(|v| v.to_str().ok())
                .map(str::to_owned)
        };
        let (content_type, retry_after) = (
            header("content-type"),
            header("retry-after").and_then(|v| parse_retry_after(&v, Utc::now())),
        );
        let names = answer.headers().keys().map(|name| name.as_str().to_owned());
        let headers = names.filter_map(|name| Some((name.clone(), header(&name)?)));
        let headers: Vec<(String, String)> = headers.collect();
        let state = Validators {
            etag: header("etag"),
            last_modified: header("last-modified"),
        };
        // A site may send several.
        let links = answer.headers().get_all("link").iter();
        let next_link = links
            .map(|v| String::from_utf8_lossy(v.as_bytes()))
            .find_map(|v| next_of(&v));
        let final_url = answer.get_uri().to_string();
        let status = answer.status().as_u16();
        let body = answer
            .body_mut()
            .with_config()
            .limit(self.max_body)
            .read_to_vec()?;
        Ok(Response {
            status,
            content_type,
            final_url,
            retry_after,
            headers,
            next_link,
            state,
            body,
            findings,
        })
    }
}

/// An address as it was given, for parsing may write the same one in another way; but a host whose name has letters outside ASCII by the name
/// that it has in DNS, which nothing else finds.
fn with_host_in_ascii<'a>(given: &'a str, parsed: &Url) -> Cow<'a, str> {
    let parts = given.split_once("://").and_then(|(scheme, rest)| {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        (!authority.is_ascii()).then_some((scheme, authority, path))
    });
    let Some(((scheme, authority, path), host)) = parts.zip(parsed.host_str()) else {
        return Cow::from(given);
    };
    let user = authority.rfind('@').map_or("", |at| &authority[..=at]);
    let port = parsed.port().map_or_else(String::new, |p| format!(":{p}"));
    Cow::from(format!("{scheme}://{user}{host}{port}{path}"))
}

/// An agent that connects to no address that a site of this home may not lead to.
fn agent(config: ureq::config::Config, home: &HomeOrigin) -> ureq::Agent {
    let resolver = JudgingResolver {
        home: home.clone(),
        inner: SparingResolver,
    };
    ureq::Agent::with_parts(config, DefaultConnector::new(), resolver)
}

/// Gives only addresses to which a connection may be made: those that it gives are connected to, and no name is resolved a second time.
#[derive(Debug)]
struct JudgingResolver {
    home: HomeOrigin,
    inner: SparingResolver,
}

/// Why no connection is made.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Forbidden(&'static str);

impl Resolver for JudgingResolver {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout);
        // The proxy is the operator's own.
        if config.proxy().is_some_and(|proxy| proxy.uri() == uri) {
            return found;
        }
        let found = found.map_err(unresolved)?;
        let url = Url::parse(&uri.to_string()).ok();
        let Some((host, port)) = url.as_ref().and_then(host_and_port) else {
            return Err(ureq::Error::HostNotFound);
        };
        let ips = found.iter().map(std::net::SocketAddr::ip);
        match self.home.forbids_ips(host, port, ips, Asker::Program) {
            Some(why) => Err(ureq::Error::Other(Box::new(Forbidden(why)))),
            None => Ok(found),
        }
    }
}

/// That it knows no address of a name the system says in words, without a number.
fn unresolved(error: ureq::Error) -> ureq::Error {
    match error {
        ureq::Error::Io(e) if e.raw_os_error().is_none() => ureq::Error::HostNotFound,
        other => other,
    }
}

fn forbidden(error: &ureq::Error) -> Option<&'static str> {
    let ureq::Error::Other(error) = error else {
        return None;
    };
    error.downcast_ref::<Forbidden>().map(|why| why.0)
}

/// Where an answer redirects to, and whether a form goes there again.
fn redirect(
    answer: &ureq::http::Response<ureq::Body>,
    hop: &Hop,
) -> Option<Result<(Url, bool), FetchError>> {
    let status = answer.status().as_u16();
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = answer.headers().get("location")?;
    let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
    let again = hop.posts && matches!(status, 307 | 308);
    let next = hop.url.join(&location).map(|url| (url, again));
    Some(next.map_err(|e| {
        let what = format!(
            "redirected to an address that is none ({e}): {}",
            shown(&hop.url)
        );
        FetchError::new(ErrorKind::Blocked, what)
    }))
}

/// Only the source's own origin gets its secrets and, after a redirect, its headers.
fn prepare<B>(
    builder: RequestBuilder<B>,
    request: &Request,
    hop: &Hop,
    at_home: bool,
    limit: Duration,
) -> RequestBuilder<B> {
    let mut builder = builder.config().timeout_global(Some(limit)).build();
    if hop.is_first {
        let pairs = request.query.iter().chain(&request.unlisted_query);
        builder = builder.query_pairs(pairs.map(|(k, v)| (k.as_str(), v.as_str())));
    }
    if at_home || hop.is_first {
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
    }
    if !at_home {
        return builder;
    }
    for (name, value) in [
        ("if-none-match", &request.validators.etag),
        ("if-modified-since", &request.validators.last_modified),
    ] {
        if let Some(value) = value {
            builder = builder.header(name, value);
        }
    }
    for (name, value) in &request.secret_headers {
        builder = builder.header(name, value.expose());
    }
    builder
}

/// The address with `rel="next"` in a header `Link` (RFC 8288).
fn next_of(header: &str) -> Option<String> {
    outside_quotes(header, ',').find_map(|link| {
        let (address, parameters) = link.trim_start().strip_prefix('<')?.split_once('>')?;
        let mut relations = outside_quotes(parameters, ';').filter_map(|p| {
            let (name, value) = p.split_once('=')?;
            let is_rel = name.trim().eq_ignore_ascii_case("rel");
            is_rel.then(|| value.trim().trim_matches('"'))
        });
        // Of several only the first counts.
        let mut names = relations.next()?.split_ascii_whitespace();
        let is_next = names.any(|r| r.eq_ignore_ascii_case("next"));
        is_next.then(|| address.trim().to_owned())
    })
}

/// What the separator stands between, where it is in no quotation marks and in no address.
fn outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut within, mut escaped) = (false, false, false);
    text.split(move |c| {
        match c {
            _ if std::mem::take(&mut escaped) => {}
            '\\' if quoted => escaped = true,
            '"' if !within => quoted = !quoted,
            '<' if !quoted => within = true,
            '>' if !quoted => within = false,
            _ => {}
        }
        c == separator && !quoted && !within
    })
}

/// `Retry-After`: seconds or an HTTP date.
fn parse_retry_after(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = DateTime::parse_from_rfc2822(value.trim()).ok()?;
    Some((at.with_timezone(&Utc) - now).to_std().unwrap_or_default())
}

/// A handshake that failed comes as an error of reading.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn explain_tls(error: &rustls::Error) -> String {
    let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
    match *error == unknown {
        true => "the site's certificate comes from an authority that this machine does not know; if it is to be trusted, name its certificate by ca_file in [crawl]".to_owned(),
        false => format!("the encrypted connection failed ({error})"),
    }
}

fn explain(url: &str, limit: Duration, error: &ureq::Error) -> FetchError {
    let too_slow = || format!("no complete answer within {} s", limit.as_secs_f64().ceil());
    let (kind, what) = match error {
        ureq::Error::Timeout(_) => (ErrorKind::Timeout, too_slow()),
        ureq::Error::HostNotFound => (
            ErrorKind::Dns,
            "the host name cannot be resolved".to_owned(),
        ),
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => (ErrorKind::Tls, error.to_string()),
        ureq::Error::BodyExceedsLimit(limit) => (
            ErrorKind::Shape,
            format!("more than {limit} bytes (max_body in [crawl])"),
        ),
        ureq::Error::TooManyRedirects => (ErrorKind::Blocked, "redirected in a circle".to_owned()),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            (ErrorKind::Shape, format!("not a valid request ({error})"))
        }
        ureq::Error::Io(e) if tls_error(e).is_some() => {
            let what = tls_error(e).map_or_else(String::new, explain_tls);
            (ErrorKind::Tls, what)
        }
        ureq::Error::Io(e) => match e.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => (ErrorKind::Timeout, too_slow()),
            io::ErrorKind::ConnectionRefused => {
                (ErrorKind::Network, "connection refused".to_owned())
            }
            io::ErrorKind::UnexpectedEof => {
                (ErrorKind::Network, "the answer was cut short".to_owned())
            }
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                (ErrorKind::Network, format!("the body is damaged ({e})"))
            }
            _ => (ErrorKind::Network, e.to_string()),
        },
        other => (ErrorKind::Network, other.to_string()),
    };
    FetchError::new(kind, format!("{what}: {url}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_links() {
        for (header, next) in [
            ("</p?page=2>; rel=\"next\"", Some("/p?page=2")),
            (
                "<http://x/1>; rel=prev, <http://x/3>; title=\"a, b\"; REL=next",
                Some("http://x/3"),
            ),
            ("<a>; rel=\"last next\"", Some("a")),
            ("<a>; rel=prev,\t<b>;  rel = next", Some("b")),
            ("<a,1>; rel=next; rel=prev", Some("a,1")),
            ("<a>; title=\"x; rel=next, <z>\"; rel=prev", None),
            ("<a>; title=\"5\\\" pipe\"; rel=next", Some("a")),
            ("<http://x/1>; rel=\"prev\"", None),
            ("<http://x/1", None),
            ("", None),
        ] {
            assert_eq!(next_of(header).as_deref(), next, "{header}");
        }
    }

    #[test]
    fn what_a_name_leads_to_is_judged_when_it_is_connected_to() {
        let resolve = |home: &str, uri: &str| {
            let resolver = JudgingResolver {
                home: HomeOrigin::of(home),
                inner: SparingResolver,
            };
            let config = ureq::Agent::config_builder().proxy(None).build();
            resolver.resolve(&uri.parse().unwrap(), &config, NextTimeout::default())
        };
        let refused = resolve("http://192.0.2.1", "http://localhost:81/").unwrap_err();
        assert!(forbidden(&refused).is_some(), "{refused}");
        assert!(resolve("http://localhost:81", "http://localhost:81/x").is_ok());
        assert!(resolve("http://192.0.2.1", "http://192.0.2.2/").is_ok());
        let nobody = "http://no-such-host.invalid";
        let unknown = resolve(nobody, nobody).unwrap_err();
        assert!(matches!(unknown, ureq::Error::HostNotFound), "{unknown}");
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now: DateTime<Utc> = "2025-12-01T08:00:00Z".parse().unwrap();
        assert_eq!(
            parse_retry_after("120", now),
            Some(Duration::from_secs(120))
        );
        assert_eq!(
            parse_retry_after("Mon, 01 Dec 2025 08:01:30 GMT", now),
            Some(Duration::from_secs(90))
        );
        assert_eq!(
            parse_retry_after("Mon, 01 Dec 2025 07:00:00 GMT", now),
            Some(Duration::ZERO)
        );
        assert_eq!(parse_retry_after("soon", now), None);
    }
}
