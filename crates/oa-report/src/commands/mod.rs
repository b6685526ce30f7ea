//! One file a command.

pub mod backups;
pub mod daily;
pub mod health;
pub mod html;
pub mod logs;
pub mod quality;
pub mod serve;
pub mod token;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

/// A moment in the zone of people.
fn local(moment: DateTime<Utc>, zone: Tz) -> String {
    moment
        .with_timezone(&zone)
        .format("%Y-%m-%d %H:%M:%S")
        .to_string()
}

/// A duration with one decimal, or nothing.
fn seconds(duration: Option<f64>) -> Option<f64> {
    duration.map(|s| (s * 10.0).round() / 10.0)
}
