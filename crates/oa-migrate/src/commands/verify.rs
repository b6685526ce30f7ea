//! `oa-migrate verify`: compares a SQLite file with PostgreSQL again, at any time. Names, types and quarantined rows are those
//! of the runs of this source.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::output::Format;
use oa_core::app::work::{self, Job, JobOutcome};
use oa_core::journal::Recorder;
use postgres::Client;
use rusqlite::Connection;
use serde_json::json;
use uuid::Uuid;

use super::output::{exit_code, print_report, shortcomings};
use super::{JobsArg, failure};
use crate::PROGRAM;
use crate::inspect::{self, Database};
use crate::load::rejects::Rejects;
use crate::load::staging::Target;
use crate::plan::Missing;
use crate::proof::report::{Phases, Report, Status, TableReport};
use crate::proof::tables::{self, ComparisonResult};
use crate::proof::{Comparison, constraints};
use crate::runs::{Base, RunFolder, RunSelection, base, target};

/// Compare a SQLite file with the target again, row by row
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The file must be the source of a run, or what to-sqlite made of it; another one is refused with 77.\n\nExamples:\n  oa-migrate verify option_tracker.db\n  oa-migrate verify moved.db --same-source --schema archive"
)]
pub(crate) struct Args {
    /// The SQLite file; it is opened read-only
    database: PathBuf,
    #[command(flatten)]
    selection: RunSelection,
    #[command(flatten)]
    jobs: JobsArg,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let source = inspect::open(&args.database).map_err(failure)?;
    let target = Target::new(config)?;
    let recorder = Recorder::open(config, PROGRAM)?;
    let (mut client, bases) = base::connect(&target, recorder.state()).map_err(failure)?;
    let bases =
        base::of_source(bases, &args.selection, &source, &args.database, true).map_err(failure)?;
    let (report, written) = work::recorded(
        &recorder,
        &Job::by_hand(PROGRAM, "verify", "迁移校验"),
        |start| {
            let folder = RunFolder::create(recorder.state(), start.id)?;
            let result = verify(
                &source,
                &folder,
                &bases,
                &target,
                &mut client,
                args,
                start.id,
            );
            let _ = fs::remove_file(folder.snapshot());
            let _ = fs::remove_file(folder.rejects());
            if result.is_err() {
                folder.remove();
            }
            let report = result.map_err(failure)?;
            report.write(&folder.path)?;
            let mut details = serde_json::Map::new();
            details.insert("of_run".to_owned(), json!(bases[0].record.run_id));
            details.insert("matched".to_owned(), json!(report.matched));
            Ok(JobOutcome {
                status: report.status.of_run(),
                fetched: report.tables.iter().map(|t| t.rows_read).sum(),
                error: shortcomings(&report),
                details,
                ..JobOutcome::success((report, folder.path.join("report.md")))
            })
        },
    )?;
    print_report(&report, &written, args.format)?;
    Ok(exit_code(report.status))
}

fn verify(
    source: &Connection,
    folder: &RunFolder,
    bases: &[Base],
    target: &Target,
    client: &mut Client,
    args: &Args,
    run: Uuid,
) -> Result<Report> {
    let started = Instant::now();
    let snapshot = folder.snapshot();
    inspect::snapshot(source, &args.database, &snapshot)?;
    let mut phases = Phases {
        snapshot: started.elapsed().as_secs_f64(),
        ..Phases::default()
    };
    let at = Instant::now();
    let copy = inspect::open(&snapshot)?;
    let database = Database::read(&copy, &args.database)?;
    let mut schemas: Vec<&str> = bases.iter().map(|b| b.record.schema.as_str()).collect();
    schemas.dedup();
    let mut reports = Vec::new();
    for base in bases {
        let rejects =
            base::quarantined_rows(client, &base.folder, &base.record, &folder.rejects())?;
        let targets: Vec<&str> = base
            .record
            .tables
            .iter()
            .map(|t| t.target.as_str())
            .collect();
        target::refuse_hidden_rows(client, &base.record.schema, &targets)?;
        let pairs = base::comparisons(client, &database, &base.record)?;
        let list: Vec<Comparison> = pairs.into_iter().map(|(_, c)| c).collect();
        for comparison in &list {
            tables::ask_forms(client, &copy, &rejects, comparison)?;
        }
        let compared = tables::compare_all(target, &snapshot, &rejects, &list, args.jobs.count())?;
        for (comparison, compared) in list.iter().zip(&compared) {
            let mut report = table_report(client, comparison, compared, &rejects)?;
            if schemas.len() > 1 {
                report.target = format!("{}.{}", comparison.schema, comparison.target);
            }
            reports.push(report);
        }
    }
    phases.proof = at.elapsed().as_secs_f64();
    let (mut warnings, mut missing) = (Vec::new(), Vec::new());
    for not_moved in base::not_moved(&database, bases) {
        if not_moved.on_purpose {
            warnings.push(not_moved.sentence);
        } else {
            missing.push(Missing {
                table: args.database.display().to_string(),
                item: "table".to_owned(),
                had: "rows in the source".to_owned(),
                has: not_moved.sentence,
                sql: String::new(),
            });
        }
    }
    let matched = reports.iter().all(|t| t.matched);
    let quarantined = reports.iter().any(|t| t.rows_quarantined > 0);
    Ok(Report {
        run_id: run.to_string(),
        database: args.database.display().to_string(),
        schema: schemas.join(", "),
        status: match (matched, quarantined || !missing.is_empty()) {
            (false, _) => Status::Failed,
            (true, true) => Status::Partial,
            (true, false) => Status::Success,
        },
        matched,
        seconds: started.elapsed().as_secs_f64(),
        phases,
        tables: reports,
        missing,
        allowed: Vec::new(),
        warnings,
        rehearsal: false,
    })
}

fn table_report(
    client: &mut Client,
    comparison: &Comparison,
    result: &ComparisonResult,
    rejects: &Rejects,
) -> Result<TableReport> {
    Ok(TableReport::of(
        &comparison.source,
        &comparison.target,
        comparison.columns.iter().map(|c| (c.target.as_str(), c.pg)),
        result,
        rejects.count(&comparison.source)?,
        constraints::check(client, &comparison.schema, &comparison.target)?,
    ))
}
