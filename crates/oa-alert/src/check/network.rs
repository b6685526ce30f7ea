//! A machine that reaches none of several sites has no network: one incident instead of one per task.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use oa_core::journal::incidents::{self, Policy};
use oa_core::model::event::{self, Event, Finding, RunFailed};
use postgres::Client;

/// So many sites at once are not ill by themselves.
const SITES: usize = 3;

/// The runs that failed for the network, and since when their machine's is open.
type OfHost = (Vec<Box<RunFailed>>, Option<DateTime<Utc>>);

/// The machines that reach nothing, by the runs whose incidents are open. What follows from an incident that is open keeps it open, however long
/// ago it began.
pub(crate) fn find(client: &mut Client) -> Result<Vec<Finding>, postgres::Error> {
    let rows = client.query(
        "SELECT a.event, a.rule, a.fingerprint, n.opened_at
         FROM oa.incidents i JOIN oa.alerts a ON a.id = i.last_alert
         LEFT JOIN oa.incidents n ON n.fingerprint = 'network_down:' || (a.event->>'host') AND n.resolved_at IS NULL
         WHERE i.resolved_at IS NULL AND i.rule IN ('run_failed', 'run_partial') AND a.event->'error'->>'kind' IN ('network', 'dns', 'timeout')
           AND i.opened_at > coalesce(n.opened_at, now()) - interval '12 hours' ORDER BY a.seq",
        &[],
    )?;
    let mut by_host: BTreeMap<String, OfHost> = BTreeMap::new();
    for row in &rows {
        if let Event::RunFailed(run) = event::from_json(row.get(0), row.get(1), row.get(2))
            && !run.provider.is_empty()
            && !run.host.is_empty()
        {
            let of = by_host.entry(run.host.clone()).or_default();
            of.0.push(run);
            of.1 = row.get(3);
        }
    }
    let mut found = Vec::new();
    for (host, (runs, open_since)) in by_host {
        let sites: BTreeSet<&str> = runs.iter().map(|r| r.provider.as_str()).collect();
        let Some(first) = runs.iter().map(|r| r.started_at).min() else {
            continue;
        };
        // What failed long before the others has a cause of its own; and where one site answers, the network is there.
        let last = runs.iter().map(|r| r.started_at).max().unwrap_or(first);
        let at_once = (last - first).num_minutes() < 60;
        // The runs that are known are the last ones: reminded of, they are younger than the incident.
        let since = open_since.map_or(first, |opened| first.min(opened));
        if (open_since.is_some() || (sites.len() >= SITES && at_once))
            && !has_reached(client, &host, since)?
        {
            let name = |r: &RunFailed| match r.title.is_empty() {
                true => r.task.clone(),
                false => r.title.clone(),
            };
            let tasks = runs.iter().map(|r| name(r)).collect();
            found.push(Finding::NetworkDown { host, since, tasks });
        }
    }
    Ok(found)
}

/// Whether a site has answered a run on this machine that ended since then.
fn has_reached(
    client: &mut Client,
    host: &str,
    since: DateTime<Utc>,
) -> Result<bool, postgres::Error> {
    let row = client.query_one(
        "SELECT EXISTS (SELECT FROM oa.tasks t JOIN oa.runs r ON r.id = t.last_run_id
                        WHERE t.last_finished_at > $2 AND r.host = $1 AND EXISTS (SELECT FROM oa.raw w WHERE w.run_id = r.id AND w.url LIKE 'http%'))",
        &[&host, &since],
    )?;
    Ok(row.get(0))
}

/// Raises what is found, before the runs that it explains are notified one by one; [`super::record`] resolves it.
pub(crate) fn raise(client: &mut Client, policy: &Policy) -> Result<(), postgres::Error> {
    for finding in find(client)? {
        incidents::raise(client, Event::Found(finding), policy)?;
    }
    Ok(())
}
