//! `oa-crawl replay`: what a run received, read once more by the present source file: after a mistake in it was fixed, nothing
//! needs to be fetched again.

use chrono::{NaiveDate, Utc};
use clap::Args as ClapArgs;
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::journal::history;
use oa_core::model::run::{RawRecord, Trigger};
use oa_core::schedule::Calendar;
use postgres::Client as Postgres;
use serde_json::{Value, json};
use uuid::Uuid;

use super::args::{SourcesArg, parse_date};
use super::{place, report};
use crate::archive::Archive;
use crate::collect::{ArchivedAnswers, Collected, Context, image, read_archived};
use crate::collector::Collector;
use crate::fetch::gate::Gate;
use crate::fetch::{Client, Network};
use crate::program::environment::Programs;
use crate::progress;
use crate::source::Source;
use crate::store;
use crate::validate::{CollectionTime, columns, validate};

/// Read a run's stored answers again with the present source file, and show what would change
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  oa-crawl replay zhihui-full-view --date 2025-12-01\n  oa-crawl replay zhihui-full-view --date 2025-12-01 --sources ./sources --yes"
)]
pub(crate) struct Args {
    /// Name of the task
    #[arg(value_name = "TASK")]
    task: String,
    /// The day of the data
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = parse_date)]
    date: NaiveDate,
    /// The run whose answers are read [default: the last one of that day that received any]
    #[arg(long, value_name = "ID")]
    run: Option<Uuid>,
    /// Store the result, as a new run
    #[arg(long)]
    yes: bool,
    /// Show instead which answer holds the record with this key (as `key` in oa.revisions has it), and where in it
    #[arg(long, value_name = "JSON", conflicts_with = "yes")]
    find: Option<String>,
    #[command(flatten)]
    sources: SourcesArg,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Shows what the present source file makes of a run's answers, and stores it as a new run with `--yes`.
/// Exits 2 for wrong names, 78 for a wrong configuration or schema, 75 when PostgreSQL is unreachable, 1 for answers that are gone or
/// cannot be read.
pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let sources = args.sources.load(config)?;
    let source = sources.get(&args.task)?;
    let calendar =
        Calendar::load(config.calendar.as_deref()).map_err(|e| Failure::new(exit::CONFIG, e))?;
    let collector = Collector::open(config, &calendar, Trigger::Backfill)?;
    let shown = progress::show(args.format, false);
    let work = progress::work(&source.name);
    progress::say(&source.name, "reading the answers");
    let (mut client, _) = collector.recorder.connect().map_err(Failure::from)?;
    let (id, raw) = answers(&mut client, source, args)?;
    keep_day(config, &mut client, source, &calendar, args, (id, &raw))?;
    let time = CollectionTime {
        date: args.date,
        at: raw.first().map_or_else(Utc::now, |r| r.fetched_at),
    };
    if let Some(key) = &args.find {
        drop((work, shown));
        let archive = &collector.archive;
        return place::print(&mut client, source, time, archive, &raw, key, args.format);
    }
    let mut collected = read_archived(source, args.date, &collector.archive, &raw)?;
    if let Some(rules) = &source.image {
        let context = image_context(config, source, args.date, &collector.archive, &raw)?;
        image::attach(&context, rules, &mut collected)
            .map_err(|e| anyhow::anyhow!(e.error.message))?;
    }
    if args.yes {
        drop(client);
        let report = collector.replay(source, time, id, raw, collected);
        drop((work, shown));
        return report::conclude(config, vec![report], args.format);
    }
    drop((work, shown));
    preview(&mut client, source, time, id, &collected, args.format)
}

fn answers(
    client: &mut Postgres,
    source: &Source,
    args: &Args,
) -> Result<(Uuid, Vec<RawRecord>), Failure> {
    let found =
        history::answers(client, &source.name, args.date, args.run).map_err(anyhow::Error::from)?;
    found.ok_or_else(|| {
        anyhow::anyhow!(
            "no run of {} for {} that received anything is in the run log; name one with --run, or collect the day with oa-crawl run --date",
            source.name,
            args.date
        )
        .into()
    })
}

/// What was received for one day is never stored under another.
fn keep_day(
    config: &Config,
    client: &mut Postgres,
    source: &Source,
    calendar: &Calendar,
    args: &Args,
    (run, raw): (Uuid, &[RawRecord]),
) -> Result<(), Failure> {
    let refused = |why: String| Err(Failure::new(exit::REFUSED, anyhow::anyhow!(why)));
    let query = "SELECT details ->> 'day' FROM oa.runs WHERE id = $1";
    let row = client
        .query_one(query, &[&run])
        .map_err(anyhow::Error::from)?;
    match row.get::<_, Option<String>>(0) {
        Some(day) if day == args.date.to_string() => Ok(()),
        Some(day) => refused(format!(
            "run {run} is of {day}, not of {}; name its day with --date {day}",
            args.date
        )),
        // It was killed before it could say its day.
        None => {
            let at = raw.first().map_or_else(Utc::now, |r| r.fetched_at);
            let at = at.with_timezone(&config.timezone);
            match source.cannot_show(args.date, at, calendar) {
                Some(_) => refused(format!(
                    "run {run} received what the site showed on {}, not on {}; name its day with --date",
                    at.date_naive(),
                    args.date
                )),
                None => Ok(()),
            }
        }
    }
}

/// Images come from the archive too.
fn image_context(
    config: &Config,
    source: &Source,
    date: NaiveDate,
    archive: &Archive,
    raw: &[RawRecord],
) -> Result<Context, Failure> {
    let calendar = Calendar::load(config.calendar.as_deref());
    let calendar = calendar.map_err(|e| Failure::new(exit::CONFIG, e))?;
    let max_body = config.crawl.max_body.0;
    let network = Network::load(config.crawl.ca_file.as_deref());
    let network = network.map_err(|e| Failure::new(exit::CONFIG, anyhow::anyhow!(e)))?;
    let client = Client::new(max_body, Gate::new(1), &source.fetch.base, &network)
        .allowing(&source.fetch.redirects);
    Ok(Context {
        archived: Some(ArchivedAnswers::new(archive, raw)),
        programs: Programs::unrecorded(config, source)?,
        ..Context::new(source, date, &calendar, client, &config.state_dir, max_body)
    })
}

fn preview(
    client: &mut Postgres,
    source: &Source,
    time: CollectionTime,
    id: Uuid,
    collected: &Collected,
    format: Format,
) -> Result<u8, Failure> {
    let validated = validate(source, time, &collected.records).map_err(anyhow::Error::from)?;
    let batch = store::batch(source, validated.rows.clone(), Utc::now());
    let (would, changes) = store::preview(client, source, &batch)?;
    let mut listing = Listing::new(&[
        ("task", "TASK"),
        ("answers", "ANSWERS"),
        ("records", "RECORDS"),
        ("insert", "WOULD INSERT"),
        ("update", "WOULD UPDATE"),
        ("unchanged", "UNCHANGED"),
        ("rejected", "REJECTED"),
        ("first_reject", "FIRST REJECT"),
    ]);
    let first = validated.rows.first().map_err(anyhow::Error::from)?;
    let example = first.map(|row| {
        let named = columns(source).into_iter().zip(row);
        named.collect::<serde_json::Map<_, _>>()
    });
    let by_rule = validated.rejects.first();
    let by_rule =
        by_rule.map(|r| format!("{} {}", r.field.as_deref().unwrap_or_default(), r.reason));
    let by_server = would.refused.first();
    let first_reject = by_rule.or_else(|| by_server.map(|r| format!("PostgreSQL: {}", r.reason)));
    listing.push(json!({
        "task": source.name, "run": id, "day": time.date, "answers": collected.pages, "records": collected.records.len(),
        "insert": would.inserted, "update": would.updated, "unchanged": would.unchanged,
        "rejected": validated.rejects.len() + would.refused.len(),
        "first_reject": first_reject,
        "missing": validated.missing_everywhere, "example": example, "changes": changes, "stored": false,
    }));
    listing.print(format).map_err(anyhow::Error::from)?;
    if format == Format::Table {
        cli::print(&lines(&changes, would.inserted + would.updated))
            .map_err(anyhow::Error::from)?;
    }
    tracing::info!("nothing was stored; --yes stores it as a new run");
    Ok(exit::OK)
}

/// For people: `+` is a new row, `~` a changed one.
fn lines(changes: &[Value], all: u64) -> String {
    let mut text = String::new();
    for change in changes {
        let sign = if change["change"] == "insert" {
            '+'
        } else {
            '~'
        };
        let columns = change["columns"].as_object().into_iter().flatten();
        let columns = columns.map(|(column, v)| match v.get("from") {
            Some(from) => format!("{column} {from} → {}", v["to"]),
            None => format!("{column} {}", v["to"]),
        });
        let columns: Vec<String> = columns.collect();
        let key = change["key"].as_str().unwrap_or_default();
        text.push_str(&format!("{sign} {key}: {}\n", columns.join(", ")));
    }
    let more = all.saturating_sub(changes.len() as u64);
    if more > 0 {
        text.push_str(&format!("… and {more} more\n"));
    }
    text
}
