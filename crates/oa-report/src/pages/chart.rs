//! Charts as SVG. What is good is low and calm, what is bad is tall: the shape tells without the colour.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};
use uuid::Uuid;

use super::layout::{Frame, tone};
use super::words::count;
use crate::queries::backups::Size;
use crate::queries::history::{self, DAYS, Day, RECENT_RUNS, RecentRun};
use crate::queries::overview::DayWindow;

/// The last runs of a task, oldest at the left. Runs that were no success lead to their page.
pub(crate) fn strip(frame: &Frame, runs: &[RecentRun]) -> Markup {
    const STEP: usize = 5;
    const TALL: usize = 20;
    let lang = frame.lang;
    let width = RECENT_RUNS as usize * STEP;
    let first = width.saturating_sub(runs.len() * STEP);
    let bad = runs
        .iter()
        .filter(|m| !matches!(m.status.as_str(), "success" | "running" | "retrying"))
        .count();
    let label = lang.say(
        format!("最近 {} 次运行，其中 {bad} 次未成功", runs.len()),
        format!(
            "the last {} runs, {bad} of them without success",
            runs.len()
        ),
    );
    let shape_of = |i: usize, m: &RecentRun| {
        let x = first + i * STEP;
        let label = format!(
            "{} {} {}",
            frame.clock.at(m.started_at),
            lang.status(&m.status),
            lang.say(
                format!("{} 条", count(m.records)),
                format!("{} records", count(m.records))
            )
        );
        let shape = match tone(&m.status) {
            "good" => html! { rect.good x=(x) y=(TALL - 8) width="4" height="8" rx="1" {} },
            // A triangle.
            "warn" => html! { path.warn d={ "M" (x) " " (TALL) "v-9l2-5 2 5v9z" } {} },
            // Full height, with a notch.
            "bad" => html! { path.bad d={ "M" (x) " " (TALL) "v-20h4v20zm1-13v2h2v-2z" } {} },
            tone => html! { rect class=(tone) x=(x) y=(TALL - 12) width="4" height="12" rx="2" {} },
        };
        html! {
            @if frame.standalone || tone(&m.status) == "good" { g { title { (label) } (shape) } }
            @else { a href=(frame.url(&format!("/admin/runs/{}", m.id))) aria-label=(label) { title { (label) } (shape) } }
        }
    };
    html! {
        svg.strip viewBox={ "0 0 " (width) " " (TALL) } width=(width) height=(TALL) role="group" aria-label=(label) {
            rect.ground x="0" y=(TALL - 1) width=(width) height="1" {}
            @for (i, m) in runs.iter().enumerate() { (shape_of(i, m)) }
        }
    }
}

/// Records of each day against what is usual; days far from it are marked.
pub(crate) fn days(frame: &Frame, days: &[Day]) -> Markup {
    const TALL: f64 = 44.0;
    const STEP: f64 = 8.0;
    let lang = frame.lang;
    let most = days.iter().filter_map(|d| d.records).fold(1.0, f64::max);
    let last = history::day_of(frame.clock.now);
    let slots = f64::from(DAYS);
    let width = slots * STEP;
    let x = |d: &Day| (slots - 1.0 - (last - d.day).num_days() as f64) * STEP;
    let unusual = days.iter().filter(|d| d.is_unusual()).count();
    let label = lang.say(
        format!("{} 天的记录数，{unusual} 天异常", days.len()),
        format!("records on {} days, {unusual} of them unusual", days.len()),
    );
    let usual = days.iter().rev().find_map(|d| d.usual);
    html! {
        svg.days viewBox={ "0 -8 " (width) " " (TALL + 8.0) } preserveAspectRatio="xMinYMax meet" role="img" aria-label=(label) {
            rect.ground x="0" y=(TALL - 1.0) width=(width) height="1" {}
            @if let Some(usual) = usual {
                @let y = TALL - (usual / most * TALL);
                line.usual x1="0" x2=(width) y1=(format!("{y:.1}")) y2=(format!("{y:.1}")) {}
            }
            @for d in days {
                @let records = d.records.unwrap_or(0.0);
                @let height = (records / most * TALL).max(if d.runs > 0 { 1.5 } else { 0.0 });
                @let x = x(d);
                g {
                    title { (d.day) " · " (lang.say(format!("{} 条", count(records.round() as u64)), format!("{} records", count(records.round() as u64)))) }
                    rect class=(if d.is_unusual() { "odd" } else { "bar" }) x=(x) y=(format!("{:.1}", TALL - height)) width="6" height=(format!("{height:.1}")) rx="1" {}
                    @if d.is_unusual() { path.odd d={ "M" (x) " " (format!("{:.1}", TALL - height - 7.5)) "h6l-3 5z" } {} }
                }
            }
        }
    }
}

/// How long the last runs of a task took; each leads to its page, and `this` is marked.
pub(crate) fn durations(frame: &Frame, runs: &[RecentRun], this: Uuid) -> Markup {
    const TALL: f64 = 60.0;
    const STEP: usize = 20;
    let lang = frame.lang;
    let seconds = |r: &RecentRun| r.duration.unwrap_or(0.0).max(0.0);
    let most = runs.iter().map(seconds).fold(0.001, f64::max);
    let width = runs.len() * STEP;
    let mut sorted: Vec<f64> = runs.iter().map(seconds).collect();
    sorted.sort_by(f64::total_cmp);
    let usual = sorted[sorted.len() / 2];
    let label = lang.say(
        format!(
            "最近 {} 次运行的用时，通常 {}",
            runs.len(),
            lang.span(usual)
        ),
        format!(
            "how long the last {} runs took, usually {}",
            runs.len(),
            lang.span(usual)
        ),
    );
    let y = TALL - usual / most * TALL;
    html! {
        svg.durations viewBox={ "0 -10 " (width) " " (TALL + 10.0) } width=(width) height=(TALL + 10.0) role="group" aria-label=(label) {
            rect.ground x="0" y=(TALL - 1.0) width=(width) height="1" {}
            @for (i, r) in runs.iter().enumerate() {
                @let height = (seconds(r) / most * TALL).max(2.0);
                @let text = format!("{} {} {}", frame.clock.at(r.started_at), lang.status(&r.status), lang.span(seconds(r)));
                a href=(frame.url(&format!("/admin/runs/{}", r.id))) aria-label=(text) aria-current=[(r.id == this).then_some("true")] {
                    title { (text) }
                    rect class=(tone(&r.status)) x=(i * STEP + 3) y=(format!("{:.1}", TALL - height)) width="14" height=(format!("{height:.1}")) rx="1" {}
                    @if r.id == this { path.this d={ "M" (i * STEP + 10) " " (format!("{:.1}", TALL - height - 1.5)) "l-4-6h8z" } {} }
                }
            }
            line.usual x1="0" x2=(width) y1=(format!("{y:.1}")) y2=(format!("{y:.1}")) {}
        }
        p.faint { (lang.say("虚线是通常的用时：", "the dashed line is what is usual: ")) (lang.span(usual)) }
    }
}

/// A stretch of a day.
struct Stretch {
    from: f64,
    until: f64,
    class: &'static str,
}

const WIDE: f64 = 960.0;

fn x(today: &DayWindow, at: DateTime<Utc>) -> f64 {
    let whole = (today.until - today.from).as_seconds_f64().max(1.0);
    ((at - today.from).as_seconds_f64() / whole * WIDE).clamp(0.0, WIDE)
}

/// When the task was due, and whether it then started, those close together as one stretch; and how often it did not start.
fn expected(
    today: &DayWindow,
    due: &[DateTime<Utc>],
    runs: &[RecentRun],
    now: DateTime<Utc>,
) -> (Vec<Stretch>, usize) {
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut missed = 0;
    let early = TimeDelta::seconds(90);
    for (i, at) in due.iter().enumerate() {
        let next = due.get(i + 1).copied().unwrap_or(today.until);
        let started = runs
            .iter()
            .any(|r| r.started_at >= *at - early && r.started_at < next.max(*at + today.grace));
        let class = match (started, *at + today.grace < now) {
            (true, _) => "met",
            (false, true) => "missed",
            (false, false) => "ahead",
        };
        missed += usize::from(class == "missed");
        let x = x(today, *at);
        match stretches.last_mut() {
            Some(last) if last.class == class && x - last.until < 10.0 => last.until = x,
            _ => stretches.push(Stretch {
                from: x,
                until: x,
                class,
            }),
        }
    }
    (stretches, missed)
}

/// Runs of the same kind that touch each other are one shape; with how many each is of.
fn shapes(today: &DayWindow, runs: &[RecentRun]) -> Vec<(Stretch, usize)> {
    let mut shapes: Vec<(Stretch, usize)> = Vec::new();
    for run in runs {
        let class = tone(&run.status);
        let took = TimeDelta::milliseconds((run.duration.unwrap_or(0.0) * 1000.0) as i64);
        let from = x(today, run.started_at);
        let until = x(today, run.started_at + took).max(from + 4.0);
        match shapes.last_mut() {
            Some((last, n)) if last.class == class && from - last.until < 2.0 => {
                last.until = until;
                *n += 1;
            }
            _ => shapes.push((Stretch { from, until, class }, 1)),
        }
    }
    shapes
}

/// One task's day: when it was due, and when it ran.
pub(crate) fn timeline(
    frame: &Frame,
    today: &DayWindow,
    due: &[DateTime<Utc>],
    runs: &[RecentRun],
) -> Markup {
    let lang = frame.lang;
    let now = frame.clock.now;
    let (expected, missed) = expected(today, due, runs, now);
    let bad = runs.iter().filter(|r| tone(&r.status) == "bad").count();
    let label = lang.say(
        format!(
            "今天应运行 {} 次，已运行 {} 次，失败 {bad} 次，错过 {missed} 次",
            due.len(),
            runs.len()
        ),
        format!(
            "today: due {} times, ran {} times, {bad} failed, {missed} missed",
            due.len(),
            runs.len()
        ),
    );
    let wide = |s: &Stretch| format!("{:.1}", (s.until - s.from).max(3.0));
    html! {
        svg.timeline viewBox="0 0 960 24" preserveAspectRatio="none" role="img" aria-label=(label) {
            @for hour in (0..=24).step_by(3) { rect.grid x=(hour * 40) y="0" width="1" height="24" {} }
            @for s in &expected {
                @match s.class {
                    "missed" => { rect.missed x=(format!("{:.1}", s.from)) y="1" width=(wide(s)) height="22" {} }
                    class => { rect class=(class) x=(format!("{:.1}", s.from)) y="1" width=(wide(s)) height="4" {} }
                }
            }
            @for (s, n) in &shapes(today, runs) {
                @let (y, height) = match s.class { "good" => (14, 9), "warn" => (11, 12), "bad" => (7, 16), _ => (12, 11) };
                g {
                    title { (n) "×" }
                    rect class=(s.class) x=(format!("{:.1}", s.from)) y=(y) width=(wide(s)) height=(height) rx="1" {}
                }
            }
            // In steps, so that a page on which nothing happened stays the same.
            @let step = now - TimeDelta::seconds(now.timestamp() % 300);
            rect.now x=(format!("{:.1}", x(today, step))) y="0" width="1.5" height="24" {}
        }
    }
}

/// The sizes of repositories over time, one line each.
pub(crate) fn growth(frame: &Frame, sizes: &[Size]) -> Markup {
    const WIDE: f64 = 600.0;
    const TALL: f64 = 120.0;
    let (Some(first), Some(last)) = (sizes.first(), sizes.last()) else {
        return html! {};
    };
    let most = sizes.iter().map(|s| s.size_bytes).max().unwrap_or(1).max(1) as f64;
    let whole = (last.measured_at - first.measured_at)
        .as_seconds_f64()
        .max(1.0);
    let mut lines: HashMap<&str, Vec<String>> = HashMap::new();
    for s in sizes {
        let x = (s.measured_at - first.measured_at).as_seconds_f64() / whole * WIDE;
        let y = TALL - s.size_bytes as f64 / most * (TALL - 8.0);
        lines
            .entry(&s.repository)
            .or_default()
            .push(format!("{x:.1},{y:.1}"));
    }
    let label = frame.lang.say(
        format!(
            "仓库大小，从 {} 到 {}",
            frame.lang.size(first.size_bytes),
            frame.lang.size(last.size_bytes)
        ),
        format!(
            "size of the repository, from {} to {}",
            frame.lang.size(first.size_bytes),
            frame.lang.size(last.size_bytes)
        ),
    );
    let mut lines: Vec<_> = lines.into_iter().collect();
    lines.sort();
    html! {
        figure.growth {
            svg viewBox={ "0 0 " (WIDE) " " (TALL) } preserveAspectRatio="none" role="img" aria-label=(label) {
                @for y in [8.0, TALL / 2.0 + 4.0, TALL - 1.0] { rect.ground x="0" y=(y) width=(WIDE) height="1" {} }
                @for (_, points) in &lines { polyline points=(points.join(" ")) {} }
            }
            div.scale aria-hidden="true" { span { (frame.lang.size(most as i64)) } span { (frame.lang.size(most as i64 / 2)) } span { "0" } }
            figcaption {
                span { (frame.clock.at(first.measured_at)) " · " (frame.lang.size(first.size_bytes)) }
                span { (frame.clock.at(last.measured_at)) " · " (frame.lang.size(last.size_bytes)) }
            }
        }
    }
}
