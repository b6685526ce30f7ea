//! When the lines of crontabs and the schedules of the configuration come: whether that is ever, and as often as the task needs. A line that comes
//! too seldom is no mistake to cron, which says nothing of it.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use oa_core::app::config::{Config, Locale};
use oa_core::app::output::human_duration;
use oa_core::journal::catalog::Limits;
use oa_core::schedule::{Calendar, Schedule};

use super::crontab::Crontab;
use super::server::SILENT;
use super::{Findings, State, edit};

/// What the programs do about [`Schedule::next_after`] and no more: nothing is looked for behind it.
const YEAR: TimeDelta = TimeDelta::days(370);
/// A week of a line that comes each minute.
const MOST: usize = 11_000;
const MONTH: Duration = Duration::from_secs(31 * 24 * 3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Why cron does not know when that is.
pub(super) fn wrong(when: &str) -> Option<String> {
    const NAMES: [&str; 8] = [
        "@reboot",
        "@yearly",
        "@annually",
        "@monthly",
        "@weekly",
        "@daily",
        "@midnight",
        "@hourly",
    ];
    match when.starts_with('@') {
        // cronie's word for any of them.
        _ if when.contains('~') => None,
        true => (!NAMES.contains(&when)).then(|| format!("it is none of {}", NAMES.join(", "))),
        false if names_no_day(when) => None,
        false => Schedule::parse(when, chrono_tz::UTC)
            .err()
            .map(|e| e.to_string()),
    }
}

/// Whether each field is right, and none of the months has one of the days. cron takes that, and waits for ever.
fn names_no_day(when: &str) -> bool {
    let fields: Vec<&str> = when.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields[..] else {
        return false;
    };
    let parses = |when: String| Schedule::parse(&when, chrono_tz::UTC).is_ok();
    !parses(when.to_owned())
        && parses(format!("{minute} {hour} {day} * {weekday}"))
        && parses(format!("{minute} {hour} * {month} {weekday}"))
}

/// Whether it never comes, or not within a year.
pub(super) fn never(when: &str) -> bool {
    names_no_day(when) || schedule(when).is_some_and(|s| next(&s, Utc::now()).is_none())
}

fn schedule(when: &str) -> Option<Schedule> {
    Schedule::parse(when, chrono_tz::UTC).ok()
}

fn next(schedule: &Schedule, after: chrono::DateTime<Utc>) -> Option<chrono::DateTime<Utc>> {
    schedule.next_after(after, &Calendar::shipped())
}

/// The longest time between two starts by any of these, within the coming year; `None` where one of them is not known, or none comes.
fn longest_gap(all: &[&str]) -> Option<Duration> {
    let schedules: Vec<Schedule> = all.iter().map(|w| schedule(w)).collect::<Option<_>>()?;
    let calendar = Calendar::shipped();
    let first = Utc::now();
    let coming = |after| {
        let each = schedules
            .iter()
            .filter_map(|s| s.next_after(after, &calendar));
        each.min()
    };
    let mut at = coming(first)?;
    let mut longest = at - first;
    for _ in 0..MOST {
        let Some(then) = coming(at) else {
            longest = longest.max(YEAR);
            break;
        };
        longest = longest.max(then - at);
        at = then;
        if at - first > YEAR {
            break;
        }
    }
    longest.to_std().ok()
}

/// What has to come how often, and what it is for.
struct Need {
    /// The commands any of which does it.
    commands: &'static [(&'static str, &'static str)],
    /// A word without which a line is another command's.
    with: Option<&'static str>,
    at_least: Duration,
    state: State,
    why: String,
}

fn needs(config: &Config, streams: bool) -> Vec<Need> {
    let each_minute = |commands, with, why: &str| Need {
        commands,
        with,
        at_least: Duration::from_secs_f64(SILENT),
        state: State::Error,
        why: why.to_owned(),
    };
    let mut all = vec![
        each_minute(
            &[("oa-alert", "check")],
            None,
            "it should be each minute: what fails silently is reported so late",
        ),
        each_minute(
            &[("oa-crawl", "run")],
            Some("--due"),
            "it should be each minute: sources that are due in between run so late",
        ),
        Need {
            commands: &[("oa-report", "daily")],
            with: None,
            at_least: DAY,
            state: State::Warning,
            why: "the daily report is one for each day".to_owned(),
        },
    ];
    let Some(limits) = Limits::from_config(config) else {
        return all;
    };
    let backup = |commands, at_least, state, why: &str| Need {
        commands,
        with: None,
        at_least,
        state,
        why: format!("{why} = \"{}\"", human_duration(at_least, Locale::En)),
    };
    all.extend([
        backup(
            &[("oa-backup", "full")],
            limits.full_every,
            State::Error,
            "full_every",
        ),
        backup(
            &[("oa-restore", "drill")],
            limits.drill_every,
            State::Warning,
            "drill_every",
        ),
        Need {
            commands: &[("oa-backup", "verify")],
            with: None,
            at_least: limits.verify_every,
            state: State::Warning,
            why: format!(
                "backups that were not read back for {} are reported",
                human_duration(limits.verify_every, Locale::En)
            ),
        },
        Need {
            commands: &[("oa-backup", "prune")],
            with: None,
            at_least: MONTH,
            state: State::Warning,
            why: "old backups stay so long, and fill the disk".to_owned(),
        },
    ]);
    // What a stream stores is not older than a minute, however seldom the lines come.
    if !streams {
        all.push(backup(
            &[
                ("oa-backup", "full"),
                ("oa-backup", "incremental"),
                ("oa-backup", "stream"),
            ],
            limits.rpo,
            State::Warning,
            "rpo",
        ));
    }
    all
}

/// Lines that never come, and those that come too seldom for what they start. `streams`: the WAL is received all the time, without a line.
pub(super) fn lines(
    check: &str,
    config: &Config,
    crontabs: &[Crontab],
    streams: bool,
    findings: &mut Findings,
) {
    for crontab in crontabs {
        for line in crontab.lines.iter().filter(|line| never(&line.when)) {
            findings.error(
                check,
                format!(
                    "{}: \"{}\" never comes within a year, so that this is never started: {}",
                    crontab.place.shown(),
                    line.when,
                    line.command
                ),
                crontab.place.edit("a time that comes"),
            );
        }
    }
    for need in needs(config, streams) {
        let is_it = |words: &[&str]| {
            need.commands
                .iter()
                .any(|(program, subcommand)| starts(words, program, subcommand))
                && need.with.is_none_or(|word| words.contains(&word))
        };
        let ours = crontabs.iter().any(|c| !c.times(true, is_it).is_empty());
        let whens: Vec<&str> = crontabs.iter().flat_map(|c| c.times(ours, is_it)).collect();
        // What starts with the machine runs all the time.
        if whens.is_empty() || whens.contains(&"@reboot") || whens.iter().any(|w| never(w)) {
            continue;
        }
        let Some(gap) = longest_gap(&whens).filter(|gap| *gap > need.at_least) else {
            continue;
        };
        let place = crontabs.iter().find(|c| !c.times(ours, is_it).is_empty());
        let Some(place) = place.map(|c| &c.place) else {
            continue;
        };
        let names: Vec<String> = need
            .commands
            .iter()
            .take(2)
            .map(|(program, subcommand)| format!("{program} {subcommand}"))
            .collect();
        findings.push(
            check,
            need.state,
            &format!(
                "{}: up to {} pass until {} is started again (\"{}\"); {}",
                place.shown(),
                human_duration(gap, Locale::En),
                names.join(" or "),
                whens.join("\", \""),
                need.why
            ),
            Some(&place.edit("more often; crontab.example has the usual times")),
        );
    }
}

fn starts(words: &[&str], program: &str, subcommand: &str) -> bool {
    let name = words
        .first()
        .map_or("", |word| word.rsplit('/').next().unwrap_or(word));
    name == program && words[1..].contains(&subcommand)
}

/// Schedules of the configuration that never come: nothing is expected of their tasks, and nobody would notice that these do not run.
pub(super) fn expected(check: &str, config: &Config, findings: &mut Findings) {
    // A calendar that cannot be read is found by oa-crawl check.
    let Ok(calendar) = Calendar::load(config.calendar.as_deref()) else {
        return;
    };
    for task in config.scheduled().into_iter().flat_map(|(_, tasks)| tasks) {
        let Ok(times) = task.times(config.timezone) else {
            continue;
        };
        if times.next_after(Utc::now(), &calendar).is_some() {
            continue;
        }
        let by_days = schedule(&task.schedule).is_some_and(|s| next(&s, Utc::now()).is_some());
        let why = match by_days {
            true => {
                "all its times are on days or outside sessions that it leaves out (days, sessions)"
            }
            false => "it never comes within a year",
        };
        findings.error(
            check,
            format!(
                "the schedule \"{}\" of task {}: {why}; nobody notices when it does not run",
                task.schedule, task.name
            ),
            edit(&config.path),
        );
    }
}
