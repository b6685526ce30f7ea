//! `oa-crawl run --due`: which sources are due. One crontab line a minute replaces one line a source, in the schedule's own zone,
//! with trading days and sessions, and makes up for what was missed while the machine was off.
//!
//! A source is due when one of its slots is (`oa.slots`), and no run has closed that. The slots are there for all machines; while
//! PostgreSQL is unreachable, a file below `state_dir/due` does for this one.
//!
//! A day that `again` names has a slot of its own for that, on the day after.
//!
//! What was due before the source was known is not missed. Of what was missed, `catch_up` says what is made up for; the rest is closed
//! and stays a hole, with the reason. What the site cannot show any more leaves one skipped run with the reason besides.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use oa_core::app::config::Config;
use oa_core::journal::due::{Scheduled, Times, register, registered};
use oa_core::journal::slots::{self, Decision, OpenSlot, Policy, Unmade};
use oa_core::journal::watch;
use oa_core::journal::{DbUnavailable, Recorder};
use oa_core::pg::describe;
use oa_core::schedule::{Calendar, CatchUp, DueTime};
use postgres::{Client, Transaction};

use super::idle::Seen;
use crate::PROGRAM;
use crate::collector::Job;
use crate::source::{Shows, Source, Sources};

/// A due time that is closed without a run, and why.
type Closing = (DateTime<Utc>, Unmade, String);

/// The jobs that are due now; notes that they are started. Each list is of one source: oldest first, one after the other.
pub(super) fn jobs<'a>(
    config: &Config,
    sources: &'a Sources,
    calendar: &Calendar,
    recorder: &Recorder,
    seen: Option<&Seen>,
) -> Vec<Vec<Job<'a>>> {
    let planner = || Planner {
        config,
        calendar,
        recorder,
        now: recorder.now(),
        seen: seen.filter(|_| sources.all_well()),
    };
    // Connected, what is due is decided by the server's clock, which all machines share.
    let planned = recorder.connected(|client| planner().by_slots(client, sources));
    let planned = planned.map_err(|e| e.to_string());
    let planned = planned.and_then(|planned| planned.map_err(|e| describe(&e)));
    if planned.is_ok() {
        let begun = |tx: &mut Transaction<'_>| {
            watch::begun(tx, watch::DUE, recorder.host(), config.timezone)
        };
        counted(recorder.once(begun), "could not count this start");
    }
    let planner = planner();
    let jobs = planned.unwrap_or_else(|e| {
        let of = |source| -> Vec<Job<'_>> {
            let again = planner.alone_again(source).into_iter();
            again.chain(planner.alone(source)).collect()
        };
        let jobs: Vec<Vec<Job<'_>>> = sources.enabled().map(of).collect();
        let jobs: Vec<Vec<Job<'_>>> = jobs.into_iter().filter(|of| !of.is_empty()).collect();
        if !jobs.is_empty() {
            tracing::warn!("what is due is decided by this machine alone: {e}");
        }
        jobs
    });
    for job in jobs.iter().flatten() {
        match job.due_at {
            Some(due) if !job.again => note(recorder, &job.source.name, due),
            _ => note(recorder, &again_name(job.source), planner.now),
        }
    }
    jobs
}

/// Makes sources known that are run now by their own crontab lines, or by hand, and are expected to be: their runs close slots. Returns
/// whether all are: one that somebody has locked is the next time.
pub(super) fn make_known(
    client: &mut Client,
    config: &Config,
    calendar: &Calendar,
    sources: &[&Source],
) -> Result<bool, postgres::Error> {
    let all: Vec<Scheduled> = sources.iter().map(|s| scheduled(s)).collect();
    let zone = config.timezone;
    let left = register(client, PROGRAM, &all, Times { zone, calendar })?;
    if !left.is_empty() {
        tracing::warn!(
            "the slots of {} are written later: somebody else has these tasks locked",
            left.join(", ")
        );
    }
    Ok(left.is_empty())
}

fn scheduled(source: &Source) -> Scheduled {
    Scheduled {
        name: source.name.clone(),
        title: source.title.clone(),
        schedule: source.schedule.clone(),
        days: source.days,
        sessions: source.sessions.clone(),
        again: source.again,
        collects: true,
        backfills: source.shows() == Shows::AnyDay,
    }
}

/// What is made up for of a source's slots.
fn policy(source: &Source, config: &Config) -> Policy {
    let crawl = &config.crawl;
    let catch_up = source.catch_up.unwrap_or(crawl.catch_up.which);
    let configured = crawl.catch_up_age.or(crawl.catch_up.age);
    let age = source.catch_up_age.or(configured).map_or_else(
        || match catch_up {
            CatchUp::Latest => TimeDelta::hours(24),
            CatchUp::All => TimeDelta::days(31),
        },
        |age| TimeDelta::from_std(age.0).unwrap_or(TimeDelta::MAX),
    );
    Policy {
        catch_up,
        limit: source
            .catch_up_limit
            .map_or(crawl.catch_up_limit, usize::from),
        age,
    }
}

/// Counts that this start came to a bad end, other than by a source that failed.
pub(super) fn note_failed(recorder: &Recorder) {
    let failed = recorder.once(|tx| watch::failed(tx, watch::DUE, recorder.host()));
    counted(failed, "could not count that this start failed");
}

fn counted(counted: Result<Result<(), postgres::Error>, DbUnavailable>, or: &str) {
    let counted = counted.map_err(|e| e.to_string());
    if let Err(e) = counted.and_then(|counted| counted.map_err(|e| describe(&e))) {
        tracing::warn!("{or}: {e}");
    }
}

/// The wait between two runs of a source that make up for something.
pub(super) fn pause(source: &Source, config: &Config) -> Duration {
    source
        .catch_up_pause
        .unwrap_or(config.crawl.catch_up_pause)
        .0
}

struct Planner<'a> {
    config: &'a Config,
    calendar: &'a Calendar,
    recorder: &'a Recorder,
    now: DateTime<Utc>,
    /// The files that were read.
    seen: Option<&'a Seen>,
}

impl Planner<'_> {
    fn by_slots<'s>(
        &self,
        client: &mut Client,
        sources: &'s Sources,
    ) -> Result<Vec<Vec<Job<'s>>>, postgres::Error> {
        let enabled: Vec<&Source> = sources.enabled().collect();
        let are_known = make_known(client, self.config, self.calendar, &enabled)?;
        if let Some(seen) = self.seen.filter(|_| are_known && !enabled.is_empty()) {
            seen.note(self.recorder, &registered(client)?);
        }
        let jitter = self.config.crawl.jitter.0;
        let tasks: Vec<(&str, TimeDelta)> = enabled
            .iter()
            .map(|s| (s.name.as_str(), jitter_of(&s.name, jitter)))
            .collect();
        let open = slots::open(client, &tasks)?;
        let mut jobs = Vec::new();
        // One that is locked keeps the others waiting for a short time, and once.
        let mut waits = are_known;
        for source in enabled {
            let Some(slots) = open.get(&source.name) else {
                continue;
            };
            let local = self.now.with_timezone(&self.config.timezone);
            let (impossible, slots) = self.impossible(source, slots);
            let mut decision = slots::decide(
                &slots,
                policy(source, self.config),
                self.now,
                self.closed_now(source),
                |day| source.cannot_show(day, local, self.calendar),
            );
            decision.close.extend(impossible);
            if !slots::close(client, &source.name, &decision, waits)? {
                // It is collected all the same, and so are the others; the next time closes them.
                tracing::warn!(
                    "old slots of {} are closed later: somebody else has the task locked",
                    source.name
                );
                decision.close.clear();
                waits = false;
            }
            let of = self.jobs_of(source, &slots, &decision);
            if !of.is_empty() {
                jobs.push(of);
            }
        }
        Ok(jobs)
    }

    /// Slots of days that are over and that the site did not show any more even when these were due are no holes: nobody could have collected
    /// them. And the others.
    fn impossible(&self, source: &Source, slots: &[OpenSlot]) -> (Vec<Closing>, Vec<OpenSlot>) {
        let mut impossible = Vec::new();
        let mut others = Vec::new();
        for slot in slots {
            let then = slot.due_at.with_timezone(&self.config.timezone);
            match source.cannot_show(slot.day, then, self.calendar) {
                Some(why) if slot.again => impossible.push((slot.due_at, Unmade::Impossible, why)),
                _ => others.push(slot.clone()),
            }
        }
        (impossible, others)
    }

    /// The day of a source to be collected once more, if that may be made up for, and as long as the site shows it.
    fn last_again(&self, source: &Source) -> Option<DueTime> {
        source.again?;
        let settled = self.now - jitter_of(&source.name, self.config.crawl.jitter.0);
        let from = settled.checked_sub_signed(policy(source, self.config).age)?;
        let local = self.now.with_timezone(&self.config.timezone);
        let due = source.last_again(from, settled, self.config.timezone, self.calendar);
        due.filter(|due| source.cannot_show(due.day, local, self.calendar).is_none())
    }

    /// Without PostgreSQL: the day to be collected once more, unless this machine has done so or does not know of it.
    fn alone_again<'s>(&self, source: &'s Source) -> Option<Job<'s>> {
        let due = self.last_again(source)?;
        let noted = noted(self.recorder, &again_name(source), self.now)?;
        (noted < due.at).then(|| once_more(source, due))
    }

    fn jobs_of<'s>(
        &self,
        source: &'s Source,
        slots: &[OpenSlot],
        decision: &Decision,
    ) -> Vec<Job<'s>> {
        let job = |due: DateTime<Utc>| {
            let slot = slots.iter().find(|slot| slot.due_at == due);
            Job {
                source,
                // What was missed yesterday is yesterday's.
                date: slot.map_or_else(|| day_of(self.config, due), |slot| slot.day),
                due_at: Some(due),
                again: slot.is_some_and(|slot| slot.again),
            }
        };
        // The newest that the site cannot show leaves a refused run, for whoever reads the log.
        let unfetchable = decision.close.iter().filter(|c| c.1 == Unmade::Unfetchable);
        let refused = unfetchable.map(|c| job(c.0)).rfind(|job| !job.again);
        let made_up = decision.run.iter().map(|(due, _)| job(*due));
        refused.into_iter().chain(made_up).collect()
    }

    /// What a site shows outside a session is not what it showed in it.
    fn closed_now(&self, source: &Source) -> Option<&'static str> {
        let schedule = source.schedule_in(self.config.timezone).ok()?;
        // Its own delay takes nothing out of the session.
        let settled = self.now - jitter_of(&source.name, self.config.crawl.jitter.0);
        let closed = !source.sessions.is_empty() && schedule.leaves_out(settled, self.calendar);
        closed.then_some("its session is over")
    }

    /// Without PostgreSQL: the last due time within the catch-up time, unless this machine has run it.
    fn alone<'s>(&self, source: &'s Source) -> Option<Job<'s>> {
        if self.closed_now(source).is_some() {
            return None;
        }
        let schedule = source.schedule_in(self.config.timezone).ok()?;
        let settled = self.now - jitter_of(&source.name, self.config.crawl.jitter.0);
        let from = settled.checked_sub_signed(policy(source, self.config).age)?;
        let due = schedule.last_between(from, settled, self.calendar)?;
        let date = day_of(self.config, due);
        let is_open = match noted(self.recorder, &source.name, self.now) {
            Some(noted) => noted < due,
            None => date == day_of(self.config, self.now),
        };
        let local = self.now.with_timezone(&self.config.timezone);
        let shown = source.cannot_show(date, local, self.calendar).is_none();
        (is_open && shown).then_some(Job {
            source,
            date,
            due_at: Some(due),
            again: false,
        })
    }
}

/// The name of the note that a day was collected once more.
fn again_name(source: &Source) -> String {
    format!("{}.again", source.name)
}

/// For a day that is over.
fn once_more(source: &Source, due: DueTime) -> Job<'_> {
    Job {
        source,
        date: due.day,
        due_at: Some(due.at),
        again: true,
    }
}

/// Each source's own delay within the jitter.
fn jitter_of(name: &str, jitter: Duration) -> TimeDelta {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let seconds = jitter.as_secs().max(1);
    TimeDelta::seconds(i64::try_from(hasher.finish() % seconds).unwrap_or_default())
}

fn day_of(config: &Config, time: DateTime<Utc>) -> NaiveDate {
    time.with_timezone(&config.timezone).date_naive()
}

/// A note made while the clock was ahead says nothing about today.
fn noted(recorder: &Recorder, name: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let noted = path(recorder, name).and_then(|path| fs::read_to_string(path).ok());
    noted
        .and_then(|text| text.trim().parse().ok())
        .filter(|noted| *noted <= now)
}

/// A lost note costs one more run.
fn note(recorder: &Recorder, name: &str, due: DateTime<Utc>) {
    let written = path(recorder, name).map(|path| fs::write(path, due.to_rfc3339()));
    if let Some(Err(e)) = written {
        tracing::warn!("could not note that {name} was started: {e}");
    }
}

fn path(recorder: &Recorder, name: &str) -> Option<PathBuf> {
    let folder = recorder.state().folder("due").ok()?;
    Some(folder.join(name))
}
