//! One file per command: its arguments and what it does. Exit codes are decided here and nowhere below.

pub(crate) mod as_of;
pub(crate) mod backups;
pub(crate) mod daily;
pub(crate) mod days;
pub(crate) mod doctor;
mod follow_run;
pub(crate) mod health;
pub(crate) mod html;
pub(crate) mod logs;
pub(crate) mod quality;
pub(crate) mod serve;
pub(crate) mod token;
pub(crate) mod top;
pub(crate) mod why;

use anyhow::anyhow;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::base::mistakes::nearest;
use oa_core::base::text::printable;
use oa_core::pg::{describe, is_connection_error};
use oa_core::schedule::Calendar;
use postgres::Client;
use postgres::error::SqlState;

use crate::pool::QueryError;
use crate::queries::revisions::{Table, tables};

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Config(e) => e.into(),
            QueryError::Connect(e) => e.into(),
            QueryError::Schema(e) => e.into(),
            QueryError::Database(e) if is_connection_error(&e) => {
                Self::new(exit::UNREACHABLE, QueryError::Database(e))
            }
            QueryError::Database(_) => anyhow::Error::from(error).into(),
        }
    }
}

fn calendar(config: &Config) -> Result<Calendar, Failure> {
    Calendar::load(config.calendar.as_deref()).map_err(|e| Failure::new(exit::CONFIG, e))
}

/// What PostgreSQL said when something was asked of it.
fn failed(error: &postgres::Error, doing: &str) -> Failure {
    let code = if is_connection_error(error) {
        exit::UNREACHABLE
    } else {
        exit::FAILED
    };
    // What came with an upgrade is not granted by itself: old rows, for example, are the service's data.
    let hint = if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
        "; if that is since an upgrade, give the grants of docs/configuration.md once more"
    } else {
        ""
    };
    Failure::new(code, anyhow!("{doing}: {}{hint}", describe(error)))
}

/// The table of that name, with its schema unless that is `public`.
fn table_named(client: &mut Client, name: &str) -> Result<Table, Failure> {
    let tables = tables(client).map_err(|e| failed(&e, "could not read the list of tables"))?;
    let names: Vec<String> = tables.iter().map(Table::shown).collect();
    let wanted = name.strip_prefix("public.").unwrap_or(name);
    match tables.into_iter().find(|t| t.shown() == wanted) {
        Some(table) => Ok(table),
        None => {
            let hint = nearest(wanted, names.iter().map(String::as_str));
            Err(Failure::new(
                exit::USAGE,
                anyhow!("there is no table \"{name}\"{hint}"),
            ))
        }
    }
}

/// A name that no task has is a mistake, and not a task of which there is nothing to show.
fn known_task(client: &mut Client, name: Option<&str>) -> Result<(), Failure> {
    let Some(name) = name else { return Ok(()) };
    let names = task_names(client)?;
    if names.iter().any(|n| n == name) {
        return Ok(());
    }
    Err(Failure::new(exit::USAGE, no_task(name, &names)))
}

fn no_task(name: &str, names: &[String]) -> anyhow::Error {
    let hint = nearest(name, names.iter().map(String::as_str));
    anyhow!("there is no task \"{}\"{hint}", printable(name))
}

fn task_names(client: &mut Client) -> Result<Vec<String>, Failure> {
    let rows = client
        .query("SELECT name FROM oa.tasks ORDER BY name", &[])
        .map_err(|e| failed(&e, "could not read the list of tasks"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A time in the zone of people.
fn local(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone)
        .format("%Y-%m-%d %H:%M:%S")
        .to_string()
}
