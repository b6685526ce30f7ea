//! An installation on a server of its own, whose files, settings and certificates a test breaks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use chrono::Utc;
use oa_core::base::secrets::Secret;
use oa_core::pg;
use oa_testkit::{Postgres, program, wait_until, workspace_root, write_private};
use serde_json::Value;

pub const CONFIG: &str = r#"state_dir = "state"
[database]
url = "env:OA_DATABASE"
connect_timeout = "2s"
[crawl]
enable = ["zhihui-full-view"]
[alert]
heartbeat_url = "env:HEARTBEAT"
[[alert.channels]]
name = "phone"
kind = "command"
command = ["true"]
[backup]
repository = "backups"
password = "env:OA_BACKUP_PASSWORD"
kind = "logical"
verify_recovery = false
"#;

/// What is started each minute was started a moment ago.
pub const FIRED: &str = "INSERT INTO oa.starts (what, host, day) VALUES ('check', 'here', current_date), ('due', 'here', current_date)
     ON CONFLICT (what, host, day) DO UPDATE SET last_at = now(), first_at = now(), starts = 1";

pub struct Installation {
    pub dir: tempfile::TempDir,
    pub server: Postgres,
    /// The certificate of the server's authority, which is beside its own.
    pub authority: PathBuf,
}

/// A line of the answer: its state, its text and the command.
pub struct Found(pub Vec<Value>);

impl Found {
    /// The line of a check with this in its detail.
    pub fn line(&self, check: &str, detail: &str) -> &Value {
        let of = |l: &&Value| l["check"] == check && l["detail"].as_str().unwrap().contains(detail);
        let lines = || self.0.iter().map(|l| format!("{l}\n")).collect::<String>();
        self.0
            .iter()
            .find(of)
            .unwrap_or_else(|| panic!("no line {check}: {detail}\n{}", lines()))
    }

    /// That it is wrong, and the command.
    pub fn broken(&self, check: &str, detail: &str, command: &str) {
        let line = self.line(check, detail);
        assert_eq!(line["state"], "error", "{line}");
        assert!(
            line["command"].as_str().unwrap().contains(command),
            "{line}"
        );
    }

    pub fn warned(&self, check: &str, detail: &str, command: &str) {
        let line = self.line(check, detail);
        assert_eq!(line["state"], "warning", "{line}");
        assert!(
            line["command"].as_str().unwrap().contains(command),
            "{line}"
        );
    }
}

impl Installation {
    pub fn well() -> Self {
        let (server, authority) = Postgres::start_with_tls_and(&[
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("archive_mode", "on"),
            ("archive_command", "true"),
        ]);
        let one = Self {
            dir: tempfile::tempdir().unwrap(),
            server,
            authority,
        };
        fs::create_dir(one.at("log")).unwrap();
        one.restore();
        for (program, arguments) in [
            ("oa-migrate", ["init"]),
            ("oa-backup", ["init"]),
            ("oa-backup", ["full"]),
        ] {
            let done = one.command(program, &arguments).output().unwrap();
            assert!(
                done.status.success(),
                "{program} {arguments:?}: {}",
                said(&done)
            );
        }
        one.sql(FIRED);
        one
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// The files as they were.
    pub fn restore(&self) {
        write_private(&self.at("oa.toml"), CONFIG);
        let env = format!(
            "OA_DATABASE={}\nHEARTBEAT=http://127.0.0.1:9/ping\nOA_BACKUP_PASSWORD=on-paper-only\nZHIHUI_AUTH_TOKEN=token-value\n",
            self.server.url()
        );
        write_private(&self.at(".env"), env);
        let text = fs::read_to_string(workspace_root().join("crontab.example")).unwrap();
        let text = text
            .replace("/var/log/oa", &self.at("log").display().to_string())
            .replace("/etc/oa/oa.toml", &self.at("oa.toml").display().to_string())
            .replace(
                "PATH=/usr/local/bin",
                &format!("PATH={}", program("oa-crawl").parent().unwrap().display()),
            );
        fs::write(self.at("crontab"), text).unwrap();
    }

    pub fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program(name));
        command
            .arg("--config")
            .arg(self.at("oa.toml"))
            .args(arguments);
        command.env_remove("DATABASE_URL");
        command
    }

    pub fn doctor(&self, code: i32) -> Found {
        self.doctor_with(code, &[])
    }

    /// Started from a shell with these variables.
    pub fn doctor_with(&self, code: i32, variables: &[(&str, &str)]) -> Found {
        let done = self
            .command("oa-report", &["doctor", "--format", "json", "--crontab"])
            .arg(self.at("crontab"))
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert_eq!(done.status.code(), Some(code), "{}", said(&done));
        let text = String::from_utf8(done.stdout).unwrap();
        assert!(
            !text.contains("on-paper-only") && !text.contains("token-value"),
            "{text}"
        );
        Found(
            text.lines()
                .map(|l| serde_json::from_str(l).unwrap())
                .collect(),
        )
    }

    pub fn sql(&self, sql: &str) {
        run_sql(&self.server.url(), sql);
    }

    pub fn superuser(&self, sql: &str) {
        run_sql(&self.server.superuser_url(), sql);
    }

    pub fn config(&self, change: impl Fn(&str) -> String) {
        write_private(&self.at("oa.toml"), change(CONFIG));
    }

    /// Without backups, whose repository takes a second to open: for what has nothing to do with them.
    pub fn plain(&self) {
        self.restore();
        self.config(|c| c.split("[backup]").next().unwrap().to_owned());
    }

    pub fn env(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.at(".env")).unwrap();
        assert!(text.contains(from), "{from}");
        write_private(&self.at(".env"), text.replace(from, to));
    }

    /// Runs openssl beside the server's certificate.
    pub fn openssl(&self, arguments: &str) {
        let done = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(self.authority.parent().unwrap())
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "openssl {arguments}: {}",
            said(&done)
        );
    }

    /// Gives the server a certificate that ends so many days from now.
    pub fn sign(&self, days: i64) {
        self.openssl(&format!(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days {days} -extfile ext"
        ));
        self.superuser("SELECT pg_reload_conf()");
        let settings = pg::Settings {
            url: Secret::new(self.server.url()),
            connect_timeout: Duration::from_secs(10),
            statement_timeout: Duration::ZERO,
            program: "test",
        };
        wait_until("the server shows it", Duration::from_secs(30), || {
            let end = pg::certificate(&settings).and_then(|(_, end)| end);
            end.is_some_and(|end| (end > Utc::now()) == (days > 0))
        });
    }

    pub fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).unwrap();
    }
}

pub fn run_sql(url: &str, sql: &str) {
    let mut client = postgres::Client::connect(url, postgres::NoTls).unwrap();
    if let Err(e) = client.batch_execute(sql) {
        panic!("{sql}: {}", oa_core::pg::describe(&e));
    }
}

pub fn said(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
