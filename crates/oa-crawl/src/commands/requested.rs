//! What people asked for on the page or in a message (`oa.requests`): `run --due` carries it out, in the name of who asked.

use std::time::Duration;

use chrono::NaiveDate;
use oa_core::app::config::Config;
use oa_core::journal::requests::{self, Action, Taken};
use oa_core::journal::runner::RunReport;
use oa_core::journal::{DbUnavailable, JournalError, Recorder, history};
use oa_core::model::run::{Status, Trigger};
use oa_core::pg::describe;
use oa_core::schedule::Calendar;
use postgres::Client;

use super::backfill;
use crate::collector::{Collector, Job};
use crate::progress;
use crate::source::{Source, Sources};

/// From taking a request until its run has the task's own lease, or until the next day of it begins.
const LEASE: Duration = Duration::from_secs(300);
/// Between two days.
const PAUSE: Duration = Duration::from_secs(2);
/// Days of one request.
const MOST_DAYS: i64 = 400;

type Reports = Vec<Result<RunReport, JournalError>>;

/// Carries out what waits. While PostgreSQL is unreachable nobody knows what that is.
pub(super) fn carry_out(
    config: &Config,
    sources: &Sources,
    calendar: &Calendar,
    collector: &mut Collector<'_>,
) -> Reports {
    let names: Vec<&str> = sources.iter().map(|s| s.name.as_str()).collect();
    let mut reports = Reports::new();
    // Meanwhile the next minute's program takes the next one.
    while !collector.stop.requested() {
        let recorder = &collector.recorder;
        // Once: one that was taken and whose name was lost would wait for the end of its lease.
        let taken = recorder
            .once(|tx| requests::take(tx, &["run", "backfill"], &names, recorder.host(), LEASE));
        let Some(request) = known(taken).flatten() else {
            break;
        };
        let Ok(source) = sources.get(request.action.subject()) else {
            continue; // Its file broke this moment: the lease ends, and the next program says so.
        };
        tracing::info!("{}: requested by {}", source.name, request.requested_by);
        let own = one(config, calendar, collector, source, &request);
        let ended = own
            .as_ref()
            .map_or_else(|refused| (false, None, refused.clone()), outcome);
        connected(&collector.recorder, |client| {
            requests::end(client, &request, ended.0, ended.1, &ended.2)
        });
        reports.extend(own.unwrap_or_default());
    }
    reports
}

fn connected<T>(
    recorder: &Recorder,
    what: impl FnMut(&mut Client) -> Result<T, postgres::Error>,
) -> Option<T> {
    known(recorder.connected(what))
}

/// What PostgreSQL does not take now is taken, or ended, by the next program.
fn known<T>(done: Result<Result<T, postgres::Error>, DbUnavailable>) -> Option<T> {
    done.ok()?
        .inspect_err(|e| tracing::warn!("requests: {}", describe(e)))
        .ok()
}

/// The error says why nothing can be collected.
fn one(
    config: &Config,
    calendar: &Calendar,
    collector: &mut Collector<'_>,
    source: &Source,
    request: &Taken,
) -> Result<Reports, String> {
    let now = collector.recorder.now().with_timezone(&config.timezone);
    let shown = |day: NaiveDate| source.cannot_show(day, now, calendar).map_or(Ok(()), Err);
    match request.action {
        Action::Run { day, .. } => {
            let date = day.unwrap_or_else(|| source.present_day(now.date_naive(), calendar));
            shown(date)?;
            collector.set_trigger(Trigger::Manual);
            progress::expect(1);
            Ok(collector.run_all(&[Job {
                source,
                date,
                due_at: None,
                again: false,
            }]))
        }
        Action::Backfill { from, to, .. } => {
            if from > to || (to - from).num_days() >= MOST_DAYS {
                return Err(format!(
                    "{from} to {to} is no span of at most {MOST_DAYS} days"
                ));
            }
            let there = connected(&collector.recorder, |client| {
                history::collected_days(client, &source.name, from, to)
            });
            let there = there.ok_or("PostgreSQL became unreachable; ask again")?;
            let days = from.iter_days().take_while(|day| *day <= to);
            let days: Vec<NaiveDate> = days
                .filter(|day| source.days.include(*day, calendar) && !there.contains(day))
                .collect();
            days.iter().try_for_each(|day| shown(*day))?;
            collector.set_trigger(Trigger::Backfill);
            progress::expect(days.len());
            let collector = &*collector;
            let renew = || {
                connected(&collector.recorder, |client| {
                    requests::renew(client, request, LEASE)
                });
            };
            Ok(backfill::collect_days(
                collector, source, &days, PAUSE, renew,
            ))
        }
        Action::TestChannel { .. } => Err("oa-alert check carries this out".to_owned()),
    }
}

/// Whether it is done, by which run, and what is to be said.
fn outcome(reports: &Reports) -> (bool, Option<uuid::Uuid>, String) {
    let good = |r: &&Result<RunReport, JournalError>| {
        r.as_ref()
            .is_ok_and(|r| r.status == Status::Success && r.spooled.is_none())
    };
    let done = reports.iter().filter(good).count();
    let last = reports
        .iter()
        .rfind(|r| !good(r))
        .or_else(|| reports.last());
    let run = last.and_then(|r| r.as_ref().ok()).map(|r| r.run_id);
    let said = match last {
        None => "there was nothing to collect".to_owned(),
        Some(Err(e)) => e.to_string(),
        Some(Ok(report)) => match &report.error {
            Some(e) => format!("{}: {}", report.status.as_str(), e.message),
            None => format!("{}, {} records", report.status.as_str(), report.fetched),
        },
    };
    let said = match reports.len() {
        0 | 1 => said,
        many => format!("{done} of {many} days; {said}"),
    };
    (done == reports.len(), run, said)
}
