//! A private server: on a socket that only its account reaches, and gone with this process.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Utc};
use oa_core::base::secrets::Secret;
use oa_core::base::supervise::{Group, StopSignal};
use oa_core::pg::{Settings, describe};
use oa_repository::Lsn;
use oa_repository::Programs;
use postgres::error::SqlState;
use postgres::{Client, NoTls};
use rustix::process::{Signal, kill_process_group};

use super::account::Account;
use super::settings::{CONFIG, HBA, IDENT};
use crate::{PROGRAM, RestoreError};

/// Whatever the restored roles and databases have set for their sessions.
const OPTIONS: &str = "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 -c default_transaction_read_only=off";
/// How long a shutdown with its checkpoint may take.
const SHUTDOWN: Duration = Duration::from_secs(3600);

/// A running private server, as superuser.
#[derive(Debug)]
pub(crate) struct Server {
    group: Group,
    socket: PathBuf,
    log: PathBuf,
    programs: PathBuf,
    superuser: String,
    /// A database that lets it in.
    entry: &'static str,
}

#[derive(Debug)]
pub(super) enum StartFailure {
    /// It has ended by itself.
    Ended(RestoreError),
    Failed(RestoreError),
}

impl Server {
    /// Starts it and waits until it has recovered, for as long as that takes. `users`: whom it may know.
    pub(super) fn start(
        account: &Account,
        programs: &Path,
        data: &Path,
        socket: &Path,
        log: &Path,
        users: &[String],
    ) -> Result<Self, StartFailure> {
        let failed = StartFailure::Failed;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            // Whoever may enter the folder may read it, whatever the umask, and nobody else writes.
            .mode(0o644)
            .open(log)
            .map_err(RestoreError::disk("could not open", log))
            .map_err(failed)?;
        let begin = fs::metadata(log).map_or(0, |m| m.len());
        let data_name = account.name_of(data);
        let held = File::open(data)
            .map_err(RestoreError::disk("could not open", data))
            .map_err(failed)?;
        let mut command = account.command(&programs.join("postgres"));
        command.current_dir("/").arg("-D").arg(data_name);
        // The server would take relative paths for ones from its first folder.
        for (name, file) in [
            ("config_file", CONFIG),
            ("hba_file", HBA),
            ("ident_file", IDENT),
        ] {
            let path = data_name.join(file);
            command.arg("-c").arg(format!("{name}={}", path.display()));
        }
        let group = Group::start_with(&mut command, Stdio::from(held), Stdio::from(file))
            .map_err(RestoreError::disk(
                "could not start",
                &programs.join("postgres"),
            ))
            .map_err(failed)?;
        let mut server = Self {
            group,
            socket: socket.to_owned(),
            log: log.to_owned(),
            programs: programs.to_owned(),
            superuser: String::new(),
            entry: "",
        };
        let mut pause = Duration::from_millis(5);
        loop {
            if StopSignal.requested() {
                return Err(StartFailure::Failed(RestoreError::Stopped));
            }
            let ended = server.group.ended().ok().flatten();
            match server.find_superuser(users) {
                Ok(true) => return Ok(server),
                Ok(false) => {}
                Err(e) => return Err(StartFailure::Failed(e)),
            }
            if ended.is_some() {
                return Err(StartFailure::Ended(
                    server.failed("the private server did not come up", begin),
                ));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// An error with the end of its log file.
    fn failed(&self, doing: &'static str, begin: u64) -> RestoreError {
        let log = self.said(begin);
        let said = worst(&log);
        if log.lines().any(is_disk_full) {
            return RestoreError::DiskFull(format!("{doing}: {said}"));
        }
        RestoreError::Server { doing, said }
    }

    fn said(&self, begin: u64) -> String {
        // Only for an error's text, which says what is wrong without it too.
        let bytes = fs::read(&self.log).unwrap_or_default();
        let from = usize::try_from(begin).unwrap_or(0).min(bytes.len());
        String::from_utf8_lossy(&bytes[from..]).into_owned()
    }

    /// Any role that may log in can say who is superuser; everybody is trusted here. `false`: not up yet.
    fn find_superuser(&mut self, users: &[String]) -> Result<bool, RestoreError> {
        let ways = |user| ["template1", "postgres"].map(|entry| (user, entry));
        for (user, entry) in users.iter().flat_map(ways) {
            match self.client_as(user, entry) {
                Ok(mut client) => {
                    let row = client
                        .query_opt(
                            "SELECT rolname::text FROM pg_roles WHERE rolsuper AND rolcanlogin ORDER BY rolname <> current_user, oid LIMIT 1",
                            &[],
                        )
                        .map_err(RestoreError::query("could not ask the private server for its roles"))?;
                    let Some(row) = row else {
                        return Err(RestoreError::Server {
                            doing: "could not use the restored cluster",
                            said: "no superuser may log in to it".to_owned(),
                        });
                    };
                    self.superuser = row.get(0);
                    self.entry = entry;
                    return Ok(true);
                }
                // There is no such role or database, or it lets nobody in.
                Err(e) if e.code().is_some_and(elsewhere) => {}
                Err(e) if starting(&e) => return Ok(false),
                Err(e) => {
                    return Err(RestoreError::Server {
                        doing: "could not connect to the restored cluster",
                        said: describe(&e),
                    });
                }
            }
        }
        Err(RestoreError::Server {
            doing: "could not use the restored cluster",
            said: format!(
                "none of the roles {} gets into its databases template1 and postgres; let the user in the database's address be one of its own",
                users.join(", ")
            ),
        })
    }

    fn client_as(&self, user: &str, database: &str) -> Result<Client, postgres::Error> {
        postgres::Config::new()
            .host_path(&self.socket)
            .port(5432)
            .user(user)
            .dbname(database)
            .application_name(PROGRAM)
            .options(OPTIONS)
            .connect(NoTls)
    }

    /// A session of a superuser.
    pub(crate) fn connect(&self, database: &str) -> Result<Client, RestoreError> {
        self.client_as(&self.superuser, database)
            .map_err(|e| RestoreError::Server {
                doing: "could not connect to the restored cluster",
                said: format!("database {database}: {}", describe(&e)),
            })
    }

    /// The same, for what is the whole cluster's.
    pub(crate) fn anywhere(&self) -> Result<Client, RestoreError> {
        self.connect(self.entry)
    }

    /// PostgreSQL's programs, connecting to one of its databases.
    pub(crate) fn programs(&self, database: &str) -> Result<Programs, RestoreError> {
        let quoted = |s: &str| format!("'{}'", s.replace('\\', "\\\\").replace('\'', "\\'"));
        let settings = Settings {
            url: Secret::new(format!(
                "host={} port=5432 user={} options={}",
                quoted(&self.socket.to_string_lossy()),
                quoted(&self.superuser),
                quoted(OPTIONS)
            )),
            connect_timeout: Duration::from_secs(10),
            statement_timeout: Duration::ZERO,
            program: PROGRAM,
        };
        Ok(Programs::new(
            self.programs.clone(),
            &settings,
            Some(database),
        )?)
    }

    /// How far it has recovered.
    pub(crate) fn recovered_to(&self) -> Result<Option<Lsn>, RestoreError> {
        let row = self
            .anywhere()?
            .query_one(
                "SELECT (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::int8",
                &[],
            )
            .map_err(RestoreError::query(
                "could not ask how far it has recovered",
            ))?;
        let lsn: Option<i64> = row.get(0);
        Ok(lsn.map(|p| Lsn(p.cast_unsigned())))
    }

    /// How far it has recovered, as a time: when the last transaction was committed that it has from the WAL.
    pub(crate) fn recovered_at(&self) -> Result<Option<DateTime<Utc>>, RestoreError> {
        let row = self
            .anywhere()?
            .query_one("SELECT pg_last_xact_replay_timestamp()", &[])
            .map_err(RestoreError::query(
                "could not ask how far it has recovered",
            ))?;
        Ok(row.get(0))
    }

    /// Switches the event triggers of all databases off for good: they are the source's, and would act on what is done here. Not for a
    /// database that leaves the private server as a whole.
    pub(crate) fn silence_event_triggers(&self) -> Result<(), RestoreError> {
        let failed = RestoreError::query("could not switch off event triggers");
        let databases = self
            .anywhere()?
            .query(
                "SELECT datname::text FROM pg_database WHERE datallowconn AND datconnlimit <> -2",
                &[],
            )
            .map_err(&failed)?;
        for row in &databases {
            let mut client = self.connect(row.get(0))?;
            let triggers = client
                .query(
                    "SELECT format('ALTER EVENT TRIGGER %I DISABLE', evtname) FROM pg_event_trigger WHERE evtenabled <> 'D'",
                    &[],
                )
                .map_err(&failed)?;
            for trigger in &triggers {
                client.batch_execute(trigger.get(0)).map_err(&failed)?;
            }
        }
        Ok(())
    }

    /// Shuts it down as a server that will be started again.
    pub(crate) fn shut_down(mut self) -> Result<(), RestoreError> {
        let begin = fs::metadata(&self.log).map_or(0, |m| m.len());
        let _ = kill_process_group(self.group.id(), Signal::INT);
        let end = std::time::Instant::now() + SHUTDOWN;
        loop {
            match self.group.ended() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(None) if std::time::Instant::now() < end => {
                    thread::sleep(Duration::from_millis(20));
                }
                _ => {
                    return Err(self.failed("the restored cluster did not shut down", begin));
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its processes end by themselves when it does; killed, they would first have to notice.
        let _ = kill_process_group(self.group.id(), Signal::QUIT);
        for _ in 0..250 {
            if !matches!(self.group.ended(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Another role or database may do.
fn elsewhere(code: &SqlState) -> bool {
    code.code().starts_with("28")
        || *code == SqlState::INVALID_CATALOG_NAME
        || *code == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
}

/// It does not listen yet, or lets nobody in yet; or it has just ended, which is seen next.
fn starting(error: &postgres::Error) -> bool {
    match error.code() {
        Some(code) => *code == SqlState::CANNOT_CONNECT_NOW,
        None => true,
    }
}

/// By the code in the log's prefix, see [`super::settings::LOG_PREFIX`].
fn is_disk_full(line: &str) -> bool {
    let code = line
        .split_once("] ")
        .and_then(|(_, rest)| rest.split(' ').next());
    code == Some(SqlState::DISK_FULL.code())
}

/// The lines of a log that say what is wrong.
fn worst(log: &str) -> String {
    let is_bad = |l: &&str| {
        ["FATAL", "PANIC", "ERROR", "HINT", "DETAIL"]
            .iter()
            .any(|w| l.contains(w))
    };
    let mut lines: Vec<&str> = log.lines().filter(is_bad).collect();
    if lines.is_empty() {
        lines = log.lines().collect();
    }
    lines[lines.len().saturating_sub(6)..].join("; ")
}
