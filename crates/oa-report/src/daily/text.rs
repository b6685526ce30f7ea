//! The report as people read it on a phone: what is wrong comes first.

use std::fmt::Write as _;
use std::time::Duration;

use chrono::Datelike;
use chrono_tz::Tz;
use oa_core::app::config::Locale;
use oa_core::app::output::human_duration;
use oa_core::base::text::printable;
use oa_core::base::units::Bytes;
use oa_wording::excerpt;

use super::{Daily, Task, backups};

pub(crate) fn title(daily: &Daily, locale: Locale, late: bool) -> String {
    let (day, late_mark) = (
        daily.day,
        if late {
            ["（补发）", " (late)"]
        } else {
            ["", ""]
        },
    );
    match locale {
        Locale::Zh => format!("【日报】{day}{}", late_mark[0]),
        Locale::En => format!("[DAILY] {day}{}", late_mark[1]),
    }
}

/// The report as Markdown in the small subset that every robot understands. Ends with a line end.
pub(crate) fn to_markdown(daily: &Daily, locale: Locale, zone: Tz) -> String {
    let zh = locale == Locale::Zh;
    let say = |zh_text: &str, en: &str| {
        if zh {
            zh_text.to_owned()
        } else {
            en.to_owned()
        }
    };
    let mut out = String::new();
    let mut line = |text: String| {
        let _ = writeln!(out, "{}", printable(&text));
    };
    let local = |at: chrono::DateTime<chrono::Utc>| {
        at.with_timezone(&zone).format("%m-%d %H:%M").to_string()
    };
    line(if zh {
        format!("统计 {} 至 {}", local(daily.from), local(daily.until))
    } else {
        format!("From {} to {}", local(daily.from), local(daily.until))
    });
    line(String::new());
    line(total(daily, zh));
    if !daily.open.is_empty() {
        line(String::new());
        line(say("**未恢复的故障**", "**Open incidents**"));
        for open in &daily.open {
            let since = local(open.since);
            let acknowledged = open
                .acknowledged_by
                .as_ref()
                .map_or_else(String::new, |by| {
                    if zh {
                        format!("，{by} 处理中")
                    } else {
                        format!(", acknowledged by {by}")
                    }
                });
            line(if zh {
                format!("- {}（始于 {since}{acknowledged}）", open.title)
            } else {
                format!("- {} (since {since}{acknowledged})", open.title)
            });
        }
    }
    let (well, unwell): (Vec<&Task>, Vec<&Task>) = daily.tasks.iter().partition(|t| t.is_well());
    for (tasks, heading) in [
        (unwell, say("**有失败的任务**", "**Tasks with failures**")),
        (well, say("**正常的任务**", "**Tasks without failures**")),
    ] {
        if tasks.is_empty() {
            continue;
        }
        line(String::new());
        line(heading);
        for task in tasks {
            line(task_line(task, locale));
        }
    }
    if !daily.without_run.is_empty() {
        line(String::new());
        let names = daily.without_run.join(if zh { "、" } else { ", " });
        line(if zh {
            format!("没有运行：{names}（不在排期内属正常）")
        } else {
            format!("Did not run: {names} (which is right when they were not due)")
        });
    }
    line(String::new());
    for text in backups::lines(&daily.backups, locale, zone) {
        line(text);
    }
    line(storage(daily, zh));
    line(today(daily, zh));
    out
}

fn total(daily: &Daily, zh: bool) -> String {
    let sum = |of: fn(&Task) -> u64| daily.tasks.iter().map(of).sum::<u64>();
    let (runs, success) = (sum(|t| t.runs), sum(|t| t.success));
    if runs == 0 {
        return if zh {
            "**没有任何运行**"
        } else {
            "**Nothing ran at all**"
        }
        .to_owned();
    }
    // Rounded down: 99.96 % is not 100 %.
    let rate = (success as f64 / runs as f64 * 1000.0).floor() / 10.0;
    let (partial, failed) = (sum(|t| t.partial), sum(|t| t.failed));
    let (new, changed, rejected) = (sum(|t| t.inserted), sum(|t| t.updated), sum(|t| t.rejected));
    if zh {
        format!(
            "**总体**：运行 {runs} 次，成功 {success} 次（{rate}%），不完整 {partial} 次，失败 {failed} 次；新增 {new} 条，更新 {changed} 条，拒绝 {rejected} 条"
        )
    } else {
        format!(
            "**In all**: {runs} runs, {success} successes ({rate} %), {partial} partial, {failed} failed; {new} rows new, {changed} changed, {rejected} records rejected"
        )
    }
}

fn task_line(task: &Task, locale: Locale) -> String {
    let zh = locale == Locale::Zh;
    let span = |seconds: f64| human_duration(Duration::from_secs_f64(seconds.max(0.0)), locale);
    let mut parts = vec![if zh {
        format!("{}/{} 次成功", task.success, task.runs)
    } else {
        format!("{} of {} runs succeeded", task.success, task.runs)
    }];
    let mut add = |condition: bool, zh_text: String, en: String| {
        if condition {
            parts.push(if zh { zh_text } else { en });
        }
    };
    add(
        task.inserted > 0,
        format!("新增 {}", task.inserted),
        format!("{} new", task.inserted),
    );
    add(
        task.updated > 0,
        format!("更新 {}", task.updated),
        format!("{} changed", task.updated),
    );
    add(
        task.rejected > 0,
        format!("拒绝 {}", task.rejected),
        format!("{} rejected", task.rejected),
    );
    if let Some(gap) = task.worst_gap_seconds {
        add(
            true,
            format!("最长间隔 {}", span(gap)),
            format!("worst gap {}", span(gap)),
        );
    }
    let slowest = span(task.slowest_seconds);
    add(
        true,
        format!("最慢 {slowest}"),
        format!("slowest {slowest}"),
    );
    let mut text = format!("- {}：{}", task.title, parts.join("，"));
    if !zh {
        text = format!("- {}: {}", task.title, parts.join(", "));
    }
    if let Some(error) = task.last_error.as_ref().filter(|_| !task.is_well()) {
        let last = if zh { "；最后一次：" } else { "; last: " };
        let _ = write!(text, "{last}{}", excerpt(error, 120));
    }
    text
}

fn storage(daily: &Daily, zh: bool) -> String {
    let size = Bytes(daily.database_bytes);
    let grown = daily.database_bytes_before.map(|before| {
        let sign = if daily.database_bytes >= before {
            "+"
        } else {
            "-"
        };
        format!("{sign}{}", Bytes(daily.database_bytes.abs_diff(before)))
    });
    // A month ahead, where it grows at all.
    let forecast = daily
        .database_growth_per_day
        .filter(|rate| *rate > 0.0)
        .map_or_else(String::new, |rate| {
            let then = Bytes(daily.database_bytes + (rate * 30.0) as u64);
            if zh {
                format!("；按近期增长，30 天后约 {then}")
            } else {
                format!("; in 30 days about {then} at the present rate")
            }
        });
    let now = match (zh, grown) {
        (true, Some(grown)) => format!("**存储**：数据库 {size}（较上次日报 {grown}）"),
        (true, None) => format!("**存储**：数据库 {size}"),
        (false, Some(grown)) => {
            format!("**Storage**: the database has {size} ({grown} since the last report)")
        }
        (false, None) => format!("**Storage**: the database has {size}"),
    };
    now + &forecast
}

fn today(daily: &Daily, zh: bool) -> String {
    const DAYS: [&str; 7] = ["一", "二", "三", "四", "五", "六", "日"];
    let weekday = DAYS[daily.day.weekday().num_days_from_monday() as usize];
    let today = daily.today;
    let what = match (today.trading, today.night, zh) {
        (true, true, true) => "交易日，有夜盘",
        (true, false, true) => "交易日，无夜盘",
        (false, _, true) => "休市",
        (true, true, false) => "a trading day with a night session",
        (true, false, false) => "a trading day without a night session",
        (false, _, false) => "no trading day",
    };
    let guess = match (today.guessed, zh) {
        (false, _) => "",
        (true, true) => "（日历未含本年，按周一至周五推定，请更新日历）",
        (true, false) => " (guessed from the weekday: the calendar does not know this year)",
    };
    if zh {
        format!("**今日**：周{weekday}，{what}{guess}")
    } else {
        format!("**Today**: {}, {what}{guess}", daily.day.format("%A"))
    }
}
