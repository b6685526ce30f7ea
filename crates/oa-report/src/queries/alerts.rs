//! Open incidents, alerts, and who acknowledged what.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use oa_core::base::secrets::redact;
use oa_core::base::text::cut;
use oa_core::journal::incidents;
use oa_core::model::Event;
use oa_wording::{Text, Wording};
use postgres::types::Json;
use postgres::{Client, GenericClient};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::{Asked, Result, some_text, text};

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
    /// What happened last.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) event: Event,
    /// One line, in the configuration's language.
    pub(crate) title: String,
    /// The whole message, with what to do.
    pub(crate) body: String,
    /// When it was first reported (UTC).
    pub(crate) since: DateTime<Utc>,
    /// When it was last reported (UTC).
    pub(crate) notified_at: DateTime<Utc>,
    /// The run that caused it.
    pub(crate) run_id: Option<Uuid>,
    /// A silence holds: what is to be said of it is recorded and sent to nobody.
    pub(crate) silenced: bool,
    /// Who acknowledged it.
    pub(crate) acknowledged_by: Option<String>,
    /// What they said.
    pub(crate) note: Option<String>,
    /// The incident (fingerprint) from which it follows: nobody is notified of it by itself while that is open.
    pub(crate) follows: Option<String>,
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
    /// What happened.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) event: Event,
    /// One line, in the configuration's language.
    pub(crate) title: String,
    /// The whole message.
    pub(crate) body: String,
    /// When (UTC).
    pub(crate) created_at: DateTime<Utc>,
    /// Whether every channel has it.
    pub(crate) settled: bool,
    /// It was sent to nobody.
    pub(crate) silenced: bool,
    /// The incident (fingerprint) from which it follows: it was sent to nobody by itself while that was open.
    pub(crate) follows: Option<String>,
    /// That incident in one line.
    pub(crate) follows_title: Option<String>,
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

/// A longer text is cut: a message of a script may have a megabyte.
const LONGEST_BODY: usize = 8000;

/// What an event says, for a page or an answer.
pub(crate) fn words(event: &Event, wording: &Wording) -> Text {
    let text = wording.text(event);
    Text {
        title: redact(&text.title),
        body: cut(&redact(&text.body), LONGEST_BODY),
    }
}

/// Open incidents: the worst first, those longest open first, acknowledged ones last.
pub(crate) fn open(client: &mut impl Asked, wording: &Wording) -> Result<Vec<Incident>> {
    let rows = client.query(
        "SELECT i.fingerprint, i.rule, i.task, i.severity, i.opened_at, i.notified_at, a.run_id,
                EXISTS (SELECT FROM oa.silences s WHERE oa.silence_holds(s, now()) AND (s.id = a.silenced_by
                        OR oa.silence_covers(s, i.fingerprint, i.task, i.rule, a.event->>'host'))), i.acknowledged_by, i.note,
                a.event, left(a.title, 8000), left(a.body, 8000),
                (SELECT r.fingerprint FROM oa.incidents r WHERE r.fingerprint = a.follows AND r.resolved_at IS NULL)
         FROM oa.incidents i LEFT JOIN oa.alerts a ON a.id = i.last_alert WHERE i.resolved_at IS NULL
         ORDER BY i.acknowledged_at IS NOT NULL, i.severity <> 'critical', i.opened_at, i.fingerprint",
        &[],
    )?;
    let incident = |row: &postgres::Row| {
        let (fingerprint, rule): (String, String) = (row.get(0), row.get(1));
        let event = incidents::event_of(row, 10, &rule, &fingerprint);
        let words = words(&event, wording);
        Incident {
            fingerprint,
            rule,
            task: row.get(2),
            severity: row.get(3),
            event,
            title: words.title,
            body: words.body,
            since: row.get(4),
            notified_at: row.get(5),
            run_id: row.get(6),
            silenced: row.get(7),
            acknowledged_by: row.get(8),
            note: some_text(row, 9),
            follows: row.get(13),
        }
    };
    Ok(rows.iter().map(incident).collect())
}

/// Alerts, newest first, and the id before which the next page begins.
pub(crate) fn list(
    client: &mut impl GenericClient,
    wording: &Wording,
    before: Option<Uuid>,
    limit: u16,
) -> Result<(Vec<AlertEntry>, Option<Uuid>)> {
    let rows = client.query(
        "SELECT a.id, a.fingerprint, a.rule, a.task, a.run_id, a.severity, a.kind, a.event, left(a.title, 8000), left(a.body, 8000), a.created_at, a.settled_at IS NOT NULL,
                a.silenced_by IS NOT NULL,
                coalesce((SELECT jsonb_agg(jsonb_build_object('channel', d.channel, 'state', d.state, 'tries', d.tries, 'error', left(d.last_error, 4000)) ORDER BY d.channel)
                          FROM oa.deliveries d WHERE d.alert_id = a.id), '[]'),
                a.follows, r.rule, h.event, left(h.title, 8000), left(h.body, 8000)
         FROM oa.alerts a LEFT JOIN oa.incidents r ON r.fingerprint = a.follows LEFT JOIN oa.alerts h ON h.id = r.last_alert
         WHERE $1::uuid IS NULL OR a.seq < (SELECT b.seq FROM oa.alerts b WHERE b.id = $1) ORDER BY a.seq DESC LIMIT $2",
        &[&before, &(i64::from(limit) + 1)],
    )?;
    let entry = |row: &postgres::Row| -> Result<AlertEntry> {
        let Json(mut deliveries): Json<Vec<Delivery>> = row.try_get(13)?;
        for delivery in &mut deliveries {
            delivery.error = delivery.error.take().map(|error| redact(&error));
        }
        let (fingerprint, rule): (String, String) = (row.get(1), row.get(2));
        let event = incidents::event_of(row, 7, &rule, &fingerprint);
        let follows: Option<String> = row.get(14);
        let root = follows.as_ref().zip(row.get::<_, Option<String>>(15));
        let follows_title = root.map(|(fingerprint, rule)| {
            let root = incidents::event_of(row, 16, &rule, fingerprint);
            words(&root, wording).title
        });
        let words = words(&event, wording);
        Ok(AlertEntry {
            follows,
            follows_title,
            id: row.get(0),
            fingerprint,
            rule,
            task: row.get(3),
            run_id: row.get(4),
            severity: row.get(5),
            kind: row.get(6),
            event,
            title: words.title,
            body: words.body,
            created_at: row.get(10),
            settled: row.get(11),
            silenced: row.get(12),
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
pub(crate) fn waiting(client: &mut impl Asked) -> Result<Waiting> {
    let row = client.query_one(
        "SELECT count(*), min(created_at) FROM oa.alerts WHERE settled_at IS NULL AND follows IS NULL",
        &[],
    )?;
    Ok(Waiting {
        alerts: row.get(0),
        since: row.get(1),
    })
}

/// Takes an acknowledgement back: the incident is reported again as before.
pub(crate) fn unacknowledge(client: &mut Client, fingerprint: &str) -> Result<()> {
    incidents::unacknowledge(client, fingerprint).map(drop)
}

/// What nobody is to be notified of for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Silence {
    pub(crate) task: Option<String>,
    pub(crate) rule: Option<String>,
    pub(crate) fingerprint: Option<String>,
    pub(crate) hours: u32,
    pub(crate) reason: String,
}

pub(crate) fn silence(client: &mut Client, silence: &Silence, by: &str, zone: Tz) -> Result<()> {
    let Silence {
        task,
        rule,
        fingerprint,
        hours,
        reason,
    } = silence;
    client.execute(
        "INSERT INTO oa.silences (task, rule, by, reason, starts_at, until, zone, fingerprint)
         VALUES ($1, $2, $3, $4, now(), now() + make_interval(hours => $5), $6, $7)",
        &[
            task,
            rule,
            &by,
            reason,
            &hours.cast_signed(),
            &zone.name(),
            fingerprint,
        ],
    )?;
    Ok(())
}

pub(crate) fn end_silence(client: &mut Client, id: i64) -> Result<()> {
    client.execute(
        "UPDATE oa.silences SET until = now() WHERE id = $1 AND until > now()",
        &[&id],
    )?;
    Ok(())
}

/// A silence that holds or will.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct HeldSilence {
    /// Its number.
    pub(crate) id: i64,
    /// The tasks; `*` stands for anything, null for any.
    pub(crate) task: Option<String>,
    /// The rules.
    pub(crate) rule: Option<String>,
    /// The machines.
    pub(crate) host: Option<String>,
    /// The incident; null for any.
    pub(crate) fingerprint: Option<String>,
    /// Whose it is.
    pub(crate) by: String,
    /// Why.
    pub(crate) reason: String,
    /// When it begins (UTC).
    pub(crate) starts_at: DateTime<Utc>,
    /// When it ends (UTC).
    pub(crate) until: DateTime<Utc>,
    /// The hours of each day at which it holds; null for all.
    pub(crate) daily: Option<String>,
    /// Only on these days of the week, 1 for Monday; null for each.
    pub(crate) weekdays: Option<Vec<i32>>,
    /// Alerts that it has kept from people so far.
    pub(crate) hidden: i64,
}

/// Silences that hold or will, by their number.
pub(crate) fn silences(client: &mut impl GenericClient) -> Result<Vec<HeldSilence>> {
    let rows = client.query(
        "SELECT s.id, s.task, s.rule, s.host, s.by, left(s.reason, 8000), s.starts_at, s.until,
                to_char(s.daily_from, 'HH24:MI') || '-' || to_char(s.daily_until, 'HH24:MI'),
                (SELECT count(*) FROM oa.alerts a WHERE a.silenced_by = s.id AND a.created_at >= s.starts_at AND a.kind = 'problem'), s.weekdays, s.fingerprint
         FROM oa.silences s WHERE s.until > now() ORDER BY s.id LIMIT 200",
        &[],
    )?;
    let silence = |row: &postgres::Row| HeldSilence {
        id: row.get(0),
        task: row.get(1),
        rule: row.get(2),
        host: row.get(3),
        by: row.get(4),
        reason: text(row, 5),
        starts_at: row.get(6),
        until: row.get(7),
        daily: row.get(8),
        hidden: row.get(9),
        weekdays: row.get(10),
        fingerprint: row.get(11),
    };
    Ok(rows.iter().map(silence).collect())
}

/// Acknowledges an open incident: it is not repeated until it is resolved. Returns whether there is one.
pub(crate) fn acknowledge(
    client: &mut Client,
    fingerprint: &str,
    by: &str,
    note: &str,
) -> Result<bool> {
    Ok(!incidents::acknowledge(client, fingerprint, by, note)?.is_empty())
}
