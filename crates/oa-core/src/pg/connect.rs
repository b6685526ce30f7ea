//! Connections: several hosts, TLS as libpq's `sslmode` means it, timeouts, one application name per program.

mod error;

use std::io;
use std::net::ToSocketAddrs;
use std::path::Path;
use std::str::FromStr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use chrono::Utc;
use postgres::config::{Host, LoadBalanceHosts, SslMode};
use postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::{Address, default_mode, explain_address};
use super::tls::TlsSettings;
use super::usual::USUAL;
use super::{passfile, tls};
use crate::base::secrets::Secret;
use crate::base::{limits, threads};
pub use error::ConnectError;
use error::classify;

/// Where and how to connect.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Connection URL or key/value string, as libpq takes it.
    pub url: Secret,
    /// Longest wait for one host.
    pub connect_timeout: Duration,
    /// `statement_timeout` of the session; zero means none.
    pub statement_timeout: Duration,
    /// `application_name` of the session: the program's name.
    pub program: &'static str,
}

/// A server may let each commit wait until this program has received it; its own commits must not wait for itself.
const RECEIVES_WAL: &str = "oa-backup";

/// They say how things are, and nothing that collects may keep them from it for long.
const REPORTS: [&str; 2] = ["oa-alert", "oa-report"];

impl Settings {
    /// How long the session waits for a lock.
    fn lock_timeout(&self) -> &'static str {
        match REPORTS.contains(&self.program) {
            true => "3s",
            false => "30s",
        }
    }

    /// Shortens each further wait for a lock: whoever goes through many tasks has waited for one in vain, and somebody may have them all.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub(crate) fn hurry(client: &mut Client) -> Result<(), postgres::Error> {
        client.batch_execute("SET lock_timeout = '500ms'")
    }

    /// Ends what [`Self::hurry`] began.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub(crate) fn hurry_no_more(&self, client: &mut Client) -> Result<(), postgres::Error> {
        client.batch_execute(&format!("SET lock_timeout = '{}'", self.lock_timeout()))
    }
}

/// What a program that was killed, or whose machine or network is gone, leaves at the server: no session that waits for a lock or computes
/// what nobody takes, no open transaction, and no idle session for the two hours that are usual.
const GONE: &str = "SET client_connection_check_interval = '2s'; SET idle_in_transaction_session_timeout = '10min';
    SET tcp_keepalives_idle = 60; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 6";

/// Connects and sets the session up.
///
/// # Errors
/// See [`ConnectError`]; the password is in none of its texts.
pub fn connect(settings: &Settings) -> Result<Client, ConnectError> {
    let Address {
        text,
        tls,
        passfile,
    } = Address::parse(settings.url.expose()).map_err(ConnectError::Address)?;
    let mut config = postgres::Config::from_str(&text)
        .map_err(|e| ConnectError::Address(explain_address(&e)))?;
    if config.get_hosts().is_empty() {
        return Err(ConnectError::Address("it names no host".to_owned()));
    }
    let verification = tls.mode.unwrap_or_else(|| default_mode(config.get_hosts()));
    config.ssl_mode(match verification {
        tls::Mode::Disable => SslMode::Disable,
        tls::Mode::Prefer => SslMode::Prefer,
        _ => SslMode::Require,
    });
    config.application_name(settings.program);
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(settings.connect_timeout);
    }
    config.keepalives_idle(Duration::from_secs(30));
    config.tcp_user_timeout(Duration::from_secs(30));
    let passfile = passfile.as_deref();
    connect_in_time(&config, verification, &tls, passfile, settings)
}

/// Tries the hosts one after the other. The driver's own limit ends with the TCP connection; a server that accepts it and then
/// says nothing (stopped, or no PostgreSQL at all) would hold us for ever, so each host gets a thread and a limit as a whole:
/// for the login and the session's first statement.
fn connect_in_time(
    config: &postgres::Config,
    verification: tls::Mode,
    tls: &TlsSettings,
    passfile: Option<&Path>,
    settings: &Settings,
) -> Result<Client, ConnectError> {
    let mut session = format!(
        "SET statement_timeout = {}; SET lock_timeout = '{}'; {GONE}; {USUAL}",
        settings.statement_timeout.as_millis(),
        settings.lock_timeout()
    );
    if settings.program == RECEIVES_WAL {
        session.push_str("; SET synchronous_commit = local");
    }
    let mut last = None;
    let count = config.get_hosts().len();
    let first = match config.get_load_balance_hosts() {
        LoadBalanceHosts::Random => Utc::now().timestamp_subsec_nanos() as usize / 64,
        _ => 0,
    };
    for index in (0..count).map(|n| (first + n) % count) {
        let mut one = only_host(config, index);
        // A host gets its own password, and no other's.
        let password = passfile::password(&one, passfile).map_err(ConnectError::Address)?;
        if let Some(password) = password {
            one.password(password.expose());
        }
        let hosts = hosts(&one);
        let connector = match verification {
            tls::Mode::Disable => None,
            _ => Some(
                tls::connector(verification, tls).map_err(|reason| ConnectError::Tls {
                    hosts: hosts.clone(),
                    reason,
                })?,
            ),
        };
        let limit = *one
            .get_connect_timeout()
            .unwrap_or(&settings.connect_timeout);
        let (sender, receiver) = mpsc::channel();
        let session = session.clone();
        let tried = one.clone();
        threads::spawn("connect to PostgreSQL", move || {
            let _ = sender.send(log_in(&tried, connector, &session));
        })
        .map_err(|e| ConnectError::Limit(e.to_string()))?;
        last = Some(match receiver.recv_timeout(limit) {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(NotConnected::Driver(e))) => classify(&e, hosts, &one, settings),
            Ok(Err(NotConnected::System(e))) => match limits::remedy(&e) {
                Some(remedy) => ConnectError::Limit(format!("{e}; {remedy}")),
                None => {
                    let reason = e.to_string();
                    ConnectError::Unreachable { hosts, reason }
                }
            },
            Err(RecvTimeoutError::Timeout) => {
                let reason = format!("no answer within {} s", limit.as_secs_f64());
                ConnectError::Unreachable { hosts, reason }
            }
            Err(RecvTimeoutError::Disconnected) => {
                let reason = "the driver has failed; its message is on stderr".to_owned();
                ConnectError::Unreachable { hosts, reason }
            }
        });
    }
    Err(last.unwrap_or_else(|| ConnectError::Address("it names no host".to_owned())))
}

/// Why nobody is logged in.
enum NotConnected {
    Driver(postgres::Error),
    /// Before the server was asked.
    System(io::Error),
}

/// Connects to the only host of the settings, and sets the session up.
fn log_in(
    one: &postgres::Config,
    connector: Option<MakeRustlsConnect>,
    session: &str,
) -> Result<Client, NotConnected> {
    // The driver panics where it gets none.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    drop(runtime.map_err(NotConnected::System)?);
    let one = with_addresses(one).map_err(NotConnected::System)?;
    let connected = match connector {
        None => one.connect(NoTls),
        Some(connector) => one.connect(connector),
    };
    let mut client = connected.map_err(NotConnected::Driver)?;
    client
        .batch_execute(session)
        .map_err(NotConnected::Driver)?;
    Ok(client)
}

/// With all addresses of the host's name. The driver would look for them in another thread, and panics where there can be none.
fn with_addresses(one: &postgres::Config) -> io::Result<postgres::Config> {
    let mut all = one.clone();
    if let ([Host::Tcp(name)], []) = (one.get_hosts(), one.get_hostaddrs()) {
        let port = one.get_ports().first().copied().unwrap_or(5432);
        let addresses = (name.as_str(), port).to_socket_addrs()?;
        for (i, address) in addresses.enumerate() {
            if i > 0 {
                all.host(name);
            }
            all.hostaddr(address.ip());
        }
    }
    Ok(all)
}

/// The same settings for one of the hosts.
fn only_host(config: &postgres::Config, index: usize) -> postgres::Config {
    let mut one = postgres::Config::new();
    match &config.get_hosts()[index] {
        Host::Tcp(name) => one.host(name),
        Host::Unix(path) => one.host_path(path),
    };
    if let Some(address) = config.get_hostaddrs().get(index) {
        one.hostaddr(*address);
    }
    let ports = config.get_ports();
    if let Some(port) = ports.get(index).or(ports.first()) {
        one.port(*port);
    }
    if let Some(user) = config.get_user() {
        one.user(user);
    }
    if let Some(password) = config.get_password() {
        one.password(password);
    }
    if let Some(name) = config.get_dbname() {
        one.dbname(name);
    }
    if let Some(options) = config.get_options() {
        one.options(options);
    }
    if let Some(name) = config.get_application_name() {
        one.application_name(name);
    }
    if let Some(limit) = config.get_connect_timeout() {
        one.connect_timeout(*limit);
    }
    if let Some(limit) = config.get_tcp_user_timeout() {
        one.tcp_user_timeout(*limit);
    }
    one.ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .channel_binding(config.get_channel_binding())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .target_session_attrs(config.get_target_session_attrs());
    one
}

fn hosts(config: &postgres::Config) -> String {
    let ports = config.get_ports();
    let port = |i: usize| ports.get(i).or(ports.first()).copied().unwrap_or(5432);
    let named: Vec<String> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(i, host)| match host {
            Host::Tcp(name) => format!("{name}:{}", port(i)),
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_address_is_explained_without_its_password() {
        for url in [
            "mysql://u:hunter2@h/d",
            "postgresql://u:hunter2@h:notaport/d",
            "postgresql://u:hunter2@h/d?sslmode=maybe",
            "hunter2",
            "postgresql://u:hunt@hunter2@h/d",
            "postgresql://u:hunter2/hunter2@h/d",
            "postgresql://u:1/hunter2@h/d",
            "postgresql://u:12?hunter2@h/d",
            "postgresql://u:hunter2#x@h/d",
            "postgresql://u:a:hunter2@h/d",
            "postgresql://u:hunter2%@h/d",
            "postgresql://u:100%hunter2@h/d",
            "postgresql://h:hunter2/d",
            "postgresql://u@h/d?hunter2=1",
            "postgresql://u@h/d?sslmode=hunter2",
            "host=h password=a hunter2=c",
            "host=h password=a hunter2",
            "host=h port=hunter2",
        ] {
            let settings = Settings {
                url: Secret::new(url.to_owned()),
                connect_timeout: Duration::from_secs(1),
                statement_timeout: Duration::ZERO,
                program: "test",
            };
            let error = connect(&settings).err().unwrap();
            assert!(matches!(error, ConnectError::Address(_)), "{error:?}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
            assert!(!error.is_passing());
        }
    }
}
