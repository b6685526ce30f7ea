//! The certificate of the database's server, where it speaks TLS.

use std::fs;

use chrono::{DateTime, TimeDelta, Utc};
use oa_core::alerts::Policy;
use oa_core::config::Config;
use oa_core::pg;
use oa_core::state_dir::{StateDir, write_durably};
use serde::{Deserialize, Serialize};

use super::{Finding, expiring};
use crate::PROGRAM;

pub(super) const RULE: &str = "certificate_expiring";

/// It is asked for this often; what was seen last counts in between.
const EVERY: TimeDelta = TimeDelta::hours(1);

/// What was seen of a server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Seen {
    /// When it was asked.
    at: DateTime<Utc>,
    /// Host and port.
    pub server: String,
    /// The end of its certificate; `None` without TLS.
    ends: Option<DateTime<Utc>>,
}

/// What is known of the database's server now. What cannot be found out costs only this rule: a server that does not answer, or
/// whose certificate is refused, is told by the connection itself.
pub(super) fn look(state: &StateDir, config: &Config) -> Option<Seen> {
    let settings = pg::Settings::from_config(config, PROGRAM).ok()?;
    let path = state.path().join("certificate.json");
    let known: Option<Seen> = fs::read(&path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    let now = Utc::now();
    let servers = pg::tls_servers(&settings);
    let is_recent =
        |seen: &Seen| now - seen.at < EVERY && now >= seen.at && servers.contains(&seen.server);
    if let Some(seen) = known.filter(is_recent) {
        return Some(seen);
    }
    let (server, ends) = pg::certificate(&settings)?;
    let seen = Seen {
        at: now,
        server,
        ends,
    };
    let text = serde_json::to_vec(&seen).unwrap_or_default();
    if let Err(e) = write_durably(&path, &text) {
        tracing::warn!("could not note the certificate in {}: {e}", path.display());
    }
    Some(seen)
}

pub(super) fn find(seen: Option<&Seen>, config: &Config, policy: &Policy) -> Option<Finding> {
    let Seen { server, ends, .. } = seen?;
    expiring(
        (RULE, server),
        (*ends)?,
        config,
        policy,
        |at, left| {
            let (what, when) = match left {
                Some(left) => ("即将过期", format!("将于 {at} 过期，还有 {left}")),
                None => ("已过期", format!("已于 {at} 过期")),
            };
            (
                format!("数据库 {server} 的证书{what}"),
                vec![
                    when,
                    "影响：过期后，校验证书的程序（sslmode=verify-ca、verify-full）都连不上数据库".to_owned(),
                    "处理：更换服务器证书（ssl_cert_file），然后执行 SELECT pg_reload_conf()；托管数据库在控制台更新证书"
                        .to_owned(),
                ],
            )
        },
        |at, left| {
            let (what, when) = match left {
                Some(left) => ("expires soon", format!("It expires at {at}, in {left}")),
                None => ("has expired", format!("It expired at {at}")),
            };
            (
                format!("the certificate of the database {server} {what}"),
                vec![
                    when,
                    "Effect: after that, programs that verify it (sslmode=verify-ca, verify-full) cannot connect".to_owned(),
                    "What to do: replace the server's certificate (ssl_cert_file) and run SELECT pg_reload_conf(); with a managed database, renew it in its console"
                        .to_owned(),
                ],
            )
        },
    )
}
