//! `oa-migrate rollback`: undoes a run, in one transaction. Its rows, with all that was written to them since, stay in a schema
//! `oa_after_…`; those that it replaced come back.

use anyhow::{Context, Result, anyhow};
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::work::{self, Job, JobOutcome};
use oa_core::base::failpoint;
use oa_core::journal::Recorder;
use oa_core::pg::{describe, quote_ident, revisions};
use postgres::{Client, Transaction};
use serde_json::json;
use uuid::Uuid;

use super::failure;
use crate::PROGRAM;
use crate::load::in_place;
use crate::load::staging::Target;
use crate::load::swap::{after_schema, before_schema, lock, move_statistics};
use crate::runs::folder::TableRecord;
use crate::runs::{self, RunRecord, Stage, folder, target};

/// Roll back the last run: the rows it replaced come back, its own are kept in a schema oa_after_…
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The last run into this schema
    #[arg(long, value_name = "SCHEMA")]
    schema: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let target = Target::new(config)?;
    let recorder = Recorder::open(config, PROGRAM)?;
    let mut client = runs::connect_exclusive(&target, recorder.state()).map_err(failure)?;
    let here = target::runs_here(&mut client, recorder.state())?;
    let (folder, mut record) = folder::runs(recorder.state())?
        .into_iter()
        .filter(|(_, r)| r.stage == Stage::Done && here.contains(&r.run_id))
        .find(|(_, r)| args.schema.as_ref().is_none_or(|s| *s == r.schema))
        .context("there is no finished run that could be rolled back")?;
    let replaced = record.tables.iter().filter(|t| t.replaced).count();
    cli::confirm(
        &format!(
            "Roll back run {} of {} ({}): the rows of {} table(s) of schema {} move to {}, and {replaced} table(s) get their older rows back?",
            record.run_id,
            record.started_at.format("%Y-%m-%d %H:%M UTC"),
            record.database.display(),
            record.tables.len(),
            record.schema,
            after_schema(record.run_id),
        ),
        args.yes,
    )?;
    work::recorded(
        &recorder,
        &Job::by_hand(PROGRAM, "rollback", "迁移回退"),
        |start| {
            roll_back(&mut client, &record, start.id, config.keeps_revisions()).map_err(failure)?;
            failpoint::hit("rollback.done");
            record.stage = Stage::RolledBack;
            folder.write(&record)?;
            let mut details = serde_json::Map::new();
            details.insert("of_run".to_owned(), json!(record.run_id));
            Ok(JobOutcome {
                details,
                ..JobOutcome::success(exit::OK)
            })
        },
    )
}

fn roll_back(
    client: &mut Client,
    record: &RunRecord,
    run: Uuid,
    keeps_revisions: bool,
) -> Result<()> {
    let explain = |e: postgres::Error| anyhow!("could not roll the run back: {}", describe(&e));
    let (before, after) = (before_schema(record.run_id), after_schema(record.run_id));
    let mut tx = client.transaction().map_err(explain)?;
    tx.batch_execute(&format!(
        "SET LOCAL synchronous_commit = on; CREATE SCHEMA {0}; COMMENT ON SCHEMA {0} IS 'tables of oa-migrate run {1}, rolled back; drop it when nothing in it is needed'",
        quote_ident(&after),
        record.run_id
    ))
    .map_err(explain)?;
    let (in_place, moved): (Vec<&TableRecord>, Vec<&TableRecord>) =
        record.tables.iter().partition(|t| t.in_place);
    keep_rows(&mut tx, record, &in_place)?;
    for table in &moved {
        let name = quote_ident(&table.target);
        tx.batch_execute(&format!(
            "ALTER TABLE {}.{name} SET SCHEMA {}",
            quote_ident(&record.schema),
            quote_ident(&after)
        ))
        .map_err(explain)?;
        move_statistics(&mut tx, &record.schema, &table.target, &after, &after).map_err(explain)?;
    }
    for table in moved.iter().filter(|t| t.replaced) {
        tx.batch_execute(&format!(
            "ALTER TABLE {}.{} SET SCHEMA {}",
            quote_ident(&before),
            quote_ident(&table.target),
            quote_ident(&record.schema)
        ))
        .map_err(explain)?;
        let schema = &record.schema;
        move_statistics(&mut tx, &before, &table.target, schema, schema).map_err(explain)?;
    }
    put_rows_back(&mut tx, record, &in_place)?;
    for table in record.tables.iter().filter(|t| t.replaced) {
        let name = quote_ident(&table.target);
        let [was, is_now] = [&after, &record.schema].map(|s| format!("{}.{name}", quote_ident(s)));
        if keeps_revisions || revisions::is_audited(&mut tx, &is_now).map_err(explain)? {
            revisions::table_replaced(&mut tx, Some(&was), &is_now, run).map_err(explain)?;
        }
    }
    if record.tables.iter().any(|t| t.replaced) {
        // RESTRICT: if anybody put something there, it stays and the rollback fails with its name.
        tx.batch_execute(&format!("DROP SCHEMA {}", quote_ident(&before)))
            .map_err(explain)?;
    }
    failpoint::hit("rollback.commit");
    tx.commit().map_err(explain)
}

fn qualified(schema: &str, tables: &[&TableRecord]) -> Vec<String> {
    tables
        .iter()
        .map(|t| format!("{}.{}", quote_ident(schema), quote_ident(&t.target)))
        .collect()
}

/// Keeps the rows of tables that were there before the run, and takes back what it added to them.
fn keep_rows(tx: &mut Transaction<'_>, record: &RunRecord, tables: &[&TableRecord]) -> Result<()> {
    if tables.is_empty() {
        return Ok(());
    }
    let here = qualified(&record.schema, tables);
    let names: Vec<&str> = here.iter().map(String::as_str).collect();
    lock(tx, &names)?;
    for (table, kept) in here
        .iter()
        .zip(&qualified(&after_schema(record.run_id), tables))
    {
        in_place::keep_rows(tx, table, kept)?;
    }
    in_place::undo(tx, &before_schema(record.run_id), false)
}

/// The older rows come back into the tables that took the run's rows.
fn put_rows_back(
    tx: &mut Transaction<'_>,
    record: &RunRecord,
    tables: &[&TableRecord],
) -> Result<()> {
    if tables.is_empty() {
        return Ok(());
    }
    let before = before_schema(record.run_id);
    let here = qualified(&record.schema, tables);
    let names: Vec<&str> = here.iter().map(String::as_str).collect();
    let targets: Vec<&str> = tables.iter().map(|t| t.target.as_str()).collect();
    let opened = in_place::open(tx, &names, &names)?;
    let keys = in_place::drop_natural_keys(tx, &record.schema, &targets)?;
    for table in &here {
        in_place::empty(tx, table)?;
    }
    for (table, kept) in here.iter().zip(&qualified(&before, tables)) {
        in_place::copy_rows(tx, kept, table)?;
        tx.batch_execute(&format!("DROP TABLE {kept}"))
            .map_err(|e| anyhow!("could not drop {kept}: {}", describe(&e)))?;
    }
    in_place::undo(tx, &before, true)?;
    in_place::make_natural_keys(tx, &keys)?;
    in_place::drop_undo(tx, &before)?;
    let dropped: Vec<String> = keys.iter().map(|(_, key)| key.item.clone()).collect();
    in_place::close(tx, &opened, &dropped)
}
