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

use super::{Daily, Lack, OpenIncident, Task, backups};
use crate::lang::Lang;

/// So many names stand in a title.
const NAMED: usize = 3;

pub(crate) fn title(daily: &Daily, locale: Locale, late: bool) -> String {
    let lang = Lang::from(locale);
    let (day, verdict) = (daily.day, judged(daily, lang));
    let late = match late {
        true => lang.say("（补发）", " (late)"),
        false => "",
    };
    lang.say(
        format!("【日报】{day} {verdict}{late}"),
        format!("[DAILY] {day} {verdict}{late}"),
    )
}

/// What a report says in one line.
fn judged(daily: &Daily, lang: Lang) -> String {
    let verdict = &daily.verdict;
    let mut wrong = Vec::new();
    let lacking = verdict.lacking.len();
    if lacking > 0 {
        let names: Vec<String> = verdict
            .lacking
            .iter()
            .take(NAMED)
            .map(|l| excerpt(&l.title, 40))
            .collect();
        let names = names.join(lang.say("、", ", "));
        let more = if lacking > NAMED {
            lang.say(" 等", " and others")
        } else {
            ""
        };
        let how = lacking_by_state(&verdict.lacking, lang);
        wrong.push(lang.say(
            format!("{how}：{names}{more}"),
            format!("{how}: {names}{more}"),
        ));
    }
    if daily.is_unwatched() {
        wrong.push(lang.say("无人值守", "nobody watched").to_owned());
    }
    if !wrong.is_empty() {
        return format!("❌ {}", wrong.join(lang.say("；", "; ")));
    }
    let n = verdict.expected;
    let mut all = match n {
        0 => lang.say("无应采任务", "nothing was due").to_owned(),
        _ => lang.say(
            format!("{n} 项应采 {n} 项，完整"),
            format!("{n} of {n} complete"),
        ),
    };
    let lost = daily.tasks.iter().filter_map(|t| t.not_stored.as_ref());
    let lost: u64 = lost.map(|l| l.records).sum();
    if lost > 0 {
        all += &lang.say(
            format!("，但 {lost} 条记录未入库"),
            format!(" but for {lost} records that were not stored"),
        );
    }
    match daily.open.len() {
        0 if n == 0 => all,
        0 => format!("✅ {all}"),
        // Also on a day without anything due: a database is down at a weekend too.
        open => lang.say(
            format!("⚠️ {all}；{open} 个故障未恢复"),
            format!("⚠️ {all}; {open} open incidents"),
        ),
    }
}

/// How many of what lacks something failed, did not run, and so on.
fn lacking_by_state(lacking: &[Lack], lang: Lang) -> String {
    let words = [
        ("failed", "失败", "failed"),
        ("missing", "未运行", "not run"),
        ("partial", "不完整", "partial"),
        ("stale", "未更新", "stale"),
        ("unfetchable", "无法补采", "unfetchable"),
    ];
    let counts = words.map(|(state, zh, en)| {
        let count = lacking.iter().filter(|l| l.state == state).count();
        (count, format!("{count} {}", lang.say(zh, en)))
    });
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts.map(|(_, text)| text).collect();
    counts.join(lang.say(" ", ", "))
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
    if daily.past {
        line(say(
            "（补看往日：下面是当时的情况，其中备份和存储是现在的）",
            "(of a day that is over: as it was then, but for backups and storage, which are as they are now)",
        ));
    }
    line(String::new());
    for text in verdict(daily, Lang::from(locale), zone) {
        line(text);
    }
    if !daily.past && !daily.to_do.is_empty() {
        line(String::new());
        line(say("**今天要做**", "**To do today**"));
        for text in to_do(daily, zh) {
            line(text);
        }
    }
    line(String::new());
    line(total(daily, zh));
    if !daily.open.is_empty() {
        line(String::new());
        line(say("**未恢复的故障**", "**Open incidents**"));
        // The worst of them: a robot's message has no room for hundreds, and what follows is news, too.
        let mut open: Vec<&OpenIncident> = daily.open.iter().collect();
        open.sort_by_key(|o| std::cmp::Reverse(o.severity));
        for open in open.into_iter().take(OPEN) {
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
        if let Some(more) = daily.open.len().checked_sub(OPEN).filter(|n| *n > 0) {
            line(if zh {
                format!("- 另有 {more} 个，见网页或 oa-alert list --open")
            } else {
                format!("- and {more} more: the page, or oa-alert list --open")
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
    if !daily.verdict.not_due.is_empty() {
        line(String::new());
        let names = daily.verdict.not_due.join(if zh { "、" } else { ", " });
        line(if zh {
            format!("未到排期：{names}")
        } else {
            format!("Not due: {names}")
        });
    }
    if !daily.verdict.under_way.is_empty() {
        line(String::new());
        let names = daily.verdict.under_way.join(if zh { "、" } else { ", " });
        line(if zh {
            format!("尚未结束，计入下次日报：{names}")
        } else {
            format!("Not over yet, in the next report: {names}")
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

/// So many open incidents are listed.
const OPEN: usize = 20;

/// So many things to do are listed.
const TO_DO: usize = 8;

/// What to do, numbered: the first is the most urgent.
fn to_do(daily: &Daily, zh: bool) -> Vec<String> {
    let mut lines: Vec<String> = daily
        .to_do
        .iter()
        .take(TO_DO)
        .enumerate()
        .map(|(n, what)| {
            let command = what.command.as_deref().unwrap_or_default();
            let colon = if zh { "：" } else { ": " };
            format!("- {}. {}{colon}{command}", n + 1, what.about)
        })
        .collect();
    let more = daily.to_do.len().saturating_sub(TO_DO);
    if more > 0 {
        lines.push(if zh {
            format!("- 另有 {more} 项，见网页或 oa-alert list --open、oa-report days")
        } else {
            format!("- and {more} more: the page, or oa-alert list --open and oa-report days")
        });
    }
    lines
}

/// So many older holes are listed.
const OLDER: usize = 5;

/// What should have been collected, what is lacking with the command that fills it, and whether somebody watched.
fn verdict(daily: &Daily, lang: Lang, zone: Tz) -> Vec<String> {
    let local = |at: chrono::DateTime<chrono::Utc>| {
        at.with_timezone(&zone).format("%m-%d %H:%M").to_string()
    };
    let (now, was, week) = (&daily.verdict, &daily.previous, &daily.week_ago);
    let mut out = vec![lang.say(
        format!(
            "**应采**：{} 项，完整 {} 项，缺 {} 项（前一日：{} 项，完整 {} 项；运行 {} 次，成功 {} 次）",
            now.expected, now.complete, now.lacking.len(), was.expected, was.complete, was.runs, was.success
        ),
        format!(
            "**Due**: {} tasks, {} complete, {} lacking (the day before: {}, {} complete; {} runs, {} successes)",
            now.expected, now.complete, now.lacking.len(), was.expected, was.complete, was.runs, was.success
        ),
    )];
    if week.expected > 0 || week.runs > 0 {
        out.push(lang.say(
            format!(
                "**上周同日**：{} 项，完整 {} 项；运行 {} 次，成功 {} 次",
                week.expected, week.complete, week.runs, week.success
            ),
            format!(
                "**A week ago**: {} tasks, {} complete; {} runs, {} successes",
                week.expected, week.complete, week.runs, week.success
            ),
        ));
    }
    for lack in &now.lacking {
        out.push(lacking(lack, lang, zone));
    }
    out.extend(daily.tasks.iter().filter_map(|task| not_stored(task, lang)));
    for made_up in &now.made_up {
        let (title, n) = (&made_up.title, made_up.slots);
        out.push(lang.say(
            format!("- {title}：漏跑 {n} 次，已补"),
            format!("- {title}: {n} starts missed and made up for"),
        ));
    }
    if !daily.filled.is_empty() {
        out.push(String::new());
        out.push(lang.say("**已补齐**", "**Filled**").to_owned());
        for filled in &daily.filled {
            let (title, day, at) = (&filled.title, filled.day, local(filled.filled_at));
            out.push(lang.say(
                format!("- {title} {day}（{at} 补齐）"),
                format!("- {title} {day} (at {at})"),
            ));
        }
    }
    if !daily.before.is_empty() {
        out.push(String::new());
        out.push(
            lang.say("**此前仍缺**", "**Still lacking from before**")
                .to_owned(),
        );
        for hole in daily.before.iter().rev().take(OLDER) {
            let fill = hole.fill.as_deref().unwrap_or_default();
            let (title, state) = (&hole.title, lang.day_state(&hole.state));
            out.push(lang.say(
                format!("- {title}：{state} {} 天，补采：{fill}", hole.days),
                format!(
                    "- {title}: {} days {state}; to fill them: {fill}",
                    hole.days
                ),
            ));
        }
        if daily.before.len() > OLDER {
            let more = daily.before.len() - OLDER;
            out.push(lang.say(
                format!("- 还有 {more} 段，用 oa-report days 查看"),
                format!("- {more} more: see oa-report days"),
            ));
        }
    }
    if let Some(watched) = watched(daily, lang, zone) {
        out.extend([String::new(), watched]);
    }
    out
}

fn lacking(lack: &Lack, lang: Lang, zone: Tz) -> String {
    let mut text = format!("- {}", lack.title);
    if let Some(day) = lack.day {
        text += &format!(" {day}");
    }
    text += lang.say("：", ": ");
    text += lang.day_state(&lack.state);
    if lack.missed > 0 {
        text += &lang.say(
            format!("，应运行 {} 次，{} 次没有运行", lack.due, lack.missed),
            format!(
                ", due {} times, {} of them not started",
                lack.due, lack.missed
            ),
        );
    }
    if let Some(reason) = &lack.reason {
        let reason = lang.slot_reason(reason);
        text += &lang.say(
            format!("（{}）", excerpt(reason, 120)),
            format!(" ({})", excerpt(reason, 120)),
        );
    }
    match (lack.filled_at, &lack.fill) {
        (Some(at), _) => {
            let at = at.with_timezone(&zone).format("%m-%d %H:%M");
            text += &lang.say(format!("；已于 {at} 补齐"), format!("; filled at {at}"));
        }
        (None, Some(fill)) => {
            text += &lang.say(format!("；补采：{fill}"), format!("; to fill it: {fill}"));
        }
        (None, None) => {}
    }
    text
}

/// When cron last started what watches.
fn watched(daily: &Daily, lang: Lang, zone: Tz) -> Option<String> {
    let names = [
        ("check", "告警检查", "checks"),
        ("due", "到期运行", "due runs"),
    ];
    let mut parts = Vec::new();
    for (what, zh, en) in names {
        let Some(start) = daily.starts.iter().find(|s| s.what == what) else {
            if what == "check" && daily.lacks_checks() {
                let none = "两周内没有启动过告警检查，出了问题可能无人得知";
                let none = lang.say(
                    none,
                    "no check was started within two weeks: perhaps nobody hears of what goes wrong",
                );
                parts.push(none.to_owned());
            }
            continue;
        };
        let name = lang.say(zh, en);
        let Some(at) = start.last_at else {
            parts.push(lang.say(
                format!("{name}没有启动过"),
                format!("{name} were not started"),
            ));
            continue;
        };
        let at = at.with_timezone(&zone).format("%m-%d %H:%M");
        let mut part = lang.say(
            format!("{name}最近 {at}"),
            format!("last of the {name} {at}"),
        );
        if start.starts > 0 {
            part += &lang.say(
                format!("（{} 次，失败 {} 次）", start.starts, start.failures),
                format!(" ({} starts, {} failures)", start.starts, start.failures),
            );
        }
        parts.push(part);
    }
    let all = parts.join(lang.say("，", ", "));
    (!parts.is_empty()).then(|| lang.say(format!("**值守**：{all}"), format!("**Watch**: {all}")))
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

/// How many, which, and where to look at all of them.
fn not_stored(task: &Task, lang: Lang) -> Option<String> {
    let lost = task.not_stored.as_ref()?;
    let (n, of, title, run) = (lost.records, lost.of, &task.title, lost.run_id);
    let first = lost.first.as_ref().map(|first| {
        let first = excerpt(first, 120);
        lang.say(
            format!("（例如 {first}）"),
            format!(" (for example {first})"),
        )
    });
    let first = first.unwrap_or_default();
    Some(lang.say(
        format!("- {title}：{of} 条中有 {n} 条没有入库{first}；查看：oa-report logs --run {run}"),
        format!("- {title}: {n} of {of} records were not stored{first}; see them: oa-report logs --run {run}"),
    ))
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
