//! `oa-alert` with a private PostgreSQL and simulated robots.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use chrono::Utc;
use oa_core::app::config::Config;
use oa_core::base::state_dir::StateDir;
use oa_core::journal::incidents;
use oa_core::journal::spool::{Record, Spool};
use oa_core::model::event::{Alert, Event, Kind, Severity};
use oa_core::pg::schema;
use oa_sim::{Options, Sim};
use oa_testkit::Postgres;
use postgres::Client;
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

pub struct Service {
    pub dir: TempDir,
    pub server: Postgres,
    pub sim: Sim,
}

pub const DINGTALK: &str = "[[alert.channels]]\nname = \"ops\"\nkind = \"dingtalk\"\nurl = \"BASE/dingtalk/robot/send?access_token=tok-secret\"\nsecret = \"SECx-secret\"\n";
pub const WECOM: &str = "[[alert.channels]]\nname = \"wx\"\nkind = \"wecom\"\nurl = \"BASE/wecom/cgi-bin/webhook/send?key=key-secret\"\n";
pub const FEISHU: &str = "[[alert.channels]]\nname = \"fs\"\nkind = \"feishu\"\nurl = \"BASE/feishu/open-apis/bot/v2/hook/hook-secret\"\nsecret = \"FS-secret\"\n";

/// The same numbers in every run.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Service {
    pub fn start(channels: &str) -> Self {
        Self::start_with(
            channels,
            Options {
                dingtalk_secret: Some("SECx-secret".into()),
                feishu_secret: Some("FS-secret".into()),
                ..Options::default()
            },
        )
    }

    pub fn start_with(channels: &str, options: Options) -> Self {
        let prepared = Postgres::start_prepared("schema", &[], |server| {
            schema::upgrade(&mut server.connect()).unwrap();
        });
        Self::start_on(prepared, channels, options)
    }

    /// `channels`: everything of the configuration after `[database]`.
    pub fn start_on(server: Postgres, channels: &str, options: Options) -> Self {
        let (sim, dir) = (Sim::start(options).unwrap(), tempfile::tempdir().unwrap());
        schema::upgrade(&mut server.connect()).unwrap();
        let service = Self { dir, server, sim };
        service.configure("", channels);
        service
    }

    /// Writes the configuration anew: `top` stands before the sections. Unless a test says so, nothing waits for what else comes, and how
    /// full the disk of the machine is says nothing.
    pub fn configure(&self, top: &str, sections: &str) {
        let mut alert = String::from("[alert]\n");
        for (key, line) in [
            ("group_wait", "group_wait = \"0s\"\n"),
            ("disk_warning", "disk_warning = 0.0\n"),
            ("disk_critical", "disk_critical = 0.0\n"),
        ] {
            if !sections.contains(key) {
                alert.push_str(line);
            }
        }
        let sections = if sections.contains("[alert]\n") {
            sections.replacen("[alert]\n", &alert, 1)
        } else {
            format!("{alert}{sections}")
        };
        let text = format!(
            "state_dir = \"state\"\n{top}[database]\nconnect_timeout = \"2s\"\n{}",
            sections.replace("BASE", &self.sim.base())
        );
        fs::write(self.dir.path().join("oa.toml"), text).unwrap();
    }

    /// The configuration as another program on this machine reads it.
    pub fn config(&self) -> Config {
        let env = format!("DATABASE_URL={}\n", self.server.url());
        oa_testkit::write_private(&self.dir.path().join(".env"), env);
        Config::load(Some(&self.dir.path().join("oa.toml"))).unwrap()
    }

    /// `oa-alert check`: its exit code and what it found.
    pub fn check(&self) -> (i32, Vec<Value>) {
        let done = self.alert(&["check", "--format", "json"]);
        assert!(!done.stderr.contains("panicked"), "{done:?}");
        let found = done.stdout.lines();
        let found = found.map(|l| serde_json::from_str(l).unwrap()).collect();
        (done.code, found)
    }

    /// A run of a task that has begun now, on a machine whose processes nobody here can see.
    pub fn under_way(&self, task: &str, status: &str) {
        self.sql(&format!(
            "WITH run AS (
               INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, started_at, status, lease_until)
               VALUES (oa.uuid_floor(now()), 'oa-crawl', '{task}', 'cron', 'another', 'm', 'b', 1, 1, '0', now(), '{status}', now() + interval '1 hour')
               RETURNING id)
             UPDATE oa.tasks SET last_run_id = run.id, last_status = '{status}', last_started_at = now() FROM run WHERE name = '{task}'"
        ));
    }

    pub fn sql(&self, statements: &str) {
        self.db().batch_execute(statements).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oa-alert"));
        command
            .arg("--config")
            .arg(self.dir.path().join("oa.toml"))
            .args(arguments)
            .env("DATABASE_URL", self.server.url())
            .env_remove("OA_FAILPOINT");
        command
    }

    pub fn alert(&self, arguments: &[&str]) -> Done {
        use std::os::unix::process::ExitStatusExt;
        let output = self.command(arguments).output().unwrap();
        Done {
            code: output
                .status
                .code()
                .unwrap_or_else(|| -output.status.signal().unwrap_or_default()),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub fn flush(&self) -> i32 {
        self.alert(&["flush"]).code
    }

    pub fn db(&self) -> Client {
        self.server.connect()
    }

    pub fn put(&self, fingerprint: &str, title: &str) -> Alert {
        let alert = new_alert(fingerprint, title);
        incidents::put(&mut self.db(), &alert).unwrap();
        alert
    }

    pub fn one(&self, query: &str) -> String {
        self.db().query_one(query, &[]).unwrap().get(0)
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn spool(&self) -> Spool {
        Spool::open(&StateDir::open(&self.state()).unwrap(), 1 << 20).unwrap()
    }

    /// Into the spool, as while PostgreSQL is down.
    pub fn put_in_spool(&self, fingerprint: &str, title: &str) -> Alert {
        let alert = new_alert(fingerprint, title);
        self.spool().put(&[Record::Alert(alert.clone())]).unwrap();
        alert
    }

    /// Makes what was put off in the spool due now.
    pub fn hurry_spool(&self) {
        let db = rusqlite::Connection::open(self.state().join("spool.db")).unwrap();
        db.execute_batch("UPDATE tries SET next_at = 0; DELETE FROM pauses")
            .unwrap();
    }

    /// Makes what was put off due now.
    pub fn hurry(&self) {
        self.db().batch_execute("UPDATE oa.deliveries SET next_try_at = now(), leased_until = now() - interval '1 s' WHERE state <> 'sent'").unwrap();
    }

    /// A minute passes for the robots' limits, theirs and ours.
    pub fn minute(&self) {
        self.sim.advance(std::time::Duration::from_secs(63));
        self.sql("UPDATE oa.robots SET sent_at = '{}'");
    }

    pub fn titles(&self) -> Vec<String> {
        self.sim
            .messages()
            .iter()
            .map(|m| m.title.clone())
            .collect()
    }
}

pub fn rules(found: &[Value]) -> Vec<&str> {
    found.iter().map(|f| f["rule"].as_str().unwrap()).collect()
}

pub fn new_alert(fingerprint: &str, title: &str) -> Alert {
    Alert {
        id: Uuid::now_v7(),
        fingerprint: fingerprint.into(),
        rule: "run_failed".into(),
        task: None,
        run_id: None,
        severity: Severity::Critical,
        kind: Kind::Problem,
        event: text(title, &body(title)),
        created_at: Utc::now(),
    }
}

/// What the alert of [`new_alert`] says.
pub fn body(title: &str) -> String {
    format!("**{title}**\n\n- 😀 \"quotes\" </script> \\ 原因\n")
}

/// An event that says just this.
pub fn text(title: &str, body: &str) -> Event {
    Event::Message {
        title: title.to_owned(),
        body: body.to_owned(),
    }
}
