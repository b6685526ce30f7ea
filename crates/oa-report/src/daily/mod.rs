//! The daily report: what ran since yesterday's, what is wrong now, and what today is.

mod backups;
mod queries;
mod text;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeZone, Utc};
use chrono_tz::Tz;
use oa_core::app::config::Config;
use oa_core::base::secrets::redact;
use oa_core::schedule::{Calendar, TradingDay};
use postgres::Client;
use serde::Serialize;

pub use backups::Repository;
pub use text::{title, to_markdown};

/// The report of a day: of the 24 hours until its moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Daily {
    /// The day.
    pub day: NaiveDate,
    /// Where the 24 hours begin (UTC).
    pub from: DateTime<Utc>,
    /// Where they end (UTC).
    pub until: DateTime<Utc>,
    /// What the day is to the exchanges.
    pub today: Today,
    /// Each task that ran, those with trouble first.
    pub tasks: Vec<Task>,
    /// Tasks with a schedule that did not run at all.
    pub without_run: Vec<String>,
    /// Troubles that are not over.
    pub open: Vec<Open>,
    /// Size of the database in bytes.
    pub database_bytes: u64,
    /// The same at the last report that was sent.
    pub database_bytes_before: Option<u64>,
    /// Growth in bytes a day over the last 30 days of reports; `None` before there are two days of them.
    pub database_growth_per_day: Option<f64>,
    /// Backups, by repository.
    pub backups: Vec<Repository>,
}

/// What a day is to the exchanges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Today {
    /// A trading day.
    pub trading: bool,
    /// The calendar does not know the year: Monday to Friday count as trading days.
    pub guessed: bool,
    /// With a night session.
    pub night: bool,
}

/// What came of a task's runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// Its title for people.
    pub title: String,
    /// Runs that ended.
    pub runs: u64,
    /// Of these, successes.
    pub success: u64,
    /// Of these, runs that brought less than there was.
    pub partial: u64,
    /// Of these, failed, timed out or abandoned ones.
    pub failed: u64,
    /// Rows that were not there before.
    pub inserted: u64,
    /// Rows that were there with other values.
    pub updated: u64,
    /// Records that were not stored.
    pub rejected: u64,
    /// The longest run, in seconds.
    pub slowest_seconds: f64,
    /// The longest time between the starts of two successes, in seconds; `None` with fewer than two.
    pub worst_gap_seconds: Option<f64>,
    /// Why the last run that was no success was none.
    pub last_error: Option<String>,
}

impl Task {
    /// Whether all is well with it.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.failed == 0 && self.partial == 0
    }
}

/// A trouble that is not over.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Open {
    /// One line.
    pub title: String,
    /// When it was told first (UTC).
    pub since: DateTime<Utc>,
    /// Who has taken it on.
    pub taken_on_by: Option<String>,
}

/// Builds the report of a day.
///
/// # Errors
/// When PostgreSQL fails.
pub fn build(
    client: &mut Client,
    config: &Config,
    calendar: &Calendar,
    day: NaiveDate,
) -> Result<Daily, postgres::Error> {
    let until = moment(day, config.report.daily_at.0, config.timezone);
    let from = moment(
        day.pred_opt().unwrap_or(day),
        config.report.daily_at.0,
        config.timezone,
    );
    let mut tx = client
        .build_transaction()
        .read_only(true)
        .isolation_level(postgres::IsolationLevel::RepeatableRead)
        .start()?;
    let trading = calendar.is_trading_day(day);
    Ok(Daily {
        day,
        from,
        until,
        today: Today {
            trading: trading.is_open(),
            guessed: matches!(trading, TradingDay::Guessed(_)),
            night: calendar.has_night_session(day),
        },
        tasks: queries::tasks(&mut tx, from, until)?,
        without_run: queries::without_run(&mut tx, from, until, &config.crawl.skip)?,
        open: queries::open(&mut tx)?,
        database_bytes: queries::database_bytes(&mut tx)?,
        database_bytes_before: queries::database_bytes_before(&mut tx, day)?,
        database_growth_per_day: queries::database_growth_per_day(&mut tx)?,
        backups: backups::repositories(
            &mut tx,
            config
                .backup
                .as_ref()
                .map(|b| redact(&b.repository))
                .as_deref(),
            (from, until),
            config.timezone,
        )?,
    })
}

/// A local time of a day. A time that the zone skips that day counts as the end of what is skipped.
#[must_use]
pub fn moment(day: NaiveDate, time: NaiveTime, zone: Tz) -> DateTime<Utc> {
    let mut local = day.and_time(time);
    loop {
        match zone.from_local_datetime(&local).earliest() {
            Some(moment) => return moment.with_timezone(&Utc),
            None => local += chrono::TimeDelta::minutes(15),
        }
    }
}
