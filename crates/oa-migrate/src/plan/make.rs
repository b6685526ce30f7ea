//! Making a plan of a snapshot: description, layout, one scan of every value, types.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use oa_core::pg::describe;
use postgres::Client;
use rusqlite::Connection;

use super::refuse::refuse_schema;
use super::{Existing, Layout, Plan, PlanArgs, existing};
use crate::inspect::{self, Database, Table, VirtualTable, scan};
use crate::workers;

/// Reads the source's description and values and makes the plan. `absent` are virtual tables that the source once had, `ours`
/// the target's tables that earlier runs have made.
pub(crate) fn make_plan(
    client: &mut Client,
    snapshot: &Path,
    source_path: &Path,
    args: &PlanArgs,
    absent: &[VirtualTable],
    ours: &HashSet<String>,
    workers: usize,
) -> Result<Plan> {
    refuse_schema(&args.schema)?;
    let connection = inspect::open(snapshot)?;
    let mut database = Database::read(&connection, source_path)?;
    database.virtual_tables.extend_from_slice(absent);
    ensure!(
        !database.tables.is_empty(),
        "{} holds no tables",
        source_path.display()
    );
    let taken = existing::relation_names(client, &args.schema)
        .map_err(|e| anyhow!("could not read the target's names: {}", describe(&e)))?;
    let mut args = args.clone();
    if let Some(mapping) = &mut args.mapping {
        mapping.resolve(client)?;
    }
    let schema = args.schema.clone();
    let layout = Layout::new(database, args, &taken, |name| {
        let found = existing::read(client, &schema, name)
            .with_context(|| format!("could not look at the target's table {name}"))?;
        Ok(found.map(|existing| Existing {
            ours: ours.contains(name),
            ..existing
        }))
    })?;
    let questions: Vec<(&Table, Vec<scan::Questions>)> = layout.questions().collect();
    let stats = workers::each(
        workers,
        questions.len(),
        || inspect::open(snapshot).map_err(Into::into),
        |connection: &mut Connection, i| {
            let (table, ask) = &questions[i];
            let stats = scan::scan(connection, table, ask);
            let stats = stats.map_err(|e| inspect::damage(source_path, e));
            stats.with_context(|| {
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
