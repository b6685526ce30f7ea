#![allow(clippy::unwrap_used)]
use chrono::{Datelike, NaiveDateTime};
use proptest::prelude::*;

use super::*;

const ZONE: Tz = chrono_tz::Asia::Shanghai;

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

fn local(text: &str) -> NaiveDateTime {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap()
}

fn at(text: &str) -> DateTime<Utc> {
    ZONE.from_local_datetime(&local(text))
        .unwrap()
        .with_timezone(&Utc)
}

fn next(schedule: &Schedule, after: &str) -> String {
    let next = schedule
        .next_after(at(after), &Calendar::shipped())
        .unwrap();
    next.with_timezone(&ZONE)
        .format("%Y-%m-%d %H:%M")
        .to_string()
}

fn every(expression: &str) -> Schedule {
    Schedule::parse(expression, ZONE).unwrap()
}

#[test]
fn times_are_those_of_the_schedules_zone() {
    assert_eq!(
        next(&every("50 8 * * *"), "2025-12-01 08:49"),
        "2025-12-01 08:50"
    );
    assert_eq!(
        next(&every("50 8 * * *"), "2025-12-01 08:50"),
        "2025-12-02 08:50"
    );
    assert_eq!(
        every("0 9 * * *").next_after(
            "2025-12-01T00:00:00Z".parse().unwrap(),
            &Calendar::shipped()
        ),
        Some("2025-12-01T01:00:00Z".parse().unwrap())
    );
}

#[test]
fn a_night_schedule_leaves_out_evenings_before_holidays() {
    let night = every("50 20 * * *").on(Days::Night);
    // 2025-10-01 to 08 is closed, and so is the night before.
    assert_eq!(next(&night, "2025-09-30 00:00"), "2025-10-09 20:50");
    // A Friday's night session belongs to Monday.
    assert_eq!(next(&night, "2025-12-05 00:00"), "2025-12-05 20:50");
    assert_eq!(next(&night, "2025-12-05 21:00"), "2025-12-08 20:50");
    let calendar = Calendar::shipped();
    assert!(night.leaves_out(at("2025-09-30 20:50"), &calendar));
    assert!(!night.leaves_out(at("2025-12-05 03:17"), &calendar));
}

#[test]
fn the_last_due_moment_is_found_however_long_ago() {
    let calendar = Calendar::shipped();
    let last = |cron: &str, from: &str, to: &str| {
        let found = every(cron).last_between(at(from), at(to), &calendar);
        found.map(|t| {
            t.with_timezone(&chrono_tz::Asia::Shanghai)
                .format("%m-%d %H:%M")
                .to_string()
        })
    };
    let (day, two) = ("2025-12-01 08:00", "2025-12-02 08:30");
    assert_eq!(last("* * * * *", day, two).as_deref(), Some("12-02 08:30"));
    assert_eq!(last("50 8 * * *", day, two).as_deref(), Some("12-01 08:50"));
    assert_eq!(last("50 8 * * *", "2025-12-01 09:00", two), None);
}

#[test]
fn weekdays_count_as_in_crontab() {
    // 2025-12-01 is a Monday.
    assert_eq!(
        next(&every("0 9 * * 1"), "2025-12-02 00:00"),
        "2025-12-08 09:00"
    );
    assert_eq!(
        next(&every("0 9 * * 0"), "2025-12-01 00:00"),
        "2025-12-07 09:00"
    );
    assert_eq!(
        next(&every("0 9 * * 7"), "2025-12-01 00:00"),
        "2025-12-07 09:00"
    );
    assert_eq!(
        next(&every("0 9 * * 1-5"), "2025-12-05 10:00"),
        "2025-12-08 09:00"
    );
    assert_eq!(
        next(&every("0 9 * * FRI-SUN"), "2025-12-01 10:00"),
        "2025-12-05 09:00"
    );
    assert_eq!(
        next(&every("0 9 * * 5-7/2"), "2025-12-05 10:00"),
        "2025-12-07 09:00"
    );
}

#[test]
fn day_of_month_or_weekday_matches_when_both_are_given() {
    assert_eq!(
        next(&every("0 9 10 * 1"), "2025-12-02 00:00"),
        "2025-12-08 09:00"
    );
    assert_eq!(
        next(&every("0 9 10 * 1"), "2025-12-08 10:00"),
        "2025-12-10 09:00"
    );
}

#[test]
fn a_wrong_expression_says_what_is_wrong() {
    for wrong in [
        "",
        "* * * *",
        "61 * * * *",
        "* * * * 8",
        "* * * * MOON",
        "*/0 * * * *",
        "* * * * 5-2",
    ] {
        let error = Schedule::parse(wrong, ZONE).unwrap_err().to_string();
        assert!(error.contains("is not a cron expression"), "{error}");
    }
}

#[test]
fn trading_days_leave_out_weekends_and_holidays() {
    let schedule = every("0 15 * * *").on(Days::Trading);
    assert_eq!(next(&schedule, "2025-09-30 15:00"), "2025-10-09 15:00");
    assert_eq!(next(&schedule, "2025-12-05 16:00"), "2025-12-08 15:00");
    // A Sunday that the government made a working day is still no trading day.
    assert_eq!(
        Calendar::shipped().is_trading_day(day("2025-09-28")),
        TradingDay::Known(false)
    );
}

#[test]
fn sessions_narrow_a_minutely_schedule() {
    let schedule = every("* * * * *").within(&[Session::Day, Session::Night]);
    assert_eq!(next(&schedule, "2025-12-01 11:29"), "2025-12-01 13:00");
    assert_eq!(next(&schedule, "2025-12-01 14:59"), "2025-12-01 21:00");
    assert_eq!(next(&schedule, "2025-12-02 02:29"), "2025-12-02 09:00");
    // Friday's night ends on Saturday morning.
    assert_eq!(next(&schedule, "2025-12-06 02:29"), "2025-12-08 09:00");
}

#[test]
fn there_is_no_night_session_on_the_eve_of_a_holiday_but_there_is_before_a_weekend() {
    let calendar = Calendar::shipped();
    assert!(
        !calendar.has_night_session(day("2025-09-30")),
        "before the national holiday"
    );
    assert!(
        !calendar.has_night_session(day("2025-04-03")),
        "before Qingming, a Friday"
    );
    assert!(
        calendar.has_night_session(day("2025-12-05")),
        "before a plain weekend"
    );
    assert!(!calendar.has_night_session(day("2025-12-06")), "a Saturday");
    assert!(!calendar.has_night_session(day("2020-03-02")), "suspended");
    assert_eq!(
        calendar.session_at(local("2025-12-06 01:00")),
        Some(Session::Night)
    );
    assert_eq!(calendar.session_at(local("2025-10-01 01:00")), None);
    assert_eq!(calendar.session_at(local("2025-12-06 10:00")), None);
}

#[test]
fn the_shipped_years_have_as_many_trading_days_as_the_exchanges_announced() {
    let calendar = Calendar::shipped();
    for (year, days) in [
        (2018, 243),
        (2019, 244),
        (2020, 243),
        (2021, 243),
        (2022, 242),
        (2023, 242),
        (2024, 242),
        (2025, 243),
    ] {
        let open = day(&format!("{year}-01-01"))
            .iter_days()
            .take_while(|d| d.year() == year)
            .filter(|d| calendar.is_trading_day(*d).is_open());
        assert_eq!(open.count(), days, "{year}");
    }
}

#[test]
fn an_unknown_year_is_guessed_from_the_weekday() {
    let calendar = Calendar::shipped();
    let year = calendar.last_known_year().unwrap() + 1;
    let first = day(&format!("{year}-01-01"));
    assert_eq!(
        calendar.is_trading_day(first),
        TradingDay::Guessed(!matches!(
            first.weekday(),
            chrono::Weekday::Sat | chrono::Weekday::Sun
        ))
    );
}

#[test]
fn an_operators_file_adds_a_year_and_its_errors_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("calendar.toml");
    std::fs::write(&path, "[[year]]\nyear = 2031\nclosed = [\"2031-01-01\"]\n").unwrap();
    let calendar = Calendar::load(Some(&path)).unwrap();
    assert_eq!(
        calendar.is_trading_day(day("2031-01-01")),
        TradingDay::Known(false)
    );
    assert_eq!(
        calendar.is_trading_day(day("2025-10-01")),
        TradingDay::Known(false)
    );
    std::fs::write(&path, "[[year]]\nyear = 2031\nclosed = [\"2032-01-01\"]\n").unwrap();
    assert!(
        Calendar::load(Some(&path))
            .unwrap_err()
            .to_string()
            .contains("2032-01-01 stands under year 2031")
    );
    std::fs::write(&path, "[[year]]\nyaer = 2031\n").unwrap();
    assert!(
        Calendar::load(Some(&path))
            .unwrap_err()
            .to_string()
            .contains("did you mean \"year\"?")
    );
}

proptest! {
    #[test]
    fn the_next_moment_is_later_and_within_what_was_asked(minute in 0u32..60, hour in 0u32..24, offset in 0i64..(8 * 365 * 1440)) {
        let from = at("2018-01-01 00:00") + TimeDelta::minutes(offset);
        let calendar = Calendar::shipped();
        let schedule = every(&format!("{minute} {hour} * * *")).on(Days::Trading);
        let next = schedule.next_after(from, &calendar).unwrap();
        prop_assert!(next > from);
        prop_assert!(calendar.is_trading_day(next.with_timezone(&ZONE).date_naive()).is_open());
        prop_assert!(next - from < TimeDelta::days(14));
    }
}

/// A year, its sessions by month, and the weekdays of the public holidays.
type IndependentYear = (i32, [usize; 12], &'static str);

/// Derived from two packages of PyPI: sessions a month of XSHG in `exchange_calendars` 4.13.2, and the weekdays of public holidays, from and
/// to, in `chinesecalendar` 1.11.0, which collects the State Council's announcements.
const INDEPENDENT: [IndependentYear; 9] = [
    (
        2018,
        [22, 15, 22, 18, 22, 20, 22, 23, 19, 18, 22, 20],
        "0101-0101 0215-0221 0405-0406 0430-0501 0618-0618 0924-0924 1001-1005 1231-1231",
    ),
    (
        2019,
        [22, 15, 21, 21, 20, 19, 23, 22, 20, 18, 21, 22],
        "0101-0101 0204-0208 0405-0405 0501-0503 0607-0607 0913-0913 1001-1007",
    ),
    (
        2020,
        [16, 20, 22, 21, 18, 20, 23, 21, 22, 16, 21, 23],
        "0101-0101 0124-0131 0406-0406 0501-0505 0625-0626 1001-1008",
    ),
    (
        2021,
        [20, 15, 23, 21, 18, 21, 22, 22, 20, 16, 22, 23],
        "0101-0101 0211-0217 0405-0405 0503-0505 0614-0614 0920-0921 1001-1007",
    ),
    (
        2022,
        [19, 16, 23, 19, 19, 21, 21, 23, 21, 16, 22, 22],
        "0103-0103 0131-0204 0404-0405 0502-0504 0603-0603 0912-0912 1003-1007",
    ),
    (
        2023,
        [16, 20, 23, 19, 20, 20, 21, 23, 20, 17, 22, 21],
        "0102-0102 0123-0127 0405-0405 0501-0503 0622-0623 0929-1006",
    ),
    (
        2024,
        [22, 15, 21, 20, 20, 19, 23, 22, 19, 18, 21, 22],
        "0101-0101 0212-0216 0404-0405 0501-0503 0610-0610 0916-0917 1001-1007",
    ),
    (
        2025,
        [18, 18, 21, 21, 19, 20, 23, 21, 22, 17, 20, 23],
        "0101-0101 0128-0204 0404-0404 0501-0505 0602-0602 1001-1008",
    ),
    (
        2026,
        [20, 14, 22, 21, 18, 21, 23, 21, 21, 17, 21, 23],
        "0101-0102 0216-0223 0406-0406 0501-0505 0619-0619 0925-0925 1001-1007",
    ),
];

#[test]
fn the_shipped_calendar_agrees_with_two_that_others_keep() {
    let calendar = Calendar::shipped();
    for (year, sessions, holidays) in INDEPENDENT {
        let date = |text: &str| day(&format!("{year}-{}-{}", &text[..2], &text[2..]));
        let mut holidays: Vec<_> = holidays
            .split(' ')
            .map(|h| (date(&h[..4]), date(&h[5..])))
            .collect();
        if year == 2024 {
            // The eve of the Spring Festival: a working day by law, on which the exchanges were closed all the same.
            holidays.push((date("0209"), date("0209")));
        }
        let mut counted = [0; 12];
        let first = day(&format!("{year}-01-01"));
        for d in first.iter_days().take_while(|d| d.year() == year) {
            let weekday = d.weekday().num_days_from_monday() < 5;
            let holiday = holidays.iter().any(|(from, to)| (*from..=*to).contains(&d));
            let open = calendar.is_trading_day(d);
            assert_eq!(open, TradingDay::Known(weekday && !holiday), "{d}");
            counted[d.month0() as usize] += usize::from(open.is_open());
            // No night session before a holiday, and one on each other trading day; a weekend alone is none.
            let next = d
                .iter_days()
                .skip(1)
                .find(|n| n.weekday().num_days_from_monday() < 5)
                .unwrap();
            let suspended = (day("2020-02-03")..=day("2020-05-05")).contains(&d);
            let before_holiday = holidays
                .iter()
                .any(|(from, to)| (*from..=*to).contains(&next))
                || (next.year() != year && !calendar.is_trading_day(next).is_open());
            assert_eq!(
                calendar.has_night_session(d),
                open.is_open() && !before_holiday && !suspended,
                "the evening of {d}"
            );
        }
        assert_eq!(counted, sessions, "{year}");
    }
}
