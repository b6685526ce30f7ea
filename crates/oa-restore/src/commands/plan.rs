//! `oa-restore plan`: what a restore would use, and what would be lost. Touches nothing.

use chrono::{DateTime, Utc};
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::units::Bytes;
use oa_core::pg::{self, Settings};
use oa_repository::ProgressReporter;
use serde_json::{Value, json};

use super::options::TargetArgs;
use super::session::Session;
use crate::PROGRAM;
use crate::plan::target::Target;
use crate::plan::{RestorePlan, StopAt, Strategy};
use crate::recover::WorkFolder;

/// Print which backups and which WAL a restore would use, and what would be lost
#[derive(Debug, clap::Args)]
#[command(
    after_help = "PostgreSQL need not run. Nothing is changed.\n\nExamples:\n  oa-restore plan --to latest\n  oa-restore plan --to \"2026-11-23 14:05\"\n  oa-restore plan --to \"2h ago\" --format json | jq .lost_seconds"
)]
pub(crate) struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let session = Session::open(config, args.target.from_copy, &ProgressReporter::hidden())?;
    let work = WorkFolder::begin(&session.staging)?;
    let plan = session.plan(&args.target, args.target.kind.into(), None, &work)?;
    print(&session, &plan, last_drill(config).as_ref(), args.format)
}

/// For the other commands' `--dry-run`.
pub(super) fn print_dry_run(
    session: &Session<'_>,
    plan: &RestorePlan,
    config: &Config,
    format: Format,
) -> Result<u8, Failure> {
    print(session, plan, last_drill(config).as_ref(), format)
}

fn print(
    session: &Session<'_>,
    plan: &RestorePlan,
    drill: Option<&Drill>,
    format: Format,
) -> Result<u8, Failure> {
    let lost = (session.now() - plan.as_of).num_seconds().max(0);
    if format == Format::Json {
        let mut value = to_json(plan);
        value["repository"] = json!(session.place.shown());
        value["lost_seconds"] = json!(lost);
        value["last_drill"] = json!(drill);
        cli::print(&format!("{value}\n")).map_err(anyhow::Error::from)?;
        return Ok(exit::OK);
    }
    listing(session, plan)
        .print(format)
        .map_err(anyhow::Error::from)?;
    if format == Format::Table {
        cli::print(&summary(session, plan, lost, drill)).map_err(anyhow::Error::from)?;
    }
    Ok(exit::OK)
}

fn to_json(plan: &RestorePlan) -> Value {
    let backup = plan.backup();
    let mut value = json!({
        "target": plan.target.to_string(), "kind": backup.meta.kind, "as_of": plan.as_of,
        "behind_seconds": plan.behind.map(|b| b.num_seconds()), "backup": backup.id, "backup_at": backup.meta.restorable_to,
        "system_id": backup.meta.system_id, "server_version": backup.meta.server_version, "size_bytes": plan.size_bytes(), "notes": plan.notes,
    });
    if let Strategy::Physical(p) = &plan.strategy {
        let sources: Vec<&str> = p.sources.iter().map(|s| s.id.as_str()).collect();
        value["wal_backups"] = json!(sources);
        value["wal_files"] = json!(p.wal.len());
        value["timeline"] = json!(p.timeline.unwrap_or(p.full.meta.timeline));
    }
    value
}

fn listing(session: &Session<'_>, plan: &RestorePlan) -> Listing {
    let mut listing = Listing::new(&[
        ("step", "step"),
        ("backup", "backup"),
        ("of", "of"),
        ("size", "size"),
        ("what", "what"),
    ]);
    let mut step = 0;
    let mut push = |backup: &str, of: String, size: u64, what: String| {
        step += 1;
        listing.push(json!({"step": step, "backup": backup, "of": of, "size": Bytes(size).to_string(), "size_bytes": size, "what": what}));
    };
    let backup = plan.backup();
    let stored = backup.meta.stored.size_bytes;
    match &plan.strategy {
        Strategy::Physical(p) => {
            push(
                backup.short_id(),
                session.shown(backup.meta.restorable_to),
                stored,
                format!(
                    "copy the cluster (PostgreSQL {})",
                    backup.meta.server_version / 10_000
                ),
            );
            for (i, source) in p.sources.iter().enumerate() {
                let files = p.wal.iter().filter(|f| f.source == i).count();
                if files > 0 {
                    push(
                        source.short_id(),
                        session.shown(source.meta.restorable_to),
                        files as u64 * p.segment_bytes,
                        format!("fetch {files} files of its WAL"),
                    );
                }
            }
            let what = match &p.end {
                StopAt::EndOfWal => "recover everything".to_owned(),
                StopAt::Consistent => "recover until it is consistent".to_owned(),
                StopAt::Time(at) => {
                    format!("recover what was committed up to {}", session.shown(*at))
                }
                StopAt::Lsn(lsn) => match &plan.target {
                    Target::Name(name) => {
                        format!("recover up to the point \"{name}\" before {lsn}")
                    }
                    _ => format!("recover what was written before {lsn}"),
                },
            };
            push("", String::new(), 0, what);
        }
        Strategy::Logical(_) => {
            push(
                backup.short_id(),
                session.shown(backup.meta.restorable_to),
                stored,
                format!(
                    "load the dump of database {} (PostgreSQL {})",
                    backup.meta.database,
                    backup.meta.server_version / 10_000
                ),
            );
        }
    }
    listing
}

fn summary(session: &Session<'_>, plan: &RestorePlan, lost: i64, drill: Option<&Drill>) -> String {
    let span = |seconds: i64| {
        humantime::format_duration(std::time::Duration::from_secs(seconds.unsigned_abs()))
            .to_string()
    };
    let mut text = format!(
        "\nIt would be as of {}: what was changed in the {} since then would not be in it.\n",
        session.shown(plan.as_of),
        span(lost)
    );
    text.push_str(&match drill {
        Some(d) if d.ok => format!(
            "The last drill ({}) {}.\n",
            session.shown(d.at),
            d.rto_seconds
                .map_or_else(|| "succeeded".to_owned(), |s| format!("took {s:.0} s"))
        ),
        Some(d) => format!("The last drill ({}) failed.\n", session.shown(d.at)),
        None => {
            "How long it takes is not known: no drill is on record (oa-restore drill).\n".to_owned()
        }
    });
    text.push_str(&format!(
        "About {} are needed on the disk; nothing was done.\n",
        Bytes(plan.size_bytes())
    ));
    text
}

/// The newest drill on record.
#[derive(Debug, serde::Serialize)]
struct Drill {
    at: DateTime<Utc>,
    rto_seconds: Option<f64>,
    ok: bool,
}

/// `None` also when PostgreSQL does not answer.
fn last_drill(config: &Config) -> Option<Drill> {
    let mut client = pg::connect(&Settings::from_config(config, PROGRAM).ok()?).ok()?;
    let row = client
        .query_opt(
            "SELECT started_at, rto_seconds, ok FROM oa.drills ORDER BY seq DESC LIMIT 1",
            &[],
        )
        .ok()??;
    Some(Drill {
        at: row.get(0),
        rto_seconds: row.get(1),
        ok: row.get(2),
    })
}
