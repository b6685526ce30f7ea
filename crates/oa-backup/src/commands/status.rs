//! `oa-backup status`: what could be lost now, and how long a restore takes, in one sentence, and everything that is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use oa_core::app::cli::Failure;
use oa_core::app::config::{Backup as Settings, Config, Locale};
use oa_core::app::exit;
use oa_core::app::output::Format;
use oa_core::app::output::human_duration;
use oa_core::base::units::Bytes;
use oa_core::pg;
use postgres::Client;
use serde_json::json;

use super::{print, short};
use crate::PROGRAM;
use crate::catalog::{self, Missing};
use oa_repository::MAX_CLOCK_SKEW;
use oa_repository::timeline;
use oa_repository::{Backup, Damage, Kind, ProgressReporter, Repository, RepositoryLocation};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Prints it. Exit code 1 when something is wrong that `oa-alert check` and the page would report too: the objectives of `[backup]`
/// are not met, backups are damaged, missing or without the full backup that they need, or the last drill failed.
pub(crate) fn run(config: &Config, args: &Args) -> Result<u8, Failure> {
    let settings = config.backup_settings()?;
    let location = super::location(config, false)?;
    let repository = location.open_recorded(config, &ProgressReporter::hidden())?;
    let state = RepositoryState::look(config, &location, &repository)?;
    let now = Utc::now();
    // One of the future has no age yet.
    let age = |b: &Backup| (now - b.meta.restorable_to).to_std().unwrap_or_default();
    let (last, full) = (state.last(now), state.full(now));
    let problems = state.problems(config, settings, now);
    let size = repository.size_bytes()?;
    let drill = state.records.as_ref().and_then(|r| r.drill.as_ref());
    if args.format == Format::Json {
        let value = json!({
            "repository": location.shown(), "backups": state.backups.len(), "size_bytes": size, "ok": problems.is_empty(), "problems": problems,
            "newest": last.map(|b| &b.id), "restorable_to": last.map(|b| b.meta.restorable_to),
            "newest_full": full.map(|b| &b.id), "full_at": full.map(|b| b.meta.restorable_to),
            "rpo_seconds": last.map(|b| age(b).as_secs()), "rto_seconds": drill.and_then(|d| d.seconds),
            "drill_at": drill.map(|d| d.at), "drill_ok": drill.map(|d| d.ok),
            "missing": state.missing.iter().map(|m| &m.id).collect::<Vec<_>>(),
        });
        print(&format!("{value}\n"))?;
    } else {
        let day = |at: DateTime<Utc>| at.with_timezone(&config.timezone).format("%Y-%m-%d");
        let second = |at: DateTime<Utc>| {
            at.with_timezone(&config.timezone)
                .format("%Y-%m-%d %H:%M:%S")
        };
        let mut text = match last {
            None => format!(
                "There is no backup in {}: everything would be lost. Make one with: oa-backup full\n",
                location.shown()
            ),
            Some(b) => format!(
                "If this machine died now, {} of changes would be lost; {}.\n",
                human_duration(age(b), Locale::En),
                match drill {
                    Some(Drill {
                        at,
                        seconds: Some(seconds),
                        ok: true,
                        ..
                    }) => format!(
                        "the last drill ({}) restored in {}",
                        day(*at),
                        human_duration(Duration::from_secs_f64(*seconds), Locale::En)
                    ),
                    Some(drill) => format!("the last drill ({}) failed", day(drill.at)),
                    None => "no restore was ever rehearsed: oa-restore drill".to_owned(),
                }
            ),
        };
        if let Some(b) = full {
            text.push_str(&format!(
                "The newest full backup is {} ({}, {}).\n",
                b.short_id(),
                b.meta.kind.as_str(),
                second(b.meta.restorable_to)
            ));
        }
        if let Some(b) = state.backups.iter().find(|b| is_future(b, now)) {
            text.push_str(&format!(
                "Backup {} is of the future ({}): the clock of this machine or of the server is wrong, or was.\n",
                b.short_id(),
                second(b.meta.restorable_to)
            ));
        }
        for problem in &problems {
            text.push_str(&format!("Problem: {problem}\n"));
        }
        let rest = format!(
            "{} backups, {} in {}\n",
            state.backups.len(),
            Bytes(size),
            location.shown()
        );
        print(&format!("{text}{rest}"))?;
    }
    Ok(if problems.is_empty() {
        exit::OK
    } else {
        exit::FAILED
    })
}

/// What a wrong clock has dated into the future counts only where there is nothing else.
fn is_future(backup: &Backup, now: DateTime<Utc>) -> bool {
    backup.meta.restorable_to > now + MAX_CLOCK_SKEW
}

/// A drill.
struct Drill {
    at: DateTime<Utc>,
    seconds: Option<f64>,
    ok: bool,
    error: String,
}

/// What PostgreSQL knows of the repository.
struct RecordedState {
    drill: Option<Drill>,
    drilled_at: Option<DateTime<Utc>>,
    first_at: Option<DateTime<Utc>>,
    read_back_at: Option<DateTime<Utc>>,
    /// Id and finding of each backup whose verification failed.
    damaged: Vec<(String, String)>,
    now: DateTime<Utc>,
}

/// What there is, and what is recorded.
struct RepositoryState {
    backups: Vec<Backup>,
    unreadable: Vec<Damage>,
    /// Why some restore nothing, by id.
    stranded: BTreeMap<String, String>,
    /// Why that cannot be found out, if it cannot.
    unknown: Option<String>,
    missing: Vec<Missing>,
    /// `None`: PostgreSQL does not answer.
    records: Option<RecordedState>,
}

impl RepositoryState {
    fn look(
        config: &Config,
        location: &RepositoryLocation,
        repository: &Repository,
    ) -> Result<Self, Failure> {
        let mut client = pg::Settings::from_config(config, PROGRAM)
            .ok()
            .and_then(|settings| pg::connect(&settings).ok());
        let recorded = client
            .as_mut()
            .and_then(|c| catalog::recorded(c, location).ok());
        let (backups, unreadable) = repository.readable_backups()?;
        let (stranded, unknown) = match timeline::stranded(repository, &backups) {
            Ok(stranded) => (stranded, None),
            Err(e) => (BTreeMap::new(), Some(e.to_string())),
        };
        let mut there: BTreeSet<String> = backups.iter().map(|b| b.id.clone()).collect();
        there.extend(unreadable.iter().filter_map(|d| d.backup.clone()));
        let missing = client
            .as_mut()
            .zip(recorded)
            .and_then(|(c, recorded)| catalog::missing(c, recorded, &there).ok());
        if missing.is_none() {
            tracing::warn!("without PostgreSQL nobody knows which backups should be there as well");
        }
        let missing = missing.unwrap_or_default();
        let records = client.as_mut().and_then(|c| records(c, location).ok());
        Ok(Self {
            backups,
            unreadable,
            stranded,
            unknown,
            missing,
            records,
        })
    }

    /// Those that restore something.
    fn good(&self) -> impl Iterator<Item = &Backup> {
        self.backups
            .iter()
            .filter(|b| b.meta.kind != Kind::Files && !self.stranded.contains_key(&b.id))
    }

    fn last(&self, now: DateTime<Utc>) -> Option<&Backup> {
        self.good()
            .max_by_key(|b| (!is_future(b, now), b.meta.restorable_to))
    }

    /// As `oa.repository_state` has it: the weekly dump beside physical backups is no full backup that the WAL goes on from.
    fn full(&self, now: DateTime<Utc>) -> Option<&Backup> {
        let last = &self.last(now)?.meta;
        let lately = last.restorable_to - TimeDelta::days(1)..=last.restorable_to;
        let physical = self
            .good()
            .any(|b| b.meta.kind == Kind::Physical && lately.contains(&b.meta.restorable_to));
        let kind = if physical { Kind::Physical } else { last.kind };
        self.good()
            .filter(|b| b.meta.kind == kind && b.meta.stands_alone())
            .max_by_key(|b| (!is_future(b, now), b.meta.restorable_to))
    }

    /// Everything that is wrong, each in a sentence.
    fn problems(&self, config: &Config, settings: &Settings, now: DateTime<Utc>) -> Vec<String> {
        let say = |span: Duration| human_duration(span, Locale::En);
        // A time of the future has no age yet.
        let age = |at: DateTime<Utc>| (now - at).to_std().unwrap_or_default();
        let mut found = Vec::new();
        match self.last(now) {
            None => found.push("there is no backup that could be restored".to_owned()),
            Some(b) if is_future(b, now) => {
                found.push(format!("backup {} is of the future", b.short_id()));
            }
            Some(b) if age(b.meta.restorable_to) > settings.rpo.0 => found.push(format!(
                "the newest recovery point is {} old; the objective is {} (rpo)",
                say(age(b.meta.restorable_to)),
                say(settings.rpo.0)
            )),
            Some(_) => {}
        }
        match self.full(now) {
            None if self.last(now).is_some() => found.push("there is no full backup".to_owned()),
            Some(b) if age(b.finished_at()) > settings.full_every.0 => found.push(format!(
                "the newest full backup is {} old; one is due every {} (full_every)",
                say(age(b.finished_at())),
                say(settings.full_every.0)
            )),
            _ => {}
        }
        for missing in &self.missing {
            found.push(format!(
                "backup {} is missing: {}",
                short(&missing.id),
                missing.what(config.timezone)
            ));
        }
        for (id, why) in &self.stranded {
            found.push(format!("backup {}: {why}", short(id)));
        }
        found.extend(
            self.unknown.iter().map(|why| {
                format!("could not find out whether all backups can be restored: {why}")
            }),
        );
        found.extend(self.unreadable.iter().map(|d| d.what.clone()));
        if let Some(records) = &self.records {
            found.extend(records.problems(config, settings));
        }
        found
    }
}

impl RecordedState {
    fn problems(&self, config: &Config, settings: &Settings) -> Vec<String> {
        let say = |span: Duration| human_duration(span, Locale::En);
        let older = |at: Option<DateTime<Utc>>, limit: Duration| {
            at.is_some_and(|at| (self.now - at).to_std().unwrap_or_default() > limit)
        };
        let mut found = Vec::new();
        for (id, error) in &self.damaged {
            let id = short(id);
            found.push(format!("the verification of backup {id} failed: {error}"));
        }
        let limit = config.alert.verify_limit.0;
        if older(self.read_back_at.or(self.first_at), limit) {
            found.push(format!(
                "the backups were not read back for more than {} (verify_limit): oa-backup verify --read-data",
                say(limit)
            ));
        }
        match &self.drill {
            Some(drill) if !drill.ok => {
                found.push(format!("the last drill failed: {}", drill.error));
            }
            Some(Drill {
                seconds: Some(seconds),
                ..
            }) if *seconds > settings.rto.0.as_secs_f64() => {
                found.push(format!(
                    "the last drill took {}; the objective is {} (rto)",
                    say(Duration::from_secs_f64(*seconds)),
                    say(settings.rto.0)
                ));
            }
            _ => {}
        }
        if older(self.drilled_at.or(self.first_at), settings.drill_every.0) {
            found.push(format!(
                "no drill succeeded for more than {} (drill_every): oa-restore drill",
                say(settings.drill_every.0)
            ));
        }
        found
    }
}

fn records(
    client: &mut Client,
    location: &RepositoryLocation,
) -> Result<RecordedState, postgres::Error> {
    let repository = location.shown();
    let row = client.query_one(
        "SELECT min(finished_at),
                max(checked_at) FILTER (WHERE kind <> 'files' AND checked = 'data' AND check_error IS NULL),
                (SELECT max(finished_at) FROM oa.drills WHERE repository = $1 AND ok), now()
         FROM oa.backups WHERE repository = $1",
        &[&repository],
    )?;
    let drill = client.query_opt(
        "SELECT started_at, rto_seconds, ok, coalesce(error, '') FROM oa.drills WHERE repository = $1 ORDER BY seq DESC LIMIT 1",
        &[&repository],
    )?;
    let damaged = client.query(
        "SELECT id, check_error FROM oa.backups
         WHERE repository = $1 AND removed_at IS NULL AND check_error IS NOT NULL ORDER BY finished_at DESC",
        &[&repository],
    )?;
    Ok(RecordedState {
        drill: drill.map(|row| Drill {
            at: row.get(0),
            seconds: row.get(1),
            ok: row.get(2),
            error: row.get(3),
        }),
        drilled_at: row.get(2),
        first_at: row.get(0),
        read_back_at: row.get(1),
        damaged: damaged.iter().map(|row| (row.get(0), row.get(1))).collect(),
        now: row.get(3),
    })
}
