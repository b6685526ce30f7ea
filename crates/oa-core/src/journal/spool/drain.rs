//! What waits goes into PostgreSQL: entry by entry, in order, each in a transaction of its own, and out of the file after its commit.

use std::collections::HashSet;

use chrono::TimeDelta;
use postgres::Client;
use rusqlite::{OptionalExtension, params};

use super::{ALERTS, DRAIN_LOCK, DeliveryAttempt, Record, Spool, SpoolError, decode};
use crate::base::clock;
use crate::base::failpoint;
use crate::base::supervise::ProcessId;
use crate::base::text::error_text;
use crate::journal::incidents::{self, Policy};
use crate::journal::{NOT_ARCHIVED, StoreError, store};
use crate::model::event::{Alert, Fault};
use crate::model::retry::ErrorKind;
use crate::model::run::{Outcome, RunError};
use crate::pg::upsert::UpsertError;
use crate::pg::{Meaning, Settings};

/// What a drain did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drained {
    /// Entries that are in PostgreSQL now.
    pub applied: u64,
    /// Entries that PostgreSQL refuses, with the reason: task and message.
    pub stuck: Vec<(Option<String>, String)>,
    /// Entries that something holds back for now, and those that wait behind one of their task.
    pub held_back: u64,
    /// Another process is at it, so what waits now is not known.
    pub busy: bool,
    /// Why the spool cannot be used, if so.
    pub failed: Option<String>,
}

/// A drain was cut short because the server went down again; what was applied until then stays applied.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// PostgreSQL went down.
    #[error("PostgreSQL went down while the spool was drained ({applied} entries done): {reason}")]
    Unreachable {
        /// Entries done before.
        applied: u64,
        /// What happened.
        reason: String,
    },
    /// The spool itself failed.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl Spool {
    /// Replays what waits, in order. When another process is at it already, does nothing. What was measured by this machine's clock
    /// alone is corrected by `offset`: what the server's clock is ahead of it.
    ///
    /// # Errors
    /// When PostgreSQL goes down again, or the spool fails. What PostgreSQL refuses is no error, see [`Drained::stuck`]. Where something is
    /// held back, the session waits shorter for locks from then on.
    pub fn drain(
        &mut self,
        client: &mut Client,
        offset: TimeDelta,
        policy: &Policy,
    ) -> Result<Drained, DrainError> {
        let mut drained = Drained::default();
        if self.pending()?.entries == 0 {
            return Ok(drained);
        }
        let Some(_lock) = self.state.try_lock(DRAIN_LOCK).map_err(SpoolError::from)? else {
            drained.busy = true;
            return Ok(drained);
        };
        let mut blocked: HashSet<String> = HashSet::new();
        let mut after = 0;
        while let Some((seq, task, refused_before)) = self.next(after)? {
            after = seq;
            if task.as_ref().is_some_and(|t| blocked.contains(t)) {
                drained.held_back += 1;
                continue;
            }
            let applied = self
                .read(seq)
                .map_err(|e| Refusal::Refused(e.to_string()))
                .and_then(|(record, key)| {
                    self.apply(client, record, key.as_deref(), offset, policy)
                });
            match applied {
                Ok(()) => {
                    failpoint::hit("spool.drain.before_delete");
                    self.db
                        .execute("DELETE FROM entries WHERE seq = ?1", [seq])
                        .map_err(|e| self.fail(e))?;
                    failpoint::hit("spool.drain.after_delete");
                    drained.applied += 1;
                    if refused_before {
                        resolve_stuck(client, task.as_deref().unwrap_or(ALERTS));
                    }
                }
                Err(Refusal::Unreachable(reason)) => {
                    return Err(DrainError::Unreachable {
                        applied: drained.applied,
                        reason,
                    });
                }
                // Another drain may store it; until then the later ones of its task wait behind it.
                Err(Refusal::Passing(reason)) => {
                    tracing::warn!("an entry waits on in the spool: {reason}");
                    if drained.held_back == 0 {
                        let _ = Settings::hurry(client);
                    }
                    drained.held_back += 1;
                    blocked.extend(task);
                }
                Err(Refusal::Refused(reason)) => {
                    self.db
                        .execute(
                            "UPDATE entries SET error = ?2 WHERE seq = ?1",
                            params![seq, error_text(&reason)],
                        )
                        .map_err(|e| self.fail(e))?;
                    drained.stuck.push((task.clone(), reason));
                    blocked.extend(task);
                }
            }
        }
        self.forget_old()?;
        Ok(drained)
    }

    fn next(&self, after: i64) -> Result<Option<Entry>, SpoolError> {
        self.db
            .query_row(
                "SELECT seq, task, error IS NOT NULL FROM entries WHERE seq > ?1 ORDER BY seq LIMIT 1",
                [after],
                |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)),
            )
            .optional()
            .map_err(|e| self.fail(e))
    }

    /// Only what is to be stored now is read: what waits behind it may be large.
    fn read(&self, seq: i64) -> Result<(Record, Option<String>), SpoolError> {
        let (payload, key): (Vec<u8>, _) = self
            .db
            .query_row(
                "SELECT payload, fingerprint FROM entries WHERE seq = ?1",
                [seq],
                |r| Ok((r.get(0)?, r.get(1)?)),
            )
            .map_err(|e| self.fail(e))?;
        Ok((decode(seq, &payload)?, key))
    }

    fn apply(
        &mut self,
        client: &mut Client,
        record: Record,
        key: Option<&str>,
        offset: TimeDelta,
        policy: &Policy,
    ) -> Result<(), Refusal> {
        let now = clock::now() + offset;
        match record {
            Record::Started(mut start) => {
                start.on_server_clock(offset);
                start.started_at = start.started_at.min(now);
                start.compare_days(policy.timezone);
                store::apply_start(client, &start)?;
            }
            Record::Outcome(mut outcome) => {
                outcome.on_server_clock(offset);
                outcome.not_after(now);
                outcome.start.compare_days(policy.timezone);
                store_outcome(client, *outcome, policy)?;
            }
            Record::Alert(mut alert) => {
                let tried = self
                    .tries(alert.id)
                    .map_err(|e| Refusal::Refused(e.to_string()))?;
                alert.created_at += offset;
                store_alert(client, &alert, &tried).map_err(StoreError::from)?;
                // What is resolved now is a new incident the next time.
                if !Fault::ends_when_stored(&alert.rule) {
                    self.remember_notified(key.unwrap_or(&alert.fingerprint), alert.created_at)
                        .map_err(|e| Refusal::Refused(e.to_string()))?;
                }
            }
        }
        failpoint::hit("spool.drain.after_apply");
        Ok(())
    }
}

/// An entry without its payload: number, task, and whether PostgreSQL refused it before.
type Entry = (i64, Option<String>, bool);

enum Refusal {
    Unreachable(String),
    Passing(String),
    Refused(String),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error.meaning() {
            Meaning::Unreachable => Self::Unreachable(error.to_string()),
            Meaning::Passing => Self::Passing(error.to_string()),
            Meaning::Misconfigured | Meaning::BadData | Meaning::Refused => {
                Self::Refused(error.to_string())
            }
        }
    }
}

/// An outcome of whose rows PostgreSQL takes none is a failure, as when it is stored at once: what came later would wait for ever behind rows
/// that no correction of the source file changes. They stay where the raw archive does not have what came.
fn store_outcome(
    client: &mut Client,
    mut outcome: Outcome,
    policy: &Policy,
) -> Result<(), StoreError> {
    let refused = match store::apply(client, &outcome, policy) {
        Err(StoreError::Upsert(e @ UpsertError::AllRefused { .. }))
            if !outcome.details.contains_key(NOT_ARCHIVED) =>
        {
            e
        }
        stored => return stored.map(|_| ()),
    };
    outcome.fail_without_rows(&RunError::new(ErrorKind::Db, refused.to_string()));
    store::apply(client, &outcome, policy)?;
    Ok(())
}

/// What was refused is stored now. Missing this alert is no reason to stop.
fn resolve_stuck(client: &mut Client, task: &str) {
    let host = ProcessId::current().host;
    if let Err(e) = incidents::resolve_machine(client, Fault::SpoolStuck, &host, Some(task)) {
        tracing::warn!("could not notify that {task} is stored: {e}");
    }
}

fn store_alert(
    client: &mut Client,
    alert: &Alert,
    tried: &[DeliveryAttempt],
) -> Result<(), postgres::Error> {
    let mut tx = client.transaction()?;
    incidents::put_spooled(&mut tx, alert)?;
    for one in tried {
        tx.execute(
            "INSERT INTO oa.deliveries AS d (alert_id, channel, state, tries, first_try_at, next_try_at, leased_until, last_error, sent_at, unanswered)
             VALUES ($1, $2, $3, $4, least($5, now()), least($6, now() + interval '10 minutes'), least($7, now() + interval '10 minutes'), $8,
                     CASE WHEN $3 = 'sent' THEN now() END, $9)
             ON CONFLICT (alert_id, channel) DO UPDATE SET state = excluded.state, tries = excluded.tries,
                 first_try_at = excluded.first_try_at, next_try_at = excluded.next_try_at, leased_until = excluded.leased_until,
                 last_error = excluded.last_error, unanswered = excluded.unanswered, sent_at = coalesce(d.sent_at, excluded.sent_at)
             WHERE d.tries < excluded.tries",
            &[&alert.id, &one.channel, &one.state, &one.tries, &one.first_at, &one.next_at, &one.leased_until, &one.error, &one.unanswered],
        )?;
    }
    tx.commit()
}
