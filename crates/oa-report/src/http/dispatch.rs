//! From a request to its answer: which route it takes, whether the caller may, whether its parameters are right, and who answers.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, StatusCode, header};

use crate::app::App;
use crate::app::answer::Answer;
use crate::app::guard::{Caller, Refusal};
use crate::app::params::Params;
use crate::app::request::Request;
use crate::app::routes::{self, Found, Operation, Page};
use crate::{api, metrics, pages};

/// The answer, and the caller's name for the access log.
pub(super) async fn answer(app: &Arc<App>, request: &Request, body: Incoming) -> (Answer, String) {
    let found = routes::find(&request.path);
    let is_open = found
        .as_ref()
        .is_some_and(|(route, _)| route.operation.is_open());
    let caller = if is_open {
        Caller::Local
    } else {
        let admitted = app.guard.admit(
            request.from,
            request.host(),
            request.is_proxied(),
            request.credentials(),
        );
        match admitted {
            Ok(caller) => caller,
            Err(Refusal::Unauthorized) if asks_for_a_page(request, found.as_ref()) => {
                return (pages::log_in(app, request).await, "-".to_owned());
            }
            Err(refusal) => return (refused(refusal), "-".to_owned()),
        }
    };
    let name = caller.name().to_owned();
    let answered = match found {
        Some((_, in_path)) => operate(app, request, &in_path, &caller, body).await,
        None => Err(Answer::missing(format!(
            "there is nothing at this path; see {} and {}",
            request.url("/admin/"),
            request.url("/openapi.json")
        ))),
    };
    (answered.unwrap_or_else(|problem| problem), name)
}

async fn operate(
    app: &Arc<App>,
    request: &Request,
    in_path: &[(&str, String)],
    caller: &Caller,
    body: Incoming,
) -> Result<Answer, Answer> {
    let all = routes::methods(&request.path);
    let method = if request.is_head {
        &Method::GET
    } else {
        request.method()
    };
    let Some(route) = all.iter().find(|r| r.method == method.as_str()) else {
        let mut allowed: Vec<&str> = all.iter().map(|r| r.method).collect();
        if allowed.contains(&"GET") {
            allowed.push("HEAD");
        }
        let allowed = allowed.join(", ");
        let detail = format!("this path takes {allowed}");
        return Err(
            Answer::problem(StatusCode::METHOD_NOT_ALLOWED, detail).with(header::ALLOW, &allowed)
        );
    };
    if method != Method::GET && request.is_from_another_site() {
        return Err(Answer::problem(
            StatusCode::FORBIDDEN,
            "a page of another site made the browser send this; nothing was done",
        ));
    }
    if let Operation::Link | Operation::Act = route.operation {
        let link = in_path.first().map_or("", |(_, link)| link.as_str());
        let acts = route.operation == Operation::Act;
        return pages::links::answer(app, request, link, acts, body).await;
    }
    let checked = Params::check(route, in_path, request, app.config.timezone);
    match (route.operation, checked) {
        (Operation::Page(page), Err(refused)) => {
            let problem = refused.answer();
            Ok(pages::problem(app, request, page, caller, problem).await)
        }
        (_, Err(refused)) => Err(refused.answer()),
        (Operation::Page(page), Ok(params)) => {
            pages::answer(app, request, page, &params, caller, body).await
        }
        (Operation::Asset, Ok(params)) => {
            let name = params.required_text("file")?;
            pages::assets::named(&name)
                .map(|a| Answer::asset(a.content_type, a.text))
                .ok_or_else(|| Answer::missing("there is no such file"))
        }
        (Operation::Badge, Ok(params)) => {
            pages::public::badge(app, request, &params.required_text("file")?).await
        }
        (Operation::Feed, Ok(_)) => pages::feed::answer(app, request).await,
        (Operation::Metrics, Ok(_)) => Ok(metrics::answer(app).await),
        (operation, Ok(params)) => {
            api::answer(app, request, operation, &params, caller, body).await
        }
    }
}

/// Somebody with a browser and no token yet, who can type one in. Programs are answered in JSON, and asked for basic authentication.
fn asks_for_a_page(request: &Request, found: Option<&Found>) -> bool {
    let page = found.is_some_and(|(route, _)| matches!(route.operation, Operation::Page(_)));
    let read = request.is_head || request.method() == Method::GET;
    let button = found.is_some_and(|(route, _)| route.operation == Operation::Page(Page::Act));
    page && (read || button) && request.header(header::AUTHORIZATION).is_none()
}

fn refused(refusal: Refusal) -> Answer {
    match refusal {
        Refusal::Unauthorized => Answer::problem(
            StatusCode::UNAUTHORIZED,
            "a token is needed: as Bearer TOKEN in the header Authorization, or as the password of basic authentication; oa-report token makes one",
        )
        .with(header::WWW_AUTHENTICATE, "Basic realm=\"oa\", charset=\"UTF-8\""),
        Refusal::TooMany(seconds) => Answer::problem(
            StatusCode::TOO_MANY_REQUESTS,
            "too many wrong tokens from this address",
        )
        .with(header::RETRY_AFTER, &seconds.to_string()),
        Refusal::WrongHost => Answer::problem(
            StatusCode::FORBIDDEN,
            "without tokens only http://localhost or http://127.0.0.1 is answered; for another name, make a token with oa-report token",
        ),
        Refusal::Proxied => Answer::problem(
            StatusCode::FORBIDDEN,
            "this came through a proxy, behind which anybody may be, and there are no tokens; make one with oa-report token NAME",
        ),
    }
}
