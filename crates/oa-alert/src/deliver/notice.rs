//! The alerts about a channel itself. They go to the other channels.

use chrono::Utc;
use oa_core::alerts::{Alert, Kind, LONGEST_EXCERPT, Policy, Severity, excerpt, human_duration};
use oa_core::config::Locale;
use oa_core::secrets::redact;
use uuid::Uuid;

/// The rule under which they are stored.
const RULE: &str = "channel_refuses";
/// Most titles that are named.
const NAMED: usize = 10;

/// The trouble of one channel. Alerts with this fingerprint are not sent to that channel.
pub(super) fn fingerprint(channel: &str) -> String {
    format!("channel:{channel}")
}

/// A channel has not taken these alerts for a day.
pub(super) fn gave_up(channel: &str, titles: &[&str], error: &str, policy: &Policy) -> Alert {
    let count = titles.len();
    let error = redact(error).replace("; it will be tried again", "");
    let error = excerpt(&error, LONGEST_EXCERPT);
    let mut named: Vec<String> = titles
        .iter()
        .take(NAMED)
        .map(|t| format!("  - {t}"))
        .collect();
    if count > NAMED {
        named.push("  - …".to_owned());
    }
    let named = named.join("\n");
    let (title, text) = match policy.locale {
        Locale::Zh => (
            format!("【故障】告警通道 {channel} 放弃了 {count} 条告警"),
            format!(
                "- 原因：通道连续 24 小时拒收（{error}）\n- 影响：只看该通道的人没有收到：\n{named}\n- 处理：按原因修复后执行 oa-alert test {channel}；全部内容见 oa-alert list --all"
            ),
        ),
        Locale::En => (
            format!("[FAILURE] alert channel {channel} gave up {count} alert(s)"),
            format!(
                "- Cause: the channel refused them for 24 hours ({error})\n- Effect: who reads only that channel has not got:\n{named}\n- What to do: mend the cause, then run oa-alert test {channel}; all texts: oa-alert list --all"
            ),
        ),
    };
    alert(channel, Kind::Problem, Severity::Critical, title, &text)
}

/// It takes messages again.
pub(super) fn works_again(channel: &str, lasted: std::time::Duration, policy: &Policy) -> Alert {
    let lasted = human_duration(lasted, policy.locale);
    let (title, text) = match policy.locale {
        Locale::Zh => (
            format!("【恢复】告警通道 {channel} 恢复正常"),
            format!("- 距首次放弃告警 {lasted}"),
        ),
        Locale::En => (
            format!("[RECOVERED] alert channel {channel} works again"),
            format!("- {lasted} after it was told that alerts were given up"),
        ),
    };
    alert(channel, Kind::Recovery, Severity::Info, title, &text)
}

fn alert(channel: &str, kind: Kind, severity: Severity, title: String, text: &str) -> Alert {
    Alert {
        id: Uuid::now_v7(),
        fingerprint: fingerprint(channel),
        rule: RULE.to_owned(),
        task: None,
        run_id: None,
        severity,
        kind,
        body: format!("**{title}**\n\n{text}\n"),
        title,
        created_at: Utc::now(),
    }
}
