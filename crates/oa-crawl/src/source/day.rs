//! Which day an answer is of. A site that was not asked for a day answers with its present one, whatever day the run is for: such a
//! source is never run for a day that the site cannot show, because today's page under another date is an invented day.

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta};
use chrono_tz::Tz;
use oa_core::schedule::{Calendar, CronError, Schedule};
use oa_core::service;
use schemars::JsonSchema;
use serde::Deserialize;

use super::placeholders::{name_a_day, texts};
use super::{FetchKind, Source};

/// Which days a site can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum Shows {
    /// The request names the day.
    #[serde(rename = "any day")]
    AnyDay,
    /// The present day; on a day that `days` skips, the last one before it.
    #[serde(rename = "today")]
    Today,
    /// What was published last: the day of the schedule's last due time, until the next one. Only right when the schedule is not later
    /// than the site.
    #[serde(rename = "latest")]
    Latest,
}

impl Shows {
    /// As it is written in a source file.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::AnyDay => "any day",
            Self::Today => "today",
            Self::Latest => "latest",
        }
    }
}

/// The longest holidays are shorter.
const LONGEST_PAUSE: i64 = 40;

impl Source {
    /// Its schedule in a zone, on its days and within its sessions. A source file that was read has a valid one.
    pub(crate) fn schedule_in(&self, zone: Tz) -> Result<Schedule, CronError> {
        let schedule = Schedule::parse(&self.schedule, zone)?;
        Ok(schedule.on(self.days).within(&self.sessions))
    }

    /// Which days the site can show: what the file says, or what the request proves.
    pub(crate) fn shows(&self) -> Shows {
        self.shows.unwrap_or(if self.names_the_day() {
            Shows::AnyDay
        } else {
            Shows::Today
        })
    }

    /// Whether the request, or what the browser does, says which day is asked for.
    pub(crate) fn names_the_day(&self) -> bool {
        if self.fetch.kind == FetchKind::Command {
            // The program's name is not filled in; any argument may be a script that reads the variable.
            let arguments = || self.fetch.command.iter().skip(1);
            return arguments().any(|a| a.contains("OA_DATE"))
                || name_a_day(arguments().map(String::as_str));
        }
        let fetch = &self.fetch;
        let pairs = [&fetch.query, &fetch.form, &fetch.headers];
        let steps = self.browser.iter().flat_map(|b| &b.steps);
        let of_steps = steps.flat_map(|s| [&s.goto, &s.value, &s.click, &s.take_response]);
        let all = std::iter::once(&fetch.path)
            .chain(pairs.into_iter().flat_map(|p| p.values()))
            .chain(of_steps.flatten())
            .map(String::as_str)
            .chain(fetch.json.iter().flat_map(texts));
        name_a_day(all)
    }

    /// What `shows` says must be what the request can do.
    pub(super) fn check_shows(&self) -> Result<(), String> {
        let claims = self.shows == Some(Shows::AnyDay);
        // A program always gets the day, as OA_DATE; only its author knows whether it reads it.
        if claims && self.fetch.kind != FetchKind::Command && !self.names_the_day() {
            return Err(
                "shows is \"any day\", but {date} is nowhere in the request, or only a part of the day such as its month, so that the site answers with its present day; put {date} into path, query, form, json or a step of [browser], or say shows = \"today\""
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// The day that a run without a day is for: today, or for a site that is not asked for a day the last day on which it has data.
    pub(crate) fn present_day(&self, today: NaiveDate, calendar: &Calendar) -> NaiveDate {
        if self.shows() == Shows::AnyDay {
            return today;
        }
        let days = (0..LONGEST_PAUSE).filter_map(|n| today.checked_sub_signed(TimeDelta::days(n)));
        let mut included = days.filter(|day| self.has_data_of(*day, calendar));
        included.next().unwrap_or(today)
    }

    /// Whether the day is one of `days` and, for a source of sessions, has a part of one.
    fn has_data_of(&self, day: NaiveDate, calendar: &Calendar) -> bool {
        if !self.days.include(day, calendar) {
            return false;
        }
        if self.sessions.is_empty() {
            return true;
        }
        let zone = service::TIMEZONE;
        let begins = day.and_time(NaiveTime::MIN).and_local_timezone(zone);
        let (Some(begins), Ok(schedule)) = (begins.earliest(), self.schedule_in(zone)) else {
            return true;
        };
        let before = begins.to_utc() - TimeDelta::seconds(1);
        let next = schedule.next_after(before, calendar);
        next.is_some_and(|at| at.with_timezone(&zone).date_naive() == day)
    }

    /// Why the site cannot show a day at `now`, if it cannot.
    pub(crate) fn cannot_show(
        &self,
        day: NaiveDate,
        now: DateTime<Tz>,
        calendar: &Calendar,
    ) -> Option<String> {
        let shows = self.shows();
        let today = now.date_naive();
        if shows == Shows::AnyDay {
            // What a site answers for a day that has not come is not that day's. The clocks of two machines differ by moments.
            let soon = (now + TimeDelta::minutes(1)).date_naive();
            return (day > soon).then(|| {
                format!(
                    "{} cannot be collected for {day}: that day has not come, today is {today}",
                    self.name
                )
            });
        }
        let present = self.present_day(today, calendar);
        if day == present {
            return None;
        }
        // A day that `days` skips has no page of its own, but a night session may reach into it.
        if (shows == Shows::Latest || day == today)
            && self.day_of_last_due_time(now, calendar) == Some(day)
        {
            return None;
        }
        let why = match (self.shows, self.fetch.kind) {
            (Some(shows), _) => format!("shows = \"{}\"", shows.as_str()),
            (None, FetchKind::Command) => "{date} or OA_DATE is in none of its arguments; if the program reads OA_DATE, say shows = \"any day\" in the source file".to_owned(),
            (None, _) => "{date} is nowhere in its request, or only a part of the day".to_owned(),
        };
        Some(format!(
            "{} cannot be collected for {day}: the site shows {present} now, and is not asked for a day ({why})",
            self.name
        ))
    }

    fn day_of_last_due_time(&self, now: DateTime<Tz>, calendar: &Calendar) -> Option<NaiveDate> {
        let schedule = self.schedule_in(now.timezone()).ok()?;
        let until = now.to_utc();
        let from = until - TimeDelta::days(LONGEST_PAUSE);
        let last = schedule.last_between(from, until, calendar)?;
        Some(last.with_timezone(&now.timezone()).date_naive())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{BUILT_IN, parse};
    use chrono::TimeZone;
    use chrono_tz::Asia::Shanghai;

    fn source(shows: &str, request: &str) -> Source {
        let text = include_str!("../../sources/rdqh-indicators.toml");
        let text = text.replace("shows = \"today\"\n", shows);
        parse("x", &text.replace("path = \"/indicators\"", request)).unwrap()
    }

    fn refused(source: &Source, day: &str, now: &str) -> bool {
        let now = chrono::NaiveDateTime::parse_from_str(now, "%Y-%m-%d %H:%M").unwrap();
        let now = Shanghai.from_local_datetime(&now).unwrap();
        let calendar = Calendar::load(None).unwrap();
        let why = source.cannot_show(day.parse().unwrap(), now, &calendar);
        why.is_some()
    }

    #[test]
    fn a_request_that_names_the_day_can_ask_for_any() {
        for request in [
            "path = \"/x/{date}\"",
            "query = { d = \"{date}\" }",
            "form = { d = \"{date}\" }",
            "headers = { d = \"{date}\" }",
        ] {
            let source = source("", request);
            assert_eq!(source.shows(), Shows::AnyDay, "{request}");
            assert!(!refused(&source, "2020-01-02", "2026-12-01 15:20"));
            assert!(!refused(&source, "2026-12-01", "2026-12-01 00:00"));
            assert!(refused(&source, "2026-12-02", "2026-12-01 23:58"));
        }
        let text = include_str!("../../sources/rdqh-indicators.toml").replace("today", "any day");
        let error = parse("x", &text).unwrap_err().to_string();
        assert!(
            error.contains("{date} is nowhere in the request"),
            "{error}"
        );
    }

    #[test]
    fn a_page_without_a_day_is_of_the_present_one() {
        // Trading days only; the schedule is 21:05. 2026-11-28 is a Saturday.
        let page = source("", "path = \"/x\"");
        assert_eq!(page.shows(), Shows::Today);
        for (day, now, due) in [
            ("2026-11-27", "2026-11-27 00:10", false),
            ("2026-11-27", "2026-11-27 23:59", false),
            ("2026-11-26", "2026-11-27 15:20", true),
            ("2026-11-28", "2026-11-27 15:20", true),
            // At a weekend it shows Friday's.
            ("2026-11-27", "2026-11-28 10:00", false),
            ("2026-11-26", "2026-11-28 10:00", true),
            ("2026-11-27", "2026-11-30 00:10", true),
            // And is not Saturday's for that.
            ("2026-11-28", "2026-11-28 10:00", true),
        ] {
            assert_eq!(refused(&page, day, now), due, "{day} at {now}");
        }
        let calendar = Calendar::load(None).unwrap();
        let present = |day: &str| {
            page.present_day(day.parse().unwrap(), &calendar)
                .to_string()
        };
        assert_eq!(present("2026-11-27"), "2026-11-27");
        assert_eq!(present("2026-11-29"), "2026-11-27");
    }

    #[test]
    fn a_night_session_reaches_into_the_next_day() {
        let text = include_str!("../../sources/openvlab-flow.toml");
        let flow = parse("x", text).unwrap();
        for (day, now, due) in [
            // Friday's goes on until Saturday 02:30.
            ("2026-11-28", "2026-11-28 00:30", false),
            ("2026-11-28", "2026-11-28 02:31", false),
            ("2026-11-29", "2026-11-29 00:30", true),
            ("2026-11-28", "2026-11-29 00:30", false),
            ("2026-11-30", "2026-11-30 08:00", false),
            // A holiday of all exchanges.
            ("2026-10-01", "2026-10-01 10:00", true),
        ] {
            assert_eq!(refused(&flow, day, now), due, "{day} at {now}");
        }
    }

    #[test]
    fn the_latest_page_is_there_until_the_next_due_time() {
        let page = source("shows = \"latest\"\n", "path = \"/x\"");
        for (day, now, due) in [
            ("2026-11-27", "2026-11-30 21:04", false),
            ("2026-11-27", "2026-11-30 21:05", true),
            ("2026-11-30", "2026-11-30 21:05", false),
            ("2026-11-26", "2026-11-30 12:00", true),
        ] {
            assert_eq!(refused(&page, day, now), due, "{day} at {now}");
        }
    }

    #[test]
    fn the_built_in_sources_say_which_day_they_show() {
        for (file, text) in BUILT_IN {
            let source = parse(file, text).unwrap();
            assert!(source.shows.is_some(), "{file}");
            let any = source.shows == Some(Shows::AnyDay);
            assert_eq!(any, source.names_the_day(), "{file}");
        }
    }

    #[test]
    fn the_files_of_the_exchanges_say_by_what_they_are_known_to_be_whole() {
        for (file, text) in BUILT_IN {
            let source = parse(file, text).unwrap();
            let of_exchange = matches!(
                source.store.table.as_str(),
                "futures_quotes" | "option_quotes" | "exchange_receipts"
            );
            assert!(!of_exchange || source.answer.end.is_some(), "{file}");
        }
    }
}
