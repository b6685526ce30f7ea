//! Connections: several hosts, TLS as libpq's `sslmode` means it, timeouts, one application name per program.

use std::error::Error as _;
use std::io;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use postgres::config::{Host, LoadBalanceHosts, SslMode};
use postgres::error::SqlState;
use postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls::TlsSettings;
use super::usual::USUAL;
use super::{describe, passfile, tls};
use crate::base::certificate::Validity;
use crate::base::conninfo::pairs;
use crate::base::secrets::Secret;
use crate::base::{limits, threads};

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

/// Whether an address is one, before anybody uses it: what comes of one that is not would be shown.
///
/// # Errors
/// When it is not valid; the text holds nothing of it.
pub fn check_address(url: &Secret) -> Result<(), String> {
    let address = Address::parse(url.expose())?;
    let config = postgres::Config::from_str(&address.text).map_err(|e| explain_address(&e))?;
    match config.get_hosts().is_empty() {
        true => Err("it names no host".to_owned()),
        false => Ok(()),
    }
}

/// There is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address itself is wrong.
    #[error("the database address is not valid: {0}")]
    Address(String),
    /// Nobody answers, or not the right server.
    #[error(
        "could not reach PostgreSQL at {hosts}: {reason}; check that it runs and that the address is right"
    )]
    Unreachable {
        /// The hosts that were tried.
        hosts: String,
        /// What the last of them said.
        reason: String,
    },
    /// This machine does not let the process have what a connection takes; with what to raise.
    #[error("could not connect to PostgreSQL: {0}")]
    Limit(String),
    /// User or password refused.
    #[error(
        "PostgreSQL at {hosts} refused the login: {reason}; check user and password in the database address"
    )]
    Login {
        /// The hosts that were tried.
        hosts: String,
        /// What the server said.
        reason: String,
    },
    /// The database is not there, or may not be used.
    #[error(
        "PostgreSQL at {hosts} has no such database: {reason}; check the database's name, or create it with createdb"
    )]
    Database {
        /// The hosts that were tried.
        hosts: String,
        /// What the server said.
        reason: String,
    },
    /// The encrypted connection failed.
    #[error(
        "the TLS connection to PostgreSQL at {hosts} failed: {reason}; see sslmode and sslrootcert in docs/configuration.md"
    )]
    Tls {
        /// The hosts that were tried.
        hosts: String,
        /// What was wrong.
        reason: String,
    },
}

impl ConnectError {
    /// Whether time may heal it. The others only a person can.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Limit(_))
    }
}

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
    let password = passfile::password(&config, passfile.as_deref());
    if let Some(password) = password.map_err(ConnectError::Address)? {
        config.password(password.expose());
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
    connect_in_time(&config, verification, &tls, settings)
}

/// Tries the hosts one after the other. The driver's own limit ends with the TCP connection; a server that accepts it and then
/// says nothing (stopped, or no PostgreSQL at all) would hold us for ever, so each host gets a thread and a limit as a whole:
/// for the login and the session's first statement.
fn connect_in_time(
    config: &postgres::Config,
    verification: tls::Mode,
    tls: &TlsSettings,
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
        let one = only_host(config, index);
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

/// `one` is the host that was tried.
fn classify(
    error: &postgres::Error,
    hosts: String,
    one: &postgres::Config,
    settings: &Settings,
) -> ConnectError {
    let reason = describe(error);
    let system = error.source().and_then(|e| e.downcast_ref::<io::Error>());
    if let Some(remedy) = system.and_then(limits::remedy) {
        return ConnectError::Limit(format!("{reason}; {remedy}"));
    }
    match error.code() {
        Some(code) if code.code().starts_with("28") => ConnectError::Login { hosts, reason },
        Some(code)
            if *code == SqlState::UNDEFINED_DATABASE
                || *code == SqlState::INSUFFICIENT_PRIVILEGE =>
        {
            ConnectError::Database { hosts, reason }
        }
        // A parameter of `options` that the server does not know, or a value that it does not take.
        Some(code)
            if *code == SqlState::UNDEFINED_OBJECT
                || *code == SqlState::INVALID_PARAMETER_VALUE
                || *code == SqlState::CANT_CHANGE_RUNTIME_PARAM =>
        {
            ConnectError::Address(format!(
                "PostgreSQL at {hosts} refuses a setting: {reason}; check options in the address, and statement_timeout in [database]"
            ))
        }
        Some(_) => ConnectError::Unreachable { hosts, reason },
        None if tls::is_tls_error(error) => ConnectError::Tls { hosts, reason },
        None if error.is_closed() || error.source().is_none_or(is_io) => {
            ConnectError::Unreachable { hosts, reason }
        }
        // What is left was found by the driver itself: there is no TLS, or no password.
        None if one.get_ssl_mode() == SslMode::Require && !speaks_tls(one, settings) => {
            ConnectError::Tls { hosts, reason }
        }
        None if one.get_password().is_none() => ConnectError::Login { hosts, reason },
        None => ConnectError::Unreachable { hosts, reason },
    }
}

fn is_io(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<std::io::Error>()
}

fn speaks_tls(one: &postgres::Config, settings: &Settings) -> bool {
    let port = one.get_ports().first().copied().unwrap_or(5432);
    match one.get_hosts().first() {
        Some(Host::Tcp(name)) => !matches!(
            tls::shown_certificate(name, port, settings.connect_timeout),
            Ok(None)
        ),
        _ => false,
    }
}

/// The driver's message quotes the part that it does not understand, which may be one of the password: nothing of it is shown.
pub(super) fn explain_address(_: &postgres::Error) -> String {
    wrong_parts()
}

fn wrong_parts() -> String {
    format!(
        "it has a port that is no number, an unknown parameter, or a value with spaces that is not in single quotes; {EXAMPLE}"
    )
}

fn is_other_scheme(text: &str) -> bool {
    let letters = |scheme: &str| scheme.bytes().all(|b| b.is_ascii_alphanumeric());
    text.split_once("://")
        .is_some_and(|(scheme, _)| letters(scheme))
}

const EXAMPLE: &str = "it should look like postgresql://USER:PASSWORD@HOST:5432/DATABASE";
const ENCODE: &str = "percent-encode user and password: %40 for @, %3A for :, %2F for /, %3F for ?, %23 for #, %25 for %";

/// In `user:password@host` each of the characters that end something must be the one that does, or a piece of the password would be
/// taken, and shown, as the host.
fn check_userinfo(text: &str) -> Result<(), String> {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    if rest.contains('#') {
        return Err(format!("it holds a #; {ENCODE}"));
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let signs = rest.matches('@').count();
    if signs > 1 || signs != authority.matches('@').count() {
        return Err(format!(
            "it holds an @ that does not end the password, or a / or ? before the one that does; {ENCODE}"
        ));
    }
    let (userinfo, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    if userinfo.matches(':').count() > 1 {
        return Err(format!("its password holds a :; {ENCODE}"));
    }
    let is_code =
        |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit());
    if rest.split('%').skip(1).any(|rest| !is_code(rest)) {
        return Err(format!("it holds a % that begins no code; {ENCODE}"));
    }
    // Without an @, what should be a port may be a password.
    let has_port = |host: &str| {
        let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
        let port = after.rsplit_once(':').map_or("", |(_, port)| port);
        port.bytes().all(|b| b.is_ascii_digit())
    };
    match hosts.split(',').all(has_port) {
        true => Ok(()),
        false => Err(format!("its port is no number; {EXAMPLE}")),
    }
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

/// libpq would use TLS where the server offers it and verify nothing. Here another machine is verified in full unless the
/// address says otherwise; this machine is trusted.
pub(super) fn default_mode(hosts: &[Host]) -> tls::Mode {
    let local = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|ip| ip.is_loopback())
        }
    };
    if hosts.iter().all(local) {
        tls::Mode::Prefer
    } else {
        tls::Mode::VerifyFull
    }
}

/// The address without the parameters that the driver does not know.
pub(super) struct Address {
    pub(super) text: String,
    pub(super) tls: TlsSettings,
    pub(super) passfile: Option<PathBuf>,
}

/// What libpq takes and the driver does not: where the value changes nothing here, it is passed over.
const WITHOUT_EFFECT: [(&str, &[&str]); 6] = [
    ("gssencmode", &["disable", "prefer"]),
    ("client_encoding", &["utf8", "UTF8", "UTF-8", "auto"]),
    ("sslcompression", &["0"]),
    ("sslsni", &["1"]),
    ("sslcertmode", &["allow"]),
    ("ssl_min_protocol_version", &["TLSv1.2", "TLSv1"]),
];
/// What libpq takes and these programs cannot keep. Passing it over would be a lie.
const NOT_TAKEN: [&str; 16] = [
    "require_auth",
    "service",
    "gssencmode",
    "krbsrvname",
    "gsslib",
    "gssdelegation",
    "requirepeer",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
    "sslcompression",
    "sslsni",
    "sslcertmode",
    "client_encoding",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
];

fn decoded(value: &str) -> String {
    percent_encoding::percent_decode_str(value)
        .decode_utf8_lossy()
        .into_owned()
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut tls = TlsSettings::default();
        let mut passfile = None;
        let mut keep = |name: &str, value: &str| -> Result<bool, String> {
            match name {
                "sslmode" => tls.mode = Some(value.parse()?),
                "sslrootcert" => {
                    tls.root_cert = (value != "system").then(|| PathBuf::from(value));
                }
                "sslcert" => tls.client_cert = Some(PathBuf::from(value)),
                "sslkey" => tls.client_key = Some(PathBuf::from(value)),
                "passfile" => passfile = Some(PathBuf::from(value)),
                "fallback_application_name" => {}
                _ if WITHOUT_EFFECT
                    .iter()
                    .any(|(of, values)| *of == name && values.contains(&value)) => {}
                _ => {
                    if let Some(name) = NOT_TAKEN.iter().find(|of| **of == name) {
                        return Err(format!(
                            "{name} in it cannot be kept by these programs; take it out, see docs/configuration.md"
                        ));
                    }
                    return Ok(true);
                }
            }
            Ok(false)
        };
        let mut kept = Vec::new();
        let text = if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            check_userinfo(text)?;
            let (base, query) = text.split_once('?').unwrap_or((text, ""));
            for pair in query.split('&').filter(|p| !p.is_empty()) {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                if keep(name, &decoded(value))? {
                    kept.push(pair);
                }
            }
            if kept.is_empty() {
                base.to_owned()
            } else {
                format!("{base}?{}", kept.join("&"))
            }
        } else if is_other_scheme(text) {
            return Err(EXAMPLE.to_owned());
        } else {
            for pair in pairs(text).ok_or_else(wrong_parts)? {
                if keep(pair.name, &pair.value)? {
                    kept.push(pair.text);
                }
            }
            kept.join(" ")
        };
        Ok(Self {
            text,
            tls,
            passfile,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_parameters_are_taken_out_of_both_forms_of_address() {
        let a = Address::parse("postgresql://u@h1,h2:6432/d?target_session_attrs=read-write&sslmode=verify-ca&sslrootcert=%2Fca.pem").unwrap();
        assert_eq!(
            a.text,
            "postgresql://u@h1,h2:6432/d?target_session_attrs=read-write"
        );
        assert_eq!(a.tls.mode, Some(tls::Mode::VerifyCa));
        assert_eq!(a.tls.root_cert, Some(PathBuf::from("/ca.pem")));
        let a = Address::parse("host=localhost sslmode=disable dbname=oa").unwrap();
        assert_eq!(a.text, "host=localhost dbname=oa");
        assert_eq!(a.tls.mode, Some(tls::Mode::Disable));
    }

    #[test]
    fn a_quoted_password_stays_as_it_is() {
        for (written, password) in [
            ("'two  spaces'", "two  spaces"),
            ("'a sslmode=disable b'", "a sslmode=disable b"),
            ("'it\\'s \\\\ x'", "it's \\ x"),
            ("'a://b'", "a://b"),
            ("a\\ b", "a b"),
        ] {
            let text = format!("host=h sslmode = verify-full password = {written} dbname=d");
            let a = Address::parse(&text).unwrap();
            assert_eq!(a.tls.mode, Some(tls::Mode::VerifyFull), "{text}");
            let config = postgres::Config::from_str(&a.text).unwrap();
            assert_eq!(config.get_password(), Some(password.as_bytes()), "{text}");
            assert_eq!(config.get_dbname(), Some("d"));
            let pairs = pairs(&text).unwrap();
            assert_eq!(pairs[2].value, password);
        }
        assert!(pairs("host=h password='never ends").is_none());
    }

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

    #[test]
    fn another_machine_is_verified_by_default() {
        let hosts = |text: &str| {
            postgres::Config::from_str(text)
                .unwrap()
                .get_hosts()
                .to_vec()
        };
        assert_eq!(
            default_mode(&hosts("postgresql://u@localhost,127.0.0.1/d")),
            tls::Mode::Prefer
        );
        assert_eq!(
            default_mode(&hosts("postgresql://u@127.0.0.1,db.example.com/d")),
            tls::Mode::VerifyFull
        );
    }
}
