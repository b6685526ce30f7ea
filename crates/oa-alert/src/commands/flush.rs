//! `oa-alert flush`: sends what waits, now.

use std::time::Duration;

use chrono::Utc;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::journal::Recorder;
use oa_core::journal::incidents::Policy;
use oa_core::journal::spool::SpoolError;
use oa_core::pg::{self, describe, is_connection_error, schema};
use postgres::Client;
use serde_json::json;

use super::{channels, wording};
use crate::PROGRAM;
use crate::channels::Channel;
use crate::check::network;
use crate::deliver::cards;
use crate::deliver::{
    Database, Delivery, Rendering, Route, Spooled, Undelivered, deliver, in_spool,
};

/// For so long messages are changed; what is left, the next one or `oa-alert listen` does.
const CARDS: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// 78 when there is no usable channel, one is misconfigured, or the schema does not fit, 75 when PostgreSQL is unreachable, 77 when the
/// state directory cannot be used, 1 when a channel refused something.
pub(crate) fn run(config: &Config, args: &Args) -> Result<u8, Failure> {
    send(config, args.format)
}

/// Sends everything that is due and prints what was sent. Without PostgreSQL it sends what is in the spool, and without a usable
/// state directory what is in PostgreSQL.
pub(super) fn send(config: &Config, format: Format) -> Result<u8, Failure> {
    let sent = send_all(config);
    print(&sent.done, format)?;
    sent.result.map_err(|e| with_what_was_sent(e, &sent.done))?;
    Ok(if sent.broken {
        exit::CONFIG
    } else if sent.done.iter().any(|d| d.error.is_some()) {
        exit::FAILED
    } else {
        exit::OK
    })
}

/// What became of everything that was due.
pub(super) struct Sent {
    /// Each try.
    pub(crate) done: Vec<Delivery>,
    /// A channel is misconfigured.
    pub(crate) broken: bool,
    /// Why not everything was tried.
    pub(crate) result: Result<(), Failure>,
    /// What should have left long ago, whether it was tried now or not.
    pub(crate) undelivered: Vec<Undelivered>,
}

impl Sent {
    /// Whether every channel took what it was given, and nothing waits that should have left.
    pub(super) fn is_complete(&self) -> bool {
        !self.broken
            && self.undelivered.is_empty()
            && self.result.is_ok()
            && self.done.iter().all(|d| d.error.is_none())
    }
}

/// Sends everything that is due.
pub(super) fn send_all(config: &Config) -> Sent {
    send_over(config, None, None)
}

/// The same with what keeps the run log, and over a connection, that are there already, while that lasts.
pub(super) fn send_over(
    config: &Config,
    recorder: Option<&Recorder>,
    client: Option<&mut Client>,
) -> Sent {
    let (usable, broken) = channels(config);
    if config.alert.channels.is_empty() {
        tracing::warn!(
            "no [[alert.channels]] in {}: alerts reach nobody",
            config.path.display()
        );
    }
    let links = config.link_key().unwrap_or_else(|e| {
        tracing::error!("messages carry no links: {e}");
        None
    });
    let sender = Sender {
        config,
        usable: &usable,
        rendering: Rendering {
            wording: wording(config),
            policy: Policy::from_config(config),
            page: config.report.url.as_deref(),
            links: links.as_ref(),
        },
        network_off: config.alert.is_off("network_down"),
    };
    let (mut done, mut undelivered) = (Vec::new(), Vec::new());
    let result = match recorder {
        Some(recorder) => sender.send(recorder, client, &mut done, &mut undelivered),
        None => sender.open_and_send(&mut done, &mut undelivered),
    };
    Sent {
        done,
        broken,
        result,
        undelivered,
    }
}

struct Sender<'a> {
    config: &'a Config,
    usable: &'a [Channel],
    rendering: Rendering<'a>,
    /// Nobody wants to hear that a machine reaches nothing.
    network_off: bool,
}

impl Sender<'_> {
    fn open_and_send(
        &self,
        done: &mut Vec<Delivery>,
        undelivered: &mut Vec<Undelivered>,
    ) -> Result<(), Failure> {
        let config = self.config;
        match Recorder::open(config, PROGRAM).map_err(Failure::from) {
            Ok(recorder) => self.send(&recorder, None, done, undelivered),
            Err(no_state) if no_state.code == exit::REFUSED => {
                let mut client = pg::connect(&pg::Settings::from_config(config, PROGRAM)?)?;
                schema::check(&mut client)?;
                *undelivered = self.flush_database(&mut client, None, done)?;
                Err(no_state)
            }
            Err(e) => Err(e),
        }
    }

    fn send(
        &self,
        recorder: &Recorder,
        client: Option<&mut Client>,
        done: &mut Vec<Delivery>,
        undelivered: &mut Vec<Undelivered>,
    ) -> Result<(), Failure> {
        let mut own = None;
        let client = client.filter(|c| !c.is_closed());
        let given = client.is_some();
        let connected = match client {
            Some(client) => Ok(client),
            None => recorder.connect().map(|(client, _)| own.insert(client)),
        };
        let unreachable = match connected {
            Ok(client) => {
                match self.flush_database(client, Some(recorder), done) {
                    Ok(waits) => *undelivered = waits,
                    // The server was restarted, or another one has taken over.
                    Err(_) if given && client.is_closed() => {
                        return self.send(recorder, None, done, undelivered);
                    }
                    Err(refused) => {
                        // Its disk is full, for example: what it does not take waits in the spool, and leaves from there.
                        self.flush_spool_or_say(recorder, done);
                        return Err(refused);
                    }
                }
                match recorder.spool().and_then(|s| in_spool(&s)) {
                    Ok(waits) => undelivered.extend(waits),
                    Err(e) => tracing::warn!("{e}"),
                }
                return Ok(());
            }
            Err(unreachable) => unreachable,
        };
        self.flush_spool_or_say(recorder, done);
        Err(unreachable.into())
    }

    fn flush_spool_or_say(&self, recorder: &Recorder, done: &mut Vec<Delivery>) {
        let wording = self.rendering.wording;
        let routes = Route::all(self.config, Utc::now());
        for outbox in [
            Spooled::open(recorder, &routes, wording),
            Spooled::open_in_memory(recorder, &routes, wording),
        ] {
            if let Err(e) = self.flush_spool(outbox, done) {
                tracing::error!("{e}");
            }
        }
    }

    fn flush_database(
        &self,
        client: &mut Client,
        recorder: Option<&Recorder>,
        done: &mut Vec<Delivery>,
    ) -> Result<Vec<Undelivered>, Failure> {
        let spool = recorder.and_then(|r| r.spool().ok());
        let sent = || {
            if !self.network_off && Database::waits(client)? {
                network::raise(client, &self.rendering.policy)?;
            }
            let now = client.query_one("SELECT now()", &[])?.get(0);
            let routes = Route::all(self.config, now);
            let mut outbox = Database::open(client, &routes, spool, self.rendering.wording)?;
            if let Some(recorder) = recorder {
                outbox.announce(recorder.host())?;
            }
            deliver(&mut outbox, self.usable, &self.rendering, done)?;
            if recorder.is_some() && outbox.close_removed() {
                deliver(&mut outbox, self.usable, &self.rendering, done)?;
            }
            outbox.settle()?;
            let undelivered = outbox.undelivered()?;
            let (state, wording) = (recorder.map(Recorder::state), &self.rendering.wording);
            let key = self.rendering.links;
            cards::refresh(client, state, self.usable, wording, key, CARDS)?;
            Ok(undelivered)
        };
        sent().map_err(|e: postgres::Error| {
            let code = if is_connection_error(&e) {
                exit::UNREACHABLE
            } else {
                exit::FAILED
            };
            let reason = describe(&e);
            Failure::new(
                code,
                anyhow::anyhow!("could not deliver from the outbox: {reason}"),
            )
        })
    }

    fn flush_spool(
        &self,
        outbox: Result<Option<Spooled<'_>>, SpoolError>,
        done: &mut Vec<Delivery>,
    ) -> Result<(), SpoolError> {
        match outbox? {
            Some(mut outbox) => deliver(&mut outbox, self.usable, &self.rendering, done),
            None => Ok(()),
        }
    }
}

fn with_what_was_sent(failure: Failure, done: &[Delivery]) -> Failure {
    let sent = done.iter().filter(|d| d.error.is_none()).count();
    if sent == 0 {
        return failure;
    }
    let error = failure.error;
    Failure::new(
        failure.code,
        anyhow::anyhow!("{error:#}; all the same {sent} message(s) were sent"),
    )
}

fn print(deliveries: &[Delivery], format: Format) -> Result<(), Failure> {
    // cron mails what a command prints: nothing to say, nothing printed.
    if deliveries.is_empty() {
        return Ok(());
    }
    let mut listing = Listing::new(&[
        ("channel", "CHANNEL"),
        ("state", "STATE"),
        ("tries", "TRIES"),
        ("title", "ALERT"),
        ("error", "ERROR"),
    ]);
    for d in deliveries {
        let state = match d.error {
            None => "sent",
            Some(_) if d.given_up => "given up",
            Some(_) => "refused",
        };
        listing.push(json!({ "channel": d.channel, "state": state, "tries": d.tries, "title": d.title, "error": d.error }));
    }
    listing
        .print(format)
        .map_err(|e| anyhow::Error::from(e).into())
}
