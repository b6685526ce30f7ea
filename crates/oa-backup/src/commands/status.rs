//! `oa-backup status`: what could be lost now, and how long a restore takes, in one sentence, and everything that is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use oa_core::app::cli::Failure;
use oa_core::app::config::{Config, Locale};
use oa_core::app::exit;
use oa_core::app::output::Format;
use oa_core::app::output::human_duration;
use oa_core::base::units::Bytes;
use oa_core::journal::catalog::{self as journal, Drill, Facts, Limits, Recovery};
use oa_core::model::Finding;
use oa_core::pg::{self, schema};
use oa_wording::Wording;
use postgres::Client;
use serde_json::{Map, Value, json};

use super::{print, short, stream};
use crate::PROGRAM;
use crate::catalog::{self, Missing, OwnClusters};
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
/// are not met, backups are damaged, missing or without the full backup that they need, or the last drill failed; also when PostgreSQL answers
/// and does not say so (its schema is older than this program).
pub(crate) fn run(config: &Config, args: &Args) -> Result<u8, Failure> {
    let location = super::location(config, false)?;
    let repository = location.open_recorded(config, &ProgressReporter::hidden())?;
    let state = RepositoryState::look(config, &location, &repository)?;
    let now = state.now();
    let full = state.full(now);
    let problems = state.problems(config, location.shown().as_ref(), now);
    let size = repository.size_bytes()?;
    let reached = state.records.is_some();
    let stream = reached
        .then(|| stream::measure(config).ok())
        .flatten()
        .flatten();
    if args.format == Format::Json {
        let mut value = state.to_json(now);
        value["repository"] = json!(location.shown());
        value["size_bytes"] = json!(size);
        value["stream"] = json!(stream);
        value["ok"] = json!(problems.is_empty());
        value["problems"] = json!(problems);
        print(&format!("{value}\n"))?;
    } else {
        let second = |at: DateTime<Utc>| {
            at.with_timezone(&config.timezone)
                .format("%Y-%m-%d %H:%M:%S")
        };
        let mut text = state.headline(config, location.shown().as_ref(), now);
        if let Some(b) = full {
            text.push_str(&format!(
                "The newest full backup is {} ({}, {}).\n",
                b.short_id(),
                b.meta.kind.as_str(),
                second(b.meta.restorable_to)
            ));
        }
        text.push_str(&state.achieved(now, &|at| second(at).to_string()));
        text.push_str(&stream.map_or_else(String::new, |lag| lag.sentence()));
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
        let others = match state.others.len() {
            0 => String::new(),
            count => format!(" ({count} of other services)"),
        };
        let rest = format!(
            "{} backups{others}, {} in {}\n",
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

/// A server that is down is down: the repository alone must do then, after a disaster above all. Whatever else keeps what is recorded from
/// being read as it is meant is `why`.
pub(super) fn connect(config: &Config, why: &mut Option<String>) -> Option<Client> {
    let connected = pg::Settings::from_config(config, PROGRAM)
        .map_err(|e| e.to_string())
        .and_then(|settings| match pg::connect(&settings) {
            Ok(client) => Ok(Some(client)),
            Err(e) if e.is_passing() => Ok(None),
            Err(e) => Err(e.to_string()),
        });
    let mut client = connected.unwrap_or_else(|e| {
        why.get_or_insert(e);
        None
    })?;
    if let Err(e) = schema::check(&mut client) {
        why.get_or_insert(e.to_string());
    }
    Some(client)
}

/// What was read; where it cannot be, although the server answers, the first error is kept.
pub(super) fn known<T>(read: Result<T, postgres::Error>, why: &mut Option<String>) -> Option<T> {
    match read {
        Ok(read) => Some(read),
        Err(e) if pg::is_connection_error(&e) => None,
        Err(e) => {
            why.get_or_insert(pg::describe(&e));
            None
        }
    }
}

/// One of the future has no age yet.
fn age(backup: &Backup, now: DateTime<Utc>) -> Duration {
    (now - backup.meta.restorable_to)
        .to_std()
        .unwrap_or_default()
}

/// What a wrong clock has dated into the future counts only where there is nothing else.
fn is_future(backup: &Backup, now: DateTime<Utc>) -> bool {
    backup.meta.restorable_to > now + MAX_CLOCK_SKEW
}

/// What a kind of backup gives now.
#[derive(Debug, serde::Serialize)]
struct Objectives {
    restorable_to: DateTime<Utc>,
    rpo_seconds: u64,
    /// How long the last restore of that kind took.
    rto_seconds: Option<f64>,
}

impl Objectives {
    fn sentence(&self, kind: &str) -> String {
        let span = |seconds| human_duration(Duration::from_secs(seconds), Locale::En);
        let restored = self.rto_seconds.map_or_else(String::new, |took| {
            format!(", restored in {}", span(took.round() as u64))
        });
        format!("{kind}, {} would be lost{restored}", span(self.rpo_seconds))
    }
}

/// What there is, and what is recorded.
pub(super) struct RepositoryState {
    backups: Vec<Backup>,
    /// The ids of those that other services have made, which use the same repository.
    others: BTreeSet<String>,
    unreadable: Vec<Damage>,
    /// Why some restore nothing, by id.
    stranded: BTreeMap<String, String>,
    /// Why that cannot be found out, if it cannot.
    unknown: Option<String>,
    missing: Vec<Missing>,
    /// What PostgreSQL has recorded; `None`: it does not answer.
    records: Option<Facts>,
    /// Why that is not known although it answers: nothing says then that no drill has failed and no backup is missing.
    unrecorded: Option<String>,
}

impl RepositoryState {
    pub(super) fn look(
        config: &Config,
        location: &RepositoryLocation,
        repository: &Repository,
    ) -> Result<Self, Failure> {
        let mut unrecorded = None;
        let mut client = connect(config, &mut unrecorded);
        let recorded = client
            .as_mut()
            .and_then(|c| known(catalog::recorded(c, location), &mut unrecorded));
        let (backups, unreadable) = repository.readable_backups()?;
        let own = client
            .as_mut()
            .and_then(|c| known(OwnClusters::ask(c), &mut unrecorded))
            .map_or_else(|| backups.iter().collect(), |own| own.among(&backups));
        let own: BTreeSet<&str> = own.iter().map(|b| b.id.as_str()).collect();
        let others = backups.iter().map(|b| b.id.clone());
        let others = others.filter(|id| !own.contains(id.as_str())).collect();
        let (stranded, unknown) = match timeline::stranded(repository, &backups) {
            Ok(stranded) => (stranded, None),
            Err(e) => (BTreeMap::new(), Some(e.to_string())),
        };
        let mut there: BTreeSet<String> = backups.iter().map(|b| b.id.clone()).collect();
        there.extend(unreadable.iter().filter_map(|d| d.backup.clone()));
        let missing = client
            .as_mut()
            .zip(recorded)
            .and_then(|(c, (recorded, _))| {
                known(catalog::missing(c, recorded, &there), &mut unrecorded)
            });
        if missing.is_none() && unrecorded.is_none() {
            tracing::warn!("without PostgreSQL nobody knows which backups should be there as well");
        }
        let missing = missing.unwrap_or_default();
        let name = location.shown();
        let records = client
            .as_mut()
            .and_then(|c| known(journal::facts(c, name.as_ref()), &mut unrecorded));
        Ok(Self {
            backups,
            others,
            unreadable,
            stranded,
            unknown,
            missing,
            records,
            unrecorded,
        })
    }

    /// The server's clock; this machine's where it does not answer.
    pub(super) fn now(&self) -> DateTime<Utc> {
        self.records.as_ref().map_or_else(Utc::now, |r| r.now)
    }

    /// Those that restore something.
    fn good(&self) -> impl Iterator<Item = &Backup> {
        self.backups
            .iter()
            .filter(|b| b.meta.kind != Kind::Files && !self.stranded.contains_key(&b.id))
            .filter(|b| !self.others.contains(&b.id))
    }

    /// Whether there are backups, and none is of this service.
    fn has_only_others(&self) -> bool {
        !self.backups.is_empty() && self.backups.iter().all(|b| self.others.contains(&b.id))
    }

    /// What could be lost now, in one sentence.
    fn headline(&self, config: &Config, repository: &str, now: DateTime<Utc>) -> String {
        let day = |at: DateTime<Utc>| at.with_timezone(&config.timezone).format("%Y-%m-%d");
        let drill = self.records.as_ref().and_then(|r| r.drill.as_ref());
        let whole = self.last_whole(now);
        match self.last(now) {
            None if self.has_only_others() => format!(
                "None of the backups in {repository} is of this server: everything on it would be lost. Make one with: oa-backup full\n"
            ),
            None => format!(
                "There is no backup in {repository}: everything would be lost. Make one with: oa-backup full\n"
            ),
            Some(_) if whole.is_none() => format!(
                "None of the full backups in {repository} has passed its last verification: it may be that nothing can be restored. Make one with: oa-backup full\n"
            ),
            Some(b) => format!(
                "If this machine died now, {} of changes would be lost{}; {}.\n",
                human_duration(age(whole.unwrap_or(b), now), Locale::En),
                match whole {
                    Some(whole) if whole.id != b.id =>
                        ", because what is newer has not passed its last verification",
                    _ => "",
                },
                match drill {
                    Some(Drill {
                        at,
                        took: Some(took),
                        ok: true,
                        ..
                    }) => format!(
                        "the last drill ({}) restored in {}",
                        day(*at),
                        human_duration(*took, Locale::En)
                    ),
                    Some(drill) => format!("the last drill ({}) failed", day(drill.at)),
                    None if self.unrecorded.is_some() => {
                        "whether a restore drill has run is not known".to_owned()
                    }
                    None if self.records.is_none() => {
                        "whether a restore drill has run nobody knows without PostgreSQL".to_owned()
                    }
                    None => "no restore drill has run yet: oa-restore drill".to_owned(),
                }
            ),
        }
    }

    /// The newest in which verification has found no damage, nor in every full backup before it; `None`: nothing leads anywhere.
    fn last_whole(&self, now: DateTime<Utc>) -> Option<&Backup> {
        let damaged = self.records.iter().flat_map(|r| &r.damaged);
        let damaged: BTreeSet<&str> = damaged.map(|(id, _)| id.as_str()).collect();
        let whole = |b: &Backup| !damaged.contains(b.id.as_str());
        let is_led = |b: &Backup| {
            b.meta.stands_alone()
                || self.good().any(|full| {
                    full.meta.kind == Kind::Physical
                        && full.meta.stands_alone()
                        && full.meta.system_id == b.meta.system_id
                        && full.meta.restorable_to <= b.meta.restorable_to
                        && whole(full)
                })
        };
        self.good()
            .filter(|b| whole(b) && is_led(b))
            .max_by_key(|b| (!is_future(b, now), b.meta.restorable_to))
    }

    fn last(&self, now: DateTime<Utc>) -> Option<&Backup> {
        self.good()
            .max_by_key(|b| (!is_future(b, now), b.meta.restorable_to))
    }

    fn recovery(&self) -> Option<&Recovery> {
        self.records.as_ref()?.recovery.as_ref()
    }

    fn to_json(&self, now: DateTime<Utc>) -> Value {
        let (last, full) = (self.last(now), self.full(now));
        let drill = self.records.as_ref().and_then(|r| r.drill.as_ref());
        let by_kind = self.by_kind(now).into_iter();
        let by_kind: Map<String, Value> = by_kind.map(|(k, o)| (k.to_owned(), json!(o))).collect();
        let recovery = self.recovery().map(|r| {
            let (to, took) = r.result.as_ref().ok().copied().unzip();
            json!({"backup": r.backup, "at": r.at, "recovered_to": to, "seconds": took.map(|t| t.as_secs_f64()), "error": r.result.as_ref().err()})
        });
        json!({
            "backups": self.backups.len(), "newest": last.map(|b| &b.id), "restorable_to": last.map(|b| b.meta.restorable_to),
            "newest_full": full.map(|b| &b.id), "full_at": full.map(|b| b.meta.restorable_to),
            "rpo_seconds": last.map(|b| age(b, now).as_secs()), "rto_seconds": drill.and_then(|d| d.took).map(|took| took.as_secs_f64()),
            "drill_at": drill.map(|d| d.at), "drill_ok": drill.map(|d| d.ok), "by_kind": by_kind, "recovery": recovery,
            "missing": self.missing.iter().map(|m| &m.id).collect::<Vec<_>>(),
        })
    }

    /// What was recovered last, and what each kind gives where there are several.
    fn achieved(&self, now: DateTime<Utc>, second: &dyn Fn(DateTime<Utc>) -> String) -> String {
        let mut text = String::new();
        if let Some(Recovery {
            backup,
            result: Ok((to, took)),
            ..
        }) = self.recovery()
        {
            text.push_str(&format!(
                "Full backup {} was recovered to {}, in {}.\n",
                short(backup),
                second(*to),
                human_duration(*took, Locale::En)
            ));
        }
        let kinds = self.by_kind(now);
        if kinds.len() > 1 {
            let said: Vec<String> = kinds.iter().map(|(kind, o)| o.sentence(kind)).collect();
            text.push_str(&format!("By kind: {}.\n", said.join("; ")));
        }
        text
    }

    /// The kinds of which there are backups, physical ones first, and what they give.
    fn by_kind(&self, now: DateTime<Utc>) -> Vec<(&'static str, Objectives)> {
        let records = self.records.as_ref();
        let drill = records.and_then(|r| r.drill.as_ref()).filter(|d| d.ok);
        let recovered = self.recovery().and_then(|r| r.result.as_ref().ok());
        let objectives = |kind: Kind| {
            let of_it = || self.good().filter(|b| b.meta.kind == kind);
            let to = of_it().filter(|b| !is_future(b, now));
            let to = to.map(|b| b.meta.restorable_to).max()?;
            let drilled = drill.filter(|d| of_it().any(|b| b.id == d.backup));
            let took = recovered
                .filter(|_| kind == Kind::Physical)
                .map(|(_, t)| *t);
            let took = took.or_else(|| drilled.and_then(|d| d.took));
            let objectives = Objectives {
                restorable_to: to,
                rpo_seconds: (now - to).to_std().unwrap_or_default().as_secs(),
                rto_seconds: took.map(|took| took.as_secs_f64()),
            };
            Some((kind.as_str(), objectives))
        };
        let kinds = [Kind::Physical, Kind::Logical];
        kinds.into_iter().filter_map(objectives).collect()
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

    /// What the verdict is made of: what lies in the repository is looked at there, and the rest is as recorded. A time of the future
    /// restores nothing that anybody can rely on.
    pub(super) fn facts(&self, repository: &str, now: DateTime<Utc>) -> Facts {
        let named = |b: &Backup| {
            let (kind, level) = (b.meta.kind.as_str(), b.meta.level.as_str());
            journal::named(
                &b.id,
                kind.to_owned(),
                level.to_owned(),
                b.meta.restorable_to,
            )
        };
        let gone =
            |m: &Missing| journal::named(&m.id, m.kind.clone(), m.level.clone(), m.restorable_to);
        let last = self.last(now).filter(|b| !is_future(b, now));
        let full = self.full(now).filter(|b| !is_future(b, now));
        let recorded = self.records.clone();
        let marked = full.filter(|b| !b.meta.damaged.is_empty());
        Facts {
            recoverable_to: last.map(|b| b.meta.restorable_to),
            full: full.map(|b| (b.finished_at(), b.meta.stored.added_bytes)),
            server_damaged: marked
                .map(|b| (b.id.clone(), b.finished_at(), b.meta.damaged.join("; "))),
            gone: self.missing.iter().map(gone).collect(),
            stranded: self
                .backups
                .iter()
                .filter(|b| self.stranded.contains_key(&b.id) && !self.others.contains(&b.id))
                .map(named)
                .collect(),
            ..recorded.unwrap_or_else(|| Facts::unrecorded(repository, now))
        }
    }

    /// Everything that is wrong, each in a sentence: the verdict that alerts and the page give too, and in place of its first examples
    /// each backup that it is about.
    fn problems(&self, config: &Config, repository: &str, now: DateTime<Utc>) -> Vec<String> {
        let wording = Wording {
            locale: Locale::En,
            timezone: config.timezone,
        };
        let limits = Limits::from_config(config);
        let facts = self.facts(repository, now);
        let mut found = Vec::new();
        if let Some(b) = self.last(now).filter(|b| is_future(b, now)) {
            found.push(format!("backup {} is of the future", b.short_id()));
        }
        for finding in limits.map_or_else(Vec::new, |limits| facts.assess(&limits)) {
            match finding {
                Finding::BackupAbsent { .. } if !found.is_empty() => {}
                Finding::BackupMissing { .. } => found.extend(self.missing_ones(config)),
                Finding::BackupDamaged { .. } => {
                    found.extend(facts.damaged.iter().map(|(id, error)| {
                        format!("the verification of backup {} failed: {error}", short(id))
                    }));
                }
                other => found.push(oa_wording::sentence(&other, &wording)),
            }
        }
        found.extend(
            self.unknown.iter().map(|why| {
                format!("could not find out whether all backups can be restored: {why}")
            }),
        );
        found.extend(self.unreadable.iter().map(|d| d.what.clone()));
        found.extend(self.unrecorded.iter().map(|why| {
            format!("what PostgreSQL has recorded of the backups (missing ones, damage, drills) is not known: {why}")
        }));
        found
    }

    fn missing_ones(&self, config: &Config) -> impl Iterator<Item = String> {
        let missing = self.missing.iter().map(|missing| {
            let what = missing.what(config.timezone);
            format!("backup {} is missing: {what}", short(&missing.id))
        });
        let stranded = self.stranded.iter();
        let stranded = stranded.filter(|(id, _)| !self.others.contains(*id));
        let stranded = stranded.map(|(id, why)| format!("backup {}: {why}", short(id)));
        missing.chain(stranded).collect::<Vec<_>>().into_iter()
    }
}
