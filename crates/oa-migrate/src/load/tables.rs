//! All tables of a plan: their bad rows quarantined, their good ones loaded by several workers.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use postgres::Client;

use super::copy::{self, Loaded, open_snapshot};
use super::finish;
use super::rejects::{self, Rejects};
use super::staging::Target;
use crate::plan::{OnBadValue, Plan};
use crate::workers;

/// Quarantines bad rows, table by table, then those with dangling foreign keys.
pub(crate) fn vet(
    snapshot: &Path,
    rejects: &Rejects,
    plan: &mut Plan,
    mode: OnBadValue,
) -> Result<()> {
    let connection = open_snapshot(snapshot, rejects)?;
    for table in plan.tables.iter().filter(|t| t.needs_vetting()) {
        rejects::vet(&connection, rejects, table)?;
    }
    let keep = mode != OnBadValue::Quarantine;
    for (table, columns, rows) in rejects::vet_foreign_keys(&connection, rejects, plan, keep)? {
        ensure!(
            mode != OnBadValue::Fail,
            "table {table}: the foreign key ({columns}) of {rows} row(s) refers to a missing row; nothing was changed. Correct them, or use --on-bad-value quarantine or widen"
        );
        if let Some(planned) = plan.tables.iter_mut().find(|t| t.source.name == table) {
            planned.warnings.push(format!(
                "foreign key ({columns}): {rows} row(s) refer to a missing row"
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
pub(crate) struct LoadedTable {
    pub(crate) loaded: Loaded,
    pub(crate) seconds: f64,
}

/// Loads all tables into the staging schema, the largest first, with their indexes; then the foreign keys.
pub(crate) fn load(
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
    let mut done = workers::each(
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
