//! A full physical backup: `pg_basebackup` copies the cluster's files with the WAL they need into the staging folder, with a
//! manifest of checksums, and `pg_verifybackup` compares them before anything is listed.

use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use oa_core::base::units::Bytes;
use postgres::Client;

use super::pages;
use super::server::{STATE_TIME, Server};
use crate::error::BackupError;
use oa_repository::Programs;
use oa_repository::layout::{DATA, TABLESPACES};
use oa_repository::{Lsn, PostgresError, staging as folders};

/// A copy that stands in the staging folder.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) folder: PathBuf,
    /// Where pages of the server are damaged, in words.
    pub(crate) damaged: Vec<String>,
    /// Recovery begins here.
    pub(crate) start: Lsn,
    /// It must come at least this far.
    pub(crate) end: Lsn,
    pub(crate) timeline: u32,
    /// The server's clock when the copy was complete.
    pub(crate) at: DateTime<Utc>,
}

/// The folder that a full backup of either kind is staged in.
pub(crate) fn staging_folder(staging: &Path) -> PathBuf {
    staging.join("full")
}

/// Copies the cluster.
pub(crate) fn copy(
    client: &mut Client,
    programs: &Programs,
    server: &Server,
    limit_rate: Option<Bytes>,
    staging: &Path,
    run: &str,
) -> Result<Copied, BackupError> {
    let folder = staging_folder(staging);
    folders::empty_folder(&folder)?;
    // The WAL that is written meanwhile comes with it.
    check_room(staging, server.size_bytes + 8 * server.segment_bytes)?;
    let data = folder.join(DATA);
    let mut arguments = vec![
        format!("--pgdata={}", data.display()),
        "--format=plain".to_owned(),
        "--wal-method=stream".to_owned(),
        // The copy need not outlive a power cut: what counts is in the repository, which is synced.
        "--no-sync".to_owned(),
        "--checkpoint=fast".to_owned(),
        // Against a torn copy on the way here, not against an enemy: what is stored is hashed and encrypted.
        "--manifest-checksums=CRC32C".to_owned(),
        format!("--label=oa {run}"),
        "--no-password".to_owned(),
    ];
    if let Some(rate) = limit_rate {
        // In kilobytes; the server takes 32 to 1048576.
        arguments.push(format!("--max-rate={}", (rate.0 / 1024).clamp(32, 1 << 20)));
    }
    for (number, place) in &server.tablespaces {
        let here = folder.join(TABLESPACES).join(number);
        arguments.push(format!(
            "--tablespace-mapping={}={}",
            escape(place),
            escape(&here.to_string_lossy())
        ));
    }
    let damaged = copy_files(client, programs, server, &folder, arguments)?;
    oa_core::base::failpoint::hit("backup.copied");
    let at = client
        .query_one(&format!("SELECT {STATE_TIME}"), &[])
        .map_err(BackupError::query("could not ask for the time"))?
        .get(0);
    let (start, end, timeline) = range_of(&data.join("backup_manifest"))?;
    Ok(Copied {
        folder,
        damaged,
        start,
        end,
        timeline,
        at,
    })
}

/// Runs `pg_basebackup`. Returns where the server's pages are damaged, in words.
fn copy_files(
    client: &mut Client,
    programs: &Programs,
    server: &Server,
    folder: &Path,
    mut arguments: Vec<String>,
) -> Result<Vec<String>, BackupError> {
    let error = match programs.run("pg_basebackup", &arguments) {
        Ok(()) => return Ok(Vec::new()),
        Err(error) => error,
    };
    let is = |name: &str, value: &str| server.advice.get(name).is_some_and(|v| v == value);
    if !is("data_checksums", "on") || !is("block_size", "8192") {
        return Err(error.into());
    }
    // Of all its failures it leaves what it has copied only after that of a checksum.
    let begins = begins_at(&folder.join(DATA));
    let (PostgresError::Failed { .. }, Some(begins)) = (&error, begins) else {
        return Err(error.into());
    };
    let scan = |begins| {
        pages::damaged(folder, begins)
            .map_err(BackupError::disk("could not look for damage in", folder))
    };
    let before = scan(begins)?;
    if before.is_empty() {
        return Err(error.into());
    }
    tracing::warn!("pages of the server are damaged; the copy is made without comparing checksums");
    folders::empty_folder(folder)?;
    arguments.push("--no-verify-checksums".to_owned());
    programs.run("pg_basebackup", &arguments)?;
    let Some(begins) = begins_at(&folder.join(DATA)) else {
        return Err(error.into());
    };
    // A page that was being written is whole in one of the two copies.
    let mut damaged = scan(begins)?;
    damaged.retain(|file, pages| {
        pages.retain(|page| before.get(file).is_some_and(|known| known.contains(page)));
        !pages.is_empty()
    });
    pages::named(client, &damaged)
}

/// Where the recovery of a copy begins, by its `backup_label` (PostgreSQL's `xlogbackup.c`).
fn begins_at(data: &Path) -> Option<Lsn> {
    let label = fs::read_to_string(data.join("backup_label")).ok()?;
    let line = label.lines().next()?.strip_prefix("START WAL LOCATION: ")?;
    line.split_whitespace().next()?.parse().ok()
}

/// Compares the copy with its manifest, and sees that the WAL it needs can be read.
pub(crate) fn verify(programs: &Programs, copied: &Copied) -> Result<(), BackupError> {
    let data = copied.folder.join(DATA);
    Ok(programs.run(
        "pg_verifybackup",
        &["--quiet".to_owned(), data.display().to_string()],
    )?)
}

/// The value of `--tablespace-mapping` is cut at the first `=`.
fn escape(path: &str) -> String {
    path.replace('=', "\\=")
}

/// Refuses when the staging folder's disk has less than what is needed.
pub(crate) fn check_room(staging: &Path, needed: u64) -> Result<(), BackupError> {
    let failed = BackupError::disk("could not measure the disk of", staging);
    let disk = rustix::fs::statvfs(staging).map_err(|e| failed(e.into()))?;
    let free = disk.f_bavail * disk.f_frsize;
    if free < needed {
        return Err(BackupError::NoRoom {
            path: staging.to_owned(),
            free: Bytes(free),
            needed: Bytes(needed),
        });
    }
    Ok(())
}

/// The WAL that the copy needs, from its manifest (PostgreSQL 15, chapter 73.2).
fn range_of(manifest: &Path) -> Result<(Lsn, Lsn, u32), BackupError> {
    let text = fs::read(manifest).map_err(BackupError::disk("could not read", manifest))?;
    let parsed: Option<(Lsn, Lsn, u32)> = (|| {
        let json: serde_json::Value = serde_json::from_slice(&text).ok()?;
        let range = json.get("WAL-Ranges")?.as_array()?.last()?;
        let lsn = |key| range.get(key)?.as_str()?.parse().ok();
        let timeline = range.get("Timeline")?.as_u64()?.try_into().ok()?;
        Some((lsn("Start-LSN")?, lsn("End-LSN")?, timeline))
    })();
    parsed.ok_or_else(|| {
        BackupError::from(PostgresError::Program(format!(
            "{} is no manifest of a base backup",
            manifest.display()
        )))
    })
}
