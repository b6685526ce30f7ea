//! `oa-backup doctor`: what is wrong, in the order in which it has to be mended, and one command that is safe. It changes nothing.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{DateTime, Utc};
use oa_core::app::cli::Failure;
use oa_core::app::config::{Config, Locale};
use oa_core::app::output::{Format, Listing};
use oa_core::app::{exit, sibling};
use oa_core::base::units::Bytes;
use oa_core::journal::catalog::{Facts, Limits};
use oa_core::model::Finding;
use oa_repository::{
    Backup, Kind, Level, ProgressReporter, Repository, RepositoryError, RepositoryLocation, staging,
};
use oa_wording::Wording;
use postgres::Client;
use rustix::fs::{Access, access};
use serde_json::json;

use super::status::RepositoryState;
use super::{print, stream};
use crate::capture::rights;
use crate::capture::server::{Connected, Server};
use crate::capture::slot_name;
use crate::chain;
use crate::error::BackupError;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const REPAIR: &str = "oa-backup repair";
const FULL: &str = "oa-backup full";

/// A backup takes some bytes for its description in any case.
const ROOM: u64 = 16 << 20;
/// And some files.
const FILES: u64 = 64;

/// Something that is wrong.
struct Ailment {
    what: String,
    /// What to run next. It destroys nothing, whatever the reason is.
    command: Option<String>,
}

impl Ailment {
    fn new(what: impl Into<String>, command: &str) -> Self {
        Self {
            what: what.into(),
            command: Some(command.to_owned()),
        }
    }

    /// The remedy is in its words: a setting, a statement for a superuser.
    fn of_words(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            command: None,
        }
    }
}

pub(crate) fn run(config: &Config, args: &Args) -> Result<u8, Failure> {
    let location = super::location(config, false)?;
    let mut found = Vec::new();
    let repository = match location.open_recorded(config, &ProgressReporter::hidden()) {
        Ok(repository) => Some(repository),
        Err(e) => {
            found.push(closed(config, &location, &e));
            None
        }
    };
    let mut has_damaged_files = false;
    if let Some(repository) = &repository {
        let of_files = of_files(&location, repository)?;
        has_damaged_files = of_files
            .iter()
            .any(|a| a.command.as_deref() == Some(REPAIR));
        found.extend(of_files);
    }
    let backups = match &repository {
        Some(repository) => repository.readable_backups()?.0,
        None => Vec::new(),
    };
    match of_server(config, &backups) {
        Ok(more) => found.extend(more),
        Err(e) => found.push(unserved(e)),
    }
    if config.backup_settings()?.verify_recovery && sibling::find("oa-restore").is_none() {
        found.push(Ailment::of_words(
            "oa-restore is not installed beside oa-backup: nobody tries whether backups recover, and nothing can be restored here",
        ));
    }
    if let Some(repository) = &repository {
        let state = RepositoryState::look(config, &location, repository)?;
        let facts = state.facts(location.shown().as_ref(), state.now());
        // Files of the repository that are damaged come first: without its index nothing can be checked.
        if !has_damaged_files {
            found.extend(of_damage(config, repository, &facts)?);
        }
        found.extend(of_backups(config, &facts, &backups));
    }
    report(&found, args.format)?;
    Ok(if found.is_empty() {
        exit::OK
    } else {
        exit::FAILED
    })
}

fn report(found: &[Ailment], format: Format) -> Result<(), Failure> {
    if format != Format::Table {
        let mut listing = Listing::new(&[("what", "what is wrong"), ("command", "next")]);
        for one in found {
            listing.push(json!({"what": one.what, "command": one.command}));
        }
        listing.print(format).map_err(anyhow::Error::from)?;
        return Ok(());
    }
    if found.is_empty() {
        return print("Nothing is wrong that can be seen from here.\n");
    }
    let mut text = String::new();
    for one in found {
        text.push_str(&format!("- {}\n", one.what));
    }
    if let Some(command) = found.iter().find_map(|one| one.command.as_deref()) {
        text.push_str(&format!("next: {command}\n"));
    }
    print(&text)
}

/// Why a repository does not open, and what is safe then.
fn closed(config: &Config, location: &RepositoryLocation, error: &RepositoryError) -> Ailment {
    let what = error.to_string();
    match error {
        RepositoryError::Absent(_) => Ailment::new(what, "oa-backup init"),
        // Nothing may be made before somebody has looked.
        RepositoryError::Vanished { .. } if location.folder().is_some() => {
            let there = location.folder().into_iter().flat_map(Path::ancestors);
            let there = there.into_iter().find(|path| path.exists());
            let there = there.unwrap_or(Path::new("/")).display();
            Ailment::new(what, &format!("df {there}"))
        }
        _ if location.is_mendable() => Ailment::new(what, REPAIR),
        RepositoryError::Lost(_) if has_copy(config) => Ailment::new(what, "oa-backup list --copy"),
        _ => Ailment::of_words(what),
    }
}

fn has_copy(config: &Config) -> bool {
    config.backup.as_ref().is_some_and(|b| b.copy.is_some())
}

fn of_files(
    location: &RepositoryLocation,
    repository: &Repository,
) -> Result<Vec<Ailment>, Failure> {
    let damages = repository.check_files()?;
    let mut found: Vec<Ailment> = damages
        .into_iter()
        .map(|damage| Ailment::new(damage.what, REPAIR))
        .collect();
    if let Some(path) = location.open_to_others() {
        found.push(Ailment::new(
            format!(
                "other users of this machine may read or write {}",
                path.display()
            ),
            &format!("chmod -R go= {}", location.shown()),
        ));
    }
    let newest = repository.readable_backups()?.0.pop();
    let needed = newest.map_or(0, |b| b.meta.stored.added_bytes);
    found.extend(location.folder().and_then(|folder| of_room(folder, needed)));
    Ok(found)
}

/// Why the next backup could not be stored; `needed` is what the newest one took.
fn of_room(folder: &Path, needed: u64) -> Option<Ailment> {
    let folders = ["", "data", "index", "snapshots"].map(|name| folder.join(name));
    let refused = folders.iter().find_map(|path| {
        let error = access(path, Access::WRITE_OK | Access::EXEC_OK).err()?;
        Some((path, error))
    });
    if let Some((path, error)) = refused {
        return Some(Ailment::of_words(format!(
            "this user cannot write to {}: {}. Mount its disk so that it can be written to, or give it to the user of the crontab",
            path.display(),
            std::io::Error::from(error)
        )));
    }
    let disk = rustix::fs::statvfs(folder).ok()?;
    // File systems that make them as they are needed say that there are none at all.
    if disk.f_files > 0 && disk.f_favail < FILES {
        return Some(Ailment::new(
            format!(
                "the disk of the repository has room for {} more files only, however much space is left (df -i {}); remove files there, or let repository in [backup] name another disk",
                disk.f_favail,
                folder.display()
            ),
            "oa-backup prune --dry-run",
        ));
    }
    let free = disk.f_bavail * disk.f_frsize;
    (free < needed.max(ROOM)).then(|| {
        Ailment::new(
            format!(
                "the disk of the repository has only {} left, and the newest backup took {}; make room on it, or let repository in [backup] name a larger one",
                Bytes(free),
                Bytes(needed)
            ),
            "oa-backup prune --dry-run",
        )
    })
}

fn unserved(error: BackupError) -> Ailment {
    let what = error.to_string();
    match error {
        // What there is can be looked at without the server.
        BackupError::Postgres(oa_repository::PostgresError::Connect(e)) if e.is_passing() => {
            Ailment::new(what, "oa-restore plan --to latest")
        }
        _ => Ailment::of_words(what),
    }
}

/// Whether the server can be backed up as it is configured.
fn of_server(config: &Config, backups: &[Backup]) -> Result<Vec<Ailment>, BackupError> {
    let settings = config.backup_settings()?;
    let mut connected = Connected::open(config)?;
    let server = connected.server.clone();
    let staging = staging::open(config, settings)?;
    let mut found = Vec::new();
    let (kind, obstacle) =
        server.kind(settings.kind, &connected.programs, &mut connected.client)?;
    found.extend(obstacle.map(|why| Ailment::of_words(format!("only dumps are made: {why}"))));
    found.extend(rights::missing(&mut connected.client)?.map(Ailment::of_words));
    found.extend(left_by_restores(&mut connected.client)?.map(Ailment::of_words));
    let has_full = backups.iter().any(|b| {
        chain::is_of(&server, b) && b.meta.kind == Kind::Physical && b.meta.level == Level::Full
    });
    if kind == Kind::Physical && has_full {
        let slot = slot_name::known(settings, &staging, &server);
        let lost = connected.source(&slot).lost()?;
        found.extend(lost.map(|what| Ailment::new(what, "oa-backup incremental")));
    }
    found.extend(stale_wal(staging.path(), &server, backups));
    if let Some(lag) = stream::measure(config)?.filter(|lag| lag.seconds.is_none()) {
        found.push(Ailment::of_words(format!(
            "{} Its log says why; restart it",
            lag.sentence().trim_end()
        )));
    }
    let needed = match kind {
        Kind::Physical => server.size_bytes,
        Kind::Logical | Kind::Files => server.database_bytes,
    };
    match crate::capture::physical::check_room(staging.path(), needed) {
        Err(e @ BackupError::NoRoom { .. }) => found.push(Ailment::of_words(e.to_string())),
        other => other?,
    }
    Ok(found)
}

/// WAL of a cluster that this one has taken the place of, by an upgrade or a restore: nobody stores anything of it any more.
fn stale_wal(staging: &Path, server: &Server, backups: &[Backup]) -> Vec<Ailment> {
    let newest = |system: &str, level: Option<Level>| {
        let of_it = backups.iter().filter(|b| b.meta.system_id == system);
        let of_it = of_it.filter(|b| level.is_none_or(|level| b.meta.level == level));
        let physical = of_it.filter(|b| b.meta.kind == Kind::Physical);
        physical.map(|b| b.meta.restorable_to).max()
    };
    let Some(full) = newest(&server.system_id, Some(Level::Full)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(staging).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(system) = name
            .strip_prefix("wal-")
            .filter(|id| *id != server.system_id)
        else {
            continue;
        };
        let is_id = system.bytes().all(|b| b.is_ascii_digit());
        if is_id && newest(system, None).is_none_or(|last| last < full) {
            let files = std::fs::read_dir(entry.path())
                .into_iter()
                .flatten()
                .flatten();
            let bytes: u64 = files.filter_map(|f| Some(f.metadata().ok()?.len())).sum();
            found.push(Ailment::of_words(format!(
                "{} holds {} of WAL of another cluster, which was backed up from here before this one; if it does not come back: rm -r {}",
                entry.path().display(),
                Bytes(bytes),
                entry.path().display()
            )));
        }
    }
    found
}

/// What a restore that was killed has left in the live server, where none runs now.
fn left_by_restores(client: &mut Client) -> Result<Option<String>, BackupError> {
    let rows = client
        .query(
            "SELECT 'table ' || c.oid::regclass::text FROM pg_class c WHERE c.relkind = 'r' AND c.relname ~ $1
               AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'oa-restore')
             UNION ALL
             SELECT 'database ' || datname FROM pg_database WHERE datname ~ $1
               AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'oa-restore')",
            &[&"^oa_restore_[0-9a-f]{12}$"],
        )
        .map_err(BackupError::query(
            "could not look for what restores have left",
        ))?;
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    Ok((!names.is_empty()).then(|| {
        format!(
            "a restore that was interrupted has left {}, which nobody uses: the next oa-restore table removes such tables, and the next oa-restore database such databases; or drop them",
            names.join(", ")
        )
    }))
}

/// Backups that are not whole. The damage has to be taken out before anything is stored again; then a full backup stores what the server
/// still has; and what is not whole after that never will be.
fn of_damage(
    config: &Config,
    repository: &Repository,
    facts: &Facts,
) -> Result<Option<Ailment>, Failure> {
    let (backups, _) = repository.readable_backups()?;
    let lacking = repository.check(&backups, false)?;
    // What is not there any more is missing, and what cannot be read was looked at before.
    let there = |(id, _): &&(String, String)| backups.iter().any(|b| b.id == *id);
    let recorded = facts.damaged.iter().filter(there);
    let mut why: BTreeMap<&str, &str> = recorded.map(|(id, what)| (&**id, &**what)).collect();
    let lacks = |id: &str| lacking.iter().any(|d| d.backup.as_deref() == Some(id));
    // What was found by reading it back, and lacks nothing, is still where it was, or was mended since: repair reads everything.
    let unclear = why.keys().any(|id| !lacks(id));
    let found = lacking.iter();
    why.extend(found.filter_map(|d| Some((d.backup.as_deref()?, &*d.what))));
    let damaged = |b: &&Backup| why.contains_key(b.id.as_str());
    let Some(newest) = backups.iter().rev().find(damaged) else {
        return Ok(None);
    };
    let what = format!(
        "{} backup(s) are not whole; the newest is {} ({} {}, up to {}): {}",
        why.len(),
        newest.short_id(),
        newest.meta.level.as_str(),
        newest.meta.kind.as_str(),
        shown(config, newest.meta.restorable_to),
        why.get(newest.id.as_str()).copied().unwrap_or_default(),
    );
    if unclear || repository.needs_new_index()? {
        return Ok(Some(match repository.location().folder() {
            Some(_) => Ailment::new(what, REPAIR),
            None => Ailment::of_words(format!(
                "{what}. Only a folder can be repaired: copy the bucket to one, let repository in [backup] name it, and run oa-backup repair"
            )),
        }));
    }
    let followed = |bad: &Backup| {
        let of_it = |b: &Backup| b.meta.system_id == bad.meta.system_id && !damaged(&b);
        followed(
            &backups,
            bad.meta.kind.as_str(),
            bad.meta.restorable_to,
            of_it,
        )
    };
    let since: Option<Vec<DateTime<Utc>>> = backups.iter().filter(damaged).map(followed).collect();
    Ok(Some(
        match since.and_then(|since| since.into_iter().max()) {
            None => Ailment::new(what, FULL),
            Some(since) => Ailment::of_words(format!(
                "{what}. That cannot be mended: nothing has what they lack any more. Everything since {} can be restored, and of the time before what does not need it. Until they go nothing that is unused can be freed; give them up with oa-backup prune --damaged, or keep what they still have: oa-alert ack backup_unverified:{}",
                shown(config, since),
                facts.repository
            )),
        },
    ))
}

fn shown(config: &Config, at: DateTime<Utc>) -> String {
    at.with_timezone(&config.timezone)
        .format("%Y-%m-%d %H:%M:%S %Z")
        .to_string()
}

/// Since when there is something that stands alone and is newer than what is lost: then the server has been asked once more for all that it
/// has, and a further full backup brings nothing back.
fn followed(
    backups: &[Backup],
    kind: &str,
    lost: DateTime<Utc>,
    counts: impl Fn(&Backup) -> bool,
) -> Option<DateTime<Utc>> {
    let later = |b: &&Backup| {
        b.meta.kind.as_str() == kind && b.meta.restorable_to > lost && b.meta.stands_alone()
    };
    let alone = backups.iter().filter(later).filter(|b| counts(b));
    alone.map(|b| b.meta.restorable_to).min()
}

/// The verdict that alerts and the page give too; damage is looked at above.
fn of_backups(config: &Config, facts: &Facts, backups: &[Backup]) -> Vec<Ailment> {
    let wording = Wording {
        locale: Locale::En,
        timezone: config.timezone,
    };
    let limits = Limits::from_config(config);
    let found = limits.map_or_else(Vec::new, |limits| facts.assess(&limits));
    let ailment = |finding: &Finding| {
        let what = oa_wording::sentence(finding, &wording);
        Some(match finding {
            Finding::BackupDamaged { .. } => return None,
            Finding::BackupMissing { .. } => of_missing(config, facts, backups, &what),
            _ => Ailment {
                what,
                command: remedy(finding).map(str::to_owned),
            },
        })
    };
    found.iter().filter_map(ailment).collect()
}

/// What is gone does not come back with a further full backup.
fn of_missing(config: &Config, facts: &Facts, backups: &[Backup], what: &str) -> Ailment {
    let lost = facts.gone.iter().chain(&facts.stranded);
    let since: Option<Vec<DateTime<Utc>>> = lost
        .map(|lost| followed(backups, &lost.kind, lost.restorable_to, |_| true))
        .collect();
    let Some(since) = since.and_then(|since| since.into_iter().max()) else {
        return Ailment::new(what, FULL);
    };
    let since = shown(config, since);
    if facts.gone.is_empty() {
        return Ailment::of_words(format!(
            "{what}. That cannot be mended unless what is gone is put back from a copy of the repository. Everything since {since} can be restored. They go as they age (oa-backup prune); until then: oa-alert ack backup_missing:{}",
            facts.repository
        ));
    }
    Ailment::new(
        format!(
            "{what}. Everything since {since} can be restored. Put what is gone back from a copy of the repository, or give it up"
        ),
        "oa-backup prune --missing",
    )
}

fn remedy(finding: &Finding) -> Option<&'static str> {
    Some(match finding {
        Finding::BackupLate { full: None, .. } => "oa-backup incremental",
        Finding::BackupAbsent { .. }
        | Finding::BackupLate { .. }
        | Finding::BackupUnrecoverable { .. } => FULL,
        Finding::BackupUnverified { .. } => "oa-backup verify --read-data",
        Finding::DrillFailed { .. } | Finding::DrillOverdue { .. } => "oa-restore drill --yes",
        Finding::RepositoryFilling { .. } => "oa-backup prune --dry-run",
        _ => return None,
    })
}
