//! Delivery from the outbox, which is in PostgreSQL ([`Database`]) or, while that is down, in this machine's spool
//! ([`Spooled`]). The rules are the same for both:
//!
//! ```text
//! claim   state sending, leased               one transaction
//! send    to the channel
//! record  sent, or pending again with the next time     one transaction
//! ```
//! A robot is sent no more than it takes ([`crate::pace`]): when many alerts come at once, one process waits for the others of them, and
//! sends all as one. Killed while it waits, the next one does.
//!
//! Killed between send and record, the lease runs out and the message is sent once more, marked as a possible repeat. What was sent and not
//! answered is repeated twice, and then given up: a robot that takes everything and answers nothing must not say it for a day. Within one
//! fingerprint a channel gets alerts in their order: a later one waits until the earlier one is sent or given up.
//!
//! A digest that a channel refuses for what is in it is halved until the message it is about stands alone ([`Claimed::limit`], which is
//! recorded, so that whoever comes next goes on there). That one is sent without its text, and when it is refused even so it is given
//! up, which is a message of its own.

pub(crate) mod cards;
mod database;
pub(crate) mod page;
mod roots;
mod spooled;
mod undelivered;

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use oa_core::app::config::Locale;
use oa_core::base::failpoint;
use oa_core::base::links::LinkKey;
use oa_core::base::secrets::redact;
use oa_core::base::text::error_text;
use oa_core::journal::incidents::Policy;
use oa_core::model::event::{Alert, Event, GivenUp, Kind, Lost, Severity};
use oa_wording::Wording;
use uuid::Uuid;

use crate::channels::{Cause, Channel, Receipt, SendError};
use crate::pace::Pace;
use crate::render::{Facts, Message, digest, mark_repeat, without_text};
pub(crate) use database::{Database, LONGEST_WAIT, Route};
use roots::Relations;
pub(crate) use spooled::Spooled;
pub(crate) use undelivered::{Undelivered, in_spool};

/// A channel that has more than this waiting gets them as one message, to stay below the robots' limits.
const DIGEST_ABOVE: usize = 5;
/// Most messages that go into one digest. It names the worst of them and counts the others.
const DIGEST_MOST: usize = 2000;
/// A message that a channel did not take for this long after its first try is given up.
const GIVE_UP: Duration = Duration::from_secs(24 * 3600);
/// What was sent and not answered is repeated so often.
const REPEATS: i32 = 2;
/// So many messages in a row that are refused for what is in them mean that it is the channel after all.
const REFUSED_MOST: u32 = 16;
/// A channel that a person must set up anew is reported when it has refused for this long.
const SETUP_AFTER: Duration = Duration::from_secs(300);
/// Alerts that are named in the incident of a channel.
const MOST_NAMED: usize = 10;
/// What a sender may take between claim and record, beyond the time of the channel itself.
const LEASE_MARGIN: Duration = Duration::from_secs(50);
/// For so long a process waits until a robot may be sent more. What must wait for longer, the next check sends.
const PATIENCE: Duration = Duration::from_secs(16);

/// What became of one alert on one channel.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    /// The alert's title.
    pub(crate) title: String,
    /// The channel.
    pub(crate) channel: String,
    /// How often it was tried.
    pub(crate) tries: i32,
    /// Why it was not taken; `None` when it was.
    pub(crate) error: Option<String>,
    /// It is not tried again.
    pub(crate) given_up: bool,
}

/// An alert that this process may send to one channel now.
#[derive(Debug, Clone)]
pub(crate) struct Claimed {
    /// The alert.
    pub(crate) alert: Alert,
    /// How often it was tried, with this time.
    pub(crate) tries: i32,
    /// Time since the first try.
    pub(crate) trying_for: Duration,
    /// An earlier try may have reached the channel.
    pub(crate) repeat: bool,
    /// How often it was sent and not answered.
    pub(crate) unanswered: i32,
    /// With how many it may be sent at once, because it was refused with more: [`ALONE`], [`BARE`], or more.
    pub(crate) limit: Option<i32>,
    /// What was reported of its incident before.
    pub(crate) history: History,
    /// What it has to do with others.
    pub(crate) relations: Relations,
}

/// What was reported of an incident before an alert. Nothing is known while PostgreSQL is down.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// Since when it is open.
    pub(crate) opened_at: Option<DateTime<Utc>>,
    /// How bad it is.
    pub(crate) severity: Option<Severity>,
    /// So many problems of it were reported since it is open.
    pub(crate) before: u32,
    /// The last of these.
    pub(crate) last: Option<(Event, Severity)>,
}

/// A limit: it is sent alone.
const ALONE: i32 = 1;
/// A limit: it is sent alone and without its text.
const BARE: i32 = 0;

/// Where a delivery stands after a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
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
    fn after(claimed: &Claimed, result: &Result<(), SendError>, gives_up: bool) -> Self {
        match result {
            Ok(()) => Self::Sent,
            Err(_) if gives_up && claimed.trying_for > GIVE_UP => Self::Failed,
            Err(e) if gives_up && e.unknown && claimed.unanswered >= REPEATS => Self::Failed,
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
pub(crate) struct Tried<'a> {
    /// What was tried.
    pub(crate) claimed: &'a Claimed,
    /// Where it stands now.
    pub(crate) state: State,
    /// The wait before the next try.
    pub(crate) wait: Duration,
    /// What the channel said against it.
    pub(crate) error: Option<&'a str>,
    /// With how many it may be sent from now on.
    pub(crate) limit: Option<i32>,
    /// How often it was sent and not answered by now.
    pub(crate) unanswered: i32,
}

/// How alerts are worded, and how often a channel's own incident is reported.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rendering<'a> {
    /// Language and zone.
    pub(crate) wording: Wording,
    /// Repetition.
    pub(crate) policy: Policy,
    /// The address of the page (`url` in `[report]`).
    pub(crate) page: Option<&'a str>,
    /// With which links are signed (`link_key` in `[report]`).
    pub(crate) links: Option<&'a LinkKey>,
}

/// What a channel is sent now.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Nothing: nothing is due, or another process will send it.
    Nothing,
    /// Nothing yet: this process is the one that waits for what else comes.
    Wait(Duration),
    /// These, as one message.
    These(Vec<Claimed>),
}

/// Where alerts wait.
pub(crate) trait Outbox {
    /// Why it cannot be used.
    type Error;

    /// Claims the oldest due alert of a channel, or up to 2,000 when more than five are due or many went of late. None while the channel
    /// is paused, or when it would have to wait for longer than `patience`.
    fn claim(&mut self, channel: &Channel, patience: Duration) -> Result<Claim, Self::Error>;

    /// Records tries, and for how long the channel takes nothing from anybody.
    fn record(
        &mut self,
        channel: &str,
        tried: &[Tried<'_>],
        pause: Option<Duration>,
    ) -> Result<(), Self::Error>;

    /// Notes a message that can be changed where it stands.
    fn note_card(
        &mut self,
        channel: &str,
        alert: Uuid,
        receipt: &Receipt,
    ) -> Result<(), Self::Error>;

    /// Opens the incident of a channel; the other channels are notified, unless they were lately and `lost` (what is given up now) has
    /// reached people by another channel, or will.
    fn raise(
        &mut self,
        channel: &str,
        incident: Event,
        lost: &[Alert],
        policy: &Policy,
    ) -> Result<(), Self::Error>;

    /// Resolves it: the channel takes messages again.
    fn resolve(&mut self, channel: &str) -> Result<(), Self::Error>;

    /// Puts a message about a delivery into the outbox.
    fn report(&mut self, message: Event) -> Result<(), Self::Error>;
}

/// Sends what is due to all channels, and adds what became of it to `done`, also when the outbox fails half-way.
pub(crate) fn deliver<O: Outbox>(
    outbox: &mut O,
    channels: &[Channel],
    rendering: &Rendering<'_>,
    done: &mut Vec<Delivery>,
) -> Result<(), O::Error> {
    let end = Instant::now() + PATIENCE;
    let mut open: Vec<&Channel> = channels.iter().collect();
    loop {
        let (mut later, mut next) = (Vec::new(), PATIENCE);
        for channel in open {
            let patience = end.saturating_duration_since(Instant::now());
            if let Some(wait) = deliver_to(outbox, channel, patience, rendering, done)? {
                later.push(channel);
                next = next.min(wait);
            }
        }
        if later.is_empty() {
            return Ok(());
        }
        std::thread::sleep(next);
        open = later;
    }
}

/// Sends what is due to one channel. Returns for how long it waits for what else comes.
fn deliver_to<O: Outbox>(
    outbox: &mut O,
    channel: &Channel,
    patience: Duration,
    rendering: &Rendering<'_>,
    done: &mut Vec<Delivery>,
) -> Result<Option<Duration>, O::Error> {
    let mut refused = 0;
    loop {
        let claimed = match outbox.claim(channel, patience)? {
            Claim::Nothing => return Ok(None),
            Claim::Wait(wait) => return Ok(Some(wait)),
            Claim::These(claimed) => claimed,
        };
        failpoint::hit("alert.claimed");
        let sent = channel.send(&combine(&claimed, &channel.name, rendering));
        failpoint::hit("alert.sent");
        // Before it is recorded as sent: killed in between, it is sent once more, and the platform gives the same message.
        if let (Ok(Some(receipt)), [one]) = (&sent, claimed.as_slice()) {
            outbox.note_card(&channel.name, one.alert.id, receipt)?;
        }
        let result = sent.map(|_| ());
        let of_the_message = |e: &SendError| e.cause.is_of_the_message();
        refused = match &result {
            Ok(()) => 0,
            Err(e) if of_the_message(e) => refused + 1,
            Err(_) => refused,
        };
        let next = Next::after(&claimed, &result, refused);
        let lost = record(
            outbox,
            &channel.name,
            &claimed,
            &result,
            next,
            rendering,
            done,
        )?;
        failpoint::hit("alert.recorded");
        match &result {
            Ok(()) => outbox.resolve(&channel.name)?,
            Err(e) => report(outbox, (&channel.name, e), &claimed, &lost, next, rendering)?,
        }
        if result.as_ref().is_err_and(|e| !of_the_message(e)) || refused > REFUSED_MOST {
            return Ok(None);
        }
    }
}

/// What a sender may take between claim and record.
fn lease_of(channel: &Channel) -> Duration {
    channel.longest() + LEASE_MARGIN
}

/// What is done with what a channel was given and did not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing, or the same once more after a while.
    Same,
    /// It is sent at once, in groups of this many.
    Halved(i32),
    /// The message is given up now.
    GiveUp,
}

impl Next {
    fn after(claimed: &[Claimed], result: &Result<(), SendError>, refused: u32) -> Self {
        let Some(error) = result
            .as_ref()
            .err()
            .filter(|e| e.cause.is_of_the_message())
        else {
            return Self::Same;
        };
        let bare = claimed.first().is_some_and(|c| c.limit == Some(BARE));
        match claimed.len() {
            _ if refused > REFUSED_MOST => Self::Same,
            1 if bare && error.cause == Cause::Content => Self::GiveUp,
            1 if bare => Self::Same,
            1 => Self::Halved(BARE),
            many => Self::Halved(i32::try_from(many.div_ceil(2)).unwrap_or(ALONE)),
        }
    }
}

/// Gives what is tried no more.
fn record<O: Outbox>(
    outbox: &mut O,
    channel: &str,
    claimed: &[Claimed],
    result: &Result<(), SendError>,
    next: Next,
    rendering: &Rendering<'_>,
    done: &mut Vec<Delivery>,
) -> Result<Vec<Alert>, O::Error> {
    let error = result.as_ref().err();
    let said = error.map(|e| error_text(&e.to_string()));
    // Where nothing passes it is the channel: what waits goes as one again later.
    let lifts = error.is_some_and(|e| e.cause.is_of_the_message());
    // It was not the text, then: the next time it goes with it.
    let whole = |one: &Claimed| match one.limit {
        Some(BARE) if lifts => Some(ALONE),
        limit => limit,
    };
    let tried: Vec<Tried<'_>> = claimed
        .iter()
        .map(|one| {
            let (state, wait, limit) = match next {
                Next::Halved(limit) => (
                    State::after(one, result, false),
                    Duration::ZERO,
                    Some(limit),
                ),
                Next::GiveUp => (State::Failed, Duration::ZERO, one.limit),
                Next::Same if lifts && claimed.len() > 1 => (
                    State::after(one, result, false),
                    backoff(one.tries, error),
                    None,
                ),
                Next::Same => (
                    State::after(one, result, true),
                    backoff(one.tries, error),
                    whole(one),
                ),
            };
            Tried {
                claimed: one,
                state,
                wait,
                error: said.as_deref(),
                limit,
                unanswered: one.unanswered + i32::from(error.is_some_and(|e| e.unknown)),
            }
        })
        .collect();
    // That a group was refused says nothing of each.
    if !matches!(next, Next::Halved(_)) {
        done.extend(tried.iter().map(|t| Delivery {
            title: rendering.wording.text(&t.claimed.alert.event).title,
            channel: channel.to_owned(),
            tries: t.claimed.tries,
            error: said.clone(),
            given_up: t.state == State::Failed,
        }));
    }
    outbox.record(channel, &tried, error.and_then(SendError::pause))?;
    let lost = tried.iter().filter(|t| t.state == State::Failed);
    Ok(lost.map(|t| t.claimed.alert.clone()).collect())
}

/// Says what was given up, and that a channel must be set up anew.
fn report<O: Outbox>(
    outbox: &mut O,
    (channel, error): (&str, &SendError),
    claimed: &[Claimed],
    lost: &[Alert],
    next: Next,
    rendering: &Rendering<'_>,
) -> Result<(), O::Error> {
    let (wording, policy) = (&rendering.wording, &rendering.policy);
    let said = error_text(&error.message);
    if next == Next::GiveUp {
        for one in claimed {
            let alert = &one.alert;
            let title = wording.text(&alert.event).title;
            let text = format!(
                "gave up sending \"{title}\" to channel {channel}, also without its text: {error}"
            );
            tracing::error!("{}", redact(&text));
            // The report of a refusal that is itself refused is the channel's incident.
            if matches!(alert.event, Event::MessageRefused { .. }) {
                let event = gave_up(channel, lost, &said, GivenUp::Content);
                outbox.raise(channel, event, lost, policy)?;
            } else {
                outbox.report(Event::MessageRefused {
                    channel: channel.to_owned(),
                    alert: alert.id,
                    of: Box::new(alert.event.clone()),
                    task: alert.task.clone(),
                    severity: alert.severity,
                    error: said.clone(),
                })?;
            }
        }
        return Ok(());
    }
    let for_a_day = claimed.iter().any(|c| c.trying_for > GIVE_UP);
    let (why, after) = match for_a_day {
        true => (GivenUp::Refused, "after 24 hours"),
        false => (GivenUp::Unanswered, "after three times without an answer"),
    };
    for alert in lost {
        let title = wording.text(&alert.event).title;
        let text = format!("gave up sending \"{title}\" to channel {channel} {after}: {error}");
        tracing::error!("{}", redact(&text));
    }
    if !lost.is_empty() {
        return outbox.raise(channel, gave_up(channel, lost, &said, why), lost, policy);
    }
    if error.cause == Cause::Setup && claimed.iter().any(|c| c.trying_for >= SETUP_AFTER) {
        let refuses = Event::ChannelRefuses {
            channel: channel.to_owned(),
            error: said,
        };
        return outbox.raise(channel, refuses, lost, policy);
    }
    Ok(())
}

fn gave_up(channel: &str, lost: &[Alert], said: &str, why: GivenUp) -> Event {
    Event::ChannelGaveUp {
        why,
        channel: channel.to_owned(),
        lost: first_of(lost.len(), lost.iter().map(|alert| alert.event.clone())),
        // The incident says itself what happens next.
        error: said.replace("; it will be tried again", ""),
    }
}

/// The first of some alerts, and how many there are. What they stand for themselves is dropped: an alert about alerts about alerts
/// would grow without bound.
fn first_of(count: usize, events: impl Iterator<Item = Event>) -> Lost {
    let flat = |mut event: Event| {
        if let Event::ChannelGaveUp { lost, .. }
        | Event::ChannelRecovered { lost, .. }
        | Event::ChannelRemoved { lost, .. } = &mut event
        {
            lost.first.clear();
        }
        event
    };
    Lost {
        first: events.take(MOST_NAMED).map(flat).collect(),
        count,
    }
}

/// Without what is about channels: two that take nothing would report each other for ever.
fn news(lost: &[Alert]) -> impl Iterator<Item = &Alert> {
    lost.iter().filter(|a| a.rule != "channel_refuses")
}

fn combine(claimed: &[Claimed], channel: &str, rendering: &Rendering<'_>) -> Message {
    let locale = rendering.wording.locale;
    let messages: Vec<Message> = claimed
        .iter()
        .map(|one| {
            let mut message = message_of(one, channel, rendering);
            if claimed.len() > 1 {
                // A digest may have no room for the text that names them.
                message
                    .title
                    .push_str(&one.relations.count(one.alert.kind, locale));
            }
            if one.limit == Some(BARE) {
                message = without_text(message, locale);
            }
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
            rendering.page.map(|p| page::link(p, None, None)),
            &rendering.wording,
        ),
    }
}

fn message_of(claimed: &Claimed, channel: &str, rendering: &Rendering<'_>) -> Message {
    let (alert, history, wording) = (&claimed.alert, &claimed.history, &rendering.wording);
    let link = |page| page::link(page, alert.run_id, alert.task.as_deref());
    let (title, body) = with_history(claimed, wording);
    let named = match &alert.event {
        Event::RunFailed(run) if run.title.is_empty() => Some(run.task.clone()),
        Event::RunFailed(run) => Some(run.title.clone()),
        _ => None,
    };
    let cause = named.zip(oa_wording::cause(&alert.event, wording.locale));
    let facts = Facts {
        id: alert.id,
        fingerprint: alert.fingerprint.clone(),
        kind: alert.kind,
        severity: history.severity.unwrap_or(alert.severity),
        what: wording.text(&alert.event).title,
        rule: alert.rule.clone(),
        task: alert.task.clone(),
        run: alert.run_id,
        host: alert.event.host().map(str::to_owned),
        at: alert.created_at,
        since: history.opened_at,
        cause,
    };
    Message {
        link: rendering.page.map(link),
        facts: Some(facts),
        actions: page::actions(alert, channel, rendering),
        digest: None,
        title,
        body,
        severity: alert.severity,
        recovery: alert.kind == Kind::Recovery,
    }
}

/// An alert's text, with what was reported of its incident before: a reminder says that it is one, and for how long it goes on.
fn with_history(claimed: &Claimed, wording: &Wording) -> (String, String) {
    let (alert, history) = (&claimed.alert, &claimed.history);
    let text = wording.text(&alert.event);
    let (mut title, zh) = (text.title.clone(), wording.locale == Locale::Zh);
    let mut lines = String::new();
    if matches!(alert.event, Event::Found(_)) {
        let at = wording.at(alert.created_at);
        lines.push_str(&if zh {
            format!("- 发现于：{at}\n")
        } else {
            format!("- Found at: {at}\n")
        });
    }
    let words_of_others = matches!(alert.event, Event::Message { .. });
    if let (Some((last, was)), Some(since), false) =
        (&history.last, history.opened_at, words_of_others)
    {
        let changed = alert.event.cause() != last.cause();
        title.push_str(&match (zh, changed, alert.severity > *was) {
            (true, true, _) => "（原因已变化）".to_owned(),
            (true, _, true) => "（已加重）".to_owned(),
            (true, ..) => format!("（仍未恢复，第 {} 次提醒）", history.before),
            (false, true, _) => " (another cause)".to_owned(),
            (false, _, true) => " (worse)".to_owned(),
            (false, ..) => format!(" (still open, reminder {})", history.before),
        });
        let lasts = (alert.created_at - since).to_std().unwrap_or_default();
        let lasts = oa_wording::human_duration(lasts, wording.locale);
        let since = wording.at(since);
        lines.push_str(&if zh {
            format!("- 首次告警：{since}，已持续 {lasts}\n")
        } else {
            format!("- First reported: {since}, {lasts} ago\n")
        });
    }
    lines.push_str(&claimed.relations.lines(alert.kind, wording));
    let body = text
        .body
        .replacen(&format!("**{}**", text.title), &format!("**{title}**"), 1);
    (title, body + &lines)
}

/// How many of the due alerts go now: one by one while they are few (unless there were many of late), and never with more than one of
/// them may be sent with.
fn at_once(limits: &[Option<i32>], pace: &Pace, storm: bool) -> usize {
    let together = pace.digests && (storm || limits.len() > DIGEST_ABOVE);
    let most = limits.len().min(if together { DIGEST_MOST } else { 1 });
    let mut room = most;
    for (before, limit) in limits.iter().take(most).enumerate() {
        let limit = limit.map_or(most, |l| usize::try_from(l).unwrap_or(1).max(1));
        room = room.min(limit);
        if before >= room {
            return before;
        }
    }
    most
}

/// The wait after so many failed tries.
fn backoff(tries: i32, error: Option<&SendError>) -> Duration {
    let unanswered = error.is_some_and(|e| e.unknown);
    Duration::from_secs(match tries {
        ..=1 => 10,
        // A robot that was busy answers by then.
        _ if unanswered => 300,
        2 => 30,
        3 => 60,
        4 => 300,
        _ => 900,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_go_one_by_one_and_many_at_once_but_never_more_than_each_may_be_sent_with() {
        let kind = oa_core::app::config::ChannelKind::Dingtalk;
        let pace = Pace::new(kind, None, true, Duration::from_secs(10));
        let at_once = |limits: &[Option<i32>]| at_once(limits, &pace, false);
        assert_eq!(at_once(&[]), 0);
        assert_eq!(at_once(&[None; 5]), 1);
        assert_eq!(at_once(&[None; 7]), 7);
        assert_eq!(at_once(&[Some(4); 7]), 4);
        let mixed = [None, None, Some(ALONE), None, None, None, None];
        assert_eq!(at_once(&mixed), 2);
        assert_eq!(at_once(&mixed[1..]), 1);
        assert_eq!(at_once(&[Some(BARE); 6]), 1);
        assert_eq!(at_once(&[None; DIGEST_MOST + 1]), DIGEST_MOST);
        assert_eq!(super::at_once(&[None; 3], &pace, true), 3);
        let single = Pace::new(kind, None, false, Duration::ZERO);
        assert_eq!(super::at_once(&[None; 7], &single, false), 1);
    }
}

#[cfg(test)]
mod model;
