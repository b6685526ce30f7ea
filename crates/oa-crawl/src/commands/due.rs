//! `oa-crawl run --due`: which sources are due. One crontab line a minute replaces one line a source, in the schedule's own zone,
//! with trading days and sessions, and makes up for what was missed while the machine was off.
//!
//! A source is due when its schedule has had a due time within the catch-up time for which there is no run yet. The run log knows
//! that for all machines; while PostgreSQL is unreachable, a file below `state_dir/due` does for this one.
//!
//! What was due before the source was known is not missed. What the site cannot show any more is not made up for: it leaves one
//! skipped run with the reason, and stays missed for `oa-alert check`.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use oa_core::config::Config;
use oa_core::pg::describe;
use oa_core::runs::Recorder;
use oa_core::runs::due::{Scheduled, ahead, expected_since, not_taken_care_of, register};
use oa_core::runs::watch;
use oa_core::schedule::Calendar;

use crate::PROGRAM;
use crate::collector::Job;
use crate::source::{Source, Sources};

/// The jobs that are due now; notes that they are started.
pub(super) fn jobs<'a>(
    config: &Config,
    sources: &'a Sources,
    calendar: &Calendar,
    recorder: &Recorder,
) -> Vec<Job<'a>> {
    // Connected, what is due is decided by the server's clock, which all machines share.
    let connected = recorder.connect().map_err(|e| e.to_string());
    let now = recorder.now();
    let candidates: Vec<(&Source, DateTime<Utc>)> = sources
        .enabled()
        .filter_map(|s| Some((s, last_due(config, s, calendar, now)?)))
        .collect();
    let names: Vec<&str> = candidates.iter().map(|(s, _)| s.name.as_str()).collect();
    let due_times: Vec<DateTime<Utc>> = candidates.iter().map(|(_, due)| *due).collect();
    let open = connected
        .and_then(|(mut client, _)| {
            let mut all: Vec<Scheduled> = sources
                .enabled()
                .map(|s| scheduled(config, s, calendar, now))
                .collect();
            let since = ahead(&mut client, &all).map_err(|e| describe(&e))?;
            for task in &mut all {
                // A due time since then without a run is the one that is missed.
                let source = sources.get(&task.name).ok();
                if let (Some(source), Some(since)) = (source, since.get(&task.name)) {
                    task.next_due_at = source
                        .schedule_in(config.timezone)
                        .ok()
                        .and_then(|schedule| schedule.next_after(*since, calendar))
                        .or(task.next_due_at);
                }
            }
            register(&mut client, PROGRAM, &all).map_err(|e| describe(&e))?;
            watch::note(&mut client, watch::DUE, recorder.host(), true, "")
                .map_err(|e| describe(&e))?;
            let expected = expected_since(&mut client, &names).map_err(|e| describe(&e))?;
            let open =
                not_taken_care_of(&mut client, &names, &due_times).map_err(|e| describe(&e))?;
            Ok((open, expected))
        })
        .inspect_err(|e| {
            if !candidates.is_empty() {
                tracing::warn!("what is due is decided by this machine alone: {e}");
            }
        })
        .ok();
    let due: Vec<(&Source, DateTime<Utc>)> = candidates
        .into_iter()
        .filter(|(source, due)| {
            let earlier = day_of(config, *due) < day_of(config, now);
            match &open {
                Some((open, expected)) => {
                    let known = expected.get(&source.name).is_none_or(|since| due >= since);
                    open.contains(&source.name) && (known || !earlier)
                }
                None => match noted(recorder, &source.name, now) {
                    Some(noted) => noted < *due,
                    None => !earlier,
                },
            }
        })
        .filter(|(source, due)| {
            let local = now.with_timezone(&config.timezone);
            let gone = source.cannot_show(day_of(config, *due), local, calendar);
            let name = format!("{}.missed", source.name);
            let reported = gone.is_some() && noted(recorder, &name, now).is_some_and(|n| n >= *due);
            if gone.is_some() && !reported {
                note(recorder, &name, *due);
            }
            !reported
        })
        .collect();
    for (source, due) in &due {
        note(recorder, &source.name, *due);
    }
    due.into_iter()
        .map(|(source, due)| Job {
            source,
            // What was missed yesterday is yesterday's.
            date: day_of(config, due),
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
    let next = source
        .schedule_in(config.timezone)
        .ok()
        .and_then(|schedule| schedule.next_after(now, calendar));
    Scheduled {
        name: source.name.clone(),
        title: source.title.clone(),
        schedule: source.schedule.clone(),
        days: source.days,
        sessions: source.sessions.clone(),
        next_due_at: next,
    }
}

/// The last time at which a source was due, if its run may still be made up for.
fn last_due(
    config: &Config,
    source: &Source,
    calendar: &Calendar,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let schedule = source.schedule_in(config.timezone).ok()?;
    // What a site shows outside a session is not what it showed in it.
    if !source.sessions.is_empty() && schedule.leaves_out(now, calendar) {
        return None;
    }
    let settled = now - jitter_of(&source.name, config.crawl.jitter.0);
    let from = settled - TimeDelta::from_std(config.crawl.catch_up.0).ok()?;
    schedule.last_between(from, settled, calendar)
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
