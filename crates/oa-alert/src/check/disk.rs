//! The disk of the state directory: how full it is, and on which day it will be.

use std::fs;

use chrono::{DateTime, TimeDelta, Utc};
use oa_core::app::config::Alert;
use oa_core::base::state_dir::{StateDir, write_durably};
use oa_core::model::event::{Finding, Severity};
use serde::{Deserialize, Serialize};

/// The use is noted this often, and kept for so many days.
const EVERY: TimeDelta = TimeDelta::hours(1);
const KEPT: TimeDelta = TimeDelta::days(14);
/// A forecast needs notes over at least this long.
const LEAST: TimeDelta = TimeDelta::days(2);

/// The disk's use at a time, in bytes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Note {
    at: DateTime<Utc>,
    used: u64,
}

pub(super) fn find(
    state: &StateDir,
    host: &str,
    limits: &Alert,
    now: DateTime<Utc>,
) -> Option<Finding> {
    let disk = rustix::fs::statvfs(state.path()).ok()?;
    let (size, free) = (disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize);
    let notes = noted(state, size.saturating_sub(free));
    let full_in = full_in_days(&notes, free);
    let (severity, full_in) = assess((size, free), full_in, limits)?;
    Some(Finding::DiskFilling {
        host: host.to_owned(),
        path: state.path().display().to_string(),
        size,
        free,
        full_at: full_in.map(|days| now + TimeDelta::seconds((days * 86_400.0) as i64)),
        severity,
    })
}

/// Days until the disk is full if it goes on as between the first note and the last.
fn full_in_days(notes: &[Note], free: u64) -> Option<f64> {
    let (first, last) = (notes.first()?, notes.last()?);
    let span = last.at - first.at;
    let grown = last.used.checked_sub(first.used).filter(|g| *g > 0)?;
    (span >= LEAST).then(|| free as f64 / (grown as f64 / (span.as_seconds_f64() / 86_400.0)))
}

/// How bad it is, and the days until the disk is full when these are few; `None` while there is room.
fn assess(
    (size, free): (u64, u64),
    full_in: Option<f64>,
    limits: &Alert,
) -> Option<(Severity, Option<f64>)> {
    let share = free as f64 / size.max(1) as f64;
    let soon = full_in.filter(|days| days * 86_400.0 < limits.disk_forecast.0.as_secs_f64());
    if share >= limits.disk_warning && soon.is_none() {
        return None;
    }
    let severity = if share < limits.disk_critical {
        Severity::Critical
    } else {
        Severity::Warning
    };
    Some((severity, soon))
}

/// The notes until now, with one for now when it is time. What cannot be read or written costs only the forecast.
fn noted(state: &StateDir, used: u64) -> Vec<Note> {
    let path = state.path().join("disk-use.json");
    let text = fs::read(&path).unwrap_or_default();
    let mut notes: Vec<Note> = serde_json::from_slice(&text).unwrap_or_default();
    let now = Utc::now();
    if notes.last().is_none_or(|last| now - last.at >= EVERY) {
        notes.push(Note { at: now, used });
        notes.retain(|note| now - note.at < KEPT);
        let noted = serde_json::to_vec(&notes)
            .map_err(std::io::Error::from)
            .and_then(|text| write_durably(&path, &text));
        if let Err(e) = noted {
            tracing::warn!("could not note the disk's use in {}: {e}", path.display());
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn notes(days: i64, grown: u64) -> [Note; 2] {
        let now = Utc::now();
        [
            Note {
                at: now - TimeDelta::days(days),
                used: 10 * GIB,
            },
            Note {
                at: now,
                used: 10 * GIB + grown,
            },
        ]
    }

    #[test]
    fn the_day_on_which_it_is_full_is_forecast_from_its_growth() {
        let days = full_in_days(&notes(5, 10 * GIB), 20 * GIB).unwrap();
        assert!((days - 10.0).abs() < 0.01, "{days}");
        assert_eq!(full_in_days(&notes(5, 0), 20 * GIB), None);
        assert_eq!(
            full_in_days(&notes(1, 10 * GIB), 20 * GIB),
            None,
            "too short to say"
        );
        assert_eq!(full_in_days(&[], GIB), None);
    }

    #[test]
    fn few_bytes_or_few_days_are_reported_and_plenty_is_not() {
        let limits = Alert::default();
        let assess = |free: u64, days| assess((100 * GIB, free), days, &limits);
        assert_eq!(assess(50 * GIB, None), None);
        assert_eq!(assess(50 * GIB, Some(15.0)), None);
        assert_eq!(assess(9 * GIB, None), Some((Severity::Warning, None)));
        assert_eq!(assess(2 * GIB, None), Some((Severity::Critical, None)));
        let soon = assess(50 * GIB, Some(3.0));
        assert_eq!(soon, Some((Severity::Warning, Some(3.0))));
    }
}
