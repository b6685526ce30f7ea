//! All tables of a plan: their bad rows quarantined, their good ones loaded by several workers.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use oa_core::base::threads;
use postgres::{Client, Transaction};
use rusqlite::types::ValueRef;

use super::copy::{self, Loaded, open_snapshot};
use super::finish::{self, Findings};
use super::forms;
use super::rejects::{self, Misfits, Rejects};
use super::staging::Target;
use crate::inspect::quote;
use crate::plan::{OnBadValue, Plan, PlannedTable};
use crate::workers;

/// Quarantines bad rows, table by table, then those with dangling foreign keys.
pub(crate) fn vet(
    client: &mut Client,
    snapshot: &Path,
    rejects: &Rejects,
    plan: &mut Plan,
    mode: OnBadValue,
) -> Result<()> {
    let connection = open_snapshot(snapshot, rejects)?;
    for table in plan.tables.iter().filter(|t| t.needs_vetting()) {
        let others = forms::others(table.loaded().map(|(_, c)| (c.source.as_str(), c.pg)));
        let name = quote(&table.source.name);
        forms::ask(client, &connection, &name, &others, &rejects.open()?)?;
        rejects::vet(&connection, rejects, table)?;
        let bad = rejects.count(&table.source.name)?;
        ensure!(
            mode != OnBadValue::Fail || bad == 0,
            "table {}: {bad} row(s) do not fit the columns of {}; nothing was changed. Correct them, or use --on-bad-value quarantine",
            table.source.name,
            table.qualified
        );
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

/// Quarantines the rows that the target's tables do not take. Everything is to be loaded again then: other rows may refer to
/// them.
pub(crate) fn vet_loaded(
    client: &mut Client,
    snapshot: &Path,
    rejects: &Rejects,
    plan: &mut Plan,
    mode: OnBadValue,
    misfits: &[Vec<Misfits>],
) -> Result<()> {
    {
        let connection = open_snapshot(snapshot, rejects)?;
        for (table, misfits) in plan.tables.iter().zip(misfits) {
            let Some(first) = misfits.first() else {
                continue;
            };
            ensure!(
                mode != OnBadValue::Fail,
                "the constraint {} of {} forbids {} row(s); nothing was changed. Correct them, or use --on-bad-value quarantine",
                first.constraint,
                table.qualified,
                first.rows.len()
            );
            rejects::quarantine_misfits(&connection, rejects, table, misfits)?;
        }
    }
    vet(client, snapshot, rejects, plan, mode)
}

/// Sees the rows of a table as they are read for loading, and looks at them again when they are there: the proof, which comes
/// with the load so that SQLite is read once, and that a table is read back while others are loaded.
pub(crate) trait Watch: Sync {
    /// What is added up while rows are read.
    type Rows: Send;
    /// What is found in the end.
    type Found: Send;

    /// The table has been created and is empty.
    fn begin(&self, tx: &mut Transaction<'_>, table: &PlannedTable) -> Result<Self::Rows>;
    /// The next value of a row.
    fn see(rows: &mut Self::Rows, position: usize, value: ValueRef<'_>);
    fn end_row(rows: &mut Self::Rows);
    /// The table is complete.
    fn end(&self, client: &mut Client, rows: Self::Rows) -> Result<Self::Found>;
}

/// What was loaded of each table, with the seconds it took.
#[derive(Debug)]
pub(crate) struct LoadedTable<F> {
    pub(crate) loaded: Loaded,
    pub(crate) seconds: f64,
    /// When it was complete, before it was looked at again.
    pub(crate) complete_at: Instant,
    /// None where it is to be loaded once more.
    pub(crate) found: Option<F>,
    /// Rows that the target's table does not take.
    pub(crate) misfits: Vec<Misfits>,
}

/// A table of so many rows is read back while its indexes are built.
const MANY_ROWS: u64 = 20_000;

/// Loads one table, builds what belongs to it, and reads it back: a large one meanwhile, over the second connection.
fn load_table<W: Watch>(
    (client, reader): &mut (Client, Option<Client>),
    target: &Target,
    from: (&Path, &Rejects),
    plan: &Plan,
    table: &PlannedTable,
    staging: &str,
    watch: &W,
) -> Result<(LoadedTable<W::Found>, Findings)> {
    let started = Instant::now();
    let (loaded, rows) = copy::load(client, from, plan, table, staging, watch)?;
    let beside = loaded.rows >= MANY_ROWS && table.existing.is_none();
    // It may have been cut off while it had nothing to do.
    if beside && reader.as_ref().is_none_or(Client::is_closed) {
        // Where there is none to be had, one thing is done after the other.
        *reader = target.connect().ok();
    }
    let mut of_table = Findings::default();
    let (complete_at, found) = if let Some(reader) = reader.as_mut().filter(|_| beside) {
        let (found, added) = threads::both(
            "read a table back",
            || watch.end(reader, rows),
            || finish::add_indexes(client, staging, table, &mut of_table),
        );
        let found = added.and(found)?;
        finish::add_constraints(client, staging, table, &mut of_table)?;
        (Instant::now(), Some(found))
    } else {
        finish::add_indexes(client, staging, table, &mut of_table)?;
        finish::add_constraints(client, staging, table, &mut of_table)?;
        let complete_at = Instant::now();
        let fits = of_table.misfits.is_empty();
        (
            complete_at,
            fits.then(|| watch.end(client, rows)).transpose()?,
        )
    };
    let loaded = LoadedTable {
        loaded,
        seconds: complete_at.duration_since(started).as_secs_f64(),
        complete_at,
        found,
        misfits: std::mem::take(&mut of_table.misfits),
    };
    Ok((loaded, of_table))
}

/// Loads all tables into the staging schema, the largest first, with their indexes; then the foreign keys.
pub(crate) fn load<W: Watch>(
    client: &mut Client,
    target: &Target,
    from: (&Path, &Rejects),
    plan: &mut Plan,
    staging: &str,
    workers: usize,
    watch: &W,
) -> Result<Vec<LoadedTable<W::Found>>> {
    let size = |i: &usize| -> u64 { plan.tables[*i].stats.columns.iter().map(|c| c.bytes).sum() };
    let mut order: Vec<usize> = (0..plan.tables.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(size(i)));
    let mut done = workers::each(
        workers,
        order.len(),
        || Ok((target.connect()?, None)),
        |connections, i| {
            let table = &plan.tables[order[i]];
            let (loaded, found) =
                load_table(connections, target, from, plan, table, staging, watch)?;
            Ok((order[i], loaded, found))
        },
    )?;
    done.sort_by_key(|(i, ..)| *i);
    let of_keys = finish::add_foreign_keys(client, staging, plan)?;
    let mut all = Vec::new();
    for ((i, mut loaded, found), mut of_keys) in done.into_iter().zip(of_keys) {
        loaded.misfits.append(&mut of_keys.misfits);
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
