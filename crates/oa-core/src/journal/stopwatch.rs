//! Times of a run under way.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

/// A wall clock that does not jump: the start's time plus what a monotonic clock has measured since.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    wall: DateTime<Utc>,
    mono: Instant,
}

impl Stopwatch {
    /// Starts now; `now` is the time that it counts from.
    #[must_use]
    pub fn start(now: DateTime<Utc>) -> Self {
        Self {
            wall: now,
            mono: Instant::now(),
        }
    }

    /// The current time (UTC) on this clock.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.wall + self.mono.elapsed()
    }

    /// What has passed.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.mono.elapsed()
    }
}
