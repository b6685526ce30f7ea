//! A full physical backup: `pg_basebackup` copies the cluster's files with the WAL they need into the staging folder, with a
//! manifest of checksums, and it is compared with that before anything is listed.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use oa_core::base::units::Bytes;
use postgres::Client;
use serde::Deserialize;

use super::pages;
use super::server::{STATE_TIME, Server};
use crate::error::BackupError;
use oa_repository::Programs;
use oa_repository::layout::{DATA, TABLESPACES};
use oa_repository::{Checksums, Lsn, PostgresError, staging as folders};

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
    files: Vec<ManifestFile>,
}

/// What of a copy that is being made may be written more than once: the WAL.
pub(crate) fn unfinished(folder: &Path) -> PathBuf {
    folder.join(DATA).join("pg_wal")
}

/// How large the tables and indexes of this database are, by their files within the folder of a copy. Nobody waits for this, and it
/// promises nothing: what it does not say is stored a bit later.
pub(crate) fn sizes(client: &mut Client) -> HashMap<PathBuf, u64> {
    sizes_now(client).unwrap_or_else(|e| {
        tracing::debug!(
            "sizes of tables are not known: {}",
            oa_core::pg::describe(&e)
        );
        HashMap::new()
    })
}

fn sizes_now(client: &mut Client) -> Result<HashMap<PathBuf, u64>, postgres::Error> {
    let mut tx = client.transaction()?;
    tx.batch_execute("SET LOCAL lock_timeout = '100ms'; SET LOCAL statement_timeout = '10s'")?;
    let rows = tx.query(
        "SELECT pg_relation_filepath(oid), pg_relation_size(oid), pg_size_bytes(current_setting('segment_size')) FROM pg_class
         WHERE relpersistence = 'p' AND relfilenode <> 0 AND pg_relation_size(oid) > 0",
        &[],
    )?;
    let mut sizes = HashMap::new();
    for row in rows {
        let (Some(path), Some(size)) = (
            row.get::<_, Option<String>>(0),
            row.get::<_, Option<i64>>(1),
        ) else {
            continue;
        };
        let (mut left, full) = (size.unsigned_abs(), row.get::<_, i64>(2).unsigned_abs());
        let mut number = 0;
        // A file for each so many bytes of it (PostgreSQL 15, chapter 73.1).
        while left > 0 && full > 0 {
            let name = match number {
                0 => path.clone(),
                _ => format!("{path}.{number}"),
            };
            sizes.insert(in_copy(Path::new(&name)), left.min(full));
            left = left.saturating_sub(full);
            number += 1;
        }
    }
    Ok(sizes)
}

/// Where a file of the cluster is in a copy's folder.
fn in_copy(name: &Path) -> PathBuf {
    match name.strip_prefix("pg_tblspc") {
        Ok(within) => Path::new(TABLESPACES).join(within),
        Err(_) => Path::new(DATA).join(name),
    }
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
    let path = data.join("backup_manifest");
    let manifest = read_manifest(&path)?;
    let Some(range) = manifest.ranges.last() else {
        return Err(PostgresError::Wrong(format!(
            "{} does not say which WAL the copy needs",
            path.display()
        ))
        .into());
    };
    Ok(Copied {
        folder,
        damaged,
        start: range.start,
        end: range.end,
        timeline: range.timeline,
        at,
        files: manifest.files,
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

/// Compares the copy with its manifest, but for the content of files, which is read once, when it is stored; and sees that the WAL it
/// needs can be read.
pub(crate) fn verify(programs: &Programs, copied: &Copied) -> Result<(), BackupError> {
    let data = copied.folder.join(DATA);
    let arguments = ["--quiet", "--skip-checksums", &data.display().to_string()].map(str::to_owned);
    Ok(programs.run("pg_verifybackup", &arguments)?)
}

/// Compares what was stored with the manifest: each file has the checksum that the server gave for what it sent.
pub(crate) fn compare(copied: &Copied, stored: &Checksums) -> Result<(), BackupError> {
    let different = |file: &ManifestFile| {
        let path = file.path()?;
        let stored = stored.of(&path)?;
        // As the server's memory had it.
        let stored: String = stored
            .to_ne_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        (file.checksum.as_ref() == Some(&stored)).then_some(())
    };
    let Some(file) = copied.files.iter().find(|file| different(file).is_none()) else {
        return Ok(());
    };
    Err(PostgresError::Wrong(format!(
        "what was stored of {} is not what the server sent: its checksum differs from the manifest's. Nothing is listed; check this machine's memory and the disk of staging, then repeat it",
        file.shown()
    ))
    .into())
}

/// The manifest of a base backup (PostgreSQL 15, chapter 73).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    files: Vec<ManifestFile>,
    #[serde(rename = "WAL-Ranges")]
    ranges: Vec<ManifestRange>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ManifestFile {
    path: Option<String>,
    /// Where the path is no UTF-8: hexadecimal digits.
    #[serde(rename = "Encoded-Path")]
    encoded: Option<String>,
    checksum: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ManifestRange {
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: Lsn,
    #[serde(rename = "End-LSN")]
    end: Lsn,
}

impl ManifestFile {
    /// Where it is in the backup.
    fn path(&self) -> Option<PathBuf> {
        let name = match (&self.path, &self.encoded) {
            (Some(path), _) => path.clone().into_bytes(),
            (None, Some(digits)) => (0..digits.len() / 2)
                .map(|n| u8::from_str_radix(digits.get(2 * n..2 * n + 2)?, 16).ok())
                .collect::<Option<Vec<u8>>>()?,
            (None, None) => return None,
        };
        let name = PathBuf::from(OsString::from_vec(name));
        Some(Path::new("/").join(in_copy(&name)))
    }

    fn shown(&self) -> &str {
        let name = self.path.as_ref().or(self.encoded.as_ref());
        name.map_or("a file", String::as_str)
    }
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

fn read_manifest(path: &Path) -> Result<Manifest, BackupError> {
    let text = fs::read(path).map_err(BackupError::disk("could not read", path))?;
    serde_json::from_slice(&text).map_err(|e| {
        BackupError::from(PostgresError::Wrong(format!(
            "{} is no manifest of a base backup: {e}",
            path.display()
        )))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_manifest_are_found_in_the_backup() {
        let text = r#"{"Files": [
            {"Path": "base/1/112", "Size": 8192, "Checksum-Algorithm": "CRC32C", "Checksum": "00000000"},
            {"Path": "pg_tblspc/16400/PG_15_1/1", "Size": 0, "Checksum": "00000000"},
            {"Encoded-Path": "ff2f78", "Size": 1, "Checksum": "00000000"}],
            "WAL-Ranges": [{"Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100"}]}"#;
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        let paths = manifest.files.iter().map(|file| file.path().unwrap());
        let odd = OsString::from_vec(b"/data/\xff/x".to_vec());
        assert_eq!(
            paths.collect::<Vec<_>>(),
            [
                PathBuf::from("/data/base/1/112"),
                PathBuf::from("/tablespaces/16400/PG_15_1/1"),
                PathBuf::from(odd)
            ]
        );
        let copied = Copied {
            folder: PathBuf::new(),
            damaged: Vec::new(),
            start: manifest.ranges[0].start,
            end: manifest.ranges[0].end,
            timeline: 1,
            at: DateTime::UNIX_EPOCH,
            files: manifest.files,
        };
        let error = compare(&copied, &Checksums::default()).unwrap_err();
        assert!(error.to_string().contains("base/1/112"), "{error}");
    }
}
