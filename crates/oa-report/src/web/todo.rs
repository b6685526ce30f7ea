//! What a person should look at, worst first, with what to do about it.

use maud::{Markup, html};

use super::layout::{self, Frame, icon};
use crate::queries::alerts::Trouble;
use crate::queries::backups::State;
use crate::queries::health::{Health, TaskHealth};
use crate::queries::watch::{self, Watch};
use crate::snapshot::Snapshot;

/// The worst of everything: tasks, open troubles, backups.
#[must_use]
pub fn worst(snapshot: &Snapshot) -> Health {
    problems(snapshot)
        .iter()
        .map(|i| i.severity)
        .max()
        .unwrap_or(Health::Healthy)
}

/// What it is about.
#[derive(Debug)]
pub enum Item<'a> {
    /// An open trouble.
    Trouble(&'a Trouble),
    /// A task that is not well, and of which no trouble tells.
    Task(&'a TaskHealth),
    /// The backups.
    Backups,
    /// Nobody watches, or what was found reaches nobody: title and remedy.
    Watching(Watching<'a>),
}

/// What is wrong with the watching itself.
#[derive(Debug, Clone, Copy)]
pub enum Watching<'a> {
    /// No `oa-alert check` has ever been here.
    Never,
    /// The last `oa-alert check` is long ago.
    NoCheck(&'a Watch),
    /// The last `oa-crawl run --due` is long ago.
    NoDue(&'a Watch),
    /// The last check did not work, or what it has to say does not leave.
    Failing(&'a Watch),
}

/// Something that a person should look at.
#[derive(Debug)]
pub struct Problem<'a> {
    /// How bad it is.
    pub severity: Health,
    /// What it is about.
    pub item: Item<'a>,
}

impl Problem<'_> {
    /// Somebody has taken it on.
    #[must_use]
    pub fn is_taken_on(&self) -> bool {
        matches!(self.item, Item::Trouble(t) if t.taken_on_by.is_some())
    }
}

/// What is wrong: open troubles, tasks that are not well and of which no trouble tells, backups. Worst first, taken on last.
#[must_use]
pub fn problems(snapshot: &Snapshot) -> Vec<Problem<'_>> {
    let of_trouble = |t: &Trouble| match t.severity.as_str() {
        "critical" => Health::Critical,
        _ => Health::Warning,
    };
    let told = |task: &TaskHealth| {
        snapshot
            .troubles
            .iter()
            .any(|t| t.task.as_deref() == Some(&task.name))
    };
    let troubles = snapshot.troubles.iter().map(|t| Problem {
        severity: of_trouble(t),
        item: Item::Trouble(t),
    });
    let tasks = snapshot
        .tasks
        .iter()
        .filter(|t| t.health != Health::Healthy && !t.has_healed() && !told(t))
        .map(|t| Problem {
            severity: t.health,
            item: Item::Task(t),
        });
    let backups = (snapshot.backups.status != State::Ok).then_some(Problem {
        severity: if snapshot.backups.status == State::Error {
            Health::Critical
        } else {
            Health::Warning
        },
        item: Item::Backups,
    });
    let watching = watching(snapshot).into_iter();
    let all = watching.chain(troubles).chain(tasks).chain(backups);
    let mut all: Vec<Problem<'_>> = all.collect();
    all.sort_by_key(|p| (p.is_taken_on(), std::cmp::Reverse(p.severity)));
    all
}

/// Whether somebody watches: without that nothing that is said here is sure.
fn watching(snapshot: &Snapshot) -> Vec<Problem<'_>> {
    let mut found = Vec::new();
    let mut add = |severity, item| {
        found.push(Problem {
            severity,
            item: Item::Watching(item),
        });
    };
    match watch::newest(&snapshot.watches, "check") {
        None if !snapshot.tasks.is_empty() => add(Health::Warning, Watching::Never),
        None => {}
        Some(check) if check.is_silent() => add(Health::Critical, Watching::NoCheck(check)),
        Some(_) => {}
    }
    let checks = snapshot.watches.iter().filter(|w| w.what == "check");
    for check in checks.filter(|w| !w.ok && !w.is_silent()) {
        add(Health::Critical, Watching::Failing(check));
    }
    if let Some(due) = watch::newest(&snapshot.watches, "due").filter(|d| d.is_silent()) {
        add(Health::Critical, Watching::NoDue(due));
    }
    found
}

fn of_watching(frame: &Frame, severity: Health, item: Watching<'_>) -> Markup {
    let lang = frame.lang;
    let cron = |line: &str| {
        lang.say(
            format!("检查 cron 是否在运行、crontab 中是否有 {line}"),
            format!("check that cron runs and that the crontab has {line}"),
        )
    };
    let (title, remedy, at) = match item {
        Watching::Never => (
            lang.say(
                "告警检查从未运行，出了问题无人得知",
                "Nothing was ever checked: nobody hears of what goes wrong",
            ),
            cron("oa-alert check"),
            None,
        ),
        Watching::NoCheck(w) => (
            lang.say(
                "告警检查已停止，出了问题无人得知",
                "Nothing is checked any more: nobody hears of what goes wrong",
            ),
            cron("oa-alert check"),
            Some(w),
        ),
        Watching::NoDue(w) => (
            lang.say("到期任务无人启动", "Nobody starts what is due"),
            cron("oa-crawl run --due"),
            Some(w),
        ),
        Watching::Failing(w) => (
            lang.say("告警没有送达", "Alerts do not reach people"),
            lang.say(
                "按详情修复后执行 oa-alert test".to_owned(),
                "mend what the details say, then run oa-alert test".to_owned(),
            ),
            Some(w),
        ),
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

/// The list of them.
#[must_use]
pub fn list(frame: &Frame, problems: &[Problem<'_>], snapshot: &Snapshot) -> Markup {
    const MOST: usize = 12;
    let lang = frame.lang;
    html! {
        section.card aria-labelledby="todo" {
            h2 #todo { (lang.say("需要处理", "What to do")) }
            ol.todo {
                @for problem in problems.iter().take(MOST) {
                    @match problem.item {
                        Item::Trouble(t) => (trouble(frame, t, "overview")),
                        Item::Task(t) => (task_problem(frame, t)),
                        Item::Watching(item) => (of_watching(frame, problem.severity, item)),
                        Item::Backups => {
                            li class=(layout::tone(problem.severity.as_str())) {
                                (icon(problem.severity.as_str()))
                                div.what {
                                    h3 { (frame.link("/admin/backups", &html! { (lang.say("备份", "Backups")) })) }
                                    p.remedy { (snapshot.backups.message) }
                                }
                            }
                        }
                    }
                }
            }
            @if problems.len() > MOST {
                p.more { (frame.link("/admin/alerts", &html! { (lang.say(format!("还有 {} 个", problems.len() - MOST), format!("{} more", problems.len() - MOST))) })) }
            }
        }
    }
}

fn task_problem(frame: &Frame, task: &TaskHealth) -> Markup {
    let lang = frame.lang;
    let reasons: Vec<String> = task.reasons.iter().map(|r| lang.reason(*r, task)).collect();
    html! {
        li class=(layout::tone(task.health.as_str())) {
            (icon(task.health.as_str()))
            div.what {
                h3 { (frame.link(&frame.task(&task.name), &html! { (task.title) })) }
                p { (reasons.join(lang.say("；", "; "))) }
                @if let Some(reason) = task.reasons.last() { p.remedy { (lang.remedy(*reason, task)) } }
                @if let Some(error) = task.last_error.as_ref().filter(|_| task.last_failed()) { p.error { (error) } }
            }
        }
    }
}

/// A trouble with what to do about it, and a form to take it on.
#[must_use]
pub fn trouble(frame: &Frame, trouble: &Trouble, back: &str) -> Markup {
    let lang = frame.lang;
    let (lines, remedy) = lines(trouble);
    let title = html! { (plain_title(&trouble.title)) };
    let id = format!(
        "ack-{}",
        crate::server::answer::hash(trouble.fingerprint.as_bytes())
    );
    html! {
        li class={ (layout::tone(&trouble.severity)) @if trouble.taken_on_by.is_some() { " taken" } } {
            (icon(&trouble.severity))
            div.what {
                h3 {
                    @match &trouble.task {
                        Some(task) => (frame.link(&frame.task(task), &title)),
                        None => (title),
                    }
                }
                p.since {
                    (lang.severity(&trouble.severity)) " · " (lang.say("始于 ", "since ")) (frame.clock.relative(trouble.since))
                    @if let Some(by) = &trouble.taken_on_by {
                        " · " strong { (lang.say(format!("{by} 处理中"), format!("taken on by {by}"))) }
                        @if let Some(note) = trouble.note.as_ref().filter(|n| !n.is_empty()) { (lang.say("：", ": ")) (note) }
                    }
                    @if trouble.silenced { " · " (lang.say("静默中", "silenced")) }
                }
                @if let Some(remedy) = &remedy { p.remedy { (remedy) } }
                @if !lines.is_empty() {
                    details {
                        summary { (lang.say("详情", "Details")) }
                        ul.lines { @for line in &lines { li { (line) } } }
                        @if let Some(run) = trouble.run_id.filter(|_| !frame.alone) {
                            p { a href=(frame.url(&format!("/admin/runs/{run}"))) { (lang.say("查看这次运行", "See the run")) } }
                        }
                    }
                }
            }
            @if trouble.taken_on_by.is_none() && let Some(form) = &frame.form {
                form.ack method="post" action=(frame.url("/admin/alerts")) {
                    input type="hidden" name="form" value=(form);
                    input type="hidden" name="fingerprint" value=(trouble.fingerprint);
                    input type="hidden" name="back" value=(back);
                    label.hidden for=(id) { (lang.say("备注", "Note")) }
                    input #(id) type="text" name="note" maxlength=(crate::api::MOST_NOTE) placeholder=(lang.say("备注（可不填）", "Note (optional)"));
                    button type="submit" { (lang.say("我来处理", "I take it on")) }
                }
            }
        }
    }
}

/// A message's lines without its marks, and the one that says what to do.
fn lines(trouble: &Trouble) -> (Vec<String>, Option<String>) {
    let plain = trouble.body.replace("**", "");
    let mut remedy = None;
    let mut rest = Vec::new();
    for line in plain
        .lines()
        .map(|l| l.trim_start_matches("- ").trim())
        .filter(|l| !l.is_empty() && *l != trouble.title)
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

/// Without 【故障】 or [WARNING], which the sign says.
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
    fn the_sign_replaces_the_words_before_a_title() {
        assert_eq!(
            plain_title("【故障】智汇期讯 采集失败"),
            "智汇期讯 采集失败"
        );
        assert_eq!(plain_title("[WARNING] x"), "x");
        assert_eq!(plain_title("磁盘"), "磁盘");
    }
}
