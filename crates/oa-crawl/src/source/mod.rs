//! Source files: one TOML file says where a source is, how its answer is read, what its fields are and where they go.
//!
//! The files in `sources/` are part of the program; files of a folder named by `--sources` or `[crawl] sources` replace those
//! of the same name or add to them, so that an operator corrects an address or a field without a new build.

mod access;
mod check;
mod day;
mod definition;
mod due_times;
mod folder;
mod forms;
mod paging;
mod placeholders;
mod secrets;
mod selector;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use oa_core::app::config::{Config, Crawl};
use oa_core::base::mistakes::{explain, nearest};
use oa_core::base::state_dir::{StateDir, write_durably};
use oa_core::base::trust::TrustError;
use oa_core::model::retry::Policy;
use sha2::{Digest, Sha256};

pub(crate) use access::{
    Encoding as SignatureEncoding, Hash, HttpLogin, SIGN_SECRET, Sign, login_secret,
};
pub(crate) use day::Shows;
pub(crate) use definition::{
    Answer, BrowserRules, DayElsewhere, DayPlace, Each, Epoch, FetchKind, Field, FieldType, Image,
    Latest, List, Login, OnBad, Source, Step, Table,
};
pub(crate) use folder::{Broken, FOLDER};
pub(crate) use forms::{Delimited, Exclude, Names, Rows, Sheet, Xml};
pub(crate) use paging::{End, Paging, Place};
pub(crate) use placeholders::{DayNames, fill, names as names_within};
pub(crate) use secrets::query_secret;
pub(crate) use selector::{NotASelector, selector};

#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("could not read {}: {source}", path.display())]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    /// A source file says what is run and asked: it must be this user's.
    #[error("refused source file: {0}")]
    Untrusted(TrustError),
    #[error("could not use source file {file}: {message}")]
    Invalid { file: String, message: String },
    #[error("{0}")]
    Broken(String),
    #[error("there is no source \"{name}\"{hint}")]
    Unknown {
        name: String,
        /// The nearest one, or all of them.
        hint: String,
    },
}

macro_rules! built_in {
    ($($name:literal),+ $(,)?) => {
        [$((concat!($name, ".toml"), include_str!(concat!("../../sources/", $name, ".toml")))),+]
    };
}

/// The sources that ship inside the program, by the name of their file.
pub(crate) const BUILT_IN: &[(&str, &str)] = &built_in![
    "cffex-futures",
    "cffex-options",
    "czce-futures",
    "czce-options",
    "czce-receipts",
    "dce-futures",
    "dce-options",
    "dce-receipts",
    "fangqi-morning",
    "fangqi-night",
    "gfex-futures",
    "gfex-options",
    "gfex-receipts",
    "ine-futures",
    "jiaoyikecha-blueprint",
    "jiaoyikecha-positions",
    "openvlab-flow",
    "rdqh-indicators",
    "rongda-positions",
    "rongda-structure",
    "shfe-futures",
    "shfe-options",
    "shfe-receipts",
    "zhihui-full-view",
    "zhihui-reports",
    "zhihui-varieties",
];

#[derive(Debug, Clone)]
pub(crate) struct Sources {
    all: BTreeMap<String, Source>,
    broken: Vec<Broken>,
    skip: Vec<String>,
}

impl Sources {
    /// The built-in sources, then those of the folder, with the configuration's addresses and limits applied.
    /// Fails when `enable` or `skip` names no source. A file that cannot be read or is wrong is one of [`Sources::broken`].
    pub(crate) fn load(config: &Config, folder: Option<&Path>) -> Result<Self, SourceError> {
        let mut found = BTreeMap::new();
        for (file, text) in BUILT_IN {
            let source = parse(file, text)?;
            found.insert(source.name.clone(), source);
        }
        let mut broken = Vec::new();
        if let Some(folder) = folder.or(config.crawl.sources.as_deref()) {
            let (own, wrong) = folder::read(folder);
            found.extend(own);
            for one in &wrong {
                found.remove(&one.task);
            }
            if wrong.iter().any(|one| one.task == FOLDER) {
                found.clear();
            }
            broken = wrong;
        }
        for source in found.values_mut() {
            if let Some(base) = config
                .providers
                .get(&source.provider)
                .and_then(|p| p.base.as_ref())
            {
                source.fetch.base.clone_from(base);
            }
            source.retry = policy(source.retry, &config.crawl);
        }
        let mut sources = Self {
            all: found,
            broken,
            skip: config.crawl.skip.clone(),
        };
        sources.enable(config)?;
        Ok(sources)
    }

    /// Marks those that `[crawl]` names.
    fn enable(&mut self, config: &Config) -> Result<(), SourceError> {
        let crawl = &config.crawl;
        let enable = crawl.enable.as_deref().unwrap_or_default();
        for (key, names) in [("enable", enable), ("skip", &crawl.skip)] {
            for name in names {
                if self.broken_one(name).is_some() {
                    continue; // It says so by itself.
                }
                match self.named(name) {
                    // It may be the provider of one that cannot be read, and is no reason to stop the others.
                    Err(e) if !self.broken.is_empty() => {
                        let file = config.path.display();
                        tracing::warn!("{key} in [crawl] of {file}: {e}");
                    }
                    Err(e) => {
                        return Err(SourceError::Invalid {
                            file: format!("list: {key} in [crawl] of {}", config.path.display()),
                            message: e.to_string(),
                        });
                    }
                    Ok(_) => {}
                }
            }
        }
        let among = |names: &[String], source: &Source| {
            names
                .iter()
                .any(|n| *n == source.name || *n == source.provider)
        };
        for source in self.all.values_mut() {
            source.enabled = among(enable, source) && !among(&crawl.skip, source);
        }
        Ok(())
    }

    /// Those that `enable` in `[crawl]` names, in the order of their names. Everything else is off.
    pub(crate) fn enabled(&self) -> impl Iterator<Item = &Source> {
        self.all.values().filter(|s| s.enabled)
    }

    /// Every source, also those that are off, in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Source> {
        self.all.values()
    }

    /// The tasks of that name, or of that provider.
    pub(crate) fn named(&self, name: &str) -> Result<Vec<&Source>, SourceError> {
        let found: Vec<&Source> = self
            .iter()
            .filter(|s| s.name == name || s.provider == name)
            .collect();
        if found.is_empty() {
            let providers: BTreeSet<&str> = self.iter().map(|s| s.provider.as_str()).collect();
            let tasks = self.all.keys().map(String::as_str);
            let known: Vec<&str> = tasks.chain(providers).collect();
            return Err(SourceError::Unknown {
                name: name.to_owned(),
                hint: nearest(name, known.iter().copied()),
            });
        }
        Ok(found)
    }

    /// The source of that name, also one that is off.
    pub(crate) fn get(&self, name: &str) -> Result<&Source, SourceError> {
        if let Some(source) = self.all.get(name) {
            return Ok(source);
        }
        if let Some(one) = self.broken_one(name) {
            return Err(SourceError::Broken(one.reason.clone()));
        }
        Err(SourceError::Unknown {
            name: name.to_owned(),
            hint: nearest(name, self.all.keys().map(String::as_str)),
        })
    }

    /// Whether each of the files can be used.
    pub(crate) fn all_well(&self) -> bool {
        self.broken.is_empty()
    }

    /// What cannot be used, except those that `skip` names.
    pub(crate) fn broken(&self) -> impl Iterator<Item = &Broken> {
        self.broken.iter().filter(|b| !self.skip.contains(&b.task))
    }

    /// Why the source of that name cannot be used: its file, or the whole folder.
    pub(crate) fn broken_one(&self, name: &str) -> Option<&Broken> {
        let mut broken = self.broken.iter();
        broken.find(|b| b.task == name || b.task == FOLDER)
    }

    /// All of them, for what must not be done while one is unknown.
    pub(crate) fn whole(self) -> Result<Self, SourceError> {
        match self.broken.first() {
            Some(one) => Err(SourceError::Broken(one.reason.clone())),
            None => Ok(self),
        }
    }
}

/// What `[crawl]` says of retries and time limits goes before a task's own.
pub(crate) fn policy(own: Policy, crawl: &Crawl) -> Policy {
    Policy {
        retries: crawl.retries.unwrap_or(own.retries),
        delay: crawl.retry_delay.map_or(own.delay, |s| s.0),
        timeout: crawl.timeout.map_or(own.timeout, |s| s.0),
        backoff: crawl.retry_backoff.unwrap_or(own.backoff),
    }
}

/// The error names line and key.
pub(crate) fn parse(file: &str, text: &str) -> Result<Source, SourceError> {
    let invalid = |message: String| SourceError::Invalid {
        file: file.to_owned(),
        message,
    };
    let mut source: Source = toml::from_str(text).map_err(|e| invalid(explain(text, &e)))?;
    check::check(&source).map_err(invalid)?;
    let digest = Sha256::digest(text);
    source.sha256 = digest.iter().map(|b| format!("{b:02x}")).collect();
    text.clone_into(&mut source.text);
    Ok(source)
}

/// Keeps a source file as it is now in `state_dir/sources`, by its SHA-256: a run names that, and people look at what it worked by after the
/// file was corrected.
pub(crate) fn keep(state: &StateDir, source: &Source) -> io::Result<()> {
    let folder = state.folder("sources").map_err(io::Error::other)?;
    let path = folder.join(format!("{}.toml", source.sha256));
    if path.exists() {
        return Ok(());
    }
    write_durably(&path, source.text.as_bytes())
}

/// The JSON Schema of source files, for editors: what the types say. [`parse`] checks more than that.
pub(crate) fn schema_text() -> String {
    let schema = schemars::schema_for!(Source);
    format!("{:#}\n", schema.as_value())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full_view() -> String {
        include_str!("../../sources/zhihui-full-view.toml").to_owned()
    }

    fn error(text: &str) -> String {
        parse("x.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn the_built_in_files_are_valid_and_named_after_their_task() {
        for (file, text) in BUILT_IN {
            let source = parse(file, text).unwrap();
            assert_eq!(format!("{}.toml", source.name), *file);
        }
    }

    #[test]
    fn the_schema_for_editors_knows_all_keys_and_refuses_others() {
        let schema: serde_json::Value = serde_json::from_str(&schema_text()).unwrap();
        assert_eq!(schema["additionalProperties"], false);
        for (file, text) in BUILT_IN {
            let table: toml::Table = toml::from_str(text).unwrap();
            for key in table.keys() {
                assert!(schema["properties"][key].is_object(), "{file}: {key}");
            }
        }
        let field = &schema["$defs"]["Field"];
        assert_eq!(field["additionalProperties"], false);
        assert_eq!(field["required"], serde_json::json!(["column", "type"]));
        assert!(
            schema["properties"]["schedule"]["description"]
                .as_str()
                .unwrap()
                .contains("cron")
        );
    }

    #[test]
    fn mistakes_are_named_with_key_and_line() {
        let text = full_view().replace("provider =", "provder =");
        assert!(
            error(&text).contains("unknown key \"provder\", line 6; did you mean \"provider\"?"),
            "{}",
            error(&text)
        );
        let text = full_view().replace("\"*/30 * * * *\"", "\"every half hour\"");
        assert!(error(&text).contains("is not a cron expression"));
        let text = full_view().replace("unique = [\"comm_code\", ", "unique = [\"com_code\", ");
        assert!(
            error(&text).contains("did you mean \"comm_code\"?"),
            "{}",
            error(&text)
        );
        let text = full_view().replace("records = ", "lists = []\n# ");
        assert!(error(&text).contains("needs one of records, [[answer.lists]]"));
        let text = full_view().replace("\"/result\"", "\"result\"");
        assert!(error(&text).contains("\"result\" in [answer] must begin with /"));
        let text = full_view().replace("type = \"number\"", "type = \"nubmer\"");
        assert!(error(&text).contains("nubmer"), "{}", error(&text));
    }
}
