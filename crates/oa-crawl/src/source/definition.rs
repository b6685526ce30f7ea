//! What a source file may say.

use std::collections::BTreeMap;

use oa_core::app::config::SecretRef;
use oa_core::base::units::Span;
use oa_core::model::retry::{Backoff, Policy};
use oa_core::schedule::{Days, Session};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::day::Shows;

/// One source.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    /// Runs by itself: `enable` in `[crawl]` names it. A source file cannot say so.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) enabled: bool,
    /// SHA-256 of its file: what a run worked by.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) sha256: String,
    /// The task's fixed name.
    pub(crate) name: String,
    /// Its title for people.
    pub(crate) title: String,
    /// The site; `[providers.NAME] base` of the configuration replaces its address.
    pub(crate) provider: String,
    /// Five-field cron expression in the configuration's time zone.
    pub(crate) schedule: String,
    /// The days on which it runs: "all", "trading", or "night" for days with a night session.
    #[serde(default)]
    pub(crate) days: Days,
    /// Runs only within these sessions.
    #[serde(default)]
    pub(crate) sessions: Vec<Session>,
    /// Which days the site can show: "any day" when the request names the day, "today", or "latest" for what was published last until
    /// the schedule's next due time. Without it, the request decides: "any day" when `{date}` is in it, else "today".
    pub(crate) shows: Option<Shows>,
    /// Where the data come from.
    pub(crate) fetch: Fetch,
    /// Numbered pages.
    pub(crate) paging: Option<Paging>,
    /// What the browser does, for `kind = "browser"`.
    pub(crate) browser: Option<BrowserRules>,
    /// One request for each of several values.
    pub(crate) each: Option<Each>,
    /// How an answer is read.
    #[serde(default)]
    pub(crate) answer: Answer,
    /// Records to keep; the others are skipped and counted in a finding.
    #[serde(default)]
    pub(crate) keep: Vec<Keep>,
    /// An image that belongs to each record.
    pub(crate) image: Option<Image>,
    /// Where rows go.
    pub(crate) store: Store,
    /// What a row consists of.
    pub(crate) fields: Vec<Field>,
    /// Numbers that must add up.
    #[serde(default)]
    pub(crate) sums: Vec<Sum>,
    /// How to see whether the data are of the day that is collected.
    pub(crate) freshness: Option<Freshness>,
    /// Fewer records than this make the run partial.
    #[serde(default)]
    pub(crate) min_records: u64,
    /// Fewer than this share (0 to 1) of the records that such days usually have by this time of day make the run partial; 0 turns
    /// the comparison off.
    #[serde(default = "default_min_of_usual")]
    pub(crate) min_of_usual: f64,
    /// So many failed runs in a row before somebody is notified; more than 1 is for sources that run every minute.
    #[serde(default = "default_alert_after")]
    pub(crate) alert_after: u32,
    /// An empty answer is a result, not a failure.
    #[serde(default)]
    pub(crate) allow_empty: bool,
    /// More rejected records than this share (0 to 1) make the run partial.
    #[serde(default = "default_max_rejected")]
    pub(crate) max_rejected: f64,
    /// Answers are kept this long in the raw archive, instead of the configuration's `raw_keep`.
    #[schemars(with = "Option<String>")]
    pub(crate) raw_keep: Option<Span>,
    /// Retries and time limits.
    #[serde(default = "default_policy", deserialize_with = "policy")]
    #[schemars(with = "Option<Retry>")]
    pub(crate) retry: Policy,
}

fn default_min_of_usual() -> f64 {
    0.5
}

fn default_alert_after() -> u32 {
    1
}

fn default_max_rejected() -> f64 {
    0.1
}

fn default_policy() -> Policy {
    Policy::DEFAULT
}

/// `retry`: retries and time limits. What is not given is the configuration's, or the default.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Retry {
    /// Retries after the first attempt.
    retries: Option<u32>,
    /// Wait between two attempts, such as "60s".
    #[schemars(with = "Option<String>")]
    delay: Option<Span>,
    /// Limit of one attempt as a whole, such as "5m".
    #[schemars(with = "Option<String>")]
    timeout: Option<Span>,
    /// How the wait changes from attempt to attempt.
    backoff: Option<Backoff>,
}

fn policy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Policy, D::Error> {
    let written = Retry::deserialize(deserializer)?;
    let default = Policy::DEFAULT;
    Ok(Policy {
        retries: written.retries.unwrap_or(default.retries),
        delay: written.delay.map_or(default.delay, |s| s.0),
        timeout: written.timeout.map_or(default.timeout, |s| s.0),
        backoff: written.backoff.unwrap_or(default.backoff),
    })
}

/// `[fetch]`. In `path`, `query`, `form` and `command`, `{date}` stands for the day that is collected, and `{NAME}` for the present
/// value of `[each]`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fetch {
    /// How it is fetched.
    pub(crate) kind: FetchKind,
    /// Scheme and host.
    #[serde(default)]
    pub(crate) base: String,
    /// Path of the address.
    #[serde(default)]
    pub(crate) path: String,
    /// Parameters of a form; with them the request is a POST.
    #[serde(default)]
    pub(crate) form: BTreeMap<String, String>,
    /// The program and its arguments, for `kind = "command"`: it prints one JSON object a line.
    #[serde(default)]
    pub(crate) command: Vec<String>,
    /// Query parameters.
    #[serde(default)]
    pub(crate) query: BTreeMap<String, String>,
    /// Request headers.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// Least time between the starts of two requests to the same host.
    #[schemars(with = "Option<String>")]
    pub(crate) pause: Option<Span>,
    /// Sends the `ETag` or `Last-Modified` of the previous answer, and reads that one again when the site says that nothing has
    /// changed.
    #[serde(default)]
    pub(crate) conditional: bool,
    /// Request headers whose values are secrets, by reference.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub(crate) secret_headers: BTreeMap<String, SecretRef>,
}

/// See [`Fetch::kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FetchKind {
    /// Plain HTTP requests.
    Http,
    /// The system's Chromium.
    Browser,
    /// A program of this machine.
    Command,
}

/// `[browser]`: what Chromium does at the address of `[fetch]`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BrowserRules {
    /// One after the other; the last one takes the answer.
    pub(crate) steps: Vec<Step>,
    /// What to do when the page asks for a login, or does not load.
    pub(crate) login: Option<Login>,
}

/// `[browser.login]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    /// Path of the login page.
    pub(crate) path: String,
    /// What to do there.
    pub(crate) steps: Vec<Step>,
    /// Part of the address by which success is known.
    pub(crate) done: String,
}

/// One step of the browser: one of the actions.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Step {
    /// Opens another path of the site.
    pub(crate) goto: Option<String>,
    /// Waits until an element is there: a CSS selector.
    pub(crate) wait_for: Option<String>,
    /// Waits until the address contains this.
    pub(crate) wait_for_url: Option<String>,
    /// Types into an input, by its CSS selector: `value`, or what `secret` refers to.
    pub(crate) fill: Option<String>,
    /// The text for `fill`.
    pub(crate) value: Option<String>,
    /// A secret for `fill`, by reference.
    #[schemars(with = "Option<String>")]
    pub(crate) secret: Option<SecretRef>,
    /// Clicks an element, by its CSS selector.
    pub(crate) click: Option<String>,
    /// Waits this long.
    #[schemars(with = "Option<String>")]
    pub(crate) pause: Option<Span>,
    /// Takes the page as it is now.
    pub(crate) take_html: bool,
    /// Takes the answer that a script of the page got from an address that contains this.
    pub(crate) take_response: Option<String>,
    /// When no such answer came within this time: takes the page as it is then, for `[answer.table]`.
    #[schemars(with = "Option<String>")]
    pub(crate) or_html_after: Option<Span>,
}

impl Step {
    /// How many actions it names; one is right.
    pub(crate) fn actions(&self) -> usize {
        [
            self.goto.is_some(),
            self.wait_for.is_some(),
            self.wait_for_url.is_some(),
            self.fill.is_some(),
            self.click.is_some(),
            self.pause.is_some(),
            self.takes(),
        ]
        .iter()
        .filter(|a| **a)
        .count()
    }

    /// Whether it takes an answer.
    pub(crate) fn takes(&self) -> bool {
        self.take_html || self.take_response.is_some()
    }
}

/// `[each]`: one request for each value, whose records get the value as a field.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Each {
    /// Name of the field, and of the placeholder in `[fetch]`.
    pub(crate) name: String,
    /// The values.
    pub(crate) values: Vec<String>,
    /// Wait between two requests.
    #[schemars(with = "Option<String>")]
    pub(crate) pause: Option<Span>,
}

/// `[[keep]]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Keep {
    /// Field of the record.
    pub(crate) field: String,
    /// It must contain one of these texts.
    pub(crate) contains: Vec<String>,
}

/// `[image]`: downloaded, checked and kept as a file that is named by its content; the record gets its path as the field
/// `local_path`, and what `post` printed as `post`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Image {
    /// Field of the record with the image's address.
    pub(crate) from: String,
    /// A page and the CSS selector of an `img` on it, for when that field is empty.
    pub(crate) fallback: Option<ImageFallback>,
    /// Smallest image that is accepted, in bytes.
    #[serde(default)]
    pub(crate) min_bytes: u64,
    /// A program that gets the file's path as its last argument and prints JSON.
    #[serde(default)]
    pub(crate) post: Vec<String>,
}

/// See [`Image::fallback`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageFallback {
    /// Path of the page.
    pub(crate) path: String,
    /// CSS selector.
    pub(crate) img: String,
}

/// `[paging]`: numbered pages.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Paging {
    /// Query parameter with the page's number, from 1.
    pub(crate) page: String,
    /// Query parameter with the page's size.
    pub(crate) size: String,
    /// Records to ask for per page.
    pub(crate) page_size: u32,
    /// Field that identifies a record, so that one that moved to the next page while paging counts once.
    pub(crate) id: String,
    /// How the last page is known where `total` in `[answer]` does not say how many records there are: "empty page", or "short page"
    /// for one with fewer records than `page_size`. Without either, an empty page is the end.
    pub(crate) end: Option<End>,
    /// At most this many pages; a run that needs more is partial.
    #[serde(default = "default_max_pages")]
    pub(crate) max_pages: u32,
}

/// How the end of the pages is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum End {
    /// By a page without records.
    #[serde(rename = "empty page")]
    EmptyPage,
    /// By a page with fewer records than were asked for.
    #[serde(rename = "short page")]
    ShortPage,
}

fn default_max_pages() -> u32 {
    500
}

/// `[answer]`: where things are in a JSON answer, as JSON pointers (see [`crate::extract::json`]).
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Answer {
    /// Must be `true` there, or what `equals` says.
    pub(crate) ok: Option<String>,
    /// What `ok` must be, if not `true`.
    pub(crate) equals: Option<Value>,
    /// The site's own error text.
    pub(crate) error: Option<String>,
    /// Words in it that mean: log in again.
    pub(crate) auth_words: Vec<String>,
    /// The day that the answer is of, which must be the day that is collected.
    pub(crate) day: Option<String>,
    /// The list of records.
    pub(crate) records: Option<String>,
    /// How many records there are in all.
    pub(crate) total: Option<String>,
    /// Instead of `records` and `total`: several lists in one answer.
    pub(crate) lists: Vec<List>,
    /// Instead of `records`: a table of an HTML page.
    pub(crate) table: Option<Table>,
}

/// `[answer.table]`: an HTML table (see [`crate::extract::table`]).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    /// CSS selector of its rows.
    pub(crate) rows: String,
    /// CSS selector of the cells of a row.
    #[serde(default = "default_cells")]
    pub(crate) cells: String,
    /// Names for the cells, in their order: the fields of a record.
    pub(crate) columns: Vec<String>,
    /// Headings that the page must have in this order; without them a changed order of columns goes unnoticed.
    #[serde(default)]
    pub(crate) headings: Vec<String>,
}

fn default_cells() -> String {
    "td".to_owned()
}

/// `[[answer.lists]]`: one of several lists.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    /// JSON pointer of the list.
    pub(crate) records: String,
    /// How many records it must have.
    pub(crate) total: Option<String>,
    /// Fields that each of its records gets: what only the list says.
    #[serde(default)]
    pub(crate) set: BTreeMap<String, String>,
}

/// `[store]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Store {
    /// The table.
    pub(crate) table: String,
    /// Its schema.
    #[serde(default = "default_schema")]
    pub(crate) schema: String,
    /// Columns that identify a record: its natural key.
    pub(crate) unique: Vec<String>,
    /// SQL expressions of the table's unique index, where the service's own do not say it.
    #[serde(default)]
    pub(crate) key: Vec<String>,
}

fn default_schema() -> String {
    "public".to_owned()
}

/// `[[fields]]`: one column.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Field {
    /// The column it fills.
    pub(crate) column: String,
    /// The record's field it comes from.
    pub(crate) from: Option<String>,
    /// Or a fixed text, in which `{date}` stands for the day that is collected and `{minute}` for the minute (`YYYY-MM-DD HH:MM:00`)
    /// in which the data came, in the service's zone.
    pub(crate) value: Option<String>,
    /// What it is.
    #[serde(rename = "type")]
    pub(crate) of_type: FieldType,
    /// A record without it is rejected.
    #[serde(default)]
    pub(crate) required: bool,
    /// Converted to upper case.
    #[serde(default)]
    pub(crate) upper: bool,
    /// Longest text, in characters.
    pub(crate) max_length: Option<usize>,
    /// Smallest number.
    pub(crate) min: Option<f64>,
    /// Largest number.
    pub(crate) max: Option<f64>,
    /// The only values that are right, as texts.
    #[serde(default)]
    pub(crate) one_of: Vec<String>,
    /// A regular expression (of Rust's `regex`) that the text must match somewhere; `^…$` for the whole of it.
    pub(crate) pattern: Option<String>,
    /// What becomes of a record that breaks a rule of this field.
    #[serde(default)]
    pub(crate) on_bad: OnBad,
    /// Values that are replaced.
    #[serde(default)]
    pub(crate) map: BTreeMap<String, String>,
    /// What becomes of a value that `map` does not name; without it the record is rejected.
    pub(crate) otherwise: Option<String>,
}

/// Types of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FieldType {
    /// Text.
    Text,
    /// A whole number of 64 bits.
    Integer,
    /// A number.
    Number,
    /// A day, `YYYY-MM-DD`; a time after it is cut off.
    Date,
    /// A local time, `YYYY-MM-DD HH:MM[:SS]`, as it is: naive, in the service's zone.
    DateTime,
    /// The code of a variety, from a contract (`rb2601C3400`), a name (`螺纹`) or the code itself.
    Variety,
}

/// `[[sums]]`: parts that must add up to a total, in columns.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sum {
    /// The parts.
    pub(crate) parts: Vec<String>,
    /// Their sum.
    pub(crate) total: String,
    /// What becomes of a record for which they do not.
    #[serde(default)]
    pub(crate) on_bad: OnBad,
}

/// What becomes of a record that breaks a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnBad {
    /// It is not stored but kept with the reason; too many of them (`max_rejected`) make the run partial.
    #[default]
    Reject,
    /// The same, and already the first one makes the run partial.
    Partial,
    /// Nothing of the run is stored.
    Fail,
}

/// `[freshness]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Freshness {
    /// A date column; when no row has the day that is collected, the data are stale.
    pub(crate) column: String,
}
