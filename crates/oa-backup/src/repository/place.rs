//! Where a repository is, what opens it, and why it may not open.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use oa_core::app::config::{Config, ConfigError, S3 as S3Config};
use oa_core::base::secrets::{Secret, redact};
use rustic_core::repofile::Chunker;
use rustic_core::{
    ConfigOptions, Credentials, FileType, KeyOptions, Repository as Engine, RepositoryBackends,
    RepositoryOptions, WriteBackend,
};

use super::durable::Durable;
use super::spare::{SPARE, no_access};
use super::{Bars, Repository, s3};

/// Pieces of this size, at most, are stored again for one changed page.
const CHUNK: u64 = 128 << 10;

/// The repository could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// There is none.
    #[error("there is no repository at {0}; create it with: oa-backup init")]
    Absent(String),
    /// There is none where PostgreSQL has recorded backups.
    #[error(
        "there is no repository at {place}, although {backups} backups were recorded there (the newest, {newest}, is of {at}); is its disk mounted? If they are lost, begin anew with: oa-backup init --anew"
    )]
    Vanished {
        /// Where it should be.
        place: String,
        /// How many backups were recorded there.
        backups: i64,
        /// The newest one.
        newest: String,
        /// What it restores.
        at: String,
    },
    /// There is one already.
    #[error("there is a repository at {0} already; nothing was changed")]
    Exists(String),
    /// Something is there without which a new repository would be one more thing to untangle.
    #[error("{0}")]
    Occupied(String),
    /// What opens it is damaged in both copies.
    #[error("{0}")]
    Lost(String),
    /// The key does not open it.
    #[error("the password does not open the repository at {0}; check password in [backup]")]
    Password(String),
    /// The place itself is not usable as it is configured.
    #[error("{0}")]
    Place(String),
    /// What was to be stored was not stored as a whole.
    #[error("{what} was not stored as a whole: {stored} of {expected}; nothing is listed")]
    Incomplete {
        /// What was stored.
        what: String,
        /// Files and bytes in the repository.
        stored: String,
        /// Files and bytes that were to be stored.
        expected: String,
    },
    /// What was stored needs something that is damaged: pieces that older backups had stored already.
    #[error(
        "what was just stored is not whole and not listed: {0}; take the damage out with oa-backup repair, then make a full backup"
    )]
    Damaged(String),
    /// This process was asked to stop.
    #[error("stopped by a signal")]
    Stopped,
    /// There is no such backup.
    #[error("there is no backup {0}; see oa-backup list")]
    NoBackup(String),
    /// The engine, or the disk or service below it.
    #[error("could not {doing} at {place}: {reason}")]
    Engine {
        /// What was being done.
        doing: &'static str,
        /// The repository.
        place: String,
        /// What the engine said.
        reason: String,
    },
}

/// Where a repository is and what opens it.
#[derive(Debug, Clone)]
pub struct Place {
    location: String,
    password: Secret,
    s3: Option<s3::Access>,
    cache: Option<PathBuf>,
}

impl Place {
    /// The first repository of the configuration.
    ///
    /// # Errors
    /// When `[backup]` is absent, or a reference to a secret leads nowhere.
    pub fn first(config: &Config) -> Result<Self, ConfigError> {
        let backup = config.backup_settings()?;
        Self::new(
            config,
            &backup.repository,
            config.secret(&backup.password, "password in [backup]")?,
            backup.s3.as_ref(),
        )
    }

    /// The second one, where there is one.
    ///
    /// # Errors
    /// As [`Place::first`].
    pub fn second(config: &Config) -> Result<Option<Self>, ConfigError> {
        let backup = config.backup_settings()?;
        let Some(copy) = &backup.copy else {
            return Ok(None);
        };
        let password = copy.password.as_ref().unwrap_or(&backup.password);
        let password = config.secret(password, "password in [backup.copy]")?;
        Self::new(config, &copy.repository, password, copy.s3.as_ref()).map(Some)
    }

    fn new(
        config: &Config,
        location: &str,
        password: Secret,
        s3: Option<&S3Config>,
    ) -> Result<Self, ConfigError> {
        let s3 = match s3 {
            Some(s3) => Some(s3::Access::from_config(config, s3)?),
            None => None,
        };
        let remote = location.contains("://");
        Ok(Self {
            location: location.to_owned(),
            password,
            s3,
            // What is read often; the repository's own files are as near.
            cache: remote.then(|| config.state_dir.join("backup-cache")),
        })
    }

    /// The place as it is shown and recorded: it has no secret in it.
    #[must_use]
    pub fn shown(&self) -> String {
        redact(&self.location)
    }

    /// The folder, when it is one.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        (!self.location.contains("://")).then(|| Path::new(&self.location))
    }

    pub(super) fn raw(&self) -> Result<Arc<dyn WriteBackend>, RepositoryError> {
        let backend: Arc<dyn WriteBackend> = if let Some(rest) = self.location.strip_prefix("s3://")
        {
            let access = self.s3.as_ref().ok_or_else(|| {
                RepositoryError::Place(format!(
                    "repository {} needs [backup.s3] with endpoint, region, access_key and secret_key; see docs/configuration.md",
                    self.shown()
                ))
            })?;
            Arc::new(s3::S3::new(rest, access).map_err(RepositoryError::Place)?)
        } else if self.location.contains("://") {
            return Err(RepositoryError::Place(format!(
                "repository {} is neither a folder nor s3://BUCKET/PREFIX",
                self.shown()
            )));
        } else {
            let local =
                Durable::new(&self.location).map_err(|e| self.failed("use the folder", &e))?;
            Arc::new(local)
        };
        Ok(backend)
    }

    pub(super) fn engine(&self, bars: Bars) -> Result<Engine<()>, RepositoryError> {
        let mut options = RepositoryOptions::default();
        match &self.cache {
            Some(folder) => options.cache_dir = Some(folder.clone()),
            None => options.no_cache = true,
        }
        Engine::new_with_progress(&options, &RepositoryBackends::new(self.raw()?, None), bars)
            .map_err(|e| self.failed("open the repository", &e))
    }

    pub(super) fn credentials(&self) -> Credentials {
        Credentials::Password(self.password.expose().to_owned())
    }

    /// Whether there is a repository.
    ///
    /// # Errors
    /// When the place cannot be read.
    pub fn exists(&self) -> Result<bool, RepositoryError> {
        if let Some(folder) = self.folder() {
            // The engine takes what it may not see for what is not there.
            let config = folder.join("config");
            for path in [folder, config.as_path()] {
                match path.metadata() {
                    Ok(_) => {}
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
                    Err(e) => return Err(RepositoryError::Place(no_access(folder, &e))),
                }
            }
            return Ok(true);
        }
        let engine = self.engine(Bars::hidden())?;
        let id = engine
            .config_id()
            .map_err(|e| self.failed("look for a repository", &e))?;
        Ok(id.is_some())
    }

    /// What is left of a repository that has no configuration any more: "keys", "snapshots" and so on.
    fn remains(&self) -> Result<Vec<&'static str>, RepositoryError> {
        let backend = self.raw()?;
        let kinds = [
            (FileType::Key, "keys"),
            (FileType::Snapshot, "snapshots"),
            (FileType::Index, "an index"),
            (FileType::Pack, "data"),
        ];
        let mut found = Vec::new();
        for (kind, name) in kinds {
            let some = match self.folder() {
                Some(folder) if !folder.join(kind.dirname()).exists() => false,
                _ => !backend
                    .list(kind)
                    .map_err(|e| self.failed("look for a repository", &e))?
                    .is_empty(),
            };
            if some {
                found.push(name);
            }
        }
        Ok(found)
    }

    /// Why a place without configuration is not simply an empty one.
    fn without_config(&self) -> Result<Option<RepositoryError>, RepositoryError> {
        let mut remains = self.remains()?;
        if self
            .folder()
            .is_some_and(|f| f.join(SPARE).join("config").exists())
        {
            remains.push("a spare copy of its configuration");
        }
        if remains.is_empty() {
            return Ok(None);
        }
        let remedy = match self.folder() {
            Some(_) => self.why_it_does_not_open().map_or_else(
                || "put it back from a copy of this folder".to_owned(),
                |why| why.to_string(),
            ),
            None => "put the object \"config\" back, from an older version of it or from a copy of the bucket".to_owned(),
        };
        Ok(Some(RepositoryError::Occupied(format!(
            "the repository at {} has {}, but no configuration: {remedy}",
            self.shown(),
            remains.join(", ")
        ))))
    }

    /// Refuses a place that holds what is left of a repository.
    ///
    /// # Errors
    /// [`RepositoryError::Occupied`], with what helps; or when the place cannot be read.
    pub fn check_unoccupied(&self) -> Result<(), RepositoryError> {
        self.without_config()?.map_or(Ok(()), Err)
    }

    /// Creates the repository.
    ///
    /// # Errors
    /// When there is one, or what is left of one, or the place cannot be written.
    pub fn create(&self) -> Result<(), RepositoryError> {
        if self.exists()? {
            return Err(RepositoryError::Exists(self.shown()));
        }
        self.check_unoccupied()?;
        let mut options = ConfigOptions::default();
        options.set_version = Some(2);
        options.set_chunker = Some(Chunker::FixedSize);
        options.set_chunk_size = Some(bytesize::ByteSize(CHUNK));
        self.engine(Bars::hidden())?
            .init(&self.credentials(), &KeyOptions::default(), &options)
            .map_err(|e| self.failed("create the repository", &e))?;
        self.keep_spares()
    }

    /// Opens the repository.
    ///
    /// # Errors
    /// When there is none, or the password is wrong.
    pub fn open(&self, bars: &Bars) -> Result<Repository, RepositoryError> {
        if !self.exists()? {
            let absent = || RepositoryError::Absent(self.shown());
            // Whoever only opens it has a configuration to mend, no place to choose.
            return Err(match self.without_config()? {
                Some(RepositoryError::Occupied(why)) => RepositoryError::Place(why),
                _ => absent(),
            });
        }
        let engine = self.engine(bars.clone())?.open(&self.credentials());
        let engine = engine.or_else(|e| {
            if let Some(key) = self.key_beside_damaged_ones() {
                let again = self.engine(bars.clone())?;
                if let Ok(engine) = again.open(&Credentials::Masterkey(key)) {
                    return Ok(engine);
                }
            }
            Err(if let Some(why) = self.why_it_does_not_open() {
                why
            } else if e.is_incorrect_password() {
                RepositoryError::Password(self.shown())
            } else {
                self.failed("open the repository", &e)
            })
        })?;
        Ok(Repository {
            place: self.clone(),
            bars: bars.clone(),
            engine,
        })
    }
}
