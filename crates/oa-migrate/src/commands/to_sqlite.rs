//! `oa-migrate to-sqlite`: the reverse migration, with everything that was written to PostgreSQL since the run. The file is
//! written, proven, and only then gets its name.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::Format;
use oa_core::app::work::{self, Job, JobOutcome};
use oa_core::journal::Recorder;
use oa_core::model::run::Status;
use oa_core::pg::describe;
use postgres::{Client, IsolationLevel};
use rusqlite::Connection;
use serde_json::json;

use super::output::print_changes;
use super::{Progress, failure, refused};
use crate::PROGRAM;
use crate::errors::Refused;
use crate::inspect::identity::{FileState, Identity};
use crate::inspect::{self, Database};
use crate::load::rejects::Rejects;
use crate::load::staging::Target;
use crate::proof::tables;
use crate::runs::{Base, RunFolder, RunSelection, base, target};
use crate::sync::{AllChanges, Changes, TableChanges, reverse};

/// Reverse migration: write PostgreSQL's rows, with all that was written since, to a new SQLite file
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The file begins as a copy of the last run's or sync's snapshot, and only differences are written into it. So rows that did not fit PostgreSQL are still in it. It gets its name when every table is proven to be the same.\n\nExamples:\n  oa-migrate to-sqlite option_tracker.back.db\n  oa-migrate to-sqlite back.db --base option_tracker.db"
)]
pub(crate) struct Args {
    /// The file to create; it must not exist
    out: PathBuf,
    /// The old SQLite file, if the run's snapshot is gone (it is kept for seven days)
    #[arg(long, value_name = "DB")]
    base: Option<PathBuf>,
    #[command(flatten)]
    selection: RunSelection,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    if fs::symlink_metadata(&args.out).is_ok() {
        return Err(refused(format!(
            "{} exists already and is not overwritten; name another file",
            args.out.display()
        )));
    }
    let target = Target::new(config)?;
    let recorder = Recorder::open(config, PROGRAM)?;
    let (mut client, bases) = base::connect(&target, recorder.state()).map_err(failure)?;
    let bases = select(bases, args).map_err(failure)?;
    let newest = bases.last().context("there is no finished run")?;
    let base_file = match &args.base {
        Some(path) => path.clone(),
        None => newest.folder.snapshot(),
    };
    if args.base.is_none() && !base_file.exists() {
        return Err(anyhow!(
            "the snapshot of run {} is gone (it is kept for seven days); name the old SQLite file with --base",
            newest.record.run_id
        )
        .into());
    }
    let (written, id) = work::recorded(
        &recorder,
        &Job::by_hand(PROGRAM, "to-sqlite", "写回 SQLite"),
        |start| {
            let own = RunFolder::create(recorder.state(), start.id)?;
            let part = part_of(&args.out, &start.id.simple().to_string());
            let progress = Progress::start();
            let migration = ReverseMigration {
                out: &args.out,
                bases: &bases,
                base_file: &base_file,
                part: &part,
                progress: &progress,
            };
            let result = quarantined_rows(&mut client, &bases, &own.rejects())
                .and_then(|rejects| migration.run(&mut client, &rejects));
            progress.finish_and_clear();
            own.remove();
            if !matches!(&result, Ok(w) if w.matched()) {
                let _ = fs::remove_file(&part);
            }
            let written = result.map_err(failure)?;
            let matched = written.matched();
            if matched {
                note_written(&bases, &args.out)?;
            }
            let mut details = written.details();
            details.insert("of_run".to_owned(), json!(newest.record.run_id));
            details.insert("file".to_owned(), json!(args.out));
            Ok(JobOutcome {
                fetched: written.tables.iter().map(|t| t.compared.target.rows).sum(),
                status: if matched {
                    Status::Success
                } else {
                    Status::Failed
                },
                error: (!matched)
                    .then(|| "the two sides are not the same; no file was written".to_owned()),
                details,
                ..JobOutcome::success((written, start.id))
            })
        },
    )?;
    let head = [
        ("run_id", json!(id)),
        ("base", json!(base_file)),
        ("file", json!(written.matched().then_some(&args.out))),
    ];
    print_changes(&written, head, args.format)?;
    if written.matched() {
        tracing::info!(
            "{} holds what PostgreSQL holds ({:.1} s)",
            args.out.display(),
            written.seconds
        );
        return Ok(exit::OK);
    }
    tracing::error!("the two sides are not the same: no file was written");
    Ok(exit::FAILED)
}

/// The runs that are written back, oldest first: all of one source into one schema.
fn select(bases: Vec<Base>, args: &Args) -> Result<Vec<Base>> {
    let mut bases = match &args.base {
        Some(path) => {
            let file = inspect::open(path)?;
            base::of_source(bases, &args.selection, &file, path, false)?
        }
        None => base::of_schema(bases, args.selection.schema.as_deref())?,
    };
    let of = |b: &Base| (b.record.database.clone(), b.record.schema.clone());
    if bases.iter().any(|b| of(b) != of(&bases[0])) {
        return Err(Refused(format!(
            "there are several runs that could be written back; choose with --schema, and with --base DB where sources share a schema: {}",
            base::sources(&bases)
        ))
        .into());
    }
    bases.sort_by_key(|b| b.record.run_id);
    Ok(bases)
}

/// The rows that some run quarantined; the base file has them all.
fn quarantined_rows(client: &mut Client, bases: &[Base], to: &Path) -> Result<Rejects> {
    let mut rejects = None;
    for (number, base) in bases.iter().enumerate() {
        let own = to.with_extension(number.to_string());
        let of_run = base::quarantined_rows(client, &base.folder, &base.record, &own)?;
        let merged = match rejects {
            None => of_run.copy_to(to)?,
            Some(merged) => of_run.add_to(merged)?,
        };
        rejects = Some(merged);
    }
    rejects.context("there is no finished run")
}

/// Notes the file, so that `verify` knows it.
fn note_written(bases: &[Base], out: &Path) -> Result<()> {
    let identity = Identity::read(&inspect::open(out)?, out, FileState::read(out)?)?;
    for base in bases {
        base.folder.update(|r| {
            r.written_back.retain(|i| i.path != identity.path);
            r.written_back.push(identity.clone());
        })?;
    }
    Ok(())
}

/// The name under which the file is made, beside its place.
fn part_of(out: &Path, id: &str) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(format!(".{}.part", &id[..12]));
    PathBuf::from(name)
}

struct ReverseMigration<'a> {
    out: &'a Path,
    bases: &'a [Base],
    base_file: &'a Path,
    part: &'a Path,
    progress: &'a Progress,
}

impl ReverseMigration<'_> {
    fn run(&self, client: &mut Client, rejects: &Rejects) -> Result<AllChanges> {
        let started = Instant::now();
        self.progress.set_message("copying the base");
        let old = inspect::open(self.base_file)?;
        inspect::snapshot(&old, self.base_file, self.part)?;
        drop(old);
        let copy = Connection::open(self.part)?;
        copy.execute_batch(
            "PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE",
        )?;
        let database = Database::read(&copy, self.part)?;
        for base in self.bases {
            base::same_columns(&database, &base.record)?;
        }
        rejects.attach(&copy)?;

        let explain = |e: postgres::Error| anyhow!("PostgreSQL refused: {}", describe(&e));
        let mut tx = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .map_err(explain)?;
        let mut pairs = Vec::new();
        for base in self.bases {
            let targets: Vec<&str> = base
                .record
                .tables
                .iter()
                .map(|t| t.target.as_str())
                .collect();
            target::refuse_hidden_rows(&mut tx, &base.record.schema, &targets)?;
            pairs.extend(base::comparisons(&mut tx, &database, &base.record)?);
        }
        for (_, comparison) in &pairs {
            tables::ask_forms(&mut tx, &copy, rejects, comparison)?;
        }
        self.progress.set_message("writing what differs");
        copy.execute_batch("BEGIN")?;
        let triggers = reverse::drop_triggers(&copy)?;
        let mut changes = Vec::new();
        for (table, comparison) in &pairs {
            changes.push(reverse::write_table(&mut tx, &copy, table, comparison)?);
        }
        for sql in &triggers {
            copy.execute_batch(sql)
                .with_context(|| format!("could not create the trigger again: {sql}"))?;
        }
        let stale = if changes.iter().any(|c| *c != Changes::default()) {
            reverse::rebuild_indexes(&copy, &database)?
        } else {
            Vec::new()
        };
        copy.execute_batch("COMMIT")?;
        // What was written may be spelled otherwise than PostgreSQL does.
        for (_, comparison) in &pairs {
            tables::ask_forms(&mut tx, &copy, rejects, comparison)?;
        }
        let mut warnings = reverse::left_behind(&mut tx, &self.bases[0].record.schema, &pairs)?;
        warnings.extend(stale);
        let orphans: i64 =
            copy.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |r| {
                r.get(0)
            })?;
        if orphans > 0 {
            warnings.push(format!(
                "{orphans} row(s) have dangling foreign keys, as PostgreSQL has them or as they were before"
            ));
        }
        drop(copy);

        self.progress.set_message("reading both sides back");
        let mut done = Vec::new();
        for ((table, comparison), changes) in pairs.into_iter().zip(changes) {
            let compared = tables::compare(&mut tx, self.part, rejects, &comparison)?;
            done.push(TableChanges {
                table: table.name,
                target: comparison.target,
                changes,
                // The base has them.
                quarantined: 0,
                grown: false,
                compared,
            });
        }
        tx.rollback().map_err(explain)?;
        let mut written = AllChanges {
            tables: done,
            warnings,
            ..AllChanges::default()
        };
        if written.matched() {
            self.give_name()?;
        }
        written.seconds = started.elapsed().as_secs_f64();
        Ok(written)
    }

    fn give_name(&self) -> Result<()> {
        let out = self.out;
        let context = || format!("could not write {}", out.display());
        File::open(self.part)
            .and_then(|f| f.sync_all())
            .with_context(context)?;
        // Unlike a rename, this fails when somebody has created such a file meanwhile.
        fs::hard_link(self.part, out).with_context(context)?;
        fs::remove_file(self.part).with_context(context)?;
        let folder = out
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        File::open(folder)
            .and_then(|f| f.sync_all())
            .with_context(context)
    }
}
