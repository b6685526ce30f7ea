//! `oa-report daily`: the report of a day, printed or put into the outbox once.

use chrono::{DateTime, Datelike, Days, NaiveDate, TimeDelta, Timelike, Utc};
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::flush_now;
use oa_core::app::work::{self, Job, JobOutcome};
use oa_core::base::secrets::redact;
use oa_core::journal::Recorder;
use oa_core::journal::due::{Scheduled, Times, register};
use oa_core::journal::{incidents, tasks};
use oa_core::model::event::{Alert, Event};
use oa_core::model::retry::Policy;
use oa_core::model::run::Trigger;
use oa_core::pg::{self, Settings, describe, schema};
use oa_core::schedule::Calendar;
use postgres::{Client, Transaction};
use serde_json::json;

use crate::PROGRAM;
use crate::daily::{Daily, Lack, TASK, build, title, to_markdown};
use crate::when::local_time;

const TITLE: &str = "每日报告";

/// A report that goes out later than this after its time is marked as late.
const LATE: TimeDelta = TimeDelta::minutes(15);

/// So many reports that were not sent are made up for.
const MADE_UP: u64 = 7;

/// The daily report: what should have run and did not, runs, open incidents, storage, and what today is
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  oa-report daily\n  oa-report daily --date 2025-12-01 --format json\n  oa-report daily --format markdown | oa-alert send --title 每日报告 --stdin\nFor crontab; it is sent once a day, at daily_at of [report] or as soon after that as possible. Reports of the last seven days that were not sent, because the machine was off, go out before it and are marked:\n  */5 * * * * oa-report daily --send --cron"
)]
pub(crate) struct Args {
    /// The day: the 24 hours until its daily_at [default: today]
    #[arg(long, value_name = "YYYY-MM-DD", conflicts_with = "send", value_parser = parse_day)]
    date: Option<NaiveDate>,
    /// Put today's report into the outbox, once a day, and send it
    #[arg(long)]
    send: bool,
    /// Started by cron: recorded in the run log
    #[arg(long, requires = "send")]
    cron: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t, conflicts_with = "send")]
    format: DailyFormat,
}

/// A day around which there are others: neither chrono nor PostgreSQL counts on for ever.
fn parse_day(text: &str) -> Result<NaiveDate, String> {
    text.parse::<NaiveDate>()
        .ok()
        .filter(|day| (1..=9999).contains(&day.year()))
        .ok_or_else(|| "write a day such as 2025-12-01".to_owned())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum DailyFormat {
    /// Markdown, as chat robots show it
    #[default]
    Markdown,
    /// One JSON object
    Json,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    if args.send {
        let trigger = if args.cron {
            Trigger::Cron
        } else {
            Trigger::Manual
        };
        send(config, trigger)
    } else {
        print(args, config)
    }
}

fn print(args: &Args, config: &Config) -> Result<u8, Failure> {
    let mut client = pg::connect(&Settings::from_config(config, PROGRAM)?)?;
    schema::check(&mut client)?;
    let today = Utc::now().with_timezone(&config.timezone).date_naive();
    let daily = of(&mut client, config, args.date.unwrap_or(today))?;
    let text = match args.format {
        DailyFormat::Json => format!("{}\n", json!(daily)),
        DailyFormat::Markdown => format!(
            "**{}**\n\n{}",
            title(&daily, config.locale, false),
            to_markdown(&daily, config.locale, config.timezone)
        ),
    };
    cli::print(&redact(&text)).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}

fn of(client: &mut Client, config: &Config, day: NaiveDate) -> Result<Daily, Failure> {
    let calendar = super::calendar(config)?;
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
fn send(config: &Config, trigger: Trigger) -> Result<u8, Failure> {
    let day_and_due = |now: DateTime<Utc>| {
        let day = now.with_timezone(&config.timezone).date_naive();
        let due = local_time(day, config.report.daily_at.0, config.timezone);
        (day, due)
    };
    let too_early = || tracing::info!("today's report is due at {}", config.report.daily_at);
    let here = Utc::now();
    let recorder = Recorder::open(config, PROGRAM)?;
    let mut client = match recorder.connect() {
        Ok((client, _)) => client,
        // As far as this machine knows there is nothing to send.
        Err(_) if here < day_and_due(here).1 => {
            too_early();
            return Ok(exit::OK);
        }
        Err(e) => return Err(e.into()),
    };
    // By the server's clock: a machine whose own is wrong would send the report of another day, and that day then had none.
    let now = client.query_one("SELECT now()", &[]);
    let now: DateTime<Utc> = now.map_err(anyhow::Error::from)?.get(0);
    let (day, due) = day_and_due(now);
    if now < due {
        too_early();
        return Ok(exit::OK);
    }
    if trigger == Trigger::Cron {
        make_known(&mut client, config);
    }
    let sent_already = is_sent(&mut client, day)?;
    if sent_already && !is_reported(&mut client)? {
        tracing::info!("the report of {day} was sent already");
        return Ok(exit::OK);
    }
    let job = Job {
        trigger,
        day: Some(day),
        // Once: cron asks again in five minutes.
        retry: Some(Policy {
            retries: 0,
            ..Policy::DEFAULT
        }),
        must_be_done: true,
        ..Job::by_hand(PROGRAM, TASK, TITLE)
    };
    let sent = work::recorded(&recorder, &job, |_| {
        let daily = of(&mut client, config, day)?;
        if !sent_already {
            for missed in unsent(&mut client, day)? {
                let daily = of(&mut client, config, missed)?;
                put(&mut client, config, &daily, true)?;
            }
            put(&mut client, config, &daily, now - due > LATE)?;
        }
        let mut done = JobOutcome::success(());
        done.details.insert("day".to_owned(), json!(day));
        let bytes = json!(daily.database_bytes);
        done.details.insert("database_bytes".to_owned(), bytes);
        Ok(done)
    });
    flush_now(config);
    match sent {
        // Another one is sending it.
        Err(failure) if failure.is_busy() => Ok(exit::OK),
        sent => sent.map(|()| exit::OK),
    }
}

/// Once cron has started it, it is missed when it does not come. It is due on all days: any calendar will do.
fn make_known(client: &mut Client, config: &Config) {
    let at = config.report.daily_at.0;
    let schedule = format!("{} {} * * *", at.minute(), at.hour());
    let times = Times {
        zone: config.timezone,
        calendar: &Calendar::shipped(),
    };
    let daily = Scheduled::program(TASK, TITLE, &schedule);
    match register(client, PROGRAM, &[daily], times) {
        Ok(left) if left.is_empty() => {}
        Ok(_) => tracing::warn!("could not write slots: somebody else has the task {TASK} locked"),
        Err(e) => tracing::warn!("could not write slots: {}", describe(&e)),
    }
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

/// People were notified that it failed or is missing. Where it was sent all the same (the answer to its commit was lost, or the server's clock
/// was wrong), a run that succeeds says so: once, for that it was missing ends with the next check only, which may be long in coming.
fn is_reported(client: &mut Client) -> Result<bool, Failure> {
    let row = client.query_one(
        "SELECT EXISTS (
           SELECT FROM oa.incidents i LEFT JOIN oa.alerts a ON a.id = i.last_alert WHERE i.task = $1 AND i.resolved_at IS NULL
             AND (i.rule IN ('run_failed', 'run_abandoned')
               OR (i.rule IN ('run_missed', 'never_run') AND NOT EXISTS (
                   SELECT FROM oa.runs r WHERE r.task = $1 AND r.status = 'success' AND r.seq > coalesce(a.seq, 0)))))",
        &[&TASK],
    );
    Ok(row.map_err(anyhow::Error::from)?.get(0))
}

/// The days since the last report of which nobody was sent one: the machine was off. Of many the last ones.
fn unsent(client: &mut Client, day: NaiveDate) -> Result<Vec<NaiveDate>, Failure> {
    let row = client
        .query_opt(
            "SELECT substr(fingerprint, 7) FROM oa.alerts WHERE rule = 'daily_report' AND fingerprint >= 'daily:' AND fingerprint < $1
             ORDER BY fingerprint DESC LIMIT 1",
            &[&fingerprint(day)],
        )
        .map_err(anyhow::Error::from)?;
    let last = row.and_then(|row| row.get::<_, String>(0).parse::<NaiveDate>().ok());
    let Some(last) = last else {
        return Ok(Vec::new());
    };
    let first = (last + Days::new(1)).max(day - Days::new(MADE_UP));
    Ok(first.iter_days().take_while(|d| *d < day).collect())
}

/// Once, whoever else does so at the same time.
fn put(client: &mut Client, config: &Config, daily: &Daily, late: bool) -> Result<(), Failure> {
    let title = title(daily, config.locale, late);
    let text = to_markdown(daily, config.locale, config.timezone);
    let alert = Alert {
        fingerprint: fingerprint(daily.day),
        rule: "daily_report".to_owned(),
        ..Alert::new(Event::Message {
            body: redact(&format!("**{title}**\n\n{text}")),
            title,
        })
    };
    let mut once = || -> Result<Vec<String>, postgres::Error> {
        let mut tx = client.transaction()?;
        pg::alone(&mut tx, "daily")?;
        let there = tx.query_opt(
            "SELECT 1 FROM oa.alerts WHERE fingerprint = $1 LIMIT 1",
            &[&alert.fingerprint],
        )?;
        let left = match there {
            Some(_) => Vec::new(),
            None => {
                // In the order of locks: tasks first.
                let left = note_reported(&mut tx, daily)?;
                incidents::put(&mut tx, &alert)?;
                left
            }
        };
        tx.commit()?;
        Ok(left)
    };
    let left = once().map_err(|e: postgres::Error| {
        anyhow::anyhow!("could not put the report into the outbox: {}", describe(&e))
    })?;
    if !left.is_empty() {
        tracing::warn!(
            "the report of {} names what is missing of {}, but somebody else has these tasks locked: when it is there, no report says so",
            daily.day,
            left.join(", ")
        );
    }
    Ok(())
}

/// Notes of which days people hear that they are not complete, so that a later report says when they are. Returns the tasks of which that
/// could not be noted: nobody who stores a long outcome keeps people from the report.
fn note_reported(tx: &mut Transaction<'_>, daily: &Daily) -> Result<Vec<String>, postgres::Error> {
    let lacking = daily.verdict.lacking.iter();
    let holes = lacking.filter(|l| l.filled_at.is_none());
    let (names, days): (Vec<&str>, Vec<NaiveDate>) = holes
        .filter_map(|l: &Lack| Some((l.task.as_str(), l.day?)))
        .unzip();
    let left = tasks::lock_or_leave(tx, &names)?;
    tx.execute(
        "UPDATE oa.days d SET reported_at = now() FROM unnest($1::text[], $2::date[]) l (task, day)
         WHERE d.task = l.task AND d.day = l.day AND d.task <> ALL($3)
           AND d.reported_at IS NULL AND d.state NOT IN ('pending', 'complete', 'skipped')",
        &[&names, &days, &left],
    )?;
    Ok(left)
}
