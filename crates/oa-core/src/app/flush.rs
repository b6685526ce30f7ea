//! Alerts leave at once, and not with the next minute of cron.

use std::process::Command;
use std::time::Duration;

use crate::app::config::Config;
use crate::base::supervise::{self, StopSignal};

/// Starts `oa-alert flush` if it is installed beside this program, so that a failure reaches a person now and not with the next
/// minute of cron. Whatever goes wrong with it, cron's own flush makes up for it.
pub fn flush_now(config: &Config) {
    let sibling = std::env::current_exe()
        .ok()
        .and_then(|me| Some(me.parent()?.join("oa-alert")))
        .filter(|p| p.is_file());
    let (Some(program), false) = (sibling, config.alert.channels.is_empty()) else {
        return;
    };
    let mut command = Command::new(program);
    command.arg("--config").arg(&config.path).arg("flush");
    match supervise::run(
        &mut command,
        Duration::from_secs(30),
        StopSignal,
        false,
        supervise::TAIL,
    ) {
        Ok(done) if done.status.success() => {}
        Ok(done) => tracing::warn!(
            "oa-alert flush ended with {}: {}",
            done.status,
            String::from_utf8_lossy(&done.stderr).trim()
        ),
        Err(e) => tracing::warn!("could not start oa-alert flush: {e}"),
    }
}
