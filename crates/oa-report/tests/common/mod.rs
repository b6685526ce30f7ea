//! A service with a database and a running server, for tests that ask it over HTTP.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use oa_core::pg::schema;
use oa_testkit::Postgres;
use serde_json::Value;
use tempfile::TempDir;

/// A month of a service.
pub const SERVICE: &str = include_str!("service.sql");
/// The token of [`Site::with_token`], and its hash.
pub const TOKEN: &str = "test-token-of-wang";
pub const TOKEN_HASH: &str =
    "sha256:d3f338296ced8b8a28ffa18c91db409bbd2fc7b53490c93a53f4096345059377";

/// A database and a configuration.
pub struct Site {
    pub dir: TempDir,
    pub server: Postgres,
}

/// A running `oa-report serve`; ends with the test.
pub struct Serving {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub at: String,
    pub page: String,
    pub token: Option<&'static str>,
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|l| l.split_once(':'))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.trim())
    }
}

impl Site {
    /// With an empty schema and these settings besides.
    pub fn start(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Postgres::start_prepared("schema", &[], |server| {
            schema::upgrade(&mut server.connect()).unwrap();
        });
        let (top, sections) = more.split_at(more.find('[').unwrap_or(more.len()));
        let text =
            format!("state_dir = \"state\"\n{top}[database]\nconnect_timeout = \"2s\"\n{sections}");
        fs::write(dir.path().join("oa.toml"), text).unwrap();
        Self { dir, server }
    }

    /// With a month of a service, and a token.
    pub fn with_token(more: &str) -> Self {
        let table = "[report.tokens]\n";
        let tokens = if more.contains(table) { "" } else { table };
        let site = Self::start(&format!("{more}{tokens}wang = \"{TOKEN_HASH}\"\n"));
        site.sql(SERVICE);
        site
    }

    pub fn sql(&self, sql: &str) {
        if let Err(e) = self.server.connect().batch_execute(sql) {
            panic!("{}", oa_core::pg::describe(&e));
        }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oa-report"));
        command
            .arg("--config")
            .arg(self.dir.path().join("oa.toml"))
            .args(arguments)
            .env("DATABASE_URL", self.server.url());
        command
    }

    /// Runs a command; gives its exit code, stdout and stderr.
    pub fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let done = self.command(arguments).output().unwrap();
        (
            done.status.code(),
            String::from_utf8(done.stdout).unwrap(),
            String::from_utf8(done.stderr).unwrap(),
        )
    }

    pub fn log(&self) -> PathBuf {
        self.dir.path().join("serve.log")
    }

    /// Starts the server on a free port; its log goes to [`Site::log`].
    pub fn serve(&self, token: Option<&'static str>) -> Serving {
        let log = fs::File::create(self.log()).unwrap();
        let mut child = self
            .command(&["serve", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let page = line.trim().to_owned();
        let at = page
            .trim_start_matches("http://")
            .split('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        assert!(
            !at.is_empty(),
            "it did not start: {}",
            fs::read_to_string(self.log()).unwrap()
        );
        Serving {
            child,
            at,
            page,
            token,
        }
    }
}

impl Serving {
    pub fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], "")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One request on a connection of its own.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        let has = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        if !has("host") {
            request += &format!("Host: {}\r\n", self.at);
        }
        if let Some(token) = self.token.filter(|_| !has("authorization")) {
            request += &format!("Authorization: Bearer {token}\r\n");
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() && !has("content-length") {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        self.raw(format!("{request}\r\n{body}").as_bytes())
    }

    /// These bytes, and what comes back until the end.
    pub fn raw(&self, request: &[u8]) -> Reply {
        let mut stream = TcpStream::connect(&self.at).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        reply(&answer)
    }

    /// Asks it to stop, and waits for its end.
    pub fn stop(mut self) -> Option<i32> {
        self.signal();
        self.child.wait().unwrap().code()
    }

    pub fn signal(&self) {
        let pid = i32::try_from(self.child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }
}

fn reply(answer: &[u8]) -> Reply {
    let end = answer
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map_or(answer.len(), |at| at + 4);
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    let mut body = answer[end..].to_vec();
    if head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        panic!("answers have a length: {head}");
    }
    body.shrink_to_fit();
    Reply { status, head, body }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
