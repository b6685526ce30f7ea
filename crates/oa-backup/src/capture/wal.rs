//! The write-ahead log between full backups: received by `pg_receivewal` into a folder that stays, checked for gaps, and stored as
//! a whole each time. What was stored before costs nothing again, and every such backup alone has all segments since the full one.
//!
//! The replication slot keeps the server from removing a segment before it is received. Killed while receiving: the last segment
//! is received again. Killed before storing: the next time stores it. The folder lost: the slot has moved on, there is a gap, and
//! only a new full backup helps.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use oa_core::pg;
use postgres::Client;

use super::programs::Programs;
use super::server::Server;
use super::{CaptureError, server};
use crate::repository::{Lsn, Mark, WalRange};

/// A segment that is still being filled has this behind its name.
const PARTIAL: &str = ".partial";

/// What the server says when what was received is not in its past (PostgreSQL's source, `walsender.c` and `receivelog.c`).
const OTHER_HISTORY: [&str; 3] = [
    "is not in this server's history",
    "is ahead of the WAL flush position",
    "is not present in the server",
];

/// A segment of the log in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its name, without `.partial`.
    pub name: String,
    /// Its timeline.
    pub timeline: u32,
    /// Where it begins.
    pub start: Lsn,
    /// It is still being filled.
    pub partial: bool,
}

impl Segment {
    /// Reads a file's name; `None` for what is no segment (a timeline's history, for example).
    #[must_use]
    pub fn parse(file: &str, segment_bytes: u64) -> Option<Self> {
        let (name, partial) = match file.strip_suffix(PARTIAL) {
            Some(name) => (name, true),
            None => (file, false),
        };
        if name.len() != 24 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let part = |range| u32::from_str_radix(name.get(range)?, 16).ok();
        let (timeline, high, low) = (part(0..8)?, part(8..16)?, part(16..24)?);
        let start = (u64::from(high) << 32) + u64::from(low) * segment_bytes;
        Some(Self {
            name: name.to_owned(),
            timeline,
            start: Lsn(start),
            partial,
        })
    }

    /// The name of its file.
    #[must_use]
    pub fn file(&self) -> String {
        format!("{}{}", self.name, if self.partial { PARTIAL } else { "" })
    }
}

/// What was received.
#[derive(Debug, Clone)]
pub struct Received {
    /// The segments, without a gap.
    pub range: WalRange,
    /// The server's clock when all up to the end of the range was on its disk.
    pub at: DateTime<Utc>,
}

/// The log of one server on this machine.
#[derive(Debug)]
pub struct WalFolder {
    path: PathBuf,
    segment_bytes: u64,
    system_id: u64,
}

impl WalFolder {
    /// The folder of a server within the staging folder; made if absent.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(staging: &Path, server: &Server) -> Result<Self, CaptureError> {
        let path = staging.join(format!("wal-{}", server.system_id));
        fs::create_dir_all(&path).map_err(CaptureError::disk("could not create", &path))?;
        Ok(Self {
            path,
            segment_bytes: server.segment_bytes,
            system_id: server.system_id.parse().map_err(|e| {
                let given = &server.system_id;
                CaptureError::Program(format!(
                    "the server's system identifier \"{given}\" is no number: {e}"
                ))
            })?,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its segments in the order of the log.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn segments(&self) -> Result<Vec<Segment>, CaptureError> {
        let failed = CaptureError::disk("could not read", &self.path);
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(&failed)? {
            let name = entry.map_err(&failed)?.file_name();
            segments.extend(Segment::parse(&name.to_string_lossy(), self.segment_bytes));
        }
        segments.sort_by_key(|s| (s.start, s.timeline));
        Ok(segments)
    }

    /// Receives everything up to now, or to the place of `mark`, and checks what is there.
    ///
    /// # Errors
    /// [`CaptureError::Gap`] when segments are missing between `continues` (the end of what is in the repository) and now.
    pub fn receive(
        &self,
        client: &mut Client,
        programs: &Programs,
        server: &Server,
        slot: &str,
        mark: Option<&Mark>,
        continues: Option<Lsn>,
    ) -> Result<Received, CaptureError> {
        self.ensure_slot(client, slot, server)?;
        if !server.standby {
            // Ends the log, as far as it is received, with a commit and its time: recovery to any moment before it knows that it has
            // come far enough. It also brings what was not yet on the server's disk there.
            client
                .execute("SELECT pg_logical_emit_message(true, 'oa', 'backup')", &[])
                .map_err(CaptureError::query("could not mark the end of the log"))?;
        }
        let (mut to, at) = server::flushed(client, server.standby)?;
        if let Some(mark) = mark {
            to = to.max(mark.lsn);
        }
        let received = self.segments()?.last().map(|s| s.start);
        if let Some(before) = continues.max(received).filter(|place| *place > to) {
            return Err(CaptureError::Gap(format!(
                "the server's log ends at {to}, before what is backed up ({before}): it was put back to an earlier state, or is a copy"
            )));
        }
        let arguments = [
            format!("--directory={}", self.path.display()),
            format!("--slot={slot}"),
            // The program ends when it has received something beyond this.
            format!("--endpos={}", Lsn(to.0.saturating_sub(1))),
            "--no-loop".to_owned(),
            "--no-password".to_owned(),
        ];
        programs
            .run("pg_receivewal", &arguments)
            .map_err(|e| match e {
                CaptureError::Failed { said, .. } if said.contains("has already been removed") => {
                    CaptureError::Gap(format!(
                        "the server has removed log that is not backed up ({said})"
                    ))
                }
                CaptureError::Failed { said, .. }
                    if OTHER_HISTORY.iter().any(|words| said.contains(words)) =>
                {
                    CaptureError::Gap(format!(
                        "the server's log does not go on where the received one ends: it was put back to an earlier state, or is a copy ({said})"
                    ))
                }
                other => other,
            })?;
        oa_core::failpoint::hit("backup.wal_received");
        let range = self.check(to, continues)?;
        Ok(Received { range, at })
    }

    /// That the segments follow each other, belong to this server, and connect to what is in the repository.
    fn check(&self, to: Lsn, continues: Option<Lsn>) -> Result<WalRange, CaptureError> {
        let segments = self.segments()?;
        let Some(first) = segments.first() else {
            return Err(CaptureError::Gap(format!(
                "nothing was received into {}",
                self.path.display()
            )));
        };
        let mut next = first.start;
        for segment in &segments {
            if segment.start > next {
                return Err(CaptureError::Gap(format!(
                    "the log has a gap: {} is followed by {} in {}",
                    next,
                    segment.name,
                    self.path.display()
                )));
            }
            self.check_header(segment)?;
            next = Lsn(segment.start.0 + self.segment_bytes);
        }
        if next < to {
            return Err(CaptureError::Gap(format!(
                "the log was received up to {next} only, not to {to}"
            )));
        }
        if let Some(continues) = continues
            && self.floor(continues) < first.start
        {
            return Err(CaptureError::Gap(format!(
                "the log is backed up to {continues}, and what was received begins at {}; {} was lost, or the slot was made anew",
                first.start,
                self.path.display()
            )));
        }
        Ok(WalRange {
            from: first.start,
            to,
            segment_bytes: self.segment_bytes,
        })
    }

    /// Where the segment with this place begins.
    fn floor(&self, lsn: Lsn) -> Lsn {
        Lsn(lsn.0 - lsn.0 % self.segment_bytes)
    }

    /// The first page says where a segment belongs (PostgreSQL's source, `access/xlog_internal.h`, `XLogLongPageHeaderData`).
    fn check_header(&self, segment: &Segment) -> Result<(), CaptureError> {
        let path = self.path.join(segment.file());
        let mut header = [0_u8; 40];
        File::open(&path)
            .and_then(|mut f| f.read_exact(&mut header))
            .map_err(CaptureError::disk("could not read", &path))?;
        let u64_at = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[at..at + 8]);
            u64::from_ne_bytes(bytes)
        };
        let (begins, system_id) = (u64_at(8), u64_at(24));
        if begins == segment.start.0 && system_id == self.system_id {
            return Ok(());
        }
        // A segment that the server had just begun to fill may have no header yet.
        if segment.partial && header.iter().all(|b| *b == 0) {
            return Ok(());
        }
        Err(CaptureError::Gap(format!(
            "{} is not the segment of this server that its name says (it begins at {}, of system {system_id})",
            path.display(),
            Lsn(begins)
        )))
    }

    /// Removes segments that lie wholly before a place, and are in the repository.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn drop_before(&self, lsn: Lsn) -> Result<(), CaptureError> {
        let keep = self.floor(lsn);
        for segment in self.segments()?.iter().filter(|s| s.start < keep) {
            let path = self.path.join(segment.file());
            fs::remove_file(&path).map_err(CaptureError::disk("could not remove", &path))?;
        }
        Ok(())
    }

    /// Makes the slot, if there is none. It keeps the log from now on.
    ///
    /// # Errors
    /// [`CaptureError::Gap`] when the server has given the slot up; it is dropped then.
    fn ensure_slot(
        &self,
        client: &mut Client,
        slot: &str,
        server: &Server,
    ) -> Result<(), CaptureError> {
        let failed = CaptureError::query("could not look for the replication slot");
        let found = client
            .query_opt(
                "SELECT slot_type = 'physical', coalesce(wal_status, 'reserved') = 'lost' FROM pg_replication_slots WHERE slot_name = $1",
                &[&slot],
            )
            .map_err(&failed)?;
        match found {
            Some(row) if !row.get::<_, bool>(0) => Err(CaptureError::NotAllowed(format!(
                "replication slot {slot} is a logical one of somebody else; set slot in [backup] to another name"
            ))),
            Some(row) if row.get::<_, bool>(1) => Err(CaptureError::Gap(format!(
                "the server has given up slot {slot}, because it held more log than max_slot_wal_keep_size allows"
            ))),
            Some(_) => Ok(()),
            None => {
                client
                    .execute(
                        "SELECT pg_create_physical_replication_slot($1, true)",
                        &[&slot],
                    )
                    .map_err(|e| {
                        let role = pg::quote_ident(&server.role);
                        CaptureError::NotAllowed(format!(
                            "could not make replication slot {slot}: {}; as a superuser: SELECT pg_create_physical_replication_slot('{slot}', true); or ALTER ROLE {role} REPLICATION",
                            pg::describe(&e)
                        ))
                    })?;
                Ok(())
            }
        }
    }

    /// Before a full backup: the slot keeps the log from here on, and what was received goes on without a gap, or is given up.
    ///
    /// # Errors
    /// When files cannot be removed, or the slot cannot be made.
    pub fn prepare(
        &self,
        client: &mut Client,
        programs: &Programs,
        server: &Server,
        slot: &str,
    ) -> Result<(), CaptureError> {
        let kept = if self.segments()?.is_empty() {
            self.ensure_slot(client, slot, server)
        } else {
            self.receive(client, programs, server, slot, None, None)
                .map(drop)
        };
        let Err(CaptureError::Gap(why)) = kept else {
            return kept;
        };
        tracing::info!("the log begins anew: {why}");
        super::empty_folder(&self.path)?;
        drop_slot(client, slot)?;
        self.ensure_slot(client, slot, server)
    }
}

fn drop_slot(client: &mut Client, slot: &str) -> Result<(), CaptureError> {
    client
        .execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active",
            &[&slot],
        )
        .map_err(CaptureError::query("could not drop the replication slot"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_segments_are_places_in_the_log() {
        let size = 16 << 20;
        let s = Segment::parse("00000002000000160000000B.partial", size).unwrap();
        assert_eq!((s.timeline, s.partial), (2, true));
        assert_eq!(s.start, "16/B000000".parse().unwrap());
        assert_eq!(s.file(), "00000002000000160000000B.partial");
        for other in [
            "00000002.history",
            "backup_label",
            "00000002000000160000000",
            "x0000002000000160000000B",
        ] {
            assert_eq!(Segment::parse(other, size), None, "{other}");
        }
    }
}
