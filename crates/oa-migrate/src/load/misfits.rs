//! Rows that a table of the target does not take: its conditions, unique keys and foreign keys, which stay as they are. Asked of
//! PostgreSQL, about the rows in the staging schema.

use anyhow::{Result, anyhow};
use oa_core::pg::{describe, quote_ident};
use oa_core::service;
use postgres::error::SqlState;
use postgres::{Client, GenericClient};

use super::ddl;
use super::finish::{self, Findings, attempt};
use super::rejects::Misfits;
use crate::plan::{Existing, PlannedIndex, PlannedTable};

fn explain(table: &PlannedTable, e: &postgres::Error) -> anyhow::Error {
    anyhow!(
        "could not check the rows of {}: {}",
        table.target,
        describe(e)
    )
}

/// A name that no column has, and that a condition says nothing of.
pub(crate) fn free_name<'a>(
    name: &str,
    columns: impl Iterator<Item = &'a str>,
    condition: &str,
) -> String {
    let columns: Vec<&str> = columns.collect();
    let mut free = name.to_owned();
    while columns.contains(&free.as_str()) || condition.contains(&free) {
        free.push('_');
    }
    free
}

/// A name for the numbers of a table's rows.
fn number_of(table: &PlannedTable, condition: &str) -> String {
    let there = table.existing.iter().flat_map(|e| &e.columns);
    let columns = there.map(|c| c.name.as_str());
    let columns = columns.chain(table.columns.iter().map(|c| c.target.as_str()));
    free_name("oa_number", columns, condition)
}

/// Rows as `t`, with their number in the order of loading as a column of that name.
fn numbered(name: &str, number: &str) -> String {
    format!("(SELECT *, row_number() OVER (ORDER BY ctid) AS {number} FROM {name}) AS t")
}

fn ask(
    client: &mut Client,
    table: &PlannedTable,
    constraint: &str,
    sql: &str,
) -> Result<Option<Misfits>> {
    let rows = client.query(sql, &[]).map_err(|e| explain(table, &e))?;
    Ok((!rows.is_empty()).then(|| Misfits {
        constraint: constraint.to_owned(),
        rows: rows.iter().map(|row| row.get(0)).collect(),
    }))
}

/// The conditions that each row of a table of the target must meet, with their names: its `CHECK` constraints, also those that are
/// not valid for older rows, and the bounds of a partition.
pub(crate) fn conditions(
    client: &mut impl GenericClient,
    table: &str,
) -> Result<Vec<(String, String)>> {
    let rows = client
        .query(
            "SELECT conname::text, pg_get_expr(conbin, conrelid) FROM pg_constraint WHERE conrelid = $1::text::regclass AND contype = 'c'
             UNION ALL
             SELECT 'of the partition', pg_get_partition_constraintdef(oid) FROM pg_class WHERE oid = $1::text::regclass AND relispartition
             ORDER BY 1",
            &[&table],
        )
        .map_err(|e| anyhow!("could not read the constraints of {table}: {}", describe(&e)))?;
    Ok(rows
        .iter()
        .filter_map(|row| Some((row.get(0), row.get::<_, Option<String>>(1)?)))
        .collect())
}

/// The rows that these conditions forbid.
pub(super) fn forbidden(
    client: &mut Client,
    name: &str,
    table: &PlannedTable,
) -> Result<Vec<Misfits>> {
    let mut all = Vec::new();
    for (constraint, condition) in conditions(client, &table.qualified)? {
        let number = number_of(table, &condition);
        let sql = format!(
            "SELECT {number} FROM {} WHERE NOT ({condition})",
            numbered(name, &number)
        );
        all.extend(ask(client, table, &constraint, &sql)?);
    }
    Ok(all)
}

/// The rows whose unique key an earlier row has; of the service's natural keys, only that there are some.
pub(super) fn duplicates(
    client: &mut Client,
    name: &str,
    table: &PlannedTable,
    existing: &Existing,
    found: &mut Findings,
) -> Result<()> {
    let key =
        (!existing.primary_key.is_empty()).then(|| ddl::primary_key(name, table, "PRIMARY KEY"));
    let key = key.map(|sql| (existing.primary_key_name.clone(), sql, None));
    let others = existing
        .indexes
        .iter()
        .filter(|i| i.unique || i.constraint)
        .map(|i| (i.name.clone(), ddl::index(name, i), Some(i)));
    for (index, sql, planned) in key.into_iter().chain(others) {
        let Some(error) = attempt(client, &sql)? else {
            continue;
        };
        let clash = [SqlState::UNIQUE_VIOLATION, SqlState::EXCLUSION_VIOLATION];
        if !error.code().is_some_and(|c| clash.contains(c)) {
            anyhow::bail!(
                "the rows of {} do not fit its index {index}: {}; nothing was changed. Correct them, or drop the index",
                table.target,
                describe(&error)
            );
        }
        if natural(client, name, table, planned, &error, found)? {
            continue;
        }
        let sql = clashing_rows(client, name, table, &index)?;
        found.misfits.extend(ask(client, table, &index, &sql)?);
    }
    Ok(())
}

/// Whether it is the natural key of one of the service's tables, of which every row is loaded.
fn natural(
    client: &mut Client,
    name: &str,
    table: &PlannedTable,
    index: Option<&PlannedIndex>,
    error: &postgres::Error,
    found: &mut Findings,
) -> Result<bool> {
    let Some(index) = index else { return Ok(false) };
    let Some(key) = service::natural_key(&table.target).filter(|k| k.index == index.name) else {
        return Ok(false);
    };
    let text = finish::duplicates(client, name, table, index, Some(key), error)?;
    found.warnings.push(text);
    found.natural_key_refused = true;
    Ok(true)
}

/// The statement for the rows that clash with an earlier one under a unique index or an exclusion constraint of the target's table.
fn clashing_rows(
    client: &mut Client,
    name: &str,
    table: &PlannedTable,
    index: &str,
) -> Result<String> {
    let row = client
        .query_one(
            "SELECT ARRAY(SELECT pg_get_indexdef(x.indexrelid, n, false) || CASE WHEN x.indcollation[n - 1] <> 0
                                 THEN ' COLLATE ' || x.indcollation[n - 1]::regcollation ELSE '' END FROM generate_series(1, x.indnkeyatts) AS n),
                    pg_get_expr(x.indpred, x.indrelid),
                    ARRAY(SELECT format('OPERATOR(%I.%s)', o.oprnamespace::regnamespace::text, o.oprname) FROM pg_constraint k, unnest(k.conexclop) WITH ORDINALITY AS u(op, n)
                          JOIN pg_operator o ON o.oid = u.op WHERE k.conindid = x.indexrelid AND k.contype = 'x' ORDER BY u.n),
                    coalesce((to_jsonb(x) ->> 'indnullsnotdistinct')::boolean, false)
             FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = $1::text::regclass AND i.relname = $2",
            &[&table.qualified, &index],
        )
        .map_err(|e| explain(table, &e))?;
    let (parts, condition): (Vec<String>, Option<String>) = (row.get(0), row.get(1));
    let (operators, nulls_clash): (Vec<String>, bool) = (row.get(2), row.get(3));
    let mut conditions: Vec<String> = condition.iter().map(|c| format!("({c})")).collect();
    if !nulls_clash {
        conditions.extend(parts.iter().map(|p| format!("({p}) IS NOT NULL")));
    }
    let number = number_of(
        table,
        &format!("{}{}", parts.join(" "), conditions.join(" ")),
    );
    let condition = if conditions.is_empty() {
        String::new()
    } else {
        format!(" WHERE {}", conditions.join(" AND "))
    };
    if operators.is_empty() {
        return Ok(format!(
            "SELECT {number} FROM (SELECT {number}, row_number() OVER (PARTITION BY {} ORDER BY {number}) AS oa_place FROM {}{condition}) AS u WHERE oa_place > 1",
            parts.join(", "),
            numbered(name, &number)
        ));
    }
    let keys: Vec<String> = parts
        .iter()
        .enumerate()
        .map(|(n, p)| format!("{p} AS oa_{n}"))
        .collect();
    let clash: Vec<String> = operators
        .iter()
        .enumerate()
        .map(|(n, operator)| format!("a.oa_{n} {operator} b.oa_{n}"))
        .collect();
    Ok(format!(
        "WITH k AS MATERIALIZED (SELECT {number} AS oa_number, {} FROM {}{condition})
         SELECT DISTINCT b.oa_number FROM k AS a JOIN k AS b ON a.oa_number < b.oa_number AND {}",
        keys.join(", "),
        numbered(name, &number),
        clash.join(" AND ")
    ))
}

/// The rows of which a foreign key of the target's table refers to a row that is neither there nor comes.
pub(super) fn orphans(
    client: &mut Client,
    name: &str,
    table: &PlannedTable,
    staging: &str,
    schema: &str,
) -> Result<Vec<Misfits>> {
    let mut all = Vec::new();
    for key in table.foreign_keys.iter().filter(|k| k.of_target) {
        let parent = if key.parent_moves {
            staging
        } else {
            key.parent_schema.as_deref().unwrap_or(schema)
        };
        // With MATCH FULL, a key that is NULL in part is none.
        let full = key.actions.starts_with("MATCH FULL");
        let refers: Vec<String> = key
            .columns
            .iter()
            .map(|c| format!("t.{} IS NOT NULL", quote_ident(c)))
            .collect();
        let same: Vec<String> = key
            .columns
            .iter()
            .zip(&key.parent_columns)
            .map(|(mine, theirs)| format!("p.{} = t.{}", quote_ident(theirs), quote_ident(mine)))
            .collect();
        let number = number_of(table, "");
        let sql = format!(
            "SELECT t.{number} FROM {} WHERE ({}) AND NOT EXISTS (SELECT FROM {}.{} AS p WHERE {})",
            numbered(name, &number),
            refers.join(if full { " OR " } else { " AND " }),
            quote_ident(parent),
            quote_ident(&key.parent),
            same.join(" AND ")
        );
        let constraint = key.name.as_deref().unwrap_or_default();
        all.extend(ask(client, table, constraint, &sql)?);
    }
    Ok(all)
}
