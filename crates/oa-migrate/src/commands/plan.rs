//! `oa-migrate plan`: what `run` would do, without doing it.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::state_dir::{StateDir, write_durably};
use oa_core::pg::describe;
use postgres::Client;
use serde_json::json;
use uuid::Uuid;

use super::{JobsArg, failure};
use crate::inspect;
use crate::load::ddl;
use crate::load::staging::Target;
use crate::plan::make::make_plan;
use crate::plan::mapping::Mapping;
use crate::plan::{Plan, PlanArgs, app_notes};
use crate::runs::RunFolder;

/// Show what run would do: types, keys, and what cannot be moved as it is
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The SQLite file; it is opened read-only
    database: PathBuf,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    jobs: JobsArg,
    /// Write the plan as a mapping that can be edited and given to run
    #[arg(long, value_name = "FILE")]
    write_mapping: Option<PathBuf>,
    /// Print instead the statements that create the tables
    #[arg(long)]
    ddl: bool,
    /// Print instead what the application will notice: statements that mean something else in PostgreSQL
    #[arg(long, conflicts_with = "ddl")]
    app: bool,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let source = inspect::open(&args.database).map_err(failure)?;
    let mut client = Target::new(config)?.connect()?;
    let state = StateDir::open(&config.state_dir)?;
    let folder = RunFolder::create(&state, Uuid::now_v7())?;
    let snapshot = folder.snapshot();
    let made = inspect::snapshot(&source, &args.database, &snapshot)
        .map_err(anyhow::Error::from)
        .and_then(|()| {
            make_plan(
                &mut client,
                &snapshot,
                &args.database,
                &args.plan,
                &[],
                &HashSet::new(),
                args.jobs.count(),
            )
        });
    folder.remove();
    let plan = made.map_err(failure)?;
    if let Some(path) = &args.write_mapping {
        let text = Mapping::of_plan(&plan).to_toml()?;
        std::path::absolute(path)
            .and_then(|path| write_durably(&path, text.as_bytes()))
            .with_context(|| format!("could not write {}", path.display()))?;
    }
    if args.ddl {
        cli::print(&ddl::script(&plan)).context("could not print the statements")?;
        return Ok(exit::OK);
    }
    if args.app {
        print_app_notes(&mut client, &plan, args.format)?;
        return Ok(exit::OK);
    }
    print(&plan, args.format)?;
    Ok(exit::OK)
}

fn print_app_notes(client: &mut Client, plan: &Plan, format: Format) -> Result<()> {
    // Asked by an example: C.UTF-8 is by bytes too, and a locale of ICU stands in another column in each version.
    let order: Option<String> = client
        .query_one(
            "SELECT CASE WHEN 'a'::text < 'Z'::text
                         THEN coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', d.datcollate::text) END
             FROM pg_database d WHERE d.datname = current_database()",
            &[],
        )
        .map_err(|e| anyhow!("could not read the database's collation: {}", describe(&e)))?
        .get(0);
    let mut listing = Listing::new(&[
        ("topic", "TOPIC"),
        ("sqlite", "IN SQLITE"),
        ("postgresql", "IN POSTGRESQL"),
        ("remedy", "INSTEAD"),
        ("concerns", "COLUMNS"),
    ]);
    for note in app_notes::of(plan, order.as_deref()) {
        listing.push(json!({
            "topic": note.topic,
            "sqlite": note.sqlite,
            "postgresql": note.postgresql,
            "remedy": note.remedy,
            "concerns": note.columns.join(" "),
        }));
    }
    listing.print(format)?;
    Ok(())
}

fn print(plan: &Plan, format: Format) -> Result<()> {
    let mut listing = Listing::new(&[
        ("table", "TABLE"),
        ("column", "COLUMN"),
        ("declared", "DECLARED"),
        ("target", "TARGET"),
        ("type", "TYPE"),
        ("not_null", "NOT NULL"),
        ("bad_values", "BAD"),
        ("note", "NOTE"),
    ]);
    for table in &plan.tables {
        for (column, stats) in table.columns.iter().zip(&table.stats.columns) {
            listing.push(json!({
                "table": table.source.name,
                "column": column.source,
                "declared": column.declared,
                "target": format!("{}.{}", table.target, column.target),
                "type": column.pg.to_string(),
                "not_null": if column.not_null { "yes" } else { "" },
                // Only PostgreSQL, or a conversion, can say.
                "bad_values": (!column.doubtful || column.bad > 0).then_some(column.bad),
                "note": column.note.as_deref().unwrap_or(if column.doubtful {
                    "each value is tried by run"
                } else {
                    ""
                }),
                "rows": table.stats.rows,
                "nulls": stats.nulls,
                "default": column.default,
                "generated": column.generated,
                "primary_key": table.primary_key.contains(&column.target),
                "identity": table.identity.as_ref().is_some_and(|(c, _)| *c == column.target),
            }));
        }
        for warning in &table.warnings {
            tracing::warn!("{}: {warning}", table.source.name);
        }
    }
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    for missing in plan.missing() {
        tracing::warn!("{}", missing.sentence());
    }
    listing.print(format)?;
    Ok(())
}
