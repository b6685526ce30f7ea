//! The list of things that a person should look at, each with what to do about it.

use maud::{Markup, html};
use oa_wording::Text;

use super::act;
use super::layout::{self, Frame, icon};
use super::problems::{Item, Problem};
use crate::app::LONGEST_NOTE;
use crate::digest::short_hash;
use crate::queries::alerts::{self, Incident};
use crate::queries::days::{Unfilled, backfill};
use crate::queries::health::{Health, TaskHealth};
use crate::queries::watch::Fault;
use crate::snapshot::Snapshot;

fn of_watching(frame: &Frame, severity: Health, fault: Fault<'_>) -> Markup {
    let lang = frame.lang;
    let (title, remedy) = lang.watching(fault);
    let at = match fault {
        Fault::Never => None,
        Fault::NoCheck(w)
        | Fault::NoDue(w)
        | Fault::Failing(w)
        | Fault::Unfinished(w)
        | Fault::NoHeartbeat(w) => Some(w),
    };
    html! {
        li class=(layout::tone(severity.as_str())) {
            (icon(severity.as_str()))
            div.what {
                h3 { (frame.link("/admin/alerts", &html! { (title) })) }
                @if let Some(w) = at {
                    p.since { (w.host) " · " (lang.say("最近一次 ", "last ")) (frame.clock.relative(w.at)) }
                }
                p.remedy { (remedy) }
                @if let Some(w) = at.filter(|w| !w.detail.is_empty()) { p.error { (w.detail) } }
            }
        }
    }
}

pub(crate) fn list(frame: &Frame, problems: &[Problem<'_>], snapshot: &Snapshot) -> Markup {
    const MOST: usize = 8;
    let lang = frame.lang;
    html! {
        section.card aria-labelledby="todo" {
            h2 #todo { (lang.say("需要处理", "What to do")) }
            ol.todo { @for problem in problems.iter().take(MOST) { (one(frame, problem, snapshot)) } }
            @if problems.len() > MOST {
                details {
                    summary { (lang.say(format!("还有 {} 个", problems.len() - MOST), format!("{} more", problems.len() - MOST))) }
                    ol.todo.rest { @for problem in problems.iter().skip(MOST).take(200) { (one(frame, problem, snapshot)) } }
                }
            }
        }
    }
}

fn one(frame: &Frame, problem: &Problem<'_>, snapshot: &Snapshot) -> Markup {
    match problem.item {
        Item::Incident(t) => incident(frame, t),
        Item::Task(t) => task_problem(frame, t),
        Item::Holes {
            days,
            sources,
            most,
        } => of_holes(frame, days, sources, most),
        Item::Watching(item) => of_watching(frame, problem.severity, item),
        Item::Backups => html! {
            li class=(layout::tone(problem.severity.as_str())) {
                (icon(problem.severity.as_str()))
                div.what {
                    h3 { (frame.link("/admin/backups", &html! { (frame.lang.say("备份", "Backups")) })) }
                    (with_command(frame, frame.lang.say(snapshot.backups.messages.0.as_str(), snapshot.backups.messages.1.as_str())))
                }
            }
        },
    }
}

/// One item for all: the calendar below has each of them.
fn of_holes(frame: &Frame, days: i64, sources: usize, most: &Unfilled) -> Markup {
    let lang = frame.lang;
    let title = lang.say(
        format!("缺 {days} 天的数据，可以补采"),
        format!("Days that are lacking and can be filled: {days}"),
    );
    let fill = backfill(&most.task, most.from, most.to);
    let (line, rest) = match sources {
        1 => (most.title.clone(), String::new()),
        _ => (
            lang.say(
                format!(
                    "{sources} 个数据源，其中 {} 缺 {} 天",
                    most.title, most.days
                ),
                format!("{sources} sources; {}: {}", most.title, most.days),
            ),
            lang.say(
                "；其他数据源的命令用 oa-report days 查看",
                "; oa-report days has the commands of the other sources",
            )
            .to_owned(),
        ),
    };
    html! {
        li class=(layout::tone(Health::Warning.as_str())) {
            (icon(Health::Warning.as_str()))
            div.what {
                h3 { a href="#heat" { (title) } }
                p { (line) }
                p.remedy { (lang.say("补采：", "to fill them: ")) (fill) (rest) " " button.copy type="button" data-copy=(fill) { (lang.say("复制命令", "Copy the command")) } }
                div.acts { (act::backfill(frame, &most.task, &most.from.to_string(), &most.to.to_string())) }
            }
        }
    }
}

fn task_problem(frame: &Frame, task: &TaskHealth) -> Markup {
    let lang = frame.lang;
    let reasons: Vec<String> = task.reasons.iter().map(|r| lang.reason(*r, task)).collect();
    html! {
        li class=(layout::tone(task.severity.as_str())) {
            (icon(task.severity.as_str()))
            div.what {
                h3 { (frame.link(&frame.task(&task.name), &html! { (task.title) })) }
                p { (reasons.join(lang.say("；", "; "))) }
                @if let Some(reason) = task.reasons.last() { (with_command(frame, &lang.remedy(*reason, task))) }
                @if let Some(error) = task.last_error.as_ref().filter(|_| task.last_failed()) { p.error { (error) } }
                @if task.collects { div.acts { (act::run(frame, &task.name)) } }
            }
        }
    }
}

/// What to do besides acknowledging it.
fn buttons(frame: &Frame, incident: &Incident, id: &str) -> Markup {
    let Some(snapshot) = frame.snapshot().filter(|_| frame.form.is_some()) else {
        return html! {};
    };
    let collects = |task: &&String| {
        let mut tasks = snapshot.tasks.iter();
        tasks.any(|t| t.name == **task && t.collects)
    };
    html! {
        @if let Some(task) = incident.task.as_ref().filter(collects) { (act::run(frame, task)) }
        @if !incident.silenced { (act::silence_incident(frame, id, incident)) }
        @if incident.acknowledged_by.is_some() { (act::unacknowledge(frame, &incident.fingerprint)) }
    }
}

/// A remedy; the last command in it can be copied.
fn with_command(frame: &Frame, remedy: &str) -> Markup {
    html! {
        p.remedy {
            (remedy)
            @if let Some(command) = command_in(remedy) {
                " " button.copy type="button" data-copy=(command) title=(command) { (frame.lang.say("复制命令", "Copy the command")) }
            }
        }
    }
}

/// The last command line in a sentence: from a program's name to where other words begin.
fn command_in(text: &str) -> Option<String> {
    let ends = |c: char| "；，。（）();,：".contains(c) || c as u32 > 0x2e80;
    let words_after = ["and", "that", "line", "shows", "once", "to", "again"];
    let mut lines = text.split(ends).filter_map(|part| {
        let words = part
            .split_whitespace()
            .skip_while(|w| !w.starts_with("oa-"));
        let command: Vec<&str> = words.take_while(|w| !words_after.contains(w)).collect();
        // "oa-crawl run" alone is a way of speaking; to give a task up is nothing that a button offers as the remedy.
        let whole = match command.as_slice() {
            [_, "disable" | "forget", ..] => false,
            [_, "run" | "backfill" | "ack" | "silence"] => false,
            all => all.len() > 1,
        };
        whole.then(|| command.join(" ").trim_end_matches('.').to_owned())
    });
    lines.next_back()
}

/// An incident with what to do about it, and a form to acknowledge it.
pub(crate) fn incident(frame: &Frame, incident: &Incident) -> Markup {
    let lang = frame.lang;
    // A snapshot is for everybody: each page words it in its own language.
    let text = alerts::words(&incident.event, &frame.wording());
    let (lines, remedy) = lines(&text);
    let title = html! { (plain_title(&text.title)) };
    let id = format!("ack-{}", short_hash(incident.fingerprint.as_bytes()));
    html! {
        li class={ (layout::tone(&incident.severity)) @if incident.acknowledged_by.is_some() { " acknowledged" } } {
            (icon(&incident.severity))
            div.what {
                div.headline {
                    h3 {
                        @match &incident.task {
                            Some(task) => (frame.link(&frame.task(task), &title)),
                            None => (title),
                        }
                    }
                    p.since {
                        (lang.severity(&incident.severity)) " · " (lang.say("始于 ", "since ")) (frame.clock.relative(incident.since))
                        @if let Some(by) = &incident.acknowledged_by {
                            " · " strong { (lang.say(format!("{by} 处理中"), format!("acknowledged by {by}"))) }
                            @if let Some(note) = incident.note.as_ref().filter(|n| !n.is_empty()) { (lang.say("：", ": ")) (note) }
                        }
                        @if incident.silenced { " · " (lang.say("静默中", "silenced")) }
                        @if let Some(root) = root(frame, incident) { " · " (lang.say("由此引起：", "follows from: ")) (root) }
                    }
                }
                @if let Some(cause) = lines.first() { p { (cause) } }
                @if let Some(remedy) = &remedy { (with_command(frame, remedy)) }
                div.acts {
                    (buttons(frame, incident, &id))
                    @if lines.len() > 1 {
                        details {
                            summary { (lang.say("详情", "Details")) }
                            ul.lines { @for line in &lines[1..] { li { (line) } } }
                            @if let Some(run) = incident.run_id.filter(|_| !frame.standalone) {
                                p { a href=(frame.url(&format!("/admin/runs/{run}"))) { (lang.say("查看这次运行", "See the run")) } }
                            }
                        }
                    }
                }
            }
            @if incident.acknowledged_by.is_none() && let Some(form) = &frame.form {
                form.ack method="post" action=(frame.url("/admin/act")) {
                    input type="hidden" name="form" value=(form);
                    input type="hidden" name="do" value="ack";
                    input type="hidden" name="subject" value=(incident.fingerprint);
                    input type="hidden" name="back" value=(frame.path());
                    label.hidden for=(id) { (lang.say("备注", "Note")) }
                    input #(id) type="text" name="note" maxlength=(LONGEST_NOTE) placeholder=(lang.say("备注（可不填）", "Note (optional)"));
                    button type="submit" { (lang.say("我来处理", "Acknowledge")) }
                }
            }
        }
    }
}

/// The title of the incident from which this one follows.
fn root(frame: &Frame, incident: &Incident) -> Option<String> {
    let fingerprint = incident.follows.as_ref()?;
    let mut open = frame.snapshot()?.incidents.iter();
    let root = open.find(|i| i.fingerprint == *fingerprint)?;
    let text = alerts::words(&root.event, &frame.wording());
    Some(plain_title(&text.title).to_owned())
}

/// A message's lines without its marks, and the one that says what to do.
pub(crate) fn lines(text: &Text) -> (Vec<String>, Option<String>) {
    let plain = text.body.replace("**", "");
    let mut remedy = None;
    let mut rest = Vec::new();
    for line in plain
        .lines()
        .map(|l| l.trim_start_matches("- ").trim())
        .filter(|l| !l.is_empty() && *l != text.title)
    {
        match line
            .strip_prefix("处理：")
            .or_else(|| line.strip_prefix("What to do: "))
        {
            Some(text) if remedy.is_none() => remedy = Some(text.to_owned()),
            _ => rest.push(line.to_owned()),
        }
    }
    (rest, remedy)
}

/// Without `【故障】` or `[WARNING]`, which the sign says.
fn plain_title(title: &str) -> &str {
    let rest = title
        .strip_prefix('【')
        .and_then(|t| t.split_once('】'))
        .or_else(|| title.strip_prefix('[').and_then(|t| t.split_once(']')));
    rest.map_or(title, |(_, rest)| rest.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_of_a_remedy_is_what_is_copied() {
        for (text, command) in [
            (
                "到网站确认账号；更新 .env 后执行 oa-crawl run jiaoyikecha-positions",
                Some("oa-crawl run jiaoyikecha-positions"),
            ),
            (
                "see its cause with oa-report logs --run 1; once that is fixed, run oa-crawl run x",
                Some("oa-crawl run x"),
            ),
            ("稍后会自动再采；也可手动运行 oa-crawl run 补齐", None),
            (
                "检查 crontab 中是否有 oa-crawl run --due；等待",
                Some("oa-crawl run --due"),
            ),
            (
                "crontab 中是否有 oa-crawl run --due；不再需要则执行 oa-crawl disable x（已删除：oa-crawl forget x）",
                Some("oa-crawl run --due"),
            ),
            (
                "check it on the site; if you do not need it any more: oa-crawl disable x",
                None,
            ),
        ] {
            assert_eq!(command_in(text).as_deref(), command, "{text}");
        }
    }

    #[test]
    fn the_sign_replaces_the_words_before_a_title() {
        assert_eq!(
            plain_title("【故障】智汇期讯 采集失败"),
            "智汇期讯 采集失败"
        );
        assert_eq!(plain_title("[WARNING] x"), "x");
        assert_eq!(plain_title("磁盘"), "磁盘");
    }
}
