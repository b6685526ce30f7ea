//! Root causes first ([`oa_core::model::roots`]): an alert that follows from an open incident is held back, and named in the message about
//! that. When the cause is over and it has not gone with it, it is released.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use oa_core::app::config::Locale;
use oa_core::journal::incidents;
use oa_core::journal::spool::{Record, Spool, SpoolError};
use oa_core::model::event::{self, Alert, Event, Kind};
use oa_core::model::roots::{FOLLOWER_RULES, ROOT_RULES};
use oa_wording::Wording;
use postgres::Client;
use uuid::Uuid;

/// What fails shortly before its cause is seen follows from it all the same.
const BEFORE: TimeDelta = TimeDelta::minutes(15);
/// For so long after its cause is over a follower may go with it.
const GRACE_MINUTES: i64 = 10;
/// Nothing is held for longer, whatever its cause does.
const HOURS: i64 = 12;
const LONGEST: TimeDelta = TimeDelta::hours(HOURS);
/// What follows from an open incident is named in another message about that, but not sooner than this after the last one.
const NAMED_AGAIN: Duration = Duration::from_secs(600);
/// So many followers are named.
const NAMED: usize = 12;

/// Whether an alert (by its name in the query) is held back from a channel `c` now, in SQL: not from one that does not get the message about the
/// cause, or where nobody got that. One that is over goes before the news of that. Each repetition is an alert of its own: the time counts from
/// the first of them. That cron stood still is over when it starts programs again, however long what was missed stays to be made up for.
pub(super) fn held(a: &str) -> String {
    format!(
        "({a}.follows IS NOT NULL AND {a}.kind = 'problem' AND {a}.created_at > now() - interval '{HOURS} hours'
    AND EXISTS (SELECT FROM oa.incidents r JOIN oa.alerts h ON h.fingerprint = r.fingerprint AND h.kind = 'problem'
                WHERE r.fingerprint = {a}.follows AND (r.resolved_at IS NULL OR r.resolved_at > now() - interval '{GRACE_MINUTES} minutes')
                  AND h.seq >= coalesce((SELECT f.seq FROM oa.alerts f WHERE f.id = r.first_alert), 0) AND oa.route_takes(h, c.takes)
                  AND (h.settled_at IS NULL OR EXISTS (SELECT FROM oa.deliveries g WHERE g.alert_id = h.id))
                  AND NOT (r.rule = 'cron_stopped' AND EXISTS (
                    SELECT FROM oa.starts s WHERE s.gap_to > r.opened_at - interval '15 minutes' AND s.gap_to < now() - interval '{GRACE_MINUTES} minutes'
                      AND s.what = CASE WHEN EXISTS (SELECT FROM oa.starts d WHERE d.what = 'due' AND d.last_at > now() - interval '30 days')
                                        THEN 'due' ELSE 'check' END)))
    AND NOT EXISTS (SELECT FROM oa.alerts e WHERE e.fingerprint = {a}.fingerprint AND e.follows IS NOT NULL AND e.created_at <= now() - interval '{HOURS} hours'
                    AND e.seq >= (SELECT f.seq FROM oa.incidents o JOIN oa.alerts f ON f.id = o.first_alert WHERE o.fingerprint = {a}.fingerprint))
    AND NOT EXISTS (SELECT FROM oa.alerts n WHERE n.fingerprint = {a}.fingerprint AND n.kind = 'recovery' AND n.seq > {a}.seq))"
    )
}

/// What an alert has to do with others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Relations {
    /// What follows from it, as people know it.
    pub(crate) followers: Vec<String>,
    /// It was held back because of this, and whether that is over.
    pub(crate) was_held_for: Option<(Event, bool)>,
}

impl Relations {
    /// What a line says of it.
    pub(super) fn count(&self, kind: Kind, locale: Locale) -> String {
        match (self.followers.len(), kind, locale) {
            (0, ..) | (_, Kind::Recovery | Kind::Message, _) => String::new(),
            (count, Kind::Problem, Locale::Zh) => format!("（由此引起 {count} 项）"),
            (count, Kind::Problem, Locale::En) => format!(" ({count} follow from it)"),
        }
    }

    /// What a message says of it, in lines.
    pub(super) fn lines(&self, kind: Kind, wording: &Wording) -> String {
        let zh = wording.locale == Locale::Zh;
        let mut lines = String::new();
        let count = self.followers.len();
        if count > 0 {
            let names = self.followers[..count.min(NAMED)].join("、");
            let more = match (count > NAMED, zh) {
                (false, _) => "",
                (true, true) => " 等",
                (true, false) => " …",
            };
            lines.push_str(&match (kind, zh) {
                (Kind::Recovery, true) => format!(
                    "- 曾受影响（{count} 项）：{names}{more}；{GRACE_MINUTES} 分钟后仍未恢复的将单独告警\n"
                ),
                (Kind::Recovery, false) => format!(
                    "- Were affected ({count}): {names}{more}; what has not recovered in {GRACE_MINUTES} minutes is reported by itself\n"
                ),
                (_, true) => format!(
                    "- 由此引起（{count} 项）：{names}{more}；恢复之前不再逐条告警\n"
                ),
                (_, false) => format!(
                    "- Follow from it ({count}): {names}{more}; they are not reported one by one until it is over\n"
                ),
            });
        }
        if let Some((cause, over)) = &self.was_held_for {
            let title = wording.text(cause).title;
            lines.push_str(&match (over, zh) {
                (true, true) => {
                    format!("- 此前归因于「{title}」，该原因已消除，本项仍未恢复\n")
                }
                (true, false) => format!(
                    "- It was taken for a consequence of \"{title}\"; that is over, and this is not\n"
                ),
                (false, true) => format!("- 可能由「{title}」引起，该故障尚未恢复\n"),
                (false, false) => {
                    format!("- It may follow from \"{title}\", which is not over\n")
                }
            });
        }
        lines
    }
}

/// What people call what an alert is about.
fn name_of(event: &Event, wording: &Wording) -> String {
    match event {
        Event::RunFailed(run) if !run.title.is_empty() => run.title.clone(),
        _ => event
            .task()
            .map_or_else(|| wording.text(event).title, str::to_owned),
    }
}

/// Fingerprint, event, and since when and until when it is open.
type Root = (String, Event, DateTime<Utc>, Option<DateTime<Utc>>);

/// Marks what follows from an incident that is open, or was until now; ends the wait of what has gone with its cause.
pub(super) fn mark(client: &mut Client) -> Result<(), postgres::Error> {
    let rows = client.query(
        &format!(
            "SELECT i.fingerprint, i.rule, i.opened_at, i.resolved_at, a.event FROM oa.incidents i JOIN oa.alerts a ON a.id = i.last_alert
             WHERE i.rule = ANY($1) AND (i.resolved_at IS NULL OR i.resolved_at > now() - interval '{GRACE_MINUTES} minutes') AND a.event IS NOT NULL
             -- One that people hear of before one that nobody does.
             ORDER BY EXISTS (SELECT FROM oa.alerts h WHERE h.fingerprint = i.fingerprint AND h.kind = 'problem' AND h.created_at >= i.opened_at
                              AND (h.settled_at IS NULL OR EXISTS (SELECT FROM oa.deliveries g WHERE g.alert_id = h.id))) DESC, i.opened_at"
        ),
        &[&ROOT_RULES.as_slice()],
    )?;
    let roots: Vec<Root> = rows
        .iter()
        .map(|row| {
            let fingerprint: String = row.get(0);
            let event = event::from_json(row.get(4), row.get(1), &fingerprint);
            (fingerprint, event, row.get(2), row.get(3))
        })
        .filter(|(_, event, ..)| event.is_root())
        .collect();
    if !roots.is_empty() {
        let rows = client.query(
            "SELECT a.id, a.rule, a.fingerprint, a.event, a.created_at FROM oa.alerts a
             WHERE a.settled_at IS NULL AND a.kind = 'problem' AND a.follows IS NULL AND a.rule = ANY($1) AND a.event IS NOT NULL
               AND NOT EXISTS (SELECT FROM oa.deliveries d WHERE d.alert_id = a.id AND d.state <> 'pending')",
            &[&FOLLOWER_RULES.as_slice()],
        )?;
        let (mut ids, mut of): (Vec<Uuid>, Vec<&str>) = (Vec::new(), Vec::new());
        for row in &rows {
            let event = event::from_json(row.get(3), row.get(1), row.get(2));
            let at: DateTime<Utc> = row.get(4);
            let began = match &event {
                Event::RunFailed(run) => run.started_at.min(at),
                _ => at,
            };
            let causes = roots.iter().find(|(fingerprint, root, opened, resolved)| {
                *fingerprint != row.get::<_, &str>(2)
                    && at >= *opened - BEFORE
                    && resolved.is_none_or(|resolved| began <= resolved)
                    && event.follows_from(root)
            });
            if let Some((fingerprint, ..)) = causes {
                ids.push(row.get(0));
                of.push(fingerprint);
            }
        }
        client.execute(
            "UPDATE oa.alerts a SET follows = f.root FROM unnest($1::uuid[], $2::text[]) f (id, root) WHERE a.id = f.id AND a.follows IS NULL",
            &[&ids, &of],
        )?;
    }
    // It has recovered, or its repetition speaks for it: nobody need hear of this one.
    client.execute(
        "UPDATE oa.alerts a SET settled_at = now() WHERE a.settled_at IS NULL AND a.follows IS NOT NULL
           AND NOT EXISTS (SELECT FROM oa.deliveries d WHERE d.alert_id = a.id)
           AND EXISTS (SELECT FROM oa.alerts n WHERE n.fingerprint = a.fingerprint AND n.seq > a.seq)",
        &[],
    )?;
    name_again(client)
}

/// People hear once more of an incident from which more follows than the last message named.
fn name_again(client: &mut Client) -> Result<(), postgres::Error> {
    let rows = client.query(
        "SELECT i.fingerprint FROM oa.incidents i
         WHERE i.resolved_at IS NULL AND i.rule = ANY($1) AND i.acknowledged_at IS NULL AND i.notified_at < now() - make_interval(secs => $2)
           AND EXISTS (SELECT FROM oa.alerts f WHERE f.follows = i.fingerprint AND f.settled_at IS NULL AND f.created_at > i.notified_at)",
        &[&ROOT_RULES.as_slice(), &NAMED_AGAIN.as_secs_f64()],
    )?;
    for row in &rows {
        incidents::remind(client, row.get(0), NAMED_AGAIN)?;
    }
    Ok(())
}

/// What the claimed alerts have to do with others.
pub(super) fn relations(
    client: &mut impl postgres::GenericClient,
    alerts: &[Alert],
    wording: &Wording,
) -> Result<HashMap<Uuid, Relations>, postgres::Error> {
    let mut found: HashMap<Uuid, Relations> = HashMap::new();
    let roots: Vec<&Alert> = alerts.iter().filter(|a| a.event.is_root()).collect();
    for root in roots {
        let rows = client.query(
            "SELECT DISTINCT ON (f.fingerprint) f.event, f.rule, f.fingerprint FROM oa.alerts f JOIN oa.incidents i ON i.fingerprint = f.follows
             WHERE f.follows = $1 AND f.created_at >= i.opened_at - interval '15 minutes' AND f.event IS NOT NULL ORDER BY f.fingerprint, f.seq DESC",
            &[&root.fingerprint],
        )?;
        let names = rows
            .iter()
            .map(|r| name_of(&event::from_json(r.get(0), r.get(1), r.get(2)), wording));
        found.entry(root.id).or_default().followers = names.collect();
    }
    let ids: Vec<Uuid> = alerts.iter().map(|a| a.id).collect();
    let rows = client.query(
        "SELECT a.id, c.event, c.rule, c.fingerprint, i.resolved_at IS NOT NULL FROM oa.alerts a JOIN oa.incidents i ON i.fingerprint = a.follows
         JOIN oa.alerts c ON c.id = i.first_alert WHERE a.id = ANY($1) AND a.kind = 'problem' AND c.event IS NOT NULL",
        &[&ids],
    )?;
    for row in &rows {
        let cause = event::from_json(row.get(1), row.get(2), row.get(3));
        found.entry(row.get(0)).or_default().was_held_for = Some((cause, row.get(4)));
    }
    Ok(found)
}

/// What waits in the spool and follows from something that waits there: its alert, and that of its cause.
pub(super) fn held_in_spool(alerts: &[Alert], now: DateTime<Utc>) -> HashMap<Uuid, Uuid> {
    let over: HashSet<&str> = alerts
        .iter()
        .filter(|a| a.kind == Kind::Recovery)
        .map(|a| a.fingerprint.as_str())
        .collect();
    let roots: Vec<&Alert> = alerts
        .iter()
        .filter(|a| a.kind == Kind::Problem && a.event.is_root())
        .filter(|a| !over.contains(a.fingerprint.as_str()))
        .collect();
    let cause_of = |alert: &Alert| {
        // The newest message about the cause is the one that names it.
        let cause = roots.iter().rev().find(|root| {
            root.fingerprint != alert.fingerprint && alert.event.follows_from(&root.event)
        })?;
        let first = roots.iter().find(|r| r.fingerprint == cause.fingerprint)?;
        let is_of_it = alert.created_at >= first.created_at - BEFORE;
        (is_of_it && now - alert.created_at < LONGEST).then_some((alert.id, cause.id))
    };
    let problems = alerts.iter().filter(|a| a.kind == Kind::Problem);
    problems.filter_map(cause_of).collect()
}

/// Of what waits in the spool: what follows from each alert there.
pub(super) fn followers_in_spool(
    alerts: &[Alert],
    held: &HashMap<Uuid, Uuid>,
    of: Uuid,
    wording: &Wording,
) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for alert in alerts.iter().filter(|a| held.get(&a.id) == Some(&of)) {
        let name = name_of(&alert.event, wording);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The same as [`mark`] for an incident that waits in the spool.
pub(super) fn name_again_in_spool(spool: &mut Spool) -> Result<(), SpoolError> {
    let (alerts, now) = (spool.alerts()?, Utc::now());
    let held = held_in_spool(&alerts, now);
    let named_again = TimeDelta::from_std(NAMED_AGAIN).unwrap_or_default();
    let unnamed = |root: &&Alert| {
        let news = |a: &Alert| held.get(&a.id) == Some(&root.id) && a.created_at > root.created_at;
        now - root.created_at > named_again && alerts.iter().any(news)
    };
    let again: Vec<Record> = alerts
        .iter()
        .filter(unnamed)
        .map(|root| Record::Alert(Alert::new(root.event.clone())))
        .collect();
    if again.is_empty() {
        return Ok(());
    }
    spool.put(&again)
}
