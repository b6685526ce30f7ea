//! The pages: rendered here, readable without a script. All text that a site or a program has put in is escaped by the templates.

pub(crate) mod act;
mod alerts;
pub(crate) mod assets;
mod backups;
mod chart;
mod heat;
pub(crate) mod layout;
mod logs;
pub(crate) mod overview;
mod problems;
mod run;
mod task;
mod todo;
pub(crate) mod words;

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{StatusCode, header};

use self::layout::Frame;
use crate::app::App;
use crate::app::answer::Answer;
use crate::app::guard::Caller;
use crate::app::params::Params;
use crate::app::request::{Request, pairs, read_body};
use crate::app::routes::Page;
use crate::lang::Lang;

pub(crate) async fn answer(
    app: &Arc<App>,
    request: &Request,
    page: Page,
    params: &Params,
    caller: &Caller,
    body: Incoming,
) -> Result<Answer, Answer> {
    match page {
        Page::Front => return Ok(Answer::redirect(StatusCode::FOUND, &request.url("/admin/"))),
        Page::Acknowledge => return acknowledge(app, request, caller, body).await,
        _ => {}
    }
    let latest = app.snapshots.latest().await;
    let frame = Frame::new(app, request, page, caller, &latest);
    let rendered = match page {
        Page::Overview => overview::page(app, &frame, params).await,
        Page::Task => task::page(app, &frame, params).await,
        Page::Run => run::page(app, &frame, params).await,
        Page::Logs => logs::page(app, &frame, params).await,
        Page::Backups => backups::page(app, &frame).await,
        Page::Alerts => alerts::page(app, &frame, params).await,
        Page::Front | Page::Acknowledge => Err(Answer::problem(
            StatusCode::NOT_FOUND,
            "there is no such page",
        )),
    };
    let answer = match rendered {
        Ok(page) => Answer::page(page),
        Err(problem) => as_page(&frame, problem),
    };
    // What is chosen once holds for the other pages; it tells nobody anything.
    Ok(match request.value("lang").and_then(Lang::from_code) {
        Some(lang) => answer.with(
            header::SET_COOKIE,
            &format!(
                "oa_lang={}; Path={}/; Max-Age=31536000; SameSite=Lax",
                lang.code(),
                request.base
            ),
        ),
        None => answer,
    })
}

pub(crate) async fn problem(
    app: &Arc<App>,
    request: &Request,
    page: Page,
    caller: &Caller,
    problem: Answer,
) -> Answer {
    let latest = app.snapshots.latest().await;
    as_page(&Frame::new(app, request, page, caller, &latest), problem)
}

fn as_page(frame: &Frame, problem: Answer) -> Answer {
    let mut answer = Answer::page(layout::problem(frame, &problem)).with_status(problem.status);
    answer.headers = problem.headers;
    answer
}

async fn acknowledge(
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
    if request.is_from_another_site() || !app.guard.is_form_token(caller, field("form")) {
        return Err(Answer::problem(
            StatusCode::FORBIDDEN,
            "this form is not from this page, or older than the server; go back, load the page again and repeat",
        ));
    }
    app.acknowledge(caller, field("fingerprint"), field("note"))
        .await?;
    app.snapshots.refreshed().await;
    let back = if field("back") == "alerts" {
        "/admin/alerts"
    } else {
        "/admin/"
    };
    Ok(Answer::redirect(StatusCode::SEE_OTHER, &request.url(back)))
}
