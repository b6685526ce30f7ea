//! The configuration: one TOML file for all programs, documented key by key in `docs/configuration.md`.
//!
//! Looked for at `--config`, `$OA_CONFIG`, `./oa.toml`, `/etc/oa/oa.toml`, in this order. A `.env` beside it is read too,
//! because cron starts programs with an almost empty environment; a variable of the real environment wins. Unknown keys are
//! errors: a misspelt `retries` that is silently ignored is how a crawler ends up without any.

mod alert;
mod backup;
mod catch_up;
mod dotenv;
mod exec;
mod remember;
mod report;
mod routing;
mod values;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::NaiveTime;
use chrono_tz::Tz;
use serde::Deserialize;

use crate::base::mistakes::{explain, nearest};
use crate::base::secrets::Secret;
use crate::base::trust::{self, Content, TrustError};
use crate::base::units::{self, Bytes, ClockTime, Span};
use crate::journal::due::Scheduled;
use crate::model::retry::{Backoff, Policy};
pub use alert::{Alert, AlertService, Channel, ChannelKind, Mention, NotifySuccess, Success};
pub use backup::{Backup, BackupCopy, BackupKind, BackupSchedule, S3};
pub use catch_up::CatchUpRule;
pub use exec::Exec;
pub use report::{BasePath, Token, TokenHash};
pub use routing::{Hours, Person, Quiet, Rotation, Takes, fits};

/// The configuration could not be used. Always exit code 78.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file at any of the places.
    #[error(
        "no configuration found at {}; copy oa.example.toml to one of these places or name one with --config", .0.join(", ")
    )]
    Absent(Vec<String>),
    /// The file is there but cannot be read.
    #[error("could not read config {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is not what it should be; the message names key, line and remedy.
    #[error("could not read config {}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, where, and what to do.
        message: String,
    },
    /// A secret's reference leads nowhere.
    #[error("{setting} refers to {reference}, which {problem}")]
    Secret {
        /// The setting that holds the reference, for example `database.url`.
        setting: String,
        /// The reference, which is not secret itself.
        reference: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// An address cannot be one.
    #[error("{setting} is not valid: {problem}")]
    Address {
        /// The setting that holds it.
        setting: &'static str,
        /// What is wrong and what to do, with nothing of the address.
        problem: String,
    },
    /// A file is not used because of whose it is, or who may change or read it.
    #[error("refused {what}: {source}")]
    Untrusted {
        /// What it is.
        what: &'static str,
        /// Why not, and what to do.
        source: TrustError,
    },
    /// A setting that this command needs is not there.
    #[error("{0} is not set in {1}; see docs/configuration.md")]
    Missing(&'static str, String),
}

/// A reference to a secret: `env:NAME`, `file:PATH`, or (with a warning) the value itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum SecretRef {
    /// The environment variable of that name, or the line of that name in `.env`.
    Env(String),
    /// The content of that file without the final line break; relative to the configuration's folder.
    File(PathBuf),
    /// The value stands in the configuration itself.
    Literal(Secret),
}

impl From<String> for SecretRef {
    fn from(text: String) -> Self {
        if let Some(name) = text.strip_prefix("env:") {
            Self::Env(name.to_owned())
        } else if let Some(path) = text.strip_prefix("file:") {
            Self::File(PathBuf::from(path))
        } else {
            Self::Literal(Secret::new(text))
        }
    }
}

/// Language of texts for people: alerts, reports, the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Locale {
    /// Chinese, the default.
    #[default]
    Zh,
    /// English.
    En,
}

/// Everything the file may say. Defaults are those of `docs/configuration.md`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    #[serde(default = "default_timezone", deserialize_with = "units::timezone")]
    timezone: Tz,
    #[serde(default)]
    locale: Locale,
    #[serde(default = "default_state_dir")]
    state_dir: PathBuf,
    calendar: Option<PathBuf>,
    #[serde(default)]
    database: Database,
    #[serde(default)]
    spool: Spool,
    #[serde(default)]
    store: Store,
    #[serde(default)]
    crawl: Crawl,
    #[serde(default)]
    providers: BTreeMap<String, Provider>,
    #[serde(default)]
    exec: BTreeMap<String, Exec>,
    #[serde(default)]
    alert: Alert,
    #[serde(default)]
    report: Report,
    backup: Option<Backup>,
}

fn default_timezone() -> Tz {
    chrono_tz::Asia::Shanghai
}
fn default_state_dir() -> PathBuf {
    PathBuf::from("/var/lib/oa")
}

/// `[database]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// Connection URL or key/value string; `DATABASE_URL` wins over it.
    pub url: Option<SecretRef>,
    /// Longest wait for one host to answer.
    pub connect_timeout: Span,
    /// Longest time one statement of a short transaction may take.
    pub statement_timeout: Span,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: None,
            connect_timeout: Span::seconds(10),
            statement_timeout: Span::seconds(60),
        }
    }
}

/// `[spool]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spool {
    /// The spool refuses more than this.
    pub max_size: Bytes,
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            max_size: Bytes(1 << 30),
        }
    }
}

/// `[store]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// What is kept of rows that change.
    pub revisions: Revisions,
    /// Revisions are kept this long (`oa-crawl prune`); without it, for ever.
    pub keep_revisions: Option<Span>,
}

/// What goes into `oa.revisions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Revisions {
    /// The old rows, and the keys of new ones, without which no time could be shown. `"all"` means the same.
    #[default]
    #[serde(alias = "all")]
    Changes,
    /// Nothing.
    Off,
}

/// `[crawl]`: what holds for every source unless its own file says otherwise.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Crawl {
    /// Tries after the first one. Overrides the sources' own numbers when set.
    pub retries: Option<u32>,
    /// Wait between tries. Overrides the sources' own when set.
    pub retry_delay: Option<Span>,
    /// How the wait changes from try to try. Overrides the sources' own when set.
    pub retry_backoff: Option<Backoff>,
    /// Limit of one try as a whole. Overrides the sources' own when set.
    pub timeout: Option<Span>,
    /// Sources collected at the same time by one `oa-crawl run`.
    pub parallel: usize,
    /// Requests to one host at the same time by one `oa-crawl run`.
    pub per_host: usize,
    /// Tasks, and providers with all their tasks, that run by themselves (`run --due`, `run --all`). Everything else is off. `None`
    /// when the file does not say, as that of a version in which everything was on.
    pub enable: Option<Vec<String>>,
    /// Of versions in which everything was on: tasks that stay off. Read once more, and warned of.
    pub skip: Vec<String>,
    /// Which of the runs that were missed are made up for (`run --due`).
    pub catch_up: CatchUpRule,
    /// None that was due longer ago. Default: 24 hours for the latest, 31 days for all.
    pub catch_up_age: Option<Span>,
    /// No more than so many of one source.
    pub catch_up_limit: usize,
    /// Wait between two of them.
    pub catch_up_pause: Span,
    /// Sources that are due at the same time start within this time, each at its own moment (`run --due`).
    pub jitter: Span,
    /// Folder with source files that replace or add to the built-in ones.
    pub sources: Option<PathBuf>,
    /// Certificates of authorities that sites may have theirs from, besides the system's own.
    pub ca_file: Option<PathBuf>,
    /// Largest body that is accepted from a site.
    pub max_body: Bytes,
    /// Answers are kept this long in the raw archive (`oa-crawl prune`), unless their source says otherwise.
    pub raw_keep: Span,
    /// A larger raw archive is reported (`oa-crawl prune`).
    pub raw_limit: Bytes,
}

impl Default for Crawl {
    fn default() -> Self {
        Self {
            retries: None,
            retry_delay: None,
            retry_backoff: None,
            timeout: None,
            parallel: 4,
            per_host: 2,
            enable: None,
            skip: Vec::new(),
            catch_up: CatchUpRule::default(),
            catch_up_age: None,
            catch_up_limit: 31,
            catch_up_pause: Span::seconds(2),
            jitter: Span(Duration::ZERO),
            sources: None,
            ca_file: None,
            max_body: Bytes(64 << 20),
            raw_keep: Span(Duration::from_secs(400 * 24 * 3600)),
            raw_limit: Bytes(20 << 30),
        }
    }
}

/// `[providers.NAME]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Address that replaces the site's own.
    pub base: Option<String>,
}

/// `[report]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Report {
    /// When the daily report is due, in the configuration's zone.
    pub daily_at: ClockTime,
    /// The address of the page (`oa-report serve`) as people reach it, without `/admin/`. Alerts end with a link to it.
    pub url: Option<String>,
    /// Where `serve` listens.
    pub listen: SocketAddr,
    /// Who may ask: name and hash of each token, after `read-only` where it may only look. Without any, only this machine.
    pub tokens: BTreeMap<String, Token>,
    /// The path below which a reverse proxy serves it.
    pub base_path: BasePath,
    /// Addresses of reverse proxies, whose `X-Forwarded-For` and `X-Forwarded-Prefix` are believed.
    pub proxies: Vec<IpAddr>,
    /// Whether `/badge/TASK.svg` shows everybody how a task is.
    pub badges: bool,
    /// Whether `/status` shows everybody how the sources are, without details.
    pub status_page: bool,
    /// The address under which a role that may only read connects. Default: the database's.
    pub database_url: Option<SecretRef>,
    /// With this secret messages carry links and buttons that acknowledge, silence, run again and show the run; `serve` needs the same. Links need
    /// `url`.
    pub link_key: Option<SecretRef>,
}

impl Report {
    fn check(&self, has_buttons: bool) -> Result<(), String> {
        let web = |u: &String| u.starts_with("https://") || u.starts_with("http://");
        match &self.url {
            Some(url) if !web(url) || url.contains(char::is_whitespace) => Err(
                "url in [report] is no address; write the page's, for example \"https://oa.example.com\"".to_owned(),
            ),
            None if self.link_key.is_some() && !has_buttons => Err(
                "link_key in [report] needs url there: the address of the page as people reach it, which the links begin with".to_owned(),
            ),
            _ => Ok(()),
        }
    }
}

impl Default for Report {
    fn default() -> Self {
        Self {
            url: None,
            daily_at: ClockTime(NaiveTime::from_hms_opt(9, 0, 0).unwrap_or_default()),
            listen: SocketAddr::from(([127, 0, 0, 1], 8686)),
            tokens: BTreeMap::new(),
            base_path: BasePath::default(),
            proxies: Vec::new(),
            badges: false,
            status_page: false,
            database_url: None,
            link_key: None,
        }
    }
}

/// The names of the six sites and of the exchanges, in the order of the documentation.
pub const PROVIDERS: [&str; 12] = [
    "zhihui",
    "fangqi",
    "jiaoyikecha",
    "openvlab",
    "rongda",
    "rdqh",
    "shfe",
    "ine",
    "dce",
    "czce",
    "cffex",
    "gfex",
];

/// A configuration that was read and checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// The zone of schedules and of texts for people.
    pub timezone: Tz,
    /// Language of texts for people.
    pub locale: Locale,
    /// Where the programs keep spool, locks and archives.
    pub state_dir: PathBuf,
    /// An operator's own trading calendar.
    pub calendar: Option<PathBuf>,
    /// Connection to PostgreSQL.
    pub database: Database,
    /// The local queue.
    pub spool: Spool,
    /// How rows are stored.
    pub store: Store,
    /// Defaults of the crawlers.
    pub crawl: Crawl,
    /// Addresses that replace the sites' own.
    pub providers: BTreeMap<String, Provider>,
    /// Programs, by the name of their task.
    pub exec: BTreeMap<String, Exec>,
    /// Alerts and their channels.
    pub alert: Alert,
    /// Reports.
    pub report: Report,
    /// The backup's settings.
    pub backup: Option<Backup>,
    env: HashMap<String, String>,
}

impl Config {
    /// What the configuration says when it runs, besides sources: by program.
    #[must_use]
    pub fn scheduled(&self) -> Vec<(&'static str, Vec<Scheduled>)> {
        let exec = self.exec.iter();
        let exec = exec.filter_map(|(task, exec)| exec.scheduled(task));
        let mut all = vec![("oa-crawl", exec.collect())];
        if let Some(backup) = &self.backup {
            all.push(("oa-backup", backup.schedule.backups()));
            all.push(("oa-restore", backup.schedule.drills()));
        }
        all.retain(|(_, tasks): &(_, Vec<Scheduled>)| !tasks.is_empty());
        all
    }

    /// Finds, reads and checks the configuration.
    ///
    /// # Errors
    /// When there is none, or it is wrong. The message says where and what to do.
    pub fn load(named: Option<&Path>) -> Result<Self, ConfigError> {
        let from_env = std::env::var_os("OA_CONFIG")
            .filter(|v| !v.is_empty())
            .map(PathBuf::from);
        let path = match named.map(Path::to_owned).or(from_env) {
            Some(path) => path,
            None => {
                let places = [PathBuf::from("oa.toml"), PathBuf::from("/etc/oa/oa.toml")];
                match places.iter().find(|p| p.exists()) {
                    Some(path) => path.clone(),
                    None => {
                        let shown = places.iter().map(|p| p.display().to_string()).collect();
                        return Err(ConfigError::Absent(shown));
                    }
                }
            }
        };
        let text = ConfigError::read("config", &path, Content::Settings)?;
        Self::parse(&path, &text)
    }

    /// Reads and checks a configuration's text; `path` is named in errors and its folder is where `.env` and relative
    /// paths are looked for.
    ///
    /// # Errors
    /// When the text is not valid.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let invalid = |message| ConfigError::Invalid {
            path: path.to_owned(),
            message,
        };
        let file: ConfigFile = toml::from_str(text).map_err(|e| invalid(explain(text, &e)))?;
        for name in file.providers.keys() {
            if !PROVIDERS.contains(&name.as_str()) {
                let hint = nearest(name, PROVIDERS.iter().copied());
                return Err(invalid(format!(
                    "unknown provider \"{name}\" in [providers]{hint}"
                )));
            }
        }
        for (task, exec) in &file.exec {
            exec.check(task).map_err(invalid)?;
        }
        let mut names = std::collections::HashSet::new();
        for channel in &file.alert.channels {
            if !names.insert(channel.name.as_str()) {
                return Err(invalid(format!(
                    "two [[alert.channels]] are named \"{}\"; names must differ",
                    channel.name
                )));
            }
        }
        file.alert.check().map_err(invalid)?;
        let has_buttons = file.alert.channels.iter().any(|c| c.kind.has_buttons());
        file.report.check(has_buttons).map_err(invalid)?;
        if let Some(backup) = &file.backup {
            backup.schedule.check().map_err(invalid)?;
        }
        let default = Policy::DEFAULT;
        Policy {
            retries: file.crawl.retries.unwrap_or(default.retries),
            delay: file.crawl.retry_delay.map_or(default.delay, |s| s.0),
            timeout: file.crawl.timeout.map_or(default.timeout, |s| s.0),
            backoff: file.crawl.retry_backoff.unwrap_or(default.backoff),
        }
        .check()
        .map_err(|e| invalid(format!("in [crawl], {e}")))?;
        for (name, number) in [
            ("parallel", file.crawl.parallel),
            ("per_host", file.crawl.per_host),
            ("catch_up_limit", file.crawl.catch_up_limit),
        ] {
            if number == 0 {
                return Err(invalid(format!(
                    "{name} in [crawl] is 0; it must be at least 1"
                )));
            }
        }
        let folder = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        values::check(&file).map_err(invalid)?;
        let within = |p: PathBuf| if p.is_absolute() { p } else { folder.join(p) };
        let mut crawl = file.crawl;
        crawl.sources = crawl.sources.map(within);
        crawl.ca_file = crawl.ca_file.map(within);
        Ok(Self {
            path: path.to_owned(),
            timezone: file.timezone,
            locale: file.locale,
            state_dir: within(file.state_dir),
            calendar: file.calendar.map(within),
            database: file.database,
            spool: file.spool,
            store: file.store,
            crawl,
            providers: file.providers,
            exec: file.exec,
            alert: file.alert,
            report: file.report,
            backup: file.backup.map(|b| b.within(folder)),
            env: dotenv::read(&folder.join(".env"))?,
        })
    }

    /// `[backup]`, for a program that cannot do without.
    ///
    /// # Errors
    /// When it is absent.
    pub fn backup_settings(&self) -> Result<&Backup, ConfigError> {
        self.backup
            .as_ref()
            .ok_or_else(|| ConfigError::Missing("[backup]", self.path.display().to_string()))
    }

    /// A variable of the environment, or of the `.env` beside the configuration as it is now: a program that runs for months uses a
    /// password that was changed meanwhile. Empty counts as absent.
    #[must_use]
    pub fn env(&self, name: &str) -> Option<String> {
        let of_process = std::env::var(name).ok().filter(|v| !v.is_empty());
        let of_file = || {
            // One that is just being written is as it was.
            let now = dotenv::read(&self.path.with_file_name(".env")).ok();
            let now = now.and_then(|now| now.get(name).cloned());
            now.or_else(|| self.env.get(name).cloned())
        };
        of_process.or_else(of_file).filter(|v| !v.is_empty())
    }

    /// The value behind a reference. `setting` is named in the error.
    ///
    /// # Errors
    /// When the variable is not set, or the file cannot be read or is empty.
    pub fn secret(&self, reference: &SecretRef, setting: &str) -> Result<Secret, ConfigError> {
        let fail = |reference: String, problem: String| ConfigError::Secret {
            setting: setting.to_owned(),
            reference,
            problem,
        };
        match reference {
            SecretRef::Literal(secret) => Ok(secret.clone()),
            SecretRef::Env(name) => self.env(name).map(Secret::new).ok_or_else(|| {
                fail(
                    format!("env:{name}"),
                    format!(
                        "is not set; export {name} or write it to .env beside {}",
                        self.path.display()
                    ),
                )
            }),
            SecretRef::File(path) => {
                let folder = self.path.parent().unwrap_or(Path::new("."));
                let path = folder.join(path);
                let shown = format!("file:{}", path.display());
                let text = trust::read(&path, Content::Secrets)
                    .map_err(|e| fail(shown.clone(), format!("cannot be read: {e}")))?;
                let value = text.trim_end_matches(['\r', '\n']);
                if value.is_empty() {
                    return Err(fail(shown, "is empty; write the secret into it".to_owned()));
                }
                Ok(Secret::new(value.to_owned()))
            }
        }
    }

    /// Where PostgreSQL is: `DATABASE_URL`, else `database.url`.
    ///
    /// # Errors
    /// When neither is set, or the reference leads nowhere.
    pub fn database_url(&self) -> Result<Secret, ConfigError> {
        if let Some(url) = self.env("DATABASE_URL") {
            return Ok(Secret::new(url));
        }
        match &self.database.url {
            Some(reference) => self.secret(reference, "database.url"),
            None => Err(ConfigError::Missing(
                "database.url (or DATABASE_URL)",
                self.path.display().to_string(),
            )),
        }
    }

    /// Sentences about things that work but should be mended: secrets written into the file.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut out = Vec::new();
        if !self.crawl.skip.is_empty() {
            out.push(format!(
                "skip in [crawl] of {} will be refused by the next version: sources are off unless enable names them; remove the line",
                self.path.display()
            ));
        }
        let mut check = |reference: Option<&SecretRef>, setting: String| {
            if let Some(SecretRef::Literal(value)) = reference
                && redact_shows_a_secret(value)
            {
                out.push(format!(
                    "{setting} holds a secret in {}; move it to env:NAME or file:PATH",
                    self.path.display()
                ));
            }
        };
        check(self.database.url.as_ref(), "database.url".to_owned());
        check(
            self.report.database_url.as_ref(),
            "report.database_url".to_owned(),
        );
        for channel in &self.alert.channels {
            check(
                channel.url.as_ref(),
                format!("alert.channels.{}.url", channel.name),
            );
            check(
                channel.secret.as_ref(),
                format!("alert.channels.{}.secret", channel.name),
            );
        }
        out
    }

    /// Whether rows that change go into `oa.revisions`.
    #[must_use]
    pub fn keeps_revisions(&self) -> bool {
        self.store.revisions == Revisions::Changes
    }

    /// The wait before an incident that goes on is reported again.
    #[must_use]
    pub fn alert_repeat(&self) -> Duration {
        self.alert.repeat.0
    }
}

/// A literal without `://` is a bare secret; one with it is an address that may hold one.
fn redact_shows_a_secret(value: &Secret) -> bool {
    let text = value.expose();
    !text.contains("://")
        || text.split_once("://").is_some_and(|(_, rest)| {
            let before_path = rest.split(['/', '?']).next().unwrap_or_default();
            before_path
                .split_once('@')
                .is_some_and(|(user, _)| user.contains(':'))
                || rest.contains("/hook/")
                || ["access_token=", "key=", "token="]
                    .iter()
                    .any(|p| rest.contains(p))
        })
}

#[cfg(test)]
mod tests;
