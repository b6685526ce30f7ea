//! `oa-migrate sync`: brings what changed in SQLite since the last run or sync to the tables of every run of this source, one
//! transaction a run.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::Format;
use oa_core::app::work::{self, Job, JobOutcome};
use oa_core::base::failpoint;
use oa_core::journal::Recorder;
use oa_core::model::run::Status;
use oa_core::pg::{describe, revisions};
use postgres::{Client, Transaction};
use rusqlite::Connection;
use serde_json::json;
use uuid::Uuid;

use super::output::print_changes;
use super::{Progress, failure};
use crate::PROGRAM;
use crate::inspect::identity::{FileState, Identity};
use crate::inspect::{self, Database};
use crate::load::copy::open_snapshot;
use crate::load::rejects::Rejects;
use crate::load::staging::Target;
use crate::load::{sequences, swap};
use crate::plan::Missing;
use crate::proof::tables;
use crate::runs::grown::{self, Growth};
use crate::runs::{self, Base, RunSelection, base, target};
use crate::sync::{AllChanges, Fresh, SyncTable, TableChanges, apply, delta, forbidden, orphans};

/// Bring over what has changed in SQLite since the last run or sync: new, changed and deleted rows
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each run is synced in one transaction, which ends with a proof of all its tables. Use sync only before anything else writes to the target: it names rows that were changed there, and does nothing. A file that is not the run's source is refused with 77. Deleting or changing more than a tenth of a table's rows (and more than five) needs your consent.\nThe exit code is 1 as long as rows of the source are in oa.rejects and not in the tables.\n\nExamples:\n  oa-migrate sync option_tracker.db --dry-run\n  oa-migrate sync option_tracker.db --yes\n  oa-migrate sync /new/place/option_tracker.db --same-source\n  oa-migrate sync option_tracker.db --format json | jq .matched"
)]
pub(crate) struct Args {
    /// The SQLite file; it is opened read-only
    database: PathBuf,
    #[command(flatten)]
    selection: RunSelection,
    /// Do and prove everything, then roll it back
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before more than a tenth of a table's rows is deleted or changed
    #[arg(long)]
    yes: bool,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let source = inspect::open(&args.database).map_err(failure)?;
    let target = Target::new(config)?;
    let recorder = Recorder::open(config, PROGRAM)?;
    let mut client = runs::connect_exclusive(&target, recorder.state()).map_err(failure)?;
    let bases = base::settled(&mut client, recorder.state())?;
    let bases =
        base::of_source(bases, &args.selection, &source, &args.database, false).map_err(failure)?;
    let mut yes = args.yes;
    let (synced, id) = loop {
        let result = work::recorded(
            &recorder,
            &Job::by_hand(PROGRAM, "sync", "SQLite 增量同步"),
            |start| {
                let by = (start.id, config.keeps_revisions());
                sync(args, yes, &source, &mut client, &bases, by)
            },
        );
        match result {
            // Asked while nothing is locked; then everything is repeated.
            Err(e) if cli::interactive() => match e.error.downcast_ref::<TooManyChanges>() {
                Some(many) => {
                    cli::confirm(&many.question(), false)?;
                    yes = true;
                }
                None => return Err(e),
            },
            other => break other?,
        }
    };
    let head = [
        ("run_id", json!(id)),
        ("database", json!(args.database)),
        ("dry_run", json!(args.dry_run)),
    ];
    print_changes(&synced, head, args.format)?;
    let quarantined = synced.tables.iter().filter(|t| t.quarantined > 0);
    for table in quarantined.filter(|_| args.format != Format::Json) {
        tracing::warn!(
            "{}: {} row(s) {} in oa.rejects, not in the table",
            table.table,
            table.quarantined,
            if args.dry_run { "would be" } else { "are" }
        );
    }
    tracing::info!(
        "{} in {:.1} s",
        match (synced.matched(), args.dry_run) {
            (false, _) => "something else has written to the target: nothing was changed",
            (true, true) => "this would be done; nothing was changed",
            (true, false) if synced.quarantined() > 0 =>
                "both sides are the same, but for the rows in oa.rejects",
            (true, false) => "both sides are the same",
        },
        synced.seconds
    );
    let complete = synced.matched() && synced.quarantined() == 0 && synced.incomplete.is_empty();
    Ok(if complete { exit::OK } else { exit::FAILED })
}

/// More rows would be deleted or changed than one would expect.
#[derive(Debug, thiserror::Error)]
#[error(
    "more than a tenth of a table would be deleted or changed ({0}); nothing was changed there. See sync --dry-run; if that is intended, add --yes"
)]
struct TooManyChanges(String);

impl TooManyChanges {
    fn question(&self) -> String {
        format!(
            "More than a tenth of a table would be deleted or changed ({}). Go on?",
            self.0
        )
    }
}

fn sync(
    args: &Args,
    yes: bool,
    source: &Connection,
    client: &mut Client,
    bases: &[Base],
    (id, keeps_revisions): (Uuid, bool),
) -> Result<JobOutcome<(AllChanges, Uuid)>, Failure> {
    let started = Instant::now();
    let progress = Progress::start();
    let result = copies(args, source, bases, &progress)
        .map_err(Failure::from)
        .and_then(|(database, identity)| {
            let mut synced = AllChanges::default();
            let mut tables = base::new_tables(&database, bases);
            for not_moved in base::not_moved(&database, bases) {
                if not_moved.on_purpose {
                    synced.warnings.push(not_moved.sentence);
                } else if !tables.contains(&not_moved.name) {
                    synced.incomplete.push(not_moved.sentence);
                }
            }
            for base in bases {
                // New tables come with the first run.
                let growth = grown::find(
                    client,
                    &database,
                    &base.folder.next_snapshot(),
                    &base.record,
                    &std::mem::take(&mut tables),
                )?;
                let sync = BaseSync {
                    args,
                    yes,
                    base,
                    growth: growth.as_ref(),
                    database: &database,
                    identity: &identity,
                    run: id,
                    keeps_revisions,
                    progress: &progress,
                };
                match sync.run(client, &mut synced, false) {
                    Err(e) if e.error.is::<apply::DanglingRows>() => {
                        sync.run(client, &mut synced, true)?;
                    }
                    other => other?,
                }
            }
            Ok(synced)
        });
    progress.finish_and_clear();
    for base in bases {
        // Not committed: what was made for it is of no use. If it may have been, the next command finds out.
        if base.folder.pending()?.is_none() {
            let _ = fs::remove_file(base.folder.next_snapshot());
            let _ = fs::remove_file(base.folder.next_rejects());
        }
    }
    let mut synced = result?;
    synced.seconds = started.elapsed().as_secs_f64();
    let quarantined = synced.quarantined();
    let (status, error) = if !synced.matched() {
        let why = "the two sides are not the same; nothing was changed";
        (Status::Failed, Some(why.to_owned()))
    } else if !synced.incomplete.is_empty() {
        (Status::Partial, Some(synced.incomplete.join("; ")))
    } else if quarantined > 0 {
        let why = format!("{quarantined} row(s) are in oa.rejects, all others are the same");
        (Status::Partial, Some(why))
    } else {
        (Status::Success, None)
    };
    let mut details = synced.details();
    details.insert("of_run".to_owned(), json!(bases[0].record.run_id));
    details.insert("dry_run".to_owned(), json!(args.dry_run));
    Ok(JobOutcome {
        fetched: synced.tables.iter().map(|t| t.compared.source.rows).sum(),
        status,
        error,
        details,
        ..JobOutcome::success((synced, id))
    })
}

/// One copy of the source for all runs, so that all their tables are as of one point in time.
fn copies(
    args: &Args,
    source: &Connection,
    bases: &[Base],
    progress: &Progress,
) -> Result<(Database, Identity)> {
    for base in bases {
        ensure!(
            base.folder.snapshot().exists(),
            "the snapshot of run {} is gone (it is kept for seven days), so what has changed since is unknown; run again with --replace",
            base.record.run_id
        );
    }
    progress.set_message("copying the source");
    let first = bases[0].folder.next_snapshot();
    let file = FileState::read(&args.database)?;
    inspect::snapshot(source, &args.database, &first)?;
    let copied = inspect::open(&first)?;
    inspect::integrity(&copied, &args.database)?;
    let database = Database::read(&copied, &args.database)?;
    let identity = Identity::read(&copied, &args.database, file)?;
    for base in bases {
        let next = base.folder.next_snapshot();
        if next != first {
            let _ = fs::remove_file(&next);
            fs::hard_link(&first, &next)
                .or_else(|_| fs::copy(&first, &next).map(|_| ()))
                .with_context(|| format!("could not write {}", next.display()))?;
        }
    }
    Ok((database, identity))
}

/// Sets the next numbers beyond those of the rows, last of all, because no rollback would take that back. Returns what the role may
/// not set.
fn advance_numbers(tx: &mut Transaction<'_>, work: &[(SyncTable, bool)]) -> Result<Vec<String>> {
    let mut behind = Vec::new();
    for (sync, _) in work.iter().filter(|(_, any)| *any) {
        apply::advance_identities(tx, sync)?;
        behind.extend(swap::advance_sequences(tx, &sync.qualified())?);
    }
    Ok(behind.iter().map(Missing::sentence).collect())
}

struct BaseSync<'a> {
    args: &'a Args,
    yes: bool,
    base: &'a Base,
    growth: Option<&'a Growth>,
    database: &'a Database,
    identity: &'a Identity,
    run: Uuid,
    keeps_revisions: bool,
    progress: &'a Progress,
}

impl BaseSync<'_> {
    /// Brings the changes of one run's tables, and adds them to `synced`; with `dangling`, rows whose foreign keys dangle are
    /// quarantined.
    fn run(
        &self,
        client: &mut Client,
        synced: &mut AllChanges,
        dangling: bool,
    ) -> Result<(), Failure> {
        let Base { folder, record } = self.base;
        let record = self.growth.map_or(record, |g| &g.record);
        let (old, new) = (folder.snapshot(), folder.next_snapshot());
        let explain = |e: postgres::Error| anyhow!("PostgreSQL refused: {}", describe(&e));
        let rejects = base::quarantined_rows(client, folder, record, &folder.next_rejects())?;
        client
            .batch_execute("SET synchronous_commit = on")
            .map_err(explain)?;
        let mut tx = client.transaction().map_err(explain)?;
        if let Some(growth) = self.growth {
            tx.batch_execute("SET LOCAL lock_timeout = '30s'")
                .map_err(explain)?;
            growth.create(&mut tx)?;
        }
        let pairs = base::comparisons(&mut tx, self.database, record)?;
        let targets: Vec<&str> = record.tables.iter().map(|t| t.target.as_str()).collect();
        revisions::name_run(&mut tx, self.run).map_err(explain)?;
        // Nothing of a look is kept, and ending the revisions would wait for readers.
        let keeps_revisions = self.keeps_revisions && !self.args.dry_run;
        let mut undo = apply::lock(&mut tx, &record.schema, &targets, keeps_revisions)?;
        target::refuse_hidden_rows(&mut tx, &record.schema, &targets).map_err(failure)?;

        self.progress.set_message("comparing the snapshots");
        let both = delta::open(&old, &new, &rejects)?;
        let quarantined_before: i64 = both
            .query_row("SELECT coalesce(max(seq), 0) FROM main.rejects", [], |r| {
                r.get(0)
            })
            .map_err(anyhow::Error::from)?;
        let (mut work, mut quarantined) = (Vec::new(), Vec::new());
        for (number, (table, comparison)) in pairs.into_iter().enumerate() {
            let fresh = self.growth.map_or_else(Fresh::default, |g| Fresh {
                whole: g.is_new(&table.name),
                columns: g.columns_of(&table.name),
            });
            let sync = delta::describe_table(&mut tx, table, comparison, number, fresh)?;
            if self.args.dry_run {
                let given: Vec<&str> = sync.columns.iter().map(|(_, c, _)| c.as_str()).collect();
                sequences::stand_in(&mut tx, &sync.qualified(), "pg_temp", &given)?;
                sequences::restart_identities(&mut tx, &sync.qualified(), &given)?;
            }
            let (removed_count, added_count, refused) = delta::send(&mut tx, &both, &sync)?;
            let forbidden = forbidden::quarantine(&mut tx, &both, &sync)?;
            apply::index_references(&mut tx, &sync, removed_count, &mut undo)?;
            work.push((sync, removed_count + added_count > 0));
            quarantined.push(refused + forbidden);
        }
        failpoint::hit("sync.sent");

        self.progress.set_message("applying the changes");
        let (mut changes, suspended) = apply::all(&mut tx, &work)?;
        for (changes, count) in changes.iter_mut().zip(quarantined) {
            changes.quarantined = count;
        }
        if dangling {
            orphans::quarantine(&mut tx, &both, &record.schema, &work, &mut changes)?;
        }
        drop(both);
        apply::finish(&mut tx, &undo, &suspended)?;
        let mut incomplete = match self.growth {
            Some(growth) => growth.complete(&mut tx)?,
            None => Vec::new(),
        };

        self.progress.set_message("reading both sides back");
        let mut done = Vec::new();
        for ((sync, _), changes) in work.iter().zip(changes) {
            let compared = tables::compare(&mut tx, &new, &rejects, &sync.comparison)?;
            done.push(TableChanges {
                table: sync.table.name.clone(),
                target: sync.comparison.target.clone(),
                changes,
                quarantined: rejects
                    .count(&sync.table.name)
                    .map_err(anyhow::Error::from)?,
                grown: sync.fresh.whole || !sync.fresh.columns.is_empty(),
                compared,
            });
        }
        let matched = done.iter().all(|t| t.compared.matched());
        let many: Vec<String> = done.iter().filter_map(TableChanges::many).collect();
        if matched && !self.args.dry_run {
            if !(many.is_empty() || self.yes) {
                tx.rollback().map_err(explain)?;
                return Err(Failure::new(exit::REFUSED, TooManyChanges(many.join("; "))));
            }
            rejects.store(&mut tx, self.run, quarantined_before)?;
            incomplete.extend(advance_numbers(&mut tx, &work)?);
            apply::restore_policies(&mut tx, &undo)?;
            self.commit(tx, &rejects)?;
        } else {
            tx.rollback().map_err(explain)?;
            synced.warnings.extend(many.into_iter().map(|text| {
                format!("{text}: more than a tenth of the table, so sync needs --yes")
            }));
        }
        synced.tables.extend(done);
        synced.incomplete.extend(incomplete);
        Ok(())
    }

    /// Gives the transaction an id, and writes that down first, so that nobody has to guess whether it was committed.
    fn commit(&self, mut tx: Transaction<'_>, rejects: &Rejects) -> Result<()> {
        let Base { folder, record } = self.base;
        let explain = |e: postgres::Error| {
            anyhow!("the changes may not have been committed: {}", describe(&e))
        };
        let id = Uuid::now_v7();
        tx.execute(base::LEAVE_ID, &[&id]).map_err(explain)?;
        File::open(rejects.path())
            .and_then(|f| f.sync_all())
            .with_context(|| format!("could not write {}", rejects.path().display()))?;
        // Opened once more from where it lies: a copy that cannot be opened later is no base.
        open_snapshot(&folder.next_snapshot(), rejects)?;
        let mut identity = self.identity.clone();
        if let Some(source) = record.source.clone().filter(|s| {
            !self.args.selection.same_source && s.path != identity.path && s.path.is_file()
        }) {
            identity = identity.with_path_of(&source);
        }
        base::note_identity(folder, &identity)?;
        folder.update(|r| {
            r.pending_sync = Some(id.to_string());
            r.pending_tables = self
                .growth
                .map_or_else(Vec::new, |g| g.record.tables.clone());
        })?;
        failpoint::hit("sync.commit");
        tx.commit().map_err(explain)?;
        failpoint::hit("sync.committed");
        base::adopt(folder, &record.database)
    }
}
