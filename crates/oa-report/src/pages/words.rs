//! The names of things, in both languages.

use std::time::Duration;

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use chrono_tz::Tz;
use maud::{Markup, html};
use oa_core::app::output::human_duration;
use oa_core::base::units::Bytes;

use crate::lang::Lang;
use crate::queries::health::{Health, Reason, State, TaskHealth};
use crate::queries::watch::Fault;
use crate::shell::quoted;

impl Lang {
    pub(crate) fn status(self, status: &str) -> &str {
        let (zh, en) = match status {
            "running" => ("运行中", "running"),
            "retrying" => ("重试中", "retrying"),
            "success" => ("成功", "success"),
            "partial" => ("不完整", "partial"),
            "failed" => ("失败", "failed"),
            "timeout" => ("超时", "timeout"),
            "skipped" => ("跳过", "skipped"),
            "abandoned" => ("中断", "abandoned"),
            other => return other,
        };
        self.say(zh, en)
    }

    /// Who started a run.
    pub(crate) fn trigger(self, trigger: &str) -> &str {
        let (zh, en) = match trigger {
            "due" => ("按排期", "as scheduled"),
            "cron" => ("cron", "cron"),
            "manual" => ("手动", "by hand"),
            "backfill" => ("补采", "backfill"),
            other => return other,
        };
        self.say(zh, en)
    }

    /// How a request for something stands.
    pub(crate) fn request_state(self, state: &str) -> &str {
        let (zh, en) = match state {
            "open" => ("等待执行（一分钟内）", "waits, a minute at most"),
            "taken" => ("执行中", "under way"),
            "done" => ("已完成", "done"),
            "failed" => ("未成功", "failed"),
            "expired" => ("无人执行", "nobody carried it out"),
            other => return other,
        };
        self.say(zh, en)
    }

    pub(crate) fn health(self, health: Health) -> &'static str {
        match health {
            Health::Healthy => self.say("正常", "healthy"),
            Health::Warning => self.say("注意", "warning"),
            Health::Critical => self.say("故障", "critical"),
        }
    }

    pub(crate) fn state(self, state: State) -> &'static str {
        match state {
            State::Ok => self.say("正常", "ok"),
            State::Late => self.say("未按时运行", "late"),
            State::Running => self.say("运行中", "running"),
            State::Failed => self.say("失败", "failed"),
            State::Partial => self.say("不完整", "partial"),
            State::Stale => self.say("数据陈旧", "stale"),
            State::Paused => self.say("已静默", "paused"),
            State::Unknown => self.say("从未运行", "unknown"),
        }
    }

    /// The state of a source's day.
    pub(crate) fn day_state(self, state: &str) -> &str {
        let (zh, en) = match state {
            "pending" => ("未到时间", "pending"),
            "complete" => ("完整", "complete"),
            "partial" => ("不完整", "partial"),
            "stale" => ("与前日相同", "stale"),
            "failed" => ("失败", "failed"),
            "missing" => ("未采集", "missing"),
            "unfetchable" => ("无法补采", "unfetchable"),
            "skipped" => ("跳过", "skipped"),
            other => return other,
        };
        self.say(zh, en)
    }

    /// Why a slot was closed without a run; a site's own words stay as they are.
    pub(crate) fn slot_reason(self, reason: &str) -> &str {
        let zh = match reason {
            "nothing started it" => "没有任何程序启动它",
            "a later one of its day stands for it" => "同一天较晚的一次代替了它",
            "its runs were killed three times" => "它的运行被强行结束三次",
            "it was too long ago (catch_up_age)" => "时间太久，不再补（catch_up_age）",
            "only the latest is made up for (catch_up)" => "只补最近一次（catch_up）",
            "too many were missed (catch_up_limit)" => "错过太多，只补一部分（catch_up_limit）",
            "the task is run no more: it was disabled or forgotten" => "任务已停用",
            other => other,
        };
        self.say(zh, reason)
    }

    /// What is wrong with the watching itself, and what to do.
    pub(crate) fn watching(self, fault: Fault<'_>) -> (&'static str, String) {
        let cron = |line: &str| {
            self.say(
                format!("检查 cron 是否在运行、crontab 中是否有 {line}"),
                format!("check that cron runs and that the crontab has {line}"),
            )
        };
        match fault {
            Fault::Never => (
                self.say(
                    "告警检查从未运行，出了问题无人得知",
                    "No check has ever run: nobody hears of what goes wrong",
                ),
                cron("oa-alert check"),
            ),
            Fault::NoCheck(_) => (
                self.say(
                    "告警检查已停止，出了问题无人得知",
                    "Checks have stopped: nobody hears of what goes wrong",
                ),
                cron("oa-alert check"),
            ),
            Fault::NoDue(_) => (
                self.say("到期任务无人启动", "Nothing starts the runs that are due"),
                cron("oa-crawl run --due"),
            ),
            Fault::NoHeartbeat(_) => (
                self.say(
                    "外部心跳没有送达，本机停机时无人得知",
                    "The heartbeat does not get through: nobody hears when this machine is down",
                ),
                self.say(
                    "检查 [alert] heartbeat_url 的地址和本机网络，然后执行 oa-alert check".to_owned(),
                    "check heartbeat_url in [alert] and this machine's network, then run oa-alert check".to_owned(),
                ),
            ),
            Fault::Unfinished(_) => (
                self.say(
                    "告警检查有启动、没有跑完，出了问题可能无人得知",
                    "Checks are started and do not come to their end: perhaps nobody hears of what goes wrong",
                ),
                self.say(
                    "手动执行 oa-alert check，看它在哪里停住；检查 crontab 中的 timeout（systemd 下是 systemctl cat oa-check.service 中的 TimeoutStartSec）和本机内存".to_owned(),
                    "run oa-alert check by hand and see where it stops; look for a timeout in the crontab (with systemd: TimeoutStartSec in systemctl cat oa-check.service), and at this machine's memory".to_owned(),
                ),
            ),
            Fault::Failing(_) => (
                self.say("告警没有送达", "Alerts do not reach people"),
                self.say(
                    "按详情修复后执行 oa-alert test".to_owned(),
                    "fix what the details say, then run oa-alert test".to_owned(),
                ),
            ),
        }
    }

    pub(crate) fn severity(self, severity: &str) -> &'static str {
        match severity {
            "critical" => self.say("故障", "critical"),
            "warning" => self.say("注意", "warning"),
            _ => self.say("消息", "info"),
        }
    }

    pub(crate) fn reason(self, reason: Reason, task: &TaskHealth) -> String {
        let TaskHealth {
            success,
            runs,
            consecutive_failures,
            ..
        } = task;
        match reason {
            Reason::SuccessRate => self.say(
                format!("24 小时内 {runs} 次运行只有 {success} 次成功"),
                format!("{success} of {runs} runs succeeded in 24 hours"),
            ),
            Reason::LastRun => self.say(
                "最近一次运行没有成功".to_owned(),
                "the last run did not succeed".to_owned(),
            ),
            Reason::Failing => self.say(
                format!("连续失败 {consecutive_failures} 次"),
                format!("{consecutive_failures} failures in a row"),
            ),
            Reason::Late => {
                let late = self.span(task.late_seconds.unwrap_or(0) as f64);
                self.say(
                    format!("应运行而未运行，已晚 {late}"),
                    format!("due and not started, {late} late"),
                )
            }
            Reason::NeverRun => self.say("从未运行".to_owned(), "has never run".to_owned()),
            Reason::Stale => self.say(
                "数据不是最新的".to_owned(),
                "its data are out of date".to_owned(),
            ),
            Reason::Incident => self.say(
                "有未恢复的告警".to_owned(),
                "an incident of it is open".to_owned(),
            ),
        }
    }

    pub(crate) fn remedy(self, reason: Reason, task: &TaskHealth) -> String {
        let name = quoted(&task.name);
        match reason {
            Reason::SuccessRate | Reason::LastRun | Reason::Failing => {
                let look = match task.last_run_id {
                    Some(run) => format!("oa-report logs --run {run}"),
                    None => format!("oa-report logs --task {name}"),
                };
                match again(task) {
                    Some(again) => self.say(
                        format!("用 {look} 查看原因和程序输出；处理后执行 {again}"),
                        format!("see its cause and output with {look}; once that is fixed, run {again}"),
                    ),
                    None => self.say(
                        format!("用 {look} 查看原因和程序输出；处理后再次执行启动 {name} 的那条 {} 命令（crontab 或脚本中）", task.tool),
                        format!("see its cause and output with {look}; once that is fixed, run the {} line that starts {name} (crontab or script) again", task.tool),
                    ),
                }
            }
            Reason::Late | Reason::NeverRun => self.say(
                format!("检查 cron 是否在运行、crontab 中是否有 oa-crawl run --due；不再需要则执行 oa-crawl disable {name}（数据源已删除或改名：oa-crawl forget {name}）"),
                format!("check that cron runs and that the crontab has oa-crawl run --due; if you do not need it any more: oa-crawl disable {name} (for a source that was removed or renamed: oa-crawl forget {name})"),
            ),
            Reason::Stale => self.say(
                format!("到来源网站看今天的数据是否已发布；不再需要则执行 oa-crawl disable {name}"),
                format!("check on the site whether today's data are published; if you do not need it any more: oa-crawl disable {name}"),
            ),
            Reason::Incident => self.say(
                "用 oa-alert list 查看告警内容".to_owned(),
                "see what was reported with oa-alert list".to_owned(),
            ),
        }
    }

    pub(crate) fn span(self, seconds: f64) -> String {
        if seconds > 0.0 && seconds < 10.0 {
            return format!("{seconds:.1}{}", self.say(" 秒", " s"));
        }
        human_duration(Duration::from_secs_f64(seconds.max(0.0)), self.0)
    }

    /// A span of seconds in one unit, for narrow places.
    pub(crate) fn short(self, seconds: f64) -> String {
        let seconds = seconds.max(0.0);
        let (value, unit) = match seconds {
            s if s < 60.0 => (s, self.say("秒", "s")),
            s if s < 3600.0 => (s / 60.0, self.say("分钟", "min")),
            s if s < 48.0 * 3600.0 => (s / 3600.0, self.say("小时", "h")),
            s => (s / 86400.0, self.say("天", "d")),
        };
        format!("{:.0} {unit}", value.floor())
    }

    /// How long ago, or how far ahead.
    pub(crate) fn ago(self, off: TimeDelta) -> String {
        let text = self.short(off.as_seconds_f64().abs());
        if off >= TimeDelta::zero() {
            self.say(format!("{text}前"), format!("{text} ago"))
        } else {
            self.say(format!("{text}后"), format!("in {text}"))
        }
    }

    /// When a task that has never run is due for the first time, in local time, seen from `now`.
    pub(crate) fn first_due(self, at: DateTime<Tz>, now: DateTime<Utc>) -> String {
        let days = at.date_naive() - now.with_timezone(&at.timezone()).date_naive();
        let day = match days.num_days() {
            0 => self.say("今天", "today").to_owned(),
            1 => self.say("明天", "tomorrow").to_owned(),
            2..=6 => self.say(
                ["周一", "周二", "周三", "周四", "周五", "周六", "周日"],
                [
                    "Monday",
                    "Tuesday",
                    "Wednesday",
                    "Thursday",
                    "Friday",
                    "Saturday",
                    "Sunday",
                ],
            )[at.weekday().num_days_from_monday() as usize]
                .to_owned(),
            _ => at.format("%m-%d").to_string(),
        };
        let time = at.format("%H:%M");
        self.say(
            format!("首次运行：{day} {time}"),
            format!("first due {day} {time}"),
        )
    }

    pub(crate) fn size(self, bytes: i64) -> String {
        Bytes(bytes.unsigned_abs())
            .to_string()
            .replace("bytes", self.say("字节", "bytes"))
    }
}

/// The command that runs a task once more; `None` where only the line that started it knows that.
pub(crate) fn again(task: &TaskHealth) -> Option<String> {
    let fixed = match (task.tool.as_str(), task.name.as_str()) {
        ("oa-backup", "backup-full") => "oa-backup full",
        ("oa-backup", "backup-incremental") => "oa-backup incremental",
        ("oa-backup", "backup-stream") => "oa-backup incremental",
        ("oa-backup", "backup-verify") => "oa-backup verify",
        ("oa-backup", "backup-prune") => "oa-backup prune",
        ("oa-backup", "backup-copy") => "oa-backup copy",
        ("oa-restore", "restore-drill") => "oa-restore drill",
        ("oa-report", _) => "oa-report daily --send",
        ("oa-alert", _) => "oa-alert check",
        ("oa-crawl", name) if task.collects => {
            return Some(format!("oa-crawl run {}", quoted(name)));
        }
        _ => return None,
    };
    Some(fixed.to_owned())
}

/// A number with its thousands apart.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Times as a page shows them, seen from `now`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) now: DateTime<Utc>,
    pub(crate) zone: Tz,
    pub(crate) lang: Lang,
}

impl Clock {
    /// Day and time, without the year when it is this one.
    pub(crate) fn at(self, at: DateTime<Utc>) -> String {
        let local = at.with_timezone(&self.zone);
        let now = self.now.with_timezone(&self.zone);
        let form = if local.date_naive() == now.date_naive() {
            "%H:%M:%S"
        } else if local.format("%Y").to_string() == now.format("%Y").to_string() {
            "%m-%d %H:%M"
        } else {
            "%Y-%m-%d %H:%M"
        };
        local.format(form).to_string()
    }

    /// Day and time with its seconds, for what follows within a minute.
    pub(crate) fn to_the_second(self, at: DateTime<Utc>) -> Markup {
        let text = at.with_timezone(&self.zone).format("%m-%d %H:%M:%S");
        html! { time datetime=(at.to_rfc3339()) title=(self.in_full(at)) { (text) } }
    }

    pub(crate) fn in_full(self, at: DateTime<Utc>) -> String {
        at.with_timezone(&self.zone)
            .format("%Y-%m-%d %H:%M:%S %Z")
            .to_string()
    }

    /// Day and time as an element that programs can read.
    pub(crate) fn time(self, at: DateTime<Utc>) -> Markup {
        html! { time datetime=(at.to_rfc3339()) title=(self.in_full(at)) { (self.at(at)) } }
    }

    /// How long ago, or how far ahead.
    pub(crate) fn relative(self, at: DateTime<Utc>) -> Markup {
        let text = self.lang.ago(self.now - at);
        html! { time class="ago" datetime=(at.to_rfc3339()) title=(self.in_full(at)) { (text) } }
    }

    /// The same where there may be none.
    pub(crate) fn relative_or(self, at: Option<DateTime<Utc>>, none: &str) -> Markup {
        match at {
            Some(at) => self.relative(at),
            None => html! { span.faint { (none) } },
        }
    }
}

#[cfg(test)]
mod remedies;

#[cfg(test)]
mod tests {
    use oa_core::app::config::Locale;

    use super::*;

    #[test]
    fn numbers_and_spans_are_short_and_readable() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"],
            [0, 999, 1000, 1_234_567]
                .map(count)
                .each_ref()
                .map(String::as_str)
        );
        let (zh, en) = (Lang(Locale::Zh), Lang(Locale::En));
        assert_eq!(
            (zh.short(59.9), en.short(7199.0), en.short(3.0 * 86400.0)),
            ("59 秒".to_owned(), "1 h".to_owned(), "3 d".to_owned())
        );
        let reason = "nothing started it";
        assert_eq!(zh.slot_reason(reason), "没有任何程序启动它");
        assert_eq!(
            (en.slot_reason(reason), zh.slot_reason("HTTP 502")),
            (reason, "HTTP 502")
        );
        let friday: DateTime<Utc> = "2026-11-27T12:00:00Z".parse().unwrap();
        let due =
            |days: i64| (friday + TimeDelta::days(days)).with_timezone(&chrono_tz::Asia::Shanghai);
        assert_eq!(zh.first_due(due(3), friday), "首次运行：周一 20:00");
        assert_eq!(en.first_due(due(1), friday), "first due tomorrow 20:00");
        assert_eq!(en.first_due(due(7), friday), "first due 12-04 20:00");
        assert_eq!(
            (zh.span(1.24), zh.span(75.0)),
            ("1.2 秒".to_owned(), "1 分钟 15 秒".to_owned())
        );
    }
}
