//! A logical backup: `pg_dump` in its directory form, uncompressed (the repository compresses, and finds what is unchanged), and
//! the roles by `pg_dumpall`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use oa_core::app::config::Backup as Settings;
use postgres::{Client, IsolationLevel};

use super::physical::{check_room, staging_folder};
use super::rights;
use super::server::{STATE_TIME, Server};
use crate::error::BackupError;
use oa_repository::Programs;
use oa_repository::layout::{DUMP, GLOBALS};
use oa_repository::{ContentFingerprint, Lsn, PostgresError, fingerprint, staging as folders};

/// A dump that stands in the staging folder.
#[derive(Debug)]
pub(crate) struct Dumped {
    pub(crate) folder: PathBuf,
    /// The server's clock when the dump's snapshot was taken.
    pub(crate) at: DateTime<Utc>,
    /// What the tables hold in that snapshot.
    pub(crate) fingerprint: ContentFingerprint,
}

/// Dumps the database of the connection, in the same snapshot in which its tables are counted, for at most `budget`.
pub(crate) fn dump(
    client: &mut Client,
    programs: &Programs,
    server: &Server,
    settings: &Settings,
    staging: &Path,
    budget: Duration,
) -> Result<Dumped, BackupError> {
    let folder = staging_folder(staging);
    folders::empty_folder(&folder)?;
    check_room(staging, server.database_bytes)?;
    let failed = BackupError::query("could not take a snapshot to dump");
    let mut tx = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .map_err(&failed)?;
    let row = tx
        .query_one(&format!("SELECT pg_export_snapshot(), {STATE_TIME}"), &[])
        .map_err(&failed)?;
    let (snapshot, at): (String, DateTime<Utc>) = (row.get(0), row.get(1));
    let fingerprint = ContentFingerprint {
        lsn: Lsn(0),
        exact: true,
        tables: fingerprint::tables(&mut tx, Instant::now() + budget)?,
    };
    let dumped = programs.run(
        "pg_dump",
        &[
            format!("--file={}", folder.join(DUMP).display()),
            format!("--snapshot={snapshot}"),
            "--format=directory".to_owned(),
            "--compress=0".to_owned(),
            format!("--jobs={}", settings.jobs.max(1)),
            "--no-password".to_owned(),
        ],
    );
    match dumped {
        Err(error @ PostgresError::Failed { .. }) => {
            return Err(match rights::missing(&mut tx)? {
                Some(what) => BackupError::NotAllowed(format!("{error}; {what}")),
                None => error.into(),
            });
        }
        dumped => dumped?,
    }
    tx.commit().map_err(&failed)?;
    let passwords = rights::reads_passwords(client)?;
    let globals = |more: &[&str]| {
        let mut arguments = vec![
            format!("--file={}", folder.join(GLOBALS).display()),
            "--globals-only".to_owned(),
            "--no-password".to_owned(),
        ];
        arguments.extend(more.iter().map(|m| (*m).to_owned()));
        programs.run("pg_dumpall", &arguments)
    };
    globals(if passwords {
        &[]
    } else {
        &["--no-role-passwords"]
    })?;
    oa_core::base::failpoint::hit("backup.copied");
    Ok(Dumped {
        folder,
        at,
        fingerprint,
    })
}
