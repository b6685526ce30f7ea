//! `oa-crawl prune`: removes from the raw archive what is older than it has to be kept, and tells when the archive is too large.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use clap::Args as ClapArgs;
use oa_core::alerts;
use oa_core::cli::Failure;
use oa_core::config::{Bytes, Config};
use oa_core::exit;
use oa_core::output::{Format, Listing};
use oa_core::retry::{ErrorKind, Policy};
use oa_core::runs::{Begun, Outcome, Recorder, RunError, RunStart, Status, Stopwatch};
use postgres::{Client, Transaction};
use serde_json::{Value, json};

use super::args::{CronArg, SourcesArg};
use crate::PROGRAM;
use crate::archive::{Archive, KeptFile};
use crate::source::Sources;
use crate::wrapper::{self, Report};

/// The task's name in the run log.
const TASK: &str = "raw-prune";
/// Younger files stay whatever the index says: the run that received them may not have told it yet.
const YOUNG: Duration = Duration::from_secs(7 * 24 * 3600);
/// So many names are asked for at once.
const BATCH: usize = 10_000;

/// Remove answers from the raw archive that are older than they must be kept, and report an archive that is too large
///
/// How long answers are kept is raw_keep, in [crawl] or in a source file; what is too large is raw_limit in [crawl].
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  oa-crawl prune --dry-run")]
pub(crate) struct Args {
    /// Only show what would be removed
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    cron: CronArg,
    #[command(flatten)]
    sources: SourcesArg,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What was removed, or would be.
#[derive(Debug, Default)]
struct Pruned {
    answers: u64,
    files: u64,
    bytes: u64,
    left_files: u64,
    left_bytes: u64,
}

/// Removes the index of what is too old, and then the files that nothing refers to any more.
/// Exits 78 for a wrong configuration or schema, 75 when PostgreSQL is unreachable or the spool is not empty, 1 for an archive that
/// cannot be read.
pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    // How long a source's answers are kept stands in its file.
    let sources = args.sources.load(config)?.whole()?;
    let recorder = Recorder::open(config, PROGRAM)?;
    let archive = Archive::open(recorder.state())?;
    let (mut client, _) = recorder.connect()?;
    let waiting = recorder.spool().and_then(|s| s.pending());
    let waiting = waiting.map_err(anyhow::Error::from)?.entries;
    if waiting > 0 {
        return Err(Failure::new(
            exit::UNREACHABLE,
            anyhow::anyhow!(
                "{waiting} outcome(s) wait in the spool, and their answers are not in the index yet; nothing was removed: see oa-crawl drain"
            ),
        ));
    }
    let rules = Rules::of(config, &sources);
    if args.dry_run {
        let pruned = prune(&mut client, &archive, &rules, false)?;
        return print(&pruned, args.format);
    }
    let start = RunStart::now(
        PROGRAM,
        env!("CARGO_PKG_VERSION"),
        TASK,
        "清理原始存档",
        args.cron.trigger(),
        Policy::DEFAULT.lease(),
    );
    let clock = Stopwatch::start(start.started_at);
    let report = match recorder.begin(start.clone())? {
        Begun::Skipped { reason } => {
            let mut report = Report::of(&start, Status::Skipped);
            report.error = Some(RunError::new(ErrorKind::Internal, reason));
            report
        }
        Begun::Run(run) => {
            let pruned = prune(&mut client, &archive, &rules, true);
            let error = match &pruned {
                Ok(pruned) => too_large(config, pruned),
                Err(failure) => Some(RunError::new(ErrorKind::Internal, format!("{failure:#}"))),
            };
            let status = match error {
                None => Status::Success,
                Some(_) => Status::Failed,
            };
            let mut outcome = Outcome::bare(start, status, clock.now());
            outcome.error = error;
            let pruned = pruned.unwrap_or_default();
            outcome.details.insert("pruned".to_owned(), json(&pruned));
            print(&pruned, args.format)?;
            wrapper::conclude(&recorder, *run, outcome, clock)?
        }
    };
    // What was done is printed already; a person wants to read why it is not enough.
    match &report.error {
        Some(error) => tracing::error!("{}", error.message),
        None => return Ok(exit::OK),
    }
    if report.alerted {
        alerts::flush_now(config);
    }
    Ok(report.exit_code())
}

/// How long answers are kept.
struct Rules {
    default: DateTime<Utc>,
    /// By task, where its source file says it.
    own: Vec<(String, DateTime<Utc>)>,
}

impl Rules {
    fn of(config: &Config, sources: &Sources) -> Self {
        let before = |keep: Duration| Utc::now() - keep;
        let own = sources
            .iter()
            .filter_map(|s| Some((s.name.clone(), before(s.raw_keep?.0))));
        Self {
            default: before(config.crawl.raw_keep.0),
            own: own.collect(),
        }
    }
}

fn prune(
    client: &mut Client,
    archive: &Archive,
    rules: &Rules,
    remove: bool,
) -> anyhow::Result<Pruned> {
    let mut pruned = Pruned::default();
    let mut tx = client.transaction()?;
    // A first time after years may take long; nobody waits for these rows.
    tx.batch_execute("SET LOCAL statement_timeout = 0")?;
    pruned.answers = forget(&mut tx, rules)?;
    let mut unused = Vec::new();
    let mut candidates = Vec::new();
    for file in archive.files()? {
        let file = file?;
        pruned.left_files += 1;
        pruned.left_bytes += file.bytes;
        if is_old(&file) {
            candidates.push(file);
        }
        if candidates.len() == BATCH {
            unused.extend(without_use(&mut tx, &mut candidates)?);
        }
    }
    unused.extend(without_use(&mut tx, &mut candidates)?);
    if remove {
        tx.commit()?;
    } else {
        tx.rollback()?;
    }
    for file in unused {
        if !remove || archive.remove_unless(&file, |now| !is_old(now))? {
            pruned.files += 1;
            pruned.bytes += file.bytes;
        }
    }
    pruned.left_files -= pruned.files;
    pruned.left_bytes -= pruned.bytes;
    Ok(pruned)
}

fn is_old(file: &KeptFile) -> bool {
    SystemTime::now()
        .duration_since(file.modified)
        .is_ok_and(|age| age > YOUNG)
}

fn forget(tx: &mut Transaction<'_>, rules: &Rules) -> Result<u64, postgres::Error> {
    let names: Vec<&str> = rules.own.iter().map(|(task, _)| task.as_str()).collect();
    let mut forgotten = tx.execute(
        "DELETE FROM oa.raw w WHERE w.run_id < oa.uuid_floor($1)
           AND NOT EXISTS (SELECT FROM oa.runs r WHERE r.id = w.run_id AND r.task = ANY($2))",
        &[&rules.default, &names],
    )?;
    for (task, before) in &rules.own {
        forgotten += tx.execute(
            "DELETE FROM oa.raw w USING oa.runs r WHERE r.id = w.run_id AND r.task = $2 AND w.run_id < oa.uuid_floor($1)",
            &[before, task],
        )?;
    }
    Ok(forgotten)
}

/// Those of the files that no answer in the index refers to.
fn without_use(
    tx: &mut Transaction<'_>,
    files: &mut Vec<KeptFile>,
) -> Result<Vec<KeptFile>, postgres::Error> {
    let names: Vec<&str> = files.iter().map(|f| f.sha256.as_str()).collect();
    let rows = tx.query(
        "SELECT n FROM unnest($1::text[]) n WHERE EXISTS (SELECT FROM oa.raw w WHERE w.sha256 = n)",
        &[&names],
    )?;
    let used: std::collections::HashSet<String> = rows.iter().map(|r| r.get(0)).collect();
    let mut unused = std::mem::take(files);
    unused.retain(|f| !used.contains(&f.sha256));
    Ok(unused)
}

fn too_large(config: &Config, pruned: &Pruned) -> Option<RunError> {
    let limit = config.crawl.raw_limit.0;
    (pruned.left_bytes > limit).then(|| {
        let message = format!(
            "the raw archive has {} in {} files, more than its limit of {} (raw_limit in [crawl]); make room, keep answers for a shorter time (raw_keep), or raise the limit: nothing was removed for it",
            Bytes(pruned.left_bytes),
            pruned.left_files,
            Bytes(limit)
        );
        RunError::new(ErrorKind::Internal, message)
    })
}

fn json(pruned: &Pruned) -> Value {
    json!({
        "answers": pruned.answers, "files": pruned.files, "bytes": pruned.bytes,
        "left_files": pruned.left_files, "left_bytes": pruned.left_bytes,
    })
}

fn print(pruned: &Pruned, format: Format) -> Result<u8, Failure> {
    let mut listing = Listing::new(&[
        ("answers", "ANSWERS FORGOTTEN"),
        ("files", "FILES REMOVED"),
        ("bytes", "BYTES"),
        ("left_files", "FILES LEFT"),
        ("left_bytes", "BYTES LEFT"),
    ]);
    listing.push(json(pruned));
    listing.print(format).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}
