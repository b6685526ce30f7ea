//! Collecting a day once more when it is over, because the last run of that day lacks what the site adds late.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use super::{Calendar, Schedule};
use crate::base::units::Span;

/// `again`: a day is collected once more when all of it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub enum Again {
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

/// A time at which a task is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DueTime {
    /// When (UTC). No two of a task are the same.
    pub at: DateTime<Utc>,
    /// The day that is collected.
    pub day: NaiveDate,
    /// It is the one of `again`.
    pub again: bool,
}

/// So many days are looked at: more than slots are written back and ahead.
const FAR: i64 = 410;

impl Again {
    /// Its times after `from`, of the days of that schedule, oldest first.
    pub fn after(
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
