//! The daily report: what ran since yesterday's, what is wrong now, and what today is.

mod backups;
mod queries;
mod text;
mod verdict;

use chrono::{DateTime, Days, NaiveDate, Utc};
use oa_core::app::config::Config;
use oa_core::model::Severity;
use oa_core::schedule::{Calendar, TradingDay};
use postgres::Client;
use serde::Serialize;
use uuid::Uuid;

use crate::queries::days::Hole;
use crate::shell::quoted;
use crate::when::local_time;
use backups::Repository;
pub(crate) use text::{title, to_markdown};
pub(crate) use verdict::Lack;
use verdict::{Filled, Span, Start, Verdict};

/// The task's name in the run log.
pub(crate) const TASK: &str = "daily-report";

/// The report of a day: of the 24 hours until `daily_at`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Daily {
    pub(crate) day: NaiveDate,
    /// Where the 24 hours begin (UTC).
    pub(crate) from: DateTime<Utc>,
    /// Where they end (UTC).
    pub(crate) until: DateTime<Utc>,
    pub(crate) today: Today,
    /// Each task that ran, those with failures first.
    pub(crate) tasks: Vec<Task>,
    /// What should have run, and what of it did not.
    pub(crate) verdict: Verdict,
    /// The same of the 24 hours before.
    pub(crate) previous: Previous,
    /// The same of the day a week before.
    pub(crate) week_ago: Previous,
    /// What a person should do today, the most urgent first.
    pub(crate) to_do: Vec<ToDo>,
    /// Holes that were reported and are closed.
    pub(crate) filled: Vec<Filled>,
    /// Holes of the two weeks before that a command fills.
    pub(crate) before: Vec<Hole>,
    /// What cron started.
    pub(crate) starts: Vec<Start>,
    /// It is of a day that is over: what follows is as it was then; backups and sizes are as they are now.
    pub(crate) past: bool,
    /// Tasks with a schedule that did not run at all.
    pub(crate) without_run: Vec<String>,
    pub(crate) open: Vec<OpenIncident>,
    pub(crate) database_bytes: u64,
    /// The same at the last report that was sent.
    pub(crate) database_bytes_before: Option<u64>,
    /// Growth in bytes a day over the last 30 days of reports; `None` before there are two days of them.
    pub(crate) database_growth_per_day: Option<f64>,
    pub(crate) backups: Vec<Repository>,
}

/// What the report before said.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Previous {
    pub(crate) expected: usize,
    pub(crate) complete: usize,
    pub(crate) runs: u64,
    pub(crate) success: u64,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ToDo {
    /// What it is about.
    pub(crate) about: String,
    /// The command, where one does it.
    pub(crate) command: Option<String>,
}

impl Daily {
    /// What watches was there before, and nothing of it was started within the span; or nothing has checked for two weeks.
    pub(crate) fn is_unwatched(&self) -> bool {
        self.starts.iter().any(|s| s.last_at.is_none()) || self.lacks_checks()
    }

    /// There is something to watch, and no check was started within two weeks: nobody has looked for what did not run.
    pub(crate) fn lacks_checks(&self) -> bool {
        let needed = self.verdict.expected > 0 || !self.tasks.is_empty();
        needed && !self.past && !self.starts.iter().any(|s| s.what == "check")
    }
}

/// What a day is to the exchanges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Today {
    pub(crate) trading: bool,
    /// The calendar does not know the year: Monday to Friday count as trading days.
    pub(crate) guessed: bool,
    pub(crate) night: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Task {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) runs: u64,
    pub(crate) success: u64,
    /// Of these, runs that brought less than there was.
    pub(crate) partial: u64,
    /// Of these, failed, timed out or abandoned ones.
    pub(crate) failed: u64,
    pub(crate) inserted: u64,
    pub(crate) updated: u64,
    pub(crate) rejected: u64,
    /// What of the last run that brought such records was not stored.
    pub(crate) not_stored: Option<NotStored>,
    /// The longest run, in seconds.
    pub(crate) slowest_seconds: f64,
    /// The longest time between the starts of two successes, in seconds; `None` with fewer than two.
    pub(crate) worst_gap_seconds: Option<f64>,
    /// Why the last run that was no success was none.
    pub(crate) last_error: Option<String>,
    /// How its last run ended.
    pub(crate) last_status: String,
}

/// Records of a run that were not stored: too few to make it no success, and yet lacking.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct NotStored {
    pub(crate) run_id: Uuid,
    pub(crate) records: u64,
    /// So many came.
    pub(crate) of: u64,
    /// Key, field and reason of the first.
    pub(crate) first: Option<String>,
}

impl Task {
    /// Whether all is well with it.
    pub(crate) fn is_well(&self) -> bool {
        self.failed == 0 && self.partial == 0
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct OpenIncident {
    pub(crate) fingerprint: String,
    pub(crate) severity: Severity,
    pub(crate) title: String,
    /// When it was first reported (UTC).
    pub(crate) since: DateTime<Utc>,
    pub(crate) acknowledged_by: Option<String>,
}

pub(crate) fn build(
    client: &mut Client,
    config: &Config,
    calendar: &Calendar,
    day: NaiveDate,
) -> Result<Daily, postgres::Error> {
    let until = local_time(day, config.report.daily_at.0, config.timezone);
    let from = local_time(
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
    let now: DateTime<Utc> = tx.query_one("SELECT now()", &[])?.get(0);
    let past = day < now.with_timezone(&config.timezone).date_naive();
    let as_of = if past { until } else { now };
    let span = Span { from, until, as_of };
    let span_before = |days: u64| {
        let begins = |days| {
            let day = day.checked_sub_days(Days::new(days)).unwrap_or(day);
            local_time(day, config.report.daily_at.0, config.timezone)
        };
        Span {
            from: begins(days + 1),
            until: begins(days),
            as_of,
        }
    };
    let tasks = queries::tasks(&mut tx, from, until)?;
    let verdict = verdict::assess(&mut tx, config, calendar, span, &tasks)?;
    let mut of_before = |days| -> Result<Previous, postgres::Error> {
        let span = span_before(days);
        let (ran, runs, success) = queries::counts(&mut tx, span.from, span.until)?;
        let was = verdict::assess(&mut tx, config, calendar, span, &ran)?;
        Ok(Previous {
            expected: was.expected,
            complete: was.complete,
            runs,
            success,
        })
    };
    let (previous, week_ago) = (of_before(1)?, of_before(7)?);
    let mut daily = Daily {
        day,
        from,
        until,
        today: Today {
            trading: trading.is_open(),
            guessed: matches!(trading, TradingDay::Guessed(_)),
            night: calendar.has_night_session(day),
        },
        tasks,
        verdict,
        previous,
        week_ago,
        to_do: Vec::new(),
        filled: verdict::filled(&mut tx, config, span)?,
        before: verdict::before(&mut tx, config, span)?,
        starts: verdict::starts(&mut tx, span)?,
        past,
        without_run: queries::without_run(&mut tx, from, until, &config.crawl.skip)?,
        open: queries::open(
            &mut tx,
            &crate::lang::wording(config),
            past.then_some(until),
        )?,
        database_bytes: queries::database_bytes(&mut tx)?,
        database_bytes_before: queries::database_bytes_before(&mut tx, day)?,
        database_growth_per_day: queries::database_growth_per_day(&mut tx)?,
        backups: backups::repositories(
            &mut tx,
            config
                .backup
                .as_ref()
                .map(oa_core::app::config::Backup::repository_name)
                .as_deref(),
            (from, until),
            config,
        )?,
    };
    daily.to_do = to_do(&daily);
    Ok(daily)
}

/// What a person should do, in this order: what is wrong and nobody is at, by how bad it is; what is lacking of this day, then of days
/// before, while the site still shows it.
fn to_do(daily: &Daily) -> Vec<ToDo> {
    let mut open: Vec<&OpenIncident> = daily
        .open
        .iter()
        .filter(|o| o.acknowledged_by.is_none())
        .collect();
    open.sort_by_key(|o| (std::cmp::Reverse(o.severity), o.since));
    let open = open.into_iter().map(|o| ToDo {
        about: o.title.clone(),
        command: Some(format!("oa-alert show {}", quoted(&o.fingerprint))),
    });
    let lacking = daily.verdict.lacking.iter();
    let lacking = lacking.filter(|l| l.filled_at.is_none()).filter_map(|l| {
        Some(ToDo {
            about: l.title.clone(),
            command: Some(l.fill.clone()?),
        })
    });
    let before = daily.before.iter().filter_map(|hole| {
        Some(ToDo {
            about: hole.title.clone(),
            command: Some(hole.fill.clone()?),
        })
    });
    let mut all: Vec<ToDo> = open.chain(lacking).chain(before).collect();
    let mut seen = std::collections::HashSet::new();
    all.retain(|t| seen.insert(t.command.clone()));
    all
}
