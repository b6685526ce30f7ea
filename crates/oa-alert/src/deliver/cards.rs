//! Messages with buttons after they were sent (`oa.cards`): each is changed where it stands when its incident is acknowledged,
//! answered, or over.
//!
//! What a message shows is compared with what there is to show; whoever finds a difference claims the message for a while, asks the
//! platform, and records what it shows now. Killed in between, the next one does the same once more, which changes nothing. What was
//! sent while PostgreSQL was down is kept in the state directory until its alert is there.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use oa_core::base::links::LinkKey;
use oa_core::base::state_dir::{StateDir, write_durably};
use oa_core::base::text::error_text;
use oa_wording::Wording;
use postgres::{Client, GenericClient};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::LONGEST_WAIT;
use crate::channels::{Card, Cause, Channel, Receipt, State};

/// Platforms change a message for so long after it was sent.
const CHANGED_FOR: &str = "14 days";
/// Whoever claims a message has changed it by then.
const LEASE: Duration = Duration::from_secs(90);
/// Between two messages: platforms take some a second.
const APART: Duration = Duration::from_millis(250);
/// A platform that took no change is left alone for no longer than this, unless it asks for more.
const REST: Duration = Duration::from_secs(60);
/// A file of a message whose alert never came is given up.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// A message with buttons.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Noted {
    channel: String,
    message: String,
    alert: Uuid,
    card: Card,
}

impl Noted {
    pub(super) fn of(channel: &str, alert: Uuid, receipt: &Receipt) -> Self {
        Self {
            channel: channel.to_owned(),
            message: receipt.message.clone(),
            alert,
            card: receipt.card.unsigned(),
        }
    }
}

/// Notes a message. Sent once more it is the same.
pub(super) fn note(client: &mut impl GenericClient, noted: &Noted) -> Result<(), postgres::Error> {
    let content = serde_json::to_value(&noted.card).unwrap_or_default();
    client.execute(
        "INSERT INTO oa.cards (channel, message, alert, content) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        &[&noted.channel, &noted.message, &noted.alert, &content],
    )?;
    Ok(())
}

fn folder(state: &StateDir) -> PathBuf {
    state.path().join("cards")
}

/// Keeps a message until PostgreSQL is there. What cannot be kept costs only that it is not changed.
pub(super) fn keep(state: &StateDir, noted: &Noted) {
    let path = folder(state).join(format!("{}.json", Uuid::now_v7()));
    let kept = fs::create_dir_all(folder(state))
        .and_then(|()| serde_json::to_vec(noted).map_err(std::io::Error::from))
        .and_then(|text| write_durably(&path, &text));
    if let Err(e) = kept {
        tracing::warn!(
            "a message that was sent will not be changed when it is over: could not write {}: {e}",
            path.display()
        );
    }
}

/// Notes what was kept and whose alert is there by now.
fn adopt(client: &mut Client, state: &StateDir) -> Result<(), postgres::Error> {
    let Ok(files) = fs::read_dir(folder(state)) else {
        return Ok(());
    };
    for path in files.flatten().map(|f| f.path()) {
        let noted = fs::read(&path).ok();
        let noted = noted.and_then(|text| serde_json::from_slice::<Noted>(&text).ok());
        let age = fs::metadata(&path).and_then(|m| m.modified()).ok();
        let old = age.is_none_or(|at| at.elapsed().unwrap_or_default() > KEPT_FOR);
        let known = match &noted {
            None => old,
            Some(noted) => {
                let alert = "SELECT FROM oa.alerts WHERE id = $1";
                let known = client.query_opt(alert, &[&noted.alert])?.is_some();
                if known {
                    note(client, noted)?;
                }
                known || old
            }
        };
        if known && let Err(e) = fs::remove_file(&path) {
            tracing::warn!("could not remove {}: {e}", path.display());
        }
    }
    Ok(())
}

/// A message that shows something else than there is to show.
struct Outdated {
    message: String,
    card: Card,
    state: Value,
    tries: i32,
}

/// Changes the messages that show what is no more so, for no longer than `patience`. Gives how many were changed.
pub(crate) fn refresh(
    client: &mut Client,
    state: Option<&StateDir>,
    channels: &[Channel],
    wording: &Wording,
    key: Option<&LinkKey>,
    patience: Duration,
) -> Result<usize, postgres::Error> {
    let mut changed = 0;
    let end = Instant::now() + patience;
    if !channels.iter().any(Channel::has_buttons) {
        return Ok(0);
    }
    if let Some(state) = state {
        adopt(client, state)?;
    }
    for channel in channels.iter().filter(|c| c.has_buttons()) {
        while Instant::now() < end {
            let Some(outdated) = claim(client, &channel.name)? else {
                break;
            };
            let shown: State = serde_json::from_value(outdated.state.clone()).unwrap_or_default();
            let card = outdated.card.signed_again(key);
            let result = channel.update(&outdated.message, &card, &shown, wording);
            let (ends, error) = match result {
                Ok(possible) => {
                    changed += usize::from(possible);
                    (!possible || shown.over, None)
                }
                Err(e) => (false, Some(e)),
            };
            let wait = error.as_ref().map_or(Duration::ZERO, |e| {
                e.pause()
                    .unwrap_or_else(|| super::backoff(outdated.tries, Some(e)))
            });
            if let Some(e) = &error {
                tracing::warn!(
                    "a message in channel {} could not be changed: {e}",
                    channel.name
                );
            }
            client.execute(
                "UPDATE oa.cards SET shown = CASE WHEN $3::text IS NULL THEN $4 ELSE shown END, last_error = $3,
                        ended_at = CASE WHEN $5 THEN now() END,
                        next_try_at = now() + make_interval(secs => $6), tries = CASE WHEN $3::text IS NULL THEN 0 ELSE tries END
                 WHERE channel = $1 AND message = $2",
                &[
                    &channel.name,
                    &outdated.message,
                    &error.as_ref().map(|e| error_text(&e.to_string())),
                    &outdated.state,
                    &ends,
                    &wait.as_secs_f64(),
                ],
            )?;
            // The platform takes nothing now, from anybody: nor is it asked for the other messages, however many there are.
            if let Some(e) = error.filter(|e| !matches!(e.cause, Cause::Content | Cause::Unclear)) {
                let rest = e.pause().unwrap_or_else(|| wait.min(REST));
                client.execute(
                    "UPDATE oa.cards SET next_try_at = now() + make_interval(secs => $2)
                     WHERE channel = $1 AND ended_at IS NULL AND next_try_at < now() + make_interval(secs => $2)",
                    &[&channel.name, &rest.as_secs_f64()],
                )?;
                break;
            }
            std::thread::sleep(APART);
        }
    }
    Ok(changed)
}

/// Claims the oldest message of a channel that shows what is no more so.
fn claim(client: &mut Client, channel: &str) -> Result<Option<Outdated>, postgres::Error> {
    // Whatever the zone of a session, the same is the same.
    let utc = |column: &str| {
        format!(r#"to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#)
    };
    let (r_at, u_at) = (utc("r.created_at"), utc("u.used_at"));
    let row = client.query_opt(
        &format!(
            "WITH due AS (
               SELECT c.channel, c.message, s.state
               FROM oa.cards c JOIN oa.alerts a ON a.id = c.alert
               LEFT JOIN oa.incidents i ON i.fingerprint = a.fingerprint LEFT JOIN oa.alerts f ON f.id = i.first_alert,
               LATERAL (SELECT coalesce(i.resolved_at IS NULL AND f.seq <= a.seq, false) AS open) o,
               LATERAL (SELECT jsonb_strip_nulls(jsonb_build_object(
                 'over', CASE WHEN NOT o.open THEN true END,
                 'over_at', CASE WHEN NOT o.open THEN (
                   SELECT {r_at} FROM oa.alerts r WHERE r.fingerprint = a.fingerprint AND r.kind = 'recovery' AND r.seq > a.seq
                   ORDER BY r.seq LIMIT 1) END,
                 'acknowledged_by', CASE WHEN o.open THEN i.acknowledged_by END,
                 'done', (SELECT jsonb_object_agg(u.action, jsonb_build_object('by', coalesce(u.used_by, ''), 'at', {u_at}))
                          FROM oa.used_links u WHERE u.alert = c.alert AND u.channel = c.channel))) AS state) s
               WHERE c.channel = $1 AND c.ended_at IS NULL AND c.sent_at > now() - interval '{CHANGED_FOR}' AND s.state <> c.shown
                 AND c.next_try_at NOT BETWEEN now() AND now() + interval '{LONGEST_WAIT}'
               ORDER BY c.sent_at LIMIT 1 FOR UPDATE OF c SKIP LOCKED)
             UPDATE oa.cards c SET next_try_at = now() + make_interval(secs => $2), tries = c.tries + 1
             FROM due WHERE c.channel = due.channel AND c.message = due.message RETURNING c.message, c.content, due.state, c.tries"
        ),
        &[&channel, &LEASE.as_secs_f64()],
    )?;
    Ok(row.and_then(|row| {
        Some(Outdated {
            message: row.get(0),
            card: serde_json::from_value(row.get(1)).ok()?,
            state: row.get(2),
            tries: row.get(3),
        })
    }))
}
