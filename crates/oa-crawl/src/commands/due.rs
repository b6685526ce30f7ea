//! `oa-crawl run --due`: which sources are due. One crontab line a minute replaces one line a source, in the schedule's own zone,
//! with trading days and sessions, and makes up for what was missed while the machine was off.
//!
//! A source is due when its schedule has had a due time within the catch-up time for which there is no run yet. The run log knows
//! that for all machines; while PostgreSQL is unreachable, a file below `state_dir/due` does for this one.
//!
//! A day that `again` names is due once more until a run for it has begun since then.
//!
//! What was due before the source was known is not missed. What the site cannot show any more is not made up for: it leaves one
//! skipped run with the reason, and stays missed for `oa-alert check`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use oa_core::app::config::Config;
use oa_core::journal::Recorder;
use oa_core::journal::due::{
    Scheduled, ahead, expected_since, not_collected_since, overdue_tasks, register,
};
use oa_core::journal::watch;
use oa_core::pg::describe;
use oa_core::schedule::Calendar;
use postgres::Client;

use crate::PROGRAM;
use crate::collector::Job;
use crate::source::{DueTime, Source, Sources};

/// The jobs that are due now; notes that they are started.
pub(super) fn jobs<'a>(
    config: &Config,
    sources: &'a Sources,
    calendar: &Calendar,
    recorder: &Recorder,
) -> Vec<Job<'a>> {
    // Connected, what is due is decided by the server's clock, which all machines share.
    let connected = recorder.connect().map_err(|e| e.to_string());
    let planner = Planner {
        config,
        calendar,
        recorder,
        now: recorder.now(),
    };
    let candidates: Vec<Candidate<'_>> = sources
        .enabled()
        .filter_map(|source| planner.last_due(source))
        .collect();
    let again: Vec<(&Source, DueTime)> = sources
        .enabled()
        .filter_map(|source| Some((source, planner.last_again(source)?)))
        .collect();
    let known = connected
        .and_then(|(mut client, _)| {
            let known = planner.consult(&mut client, sources, &candidates, &again);
            known.map_err(|e| describe(&e))
        })
        .inspect_err(|e| {
            if !candidates.is_empty() || !again.is_empty() {
                tracing::warn!("what is due is decided by this machine alone: {e}");
            }
        })
        .ok();
    let again: Vec<(&Source, DueTime)> = again
        .into_iter()
        .filter(|(source, due)| planner.is_open_again(source, due, known.as_ref()))
        .collect();
    // A source runs once at a time: its present day comes with the next start.
    let is_busy = |c: &Candidate<'_>| again.iter().any(|(s, _)| s.name == c.source.name);
    let due: Vec<Candidate<'_>> = candidates
        .into_iter()
        .filter(|candidate| !is_busy(candidate) && planner.is_open(candidate, known.as_ref()))
        .filter(|candidate| !planner.is_reported_missed(candidate))
        .collect();
    for candidate in &due {
        note(recorder, &candidate.source.name, candidate.due);
    }
    for (source, due) in &again {
        note(recorder, &again_name(source), due.at);
    }
    let over = again.iter().map(|(source, due)| Job {
        source,
        date: due.day,
        // It takes care of no due time of the schedule.
        due_at: None,
    });
    let own = due.iter().map(|candidate| Job {
        source: candidate.source,
        // What was missed yesterday is yesterday's.
        date: day_of(config, candidate.due),
        due_at: Some(candidate.due),
    });
    over.chain(own).collect()
}

/// A source and the last time at which it was due.
struct Candidate<'a> {
    source: &'a Source,
    due: DateTime<Utc>,
}

/// What the run log knows of the candidates.
struct Known {
    /// Tasks whose last due time has no run.
    open: HashSet<String>,
    /// Tasks whose last day has not been collected once more.
    open_again: HashSet<String>,
    /// Since when a task is expected to run.
    expected_since: HashMap<String, DateTime<Utc>>,
}

struct Planner<'a> {
    config: &'a Config,
    calendar: &'a Calendar,
    recorder: &'a Recorder,
    now: DateTime<Utc>,
}

impl Planner<'_> {
    /// `None` when its run may not be made up for any more.
    fn last_due<'s>(&self, source: &'s Source) -> Option<Candidate<'s>> {
        let schedule = source.schedule_in(self.config.timezone).ok()?;
        // What a site shows outside a session is not what it showed in it.
        if !source.sessions.is_empty() && schedule.leaves_out(self.now, self.calendar) {
            return None;
        }
        let crawl = &self.config.crawl;
        let settled = self.now - jitter_of(&source.name, crawl.jitter.0);
        let from = settled - TimeDelta::from_std(crawl.catch_up.0).ok()?;
        let due = schedule.last_between(from, settled, self.calendar)?;
        Some(Candidate { source, due })
    }

    /// The day to be collected once more, if that may be made up for.
    fn last_again(&self, source: &Source) -> Option<DueTime> {
        source.again?;
        let crawl = &self.config.crawl;
        let settled = self.now - jitter_of(&source.name, crawl.jitter.0);
        let from = settled - TimeDelta::from_std(crawl.catch_up.0).ok()?;
        source.last_again(from, settled, self.config.timezone, self.calendar)
    }

    /// As [`Planner::is_open`]; without the run log, what this machine does not know of is over.
    fn is_open_again(&self, source: &Source, due: &DueTime, known: Option<&Known>) -> bool {
        match known {
            Some(known) => known.open_again.contains(&source.name),
            None => noted(self.recorder, &again_name(source), self.now)
                .is_some_and(|noted| noted < due.at),
        }
    }

    /// Tells the run log what is enabled, and asks it what is open.
    fn consult(
        &self,
        client: &mut Client,
        sources: &Sources,
        candidates: &[Candidate<'_>],
        again: &[(&Source, DueTime)],
    ) -> Result<Known, postgres::Error> {
        let mut all: Vec<Scheduled> = sources.enabled().map(|s| self.scheduled(s)).collect();
        let since = ahead(client, &all)?;
        for (task, source) in all.iter_mut().zip(sources.enabled()) {
            // A due time since then without a run is the one that is missed.
            if let Some(since) = since.get(&task.name) {
                task.next_due_at = self.next_due(source, *since).or(task.next_due_at);
            }
        }
        register(client, PROGRAM, &all)?;
        watch::note(client, watch::DUE, self.recorder.host(), true, "")?;
        let names: Vec<&str> = candidates.iter().map(|c| c.source.name.as_str()).collect();
        let due: Vec<DateTime<Utc>> = candidates.iter().map(|c| c.due).collect();
        let over: Vec<&str> = again.iter().map(|(s, _)| s.name.as_str()).collect();
        let days: Vec<NaiveDate> = again.iter().map(|(_, due)| due.day).collect();
        let since: Vec<DateTime<Utc>> = again.iter().map(|(_, due)| due.at).collect();
        Ok(Known {
            expected_since: expected_since(client, &names)?,
            open: overdue_tasks(client, &names, &due)?,
            open_again: not_collected_since(client, &over, &days, &since)?,
        })
    }

    fn scheduled(&self, source: &Source) -> Scheduled {
        Scheduled {
            name: source.name.clone(),
            title: source.title.clone(),
            schedule: source.schedule.clone(),
            days: source.days,
            sessions: source.sessions.clone(),
            next_due_at: self.next_due(source, self.now),
        }
    }

    fn next_due(&self, source: &Source, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let schedule = source.schedule_in(self.config.timezone).ok()?;
        schedule.next_after(after, self.calendar)
    }

    /// Whether the due time has no run yet; without the run log, as far as this machine knows.
    fn is_open(&self, candidate: &Candidate<'_>, known: Option<&Known>) -> bool {
        let Candidate { source, due } = candidate;
        let earlier = day_of(self.config, *due) < day_of(self.config, self.now);
        match known {
            Some(known) => {
                let since = known.expected_since.get(&source.name);
                let expected = since.is_none_or(|since| due >= since);
                known.open.contains(&source.name) && (expected || !earlier)
            }
            None => match noted(self.recorder, &source.name, self.now) {
                Some(noted) => noted < *due,
                None => !earlier,
            },
        }
    }

    /// A day that the site cannot show any more is reported once.
    fn is_reported_missed(&self, candidate: &Candidate<'_>) -> bool {
        let Candidate { source, due } = candidate;
        let local = self.now.with_timezone(&self.config.timezone);
        let day = day_of(self.config, *due);
        if source.cannot_show(day, local, self.calendar).is_none() {
            return false;
        }
        let name = format!("{}.missed", source.name);
        if noted(self.recorder, &name, self.now).is_some_and(|noted| noted >= *due) {
            return true;
        }
        note(self.recorder, &name, *due);
        false
    }
}

/// The name of the note that a day was collected once more.
fn again_name(source: &Source) -> String {
    format!("{}.again", source.name)
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
