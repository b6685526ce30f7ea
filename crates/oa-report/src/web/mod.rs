//! The pages: rendered here, readable without a script. All text that a site or a program has put in is escaped by the templates.

pub mod alerts;
pub mod assets;
pub mod backups;
pub mod chart;
pub mod layout;
pub mod logs;
pub mod overview;
pub mod run;
pub mod task;
pub mod todo;
pub mod words;

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{StatusCode, header};

pub use self::words::Lang;
use crate::api;
use crate::api::routes::Given;
use crate::server::App;
use crate::server::answer::Answer;
use crate::server::guard::Caller;
use crate::server::request::{Asked, pairs, read};
use layout::Frame;

/// Which page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// Leads to the overview.
    Front,
    /// Is everything all right, and if not what to do.
    Overview,
    /// One task.
    Task,
    /// One run.
    Run,
    /// The run log.
    Logs,
    /// Backups.
    Backups,
    /// Troubles and alerts.
    Alerts,
    /// Takes on a trouble.
    Acknowledge,
}

/// Answers with a page.
///
/// # Errors
/// The answer to give instead.
pub async fn answer(
    app: &Arc<App>,
    asked: &Asked,
    page: Page,
    given: &Given,
    caller: &Caller,
    body: Incoming,
) -> Result<Answer, Answer> {
    match page {
        Page::Front => return Ok(Answer::redirect(StatusCode::FOUND, &asked.url("/admin/"))),
        Page::Acknowledge => return acknowledge(app, asked, caller, body).await,
        _ => {}
    }
    let known = app.live.known().await;
    let frame = Frame::new(app, asked, page, caller, &known);
    let rendered = match page {
        Page::Overview => overview::page(app, &frame, given).await,
        Page::Task => task::page(app, &frame, given).await,
        Page::Run => run::page(app, &frame, given).await,
        Page::Logs => logs::page(app, &frame, given).await,
        Page::Backups => backups::page(app, &frame).await,
        Page::Alerts => alerts::page(app, &frame, given).await,
        Page::Front | Page::Acknowledge => Err(Answer::problem(
            StatusCode::NOT_FOUND,
            "there is no such page",
        )),
    };
    let answer = match rendered {
        Ok(page) => Answer::page(page),
        Err(problem) => told(&frame, problem),
    };
    // What is chosen once holds for the other pages; it tells nobody anything.
    Ok(match asked.value("lang").and_then(Lang::named) {
        Some(lang) => answer.with(
            header::SET_COOKIE,
            &format!(
                "oa_lang={}; Path={}/; Max-Age=31536000; SameSite=Lax",
                lang.code(),
                asked.base
            ),
        ),
        None => answer,
    })
}

/// A problem as a page.
pub async fn problem(
    app: &Arc<App>,
    asked: &Asked,
    page: Page,
    caller: &Caller,
    problem: Answer,
) -> Answer {
    let known = app.live.known().await;
    told(&Frame::new(app, asked, page, caller, &known), problem)
}

fn told(frame: &Frame, problem: Answer) -> Answer {
    let mut answer = Answer::page(layout::problem(frame, &problem)).with_status(problem.status);
    answer.headers = problem.headers;
    answer
}

async fn acknowledge(
    app: &Arc<App>,
    asked: &Asked,
    caller: &Caller,
    body: Incoming,
) -> Result<Answer, Answer> {
    let body = read(body).await?;
    let form = pairs(&String::from_utf8_lossy(&body));
    let field = |name: &str| {
        form.iter()
            .find(|(n, _)| n == name)
            .map_or("", |(_, v)| v.as_str())
    };
    if asked.is_from_another_site() || !app.guard.is_form_token(caller, field("form")) {
        return Err(Answer::problem(
            StatusCode::FORBIDDEN,
            "this form is not from this page, or older than the server; go back, load the page again and repeat",
        ));
    }
    api::acknowledge(app, caller, field("fingerprint"), field("note")).await?;
    app.live.renewed().await;
    let back = if field("back") == "alerts" {
        "/admin/alerts"
    } else {
        "/admin/"
    };
    Ok(Answer::redirect(StatusCode::SEE_OTHER, &asked.url(back)))
}
