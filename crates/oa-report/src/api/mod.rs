//! What the API answers, one function per question. Paths and parameters are in [`routes`](crate::app::routes).

pub(crate) mod answers;
mod openapi;

use std::sync::Arc;

use chrono::{Days, Utc};
use hyper::body::Incoming;
use hyper::{StatusCode, header};
use oa_core::journal::requests::Action;
use serde::de::DeserializeOwned;

use self::answers::{
    Ack, AckAnswer, AlertsAnswer, AliveAnswer, Ask, AskAnswer, BackupStatusAnswer, BackupsAnswer,
    DaysAnswer, DrillsAnswer, LogsAnswer, QualityAnswer, ReadyAnswer, RequestsAnswer,
    SilencesAnswer,
};
use crate::app::App;
use crate::app::answer::Answer;
use crate::app::body::Pieces;
use crate::app::guard::Caller;
use crate::app::params::{Params, Refused};
use crate::app::request::{Request, read_body};
use crate::app::routes::Operation;
use crate::queries::days::{LONGEST, MOST, SourceDay, Summary, TWO_WEEKS};
use crate::snapshot::HealthAnswer;
use crate::{PROGRAM, queries};

pub(crate) async fn answer(
    app: &Arc<App>,
    request: &Request,
    operation: Operation,
    params: &Params,
    caller: &Caller,
    body: Incoming,
) -> Result<Answer, Answer> {
    match operation {
        Operation::Health => health(app, params).await,
        Operation::Logs => logs(app, params).await,
        Operation::Days => days(app, params, request.takes_gzip()).await,
        Operation::BackupStatus => backup_status(app).await,
        Operation::Run => run(app, params).await,
        Operation::Task => task(app, params).await,
        Operation::Alerts => alerts(app, params).await,
        Operation::Acknowledge => acknowledge(app, request, caller, body).await,
        Operation::Requests => requests(app, params).await,
        Operation::Ask => ask(app, request, caller, body).await,
        Operation::Silences => silences(app).await,
        Operation::Quality => quality(app, params).await,
        Operation::Backups => backups(app, params).await,
        Operation::Drills => drills(app, params).await,
        Operation::OpenApi => Ok(Answer::json(&openapi::document(&request.base))),
        Operation::Alive => Ok(Answer::json(&AliveAnswer {
            status: "ok",
            program: PROGRAM,
            version: env!("CARGO_PKG_VERSION"),
        })),
        Operation::Ready => ready(app).await,
        // Answered by others.
        Operation::Metrics
        | Operation::Badge
        | Operation::Feed
        | Operation::Asset
        | Operation::Page(_)
        | Operation::Link
        | Operation::Act => Err(Answer::missing("there is nothing at this path")),
    }
}

async fn health(app: &Arc<App>, params: &Params) -> Result<Answer, Answer> {
    let latest = app.snapshots.latest().await;
    let snapshot = latest
        .snapshot
        .as_ref()
        .ok_or_else(|| Answer::unavailable(&latest))?;
    let Some(task) = params.text("task") else {
        let mut answer = Answer::json_bytes(latest.health.clone());
        // The time changes each second; the rest need not.
        answer.tag = Some(latest.health_tag.clone());
        return Ok(answer);
    };
    let one: Vec<_> = snapshot
        .tasks
        .iter()
        .filter(|t| t.name == task)
        .cloned()
        .collect();
    let health = one.first().ok_or_else(|| not_watched(&task))?.severity;
    let mut answer = HealthAnswer::of(snapshot, latest.outage.clone());
    (answer.status, answer.tasks) = (health, &one);
    Ok(Answer::json(&answer))
}

fn no_task(name: &str) -> Answer {
    Answer::missing(format!("there is no task \"{name}\""))
}

/// Health is that of tasks that are watched.
fn not_watched(name: &str) -> Answer {
    Answer::missing(format!(
        "no task \"{name}\" is watched: there is none, or it was given up, or [crawl] skip has it"
    ))
}

async fn logs(app: &Arc<App>, params: &Params) -> Result<Answer, Answer> {
    let filter = params.filter();
    let (logs, next) = app.ask(move |tx| queries::logs::page(tx, &filter)).await?;
    Ok(Answer::json(&LogsAnswer { logs, next }))
}

async fn days(app: &Arc<App>, params: &Params, packed: bool) -> Result<Answer, Answer> {
    let wrong = |detail: String| Refused::Contradiction(detail).answer();
    let today = Utc::now().with_timezone(&app.config.timezone).date_naive();
    let to = params.day("to").unwrap_or(today);
    let from = params
        .day("from")
        .unwrap_or_else(|| to.checked_sub_days(Days::new(TWO_WEEKS - 1)).unwrap_or(to));
    if from > to {
        return Err(wrong(format!("from ({from}) is after to ({to})")));
    }
    if (to - from).num_days() > LONGEST {
        return Err(wrong(format!(
            "from {from} to {to} are more than {LONGEST} days; ask for fewer"
        )));
    }
    let (config, task) = (Arc::clone(&app.config), params.text("task"));
    let tasks: Vec<String> = task.iter().cloned().collect();
    let (known, count, pieces) = app
        .ask(move |tx| {
            let known = tx
                .query_one(
                    "SELECT cardinality($1::text[]) = 0 OR EXISTS (SELECT FROM oa.tasks WHERE name = ANY($1))",
                    &[&tasks],
                )?
                .get::<_, bool>(0);
            let mut count = 0;
            let mut pieces = Pieces::new(packed);
            let mut answer = DaysAnswer { from, to, days: Vec::new(), summary: Summary::default() };
            pieces.put(answer.around().0.as_bytes());
            let each = |day: SourceDay| {
                if count > 0 {
                    pieces.put(b",");
                }
                count += 1;
                pieces.put_json(&day);
            };
            let span = (from, to);
            answer.summary = queries::days::each_between(tx, &config, &tasks, span, MOST + 1, each)?;
            pieces.put(answer.around().1.as_bytes());
            Ok((known, count, pieces))
        })
        .await?;
    if let (false, Some(task)) = (known, &task) {
        return Err(no_task(task));
    }
    if count > MOST {
        return Err(wrong(format!(
            "there are more than {MOST} days of sources; ask for fewer days, or one task"
        )));
    }
    Ok(Answer::json_pieces(pieces))
}

async fn backup_status(app: &Arc<App>) -> Result<Answer, Answer> {
    let latest = app.snapshots.latest().await;
    let snapshot = latest
        .snapshot
        .as_ref()
        .ok_or_else(|| Answer::unavailable(&latest))?;
    Ok(Answer::json(&BackupStatusAnswer {
        status: &snapshot.backups,
        timestamp: snapshot.taken_at,
        stale: latest.is_stale(),
    }))
}

async fn run(app: &Arc<App>, params: &Params) -> Result<Answer, Answer> {
    let id = params.required_uuid("id")?;
    let state_dir = app.config.state_dir.clone();
    let run = app
        .ask(move |tx| {
            let mut run = queries::run::detail(tx, id)?;
            if let Some(run) = &mut run {
                queries::kept::add_live_output(&state_dir, run);
            }
            Ok(run)
        })
        .await?;
    run.map(|run| Answer::json(&run))
        .ok_or_else(|| Answer::missing(format!("there is no run {id}")))
}

async fn task(app: &Arc<App>, params: &Params) -> Result<Answer, Answer> {
    let name = params.required_text("name")?;
    let (config, of) = (Arc::clone(&app.config), name.clone());
    let task = app
        .ask(move |tx| queries::task::detail(tx, &config, &of))
        .await?;
    task.map(|task| Answer::json(&task))
        .ok_or_else(|| no_task(&name))
}

async fn alerts(app: &Arc<App>, params: &Params) -> Result<Answer, Answer> {
    let (before, limit) = (params.uuid("before"), params.limit());
    let wording = crate::lang::wording(&app.config);
    let (open, (alerts, next)) = app
        .ask(move |tx| {
            Ok((
                queries::alerts::open(tx, &wording)?,
                queries::alerts::list(tx, &wording, before, limit)?,
            ))
        })
        .await?;
    Ok(Answer::json(&AlertsAnswer { open, alerts, next }))
}

async fn acknowledge(
    app: &Arc<App>,
    request: &Request,
    caller: &Caller,
    body: Incoming,
) -> Result<Answer, Answer> {
    let ack: Ack = read_json(request, body).await?;
    app.acknowledge(caller, &ack.fingerprint, &ack.note).await?;
    Ok(Answer::json(&AckAnswer {
        fingerprint: ack.fingerprint,
        by: caller.name().to_owned(),
        note: ack.note,
    })
    .with_status(StatusCode::CREATED))
}

/// A form of another site can send no JSON.
async fn read_json<T: DeserializeOwned>(request: &Request, body: Incoming) -> Result<T, Answer> {
    let content_type = request.header(header::CONTENT_TYPE);
    if content_type.is_none_or(|t| t.split(';').next() != Some("application/json")) {
        return Err(Answer::problem(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body must be application/json",
        ));
    }
    let body = read_body(body).await?;
    serde_json::from_slice(&body).map_err(|e| {
        Answer::problem(
            StatusCode::BAD_REQUEST,
            format!("the body is not what it should be: {e}"),
        )
    })
}

async fn requests(app: &Arc<App>, params: &Params) -> Result<Answer, Answer> {
    let (subject, limit) = (params.text("subject"), i64::from(params.limit()));
    let requests = app
        .ask(move |tx| queries::requests::recent(tx, subject.as_deref(), limit))
        .await?;
    Ok(Answer::json(&RequestsAnswer { requests }))
}

async fn ask(
    app: &Arc<App>,
    request: &Request,
    caller: &Caller,
    body: Incoming,
) -> Result<Answer, Answer> {
    let action = match read_json(request, body).await? {
        Ask::Run { task, day } => Action::Run { task, day },
        Ask::Backfill { task, from, to } => Action::Backfill { task, from, to },
        Ask::TestChannel { channel } => Action::TestChannel { channel },
    };
    let id = app.request(caller, action).await?;
    Ok(Answer::json(&AskAnswer { id }).with_status(StatusCode::ACCEPTED))
}

async fn silences(app: &Arc<App>) -> Result<Answer, Answer> {
    let answer = app
        .ask(|tx| {
            Ok(SilencesAnswer {
                silences: queries::alerts::silences(tx)?,
            })
        })
        .await?;
    Ok(Answer::json(&answer))
}

async fn quality(app: &Arc<App>, params: &Params) -> Result<Answer, Answer> {
    let (task, before, limit) = (params.text("task"), params.uuid("before"), params.limit());
    let skip = app.config.crawl.skip.clone();
    let (quality, next) = app
        .ask(move |tx| match &task {
            Some(task) => queries::quality::of(tx, task, before, limit),
            None => Ok((queries::quality::last(tx, &skip)?, None)),
        })
        .await?;
    Ok(Answer::json(&QualityAnswer { quality, next }))
}

async fn backups(app: &Arc<App>, params: &Params) -> Result<Answer, Answer> {
    let (removed, before, limit) = (params.is("removed"), params.text("before"), params.limit());
    let (backups, next) = app
        .ask(move |tx| queries::backups::list(tx, removed, before.as_deref(), limit))
        .await?;
    Ok(Answer::json(&BackupsAnswer { backups, next }))
}

async fn drills(app: &Arc<App>, params: &Params) -> Result<Answer, Answer> {
    let limit = params.limit();
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

async fn ready(app: &Arc<App>) -> Result<Answer, Answer> {
    let latest = app.snapshots.latest().await;
    if latest.is_stale() {
        return Err(Answer::unavailable(&latest));
    }
    Ok(Answer::json(&ReadyAnswer { status: "ok" }))
}
