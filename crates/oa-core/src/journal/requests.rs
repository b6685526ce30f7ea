//! What people ask for on a page or in a message (`oa.requests`), carried out by the programs that cron starts each minute.
//!
//! ```text
//! open ──▶ taken ──▶ done, failed
//!      ──▶ expired      no program took it within an hour: what was asked for then is not wanted now; nor one of which the program that
//!                       was at it is gone
//! ```
//! Killed while it is at one, a program loses it when its lease is over, and the next one takes it; three times at most. What is asked
//! for is harmless when it is done twice.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use postgres::GenericClient;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::base::text::error_text;

/// Longer ones are not carried out.
const EXPIRES: &str = "1 hour";
const NOBODY: &str =
    "no program took it within 1 hour; does cron start oa-crawl run --due and oa-alert check?";
/// So many programs may be killed at one.
const TRIES: i32 = 3;
/// A run of it goes on, which has a lease of its own.
const RUNS: &str = "EXISTS (SELECT FROM oa.tasks t WHERE r.kind <> 'test_channel' AND t.name = r.subject AND t.lease_until > now())";

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Collect a source now, for this day or for the present one.
    Run {
        /// The source's task.
        task: String,
        /// The day.
        day: Option<NaiveDate>,
    },
    /// Collect the days of a source that are not there.
    Backfill {
        /// The source's task.
        task: String,
        /// The first day.
        from: NaiveDate,
        /// The last day.
        to: NaiveDate,
    },
    /// Send a test message.
    TestChannel {
        /// The channel.
        channel: String,
    },
}

impl Action {
    /// The name under which it is stored.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Run { .. } => "run",
            Self::Backfill { .. } => "backfill",
            Self::TestChannel { .. } => "test_channel",
        }
    }

    /// The task or the channel.
    #[must_use]
    pub fn subject(&self) -> &str {
        match self {
            Self::Run { task, .. } | Self::Backfill { task, .. } => task,
            Self::TestChannel { channel } => channel,
        }
    }

    fn params(&self) -> Value {
        match self {
            Self::Run { day: Some(day), .. } => json!({ "day": day }),
            Self::Backfill { from, to, .. } => json!({ "from": from, "to": to }),
            Self::Run { day: None, .. } | Self::TestChannel { .. } => json!({}),
        }
    }

    fn stored(kind: &str, subject: String, params: &Value) -> Option<Self> {
        let day = |name: &str| params.get(name)?.as_str()?.parse::<NaiveDate>().ok();
        Some(match kind {
            "run" => Self::Run {
                task: subject,
                day: day("day"),
            },
            "backfill" => Self::Backfill {
                task: subject,
                from: day("from")?,
                to: day("to")?,
            },
            "test_channel" => Self::TestChannel { channel: subject },
            _ => return None,
        })
    }
}

/// What became of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It waits under this number.
    New(i64),
    /// Somebody has asked for it already, and it is not done yet.
    Waits(i64),
    /// Only sources can be collected when somebody asks; this is none, or an unknown one.
    NotASource,
}

/// Asks for something, in the name of `by`.
///
/// # Errors
/// When PostgreSQL fails.
pub fn put(
    client: &mut impl GenericClient,
    action: &Action,
    by: &str,
) -> Result<Put, postgres::Error> {
    let collects = matches!(action, Action::Run { .. } | Action::Backfill { .. });
    let is_source = "SELECT FROM oa.tasks WHERE name = $1 AND collects AND forgotten_at IS NULL";
    if collects && client.query_opt(is_source, &[&action.subject()])?.is_none() {
        return Ok(Put::NotASource);
    }
    expire(client)?;
    let (kind, params) = (action.kind(), action.params());
    let new = client.query_opt(
        "INSERT INTO oa.requests (kind, subject, params, requested_by) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING id",
        &[&kind, &action.subject(), &params, &error_text(by)],
    )?;
    if let Some(row) = new {
        return Ok(Put::New(row.get(0)));
    }
    let waits = client.query_opt(
        "SELECT id FROM oa.requests WHERE kind = $1 AND subject = $2 AND params = $3 AND state IN ('open', 'taken')",
        &[&kind, &action.subject(), &params],
    )?;
    match waits {
        Some(row) => Ok(Put::Waits(row.get(0))),
        // Done meanwhile.
        None => put(client, action, by),
    }
}

/// A request that this program carries out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Its number.
    pub id: i64,
    /// What is asked for.
    pub action: Action,
    /// Who asked.
    pub requested_by: String,
    attempt: i32,
}

/// Takes the oldest that waits of these kinds about these subjects, and nothing of a task that runs now. It must be ended, or
/// [renewed](renew), before `lease` is over. One at a time: what waits for the end of another would lose its lease, as if a program had
/// been killed at it.
///
/// # Errors
/// When PostgreSQL fails.
pub fn take(
    client: &mut impl GenericClient,
    kinds: &[&str],
    subjects: &[&str],
    host: &str,
    lease: Duration,
) -> Result<Option<Taken>, postgres::Error> {
    let waits = "SELECT EXISTS (SELECT FROM oa.requests WHERE state IN ('open', 'taken'))";
    if !client.query_one(waits, &[])?.get::<_, bool>(0) {
        return Ok(None);
    }
    expire(client)?;
    client.execute(
        &format!(
            "UPDATE oa.requests r SET state = 'failed', ended_at = now(), result = 'the programs that were at it were killed'
             WHERE state = 'taken' AND leased_until < now() AND tries >= $1 AND NOT {RUNS}"
        ),
        &[&TRIES],
    )?;
    let row = client.query_opt(
        &format!(
            "WITH due AS (
               SELECT id FROM oa.requests r WHERE kind = ANY($1) AND subject = ANY($2) AND (state = 'open' OR (state = 'taken' AND leased_until < now()))
                 AND NOT {RUNS}
               ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
             UPDATE oa.requests r SET state = 'taken', taken_by = $3, leased_until = now() + make_interval(secs => $4), tries = tries + 1
             FROM due WHERE r.id = due.id RETURNING r.id, r.kind, r.subject, r.params, r.requested_by, r.tries"
        ),
        &[&kinds, &subjects, &host, &lease.as_secs_f64()],
    )?;
    Ok(row.and_then(|row| {
        Some(Taken {
            id: row.get(0),
            action: Action::stored(row.get(1), row.get(2), &row.get(3))?,
            requested_by: row.get(4),
            attempt: row.get(5),
        })
    }))
}

/// One that a program took and lost expires as well when no other has taken it for as long: its source may be gone since, and whoever asks
/// anew must not wait for it.
fn expire(client: &mut impl GenericClient) -> Result<(), postgres::Error> {
    client.execute(
        &format!(
            "UPDATE oa.requests r SET state = 'expired', ended_at = now(), result = '{NOBODY}'
             WHERE state = 'open' AND requested_at < now() - interval '{EXPIRES}' OR state = 'taken' AND leased_until < now() - interval '{EXPIRES}' AND NOT {RUNS}"
        ),
        &[],
    )?;
    Ok(())
}

/// Keeps a request that takes longer.
///
/// # Errors
/// When PostgreSQL fails.
pub fn renew(
    client: &mut impl GenericClient,
    taken: &Taken,
    lease: Duration,
) -> Result<(), postgres::Error> {
    client.execute(
        "UPDATE oa.requests SET leased_until = now() + make_interval(secs => $3) WHERE id = $1 AND tries = $2 AND state = 'taken'",
        &[&taken.id, &taken.attempt, &lease.as_secs_f64()],
    )?;
    Ok(())
}

/// Ends a request: whether what was asked for was done, by which run, and what is to be said of it. Does nothing when another program
/// has it by now.
///
/// # Errors
/// When PostgreSQL fails.
pub fn end(
    client: &mut impl GenericClient,
    taken: &Taken,
    done: bool,
    run: Option<Uuid>,
    result: &str,
) -> Result<(), postgres::Error> {
    let state = if done { "done" } else { "failed" };
    client.execute(
        "UPDATE oa.requests SET state = $3, ended_at = now(), leased_until = NULL, run_id = $4, result = $5
         WHERE id = $1 AND tries = $2 AND state = 'taken'",
        &[&taken.id, &taken.attempt, &state, &run, &error_text(result)],
    )?;
    Ok(())
}

/// A request as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its number.
    pub id: i64,
    /// `run`, `backfill` or `test_channel`.
    pub kind: String,
    /// The task or the channel.
    pub subject: String,
    /// `day`, or `from` and `to`.
    pub params: Value,
    /// Who asked.
    pub requested_by: String,
    /// When.
    pub requested_at: DateTime<Utc>,
    /// `open`, `taken`, `done`, `failed` or `expired`.
    pub state: String,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// The last run that came of it.
    pub run: Option<Uuid>,
    /// What is to be said of its end.
    pub result: Option<String>,
}

/// The last requests, of one task or channel or of all; newest first.
///
/// # Errors
/// When PostgreSQL fails.
pub fn recent(
    client: &mut impl GenericClient,
    subject: Option<&str>,
    limit: i64,
) -> Result<Vec<Request>, postgres::Error> {
    // Where no program is started any more, none marks it as given up.
    let rows = client.query(
        &format!(
            "SELECT id, kind, subject, params, requested_by, requested_at, CASE WHEN is_over THEN 'expired' ELSE state END,
                    CASE WHEN is_over THEN requested_at + interval '{EXPIRES}' ELSE ended_at END, run_id,
                    CASE WHEN is_over THEN '{NOBODY}' ELSE result END
             FROM oa.requests, LATERAL (SELECT state = 'open' AND requested_at < now() - interval '{EXPIRES}' AS is_over) o
             WHERE $1::text IS NULL OR subject = $1 ORDER BY id DESC LIMIT $2"
        ),
        &[&subject, &limit],
    )?;
    let request = |row: &postgres::Row| Request {
        id: row.get(0),
        kind: row.get(1),
        subject: row.get(2),
        params: row.get(3),
        requested_by: row.get(4),
        requested_at: row.get(5),
        state: row.get(6),
        ended_at: row.get(7),
        run: row.get(8),
        result: row.get(9),
    };
    Ok(rows.iter().map(request).collect())
}
