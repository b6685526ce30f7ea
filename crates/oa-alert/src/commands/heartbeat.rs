//! An address outside that notices when nobody asks it any more, and hears when something is wrong that people do not hear of.
//!
//! healthchecks.io and what speaks like it: `URL/start`, `URL`, `URL/fail`, before the query (`rid`, `create`). Uptime Kuma's push
//! monitors: `/api/push/TOKEN?status=up|down&msg=…`, without a start. Cronitor: `https://cronitor.link/p/KEY/NAME?state=run|complete|fail`
//! with a `message`. What a query means elsewhere is not known: a ping that says "fail" could say "fine" there, so such an address is
//! refused.

use std::io::Read;
use std::time::Duration;

use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::base::resolver;
use oa_core::base::secrets::{Secret, redact};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::{Response, Uri};
use uuid::Uuid;

/// To https, and from there to another path.
const MOST_REDIRECTS: usize = 2;
/// Longest time for the address outside.
const PING: Duration = Duration::from_secs(5);
/// Longest text for it, in characters.
const LONGEST: usize = 1000;
/// No service says more, in bytes; a page that stands in its place may.
const LONGEST_ANSWER: u64 = 64 << 10;

/// What is said.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event<'a> {
    /// The check begins.
    Start,
    /// It works, and nothing waits.
    Fine,
    /// It does not, or people do not hear of what is wrong.
    Fail(&'a str),
}

/// The address outside.
#[derive(Debug, Clone)]
pub(super) struct Heartbeat(Option<(Service, Secret)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Healthchecks,
    UptimeKuma,
    Cronitor,
}

impl Heartbeat {
    pub(super) const NONE: Self = Self(None);

    pub(super) fn from_config(config: &Config) -> Result<Self, Failure> {
        let Some(reference) = &config.alert.heartbeat_url else {
            return Ok(Self::NONE);
        };
        let url = config.secret(reference, "heartbeat_url in [alert]")?;
        let service = service(url.expose()).map_err(|why| {
            Failure::new(
                exit::CONFIG,
                anyhow::anyhow!("heartbeat_url in [alert] {why}"),
            )
        })?;
        Ok(Self(Some((service, url))))
    }

    /// Nothing here depends on its answer, but people should know: what went wrong, `None` where nobody was to be asked.
    pub(super) fn ping(&self, event: Event<'_>) -> Option<Result<(), String>> {
        let (service, url) = self.0.as_ref()?;
        let address = address(*service, url.expose(), event)?;
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PING))
            // Nobody outside makes this machine ask itself, or somebody else.
            .max_redirects(0)
            .build();
        let agent = resolver::agent(config);
        let ask = |address: &str| match event {
            Event::Fail(why) if *service == Service::Healthchecks => agent
                .post(address)
                .content_type("text/plain; charset=utf-8")
                .send(why.chars().take(LONGEST).collect::<String>()),
            _ => agent.get(address).call(),
        };
        let mut asked = address;
        let mut answer = ask(&asked);
        for _ in 0..MOST_REDIRECTS {
            let there = answer
                .as_ref()
                .ok()
                .and_then(|answer| moved(&asked, answer));
            let Some(there) = there else {
                break;
            };
            answer = ask(&there);
            asked = there;
        }
        let answer = match answer {
            Ok(answer) if answer.status().is_redirection() => Err(
                "it redirects too often, or to somebody else, who is not asked; write the new address as heartbeat_url"
                    .to_owned(),
            ),
            Ok(mut answer) => {
                let mut said = Vec::new();
                let body = answer.body_mut().as_reader();
                // The beginning says enough, whatever its encoding is, also where the rest does not come.
                if let Err(e) = body.take(LONGEST_ANSWER).read_to_end(&mut said) {
                    tracing::debug!("the heartbeat\u{2019}s answer ends early: {e}");
                }
                acknowledged(*service, &String::from_utf8_lossy(&said))
            }
            Err(e) => Err(redact(&e.to_string())),
        };
        if let Err(e) = &answer {
            tracing::warn!("the heartbeat\u{2019}s address did not answer: {e}");
        }
        Some(answer)
    }
}

/// What an answer says whose status is good: healthchecks.io answers so also for a check that it does not have, and a login page may stand
/// before a service of one's own. Then nobody notices when the requests stop.
fn acknowledged(service: Service, body: &str) -> Result<(), String> {
    let refused = |what: &str| Err(what.to_owned());
    match (service, body.trim()) {
        (_, body) if body.starts_with('<') => refused(
            "a web page answers in its place; write the service's own address as heartbeat_url",
        ),
        (Service::Healthchecks, "OK (not found)") => {
            refused("the service has no such check; copy the check's address again")
        }
        (Service::UptimeKuma, body) => match serde_json::from_str::<serde_json::Value>(body) {
            Ok(answer) if answer.get("ok") == Some(&false.into()) => {
                refused("there is no such monitor, or it is paused; copy its address again")
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Where the same host wants to be asked instead: by another path, or by https.
fn moved<T>(from: &str, answer: &Response<T>) -> Option<String> {
    if !answer.status().is_redirection() {
        return None;
    }
    let to = answer.headers().get("location")?.to_str().ok()?;
    let (from, there): (Uri, Uri) = (from.parse().ok()?, to.parse().ok()?);
    let Some(authority) = there.authority() else {
        let (scheme, authority) = (from.scheme_str()?, from.authority()?);
        let is_path = to.starts_with('/') && !to.starts_with("//");
        return is_path.then(|| format!("{scheme}://{authority}{to}"));
    };
    let same = from.authority() == Some(authority);
    let secured = there.scheme_str() == Some("https") && authority.port().is_none();
    (same && (secured || from.scheme() == there.scheme())).then(|| to.to_owned())
}

/// Whose address it is.
fn service(url: &str) -> Result<Service, &'static str> {
    let parsed: Uri = url
        .parse()
        .map_err(|_| "is no address of the web; copy it again")?;
    if !matches!(parsed.scheme_str(), Some("https" | "http")) || parsed.host().is_none() {
        return Err("must begin with https://");
    }
    if url.contains('#') {
        return Err("has a part behind #, which no service gets; copy it again");
    }
    if parsed
        .host()
        .is_some_and(|h| h.eq_ignore_ascii_case("cronitor.link"))
    {
        return Ok(Service::Cronitor);
    }
    let segments: Vec<&str> = parsed.path().split('/').filter(|s| !s.is_empty()).collect();
    if let [.., "api", "push", token] = segments.as_slice()
        && !token.is_empty()
    {
        return Ok(Service::UptimeKuma);
    }
    let names = |query: &str| -> Vec<String> {
        let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
        query
            .split('&')
            .filter(|p| !p.is_empty())
            .map(name)
            .collect()
    };
    let known = |name: &String| ["rid", "create"].contains(&name.as_str());
    let of_healthchecks = parsed.query().is_none_or(|q| names(q).iter().all(known))
        || segments.iter().any(|s| Uuid::try_parse(s).is_ok());
    if of_healthchecks {
        return Ok(Service::Healthchecks);
    }
    Err(
        "has a query of a service that is not known: only healthchecks (https://host/UUID), Uptime Kuma (https://host/api/push/TOKEN) and Cronitor (https://cronitor.link/p/KEY/NAME) are asked with one",
    )
}

fn address(service: Service, url: &str, event: Event<'_>) -> Option<String> {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let path = path.trim_end_matches('/');
    let (path, query) = match (service, event) {
        (Service::Healthchecks, Event::Start) => (format!("{path}/start"), query.to_owned()),
        (Service::Healthchecks, Event::Fine) => (path.to_owned(), query.to_owned()),
        (Service::Healthchecks, Event::Fail(_)) => (format!("{path}/fail"), query.to_owned()),
        // It knows no start: that would count as being up.
        (Service::UptimeKuma, Event::Start) => return None,
        (Service::UptimeKuma, event) => {
            let (status, text) = match event {
                Event::Fail(why) => ("down", why.chars().take(LONGEST / 4).collect::<String>()),
                _ => ("up", "OK".to_owned()),
            };
            (
                path.to_owned(),
                said(query, ["status", "msg", "ping"], status, &text),
            )
        }
        (Service::Cronitor, event) => {
            let (state, text) = match event {
                Event::Start => ("run", String::new()),
                Event::Fine => ("complete", "OK".to_owned()),
                Event::Fail(why) => ("fail", why.chars().take(LONGEST).collect()),
            };
            (
                path.to_owned(),
                said(query, ["state", "message", "metric"], state, &text),
            )
        }
    };
    Some(if query.is_empty() {
        path
    } else {
        format!("{path}?{query}")
    })
}

/// The query of an address with what is said in place of what stood there; the names are of state and text, and of what goes.
fn said(query: &str, [state, text, other]: [&str; 3], is: &str, why: &str) -> String {
    let kept = query.split('&').filter(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        !pair.is_empty() && ![state, text, other].contains(&name)
    });
    let mut ours = format!("{state}={is}");
    if !why.is_empty() {
        ours.push_str(&format!(
            "&{text}={}",
            utf8_percent_encode(why, NON_ALPHANUMERIC)
        ));
    }
    kept.chain([ours.as_str()]).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ID: &str = "https://hc-ping.com/4f1b9b9e-1f0e-4a7a-9f0e-1b2c3d4e5f60";

    fn all(url: &str) -> [Option<String>; 3] {
        let service = service(url).unwrap();
        [Event::Start, Event::Fine, Event::Fail("等待 4")].map(|e| address(service, url, e))
    }

    #[test]
    fn each_service_hears_of_a_failure_in_its_own_way() {
        let some = |text: &str| Some(text.to_owned());
        let of =
            |query: &str| ["/start", "", "/fail"].map(|event| some(&format!("{ID}{event}{query}")));
        assert_eq!(all(ID), of(""));
        assert_eq!(all(&format!("{ID}/")), of(""));
        assert_eq!(all(&format!("{ID}?rid=1")), of("?rid=1"));
        assert_eq!(
            all("http://h/ping/KEY/slug?create=1")[2],
            some("http://h/ping/KEY/slug/fail?create=1")
        );
        let kuma = "https://k/x/api/push/T";
        let said = [
            None,
            some(&format!("{kuma}?status=up&msg=OK")),
            some(&format!("{kuma}?status=down&msg=%E7%AD%89%E5%BE%85%204")),
        ];
        assert_eq!(all(kuma), said);
        assert_eq!(all(&format!("{kuma}?status=up&msg=OK&ping=")), said);
        let cronitor = "https://cronitor.link/p/KEY/oa";
        let said = [
            some(&format!("{cronitor}?env=prod&state=run")),
            some(&format!("{cronitor}?env=prod&state=complete&message=OK")),
            some(&format!(
                "{cronitor}?env=prod&state=fail&message=%E7%AD%89%E5%BE%85%204"
            )),
        ];
        assert_eq!(all(&format!("{cronitor}?state=complete&env=prod")), said);
    }

    #[test]
    fn an_answer_that_only_looks_like_one_is_none() {
        use Service::{Cronitor, Healthchecks, UptimeKuma};
        for (service, body, is_one) in [
            (Healthchecks, "OK", true),
            (Healthchecks, "", true),
            (Healthchecks, "OK (rate limited)", true),
            (Healthchecks, "OK (not found)\n", false),
            (
                Healthchecks,
                "\n<!DOCTYPE html><title>Log in</title>",
                false,
            ),
            (UptimeKuma, r#"{"ok":true}"#, true),
            (
                UptimeKuma,
                r#"{"ok":false,"msg":"Monitor not found or not active."}"#,
                false,
            ),
            (UptimeKuma, "OK (not found)", true),
            (Cronitor, "OK", true),
            (Cronitor, "<html>", false),
        ] {
            assert_eq!(acknowledged(service, body).is_ok(), is_one, "{body}");
        }
    }

    #[test]
    fn only_the_same_host_is_asked_when_it_redirects() {
        let to = |from: &str, location: &str| {
            let answer = Response::builder().status(302);
            moved(from, &answer.header("location", location).body(()).unwrap())
        };
        for (from, location, there) in [
            ("http://h/x", "https://h/x", Some("https://h/x")),
            ("http://h:1/x", "/y?a=b", Some("http://h:1/y?a=b")),
            ("https://h/x", "https://h/y", Some("https://h/y")),
            ("https://h/x", "http://h/x", None),
            ("http://h:1/x", "https://h:1/x", None),
            ("https://h/x", "https://h.example/x", None),
            ("https://h/x", "https://h@127.0.0.1/x", None),
            ("https://h/x", "//127.0.0.1/x", None),
            ("https://h/x", "http://127.0.0.1:5432/", None),
        ] {
            assert_eq!(to(from, location).as_deref(), there, "{from} {location}");
        }
        let fine = Response::builder().header("location", "/y").body(());
        assert_eq!(moved("http://h/x", &fine.unwrap()), None);
    }

    #[test]
    fn an_address_whose_query_says_who_knows_what_is_refused() {
        for url in [
            "https://h/p/KEY/name?state=complete",
            "https://h/x?status=up",
            "ftp://h/x",
            "hc-ping.com/x",
            "https://h/x#y",
        ] {
            assert!(service(url).is_err(), "{url}");
        }
    }
}
