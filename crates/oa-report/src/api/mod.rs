//! The API: which paths there are, who may ask for them, and what is asked of them.
//!
//! [`routes::ROUTES`] is the one table of paths, parameters and answers; requests are checked by it and the OpenAPI document is made of it.

pub mod answers;
mod openapi;
pub mod routes;

use std::sync::Arc;

use chrono::Utc;
use hyper::body::Incoming;
use hyper::{Method, StatusCode, header};
use oa_core::base::secrets::redact;
use oa_core::pg;
use oa_core::pg::{Settings, describe};
use serde_json::json;

use self::answers::{
    Ack, AckAnswer, AlertsAnswer, BackupsAnswer, DrillsAnswer, LogsAnswer, QualityAnswer,
    TaskAnswer,
};
use self::routes::{Given, Operation, Route};
use crate::server::App;
use crate::server::answer::Answer;
use crate::server::guard::{Caller, Refusal};
use crate::server::request::{Asked, read};
use crate::snapshot::{HealthAnswer, Known};
use crate::{PROGRAM, metrics, queries, web};

/// Longest note to an acknowledgement, in characters.
pub const MOST_NOTE: usize = 500;

/// Answers one request; also tells who asked.
pub async fn answer(app: &Arc<App>, asked: &Asked, body: Incoming) -> (Answer, String) {
    let found = routes::find(&asked.path);
    let caller = if found
        .as_ref()
        .is_some_and(|(route, _)| route.operation.is_open())
    {
        Caller::Local
    } else {
        match app.guard.admit(
            asked.from,
            asked.host(),
            asked.is_proxied(),
            asked.header(header::AUTHORIZATION),
        ) {
            Ok(caller) => caller,
            Err(refusal) => return (refused(refusal), "-".to_owned()),
        }
    };
    let name = caller.name().to_owned();
    let Some((_, in_path)) = found else {
        let detail = format!(
            "there is nothing at this path; see {} and {}",
            asked.url("/admin/"),
            asked.url("/openapi.json")
        );
        return (Answer::problem(StatusCode::NOT_FOUND, detail), name);
    };
    let all = routes::methods(&asked.path);
    let method = if asked.is_head {
        &Method::GET
    } else {
        asked.method()
    };
    let Some(route) = all.iter().find(|r| r.method == method.as_str()) else {
        let mut allowed: Vec<&str> = all.iter().map(|r| r.method).collect();
        if allowed.contains(&"GET") {
            allowed.push("HEAD");
        }
        let detail = format!("this path takes {}", allowed.join(", "));
        return (
            Answer::problem(StatusCode::METHOD_NOT_ALLOWED, detail)
                .with(header::ALLOW, &allowed.join(", ")),
            name,
        );
    };
    let answered = match Given::check(route, &in_path, asked, app.config.timezone) {
        Ok(given) => operate(app, asked, route, &given, &caller, body).await,
        Err(detail) => {
            let problem = Answer::problem(StatusCode::BAD_REQUEST, detail);
            match route.operation {
                Operation::Page(page) => Ok(web::problem(app, asked, page, &caller, problem).await),
                _ => Err(problem),
            }
        }
    };
    (answered.unwrap_or_else(|error| error), name)
}

fn refused(refusal: Refusal) -> Answer {
    match refusal {
        Refusal::Unauthorized => Answer::problem(
            StatusCode::UNAUTHORIZED,
            "a token is needed: as \"Authorization: Bearer TOKEN\", or as the password of basic authentication; oa-report token makes one",
        )
        .with(header::WWW_AUTHENTICATE, "Basic realm=\"oa\", charset=\"UTF-8\""),
        Refusal::TooMany(seconds) => {
            Answer::problem(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens from this address").with(header::RETRY_AFTER, &seconds.to_string())
        }
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

async fn operate(
    app: &Arc<App>,
    asked: &Asked,
    route: &Route,
    given: &Given,
    caller: &Caller,
    body: Incoming,
) -> Result<Answer, Answer> {
    match route.operation {
        Operation::Health => health(app, given).await,
        Operation::Logs => {
            let filter = given.filter();
            let (logs, next) = app.ask(move |tx| queries::logs::page(tx, &filter)).await?;
            Ok(Answer::json(&LogsAnswer { logs, next }))
        }
        Operation::BackupStatus => {
            let known = app.live.known().await;
            let snapshot = known.snapshot.as_ref().ok_or_else(|| away(&known))?;
            Ok(Answer::json(&answers::BackupStatusAnswer {
                status: &snapshot.backups,
                timestamp: snapshot.taken_at,
                stale: known.is_stale(),
            }))
        }
        Operation::Run => {
            let id = given.uuid("id").unwrap_or_default();
            let run = app.ask(move |tx| queries::run::detail(tx, id)).await?;
            run.map(|run| Answer::json(&run))
                .ok_or_else(|| missing(format!("there is no run {id}")))
        }
        Operation::Task => {
            let name = given.text("name").unwrap_or_default();
            let task = task(app, &name).await?;
            task.map(|task| Answer::json(&task))
                .ok_or_else(|| missing(format!("there is no task \"{name}\"")))
        }
        Operation::Alerts => {
            let (before, limit) = (given.uuid("before"), given.limit());
            let (open, (alerts, next)) = app
                .ask(move |tx| {
                    Ok((
                        queries::alerts::open(tx)?,
                        queries::alerts::told(tx, before, limit)?,
                    ))
                })
                .await?;
            Ok(Answer::json(&AlertsAnswer { open, alerts, next }))
        }
        Operation::Acknowledge => {
            if asked
                .header(header::CONTENT_TYPE)
                .is_none_or(|t| t.split(';').next() != Some("application/json"))
            {
                return Err(Answer::problem(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "the body must be application/json",
                ));
            }
            let body = read(body).await?;
            let ack: Ack = serde_json::from_slice(&body).map_err(|e| {
                Answer::problem(
                    StatusCode::BAD_REQUEST,
                    format!("the body is not what it should be: {e}"),
                )
            })?;
            acknowledge(app, caller, &ack.fingerprint, &ack.note).await?;
            Ok(Answer::json(&AckAnswer {
                fingerprint: ack.fingerprint,
                by: caller.name().to_owned(),
                note: ack.note,
            })
            .with_status(StatusCode::CREATED))
        }
        Operation::Quality => {
            let (task, before, limit, skip) = (
                given.text("task"),
                given.uuid("before"),
                given.limit(),
                app.config.crawl.skip.clone(),
            );
            let (quality, next) = app
                .ask(move |tx| match &task {
                    Some(task) => queries::quality::of(tx, task, before, limit),
                    None => Ok((queries::quality::last(tx, &skip)?, None)),
                })
                .await?;
            Ok(Answer::json(&QualityAnswer { quality, next }))
        }
        Operation::Backups => {
            let (removed, before, limit) =
                (given.is("removed"), given.text("before"), given.limit());
            let (backups, next) = app
                .ask(move |tx| queries::backups::list(tx, removed, before.as_deref(), limit))
                .await?;
            Ok(Answer::json(&BackupsAnswer { backups, next }))
        }
        Operation::Drills => {
            let limit = given.limit();
            let (drills, repositories) = app
                .ask(move |tx| {
                    Ok((
                        queries::backups::drills(tx, limit)?,
                        queries::backups::sizes(tx)?,
                    ))
                })
                .await?;
            Ok(Answer::json(&DrillsAnswer {
                drills,
                repositories,
            }))
        }
        Operation::OpenApi => Ok(Answer::json(&openapi::document(&asked.base))),
        Operation::Alive => Ok(Answer::json(
            &json!({"status": "ok", "program": PROGRAM, "version": env!("CARGO_PKG_VERSION")}),
        )),
        Operation::Ready => {
            let known = app.live.known().await;
            if known.is_stale() {
                Err(away(&known))
            } else {
                Ok(Answer::json(&json!({"status": "ok"})))
            }
        }
        Operation::Metrics => metrics::answer(app).await,
        Operation::Asset => {
            let name = given.text("file").unwrap_or_default();
            web::assets::named(&name)
                .map(|a| Answer::asset(a.content_type, a.text))
                .ok_or_else(|| missing("there is no such file".to_owned()))
        }
        Operation::Page(page) => web::answer(app, asked, page, given, caller, body).await,
    }
}

async fn health(app: &Arc<App>, given: &Given) -> Result<Answer, Answer> {
    let known = app.live.known().await;
    let snapshot = known.snapshot.as_ref().ok_or_else(|| away(&known))?;
    let Some(task) = given.text("task") else {
        let mut answer = Answer::json_bytes(known.health.clone());
        // The moment changes each second; what it says need not.
        answer.tag = Some(known.health_tag.clone());
        return Ok(answer);
    };
    let one: Vec<_> = snapshot
        .tasks
        .iter()
        .filter(|t| t.name == task)
        .cloned()
        .collect();
    let worst = one
        .first()
        .ok_or_else(|| missing(format!("there is no task \"{task}\"")))?
        .health;
    let mut answer = HealthAnswer::of(snapshot, known.trouble.clone());
    (answer.status, answer.tasks) = (worst, &one);
    Ok(Answer::json(&answer))
}

/// Nothing was ever known.
fn away(known: &Known) -> Answer {
    let reason = known
        .trouble
        .clone()
        .unwrap_or_else(|| "PostgreSQL does not answer".to_owned());
    Answer::problem(StatusCode::SERVICE_UNAVAILABLE, reason).with(header::RETRY_AFTER, "5")
}

fn missing(detail: String) -> Answer {
    Answer::problem(StatusCode::NOT_FOUND, detail)
}

/// A task with its last runs and days.
///
/// # Errors
/// The answer to give instead.
pub async fn task(app: &Arc<App>, name: &str) -> Result<Option<TaskAnswer>, Answer> {
    let (config, name) = (Arc::clone(&app.config), name.to_owned());
    app.ask(move |tx| {
        let Some(task) = queries::health::tasks(tx, &config, Some(&name))?.pop() else {
            return Ok(None);
        };
        let names = [name.as_str()];
        let runs = queries::history::marks(tx, &names)?
            .remove(&name)
            .unwrap_or_default();
        let days = queries::history::days(tx, &names, Utc::now())?
            .remove(&name)
            .unwrap_or_default();
        Ok(Some(TaskAnswer { task, runs, days }))
    })
    .await
}

/// Takes on a trouble in the name of a token, on a connection of its own that may write.
///
/// # Errors
/// The answer to give instead: 403 without a token, 404 when there is no such trouble.
pub async fn acknowledge(
    app: &Arc<App>,
    caller: &Caller,
    fingerprint: &str,
    note: &str,
) -> Result<(), Answer> {
    let Caller::Named(by) = caller.clone() else {
        return Err(Answer::problem(
            StatusCode::FORBIDDEN,
            "taking on a trouble needs a token, so that others see who did; make one with oa-report token, or use oa-alert ack",
        ));
    };
    let note = note.trim().to_owned();
    if note.chars().count() > MOST_NOTE || note.contains('\0') || fingerprint.contains('\0') {
        return Err(Answer::problem(
            StatusCode::BAD_REQUEST,
            format!("the note has more than {MOST_NOTE} characters, or one that cannot be stored"),
        ));
    }
    let (config, fingerprint) = (Arc::clone(&app.config), fingerprint.to_owned());
    let done = tokio::task::spawn_blocking(move || {
        let mut settings = Settings::from_config(&config, PROGRAM).map_err(|e| e.to_string())?;
        settings.statement_timeout = crate::pool::STATEMENT;
        let mut client = pg::connect(&settings).map_err(|e| e.to_string())?;
        let found = queries::alerts::acknowledge(&mut client, &fingerprint, &by, &redact(&note))
            .map_err(|e| describe(&e))?;
        Ok::<_, String>(found.then_some(()).ok_or(fingerprint))
    })
    .await;
    match done {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(fingerprint))) => Err(missing(format!(
            "there is no open trouble {fingerprint}; it may be over"
        ))),
        Ok(Err(reason)) => Err(Answer::problem(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("could not be recorded: {reason}"),
        )
        .with(header::RETRY_AFTER, "5")),
        Err(_) => Err(Answer::problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "this program made a mistake; its log has more",
        )),
    }
}
