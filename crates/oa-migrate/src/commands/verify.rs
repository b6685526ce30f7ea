//! `oa-migrate verify`: compares a SQLite file with PostgreSQL again, at any time.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::output::Format;
use oa_core::journal::Recorder;
use oa_core::pg;
use postgres::Client;
use serde_json::json;

use crate::PROGRAM;
use crate::base::{self, Base, Which};
use crate::commands::run;
use crate::inspect::{self, Database};
use crate::load::rejects::Rejects;
use crate::load::staging::Target;
use crate::proof::Comparison;
use crate::proof::constraints;
use crate::proof::missing::Missing;
use crate::proof::report::{ColumnReport, Phases, Report, Status, TableReport};
use crate::proof::tables::{self, Compared};
use crate::state::RunFolder;
use oa_core::app::work;
use oa_core::app::work::{Job, JobOutcome};

/// What `verify` was asked for.
#[derive(Debug)]
pub struct Options {
    /// The SQLite file.
    pub database: PathBuf,
    /// Which runs.
    pub which: Which,
    /// Tables compared side by side.
    pub jobs: usize,
    /// How the result is printed.
    pub format: Format,
}

/// Compares and prints. Names, types and quarantined rows are those of the runs of this source.
///
/// # Errors
/// No run yet or unusable file (1), the file is not the run's source (77), PostgreSQL away (75).
pub fn run(config: &Config, options: &Options) -> Result<u8, Failure> {
    let source = inspect::open(&options.database).map_err(anyhow::Error::from)?;
    let target = Target {
        settings: pg::Settings::from_config(config, PROGRAM)?,
    };
    let recorder = Recorder::open(config, PROGRAM)?;
    let (mut client, bases) = base::connect(&target, recorder.state())?;
    let bases = base::of_source(bases, &options.which, &source, &options.database, true)?;
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
                options,
                &start.id.to_string(),
            );
            let _ = std::fs::remove_file(folder.snapshot());
            let _ = std::fs::remove_file(folder.rejects());
            if result.is_err() {
                folder.remove();
            }
            let report = result?;
            report.write(&folder.path)?;
            let mut details = serde_json::Map::new();
            details.insert("of_run".to_owned(), json!(bases[0].record.run_id));
            details.insert("matched".to_owned(), json!(report.matched));
            Ok(JobOutcome {
                status: report.status.of_run(),
                fetched: report.tables.iter().map(|t| t.rows_read).sum(),
                error: (report.status != Status::Success).then(|| run::sentence(&report)),
                details,
                ..JobOutcome::success((report, folder.path.join("report.md")))
            })
        },
    )?;
    run::print(&report, &written, options.format)?;
    Ok(report.status.exit_code())
}

fn verify(
    source: &rusqlite::Connection,
    folder: &RunFolder,
    bases: &[Base],
    target: &Target,
    client: &mut Client,
    options: &Options,
    run_id: &str,
) -> Result<Report> {
    let started = Instant::now();
    let snapshot = folder.snapshot();
    inspect::snapshot(source, &options.database, &snapshot)?;
    let mut phases = Phases {
        snapshot: started.elapsed().as_secs_f64(),
        ..Phases::default()
    };
    let at = Instant::now();
    let copy = inspect::open(&snapshot)?;
    let database = Database::read(&copy, &options.database)?;
    drop(copy);
    let mut schemas: Vec<&str> = bases.iter().map(|b| b.record.schema.as_str()).collect();
    schemas.dedup();
    let mut reports = Vec::new();
    for base in bases {
        let rejects = base::put_aside(client, &base.folder, &base.record, &folder.rejects())?;
        let pairs = base::comparisons(client, &database, &base.record)?;
        let list: Vec<Comparison> = pairs.into_iter().map(|(_, c)| c).collect();
        let compared = tables::compare_all(target, &snapshot, &rejects, &list, options.jobs)?;
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
    for (sentence, on_purpose) in base::strangers(&database, bases) {
        if on_purpose {
            warnings.push(sentence);
        } else {
            missing.push(Missing {
                table: options.database.display().to_string(),
                item: "table".to_owned(),
                had: "rows in the source".to_owned(),
                has: sentence,
                sql: String::new(),
            });
        }
    }
    let matched = reports.iter().all(|t| t.matched);
    let quarantined = reports.iter().any(|t| t.rows_quarantined > 0);
    Ok(Report {
        run_id: run_id.to_owned(),
        database: options.database.display().to_string(),
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
        warnings,
        rehearsal: false,
    })
}

fn table_report(
    client: &mut Client,
    comparison: &Comparison,
    compared: &Compared,
    rejects: &Rejects,
) -> Result<TableReport> {
    let rows_quarantined = rejects.count(&comparison.source)?;
    let mut warnings = constraints::check(client, &comparison.schema, &comparison.target)?;
    if rows_quarantined > 0 {
        warnings.push(format!(
            "{rows_quarantined} row(s) are in oa.rejects, not in the table"
        ));
    }
    Ok(TableReport {
        table: comparison.source.clone(),
        target: comparison.target.clone(),
        rows_read: compared.source.rows + rows_quarantined,
        rows_loaded: compared.target.rows,
        rows_quarantined,
        source_hash: compared.source.hex(),
        target_hash: compared.target.hex(),
        matched: compared.matched(),
        seconds: compared.seconds,
        bytes: 0,
        columns: comparison
            .columns
            .iter()
            .zip(&compared.source.columns)
            .zip(&compared.target.columns)
            .map(|((column, a), b)| ColumnReport {
                column: column.target.clone(),
                pg: column.pg.to_string(),
                values: b.values,
                matched: a == b,
            })
            .collect(),
        difference: compared.difference.clone(),
        warnings,
    })
}
