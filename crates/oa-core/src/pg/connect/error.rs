//! Why there is no connection: what the driver's error means, and whether time may heal it.

use std::error::Error as _;
use std::io;

use postgres::config::{Host, SslMode};
use postgres::error::SqlState;

use super::Settings;
use crate::base::limits;
use crate::pg::{describe, tls};

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

/// `one` is the host that was tried.
pub(super) fn classify(
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
