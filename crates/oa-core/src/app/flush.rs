//! Alerts leave at once, and not with the next minute of cron.

use std::time::Duration;

use crate::app::config::Config;
use crate::app::sibling;

/// Starts `oa-alert flush` if it is installed beside this program, so that a failure reaches a person now and not with the next
/// minute of cron. Whatever goes wrong with it, cron's own flush makes up for it.
pub fn flush_now(config: &Config) {
    if config.alert.channels.is_empty() || sibling::find("oa-alert").is_none() {
        return;
    }
    match sibling::run("oa-alert", config, &["flush"], Duration::from_secs(30)) {
        Ok(done) if done.status.success() => {}
        Ok(done) => tracing::warn!(
            "oa-alert flush ended with {}: {}",
            done.status,
            String::from_utf8_lossy(&done.stderr).trim()
        ),
        Err(e) => tracing::warn!("could not start oa-alert flush: {e}"),
    }
}
