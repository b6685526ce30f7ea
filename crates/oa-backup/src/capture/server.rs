//! What the server is, and what it allows this role.

use std::collections::BTreeMap;
use std::time::Instant;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use oa_core::app::config::{BackupKind, Config, ConfigError};
use oa_core::pg::{self, Settings};
use postgres::Client;

use super::slot::Source;
use crate::PROGRAM;
use crate::error::BackupError;
use oa_repository::Programs;
use oa_repository::{Kind, Lsn, PostgresError};

/// Settings that recovery needs at least as large as they were (PostgreSQL 15, chapter 27.4.8).
const RECOVERY_SETTINGS: [&str; 5] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
];

/// The connection for backups: a role of its own, where one is configured.
pub(crate) fn settings(config: &Config) -> Result<Settings, ConfigError> {
    let mut settings = Settings::from_config(config, PROGRAM)?;
    if let Some(reference) = &config.backup_settings()?.database_url {
        settings.url = config.secret(reference, "database_url in [backup]")?;
    }
    Ok(settings)
}

/// A server that answers, and its programs.
pub(crate) struct Connected {
    pub(crate) client: Client,
    pub(crate) server: Server,
    pub(crate) programs: Programs,
}

impl Connected {
    /// Connects as the role for backups.
    pub(crate) fn open(config: &Config) -> Result<Self, BackupError> {
        let bin_dir = config.backup_settings()?.bin_dir.as_deref();
        let connection = settings(config)?;
        let mut client = pg::connect(&connection)?;
        let server = Server::ask(&mut client)?;
        let folder = Programs::find(bin_dir, server.major())?;
        let programs = Programs::new(folder, &connection, None)?;
        Ok(Self {
            client,
            server,
            programs,
        })
    }

    pub(crate) fn source<'a>(&'a mut self, slot: &'a str) -> Source<'a> {
        Source {
            client: &mut self.client,
            programs: &self.programs,
            server: &self.server,
            slot,
        }
    }
}

/// What is known of a server. Sizes are bytes.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Its clock, when it was asked.
    pub(crate) asked_at: DateTime<Utc>,
    asked: Instant,
    /// `server_version_num`.
    pub(crate) version: i32,
    pub(crate) system_id: String,
    pub(crate) timeline: u32,
    pub(crate) standby: bool,
    pub(crate) may_replicate: bool,
    pub(crate) role: String,
    pub(crate) database: String,
    /// All databases together.
    pub(crate) size_bytes: u64,
    pub(crate) database_bytes: u64,
    /// Size of a WAL segment.
    pub(crate) segment_bytes: u64,
    /// Tablespaces but the two of every cluster: number and place.
    pub(crate) tablespaces: BTreeMap<String, String>,
    /// Settings that recovery needs.
    pub(crate) settings: BTreeMap<String, String>,
    /// `wal_level`, `max_slot_wal_keep_size`, `wal_compression`, `max_replication_slots`, `data_checksums`, `block_size`.
    pub(crate) advice: BTreeMap<String, String>,
}

impl Server {
    /// Asks the server.
    pub(crate) fn ask(client: &mut Client) -> Result<Self, BackupError> {
        let failed = BackupError::query("could not ask the server what it is");
        let row = client
            .query_one(
                "SELECT current_setting('server_version_num')::int4, (SELECT system_identifier::text FROM pg_control_system()),
                        CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
                             ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int4 END,
                        pg_is_in_recovery(),
                        (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user), current_user::text,
                        current_database()::text,
                        (SELECT coalesce(sum(pg_database_size(oid)), 0)::int8 FROM pg_database WHERE has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'MEMBER')),
                        pg_database_size(current_database()),
                        (SELECT setting::int8 FROM pg_settings WHERE name = 'wal_segment_size'), clock_timestamp()",
                &[],
            )
            .map_err(&failed)?;
        let tablespaces = client
            .query(
                "SELECT oid::text, pg_tablespace_location(oid) FROM pg_tablespace WHERE pg_tablespace_location(oid) <> ''",
                &[],
            )
            .map_err(&failed)?;
        let mut named = |names: &[&str]| -> Result<BTreeMap<String, String>, BackupError> {
            let rows = client
                .query(
                    "SELECT name, setting || coalesce(CASE unit WHEN 'MB' THEN 'MB' END, '') FROM pg_settings WHERE name = ANY($1)",
                    &[&names],
                )
                .map_err(&failed)?;
            Ok(rows.iter().map(|r| (r.get(0), r.get(1))).collect())
        };
        let settings = named(&RECOVERY_SETTINGS)?;
        let advice = named(&[
            "wal_level",
            "max_slot_wal_keep_size",
            "wal_compression",
            "max_replication_slots",
            "data_checksums",
            "block_size",
        ])?;
        Ok(Self {
            asked_at: row.get(10),
            asked: Instant::now(),
            version: row.get(0),
            system_id: row.get(1),
            timeline: row.get::<_, i32>(2).cast_unsigned(),
            standby: row.get(3),
            may_replicate: row.get(4),
            role: row.get(5),
            database: row.get(6),
            size_bytes: row.get::<_, i64>(7).cast_unsigned(),
            database_bytes: row.get::<_, i64>(8).cast_unsigned(),
            segment_bytes: row.get::<_, i64>(9).cast_unsigned(),
            tablespaces: tablespaces.iter().map(|r| (r.get(0), r.get(1))).collect(),
            settings,
            advice,
        })
    }

    /// Why the server does not let this role in for replication, although it may: `pg_hba.conf` has lines of its own for that. A server
    /// that was lost meanwhile refuses nothing: it does not answer in the session that is open either.
    fn refusal(
        &self,
        programs: &Programs,
        client: &mut Client,
    ) -> Result<Option<String>, BackupError> {
        let probe = [
            "--no-psqlrc",
            "--no-password",
            "--command=IDENTIFY_SYSTEM",
            "replication=true",
        ];
        let Err(PostgresError::Failed { said, .. }) =
            programs.run("psql", &probe.map(str::to_owned))
        else {
            return Ok(None);
        };
        client
            .batch_execute("SELECT 1")
            .map_err(BackupError::query("the server was lost"))?;
        Ok(Some(format!(
            "the server lets {role} in, but not for replication ({said}); add a line \"host replication {role} ADDRESS scram-sha-256\" to its pg_hba.conf and reload it, see that max_wal_senders is not used up, or set kind = \"logical\"",
            role = pg::quote_ident(&self.role)
        )))
    }

    /// Its clock now, as far as that goes evenly; also when it does not answer any more.
    pub(crate) fn clock(&self) -> DateTime<Utc> {
        let since = TimeDelta::from_std(self.asked.elapsed()).unwrap_or_default();
        let now = self.asked_at.checked_add_signed(since);
        now.unwrap_or(self.asked_at).trunc_subsecs(6)
    }

    pub(crate) fn major(&self) -> i32 {
        self.version / 10_000
    }

    /// How this server is backed up; with `auto` also what keeps it from being backed up physically.
    pub(crate) fn kind(
        &self,
        requested: BackupKind,
        programs: &Programs,
        client: &mut Client,
    ) -> Result<(Kind, Option<String>), BackupError> {
        let wal_level = self.advice.get("wal_level").map_or("", String::as_str);
        let obstacle = if !self.may_replicate {
            Some(format!(
                "role {role} may not replicate; as a superuser: ALTER ROLE {role} REPLICATION; and let it in with a line \"host replication {role} ADDRESS scram-sha-256\" in pg_hba.conf. Or set kind = \"logical\"",
                role = pg::quote_ident(&self.role)
            ))
        } else if wal_level == "minimal" {
            Some("the server has wal_level = minimal; set it to replica and restart it, or set kind = \"logical\"".to_owned())
        } else if requested == BackupKind::Logical {
            None
        } else {
            self.refusal(programs, client)?
        };
        match (requested, obstacle) {
            (BackupKind::Logical, _) => Ok((Kind::Logical, None)),
            (BackupKind::Auto | BackupKind::Physical, None) => Ok((Kind::Physical, None)),
            (BackupKind::Auto, Some(obstacle)) => Ok((Kind::Logical, Some(obstacle))),
            (BackupKind::Physical, Some(obstacle)) => Err(BackupError::NotAllowed(obstacle)),
        }
    }
}

/// The time whose state a server has, as SQL: its clock; of a standby that lags or is cut off, when what it has replayed last was
/// done.
pub(crate) const STATE_TIME: &str = "CASE WHEN NOT pg_is_in_recovery()
        OR EXISTS (SELECT FROM pg_stat_wal_receiver) AND pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()
      THEN clock_timestamp()
      ELSE least(clock_timestamp(), coalesce(pg_last_xact_replay_timestamp(), (SELECT checkpoint_time FROM pg_control_checkpoint()))) END";

/// Where the WAL is now, as far as it is on the server's disk, and the time that it has come to.
pub(crate) fn flushed(
    client: &mut Client,
    standby: bool,
) -> Result<(Lsn, DateTime<Utc>), BackupError> {
    let function = if standby {
        "pg_last_wal_replay_lsn()"
    } else {
        "pg_current_wal_flush_lsn()"
    };
    let row = client
        .query_one(
            &format!("SELECT ({function} - '0/0'::pg_lsn)::int8, {STATE_TIME}"),
            &[],
        )
        .map_err(BackupError::query("could not ask for the end of the WAL"))?;
    let lsn: i64 = row.get(0);
    Ok((Lsn(lsn.cast_unsigned()), row.get(1)))
}
