//! `oa-backup full` and `oa-backup incremental`.

use chrono::{DateTime, Utc};
use clap::ValueEnum;
use oa_core::app::cli::Failure;
use oa_core::app::config::{BackupKind, Channel, Config, NotifySuccess};
use oa_core::app::exit;
use oa_core::app::flush_now;
use oa_core::app::output::Format;
use oa_core::app::work::{self, Job, JobOutcome};
use oa_core::base::units::Bytes;
use oa_core::journal::{Recorder, incidents};
use oa_core::model::event::{Alert, Event};
use oa_core::model::retry::{Backoff, Policy};
use oa_core::model::run::{RunStart, Status};
use oa_repository::{Backup, Kind, Level, ProgressReporter, RepositoryLocation, staging};
use serde_json::{Map, json};

use super::overview::Overview;
use super::{print, trigger};
use crate::PROGRAM;
use crate::catalog::{self, Checked, Missing, OwnClusters};
use crate::recovery;
use crate::session::{BackupOutcome, Session};

/// The most that a retry policy allows; a copy of a large cluster takes hours.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KindArg {
    /// Physical where the role may replicate, else logical
    Auto,
    /// The cluster's files and its WAL: restores to any second
    Physical,
    /// A dump of the database
    Logical,
}

#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "help names sections of the configuration"
)]
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kind of backup, instead of kind in [backup]
    #[arg(long, value_enum)]
    kind: Option<KindArg>,
    /// Limit a full physical copy to so many bytes a second, instead of limit_rate in [backup]: 50MB
    #[arg(long, value_name = "SIZE")]
    limit_rate: Option<Bytes>,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Started by cron: recorded in the run log; no failure if one is already running
    #[arg(long)]
    pub(crate) cron: bool,
    /// Output format of the result
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

impl Args {
    /// What a stream stores: WAL.
    pub(super) fn of_stream() -> Self {
        Self {
            kind: Some(KindArg::Physical),
            limit_rate: None,
            dry_run: false,
            cron: true,
            format: Format::default(),
        }
    }

    fn kind(&self) -> Option<BackupKind> {
        self.kind.map(|kind| match kind {
            KindArg::Auto => BackupKind::Auto,
            KindArg::Physical => BackupKind::Physical,
            KindArg::Logical => BackupKind::Logical,
        })
    }
}

/// Makes a backup.
pub(crate) fn run(
    config: &Config,
    args: &Args,
    level: Level,
    reporter: &ProgressReporter,
) -> Result<u8, Failure> {
    let settings = config.backup_settings()?;
    let recorder = Recorder::open(config, PROGRAM)?;
    if args.dry_run {
        return preview(config, args, level);
    }
    // Gives way to everything else on the machine; the kernel's I/O priority follows.
    let _ = rustix::process::nice(10);
    let (task, title) = match level {
        Level::Full => ("backup-full", "全量备份"),
        Level::Incremental => ("backup-incremental", "增量备份"),
    };
    let job = Job {
        program: PROGRAM,
        task,
        title,
        trigger: trigger(args.cron),
        day: None,
        retry: Some(Policy {
            retries: settings.retries,
            delay: settings.retry_delay.0,
            timeout: LONGEST,
            backoff: Backoff::Fixed,
        }),
        must_be_done: true,
    };
    let (made, problems) = make(config, &recorder, &job, args, level, reporter)?;
    let location = RepositoryLocation::primary(config)?;
    Overview::of(&location, config)
        .listing(&made.backups)
        .print(args.format)
        .map_err(anyhow::Error::from)?;
    for problem in &problems {
        tracing::error!("{problem}");
    }
    Ok(if problems.is_empty() {
        exit::OK
    } else {
        exit::FAILED
    })
}

/// Makes one under a run row of its own, brings the records up to date, and tries whether a new full one recovers. Returns what went wrong
/// besides.
pub(super) fn make(
    config: &Config,
    recorder: &Recorder,
    job: &Job,
    args: &Args,
    level: Level,
    reporter: &ProgressReporter,
) -> Result<(BackupOutcome, Vec<String>), Failure> {
    let settings = config.backup_settings()?;
    let location = RepositoryLocation::primary(config)?;
    let mut recorded = None;
    let result = work::recorded(recorder, job, |run| {
        let staging = staging::open(config, settings)?;
        let made = Session::open(config, run, args.kind(), staging, reporter).and_then(|session| {
            // Before anything changes in the repository, which is this program's now.
            recorded = recorder
                .connect()
                .ok()
                .and_then(|(mut client, _)| catalog::recorded(&mut client, &location).ok());
            session.make(level, args.limit_rate)
        });
        let made = made.map(|made| outcome_of(recorder, &location, made));
        made.map_err(|error| {
            let passing = error.is_passing();
            let failure = Failure::from(error);
            // Whoever started it by hand sees what is wrong at once, and does not wait for what will not pass.
            if args.cron || passing || failure.is_busy() {
                failure
            } else {
                failure.lasting()
            }
        })
    });
    flush_now(config);
    let made = result?;
    record(recorder, &location, &made, recorded);
    let mut problems = made.problems.clone();
    if recovery::is_due(&made.backups) {
        problems.extend(recovery::verify(config));
    }
    if problems.is_empty() {
        notify_success(config, recorder, job, &location, &made.backups);
    }
    Ok((made, problems))
}

/// Notifies the channels that want to hear of a full backup that went well.
fn notify_success(
    config: &Config,
    recorder: &Recorder,
    job: &Job,
    location: &RepositoryLocation,
    backups: &[Backup],
) {
    let wants = |c: &&Channel| c.notify_success == Some(NotifySuccess::Full);
    let channels: Vec<String> = config
        .alert
        .channels
        .iter()
        .filter(wants)
        .map(|c| c.name.clone())
        .collect();
    let full = backups.iter().find(|b| b.meta.level == Level::Full);
    let Some(full) = full.filter(|_| !channels.is_empty()) else {
        return;
    };
    let took = full.finished_at() - full.meta.started_at;
    let event = Event::BackupMade {
        repository: location.shown(),
        backup: full.short_id().to_owned(),
        kind: full.meta.kind.as_str().to_owned(),
        restorable_to: full.meta.restorable_to,
        size: full.meta.stored.size_bytes,
        added: full.meta.stored.added_bytes,
        took: took.num_seconds().unsigned_abs(),
        channels,
    };
    let alert = Alert {
        task: Some(job.task.to_owned()),
        ..Alert::new(event)
    };
    // A success that nobody hears of at once is in the daily report.
    let put = recorder
        .connect()
        .map(|(mut client, _)| incidents::put(&mut client, &alert));
    match put {
        Ok(Ok(_)) => flush_now(config),
        Ok(Err(e)) => tracing::warn!(
            "nobody is notified of the success: {}",
            oa_core::pg::describe(&e)
        ),
        Err(e) => tracing::warn!("nobody is notified of the success: {e}"),
    }
}

/// Brings `oa.backups` up to date. `recorded`: what should have been there before, if that could be asked.
fn record(
    recorder: &Recorder,
    location: &RepositoryLocation,
    made: &BackupOutcome,
    recorded: Option<(Vec<Missing>, DateTime<Utc>)>,
) {
    let Ok((mut client, _)) = recorder.connect() else {
        return;
    };
    let checked = catalog::mark_checked(&mut client, &made.backups, &[], Checked::Structure);
    // Of what nobody could say that it should be there, nothing is called missing.
    let recorded = recorded.unwrap_or_default();
    let disowned = checked
        .and_then(|()| OwnClusters::ask(&mut client))
        .and_then(|own| own.disown_others(&mut client, location));
    let updated = disowned.and_then(|_| {
        catalog::reconcile(
            &mut client,
            location,
            recorded,
            &made.there,
            Some(&made.unrestorable),
        )
    });
    if let Err(e) = updated {
        tracing::warn!(
            "could not bring oa.backups up to date: {}",
            oa_core::pg::describe(&e)
        );
    }
}

pub(super) fn outcome_of(
    recorder: &Recorder,
    location: &RepositoryLocation,
    mut made: BackupOutcome,
) -> JobOutcome<BackupOutcome> {
    let own = recorder
        .connect()
        .ok()
        .and_then(|(mut client, _)| OwnClusters::ask(&mut client).ok());
    made.batches.push(match own {
        Some(own) => catalog::rows(location, own.with(&made.backups).among(&made.all)),
        // The others are recorded by the next one.
        None => catalog::rows(location, &made.backups),
    });
    let mut details = Map::new();
    let ids: Vec<&str> = made.backups.iter().map(|b| b.id.as_str()).collect();
    details.insert("backups".to_owned(), json!(ids));
    let added: u64 = made.backups.iter().map(|b| b.meta.stored.added_bytes).sum();
    details.insert("added_bytes".to_owned(), json!(added));
    if let Some(why) = &made.full_instead {
        details.insert("full_instead".to_owned(), json!(why));
    }
    let status = if made.problems.is_empty() {
        Status::Success
    } else {
        Status::Partial
    };
    JobOutcome {
        status,
        fetched: made.backups.iter().map(|b| b.meta.stored.files).sum(),
        error: (!made.problems.is_empty()).then(|| made.problems.join("; ")),
        batches: std::mem::take(&mut made.batches),
        details,
        ..JobOutcome::success(made)
    }
}

fn preview(config: &Config, args: &Args, level: Level) -> Result<u8, Failure> {
    let settings = config.backup_settings()?;
    let version = env!("CARGO_PKG_VERSION");
    let run = RunStart::now(PROGRAM, version, "", "", trigger(args.cron), LONGEST);
    let staging = staging::open(config, settings)?;
    let reporter = ProgressReporter::hidden();
    let session = Session::open(config, &run, args.kind(), staging, &reporter)?;
    let server = session.server();
    let what = match (session.kind(), level) {
        (Kind::Physical, Level::Full) => format!(
            "copy the whole cluster ({}) with pg_basebackup, check it, store it, and the WAL up to its end",
            Bytes(server.size_bytes)
        ),
        (Kind::Physical, Level::Incremental) => {
            "receive the WAL since the last backup with pg_receivewal, check it for gaps, and store it".to_owned()
        }
        _ => format!(
            "dump database {} ({}) with pg_dump and store it",
            server.database,
            Bytes(server.database_bytes)
        ),
    };
    print(&format!(
        "would {what}\nfrom PostgreSQL {} into {}; nothing was done\n",
        server.major(),
        RepositoryLocation::primary(config)?.shown()
    ))?;
    Ok(exit::OK)
}
