//! The login page: takes a token for a cookie, for browsers within other programs, which do not ask for a name and a password.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, StatusCode, header};
use maud::html;

use super::layout::{self, Frame, icon};
use crate::app::App;
use crate::app::answer::{Answer, CachePolicy};
use crate::app::guard::{Caller, Refusal, SESSION_FOR};
use crate::app::request::{Request, SESSION, own_page, pairs, read_body};
use crate::app::routes::Page;
use crate::snapshot::LatestSnapshot;

pub(crate) async fn answer(
    app: &Arc<App>,
    request: &Request,
    body: Incoming,
) -> Result<Answer, Answer> {
    if !app.guard.has_tokens() {
        // Nothing to log in with: only this machine is served, or nobody.
        return Ok(Answer::redirect(
            StatusCode::SEE_OTHER,
            &request.url("/admin/"),
        ));
    }
    if request.method() != Method::POST {
        let next = request.value("next").unwrap_or_default().to_owned();
        return Ok(page(app, request, &next, None).await);
    }
    let body = read_body(body).await?;
    let form = pairs(&String::from_utf8_lossy(&body));
    let field = |name: &str| {
        form.iter()
            .find(|(n, _)| n == name)
            .map_or("", |(_, v)| v.as_str())
    };
    match app.guard.log_in(request.from, field("token")) {
        Ok(session) => Ok(Answer::redirect(
            StatusCode::SEE_OTHER,
            &request.url(own_page(field("next"))),
        )
        .with(
            header::SET_COOKIE,
            &request.set_cookie(SESSION, &session, SESSION_FOR.as_secs()),
        )),
        Err(refusal) => {
            let answer = page(app, request, field("next"), Some(refusal)).await;
            Ok(match refusal {
                Refusal::TooMany(seconds) => answer
                    .with_status(StatusCode::TOO_MANY_REQUESTS)
                    .with(header::RETRY_AFTER, &seconds.to_string()),
                _ => answer.with_status(StatusCode::UNAUTHORIZED),
            })
        }
    }
}

pub(crate) fn log_out(request: &Request) -> Answer {
    Answer::redirect(StatusCode::SEE_OTHER, &request.url("/login"))
        .with(header::SET_COOKIE, &request.set_cookie(SESSION, "", 0))
}

/// Nothing on it shows anything of the data.
pub(crate) async fn page(
    app: &Arc<App>,
    request: &Request,
    next: &str,
    refused: Option<Refusal>,
) -> Answer {
    let nothing = Arc::new(LatestSnapshot::unknown());
    let frame = Frame::new(app, request, Page::LogIn, &Caller::Local, &nothing);
    let lang = frame.lang;
    let error = refused.map(|refusal| match refusal {
        Refusal::TooMany(seconds) => lang.say(
            format!("输错次数太多，请在 {seconds} 秒后再试；正确的令牌不受限制"),
            format!(
                "too many wrong tokens; try again in {seconds} s. A right one is let in at once"
            ),
        ),
        _ => lang.say(
            "令牌不对，或已从配置中删除".to_owned(),
            "this is no token of this server, or not any more".to_owned(),
        ),
    });
    let body = html! {
        section.card.login aria-labelledby="login" {
            h1 #login { (lang.say("登录", "Log in")) }
            form method="post" action=(frame.url("/login")) {
                input type="hidden" name="next" value=(own_page(next));
                // Password managers keep a password only with a name.
                input.hidden type="text" name="username" value="oa" autocomplete="username" tabindex="-1" aria-hidden="true" readonly;
                label for="token" { (lang.say("令牌", "Token")) }
                input #token type="password" name="token" autocomplete="current-password" required autofocus aria-describedby="about" aria-invalid=[error.as_ref().map(|_| "true")];
                @if let Some(error) = &error { p.status.bad role="alert" { (icon("error")) (error) } }
                button type="submit" { (lang.say("登录", "Log in")) }
            }
            p.faint #about { (lang.say("令牌由 oa-report token 生成，在这台设备上保持登录 30 天。", "A token is made with oa-report token; this device stays logged in for 30 days.")) }
        }
    };
    let mut answer = Answer::page(layout::page(&frame, lang.say("登录", "Log in"), &body));
    answer.cache = CachePolicy::Never;
    answer
}
