//! Where a repository is, what opens it, and why it may not open.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use oa_core::app::config::{Config, ConfigError, S3 as S3Config};
use oa_core::base::secrets::{Secret, redact};
use oa_core::pg::{self, Settings};
use rustic_core::repofile::{Chunker, MasterKey};
use rustic_core::{
    ConfigOptions, Credentials, FileType, KeyOptions, Repository as Engine, RepositoryBackends,
    RepositoryOptions, RusticError, WriteBackend,
};

use crate::durable::Durable;
use crate::key::KeyCost;
use crate::spare::{SPARE, no_access};
use crate::{ProgressReporter, Repository, RepositoryError, s3};

/// This library's name in the database's list of sessions.
const PROGRAM: &str = "oa-repository";
/// Chunks of this size, at most, are stored again for one changed page.
const CHUNK: u64 = 128 << 10;
/// The level of zstd. Chunks as small as these come out at most 3 % larger than at its usual level, 3, in two thirds of the time.
const COMPRESSION: i32 = 1;

/// Where a repository is and what opens it.
#[derive(Debug, Clone)]
pub struct RepositoryLocation {
    location: String,
    password: Secret,
    s3: Option<s3::Access>,
    cache: Option<PathBuf>,
}

impl RepositoryLocation {
    /// The primary repository of the configuration.
    pub fn primary(config: &Config) -> Result<Self, ConfigError> {
        let backup = config.backup_settings()?;
        Self::new(
            config,
            &backup.repository,
            config.secret(&backup.password, "password in [backup]")?,
            backup.s3.as_ref(),
        )
    }

    /// The secondary one, where there is one.
    pub fn secondary(config: &Config) -> Result<Option<Self>, ConfigError> {
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

    #[cfg(test)]
    pub(crate) fn for_tests(folder: &Path) -> Self {
        Self {
            location: folder.display().to_string(),
            password: Secret::new("for tests".to_owned()),
            s3: None,
            cache: None,
        }
    }

    /// The location as it is shown and recorded: it has no secret in it.
    #[must_use]
    pub fn shown(&self) -> String {
        redact(&self.location)
    }

    /// The folder, when it is one.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        (!self.location.contains("://")).then(|| Path::new(&self.location))
    }

    pub(crate) fn raw(&self) -> Result<Arc<dyn WriteBackend>, RepositoryError> {
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

    pub(crate) fn engine(&self, reporter: ProgressReporter) -> Result<Engine<()>, RepositoryError> {
        self.start_threads()?;
        let mut options = RepositoryOptions::default();
        match &self.cache {
            Some(folder) => options.cache_dir = Some(folder.clone()),
            None => options.no_cache = true,
        }
        Engine::new_with_progress(
            &options,
            &RepositoryBackends::new(self.raw()?, None),
            reporter,
        )
        .map_err(|e| self.failed("open the repository", &e))
    }

    pub(crate) fn credentials(&self) -> Credentials {
        Credentials::Password(self.password().to_owned())
    }

    /// Whether there is a repository.
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
        let engine = self.engine(ProgressReporter::hidden())?;
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

    /// Why a location without configuration is not simply an empty one.
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

    /// Refuses a location that holds what is left of a repository.
    ///
    /// [`RepositoryError::Occupied`], with what helps; or when the location cannot be read.
    pub fn check_unoccupied(&self) -> Result<(), RepositoryError> {
        self.without_config()?.map_or(Ok(()), Err)
    }

    /// Creates the repository.
    pub fn create(&self) -> Result<(), RepositoryError> {
        self.create_with(KeyCost::USUAL)
    }

    /// With a key that anybody can guess.
    #[doc(hidden)]
    pub fn create_for_tests(&self) -> Result<(), RepositoryError> {
        self.create_with(KeyCost::OF_TESTS)
    }

    fn create_with(&self, cost: KeyCost) -> Result<(), RepositoryError> {
        if self.exists()? {
            return Err(RepositoryError::Exists(self.shown()));
        }
        self.check_unoccupied()?;
        let mut options = ConfigOptions::default();
        options.set_version = Some(2);
        options.set_chunker = Some(Chunker::FixedSize);
        options.set_chunk_size = Some(bytesize::ByteSize(CHUNK));
        options.set_compression = Some(COMPRESSION);
        let failed = |e: Box<RusticError>| self.failed("create the repository", &e);
        // The key before the configuration: where there is a configuration, something opens it.
        let master = MasterKey::new();
        let backend = self.raw()?;
        backend.create().map_err(failed)?;
        self.write_key(backend.as_ref(), &master, cost)?;
        self.engine(ProgressReporter::hidden())?
            .init(
                &Credentials::Masterkey(master),
                &KeyOptions::default(),
                &options,
            )
            .map_err(failed)?;
        self.keep_spares()
    }

    pub(crate) fn password(&self) -> &str {
        self.password.expose()
    }

    /// Opens the repository.
    pub fn open(&self, reporter: &ProgressReporter) -> Result<Repository, RepositoryError> {
        if !self.exists()? {
            let absent = || RepositoryError::Absent(self.shown());
            // Whoever only opens it has a configuration to mend, no location to choose.
            return Err(match self.without_config()? {
                Some(RepositoryError::Occupied(why)) => RepositoryError::Place(why),
                _ => absent(),
            });
        }
        let engine = self.engine(reporter.clone())?.open(&self.credentials());
        let engine = engine.or_else(|e| {
            if let Some(key) = self.key_beside_damaged_ones() {
                let again = self.engine(reporter.clone())?;
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
            location: self.clone(),
            reporter: reporter.clone(),
            engine,
        })
    }

    /// Opens the repository. Where there is none, PostgreSQL may know that there should be one.
    pub fn open_recorded(
        &self,
        config: &Config,
        reporter: &ProgressReporter,
    ) -> Result<Repository, RepositoryError> {
        self.open(reporter).map_err(|e| match e {
            RepositoryError::Absent(_) => self.vanished(config).unwrap_or(e),
            other => other,
        })
    }

    /// What PostgreSQL has recorded of a location at which there is no repository; `None` also when it does not answer.
    #[must_use]
    pub fn vanished(&self, config: &Config) -> Option<RepositoryError> {
        let mut client = pg::connect(&Settings::from_config(config, PROGRAM).ok()?).ok()?;
        let row = client
            .query_opt(
                "SELECT id, restorable_to, count(*) OVER () FROM oa.backups
                 WHERE repository = $1 AND removed_at IS NULL ORDER BY restorable_to DESC LIMIT 1",
                &[&self.shown()],
            )
            .ok()??;
        let (id, at): (String, DateTime<Utc>) = (row.get(0), row.get(1));
        Some(RepositoryError::Vanished {
            place: self.shown(),
            backups: row.get(2),
            newest: id.chars().take(8).collect(),
            at: at
                .with_timezone(&config.timezone)
                .format("%Y-%m-%d %H:%M")
                .to_string(),
        })
    }
}
