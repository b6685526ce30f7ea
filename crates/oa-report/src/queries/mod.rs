//! What is asked of PostgreSQL, one file a question. Nothing here writes, except [`alerts::acknowledge`].
//!
//! Ids of runs are ordered by time, so a span of time is a span of ids, and a page of the log continues at an id. Counts come from
//! `oa.run_hours` and `oa.run_totals`, which the database keeps: no question reads the log as a whole.

pub mod alerts;
pub mod backups;
pub mod health;
pub mod history;
pub mod logs;
pub mod quality;
pub mod run;
pub mod totals;

use oa_core::secrets::redact;
use serde_json::Value;

/// What these questions give.
pub type Result<T> = std::result::Result<T, postgres::Error>;

/// A text that a site or a program has put in. It was redacted then, by what was known to be secret on that machine; here it is again.
fn text(row: &postgres::Row, column: usize) -> String {
    redact(row.get(column))
}

/// The same where there may be none.
fn some_text(row: &postgres::Row, column: usize) -> Option<String> {
    row.get::<_, Option<&str>>(column).map(redact)
}

/// The same for every text within.
fn redacted(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(redact(&text)),
        Value::Array(all) => all.into_iter().map(redacted).collect(),
        Value::Object(all) => all
            .into_iter()
            .map(|(name, value)| (name, redacted(value)))
            .collect(),
        other => other,
    }
}

/// A count or a size: never negative in the tables.
fn number(row: &postgres::Row, column: usize) -> u64 {
    row.get::<_, Option<i64>>(column)
        .unwrap_or(0)
        .unsigned_abs()
}
