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
    settings: Settings,
    client: Option<Client>,
}

impl Database {
    /// One for whoever must say at once whether something was done.
    pub(super) fn quick(config: &Config) -> Result<Self, ConfigError> {
        let mut own = Self::patient(config)?;
        own.settings.connect_timeout = own.settings.connect_timeout.min(QUICK);
        own.settings.statement_timeout = QUICK;
        Ok(own)
    }

    /// One for whoever can wait.
    pub(super) fn patient(config: &Config) -> Result<Self, ConfigError> {
        Ok(Self {
            settings: Settings::from_config(config, PROGRAM)?,
            client: None,
        })
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
        let mut client = pg::connect(&self.settings).map_err(|e| e.to_string())?;
        schema::check(&mut client).map_err(|e| e.to_string())?;
        let result = what(&mut client).map_err(|e| describe(&e));
        self.client = Some(client);
        result
    }
}
