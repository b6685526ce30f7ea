//! The steps of a run, in order; [`crate::commands::run`] and [`crate::commands::plan`] put them together.

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use oa_core::app::cli::Failure;
use oa_core::app::exit;
use oa_core::pg::{describe, quote_ident};
use postgres::Client;
use rusqlite::Connection;

use crate::inspect;
use crate::inspect::{Database, Table, VirtualTable, scan};
use crate::jobs;
use crate::load::copy::{self, Loaded, open_snapshot};
use crate::load::finish;
use crate::load::rejects::{self, Rejects};
use crate::load::staging::Target;
use crate::plan::{Existing, Layout, OnBadValue, Options, Plan, PlannedTable, existing};
use crate::proof::constraints;
use crate::proof::report::{ColumnReport, TableReport};
use crate::proof::tables::{self, Compared};

/// Reads the source's description and values and makes the plan. `absent` are virtual tables that the source once had, `ours`
/// the target's tables that earlier runs have made.
///
/// # Errors
/// When the source is damaged, or the plan cannot be made.
pub fn make_plan(
    client: &mut Client,
    snapshot: &Path,
    source_path: &Path,
    options: &Options,
    absent: &[VirtualTable],
    ours: &HashSet<String>,
    workers: usize,
) -> Result<Plan> {
    let connection = inspect::open(snapshot)?;
    let mut database = Database::read(&connection, source_path)?;
    database.virtual_tables.extend_from_slice(absent);
    ensure!(
        !database.tables.is_empty(),
        "{} holds no tables",
        source_path.display()
    );
    let taken = existing::relation_names(client, &options.schema)
        .map_err(|e| anyhow!("could not read the target's names: {}", describe(&e)))?;
    let layout = Layout::new(database, options.clone(), &taken, |name| {
        let found = existing::read(client, &options.schema, name)
            .with_context(|| format!("could not look at the target's table {name}"))?;
        Ok(found.map(|existing| Existing {
            ours: ours.contains(name),
            ..existing
        }))
    })?;
    let questions: Vec<(&Table, Vec<scan::Questions>)> = layout.questions().collect();
    let stats = jobs::each(
        workers,
        questions.len(),
        || inspect::open(snapshot).map_err(Into::into),
        |connection: &mut Connection, i| {
            let (table, ask) = &questions[i];
            scan::scan(connection, table, ask).with_context(|| {
                format!(
                    "could not read table {} of {}",
                    table.name,
                    source_path.display()
                )
            })
        },
    )?;
    drop(questions);
    layout.finish(stats)
}

/// Refuses what would overwrite rows or break what hangs on a table.
///
/// # Errors
/// Exit code 77, with the remedy.
pub fn refuse_overwriting(plan: &Plan, replace: bool) -> Result<(), Failure> {
    let refuse = |text: String| Err(Failure::new(exit::REFUSED, anyhow!(text)));
    let full: Vec<&str> = plan
        .tables
        .iter()
        .filter(|t| t.existing.as_ref().is_some_and(|e| e.has_rows))
        .map(|t| t.target.as_str())
        .collect();
    if !full.is_empty() && !replace {
        return refuse(format!(
            "the target has rows already in {}; --replace loads anew and keeps the present tables in a schema of their own",
            full.join(", ")
        ));
    }
    for table in &plan.tables {
        // What belongs to a table that is replaced as well is made again with it.
        let follows = |d: &&existing::Dependent| {
            d.of.as_ref().is_some_and(|(schema, name)| {
                *schema == plan.schema
                    && plan
                        .tables
                        .iter()
                        .any(|t| t.existing.is_some() && t.target == *name)
            })
        };
        let outside: Vec<&str> = table
            .existing
            .iter()
            .flat_map(|e| &e.dependents)
            .filter(|d| !follows(d))
            .map(|d| d.what.as_str())
            .collect();
        if let Some((first, others)) = outside.split_first() {
            let more = if others.is_empty() {
                String::new()
            } else {
                format!(" (and so do: {})", others.join("; "))
            };
            return refuse(format!(
                "{first} hangs on the target's table {}, which is to be replaced{more}; drop it first and create it again afterwards",
                table.target
            ));
        }
    }
    Ok(())
}

/// Refuses at the beginning what would fail at the end: the role must be able to put tables into the schema and to move those that
/// are there.
///
/// # Errors
/// Exit code 77, with the remedy.
pub fn refuse_without_rights(client: &mut Client, plan: &Plan) -> Result<(), Failure> {
    let explain =
        |e: postgres::Error| anyhow!("could not read the role's rights: {}", describe(&e));
    let row = client
        .query_one(
            "SELECT current_user::text,
                    CASE WHEN to_regnamespace(quote_ident($1)) IS NULL THEN has_database_privilege(current_database(), 'CREATE')
                         ELSE has_schema_privilege(to_regnamespace(quote_ident($1)), 'CREATE') END,
                    to_regnamespace(quote_ident($1)) IS NULL, current_database()::text",
            &[&plan.schema],
        )
        .map_err(explain)?;
    let (role, may): (String, bool) = (row.get(0), row.get(1));
    if !may {
        let grant = if row.get(2) {
            format!(
                "GRANT CREATE ON DATABASE {} TO {}",
                quote_ident(&row.get::<_, String>(3)),
                quote_ident(&role)
            )
        } else {
            format!(
                "GRANT CREATE ON SCHEMA {} TO {}",
                quote_ident(&plan.schema),
                quote_ident(&role)
            )
        };
        return Err(Failure::new(
            exit::REFUSED,
            anyhow!(
                "role {role} may not create tables in schema {}; nothing was changed. As its owner: {grant}",
                plan.schema
            ),
        ));
    }
    for table in plan.tables.iter().filter(|t| t.existing.is_some()) {
        let row = client
            .query_one(
                "SELECT pg_has_role(c.relowner, 'USAGE'), pg_get_userbyid(c.relowner)::text FROM pg_class c WHERE c.oid = $1::text::regclass",
                &[&table.qualified],
            )
            .map_err(explain)?;
        if !row.get::<_, bool>(0) {
            return Err(Failure::new(
                exit::REFUSED,
                anyhow!(
                    "table {} belongs to role {}, which role {role} is not a member of, so it cannot be replaced; nothing was changed. Run as its owner, or: GRANT {1} TO {2}",
                    table.qualified,
                    row.get::<_, String>(1),
                    role
                ),
            ));
        }
    }
    Ok(())
}

/// Puts bad rows aside, table by table, then those whose foreign keys lead nowhere.
///
/// # Errors
/// When there are some and none may be, or a file fails.
pub fn vet(snapshot: &Path, rejects: &Rejects, plan: &mut Plan, mode: OnBadValue) -> Result<()> {
    let connection = open_snapshot(snapshot, rejects)?;
    for table in plan.tables.iter().filter(|t| t.needs_vetting()) {
        rejects::vet(&connection, rejects, table)?;
    }
    let keep = mode != OnBadValue::Quarantine;
    for (table, columns, rows) in rejects::vet_foreign_keys(&connection, rejects, plan, keep)? {
        ensure!(
            mode != OnBadValue::Fail,
            "table {table}: the foreign key ({columns}) of {rows} row(s) leads to no row; nothing was changed. Correct them, or take --on-bad-value quarantine or widen"
        );
        if let Some(planned) = plan.tables.iter_mut().find(|t| t.source.name == table) {
            planned.warnings.push(format!(
                "foreign key ({columns}): {rows} row(s) lead to no row"
            ));
            for key in &mut planned.foreign_keys {
                key.dangling |= keep && key.columns.join(", ") == columns;
            }
        }
    }
    Ok(())
}

/// What was loaded of each table, with the seconds it took.
#[derive(Debug)]
pub struct LoadedTable {
    loaded: Loaded,
    seconds: f64,
}

/// Loads all tables into the staging schema, the largest first, with their indexes; then the foreign keys.
///
/// # Errors
/// When SQLite cannot be read or PostgreSQL refuses.
pub fn load(
    client: &mut Client,
    target: &Target,
    snapshot: &Path,
    rejects: &Rejects,
    plan: &mut Plan,
    staging: &str,
    workers: usize,
) -> Result<Vec<LoadedTable>> {
    let size = |i: &usize| -> u64 { plan.tables[*i].stats.columns.iter().map(|c| c.bytes).sum() };
    let mut order: Vec<usize> = (0..plan.tables.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(size(i)));
    let mut done = jobs::each(
        workers,
        order.len(),
        || target.connect().map_err(Into::into),
        |client, i| {
            let table = &plan.tables[order[i]];
            let started = Instant::now();
            let loaded = copy::load(client, snapshot, rejects, plan, table, staging)?;
            let found = finish::finish_table(client, staging, table)?;
            let seconds = started.elapsed().as_secs_f64();
            Ok((order[i], LoadedTable { loaded, seconds }, found))
        },
    )?;
    done.sort_by_key(|(i, ..)| *i);
    let of_keys = finish::add_foreign_keys(client, staging, &plan.schema, &plan.tables)?;
    let mut all = Vec::new();
    for ((i, loaded, found), of_keys) in done.into_iter().zip(of_keys) {
        let table = &mut plan.tables[i];
        for found in [found, of_keys] {
            table.warnings.extend(found.warnings);
            table.missing.extend(found.missing);
            table.natural_key_refused |= found.natural_key_refused;
        }
        all.push(loaded);
    }
    Ok(all)
}

/// Compares all tables of a plan with what is in the given schema.
///
/// # Errors
/// When one of the sides cannot be read.
pub fn prove(
    client: &mut Client,
    target: &Target,
    snapshot: &Path,
    rejects: &Rejects,
    plan: &mut Plan,
    schema: &str,
    workers: usize,
) -> Result<Vec<Compared>> {
    let mut comparisons = Vec::new();
    for table in &mut plan.tables {
        let zone = table.columns.iter().find_map(|c| c.zone);
        let columns = &table.columns;
        comparisons.push(tables::comparison(
            client,
            &table.source,
            schema,
            &table.target,
            zone,
            |name| {
                columns
                    .iter()
                    .find(|c| c.source == name)
                    .map_or_else(|| name.to_owned(), |c| c.target.clone())
            },
        )?);
        let findings = constraints::check(client, schema, &table.target)?;
        table.warnings.extend(findings);
    }
    tables::compare_all(target, snapshot, rejects, &comparisons, workers)
}

/// A generated column that PostgreSQL computes differently: place of its table and its own, and why.
#[derive(Debug)]
pub struct Differs {
    table: usize,
    column: usize,
    why: String,
}

fn generated(table: &PlannedTable) -> impl Iterator<Item = usize> {
    // Those of the target's own table are its definition.
    let own = table.existing.is_some();
    let columns = table.columns.iter().enumerate();
    columns
        .filter(move |(_, c)| !own && c.generated.is_some())
        .map(|(i, _)| i)
}

/// The generated columns that could not be computed, where that is why loading failed.
#[must_use]
pub fn not_computed(plan: &Plan, error: &anyhow::Error) -> Vec<Differs> {
    let Some(failed) = error.downcast_ref::<copy::NotComputed>() else {
        return Vec::new();
    };
    let tables = plan.tables.iter().enumerate();
    tables
        .filter(|(_, t)| t.target == failed.table)
        .flat_map(|(table, t)| {
            generated(t).map(move |column| Differs {
                table,
                column,
                why: format!("PostgreSQL cannot compute it: {}", failed.reason),
            })
        })
        .collect()
}

/// The generated columns that are all in which the sides differ.
#[must_use]
pub fn computed_differently(plan: &Plan, compared: &[Compared]) -> Vec<Differs> {
    let mut found = Vec::new();
    for (table, (planned, compared)) in plan.tables.iter().zip(compared).enumerate() {
        let Some(difference) = &compared.difference else {
            continue;
        };
        let columns: Vec<usize> = generated(planned)
            .filter(|i| difference.columns.contains(&planned.columns[*i].source))
            .collect();
        if columns.len() == difference.columns.len() {
            found.extend(columns.into_iter().map(|column| Differs {
                table,
                column,
                why: format!(
                    "PostgreSQL computes other values ({})",
                    difference.examples.join("; ")
                ),
            }));
        }
    }
    found
}

/// Makes plain columns of them, which hold the source's values, and notes that their expressions are missing.
pub fn make_plain(plan: &mut Plan, columns: Vec<Differs>) {
    for Differs { table, column, why } in columns {
        let table = &mut plan.tables[table];
        table.columns[column].generated = None;
        table.warnings.push(format!(
            "generated column {}: moved as a plain one: {why}",
            table.columns[column].source
        ));
        table.lose_expression(column, true, &why);
    }
}

/// One entry of the report a table.
///
/// # Errors
/// When the file of bad rows cannot be read.
pub fn table_reports(
    plan: &Plan,
    rejects: &Rejects,
    loaded: &[LoadedTable],
    compared: &[Compared],
) -> Result<Vec<TableReport>> {
    let mut reports = Vec::new();
    for ((table, loaded), compared) in plan.tables.iter().zip(loaded).zip(compared) {
        let rows_quarantined = rejects.count(&table.source.name)?;
        let mut warnings = table.warnings.clone();
        if rows_quarantined > 0 {
            warnings.push(format!(
                "{rows_quarantined} row(s) are in oa.rejects, not in the table"
            ));
        }
        let complete = table.stats.rows == loaded.loaded.rows + rows_quarantined
            && compared.target.rows == loaded.loaded.rows;
        reports.push(TableReport {
            table: table.source.name.clone(),
            target: table.target.clone(),
            rows_read: table.stats.rows,
            rows_loaded: compared.target.rows,
            rows_quarantined,
            source_hash: compared.source.hex(),
            target_hash: compared.target.hex(),
            matched: compared.matched() && complete,
            seconds: loaded.seconds,
            bytes: loaded.loaded.bytes,
            columns: table
                .columns
                .iter()
                .zip(&compared.source.columns)
                .zip(&compared.target.columns)
                .map(|((column, a), b)| ColumnReport {
                    column: column.target.clone(),
                    pg: column.pg.to_string(),
                    values: b.values,
                    matched: a == b,
                })
                .collect(),
            difference: compared.difference.clone(),
            warnings,
        });
    }
    Ok(reports)
}
