//! How each task is: counts of the last 24 hours, and whether it is late, was never run, fails, or brings old data.

use chrono::{DateTime, TimeDelta, Utc};
use oa_core::app::config::Config;
use oa_core::model::retry::ErrorKind;
use postgres::Row;
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::{Asked, Result, number, some_text};

/// From this share of successes on, in percent, a task is healthy.
pub(crate) const HEALTHY: f64 = 90.0;
/// From this share on it is only a warning.
pub(crate) const WARNING: f64 = 70.0;
/// So many failures in a row are critical whatever the share.
const IN_A_ROW: i32 = 3;

/// How bad it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Health {
    /// At least 90 % of its runs of the last 24 hours succeeded, and nothing else is wrong.
    #[default]
    Healthy,
    /// At least 70 %, or one of the reasons holds.
    Warning,
    /// Less than 70 %, or three failures in a row, or a failure that only a person can mend.
    Critical,
}

/// The one state of a task: what its slots and its newest outcome say, whatever the share of successes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Its newest outcome is a success, and no slot is waiting.
    Ok,
    /// It was due and did not run.
    Late,
    /// It runs now, and nothing is known to be wrong.
    Running,
    /// Its newest outcome is a failure.
    Failed,
    /// Its newest outcome stored less than there was.
    Partial,
    /// Its newest data are of another day, or there were none for much longer than usual.
    Stale,
    /// Somebody has silenced all alerts of it for a while.
    Paused,
    /// It has never run.
    Unknown,
}

impl State {
    /// The name under which it is given out.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Late => "late",
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Partial => "partial",
            Self::Stale => "stale",
            Self::Paused => "paused",
            Self::Unknown => "unknown",
        }
    }
}

impl Health {
    /// The name under which it is given out.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Why a task is not healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// Too few of the runs of the last 24 hours succeeded.
    SuccessRate,
    /// The newest outcome was no success.
    LastRun,
    /// The last three runs or more failed.
    Failing,
    /// It was due and did not start.
    Late,
    /// It has never run.
    NeverRun,
    /// The last data were of another day, or a task without a schedule has not succeeded for much longer than usual.
    Stale,
    /// An incident of it is open.
    Incident,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct TaskHealth {
    /// Its name, which is also its key.
    pub(crate) name: String,
    /// Its title for people; its name when it has none.
    pub(crate) title: String,
    /// The program that runs it.
    pub(crate) tool: String,
    /// How it is now.
    pub(crate) state: State,
    /// How bad that is: nothing that a later success has mended, and nothing of a paused task.
    pub(crate) severity: Health,
    /// How it was over the last 24 hours: at least 90 % successes are healthy, 70 % a warning; never better than `severity`.
    pub(crate) health: Health,
    /// Why it is not healthy.
    pub(crate) reasons: Vec<Reason>,
    /// Runs of the last 24 hours that ended, without skipped ones and backfills.
    pub(crate) runs: u64,
    /// Of these, successes.
    pub(crate) success: u64,
    /// Of these, runs that stored less than there was.
    pub(crate) partial: u64,
    /// Of these, failed, timed out or abandoned ones.
    pub(crate) failed: u64,
    /// Successes in percent of the runs, rounded down to a tenth; null when there was no run.
    pub(crate) success_rate: Option<f64>,
    /// Rows that were not there before, in 24 hours.
    pub(crate) inserted: u64,
    /// When its last run started (UTC).
    pub(crate) last_run: Option<DateTime<Utc>>,
    /// That run.
    pub(crate) last_run_id: Option<Uuid>,
    /// How it ended, or `running` or `retrying`.
    pub(crate) last_status: Option<String>,
    /// How long it took, in seconds; null while it runs.
    pub(crate) last_duration: Option<f64>,
    /// When it succeeded last (UTC).
    pub(crate) last_success: Option<DateTime<Utc>>,
    /// What was wrong with the last run.
    pub(crate) last_error: Option<String>,
    /// Failures since the last success.
    pub(crate) consecutive_failures: i32,
    /// Since when it fails (UTC).
    pub(crate) failing_since: Option<DateTime<Utc>>,
    /// Its schedule as a cron expression; null for what only a crontab or a person starts.
    pub(crate) schedule: Option<String>,
    /// When it is due next, or was due when it is late (UTC).
    pub(crate) next_due: Option<DateTime<Utc>>,
    /// How long it has been due without a start, in seconds.
    pub(crate) late_seconds: Option<u64>,
    /// Whether it runs now.
    pub(crate) running: bool,
    /// Whether it is a source: `oa-crawl run` collects it when somebody asks.
    pub(crate) collects: bool,
}

impl TaskHealth {
    /// When it is due for the first time, of a task that has never run and is not late.
    pub(crate) fn awaited_until(&self) -> Option<DateTime<Utc>> {
        let waits = self.last_run_id.is_none() && !self.reasons.contains(&Reason::NeverRun);
        self.next_due
            .filter(|_| waits && self.late_seconds.is_none())
    }

    /// The last outcome was no success.
    pub(crate) fn last_failed(&self) -> bool {
        self.consecutive_failures > 0 || self.last_status.as_deref() == Some("partial")
    }
}

/// The share in percent, rounded down to a tenth: 99.96 % is not 100 %.
pub(crate) fn percent(success: u64, runs: u64) -> Option<f64> {
    (runs > 0).then(|| (success as f64 / runs as f64 * 1000.0).floor() / 10.0)
}

/// How long after it was due a task is late.
pub(crate) fn grace(config: &Config) -> TimeDelta {
    let grace = config.alert.grace.0.saturating_add(config.crawl.jitter.0);
    // A grace that no clock can hold is one that never ends, not none.
    TimeDelta::from_std(grace).unwrap_or(TimeDelta::weeks(5200))
}

/// The worst of these tasks as they are now; healthy when there is none.
pub(crate) fn worst(tasks: &[TaskHealth]) -> Health {
    tasks
        .iter()
        .map(|t| t.severity)
        .max()
        .unwrap_or(Health::Healthy)
}

/// All tasks by name, without those that were given up (`oa-crawl forget`) or that the configuration skips; only `one` when it is named.
pub(crate) fn tasks(
    client: &mut impl Asked,
    config: &Config,
    one: Option<&str>,
) -> Result<Vec<TaskHealth>> {
    // The hours as the database sums them, and what ran before the first whole one out of the run log.
    let rows = client.query(
        "WITH counted AS (
           SELECT task, sum(runs) AS runs, sum(runs) FILTER (WHERE status = 'success') AS success, sum(runs) FILTER (WHERE status = 'partial') AS partial,
                  sum(inserted) AS inserted
           FROM (
             SELECT task, status, runs, inserted FROM oa.run_hours
             WHERE hour > now() - interval '24 hours' AND hour <= now() AND ($3::text IS NULL OR task = $3)
             UNION ALL
             SELECT task, status, count(*), sum(inserted) FROM oa.runs
             WHERE started_at >= now() - interval '24 hours'
               AND started_at < date_trunc('hour', now() - interval '24 hours', 'UTC') + interval '1 hour'
               AND finished_at IS NOT NULL AND trigger <> 'backfill' AND ($3::text IS NULL OR task = $3) GROUP BY 1, 2) x
           WHERE status <> 'skipped' GROUP BY task)
         SELECT t.name, coalesce(nullif(t.title, ''), t.name), t.tool, c.runs::bigint, c.success::bigint, c.partial::bigint, c.inserted::bigint,
                t.last_started_at, t.last_run_id, t.last_status,
                CASE WHEN t.last_status NOT IN ('running', 'retrying') THEN extract(epoch FROM t.last_finished_at - t.last_started_at)::float8 END,
                t.last_success_at, left(t.last_error, 8000), t.consecutive_failures, t.failing_since, t.schedule, t.next_due_at,
                -- Since the last one that was run, when none was since. What was given up owes nothing, also when somebody runs it by hand.
                CASE WHEN t.forgotten_at IS NOT NULL THEN NULL WHEN t.lease_until IS NULL OR t.lease_until < now() THEN (
                       SELECT extract(epoch FROM now() - min(s.due_at))::bigint FROM oa.slots s
                       WHERE s.task = t.name AND s.due_at < now() - make_interval(secs => $2) AND s.state IN ('open', 'missed', 'unfetchable')
                         AND s.filled_by IS NULL AND s.owed AND s.due_at > coalesce((
                           SELECT max(d.due_at) FROM oa.slots d WHERE d.task = t.name AND d.state IN ('done', 'skipped')), '-infinity')) END,
                t.lease_until > now(),
                last.status,
                CASE WHEN last.status IN ('success', 'partial') THEN (SELECT q.fresh FROM oa.quality q WHERE q.run_id = last.id) END,
                -- Without a schedule, what is usual says when it is missed.
                CASE WHEN t.schedule IS NULL AND t.forgotten_at IS NULL AND t.last_success_at < now() - interval '4 days' THEN (
                       SELECT now() - t.last_success_at > 3 * (max(h.hour) - min(h.hour)) / (count(*) - 1) FROM oa.run_hours h
                       WHERE h.task = t.name AND h.status = 'success' AND h.hour > t.last_success_at - interval '90 days' HAVING count(*) > 1) END,
                last.error_kind,
                EXISTS (SELECT FROM oa.silences s WHERE s.task IS NOT NULL AND oa.fits(t.name, s.task) AND s.rule IS NULL AND s.host IS NULL AND s.fingerprint IS NULL AND oa.silence_holds(s, now())),
                i.severity,
                (SELECT d.state = 'stale' FROM oa.days d WHERE d.task = t.name AND d.state NOT IN ('pending', 'skipped') ORDER BY d.day DESC LIMIT 1),
                t.collects,
                t.next_due_at > now() - make_interval(secs => $2)
         FROM oa.tasks t LEFT JOIN counted c ON c.task = t.name
         LEFT JOIN (SELECT task, min(severity) AS severity FROM oa.incidents WHERE resolved_at IS NULL AND severity <> 'info' GROUP BY task) i ON i.task = t.name
         -- The newest outcome: it holds while the next run is under way, and a backfill says nothing of today. Mostly it is that of the
         -- task's last run, which is found at once; else every month of the run log is looked into.
         LEFT JOIN LATERAL (
           SELECT r.id, r.status, r.error_kind FROM oa.runs r WHERE r.id = t.last_run_id AND r.finished_at IS NOT NULL AND r.trigger <> 'backfill'
           UNION ALL (
             SELECT r.id, r.status, r.error_kind FROM oa.runs r
             WHERE r.task = t.name AND r.finished_at IS NOT NULL AND r.status <> 'skipped' AND r.trigger <> 'backfill'
             ORDER BY r.seq DESC LIMIT 1)
           LIMIT 1) last ON true
         WHERE ($3::text IS NULL OR t.name = $3) AND t.name <> ALL($1)
           AND (t.forgotten_at IS NULL OR t.forgotten_at < t.last_started_at)
         ORDER BY t.name",
        &[&config.crawl.skip, &grace(config).as_seconds_f64(), &one],
    )?;
    Ok(rows.iter().map(task).collect())
}

fn task(row: &Row) -> TaskHealth {
    let (runs, success, partial) = (number(row, 3), number(row, 4), number(row, 5));
    let mut task = TaskHealth {
        name: row.get(0),
        title: row.get(1),
        tool: row.get(2),
        state: State::Unknown,
        severity: Health::Healthy,
        health: Health::Healthy,
        reasons: Vec::new(),
        runs,
        success,
        partial,
        failed: runs.saturating_sub(success + partial),
        success_rate: percent(success, runs),
        inserted: number(row, 6),
        last_run: row.get(7),
        last_run_id: row.get(8),
        last_status: row.get(9),
        last_duration: row.get(10),
        last_success: row.get(11),
        last_error: some_text(row, 12),
        consecutive_failures: row.get(13),
        failing_since: row.get(14),
        schedule: row.get(15),
        next_due: row.get(16),
        late_seconds: row.get::<_, Option<i64>>(17).map(i64::unsigned_abs),
        running: row.get::<_, Option<bool>>(18).unwrap_or(false),
        collects: row.get(26),
    };
    let (stale_data, silent, stale_day): (Option<bool>, Option<bool>, Option<bool>) =
        (row.get(20), row.get(21), row.get(25));
    let facts = Facts {
        outcome: row.get(19),
        error: row.get::<_, Option<&str>>(22).and_then(ErrorKind::parse),
        stale: stale_data == Some(false) || silent == Some(true) || stale_day == Some(true),
        paused: row.get(23),
        incident: match row.get::<_, Option<&str>>(24) {
            None => Health::Healthy,
            Some("critical") => Health::Critical,
            Some(_) => Health::Warning,
        },
        awaited: row.get::<_, Option<bool>>(27).unwrap_or(false),
    };
    assess(&mut task, &facts);
    task
}

/// What is known of a task besides its counts.
#[derive(Debug, Clone, Copy, Default)]
struct Facts<'a> {
    /// How the newest run ended that says something of today.
    outcome: Option<&'a str>,
    /// What was wrong with it.
    error: Option<ErrorKind>,
    /// Its data are of another day, or there were none for much longer than usual.
    stale: bool,
    /// All alerts of it are silenced.
    paused: bool,
    /// How bad the worst of its open incidents is.
    incident: Health,
    /// The time at which it is due next, which is its first when it has never run, is not over.
    awaited: bool,
}

/// The one place that says how a task is: the command line, the API, metrics and pages all show this. What people are notified of is at
/// least as bad here.
fn assess(task: &mut TaskHealth, facts: &Facts<'_>) {
    let mut reasons = Vec::new();
    let mut add = |holds: bool, reason: Reason, severity: Health| {
        if holds {
            reasons.push((reason, severity));
        }
    };
    let partial = facts.outcome == Some("partial");
    let failed = match facts.outcome {
        Some(outcome) => !matches!(outcome, "success" | "partial"),
        None => task.consecutive_failures > 0,
    };
    let in_a_row = task.consecutive_failures >= IN_A_ROW;
    // Time heals a site that is ill; a wrong password it does not.
    let needs_a_person = facts.error.is_some_and(|error| !error.is_transient());
    let one_failure = if needs_a_person || task.success_rate.is_none() {
        Health::Critical
    } else {
        Health::Warning
    };
    add(failed && !in_a_row, Reason::LastRun, one_failure);
    add(partial && !in_a_row, Reason::LastRun, Health::Warning);
    add(in_a_row, Reason::Failing, Health::Critical);
    add(task.late_seconds.is_some(), Reason::Late, Health::Warning);
    add(
        task.last_run_id.is_none() && !facts.awaited,
        Reason::NeverRun,
        Health::Warning,
    );
    add(facts.stale, Reason::Stale, Health::Warning);
    if reasons.is_empty() && facts.incident > Health::Healthy {
        reasons.push((Reason::Incident, facts.incident));
    }
    let found = reasons.iter().map(|(_, severity)| *severity).max();
    task.severity = found.unwrap_or(Health::Healthy).max(facts.incident);
    task.health = task.severity;
    task.reasons = reasons.into_iter().map(|(reason, _)| reason).collect();
    if let Some(rate) = task.success_rate.filter(|rate| *rate < HEALTHY) {
        let by_rate = if rate >= WARNING {
            Health::Warning
        } else {
            Health::Critical
        };
        task.health = task.health.max(by_rate);
        task.reasons.insert(0, Reason::SuccessRate);
    }
    task.state = if facts.paused {
        State::Paused
    } else if failed || in_a_row {
        State::Failed
    } else if task.late_seconds.is_some() {
        State::Late
    } else if partial {
        State::Partial
    } else if facts.stale {
        State::Stale
    } else if task.running {
        State::Running
    } else if task.last_run_id.is_none() {
        State::Unknown
    } else {
        State::Ok
    };
    if facts.paused {
        task.severity = Health::Healthy;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(runs: u64, success: u64) -> TaskHealth {
        TaskHealth {
            name: "a".to_owned(),
            title: "a".to_owned(),
            tool: "oa-crawl".to_owned(),
            state: State::Unknown,
            severity: Health::Healthy,
            health: Health::Healthy,
            reasons: Vec::new(),
            runs,
            success,
            partial: 0,
            failed: runs - success,
            success_rate: percent(success, runs),
            inserted: 0,
            last_run: None,
            last_run_id: Some(Uuid::nil()),
            last_status: Some("success".to_owned()),
            last_duration: None,
            last_success: None,
            last_error: None,
            consecutive_failures: 0,
            failing_since: None,
            schedule: None,
            next_due: None,
            late_seconds: None,
            running: false,
            collects: true,
        }
    }

    #[test]
    fn ninety_percent_are_healthy_and_seventy_a_warning() {
        for (runs, success, health) in [
            (10, 10, Health::Healthy),
            (10, 9, Health::Healthy),
            (1000, 899, Health::Warning),
            (10, 7, Health::Warning),
            (1000, 699, Health::Critical),
            (1, 0, Health::Critical),
            (0, 0, Health::Healthy),
        ] {
            let mut task = of(runs, success);
            assess(&mut task, &Facts::default());
            assert_eq!(task.health, health, "{success} of {runs}");
        }
    }

    #[test]
    fn what_is_late_never_run_or_stale_is_at_least_a_warning() {
        let mut late = of(10, 10);
        late.late_seconds = Some(1);
        assess(&mut late, &Facts::default());
        assert_eq!(
            (late.health, late.reasons),
            (Health::Warning, vec![Reason::Late])
        );
        let mut never = of(0, 0);
        never.last_run_id = None;
        assess(&mut never, &Facts::default());
        assert_eq!(
            (never.health, never.reasons),
            (Health::Warning, vec![Reason::NeverRun])
        );
        // Enabled on a Friday evening, due on Monday.
        let mut waits = of(0, 0);
        (waits.last_run_id, waits.next_due) = (None, Some(Utc::now()));
        let awaited = Facts {
            awaited: true,
            ..Facts::default()
        };
        assess(&mut waits, &awaited);
        assert_eq!(
            (waits.severity, waits.state),
            (Health::Healthy, State::Unknown)
        );
        assert_eq!(waits.awaited_until(), waits.next_due);
        let mut stale = of(10, 1);
        assess(
            &mut stale,
            &Facts {
                stale: true,
                ..Facts::default()
            },
        );
        assert_eq!(
            (stale.health, stale.reasons),
            (Health::Critical, vec![Reason::SuccessRate, Reason::Stale])
        );
        let mut failed = of(0, 0);
        failed.consecutive_failures = 1;
        assess(&mut failed, &Facts::default());
        assert_eq!(failed.health, Health::Critical);
        // 20 failures of 200 runs, the last three of them in a row.
        let mut failing = of(200, 180);
        failing.consecutive_failures = 3;
        assess(&mut failing, &Facts::default());
        assert_eq!(
            (failing.health, failing.reasons),
            (Health::Critical, vec![Reason::Failing])
        );
    }

    #[test]
    fn a_failure_that_a_later_success_mended_needs_nobody() {
        let mut task = of(2, 1);
        let healed = Facts {
            outcome: Some("success"),
            ..Facts::default()
        };
        assess(&mut task, &healed);
        assert_eq!(
            (task.state, task.severity, task.health),
            (State::Ok, Health::Healthy, Health::Critical)
        );
        task.late_seconds = Some(1);
        assess(&mut task, &healed);
        assert_eq!((task.state, task.severity), (State::Late, Health::Warning));
    }

    #[test]
    fn one_failure_is_a_warning_unless_only_a_person_can_mend_it_or_it_was_reported() {
        for (error, incident, severity) in [
            (ErrorKind::Http5xx, Health::Healthy, Health::Warning),
            (ErrorKind::Auth, Health::Healthy, Health::Critical),
            (ErrorKind::Http5xx, Health::Critical, Health::Critical),
        ] {
            let mut task = of(100, 99);
            task.consecutive_failures = 1;
            let facts = Facts {
                outcome: Some("failed"),
                error: Some(error),
                incident,
                ..Facts::default()
            };
            assess(&mut task, &facts);
            assert_eq!((task.state, task.severity), (State::Failed, severity));
            assert_eq!(task.health, severity, "never better than it is now");
            let paused = Facts {
                paused: true,
                ..facts
            };
            assess(&mut task, &paused);
            assert_eq!(
                (task.state, task.severity),
                (State::Paused, Health::Healthy)
            );
        }
    }

    #[test]
    fn a_run_under_way_hides_nothing() {
        for (outcome, state) in [
            ("success", State::Running),
            ("failed", State::Failed),
            ("partial", State::Partial),
        ] {
            let mut task = of(100, 99);
            task.running = true;
            let facts = Facts {
                outcome: Some(outcome),
                ..Facts::default()
            };
            assess(&mut task, &facts);
            assert_eq!(task.state, state);
        }
    }
}
