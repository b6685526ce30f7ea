//! `oa-restore drill`: a rehearsal. A backup is only one that restored.
//!
//! The newest backup, or one by chance, is restored into a private server up to the very place at which its tables were counted, and
//! counted again there. How long that took is the RTO, how old the newest backup is, the RPO.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use oa_core::alerts::human_duration;
use oa_core::cli::{self, Failure};
use oa_core::config::{BackupKind, Bytes, Config, Locale};
use oa_core::exit;
use oa_core::failpoint;
use oa_core::output::{Format, Listing};
use oa_core::pg::upsert::Batch;
use oa_core::runs::work::{Ended, Job};
use oa_core::runs::{RunStart, Status, Trigger};
use oa_core::supervise::ProcessId;
use oa_core::text::{error_text, printable_json};
use oa_repository::Programs;
use oa_repository::{Backup, Kind, Level, ProgressReporter as Bars};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::choose::{Choice, End, Physical, Way};
use crate::content::{self, compare};
use crate::options::Manner;
use crate::recover::{self, Private, Work};
use crate::session::{Session, recorded};
use crate::target::Target;
use crate::{PROGRAM, RestoreError};

/// What is wanted.
#[derive(Debug, Clone, Args)]
pub struct Wanted {
    /// Any backup by chance, instead of the newest
    #[arg(long)]
    pub random: bool,
    /// Out of the second repository, of [backup.copy]
    #[arg(long)]
    pub from_copy: bool,
    /// Started by cron: noted in the run log, and nothing is asked
    #[arg(long)]
    pub cron: bool,
    /// How.
    #[command(flatten)]
    pub manner: Manner,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
struct Check {
    name: &'static str,
    /// `None`: it could not be looked at.
    ok: Option<bool>,
    text: String,
}

/// What came of a drill.
#[derive(Debug, Clone, Serialize)]
struct Drill {
    backup: String,
    moment: DateTime<Utc>,
    ok: bool,
    rto_seconds: Option<f64>,
    rpo_seconds: f64,
    tables: usize,
    checks: Vec<Check>,
    error: Option<String>,
}

/// Rehearses a restore. Exit code 1 when something is wrong with it.
///
/// # Errors
/// When there is no backup, the repository cannot be opened, or it is not confirmed.
pub fn run(config: &Config, wanted: &Wanted, bars: &Bars) -> Result<u8, Failure> {
    let manner = &wanted.manner;
    let session = Session::open(config, wanted.from_copy, bars)?;
    let backup = pick(&session, wanted.random)?;
    let work = Work::begin(&session.staging)?;
    let question = format!(
        "Restore backup {} of {} ({}) into a private server in {} and look at it?",
        backup.short_id(),
        session.shown(backup.meta.restorable_to),
        Bytes(backup.meta.stored.size_bytes),
        session.staging.display()
    );
    if manner.dry_run {
        cli::print(&format!(
            "would {}\n",
            question
                .trim_end_matches('?')
                .replacen("Restore", "restore", 1)
        ))
        .map_err(anyhow::Error::from)?;
        return Ok(exit::OK);
    }
    if !wanted.cron {
        cli::confirm(&question, manner.yes)?;
    }
    let job = Job {
        trigger: if wanted.cron {
            Trigger::Cron
        } else {
            Trigger::Manual
        },
        ..Job::by_hand(PROGRAM, "restore-drill", "恢复演练")
    };
    let drill = recorded(config, &job, |run| {
        let drill = rehearse(&session, &backup, work, run.started_at);
        let mut ended = Ended::success(drill);
        let drill = &ended.value;
        ended.error.clone_from(&drill.error);
        if ended.error.is_some() {
            ended.status = Status::Failed;
            // By its row in oa.drills, where the check looks at the first repository's.
            ended.told_by_check = !wanted.from_copy && !config.alert.is_off("drill_failed");
        }
        ended.fetched = drill.tables as u64;
        ended.batches.push(row(&session, run, drill));
        for (name, value) in [
            ("backup", json!(drill.backup)),
            ("rto_seconds", json!(drill.rto_seconds)),
            ("rpo_seconds", json!(drill.rpo_seconds)),
        ] {
            ended.details.insert(name.to_owned(), value);
        }
        Ok(ended)
    })?;
    tell(&drill, manner.format)?;
    if let Some(error) = &drill.error {
        tracing::error!("the drill failed: {error}");
    }
    // `oa-alert check` tells it, out of oa.drills.
    if let Some(slow) = drill
        .ok
        .then(|| slow(&drill, session.settings.rto.0))
        .flatten()
    {
        tracing::warn!("{slow}");
    }
    Ok(if drill.ok { exit::OK } else { exit::FAILED })
}

/// The newest backup of a database; or any, by chance, that can be compared.
fn pick(session: &Session<'_>, random: bool) -> Result<Backup, Failure> {
    let candidates = || {
        session
            .backups
            .iter()
            .filter(|b| b.meta.kind != Kind::Files && b.meta.mark.is_some())
    };
    let found = if random {
        let count = candidates().count();
        let dice = usize::try_from(
            Uuid::new_v7(uuid::Timestamp::now(uuid::NoContext)).as_u128() & 0xffff_ffff,
        );
        candidates().nth(dice.unwrap_or(0).checked_rem(count).unwrap_or(0))
    } else {
        candidates().max_by_key(|b| (b.meta.restorable_to, b.meta.kind == Kind::Physical))
    };
    Ok(found.cloned().ok_or_else(|| {
        RestoreError::NoWay(
            "there is no backup of a database in the repository; make one with oa-backup full"
                .to_owned(),
        )
    })?)
}

/// Whatever goes wrong is what the drill has found.
fn rehearse(session: &Session<'_>, backup: &Backup, work: Work, began: DateTime<Utc>) -> Drill {
    let newest = session
        .backups
        .iter()
        .filter(|b| b.meta.kind != Kind::Files)
        .map(|b| b.meta.restorable_to)
        .max()
        .unwrap_or(began);
    let mut drill = Drill {
        backup: backup.id.clone(),
        moment: backup.meta.restorable_to,
        ok: false,
        rto_seconds: None,
        rpo_seconds: (began - newest).as_seconds_f64().max(0.0),
        tables: 0,
        checks: Vec::new(),
        error: None,
    };
    match look(session, backup, work, &mut drill) {
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

fn look(
    session: &Session<'_>,
    backup: &Backup,
    work: Work,
    drill: &mut Drill,
) -> Result<(), Failure> {
    let (choice, at_the_mark) = to_the_mark(session, backup, &work)?;
    recover::room(&[Private::need(&choice, &work)])?;
    let mut files = None;
    let private = Private::start(
        &session.reader,
        &choice,
        work,
        session.users(),
        |physical, data| {
            files = Some(verify(physical, data)?);
            Ok(())
        },
    )?;
    drill.rto_seconds = Some((private.took.as_secs_f64() * 1000.0).round() / 1000.0);
    drill.checks.extend(files);
    drill.checks.push(Check {
        name: "restore",
        ok: Some(true),
        text: format!("recovered to {}", reached(&choice)),
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
    if !at_the_mark {
        // The tables were counted later than what is restored.
        compared.unsure.append(&mut compared.wrong);
    }
    drill.tables = compared.tables;
    let text = if compared.wrong.is_empty() {
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
            "{} tables are as recorded{unsure}",
            compared.tables.saturating_sub(compared.unsure.len())
        )
    } else {
        compared.wrong.join("; ")
    };
    drill.checks.push(Check {
        name: "tables",
        ok: Some(compared.wrong.is_empty()),
        text,
    });
    Ok(())
}

/// The way to the very place at which the backup's tables were counted, or, where no log leads there from a full backup, to that one
/// alone; and which of the two it is.
fn to_the_mark(
    session: &Session<'_>,
    backup: &Backup,
    work: &Work,
) -> Result<(Choice, bool), RestoreError> {
    let target = Target::Backup(backup.id.clone());
    let chooser = session.chooser(&[], work);
    let alone = || chooser.choose(&target, BackupKind::Auto);
    let Some(mark) = backup
        .meta
        .mark
        .as_ref()
        .filter(|_| backup.meta.kind == Kind::Physical)
    else {
        return Ok((alone()?, true));
    };
    // A full backup's tables were counted after its end: the log that follows it leads there.
    if backup.meta.level == Level::Full {
        if let Some(choice) = chooser.from_full(&target, backup, mark.lsn)? {
            return Ok((choice, true));
        }
        tracing::warn!(
            "no log leads on from full backup {}: it is restored as it is, and differences are to be expected",
            backup.short_id()
        );
        return Ok((alone()?, false));
    }
    let mut choice = alone()?;
    if let Way::Physical(physical) = &mut choice.way {
        physical.end = End::Lsn(mark.lsn);
    }
    Ok((choice, true))
}

fn reached(choice: &Choice) -> String {
    match &choice.way {
        Way::Physical(p) => match &p.end {
            End::Lsn(place) => place.to_string(),
            _ => choice.moment.to_rfc3339(),
        },
        Way::Logical(_) => "the dump's moment".to_owned(),
    }
}

/// Every file against the checksums that the server gave when it was copied.
fn verify(physical: &Physical, data: &std::path::Path) -> Result<Check, RestoreError> {
    let settings = oa_core::pg::Settings {
        url: oa_core::secrets::Secret::new("host=/nowhere".to_owned()),
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
fn amcheck(private: &Private, database: &str) -> Result<Check, RestoreError> {
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
            format!("--maintenance-db={database}"),
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

fn row(session: &Session<'_>, run: &RunStart, drill: &Drill) -> Batch {
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
        json!(drill.moment),
        json!(run.started_at),
        json!(Utc::now()),
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
        rows: vec![values],
        collected_at: Utc::now(),
        timezone: "UTC".to_owned(),
    }
}

fn tell(drill: &Drill, format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        let text = serde_json::to_string(drill).unwrap_or_default();
        return cli::print(&format!("{text}\n")).map_err(|e| anyhow::Error::from(e).into());
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
