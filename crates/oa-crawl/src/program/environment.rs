//! What a program of the operator's finds in its environment: that of this process, without the secrets that are meant for this
//! one, and with those that the configuration gives to it.

use std::process::Command;
use std::sync::OnceLock;

use oa_core::app::config::{Config, ConfigError, SecretRef};
use oa_core::base::secrets::Secret;
use oa_core::base::supervise::Owner;

use crate::source::{FetchKind, Source, Sources};

#[derive(Debug, Clone, Default)]
pub(crate) struct Programs {
    /// The run, unless nothing is recorded.
    pub(crate) owner: Option<Owner>,
    pub(crate) environment: Environment,
}

impl Programs {
    /// For programs of a source whose run is not recorded.
    pub(crate) fn unrecorded(config: &Config, source: &Source) -> Result<Self, ConfigError> {
        Ok(Self {
            owner: None,
            environment: Environment::of_source(config, source)?,
        })
    }
}

/// The difference to this process's own environment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    without: Vec<String>,
    with: Vec<(String, Secret)>,
}

impl Environment {
    /// For the programs of a task: `env` in `[exec.TASK]` names what it is given.
    pub(crate) fn of(config: &Config, task: &str) -> Result<Self, ConfigError> {
        let names = config.exec.get(task).map_or(&[][..], |e| &e.env);
        let with = names.iter().map(|name| {
            let setting = format!("{name} (env in [exec.{task}])");
            let value = config.secret(&SecretRef::Env(name.clone()), &setting)?;
            Ok((name.clone(), value))
        });
        Ok(Self {
            with: with.collect::<Result<_, _>>()?,
            without: secret_names(config).to_vec(),
        })
    }

    /// The same for a source, if it has programs.
    pub(crate) fn of_source(config: &Config, source: &Source) -> Result<Self, ConfigError> {
        let post = source.image.as_ref().is_some_and(|i| !i.post.is_empty());
        if source.fetch.kind == FetchKind::Command || post {
            return Self::of(config, &source.name);
        }
        Ok(Self::default())
    }

    pub(crate) fn give_to(&self, command: &mut Command) {
        for name in &self.without {
            command.env_remove(name);
        }
        command.envs(self.with.iter().map(|(name, value)| (name, value.expose())));
    }
}

/// The variables to which configuration and sources refer. They stay the same while this program runs.
fn secret_names(config: &Config) -> &'static [String] {
    static NAMES: OnceLock<Vec<String>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let mut names = config.secret_names();
        // Broken source files are no reason not to run a program.
        if let Ok(sources) = Sources::load(config, None) {
            for source in sources.iter() {
                names.extend(source.secret_references().filter_map(|r| match r {
                    SecretRef::Env(name) => Some(name.clone()),
                    _ => None,
                }));
            }
        }
        names
    })
}
