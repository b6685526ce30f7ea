//! Who watches: the programs that cron starts each minute record their starts, so that a page can say when nobody watches.

use chrono_tz::Tz;
use postgres::{Client, GenericClient, Transaction};

use super::{Recorder, incidents};
use crate::model::event::Fault;
use crate::pg::describe;

/// `oa-alert check`.
pub const CHECK: &str = "check";
/// `oa-crawl run --due`.
pub const DUE: &str = "due";
/// The ping of somebody outside, who notices when nothing here does.
pub const HEARTBEAT: &str = "heartbeat";

/// Counts a start on this machine, and how long it was since the last one.
///
/// # Errors
/// When PostgreSQL fails.
pub fn started(
    client: &mut impl GenericClient,
    what: &str,
    host: &str,
    zone: Tz,
) -> Result<(), postgres::Error> {
    client.execute(
        "INSERT INTO oa.starts AS s (what, host, day, longest_gap, gap_from, gap_to)
         SELECT $1, $2, (now() AT TIME ZONE $3)::date, coalesce(now() - max(last_at) FILTER (WHERE host = $2), '0'),
                CASE WHEN now() - max(last_at) > interval '5 minutes' THEN max(last_at) END,
                CASE WHEN now() - max(last_at) > interval '5 minutes' THEN now() END
         FROM oa.starts WHERE what = $1
         ON CONFLICT (what, host, day) DO UPDATE SET starts = s.starts + 1, last_at = now(), longest_gap = greatest(s.longest_gap, excluded.longest_gap),
           gap_from = coalesce(excluded.gap_from, s.gap_from), gap_to = coalesce(excluded.gap_to, s.gap_to)",
        &[&what, &host, &zone.name()],
    )?;
    Ok(())
}

/// Both: a start on this machine, which works.
///
/// # Errors
/// When PostgreSQL fails.
pub fn begun(
    tx: &mut Transaction<'_>,
    what: &str,
    host: &str,
    zone: Tz,
) -> Result<(), postgres::Error> {
    started(tx, what, host, zone)?;
    note(tx, what, host, true, "")
}

/// Counts that the last start on this machine came to a bad end.
///
/// # Errors
/// When PostgreSQL fails.
pub fn failed(
    client: &mut impl GenericClient,
    what: &str,
    host: &str,
) -> Result<(), postgres::Error> {
    client.execute(
        "UPDATE oa.starts SET failures = failures + 1 WHERE what = $1 AND host = $2
           AND day = (SELECT max(day) FROM oa.starts WHERE what = $1 AND host = $2)",
        &[&what, &host],
    )?;
    Ok(())
}

/// Notes that this machine watches now, whether it works, and what does not.
///
/// # Errors
/// When PostgreSQL fails.
pub fn note(
    client: &mut impl GenericClient,
    what: &str,
    host: &str,
    ok: bool,
    detail: &str,
) -> Result<(), postgres::Error> {
    client.execute(
        "INSERT INTO oa.watches (what, host, at, ok, detail) VALUES ($1, $2, now(), $3, $4)
         ON CONFLICT (what, host) DO UPDATE SET at = excluded.at, ok = excluded.ok, detail = excluded.detail",
        &[&what, &host, &ok, &detail],
    )?;
    Ok(())
}

impl Recorder {
    /// Notifies that this machine's check does not work although PostgreSQL can be reached; by way of the spool when it takes no alert.
    pub fn report_failed_check(&self, client: &mut Client, reason: &str) {
        let event = self.machine_event(Fault::CheckFailed, None, reason);
        if let Err(e) = incidents::raise(client, event, self.policy()) {
            tracing::warn!("the alert goes to the spool: {}", describe(&e));
            self.spool_alert(Fault::CheckFailed, reason);
        }
    }

    /// This machine's check works.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub fn resolve_failed_check(&self, client: &mut Client) -> Result<(), postgres::Error> {
        let fault = Fault::CheckFailed;
        let fingerprint = fault.fingerprint(self.host(), None);
        if incidents::open_for(client, &fingerprint)?.is_some() {
            incidents::resolve_machine(client, fault, self.host(), None)?;
        }
        let forgotten = self.spool().and_then(|s| s.forget_notified(&fingerprint));
        if let Err(e) = forgotten {
            tracing::debug!("{e}");
        }
        Ok(())
    }
}
