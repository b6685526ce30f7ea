//! `oa-restore plan`: what a restore would use, and what would be lost. Touches nothing.

use chrono::{DateTime, Utc};
use clap::Args;
use oa_core::cli::{self, Failure};
use oa_core::config::{Bytes, Config};
use oa_core::exit;
use oa_core::output::{Format, Listing};
use oa_core::pg::{self, Settings};
use oa_repository::ProgressReporter as Bars;
use serde_json::{Value, json};

use crate::PROGRAM;
use crate::choose::{Choice, End, Way};
use crate::options::Asked;
use crate::recover::Work;
use crate::session::Session;
use crate::target::Target;

/// What is wanted.
#[derive(Debug, Clone, Args)]
pub struct Wanted {
    /// The moment.
    #[command(flatten)]
    pub asked: Asked,
    /// How it is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Prints it.
///
/// # Errors
/// When nothing leads to that moment, and why.
pub fn run(config: &Config, wanted: &Wanted) -> Result<u8, Failure> {
    let asked = &wanted.asked;
    let session = Session::open(config, asked.from_copy, &Bars::hidden())?;
    let work = Work::begin(&session.staging)?;
    let choice = session.choose(asked, asked.kind.into(), None, &work)?;
    tell(&session, &choice, wanted.format)
}

/// Prints what was chosen, for the other commands' `--dry-run` too.
pub(super) fn tell(session: &Session<'_>, choice: &Choice, format: Format) -> Result<u8, Failure> {
    let drill = last_drill(session.config);
    let lost = (Utc::now() - choice.moment).num_seconds().max(0);
    if format == Format::Json {
        let mut value = described(choice);
        if let Value::Object(map) = &mut value {
            map.insert("repository".to_owned(), json!(session.place.shown()));
            map.insert("lost_seconds".to_owned(), json!(lost));
            map.insert("last_drill".to_owned(), json!(drill));
        }
        cli::print(&format!("{value}\n")).map_err(anyhow::Error::from)?;
        return Ok(exit::OK);
    }
    listing(session, choice)
        .print(format)
        .map_err(anyhow::Error::from)?;
    if format == Format::Table {
        cli::print(&told(session, choice, lost, drill.as_ref())).map_err(anyhow::Error::from)?;
    }
    Ok(exit::OK)
}

/// A choice, for programs.
fn described(choice: &Choice) -> Value {
    let backup = choice.backup();
    let mut value = json!({
        "target": choice.target.to_string(), "kind": backup.meta.kind, "moment": choice.moment,
        "behind_seconds": choice.behind.map(|b| b.num_seconds()), "backup": backup.id, "backup_at": backup.meta.restorable_to,
        "system_id": backup.meta.system_id, "server_version": backup.meta.server_version, "size_bytes": choice.size_bytes(), "notes": choice.notes,
    });
    if let (Way::Physical(p), Value::Object(map)) = (&choice.way, &mut value) {
        let sources: Vec<&str> = p.sources.iter().map(|s| s.id.as_str()).collect();
        map.insert("log_backups".to_owned(), json!(sources));
        map.insert("log_files".to_owned(), json!(p.wal.len()));
        map.insert(
            "timeline".to_owned(),
            json!(p.timeline.unwrap_or(p.full.meta.timeline)),
        );
    }
    value
}

fn listing(session: &Session<'_>, choice: &Choice) -> Listing {
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
    let backup = choice.backup();
    let stored = backup.meta.stored.size_bytes;
    match &choice.way {
        Way::Physical(p) => {
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
                        format!("fetch {files} files of its log"),
                    );
                }
            }
            let what = match &p.end {
                End::Log => "recover everything".to_owned(),
                End::Consistent => "recover until it is consistent".to_owned(),
                End::Time(at) => format!("recover what was committed up to {}", session.shown(*at)),
                End::Lsn(place) => match &choice.target {
                    Target::Name(name) => {
                        format!("recover up to the point \"{name}\" before {place}")
                    }
                    _ => format!("recover what was written before {place}"),
                },
            };
            push("", String::new(), 0, what);
        }
        Way::Logical(_) => {
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

fn told(session: &Session<'_>, choice: &Choice, lost: i64, drill: Option<&Drill>) -> String {
    let span = |seconds: i64| {
        humantime::format_duration(std::time::Duration::from_secs(seconds.unsigned_abs()))
            .to_string()
    };
    let mut text = format!(
        "\nIt would be as of {}: what was changed in the {} since then would not be in it.\n",
        session.shown(choice.moment),
        span(lost)
    );
    text.push_str(&match drill {
        Some(d) if d.ok => format!(
            "The last drill ({}) took {:.0} s.\n",
            session.shown(d.at),
            d.rto_seconds.unwrap_or_default()
        ),
        Some(d) => format!("The last drill ({}) failed.\n", session.shown(d.at)),
        None => {
            "How long it takes is not known: no drill is on record (oa-restore drill).\n".to_owned()
        }
    });
    text.push_str(&format!(
        "About {} are needed on the disk; nothing was done.\n",
        Bytes(choice.size_bytes())
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
