//! Requests that people made, and their outcome.

use chrono::{DateTime, NaiveDate, Utc};
use oa_core::base::secrets::redact;
use oa_core::journal::requests;
use postgres::GenericClient;
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::Result;

/// One request.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct RequestEntry {
    /// Its number.
    pub(crate) id: i64,
    /// run, backfill or test_channel.
    pub(crate) kind: String,
    /// The source or the channel.
    pub(crate) subject: String,
    /// The day of a run, or the first one of a backfill; null for the present one.
    pub(crate) from: Option<NaiveDate>,
    /// The last day of a backfill.
    pub(crate) to: Option<NaiveDate>,
    /// The token's name.
    pub(crate) requested_by: String,
    /// When (UTC).
    pub(crate) requested_at: DateTime<Utc>,
    /// open, taken, done, failed or expired.
    pub(crate) state: String,
    /// When it ended (UTC).
    pub(crate) ended_at: Option<DateTime<Utc>>,
    /// The last run that came of it.
    pub(crate) run_id: Option<Uuid>,
    /// What is to be said of its end.
    pub(crate) result: Option<String>,
}

/// The last requests, newest first.
pub(crate) fn recent(
    client: &mut impl GenericClient,
    subject: Option<&str>,
    limit: i64,
) -> Result<Vec<RequestEntry>> {
    let entry = |r: requests::Request| {
        let day = |name: &str| r.params.get(name)?.as_str()?.parse().ok();
        RequestEntry {
            from: day("from").or_else(|| day("day")),
            to: day("to"),
            id: r.id,
            kind: r.kind,
            subject: r.subject,
            requested_by: redact(&r.requested_by),
            requested_at: r.requested_at,
            state: r.state,
            ended_at: r.ended_at,
            run_id: r.run,
            result: r.result.as_deref().map(redact),
        }
    };
    let all = requests::recent(client, subject, limit)?;
    Ok(all.into_iter().map(entry).collect())
}
