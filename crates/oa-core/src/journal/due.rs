//! Which tasks are expected to run, and when: what has a schedule is registered in `oa.tasks`, and its slots are written ahead from that.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use postgres::{Client, GenericClient, Transaction};

use super::{slots, tasks};
use crate::journal::incidents;
use crate::schedule::{Again, Calendar, CronError, Days, DueTime, Schedule, Session};

/// A task that has a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// Its name.
    pub name: String,
    /// Its title for people; empty: as its runs give it.
    pub title: String,
    /// Its schedule as it is written.
    pub schedule: String,
    /// On which days it applies.
    pub days: Days,
    /// Within which sessions; empty for any time.
    pub sessions: Vec<Session>,
    /// When its days are collected once more.
    pub again: Option<Again>,
    /// Its runs collect days: it is a source.
    pub collects: bool,
    /// `oa-crawl backfill` can collect its past days.
    pub backfills: bool,
}

impl Scheduled {
    /// A program that runs at these times, on all days.
    #[must_use]
    pub fn program(name: &str, title: &str, schedule: &str) -> Self {
        Self {
            name: name.to_owned(),
            title: title.to_owned(),
            schedule: schedule.to_owned(),
            days: Days::All,
            sessions: Vec::new(),
            again: None,
            collects: false,
            backfills: false,
        }
    }

    /// The times themselves.
    ///
    /// # Errors
    /// When the expression is not valid.
    pub fn times(&self, zone: Tz) -> Result<Schedule, CronError> {
        let schedule = Schedule::parse(&self.schedule, zone)?;
        Ok(schedule.on(self.days).within(&self.sessions))
    }

    fn sessions(&self) -> String {
        let words: Vec<&str> = self.sessions.iter().map(|s| s.as_str()).collect();
        words.join(" ")
    }

    /// What its slots follow from.
    fn plan(&self, zone: Tz, calendar: u64) -> String {
        let (days, sessions) = (self.days.as_str(), self.sessions());
        let kind = (self.collects, self.backfills);
        let again = self.again.map_or_else(String::new, |a| format!("|{a}"));
        format!(
            "{}|{days}|{sessions}|{zone}|{calendar:x}|{kind:?}{again}",
            self.schedule
        )
    }
}

/// By which zone and trading days schedules are meant.
#[derive(Debug, Clone, Copy)]
pub struct Times<'a> {
    /// The zone of the schedules.
    pub zone: Tz,
    /// Trading days and sessions.
    pub calendar: &'a Calendar,
}

/// How far slots are written, and how much of that must be left before more are.
const AHEAD: TimeDelta = TimeDelta::hours(48);
const LEFT: TimeDelta = TimeDelta::hours(24);
/// A clock that was wrong by years does not fill the table.
const BACK: TimeDelta = TimeDelta::days(400);

/// Makes tasks known before their first run, and after a change of their schedule, and writes their slots ahead: until two days from now,
/// and back to where they end, so that after any downtime all slots of it are there. Where nothing has changed and enough is written, it
/// only looks. All by the server's clock.
///
/// A changed schedule, or calendar, replaces the slots that are not due yet, and never one that was. Returns the tasks of which nothing was
/// written, because somebody else has them locked: the next time does it, and the others need not wait for them.
///
/// # Errors
/// When PostgreSQL fails.
pub fn register(
    client: &mut impl GenericClient,
    tool: &str,
    scheduled: &[Scheduled],
    times: Times<'_>,
) -> Result<Vec<String>, postgres::Error> {
    let names: Vec<&str> = scheduled.iter().map(|t| t.name.as_str()).collect();
    let rows = client.query(
        "SELECT name, title, slots_plan, schedule IS NOT NULL AND next_due_at > now(), slots_until >= now() + make_interval(secs => $2)
         FROM oa.tasks WHERE name = ANY($1)",
        &[&names, &LEFT.as_seconds_f64()],
    )?;
    let known: HashMap<&str, &postgres::Row> = rows.iter().map(|r| (r.get(0), r)).collect();
    let calendar = times.calendar.fingerprint();
    let plan = |t: &Scheduled| t.plan(times.zone, calendar);
    let plans: Vec<String> = scheduled.iter().map(plan).collect();
    let mut news = Vec::new();
    let mut short = Vec::new();
    for (task, plan) in scheduled.iter().zip(&plans) {
        let row = known.get(task.name.as_str());
        let same = row.is_some_and(|r| {
            (task.title.is_empty() || r.get::<_, &str>(1) == task.title)
                && r.get::<_, Option<&str>>(2) == Some(plan)
                && r.get::<_, Option<bool>>(3) == Some(true)
        });
        if !same {
            news.push((task, plan.as_str()));
        }
        if !same || row.and_then(|r| r.get::<_, Option<bool>>(4)) != Some(true) {
            short.push((task.name.as_str(), task.times(times.zone), task.again));
        }
    }
    if news.is_empty() && short.is_empty() {
        return Ok(Vec::new());
    }
    let mut tx = client.transaction()?;
    // Whose schedule is new is among those whose slots are to be written.
    let all: Vec<&str> = short.iter().map(|(name, ..)| *name).collect();
    let left = tasks::lock_shortly(&mut tx, &all)?;
    let is_left: HashSet<&str> = left.iter().map(String::as_str).collect();
    news.retain(|(task, _)| !is_left.contains(task.name.as_str()));
    short.retain(|(name, ..)| !is_left.contains(name));
    if short.is_empty() {
        return Ok(left);
    }
    let now: DateTime<Utc> = tx.query_one("SELECT now()", &[])?.get(0);
    if !news.is_empty() {
        put(&mut tx, tool, &news, now, times)?;
    }
    write(&mut tx, &short, now, times)?;
    tx.commit()?;
    Ok(left)
}

/// What is registered of the tasks that collect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Names, titles and plans, in few characters.
    pub digest: String,
    /// None of their slots is due, enough are written ahead, and nobody asked for a run.
    pub is_idle: bool,
}

/// What is registered, for whoever knows that it is what it should be.
///
/// # Errors
/// When PostgreSQL fails.
pub fn registered(client: &mut impl GenericClient) -> Result<Registered, postgres::Error> {
    let row = client.query_one(
        "SELECT count(*) || ' ' || coalesce(sum(hashtextextended(concat_ws('|', name, title, slots_plan), 0)), 0),
                coalesce(bool_and(next_due_at > now() AND coalesce(slots_until >= now() + make_interval(secs => $1), false)), true)
                AND NOT EXISTS (SELECT FROM oa.slots s JOIN oa.tasks o ON o.name = s.task WHERE s.state = 'open' AND s.due_at <= now() AND o.collects)
                AND NOT EXISTS (SELECT FROM oa.requests WHERE state IN ('open', 'taken') AND kind <> 'test_channel')
         FROM oa.tasks WHERE collects AND schedule IS NOT NULL",
        &[&LEFT.as_seconds_f64()],
    )?;
    Ok(Registered {
        digest: row.get(0),
        is_idle: row.get(1),
    })
}

/// Goes on writing the slots of all tasks that have some, so that what is missed has a name also when nothing but `oa-alert check` runs.
/// Returns the tasks that somebody else has locked, which are left to the next time. It waits for them, as long as `lock_timeout` says, only
/// where slots end before now.
///
/// # Errors
/// When PostgreSQL fails.
pub fn write_ahead(
    client: &mut impl GenericClient,
    times: Times<'_>,
) -> Result<Vec<String>, postgres::Error> {
    let rows = client.query(
        "SELECT name, schedule, coalesce(days, ''), coalesce(sessions, '{}'), now(), again, slots_until < now() FROM oa.tasks WHERE schedule IS NOT NULL AND slots_until < now() + make_interval(secs => $1)",
        &[&LEFT.as_seconds_f64()],
    )?;
    let Some(first) = rows.first() else {
        return Ok(Vec::new());
    };
    let now = first.get(4);
    let names: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    let mut tx = client.transaction()?;
    let left = match rows.iter().any(|row| row.get(6)) {
        true => tasks::lock_or_leave(&mut tx, &names)?,
        false => tasks::lock_free(&mut tx, &names)?,
    };
    let is_left: HashSet<&str> = left.iter().map(String::as_str).collect();
    let free = rows
        .iter()
        .filter(|row| !is_left.contains(row.get::<_, &str>(0)));
    let short = free.map(|row| {
        let task = Scheduled {
            days: Days::named(row.get(2)),
            sessions: Session::named(&row.get::<_, Vec<&str>>(3)),
            ..Scheduled::program(row.get(0), "", row.get(1))
        };
        let again = row.get::<_, Option<&str>>(5);
        let again = again.and_then(|again| again.parse().ok());
        (row.get(0), task.times(times.zone), again)
    });
    write(&mut tx, &short.collect::<Vec<_>>(), now, times)?;
    tx.commit()?;
    Ok(left)
}

/// Those of these tasks of which it is not known what they miss: their slots end before now.
///
/// # Errors
/// When PostgreSQL fails.
pub fn without_slots(
    client: &mut impl GenericClient,
    names: &[String],
) -> Result<Vec<String>, postgres::Error> {
    let rows = client.query(
        "SELECT name FROM oa.tasks WHERE name = ANY($1) AND coalesce(slots_until < now(), true) ORDER BY name",
        &[&names],
    )?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}

fn put(
    tx: &mut Transaction<'_>,
    tool: &str,
    tasks: &[(&Scheduled, &str)],
    now: DateTime<Utc>,
    times: Times<'_>,
) -> Result<(), postgres::Error> {
    let column = |of: fn(&Scheduled) -> &str| tasks.iter().map(|(t, _)| of(t)).collect::<Vec<_>>();
    let plans: Vec<&str> = tasks.iter().map(|(_, plan)| *plan).collect();
    // An array of arrays must be rectangular: sessions go as words.
    let sessions: Vec<String> = tasks.iter().map(|(t, _)| t.sessions()).collect();
    let due: Vec<Option<DateTime<Utc>>> = tasks
        .iter()
        .map(|(t, _)| t.times(times.zone).ok()?.next_after(now, times.calendar))
        .collect();
    let collects: Vec<bool> = tasks.iter().map(|(t, _)| t.collects).collect();
    let backfills: Vec<bool> = tasks.iter().map(|(t, _)| t.backfills).collect();
    let again: Vec<Option<String>> = tasks
        .iter()
        .map(|(t, _)| Some(t.again?.to_string()))
        .collect();
    let names = column(|t| &t.name);
    let changed = tx.query(
        "SELECT t.name FROM oa.tasks t JOIN unnest($1::text[], $2::text[]) x (name, plan) USING (name)
         WHERE t.slots_plan IS DISTINCT FROM x.plan AND t.slots_until IS NOT NULL",
        &[&names, &plans],
    )?;
    let changed: Vec<&str> = changed.iter().map(|r| r.get(0)).collect();
    if !changed.is_empty() {
        slots::remove(tx, &changed, None)?;
    }
    tx.execute(
        // A run by hand of what is off, or of a broken file, leaves no schedule: what was expected before still is.
        "INSERT INTO oa.tasks AS t (name, tool, title, schedule, next_due_at, days, sessions, slots_plan, collects, backfills, again, expected_since)
         SELECT n, $1, i, s, d, a, string_to_array(e, ' '), p, c, b, o, now()
         FROM unnest($2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::text[], $8::text[], $9::boolean[], $10::boolean[], $11::text[])
              x (n, i, s, d, a, e, p, c, b, o) ORDER BY n
         ON CONFLICT (name) DO UPDATE SET schedule = excluded.schedule, title = coalesce(nullif(excluded.title, ''), t.title), days = excluded.days, sessions = excluded.sessions,
           collects = excluded.collects, backfills = excluded.backfills, again = excluded.again, next_due_at = excluded.next_due_at, slots_plan = excluded.slots_plan,
           slots_until = CASE WHEN t.slots_plan IS DISTINCT FROM excluded.slots_plan AND t.slots_until > now() THEN now() ELSE t.slots_until END,
           expected_since = CASE WHEN t.schedule IS NOT DISTINCT FROM excluded.schedule AND (t.days, t.sessions) IS NOT DISTINCT FROM (excluded.days, excluded.sessions)
                                   OR t.schedule IS NULL THEN coalesce(t.expected_since, now()) ELSE now() END,
           forgotten_at = NULL",
        &[
            &tool,
            &names,
            &column(|t| &t.title),
            &column(|t| &t.schedule),
            &due,
            &column(|t| t.days.as_str()),
            &sessions,
            &plans,
            &collects,
            &backfills,
            &again,
        ],
    )?;
    Ok(())
}

/// A task's name, its times, and when its days are collected once more.
type Planned<'a> = (&'a str, Result<Schedule, CronError>, Option<Again>);

/// What of the slots is written at once.
const CHUNK: usize = 20_000;

/// The tasks are locked by then.
fn write(
    tx: &mut Transaction<'_>,
    tasks: &[Planned<'_>],
    now: DateTime<Utc>,
    times: Times<'_>,
) -> Result<(), postgres::Error> {
    let names: Vec<&str> = tasks.iter().map(|(name, ..)| *name).collect();
    let rows = tx.query(
        "SELECT name, slots_until, collects FROM oa.tasks WHERE name = ANY($1)",
        &[&names],
    )?;
    let until: HashMap<&str, (Option<DateTime<Utc>>, bool)> = rows
        .iter()
        .map(|r| (r.get(0), (r.get(1), r.get(2))))
        .collect();
    let end = now + AHEAD;
    let mut slots = slots::Writer::new(CHUNK);
    for (name, schedule, again) in tasks {
        let (Some((until, collects)), Ok(schedule)) = (until.get(name), schedule) else {
            continue;
        };
        let from = until.map_or(now, |until| until.max(now - BACK));
        let own = |at| DueTime {
            at,
            day: schedule.day_of(at),
            again: false,
        };
        if until.is_none() && *collects {
            // Its first: what was due today and nobody has done can be collected. Other days were nobody's.
            let last = schedule.last_between(midnight(now, times.zone), now, times.calendar);
            if let Some(at) = last {
                slots.write_if_undone(tx, name, own(at))?;
            }
        }
        for at in schedule.between(from, end, times.calendar) {
            slots.push(tx, name, own(at))?;
        }
        let again = again.map(|again| again.after(from, schedule.clone(), times.calendar));
        // A day of before the task was known is nobody's.
        let is_known = |due: &DueTime| until.is_some() || due.day >= schedule.day_of(now);
        let again = again.into_iter().flatten().filter(is_known);
        for due in again.take_while(|due| due.at <= end) {
            slots.push(tx, name, due)?;
        }
    }
    slots.flush(tx)?;
    tx.execute(
        "UPDATE oa.tasks SET slots_until = $2 WHERE name = ANY($1)",
        &[&names, &end],
    )?;
    Ok(())
}

/// The last second before a local day.
fn midnight(now: DateTime<Utc>, zone: Tz) -> DateTime<Utc> {
    let day = now.with_timezone(&zone).date_naive();
    let begins = zone.from_local_datetime(&day.and_time(NaiveTime::MIN));
    let begins = begins.earliest().map_or(now, |at| at.to_utc());
    begins - TimeDelta::seconds(1)
}

/// A task that is run no more is not missed either, and no success of its will resolve the incident of its runs: that is resolved now. Its
/// slots that were due are closed as skipped, the others go. Returns whether there is such a task.
///
/// # Errors
/// When PostgreSQL fails.
pub fn forget(client: &mut Client, task: &str) -> Result<bool, postgres::Error> {
    let mut tx = client.transaction()?;
    let forgotten = tx.query_opt(
        "UPDATE oa.tasks SET schedule = NULL, next_due_at = NULL, expected_since = NULL, slots_until = NULL, slots_plan = NULL, forgotten_at = now()
         WHERE name = $1 RETURNING coalesce(nullif(title, ''), name)",
        &[&task],
    )?;
    if let Some(row) = &forgotten {
        slots::retire(&mut tx, task)?;
        incidents::resolve_retired(&mut tx, task, row.get(0))?;
    }
    tx.commit()?;
    Ok(forgotten.is_some())
}
