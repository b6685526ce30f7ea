//! The last step: one transaction moves the finished tables from the staging schema to the target schema.
//!
//! A table that was there under the same name takes the rows itself ([`in_place`]); what it held is kept in a schema `oa_before_…`
//! of its own run, with what a rollback needs. Killed before COMMIT: nothing has happened. Killed after it: all has.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use oa_core::base::failpoint;
use oa_core::pg::{describe, quote_ident, revisions};
use postgres::error::SqlState;
use postgres::{Client, Transaction};
use uuid::Uuid;

use super::rejects::Rejects;
use super::staging::drop_schema;
use super::{ddl, in_place};
use crate::errors::is_passing;
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
    /// Roll everything back at the end.
    pub(crate) rehearse: bool,
    /// What differs from a table that is replaced goes into `oa.revisions`.
    pub(crate) keeps_revisions: bool,
}

/// What became of [`swap`].
#[derive(Debug)]
pub(crate) struct SwapOutcome {
    /// The tables that had rows, which are kept.
    pub(crate) replaced: Vec<String>,
    /// What the source has and could not be created on tables that were there.
    pub(crate) missing: Vec<Missing>,
    /// The new tables are in place.
    pub(crate) done: bool,
}

/// Others hold the tables.
#[derive(Debug, thiserror::Error)]
#[error("other sessions hold the tables")]
pub(crate) struct Busy;

/// Puts the tables in place and the bad rows into `oa.rejects`.
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
        match attempt(client, plan, staging, run, rejects, params) {
            Err(e) if e.is::<Busy>() => {}
            other => {
                if params.rehearse || other.is_err() {
                    tidy_up(client, plan);
                }
                return other;
            }
        }
        if started.elapsed() > LOCK_WAIT {
            bail!(
                "other sessions have held the tables {} for {} s; nothing was changed. End their transactions and run again",
                existing_names(plan).join(", "),
                LOCK_WAIT.as_secs()
            );
        }
        thread::sleep(LOCK_PAUSE);
    }
}

/// Gives back the room of rows that were rolled back; where that is not possible, PostgreSQL does it by itself later.
fn tidy_up(client: &mut Client, plan: &Plan) {
    for name in existing_names(plan) {
        if let Err(e) = client.batch_execute(&format!("VACUUM (SKIP_LOCKED) {name}")) {
            tracing::debug!("could not vacuum {name}: {}", describe(&e));
        }
    }
}

fn existing_names(plan: &Plan) -> Vec<&str> {
    plan.tables
        .iter()
        .filter(|t| t.existing.is_some())
        .map(|t| t.qualified.as_str())
        .collect()
}

/// One attempt; [`Busy`] when others hold the tables.
fn attempt(
    client: &mut Client,
    plan: &Plan,
    staging: &str,
    run: Uuid,
    rejects: &Rejects,
    params: SwapParams,
) -> Result<SwapOutcome> {
    let explain =
        |e: postgres::Error| anyhow!("could not put the tables in place: {}", describe(&e));
    let mut tx = client.transaction().map_err(explain)?;
    let existing = existing_names(plan);
    lock(&mut tx, &existing)?;
    let before = before_schema(run);
    create_schemas(
        &mut tx,
        &plan.schema,
        (!existing.is_empty()).then_some(&before),
        run,
    )
    .map_err(explain)?;
    let mut replaced = Vec::new();
    for table in &existing {
        if existing::has_rows(&mut tx, table).map_err(explain)? {
            replaced.push(*table);
        }
    }
    if let Some(table) = replaced.first().filter(|_| !params.replace) {
        bail!(
            "table {table} received rows while the run was under way; stop its writers and run again, or use --replace"
        );
    }
    let opened = in_place::open(&mut tx, &existing, &replaced)?;
    if !existing.is_empty() {
        in_place::create_undo(&mut tx, &before)?;
    }
    let (there, new): (Vec<&PlannedTable>, Vec<&PlannedTable>) =
        plan.tables.iter().partition(|t| t.existing.is_some());
    for table in &there {
        let kept = format!("{}.{}", quote_ident(&before), quote_ident(&table.target));
        in_place::keep_rows(&mut tx, &table.qualified, &kept)?;
    }
    for table in &replaced {
        in_place::empty(&mut tx, table)?;
    }
    for table in &there {
        in_place::fill(&mut tx, table, &plan.schema, staging, &before)?;
    }
    for table in new {
        move_in(&mut tx, plan, table, staging)?;
    }
    let mut swapped = SwapOutcome {
        replaced: replaced.iter().map(|t| (*t).to_owned()).collect(),
        missing: Vec::new(),
        done: false,
    };
    for table in &there {
        swapped
            .missing
            .extend(add_indexes(&mut tx, &plan.schema, table, Some(&before))?);
        if !params.rehearse {
            let behind = advance_sequences(&mut tx, &table.qualified)?;
            swapped.missing.extend(behind);
        }
    }
    for table in &plan.tables {
        swapped
            .missing
            .extend(add_foreign_keys(&mut tx, plan, table, &before)?);
    }
    let dropped: Vec<String> = there
        .iter()
        .filter_map(|t| in_place::natural_key(t, &plan.schema))
        .map(|index| format!("index {index}"))
        .collect();
    in_place::close(&mut tx, &opened, &dropped)?;
    for table in &there {
        tx.batch_execute(&format!("ANALYZE {}", table.qualified))
            .map_err(explain)?;
        // Its triggers were silenced.
        let audited = revisions::is_audited(&mut tx, &table.qualified).map_err(explain)?;
        if params.keeps_revisions || audited {
            let was = format!("{}.{}", quote_ident(&before), quote_ident(&table.target));
            revisions::table_replaced(&mut tx, Some(&was), &table.qualified, run)
                .map_err(explain)?;
        }
    }
    rejects.store(&mut tx, run, 0)?;
    drop_schema(&mut tx, staging)?;
    if params.rehearse {
        tx.rollback().map_err(explain)?;
        return Ok(swapped);
    }
    failpoint::hit("migrate.swap.commit");
    tx.commit().map_err(explain)?;
    failpoint::hit("migrate.swap.done");
    swapped.done = true;
    Ok(swapped)
}

/// Moves a new table from the staging schema to its place.
fn move_in(
    tx: &mut Transaction<'_>,
    plan: &Plan,
    table: &PlannedTable,
    staging: &str,
) -> Result<()> {
    let explain =
        |e: postgres::Error| anyhow!("could not put {} in place: {}", table.target, describe(&e));
    make_way(tx, plan, table).map_err(explain)?;
    if exists(tx, &plan.schema, &table.target).map_err(explain)? {
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
    grant_defaults(tx, &table.qualified).map_err(explain)
}

/// A table that is made in a schema gets that schema's default privileges; one that moves there does not.
fn grant_defaults(tx: &mut Transaction<'_>, table: &str) -> Result<(), postgres::Error> {
    let rows = tx.query(
        "SELECT format('GRANT %s ON %s %s TO %s%s', e.privilege_type, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass,
                       CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(e.grantee)) END,
                       CASE WHEN e.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
         FROM pg_class c JOIN pg_default_acl d ON d.defaclnamespace = c.relnamespace AND d.defaclrole = c.relowner
              AND d.defaclobjtype::text = CASE c.relkind WHEN 'S' THEN 'S' ELSE 'r' END, aclexplode(d.defaclacl) AS e
         WHERE e.grantee <> c.relowner
           AND (c.oid = $1::text::regclass
                OR c.relkind = 'S' AND EXISTS (SELECT FROM pg_depend p WHERE p.classid = 'pg_class'::regclass AND p.objid = c.oid
                                               AND p.refclassid = 'pg_class'::regclass AND p.refobjid = $1::text::regclass AND p.deptype IN ('a', 'i')))",
        &[&table],
    )?;
    for row in &rows {
        tx.batch_execute(row.get::<_, &str>(0))?;
    }
    Ok(())
}

/// Creates the indexes of a table that it has not yet, and notes in the schema `before` how to drop them. Returns what PostgreSQL
/// refuses.
pub(crate) fn add_indexes(
    tx: &mut Transaction<'_>,
    schema: &str,
    table: &PlannedTable,
    before: Option<&str>,
) -> Result<Vec<Missing>> {
    let of = &table.qualified;
    let own = |name: &str| {
        let indexes = table.existing.iter().flat_map(|e| &e.indexes);
        indexes.into_iter().any(|i| i.name == name)
    };
    let mut missing = Vec::new();
    for index in table.indexes.iter().filter(|i| !own(&i.name)) {
        let sql = ddl::index(of, index);
        let name = quote_ident(&index.name);
        let drop = if index.constraint {
            format!("ALTER TABLE {of} DROP CONSTRAINT IF EXISTS {name}")
        } else {
            format!("DROP INDEX IF EXISTS {}.{name}", quote_ident(schema))
        };
        match try_statement(tx, &sql)? {
            None => {
                if let Some(before) = before {
                    in_place::note_undo(tx, before, &drop, false)?;
                }
            }
            Some(why) => missing.push(Missing {
                table: of.clone(),
                item: format!("index {}", index.name),
                had: index.definition.clone(),
                has: format!("not created: {why}"),
                sql,
            }),
        }
    }
    Ok(missing)
}

/// Creates the source's foreign keys of or to tables that were there. Returns what PostgreSQL refuses.
fn add_foreign_keys(
    tx: &mut Transaction<'_>,
    plan: &Plan,
    table: &PlannedTable,
    before: &str,
) -> Result<Vec<Missing>> {
    let of = &table.qualified;
    let mut missing = Vec::new();
    let keys = table.foreign_keys.iter().filter(|k| !k.of_target);
    for key in keys.filter(|k| table.existing.is_some() || plan.fills(k)) {
        let sql = ddl::foreign_key(of, key, &plan.schema);
        let Some(why) = try_statement(tx, &sql)? else {
            in_place::note_new_key(tx, before, of)?;
            continue;
        };
        let has = match try_statement(tx, &format!("{sql} NOT VALID"))? {
            None => {
                in_place::note_new_key(tx, before, of)?;
                format!("holds for new rows only (NOT VALID): {why}")
            }
            Some(why) => format!("not created: {why}"),
        };
        if !key.dangling {
            missing.push(Missing {
                table: of.clone(),
                item: format!("foreign key ({})", key.columns.join(", ")),
                had: key.definition(&plan.schema),
                has,
                sql,
            });
        }
    }
    Ok(missing)
}

/// Runs a statement in a savepoint; returns PostgreSQL's refusal. A full disk or a lock of others says nothing about the statement.
pub(crate) fn try_statement(tx: &mut Transaction<'_>, sql: &str) -> Result<Option<String>> {
    let explain = |e: postgres::Error| {
        if is_lock(&e) {
            return Busy.into();
        }
        anyhow!("could not run {sql}: {}", describe(&e))
    };
    let mut attempt = tx.transaction().map_err(explain)?;
    match attempt.batch_execute(sql) {
        Ok(()) => attempt.commit().map(|()| None).map_err(explain),
        Err(e) if is_passing(&e) => Err(explain(e)),
        Err(e) => {
            attempt.rollback().map_err(explain)?;
            Ok(Some(describe(&e)))
        }
    }
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
            Err(e) if is_passing(&e) => return Err(explain(e)),
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

/// Locks tables that take rows.
pub(crate) fn lock(tx: &mut Transaction<'_>, names: &[&str]) -> Result<()> {
    tx.batch_execute(&format!("SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
        .map_err(|e| anyhow!("could not limit the wait for locks: {}", describe(&e)))?;
    if names.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE",
        names.join(", ONLY ")
    );
    tx.batch_execute(&sql).map_err(|e| {
        if is_lock(&e) {
            Busy.into()
        } else {
            anyhow!("could not lock {}: {}", names.join(", "), describe(&e))
        }
    })
}

/// Somebody else holds what was to be locked.
fn is_lock(e: &postgres::Error) -> bool {
    let codes = [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::T_R_DEADLOCK_DETECTED,
    ];
    e.code().is_some_and(|code| codes.contains(code))
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
