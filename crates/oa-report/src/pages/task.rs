//! One task: how it is, its last runs and days.

use std::sync::Arc;

use chrono::Days;
use maud::{Markup, html};

use super::layout::{self, Frame, icon};
use super::overview::sign;
use super::words::count;
use super::{act, chart, source};
use crate::app::App;
use crate::app::answer::Answer;
use crate::app::params::Params;
use crate::app::request::escape;
use crate::queries;
use crate::queries::health::TaskHealth;
use crate::queries::kept;
use crate::queries::logs::Filter;
use crate::queries::quality::Quality;
use crate::queries::source::Facts;

/// So many days are listed.
const DAYS: u64 = 30;

pub(crate) async fn page(app: &Arc<App>, frame: &Frame, params: &Params) -> Result<Markup, Answer> {
    let lang = frame.lang;
    let name = params.required_text("name")?;
    let (config, of) = (Arc::clone(&app.config), name.clone());
    let found = app
        .ask(move |tx| queries::task::detail(tx, &config, &of))
        .await?;
    let all = found.ok_or_else(|| {
        Answer::problem(
            hyper::StatusCode::NOT_FOUND,
            lang.say(
                format!("没有任务 {name}，或已停用"),
                format!("there is no task {name}, or it was given up"),
            ),
        )
    })?;
    let filter = Filter {
        task: Some(name.clone()),
        limit: 25,
        ..Filter::default()
    };
    let (of, config) = (name.clone(), Arc::clone(&app.config));
    let today = frame
        .clock
        .now
        .with_timezone(&frame.clock.zone)
        .date_naive();
    let span = (today - Days::new(DAYS), today);
    let ((runs, _), (quality, _), facts, days) = app
        .ask(move |tx| {
            let tasks = [of.clone()];
            Ok((
                queries::logs::page(tx, &filter)?,
                queries::quality::of(tx, &of, None, 1)?,
                queries::source::facts(tx, &of)?,
                queries::days::between(tx, &config, &tasks, span, i64::MAX)?,
            ))
        })
        .await?;
    let t = &all.task;
    // Its table may be large, or not for the role that asks: the rest of the page does not wait for it.
    let stored = match facts.table.clone().filter(|_| t.collects) {
        Some(table) => app
            .ask(move |tx| queries::source::stored(tx, &table))
            .await
            .unwrap_or_default(),
        None => None,
    };
    let file = facts
        .source_sha256
        .as_deref()
        .and_then(|sha256| kept::source(&app.config.state_dir, sha256));
    let incidents = frame
        .snapshot()
        .map(|s| {
            s.incidents
                .iter()
                .filter(|i| i.task.as_deref() == Some(&name))
                .cloned()
                .collect::<Vec<_>>()
        })
        .unwrap_or_default();
    let reasons: Vec<String> = t.reasons.iter().map(|r| lang.reason(*r, t)).collect();
    let body = html! {
        div.head {
            p.crumbs { a href=(frame.url("/admin/")) { (lang.say("总览", "Overview")) } " / " (t.name) }
            h1 { (icon(sign(t))) (t.title) " " span class={ "tag " (layout::tone(sign(t))) } { (lang.state(t.state)) } }
            @if !reasons.is_empty() { p.reason { (reasons.join(lang.say("；", "; "))) } }
            @if t.collects && frame.form.is_some() && incidents.is_empty() { div.acts { (act::run(frame, &t.name)) (act::silence(frame, "task", &[("task", &t.name)])) } }
        }
        (act::asked(frame, Some(&name)))
        @if !incidents.is_empty() {
            section.card aria-labelledby="todo" {
                h2 #todo { (lang.say("需要处理", "What to do")) }
                ol.todo { @for i in &incidents { (super::todo::incident(frame, i)) } }
            }
        }
        (of_facts(frame, t, &facts, quality.first()))
        @if t.collects { (source::days(frame, &days)) }
        @if let Some(stored) = &stored { (source::stored(frame, stored)) }
        section.card aria-labelledby="history" {
            h2 #history { (lang.say("最近的运行", "Last runs")) }
            div.wide { (chart::strip(frame, &all.runs)) }
            @if all.days.iter().any(|d| d.records.is_some()) {
                h3 { (lang.say("每次运行的记录数，30 天", "Records of a run, 30 days")) }
                div.wide { (chart::days(frame, &all.days)) }
            }
        }
        section.card aria-labelledby="runs" {
            div.bar {
                h2 #runs { (lang.say("运行记录", "Runs")) }
                a href=(frame.url(&format!("/admin/logs?task={}", escape(&t.name)))) { (lang.say("全部", "All")) }
            }
            (super::logs::table(frame, &runs, false))
            @if t.inserted > 0 { p.faint { (lang.say(format!("24 小时新增 {} 条", count(t.inserted)), format!("{} rows new in 24 hours", count(t.inserted)))) } }
        }
    };
    let body = html! { (body) @if let Some(text) = &file { (source::file(frame, text)) } };
    Ok(layout::page(frame, &t.title, &body))
}

fn of_facts(frame: &Frame, t: &TaskHealth, facts: &Facts, quality: Option<&Quality>) -> Markup {
    let lang = frame.lang;
    html! {
        section.card aria-labelledby="facts" {
            h2.hidden #facts { (lang.say("概况", "Facts")) }
            dl.facts {
                div { dt { (lang.say("24 小时", "24 hours")) } dd { (t.success) " / " (t.runs) @if let Some(rate) = t.success_rate { " · " (rate) "%" } } }
                div { dt { (lang.say("上次成功", "Last success")) } dd { (frame.clock.relative_or(t.last_success, "–")) } }
                div { dt { (lang.say("上次用时", "Last took")) } dd { (t.last_duration.map_or_else(|| "–".to_owned(), |s| lang.span(s))) } }
                div { dt { (lang.say("下次", "Next")) } dd { @if facts.due.is_empty() { (frame.clock.relative_or(t.next_due, "–")) } @for (i, at) in facts.due.iter().enumerate() { @if i > 0 { (lang.say("、", ", ")) } (frame.clock.time(*at)) } } }
                div { dt { (lang.say("排期", "Schedule")) } dd { @match &t.schedule { Some(s) => { @if let Some(words) = source::schedule_in_words(lang, s, facts) { (words) " " } code.faint { (s) } } None => { span.faint { (lang.say("无", "none")) } } } } }
                div { dt { (lang.say("连续失败", "Failures in a row")) } dd { (t.consecutive_failures) } }
                @if let Some(q) = quality {
                    div { dt { (lang.say("数据质量", "Quality")) } dd { (q.score) @if let Some(c) = q.completeness { " · " (lang.say("完整 ", "complete ")) (format!("{:.1}%", (c * 1000.0).floor() / 10.0)) } } }
                }
                div { dt { (lang.say("程序", "Program")) } dd { (t.tool) } }
            }
            @if let Some(q) = quality.filter(|q| !q.findings.is_empty()) {
                ul.lines { @for finding in &q.findings { li { (finding) } } }
            }
        }
    }
}
