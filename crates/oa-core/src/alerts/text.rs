//! The alerts' texts: what failed, since when, how often, why, what it means for the data, what to do.

mod explain;

use std::fmt::Write as _;
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use self::explain::{Work, explain};
use super::{Alert, Kind, Policy, Severity, run_fingerprint};
use crate::config::Locale;
use crate::retry::ErrorKind;
use crate::runs::store::TaskState;
use crate::runs::{Outcome, RunError, Status};
use crate::text::printable;

/// Characters of an error in an alert.
pub const LONGEST_EXCERPT: usize = 300;

/// Picks the text of the policy's language.
pub(super) fn say<'a>(policy: &Policy, zh: &'a str, en: &'a str) -> &'a str {
    match policy.locale {
        Locale::Zh => zh,
        Locale::En => en,
    }
}

/// A failed, timed out, partial or abandoned run.
pub(super) fn failed(
    outcome: &Outcome,
    state: &TaskState,
    policy: &Policy,
    severity: Severity,
) -> Alert {
    let name = name(outcome);
    let work = Work::of(outcome);
    let what = match outcome.status {
        Status::Partial => say(policy, "数据不完整", "data incomplete"),
        Status::Timeout if work == Work::Source => say(policy, "采集超时", "timed out"),
        Status::Timeout => say(policy, "运行超时", "timed out"),
        Status::Abandoned => say(policy, "进程中断", "was interrupted"),
        _ if work == Work::Source => say(policy, "采集失败", "failed"),
        _ => say(policy, "运行失败", "failed"),
    };
    let title = match (policy.locale, severity) {
        (Locale::Zh, Severity::Warning) => format!("【警告】{name} {what}"),
        (Locale::Zh, _) => format!("【故障】{name} {what}"),
        (Locale::En, Severity::Warning) => format!("[WARNING] {name} {what}"),
        (Locale::En, _) => format!("[FAILURE] {name} {what}"),
    };
    let mut body = format!("**{title}**\n\n");
    let unknown = RunError::new(ErrorKind::Internal, "");
    let error = outcome.error.as_ref().unwrap_or(&unknown);
    let (cause, remedy) = if outcome.status == Status::Abandoned {
        (
            say(
                policy,
                "进程没有留下结果就消失了",
                "the process is gone and has left no result",
            ),
            say(
                policy,
                "多为机器重启、内存不足或被人结束；查看本机日志和内存，任务会按排期再次运行",
                "mostly a restart of the machine, too little memory, or somebody who ended it: look at this machine's log and memory; the task runs again when it is due",
            ),
        )
    } else {
        explain(work, error.kind, policy.locale)
    };
    let tries = outcome.attempts.len();
    let mut line = |zh: String, en: String| {
        let text = match policy.locale {
            Locale::Zh => zh,
            Locale::En => en,
        };
        let _ = writeln!(body, "- {text}");
    };
    let message = excerpt(&error.message, LONGEST_EXCERPT);
    line(
        format!("原因：{cause}（{message}）"),
        format!("Cause: {cause} ({message})"),
    );
    if tries > 0 {
        let seconds = human_duration(
            (outcome.finished_at - outcome.start.started_at)
                .to_std()
                .unwrap_or_default(),
            policy.locale,
        );
        line(
            format!("已尝试：{tries} 次，历时 {seconds}"),
            format!("Tried: {tries} time(s) within {seconds}"),
        );
    }
    let since = local(
        state.failing_since.unwrap_or(outcome.start.started_at),
        policy,
    );
    let times = state.consecutive_failures.max(1);
    line(
        format!("开始于：{since}（连续第 {times} 次）"),
        format!("Since: {since} (failure number {times} in a row)"),
    );
    match state.last_success_at {
        Some(at) => {
            let ago = human_duration(
                (outcome.finished_at - at).to_std().unwrap_or_default(),
                policy.locale,
            );
            let at = local(at, policy);
            line(
                format!("上次成功：{at}（{ago}前）"),
                format!("Last success: {at} ({ago} ago)"),
            );
        }
        None => line(
            "上次成功：尚无记录".to_owned(),
            "Last success: none on record".to_owned(),
        ),
    }
    // The tables of backups and drills are about them, not collected data.
    let tables = match work {
        Work::Backup => String::new(),
        _ => tables(outcome),
    };
    let day = outcome.details.get("day").and_then(|d| d.as_str());
    match (outcome.status, tables.is_empty()) {
        (Status::Partial, false) => {
            let (got, due) = (
                outcome
                    .quality
                    .as_ref()
                    .map_or(outcome.fetched, |q| q.collected),
                outcome.quality.as_ref().and_then(|q| q.expected),
            );
            let due = due.map_or_else(|| "?".to_owned(), |n| n.to_string());
            line(
                format!(
                    "影响：{tables} 只收到 {got} 条，应有 {due} 条，已收到的已入库{}",
                    of_day(day, "（数据日期 ", "）")
                ),
                format!(
                    "Effect: {tables} got {got} of {due} records{}; what came is stored",
                    of_day(day, " of ", "")
                ),
            );
        }
        (_, false) => line(
            format!(
                "影响：{tables} 没有新数据{}",
                of_day(day, "（数据日期 ", "）")
            ),
            format!("Effect: no new data{} in {tables}", of_day(day, " of ", "")),
        ),
        (_, true) => {}
    }
    let remedy = remedy.replace("{run}", &outcome.start.id.to_string());
    line(format!("处理：{remedy}"), format!("What to do: {remedy}"));
    line(
        format!("运行编号：{}", outcome.start.id),
        format!("Run: {}", outcome.start.id),
    );
    let rule = match outcome.status {
        Status::Partial => "run_partial",
        Status::Abandoned => "run_abandoned",
        _ => "run_failed",
    };
    alert(
        &outcome.start.task,
        rule,
        Some(outcome.start.id),
        severity,
        Kind::Problem,
        title,
        body,
        outcome.finished_at,
    )
}

/// The first success after a trouble.
pub(super) fn recovered(outcome: &Outcome, state: &TaskState, policy: &Policy) -> Alert {
    let name = name(outcome);
    let title = match policy.locale {
        Locale::Zh => format!("【恢复】{name} 恢复正常"),
        Locale::En => format!("[RECOVERED] {name} works again"),
    };
    let mut body = format!("**{title}**\n\n");
    if let Some(since) = state.failing_since {
        let lasted = human_duration(
            (outcome.finished_at - since).to_std().unwrap_or_default(),
            policy.locale,
        );
        let since = local(since, policy);
        let times = state.consecutive_failures;
        let _ = match policy.locale {
            Locale::Zh => writeln!(
                body,
                "- 故障始于 {since}，持续 {lasted}，其间失败 {times} 次"
            ),
            Locale::En => writeln!(
                body,
                "- The trouble began at {since}, lasted {lasted}, {times} run(s) failed"
            ),
        };
    }
    let (at, records) = (local(outcome.finished_at, policy), outcome.fetched);
    let _ = match policy.locale {
        Locale::Zh => writeln!(
            body,
            "- 本次于 {at} 成功，收到 {records} 条记录\n- 运行编号：{}",
            outcome.start.id
        ),
        Locale::En => writeln!(
            body,
            "- This run succeeded at {at} with {records} records\n- Run: {}",
            outcome.start.id
        ),
    };
    alert(
        &outcome.start.task,
        "run_failed",
        Some(outcome.start.id),
        Severity::Info,
        Kind::Recovery,
        title,
        body,
        outcome.finished_at,
    )
}

/// Its task is run no more, so its trouble is nobody's.
pub(super) fn given_up(task: &str, name: &str, told_at: DateTime<Utc>, policy: &Policy) -> Alert {
    let told_at = local(told_at, policy);
    let (title, line) = match policy.locale {
        Locale::Zh => (
            format!("【恢复】{name} 已停用，故障关闭"),
            format!("任务已用 oa-crawl forget 停用；故障最近一次告警于 {told_at}"),
        ),
        Locale::En => (
            format!("[RECOVERED] {name} is run no more, its trouble is closed"),
            format!(
                "oa-crawl forget has given the task up; its trouble was last told at {told_at}"
            ),
        ),
    };
    alert(
        task,
        "run_failed",
        None,
        Severity::Info,
        Kind::Recovery,
        title.clone(),
        format!("**{title}**\n\n- {line}\n"),
        Utc::now(),
    )
}

#[allow(
    clippy::too_many_arguments,
    reason = "an alert is a flat record; a builder would only hide that"
)]
fn alert(
    task: &str,
    rule: &str,
    run_id: Option<Uuid>,
    severity: Severity,
    kind: Kind,
    title: String,
    body: String,
    now: DateTime<Utc>,
) -> Alert {
    alert_of(
        &run_fingerprint(task),
        rule,
        Some(task),
        run_id,
        severity,
        kind,
        title,
        body,
        now,
    )
}

#[allow(clippy::too_many_arguments, reason = "as above")]
pub(super) fn alert_of(
    fingerprint: &str,
    rule: &str,
    task: Option<&str>,
    run_id: Option<Uuid>,
    severity: Severity,
    kind: Kind,
    title: String,
    body: String,
    created_at: DateTime<Utc>,
) -> Alert {
    Alert {
        id: Uuid::now_v7(),
        fingerprint: fingerprint.to_owned(),
        rule: rule.to_owned(),
        task: task.map(str::to_owned),
        run_id,
        severity,
        kind,
        title,
        body,
        created_at,
    }
}

fn of_day(day: Option<&str>, before: &str, after: &str) -> String {
    day.map_or_else(String::new, |day| format!("{before}{day}{after}"))
}

fn name(outcome: &Outcome) -> &str {
    if outcome.start.title.is_empty() {
        &outcome.start.task
    } else {
        &outcome.start.title
    }
}

fn tables(outcome: &Outcome) -> String {
    match outcome.details.get("table").and_then(|t| t.as_str()) {
        Some(table) => table.to_owned(),
        None => outcome
            .batches
            .iter()
            .map(|b| b.table.as_str())
            .collect::<Vec<_>>()
            .join(", "),
    }
}

pub(super) fn local(moment: DateTime<Utc>, policy: &Policy) -> String {
    moment
        .with_timezone(&policy.timezone)
        .format("%Y-%m-%d %H:%M:%S")
        .to_string()
}

/// What others wrote (a site's error, a robot's answer) as one line of an alert. Long texts belong into the log; a phone shows the
/// beginning. Nothing in it is a mention or a link: robots read `<at id=all>`, `<@name>` and `[text](address)` as such.
#[must_use]
pub fn excerpt(text: &str, longest: usize) -> String {
    let text = printable(text);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.replace('<', "＜").replace("](", "］(");
    if line.chars().count() <= longest {
        return line;
    }
    line.chars().take(longest).chain("…".chars()).collect()
}

/// A duration as people say it: two units at most.
#[must_use]
pub fn human_duration(duration: Duration, locale: Locale) -> String {
    let seconds = duration.as_secs();
    let units: [(u64, &str, &str); 4] = [
        (86_400, " 天", "d"),
        (3600, " 小时", "h"),
        (60, " 分钟", "min"),
        (1, " 秒", "s"),
    ];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (size, zh, en) in units {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            parts.push(match locale {
                Locale::Zh => format!("{count}{zh}"),
                Locale::En => format!("{count} {en}"),
            });
        }
        if parts.len() == 2 || (parts.len() == 1 && count == 0) {
            break;
        }
    }
    if parts.is_empty() {
        return match locale {
            Locale::Zh => "不到 1 秒".to_owned(),
            Locale::En => "less than 1 s".to_owned(),
        };
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests;
