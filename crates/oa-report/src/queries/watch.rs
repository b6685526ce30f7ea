//! Who watches: the last `oa-alert check` and `oa-crawl run --due` of each machine.

use chrono::{DateTime, Utc};

use schemars::JsonSchema;
use serde::Serialize;

use super::health::Health;
use super::{Asked, Result, text};

/// What has not watched for longer watches no more. Both are started each minute.
const SILENT: f64 = 600.0;

/// The last check or start of due runs of one machine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Watch {
    /// `check` or `due`.
    pub(crate) what: String,
    pub(crate) host: String,
    pub(crate) at: DateTime<Utc>,
    /// It worked, and what was found reaches people.
    pub(crate) ok: bool,
    /// It is started, and has not come to its end for long: what it notes then is of before.
    pub(crate) unfinished: bool,
    pub(crate) detail: String,
    /// How long ago, by PostgreSQL's clock, in seconds.
    pub(crate) age: f64,
}

impl Watch {
    /// It should have come again long ago; or a clock that was ahead wrote this, and nobody knows when.
    pub(crate) fn is_silent(&self) -> bool {
        self.age.abs() > SILENT
    }
}

/// All of them, by what they do, the newest first, and what is of the future last.
pub(crate) fn all(client: &mut impl Asked) -> Result<Vec<Watch>> {
    let rows = client.query(
        "SELECT what, host, at, ok, detail, extract(epoch FROM now() - at)::float8, unfinished
         FROM (
           SELECT coalesce(w.what, s.what) AS what, coalesce(w.host, s.host) AS host, greatest(w.at, s.last_at) AS at, coalesce(w.ok, true) AS ok,
                  coalesce(left(w.detail, 8000), '') AS detail,
                  -- What nothing started for long is not late as soon as it is started again, if it had come to its end before: the first one goes on.
                  coalesce(s.last_at - greatest(coalesce(w.at, s.first_at), CASE WHEN w.at >= s.gone_at - interval '5 minutes' THEN s.back_at END)
                           > make_interval(secs => $1), false) AS unfinished
           FROM oa.watches w
           FULL JOIN (SELECT what, host, max(last_at) AS last_at, min(first_at) AS first_at, max(gap_from) AS gone_at, max(gap_to) AS back_at
                      FROM oa.starts GROUP BY what, host) s
             ON s.what = w.what AND s.host = w.host) x
         WHERE at > now() - interval '90 days' ORDER BY what, at > now() + make_interval(secs => $1), at DESC",
        &[&SILENT],
    )?;
    let watch = |row: &postgres::Row| Watch {
        what: row.get(0),
        host: row.get(1),
        at: row.get(2),
        ok: row.get(3),
        detail: text(row, 4),
        age: row.get(5),
        unfinished: row.get(6),
    };
    Ok(rows.iter().map(watch).collect())
}

/// The newest of those that do this, on whatever machine.
pub(crate) fn newest<'a>(all: &'a [Watch], what: &str) -> Option<&'a Watch> {
    all.iter().find(|w| w.what == what)
}

/// What is wrong with the watching itself.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault<'a> {
    /// No `oa-alert check` has ever been here.
    Never,
    /// The last `oa-alert check` is long ago.
    NoCheck(&'a Watch),
    /// The last `oa-crawl run --due` is long ago.
    NoDue(&'a Watch),
    /// The last check did not work, or what it has to say does not leave.
    Failing(&'a Watch),
    /// Checks are started, and none comes to its end.
    Unfinished(&'a Watch),
    /// The address outside that notices when nothing here does could not be asked.
    NoHeartbeat(&'a Watch),
}

impl Fault<'_> {
    pub(crate) fn severity(self) -> Health {
        match self {
            Self::Never | Self::NoHeartbeat(_) => Health::Warning,
            Self::NoCheck(_) | Self::NoDue(_) | Self::Failing(_) | Self::Unfinished(_) => {
                Health::Critical
            }
        }
    }

    /// The name under which it is given out.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never_checked",
            Self::NoCheck(_) => "no_check",
            Self::NoDue(_) => "no_due",
            Self::Failing(_) => "undelivered",
            Self::Unfinished(_) => "unfinished",
            Self::NoHeartbeat(_) => "no_heartbeat",
        }
    }
}

/// Whether somebody watches: without that nothing that is said of tasks is sure. `needed` is whether there is anything to watch.
pub(crate) fn faults(all: &[Watch], needed: bool) -> Vec<Fault<'_>> {
    let mut found = Vec::new();
    match newest(all, "check") {
        None if needed => found.push(Fault::Never),
        Some(check) if check.is_silent() => found.push(Fault::NoCheck(check)),
        _ => {}
    }
    let checks = all.iter().filter(|w| w.what == "check" && !w.is_silent());
    found.extend(checks.filter_map(|w| match (w.unfinished, w.ok) {
        (true, _) => Some(Fault::Unfinished(w)),
        (false, false) => Some(Fault::Failing(w)),
        (false, true) => None,
    }));
    let heartbeats = all.iter().filter(|w| w.what == "heartbeat");
    found.extend(
        heartbeats
            .filter(|w| !w.ok && !w.is_silent())
            .map(Fault::NoHeartbeat),
    );
    found.extend(
        newest(all, "due")
            .filter(|d| d.is_silent())
            .map(Fault::NoDue),
    );
    found
}

/// Who watches, in an answer.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Watching {
    /// When `oa-alert check` was last started, on whatever machine (UTC).
    pub(crate) last_check: Option<DateTime<Utc>>,
    /// When `oa-crawl run --due` was last started, on whatever machine (UTC).
    pub(crate) last_due: Option<DateTime<Utc>>,
    /// What is wrong with that: `never_checked`, `no_check`, `no_due`, `undelivered`, `unfinished`, `no_heartbeat`.
    pub(crate) faults: Vec<&'static str>,
    /// How bad the worst of these is.
    pub(crate) severity: Health,
}

impl Watching {
    pub(crate) fn of(all: &[Watch], needed: bool) -> Self {
        let faults = faults(all, needed);
        Self {
            last_check: newest(all, "check").map(|w| w.at),
            last_due: newest(all, "due").map(|w| w.at),
            severity: faults
                .iter()
                .map(|f| f.severity())
                .max()
                .unwrap_or_default(),
            faults: faults.iter().map(|f| f.as_str()).collect(),
        }
    }
}
