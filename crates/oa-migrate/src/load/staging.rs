//! The staging schema: tables are built there, out of sight, and moved to the target schema at the end.
//!
//! One run at a time per database: the run's control connection holds an advisory lock, which ends with the connection. Whoever
//! holds it may drop every staging schema that is there: it is left over from a run that died.

use anyhow::{Context, Result};
use oa_core::app::config::Config;
use oa_core::pg::{self, describe, quote_ident};
use postgres::{Client, GenericClient};
use uuid::Uuid;

use crate::PROGRAM;
use crate::errors::{Refused, is_passing};
use crate::plan::{Plan, PlannedTable};

/// Any number; the same for every program that moves tables.
const LOCK: i64 = 0x6f61_6d69_6772;
const PREFIX: &str = "oa_staging_";

#[derive(Debug, Clone)]
pub(crate) struct Target {
    settings: pg::Settings,
}

impl Target {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        Ok(Self {
            settings: pg::Settings::from_config(config, PROGRAM)?,
        })
    }

    /// A connection for long work: no timeouts, while others load too, and no waiting for the disk at each commit, because what is committed
    /// before the last transaction may be lost without harm.
    pub(crate) fn connect(&self) -> Result<Client, pg::ConnectError> {
        let mut client = pg::connect(&self.settings)?;
        client
            .batch_execute(
                "SET statement_timeout = 0; SET synchronous_commit = off; SET maintenance_work_mem = '128MB';
                 SET idle_in_transaction_session_timeout = 0; SET client_encoding = 'UTF8'; SET search_path = pg_catalog;
                 SET row_security = off; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; SET extra_float_digits = 1;
                 SET bytea_output = 'hex'; SET timezone = 'UTC'; SET standard_conforming_strings = on;
                 SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'",
            )
            .map_err(|e| pg::ConnectError::Unreachable {
                hosts: "the database".to_owned(),
                reason: describe(&e),
            })?;
        Ok(client)
    }
}

/// Takes the lock, for as long as the connection lives; refused when another run holds it.
pub(crate) fn lock(client: &mut Client) -> Result<()> {
    let taken: bool = client
        .query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK])
        .map_err(|e| anyhow::anyhow!("could not take the lock of migrations: {}", describe(&e)))?
        .get(0);
    if taken {
        return Ok(());
    }
    Err(Refused(
        "another oa-migrate is at work on this database; wait until it ends, or stop it".to_owned(),
    )
    .into())
}

pub(crate) fn schema_of(run: Uuid) -> String {
    format!("{PREFIX}{}", &run.simple().to_string()[..20])
}

/// The staging schemas that are there. For the holder of the lock, they are left over from runs that died.
pub(crate) fn stale(client: &mut Client) -> Result<Vec<String>> {
    schemas(client, PREFIX)
}

pub(crate) fn schemas(client: &mut Client, prefix: &str) -> Result<Vec<String>> {
    let rows = client.query(
        "SELECT nspname::text FROM pg_namespace WHERE starts_with(nspname, $1) ORDER BY 1",
        &[&prefix],
    )?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

pub(crate) fn create_schema(client: &mut Client, schema: &str, run: Uuid) -> Result<()> {
    client
        .batch_execute(&format!(
            "CREATE SCHEMA {0}; COMMENT ON SCHEMA {0} IS 'oa-migrate run {run}: unfinished tables; safe to drop when no oa-migrate runs'",
            quote_ident(schema)
        ))
        .map_err(|e| {
            anyhow::anyhow!(
                "could not create the staging schema {schema}: {}; the role needs CREATE on the database",
                describe(&e)
            )
        })
}

pub(crate) fn drop_schema(client: &mut impl GenericClient, schema: &str) -> Result<()> {
    client
        .batch_execute(&format!(
            "DROP SCHEMA IF EXISTS {} CASCADE",
            quote_ident(schema)
        ))
        .with_context(|| format!("could not drop the staging schema {schema}"))
}

/// The statements that create a table, empty and without keys, indexes and checks.
pub(crate) fn create_table(staging: &str, schema: &str, table: &PlannedTable) -> Vec<String> {
    let name = format!("{}.{}", quote_ident(staging), quote_ident(&table.target));
    match &table.existing {
        None => {
            let columns: Vec<String> = table
                .columns
                .iter()
                .map(|c| format!("  {}", column_definition(staging, table, &c.target)))
                .collect();
            vec![format!("CREATE TABLE {name} (\n{}\n)", columns.join(",\n"))]
        }
        Some(existing) => {
            // What is inserted into the table itself is written to the log then.
            let mut statements = vec![format!(
                "CREATE UNLOGGED TABLE {name} (LIKE {}.{} INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS EXCLUDING CONSTRAINTS)",
                quote_ident(schema),
                quote_ident(&table.target)
            )];
            let new = table
                .columns
                .iter()
                .filter(|c| !existing.columns.iter().any(|e| e.name == c.target));
            for column in new {
                statements.push(format!(
                    "ALTER TABLE {name} ADD COLUMN {}",
                    column_definition(staging, table, &column.target)
                ));
            }
            statements
        }
    }
}

pub(crate) fn column_definition(staging: &str, table: &PlannedTable, target: &str) -> String {
    let Some(column) = table.columns.iter().find(|c| c.target == target) else {
        return String::new();
    };
    let mut text = format!("{} {}", quote_ident(target), column.pg);
    if let Some(collation) = &column.collation {
        text.push_str(&format!(" COLLATE {}", collation.name));
    }
    if let Some(expression) = &column.generated {
        text.push_str(&format!(" GENERATED ALWAYS AS ({expression}) STORED"));
    }
    if table.existing.is_none() && table.identity.as_ref().is_some_and(|(c, _)| c == target) {
        text.push_str(" GENERATED BY DEFAULT AS IDENTITY");
        if let Some(name) = &table.identity_sequence {
            text.push_str(&format!(
                " (SEQUENCE NAME {}.{})",
                quote_ident(staging),
                quote_ident(name)
            ));
        }
    } else if let Some(default) = &column.default {
        text.push_str(&format!(" DEFAULT {default}"));
    }
    if column.not_null {
        text.push_str(" NOT NULL");
    }
    text
}

/// Tries the translated defaults and generated columns on the server, in a transaction that is rolled back, and removes from the
/// plan what it refuses.
pub(crate) fn try_expressions(client: &mut Client, staging: &str, plan: &mut Plan) -> Result<()> {
    for table in plan.tables.iter_mut().filter(|t| t.existing.is_none()) {
        let places: Vec<usize> = (0..table.columns.len())
            .filter(|i| {
                table.columns[*i].default.is_some() || table.columns[*i].generated.is_some()
            })
            .collect();
        for i in places {
            let mut tx = client.transaction()?;
            let mut probe: Vec<String> = Vec::new();
            for (k, column) in table.columns.iter().enumerate() {
                let plain = format!("{} {}", quote_ident(&column.target), column.pg);
                probe.push(if k == i {
                    match (&column.generated, &column.default) {
                        (Some(e), _) => format!("{plain} GENERATED ALWAYS AS ({e}) STORED"),
                        (_, Some(d)) => format!("{plain} DEFAULT {d}"),
                        _ => plain,
                    }
                } else {
                    plain
                });
            }
            let sql = format!(
                "CREATE TABLE {}.oa_probe ({})",
                quote_ident(staging),
                probe.join(", ")
            );
            if let Err(e) = tx.batch_execute(&sql) {
                if is_passing(&e) {
                    return Err(e.into());
                }
                let column = &mut table.columns[i];
                let (what, generated) = if column.generated.take().is_some() {
                    ("generated column, moved as a plain one", true)
                } else {
                    ("DEFAULT skipped", false)
                };
                column.default = None;
                let why = format!("PostgreSQL refused the expression: {}", describe(&e));
                table
                    .warnings
                    .push(format!("column {}: {what}: {why}", column.source));
                table.lose_expression(i, generated, &why);
            }
            tx.rollback()?;
        }
    }
    Ok(())
}
