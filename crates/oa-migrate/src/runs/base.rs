//! What the last finished run left to go on from: its snapshot of the source, the rows that are in SQLite only, and how names
//! were mapped. A sync that is committed makes its own snapshot the new base.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use chrono_tz::Tz;
use oa_core::base::state_dir::{StateDir, write_durably};
use oa_core::pg::{describe, schema};
use postgres::error::SqlState;
use postgres::{Client, GenericClient};
use rusqlite::Connection;
use uuid::Uuid;

use super::connect::connect_exclusive;
use super::folder::{self, RunFolder, RunRecord, Stage};
use super::target::runs_here;
use crate::errors::Refused;
use crate::inspect::identity::{self, FileState, Identity};
use crate::inspect::{self, Database, Table};
use crate::load::rejects::Rejects;
use crate::load::staging::Target;
use crate::proof::{Comparison, tables};

/// A finished run, with those of its tables that no later run has replaced.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    /// Its folder.
    pub(crate) folder: RunFolder,
    /// Its record; `run.json` may have more tables.
    pub(crate) record: RunRecord,
}

// Which runs a command works on. No documentation comment: clap would print it as the command's own.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct RunSelection {
    /// Only runs into this schema [default: all of this source]
    #[arg(long, value_name = "SCHEMA")]
    pub(crate) schema: Option<String>,
    /// Treat the file as the run's source, although its path or its rows differ
    #[arg(long)]
    pub(crate) same_source: bool,
}

/// By this row it is known later whether a transaction was committed.
pub(crate) const LEAVE_ID: &str = "INSERT INTO oa.commits (id, kept) VALUES ($1, true)";
const NONE_YET: &str = "there is no finished run to go on from; begin with oa-migrate run";

/// Connects for commands that only read. What was killed around its COMMIT is settled first; refused when another run works
/// just now.
pub(crate) fn connect(target: &Target, state: &StateDir) -> Result<(Client, Vec<Base>)> {
    let mut client = target.connect()?;
    schema::check(&mut client)?;
    let here = runs_here(&mut client, state)?;
    let unsettled = folder::runs(state)?.iter().any(|(_, r)| {
        here.contains(&r.run_id) && (r.stage == Stage::Swapping || r.pending_sync.is_some())
    });
    if unsettled {
        // Under the lock it can be settled.
        client = connect_exclusive(target, state)?;
        for base in in_place(&mut client, state)? {
            settle(&mut client, &base.folder, &base.record)?;
        }
    }
    let bases = in_place(&mut client, state)?;
    Ok((client, bases))
}

/// The finished runs of this database whose tables are in place, newest first, none of them a table of another.
pub(crate) fn in_place(client: &mut Client, state: &StateDir) -> Result<Vec<Base>> {
    let here = runs_here(client, state)?;
    let mut taken = HashSet::new();
    let mut bases = Vec::new();
    for (folder, mut record) in folder::runs(state)? {
        if record.stage != Stage::Done || !here.contains(&record.run_id) {
            continue;
        }
        let schema = record.schema.clone();
        record
            .tables
            .retain(|t| taken.insert((schema.clone(), t.target.clone())));
        if !record.tables.is_empty() {
            bases.push(Base { folder, record });
        }
    }
    ensure!(!bases.is_empty(), NONE_YET);
    Ok(bases)
}

/// The tables of a schema that were not there before a run made them.
pub(crate) fn made_by_runs(
    client: &mut Client,
    state: &StateDir,
    schema: &str,
) -> Result<HashSet<String>> {
    let here = runs_here(client, state)?;
    let (mut made, mut seen) = (HashSet::new(), HashSet::new());
    for (_, record) in folder::runs(state)?.into_iter().rev() {
        if record.stage == Stage::Done && record.schema == schema && here.contains(&record.run_id) {
            for table in record.tables {
                if seen.insert(table.target.clone()) && !table.replaced {
                    made.insert(table.target);
                }
            }
        }
    }
    Ok(made)
}

/// [`in_place`], after interrupted syncs are settled. Only for the holder of the database's lock.
pub(crate) fn settled(client: &mut Client, state: &StateDir) -> Result<Vec<Base>> {
    for base in in_place(client, state)? {
        settle(client, &base.folder, &base.record)?;
    }
    in_place(client, state)
}

/// The runs into a schema, or all.
pub(crate) fn of_schema(bases: Vec<Base>, schema: Option<&str>) -> Result<Vec<Base>> {
    let Some(schema) = schema else {
        return Ok(bases);
    };
    let list = sources(&bases);
    let kept: Vec<Base> = bases
        .into_iter()
        .filter(|b| b.record.schema == schema)
        .collect();
    if kept.is_empty() {
        return Err(refused(format!(
            "there is no finished run into schema {schema}; there are: {list}"
        )));
    }
    Ok(kept)
}

/// The runs whose source is a file, oldest first. With `written_back`, also files that `to-sqlite` has made of it.
pub(crate) fn of_source(
    bases: Vec<Base>,
    selection: &RunSelection,
    source: &Connection,
    path: &Path,
    written_back: bool,
) -> Result<Vec<Base>> {
    let bases = of_schema(bases, selection.schema.as_deref())?;
    let here = identity::canonical(path);
    let (mut fit, mut others) = (Vec::new(), Vec::new());
    for base in bases {
        let doubts = doubts(&base, source, path, written_back)?;
        if doubts.is_empty() {
            fit.push(base);
        } else {
            others.push((base, doubts));
        }
    }
    // A run of a file at this path is meant too; skipped silently, its tables would stay behind.
    let same_path = |b: &Base| b.record.database == here;
    if selection.same_source {
        let all: Vec<Base> = fit
            .into_iter()
            .chain(others.into_iter().map(|(b, _)| b))
            .collect();
        let mut meant: Vec<Base> = all.iter().filter(|b| same_path(b)).cloned().collect();
        let of_one = all
            .iter()
            .all(|b| b.record.database == all[0].record.database);
        if meant.is_empty() && of_one {
            meant.clone_from(&all);
        }
        if meant.is_empty() {
            return Err(refused(format!(
                "{} may be the source of several runs; choose one with --schema: {}",
                path.display(),
                sources(&all)
            )));
        }
        meant.sort_by_key(|b| b.record.run_id);
        return Ok(meant);
    }
    let doubtful = if fit.is_empty() {
        others.iter().find(|(b, _)| same_path(b)).or(others.first())
    } else {
        others.iter().find(|(b, _)| same_path(b))
    };
    if let Some((base, doubts)) = doubtful {
        return Err(refused(format!(
            "{} is not the source of run {} (schema {}), which came from {}: {}; nothing was changed. Name the run's source{}; if it is the same database all the same, add --same-source",
            path.display(),
            base.record.run_id,
            base.record.schema,
            base.record.database.display(),
            doubts.join("; "),
            if fit.len() + others.len() > 1 {
                format!(
                    " (or choose with --schema; sources are: {})",
                    sources(others.iter().map(|(b, _)| b))
                )
            } else {
                String::new()
            }
        )));
    }
    fit.sort_by_key(|b| b.record.run_id);
    Ok(fit)
}

fn doubts(
    base: &Base,
    source: &Connection,
    path: &Path,
    written_back: bool,
) -> Result<Vec<String>> {
    let record = &base.record;
    let identity = match &record.source {
        Some(identity) => identity.clone(),
        // A run of an older version: its snapshot says as much.
        None if base.folder.snapshot().exists() => Identity::read(
            &inspect::open(&base.folder.snapshot())?,
            &record.database,
            FileState::default(),
        )?,
        None if identity::canonical(path) == record.database => return Ok(Vec::new()),
        None => {
            return Ok(vec![
                "its path differs, and nothing else is known of the source".to_owned(),
            ]);
        }
    };
    let context = || format!("could not read {}", path.display());
    let of_source = identity.assess(source, path).with_context(context)?;
    if of_source.is_empty() || !written_back {
        return Ok(of_source);
    }
    for back in &record.written_back {
        if back.assess(source, path)?.is_empty() {
            return Ok(Vec::new());
        }
    }
    Ok(of_source)
}

fn refused(text: String) -> anyhow::Error {
    Refused(text).into()
}

/// Sources and schemas for people.
pub(crate) fn sources<'a>(bases: impl IntoIterator<Item = &'a Base>) -> String {
    let mut list: Vec<String> = bases
        .into_iter()
        .map(|b| {
            format!(
                "{} in schema {}",
                b.record.database.display(),
                b.record.schema
            )
        })
        .collect();
    list.sort();
    list.dedup();
    list.join(", ")
}

/// Settles a sync that was killed around its COMMIT: asks PostgreSQL whether it was committed, and makes its snapshot the new
/// base or removes it.
fn settle(client: &mut Client, folder: &RunFolder, record: &RunRecord) -> Result<()> {
    if let Some(id) = &record.pending_sync {
        if was_committed(client, id)? {
            return adopt(folder, &record.database);
        }
        folder.update(|r| {
            r.pending_sync = None;
            r.pending_tables.clear();
        })?;
    }
    for path in [folder.next_snapshot(), folder.next_rejects()] {
        if path.exists() {
            fs::remove_file(&path)
                .with_context(|| format!("could not remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Whether a sync's transaction was committed; if not, it never will be: its id is taken. Its number would not say so: a server that has
/// taken over may have given that to another transaction.
fn was_committed(client: &mut Client, id: &str) -> Result<bool> {
    let Ok(id) = id.parse::<Uuid>() else {
        bail!(
            "an older version's sync was killed at its end, and nothing says for sure whether it was committed; run again with --replace"
        );
    };
    match client.execute(&format!("{LEAVE_ID} ON CONFLICT DO NOTHING"), &[&id]) {
        Ok(taken) => Ok(taken == 0),
        Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            bail!("PostgreSQL is still committing the last sync; try again shortly")
        }
        Err(e) => bail!(
            "could not determine whether the last sync was committed: {}; try again",
            describe(&e)
        ),
    }
}

/// Makes a committed sync's snapshot the base. May be repeated after being killed anywhere in it.
pub(crate) fn adopt(folder: &RunFolder, database: &Path) -> Result<()> {
    for (from, to) in [
        (folder.next_rejects(), folder.rejects()),
        (folder.next_snapshot(), folder.snapshot()),
    ] {
        if from.exists() {
            fs::rename(&from, &to)
                .with_context(|| format!("could not rename {}", from.display()))?;
        }
    }
    let source = next_identity(folder, database)?;
    folder.update(|r| {
        r.pending_sync = None;
        for table in std::mem::take(&mut r.pending_tables) {
            match r.tables.iter_mut().find(|t| t.target == table.target) {
                Some(known) => *known = table,
                None => r.tables.push(table),
            }
        }
        r.database.clone_from(&source.path);
        r.source = Some(source);
    })?;
    let _ = fs::remove_file(folder.path.join(NEXT_SOURCE));
    Ok(())
}

/// What the sync saw of the file; where it was killed before it could note that, the rows of the new base say it.
fn next_identity(folder: &RunFolder, database: &Path) -> Result<Identity> {
    let noted = folder.path.join(NEXT_SOURCE);
    let identity = if noted.exists() {
        let text =
            fs::read(&noted).with_context(|| format!("could not read {}", noted.display()))?;
        serde_json::from_slice(&text)?
    } else {
        Identity::read(
            &inspect::open(&folder.snapshot())?,
            database,
            FileState::default(),
        )?
    };
    Ok(identity)
}

/// Notes what a sync saw of the file, for [`adopt`].
pub(crate) fn note_identity(folder: &RunFolder, identity: &Identity) -> Result<()> {
    write_durably(
        &folder.path.join(NEXT_SOURCE),
        &serde_json::to_vec(identity)?,
    )
    .context("could not note the source")
}

const NEXT_SOURCE: &str = "next-source.json";

/// The rows that the target is not meant to hold: quarantined by the run or its syncs, or moved by `dedupe` since. Written to
/// `to`.
pub(crate) fn quarantined_rows(
    client: &mut impl GenericClient,
    folder: &RunFolder,
    record: &RunRecord,
    to: &Path,
) -> Result<Rejects> {
    let rejects = Rejects::of_run(&folder.rejects())?.copy_to(to)?;
    let rows = client
        .query(
            "SELECT target, source_key FROM oa.rejects WHERE task = 'dedupe' AND created_at >= $1 AND source_key IS NOT NULL AND $2 = 'public'",
            &[&record.started_at, &record.schema],
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
pub(crate) fn comparisons(
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
            |name| {
                (
                    of_run.target_of(name),
                    of_run.conversions.get(name).copied(),
                )
            },
        )?;
        found.push((table.clone(), comparison));
    }
    Ok(found)
}

fn is_moved(bases: &[Base], name: &str) -> bool {
    let mut tables = bases.iter().flat_map(|b| &b.record.tables);
    tables.any(|t| t.source == name)
}

/// Older versions did not note what was skipped.
fn is_skipped(bases: &[Base], name: &str) -> bool {
    bases.iter().any(|b| {
        let skipped = b.record.skipped.as_ref();
        skipped.is_none_or(|s| s.iter().any(|s| s == name))
    })
}

/// The tables that the source has got since its runs.
pub(crate) fn new_tables(database: &Database, bases: &[Base]) -> Vec<String> {
    let tables = database.tables.iter().map(|t| &t.name);
    tables
        .filter(|name| !is_moved(bases, name) && !is_skipped(bases, name))
        .cloned()
        .collect()
}

/// Something of the source that no run has moved.
#[derive(Debug)]
pub(crate) struct NotMoved {
    pub(crate) name: String,
    pub(crate) sentence: String,
    pub(crate) on_purpose: bool,
}

/// What of the source no run has moved.
pub(crate) fn not_moved(database: &Database, bases: &[Base]) -> Vec<NotMoved> {
    let moved = |name: &str| is_moved(bases, name);
    let on_purpose = |name: &str| is_skipped(bases, name);
    let tables = database.tables.iter().filter(|t| !moved(&t.name));
    let tables = tables.map(|t| NotMoved {
        name: t.name.clone(),
        sentence: format!(
            "table {} was not part of the run; oa-migrate run --include {0} moves it",
            t.name
        ),
        on_purpose: on_purpose(&t.name),
    });
    let virtual_tables = database.virtual_tables.iter().filter(|v| v.lost);
    let virtual_tables = virtual_tables.map(|v| NotMoved {
        name: v.name.clone(),
        sentence: format!("virtual table {} is not moved: it {}", v.name, v.why),
        on_purpose: on_purpose(&v.name),
    });
    tables.chain(virtual_tables).collect()
}

/// Refuses a source whose tables are not the ones that the run moved.
pub(crate) fn same_columns(database: &Database, record: &RunRecord) -> Result<()> {
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
