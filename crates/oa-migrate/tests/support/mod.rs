//! A private PostgreSQL, a configuration and a SQLite file, and the real program on them.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "shared by several test files; tests fail by panicking"
)]

pub mod hostile;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use oa_testkit::Postgres;
use postgres::Client;
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

pub struct Sandbox {
    pub pg: Postgres,
    pub dir: TempDir,
}

/// What the program did.
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// The JSON report.
    pub fn report(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}\n{}", self.stdout, self.stderr))
    }

    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        self
    }
}

impl Sandbox {
    pub fn new() -> Self {
        Self::on(Postgres::start())
    }

    pub fn on(pg: Postgres) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("oa.toml"),
            "state_dir = \"state\"\n[database]\nurl = \"env:DATABASE_URL\"\n",
        )
        .unwrap();
        Self { pg, dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a SQLite file.
    pub fn sqlite(&self, name: &str, sql: &str) -> PathBuf {
        let path = self.path(name);
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch(&format!("PRAGMA foreign_keys = OFF; {sql}"))
            .unwrap_or_else(|e| panic!("{e} in {sql}"));
        path
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oa-migrate"));
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env("OA_CONFIG", self.path("oa.toml"))
            .env("DATABASE_URL", self.pg.url())
            .env_remove("OA_FAILPOINT")
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Done {
        done(self.command(arguments).output().unwrap())
    }

    /// `run FILE --format json` with more arguments.
    pub fn migrate(&self, file: &Path, more: &[&str]) -> Done {
        let mut arguments = vec!["run", file.to_str().unwrap(), "--format", "json"];
        arguments.extend(more);
        self.run(&arguments)
    }

    /// A run that is killed at a failpoint.
    pub fn killed_at(&self, failpoint: &str, arguments: &[&str]) {
        let done = self
            .command(arguments)
            .env("OA_FAILPOINT", failpoint)
            .output()
            .unwrap();
        assert_eq!(done.status.code(), None, "{failpoint}: {done:?}");
    }

    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub fn client(&self) -> Client {
        self.pg.connect()
    }

    /// Statements of the superuser.
    pub fn superuser(&self, sql: &str) {
        Client::connect(&self.pg.superuser_url(), postgres::NoTls)
            .unwrap()
            .batch_execute(sql)
            .unwrap_or_else(|e| panic!("{e:?} in {sql}"));
    }

    /// One text per row.
    pub fn texts(&self, sql: &str) -> Vec<String> {
        self.client()
            .query(sql, &[])
            .unwrap_or_else(|e| panic!("{e:?} in {sql}"))
            .iter()
            .map(|row| row.get::<_, Option<String>>(0).unwrap_or("NULL".to_owned()))
            .collect()
    }

    pub fn number(&self, sql: &str) -> i64 {
        self.client()
            .query_one(sql, &[])
            .unwrap_or_else(|e| panic!("{e:?} in {sql}"))
            .get(0)
    }

    /// Everything in the schemas that runs make or fill, for comparing before and after.
    pub fn picture(&self) -> Vec<String> {
        self.texts(
            "SELECT n.nspname || '.' || c.relname || ' ' || c.relkind::text || ' ' || c.oid::text FROM pg_class c
             JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'public' OR starts_with(n.nspname, 'oa_') ORDER BY 1",
        )
    }
}

pub fn done(output: Output) -> Done {
    Done {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The report's entry of a table.
pub fn table<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["tables"]
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["table"] == name)
        .unwrap_or_else(|| panic!("no table {name} in {report}"))
}

/// All warnings of a table, joined.
pub fn warnings(report: &Value, name: &str) -> String {
    let list = table(report, name)["warnings"].as_array().unwrap().clone();
    list.iter()
        .map(|w| w.as_str().unwrap().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}
