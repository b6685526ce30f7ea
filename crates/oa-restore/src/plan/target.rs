//! `--to`: the recovery target.

use std::fmt;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use oa_core::base::when::{self, When};
use oa_repository::Lsn;

use crate::RestoreError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// Everything that is in the repository.
    Latest,
    /// What was committed at this time or before (UTC).
    Time(DateTime<Utc>),
    /// What was written before this LSN.
    Lsn(Lsn),
    /// A point made with `pg_create_restore_point`.
    Name(String),
    /// What a backup holds; the first digits of its id.
    Backup(String),
}

/// A time as people read it.
pub(crate) fn shown(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone)
        .format("%Y-%m-%d %H:%M:%S %Z")
        .to_string()
}

/// What is no time.
const OTHERS: &str = "name:POINT, an LSN (16/B374D848), a backup's id, or latest";

impl Target {
    /// Reads it. A time without a zone is in `zone`, one without a date is of the day of `now`, which only a time asks for.
    pub(crate) fn parse(
        text: &str,
        zone: Tz,
        now: impl FnOnce() -> DateTime<Utc>,
    ) -> Result<Self, RestoreError> {
        let text = text.trim();
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Some(name) = text.strip_prefix("name:").filter(|n| !n.is_empty()) {
            return Ok(Self::Name(name.to_owned()));
        }
        if let Ok(lsn) = text.parse() {
            return Ok(Self::Lsn(lsn));
        }
        if text.len() >= 4 && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(Self::Backup(text.to_ascii_lowercase()));
        }
        match when::parse(text, now(), zone) {
            Some(When::At(at)) => Ok(Self::Time(at)),
            Some(When::Day(..)) => Err(RestoreError::Target(format!(
                "--to {text} is a whole day; add the time, for example \"{text} 14:05\""
            ))),
            Some(When::Twice(a, b)) => Err(RestoreError::Target(format!(
                "--to {text} was twice in {}: say {} or {}",
                a.timezone(),
                a.to_rfc3339(),
                b.to_rfc3339()
            ))),
            Some(When::Never(_, zone)) => Err(RestoreError::Target(format!(
                "--to {text} never was in {zone}, where the clocks were put forward"
            ))),
            None => Err(unknown(text)),
        }
    }
}

fn unknown(text: &str) -> RestoreError {
    RestoreError::Target(format!(
        "--to \"{text}\" is not a time ({}), {OTHERS}",
        when::FORMS
    ))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => write!(f, "latest"),
            Self::Time(time) => write!(f, "{}", time.format("%Y-%m-%dT%H:%M:%S%.fZ")),
            Self::Lsn(lsn) => write!(f, "{lsn}"),
            Self::Name(name) => write!(f, "name:{name}"),
            Self::Backup(id) => write!(f, "{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Target, RestoreError> {
        let now = "2026-11-23T10:00:00Z".parse().unwrap();
        Target::parse(text, chrono_tz::Asia::Shanghai, || now)
    }

    fn time(text: &str) -> Target {
        Target::Time(text.parse().unwrap())
    }

    #[test]
    fn times_are_local_unless_they_say_otherwise() {
        for (text, meant) in [
            ("2026-11-23 14:05", "2026-11-23T06:05:00Z"),
            ("2026-11-23 14:05:06.789", "2026-11-23T06:05:06.789Z"),
            ("2026-11-23T14:05", "2026-11-23T06:05:00Z"),
            ("14:05", "2026-11-23T06:05:00Z"),
            ("2026-11-23 14:05 UTC", "2026-11-23T14:05:00Z"),
            ("2026-11-23 14:05:00 Europe/Berlin", "2026-11-23T13:05:00Z"),
            ("2026-11-23 14:05+08:00", "2026-11-23T06:05:00Z"),
            ("2026-11-23 14:05:06.5+08", "2026-11-23T06:05:06.5Z"),
            ("2026-11-23T14:05:06Z", "2026-11-23T14:05:06Z"),
            ("2h ago", "2026-11-23T08:00:00Z"),
            ("10 min ago", "2026-11-23T09:50:00Z"),
            ("now", "2026-11-23T10:00:00Z"),
            ("yesterday 14:00", "2026-11-22T06:00:00Z"),
            // As plan and list print it.
            ("2026-11-23 14:05:00 CST", "2026-11-23T06:05:00Z"),
            ("1h 30m ago", "2026-11-23T08:30:00Z"),
        ] {
            assert_eq!(parse(text).unwrap(), time(meant), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_recognised() {
        assert_eq!(parse("latest").unwrap(), Target::Latest);
        assert_eq!(
            parse("name:before the move").unwrap(),
            Target::Name("before the move".to_owned())
        );
        assert_eq!(
            parse("16/B374D848").unwrap(),
            Target::Lsn("16/B374D848".parse().unwrap())
        );
        assert_eq!(
            parse("3F2A9c81").unwrap(),
            Target::Backup("3f2a9c81".to_owned())
        );
    }

    #[test]
    fn what_cannot_be_meant_is_an_error_that_says_what_can() {
        for wrong in [
            "",
            "the day before",
            "name:",
            "2026-13-01 10:00",
            "soon ago",
        ] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains("2025-12-01 09:30"), "{error}");
        }
        for day in ["2026-11-22", "yesterday"] {
            let day = parse(day).unwrap_err().to_string();
            assert!(day.contains("add the time"), "{day}");
        }
        let twice = parse("2026-10-25 02:30 Europe/Berlin")
            .unwrap_err()
            .to_string();
        assert!(
            twice.contains("+02:00") && twice.contains("+01:00"),
            "{twice}"
        );
        assert!(parse("2026-03-29 02:30 Europe/Berlin").is_err());
    }
}
