//! Times as people write them: `2h`, `yesterday`, `2025-12-01`, `2025-12-01 09:30`, or with a zone as programs do.

use chrono::{
    DateTime, Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc,
};
use chrono_tz::Tz;
use oa_core::base::units::Span;

/// A local time of a day. A time that the zone skips that day counts as the end of what is skipped.
pub(crate) fn local_time(day: NaiveDate, time: NaiveTime, zone: Tz) -> DateTime<Utc> {
    let mut local = day.and_time(time);
    loop {
        match zone.from_local_datetime(&local).earliest() {
            Some(at) => return at.with_timezone(&Utc),
            None => local += TimeDelta::minutes(15),
        }
    }
}

/// The time that a text means, seen from `now`. Days and times without a zone are those of `zone`.
pub(crate) fn parse(text: &str, now: DateTime<Utc>, zone: Tz) -> Result<DateTime<Utc>, String> {
    // Ids of runs begin with 1970.
    read(text, now, zone).map(|at| at.max(DateTime::UNIX_EPOCH))
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
    let today = now.with_timezone(&zone).date_naive();
    match text.trim() {
        "today" | "今天" => Some(today),
        "yesterday" | "昨天" => today.pred_opt(),
        other => NaiveDate::parse_from_str(other, "%Y-%m-%d")
            .ok()
            // What PostgreSQL knows too, and what has a day before it.
            .filter(|day| (1..=9999).contains(&day.year())),
    }
}

fn read(text: &str, now: DateTime<Utc>, zone: Tz) -> Result<DateTime<Utc>, String> {
    let text = text.trim();
    let today = now.with_timezone(&zone).date_naive();
    let start_of = |day: NaiveDate| local_time(day, NaiveTime::MIN, zone);
    match text {
        "now" => return Ok(now),
        "today" | "今天" => return Ok(start_of(today)),
        "yesterday" | "昨天" => return Ok(start_of(today - Days::new(1))),
        _ => {}
    }
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.with_timezone(&Utc));
    }
    if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Ok(start_of(day));
    }
    for form in [
        "%Y-%m-%d %H:%M",
        "%Y-%m-%d %H:%M:%S",
        "%Y-%m-%dT%H:%M",
        "%Y-%m-%dT%H:%M:%S",
    ] {
        if let Ok(at) = NaiveDateTime::parse_from_str(text, form) {
            return Ok(local_time(at.date(), at.time(), zone));
        }
    }
    let span = text
        .parse::<Span>()
        .ok()
        .filter(|_| text.chars().any(char::is_alphabetic));
    span.and_then(|span| now.checked_sub_signed(TimeDelta::from_std(span.0).ok()?))
        .ok_or_else(|| {
            format!("\"{text}\" is no moment; write \"2h\" (ago), \"today\", \"yesterday\", \"2025-12-01\", \"2025-12-01 09:30\" or \"2025-12-01T09:30:00+08:00\"")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now: DateTime<Utc> = "2025-12-01T17:00:00Z".parse().unwrap();
        let zone = chrono_tz::Asia::Shanghai;
        for (text, at) in [
            ("now", "2025-12-01T17:00:00Z"),
            ("2h", "2025-12-01T15:00:00Z"),
            ("1d 30m", "2025-11-30T16:30:00Z"),
            // It is the second of December in Shanghai.
            ("today", "2025-12-01T16:00:00Z"),
            ("yesterday", "2025-11-30T16:00:00Z"),
            ("昨天", "2025-11-30T16:00:00Z"),
            ("2025-12-01", "2025-11-30T16:00:00Z"),
            ("2025-12-01 09:30", "2025-12-01T01:30:00Z"),
            ("2025-12-01T09:30", "2025-12-01T01:30:00Z"),
            ("99999d", "1970-01-01T00:00:00Z"),
            ("2025-12-01T09:30:00+00:00", "2025-12-01T09:30:00Z"),
        ] {
            assert_eq!(parse(text, now, zone), Ok(at.parse().unwrap()), "{text}");
        }
        let span = |since, until| super::span(Some(since), Some(until), now, zone);
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
        for wrong in [
            "",
            "5",
            "soon",
            "2025-13-01",
            "12/01/2025",
            "99999999999999d",
            "300000y",
        ] {
            assert!(
                parse(wrong, now, zone)
                    .unwrap_err()
                    .contains("is no moment"),
                "{wrong}"
            );
        }
    }
}
