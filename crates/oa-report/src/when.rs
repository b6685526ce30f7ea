//! Times as people write them: `2h`, `yesterday`, `2025-12-01`, `2025-12-01 09:30`, or with a zone as programs do.

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};
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
