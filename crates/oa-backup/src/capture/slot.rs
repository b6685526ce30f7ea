//! The replication slot, and whether the server can still send what is needed of its WAL. All of it is asked of the catalogue and
//! the replication protocol: what a server says in words, it says in the language of its `lc_messages`.

use oa_core::pg;
use postgres::Client;
use postgres::error::SqlState;

use super::server::Server;
use crate::error::BackupError;
use oa_repository::Lsn;
use oa_repository::Programs;

/// Where a history has left a timeline.
enum Left {
    /// The server lets nobody ask.
    Unknown,
    /// It is on it.
    Not,
    /// The server's timeline, and where it came from the other one, if it did.
    At(u32, Option<Lsn>),
}

/// Whether something is in a server's past.
#[derive(Debug)]
pub(crate) enum Past {
    /// It is.
    Holds,
    /// It is not, and why.
    Lacks(String),
    /// The server lets nobody in for replication now.
    Unknown,
}

/// The state of the slot.
///
/// `pg_receivewal` sets a slot to whatever it begins at, also back to WAL that is gone, and the server then shows it as `reserved`
/// (`GetWALAvailability` in PostgreSQL's `xlog.c` compares it with the oldest slot, which is itself). A slot is therefore only used to
/// receive what it has [reached](Self::reaches), so that it never moves back and its promise stays true.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    /// The LSN that it keeps WAL from.
    restart: Option<Lsn>,
    /// The server keeps that WAL, and has not begun to remove it.
    reserved: bool,
}

impl Slot {
    /// Whether the slot stands at or before an LSN, which is where a segment begins.
    pub(crate) fn reaches(self, lsn: Lsn, segment_bytes: u64) -> bool {
        self.restart
            .is_some_and(|restart| restart.0 - restart.0 % segment_bytes <= lsn.0)
    }

    /// Whether the server promises to have the WAL from an LSN on, which is where a segment begins.
    pub(crate) fn promises(self, lsn: Lsn, segment_bytes: u64) -> bool {
        self.reserved && self.reaches(lsn, segment_bytes)
    }
}

/// What has been received through the slot.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) received: Option<Lsn>,
    pub(crate) user: Option<SlotUser>,
}

/// Who receives through the slot now.
#[derive(Debug)]
pub(crate) struct SlotUser {
    pid: i32,
    application: Option<String>,
    address: Option<String>,
}

impl SlotUser {
    pub(crate) fn is(&self, application: &str) -> bool {
        self.application.as_deref() == Some(application)
    }
}

impl std::fmt::Display for SlotUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let application = self.application.as_deref().unwrap_or("another role");
        write!(f, "process {} of the server ({application}", self.pid)?;
        if let Some(address) = &self.address {
            write!(f, " at {address}")?;
        }
        f.write_str(")")
    }
}

/// Where the WAL comes from.
pub(crate) struct Source<'a> {
    pub(crate) client: &'a mut Client,
    pub(crate) programs: &'a Programs,
    pub(crate) server: &'a Server,
    pub(crate) slot: &'a str,
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}

impl Source<'_> {
    /// Makes the slot, if there is none, and makes one anew that reserves nothing. It keeps the WAL from now on.
    ///
    /// [`BackupError::Gap`] when the server has given the slot up.
    pub(crate) fn ensure_slot(&mut self) -> Result<Slot, BackupError> {
        let slot = self.slot;
        let found = self
            .client
            .query_opt(
                "SELECT slot_type = 'physical', coalesce(wal_status, 'reserved') = 'lost', coalesce(wal_status IN ('reserved', 'extended'), false), (restart_lsn - '0/0'::pg_lsn)::int8, active FROM pg_replication_slots WHERE slot_name = $1",
                &[&slot],
            )
            .map_err(BackupError::query("could not look for the replication slot"))?;
        let Some(row) = found else {
            return self.make_slot();
        };
        if !row.get::<_, bool>(0) {
            return Err(BackupError::NotAllowed(format!(
                "replication slot {slot} is a logical one of somebody else; set slot in [backup] to another name"
            )));
        }
        if row.get::<_, bool>(1) {
            return Err(BackupError::Gap(format!(
                "the server has given up slot {slot}, because it held more WAL than max_slot_wal_keep_size allows"
            )));
        }
        let restart = row.get::<_, Option<i64>>(3);
        if restart.is_none() && !row.get::<_, bool>(4) {
            self.drop_slot()?;
            return self.make_slot();
        }
        Ok(Slot {
            restart: restart.map(|lsn| Lsn(lsn.cast_unsigned())),
            reserved: row.get(2),
        })
    }

    /// Why the slot keeps nothing for the next backup: somebody has dropped it, or the server has given it up.
    pub(crate) fn lost(&mut self) -> Result<Option<String>, BackupError> {
        let slot = self.slot;
        let row = self
            .client
            .query_opt(
                "SELECT coalesce(wal_status, 'reserved') = 'lost' FROM pg_replication_slots WHERE slot_name = $1",
                &[&slot],
            )
            .map_err(BackupError::query("could not look for the replication slot"))?;
        Ok(match row {
            None => Some(format!(
                "replication slot {slot} is not on the server: somebody has dropped it, and the server may remove WAL before it is backed up"
            )),
            Some(row) if row.get(0) => Some(format!(
                "the server has given up slot {slot}, because it held more WAL than max_slot_wal_keep_size allows"
            )),
            Some(_) => None,
        })
    }

    fn make_slot(&mut self) -> Result<Slot, BackupError> {
        let slot = self.slot;
        let made = self.client.query_one(
            "WITH made AS MATERIALIZED (SELECT lsn FROM pg_create_physical_replication_slot($1, true)) SELECT (lsn - '0/0'::pg_lsn)::int8 FROM made",
            &[&slot],
        );
        let error = match made {
            Ok(row) => {
                let restart = row.get::<_, Option<i64>>(0);
                return Ok(Slot {
                    restart: restart.map(|lsn| Lsn(lsn.cast_unsigned())),
                    reserved: true,
                });
            }
            Err(e) => e,
        };
        let said = pg::describe(&error);
        let remedy = match error.code() {
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => format!(
                "as a superuser: SELECT pg_create_physical_replication_slot('{slot}', true); or ALTER ROLE {} REPLICATION",
                pg::quote_ident(&self.server.role)
            ),
            Some(code) if *code == SqlState::CONFIGURATION_LIMIT_EXCEEDED => {
                "all slots are used: drop one that nobody needs (see pg_replication_slots), or raise max_replication_slots and restart the server".to_owned()
            }
            _ => return Err(BackupError::query("could not make the replication slot")(error)),
        };
        Err(BackupError::NotAllowed(format!(
            "could not make replication slot {slot}: {said}; {remedy}"
        )))
    }

    /// Up to where whoever uses the slot has the WAL on its disk, and who that is.
    pub(crate) fn progress(&mut self) -> Result<Progress, BackupError> {
        let row = self
            .client
            .query_opt(
                "SELECT (s.restart_lsn - '0/0'::pg_lsn)::int8, s.active_pid, a.application_name, host(a.client_addr)
                 FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = $1",
                &[&self.slot],
            )
            .map_err(BackupError::query("could not look for the replication slot"))?;
        Ok(row.map_or_else(Progress::default, |row| Progress {
            received: row
                .get::<_, Option<i64>>(0)
                .map(|lsn| Lsn(lsn.cast_unsigned())),
            user: row.get::<_, Option<i32>>(1).map(|pid| SlotUser {
                pid,
                application: row.get(2),
                address: row.get(3),
            }),
        }))
    }

    /// Drops the slot, unless somebody uses it.
    pub(crate) fn drop_slot(&mut self) -> Result<(), BackupError> {
        self.client
            .execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active",
                &[&self.slot],
            )
            .map_err(BackupError::query("could not drop the replication slot"))?;
        Ok(())
    }

    /// The end of all WAL that the server has on its disk, of a standby also what it has not replayed yet.
    pub(crate) fn end(&mut self) -> Result<Lsn, BackupError> {
        let end = if self.server.standby {
            "greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())"
        } else {
            "pg_current_wal_flush_lsn()"
        };
        let row = self
            .client
            .query_one(&format!("SELECT ({end} - '0/0'::pg_lsn)::int8"), &[])
            .map_err(BackupError::query("could not ask for the end of the WAL"))?;
        Ok(Lsn(row.get::<_, i64>(0).cast_unsigned()))
    }

    /// Whether the server has the segment with this number (the last 16 digits of its name), on whatever timeline. `None`: this role
    /// may not look.
    pub(crate) fn has_segment(&mut self, number: &str) -> Result<Option<bool>, BackupError> {
        let failed = BackupError::query("could not look for a segment of the WAL");
        let may: bool = self
            .client
            .query_one(
                "SELECT has_function_privilege('pg_catalog.pg_ls_waldir()', 'EXECUTE')",
                &[],
            )
            .map_err(&failed)?
            .get(0);
        if !may {
            return Ok(None);
        }
        let row = self
            .client
            .query_one(
                "SELECT EXISTS (SELECT FROM pg_ls_waldir() WHERE right(name, 16) = $1 AND length(name) = 24)",
                &[&number],
            )
            .map_err(&failed)?;
        Ok(Some(row.get(0)))
    }

    /// Whether an LSN on a timeline is in the server's past.
    pub(crate) fn past(&mut self, timeline: u32, lsn: Lsn) -> Result<Past, BackupError> {
        let (now, ends) = match self.left(timeline)? {
            Left::Unknown => return Ok(Past::Unknown),
            Left::Not => return Ok(Past::Holds),
            Left::At(now, ends) => (now, ends),
        };
        let elsewhere =
            format!("what was received is on timeline {timeline}, and the server is on {now}");
        if now < timeline {
            return Ok(Past::Lacks(elsewhere));
        }
        Ok(match ends {
            Some(end) if lsn <= end => Past::Holds,
            Some(end) => Past::Lacks(format!(
                "{elsewhere}, which has left it at {end}, before {lsn}"
            )),
            None => Past::Lacks(format!("{elsewhere}, which did not come from it")),
        })
    }

    /// Up to where an LSN on a timeline, and all WAL before it, is in the server's past. `None`: not at all.
    pub(crate) fn shares(&mut self, timeline: u32, lsn: Lsn) -> Result<Option<Lsn>, BackupError> {
        Ok(match self.left(timeline)? {
            Left::Unknown | Left::Not => Some(lsn),
            Left::At(_, ends) => ends.map(|end| end.min(lsn)),
        })
    }

    /// Where the server's history has left a timeline.
    fn left(&mut self, timeline: u32) -> Result<Left, BackupError> {
        let Some(text) = self.replication("IDENTIFY_SYSTEM")? else {
            return Ok(Left::Unknown);
        };
        // System, timeline, end of the WAL, database.
        let Some(now) = text.split('|').nth(1).and_then(|t| t.parse::<u32>().ok()) else {
            return Ok(Left::Unknown);
        };
        if now == timeline {
            return Ok(Left::Not);
        }
        if now < timeline {
            return Ok(Left::At(now, None));
        }
        let Some(history) = self.replication(&format!("TIMELINE_HISTORY {now}"))? else {
            return Ok(Left::Unknown);
        };
        let ends = history.lines().find_map(|line| {
            // The first line begins with the file's name.
            let line = line.rsplit_once('|').map_or(line, |(_, line)| line);
            let mut words = line.split_whitespace();
            let parent: u32 = words.next()?.parse().ok()?;
            let end: Lsn = words.next()?.parse().ok()?;
            (parent == timeline).then_some(end)
        });
        Ok(Left::At(now, ends))
    }

    /// What the server answers to a command of the replication protocol; `None` when it refuses, or lets nobody in.
    fn replication(&self, command: &str) -> Result<Option<String>, BackupError> {
        let arguments = [
            "--no-psqlrc",
            "--no-password",
            "--no-align",
            "--tuples-only",
            &format!("--command={command}"),
            "replication=true",
        ]
        .map(str::to_owned);
        let finished = self.programs.finish("psql", &arguments)?;
        let text = String::from_utf8_lossy(&finished.stdout).into_owned();
        Ok(finished.status.success().then_some(text))
    }
}
