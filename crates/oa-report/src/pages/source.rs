//! What is known of a source besides its runs: when it is due, its days, what it has stored, and its file.

use maud::{Markup, html};

use super::act;
use super::layout::{Frame, status_of};
use super::words::count;
use crate::lang::Lang;
use crate::queries::days::SourceDay;
use crate::queries::source::{Facts, Stored};

/// A schedule as people say it: `交易日 15:00`. What is not one of the usual forms stays a cron expression.
pub(super) fn schedule_in_words(lang: Lang, cron: &str, facts: &Facts) -> Option<String> {
    let parts: Vec<&str> = cron.split_whitespace().collect();
    let [minute, hour, "*", "*", weekday] = parts.as_slice() else {
        return None;
    };
    let days = match (facts.days.as_str(), *weekday) {
        ("trading", "*" | "1-5") => lang.say("交易日", "on trading days"),
        ("night", "*" | "1-5") => lang.say("有夜盘的日子", "on days with a night session"),
        (_, "1-5") => lang.say("周一至周五", "on weekdays"),
        (_, "*") => lang.say("每天", "every day"),
        _ => return None,
    };
    let number = |text: &str| text.parse::<u8>().ok();
    let time = match (number(minute), number(hour)) {
        (Some(m), Some(h)) => format!("{h:02}:{m:02}"),
        (Some(m), None) if hour.contains(',') => {
            let hours: Option<Vec<u8>> = hour.split(',').map(number).collect();
            let times = hours?
                .iter()
                .map(|h| format!("{h:02}:{m:02}"))
                .collect::<Vec<_>>();
            times.join(lang.say("、", ", "))
        }
        (Some(0), None) if *hour == "*" => lang.say("每小时整点", "each full hour").to_owned(),
        (Some(m), None) if *hour == "*" => lang.say(
            format!("每小时第 {m} 分"),
            format!("at minute {m} of each hour"),
        ),
        (None, None) if *hour == "*" && *minute == "*" => {
            lang.say("每分钟", "each minute").to_owned()
        }
        (None, None) if *hour == "*" => {
            let n = number(minute.strip_prefix("*/")?)?;
            lang.say(format!("每 {n} 分钟"), format!("every {n} minutes"))
        }
        _ => return None,
    };
    let session = |s: &String| match s.as_str() {
        "day" => lang.say("日盘", "day"),
        _ => lang.say("夜盘", "night"),
    };
    let sessions: Vec<&str> = facts.sessions.iter().map(session).collect();
    let within = match sessions.as_slice() {
        [] => String::new(),
        all => lang.say(
            format!("，{}时段内", all.join("、")),
            format!(", within the {} session", all.join(" and ")),
        ),
    };
    Some(lang.say(
        format!("{days} {time}{within}"),
        format!("{time} {days}{within}"),
    ))
}

/// So many days are seen at once.
const SEEN: usize = 10;

/// The days of the last weeks, newest first.
pub(super) fn days(frame: &Frame, days: &[SourceDay]) -> Markup {
    let lang = frame.lang;
    html! {
        section.card aria-labelledby="days" {
            h2 #days { (lang.say("每一天", "Each day")) }
            @if days.is_empty() { p.empty { (lang.say("还没有记录", "Nothing recorded yet")) } }
            @else {
                @let newest: Vec<&SourceDay> = days.iter().rev().collect();
                @let (seen, folded) = newest.split_at(newest.len().min(SEEN));
                (table(frame, seen))
                @if !folded.is_empty() {
                    details {
                        summary { (lang.say(format!("更早的 {} 天", folded.len()), format!("{} earlier days", folded.len()))) }
                        (table(frame, folded))
                    }
                }
            }
        }
    }
}

fn table(frame: &Frame, days: &[&SourceDay]) -> Markup {
    let lang = frame.lang;
    let sign = |d: &SourceDay| match d.state.as_str() {
        "complete" => "ok",
        "partial" | "stale" => "warning",
        "pending" | "skipped" => "paused",
        _ => "error",
    };
    let evidence = |text: &str| match text {
        "total" => lang.say("网站公布的总数", "the site's total"),
        "end" => lang.say("已到末页", "the list's end"),
        "history" => lang.say("与往日相当", "its own history"),
        _ => "–",
    };
    html! {
        table {
            thead { tr {
                th scope="col" { (lang.say("日期", "Day")) }
                th scope="col" { (lang.say("状态", "State")) }
                th.num scope="col" { (lang.say("记录", "Records")) }
                th.num scope="col" { (lang.say("应有 / 通常", "Announced / usual")) }
                th scope="col" { (lang.say("依据", "Known by")) }
                th scope="col" { (lang.say("说明", "Notes")) }
            } }
            tbody {
                @for d in days {
                    tr {
                        th.when scope="row" {
                            @match d.run_id { Some(run) => { a href=(frame.url(&format!("/admin/runs/{run}"))) { (d.day) } } None => { (d.day) } }
                        }
                        td { (status_of(lang.day_state(&d.state), sign(d))) }
                        td.num data-label=(lang.say("记录", "Records")) {
                            (d.records.map_or_else(|| "–".to_owned(), |n| count(n.unsigned_abs())))
                            @if d.rejected > 0 { " " span.warn { (lang.say(format!("{} 条未入库", d.rejected), format!("{} not stored", d.rejected))) } }
                        }
                        td.num data-label=(lang.say("应有 / 通常", "Announced / usual")) { (d.announced.or(d.usual).map_or_else(|| "–".to_owned(), |n| count(n.unsigned_abs()))) }
                        td { span.faint { (evidence(d.evidence.as_deref().unwrap_or_default())) } }
                        td.message {
                            @if let Some(reason) = &d.reason { span.reason { (lang.slot_reason(reason)) } }
                            @if d.fill.is_some() { (act::backfill(frame, &d.task, &d.day.to_string(), &d.day.to_string())) }
                        }
                    }
                }
            }
        }
    }
}

/// Rows as they stand in the table, and how many of each variety.
pub(super) fn stored(frame: &Frame, stored: &Stored) -> Markup {
    let lang = frame.lang;
    let most = stored
        .varieties
        .iter()
        .map(|(_, n)| *n)
        .max()
        .unwrap_or(1)
        .max(1);
    html! {
        @if let Some(day) = stored.day.as_ref().filter(|_| !stored.varieties.is_empty()) {
            section.card aria-labelledby="varieties" {
                h2 #varieties { (lang.say("各品种条数", "Rows of each variety")) " " span.faint { (day) } }
                ul.varieties {
                    @for (name, n) in &stored.varieties {
                        li {
                            span.label { (name) }
                            svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" { rect.bar x="0" y="0" width=(n * 100 / most) height="8" {} }
                            span.num { (count(n.unsigned_abs())) }
                        }
                    }
                }
            }
        }
        section.card aria-labelledby="rows" {
            div.bar {
                h2 #rows { (lang.say("最新的记录", "Newest rows")) }
                code { (stored.table) }
            }
            @if stored.rows.is_empty() { p.empty { (lang.say("表是空的", "the table is empty")) } }
            @else {
                div.wide tabindex="0" role="region" aria-label=(lang.say("最新的记录", "Newest rows")) {
                    table.rows {
                        thead { tr { @for c in &stored.columns { th scope="col" { (c) } } th scope="col" { (lang.say("历次修改", "Revisions")) } } }
                        tbody {
                            @for row in &stored.rows {
                                tr {
                                    @for (value, column) in row.values.iter().zip(&stored.columns) {
                                        td data-label=(column) { @match value { Some(v) => { (v) } None => { span.faint { "NULL" } } } }
                                    }
                                    td { @if let Some(why) = &row.why { button.copy type="button" data-copy=(why) title=(why) { (lang.say("复制 why 命令", "Copy why")) } } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Its file, as its last run had it.
pub(super) fn file(frame: &Frame, text: &str) -> Markup {
    html! {
        section.card aria-labelledby="file" {
            details {
                summary { h2 #file { (frame.lang.say("来源文件（只读）", "Source file (read-only)")) } }
                pre.text tabindex="0" { (text) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use oa_core::app::config::Locale;

    use super::*;

    #[test]
    fn a_schedule_is_said_as_people_say_it() {
        let words = |cron: &str, days: &str, sessions: &[&str]| {
            let facts = Facts {
                days: days.to_owned(),
                sessions: sessions.iter().map(|s| (*s).to_owned()).collect(),
                ..Facts::default()
            };
            schedule_in_words(Lang(Locale::Zh), cron, &facts)
        };
        for (cron, days, sessions, said) in [
            ("0 15 * * *", "trading", &[][..], Some("交易日 15:00")),
            ("50 20 * * *", "night", &[], Some("有夜盘的日子 20:50")),
            ("*/30 * * * *", "all", &[], Some("每天 每 30 分钟")),
            (
                "* * * * *",
                "all",
                &["day", "night"],
                Some("每天 每分钟，日盘、夜盘时段内"),
            ),
            (
                "5 9,15 * * 1-5",
                "all",
                &[],
                Some("周一至周五 09:05、15:05"),
            ),
            ("5 9 1 * *", "all", &[], None),
            ("5 9 * * 3", "all", &[], None),
            ("1-5 9 * * *", "all", &[], None),
        ] {
            assert_eq!(words(cron, days, sessions).as_deref(), said, "{cron}");
        }
    }
}
