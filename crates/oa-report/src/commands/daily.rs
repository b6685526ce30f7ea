//! `oa-report daily`: the report of a day, printed or put into the outbox once.

use chrono::{NaiveDate, TimeDelta, Utc};
use oa_core::alerts;
use oa_core::alerts::{Alert, Kind, Severity};
use oa_core::app::cli;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::work::run_error;
use oa_core::base::secrets::redact;
use oa_core::journal::{Persisted, Recorder, StartOutcome, Stopwatch};
use oa_core::model::retry::Policy;
use oa_core::model::run::{Outcome, RunStart, Status, Trigger};
use oa_core::pg;
use oa_core::pg::{Settings, describe, schema};
use oa_core::schedule::Calendar;
use postgres::Client;
use serde_json::json;
use uuid::Uuid;

use crate::PROGRAM;
use crate::daily::{Daily, build, moment, title, to_markdown};

/// The task's name in the run log.
pub const TASK: &str = "daily-report";
/// A report that goes out later than this after its time is marked as late.
const LATE: TimeDelta = TimeDelta::minutes(15);

/// In what form the report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Form {
    /// Markdown, as robots show it.
    #[default]
    Markdown,
    /// One JSON object.
    Json,
}

/// Builds the report of `date` (today by default) and prints it.
///
/// # Errors
/// When PostgreSQL is away (75), its schema does not fit or the configuration is wrong (78).
pub fn print(config: &Config, date: Option<NaiveDate>, form: Form) -> Result<u8, Failure> {
    let mut client = pg::connect(&Settings::from_config(config, PROGRAM)?)?;
    schema::check(&mut client)?;
    let day = date.unwrap_or_else(|| Utc::now().with_timezone(&config.timezone).date_naive());
    let daily = of(&mut client, config, day)?;
    let text = match form {
        Form::Json => format!("{}\n", json!(daily)),
        Form::Markdown => format!(
            "**{}**\n\n{}",
            title(&daily, config.locale, false),
            to_markdown(&daily, config.locale, config.timezone)
        ),
    };
    cli::print(&redact(&text)).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}

fn of(client: &mut Client, config: &Config, day: NaiveDate) -> Result<Daily, Failure> {
    let calendar =
        Calendar::load(config.calendar.as_deref()).map_err(|e| Failure::new(exit::CONFIG, e))?;
    build(client, config, &calendar, day).map_err(|e| {
        let code = if pg::is_connection_error(&e) {
            exit::UNREACHABLE
        } else {
            exit::FAILED
        };
        Failure::new(
            code,
            anyhow::anyhow!("could not build the report: {}", describe(&e)),
        )
    })
}

/// Puts today's report into the outbox, unless it is too early or it is there already: cron may call this as often as it likes.
///
/// # Errors
/// As [`print`], and when the state directory cannot be used (77).
pub fn send(config: &Config, trigger: Trigger) -> Result<u8, Failure> {
    let now = Utc::now();
    let day = now.with_timezone(&config.timezone).date_naive();
    let due = moment(day, config.report.daily_at.0, config.timezone);
    if now < due {
        tracing::info!("today's report is due at {}", config.report.daily_at);
        return Ok(exit::OK);
    }
    let recorder = Recorder::open(config, PROGRAM)?;
    let (mut client, _) = recorder.connect()?;
    if is_sent(&mut client, day)? {
        tracing::info!("the report of {day} was sent already");
        return Ok(exit::OK);
    }
    let start = RunStart::now(
        PROGRAM,
        env!("CARGO_PKG_VERSION"),
        TASK,
        "每日报告",
        trigger,
        Policy::DEFAULT.lease(),
    );
    let clock = Stopwatch::start(start.started_at);
    let StartOutcome::Run(run) = recorder.begin(start.clone())? else {
        return Ok(exit::OK); // Another one is sending it.
    };
    let sent = of(&mut client, config, day).and_then(|daily| {
        put(&mut client, config, &daily, now - due > LATE)?;
        Ok(daily.database_bytes)
    });
    let mut outcome = Outcome::bare(start, Status::Success, clock.now());
    outcome.details.insert("day".to_owned(), json!(day));
    match &sent {
        Ok(bytes) => {
            let bytes = json!(bytes);
            outcome.details.insert("database_bytes".to_owned(), bytes);
        }
        Err(failure) => {
            outcome.status = Status::Failed;
            outcome.error = Some(run_error(failure));
        }
    }
    let recorded = recorder.finish(*run, outcome)?;
    alerts::flush_now(config);
    sent?;
    Ok(match recorded {
        Persisted::Stored(_) => exit::OK,
        _ => exit::UNREACHABLE,
    })
}

fn fingerprint(day: NaiveDate) -> String {
    format!("daily:{day}")
}

fn is_sent(client: &mut Client, day: NaiveDate) -> Result<bool, Failure> {
    let row = client.query_one(
        "SELECT EXISTS (SELECT FROM oa.alerts WHERE fingerprint = $1)",
        &[&fingerprint(day)],
    );
    Ok(row.map_err(anyhow::Error::from)?.get(0))
}

/// Once, whoever else does so at the same moment.
fn put(client: &mut Client, config: &Config, daily: &Daily, late: bool) -> Result<(), Failure> {
    let title = title(daily, config.locale, late);
    let text = to_markdown(daily, config.locale, config.timezone);
    let alert = Alert {
        id: Uuid::now_v7(),
        fingerprint: fingerprint(daily.day),
        rule: "daily_report".to_owned(),
        task: None,
        run_id: None,
        severity: Severity::Info,
        kind: Kind::Message,
        body: redact(&format!("**{title}**\n\n{text}")),
        title,
        created_at: Utc::now(),
    };
    let mut once = || {
        let mut tx = client.transaction()?;
        pg::alone(&mut tx, "daily")?;
        let there = tx.query_opt(
            "SELECT 1 FROM oa.alerts WHERE fingerprint = $1 LIMIT 1",
            &[&alert.fingerprint],
        )?;
        if there.is_none() {
            alerts::put(&mut tx, &alert)?;
        }
        tx.commit()
    };
    once().map_err(|e: postgres::Error| {
        anyhow::anyhow!("could not put the report into the outbox: {}", describe(&e)).into()
    })
}
