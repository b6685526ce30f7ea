//! Incidents and the outbox. One fingerprint is one incident, and one row in `oa.incidents`, whose lock makes whoever raises or
//! resolves it the only one who notifies:
//!
//! ```text
//! raise(event)    closed ──────────▶ open, notified
//!                 open ────────────▶ notified again after [`Policy::repeat`], when it gets worse, or by another cause
//! resolve(event)  open ────────────▶ closed, notified; not yet while it comes and goes
//! ```
//! What is notified is an alert: a row of `oa.alerts`, committed with the fact that caused it. `oa-alert` delivers it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use postgres::{GenericClient, Transaction};
use serde_json::Value;
use uuid::Uuid;

use crate::base::secrets::redact_json;
use crate::base::text::printable_json;
use crate::journal::store::TaskState;
use crate::model::event::{
    self, Alert, Event, Fault, Kind, MissedEnd, RunFailed, Severity, Work, run_fingerprint,
};
use crate::model::retry::ErrorKind;
use crate::model::run::{Outcome, RunError, Status};
use crate::pg::Tx;

/// So many recoveries of one incident within an hour are notified; then it must stay away first.
const MOST_RECOVERIES: i64 = 3;

/// How an outcome is recorded: when people are notified of an incident that goes on, and what is kept of rows that change.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// An incident that goes on is notified again after this long.
    pub repeat: Duration,
    /// The service's zone, in which days begin.
    pub timezone: Tz,
    /// Rows that an outcome changes go into `oa.revisions`.
    pub keep_revisions: bool,
}

/// An incident as it is when somebody has its lock.
struct Incident {
    open: bool,
    opened_at: DateTime<Utc>,
    notified_at: DateTime<Utc>,
    /// Since the last notification; `None` when that is of the future: the server's clock was wrong then, so nobody knows.
    age: Option<Duration>,
    severity: Severity,
    rule: String,
    task: Option<String>,
    acknowledged: bool,
    /// Nobody was sent the last alert, because of a silence that is over.
    unheard: bool,
    /// The causes that were notified since it is open.
    causes: Vec<String>,
    /// It has come and gone too often of late.
    flaps: bool,
    /// The current time, by the server's clock.
    now: DateTime<Utc>,
    /// The last alert's event; `None` of a version that stored texts, whose title is the other one.
    event: Option<Value>,
    title: Option<String>,
}

impl Incident {
    /// Waits for the incident's lock, until the end of the transaction.
    fn lock(tx: &mut Transaction<'_>, fingerprint: &str) -> Result<Option<Self>, postgres::Error> {
        let row = tx.query_opt(
            "SELECT i.resolved_at IS NULL, i.opened_at, i.notified_at, extract(epoch FROM now() - i.notified_at)::float8, i.severity, i.rule, i.task,
                    i.acknowledged_at IS NOT NULL,
                    EXISTS (SELECT FROM oa.silences s WHERE s.id = a.silenced_by AND NOT oa.silence_holds(s, now())),
                    i.causes, (SELECT count(*) FROM unnest(i.recoveries) r WHERE r > now() - interval '1 hour' AND r <= now()) >= $2, now(), a.event, a.title
             FROM oa.incidents i LEFT JOIN oa.alerts a ON a.id = i.last_alert WHERE i.fingerprint = $1 FOR UPDATE OF i",
            &[&fingerprint, &MOST_RECOVERIES],
        )?;
        Ok(row.map(|row| {
            let seconds: f64 = row.get(3);
            Self {
                open: row.get(0),
                opened_at: row.get(1),
                notified_at: row.get(2),
                // More than a minute before now is no age.
                age: (seconds > -60.0).then(|| Duration::from_secs_f64(seconds.max(0.0))),
                severity: Severity::parse(row.get(4)),
                rule: row.get(5),
                task: row.get(6),
                acknowledged: row.get(7),
                unheard: row.get(8),
                causes: row.get(9),
                flaps: row.get(10),
                now: row.get(11),
                event: row.get(12),
                title: row.get(13),
            }
        }))
    }

    /// Whether a problem need not be notified now: that was done lately, or somebody has acknowledged it, and it has not become worse,
    /// nor has it a cause that nobody has heard of. Who has acknowledged it need hear of another cause only when that one does not heal
    /// by itself.
    fn covers(&self, problem: &Alert, policy: &Policy) -> bool {
        let worse = problem.severity == Severity::Critical && self.severity != Severity::Critical;
        let another = problem.event.cause().is_some_and(|cause| {
            let known = |known: &String| known == cause.as_str();
            !self.causes.is_empty()
                && !self.causes.iter().any(known)
                && (!self.acknowledged || !cause.is_transient())
        });
        let known = self.acknowledged || self.age.is_some_and(|age| age < policy.repeat);
        self.open && known && !worse && !another && !self.unheard
    }

    fn last_event(&self, fingerprint: &str) -> Event {
        match (&self.event, &self.title) {
            (Some(event), _) => event::from_json(event.clone(), &self.rule, fingerprint),
            (None, Some(title)) => Event::Message {
                title: title.clone(),
                body: String::new(),
            },
            (None, None) => Event::unknown(&self.rule, fingerprint),
        }
    }
}

/// Opens the incident of a problem, or goes on with it, and notifies where [`Policy`] says so. Returns whether it did.
///
/// # Errors
/// When PostgreSQL fails.
pub fn raise(
    client: &mut impl GenericClient,
    problem: Event,
    policy: &Policy,
) -> Result<bool, postgres::Error> {
    let alert = Alert::new(problem);
    let mut tx = client.transaction()?;
    let notifies = loop {
        if let Some(incident) = Incident::lock(&mut tx, &alert.fingerprint)? {
            break !incident.covers(&alert, policy);
        }
        // Nobody knows of it: the row is made, and whoever comes at the same time waits for it and finds it notified.
        if tx.execute(
            "INSERT INTO oa.incidents (fingerprint, rule, task, severity) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            &[&alert.fingerprint, &alert.rule, &alert.task, &alert.severity.as_str()],
        )? == 1 {
            break true;
        }
    };
    if notifies {
        put_at(&mut tx, &alert, None)?;
    }
    tx.commit()?;
    Ok(notifies)
}

/// Notifies once more of an open incident that nobody has acknowledged, as it was last found, unless that was done within `pause`: there is
/// more to be said of it.
///
/// # Errors
/// When PostgreSQL fails.
pub fn remind(
    client: &mut impl GenericClient,
    fingerprint: &str,
    pause: Duration,
) -> Result<bool, postgres::Error> {
    let mut tx = client.transaction()?;
    let incident = Incident::lock(&mut tx, fingerprint)?;
    let due = |i: &Incident| i.open && !i.acknowledged && i.age.is_none_or(|age| age >= pause);
    let Some(incident) = incident.filter(due) else {
        return Ok(false);
    };
    put_at(&mut tx, &Alert::new(incident.last_event(fingerprint)), None)?;
    tx.commit()?;
    Ok(true)
}

/// Resolves an incident that is open and stays away, and notifies of that. `recovery` says so, given since when it was open, and until
/// when (UTC, by the server's clock). Returns whether it was resolved.
///
/// # Errors
/// When PostgreSQL fails.
pub fn resolve(
    client: &mut impl GenericClient,
    fingerprint: &str,
    recovery: impl FnOnce(DateTime<Utc>, DateTime<Utc>) -> Event,
) -> Result<bool, postgres::Error> {
    resolve_if(client, fingerprint, |incident| {
        (!incident.flaps).then(|| recovery(incident.opened_at, incident.now))
    })
}

fn resolve_if(
    client: &mut impl GenericClient,
    fingerprint: &str,
    recovery: impl FnOnce(&Incident) -> Option<Event>,
) -> Result<bool, postgres::Error> {
    let mut tx = client.transaction()?;
    let incident = Incident::lock(&mut tx, fingerprint)?.filter(|i| i.open);
    let Some(event) = incident.as_ref().and_then(recovery) else {
        return Ok(false);
    };
    put_at(&mut tx, &Alert::new(event), None)?;
    tx.commit()?;
    Ok(true)
}

/// Resolves a machine's incident.
///
/// # Errors
/// When PostgreSQL fails.
pub fn resolve_machine(
    client: &mut impl GenericClient,
    fault: Fault,
    host: &str,
    task: Option<&str>,
) -> Result<bool, postgres::Error> {
    resolve(client, &fault.fingerprint(host, task), |opened_at, at| {
        Event::MachineRecovered {
            fault,
            host: host.to_owned(),
            task: task.map(str::to_owned),
            opened_at,
            at,
        }
    })
}

/// Resolves an incident that a rule finds no more. `ended`: what became of the runs that were missed, when it is about such.
///
/// # Errors
/// When PostgreSQL fails.
pub fn resolve_finding(
    client: &mut impl GenericClient,
    fingerprint: &str,
    ended: Vec<MissedEnd>,
) -> Result<bool, postgres::Error> {
    resolve_if(client, fingerprint, |incident| {
        (!incident.flaps).then(|| Event::FoundNoMore {
            fingerprint: fingerprint.to_owned(),
            rule: incident.rule.clone(),
            task: incident.task.clone(),
            of: Box::new(incident.last_event(fingerprint)),
            opened_at: incident.opened_at,
            at: incident.now,
            ended,
        })
    })
}

/// Resolves the incident of a task that is run no more.
///
/// # Errors
/// When PostgreSQL fails.
pub fn resolve_retired(
    client: &mut impl GenericClient,
    task: &str,
    title: &str,
) -> Result<bool, postgres::Error> {
    resolve_if(client, &run_fingerprint(task), |incident| {
        Some(Event::TaskRetired {
            task: task.to_owned(),
            title: title.to_owned(),
            notified_at: incident.notified_at,
        })
    })
}

/// Resolves the incident of a channel that nobody has in his configuration any more, however often it came and went.
///
/// # Errors
/// When PostgreSQL fails.
pub fn resolve_removed(
    client: &mut impl GenericClient,
    fingerprint: &str,
    removed: Event,
) -> Result<bool, postgres::Error> {
    resolve_if(client, fingerprint, |_| Some(removed))
}

/// What is open of a machine, and of which task. Asked without locks: every program asks with each connection.
///
/// # Errors
/// When PostgreSQL fails.
pub fn open_faults(
    client: &mut impl GenericClient,
    host: &str,
) -> Result<Vec<(Fault, Option<String>)>, postgres::Error> {
    let rows = client.query(
        "SELECT fingerprint, task FROM oa.incidents WHERE resolved_at IS NULL AND rule = ANY($1) ORDER BY fingerprint",
        &[&Fault::ALL.map(Fault::rule).as_slice()],
    )?;
    let of_this_machine = |row: &postgres::Row| {
        let (fingerprint, task): (String, Option<String>) = (row.get(0), row.get(1));
        let is = |fault: &Fault| fault.fingerprint(host, task.as_deref()) == fingerprint;
        Some((Fault::ALL.into_iter().find(is)?, task))
    };
    Ok(rows.iter().filter_map(of_this_machine).collect())
}

/// Whether an incident is open, for whoever is about to resolve it: waits for its lock.
pub(super) fn is_open(tx: &mut Tx<'_, '_>, fingerprint: &str) -> Result<bool, postgres::Error> {
    let row = tx.query_opt(
        "SELECT resolved_at IS NULL FROM oa.incidents WHERE fingerprint = $1 FOR UPDATE",
        &[&fingerprint],
    )?;
    Ok(row.is_some_and(|r| r.get(0)))
}

/// Since when an incident is open, and for how long (by the server's clock); `None`: it is not open.
///
/// # Errors
/// When PostgreSQL fails.
pub fn open_for(
    client: &mut impl GenericClient,
    fingerprint: &str,
) -> Result<Option<(DateTime<Utc>, Duration)>, postgres::Error> {
    let row = client.query_opt(
        "SELECT opened_at, greatest(extract(epoch FROM now() - opened_at), 0)::float8 FROM oa.incidents
         WHERE fingerprint = $1 AND resolved_at IS NULL",
        &[&fingerprint],
    )?;
    Ok(row.map(|r| (r.get(0), Duration::from_secs_f64(r.get(1)))))
}

/// Acknowledges an open incident: it is not repeated until it is resolved. `of` is a fingerprint or a task. Returns the fingerprints.
///
/// # Errors
/// When PostgreSQL fails.
pub fn acknowledge(
    client: &mut impl GenericClient,
    of: &str,
    by: &str,
    note: &str,
) -> Result<Vec<String>, postgres::Error> {
    let rows = client.query(
        // In the order in which `oa-alert check` takes them, or each would wait for the other.
        "WITH open AS (SELECT fingerprint FROM oa.incidents WHERE (fingerprint = $1 OR task = $1) AND resolved_at IS NULL ORDER BY fingerprint FOR UPDATE)
         UPDATE oa.incidents i SET acknowledged_by = $2, acknowledged_at = now(), note = $3
         FROM open WHERE i.fingerprint = open.fingerprint RETURNING i.fingerprint",
        &[&of, &by, &note],
    )?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}

/// Takes an acknowledgement back: the incident is reported again after [`Policy::repeat`] as if nobody had seen to it. `of` is a fingerprint or
/// a task. Returns the fingerprints.
///
/// # Errors
/// When PostgreSQL fails.
pub fn unacknowledge(
    client: &mut impl GenericClient,
    of: &str,
) -> Result<Vec<String>, postgres::Error> {
    let rows = client.query(
        "WITH open AS (SELECT fingerprint FROM oa.incidents WHERE (fingerprint = $1 OR task = $1) AND resolved_at IS NULL AND acknowledged_at IS NOT NULL
                       ORDER BY fingerprint FOR UPDATE)
         UPDATE oa.incidents i SET acknowledged_by = NULL, acknowledged_at = NULL, note = NULL
         FROM open WHERE i.fingerprint = open.fingerprint RETURNING i.fingerprint",
        &[&of],
    )?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}

/// Puts a message into the outbox, in the caller's transaction. Does nothing when it is there already; returns whether it was new.
///
/// # Errors
/// When PostgreSQL fails.
pub fn put(client: &mut impl GenericClient, alert: &Alert) -> Result<bool, postgres::Error> {
    put_at(client, alert, None)
}

/// Puts an alert into the outbox that has waited in the spool, at the time at which it was made there, but not after now: people have
/// been notified of it then.
///
/// # Errors
/// When PostgreSQL fails.
pub(crate) fn put_spooled(
    client: &mut impl GenericClient,
    alert: &Alert,
) -> Result<bool, postgres::Error> {
    let is_new = put_at(client, alert, Some(alert.created_at))?;
    if let (true, Kind::Problem, Some(task), Some(run)) =
        (is_new, alert.kind, &alert.task, alert.run_id)
        && alert.fingerprint == run_fingerprint(task)
    {
        resolve_overtaken(client, task, run)?;
    }
    Ok(is_new)
}

/// Resolves the incident of a run that failed while PostgreSQL was down, when the task has succeeded since on another machine: its next
/// run, which would, may be far off. What came of the failed run was stored before its alert, so a task that succeeds has done so later.
fn resolve_overtaken(
    client: &mut impl GenericClient,
    task: &str,
    failed: Uuid,
) -> Result<(), postgres::Error> {
    let success = client.query_opt(
        "SELECT r.id, coalesce(t.title, ''), r.finished_at, r.fetched FROM oa.tasks t JOIN oa.runs r ON r.id = t.last_run_id
         WHERE t.name = $1 AND t.last_status = 'success' AND r.id <> $2 AND r.finished_at IS NOT NULL
           AND EXISTS (SELECT FROM oa.runs f WHERE f.id = $2 AND f.finished_at IS NOT NULL)",
        &[&task, &failed],
    )?;
    if let Some(row) = success {
        resolve(client, &run_fingerprint(task), |_, _| Event::RunRecovered {
            run: row.get(0),
            task: task.to_owned(),
            title: row.get(1),
            failing_since: None,
            failures: 0,
            finished_at: row.get(2),
            fetched: row.get::<_, i64>(3).unsigned_abs(),
        })?;
    }
    Ok(())
}

/// The alert's row, and what it makes of its incident.
fn put_at(
    client: &mut impl GenericClient,
    alert: &Alert,
    made_at: Option<DateTime<Utc>>,
) -> Result<bool, postgres::Error> {
    // What cannot be written as JSON is a mistake of this program, and worth an alert all the same.
    let event = event::to_json(&alert.event)
        .unwrap_or_else(|e| Value::String(format!("{}: {e}", alert.rule)));
    let inserted = client.execute(
        "INSERT INTO oa.alerts (id, fingerprint, rule, task, run_id, severity, kind, event, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, least($9, now())) ON CONFLICT (id) DO NOTHING",
        &[
            &alert.id,
            &alert.fingerprint,
            &alert.rule,
            &alert.task,
            &alert.run_id,
            &alert.severity.as_str(),
            &alert.kind.as_str(),
            &printable_json(&redact_json(event)),
            &made_at,
        ],
    )?;
    if inserted == 0 {
        return Ok(false);
    }
    let cause = alert.event.cause().map(ErrorKind::as_str);
    match alert.kind {
        Kind::Message => {}
        Kind::Problem => {
            client.execute(
                "INSERT INTO oa.incidents AS i (fingerprint, rule, task, severity, causes, first_alert, last_alert, opened_at, notified_at)
                 VALUES ($1, $2, $3, $4, array_remove(ARRAY[$5::text], NULL), $6, $6, least(coalesce($7, now()), now()), least(coalesce($7, now()), now()))
                 ON CONFLICT (fingerprint) DO UPDATE SET
                   rule = excluded.rule, task = excluded.task, last_alert = excluded.last_alert, notified_at = excluded.notified_at, resolved_at = NULL,
                   severity = excluded.severity,
                   acknowledged_by = CASE WHEN i.resolved_at IS NULL THEN i.acknowledged_by END,
                   acknowledged_at = CASE WHEN i.resolved_at IS NULL THEN i.acknowledged_at END,
                   note = CASE WHEN i.resolved_at IS NULL THEN i.note END,
                   first_alert = CASE WHEN i.resolved_at IS NULL AND i.first_alert IS NOT NULL THEN i.first_alert ELSE excluded.first_alert END,
                   opened_at = CASE WHEN i.resolved_at IS NULL THEN i.opened_at ELSE excluded.opened_at END,
                   causes = CASE WHEN i.resolved_at IS NULL THEN array_remove(i.causes, $5) ELSE '{}' END || excluded.causes",
                &[
                    &alert.fingerprint,
                    &alert.rule,
                    &alert.task,
                    &alert.severity.as_str(),
                    &cause,
                    &alert.id,
                    &made_at,
                ],
            )?;
        }
        Kind::Recovery => {
            client.execute(
                "UPDATE oa.incidents SET resolved_at = least(coalesce($2, now()), now()), last_alert = $3, acknowledged_by = NULL, acknowledged_at = NULL, note = NULL,
                   recoveries = ARRAY(SELECT r FROM unnest(recoveries) r WHERE r > now() - interval '1 hour' AND r <= now())
                                || least(coalesce($2, now()), now())
                 WHERE fingerprint = $1 AND resolved_at IS NULL",
                &[&alert.fingerprint, &made_at, &alert.id],
            )?;
        }
    }
    Ok(true)
}

/// An alert as a row has it: `id, fingerprint, rule, task, run_id, severity, kind, event, title, body, created_at`, from column `first` on.
#[must_use]
pub fn alert_of(row: &postgres::Row, first: usize) -> Alert {
    let (fingerprint, rule): (String, String) = (row.get(first + 1), row.get(first + 2));
    Alert {
        id: row.get(first),
        task: row.get(first + 3),
        run_id: row.get(first + 4),
        severity: Severity::parse(row.get(first + 5)),
        kind: Kind::parse(row.get(first + 6)),
        event: event_of(row, first + 7, &rule, &fingerprint),
        created_at: row.get(first + 10),
        fingerprint,
        rule,
    }
}

/// The event in the columns `event, title, body`: alerts of versions before events have texts instead. All null, of an incident whose
/// alert is gone: only its rule is known.
#[must_use]
pub fn event_of(row: &postgres::Row, first: usize, rule: &str, fingerprint: &str) -> Event {
    let event: Option<Value> = row.get(first);
    match (event, row.get::<_, Option<String>>(first + 1)) {
        (Some(event), _) => event::from_json(event, rule, fingerprint),
        (None, Some(title)) => Event::Message {
            title,
            body: row.get::<_, Option<String>>(first + 2).unwrap_or_default(),
        },
        (None, None) => Event::unknown(rule, fingerprint),
    }
}

/// Raises or resolves the incident of a task by the outcome of its run. Returns whether people are notified.
///
/// # Errors
/// When PostgreSQL fails.
pub fn after_run(
    tx: &mut Transaction<'_>,
    outcome: &Outcome,
    state: &TaskState,
    policy: &Policy,
) -> Result<bool, postgres::Error> {
    if state.outdated {
        return Ok(false);
    }
    if outcome.status == Status::Success {
        let start = &outcome.start;
        return resolve(tx, &run_fingerprint(&start.task), |_, _| {
            Event::RunRecovered {
                run: start.id,
                task: start.task.clone(),
                title: start.title.clone(),
                failing_since: state.failing_since,
                failures: state.consecutive_failures.unsigned_abs(),
                finished_at: outcome.finished_at,
                fetched: outcome.fetched,
            }
        });
    }
    match problem(outcome, state) {
        Some(event) => raise(tx, event, policy),
        None => Ok(false),
    }
}

/// The event of an outcome that is no success; `None` for one that alarms nobody, or not yet.
#[must_use]
pub fn problem(outcome: &Outcome, state: &TaskState) -> Option<Event> {
    let failures = state.consecutive_failures.unsigned_abs().max(1);
    let alarms = match outcome.status {
        Status::Failed | Status::Timeout | Status::Abandoned => failures >= outcome.alert_after,
        Status::Partial => true,
        Status::Running | Status::Retrying | Status::Success | Status::Skipped => false,
    };
    if !alarms {
        return None;
    }
    let (start, quality) = (&outcome.start, outcome.quality.as_ref());
    let work = work_of(outcome);
    let detail = |name: &str| outcome.details.get(name).and_then(|d| d.as_str());
    let day = detail("day");
    Some(Event::RunFailed(Box::new(RunFailed {
        run: start.id,
        task: start.task.clone(),
        title: start.title.clone(),
        work,
        status: outcome.status,
        error: outcome
            .error
            .clone()
            .unwrap_or_else(|| RunError::new(ErrorKind::Internal, "")),
        attempts: outcome.attempts.len(),
        started_at: start.started_at,
        finished_at: outcome.finished_at,
        failing_since: state.failing_since,
        failures,
        last_success_at: state.last_success_at,
        // The tables of backups and drills are about them, not collected data.
        tables: match work {
            Work::Backup => String::new(),
            _ => tables_of(outcome),
        },
        day: day.map(str::to_owned),
        collected: quality.map_or(outcome.fetched, |q| q.collected),
        expected: quality.and_then(|q| q.expected),
        host: start.process.host.clone(),
        provider: detail("provider").unwrap_or_default().to_owned(),
        history_unknown: false,
    })))
}

fn work_of(outcome: &Outcome) -> Work {
    if outcome.details.contains_key("program") {
        return Work::Program;
    }
    match outcome.start.tool.as_str() {
        "oa-crawl" => Work::Source,
        "oa-backup" | "oa-restore" => Work::Backup,
        _ => Work::Tool,
    }
}

fn tables_of(outcome: &Outcome) -> String {
    let tables = || {
        let main = outcome.batches.iter().filter(|b| b.newest_by.is_none());
        let tables = main.map(|b| b.table.as_str());
        tables.collect::<Vec<_>>().join(", ")
    };
    let named = outcome.details.get("table").and_then(|t| t.as_str());
    named.map_or_else(tables, str::to_owned)
}

/// Under what a problem is remembered in the spool: another cause is another one.
#[must_use]
pub(crate) fn spooled_key(alert: &Alert) -> String {
    match alert.event.cause() {
        Some(cause) => format!("{} {}", alert.fingerprint, cause.as_str()),
        None => alert.fingerprint.clone(),
    }
}
