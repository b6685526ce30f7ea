//! The live server: what is there, what may be done, and what is brought back into it.

pub(crate) mod event_triggers;
pub(crate) mod large_objects;
pub(crate) mod roles;
pub(crate) mod rows;
pub(crate) mod runs;
pub(crate) mod shape;
pub(crate) mod tables;

use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use oa_core::app::config::Config;
use oa_core::pg::{self, Settings};
use oa_repository::Programs;
use postgres::Client;

use crate::disk::DiskNeed;
use crate::plan::{RestorePlan, Strategy};
use crate::recover::PrivateServer;
use crate::{PROGRAM, RestoreError};

/// When the live server's disk has too little.
pub(crate) const DISK_REMEDY: &str = "free space on the live server's disk and run the same command again; what was live is as it was";

pub(crate) struct LiveServer {
    pub(crate) client: Client,
    pub(crate) database: String,
    database_oid: u32,
    pub(crate) role: String,
    pub(crate) superuser: bool,
    pub(crate) makes_databases: bool,
    /// The cluster's system identifier, where this role may see it.
    pub(crate) system_id: Option<String>,
    /// Its data directory, where that is on this machine and this role may see it.
    data: Option<PathBuf>,
    /// Where names without a schema are looked for, as SQL.
    pub(crate) search_path: String,
    settings: Settings,
}

impl std::fmt::Debug for LiveServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// Whether the server that was `started` at that second, on that port, runs in this machine's folder: through a tunnel another
/// machine's server looks as near, and its folder may exist here too.
fn runs_in(folder: &Path, started: &str) -> bool {
    let Ok(text) = fs::read_to_string(folder.join("postmaster.pid")) else {
        return false;
    };
    let mut lines = text.lines().skip(2);
    let (at, port) = (lines.next(), lines.next());
    let Some((expected_at, expected_port)) = started.split_once(' ') else {
        return false;
    };
    let seconds = |text: Option<&str>| text.and_then(|t| t.trim().parse::<i64>().ok());
    // It notes its start shortly before it counts from it.
    let near = seconds(at).zip(seconds(Some(expected_at)));
    near.is_some_and(|(a, b)| a.abs_diff(b) <= 5) && port.map(str::trim) == Some(expected_port)
}

impl LiveServer {
    /// The database that is meant: a dump holds one; of a cluster it is the one that is connected to, or, where the live server is
    /// another cluster, the one that was backed up.
    pub(crate) fn database_in(&self, plan: &RestorePlan) -> String {
        let meta = &plan.backup().meta;
        let same_cluster = self
            .system_id
            .as_ref()
            .is_none_or(|id| *id == meta.system_id);
        match &plan.strategy {
            Strategy::Physical(_) if same_cluster => self.database.clone(),
            _ => meta.database.clone(),
        }
    }

    /// The same by the name that it had then: it may have been renamed since.
    pub(crate) fn database_then(
        &self,
        private: &PrivateServer,
        plan: &RestorePlan,
    ) -> Result<String, RestoreError> {
        let name = self.database_in(plan);
        let same_cluster = self.system_id.as_ref() == Some(&plan.backup().meta.system_id);
        if !same_cluster || !matches!(plan.strategy, Strategy::Physical(_)) {
            return Ok(name);
        }
        let found = private
            .server
            .anywhere()?
            .query_opt(
                "SELECT datname::text FROM pg_database WHERE datname = $1::text OR oid = $2 ORDER BY datname = $1::text DESC LIMIT 1",
                &[&name, &self.database_oid],
            )
            .map_err(RestoreError::query("could not look for the database in the restored cluster"))
            .map_err(RestoreError::in_private)?;
        let then = found.map_or_else(|| name.clone(), |row| row.get(0));
        if then != name {
            tracing::warn!("database {name} was called {then} then");
        }
        Ok(then)
    }

    /// The server's clock.
    pub(crate) fn now(&mut self) -> Result<DateTime<Utc>, RestoreError> {
        let asked = self.client.query_one("SELECT clock_timestamp()", &[]);
        let row = asked.map_err(RestoreError::query("could not ask for the server's time"))?;
        Ok(row.get(0))
    }

    /// Connects as the configured role.
    pub(crate) fn connect(config: &Config) -> Result<Self, RestoreError> {
        let settings = Settings::from_config(config, PROGRAM)?;
        let mut client = pg::connect(&settings)?;
        let failed = RestoreError::query("could not set up the session");
        client
            // Loading and comparing take as long as they take; the copy of a table is looked at in between.
            .batch_execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
            .map_err(&failed)?;
        let row = client
            .query_one(
                "SELECT current_database()::text, rolsuper, rolname::text, rolcreatedb OR rolsuper, inet_server_addr() IS NULL OR inet_server_addr() = inet_client_addr(),
                        (SELECT string_agg(quote_ident(s), ', ') FROM unnest(current_schemas(false)) s),
                        (SELECT oid FROM pg_database WHERE datname = current_database()) FROM pg_roles WHERE rolname = current_user",
                &[],
            )
            .map_err(&failed)?;
        let mut ask = |sql: &str| -> Option<String> {
            let row = client.query_one(sql, &[]).ok()?;
            row.get(0)
        };
        let system_id = ask("SELECT system_identifier::text FROM pg_control_system()");
        let here: bool = row.get(4);
        let data = here.then(|| ask("SHOW data_directory")).flatten();
        let started = ask(
            "SELECT extract(epoch FROM pg_postmaster_start_time())::int8::text || ' ' || current_setting('port')",
        );
        Ok(Self {
            client,
            database: row.get(0),
            database_oid: row.get(6),
            role: row.get(2),
            superuser: row.get(1),
            makes_databases: row.get(3),
            system_id,
            data: data
                .map(PathBuf::from)
                .filter(|folder| started.is_some_and(|s| runs_in(folder, &s))),
            search_path: row
                .get::<_, Option<String>>(5)
                .unwrap_or_else(|| "public".to_owned()),
            settings,
        })
    }

    /// What loading so many bytes takes of the live server's disk, where that is this machine's: they are written to the WAL too, and
    /// a slot may keep that.
    pub(crate) fn need(&self, bytes: u64) -> Option<DiskNeed> {
        self.data.as_ref().map(|folder| DiskNeed {
            folder: folder.clone(),
            bytes: 2 * bytes,
            remedy: DISK_REMEDY,
        })
    }

    /// PostgreSQL's programs of one version, connecting as this session does.
    pub(crate) fn programs(
        &self,
        folder: &Path,
        database: Option<&str>,
    ) -> Result<Programs, RestoreError> {
        let database = database.unwrap_or(&self.database);
        Ok(Programs::new(
            folder.to_owned(),
            &self.settings,
            Some(database),
        )?)
    }

    /// Whether it has all tablespaces of another server, by name.
    pub(crate) fn has_tablespaces_of(&mut self, other: &mut Client) -> Result<bool, RestoreError> {
        let names = |client: &mut Client| -> Result<Vec<String>, RestoreError> {
            let rows = client
                .query("SELECT spcname::text FROM pg_tablespace", &[])
                .map_err(RestoreError::query("could not look for tablespaces"))?;
            Ok(rows.iter().map(|r| r.get(0)).collect())
        };
        let theirs = names(other).map_err(RestoreError::in_private)?;
        let mine = names(&mut self.client)?;
        Ok(theirs.iter().all(|name| mine.contains(name)))
    }

    /// Another session, in another database.
    pub(crate) fn connect_to(&self, database: &str) -> Result<Client, RestoreError> {
        let settings = pg::libpq::of_database(&self.settings, database)?;
        let mut client = pg::connect(&settings)?;
        client
            .batch_execute("SET statement_timeout = 0")
            .map_err(RestoreError::query("could not set up the session"))?;
        Ok(client)
    }
}
