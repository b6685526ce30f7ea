//! When a source is due, and for which day each time: its schedule's times, each for its own day, and the one of `again`, for a day that
//! is over.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;
use oa_core::base::units::Span;
use oa_core::schedule::{Calendar, Schedule};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use super::{Shows, Source};

/// `again`: a day is collected once more when all of it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub(crate) enum Again {
    /// On the next day of the calendar, at this time.
    NextDay(NaiveTime),
    /// So long after the last due time of the day.
    After(TimeDelta),
}

/// Longer, and two days would be collected once more at the same time.
const LONGEST_WAIT: TimeDelta = TimeDelta::hours(24);

impl FromStr for Again {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(time) = text.strip_prefix("next day ") {
            let time = NaiveTime::parse_from_str(time.trim(), "%H:%M");
            return time
                .map(Self::NextDay)
                .map_err(|_| format!("\"{text}\" has no time of a day such as 00:30"));
        }
        let Some(wait) = text.strip_prefix('+') else {
            return Err(format!(
                "\"{text}\" is neither a time of the next day, \"next day 00:30\", nor a wait after the day's last due time, \"+30m\""
            ));
        };
        let wait: Span = wait.trim().parse()?;
        let wait = TimeDelta::from_std(wait.0).unwrap_or(TimeDelta::MAX);
        if wait < TimeDelta::minutes(1) || wait > LONGEST_WAIT {
            return Err(format!(
                "\"{text}\" is not a wait between one minute and 24 hours"
            ));
        }
        Ok(Self::After(wait))
    }
}

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NextDay(time) => write!(f, "next day {}", time.format("%H:%M")),
            Self::After(wait) => write!(f, "+{}m", wait.num_minutes()),
        }
    }
}

impl<'de> Deserialize<'de> for Again {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A time at which a source is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DueTime {
    /// When (UTC). No two of a source are the same.
    pub(crate) at: DateTime<Utc>,
    /// The day that is collected.
    pub(crate) day: NaiveDate,
    /// It is the one of `again`.
    pub(crate) again: bool,
}

/// Nothing is due later.
const FAR: i64 = 400;

impl Source {
    /// Its due times after `from`, oldest first. A source file that was read has a valid schedule.
    pub(crate) fn due_times<'c>(
        &self,
        from: DateTime<Utc>,
        zone: Tz,
        calendar: &'c Calendar,
    ) -> impl Iterator<Item = DueTime> + use<'c> {
        let schedule = self.schedule_in(zone).ok();
        let mut own = schedule.clone().into_iter().flat_map(move |schedule| {
            let next = move |at: &DateTime<Utc>| schedule.next_after(*at, calendar);
            std::iter::successors(next(&from), next).map(move |at| DueTime {
                at,
                day: at.with_timezone(&zone).date_naive(),
                again: false,
            })
        });
        let again = self.again.zip(schedule).into_iter();
        let mut again =
            again.flat_map(move |(again, schedule)| again.after(from, schedule, calendar));
        let (mut first, mut second) = (own.next(), again.next());
        std::iter::from_fn(move || match (first, second) {
            (Some(a), Some(b)) if b < a => std::mem::replace(&mut second, again.next()),
            (None, Some(_)) => std::mem::replace(&mut second, again.next()),
            _ => std::mem::replace(&mut first, own.next()),
        })
    }

    /// The last due time of `again` up to `until`, but after `from`.
    pub(crate) fn last_again(
        &self,
        from: DateTime<Utc>,
        until: DateTime<Utc>,
        zone: Tz,
        calendar: &Calendar,
    ) -> Option<DueTime> {
        let schedule = self.schedule_in(zone).ok()?;
        let all = self.again?.after(from, schedule, calendar);
        all.take_while(|due| due.at <= until).last()
    }

    /// What `again` says must be what the site can do.
    pub(super) fn check_again(&self) -> Result<(), String> {
        match self.again {
            Some(Again::NextDay(_)) if self.shows() == Shows::Today => Err(
                "again collects a day when it is over, but the site only shows its present one (shows); leave again out"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }
}

impl Again {
    /// Its times after `from`.
    fn after(
        self,
        from: DateTime<Utc>,
        schedule: Schedule,
        calendar: &Calendar,
    ) -> impl Iterator<Item = DueTime> + use<'_> {
        // The day after has its time within its own 24 hours, and a wait is no longer than that.
        let first = from.with_timezone(&schedule.zone()).date_naive() - TimeDelta::days(2);
        let days = (0..FAR).filter_map(move |n| first.checked_add_signed(TimeDelta::days(n)));
        days.filter_map(move |day| self.at(day, &schedule, calendar))
            .skip_while(move |due| due.at <= from)
    }

    /// When `day` is collected once more; `None` when it is not collected at all.
    fn at(self, day: NaiveDate, schedule: &Schedule, calendar: &Calendar) -> Option<DueTime> {
        let zone = schedule.zone();
        let begin = |day: NaiveDate| {
            let midnight = day.and_time(NaiveTime::MIN).and_local_timezone(zone);
            Some(midnight.earliest()?.to_utc() - TimeDelta::seconds(1))
        };
        let next_day = day.succ_opt()?;
        let last = schedule.last_between(begin(day)?, begin(next_day)?, calendar)?;
        let mut at = match self {
            Self::NextDay(time) => {
                let local = next_day.and_time(time).and_local_timezone(zone);
                // A time that a change of clocks leaves out.
                local.earliest()?.to_utc()
            }
            Self::After(wait) => last + wait,
        };
        // The schedule's own time is for another day: one second makes two of them.
        if schedule.next_after(at - TimeDelta::seconds(1), calendar) == Some(at) {
            at += TimeDelta::seconds(1);
        }
        Some(DueTime {
            at,
            day,
            again: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::parse;
    use chrono_tz::Asia::Shanghai;

    fn source(schedule: &str, again: &str) -> Source {
        let text = include_str!("../../sources/zhihui-full-view.toml");
        let lines = text.lines().filter(|l| !l.starts_with("again"));
        let text: String = lines.map(|l| format!("{l}\n")).collect();
        let head = format!("again = \"{again}\"\n{schedule}");
        let text = text.replace("schedule = \"*/30 * * * *\"", &head);
        parse("x", &text).unwrap()
    }

    fn times(source: &Source, from: &str, until: &str) -> Vec<String> {
        let utc = |text: &str| {
            let local = chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap();
            local.and_local_timezone(Shanghai).unwrap().to_utc()
        };
        let calendar = Calendar::load(None).unwrap();
        let all = source.due_times(utc(from), Shanghai, &calendar);
        let all: Vec<DueTime> = all.take_while(|due| due.at <= utc(until)).collect();
        let again = all.iter().filter(|due| due.again);
        let shown = again.map(|due| {
            let at = due.at.with_timezone(&Shanghai).format("%m-%d %H:%M:%S");
            format!("{at} {}", due.day.format("%m-%d"))
        });
        let last = source.last_again(utc(from), utc(until), Shanghai, &calendar);
        assert_eq!(last, all.iter().rfind(|due| due.again).copied());
        assert!(all.windows(2).all(|two| two[0].at < two[1].at), "{all:?}");
        shown.collect()
    }

    #[test]
    fn a_day_is_collected_once_more_when_it_is_over() {
        let every = source("schedule = \"*/30 * * * *\"", "next day 00:30");
        let two = times(&every, "2026-11-27 12:00", "2026-11-29 00:31");
        assert_eq!(two, ["11-28 00:30:01 11-27", "11-29 00:30:01 11-28"]);
        assert!(times(&every, "2026-11-27 00:31", "2026-11-28 00:30").is_empty());
        // Between the schedule's times it is the time itself.
        let other = source("schedule = \"*/30 * * * *\"", "next day 00:40");
        let one = times(&other, "2026-11-27 12:00", "2026-11-28 12:00");
        assert_eq!(one, ["11-28 00:40:00 11-27"]);
    }

    #[test]
    fn only_days_that_are_collected_are_collected_again() {
        // 2026-11-28 is a Saturday.
        let daily = "schedule = \"30 15 * * *\"\ndays = \"trading\"";
        let next = source(daily, "next day 08:00");
        let all = times(&next, "2026-11-27 00:00", "2026-12-01 00:00");
        assert_eq!(all, ["11-27 08:00:00 11-26", "11-28 08:00:00 11-27"]);
        let later = source(daily, "+2h");
        let all = times(&later, "2026-11-27 00:00", "2026-12-01 00:00");
        assert_eq!(all, ["11-27 17:30:00 11-27", "11-30 17:30:00 11-30"]);
        let over = source("schedule = \"0 22 * * *\"", "+3h");
        let all = times(&over, "2026-11-27 12:00", "2026-11-28 12:00");
        assert_eq!(all, ["11-28 01:00:00 11-27"]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let text = include_str!("../../sources/rdqh-indicators.toml");
        let refused = |again: &str| {
            let text = text.replace("days =", &format!("again = \"{again}\"\ndays ="));
            parse("x", &text).unwrap_err().to_string()
        };
        assert!(refused("next day 00:30").contains("only shows its present one"));
        for wrong in [
            "00:30",
            "next day",
            "next day 24:30",
            "+",
            "+0s",
            "+25h",
            "",
        ] {
            refused(wrong);
        }
    }
}
