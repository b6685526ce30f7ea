//! `oa-alert ack` and `oa-alert silence`: what people say about troubles.

use std::time::Duration;

use chrono::{DateTime, Utc};
use oa_core::cli::{self, Failure};
use oa_core::config::{Config, nearest};
use oa_core::exit;
use oa_core::output::{Format, Listing};
use oa_core::pg::{self, Settings, describe, schema};
use postgres::Client;
use serde_json::json;

use crate::PROGRAM;
use crate::check;

/// Longer silences are forgotten ones.
pub const LONGEST: Duration = Duration::from_secs(31 * 24 * 3600);

fn connect(config: &Config) -> Result<Client, Failure> {
    let mut client = pg::connect(&Settings::from_config(config, PROGRAM)?)?;
    schema::check(&mut client)?;
    Ok(client)
}

fn failed(e: &postgres::Error) -> anyhow::Error {
    anyhow::anyhow!("PostgreSQL refused: {}", describe(e))
}

/// Who says it, for those who read it later.
fn who() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
        .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

/// Takes on the open troubles of a task, or one trouble by its fingerprint: they are not repeated until they are over.
///
/// # Errors
/// 1 when there is no open trouble of that name, 75 when PostgreSQL is away.
pub fn ack(config: &Config, of: &str, note: &str) -> Result<u8, Failure> {
    let mut client = connect(config)?;
    let rows = client
        .query(
            "INSERT INTO oa.acks (fingerprint, by, note)
             SELECT fingerprint, $2, $3 FROM (
               SELECT DISTINCT ON (fingerprint) fingerprint, kind FROM oa.alerts WHERE fingerprint = $1 OR task = $1 ORDER BY fingerprint, id DESC) last
             WHERE kind = 'problem'
             ON CONFLICT (fingerprint) DO UPDATE SET by = excluded.by, note = excluded.note, acked_at = now() RETURNING fingerprint",
            &[&of, &who(), &note],
        )
        .map_err(|e| failed(&e))?;
    if rows.is_empty() {
        return Err(anyhow::anyhow!(
            "there is no open trouble of {of}; oa-alert list --open shows those there are"
        )
        .into());
    }
    let names: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
    let text = format!("{}: not repeated until it is over\n", names.join(", "));
    cli::print(&text).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}

/// What is to be silent.
#[derive(Debug, Clone, Copy)]
pub struct Which<'a> {
    /// Alerts of this task only.
    pub task: Option<&'a str>,
    /// Alerts of this rule only.
    pub rule: Option<&'a str>,
    /// Also when nothing of that name is known.
    pub anyway: bool,
}

impl Which<'_> {
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
        if let Some(rule) = self.rule
            && !check::all_rules().any(|r| r == rule)
        {
            let hint = nearest(rule, check::all_rules());
            return Err(refuse("rule", rule, &hint));
        }
        let Some(task) = self.task else {
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

/// Records alerts of a task, a rule, or both without sending them, for a while.
///
/// # Errors
/// 2 for a task or rule that is not known, 75 when PostgreSQL is away.
pub fn silence(
    config: &Config,
    which: &Which<'_>,
    for_: Duration,
    reason: &str,
) -> Result<u8, Failure> {
    let mut client = connect(config)?;
    if !which.anyway {
        which.is_known(&mut client)?;
    }
    let (task, rule) = (which.task, which.rule);
    let row = client
        .query_one(
            "INSERT INTO oa.silences (task, rule, by, reason, until) VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5)) RETURNING id, until",
            &[&task, &rule, &who(), &reason, &for_.as_secs_f64()],
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

/// Ends a silence now. What goes on is told with its next occurrence.
///
/// # Errors
/// 1 when there is none of that number, 75 when PostgreSQL is away.
pub fn end(config: &Config, id: i64) -> Result<u8, Failure> {
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
///
/// # Errors
/// 75 when PostgreSQL is away.
pub fn list(config: &Config, format: Format) -> Result<u8, Failure> {
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
