//! `oa-alert silence`: what nobody is notified of for a while.

use std::time::Duration;

use chrono::{DateTime, NaiveTime, Utc};
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::{self, Config};
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::mistakes::nearest;
use oa_core::base::units::Span;
use oa_core::base::when::{self, When};
use oa_core::pg::{self, Settings, describe, schema};
use postgres::Client;
use serde_json::json;

use crate::PROGRAM;
use crate::check;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only alerts of these tasks; * stands for anything
    #[arg(long, value_name = "PATTERN")]
    task: Option<String>,
    /// Only alerts of these rules; * stands for anything
    #[arg(long, value_name = "PATTERN")]
    rule: Option<String>,
    /// Only alerts of these machines; * stands for anything
    #[arg(long, value_name = "PATTERN")]
    host: Option<String>,
    /// Only alerts of this incident, by its fingerprint (oa-alert list --open)
    #[arg(long, value_name = "FINGERPRINT")]
    incident: Option<String>,
    /// How long; 31 days at most, with --daily 366
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_span)]
    for_: Option<Span>,
    /// When it begins: "2025-12-01 09:30", "22:00", "tomorrow 08:00", by the configuration's zone [default: now]
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only at these hours of each day, by the configuration's zone; over midnight when the end is earlier
    #[arg(long, value_name = "HH:MM-HH:MM", value_parser = parse_hours)]
    daily: Option<Hours>,
    /// With --daily: only on these days of the week, mon to sun, with commas or as mon-fri; hours over midnight belong to the day they begin on
    #[arg(long, value_name = "DAYS", value_parser = parse_weekdays, requires = "daily")]
    weekdays: Option<Weekdays>,
    /// Why, for those who read it later
    #[arg(long, default_value = "")]
    reason: String,
    /// Even if nothing of that name is known yet
    #[arg(long)]
    anyway: bool,
    /// End the silence with this number
    #[arg(long, value_name = "ID", conflicts_with_all = ["task", "rule", "host", "incident", "for_", "from", "daily", "weekdays"])]
    end: Option<i64>,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A part of each day.
#[derive(Debug, Clone, Copy)]
struct Hours {
    from: NaiveTime,
    until: NaiveTime,
}

fn parse_span(text: &str) -> Result<Span, String> {
    if text.trim().ends_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("say the unit: {0}h, {0}m or {0}d", text.trim()));
    }
    let span: Span = text.parse()?;
    if span.0 > LONGEST_DAILY || span.0.is_zero() {
        return Err("must be more than nothing and at most 366 days".to_owned());
    }
    Ok(span)
}

/// Days of the week as ISO numbers them, 1 for Monday.
#[derive(Debug, Clone)]
struct Weekdays(Vec<i32>);

const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// As they are given.
fn named_days(days: &[i32]) -> String {
    let name = |day: &i32| NAMES.get(usize::try_from(*day - 1).ok()?).copied();
    let names: Vec<&str> = days.iter().filter_map(name).collect();
    names.join(",")
}

fn parse_weekdays(text: &str) -> Result<Weekdays, String> {
    let wrong = || "give days of the week: mon-fri, or sat,sun".to_owned();
    let day = |name: &str| {
        let name = name.trim().to_lowercase();
        let at = NAMES.iter().position(|n| *n == name).ok_or_else(wrong)?;
        i32::try_from(at + 1).map_err(|_| wrong())
    };
    let mut days = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => days.push(day(part)?),
            Some((first, last)) => {
                let (first, last) = (day(first)?, day(last)?);
                if first > last {
                    return Err(wrong());
                }
                days.extend(first..=last);
            }
        }
    }
    days.sort_unstable();
    days.dedup();
    Ok(Weekdays(days))
}

fn parse_hours(text: &str) -> Result<Hours, String> {
    let time = |text: &str| NaiveTime::parse_from_str(text.trim(), "%H:%M").ok();
    let both = text.split_once('-');
    match both.and_then(|(from, until)| Some((time(from)?, time(until)?))) {
        Some((from, until)) if from != until => Ok(Hours { from, until }),
        _ => Err("give two times of the day: 22:00-06:00".to_owned()),
    }
}

/// Begins a silence, ends one, or lists them. 2 for a pattern that nothing fits, 1 when there is none to end.
pub(crate) fn run(config: &Config, args: &Args) -> Result<u8, Failure> {
    let usage = |what: &'static str| Failure::new(exit::USAGE, anyhow::anyhow!(what));
    let names = [&args.task, &args.rule, &args.host, &args.incident];
    let named = names.iter().any(|name| name.is_some());
    let begins = named || args.from.is_some() || args.daily.is_some();
    match (args.end, args.for_) {
        (Some(id), _) => end(config, id),
        (None, None) if !begins => list(config, args.format),
        (None, Some(span)) if named && (span.0 <= LONGEST || args.daily.is_some()) => {
            begin(config, args, span.0)
        }
        (None, Some(_)) if named => {
            Err(usage("a silence is 31 days at most; with --daily 366 days"))
        }
        (None, Some(_)) => Err(usage(
            "name what is to be silent: --task, --rule, --host, --incident, or several of them",
        )),
        (None, None) => Err(usage("say for how long: --for 8h")),
    }
}

/// Longer silences are forgotten ones.
const LONGEST: Duration = Duration::from_secs(31 * 24 * 3600);
/// One of some hours a day may be meant for good; once a year somebody must want it.
const LONGEST_DAILY: Duration = Duration::from_secs(366 * 24 * 3600);

pub(super) fn connect(config: &Config) -> Result<Client, Failure> {
    let mut client = pg::connect(&Settings::from_config(config, PROGRAM)?)?;
    schema::check(&mut client)?;
    Ok(client)
}

pub(super) fn failed(e: &postgres::Error) -> anyhow::Error {
    anyhow::anyhow!("PostgreSQL refused: {}", describe(e))
}

/// Who says it, for those who read it later.
pub(super) fn who() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
        .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

impl Args {
    /// A silence of what does not exist silences nothing, and who asked for it finds out at night.
    fn is_known(&self, client: &mut Client) -> Result<(), Failure> {
        let mut names = |sql: &str| -> Result<Vec<String>, Failure> {
            let rows = client.query(sql, &[]).map_err(|e| failed(&e))?;
            Ok(rows.iter().map(|r| r.get(0)).collect())
        };
        if let Some(rule) = self.rule.as_deref() {
            let known: Vec<String> = check::all_rules().map(str::to_owned).collect();
            fits("rule", rule, &known)?;
        }
        if let Some(task) = self.task.as_deref() {
            let sql =
                "SELECT name FROM oa.tasks UNION SELECT task FROM oa.alerts WHERE task IS NOT NULL";
            fits("task", task, &names(sql)?)?;
        }
        if let Some(host) = self.host.as_deref() {
            let sql = "SELECT host FROM oa.watches UNION SELECT host FROM oa.channel_routes UNION SELECT event->>'host' FROM oa.alerts WHERE event->>'host' IS NOT NULL";
            fits("machine", host, &names(sql)?)?;
        }
        if let Some(incident) = self.incident.as_deref() {
            let known = names("SELECT fingerprint FROM oa.incidents")?;
            if !known.iter().any(|fingerprint| fingerprint == incident) {
                return Err(Failure::new(
                    exit::USAGE,
                    anyhow::anyhow!(
                        "there is no incident \"{incident}\", and without --anyway only a known one is silenced; see oa-alert list --open"
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// Whether one of the names fits a pattern, as `oa.fits` in the database does it.
fn fits(what: &str, pattern: &str, known: &[String]) -> Result<(), Failure> {
    if known.iter().any(|name| config::fits(name, pattern)) {
        return Ok(());
    }
    let hint = nearest(pattern, known.iter().map(String::as_str));
    Err(Failure::new(
        exit::USAGE,
        anyhow::anyhow!(
            "there is no {what} \"{pattern}\"{hint}; a silence takes whole names, in which * stands for anything, and with --anyway also those that are not known yet"
        ),
    ))
}

fn begin(config: &Config, args: &Args, span: Duration) -> Result<u8, Failure> {
    let from = args.from.as_ref().map(|text| {
        let when = when::parse(text, Utc::now(), config.timezone);
        when.map(When::begins).ok_or_else(|| {
            Failure::new(
                exit::USAGE,
                anyhow::anyhow!("--from \"{text}\" is no time; write {}", when::FORMS),
            )
        })
    });
    let from = from.transpose()?;
    if from.is_some_and(|from| from + span <= Utc::now()) {
        return Err(Failure::new(
            exit::USAGE,
            anyhow::anyhow!("that silence is over already; say a later --from, or a longer --for"),
        ));
    }
    let mut client = connect(config)?;
    if !args.anyway {
        args.is_known(&mut client)?;
    }
    let (daily_from, daily_until) = (args.daily.map(|d| d.from), args.daily.map(|d| d.until));
    let row = client
        .query_one(
            "INSERT INTO oa.silences (task, rule, host, by, reason, starts_at, until, daily_from, daily_until, zone, weekdays, fingerprint)
             VALUES ($1, $2, $3, $4, $5, coalesce($6, now()), coalesce($6, now()) + make_interval(secs => $7), $8, $9, $10, $11, $12) RETURNING id, until",
            &[
                &args.task, &args.rule, &args.host, &who(), &args.reason, &from, &span.as_secs_f64(), &daily_from, &daily_until,
                &config.timezone.name(), &args.weekdays.as_ref().map(|w| &w.0), &args.incident,
            ],
        )
        .map_err(|e| failed(&e))?;
    let (id, until): (i64, DateTime<Utc>) = (row.get(0), row.get(1));
    let until = until
        .with_timezone(&config.timezone)
        .format("%Y-%m-%d %H:%M");
    let text = format!("silence {id} until {until}; end it with: oa-alert silence --end {id}\n");
    cli::print(&text).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}

/// Ends a silence now. What goes on is notified with its next occurrence.
fn end(config: &Config, id: i64) -> Result<u8, Failure> {
    let ended = connect(config)?
        .execute(
            "UPDATE oa.silences SET until = now() WHERE id = $1 AND until > now()",
            &[&id],
        )
        .map_err(|e| failed(&e))?;
    if ended == 0 {
        return Err(anyhow::anyhow!("there is no silence {id}, or it is over").into());
    }
    Ok(exit::OK)
}

/// The open incidents that a silence which holds keeps from people.
fn hides(holds: bool, incidents: &[String]) -> String {
    match holds {
        true => incidents.join(", "),
        false => String::new(),
    }
}

/// Prints the silences that hold or will, and how much each has kept from people.
fn list(config: &Config, format: Format) -> Result<u8, Failure> {
    let rows = connect(config)?
        .query(
            "SELECT s.id, s.task, s.rule, s.host, s.starts_at, s.until, to_char(s.daily_from, 'HH24:MI') || '-' || to_char(s.daily_until, 'HH24:MI'), s.by, s.reason,
                    (SELECT count(*) FROM oa.alerts a WHERE a.silenced_by = s.id AND a.created_at >= s.starts_at AND a.kind = 'problem'), s.weekdays,
                    oa.silence_holds(s, now()),
                    ARRAY(SELECT i.fingerprint FROM oa.incidents i JOIN oa.alerts a ON a.id = i.last_alert
                          WHERE i.resolved_at IS NULL AND oa.silence_covers(s, i.fingerprint, i.task, i.rule, a.event->>'host')
                          ORDER BY i.fingerprint LIMIT 20), s.fingerprint
             FROM oa.silences s WHERE s.until > now() ORDER BY s.id",
            &[],
        )
        .map_err(|e| failed(&e))?;
    let mut listing = Listing::new(&[
        ("id", "ID"),
        ("task", "TASK"),
        ("rule", "RULE"),
        ("host", "HOST"),
        ("fingerprint", "INCIDENT"),
        ("from", "FROM"),
        ("until", "UNTIL"),
        ("daily", "DAILY"),
        ("days", "ON"),
        ("hidden", "HIDDEN"),
        ("hides", "HIDES NOW"),
        ("by", "BY"),
        ("reason", "REASON"),
    ]);
    let text = |row: &postgres::Row, i: usize| row.get::<_, Option<String>>(i);
    for row in rows {
        let weekdays: Option<Vec<i32>> = row.get(10);
        let days = weekdays.as_deref().map(named_days);
        let at = |i: usize| {
            let at = row.get::<_, DateTime<Utc>>(i);
            at.with_timezone(&config.timezone)
                .format("%Y-%m-%d %H:%M:%S")
                .to_string()
        };
        listing.push(json!({
            "id": row.get::<_, i64>(0), "task": text(&row, 1), "rule": text(&row, 2), "host": text(&row, 3),
            "from": at(4), "until": at(5), "daily": text(&row, 6), "by": row.get::<_, String>(7), "reason": row.get::<_, String>(8),
            "hidden": row.get::<_, i64>(9), "weekdays": weekdays, "days": days, "holds": row.get::<_, bool>(11),
            "fingerprint": text(&row, 13), "hides": hides(row.get(11), &row.get::<_, Vec<String>>(12)),
        }));
    }
    listing.print(format).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_the_week_are_names_and_spans_of_them() {
        let days = |text: &str| parse_weekdays(text).map(|w| w.0);
        assert_eq!(days("mon-fri"), Ok(vec![1, 2, 3, 4, 5]));
        assert_eq!(days("Sun, sat"), Ok(vec![6, 7]));
        assert_eq!(named_days(&[1, 5, 7]), "mon,fri,sun");
        for wrong in ["", "fri-mon", "monday", "1-5"] {
            assert!(days(wrong).is_err(), "{wrong}");
        }
    }
}
