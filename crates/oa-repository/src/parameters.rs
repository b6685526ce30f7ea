//! What the WAL says of the settings that it was written with.
//!
//! A server that starts with other settings than before writes a record of it (`PARAMETER_CHANGE`). Two things depend on it. What
//! was written at `wal_level = minimal` cannot be recovered from, whether or not all segments are there: that is a gap. And a
//! recovery needs room for as many prepared transactions and the like as the server had.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oa_core::base::secrets::keep_from;
use oa_core::base::supervise::StopSignal;

use crate::staging::{empty_folder, remove_folder};
use crate::{Lsn, PostgresError, Segment};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where it is in the WAL.
    pub at: Lsn,
    /// The settings from there on, by the names that they have in `postgresql.conf`.
    pub settings: BTreeMap<String, String>,
}

impl Change {
    /// What follows cannot be recovered from.
    #[must_use]
    pub fn is_minimal(&self) -> bool {
        self.settings
            .get("wal_level")
            .is_some_and(|level| level == "minimal")
    }
}

/// What a stretch of the WAL holds.
#[derive(Debug, Default)]
pub struct Changes {
    /// In order.
    pub all: Vec<Change>,
    /// Why it cannot be read to its end, if it cannot.
    pub unreadable: Option<String>,
}

/// Reads the changes between two LSNs out of the segments of `folder`. `scratch` is a folder of its own, made and removed here.
pub fn changes(
    programs: &Path,
    folder: &Path,
    scratch: &Path,
    segment_bytes: u64,
    (from, to): (Lsn, Lsn),
) -> Result<Changes, PostgresError> {
    let to = before_header(to);
    if from >= to {
        return Ok(Changes::default());
    }
    empty_folder(scratch)?;
    link(folder, scratch, segment_bytes, (from, to))?;
    let found = read(&programs.join("pg_waldump"), scratch, (from, to));
    remove_folder(scratch)?;
    found
}

/// A page of the WAL, and more than its header and that of a record take.
const PAGE: u64 = 8192;
const HEADERS: u64 = 64;

/// `pg_waldump` reads a record's header behind the end where that is right behind a page's header; no record ends there.
fn before_header(to: Lsn) -> Lsn {
    let behind = to.0 % PAGE;
    if behind < HEADERS {
        Lsn(to.0 - behind)
    } else {
        to
    }
}

/// Under the names that `pg_waldump` expects: complete, and all of one timeline. A newer timeline's segment begins with what the one
/// before it had.
fn link(
    folder: &Path,
    scratch: &Path,
    segment_bytes: u64,
    (from, to): (Lsn, Lsn),
) -> Result<(), PostgresError> {
    let failed = PostgresError::disk("could not read", folder);
    let mut newest: BTreeMap<Lsn, ((u32, bool), PathBuf)> = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(&failed)? {
        let path = entry.map_err(&failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(segment) = Segment::parse(&name, segment_bytes) else {
            continue;
        };
        if segment.start >= to || segment.start.0 + segment_bytes <= from.0 {
            continue;
        }
        // Where there are both, the complete one is the fuller one.
        let rank = (segment.timeline, !segment.partial);
        if newest.get(&segment.start).is_none_or(|(r, _)| *r < rank) {
            newest.insert(segment.start, (rank, path));
        }
    }
    let per_id = (1_u64 << 32) / segment_bytes;
    for (start, (_, path)) in newest {
        let number = start.0 / segment_bytes;
        let name = format!("00000001{:08X}{:08X}", number / per_id, number % per_id);
        let path = std::path::absolute(&path).map_err(&failed)?;
        symlink(&path, scratch.join(name)).map_err(PostgresError::disk("could not link", &path))?;
    }
    Ok(())
}

fn read(program: &Path, folder: &Path, (from, to): (Lsn, Lsn)) -> Result<Changes, PostgresError> {
    let failed = |e: std::io::Error| {
        PostgresError::Program(format!(
            "could not run {}: {e}; it comes with PostgreSQL's server programs",
            program.display()
        ))
    };
    let mut command = Command::new(program);
    keep_from(&mut command);
    let mut child = command
        .env("LC_ALL", "C.UTF-8")
        .arg(format!("--path={}", folder.display()))
        .args(["--timeline=1", "--rmgr=XLOG"])
        .args([format!("--start={from}"), format!("--end={to}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut changes = Changes::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            if StopSignal.requested() {
                let _ = child.kill();
                let _ = child.wait();
                return Err(PostgresError::Stopped);
            }
            let line = line.map_err(failed)?;
            changes
                .all
                .extend(change_of(&String::from_utf8_lossy(&line)));
        }
    }
    // It says one line at most.
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = stderr.read_to_string(&mut said);
    }
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        changes.unreadable = Some(said.trim().to_owned());
    }
    Ok(changes)
}

/// The names that a record has for settings whose names are longer.
const LONG: [(&str, &str); 2] = [
    ("max_prepared_xacts", "max_prepared_transactions"),
    ("max_locks_per_xact", "max_locks_per_transaction"),
];

/// A record of `pg_waldump`; PostgreSQL describes records in one language (its source, `xlogdesc.c`).
fn change_of(line: &str) -> Option<Change> {
    let (head, text) = line.split_once(" desc: PARAMETER_CHANGE ")?;
    let (_, place) = head.split_once("lsn: ")?;
    let at = place.split_once(',')?.0.parse().ok()?;
    let settings = text
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| {
            let long = LONG.iter().find(|(short, _)| *short == name);
            (
                long.map_or(name, |(_, long)| long).to_owned(),
                value.to_owned(),
            )
        })
        .collect();
    Some(Change { at, settings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_settings_is_read_with_the_names_of_the_configuration() {
        let line = "rmgr: XLOG        len (rec/tot):     54/    54, tx:          0, lsn: 0/04000098, prev 0/04000028, desc: PARAMETER_CHANGE max_connections=60 max_worker_processes=8 max_wal_senders=0 max_prepared_xacts=7 max_locks_per_xact=64 wal_level=minimal wal_log_hints=off track_commit_timestamp=off";
        let change = change_of(line).unwrap();
        assert_eq!(change.at, "0/4000098".parse().unwrap());
        assert!(change.is_minimal());
        assert_eq!(change.settings["max_prepared_transactions"], "7");
        assert_eq!(change.settings["max_connections"], "60");
        assert_eq!(change_of("desc: CHECKPOINT_ONLINE redo 0/1"), None);
    }
}
