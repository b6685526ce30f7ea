//! `oa-crawl run --due`: which sources are due. One crontab line a minute replaces one line a source, in the schedule's own zone,
//! with trading days and sessions, and makes up for what was missed while the machine was off.
//!
//! A source is due when its schedule has had a moment within the catch-up time for which there is no run yet. The run log knows
//! that for all machines; while PostgreSQL is away, a file below `state_dir/due` does for this one.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use oa_core::config::Config;
use oa_core::pg::describe;
use oa_core::runs::Recorder;
use oa_core::runs::watch;
use oa_core::runs::due::{Scheduled, not_taken_care_of, register};
use oa_core::schedule::{Calendar, Schedule};

use crate::PROGRAM;
use crate::source::{Source, Sources};
use crate::wrapper::Job;

/// The jobs that are due now, and notes that they are begun.
pub(super) fn jobs<'a>(
    config: &Config,
    sources: &'a Sources,
    calendar: &Calendar,
    recorder: &Recorder,
) -> Vec<Job<'a>> {
    let now = Utc::now();
    let candidates: Vec<(&Source, DateTime<Utc>)> = sources
        .iter()
        .filter_map(|s| Some((s, last_due(config, s, calendar, now)?)))
        .collect();
    if candidates.is_empty() {
        return Vec::new();
    }
    let names: Vec<&str> = candidates.iter().map(|(s, _)| s.name.as_str()).collect();
    let moments: Vec<DateTime<Utc>> = candidates.iter().map(|(_, due)| *due).collect();
    let open = recorder
        .connect()
        .map_err(|e| e.to_string())
        .and_then(|(mut client, _)| {
            let all: Vec<Scheduled> = sources
                .iter()
                .map(|s| scheduled(config, s, calendar, now))
                .collect();
            register(&mut client, PROGRAM, &all).map_err(|e| describe(&e))?;
            watch::note(&mut client, watch::DUE, recorder.host(), true, "")
                .map_err(|e| describe(&e))?;
            not_taken_care_of(&mut client, &names, &moments).map_err(|e| e.to_string())
        })
        .inspect_err(|e| tracing::warn!("what is due is decided by this machine alone: {e}"))
        .ok();
    let due: Vec<(&Source, DateTime<Utc>)> = candidates
        .into_iter()
        .filter(|(source, due)| match &open {
            Some(open) => open.contains(&source.name),
            None => !is_noted(recorder, source, *due),
        })
        .collect();
    for (source, due) in &due {
        note(recorder, source, *due);
    }
    due.into_iter()
        .map(|(source, due)| Job {
            source,
            // What was missed yesterday is yesterday's.
            date: due.with_timezone(&config.timezone).date_naive(),
            due_at: Some(due),
        })
        .collect()
}

fn scheduled(
    config: &Config,
    source: &Source,
    calendar: &Calendar,
    now: DateTime<Utc>,
) -> Scheduled {
    let next = Schedule::parse(&source.schedule, config.timezone)
        .ok()
        .and_then(|schedule| {
            let schedule = schedule.on(source.days).within(&source.sessions);
            schedule.next_after(now, calendar)
        });
    Scheduled {
        name: source.name.clone(),
        title: source.title.clone(),
        schedule: source.schedule.clone(),
        days: source.days,
        sessions: source.sessions.clone(),
        next_due_at: next,
    }
}

/// The last moment for which a source was due, if it may still be made up for.
fn last_due(
    config: &Config,
    source: &Source,
    calendar: &Calendar,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let schedule = Schedule::parse(&source.schedule, config.timezone)
        .ok()?
        .on(source.days)
        .within(&source.sessions);
    // What a site shows outside a session is not what it showed in it.
    if !source.sessions.is_empty() && schedule.leaves_out(now, calendar) {
        return None;
    }
    let settled = now - offset(&source.name, config.crawl.jitter.0);
    let from = settled - TimeDelta::from_std(config.crawl.catch_up.0).ok()?;
    schedule.last_between(from, settled, calendar)
}

/// Each source's own moment within the jitter.
fn offset(name: &str, jitter: Duration) -> TimeDelta {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let seconds = jitter.as_secs().max(1);
    TimeDelta::seconds(i64::try_from(hasher.finish() % seconds).unwrap_or_default())
}

fn is_noted(recorder: &Recorder, source: &Source, due: DateTime<Utc>) -> bool {
    let noted = path(recorder, source).and_then(|path| fs::read_to_string(path).ok());
    noted
        .and_then(|text| text.trim().parse::<DateTime<Utc>>().ok())
        .is_some_and(|noted| noted >= due)
}

/// A note that is lost leads to one run more.
fn note(recorder: &Recorder, source: &Source, due: DateTime<Utc>) {
    let written = path(recorder, source).map(|path| fs::write(path, due.to_rfc3339()));
    if let Some(Err(e)) = written {
        tracing::warn!("could not note that {} was begun: {e}", source.name);
    }
}

fn path(recorder: &Recorder, source: &Source) -> Option<PathBuf> {
    let folder = recorder.state().folder("due").ok()?;
    Some(folder.join(&source.name))
}
