//! A dump becomes a cluster of its own: `initdb`, its roles, its database.

use std::path::Path;

use oa_core::base::supervise::{self, StopSignal};
use oa_repository::Reader;
use oa_repository::layout::{DUMP, GLOBALS};

use super::account::Account;
use super::refreshes::{NotRefreshed, Refreshes};
use super::requirements::Requirements;
use super::server::{Server, StartFailure};
use super::settings::{self, PrivateSettings};
use super::work_folder::WorkFolder;
use crate::RestoreError;
use crate::error::stop_if_asked;
use crate::plan::Logical;

/// The private cluster's own superuser: what the dump says of the roles that it knows must not take its rights away.
pub(crate) const SUPERUSER: &str = "oa_private";
/// Connections that load at the same time.
const JOBS: usize = 2;
const LIMIT: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// Returns also the materialized views that stayed without rows.
pub(super) fn load(
    reader: &Reader,
    logical: &Logical,
    work: &WorkFolder,
    account: &Account,
) -> Result<(Server, Vec<NotRefreshed>), RestoreError> {
    stop_if_asked()?;
    let stored = work.folder().join("stored");
    reader.restore(&logical.backup, Path::new(""), &stored)?;
    let data = work.folder().join("data");
    work.give_to(account)?;
    // initdb and what it starts must be able to walk there.
    let made = work.socket().join("initdb");
    let mut initdb = account.command(&logical.programs.join("initdb"));
    initdb
        .current_dir("/")
        .arg(format!("--username={SUPERUSER}"))
        .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
        .arg("--pgdata")
        .arg(&made);
    let finished = supervise::run(&mut initdb, LIMIT, StopSignal, false, supervise::TAIL).map_err(
        RestoreError::disk("could not run", &logical.programs.join("initdb")),
    )?;
    if !finished.status.success() {
        return Err(RestoreError::Server {
            doing: "initdb failed",
            said: String::from_utf8_lossy(&finished.stderr).trim().to_owned(),
        });
    }
    move_folder(&made, &data)?;
    settings::private(
        &data,
        &PrivateSettings {
            socket: work.socket(),
            meta: &logical.backup.meta,
            needs: &Requirements::of_machine(account),
            timeline: None,
            end: None,
            durable: false,
        },
    )?;
    account.own(&data)?;
    let log = work.folder().join("log");
    let users = [SUPERUSER.to_owned()];
    let server = Server::start(
        account,
        &logical.programs,
        &data,
        work.socket(),
        &log,
        &users,
    )
    .map_err(|down| match down {
        StartFailure::Failed(e) | StartFailure::Ended(e) => e,
    })?;
    let programs = server.programs("postgres")?;
    // A tablespace has no folder here, and whoever made the dump may not have seen everything: what matters is missed below.
    let globals = stored.join(GLOBALS);
    programs.finish(
        "psql",
        &[
            "--no-psqlrc".to_owned(),
            "--quiet".to_owned(),
            format!("--file={}", globals.display()),
        ],
    )?;
    // `postgres` itself may be what was dumped: then it takes the place of the one that initdb has made.
    let is_there = logical.backup.meta.database == "postgres";
    let (entry, clean) = if is_there {
        ("template1", Some("--clean".to_owned()))
    } else {
        ("postgres", None)
    };
    let mut arguments = vec![
        "--create".to_owned(),
        "--no-tablespaces".to_owned(),
        "--exit-on-error".to_owned(),
        format!("--jobs={JOBS}"),
        format!("--dbname={entry}"),
    ];
    arguments.extend(clean);
    let dump = stored.join(DUMP);
    let refreshes = Refreshes::of(&programs, &dump, &stored.join("list"))?;
    arguments.extend(refreshes.argument());
    arguments.push(dump.display().to_string());
    programs.run("pg_restore", &arguments)?;
    let not_refreshed = refreshes.make(&mut server.connect(&logical.backup.meta.database)?)?;
    stop_if_asked()?;
    let _ = std::fs::remove_dir_all(&stored);
    Ok((server, not_refreshed))
}

/// To another file system too.
fn move_folder(from: &Path, to: &Path) -> Result<(), RestoreError> {
    if std::fs::rename(from, to).is_ok() {
        return Ok(());
    }
    let failed = RestoreError::disk("could not move", from);
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status()
        .map_err(&failed)?;
    if !copied.success() {
        return Err(failed(std::io::Error::other("cp failed")));
    }
    std::fs::remove_dir_all(from).map_err(&failed)
}
