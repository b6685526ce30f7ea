//! What is wrong although nothing failed: a run that did not happen, a disk that fills, a clock that is off.
//!
//! Each rule gives what it finds now. What is new is told, what goes on is told again after `[alert] repeat`, and what is found no
//! more is told as over.

mod disk;
mod rules;

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use oa_core::alerts::{self, Alert, Kind, Policy, Severity, human_duration};
use oa_core::config::{Config, Locale};
use oa_core::secrets::redact;
use oa_core::state_dir::StateDir;
use postgres::Client;
use uuid::Uuid;

/// The rules, under the names by which they are stored and silenced.
pub const RULES: [&str; 8] = [
    rules::MISSED,
    rules::NEVER_RUN,
    rules::PARTIAL,
    rules::TOO_LONG,
    rules::CONNECTIONS,
    rules::WAL_HELD,
    rules::CLOCK,
    disk::RULE,
];

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

/// Asks all rules.
///
/// # Errors
/// When PostgreSQL fails.
pub fn find(
    client: &mut Client,
    state: &StateDir,
    host: &str,
    config: &Config,
) -> Result<Vec<Finding>, postgres::Error> {
    let policy = Policy::from_config(config);
    let mut found = rules::find(client, host, config, &policy)?;
    found.extend(disk::find(state, host, &policy));
    Ok(found)
}

/// Puts into the outbox what is new, what goes on for long, and what is over. Of rules about a machine only this one's are over.
///
/// # Errors
/// When PostgreSQL fails.
pub fn tell(
    client: &mut Client,
    found: &[Finding],
    host: &str,
    policy: &Policy,
) -> Result<(), postgres::Error> {
    let mut tx = client.transaction()?;
    // Two checks at once would tell everything twice.
    tx.execute(
        "SELECT pg_advisory_xact_lock(hashtext('oa-alert check'))",
        &[],
    )?;
    for finding in found {
        alerts::tell(&mut tx, &finding.alert(policy), policy)?;
    }
    let open: HashSet<String> = found.iter().map(Finding::fingerprint).collect();
    let rows = tx.query(
        "SELECT fingerprint, rule, task, title, since FROM oa.troubles WHERE rule = ANY($1)",
        &[&RULES.as_slice()],
    )?;
    for row in rows {
        let fingerprint: String = row.get(0);
        let rule: &str = row.get(1);
        let elsewhere =
            [rules::CLOCK, disk::RULE].contains(&rule) && fingerprint != format!("{rule}:{host}");
        if open.contains(&fingerprint) || elsewhere || alerts::flaps(&mut tx, &fingerprint)? {
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
    tx.commit()
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
