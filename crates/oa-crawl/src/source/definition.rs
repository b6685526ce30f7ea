//! The keys of a source file.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use oa_core::app::config::SecretRef;
use oa_core::base::units::Span;
use oa_core::model::retry::{Backoff, Policy};
use oa_core::schedule::{Again, CatchUp, Days, Session};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Shows;
use super::access::{HttpLogin, Sign};
use super::forms::{Delimited, Exclude, Names, NotYet, Rows, Sheet, Text, Xml};
use super::paging::Paging;
use super::placeholders::names;

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
    /// Its file.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) text: String,
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
    /// Which of the runs that were missed are made up for, instead of what the configuration says: "latest", or "all": one for each day
    /// that the site can show.
    pub(crate) catch_up: Option<CatchUp>,
    /// None that was due longer ago, such as "31d".
    #[schemars(with = "Option<String>")]
    pub(crate) catch_up_age: Option<Span>,
    /// No more than so many.
    pub(crate) catch_up_limit: Option<NonZeroUsize>,
    /// Wait between two of them, such as "5s".
    #[schemars(with = "Option<String>")]
    pub(crate) catch_up_pause: Option<Span>,
    /// Which days the site can show: "any day" when the request names the day, "today", or "latest" for what was published last until
    /// the schedule's next due time. Without it, the request decides: "any day" when `{date}` is in it, else "today".
    pub(crate) shows: Option<Shows>,
    /// Collects each day once more when all of it is there: "next day 00:30", or "+30m" after the day's last due time.
    pub(crate) again: Option<Again>,
    /// Where the data come from.
    pub(crate) fetch: Fetch,
    /// A login by plain requests.
    pub(crate) login: Option<HttpLogin>,
    /// A signature of each request.
    pub(crate) sign: Option<Sign>,
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
    /// Records that are none, such as totals; they are skipped and counted in a finding.
    #[serde(default)]
    pub(crate) exclude: Vec<Exclude>,
    /// An image that belongs to each record.
    pub(crate) image: Option<Image>,
    /// Where rows go.
    pub(crate) store: Store,
    /// What another table of the newest values gets besides.
    pub(crate) latest: Option<Latest>,
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
    /// That a trading day has the very records of the day before is normal. Without it such a day is stale: retried, and then partial.
    #[serde(default)]
    pub(crate) may_repeat: bool,
    /// More rejected records than this share (0 to 1) make the run partial.
    #[serde(default = "default_max_rejected")]
    pub(crate) max_rejected: f64,
    /// Answers are kept this long in the raw archive, instead of the configuration's `raw_keep`.
    #[schemars(with = "Option<String>")]
    pub(crate) raw_keep: Option<Span>,
    /// Patience with what is not there yet, such as a day's file before the exchange has made it.
    pub(crate) not_yet: Option<NotYet>,
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

/// `[fetch]`. In `path`, `query`, `form`, `json`, `headers` and `command`, `{date}` stands for the day that is collected,
/// `{month_start}` for the first of its month, `{previous_trading_day}` for the trading day before it, and `{NAME}` for the present
/// value of `[each]`. Days are written as 2025-12-01, or in the form after a colon: `{date:%Y%m%d}`, `{date:epoch}`, `{date:epoch_ms}`.
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
    /// A JSON body; with it the request is a POST.
    pub(crate) json: Option<Value>,
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
    /// Other origins (`https://files.example.com`) to which the site may redirect. Headers, secrets and cookies stay behind.
    #[serde(default)]
    pub(crate) redirects: Vec<String>,
    /// Request headers whose values are secrets, by reference.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub(crate) secret_headers: BTreeMap<String, SecretRef>,
    /// The same for parameters of the query, which are then in no error and in no archive.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub(crate) secret_query: BTreeMap<String, SecretRef>,
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

/// `[latest]`: of the rows of each key the one that counts most goes into a table of newest values besides, such as `contract_infos`. A
/// row of a later day stays there.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Latest {
    /// The table.
    pub(crate) table: String,
    /// The column by which there is one row there; the rows have it too.
    pub(crate) key: String,
    /// Of several rows the one with the largest value in this column.
    pub(crate) largest: String,
    /// The column that gets the day that is collected, at 15:00.
    pub(crate) at: String,
    /// Columns there, and the column of the rows that each is filled from: one, or the first of several that is not null.
    pub(crate) columns: BTreeMap<String, Names>,
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
    /// Where the answer says of which day it is, which must be the day that is collected: a JSON pointer, or one of
    /// `{ selector = "…" }`, `{ header = "…" }` and `{ field = "…" }`.
    pub(crate) day: Option<DayPlace>,
    /// By what it is known that nothing is missing where there are neither `total` nor `[paging]`: "one answer", when the site gives all
    /// there is in each answer.
    pub(crate) end: Option<AnswerEnd>,
    /// The list of records.
    pub(crate) records: Option<String>,
    /// How many records there are in all.
    pub(crate) total: Option<String>,
    /// Instead of `records` and `total`: several lists in one answer.
    pub(crate) lists: Vec<List>,
    /// Instead of `records`: a table of an HTML page.
    pub(crate) table: Option<Table>,
    /// The character set, whatever the site says: "gbk", "utf-8", "big5" and the like. Without it the site's own, or what fits.
    pub(crate) charset: Option<String>,
    /// The answer is a zip file; this is the name of its member, in which `{date}` stands for the day and `*` for anything.
    pub(crate) member: Option<String>,
    /// The JSON is inside a script: the name of the function it is given to, or of the variable that gets it.
    pub(crate) script: Option<String>,
    /// Names for the values of records that are lists; "" for one that is not needed.
    pub(crate) columns: Vec<String>,
    /// `records` is an object whose keys name its records: the field that gets the key. In a list the key comes first.
    pub(crate) key_as: Option<String>,
    /// A regular expression with one group: the day in the text of an answer that is not JSON, which must be the day that is collected.
    pub(crate) day_pattern: Option<String>,
    /// Instead of `records`: text in columns, such as CSV.
    pub(crate) delimited: Option<Delimited>,
    /// Instead of `records`: a spreadsheet.
    pub(crate) sheet: Option<Sheet>,
    /// Instead of `records`: XML.
    pub(crate) xml: Option<Xml>,
    /// Instead of `records`: any text.
    pub(crate) text: Option<Text>,
    /// How rows of cells become records, for `delimited`, `sheet` and `table`.
    pub(crate) rows: Option<Rows>,
}

impl Answer {
    /// The field in which each record says its day.
    pub(crate) fn day_field(&self) -> Option<&str> {
        match &self.day {
            Some(DayPlace::Elsewhere(DayElsewhere::Field(field))) => Some(field),
            _ => None,
        }
    }
}

/// See [`Answer::day`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "day must be a JSON pointer, or one of { selector = \"…\" }, { header = \"…\" } and { field = \"…\" }"
)]
pub(crate) enum DayPlace {
    /// A JSON pointer.
    Pointer(String),
    /// Another place.
    Elsewhere(DayElsewhere),
}

/// See [`Answer::day`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum DayElsewhere {
    /// The first element of a page for this CSS selector; its text may say more than the day.
    Selector(String),
    /// A header of the answer, such as `last-modified`.
    Header(String),
    /// A field of each record; records of another day are rejected.
    Field(String),
}

/// See [`Answer::end`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum AnswerEnd {
    /// Each answer holds all there is.
    #[serde(rename = "one answer")]
    OneAnswer,
}

/// `[answer.table]`: an HTML table (see [`crate::extract::table`]).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    /// CSS selector of its rows.
    pub(crate) rows: String,
    /// CSS selector of the cells of a row.
    pub(crate) cells: Option<String>,
    /// Names for the cells, in their order: the fields of a record. Without it, `[answer.rows]` says which cells are what.
    #[serde(default)]
    pub(crate) columns: Vec<String>,
    /// Headings that the page must have in this order; without them a changed order of columns goes unnoticed.
    #[serde(default)]
    pub(crate) headings: Vec<String>,
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
    /// Or a text made of several of the record's fields, between braces: "{product}{month}". It is absent when one of them is.
    pub(crate) compose: Option<String>,
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
    /// Texts that mean that there is no value, such as "-" and "--".
    #[serde(default)]
    pub(crate) null: Vec<String>,
    /// A regular expression that takes a part of the text: its group, or all that matches. A record without a match is rejected.
    pub(crate) extract: Option<String>,
    /// A date or time comes as seconds ("s") or milliseconds ("ms") since 1970.
    pub(crate) epoch: Option<Epoch>,
    /// Values that are replaced.
    #[serde(default)]
    pub(crate) map: BTreeMap<String, String>,
    /// What becomes of a value that `map` does not name; without it the record is rejected.
    pub(crate) otherwise: Option<String>,
}

impl Field {
    /// A field of a type, without any rule.
    pub(crate) fn plain(of_type: FieldType) -> Self {
        Self {
            column: String::new(),
            from: None,
            value: None,
            compose: None,
            of_type,
            required: false,
            upper: false,
            max_length: None,
            min: None,
            max: None,
            one_of: Vec::new(),
            pattern: None,
            on_bad: OnBad::default(),
            null: Vec::new(),
            extract: None,
            epoch: None,
            map: BTreeMap::new(),
            otherwise: None,
        }
    }

    /// The record's fields that it is made of.
    pub(crate) fn record_fields(&self) -> Vec<&str> {
        let composed = self.compose.iter().flat_map(|text| names(text));
        self.from.as_deref().into_iter().chain(composed).collect()
    }
}

/// See [`Field::epoch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum Epoch {
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
}

/// Types of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FieldType {
    /// Text.
    Text,
    /// A whole number of 64 bits.
    Integer,
    /// A number, also as `1,234.5`, `12.5%`, `(1,234)` for a negative one, `1.2万` and `3亿`.
    Number,
    /// A day: 2025-12-01, 20251201, 2025/12/1, 2025年12月1日; a time after it is cut off.
    Date,
    /// A local time, such as 2025-12-01 08:50, 2025-12-01 08:50:07 or 20251201085007, as it is: naive, in the service's zone. One with
    /// an offset is put into that zone.
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
