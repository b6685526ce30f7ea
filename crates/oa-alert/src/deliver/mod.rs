//! Delivery from the outbox, which is in PostgreSQL ([`Database`]) or, while that is away, in this machine's spool
//! ([`Spooled`]). The rules are the same for both:
//!
//! ```text
//! claim   state sending, leased               one transaction
//! send    to the channel
//! record  sent, or pending again with the next time     one transaction
//! ```
//! Killed between send and record, the lease runs out and the message is sent once more, marked as a possible repeat. Within one
//! fingerprint a channel gets alerts in their order: a later one waits until the earlier one is sent or given up.

mod database;
mod notice;
pub(crate) mod page;
mod spooled;

use std::time::Duration;

use oa_core::alerts::{Alert, Kind, Policy};
use oa_core::failpoint;
use oa_core::secrets::redact;

use crate::channels::{Channel, SendError};
use crate::render::{Message, digest, mark_repeat};
pub use database::{Database, Route};
pub use spooled::Spooled;

/// A channel that has more than this waiting gets them as one message, to stay below the robots' limits.
const DIGEST_ABOVE: usize = 5;
/// Most messages that go into one digest. It names the worst of them and counts the others.
const DIGEST_MOST: usize = 2000;
/// A message that a channel did not take for this long after its first try is given up.
const GIVE_UP: Duration = Duration::from_secs(24 * 3600);
/// What a sender may take between claim and record, beyond the time of the channel itself.
const LEASE_MARGIN: Duration = Duration::from_secs(50);

/// What became of one alert on one channel.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The alert's title.
    pub title: String,
    /// The channel.
    pub channel: String,
    /// How often it was tried.
    pub tries: i32,
    /// Why it was not taken; `None` when it was.
    pub error: Option<String>,
    /// It is not tried again.
    pub given_up: bool,
}

/// An alert that this process may send to one channel now.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The alert.
    pub alert: Alert,
    /// How often it was tried, with this time.
    pub tries: i32,
    /// Time since the first try.
    pub trying_for: Duration,
    /// An earlier try may have reached the channel.
    pub repeat: bool,
}

/// Where a delivery stands after a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The channel has it.
    Sent,
    /// It is tried again.
    Pending,
    /// It is tried again; perhaps the channel has it.
    Unknown,
    /// It is not tried again.
    Failed,
}

impl State {
    fn after(claimed: &Claimed, result: &Result<(), SendError>) -> Self {
        match result {
            Ok(()) => Self::Sent,
            Err(_) if claimed.trying_for > GIVE_UP => Self::Failed,
            // A refusal now does not undo that an earlier try may have reached the channel.
            Err(e) if e.unknown || claimed.repeat => Self::Unknown,
            Err(_) => Self::Pending,
        }
    }

    /// The name under which it is stored. An answer that was lost leaves the state as if this process had died.
    fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Pending => "pending",
            Self::Unknown => "sending",
            Self::Failed => "failed",
        }
    }
}

/// One try, to be recorded.
#[derive(Debug)]
pub struct Tried<'a> {
    /// What was tried.
    pub claimed: &'a Claimed,
    /// Where it stands now.
    pub state: State,
    /// The wait before the next try.
    pub wait: Duration,
    /// What the channel said against it.
    pub error: Option<&'a str>,
}

/// How alerts are told.
#[derive(Debug, Clone, Copy)]
pub struct Telling<'a> {
    /// Language, zone, repetition.
    pub policy: Policy,
    /// The address of the page (`url` in `[report]`).
    pub page: Option<&'a str>,
}

/// Where alerts wait.
pub trait Outbox {
    /// Why it cannot be used.
    type Error;

    /// Claims the oldest due alert of a channel, or up to 2,000 when more than five are due. None while the channel is paused.
    ///
    /// # Errors
    /// When the outbox fails.
    fn claim(&mut self, channel: &str, lease: Duration) -> Result<Vec<Claimed>, Self::Error>;

    /// Records tries, and for how long the channel takes nothing from anybody.
    ///
    /// # Errors
    /// When the outbox fails.
    fn record(
        &mut self,
        channel: &str,
        tried: &[Tried<'_>],
        pause: Option<Duration>,
    ) -> Result<(), Self::Error>;

    /// Tells the other channels that one gave up messages, unless that was told lately.
    ///
    /// # Errors
    /// When the outbox fails.
    fn tell(&mut self, notice: &Alert, policy: &Policy) -> Result<(), Self::Error>;

    /// Tells them that it takes messages again, if the trouble was told.
    ///
    /// # Errors
    /// When the outbox fails.
    fn tell_over(&mut self, channel: &str, policy: &Policy) -> Result<(), Self::Error>;
}

/// Sends what is due to all channels, and adds what became of it to `done`, also when the outbox fails half-way. `others` says
/// that there is more than one channel, so that one can tell of the other's trouble.
///
/// # Errors
/// When the outbox fails. A channel that refuses is no error here.
pub fn deliver<O: Outbox>(
    outbox: &mut O,
    channels: &[Channel],
    others: bool,
    telling: &Telling<'_>,
    done: &mut Vec<Delivery>,
) -> Result<(), O::Error> {
    let policy = &telling.policy;
    for channel in channels {
        loop {
            let claimed = outbox.claim(&channel.name, channel.longest() + LEASE_MARGIN)?;
            if claimed.is_empty() {
                break;
            }
            failpoint::hit("alert.claimed");
            let result = channel.send(&combine(&claimed, telling));
            failpoint::hit("alert.sent");
            let error = result.as_ref().err().map(ToString::to_string);
            let tried: Vec<Tried<'_>> = claimed
                .iter()
                .map(|one| Tried {
                    claimed: one,
                    state: State::after(one, &result),
                    wait: backoff(one.tries),
                    error: error.as_deref(),
                })
                .collect();
            done.extend(tried.iter().map(|t| Delivery {
                title: t.claimed.alert.title.clone(),
                channel: channel.name.clone(),
                tries: t.claimed.tries,
                error: error.clone(),
                given_up: t.state == State::Failed,
            }));
            let pause = result.as_ref().err().and_then(|e| e.pause);
            outbox.record(&channel.name, &tried, pause)?;
            let lost: Vec<&str> = tried
                .iter()
                .filter(|t| t.state == State::Failed)
                .map(|t| t.claimed.alert.title.as_str())
                .collect();
            if let Some(error) = &error {
                give_up(outbox, &channel.name, &lost, error, others, policy)?;
                break;
            }
            outbox.tell_over(&channel.name, policy)?;
        }
    }
    Ok(())
}

fn give_up<O: Outbox>(
    outbox: &mut O,
    channel: &str,
    titles: &[&str],
    error: &str,
    others: bool,
    policy: &Policy,
) -> Result<(), O::Error> {
    for title in titles {
        let text =
            format!("gave up sending \"{title}\" to channel {channel} after 24 hours: {error}");
        tracing::error!("{}", redact(&text));
    }
    if titles.is_empty() || !others {
        return Ok(());
    }
    outbox.tell(&notice::gave_up(channel, titles, error, policy), policy)
}

fn combine(claimed: &[Claimed], telling: &Telling<'_>) -> Message {
    let locale = telling.policy.locale;
    let messages: Vec<Message> = claimed
        .iter()
        .map(|one| {
            let message = message_of(&one.alert, telling.page);
            if one.repeat {
                mark_repeat(message, locale)
            } else {
                message
            }
        })
        .collect();
    match <[Message; 1]>::try_from(messages) {
        Ok([one]) => one,
        Err(many) => digest(
            many,
            telling.page.map(|p| page::link(p, None, None)),
            locale,
        ),
    }
}

fn message_of(alert: &Alert, page: Option<&str>) -> Message {
    Message {
        link: page.map(|p| page::link(p, alert.run_id, alert.task.as_deref())),
        parts: Vec::new(),
        title: alert.title.clone(),
        body: alert.body.clone(),
        severity: alert.severity,
        recovery: alert.kind == Kind::Recovery,
    }
}

/// How many of so many due alerts go now: one by one while they are few.
fn at_once(due: usize) -> usize {
    if due > DIGEST_ABOVE {
        due.min(DIGEST_MOST)
    } else {
        due.min(1)
    }
}

/// The wait after a failed try.
fn backoff(tries: i32) -> Duration {
    Duration::from_secs(match tries {
        ..=1 => 10,
        2 => 30,
        3 => 60,
        4 => 300,
        _ => 900,
    })
}
