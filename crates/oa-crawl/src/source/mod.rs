//! Source files: one TOML file says where a source is, how its answer is read, what its fields are and where they go.
//!
//! The files in `sources/` are part of the program; files of a folder named by `--sources` or `[crawl] sources` replace those
//! of the same name or add to them, so that an operator corrects an address or a field without a new build.

mod day;
mod definition;
mod folder;
mod placeholders;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use oa_core::cli::Failure;
use oa_core::config::{Config, Crawl, SecretRef, explain, nearest};
use oa_core::exit;
use oa_core::retry::Policy;
use oa_core::schedule::Schedule;
use oa_core::service;
use oa_core::trust::TrustError;

use crate::extract::table::selector;
pub(crate) use definition::{
    Answer, BrowserRules, Each, End, FetchKind, Field, FieldType, Image, List, Login, OnBad,
    Paging, Source, Step, Table,
};
pub(crate) use folder::{Broken, FOLDER};

/// A source file could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// It, or its folder, cannot be read.
    #[error("could not read {}: {source}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A source file says what is run and asked: it must be this user's.
    #[error("refused source file: {0}")]
    Untrusted(TrustError),
    /// Its text is not what it should be.
    #[error("could not use source file {file}: {message}")]
    Invalid {
        /// The file.
        file: String,
        /// What is wrong, where, and what to do.
        message: String,
    },
    /// The source's file could not be used.
    #[error("{0}")]
    Broken(String),
    /// No source has that name.
    #[error("there is no source \"{name}\"{hint}")]
    Unknown {
        /// The name that was asked for.
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
    "fangqi-morning",
    "fangqi-night",
    "jiaoyikecha-blueprint",
    "jiaoyikecha-positions",
    "openvlab-flow",
    "rdqh-indicators",
    "rongda-positions",
    "rongda-structure",
    "zhihui-full-view",
    "zhihui-reports",
    "zhihui-varieties",
];

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        let code = match error {
            SourceError::Unknown { .. } => exit::USAGE,
            _ => exit::CONFIG,
        };
        Self::new(code, error)
    }
}

/// All sources, by name.
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
                        let place = config.path.display();
                        tracing::warn!("{key} in [crawl] of {place}: {e}");
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

    /// What cannot be used, of those that are not left out.
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

/// Reads and checks one file.
/// The error names line and key.
pub(crate) fn parse(file: &str, text: &str) -> Result<Source, SourceError> {
    let invalid = |message: String| SourceError::Invalid {
        file: file.to_owned(),
        message,
    };
    let source: Source = toml::from_str(text).map_err(|e| invalid(explain(text, &e)))?;
    check(&source).map_err(invalid)?;
    Ok(source)
}

/// The JSON Schema of source files, for editors: what the types say. [`parse`] checks more than that.
pub(crate) fn schema_text() -> String {
    let schema = schemars::schema_for!(Source);
    format!("{:#}\n", schema.as_value())
}

/// What the types cannot say.
fn check(source: &Source) -> Result<(), String> {
    if !folder::is_name(&source.name) || source.name == FOLDER {
        return Err(format!(
            "name \"{}\" must consist of a-z, 0-9 and -, and be none of the program's own",
            source.name
        ));
    }
    source.retry.check()?;
    if source.alert_after == 0 {
        return Err("alert_after is 0; 1 tells every first failure".to_owned());
    }
    Schedule::parse(&source.schedule, chrono_tz_shanghai()).map_err(|e| e.to_string())?;
    check_fetch(source)?;
    placeholders::check(source)?;
    source.check_shows()?;
    for (name, share) in [
        ("max_rejected", source.max_rejected),
        ("min_of_usual", source.min_of_usual),
    ] {
        if !(0.0..=1.0).contains(&share) {
            return Err(format!(
                "{name} is {share}, which is no share between 0 and 1"
            ));
        }
    }
    check_answer(source)?;
    let columns: Vec<&str> = source.fields.iter().map(|f| f.column.as_str()).collect();
    for (i, field) in source.fields.iter().enumerate() {
        if columns[..i].contains(&field.column.as_str()) {
            return Err(format!(
                "column \"{}\" stands twice in [[fields]]",
                field.column
            ));
        }
        if field.from.is_some() == field.value.is_some() {
            return Err(format!(
                "field \"{}\" needs either from or value",
                field.column
            ));
        }
        if let Some(Err(e)) = field.pattern.as_deref().map(regex::Regex::new) {
            return Err(format!("pattern of field \"{}\": {e}", field.column));
        }
        if field.otherwise.is_some() && field.map.is_empty() {
            return Err(format!(
                "field \"{}\" has otherwise but no map",
                field.column
            ));
        }
    }
    let known = |column: &str, place: &str| {
        if columns.contains(&column) {
            Ok(())
        } else {
            Err(format!(
                "{place} names column \"{column}\", which no [[fields]] fills{}",
                nearest(column, columns.iter().copied())
            ))
        }
    };
    for column in &source.store.unique {
        known(column, "unique in [store]")?;
        let field = source.fields.iter().find(|f| f.column == *column);
        if field.is_some_and(|f| !f.required && f.value.is_none()) {
            return Err(format!(
                "column \"{column}\" is part of unique in [store], so its field must be required"
            ));
        }
    }
    for sum in &source.sums {
        for column in sum.parts.iter().chain([&sum.total]) {
            known(column, "[[sums]]")?;
        }
    }
    if let Some(freshness) = &source.freshness {
        known(&freshness.column, "[freshness]")?;
        let field = source.fields.iter().find(|f| f.column == freshness.column);
        if field.is_some_and(|f| f.from.is_none()) {
            return Err(format!(
                "column \"{}\" in [freshness] is filled by the source file itself, which proves nothing; name one that comes from the records",
                freshness.column
            ));
        }
    }
    if source.store.unique.is_empty() {
        return Err(
            "unique in [store] is empty; without a natural key records would be stored twice"
                .to_owned(),
        );
    }
    if source.store.key.is_empty() && service::natural_key(&source.store.table).is_none() {
        return Err(format!(
            "table \"{}\" is not one of the service's; give its unique index as key in [store]",
            source.store.table
        ));
    }
    Ok(())
}

fn check_fetch(source: &Source) -> Result<(), String> {
    let fetch = &source.fetch;
    if fetch.kind == FetchKind::Command {
        if fetch.command.is_empty() {
            return Err(
                "[fetch] with kind = \"command\" needs command = [\"program\", …]".to_owned(),
            );
        }
        let of_http = [fetch.base.as_str(), &fetch.path];
        if of_http.iter().any(|t| !t.is_empty())
            || !fetch.form.is_empty()
            || source.paging.is_some()
        {
            return Err(
                "base, path, form and [paging] are for sites, not for kind = \"command\""
                    .to_owned(),
            );
        }
        return Ok(());
    }
    if !fetch.command.is_empty() {
        return Err("command in [fetch] needs kind = \"command\"".to_owned());
    }
    if !fetch.base.starts_with("http://") && !fetch.base.starts_with("https://") {
        return Err(format!(
            "base \"{}\" in [fetch] must begin with http:// or https://",
            fetch.base
        ));
    }
    check_browser(source)?;
    if let Some(image) = &source.image
        && let Some(fallback) = &image.fallback
    {
        selector(&fallback.img).map_err(|(_, e)| format!("fallback in [image] has {e}"))?;
    }
    if source
        .each
        .as_ref()
        .is_some_and(|each| each.values.is_empty())
    {
        return Err("values in [each] is empty".to_owned());
    }
    Ok(())
}

fn check_browser(source: &Source) -> Result<(), String> {
    let is_browser = source.fetch.kind == FetchKind::Browser;
    let rules = match (&source.browser, is_browser) {
        (None, false) => return Ok(()),
        (Some(_), false) => return Err("[browser] needs kind = \"browser\" in [fetch]".to_owned()),
        (None, true) => return Err("kind = \"browser\" needs [browser] with its steps".to_owned()),
        (Some(rules), true) => rules,
    };
    if source.paging.is_some()
        || !source.fetch.form.is_empty()
        || !source.fetch.secret_headers.is_empty()
        || !source.fetch.headers.is_empty()
    {
        return Err(
            "[paging], form, headers and secret_headers are not for kind = \"browser\"".to_owned(),
        );
    }
    let login = rules.login.iter().flat_map(|l| &l.steps);
    for (number, step) in rules.steps.iter().chain(login).enumerate() {
        check_step(step).map_err(|e| format!("step {} of [browser]{e}", number + 1))?;
    }
    let taking = rules.steps.iter().filter(|s| s.takes()).count();
    if taking != 1 || !rules.steps.last().is_some_and(Step::takes) {
        return Err("the last step of [browser], and no other, must take something: take_html or take_response".to_owned());
    }
    Ok(())
}

fn check_step(step: &Step) -> Result<(), String> {
    if step.actions() != 1 {
        return Err(format!(
            " must name one action, it names {}",
            step.actions()
        ));
    }
    if step.or_html_after.is_some() && step.take_response.is_none() {
        return Err(": or_html_after belongs to take_response".to_owned());
    }
    let texts = [step.value.is_some(), step.secret.is_some()];
    let texts = texts.iter().filter(|t| **t).count();
    if texts != usize::from(step.fill.is_some()) {
        return Err(": fill needs value or secret, and nothing else does".to_owned());
    }
    for css in [&step.wait_for, &step.fill, &step.click]
        .into_iter()
        .flatten()
    {
        selector(css).map_err(|(_, e)| format!(" has {e}"))?;
    }
    Ok(())
}

impl Source {
    /// Secrets that inputs of the browser are filled with, by the inputs' selectors. Only a login needs them, and cookies may do
    /// without one.
    pub(crate) fn input_secrets(&self) -> Vec<(String, &SecretRef)> {
        let rules = self.browser.iter();
        let steps = rules.flat_map(|r| r.login.iter().flat_map(|l| &l.steps).chain(&r.steps));
        steps
            .filter_map(|s| Some((s.fill.clone()?, s.secret.as_ref()?)))
            .collect()
    }
}

/// Where the records are must be said once, and so that it can be followed.
fn check_answer(source: &Source) -> Result<(), String> {
    let rules = &source.answer;
    let ways = [
        rules.records.is_some(),
        !rules.lists.is_empty(),
        rules.table.is_some(),
    ];
    let steps = source.browser.iter().flat_map(|b| &b.steps);
    let or_html = steps.filter(|s| s.or_html_after.is_some()).count() > 0;
    let said = ways.iter().filter(|w| **w).count();
    if or_html {
        return match ways {
            [true, false, true] => Ok(()),
            _ => Err("or_html_after in [browser] needs records in [answer] for the answer, and [answer.table] for the page".to_owned()),
        };
    }
    if source.fetch.kind == FetchKind::Command {
        return match said {
            0 => Ok(()),
            _ => Err(
                "[answer] is for sites; a command prints its records, one JSON object a line"
                    .to_owned(),
            ),
        };
    }
    if said != 1 {
        return Err(
            "[answer] needs one of records, [[answer.lists]] and [answer.table]".to_owned(),
        );
    }
    if let Some(table) = &rules.table {
        for css in [&table.rows, &table.cells] {
            selector(css).map_err(|(_, e)| format!("[answer.table] has {e}"))?;
        }
        if rules.ok.is_some() || rules.error.is_some() || rules.day.is_some() {
            return Err(
                "ok, error and day in [answer] are for JSON, not for [answer.table]".to_owned(),
            );
        }
    }
    if rules.total.is_some() && rules.records.is_none() {
        return Err(
            "total in [answer] belongs to records; give each of [[answer.lists]] its own"
                .to_owned(),
        );
    }
    if source.paging.is_some() && rules.records.is_none() {
        return Err("[paging] needs records in [answer]".to_owned());
    }
    if let Some(paging) = &source.paging
        && (paging.page_size == 0 || paging.max_pages == 0)
    {
        return Err("page_size and max_pages in [paging] must be at least 1".to_owned());
    }
    if rules.equals.is_some() && rules.ok.is_none() {
        return Err("equals in [answer] belongs to ok, which is not there".to_owned());
    }
    let places = [
        &rules.ok,
        &rules.error,
        &rules.day,
        &rules.records,
        &rules.total,
    ]
    .into_iter()
    .flatten()
    .chain(
        rules
            .lists
            .iter()
            .flat_map(|l| [Some(&l.records), l.total.as_ref()])
            .flatten(),
    );
    for place in places {
        if !place.is_empty() && !place.starts_with('/') {
            return Err(format!(
                "\"{place}\" in [answer] must begin with /, as JSON pointers do"
            ));
        }
    }
    Ok(())
}

fn chrono_tz_shanghai() -> chrono_tz::Tz {
    chrono_tz::Asia::Shanghai
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
