//! The last step: one transaction moves the finished tables from the staging schema to the target schema.
//!
//! A table that was there under the same name moves, whole, with its indexes and sequences, to a schema `oa_before_…` of its own
//! run. So the way back is exact, and no name is in the way. Killed before COMMIT: nothing has happened. Killed after it: all has.

use anyhow::{Result, anyhow, bail};
use oa_core::failpoint;
use oa_core::pg::{describe, quote_ident};
use postgres::{Client, Transaction};
use uuid::Uuid;

use super::rejects::Rejects;
use super::staging::drop_schema;
use crate::plan::{Plan, PlannedTable};

/// The schema that keeps what a run replaced.
#[must_use]
pub fn before_schema(run: Uuid) -> String {
    format!("oa_before_{}", &run.simple().to_string()[..20])
}

/// What the names of schemas begin with that keep the tables of runs that were taken back.
pub const AFTER: &str = "oa_after_";

/// The schema that keeps the tables of a run that was taken back.
#[must_use]
pub fn after_schema(run: Uuid) -> String {
    format!("{AFTER}{}", &run.simple().to_string()[..20])
}

/// Puts the tables in place and the bad rows into `oa.rejects`. Returns the tables that were replaced.
///
/// # Errors
/// When a table has got rows meanwhile and may not be replaced, or PostgreSQL refuses; nothing has changed then.
pub fn swap(
    client: &mut Client,
    plan: &Plan,
    staging: &str,
    run: Uuid,
    rejects: &Rejects,
    replace: bool,
) -> Result<Vec<String>> {
    let explain =
        |e: postgres::Error| anyhow!("could not put the tables in place: {}", describe(&e));
    failpoint::hit("migrate.swap.begin");
    client
        .batch_execute("SET synchronous_commit = on")
        .map_err(explain)?;
    let mut tx = client.transaction().map_err(explain)?;
    let mut replaced = Vec::new();
    let before = before_schema(run);
    let there: bool = tx
        .query_one(
            "SELECT to_regnamespace(quote_ident($1)) IS NOT NULL",
            &[&plan.schema],
        )
        .map_err(explain)?
        .get(0);
    if !there {
        tx.batch_execute(&format!("CREATE SCHEMA {}", quote_ident(&plan.schema)))
            .map_err(explain)?;
    }
    let existing: Vec<&PlannedTable> = plan
        .tables
        .iter()
        .filter(|t| t.existing.is_some())
        .collect();
    if !existing.is_empty() {
        tx.batch_execute(&format!(
            "CREATE SCHEMA {0}; COMMENT ON SCHEMA {0} IS 'tables as they were before oa-migrate run {run}; for oa-migrate rollback'",
            quote_ident(&before)
        ))
        .map_err(explain)?;
    }
    for table in existing {
        set_aside(&mut tx, &plan.schema, &table.target, &before, replace)?;
        replaced.push(table.target.clone());
    }
    for table in &plan.tables {
        if table.existing.is_some() {
            copy_rights(&mut tx, &before, staging, &table.target).map_err(explain)?;
        } else if exists(&mut tx, &plan.schema, &table.target).map_err(explain)? {
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
    rejects.store(&mut tx, run, 0)?;
    drop_schema(&mut tx, staging)?;
    failpoint::hit("migrate.swap.commit");
    tx.commit().map_err(explain)?;
    failpoint::hit("migrate.swap.done");
    Ok(replaced)
}

fn set_aside(
    tx: &mut Transaction<'_>,
    schema: &str,
    table: &str,
    before: &str,
    replace: bool,
) -> Result<()> {
    let name = format!("{}.{}", quote_ident(schema), quote_ident(table));
    let explain = |e: postgres::Error| anyhow!("could not set {name} aside: {}", describe(&e));
    tx.batch_execute(&format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE"))
        .map_err(explain)?;
    let has_rows: bool = tx
        .query_one(&format!("SELECT EXISTS (SELECT 1 FROM {name})"), &[])
        .map_err(explain)?
        .get(0);
    if has_rows && !replace {
        bail!(
            "table {table} has got rows while the run was under way; stop its writers and run again, or take --replace"
        );
    }
    tx.batch_execute(&format!(
        "ALTER TABLE {name} SET SCHEMA {}",
        quote_ident(before)
    ))
    .map_err(explain)
}

fn exists(tx: &mut Transaction<'_>, schema: &str, table: &str) -> Result<bool, postgres::Error> {
    tx.query_one(
        "SELECT EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2)",
        &[&schema, &table],
    )
    .map(|row| row.get(0))
}

/// Gives the new table the old one's owner and rights.
fn copy_rights(
    tx: &mut Transaction<'_>,
    old_schema: &str,
    new_schema: &str,
    table: &str,
) -> Result<(), postgres::Error> {
    let rows = tx.query(
        "SELECT format('GRANT %s ON TABLE %I.%I TO %s%s', a.privilege_type, $2::text, $3::text,
                       CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
                       CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) AS a
         WHERE n.nspname = $1 AND c.relname = $3 AND a.grantee <> c.relowner",
        &[&old_schema, &new_schema, &table],
    )?;
    for row in rows {
        tx.batch_execute(&row.get::<_, String>(0))?;
    }
    let owner: Option<String> = tx
        .query_opt(
            "SELECT c.relowner::regrole::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = $2 AND c.relowner <> current_user::regrole",
            &[&old_schema, &table],
        )?
        .map(|row| row.get(0));
    if let Some(owner) = owner {
        tx.batch_execute(&format!(
            "ALTER TABLE {}.{} OWNER TO {owner}",
            quote_ident(new_schema),
            quote_ident(table)
        ))?;
    }
    Ok(())
}
