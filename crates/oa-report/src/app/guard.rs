//! Who may ask. With tokens in the configuration each request needs one: as `Authorization: Bearer TOKEN`, as the password of basic
//! authentication, or in exchange for it the cookie that the login page gives. Without tokens only this machine may ask, and only under
//! this machine's names: a page of some other site, whose name was made to lead here, gets nothing. Nor does a reverse proxy on this
//! machine, behind which anybody may be.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use oa_core::app::config::Token;
use oa_core::base::state_dir::{StateDir, write_durably};
use sha2::{Digest, Sha256};

/// So many wrong tokens from one address within [`WINDOW`] close the door for it.
const MOST_FAILURES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// A login lasts so long.
pub(crate) const SESSION_FOR: Duration = Duration::from_secs(30 * 86400);
/// Addresses that are remembered; more are a flood from many, and the oldest go.
const MOST_ADDRESSES: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Somebody with a token, by its name, and whether that may act.
    Named { name: String, may_act: bool },
    /// Somebody on this machine; there are no tokens.
    Local,
}

impl Caller {
    /// The name of the token; `-` without one.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Named { name, .. } => name,
            Self::Local => "-",
        }
    }

    /// Whether it may acknowledge, silence and have tasks run: in somebody's name, so never without a token.
    pub(crate) fn may_act(&self) -> bool {
        matches!(self, Self::Named { may_act: true, .. })
    }
}

/// What a request brings to say who it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Credentials<'a> {
    /// The header `Authorization`.
    pub(crate) authorization: Option<&'a str>,
    /// The cookie of [`Guard::session`].
    pub(crate) session: Option<&'a str>,
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
    tokens: BTreeMap<String, Token>,
    failures: Mutex<HashMap<IpAddr, (u32, Instant)>>,
    key: [u8; 32],
}

impl Guard {
    /// With the configuration's tokens, and a random `key` for sessions and the tokens of forms.
    pub(crate) fn new(tokens: BTreeMap<String, Token>, key: [u8; 32]) -> Self {
        Self {
            tokens,
            failures: Mutex::default(),
            key,
        }
    }

    /// Whether there are tokens, and so something to log in with.
    pub(crate) fn has_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Decides. `from` is the address that asks, `host` the request's `Host`, `proxied` whether it asks for somebody else.
    /// Whoever has a right token is let in, whatever others at that address have tried.
    pub(crate) fn admit(
        &self,
        from: IpAddr,
        host: Option<&str>,
        proxied: bool,
        credentials: Credentials<'_>,
    ) -> Result<Caller, Refusal> {
        if self.tokens.is_empty() {
            return match host {
                _ if proxied => Err(Refusal::Proxied),
                Some(host) if is_this_machine(host) => Ok(Caller::Local),
                _ => Err(Refusal::WrongHost),
            };
        }
        let given = credentials.authorization.and_then(token);
        let known = given.and_then(|token| self.caller_of(&token));
        let session = credentials.session.and_then(|s| self.caller_in(s));
        if let Some(caller) = known.or(session) {
            return Ok(caller);
        }
        // A browser asks without first, and its session may be over: that is no wrong token.
        if credentials.authorization.is_none() {
            return Err(Refusal::Unauthorized);
        }
        Err(self.refuse(from))
    }

    /// A token that somebody typed in: the session's cookie for it.
    pub(crate) fn log_in(&self, from: IpAddr, token: &str) -> Result<String, Refusal> {
        match self.caller_of(token.trim()) {
            Some(caller) => Ok(self.session(caller.name(), SESSION_FOR)),
            None => Err(self.refuse(from)),
        }
    }

    /// Counts a wrong token; after too many of them the address waits.
    fn refuse(&self, from: IpAddr) -> Refusal {
        let from = network(from);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((count, since)) = failures.get(&from) {
            let left = WINDOW.saturating_sub(since.elapsed());
            if left.is_zero() {
                failures.remove(&from);
            } else if *count >= MOST_FAILURES {
                return Refusal::TooMany(left.as_secs() + 1);
            }
        }
        if failures.len() >= MOST_ADDRESSES {
            failures.retain(|_, (_, since)| since.elapsed() < WINDOW);
            if failures.len() >= MOST_ADDRESSES {
                failures.clear();
            }
        }
        failures.entry(from).or_insert((0, Instant::now())).0 += 1;
        Refusal::Unauthorized
    }

    /// The cookie of a session: a name and its end, and what only this server can have made of them and of the token's hash, so that it
    /// ends with the token.
    fn session(&self, name: &str, lasts: Duration) -> String {
        let ends = (SystemTime::now() + lasts)
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let named = URL_SAFE_NO_PAD.encode(name);
        let signed = format!("{named}.{ends}");
        let seal = URL_SAFE_NO_PAD.encode(self.seal("session", &[&signed, &self.hash_of(name)]));
        format!("{signed}.{seal}")
    }

    /// Whose session it is, while it lasts.
    fn caller_in(&self, session: &str) -> Option<Caller> {
        let (signed, seal) = session.rsplit_once('.')?;
        let (named, ends) = signed.split_once('.')?;
        let name = String::from_utf8(URL_SAFE_NO_PAD.decode(named).ok()?).ok()?;
        let token = self.tokens.get(&name)?;
        let made = URL_SAFE_NO_PAD.encode(self.seal("session", &[signed, &self.hash_of(&name)]));
        let ends = UNIX_EPOCH.checked_add(Duration::from_secs(ends.parse().ok()?))?;
        (same(made.as_bytes(), seal.as_bytes()) && ends > SystemTime::now()).then_some(
            Caller::Named {
                name,
                may_act: token.may_act,
            },
        )
    }

    fn hash_of(&self, name: &str) -> String {
        self.tokens
            .get(name)
            .map_or_else(String::new, |t| t.hash.to_string())
    }

    fn seal(&self, what: &str, parts: &[&str]) -> Vec<u8> {
        // Any length is a key's.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else {
            return Vec::new();
        };
        mac.update(what.as_bytes());
        for part in parts {
            mac.update(&[0]);
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().to_vec()
    }

    /// Looks at all of them, each in full, so that the time it takes tells nothing.
    fn caller_of(&self, token: &str) -> Option<Caller> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut found = None;
        for (name, known) in &self.tokens {
            if same(&hash, &known.hash.0) {
                found = Some(Caller::Named {
                    name: name.clone(),
                    may_act: known.may_act,
                });
            }
        }
        found
    }

    /// What a form of a page must bring back, which no other site knows.
    pub(crate) fn form_token(&self, caller: &Caller) -> String {
        URL_SAFE_NO_PAD.encode(self.seal("form", &[caller.name()]))
    }

    /// Whether a form brought it.
    pub(crate) fn is_form_token(&self, caller: &Caller, given: &str) -> bool {
        same(self.form_token(caller).as_bytes(), given.as_bytes())
    }
}

/// The key of sessions, kept so that nobody must log in again after a restart. Where it cannot be kept, it is another one each time. The
/// state directory is the crawlers' to make: whoever only shows what they do may be somebody else.
pub(crate) fn lasting_key(state_dir: &Path) -> io::Result<[u8; 32]> {
    if !state_dir.is_dir() {
        tracing::info!(
            "a restart will end all logins: there is no state_dir {} yet",
            state_dir.display()
        );
        return random_key();
    }
    let state = match StateDir::open(state_dir).and_then(|state| state.folder("report")) {
        Ok(folder) => folder,
        Err(e) => {
            tracing::warn!("a restart will end all logins: {e}");
            return random_key();
        }
    };
    let path = state.join("session.key");
    if let Some(key) = std::fs::read(&path).ok().and_then(|k| k.try_into().ok()) {
        return Ok(key);
    }
    let key = random_key()?;
    if let Err(e) = write_durably(&path, &key) {
        tracing::warn!(
            "a restart will end all logins: cannot write {}: {e}",
            path.display()
        );
    }
    Ok(key)
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
    let decoded = STANDARD.decode(rest.trim()).ok()?;
    let pair = String::from_utf8(decoded).ok()?;
    pair.split_once(':')
        .map(|(_, password)| password.to_owned())
}

/// Whoever has one address of IPv6 has the 64 bits behind it.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
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
    use oa_core::app::config::TokenHash;

    use super::*;

    fn guard(token: &str) -> Guard {
        let of = |text: &str, may_act| Token {
            hash: TokenHash(Sha256::digest(text.as_bytes()).into()),
            may_act,
        };
        let tokens = [
            ("wang".to_owned(), of(token, true)),
            ("screen".to_owned(), of("looks", false)),
        ];
        Guard::new(BTreeMap::from(tokens), [7; 32])
    }

    fn named(name: &str, may_act: bool) -> Caller {
        Caller::Named {
            name: name.to_owned(),
            may_act,
        }
    }

    fn with(authorization: &str) -> Credentials<'_> {
        Credentials {
            authorization: Some(authorization),
            session: None,
        }
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const NONE: Credentials<'_> = Credentials {
        authorization: None,
        session: None,
    };

    #[test]
    fn a_token_opens_as_bearer_and_as_password() {
        let guard = guard("s3cret-token");
        let basic = STANDARD.encode("anybody:s3cret-token");
        for header in [
            "Bearer s3cret-token",
            "bearer  s3cret-token",
            &format!("Basic {basic}"),
        ] {
            assert_eq!(
                guard.admit(HERE, None, false, with(header)),
                Ok(named("wang", true)),
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
                guard.admit(HERE, None, false, with(header)),
                Err(Refusal::Unauthorized),
                "{header}"
            );
        }
        let looks = guard.admit(HERE, None, false, with("Bearer looks"));
        assert!(!looks.unwrap().may_act());
    }

    #[test]
    fn after_ten_wrong_tokens_wrong_ones_wait_and_a_right_one_never_does() {
        let guard = guard("right");
        for _ in 0..100 {
            assert_eq!(
                guard.admit(HERE, None, false, NONE),
                Err(Refusal::Unauthorized)
            );
        }
        for _ in 0..10 {
            assert_eq!(
                guard.admit(HERE, None, false, with("Bearer wrong")),
                Err(Refusal::Unauthorized)
            );
        }
        let closed = |refused: Refusal| matches!(refused, Refusal::TooMany(1..=61));
        assert!(closed(
            guard
                .admit(HERE, None, false, with("Bearer wrong"))
                .unwrap_err()
        ));
        assert!(closed(guard.log_in(HERE, "wrong").unwrap_err()));
        assert!(guard.admit(HERE, None, false, with("Bearer right")).is_ok());
        assert!(guard.log_in(HERE, "right").is_ok());
        // Each time from another address of the same network.
        let of_one = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, n, 0, 0, n]);
        for n in 0..10 {
            let refused = guard.log_in(of_one(n), "wrong").unwrap_err();
            assert_eq!(refused, Refusal::Unauthorized);
        }
        assert!(closed(guard.log_in(of_one(10), "wrong").unwrap_err()));
        let other = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(
            guard.admit(other, None, false, with("Bearer wrong")),
            Err(Refusal::Unauthorized)
        );
    }

    #[test]
    fn a_session_is_its_owners_until_it_ends_or_its_token_does() {
        let by = |guard: &Guard, session: &str| {
            let credentials = Credentials {
                authorization: None,
                session: Some(session),
            };
            guard.admit(HERE, None, false, credentials)
        };
        let first = guard("one");
        let session = first.log_in(HERE, " one\n").unwrap();
        assert_eq!(by(&first, &session), Ok(named("wang", true)));
        let looks = first.log_in(HERE, "looks").unwrap();
        assert_eq!(by(&first, &looks), Ok(named("screen", false)));
        // Another token under the same name.
        assert!(by(&guard("two"), &session).is_err());
        assert!(by(&first, &first.session("wang", Duration::ZERO)).is_err());
        let (named_in, rest) = looks.split_once('.').unwrap();
        let forged = format!("{}.{rest}", URL_SAFE_NO_PAD.encode("wang"));
        let later = looks.replacen('.', ".9", 1);
        for wrong in [forged.as_str(), &later, "", "..", named_in, &looks[1..]] {
            assert!(by(&first, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_restart_ends_no_session() {
        let dir = tempfile::tempdir().unwrap();
        let key = lasting_key(dir.path()).unwrap();
        assert_eq!(lasting_key(dir.path()).unwrap(), key);
        assert_ne!(random_key().unwrap(), key);
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
                guard.admit(HERE, Some(host), false, NONE),
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
                guard.admit(HERE, Some(host), false, NONE),
                Err(Refusal::WrongHost),
                "{host}"
            );
        }
        assert_eq!(
            guard.admit(HERE, None, false, NONE),
            Err(Refusal::WrongHost)
        );
        assert_eq!(
            guard.admit(HERE, Some("localhost"), true, NONE),
            Err(Refusal::Proxied)
        );
    }

    #[test]
    fn the_token_of_a_form_is_the_callers_own() {
        let guard = guard("x");
        let (wang, li) = (named("wang", true), named("li", true));
        assert!(guard.is_form_token(&wang, &guard.form_token(&wang)));
        assert!(!guard.is_form_token(&li, &guard.form_token(&wang)));
        assert!(!guard.is_form_token(&li, ""));
    }
}
