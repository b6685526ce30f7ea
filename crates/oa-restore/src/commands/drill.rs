//! `oa-restore drill`: a rehearsal. A backup counts only once it has been restored.
//!
//! The newest backup, or one at random, is restored into a private server up to the very LSN at which its tables were counted, and
//! counted again there. How long that took is the RTO, how old the newest backup is, the RPO.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::{Backup as Settings, BackupKind, Config, Locale};
use oa_core::app::exit;
use oa_core::app::output::human_duration;
use oa_core::app::output::{Format, Listing};
use oa_core::app::work::{Job, JobOutcome};
use oa_core::base::failpoint;
use oa_core::base::supervise::ProcessId;
use oa_core::base::text::{error_text, printable_json};
use oa_core::base::units::Bytes;
use oa_core::model::run::Batch;
use oa_core::model::run::{RunStart, Status, Trigger};
use oa_core::pg::libpq::dbname;
use oa_repository::Programs;
use oa_repository::{Backup, Kind, Level};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::options::RunArgs;
use super::session::{Session, recorded};
use crate::content::{self, compare};
use crate::disk::check_room;
use crate::plan::target::Target;
use crate::plan::{Physical, RestorePlan, StopAt, Strategy};
use crate::recover::{PrivateServer, WorkFolder};
use crate::{PROGRAM, RestoreError};

/// Rehearse: restore a backup into a private server, check it, compare it, measure it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Touches nothing but the staging folder. Exit code 1 when something is wrong.\n\nExamples:\n  oa-restore drill --yes\n  oa-restore drill 3f2a9c81 --yes\n  oa-restore drill --random --yes --format json | jq .rto_seconds\n  oa-restore drill --quick --yes\nFor crontab, monthly:\n  0 5 1 * * oa-restore drill --cron"
)]
pub(crate) struct Args {
    /// The backup whose id starts with this, instead of the newest
    id: Option<String>,
    /// Pick any backup at random, instead of the newest
    #[arg(long, conflicts_with = "id")]
    random: bool,
    /// Only recover the newest physical backup, to the end of its WAL, and compare nothing: what oa-backup does after each full one
    #[arg(long, conflicts_with_all = ["id", "random", "from_copy"])]
    quick: bool,
    /// Restore from the secondary repository, [backup.copy]
    #[arg(long)]
    from_copy: bool,
    /// Started by cron: recorded in the run log, and nothing is asked
    #[arg(long)]
    cron: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
struct Check {
    name: &'static str,
    /// `None`: it could not be looked at.
    ok: Option<bool>,
    text: String,
}

#[derive(Debug, Clone, Serialize)]
struct Drill {
    backup: String,
    as_of: DateTime<Utc>,
    ok: bool,
    rto_seconds: Option<f64>,
    rpo_seconds: f64,
    tables: usize,
    checks: Vec<Check>,
    error: Option<String>,
}

pub(crate) fn run(args: &Args, config: &Config, quiet: bool) -> Result<u8, Failure> {
    let mut session = Session::open(config, args.from_copy, &args.run.bars(quiet))?;
    session.leave_out_others(args.id.as_deref())?;
    if args.quick {
        return super::quick::run(&session, config, args.cron, &args.run);
    }
    let backup = pick(&session, args)?;
    let work = WorkFolder::begin(&session.staging)?;
    let what = format!(
        "backup {} of {} ({}) into a private server in {} and look at it",
        backup.short_id(),
        session.shown(backup.meta.restorable_to),
        Bytes(backup.meta.stored.size_bytes),
        session.staging.display()
    );
    if args.run.dry_run {
        cli::print(&format!("would restore {what}\n")).map_err(anyhow::Error::from)?;
        return Ok(exit::OK);
    }
    if !args.cron {
        cli::confirm(&format!("Restore {what}?"), args.run.yes)?;
    }
    let job = Job {
        trigger: if args.cron {
            Trigger::Cron
        } else {
            Trigger::Manual
        },
        ..Job::by_hand(PROGRAM, "restore-drill", "恢复演练")
    };
    let drill = recorded(config, &job, |run| {
        // By the server's clock, as all times of backups are.
        let (began, started_at) = (Instant::now(), session.now());
        let drill = rehearse(&session, &backup, work, started_at);
        let mut ended = JobOutcome::success(drill);
        let drill = &ended.value;
        ended.error.clone_from(&drill.error);
        if ended.error.is_some() {
            ended.status = Status::Failed;
            // By its row in oa.drills, where the check looks at the first repository's.
            ended.reported_by_check = !args.from_copy && !config.alert.is_off("drill_failed");
        }
        ended.fetched = drill.tables as u64;
        let took = TimeDelta::from_std(began.elapsed()).unwrap_or_default();
        let times = (started_at, started_at + took);
        ended.batches.push(row(&session, run, drill, times));
        for (name, value) in [
            ("backup", json!(drill.backup)),
            ("rto_seconds", json!(drill.rto_seconds)),
            ("rpo_seconds", json!(drill.rpo_seconds)),
        ] {
            ended.details.insert(name.to_owned(), value);
        }
        Ok(ended)
    })?;
    report(&drill, args.run.format)?;
    if let Some(error) = &drill.error {
        tracing::error!("the drill failed: {error}");
    } else if let Some(slow) = slow(&drill, session.settings.rto.0) {
        // `oa-alert check` reports it, out of oa.drills.
        tracing::warn!("{slow}");
    }
    Ok(if drill.ok { exit::OK } else { exit::FAILED })
}

/// The newest backup of a database; the one that is named; or any, at random, that can be compared.
fn pick(session: &Session<'_>, args: &Args) -> Result<Backup, Failure> {
    let candidates = || {
        session
            .backups
            .iter()
            .filter(|b| b.meta.kind != Kind::Files && b.meta.mark.is_some())
    };
    if let Some(id) = &args.id {
        let mut named = candidates().filter(|b| b.id.starts_with(id.as_str()));
        return match (named.next(), named.next()) {
            (Some(backup), None) => Ok(backup.clone()),
            (None, _) => Err(RestoreError::NoPlan(format!(
                "there is no backup of a database whose id begins with {id}; see oa-backup list"
            ))
            .into()),
            _ => Err(RestoreError::NoPlan(format!(
                "more than one backup's id begins with {id}; give more of it, see oa-backup list"
            ))
            .into()),
        };
    }
    let found = if args.random {
        let count = candidates().count();
        let dice = usize::try_from(
            Uuid::new_v7(uuid::Timestamp::now(uuid::NoContext)).as_u128() & 0xffff_ffff,
        );
        candidates().nth(dice.unwrap_or(0).checked_rem(count).unwrap_or(0))
    } else {
        newest(&session.backups, session.settings)
    };
    Ok(found.cloned().ok_or_else(|| {
        RestoreError::NoPlan(
            "there is no backup of a database in the repository; make one with oa-backup full"
                .to_owned(),
        )
    })?)
}

/// The newest, and no dump that is made beside physical backups: it is what would be restored. While others write there is little time to
/// count tables for an incremental one: of the newest ones it is that which has something to compare.
fn newest<'b>(backups: &'b [Backup], settings: &Settings) -> Option<&'b Backup> {
    let candidates = || {
        let counted = |b: &&Backup| b.meta.kind != Kind::Files && b.meta.mark.is_some();
        backups.iter().filter(counted)
    };
    let any = candidates().max_by_key(|b| (b.meta.restorable_to, b.meta.kind == Kind::Physical))?;
    let physical = candidates()
        .filter(|b| b.meta.kind == Kind::Physical)
        .max_by_key(|b| (2 * counted(b) >= expected(backups, b), b.meta.restorable_to));
    let much = TimeDelta::from_std(settings.rpo.0).unwrap_or(TimeDelta::MAX);
    let last = candidates().filter(|b| b.meta.kind == Kind::Physical);
    let is_near = last
        .map(|b| b.meta.restorable_to)
        .max()
        .is_some_and(|last| any.meta.restorable_to - last <= much);
    Some(physical.filter(|_| is_near).unwrap_or(any))
}

/// How many tables were counted when a backup was made.
fn counted(backup: &Backup) -> usize {
    backup.meta.mark.as_ref().map_or(0, |m| m.tables.len())
}

/// How many there were, by its full backup.
fn expected(backups: &[Backup], backup: &Backup) -> usize {
    let full = backup.meta.full.as_ref();
    let full = full.and_then(|id| backups.iter().find(|b| b.id == *id));
    full.map_or(0, counted).max(counted(backup))
}

/// Whatever goes wrong is what the drill has found.
fn rehearse(
    session: &Session<'_>,
    backup: &Backup,
    work: WorkFolder,
    began: DateTime<Utc>,
) -> Drill {
    let newest = session
        .backups
        .iter()
        .filter(|b| b.meta.kind != Kind::Files)
        .map(|b| b.meta.restorable_to)
        .max()
        .unwrap_or(began);
    let mut drill = Drill {
        backup: backup.id.clone(),
        as_of: backup.meta.restorable_to,
        ok: false,
        rto_seconds: None,
        rpo_seconds: (began - newest).as_seconds_f64().max(0.0),
        tables: 0,
        checks: Vec::new(),
        error: None,
    };
    match restore_and_check(session, backup, work, &mut drill) {
        Ok(()) => {
            let wrong: Vec<&str> = drill
                .checks
                .iter()
                .filter(|c| c.ok == Some(false))
                .map(|c| c.text.as_str())
                .collect();
            drill.ok = wrong.is_empty();
            drill.error = (!drill.ok).then(|| wrong.join("; "));
        }
        Err(failure) => {
            let text = failure.to_string();
            drill.checks.push(Check {
                name: "restore",
                ok: Some(false),
                text: text.clone(),
            });
            drill.error = Some(text);
        }
    }
    drill
}

fn restore_and_check(
    session: &Session<'_>,
    backup: &Backup,
    work: WorkFolder,
    drill: &mut Drill,
) -> Result<(), Failure> {
    let (plan, at_the_count) = plan_to_the_count(session, backup, &work)?;
    check_room(&[PrivateServer::need(&plan, &work)])?;
    let mut files = None;
    let private = PrivateServer::start(
        &session.reader,
        &plan,
        work,
        session.users(),
        |physical, data| {
            files = Some(verify(physical, data)?);
            Ok(())
        },
    )?;
    private.warn_of_not_refreshed();
    drill.rto_seconds = Some((private.took.as_secs_f64() * 1000.0).round() / 1000.0);
    drill.checks.extend(files);
    drill.checks.push(Check {
        name: "restore",
        ok: Some(true),
        text: format!("recovered to {}", reached(&plan)),
    });
    failpoint::hit("restore.drill");
    private
        .server
        .silence_event_triggers()
        .map_err(RestoreError::in_private)?;
    drill.checks.push(amcheck(&private, &backup.meta.database)?);
    let Some(mark) = &backup.meta.mark else {
        return Ok(());
    };
    let mut client = private.server.connect(&backup.meta.database)?;
    let now = content::of_database(&mut client).map_err(RestoreError::in_private)?;
    let mut compared = compare(mark, &now);
    if !at_the_count {
        // The tables were counted later than what is restored.
        compared.unsure.append(&mut compared.wrong);
    }
    drill.tables = compared.tables;
    let uncounted = expected(&session.backups, backup).saturating_sub(compared.tables);
    let text = if compared.wrong.is_empty() {
        let uncounted = if uncounted == 0 {
            String::new()
        } else {
            format!(", and {uncounted} more were not counted when the backup was made")
        };
        let unsure = if compared.unsure.is_empty() {
            String::new()
        } else {
            format!(
                ", {} differ and may, because others wrote while they were counted: {}",
                compared.unsure.len(),
                compared.unsure.join("; ")
            )
        };
        format!(
            "{} tables are as recorded{uncounted}{unsure}",
            compared.tables.saturating_sub(compared.unsure.len())
        )
    } else {
        compared.wrong.join("; ")
    };
    drill.checks.push(Check {
        name: "tables",
        // What was not compared is not right.
        ok: (compared.tables > 0 || uncounted == 0 || !compared.wrong.is_empty())
            .then_some(compared.wrong.is_empty()),
        text,
    });
    Ok(())
}

/// The plan to the very LSN at which the backup's tables were counted, or, where no WAL leads there from a full backup, to that one
/// alone; and whether it is the former.
fn plan_to_the_count(
    session: &Session<'_>,
    backup: &Backup,
    work: &WorkFolder,
) -> Result<(RestorePlan, bool), RestoreError> {
    let target = Target::Backup(backup.id.clone());
    let planner = session.planner(&[], work);
    let alone = || planner.plan(&target, BackupKind::Auto);
    let Some(mark) = backup
        .meta
        .mark
        .as_ref()
        .filter(|_| backup.meta.kind == Kind::Physical)
    else {
        return Ok((alone()?, true));
    };
    // A full backup's tables were counted after its end: the WAL that follows it leads there.
    if backup.meta.level == Level::Full {
        if let Some(plan) = planner.plan_from_full(&target, backup, mark.lsn)? {
            return Ok((plan, true));
        }
        tracing::warn!(
            "no WAL leads on from full backup {}: it is restored as it is, and differences are to be expected",
            backup.short_id()
        );
        return Ok((alone()?, false));
    }
    let mut plan = alone()?;
    if let Strategy::Physical(physical) = &mut plan.strategy {
        physical.end = StopAt::Lsn(mark.lsn);
    }
    Ok((plan, true))
}

fn reached(plan: &RestorePlan) -> String {
    match &plan.strategy {
        Strategy::Physical(p) => match &p.end {
            StopAt::Lsn(lsn) => lsn.to_string(),
            _ => plan.as_of.to_rfc3339(),
        },
        Strategy::Logical(_) => "what the dump holds".to_owned(),
    }
}

/// Every file against the checksums that the server gave when it was copied.
fn verify(physical: &Physical, data: &std::path::Path) -> Result<Check, RestoreError> {
    let settings = oa_core::pg::Settings {
        url: oa_core::base::secrets::Secret::new("host=/nowhere".to_owned()),
        connect_timeout: Duration::from_secs(10),
        statement_timeout: Duration::ZERO,
        program: PROGRAM,
    };
    let programs = Programs::new(physical.programs.clone(), &settings, None)?;
    let verified = programs.run(
        "pg_verifybackup",
        &["--quiet".to_owned(), data.display().to_string()],
    );
    Ok(match verified {
        Ok(()) => Check {
            name: "files",
            ok: Some(true),
            text: "all files have the checksums that the server gave them".to_owned(),
        },
        Err(e) => Check {
            name: "files",
            ok: Some(false),
            text: e.to_string(),
        },
    })
}

/// The structure of all tables and B-trees of all databases.
fn amcheck(private: &PrivateServer, database: &str) -> Result<Check, RestoreError> {
    let check = |ok, text: String| Check {
        name: "amcheck",
        ok,
        text,
    };
    let available: bool = private
        .server
        .connect(database)?
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'amcheck')",
            &[],
        )
        .map_err(RestoreError::query("could not look for amcheck"))?
        .get(0);
    let programs = private.server.programs(database)?;
    if !available || !programs.folder().join("pg_amcheck").is_file() {
        return Ok(check(
            None,
            "amcheck is not installed (Debian: part of postgresql; RPM: postgresql-contrib)"
                .to_owned(),
        ));
    }
    let finished = programs.finish(
        "pg_amcheck",
        &[
            "--all".to_owned(),
            "--install-missing".to_owned(),
            "--no-password".to_owned(),
            format!("--maintenance-db={}", dbname(database)),
        ],
    )?;
    if finished.status.success() {
        return Ok(check(Some(true), "tables and indexes are sound".to_owned()));
    }
    let text = |bytes: &[u8]| {
        let lossy = String::from_utf8_lossy(bytes).into_owned();
        let lines: Vec<&str> = lossy
            .lines()
            .filter(|l| !l.trim().is_empty())
            .take(6)
            .collect();
        lines.join("; ")
    };
    let (out, err) = (text(&finished.stdout), text(&finished.stderr));
    Ok(check(
        Some(false),
        format!("pg_amcheck: {}", if out.is_empty() { err } else { out }),
    ))
}

fn slow(drill: &Drill, objective: Duration) -> Option<String> {
    let took = Duration::from_secs_f64(drill.rto_seconds?);
    (took > objective).then(|| {
        format!(
            "the restore is right, but took {}; the objective is {} (rto in [backup])",
            human_duration(took, Locale::En),
            human_duration(objective, Locale::En)
        )
    })
}

fn row(
    session: &Session<'_>,
    run: &RunStart,
    drill: &Drill,
    (started_at, finished_at): (DateTime<Utc>, DateTime<Utc>),
) -> Batch {
    let columns = [
        "run_id",
        "backup_id",
        "repository",
        "host",
        "target",
        "started_at",
        "finished_at",
        "ok",
        "rto_seconds",
        "rpo_seconds",
        "tables",
        "checks",
        "error",
    ];
    let values = vec![
        json!(run.id),
        json!(drill.backup),
        json!(session.place.shown()),
        json!(ProcessId::current().host),
        json!(drill.as_of),
        json!(started_at),
        json!(finished_at),
        json!(drill.ok),
        json!(drill.rto_seconds),
        json!(drill.rpo_seconds),
        json!(drill.tables),
        printable_json(&json!(drill.checks)),
        json!(drill.error.as_deref().map(error_text)),
    ];
    Batch {
        schema: "oa".to_owned(),
        table: "drills".to_owned(),
        columns: columns.iter().map(|c| (*c).to_owned()).collect(),
        key: vec!["run_id".to_owned()],
        rows: vec![values].into(),
        collected_at: finished_at,
        timezone: "UTC".to_owned(),
        newest_by: None,
    }
}

fn report(drill: &Drill, format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        return cli::print(&format!("{}\n", json!(drill)))
            .map_err(|e| anyhow::Error::from(e).into());
    }
    let mut listing = Listing::new(&[("check", "check"), ("result", "result"), ("text", "")]);
    for check in &drill.checks {
        let result = match check.ok {
            Some(true) => "ok",
            Some(false) => "WRONG",
            None => "skipped",
        };
        listing.push(json!({"check": check.name, "result": result, "text": check.text}));
    }
    let seconds = |s: f64| human_duration(Duration::from_secs_f64(s.max(0.0)), Locale::En);
    if let Some(rto) = drill.rto_seconds {
        listing.push(json!({"check": "rto", "result": "", "text": format!("from the first byte until the server answered: {}", seconds(rto))}));
    }
    listing.push(json!({"check": "rpo", "result": "", "text": format!("had the machine died when this began: {} lost", seconds(drill.rpo_seconds))}));
    listing.print(format).map_err(anyhow::Error::from)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_newest_backups_one_is_rehearsed_that_has_tables_to_compare() {
        let backup = |id: &str, hour: u32, full: Option<&str>, tables: usize| {
            let at = format!("2026-11-28T{hour:02}:00:00Z");
            let tables: serde_json::Map<_, _> = (0..tables)
                .map(|n| (format!("public.t{n}"), json!({"rows": 1, "hash": null})))
                .collect();
            let meta = json!({
                "oa": 1, "run_id": Uuid::nil(), "kind": "physical", "level": if full.is_some() { "incremental" } else { "full" }, "full": full,
                "host": "h", "database": "d", "server_version": 150_018, "system_id": "7", "timeline": 1, "restorable_from": at,
                "restorable_to": at, "started_at": at, "captured_at": at, "mark": {"lsn": "0/1", "exact": true, "tables": tables},
            });
            Backup::for_tests(id.to_owned(), serde_json::from_value(meta).unwrap())
        };
        let settings = json!({"repository": "/r", "password": "env:P", "rpo": "2h"});
        let settings: Settings = serde_json::from_value(settings).unwrap();
        let mut all = vec![
            backup("full", 1, None, 10),
            backup("busy", 2, Some("full"), 3),
        ];
        let picked = |all: &[Backup]| newest(all, &settings).unwrap().id.clone();
        assert_eq!(picked(&all), "full");
        all.push(backup("quiet", 3, Some("full"), 9));
        all.push(backup("very busy", 4, Some("full"), 0));
        assert_eq!(picked(&all), "quiet");
    }
}
