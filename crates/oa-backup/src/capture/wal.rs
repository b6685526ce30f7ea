//! The WAL between full backups: received by `pg_receivewal` into a folder that stays, checked for gaps, and stored as
//! a whole each time. What was stored before costs nothing again, and every such backup alone has all segments since the full one.
//!
//! The replication slot keeps the server from removing a segment before it is received. Killed while receiving: the last segment
//! is received again. Killed before storing: the next time stores it. The folder lost: the slot has moved on, there is a gap, and
//! only a new full backup helps.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use oa_core::base::state_dir::StateDir;

use super::live::Live;
use super::server;
use super::server::Server;
use super::slot::{Past, Slot, Source};
use crate::error::BackupError;
use oa_repository::Programs;
use oa_repository::parameters::{self, Change};
use oa_repository::staging::{empty_folder, wal_folder};
use oa_repository::{ContentFingerprint, Lsn, PostgresError, Segment, WalRange};

/// What is in the repository already, of the newest full backup and of its WAL.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Since {
    /// Where that backup begins.
    pub(crate) full_start: Lsn,
    /// Up to here its WAL is stored.
    pub(crate) end: Lsn,
    /// Up to here any WAL from before that backup is stored.
    pub(crate) before: Lsn,
}

#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// The segments, without a gap.
    pub(crate) range: WalRange,
    /// The server's clock when all up to the end of the range was on its disk.
    pub(crate) at: DateTime<Utc>,
}

/// The WAL of one server on this machine.
#[derive(Debug)]
pub(crate) struct WalFolder {
    path: PathBuf,
    live: Live,
    segment_bytes: u64,
    system_id: u64,
}

impl WalFolder {
    /// The folder of a server within the staging folder; made if absent.
    pub(crate) fn open(staging: &StateDir, server: &Server) -> Result<Self, BackupError> {
        let path = wal_folder(staging.path(), &server.system_id);
        fs::create_dir_all(&path).map_err(BackupError::disk("could not create", &path))?;
        let system_id = server.system_id.parse().map_err(|_| {
            PostgresError::Wrong(format!(
                "the server's system identifier is \"{}\", which is no number",
                server.system_id
            ))
        })?;
        Ok(Self {
            live: Live::beside(&path, staging, server),
            path,
            segment_bytes: server.segment_bytes,
            system_id,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is received continuously.
    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    /// Its segments in the order of the WAL.
    pub(crate) fn segments(&self) -> Result<Vec<Segment>, BackupError> {
        segments_in(&self.path, self.segment_bytes)
    }

    /// Up to where WAL was received, by segments: one that is partial counts up to its beginning. `None`: none was.
    pub(crate) fn received(&self) -> Result<Option<Lsn>, BackupError> {
        let live = self.live.segments()?;
        let all = self.segments()?.into_iter().chain(live);
        Ok(all.map(|s| self.end_of(&s)).max())
    }

    fn end_of(&self, segment: &Segment) -> Lsn {
        let filled = if segment.partial {
            0
        } else {
            self.segment_bytes
        };
        Lsn(segment.start.0 + filled)
    }

    /// Receives everything up to now, or to the LSN of `fingerprint`, and checks what is there. `since`: what is in the repository; with
    /// `connects` what was received must go on from there.
    ///
    /// [`BackupError::Gap`] when something between what is in the repository and now is missing, or cannot be recovered from.
    pub(crate) fn receive(
        &self,
        source: &mut Source<'_>,
        fingerprint: Option<&ContentFingerprint>,
        since: Option<Since>,
        connects: bool,
    ) -> Result<Received, BackupError> {
        let slot = source.ensure_slot()?;
        let standby = source.server.standby;
        if !standby {
            // Ends the WAL, as far as it is received, with a commit and its time: recovery to any time before it knows that it has
            // come far enough. It also brings what was not yet on the server's disk there.
            source
                .client
                .execute("SELECT pg_logical_emit_message(true, 'oa', 'backup')", &[])
                .map_err(BackupError::query("could not mark the end of the WAL"))?;
        }
        let (mut to, at) = server::flushed(source.client, standby)?;
        if let Some(fingerprint) = fingerprint {
            to = to.max(fingerprint.lsn);
        }
        let continues = since.filter(|_| connects).map(|s| s.end);
        let receiving = self.live.claim(&self.path, source, to)?;
        let start = self.next()?;
        // A standby that was restarted may have less for a while.
        let received = match (standby, start) {
            (true, _) => self.segments()?.last().map(|s| s.start),
            (false, start) => start.map(|(_, lsn)| lsn),
        };
        if let Some(before) = continues.max(received)
            && before > to.max(source.end()?)
        {
            return Err(BackupError::Gap(format!(
                "the server's WAL ends at {to}, before what is backed up ({before}): it was put back to an earlier state, or is a copy"
            )));
        }
        if receiving.is_some() {
            self.receive_to(source, slot, start, to)?;
        }
        oa_core::base::failpoint::hit("backup.wal_received");
        let mut range = self.check(to, continues)?;
        if let Some(since) = since {
            range.from = self.can_be_recovered(source.programs, range.from, to, since)?;
        }
        Ok(Received { range, at })
    }

    /// Receives up to an LSN.
    fn receive_to(
        &self,
        source: &mut Source<'_>,
        slot: Slot,
        start: Option<(u32, Lsn)>,
        to: Lsn,
    ) -> Result<(), BackupError> {
        if let Some((_, lsn)) = start
            && self.is_gone(source, lsn, slot, to)? == Some(true)
        {
            return Err(self.removed(lsn));
        }
        let mut arguments = vec![
            format!("--directory={}", self.path.display()),
            // The program ends when it has received something beyond this.
            format!("--endpos={}", Lsn(to.0.saturating_sub(1))),
            "--no-loop".to_owned(),
            "--no-password".to_owned(),
        ];
        // A slot that was made after what is still to be received would be moved back to it, even where it is gone.
        if start.is_none_or(|(_, lsn)| slot.reaches(lsn, self.segment_bytes)) {
            arguments.push(format!("--slot={}", source.slot));
        } else {
            tracing::warn!(
                "replication slot {} stands beyond what is received here: it was made anew, or somebody else receives through it, and then the server may remove WAL that is needed here; give this service a slot of its own with slot in [backup]",
                source.slot
            );
        }
        if let Err(error) = source.programs.run("pg_receivewal", &arguments) {
            return Err(self.why_not(source, start, to, error.into())?);
        }
        Ok(())
    }

    /// What was received before the server stopped to answer: up to an LSN that it had reported, at a time of its clock.
    pub(crate) fn left_behind(
        &self,
        programs: &Programs,
        (to, at): (Lsn, DateTime<Utc>),
        since: Since,
    ) -> Result<Received, BackupError> {
        self.live.take_over_all(&self.path)?;
        let mut range = self.check(to, Some(since.end))?;
        range.from = self.can_be_recovered(programs, range.from, to, since)?;
        Ok(Received { range, at })
    }

    /// Where `pg_receivewal` will go on: a segment that is partial is received again.
    fn next(&self) -> Result<Option<(u32, Lsn)>, BackupError> {
        let last = self.segments()?.pop();
        Ok(last.map(|s| (s.timeline, self.end_of(&s))))
    }

    /// Whether the server has removed what is to be received next. `None`: this role may not look, and the slot promises nothing.
    fn is_gone(
        &self,
        source: &mut Source<'_>,
        lsn: Lsn,
        slot: Slot,
        to: Lsn,
    ) -> Result<Option<bool>, BackupError> {
        // What is being written now is there, and what comes next need not be yet.
        if lsn >= self.floor(to) {
            return Ok(Some(false));
        }
        let per_id = (1_u64 << 32) / self.segment_bytes;
        let number = lsn.0 / self.segment_bytes;
        let name = format!("{:08X}{:08X}", number / per_id, number % per_id);
        // What is seen counts more than what was promised: a server forgets with a restart what it had removed.
        Ok(match source.has_segment(&name)? {
            Some(there) => Some(!there),
            None if slot.promises(lsn, self.segment_bytes) => Some(false),
            None => None,
        })
    }

    fn removed(&self, lsn: Lsn) -> BackupError {
        BackupError::Gap(format!(
            "the server has removed WAL that is not backed up, from {} on",
            self.floor(lsn)
        ))
    }

    /// After `pg_receivewal` has failed: whether the server cannot send what is missing, ever. Its words are not looked at.
    fn why_not(
        &self,
        source: &mut Source<'_>,
        start: Option<(u32, Lsn)>,
        to: Lsn,
        error: BackupError,
    ) -> Result<BackupError, BackupError> {
        let (BackupError::Postgres(PostgresError::Failed { .. }), Some((timeline, lsn))) =
            (&error, start)
        else {
            return Ok(error);
        };
        // The slot may have been given up meanwhile.
        let slot = match source.ensure_slot() {
            Err(gap @ BackupError::Gap(_)) => return Ok(gap),
            slot => slot?,
        };
        match source.past(timeline, lsn)? {
            Past::Unknown => return Ok(error),
            Past::Lacks(why) => {
                return Ok(BackupError::Gap(format!(
                    "the server's WAL does not continue where the received WAL ends: it was put back to an earlier state, or is a copy ({why})"
                )));
            }
            Past::Holds => {}
        }
        Ok(match self.is_gone(source, lsn, slot, to)? {
            Some(false) => error,
            Some(true) | None => self.removed(lsn),
        })
    }

    /// That all of it can be recovered from: what was written at `wal_level = minimal` cannot. Returns where what is to be stored
    /// begins: not with what lies behind such a gap and before the full backup, or it would seem to close it.
    fn can_be_recovered(
        &self,
        programs: &Programs,
        first: Lsn,
        to: Lsn,
        since: Since,
    ) -> Result<Lsn, BackupError> {
        let scratch = self.path.with_extension("read");
        let read = |from, to| {
            let (folder, size) = (&self.path, self.segment_bytes);
            parameters::changes(programs.folder(), folder, &scratch, size, (from, to))
        };
        let floor = self.floor(since.full_start);
        let mut from = first;
        if first < floor {
            let before = first.max(self.floor(since.before));
            let found = read(before, since.full_start)?;
            if found.unreadable.is_some() || found.all.iter().any(Change::is_minimal) {
                self.drop_before(floor)?;
                from = floor;
            }
        }
        // One segment earlier, so that it is seen whether what was received now fits to what was received before.
        let begin = Lsn(self.floor(since.end).0.saturating_sub(self.segment_bytes));
        let found = read(begin.max(since.full_start).max(first), to)?;
        if let Some(change) = found.all.iter().find(|c| c.is_minimal()) {
            return Err(BackupError::Gap(format!(
                "from {} on the server ran with wal_level = minimal, and what it wrote then cannot be recovered from its WAL",
                change.at
            )));
        }
        match found.unreadable {
            Some(said) => Err(BackupError::Gap(format!(
                "the received WAL cannot be read up to {to} ({said})"
            ))),
            None => Ok(from),
        }
    }

    /// That the segments follow each other, belong to this server, and connect to what is in the repository.
    fn check(&self, to: Lsn, continues: Option<Lsn>) -> Result<WalRange, BackupError> {
        let segments = self.segments()?;
        let Some(first) = segments.first() else {
            return Err(BackupError::Gap(format!(
                "nothing was received into {}",
                self.path.display()
            )));
        };
        let mut next = first.start;
        for segment in &segments {
            if segment.start > next {
                return Err(BackupError::Gap(format!(
                    "the WAL has a gap: {} is followed by {} in {}",
                    next,
                    segment.name,
                    self.path.display()
                )));
            }
            self.check_header(segment)?;
            next = Lsn(segment.start.0 + self.segment_bytes);
        }
        if next < to {
            return Err(BackupError::Gap(format!(
                "WAL was received up to {next} only, not to {to}"
            )));
        }
        if let Some(continues) = continues
            && self.floor(continues) < first.start
        {
            return Err(BackupError::Gap(format!(
                "the WAL is backed up to {continues}, and what was received begins at {}; {} was lost, or the slot was made anew",
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

    /// Where the segment with this LSN begins.
    fn floor(&self, lsn: Lsn) -> Lsn {
        Lsn(lsn.0 - lsn.0 % self.segment_bytes)
    }

    /// The first page says where a segment belongs (PostgreSQL's source, `access/xlog_internal.h`, `XLogLongPageHeaderData`).
    fn check_header(&self, segment: &Segment) -> Result<(), BackupError> {
        let path = self.path.join(segment.file());
        let mut header = [0_u8; 40];
        File::open(&path)
            .and_then(|mut f| f.read_exact(&mut header))
            .map_err(BackupError::disk("could not read", &path))?;
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
        Err(BackupError::Gap(format!(
            "{} is not the segment of this server that its name says (it begins at {}, of system {system_id})",
            path.display(),
            Lsn(begins)
        )))
    }

    /// Removes segments that lie wholly before an LSN, and are in the repository.
    pub(crate) fn drop_before(&self, lsn: Lsn) -> Result<(), BackupError> {
        let keep = self.floor(lsn);
        for segment in self.segments()?.iter().filter(|s| s.start < keep) {
            let path = self.path.join(segment.file());
            fs::remove_file(&path).map_err(BackupError::disk("could not remove", &path))?;
        }
        Ok(())
    }

    /// Before a full backup: the slot keeps the WAL from here on, and what was received continues without a gap, or is given up.
    pub(crate) fn prepare(
        &self,
        source: &mut Source<'_>,
        since: Option<Since>,
    ) -> Result<(), BackupError> {
        let kept = if self.segments()?.is_empty() {
            source.ensure_slot().map(drop)
        } else {
            self.receive(source, None, since, false).map(drop)
        };
        let Err(BackupError::Gap(why)) = kept else {
            return kept;
        };
        tracing::warn!("the WAL starts over: {why}");
        empty_folder(&self.path)?;
        // What a stream receives now is what will continue the new full backup.
        if let Some(_receiving) = self.live.try_lock()? {
            self.live.discard()?;
            source.drop_slot()?;
        }
        source.ensure_slot().map(drop)
    }
}

/// The segments in a folder, in the order of the WAL.
pub(super) fn segments_in(folder: &Path, segment_bytes: u64) -> Result<Vec<Segment>, BackupError> {
    let failed = BackupError::disk("could not read", folder);
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder).map_err(&failed)? {
        let name = entry.map_err(&failed)?.file_name();
        segments.extend(Segment::parse(&name.to_string_lossy(), segment_bytes));
    }
    segments.sort_by_key(|s| (s.start, s.timeline));
    Ok(segments)
}
