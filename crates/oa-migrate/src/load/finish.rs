//! After the rows: keys, indexes, checks, numbers of identities, statistics, and at last foreign keys.
//!
//! What the data forbid (a duplicate under a unique index that the target asks for) is skipped and reported; it does not undo the
//! load. Each statement stands in a transaction of its own.

use anyhow::{Result, anyhow};
use oa_core::pg::{describe, quote_ident};
use oa_core::service::{self, NaturalKey};
use postgres::Client;
use postgres::error::SqlState;

use super::ddl;
use super::misfits;
use super::rejects::Misfits;
use crate::errors::is_passing;
use crate::plan::{Missing, PgType, Plan, PlannedIndex, PlannedTable};

/// What could not be created as planned.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) warnings: Vec<String>,
    /// What the source had.
    pub(crate) missing: Vec<Missing>,
    /// Duplicates prevent the natural key of one of the service's tables; `oa-migrate dedupe` creates it.
    pub(crate) natural_key_refused: bool,
    /// Rows that the target's table does not take.
    pub(crate) misfits: Vec<Misfits>,
}

/// Builds the indexes of one table and its statistics; it may be read meanwhile.
pub(crate) fn add_indexes(
    client: &mut Client,
    staging: &str,
    table: &PlannedTable,
    found: &mut Findings,
) -> Result<()> {
    let name = format!("{}.{}", quote_ident(staging), quote_ident(&table.target));
    if let Some(existing) = &table.existing {
        found.misfits = misfits::forbidden(client, &name, table)?;
        misfits::duplicates(client, &name, table, existing, found)?;
    } else {
        for index in table.indexes.iter().filter(|i| !i.constraint) {
            add_index(client, &name, table, index, found)?;
        }
    }
    analyze(client, &name, table)
}

/// Builds what needs the table for itself, which is the rest: its key, constraints and numbers.
pub(crate) fn add_constraints(
    client: &mut Client,
    staging: &str,
    table: &PlannedTable,
    found: &mut Findings,
) -> Result<()> {
    if table.existing.is_some() {
        return Ok(());
    }
    let name = format!("{}.{}", quote_ident(staging), quote_ident(&table.target));
    add_primary_key(client, &name, table, found)?;
    for index in table.indexes.iter().filter(|i| i.constraint) {
        add_index(client, &name, table, index, found)?;
    }
    for (constraint, check) in &table.checks {
        let add = |of: &str| ddl::check(of, constraint.as_deref(), check);
        if let Some(e) = attempt(client, &add(&name))? {
            let why = if e.code() == Some(&SqlState::CHECK_VIOLATION) {
                "rows violate it".to_owned()
            } else {
                describe(&e)
            };
            found
                .warnings
                .push(format!("CHECK ({check}) not created: {why}"));
            found.missing.push(Missing {
                table: table.qualified.clone(),
                item: "CHECK constraint".to_owned(),
                had: format!("CHECK ({check})"),
                has: format!("not created: {why}"),
                sql: add(&table.qualified),
            });
        }
    }
    if let Some((column, next)) = &table.identity {
        let last = match table
            .columns
            .iter()
            .find(|c| c.target == *column)
            .map(|c| c.pg)
        {
            Some(PgType::Int2) => i64::from(i16::MAX),
            Some(PgType::Int4) => i64::from(i32::MAX),
            _ => i64::MAX,
        };
        let sql = format!(
            "ALTER TABLE {name} ALTER COLUMN {} RESTART WITH {}",
            quote_ident(column),
            next.min(&last)
        );
        client.batch_execute(&sql).map_err(|e| {
            anyhow!(
                "could not set the next {column} of {}: {}",
                table.target,
                describe(&e)
            )
        })?;
        if *next > last {
            found
                .warnings
                .push(format!("column {column} has used its last number"));
        }
    }
    Ok(())
}

fn analyze(client: &mut Client, name: &str, table: &PlannedTable) -> Result<()> {
    client
        .batch_execute(&format!("ANALYZE {name}"))
        .map_err(|e| anyhow!("could not analyze {}: {}", table.target, describe(&e)))
}

fn add_primary_key(
    client: &mut Client,
    name: &str,
    table: &PlannedTable,
    found: &mut Findings,
) -> Result<()> {
    if table.primary_key.is_empty() {
        return Ok(());
    }
    let columns: Vec<String> = table.primary_key.iter().map(|c| quote_ident(c)).collect();
    let nullable = ddl::nullable_key(table);
    let kind = if nullable { "UNIQUE" } else { "PRIMARY KEY" };
    let mut has = nullable.then(|| "a unique constraint, because it holds NULL".to_owned());
    if let Some(e) = attempt(client, &ddl::primary_key(name, table, kind))? {
        let why = describe(&e);
        found.warnings.push(format!(
            "primary key ({}) not created: {why}",
            table.primary_key.join(", ")
        ));
        has = Some(format!("not created: {why}"));
    }
    if let Some(has) = has {
        found.missing.push(Missing {
            table: table.qualified.clone(),
            item: "primary key".to_owned(),
            had: format!("PRIMARY KEY ({})", columns.join(", ")),
            has,
            sql: ddl::primary_key(&table.qualified, table, "PRIMARY KEY"),
        });
    }
    Ok(())
}

fn add_index(
    client: &mut Client,
    name: &str,
    table: &PlannedTable,
    index: &PlannedIndex,
    found: &mut Findings,
) -> Result<()> {
    let unique = if index.unique { "UNIQUE " } else { "" };
    let Some(error) = attempt(client, &ddl::index(name, index))? else {
        return Ok(());
    };
    if error.code() == Some(&SqlState::UNIQUE_VIOLATION) {
        let natural = service::natural_key(&table.target).filter(|k| k.index == index.name);
        let text = duplicates(client, name, table, index, natural, &error)?;
        found.warnings.push(text);
        if natural.is_some() {
            found.natural_key_refused = true;
            return Ok(());
        }
    } else {
        found.warnings.push(format!(
            "index {} not created: {}",
            index.name,
            describe(&error)
        ));
    }
    found.missing.push(Missing {
        table: table.qualified.clone(),
        item: format!("index {}", index.name),
        had: format!("{unique}{}", index.definition.trim_start_matches("UNIQUE ")),
        has: format!("not created: {}", describe(&error)),
        sql: ddl::index(&table.qualified, index),
    });
    Ok(())
}

/// How many rows share a key, for a person.
pub(super) fn duplicates(
    client: &mut Client,
    name: &str,
    table: &PlannedTable,
    index: &PlannedIndex,
    natural: Option<&NaturalKey>,
    error: &postgres::Error,
) -> Result<String> {
    let example = detail(error);
    let Some(key) = natural else {
        return Ok(format!(
            "unique index {} not created: {example}",
            index.name
        ));
    };
    let expressions = key.key.join(", ");
    let row = client
        .query_one(
            &format!(
                "SELECT count(*), coalesce(sum(n - 1), 0)::int8 FROM (SELECT count(*) AS n FROM {name} GROUP BY {expressions} HAVING count(*) > 1) AS d"
            ),
            &[],
        )
        .map_err(|e| anyhow!(describe(&e)))?;
    let (keys, rows): (i64, i64) = (row.get(0), row.get(1));
    Ok(format!(
        "{keys} natural key(s) ({expressions}) occur more than once ({rows} row(s) too many; {example}); all rows are loaded, the unique index {} is not created: run oa-migrate dedupe {}",
        index.name, table.target
    ))
}

/// Creates the foreign keys of all tables. Returns what could not be created as planned, for each table.
pub(crate) fn add_foreign_keys(
    client: &mut Client,
    staging: &str,
    plan: &Plan,
) -> Result<Vec<Findings>> {
    let mut all = Vec::new();
    for table in &plan.tables {
        let name = format!("{}.{}", quote_ident(staging), quote_ident(&table.target));
        let mut found = Findings::default();
        if table.existing.is_some() {
            found.misfits = misfits::orphans(client, &name, table, staging, &plan.schema)?;
            all.push(found);
            continue;
        }
        // The others point to rows that are not in their place yet.
        for key in table.foreign_keys.iter().filter(|k| !plan.fills(k)) {
            let parent = if key.parent_moves {
                staging
            } else {
                &plan.schema
            };
            let sql = ddl::foreign_key(&name, key, parent);
            let Some(error) = attempt(client, &sql)? else {
                continue;
            };
            let columns = key.columns.join(", ");
            let mut remedy = ddl::foreign_key(&table.qualified, key, &plan.schema);
            let has;
            if error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION)
                && attempt(client, &format!("{sql} NOT VALID"))?.is_none()
            {
                let example = detail(&error);
                has = format!("holds for new rows only (NOT VALID): {example}");
                found
                    .warnings
                    .push(format!("foreign key ({columns}) {has}"));
                remedy = key.name.as_ref().map_or_else(String::new, |n| {
                    format!(
                        "ALTER TABLE {} VALIDATE CONSTRAINT {}",
                        table.qualified,
                        quote_ident(n)
                    )
                });
            } else {
                has = format!("not created: {}", describe(&error));
                found.warnings.push(format!(
                    "foreign key ({columns}) not created: {}",
                    describe(&error)
                ));
            }
            if !(key.of_target
                || key.dangling && error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION))
            {
                found.missing.push(Missing {
                    table: table.qualified.clone(),
                    item: format!("foreign key ({columns})"),
                    had: key.definition(&plan.schema),
                    has,
                    sql: remedy,
                });
            }
        }
        all.push(found);
    }
    Ok(all)
}

/// What PostgreSQL says about the rows; the error itself where it says no more.
fn detail(error: &postgres::Error) -> String {
    error
        .as_db_error()
        .and_then(|e| e.detail())
        .map_or_else(|| describe(error), str::to_owned)
}

/// Runs a statement; returns PostgreSQL's refusal. A full disk or a lock of others says nothing about the statement.
pub(super) fn attempt(client: &mut Client, sql: &str) -> Result<Option<postgres::Error>> {
    match client.batch_execute(sql) {
        Ok(()) => Ok(None),
        Err(e) if is_passing(&e) => Err(anyhow!("could not run {sql}: {}", describe(&e))),
        Err(e) => Ok(Some(e)),
    }
}
