//! Who gets an alert, and when: the quiet hours of a channel, and who is on duty.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta};
use chrono_tz::Tz;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

use crate::base::units::ClockTime;
use crate::schedule::{Calendar, EXCHANGES};

/// Hours of the day, over midnight when the end is earlier: `"22:00-08:30"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    from: NaiveTime,
    until: NaiveTime,
}

impl Hours {
    fn hold(self, at: NaiveTime) -> bool {
        if self.from < self.until {
            at >= self.from && at < self.until
        } else {
            at >= self.from || at < self.until
        }
    }
}

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = |text: &str| NaiveTime::parse_from_str(text.trim(), "%H:%M").ok();
        let both = text.split_once('-');
        match both.and_then(|(from, until)| Some((time(from)?, time(until)?))) {
            Some((from, until)) if from != until => Ok(Self { from, until }),
            _ => Err(de::Error::custom(format!(
                "\"{text}\" is no part of a day; write hours such as \"22:00-08:30\""
            ))),
        }
    }
}

/// When only what is critical is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quiet {
    /// At these hours, by the configuration's zone.
    pub hours: Option<Hours>,
    /// Also on whole days, in the exchanges' own zone, on which they are closed.
    pub closed_days: bool,
}

impl Quiet {
    /// Whether it is quiet at that time.
    #[must_use]
    pub fn holds(&self, at: DateTime<Tz>, calendar: &Calendar) -> bool {
        let by_day = self.closed_days
            && !calendar
                .is_trading_day(at.with_timezone(&EXCHANGES).date_naive())
                .is_open();
        by_day || self.hours.is_some_and(|hours| hours.hold(at.time()))
    }
}

/// Which alerts a channel gets: one of each that is given must fit; `*` stands for anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Takes {
    /// Tasks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<String>,
    /// Rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// Sites.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<String>,
}

impl Takes {
    /// Whether it takes everything.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether an alert is for the channel. What is not known of it keeps it from nobody.
    #[must_use]
    pub fn takes(&self, task: Option<&str>, rule: &str, provider: Option<&str>) -> bool {
        let fits = |patterns: &[String], name: Option<&str>, unknown: bool| {
            patterns.is_empty()
                || name.map_or(unknown, |name| patterns.iter().any(|p| fits(name, p)))
        };
        fits(&self.tasks, task, false)
            && fits(&self.rules, Some(rule), false)
            && fits(&self.providers, provider, task.is_some())
    }
}

/// Whether a name fits a pattern, as `oa.fits` in the database does it: `*` stands for anything.
#[must_use]
pub fn fits(name: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Somebody who can be on duty.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// The name.
    pub name: String,
    /// The mobile number, by which robots mention people.
    pub mobile: String,
}

/// `[alert.rotation]`: who is on duty, week by week.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// The day on which the first of them begins; each week ends on its day of the week.
    pub first: NaiveDate,
    /// The time of the day at which they change.
    #[serde(default = "morning")]
    pub at: ClockTime,
    /// One week each, in this order, again and again.
    pub people: Vec<Person>,
    /// Weeks, by their first day, of which another of them takes care.
    #[serde(default)]
    pub weeks: BTreeMap<NaiveDate, String>,
}

fn morning() -> ClockTime {
    ClockTime(NaiveTime::from_hms_opt(9, 0, 0).unwrap_or_default())
}

impl Rotation {
    /// The first day of the week at a time, and who is on duty in it; `None` before the first.
    #[must_use]
    pub fn on_duty(&self, at: DateTime<Tz>) -> Option<(NaiveDate, &Person)> {
        let day = (at.naive_local() - self.at.0.signed_duration_since(NaiveTime::MIN)).date();
        let since = (day - self.first).num_days();
        let week = usize::try_from(since.div_euclid(7)).ok()?;
        let begins = self.first + TimeDelta::days(7 * i64::try_from(week).ok()?);
        let turn = self.people.get(week.checked_rem(self.people.len())?)?;
        let named = self.weeks.get(&begins);
        let stands_in = named.and_then(|name| self.people.iter().find(|p| p.name == *name));
        Some((begins, stands_in.unwrap_or(turn)))
    }

    /// What is wrong with it beyond its form.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.people.is_empty() {
            return Err("people in [alert.rotation] is empty: nobody would be on duty".to_owned());
        }
        for (day, name) in &self.weeks {
            if (*day - self.first).num_days().rem_euclid(7) != 0 {
                return Err(format!(
                    "weeks in [alert.rotation] has {day}, on which no week begins: they begin on the day of the week of {}",
                    self.first
                ));
            }
            if !self.people.iter().any(|p| p.name == *name) {
                return Err(format!(
                    "weeks in [alert.rotation] gives {day} to \"{name}\", who is not in people"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    const ZONE: Tz = chrono_tz::Asia::Shanghai;

    fn at(day: u32, hour: u32, minute: u32) -> DateTime<Tz> {
        ZONE.with_ymd_and_hms(2025, 12, day, hour, minute, 0)
            .unwrap()
    }

    #[test]
    fn each_has_a_week_and_others_stand_in() {
        let rotation: Rotation = toml::from_str(
            "first = \"2025-12-01\"\nat = \"09:00\"\npeople = [{ name = \"wang\", mobile = \"1\" }, { name = \"li\", mobile = \"2\" }]\n\
             [weeks]\n\"2025-12-15\" = \"li\"\n",
        )
        .unwrap();
        rotation.check().unwrap();
        let who = |day, hour| {
            rotation
                .on_duty(at(day, hour, 0))
                .map(|(_, p)| p.name.as_str())
        };
        assert_eq!(who(1, 8), None);
        assert_eq!(who(1, 9), Some("wang"));
        assert_eq!(who(8, 8), Some("wang"));
        assert_eq!(who(8, 9), Some("li"));
        assert_eq!(who(16, 12), Some("li"), "stands in");
        assert_eq!(who(23, 12), Some("li"));
        assert_eq!(who(29, 12), Some("wang"));
    }

    #[test]
    fn it_is_quiet_at_night_and_when_the_exchanges_are_closed() {
        let calendar = Calendar::shipped();
        let quiet: Quiet = toml::from_str("hours = \"22:00-08:30\"\nclosed_days = true\n").unwrap();
        for (day, hour, minute, holds) in [
            (1, 21, 59, false),
            (1, 22, 0, true),
            (2, 8, 29, true),
            (2, 8, 30, false),
            (6, 12, 0, true), // Saturday
        ] {
            assert_eq!(
                quiet.holds(at(day, hour, minute), &calendar),
                holds,
                "{day} {hour}"
            );
        }
        assert!(!Quiet::default().holds(at(6, 3, 0), &calendar));
        // Friday evening in New York is Saturday where the exchanges are.
        let there = at(6, 9, 0).with_timezone(&chrono_tz::America::New_York);
        assert!(quiet.holds(there, &calendar), "{there}");
        assert!(toml::from_str::<Quiet>("hours = \"22-8\"").is_err());
    }

    #[test]
    fn a_route_takes_what_fits_one_of_each() {
        let takes = Takes {
            tasks: vec!["zhihui-*".to_owned(), "exports".to_owned()],
            rules: vec!["run_*".to_owned()],
            providers: Vec::new(),
        };
        assert!(takes.takes(Some("zhihui-reports"), "run_failed", None));
        assert!(!takes.takes(Some("zhihui-reports"), "data_stale", None));
        assert!(!takes.takes(Some("rongda"), "run_failed", None));
        assert!(!takes.takes(None, "run_failed", None));
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (name, pattern, is) in [
            ("zhihui-reports", "zhihui-*", true),
            ("zhihui-reports", "*", true),
            ("zhihui-reports", "*reports", true),
            ("zhihui-reports", "z*i*s", true),
            ("zhihui-reports", "zhihui", false),
            ("ab", "ab*b", false),
            ("abb", "ab*b", true),
            ("a", "a", true),
        ] {
            assert_eq!(fits(name, pattern), is, "{name} {pattern}");
        }
    }
}
