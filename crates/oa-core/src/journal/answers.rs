//! What a link in a message does ([`crate::base::links`]): once, and only to the incident that the message was about.

use chrono::{DateTime, NaiveDate, Utc};
use postgres::{Client, GenericClient};

use super::incidents::{self, alert_of};
use super::requests::{self, Action, Put};
use crate::base::links::{Link, LinkAction};
use crate::base::text::error_text;
use crate::model::event::{Alert, Event, Expected, Finding, Kind, Work};

/// How long a link silences.
pub const SILENCE_HOURS: i32 = 2;

/// What a link is about.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The alert.
    pub alert: Alert,
    /// Its incident is open, and the same that the message was about.
    pub open: bool,
    /// Who has acknowledged it.
    pub acknowledged_by: Option<String>,
    /// When the link was used.
    pub used_at: Option<DateTime<Utc>>,
}

/// What came of using a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acted {
    /// It is done, or, of a run, will be within a minute.
    Done,
    /// It was done before, then.
    Used(DateTime<Utc>),
    /// The incident is resolved.
    Over,
    /// There is nothing that could be collected.
    NothingToRun,
    /// The alert is gone.
    Unknown,
}

/// What can be done about an alert by links in its message.
#[must_use]
pub fn offered(alert: &Alert) -> Vec<LinkAction> {
    let possible = |action: &LinkAction| match action {
        LinkAction::Acknowledge | LinkAction::Silence => true,
        LinkAction::Run => runs(&alert.event).is_some(),
        LinkAction::Log => alert.run_id.is_some(),
    };
    let actions = LinkAction::ALL.into_iter().filter(possible);
    match alert.kind {
        Kind::Problem => actions.collect(),
        Kind::Recovery | Kind::Message => Vec::new(),
    }
}

/// The source that an alert is about, and the day.
fn runs(event: &Event) -> Option<(String, Option<NaiveDate>)> {
    match event {
        Event::RunFailed(run) if run.work == Work::Source => {
            let day = run.day.as_deref().and_then(|day| day.parse().ok());
            Some((run.task.clone(), day))
        }
        Event::Found(
            Finding::OpeningAtRisk { task, .. }
            | Finding::RunMissed {
                task,
                expected: Expected::Source,
                ..
            }
            | Finding::PartialStreak { task, .. }
            | Finding::DataStale { task, .. }
            | Finding::DataFalling { task, .. },
        ) => Some((task.clone(), None)),
        _ => None,
    }
}

/// What a link is about; `None` when the alert is gone.
///
/// # Errors
/// When PostgreSQL fails.
pub fn subject(
    client: &mut impl GenericClient,
    link: &Link,
) -> Result<Option<Subject>, postgres::Error> {
    let row = client.query_opt(
        "SELECT a.id, a.fingerprint, a.rule, a.task, a.run_id, a.severity, a.kind, a.event, a.title, a.body, a.created_at,
                coalesce(i.resolved_at IS NULL AND f.seq <= a.seq, false), i.acknowledged_by, (SELECT used_at FROM oa.used_links WHERE link = $2)
         FROM oa.alerts a LEFT JOIN oa.incidents i ON i.fingerprint = a.fingerprint LEFT JOIN oa.alerts f ON f.id = i.first_alert
         WHERE a.id = $1",
        &[&link.alert, &link.hash()],
    )?;
    Ok(row.map(|row| Subject {
        alert: alert_of(&row, 0),
        open: row.get(11),
        acknowledged_by: row.get(12),
        used_at: row.get(13),
    }))
}

/// Does what a link says, in the name of `by`, unless it was done before.
///
/// # Errors
/// When PostgreSQL fails.
pub fn act(client: &mut Client, link: &Link, by: &str) -> Result<Acted, postgres::Error> {
    let mut tx = client.transaction()?;
    // Whoever comes at the same time waits here, and finds it done.
    let new = tx.execute(
        "INSERT INTO oa.used_links (link, action, alert, channel, used_by) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        &[&link.hash(), &link.action.as_str(), &link.alert, &link.channel, &error_text(by)],
    )? == 1;
    let Some(subject) = subject(&mut tx, link)? else {
        return Ok(Acted::Unknown);
    };
    if !new {
        return Ok(Acted::Used(subject.used_at.unwrap_or_default()));
    }
    let (alert, by) = (&subject.alert, error_text(by));
    match link.action {
        // To look is no use.
        LinkAction::Log => return Ok(Acted::Done),
        LinkAction::Acknowledge | LinkAction::Silence | LinkAction::Run if !subject.open => {
            return Ok(Acted::Over);
        }
        LinkAction::Acknowledge => {
            if incidents::acknowledge(&mut tx, &alert.fingerprint, &by, "")?.is_empty() {
                return Ok(Acted::Over);
            }
        }
        LinkAction::Silence => silence(&mut tx, alert, &by)?,
        LinkAction::Run => {
            let Some((task, day)) = runs(&alert.event) else {
                return Ok(Acted::NothingToRun);
            };
            if requests::put(&mut tx, &Action::Run { task, day }, &by)? == Put::NotASource {
                return Ok(Acted::NothingToRun);
            }
        }
    }
    tx.commit()?;
    Ok(Acted::Done)
}

/// The incident, and nothing else.
fn silence(
    client: &mut impl GenericClient,
    alert: &Alert,
    by: &str,
) -> Result<(), postgres::Error> {
    client.execute(
        "INSERT INTO oa.silences (fingerprint, by, starts_at, until) VALUES ($1, $2, now(), now() + make_interval(hours => $3))",
        &[&alert.fingerprint, &by, &SILENCE_HOURS],
    )?;
    Ok(())
}
