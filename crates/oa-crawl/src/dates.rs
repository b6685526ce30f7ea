//! Days as sites and people write them.

use std::borrow::Cow;

use chrono::{DateTime, FixedOffset, NaiveDate, Utc};
use oa_core::service;
use regex::Regex;

/// The letters of full width as those of ASCII: `２０２５－１２－０１`, `（１２３）`.
pub(crate) fn half_width(text: &str) -> Cow<'_, str> {
    let narrow = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        '\u{3000}' => ' ',
        '−' => '-',
        other => other,
    };
    match text.is_ascii() {
        true => Cow::Borrowed(text),
        false => Cow::Owned(text.chars().map(narrow).collect()),
    }
}

/// A time with its offset, as RFC 3339 or RFC 2822 (RSS) has it.
pub(crate) fn with_offset(text: &str) -> Option<DateTime<FixedOffset>> {
    let time = DateTime::parse_from_rfc3339(text);
    time.or_else(|_| DateTime::parse_from_rfc2822(text)).ok()
}

/// The day of a date, or of a time in the service's zone.
pub(crate) fn day_of(text: &str) -> Option<NaiveDate> {
    // No time with an offset is shorter; most texts are dates alone.
    if text.len() >= 16
        && let Some(time) = with_offset(text)
    {
        return Some(time.with_timezone(&service::TIMEZONE).date_naive());
    }
    day(text.split([' ', 'T']).next().unwrap_or_default())
}

/// A day as `2025-12-01`, `2025/12/1`, `2025.12.01`, `2025年12月1日` or `20251201`. A year of two digits would become one of antiquity.
pub(crate) fn day(text: &str) -> Option<NaiveDate> {
    let parts: Vec<&str> = text.split(['-', '/', '.', '年', '月', '日']).collect();
    let year = match parts[..] {
        // Without separators only eight digits are a day.
        [alone] if alone.len() != 8 || !alone.bytes().all(|b| b.is_ascii_digit()) => return None,
        [alone] => &alone[..4],
        _ => parts[0],
    };
    if year.len() != 4 || !year.starts_with(['1', '2']) {
        return None;
    }
    ["%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y年%m月%d日", "%Y%m%d"]
        .iter()
        .find_map(|form| NaiveDate::parse_from_str(text, form).ok())
}

/// The only day that a text names: by itself, in an HTTP date, as seconds or milliseconds since 1970, or among other words.
pub(crate) fn find(text: &str) -> Option<NaiveDate> {
    let text = text.trim();
    let of = |time: DateTime<Utc>| time.with_timezone(&service::TIMEZONE).date_naive();
    if let Some(day) = day_of(text) {
        return Some(day);
    }
    let since_1970 = text.parse::<i64>().ok();
    match (text.len(), since_1970) {
        (10, Some(seconds)) => return DateTime::from_timestamp(seconds, 0).map(of),
        (13, Some(millis)) => return DateTime::from_timestamp_millis(millis).map(of),
        _ => {}
    }
    let date = Regex::new(r"\d{4}[-/.年]\d{1,2}[-/.月]\d{1,2}日?|\d+").ok()?;
    let mut days: Vec<NaiveDate> = date
        .find_iter(text)
        .filter_map(|m| day(m.as_str()))
        .collect();
    days.dedup();
    match days[..] {
        [only] => Some(only),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_read_as_sites_write_it() {
        let first = NaiveDate::from_ymd_opt(2025, 12, 1);
        for text in [
            "20251201",
            "2025.12.01",
            "2025年12月01日",
            "2025年12月1日",
            "2025-12-01",
        ] {
            assert_eq!(day(text), first, "{text}");
        }
        // In the service's zone it is the next day already.
        for text in [
            "2025-11-30T16:00:00Z",
            "2025-12-01T08:50:00+08:00",
            "2025-12-01 08:50",
            "Sun, 30 Nov 2025 16:00:00 GMT",
            "1 Dec 2025 08:00:00 +0800",
            &half_width("２０２５－１２－０１　０８：００"),
        ] {
            assert_eq!(day_of(text), first, "{text}");
        }
    }

    #[test]
    fn a_day_has_a_whole_year() {
        assert_eq!(day("2025/12/1"), NaiveDate::from_ymd_opt(2025, 12, 1));
        for text in [
            "25-12-01",
            "25/12/01",
            "0025-12-01",
            "2025-13-01",
            "12-01-2025",
            "2025121",
            "202512011",
            "2025年12月",
            "",
        ] {
            assert_eq!(day(text), None, "{text}");
        }
    }
}
