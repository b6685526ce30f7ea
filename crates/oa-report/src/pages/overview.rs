//! The overview: one look answers whether everything is all right, and if not, what to do.

use std::collections::HashMap;
use std::sync::Arc;

use maud::{Markup, html};

use super::chart;
use super::heat;
use super::layout::{self, Frame, icon};
use super::problems::{self, Problem};
use super::todo;
use super::words::count;
use crate::app::App;
use crate::app::answer::Answer;
use crate::app::params::Params;
use crate::queries::health::{Health, State, TaskHealth, percent};
use crate::queries::history::{Day, RecentRun};
use crate::queries::overview::Overview;
use crate::queries::watch;
use crate::snapshot::Snapshot;

/// So many tasks per page, the worst first.
const SHOWN: usize = 40;

pub(crate) async fn page(app: &Arc<App>, frame: &Frame, params: &Params) -> Result<Markup, Answer> {
    let Some(snapshot) = frame.snapshot().cloned() else {
        return Err(Answer::unavailable(&frame.latest));
    };
    let filter = params.text("task").unwrap_or_default();
    let number: usize = params
        .text("page")
        .and_then(|p| p.parse().ok())
        .unwrap_or(1);
    let mut found = snapshot.worst_first();
    found.retain(|t| filter.is_empty() || t.name.contains(&filter) || t.title.contains(&filter));
    let pages = found.len().div_ceil(SHOWN).max(1);
    let shown: Vec<String> = found
        .iter()
        .skip((number - 1) * SHOWN)
        .take(SHOWN)
        .map(|t| t.name.clone())
        .collect();
    let first = filter.is_empty() && number == 1;
    let overview = match ask(app, frame, &shown).await {
        Some(overview) => {
            if first {
                app.keep_overview(&overview);
            }
            overview
        }
        None => app
            .last_overview()
            .unwrap_or_else(|| Arc::new(Overview::empty(shown))),
    };
    let title = frame.lang.say("总览", "Overview");
    Ok(layout::page(
        frame,
        title,
        &body(frame, &snapshot, &overview, (number, pages)),
    ))
}

/// `None` while PostgreSQL does not answer.
async fn ask(app: &Arc<App>, frame: &Frame, shown: &[String]) -> Option<Arc<Overview>> {
    if frame.latest.is_stale() {
        return None;
    }
    let (asking, shown) = (Arc::clone(app), shown.to_vec());
    let taken = app
        .ask(move |tx| Overview::take(tx, &asking.config, &asking.calendar, shown.clone()))
        .await;
    taken.ok().map(Arc::new)
}

/// What stands in the page's middle.
pub(crate) fn body(
    frame: &Frame,
    snapshot: &Snapshot,
    overview: &Overview,
    (number, pages): (usize, usize),
) -> Markup {
    let problems = problems::problems(snapshot);
    let by_name: HashMap<&str, &TaskHealth> = snapshot
        .tasks
        .iter()
        .map(|t| (t.name.as_str(), t))
        .collect();
    let tasks: Vec<&TaskHealth> = overview
        .shown
        .iter()
        .filter_map(|n| by_name.get(n.as_str()).copied())
        .collect();
    html! {
        (verdict(frame, snapshot, &problems))
        @if !problems.is_empty() { (todo::list(frame, &problems, snapshot)) }
        (tiles(frame, snapshot))
        (sources(frame, &tasks, overview, snapshot.tasks.len(), (number, pages)))
        (heat::section(frame, &overview.owed, pages > 1))
        (today(frame, &tasks, overview))
        (records(frame, &tasks, overview))
    }
}

fn verdict(frame: &Frame, snapshot: &Snapshot, problems: &[Problem<'_>]) -> Markup {
    let lang = frame.lang;
    let worst = problems
        .iter()
        .map(|p| p.severity)
        .max()
        .unwrap_or(Health::Healthy);
    let open = problems.iter().filter(|p| !p.is_acknowledged()).count();
    let acknowledged = problems.len() - open;
    let title = match (worst, open) {
        (Health::Healthy, _) => {
            lang.say("一切正常".to_owned(), "Everything is all right".to_owned())
        }
        (_, 0) => lang.say(
            format!("{acknowledged} 个问题，都有人处理"),
            format!("{acknowledged} problems, all acknowledged"),
        ),
        (_, 1) => lang.say(
            "1 个问题需要处理".to_owned(),
            "1 problem needs your attention".to_owned(),
        ),
        (_, n) => lang.say(
            format!("{n} 个问题需要处理"),
            format!("{n} problems need your attention"),
        ),
    };
    let (runs, success) = snapshot
        .tasks
        .iter()
        .fold((0, 0), |(r, s), t| (r + t.runs, s + t.success));
    let rate = percent(success, runs).map_or_else(String::new, |p| {
        lang.say(
            format!("，成功率 {p}%"),
            format!(", {p} % of them successful"),
        )
    });
    html! {
        section class={ "verdict " (layout::tone(worst.as_str())) } aria-labelledby="verdict" {
            (icon(worst.as_str()))
            div {
                h1 #verdict { (title) }
                p {
                    (lang.say(
                        format!("{} 个任务，24 小时内运行 {} 次{rate}", snapshot.tasks.len(), count(runs)),
                        format!("{} tasks, {} runs in 24 hours{rate}", snapshot.tasks.len(), count(runs)),
                    ))
                    (lang.say(" · 截至 ", " · as of ")) (frame.clock.time(snapshot.taken_at))
                    @for (what, zh, en) in [("check", "告警检查", "checked"), ("due", "到期运行", "due runs")] {
                        @if let Some(last) = watch::newest(&snapshot.watches, what) { " · " (lang.say(zh, en)) " " (frame.clock.relative(last.at)) }
                    }
                }
            }
        }
    }
}

fn tiles(frame: &Frame, snapshot: &Snapshot) -> Markup {
    let lang = frame.lang;
    let summary = snapshot.summary();
    let inserted: u64 = snapshot.tasks.iter().map(|t| t.inserted).sum();
    let backups = &snapshot.backups;
    let drill = backups.last_drill.as_ref();
    html! {
        div.tiles {
            div.tile {
                h2 { (lang.say("任务", "Tasks")) }
                p.counts {
                    span.status.good { (icon("healthy")) (summary.healthy) span.hidden { (lang.health(Health::Healthy)) } }
                    span.status.warn { (icon("warning")) (summary.warning) span.hidden { (lang.health(Health::Warning)) } }
                    span.status.bad { (icon("critical")) (summary.critical) span.hidden { (lang.health(Health::Critical)) } }
                }
                p.faint { (lang.say("正常 / 注意 / 故障", "healthy / warning / critical")) }
            }
            div.tile {
                h2 { (lang.say("24 小时新增", "New in 24 hours")) }
                p.big { (count(inserted)) }
                p.faint { (lang.say("条记录", "rows")) }
            }
            div.tile {
                h2 { (lang.say("可恢复到", "Restorable to")) }
                p.big { (frame.clock.relative_or(backups.restorable_to, lang.say("没有备份", "no backup"))) }
                p.faint {
                    @match &backups.latest_full {
                        Some(full) => { (lang.say("全量备份 ", "full backup ")) (frame.clock.relative(full.time)) (lang.say(format!("，链长 {}", backups.chain_length), format!(", {} in its chain", backups.chain_length))) }
                        None => { (lang.say("没有全量备份", "no full backup")) }
                    }
                }
            }
            div.tile {
                h2 { (lang.say("恢复演练", "Rehearsed restore")) }
                p.big {
                    @match drill {
                        Some(d) => { span class={ "status " (if d.ok { "good" } else { "bad" }) } { (icon(if d.ok { "ok" } else { "error" })) (if d.ok { lang.say("通过", "passed") } else { lang.say("失败", "failed") }) } }
                        None => { span.faint { (lang.say("从未", "never")) } }
                    }
                }
                p.faint {
                    @if let Some(d) = drill {
                        (frame.clock.relative(d.started_at))
                        @if let Some(rto) = d.rto_seconds { " · RTO " (lang.short(rto)) }
                        @if let Some(rpo) = d.rpo_seconds { " · RPO " (lang.short(rpo)) }
                    }
                }
            }
        }
    }
}

fn sources(
    frame: &Frame,
    tasks: &[&TaskHealth],
    overview: &Overview,
    all: usize,
    (number, pages): (usize, usize),
) -> Markup {
    let lang = frame.lang;
    let none = Vec::new();
    html! {
        section.card aria-labelledby="sources" {
            div.bar {
                h2 #sources { (lang.say("数据源", "Sources")) }
                @if all > SHOWN && !frame.standalone {
                    form.filter method="get" action=(frame.url("/admin/")) role="search" {
                        label.hidden for="find" { (lang.say("查找任务", "Find a task")) }
                        input #find type="search" name="task" value=(frame.value("task")) placeholder=(lang.say("查找任务", "Find a task"));
                        button type="submit" { (lang.say("查找", "Find")) }
                    }
                }
            }
            @if tasks.is_empty() { p.empty { (lang.say("没有任务。oa-crawl run --due 运行后会出现在这里。", "No tasks yet. They appear once oa-crawl run --due has run.")) } }
            @else {
                table.sources {
                    thead { tr {
                        th scope="col" { (lang.say("任务", "Task")) }
                        th scope="col" { (lang.say("最近 48 次", "Last 48 runs")) }
                        th.num scope="col" { (lang.say("24 小时", "24 hours")) }
                        th.num scope="col" { (lang.say("上次成功", "Last success")) }
                        th.num scope="col" { (lang.say("下次", "Next")) }
                        th scope="col" { (lang.say("状态", "State")) }
                    } }
                    tbody { @for t in tasks { (source(frame, t, overview.recent_runs.get(&t.name).unwrap_or(&none))) } }
                }
            }
            @if pages > 1 {
                nav.pages aria-label=(lang.say("翻页", "Pages")) {
                    @if number > 1 { a rel="prev" href=(frame.with(&[("page", Some(&(number - 1).to_string()))])) { (lang.say("上一页", "Previous")) } }
                    span { (number) " / " (pages) }
                    @if number < pages { a rel="next" href=(frame.with(&[("page", Some(&(number + 1).to_string()))])) { (lang.say("下一页", "Next")) } }
                }
            }
        }
    }
}

fn source(frame: &Frame, t: &TaskHealth, runs: &[RecentRun]) -> Markup {
    let lang = frame.lang;
    let reasons: Vec<String> = t.reasons.iter().map(|r| lang.reason(*r, t)).collect();
    html! {
        tr {
            th.name scope="row" {
                div {
                    (icon(sign(t))) span.hidden { (lang.state(t.state)) }
                    div {
                        (frame.link(&frame.task(&t.name), &html! { (t.title) }))
                        @if t.title != t.name { span.faint { (t.name) } }
                    }
                }
            }
            td.strip { (chart::strip(frame, runs)) }
            td.num data-label=(lang.say("24 小时", "24 hours")) {
                @match t.success_rate {
                    Some(rate) => { (rate) "%" " " span.faint { (t.success) "/" (t.runs) } }
                    None => { span.faint { "–" } }
                }
            }
            td.num data-label=(lang.say("上次成功", "Last success")) { (frame.clock.relative_or(t.last_success, "–")) }
            td.num data-label=(lang.say("下次", "Next")) {
                @if t.running { span.status.busy { (icon("running")) (lang.status("running")) } }
                @else if let Some(late) = t.late_seconds { span.status.bad { (lang.say(format!("已晚 {}", lang.short(late as f64)), format!("{} late", lang.short(late as f64)))) } }
                @else { (frame.clock.relative_or(t.next_due, "–")) }
            }
            td.state data-label=(lang.say("状态", "State")) {
                @if t.severity == Health::Healthy { span.faint { (lang.state(t.state)) } }
                @else {
                    span class={ "status " (layout::tone(t.severity.as_str())) } { (lang.state(t.state)) }
                    @if !reasons.is_empty() { span.reason { (reasons.join(lang.say("；", "; "))) } }
                    @if let Some(error) = t.last_error.as_ref().filter(|_| t.last_failed()) { span.error title=(error) { (error) } }
                }
            }
        }
    }
}

/// The sign of a task: a pause is neither good nor bad.
pub(super) fn sign(task: &TaskHealth) -> &'static str {
    match task.state {
        State::Paused => "paused",
        State::Running => "running",
        _ => task.severity.as_str(),
    }
}

fn today(frame: &Frame, tasks: &[&TaskHealth], overview: &Overview) -> Markup {
    let lang = frame.lang;
    let rows: Vec<&&TaskHealth> = tasks
        .iter()
        .filter(|t| {
            overview.due_today.contains_key(&t.name) || overview.runs_today.contains_key(&t.name)
        })
        .collect();
    let (no_due, no_runs) = (Vec::new(), Vec::new());
    html! {
        section.card aria-labelledby="today" {
            div.bar {
                h2 #today { (lang.say("今天", "Today")) }
                ul.legend {
                    li { span.key.met {} (lang.say("应运行", "due")) }
                    li { span.key.good {} (lang.status("success")) }
                    li { span.key.warn {} (lang.status("partial")) }
                    li { span.key.bad {} (lang.status("failed")) }
                    li { span.key.missed {} (lang.say("未运行", "missed")) }
                }
            }
            @if rows.is_empty() { p.empty { (lang.say("今天还没有运行", "Nothing has run today yet")) } }
            @else {
                div.today {
                    @for t in rows {
                        div.label { (frame.link(&frame.task(&t.name), &html! { (t.title) })) }
                        div.row { (chart::timeline(frame, &overview.today, overview.due_today.get(&t.name).unwrap_or(&no_due), overview.runs_today.get(&t.name).unwrap_or(&no_runs))) }
                    }
                    div.label {}
                    div.hours aria-hidden="true" { @for hour in (0..=24).step_by(3) { span { (hour) } } }
                }
            }
        }
    }
}

fn records(frame: &Frame, tasks: &[&TaskHealth], overview: &Overview) -> Markup {
    let lang = frame.lang;
    let with: Vec<(&TaskHealth, &Vec<Day>)> = tasks
        .iter()
        .filter_map(|t| Some((*t, overview.days.get(&t.name)?)))
        .filter(|(_, days)| days.iter().any(|d| d.records.unwrap_or(0.0) > 0.0))
        .collect();
    if with.is_empty() {
        return html! {};
    }
    html! {
        section.card aria-labelledby="records" {
            div.bar {
                h2 #records { (lang.say("每次运行的记录数，30 天", "Records of a run, 30 days")) }
                ul.legend {
                    li { span.key.usual {} (lang.say("通常", "usual")) }
                    li { span.key.odd {} (lang.say("异常：不足一半或超过两倍", "unusual: below half, or more than twice")) }
                }
            }
            div.multiples {
                @for (t, days) in with {
                    @let last = days.iter().rev().find(|d| d.records.is_some());
                    div.multiple {
                        h3 { (frame.link(&frame.task(&t.name), &html! { (t.title) })) }
                        (chart::days(frame, days))
                        @if let Some(d) = last {
                            p.faint {
                                strong { (count(d.records.unwrap_or(0.0).round() as u64)) }
                                @if let Some(usual) = d.usual { (lang.say(format!("，通常 {}", count(usual.round() as u64)), format!(", usually {}", count(usual.round() as u64)))) }
                            }
                        }
                    }
                }
            }
        }
    }
}
