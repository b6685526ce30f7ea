//! What is wrong although nothing failed: a run that did not happen, a disk that fills, a clock that is off.
//!
//! Each rule gives what it finds now. What is new is told, what goes on is told again after `[alert] repeat`, and what is found no
//! more is told as over.

mod backups;
mod certificate;
mod cookies;
mod data;
mod disk;
mod rules;
mod spool;

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use oa_core::alerts::{self, Alert, Kind, Policy, Severity, human_duration};
use oa_core::config::{Config, ConfigError, Locale, nearest};
use oa_core::runs::Recorder;
use oa_core::schedule::Calendar;
use oa_core::secrets::redact;
use oa_core::spool::Drained;
use postgres::Client;
use uuid::Uuid;

/// The rules, under the names by which they are stored and silenced.
pub const RULES: [&str; 20] = [
    rules::MISSED,
    rules::NEVER_RUN,
    rules::PARTIAL,
    rules::TOO_LONG,
    rules::CONNECTIONS,
    rules::WAL_HELD,
    rules::CLOCK,
    disk::RULE,
    data::STALE,
    data::FALLING,
    spool::RULE,
    cookies::RULE,
    certificate::RULE,
    backups::LATE,
    backups::UNVERIFIED,
    backups::MISSING,
    backups::OVERDUE,
    backups::FAILED,
    backups::SLOW,
    backups::FILLING,
];

/// Every rule by which alerts are stored: those of `check`, and those of the programs themselves.
const OTHER_RULES: [&str; 9] = [
    "run_failed",
    "run_partial",
    "run_abandoned",
    "database_unreachable",
    "schema_unfit",
    "spool_full",
    "spool_broken",
    "spool_stuck",
    "channel_refuses",
];

/// `off` in `[alert]` names rules of `check` only.
///
/// # Errors
/// For a name that is none, or is that of a rule which cannot be turned off.
pub fn known_rules(config: &Config) -> Result<(), ConfigError> {
    for off in &config.alert.off {
        let hint = if RULES.contains(&off.as_str()) {
            continue;
        } else if OTHER_RULES.contains(&off.as_str()) {
            "; it is told by the programs themselves: use oa-alert silence, or min_severity of a channel".to_owned()
        } else {
            nearest(off, RULES.iter().copied())
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

/// Something that is wrong now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule that found it.
    pub rule: &'static str,
    /// What it is about: a task, a machine, or a replication slot.
    pub subject: String,
    /// The task, when it is about one.
    pub task: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    /// One line, without the mark of its severity.
    pub title: String,
    /// Lines: what is known, what it means for the data, what to do.
    pub lines: Vec<String>,
}

impl Finding {
    fn fingerprint(&self) -> String {
        format!("{}:{}", self.rule, self.subject)
    }

    fn alert(&self, policy: &Policy) -> Alert {
        let mark = match (policy.locale, self.severity) {
            (Locale::Zh, Severity::Critical) => "【故障】",
            (Locale::Zh, _) => "【警告】",
            (Locale::En, Severity::Critical) => "[FAILURE] ",
            (Locale::En, _) => "[WARNING] ",
        };
        let title = format!("{mark}{}", self.title);
        let lines: Vec<String> = self.lines.iter().map(|l| format!("- {l}\n")).collect();
        Alert {
            id: Uuid::now_v7(),
            fingerprint: self.fingerprint(),
            rule: self.rule.to_owned(),
            task: self.task.clone(),
            run_id: None,
            severity: self.severity,
            kind: Kind::Problem,
            body: redact(&format!("**{title}**\n\n{}", lines.concat())),
            title: redact(&title),
            created_at: Utc::now(),
        }
    }
}

/// What the rules found, and what could be asked here: the rest is another machine's to say.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// All that is wrong now.
    pub findings: Vec<Finding>,
    host: String,
    repositories: Vec<String>,
    certificate: Option<String>,
}

impl Found {
    /// Whether this machine would have found this trouble, were it still there.
    fn could_see(&self, rule: &str, subject: &str) -> bool {
        match rule {
            rules::CLOCK | disk::RULE | spool::RULE => subject == self.host,
            cookies::RULE => subject.split('/').next() == Some(&self.host),
            certificate::RULE => Some(subject) == self.certificate.as_deref(),
            backups::LATE
            | backups::UNVERIFIED
            | backups::MISSING
            | backups::OVERDUE
            | backups::FAILED
            | backups::SLOW
            | backups::FILLING => self.repositories.iter().any(|r| r == subject),
            _ => true,
        }
    }
}

/// The trading calendar that is configured; the shipped one when that cannot be read, which `oa-crawl` tells.
fn calendar(config: &Config) -> Calendar {
    Calendar::load(config.calendar.as_deref()).unwrap_or_else(|e| {
        tracing::warn!("{e}");
        Calendar::shipped()
    })
}

/// Asks all rules that are not off.
///
/// # Errors
/// When PostgreSQL fails.
pub fn find(
    client: &mut Client,
    recorder: &Recorder,
    drained: &Drained,
    config: &Config,
) -> Result<Found, postgres::Error> {
    let policy = Policy::from_config(config);
    let (state, host) = (recorder.state(), recorder.host());
    // Compiling queries over many partitions takes longer than answering them: 140 ms of a check.
    client.batch_execute("SET jit = off")?;
    let mut found = rules::find(client, host, config, &policy)?;
    found.extend(data::find(client, config, &calendar(config), &policy)?);
    found.extend(backups::find(client, state, config, &policy)?);
    found.extend(spool::find_here(recorder, drained, config, &policy));
    found.extend(disk::find(state, host, config, &policy));
    found.extend(cookies::find(state, host, config, &policy));
    // Also when the rule is off: what was told of this server is over then.
    let seen = certificate::look(state, config);
    found.extend(certificate::find(seen.as_ref(), config, &policy));
    found.retain(|f| !config.alert.is_off(f.rule));
    Ok(Found {
        findings: found,
        host: host.to_owned(),
        repositories: backups::configured(state).into_keys().collect(),
        certificate: seen.map(|s| s.server),
    })
}

/// What can be found without PostgreSQL: results that wait for too long. Told by way of the spool.
#[must_use]
pub fn find_away(recorder: &Recorder, config: &Config) -> Option<Finding> {
    let policy = Policy::from_config(config);
    let finding = spool::find(recorder, config, &policy)?;
    if config.alert.is_off(finding.rule) {
        return None;
    }
    if let Err(e) = spool::put_aside(recorder, finding.alert(&policy), &policy) {
        tracing::error!("could not put an alert aside: {e}");
    }
    Some(finding)
}

/// Puts into the outbox what is new, what goes on for long, and what is over as far as this machine can see.
///
/// # Errors
/// When PostgreSQL fails.
pub fn tell(
    client: &mut Client,
    recorder: &Recorder,
    config: &Config,
    found: &Found,
) -> Result<(), postgres::Error> {
    let policy = recorder.policy();
    let mut tx = client.transaction()?;
    // Two checks at once would tell everything twice.
    tx.execute(
        "SELECT pg_advisory_xact_lock(hashtext('oa-alert check'))",
        &[],
    )?;
    for finding in &found.findings {
        alerts::tell(&mut tx, &finding.alert(policy), policy)?;
    }
    let open: HashSet<String> = found.findings.iter().map(Finding::fingerprint).collect();
    let rows = tx.query(
        "SELECT fingerprint, rule, task, title, since FROM oa.troubles WHERE rule = ANY($1)",
        &[&RULES.as_slice()],
    )?;
    for row in rows {
        let (fingerprint, rule): (String, &str) = (row.get(0), row.get(1));
        let subject = fingerprint.split_once(':').map_or("", |(_, s)| s);
        if open.contains(&fingerprint)
            || !found.could_see(rule, subject)
            || alerts::flaps(&mut tx, &fingerprint)?
        {
            continue;
        }
        let over = over(
            &fingerprint,
            rule,
            row.get(2),
            row.get(3),
            row.get(4),
            policy,
        );
        alerts::put(&mut tx, &over)?;
    }
    tx.commit()?;
    backups::forget_former(recorder.state(), config);
    Ok(())
}

fn over(
    fingerprint: &str,
    rule: &str,
    task: Option<String>,
    problem: &str,
    since: DateTime<Utc>,
    policy: &Policy,
) -> Alert {
    let now = Utc::now();
    let lasted = human_duration((now - since).to_std().unwrap_or_default(), policy.locale);
    let marks = ["【故障】", "【警告】", "[FAILURE] ", "[WARNING] "];
    let what = marks
        .iter()
        .fold(problem, |t, mark| t.strip_prefix(mark).unwrap_or(t));
    let at = |moment: DateTime<Utc>| local(moment, policy);
    let (title, line) = match policy.locale {
        Locale::Zh => (
            format!("【恢复】{what}：已解除"),
            format!("始于 {}，持续 {lasted}，{} 解除", at(since), at(now)),
        ),
        Locale::En => (
            format!("[RECOVERED] {what}: over"),
            format!(
                "It began at {} and lasted {lasted}, until {}",
                at(since),
                at(now)
            ),
        ),
    };
    Alert {
        id: Uuid::now_v7(),
        fingerprint: fingerprint.to_owned(),
        rule: rule.to_owned(),
        task,
        run_id: None,
        severity: Severity::Info,
        kind: Kind::Recovery,
        body: format!("**{title}**\n\n- {line}\n"),
        title,
        created_at: now,
    }
}

fn local(moment: DateTime<Utc>, policy: &Policy) -> String {
    let local = moment.with_timezone(&policy.timezone);
    local.format("%Y-%m-%d %H:%M:%S").to_string()
}

fn say<'a>(policy: &Policy, zh: &'a str, en: &'a str) -> &'a str {
    match policy.locale {
        Locale::Zh => zh,
        Locale::En => en,
    }
}

/// Title and lines of a finding, in the policy's language.
type Text = (String, Vec<String>);

fn finding(
    (rule, subject): (&'static str, &str),
    task: Option<&str>,
    severity: Severity,
    policy: &Policy,
    zh: impl FnOnce() -> Text,
    en: impl FnOnce() -> Text,
) -> Finding {
    let (title, lines) = match policy.locale {
        Locale::Zh => zh(),
        Locale::En => en(),
    };
    Finding {
        rule,
        subject: subject.to_owned(),
        task: task.map(str::to_owned),
        severity,
        title,
        lines,
    }
}

/// What ends within `expiry_notice` is a warning, and critical when it has ended. The texts get the moment, and the time that is left
/// while there is any.
fn expiring(
    about: (&'static str, &str),
    end: DateTime<Utc>,
    config: &Config,
    policy: &Policy,
    zh: impl FnOnce(&str, Option<&str>) -> Text,
    en: impl FnOnce(&str, Option<&str>) -> Text,
) -> Option<Finding> {
    let left = (end - Utc::now()).to_std().ok();
    if left.is_some_and(|left| left >= config.alert.expiry_notice.0) {
        return None;
    }
    let severity = match left {
        Some(_) => Severity::Warning,
        None => Severity::Critical,
    };
    let (at, left) = (
        local(end, policy),
        left.map(|left| human_duration(left, policy.locale)),
    );
    let left = left.as_deref();
    Some(finding(
        about,
        None,
        severity,
        policy,
        || zh(&at, left),
        || en(&at, left),
    ))
}
