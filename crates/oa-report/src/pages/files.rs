//! Files that runs have left on this machine: never a page of this server, whatever is in them.

use std::sync::Arc;

use hyper::header;

use crate::app::App;
use crate::app::answer::Answer;
use crate::app::params::Params;
use crate::queries;
use crate::queries::kept::{self, Body};

fn not_here() -> Answer {
    Answer::missing(
        "this is not on this machine: the run was on another one, or it was removed (oa-crawl prune)",
    )
}

pub(super) async fn raw(app: &Arc<App>, params: &Params) -> Result<Answer, Answer> {
    let id = params.required_uuid("id")?;
    let seq: i32 = params
        .required_text("seq")?
        .parse()
        .map_err(|_| not_here())?;
    let state_dir = app.config.state_dir.clone();
    let body = app
        .ask(move |tx| {
            let found = queries::run::raw_answer(tx, id, seq)?;
            Ok(found.and_then(|(sha256, content_type)| {
                kept::answer(&state_dir, &sha256, content_type.as_deref()).ok()
            }))
        })
        .await?;
    match body.ok_or_else(not_here)? {
        Body::Text { mut text, is_cut } => {
            if is_cut {
                text.push_str("\n… only the first megabyte is shown");
            }
            Ok(Answer::text("text/plain; charset=utf-8", text))
        }
        Body::Bytes(bytes) => Ok(Answer::text("application/octet-stream", bytes).with(
            header::CONTENT_DISPOSITION,
            &format!("attachment; filename=\"{id}-{seq}.bin\""),
        )),
    }
}

pub(super) async fn failure(app: &Arc<App>, params: &Params) -> Result<Answer, Answer> {
    let id = params.required_uuid("id")?;
    let name = params.required_text("file")?;
    let state_dir = app.config.state_dir.clone();
    let of = name.clone();
    let bytes = app
        .ask(move |tx| {
            let run = queries::run::span(tx, id)?;
            Ok(run.and_then(|(task, from, until)| {
                let all = kept::failures(&state_dir, &task, from, until);
                all.contains(&of)
                    .then(|| kept::failure(&state_dir, &of).ok())
                    .flatten()
            }))
        })
        .await?
        .ok_or_else(not_here)?;
    Ok(if name.ends_with(".png") {
        Answer::text("image/png", bytes)
    } else {
        // As text: nothing of the site's page runs here.
        Answer::text("text/plain; charset=utf-8", bytes)
    })
}
