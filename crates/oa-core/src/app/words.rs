//! Words for states, in the configured language. Whatever is stored, or read by programs (JSON, CSV), stays English.

use std::sync::OnceLock;

use crate::app::config::Locale;

/// The language of tables, once a configuration has said it; English before that.
static LOCALE: OnceLock<Locale> = OnceLock::new();

/// Tables are in this language from now on.
pub fn speak(locale: Locale) {
    // A program reads one configuration.
    let _ = LOCALE.set(locale);
}

/// The language of tables.
pub(super) fn locale() -> Locale {
    LOCALE.get().copied().unwrap_or(Locale::En)
}

/// A word of state; one that is not known stays as it is.
#[must_use]
pub fn state(word: &str, locale: Locale) -> &str {
    if locale == Locale::En {
        return word;
    }
    match word {
        "ok" | "healthy" => "正常",
        "success" => "成功",
        "complete" => "完整",
        "partial" => "不完整",
        "failed" | "FAILED" => "失败",
        "timeout" => "超时",
        "skipped" => "跳过",
        "abandoned" => "中断",
        "running" => "运行中",
        "retrying" => "重试中",
        "warning" => "注意",
        "critical" => "故障",
        "info" | "message" => "消息",
        "problem" => "告警",
        "recovery" => "恢复",
        "error" | "wrong" | "WRONG" => "错误",
        "misconfigured" => "配置有误",
        "late" => "未按时运行",
        "stale" => "数据陈旧",
        "unknown" => "未知",
        "missing" | "MISSING" => "缺失",
        "unfetchable" => "无法补采",
        "pending" => "未到时间",
        "waiting" => "等待",
        "sent" => "已发送",
        "refused" => "被拒绝",
        "given up" => "已放弃",
        "enabled" => "已启用",
        "off" => "未启用",
        "broken" => "无法使用",
        "none" | "not checked" => "未校验",
        "structure" => "仅结构",
        "data" => "全部读回",
        "damaged" => "损坏",
        "SERVER DAMAGED" => "服务器数据页损坏",
        "unrestorable" | "UNRESTORABLE" => "无法恢复",
        "passed" => "通过",
        "done" => "完成",
        "resolved" => "已恢复",
        "loaded" => "已载入",
        "proven" => "已证明",
        "up to date" => "已是最新",
        "in place" => "已就位",
        "rolled back" => "已回退",
        other => other,
    }
}
