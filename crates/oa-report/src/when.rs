//! Times as people write them, in questions about the past.

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use chrono_tz::Tz;
use oa_core::base::when::{self, When};

pub(crate) use oa_core::base::when::local_time;

/// The time that a text means, seen from `now`: a day is its beginning. Days and times without a zone are those of `zone`.
pub(crate) fn parse(text: &str, now: DateTime<Utc>, zone: Tz) -> Result<DateTime<Utc>, String> {
    when::parse(text, now, zone)
        // Ids of runs begin with 1970.
        .map(|at| at.begins().max(DateTime::UNIX_EPOCH))
        .ok_or_else(|| {
            format!(
                "\"{text}\" is no point in time; write {}, \"today\" or \"2025-12-01\"",
                when::FORMS
            )
        })
}

/// A span of time: from `since` on, and before `until`. A day as `until` is the time at which it begins, so `--since yesterday --until
/// today` is yesterday; the same day twice is that whole day.
pub(crate) fn span(
    since: Option<&str>,
    until: Option<&str>,
    now: DateTime<Utc>,
    zone: Tz,
) -> Result<Bounds, String> {
    let read = |text: Option<&str>, name: &str| {
        text.map(|text| parse(text, now, zone))
            .transpose()
            .map_err(|e| format!("{name}: {e}"))
    };
    let (from, to) = (read(since, "since")?, read(until, "until")?);
    match (from, to, until.and_then(|text| day(text, now, zone))) {
        (Some(from), Some(to), Some(day)) if from == to => Ok((
            Some(from),
            Some(local_time(day + Days::new(1), NaiveTime::MIN, zone)),
        )),
        (Some(from), Some(to), _) if from >= to => Err(format!(
            "since ({}) is not before until ({})",
            since.unwrap_or_default(),
            until.unwrap_or_default()
        )),
        _ => Ok((from, to)),
    }
}

type Bounds = (Option<DateTime<Utc>>, Option<DateTime<Utc>>);

/// The day that a text means, when it means a day.
pub(crate) fn day(text: &str, now: DateTime<Utc>, zone: Tz) -> Option<NaiveDate> {
    match when::parse(text, now, zone)? {
        When::Day(day, _) => Some(day),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_any_run_is_where_runs_begin() {
        let now: DateTime<Utc> = "2025-12-01T17:00:00Z".parse().unwrap();
        let zone = chrono_tz::Asia::Shanghai;
        let read = |text| parse(text, now, zone);
        assert_eq!(read("99999d"), Ok(DateTime::UNIX_EPOCH));
        assert_eq!(
            read("yesterday"),
            Ok("2025-11-30T16:00:00Z".parse().unwrap())
        );
        assert!(read("soon").unwrap_err().contains("is no point in time"));
    }

    #[test]
    fn the_same_day_twice_is_that_whole_day() {
        let now: DateTime<Utc> = "2025-12-01T17:00:00Z".parse().unwrap();
        let span =
            |since, until| super::span(Some(since), Some(until), now, chrono_tz::Asia::Shanghai);
        let at = |text: &str| Some(text.parse::<DateTime<Utc>>().unwrap());
        assert_eq!(
            span("2025-12-01", "2025-12-01"),
            Ok((at("2025-11-30T16:00:00Z"), at("2025-12-01T16:00:00Z")))
        );
        assert_eq!(
            span("yesterday", "today"),
            Ok((at("2025-11-30T16:00:00Z"), at("2025-12-01T16:00:00Z")))
        );
        for (since, until) in [
            ("today", "yesterday"),
            ("1h", "2h"),
            ("2025-12-01 09:30", "2025-12-01 09:30"),
        ] {
            let error = span(since, until).unwrap_err();
            assert!(error.contains("is not before"), "{error}");
        }
    }
}
