//! `oa-crawl replay`: what a run received, read once more by the present source file: after a mistake in it was mended, nothing
//! needs to be asked for again.

use std::collections::HashSet;

use chrono::{NaiveDate, Utc};
use oa_core::cli::Failure;
use oa_core::config::Config;
use oa_core::exit;
use oa_core::output::{Format, Listing};
use oa_core::pg::upsert::{Upserted, upsert};
use oa_core::runs::{RawRecord, Trigger, store};
use oa_core::schedule::Calendar;
use postgres::Client;
use serde_json::{Value, json};
use uuid::Uuid;

use super::report;
use super::run::Tools;
use crate::archive::Archive;
use crate::collect::{Collected, extract};
use crate::fetch::{Response, check_status};
use crate::source::{Source, Sources};
use crate::validate::{Moment, columns, validate};

/// What `replay` was asked for.
#[derive(Debug)]
pub struct Options {
    /// The task.
    pub task: String,
    /// The day of the data.
    pub date: NaiveDate,
    /// The run whose answers are read; the last one of that day that received any by default.
    pub run: Option<Uuid>,
    /// Store the result.
    pub yes: bool,
    /// Folder with source files.
    pub sources: Option<std::path::PathBuf>,
    /// How the result is printed.
    pub format: Format,
}

/// Shows what the present source file makes of a run's answers, and stores it as a new run with `--yes`.
///
/// # Errors
/// Wrong names (2), wrong configuration or schema (78), PostgreSQL away (75), answers that are gone or cannot be read (1).
pub fn run(config: &Config, options: &Options) -> Result<u8, Failure> {
    let sources = Sources::load(config, options.sources.as_deref())
        .map_err(|e| Failure::new(exit::CONFIG, e))?;
    let source = sources
        .get(&options.task)
        .map_err(|e| Failure::new(exit::USAGE, e))?;
    if source.each.is_some() || source.image.is_some() {
        return Err(anyhow::anyhow!(
            "{} cannot be replayed: its answers do not say which value of [each] or which image they are of; run it again for the day",
            source.name
        )
        .into());
    }
    let calendar =
        Calendar::load(config.calendar.as_deref()).map_err(|e| Failure::new(exit::CONFIG, e))?;
    let tools = Tools::open(config, &calendar, Trigger::Backfill)?;
    let (mut client, _) = tools.recorder.connect().map_err(Failure::from)?;
    let (id, raw) = answers(&mut client, source, options)?;
    let collected = read_again(source, options.date, &tools.archive, &raw)?;
    let moment = Moment {
        date: options.date,
        at: raw.first().map_or_else(Utc::now, |r| r.fetched_at),
    };
    if options.yes {
        drop(client);
        let report = tools.replay(source, moment, id, raw, collected);
        return report::conclude(config, vec![report], options.format);
    }
    preview(
        &mut client,
        &tools,
        source,
        moment,
        id,
        &collected,
        options.format,
    )
}

/// The run and the answers of its last try.
fn answers(
    client: &mut Client,
    source: &Source,
    options: &Options,
) -> Result<(Uuid, Vec<RawRecord>), Failure> {
    let found = store::answers(client, &source.name, options.date, options.run)
        .map_err(anyhow::Error::from)?;
    found.ok_or_else(|| {
        anyhow::anyhow!(
            "no run of {} for {} that received anything is in the run log; name one with --run, or collect the day with oa-crawl run --date",
            source.name,
            options.date
        )
        .into()
    })
}

fn read_again(
    source: &Source,
    date: NaiveDate,
    archive: &Archive,
    raw: &[RawRecord],
) -> Result<Collected, Failure> {
    let mut collected = Collected::default();
    let mut seen = HashSet::new();
    for one in raw {
        let body = archive.get(&one.sha256).map_err(|e| {
            anyhow::anyhow!(
                "the answer of {} is not in this machine's archive ({e}); run replay where the run was",
                one.url
            )
        })?;
        let response = Response {
            status: one.status,
            content_type: one.content_type.clone(),
            final_url: one.url.clone(),
            body,
            ..Response::default()
        };
        let extracted = check_status(&one.url, &response)
            .and_then(|()| extract(source, date, &one.url, &response))
            .map_err(|e| anyhow::anyhow!(e.error.message))?
            .0;
        collected.pages += 1;
        collected.expected = collected.expected.max(extracted.total);
        for record in extracted.records {
            let id = match &source.paging {
                Some(paging) => record
                    .get(&paging.id)
                    .map_or_else(|| record.to_string(), Value::to_string),
                None => format!("{}", collected.records.len()),
            };
            if seen.insert(id) {
                collected.records.push(record);
            } else {
                collected.duplicates += 1;
            }
        }
    }
    collected.keep(source);
    Ok(collected)
}

fn preview(
    client: &mut Client,
    tools: &Tools<'_>,
    source: &Source,
    moment: Moment,
    id: Uuid,
    collected: &Collected,
    format: Format,
) -> Result<u8, Failure> {
    let validated = validate(source, moment, &collected.records);
    let batch = tools.batch(source, validated.rows.clone());
    let would = try_out(client, &batch)?;
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
    let example = validated.rows.first().map(|row| {
        let named = columns(source).into_iter().zip(row.iter().cloned());
        named.collect::<serde_json::Map<_, _>>()
    });
    listing.push(json!({
        "task": source.name, "run": id, "day": moment.date, "answers": collected.pages, "records": collected.records.len(),
        "insert": would.inserted, "update": would.updated, "unchanged": would.unchanged,
        "rejected": validated.rejects.len() + would.refused.len(),
        "first_reject": validated.rejects.first().map(|r| format!("{} {}", r.field.as_deref().unwrap_or_default(), r.reason)),
        "missing": validated.missing_everywhere, "example": example, "stored": false,
    }));
    listing.print(format).map_err(anyhow::Error::from)?;
    tracing::info!("nothing was stored; --yes stores it as a new run");
    Ok(exit::OK)
}

/// Stores and takes it back.
fn try_out(client: &mut Client, batch: &oa_core::pg::upsert::Batch) -> Result<Upserted, Failure> {
    let mut tx = client.transaction().map_err(anyhow::Error::from)?;
    let would = upsert(&mut tx, batch).map_err(anyhow::Error::from)?;
    tx.rollback().map_err(anyhow::Error::from)?;
    Ok(would)
}
