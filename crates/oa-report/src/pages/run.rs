//! One run: what came of it and why, its attempts with what its program printed, what was received, and what was not stored.

use std::sync::Arc;

use maud::{Markup, html};
use oa_core::model::event::Work;
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::Status;
use serde_json::{Map, Value};

use super::layout::{self, Frame};
use super::words::{again, count};
use super::{act, ansi, chart};
use crate::app::App;
use crate::app::answer::Answer;
use crate::app::params::Params;
use crate::queries;
use crate::queries::kept;
use crate::queries::run::{RunDetail, RunQuality};

/// Lines of an output that are seen at once; those before them are folded away.
const SEEN: usize = 40;
/// A run under way asks for news each so many seconds.
const FOLLOWED: u8 = 3;
/// What has a place of its own on the page.
const SHOWN: [&str; 7] = [
    "output",
    "earlier_output",
    "ended",
    "program",
    "provider",
    "table",
    "source_sha256",
];

/// What the run has left on this machine.
struct Kept {
    /// Answers that are in the archive, by their number.
    answers: Vec<i32>,
    failures: Vec<String>,
    source: Option<String>,
}

pub(crate) async fn page(app: &Arc<App>, frame: &Frame, params: &Params) -> Result<Markup, Answer> {
    let lang = frame.lang;
    let id = params.required_uuid("id")?;
    let state_dir = app.config.state_dir.clone();
    let found = app
        .ask(move |tx| {
            let run = queries::run::detail(tx, id)?;
            Ok(run.map(|mut run| {
                kept::add_live_output(&state_dir, &mut run);
                let here = |sha256: &str| kept::has_answer(&state_dir, sha256);
                let entry = &run.run;
                let (from, until) = (entry.start_time, entry.end_time);
                let sha256 = run.details["source_sha256"].as_str();
                let kept = Kept {
                    answers: run
                        .raw
                        .iter()
                        .filter(|r| here(&r.sha256))
                        .map(|r| r.seq)
                        .collect(),
                    failures: kept::failures(&state_dir, &entry.task_name, from, until),
                    source: sha256.and_then(|s| kept::source(&state_dir, s)),
                };
                (run, kept)
            }))
        })
        .await?;
    let (run, kept) = found.ok_or_else(|| {
        Answer::problem(
            hyper::StatusCode::NOT_FOUND,
            lang.say(format!("没有运行 {id}"), format!("there is no run {id}")),
        )
    })?;
    let title = format!("{} · {}", run.title, lang.status(&run.run.status));
    let live = run.run.end_time.is_none().then_some(FOLLOWED);
    let body = body(frame, &run, &kept);
    Ok(layout::page_with(frame, &title, &body, live))
}

fn body(frame: &Frame, run: &RunDetail, kept: &Kept) -> Markup {
    let lang = frame.lang;
    let entry = &run.run;
    html! {
        div.head {
            div.bar {
                p.crumbs {
                    a href=(frame.url("/admin/logs")) { (lang.say("运行记录", "Runs")) } " / "
                    a href=(frame.url(&frame.task(&entry.task_name))) { (entry.task_name) }
                }
                nav.pages aria-label=(lang.say("前后的运行", "Runs before and after")) {
                    @if let Some(id) = run.previous { a rel="prev" href=(frame.url(&format!("/admin/runs/{id}"))) { (lang.say("← 上一次", "← previous")) } }
                    @if let Some(id) = run.next { a rel="next" href=(frame.url(&format!("/admin/runs/{id}"))) { (lang.say("下一次 →", "next →")) } }
                }
            }
            h1 { (run.title) " " span class={ "tag " (layout::tone(&entry.status)) } { (layout::icon(&entry.status)) (lang.status(&entry.status)) } }
            p.faint { code { (entry.id) } }
        }
        (cause(frame, run))
        (act::asked(frame, Some(&entry.task_name)))
        (facts(frame, run))
        (output(frame, run))
        @if !kept.failures.is_empty() { (failures(frame, run, &kept.failures)) }
        @if run.attempts.len() > 1 || run.attempts.iter().any(|a| a.error.is_some()) { (attempts(frame, run)) }
        @if let Some(quality) = &run.quality { (of_quality(frame, quality)) }
        @if !run.rejects.is_empty() { (rejects(frame, run)) }
        @if !run.raw.is_empty() { (raw(frame, run, &kept.answers)) }
        @if run.history.len() > 1 {
            section.card aria-labelledby="history" {
                h2 #history { (lang.say(format!("用时，最近 {} 次", run.history.len()), format!("How long it took, {} runs", run.history.len()))) }
                div.wide { (chart::durations(frame, &run.history, entry.id)) }
            }
        }
        @if let Some(text) = &kept.source {
            section.card aria-labelledby="source" {
                details {
                    summary { h2 #source { (lang.say("当时的来源文件", "The source file as it was")) } }
                    (copyable(frame, "source-text", "text", &html! { (text) }))
                }
            }
        }
        (details(frame, &run.details))
    }
}

/// Why it is no success, in words, and what to do.
fn cause(frame: &Frame, run: &RunDetail) -> Markup {
    let lang = frame.lang;
    let entry = &run.run;
    let status = serde_json::from_value::<Status>(Value::String(entry.status.clone()));
    let kind = run.error_kind.as_deref().and_then(ErrorKind::parse);
    let known = match (status, kind) {
        (Ok(Status::Abandoned), _) => Some((Status::Abandoned, ErrorKind::Internal)),
        (Ok(status @ (Status::Partial | Status::Failed | Status::Timeout)), Some(kind)) => {
            Some((status, kind))
        }
        _ => None,
    };
    let words = known.map(|(status, kind)| {
        oa_wording::explanation(
            work(run),
            status,
            kind,
            (&entry.task_name, entry.id),
            lang.0,
        )
    });
    if entry.error.is_none() && words.is_none() {
        return html! {};
    }
    let task = frame
        .snapshot()
        .and_then(|s| s.tasks.iter().find(|t| t.name == entry.task_name));
    let command = task.and_then(again);
    html! {
        section class={ "card message " (layout::tone(&entry.status)) } aria-labelledby="error" {
            h2 #error {
                @match &words {
                    Some((cause, _)) => { (cause) }
                    None => { (lang.say("原因", "Cause")) }
                }
            }
            @if let Some(error) = &entry.error { (copyable(frame, "error-text", "text", &html! { (error) })) }
            @if let Some((_, remedy)) = &words { p.remedy { (remedy) } }
            @if let Some(command) = command.filter(|_| words.is_some()) {
                div.command {
                    (lang.say("再运行一次：", "run it again: ")) code { (command) }
                    " " button.copy type="button" data-copy=(command) { (lang.say("复制", "Copy")) }
                    @if task.is_some_and(|t| t.collects) { (act::run(frame, &entry.task_name)) }
                }
            }
        }
    }
}

fn work(run: &RunDetail) -> Work {
    match run.tool.as_str() {
        _ if run.details.get("program").is_some() => Work::Program,
        "oa-crawl" => Work::Source,
        "oa-backup" | "oa-restore" => Work::Backup,
        _ => Work::Tool,
    }
}

fn facts(frame: &Frame, run: &RunDetail) -> Markup {
    let lang = frame.lang;
    let entry = &run.run;
    let detail = |name: &str| run.details[name].as_str();
    html! {
        section.card aria-labelledby="facts" {
            h2.hidden #facts { (lang.say("概况", "Facts")) }
            dl.facts {
                div { dt { (lang.say("开始", "Started")) } dd { (frame.clock.time(entry.start_time)) @if entry.end_time.is_none() { " · " (frame.clock.relative(entry.start_time)) } } }
                div { dt { (lang.say("用时", "Took")) } dd { (entry.duration.map_or_else(|| lang.say("还在运行", "still running").to_owned(), |s| lang.span(s))) } }
                div { dt { (lang.say("收到", "Received")) } dd { (count(run.fetched)) } }
                div { dt { (lang.say("新增", "New")) } dd { (count(entry.inserted)) } }
                div { dt { (lang.say("更新", "Changed")) } dd { (count(entry.updated)) } }
                div { dt { (lang.say("不变", "Unchanged")) } dd { (count(run.unchanged)) } }
                div { dt { (lang.say("拒绝", "Rejected")) } dd { (count(entry.rejected)) } }
                div { dt { (lang.say("启动方式", "Started by")) } dd { (lang.trigger(&entry.trigger)) } }
                div { dt { (lang.say("机器", "Machine")) } dd { (entry.host) " · " (run.pid) } }
                div { dt { (lang.say("程序", "Program")) } dd { (run.tool) " " (run.version) } }
                @if let Some(table) = detail("table") { div { dt { (lang.say("表", "Table")) } dd { code { (table) } } } }
                @if let Some(program) = detail("program") { div { dt { (lang.say("命令", "Command")) } dd { code { (program) } @if let Some(ended) = detail("ended") { " · " (ended) } } } }
            }
        }
    }
}

/// A text that stays as it is, and can be copied. `class` is `text`, or `text end` for what is seen to its end without scrolling.
fn copyable(frame: &Frame, id: &str, class: &str, text: &Markup) -> Markup {
    html! {
        div.copyable {
            button.copy type="button" data-copy-of=(id) { (frame.lang.say("复制", "Copy")) }
            pre class=(class) id=(id) tabindex="0" { (text) }
        }
    }
}

/// What a program printed: its end is seen, what is before it is folded away.
fn printed(frame: &Frame, id: &str, text: &str) -> Markup {
    let lang = frame.lang;
    let text = ansi::in_lines(text);
    let lines = text.lines().count();
    let cut = text
        .match_indices('\n')
        .nth(lines.saturating_sub(SEEN + 1))
        .filter(|_| lines > SEEN)
        .map(|(at, _)| at + 1);
    html! {
        @if let Some(cut) = cut {
            details {
                summary { (lang.say(format!("前面的 {} 行", lines - SEEN), format!("{} lines before", lines - SEEN))) }
                (copyable(frame, &format!("{id}-all"), "text", &ansi::render(&text[..cut])))
            }
        }
        (copyable(frame, id, "text end", &ansi::render(&text[cut.unwrap_or(0)..])))
    }
}

pub(super) fn output(frame: &Frame, run: &RunDetail) -> Markup {
    let lang = frame.lang;
    let Some(output) = run.details["output"].as_str() else {
        return html! {};
    };
    let under_way = run.run.end_time.is_none();
    html! {
        section.card aria-labelledby="output" {
            h2 #output { (lang.say("程序输出", "Output of the program")) @if under_way { " " span.faint { (lang.say("还在运行，随时更新", "it still runs; this keeps up with it")) } } }
            @if ansi::plain(output).trim().is_empty() {
                p.empty { (if under_way { lang.say("还没有输出", "It has printed nothing yet") } else { lang.say("没有输出", "It printed nothing") }) }
            }
            @else { (printed(frame, "output-text", output)) }
        }
    }
}

fn failures(frame: &Frame, run: &RunDetail, names: &[String]) -> Markup {
    let lang = frame.lang;
    let url = |name: &str| {
        let name = crate::app::request::escape(name);
        frame.url(&format!("/admin/runs/{}/failures/{name}", run.run.id))
    };
    html! {
        section.card aria-labelledby="failures" {
            h2 #failures { (lang.say("失败时的页面", "The page when it failed")) }
            @for name in names {
                @if name.ends_with(".png") {
                    a.shot href=(url(name)) { img src=(url(name)) alt=(lang.say("失败时的截图", "Screenshot of the failure")) loading="lazy"; }
                } @else {
                    p { a href=(url(name)) { (lang.say("页面的 HTML 文本", "its HTML as text")) } " " span.faint { (name) } }
                }
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

/// Side by side, each with what its program printed.
pub(super) fn attempts(frame: &Frame, run: &RunDetail) -> Markup {
    let lang = frame.lang;
    let earlier = run.details["earlier_output"].as_array();
    let printed_by = |attempt: i32| {
        let of = |o: &&Value| o["attempt"].as_i64() == Some(i64::from(attempt));
        earlier.and_then(|all| all.iter().find(of)?["output"].as_str())
    };
    html! {
        section.card aria-labelledby="attempts" {
            h2 #attempts { (lang.say("尝试", "Attempts")) }
            ol.attempts {
                @for a in &run.attempts {
                    li class=(layout::tone(&a.outcome)) {
                        h3 { (a.attempt) ". " (layout::status(lang, &a.outcome)) }
                        p.faint { (frame.clock.to_the_second(a.started_at)) " · " (lang.span((a.finished_at - a.started_at).as_seconds_f64())) }
                        @if let Some(error) = &a.error { p.error.full { (error) } }
                        @if let Some(output) = printed_by(a.attempt) {
                            details {
                                summary { (lang.say("程序输出", "Output of the program")) }
                                (printed(frame, &format!("output-{}", a.attempt), output))
                            }
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

fn raw(frame: &Frame, run: &RunDetail, here: &[i32]) -> Markup {
    let lang = frame.lang;
    html! {
        section.card aria-labelledby="raw" {
            h2 #raw { (lang.say("收到的原始内容", "What was received")) }
            @if here.is_empty() { p.faint { (lang.say(format!("归档在 {} 上，或已按 raw_keep 清理", run.run.host), format!("its archive is on {}, or was pruned by raw_keep", run.run.host))) } }
            table {
                thead { tr {
                    th scope="col" { (lang.say("时间", "Time")) }
                    th scope="col" { (lang.say("地址", "Address")) }
                    th.num scope="col" { "HTTP" }
                    th.num scope="col" { (lang.say("大小", "Size")) }
                    th scope="col" { (lang.say("内容", "Content")) }
                } }
                tbody {
                    @for r in &run.raw {
                        tr {
                            th scope="row" { (frame.clock.time(r.fetched_at)) }
                            td.message { span.url { (r.url) } @if let Some(part) = &r.part { " " span.faint { (part) } } }
                            td.num { (r.status) }
                            td.num { (lang.size(r.size_bytes)) }
                            td {
                                @if here.contains(&r.seq) { a href=(frame.url(&format!("/admin/runs/{}/raw/{}", run.run.id, r.seq))) { (lang.say("打开", "Open")) } " " }
                                code.faint title=(r.sha256) { (r.sha256.chars().take(12).collect::<String>()) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What else the program noted.
fn details(frame: &Frame, details: &Value) -> Markup {
    let mut rest: Map<String, Value> = details.as_object().cloned().unwrap_or_default();
    rest.retain(|name, _| !SHOWN.contains(&name.as_str()));
    html! {
        @if !rest.is_empty() {
            section.card aria-labelledby="details" {
                h2 #details { (frame.lang.say("其他", "Details")) }
                pre.text { (format!("{:#}", Value::Object(rest))) }
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
