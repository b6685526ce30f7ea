//! What is wrong even if nothing failed: a run that did not happen, a disk that fills, a clock that is off.
//!
//! Each rule gives what it finds now. What is new is raised, what goes on is notified again after `[alert] repeat`, and what is found
//! no more is resolved ([`oa_core::journal::incidents`]).

mod backups;
mod certificate;
mod cookies;
mod data;
mod disk;
mod listener;
mod missed;
pub(crate) mod network;
mod opening;
mod rhythm;
mod rules;
mod spool;

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use oa_core::app::config::{Config, ConfigError};
use oa_core::base::mistakes::nearest;
use oa_core::journal::Recorder;
use oa_core::journal::incidents::{self, Policy};
use oa_core::journal::spool::Drained;
use oa_core::model::event::{Alert, Event, Finding};
use oa_core::pg;
use oa_core::schedule::Calendar;
use postgres::error::SqlState;
use postgres::{Client, Transaction};

/// The rules of the programs themselves, under the names by which their alerts are stored and silenced.
const OTHER_RULES: [&str; 12] = [
    "run_failed",
    "run_partial",
    "run_abandoned",
    "database_unreachable",
    "schema_unfit",
    "spool_full",
    "spool_broken",
    "no_store",
    "spool_stuck",
    "check_failed",
    "channel_refuses",
    "message_refused",
];

/// The names of all rules.
pub(crate) fn all_rules() -> impl Iterator<Item = &'static str> + Clone {
    Finding::RULES.into_iter().chain(OTHER_RULES)
}

/// `off` in `[alert]` names rules of `check` only.
pub(crate) fn known_rules(config: &Config) -> Result<(), ConfigError> {
    for off in &config.alert.off {
        let hint = if Finding::RULES.contains(&off.as_str()) {
            continue;
        } else if OTHER_RULES.contains(&off.as_str()) {
            "; the programs themselves report it: use oa-alert silence, or min_severity of a channel".to_owned()
        } else {
            nearest(off, Finding::RULES.iter().copied())
        };
        return Err(ConfigError::Invalid {
            path: config.path.clone(),
            message: format!(
                "off in [alert] names \"{off}\", which is no rule of oa-alert check{hint}"
            ),
        });
    }
    Ok(())
}

/// What the rules found, and what could be asked here: the rest is another machine's to say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    /// All that is wrong now.
    pub(crate) findings: Vec<Finding>,
    /// When it was asked, by the server's clock.
    asked_at: DateTime<Utc>,
    host: String,
    repositories: Vec<String>,
    /// Servers of the database: the one that answers, and those that were in the address before.
    servers: Vec<String>,
    /// Channels of which this machine cannot say whether somebody listens.
    unsure_channels: Vec<String>,
    /// Tasks of which it cannot be said what they miss.
    unseen: Vec<String>,
}

impl Found {
    /// What could not be looked at, why, and what to do.
    pub(crate) fn unseen(&self) -> Option<String> {
        (!self.unseen.is_empty()).then(|| {
            format!(
                "whether {} ran as scheduled cannot be said: no slots are written of it, because somebody else has its row of oa.tasks locked; if that \
                 does not end by itself, end the transaction that stays open: SELECT pid, usename, xact_start, query FROM pg_stat_activity ORDER BY \
                 xact_start",
                self.unseen.join(", ")
            )
        })
    }

    /// Whether this machine would have found this, were it still there.
    fn could_see(&self, rule: &str, subject: &str) -> bool {
        match rule {
            "clock_off" | "disk_filling" | "spool_waiting" => subject == self.host,
            "cookie_expiring" => subject.split('/').next() == Some(&self.host),
            "certificate_expiring" => self.servers.iter().any(|s| s == subject),
            "listener_down" => !self.unsure_channels.iter().any(|c| c == subject),
            "backup_late"
            | "backup_unverified"
            | "backup_missing"
            | "server_damaged"
            | "backup_unrecoverable"
            | "drill_overdue"
            | "drill_failed"
            | "drill_slow"
            | "repository_filling" => self.repositories.iter().any(|r| r == subject),
            _ => true,
        }
    }
}

/// The trading calendar that is configured; the shipped one when that cannot be read, which `oa-crawl` reports.
fn calendar(config: &Config) -> Calendar {
    Calendar::load(config.calendar.as_deref()).unwrap_or_else(|e| {
        tracing::warn!("{e}");
        Calendar::shipped()
    })
}

/// Asks all rules that are not off.
pub(crate) fn find(
    client: &mut Client,
    recorder: &Recorder,
    drained: &Drained,
    config: &Config,
) -> Result<Found, postgres::Error> {
    let (state, host) = (recorder.state(), recorder.host());
    // Compiling queries over many partitions takes longer than answering them: 140 ms of a check.
    client.batch_execute("SET jit = off")?;
    let now: DateTime<Utc> = client.query_one("SELECT now()", &[])?.get(0);
    let calendar = calendar(config);
    let (mut found, unseen) = missed::find(client, config, &calendar, now)?;
    found.extend(rules::find(client, host, config)?);
    found.extend(network::find(client)?);
    found.extend(opening::find(client, config, &calendar, now)?);
    found.extend(data::find(client, config, &calendar, now)?);
    found.extend(backups::find(client, state, config)?);
    let (unheard, unsure_channels) = listener::find(client, host, config)?;
    found.extend(unheard);
    found.extend(spool::find_here(recorder, drained, config));
    found.extend(disk::find(state, host, &config.alert, now));
    found.extend(cookies::find(state, host, config, now));
    // Also when the rule is off: what was reported of this server is resolved then.
    let seen = certificate::look(state, config);
    found.extend(certificate::find(seen.as_ref(), config, now));
    found.retain(|f| !config.alert.is_off(f.rule()));
    Ok(Found {
        findings: found,
        asked_at: now,
        host: host.to_owned(),
        repositories: backups::configured(state).into_keys().collect(),
        servers: seen.map_or_else(Vec::new, |s| [vec![s.server], s.former].concat()),
        unsure_channels,
        unseen,
    })
}

/// What this machine sees by itself: its disk, its cookies, its spool.
const OWN_RULES: [&str; 3] = ["disk_filling", "cookie_expiring", "spool_waiting"];

/// What can be found without PostgreSQL: a disk that is full is why it is down more often than not. Raised by way of the spool.
pub(crate) fn find_here(recorder: &Recorder, config: &Config) -> Vec<Finding> {
    let (state, host, now) = (recorder.state(), recorder.host(), Utc::now());
    let mut found: Vec<Finding> = spool::find(recorder, config).into_iter().collect();
    found.extend(disk::find(state, host, &config.alert, now));
    found.extend(cookies::find(state, host, config, now));
    found.retain(|f| !config.alert.is_off(f.rule()));
    let raised = recorder.spool().and_then(|mut spool| {
        found.iter().try_for_each(|finding| {
            spool.raise(Event::Found(finding.clone()), recorder.policy().repeat)
        })
    });
    if let Err(e) = raised {
        tracing::error!("could not spool an alert: {e}");
    }
    found
}

/// Leaves word in the spool of what this machine sees, for the time when PostgreSQL is down: what was reported is not reported at once
/// again then, and what is over is another incident the next time.
fn remember_here(recorder: &Recorder, found: &[Finding]) {
    let events = found.iter().filter(|f| OWN_RULES.contains(&f.rule()));
    let alerts: Vec<Alert> = events
        .map(|f| Alert::new(Event::Found(f.clone())))
        .collect();
    let remembered = recorder
        .spool()
        .and_then(|s| s.remember_open(&OWN_RULES, &alerts, recorder.policy().repeat));
    if let Err(e) = remembered {
        tracing::debug!("{e}");
    }
}

/// Raises what is found, and resolves what is found no more, as far as this machine can see.
pub(crate) fn record(
    client: &mut Client,
    recorder: &Recorder,
    config: &Config,
    found: &Found,
) -> Result<(), postgres::Error> {
    if !found.findings.is_empty() || any_open(client)? {
        raise_and_resolve(client, recorder.policy(), found)?;
    }
    remember_here(recorder, &found.findings);
    backups::forget_former(recorder.state(), config);
    certificate::forget_former(recorder.state());
    Ok(())
}

/// Whether a rule has found something that is not over: mostly not, and then nothing need wait for other checks.
fn any_open(client: &mut Client) -> Result<bool, postgres::Error> {
    let row = client.query_one(
        "SELECT EXISTS (SELECT FROM oa.incidents WHERE resolved_at IS NULL AND rule = ANY($1))",
        &[&Finding::RULES.as_slice()],
    )?;
    Ok(row.get(0))
}

fn raise_and_resolve(
    client: &mut Client,
    policy: &Policy,
    found: &Found,
) -> Result<(), postgres::Error> {
    let mut tx = client.transaction()?;
    // One check at a time: what another one has just found is not resolved by what this one found before. None takes long: each waits for
    // others a few seconds at most.
    let limit = tx.query_one("SELECT current_setting('lock_timeout')", &[])?;
    let limit: &str = limit.get(0);
    tx.batch_execute("SET LOCAL lock_timeout = '20s'")?;
    pg::alone(&mut tx, "check")?;
    tx.execute("SELECT set_config('lock_timeout', $1, true)", &[&limit])?;
    let back: bool = tx
        .query_one(
            "SELECT now() < $1::timestamptz - interval '1 minute'",
            &[&found.asked_at],
        )?
        .get(0);
    if back {
        tracing::warn!("the server's clock went back during the check: the next one looks again");
        return Ok(());
    }
    let are_locked = lock_tasks(&mut tx, &found.findings)?;
    // All of them, before any is raised, in the order in which whoever acknowledges takes them, or each would wait for the other.
    let rows = tx.query(
        "SELECT fingerprint, rule, task, opened_at, opened_at > $2 AND opened_at <= clock_timestamp() FROM oa.incidents
         WHERE resolved_at IS NULL AND rule = ANY($1) ORDER BY fingerprint FOR UPDATE",
        &[&Finding::RULES.as_slice(), &found.asked_at],
    )?;
    let mut open = HashSet::new();
    for finding in &found.findings {
        let event = Event::Found(finding.clone());
        open.extend(event.fingerprint());
        incidents::raise(&mut tx, event, policy)?;
    }
    if are_locked {
        missed::note_reported(&mut tx, &found.findings)?;
    }
    for row in rows {
        let (fingerprint, rule): (String, &str) = (row.get(0), row.get(1));
        let subject = fingerprint.split_once(':').map_or("", |(_, s)| s);
        // What was raised meanwhile, by whoever sends (the network) or by another machine, the next check looks at.
        let is_newer: bool = row.get(4);
        if !is_newer && !open.contains(&fingerprint) && found.could_see(rule, subject) {
            let ended = missed::ended(&mut tx, rule, row.get(2), row.get(3), &found.findings)?;
            incidents::resolve_finding(&mut tx, &fingerprint, ended)?;
        }
    }
    tx.commit()
}

/// Waits for the tasks of which something is missing; not for long, as one that stores a long outcome must not keep people from hearing of
/// all else: what they hear of it is noted by the next check then. Returns whether it has them.
fn lock_tasks(tx: &mut Transaction<'_>, found: &[Finding]) -> Result<bool, postgres::Error> {
    let mut waiting = tx.transaction()?;
    match missed::lock_tasks(&mut waiting, found) {
        Ok(()) => {
            waiting.commit()?;
            Ok(true)
        }
        Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            waiting.rollback()?;
            Ok(false)
        }
        Err(e) => Err(e),
    }
}

/// What ends within `expiry_notice`: how long that is, in seconds; the inner `None` when it has ended. `None`: there is time.
fn ends_soon(end: DateTime<Utc>, config: &Config, now: DateTime<Utc>) -> Option<Option<u64>> {
    let left = (end - now).to_std().ok();
    let is_long = left.is_some_and(|left| left >= config.alert.expiry_notice.0);
    (!is_long).then(|| left.map(|left| left.as_secs()))
}

/// Since then, in seconds.
fn seconds_since(at: DateTime<Utc>, now: DateTime<Utc>) -> u64 {
    (now - at).to_std().unwrap_or_default().as_secs()
}
