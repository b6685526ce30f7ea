//! Buttons that do something, and what people asked for. Each is a form, with what only this page can know, and works without a script.

use std::sync::Arc;

use chrono::TimeDelta;
use hyper::StatusCode;
use hyper::body::Incoming;
use maud::{Markup, html};
use oa_core::journal::requests::Action;

use super::layout::{Frame, status_of};
use crate::app::App;
use crate::app::answer::Answer;
use crate::app::guard::Caller;
use crate::app::request::{Request, own_page, pairs, read_body};
use crate::queries::alerts::{Incident, Silence};
use crate::queries::requests::RequestEntry;

/// A form that does `what`; nothing for whoever may not act.
fn form(frame: &Frame, what: &str, fields: &[(&str, &str)], rest: &Markup) -> Markup {
    let Some(form) = &frame.form else {
        return html! {};
    };
    html! {
        form.act method="post" action=(frame.url("/admin/act")) {
            input type="hidden" name="form" value=(form);
            input type="hidden" name="do" value=(what);
            input type="hidden" name="back" value=(frame.path());
            @for (name, value) in fields { input type="hidden" name=(name) value=(value); }
            (rest)
        }
    }
}

fn button(label: &str, about: &str) -> Markup {
    html! { button.quiet type="submit" title=(about) { (label) } }
}

/// Collects a source once more.
pub(super) fn run(frame: &Frame, task: &str) -> Markup {
    let lang = frame.lang;
    let about = lang.say(
        "排队，由 oa-crawl run --due 在一分钟内执行",
        "queued; oa-crawl run --due carries it out within a minute",
    );
    form(
        frame,
        "run",
        &[("subject", task)],
        &button(lang.say("重跑", "Run again"), about),
    )
}

/// Fills days.
pub(super) fn backfill(frame: &Frame, task: &str, from: &str, to: &str) -> Markup {
    let lang = frame.lang;
    let about = lang.say(
        "排队，由 oa-crawl run --due 在一分钟内执行",
        "queued; oa-crawl run --due carries it out within a minute",
    );
    let fields = [("subject", task), ("from", from), ("to", to)];
    form(
        frame,
        "backfill",
        &fields,
        &button(lang.say("补采", "Fill"), about),
    )
}

/// Sends a test message.
pub(super) fn test_channel(frame: &Frame, channel: &str) -> Markup {
    let lang = frame.lang;
    let about = lang.say(
        "由 oa-alert check 在一分钟内发送",
        "oa-alert check sends it within a minute",
    );
    form(
        frame,
        "test",
        &[("subject", channel)],
        &button(lang.say("发送测试", "Send a test"), about),
    )
}

pub(super) fn unacknowledge(frame: &Frame, fingerprint: &str) -> Markup {
    let lang = frame.lang;
    let about = lang.say("恢复提醒", "it is reported again");
    form(
        frame,
        "unack",
        &[("subject", fingerprint)],
        &button(lang.say("取消认领", "Take back"), about),
    )
}

pub(super) fn end_silence(frame: &Frame, id: i64) -> Markup {
    let lang = frame.lang;
    let about = lang.say("立即恢复通知", "people are notified again");
    form(
        frame,
        "unsilence",
        &[("subject", &id.to_string())],
        &button(lang.say("结束静默", "End"), about),
    )
}

/// Notifies nobody for a while of an incident: of one without a task its rule would silence those of other machines and channels too.
pub(super) fn silence_incident(frame: &Frame, id: &str, of: &Incident) -> Markup {
    match &of.task {
        Some(task) => silence(frame, id, &[("task", task), ("rule", &of.rule)]),
        None => silence(frame, id, &[("fingerprint", &of.fingerprint)]),
    }
}

/// Notifies nobody of this for a while. `id` is unique on the page.
pub(super) fn silence(frame: &Frame, id: &str, of: &[(&str, &str)]) -> Markup {
    let lang = frame.lang;
    let spans = [
        (1, "1 小时", "1 hour"),
        (8, "8 小时", "8 hours"),
        (24, "1 天", "1 day"),
        (168, "7 天", "7 days"),
    ];
    let id = format!("silence-{id}");
    form(
        frame,
        "silence",
        of,
        &html! {
            label.hidden for=(id) { (lang.say("静默多久", "Silence for")) }
            select #(id) name="hours" { @for (hours, zh, en) in spans { option value=(hours) { (lang.say(zh, en)) } } }
            (button(lang.say("静默", "Silence"), lang.say("期间不通知任何人", "nobody is notified meanwhile")))
        },
    )
}

/// What was asked for within an hour, of one subject or of all.
pub(super) fn asked(frame: &Frame, subject: Option<&str>) -> Markup {
    let lang = frame.lang;
    let Some(snapshot) = frame.snapshot() else {
        return html! {};
    };
    let since = snapshot.taken_at - TimeDelta::hours(1);
    let recent = |r: &&RequestEntry| {
        let newest = r.ended_at.unwrap_or(snapshot.taken_at);
        newest > since && subject.is_none_or(|s| s == r.subject)
    };
    let requests: Vec<&RequestEntry> = snapshot.requests.iter().filter(recent).take(8).collect();
    if requests.is_empty() {
        return html! {};
    }
    html! {
        section.card.asked aria-labelledby="asked" {
            h2 #asked { (lang.say("已请求", "Asked for")) }
            ul.requests {
                @for r in requests {
                    li {
                        (status_of(lang.request_state(&r.state), match r.state.as_str() { "done" => "ok", "failed" | "expired" => "error", _ => "running" }))
                        span { (words(frame, r)) }
                        span.faint { (r.requested_by) " · " (frame.clock.relative(r.requested_at)) }
                        @if let Some(run) = r.run_id { (frame.link(&format!("/admin/runs/{run}"), &html! { (lang.say("查看运行", "See the run")) })) }
                        @if let Some(result) = r.result.as_ref().filter(|_| r.state != "done") { span.error { (result) } }
                    }
                }
            }
        }
    }
}

fn words(frame: &Frame, r: &RequestEntry) -> String {
    let lang = frame.lang;
    let title = frame
        .snapshot()
        .and_then(|s| s.tasks.iter().find(|t| t.name == r.subject))
        .map_or(r.subject.as_str(), |t| t.title.as_str());
    let day = r.from.map_or_else(String::new, |d| format!(" {d}"));
    match r.kind.as_str() {
        "backfill" => {
            let to = r.to.filter(|to| Some(*to) != r.from);
            let to = to.map_or_else(String::new, |d| format!(" – {d}"));
            lang.say(
                format!("补采 {title}{day}{to}"),
                format!("fill {title}{day}{to}"),
            )
        }
        "test_channel" => lang.say(
            format!("测试渠道 {title}"),
            format!("test the channel {title}"),
        ),
        _ => lang.say(
            format!("重跑 {title}{day}"),
            format!("run {title}{day} again"),
        ),
    }
}

pub(super) async fn answer(
    app: &Arc<App>,
    request: &Request,
    caller: &Caller,
    body: Incoming,
) -> Result<Answer, Answer> {
    let body = read_body(body).await?;
    let form = pairs(&String::from_utf8_lossy(&body));
    let field = |name: &str| {
        form.iter()
            .find(|(n, _)| n == name)
            .map_or("", |(_, v)| v.as_str())
    };
    if !app.guard.is_form_token(caller, field("form")) {
        return Err(Answer::problem(
            StatusCode::FORBIDDEN,
            "this form is not from this page, or of somebody else; go back, load the page again and repeat",
        ));
    }
    let wrong = |what: &str| {
        Answer::problem(
            StatusCode::BAD_REQUEST,
            format!("{what} is \"{}\", which cannot be", field(what)),
        )
    };
    let day = |name: &str| field(name).parse().map_err(|_| wrong(name));
    let named = |name: &str| Some(field(name).to_owned()).filter(|n| !n.is_empty());
    let subject = field("subject").to_owned();
    match field("do") {
        "ack" => app.acknowledge(caller, &subject, field("note")).await?,
        "unack" => app.unacknowledge(caller, &subject).await?,
        "silence" => {
            let silence = Silence {
                task: named("task"),
                rule: named("rule"),
                fingerprint: named("fingerprint"),
                hours: field("hours").parse().map_err(|_| wrong("hours"))?,
                reason: String::new(),
            };
            app.silence(caller, silence).await?;
        }
        "unsilence" => {
            let id = subject.parse().map_err(|_| wrong("subject"))?;
            app.end_silence(caller, id).await?;
        }
        "run" => {
            let action = Action::Run {
                task: subject,
                day: None,
            };
            app.request(caller, action).await?;
        }
        "backfill" => {
            let action = Action::Backfill {
                task: subject,
                from: day("from")?,
                to: day("to")?,
            };
            app.request(caller, action).await?;
        }
        "test" => {
            let action = Action::TestChannel { channel: subject };
            app.request(caller, action).await?;
        }
        _ => return Err(wrong("do")),
    }
    app.changed().await;
    let back = request.url(own_page(field("back")));
    Ok(Answer::redirect(StatusCode::SEE_OTHER, &back))
}
