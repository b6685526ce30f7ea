//! The spool as an outbox: what was tried with the alerts that wait in it. The drain carries it over into `oa.deliveries`.

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{OptionalExtension, Row, params};
use uuid::Uuid;

use super::{Record, Spool, SpoolError, decode};
use crate::model::Alert;

/// Where an alert stands with one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryAttempt {
    /// The alert.
    pub alert: Uuid,
    /// The channel.
    pub channel: String,
    /// `pending`, `sending`, `sent` or `failed`, as in `oa.deliveries`.
    pub state: String,
    /// How often it was tried.
    pub tries: i32,
    /// When for the first time (UTC).
    pub first_at: DateTime<Utc>,
    /// Not before this (UTC).
    pub next_at: DateTime<Utc>,
    /// Its sender has it until then (UTC).
    pub leased_until: DateTime<Utc>,
    /// What the channel said against it.
    pub error: Option<String>,
    /// How often it was sent and not answered.
    pub unanswered: i32,
}

/// An alert that a channel has not got.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The alert.
    pub alert: Alert,
    /// What was tried.
    pub tried: Option<DeliveryAttempt>,
}

pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS tries (
      alert TEXT NOT NULL, channel TEXT NOT NULL, state TEXT NOT NULL, tries INTEGER NOT NULL, first_at INTEGER NOT NULL,
      next_at INTEGER NOT NULL, leased_until INTEGER NOT NULL, error TEXT,
      unanswered INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (alert, channel)) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS pauses (channel TEXT PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS sends (robot TEXT NOT NULL, at INTEGER NOT NULL, shared INTEGER NOT NULL) STRICT;";

const COLUMNS: &str =
    "alert, channel, state, tries, first_at, next_at, leased_until, error, unanswered";

impl Spool {
    /// Alerts that wait for PostgreSQL, oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn alerts(&self) -> Result<Vec<Alert>, SpoolError> {
        let fail = |e| self.fail(e);
        let mut statement = self
            .db
            .prepare("SELECT seq, payload FROM entries WHERE kind = 'alert' ORDER BY seq")
            .map_err(fail)?;
        let rows: Vec<(i64, Vec<u8>)> = statement
            .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))
            .and_then(Iterator::collect)
            .map_err(fail)?;
        let mut found = Vec::new();
        for (seq, payload) in rows {
            match decode(seq, &payload) {
                Ok(Record::Alert(alert)) => found.push(alert),
                Ok(_) => {}
                // The drain reports it. The others are to be sent meanwhile.
                Err(e) => tracing::warn!("{e}"),
            }
        }
        Ok(found)
    }

    /// Of these the ones that a channel has not got and that are not given up.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn waiting(&self, channel: &str) -> Result<Vec<Waiting>, SpoolError> {
        let mut waiting = Vec::new();
        for alert in self.alerts()? {
            let tried = self
                .tries(alert.id)?
                .into_iter()
                .find(|t| t.channel == channel);
            if !tried
                .as_ref()
                .is_some_and(|t| ["sent", "failed"].contains(&t.state.as_str()))
            {
                waiting.push(Waiting { alert, tried });
            }
        }
        Ok(waiting)
    }

    /// What was tried with an alert.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn tries(&self, alert: Uuid) -> Result<Vec<DeliveryAttempt>, SpoolError> {
        let mut statement = self
            .db
            .prepare(&format!("SELECT {COLUMNS} FROM tries WHERE alert = ?1"))
            .map_err(|e| self.fail(e))?;
        statement
            .query_map([alert.to_string()], tried)
            .and_then(Iterator::collect)
            .map_err(|e| self.fail(e))
    }

    /// Notes that these alerts are about to be sent to a channel.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn begin_tries(
        &mut self,
        channel: &str,
        alerts: &[Uuid],
        now: DateTime<Utc>,
        leased_until: DateTime<Utc>,
    ) -> Result<(), SpoolError> {
        let begin = |db: &mut rusqlite::Connection| {
            let tx = db.transaction()?;
            for alert in alerts {
                tx.execute(
                    "INSERT INTO tries (alert, channel, state, tries, first_at, next_at, leased_until) VALUES (?1, ?2, 'sending', 1, ?3, ?3, ?4)
                     ON CONFLICT DO UPDATE SET state = 'sending', tries = tries + 1, leased_until = excluded.leased_until",
                    params![alert.to_string(), channel, now.timestamp_millis(), leased_until.timestamp_millis()],
                )?;
            }
            tx.commit()
        };
        begin(&mut self.db).map_err(|e| self.fail(e))
    }

    /// Notes what came of it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn end_tries(&mut self, ended: &[DeliveryAttempt]) -> Result<(), SpoolError> {
        let end = |db: &mut rusqlite::Connection| {
            let tx = db.transaction()?;
            for one in ended {
                tx.execute(
                    "UPDATE tries SET state = ?3, next_at = ?4, leased_until = ?5, error = ?6, unanswered = ?7 WHERE alert = ?1 AND channel = ?2",
                    params![
                        one.alert.to_string(), one.channel, one.state, one.next_at.timestamp_millis(), one.leased_until.timestamp_millis(),
                        one.error, one.unanswered
                    ],
                )?;
            }
            tx.commit()
        };
        end(&mut self.db).map_err(|e| self.fail(e))
    }

    /// A channel takes nothing until then.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn pause_channel(&mut self, channel: &str, until: DateTime<Utc>) -> Result<(), SpoolError> {
        self.db
            .execute(
                "INSERT INTO pauses (channel, until) VALUES (?1, ?2) ON CONFLICT DO UPDATE
                   SET until = CASE WHEN until > excluded.until + ?3 THEN excluded.until ELSE max(until, excluded.until) END",
                params![channel, until.timestamp_millis(), LONGEST_PAUSE.num_milliseconds()],
            )
            .map(|_| ())
            .map_err(|e| self.fail(e))
    }

    /// Until when (UTC) a channel takes nothing, if that is after `now`. One that seems to be paused for longer than any was paused while this
    /// machine's clock was ahead.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn channel_paused(
        &self,
        channel: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, SpoolError> {
        self.db
            .query_row(
                "SELECT until FROM pauses WHERE channel = ?1 AND until > ?2 AND until <= ?3",
                params![
                    channel,
                    now.timestamp_millis(),
                    (now + LONGEST_PAUSE).timestamp_millis()
                ],
                |r| r.get::<_, i64>(0),
            )
            .optional()
            .map(|until| until.and_then(DateTime::from_timestamp_millis))
            .map_err(|e| self.fail(e))
    }

    /// Notes that a robot is sent something now. `shared`: PostgreSQL knows of it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn note_send(
        &mut self,
        robot: &str,
        now: DateTime<Utc>,
        shared: bool,
    ) -> Result<(), SpoolError> {
        let long_ago = now - SENDS_KEPT;
        self.db
            .execute(
                "DELETE FROM sends WHERE at < ?1 OR at > ?2",
                params![long_ago.timestamp_millis(), now.timestamp_millis()],
            )
            .and_then(|_| {
                self.db.execute(
                    "INSERT INTO sends (robot, at, shared) VALUES (?1, ?2, ?3)",
                    params![robot, now.timestamp_millis(), shared],
                )
            })
            .map(|_| ())
            .map_err(|e| self.fail(e))
    }

    /// Seconds since each of the messages that a robot was sent within the last two minutes, or of those of which PostgreSQL knows nothing.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn sends(
        &self,
        robot: &str,
        now: DateTime<Utc>,
        unshared_only: bool,
    ) -> Result<Vec<f64>, SpoolError> {
        let (from, until) = (
            (now - SENDS_KEPT).timestamp_millis(),
            now.timestamp_millis(),
        );
        self.db
            .prepare("SELECT (?3 - at) / 1000.0 FROM sends WHERE robot = ?1 AND at >= ?2 AND at <= ?3 AND NOT (shared AND ?4)")
            .and_then(|mut s| s.query_map(params![robot, from, until, unshared_only], |r| r.get(0))?.collect())
            .map_err(|e| self.fail(e))
    }
}

/// No channel asks for a longer pause, or gets one.
const LONGEST_PAUSE: TimeDelta = TimeDelta::hours(1);
/// What a robot was sent before that says nothing.
const SENDS_KEPT: TimeDelta = TimeDelta::minutes(2);

fn tried(row: &Row<'_>) -> rusqlite::Result<DeliveryAttempt> {
    let alert: String = row.get(0)?;
    let time = |i| {
        row.get::<_, i64>(i)
            .map(|at| DateTime::from_timestamp_millis(at).unwrap_or_default())
    };
    Ok(DeliveryAttempt {
        alert: Uuid::try_parse(&alert).unwrap_or_default(),
        channel: row.get(1)?,
        state: row.get(2)?,
        tries: row.get(3)?,
        first_at: time(4)?,
        next_at: time(5)?,
        leased_until: time(6)?,
        error: row.get(7)?,
        unanswered: row.get(8)?,
    })
}
