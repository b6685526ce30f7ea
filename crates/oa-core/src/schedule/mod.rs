//! When a task is due: a five-field cron expression in a time zone, narrowed to trading days and sessions.
//!
//! The zone is the schedule's own (Asia/Shanghai by default) whatever the machine's is. What a trading day is comes from the
//! [`Calendar`]; a schedule that does not ask for it runs on every day.

mod again;
mod calendar;
mod cron5;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::Deserialize;

pub use again::{Again, DueTime};
pub use calendar::{Calendar, CalendarError, TradingDay};
pub use cron5::CronError;

/// The zone of the exchanges, whose days and sessions are those of the [`Calendar`], whatever zone the configuration shows times in.
pub const EXCHANGES: Tz = chrono_tz::Asia::Shanghai;

/// A trading session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Session {
    /// 09:00–11:30 and 13:00–15:00.
    Day,
    /// 21:00–02:30 of the next day.
    Night,
}

impl Session {
    /// The name under which it is written and stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Night => "night",
        }
    }

    /// Those of these names.
    #[must_use]
    pub fn named(names: &[&str]) -> Vec<Self> {
        let all = [Self::Day, Self::Night];
        all.into_iter()
            .filter(|s| names.contains(&s.as_str()))
            .collect()
    }
}

/// Which of the slots that were missed are made up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    /// The last one.
    #[default]
    Latest,
    /// One run for each day, as far as the site can show it.
    All,
}

/// On which days a schedule applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Days {
    /// Every day that the cron expression names.
    #[default]
    All,
    /// Of these only trading days.
    Trading,
    /// Of these only trading days whose evening has a night session.
    Night,
}

impl Days {
    /// The name under which it is written and stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Trading => "trading",
            Self::Night => "night",
        }
    }

    /// The one of this name; all days for one that a later version knows.
    #[must_use]
    pub fn named(name: &str) -> Self {
        [Self::Trading, Self::Night]
            .into_iter()
            .find(|d| d.as_str() == name)
            .unwrap_or_default()
    }

    /// Whether it includes a day.
    #[must_use]
    pub fn include(self, day: NaiveDate, calendar: &Calendar) -> bool {
        match self {
            Self::All => true,
            Self::Trading => calendar.is_trading_day(day).is_open(),
            Self::Night => calendar.has_night_session(day),
        }
    }
}

/// A schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: cron5::Cron,
    zone: Tz,
    days: Days,
    sessions: Vec<Session>,
}

impl Schedule {
    /// Reads a five-field cron expression (minute hour day month weekday; weekdays 0–7 with 0 and 7 Sunday, or names).
    ///
    /// # Errors
    /// When the expression is not valid; the message names it.
    pub fn parse(expression: &str, zone: Tz) -> Result<Self, CronError> {
        Ok(Self {
            cron: cron5::Cron::parse(expression)?,
            zone,
            days: Days::All,
            sessions: Vec::new(),
        })
    }

    /// Narrows it to trading days.
    #[must_use]
    pub fn on(mut self, days: Days) -> Self {
        self.days = days;
        self
    }

    /// Narrows it to moments within these sessions; none means any time of the day.
    #[must_use]
    pub fn within(mut self, sessions: &[Session]) -> Self {
        self.sessions = sessions.to_vec();
        self
    }

    /// The next moment after `moment` at which the task is due, looking at most a year ahead.
    #[must_use]
    pub fn next_after(&self, moment: DateTime<Utc>, calendar: &Calendar) -> Option<DateTime<Utc>> {
        let limit = moment + TimeDelta::days(370);
        let mut at = moment;
        loop {
            at = self
                .cron
                .next_after(at.with_timezone(&self.zone))?
                .with_timezone(&Utc);
            if at > limit {
                return None;
            }
            let local = at.with_timezone(&self.zone);
            if self.applies(local, calendar) {
                return Some(at);
            }
            // A whole day without a session: do not step through its minutes.
            if self.sessions.is_empty() && !self.days.include(local.date_naive(), calendar) {
                at = end_of_day(local.date_naive(), self.zone).unwrap_or(at);
            }
        }
    }

    /// The moments after `from` and up to `until` at which the task is due.
    pub fn between<'a>(
        &'a self,
        from: DateTime<Utc>,
        until: DateTime<Utc>,
        calendar: &'a Calendar,
    ) -> impl Iterator<Item = DateTime<Utc>> + 'a {
        std::iter::successors(self.next_after(from, calendar), move |at| {
            self.next_after(*at, calendar)
        })
        .take_while(move |at| *at <= until)
    }

    /// The day of a moment, in the schedule's own zone.
    #[must_use]
    pub fn day_of(&self, moment: DateTime<Utc>) -> NaiveDate {
        moment.with_timezone(&self.zone).date_naive()
    }

    /// The last moment up to `moment`, but after `from`, at which the task was due.
    #[must_use]
    pub fn last_between(
        &self,
        from: DateTime<Utc>,
        moment: DateTime<Utc>,
        calendar: &Calendar,
    ) -> Option<DateTime<Utc>> {
        // Most are due often: look at the last hour before all the time since `from`.
        let near = from.max(moment - TimeDelta::hours(1));
        [near, from]
            .into_iter()
            .find_map(|from| self.between(from, moment, calendar).last())
    }

    fn applies(&self, local: DateTime<Tz>, calendar: &Calendar) -> bool {
        if !self.sessions.is_empty() {
            return calendar
                .session_at(local.naive_local())
                .is_some_and(|s| self.sessions.contains(&s));
        }
        self.days.include(local.date_naive(), calendar)
    }

    /// Whether it leaves out a moment for its day or session, whatever its minute: a crontab line knows neither.
    #[must_use]
    pub fn leaves_out(&self, moment: DateTime<Utc>, calendar: &Calendar) -> bool {
        !self.applies(moment.with_timezone(&self.zone), calendar)
    }

    /// The zone it is written in.
    #[must_use]
    pub fn zone(&self) -> Tz {
        self.zone
    }
}

/// The last second of a local day.
fn end_of_day(day: NaiveDate, zone: Tz) -> Option<DateTime<Utc>> {
    let last = day.and_time(NaiveTime::from_hms_opt(23, 59, 59)?);
    zone.from_local_datetime(&last)
        .latest()
        .map(|t| t.with_timezone(&Utc))
}

#[cfg(test)]
mod tests;
