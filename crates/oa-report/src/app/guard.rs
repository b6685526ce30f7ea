//! Who may ask. With tokens in the configuration each request needs one, as `Authorization: Bearer TOKEN` or as the password of basic
//! authentication, which is what a browser asks for. Without tokens only this machine may ask, and only under this machine's names: a
//! page of some other site, whose name was made to lead here, gets nothing. Nor does a reverse proxy on this machine, behind which
//! anybody may be.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use oa_core::app::config::TokenHash;
use sha2::{Digest, Sha256};

/// So many wrong tokens from one address within [`WINDOW`] close the door for it.
const MOST_FAILURES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered; more are a flood from many, and the oldest go.
const MOST_ADDRESSES: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Somebody with a token, by its name.
    Named(String),
    /// Somebody on this machine; there are no tokens.
    Local,
}

impl Caller {
    /// The name of the token; `-` without one.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Named(name) => name,
            Self::Local => "-",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No token, or a wrong one.
    Unauthorized,
    /// Too many wrong ones; seconds to wait.
    TooMany(u64),
    /// Without tokens, and under a name that is not this machine's.
    WrongHost,
    /// Without tokens, and for somebody else.
    Proxied,
}

#[derive(Debug)]
pub(crate) struct Guard {
    tokens: BTreeMap<String, TokenHash>,
    failures: Mutex<HashMap<IpAddr, (u32, Instant)>>,
    key: [u8; 32],
}

impl Guard {
    /// With the configuration's tokens, and a random `key` for the tokens of forms.
    pub(crate) fn new(tokens: BTreeMap<String, TokenHash>, key: [u8; 32]) -> Self {
        Self {
            tokens,
            failures: Mutex::default(),
            key,
        }
    }

    /// Decides. `from` is the address that asks, `host` the request's `Host`, `proxied` whether it asks for somebody else,
    /// `authorization` its header.
    pub(crate) fn admit(
        &self,
        from: IpAddr,
        host: Option<&str>,
        proxied: bool,
        authorization: Option<&str>,
    ) -> Result<Caller, Refusal> {
        if self.tokens.is_empty() {
            return match host {
                _ if proxied => Err(Refusal::Proxied),
                Some(host) if is_this_machine(host) => Ok(Caller::Local),
                _ => Err(Refusal::WrongHost),
            };
        }
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((count, since)) = failures.get(&from) {
            let left = WINDOW.saturating_sub(since.elapsed());
            if left.is_zero() {
                failures.remove(&from);
            } else if *count >= MOST_FAILURES {
                return Err(Refusal::TooMany(left.as_secs() + 1));
            }
        }
        // A browser asks without first: that is no wrong token.
        let Some(authorization) = authorization else {
            return Err(Refusal::Unauthorized);
        };
        if let Some(name) = token(authorization).and_then(|token| self.name_of(&token)) {
            return Ok(Caller::Named(name.to_owned()));
        }
        if failures.len() >= MOST_ADDRESSES {
            failures.retain(|_, (_, since)| since.elapsed() < WINDOW);
            if failures.len() >= MOST_ADDRESSES {
                failures.clear();
            }
        }
        failures.entry(from).or_insert((0, Instant::now())).0 += 1;
        Err(Refusal::Unauthorized)
    }

    /// Looks at all of them, each in full, so that the time it takes tells nothing.
    fn name_of(&self, token: &str) -> Option<&str> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut found = None;
        for (name, known) in &self.tokens {
            if same(&hash, &known.0) {
                found = Some(name.as_str());
            }
        }
        found
    }

    /// What a form of a page must bring back, which no other site knows.
    pub(crate) fn form_token(&self, caller: &Caller) -> String {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update(caller.name().as_bytes());
        hash.update(self.key);
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash.finalize())
    }

    /// Whether a form brought it.
    pub(crate) fn is_form_token(&self, caller: &Caller, given: &str) -> bool {
        same(self.form_token(caller).as_bytes(), given.as_bytes())
    }
}

/// 256 random bits.
pub(crate) fn random_key() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Compares in a time that depends on the lengths only.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && std::hint::black_box(
            a.iter()
                .zip(b)
                .fold(0, |different, (x, y)| different | (x ^ y)),
        ) == 0
}

fn token(authorization: &str) -> Option<String> {
    let (scheme, rest) = authorization.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(rest.trim())
        .ok()?;
    let pair = String::from_utf8(decoded).ok()?;
    pair.split_once(':')
        .map(|(_, password)| password.to_owned())
}

/// `localhost`, `127.0.0.1` or `[::1]`, with any port.
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(token: &str) -> Guard {
        let hash = TokenHash(Sha256::digest(token.as_bytes()).into());
        Guard::new(BTreeMap::from([("wang".to_owned(), hash)]), [7; 32])
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_token_opens_as_bearer_and_as_password() {
        let guard = guard("s3cret-token");
        let basic = base64::engine::general_purpose::STANDARD.encode("anybody:s3cret-token");
        for header in [
            "Bearer s3cret-token",
            "bearer  s3cret-token",
            &format!("Basic {basic}"),
        ] {
            assert_eq!(
                guard.admit(HERE, None, false, Some(header)),
                Ok(Caller::Named("wang".to_owned())),
                "{header}"
            );
        }
        for header in [
            "Bearer",
            "Bearer s3cret-toke",
            "Bearer ",
            "Basic !!",
            "s3cret-token",
            "Digest s3cret-token",
        ] {
            assert_eq!(
                guard.admit(HERE, None, false, Some(header)),
                Err(Refusal::Unauthorized),
                "{header}"
            );
        }
    }

    #[test]
    fn after_ten_wrong_tokens_an_address_must_wait_and_others_need_not() {
        let guard = guard("right");
        for _ in 0..100 {
            assert_eq!(
                guard.admit(HERE, None, false, None),
                Err(Refusal::Unauthorized)
            );
        }
        for _ in 0..10 {
            assert_eq!(
                guard.admit(HERE, None, false, Some("Bearer wrong")),
                Err(Refusal::Unauthorized)
            );
        }
        assert!(matches!(
            guard.admit(HERE, None, false, Some("Bearer right")),
            Err(Refusal::TooMany(1..=61))
        ));
        let other = IpAddr::from([192, 0, 2, 1]);
        assert!(
            guard
                .admit(other, None, false, Some("Bearer right"))
                .is_ok()
        );
    }

    #[test]
    fn without_tokens_only_this_machines_names_are_answered() {
        let guard = Guard::new(BTreeMap::new(), [0; 32]);
        for host in [
            "localhost",
            "LOCALHOST:8686",
            "127.0.0.1:8686",
            "[::1]:8686",
            "[::1]",
        ] {
            assert_eq!(
                guard.admit(HERE, Some(host), false, None),
                Ok(Caller::Local),
                "{host}"
            );
        }
        for host in [
            "evil.example",
            "evil.example:8686",
            "127.0.0.1.evil.example",
            "192.0.2.1",
            "localhost.evil.example",
            "",
        ] {
            assert_eq!(
                guard.admit(HERE, Some(host), false, None),
                Err(Refusal::WrongHost),
                "{host}"
            );
        }
        assert_eq!(
            guard.admit(HERE, None, false, None),
            Err(Refusal::WrongHost)
        );
        assert_eq!(
            guard.admit(HERE, Some("localhost"), true, None),
            Err(Refusal::Proxied)
        );
    }

    #[test]
    fn the_token_of_a_form_is_the_callers_own() {
        let guard = guard("x");
        let (wang, li) = (
            Caller::Named("wang".to_owned()),
            Caller::Named("li".to_owned()),
        );
        assert!(guard.is_form_token(&wang, &guard.form_token(&wang)));
        assert!(!guard.is_form_token(&li, &guard.form_token(&wang)));
        assert!(!guard.is_form_token(&li, ""));
    }
}
