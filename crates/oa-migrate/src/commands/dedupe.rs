//! `oa-migrate dedupe`: moves the older rows of a natural key to `oa.rejects`, so that its unique index can be created.

use anyhow::{Result, anyhow, bail};
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::app::work::{self, Job, JobOutcome};
use oa_core::base::failpoint;
use oa_core::journal::Recorder;
use oa_core::pg::{describe, quote_ident, revisions};
use oa_core::service::{self, NaturalKey};
use postgres::{Client, Transaction};
use serde_json::json;
use uuid::Uuid;

use super::failure;
use crate::load::staging::Target;
use crate::{PROGRAM, runs};

/// Move the older rows of duplicate natural keys to oa.rejects and create the unique index
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A table that a crawler fills
    table: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let table = args.table.as_str();
    let Some(key) = service::natural_key(table) else {
        let known: Vec<&str> = service::NATURAL_KEYS.iter().map(|k| k.table).collect();
        return Err(Failure::new(
            exit::USAGE,
            anyhow!(
                "{table} has no natural key; tables that have one: {}",
                known.join(", ")
            ),
        ));
    };
    let target = Target::new(config)?;
    let recorder = Recorder::open(config, PROGRAM)?;
    let mut client = runs::connect_exclusive(&target, recorder.state()).map_err(failure)?;
    let found = duplicates(&mut client, key)?;
    let mut listing = Listing::new(&[
        ("key", "KEY"),
        ("rows", "ROWS"),
        ("kept", "KEPT (ID)"),
        ("moved", "TO oa.rejects (IDS)"),
    ]);
    let mut count = 0;
    for (text, ids) in &found {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        count += ids.len() - 1;
        listing.push(json!({
            "table": table,
            "key": text,
            "rows": ids.len(),
            "kept": ids[0],
            "moved": ids[1..].join(" "),
        }));
    }
    listing.print(args.format).map_err(failure)?;
    if count > 0 {
        cli::confirm(
            &format!(
                "Move {count} older row(s) of {} key(s) of {table} to oa.rejects and create its unique index?",
                found.len()
            ),
            args.yes,
        )?;
    }
    work::recorded(
        &recorder,
        &Job::by_hand(PROGRAM, "dedupe", "去除重复记录"),
        |start| {
            let moved = move_older(&mut client, key, start.id, config.keeps_revisions())?;
            tracing::info!(
                "{table}: {moved} row(s) moved to oa.rejects, unique index {} is in place",
                key.index
            );
            let mut details = serde_json::Map::new();
            details.insert("table".to_owned(), json!(table));
            details.insert("moved".to_owned(), json!(moved));
            Ok(JobOutcome {
                fetched: moved,
                details,
                ..JobOutcome::success(exit::OK)
            })
        },
    )
}

/// A key's parts joined for PARTITION BY, and the condition that none of them is NULL: a unique index takes NULLs for different.
fn parts(key: &NaturalKey) -> (String, String) {
    let not_null: Vec<String> = key.key.iter().map(|k| format!("{k} IS NOT NULL")).collect();
    (key.key.join(", "), not_null.join(" AND "))
}

/// Keys that occur more than once, with the ids of their rows, the newest first.
fn duplicates(client: &mut Client, key: &NaturalKey) -> Result<Vec<(String, Vec<i64>)>> {
    let (expressions, not_null) = parts(key);
    let rows = client
        .query(
            &format!(
                "SELECT concat_ws(', ', {expressions}), array_agg(id::int8 ORDER BY id DESC) FROM public.{} WHERE {not_null}
                 GROUP BY {expressions} HAVING count(*) > 1 ORDER BY 1",
                quote_ident(key.table)
            ),
            &[],
        )
        .map_err(|e| anyhow!("could not look for duplicates in {}: {}", key.table, describe(&e)))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// One transaction: the older rows to `oa.rejects`, then the index.
fn move_older(
    client: &mut Client,
    key: &NaturalKey,
    run: Uuid,
    keep_revisions: bool,
) -> Result<u64> {
    let explain = |e: postgres::Error| {
        anyhow!(
            "could not move duplicates of {}: {}",
            key.table,
            describe(&e)
        )
    };
    let (expressions, not_null) = parts(key);
    let table = format!("public.{}", quote_ident(key.table));
    let by_key = format!("PARTITION BY {expressions} ORDER BY id DESC");
    let mut tx = client.transaction().map_err(explain)?;
    tx.batch_execute(&format!(
        "SET LOCAL synchronous_commit = on; LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"
    ))
    .map_err(explain)?;
    revisions::name_run(&mut tx, run).map_err(explain)?;
    tx.batch_execute(&format!(
        "CREATE TEMPORARY TABLE oa_moved ON COMMIT DROP AS
         SELECT t.* FROM {table} t JOIN (SELECT id, row_number() OVER ({by_key}) AS place FROM {table} WHERE {not_null}) r USING (id) WHERE r.place > 1"
    ))
    .map_err(explain)?;
    let moved = tx
        .execute(
            &format!(
                "WITH ranked AS (
                   SELECT id, first_value(id) OVER same AS kept, row_number() OVER same AS place FROM {table} WHERE {not_null}
                   WINDOW same AS ({by_key})),
                 gone AS (DELETE FROM {table} AS t USING ranked AS r WHERE r.place > 1 AND t.id = r.id RETURNING t.*, r.kept AS oa_kept)
                 INSERT INTO oa.rejects (run_id, seq, task, target, source_key, reason, record)
                 SELECT $1, row_number() OVER (ORDER BY id), 'dedupe', $2, id::text,
                        'older row of the natural key; kept is the row with id ' || oa_kept, to_jsonb(gone) - 'oa_kept' FROM gone"
            ),
            &[&run, &key.table],
        )
        .map_err(explain)?;
    failpoint::hit("dedupe.moved");
    if !service::create_key(&mut tx, key).map_err(explain)? {
        bail!(
            "table {} still has duplicates of its natural key; run it again",
            key.table
        );
    }
    if keep_revisions {
        keep_moved(&mut tx, key, &table, run).map_err(explain)?;
    }
    tx.commit().map_err(explain)?;
    Ok(moved)
}

/// The moved rows as revisions. Their natural key is that of the row that stays, so the id names them besides. An audited table's own
/// triggers have kept them already.
fn keep_moved(
    tx: &mut Transaction<'_>,
    key: &NaturalKey,
    table: &str,
    run: Uuid,
) -> Result<(), postgres::Error> {
    let audited = tx.query_one("SELECT oa.is_audited($1::text::regclass)", &[&table])?;
    if audited.get(0) {
        return Ok(());
    }
    let known = tx.query_one(
        "SELECT schema_name, table_name, key_value FROM oa.begin_revisions($1::text::regclass, to_regclass(format('public.%I', $2::text)))",
        &[&table, &key.index],
    )?;
    let (schema, name, value): (String, String, String) =
        (known.get(0), known.get(1), known.get(2));
    tx.execute(
        &format!(
            "INSERT INTO oa.revisions (schema_name, table_name, key, operation, old_row, run_id, at, seq)
             SELECT $1, $2, {value} || jsonb_build_object('oa_row', jsonb_build_object('id', id)), 'delete', row_to_json(oa_row), $3,
                    (SELECT clock_timestamp()), (SELECT oa.next_in_order())
             FROM pg_temp.oa_moved oa_row"
        ),
        &[&schema, &name, &run],
    )?;
    Ok(())
}
