//! What should have left and has not: that nobody hears of what is wrong is what somebody outside must hear.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use oa_core::app::config::Locale;
use oa_core::base::secrets::redact;
use oa_core::journal::spool::{Spool, SpoolError};
use oa_core::model::event::channel_fingerprint;

use super::Database;
use super::database::{LONGEST_WAIT, ROUTES, loud};
use super::roots::held;

/// What waits for less is on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(300);

/// What one channel has not got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Undelivered {
    /// The channel; `None` when there is none.
    pub(crate) channel: Option<String>,
    /// How many wait for longer than five minutes.
    pub(crate) waiting: u64,
    /// For how long the oldest.
    pub(crate) oldest: Duration,
    /// For how long the channel takes nothing, because it said "too fast".
    pub(crate) paused: Option<Duration>,
    /// What the channel said last.
    pub(crate) error: Option<String>,
    /// It gave messages up, or must be set up anew, and nobody has heard of it.
    pub(crate) untold: bool,
    /// It did not take its last message, and nor did any other channel of this machine.
    pub(crate) refused: bool,
}

impl Undelivered {
    /// In one line, without secrets.
    pub(crate) fn text(&self, locale: Locale) -> String {
        let minutes = |d: Duration| d.as_secs() / 60;
        let mut parts = Vec::new();
        let zh = locale == Locale::Zh;
        if self.waiting > 0 {
            let (count, oldest) = (self.waiting, minutes(self.oldest));
            parts.push(if zh {
                format!("{count} 条告警未送达，最久已等待 {oldest} 分钟")
            } else {
                format!("{count} alert(s) undelivered, the oldest for {oldest} min")
            });
        }
        if self.untold {
            parts.push(if zh {
                "通道不收消息，且无人得知".to_owned()
            } else {
                "the channel takes no messages, and nobody has heard of it".to_owned()
            });
        }
        if self.refused && parts.is_empty() {
            parts.push(if zh {
                "最近一条消息没有被收下，也没有其他通道能收到".to_owned()
            } else {
                "it did not take its last message, and no other channel takes any".to_owned()
            });
        }
        if let Some(paused) = self.paused {
            let left = minutes(paused) + 1;
            parts.push(if zh {
                format!("通道限流，还需等待 {left} 分钟")
            } else {
                format!("the channel is paused for {left} min")
            });
        }
        if let Some(error) = &self.error {
            parts.push(redact(error));
        }
        let name = self.channel.as_deref();
        let name = name.unwrap_or(if zh { "无通道" } else { "no channel" });
        let join = if zh { "；" } else { "; " };
        format!("{name}: {}", parts.join(join))
    }
}

impl Database<'_> {
    /// What should have left and has not, by channel.
    pub(crate) fn undelivered(&mut self) -> Result<Vec<Undelivered>, postgres::Error> {
        if self.is_idle && !self.is_refused {
            return Ok(Vec::new());
        }
        let limit = ON_ITS_WAY.as_secs_f64();
        if self.names.is_empty() {
            let row = self.client.query_one(
                "SELECT count(*), coalesce(extract(epoch FROM now() - least(min(created_at), now())), 0)::float8 FROM oa.alerts
                 WHERE settled_at IS NULL AND follows IS NULL AND (created_at < now() - make_interval(secs => $1) OR created_at > now() + interval '1 minute')",
                &[&limit],
            )?;
            let waiting = row.get::<_, i64>(0).unsigned_abs();
            let none = Undelivered {
                channel: None,
                waiting,
                oldest: Duration::from_secs_f64(row.get(1)),
                paused: None,
                error: None,
                untold: false,
                refused: false,
            };
            return Ok(if waiting > 0 { vec![none] } else { Vec::new() });
        }
        let fingerprints: Vec<String> = self.names.iter().map(|n| channel_fingerprint(n)).collect();
        let (held, loud) = (held("a"), loud("a"));
        let rows = self.client.query(
            &format!("SELECT c.name, coalesce(w.waiting, 0), coalesce(w.oldest, 0),
                    (SELECT extract(epoch FROM p.paused_until - now())::float8 FROM oa.channels p WHERE p.name = c.name AND p.paused_until BETWEEN now() AND now() + interval '{LONGEST_WAIT}'),
                    coalesce(w.said, CASE WHEN mine.dead THEN (
                      SELECT d.last_error FROM oa.deliveries d WHERE d.channel = c.name AND d.state IN ('pending', 'sending') AND d.last_error IS NOT NULL
                      ORDER BY d.leased_until DESC LIMIT 1) END), coalesce(g.untold, false), mine.dead AND l.took_last IS FALSE
             FROM {ROUTES} JOIN unnest($1::text[], $3::text[]) f (name, fingerprint) USING (name)
             LEFT JOIN LATERAL (
               SELECT count(*) AS waiting, extract(epoch FROM now() - least(min(since), now()))::float8 AS oldest, (array_agg(last_error ORDER BY since DESC) FILTER (WHERE last_error IS NOT NULL))[1] AS said
               FROM (SELECT d.last_error,
                            least(coalesce(d.first_try_at, d.next_try_at), CASE WHEN c.after = 0 THEN a.created_at END) AS since, a.created_at > now() + interval '1 minute' AS misdated
                     FROM oa.deliveries d JOIN oa.alerts a ON a.id = d.alert_id
                     WHERE d.channel = c.name AND d.state IN ('pending', 'sending') AND NOT {held} AND (NOT c.quiet OR {loud})) x
               WHERE since < now() - make_interval(secs => $4) OR misdated) w ON true
             LEFT JOIN LATERAL (
               -- The last word about the channel is that it gave messages up, and no channel has that.
               SELECT a.kind = 'problem' AND a.silenced_by IS NULL
                      AND 0 = (SELECT count(*) FROM oa.deliveries s WHERE s.alert_id = a.id AND s.state = 'sent') AS untold
               FROM oa.incidents i JOIN oa.alerts a ON a.id = i.last_alert WHERE i.fingerprint = f.fingerprint) g ON true
             LEFT JOIN oa.channels l ON l.name = c.name
             CROSS JOIN (SELECT coalesce(NOT bool_or(took_last), false) AS dead FROM oa.channels WHERE name = ANY($1)) mine
             WHERE w.waiting > 0 OR g.untold OR (mine.dead AND l.took_last IS FALSE)"),
            &[&self.names, &self.routes, &fingerprints, &limit],
        )?;
        let one = |row: &postgres::Row| Undelivered {
            channel: Some(row.get(0)),
            waiting: row.get::<_, i64>(1).unsigned_abs(),
            oldest: Duration::from_secs_f64(row.get::<_, f64>(2).max(0.0)),
            paused: row.get::<_, Option<f64>>(3).map(Duration::from_secs_f64),
            error: row.get(4),
            untold: row.get(5),
            refused: row.get(6),
        };
        Ok(rows.iter().map(one).collect())
    }
}

/// What waits in this machine's spool for longer than it should although PostgreSQL is there.
pub(crate) fn in_spool(spool: &Spool) -> Result<Option<Undelivered>, SpoolError> {
    let now = Utc::now();
    let limit = TimeDelta::from_std(ON_ITS_WAY).unwrap_or_default();
    let mut waits = Vec::new();
    for alert in spool.alerts()? {
        let sent = spool.tries(alert.id)?.iter().any(|t| t.state == "sent");
        if !sent && now - alert.created_at > limit {
            waits.push((now - alert.created_at).to_std().unwrap_or_default());
        }
    }
    Ok(waits.iter().max().map(|oldest| Undelivered {
        channel: Some("spool".to_owned()),
        waiting: waits.len() as u64,
        oldest: *oldest,
        paused: None,
        error: None,
        untold: false,
        refused: false,
    }))
}
