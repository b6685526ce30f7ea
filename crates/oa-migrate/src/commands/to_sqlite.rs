//! `oa-migrate to-sqlite`: the way back, with everything that was written to PostgreSQL since the run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use indicatif::ProgressBar;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::Format;
use oa_core::journal::Recorder;
use oa_core::model::run::Status;
use oa_core::pg;
use oa_core::pg::describe;
use postgres::{Client, IsolationLevel};
use rusqlite::Connection;
use serde_json::json;

use crate::PROGRAM;
use crate::base::{self, Base, Which};
use crate::changes::{AllChanges, Changes, TableChanges};
use crate::identity::{FileState, Identity};
use crate::inspect::{self, Database};
use crate::load::rejects::Rejects;
use crate::load::staging::Target;
use crate::proof::tables;
use crate::state::RunFolder;
use crate::write_back;
use oa_core::app::work;
use oa_core::app::work::{Job, JobOutcome};

/// What `to-sqlite` was asked for.
#[derive(Debug)]
pub struct Options {
    /// The file to make.
    pub out: PathBuf,
    /// The old SQLite file, when the run's snapshot is gone.
    pub base: Option<PathBuf>,
    /// Which runs.
    pub which: Which,
    /// How the result is printed.
    pub format: Format,
}

/// Writes the file, proves it, and only then gives it its name.
///
/// # Errors
/// The file is there already, or it is not clear what is to be written back (77), there is no run or no base (1), PostgreSQL is
/// away (75).
pub fn run(config: &Config, options: &Options) -> Result<u8, Failure> {
    if fs::symlink_metadata(&options.out).is_ok() {
        return Err(Failure::new(
            exit::REFUSED,
            anyhow!(
                "{} is there already and is not overwritten; name another file",
                options.out.display()
            ),
        ));
    }
    let target = Target {
        settings: pg::Settings::from_config(config, PROGRAM)?,
    };
    let recorder = Recorder::open(config, PROGRAM)?;
    let (mut client, bases) = base::connect(&target, recorder.state())?;
    let bases = chosen(bases, options)?;
    let Some(newest) = bases.last() else {
        return Err(anyhow!("there is no finished run").into());
    };
    let base_file = match &options.base {
        Some(path) => path.clone(),
        None => newest.folder.snapshot(),
    };
    if options.base.is_none() && !base_file.exists() {
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
            let part = part_of(&options.out, &start.id.simple().to_string());
            let progress = ProgressBar::new_spinner();
            progress.enable_steady_tick(Duration::from_millis(120));
            let work = Work {
                options,
                bases: &bases,
                base_file: &base_file,
                part: &part,
                progress: &progress,
            };
            let result = put_aside(&mut client, &bases, &own.rejects())
                .and_then(|rejects| work.all(&mut client, &rejects));
            progress.finish_and_clear();
            own.remove();
            if !matches!(&result, Ok(w) if w.matched()) {
                let _ = fs::remove_file(&part);
            }
            let written = result?;
            if written.matched() {
                note_written(&bases, &options.out)?;
            }
            let mut details = written.details();
            details.insert("of_run".to_owned(), json!(newest.record.run_id));
            details.insert("file".to_owned(), json!(options.out));
            let matched = written.matched();
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
        ("file", json!(written.matched().then_some(&options.out))),
    ];
    written.print(
        head.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        options.format,
    )?;
    if written.matched() {
        tracing::info!(
            "{} holds what PostgreSQL holds ({:.1} s)",
            options.out.display(),
            written.seconds
        );
        return Ok(exit::OK);
    }
    tracing::error!("the two sides are not the same: no file was written");
    Ok(exit::FAILED)
}

/// The runs that are written back, oldest first: all of one source into one schema.
fn chosen(bases: Vec<Base>, options: &Options) -> Result<Vec<Base>, Failure> {
    let mut bases = match &options.base {
        Some(path) => {
            let file = inspect::open(path).map_err(anyhow::Error::from)?;
            base::of_source(bases, &options.which, &file, path, false)?
        }
        None => base::of_schema(bases, options.which.schema.as_deref())?,
    };
    let of = |b: &Base| (b.record.database.clone(), b.record.schema.clone());
    if bases.iter().any(|b| of(b) != of(&bases[0])) {
        return Err(Failure::new(
            exit::REFUSED,
            anyhow!(
                "there are several runs that could be written back; choose with --schema, and with --base DB where sources share a schema: {}",
                base::sources(&bases)
            ),
        ));
    }
    bases.sort_by_key(|b| b.record.run_id);
    Ok(bases)
}

/// The rows that some run put aside; the base file has them all.
fn put_aside(client: &mut Client, bases: &[Base], to: &Path) -> Result<Rejects> {
    let mut rejects = None;
    for (number, base) in bases.iter().enumerate() {
        let own = to.with_extension(number.to_string());
        let of_run = base::put_aside(client, &base.folder, &base.record, &own)?;
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

struct Work<'a> {
    options: &'a Options,
    bases: &'a [Base],
    base_file: &'a Path,
    part: &'a Path,
    progress: &'a ProgressBar,
}

impl Work<'_> {
    fn all(&self, client: &mut Client, rejects: &Rejects) -> Result<AllChanges> {
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
            pairs.extend(base::comparisons(&mut tx, &database, &base.record)?);
        }
        self.progress.set_message("writing what differs");
        copy.execute_batch("BEGIN")?;
        let triggers = write_back::drop_triggers(&copy)?;
        let mut changes = Vec::new();
        for (table, comparison) in &pairs {
            changes.push(write_back::write_back(&mut tx, &copy, table, comparison)?);
        }
        for sql in &triggers {
            copy.execute_batch(sql)
                .with_context(|| format!("could not make the trigger again: {sql}"))?;
        }
        let stale = if changes.iter().any(|c| *c != Changes::default()) {
            write_back::rebuild_indexes(&copy, &database)?
        } else {
            Vec::new()
        };
        copy.execute_batch("COMMIT")?;
        let mut warnings = write_back::left_behind(&mut tx, &self.bases[0].record.schema, &pairs)?;
        warnings.extend(stale);
        let orphans: i64 =
            copy.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |r| {
                r.get(0)
            })?;
        if orphans > 0 {
            warnings.push(format!(
                "{orphans} row(s) have foreign keys that lead to no row, as PostgreSQL has them or as they were before"
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
                compared,
            });
        }
        tx.rollback().map_err(explain)?;
        let mut written = AllChanges {
            tables: done,
            warnings,
            incomplete: Vec::new(),
            seconds: 0.0,
        };
        if written.matched() {
            self.give_name()?;
        }
        written.seconds = started.elapsed().as_secs_f64();
        Ok(written)
    }

    fn give_name(&self) -> Result<()> {
        let out = &self.options.out;
        let context = || format!("could not write {}", out.display());
        File::open(self.part)
            .and_then(|f| f.sync_all())
            .with_context(context)?;
        // Fails when somebody has made such a file meanwhile, unlike a rename.
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
