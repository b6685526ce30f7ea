//! `oa-migrate status`: runs on this machine, and what they left in the database.

use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::state_dir::StateDir;
use oa_core::pg;
use oa_core::pg::describe;
use serde_json::json;

use crate::PROGRAM;
use crate::load::staging::Target;
use crate::state::{self, Stage};

/// Lists runs, newest first, and the schemas that they keep.
///
/// # Errors
/// When PostgreSQL is away (75) or the state directory cannot be read.
pub fn run(config: &Config, format: Format) -> Result<u8, Failure> {
    let target = Target {
        settings: pg::Settings::from_config(config, PROGRAM)?,
    };
    let state = StateDir::open(&config.state_dir)?;
    let mut client = target.connect()?;
    let mut listing = Listing::new(&[
        ("run_id", "RUN"),
        ("started_at", "STARTED (UTC)"),
        ("state", "STATE"),
        ("schema", "SCHEMA"),
        ("tables", "TABLES"),
        ("snapshot", "SNAPSHOT"),
        ("database", "SOURCE"),
    ]);
    for (folder, record) in state::runs(&state)? {
        listing.push(json!({
            "run_id": record.run_id,
            "started_at": record.started_at.format("%Y-%m-%d %H:%M:%S").to_string(),
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
    listing.print(format).map_err(anyhow::Error::from)?;
    let rows = client
        .query(
            "SELECT n.nspname::text, coalesce(obj_description(n.oid), ''), pg_size_pretty(coalesce(sum(pg_total_relation_size(c.oid)), 0)::int8)
             FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind = 'r'
             WHERE n.nspname ~ '^oa_(staging|before|after)_' GROUP BY n.oid, n.nspname ORDER BY 1",
            &[],
        )
        .map_err(|e| anyhow::anyhow!("could not list schemas: {}", describe(&e)))?;
    for row in rows {
        let (name, comment, size): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        tracing::warn!("schema {name} ({size}): {comment}");
    }
    Ok(exit::OK)
}
