//! Links of messages: what one would do, and, asked for with POST, does. The link's signature is the caller's right, so that it opens in
//! the web view of a phone, where nobody can log in; it does one thing, once, until its time is over. Whatever fetches links in advance
//! uses GET, and changes nothing.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{StatusCode, header};
use maud::{DOCTYPE, Markup, html};
use oa_core::base::links::{Link, LinkAction, LinkError};
use oa_core::base::text::printable;
use oa_core::journal::answers::{self, Acted, Subject};
use oa_core::pg::{self, Settings, describe};

use super::layout::Frame;
use super::{assets, run};
use crate::PROGRAM;
use crate::app::App;
use crate::app::answer::{Answer, CachePolicy};
use crate::app::guard::Caller;
use crate::app::request::{Request, pairs, read_body};
use crate::app::routes::Page;
use crate::lang::Lang;
use crate::pool::STATEMENT_TIMEOUT;
use crate::queries;

/// Characters of the name that somebody gives.
const LONGEST_NAME: usize = 40;

/// Answers a link. `acts`: it was sent by the button, and not only opened.
pub(crate) async fn answer(
    app: &Arc<App>,
    request: &Request,
    text: &str,
    acts: bool,
    body: Incoming,
) -> Result<Answer, Answer> {
    let problem = match open(app, request, text, acts, body).await {
        Ok(answer) => return Ok(answer),
        Err(problem) => problem,
    };
    // Whoever has only the link reads a sentence on a phone, and nothing of the database's address.
    tracing::warn!("{}", String::from_utf8_lossy(&problem.body));
    let why = match problem.status {
        StatusCode::SERVICE_UNAVAILABLE => (
            "数据库暂时无法访问；链接仍然有效，请稍后再试",
            "The database does not answer; the link still works: try again later",
        ),
        _ => (
            "没有成功，链接仍然有效，请再试一次；oa-report serve 的日志中有原因",
            "It could not be done, and the link still works: try again; the log of oa-report serve has the reason",
        ),
    };
    let mut page = shell(request, problem.status, &said(request.lang, why));
    page.headers = problem.headers;
    Ok(page)
}

async fn open(
    app: &Arc<App>,
    request: &Request,
    text: &str,
    acts: bool,
    body: Incoming,
) -> Result<Answer, Answer> {
    let lang = request.lang;
    let link = match verify(app, text) {
        Ok(link) => link,
        Err((status, why)) => return Ok(shell(request, status, &said(lang, why))),
    };
    if !acts || link.action == LinkAction::Log {
        return show(app, request, link).await;
    }
    let body = read_body(body).await?;
    let form = pairs(&String::from_utf8_lossy(&body));
    let name = form.iter().find(|(n, _)| n == "name");
    let name: String = name
        .map_or("", |(_, v)| v.trim())
        .chars()
        .take(LONGEST_NAME)
        .collect();
    let by = match printable(&name).replace('\0', "") {
        name if name.is_empty() => lang.say(
            format!("消息中的链接（{}）", link.channel),
            format!("a link in {}", link.channel),
        ),
        name => format!("{name} ({})", link.channel),
    };
    let (acting, of) = (Arc::clone(app), link.clone());
    let acted = tokio::task::spawn_blocking(move || {
        let mut settings =
            Settings::from_config(&acting.config, PROGRAM).map_err(|e| e.to_string())?;
        settings.statement_timeout = STATEMENT_TIMEOUT;
        let mut client = pg::connect(&settings).map_err(|e| e.to_string())?;
        answers::act(&mut client, &of, &by).map_err(|e| describe(&e))
    })
    .await;
    let acted = match acted {
        Ok(Ok(acted)) => acted,
        Ok(Err(reason)) => {
            return Err(Answer::problem(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("could not be done, and the link still works: {reason}"),
            )
            .with(header::RETRY_AFTER, "5"));
        }
        Err(_) => return Err(Answer::own_mistake()),
    };
    app.changed().await;
    let (status, text) = outcome(app, lang, &link, &acted);
    Ok(shell(request, status, &said(lang, text)))
}

/// The link, if it is one of ours and its channel is still one. The error is what to say.
fn verify(app: &App, text: &str) -> Result<Link, (StatusCode, (&'static str, &'static str))> {
    let off = (
        "本页未启用消息链接：在 [report] 中设置 link_key",
        "links of messages are off here: set link_key in [report]",
    );
    let Ok(Some(key)) = app.config.link_key() else {
        return Err((StatusCode::NOT_FOUND, off));
    };
    let link = key.verify(text, chrono::Utc::now()).map_err(|e| match e {
        LinkError::Forged => (
            StatusCode::NOT_FOUND,
            (
                "链接不完整，或不是本服务签发的：请从消息中重新点开",
                "the link is cut off, or not of this service: open it from the message again",
            ),
        ),
        LinkError::Expired => (
            StatusCode::GONE,
            (
                "链接已过期：请在网页上操作，或等下一次提醒",
                "the link has expired: use the page, or the next reminder",
            ),
        ),
    })?;
    let known = app.config.alert.channels.iter();
    if known.into_iter().any(|c| c.name == link.channel) {
        return Ok(link);
    }
    Err((
        StatusCode::GONE,
        (
            "发出这条消息的通道已从配置中移除，其链接不再有效",
            "the channel of this message was removed from the configuration, and with it its links",
        ),
    ))
}

fn name_of(lang: Lang, action: LinkAction) -> &'static str {
    match action {
        LinkAction::Acknowledge => lang.say("认领", "Acknowledge"),
        LinkAction::Silence => lang.say("静默 2 小时", "Silence for 2 hours"),
        LinkAction::Run => lang.say("重跑", "Run again"),
        LinkAction::Log => lang.say("看日志", "Show the run"),
    }
}

fn outcome(app: &App, lang: Lang, link: &Link, acted: &Acted) -> (StatusCode, (String, String)) {
    let text = |zh: &str, en: &str| (zh.to_owned(), en.to_owned());
    match acted {
        Acted::Done => (
            StatusCode::OK,
            match link.action {
                LinkAction::Acknowledge => text(
                    "已认领：恢复之前不再提醒，恢复时会通知",
                    "Acknowledged: it is not repeated until it is resolved, and that is reported",
                ),
                LinkAction::Silence => text(
                    "已静默 2 小时：这一项 2 小时内不再通知；提前结束用 oa-alert silence --end",
                    "Silenced for 2 hours; end it early with: oa-alert silence --end",
                ),
                LinkAction::Run | LinkAction::Log => text(
                    "已登记：一分钟内由 oa-crawl run --due 重跑，结果照常通知",
                    "Noted: oa-crawl run --due runs it within a minute, and reports as ever",
                ),
            },
        ),
        Acted::Used(at) => {
            let at = lang.wording(app.config.timezone).at(*at);
            (
                StatusCode::GONE,
                (
                    format!("这个链接已在 {at} 用过，每个链接只能用一次"),
                    format!("This link was used at {at}; each works once"),
                ),
            )
        }
        Acted::Over => (
            StatusCode::CONFLICT,
            text(
                "这次故障已经恢复，无需操作",
                "The incident is resolved; there is nothing to do",
            ),
        ),
        Acted::NothingToRun => (
            StatusCode::CONFLICT,
            text(
                "这个任务不是数据源，或已停用，无法从这里重跑",
                "This task is no source, or is off, and cannot be run from here",
            ),
        ),
        Acted::Unknown => (
            StatusCode::GONE,
            text(
                "没有这条告警的记录：它还在那台机器的暂存中（恢复连接后再点），或已被清理",
                "There is no record of this alert: it waits in the spool of its machine (open the link again when that is connected), or is gone",
            ),
        ),
    }
}

/// What the link is about, and the button.
async fn show(app: &Arc<App>, request: &Request, link: Link) -> Result<Answer, Answer> {
    let lang = request.lang;
    let of = link.clone();
    let subject = app.ask(move |tx| answers::subject(tx, &of)).await?;
    let Some(subject) = subject else {
        let (status, text) = outcome(app, lang, &link, &Acted::Unknown);
        return Ok(shell(request, status, &said(lang, text)));
    };
    if link.action == LinkAction::Log {
        return show_run(app, request, &subject).await;
    }
    let passed = match (subject.used_at, link.action) {
        (Some(at), _) => Some(Acted::Used(at)),
        // A link to the run is shown above.
        (None, _) if !subject.open => Some(Acted::Over),
        _ => None,
    };
    let status = match passed {
        None => StatusCode::OK,
        Some(_) => StatusCode::GONE,
    };
    let after = match &passed {
        Some(acted) => said(lang, outcome(app, lang, &link, acted).1),
        None => html! {
            form method="post" action=(request.url(&format!("/act/{}", request.path.last().map_or("", String::as_str)))) {
                p {
                    label for="name" { (lang.say("您的名字（可不填）", "Your name (optional)")) } " "
                    input #name name="name" maxlength=(LONGEST_NAME) autocomplete="name";
                }
                p { button type="submit" { (name_of(lang, link.action)) } }
            }
            p.faint { (lang.say("只能用一次，有效至 ", "Works once, until ")) (lang.wording(app.config.timezone).at(link.expires)) }
        },
    };
    let body = html! {
        (about(app, lang, &subject))
        section.card.message { (after) }
    };
    Ok(shell(request, status, &body))
}

fn about(app: &App, lang: Lang, subject: &Subject) -> Markup {
    let text = lang.wording(app.config.timezone).text(&subject.alert.event);
    let lines = text.body.lines().filter_map(|l| l.strip_prefix("- "));
    html! {
        div.head { h1 { (text.title) } }
        section.card {
            ul.lines { @for line in lines { li { (line) } } }
            @if let Some(by) = &subject.acknowledged_by { p.faint { (lang.say("已由 ", "Acknowledged by ")) (by) (lang.say(" 认领", "")) } }
        }
    }
}

async fn show_run(app: &Arc<App>, request: &Request, subject: &Subject) -> Result<Answer, Answer> {
    let found = match subject.alert.run_id {
        Some(id) => app.ask(move |tx| queries::run::detail(tx, id)).await?,
        None => None,
    };
    let lang = request.lang;
    let Some(detail) = found else {
        let text = (
            "这次运行的记录已不在了",
            "There is no record of this run any more",
        );
        return Ok(shell(request, StatusCode::GONE, &said(lang, text)));
    };
    let latest = app.snapshots.latest().await;
    let frame = Frame::new(app, request, Page::Run, &Caller::Local, &latest);
    let body = html! {
        (about(app, lang, subject))
        @if let Some(error) = &detail.run.error { section.card.message { pre { (error) } } }
        (run::output(&frame, &detail))
        @if !detail.attempts.is_empty() { (run::attempts(&frame, &detail)) }
    };
    Ok(shell(request, StatusCode::OK, &body))
}

fn said(lang: Lang, (zh, en): (impl Into<String>, impl Into<String>)) -> Markup {
    html! { p { (lang.say(zh.into(), en.into())) } }
}

/// Without what the other pages have around them: whoever has the link may see only this.
fn shell(request: &Request, status: StatusCode, body: &Markup) -> Answer {
    let lang = request.lang;
    let page = html! {
        (DOCTYPE)
        html lang=(lang.say("zh-CN", "en")) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { "oa" }
                link rel="stylesheet" href=(request.url(&format!("/assets/{}", assets::STYLE.name)));
            }
            body { main #content { (body) } }
        }
    };
    let mut answer = Answer::page(page).with_status(status);
    answer.cache = CachePolicy::Never;
    answer
}
