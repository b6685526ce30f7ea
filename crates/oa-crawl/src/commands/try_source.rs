//! `oa-crawl try`: a source file under construction, one request at a time: fetched, extracted, typed, rejected. Nothing is
//! stored and no database is needed.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use chrono::{NaiveDate, Utc};
use clap::Args as ClapArgs;
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::Format;
use oa_core::base::exact;
use oa_core::base::pile::Pile;
use oa_core::base::state_dir::StateDir;
use oa_core::base::text::{beginning, escaped, printable};
use oa_core::base::trust;
use oa_core::schedule::Calendar;
use oa_core::service;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::args::parse_date;
use crate::collect::{
    Collected, Context, Folders, Placeholders, Position, collect, extract, fetch,
};
use crate::extract::Extracted;
use crate::fetch::body;
use crate::fetch::gate::Gate;
use crate::fetch::{Client, Network, Response, check_status};
use crate::program::environment::Programs;
use crate::progress;
use crate::source::{FetchKind, Source, parse};
use crate::validate::{CollectionTime, Validated, columns, validate};
use crate::verdict::{Before, assess};

/// How many records of each kind are shown.
const SHOWN: usize = 3;
/// Longer texts are cut, in characters.
const LONGEST: usize = 300;

/// Try a source file that you are writing: what is fetched, extracted, typed and rejected. Stores nothing
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  oa-crawl try my-source.toml\n  oa-crawl try my-source.toml --url 'https://example.com/api?day=2025-12-01'\n  oa-crawl try my-source.toml --body answer.json --format json"
)]
pub(crate) struct Args {
    /// The source file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Ask this address instead of the file's
    #[arg(long)]
    url: Option<String>,
    /// Read this file as the answer instead of asking the site
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    body: Option<PathBuf>,
    /// The day to collect [default: today]
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = parse_date)]
    date: Option<NaiveDate>,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Default)]
struct TryReport {
    fetched: Option<(String, u16, Option<String>, usize)>,
    extracted: Option<Extracted>,
    validated: Option<Validated>,
    problem: Option<String>,
    /// What a run would note besides.
    findings: Vec<String>,
    /// A run would store what came, and say that it is not all.
    partial: bool,
}

/// Tries the file and shows how far it gets.
/// Exits 78 when the file is wrong, 1 when the answer is not what it describes.
pub(crate) fn run(args: &Args, config: Option<&Config>) -> Result<u8, Failure> {
    let text = trust::read_named_text(&args.file, trust::LARGEST).map_err(|e| {
        Failure::new(
            exit::USAGE,
            anyhow::anyhow!("could not read {}: {e}", args.file.display()),
        )
    })?;
    let mut source = parse(&args.file.display().to_string(), &text)
        .map_err(|e| Failure::new(exit::CONFIG, e))?;
    let base = config.and_then(|c| c.providers.get(&source.provider)?.base.clone());
    source.fetch.base = base.unwrap_or(source.fetch.base);
    if let Some(url) = &args.url {
        source.fetch.base.clone_from(url);
        source.fetch.path.clear();
        source.fetch.query.clear();
    }
    let zone = config.map_or(service::TIMEZONE, |c| c.timezone);
    let calendar = Calendar::load(config.and_then(|c| c.calendar.as_deref()))
        .map_err(|e| Failure::new(exit::CONFIG, e))?;
    let now = Utc::now().with_timezone(&zone);
    let present = source.present_day(now.date_naive(), &calendar);
    let date = args.date.unwrap_or(present);
    if args.body.is_none()
        && args.url.is_none()
        && let Some(reason) = source.cannot_show(date, now, &calendar)
    {
        return Err(Failure::new(exit::REFUSED, anyhow::anyhow!(reason)));
    }
    let shown = progress::show(args.format, false);
    let work = progress::work(&source.name);
    let report = try_it(config, &source, date, args)?;
    drop((work, shown));
    let ok = report.problem.is_none();
    let text = match args.format {
        Format::Json => format!("{}\n", as_json(&source, &report)),
        // Of a site, nothing may steer the terminal.
        _ => printable(&as_text(&source, &report)),
    };
    cli::print(&text).map_err(anyhow::Error::from)?;
    Ok(if ok { exit::OK } else { exit::FAILED })
}

fn try_it(
    config: Option<&Config>,
    source: &Source,
    date: NaiveDate,
    args: &Args,
) -> Result<TryReport, Failure> {
    let mut report = TryReport::default();
    let (request_line, response) = match answer(config, source, date, args)? {
        Ok(answer) => answer,
        Err(problem) => {
            report.problem = Some(problem);
            return Ok(report);
        }
    };
    report.fetched = Some((
        request_line.clone(),
        response.status,
        response.content_type.clone(),
        response.body.len(),
    ));
    let extracted = check_status(&request_line, &response)
        .and_then(|()| extract(source, date, &request_line, &response));
    match extracted {
        Err(e) => {
            let start = body::readable(&response, source.answer.charset.as_deref());
            report.problem = Some(format!(
                "{}; it begins: {}",
                e.error.message,
                cut(start.trim())
            ));
        }
        Ok(extracted) => {
            report.extracted = Some(extracted.clone());
            match whole(config, source, date, args, extracted)? {
                Err(problem) => report.problem = Some(problem),
                Ok(collected) => end_as_a_run(source, date, &collected, &mut report)?,
            }
        }
    }
    Ok(report)
}

/// All that a run would collect: the other pages and values, and the images.
fn whole(
    config: Option<&Config>,
    source: &Source,
    date: NaiveDate,
    args: &Args,
    mut first: Extracted,
) -> Result<Result<Collected, String>, Failure> {
    if args.body.is_some() {
        if source.paging.is_some() || source.each.is_some() {
            // The file is one answer of several.
            first.total = None;
        }
        return Ok(Ok(
            Collected::of(source, first).map_err(anyhow::Error::from)?
        ));
    }
    if source.paging.is_none() && source.each.is_none() && source.image.is_none() {
        return Ok(Ok(
            Collected::of(source, first).map_err(anyhow::Error::from)?
        ));
    }
    let (context, _fresh) = context(config, source, date)?;
    Ok(collect(&context).map_err(|e| e.error.message))
}

fn end_as_a_run(
    source: &Source,
    date: NaiveDate,
    collected: &Collected,
    report: &mut TryReport,
) -> Result<(), Failure> {
    let validated = validate(source, CollectionTime::now(date), &collected.records)
        .map_err(anyhow::Error::from)?;
    let verdict = assess(source, date, &Before::default(), collected, &validated);
    report.partial = verdict.storable && !validated.rows.is_empty();
    let plain = problem(source, collected, &validated);
    report.problem = plain.or(verdict.error.map(|e| e.message));
    report.findings.clone_from(&collected.findings);
    report.findings.extend(validated.findings.iter().cloned());
    report.findings.extend(validated.other_days.clone());
    report.validated = Some(validated);
    Ok(())
}

type FetchResult = Result<(String, Response), String>;

/// The outer error is one of the configuration.
fn answer(
    config: Option<&Config>,
    source: &Source,
    date: NaiveDate,
    args: &Args,
) -> Result<FetchResult, Failure> {
    if let Some(path) = &args.body {
        return Ok(read(path, max_body(config)));
    }
    let (context, _fresh) = context(config, source, date)?;
    let first_value = source.each.as_ref().and_then(|each| {
        let value = each.values.first()?;
        Some(Placeholders::new(&context).with(&each.name, value))
    });
    let placeholders = first_value.unwrap_or_else(|| Placeholders::new(&context));
    let page = source.paging.as_ref().map(Position::first);
    Ok(fetch(&context, &placeholders, page.as_ref()).map_err(|e| e.error.message))
}

/// The second value is the folder that goes when it is dropped, see [`folder`].
fn context(
    config: Option<&Config>,
    source: &Source,
    date: NaiveDate,
) -> Result<(Context, Option<TempDir>), Failure> {
    let secrets = match config {
        Some(config) => source.secrets(config)?,
        None if source.needed_secrets().is_empty() => Vec::new(),
        None => {
            return Err(Failure::new(
                exit::CONFIG,
                anyhow::anyhow!(
                    "the file refers to secrets, and there is no configuration beside whose .env they could be; give one with --config"
                ),
            ));
        }
    };
    let max_body = max_body(config);
    let (state_dir, fresh) = folder(config, source)?;
    let calendar = Calendar::load(config.and_then(|c| c.calendar.as_deref()))
        .map_err(|e| Failure::new(exit::CONFIG, e))?;
    let network = Network::load(config.and_then(|c| c.crawl.ca_file.as_deref()));
    let network = network.map_err(|e| Failure::new(exit::CONFIG, anyhow::anyhow!(e)))?;
    let client = Client::new(max_body, Gate::new(1), &source.fetch.base, &network)
        .allowing(&source.fetch.redirects);
    let programs = match config {
        Some(config) => Programs::unrecorded(config, source)?,
        None => Programs::default(),
    };
    let context = Context {
        folders: Folders::below(&state_dir).without_files(),
        secrets,
        programs,
        ..Context::new(source, date, &calendar, client, &state_dir, max_body)
    };
    Ok((context, fresh))
}

/// Where the browser keeps its profile, and finds its cookies: the state directory. Without one, or a browser, a new folder, which no
/// other user can have prepared, and which goes with the second value.
fn folder(config: Option<&Config>, source: &Source) -> Result<(PathBuf, Option<TempDir>), Failure> {
    if let Some(config) = config.filter(|_| source.fetch.kind == FetchKind::Browser) {
        return Ok((StateDir::open(&config.state_dir)?.path().to_owned(), None));
    }
    let fresh = tempfile::Builder::new()
        .prefix("oa-crawl-try-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()
        .map_err(|e| {
            anyhow::anyhow!(
                "could not make a folder in {}: {e}; set TMPDIR to one that is writable",
                std::env::temp_dir().display()
            )
        })?;
    Ok((fresh.path().to_owned(), Some(fresh)))
}

/// What an answer may have, in bytes.
fn max_body(config: Option<&Config>) -> u64 {
    config.map_or(oa_core::app::config::Crawl::default().max_body.0, |c| {
        c.crawl.max_body.0
    })
}

fn read(path: &Path, max_body: u64) -> FetchResult {
    let body = trust::read_named(path, max_body)
        .map_err(|e| format!("could not read {}: {e}", path.display()))?;
    let request_line = format!("file {}", path.display());
    let response = Response {
        status: 200,
        content_type: None,
        final_url: request_line.clone(),
        body,
        ..Response::default()
    };
    Ok((request_line, response))
}

fn problem(source: &Source, collected: &Collected, validated: &Validated) -> Option<String> {
    if collected.records.is_empty() && !source.allow_empty {
        return Some("the answer has no records".to_owned());
    }
    if !validated.missing_everywhere.is_empty() {
        return Some(format!(
            "no record has the field(s) {}",
            validated.missing_everywhere.join(", ")
        ));
    }
    (validated.rows.is_empty() && !collected.records.is_empty())
        .then(|| "every record was rejected".to_owned())
}

fn first_of(rows: &Pile<Vec<Value>>) -> Option<Vec<Value>> {
    rows.first().ok().flatten()
}

fn typed(source: &Source, row: &[Value]) -> Map<String, Value> {
    columns(source)
        .into_iter()
        .zip(row.iter().cloned())
        .collect()
}

fn as_json(source: &Source, report: &TryReport) -> Value {
    let validated = report.validated.as_ref();
    json!({
        "task": source.name,
        "fetched": report.fetched.as_ref().map(|(request_line, status, kind, bytes)| json!({ "request": request_line, "status": status, "content_type": kind, "bytes": bytes })),
        "extracted": report.extracted.as_ref().map(|e| json!({ "records": e.records.len(), "announced": e.total, "first": e.records.first().map(readable) })),
        "typed": validated.map(|v| json!({ "rows": v.rows.len(), "duplicates": v.duplicates, "first": first_of(&v.rows).map(|r| typed(source, &r)) })),
        "rejected": validated.map(|v| v.rejects.iter().map(|r| json!({ "field": r.field, "reason": r.reason, "record": readable(&r.record) })).collect::<Vec<_>>()),
        "findings": report.findings,
        "problem": report.problem,
        "status": match (&report.problem, report.partial) { (None, _) => "success", (_, true) => "partial", _ => "failed" },
    })
}

/// As JSON's own values can say it; all digits are in the table's form.
fn readable(record: &Value) -> Value {
    serde_json::from_str(&exact::to_text(record)).unwrap_or_else(|_| record.clone())
}

fn as_text(source: &Source, report: &TryReport) -> String {
    let mut text = String::new();
    if let Some((request_line, status, kind, bytes)) = &report.fetched {
        let kind = kind.as_deref().unwrap_or("no content type");
        let _ = writeln!(
            text,
            "fetched    {request_line}\n           HTTP {status}, {kind}, {bytes} bytes"
        );
    }
    if let Some(extracted) = &report.extracted {
        let announced = extracted
            .total
            .map_or_else(String::new, |n| format!(", {n} announced"));
        let _ = writeln!(
            text,
            "extracted  {} record(s){announced}",
            extracted.records.len()
        );
        for record in extracted.records.iter().take(SHOWN) {
            let _ = writeln!(text, "           {}", cut(&exact::to_text(record)));
        }
    }
    if let Some(validated) = &report.validated {
        let _ = writeln!(
            text,
            "typed      {} row(s) for {}, {} duplicate(s)",
            validated.rows.len(),
            source.store.table,
            validated.duplicates
        );
        for row in validated.rows.iter().take(SHOWN).flatten() {
            let row = Value::Object(typed(source, &row)).to_string();
            let _ = writeln!(text, "           {}", cut(&row));
        }
        let _ = writeln!(text, "rejected   {} record(s)", validated.rejects.len());
        for reject in validated.rejects.iter().take(SHOWN) {
            let field = reject.field.as_deref().unwrap_or_default();
            let record = cut(&exact::to_text(&reject.record));
            let _ = writeln!(text, "           {field} {}: {record}", reject.reason);
        }
    }
    for finding in &report.findings {
        let _ = writeln!(text, "finding    {}", cut(finding));
    }
    match &report.problem {
        None => text.push_str("ok         this is how a run would store it\n"),
        Some(problem) if report.partial => {
            let _ = writeln!(
                text,
                "PARTIAL    a run would store this and be partial: {problem}"
            );
        }
        Some(problem) => {
            let _ = writeln!(text, "PROBLEM    {problem}");
        }
    }
    text
}

/// In one line, what cannot be seen written out.
fn cut(text: &str) -> String {
    let mut start = escaped(&beginning(text, LONGEST));
    if text.chars().nth(LONGEST).is_some() {
        start.push('…');
    }
    start
}
