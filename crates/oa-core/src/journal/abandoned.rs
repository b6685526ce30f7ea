//! Runs that ended without an outcome: killed, or their machine stopped.

use std::collections::HashSet;

use postgres::Client;
use postgres::error::SqlState;
use serde_json::Value;
use uuid::Uuid;

use super::incidents::{self, Policy};
use super::store::{StoreError, Times, insert_raw, process_of, update_task};
use super::tasks;
use crate::base::text::printable_json;
use crate::model::retry::ErrorKind;
use crate::model::{Outcome, RawRecord, RunError, RunStart, Status};
use crate::pg::{Prepared, Settings, Tx};

/// What a run that was killed has left on this machine.
#[derive(Debug, Default)]
pub struct LeftByRun {
    /// The answers that it had received.
    pub raw: Vec<RawRecord>,
    /// What its program had printed.
    pub output: Option<String>,
}

/// Finds runs whose process is gone and marks them `abandoned`, with an alert each: runs of this machine whose process does not
/// live, and runs of others whose lease is over. Call it after the spool was drained, with the runs that wait there all the same:
/// their outcome is known. `left` gives what a run has left on this machine. Returns the runs.
///
/// One whose task somebody else has locked for longer than `lock_timeout` is left to the next time; the session waits shorter for locks
/// from then on.
///
/// # Errors
/// When PostgreSQL fails.
pub fn mark_abandoned(
    client: &mut Client,
    waiting: &HashSet<Uuid>,
    left: impl Fn(&RunStart) -> LeftByRun,
    policy: &Policy,
) -> Result<Vec<Uuid>, StoreError> {
    let rows = client.query(
        "SELECT r.id, r.tool, r.task, coalesce(t.title, ''), t.schedule, r.trigger, r.host, r.machine_id, r.boot_id, r.pid, r.pid_started,
                r.version, r.started_at, r.lease_until < now(), t.next_due_at, now(), r.seq
         FROM oa.runs r LEFT JOIN oa.tasks t ON t.name = r.task WHERE r.finished_at IS NULL",
        &[],
    )?;
    let mut marked = Vec::new();
    for row in rows {
        let process = process_of(&row, 6);
        let gone = match process.is_alive() {
            Some(alive) => !alive,
            None => row.get::<_, Option<bool>>(13).unwrap_or(true),
        };
        if !gone || waiting.contains(&row.get(0)) {
            continue;
        }
        let trigger = serde_json::from_value(Value::String(row.get(5))).unwrap_or_default();
        let message = format!(
            "process {} on {} ended without recording an outcome (killed, or the machine stopped)",
            process.pid, process.host
        );
        let start = RunStart {
            id: row.get(0),
            tool: row.get(1),
            task: row.get(2),
            title: row.get(3),
            schedule: row.get(4),
            trigger,
            started_at: row.get(12),
            process,
            version: row.get(11),
            lease: std::time::Duration::ZERO,
            due_at: None,
            day: None,
            other_day: false,
            clock_offset: Some(0.0),
        };
        let (id, left) = (start.id, left(&start));
        let mut outcome = Outcome::bare(start, Status::Abandoned, row.get(15));
        outcome.error = Some(RunError::new(ErrorKind::Internal, message));
        outcome.next_due_at = row.get(14);
        outcome.raw = left.raw;
        if let Some(output) = left.output {
            let output = Value::String(output);
            outcome.details.insert("output".to_owned(), output);
        }
        match abandon(client, &outcome, row.get(16), policy) {
            Ok(true) => marked.push(id),
            Ok(false) => {}
            Err(StoreError::Database(e)) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                let task = &outcome.start.task;
                tracing::warn!(
                    "a run of {task} that was killed is marked as abandoned later: somebody else has the task locked"
                );
                Settings::hurry(client)?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(marked)
}

fn abandon(
    client: &mut Client,
    outcome: &Outcome,
    seq: i64,
    policy: &Policy,
) -> Result<bool, StoreError> {
    let mut tx = client.transaction()?;
    tasks::lock(&mut tx, &[&outcome.start.task])?;
    let changed = tx.execute(
        "UPDATE oa.runs SET status = 'abandoned', finished_at = now(), lease_until = NULL, error_kind = 'internal', error_message = $2,
                details = details || $3
         WHERE id = $1 AND finished_at IS NULL",
        &[
            &outcome.start.id,
            &outcome.error.as_ref().map(|e| e.message.as_str()),
            &printable_json(&Value::Object(outcome.details.clone())),
        ],
    )?;
    if changed == 0 {
        return Ok(false);
    }
    let mut own = Prepared::default();
    let mut prepared = Tx::new(&mut tx, &mut own);
    insert_raw(&mut prepared, outcome)?;
    let times = Times::of(outcome, outcome.finished_at);
    let state = update_task(&mut prepared, outcome, times, seq, false)?;
    incidents::after_run(&mut tx, outcome, &state, policy)?;
    tx.commit()?;
    Ok(true)
}
