//! What a program uses to keep the run log: PostgreSQL when it is there, the spool when it is not.
//!
//! ```text
//! Recorder::open ─ begin ─┬─ StartOutcome::Skipped            the task runs already
//!                         └─ StartOutcome::Run(run)           row written, lease taken
//!                              run.attempt_failed(…)   a try is followed by another
//!                              run.finish(outcome)     rows and final state, one transaction
//! ```
//! Killed before `begin`: nothing happened. Killed after it: the row stays `running` and the next program marks it
//! `abandoned`. Killed within `finish`: the transaction is either committed or gone; in the spool likewise.

mod memory;
mod once;
mod unstarted;

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use postgres::Client;
use uuid::Uuid;

pub(crate) use unstarted::store_unstarted;

use super::abandoned::LeftByRun;
use super::error::{DbUnavailable, JournalError};
use super::kept::Kept;
use super::store::{self, Lease, StoreError, TaskState, WriteCounts};
use super::{Run, abandoned};
use super::{live_output, raw_index};
use crate::base::clock;
use crate::base::failpoint;
use crate::base::state_dir::StateDir;
use crate::base::supervise::{self, Owner, ProcessId};
use crate::base::text::error_text;
use crate::journal::incidents::{self, Policy};
use crate::journal::spool::{self, DrainError, Drained, Record, Spool, SpoolError};
use crate::model::event::{Alert, Event, Fault, run_fingerprint};
use crate::model::retry::ErrorKind;
use crate::model::{Outcome, RunError, RunStart, Status};
use crate::pg::{self, Meaning, Session, describe, schema};

/// Keeps the run log for one program.
#[derive(Debug)]
pub struct Recorder {
    settings: pg::Settings,
    state: StateDir,
    spool_limit: u64,
    policy: Policy,
    host: String,
    /// What the server's clock was ahead of this machine's when we last connected.
    clock_offset: Mutex<TimeDelta>,
    kept: Kept,
}

/// How long the outcome of a run waits for another process that drains the spool.
const OTHER_DRAIN: Duration = Duration::from_secs(10);

/// The detail of a run that says why the raw archive has not all that it received.
pub const NOT_ARCHIVED: &str = "not_archived";

/// What came of [`Recorder::begin`].
#[derive(Debug)]
pub enum StartOutcome {
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
pub enum Persisted {
    /// In PostgreSQL.
    Stored(WriteCounts),
    /// In the spool, because of this.
    Spooled {
        /// Why PostgreSQL did not get it.
        reason: String,
    },
    /// PostgreSQL refused the rows; a failed run is recorded instead.
    Refused {
        /// What it said.
        error: RunError,
        /// The database lacks something: a table, an index, a privilege.
        misconfigured: bool,
    },
}

/// Where a start is known.
enum Registration {
    /// In PostgreSQL; with what its clock is ahead of this machine's.
    Here(Box<Session>, TimeDelta),
    /// Here alone, because of this.
    Alone(Option<TimeDelta>, String),
    /// The task is somebody else's.
    Elsewhere(String),
}

impl Recorder {
    /// Does not connect yet. `spool_limit` is in bytes.
    #[must_use]
    pub fn new(settings: pg::Settings, state: StateDir, spool_limit: u64, policy: Policy) -> Self {
        Self {
            settings,
            state,
            spool_limit,
            policy,
            host: ProcessId::current().host,
            clock_offset: Mutex::default(),
            kept: Kept::default(),
        }
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

    /// How often people are notified.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Connects, checks the schema, drains the spool and marks abandoned runs. A spool that cannot be used is reported and no reason
    /// to do without PostgreSQL.
    ///
    /// # Errors
    /// See [`DbUnavailable`].
    pub fn connect(&self) -> Result<(Client, Drained), DbUnavailable> {
        let (mut client, drained) = self.connect_and_tidy()?;
        let calm = self.settings.hurry_no_more(&mut client);
        calm.map_err(|e| DbUnavailable::Drain(describe(&e)))?;
        Ok((client, drained))
    }

    fn connect_and_tidy(&self) -> Result<(Client, Drained), DbUnavailable> {
        let mut client = pg::connect(&self.settings)?;
        schema::check(&mut client)?;
        let offset = watch_clocks(&mut client)?;
        if let Ok(mut known) = self.clock_offset.lock() {
            *known = offset;
        }
        self.drain_memory(&mut client, offset);
        if let Some(fault) = self.state.fault() {
            self.raise(&mut client, Fault::SpoolBroken, None, &fault.to_string());
            let drained = Drained {
                failed: Some(fault.to_string()),
                ..Drained::default()
            };
            return Ok((client, drained));
        }
        let (drained, waiting) = match self.drain(&mut client, offset) {
            Ok(drained) => drained,
            Err(DrainError::Spool(e)) => {
                tracing::error!("{e}");
                self.raise(&mut client, Fault::SpoolBroken, None, &e.to_string());
                let failed = Some(e.to_string());
                let drained = Drained {
                    failed,
                    ..Drained::default()
                };
                return Ok((client, drained));
            }
            Err(e @ DrainError::Unreachable { .. }) => {
                return Err(DbUnavailable::Drain(e.to_string()));
            }
        };
        for (task, reason) in &drained.stuck {
            let task = task.as_deref().unwrap_or(spool::ALERTS);
            tracing::error!("an entry of {task} stays in the spool: {reason}");
            self.raise(&mut client, Fault::SpoolStuck, Some(task), reason);
        }
        self.resolve_over(&mut client, &drained);
        // While another process drains, the outcome of a run that looks abandoned may be on its way.
        if !drained.busy {
            let left = |start: &RunStart| self.left_by(start);
            match abandoned::mark_abandoned(&mut client, &waiting, left, &self.policy) {
                Ok(marked) => self.marked_abandoned(&marked),
                Err(e) if e.meaning() == Meaning::Unreachable => {
                    return Err(DbUnavailable::Drain(e.to_string()));
                }
                Err(e) => tracing::warn!("could not look for abandoned runs: {e}"),
            }
        }
        self.kept.connected();
        Ok((client, drained))
    }

    fn session(&self) -> Result<Session, DbUnavailable> {
        self.connect().map(|(client, _)| Session::new(client))
    }

    fn left_by(&self, start: &RunStart) -> LeftByRun {
        let printed = live_output::read(self.state.path(), &start.task, start.id);
        LeftByRun {
            raw: raw_index::read(&self.state, start.id),
            output: printed.map(|p| p.text).filter(|text| !text.is_empty()),
        }
    }

    fn marked_abandoned(&self, runs: &[Uuid]) {
        if !runs.is_empty() {
            let n = runs.len();
            tracing::warn!("marked {n} run(s) as abandoned: their processes are gone");
        }
        for run in runs {
            raw_index::remove(&self.state, *run);
        }
    }

    /// The current time (UTC) by the server's clock, as far as this program has seen it; else by this machine's.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        clock::now() + self.clock_offset()
    }

    fn clock_offset(&self) -> TimeDelta {
        self.clock_offset.lock().map(|o| *o).unwrap_or_default()
    }

    fn drain(
        &self,
        client: &mut Client,
        offset: TimeDelta,
    ) -> Result<(Drained, HashSet<Uuid>), DrainError> {
        let mut spool = self.spool()?;
        let drained = spool.drain(client, offset, &self.policy)?;
        Ok((drained, spool.waiting_runs()?))
    }

    pub(super) fn machine_event(&self, fault: Fault, task: Option<&str>, reason: &str) -> Event {
        Event::Machine {
            fault,
            host: self.host.clone(),
            task: task.map(str::to_owned),
            reason: error_text(reason),
            schema: None,
            at: self.now(),
        }
    }

    /// Missing such an alert is no reason to stop what is under way.
    fn raise(&self, client: &mut Client, fault: Fault, task: Option<&str>, reason: &str) {
        let event = self.machine_event(fault, task, reason);
        if let Err(e) = incidents::raise(client, event, &self.policy) {
            tracing::warn!("could not put an alert into the outbox: {}", describe(&e));
        }
    }

    /// Resolves what was wrong with this machine and is over. With each connection, and not only when such an alert is stored: what comes
    /// and goes counts as open until it stays away, and whoever drained may have been killed behind the last entry.
    fn resolve_over(&self, client: &mut Client, drained: &Drained) {
        let nothing_waits = !drained.busy && drained.held_back == 0 && drained.stuck.is_empty();
        let resolved = incidents::open_faults(client, &self.host).and_then(|open| {
            for (fault, task) in open {
                // A connection is no check.
                if fault == Fault::CheckFailed {
                    continue;
                }
                let of_the_spool = matches!(fault, Fault::SpoolFull | Fault::SpoolStuck);
                if nothing_waits || !of_the_spool {
                    incidents::resolve_machine(client, fault, &self.host, task.as_deref())?;
                }
            }
            Ok(())
        });
        if let Err(e) = resolved {
            tracing::warn!("could not put an alert into the outbox: {}", describe(&e));
        }
    }

    /// Records the start of a run and takes the task, on this machine and among all of them.
    ///
    /// # Errors
    /// When the schema does not fit, or the state directory cannot be used.
    pub fn begin(&self, start: RunStart) -> Result<StartOutcome, JournalError> {
        self.begin_with(start, true)
    }

    /// The same; `programs`: runs of the task start programs, of which a killed one may have left some. To look for them takes a look at
    /// all processes.
    pub(super) fn begin_with(
        &self,
        mut start: RunStart,
        programs: bool,
    ) -> Result<StartOutcome, JournalError> {
        let mut no_lock = self.state.fault();
        let lock = match self.state.try_lock(&format!("task-{}", start.task)) {
            Ok(Some(lock)) => Some(lock),
            Ok(None) => {
                let reason = format!("{} runs already on this machine", start.task);
                self.record_skipped(start, &reason)?;
                return Ok(StartOutcome::Skipped { reason });
            }
            // PostgreSQL's lease keeps a second copy away.
            Err(e) if e.is_disk() => {
                no_lock = Some(e);
                None
            }
            Err(e) => {
                store_unstarted(&self.settings, &self.policy, start, &e.to_string());
                return Err(e.into());
            }
        };
        let (connection, offset, unreachable) = match self.begin_there(&mut start)? {
            Registration::Here(connection, offset) => (Some(*connection), Some(offset), None),
            Registration::Alone(offset, why) => (None, offset, Some(why)),
            Registration::Elsewhere(reason) => return Ok(StartOutcome::Skipped { reason }),
        };
        let known = connection.is_some();
        if let (Some(no_disk), Some(reason)) = (no_lock, &unreachable) {
            return Err(self.lost(&start, reason, no_disk.into()));
        }
        if !known {
            // A full spool is no reason not to collect: the raw archive still keeps what comes.
            if let Err(e) = self
                .spool()
                .and_then(|mut s| s.put(&[Record::Started(start.clone())]))
            {
                tracing::error!("could not note the start of {}: {e}", start.task);
            }
        }
        failpoint::hit("run.begun");
        let mut run = Run {
            start,
            settings: self.settings.clone(),
            clock_offset: offset.filter(|_| known),
            connection,
            known,
            unreachable,
            leftovers: Vec::new(),
            _lock: lock,
        };
        match self.end_leftovers(&mut run, programs) {
            Ok(ended) => run.leftovers = ended,
            Err(e) => {
                let mut outcome = Outcome::bare(run.start.clone(), Status::Failed, clock::now());
                outcome.error = Some(RunError::new(ErrorKind::Internal, e.to_string()));
                self.finish(run, outcome)?;
                return Err(JournalError::Leftover(e));
            }
        }
        Ok(StartOutcome::Run(Box::new(run)))
    }

    /// Tells PostgreSQL of a start.
    fn begin_there(&self, start: &mut RunStart) -> Result<Registration, JournalError> {
        let mut kept = self.kept.take();
        loop {
            let was_kept = kept.is_some();
            let connected = match kept.take() {
                Some(client) => Ok(client),
                None => self.session(),
            };
            let mut client = match connected {
                Ok(client) => client,
                Err(DbUnavailable::Schema(e)) if e.is_for_a_person() => {
                    self.spool_alert(Fault::SchemaUnfit, &e.to_string());
                    return Err(DbUnavailable::Schema(e).into());
                }
                Err(e) => return Ok(Registration::Alone(None, e.to_string())),
            };
            let offset = self.clock_offset();
            let mut corrected = start.clone();
            corrected.on_server_clock(offset);
            corrected.compare_days(self.policy.timezone);
            start.other_day = corrected.other_day;
            let reason = match store::begin(&mut client, &corrected) {
                Ok(Lease::Acquired) => return Ok(Registration::Here(Box::new(client), offset)),
                Ok(Lease::AlreadyDone) => format!("{} was done by another machine", start.task),
                Ok(Lease::HeldBy { host }) => format!("{} runs already on {host}", start.task),
                // It may have been closed since the run before.
                Err(e) if was_kept && e.meaning() == Meaning::Unreachable => continue,
                // Collecting comes first, whatever keeps the log from being written.
                Err(e) => {
                    tracing::warn!("{}: {e}", start.task);
                    return Ok(Registration::Alone(Some(offset), e.to_string()));
                }
            };
            self.kept.give_back(client);
            return Ok(Registration::Elsewhere(reason));
        }
    }

    /// A killed run may have left its program: it ends before this one starts another copy.
    fn end_leftovers(
        &self,
        run: &mut Run,
        programs: bool,
    ) -> Result<Vec<String>, supervise::Stubborn> {
        let start = &run.start;
        let owner = Owner::new(&start.task, start.id, self.state.path());
        if !programs && !owner.is_noted() {
            return Ok(Vec::new());
        }
        let mut client = run.connection.as_mut();
        let of_this_task = |id| {
            let known = client
                .as_mut()
                .map(|c| store::is_run_of(c, id, &start.task));
            known.is_some_and(|k| k.unwrap_or(false))
        };
        let ended = supervise::end_leftovers(&owner, of_this_task)?;
        if !ended.is_empty() {
            tracing::warn!(
                "{}: ended what an earlier run has left: {}",
                start.task,
                ended.join(", ")
            );
        }
        Ok(ended)
    }

    /// A start that came to nothing leaves its row as well.
    ///
    /// # Errors
    /// When neither PostgreSQL nor the spool can take it.
    pub fn record_skipped(&self, start: RunStart, reason: &str) -> Result<(), JournalError> {
        let mut outcome = Outcome::bare(start, Status::Skipped, clock::now());
        outcome.error = Some(RunError::new(ErrorKind::Internal, reason));
        let kept = self.kept.take().map(Ok);
        let connected = kept.unwrap_or_else(|| self.session());
        if connected.is_ok() {
            outcome.on_server_clock(self.clock_offset());
        }
        let stored = match connected {
            Ok(mut client) => match store::apply(&mut client, &outcome, &self.policy) {
                Ok(_) => {
                    self.kept.give_back(client);
                    return Ok(());
                }
                Err(e) => e.to_string(),
            },
            Err(DbUnavailable::Schema(e)) if e.is_for_a_person() => {
                return Err(DbUnavailable::Schema(e).into());
            }
            Err(e) => e.to_string(),
        };
        tracing::info!("the skipped run is spooled: {stored}");
        self.spool()
            .and_then(|mut s| s.put(&[Record::Outcome(Box::new(outcome))]))
            .map_err(JournalError::from)
    }

    /// Stores an outcome: in PostgreSQL if at all possible, else in the spool.
    ///
    /// # Errors
    /// When neither can take it.
    pub fn finish(&self, run: Run, mut outcome: Outcome) -> Result<Persisted, JournalError> {
        let id = outcome.start.id;
        // As it was measured when the run began: the outcome's times go on from there, whatever the clocks have done since.
        if let Some(offset) = run.clock_offset {
            outcome.on_server_clock(offset);
        }
        outcome.start.other_day = run.start.other_day;
        let recorded = self.store_or_spool(run, outcome)?;
        raw_index::remove(&self.state, id);
        Ok(recorded)
    }

    fn store_or_spool(
        &self,
        mut run: Run,
        mut outcome: Outcome,
    ) -> Result<Persisted, JournalError> {
        failpoint::hit("run.finish.begin");
        let task = &outcome.start.task.clone();
        // Behind what waits already, or an older day would overwrite this one later.
        if run.connection.is_none() || self.waits(task) {
            self.reconnect(&mut run);
            if run.connection.is_some() && self.waits(task) {
                // Another process may be about to store it.
                let _ = self.spool().and_then(|s| s.wait_for_drain(OTHER_DRAIN));
                self.reconnect(&mut run);
            }
        }
        for last_try in [false, true] {
            if run.connection.is_some() && self.waits(task) {
                run.unreachable = Some(format!("older results of {task} wait in the spool"));
                break;
            }
            let Some(client) = &mut run.connection else {
                break;
            };
            outcome.on_server_clock(self.clock_offset());
            match store::apply(client, &outcome, &self.policy) {
                Ok(applied) => {
                    failpoint::hit("run.finish.stored");
                    if applied.refused.is_none() {
                        self.forget_notified(&outcome);
                    }
                    if let Some(client) = run.connection.take() {
                        self.kept.give_back(client);
                    }
                    return Ok(Persisted::Stored(applied));
                }
                Err(e) if e.meaning().is_passing() => {
                    if !last_try {
                        self.reconnect(&mut run);
                    } else if e.meaning() == Meaning::Unreachable {
                        run.connection = None;
                    }
                    run.unreachable = Some(e.to_string());
                }
                // Not the rows, then, but the log itself.
                Err(e) if outcome.batches.is_empty() => {
                    run.unreachable = Some(e.to_string());
                    break;
                }
                Err(e) => return self.finish_refused(run, outcome, &e),
            }
        }
        let reason = run
            .unreachable
            .unwrap_or_else(|| "PostgreSQL is down".to_owned());
        self.spool_outcome(outcome, reason, run.connection.is_some())
    }

    fn reconnect(&self, run: &mut Run) {
        run.connection = match self.session() {
            Ok(session) => Some(session),
            Err(e) => {
                run.unreachable = Some(e.to_string());
                None
            }
        };
    }

    /// Whether results of this task wait. A spool that cannot be read keeps nothing from being stored.
    fn waits(&self, task: &str) -> bool {
        self.look(|s| s.has_pending(task)).unwrap_or(false)
    }

    fn look<T>(&self, look: impl FnOnce(&Spool) -> Result<T, SpoolError>) -> Result<T, SpoolError> {
        self.kept.look(&self.state, || self.spool(), look)
    }

    /// After a success the next failure is a new one, also when it comes while PostgreSQL is down.
    fn forget_notified(&self, outcome: &Outcome) {
        if outcome.status == Status::Success {
            let _ = self.look(|s| s.forget_notified(&run_fingerprint(&outcome.start.task)));
        }
    }

    /// The rows cannot be stored as they are: record that, without them. What came is in the raw archive.
    fn finish_refused(
        &self,
        run: Run,
        mut outcome: Outcome,
        error: &StoreError,
    ) -> Result<Persisted, JournalError> {
        let misconfigured = error.meaning() == Meaning::Misconfigured;
        let archived = match outcome.details.contains_key(NOT_ARCHIVED) {
            true => "; and what came is not in the raw archive: collect it again",
            false => "",
        };
        let error = RunError::new(ErrorKind::Db, format!("{error}{archived}"));
        outcome.fail_without_rows(&error);
        self.store_or_spool(run, outcome)?;
        Ok(Persisted::Refused {
            error,
            misconfigured,
        })
    }

    /// Into the spool, with everything of which people must be notified meanwhile.
    fn spool_outcome(
        &self,
        mut outcome: Outcome,
        reason: String,
        reachable: bool,
    ) -> Result<Persisted, JournalError> {
        let mut spool = match self.spool() {
            Ok(spool) => spool,
            Err(spool) => return Err(self.lost(&outcome.start, &reason, spool)),
        };
        let is_news = |alert: &Alert| spool.is_news(alert, self.policy.repeat).unwrap_or(true);
        let own = incidents::problem(&outcome, &TaskState::default()).map(|mut event| {
            if let Event::RunFailed(run) = &mut event {
                run.history_unknown = true;
            }
            Alert::new(event)
        });
        let mut alerts: Vec<Alert> = own.into_iter().filter(is_news).collect();
        outcome.alerted = !alerts.is_empty();
        if !reachable {
            let down = self.machine_event(Fault::DatabaseUnreachable, None, &reason);
            alerts.extend(Some(Alert::new(down)).filter(is_news));
        }
        self.forget_notified(&outcome);
        let full = match spool.put(&records(&outcome, &alerts)) {
            Ok(()) => return Ok(Persisted::Spooled { reason }),
            Err(full @ SpoolError::Full { .. }) => full,
            Err(spool) => return Err(self.lost(&outcome.start, &reason, spool)),
        };
        let error = RunError::new(ErrorKind::Internal, full.to_string());
        outcome.status = Status::Failed;
        outcome.error = Some(error);
        outcome.batches.clear();
        outcome.rejects.clear();
        let alert = Alert::new(self.machine_event(Fault::SpoolFull, None, &full.to_string()));
        if spool.is_news(&alert, self.policy.repeat).unwrap_or(true) {
            alerts.push(alert);
        }
        if let Err(e) = spool.put(&records(&outcome, &alerts)) {
            tracing::error!("not even the failure fits: {e}");
        }
        Err(full.into())
    }

    /// Notifies, by way of the spool, that PostgreSQL cannot be used.
    pub fn report_unreachable(&self, why: &DbUnavailable) {
        let mut event = self.machine_event(why.fault(), None, &why.to_string());
        if let Event::Machine { schema, .. } = &mut event {
            *schema = why.versions();
        }
        self.spool_event(event);
    }

    /// This machine's name in the run log.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }
}

/// The facts that an outcome puts into the spool.
fn records(outcome: &Outcome, alerts: &[Alert]) -> Vec<Record> {
    let alerts = alerts.iter().cloned().map(Record::Alert);
    std::iter::once(Record::Outcome(Box::new(outcome.clone())))
        .chain(alerts)
        .collect()
}

/// What the server's clock is ahead of this process's. The server looks at its own on the way, see `oa.watch_clock`.
fn watch_clocks(client: &mut Client) -> Result<TimeDelta, DbUnavailable> {
    let (ours, asked) = (clock::now(), Instant::now());
    let row = client
        .query_one(
            // To read so long a function takes longer than all else, and within a minute of the last time it does nothing.
            "SELECT clock_timestamp(), CASE WHEN NOT coalesce((SELECT latest BETWEEN now() - interval '1 minute' AND now() + interval '1 minute'
               FROM oa.clock), false) THEN oa.watch_clock()::text END",
            &[],
        )
        .map_err(|e| DbUnavailable::Schema(schema::SchemaError::Query(e)))?;
    let theirs: DateTime<Utc> = row.get(0);
    Ok(theirs - (ours + asked.elapsed() / 2))
}
