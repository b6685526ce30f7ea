//! The disk of the state directory: how full it is, and on which day it will be.

use std::fs;

use chrono::{DateTime, TimeDelta, Utc};
use oa_core::alerts::{Policy, Severity};
use oa_core::config::{Alert, Bytes, Config};
use oa_core::state_dir::{StateDir, write_durably};
use serde::{Deserialize, Serialize};

use super::{Finding, finding};

pub(super) const RULE: &str = "disk_filling";

/// The use is noted this often, and kept for so many days.
const EVERY: TimeDelta = TimeDelta::hours(1);
const KEPT: TimeDelta = TimeDelta::days(14);
/// A forecast needs notes over at least this long.
const LEAST: TimeDelta = TimeDelta::days(2);

/// The disk's use at a moment, in bytes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Note {
    at: DateTime<Utc>,
    used: u64,
}

pub(super) fn find(
    state: &StateDir,
    host: &str,
    config: &Config,
    policy: &Policy,
) -> Option<Finding> {
    let disk = rustix::fs::statvfs(state.path()).ok()?;
    let (size, free) = (disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize);
    let notes = noted(state, size.saturating_sub(free));
    let limits = &config.alert;
    judge(
        (size, free),
        full_in_days(&notes, free),
        host,
        state,
        limits,
        policy,
    )
}

/// Days until the disk is full if it goes on as between the first note and the last.
fn full_in_days(notes: &[Note], free: u64) -> Option<f64> {
    let (first, last) = (notes.first()?, notes.last()?);
    let span = last.at - first.at;
    let grown = last.used.checked_sub(first.used).filter(|g| *g > 0)?;
    (span >= LEAST).then(|| free as f64 / (grown as f64 / (span.as_seconds_f64() / 86_400.0)))
}

fn judge(
    (size, free): (u64, u64),
    full_in: Option<f64>,
    host: &str,
    state: &StateDir,
    limits: &Alert,
    policy: &Policy,
) -> Option<Finding> {
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
    let day = soon.map(|days| {
        let moment = Utc::now() + TimeDelta::seconds((days * 86_400.0) as i64);
        moment.with_timezone(&policy.timezone).date_naive()
    });
    let (place, percent) = (state.path().display(), (share * 100.0).round());
    let (size, free) = (Bytes(size), Bytes(free));
    Some(finding(
        (RULE, host),
        None,
        severity,
        policy,
        || {
            let mut lines = vec![format!(
                "{place} 所在磁盘剩余 {free}（{percent}%），共 {size}"
            )];
            if let Some(day) = day {
                lines.push(format!("按最近的增长速度，将于 {day} 前后写满"));
            }
            lines.push("影响：写满后原始归档、暂存和备份都无法写入".to_owned());
            lines.push(
                "处理：清理或扩容；原始归档可缩短保留时间（raw_keep）后执行 oa-crawl prune"
                    .to_owned(),
            );
            (format!("{host} 磁盘空间不足"), lines)
        },
        || {
            let mut lines = vec![format!(
                "The disk of {place} has {free} left ({percent} %) of {size}"
            )];
            if let Some(day) = day {
                lines.push(format!("At the present rate it will be full about {day}"));
            }
            lines.push(
                "Effect: once it is full, raw archive, spool and backups cannot be written"
                    .to_owned(),
            );
            lines.push("What to do: make room; the raw archive can be kept for a shorter time (raw_keep), then oa-crawl prune".to_owned());
            (format!("{host} runs out of disk space"), lines)
        },
    ))
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
        let text = serde_json::to_vec(&notes).unwrap_or_default();
        if let Err(e) = write_durably(&path, &text) {
            tracing::warn!("could not note the disk's use in {}: {e}", path.display());
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use oa_core::config::Locale;

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
    fn few_bytes_or_few_days_are_told_and_plenty_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let policy = Policy {
            locale: Locale::Zh,
            timezone: chrono_tz::Asia::Shanghai,
            repeat: std::time::Duration::ZERO,
        };
        let limits = Alert::default();
        let judge =
            |free: u64, days| judge((100 * GIB, free), days, "db1", &state, &limits, &policy);
        assert_eq!(judge(50 * GIB, None), None);
        assert_eq!(judge(50 * GIB, Some(15.0)), None);
        assert_eq!(judge(9 * GIB, None).unwrap().severity, Severity::Warning);
        assert_eq!(judge(2 * GIB, None).unwrap().severity, Severity::Critical);
        let soon = judge(50 * GIB, Some(3.0)).unwrap();
        assert!(soon.lines[1].contains("将于"), "{soon:?}");
        assert!(soon.lines[0].contains("剩余 50.0 GiB（50%）"), "{soon:?}");
    }
}
