//! `oa-migrate sync`: brings what changed in SQLite since the last run or sync.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use indicatif::ProgressBar;
use oa_core::app::cli;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::Format;
use oa_core::base::failpoint;
use oa_core::journal::Recorder;
use oa_core::model::run::Status;
use oa_core::pg;
use oa_core::pg::describe;
use postgres::Client;
use rusqlite::Connection;
use serde_json::json;
use uuid::Uuid;

use crate::PROGRAM;
use crate::base::{self, Base, Which};
use crate::changes::{AllChanges, TableChanges};
use crate::commands::run;
use crate::identity::{FileState, Identity};
use crate::inspect::{self, Database};
use crate::load::copy::open_snapshot;
use crate::load::rejects::Rejects;
use crate::load::staging::Target;
use crate::load::swap;
use crate::proof::missing::Missing;
use crate::proof::tables;
use crate::sync::{apply, delta, orphans};
use oa_core::app::work;
use oa_core::app::work::{Job, JobOutcome};

/// What `sync` was asked for.
#[derive(Debug)]
pub struct Options {
    /// The SQLite file.
    pub database: PathBuf,
    /// Which runs.
    pub which: Which,
    /// Do everything, report, and commit nothing.
    pub dry_run: bool,
    /// Do not ask before many rows are deleted or changed.
    pub yes: bool,
    /// How the result is printed.
    pub format: Format,
}

/// Brings the changes to the tables of every run of this source, one transaction a run, and prints what they were.
///
/// # Errors
/// No run yet, or something else wrote to the target (1); the file is not the run's source, many rows would be deleted or changed
/// and it was not confirmed, or another run works there (77); PostgreSQL is away (75).
pub fn run(config: &Config, options: &Options) -> Result<u8, Failure> {
    let source = inspect::open(&options.database).map_err(anyhow::Error::from)?;
    let target = Target {
        settings: pg::Settings::from_config(config, PROGRAM)?,
    };
    let recorder = Recorder::open(config, PROGRAM)?;
    let mut client = run::connect(&target, recorder.state())?;
    let bases = base::settled(&mut client, recorder.state())?;
    let bases = base::of_source(bases, &options.which, &source, &options.database, false)?;
    let mut yes = options.yes;
    let (synced, id) = loop {
        let result = work::recorded(
            &recorder,
            &Job::by_hand(PROGRAM, "sync", "SQLite 增量同步"),
            |start| all(options, yes, &source, &mut client, &bases, start.id),
        );
        match result {
            // Asked with nothing locked; then everything is done anew.
            Err(e) if cli::interactive() => match e.error.downcast_ref::<Many>() {
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
        ("database", json!(options.database)),
        ("dry_run", json!(options.dry_run)),
    ];
    synced.print(
        head.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        options.format,
    )?;
    tracing::info!(
        "{} in {:.1} s",
        match (synced.matched(), options.dry_run) {
            (false, _) => "something else has written to the target: nothing was changed",
            (true, true) => "this would be done; nothing was changed",
            (true, false) => "both sides are the same",
        },
        synced.seconds
    );
    let clean =
        synced.matched() && synced.sum(|c| c.quarantined) == 0 && synced.incomplete.is_empty();
    Ok(if clean { exit::OK } else { exit::FAILED })
}

/// More rows would be deleted or changed than one would expect.
#[derive(Debug, thiserror::Error)]
#[error(
    "more than a tenth of a table would be deleted or changed ({0}); nothing was changed there. See sync --dry-run; if that is right, add --yes"
)]
struct Many(String);

impl Many {
    fn question(&self) -> String {
        format!(
            "More than a tenth of a table would be deleted or changed ({}). Go on?",
            self.0
        )
    }
}

fn all(
    options: &Options,
    yes: bool,
    source: &Connection,
    client: &mut Client,
    bases: &[Base],
    id: Uuid,
) -> Result<JobOutcome<(AllChanges, Uuid)>, Failure> {
    let started = Instant::now();
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(Duration::from_millis(120));
    let read = copies(options, source, bases, &progress).map_err(Failure::from);
    let result = read.and_then(|(database, identity)| {
        let mut synced = AllChanges {
            tables: Vec::new(),
            warnings: Vec::new(),
            incomplete: Vec::new(),
            seconds: 0.0,
        };
        for (sentence, on_purpose) in base::strangers(&database, bases) {
            if on_purpose {
                synced.warnings.push(sentence);
            } else {
                synced.incomplete.push(sentence);
            }
        }
        for base in bases {
            let work = Work {
                options,
                yes,
                base,
                database: &database,
                identity: &identity,
                run: id,
                progress: &progress,
            };
            match work.all(client, &mut synced, false) {
                Err(e) if e.error.is::<apply::Dangling>() => work.all(client, &mut synced, true)?,
                other => other?,
            }
        }
        Ok(synced)
    });
    progress.finish_and_clear();
    for base in bases {
        // Not committed: what was made for it is of no use. If it may have been, the next command finds out.
        if base.folder.pending()?.is_none() {
            let _ = std::fs::remove_file(base.folder.next_snapshot());
            let _ = std::fs::remove_file(base.folder.next_rejects());
        }
    }
    let mut synced = result?;
    synced.seconds = started.elapsed().as_secs_f64();
    let quarantined = synced.sum(|c| c.quarantined);
    let (status, error) = if !synced.matched() {
        (
            Status::Failed,
            Some("the two sides are not the same; nothing was changed".to_owned()),
        )
    } else if !synced.incomplete.is_empty() {
        (Status::Partial, Some(synced.incomplete.join("; ")))
    } else if quarantined > 0 {
        (
            Status::Partial,
            Some(format!("{quarantined} row(s) were quarantined")),
        )
    } else {
        (Status::Success, None)
    };
    let mut details = synced.details();
    details.insert("of_run".to_owned(), json!(bases[0].record.run_id));
    details.insert("dry_run".to_owned(), json!(options.dry_run));
    Ok(JobOutcome {
        fetched: synced.tables.iter().map(|t| t.compared.source.rows).sum(),
        status,
        error,
        details,
        ..JobOutcome::success((synced, id))
    })
}

/// One copy of the source for all runs, so that all their tables are of one moment.
fn copies(
    options: &Options,
    source: &Connection,
    bases: &[Base],
    progress: &ProgressBar,
) -> Result<(Database, Identity)> {
    for base in bases {
        anyhow::ensure!(
            base.folder.snapshot().exists(),
            "the snapshot of run {} is gone (it is kept for seven days), so what has changed since cannot be told; run again with --replace",
            base.record.run_id
        );
    }
    progress.set_message("copying the source");
    let first = bases[0].folder.next_snapshot();
    let file = FileState::read(&options.database)?;
    inspect::snapshot(source, &options.database, &first)?;
    let copied = inspect::open(&first)?;
    inspect::integrity(&copied, &options.database)?;
    let database = Database::read(&copied, &options.database)?;
    let identity = Identity::read(&copied, &options.database, file)?;
    for base in bases {
        base::same_columns(&database, &base.record)?;
        let next = base.folder.next_snapshot();
        if next != first {
            let _ = std::fs::remove_file(&next);
            std::fs::hard_link(&first, &next)
                .or_else(|_| std::fs::copy(&first, &next).map(|_| ()))
                .with_context(|| format!("could not write {}", next.display()))?;
        }
    }
    Ok((database, identity))
}

struct Work<'a> {
    options: &'a Options,
    yes: bool,
    base: &'a Base,
    database: &'a Database,
    identity: &'a Identity,
    run: Uuid,
    progress: &'a ProgressBar,
}

impl Work<'_> {
    /// Brings the changes of one run's tables, and adds them to `synced`; with `dangling`, rows that lead nowhere are quarantined.
    fn all(
        &self,
        client: &mut Client,
        synced: &mut AllChanges,
        dangling: bool,
    ) -> Result<(), Failure> {
        let Base { folder, record } = self.base;
        let (old, new) = (folder.snapshot(), folder.next_snapshot());
        let explain = |e: postgres::Error| anyhow!("PostgreSQL refused: {}", describe(&e));
        let rejects = base::put_aside(client, folder, record, &folder.next_rejects())?;
        client
            .batch_execute("SET synchronous_commit = on")
            .map_err(explain)?;
        let mut tx = client.transaction().map_err(explain)?;
        let pairs = base::comparisons(&mut tx, self.database, record)?;
        let targets: Vec<&str> = record.tables.iter().map(|t| t.target.as_str()).collect();
        let held = apply::lock(&mut tx, &record.schema, &targets)?;

        self.progress.set_message("comparing the snapshots");
        let both = delta::open(&old, &new, &rejects)?;
        let aside_before: i64 = both
            .query_row("SELECT coalesce(max(seq), 0) FROM main.rejects", [], |r| {
                r.get(0)
            })
            .map_err(anyhow::Error::from)?;
        let (mut work, mut quarantined) = (Vec::new(), Vec::new());
        for (number, (table, comparison)) in pairs.into_iter().enumerate() {
            let sync = delta::describe_table(&mut tx, table, comparison, number)?;
            let (went, came, aside) = delta::send(&mut tx, &both, &sync)?;
            work.push((sync, went + came > 0));
            quarantined.push(aside);
        }
        failpoint::hit("sync.sent");

        self.progress.set_message("bringing the changes");
        let mut incomplete = Vec::new();
        let (mut changes, loosened) = apply::all(&mut tx, &work)?;
        for (changes, aside) in changes.iter_mut().zip(quarantined) {
            changes.quarantined = aside;
        }
        if dangling {
            orphans::quarantine(&mut tx, &both, &record.schema, &work, &mut changes)?;
        }
        drop(both);
        for (sync, _) in work.iter().filter(|(_, any)| *any) {
            apply::advance_identities(&mut tx, sync)?;
            if !self.options.dry_run {
                let behind = swap::advance_sequences(&mut tx, &sync.qualified())?;
                incomplete.extend(behind.iter().map(Missing::sentence));
            }
        }
        apply::finish(&mut tx, &held, &loosened)?;

        self.progress.set_message("reading both sides back");
        let mut done = Vec::new();
        for ((sync, _), changes) in work.into_iter().zip(changes) {
            let compared = tables::compare(&mut tx, &new, &rejects, &sync.comparison)?;
            done.push(TableChanges {
                table: sync.table.name,
                target: sync.comparison.target,
                changes,
                compared,
            });
        }
        let matched = done.iter().all(|t| t.compared.matched());
        let many: Vec<String> = done.iter().filter_map(TableChanges::many).collect();
        if matched && !self.options.dry_run {
            if !(many.is_empty() || self.yes) {
                tx.rollback().map_err(explain)?;
                return Err(Failure::new(exit::REFUSED, Many(many.join("; "))));
            }
            rejects.store(&mut tx, self.run, aside_before)?;
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

    /// Writes down the transaction's number first, so that nobody has to guess whether it was committed.
    fn commit(&self, mut tx: postgres::Transaction<'_>, rejects: &Rejects) -> Result<()> {
        let Base { folder, record } = self.base;
        let explain =
            |e: postgres::Error| anyhow!("the changes may not be committed: {}", describe(&e));
        let number: String = tx
            .query_one("SELECT pg_current_xact_id()::text", &[])
            .map_err(explain)?
            .get(0);
        File::open(rejects.path())
            .and_then(|f| f.sync_all())
            .with_context(|| format!("could not write {}", rejects.path().display()))?;
        // The copy is read once more from where it lies: what cannot be opened later is no base.
        open_snapshot(&folder.next_snapshot(), rejects)?;
        let mut identity = self.identity.clone();
        if let Some(source) = record.source.clone().filter(|s| {
            !self.options.which.same_source && s.path != identity.path && s.path.is_file()
        }) {
            identity = identity.at_place_of(&source);
        }
        base::note_identity(folder, &identity)?;
        folder.update(|r| r.pending_sync = Some(number))?;
        failpoint::hit("sync.commit");
        tx.commit().map_err(explain)?;
        failpoint::hit("sync.committed");
        base::adopt(folder, &record.database)
    }
}
