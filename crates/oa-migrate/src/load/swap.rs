//! The last step: one transaction moves the finished tables from the staging schema to the target schema.
//!
//! A table that was there under the same name moves, whole, with its indexes and sequences, to a schema `oa_before_…` of its own
//! run. So a rollback is exact, and no name is in the way. Killed before COMMIT: nothing has happened. Killed after it: all has.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use oa_core::base::failpoint;
use oa_core::pg::{describe, is_connection_error, quote_ident, revisions};
use oa_core::service;
use postgres::error::SqlState;
use postgres::{Client, Transaction};
use uuid::Uuid;

use super::belongings;
use super::rejects::Rejects;
use super::staging::drop_schema;
use crate::plan::{Missing, Plan, PlannedTable, existing};

/// Whoever waits for a lock makes all others wait behind it: each attempt is short, and in between others go on.
const LOCK_SECONDS: u32 = 2;
const LOCK_PAUSE: Duration = Duration::from_secs(1);
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// The schema that keeps what a run replaced.
pub(crate) fn before_schema(run: Uuid) -> String {
    format!("oa_before_{}", &run.simple().to_string()[..20])
}

/// What the names of schemas begin with that keep the tables of runs that were rolled back.
pub(crate) const AFTER: &str = "oa_after_";

/// The schema that keeps the tables of a run that was rolled back.
pub(crate) fn after_schema(run: Uuid) -> String {
    format!("{AFTER}{}", &run.simple().to_string()[..20])
}

/// What [`swap`] may do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SwapParams {
    /// Tables with rows may be replaced.
    pub(crate) replace: bool,
    /// What belongs to a table and cannot be created again may be lost.
    pub(crate) allow_missing: bool,
    /// Roll everything back at the end.
    pub(crate) rehearse: bool,
    /// What differs from a table that is replaced goes into `oa.revisions`.
    pub(crate) keeps_revisions: bool,
}

/// What became of [`swap`].
#[derive(Debug)]
pub(crate) struct SwapOutcome {
    /// The tables that were replaced.
    pub(crate) replaced: Vec<String>,
    /// What belonged to them and could not be created again.
    pub(crate) missing: Vec<Missing>,
    /// The new tables are in place.
    pub(crate) done: bool,
}

/// Puts the tables in place and the bad rows into `oa.rejects`. What belonged to a table that was there is created again on the
/// new one; where that fails and nothing may be missing, nothing is changed.
pub(crate) fn swap(
    client: &mut Client,
    plan: &Plan,
    staging: &str,
    run: Uuid,
    rejects: &Rejects,
    params: SwapParams,
) -> Result<SwapOutcome> {
    failpoint::hit("migrate.swap.begin");
    client
        .batch_execute("SET synchronous_commit = on")
        .map_err(|e| anyhow!("could not put the tables in place: {}", describe(&e)))?;
    let started = Instant::now();
    loop {
        if let Some(swapped) = attempt(client, plan, staging, run, rejects, params)? {
            return Ok(swapped);
        }
        if started.elapsed() > LOCK_WAIT {
            bail!(
                "other sessions have held the tables that are to be replaced for {} s; nothing was changed. End their transactions and run again",
                LOCK_WAIT.as_secs()
            );
        }
        thread::sleep(LOCK_PAUSE);
    }
}

/// One attempt; none when others hold the tables.
fn attempt(
    client: &mut Client,
    plan: &Plan,
    staging: &str,
    run: Uuid,
    rejects: &Rejects,
    params: SwapParams,
) -> Result<Option<SwapOutcome>> {
    let explain =
        |e: postgres::Error| anyhow!("could not put the tables in place: {}", describe(&e));
    let mut tx = client.transaction().map_err(explain)?;
    if !lock(&mut tx, plan)? {
        tx.rollback().map_err(explain)?;
        return Ok(None);
    }
    let before = before_schema(run);
    let existing: Vec<&PlannedTable> = plan
        .tables
        .iter()
        .filter(|t| t.existing.is_some())
        .collect();
    create_schemas(
        &mut tx,
        &plan.schema,
        (!existing.is_empty()).then_some(&before),
        run,
    )
    .map_err(explain)?;
    let mut belongings = Vec::new();
    // All before the first one moves: foreign keys name the schema of the other table.
    for table in &existing {
        belongings.push(belongings::of(&mut tx, &table.qualified, &table.qualified)?);
    }
    for table in &existing {
        move_away(
            &mut tx,
            &plan.schema,
            &table.target,
            &before,
            params.replace,
        )?;
    }
    for table in &plan.tables {
        if table.existing.is_none() {
            make_way(&mut tx, plan, table).map_err(explain)?;
        }
        if table.existing.is_none()
            && exists(&mut tx, &plan.schema, &table.target).map_err(explain)?
        {
            bail!(
                "a table {} has appeared in the target meanwhile; run again",
                table.target
            );
        }
        tx.batch_execute(&format!(
            "ALTER TABLE {}.{} SET SCHEMA {}",
            quote_ident(staging),
            quote_ident(&table.target),
            quote_ident(&plan.schema)
        ))
        .map_err(explain)?;
    }
    let mut swapped = SwapOutcome {
        replaced: existing.iter().map(|t| t.target.clone()).collect(),
        missing: Vec::new(),
        done: false,
    };
    // When all tables are in place, because policies and triggers name other tables.
    for (table, had) in existing.iter().zip(&belongings) {
        let missing = belongings::carry_over(&mut tx, &table.qualified, had)?;
        let natural = service::natural_key(&table.target)
            .filter(|_| plan.schema == "public" && table.natural_key_refused)
            .map(|key| format!("index public.{}", key.index));
        swapped.missing.extend(
            missing
                .into_iter()
                .filter(|m| Some(&m.item) != natural.as_ref()),
        );
        if !params.rehearse {
            let behind = advance_sequences(&mut tx, &table.qualified)?;
            swapped.missing.extend(behind);
        }
    }
    if params.keeps_revisions {
        for table in &existing {
            let was = format!("{}.{}", quote_ident(&before), quote_ident(&table.target));
            revisions::table_replaced(&mut tx, Some(&was), &table.qualified, run)
                .map_err(explain)?;
        }
    }
    rejects.store(&mut tx, run, 0)?;
    drop_schema(&mut tx, staging)?;
    if params.rehearse || !(swapped.missing.is_empty() || params.allow_missing) {
        tx.rollback().map_err(explain)?;
        return Ok(Some(swapped));
    }
    failpoint::hit("migrate.swap.commit");
    tx.commit().map_err(explain)?;
    failpoint::hit("migrate.swap.done");
    swapped.done = true;
    Ok(Some(swapped))
}

/// Drops this program's own view, where a table has its name; see [`existing::gives_way`].
fn make_way(
    tx: &mut Transaction<'_>,
    plan: &Plan,
    table: &PlannedTable,
) -> Result<(), postgres::Error> {
    let there = tx.query_opt(
        "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2",
        &[&plan.schema, &table.target],
    )?;
    if let Some(row) = there
        && existing::gives_way(tx, row.get(0))?
    {
        tx.batch_execute(&format!("DROP VIEW {}", table.qualified))?;
    }
    Ok(())
}

/// Creates the target schema, where it does not exist, and the one that keeps the tables that are replaced.
fn create_schemas(
    tx: &mut Transaction<'_>,
    schema: &str,
    before: Option<&String>,
    run: Uuid,
) -> Result<(), postgres::Error> {
    let exists: bool = tx
        .query_one(
            "SELECT to_regnamespace(quote_ident($1)) IS NOT NULL",
            &[&schema],
        )?
        .get(0);
    if !exists {
        tx.batch_execute(&format!("CREATE SCHEMA {}", quote_ident(schema)))?;
    }
    if let Some(before) = before {
        tx.batch_execute(&format!(
            "CREATE SCHEMA {0}; COMMENT ON SCHEMA {0} IS 'tables as they were before oa-migrate run {run}; for oa-migrate rollback'",
            quote_ident(before)
        ))?;
    }
    Ok(())
}

/// Sets the sequences that a table's defaults take numbers from, and that are not its own, beyond its rows; otherwise those
/// would be given again. Returns those that the role may not set.
pub(crate) fn advance_sequences(tx: &mut Transaction<'_>, table: &str) -> Result<Vec<Missing>> {
    let explain = |e: postgres::Error| {
        anyhow!(
            "could not look at the sequences of {table}: {}",
            describe(&e)
        )
    };
    let rows = tx
        .query(
            "SELECT a.attname::text, q.oid::regclass::text FROM pg_attrdef d
             JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum AND a.atttypid IN (21, 23, 20)
             JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass
             JOIN pg_class q ON q.oid = p.refobjid AND q.relkind = 'S' JOIN pg_sequence s ON s.seqrelid = q.oid AND s.seqincrement > 0
             WHERE d.adrelid = $1::text::regclass",
            &[&table],
        )
        .map_err(explain)?;
    let mut behind = Vec::new();
    for row in rows {
        let (column, sequence): (String, String) = (row.get(0), row.get(1));
        let highest = format!("(SELECT max({}) FROM {table})", quote_ident(&column));
        let statement = format!(
            "SELECT setval('{}', {highest}) FROM {sequence} WHERE {highest} >= last_value",
            sequence.replace('\'', "''")
        );
        let mut attempt = tx.transaction().map_err(explain)?;
        match attempt.batch_execute(&statement) {
            Ok(()) => attempt.commit().map_err(explain)?,
            Err(e) if is_connection_error(&e) => return Err(explain(e)),
            Err(e) => {
                attempt.rollback().map_err(explain)?;
                behind.push(Missing {
                    table: table.to_owned(),
                    item: format!("numbers of column {column}"),
                    had: format!("numbers from {sequence}"),
                    has: format!(
                        "{sequence} may give numbers that rows have: {}",
                        describe(&e)
                    ),
                    sql: statement,
                });
            }
        }
    }
    Ok(behind)
}

/// Locks the tables that are to be replaced; false when others hold them.
fn lock(tx: &mut Transaction<'_>, plan: &Plan) -> Result<bool> {
    let names: Vec<&str> = plan
        .tables
        .iter()
        .filter(|t| t.existing.is_some())
        .map(|t| t.qualified.as_str())
        .collect();
    if names.is_empty() {
        return Ok(true);
    }
    let sql = format!(
        "SET LOCAL lock_timeout = '{LOCK_SECONDS}s'; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE",
        names.join(", ")
    );
    match tx.batch_execute(&sql) {
        Ok(()) => Ok(true),
        Err(e)
            if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
                || e.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) =>
        {
            Ok(false)
        }
        Err(e) => Err(anyhow!(
            "could not lock {}: {}",
            names.join(", "),
            describe(&e)
        )),
    }
}

fn move_away(
    tx: &mut Transaction<'_>,
    schema: &str,
    table: &str,
    before: &str,
    replace: bool,
) -> Result<()> {
    let name = format!("{}.{}", quote_ident(schema), quote_ident(table));
    let explain = |e: postgres::Error| anyhow!("could not move {name} away: {}", describe(&e));
    let has_rows = existing::has_rows(tx, &name).map_err(explain)?;
    if has_rows && !replace {
        bail!(
            "table {table} received rows while the run was under way; stop its writers and run again, or use --replace"
        );
    }
    tx.batch_execute(&format!(
        "ALTER TABLE {name} SET SCHEMA {}",
        quote_ident(before)
    ))
    .map_err(explain)?;
    move_statistics(tx, schema, table, before, before).map_err(explain)
}

/// Extended statistics do not follow their table to another schema. Moves those of `now_in`.`table` from schema `from` to
/// schema `to`.
pub(crate) fn move_statistics(
    tx: &mut Transaction<'_>,
    from: &str,
    table: &str,
    now_in: &str,
    to: &str,
) -> Result<(), postgres::Error> {
    let rows = tx.query(
        "SELECT s.stxname::text FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace
         JOIN pg_class c ON c.oid = s.stxrelid JOIN pg_namespace m ON m.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = $2 AND m.nspname = $3",
        &[&from, &table, &now_in],
    )?;
    for row in rows {
        tx.batch_execute(&format!(
            "ALTER STATISTICS {}.{} SET SCHEMA {}",
            quote_ident(from),
            quote_ident(&row.get::<_, String>(0)),
            quote_ident(to)
        ))?;
    }
    Ok(())
}

fn exists(tx: &mut Transaction<'_>, schema: &str, table: &str) -> Result<bool, postgres::Error> {
    tx.query_one(
        "SELECT EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2)",
        &[&schema, &table],
    )
    .map(|row| row.get(0))
}
