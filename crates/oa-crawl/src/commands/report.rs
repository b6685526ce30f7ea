//! The outcome of the runs: a line for each, one exit code for all, and their alerts sent at once.

use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::flush_now;
use oa_core::app::output::{Format, Listing};
use oa_core::app::record_unstarted;
use oa_core::model::run::{RunStart, Status};
use serde_json::{Value, json};

use crate::PROGRAM;
use oa_core::journal::JournalError;
use oa_core::journal::runner::RunReport;

/// Fails with the first failure among the results, after everything is printed.
pub(crate) fn conclude(
    config: &Config,
    results: Vec<Result<RunReport, JournalError>>,
    format: Format,
) -> Result<u8, Failure> {
    let mut listing = Listing::new(&[
        ("task", "TASK"),
        ("title", "TITLE"),
        ("status", "STATUS"),
        ("attempts", "ATTEMPTS"),
        ("fetched", "FETCHED"),
        ("inserted", "NEW"),
        ("updated", "CHANGED"),
        ("unchanged", "SAME"),
        ("rejected", "REJECTED"),
        ("seconds", "SECONDS"),
        ("error", "ERROR"),
    ]);
    let mut worst = exit::OK;
    let mut failure = None;
    let mut alerted = false;
    for result in results {
        match result {
            Ok(report) => {
                // What a person must fix first counts most, then a failed collection, then one that is only not stored yet.
                worst = [exit::CONFIG, exit::FAILED, exit::UNREACHABLE, exit::REFUSED]
                    .into_iter()
                    .find(|c| *c == worst || *c == exit_code(&report))
                    .unwrap_or(worst);
                alerted |= report.alerted;
                listing.push(row(&report));
            }
            Err(e) => {
                // From memory: neither store took it.
                alerted |= matches!(e, JournalError::Lost { .. });
                failure = Some(e);
            }
        }
    }
    if alerted {
        flush_now(config);
    }
    listing.print(format).map_err(anyhow::Error::from)?;
    failure.map_or(Ok(worst), |e| Err(e.into()))
}

/// The exit code that this run alone would give.
pub(crate) fn exit_code(report: &RunReport) -> u8 {
    match report.status {
        _ if report.misconfigured => exit::CONFIG,
        _ if report.refused => exit::REFUSED,
        Status::Success if report.spooled.is_some() => exit::UNREACHABLE,
        Status::Success | Status::Skipped => exit::OK,
        _ => exit::FAILED,
    }
}

fn row(report: &RunReport) -> Value {
    json!({
        "task": report.task,
        "title": report.title,
        "status": report.status.as_str(),
        "attempts": report.attempts,
        "fetched": report.fetched,
        "inserted": report.inserted,
        "updated": report.updated,
        "unchanged": report.unchanged,
        "rejected": report.rejected,
        "run_id": report.run_id,
        "seconds": (report.seconds * 1000.0).round() / 1000.0,
        "error": report.error.as_ref().map(|e| e.message.as_str()),
        "error_kind": report.error.as_ref().map(|e| e.kind.as_str()),
        "spooled": report.spooled,
    })
}

/// Records and reports runs that could not begin because the state directory is unusable. A person at a terminal who is the wrong user,
/// usually root, reads it there: nothing is wrong with the tasks.
pub(crate) fn unstarted(config: &Config, starts: Vec<RunStart>, failure: Failure) -> Failure {
    let by_mistake = failure.is_wrong_user() && cli::interactive();
    if failure.code == exit::REFUSED && !by_mistake {
        let reason = failure.to_string();
        for start in starts {
            record_unstarted(config, PROGRAM, start, &reason);
        }
        flush_now(config);
    }
    failure
}
