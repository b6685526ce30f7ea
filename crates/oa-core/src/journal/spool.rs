//! The local queue for when PostgreSQL is down: run starts, outcomes with their rows, and alerts, in one SQLite file under
//! `state_dir`, with write-ahead log and `synchronous = FULL`, so that what [`Spool::put`] has confirmed survives a power cut.
//!
//! [`Spool::drain`] replays entries in order, whichever program calls it. Each entry is applied in one PostgreSQL transaction
//! and removed from the spool after its commit. Killed between the two, the entry is replayed once more, and the functions of
//! [`runs::store`](crate::journal::store) and [`journal::incidents`](crate::journal::incidents) do nothing the second time, because every fact
//! carries its id. So each takes effect exactly once.
//!
//! An entry that PostgreSQL refuses (a table is missing, say) stays, with the reason, and holds back the later entries of its
//! task, so that an older day never overwrites a newer one; the other tasks go on. An outcome of whose rows it takes none becomes a failure.

mod outbox;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use postgres::Client;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::base::clock;
use crate::base::failpoint;
use crate::base::state_dir::{StateDir, StateDirError, new_file};
use crate::base::supervise::ProcessId;
use crate::base::text::error_text;
use crate::journal::incidents::{self, Policy};
use crate::journal::{NOT_ARCHIVED, StoreError, store};
use crate::model::event::{Alert, Event, Fault};
use crate::model::retry::ErrorKind;
use crate::model::run::{Outcome, RunError, RunStart};
use crate::pg::upsert::UpsertError;
use crate::pg::{Meaning, Settings};
pub use outbox::{Tried, Waiting};

/// The spool could not take or give an entry.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// It has reached its limit. Nothing was stored.
    #[error(
        "the spool {} is full: {used} of {limit} bytes are used and this entry needs {needed}; bring PostgreSQL back or raise max_size in [spool]",
        path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// Bytes in use.
        used: u64,
        /// Bytes of the new entry.
        needed: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The file cannot be used: disk full, damaged, not writable.
    #[error("could not use the spool {}: {source}; free space on that disk, or move a damaged file aside", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A fact has no form in which it could wait. Nothing was stored.
    #[error(
        "the spool cannot take an entry: {reason}; this is a mistake of this program, please report it"
    )]
    Encode {
        /// What is wrong.
        reason: String,
    },
    /// An entry cannot be read back. It stays where it is.
    #[error("entry {seq} of the spool cannot be read: {reason}")]
    Damaged {
        /// Its number.
        seq: i64,
        /// What is wrong.
        reason: String,
    },
    /// The state directory cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
}

/// One fact that waits for PostgreSQL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A run began.
    Started(RunStart),
    /// A run ended, with everything to store.
    Outcome(Box<Outcome>),
    /// People are to be notified.
    Alert(Alert),
}

impl Record {
    fn kind(&self) -> &'static str {
        match self {
            Self::Started(_) => "started",
            Self::Outcome(_) => "outcome",
            Self::Alert(_) => "alert",
        }
    }

    fn task(&self) -> Option<&str> {
        match self {
            Self::Started(start) => Some(&start.task),
            Self::Outcome(outcome) => Some(&outcome.start.task),
            Self::Alert(_) => None,
        }
    }

    fn run(&self) -> Option<Uuid> {
        match self {
            Self::Started(start) => Some(start.id),
            Self::Outcome(outcome) => Some(outcome.start.id),
            Self::Alert(_) => None,
        }
    }

    /// Only facts with data count against the limit in full: the news that it is reached must still fit.
    fn is_small(&self) -> bool {
        match self {
            Self::Outcome(outcome) => outcome.batches.is_empty() && outcome.rejects.is_empty(),
            Self::Started(_) | Self::Alert(_) => true,
        }
    }
}

/// What is in the spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pending {
    /// Entries.
    pub entries: u64,
    /// Their size in bytes, compressed.
    pub bytes: u64,
    /// When the oldest was put in (UTC).
    pub oldest: Option<DateTime<Utc>>,
}

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

/// The queue. Several programs may have it open at once.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    db: Connection,
    state: StateDir,
    limit: u64,
}

/// What is stuck when it belongs to no task.
pub const ALERTS: &str = "oa-alert";
/// The lock that whoever takes entries out holds.
pub const DRAIN_LOCK: &str = "spool-drain";
/// Kept free beyond the limit for facts without data.
const RESERVE: u64 = 4 << 20;

impl Spool {
    /// Opens the spool of a state directory, made if absent. `limit` is in bytes.
    ///
    /// # Errors
    /// When the file cannot be opened or is damaged.
    pub fn open(state: &StateDir, limit: u64) -> Result<Self, SpoolError> {
        let path = state.path().join("spool.db");
        // SQLite makes its files with the mode of this one.
        let _ = new_file().open(&path);
        let db = open(&path).map_err(|source| SpoolError::Sqlite {
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            path,
            db,
            state: state.clone(),
            limit,
        })
    }

    fn fail(&self, source: rusqlite::Error) -> SpoolError {
        SpoolError::Sqlite {
            path: self.path.clone(),
            source,
        }
    }

    /// Takes facts, all or none of them. When it returns, they are on the disk.
    ///
    /// # Errors
    /// When the limit is reached or the disk fails.
    pub fn put(&mut self, records: &[Record]) -> Result<(), SpoolError> {
        let (path, limit) = (self.path.clone(), self.limit);
        let fail = |source| SpoolError::Sqlite {
            path: path.clone(),
            source,
        };
        let tx = self
            .db
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(fail)?;
        for record in records {
            let payload = encode(record).map_err(|reason| SpoolError::Encode { reason })?;
            let needed = payload.len() as u64;
            let used: i64 = tx
                .query_row(
                    "SELECT coalesce(sum(length(payload)), 0) FROM entries",
                    [],
                    |r| r.get(0),
                )
                .map_err(fail)?;
            let used = used.unsigned_abs();
            let allowed = if record.is_small() {
                limit.saturating_add(RESERVE)
            } else {
                limit
            };
            if used + needed > allowed {
                return Err(SpoolError::Full {
                    path: path.clone(),
                    used,
                    needed,
                    limit,
                });
            }
            let fingerprint = match record {
                Record::Alert(alert) => Some(incidents::spooled_key(alert)),
                _ => None,
            };
            tx.execute(
                "INSERT INTO entries (run, kind, task, fingerprint, created_at, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![record.run().map(|r| r.to_string()), record.kind(), record.task(), fingerprint, Utc::now().timestamp_millis(), payload],
            )
            .map_err(fail)?;
            failpoint::hit("spool.put.before_commit");
        }
        tx.commit().map_err(fail)?;
        failpoint::hit("spool.put.after_commit");
        Ok(())
    }

    /// What waits.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn pending(&self) -> Result<Pending, SpoolError> {
        self.db
            .query_row(
                "SELECT count(*), coalesce(sum(length(payload)), 0), min(created_at) FROM entries",
                [],
                |r| {
                    Ok(Pending {
                        entries: r.get::<_, i64>(0)?.unsigned_abs(),
                        bytes: r.get::<_, i64>(1)?.unsigned_abs(),
                        oldest: r
                            .get::<_, Option<i64>>(2)?
                            .and_then(DateTime::from_timestamp_millis),
                    })
                },
            )
            .map_err(|e| self.fail(e))
    }

    /// Whether anything of this task waits. Newer results must then queue up behind it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn has_pending(&self, task: &str) -> Result<bool, SpoolError> {
        self.db
            .query_row(
                "SELECT EXISTS (SELECT 1 FROM entries WHERE task = ?1)",
                [task],
                |r| r.get(0),
            )
            .map_err(|e| self.fail(e))
    }

    /// The runs of which anything waits: what became of them is not known in PostgreSQL yet.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn waiting_runs(&self) -> Result<HashSet<Uuid>, SpoolError> {
        let fail = |e| self.fail(e);
        let mut statement = self
            .db
            .prepare("SELECT DISTINCT run FROM entries WHERE run IS NOT NULL")
            .map_err(fail)?;
        let runs = statement
            .query_map([], |r| r.get::<_, String>(0))
            .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
            .map_err(fail)?;
        Ok(runs
            .iter()
            .filter_map(|r| Uuid::try_parse(r).ok())
            .collect())
    }

    /// Waits until no other process drains, at most that long.
    ///
    /// # Errors
    /// When the lock cannot be tried.
    pub fn wait_for_drain(&self, limit: Duration) -> Result<(), SpoolError> {
        let end = Instant::now() + limit;
        while self.state.try_lock(DRAIN_LOCK)?.is_none() && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Puts a problem in, unless people were notified of it within `repeat`. What `oa.incidents` is while PostgreSQL is there.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn raise(&mut self, problem: Event, repeat: Duration) -> Result<(), SpoolError> {
        let alert = Alert::new(problem);
        if self.is_news(&alert, repeat)? {
            self.put(&[Record::Alert(alert)])?;
        }
        Ok(())
    }

    /// Whether people were not notified of this within `repeat`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn is_news(&self, alert: &Alert, repeat: Duration) -> Result<bool, SpoolError> {
        let last = self.last_alert(&incidents::spooled_key(alert))?;
        let age = last.and_then(|at| (Utc::now() - at).to_std().ok());
        Ok(age.is_none_or(|age| age >= repeat))
    }

    /// When an alert of this fingerprint was last put in. Remembered after the drain as well, so that an incident that lasts is
    /// not notified again with every run.
    fn last_alert(&self, fingerprint: &str) -> Result<Option<DateTime<Utc>>, SpoolError> {
        self.db
            .query_row(
                // What was noted while the clock was ahead says nothing.
                "SELECT max(at) FROM (SELECT created_at AS at FROM entries WHERE fingerprint = ?1
                 UNION ALL SELECT at FROM notified WHERE fingerprint = ?1) WHERE at <= ?2",
                params![
                    fingerprint,
                    (Utc::now() + TimeDelta::minutes(1)).timestamp_millis()
                ],
                |r| r.get::<_, Option<i64>>(0),
            )
            .map(|at| at.and_then(DateTime::from_timestamp_millis))
            .map_err(|e| self.fail(e))
    }

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

    /// An incident is resolved: people are notified of the next one at once.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn forget_notified(&self, fingerprint: &str) -> Result<(), SpoolError> {
        self.db
            .execute(
                "DELETE FROM notified WHERE fingerprint = ?1 OR substr(fingerprint, 1, length(?1) + 1) = ?1 || ' '",
                [fingerprint],
            )
            .map(|_| ())
            .map_err(|e| self.fail(e))
    }

    /// These problems of some rules are open, and no others of these rules: the latter are forgotten as by [`Self::forget_notified`], and
    /// what is open counts as notified now, unless it was within `repeat`.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn remember_open(
        &self,
        rules: &[&str],
        open: &[Alert],
        repeat: Duration,
    ) -> Result<(), SpoolError> {
        for alert in open {
            if self.is_news(alert, repeat)? {
                self.remember_notified(&incidents::spooled_key(alert), Utc::now())
                    .map_err(|e| self.fail(e))?;
            }
        }
        let known: Vec<String> = self
            .db
            .prepare("SELECT fingerprint FROM notified")
            .and_then(|mut s| s.query_map([], |r| r.get(0))?.collect())
            .map_err(|e| self.fail(e))?;
        let over = known.iter().filter(|f| {
            let rule = f.split_once(':').map_or("", |(rule, _)| rule);
            rules.contains(&rule) && !open.iter().any(|a| incidents::spooled_key(a) == **f)
        });
        for fingerprint in over {
            self.forget_notified(fingerprint)?;
        }
        Ok(())
    }

    fn remember_notified(&self, key: &str, at: DateTime<Utc>) -> rusqlite::Result<()> {
        self.db
            .execute(
                "INSERT INTO notified (fingerprint, at) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET at = excluded.at",
                params![key, at.min(Utc::now()).timestamp_millis()],
            )
            .map(|_| ())
    }

    /// What was notified or sent long ago holds nothing back any more.
    fn forget_old(&self) -> Result<(), SpoolError> {
        let month_ago = (Utc::now() - Duration::from_secs(30 * 86_400)).timestamp_millis();
        self.db
            .execute("DELETE FROM notified WHERE at < ?1", [month_ago])
            .map_err(|e| self.fail(e))?;
        self.db
            .execute("DELETE FROM tries WHERE first_at < ?1", [month_ago])
            .map(|_| ())
            .map_err(|e| self.fail(e))
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

fn store_alert(client: &mut Client, alert: &Alert, tried: &[Tried]) -> Result<(), postgres::Error> {
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

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.busy_timeout(Duration::from_secs(30))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    let former: bool = db.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'told')",
        [],
        |r| r.get(0),
    )?;
    if former {
        // Its name until version 0.1. Another program may be renaming it at this moment.
        let _ = db.execute_batch("ALTER TABLE told RENAME TO notified");
    }
    db.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         CREATE TABLE IF NOT EXISTS entries (
           seq INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT, kind TEXT NOT NULL, task TEXT, fingerprint TEXT,
           created_at INTEGER NOT NULL, error TEXT, payload BLOB NOT NULL) STRICT;
         CREATE INDEX IF NOT EXISTS entries_task ON entries (task);
         CREATE TABLE IF NOT EXISTS notified (fingerprint TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
         {}
         COMMIT;",
        outbox::TABLES
    ))?;
    let counts: bool = db.query_row(
        "SELECT EXISTS (SELECT 1 FROM pragma_table_info('tries') WHERE name = 'unanswered')",
        [],
        |r| r.get(0),
    )?;
    if !counts {
        // Made by version 0.1. As above.
        let _ =
            db.execute_batch("ALTER TABLE tries ADD COLUMN unanswered INTEGER NOT NULL DEFAULT 0");
    }
    Ok(db)
}

pub(crate) fn encode(record: &Record) -> Result<Vec<u8>, String> {
    let json = serde_json::to_vec(record).map_err(|e| e.to_string())?;
    zstd::encode_all(json.as_slice(), 3).map_err(|e| e.to_string())
}

pub(crate) fn decode(seq: i64, payload: &[u8]) -> Result<Record, SpoolError> {
    let damaged = |reason: String| SpoolError::Damaged { seq, reason };
    let json = zstd::decode_all(payload).map_err(|e| damaged(e.to_string()))?;
    serde_json::from_slice(&json).map_err(|e| damaged(e.to_string()))
}
