//! What the source has more than when its run or last sync read it: new tables, and new columns of known ones. They are created in
//! the transaction that brings the rows; what they have besides (keys, indexes, defaults) as a run would.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use chrono_tz::Tz;
use oa_core::pg::{describe, quote_ident};
use postgres::{Client, Transaction};

use super::folder::{self, RunRecord};
use crate::inspect::{Database, Table};
use crate::load::staging::{self, column_definition, create_table};
use crate::load::{ddl, in_place, swap};
use crate::plan::make::make_plan;
use crate::plan::mapping::Mapping;
use crate::plan::names::Identifiers;
use crate::plan::{Missing, OnBadValue, Plan, PlanArgs, PlannedTable};

/// The source's growth since a run's base.
#[derive(Debug)]
pub(crate) struct Growth {
    plan: Plan,
    /// Known tables with the columns that their base does not have.
    columns: Vec<(String, Vec<String>)>,
    /// The run with the tables and columns that it has then.
    pub(crate) record: RunRecord,
}

/// The columns of a table that the run does not know. Refused where others are gone or stand in another order.
fn new_columns(table: &Table, then: &[(String, String)]) -> Result<Vec<String>> {
    let known = |name: &str| then.iter().any(|(source, _)| source == name);
    let now: Vec<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
    let kept: Vec<&str> = now.iter().copied().filter(|c| known(c)).collect();
    let then: Vec<&str> = then.iter().map(|(source, _)| source.as_str()).collect();
    ensure!(
        kept == then,
        "the columns of table {} have changed since the run (then: {}; now: {}); run again with --replace",
        table.name,
        then.join(", "),
        now.join(", ")
    );
    Ok(now
        .into_iter()
        .filter(|c| !known(c))
        .map(str::to_owned)
        .collect())
}

/// What the run was asked for, as far as it matters for what is new.
fn args_of(record: &RunRecord, tables: &[String]) -> Result<PlanArgs> {
    let keeps = |(source, target): (&String, &String)| {
        source == target && source.chars().any(char::is_uppercase)
    };
    let kept = record
        .tables
        .iter()
        .any(|t| keeps((&t.source, &t.target)) || t.columns.iter().any(|(s, t)| keeps((s, t))));
    let zone: Option<Tz> = record
        .timestamps_in
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|_| anyhow!("unknown time zone in run.json"))?;
    let mut mapping = Mapping::default();
    for known in &record.tables {
        mapping.keep_names(
            &known.source,
            &known.target,
            &known.columns,
            &known.conversions,
        );
    }
    Ok(PlanArgs {
        schema: record.schema.clone(),
        identifiers: if kept {
            Identifiers::Keep
        } else {
            Identifiers::Lower
        },
        // The others as well: foreign keys lead to them.
        include: tables
            .iter()
            .chain(record.tables.iter().map(|t| &t.source))
            .cloned()
            .collect(),
        exclude: Vec::new(),
        on_bad_value: OnBadValue::Quarantine,
        timestamps_in: zone,
        mapping: Some(mapping),
    })
}

/// Looks for growth; `tables` are new ones that are to come with this run. None where there is nothing new.
pub(crate) fn find(
    client: &mut Client,
    database: &Database,
    snapshot: &Path,
    record: &RunRecord,
    tables: &[String],
) -> Result<Option<Growth>> {
    let mut columns = Vec::new();
    for of_run in &record.tables {
        let table = database
            .tables
            .iter()
            .find(|t| t.name == of_run.source)
            .with_context(|| {
                format!(
                    "table {} is no longer in the source; run again with --replace",
                    of_run.source
                )
            })?;
        let new = new_columns(table, &of_run.columns)?;
        if !new.is_empty() {
            columns.push((of_run.source.clone(), new));
        }
    }
    if tables.is_empty() && columns.is_empty() {
        return Ok(None);
    }
    let args = args_of(record, tables)?;
    let made: HashSet<String> = HashSet::new();
    let mut plan = make_plan(client, snapshot, &record.database, &args, &[], &made, 1)?;
    staging::try_expressions(client, "pg_temp", &mut plan)?;
    let mut record = record.clone();
    let planned = folder::record_of(
        &plan,
        record.run_id,
        record.started_at,
        &record.database,
        args.timestamps_in,
    );
    for table in planned.tables {
        if let Some(known) = record.tables.iter_mut().find(|t| t.source == table.source) {
            known.columns = table.columns;
        } else {
            ensure!(
                !table.replaced,
                "the source has a new table {}, and the target has one of that name already; oa-migrate run --include {0} moves it",
                table.source
            );
            record.tables.push(table);
        }
    }
    plan.tables.retain(|t| {
        let name = &t.source.name;
        tables.contains(name) || columns.iter().any(|(table, _)| table == name)
    });
    plan.missing.clear();
    Ok(Some(Growth {
        plan,
        columns,
        record,
    }))
}

impl Growth {
    fn tables(&self) -> impl Iterator<Item = (&PlannedTable, bool)> {
        self.plan.tables.iter().map(|t| (t, t.existing.is_none()))
    }

    /// Whether the base has no such table.
    pub(crate) fn is_new(&self, source: &str) -> bool {
        self.tables().any(|(t, new)| new && t.source.name == source)
    }

    /// The columns of a known table that its base does not have.
    pub(crate) fn columns_of(&self, source: &str) -> Vec<String> {
        let found = self.columns.iter().find(|(table, _)| table == source);
        found.map_or_else(Vec::new, |(_, columns)| columns.clone())
    }

    fn added(table: &PlannedTable) -> impl Iterator<Item = &crate::plan::PlannedColumn> {
        let there = table.existing.as_ref();
        table
            .columns
            .iter()
            .filter(move |c| there.is_some_and(|e| !e.columns.iter().any(|e| e.name == c.target)))
    }

    /// Whether a table was there before the run, so that a rollback leaves it where it is and takes back what was added to it.
    fn stays(&self, target: &str) -> bool {
        let mut tables = self.record.tables.iter();
        tables.any(|t| t.in_place && t.target == target)
    }

    /// Creates the tables and columns, empty: a new column has no default yet, so that older rows have none of it, as in the base.
    pub(crate) fn create(&self, tx: &mut Transaction<'_>) -> Result<()> {
        let before = swap::before_schema(self.record.run_id);
        let notes = in_place::has_undo(tx, &before)?;
        for (table, new) in self.tables() {
            let mut statements = Vec::new();
            if new {
                let schema = &self.plan.schema;
                statements.extend(create_table(schema, schema, table));
            }
            for column in Self::added(table) {
                let name = quote_ident(&column.target);
                let definition = if column.generated.is_some() {
                    column_definition(&self.plan.schema, table, &column.target)
                } else {
                    format!("{name} {}", column.pg)
                };
                statements.push(format!(
                    "ALTER TABLE {} ADD COLUMN {definition}",
                    table.qualified
                ));
            }
            for sql in statements {
                tx.batch_execute(&sql).map_err(|e| {
                    anyhow!(
                        "could not create what the source has more: {}; the statement was: {sql}",
                        describe(&e)
                    )
                })?;
            }
            if notes && self.stays(&table.target) {
                for column in Self::added(table) {
                    in_place::note_new_column(tx, &before, &table.qualified, &column.target)?;
                }
            }
        }
        Ok(())
    }

    /// Creates keys, indexes, defaults and constraints, when the rows are there. Returns what PostgreSQL refuses.
    pub(crate) fn complete(&self, tx: &mut Transaction<'_>) -> Result<Vec<String>> {
        let mut missing: Vec<Missing> = self.plan.missing();
        let before = swap::before_schema(self.record.run_id);
        let notes = in_place::has_undo(tx, &before)?;
        for (table, new) in self.tables() {
            let of = &table.qualified;
            let mut statements = Vec::new();
            if new && !table.primary_key.is_empty() {
                let kind = if ddl::nullable_key(table) {
                    "UNIQUE"
                } else {
                    "PRIMARY KEY"
                };
                statements.push(("primary key".to_owned(), ddl::primary_key(of, table, kind)));
            }
            for column in Self::added(table).filter(|c| c.generated.is_none()) {
                let name = quote_ident(&column.target);
                if let Some(default) = &column.default {
                    let sql = format!("ALTER TABLE {of} ALTER COLUMN {name} SET DEFAULT {default}");
                    statements.push((format!("default of column {}", column.target), sql));
                }
                if column.not_null {
                    let sql = format!("ALTER TABLE {of} ALTER COLUMN {name} SET NOT NULL");
                    statements.push((format!("NOT NULL of column {}", column.target), sql));
                }
            }
            if new {
                for (name, check) in &table.checks {
                    let sql = ddl::check(of, name.as_deref(), check);
                    statements.push(("CHECK constraint".to_owned(), sql));
                }
            }
            for (item, sql) in statements {
                missing.extend(attempt(tx, table, item, sql)?);
            }
            let noted = notes && self.stays(&table.target);
            let noted = noted.then_some(before.as_str());
            missing.extend(swap::add_indexes(tx, &self.plan.schema, table, noted)?);
        }
        for (table, _) in self.tables() {
            for key in table.foreign_keys.iter().filter(|k| !k.of_target) {
                let sql = ddl::foreign_key(&table.qualified, key, &self.plan.schema);
                let item = format!("foreign key ({})", key.columns.join(", "));
                let refused = attempt(tx, table, item, sql)?;
                // Otherwise a table that a rollback sets aside would go on forbidding rows of the one that stays.
                let of_one_that_stays =
                    self.stays(&table.target) || key.parent_moves && self.stays(&key.parent);
                if notes && refused.is_none() && of_one_that_stays {
                    in_place::note_new_key(tx, &before, &table.qualified)?;
                }
                missing.extend(refused);
            }
        }
        Ok(missing.iter().map(Missing::sentence).collect())
    }
}

fn attempt(
    tx: &mut Transaction<'_>,
    table: &PlannedTable,
    item: String,
    sql: String,
) -> Result<Option<Missing>> {
    Ok(swap::try_statement(tx, &sql)?.map(|why| Missing {
        table: table.qualified.clone(),
        item,
        had: "the source's".to_owned(),
        has: format!("not created: {why}"),
        sql,
    }))
}
