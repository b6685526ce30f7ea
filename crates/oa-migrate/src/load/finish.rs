//! After the rows: keys, indexes, checks, numbers of identities, statistics, and at last foreign keys.
//!
//! What the data forbid (a duplicate under a unique index that the target asks for) is left out and reported; it does not undo the
//! load. Each statement stands in a transaction of its own.

use anyhow::{Result, anyhow};
use oa_core::pg::{describe, is_connection_error, quote_ident};
use oa_core::service;
use postgres::Client;
use postgres::error::SqlState;

use crate::plan::{PgType, PlannedIndex, PlannedTable};

/// Builds what belongs to one table. Returns what could not be made, in sentences.
///
/// # Errors
/// When PostgreSQL is away.
pub fn finish_table(
    client: &mut Client,
    staging: &str,
    table: &PlannedTable,
) -> Result<Vec<String>> {
    let name = format!("{}.{}", quote_ident(staging), quote_ident(&table.target));
    let mut warnings = Vec::new();
    add_primary_key(client, &name, table, &mut warnings)?;
    for index in &table.indexes {
        add_index(client, &name, table, index, &mut warnings)?;
    }
    for check in &table.checks {
        let sql = format!("ALTER TABLE {name} ADD CHECK ({check})");
        if let Some(e) = attempt(client, &sql)? {
            warnings.push(format!(
                "CHECK ({check}) left out: {}",
                if e.code() == Some(&SqlState::CHECK_VIOLATION) {
                    "rows break it".to_owned()
                } else {
                    describe(&e)
                }
            ));
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
            warnings.push(format!("column {column} has used its last number"));
        }
    }
    client
        .batch_execute(&format!("ANALYZE {name}"))
        .map_err(|e| anyhow!("could not analyze {}: {}", table.target, describe(&e)))?;
    Ok(warnings)
}

fn add_primary_key(
    client: &mut Client,
    name: &str,
    table: &PlannedTable,
    warnings: &mut Vec<String>,
) -> Result<()> {
    if table.primary_key.is_empty() {
        return Ok(());
    }
    let columns: Vec<String> = table.primary_key.iter().map(|c| quote_ident(c)).collect();
    let nullable = table.existing.is_none()
        && table
            .columns
            .iter()
            .any(|c| !c.not_null && table.primary_key.contains(&c.target));
    let kind = if nullable { "UNIQUE" } else { "PRIMARY KEY" };
    let constraint = match &table.existing {
        Some(existing) if !existing.primary_key_name.is_empty() => {
            format!("CONSTRAINT {} ", quote_ident(&existing.primary_key_name))
        }
        _ => String::new(),
    };
    let sql = format!(
        "ALTER TABLE {name} ADD {constraint}{kind} ({})",
        columns.join(", ")
    );
    if let Some(e) = attempt(client, &sql)? {
        warnings.push(format!(
            "primary key ({}) left out: {}",
            table.primary_key.join(", "),
            describe(&e)
        ));
    }
    Ok(())
}

fn add_index(
    client: &mut Client,
    name: &str,
    table: &PlannedTable,
    index: &PlannedIndex,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let unique = if index.unique { "UNIQUE " } else { "" };
    let sql = if index.constraint {
        format!(
            "ALTER TABLE {name} ADD CONSTRAINT {} {}",
            quote_ident(&index.name),
            index.definition
        )
    } else {
        format!(
            "CREATE {unique}INDEX {} ON {name} {}",
            quote_ident(&index.name),
            index.definition
        )
    };
    let Some(error) = attempt(client, &sql)? else {
        return Ok(());
    };
    if error.code() == Some(&SqlState::UNIQUE_VIOLATION) {
        warnings.push(duplicates(client, name, table, index, &error)?);
    } else {
        warnings.push(format!(
            "index {} left out: {}",
            index.name,
            describe(&error)
        ));
    }
    Ok(())
}

/// How many rows share a key, for a person.
fn duplicates(
    client: &mut Client,
    name: &str,
    table: &PlannedTable,
    index: &PlannedIndex,
    error: &postgres::Error,
) -> Result<String> {
    let example = error
        .as_db_error()
        .and_then(|e| e.detail())
        .unwrap_or_default();
    let natural = service::natural_key(&table.target).filter(|k| k.index == index.name);
    let Some(key) = natural else {
        return Ok(format!("unique index {} left out: {example}", index.name));
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
        "{keys} natural key(s) ({expressions}) are there more than once ({rows} row(s) too many; {example}); all rows are loaded, the unique index {} is not made: run oa-migrate dedupe {}",
        index.name, table.target
    ))
}

/// Makes the foreign keys of all tables. Returns what could not be made as meant: table, sentence.
///
/// # Errors
/// When PostgreSQL is away.
pub fn add_foreign_keys(
    client: &mut Client,
    staging: &str,
    schema: &str,
    tables: &[PlannedTable],
) -> Result<Vec<(String, String)>> {
    let mut warnings = Vec::new();
    for table in tables {
        for key in &table.foreign_keys {
            let list = |names: &[String]| {
                let quoted: Vec<String> = names.iter().map(|c| quote_ident(c)).collect();
                quoted.join(", ")
            };
            let sql = format!(
                "ALTER TABLE {}.{} ADD FOREIGN KEY ({}) REFERENCES {}.{} ({}) {}",
                quote_ident(staging),
                quote_ident(&table.target),
                list(&key.columns),
                quote_ident(if key.parent_moves { staging } else { schema }),
                quote_ident(&key.parent),
                list(&key.parent_columns),
                key.actions
            );
            let Some(error) = attempt(client, &sql)? else {
                continue;
            };
            let columns = key.columns.join(", ");
            if error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION)
                && attempt(client, &format!("{sql} NOT VALID"))?.is_none()
            {
                let example = error
                    .as_db_error()
                    .and_then(|e| e.detail())
                    .unwrap_or_default();
                warnings.push((
                    table.target.clone(),
                    format!(
                        "foreign key ({columns}) holds for new rows only (NOT VALID): {example}"
                    ),
                ));
            } else {
                warnings.push((
                    table.target.clone(),
                    format!("foreign key ({columns}) left out: {}", describe(&error)),
                ));
            }
        }
    }
    Ok(warnings)
}

/// Runs a statement; gives back PostgreSQL's refusal.
fn attempt(client: &mut Client, sql: &str) -> Result<Option<postgres::Error>> {
    match client.batch_execute(sql) {
        Ok(()) => Ok(None),
        Err(e) if is_connection_error(&e) => Err(anyhow!(describe(&e))),
        Err(e) => Ok(Some(e)),
    }
}
