//! What did not run when it was due: by the slots of whatever has a schedule, and by its own rhythm of what has none.
//!
//! One incident a task, or one for all of them when cron stood still. It is open while the newest slot is missing, while a day is missing
//! that `oa-crawl backfill` could collect (for a week), and of what nobody can make up for until the task has run again after people
//! were notified.

use std::collections::HashSet;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use oa_core::app::config::Config;
use oa_core::journal::due::{self, Times};
use oa_core::journal::{slots, watch};
use oa_core::model::event::{Expected, Finding, Missed, MissedEnd, MissedTask};
use oa_core::schedule::Calendar;
use postgres::{Client, Transaction};

use super::{rhythm, seconds_since};

/// So many tasks that miss something because nothing was started are one incident.
const TOGETHER: usize = 3;
/// So many days are named.
const DAYS: usize = 40;

/// What is missing, and the tasks of which that cannot be said now.
pub(super) fn find(
    client: &mut Client,
    config: &Config,
    calendar: &Calendar,
    now: DateTime<Utc>,
) -> Result<(Vec<Finding>, Vec<String>), postgres::Error> {
    let unseen = write_ahead(client, config, calendar)?;
    let grace = config.alert.grace.0 + config.crawl.jitter.0;
    let grace = TimeDelta::from_std(grace).unwrap_or(TimeDelta::MAX);
    slots::close_unmade(client, grace)?;
    let mut found = Vec::new();
    if any_missing(client, grace)? {
        let gaps = gaps(client)?;
        let missing = missing(client, config, grace, &gaps)?;
        found = together(client, missing, &gaps, now)?;
    }
    found.extend(rhythm::find(client, config, calendar, now)?);
    Ok((found, unseen))
}

/// Writes slots ahead, but waits for nobody who has a task locked for long. Mostly there are enough all the same; of a task that has none
/// any more nothing can be missed: it is returned.
fn write_ahead(
    client: &mut Client,
    config: &Config,
    calendar: &Calendar,
) -> Result<Vec<String>, postgres::Error> {
    let times = Times {
        zone: config.timezone,
        calendar,
    };
    let mut left = Vec::new();
    for (tool, tasks) in config.scheduled() {
        left.extend(due::register(client, tool, &tasks, times)?);
    }
    left.extend(due::write_ahead(client, times)?);
    left.sort_unstable();
    left.dedup();
    if left.is_empty() {
        return Ok(left);
    }
    let unseen = due::without_slots(client, &left)?;
    left.retain(|task| !unseen.contains(task));
    if !left.is_empty() {
        tracing::warn!(
            "the next check writes the slots of {}: somebody else has these tasks locked",
            left.join(", ")
        );
    }
    Ok(unseen)
}

/// Whether there is a slot that may be missing. What is to be said of those that are takes twenty times as long to ask.
fn any_missing(client: &mut Client, grace: TimeDelta) -> Result<bool, postgres::Error> {
    let row = client.query_one(
        "SELECT EXISTS (SELECT FROM oa.slots WHERE state = 'open' AND due_at < now() - make_interval(secs => $1))
             OR EXISTS (SELECT FROM oa.slots WHERE state IN ('missed', 'unfetchable') AND filled_by IS NULL AND closed_at > now() - interval '7 days')",
        &[&grace.as_seconds_f64()],
    )?;
    Ok(row.get(0))
}

/// When nothing was started: from the last start until the next one, or until now.
struct Gap {
    from: DateTime<Utc>,
    to: Option<DateTime<Utc>>,
}

/// The gaps of the last week in what cron starts each minute: `run --due`, or where that is not used the check itself.
fn gaps(client: &mut Client) -> Result<Vec<Gap>, postgres::Error> {
    let rows = client.query(
        "WITH recent AS (SELECT * FROM oa.starts WHERE last_at > now() - interval '30 days'),
              chosen AS (SELECT CASE WHEN EXISTS (SELECT FROM recent WHERE what = $1) THEN $1 ELSE $2 END AS what)
         SELECT gap_from, gap_to FROM recent JOIN chosen USING (what) WHERE gap_to > now() - interval '7 days' AND gap_from IS NOT NULL
         UNION ALL
         SELECT max(last_at), NULL FROM recent JOIN chosen USING (what) HAVING max(last_at) < now() - interval '5 minutes'
         ORDER BY 1",
        &[&watch::DUE, &watch::CHECK],
    )?;
    let gap = |row: &postgres::Row| Gap {
        from: row.get(0),
        to: row.get(1),
    };
    Ok(rows.iter().map(gap).collect())
}

/// A task of which something is missing.
struct Missing {
    found: MissedTask,
    collects: bool,
    last_started_at: Option<DateTime<Utc>>,
    last_success_at: Option<DateTime<Utc>>,
    never: bool,
    /// All of it was due while nothing was started; the number of the last such gap.
    in_gap: Option<usize>,
}

fn missing(
    client: &mut Client,
    config: &Config,
    grace: TimeDelta,
    gaps: &[Gap],
) -> Result<Vec<Missing>, postgres::Error> {
    let from: Vec<DateTime<Utc>> = gaps.iter().map(|g| g.from).collect();
    let to: Vec<Option<DateTime<Utc>>> = gaps.iter().map(|g| g.to).collect();
    let rows = client.query(
        "WITH holes AS (
           SELECT s.*, t.backfills, t.last_success_at,
                  (SELECT max(g.n) FROM unnest($3::timestamptz[], $4::timestamptz[]) WITH ORDINALITY g (f, u, n)
                   WHERE s.due_at > g.f - interval '1 minute' AND s.due_at <= coalesce(g.u, now())) AS gap
           FROM oa.slots s JOIN oa.tasks t ON t.name = s.task
           WHERE s.filled_by IS NULL AND s.owed AND s.due_at < now() - make_interval(secs => $1) AND s.task <> ALL($2) AND t.forgotten_at IS NULL
             AND ((s.state = 'open' AND (t.lease_until IS NULL OR t.lease_until < now())
                   -- A run that goes on longer than its lease is too long, and not missing.
                   AND (s.task, s.due_at) NOT IN (SELECT r.task, r.due_at FROM oa.runs r WHERE r.finished_at IS NULL AND r.due_at IS NOT NULL))
               OR (s.state IN ('missed', 'unfetchable') AND s.closed_at > now() - interval '7 days'
                   -- One for which another of its day stands is missing only when that is.
                   AND NOT EXISTS (SELECT FROM oa.slots l WHERE s.state = 'missed' AND l.task = s.task AND l.day = s.day AND l.due_at > s.due_at
                                   AND l.due_at <= now() AND l.state IN ('open', 'done'))))),
         grouped AS (
           SELECT h.task, count(*) AS times, min(h.due_at) AS first, max(h.due_at) AS last, array_agg(DISTINCT h.day) AS days,
                  count(*) FILTER (WHERE h.state = 'unfetchable') AS unfetchable, bool_or(h.state = 'open') AS waits,
                  min(h.day) FILTER (WHERE h.state <> 'unfetchable') AS from_day, max(h.day) FILTER (WHERE h.state <> 'unfetchable') AS to_day,
                  CASE WHEN bool_and(h.gap IS NOT NULL) THEN max(h.gap) END AS gap,
                  bool_or(h.state = 'open' OR (h.state = 'missed' AND h.backfills)
                          -- Also a run that is for no slot, by hand, shows that it runs again.
                          OR (NOT coalesce(h.last_success_at > h.reported_at, false)
                              AND NOT EXISTS (SELECT FROM oa.slots d WHERE d.task = h.task AND d.due_at > h.due_at
                                              AND ((d.state = 'done' AND d.closed_at > h.reported_at) OR d.filled_at > h.reported_at)))) AS goes_on
           FROM holes h GROUP BY h.task)
         SELECT g.task, t.title, g.times, g.first, g.last, g.days, g.unfetchable, CASE WHEN t.backfills THEN g.from_day END, g.to_day, g.gap, t.collects,
                t.last_started_at, t.last_success_at, t.last_run_id IS NULL,
                NOT g.waits AND EXISTS (SELECT FROM oa.slots d WHERE d.task = g.task AND (d.state = 'done' OR d.filled_by IS NOT NULL) AND d.due_at > g.last),
                EXISTS (SELECT FROM oa.incidents i WHERE i.fingerprint = 'never_run:' || g.task AND i.resolved_at IS NULL)
         FROM grouped g JOIN oa.tasks t ON t.name = g.task WHERE g.goes_on ORDER BY g.task",
        &[&grace.as_seconds_f64(), &config.crawl.skip, &from, &to],
    )?;
    Ok(rows.iter().map(missing_task).collect())
}

fn missing_task(row: &postgres::Row) -> Missing {
    let count = |i| row.get::<_, i64>(i).unsigned_abs();
    let mut days: Vec<NaiveDate> = row.get(5);
    let earlier = days.drain(..days.len().saturating_sub(DAYS)).count() as u64;
    let first: Option<NaiveDate> = row.get(7);
    Missing {
        found: MissedTask {
            task: row.get(0),
            title: row.get(1),
            due_at: row.get(3),
            missed: Missed {
                times: count(2),
                last_due_at: row.get(4),
                days,
                earlier_days: earlier,
                backfill: first.zip(row.get(8)),
                unfetchable: count(6),
                runs_again: row.get(14),
            },
        },
        in_gap: row
            .get::<_, Option<i64>>(9)
            .and_then(|n| usize::try_from(n - 1).ok()),
        collects: row.get(10),
        last_started_at: row.get(11),
        last_success_at: row.get(12),
        // It has run, but what it missed until then is the same incident still.
        never: row.get::<_, bool>(13) || (row.get::<_, bool>(14) && row.get::<_, bool>(15)),
    }
}

/// One incident a task, or one for all that missed something because nothing was started.
fn together(
    client: &mut Client,
    missing: Vec<Missing>,
    gaps: &[Gap],
    now: DateTime<Utc>,
) -> Result<Vec<Finding>, postgres::Error> {
    let open = client.query_opt(
        "SELECT FROM oa.incidents WHERE fingerprint = 'cron_stopped:due' AND resolved_at IS NULL",
        &[],
    )?;
    // What is an incident of its own stays one.
    let own = client.query(
        "SELECT task FROM oa.incidents WHERE rule IN ('run_missed', 'never_run') AND resolved_at IS NULL AND task IS NOT NULL",
        &[],
    )?;
    let own: HashSet<&str> = own.iter().map(|r| r.get(0)).collect();
    let joins =
        |m: &Missing| m.collects && m.in_gap.is_some() && !own.contains(m.found.task.as_str());
    let enough = open.is_some() || missing.iter().filter(|m| joins(m)).count() >= TOGETHER;
    let (joined, alone): (Vec<Missing>, Vec<Missing>) =
        missing.into_iter().partition(|m| enough && joins(m));
    let mut found: Vec<Finding> = alone.into_iter().map(|m| finding(m, now)).collect();
    let seen = |m: &Missing| m.in_gap.and_then(|n| gaps.get(n));
    if let Some(first) = joined.iter().filter_map(seen).min_by_key(|g| g.from) {
        let last = joined.iter().filter_map(seen).max_by_key(|g| g.from);
        found.push(Finding::CronStopped {
            since: first.from,
            until: last.and_then(|g| g.to),
            tasks: joined.into_iter().map(|m| m.found).collect(),
        });
    }
    Ok(found)
}

fn finding(of: Missing, now: DateTime<Utc>) -> Finding {
    let MissedTask {
        task,
        title,
        due_at,
        missed,
    } = of.found;
    Finding::RunMissed {
        task,
        title,
        due_at,
        late: seconds_since(due_at, now),
        last_started_at: of.last_started_at,
        last_success_at: of.last_success_at,
        never: of.never,
        missed,
        expected: match of.collects {
            true => Expected::Source,
            false => Expected::Configured,
        },
    }
}

/// Before incidents are locked, as tasks come first: waits for those whose slots [`note_reported`] marks.
pub(super) fn lock_tasks(
    tx: &mut Transaction<'_>,
    found: &[Finding],
) -> Result<(), postgres::Error> {
    let names: Vec<&str> = reported(found).map(|(task, ..)| task).collect();
    if names.is_empty() {
        return Ok(());
    }
    slots::lock_unreported(tx, &names)
}

/// Notes of which slots people are notified, for the end of the incident and the day's record.
pub(super) fn note_reported(
    tx: &mut Transaction<'_>,
    found: &[Finding],
) -> Result<(), postgres::Error> {
    for (task, due_at, missed) in reported(found) {
        let last = missed.last_due_at.unwrap_or(due_at);
        slots::reported(tx, task, (due_at, last))?;
    }
    Ok(())
}

/// Of which tasks something is missing, from when on, and what.
fn reported(found: &[Finding]) -> impl Iterator<Item = (&str, DateTime<Utc>, &Missed)> {
    found.iter().flat_map(|finding| match finding {
        Finding::RunMissed {
            task,
            due_at,
            missed,
            ..
        } => vec![(task.as_str(), *due_at, missed)],
        Finding::CronStopped { tasks, .. } => {
            let of = tasks.iter();
            of.map(|of| (of.task.as_str(), of.due_at, &of.missed))
                .collect()
        }
        _ => Vec::new(),
    })
}

/// What became of what an incident was about, when it is found no more.
pub(super) fn ended(
    tx: &mut Transaction<'_>,
    rule: &str,
    task: Option<&str>,
    opened_at: DateTime<Utc>,
    found: &[Finding],
) -> Result<Vec<MissedEnd>, postgres::Error> {
    if !matches!(rule, "run_missed" | "never_run" | "cron_stopped") {
        return Ok(Vec::new());
    }
    let mut ended = slots::end_of_reported(tx, task, opened_at)?;
    // Of all tasks, those that have an incident of their own are not over.
    ended.retain(|e| {
        !found
            .iter()
            .any(|f| f.task() == Some(&e.task) && task.is_none())
    });
    Ok(ended)
}
