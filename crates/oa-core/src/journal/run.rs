//! A run under way, and what earlier runs of its task say.

use chrono::{NaiveDate, NaiveTime, TimeDelta};
use chrono_tz::Tz;

use super::{days, history, store};
use crate::base::state_dir::Lock;
use crate::model::{Attempt, RunStart};
use crate::pg::{self, Session, describe};

/// A run under way.
pub struct Run {
    pub(super) start: RunStart,
    pub(super) settings: pg::Settings,
    /// What the server's clock was ahead of this machine's when it began; `None` when it began without PostgreSQL.
    pub(super) clock_offset: Option<TimeDelta>,
    pub(super) connection: Option<Session>,
    /// PostgreSQL knows of it.
    pub(super) known: bool,
    /// Why there is no connection.
    pub(super) unreachable: Option<String>,
    pub(super) leftovers: Vec<String>,
    /// Without one, the lease in PostgreSQL keeps a second copy away.
    pub(super) _lock: Option<Lock>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run")
            .field("start", &self.start)
            .field("unreachable", &self.unreachable)
            .finish_non_exhaustive()
    }
}

impl Run {
    /// What is known since its start.
    #[must_use]
    pub fn start(&self) -> &RunStart {
        &self.start
    }

    /// What an earlier run of the task had left and was ended before this one, for people.
    #[must_use]
    pub fn leftovers(&self) -> &[String] {
        &self.leftovers
    }

    /// See [`history::shape`]. `None` also without PostgreSQL.
    pub fn shape(&mut self) -> Option<serde_json::Value> {
        let found = history::shape(self.connection.as_mut()?, &self.start.task);
        found.unwrap_or_else(|e| {
            tracing::warn!(
                "could not look up the shape of earlier records: {}",
                describe(&e)
            );
            None
        })
    }

    /// See [`history::usual_count`]. `None` also without PostgreSQL.
    pub fn usual_count(&mut self, days: &[NaiveDate], at: NaiveTime, zone: Tz) -> Option<u64> {
        let client = self.connection.as_mut()?;
        match history::usual_count(client, &self.start.task, days, at, zone.name()) {
            Ok(usual) => usual,
            Err(e) => {
                tracing::warn!(
                    "could not look up the usual number of records: {}",
                    describe(&e)
                );
                None
            }
        }
    }

    /// See [`days::content_before`]. `None` also without PostgreSQL.
    pub fn content_before(&mut self, day: NaiveDate) -> Option<(NaiveDate, String)> {
        let found = days::content_before(self.connection.as_mut()?, &self.start.task, day);
        found.unwrap_or_else(|e| {
            tracing::warn!(
                "could not look up the content of the day before: {}",
                describe(&e)
            );
            None
        })
    }

    /// Records a try that is followed by another. That PostgreSQL fails is no reason to stop: the outcome carries all tries.
    /// But the lease must be renewed, or another machine takes the task: so a lost connection is made again.
    pub fn attempt_failed(&mut self, attempt: &Attempt) {
        if !self.known {
            return;
        }
        let mut attempt = attempt.clone();
        if let Some(offset) = self.clock_offset {
            attempt.started_at += offset;
            attempt.finished_at += offset;
        }
        for _ in 0..2 {
            if self.connection.is_none() {
                self.connection = pg::connect(&self.settings).ok().map(Session::new);
            }
            let Some(client) = &mut self.connection else {
                return;
            };
            match store::record_attempt(client, &self.start, &attempt) {
                Ok(()) => return,
                Err(e) => {
                    tracing::warn!("{e}");
                    self.unreachable = Some(e.to_string());
                    self.connection = None;
                }
            }
        }
    }
}
