//! The part of the configuration that the lower layers need.

use std::time::Duration;

use crate::app::config::{Config, ConfigError};
use crate::base::state_dir::StateDir;
use crate::journal::Recorder;
use crate::journal::catalog::Limits;
use crate::journal::incidents::Policy;
use crate::journal::recorder::store_unstarted;
use crate::model::RunStart;
use crate::pg::{Settings, check_address};

impl Settings {
    /// Takes them from the configuration.
    ///
    /// # Errors
    /// When there is no address.
    pub fn from_config(config: &Config, program: &'static str) -> Result<Self, ConfigError> {
        let url = config.database_url()?;
        check_address(&url).map_err(|problem| ConfigError::Address {
            setting: "the database address (DATABASE_URL, else database.url)",
            problem,
        })?;
        Ok(Self {
            url,
            connect_timeout: config.database.connect_timeout.0,
            statement_timeout: config.database.statement_timeout.0,
            program,
        })
    }
}

impl Policy {
    /// Takes it from the configuration.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        Self {
            repeat: config.alert_repeat(),
            timezone: config.timezone,
            keep_revisions: config.keeps_revisions(),
        }
    }
}

impl Limits {
    /// Those of the configuration; `None` without `[backup]`.
    #[must_use]
    pub fn from_config(config: &Config) -> Option<Self> {
        let backup = config.backup.as_ref()?;
        Some(Self {
            rpo: backup.rpo.0,
            rto: backup.rto.0,
            full_every: backup.full_every.0,
            drill_every: backup.drill_every.0,
            verify_every: config.alert.verify_limit.0,
            forecast: config.alert.disk_forecast.0,
        })
    }
}

impl Limits {
    /// For a machine without `[backup]`, which knows no objectives.
    #[must_use]
    pub fn without_objectives(config: &Config) -> Self {
        let never = Duration::MAX;
        Self {
            rpo: never,
            rto: never,
            full_every: never,
            drill_every: never,
            verify_every: config.alert.verify_limit.0,
            forecast: config.alert.disk_forecast.0,
        }
    }
}

impl Recorder {
    /// Opens the state directory. Does not connect yet.
    ///
    /// # Errors
    /// When there is no database address, or the state directory is not this user's. A full or broken disk is no error: either store
    /// suffices.
    pub fn open(config: &Config, program: &'static str) -> anyhow::Result<Self> {
        let settings = Settings::from_config(config, program)?;
        let state = StateDir::open_on_any_disk(&config.state_dir)?;
        let spool_limit = config.spool.max_size.0;
        Ok(Self::new(
            settings,
            state,
            spool_limit,
            Policy::from_config(config),
        ))
    }
}

/// Records the failure of a run that could not even begin, because this machine has no place to note it; as far as PostgreSQL
/// can be reached.
pub fn record_unstarted(config: &Config, program: &'static str, start: RunStart, reason: &str) {
    if let Ok(settings) = Settings::from_config(config, program) {
        store_unstarted(&settings, &Policy::from_config(config), start, reason);
    }
}
