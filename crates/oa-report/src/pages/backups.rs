//! Backups: whether they can be relied on, which there are, what drills said.

use std::sync::Arc;

use maud::{Markup, html};

use super::chart;
use super::layout::{self, Frame, icon};
use crate::app::App;
use crate::app::answer::Answer;
use crate::queries::backups::{self, Backup, Drill, State, Status};
pub(crate) async fn page(app: &Arc<App>, frame: &Frame) -> Result<Markup, Answer> {
    let lang = frame.lang;
    let config = Arc::clone(&app.config);
    let wording = frame.wording();
    let (status, (list, more), drills, sizes) = app
        .ask(move |tx| {
            Ok((
                backups::status(tx, &config, &wording)?,
                backups::list(tx, false, None, 100)?,
                backups::drills(tx, 20)?,
                backups::sizes(tx)?,
            ))
        })
        .await?;
    let body = html! {
        (verdict(frame, &status))
        @if sizes.len() > 1 {
            section.card aria-labelledby="growth" {
                div.bar {
                    h2 #growth { (lang.say("仓库大小", "Size of the repository")) }
                    @if let Some(free) = status.repository.as_ref().and_then(|r| r.free_bytes) { span.faint { (lang.say("磁盘剩余 ", "left on its disk: ")) (lang.size(free)) } }
                }
                (chart::growth(frame, &sizes))
            }
        }
        section.card aria-labelledby="drills" {
            h2 #drills { (lang.say("恢复演练", "Rehearsed restores")) }
            @if drills.is_empty() { p.empty { (lang.say("从未演练。执行 oa-restore drill：没有恢复过的备份不算备份。", "Never. Run oa-restore drill: only a backup that was restored is one.")) } }
            @else { (of_drills(frame, &drills)) }
        }
        section.card aria-labelledby="list" {
            h2 #list { (lang.say("备份", "Backups")) " " span.faint { (status.total_backups) } }
            @if list.is_empty() { p.empty { (lang.say("还没有备份", "No backup yet")) } }
            @else { (table(frame, &list)) }
            @if more.is_some() { p.faint { (lang.say("显示最新 100 个，其余见 oa-report backups", "the newest 100; see oa-report backups for the others")) } }
        }
    };
    Ok(layout::page(frame, lang.say("备份", "Backups"), &body))
}

fn verdict(frame: &Frame, status: &Status) -> Markup {
    let lang = frame.lang;
    let title = match status.status {
        State::Ok => lang.say("备份可靠", "The backups can be relied on"),
        State::Warning => lang.say("备份需要注意", "The backups need attention"),
        State::Error => lang.say("备份不可靠", "The backups cannot be relied on"),
    };
    let drill = status.last_drill.as_ref();
    html! {
        section class={ "verdict " (layout::tone(status.status.as_str())) } {
            (icon(status.status.as_str()))
            div { h1 { (title) } p { (status.message) } }
        }
        div.tiles {
            div.tile { h2 { (lang.say("可恢复到", "Restorable to")) } p.big { (frame.clock.relative_or(status.restorable_to, "–")) } p.faint { @if let Some(to) = status.restorable_to { (frame.clock.at(to)) } } }
            div.tile { h2 { (lang.say("最新全量", "Newest full")) } p.big { (frame.clock.relative_or(status.latest_full.as_ref().map(|b| b.time), "–")) } p.faint { (lang.say(format!("其后 {} 个增量", status.chain_length), format!("{} incremental ones since", status.chain_length))) } }
            div.tile { h2 { (lang.say("最近读回", "Last read back")) } p.big { (frame.clock.relative_or(status.last_verified, "–")) } p.faint { "oa-backup verify --read-data" } }
            div.tile {
                h2 { (lang.say("恢复用时 RTO", "RTO")) }
                p.big { (drill.and_then(|d| d.rto_seconds).map_or_else(|| "–".to_owned(), |s| lang.short(s))) }
                p.faint { "RPO " (drill.and_then(|d| d.rpo_seconds).map_or_else(|| "–".to_owned(), |s| lang.short(s))) }
            }
        }
    }
}

fn of_drills(frame: &Frame, drills: &[Drill]) -> Markup {
    let lang = frame.lang;
    html! {
        table {
            thead { tr {
                th scope="col" { (lang.say("开始", "Started")) }
                th scope="col" { (lang.say("结果", "Outcome")) }
                th.num scope="col" { "RTO" }
                th.num scope="col" { "RPO" }
                th.num scope="col" { (lang.say("比较的表", "Tables compared")) }
                th scope="col" { (lang.say("说明", "Notes")) }
            } }
            tbody {
                @for d in drills {
                    tr {
                        th scope="row" { (frame.clock.time(d.started_at)) }
                        td { span class={ "status " (if d.ok { "good" } else { "bad" }) } { (icon(if d.ok { "ok" } else { "error" })) (if d.ok { lang.say("通过", "passed") } else { lang.say("失败", "failed") }) } }
                        td.num data-label="RTO" { (d.rto_seconds.map_or_else(|| "–".to_owned(), |s| lang.span(s))) }
                        td.num data-label="RPO" { (d.rpo_seconds.map_or_else(|| "–".to_owned(), |s| lang.span(s))) }
                        td.num data-label=(lang.say("比较的表", "Tables compared")) { (d.tables) }
                        td.message { @if let Some(error) = &d.error { span.error.full { (error) } } @else { span.faint { (d.host) } } }
                    }
                }
            }
        }
    }
}

fn table(frame: &Frame, list: &[Backup]) -> Markup {
    let lang = frame.lang;
    let level = |b: &Backup| {
        if b.level == "full" {
            lang.say("全量", "full")
        } else {
            lang.say("增量", "incremental")
        }
    };
    let kind = |b: &Backup| match b.kind.as_str() {
        "physical" => lang.say("物理", "physical"),
        "logical" => lang.say("逻辑", "logical"),
        _ => lang.say("文件", "files"),
    };
    html! {
        table {
            thead { tr {
                th scope="col" { (lang.say("完成", "Ended")) }
                th scope="col" { (lang.say("种类", "Kind")) }
                th scope="col" { (lang.say("可恢复", "Restorable")) }
                th.num scope="col" { (lang.say("大小", "Size")) }
                th.num scope="col" { (lang.say("仓库增加", "Added")) }
                th scope="col" { (lang.say("校验", "Verified")) }
                th scope="col" { (lang.say("编号", "Id")) }
            } }
            tbody {
                @for b in list {
                    tr {
                        th scope="row" { (frame.clock.time(b.finished_at)) }
                        td { span class={ "level " (b.level) } { (level(b)) } " " span.faint { (kind(b)) } }
                        td data-label=(lang.say("可恢复", "Restorable")) { (frame.clock.at(b.restorable_from)) @if b.restorable_from != b.restorable_to { " – " (frame.clock.at(b.restorable_to)) } }
                        td.num data-label=(lang.say("大小", "Size")) { (lang.size(b.size_bytes)) }
                        td.num data-label=(lang.say("仓库增加", "Added")) { (lang.size(b.added_bytes)) }
                        td {
                            @match (&b.check_error, b.checked.as_str()) {
                                (Some(error), _) => { span.status.bad { (icon("error")) } span.error.full { (error) } }
                                (None, "data") => { span.status.good { (icon("ok")) (lang.say("全部读回", "read back")) } }
                                (None, "structure") => { span.status.good { (icon("ok")) (lang.say("结构", "structure")) } }
                                _ => { span.faint { (lang.say("尚未", "not yet")) } }
                            }
                        }
                        td { code title=(b.id) { (b.id.chars().take(12).collect::<String>()) } }
                    }
                }
            }
        }
    }
}
