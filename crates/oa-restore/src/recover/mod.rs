//! From the repository to a server that runs: files, settings, recovery.
//!
//! [`PrivateServer`] is a throwaway server in the staging folder, for looking and for taking things out. [`recover_in_place`] recovers a data
//! directory that stays.

pub(crate) mod account;
mod dump;
mod refreshes;
mod requirements;
mod server;
mod settings;
mod work_folder;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use oa_core::base::failpoint;
use oa_core::base::units::Bytes;
use oa_repository::Reader;
use oa_repository::layout::{DATA, TABLESPACES};

use self::account::Account;
pub(crate) use self::dump::SUPERUSER as PRIVATE_SUPERUSER;
use self::refreshes::NotRefreshed;
pub(crate) use self::refreshes::Refreshes;
use self::requirements::Requirements;
use self::server::{Server, StartFailure};
use self::settings::PrivateSettings;
pub(crate) use self::work_folder::WorkFolder;
use crate::RestoreError;
use crate::disk::{DiskNeed, STAGING_REMEDY};
use crate::error::stop_if_asked;
use crate::plan::{Physical, RestorePlan, StopAt, Strategy};

/// Stands in a target directory while it is being filled, and says by what; it does not count as one of the backup's files.
pub(crate) const MARKER: &str = ".oa-restore";

/// Private servers run as the first of these that exists, when this process is root.
const SERVER_ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

/// A throwaway server with what was chosen, recovered and promoted. Ends, and its files go, when it is dropped.
#[derive(Debug)]
pub(crate) struct PrivateServer {
    pub(crate) server: Server,
    /// From the first byte out of the repository until it answered, without what was checked in between.
    pub(crate) took: Duration,
    /// Materialized views of a dump that are without rows in it.
    pub(crate) not_refreshed: Vec<NotRefreshed>,
    /// Its folder; dropped after the server.
    work: WorkFolder,
}

impl PrivateServer {
    /// What one takes of the staging folder's disk.
    pub(crate) fn need(plan: &RestorePlan, work: &WorkFolder) -> DiskNeed {
        DiskNeed {
            folder: work.staging().to_owned(),
            bytes: plan.size_bytes(),
            remedy: STAGING_REMEDY,
        }
    }

    /// Restores what was chosen into a folder of the staging folder and starts a server there. `check` looks at the files before the
    /// server changes them; its time does not count.
    pub(crate) fn start(
        reader: &Reader,
        plan: &RestorePlan,
        work: WorkFolder,
        users: &[String],
        check: impl FnOnce(&Physical, &Path) -> Result<(), RestoreError>,
    ) -> Result<Self, RestoreError> {
        let staging = work.staging().to_owned();
        Self::started(reader, plan, work, users, check)
            .map_err(|e| e.in_private().on_disk_of(staging.display(), STAGING_REMEDY))
    }

    fn started(
        reader: &Reader,
        plan: &RestorePlan,
        work: WorkFolder,
        users: &[String],
        check: impl FnOnce(&Physical, &Path) -> Result<(), RestoreError>,
    ) -> Result<Self, RestoreError> {
        let account = Account::find(&SERVER_ACCOUNTS)?;
        let began = Instant::now();
        let data = work.folder().join(DATA);
        let log = work.folder().join("log");
        let mut checked = Duration::ZERO;
        let (server, not_refreshed) = match &plan.strategy {
            Strategy::Physical(physical) => {
                copy_files(reader, physical, &data, &work.folder().join(TABLESPACES))?;
                relink_tablespaces(&data, Path::new("../../tablespaces"))?;
                let begins = Instant::now();
                check(physical, &data)?;
                checked = begins.elapsed();
                fetch_wal(reader, physical, &data)?;
                failpoint::hit("restore.copied");
                let scratch = work.folder().join("read");
                let needs = Requirements::of_cluster(physical, &data, &scratch, &account)?;
                work.give_to(&account)?;
                let setup = RecoverySetup {
                    account: &account,
                    needs: &needs,
                    data: &data,
                    socket: work.socket(),
                    log: &log,
                    users: candidate_users(users),
                    durable: false,
                };
                (recover(physical, &setup)?, Vec::new())
            }
            Strategy::Logical(logical) => dump::load(reader, logical, &work, &account)?,
        };
        failpoint::hit("restore.recovered");
        Ok(Self {
            server,
            not_refreshed,
            took: began.elapsed().saturating_sub(checked),
            work,
        })
    }

    /// Where they are of no more use than this.
    pub(crate) fn warn_of_not_refreshed(&self) {
        for view in &self.not_refreshed {
            tracing::warn!("in the private server: {}", view.note);
        }
    }

    pub(crate) fn staging(&self) -> &Path {
        self.work.staging()
    }

    /// A folder for what is taken out of it.
    pub(crate) fn folder(&self) -> &Path {
        self.work.folder()
    }
}

/// Recovers a data directory that stays, and shuts the server down. `finish` is done in each database before that. Returns notes for
/// the operator on what is in it, and what its server needs.
pub(crate) fn recover_in_place(
    physical: &Physical,
    account: &Account,
    data: &Path,
    work: &WorkFolder,
    users: &[String],
    finish: impl FnMut(&mut postgres::Client) -> Result<(), RestoreError>,
) -> Result<(Vec<String>, Requirements), RestoreError> {
    let needs = Requirements::of_cluster(physical, data, &work.folder().join("read"), account)?;
    account.own(work.socket())?;
    let setup = RecoverySetup {
        account,
        needs: &needs,
        data,
        socket: work.socket(),
        log: &work.folder().join("log"),
        users: candidate_users(users),
        durable: true,
    };
    let server = recover(physical, &setup)?;
    let notes = findings(&server, finish).map_err(RestoreError::in_private)?;
    server.shut_down()?;
    Ok((notes, needs))
}

/// What is in a recovered cluster and not as it was.
fn findings(
    server: &Server,
    mut finish: impl FnMut(&mut postgres::Client) -> Result<(), RestoreError>,
) -> Result<Vec<String>, RestoreError> {
    let failed = RestoreError::query("could not look at the restored cluster");
    let mut notes = Vec::new();
    let mut client = server.anywhere()?;
    let subscriptions: i64 = client
        .query_one("SELECT count(*) FROM pg_subscription WHERE subenabled", &[])
        .map_err(&failed)?
        .get(0);
    if subscriptions > 0 {
        notes.push(format!(
            "{subscriptions} subscription(s) would connect to other servers and are kept from it by max_logical_replication_workers = 0 in postgresql.auto.conf; disable or drop them, then take that line out"
        ));
    }
    let databases = client
        .query(
            "SELECT datname::text FROM pg_database WHERE datallowconn AND NOT datistemplate AND datconnlimit <> -2",
            &[],
        )
        .map_err(&failed)?;
    for row in &databases {
        let name: String = row.get(0);
        let found = server.connect(&name).and_then(|mut client| {
            let note = unlogged(&mut client, &name)?;
            finish(&mut client)?;
            Ok(note)
        });
        // What cannot be looked at must not keep the rest from coming back.
        match found {
            Ok(note) => notes.extend(note),
            Err(e) => notes.push(format!("could not look into database {name}: {e}")),
        }
    }
    Ok(notes)
}

/// A note, if a database that was restored with WAL has unlogged tables.
pub(crate) fn unlogged(
    client: &mut postgres::Client,
    database: &str,
) -> Result<Option<String>, RestoreError> {
    let rows = client
        .query(
            "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relpersistence = 'u' AND c.relkind = 'r' ORDER BY 1",
            &[],
        )
        .map_err(RestoreError::query("could not look for unlogged tables"))?;
    let names: Vec<String> = rows.iter().take(5).map(|r| r.get(0)).collect();
    Ok((!names.is_empty()).then(|| {
        format!(
            "{} unlogged table(s) of database {database} are empty, because PostgreSQL writes no WAL for them: {}{}; a dump has their rows (--kind logical)",
            rows.len(),
            names.join(", "),
            if rows.len() > names.len() { ", …" } else { "" }
        )
    }))
}

/// Writes the settings that a recovered data directory keeps. Returns notes for the operator.
pub(crate) fn finish_settings(
    needs: &Requirements,
    data: &Path,
    port: u16,
    socket: &Path,
    account: &Account,
) -> Result<Vec<String>, RestoreError> {
    settings::finished(data, needs, port, socket, account)
}

/// Copies the cluster's files out of the repository; those that are there and the same stay. Counts them afterwards: nothing may be
/// missing.
pub(crate) fn copy_files(
    reader: &Reader,
    physical: &Physical,
    data: &Path,
    tablespaces: &Path,
) -> Result<(), RestoreError> {
    stop_if_asked()?;
    let full = &physical.full;
    reader.restore(full, Path::new(DATA), data)?;
    let mut count = Count::default();
    count.add(data)?;
    if !full.meta.tablespaces.is_empty() {
        reader.restore(full, Path::new(TABLESPACES), tablespaces)?;
        count.add(tablespaces)?;
    }
    let stored = &full.meta.stored;
    if count.files != stored.files || count.bytes != stored.size_bytes {
        return Err(RestoreError::Differs(format!(
            "backup {} has {} files with {}, and {} files with {} came out of the repository; check it with oa-backup verify --read-data",
            full.short_id(),
            stored.files,
            Bytes(stored.size_bytes),
            count.files,
            Bytes(count.bytes)
        )));
    }
    fs::set_permissions(data, fs::Permissions::from_mode(0o700))
        .map_err(RestoreError::disk("could not protect", data))?;
    for standby in ["standby.signal", "recovery.signal"] {
        let _ = fs::remove_file(data.join(standby));
    }
    Ok(())
}

#[derive(Default)]
struct Count {
    files: u64,
    bytes: u64,
}

impl Count {
    fn add(&mut self, folder: &Path) -> Result<(), RestoreError> {
        let failed = RestoreError::disk("could not read", folder);
        for entry in fs::read_dir(folder).map_err(&failed)? {
            let entry = entry.map_err(&failed)?;
            let meta = entry.metadata().map_err(&failed)?;
            if meta.is_dir() {
                self.add(&entry.path())?;
            } else if entry.file_name() != MARKER {
                self.files += 1;
                self.bytes += if meta.is_file() { meta.len() } else { 0 };
            }
        }
        Ok(())
    }
}

/// Fetches the WAL into `pg_wal`. The last segment is usually one that was still being filled: where it ends, recovery does.
pub(crate) fn fetch_wal(
    reader: &Reader,
    physical: &Physical,
    data: &Path,
) -> Result<(), RestoreError> {
    let folder = data.join("pg_wal");
    for (index, source) in physical.sources.iter().enumerate() {
        stop_if_asked()?;
        let mine: Vec<_> = physical.wal.iter().filter(|f| f.source == index).collect();
        if mine.is_empty() {
            continue;
        }
        reader.restore_some(source, Path::new(""), &folder, false, |path| {
            mine.iter().any(|f| path == Path::new(&f.stored))
        })?;
        for file in mine {
            let stored = folder.join(&file.stored);
            if file.stored != file.name {
                fs::rename(&stored, folder.join(&file.name))
                    .map_err(RestoreError::disk("could not rename", &stored))?;
            }
        }
    }
    // The repository's root lends the folder its own rights.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))
        .map_err(RestoreError::disk("could not protect", &folder))
}

/// Puts the histories of timelines where PostgreSQL looks when it takes a number for a new one.
pub(crate) fn write_histories(
    histories: &BTreeMap<String, Vec<u8>>,
    data: &Path,
) -> Result<(), RestoreError> {
    for (name, text) in histories {
        let path = data.join("pg_wal").join(name);
        // That which came with the WAL of the plan is the right one.
        if path.exists() {
            continue;
        }
        fs::write(&path, text).map_err(RestoreError::disk("could not write", &path))?;
    }
    Ok(())
}

/// Makes the links to the tablespaces lead to where they are now.
pub(crate) fn relink_tablespaces(data: &Path, tablespaces: &Path) -> Result<(), RestoreError> {
    let folder = data.join("pg_tblspc");
    let failed = RestoreError::disk("could not set the links of", &folder);
    for entry in fs::read_dir(&folder).map_err(&failed)? {
        let entry = entry.map_err(&failed)?;
        let relink_tablespaces = entry.path();
        if relink_tablespaces.is_symlink() {
            fs::remove_file(&relink_tablespaces).map_err(&failed)?;
            std::os::unix::fs::symlink(tablespaces.join(entry.file_name()), &relink_tablespaces)
                .map_err(&failed)?;
        }
    }
    Ok(())
}

struct RecoverySetup<'a> {
    account: &'a Account,
    needs: &'a Requirements,
    data: &'a Path,
    socket: &'a Path,
    log: &'a Path,
    users: Vec<String>,
    durable: bool,
}

/// The superuser's usual name, and the users of the configured addresses: a restored cluster knows one of them.
fn candidate_users(users: &[String]) -> Vec<String> {
    let usual = std::iter::once("postgres".to_owned());
    usual.chain(users.iter().cloned()).collect()
}

fn recover(physical: &Physical, setup: &RecoverySetup<'_>) -> Result<Server, RestoreError> {
    match recover_to(physical, setup, &physical.end) {
        Ok(server) => Ok(server),
        // PostgreSQL ends like this, too, when everything that is there was written before the target: then all of it is wanted.
        // Whether that is so is seen by how far all of it comes.
        Err(StartFailure::Ended(first))
            if matches!(physical.end, StopAt::Time(_) | StopAt::Lsn(_)) =>
        {
            tracing::info!("once more, to the end of the WAL: {first}");
            match recover_to(physical, setup, &StopAt::EndOfWal) {
                Ok(server) if is_before(&server, &physical.end)? => Ok(server),
                _ => Err(explained(first, setup.needs)),
            }
        }
        Err(StartFailure::Failed(e) | StartFailure::Ended(e)) => Err(explained(e, setup.needs)),
    }
}

/// Whether a server that has recovered everything has nothing that was not wanted.
fn is_before(server: &Server, end: &StopAt) -> Result<bool, RestoreError> {
    Ok(match end {
        StopAt::Time(at) => server.recovered_at()?.is_none_or(|last| last <= *at),
        StopAt::Lsn(lsn) => server.recovered_to()?.is_none_or(|last| last <= *lsn),
        StopAt::EndOfWal | StopAt::Consistent => true,
    })
}

/// Says what is known of why.
fn explained(error: RestoreError, needs: &Requirements) -> RestoreError {
    match (error, needs.minimal) {
        (RestoreError::Server { said, .. }, Some(at)) => RestoreError::NoPlan(format!(
            "from {at} on the source ran with wal_level = minimal, and what it wrote then cannot be recovered: restore what was there before, or to a time after the next full backup ({said})"
        )),
        (error, _) => error,
    }
}

fn recover_to(
    physical: &Physical,
    setup: &RecoverySetup<'_>,
    end: &StopAt,
) -> Result<Server, StartFailure> {
    let failed = StartFailure::Failed;
    settings::private(
        setup.data,
        &PrivateSettings {
            socket: setup.socket,
            meta: &physical.full.meta,
            needs: setup.needs,
            timeline: physical.timeline,
            end: Some(end),
            durable: setup.durable,
        },
    )
    .map_err(failed)?;
    for file in [
        settings::CONFIG,
        settings::HBA,
        settings::IDENT,
        settings::SIGNAL,
    ] {
        setup.account.own(&setup.data.join(file)).map_err(failed)?;
    }
    let server = Server::start(
        setup.account,
        &physical.programs,
        setup.data,
        setup.socket,
        setup.log,
        &setup.users,
    )?;
    // With a target that was met, PostgreSQL itself has found it.
    if *end == StopAt::EndOfWal {
        came_far_enough(&server, physical).map_err(failed)?;
    }
    Ok(server)
}

/// Recovery takes the first record that does not fit for the end of the WAL, even when it is in the middle.
fn came_far_enough(server: &Server, physical: &Physical) -> Result<(), RestoreError> {
    let reached = server.recovered_to()?;
    if reached.is_some_and(|r| r >= physical.reaches) {
        return Ok(());
    }
    let reached = reached.map_or_else(|| "nowhere".to_owned(), |r| r.to_string());
    Err(RestoreError::Differs(format!(
        "recovery ended at {reached}, before {}: the WAL in between cannot be read; try an earlier target, or the dump with --kind logical, and check the repository with oa-backup verify --read-data",
        physical.reaches
    )))
}
