//! Dates and times: strict readers of the forms that applications leave in SQLite, and writers for the proof.
//!
//! PostgreSQL counts days and microseconds from 2000-01-01. Only what survives exactly is accepted: years 0001 to 9999, no more
//! than microseconds (further digits must be zero), no 24:00 and no leap second.

const EPOCH_SHIFT_DAYS: i64 = 10_957;
pub(crate) const DAY_MICROS: i64 = 86_400_000_000;

/// A point in time as a text gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Microseconds since 2000-01-01 00:00:00, as the text's own clock shows it.
    pub(crate) micros: i64,
    /// Seconds east of UTC, where the text says so (`Z`, `+08:00`).
    pub(crate) offset_seconds: Option<i32>,
    /// The text was a bare date.
    pub(crate) date_only: bool,
}

fn number(bytes: &[u8]) -> Option<i64> {
    let mut value = 0;
    for b in bytes {
        if !b.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(b - b'0');
    }
    Some(value)
}

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 2000-01-01 of a day of the proleptic Gregorian calendar (Howard Hinnant's `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468 - EPOCH_SHIFT_DAYS
}

/// Reads `YYYY-MM-DD`: days since 2000-01-01.
pub(crate) fn parse_date(text: &[u8]) -> Option<i32> {
    if text.len() != 10 || text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    let (year, month, day) = (
        number(&text[..4])?,
        number(&text[5..7])?,
        number(&text[8..])?,
    );
    if year < 1 || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    i32::try_from(days(year, month, day)).ok()
}

/// Reads `HH:MM[:SS[.ffffff]]`: microseconds since midnight.
pub(crate) fn parse_time(text: &[u8]) -> Option<i64> {
    if text.len() < 5 || text[2] != b':' {
        return None;
    }
    let (hour, minute) = (number(&text[..2])?, number(&text[3..5])?);
    let (mut second, mut micros) = (0, 0);
    if text.len() > 5 {
        if text.len() < 8 || text[5] != b':' {
            return None;
        }
        second = number(&text[6..8])?;
        if text.len() > 8 {
            micros = parse_fraction(&text[8..])?;
        }
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(((hour * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

fn parse_fraction(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b".")?;
    if digits.is_empty() {
        return None;
    }
    let kept = &digits[..digits.len().min(6)];
    if digits[kept.len()..].iter().any(|b| *b != b'0') {
        return None;
    }
    let scale = 10i64.pow(6 - u32::try_from(kept.len()).ok()?);
    Some(number(kept)? * scale)
}

fn parse_offset(text: &[u8]) -> Option<i32> {
    if text == b"Z" || text == b"z" {
        return Some(0);
    }
    let sign = match text.first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hour, minute) = match text.len() {
        3 => (number(&text[1..3])?, 0),
        5 => (number(&text[1..3])?, number(&text[3..5])?),
        6 if text[3] == b':' => (number(&text[1..3])?, number(&text[4..6])?),
        _ => return None,
    };
    if hour > 15 || minute > 59 {
        return None;
    }
    i32::try_from(sign * (hour * 3600 + minute * 60)).ok()
}

/// Reads `YYYY-MM-DD`, or that followed by a blank or `T`, a time and perhaps an offset.
pub(crate) fn parse_timestamp(text: &[u8]) -> Option<Stamp> {
    let date = parse_date(text.get(..10)?)?;
    if text.len() == 10 {
        return Some(Stamp {
            micros: i64::from(date) * DAY_MICROS,
            offset_seconds: None,
            date_only: true,
        });
    }
    if text[10] != b' ' && text[10] != b'T' {
        return None;
    }
    let rest = &text[11..];
    let end = rest
        .iter()
        .position(|b| !(b.is_ascii_digit() || *b == b':' || *b == b'.'))
        .unwrap_or(rest.len());
    let time = parse_time(&rest[..end])?;
    let offset_seconds = match &rest[end..] {
        [] => None,
        [b' ', offset @ ..] | offset => Some(parse_offset(offset)?),
    };
    Some(Stamp {
        micros: i64::from(date) * DAY_MICROS + time,
        offset_seconds,
        date_only: false,
    })
}

/// Appends `YYYY-MM-DD` of a day count since 2000-01-01. The inverse of [`parse_date`], computed differently: it counts years and
/// months down instead of using a closed formula.
pub(crate) fn write_date(days: i32, out: &mut Vec<u8>) {
    // From 0001-01-01, in whole cycles of 400, 100, 4 and 1 years.
    let mut rest = i64::from(days) + 730_119;
    let n400 = rest.div_euclid(146_097);
    rest = rest.rem_euclid(146_097);
    let n100 = (rest / 36_524).min(3);
    rest -= n100 * 36_524;
    let n4 = rest / 1_461;
    rest -= n4 * 1_461;
    let n1 = (rest / 365).min(3);
    rest -= n1 * 365;
    let year = n400 * 400 + n100 * 100 + n4 * 4 + n1 + 1;
    let mut month = 1;
    while rest >= days_in_month(year, month) {
        rest -= days_in_month(year, month);
        month += 1;
    }
    write_number(year, 4, out);
    out.push(b'-');
    write_number(month, 2, out);
    out.push(b'-');
    write_number(rest + 1, 2, out);
}

/// Appends `HH:MM:SS[.f]` of microseconds since midnight, without trailing zeros of the fraction.
pub(crate) fn write_time(micros: i64, out: &mut Vec<u8>) {
    let seconds = micros / 1_000_000;
    write_number(seconds / 3600, 2, out);
    out.push(b':');
    write_number(seconds / 60 % 60, 2, out);
    out.push(b':');
    write_number(seconds % 60, 2, out);
    let fraction = micros % 1_000_000;
    if fraction != 0 {
        out.push(b'.');
        write_number(fraction, 6, out);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// Appends `YYYY-MM-DD HH:MM:SS[.f]` of microseconds since 2000-01-01.
pub(crate) fn write_timestamp(micros: i64, out: &mut Vec<u8>) {
    let day = micros.div_euclid(DAY_MICROS);
    write_date(i32::try_from(day).unwrap_or(i32::MAX), out);
    out.push(b' ');
    write_time(micros.rem_euclid(DAY_MICROS), out);
}

fn write_number(value: i64, width: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    while rest > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at.min(digits.len() - width)..]);
}

/// Appends the normal form of a timestamp's text, by handling the text alone: a blank between date and time, seconds always, no
/// trailing zeros of the fraction. A bare date becomes midnight. The proof's view of what SQLite holds.
pub(crate) fn normal_timestamp(text: &[u8], out: &mut Vec<u8>) {
    if text == b"infinity" || text == b"-infinity" {
        return out.extend_from_slice(text);
    }
    let (date, time) = text.split_at(text.len().min(10));
    out.extend_from_slice(date);
    out.push(b' ');
    if time.is_empty() {
        out.extend_from_slice(b"00:00:00");
    } else {
        normal_time(&time[1..], out);
    }
}

/// Appends the normal form of a time's text, see [`normal_timestamp`].
pub(crate) fn normal_time(text: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(text);
    if text.len() == 5 {
        out.extend_from_slice(b":00");
    }
    if out[start..].contains(&b'.') {
        while out.last() == Some(&b'0') {
            out.pop();
        }
        if out.last() == Some(&b'.') {
            out.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use chrono::{Datelike, NaiveDate};
    use proptest::prelude::*;

    fn written(f: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        f(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn impossible_dates_and_times_are_not_read() {
        for text in [
            "0000-00-00",
            "2025-13-45",
            "2025-02-29",
            "0000-01-01",
            "",
            "2025-1-01",
            "2025/01/01",
            "2025-01-0a",
        ] {
            assert_eq!(parse_date(text.as_bytes()), None, "{text}");
            assert_eq!(parse_timestamp(text.as_bytes()), None, "{text}");
        }
        for text in [
            "2025-01-01 24:00",
            "2025-01-01 23:60",
            "2025-01-01 23:59:60",
            "2025-01-01 ",
            "2025-01-01x10:00",
            "2025-01-01 10:00:00.",
            "2025-01-01 10:00:00.1234567",
            "2025-01-01 10:00:00+1",
            "2025-01-01 10:00:00 CST",
        ] {
            assert_eq!(parse_timestamp(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn offsets_and_seventh_digits_that_are_zero_are_read() {
        let stamp = parse_timestamp(b"2000-01-01T08:00:00.0000000+08:00").unwrap();
        assert_eq!(stamp.micros, 8 * 3_600_000_000);
        assert_eq!(stamp.offset_seconds, Some(28_800));
        assert_eq!(
            parse_timestamp(b"2000-01-01 00:00Z")
                .unwrap()
                .offset_seconds,
            Some(0)
        );
    }

    proptest! {
        #[test]
        fn days_agree_with_another_calendar(offset in -730_119i32..2_921_939) {
            let day = NaiveDate::from_ymd_opt(2000, 1, 1).unwrap() + chrono::TimeDelta::days(i64::from(offset));
            prop_assume!((1..=9999).contains(&day.year()));
            let text = day.format("%Y-%m-%d").to_string();
            prop_assert_eq!(parse_date(text.as_bytes()), Some(offset));
            prop_assert_eq!(written(|o| write_date(offset, o)), text);
        }

        #[test]
        fn a_timestamp_comes_back_in_its_normal_form(micros in -63_082_281_600_000_000i64..252_455_615_999_999_999) {
            let text = written(|o| write_timestamp(micros, o));
            prop_assert_eq!(parse_timestamp(text.as_bytes()).unwrap().micros, micros);
            prop_assert_eq!(written(|o| normal_timestamp(text.as_bytes(), o)), text.clone());
            prop_assert_eq!(written(|o| normal_timestamp(text.replace(' ', "T").as_bytes(), o)), text);
        }
    }
}
