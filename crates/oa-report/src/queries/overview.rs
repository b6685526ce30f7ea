//! What the overview shows besides the snapshot: the last runs and days of its tasks, and when they were due and ran today.

use std::collections::HashMap;

use chrono::{DateTime, Days, NaiveTime, TimeDelta, Utc};
use oa_core::app::config::Config;
use oa_core::pg::Tx;
use oa_core::schedule::Calendar;

use super::days::{self, SourceDay};
use super::history::{self, Day, RecentRun};
use super::{Result, health};
use crate::when::local_time;

/// So many weeks of days are shown.
const WEEKS: u64 = 13;

/// A day from midnight to midnight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DayWindow {
    pub(crate) from: DateTime<Utc>,
    pub(crate) until: DateTime<Utc>,
    /// A task that has not started this long after it was due is late.
    pub(crate) grace: TimeDelta,
}

/// All maps are by the task's name.
#[derive(Debug, Clone)]
pub(crate) struct Overview {
    /// Names of the tasks it is of, in the order in which they are shown.
    pub(crate) shown: Vec<String>,
    pub(crate) recent_runs: HashMap<String, Vec<RecentRun>>,
    pub(crate) days: HashMap<String, Vec<Day>>,
    pub(crate) due_today: HashMap<String, Vec<DateTime<Utc>>>,
    pub(crate) runs_today: HashMap<String, Vec<RecentRun>>,
    pub(crate) today: DayWindow,
    /// What they owed for each day of 13 weeks, and what came.
    pub(crate) owed: Vec<SourceDay>,
}

impl Overview {
    /// `aside` are tasks of which only the last runs are shown.
    pub(crate) fn take(
        tx: &mut Tx<'_, '_>,
        config: &Config,
        calendar: &Calendar,
        shown: Vec<String>,
        aside: &[String],
    ) -> Result<Self> {
        let zone = config.timezone;
        let day = Utc::now().with_timezone(&zone).date_naive();
        let today = DayWindow {
            from: local_time(day, NaiveTime::MIN, zone),
            until: local_time(day + Days::new(1), NaiveTime::MIN, zone),
            grace: health::grace(config),
        };
        let names: Vec<&str> = shown.iter().map(String::as_str).collect();
        let with_aside: Vec<&str> = names
            .iter()
            .copied()
            .chain(aside.iter().map(String::as_str))
            .collect();
        Ok(Self {
            recent_runs: history::recent_runs(tx, &with_aside)?,
            days: history::days(tx, &names, Utc::now())?,
            due_today: history::due(tx, &names, today.from, today.until, zone, calendar)?,
            runs_today: history::between(tx, &names, today.from, today.until)?,
            owed: if shown.is_empty() {
                Vec::new()
            } else {
                days::between(
                    tx,
                    config,
                    &shown,
                    (day - Days::new(WEEKS * 7 - 1), day),
                    i64::MAX,
                )?
            },
            today,
            shown,
        })
    }

    /// Tasks of which nothing more is known than what the snapshot has.
    pub(crate) fn empty(shown: Vec<String>) -> Self {
        let now = Utc::now();
        Self {
            shown,
            recent_runs: HashMap::new(),
            days: HashMap::new(),
            due_today: HashMap::new(),
            runs_today: HashMap::new(),
            owed: Vec::new(),
            today: DayWindow {
                from: now,
                until: now,
                grace: TimeDelta::zero(),
            },
        }
    }
}
