//! Outcomes that wait in this machine's spool for longer than it takes to store them.

use chrono::Utc;
use oa_core::app::config::Config;
use oa_core::journal::Recorder;
use oa_core::journal::spool::Drained;
use oa_core::model::event::Finding;

use super::seconds_since;

/// With PostgreSQL there. What that refuses is reported as such (`spool_stuck`).
pub(super) fn find_here(
    recorder: &Recorder,
    drained: &Drained,
    config: &Config,
) -> Option<Finding> {
    find(recorder, config).filter(|_| drained.stuck.is_empty())
}

/// A spool that cannot be used is reported by the recorder. Everything here is by this machine's clock: PostgreSQL may be down.
pub(super) fn find(recorder: &Recorder, config: &Config) -> Option<Finding> {
    let pending = recorder.spool().ok()?.pending().ok()?;
    let oldest = pending.oldest?;
    let waits = seconds_since(oldest, Utc::now());
    (waits > config.alert.spool_limit.0.as_secs()).then(|| Finding::SpoolWaiting {
        host: recorder.host().to_owned(),
        entries: pending.entries,
        bytes: pending.bytes,
        oldest,
        waits,
    })
}
