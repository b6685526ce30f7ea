//! What the last finished run left to go on from: its snapshot of the source, the rows that are in SQLite only, and how names were
//! mapped. A sync that is committed makes its own snapshot the new base.

use std::fs;

use anyhow::{Context, Result, anyhow, bail, ensure};
use chrono_tz::Tz;
use oa_core::cli::Failure;
use oa_core::pg::{describe, schema};
use oa_core::state_dir::StateDir;
use postgres::{Client, GenericClient};

use crate::commands::run;
use crate::inspect::{Database, Table};
use crate::load::rejects::Rejects;
use crate::load::staging::Target;
use crate::proof::{Comparison, tables};
use crate::state::{self, RunFolder, RunRecord};

/// Connects for commands that only read: the last finished run, and what was killed settled if there is such a thing.
///
/// # Errors
/// See [`last`]; and 77 when another run works just now.
pub fn connect(
    target: &Target,
    state: &StateDir,
) -> Result<(Client, RunFolder, RunRecord), Failure> {
    let mut client = target.connect()?;
    schema::check(&mut client)?;
    if state::unsettled(state)? {
        // Killed around its COMMIT; under the lock it can be found out what became of it.
        client = run::connect(target, state)?;
        last(&mut client, state)?;
    }
    let (folder, record) = state::last_done(state)?.context(NONE_YET)?;
    Ok((client, folder, record))
}

const NONE_YET: &str = "there is no finished run to go on from; begin with oa-migrate run";

/// The last finished run, with an interrupted sync settled. Only for the holder of the database's lock.
///
/// # Errors
/// When there is none yet, or files or PostgreSQL cannot be read.
pub fn last(client: &mut Client, state: &StateDir) -> Result<(RunFolder, RunRecord)> {
    let (folder, mut record) = state::last_done(state)?.context(NONE_YET)?;
    settle(client, &folder, &mut record)?;
    Ok((folder, record))
}

/// Finds out what became of a sync that was killed around its COMMIT, and takes its snapshot as the new base or throws it away.
///
/// # Errors
/// When PostgreSQL does not know the transaction any more, or a file cannot be changed.
fn settle(client: &mut Client, folder: &RunFolder, record: &mut RunRecord) -> Result<()> {
    if let Some(transaction) = &record.pending_sync {
        let status: Option<String> = client
            .query_one("SELECT pg_xact_status($1::text::xid8)", &[transaction])
            .map_err(|e| {
                anyhow!(
                    "could not find out whether the last sync was committed: {}; run again with --replace",
                    describe(&e)
                )
            })?
            .get(0);
        match status.as_deref() {
            Some("committed") => return adopt(folder, record),
            Some("aborted") => {}
            Some("in progress") => {
                bail!("the last sync is still being committed by PostgreSQL; try again in a moment")
            }
            _ => bail!(
                "PostgreSQL does not know any more whether the last sync was committed; run again with --replace"
            ),
        }
        record.pending_sync = None;
        folder.write(record)?;
    }
    for path in [folder.next_snapshot(), folder.next_rejects()] {
        if path.exists() {
            fs::remove_file(&path)
                .with_context(|| format!("could not remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Makes a committed sync's snapshot the base. May be repeated after being killed anywhere in it.
///
/// # Errors
/// When a file cannot be renamed.
pub fn adopt(folder: &RunFolder, record: &mut RunRecord) -> Result<()> {
    for (from, to) in [
        (folder.next_rejects(), folder.rejects()),
        (folder.next_snapshot(), folder.snapshot()),
    ] {
        if from.exists() {
            fs::rename(&from, &to)
                .with_context(|| format!("could not rename {}", from.display()))?;
        }
    }
    record.pending_sync = None;
    folder.write(record)
}

/// The rows that the target is not meant to hold: put aside by the run or its syncs, or moved by `dedupe` since. Written to `to`.
///
/// # Errors
/// When a file or `oa.rejects` cannot be read.
pub fn put_aside(
    client: &mut impl GenericClient,
    folder: &RunFolder,
    record: &RunRecord,
    to: &std::path::Path,
) -> Result<Rejects> {
    let rejects = Rejects::of_run(&folder.rejects())?.copy_to(to)?;
    let rows = client
        .query(
            "SELECT target, source_key FROM oa.rejects WHERE task = 'dedupe' AND created_at >= $1 AND source_key IS NOT NULL",
            &[&record.started_at],
        )
        .map_err(|e| anyhow!("could not read oa.rejects: {}", describe(&e)))?;
    let moved: Vec<(String, String)> = rows
        .iter()
        .filter_map(|row| {
            let target: String = row.get(0);
            let table = record.tables.iter().find(|t| t.target == target)?;
            Some((table.source.clone(), row.get(1)))
        })
        .collect();
    rejects.note(&moved)?;
    Ok(rejects)
}

/// The tables of a run as they are now in the source, with what is to be compared.
///
/// # Errors
/// When a table or column of the run is gone on one of the sides.
pub fn comparisons(
    client: &mut impl GenericClient,
    database: &Database,
    record: &RunRecord,
) -> Result<Vec<(Table, Comparison)>> {
    let zone: Option<Tz> = record
        .timestamps_in
        .as_deref()
        .map(|z| {
            z.parse()
                .map_err(|_| anyhow!("unknown time zone {z} in run.json"))
        })
        .transpose()?;
    let mut found = Vec::new();
    for of_run in &record.tables {
        let table = database
            .tables
            .iter()
            .find(|t| t.name == of_run.source)
            .with_context(|| format!("table {} is no longer in the source", of_run.source))?;
        let comparison = tables::comparison(
            client,
            table,
            &record.schema,
            &of_run.target,
            zone,
            |name| of_run.target_of(name),
        )?;
        found.push((table.clone(), comparison));
    }
    Ok(found)
}

/// Tables of the source that the run did not move, for a warning.
#[must_use]
pub fn strangers(database: &Database, record: &RunRecord) -> Vec<String> {
    database
        .tables
        .iter()
        .filter(|t| !record.tables.iter().any(|r| r.source == t.name))
        .map(|t| format!("table {} was not part of the run", t.name))
        .collect()
}

/// Refuses a source whose tables are not the ones that the run moved.
///
/// # Errors
/// When columns were added or taken away since.
pub fn same_columns(database: &Database, record: &RunRecord) -> Result<()> {
    for of_run in &record.tables {
        let Some(table) = database.tables.iter().find(|t| t.name == of_run.source) else {
            bail!(
                "table {} is no longer in the source; run again with --replace",
                of_run.source
            );
        };
        let now: Vec<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
        let then: Vec<&str> = of_run.columns.iter().map(|(s, _)| s.as_str()).collect();
        ensure!(
            now == then,
            "the columns of table {} have changed since the run (then: {}; now: {}); run again with --replace",
            table.name,
            then.join(", "),
            now.join(", ")
        );
    }
    Ok(())
}
