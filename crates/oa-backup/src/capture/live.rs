//! What `oa-backup stream` receives continuously: `pg_receivewal` writes into a folder of its own, and whoever stores WAL takes over from
//! there what has come, under the lock that everybody needs who touches the folder from which WAL is stored.
//!
//! Whoever receives holds the lock "receiving". Killed at any point: a segment is in one of the two folders, whole, or the server still
//! has it, because the slot does not go beyond what is on the disk here.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use oa_core::base::state_dir::{Lock, StateDir};
use oa_core::base::supervise::{Group, StopSignal};
use oa_repository::staging::{empty_folder, remove_folder};
use oa_repository::{Lsn, PostgresError, Programs, Segment};

use super::server::Server;
use super::slot::Source;
use super::wal::segments_in;
use crate::error::BackupError;

/// The stream's name among the server's sessions: for `synchronous_standby_names`.
pub(crate) const APPLICATION: &str = "oa_stream";
/// A stream that receives nothing for this long hangs.
const STALLED: Duration = Duration::from_secs(60);
/// A server lets a slot go that long after whoever used it has vanished (`wal_sender_timeout`), and a bit.
const VANISHED: Duration = Duration::from_secs(75);
const PAUSE: Duration = Duration::from_millis(50);

/// The folder in which WAL is received continuously, of one server.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    path: PathBuf,
    staging: StateDir,
    lock: String,
    segment_bytes: u64,
}

impl Live {
    /// Beside the folder `stored` from which WAL is stored.
    pub(crate) fn beside(stored: &Path, staging: &StateDir, server: &Server) -> Self {
        Self {
            path: stored.with_extension("live"),
            staging: staging.clone(),
            lock: format!("receiving-{}", server.system_id),
            segment_bytes: server.segment_bytes,
        }
    }

    /// What a stream has received and nobody has taken over.
    pub(crate) fn segments(&self) -> Result<Vec<Segment>, BackupError> {
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        segments_in(&self.path, self.segment_bytes)
    }

    /// For whoever is about to receive; `None` while somebody does.
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>, BackupError> {
        Ok(self.staging.try_lock(&self.lock)?)
    }

    /// Takes everything up to `to` over into the folder `stored`, as soon as the stream has received it. Where there is no stream, or it
    /// ends meanwhile, what it has left is taken over and the rest is to be received: with the lock that is returned.
    pub(crate) fn claim(
        &self,
        stored: &Path,
        source: &mut Source<'_>,
        to: Lsn,
    ) -> Result<Option<Lock>, BackupError> {
        let (mut before, mut since) = (None, Instant::now());
        loop {
            if let Some(lock) = self.try_lock()? {
                wait_for_slot(source)?;
                self.take_over(stored, true)?;
                return Ok(Some(lock));
            }
            let received = source.progress()?.received;
            if received.is_some_and(|lsn| lsn >= to) {
                self.take_over(stored, false)?;
                return Ok(None);
            }
            if received != before {
                (before, since) = (received, Instant::now());
            }
            if since.elapsed() > STALLED {
                return Err(PostgresError::Wrong(format!(
                    "oa-backup stream runs, and has received nothing for {} s although the server is at {to}; restart it",
                    STALLED.as_secs()
                ))
                .into());
            }
            pause()?;
        }
    }

    /// Takes over what a stream has left that runs no more.
    pub(crate) fn take_over_all(&self, stored: &Path) -> Result<(), BackupError> {
        let _receiving = self
            .try_lock()?
            .ok_or_else(|| BackupError::Busy("another process is receiving the WAL".to_owned()))?;
        self.take_over(stored, true)
    }

    /// Nothing of it continues what will come.
    pub(crate) fn discard(&self) -> Result<(), BackupError> {
        Ok(remove_folder(&self.path)?)
    }

    /// `alone`: nothing is received now. A segment that is being filled is copied, so it may be stored while it grows.
    fn take_over(&self, stored: &Path, alone: bool) -> Result<(), BackupError> {
        let failed = BackupError::disk("could not read", &self.path);
        let entries = match fs::read_dir(&self.path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(&failed)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.map_err(&failed)?.file_name());
        }
        names.sort();
        let mut vanished = false;
        for name in names.iter().filter_map(|name| name.to_str()) {
            let (from, into) = (self.path.join(name), stored.join(name));
            let segment = Segment::parse(name, self.segment_bytes);
            let taken = match segment {
                Some(segment) if segment.partial => {
                    if stored.join(&segment.name).exists() {
                        continue;
                    }
                    match is_behind(&from, &into) {
                        Ok(true) => continue,
                        Ok(false) if alone => fs::rename(&from, &into),
                        Ok(false) => self.copy(&from, &into),
                        Err(e) => Err(e),
                    }
                }
                Some(segment) => fs::rename(&from, &into).and_then(|()| {
                    let partial = Segment {
                        partial: true,
                        ..segment
                    };
                    absent_is_fine(fs::remove_file(stored.join(partial.file())))
                }),
                None if name.ends_with(".history") => fs::copy(&from, &into).map(drop),
                None => continue,
            };
            match taken {
                // Its segment is full now, and has another name.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => vanished = true,
                taken => taken.map_err(BackupError::disk("could not take over", &from))?,
            }
        }
        if vanished {
            return self.take_over(stored, alone);
        }
        Ok(())
    }

    /// Never half of it under its name.
    fn copy(&self, from: &Path, into: &Path) -> std::io::Result<()> {
        let temporary = self.path.join("copy");
        fs::copy(from, &temporary)?;
        fs::rename(&temporary, into)
    }

    /// Begins to receive, from where the slot stands: what was received before is stored from the other folder. For whoever holds the lock.
    pub(crate) fn receive(
        &self,
        stored: &Path,
        programs: &Programs,
        slot: &str,
    ) -> Result<Stream, BackupError> {
        self.take_over(stored, true)?;
        empty_folder(&self.path)?;
        let log = self.path.with_extension("stream.log");
        let file = File::create(&log).map_err(BackupError::disk("could not create", &log))?;
        let arguments = [
            format!("--directory={}", self.path.display()),
            format!("--slot={slot}"),
            // On the disk before the server hears that it is.
            "--synchronous".to_owned(),
            "--status-interval=1".to_owned(),
            "--no-loop".to_owned(),
            "--no-password".to_owned(),
        ];
        let program = programs.start("pg_receivewal", &arguments, APPLICATION, file)?;
        Ok(Stream { program, log })
    }
}

/// A running `pg_receivewal`; it ends with this value, and with this process, however that ends.
#[derive(Debug)]
pub(crate) struct Stream {
    program: Group,
    log: PathBuf,
}

impl Stream {
    /// Why it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<String> {
        match self.program.ended() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("{status}: {}", self.said())),
            Err(e) => Some(e.to_string()),
        }
    }

    fn said(&self) -> String {
        const END: u64 = 2000;
        let mut bytes = Vec::new();
        let read = File::open(&self.log).and_then(|mut file| {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(END)))?;
            file.read_to_end(&mut bytes)
        });
        if let Err(e) = read {
            return e.to_string();
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        oa_core::base::secrets::redact(&lines.collect::<Vec<_>>().join("; "))
    }
}

/// After a start the stream has less of a segment for a moment than what is stored of it. What is not filled yet is zero.
fn is_behind(from: &Path, stored: &Path) -> std::io::Result<bool> {
    let here = filled(&File::open(from)?)?;
    Ok(match File::open(stored) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
        stored => here < filled(&stored?)?,
    })
}

/// How much of a segment is filled. Read from its end, block by block: two segments in memory each minute would be most of what the stream
/// takes, for as long as it runs.
fn filled(segment: &File) -> std::io::Result<u64> {
    let mut block = vec![0; 64 << 10];
    let mut end = segment.metadata()?.len();
    while end > 0 {
        let size = block.len().min(usize::try_from(end).unwrap_or(usize::MAX));
        let begin = end - size as u64;
        segment.read_exact_at(&mut block[..size], begin)?;
        if let Some(last) = block[..size].iter().rposition(|byte| *byte != 0) {
            return Ok(begin + last as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

/// A stream that was killed a moment ago may still be known to the server.
fn wait_for_slot(source: &mut Source<'_>) -> Result<(), BackupError> {
    let end = Instant::now() + VANISHED;
    loop {
        let Some(user) = source.progress()?.user else {
            return Ok(());
        };
        if Instant::now() >= end {
            return Err(BackupError::NotAllowed(format!(
                "replication slot {} is used by {user}, which no oa-backup of this machine is; if another machine streams from it, set slot in [backup] to another name here",
                source.slot
            )));
        }
        pause()?;
    }
}

fn pause() -> Result<(), BackupError> {
    if StopSignal.requested() {
        return Err(BackupError::Stopped);
    }
    thread::sleep(PAUSE);
    Ok(())
}

fn absent_is_fine(done: std::io::Result<()>) -> std::io::Result<()> {
    match done {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
