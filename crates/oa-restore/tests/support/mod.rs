//! `oa-backup` and `oa-restore` with a private PostgreSQL and a repository of their own.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use oa_core::app::config::Config;
use oa_core::pg::schema;
use oa_repository::{Kind, Meta, ProgressReporter, Repository, RepositoryLocation};
use oa_testkit::Postgres;
use postgres::{Client, NoTls};
use serde_json::Value;
use tempfile::TempDir;

pub const PASSWORD: &str = "repository-password";

#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// The objects that were printed, one a line.
    pub fn json(&self) -> Vec<Value> {
        let parse = |l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        self.stdout.lines().map(parse).collect()
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    #[track_caller]
    pub fn failed(self, code: i32, text: &str) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.contains(text), "no {text:?} in {self:?}");
        self
    }
}

pub struct Service {
    pub dir: TempDir,
    pub server: Postgres,
}

impl Service {
    pub fn start() -> Self {
        Self::start_with("", &[])
    }

    /// With more lines in `[backup]`, and settings of the server.
    pub fn start_with(backup: &str, settings: &[(&str, &str)]) -> Self {
        let prepared = Postgres::start_prepared("schema", settings, |server| {
            schema::upgrade(&mut server.connect()).unwrap();
        });
        Self::with(prepared, backup, &fast_folder())
    }

    /// With a server of its own, and its files in a folder.
    pub fn with(server: Postgres, backup: &str, folder: &Path) -> Self {
        // The server's account must be able to walk to a restored cluster.
        let dir = tempfile::Builder::new()
            .prefix("oa-restore-test-")
            .tempdir_in(folder)
            .unwrap();
        fs::set_permissions(
            dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let service = Self { dir, server };
        schema::upgrade(&mut service.server.connect()).unwrap();
        let text = format!(
            "timezone = \"Asia/Shanghai\"\nstate_dir = \"state\"\n[database]\nconnect_timeout = \"20s\"\n\
             [backup]\nrepository = \"repository\"\npassword = \"env:OA_BACKUP_PASSWORD\"\nretries = 0\nverify_recovery = false\n{backup}"
        );
        fs::write(service.config(), text).unwrap();
        service
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("oa.toml")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn superuser(&self) -> Client {
        Client::connect(&self.server.superuser_url(), NoTls).unwrap()
    }

    pub fn sql(&self, sql: &str) {
        self.superuser().batch_execute(sql).unwrap();
    }

    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(oa_testkit::program(program));
        command
            .arg("--config")
            .arg(self.config())
            .args(arguments)
            // Several tests start clusters at the same time.
            .args(port_for(arguments))
            .current_dir(self.dir.path())
            .env("DATABASE_URL", self.server.superuser_url())
            .env("OA_BACKUP_PASSWORD", PASSWORD)
            .env_remove("OA_FAILPOINT");
        command
    }

    /// Makes the repositories.
    pub fn init(&self) {
        create_repositories(&self.config());
    }

    pub fn backup(&self, arguments: &[&str]) -> Done {
        done(&mut self.command("oa-backup", arguments))
    }

    pub fn restore(&self, arguments: &[&str]) -> Done {
        done(&mut self.command("oa-restore", arguments))
    }

    /// The same for another server.
    pub fn on(&self, url: &str, program: &str, arguments: &[&str]) -> Done {
        done(self.command(program, arguments).env("DATABASE_URL", url))
    }

    /// The repository, as oa-backup itself opens it.
    pub fn repository(&self) -> Repository {
        let secret = format!("OA_BACKUP_PASSWORD={PASSWORD}\n");
        oa_testkit::write_private(&self.path(".env"), secret);
        let config = Config::load(Some(&self.config())).unwrap();
        let place = RepositoryLocation::primary(&config).unwrap();
        place.open(&ProgressReporter::hidden()).unwrap()
    }

    /// Stores the newest backup of a kind once more, changed behind oa-backup's back.
    pub fn forge(&self, kind: Kind, change: impl FnOnce(&Path, &mut Meta)) -> String {
        let repository = self.repository();
        let mut all = repository.backups().unwrap();
        all.retain(|b| b.meta.kind == kind);
        let newest = all.pop().unwrap();
        let folder = tempfile::tempdir_in(self.dir.path()).unwrap();
        let reader = repository.reader().unwrap();
        reader
            .restore(&newest, Path::new(""), folder.path())
            .unwrap();
        let mut meta = newest.meta.clone();
        meta.restorable_to += chrono::TimeDelta::milliseconds(1);
        change(folder.path(), &mut meta);
        let pending = repository.store(folder.path(), &meta).unwrap();
        pending.publish(meta).unwrap().id
    }

    /// Killed at a failpoint.
    pub fn killed_at(&self, failpoint: &str, arguments: &[&str]) {
        let done = done(
            self.command("oa-restore", arguments)
                .env("OA_FAILPOINT", failpoint),
        );
        assert_eq!(done.code, -9, "{failpoint}: {done:?}");
    }

    /// The server's clock, to the microsecond.
    pub fn now(&self) -> String {
        let row = self.superuser().query_one(
            "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
            &[],
        );
        row.unwrap().get(0)
    }

    pub fn lsn(&self) -> String {
        let row = self
            .superuser()
            .query_one("SELECT pg_current_wal_insert_lsn()::text", &[]);
        row.unwrap().get(0)
    }

    pub fn count(&self, what: &str) -> i64 {
        count(&mut self.superuser(), what)
    }

    pub fn text(&self, sql: &str) -> String {
        self.superuser().query_one(sql, &[]).unwrap().get(0)
    }

    /// What a killed or finished restore has left in the staging folder.
    pub fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("state/backup")).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|n| n.starts_with("restore-")).collect()
    }
}

/// Makes the repositories of a configuration as `oa-backup init` does, but with a key that opens at once: scrypt is meant to take its time,
/// each time that a program opens a repository, and a test opens it a hundred times.
fn create_repositories(config: &Path) {
    let env = config.with_file_name(".env");
    oa_testkit::write_private(&env, format!("OA_BACKUP_PASSWORD={PASSWORD}\n"));
    let config = Config::load(Some(config)).unwrap();
    let secondary = RepositoryLocation::secondary(&config).unwrap();
    for location in [
        Some(RepositoryLocation::primary(&config).unwrap()),
        secondary,
    ] {
        let Some(location) = location.filter(|l| !l.exists().unwrap()) else {
            continue;
        };
        location.create_for_tests().unwrap();
        location.close_to_others();
    }
    fs::remove_file(env).unwrap();
}

/// A free port for a cluster that is started, unless it is given one.
fn port_for(arguments: &[&str]) -> Vec<String> {
    if !arguments.contains(&"--start") || arguments.contains(&"--port") {
        return Vec::new();
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    vec!["--port".to_owned(), port.to_string()]
}

/// In memory, where there is room: a cluster has a thousand files.
pub fn fast_folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let writable = rustix::fs::access(memory, rustix::fs::Access::WRITE_OK).is_ok();
    if std::env::var_os("TMPDIR").is_none() && writable {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}

/// Processes that work in a folder, PostgreSQL's servers above all.
pub fn working_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mut found = Vec::new();
    for entry in entries {
        let cwd = fs::read_link(entry.path().join("cwd"));
        if cwd.is_ok_and(|cwd| cwd.starts_with(folder)) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains("postgres") {
                found.push(line);
            }
        }
    }
    found
}

pub fn count(client: &mut Client, what: &str) -> i64 {
    client
        .query_one(&format!("SELECT count(*) FROM {what}"), &[])
        .unwrap()
        .get(0)
}

pub fn done(command: &mut Command) -> Done {
    let output = command.output().unwrap();
    Done {
        code: output
            .status
            .code()
            .unwrap_or_else(|| -output.status.signal().unwrap_or_default()),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A cluster that `oa-restore cluster --start` has started; stopped when it is dropped.
pub struct Restored {
    pub data: PathBuf,
    pub port: u16,
}

impl Restored {
    pub fn of(row: &Value) -> Self {
        Self {
            data: PathBuf::from(row["target_dir"].as_str().unwrap()),
            port: row["port"].as_u64().unwrap().try_into().unwrap(),
        }
    }

    /// By the superuser's password of the test kit's clusters.
    pub fn url(&self, service: &Service) -> String {
        service.server.superuser_url().replace(
            &format!(":{}/", service.server.port()),
            &format!(":{}/", self.port),
        )
    }

    pub fn connect(&self, service: &Service) -> Client {
        Client::connect(&self.url(service), NoTls).unwrap()
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        stop(&self.data);
    }
}

/// Stops whatever server runs in a data directory.
pub fn stop(data: &Path) {
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else {
        return;
    };
    let pid = text.lines().next().unwrap_or_default().to_owned();
    let _ = Command::new("kill").args(["-QUIT", &pid]).status();
    oa_testkit::wait_until(
        "the restored server to stop",
        std::time::Duration::from_secs(30),
        || !Path::new(&format!("/proc/{pid}/stat")).exists(),
    );
}
