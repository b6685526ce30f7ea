//! What people do over HTTP: acknowledge, silence, ask for a run or a test message. The only writes of this program; each on a connection
//! of its own, in the name of a token that may act. What is asked for is carried out by the programs that cron starts, never by this one.

use std::sync::Arc;

use hyper::{StatusCode, header};
use oa_core::base::secrets::redact;
use oa_core::journal::requests::{self, Action, Put};
use oa_core::pg::{self, Settings, describe};
use postgres::Client;

use super::App;
use super::answer::Answer;
use super::guard::Caller;
use crate::PROGRAM;
use crate::pool::STATEMENT_TIMEOUT;
use crate::queries::alerts::{self, Silence};

/// In characters.
pub(crate) const LONGEST_NOTE: usize = 500;
/// Longer silences are forgotten ones.
pub(crate) const LONGEST_SILENCE: u32 = 31 * 24;

fn storable(text: &str) -> Result<String, Answer> {
    let text = text.trim();
    if text.chars().count() > LONGEST_NOTE || text.contains('\0') {
        return Err(Answer::problem(
            StatusCode::BAD_REQUEST,
            format!(
                "the note has more than {LONGEST_NOTE} characters, or one that cannot be stored"
            ),
        ));
    }
    Ok(redact(text))
}

impl App {
    /// The error is the answer to give instead: 403 for whoever may not act, 503 while PostgreSQL is unreachable.
    async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        caller: &Caller,
        what: &str,
        write: impl FnOnce(&mut Client, &str) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, Answer> {
        if !caller.may_act() {
            return Err(Answer::problem(
                StatusCode::FORBIDDEN,
                format!(
                    "{what} needs a token that is not read-only, so that others see who did; make one with oa-report token"
                ),
            ));
        }
        let (app, by) = (Arc::clone(self), caller.name().to_owned());
        let written = tokio::task::spawn_blocking(move || {
            let mut settings =
                Settings::from_config(&app.config, PROGRAM).map_err(|e| e.to_string())?;
            settings.statement_timeout = STATEMENT_TIMEOUT;
            let mut client = pg::connect(&settings).map_err(|e| e.to_string())?;
            write(&mut client, &by).map_err(|e| describe(&e))
        })
        .await;
        match written {
            Ok(Ok(written)) => {
                self.kept_pages.clear();
                Ok(written)
            }
            Ok(Err(reason)) => Err(Answer::problem(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("could not be recorded: {reason}"),
            )
            .with(header::RETRY_AFTER, "5")),
            Err(_) => Err(Answer::own_mistake()),
        }
    }

    /// Acknowledges an incident; 404 when no such incident is open.
    pub(crate) async fn acknowledge(
        self: &Arc<Self>,
        caller: &Caller,
        fingerprint: &str,
        note: &str,
    ) -> Result<(), Answer> {
        let (note, of) = (storable(note)?, fingerprint.to_owned());
        if of.contains('\0') {
            return Err(Answer::problem(
                StatusCode::BAD_REQUEST,
                "no incident has such a fingerprint",
            ));
        }
        let found = self
            .write(caller, "acknowledging an incident", move |client, by| {
                alerts::acknowledge(client, &of, by, &note)
            })
            .await?;
        if found {
            return Ok(());
        }
        Err(Answer::missing(format!(
            "there is no open incident {fingerprint}; it may be resolved"
        )))
    }

    /// Takes an acknowledgement back.
    pub(crate) async fn unacknowledge(
        self: &Arc<Self>,
        caller: &Caller,
        fingerprint: &str,
    ) -> Result<(), Answer> {
        let of = fingerprint.replace('\0', "");
        let what = "taking an acknowledgement back";
        self.write(caller, what, move |client, _| {
            alerts::unacknowledge(client, &of)
        })
        .await
    }

    /// Notifies nobody of what fits, for so many hours.
    pub(crate) async fn silence(
        self: &Arc<Self>,
        caller: &Caller,
        silence: Silence,
    ) -> Result<(), Answer> {
        let names = [&silence.task, &silence.rule, &silence.fingerprint];
        let wrong = names.iter().all(|n| n.is_none())
            || names.iter().any(|n| {
                n.as_ref()
                    .is_some_and(|n| n.contains('\0') || n.len() > 1000)
            });
        if wrong || !(1..=LONGEST_SILENCE).contains(&silence.hours) {
            return Err(Answer::problem(
                StatusCode::BAD_REQUEST,
                format!(
                    "a silence names a task, a rule or an incident, and lasts 1 to {LONGEST_SILENCE} hours"
                ),
            ));
        }
        let silence = Silence {
            reason: storable(&silence.reason)?,
            ..silence
        };
        let zone = self.config.timezone;
        self.write(caller, "a silence", move |client, by| {
            alerts::silence(client, &silence, by, zone)
        })
        .await
    }

    /// Ends a silence now.
    pub(crate) async fn end_silence(
        self: &Arc<Self>,
        caller: &Caller,
        id: i64,
    ) -> Result<(), Answer> {
        self.write(caller, "ending a silence", move |client, _| {
            alerts::end_silence(client, id)
        })
        .await
    }

    /// Asks for something that cron's programs carry out; gives its number. 404 for what is no source or no channel.
    pub(crate) async fn request(
        self: &Arc<Self>,
        caller: &Caller,
        action: Action,
    ) -> Result<i64, Answer> {
        let subject = action.subject().to_owned();
        let missing =
            |what: &str| Err(Answer::missing(format!("there is no {what} \"{subject}\"")));
        match &action {
            Action::Backfill { from, to, .. } if from > to || (*to - *from).num_days() > 400 => {
                return Err(Answer::problem(
                    StatusCode::CONFLICT,
                    "from must not be after to, and 400 days are the most",
                ));
            }
            Action::TestChannel { channel }
                if !self
                    .config
                    .alert
                    .channels
                    .iter()
                    .any(|c| c.name == *channel) =>
            {
                return missing("channel");
            }
            _ if subject.contains('\0') => return missing("source"),
            _ => {}
        }
        let what = "asking for a run or a message";
        let put = self
            .write(caller, what, move |client, by| {
                requests::put(client, &action, by)
            })
            .await?;
        match put {
            Put::New(id) | Put::Waits(id) => Ok(id),
            Put::NotASource => missing("source"),
        }
    }
}
