//! What a server must be set to so that it can recover a cluster here: by the cluster's own control file, by what the WAL says of
//! settings that were changed since the full backup, and by what this machine allows.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use oa_core::base::secrets::keep_from;
use oa_repository::Lsn;
use oa_repository::parameters;

use super::account::Account;
use crate::RestoreError;
use crate::plan::{Physical, StopAt};

/// Settings that must be at least as large as the source's were, at any time that is recovered (PostgreSQL 15, chapter 27.4.8), by
/// their names in `postgresql.conf` and in what `pg_controldata` prints.
const AT_LEAST: [(&str, &str); 5] = [
    ("max_connections", "max_connections setting"),
    ("max_locks_per_transaction", "max_locks_per_xact setting"),
    ("max_prepared_transactions", "max_prepared_xacts setting"),
    ("max_wal_senders", "max_wal_senders setting"),
    ("max_worker_processes", "max_worker_processes setting"),
];
/// Switched off, the server would forget the times of all commits.
const COMMIT_TIMES: (&str, &str) = ("track_commit_timestamp", "track_commit_timestamp setting");

#[derive(Debug, Clone, Default)]
pub(crate) struct Requirements {
    pub(crate) settings: BTreeMap<String, String>,
    /// What was written from there on cannot be recovered from, because the source ran with `wal_level = minimal`.
    pub(crate) minimal: Option<Lsn>,
}

impl Requirements {
    /// Those of any cluster on this machine.
    pub(crate) fn of_machine(account: &Account) -> Self {
        let mut settings = BTreeMap::new();
        // As initdb does where POSIX shared memory is not to be had.
        if !account.writes(Path::new("/dev/shm")) {
            settings.insert("dynamic_shared_memory_type".to_owned(), "sysv".to_owned());
        }
        Self {
            settings,
            minimal: None,
        }
    }

    /// Those of a cluster whose files and WAL are in `data`, not started yet. `scratch` is a folder of its own.
    pub(crate) fn of_cluster(
        physical: &Physical,
        data: &Path,
        scratch: &Path,
        account: &Account,
    ) -> Result<Self, RestoreError> {
        let mut needs = Self::of_machine(account);
        let control = control(&physical.programs, data)?;
        for (name, value) in &physical.full.meta.settings {
            needs.at_least(name, value);
        }
        for (name, label) in AT_LEAST {
            if let Some(value) = control.get(label) {
                needs.at_least(name, value);
            }
        }
        let mut commit_times = control.get(COMMIT_TIMES.1).is_some_and(|v| v == "on");
        let segment_bytes = control
            .get("Bytes per WAL segment")
            .and_then(|v| v.parse().ok())
            .unwrap_or(physical.segment_bytes)
            .max(1 << 20);
        let start = physical.full.meta.start_lsn.unwrap_or(Lsn(0));
        let read = parameters::changes(
            &physical.programs,
            &data.join("pg_wal"),
            scratch,
            segment_bytes,
            (start, end_of(physical)),
        )?;
        if let Some(said) = read.unreadable {
            // How far recovery comes is seen afterwards.
            tracing::info!("the WAL cannot be read to its end: {said}");
        }
        for change in &read.all {
            for (name, _) in AT_LEAST {
                if let Some(value) = change.settings.get(name) {
                    needs.at_least(name, value);
                }
            }
            commit_times |= change
                .settings
                .get(COMMIT_TIMES.0)
                .is_some_and(|v| v == "on");
            if change.is_minimal() {
                needs.minimal = needs.minimal.or(Some(change.at));
            }
        }
        if commit_times {
            let on = "on".to_owned();
            needs.settings.insert(COMMIT_TIMES.0.to_owned(), on);
        }
        needs.segments_of(segment_bytes);
        Ok(needs)
    }

    fn at_least(&mut self, name: &str, value: &str) {
        // What is no number raises nothing: recovery itself then says which setting is too low.
        let number = |text: &str| text.parse::<i64>().unwrap_or(0);
        let known = self.settings.get(name).map_or(-1, |v| number(v));
        if number(value) > known {
            self.settings.insert(name.to_owned(), value.to_owned());
        }
    }

    /// Both sizes of the WAL must be two segments at least; in MB.
    fn segments_of(&mut self, segment_bytes: u64) {
        let segment = segment_bytes >> 20;
        let sizes = [("min_wal_size", 2, 80), ("max_wal_size", 4, 4096)];
        for (name, segments, usual) in sizes {
            let megabytes = (segments * segment).max(usual);
            self.settings
                .insert(name.to_owned(), format!("{megabytes}MB"));
        }
    }
}

/// Up to here the WAL is of interest.
fn end_of(physical: &Physical) -> Lsn {
    let stored = physical.sources.first().and_then(|s| s.meta.wal.as_ref());
    let to = stored.map_or(physical.reaches, |wal| wal.to);
    match physical.end {
        StopAt::Lsn(lsn) => to.min(lsn),
        _ => to,
    }
}

/// What `pg_controldata` prints, label by label.
fn control(programs: &Path, data: &Path) -> Result<BTreeMap<String, String>, RestoreError> {
    let program = programs.join("pg_controldata");
    let mut command = Command::new(&program);
    keep_from(&mut command);
    let output = command
        .env("LC_ALL", "C")
        .arg("--pgdata")
        .arg(data)
        .output()
        .map_err(RestoreError::disk("could not run", &program))?;
    if !output.status.success() {
        return Err(RestoreError::Server {
            doing: "could not read the restored cluster's control file",
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(label, value)| (label.to_owned(), value.trim().to_owned()))
        .collect())
}
