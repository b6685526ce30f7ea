//! The overview: one look answers whether everything is all right, and if not, what to do.

use std::collections::HashMap;
use std::sync::Arc;

use maud::{Markup, html};
use oa_core::app::config::{Locale, PROVIDERS};

use super::act;
use super::chart;
use super::heat;
use super::layout::{self, Frame, icon};
use super::problems::{self, Problem};
use super::recovery;
use super::todo;
use super::words::count;
use crate::app::App;
use crate::app::answer::Answer;
use crate::app::params::Params;
use crate::lang::Lang;
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
    let mut found = by_site(&snapshot);
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
    let aside = frame.snapshot().map_or_else(Vec::new, |s| aside(s));
    let taken = app
        .ask_prepared(move |tx| {
            let (shown, aside) = (shown.clone(), aside.clone());
            Overview::take(tx, &asking.config, &asking.calendar, shown, &aside)
        })
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
        (act::asked(frame, None))
        (heat::section(frame, &overview.owed, pages > 1))
        (recovery::section(frame, &snapshot.backups))
        (sources(frame, &tasks, overview, snapshot, (number, pages)))
        (system(frame, snapshot, overview))
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
    let summary = snapshot.summary();
    // What backups and reports count are no rows of data.
    let new: u64 = snapshot
        .tasks
        .iter()
        .filter(|t| t.tool == "oa-crawl")
        .map(|t| t.inserted)
        .sum();
    let rate = percent(success, runs).map_or_else(String::new, |p| {
        lang.say(
            format!("，成功率 {p}%"),
            format!(", {p} % of them successful"),
        )
    });
    html! {
        section class={ "verdict " (layout::tone(worst.as_str())) } aria-labelledby="verdict" {
            (icon(worst.as_str()))
            div.words {
                h1 #verdict { (title) }
                p {
                    (lang.say(
                        format!("{} 个任务，24 小时内运行 {} 次{rate}", snapshot.tasks.len(), count(runs)),
                        format!("{} tasks, {} runs in 24 hours{rate}", snapshot.tasks.len(), count(runs)),
                    ))
                    (lang.say(format!("，新增 {} 条", count(new)), format!(", {} new rows", count(new))))
                    @for (what, zh, en) in [("check", "告警检查", "checked"), ("due", "到期运行", "due runs"), ("heartbeat", "外部心跳", "heartbeat")] {
                        @if let Some(last) = watch::newest(&snapshot.watches, what) { " · " (lang.say(zh, en)) " " (frame.clock.relative(last.at)) }
                    }
                }
            }
            p.counts {
                span.status.good { (icon("healthy")) (summary.healthy) span.hidden { (lang.health(Health::Healthy)) } }
                span.status.warn { (icon("warning")) (summary.warning) span.hidden { (lang.health(Health::Warning)) } }
                span.status.bad { (icon("critical")) (summary.critical) span.hidden { (lang.health(Health::Critical)) } }
            }
        }
    }
}

/// The site that a source collects, by its place in the list of sites and its name; the operator's own programs come last.
pub(super) fn site(task: &TaskHealth, lang: Lang) -> (usize, String) {
    let names = [
        ("智汇期讯", "Zhihui"),
        ("方期看盘", "Fangqi"),
        ("交易可查", "Jiaoyikecha"),
        ("openvlab", "openvlab"),
        ("融达期货", "Rongda"),
        ("容大期货", "RDQH"),
        ("上期所", "SHFE"),
        ("上期能源", "INE"),
        ("大商所", "DCE"),
        ("郑商所", "CZCE"),
        ("中金所", "CFFEX"),
        ("广期所", "GFEX"),
    ];
    let of = |p: &str| {
        let rest = task.name.strip_prefix(p);
        task.collects && rest.is_some_and(|r| r.starts_with('-'))
    };
    match PROVIDERS.iter().position(|p| of(p)) {
        Some(i) => {
            let name = names
                .get(i)
                .map_or(PROVIDERS[i], |(zh, en)| lang.say(*zh, *en));
            (i, name.to_owned())
        }
        None if task.collects => (
            PROVIDERS.len(),
            lang.say("其他来源", "Other sources").to_owned(),
        ),
        None => (
            PROVIDERS.len() + 1,
            lang.say("自己的程序", "Programs of your own").to_owned(),
        ),
    }
}

/// Not collected for the service: backups, reports, drills.
fn is_system(task: &TaskHealth) -> bool {
    task.tool != "oa-crawl"
}

/// Names of the tasks that stand aside.
pub(crate) fn aside(snapshot: &Snapshot) -> Vec<String> {
    let mut tasks = snapshot.worst_first();
    tasks.retain(|t| is_system(t));
    tasks.truncate(SHOWN);
    tasks.iter().map(|t| t.name.clone()).collect()
}

/// Sources and programs, those of a site together: the worst site first, and of each the worst first.
pub(crate) fn by_site(snapshot: &Snapshot) -> Vec<&TaskHealth> {
    let lang = Lang::from(Locale::Zh);
    let mut found = snapshot.worst_first();
    found.retain(|t| !is_system(t));
    let mut worst: HashMap<usize, Health> = HashMap::new();
    for task in &found {
        let of = worst.entry(site(task, lang).0).or_default();
        *of = (*of).max(task.severity);
    }
    found.sort_by_cached_key(|t| {
        let (place, _) = site(t, lang);
        (std::cmp::Reverse(worst[&place]), place)
    });
    found
}

fn sources(
    frame: &Frame,
    tasks: &[&TaskHealth],
    overview: &Overview,
    snapshot: &Snapshot,
    (number, pages): (usize, usize),
) -> Markup {
    let lang = frame.lang;
    let all = snapshot.tasks.iter().filter(|t| !is_system(t)).count();
    let mut groups: Vec<(String, Vec<&TaskHealth>)> = Vec::new();
    for task in tasks {
        let (_, name) = site(task, lang);
        match groups.last_mut() {
            Some((last, of)) if *last == name => of.push(task),
            _ => groups.push((name, vec![task])),
        }
    }
    html! {
        section.card aria-labelledby="sources" {
            div.bar {
                h2 #sources { (lang.say("数据源", "Sources")) " " span.faint { (all) } }
                @if all > SHOWN && !frame.standalone {
                    form.filter method="get" action=(frame.url("/admin/")) role="search" {
                        label.hidden for="find" { (lang.say("查找任务", "Find a task")) }
                        input #find type="search" name="task" value=(frame.value("task")) placeholder=(lang.say("查找任务", "Find a task"));
                        button type="submit" { (lang.say("查找", "Find")) }
                    }
                }
            }
            @if all == 0 { p.empty { (lang.say("没有任务。oa-crawl run --due 运行后会出现在这里。", "No tasks yet. They appear once oa-crawl run --due has run.")) } }
            @else if tasks.is_empty() { p.empty { (lang.say("没有符合条件的任务", "No task matches")) } }
            @else { (table(frame, &groups, overview)) }
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

fn table(frame: &Frame, groups: &[(String, Vec<&TaskHealth>)], overview: &Overview) -> Markup {
    let lang = frame.lang;
    let none = Vec::new();
    html! {
        table.sources {
            thead { tr {
                th scope="col" { (lang.say("任务", "Task")) }
                th scope="col" { (lang.say("最近 48 次", "Last 48 runs")) }
                th.num scope="col" { (lang.say("24 小时", "24 hours")) }
                th.num scope="col" { (lang.say("上次成功", "Last success")) }
                th.num scope="col" { (lang.say("下次", "Next")) }
                th scope="col" { (lang.say("状态", "State")) }
            } }
            @for (name, tasks) in groups {
                tbody {
                    @if !name.is_empty() { tr.group { th colspan="6" scope="rowgroup" { (name) " " span.faint { (tasks.len()) } } } }
                    @for t in tasks { (source(frame, t, overview.recent_runs.get(&t.name).unwrap_or(&none))) }
                }
            }
        }
    }
}

/// Backups, reports and drills: aside, because what is wrong with them is on the list of things to do.
fn system(frame: &Frame, snapshot: &Snapshot, overview: &Overview) -> Markup {
    let lang = frame.lang;
    let mut tasks = snapshot.worst_first();
    tasks.retain(|t| is_system(t));
    if tasks.is_empty() {
        return html! {};
    }
    let unwell = tasks
        .iter()
        .filter(|t| t.severity != Health::Healthy)
        .count();
    let words = match unwell {
        0 => lang.say("全部正常".to_owned(), "all well".to_owned()),
        n => lang.say(format!("{n} 个需要注意"), format!("{n} need attention")),
    };
    tasks.truncate(SHOWN);
    let count = tasks.len();
    html! {
        section.card aria-labelledby="system" {
            details {
                summary { h2 #system { (lang.say("系统任务", "System tasks")) " " span.faint { (count) " · " (words) } } }
                (table(frame, &[(String::new(), tasks)], overview))
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
            td.state.calm[t.severity == Health::Healthy && t.awaited_until().is_none()] data-label=(lang.say("状态", "State")) {
                @if let Some(due) = t.awaited_until() { span.faint { (lang.first_due(due.with_timezone(&frame.clock.zone), frame.clock.now)) } }
                @else if t.severity == Health::Healthy { span.faint { (lang.state(t.state)) } }
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
            details {
            summary { h2 #records { (lang.say("每次运行的记录数，30 天", "Records of a run, 30 days")) } }
            ul.legend {
                li { span.key.usual {} (lang.say("通常", "usual")) }
                li { span.key.odd {} (lang.say("异常：不足一半或超过两倍", "unusual: below half, or more than twice")) }
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
}
