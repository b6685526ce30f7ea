//! A service in a temporary folder: private PostgreSQL, simulated sites, configuration.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

pub mod processes;
pub mod site;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use chrono::{DateTime, TimeDelta, Timelike as _, Utc};
use oa_core::journal::incidents;
use oa_core::pg::schema;
use oa_core::service;
use oa_sim::{Options, Sim};
use oa_testkit::Postgres;
use postgres::Client;
use serde_json::Value;
use tempfile::TempDir;

pub const DAY: &str = "2025-12-01";
pub const VIEW: &str = "/zhihui/api/report/overallView";
pub const LIST: &str = "/zhihui/api/report/viewPoint/listPage";

pub struct Service {
    pub dir: TempDir,
    pub server: Postgres,
    pub sim: Sim,
    pub url: String,
}

/// What a run of a program gave.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// The objects that `--format json` printed.
    pub fn rows(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|l| {
                serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}\n{}", self.stderr))
            })
            .collect()
    }

    pub fn row(&self) -> Value {
        let rows = self.rows();
        assert_eq!(rows.len(), 1, "{self:?}");
        rows[0].clone()
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        Self {
            code: output
                .status
                .code()
                .unwrap_or_else(|| -output.status.signal().unwrap_or_default()),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Whether a built-in source asks its site for a day.
pub fn names_its_day(task: &str) -> bool {
    ![
        "jiaoyikecha",
        "openvlab",
        "rdqh",
        "rongda",
        "zhihui-varieties",
    ]
    .iter()
    .any(|t| task.starts_with(t))
}

impl Service {
    /// With schema and tables.
    pub fn start() -> Self {
        let prepared = Postgres::start_prepared("service", &[], |server| {
            let mut client = server.connect();
            schema::upgrade(&mut client).unwrap();
            service::create_missing(&mut client).unwrap();
        });
        Self::on(prepared, Options::default())
    }

    pub fn without_schema(options: Options) -> Self {
        Self::on(Postgres::start(), options)
    }

    fn on(server: Postgres, options: Options) -> Self {
        let sim = Sim::start(options).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let url = server.url();
        let service = Self {
            dir,
            server,
            sim,
            url,
        };
        service.configure("");
        service
    }

    /// Writes the configuration, with more lines at its end. All sources of the six sites are enabled unless they say otherwise.
    pub fn configure(&self, more: &str) {
        let enable = match more.contains("enable = ") {
            true => "",
            false => {
                "enable = [\"zhihui\", \"fangqi\", \"jiaoyikecha\", \"openvlab\", \"rongda\", \"rdqh\"]\n"
            }
        };
        self.configure_crawl(&format!("{enable}{more}"));
    }

    /// The same with nothing in `[crawl]` but these lines.
    pub fn configure_crawl(&self, more: &str) {
        let text = format!(
            "state_dir = \"state\"\n[database]\nurl = \"env:DATABASE_URL\"\nconnect_timeout = \"3s\"\n{}[crawl]\nretry_delay = \"10ms\"\ntimeout = \"20s\"\n{more}",
            [
                "zhihui",
                "fangqi",
                "jiaoyikecha",
                "openvlab",
                "rongda",
                "rdqh",
                "shfe",
                "ine",
                "dce",
                "czce",
                "cffex",
                "gfex"
            ]
            .map(|p| format!("[providers.{p}]\nbase = \"{}\"\n", self.sim.site(p)))
            .concat()
        );
        fs::write(self.config(), text).unwrap();
        oa_testkit::write_private(
            &self.dir.path().join(".env"),
            "ZHIHUI_AUTH_TOKEN=sim-token\n",
        );
    }

    /// The same in a zone in which it is about noon now: what is due an hour ago or in an hour is due today, whenever the test runs.
    pub fn configure_at_noon(&self, more: &str) {
        self.configure(more);
        let text = fs::read_to_string(self.config()).unwrap();
        // Signs of these names are those of POSIX.
        let zone = format!("Etc/GMT{:+}", -noon_offset());
        fs::write(self.config(), format!("timezone = \"{zone}\"\n{text}")).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("oa.toml")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Where the programs put temporary files.
    pub fn temporary(&self) -> PathBuf {
        let folder = self.dir.path().join("t");
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oa-crawl"));
        command.arg("--config").arg(self.config()).args(arguments);
        command
            .env_remove("ZHIHUI_AUTH_TOKEN")
            .env("DATABASE_URL", &self.url)
            .env("TMPDIR", self.temporary())
            .env_remove("OA_FAILPOINT");
        command
    }

    pub fn crawl(&self, arguments: &[&str]) -> Done {
        self.command(arguments).output().unwrap().into()
    }

    /// The built-in source files in a folder of their own, for changing them. Gives the folder.
    pub fn export_sources(&self) -> String {
        let folder = self.dir.path().join("own").to_str().unwrap().to_owned();
        let done = self.crawl(&["sources", "export", &folder]);
        assert_eq!(done.code, 0, "{done:?}");
        folder
    }

    /// Adds a source of the operator's own to the folder `own`, which the configuration names.
    pub fn add(&self, name: &str, text: &str) {
        let folder = self.dir.path().join("own");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{name}.toml")), text).unwrap();
        let folder = folder.display();
        self.configure(&format!("retries = 0\nsources = \"{folder}\"\n"));
    }

    /// Findings of the last run.
    pub fn findings(&self) -> String {
        self.text("SELECT coalesce((SELECT findings::text FROM oa.quality ORDER BY run_id DESC LIMIT 1), '')")
    }

    /// `oa-crawl run TASK --date DAY --format json`; for a source whose site shows only the present day, that one.
    pub fn run(&self, task: &str) -> Done {
        let mut arguments = vec!["run", task, "--format", "json"];
        if names_its_day(task) {
            arguments.extend(["--date", DAY]);
        }
        self.crawl(&arguments)
    }

    /// The same, killed at a fail point.
    pub fn run_killed_at(&self, task: &str, point: &str) {
        let done: Done = self
            .command(&["run", task, "--date", DAY])
            .env("OA_FAILPOINT", point)
            .output()
            .unwrap()
            .into();
        assert_eq!(done.code, -9, "{point}: {done:?}");
    }

    pub fn db(&self) -> Client {
        Client::connect(&self.url, postgres::NoTls).unwrap()
    }

    pub fn count(&self, what: &str) -> i64 {
        self.db()
            .query_one(&format!("SELECT count(*) FROM {what}"), &[])
            .unwrap()
            .get(0)
    }

    pub fn text(&self, query: &str) -> String {
        self.db().query_one(query, &[]).unwrap().get(0)
    }

    /// What people read of the alerts for which this holds, in Chinese.
    pub fn alerts(&self, which: &str) -> String {
        let wording = oa_wording::Wording {
            locale: oa_core::app::config::Locale::Zh,
            timezone: chrono_tz::Asia::Shanghai,
        };
        let query = format!(
            "SELECT event, title, body, rule, fingerprint FROM oa.alerts WHERE {which} ORDER BY seq"
        );
        let rows = self.db().query(&query, &[]).unwrap();
        rows.iter()
            .map(|r| incidents::event_of(r, 0, r.get(3), r.get(4)))
            .map(|event| wording.text(&event).body)
            .collect()
    }
}

/// What the zone of [`Service::configure_at_noon`] is ahead of UTC, in hours.
fn noon_offset() -> i64 {
    // Once a test: it must not move when the hour turns.
    static OFFSET: OnceLock<i64> = OnceLock::new();
    *OFFSET.get_or_init(|| 12 - i64::from(Utc::now().hour()))
}

/// The present time in that zone.
pub fn noon() -> DateTime<Utc> {
    Utc::now() + TimeDelta::hours(noon_offset())
}
