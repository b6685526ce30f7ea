//! `oa-restore drill --quick`: does the newest physical backup recover? To the end of its WAL, in a private server, and nothing is
//! compared, so that `oa-backup` can afford it after each full backup. What came of it is recorded with the backup.

use std::time::Duration;

use chrono::{DateTime, Utc};
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::{BackupKind, Config, Locale};
use oa_core::app::exit;
use oa_core::app::output::{Format, human_duration};
use oa_core::app::work::{Job, JobOutcome};
use oa_core::base::supervise::StopSignal;
use oa_core::base::text::error_text;
use oa_core::base::units::Bytes;
use oa_core::journal::catalog;
use oa_core::model::run::{Status, Trigger};
use oa_core::pg::{self, Settings};
use oa_repository::{Backup, Kind, Level, MAX_CLOCK_SKEW, PostgresError};
use serde_json::json;

use super::options::RunArgs;
use super::session::{Session, recorded};
use crate::disk::check_room;
use crate::plan::target::Target;
use crate::plan::{self, RestorePlan, Strategy};
use crate::recover::{PrivateServer, WorkFolder};
use crate::{PROGRAM, RestoreError};

/// What came of recovering backups.
#[derive(Debug)]
struct Recovered {
    /// The full one, and the newest of its WAL.
    ids: Vec<String>,
    result: Result<(DateTime<Utc>, Duration), String>,
}

impl Recovered {
    fn of(plan: &RestorePlan, took: Duration) -> Self {
        let wal = match &plan.strategy {
            Strategy::Physical(physical) => physical.sources.first(),
            Strategy::Logical(_) => None,
        };
        let ids = [Some(plan.backup()), wal].into_iter().flatten();
        Self {
            ids: ids.map(|b| b.id.clone()).collect(),
            result: Ok((plan.as_of, took)),
        }
    }

    /// Whether it is on record now: without PostgreSQL it is not, nor before the backup itself is.
    fn record(&self, config: &Config) -> bool {
        let ids: Vec<&str> = self.ids.iter().map(String::as_str).collect();
        let connected = Settings::from_config(config, PROGRAM)
            .ok()
            .and_then(|settings| pg::connect(&settings).ok());
        let recorded =
            connected.map(|mut client| catalog::mark_recovery(&mut client, &ids, &self.result));
        match recorded {
            Some(Ok(rows)) => rows > 0,
            Some(Err(e)) => {
                tracing::warn!("could not record what came of this: {}", pg::describe(&e));
                false
            }
            None => {
                tracing::warn!("without PostgreSQL it is not recorded what came of this");
                false
            }
        }
    }
}

pub(super) fn run(
    session: &Session<'_>,
    config: &Config,
    cron: bool,
    args: &RunArgs,
) -> Result<u8, Failure> {
    let Some(full) = newest_full(&session.backups) else {
        return Err(RestoreError::NoPlan(
            "there is no full physical backup in the repository; a dump is tried with oa-restore drill"
                .to_owned(),
        )
        .into());
    };
    let what = format!(
        "full backup {} of {} ({}) in a private server in {}, to the end of its WAL",
        full.short_id(),
        session.shown(full.meta.restorable_to),
        Bytes(full.meta.stored.size_bytes),
        session.staging.display()
    );
    if args.dry_run {
        cli::print(&format!("would recover {what}\n")).map_err(anyhow::Error::from)?;
        return Ok(exit::OK);
    }
    if !cron {
        cli::confirm(&format!("Recover {what}?"), args.yes)?;
    }
    let job = Job {
        trigger: if cron { Trigger::Cron } else { Trigger::Manual },
        ..Job::by_hand(PROGRAM, "backup-recovery", "备份恢复验证")
    };
    let recovered = recorded(config, &job, |_| {
        let recovered = recover(session, full)?;
        // Before the run is on record, which leaves it to `oa-alert check` to report what the backup's row says.
        let on_record = recovered.record(config);
        let mut ended = JobOutcome::success(recovered);
        ended.details.insert("backup".to_owned(), json!(full.id));
        match &ended.value.result {
            Ok((to, took)) => {
                let seconds = took.as_secs_f64();
                ended.details.insert("recovered_to".to_owned(), json!(to));
                ended.details.insert("seconds".to_owned(), json!(seconds));
            }
            Err(error) => {
                ended.status = Status::Failed;
                ended.error = Some(format!(
                    "backup {} does not recover: {error}",
                    full.short_id()
                ));
                ended.reported_by_check = on_record && !config.alert.is_off("backup_unrecoverable");
            }
        }
        Ok(ended)
    })?;
    report(session, full, &recovered, args.format)
}

fn report(
    session: &Session<'_>,
    full: &Backup,
    recovered: &Recovered,
    format: Format,
) -> Result<u8, Failure> {
    let (code, text) = match &recovered.result {
        Ok((to, took)) => (
            exit::OK,
            format!(
                "backup {} recovers to {}, in {}\n",
                full.short_id(),
                session.shown(*to),
                human_duration(*took, Locale::En)
            ),
        ),
        Err(error) => {
            tracing::error!("backup {} does not recover: {error}", full.short_id());
            (exit::FAILED, String::new())
        }
    };
    let text = if format == Format::Json {
        let (to, took) = recovered.result.clone().ok().unzip();
        let value = json!({
            "backup": full.id, "ok": recovered.result.is_ok(), "recovered_to": to, "rto_seconds": took.map(|t| t.as_secs_f64()),
            "error": recovered.result.as_ref().err(),
        });
        format!("{value}\n")
    } else {
        text
    };
    cli::print(&text).map_err(anyhow::Error::from)?;
    Ok(code)
}

/// What a wrong clock has dated into the future comes after everything else.
fn newest_full(backups: &[Backup]) -> Option<&Backup> {
    let physical = || backups.iter().filter(|b| b.meta.kind == Kind::Physical);
    let now = plan::clock(physical()) + MAX_CLOCK_SKEW;
    physical()
        .filter(|b| b.meta.level == Level::Full)
        .max_by_key(|b| (b.meta.restorable_to <= now, b.meta.restorable_to))
}

/// An error is one of this machine: nothing is known of the backup then.
fn recover(session: &Session<'_>, full: &Backup) -> Result<Recovered, RestoreError> {
    let work = WorkFolder::begin(&session.staging)?;
    let system = [full.meta.system_id.as_str()];
    let planner = session.planner(&system, &work);
    let latest = planner.plan(&Target::Latest, BackupKind::Physical);
    let has_wal = session
        .backups
        .iter()
        .any(|b| b.meta.full.as_ref() == Some(&full.id));
    let found = match latest {
        Ok(plan) if plan.backup().id == full.id => Ok(plan),
        // Its WAL is not there yet, or could not be received.
        _ if !has_wal => planner.plan(&Target::Backup(full.id.clone()), BackupKind::Physical),
        Err(e) => Err(e),
        Ok(older) => Err(RestoreError::NoPlan(format!(
            "its WAL does not lead on from it: the newest point in time is reached from the older full backup {} only",
            older.backup().short_id()
        ))),
    };
    let tried = found.and_then(|plan| {
        check_room(&[PrivateServer::need(&plan, &work)])?;
        let private =
            PrivateServer::start(&session.reader, &plan, work, session.users(), |_, _| Ok(()))?;
        oa_core::base::failpoint::hit("restore.quick");
        Ok((plan, private.took))
    });
    match tried {
        Ok((plan, took)) => Ok(Recovered::of(&plan, took)),
        Err(e) if is_of_the_backup(&e) => Ok(Recovered {
            ids: vec![full.id.clone()],
            result: Err(error_text(&e.to_string())),
        }),
        Err(e) => Err(e),
    }
}

/// Whether it says something of the backup, and not only of this machine.
fn is_of_the_backup(error: &RestoreError) -> bool {
    !StopSignal.requested()
        && matches!(
            error,
            RestoreError::NoPlan(_)
                | RestoreError::Server { .. }
                | RestoreError::Differs(_)
                | RestoreError::Repository(_)
                | RestoreError::Capture(PostgresError::Failed { .. })
        )
}
