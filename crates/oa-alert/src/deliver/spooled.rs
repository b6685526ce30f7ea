//! The outbox in the spool, while PostgreSQL is down. The drain carries over what was tried and sent.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use oa_core::base::state_dir::{Lock, StateDir};
use oa_core::base::text::error_text;
use oa_core::journal::Recorder;
use oa_core::journal::incidents::Policy;
use oa_core::journal::spool::{
    self, DeliveryAttempt as StoredTry, Record, Spool, SpoolError, Waiting,
};
use oa_core::model::event::{Alert, Event, Kind, Severity, channel_fingerprint};
use oa_wording::Wording;
use uuid::Uuid;

use super::cards;
use super::roots::{self, Relations};
use super::{Claim, Claimed, History, Outbox, Route, State, Tried, at_once, lease_of, news};
use crate::channels::{Channel, Receipt};

/// The outbox in the spool. One process at a time has it.
#[derive(Debug)]
pub(crate) struct Spooled<'a> {
    spool: Spool,
    routes: &'a [Route],
    state: StateDir,
    /// Where messages with buttons are kept until PostgreSQL is there.
    disk: StateDir,
    wording: Wording,
    /// Held from claim to record: a drain would move the alerts to PostgreSQL, and whoever can connect to that sends them from there.
    draining: Option<Lock>,
    /// With how many an alert may be sent to a channel. Known to this process only: another one finds it out again.
    limits: HashMap<(String, Uuid), i32>,
    _lock: Lock,
}

impl<'a> Spooled<'a> {
    /// Opens it; `None` when another process sends from it. What is not bad enough for a channel stays for the drain.
    pub(crate) fn open(
        recorder: &Recorder,
        routes: &'a [Route],
        wording: Wording,
    ) -> Result<Option<Self>, SpoolError> {
        let disk = recorder.state().clone();
        Self::of((disk.clone(), disk), recorder.spool()?, routes, wording)
    }

    /// The one in memory, where alerts wait while neither PostgreSQL nor the disk takes anything.
    pub(crate) fn open_in_memory(
        recorder: &Recorder,
        routes: &'a [Route],
        wording: Wording,
    ) -> Result<Option<Self>, SpoolError> {
        match recorder.state().has_memory() {
            true => Self::of(
                (recorder.state().in_memory()?, recorder.state().clone()),
                recorder.memory_spool()?,
                routes,
                wording,
            ),
            false => Ok(None),
        }
    }

    fn of(
        (state, disk): (StateDir, StateDir),
        mut spool: Spool,
        routes: &'a [Route],
        wording: Wording,
    ) -> Result<Option<Self>, SpoolError> {
        let Some(lock) = state.try_lock("spool-alerts")? else {
            return Ok(None);
        };
        roots::name_again_in_spool(&mut spool)?;
        Ok(Some(Self {
            spool,
            routes,
            state,
            disk,
            wording,
            draining: None,
            limits: HashMap::new(),
            _lock: lock,
        }))
    }
}

impl Outbox for Spooled<'_> {
    type Error = SpoolError;

    fn claim(&mut self, to: &Channel, patience: Duration) -> Result<Claim, SpoolError> {
        let (now, channel, robot, pace) = (Utc::now(), to.name.as_str(), to.robot(), to.pace());
        if self.spool.channel_paused(channel, now)?.is_some() {
            return Ok(Claim::Nothing);
        }
        self.draining = self.state.try_lock(spool::DRAIN_LOCK)?;
        if self.draining.is_none() {
            return Ok(Claim::Nothing);
        }
        let own = channel_fingerprint(channel);
        let route = self.routes.iter().find(|r| r.name == channel);
        let least = route.map_or(Severity::Info, |r| r.least);
        let is_for = |alert: &Alert| {
            let provider = match &alert.event {
                Event::RunFailed(run) => Some(run.provider.as_str()).filter(|p| !p.is_empty()),
                _ => None,
            };
            route.is_none_or(|r| {
                r.takes.takes(alert.task.as_deref(), &alert.rule, provider)
                    && (!r.quiet || alert.severity == Severity::Critical)
            })
        };
        let after = route.map_or(Duration::ZERO, |r| r.after);
        // What waits here is open since it came, as far as anybody knows without PostgreSQL, and nobody can have acknowledged it.
        let is_open_long = |alert: &Alert| {
            let age = (now - alert.created_at).to_std().unwrap_or_default();
            after.is_zero() || (alert.kind == Kind::Problem && age >= after)
        };
        let waiting = self.spool.waiting(channel)?;
        let all = self.spool.alerts()?;
        let held = roots::held_in_spool(&all, now);
        // Who does not get the message about the cause gets what follows from it.
        let is_held = |alert: &Alert| {
            let cause = held.get(&alert.id);
            let cause = cause.and_then(|cause| all.iter().find(|a| a.id == *cause));
            cause.is_some_and(|cause| cause.severity >= least && is_for(cause))
        };
        let due: Vec<Claimed> = due(waiting, now)
            .into_iter()
            .filter(|w| {
                w.alert.fingerprint != own
                    && w.alert.severity >= least
                    && is_open_long(&w.alert)
                    && is_for(&w.alert)
                    && !is_held(&w.alert)
            })
            .map(|w| Claimed {
                limit: self.limits.get(&(channel.to_owned(), w.alert.id)).copied(),
                tries: w.tried.as_ref().map_or(0, |t| t.tries) + 1,
                unanswered: w.tried.as_ref().map_or(0, |t| t.unanswered),
                repeat: w.tried.as_ref().is_some_and(|t| t.state == "sending"),
                trying_for: w
                    .tried
                    .and_then(|t| (now - t.first_at).to_std().ok())
                    .unwrap_or_default(),
                relations: Relations {
                    followers: roots::followers_in_spool(&all, &held, w.alert.id, &self.wording),
                    was_held_for: None,
                },
                alert: w.alert,
                history: History::default(),
            })
            .collect();
        let limits: Vec<Option<i32>> = due.iter().map(|c| c.limit).collect();
        let Some(first) = limits.first() else {
            self.draining = None;
            return Ok(Claim::Nothing);
        };
        let ages = self.spool.sends(&robot, now, false)?;
        let wait = pace.wait(&ages, first.is_some());
        if !wait.is_zero() {
            self.draining = None;
            return Ok(if wait > patience {
                Claim::Nothing
            } else {
                Claim::Wait(wait)
            });
        }
        let count = at_once(&limits, &pace, pace.is_storm(&ages));
        let claimed: Vec<Claimed> = due.into_iter().take(count).collect();
        let ids: Vec<_> = claimed.iter().map(|c| c.alert.id).collect();
        self.spool
            .begin_tries(channel, &ids, now, now + lease_of(to))?;
        self.spool.note_send(&robot, now, false)?;
        Ok(Claim::These(claimed))
    }

    fn record(
        &mut self,
        channel: &str,
        tried: &[Tried<'_>],
        pause: Option<Duration>,
    ) -> Result<(), SpoolError> {
        let now = Utc::now();
        for one in tried {
            let of = (channel.to_owned(), one.claimed.alert.id);
            match one.limit {
                Some(limit) => self.limits.insert(of, limit),
                None => self.limits.remove(&of),
            };
        }
        if let Some(pause) = pause {
            self.spool.pause_channel(channel, now + pause)?;
        }
        let ended: Vec<StoredTry> = tried
            .iter()
            .map(|one| StoredTry {
                alert: one.claimed.alert.id,
                channel: channel.to_owned(),
                state: one.state.as_str().to_owned(),
                tries: one.claimed.tries,
                first_at: now, // Only the first one counts, which is there already.
                next_at: now + one.wait,
                leased_until: now,
                error: one.error.map(error_text),
                unanswered: one.unanswered,
            })
            .collect();
        let recorded = self.spool.end_tries(&ended);
        self.draining = None;
        recorded
    }

    fn note_card(
        &mut self,
        channel: &str,
        alert: Uuid,
        receipt: &Receipt,
    ) -> Result<(), SpoolError> {
        cards::keep(&self.disk, &cards::Noted::of(channel, alert, receipt));
        Ok(())
    }

    fn raise(
        &mut self,
        channel: &str,
        incident: Event,
        lost: &[Alert],
        policy: &Policy,
    ) -> Result<(), SpoolError> {
        let has_others = self.routes.iter().any(|r| r.name != channel);
        let mut is_news = false;
        for alert in news(lost) {
            let elsewhere =
                |t: &StoredTry| t.channel != channel && t.state != State::Failed.as_str();
            is_news |= has_others && !self.spool.tries(alert.id)?.iter().any(elsewhere);
        }
        let repeat = if is_news {
            Duration::ZERO
        } else {
            policy.repeat
        };
        self.spool.raise(incident, repeat)
    }

    /// Done once PostgreSQL is back, which knows what is open.
    fn resolve(&mut self, _: &str) -> Result<(), SpoolError> {
        Ok(())
    }

    fn report(&mut self, message: Event) -> Result<(), SpoolError> {
        self.spool.put(&[Record::Alert(Alert::new(message))])
    }
}

/// What may be tried now, oldest first: nothing behind an earlier one of its fingerprint that must still wait. Leases do not
/// count: whoever has the lock is the only sender, so one that is still open belongs to a sender that died.
fn due(waiting: Vec<Waiting>, now: DateTime<Utc>) -> Vec<Waiting> {
    let mut held: HashSet<String> = HashSet::new();
    waiting
        .into_iter()
        .filter(|w| {
            // A first try in the future was noted while the clock was ahead.
            let ready = w
                .tried
                .as_ref()
                .is_none_or(|t| t.next_at <= now || t.first_at > now);
            if !ready {
                held.insert(w.alert.fingerprint.clone());
            }
            ready && !held.contains(&w.alert.fingerprint)
        })
        .collect()
}
