//! A server, a configuration and a repository for one test.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use oa_core::app::config::Config;
use oa_core::pg::schema;
use oa_repository::RepositoryLocation;
use oa_testkit::Postgres;
use postgres::{Client, NoTls};
use serde_json::Value;
use tempfile::TempDir;

pub const PASSWORD: &str = "a-key-for-tests-only";

/// Everything that one test needs.
pub struct Service {
    pub dir: TempDir,
    pub server: Postgres,
    pub superuser: bool,
    /// Each full backup is recovered, which takes its time.
    pub recovers: bool,
}

/// What a program printed, and its exit code.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    pub fn json(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }
}

impl Service {
    /// A server whose superuser makes the backups.
    pub fn start(more: &str) -> Self {
        let prepared = Postgres::start_prepared("superusers-schema", &[], |server| {
            let mut superuser = Client::connect(&server.superuser_url(), NoTls).unwrap();
            schema::upgrade(&mut superuser).unwrap();
        });
        Self::with(prepared, more)
    }

    pub fn with(server: Postgres, more: &str) -> Self {
        let dir = oa_testkit::temp_dir();
        let mut service = Self {
            dir,
            server,
            superuser: true,
            recovers: false,
        };
        schema::upgrade(&mut service.db()).unwrap();
        service.configure(more);
        service
            .db()
            .batch_execute("CREATE TABLE quotes (id int PRIMARY KEY, price float8 NOT NULL, note text); INSERT INTO quotes SELECT i, i / 7.0, md5(i::text) FROM generate_series(1, 2000) i")
            .unwrap();
        service.superuser = true;
        service
    }

    /// The same with an initialised repository.
    pub fn ready(more: &str) -> Self {
        let service = Self::start(more);
        service.create_repositories();
        service
    }

    /// As `init` does.
    pub fn create_repositories(&self) {
        self.create_repositories_of("oa.toml");
    }

    /// Of another configuration file beside it.
    pub fn create_repositories_of(&self, config: &str) {
        create_repositories(&self.path(config));
    }

    /// `more` stands at the end of `[backup]`.
    pub fn configure(&self, more: &str) {
        let text = format!(
            "state_dir = \"state\"\n[database]\nconnect_timeout = \"20s\"\n[backup]\nrepository = \"repo\"\npassword = \"env:OA_BACKUP_PASSWORD\"\nretries = 0\nretry_delay = \"1s\"\nverify_recovery = {}\n{more}\n",
            self.recovers
        );
        fs::write(self.path("oa.toml"), text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn url(&self) -> String {
        if self.superuser {
            self.server.superuser_url()
        } else {
            self.server.url()
        }
    }

    pub fn db(&self) -> Client {
        Client::connect(&self.url(), NoTls).unwrap()
    }

    pub fn superuser_db(&self) -> Client {
        Client::connect(&self.server.superuser_url(), NoTls).unwrap()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_with("oa.toml", arguments)
    }

    /// With another configuration file beside it.
    pub fn command_with(&self, config: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oa-backup"));
        command
            .arg("--config")
            .arg(self.path(config))
            .args(arguments)
            .env("DATABASE_URL", self.url())
            .env("OA_BACKUP_PASSWORD", PASSWORD)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn backup(&self, arguments: &[&str]) -> Done {
        done(self.command(arguments).output().unwrap())
    }

    /// Runs oa-restore on the same repository.
    pub fn restore(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(oa_testkit::program("oa-restore"));
        command
            .arg("--config")
            .arg(self.path("oa.toml"))
            .args(arguments)
            .env("DATABASE_URL", self.url())
            .env("OA_BACKUP_PASSWORD", PASSWORD)
            .stdin(Stdio::null());
        command
    }

    /// Makes a backup and gives it back as JSON, one object each.
    pub fn take(&self, level: &str) -> Vec<Value> {
        self.backup(&[level, "--format", "json"]).expect(0).json()
    }

    /// Runs it with a failpoint at which it must die.
    pub fn killed_at(&self, point: &str, arguments: &[&str]) {
        let output = self
            .command(arguments)
            .env("OA_FAILPOINT", point)
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            None,
            "{point} was not reached: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    pub fn list(&self) -> Vec<Value> {
        self.backup(&["list", "--format", "json"]).expect(0).json()
    }

    pub fn texts(&self, sql: &str) -> Vec<String> {
        self.db()
            .query(sql, &[])
            .unwrap()
            .iter()
            .map(|r| r.get(0))
            .collect()
    }

    pub fn number(&self, sql: &str) -> i64 {
        self.db().query_one(sql, &[]).unwrap().get(0)
    }

    /// Files below a folder, with their paths.
    pub fn files(&self, folder: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.path(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    found.push(entry.path());
                }
            }
        }
        found.sort();
        found
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

pub fn done(output: Output) -> Done {
    Done {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The command that the doctor gives, run as it is; off a terminal with `--yes`. `None`: it has none.
pub fn doctors_orders(service: &Service) -> Option<(String, Done)> {
    let said = service.backup(&["doctor"]).expect(1).stdout;
    let order = said.lines().last()?.strip_prefix("next: ")?.to_owned();
    let mut words = order.split(' ');
    let program = words.next()?;
    let mut arguments: Vec<&str> = words.collect();
    if program != "oa-backup" {
        let output = Command::new(program).args(arguments).output();
        return Some((order.clone(), done(output.expect("no such program"))));
    }
    if arguments == ["repair"] || arguments == ["prune", "--missing"] {
        arguments.push("--yes");
    }
    let done = service.backup(&arguments);
    Some((order.clone(), done))
}
