//! Which columns of which tables are compared, and the comparison of all of them by several workers.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use chrono_tz::Tz;
use oa_core::base::threads;
use oa_core::pg::{describe, quote_ident};
use postgres::GenericClient;
use rusqlite::Connection;

use super::diff::{self, Difference};
use super::digest::Digest;
use super::source::SourceRows;
use super::{Column, Comparison, readback, source};
use crate::inspect::{Table, quote};
use crate::load::copy::open_snapshot;
use crate::load::forms;
use crate::load::rejects::{Rejects, skip_clause};
use crate::load::staging::Target;
use crate::plan::PgType;
use crate::progress;
use crate::values::conversion::Conversion;
use crate::workers;

#[derive(Debug)]
pub(crate) struct ComparisonResult {
    pub(crate) source: Digest,
    pub(crate) target: Digest,
    pub(crate) difference: Option<Difference>,
    pub(crate) seconds: f64,
}

impl ComparisonResult {
    /// Both sides hold the same rows.
    pub(crate) fn matched(&self) -> bool {
        self.difference.is_none()
    }
}

/// Describes the comparison of a table, with the types that PostgreSQL's catalogue has. `target_of` gives a column's name there,
/// and what its values are.
pub(crate) fn comparison(
    client: &mut impl GenericClient,
    table: &Table,
    schema: &str,
    target: &str,
    zone: Option<Tz>,
    target_of: impl Fn(&str) -> (String, Option<Conversion>),
) -> Result<Comparison> {
    let rows = client
        .query(
            "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
             JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped",
            &[&schema, &target],
        )
        .map_err(|e| anyhow!("could not read the columns of {target}: {}", describe(&e)))?;
    ensure!(
        !rows.is_empty(),
        "there is no table {schema}.{target} in the target"
    );
    let mut columns = Vec::new();
    for column in &table.columns {
        let (name, conversion) = target_of(&column.name);
        let type_name: String = rows
            .iter()
            .find(|row| row.get::<_, String>(0) == name)
            .map(|row| row.get(1))
            .with_context(|| format!("the target's table {target} has no column {name}"))?;
        let pg = PgType::of_catalogue(&type_name).of_conversion(conversion);
        columns.push(Column {
            source: column.name.clone(),
            target: name,
            pg,
            zone: zone.filter(|_| matches!(pg, PgType::Timestamptz(_))),
            conversion,
            is_key: table.primary_key.contains(&column.name),
        });
    }
    let list: Vec<String> = columns
        .iter()
        .map(|c| forms::expression(&quote(&c.source), c.pg, "quarantine.forms"))
        .collect();
    Ok(Comparison {
        source: table.name.clone(),
        source_sql: format!(
            "SELECT {} FROM {}{}",
            list.join(", "),
            quote(&table.name),
            skip_clause(table)
        ),
        schema: schema.to_owned(),
        target: target.to_owned(),
        columns,
    })
}

/// Asks PostgreSQL for its forms of a source's values, where a comparison needs them.
pub(crate) fn ask_forms(
    client: &mut impl GenericClient,
    connection: &Connection,
    rejects: &Rejects,
    comparison: &Comparison,
) -> Result<()> {
    let columns = &comparison.columns;
    let others = forms::others(columns.iter().map(|c| (c.source.as_str(), c.pg)));
    let name = quote(&comparison.source);
    forms::ask(client, connection, &name, &others, &rejects.open()?)
}

/// Compares tables, both sides of one at the same time, `workers` tables at a time.
pub(crate) fn compare_all(
    target: &Target,
    snapshot: &Path,
    rejects: &Rejects,
    comparisons: &[Comparison],
    workers: usize,
) -> Result<Vec<ComparisonResult>> {
    workers::each(
        workers,
        comparisons.len(),
        || target.connect().map_err(Into::into),
        |client, i| compare(client, snapshot, rejects, &comparisons[i]),
    )
}

/// A side adds up such a value as a whole: no two of them are in memory at once.
const LARGE: i32 = 8 << 20;
/// What is stored outside of its row takes no less, however well it was packed.
const STORED: i64 = 32 << 10;

/// Whether PostgreSQL's side has a large value. That is asked of the rows alone: they know how long is what is stored elsewhere.
fn has_large_values(client: &mut impl GenericClient, comparison: &Comparison) -> Result<bool> {
    let context = || format!("could not look for large values in {}", comparison.target);
    let stored: i64 = client
        .query_one(
            "SELECT coalesce(sum(pg_relation_size(c.reltoastrelid)), 0)::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = $2 AND c.reltoastrelid <> 0",
            &[&comparison.schema, &comparison.target],
        )
        .with_context(context)?
        .get(0);
    let texts = comparison.columns.iter().filter(|c| {
        let is_large = matches!(c.pg, PgType::Text | PgType::Varchar(_) | PgType::Bytea);
        is_large && c.conversion.is_none()
    });
    let is_large: Vec<String> = texts
        .map(|c| format!("octet_length({}) >= {LARGE}", quote_ident(&c.target)))
        .collect();
    if stored < STORED || is_large.is_empty() {
        return Ok(false);
    }
    let sql = format!(
        "SELECT EXISTS (SELECT FROM ONLY {}.{} WHERE {})",
        quote_ident(&comparison.schema),
        quote_ident(&comparison.target),
        is_large.join(" OR ")
    );
    Ok(client.query_one(&sql, &[]).with_context(context)?.get(0))
}

/// Compares one table, both sides at the same time unless that takes much memory. In a transaction, PostgreSQL's side is what that
/// transaction sees.
pub(crate) fn compare(
    client: &mut impl GenericClient,
    snapshot: &Path,
    rejects: &Rejects,
    comparison: &Comparison,
) -> Result<ComparisonResult> {
    let started = Instant::now();
    progress::table(&comparison.source);
    let context = || format!("could not compare table {}", comparison.source);
    let read_source = || -> Result<Digest> {
        let connection = open_snapshot(snapshot, rejects)?;
        Ok(source::sum(&connection, comparison)?)
    };
    let is_large = has_large_values(client, comparison).with_context(context)?;
    let (of_source, of_target) = match is_large {
        true => (read_source(), readback::sum(client, comparison)),
        false => threads::both("read SQLite", read_source, || {
            readback::sum(client, comparison)
        }),
    };
    let (of_source, of_target) = (
        of_source.with_context(context)?,
        of_target.with_context(context)?,
    );
    conclude(
        client,
        (snapshot, rejects),
        comparison,
        (of_source, of_target),
        started,
    )
}

/// Compares a table whose rows were added up when they were loaded.
pub(crate) fn compare_loaded(
    client: &mut impl GenericClient,
    from: (&Path, &Rejects),
    rows: SourceRows,
) -> Result<ComparisonResult> {
    let started = Instant::now();
    let (comparison, of_source) = rows.finish();
    let of_target = readback::sum(client, &comparison)
        .with_context(|| format!("could not compare table {}", comparison.source))?;
    conclude(client, from, &comparison, (of_source, of_target), started)
}

fn conclude(
    client: &mut impl GenericClient,
    (snapshot, rejects): (&Path, &Rejects),
    comparison: &Comparison,
    (of_source, of_target): (Digest, Digest),
    started: Instant,
) -> Result<ComparisonResult> {
    let difference = if of_source.same_rows(&of_target) {
        None
    } else {
        let connection = open_snapshot(snapshot, rejects)?;
        let found = diff::find(&connection, client, comparison, &of_source, &of_target);
        Some(found.with_context(|| format!("could not compare table {}", comparison.source))?)
    };
    Ok(ComparisonResult {
        source: of_source,
        target: of_target,
        difference,
        seconds: started.elapsed().as_secs_f64(),
    })
}
