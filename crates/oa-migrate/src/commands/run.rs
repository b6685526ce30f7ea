//! `oa-migrate run`: moves a SQLite database into PostgreSQL and proves that nothing changed.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use chrono::Utc;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::output::Format;
use oa_core::app::work::{self, Job, JobOutcome};
use oa_core::base::failpoint;
use oa_core::base::threads;
use oa_core::journal::Recorder;
use oa_core::pg::describe;
use oa_core::service;
use postgres::Client;
use rusqlite::Connection;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::output::{exit_code, print_report, shortcomings};
use super::{JobsArg, Progress, failure};
use crate::PROGRAM;
use crate::errors::Refused;
use crate::inspect::identity::{FileState, Identity};
use crate::inspect::{self, VirtualTable};
use crate::load::copy::Loaded;
use crate::load::rejects::Rejects;
use crate::load::staging::{self, Target};
use crate::load::swap::{self, SwapOutcome, SwapParams};
use crate::load::tables;
use crate::plan::make::make_plan;
use crate::plan::refuse::{refuse_overwriting, refuse_without_privileges};
use crate::plan::{Missing, Plan, PlanArgs, preflight};
use crate::proof::plan as proof;
use crate::proof::report::{Phases, Report, Status, TableReport};
use crate::proof::tables::ComparisonResult;
use crate::runs::{self, RunFolder, Stage, base, folder, target};

/// What was loaded of each table, and the seconds that took.
type LoadTimes = Vec<(Loaded, f64)>;

/// Move a SQLite database into PostgreSQL and prove it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  oa-migrate run option_tracker.db --rehearse\n  oa-migrate run option_tracker.db --format json | jq '.tables[] | select(.matched | not)'\n  oa-migrate run old.db --schema archive --on-bad-value fail\n  oa-migrate run app.db --allow 'collation of column name'   # after reading what `run app.db --rehearse` lists as missing"
)]
pub(crate) struct Args {
    /// The SQLite file; it is opened read-only
    database: PathBuf,
    #[command(flatten)]
    options: MoveArgs,
}

// What `run` and `import` have in common. No documentation comment: clap would print it as the command's own.
#[derive(Debug, clap::Args)]
pub(crate) struct MoveArgs {
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    jobs: JobsArg,
    /// Do everything in a scratch schema, report, and drop it
    #[arg(long)]
    rehearse: bool,
    /// Replace the rows of tables that already have some; those are kept in a schema oa_before_…
    #[arg(long)]
    replace: bool,
    /// Exit with 0 even if definitions or contents are listed as missing in the target
    #[arg(long)]
    allow_missing: bool,
    /// Accept that this is missing, named as in the report: "default of column a", or "t: default of column a" for one table;
    /// may be given several times
    #[arg(long, value_name = "ITEM")]
    allow: Vec<String>,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl MoveArgs {
    fn allows(&self, missing: &Missing) -> bool {
        self.allow_missing || self.allow.iter().any(|text| missing.is_named(text))
    }
}

/// The database to move.
pub(crate) struct Source {
    pub(crate) database: PathBuf,
    /// The export that it was rebuilt from, which reports name instead of it.
    pub(crate) export: Option<PathBuf>,
    /// Virtual tables that it had before it was exported.
    pub(crate) absent: Vec<VirtualTable>,
}

impl Source {
    fn shown(&self) -> &Path {
        self.export.as_deref().unwrap_or(&self.database)
    }
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let source = Source {
        database: args.database.clone(),
        export: None,
        absent: Vec::new(),
    };
    move_database(&source, &args.options, config)
}

/// Moves a database, prints the report, and returns the exit code.
pub(crate) fn move_database(
    source: &Source,
    args: &MoveArgs,
    config: &Config,
) -> Result<u8, Failure> {
    // Before anything else, so that a wrong path touches nothing.
    let database = inspect::open(&source.database).map_err(failure)?;
    let target = Target::new(config)?;
    let recorder = Recorder::open(config, PROGRAM)?;
    let mut client = runs::connect_exclusive(&target, recorder.state()).map_err(failure)?;
    let (report, folder) = work::recorded(
        &recorder,
        &Job::by_hand(PROGRAM, "migrate", "SQLite 迁移"),
        |start| {
            let folder = RunFolder::create(recorder.state(), start.id)?;
            let ours = base::made_by_runs(&mut client, recorder.state(), &args.plan.schema)?;
            let mut migration = Migration {
                source,
                args,
                target: &target,
                client: &mut client,
                run: start.id,
                keeps_revisions: config.keeps_revisions(),
                staging: staging::schema_of(start.id),
                folder: &folder,
                identity: Identity::default(),
                ours,
                progress: Progress::start(),
                phases: Phases::default(),
                started: Instant::now(),
            };
            let result = folder::prune(recorder.state(), &folder.path)
                .and_then(|()| migration.run(&database));
            migration.progress.finish_and_clear();
            if result.is_err() {
                migration.clean_up();
            }
            let report = result.map_err(failure)?;
            Ok(JobOutcome {
                status: report.status.of_run(),
                fetched: report.tables.iter().map(|t| t.rows_read).sum(),
                error: shortcomings(&report),
                details: details(&report),
                ..JobOutcome::success((report, folder))
            })
        },
    )?;
    print_report(&report, &folder.path.join("report.md"), args.format)?;
    Ok(exit_code(report.status))
}

/// Forgets what was found while loading, before everything is loaded again.
fn forget_findings(plan: &mut Plan, noted: &[(usize, usize)]) {
    for (table, (warnings, missing)) in plan.tables.iter_mut().zip(noted) {
        table.warnings.truncate(*warnings);
        table.missing.truncate(*missing);
    }
}

/// Refuses to empty a table because all of the source's rows were quarantined.
fn refuse_emptying(plan: &Plan, reports: &[TableReport]) -> Result<()> {
    for (table, report) in plan.tables.iter().zip(reports) {
        let full = table.existing.as_ref().is_some_and(|e| e.has_rows);
        if full && report.rows_loaded == 0 && report.rows_quarantined > 0 {
            return Err(Refused(format!(
                "none of the {} rows of table {} fits the target's table, which has rows and would be left without any; nothing was changed. See run --rehearse for what does not fit{}",
                report.rows_read,
                table.source.name,
                table.warnings.first().map_or_else(String::new, |w| format!(" ({w})"))
            ))
            .into());
        }
    }
    Ok(())
}

fn details(report: &Report) -> Map<String, Value> {
    let sum = |f: fn(&TableReport) -> u64| -> u64 { report.tables.iter().map(f).sum() };
    let mut details = Map::new();
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

/// What makes the copy durable beside the work, where there is a thread for it.
type Durable = Option<JoinHandle<io::Result<()>>>;

struct Migration<'a> {
    source: &'a Source,
    args: &'a MoveArgs,
    target: &'a Target,
    client: &'a mut Client,
    run: Uuid,
    keeps_revisions: bool,
    staging: String,
    folder: &'a RunFolder,
    identity: Identity,
    /// Tables of the target that earlier runs have made.
    ours: HashSet<String>,
    progress: Progress,
    phases: Phases,
    started: Instant,
}

impl Migration<'_> {
    /// Copies the source, makes the plan, and looks for what would go wrong. Returns what makes the copy durable.
    fn prepare(&mut self, database: &Connection) -> Result<(Plan, Rejects, Durable)> {
        let (source, args) = (self.source, self.args);
        let snapshot = self.folder.snapshot();
        let at = Instant::now();
        self.progress.set_message("copying the source");
        // The file that an import rebuilds belongs to nobody; only its rows show what they came from.
        let file = match source.export {
            Some(_) => FileState::default(),
            None => FileState::read(&source.database)?,
        };
        inspect::copy(database, &source.database, &snapshot)?;
        // Made durable beside the work: only the last step needs it.
        let durable = threads::spawn("write the copy", {
            let snapshot = snapshot.clone();
            move || make_durable(&snapshot)
        });
        let durable = durable.inspect_err(|e| tracing::info!("{e}")).ok();
        self.phases.snapshot = at.elapsed().as_secs_f64();

        let at = Instant::now();
        self.progress.set_message("reading every value");
        let look = || {
            let copy = inspect::open(&snapshot)?;
            inspect::integrity(&copy, &source.database)
        };
        let (damage, plan) = threads::both("look for damage", look, || {
            make_plan(
                self.client,
                &snapshot,
                &source.database,
                &args.plan,
                &source.absent,
                &self.ours,
                args.jobs.count(),
            )
        });
        // Damage explains whatever else went wrong.
        damage?;
        let mut plan = plan?;
        plan.rehearsal = args.rehearse;
        self.identity = Identity::read(&inspect::open(&snapshot)?, source.shown(), file)?;
        refuse_overwriting(&plan, args.replace || args.rehearse)?;
        refuse_without_privileges(self.client, &plan)?;
        preflight::check(self.client, &mut plan, args.jobs.count())?;
        staging::create_schema(self.client, &self.staging, self.run)?;
        staging::try_expressions(self.client, &self.staging, &mut plan)?;
        let rejects = Rejects::create(&self.folder.rejects(), &snapshot)?;
        let mode = args.plan.on_bad_value;
        tables::vet(self.client, &snapshot, &rejects, &mut plan, mode)?;
        self.phases.scan = at.elapsed().as_secs_f64();
        Ok((plan, rejects, durable))
    }

    fn run(&mut self, database: &Connection) -> Result<Report> {
        let (source, args) = (self.source, self.args);
        let snapshot = self.folder.snapshot();
        let (mut plan, rejects, durable) = self.prepare(database)?;
        let (loaded, compared) = self.load_and_prove(&mut plan, &rejects)?;
        let reports = proof::table_reports(&plan, &rejects, &loaded, &compared)?;
        if !args.rehearse {
            refuse_emptying(&plan, &reports)?;
        }
        let matched = reports.iter().all(|t| t.matched);
        let quarantined = reports.iter().any(|t| t.rows_quarantined > 0);
        failpoint::hit("migrate.proven");

        let at = Instant::now();
        let mut warnings = plan.warnings.clone();
        let mut missing = plan.missing();
        let mut in_place = false;
        let durable = match durable {
            Some(thread) => thread
                .join()
                .map_err(|_| anyhow!("the thread that writes the copy panicked"))?,
            None => make_durable(&snapshot),
        };
        durable.with_context(|| format!("could not write {}", snapshot.display()))?;
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
        for text in &args.allow {
            if !missing.iter().any(|m| m.is_named(text)) {
                warnings.push(format!("--allow {text}: nothing of that name is missing"));
            }
        }
        let (allowed, missing): (Vec<Missing>, Vec<Missing>) = missing
            .into_iter()
            .partition(|m| !args.allow_missing && args.allows(m));
        let complete = missing.is_empty() || args.allow_missing;
        let report = Report {
            run_id: self.run.to_string(),
            database: source.shown().display().to_string(),
            schema: plan.schema.clone(),
            status: if !(in_place || args.rehearse) || !matched {
                Status::Failed
            } else if quarantined || !complete {
                Status::Partial
            } else {
                Status::Success
            },
            matched,
            seconds: self.started.elapsed().as_secs_f64(),
            phases: self.phases,
            tables: reports,
            missing,
            allowed,
            warnings,
            rehearsal: args.rehearse,
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
    ) -> Result<(LoadTimes, Vec<ComparisonResult>)> {
        let (snapshot, jobs) = (self.folder.snapshot(), self.args.jobs.count());
        let rows: u64 = plan.tables.iter().map(|t| t.stats.rows).sum();
        loop {
            let noted: Vec<(usize, usize)> = plan
                .tables
                .iter()
                .map(|t| (t.warnings.len(), t.missing.len()))
                .collect();
            let at = Instant::now();
            self.progress.begin("loading and reading back:", 2 * rows);
            let loaded = tables::load(
                self.client,
                self.target,
                (&snapshot, rejects),
                plan,
                &self.staging,
                jobs,
                &proof::Prover {
                    snapshot: &snapshot,
                    rejects,
                    schema: &self.staging,
                },
            );
            let mode = self.args.plan.on_bad_value;
            let differ = match loaded {
                Err(e) => {
                    let differ = proof::not_computed(plan, &e);
                    if differ.is_empty() {
                        return Err(e);
                    }
                    differ
                }
                Ok(loaded) if loaded.iter().any(|l| !l.misfits.is_empty()) => {
                    forget_findings(plan, &noted);
                    let misfits: Vec<_> = loaded.into_iter().map(|l| l.misfits).collect();
                    tables::vet_loaded(self.client, &snapshot, rejects, plan, mode, &misfits)?;
                    self.empty_staging()?;
                    continue;
                }
                Ok(loaded) => {
                    failpoint::hit("migrate.loaded");
                    // The proof runs beside the load; what is counted for it came after the last table.
                    let last = loaded.iter().map(|l| l.complete_at).max().unwrap_or(at);
                    self.phases.load += last.duration_since(at).as_secs_f64();
                    self.phases.proof += last.elapsed().as_secs_f64();
                    proof::check_constraints(self.client, plan, &self.staging)?;
                    let (mut rows, mut compared) = (Vec::new(), Vec::new());
                    for table in loaded {
                        rows.push((table.loaded, table.seconds));
                        compared.push(table.found.context("a table was not read back")?);
                    }
                    let differ = proof::computed_differently(plan, &compared);
                    if differ.is_empty() {
                        return Ok((rows, compared));
                    }
                    differ
                }
            };
            forget_findings(plan, &noted);
            proof::make_plain(plan, differ);
            tables::vet(self.client, &snapshot, rejects, plan, mode)?;
            self.empty_staging()?;
        }
    }

    fn empty_staging(&mut self) -> Result<()> {
        staging::drop_schema(self.client, &self.staging)?;
        staging::create_schema(self.client, &self.staging, self.run)
    }

    fn put_in_place(
        &mut self,
        plan: &Plan,
        rejects: &Rejects,
        warnings: &mut Vec<String>,
    ) -> Result<SwapOutcome> {
        let zone = self.args.plan.timestamps_in;
        let mut record = folder::record_of(plan, self.run, Utc::now(), self.source.shown(), zone);
        if !self.args.rehearse {
            record.target = target::id(self.client)?;
            record.source = Some(self.identity.clone());
            let allowed = plan.missing.iter().filter(|m| self.args.allows(m));
            record
                .skipped
                .get_or_insert_default()
                .extend(allowed.map(|m| m.table.clone()));
            self.folder.write(&record)?;
        }
        let swapped = swap::swap(
            self.client,
            plan,
            &self.staging,
            self.run,
            rejects,
            SwapParams {
                replace: self.args.replace || self.args.rehearse,
                rehearse: self.args.rehearse,
                keeps_revisions: self.keeps_revisions,
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
                "the rows that {} had are in schema {}",
                swapped.replaced.join(", "),
                swap::before_schema(self.run)
            );
        }
        for table in &plan.tables {
            for view in table.existing.iter().flat_map(|e| &e.materialized_views) {
                warnings.push(format!(
                    "materialized view {view} shows the older rows of {}: REFRESH MATERIALIZED VIEW {view}",
                    table.target
                ));
            }
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
                    "duplicates prevent the natural keys of: {}",
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

    /// After a failure: nothing of the run remains but its row in the run log.
    fn clean_up(&mut self) {
        if self.client.is_closed() {
            tracing::warn!(
                "the connection is gone; the next run will remove the schema {}",
                self.staging
            );
        } else if let Err(e) = staging::drop_schema(self.client, &self.staging) {
            tracing::warn!("{e:#}; the next run will try again");
        }
        // Without a connection nobody knows whether the last transaction was committed: `runs::folder::settle` finds out.
        if !self.client.is_closed() || !self.folder.path.join("run.json").exists() {
            self.folder.remove();
        }
    }
}

fn make_durable(copy: &Path) -> io::Result<()> {
    File::open(copy).and_then(|f| f.sync_all())
}
