//! `oa-alert silence`: of what people do not want to be notified for a while.

use std::time::Duration;

use chrono::{DateTime, Utc};
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::mistakes::nearest;
use oa_core::base::units::Span;
use oa_core::pg::{self, Settings, describe, schema};
use postgres::Client;
use serde_json::json;

use crate::PROGRAM;
use crate::check;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only alerts of this task
    #[arg(long)]
    task: Option<String>,
    /// Only alerts of this rule
    #[arg(long)]
    rule: Option<String>,
    /// How long; 31 days at most
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_span)]
    for_: Option<Span>,
    /// Why, for those who read it later
    #[arg(long, default_value = "")]
    reason: String,
    /// Also when nothing is known by that name yet
    #[arg(long)]
    anyway: bool,
    /// End the silence of this number
    #[arg(long, value_name = "ID", conflicts_with_all = ["task", "rule", "for_"])]
    end: Option<i64>,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn parse_span(text: &str) -> Result<Span, String> {
    if text.trim().ends_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("say the unit: {0}h, {0}m or {0}d", text.trim()));
    }
    let span: Span = text.parse()?;
    if span.0 > LONGEST || span.0.is_zero() {
        return Err("must be more than nothing and at most 31 days".to_owned());
    }
    Ok(span)
}

/// Begins a silence, ends one, or lists them. 2 for a task or rule that is not known, 1 when there is none to end.
pub(crate) fn run(config: &Config, args: &Args) -> Result<u8, Failure> {
    let usage = |what: &'static str| Failure::new(exit::USAGE, anyhow::anyhow!(what));
    let named = args.task.is_some() || args.rule.is_some();
    match (args.end, args.for_) {
        (Some(id), _) => end(config, id),
        (None, None) if !named => list(config, args.format),
        (None, Some(span)) if named => begin(config, args, span.0),
        (None, Some(_)) => Err(usage("name what is to be silent: --task, --rule or both")),
        (None, None) => Err(usage("say for how long: --for 8h")),
    }
}

/// Longer silences are forgotten ones.
const LONGEST: Duration = Duration::from_secs(31 * 24 * 3600);

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
        let refuse = |what: &str, name: &str, hint: &str| {
            Failure::new(
                exit::USAGE,
                anyhow::anyhow!(
                    "there is no {what} \"{name}\"{hint}; a silence takes whole names, and with --anyway also those that are not known yet"
                ),
            )
        };
        if let Some(rule) = self.rule.as_deref()
            && !check::all_rules().any(|r| r == rule)
        {
            let hint = nearest(rule, check::all_rules());
            return Err(refuse("rule", rule, &hint));
        }
        let Some(task) = self.task.as_deref() else {
            return Ok(());
        };
        let rows = client
            .query(
                "SELECT name FROM oa.tasks UNION SELECT task FROM oa.alerts WHERE task IS NOT NULL",
                &[],
            )
            .map_err(|e| failed(&e))?;
        let known: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
        if known.iter().any(|k| k == task) {
            return Ok(());
        }
        let hint = nearest(task, known.iter().map(String::as_str));
        Err(refuse("task", task, &hint))
    }
}

fn begin(config: &Config, args: &Args, span: Duration) -> Result<u8, Failure> {
    let mut client = connect(config)?;
    if !args.anyway {
        args.is_known(&mut client)?;
    }
    let row = client
        .query_one(
            "INSERT INTO oa.silences (task, rule, by, reason, until) VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5)) RETURNING id, until",
            &[&args.task, &args.rule, &who(), &args.reason, &span.as_secs_f64()],
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

/// Prints the silences that hold.
fn list(config: &Config, format: Format) -> Result<u8, Failure> {
    let rows = connect(config)?
        .query(
            "SELECT id, task, rule, until, by, reason FROM oa.silences WHERE until > now() ORDER BY id",
            &[],
        )
        .map_err(|e| failed(&e))?;
    let mut listing = Listing::new(&[
        ("id", "ID"),
        ("task", "TASK"),
        ("rule", "RULE"),
        ("until", "UNTIL"),
        ("by", "BY"),
        ("reason", "REASON"),
    ]);
    for row in rows {
        let until: DateTime<Utc> = row.get(3);
        listing.push(json!({
            "id": row.get::<_, i64>(0), "task": row.get::<_, Option<String>>(1), "rule": row.get::<_, Option<String>>(2),
            "until": until.with_timezone(&config.timezone).format("%Y-%m-%d %H:%M:%S").to_string(),
            "by": row.get::<_, String>(4), "reason": row.get::<_, String>(5),
        }));
    }
    listing.print(format).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}
