//! Outcomes that wait in this machine's spool for longer than it takes to store them.

use chrono::{DateTime, Utc};
use oa_core::alerts::{Alert, Policy, Severity, human_duration};
use oa_core::config::{Bytes, Config};
use oa_core::runs::Recorder;
use oa_core::spool::{Drained, Record, SpoolError};

use super::{Finding, finding, local};

pub(super) const RULE: &str = "spool_waiting";

/// With PostgreSQL there. What that refuses is told as such (`spool_stuck`).
pub(super) fn find_here(
    recorder: &Recorder,
    drained: &Drained,
    config: &Config,
    policy: &Policy,
) -> Option<Finding> {
    let found = find(recorder, config, policy);
    if found.is_none() {
        // The next time that it goes away is another trouble.
        let fingerprint = format!("{RULE}:{}", recorder.host());
        let forgotten = recorder.spool().and_then(|spool| {
            if spool.last_alert(&fingerprint)?.is_some() {
                spool.forget_told(&fingerprint)?;
            }
            Ok(())
        });
        if let Err(e) = forgotten {
            tracing::debug!("{e}");
        }
    }
    found.filter(|_| drained.stuck.is_empty())
}

/// Puts the alert into the spool, unless it was told lately.
pub(super) fn put_aside(
    recorder: &Recorder,
    alert: Alert,
    policy: &Policy,
) -> Result<(), SpoolError> {
    let mut spool = recorder.spool()?;
    let told = spool.last_alert(&alert.fingerprint)?;
    let lately = |at: DateTime<Utc>| {
        (Utc::now() - at)
            .to_std()
            .is_ok_and(|age| age < policy.repeat)
    };
    if told.is_some_and(lately) {
        return Ok(());
    }
    spool.put(&[Record::Alert(alert)])
}

/// A spool that cannot be used is told by the recorder.
pub(super) fn find(recorder: &Recorder, config: &Config, policy: &Policy) -> Option<Finding> {
    let pending = recorder.spool().ok()?.pending().ok()?;
    let oldest = pending.oldest?;
    let age = (Utc::now() - oldest).to_std().ok()?;
    if age <= config.alert.spool_limit.0 {
        return None;
    }
    let (host, entries, bytes) = (recorder.host(), pending.entries, Bytes(pending.bytes));
    let (since, lasts) = (local(oldest, policy), human_duration(age, policy.locale));
    Some(finding(
        (RULE, host),
        None,
        Severity::Critical,
        policy,
        || {
            (
                format!("{host} 暂存的结果已等待 {lasts}"),
                vec![
                    format!("{entries} 条（{bytes}）在本机暂存，最早的一条放入于 {since}"),
                    "影响：这些结果没有丢失，但数据库里还没有，报表和下游程序看不到".to_owned(),
                    "处理：确认 PostgreSQL 可用后执行 oa-crawl drain，并按它给出的原因处理"
                        .to_owned(),
                ],
            )
        },
        || {
            (
                format!("results wait in the spool of {host} since {lasts}"),
                vec![
                    format!("{entries} entries ({bytes}) wait on this machine, the oldest since {since}"),
                    "Effect: nothing is lost, but the database does not have them, nor do reports and those who read it".to_owned(),
                    "What to do: when PostgreSQL is there, run oa-crawl drain and do what it says".to_owned(),
                ],
            )
        },
    ))
}
