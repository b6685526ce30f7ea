//! The outbox in PostgreSQL: `oa.alerts`, `oa.deliveries`, `oa.channels`.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use oa_core::app::config::{Config, Takes};
use oa_core::base::secrets::redact;
use oa_core::base::text::error_text;
use oa_core::journal::incidents::{self, Policy};
use oa_core::journal::spool::Spool;
use oa_core::model::event::{self, Alert, Event, Lost, Severity, channel_fingerprint};
use oa_core::pg;
use oa_core::schedule::Calendar;
use oa_wording::Wording;
use postgres::{Client, Transaction};
use serde_json::json;
use uuid::Uuid;

use super::cards;
use super::roots;
use super::{
    Claim, Claimed, DIGEST_MOST, History, Outbox, State, Tried, at_once, first_of, lease_of, news,
};
use crate::channels::{Channel, Receipt};

/// A configured channel, usable or not, and which alerts are for it.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// The channel's name.
    pub(crate) name: String,
    /// Only incidents that stay open for this long and that nobody has acknowledged.
    pub(crate) after: Duration,
    /// Only alerts that are at least so bad.
    pub(crate) least: Severity,
    /// Only these.
    pub(crate) takes: Takes,
    /// Only what is critical now.
    pub(crate) quiet: bool,
}

impl Route {
    /// All routes of a configuration, as they are now: by PostgreSQL's clock, or while that is down by this machine's.
    pub(crate) fn all(config: &Config, now: DateTime<Utc>) -> Vec<Self> {
        let now = now.with_timezone(&config.timezone);
        // One that cannot be read is reported by oa-crawl.
        let calendar = Calendar::load(config.calendar.as_deref());
        let calendar = calendar.unwrap_or_else(|_| Calendar::shipped());
        let route = |c: &oa_core::app::config::Channel| Self {
            name: c.name.clone(),
            after: c.after.map_or(Duration::ZERO, |s| s.0),
            least: c.min_severity,
            takes: c.takes(),
            quiet: c.quiet.holds(now, &calendar),
        };
        config.alert.channels.iter().map(route).collect()
    }
}

/// The outbox in PostgreSQL.
pub(crate) struct Database<'a> {
    pub(super) client: &'a mut Client,
    pub(super) names: Vec<&'a str>,
    /// All routes, as [`ROUTES`] reads them.
    pub(super) routes: serde_json::Value,
    quiet: HashSet<&'a str>,
    spool: Option<Spool>,
    /// In which what alerts have to do with one another is said.
    wording: Wording,
    host: Option<String>,
    /// Robots for which this process waits for what else comes.
    gathers: HashSet<String>,
    /// No alert waits for a channel. So it is in nearly all minutes, and what is to be asked of alerts that wait takes long.
    pub(super) is_idle: bool,
    /// The last word about a channel is that it takes no messages, or it did not take its last one.
    pub(super) is_refused: bool,
}

/// Whether a channel `c` gets an alert `a`. The end of the only channel's own incident is news for it: it says what it has not got, and nobody else does.
/// A success names the channels that asked for it, whatever else they get. What followed from a cause and is over, or came again, before the channel
/// was to hear of it is no news there. That an incident is over is for whoever gets what was wrong, which may have had another rule.
const DUE: &str =
    "CASE WHEN a.rule = 'backup_made' THEN CASE WHEN a.event->'channels' ? c.name THEN 'now' ELSE 'never' END
                         WHEN a.kind = 'recovery' AND a.fingerprint = 'channel:' || c.name AND cardinality($1::text[]) = 1 THEN 'now'
                         WHEN a.kind = 'problem' AND a.follows IS NOT NULL AND EXISTS (SELECT FROM oa.alerts n WHERE n.fingerprint = a.fingerprint AND n.seq > a.seq)
                              AND NOT EXISTS (SELECT FROM oa.deliveries g WHERE g.alert_id = a.id AND g.channel = c.name) THEN 'never'
                         WHEN a.kind = 'recovery' AND (
                              SELECT bool_and(NOT oa.route_takes(p, c.takes)
                                              OR (p.follows IS NOT NULL AND NOT EXISTS (SELECT FROM oa.deliveries g WHERE g.alert_id = p.id AND g.channel = c.name)))
                              FROM oa.alerts p WHERE p.fingerprint = a.fingerprint AND p.kind = 'problem' AND p.seq < a.seq
                                AND p.seq > coalesce((SELECT b.seq FROM oa.alerts b WHERE b.fingerprint = a.fingerprint AND b.kind = 'recovery' AND b.seq < a.seq
                                                      ORDER BY b.seq DESC LIMIT 1), 0)) THEN 'never'
                         WHEN a.kind <> 'recovery' AND NOT oa.route_takes(a, c.takes) THEN 'never' ELSE oa.delivery_due(a, c.name, c.after, c.min_rank) END";
/// The routes `c` of this machine, of the parameter `$2`.
pub(super) const ROUTES: &str = "jsonb_to_recordset($2::jsonb) AS c (name text, after float8, min_rank integer, takes jsonb, quiet boolean)";
/// Whether an alert (by its name in the query) is sent at quiet hours too: what is critical, that it is over, and what goes before that.
pub(super) fn loud(a: &str) -> String {
    format!(
        "({a}.severity = 'critical'
      OR EXISTS (SELECT FROM oa.alerts l WHERE l.fingerprint = {a}.fingerprint AND l.seq >= {a}.seq
                 AND (l.severity = 'critical'
                      OR (l.kind = 'recovery' AND EXISTS (SELECT FROM oa.incidents q WHERE q.fingerprint = l.fingerprint AND q.severity = 'critical')))))"
    )
}

/// No delivery, no message and no channel is put off for longer, and none is leased for longer: what is was written by a server whose clock was
/// ahead, in a transaction that ended when that was put right already.
pub(crate) const LONGEST_WAIT: &str = "1 hour";
const LONGEST_LEASE: &str = "6 hours";

/// Whether a delivery of an alert (by their names in the query) can go now, where `$3` says that its channel is quiet.
fn ready(d: &str, a: &str) -> String {
    let (held, loud) = (roots::held(a), loud(a));
    format!(
        "(({d}.next_try_at <= now() OR {d}.next_try_at > now() + interval '{LONGEST_WAIT}')
                    AND ({d}.state = 'pending' OR ({d}.state = 'sending' AND ({d}.leased_until <= now() OR {d}.leased_until > now() + interval '{LONGEST_LEASE}')))
                    AND NOT {held} AND (NOT $3 OR {loud}))"
    )
}

/// For so long alerts wait for the channel of a machine that is not heard of.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(3 * 24 * 3600);

/// So long after a channel was removed its incident is closed: another configuration of this host name may have it still, and use it each
/// minute.
const WAIT_FOR_REMOVED: Duration = Duration::from_secs(3600);

/// What is said of a delivery that nobody makes any more.
const NO_MACHINE: &str = "no machine has had this channel for three days";

impl std::fmt::Debug for Database<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("channels", &self.names)
            .finish_non_exhaustive()
    }
}

impl<'a> Database<'a> {
    /// Opens the outbox: every alert that is not settled waits for every configured channel that it is for now. The spool notes pauses, so
    /// that they hold should PostgreSQL go down meanwhile.
    pub(crate) fn open(
        client: &'a mut Client,
        routes: &'a [Route],
        spool: Option<Spool>,
        wording: Wording,
    ) -> Result<Self, postgres::Error> {
        let rank = |severity| match severity {
            Severity::Info => 0,
            Severity::Warning => 1,
            Severity::Critical => 2,
        };
        let mut outbox = Self {
            client,
            names: routes.iter().map(|r| r.name.as_str()).collect(),
            routes: routes
                .iter()
                .map(|r| {
                    json!({ "name": r.name, "after": r.after.as_secs_f64(), "min_rank": rank(r.least), "takes": r.takes, "quiet": r.quiet })
                })
                .collect(),
            quiet: routes.iter().filter(|r| r.quiet).map(|r| r.name.as_str()).collect(),
            spool,
            wording,
            host: None,
            gathers: HashSet::new(),
            is_idle: false,
            is_refused: false,
        };
        let fingerprints: Vec<String> = outbox
            .names
            .iter()
            .map(|n| channel_fingerprint(n))
            .collect();
        let row = outbox.client.query_one(
            "SELECT EXISTS (SELECT FROM oa.alerts WHERE settled_at IS NULL)
                    OR EXISTS (SELECT FROM oa.deliveries WHERE channel = ANY($1) AND state IN ('pending', 'sending')),
                    EXISTS (SELECT FROM oa.incidents i JOIN oa.alerts a ON a.id = i.last_alert WHERE i.fingerprint = ANY($2) AND a.kind = 'problem')
                    OR EXISTS (SELECT FROM oa.channels WHERE name = ANY($1) AND took_last IS FALSE)",
            &[&outbox.names, &fingerprints],
        )?;
        (outbox.is_idle, outbox.is_refused) = (!row.get::<_, bool>(0), row.get(1));
        if !outbox.is_idle {
            outbox.enqueue()?;
        }
        Ok(outbox)
    }

    /// Whether an alert waits to be sent, or to be settled.
    pub(crate) fn waits(client: &mut Client) -> Result<bool, postgres::Error> {
        let waits = "SELECT EXISTS (SELECT FROM oa.alerts WHERE settled_at IS NULL)";
        Ok(client.query_one(waits, &[])?.get(0))
    }

    /// Tells the other machines which channels this one serves, so that they wait for them.
    pub(crate) fn announce(&mut self, host: &str) -> Result<(), postgres::Error> {
        self.host = Some(host.to_owned());
        self.client.execute(
            &format!(
                // A row that only conflicts is locked, which the disk has to know.
                "INSERT INTO oa.channel_routes AS r (name, host, after_seconds, min_rank, takes)
                 SELECT c.name, $1, c.after, c.min_rank, c.takes FROM {ROUTES}
                 WHERE NOT EXISTS (SELECT FROM oa.channel_routes k WHERE (k.name, k.host, k.after_seconds, k.min_rank, k.takes) = (c.name, $1, c.after, c.min_rank, c.takes)
                                   AND k.seen_at >= now() - interval '10 minutes')
                 ON CONFLICT (name, host) DO UPDATE SET after_seconds = excluded.after_seconds, min_rank = excluded.min_rank, takes = excluded.takes, seen_at = now()
                 WHERE r.seen_at < now() - interval '10 minutes'
                    OR (r.after_seconds, r.min_rank, r.takes) <> (excluded.after_seconds, excluded.min_rank, excluded.takes)"
            ),
            &[&host, &self.routes],
        )?;
        // As if it had not been heard of for as long as the others wait: they wait for it no more, and when that was is still known.
        self.client.execute(
            "UPDATE oa.channel_routes SET seen_at = now() - make_interval(secs => $3)
             WHERE host = $2 AND name <> ALL($1) AND seen_at > now() - make_interval(secs => $3)",
            &[&self.names, &host, &WAIT_FOR_OTHERS.as_secs_f64()],
        )?;
        Ok(())
    }

    /// A channel took a message that was not in the outbox: it takes messages again.
    pub(crate) fn works(&mut self, channel: &str) -> Result<(), postgres::Error> {
        self.client.execute(
            "UPDATE oa.channels SET took_last = true WHERE name = $1 AND took_last IS FALSE",
            &[&channel],
        )?;
        self.resolve(channel)
    }

    fn enqueue(&mut self) -> Result<(), postgres::Error> {
        self.is_idle = false;
        self.client.execute(
            "UPDATE oa.alerts a SET settled_at = now(), silenced_by = s.id FROM oa.silences s
             WHERE a.settled_at IS NULL AND a.kind = 'problem' AND oa.silence_covers(s, a.fingerprint, a.task, a.rule, a.event->>'host')
               AND oa.silence_holds(s, a.created_at)
               AND NOT EXISTS (SELECT FROM oa.deliveries d WHERE d.alert_id = a.id)",
            &[],
        )?;
        roots::mark(self.client)?;
        // Whoever has heard of an incident hears that it is over, silence or not; and nobody else.
        self.client.execute(
            "UPDATE oa.alerts a SET settled_at = now(), silenced_by = p.silence FROM (
               SELECT r.id, max(p.silenced_by) AS silence FROM oa.alerts r JOIN oa.alerts p ON p.fingerprint = r.fingerprint AND p.kind = 'problem' AND p.seq < r.seq
               WHERE r.settled_at IS NULL AND r.kind = 'recovery'
                 AND p.seq > coalesce((SELECT b.seq FROM oa.alerts b WHERE b.fingerprint = r.fingerprint AND b.kind = 'recovery' AND b.seq < r.seq
                                       ORDER BY b.seq DESC LIMIT 1), 0)
               GROUP BY r.id HAVING bool_and(p.silenced_by IS NOT NULL
                 OR (p.follows IS NOT NULL AND NOT EXISTS (SELECT FROM oa.deliveries d WHERE d.alert_id = p.id)))) p
             WHERE p.id = a.id AND NOT EXISTS (SELECT FROM oa.deliveries d WHERE d.alert_id = a.id)",
            &[],
        )?;
        self.client.execute(
            &format!(
                "INSERT INTO oa.deliveries (alert_id, channel, state)
                 SELECT a.id, c.name, 'pending' FROM oa.alerts a, {ROUTES}
                 WHERE a.settled_at IS NULL AND NOT EXISTS (SELECT FROM oa.deliveries d WHERE d.alert_id = a.id AND d.channel = c.name)
                   AND {DUE} = 'now' AND NOT {} ON CONFLICT DO NOTHING",
                roots::held("a")
            ),
            &[&self.names, &self.routes],
        )?;
        Ok(())
    }

    /// An alert is settled when every channel of any machine that it is for has it or was given up. One that is for none is said here, once.
    pub(crate) fn settle(&mut self) -> Result<(), postgres::Error> {
        if self.is_idle {
            return Ok(());
        }
        let rows = self.client.query(
            &format!(
                "WITH routes AS (
                   SELECT c.name, c.after, c.min_rank, c.takes FROM {ROUTES}
                   UNION ALL
                   SELECT name, after_seconds, min_rank, takes FROM oa.channel_routes
                   WHERE name <> ALL($1) AND host IS DISTINCT FROM $3 AND seen_at > now() - make_interval(secs => $4))
                 UPDATE oa.alerts a SET settled_at = now()
                 WHERE settled_at IS NULL AND cardinality($1::text[]) > 0 AND NOT EXISTS (
                   SELECT 1 FROM routes c LEFT JOIN oa.deliveries d ON d.alert_id = a.id AND d.channel = c.name
                   WHERE d.state IN ('pending', 'sending') OR (d.state IS NULL AND {DUE} <> 'never'))
                 RETURNING a.rule, a.fingerprint, a.event, a.title, a.body,
                   a.kind <> 'recovery' AND a.rule <> 'backup_made' AND NOT EXISTS (SELECT FROM oa.deliveries d WHERE d.alert_id = a.id)
                   AND NOT EXISTS (SELECT FROM routes c WHERE oa.route_takes(a, c.takes)
                                   AND CASE a.severity WHEN 'critical' THEN 2 WHEN 'warning' THEN 1 ELSE 0 END >= c.min_rank)"
            ),
            &[
                &self.names,
                &self.routes,
                &self.host,
                &WAIT_FOR_OTHERS.as_secs_f64(),
            ],
        )?;
        // A channel that no machine has had for days would get the news of then, were it added again.
        let given_up = self.client.query(
            "UPDATE oa.deliveries d SET state = 'failed', leased_until = now(), last_error = $3 FROM oa.alerts a
             WHERE a.id = d.alert_id AND d.state IN ('pending', 'sending') AND d.channel <> ALL($1) AND a.settled_at < now() - make_interval(secs => $2)
               AND NOT EXISTS (SELECT FROM oa.channel_routes r WHERE r.name = d.channel AND r.seen_at > now() - make_interval(secs => $2))
             RETURNING a.rule, a.fingerprint, a.event, a.title, a.body, d.channel",
            &[&self.names, &WAIT_FOR_OTHERS.as_secs_f64(), &NO_MACHINE],
        )?;
        for row in &given_up {
            let event = incidents::event_of(row, 2, row.get(0), row.get(1));
            let (title, channel) = (self.wording.text(&event).title, row.get::<_, &str>(5));
            let text = format!("gave up sending \"{title}\" to channel {channel}: {NO_MACHINE}");
            tracing::error!("{}", redact(&text));
        }
        for row in rows.iter().filter(|row| row.get::<_, bool>(5)) {
            let event = incidents::event_of(row, 2, row.get(0), row.get(1));
            let title = self.wording.text(&event).title;
            let text = format!(
                "nobody is notified of \"{title}\": by tasks, rules, providers and min_severity it is for no channel; see oa-alert check-config"
            );
            tracing::warn!("{}", redact(&text));
        }
        Ok(())
    }

    /// Whether one of these alerts, which are given up on a channel, reaches people by no other one although there are others. One that is for
    /// another channel later, when nobody has acknowledged it by then, does.
    fn reaches_nobody(&mut self, channel: &str, lost: &[Alert]) -> Result<bool, postgres::Error> {
        let ids: Vec<Uuid> = news(lost).map(|alert| alert.id).collect();
        if ids.is_empty() {
            return Ok(false);
        }
        let row = self.client.query_one(
            &format!(
                "WITH routes AS (
                   SELECT c.name, c.after, c.min_rank, c.takes FROM {ROUTES} WHERE c.name <> $6
                   UNION ALL
                   SELECT name, after_seconds, min_rank, takes FROM oa.channel_routes
                   WHERE name <> ALL($1) AND name <> $6 AND host IS DISTINCT FROM $3 AND seen_at > now() - make_interval(secs => $4))
                 SELECT EXISTS (SELECT FROM routes)
                    AND EXISTS (SELECT FROM oa.alerts a WHERE a.id = ANY($5)
                          AND NOT EXISTS (SELECT FROM oa.deliveries o WHERE o.alert_id = a.id AND o.channel <> $6 AND o.state <> 'failed')
                          AND NOT EXISTS (SELECT FROM routes c LEFT JOIN oa.deliveries d ON d.alert_id = a.id AND d.channel = c.name
                                          WHERE d.state IS NULL AND {DUE} <> 'never'))"
            ),
            &[
                &self.names,
                &self.routes,
                &self.host,
                &WAIT_FOR_OTHERS.as_secs_f64(),
                &ids,
                &channel,
            ],
        )?;
        Ok(row.get(0))
    }

    /// What a channel has not got since its incident began, by the states of its deliveries, and whether it may have got something of it.
    fn lost_since(
        &mut self,
        channel: &str,
        opened_at: DateTime<Utc>,
        states: &[&str],
    ) -> Result<(Lost, bool), postgres::Error> {
        let rows = self.client.query(
            "SELECT a.event, a.title, a.body, a.rule, a.fingerprint, d.unanswered > 0 FROM oa.deliveries d JOIN oa.alerts a ON a.id = d.alert_id
             WHERE d.channel = $1 AND d.state = ANY($3) AND (d.state <> 'failed' OR d.leased_until >= $2::timestamptz - interval '1 minute') ORDER BY a.seq",
            &[&channel, &opened_at, &states],
        )?;
        let event = |r: &postgres::Row| incidents::event_of(r, 0, r.get(3), r.get(4));
        let unsure = rows.iter().any(|r| r.get(5));
        Ok((first_of(rows.len(), rows.iter().map(event)), unsure))
    }

    /// Resolves the incidents of channels that no machine has any more: nobody else could. Returns whether there is more to send by that. What
    /// cannot be closed now is closed later, and stops nothing.
    pub(crate) fn close_removed(&mut self) -> bool {
        self.try_close_removed().unwrap_or_else(|e| {
            let reason = pg::describe(&e);
            tracing::warn!(
                "could not close the incidents of channels that no machine has any more: {reason}"
            );
            false
        })
    }

    fn try_close_removed(&mut self) -> Result<bool, postgres::Error> {
        let absent = WAIT_FOR_OTHERS + WAIT_FOR_REMOVED;
        let rows = self.client.query(
            "SELECT i.fingerprint, i.opened_at, substr(i.fingerprint, length('channel:') + 1) FROM oa.incidents i
             WHERE i.resolved_at IS NULL AND i.rule = 'channel_refuses' AND substr(i.fingerprint, length('channel:') + 1) <> ALL($1)
               AND NOT EXISTS (SELECT FROM oa.channel_routes r WHERE r.name = substr(i.fingerprint, length('channel:') + 1)
                               AND r.seen_at > now() - make_interval(secs => $2))",
            &[&self.names, &absent.as_secs_f64()],
        )?;
        let mut closed = false;
        for row in rows {
            let (fingerprint, channel): (&str, &str) = (row.get(0), row.get(2));
            let states = ["failed", "pending", "sending"];
            let (lost, unsure) = self.lost_since(channel, row.get(1), &states)?;
            let removed = Event::ChannelRemoved {
                channel: channel.to_owned(),
                lost,
                unsure,
            };
            if incidents::resolve_removed(self.client, fingerprint, removed)? {
                self.enqueue()?;
                closed = true;
            }
        }
        Ok(closed)
    }

    /// Seconds since each of the last messages that went while PostgreSQL was down.
    fn sent_from_spool(&self, robot: &str) -> Vec<f64> {
        let sends = self
            .spool
            .as_ref()
            .map(|s| s.sends(robot, Utc::now(), true));
        sends.and_then(Result::ok).unwrap_or_default()
    }

    /// Whether a channel said "too fast" while PostgreSQL was down.
    fn paused_in_spool(&self, channel: &str) -> bool {
        self.spool
            .as_ref()
            .and_then(|s| s.channel_paused(channel, Utc::now()).ok().flatten())
            .is_some()
    }
}

/// What was reported before, in the columns `opened_at, severity, count, event, severity` of the incident and its last problem.
fn history_of(row: &postgres::Row, first: usize) -> History {
    let severity = |i: usize| row.get::<_, Option<&str>>(i).map(Severity::parse);
    let event: Option<serde_json::Value> = row.get(first + 3);
    let last = event.map(|event| event::from_json(event, row.get(2), row.get(1)));
    History {
        opened_at: row.get(first),
        severity: severity(first + 1),
        before: u32::try_from(row.get::<_, i64>(first + 2)).unwrap_or(u32::MAX),
        last: last.zip(severity(first + 4)),
    }
}

/// How long before another process takes over from one that waits and is killed.
const GATHER_MARGIN: Duration = Duration::from_secs(5);

/// Seconds since each of the last messages to a robot, and whether somebody waits to send it more. Takes the robot's lock: nobody
/// else counts until this one has.
fn sent_of_late(
    tx: &mut Transaction<'_>,
    robot: &str,
) -> Result<(Vec<f64>, bool), postgres::Error> {
    tx.execute(
        "INSERT INTO oa.robots (robot) VALUES ($1) ON CONFLICT DO NOTHING",
        &[&robot],
    )?;
    let row = tx.query_one(
        "SELECT ARRAY(SELECT extract(epoch FROM clock_timestamp() - s)::float8 FROM unnest(sent_at) s
                      WHERE s BETWEEN clock_timestamp() - interval '2 minutes' AND clock_timestamp()),
                coalesce(gathering_until BETWEEN clock_timestamp() AND clock_timestamp() + interval '1 minute', false)
         FROM oa.robots WHERE robot = $1 FOR UPDATE",
        &[&robot],
    )?;
    Ok((row.get(0), row.get(1)))
}

impl Outbox for Database<'_> {
    type Error = postgres::Error;

    fn claim(&mut self, to: &Channel, patience: Duration) -> Result<Claim, postgres::Error> {
        let (channel, robot, pace) = (to.name.as_str(), to.robot(), to.pace());
        if self.is_idle || self.paused_in_spool(channel) {
            return Ok(Claim::Nothing);
        }
        let mut ages = self.sent_from_spool(&robot);
        let mut tx = self.client.transaction()?;
        // One claim at a time per channel, or a second sender could overtake the first within a fingerprint.
        pg::alone(&mut tx, &format!("channel:{channel}"))?;
        let most = if pace.digests { DIGEST_MOST } else { 1 };
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = tx.query(
            &format!("SELECT a.id, a.fingerprint, a.rule, a.task, a.run_id, a.severity, a.kind, a.event, a.title, a.body, a.created_at,
                    d.tries + 1, d.state = 'sending',
                    coalesce(greatest(extract(epoch FROM now() - d.first_try_at), 0), 0)::float8, d.group_limit,
                    CASE WHEN f.seq IS NOT NULL THEN i.opened_at END, i.severity, coalesce(p.count, 0), p.event, p.severity, d.unanswered
             FROM oa.deliveries d JOIN oa.alerts a ON a.id = d.alert_id
             LEFT JOIN oa.incidents i ON i.fingerprint = a.fingerprint AND a.kind <> 'message'
             LEFT JOIN oa.alerts f ON f.id = i.first_alert AND f.seq <= a.seq
             LEFT JOIN LATERAL (
               SELECT count(*) AS count, (array_agg(b.event ORDER BY b.seq DESC))[1] AS event, (array_agg(b.severity ORDER BY b.seq DESC))[1] AS severity
               FROM oa.alerts b WHERE b.fingerprint = a.fingerprint AND b.kind = 'problem' AND b.seq >= f.seq AND b.seq < a.seq
                 -- Nobody was notified of what was held back.
                 AND (b.follows IS NULL OR EXISTS (SELECT FROM oa.deliveries g WHERE g.alert_id = b.id))) p ON a.kind = 'problem'
             LEFT JOIN (SELECT c.name, c.takes FROM jsonb_to_recordset($4::jsonb) AS c (name text, takes jsonb)) c ON c.name = d.channel
             WHERE d.channel = $1 AND {} AND NOT EXISTS (SELECT 1 FROM oa.channels c WHERE c.name = d.channel AND c.paused_until > now() AND c.paused_until <= now() + interval '{LONGEST_WAIT}')
               -- Not before an earlier one of its incident that must still wait, whatever for.
               AND NOT EXISTS (
                 SELECT 1 FROM oa.deliveries e JOIN oa.alerts b ON b.id = e.alert_id
                 WHERE e.channel = d.channel AND b.fingerprint = a.fingerprint AND b.seq < a.seq AND e.state IN ('pending', 'sending') AND NOT {})
             ORDER BY a.seq LIMIT $2 FOR UPDATE OF d", ready("d", "a"), ready("e", "b")),
            &[&channel, &most, &self.quiet.contains(channel), &self.routes],
        )?;
        let limits: Vec<Option<i32>> = rows.iter().map(|row| row.get(14)).collect();
        let Some(first) = limits.first() else {
            return Ok(Claim::Nothing);
        };
        let (sent, gathered) = sent_of_late(&mut tx, &robot)?;
        ages.extend(sent);
        let wait = pace.wait(&ages, first.is_some());
        if !wait.is_zero() {
            if wait > patience || (gathered && !self.gathers.contains(&robot)) {
                return Ok(Claim::Nothing);
            }
            tx.execute(
                "UPDATE oa.robots SET gathering_until = clock_timestamp() + make_interval(secs => $2) WHERE robot = $1",
                &[&robot, &(wait + GATHER_MARGIN).as_secs_f64()],
            )?;
            tx.commit()?;
            self.gathers.insert(robot);
            return Ok(Claim::Wait(wait));
        }
        let count = at_once(&limits, &pace, pace.is_storm(&ages));
        let alerts: Vec<Alert> = rows
            .iter()
            .take(count)
            .map(|r| incidents::alert_of(r, 0))
            .collect();
        let mut relations = roots::relations(&mut tx, &alerts, &self.wording)?;
        let claimed: Vec<Claimed> = rows
            .iter()
            .zip(alerts)
            .map(|(row, alert)| Claimed {
                relations: relations.remove(&alert.id).unwrap_or_default(),
                alert,
                tries: row.get(11),
                repeat: row.get(12),
                trying_for: Duration::from_secs_f64(row.get(13)),
                limit: row.get(14),
                history: history_of(row, 15),
                unanswered: row.get(20),
            })
            .collect();
        let ids: Vec<Uuid> = claimed.iter().map(|c| c.alert.id).collect();
        tx.execute(
            "UPDATE oa.deliveries SET state = 'sending', tries = tries + 1, first_try_at = coalesce(first_try_at, now()),
                    leased_until = now() + make_interval(secs => $3)
             WHERE channel = $1 AND alert_id = ANY($2)",
            &[&channel, &ids, &lease_of(to).as_secs_f64()],
        )?;
        tx.execute(
            "UPDATE oa.robots SET gathering_until = NULL,
                    sent_at = ARRAY(SELECT s FROM unnest(sent_at) s WHERE s BETWEEN clock_timestamp() - interval '2 minutes' AND clock_timestamp())
                              || clock_timestamp() WHERE robot = $1",
            &[&robot],
        )?;
        tx.commit()?;
        if let Some(Err(e)) = self
            .spool
            .as_mut()
            .map(|s| s.note_send(&robot, Utc::now(), true))
        {
            tracing::warn!("{e}");
        }
        Ok(Claim::These(claimed))
    }

    fn record(
        &mut self,
        channel: &str,
        tried: &[Tried<'_>],
        pause: Option<Duration>,
    ) -> Result<(), postgres::Error> {
        if let (Some(pause), Some(spool)) = (pause, &mut self.spool)
            && let Err(e) = spool.pause_channel(channel, Utc::now() + pause)
        {
            tracing::warn!("{e}");
        }
        let mut tx = self.client.transaction()?;
        let ids: Vec<Uuid> = tried.iter().map(|one| one.claimed.alert.id).collect();
        let states: Vec<&str> = tried.iter().map(|one| one.state.as_str()).collect();
        let waits: Vec<f64> = tried.iter().map(|one| one.wait.as_secs_f64()).collect();
        let limits: Vec<Option<i32>> = tried.iter().map(|one| one.limit).collect();
        let unanswered: Vec<i32> = tried.iter().map(|one| one.unanswered).collect();
        // All of them were one message, to which there was one answer.
        let error = tried.first().and_then(|one| one.error).map(error_text);
        tx.execute(
            "UPDATE oa.deliveries d SET state = t.state, last_error = $7, leased_until = now(), next_try_at = now() + make_interval(secs => t.wait),
                    group_limit = t.group_limit, unanswered = t.unanswered, sent_at = CASE WHEN t.state = 'sent' THEN now() END
             FROM unnest($2::uuid[], $3::text[], $4::float8[], $5::integer[], $6::integer[]) t (alert, state, wait, group_limit, unanswered)
             WHERE d.channel = $1 AND d.alert_id = t.alert",
            &[&channel, &ids, &states, &waits, &limits, &unanswered, &error],
        )?;
        // A channel with a pause takes nothing from anybody now, and so nothing that is made meanwhile either.
        let pause = pause.unwrap_or_default().as_secs_f64();
        let took = tried.iter().all(|one| one.state == State::Sent);
        tx.execute(
            // A pause that is too long to be one must not take the place of this one.
            &format!("INSERT INTO oa.channels AS c (name, paused_until, took_last) VALUES ($1, now() + make_interval(secs => $2), $3)
             ON CONFLICT (name) DO UPDATE SET took_last = excluded.took_last,
               paused_until = CASE WHEN $2 = 0 THEN c.paused_until
                                   WHEN c.paused_until > now() + interval '{LONGEST_WAIT}' THEN excluded.paused_until
                                   ELSE greatest(c.paused_until, excluded.paused_until) END
             WHERE c.took_last IS DISTINCT FROM excluded.took_last OR $2 > 0"),
            &[&channel, &pause, &took],
        )?;
        tx.commit()
    }

    fn note_card(
        &mut self,
        channel: &str,
        alert: Uuid,
        receipt: &Receipt,
    ) -> Result<(), postgres::Error> {
        cards::note(self.client, &cards::Noted::of(channel, alert, receipt))
    }

    fn raise(
        &mut self,
        channel: &str,
        incident: Event,
        lost: &[Alert],
        policy: &Policy,
    ) -> Result<(), postgres::Error> {
        let mut policy = *policy;
        if self.reaches_nobody(channel, lost)? {
            policy.repeat = Duration::ZERO;
        }
        if incidents::raise(self.client, incident, &policy)? {
            self.enqueue()?;
        }
        Ok(())
    }

    fn resolve(&mut self, channel: &str) -> Result<(), postgres::Error> {
        let fingerprint = channel_fingerprint(channel);
        let Some((opened_at, lasted)) = incidents::open_for(self.client, &fingerprint)? else {
            return Ok(());
        };
        let (lost, unsure) = self.lost_since(channel, opened_at, &["failed"])?;
        let recovered = Event::ChannelRecovered {
            channel: channel.to_owned(),
            lasted: lasted.as_secs(),
            unsure,
            lost,
        };
        if incidents::resolve(self.client, &fingerprint, |_, _| recovered)? {
            self.enqueue()?;
        }
        Ok(())
    }

    fn report(&mut self, message: Event) -> Result<(), postgres::Error> {
        incidents::put(self.client, &Alert::new(message))?;
        self.enqueue()
    }
}
