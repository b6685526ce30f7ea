//! The run log, with filters.

use std::sync::Arc;

use maud::{Markup, html};

use super::layout::{self, Frame};
use super::words::count;
use crate::app::App;
use crate::app::answer::Answer;
use crate::app::params::Params;
use crate::queries;
use crate::queries::logs::{Entry, STATUSES};
pub(crate) async fn page(app: &Arc<App>, frame: &Frame, params: &Params) -> Result<Markup, Answer> {
    let lang = frame.lang;
    let filter = params.filter();
    let (runs, next) = app.ask(move |tx| queries::logs::page(tx, &filter)).await?;
    let names: Vec<(&str, &str)> = frame
        .snapshot()
        .map(|s| {
            s.tasks
                .iter()
                .map(|t| (t.name.as_str(), t.title.as_str()))
                .collect()
        })
        .unwrap_or_default();
    let body = html! {
        div.head { h1 { (lang.say("运行记录", "Runs")) } }
        section.card {
            form.filters method="get" action=(frame.url("/admin/logs")) role="search" {
                div {
                    label for="task" { (lang.say("任务", "Task")) }
                    input #task type="text" name="task" list="tasks" value=(frame.value("task")) autocomplete="off" placeholder=(lang.say("全部", "all"));
                    datalist #tasks { @for (name, title) in names.iter().take(300) { option value=(name) { (title) } } }
                }
                div {
                    label for="status" { (lang.say("状态", "Status")) }
                    select #status name="status" {
                        option value="" { (lang.say("全部", "all")) }
                        option value="not-ok" selected[frame.value("status") == "not-ok"] { (lang.say("未成功", "not ok")) }
                        @let chosen = frame.value("status");
                        @if chosen.contains([',', '!']) { option value=(chosen) selected { (chosen) } }
                        @for status in STATUSES { option value=(status) selected[frame.value("status") == status] { (lang.status(status)) } }
                    }
                }
                div {
                    label for="since" { (lang.say("从", "From")) }
                    input #since type="text" name="since" value=(frame.value("since")) placeholder=(lang.say("2h、昨天、2025-12-01", "2h, yesterday, 2025-12-01"));
                }
                div {
                    label for="until" { (lang.say("到", "Until")) }
                    input #until type="text" name="until" value=(frame.value("until")) placeholder=(lang.say("现在", "now"));
                }
                div.actions {
                    button type="submit" { (lang.say("筛选", "Filter")) }
                    a href=(frame.url("/admin/logs")) { (lang.say("清除", "Clear")) }
                }
            }
            @if runs.is_empty() { p.empty { (lang.say("没有符合条件的运行", "No run matches")) } }
            @else { (table(frame, &runs, true)) }
            nav.pages aria-label=(lang.say("翻页", "Pages")) {
                @if !frame.value("before").is_empty() { a rel="first" href=(frame.with(&[("before", None)])) { (lang.say("最新", "Newest")) } }
                @if let Some(next) = next { a rel="next" href=(frame.with(&[("before", Some(&next.to_string()))])) { (lang.say("更早", "Older")) } }
            }
        }
    };
    Ok(layout::page(frame, lang.say("运行记录", "Runs"), &body))
}

/// Runs as a table; each leads to its page.
pub(crate) fn table(frame: &Frame, runs: &[Entry], with_task: bool) -> Markup {
    let lang = frame.lang;
    let titles: std::collections::HashMap<&str, &str> = frame
        .snapshot()
        .map(|s| {
            s.tasks
                .iter()
                .map(|t| (t.name.as_str(), t.title.as_str()))
                .collect()
        })
        .unwrap_or_default();
    html! {
        table.runs {
            thead { tr {
                th scope="col" { (lang.say("开始", "Started")) }
                @if with_task { th scope="col" { (lang.say("任务", "Task")) } }
                th scope="col" { (lang.say("状态", "Status")) }
                th.num scope="col" { (lang.say("用时", "Took")) }
                th.num scope="col" { (lang.say("记录", "Records")) }
                th.num scope="col" { (lang.say("重试", "Retries")) }
                th scope="col" { (lang.say("错误", "Error")) }
            } }
            tbody {
                @for run in runs {
                    tr {
                        th.when scope="row" { a href=(frame.url(&format!("/admin/runs/{}", run.id))) { (frame.clock.time(run.start_time)) } }
                        @if with_task { td.task { a href=(frame.url(&frame.task(&run.task_name))) { (titles.get(run.task_name.as_str()).copied().unwrap_or(&run.task_name)) } } }
                        td { (layout::status(lang, &run.status)) }
                        td.num data-label=(lang.say("用时", "Took")) { (run.duration.map_or_else(|| "–".to_owned(), |s| lang.span(s))) }
                        td.num data-label=(lang.say("记录", "Records")) {
                            (count(run.records))
                            @if run.rejected > 0 { " " span.warn { (lang.say(format!("拒绝 {}", run.rejected), format!("{} rejected", run.rejected))) } }
                        }
                        td.num data-label=(lang.say("重试", "Retries")) { @if run.retry_count > 0 { (run.retry_count) } @else { span.faint { "0" } } }
                        td.message { @if let Some(error) = &run.error { span.error title=(error) { (error) } } }
                    }
                }
            }
        }
    }
}
