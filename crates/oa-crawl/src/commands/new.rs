//! `oa-crawl new`: asks an address once, recognises the form of the answer, and proposes a source file that reads it.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::{NaiveDate, Utc};
use clap::Args as ClapArgs;
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::Format;
use oa_core::base::exact;
use oa_core::base::secrets::is_secret_parameter;
use oa_core::base::text::beginning;
use oa_core::service;
use regex::Regex;
use serde_json::Value;
use url::Url;

use crate::collect::extract;
use crate::extract::{field as value_of, propose};
use crate::fetch::gate::Gate;
use crate::fetch::{Client, Network, Request, Response, body, check_status};
use crate::progress;
use crate::source::{FieldType, Source, parse};
use crate::validate::{CollectionTime, columns, reads_as, validate};

/// How many rows are shown.
const SHOWN: usize = 5;
/// Types are decided by so many records.
const LOOKED_AT: usize = 500;

/// Ask an address once and propose a source file for what it answers
///
/// The file is printed, with five rows as it would read them; nothing is stored. Correct what it could not know: names, key, schedule.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  oa-crawl new 'https://example.com/api/daily?date=2025-12-01' --name my-quotes -o my-quotes.toml\n  oa-crawl try my-quotes.toml"
)]
pub(crate) struct Args {
    /// The address, with a day in it where the site takes one
    #[arg(value_name = "URL")]
    url: String,
    /// The task's name: a-z, 0-9 and -
    #[arg(long, default_value = "my-source")]
    name: String,
    /// The table that takes the rows
    #[arg(long, default_value = "my_table")]
    table: String,
    /// Write the file here instead of printing it; it must not exist
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, config: Option<&Config>) -> Result<u8, Failure> {
    let fail = |what: String| Failure::new(exit::FAILED, anyhow::anyhow!(what));
    let usage = |what: String| Failure::new(exit::USAGE, anyhow::anyhow!(what));
    let url =
        Url::parse(&args.url).map_err(|e| usage(format!("{} is no address: {e}", args.url)))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(usage(format!("{url} must begin with http:// or https://")));
    }
    let shown = progress::show(Format::Table, false);
    let work = progress::work(url.host_str().unwrap_or_default());
    let response = ask(&url, config)?;
    drop((work, shown));
    check_status(url.as_str(), &response).map_err(|e| fail(e.error.message))?;
    let text = body::text(url.as_str(), &response, None).ok();
    let answer = propose::answer(&response.body, text.as_ref().map(|(text, _)| text.as_str()));
    let answer = answer.map_err(|e| fail(format!("{e}: {url}")))?;
    let (request, day, secrets) = request(&url, &args.name);
    let date = day.unwrap_or_else(|| Utc::now().with_timezone(&service::TIMEZONE).date_naive());
    let answer = answer.replace(&date.format("%Y%m%d").to_string(), "{date:%Y%m%d}");
    let head = format!(
        "# Proposed by oa-crawl new; correct names, types, key and schedule, then: oa-crawl try FILE\nname = {}\ntitle = {}\nprovider = \"own\"\nschedule = \"30 15 * * *\"\ndays = \"trading\"\n\n{request}\n{answer}\n",
        propose::quoted(&args.name),
        propose::quoted(&args.name),
    );
    // A first reading, by a field that is in no record, only to see the records.
    let draft = format!(
        "{head}{}[[fields]]\ncolumn = \"x\"\nfrom = \"x\"\ntype = \"text\"\nrequired = true\n",
        store(args, "x")
    );
    let draft = parse("the proposal", &draft).map_err(|e| fail(e.to_string()))?;
    let records =
        extract(&draft, date, url.as_str(), &response).map_err(|e| fail(e.error.message))?;
    let records = records.records;
    let (fields, key) = fields(&records);
    let key = key.ok_or_else(|| fail(format!("the answer has no records with fields: {url}")))?;
    let file = format!("{head}{}{}", store(args, &key), fields.join("\n"));
    let source = parse("the proposal", &file).map_err(|e| fail(e.to_string()))?;
    let shown = format!("{file}{}", notes(&source, date, &records));
    for name in &secrets {
        tracing::warn!(
            "put the value into .env beside the configuration, or into the environment: {name}=…"
        );
    }
    match &args.output {
        None => cli::print(&shown).map_err(anyhow::Error::from)?,
        Some(path) => {
            let file = OpenOptions::new().write(true).create_new(true).open(path);
            let written =
                file.and_then(|mut f| f.write_all(shown.as_bytes()).and_then(|()| f.sync_all()));
            written.map_err(|e| {
                usage(format!(
                    "could not write {}: {e}; name a new file",
                    path.display()
                ))
            })?;
            let next = format!(
                "wrote {}; look through it, then: oa-crawl try {}\n",
                path.display(),
                path.display()
            );
            cli::print(&next).map_err(anyhow::Error::from)?;
        }
    }
    Ok(exit::OK)
}

fn ask(url: &Url, config: Option<&Config>) -> Result<Response, Failure> {
    const LIMIT: Duration = Duration::from_secs(60);
    let network = Network::load(config.and_then(|c| c.crawl.ca_file.as_deref()));
    let network = network.map_err(|e| Failure::new(exit::CONFIG, anyhow::anyhow!(e)))?;
    let max_body = config.map_or(oa_core::app::config::Crawl::default().max_body.0, |c| {
        c.crawl.max_body.0
    });
    let client = Client::new(max_body, Gate::new(1), url.as_str(), &network);
    let request = Request {
        url: url.to_string(),
        ..Request::default()
    };
    let response = client.send(&request, Instant::now() + LIMIT);
    response.map_err(|e| Failure::new(exit::FAILED, anyhow::anyhow!(e.error.message)))
}

/// `[fetch]`, the day that the address names, and the variables for secrets in it: the file refers to them.
fn request(url: &Url, task: &str) -> (String, Option<NaiveDate>, Vec<String>) {
    let variable = |name: &str| {
        let text = format!("{task}_{name}").to_ascii_uppercase();
        text.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
    };
    let keys = url.query_pairs().map(|(key, _)| key.into_owned());
    let secret: Vec<String> = keys.filter(|key| is_secret_parameter(key)).collect();
    let mut url = url.clone();
    if !secret.is_empty() {
        let open: Vec<(String, String)> = url
            .query_pairs()
            .filter(|(key, _)| !is_secret_parameter(key))
            .map(|(key, value)| (key.into_owned(), value.into_owned()))
            .collect();
        url.set_query(None);
        if !open.is_empty() {
            url.query_pairs_mut().extend_pairs(open);
        }
    }
    let mut day = None;
    let mut named = |text: &str| -> String {
        for (pattern, form, name) in [
            (r"20\d\d-\d\d-\d\d", "%Y-%m-%d", "{date}"),
            (r"20\d{6}", "%Y%m%d", "{date:%Y%m%d}"),
        ] {
            let found = Regex::new(pattern)
                .ok()
                .and_then(|p| Some(p.find(text)?.as_str().to_owned()));
            let read = found.and_then(|f| Some((NaiveDate::parse_from_str(&f, form).ok()?, f)));
            if let Some((date, found)) = read {
                day = Some(date);
                return text.replace(&found, name);
            }
        }
        text.to_owned()
    };
    let path = named(url.path());
    let pairs: Vec<String> = url
        .query_pairs()
        .map(|(key, value)| {
            format!(
                "{} = {}",
                propose::quoted(&key),
                propose::quoted(&named(&value))
            )
        })
        .collect();
    let mut keys: Vec<String> = url.query_pairs().map(|(key, _)| key.into_owned()).collect();
    keys.sort_unstable();
    let is_repeated = keys.windows(2).any(|two| two[0] == two[1]);
    // A name has one value in the file.
    let (path, query) = match url.query() {
        Some(query) if is_repeated => (format!("{path}?{}", named(query)), String::new()),
        _ if pairs.is_empty() => (path, String::new()),
        _ => (path, format!("query = {{ {} }}\n", pairs.join(", "))),
    };
    let references: Vec<String> = secret
        .iter()
        .map(|key| {
            let reference = format!("env:{}", variable(key));
            format!("{} = {}", propose::quoted(key), propose::quoted(&reference))
        })
        .collect();
    let by_reference = match references.is_empty() {
        true => String::new(),
        false => format!("secret_query = {{ {} }}\n", references.join(", ")),
    };
    let text = format!(
        "[fetch]\nkind = \"http\"\nbase = {}\npath = {}\n{query}{by_reference}",
        propose::quoted(&url.origin().ascii_serialization()),
        propose::quoted(&path)
    );
    let variables = secret.iter().map(|key| variable(key)).collect();
    (text, day, variables)
}

fn store(args: &Args, key: &str) -> String {
    let (table, key) = (propose::quoted(&args.table), propose::quoted(key));
    format!("[store]\ntable = {table}\nunique = [{key}]\nkey = [{key}]\n\n")
}

/// `[[fields]]` for what the records have, and the column that tells them apart best.
fn fields(records: &[Value]) -> (Vec<String>, Option<String>) {
    let records = &records[..records.len().min(LOOKED_AT)];
    let Some(first) = records.iter().find(|r| r.is_object()) else {
        return (Vec::new(), None);
    };
    let mut fields = Vec::new();
    let mut names: HashSet<String> = HashSet::new();
    let mut key: Option<((usize, bool), String)> = None;
    let all = paths(first, "", 0);
    for (number, from) in all.iter().enumerate() {
        let values: Vec<&Value> = records.iter().filter_map(|r| value_of(r, from)).collect();
        let mut column = propose::name(from.trim_start_matches('/'), number);
        while !names.insert(column.clone()) {
            column.push_str("_2");
        }
        let (of_type, more) = type_of(from, &values);
        let different: HashSet<String> = values
            .iter()
            .filter(|v| !is_absent(v))
            .map(|v| exact::to_text(v))
            .collect();
        // Of equal ones the first that is no count; a price tells records apart only by chance.
        let good = (different.len(), of_type != "integer");
        if of_type != "number" && key.as_ref().is_none_or(|(best, _)| good > *best) {
            key = Some((good, column.clone()));
        }
        fields.push((column, from, of_type, more));
    }
    let key = key
        .map(|(_, column)| column)
        .or_else(|| fields.first().map(|f| f.0.clone()));
    let write = |(column, from, of_type, more): (String, &String, &str, String)| {
        let required = if Some(&column) == key.as_ref() {
            "required = true\n"
        } else {
            ""
        };
        format!(
            "[[fields]]\ncolumn = {}\nfrom = {}\ntype = \"{of_type}\"\n{more}{required}",
            propose::quoted(&column),
            propose::quoted(from)
        )
    };
    (fields.into_iter().map(write).collect(), key)
}

/// The record's fields, those inside others by pointers.
fn paths(value: &Value, at: &str, depth: u32) -> Vec<String> {
    const DEEPEST: u32 = 3;
    let Value::Object(fields) = value else {
        return Vec::new();
    };
    let inner = fields.iter().flat_map(|(name, value)| {
        let escaped = name.replace('~', "~0").replace('/', "~1");
        match value {
            Value::Object(_) if depth < DEEPEST => {
                paths(value, &format!("{at}/{escaped}"), depth + 1)
            }
            Value::Object(_) | Value::Array(_) => Vec::new(),
            _ if at.is_empty() && !name.starts_with('/') => vec![name.clone()],
            _ => vec![format!("{at}/{escaped}")],
        }
    });
    inner.collect()
}

/// What stands for nothing at most sites.
const NOTHING: [&str; 3] = ["-", "--", "—"];

fn is_absent(value: &Value) -> bool {
    value.is_null()
        || exact::text(value).is_some_and(|t| t.trim().is_empty() || NOTHING.contains(&t.trim()))
}

/// What names of times since 1970 have in them; the same digits under another name may be a count.
const TIMES: [&str; 5] = ["time", "date", "stamp", "时间", "日期"];

/// The unit in which a field of such a name counts from 1970, by its values.
fn epoch_of(name: &str, present: &[&&Value]) -> Option<&'static str> {
    let name = name.to_lowercase();
    let years = 946_684_800..4_102_444_800; // 2000 to 2099
    let all = |unit: i64| {
        let whole = |v: &&&Value| exact::whole(&propose::cell(v)).map(|n| n / unit);
        present
            .iter()
            .all(|v| whole(v).is_some_and(|n| years.contains(&n)))
    };
    let units = [("s", 1), ("ms", 1000)];
    let is_time = !present.is_empty() && TIMES.iter().any(|word| name.contains(word));
    let found = units.into_iter().find(|(_, unit)| is_time && all(*unit));
    found.map(|(epoch, _)| epoch)
}

fn type_of(name: &str, values: &[&Value]) -> (&'static str, String) {
    let present: Vec<&&Value> = values.iter().filter(|v| !is_absent(v)).collect();
    if let Some(epoch) = epoch_of(name, &present) {
        return ("datetime", format!("epoch = \"{epoch}\"\n"));
    }
    let all =
        |of_type: FieldType| !present.is_empty() && present.iter().all(|v| reads_as(of_type, v));
    // A code such as 000123 is no number.
    let code = |v: &&&Value| {
        exact::text(v).is_some_and(|t| {
            t.len() > 1 && t.starts_with('0') && t.bytes().all(|b| b.is_ascii_digit())
        })
    };
    let of_type = match () {
        () if all(FieldType::Date) => match present
            .iter()
            .any(|v| exact::text(v).is_some_and(|t| t.contains(':')))
        {
            true if all(FieldType::DateTime) => "datetime",
            _ => "date",
        },
        () if present.iter().any(code) => "text",
        () if all(FieldType::Integer) => "integer",
        () if all(FieldType::Number) => "number",
        () => "text",
    };
    let texts = values.iter().filter_map(|v| exact::text(v).map(str::trim));
    let mut nothing: Vec<&str> = texts.filter(|t| NOTHING.contains(t)).collect();
    nothing.sort_unstable();
    nothing.dedup();
    let quoted: Vec<String> = nothing.iter().map(|t| propose::quoted(t)).collect();
    let more = match quoted.is_empty() || of_type == "text" {
        true => String::new(),
        false => format!("null = [{}]\n", quoted.join(", ")),
    };
    (of_type, more)
}

/// Names of fields that PostgreSQL takes as names of columns only between quotes.
const RESERVED: [&str; 22] = [
    "all", "any", "array", "asc", "case", "check", "column", "default", "desc", "distinct", "end",
    "from", "group", "limit", "offset", "order", "select", "table", "to", "user", "when", "where",
];

fn in_sql(column: &str) -> String {
    match RESERVED.contains(&column) {
        true => format!("\"{column}\""),
        false => column.to_owned(),
    }
}

/// The table that it needs, and the first rows, as comments.
fn notes(source: &Source, date: NaiveDate, records: &[Value]) -> String {
    let records = records.to_vec().into();
    let done = validate(source, CollectionTime::now(date), &records).unwrap_or_default();
    let sql = |of_type: FieldType| match of_type {
        FieldType::Text | FieldType::Variety => "text",
        FieldType::Integer => "bigint",
        FieldType::Number => "numeric",
        FieldType::Date => "date",
        FieldType::DateTime => "timestamp",
    };
    let columns_sql: Vec<String> = source
        .fields
        .iter()
        .map(|f| format!("{} {}", in_sql(&f.column), sql(f.of_type)))
        .collect();
    let unique = source.store.unique.iter().map(|column| in_sql(column));
    let unique: Vec<String> = unique.collect();
    let mut text = format!(
        "\n# CREATE TABLE public.{} ({}, UNIQUE ({}));\n# {} records: {} rows, {} rejected. The first rows ({}):\n",
        source.store.table,
        columns_sql.join(", "),
        unique.join(", "),
        records.len(),
        done.rows.len(),
        done.rejects.len(),
        columns(source).join(" | ")
    );
    for row in done.rows.iter().take(SHOWN).flatten() {
        let cells: Vec<String> = row
            .iter()
            .map(|v| exact::text(v).map_or_else(|| exact::to_text(v), str::to_owned))
            .collect();
        let line = beginning(&cells.join(" | "), 300);
        let _ = writeln!(
            text,
            "#   {}",
            line.escape_debug()
                .to_string()
                .replace("\\\"", "\"")
                .replace("\\'", "'")
        );
    }
    for reject in done.rejects.iter().take(1) {
        let field = reject.field.as_deref().unwrap_or_default();
        let reason = beginning(&reject.reason, 200);
        let _ = writeln!(text, "# rejected: {field} {}", reason.escape_debug());
    }
    text
}
