//! What a program uses to keep the run log: PostgreSQL when it is there, the spool when it is not.
//!
//! ```text
//! Recorder::open ─ begin ─┬─ Begun::Skipped            the task runs already
//!                         └─ Begun::Run(run)           row written, lease taken
//!                              run.attempt_failed(…)   a try is followed by another
//!                              run.finish(outcome)     rows and final state, one transaction
//! ```
//! Killed before `begin`: nothing happened. Killed after it: the row stays `running` and the next program marks it
//! `abandoned`. Killed within `finish`: the transaction is either committed or gone; in the spool likewise.

use std::time::Duration;

use chrono::Utc;
use postgres::Client;

use super::model::{Attempt, Outcome, RunError, RunStart, Status};
use super::store::{self, Applied, Lease, StoreError, TaskState};
use crate::alerts::{self, Alert, Policy};
use crate::cli::Failure;
use crate::config::Config;
use crate::failpoint;
use crate::pg::{self, ConnectError, schema};
use crate::retry::ErrorKind;
use crate::spool::{self, DrainError, Drained, Record, Spool, SpoolError};
use crate::state_dir::{Lock, StateDir, StateDirError};

/// Keeps the run log for one program.
#[derive(Debug)]
pub struct Recorder {
    settings: pg::Settings,
    state: StateDir,
    spool_limit: u64,
    policy: Policy,
}

/// There is no usable PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum Away {
    /// Not reachable, or it does not let us in.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Its schema is not ours; nothing may be written.
    #[error(transparent)]
    Schema(#[from] schema::SchemaError),
    /// It went away while the spool was drained.
    #[error("{0}")]
    Drain(String),
    /// The spool or the state directory fails.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// What came of [`Recorder::begin`].
#[derive(Debug)]
pub enum Begun {
    /// The work may start.
    Run(Box<Run>),
    /// The task runs already, here or elsewhere.
    Skipped {
        /// In words, where.
        reason: String,
    },
}

/// Where an outcome is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// In PostgreSQL.
    Stored(Applied),
    /// In the spool, because of this.
    Spooled {
        /// Why PostgreSQL did not get it.
        reason: String,
    },
    /// PostgreSQL refused the rows; a failed run is recorded instead.
    Refused {
        /// What it said.
        error: RunError,
    },
}

impl Recorder {
    /// Opens state directory and spool. Does not connect yet.
    ///
    /// # Errors
    /// When there is no database address, or the state directory cannot be used.
    pub fn open(config: &Config, program: &'static str) -> Result<Self, Failure> {
        let settings = pg::Settings::from_config(config, program)?;
        let state = StateDir::open(&config.state_dir)?;
        Ok(Self {
            settings,
            state,
            spool_limit: config.spool.max_size.0,
            policy: Policy::from_config(config),
        })
    }

    /// The state directory.
    #[must_use]
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// The spool of this machine.
    ///
    /// # Errors
    /// When its file cannot be used.
    pub fn spool(&self) -> Result<Spool, SpoolError> {
        Spool::open(&self.state, self.spool_limit)
    }

    /// How alerts are written.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Connects, checks the schema, drains the spool and marks abandoned runs.
    ///
    /// # Errors
    /// See [`Away`].
    pub fn connect(&self) -> Result<(Client, Drained), Away> {
        let mut client = pg::connect(&self.settings)?;
        schema::check(&mut client)?;
        let drained = match self.spool()?.drain(&mut client, &self.policy) {
            Ok(drained) => drained,
            Err(DrainError::Spool(e)) => return Err(e.into()),
            Err(e @ DrainError::Unreachable { .. }) => return Err(Away::Drain(e.to_string())),
        };
        for (task, reason) in &drained.stuck {
            tracing::error!(
                "an entry of {} stays in the spool: {reason}",
                task.as_deref().unwrap_or("an alert")
            );
        }
        match store::mark_abandoned(&mut client, &self.policy) {
            Ok(0) => {}
            Ok(n) => tracing::warn!("marked {n} run(s) as abandoned: their processes are gone"),
            Err(e) => return Err(Away::Drain(e.to_string())),
        }
        Ok((client, drained))
    }

    /// Records the start of a run and takes the task, on this machine and among all of them.
    ///
    /// # Errors
    /// When neither PostgreSQL nor the spool can take it, or the schema does not fit.
    pub fn begin(&self, start: RunStart) -> Result<Begun, Failure> {
        let Some(lock) = self.state.try_lock(&format!("task-{}", start.task))? else {
            let reason = format!("{} runs already on this machine", start.task);
            self.record_skipped(start, &reason)?;
            return Ok(Begun::Skipped { reason });
        };
        let mut connection = None;
        let mut away = None;
        match self.connect() {
            Ok((client, _)) => connection = Some(client),
            Err(Away::Schema(e)) => return Err(e.into()),
            Err(Away::Spool(SpoolError::StateDir(e))) => return Err(e.into()),
            Err(e) => away = Some(e.to_string()),
        }
        if let Some(client) = &mut connection {
            match store::begin(client, &start) {
                Ok(Lease::Taken) => {}
                Ok(Lease::Busy { host }) => {
                    return Ok(Begun::Skipped {
                        reason: format!("{} runs already on {host}", start.task),
                    });
                }
                Err(e) if e.is_connection_error() => {
                    away = Some(e.to_string());
                    connection = None;
                }
                Err(e) => return Err(anyhow::Error::from(e).into()),
            }
        }
        if connection.is_none() {
            // A full spool is no reason not to collect: the raw archive still keeps what comes.
            if let Err(e) = self
                .spool()
                .and_then(|mut s| s.put(&[Record::Started(start.clone())]))
            {
                tracing::error!("could not note the start of {}: {e}", start.task);
            }
        }
        failpoint::hit("run.begun");
        Ok(Begun::Run(Box::new(Run {
            start,
            connection,
            away,
            _lock: lock,
        })))
    }

    /// A start that came to nothing leaves its row as well.
    fn record_skipped(&self, start: RunStart, reason: &str) -> Result<(), Failure> {
        let mut outcome = Outcome::bare(start, Status::Skipped, Utc::now());
        outcome.error = Some(RunError::new(ErrorKind::Internal, reason));
        let stored = match self.connect() {
            Ok((mut client, _)) => match store::apply(&mut client, &outcome, &self.policy) {
                Ok(_) => return Ok(()),
                Err(e) => e.to_string(),
            },
            Err(Away::Schema(e)) => return Err(e.into()),
            Err(e) => e.to_string(),
        };
        tracing::info!("the skipped run is spooled: {stored}");
        self.spool()
            .and_then(|mut s| s.put(&[Record::Outcome(Box::new(outcome))]))
            .map_err(|e| anyhow::Error::from(e).into())
    }

    /// Stores an outcome: in PostgreSQL if at all possible, else in the spool.
    ///
    /// # Errors
    /// When neither can take it.
    pub fn finish(&self, run: Run, outcome: Outcome) -> Result<Recorded, Failure> {
        failpoint::hit("run.finish.begin");
        let mut run = run;
        let mut spool = self.spool().map_err(anyhow::Error::from)?;
        // Behind what waits already, or an older day would overwrite this one later.
        if run.connection.is_none() || spool.has_pending(&outcome.start.task).unwrap_or(true) {
            run.connection = match self.connect() {
                Ok((client, _)) => Some(client),
                Err(e) => {
                    run.away = Some(e.to_string());
                    None
                }
            };
        }
        for last_try in [false, true] {
            let Some(client) = &mut run.connection else {
                break;
            };
            if spool.has_pending(&outcome.start.task).unwrap_or(true) {
                run.away = Some(format!(
                    "older results of {} wait in the spool",
                    outcome.start.task
                ));
                break;
            }
            match store::apply(client, &outcome, &self.policy) {
                Ok(applied) => {
                    failpoint::hit("run.finish.stored");
                    return Ok(Recorded::Stored(applied));
                }
                Err(e) if e.is_connection_error() && !last_try => {
                    run.connection = self.connect().map(|(client, _)| client).ok();
                    run.away = Some(e.to_string());
                }
                Err(e) if e.is_connection_error() => run.away = Some(e.to_string()),
                Err(e) if outcome.batches.is_empty() => return Err(anyhow::Error::from(e).into()),
                Err(e) => return self.finish_refused(run, outcome, &e),
            }
        }
        let reason = run.away.unwrap_or_else(|| "PostgreSQL is away".to_owned());
        self.put_aside(&mut spool, outcome, reason)
    }

    /// The rows cannot be stored as they are: record that, without them. What came is in the raw archive.
    fn finish_refused(
        &self,
        run: Run,
        mut outcome: Outcome,
        error: &StoreError,
    ) -> Result<Recorded, Failure> {
        let error = RunError::new(ErrorKind::Db, error.to_string());
        outcome.status = Status::Failed;
        outcome.error = Some(error.clone());
        outcome.batches.clear();
        if let Some(last) = outcome.attempts.last_mut() {
            last.outcome = Status::Failed;
            last.error = Some(error.clone());
        }
        self.finish(run, outcome)?;
        Ok(Recorded::Refused { error })
    }

    fn put_aside(
        &self,
        spool: &mut Spool,
        outcome: Outcome,
        reason: String,
    ) -> Result<Recorded, Failure> {
        let host = outcome.start.process.host.clone();
        let now = Utc::now();
        let mut extra: Vec<Alert> = Vec::new();
        let own = alerts::problem(&outcome, &TaskState::default(), &self.policy);
        extra.extend(own.filter(|a| !self.told_lately(spool, &a.fingerprint)));
        let away = alerts::database_away(&reason, &host, now, &self.policy);
        if !self.told_lately(spool, &away.fingerprint) {
            extra.push(away);
        }
        let mut records = spool::records_of(outcome.clone(), None);
        records.extend(extra.iter().cloned().map(Record::Alert));
        match spool.put(&records) {
            Ok(()) => Ok(Recorded::Spooled { reason }),
            Err(full @ SpoolError::Full { .. }) => {
                let mut bare = outcome;
                let error = RunError::new(ErrorKind::Internal, full.to_string());
                bare.status = Status::Failed;
                bare.error = Some(error.clone());
                bare.batches.clear();
                bare.rejects.clear();
                let told = alerts::spool_full(&full.to_string(), &host, now, &self.policy);
                let mut records = spool::records_of(bare, None);
                records.extend(extra.into_iter().map(Record::Alert));
                if !self.told_lately(spool, &told.fingerprint) {
                    records.push(Record::Alert(told));
                }
                if let Err(e) = spool.put(&records) {
                    tracing::error!("not even the failure fits: {e}");
                }
                Err(anyhow::Error::from(full).into())
            }
            Err(e) => Err(anyhow::Error::from(e).into()),
        }
    }

    fn told_lately(&self, spool: &Spool, fingerprint: &str) -> bool {
        let last = spool.last_alert(fingerprint).ok().flatten();
        last.is_some_and(|at| {
            (Utc::now() - at)
                .to_std()
                .is_ok_and(|age| age < self.policy.repeat)
        })
    }
}

/// A run under way.
pub struct Run {
    start: RunStart,
    connection: Option<Client>,
    away: Option<String>,
    _lock: Lock,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run")
            .field("start", &self.start)
            .field("away", &self.away)
            .finish_non_exhaustive()
    }
}

impl Run {
    /// What is known since its start.
    #[must_use]
    pub fn start(&self) -> &RunStart {
        &self.start
    }

    /// Records a try that is followed by another. Trouble with PostgreSQL is no reason to stop: the outcome carries all tries.
    pub fn attempt_failed(&mut self, attempt: &Attempt) {
        if let Some(client) = &mut self.connection
            && let Err(e) = store::record_attempt(client, &self.start, attempt)
        {
            tracing::warn!("{e}");
            self.away = Some(e.to_string());
            self.connection = None;
        }
    }
}

/// A wall clock that does not jump: the start's time plus what a monotonic clock has measured since.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    wall: chrono::DateTime<Utc>,
    mono: std::time::Instant,
}

impl Stopwatch {
    /// Starts at a moment that is now.
    #[must_use]
    pub fn start(now: chrono::DateTime<Utc>) -> Self {
        Self {
            wall: now,
            mono: std::time::Instant::now(),
        }
    }

    /// The present moment (UTC) on this clock.
    #[must_use]
    pub fn now(&self) -> chrono::DateTime<Utc> {
        self.wall + self.mono.elapsed()
    }

    /// What has passed.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.mono.elapsed()
    }
}

impl From<StateDirError> for Away {
    fn from(error: StateDirError) -> Self {
        Self::Spool(error.into())
    }
}
