//! The pages: rendered here, readable without a script. All text that a site or a program has put in is escaped by the templates.

mod act;
mod alerts;
mod ansi;
pub(crate) mod assets;
mod backups;
mod chart;
pub(crate) mod feed;
mod files;
mod heat;
pub(crate) mod layout;
pub(crate) mod links;
mod login;
mod logs;
pub(crate) mod overview;
pub(crate) mod problems;
pub(crate) mod public;
mod recovery;
mod run;
mod source;
mod task;
pub(crate) mod todo;
pub(crate) mod words;

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, StatusCode, header};

use self::layout::Frame;
use crate::app::App;
use crate::app::answer::Answer;
use crate::app::guard::Caller;
use crate::app::kept_pages;
use crate::app::params::Params;
use crate::app::request::Request;
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
        Page::Act => {
            // Who pressed a button reads the answer.
            return Ok(match act::answer(app, request, caller, body).await {
                Ok(answer) => answer,
                Err(refused) => problem(app, request, page, caller, refused).await,
            });
        }
        Page::LogIn => return login::answer(app, request, body).await,
        Page::LogOut => return Ok(login::log_out(request)),
        Page::RawAnswer => return files::raw(app, params).await,
        Page::Failure => return files::failure(app, params).await,
        _ => {}
    }
    // A run under way says more each second.
    let kept = (page != Page::Run).then(|| kept_pages::key(request, caller));
    let kept = kept.flatten();
    if let Some(key) = kept
        .as_ref()
        .filter(|_| kept_pages::is_asked_again(request))
        && let Some(answer) = app.kept_pages.get(key)
    {
        return Ok(answer);
    }
    let latest = app.snapshots.latest().await;
    let frame = Frame::new(app, request, page, caller, &latest);
    let rendered = match page {
        Page::Overview => overview::page(app, &frame, params).await,
        Page::Task => task::page(app, &frame, params).await,
        Page::Run => run::page(app, &frame, params).await,
        Page::Logs => logs::page(app, &frame, params).await,
        Page::Backups => backups::page(app, &frame).await,
        Page::Status => public::page(app, &frame),
        Page::Alerts => alerts::page(app, &frame, params).await,
        // Answered above.
        _ => Err(Answer::missing("there is no such page")),
    };
    let answer = match rendered {
        Ok(page) => Answer::page(page),
        Err(problem) => as_page(&frame, problem),
    };
    // What is chosen once holds for the other pages; it tells nobody anything.
    let mut answer = match request.value("lang").and_then(Lang::from_code) {
        Some(lang) => answer.with(
            header::SET_COOKIE,
            &format!(
                "oa_lang={}; Path={}/; Max-Age=31536000; SameSite=Lax",
                lang.code(),
                request.base
            ),
        ),
        None => answer,
    };
    let is_new = answer.status == StatusCode::OK && !latest.is_stale();
    if let Some(key) = kept.filter(|_| is_new) {
        app.kept_pages.put(key, &mut answer, latest.begun);
    }
    Ok(answer)
}

/// The login page in the place of one that needs a token.
pub(crate) async fn log_in(app: &Arc<App>, request: &Request) -> Answer {
    // What a button sent is not sent again.
    let next = match request.method() == Method::POST {
        true => "/admin/".to_owned(),
        false => request.local_target(),
    };
    login::page(app, request, &next, None)
        .await
        .with_status(StatusCode::UNAUTHORIZED)
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
