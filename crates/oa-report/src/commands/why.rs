//! `oa-report why`: the versions of one row, and what made each.

use std::time::Duration;

use anyhow::anyhow;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::app::sibling;
use oa_core::base::exact;
use serde_json::{Map, Value, json};

use super::{failed, local, table_named};
use crate::pool;
use crate::queries::revisions::{self, Bounds, Part, Table, Version};

/// Of so many versions, the newest, it is looked where in the answers they stand.
const LOCATED: usize = 20;
const LIMIT: Duration = Duration::from_secs(60);

/// Why a row is as it is: each version, newest first, with its run and the answers that the run had received
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  oa-report why market_full_view --key comm_code=RB,record_date=2025-12-01\n  oa-report why option_flows --key \"contract_code=rb2605,date_trunc('minute'::text, record_time)=2025-12-01 09:30\" --format json"
)]
pub(crate) struct Args {
    /// The table, with its schema unless that is public
    #[arg(value_name = "TABLE")]
    table: String,
    /// The row: each part of the table's unique index and its value
    #[arg(long, value_name = "NAME=VALUE,…")]
    key: String,
    /// Show all versions, and look through all rows that were inserted together, however long that takes
    #[arg(long)]
    all: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let mut client = pool::connect_read_only(config)?;
    let table = table_named(&mut client, &args.table)?;
    let unreadable = |e: postgres::Error| {
        failed(
            &e,
            &format!("could not read the versions of a row of {}", table.shown()),
        )
    };
    let keys = revisions::keys(&mut client, &table).map_err(unreadable)?;
    let names = |key: &Vec<Part>| {
        let names: Vec<&str> = key.iter().map(|p| p.name.as_str()).collect();
        names.join(",")
    };
    let followed = keys.first().map(names).unwrap_or_default();
    let (key, values) = chosen(&table, keys, &args.key)?;
    let bounds = if args.all {
        Bounds::NONE
    } else {
        Bounds::USUAL
    };
    if args.all {
        client
            .batch_execute("SET statement_timeout = 0")
            .map_err(unreadable)?;
    }
    let past =
        revisions::versions(&mut client, &table, &key, &values, bounds).map_err(unreadable)?;
    drop(client);
    let mut versions = past.versions;
    for version in versions.iter_mut().take(LOCATED) {
        locate(version, config);
    }
    let unseen = past.unseen.map(|(insertions, newest)| {
        let newest = local(newest, config.timezone);
        format!("{insertions} insertion(s) of many rows at once, the newest at {newest}, were not looked through: --all does, and takes longer")
    });
    if versions.is_empty() {
        let mut hint = if names(&key) == followed {
            String::new()
        } else {
            format!("; a row that is gone is known by {followed}")
        };
        hint.extend(unseen.map(|unseen| format!("; {unseen}")));
        return Err(anyhow!(
            "{} has no row with {}, and no revision of one{hint}",
            table.shown(),
            args.key
        )
        .into());
    }
    let mut listing = Listing::new(&[
        ("when", "WHEN"),
        ("operation", "WHAT"),
        ("changes", "CHANGED"),
        ("task", "TASK"),
        ("status", "STATUS"),
        ("started", "STARTED"),
        ("answers", "ANSWERS"),
        ("source_version", "SOURCE FILE"),
        ("in_backup", "BACKUP"),
        ("run_id", "RUN"),
    ]);
    for (i, version) in versions.iter().enumerate() {
        let before = versions.get(i + 1).and_then(|v| v.row.as_ref());
        listing.push(row(version, before, config));
    }
    listing.print(args.format).map_err(anyhow::Error::from)?;
    if past.more {
        let shown = versions.len();
        tracing::warn!("these are the newest {shown} versions; --all shows the older ones too");
    }
    if let Some(unseen) = unseen {
        tracing::warn!("there may be older versions: {unseen}");
    }
    Ok(exit::OK)
}

/// Where in the answers of its run a version stands: `oa-crawl` reads them once more. Without the answers, or the source, nobody knows.
fn locate(version: &mut Version, config: &Config) {
    let (Some(task), Some(origin)) = (&version.task, &version.origin) else {
        return;
    };
    if version.raw.is_empty() || version.row.is_none() {
        return;
    }
    let run = origin.run.to_string();
    let arguments = [
        "--quiet",
        "replay",
        task,
        "--date",
        &origin.day,
        "--run",
        &run,
        "--find",
        &origin.key,
        "--format",
        "json",
    ];
    let done = match sibling::run("oa-crawl", config, &arguments, LIMIT) {
        Ok(done) if done.status.success() => done,
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stderr);
            return tracing::debug!("oa-crawl did not find the record of {run}: {said}");
        }
        Err(e) => return tracing::debug!("oa-crawl did not find the record of {run}: {e}"),
    };
    let text = String::from_utf8_lossy(&done.stdout);
    for line in text.lines() {
        let Ok(found) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let same =
            |raw: &&mut Value| raw["sha256"] == found["sha256"] && raw["part"] == found["part"];
        for raw in version.raw.iter_mut().filter(same) {
            raw["record"] = found["record"].clone();
            raw["records"] = found["records"].clone();
        }
    }
    // What it was made from comes first.
    version.raw.sort_by_key(|raw| raw["record"].is_null());
}

/// The unique index whose parts are named, and their values in its order.
fn chosen(
    table: &Table,
    keys: Vec<Vec<Part>>,
    text: &str,
) -> Result<(Vec<Part>, Vec<String>), Failure> {
    let all: Vec<String> = keys
        .iter()
        .map(|key| {
            key.iter()
                .map(|p| format!("{}=…", p.name))
                .collect::<Vec<_>>()
        })
        .map(|names| names.join(","))
        .collect();
    let values_of = |key: &Vec<Part>| {
        let mut rest = text;
        let mut values: Vec<(usize, String)> = Vec::new();
        // A name and a value may hold commas, so the parts are found by their names.
        while !rest.is_empty() {
            let (i, after) = key.iter().enumerate().find_map(|(i, p)| {
                Some((i, rest.strip_prefix(p.name.as_str())?.strip_prefix('=')?))
            })?;
            let end = key
                .iter()
                .filter_map(|p| after.find(&format!(",{}=", p.name)))
                .min()
                .unwrap_or(after.len());
            values.push((i, after[..end].to_owned()));
            rest = after[end..].trim_start_matches(',');
        }
        values.sort();
        let complete = values.iter().map(|(i, _)| *i).eq(0..key.len());
        complete.then(|| values.into_iter().map(|(_, v)| v).collect::<Vec<_>>())
    };
    let found = keys
        .into_iter()
        .find_map(|key| values_of(&key).map(|values| (key, values)));
    found.ok_or_else(|| {
        let problem = if all.is_empty() {
            anyhow!(
                "{} has no unique index, so no row can be named",
                table.shown()
            )
        } else {
            anyhow!(
                "--key does not name a row of {}; write {}",
                table.shown(),
                all.join(" or ")
            )
        };
        Failure::new(exit::USAGE, problem)
    })
}

fn row(version: &Version, before: Option<&Map<String, Value>>, config: &Config) -> Value {
    let empty = Map::new();
    let (old, new) = (
        before.unwrap_or(&empty),
        version.row.as_ref().unwrap_or(&empty),
    );
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let mut changed = Map::new();
    let mut words = Vec::new();
    for name in names {
        let (from, to) = (old.get(name), new.get(name));
        // Of a new row, and of one that is gone, everything is.
        if from == to || before.is_none() || version.row.is_none() {
            continue;
        }
        let text = |value: Option<&Value>| value.map_or_else(String::new, exact::to_text);
        words.push(format!("{name}: {} -> {}", text(from), text(to)));
        changed.insert(
            name.clone(),
            json!({"from": from.map(shown), "to": to.map(shown)}),
        );
    }
    let mut row = json!(version);
    row["row"] = json!(version.row.as_ref().map(|row| {
        let fields = row.iter().map(|(name, value)| (name.clone(), shown(value)));
        fields.collect::<Map<String, Value>>()
    }));
    row["changed"] = Value::Object(changed);
    row["changes"] = json!(words.join("; "));
    row["when"] = json!(version.at.map(|at| local(at, config.timezone)));
    row["started"] = json!(version.started_at.map(|at| local(at, config.timezone)));
    let answer = |raw: &Value| {
        let hash = raw["sha256"].as_str().unwrap_or_default();
        let url = raw["url"].as_str().unwrap_or_default();
        let hash = hash.get(..12).unwrap_or(hash);
        match (raw["record"].as_u64(), raw["records"].as_u64()) {
            (Some(record), Some(records)) => {
                format!("{hash} record {record} of {records} {url}")
            }
            _ => format!("{hash} {url}"),
        }
    };
    let mut answers: Vec<String> = version.raw.iter().take(2).map(answer).collect();
    if version.raw.len() > 2 {
        answers.push(format!("and {} more", version.raw.len() - 2));
    }
    row["answers"] = json!(answers.join("; "));
    let short = |id: &str| id.get(..12).unwrap_or(id).to_owned();
    row["source_version"] = json!(version.source_sha256.as_deref().map(short));
    let backup = version.backup.as_ref();
    row["in_backup"] = json!(backup.and_then(|b| b["id"].as_str()).map(short));
    if version.task.is_none() {
        row["task"] = json!(version.role.as_ref().map(|role| format!("(by {role})")));
    }
    row
}

/// A number with more digits than JSON's own hold is shown as text.
fn shown(value: &Value) -> Value {
    exact::number(value).map_or_else(|| value.clone(), Value::from)
}
