//! The outbox: alerts are rows committed with the event that caused them. Delivery is `oa-alert`'s work.
//!
//! One fingerprint (rule and task) is one trouble. The first problem alert opens it, the next ones are held back until
//! [`Policy::repeat`] is over or the trouble gets worse, and the first success closes it with a recovery alert.

mod flush;
pub mod machine;
mod text;

use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use postgres::{GenericClient, Transaction};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::{Config, Locale};
use crate::pg::alone;
use crate::retry::ErrorKind;
use crate::runs::store::TaskState;
use crate::runs::{Outcome, Status};
use crate::secrets::redact;
use crate::text::printable;
pub use flush::flush_now;
pub use machine::Trouble;
pub use text::{LONGEST_EXCERPT, excerpt, human_duration};

/// How bad it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    #[default]
    Info,
    /// Look at it today.
    Warning,
    /// Look at it now.
    Critical,
}

impl Severity {
    /// The name under which it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What an alert tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Something is wrong.
    Problem,
    /// It is over.
    Recovery,
    /// Neither: a report, a test, a message from a script.
    Message,
}

impl Kind {
    /// The name under which it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Recovery => "recovery",
            Self::Message => "message",
        }
    }
}

/// One alert, written for the person on duty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// UUID version 7 of its making.
    pub id: Uuid,
    /// Rule and task: what belongs to one trouble.
    pub fingerprint: String,
    /// The rule that found it.
    pub rule: String,
    /// The task it is about.
    pub task: Option<String>,
    /// The run that caused it.
    pub run_id: Option<Uuid>,
    /// How bad it is.
    pub severity: Severity,
    /// Problem, recovery or message.
    pub kind: Kind,
    /// One line.
    pub title: String,
    /// Markdown in the small subset that every robot understands: lines, `**bold**`, `- ` lists.
    pub body: String,
    /// When (UTC), by the clock of the machine that made it; PostgreSQL keeps its own time.
    pub created_at: DateTime<Utc>,
}

/// How alerts are written and how often they are repeated.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Language of the texts.
    pub locale: Locale,
    /// Zone of the times in the texts.
    pub timezone: Tz,
    /// A trouble that goes on is told again after this long.
    pub repeat: Duration,
}

impl Policy {
    /// Takes it from the configuration.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        Self {
            locale: config.locale,
            timezone: config.timezone,
            repeat: config.alert_repeat(),
        }
    }
}

/// Puts an alert into the outbox, in the caller's transaction, at this moment of the server's clock. Does nothing when it is there
/// already; returns whether it was new.
///
/// # Errors
/// When PostgreSQL fails.
pub fn put(client: &mut impl GenericClient, alert: &Alert) -> Result<bool, postgres::Error> {
    insert(client, alert, None)
}

/// Puts an alert into the outbox that has waited in the spool, where it was made at its own moment, but not after now.
///
/// # Errors
/// When PostgreSQL fails.
pub(crate) fn put_spooled(
    client: &mut impl GenericClient,
    alert: &Alert,
) -> Result<bool, postgres::Error> {
    insert(client, alert, Some(alert.created_at))
}

fn insert(
    client: &mut impl GenericClient,
    alert: &Alert,
    made_at: Option<DateTime<Utc>>,
) -> Result<bool, postgres::Error> {
    let inserted = client.execute(
        "INSERT INTO oa.alerts (id, fingerprint, rule, task, run_id, severity, kind, title, body, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, least($10, now())) ON CONFLICT (id) DO NOTHING",
        &[
            &alert.id,
            &alert.fingerprint,
            &alert.rule,
            &alert.task,
            &alert.run_id,
            &alert.severity.as_str(),
            &alert.kind.as_str(),
            &printable(&redact(&alert.title)),
            &printable(&redact(&alert.body)),
            &made_at,
        ],
    )?;
    if alert.kind == Kind::Recovery {
        // The next trouble of this kind is another one.
        client.execute(
            "DELETE FROM oa.acks WHERE fingerprint = $1",
            &[&alert.fingerprint],
        )?;
    }
    Ok(inserted == 1)
}

/// The last alert of a fingerprint.
struct Last {
    rule: String,
    kind: String,
    severity: String,
    /// `None` when it is of the future: the server's clock was wrong then, so nobody knows how old it is.
    age: Option<Duration>,
    created_at: DateTime<Utc>,
    /// The present moment, by the server's clock.
    now: DateTime<Utc>,
    /// Somebody has taken it on.
    acked: bool,
    /// Nobody was sent it, because of a silence that is over.
    unheard: bool,
    /// The kinds of error that were reported since it is open; `None` for one of a run that is no longer in the log.
    causes: Vec<Option<String>>,
}

impl Last {
    fn is_open(&self) -> bool {
        self.kind == Kind::Problem.as_str()
    }

    /// Whether another problem of its fingerprint need not be reported now: that was done lately, or somebody has acknowledged it, and it
    /// has not become worse, nor has it a cause that nobody has heard of. Who has acknowledged it need hear of another cause only when
    /// that one does not heal by itself.
    fn covers(&self, problem: &Alert, cause: Option<ErrorKind>, policy: &Policy) -> bool {
        let worse =
            problem.severity == Severity::Critical && self.severity != Severity::Critical.as_str();
        let another = cause.is_some_and(|cause| {
            let another = |known: &Option<String>| {
                let known = known.as_deref().and_then(ErrorKind::parse);
                known.is_some_and(|k| k.cause() != cause.cause())
            };
            self.causes.iter().all(another) && (!self.acked || !cause.is_transient())
        });
        let known = self.acked || self.age.is_some_and(|age| age < policy.repeat);
        self.is_open() && known && !worse && !another && !self.unheard
    }
}

/// Whoever asks for the last alert decides by it whether there is to be another: one at a time, until the end of the transaction.
fn last(tx: &mut Transaction<'_>, fingerprint: &str) -> Result<Option<Last>, postgres::Error> {
    alone(tx, &format!("alerts:{fingerprint}"))?;
    let row = tx.query_opt(
        "SELECT a.kind, a.severity, extract(epoch FROM now() - a.created_at)::float8, a.created_at, now(), a.rule,
                EXISTS (SELECT FROM oa.acks k WHERE k.fingerprint = a.fingerprint),
                EXISTS (SELECT FROM oa.silences s WHERE s.id = a.silenced_by AND s.until <= now()),
                ARRAY(SELECT DISTINCT u.error_kind FROM oa.alerts p LEFT JOIN oa.runs u ON u.id = p.run_id
                      WHERE p.fingerprint = a.fingerprint AND p.kind = 'problem'
                        AND p.seq > coalesce((SELECT r.seq FROM oa.alerts r WHERE r.fingerprint = a.fingerprint AND r.kind = 'recovery'
                                              ORDER BY r.seq DESC LIMIT 1), 0))
         FROM oa.alerts a WHERE a.fingerprint = $1 ORDER BY a.seq DESC LIMIT 1",
        &[&fingerprint],
    )?;
    Ok(row.map(|r| Last {
        kind: r.get(0),
        severity: r.get(1),
        age: age_of(r.get(2)),
        created_at: r.get(3),
        now: r.get(4),
        rule: r.get(5),
        acked: r.get(6),
        unheard: r.get(7),
        causes: r.get(8),
    }))
}

/// More than a minute before now is no age.
fn age_of(seconds: f64) -> Option<Duration> {
    (seconds > -60.0).then(|| Duration::from_secs_f64(seconds.max(0.0)))
}

/// Puts a problem into the outbox, unless it was told within [`Policy::repeat`] or somebody has taken it on, and it is neither over
/// nor worse now. Returns whether it was put.
///
/// # Errors
/// When PostgreSQL fails.
pub fn tell(
    client: &mut impl GenericClient,
    problem: &Alert,
    policy: &Policy,
) -> Result<bool, postgres::Error> {
    let mut tx = client.transaction()?;
    let told =
        last(&mut tx, &problem.fingerprint)?.is_some_and(|l| l.covers(problem, None, policy));
    let put = !told && put(&mut tx, problem)?;
    tx.commit()?;
    Ok(put)
}

/// So many recoveries of one fingerprint within an hour are told.
const MOST_RECOVERIES: i64 = 3;

/// Whether a trouble comes and goes: then the next recovery waits until it has stayed away, and until then it counts as open, so
/// that its return is not told either.
///
/// # Errors
/// When PostgreSQL fails.
pub fn flaps(client: &mut impl GenericClient, fingerprint: &str) -> Result<bool, postgres::Error> {
    let row = client.query_one(
        "SELECT count(*) FROM oa.alerts WHERE fingerprint = $1 AND kind = 'recovery'
           AND created_at > now() - interval '1 hour' AND created_at <= now()",
        &[&fingerprint],
    )?;
    Ok(row.get::<_, i64>(0) >= MOST_RECOVERIES)
}

/// Puts the news that a machine's trouble is over into the outbox, if it was told.
///
/// # Errors
/// When PostgreSQL fails.
pub fn tell_over(
    client: &mut impl GenericClient,
    fingerprint: &str,
    policy: &Policy,
) -> Result<(), postgres::Error> {
    let mut tx = client.transaction()?;
    if let Some(l) = last(&mut tx, fingerprint)?.filter(Last::is_open)
        && !flaps(&mut tx, fingerprint)?
    {
        let over = machine::over(&l.rule, fingerprint, l.created_at, l.now, policy);
        put(&mut tx, &over)?;
    }
    tx.commit()
}

/// Ends the trouble of a task that is run no more, if it was told.
///
/// # Errors
/// When PostgreSQL fails.
pub fn given_up(
    tx: &mut Transaction<'_>,
    task: &str,
    title: &str,
    policy: &Policy,
) -> Result<(), postgres::Error> {
    let last = last(tx, &run_fingerprint(task))?;
    if let Some(last) = last.filter(Last::is_open) {
        put(tx, &text::given_up(task, title, last.created_at, policy))?;
    }
    Ok(())
}

/// Under what an outcome's problem is remembered in the spool: another cause is another one.
pub(crate) fn spooled_key(outcome: &Outcome) -> String {
    let cause = outcome
        .error
        .as_ref()
        .map_or("", |e| e.kind.cause().as_str());
    format!("{} {cause}", run_fingerprint(&outcome.start.task))
}

/// The fingerprint of everything that is wrong with a task's runs.
#[must_use]
pub fn run_fingerprint(task: &str) -> String {
    format!("run:{task}")
}

/// Puts the alert that an outcome calls for into the outbox: a problem, a recovery, or none. Returns whether there was one.
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
    let last = last(tx, &run_fingerprint(&outcome.start.task))?;
    let open = last.as_ref().is_some_and(Last::is_open);
    if outcome.status == Status::Success {
        let over = open && !flaps(tx, &run_fingerprint(&outcome.start.task))?;
        if over {
            put(tx, &text::recovered(outcome, state, policy))?;
        }
        return Ok(over);
    }
    let Some(alert) = problem(outcome, state, policy) else {
        return Ok(false);
    };
    let cause = outcome.error.as_ref().map(|e| e.kind);
    let told = last.is_some_and(|l| l.covers(&alert, cause, policy));
    if !told {
        put(tx, &alert)?;
    }
    Ok(!told)
}

/// The alert of an outcome that is not a success; `None` for one that alarms nobody, or not yet.
#[must_use]
pub fn problem(outcome: &Outcome, state: &TaskState, policy: &Policy) -> Option<Alert> {
    let failures = u32::try_from(state.consecutive_failures).unwrap_or_default();
    match outcome.status {
        Status::Failed | Status::Timeout | Status::Abandoned
            if failures.max(1) < outcome.alert_after =>
        {
            None
        }
        Status::Failed | Status::Timeout | Status::Abandoned => {
            Some(text::failed(outcome, state, policy, Severity::Critical))
        }
        Status::Partial => Some(text::failed(outcome, state, policy, Severity::Warning)),
        Status::Running | Status::Retrying | Status::Success | Status::Skipped => None,
    }
}
