//! Troubles of a machine as a whole: between its programs and PostgreSQL, or with its own disk.

use chrono::{DateTime, Utc};

use super::text::{LONGEST_EXCERPT, alert_of, excerpt, human_duration, local};
use super::{Alert, Kind, Policy, Severity};
use crate::config::Locale;
use crate::secrets::redact;

/// What is wrong with a machine. Each trouble has one fingerprint a machine, or a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble<'a> {
    /// PostgreSQL cannot be reached; what was collected waits in the spool.
    DatabaseUnreachable,
    /// The schema `oa` is absent, older or newer: nothing is collected.
    SchemaUnfit,
    /// The spool is full: what is collected now reaches only the raw archive.
    SpoolFull,
    /// The spool cannot be read or written: should PostgreSQL go away as well, results would be lost.
    SpoolBroken,
    /// PostgreSQL refuses what waits in the spool of this task.
    SpoolStuck {
        /// The task.
        task: &'a str,
    },
}

impl Trouble<'_> {
    /// The rule under which it is stored.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        match self {
            Self::DatabaseUnreachable => "database_unreachable",
            Self::SchemaUnfit => "schema_unfit",
            Self::SpoolFull => "spool_full",
            Self::SpoolBroken => "spool_broken",
            Self::SpoolStuck { .. } => "spool_stuck",
        }
    }

    /// The fingerprint of this trouble on that machine.
    #[must_use]
    pub fn fingerprint(&self, host: &str) -> String {
        match self {
            Self::SpoolStuck { task } => format!("{}:{host}:{task}", self.rule()),
            _ => format!("{}:{host}", self.rule()),
        }
    }

    /// Whether a rule is about reaching PostgreSQL: such an alert is over once it can be stored there.
    #[must_use]
    pub fn is_over_once_stored(rule: &str) -> bool {
        [Self::DatabaseUnreachable.rule(), Self::SchemaUnfit.rule()].contains(&rule)
    }

    fn of_rule(rule: &str) -> Option<Self> {
        [
            Self::DatabaseUnreachable,
            Self::SchemaUnfit,
            Self::SpoolFull,
            Self::SpoolBroken,
            Self::SpoolStuck { task: "" },
        ]
        .into_iter()
        .find(|t| t.rule() == rule)
    }

    fn what(&self, locale: Locale) -> &'static str {
        let (zh, en) = match self {
            Self::DatabaseUnreachable => ("连不上数据库", "cannot reach the database"),
            Self::SchemaUnfit => ("数据库结构与程序不符", "does not fit the database's schema"),
            Self::SpoolFull => (
                "本机暂存已满，新结果无法入库",
                "has a full spool, new results cannot be stored",
            ),
            Self::SpoolBroken => ("本机暂存无法使用", "cannot use its spool"),
            Self::SpoolStuck { .. } => (
                "暂存的结果被数据库拒绝",
                "has results in its spool that the database refuses",
            ),
        };
        in_language(locale, zh, en)
    }

    fn over(&self, locale: Locale) -> &'static str {
        let (zh, en) = match self {
            Self::DatabaseUnreachable => (
                "已连上数据库，暂存的结果正在按序入库",
                "reaches the database again; what waited is being stored, in order",
            ),
            Self::SchemaUnfit => (
                "数据库结构已与程序相符，采集恢复",
                "fits the database's schema again; collection goes on",
            ),
            Self::SpoolFull => ("本机暂存已清空", "has an empty spool again"),
            Self::SpoolBroken => ("本机暂存恢复可用", "can use its spool again"),
            Self::SpoolStuck { .. } => (
                "暂存的结果已入库",
                "has stored the results that were refused",
            ),
        };
        in_language(locale, zh, en)
    }

    /// What it means for the data, and what to do.
    fn advice(&self, locale: Locale) -> (&'static str, &'static str) {
        match (self, locale) {
            (Self::DatabaseUnreachable, Locale::Zh) => (
                "采集照常进行，结果暂存在本机，数据库恢复后自动按序入库",
                "检查 PostgreSQL 是否在运行、地址和密码是否正确",
            ),
            (Self::DatabaseUnreachable, Locale::En) => (
                "collection goes on, results wait on this machine and are stored in order once the database is back",
                "check that PostgreSQL runs and that address and password are right",
            ),
            (Self::SchemaUnfit, Locale::Zh) => (
                "采集任务全部没有运行",
                "按原因中的提示执行 oa-migrate init，或更新本机的 oa 程序",
            ),
            (Self::SchemaUnfit, Locale::En) => (
                "no task runs",
                "run oa-migrate init or install the newer programs, as the cause says",
            ),
            (Self::SpoolFull, Locale::Zh) => (
                "新采集的内容只保存在原始归档中，尚未入库",
                "尽快恢复数据库（恢复后自动清空暂存），或调大 [spool] max_size",
            ),
            (Self::SpoolFull, Locale::En) => (
                "what is collected now is kept in the raw archive only",
                "bring the database back (the spool then drains by itself), or raise max_size in [spool]",
            ),
            (Self::SpoolBroken, Locale::Zh) => (
                "目前结果直接入库；若数据库此时也中断，结果将无处存放",
                "清理磁盘空间；文件损坏时将其移走留待检查",
            ),
            (Self::SpoolBroken, Locale::En) => (
                "results go to the database directly for now; should it go away too, there is no place for them",
                "free space on that disk, or move a damaged file aside",
            ),
            (Self::SpoolStuck { .. }, Locale::Zh) => (
                "该任务的结果暂存在本机、没有丢失，但尚未入库；其后的结果也排队等候",
                "按原因修复数据表（如 oa-migrate init、oa-migrate dedupe），然后执行 oa-crawl drain",
            ),
            (Self::SpoolStuck { .. }, Locale::En) => (
                "this task's results wait on this machine, nothing is lost, and later ones queue up behind them",
                "mend the table as the cause says (for example oa-migrate init, oa-migrate dedupe), then run oa-crawl drain",
            ),
        }
    }
}

/// The alert that a trouble was found.
#[must_use]
pub fn found(
    trouble: Trouble<'_>,
    reason: &str,
    host: &str,
    now: DateTime<Utc>,
    policy: &Policy,
) -> Alert {
    let locale = policy.locale;
    let task = match trouble {
        Trouble::SpoolStuck { task } => Some(task),
        _ => None,
    };
    let what = trouble.what(locale);
    let title = match (locale, task) {
        (Locale::Zh, None) => format!("【故障】{host} {what}"),
        (Locale::Zh, Some(task)) => format!("【故障】{host} {what}：{task}"),
        (Locale::En, None) => format!("[FAILURE] {host} {what}"),
        (Locale::En, Some(task)) => format!("[FAILURE] {host} {what}: {task}"),
    };
    let reason = excerpt(&redact(reason), LONGEST_EXCERPT);
    let at = local(now, policy);
    let (effect, remedy) = trouble.advice(locale);
    let body = match locale {
        Locale::Zh => format!(
            "**{title}**\n\n- 原因：{reason}\n- 发现于：{at}\n- 影响：{effect}\n- 处理：{remedy}\n"
        ),
        Locale::En => format!(
            "**{title}**\n\n- Cause: {reason}\n- Found at: {at}\n- Effect: {effect}\n- What to do: {remedy}\n"
        ),
    };
    alert_of(
        &trouble.fingerprint(host),
        trouble.rule(),
        task,
        None,
        Severity::Critical,
        Kind::Problem,
        title,
        body,
        now,
    )
}

/// The alert that a trouble is over, for the fingerprint of the one that told it.
#[must_use]
pub fn over(
    rule: &str,
    fingerprint: &str,
    since: DateTime<Utc>,
    now: DateTime<Utc>,
    policy: &Policy,
) -> Alert {
    let mut parts = fingerprint.splitn(3, ':').skip(1);
    let (host, task) = (parts.next().unwrap_or_default(), parts.next());
    let what = Trouble::of_rule(rule).map_or("", |t| t.over(policy.locale));
    let lasted = human_duration((now - since).to_std().unwrap_or_default(), policy.locale);
    let (since, at) = (local(since, policy), local(now, policy));
    let about = task.map_or_else(String::new, |task| format!(" {task}"));
    let (title, line) = match policy.locale {
        Locale::Zh => (
            format!("【恢复】{host}{about} {what}"),
            format!("故障始于 {since}，持续 {lasted}，{at} 恢复"),
        ),
        Locale::En => (
            format!("[RECOVERED] {host}{about} {what}"),
            format!("The trouble began at {since} and lasted {lasted}, until {at}"),
        ),
    };
    let body = format!("**{title}**\n\n- {line}\n");
    alert_of(
        fingerprint,
        rule,
        task,
        None,
        Severity::Info,
        Kind::Recovery,
        title,
        body,
        now,
    )
}

fn in_language(locale: Locale, zh: &'static str, en: &'static str) -> &'static str {
    match locale {
        Locale::Zh => zh,
        Locale::En => en,
    }
}
