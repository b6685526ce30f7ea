//! A connection to PostgreSQL that comes back by itself, for a program that goes on without.

use std::time::Duration;

use oa_core::app::config::{Config, ConfigError};
use oa_core::pg::{self, Settings, describe, is_connection_error, schema};
use postgres::Client;

use crate::PROGRAM;

/// Platforms wait for three seconds for what came of a button.
const QUICK: Duration = Duration::from_secs(2);

/// Connects when it is needed.
pub(super) struct Database {
    config: Config,
    /// The longest wait for an answer, where it is not the configuration's.
    limit: Option<Duration>,
    client: Option<Client>,
}

impl Database {
    /// One for whoever must say at once whether something was done.
    pub(super) fn quick(config: &Config) -> Result<Self, ConfigError> {
        let own = Self::patient(config)?;
        Ok(Self {
            limit: Some(QUICK),
            ..own
        })
    }

    /// One for whoever can wait.
    pub(super) fn patient(config: &Config) -> Result<Self, ConfigError> {
        Settings::from_config(config, PROGRAM)?;
        Ok(Self {
            config: config.clone(),
            limit: None,
            client: None,
        })
    }

    /// By the address as it is now: its password may have been changed since this program was started.
    fn settings(&self) -> Result<Settings, ConfigError> {
        let mut settings = Settings::from_config(&self.config, PROGRAM)?;
        if let Some(limit) = self.limit {
            settings.connect_timeout = settings.connect_timeout.min(limit);
            settings.statement_timeout = limit;
        }
        Ok(settings)
    }

    /// Does something in PostgreSQL. A connection that was open before may have ended meanwhile: then it is done once more with a new
    /// one, so that it must be harmless when it is done twice.
    pub(super) fn with<T>(
        &mut self,
        mut what: impl FnMut(&mut Client) -> Result<T, postgres::Error>,
    ) -> Result<T, String> {
        if let Some(client) = self.client.as_mut().filter(|c| !c.is_closed()) {
            match what(client) {
                Err(e) if is_connection_error(&e) => {}
                result => return result.map_err(|e| describe(&e)),
            }
        }
        self.client = None;
        let settings = self.settings().map_err(|e| e.to_string())?;
        let mut client = pg::connect(&settings).map_err(|e| e.to_string())?;
        schema::check(&mut client).map_err(|e| e.to_string())?;
        let result = what(&mut client).map_err(|e| describe(&e));
        self.client = Some(client);
        result
    }
}
