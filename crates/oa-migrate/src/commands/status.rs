//! `oa-migrate status`: the runs on this machine, newest first, and the schemas that they keep in the database.

use anyhow::anyhow;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::state_dir::StateDir;
use oa_core::pg::describe;
use serde_json::json;

use super::failure;
use crate::load::staging::Target;
use crate::runs::{Stage, folder};

/// List the runs of this machine and what they keep in the database
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How the list is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let state = StateDir::open(&config.state_dir)?;
    let mut client = Target::new(config)?.connect()?;
    let mut listing = Listing::new(&[
        ("run_id", "RUN"),
        ("started", "STARTED"),
        ("state", "STATE"),
        ("schema", "SCHEMA"),
        ("tables", "TABLES"),
        ("snapshot", "SNAPSHOT"),
        ("database", "SOURCE"),
    ]);
    for (folder, record) in folder::runs(&state)? {
        listing.push(json!({
            "run_id": record.run_id,
            "started_at": record.started_at,
            "started": record.started_at.with_timezone(&config.timezone).format("%Y-%m-%d %H:%M:%S %Z").to_string(),
            "state": match record.stage {
                Stage::Swapping => "unknown until the next run",
                Stage::Done => "in place",
                Stage::RolledBack => "rolled back",
            },
            "schema": record.schema,
            "tables": record.tables.len(),
            "snapshot": if folder.snapshot().exists() { "kept" } else { "" },
            "database": record.database,
            "report": folder.path.join("report.md"),
        }));
    }
    listing.print(args.format).map_err(failure)?;
    let rows = client
        .query(
            "SELECT n.nspname::text, coalesce(obj_description(n.oid), ''), pg_size_pretty(coalesce(sum(pg_total_relation_size(c.oid)), 0)::int8)
             FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind = 'r'
             WHERE n.nspname ~ '^oa_(staging|before|after)_' GROUP BY n.oid, n.nspname ORDER BY 1",
            &[],
        )
        .map_err(|e| anyhow!("could not list schemas: {}", describe(&e)))?;
    for row in rows {
        let (name, comment, size): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        tracing::warn!("schema {name} ({size}): {comment}");
    }
    Ok(exit::OK)
}
