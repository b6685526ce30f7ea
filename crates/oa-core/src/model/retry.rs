//! The kinds of error that an attempt can end with, and which of them are worth another attempt.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a try failed. Stored in `oa.attempts.error_kind` and `oa.runs.error_kind` under the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Connection refused or reset, body cut short.
    Network,
    /// The site's name could not be resolved.
    Dns,
    /// The encrypted connection failed.
    Tls,
    /// No answer, or not the whole of it, in time.
    Timeout,
    /// The site failed (HTTP 5xx).
    #[serde(rename = "http_5xx")]
    Http5xx,
    /// The site asks for fewer requests (HTTP 429).
    #[serde(rename = "http_429")]
    Http429,
    /// The site refused the request (other HTTP 4xx).
    #[serde(rename = "http_4xx")]
    Http4xx,
    /// Login refused or token expired.
    Auth,
    /// A page for people (captcha, maintenance) where data was due.
    Blocked,
    /// The answer does not have the shape that the source file describes.
    Shape,
    /// Nothing where something was due.
    Empty,
    /// The content of an earlier day.
    Stale,
    /// Records that break the source's rules.
    Invalid,
    /// Fewer records than the source announced.
    Partial,
    /// PostgreSQL refused what was to be stored.
    Db,
    /// Anything of our own making: a killed process, a full disk.
    Internal,
}

impl ErrorKind {
    /// The name under which it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Http5xx => "http_5xx",
            Self::Http429 => "http_429",
            Self::Http4xx => "http_4xx",
            Self::Auth => "auth",
            Self::Blocked => "blocked",
            Self::Shape => "shape",
            Self::Empty => "empty",
            Self::Stale => "stale",
            Self::Invalid => "invalid",
            Self::Partial => "partial",
            Self::Db => "db",
            Self::Internal => "internal",
        }
    }

    /// The kind that is stored under this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
    }

    /// The kind that stands for all that call for the same remedy: a site that is ill answers now with an error, now late, now not at
    /// all.
    #[must_use]
    pub fn cause(self) -> Self {
        match self {
            Self::Network | Self::Timeout => Self::Http5xx,
            Self::Empty | Self::Stale => Self::Partial,
            other => other,
        }
    }

    /// Whether the site was not reached at all.
    #[must_use]
    pub fn is_of_the_network(self) -> bool {
        matches!(self, Self::Network | Self::Dns | Self::Timeout)
    }

    /// Whether time may heal it. The others alert at once: a second try would only repeat them.
    #[must_use]
    pub fn is_transient(self) -> bool {
        match self {
            Self::Network
            | Self::Dns
            | Self::Tls
            | Self::Timeout
            | Self::Http5xx
            | Self::Http429
            | Self::Blocked
            | Self::Empty
            | Self::Stale
            | Self::Partial => true,
            Self::Http4xx
            | Self::Auth
            | Self::Shape
            | Self::Invalid
            | Self::Db
            | Self::Internal => false,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How often a task is tried, and how long each try may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Tries after the first one.
    pub retries: u32,
    /// Wait between two tries.
    pub delay: Duration,
    /// Limit of one try as a whole.
    pub timeout: Duration,
    /// How the wait changes from try to try.
    pub backoff: Backoff,
}

/// How the wait between two tries changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Backoff {
    /// Always the same.
    #[default]
    Fixed,
    /// Doubled after every try, up to [`Policy::LONGEST_BACKOFF`], and then a random share between half and all of that: whatever
    /// failed at the same time does not come back at the same time.
    Exponential,
}

impl Policy {
    /// What the service's plan asks for: three retries, a minute apart, five minutes each.
    pub const DEFAULT: Self = Self {
        retries: 3,
        delay: Duration::from_secs(60),
        timeout: Duration::from_secs(300),
        backoff: Backoff::Fixed,
    };

    /// A wait is not doubled beyond this.
    pub const LONGEST_BACKOFF: Duration = Duration::from_secs(30 * 60);
    /// More tries than this are a mistake.
    pub const MOST_RETRIES: u32 = 100;
    /// A longer limit or wait than this is a mistake: the task's next day would be due.
    pub const LONGEST: Duration = Duration::from_secs(24 * 3600);

    /// Refuses numbers that nobody can mean, before a sum of them overflows.
    ///
    /// # Errors
    /// In words, with the name of the setting.
    pub fn check(&self) -> Result<(), String> {
        if self.retries > Self::MOST_RETRIES {
            return Err(format!(
                "retries is {}; at most {} are possible",
                self.retries,
                Self::MOST_RETRIES
            ));
        }
        if self.timeout.is_zero() {
            return Err(
                "timeout is 0: every try would end before it begins; leave it out for the default"
                    .to_owned(),
            );
        }
        for (name, span) in [("retry_delay", self.delay), ("timeout", self.timeout)] {
            if span > Self::LONGEST {
                return Err(format!("{name} is longer than 24 hours"));
            }
        }
        Ok(())
    }

    /// How long to wait before the next try, `None` when there is none: the error is permanent, or the tries are used up.
    /// `asked` is what the site asked for (Retry-After); it is respected up to the try's own time limit.
    #[must_use]
    pub fn next_delay(
        &self,
        attempt: u32,
        kind: ErrorKind,
        asked: Option<Duration>,
    ) -> Option<Duration> {
        kind.is_transient()
            .then(|| self.delay_after(attempt, asked))
            .flatten()
    }

    /// The same for a failure that is known to be worth another try.
    #[must_use]
    pub fn delay_after(&self, attempt: u32, asked: Option<Duration>) -> Option<Duration> {
        let own = || match self.backoff {
            Backoff::Fixed => self.delay,
            Backoff::Exponential => {
                let whole = self.doubled(attempt);
                whole / 2 + (whole / 2).mul_f64(random_share())
            }
        };
        (attempt <= self.retries)
            .then(|| asked.map_or_else(own, |asked| asked.min(self.timeout).max(self.delay)))
    }

    /// The longest that any wait can be, unless a site asks for more.
    #[must_use]
    pub fn longest_delay(&self) -> Duration {
        match self.backoff {
            Backoff::Fixed => self.delay,
            Backoff::Exponential => self.doubled(self.retries),
        }
    }

    fn doubled(&self, attempt: u32) -> Duration {
        let times = 1_u32.checked_shl(attempt.saturating_sub(1));
        self.delay
            .saturating_mul(times.unwrap_or(u32::MAX))
            .min(Self::LONGEST_BACKOFF.max(self.delay))
    }

    /// The longest that one try and the wait after it can take, with a margin: how long a lease must last to be renewed in
    /// time by a healthy process.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.timeout + self.longest_delay().max(self.timeout) + Duration::from_secs(60)
    }
}

/// From 0 to 1. The low half of such an id is random.
fn random_share() -> f64 {
    let (_, random) = uuid::Uuid::now_v7().as_u64_pair();
    f64::from(random as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exponential_wait_doubles_up_to_a_limit_and_is_never_the_same() {
        let policy = Policy {
            backoff: Backoff::Exponential,
            retries: 40,
            ..Policy::DEFAULT
        };
        for attempt in 1..=40 {
            let whole = (60 * 2_u64.pow(attempt.min(6) - 1)).min(30 * 60);
            let wait = policy.delay_after(attempt, None).unwrap();
            let range = Duration::from_secs(whole / 2)..=Duration::from_secs(whole);
            assert!(range.contains(&wait), "{attempt}: {wait:?}");
        }
        let some: std::collections::HashSet<_> =
            (0..20).map(|_| policy.delay_after(3, None)).collect();
        assert!(some.len() > 10);
        assert_eq!(policy.longest_delay(), Policy::LONGEST_BACKOFF);
        assert_eq!(policy.delay_after(41, None), None);
    }

    #[test]
    fn transient_errors_are_retried_until_the_tries_are_used_up() {
        let policy = Policy::DEFAULT;
        for attempt in 1..=3 {
            assert_eq!(
                policy.next_delay(attempt, ErrorKind::Http5xx, None),
                Some(Duration::from_secs(60))
            );
        }
        assert_eq!(policy.next_delay(4, ErrorKind::Http5xx, None), None);
    }

    #[test]
    fn numbers_that_nobody_can_mean_are_refused() {
        let with = |change: fn(&mut Policy)| {
            let mut policy = Policy::DEFAULT;
            change(&mut policy);
            policy.check()
        };
        assert_eq!(with(|_| {}), Ok(()));
        assert!(with(|p| p.retries = u32::MAX).is_err());
        assert!(with(|p| p.timeout = Duration::ZERO).is_err());
        assert!(with(|p| p.timeout = Duration::MAX).is_err());
        assert!(with(|p| p.delay = Duration::MAX).is_err());
    }

    #[test]
    fn permanent_errors_are_not_retried() {
        assert_eq!(Policy::DEFAULT.next_delay(1, ErrorKind::Auth, None), None);
        assert_eq!(Policy::DEFAULT.next_delay(1, ErrorKind::Shape, None), None);
    }

    #[test]
    fn a_sites_own_wish_is_respected_within_reason() {
        let policy = Policy::DEFAULT;
        let wait = |s| policy.next_delay(1, ErrorKind::Http429, Some(Duration::from_secs(s)));
        assert_eq!(wait(90), Some(Duration::from_secs(90)));
        assert_eq!(wait(2), Some(Duration::from_secs(60)));
        assert_eq!(wait(86_400), Some(Duration::from_secs(300)));
    }

    #[test]
    fn names_in_json_and_in_tables_agree() {
        for kind in [
            ErrorKind::Http5xx,
            ErrorKind::Http429,
            ErrorKind::Network,
            ErrorKind::Partial,
        ] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
