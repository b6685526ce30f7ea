//! The exchanges' calendar: which days are trading days, and which of them have a night session.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use chrono::{Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, Weekday};
use serde::Deserialize;

use crate::base::trust::{self, Content};

use super::Session;

/// The calendar's file could not be used.
#[derive(Debug, thiserror::Error)]
#[error("could not read the trading calendar {}: {reason}", path.display())]
pub struct CalendarError {
    path: PathBuf,
    reason: String,
}

/// Whether a day is a trading day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TradingDay {
    /// The calendar knows the year.
    Known(bool),
    /// It does not: Monday to Friday count as trading days.
    Guessed(bool),
}

impl TradingDay {
    /// Known or guessed, whether it is one.
    #[must_use]
    pub fn is_open(self) -> bool {
        match self {
            Self::Known(open) | Self::Guessed(open) => open,
        }
    }
}

/// Trading days and night sessions.
#[derive(Debug, Clone)]
pub struct Calendar {
    years: BTreeMap<i32, Year>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct CalendarFile {
    #[serde(default)]
    year: Vec<Year>,
}

#[derive(Debug, Clone, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
struct Year {
    year: i32,
    closed: BTreeSet<NaiveDate>,
    #[serde(default)]
    no_night: Vec<Period>,
}

#[derive(Debug, Clone, Copy, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
struct Period {
    from: NaiveDate,
    to: NaiveDate,
}

const SHIPPED: &str = include_str!("calendar.toml");

impl Calendar {
    /// The years that ship with the programs.
    #[must_use]
    pub fn shipped() -> Self {
        let mut calendar = Self {
            years: BTreeMap::new(),
        };
        // A broken shipped calendar would be found by the first test; without it every year is guessed.
        let _ = calendar.add(SHIPPED);
        calendar
    }

    /// The shipped years, then those of an operator's file, which replace them year by year.
    ///
    /// # Errors
    /// When the file cannot be read or is not valid.
    pub fn load(file: Option<&Path>) -> Result<Self, CalendarError> {
        let mut calendar = Self::shipped();
        if let Some(path) = file {
            let fail = |reason: String| CalendarError {
                path: path.to_owned(),
                reason,
            };
            let text = trust::read(path, Content::Settings).map_err(|e| fail(e.to_string()))?;
            calendar.add(&text).map_err(fail)?;
        }
        Ok(calendar)
    }

    fn add(&mut self, text: &str) -> Result<(), String> {
        let file: CalendarFile =
            toml::from_str(text).map_err(|e| crate::base::mistakes::explain(text, &e))?;
        for year in file.year {
            let stray = year.closed.iter().find(|d| d.year() != year.year);
            if let Some(day) = stray {
                return Err(format!("{day} stands under year {}", year.year));
            }
            self.years.insert(year.year, year);
        }
        Ok(())
    }

    /// The last year it knows.
    #[must_use]
    pub fn last_known_year(&self) -> Option<i32> {
        self.years.keys().next_back().copied()
    }

    /// A number that changes with the calendar.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.years.hash(&mut hasher);
        hasher.finish()
    }

    /// Whether the exchanges are open on a day.
    #[must_use]
    pub fn is_trading_day(&self, day: NaiveDate) -> TradingDay {
        let weekday = !matches!(day.weekday(), Weekday::Sat | Weekday::Sun);
        match self.years.get(&day.year()) {
            Some(year) => TradingDay::Known(weekday && !year.closed.contains(&day)),
            None => TradingDay::Guessed(weekday),
        }
    }

    /// The first trading day after a day. Within a year there always is one; a calendar that closes a whole year gives `None`.
    #[must_use]
    pub fn next_trading_day(&self, day: NaiveDate) -> Option<NaiveDate> {
        (1..=366)
            .filter_map(|n| day.checked_add_days(Days::new(n)))
            .find(|d| self.is_trading_day(*d).is_open())
    }

    /// The last trading day before a day.
    #[must_use]
    pub fn previous_trading_day(&self, day: NaiveDate) -> Option<NaiveDate> {
        (1..=366)
            .filter_map(|n| day.checked_sub_days(Days::new(n)))
            .find(|d| self.is_trading_day(*d).is_open())
    }

    /// Whether the evening of a day has a night session: a trading day, unless a holiday (a closed weekday) comes before the
    /// next one, or night sessions are suspended.
    #[must_use]
    pub fn has_night_session(&self, day: NaiveDate) -> bool {
        if !self.is_trading_day(day).is_open() {
            return false;
        }
        let suspended = |p: &Period| p.from <= day && day <= p.to;
        if self
            .years
            .get(&day.year())
            .is_some_and(|y| y.no_night.iter().any(suspended))
        {
            return false;
        }
        let Some(next) = self.next_trading_day(day) else {
            return false;
        };
        let mut between = day.iter_days().skip(1).take_while(|d| *d < next);
        between.all(|d| matches!(d.weekday(), Weekday::Sat | Weekday::Sun))
    }

    /// The session that a local moment falls into. After midnight it is the night session of the evening before.
    #[must_use]
    pub fn session_at(&self, local: NaiveDateTime) -> Option<Session> {
        let (day, time) = (local.date(), local.time());
        let at = |h, m| NaiveTime::from_hms_opt(h, m, 0).unwrap_or_default();
        if time >= at(21, 0) {
            return self.has_night_session(day).then_some(Session::Night);
        }
        if time < at(2, 30) {
            return day
                .pred_opt()
                .is_some_and(|eve| self.has_night_session(eve))
                .then_some(Session::Night);
        }
        let in_day =
            (at(9, 0)..at(11, 30)).contains(&time) || (at(13, 0)..at(15, 0)).contains(&time);
        (in_day && self.is_trading_day(day).is_open()).then_some(Session::Day)
    }
}
