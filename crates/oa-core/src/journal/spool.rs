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

mod drain;
mod file;
mod outbox;

use std::collections::HashSet;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::base::failpoint;
use crate::base::state_dir::{StateDir, StateDirError, new_file};
use crate::journal::incidents;
use crate::model::event::{Alert, Event};
use crate::model::run::{Outcome, RunStart};
pub use drain::{DrainError, Drained};
pub use outbox::{DeliveryAttempt, Waiting};

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
        let db = file::open(&path).map_err(|source| SpoolError::Sqlite {
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

pub(crate) fn encode(record: &Record) -> Result<Vec<u8>, String> {
    let json = serde_json::to_vec(record).map_err(|e| e.to_string())?;
    zstd::encode_all(json.as_slice(), 3).map_err(|e| e.to_string())
}

pub(crate) fn decode(seq: i64, payload: &[u8]) -> Result<Record, SpoolError> {
    let damaged = |reason: String| SpoolError::Damaged { seq, reason };
    let json = zstd::decode_all(payload).map_err(|e| damaged(e.to_string()))?;
    serde_json::from_slice(&json).map_err(|e| damaged(e.to_string()))
}
