//! A source of a session that is broken when the session is about to open: whatever was held back or has become a habit, somebody must hear
//! of it now.

use std::time::Duration;

use chrono::{DateTime, NaiveTime, TimeDelta, Utc};
use oa_core::app::config::Config;
use oa_core::base::when::local_time;
use oa_core::model::event::{self, Event, Finding};
use oa_core::schedule::{Calendar, EXCHANGES, Session};
use postgres::Client;

/// What is found stays so until the source has recovered.
pub(super) fn find(
    client: &mut Client,
    config: &Config,
    calendar: &Calendar,
    now: DateTime<Utc>,
) -> Result<Vec<Finding>, postgres::Error> {
    let soon = opens_soon(now, config.alert.before_open.0, calendar);
    let rows = client.query(
        "SELECT t.name, t.title, coalesce(t.sessions, '{}'), i.opened_at, i.acknowledged_at IS NOT NULL, a.event, r.rule, r.fingerprint
         FROM oa.tasks t JOIN oa.incidents i ON i.fingerprint = 'run:' || t.name AND i.resolved_at IS NULL
         LEFT JOIN oa.incidents r ON r.fingerprint = 'opening_at_risk:' || t.name AND r.resolved_at IS NULL
         LEFT JOIN oa.alerts a ON a.id = r.last_alert
         WHERE t.forgotten_at IS NULL AND t.sessions <> '{}' ORDER BY t.name",
        &[],
    )?;
    let mut found = Vec::new();
    for row in &rows {
        let known: Option<serde_json::Value> = row.get(5);
        if let Some(known) = known {
            if let Event::Found(finding) = event::from_json(known, row.get(6), row.get(7)) {
                found.push(finding);
            }
            continue;
        }
        let sessions: Vec<String> = row.get(2);
        let opens = soon
            .filter(|(session, _)| sessions.iter().any(|s| s == session.as_str()))
            .filter(|_| !row.get::<_, bool>(4));
        found.extend(opens.map(|(session, opens_at)| Finding::OpeningAtRisk {
            task: row.get(0),
            title: row.get(1),
            session: session.as_str().to_owned(),
            opens_at,
            failing_since: row.get(3),
        }));
    }
    Ok(found)
}

/// The session that opens within this time, and when: by the exchanges' clocks, whatever the zone of the configuration.
fn opens_soon(
    now: DateTime<Utc>,
    before: Duration,
    calendar: &Calendar,
) -> Option<(Session, DateTime<Utc>)> {
    let before = TimeDelta::from_std(before).unwrap_or_default();
    let local = now.with_timezone(&EXCHANGES).naive_local();
    let at = |hour| {
        let time = NaiveTime::from_hms_opt(hour, 0, 0).unwrap_or_default();
        local.date().and_time(time)
    };
    let (session, opens_at) = [(Session::Day, at(9)), (Session::Night, at(21))]
        .into_iter()
        .find(|(session, opens_at)| {
            calendar.session_at(*opens_at) == Some(*session)
                && local < *opens_at
                && *opens_at - local <= before
        })?;
    let opens_at = local_time(opens_at.date(), opens_at.time(), EXCHANGES);
    Some((session, opens_at))
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::*;

    #[test]
    fn sessions_open_on_the_days_that_have_them() {
        let calendar = Calendar::shipped();
        let soon = |day: u32, hour, minute| {
            let at = NaiveDate::from_ymd_opt(2025, 12, day).unwrap();
            let time = NaiveTime::from_hms_opt(hour, minute, 0).unwrap();
            let at = local_time(at, time, EXCHANGES);
            opens_soon(at, Duration::from_secs(25 * 60), &calendar).map(|(s, _)| s)
        };
        assert_eq!(soon(1, 8, 34), None);
        assert_eq!(soon(1, 8, 35), Some(Session::Day));
        assert_eq!(soon(1, 9, 0), None, "it is open");
        assert_eq!(soon(1, 20, 50), Some(Session::Night));
        assert_eq!(soon(6, 8, 50), None, "Saturday");
        assert_eq!(soon(5, 20, 50), Some(Session::Night), "Friday has a night");
    }
}
