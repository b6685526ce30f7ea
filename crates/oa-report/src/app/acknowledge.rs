//! Acknowledging an incident: the one thing that is written over HTTP, by the API and by a form of the pages.

use std::sync::Arc;

use hyper::{StatusCode, header};
use oa_core::base::secrets::redact;
use oa_core::pg::{self, Settings, describe};

use super::App;
use super::answer::Answer;
use super::guard::Caller;
use crate::PROGRAM;
use crate::pool::STATEMENT_TIMEOUT;
use crate::queries::alerts;

/// In characters.
pub(crate) const LONGEST_NOTE: usize = 500;

impl App {
    /// Acknowledges an incident in the name of a token, on a connection of its own that may write. The error is the answer to give
    /// instead: 403 without a token, 404 when no such incident is open.
    pub(crate) async fn acknowledge(
        self: &Arc<Self>,
        caller: &Caller,
        fingerprint: &str,
        note: &str,
    ) -> Result<(), Answer> {
        if !caller.may_act() {
            return Err(Answer::problem(
                StatusCode::FORBIDDEN,
                "acknowledging an incident needs a token that is not read-only, so that others see who did; make one with oa-report token, or use oa-alert ack",
            ));
        }
        let by = caller.name().to_owned();
        let note = note.trim().to_owned();
        if note.chars().count() > LONGEST_NOTE || note.contains('\0') || fingerprint.contains('\0')
        {
            return Err(Answer::problem(
                StatusCode::BAD_REQUEST,
                format!(
                    "the note has more than {LONGEST_NOTE} characters, or one that cannot be stored"
                ),
            ));
        }
        let (app, of) = (Arc::clone(self), fingerprint.to_owned());
        let recorded = tokio::task::spawn_blocking(move || {
            let mut settings =
                Settings::from_config(&app.config, PROGRAM).map_err(|e| e.to_string())?;
            settings.statement_timeout = STATEMENT_TIMEOUT;
            let mut client = pg::connect(&settings).map_err(|e| e.to_string())?;
            alerts::acknowledge(&mut client, &of, &by, &redact(&note)).map_err(|e| describe(&e))
        })
        .await;
        match recorded {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(Answer::missing(format!(
                "there is no open incident {fingerprint}; it may be resolved"
            ))),
            Ok(Err(reason)) => Err(Answer::problem(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("could not be recorded: {reason}"),
            )
            .with(header::RETRY_AFTER, "5")),
            Err(_) => Err(Answer::own_mistake()),
        }
    }
}
