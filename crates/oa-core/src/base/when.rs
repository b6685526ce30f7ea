//! Times as people write them, one form for all programs: `now`, `2h ago`, `yesterday 14:00`, `2025-12-01 09:30`, with a zone as programs
//! and our own output have it.

use chrono::{
    DateTime, Datelike, Days, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta,
    TimeZone, Utc,
};
use chrono_tz::Tz;

use super::units::Span;

/// What is accepted, for messages.
pub const FORMS: &str = "\"2025-12-01 09:30\" (with seconds or a zone where needed), \"14:05\", \"10 min ago\", \"yesterday 14:00\", \"now\"";

/// What a text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// A point in time.
    At(DateTime<Utc>),
    /// A whole day in a zone.
    Day(NaiveDate, Tz),
    /// A local time that was twice, because the clocks were put back.
    Twice(DateTime<Tz>, DateTime<Tz>),
    /// A local time that never was, because the clocks were put forward.
    Never(NaiveDateTime, Tz),
}

impl When {
    /// Where it begins: a day with its first moment, a time that was twice with the first, one that never was with what came instead.
    #[must_use]
    pub fn begins(self) -> DateTime<Utc> {
        match self {
            Self::At(at) => at,
            Self::Day(day, zone) => local_time(day, NaiveTime::MIN, zone),
            Self::Twice(first, _) => first.with_timezone(&Utc),
            Self::Never(local, zone) => local_time(local.date(), local.time(), zone),
        }
    }
}

/// A local time of a day. A time that the zone skips that day counts as the end of what is skipped.
#[must_use]
pub fn local_time(day: NaiveDate, time: NaiveTime, zone: Tz) -> DateTime<Utc> {
    let mut local = day.and_time(time);
    loop {
        match zone.from_local_datetime(&local).earliest() {
            Some(at) => return at.with_timezone(&Utc),
            None => local += TimeDelta::minutes(15),
        }
    }
}

/// What a text means, seen from `now`; `None` when it is no time. Days and times without a zone are those of `zone`.
#[must_use]
pub fn parse(text: &str, now: DateTime<Utc>, zone: Tz) -> Option<When> {
    let text = plain(text.trim());
    let text = text.trim();
    if matches!(text, "now" | "现在" | "刚才" | "刚刚") {
        return Some(When::At(now));
    }
    if let Some(at) = ago(text, now) {
        return Some(When::At(at));
    }
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(When::At(at.with_timezone(&Utc)));
    }
    let today = now.with_timezone(&zone).date_naive();
    if let Some(when) = local(text, today, zone) {
        return Some(when);
    }
    with_offset(text)
        .map(When::At)
        .or_else(|| with_zone(text, now, zone))
}

/// What people write in Chinese with fewer letters: `今天9点半`, `2026年11月28日 14：05`, `两个小时前`.
fn plain(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    let mut text = digits(text);
    for (from, to) in [
        ("：", ":"),
        ("　", " "),
        ("个半小时", "小时30分钟"),
        ("个", ""),
        ("半小时", "30分钟"),
        ("今天", "今天 "),
        ("昨天", "昨天 "),
        ("前天", "前天 "),
    ] {
        text = text.replace(from, to);
    }
    if text.ends_with('前') {
        return text;
    }
    for (from, to) in [
        ("点半", ":30"),
        ("点整", ":00"),
        ("年", "-"),
        ("月", "-"),
        ("日", " "),
        ("号", " "),
        ("点", ":"),
        ("时", ":"),
        ("分", ":"),
        ("秒", ""),
    ] {
        text = text.replace(from, to);
    }
    // An hour without minutes; minutes without seconds.
    if let Some(rest) = text.strip_suffix(':') {
        let minutes = rest.rsplit(' ').next().is_some_and(|t| t.contains(':'));
        text = if minutes {
            rest.to_owned()
        } else {
            format!("{rest}:00")
        };
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Chinese numerals up to 99 as digits.
fn digits(text: &str) -> String {
    let value = |c: char| {
        "〇一二三四五六七八九"
            .chars()
            .position(|d| d == if c == '两' { '二' } else { c })
    };
    let chars: Vec<char> = text.chars().collect();
    let at = |i: Option<usize>| i.and_then(|i| chars.get(i)).and_then(|c| value(*c));
    let mut plain = String::new();
    for (i, c) in chars.iter().enumerate() {
        let (before, after) = (at(i.checked_sub(1)), at(Some(i + 1)));
        match value(*c) {
            Some(digit) => plain.push_str(&digit.to_string()),
            None if *c == '十' => plain.push_str(match (before, after) {
                (None, None) => "10",
                (None, Some(_)) => "1",
                (Some(_), None) => "0",
                (Some(_), Some(_)) => "",
            }),
            None => plain.push(*c),
        }
    }
    plain
}

/// `2h`, `2h ago`, `10 min ago`, `10分钟前`.
fn ago(text: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let span = text
        .strip_suffix("ago")
        .or_else(|| text.strip_suffix('前'))
        .unwrap_or(text);
    if span.starts_with('-') || !span.chars().any(char::is_alphabetic) {
        return None;
    }
    let mut units = span.to_owned();
    for (name, unit) in [("分钟", "m"), ("小时", "h"), ("天", "d"), ("秒", "s")] {
        units = units.replace(name, unit);
    }
    // A number and its unit may stand apart.
    let mut joined = String::new();
    for word in units.split_whitespace() {
        let number = |text: &str| text.ends_with(|c: char| c.is_ascii_digit());
        if !joined.is_empty() && !number(&joined) {
            joined.push(' ');
        }
        joined.push_str(word);
    }
    let span: Span = joined.parse().ok()?;
    now.checked_sub_signed(TimeDelta::from_std(span.0).ok()?)
}

/// A day, a time of a day, or both, without a zone.
fn local(text: &str, today: NaiveDate, zone: Tz) -> Option<When> {
    let (date, time) = match text.split_once([' ', 'T']) {
        Some((date, time)) => (date, Some(time.trim())),
        None => (text, None),
    };
    let day = match date {
        "today" | "今天" => Some(today),
        "yesterday" | "昨天" => Some(today - Days::new(1)),
        "前天" => Some(today - Days::new(2)),
        _ => ["%Y-%m-%d", "%Y/%m/%d"]
            .iter()
            .find_map(|form| NaiveDate::parse_from_str(date, form).ok())
            // A year in two digits would be one of the first century, and PostgreSQL knows no year 0.
            .filter(|day| date.find(['-', '/']) == Some(4) && day.year() >= 1),
    };
    match (day, time) {
        (Some(day), None) => Some(When::Day(day, zone)),
        (Some(day), Some(time)) => Some(at(day.and_time(clock(time)?), zone)),
        (None, _) => Some(at(today.and_time(clock(text)?), zone)),
    }
}

fn clock(text: &str) -> Option<NaiveTime> {
    ["%H:%M:%S%.f", "%H:%M"]
        .iter()
        .find_map(|form| NaiveTime::parse_from_str(text, form).ok())
}

fn at(local: NaiveDateTime, zone: Tz) -> When {
    match zone.from_local_datetime(&local) {
        LocalResult::Single(time) => When::At(time.with_timezone(&Utc)),
        LocalResult::Ambiguous(first, second) => When::Twice(first, second),
        LocalResult::None => When::Never(local, zone),
    }
}

/// `2025-12-01 09:30+08:00`, also with a space before the offset.
fn with_offset(text: &str) -> Option<DateTime<Utc>> {
    let text = text.replace('/', "-").replacen('T', " ", 1);
    [
        "%Y-%m-%d %H:%M:%S%.f%#z",
        "%Y-%m-%d %H:%M%#z",
        "%Y-%m-%d %H:%M:%S%.f %#z",
        "%Y-%m-%d %H:%M %#z",
    ]
    .iter()
    .find_map(|form| DateTime::parse_from_str(&text, form).ok())
    .map(|at| at.with_timezone(&Utc))
}

/// With the name of a zone behind it, or with what `zone` calls itself then: that is what our own output has.
fn with_zone(text: &str, now: DateTime<Utc>, zone: Tz) -> Option<When> {
    let (text, name) = text.rsplit_once(' ')?;
    let text = text.trim_end();
    let is_so = |at: &DateTime<Tz>| at.format("%Z").to_string().eq_ignore_ascii_case(name);
    let today = |zone: &Tz| now.with_timezone(zone).date_naive();
    let here = match local(text, today(&zone), zone)? {
        When::At(at) => [Some(at.with_timezone(&zone)), None],
        When::Twice(first, second) => [Some(first), Some(second)],
        When::Day(..) | When::Never(..) => [None, None],
    };
    if let Some(at) = here.into_iter().flatten().find(is_so) {
        return Some(When::At(at.with_timezone(&Utc)));
    }
    let named = chrono_tz::TZ_VARIANTS
        .iter()
        .find(|zone| zone.name().eq_ignore_ascii_case(name))?;
    local(text, today(named), *named)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZONE: Tz = chrono_tz::Asia::Shanghai;

    fn read(text: &str) -> Option<When> {
        parse(text, "2025-12-01T17:00:00Z".parse().unwrap(), ZONE)
    }

    #[test]
    fn points_in_time_are_read_as_people_and_programs_write_them() {
        for (text, at) in [
            ("now", "2025-12-01T17:00:00Z"),
            (" 2h ", "2025-12-01T15:00:00Z"),
            ("2h ago", "2025-12-01T15:00:00Z"),
            ("10 min ago", "2025-12-01T16:50:00Z"),
            ("10min ago", "2025-12-01T16:50:00Z"),
            ("1 day 30 minutes ago", "2025-11-30T16:30:00Z"),
            ("1d 30m", "2025-11-30T16:30:00Z"),
            ("10分钟前", "2025-12-01T16:50:00Z"),
            ("2 小时前", "2025-12-01T15:00:00Z"),
            ("两个小时前", "2025-12-01T15:00:00Z"),
            ("半小时前", "2025-12-01T16:30:00Z"),
            ("半个小时前", "2025-12-01T16:30:00Z"),
            ("一个半小时前", "2025-12-01T15:30:00Z"),
            ("2个半小时前", "2025-12-01T14:30:00Z"),
            ("二十五分钟前", "2025-12-01T16:35:00Z"),
            ("十分钟前", "2025-12-01T16:50:00Z"),
            ("刚才", "2025-12-01T17:00:00Z"),
            ("昨天14：00", "2025-12-01T06:00:00Z"),
            ("前天 14:00", "2025-11-30T06:00:00Z"),
            ("昨天9点", "2025-12-01T01:00:00Z"),
            ("昨天九点半", "2025-12-01T01:30:00Z"),
            ("2025年11月23日14时05分", "2025-11-23T06:05:00Z"),
            ("2025年11月23日 14点05分06秒", "2025-11-23T06:05:06Z"),
            ("2025-11-23T06:05Z", "2025-11-23T06:05:00Z"),
            ("2025-11-23T14:05+08:00", "2025-11-23T06:05:00Z"),
            // It is the second of December in Shanghai.
            ("today 00:30", "2025-12-01T16:30:00Z"),
            ("00:30", "2025-12-01T16:30:00Z"),
            ("yesterday 14:00", "2025-12-01T06:00:00Z"),
            ("昨天 14:00", "2025-12-01T06:00:00Z"),
            ("yesterday 9:05:30", "2025-12-01T01:05:30Z"),
            ("2025-11-23 14:05", "2025-11-23T06:05:00Z"),
            ("2025/11/23 14:05", "2025-11-23T06:05:00Z"),
            ("2025-11-23 14:05:06.789", "2025-11-23T06:05:06.789Z"),
            ("2025-11-23T14:05", "2025-11-23T06:05:00Z"),
            ("2025-11-23 14:05 UTC", "2025-11-23T14:05:00Z"),
            ("2025-11-23 14:05:06 CST", "2025-11-23T06:05:06Z"),
            ("2025-11-23 14:05:00 Europe/Berlin", "2025-11-23T13:05:00Z"),
            ("2025-11-23 14:05:00 asia/tokyo", "2025-11-23T05:05:00Z"),
            ("2025-11-23 14:05+08:00", "2025-11-23T06:05:00Z"),
            ("2025-11-23 14:05:06.5+08", "2025-11-23T06:05:06.5Z"),
            ("2025-11-23 14:05:06 +08", "2025-11-23T06:05:06Z"),
            ("2025-11-23T14:05:06Z", "2025-11-23T14:05:06Z"),
            ("2025-11-23 14:05:06Z", "2025-11-23T14:05:06Z"),
            ("2025-12-01T09:30:00+00:00", "2025-12-01T09:30:00Z"),
        ] {
            let at = at.parse().unwrap();
            assert_eq!(read(text), Some(When::At(at)), "{text}");
        }
    }

    #[test]
    fn a_day_is_a_day_and_begins_at_midnight_there() {
        for (text, begins) in [
            ("today", "2025-12-01T16:00:00Z"),
            ("yesterday", "2025-11-30T16:00:00Z"),
            ("昨天", "2025-11-30T16:00:00Z"),
            ("2025-12-01", "2025-11-30T16:00:00Z"),
            ("2025/12/01", "2025-11-30T16:00:00Z"),
        ] {
            let when = read(text).unwrap();
            assert!(matches!(when, When::Day(..)), "{text}");
            assert_eq!(when.begins(), begins.parse::<DateTime<Utc>>().unwrap());
        }
    }

    #[test]
    fn what_was_twice_or_never_is_said_and_the_zones_own_name_tells_which() {
        let berlin = chrono_tz::Europe::Berlin;
        let read = |text| parse(text, Utc::now(), berlin).unwrap();
        assert!(matches!(read("2026-10-25 02:30"), When::Twice(..)));
        for (text, at) in [
            ("2026-10-25 02:30 CEST", "2026-10-25T00:30:00Z"),
            ("2026-10-25 02:30 CET", "2026-10-25T01:30:00Z"),
        ] {
            assert_eq!(read(text), When::At(at.parse().unwrap()), "{text}");
        }
        let never = read("2026-03-29 02:30");
        assert!(matches!(never, When::Never(..)));
        assert_eq!(
            never.begins(),
            "2026-03-29T01:00:00Z".parse::<DateTime<Utc>>().unwrap()
        );
    }

    #[test]
    fn what_our_programs_print_is_read_in_every_zone() {
        for zone in chrono_tz::TZ_VARIANTS {
            for at in ["2026-01-15T10:20:30Z", "2026-07-15T22:20:30Z"] {
                let at: DateTime<Utc> = at.parse().unwrap();
                let shown = at.with_timezone(&zone).format("%Y-%m-%d %H:%M:%S %Z");
                let shown = shown.to_string();
                assert_eq!(
                    parse(&shown, at, zone),
                    Some(When::At(at)),
                    "{zone}: {shown}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "5",
            "soon",
            "soon ago",
            "ago",
            "-2h",
            "2025-13-01",
            "2025-13-01 10:00",
            "12/01/2025",
            "25-12-01",
            "2025-11-23 14:05 XYZ",
            "99999999999999d",
            "300000y",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
