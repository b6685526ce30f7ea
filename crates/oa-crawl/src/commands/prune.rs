//! `oa-crawl prune`: removes old answers from the raw archive, and reports an archive that is too large.

use clap::Args as ClapArgs;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::flush_now;
use oa_core::app::output::{Format, Listing};
use oa_core::base::supervise::StopSignal;
use oa_core::base::units::Bytes;
use oa_core::journal::Recorder;
use oa_core::journal::attempts::Failed;
use oa_core::model::retry::{ErrorKind, Policy};
use oa_core::model::run::{Outcome, RunError, RunStart, Trigger};
use postgres::Client;
use serde_json::{Value, json};

use super::args::{CronArg, SourcesArg};
use super::report;
use crate::PROGRAM;
use crate::archive::Archive;
use crate::archive::prune::{Pruned, Rules, prune};
use crate::progress;
use oa_core::journal::runner::{self, Task};

const TASK: &str = "raw-prune";

/// Remove old answers from the raw archive, old slots and revisions, and report an archive that is too large
///
/// Answers stay for raw_keep, in [crawl] or in a source file; raw_limit in [crawl] says what is too large. Closed slots, finished
/// requests of the page, and the record of used links in messages stay as long, and at least 90 days; what became of each day stays
/// for ever. Revisions stay for keep_revisions, in [store].
#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "help names sections of the configuration"
)]
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

/// Exits 78 for a wrong configuration or schema, 75 when PostgreSQL is unreachable or the spool is not empty, 1 for an archive that
/// cannot be read.
pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    // A source's file may say how long its answers are kept.
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
    let rules = Rules::new(
        config.crawl.raw_keep.0,
        sources
            .iter()
            .filter_map(|s| Some((s.name.clone(), s.raw_keep?.0))),
        config.store.keep_revisions.map(|span| span.0),
    );
    let shown = progress::show(args.format, args.cron.trigger() != Trigger::Manual);
    let work = progress::work("raw archive");
    if args.dry_run {
        let pruned = prune(&mut client, &archive, &rules, false)?;
        drop((work, shown));
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
    let mut task = Prune {
        config,
        client: &mut client,
        archive: &archive,
        rules: &rules,
        pruned: None,
    };
    let report = runner::run(&recorder, StopSignal, start, &mut task);
    drop((work, shown));
    if let Some(pruned) = &task.pruned {
        print(pruned, args.format)?;
    }
    let report = report?;
    // What was done is printed already; the log says why it is not enough.
    match &report.error {
        Some(error) => tracing::error!("{}", error.message),
        None => return Ok(exit::OK),
    }
    if report.alerted {
        flush_now(config);
    }
    Ok(report::exit_code(&report))
}

struct Prune<'a> {
    config: &'a Config,
    client: &'a mut Client,
    archive: &'a Archive,
    rules: &'a Rules,
    /// Set by the only attempt, unless it failed.
    pruned: Option<Pruned>,
}

impl Task for Prune<'_> {
    fn attempt(&mut self, _number: u32) -> Result<(), Failed> {
        let pruned = prune(self.client, self.archive, self.rules, true);
        let error = match &pruned {
            Ok(pruned) => too_large(self.config, pruned),
            Err(e) => Some(RunError::new(ErrorKind::Internal, format!("{e:#}"))),
        };
        // After a failure nobody knows what was removed.
        self.pruned = pruned.ok();
        error.map_or(Ok(()), |e| Err(Failed::by_kind(e, None)))
    }

    fn complete(&mut self, outcome: &mut Outcome) {
        if let Some(pruned) = &self.pruned {
            outcome.details.insert("pruned".to_owned(), json(pruned));
        }
    }
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
        "slots": pruned.slots, "requests": pruned.requests, "revisions": pruned.revisions, "months": pruned.revisions.len(),
    })
}

fn print(pruned: &Pruned, format: Format) -> Result<u8, Failure> {
    let mut listing = Listing::new(&[
        ("answers", "ANSWERS FORGOTTEN"),
        ("files", "FILES REMOVED"),
        ("bytes", "BYTES"),
        ("left_files", "FILES LEFT"),
        ("left_bytes", "BYTES LEFT"),
        ("slots", "SLOTS REMOVED"),
        ("requests", "REQUESTS AND LINKS REMOVED"),
        ("months", "MONTHS OF REVISIONS REMOVED"),
    ]);
    listing.push(json(pruned));
    listing.print(format).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}
