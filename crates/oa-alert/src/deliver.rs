//! Delivery from the outbox.
//!
//! ```text
//! claim   state sending, leased for a minute            one transaction
//! send    to the robot
//! record  sent, or pending again with the next time     one transaction
//! ```
//! Killed between send and record, the lease runs out and the message is sent once more, marked as a possible repeat. Within one
//! fingerprint a channel gets alerts in their order: a later one waits until the earlier one is sent or given up.

use std::time::Duration;

use oa_core::alerts::{Alert, Severity};
use oa_core::config::Locale;
use oa_core::failpoint;
use oa_core::runs::Recorder;
use oa_core::spool::SpoolError;
use postgres::Client;
use uuid::Uuid;

use crate::channels::{Channel, SendError};
use crate::render::{Message, digest, mark_repeat};

/// How long a sender may take between claim and record, in seconds.
const LEASE_SECONDS: f64 = 60.0;
/// A channel that has more than this waiting gets them as one message, to stay below the robots' limits.
const DIGEST_ABOVE: usize = 5;
/// Most messages that go into one digest.
const DIGEST_MOST: i64 = 200;
/// A message that could not be delivered for this long is given up.
const GIVE_UP: Duration = Duration::from_secs(24 * 3600);

/// What became of one alert on one channel.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The alert's title.
    pub title: String,
    /// The channel.
    pub channel: String,
    /// How often it was tried.
    pub tries: i32,
    /// Why it was not taken; `None` when it was.
    pub error: Option<String>,
}

struct Claimed {
    alert: Uuid,
    tries: i32,
    age: Duration,
    message: Message,
}

/// Sends what is due to all channels.
///
/// # Errors
/// When PostgreSQL fails. A robot that refuses is no error here.
pub fn flush(
    client: &mut Client,
    channels: &[Channel],
    configured: &[String],
    locale: Locale,
) -> Result<Vec<Delivery>, postgres::Error> {
    client.execute(
        "INSERT INTO oa.deliveries (alert_id, channel, state)
         SELECT a.id, c, 'pending' FROM oa.alerts a, unnest($1::text[]) c WHERE a.settled_at IS NULL ON CONFLICT DO NOTHING",
        &[&configured],
    )?;
    let mut done = Vec::new();
    for channel in channels {
        while let Some(claimed) = claim(client, channel, locale)? {
            failpoint::hit("alert.claimed");
            let result = channel.send(&combine(&claimed, locale));
            failpoint::hit("alert.sent");
            record(client, channel, &claimed, &result)?;
            let error = result.as_ref().err().map(ToString::to_string);
            done.extend(claimed.into_iter().map(|c| Delivery {
                title: c.message.title,
                channel: channel.name.clone(),
                tries: c.tries,
                error: error.clone(),
            }));
            if result.is_err() {
                break;
            }
        }
    }
    settle(client, configured)?;
    Ok(done)
}

fn combine(claimed: &[Claimed], locale: Locale) -> Message {
    match claimed {
        [one] => one.message.clone(),
        many => digest(
            &many.iter().map(|c| c.message.clone()).collect::<Vec<_>>(),
            locale,
        ),
    }
}

/// Claims the oldest due message of a channel, or all of them when many wait. `None` when nothing is due.
fn claim(
    client: &mut Client,
    channel: &Channel,
    locale: Locale,
) -> Result<Option<Vec<Claimed>>, postgres::Error> {
    let mut tx = client.transaction()?;
    // One claim at a time per channel, or a second sender could overtake the first within a fingerprint.
    tx.execute(
        "SELECT pg_advisory_xact_lock(hashtext('oa-alert:' || $1))",
        &[&channel.name],
    )?;
    let rows = tx.query(
        "SELECT d.alert_id, d.tries + 1, d.state = 'sending', a.title, a.body, a.severity, a.kind,
                greatest(extract(epoch FROM now() - a.created_at), 0)::float8
         FROM oa.deliveries d JOIN oa.alerts a ON a.id = d.alert_id
         WHERE d.channel = $1 AND d.next_try_at <= now()
           AND (d.state = 'pending' OR (d.state = 'sending' AND d.leased_until <= now()))
           AND NOT EXISTS (
             SELECT 1 FROM oa.deliveries e JOIN oa.alerts b ON b.id = e.alert_id
             WHERE e.channel = d.channel AND b.fingerprint = a.fingerprint AND b.id < a.id AND e.state IN ('pending', 'sending')
               AND NOT (e.next_try_at <= now() AND (e.state = 'pending' OR e.leased_until <= now())))
         ORDER BY d.alert_id LIMIT $2 FOR UPDATE OF d",
        &[&channel.name, &DIGEST_MOST],
    )?;
    let take = if rows.len() > DIGEST_ABOVE {
        rows.len()
    } else {
        rows.len().min(1)
    };
    let claimed: Vec<Claimed> = rows
        .iter()
        .take(take)
        .map(|row| {
            let message = Message {
                title: row.get(3),
                body: row.get(4),
                severity: severity(row.get(5)),
                recovery: row.get::<_, &str>(6) == "recovery",
            };
            let repeat: bool = row.get(2);
            Claimed {
                alert: row.get(0),
                tries: row.get(1),
                age: Duration::from_secs_f64(row.get(7)),
                message: if repeat {
                    mark_repeat(message, locale)
                } else {
                    message
                },
            }
        })
        .collect();
    let ids: Vec<Uuid> = claimed.iter().map(|c| c.alert).collect();
    tx.execute(
        "UPDATE oa.deliveries SET state = 'sending', tries = tries + 1, leased_until = now() + make_interval(secs => $3)
         WHERE channel = $1 AND alert_id = ANY($2)",
        &[&channel.name, &ids, &LEASE_SECONDS],
    )?;
    tx.commit()?;
    Ok((!claimed.is_empty()).then_some(claimed))
}

fn severity(name: &str) -> Severity {
    match name {
        "critical" => Severity::Critical,
        "warning" => Severity::Warning,
        _ => Severity::Info,
    }
}

fn record(
    client: &mut Client,
    channel: &Channel,
    claimed: &[Claimed],
    result: &Result<(), SendError>,
) -> Result<(), postgres::Error> {
    let mut tx = client.transaction()?;
    for one in claimed {
        match result {
            Ok(()) => {
                tx.execute(
                    "UPDATE oa.deliveries SET state = 'sent', sent_at = now(), leased_until = NULL, last_error = NULL
                     WHERE channel = $1 AND alert_id = $2",
                    &[&channel.name, &one.alert],
                )?;
            }
            Err(error) => {
                // An answer that was lost leaves the state as if this process had died: the next try says that it may be a repeat.
                let state = match error {
                    _ if one.age > GIVE_UP => "failed",
                    e if e.unknown => "sending",
                    _ => "pending",
                };
                tx.execute(
                    "UPDATE oa.deliveries SET state = $3, leased_until = now(), last_error = $4, next_try_at = now() + make_interval(secs => $5)
                     WHERE channel = $1 AND alert_id = $2",
                    &[&channel.name, &one.alert, &state, &error.message, &backoff(one.tries).as_secs_f64()],
                )?;
            }
        }
    }
    if let Err(SendError {
        pause: Some(pause), ..
    }) = result
    {
        // The robot takes nothing from anybody now: the others need not find that out one by one.
        tx.execute(
            "UPDATE oa.deliveries SET next_try_at = greatest(next_try_at, now() + make_interval(secs => $2))
             WHERE channel = $1 AND state = 'pending'",
            &[&channel.name, &pause.as_secs_f64()],
        )?;
    }
    tx.commit()
}

/// The wait after a failed try.
fn backoff(tries: i32) -> Duration {
    Duration::from_secs(match tries {
        ..=1 => 10,
        2 => 30,
        3 => 60,
        4 => 300,
        _ => 900,
    })
}

/// An alert is settled when every configured channel has it or was given up.
fn settle(client: &mut Client, configured: &[String]) -> Result<(), postgres::Error> {
    client.execute(
        "UPDATE oa.alerts a SET settled_at = now()
         WHERE settled_at IS NULL AND cardinality($1::text[]) > 0 AND NOT EXISTS (
           SELECT 1 FROM unnest($1::text[]) c LEFT JOIN oa.deliveries d ON d.alert_id = a.id AND d.channel = c
           WHERE d.state IS NULL OR d.state IN ('pending', 'sending'))",
        &[&configured],
    )?;
    Ok(())
}

/// Sends what waits in the spool, while PostgreSQL is away. The drain carries over what was sent.
///
/// # Errors
/// When the spool fails.
pub fn flush_spool(recorder: &Recorder, channels: &[Channel]) -> Result<Vec<Delivery>, SpoolError> {
    let mut spool = recorder.spool()?;
    // One sender at a time: the spool has no leases.
    let Some(_lock) = recorder.state().try_lock("spool-alerts")? else {
        return Ok(Vec::new());
    };
    let mut done = Vec::new();
    for (alert, sent) in spool.alerts()? {
        for channel in channels.iter().filter(|c| !sent.contains(&c.name)) {
            let result = channel.send(&message_of(&alert));
            if result.is_ok() {
                spool.mark_sent(alert.id, &channel.name)?;
            }
            let error = result.err().map(|e| e.to_string());
            done.push(Delivery {
                title: alert.title.clone(),
                channel: channel.name.clone(),
                tries: 1,
                error,
            });
        }
    }
    Ok(done)
}

fn message_of(alert: &Alert) -> Message {
    Message {
        title: alert.title.clone(),
        body: alert.body.clone(),
        severity: alert.severity,
        recovery: alert.kind == oa_core::alerts::Kind::Recovery,
    }
}
