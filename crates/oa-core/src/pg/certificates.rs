//! The certificates of the servers that an address names, for whoever warns before they end.

use std::path::PathBuf;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use postgres::config::Host;

use super::address::{Address, default_mode};
use super::{Settings, tls};
use crate::base::certificate::Validity;

/// Host and port of each server of the address to which programs speak TLS, if it does.
#[must_use]
pub fn tls_servers(settings: &Settings) -> Vec<String> {
    let servers = tcp_servers(settings).into_iter();
    servers
        .map(|(host, port)| format!("{host}:{port}"))
        .collect()
}

/// The first server of the address that answers, as host and port, and when its certificate ends (UTC); `None` in its place when it
/// speaks no TLS. Nothing at all when nobody answers, or all are reached without TLS.
#[must_use]
pub fn certificate(settings: &Settings) -> Option<(String, Option<DateTime<Utc>>)> {
    let (server, shown) = seen(settings).next()?;
    Some((server, shown.map(|validity| validity.to)))
}

/// The same of all servers that answer and speak TLS.
#[must_use]
pub fn certificates(settings: &Settings) -> Vec<(String, Validity)> {
    let with_tls = |(server, shown): (String, Option<Validity>)| Some((server, shown?));
    seen(settings).filter_map(with_tls).collect()
}

fn seen(settings: &Settings) -> impl Iterator<Item = (String, Option<Validity>)> {
    let limit = settings.connect_timeout;
    tcp_servers(settings)
        .into_iter()
        .filter_map(
            move |(host, port)| match tls::shown_certificate(&host, port, limit) {
                Ok(shown) => Some((format!("{host}:{port}"), shown)),
                Err(e) => {
                    tracing::debug!("could not see the certificate of {host}:{port}: {e}");
                    None
                }
            },
        )
}

fn tcp_servers(settings: &Settings) -> Vec<(String, u16)> {
    let parsed = Address::parse(settings.url.expose()).ok();
    let config = parsed
        .filter(|a| a.tls.mode != Some(tls::Mode::Disable))
        .and_then(|a| postgres::Config::from_str(&a.text).ok());
    let Some(config) = config else {
        return Vec::new();
    };
    let ports = config.get_ports();
    let port = |i: usize| ports.get(i).or(ports.first()).copied().unwrap_or(5432);
    let named = config.get_hosts().iter().enumerate();
    named
        .filter_map(|(i, host)| match host {
            Host::Tcp(name) => Some((name.clone(), port(i))),
            Host::Unix(_) => None,
        })
        .collect()
}

/// Whether this address looks at the server's certificate, as libpq's `sslmode` means it.
#[must_use]
pub fn verifies(settings: &Settings) -> bool {
    let Ok(address) = Address::parse(settings.url.expose()) else {
        return false;
    };
    let Ok(config) = postgres::Config::from_str(&address.text) else {
        return false;
    };
    let mode = address.tls.mode;
    match mode.unwrap_or_else(|| default_mode(config.get_hosts())) {
        tls::Mode::VerifyCa | tls::Mode::VerifyFull => true,
        tls::Mode::Require => address.tls.root_cert.is_some(),
        tls::Mode::Disable | tls::Mode::Prefer => false,
    }
}

/// The files with certificates that the address names, each with its parameter: `sslcert` is this program's own, `sslrootcert` holds the
/// authorities.
#[must_use]
pub fn certificate_files(settings: &Settings) -> Vec<(&'static str, PathBuf)> {
    let Ok(address) = Address::parse(settings.url.expose()) else {
        return Vec::new();
    };
    let named = [
        ("sslcert", address.tls.client_cert),
        ("sslrootcert", address.tls.root_cert),
    ];
    let named = named.into_iter();
    named.filter_map(|(of, path)| Some((of, path?))).collect()
}
