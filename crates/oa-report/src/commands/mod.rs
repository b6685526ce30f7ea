//! One file per command: its arguments and what it does. Exit codes are decided here and nowhere below.

pub(crate) mod backups;
pub(crate) mod daily;
pub(crate) mod health;
pub(crate) mod html;
pub(crate) mod logs;
pub(crate) mod quality;
pub(crate) mod serve;
pub(crate) mod token;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::pg::is_connection_error;
use oa_core::schedule::Calendar;

use crate::pool::QueryError;

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

/// A time in the zone of people.
fn local(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone)
        .format("%Y-%m-%d %H:%M:%S")
        .to_string()
}
