//! `oa-migrate sync`: brings what changed in SQLite since the last run or sync.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use indicatif::ProgressBar;
use oa_core::cli::Failure;
use oa_core::config::Config;
use oa_core::output::Format;
use oa_core::pg::{self, describe};
use oa_core::runs::{Recorder, Status};
use oa_core::{exit, failpoint};
use postgres::Client;
use rusqlite::Connection;
use serde_json::json;
use uuid::Uuid;

use crate::PROGRAM;
use crate::base;
use crate::changes::{AllChanges, Changes, TableChanges};
use crate::commands::run;
use crate::inspect::{self, Database};
use crate::load::copy::open_snapshot;
use crate::load::rejects::Rejects;
use crate::load::staging::Target;
use crate::proof::tables;
use crate::state::{RunFolder, RunRecord};
use crate::sync::{apply, delta};
use oa_core::runs::work::{self, Ended, Job};

/// What `sync` was asked for.
#[derive(Debug)]
pub struct Options {
    /// The SQLite file.
    pub database: PathBuf,
    /// Do everything, report, and commit nothing.
    pub dry_run: bool,
    /// How the result is printed.
    pub format: Format,
}

/// Brings the changes in one transaction and prints what they were.
///
/// # Errors
/// No run yet, or something else wrote to the target (1); another run works there (77); PostgreSQL is away (75).
pub fn run(config: &Config, options: &Options) -> Result<u8, Failure> {
    let source = inspect::open(&options.database).map_err(anyhow::Error::from)?;
    let target = Target {
        settings: pg::Settings::from_config(config, PROGRAM)?,
    };
    let recorder = Recorder::open(config, PROGRAM)?;
    let mut client = run::connect(&target, recorder.state())?;
    let (folder, mut record) = base::last(&mut client, recorder.state())?;
    let (synced, id) = work::recorded(
        &recorder,
        &Job::by_hand(PROGRAM, "sync", "SQLite 增量同步"),
        |start| {
            let progress = ProgressBar::new_spinner();
            progress.enable_steady_tick(Duration::from_millis(120));
            let work = Work {
                options,
                folder: &folder,
                run: start.id,
                progress,
            };
            let result = work.all(&source, &mut client, &mut record);
            work.progress.finish_and_clear();
            if record.pending_sync.is_none() {
                // Not committed: what was made for it is of no use. If it may have been, the next command finds out.
                let _ = std::fs::remove_file(folder.next_snapshot());
                let _ = std::fs::remove_file(folder.next_rejects());
            }
            let synced = result?;
            let quarantined = synced.sum(|c| c.quarantined);
            let (status, error) = match (synced.matched(), quarantined) {
                (false, _) => (
                    Status::Failed,
                    Some("the two sides are not the same; nothing was changed".to_owned()),
                ),
                (true, 0) => (Status::Success, None),
                (true, n) => (
                    Status::Partial,
                    Some(format!("{n} row(s) were quarantined")),
                ),
            };
            let mut details = synced.details();
            details.insert("of_run".to_owned(), json!(record.run_id));
            details.insert("dry_run".to_owned(), json!(options.dry_run));
            Ok(Ended {
                fetched: synced.tables.iter().map(|t| t.compared.source.rows).sum(),
                status,
                error,
                details,
                ..Ended::success((synced, start.id))
            })
        },
    )?;
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
    let clean = synced.matched() && synced.sum(|c| c.quarantined) == 0;
    Ok(if clean { exit::OK } else { exit::FAILED })
}

struct Work<'a> {
    options: &'a Options,
    folder: &'a RunFolder,
    run: Uuid,
    progress: ProgressBar,
}

impl Work<'_> {
    fn all(
        &self,
        source: &Connection,
        client: &mut Client,
        record: &mut RunRecord,
    ) -> Result<AllChanges> {
        let started = Instant::now();
        let (old, new) = (self.folder.snapshot(), self.folder.next_snapshot());
        anyhow::ensure!(
            old.exists(),
            "the snapshot of run {} is gone (it is kept for seven days), so what has changed since cannot be told; run again with --replace",
            record.run_id
        );
        self.progress.set_message("copying the source");
        inspect::snapshot(source, &self.options.database, &new)?;
        let copied = inspect::open(&new)?;
        inspect::integrity(&copied, &self.options.database)?;
        let database = Database::read(&copied, &self.options.database)?;
        drop(copied);
        base::same_columns(&database, record)?;

        let explain = |e: postgres::Error| anyhow!("PostgreSQL refused: {}", describe(&e));
        let rejects = base::put_aside(client, self.folder, record, &self.folder.next_rejects())?;
        client
            .batch_execute("SET synchronous_commit = on")
            .map_err(explain)?;
        let mut tx = client.transaction().map_err(explain)?;
        let pairs = base::comparisons(&mut tx, &database, record)?;
        let targets: Vec<&str> = record.tables.iter().map(|t| t.target.as_str()).collect();
        let foreign_keys = apply::lock(&mut tx, &record.schema, &targets)?;

        self.progress.set_message("comparing the snapshots");
        let both = delta::open(&old, &new, &rejects)?;
        let aside_before: i64 =
            both.query_row("SELECT coalesce(max(seq), 0) FROM main.rejects", [], |r| {
                r.get(0)
            })?;
        let mut work = Vec::new();
        for (number, (table, comparison)) in pairs.into_iter().enumerate() {
            let sync = delta::describe_table(&mut tx, table, comparison, number)?;
            let (went, came, quarantined) = delta::send(&mut tx, &both, &sync)?;
            work.push((sync, went + came > 0, quarantined));
        }
        drop(both);
        failpoint::hit("sync.sent");

        self.progress.set_message("bringing the changes");
        let mut changed = Vec::new();
        for (sync, any, quarantined) in work {
            let mut changes = Changes::default();
            if any {
                changes = apply::apply(&mut tx, &sync)?;
                apply::advance_identities(&mut tx, &sync)?;
            }
            changes.quarantined = quarantined;
            changed.push((sync, changes));
        }
        apply::check_foreign_keys(&mut tx, &foreign_keys)?;

        self.progress.set_message("reading both sides back");
        let mut done = Vec::new();
        for (sync, changes) in changed {
            let compared = tables::compare(&mut tx, &new, &rejects, &sync.comparison)?;
            done.push(TableChanges {
                table: sync.table.name,
                target: sync.comparison.target,
                changes,
                compared,
            });
        }
        let mut synced = AllChanges {
            tables: done,
            warnings: base::strangers(&database, record),
            seconds: 0.0,
        };
        if synced.matched() && !self.options.dry_run {
            rejects.store(&mut tx, self.run, aside_before)?;
            self.commit(tx, &rejects, record)?;
        } else {
            tx.rollback().map_err(explain)?;
        }
        synced.seconds = started.elapsed().as_secs_f64();
        Ok(synced)
    }

    /// Writes down the transaction's number first, so that nobody has to guess whether it was committed.
    fn commit(
        &self,
        mut tx: postgres::Transaction<'_>,
        rejects: &Rejects,
        record: &mut RunRecord,
    ) -> Result<()> {
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
        open_snapshot(&self.folder.next_snapshot(), rejects)?;
        record.pending_sync = Some(number);
        self.folder.write(record)?;
        failpoint::hit("sync.commit");
        tx.commit().map_err(explain)?;
        failpoint::hit("sync.committed");
        base::adopt(self.folder, record)
    }
}
