//! Connections that may only read, kept for the next question. A server that was restarted is found by the first question after it,
//! which is asked again on a new connection.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use oa_core::app::config::{Config, ConfigError};
use oa_core::pg::schema::SchemaError;
use oa_core::pg::{self, schema};
use oa_core::pg::{ConnectError, Prepared, Settings, Tx, describe, is_connection_error};
use postgres::{Client, IsolationLevel};

use crate::PROGRAM;

/// Longest time of one statement for a page or an answer.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(8);
/// Longest wait for the server to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const MOST_KEPT: usize = 4;

#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("PostgreSQL did not answer: {}", describe(.0))]
    Database(#[from] postgres::Error),
}

#[derive(Debug)]
pub(crate) struct Pool {
    config: Config,
    kept: Mutex<Vec<Kept>>,
}

/// With the statements that it has prepared.
struct Kept(Client, Prepared);

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connection")
    }
}

impl Pool {
    /// By `report.database_url` where there is one.
    pub(crate) fn from_config(config: &Config) -> Result<Self, ConfigError> {
        settings(config)?;
        Ok(Self {
            config: config.clone(),
            kept: Mutex::new(Vec::new()),
        })
    }

    /// By the address as it is now: its password may have been changed since this program was started.
    fn connect(&self) -> Result<Client, QueryError> {
        let mut settings = settings(&self.config)?;
        settings.connect_timeout = settings.connect_timeout.min(CONNECT_TIMEOUT);
        settings.statement_timeout = STATEMENT_TIMEOUT;
        connect(&settings)
    }

    /// Asks in one read-only transaction, so that all answers are of the same time.
    pub(crate) fn read<T>(
        &self,
        mut question: impl FnMut(&mut Tx<'_, '_>) -> Result<T, postgres::Error>,
    ) -> Result<T, QueryError> {
        let kept = self
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        if let Some(Kept(mut client, mut prepared)) = kept {
            let mut answered = answer(&mut client, &mut prepared, &mut question);
            if answered.as_ref().is_err_and(pg::is_outdated) {
                // A table was changed meanwhile: what was prepared is forgotten by now.
                answered = answer(&mut client, &mut prepared, &mut question);
            }
            match answered {
                Err(e) if is_connection_error(&e) => {}
                other => {
                    self.keep(client, prepared);
                    return other.map_err(QueryError::from);
                }
            }
            // The others are as old.
            self.kept
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clear();
        }
        let mut client = self.connect()?;
        let mut prepared = Prepared::default();
        let answered = answer(&mut client, &mut prepared, &mut question);
        self.keep(client, prepared);
        answered.map_err(QueryError::from)
    }

    fn keep(&self, client: Client, prepared: Prepared) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !client.is_closed() && kept.len() < MOST_KEPT {
            kept.push(Kept(client, prepared));
        }
    }
}

fn settings(config: &Config) -> Result<Settings, ConfigError> {
    let mut settings = Settings::from_config(config, PROGRAM);
    if let Some(reference) = &config.report.database_url {
        let url = config.secret(reference, "report.database_url")?;
        settings = Ok(Settings {
            url,
            connect_timeout: config.database.connect_timeout.0,
            statement_timeout: config.database.statement_timeout.0,
            program: PROGRAM,
        });
    }
    settings
}

fn connect(settings: &Settings) -> Result<Client, QueryError> {
    let mut client = pg::connect(settings)?;
    // Compiling a statement takes longer than these take. One that stays prepared is planned for what is asked each time: a plan for
    // any tasks and any days reads a table as a whole.
    client.batch_execute(
        "SET default_transaction_read_only = on; SET jit = off; SET plan_cache_mode = force_custom_plan",
    )?;
    schema::check(&mut client)?;
    Ok(client)
}

/// One connection for a command, with the usual limits.
pub(crate) fn connect_read_only(config: &Config) -> Result<Client, QueryError> {
    connect(&settings(config)?)
}

fn answer<T>(
    client: &mut Client,
    prepared: &mut Prepared,
    question: &mut impl FnMut(&mut Tx<'_, '_>) -> Result<T, postgres::Error>,
) -> Result<T, postgres::Error> {
    let mut tx = client
        .build_transaction()
        .read_only(true)
        .isolation_level(IsolationLevel::RepeatableRead)
        .start()?;
    let answer = question(&mut Tx::new(&mut tx, prepared))?;
    tx.commit()?;
    Ok(answer)
}
