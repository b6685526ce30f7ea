//! What should have run within a report's span, and what of it did not, or not completely: from slots and days, as they stood when the
//! span ended. A source's day says how complete it is; of what has no days each slot counts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use oa_core::app::config::Config;
use oa_core::schedule::Calendar;
use postgres::{Row, Transaction};
use serde::Serialize;

use super::{TASK, Task};
use crate::queries::days::{self, Hole, SourceDay, TWO_WEEKS, backfill};
use crate::queries::{health, history};

type Result<T> = std::result::Result<T, postgres::Error>;

/// The verdict on a span.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Verdict {
    /// Tasks that were to do something within it, or did.
    pub(crate) expected: usize,
    /// Of these, those that did all of it.
    pub(crate) complete: usize,
    /// The others.
    pub(crate) lacking: Vec<Lack>,
    /// Tasks that missed a slot within it and have made up for it.
    pub(crate) made_up: Vec<MadeUp>,
    /// Titles of scheduled tasks that were not due within it, and did not run.
    pub(crate) not_due: Vec<String>,
    /// Titles of tasks of which nobody could know yet at its end: they ran, or had just been due. They are in the next report.
    pub(crate) under_way: Vec<String>,
}

/// A task that did not do all that it was to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Lack {
    pub(crate) task: String,
    pub(crate) title: String,
    /// missing, failed, partial, stale or unfetchable.
    pub(crate) state: String,
    /// The day that is not complete.
    pub(crate) day: Option<NaiveDate>,
    /// So often it was due.
    pub(crate) due: u64,
    /// So often it did not start.
    pub(crate) missed: u64,
    pub(crate) reason: Option<String>,
    /// The command that fills it, where one does.
    pub(crate) fill: Option<String>,
    /// When it was filled, after the span.
    pub(crate) filled_at: Option<DateTime<Utc>>,
}

/// Slots that were missed and made up for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct MadeUp {
    pub(crate) title: String,
    pub(crate) slots: u64,
}

/// A hole that was reported and is closed now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Filled {
    pub(crate) title: String,
    pub(crate) day: NaiveDate,
    pub(crate) filled_at: DateTime<Utc>,
}

/// What cron started within the span.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Start {
    /// `check` or `due`.
    pub(crate) what: String,
    pub(crate) starts: u64,
    pub(crate) failures: u64,
    /// The last one up to the end of the span; `None` when none was within it.
    pub(crate) last_at: Option<DateTime<Utc>>,
}

/// A span and the time as of which it is assessed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) from: DateTime<Utc>,
    pub(crate) until: DateTime<Utc>,
    pub(crate) as_of: DateTime<Utc>,
}

/// What a task was to do within the span.
struct Due {
    title: String,
    due: u64,
    missed: u64,
    newest_missed: bool,
    made_up: u64,
    /// When a run made up for what was missed, after the span.
    filled_later: Option<DateTime<Utc>>,
    reason: Option<String>,
    days: Vec<NaiveDate>,
    /// The site shows past days.
    backfills: bool,
}

pub(super) fn assess(
    tx: &mut Transaction<'_>,
    config: &Config,
    calendar: &Calendar,
    span: Span,
    ran: &[Task],
) -> Result<Verdict> {
    let mut due = slots(tx, config, span)?;
    let under_way = under_way(tx, config, span)?;
    let mut not_due = by_schedule(tx, config, calendar, span, ran, &mut due)?;
    not_due.retain(|name, _| !under_way.contains_key(name));
    let local = |at: DateTime<Utc>| at.with_timezone(&config.timezone).date_naive();
    let (first, last) = (local(span.from), local(span.until));
    let mut owed: HashMap<String, Vec<SourceDay>> = HashMap::new();
    // The night session of a Friday is for a Monday.
    let around = (first - Days::new(7), last + Days::new(7));
    for day in days::between(tx, config, &[], around, i64::MAX)? {
        let in_slots = due
            .get(&day.task)
            .is_some_and(|of| of.days.contains(&day.day));
        if day.expected && (in_slots || day.day == first) {
            owed.entry(day.task.clone()).or_default().push(day);
        }
    }
    let mut names: BTreeSet<String> = due.keys().cloned().collect();
    names.extend(ran.iter().map(|t| t.name.clone()));
    for (name, of) in &owed {
        if of
            .iter()
            .any(|d| !matches!(d.state.as_str(), "pending" | "skipped"))
        {
            names.insert(name.clone());
        }
    }
    let mut verdict = Verdict {
        not_due: not_due.into_values().collect(),
        under_way: under_way.into_values().collect(),
        ..Verdict::default()
    };
    let none = Vec::new();
    for name in names {
        let (due, ran) = (due.get(&name), ran.iter().find(|t| t.name == name));
        let owed = owed.get(&name).unwrap_or(&none);
        verdict.expected += 1;
        let lack = lacking(&name, due, ran, owed, span);
        match lack {
            None => verdict.complete += 1,
            Some(lack) => verdict.lacking.push(lack),
        }
        if let Some(of) = due.filter(|of| of.made_up > 0) {
            verdict.made_up.push(MadeUp {
                title: of.title.clone(),
                slots: of.made_up,
            });
        }
    }
    verdict
        .lacking
        .sort_by_key(|l| (weight(&l.state), l.task.clone()));
    Ok(verdict)
}

fn weight(state: &str) -> usize {
    ["unfetchable", "missing", "failed", "stale", "partial"]
        .iter()
        .position(|s| *s == state)
        .unwrap_or(0)
}

/// A hole as of then: one that was closed later counts.
fn was_hole(day: &SourceDay, as_of: DateTime<Utc>) -> bool {
    let later = |at: Option<DateTime<Utc>>| at.is_some_and(|at| at > as_of);
    let reported = day.reported_at.is_some_and(|at| at <= as_of);
    day.hole
        || day.state == "complete" && (later(day.filled_at) || reported && later(day.collected_at))
}

fn lacking(
    name: &str,
    due: Option<&Due>,
    ran: Option<&Task>,
    owed: &[SourceDay],
    span: Span,
) -> Option<Lack> {
    let title = due
        .map(|of| &of.title)
        .or(ran.map(|of| &of.title))
        .or(owed.first().map(|of| &of.title));
    let title = title.map_or_else(|| name.to_owned(), Clone::clone);
    let mut lack = Lack {
        task: name.to_owned(),
        title,
        state: String::new(),
        day: None,
        due: due.map_or(0, |of| of.due),
        missed: due.map_or(0, |of| of.missed),
        reason: None,
        fill: None,
        filled_at: None,
    };
    let over: Vec<&SourceDay> = owed
        .iter()
        .filter(|d| !matches!(d.state.as_str(), "pending" | "skipped"))
        .collect();
    let worst = over
        .iter()
        .filter(|d| was_hole(d, span.as_of))
        .min_by_key(|d| weight(&d.state));
    if let Some(day) = worst {
        lack.day = Some(day.day);
        lack.reason.clone_from(&day.reason);
        lack.fill.clone_from(&day.fill);
        if day.hole {
            lack.state.clone_from(&day.state);
        } else {
            "missing".clone_into(&mut lack.state);
            lack.filled_at = day.filled_at.or(day.collected_at);
        }
        return Some(lack);
    }
    // Its slot was missed then, and a run has made up for it since.
    if let Some(at) = due
        .filter(|of| of.newest_missed)
        .and_then(|of| of.filled_later)
    {
        "missing".clone_into(&mut lack.state);
        lack.day = owed.first().map(|d| d.day);
        lack.filled_at = Some(at);
        return Some(lack);
    }
    // A day that is complete is that, also where a slot before its end was missed; one that is not over has its newest slot.
    let missed = due.is_some_and(|of| match (over.is_empty(), owed.is_empty()) {
        (false, _) => false,
        (true, false) => of.newest_missed,
        (true, true) => of.missed > 0,
    });
    let failed = |of: &Task| of.last_status != "success" && over.is_empty();
    if missed {
        let of = due?;
        "missing".clone_into(&mut lack.state);
        lack.reason.clone_from(&of.reason);
        lack.day = owed.first().map(|d| d.day);
        if let Some(day) = owed.first().filter(|_| of.backfills) {
            lack.fill = Some(backfill(name, day.day, day.day));
        }
        return Some(lack);
    }
    let task = ran.filter(|of| failed(of))?;
    lack.state = if task.last_status == "partial" {
        "partial".to_owned()
    } else {
        "failed".to_owned()
    };
    lack.reason.clone_from(&task.last_error);
    Some(lack)
}

/// The condition under which nobody could know at that time what becomes of a slot `s`: it had been due for less than the grace, or its
/// run was under way. It counts in the report after that, in which its run is, too.
fn undecided(at: &str, grace: &str) -> String {
    format!(
        "(s.due_at < {at} AND s.due_at > {at} - interval '1 day' AND coalesce(s.closed_at, 'infinity') > {at}
          AND (s.due_at >= {at} - make_interval(secs => {grace})
               OR EXISTS (SELECT FROM oa.runs r WHERE r.task = s.task AND r.started_at >= s.due_at - interval '1 minute' AND r.started_at < {at}
                          AND coalesce(r.finished_at, 'infinity') >= {at} AND r.status <> 'skipped')))"
    )
}

/// The titles of tasks with a slot that is not decided at the end of the span, by name.
fn under_way(
    tx: &mut Transaction<'_>,
    config: &Config,
    span: Span,
) -> Result<BTreeMap<String, String>> {
    let undecided = undecided("$1::timestamptz", "$2");
    let rows = tx.query(
        &format!(
            "SELECT DISTINCT s.task, coalesce(nullif(t.title, ''), s.task) FROM oa.slots s LEFT JOIN oa.tasks t ON t.name = s.task
             WHERE s.day BETWEEN $1::timestamptz::date - 2 AND $1::timestamptz::date + 8 AND {undecided}
               AND s.state <> 'skipped' AND s.owed AND s.task <> ALL($3) AND s.task <> $4
               AND (t.forgotten_at IS NULL OR t.forgotten_at < t.last_started_at OR t.forgotten_at > $1)"
        ),
        &[
            &span.until.min(span.as_of),
            &health::grace(config).as_seconds_f64(),
            &config.crawl.skip,
            &TASK,
        ],
    )?;
    Ok(rows.iter().map(|r| (r.get(0), r.get(1))).collect())
}

/// What slots say was due, by task.
fn slots(tx: &mut Transaction<'_>, config: &Config, span: Span) -> Result<BTreeMap<String, Due>> {
    let grace = health::grace(config).as_seconds_f64();
    let before = undecided("$1::timestamptz", "$6");
    let at_the_end = undecided("least($2::timestamptz, $3::timestamptz)", "$6");
    let rows = tx.query(
        &format!(
            "WITH s AS (
           SELECT s.*, coalesce(s.filled_at <= $3, false) AS made_up,
                  (s.state IN ('missed', 'unfetchable') OR s.state = 'open' AND s.due_at < $3::timestamptz - make_interval(secs => $6))
                    AND (s.filled_at IS NULL OR s.filled_at > $3) AS missed
           FROM oa.slots s
           WHERE s.day BETWEEN $1::timestamptz::date - 2 AND $2::timestamptz::date + 8 AND (s.due_at >= $1 OR {before}) AND s.due_at < $2 AND s.due_at <= $3
             AND NOT {at_the_end}
             AND s.state <> 'skipped' AND s.owed AND s.task <> ALL($4) AND s.task <> $5)
         SELECT s.task, coalesce(nullif(t.title, ''), s.task), count(*), count(*) FILTER (WHERE missed), (array_agg(missed ORDER BY s.due_at DESC))[1],
                count(*) FILTER (WHERE made_up AND s.state <> 'done'), (array_agg(s.reason ORDER BY s.due_at DESC) FILTER (WHERE missed AND s.reason <> ''))[1],
                array_agg(DISTINCT s.day), max(s.filled_at) FILTER (WHERE missed), coalesce(t.backfills, false)
         FROM s LEFT JOIN oa.tasks t ON t.name = s.task
         WHERE t.forgotten_at IS NULL OR t.forgotten_at < t.last_started_at OR t.forgotten_at > $2
         GROUP BY s.task, t.title, t.backfills"
        ),
        &[
            &span.from,
            &span.until,
            &span.as_of,
            &config.crawl.skip,
            &TASK,
            &grace,
        ],
    )?;
    let count = |row: &Row, column| row.get::<_, i64>(column).unsigned_abs();
    let due = |row: &Row| {
        let due = Due {
            title: row.get(1),
            due: count(row, 2),
            missed: count(row, 3),
            newest_missed: row.get(4),
            made_up: count(row, 5),
            reason: row.get(6),
            days: row.get(7),
            filled_later: row.get(8),
            backfills: row.get(9),
        };
        (row.get(0), due)
    };
    Ok(rows.iter().map(due).collect())
}

/// Where no slots are kept yet, the schedule says what was due since it was made. Gives the titles of those that were not due and did not
/// run, by name.
fn by_schedule(
    tx: &mut Transaction<'_>,
    config: &Config,
    calendar: &Calendar,
    span: Span,
    ran: &[Task],
    due: &mut BTreeMap<String, Due>,
) -> Result<BTreeMap<String, String>> {
    let rows = tx.query(
        "SELECT t.name, coalesce(nullif(t.title, ''), t.name), t.schedule, t.days, t.sessions, t.expected_since,
                EXISTS (SELECT FROM oa.slots s WHERE s.task = t.name AND (s.due_at < $1 OR t.expected_since IS NULL))
         FROM oa.tasks t WHERE t.schedule IS NOT NULL AND t.name <> ALL($2) AND t.name <> $3
           AND (t.forgotten_at IS NULL OR t.forgotten_at < t.last_started_at) ORDER BY t.name",
        &[&span.until, &config.crawl.skip, &TASK],
    )?;
    let mut not_due = BTreeMap::new();
    for row in &rows {
        let (name, title): (String, String) = (row.get(0), row.get(1));
        if due.contains_key(&name) || ran.iter().any(|t| t.name == name) {
            continue;
        }
        if row.get::<_, bool>(6) {
            not_due.insert(name, title);
            continue;
        }
        let (days, sessions): (Option<&str>, Option<Vec<String>>) = (row.get(3), row.get(4));
        let Some(schedule) = history::schedule_of(row.get(2), days, sessions, config.timezone)
        else {
            continue;
        };
        let before = span.from - TimeDelta::seconds(1);
        let first = schedule.next_after(before, calendar);
        let all = std::iter::successors(first, |at| schedule.next_after(*at, calendar));
        let late = span.until.min(span.as_of - health::grace(config));
        let times: Vec<DateTime<Utc>> = all.take_while(|at| *at < span.until).take(2000).collect();
        if times.is_empty() {
            not_due.insert(name, title);
            continue;
        }
        let Some(since) = row
            .get::<_, Option<DateTime<Utc>>>(5)
            .filter(|_| days.is_some())
        else {
            continue;
        };
        let missed = times
            .iter()
            .filter(|at| **at >= since && **at < late)
            .count() as u64;
        if missed > 0 {
            let of = Due {
                title,
                due: missed,
                missed,
                newest_missed: true,
                made_up: 0,
                filled_later: None,
                reason: None,
                days: Vec::new(),
                backfills: false,
            };
            due.insert(name, of);
        }
    }
    Ok(not_due)
}

/// Holes that were reported and closed within the span: each is in just one report, also when one is sent late.
pub(super) fn filled(tx: &mut Transaction<'_>, config: &Config, span: Span) -> Result<Vec<Filled>> {
    let rows = tx.query(
        "SELECT coalesce(nullif(t.title, ''), d.task), d.day, coalesce(d.filled_at, d.collected_at)
         FROM oa.days d LEFT JOIN oa.tasks t ON t.name = d.task
         WHERE d.day > $1::timestamptz::date - 90 AND d.state = 'complete' AND d.reported_at IS NOT NULL AND d.task <> ALL($3)
           AND coalesce(d.filled_at, d.collected_at) > $1 AND coalesce(d.filled_at, d.collected_at) <= $2
           AND coalesce(d.filled_at, d.collected_at) >= d.reported_at
         ORDER BY d.task, d.day",
        &[&span.from, &span.until, &config.crawl.skip],
    )?;
    let filled = |row: &Row| Filled {
        title: row.get(0),
        day: row.get(1),
        filled_at: row.get(2),
    };
    Ok(rows.iter().map(filled).collect())
}

/// Holes of the two weeks before the span that a command fills.
pub(super) fn before(tx: &mut Transaction<'_>, config: &Config, span: Span) -> Result<Vec<Hole>> {
    let first = span.from.with_timezone(&config.timezone).date_naive();
    let two_weeks = (first - Days::new(TWO_WEEKS), first - Days::new(1));
    let mut days = days::between(tx, config, &[], two_weeks, i64::MAX)?;
    for day in &mut days {
        if !day.hole && was_hole(day, span.as_of) && day.expected {
            // It was one then, and somebody has closed it since.
            day.hole = true;
            "missing".clone_into(&mut day.state);
        }
    }
    let mut holes = days::holes(&days);
    holes.retain(|h| h.fill.is_some());
    Ok(holes)
}

/// How often cron started what watches, and when last: of what it has started within the two weeks before.
pub(super) fn starts(tx: &mut Transaction<'_>, span: Span) -> Result<Vec<Start>> {
    let rows = tx.query(
        "SELECT w.what, coalesce(sum(s.starts), 0)::bigint, coalesce(sum(s.failures), 0)::bigint,
                max(least(s.last_at, $2)) FILTER (WHERE s.last_at >= $1 AND s.first_at < $2),
                max(w.at) FILTER (WHERE w.at >= $1 AND w.at <= $2)
         FROM (SELECT what, max(at) AS at FROM (
                 SELECT what, at FROM oa.watches WHERE at > $1::timestamptz - interval '14 days' AND at <= $2
                 UNION ALL SELECT what, NULL::timestamptz FROM oa.starts WHERE first_at < $2 AND last_at > $1::timestamptz - interval '14 days') x GROUP BY what) w
         LEFT JOIN oa.starts s ON s.what = w.what AND s.last_at >= $1 AND s.first_at < $2
         GROUP BY w.what ORDER BY w.what",
        &[&span.from, &span.as_of],
    )?;
    let start = |row: &Row| Start {
        what: row.get(0),
        starts: row.get::<_, i64>(1).unsigned_abs(),
        failures: row.get::<_, i64>(2).unsigned_abs(),
        last_at: row
            .get::<_, Option<DateTime<Utc>>>(3)
            .max(row.get::<_, Option<DateTime<Utc>>>(4)),
    };
    Ok(rows.iter().map(start).collect())
}
