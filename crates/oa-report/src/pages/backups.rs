//! Backups: whether they can be relied on, which there are, what drills said.

use std::collections::HashMap;
use std::sync::Arc;

use maud::{Markup, html};
use oa_core::app::config::Backup as Configured;

use super::layout::{self, Frame, icon};
use super::{chart, recovery};
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
    let main = app.config.backup.as_ref().map(Configured::repository_name);
    let body = html! {
        (verdict(frame, &status))
        (recovery::section(frame, &status))
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
            @else { (table(frame, &list, main.as_deref())) }
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
    let full = status.latest_full.as_ref();
    html! {
        section class={ "verdict " (layout::tone(status.status.as_str())) } {
            (icon(status.status.as_str()))
            div.words {
                h1 { (title) }
                p { (status.message) }
                @if let Some(full) = full { p { (lang.say("最新全量 ", "newest full ")) (frame.clock.relative(full.time)) (lang.say(format!("，其后 {} 个增量", status.chain_length), format!(", {} incremental ones since", status.chain_length))) } }
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

/// A full backup with what continues it, newest first; those without a full one that is there stand by themselves.
fn chains(list: &[Backup]) -> Vec<Vec<&Backup>> {
    let mut chains: Vec<Vec<&Backup>> = Vec::new();
    let mut at: HashMap<&str, usize> = HashMap::new();
    for backup in list {
        // What continues a full one names it, or another that does.
        let root = backup.parent_id.as_deref().unwrap_or(&backup.id);
        if let Some(i) = at.get(root).copied() {
            chains[i].push(backup);
            at.insert(&backup.id, i);
        } else {
            at.insert(root, chains.len());
            at.insert(&backup.id, chains.len());
            chains.push(vec![backup]);
        }
    }
    for chain in &mut chains {
        chain.sort_by_key(|b| (b.level != "full", std::cmp::Reverse(b.finished_at)));
    }
    chains
}

fn table(frame: &Frame, list: &[Backup], main: Option<&str>) -> Markup {
    let lang = frame.lang;
    html! {
        table.backups {
            thead { tr {
                th scope="col" { (lang.say("完成", "Ended")) }
                th scope="col" { (lang.say("种类", "Kind")) }
                th scope="col" { (lang.say("可恢复", "Restorable")) }
                th.num scope="col" { (lang.say("大小", "Size")) }
                th.num scope="col" { (lang.say("仓库增加", "Added")) }
                th scope="col" { (lang.say("校验", "Verified")) }
                th scope="col" { (lang.say("编号", "Id")) }
            } }
            @for chain in chains(list) {
                @let (first, rest) = (chain[0], &chain[1..]);
                tbody {
                    (backup(frame, first, main))
                    @if rest.len() == 1 { (backup(frame, rest[0], main)) }
                    @else if let (Some(newest), Some(oldest)) = (rest.first(), rest.last()) {
                        tr.folded { td colspan="7" {
                            details {
                                summary {
                                    (lang.say(format!("其后 {} 个增量", rest.len()), format!("{} incremental ones since", rest.len())))
                                    " · " (frame.clock.at(oldest.restorable_from)) " – " (frame.clock.at(newest.restorable_to))
                                    " · " (lang.size(rest.iter().map(|b| b.added_bytes).sum()))
                                }
                                table { tbody { @for b in rest { (backup(frame, b, main)) } } }
                            }
                        } }
                    }
                }
            }
        }
    }
}

fn backup(frame: &Frame, b: &Backup, main: Option<&str>) -> Markup {
    let lang = frame.lang;
    let level = match b.level.as_str() {
        "full" => lang.say("全量", "full"),
        _ => lang.say("增量", "incremental"),
    };
    let kind = match b.kind.as_str() {
        "physical" => lang.say("物理", "physical"),
        "logical" => lang.say("逻辑", "logical"),
        _ => lang.say("文件", "files"),
    };
    html! {
        tr {
            th scope="row" { (frame.clock.time(b.finished_at)) }
            td {
                span class={ "level " (b.level) } { (level) } " " span.faint { (kind) }
                @if main.is_some_and(|m| m != b.repository) { " " span.tag title=(b.repository) { (lang.say("副本", "copy")) } }
                @if let Some(reason) = &b.unrestorable { span.error.full { (reason) } }
                @if let Some(pages) = &b.damaged_pages { span.error.full { (lang.say("服务器的数据页已损坏：", "damaged on the server: ")) (pages) } }
                @if b.missing_since.is_some() { span.status.bad { (icon("error")) (lang.say("已消失", "gone")) } }
            }
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
                @if let Some(to) = b.recovered_to { span.since { (lang.say("已试恢复到 ", "recovered to ")) (frame.clock.time(to)) } }
            }
            td { code title=(b.id) { (b.id.chars().take(12).collect::<String>()) } }
        }
    }
}
