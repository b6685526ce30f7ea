//! Which slot this service receives through. Two who share one move it on for each other, and the server removes what one of them still
//! needs; so a service whose server's `oa_backup` is somebody else's has a slot with a name of its own.
//!
//! What was made here under a name, or chosen for good, is noted in the staging folder, durably, once the slot is made: a name under which
//! nothing was made may be another service's tomorrow. Killed in between: like an installation that has used `oa_backup` since before it was
//! noted, it keeps that, unless somebody else uses it, or has moved it on to where nothing was received here.

use std::fs;
use std::path::PathBuf;

use oa_core::app::config::Backup as Settings;
use oa_core::base::state_dir::{StateDir, write_durably};
use oa_core::pg;
use oa_repository::{Backup, Kind, Lsn, Repository};
use postgres::Client;
use postgres::error::SqlState;

use super::server::Server;
use super::wal::WalFolder;
use crate::chain;
use crate::error::BackupError;

/// Unless somebody else has it, or the configuration has another one.
const USUAL: &str = "oa_backup";

/// The slot that has been chosen for a server.
pub(crate) fn known(settings: &Settings, staging: &StateDir, server: &Server) -> String {
    chosen(settings, staging, server).unwrap_or_else(|| USUAL.to_owned())
}

/// The one that has been chosen for good.
pub(crate) fn chosen(settings: &Settings, staging: &StateDir, server: &Server) -> Option<String> {
    let noted = || fs::read_to_string(note(staging, server)).ok();
    settings.slot.clone().or_else(noted)
}

fn note(staging: &StateDir, server: &Server) -> PathBuf {
    staging.path().join(format!("slot-{}", server.system_id))
}

/// Chooses one where none is chosen for good. Whoever does it holds the lock for WAL.
#[derive(Debug)]
pub(crate) struct SlotChoice<'a> {
    pub(crate) staging: &'a StateDir,
    pub(crate) server: &'a Server,
    pub(crate) repository: &'a Repository,
    /// What is listed in it.
    pub(crate) backups: &'a [Backup],
    /// The address for backups.
    pub(crate) address: &'a pg::Settings,
}

impl SlotChoice<'_> {
    /// The name, of which what is new is noted.
    pub(crate) fn make(
        &self,
        settings: &Settings,
        client: &mut Client,
    ) -> Result<String, BackupError> {
        if let Some(slot) = chosen(settings, self.staging, self.server) {
            return Ok(slot);
        }
        let own = self.own_name();
        let rows = client
            .query(
                "SELECT slot_name::text, (restart_lsn - '0/0'::pg_lsn)::int8, active, slot_type = 'physical' FROM pg_replication_slots WHERE slot_name IN ($1, $2)",
                &[&USUAL, &own],
            )
            .map_err(BackupError::query("could not look for replication slots"))?;
        let there = |name: &str| rows.iter().find(|row| row.get::<_, &str>(0) == name);
        // Another machine of this service has chosen before.
        if there(&own).is_some() {
            return self.noted(own);
        }
        let Some(usual) = there(USUAL) else {
            let made = client.execute(
                "SELECT pg_create_physical_replication_slot($1, true)",
                &[&USUAL],
            );
            oa_core::base::failpoint::hit("backup.slot_made");
            return match made {
                Ok(_) => self.noted(USUAL.to_owned()),
                Err(e) if e.code() == Some(&SqlState::DUPLICATE_OBJECT) => self.noted(own),
                // What else keeps it from being made is said when it is needed.
                _ => Ok(USUAL.to_owned()),
            };
        };
        let stands_at = usual.get::<_, Option<i64>>(1);
        let stands_at = stands_at.map(|lsn| Lsn(lsn.cast_unsigned()));
        // A logical one is somebody else's in any case.
        if usual.get(3) && self.is_ours(stands_at, usual.get(2), client)? {
            return Ok(USUAL.to_owned());
        }
        tracing::warn!(
            "replication slot {USUAL} of this server is used by somebody else, so WAL is received through slot {own}. If nobody else backs this server up, drop the other one, or it holds WAL for ever: SELECT pg_drop_replication_slot('{USUAL}')"
        );
        self.noted(own)
    }

    fn noted(&self, name: String) -> Result<String, BackupError> {
        let path = note(self.staging, self.server);
        write_durably(&path, name.as_bytes())
            .map_err(BackupError::disk("could not write", &path))?;
        Ok(name)
    }

    /// Of this repository and database, so that whoever takes over from this machine comes to the same.
    fn own_name(&self) -> String {
        let of = format!("{}/{}", self.repository.id(), self.server.database);
        let sum = of.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{USUAL}_{:08x}", sum & 0xffff_ffff)
    }

    /// Whether a slot that was there before it was noted is this service's.
    fn is_ours(
        &self,
        stands_at: Option<Lsn>,
        active: bool,
        client: &mut Client,
    ) -> Result<bool, BackupError> {
        let wal = WalFolder::open(self.staging, self.server)?;
        // Whatever is received now on this machine is received through it.
        let Some(_idle) = wal.live().try_lock()? else {
            return Ok(true);
        };
        let mine = || {
            let mine = self.backups.iter();
            mine.filter(|b| b.meta.kind == Kind::Physical && chain::is_of(self.server, b))
        };
        let end = |b: &Backup| b.meta.wal.as_ref().map(|w| w.to).or(b.meta.end_lsn);
        let stored = mine().filter_map(end).max();
        let segment = self.server.segment_bytes;
        let may_be = match wal.received()? {
            Some(received) => {
                let end = received.max(stored.unwrap_or(Lsn(0)));
                stands_at.is_none_or(|lsn| lsn.0 - lsn.0 % segment <= end.0)
            }
            // The staging folder was lost, or another machine has made the backups.
            None => stored.is_some(),
        };
        // Without anybody who can have moved it, it was made by hand, or by whoever manages the cluster.
        Ok(may_be || !active && !self.is_used_elsewhere(client))
    }

    /// Whether a run log in this cluster has physical backups of it that are not in this repository, or another database's has any.
    fn is_used_elsewhere(&self, client: &mut Client) -> bool {
        let location = self.repository.location().shown();
        if has_physical(client, &self.server.system_id, location.as_ref()) {
            return true;
        }
        let databases = client.query(
            "SELECT datname::text FROM pg_database WHERE datallowconn AND NOT datistemplate AND datname <> current_database() AND has_database_privilege(oid, 'CONNECT')",
            &[],
        );
        databases.unwrap_or_default().iter().any(|row| {
            let there = pg::libpq::of_database(self.address, row.get(0));
            let connected = there.and_then(|settings| pg::connect(&settings));
            connected.is_ok_and(|mut other| has_physical(&mut other, &self.server.system_id, ""))
        })
    }
}

/// Whether a database's run log has physical backups of a cluster in another repository than this, and no copies of this one's. What cannot
/// be read says nothing.
fn has_physical(client: &mut Client, system_id: &str, but_for: &str) -> bool {
    let found = client.query_one(
        "SELECT EXISTS (SELECT FROM oa.backups b WHERE b.system_id = $1 AND b.repository <> $2 AND b.kind = 'physical' AND b.removed_at IS NULL AND b.missing_since IS NULL
           AND NOT EXISTS (SELECT FROM oa.backups o WHERE o.repository = $2 AND o.run_id = b.run_id))",
        &[&system_id, &but_for],
    );
    found.is_ok_and(|row| row.get(0))
}
