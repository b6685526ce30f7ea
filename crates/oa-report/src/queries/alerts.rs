//! Open incidents, alerts, and who acknowledged what.

use chrono::{DateTime, Utc};
use oa_core::base::secrets::redact;
use postgres::types::Json;
use postgres::{Client, GenericClient};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::{Result, some_text, text};

/// An open incident.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Incident {
    /// What identifies the incident: rule and task, or rule and machine.
    pub(crate) fingerprint: String,
    /// The rule that found it.
    pub(crate) rule: String,
    /// The task it is about.
    pub(crate) task: Option<String>,
    /// info, warning or critical.
    pub(crate) severity: String,
    /// One line.
    pub(crate) title: String,
    /// The whole message, with what to do.
    pub(crate) body: String,
    /// When it was first reported (UTC).
    pub(crate) since: DateTime<Utc>,
    /// When it was last reported (UTC).
    pub(crate) notified_at: DateTime<Utc>,
    /// The run that caused it.
    pub(crate) run_id: Option<Uuid>,
    /// It is recorded and sent to nobody.
    pub(crate) silenced: bool,
    /// Who acknowledged it.
    pub(crate) acknowledged_by: Option<String>,
    /// What they said.
    pub(crate) note: Option<String>,
}

/// One alert.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct AlertEntry {
    /// The alert.
    pub(crate) id: Uuid,
    /// The incident it belongs to.
    pub(crate) fingerprint: String,
    /// The rule that found it.
    pub(crate) rule: String,
    /// The task it is about.
    pub(crate) task: Option<String>,
    /// The run that caused it.
    pub(crate) run_id: Option<Uuid>,
    /// info, warning or critical.
    pub(crate) severity: String,
    /// problem, recovery or message.
    pub(crate) kind: String,
    /// One line.
    pub(crate) title: String,
    /// The whole message.
    pub(crate) body: String,
    /// When (UTC).
    pub(crate) created_at: DateTime<Utc>,
    /// Whether every channel has it.
    pub(crate) settled: bool,
    /// It was sent to nobody.
    pub(crate) silenced: bool,
    /// Each channel and how far it is: pending, sending, sent or failed.
    pub(crate) deliveries: Vec<Delivery>,
}

/// An alert on one channel.
#[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize, JsonSchema)]
pub(crate) struct Delivery {
    /// The channel.
    pub(crate) channel: String,
    /// pending, sending, sent or failed.
    pub(crate) state: String,
    /// How often it was tried.
    pub(crate) tries: i32,
    /// What the channel said.
    pub(crate) error: Option<String>,
}

/// Alerts that wait to be sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Waiting {
    /// How many.
    pub(crate) alerts: i64,
    /// Since when the oldest of them waits (UTC).
    pub(crate) since: Option<DateTime<Utc>>,
}

/// Open incidents: the worst first, those longest open first, acknowledged ones last.
pub(crate) fn open(client: &mut impl GenericClient) -> Result<Vec<Incident>> {
    let rows = client.query(
        "SELECT o.fingerprint, o.rule, o.task, o.severity, left(o.title, 8000), left(a.body, 8000), o.since, o.told_at, a.run_id, o.silenced_by IS NOT NULL, o.taken_on_by, o.note
         FROM oa.troubles o, LATERAL (SELECT body, run_id FROM oa.alerts a WHERE a.fingerprint = o.fingerprint ORDER BY a.seq DESC LIMIT 1) a
         ORDER BY o.taken_on_by IS NOT NULL, o.severity <> 'critical', o.since",
        &[],
    )?;
    let incident = |row: &postgres::Row| Incident {
        fingerprint: row.get(0),
        rule: row.get(1),
        task: row.get(2),
        severity: row.get(3),
        title: text(row, 4),
        body: text(row, 5),
        since: row.get(6),
        notified_at: row.get(7),
        run_id: row.get(8),
        silenced: row.get(9),
        acknowledged_by: row.get(10),
        note: some_text(row, 11),
    };
    Ok(rows.iter().map(incident).collect())
}

/// Alerts, newest first, and the id before which the next page begins.
pub(crate) fn list(
    client: &mut impl GenericClient,
    before: Option<Uuid>,
    limit: u16,
) -> Result<(Vec<AlertEntry>, Option<Uuid>)> {
    let rows = client.query(
        "SELECT a.id, a.fingerprint, a.rule, a.task, a.run_id, a.severity, a.kind, left(a.title, 8000), left(a.body, 8000), a.created_at, a.settled_at IS NOT NULL,
                a.silenced_by IS NOT NULL,
                coalesce((SELECT jsonb_agg(jsonb_build_object('channel', d.channel, 'state', d.state, 'tries', d.tries, 'error', left(d.last_error, 4000)) ORDER BY d.channel)
                          FROM oa.deliveries d WHERE d.alert_id = a.id), '[]')
         FROM oa.alerts a WHERE $1::uuid IS NULL OR a.seq < (SELECT b.seq FROM oa.alerts b WHERE b.id = $1) ORDER BY a.seq DESC LIMIT $2",
        &[&before, &(i64::from(limit) + 1)],
    )?;
    let entry = |row: &postgres::Row| -> Result<AlertEntry> {
        let Json(mut deliveries): Json<Vec<Delivery>> = row.try_get(12)?;
        for delivery in &mut deliveries {
            delivery.error = delivery.error.take().map(|error| redact(&error));
        }
        Ok(AlertEntry {
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
            deliveries,
        })
    };
    let mut alerts = rows
        .iter()
        .map(entry)
        .collect::<Result<Vec<AlertEntry>>>()?;
    let more = alerts.len() > usize::from(limit);
    alerts.truncate(usize::from(limit));
    let next = alerts.last().map(|a| a.id).filter(|_| more);
    Ok((alerts, next))
}

/// Alerts that no channel has, or not all.
pub(crate) fn waiting(client: &mut impl GenericClient) -> Result<Waiting> {
    let row = client.query_one(
        "SELECT count(*), min(created_at) FROM oa.alerts WHERE settled_at IS NULL",
        &[],
    )?;
    Ok(Waiting {
        alerts: row.get(0),
        since: row.get(1),
    })
}

/// Acknowledges an open incident: it is not repeated until it is resolved. Returns whether there is one.
pub(crate) fn acknowledge(
    client: &mut Client,
    fingerprint: &str,
    by: &str,
    note: &str,
) -> Result<bool> {
    let changed = client.execute(
        "INSERT INTO oa.acks (fingerprint, by, note) SELECT fingerprint, $2, $3 FROM oa.troubles WHERE fingerprint = $1
         ON CONFLICT (fingerprint) DO UPDATE SET by = excluded.by, note = excluded.note, acked_at = now()",
        &[&fingerprint, &by, &note],
    )?;
    Ok(changed > 0)
}
