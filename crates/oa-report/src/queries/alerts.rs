//! What is wrong and not over, what was told, and who has taken it on.

use chrono::{DateTime, Utc};
use postgres::{Client, GenericClient};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::{Result, redacted, some_text, text};

/// A trouble that is not over.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Trouble {
    /// What belongs to one trouble: rule and task, or rule and machine.
    pub fingerprint: String,
    /// The rule that found it.
    pub rule: String,
    /// The task it is about.
    pub task: Option<String>,
    /// info, warning or critical.
    pub severity: String,
    /// One line.
    pub title: String,
    /// The whole message, with what to do.
    pub body: String,
    /// When it was told first (UTC).
    pub since: DateTime<Utc>,
    /// When it was told last (UTC).
    pub told_at: DateTime<Utc>,
    /// The run that caused it.
    pub run_id: Option<Uuid>,
    /// It is recorded and sent to nobody.
    pub silenced: bool,
    /// Who has taken it on.
    pub taken_on_by: Option<String>,
    /// What they said.
    pub note: Option<String>,
}

/// One alert.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Told {
    /// The alert.
    pub id: Uuid,
    /// What belongs to one trouble.
    pub fingerprint: String,
    /// The rule that found it.
    pub rule: String,
    /// The task it is about.
    pub task: Option<String>,
    /// The run that caused it.
    pub run_id: Option<Uuid>,
    /// info, warning or critical.
    pub severity: String,
    /// problem, recovery or message.
    pub kind: String,
    /// One line.
    pub title: String,
    /// The whole message.
    pub body: String,
    /// When (UTC).
    pub created_at: DateTime<Utc>,
    /// Whether every channel has it.
    pub settled: bool,
    /// It was sent to nobody.
    pub silenced: bool,
    /// Each channel and how far it is: pending, sending, sent or failed.
    pub deliveries: Vec<Delivery>,
}

/// An alert on one channel.
#[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize, JsonSchema)]
pub struct Delivery {
    /// The channel.
    pub channel: String,
    /// pending, sending, sent or failed.
    pub state: String,
    /// How often it was tried.
    pub tries: i32,
    /// What the channel said.
    pub error: Option<String>,
}

/// Alerts that wait to be sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, JsonSchema)]
pub struct Waiting {
    /// How many.
    pub alerts: i64,
    /// Since when the oldest of them waits (UTC).
    pub since: Option<DateTime<Utc>>,
}

/// Troubles that are not over: the worst first, those longest open first.
///
/// # Errors
/// When PostgreSQL fails.
pub fn open(client: &mut impl GenericClient) -> Result<Vec<Trouble>> {
    let rows = client.query(
        "SELECT o.fingerprint, o.rule, o.task, o.severity, left(o.title, 8000), left(a.body, 8000), o.since, o.told_at, a.run_id, o.silenced_by IS NOT NULL, o.taken_on_by, o.note
         FROM oa.troubles o, LATERAL (SELECT body, run_id FROM oa.alerts a WHERE a.fingerprint = o.fingerprint ORDER BY a.seq DESC LIMIT 1) a
         ORDER BY o.taken_on_by IS NOT NULL, o.severity <> 'critical', o.since",
        &[],
    )?;
    let trouble = |row: &postgres::Row| Trouble {
        fingerprint: row.get(0),
        rule: row.get(1),
        task: row.get(2),
        severity: row.get(3),
        title: text(row, 4),
        body: text(row, 5),
        since: row.get(6),
        told_at: row.get(7),
        run_id: row.get(8),
        silenced: row.get(9),
        taken_on_by: row.get(10),
        note: some_text(row, 11),
    };
    Ok(rows.iter().map(trouble).collect())
}

/// Alerts, newest first, and the id before which the next page begins.
///
/// # Errors
/// When PostgreSQL fails.
pub fn told(
    client: &mut impl GenericClient,
    before: Option<Uuid>,
    limit: u16,
) -> Result<(Vec<Told>, Option<Uuid>)> {
    let rows = client.query(
        "SELECT a.id, a.fingerprint, a.rule, a.task, a.run_id, a.severity, a.kind, left(a.title, 8000), left(a.body, 8000), a.created_at, a.settled_at IS NOT NULL,
                a.silenced_by IS NOT NULL,
                coalesce((SELECT jsonb_agg(jsonb_build_object('channel', d.channel, 'state', d.state, 'tries', d.tries, 'error', left(d.last_error, 4000)) ORDER BY d.channel)
                          FROM oa.deliveries d WHERE d.alert_id = a.id), '[]')
         FROM oa.alerts a WHERE $1::uuid IS NULL OR a.seq < (SELECT b.seq FROM oa.alerts b WHERE b.id = $1) ORDER BY a.seq DESC LIMIT $2",
        &[&before, &(i64::from(limit) + 1)],
    )?;
    let one = |row: &postgres::Row| Told {
        id: row.get(0),
        fingerprint: row.get(1),
        rule: row.get(2),
        task: row.get(3),
        run_id: row.get(4),
        severity: row.get(5),
        kind: row.get(6),
        title: text(row, 7),
        body: text(row, 8),
        created_at: row.get(9),
        settled: row.get(10),
        silenced: row.get(11),
        deliveries: serde_json::from_value(redacted(row.get(12))).unwrap_or_default(),
    };
    let mut alerts: Vec<Told> = rows.iter().map(one).collect();
    let more = alerts.len() > usize::from(limit);
    alerts.truncate(usize::from(limit));
    let next = alerts.last().map(|a| a.id).filter(|_| more);
    Ok((alerts, next))
}

/// Alerts that no channel has, or not all.
///
/// # Errors
/// When PostgreSQL fails.
pub fn waiting(client: &mut impl GenericClient) -> Result<Waiting> {
    let row = client.query_one(
        "SELECT count(*), min(created_at) FROM oa.alerts WHERE settled_at IS NULL",
        &[],
    )?;
    Ok(Waiting {
        alerts: row.get(0),
        since: row.get(1),
    })
}

/// Takes on an open trouble: it is not repeated until it is over. Returns whether there is one.
///
/// # Errors
/// When PostgreSQL fails.
pub fn acknowledge(client: &mut Client, fingerprint: &str, by: &str, note: &str) -> Result<bool> {
    let changed = client.execute(
        "INSERT INTO oa.acks (fingerprint, by, note) SELECT fingerprint, $2, $3 FROM oa.troubles WHERE fingerprint = $1
         ON CONFLICT (fingerprint) DO UPDATE SET by = excluded.by, note = excluded.note, acked_at = now()",
        &[&fingerprint, &by, &note],
    )?;
    Ok(changed > 0)
}
