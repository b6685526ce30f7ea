//! The proof of a plan that was loaded, and what it says about generated columns.

use std::path::Path;

use anyhow::Result;
use postgres::{Client, Transaction};
use rusqlite::types::ValueRef;

use super::constraints;
use super::report::TableReport;
use super::source::SourceRows;
use super::tables::{self, ComparisonResult};
use crate::load::copy::{Loaded, NotComputed};
use crate::load::rejects::Rejects;
use crate::load::tables::Watch;
use crate::plan::{Plan, PlannedTable};

/// The proof of tables while they are loaded.
#[derive(Debug)]
pub(crate) struct Prover<'a> {
    pub(crate) snapshot: &'a Path,
    pub(crate) rejects: &'a Rejects,
    /// The schema where they are.
    pub(crate) schema: &'a str,
}

impl Watch for Prover<'_> {
    type Rows = SourceRows;
    type Found = ComparisonResult;

    fn begin(&self, tx: &mut Transaction<'_>, table: &PlannedTable) -> Result<SourceRows> {
        let zone = table.columns.iter().find_map(|c| c.zone);
        let comparison = tables::comparison(
            tx,
            &table.source,
            self.schema,
            &table.target,
            zone,
            |name| {
                let found = table.columns.iter().find(|c| c.source == name);
                found.map_or_else(
                    || (name.to_owned(), None),
                    |c| (c.target.clone(), c.conversion),
                )
            },
        )?;
        Ok(SourceRows::new(comparison))
    }

    fn see(rows: &mut SourceRows, position: usize, value: ValueRef<'_>) {
        rows.add_value(position, value);
    }

    fn end_row(rows: &mut SourceRows) {
        rows.end_row();
    }

    fn end(&self, client: &mut Client, rows: SourceRows) -> Result<ComparisonResult> {
        tables::compare_loaded(client, (self.snapshot, self.rejects), rows)
    }
}

/// Adds to the tables' warnings what is wrong with their constraints and numbers.
pub(crate) fn check_constraints(client: &mut Client, plan: &mut Plan, schema: &str) -> Result<()> {
    // A table that takes rows itself keeps its own.
    for table in plan.tables.iter_mut().filter(|t| t.existing.is_none()) {
        let findings = constraints::check(client, schema, &table.target)?;
        table.warnings.extend(findings);
    }
    Ok(())
}

/// A generated column that PostgreSQL computes differently: the positions of its table and its own, and why.
#[derive(Debug)]
pub(crate) struct DifferingColumn {
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
pub(crate) fn not_computed(plan: &Plan, error: &anyhow::Error) -> Vec<DifferingColumn> {
    let Some(failed) = error.downcast_ref::<NotComputed>() else {
        return Vec::new();
    };
    let tables = plan.tables.iter().enumerate();
    tables
        .filter(|(_, t)| t.target == failed.table)
        .flat_map(|(table, t)| {
            generated(t).map(move |column| DifferingColumn {
                table,
                column,
                why: format!("PostgreSQL cannot compute it: {}", failed.reason),
            })
        })
        .collect()
}

/// The generated columns that are all in which the sides differ.
pub(crate) fn computed_differently(
    plan: &Plan,
    compared: &[ComparisonResult],
) -> Vec<DifferingColumn> {
    let mut found = Vec::new();
    for (table, (planned, compared)) in plan.tables.iter().zip(compared).enumerate() {
        let Some(difference) = &compared.difference else {
            continue;
        };
        let columns: Vec<usize> = generated(planned)
            .filter(|i| difference.columns.contains(&planned.columns[*i].source))
            .collect();
        if columns.len() == difference.columns.len() {
            found.extend(columns.into_iter().map(|column| DifferingColumn {
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
pub(crate) fn make_plain(plan: &mut Plan, columns: Vec<DifferingColumn>) {
    for DifferingColumn { table, column, why } in columns {
        let table = &mut plan.tables[table];
        table.columns[column].generated = None;
        table.warnings.push(format!(
            "generated column {}: moved as a plain one: {why}",
            table.columns[column].source
        ));
        table.lose_expression(column, true, &why);
    }
}

/// The report's entry of each table.
pub(crate) fn table_reports(
    plan: &Plan,
    rejects: &Rejects,
    loaded: &[(Loaded, f64)],
    results: &[ComparisonResult],
) -> Result<Vec<TableReport>> {
    let mut reports = Vec::new();
    for ((table, (loaded, seconds)), result) in plan.tables.iter().zip(loaded).zip(results) {
        let rows_quarantined = rejects.count(&table.source.name)?;
        let complete =
            table.stats.rows == loaded.rows + rows_quarantined && result.target.rows == loaded.rows;
        let columns = table.columns.iter().map(|c| (c.target.as_str(), c.pg));
        let mut warnings = table.warnings.clone();
        if rows_quarantined > 0 {
            let reasons = rejects.reasons(&table.source.name)?;
            warnings.push(format!("quarantined: {}", reasons.join("; ")));
        }
        reports.push(TableReport {
            rows_read: table.stats.rows,
            matched: result.matched() && complete,
            seconds: *seconds,
            bytes: loaded.bytes,
            ..TableReport::of(
                &table.source.name,
                &table.target,
                columns,
                result,
                rows_quarantined,
                warnings,
            )
        });
    }
    Ok(reports)
}
