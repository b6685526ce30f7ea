//! One run: what came of it, its attempts, what was received, and what was not stored.

use std::sync::Arc;

use maud::{Markup, html};

use super::layout::{self, Frame};
use super::words::count;
use crate::app::App;
use crate::app::answer::Answer;
use crate::app::params::Params;
use crate::queries;
use crate::queries::run::{RunDetail, RunQuality};
pub(crate) async fn page(app: &Arc<App>, frame: &Frame, params: &Params) -> Result<Markup, Answer> {
    let lang = frame.lang;
    let id = params.required_uuid("id")?;
    let run = app.ask(move |tx| queries::run::detail(tx, id)).await?;
    let run = run.ok_or_else(|| {
        Answer::problem(
            hyper::StatusCode::NOT_FOUND,
            lang.say(format!("没有运行 {id}"), format!("there is no run {id}")),
        )
    })?;
    let title = format!("{} · {}", run.title, lang.status(&run.run.status));
    Ok(layout::page(frame, &title, &body(frame, &run)))
}

fn body(frame: &Frame, run: &RunDetail) -> Markup {
    let lang = frame.lang;
    let entry = &run.run;
    html! {
        div.head {
            p.crumbs {
                a href=(frame.url("/admin/logs")) { (lang.say("运行记录", "Runs")) } " / "
                a href=(frame.url(&frame.task(&entry.task_name))) { (entry.task_name) }
            }
            h1 { (run.title) " " span class={ "tag " (layout::tone(&entry.status)) } { (layout::icon(&entry.status)) (lang.status(&entry.status)) } }
            p.faint { code { (entry.id) } }
        }
        @if let Some(error) = &entry.error {
            section class={ "card message " (layout::tone(&entry.status)) } aria-labelledby="error" {
                h2 #error { (lang.say("原因", "Cause")) @if let Some(kind) = &run.error_kind { " " span.faint { (kind) } } }
                pre { (error) }
            }
        }
        section.card aria-labelledby="facts" {
            h2.hidden #facts { (lang.say("概况", "Facts")) }
            dl.facts {
                div { dt { (lang.say("开始", "Started")) } dd { (frame.clock.time(entry.start_time)) } }
                div { dt { (lang.say("用时", "Took")) } dd { (entry.duration.map_or_else(|| "–".to_owned(), |s| lang.span(s))) } }
                div { dt { (lang.say("收到", "Received")) } dd { (count(run.fetched)) } }
                div { dt { (lang.say("新增", "New")) } dd { (count(entry.inserted)) } }
                div { dt { (lang.say("更新", "Changed")) } dd { (count(entry.updated)) } }
                div { dt { (lang.say("不变", "Unchanged")) } dd { (count(run.unchanged)) } }
                div { dt { (lang.say("拒绝", "Rejected")) } dd { (count(entry.rejected)) } }
                div { dt { (lang.say("启动方式", "Started by")) } dd { (entry.trigger) } }
                div { dt { (lang.say("机器", "Machine")) } dd { (entry.host) " · " (run.pid) } }
                div { dt { (lang.say("程序", "Program")) } dd { (run.tool) " " (run.version) } }
            }
        }
        @if let Some(quality) = &run.quality { (of_quality(frame, quality)) }
        @if !run.attempts.is_empty() { (attempts(frame, run)) }
        @if !run.rejects.is_empty() { (rejects(frame, run)) }
        @if !run.raw.is_empty() { (raw(frame, run)) }
        @if run.details.as_object().is_some_and(|d| !d.is_empty()) {
            section.card aria-labelledby="details" {
                h2 #details { (lang.say("其他", "Details")) }
                pre { (format!("{:#}", run.details)) }
            }
        }
    }
}

fn of_quality(frame: &Frame, quality: &RunQuality) -> Markup {
    let lang = frame.lang;
    html! {
        section.card aria-labelledby="quality" {
            h2 #quality { (lang.say("数据质量", "Quality")) " " span.faint { (quality.score) "/100" } }
            dl.facts {
                @if let Some(day) = quality.day { div { dt { (lang.say("数据日期", "Day")) } dd { (day) } } }
                div { dt { (lang.say("应有", "Expected")) } dd { (quality.expected.map_or_else(|| "–".to_owned(), |n| count(n.unsigned_abs()))) } }
                div { dt { (lang.say("实收", "Collected")) } dd { (count(quality.collected.unsigned_abs())) } }
                div { dt { (lang.say("重复", "Twice")) } dd { (quality.duplicates) } }
                div { dt { (lang.say("是否当日", "Of the day")) } dd { (match quality.fresh { Some(true) => lang.say("是", "yes"), Some(false) => lang.say("否", "no"), None => "–" }) } }
            }
            @if !quality.findings.is_empty() { ul.lines { @for finding in &quality.findings { li { (finding) } } } }
        }
    }
}

pub(super) fn attempts(frame: &Frame, run: &RunDetail) -> Markup {
    let lang = frame.lang;
    html! {
        section.card aria-labelledby="attempts" {
            h2 #attempts { (lang.say("尝试", "Attempts")) }
            table {
                thead { tr {
                    th scope="col" { "#" }
                    th scope="col" { (lang.say("开始", "Started")) }
                    th.num scope="col" { (lang.say("用时", "Took")) }
                    th scope="col" { (lang.say("结果", "Outcome")) }
                    th scope="col" { (lang.say("错误", "Error")) }
                } }
                tbody {
                    @for a in &run.attempts {
                        tr {
                            th scope="row" { (a.attempt) }
                            td { (frame.clock.time(a.started_at)) }
                            td.num { (lang.span((a.finished_at - a.started_at).as_seconds_f64())) }
                            td { (layout::status(lang, &a.outcome)) }
                            td.message { @if let Some(error) = &a.error { span.error.full { (error) } } }
                        }
                    }
                }
            }
        }
    }
}

fn rejects(frame: &Frame, run: &RunDetail) -> Markup {
    let lang = frame.lang;
    let all = run.run.rejected;
    html! {
        section.card aria-labelledby="rejects" {
            h2 #rejects { (lang.say("没有入库的记录", "Records that were not stored")) " " span.faint { (count(all)) } }
            @if all > run.rejects.len() as u64 { p.faint { (lang.say(format!("显示前 {} 条，其余在 oa.rejects", run.rejects.len()), format!("the first {}; the others are in oa.rejects", run.rejects.len()))) } }
            table.rejects {
                thead { tr {
                    th scope="col" { "#" }
                    th scope="col" { (lang.say("字段", "Field")) }
                    th scope="col" { (lang.say("原因", "Reason")) }
                    th scope="col" { (lang.say("记录", "Record")) }
                } }
                tbody {
                    @for r in &run.rejects {
                        tr {
                            th scope="row" { (r.seq) }
                            td { @if let Some(field) = &r.field { code { (field) } } @if let Some(key) = &r.source_key { " " span.faint { (key) } } }
                            td { (r.reason) }
                            td.message { details { summary { (short(&r.record.to_string())) } pre { (format!("{:#}", r.record)) } } }
                        }
                    }
                }
            }
        }
    }
}

fn raw(frame: &Frame, run: &RunDetail) -> Markup {
    let lang = frame.lang;
    html! {
        section.card aria-labelledby="raw" {
            h2 #raw { (lang.say("收到的原始内容", "What was received")) }
            table {
                thead { tr {
                    th scope="col" { (lang.say("时间", "Time")) }
                    th scope="col" { (lang.say("地址", "Address")) }
                    th.num scope="col" { "HTTP" }
                    th.num scope="col" { (lang.say("大小", "Size")) }
                    th scope="col" { "SHA-256" }
                } }
                tbody {
                    @for r in &run.raw {
                        tr {
                            th scope="row" { (frame.clock.time(r.fetched_at)) }
                            td.message { span.url { (r.url) } @if let Some(part) = &r.part { " " span.faint { (part) } } }
                            td.num { (r.status) }
                            td.num { (lang.size(r.size_bytes)) }
                            td { code title=(r.sha256) { (r.sha256.chars().take(12).collect::<String>()) } }
                        }
                    }
                }
            }
        }
    }
}

fn short(text: &str) -> String {
    let start: String = text.chars().take(80).collect();
    if start.len() < text.len() {
        start + "…"
    } else {
        start
    }
}
