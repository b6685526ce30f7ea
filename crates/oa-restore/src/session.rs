//! What every command needs: the repository opened, its backups, a way chosen, and a row in the run log.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use oa_backup::backup;
use oa_backup::repository::{Backup, Bars, Place, Reader, RepositoryError};
use oa_core::cli::Failure;
use oa_core::config::{Backup as Settings, BackupKind, Config, ConfigError};
use oa_core::pg;
use oa_core::runs::work::{self, Ended, Job};
use oa_core::runs::{Recorder, RunStart, Trigger};

use crate::PROGRAM;
use crate::choose::{Choice, Chooser};
use crate::recover::Work;
use crate::target::Target;

/// What is asked for, by every command.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `--to`
    pub to: String,
    /// `--from-copy`: out of the second repository.
    pub from_copy: bool,
    /// `--kind`
    pub kind: BackupKind,
}

/// The repository, opened.
#[derive(Debug)]
pub struct Session<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// `[backup]`
    pub settings: &'a Settings,
    /// Where the repository is.
    pub place: Place,
    /// Oldest first.
    pub backups: Vec<Backup>,
    /// For reading what is in them.
    pub reader: Reader,
    /// Where private servers stand.
    pub staging: PathBuf,
    database: Option<String>,
    users: Vec<String>,
}

impl<'a> Session<'a> {
    /// Opens it. PostgreSQL is not needed, nor its address.
    ///
    /// # Errors
    /// When there is no repository, or the password does not open it.
    pub fn open(config: &'a Config, from_copy: bool, bars: &Bars) -> Result<Self, Failure> {
        let settings = config.backup_settings()?;
        let place = if from_copy {
            Place::second(config)?.ok_or_else(|| {
                Failure::from(RepositoryError::Place(
                    "there is no [backup.copy] in the configuration; see docs/configuration.md"
                        .to_owned(),
                ))
            })?
        } else {
            Place::first(config)?
        };
        let repository = place.open(bars)?;
        let (backups, damages) = repository.readable_backups()?;
        for damage in &damages {
            tracing::warn!("left out: {}", damage.what);
        }
        let reader = repository.reader()?;
        let (database, users) = names(config);
        Ok(Self {
            config,
            settings,
            place,
            backups,
            reader,
            staging: backup::staging(config, settings)?.path().to_owned(),
            database,
            users,
        })
    }

    /// The database of the configured address.
    #[must_use]
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// The users of the configured addresses: a restored cluster knows them.
    #[must_use]
    pub fn users(&self) -> &[String] {
        &self.users
    }

    /// A moment as people of this service read it.
    #[must_use]
    pub fn shown(&self, at: DateTime<Utc>) -> String {
        at.with_timezone(&self.config.timezone)
            .format("%Y-%m-%d %H:%M:%S %Z")
            .to_string()
    }

    /// Reads `--to`.
    ///
    /// # Errors
    /// When it cannot be understood.
    pub fn target(&self, text: &str) -> Result<Target, Failure> {
        Ok(Target::parse(text, self.config.timezone, Utc::now())?)
    }

    /// Finds the way to what is asked for.
    ///
    /// # Errors
    /// When there is none.
    pub fn choose(
        &self,
        target: &Target,
        kind: BackupKind,
        work: &Work,
    ) -> Result<Choice, Failure> {
        let chooser = Chooser {
            backups: &self.backups,
            reader: &self.reader,
            settings: self.settings,
            database: self.database(),
            zone: self.config.timezone,
            scratch: work.folder(),
        };
        let choice = chooser.choose(target, kind)?;
        for note in &choice.notes {
            tracing::warn!("{note}");
        }
        Ok(choice)
    }
}

/// The database of the address, and the users of both addresses; as far as they are known.
fn names(config: &Config) -> (Option<String>, Vec<String>) {
    let first = config.database_url().ok();
    let second = config
        .backup
        .as_ref()
        .and_then(|b| b.database_url.as_ref())
        .and_then(|r| config.secret(r, "database_url in [backup]").ok());
    let mut users = Vec::new();
    let mut database = None;
    for url in [first, second].into_iter().flatten() {
        let settings = pg::Settings {
            url,
            connect_timeout: config.database.connect_timeout.0,
            statement_timeout: config.database.statement_timeout.0,
            program: PROGRAM,
        };
        let Ok(variables) = pg::libpq::environment(&settings, None) else {
            continue;
        };
        let of = |name: &str| {
            variables
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v.clone())
        };
        let user = of("PGUSER");
        database = database.or_else(|| of("PGDATABASE").or_else(|| user.clone()));
        users.extend(user);
    }
    (database, users)
}

/// Does work under a row in the run log. Without any database address there is no run log, and restoring goes on all the same.
///
/// # Errors
/// The work's own.
pub fn recorded<T>(
    config: &Config,
    job: &Job,
    mut once: impl FnMut(&RunStart) -> Result<Ended<T>, Failure>,
) -> Result<T, Failure> {
    match config.database_url() {
        Err(ConfigError::Missing(..)) => {
            tracing::warn!("there is no database address, so this is not recorded in the run log");
            let run = RunStart::now(
                PROGRAM,
                env!("CARGO_PKG_VERSION"),
                job.task,
                job.title,
                Trigger::Manual,
                std::time::Duration::from_secs(24 * 3600),
            );
            once(&run).map(|ended| ended.value)
        }
        _ => {
            let recorder = Recorder::open(config, PROGRAM)?;
            let result = work::recorded(&recorder, job, once);
            oa_core::alerts::flush_now(config);
            result
        }
    }
}
