//! The run log in PostgreSQL. Every function may be called twice with the same fact and then changes nothing the second time,
//! because a connection may break after the commit and before its confirmation.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use postgres::Client;
use serde_json::{Value, json};
use uuid::Uuid;

use super::rows::{self, Stored};
use super::{days, slots};
use crate::base::exact;
use crate::base::supervise::ProcessId;
use crate::base::text::{error_text, printable_json};
use crate::journal::incidents::{self, Policy};
use crate::model::event::run_fingerprint;
use crate::model::retry::ErrorKind;
use crate::model::{Attempt, Outcome, Reject, RunError, RunStart, Status};
use crate::pg::upsert::UpsertError;
use crate::pg::{Connection, Meaning, Prepared, Tx, describe};

/// A fact could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The rows could not.
    #[error(transparent)]
    Upsert(#[from] UpsertError),
    /// The run log could not.
    #[error("could not write the run log: {}", describe(.0))]
    Database(#[from] postgres::Error),
}

impl StoreError {
    /// What it means for whoever wanted to store something.
    #[must_use]
    pub fn meaning(&self) -> Meaning {
        match self {
            Self::Upsert(e) => e.meaning(),
            Self::Database(e) => Meaning::of(e),
        }
    }
}

/// What storing an outcome did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteCounts {
    /// Rows that were not there.
    pub inserted: u64,
    /// Rows that were there with other values.
    pub updated: u64,
    /// Rows that were there just so.
    pub unchanged: u64,
    /// Records that are in `oa.rejects` now.
    pub rejected: u64,
    /// An alert went into the outbox.
    pub alerted: bool,
    /// What came is the content of this earlier day, so that the run is no success.
    pub repeated: Option<NaiveDate>,
    /// PostgreSQL has refused so many rows that the run is no success: how it ended then, and why.
    pub refused: Option<(Status, RunError)>,
}

/// What came of an attempt to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lease {
    /// Another run has done the slot that this one is for.
    AlreadyDone,
    /// The task is ours.
    Acquired,
    /// It runs elsewhere; the skipped run is recorded.
    HeldBy {
        /// The machine on which it runs.
        host: String,
    },
}

/// Records the start, at what the server's clock shows now, and takes the task's lease. A lease whose process is known to be gone is
/// free before it is over.
///
/// # Errors
/// When PostgreSQL fails.
pub fn begin(client: &mut impl Connection, start: &RunStart) -> Result<Lease, StoreError> {
    let mut own = Prepared::default();
    let (client, prepared) = client.parts(&mut own);
    // By itself: making one locks all of oa.runs, and nobody need wait for that until the run's transaction ends.
    prepared.execute(client, "SELECT oa.ensure_partitions()", &[])?;
    let mut transaction = client.transaction()?;
    let mut tx = Tx::new(&mut transaction, prepared);
    upsert_task(&mut tx, start)?;
    if let Some(host) = leased_by(&mut tx, start)? {
        insert_run(&mut tx, start, Status::Skipped, true)?;
        let why = format!("the task runs on {host}");
        tx.execute(
            "UPDATE oa.runs SET finished_at = started_at, error_message = $2 WHERE id = $1 AND finished_at IS NULL",
            &[&start.id, &why],
        )?;
        let day = start.day.unwrap_or_default();
        slots::after_run(&mut tx, start, Status::Skipped, Some(&why), None, day)?;
        transaction.commit()?;
        return Ok(Lease::HeldBy { host });
    }
    if let Some(due) = start.due_at
        && !slots::is_open(&mut tx, &start.task, due)?
    {
        return Ok(Lease::AlreadyDone);
    }
    let due_at = match start.due_at {
        Some(due) => Some(due),
        None => {
            let now = tx.query_one("SELECT now()", &[])?.get(0);
            slots::named_by(&mut tx, start, now)?
        }
    };
    let named = RunStart {
        due_at,
        ..start.clone()
    };
    if !insert_run(&mut tx, &named, Status::Running, true)?
        && let Some(host) = skipped_for(&mut tx, start)?
    {
        return Ok(Lease::HeldBy { host });
    }
    tx.execute(
        "UPDATE oa.tasks SET lease_run_id = $2, lease_host = $3, lease_machine = $5, lease_until = now() + make_interval(secs => $4),
                last_run_id = $2, last_status = 'running', last_started_at = now(), last_seq = (SELECT seq FROM oa.runs WHERE id = $2)
         WHERE name = $1",
        &[&start.task, &start.id, &start.process.host, &start.lease.as_secs_f64(), &start.process.machine_id],
    )?;
    transaction.commit()?;
    Ok(Lease::Acquired)
}

/// The machine that holds the task, unless its process there is gone, or it holds it for this run.
fn leased_by(tx: &mut Tx<'_, '_>, start: &RunStart) -> Result<Option<String>, postgres::Error> {
    let lease = tx.query_opt(
        "SELECT lease_run_id, lease_host FROM oa.tasks WHERE name = $1 AND lease_until > now() AND lease_run_id IS DISTINCT FROM $2 FOR UPDATE",
        &[&start.task, &start.id],
    )?;
    let Some((run, host)) = lease.map(|r| (r.get::<_, Option<Uuid>>(0), r.get(1))) else {
        return Ok(None);
    };
    let process = tx.query_opt(
        "SELECT host, machine_id, boot_id, pid, pid_started, finished_at IS NOT NULL FROM oa.runs WHERE id = $1",
        &[&run],
    )?;
    let gone = process.is_some_and(|r| r.get(5) || !process_of(&r, 0).is_alive().unwrap_or(true));
    Ok(if gone { None } else { host })
}

/// For which machine this start was skipped when it was recorded before. The task may be free by now, but the run is over.
fn skipped_for(tx: &mut Tx<'_, '_>, start: &RunStart) -> Result<Option<String>, postgres::Error> {
    let row = tx.query_opt(
        "SELECT coalesce(t.lease_host, 'another machine') FROM oa.runs r JOIN oa.tasks t ON t.name = r.task WHERE r.id = $1 AND r.finished_at IS NOT NULL",
        &[&start.id],
    )?;
    Ok(row.map(|r| r.get(0)))
}

/// The process whose five columns begin there.
pub(super) fn process_of(row: &postgres::Row, first: usize) -> ProcessId {
    ProcessId {
        host: row.get(first),
        machine_id: row.get(first + 1),
        boot_id: row.get(first + 2),
        pid: row.get(first + 3),
        pid_started: row.get(first + 4),
    }
}

/// Whether the run log has a run of this task under that id.
///
/// # Errors
/// When PostgreSQL fails.
pub fn is_run_of(client: &mut Client, id: Uuid, task: &str) -> Result<bool, postgres::Error> {
    let found = client.query_opt(
        "SELECT 1 FROM oa.runs WHERE id = $1 AND task = $2",
        &[&id, &task],
    )?;
    Ok(found.is_some())
}

fn upsert_task(tx: &mut Tx<'_, '_>, start: &RunStart) -> Result<(), postgres::Error> {
    tx.execute(
        "INSERT INTO oa.tasks (name, tool, title, schedule) VALUES ($1, $2, $3, $4)
         ON CONFLICT (name) DO UPDATE SET tool = EXCLUDED.tool, title = EXCLUDED.title, schedule = coalesce(EXCLUDED.schedule, tasks.schedule)
         WHERE (tasks.tool, tasks.title, tasks.schedule) IS DISTINCT FROM (EXCLUDED.tool, EXCLUDED.title, coalesce(EXCLUDED.schedule, tasks.schedule))",
        &[&start.task, &start.tool, &start.title, &start.schedule],
    )?;
    Ok(())
}

/// `begins`: it starts now. Else it has started before, and not after now, whatever the machine's clock said. Returns whether
/// the run was not known.
fn insert_run(
    tx: &mut Tx<'_, '_>,
    start: &RunStart,
    status: Status,
    begins: bool,
) -> Result<bool, postgres::Error> {
    let inserted = tx.execute(
        "INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at, lease_until,
                              due_at, other_day, clock_offset)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, CASE WHEN $14 THEN now() ELSE least($12, now()) END,
                 now() + make_interval(secs => $13), $15, $16, $17)
         ON CONFLICT (id) DO NOTHING",
        &[
            &start.id,
            &start.tool,
            &start.task,
            &start.trigger.as_str(),
            &start.process.host,
            &start.process.machine_id,
            &start.process.boot_id,
            &start.process.pid,
            &start.process.pid_started,
            &start.version,
            &status.as_str(),
            &start.started_at,
            &start.lease.as_secs_f64(),
            &begins,
            &start.due_at,
            &start.other_day,
            &start.clock_offset,
        ],
    )?;
    Ok(inserted > 0)
}

/// Makes the partitions for a run of that time, in a transaction of its own as for [`begin`].
const PARTITIONS: &str = "SELECT oa.ensure_partitions($1)";

/// Records a start that was made while PostgreSQL was down. Does nothing when the run is known.
///
/// # Errors
/// When PostgreSQL fails.
pub fn apply_start(client: &mut Client, start: &RunStart) -> Result<(), StoreError> {
    let mut own = Prepared::default();
    own.execute(client, PARTITIONS, &[&start.started_at])?;
    let mut transaction = client.transaction()?;
    let mut tx = Tx::new(&mut transaction, &mut own);
    upsert_task(&mut tx, start)?;
    insert_past_run(&mut tx, start)?;
    transaction.commit()?;
    Ok(())
}

/// A run that began while PostgreSQL was down names its slot now, by the time of its start.
fn insert_past_run(tx: &mut Tx<'_, '_>, start: &RunStart) -> Result<bool, postgres::Error> {
    let named = RunStart {
        due_at: slots::named_by(tx, start, start.started_at)?,
        ..start.clone()
    };
    insert_run(tx, &named, Status::Running, false)
}

/// Records a try that is followed by another, and renews the lease.
///
/// # Errors
/// When PostgreSQL fails.
pub fn record_attempt(
    client: &mut Client,
    start: &RunStart,
    attempt: &Attempt,
) -> Result<(), StoreError> {
    let (mut own, mut transaction) = (Prepared::default(), client.transaction()?);
    let mut tx = Tx::new(&mut transaction, &mut own);
    let lease = start.lease.as_secs_f64();
    tx.execute(
        "UPDATE oa.tasks SET last_status = 'retrying', lease_until = now() + make_interval(secs => $3) WHERE name = $1 AND lease_run_id = $2",
        &[&start.task, &start.id, &lease],
    )?;
    tx.execute(
        "UPDATE oa.runs SET status = 'retrying', attempts = $2, error_kind = $3, error_message = $4,
                lease_until = now() + make_interval(secs => $5)
         WHERE id = $1 AND finished_at IS NULL",
        &[
            &start.id,
            &(attempt.number as i32),
            &attempt.error.as_ref().map(|e| e.kind.as_str()),
            &attempt.error.as_ref().map(|e| e.message.as_str()),
            &lease,
        ],
    )?;
    insert_attempts(&mut tx, start.id, std::slice::from_ref(attempt))?;
    transaction.commit()?;
    Ok(())
}

/// Stores an outcome in one transaction: rows, rejects, archive index, quality, the run's final state, the task's state, its day, and
/// an alert where one is due. Does nothing when the run already has its final state. Rows that PostgreSQL refuses
/// become rejects.
///
/// # Errors
/// When PostgreSQL fails or refuses the rows as a whole; nothing is stored then.
pub fn apply(
    client: &mut impl Connection,
    outcome: &Outcome,
    policy: &Policy,
) -> Result<WriteCounts, StoreError> {
    let mut own = Prepared::default();
    let (client, prepared) = client.parts(&mut own);
    prepared.execute(client, PARTITIONS, &[&outcome.start.started_at])?;
    let mut transaction = client.transaction()?;
    let applied = apply_in(&mut Tx::new(&mut transaction, prepared), outcome, policy)?;
    transaction.commit()?;
    Ok(applied)
}

/// Where the run has its final state already, nothing is written.
fn apply_in(
    tx: &mut Tx<'_, '_>,
    outcome: &Outcome,
    policy: &Policy,
) -> Result<WriteCounts, StoreError> {
    let start = &outcome.start;
    upsert_task(tx, start)?;
    match outcome.status {
        Status::Skipped => insert_run(tx, start, Status::Running, false)?,
        _ => insert_past_run(tx, start)?,
    };
    let run = tx.query_one(
        "SELECT finished_at IS NOT NULL AND status <> 'abandoned', inserted, updated, unchanged, rejected, status = 'abandoned', now(), seq, due_at,
                status, error_kind, error_message
         FROM oa.runs WHERE id = $1 FOR UPDATE",
        &[&start.id],
    )?;
    // What the run could not know: it had no connection then, or another run was faster.
    let repeated = days::repeated(tx, outcome)?;
    let unseen = repeated.filter(|_| outcome.status == Status::Success);
    if run.get(0) {
        let count = |i| run.get::<_, i64>(i).unsigned_abs();
        return Ok(WriteCounts {
            inserted: count(1),
            updated: count(2),
            unchanged: count(3),
            rejected: count(4),
            // Perhaps, and nobody has said so.
            alerted: outcome.status != Status::Success,
            repeated: unseen,
            refused: match (outcome.status, unseen) {
                (Status::Success, None) => ended_otherwise(&run, 9),
                (Status::Partial, None) => {
                    ended_otherwise(&run, 9).filter(|(status, _)| *status == Status::Failed)
                }
                _ => None,
            },
        });
    }
    let stale = outcome.day.as_ref().zip(unseen);
    let stale = stale.map(|(of, earlier)| days::as_stale(outcome, of, earlier));
    let outcome = stale.as_ref().unwrap_or(outcome);
    let times = Times::of(outcome, run.get(6));
    let stored = rows::store(tx, outcome, policy)?;
    let refused = stored.too_many_refused(outcome);
    let short = refused.as_ref().map(|why| as_refused(outcome, why));
    let outcome = short.as_ref().unwrap_or(outcome);
    let Stored {
        inserted,
        updated,
        unchanged,
        findings,
        ..
    } = stored;
    let mut applied = WriteCounts {
        inserted,
        updated,
        unchanged,
        repeated: unseen,
        refused,
        ..WriteCounts::default()
    };
    let mut rejects = outcome.rejects.clone();
    rejects.extend(stored.refused);
    applied.rejected = rejects.len() as u64;
    insert_attempts(tx, start.id, &outcome.attempts)?;
    insert_rejects(tx, start, &rejects)?;
    insert_raw(tx, outcome)?;
    insert_quality(tx, outcome, &findings, applied.rejected)?;
    tx.execute(
        "UPDATE oa.runs SET status = $2, started_at = least(started_at, $13), finished_at = $3, attempts = $4, fetched = $5, inserted = $6,
                updated = $7, unchanged = $8, rejected = $9, error_kind = $10, error_message = $11, details = $12, lease_until = NULL
         WHERE id = $1",
        &[
            &start.id,
            &outcome.status.as_str(),
            &times.finished,
            &(outcome.attempts.len() as i32),
            &(outcome.fetched as i64),
            &(applied.inserted as i64),
            &(applied.updated as i64),
            &(applied.unchanged as i64),
            &(applied.rejected as i64),
            &outcome.error.as_ref().map(|e| e.kind.as_str()),
            &outcome.error.as_ref().map(|e| e.message.as_str()),
            &printable_json(&Value::Object(outcome.details.clone())),
            &times.started,
        ],
    )?;
    let state = update_task(tx, outcome, times, run.get(7), run.get(5))?;
    let refused = applied.rejected > outcome.rejects.len() as u64;
    days::record(tx, outcome, refused, repeated.is_some(), times.finished)?;
    let error = outcome.error.as_ref().map(|e| e.message.as_str());
    let (due_at, day) = (run.get(8), day_of(outcome, run.get(8), times, policy));
    slots::after_run(tx, start, outcome.status, error, due_at, day)?;
    // A row that PostgreSQL refused is not where the check looks.
    let by_check = outcome.reported_by_check && applied.rejected == 0;
    let is_over = outcome.status == Status::Success
        && !incidents::is_open(tx, &run_fingerprint(&start.task))?;
    if !outcome.alerted && !by_check && !is_over {
        applied.alerted = incidents::after_run(tx, outcome, &state, policy)?;
    }
    Ok(applied)
}

/// The day that a run is about; for one that is about none the day of its slot, or the one on which it started.
fn day_of(
    outcome: &Outcome,
    due_at: Option<DateTime<Utc>>,
    times: Times,
    policy: &Policy,
) -> NaiveDate {
    let at = due_at.unwrap_or(times.started);
    let day = outcome.start.day;
    day.unwrap_or_else(|| at.with_timezone(&policy.timezone).date_naive())
}

/// When an outcome's run started and ended, by the server's clock: not after now, whatever clock has measured it.
#[derive(Clone, Copy)]
pub(super) struct Times {
    started: DateTime<Utc>,
    finished: DateTime<Utc>,
}

impl Times {
    pub(super) fn of(outcome: &Outcome, now: DateTime<Utc>) -> Self {
        let finished = outcome.finished_at.min(now);
        let took = (outcome.finished_at - outcome.start.started_at).max(TimeDelta::zero());
        Self {
            started: finished - took,
            finished,
        }
    }
}

/// How a run ended that is known already, from three columns of its row, where it was no success.
fn ended_otherwise(row: &postgres::Row, first: usize) -> Option<(Status, RunError)> {
    let status: &str = row.get(first);
    let status = [Status::Partial, Status::Failed]
        .into_iter()
        .find(|s| s.as_str() == status)?;
    let kind = ErrorKind::parse(row.get::<_, Option<&str>>(first + 1)?)?;
    let message: Option<&str> = row.get(first + 2);
    Some((status, RunError::new(kind, message.unwrap_or_default())))
}

/// The outcome of a run of whose rows PostgreSQL has refused too many.
fn as_refused(outcome: &Outcome, (status, error): &(Status, RunError)) -> Outcome {
    let mut short = outcome.clone();
    short.status = *status;
    short.error = Some(error.clone());
    if let Some(last) = short.attempts.last_mut() {
        last.outcome = *status;
        last.error = Some(error.clone());
    }
    // Its fields are no example for the next run.
    short.shape = None;
    short
}

fn insert_attempts(
    tx: &mut Tx<'_, '_>,
    run: Uuid,
    attempts: &[Attempt],
) -> Result<(), postgres::Error> {
    for attempt in attempts {
        tx.execute(
            "INSERT INTO oa.attempts (run_id, attempt, started_at, finished_at, outcome, error_kind, error_message)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
            &[
                &run,
                &(attempt.number as i32),
                &attempt.started_at,
                &attempt.finished_at,
                &attempt.outcome.as_str(),
                &attempt.error.as_ref().map(|e| e.kind.as_str()),
                &attempt.error.as_ref().map(|e| e.message.as_str()),
            ],
        )?;
    }
    Ok(())
}

fn insert_rejects(
    tx: &mut Tx<'_, '_>,
    start: &RunStart,
    rejects: &[Reject],
) -> Result<(), postgres::Error> {
    if rejects.is_empty() {
        return Ok(());
    }
    let statement =
        "INSERT INTO oa.rejects (run_id, seq, task, target, source_key, field, reason, record, raw)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb, $9) ON CONFLICT DO NOTHING";
    for (seq, reject) in rejects.iter().enumerate() {
        // jsonb cannot hold U+0000; such a record is kept as bytes instead.
        let text = exact::to_text(&reject.record);
        let (record, raw) = if text.contains("\\u0000") {
            (None, Some(text.into_bytes()))
        } else {
            (Some(text), None)
        };
        let reason = error_text(&reject.reason);
        let source_key = reject.source_key.as_deref().map(error_text);
        let field = reject.field.as_deref().map(error_text);
        tx.execute(
            statement,
            &[
                &start.id,
                &(seq as i64),
                &start.task,
                &reject.target,
                &source_key,
                &field,
                &reason,
                &record,
                &raw,
            ],
        )?;
    }
    Ok(())
}

pub(super) fn insert_raw(tx: &mut Tx<'_, '_>, outcome: &Outcome) -> Result<(), postgres::Error> {
    if outcome.raw.is_empty() {
        return Ok(());
    }
    let statement = "INSERT INTO oa.raw (run_id, seq, attempt, url, status, content_type, sha256, size_bytes, stored_bytes, fetched_at, part)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING";
    for (seq, raw) in outcome.raw.iter().enumerate() {
        tx.execute(
            statement,
            &[
                &outcome.start.id,
                &(seq as i32),
                &(raw.attempt as i32),
                &raw.url,
                &i32::from(raw.status),
                &raw.content_type,
                &raw.sha256,
                &(raw.size_bytes as i64),
                &(raw.stored_bytes as i64),
                &raw.fetched_at,
                &raw.part,
            ],
        )?;
    }
    Ok(())
}

fn insert_quality(
    tx: &mut Tx<'_, '_>,
    outcome: &Outcome,
    rounded: &[String],
    rejected: u64,
) -> Result<(), postgres::Error> {
    let Some(quality) = &outcome.quality else {
        return Ok(());
    };
    let findings: Vec<String> = quality
        .findings
        .iter()
        .chain(rounded)
        .map(|f| error_text(f))
        .collect();
    tx.execute(
        "INSERT INTO oa.quality (run_id, task, day, expected, collected, completeness, duplicates, fresh, score, findings)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
        &[
            &outcome.start.id,
            &outcome.start.task,
            &quality.day,
            &quality.expected.map(|n| n as i64),
            &(quality.collected as i64),
            &quality.completeness(),
            &(quality.duplicates as i64),
            &quality.fresh,
            &quality.score(rejected),
            &json!(findings),
        ],
    )?;
    Ok(())
}

/// A task's state as an outcome finds it.
#[derive(Debug, Clone, Default)]
pub struct TaskState {
    /// Runs that failed since the last success, this one included.
    pub consecutive_failures: i32,
    /// Start of the first of them.
    pub failing_since: Option<DateTime<Utc>>,
    /// End of the last success before this outcome.
    pub last_success_at: Option<DateTime<Utc>>,
    /// The outcome is older than what is already known (a late replay), so it says nothing about the present.
    pub outdated: bool,
}

/// The lease of a task, if the run `$2` holds it.
const LEASE_ENDS: &str = "lease_host = CASE WHEN lease_run_id = $2 THEN NULL ELSE lease_host END,
    lease_machine = CASE WHEN lease_run_id = $2 THEN NULL ELSE lease_machine END,
    lease_until = CASE WHEN lease_run_id = $2 THEN NULL ELSE lease_until END,
    lease_run_id = CASE WHEN lease_run_id = $2 THEN NULL ELSE lease_run_id END";

/// `counted`: the run was taken for abandoned before its outcome arrived, and so already counts as a failure.
pub(super) fn update_task(
    tx: &mut Tx<'_, '_>,
    outcome: &Outcome,
    times: Times,
    seq: i64,
    counted: bool,
) -> Result<TaskState, postgres::Error> {
    let start = &outcome.start;
    // Newer is what the server took later; but what waited in a spool may have started before what another machine has recorded since.
    let row = tx.query_one(
        "SELECT consecutive_failures, failing_since, last_success_at,
                last_finished_at IS NOT NULL AND last_run_id <> $3
                  AND (coalesce(last_seq, 0) > $4 OR (last_started_at > $2 AND last_started_at <= now()))
         FROM oa.tasks WHERE name = $1 FOR UPDATE",
        &[&start.task, &times.started, &start.id, &seq],
    )?;
    let mut state = TaskState {
        consecutive_failures: row.get(0),
        failing_since: row.get(1),
        last_success_at: row.get(2),
        outdated: row.get(3),
    };
    state.outdated |= outcome.status == Status::Skipped;
    if state.outdated {
        let success = (outcome.status == Status::Success).then_some(times.finished);
        tx.execute(
            &format!("UPDATE oa.tasks SET last_success_at = greatest(last_success_at, $3), {LEASE_ENDS} WHERE name = $1"),
            &[&start.task, &start.id, &success],
        )?;
        return Ok(state);
    }
    let failed = matches!(
        outcome.status,
        Status::Failed | Status::Timeout | Status::Abandoned
    );
    if failed && !counted {
        state.consecutive_failures += 1;
        state.failing_since.get_or_insert(times.started);
    }
    let (failures, since) = match outcome.status {
        Status::Success => (0, None),
        _ => (state.consecutive_failures, state.failing_since),
    };
    tx.execute(
        &format!(
            "UPDATE oa.tasks SET last_run_id = $2, last_status = $3, last_started_at = $4, last_finished_at = $5,
                    last_success_at = CASE WHEN $3 = 'success' THEN $5 ELSE last_success_at END,
                    last_error = $6, consecutive_failures = $7, failing_since = $8, next_due_at = coalesce($9, next_due_at), shape = coalesce($10, shape),
                    last_seq = $11, provider = coalesce($12, provider), {LEASE_ENDS}
             WHERE name = $1"
        ),
        &[
            &start.task,
            &start.id,
            &outcome.status.as_str(),
            &times.started,
            &times.finished,
            &outcome.error.as_ref().map(|e| e.message.as_str()),
            &failures,
            &since,
            &outcome.next_due_at,
            &outcome.shape,
            &seq,
            &outcome.details.get("provider").and_then(|p| p.as_str()),
        ],
    )?;
    Ok(state)
}
