//! `oa-migrate run`: moves a SQLite database into PostgreSQL and proves that nothing changed.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::Utc;
use indicatif::ProgressBar;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::output::{Format, Listing};
use oa_core::base::failpoint;
use oa_core::base::state_dir::StateDir;
use oa_core::journal::Recorder;
use oa_core::pg;
use oa_core::pg::describe;
use oa_core::pg::schema;
use oa_core::pg::schema::SchemaError;
use oa_core::service;
use postgres::Client;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::base;
use crate::identity::{self, FileState, Identity};
use crate::inspect::VirtualTable;
use crate::load::rejects::Rejects;
use crate::load::staging::{self, Target};
use crate::load::swap::{self, Swapped};
use crate::migration::{self, LoadedTable};
use crate::plan::{self, Plan};
use crate::proof::report::{Phases, Report, Status};
use crate::proof::tables::Compared;
use crate::state::{self, RunFolder, Stage};
use crate::{PROGRAM, inspect};
use oa_core::app::work;
use oa_core::app::work::{Job, JobOutcome};

/// What `run` was asked for.
#[derive(Debug)]
pub struct Options {
    /// The SQLite file.
    pub database: PathBuf,
    /// What reports name instead of it.
    pub shown: Option<PathBuf>,
    /// What to plan.
    pub plan: plan::Options,
    /// Tables loaded side by side.
    pub jobs: usize,
    /// Do everything, report, and keep nothing.
    pub rehearse: bool,
    /// Tables with rows may be replaced.
    pub replace: bool,
    /// Go on, and end with 0, although definitions or contents are missing in the target.
    pub allow_missing: bool,
    /// Virtual tables that the source had before it was exported.
    pub absent: Vec<VirtualTable>,
    /// How the result is printed.
    pub format: Format,
}

impl Options {
    fn shown(&self) -> &Path {
        self.shown.as_deref().unwrap_or(&self.database)
    }
}

/// Connects for `run` and its kin: schema `oa` there, lock taken, nothing left of runs that died.
///
/// # Errors
/// When PostgreSQL is away (75), the schema does not fit (78), or another run holds the lock (77).
pub fn connect(target: &Target, state: &StateDir) -> Result<Client, Failure> {
    let mut client = target.connect()?;
    match schema::check(&mut client) {
        Ok(()) => {}
        Err(SchemaError::Absent) => {
            schema::upgrade(&mut client)?;
        }
        Err(other) => return Err(other.into()),
    }
    staging::lock(&mut client)?;
    let stale = staging::stale(&mut client)?;
    let taken_back = staging::schemas(&mut client, swap::AFTER)?;
    let here = identity::runs_here(&mut client, state)?;
    state::settle(
        state,
        |run| here.contains(&run),
        |run| stale.contains(&staging::schema_of(run)),
        |run| taken_back.contains(&swap::after_schema(run)),
    )?;
    for name in stale {
        staging::drop_schema(&mut client, &name)?;
        tracing::warn!("removed {name}, left over from a run that died");
    }
    Ok(client)
}

/// Runs a migration and prints its report.
///
/// # Errors
/// The source cannot be used or PostgreSQL refuses (1), nothing may be overwritten (77), PostgreSQL is away (75).
pub fn run(config: &Config, options: &Options) -> Result<u8, Failure> {
    // Before anything else, so that a wrong path touches nothing.
    let source = inspect::open(&options.database).map_err(anyhow::Error::from)?;
    let target = Target {
        settings: pg::Settings::from_config(config, PROGRAM)?,
    };
    let recorder = Recorder::open(config, PROGRAM)?;
    let mut client = connect(&target, recorder.state())?;
    let (report, folder) = work::recorded(
        &recorder,
        &Job::by_hand(PROGRAM, "migrate", "SQLite 迁移"),
        |start| {
            let folder = RunFolder::create(recorder.state(), start.id)?;
            let ours = base::made_by_runs(&mut client, recorder.state(), &options.plan.schema)?;
            let mut work = Work {
                options,
                target: &target,
                client: &mut client,
                run: start.id,
                staging: staging::schema_of(start.id),
                folder: &folder,
                identity: Identity::default(),
                ours,
                progress: ProgressBar::new_spinner(),
                phases: Phases::default(),
                started: Instant::now(),
            };
            let result = state::prune(recorder.state(), &folder.path)
                .map_err(Failure::from)
                .and_then(|()| work.all(&source));
            work.progress.finish_and_clear();
            if result.is_err() {
                work.clean_up();
            }
            let report = result?;
            Ok(JobOutcome {
                status: report.status.of_run(),
                fetched: report.tables.iter().map(|t| t.rows_read).sum(),
                error: (report.status != Status::Success).then(|| sentence(&report)),
                details: details(&report),
                ..JobOutcome::success((report, folder))
            })
        },
    )?;
    let written = folder.path.join("report.md");
    print(&report, &written, options.format)?;
    Ok(report.status.exit_code())
}

/// Why a report is not one of success.
#[must_use]
pub fn sentence(report: &Report) -> String {
    let quarantined: u64 = report.tables.iter().map(|t| t.rows_quarantined).sum();
    if !report.missing.is_empty() && report.status != Status::Success {
        let items: Vec<String> = report
            .missing
            .iter()
            .take(5)
            .map(|m| format!("{} of {}", m.item, m.table))
            .collect();
        return format!(
            "{} item(s) are missing in the target ({}{}){}",
            report.missing.len(),
            items.join(", "),
            if report.missing.len() > 5 {
                ", …"
            } else {
                ""
            },
            if quarantined > 0 {
                format!("; {quarantined} row(s) are in oa.rejects")
            } else {
                String::new()
            }
        );
    }
    if report.matched {
        return format!("{quarantined} row(s) are in oa.rejects, all others are the same");
    }
    let different: Vec<&str> = report
        .tables
        .iter()
        .filter(|t| !t.matched)
        .map(|t| t.table.as_str())
        .collect();
    format!("the two sides are not the same in {}", different.join(", "))
}

fn details(report: &Report) -> serde_json::Map<String, Value> {
    let sum = |f: fn(&crate::proof::report::TableReport) -> u64| -> u64 {
        report.tables.iter().map(f).sum()
    };
    let mut details = serde_json::Map::new();
    details.insert("database".to_owned(), json!(report.database));
    details.insert("rehearsal".to_owned(), json!(report.rehearsal));
    details.insert("tables".to_owned(), json!(report.tables.len()));
    details.insert("rows_loaded".to_owned(), json!(sum(|t| t.rows_loaded)));
    details.insert(
        "rows_quarantined".to_owned(),
        json!(sum(|t| t.rows_quarantined)),
    );
    details.insert("matched".to_owned(), json!(report.matched));
    details
}

struct Work<'a> {
    options: &'a Options,
    target: &'a Target,
    client: &'a mut Client,
    run: Uuid,
    staging: String,
    folder: &'a RunFolder,
    identity: Identity,
    ours: HashSet<String>,
    progress: ProgressBar,
    phases: Phases,
    started: Instant,
}

impl Work<'_> {
    fn all(&mut self, source: &rusqlite::Connection) -> Result<Report, Failure> {
        let options = self.options;
        let snapshot = self.folder.snapshot();
        self.progress.enable_steady_tick(Duration::from_millis(120));

        let at = Instant::now();
        self.progress.set_message("copying the source");
        // The file that an import makes is nobody's; only its rows tell whose they are.
        let file = match options.shown {
            Some(_) => FileState::default(),
            None => FileState::read(&options.database)?,
        };
        inspect::snapshot(source, &options.database, &snapshot).map_err(anyhow::Error::from)?;
        let copy = inspect::open(&snapshot).map_err(anyhow::Error::from)?;
        self.progress.set_message("looking for damage");
        inspect::integrity(&copy, &options.database).map_err(anyhow::Error::from)?;
        self.identity = Identity::read(&copy, options.shown(), file)?;
        drop(copy);
        self.phases.snapshot = at.elapsed().as_secs_f64();

        let at = Instant::now();
        self.progress.set_message("reading every value");
        let mut plan = migration::make_plan(
            self.client,
            &snapshot,
            &options.database,
            &options.plan,
            &options.absent,
            &self.ours,
            options.jobs,
        )?;
        migration::refuse_overwriting(&plan, options.replace || options.rehearse)?;
        migration::refuse_without_rights(self.client, &plan)?;
        staging::create_schema(self.client, &self.staging, self.run)?;
        staging::try_expressions(self.client, &self.staging, &mut plan)?;
        let rejects = Rejects::create(&self.folder.rejects(), &snapshot)?;
        migration::vet(&snapshot, &rejects, &mut plan, options.plan.on_bad_value)?;
        self.phases.scan = at.elapsed().as_secs_f64();

        let (loaded, compared) = self.load_and_prove(&mut plan, &rejects)?;
        let tables = migration::table_reports(&plan, &rejects, &loaded, &compared)?;
        let matched = tables.iter().all(|t| t.matched);
        let quarantined = tables.iter().any(|t| t.rows_quarantined > 0);
        failpoint::hit("migrate.proven");

        let at = Instant::now();
        let mut warnings = plan.warnings.clone();
        let mut missing = plan.missing();
        let mut in_place = false;
        if matched {
            self.progress.set_message("putting the tables in place");
            let swapped = self.put_in_place(&plan, &rejects, &mut warnings)?;
            in_place = swapped.done;
            missing.extend(swapped.missing);
        }
        if !in_place {
            staging::drop_schema(self.client, &self.staging)?;
        }
        self.phases.swap = at.elapsed().as_secs_f64();
        let complete = missing.is_empty() || options.allow_missing;
        let report = Report {
            run_id: self.run.to_string(),
            database: options.shown().display().to_string(),
            schema: plan.schema.clone(),
            status: if !(in_place || options.rehearse) || !matched {
                Status::Failed
            } else if quarantined || !complete {
                Status::Partial
            } else {
                Status::Success
            },
            matched,
            seconds: self.started.elapsed().as_secs_f64(),
            phases: self.phases,
            tables,
            missing,
            warnings,
            rehearsal: options.rehearse,
        };
        report.write(&self.folder.path)?;
        if !in_place {
            let _ = std::fs::remove_file(&snapshot);
        }
        Ok(report)
    }

    /// Loads and reads back; once more where PostgreSQL computes a generated column differently, which is a plain one then.
    fn load_and_prove(
        &mut self,
        plan: &mut Plan,
        rejects: &Rejects,
    ) -> Result<(Vec<LoadedTable>, Vec<Compared>)> {
        let (snapshot, jobs) = (self.folder.snapshot(), self.options.jobs);
        loop {
            let noted: Vec<(usize, usize)> = plan
                .tables
                .iter()
                .map(|t| (t.warnings.len(), t.missing.len()))
                .collect();
            let at = Instant::now();
            self.progress.set_message("loading");
            let loaded = migration::load(
                self.client,
                self.target,
                &snapshot,
                rejects,
                plan,
                &self.staging,
                jobs,
            );
            self.phases.load += at.elapsed().as_secs_f64();
            let differ = match loaded {
                Err(e) => {
                    let differ = migration::not_computed(plan, &e);
                    if differ.is_empty() {
                        return Err(e);
                    }
                    differ
                }
                Ok(loaded) => {
                    failpoint::hit("migrate.loaded");
                    let at = Instant::now();
                    self.progress.set_message("reading both sides back");
                    let compared = migration::prove(
                        self.client,
                        self.target,
                        &snapshot,
                        rejects,
                        plan,
                        &self.staging,
                        jobs,
                    )?;
                    self.phases.proof += at.elapsed().as_secs_f64();
                    let differ = migration::computed_differently(plan, &compared);
                    if differ.is_empty() {
                        return Ok((loaded, compared));
                    }
                    differ
                }
            };
            for (table, (warnings, missing)) in plan.tables.iter_mut().zip(noted) {
                table.warnings.truncate(warnings);
                table.missing.truncate(missing);
            }
            migration::make_plain(plan, differ);
            migration::vet(&snapshot, rejects, plan, self.options.plan.on_bad_value)?;
            staging::drop_schema(self.client, &self.staging)?;
            staging::create_schema(self.client, &self.staging, self.run)?;
        }
    }

    fn put_in_place(
        &mut self,
        plan: &Plan,
        rejects: &Rejects,
        warnings: &mut Vec<String>,
    ) -> Result<Swapped> {
        let zone = self.options.plan.timestamps_in;
        let mut record = state::record_of(plan, self.run, Utc::now(), self.options.shown(), zone);
        if !self.options.rehearse {
            record.target = Some(identity::target(self.client)?);
            record.source = Some(self.identity.clone());
            if self.options.allow_missing {
                let allowed = plan.missing.iter().map(|m| m.table.clone());
                record.skipped.get_or_insert_default().extend(allowed);
            }
            self.folder.write(&record)?;
        }
        let swapped = swap::swap(
            self.client,
            plan,
            &self.staging,
            self.run,
            rejects,
            swap::How {
                replace: self.options.replace || self.options.rehearse,
                allow_missing: self.options.allow_missing,
                rehearse: self.options.rehearse,
            },
        )?;
        if !swapped.done {
            self.folder.forget()?;
            return Ok(swapped);
        }
        record.stage = Stage::Done;
        self.folder.write(&record)?;
        if !swapped.replaced.is_empty() {
            tracing::info!(
                "the tables that were there before are in schema {}",
                swap::before_schema(self.run)
            );
        }
        let of_service = plan.schema == "public"
            && plan
                .tables
                .iter()
                .any(|t| service::natural_key(&t.target).is_some());
        if of_service {
            // What the crawlers need besides: columns, tables and natural keys that the source does not have.
            match service::create_missing(self.client) {
                Ok(refused) => tracing::debug!(
                    "duplicates forbid the natural keys of: {}",
                    refused.join(", ")
                ),
                Err(e) => warnings.push(format!(
                    "the service's own tables could not be completed: {}",
                    describe(&e)
                )),
            }
        }
        Ok(swapped)
    }

    /// After a failure: nothing of the run remains but its row in the log.
    fn clean_up(&mut self) {
        if self.client.is_closed() {
            tracing::warn!(
                "the connection is gone; the next run will remove the schema {}",
                self.staging
            );
        } else if let Err(e) = staging::drop_schema(self.client, &self.staging) {
            tracing::warn!("{e:#}; the next run will try again");
        }
        // Without a connection nobody knows whether the last transaction was committed: `state::settle` finds out.
        if !self.client.is_closed() || !self.folder.path.join("run.json").exists() {
            self.folder.remove();
        }
    }
}

/// Prints a report; warnings go to the log unless the report is JSON, which has them.
///
/// # Errors
/// When stdout cannot be written.
pub fn print(report: &Report, written: &Path, format: Format) -> Result<()> {
    if format == Format::Json {
        let mut listing = Listing::new(&[]);
        listing.push(serde_json::to_value(report)?);
        listing.print(format)?;
        return Ok(());
    }
    for table in &report.tables {
        let Some(d) = &table.difference else { continue };
        tracing::error!(
            "{}: {} row(s) only in the source, {} only in the target, {} changed: {} (columns: {})",
            table.table,
            d.only_source,
            d.only_target,
            d.changed,
            d.examples.join("; "),
            d.columns.join(", ")
        );
    }
    for (table, warning) in report
        .tables
        .iter()
        .flat_map(|t| t.warnings.iter().map(move |w| (t.table.as_str(), w)))
        .chain(report.warnings.iter().map(|w| ("also", w)))
    {
        tracing::warn!("{table}: {warning}");
    }
    for missing in &report.missing {
        if report.status == Status::Success {
            tracing::warn!("{}", missing.sentence());
        } else {
            tracing::error!("{}", missing.sentence());
        }
    }
    let mut listing = Listing::new(&[
        ("table", "TABLE"),
        ("target", "TARGET"),
        ("rows_read", "READ"),
        ("rows_loaded", "LOADED"),
        ("rows_quarantined", "QUARANTINED"),
        ("matched", "SAME"),
        ("seconds", "SECONDS"),
        ("source_hash", "SHA-256 SUM"),
    ]);
    for table in &report.tables {
        let mut row = serde_json::to_value(table)?;
        row["seconds"] = json!((table.seconds * 1000.0).round() / 1000.0);
        row["matched"] = json!(if table.matched { "yes" } else { "NO" });
        row["source_hash"] = json!(format!("{}…", &table.source_hash[..16]));
        listing.push(row);
    }
    listing
        .print(format)
        .context("could not print the report")?;
    tracing::info!("report: {}", written.display());
    Ok(())
}
