//! Slots: the times at which tasks should run, written ahead and closed once.
//!
//! ```text
//! open ──▶ done         a run of it has ended, well or not: the run's status says how
//!      ──▶ missed       none began, and none will: a hole until a later run of its day fills it
//!      ──▶ unfetchable  none began, and the site shows that day no more
//!      ──▶ skipped      it was not to be: the run before it went on, or the task was retired
//! ```
//! A run closes the slot that it names, in the transaction of its outcome; nothing is concluded from one time being later than another.
//! A run that was killed leaves its slot open for the next, three times at most. Everything here is by the server's clock, and a slot
//! that is not due is closed by nobody.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use postgres::error::SqlState;
use postgres::{GenericClient, Transaction};

use super::tasks;
use crate::model::event::MissedEnd;
use crate::model::run::Trigger;
use crate::model::{RunStart, Status};
use crate::pg::Tx;
use crate::schedule::{CatchUp, DueTime};

/// A clock that is right may differ by this from the server's.
const TOLERANCE: &str = "10 seconds";
/// So many runs of one slot may be killed.
const KILLED: i64 = 3;

/// How a slot ends that no run has closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmade {
    /// No run of it will begin.
    Missed,
    /// The site shows its day no more.
    Unfetchable,
    /// Its runs were killed: the task itself kills them.
    Killed,
    /// It was not to be: when it was due the site did not show its day any more.
    Impossible,
}

impl Unmade {
    fn as_str(self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::Unfetchable => "unfetchable",
            Self::Killed => "done",
            Self::Impossible => "skipped",
        }
    }
}

/// A slot that is due and open, and whose task does not run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSlot {
    /// When it was due.
    pub due_at: DateTime<Utc>,
    /// The day that its run is for.
    pub day: NaiveDate,
    /// It is for a day that is over and has had its own slots: only others of the kind stand for it.
    pub again: bool,
    /// The day of the next slot of its kind that is due, open or not; `None`: it is the last one.
    pub next_day: Option<NaiveDate>,
    /// It was due since the task is expected to run; what was before is not missed.
    pub owed: bool,
    /// So many runs of it were killed.
    pub killed: i64,
    /// The task's last run failed.
    pub failing: bool,
}

/// What is due and open of these tasks, by task and time; nothing of a task that runs now. Each task has a delay of its own, before which
/// nothing of it is due.
///
/// # Errors
/// When PostgreSQL fails.
pub fn open(
    client: &mut impl GenericClient,
    tasks: &[(&str, TimeDelta)],
) -> Result<BTreeMap<String, Vec<OpenSlot>>, postgres::Error> {
    let names: Vec<&str> = tasks.iter().map(|(name, _)| *name).collect();
    let delays: Vec<f64> = tasks.iter().map(|(_, d)| d.as_seconds_f64()).collect();
    let rows = client.query(
        "SELECT s.task, s.due_at, s.day, next.day, s.owed,
                (SELECT count(*) FROM oa.runs r
                 WHERE r.task = s.task AND r.status = 'abandoned' AND r.due_at = s.due_at AND r.started_at >= s.due_at - interval '1 minute'),
                t.consecutive_failures > 0, s.again
         FROM oa.slots s JOIN unnest($1::text[], $2::float8[]) x (task, delay) USING (task) JOIN oa.tasks t ON t.name = s.task
         LEFT JOIN LATERAL (SELECT n.day FROM oa.slots n WHERE n.task = s.task AND n.again = s.again AND n.due_at > s.due_at AND n.due_at <= now() - make_interval(secs => x.delay)
                            ORDER BY n.due_at LIMIT 1) next ON true
         WHERE s.state = 'open' AND s.due_at <= now() AND s.due_at <= now() - make_interval(secs => x.delay)
           AND (t.lease_until IS NULL OR t.lease_until < now())
         ORDER BY s.task, s.due_at",
        &[&names, &delays],
    )?;
    let mut found: BTreeMap<String, Vec<OpenSlot>> = BTreeMap::new();
    for row in &rows {
        found.entry(row.get(0)).or_default().push(OpenSlot {
            due_at: row.get(1),
            day: row.get(2),
            next_day: row.get(3),
            owed: row.get(4),
            killed: row.get(5),
            failing: row.get(6),
            again: row.get(7),
        });
    }
    Ok(found)
}

/// How a task makes up for what it missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Which slots.
    pub catch_up: CatchUp,
    /// No more than so many.
    pub limit: usize,
    /// None that is older.
    pub age: TimeDelta,
}

/// What is done with the open slots of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// These are run, in this order, each for its day.
    pub run: Vec<(DateTime<Utc>, NaiveDate)>,
    /// These are closed, each for this reason.
    pub close: Vec<(DateTime<Utc>, Unmade, String)>,
    /// These were due before the task was expected to run, and go.
    pub drop: Vec<DateTime<Utc>>,
}

impl Decision {
    fn leave(&mut self, slot: &OpenSlot, how: Unmade, reason: &str) {
        if slot.owed {
            self.close.push((slot.due_at, how, reason.to_owned()));
        } else {
            self.drop.push(slot.due_at);
        }
    }
}

/// Decides about the slots of one task, in the order of [`open`]. `closed_now` says why nothing can be run at this time of the day,
/// `cannot_show` why the site does not show a day.
pub fn decide(
    open: &[OpenSlot],
    policy: Policy,
    now: DateTime<Utc>,
    closed_now: Option<&str>,
    cannot_show: impl Fn(NaiveDate) -> Option<String>,
) -> Decision {
    let mut decision = Decision::default();
    for again in [false, true] {
        let of: Vec<&OpenSlot> = open.iter().filter(|slot| slot.again == again).collect();
        // A day that is over is collected at any time of another one.
        let closed_now = closed_now.filter(|_| !again);
        decide_alike(&of, policy, now, closed_now, &cannot_show, &mut decision);
    }
    decision.run.sort_unstable();
    decision
}

/// Decides about slots of one kind, which may stand for one another.
fn decide_alike(
    open: &[&OpenSlot],
    policy: Policy,
    now: DateTime<Utc>,
    closed_now: Option<&str>,
    cannot_show: &impl Fn(NaiveDate) -> Option<String>,
    decision: &mut Decision,
) {
    let mut shown: BTreeMap<NaiveDate, Option<String>> = BTreeMap::new();
    let mut candidates: Vec<&OpenSlot> = Vec::new();
    for slot in open {
        let impossible = shown
            .entry(slot.day)
            .or_insert_with(|| cannot_show(slot.day));
        if let Some(why) = impossible {
            decision.leave(slot, Unmade::Unfetchable, why);
        } else if slot.next_day == Some(slot.day) {
            // A later run brings what an earlier one would have, and none can be earlier any more.
            decision.leave(slot, Unmade::Missed, "a later one of its day stands for it");
        } else if let Some(why) = closed_now {
            decision.leave(slot, Unmade::Missed, why);
        } else if slot.killed >= KILLED {
            decision.leave(slot, Unmade::Killed, "its runs were killed three times");
        } else if now - slot.due_at > policy.age {
            decision.leave(slot, Unmade::Missed, "it was too long ago (catch_up_age)");
        } else {
            candidates.push(slot);
        }
    }
    let beyond = match policy.catch_up {
        CatchUp::Latest => 0,
        CatchUp::All => candidates.len().saturating_sub(policy.limit.max(1)),
    };
    for (number, slot) in candidates.into_iter().enumerate() {
        let last = slot.next_day.is_none();
        if policy.catch_up == CatchUp::Latest && !last {
            decision.leave(
                slot,
                Unmade::Missed,
                "only the latest is made up for (catch_up)",
            );
        } else if number < beyond {
            decision.leave(
                slot,
                Unmade::Missed,
                "too many were missed (catch_up_limit)",
            );
        } else if last || !slot.failing {
            // A site that fails is not asked for the past as well: that waits for a success, until it is too old.
            decision.run.push((slot.due_at, slot.day));
        }
    }
}

/// Closes slots that are open and that no run goes on for. One that a run closed while the clock was ahead is done by that run; one whose
/// day was collected otherwise, and later, is filled by that. The last slot of a day that closes so says what became of the day.
///
/// Returns whether that is done: not while somebody else has the task, or rows of it, locked. `waits`: for the task a short time, and else not
/// at all.
///
/// # Errors
/// When PostgreSQL fails.
pub fn close(
    client: &mut impl GenericClient,
    task: &str,
    decision: &Decision,
    waits: bool,
) -> Result<bool, postgres::Error> {
    if decision.close.is_empty() && decision.drop.is_empty() {
        return Ok(true);
    }
    let mut tx = client.transaction()?;
    match close_within(&mut tx, task, decision, waits) {
        Ok(true) => tx.commit().map(|()| true),
        Ok(false) => Ok(false),
        Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(false),
        Err(e) => Err(e),
    }
}

fn close_within(
    tx: &mut Transaction<'_>,
    task: &str,
    decision: &Decision,
    waits: bool,
) -> Result<bool, postgres::Error> {
    tasks::wait_shortly(tx)?;
    let left = match waits {
        true => tasks::lock_shortly(tx, &[task])?,
        false => tasks::lock_free(tx, &[task])?,
    };
    if !left.is_empty() {
        return Ok(false);
    }
    let due: Vec<DateTime<Utc>> = decision.close.iter().map(|c| c.0).collect();
    let states: Vec<&str> = decision.close.iter().map(|c| c.1.as_str()).collect();
    let reasons: Vec<&str> = decision.close.iter().map(|c| c.2.as_str()).collect();
    tx.execute(
        "UPDATE oa.slots s
         SET state = CASE WHEN c.run_id IS NOT NULL THEN 'done' ELSE c.state END, run_id = c.run_id, reason = c.reason, closed_at = now(),
             filled_by = c.filled_by, filled_at = CASE WHEN c.filled_by IS NOT NULL THEN now() END
         FROM (
           SELECT o.due_at, x.state, x.reason, coalesce(o.run_id, k.id) AS run_id,
                  CASE WHEN o.run_id IS NULL AND x.state <> 'done' THEN coalesce(l.run_id, d.run_id) END AS filled_by
           FROM unnest($2::timestamptz[], $3::text[], $4::text[]) x (due_at, state, reason) JOIN oa.slots o ON o.task = $1 AND o.due_at = x.due_at
           LEFT JOIN LATERAL (SELECT r.id FROM oa.runs r WHERE x.state = 'done' AND r.task = $1 AND r.status = 'abandoned' AND r.due_at = x.due_at
                              ORDER BY r.seq DESC LIMIT 1) k ON true
           LEFT JOIN LATERAL (SELECT n.run_id FROM oa.slots n JOIN oa.runs r ON r.id = n.run_id
                              WHERE n.task = $1 AND n.day = o.day AND n.due_at > o.due_at AND r.status = 'success' LIMIT 1) l ON true
           LEFT JOIN oa.days d ON d.task = $1 AND d.day = o.day AND d.state = 'complete' AND d.collected_at >= o.due_at) c
         WHERE s.task = $1 AND s.due_at = c.due_at AND s.state = 'open' AND s.due_at <= now() AND (c.state <> 'done' OR c.run_id IS NOT NULL)
           AND NOT EXISTS (SELECT FROM oa.runs r WHERE r.task = $1 AND r.due_at = s.due_at AND r.finished_at IS NULL AND r.started_at >= s.due_at - interval '1 minute')",
        &[&task, &due, &states, &reasons],
    )?;
    if !decision.drop.is_empty() {
        remove(tx, &[task], Some(&decision.drop))?;
    }
    let days = tx.query(
        "SELECT DISTINCT day FROM oa.slots WHERE task = $1 AND due_at = ANY($2)",
        &[&task, &due],
    )?;
    let days: Vec<NaiveDate> = days.iter().map(|r| r.get(0)).collect();
    settle(tx, task, &days)?;
    Ok(true)
}

/// What became of days without a run that ended: said when the last of their own slots is closed. One with a success before that is
/// partial.
fn settle(tx: &mut Transaction<'_>, task: &str, days: &[NaiveDate]) -> Result<(), postgres::Error> {
    tx.execute(
        "UPDATE oa.days d SET state = x.state, run_id = x.run_id, updated_at = now()
         FROM (
           SELECT s.day, (array_agg(r.id) FILTER (WHERE r.status = 'abandoned'))[1] AS run_id,
                  CASE WHEN bool_or(s.state = 'done') THEN 'failed' WHEN bool_or(s.state = 'unfetchable') THEN 'unfetchable'
                       WHEN bool_or(s.state = 'missed') THEN 'missing' ELSE 'skipped' END AS state
           FROM oa.slots s LEFT JOIN oa.runs r ON r.id = s.run_id WHERE s.task = $1 AND s.day = ANY($2)
           GROUP BY s.day HAVING bool_and(s.state <> 'open' OR s.again) AND NOT bool_or(s.state = 'done' AND r.status IS DISTINCT FROM 'abandoned')) x
         WHERE d.task = $1 AND d.day = x.day AND d.state = 'pending'",
        &[&task, &days],
    )?;
    // What was whole when it came is so no more when something was due later, and none brought that.
    tx.execute(
        "UPDATE oa.days d SET state = 'partial', updated_at = now()
         WHERE d.task = $1 AND d.day = ANY($2) AND d.state = 'complete'
           AND EXISTS (SELECT FROM oa.slots s WHERE s.task = d.task AND s.day = d.day AND s.state IN ('missed', 'unfetchable') AND s.owed
                       AND s.filled_by IS NULL AND s.due_at > d.collected_at)",
        &[&task, &days],
    )?;
    Ok(())
}

/// Removes slots that are to come, or those of before the task was expected, and days that have none any more.
pub(super) fn remove(
    tx: &mut Transaction<'_>,
    tasks: &[&str],
    due: Option<&[DateTime<Utc>]>,
) -> Result<(), postgres::Error> {
    tx.execute("SELECT oa.remove_slots($1, $2)", &[&tasks, &due])?;
    Ok(())
}

/// A task that is run no more: what was due and open is skipped, what is to come goes.
pub(super) fn retire(tx: &mut Transaction<'_>, task: &str) -> Result<(), postgres::Error> {
    remove(tx, &[task], None)?;
    let days = tx.query(
        "UPDATE oa.slots SET state = 'skipped', closed_at = now(), reason = 'the task is run no more: it was disabled or forgotten'
         WHERE task = $1 AND state = 'open' RETURNING day",
        &[&task],
    )?;
    let days: Vec<NaiveDate> = days.iter().map(|r| r.get(0)).collect();
    settle(tx, task, &days)
}

/// Writes slots in large pieces.
pub(super) struct Writer {
    limit: usize,
    tasks: Vec<String>,
    due: Vec<DateTime<Utc>>,
    days: Vec<NaiveDate>,
    owed: Vec<bool>,
    again: Vec<bool>,
}

impl Writer {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            tasks: Vec::new(),
            due: Vec::new(),
            days: Vec::new(),
            owed: Vec::new(),
            again: Vec::new(),
        }
    }

    pub(super) fn push(
        &mut self,
        tx: &mut Transaction<'_>,
        task: &str,
        due: DueTime,
    ) -> Result<(), postgres::Error> {
        self.add(task, due, true);
        if self.due.len() >= self.limit {
            self.flush(tx)?;
        }
        Ok(())
    }

    /// One of before the task was expected, unless a run has taken care of it before slots were written.
    pub(super) fn write_if_undone(
        &mut self,
        tx: &mut Transaction<'_>,
        task: &str,
        due: DueTime,
    ) -> Result<(), postgres::Error> {
        let done = tx.query_opt(
            "SELECT FROM oa.runs r WHERE r.task = $1 AND r.started_at >= $2 AND r.status <> 'abandoned' AND oa.takes_care(r, $2) LIMIT 1",
            &[&task, &due.at],
        )?;
        if done.is_none() {
            self.add(task, due, false);
        }
        Ok(())
    }

    fn add(&mut self, task: &str, due: DueTime, owed: bool) {
        self.tasks.push(task.to_owned());
        self.due.push(due.at);
        self.days.push(due.day);
        self.owed.push(owed);
        self.again.push(due.again);
    }

    pub(super) fn flush(&mut self, tx: &mut Transaction<'_>) -> Result<(), postgres::Error> {
        tx.execute(
            "INSERT INTO oa.slots (task, due_at, day, owed, again) SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::date[], $4::boolean[], $5::boolean[]) ON CONFLICT DO NOTHING",
            &[&self.tasks, &self.due, &self.days, &self.owed, &self.again],
        )?;
        tx.execute(
            "INSERT INTO oa.days AS d (task, day, expected, state)
             SELECT DISTINCT x.task, x.day, true, 'pending' FROM unnest($1::text[], $2::date[]) x (task, day) JOIN oa.tasks t ON t.name = x.task AND t.collects
             ON CONFLICT (task, day) DO UPDATE SET expected = true WHERE NOT d.expected",
            &[&self.tasks, &self.days],
        )?;
        self.tasks.clear();
        self.due.clear();
        self.days.clear();
        self.owed.clear();
        self.again.clear();
        Ok(())
    }
}

/// Whether the slot that a run is for is still open. One that nobody has written is.
pub(super) fn is_open(
    tx: &mut Tx<'_, '_>,
    task: &str,
    due_at: DateTime<Utc>,
) -> Result<bool, postgres::Error> {
    let row = tx.query_opt(
        "SELECT state = 'open' FROM oa.slots WHERE task = $1 AND due_at = $2",
        &[&task, &due_at],
    )?;
    Ok(row.is_none_or(|r| r.get(0)))
}

/// The slot that a run is for which names none: the open one nearest before its start, of its day; for a run that is about no day the last
/// one, if that is open. A backfill, a run about another day, and one of `run --due` that names none (of a broken file), is for none.
pub(super) fn named_by(
    tx: &mut Tx<'_, '_>,
    start: &RunStart,
    at: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, postgres::Error> {
    let for_none = matches!(start.trigger, Trigger::Backfill | Trigger::Due);
    if start.due_at.is_some() || start.other_day || for_none {
        return Ok(start.due_at);
    }
    let row = tx.query_opt(
        &format!(
            "SELECT due_at FROM (
               SELECT due_at, state FROM oa.slots
               WHERE task = $1 AND due_at <= $2::timestamptz + interval '{TOLERANCE}' AND ($3::date IS NULL OR (day = $3 AND state = 'open'))
               ORDER BY due_at <= $2, abs(extract(epoch FROM due_at - $2)) LIMIT 1) nearest
             WHERE state = 'open'"
        ),
        &[&start.task, &at, &start.day],
    )?;
    Ok(row.map(|r| r.get(0)))
}

/// What the outcome of a run means for slots. `due_at`: the one that it names; `day`: the day that it is about, or on which it ran.
pub(super) fn after_run(
    tx: &mut Tx<'_, '_>,
    start: &RunStart,
    status: Status,
    reason: Option<&str>,
    due_at: Option<DateTime<Utc>>,
    day: NaiveDate,
) -> Result<(), postgres::Error> {
    match status {
        Status::Skipped if start.trigger == Trigger::Cron => {
            // No other start of its will come.
            let closed = tx.query(
                "UPDATE oa.slots SET state = 'skipped', run_id = $2, reason = $3, closed_at = now()
                 WHERE task = $1 AND state = 'open' AND due_at BETWEEN now() - interval '90 seconds' AND now()
                   AND NOT EXISTS (SELECT FROM oa.runs r WHERE r.task = $1 AND r.due_at = oa.slots.due_at AND r.finished_at IS NULL) RETURNING day",
                &[&start.task, &start.id, &reason],
            )?;
            let days: Vec<NaiveDate> = closed.iter().map(|r| r.get(0)).collect();
            settle(tx, &start.task, &days)?;
            return Ok(());
        }
        Status::Skipped | Status::Abandoned | Status::Running | Status::Retrying => return Ok(()),
        _ => {}
    }
    if let Some(due_at) = due_at {
        // Without PostgreSQL a machine knows what is due, and no slot. What is not due by the server's clock is not done either.
        tx.execute(
            &format!(
                "INSERT INTO oa.slots AS s (task, due_at, day, state, run_id, closed_at) SELECT $1, $2, $4, 'done', $3, now()
                 WHERE $2 <= now() + interval '{TOLERANCE}'
                 ON CONFLICT (task, due_at) DO UPDATE SET state = 'done', run_id = $3, closed_at = now(), reason = NULL WHERE s.state = 'open'"
            ),
            &[&start.task, &due_at, &start.id, &day],
        )?;
    }
    if status == Status::Success {
        fill(tx, start, day, due_at)?;
    }
    Ok(())
}

/// A success fills the holes of its day, those of before it: what waited in a spool knows nothing of what was due after it. What is still
/// open of a day that has passed it closes.
fn fill(
    tx: &mut Tx<'_, '_>,
    start: &RunStart,
    day: NaiveDate,
    due_at: Option<DateTime<Utc>>,
) -> Result<(), postgres::Error> {
    tx.execute(
        &format!(
            "UPDATE oa.slots SET filled_by = $2, filled_at = now()
             WHERE task = $1 AND (day = $3 OR due_at = $4) AND state IN ('missed', 'unfetchable') AND filled_by IS NULL
               AND due_at <= (SELECT least(started_at + interval '{TOLERANCE}', now()) FROM oa.runs WHERE id = $2)"
        ),
        &[&start.task, &start.id, &day, &due_at],
    )?;
    if start.other_day {
        tx.execute(
            "UPDATE oa.slots SET state = 'done', run_id = $2, closed_at = now() WHERE task = $1 AND day = $3 AND state = 'open' AND due_at <= now()",
            &[&start.task, &start.id, &day],
        )?;
    }
    Ok(())
}

/// Waits for those of these tasks of which [`reported`] has something to mark: so not for one that stores a long outcome while people know
/// already what it misses.
///
/// # Errors
/// When PostgreSQL fails.
pub fn lock_unreported(
    client: &mut impl GenericClient,
    names: &[&str],
) -> Result<(), postgres::Error> {
    let rows = client.query(
        "SELECT DISTINCT task FROM oa.slots
         WHERE task = ANY($1) AND due_at <= now() AND state IN ('open', 'missed', 'unfetchable') AND filled_by IS NULL
           AND (reported_at IS NULL OR reported_at > now())",
        &[&names],
    )?;
    let found: Vec<&str> = rows.iter().map(|r| r.get(0)).collect();
    tasks::lock(client, &found)
}

/// Marks what is missing between these times as what people are notified of, and its days. The task's row is locked by then.
///
/// # Errors
/// When PostgreSQL fails.
pub fn reported(
    client: &mut impl GenericClient,
    task: &str,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
) -> Result<(), postgres::Error> {
    client.execute(
        "WITH news AS (
           UPDATE oa.slots SET reported_at = now()
           WHERE task = $1 AND due_at BETWEEN $2 AND least($3, now()) AND state IN ('open', 'missed', 'unfetchable') AND filled_by IS NULL
             -- Nobody was notified in the future: the clock was wrong.
             AND (reported_at IS NULL OR reported_at > now())
           RETURNING day)
         UPDATE oa.days d SET reported_at = now() FROM (SELECT DISTINCT day FROM news) n
         WHERE d.task = $1 AND d.day = n.day AND (d.reported_at IS NULL OR d.reported_at > now()) AND d.state <> 'complete'",
        &[&task, &from, &to],
    )?;
    Ok(())
}

/// What became of slots of which people were notified since then: for the end of an incident. Of one task, or of all.
///
/// # Errors
/// When PostgreSQL fails.
pub fn end_of_reported(
    client: &mut impl GenericClient,
    task: Option<&str>,
    since: DateTime<Utc>,
) -> Result<Vec<MissedEnd>, postgres::Error> {
    let rows = client.query(
        "SELECT s.task, coalesce(t.title, ''), t.backfills,
                coalesce(array_agg(DISTINCT s.day) FILTER (WHERE s.state = 'done' OR s.filled_by IS NOT NULL), '{}'),
                coalesce(array_agg(DISTINCT s.day) FILTER (WHERE s.state <> 'done' AND s.filled_by IS NULL), '{}'),
                count(*) FILTER (WHERE s.state <> 'done' AND s.filled_by IS NULL)
         FROM oa.slots s JOIN oa.tasks t ON t.name = s.task
         WHERE s.reported_at >= $2 AND ($1::text IS NULL OR s.task = $1) AND s.state <> 'skipped' GROUP BY 1, 2, 3 ORDER BY 1",
        &[&task, &since],
    )?;
    let end = |r: &postgres::Row| MissedEnd {
        task: r.get(0),
        title: r.get(1),
        backfills: r.get(2),
        made_up: r.get(3),
        left: r.get(4),
        left_count: r.get::<_, i64>(5).unsigned_abs(),
    };
    Ok(rows.iter().map(end).collect())
}

/// Closes what nobody makes up for: the slots of programs that `run --due` does not start, this long after they were due; and those of
/// sources that have run since, where nobody starts that. A run that was for it was its run, also one that was killed, or for which a clock
/// that was wrong named another slot; one that goes on longer than its lease still is.
///
/// # Errors
/// When PostgreSQL fails.
pub fn close_unmade(
    client: &mut impl GenericClient,
    grace: TimeDelta,
) -> Result<(), postgres::Error> {
    // To find out which of them nobody makes takes longer than that there is none.
    let is_due = "SELECT EXISTS (SELECT FROM oa.slots WHERE state = 'open' AND due_at < now() - make_interval(secs => $1))";
    let grace = grace.as_seconds_f64();
    if !client.query_one(is_due, &[&grace])?.get::<_, bool>(0) {
        return Ok(());
    }
    let mut tx = client.transaction()?;
    // A task whose outcome is being stored is left to the next time.
    let overdue = tx.query(
        "SELECT t.name FROM oa.tasks t
         WHERE EXISTS (SELECT FROM oa.slots s WHERE s.task = t.name AND s.state = 'open' AND s.due_at < now() - make_interval(secs => $1))
         ORDER BY t.name FOR NO KEY UPDATE SKIP LOCKED",
        &[&grace],
    )?;
    let overdue: Vec<&str> = overdue.iter().map(|r| r.get(0)).collect();
    if overdue.is_empty() {
        return Ok(());
    }
    let rows = tx.query(
        // Once a task, not once a slot: after a month there are many.
        &format!(
        "WITH idle AS MATERIALIZED (
           SELECT t.name, t.collects,
                  CASE WHEN t.collects AND NOT EXISTS (SELECT FROM oa.starts w WHERE w.what = 'due' AND w.last_at > now() - interval '2 days')
                         -- Where nothing at all could be noted, run --due is about to come.
                         AND NOT EXISTS (SELECT FROM oa.starts w WHERE w.what = 'check' AND w.gap_to > now() - interval '2 days'
                                         AND w.gap_to - w.gap_from > interval '36 hours')
                       THEN (SELECT n.due_at FROM oa.slots n WHERE n.task = t.name AND n.state = 'done' ORDER BY n.due_at DESC LIMIT 1) END AS last_done
           FROM oa.tasks t WHERE t.name = ANY($2) AND (t.lease_until IS NULL OR t.lease_until < now()))
         UPDATE oa.slots s
         SET state = CASE WHEN c.run_id IS NOT NULL THEN 'done' WHEN c.again THEN 'skipped' ELSE 'missed' END, run_id = c.run_id, closed_at = now(),
             reason = CASE WHEN c.run_id IS NOT NULL THEN NULL WHEN c.again THEN 'run --due collects a day once more, and nothing starts that' ELSE 'nothing started it' END
         FROM (
           SELECT o.task, o.due_at, o.again, coalesce(o.run_id,
             -- Named by a clock that was wrong, a run is that of the nearest slot.
             (SELECT r.id FROM oa.runs r WHERE r.task = o.task AND r.started_at BETWEEN o.due_at - e.early AND o.due_at + e.late
                AND r.due_at > r.started_at + interval '{TOLERANCE}' AND r.finished_at IS NOT NULL AND r.status NOT IN ('skipped', 'abandoned')
                -- It may have collected the day that the clock showed.
                AND NOT (t.collects AND EXISTS (SELECT FROM oa.days d WHERE d.task = o.task AND d.day = o.day AND d.state = 'pending'))
              ORDER BY r.started_at DESC, r.seq DESC LIMIT 1),
             -- One that cron started then and that names none: its own was closed at that time, by a clock that was wrong.
             (SELECT r.id FROM oa.runs r WHERE r.task = o.task AND r.started_at BETWEEN o.due_at - interval '{TOLERANCE}' AND o.due_at + e.late
                AND r.due_at IS NULL AND r.trigger = 'cron' AND r.finished_at IS NOT NULL AND r.status NOT IN ('skipped', 'abandoned')
                AND NOT (t.collects AND EXISTS (SELECT FROM oa.days d WHERE d.task = o.task AND d.day = o.day AND d.state = 'pending'))
              ORDER BY r.started_at, r.seq LIMIT 1),
             -- One that began in the future, by a clock that was wrong, began when its machine says: its id has that time.
             (SELECT r.id FROM oa.runs r WHERE r.task = o.task AND r.started_at > now() + interval '{TOLERANCE}'
                AND r.id >= oa.uuid_floor(o.due_at - e.early) AND r.id < oa.uuid_floor(o.due_at + e.late)
                AND r.finished_at IS NOT NULL AND r.status NOT IN ('skipped', 'abandoned')
                AND NOT (t.collects AND EXISTS (SELECT FROM oa.days d WHERE d.task = o.task AND d.day = o.day AND d.state = 'pending'))
              ORDER BY r.id DESC LIMIT 1),
             (SELECT r.id FROM oa.runs r WHERE r.task = o.task AND r.due_at = o.due_at AND r.status = 'abandoned' ORDER BY r.seq DESC LIMIT 1)) AS run_id
           FROM oa.slots o JOIN idle t ON t.name = o.task
           CROSS JOIN LATERAL (SELECT least(interval '12 hours', (o.due_at - max(n.due_at) FILTER (WHERE n.due_at < o.due_at)) / 2) AS early,
                                      least(interval '12 hours', (min(n.due_at) FILTER (WHERE n.due_at > o.due_at) - o.due_at) / 2) AS late
                               FROM oa.slots n WHERE n.task = o.task AND n.due_at BETWEEN o.due_at - interval '1 day' AND o.due_at + interval '1 day') e
           WHERE o.state = 'open' AND o.due_at < now() - make_interval(secs => $1) AND (NOT t.collects OR o.due_at < t.last_done)
             AND NOT EXISTS (SELECT FROM oa.runs r WHERE r.task = o.task AND r.due_at = o.due_at AND r.finished_at IS NULL)) c
         WHERE s.task = c.task AND s.due_at = c.due_at AND s.state = 'open' RETURNING s.task, s.day"),
        &[&grace, &overdue],
    )?;
    let mut days: BTreeMap<&str, Vec<NaiveDate>> = BTreeMap::new();
    for row in &rows {
        days.entry(row.get(0)).or_default().push(row.get(1));
    }
    for (task, days) in days {
        settle(&mut tx, task, &days)?;
    }
    tx.commit()
}
