//! A clock that does not jump while a program runs.

use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

/// A machine has slept when a clock that goes on meanwhile is ahead of one that does not by this.
const SLEPT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
struct Began {
    wall: DateTime<Utc>,
    at: Instant,
    /// `None`: nobody can say.
    up: Option<Duration>,
}

/// The current time (UTC) on the clock of this process: what the machine's showed when it was first asked, and what has passed since, by a
/// clock that nobody sets. How far the server's is ahead of it stays true of all that it has said, also when the machine's is put right.
#[must_use]
pub fn now() -> DateTime<Utc> {
    static BEGAN: OnceLock<Began> = OnceLock::new();
    let began = BEGAN.get_or_init(|| Began {
        wall: Utc::now(),
        at: Instant::now(),
        up: uptime(),
    });
    let awake = began.at.elapsed();
    let up = uptime().zip(began.up);
    let slept = up.map_or(Duration::ZERO, |(up, then)| {
        up.saturating_sub(then).saturating_sub(awake)
    });
    began.wall + awake + if slept < SLEPT { Duration::ZERO } else { slept }
}

/// Since the machine was started, sleep included.
fn uptime() -> Option<Duration> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let seconds = text.split(' ').next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_the_machines_clock_as_long_as_nobody_sets_that() {
        let apart = now() - Utc::now();
        assert!(apart.abs() < chrono::TimeDelta::minutes(1), "{apart}");
        assert!(uptime() > Some(Duration::ZERO));
    }
}
