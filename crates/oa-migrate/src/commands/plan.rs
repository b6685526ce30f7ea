//! `oa-migrate plan`: what `run` would do, without doing it.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::Context;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::state_dir::{StateDir, write_durably};
use oa_core::pg;
use serde_json::json;
use uuid::Uuid;

use crate::load::staging::Target;
use crate::plan::mapping::Mapping;
use crate::plan::{self, Plan};
use crate::state::RunFolder;
use crate::{PROGRAM, inspect, migration};

/// What `plan` was asked for.
#[derive(Debug)]
pub struct Options {
    /// The SQLite file.
    pub database: PathBuf,
    /// What to plan.
    pub plan: plan::Options,
    /// Tables read side by side.
    pub jobs: usize,
    /// Write the mapping here.
    pub write_mapping: Option<PathBuf>,
    /// How the result is printed.
    pub format: Format,
}

/// Reads the file, looks at the target, prints the plan.
///
/// # Errors
/// Unusable file (1), PostgreSQL away (75).
pub fn run(config: &Config, options: &Options) -> Result<u8, Failure> {
    let source = inspect::open(&options.database).map_err(anyhow::Error::from)?;
    let target = Target {
        settings: pg::Settings::from_config(config, PROGRAM)?,
    };
    let mut client = target.connect()?;
    let state = StateDir::open(&config.state_dir)?;
    let folder = RunFolder::create(&state, Uuid::now_v7())?;
    let snapshot = folder.snapshot();
    let made = inspect::snapshot(&source, &options.database, &snapshot)
        .map_err(anyhow::Error::from)
        .and_then(|()| {
            migration::make_plan(
                &mut client,
                &snapshot,
                &options.database,
                &options.plan,
                &[],
                &HashSet::new(),
                options.jobs,
            )
        });
    folder.remove();
    let plan = made?;
    if let Some(path) = &options.write_mapping {
        let text = Mapping::of_plan(&plan).to_toml()?;
        std::path::absolute(path)
            .and_then(|path| write_durably(&path, text.as_bytes()))
            .with_context(|| format!("could not write {}", path.display()))?;
    }
    print(&plan, options.format)?;
    Ok(exit::OK)
}

fn print(plan: &Plan, format: Format) -> anyhow::Result<()> {
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
                "bad_values": column.bad,
                "note": column.note.as_deref().unwrap_or_default(),
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
