//! The alerts about a channel itself. They go to the other channels.

use chrono::Utc;
use oa_core::alerts::{Alert, Kind, LONGEST_EXCERPT, Policy, Severity, excerpt, human_duration};
use oa_core::config::Locale;
use oa_core::secrets::redact;
use uuid::Uuid;

/// The rule under which they are stored.
const RULE: &str = "channel_refuses";
/// The rule of messages about a message that a channel did not take.
pub(super) const REFUSED: &str = "message_refused";
/// Most titles that are named.
const NAMED: usize = 10;

/// The trouble of one channel. Alerts with this fingerprint are not sent to that channel.
pub(super) fn fingerprint(channel: &str) -> String {
    format!("channel:{channel}")
}

/// A channel has not taken these alerts for a day.
pub(super) fn gave_up(channel: &str, titles: &[String], error: &str, policy: &Policy) -> Alert {
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
                "- 原因：通道连续 24 小时拒收（{error}）\n- 影响：只看该通道的人没有收到：\n{named}\n- 处理：按原因修复后执行 oa-alert test {channel}；全部内容见 oa-alert list --all --format json"
            ),
        ),
        Locale::En => (
            format!("[FAILURE] alert channel {channel} gave up {count} alert(s)"),
            format!(
                "- Cause: the channel refused them for 24 hours ({error})\n- Effect: who reads only that channel has not got:\n{named}\n- What to do: mend the cause, then run oa-alert test {channel}; all texts: oa-alert list --all --format json"
            ),
        ),
    };
    alert(channel, Kind::Problem, Severity::Critical, title, &text)
}

/// A channel must be set up anew: it refuses whatever it is sent.
pub(super) fn refuses(channel: &str, error: &str, policy: &Policy) -> Alert {
    let error = excerpt(&redact(error), LONGEST_EXCERPT);
    let (title, text) = match policy.locale {
        Locale::Zh => (
            format!("【故障】告警通道 {channel} 拒收消息"),
            format!(
                "- 原因：{error}\n- 影响：只看该通道的人收不到告警；继续重试，24 小时后放弃\n- 处理：按原因修复后执行 oa-alert test {channel}"
            ),
        ),
        Locale::En => (
            format!("[FAILURE] alert channel {channel} refuses messages"),
            format!(
                "- Cause: {error}\n- Effect: who reads only that channel gets no alerts; they are retried, and given up after 24 hours\n- What to do: mend the cause, then run oa-alert test {channel}"
            ),
        ),
    };
    alert(channel, Kind::Problem, Severity::Critical, title, &text)
}

/// One message that a channel does not take although it takes others. All channels get this, that one too: so its title says nothing
/// of what was refused.
pub(super) fn refused(channel: &str, refused: &Alert, error: &str, policy: &Policy) -> Alert {
    let error = excerpt(&redact(error), LONGEST_EXCERPT);
    let (named, id) = (&refused.title, refused.id);
    let (title, text) = match policy.locale {
        Locale::Zh => (
            format!("【警告】告警通道 {channel} 拒收了 1 条告警的内容"),
            format!(
                "- 告警：{named}\n- 原因：{error}\n- 影响：该通道没有收到这条告警\n- 处理：全文见网页或 oa-alert list --all --format json（编号 {id}）"
            ),
        ),
        Locale::En => (
            format!("[WARNING] alert channel {channel} did not take one alert for what is in it"),
            format!(
                "- Alert: {named}\n- Cause: {error}\n- Effect: this channel has not got that alert\n- What to do: read it on the page, or by oa-alert list --all --format json (id {id})"
            ),
        ),
    };
    let id = Uuid::now_v7();
    Alert {
        id,
        fingerprint: format!("{REFUSED}:{id}"),
        rule: REFUSED.to_owned(),
        task: refused.task.clone(),
        ..alert(
            channel,
            Kind::Message,
            refused.severity.max(Severity::Warning),
            title,
            &text,
        )
    }
}

/// It takes messages again, and has not got these.
pub(super) fn works_again(
    channel: &str,
    lasted: std::time::Duration,
    lost: &[String],
    policy: &Policy,
) -> Alert {
    let lasted = human_duration(lasted, policy.locale);
    let (title, text) = match policy.locale {
        Locale::Zh => (
            format!("【恢复】告警通道 {channel} 恢复正常"),
            format!(
                "- 距首次{} {lasted}{}",
                if lost.is_empty() {
                    "报告"
                } else {
                    "放弃告警"
                },
                not_got(lost, "期间该通道没有收到")
            ),
        ),
        Locale::En => (
            format!("[RECOVERED] alert channel {channel} works again"),
            format!(
                "- {lasted} after it was {}{}",
                if lost.is_empty() {
                    "first reported"
                } else {
                    "told that alerts were given up"
                },
                not_got(lost, "This channel has not got")
            ),
        ),
    };
    alert(channel, Kind::Recovery, Severity::Info, title, &text)
}

fn not_got(titles: &[String], what: &str) -> String {
    if titles.is_empty() {
        return String::new();
    }
    let named: Vec<String> = titles
        .iter()
        .take(NAMED)
        .map(|t| format!("\n  - {t}"))
        .collect();
    let more = if titles.len() > NAMED {
        "\n  - …"
    } else {
        ""
    };
    format!("\n- {what} ({}):{}{more}", titles.len(), named.concat())
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
