//! The certificate of the database's server, if it uses TLS. A server that is in the address no more is not asked: what was reported of it is
//! over.

use std::fs;
use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};
use oa_core::app::config::Config;
use oa_core::base::state_dir::{StateDir, write_durably};
use oa_core::model::event::Finding;
use oa_core::pg;
use serde::{Deserialize, Serialize};

use super::ends_soon;
use crate::PROGRAM;

/// It is asked for this often; what was seen last counts in between.
const EVERY: TimeDelta = TimeDelta::hours(1);

/// What was seen of a server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Seen {
    /// When it was asked.
    at: DateTime<Utc>,
    /// Host and port; empty when none is reached with TLS.
    pub(crate) server: String,
    /// The end of its certificate; `None` without TLS.
    ends: Option<DateTime<Utc>>,
    /// Servers that were in the address before, until the next check has resolved what was reported of them.
    #[serde(default)]
    pub(crate) former: Vec<String>,
}

impl Seen {
    /// There is a server of which something may have been reported.
    fn is_of_some(&self) -> bool {
        !self.server.is_empty() || !self.former.is_empty()
    }
}

/// What is known of the database's server now. What cannot be found out costs only this rule: a server that does not answer, or
/// whose certificate is refused, is reported by the connection itself.
pub(super) fn look(state: &StateDir, config: &Config) -> Option<Seen> {
    let settings = pg::Settings::from_config(config, PROGRAM).ok()?;
    let known = known(state);
    let now = Utc::now();
    let servers = pg::tls_servers(&settings);
    let is_recent =
        |seen: &Seen| now - seen.at < EVERY && now >= seen.at && servers.contains(&seen.server);
    if let Some(seen) = known.clone().filter(is_recent) {
        return Some(seen);
    }
    let (server, ends) = match pg::certificate(&settings) {
        Some(seen) => seen,
        // By a socket or without TLS there is no certificate, and what was reported of the one before is over.
        None if servers.is_empty() && known.as_ref().is_some_and(Seen::is_of_some) => {
            (String::new(), None)
        }
        None => return None,
    };
    let before = known
        .into_iter()
        .flat_map(|k| k.former.into_iter().chain([k.server]))
        .filter(|s| !s.is_empty() && !servers.contains(s));
    let seen = Seen {
        at: now,
        server,
        ends,
        former: before.collect(),
    };
    note(state, &seen);
    Some(seen)
}

/// What was reported of servers that are in the address no more is resolved. Another machine may still have them.
pub(super) fn forget_former(state: &StateDir) {
    if let Some(seen) = known(state).filter(|s| !s.former.is_empty()) {
        let former = Vec::new();
        note(state, &Seen { former, ..seen });
    }
}

fn known(state: &StateDir) -> Option<Seen> {
    serde_json::from_slice(&fs::read(path(state)).ok()?).ok()
}

fn note(state: &StateDir, seen: &Seen) {
    let path = path(state);
    let noted = serde_json::to_vec(seen)
        .map_err(std::io::Error::from)
        .and_then(|text| write_durably(&path, &text));
    if let Err(e) = noted {
        tracing::warn!("could not note the certificate in {}: {e}", path.display());
    }
}

fn path(state: &StateDir) -> PathBuf {
    state.path().join("certificate.json")
}

pub(super) fn find(seen: Option<&Seen>, config: &Config, now: DateTime<Utc>) -> Option<Finding> {
    let Seen { server, ends, .. } = seen?;
    let ends_at = (*ends)?;
    Some(Finding::CertificateExpiring {
        server: server.clone(),
        left: ends_soon(ends_at, config, now)?,
        ends_at,
    })
}
