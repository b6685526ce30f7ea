//! The calendar of the sources: what each owed for each day of 13 weeks, what came, and the command that fills each hole. What is good is
//! low and calm; each kind of hole has a shape of its own and leads to its line below.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::NaiveDate;
use maud::{Markup, html};

use super::act;
use super::layout::{Frame, tone};
use crate::digest::short_hash;
use crate::queries::days::{Hole, SourceDay, Summary, holes};

/// So many holes are listed.
const LISTED: usize = 30;
/// Of these, so many are seen at once.
const OPEN: usize = 3;
const STEP: usize = 12;
const TALL: usize = 14;
/// A row is no narrower: the name of a month has room in it.
const NARROWEST: usize = 60;

/// `is_part`: there are tasks besides those of these days.
pub(crate) fn section(frame: &Frame, days: &[SourceDay], is_part: bool) -> Markup {
    if days.is_empty() {
        return html! {};
    }
    let lang = frame.lang;
    let columns: BTreeSet<NaiveDate> = days.iter().map(|d| d.day).collect();
    let columns: HashMap<NaiveDate, usize> = columns
        .into_iter()
        .enumerate()
        .map(|(x, d)| (d, x))
        .collect();
    let mut rows: BTreeMap<&str, Vec<&SourceDay>> = BTreeMap::new();
    for day in days {
        let row = rows.entry(&day.task).or_default();
        // Where nothing is owed, only what came is of interest.
        if day.expected || day.state == "complete" {
            row.push(day);
        }
    }
    rows.retain(|_, days| !days.is_empty());
    let holes = holes(days);
    // The newest first: those are what one can still do something about.
    let mut listed: Vec<&Hole> = holes.iter().collect();
    listed.sort_by_key(|h| std::cmp::Reverse(h.to));
    listed.truncate(LISTED);
    let sum = Summary::of(days);
    let states: BTreeSet<&str> = rows.values().flatten().map(|d| kind(d)).collect();
    html! {
        section.card aria-labelledby="heat" {
            div.bar {
                h2 #heat { (lang.say("采集日历，13 周", "Days collected, 13 weeks")) }
                ul.legend {
                    @for (state, zh, en) in KINDS {
                        @if states.contains(state) { li { svg.cell viewBox="0 0 12 14" width="12" height="14" aria-hidden="true" { path class=(class(state)) d=(shape(state, 0)) {} } (lang.say(zh, en)) } }
                    }
                }
            }
            p {
                @if is_part { (lang.say("本页任务（全部：oa-report days）：", "Of the tasks on this page (all: oa-report days): ")) }
                (crate::commands::days::verdict(lang, &sum))
            }
            // Its end, which is today, is what is seen first where it does not fit.
            div.heat tabindex="0" role="region" aria-label=(lang.say("每个数据源一行，每天一格", "one row a source, one cell a day")) {
                div.months {
                    div.label {}
                    (months(&columns))
                }
                @for days in rows.values() {
                    @let first = days[0];
                    div.source {
                        div.label { (frame.link(&frame.task(&first.task), &html! { (first.title) })) }
                        (row(frame, days, &columns, &listed))
                    }
                }
            }
            @if !holes.is_empty() {
                ol.holes { @for hole in listed.iter().take(OPEN) { (of_hole(frame, hole)) } }
                @if listed.len() > OPEN {
                    details {
                        summary { (lang.say(format!("更早的 {} 段", listed.len() - OPEN), format!("{} earlier ones", listed.len() - OPEN))) }
                        ol.holes { @for hole in listed.iter().skip(OPEN) { (of_hole(frame, hole)) } }
                    }
                }
                @if holes.len() > LISTED {
                    @let (more, first) = (holes.len() - LISTED, days.iter().map(|d| d.day).min().unwrap_or_default());
                    p.more { (lang.say(format!("还有 {more} 段，用 oa-report days --from {first} 查看"), format!("{more} more: see oa-report days --from {first}"))) }
                }
            }
        }
    }
}

const KINDS: [(&str, &str, &str); 9] = [
    ("complete", "完整", "complete"),
    ("filled", "后来补齐", "filled later"),
    ("partial", "不完整", "partial"),
    ("stale", "与前日相同", "stale"),
    ("failed", "失败", "failed"),
    ("missing", "未采集", "missing"),
    ("unfetchable", "无法补采", "unfetchable"),
    ("pending", "未到时间", "pending"),
    ("skipped", "跳过", "skipped"),
];

fn kind(day: &SourceDay) -> &str {
    match day.state.as_str() {
        "complete" if day.filled_at.is_some() => "filled",
        state => state,
    }
}

fn class(kind: &str) -> &'static str {
    match kind {
        "complete" | "filled" => "good",
        "partial" | "stale" => "warn",
        "failed" | "missing" | "unfetchable" => "bad",
        _ => "idle",
    }
}

/// The shape of a day in the column that begins at `x`.
fn shape(kind: &str, x: usize) -> String {
    let rest = match kind {
        // Low and calm.
        "complete" => "v-8h10v8z",
        // The same, with a hole that was closed.
        "filled" => "v-8h10v8zm3-2h4v-4h-4z",
        "partial" => "l5-11 5 11z",
        // Two of the same.
        "stale" => "h10v-4h-10zm0-7h10v-4h-10z",
        "failed" => "l3.5-6.5-3.5-6.5h3l2 4 2-4h3l-3.5 6.5 3.5 6.5h-3l-2-4-2 4z",
        // Nothing within.
        "missing" => "h10v-13h-10zm2-2v-9h6v9z",
        "unfetchable" => "m5 0l5-6.5-5-6.5-5 6.5z",
        "pending" => "m3-3h4v-4h-4z",
        _ => "m1-4h8v-2h-8z",
    };
    format!("M{} 14{rest}", x + 1)
}

/// How wide a row is. It is drawn in this size, and smaller where there is no room: a few days do not fill the page.
fn wide(columns: &HashMap<NaiveDate, usize>) -> usize {
    (columns.len() * STEP).max(NARROWEST)
}

fn months(columns: &HashMap<NaiveDate, usize>) -> Markup {
    let mut firsts: BTreeMap<String, usize> = BTreeMap::new();
    for (day, x) in columns {
        let at = firsts.entry(day.format("%Y-%m").to_string()).or_insert(*x);
        *at = (*at).min(*x);
    }
    let width = wide(columns);
    // One that is cut off at the left has no room for its name.
    let fits = |x: usize| x == 0 || x * STEP + 40 <= width;
    let shown: Vec<(&String, &usize)> = firsts.iter().filter(|(_, x)| fits(**x)).collect();
    let crowded = |i: usize| {
        shown
            .get(i + 1)
            .is_some_and(|(_, next)| **next - *shown[i].1 < 4)
    };
    html! {
        svg.row viewBox={ "0 0 " (width) " 14" } width=(width) aria-hidden="true" {
            @for (i, (month, x)) in shown.iter().enumerate() {
                @if !crowded(i) { text x=(*x * STEP) y="11" { (month) } }
            }
        }
    }
}

fn anchor(hole: &Hole) -> String {
    format!(
        "hole-{}",
        short_hash(format!("{} {} {}", hole.task, hole.from, hole.state).as_bytes())
    )
}

fn row(
    frame: &Frame,
    days: &[&SourceDay],
    columns: &HashMap<NaiveDate, usize>,
    listed: &[&Hole],
) -> Markup {
    let lang = frame.lang;
    let width = wide(columns);
    let x = |day: &SourceDay| columns.get(&day.day).copied().unwrap_or(0) * STEP;
    let mut calm: BTreeMap<&str, String> = BTreeMap::new();
    for day in days.iter().filter(|d| !d.hole) {
        calm.entry(kind(day))
            .or_default()
            .push_str(&shape(kind(day), x(day)));
    }
    let count = days.iter().filter(|d| d.hole).count();
    let label = lang.say(
        format!("{}：{} 天，缺 {count} 天", days[0].title, days.len()),
        format!("{}: {} days, {count} holes", days[0].title, days.len()),
    );
    let of = |day: &SourceDay| {
        listed
            .iter()
            .copied()
            .find(|h| h.task == day.task && h.from <= day.day && day.day <= h.to)
    };
    html! {
        svg.row viewBox={ "0 0 " (width) " " (TALL) } width=(width) role="group" aria-label=(label) {
            rect.ground x="0" y=(TALL) width=(width) height="1" {}
            @for (kind, shapes) in &calm { path class=(class(kind)) d=(shapes) {} }
            @for day in days.iter().filter(|d| d.hole) {
                @let words = format!("{} {}", day.day, lang.day_state(&day.state));
                @let cell = html! { title { (words) } path class=(class(&day.state)) d=(shape(&day.state, x(day))) {} };
                @match of(day) {
                    Some(hole) => { a href={ "#" (anchor(hole)) } aria-label=(words) { (cell) } }
                    None => { g { (cell) } }
                }
            }
        }
    }
}

fn of_hole(frame: &Frame, hole: &Hole) -> Markup {
    let lang = frame.lang;
    html! {
        li #(anchor(hole)) {
            span class={ "status " (tone(if class(&hole.state) == "warn" { "warning" } else { "error" })) } {
                svg.cell viewBox="0 0 12 14" width="12" height="14" aria-hidden="true" { path class=(class(&hole.state)) d=(shape(&hole.state, 0)) {} }
                (lang.day_state(&hole.state))
            }
            div.what {
                p {
                    (frame.link(&frame.task(&hole.task), &html! { (hole.title) })) " "
                    @if hole.from == hole.to { (hole.from) }
                    @else { (lang.say(format!("{} 至 {}，{} 天", hole.from, hole.to, hole.days), format!("{} to {}, {} days", hole.from, hole.to, hole.days))) }
                }
                @if let Some(reason) = &hole.reason { p.error { (lang.slot_reason(reason)) } }
                @if let Some(fill) = &hole.fill {
                    div.command { code { (fill) } " " button.copy type="button" data-copy=(fill) { (lang.say("复制", "Copy")) } (act::backfill(frame, &hole.task, &hole.from.to_string(), &hole.to.to_string())) }
                }
            }
        }
    }
}
