//! What is asked of PostgreSQL, one file per question. Nothing here writes, except what people do to incidents and silences in [`alerts`].
//!
//! Ids of runs are ordered by time, so a span of time is a span of ids, and a page of the run log continues at an id. Counts come from
//! `oa.run_hours` and `oa.run_totals`, which the database keeps: no question reads the run log as a whole.

pub(crate) mod alerts;
pub(crate) mod backups;
pub(crate) mod days;
pub(crate) mod health;
pub(crate) mod history;
pub(crate) mod kept;
pub(crate) mod logs;
pub(crate) mod overview;
pub(crate) mod quality;
pub(crate) mod recovery;
pub(crate) mod requests;
pub(crate) mod revisions;
pub(crate) mod run;
pub(crate) mod source;
pub(crate) mod task;
pub(crate) mod totals;
pub(crate) mod watch;

use oa_core::base::secrets::redact;
use oa_core::pg::Tx;
use postgres::types::ToSql;
use postgres::{Client, Row, Transaction};
use serde_json::Value;

pub(crate) type Result<T> = std::result::Result<T, postgres::Error>;

/// A connection or a transaction, or one whose statements stay prepared: what a page asks is asked each second.
pub(crate) trait Asked {
    /// All rows.
    fn query(&mut self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>>;

    /// The only row.
    fn query_one(&mut self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Row>;
}

macro_rules! asked {
    ($($type:ty),*) => {$(
        impl Asked for $type {
            fn query(&mut self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
                Self::query(self, sql, parameters)
            }

            fn query_one(&mut self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Row> {
                Self::query_one(self, sql, parameters)
            }
        }
    )*};
}

asked!(Client, Transaction<'_>, Tx<'_, '_>);

/// Longest text of an error, in characters. PostgreSQL is asked for twice as much: enough to see what in it is secret.
const LONGEST: usize = 4000;

/// A text that a site or a program has put in. It was redacted then, by what was known to be secret on that machine; here it is again.
fn text(row: &postgres::Row, column: usize) -> String {
    shortened(redact(row.get(column)))
}

/// What is longer is of no use on a page, and would make it as large as what a site has sent.
fn shortened(text: String) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The same where there may be none.
pub(crate) fn some_text(row: &postgres::Row, column: usize) -> Option<String> {
    let text = row.get::<_, Option<&str>>(column);
    text.map(|t| shortened(redact(t)))
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

/// The same for a list of texts.
fn redacted_texts(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| redact(text)).collect()
}

/// A count or a size: never negative in the tables.
fn number(row: &postgres::Row, column: usize) -> u64 {
    row.get::<_, Option<i64>>(column)
        .unwrap_or(0)
        .unsigned_abs()
}
