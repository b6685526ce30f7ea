//! Every configured secret, looked for in everything that the programs leave behind: a whole day of all of them, with failures.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use oa_testkit::{Postgres, program, wait_until, write_private};

/// Each holds what has to be written differently in an address, in JSON and in XML.
const PASSWORD: &str = "db\"p@ss/w+rd\\7&ü";
const OLD_PASSWORD: &str = "old\"p@ss/w+rd\\6&ü";
const SITE: &str = "site\"tok/en+\\8<&>";
const ROBOT: &str = "robot-tok/en+9";
const SIGNING: &str = "SEC\"sign/ing+\\5&";
const HOOK: &str = "hook-part-of-path-4";
const HEADER: &str = "header\"val/ue+\\3&";
const MAIL: &str = "mail\"p@ss/w+rd\\2&ü";
const BEAT: &str = "beat-tok/en+11";
const LINKS: &str = "links\"key/of+many\\characters&";
const KEY: &str = "repository\"key/of+\\1&ü";
const S3_ID: &str = "S3ACCESSIDOFTEST";
const S3_KEY: &str = "s3\"secret/key+\\10&";
const PROGRAM: &str = "program\"s/own+\\12&ü";
/// With the characters of an address only: here for an address's sake.
const SECRETS: [&str; 14] = [
    PASSWORD,
    OLD_PASSWORD,
    SITE,
    ROBOT,
    SIGNING,
    HOOK,
    HEADER,
    MAIL,
    BEAT,
    LINKS,
    KEY,
    S3_ID,
    S3_KEY,
    PROGRAM,
];

fn encoded(text: &str, keep: &str) -> String {
    let byte = |b: u8| match b {
        b if b.is_ascii_alphanumeric() || keep.as_bytes().contains(&b) => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn lower_hex(encoded: &str) -> String {
    let (first, rest) = encoded.split_once('%').unwrap_or((encoded, ""));
    let parts = rest.split('%').filter(|part| part.len() > 1);
    let lower = parts.map(|part| format!("%{}{}", part[..2].to_lowercase(), &part[2..]));
    lower.fold(first.to_owned(), |text, part| text + &part)
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for part in bytes.chunks(3) {
        let bits = part
            .iter()
            .enumerate()
            .fold(0u32, |n, (i, b)| n | u32::from(*b) << (16 - 8 * i));
        for i in 0..=part.len() {
            out.push(char::from(LETTERS[(bits >> (18 - 6 * i) & 63) as usize]));
        }
    }
    out
}

/// In JSON, with and without letters that are not ASCII.
fn json(text: &str) -> [String; 2] {
    let plain = text.replace('\\', "\\\\").replace('"', "\\\"");
    let ascii = plain.chars().map(|c| match c {
        c if c.is_ascii() => c.to_string(),
        c => format!("\\u{:04x}", u32::from(c)),
    });
    [ascii.collect(), plain.clone()]
}

fn xml(text: &str) -> String {
    let amp = text.replace('&', "&amp;");
    amp.replace('"', "&quot;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// All the ways in which it could be there.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![
        secret.to_owned(),
        encoded(secret, "-._~"),
        lower_hex(&encoded(secret, "-._~")),
        encoded(secret, "-._~/"),
        encoded(secret, "-._~!*'()"),
        xml(secret),
        base64(secret.as_bytes()),
        base64(secret.as_bytes())
            .replace('+', "-")
            .replace('/', "_"),
        // Basic authentication.
        base64(format!("oa:{secret}").as_bytes())[4..].to_owned(),
    ];
    forms.extend(json(secret));
    forms.extend(json(secret).map(|j| j.replace('/', "\\/")));
    forms.sort();
    forms.dedup();
    forms
}

/// A day's programs in a folder of their own.
struct Day {
    dir: tempfile::TempDir,
    server: Postgres,
    sim: Child,
    base: String,
    /// Whatever came out, by what it came from.
    seen: Vec<(String, Vec<u8>)>,
}

impl Drop for Day {
    fn drop(&mut self) {
        let _ = self.sim.kill();
        let _ = self.sim.wait();
    }
}

fn address(password: &str, port: u16) -> String {
    format!(
        "postgresql://oa_daily:{}@127.0.0.1:{port}/oa",
        encoded(password, "-._~")
    )
}

impl Day {
    fn start() -> Self {
        let (dir, server) = (oa_testkit::temp_dir(), Postgres::start());
        let mut sim = Command::new(program("oa-sim"));
        sim.args([
            "--token",
            SITE,
            "--dingtalk-secret",
            SIGNING,
            "--rate-limit",
            "100000",
        ]);
        let mut sim = sim.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(sim.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let base = line.trim().rsplit(' ').next().unwrap().to_owned();
        let sql = format!(
            "CREATE ROLE oa_daily LOGIN SUPERUSER PASSWORD '{}'",
            PASSWORD.replace('\'', "''")
        );
        let mut admin =
            postgres::Client::connect(&server.superuser_url(), postgres::NoTls).unwrap();
        admin.batch_execute(&sql).unwrap();
        let day = Self {
            dir,
            server,
            sim,
            base,
            seen: Vec::new(),
        };
        day.wrap_programs();
        day.configure();
        day
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// PostgreSQL's programs note what they are started with.
    fn wrap_programs(&self) {
        let (bin, real) = (self.path("bin"), self.server.programs());
        fs::create_dir(&bin).unwrap();
        for entry in fs::read_dir(real).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let to = bin.join(&name);
            let notes = self.path("started").display().to_string();
            let real = entry.path().display().to_string();
            let script = format!(
                "#!/bin/sh\n{{ echo \"$0 $*\"; env; }} >>'{notes}'\nexec '{real}' \"$@\"\n"
            );
            fs::write(&to, script).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn configure(&self) {
        let base = &self.base;
        let host = base.trim_start_matches("http://");
        let robots = "[[alert.channels]]\nname = \"ding\"\nkind = \"dingtalk\"\nurl = \"env:DING\"\nsecret = \"env:DING_SIGN\"\nper_minute = 1000\n\
             [[alert.channels]]\nname = \"feishu\"\nkind = \"feishu\"\nurl = \"env:FEISHU\"\n\
             [[alert.channels]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"env:WEBHOOK\"\nheaders = { X-Key = \"env:WEBHOOK_HEADER\" }\n\
             [[alert.channels]]\nname = \"mail\"\nkind = \"email\"\nurl = \"env:MAIL\"\nfrom = \"oa@example.com\"\nto = [\"ops@example.com\"]\n";
        let dir = self.dir.path().display();
        let text = format!(
            "state_dir = \"{dir}/state\"\n[database]\nurl = \"env:DATABASE_URL\"\nconnect_timeout = \"2s\"\n\
             [providers.zhihui]\nbase = \"{base}/zhihui\"\n[crawl]\nenable = [\"zhihui-full-view\"]\nretries = 0\ntimeout = \"20s\"\n\
             [exec.own]\nenv = [\"OWN_VALUE\"]\n[exec.echo]\nenv = [\"OWN_VALUE\"]\n[report]\nlink_key = \"env:LINKS\"\nurl = \"http://127.0.0.1:1\"\n\
             [alert]\ngroup_wait = \"0s\"\ndisk_warning = 0.0\ndisk_critical = 0.0\nheartbeat_url = \"env:BEAT\"\n{robots}\
             [backup]\nrepository = \"{dir}/repository\"\npassword = \"file:key\"\nretries = 0\nverify_recovery = false\nbin_dir = \"{dir}/bin\"\n\
             [backup.copy]\nrepository = \"s3://bucket/oa\"\n[backup.copy.s3]\nendpoint = \"{base}\"\nregion = \"r\"\npath_style = true\n\
             access_key = \"env:S3_ID\"\nsecret_key = \"env:S3_KEY\"\n"
        );
        fs::write(self.path("oa.toml"), text).unwrap();
        write_private(&self.path("key"), format!("{KEY}\n"));
        // `.env` quotes nothing that a shell would.
        let quoted = |text: &str| format!("'{text}'");
        let lines = [
            ("DATABASE_URL", address(PASSWORD, self.server.port())),
            ("ZHIHUI_AUTH_TOKEN", quoted(SITE)),
            ("DING_SIGN", quoted(SIGNING)),
            (
                "FEISHU",
                format!("{base}/feishu/open-apis/bot/v2/hook/{HOOK}"),
            ),
            (
                "WEBHOOK",
                format!("http://oa:{}@{host}/nowhere", encoded(HOOK, "-._~")),
            ),
            ("WEBHOOK_HEADER", quoted(HEADER)),
            (
                "MAIL",
                format!(
                    "smtp://oa:{}@127.0.0.1:9?tls=required",
                    encoded(MAIL, "-._~")
                ),
            ),
            (
                "BEAT",
                format!("{base}/beat?token={}", encoded(BEAT, "-._~")),
            ),
            ("LINKS", quoted(LINKS)),
            ("OWN_VALUE", quoted(PROGRAM)),
        ];
        let text: String = lines
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        write_private(&self.path(".env"), text);
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program(name));
        command
            .arg("--config")
            .arg(self.path("oa.toml"))
            .args(arguments);
        // Some are in the environment instead of a file: children must not inherit them.
        command
            .env("S3_ID", S3_ID)
            .env("S3_KEY", S3_KEY)
            .env(
                "DING",
                format!(
                    "{}/dingtalk/robot/send?access_token={}",
                    self.base,
                    encoded(ROBOT, "-._~")
                ),
            )
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", self.path("bin").display()),
            )
            .stdin(Stdio::null());
        command
    }

    fn run(&mut self, name: &str, arguments: &[&str]) -> Output {
        let command = self.command(name, arguments);
        self.keep(name, arguments, command)
    }

    fn keep(&mut self, name: &str, arguments: &[&str], mut command: Command) -> Output {
        let done = command.output().unwrap();
        let what = format!("{name} {} ({})", arguments.join(" "), done.status);
        assert!(
            !String::from_utf8_lossy(&done.stderr).contains("panicked"),
            "{what}: {done:?}"
        );
        self.seen
            .push((format!("stdout of {what}"), done.stdout.clone()));
        self.seen
            .push((format!("stderr of {what}"), done.stderr.clone()));
        done
    }

    fn must(&mut self, name: &str, arguments: &[&str]) {
        let done = self.run(name, arguments);
        assert!(
            done.status.success(),
            "{name} {arguments:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }

    fn fault(&self, plan: &str) {
        let request = format!(
            "POST /_sim/faults HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{plan}",
            plan.len()
        );
        assert!(self.ask(&request).contains("200"), "{plan}");
    }

    fn ask(&self, request: &str) -> String {
        ask(self.base.trim_start_matches("http://"), request)
    }

    fn get(&self, path: &str) -> String {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ))
    }

    fn files(&mut self, folder: &str) {
        let mut todo = vec![self.path(folder)];
        while let Some(path) = todo.pop() {
            if path.is_dir() {
                todo.extend(fs::read_dir(&path).unwrap().flatten().map(|e| e.path()));
            } else if path.is_file() {
                self.file(&path);
            }
        }
    }

    fn file(&mut self, path: &Path) {
        let content = fs::read(path).unwrap();
        if path.extension().is_some_and(|e| e == "zst") {
            let done = Command::new("zstd")
                .arg("-dcq")
                .arg(path)
                .output()
                .expect("zstd is installed");
            assert!(done.status.success(), "{}: {done:?}", path.display());
            self.seen.push((path.display().to_string(), done.stdout));
        }
        self.seen.push((path.display().to_string(), content));
    }
}

/// What comes back, until its end or as long as it says that it is.
fn ask(at: &str, request: &str) -> String {
    let stream = TcpStream::connect(at).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    (&stream).write_all(request.as_bytes()).unwrap();
    let mut answer = BufReader::new(&stream);
    let (mut text, mut length) = (String::new(), u64::MAX);
    while answer.read_line(&mut text).unwrap() > 2 {
        let line = text.lines().last().unwrap_or_default().to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = Vec::new();
    answer.take(length).read_to_end(&mut body).unwrap();
    text + &String::from_utf8_lossy(&body)
}

/// Collecting, with a site that says the secret back, is down, or wants another one.
fn collect(day: &mut Day) {
    let echo = day.path("echo.sh");
    fs::write(
        &echo,
        "#!/bin/sh\necho \"$OWN_VALUE\"; echo \"$OWN_VALUE\" >&2; env; env >&2; exit 3\n",
    )
    .unwrap();
    fs::set_permissions(&echo, fs::Permissions::from_mode(0o755)).unwrap();
    let source = format!(
        "name = \"echo\"\ntitle = \"echo\"\nprovider = \"local\"\nschedule = \"0 16 * * *\"\nfetch = {{ kind = \"command\", command = [\"{}\", \"{{date}}\"] }}\n\
         [store]\ntable = \"contract_infos\"\nunique = [\"comm_code\"]\nkey = [\"comm_code\"]\n\
         [[fields]]\ncolumn = \"comm_code\"\nfrom = \"contract\"\ntype = \"variety\"\nrequired = true\n",
        echo.display()
    );
    fs::create_dir_all(day.path("sources")).unwrap();
    fs::write(day.path("sources/echo.toml"), source).unwrap();
    day.must(
        "oa-crawl",
        &["-vv", "run", "zhihui-full-view", "--date", "2026-11-24"],
    );
    for fault in [
        "expired-token x1 then ok",
        "500 x1 then ok",
        "reset x1 then ok",
        "soft-block x1 then ok",
        "redirect-login x1 then ok",
    ] {
        day.fault(&format!("/zhihui: {fault}"));
        day.run(
            "oa-crawl",
            &["-vv", "run", "zhihui-full-view", "--date", "2026-11-24"],
        );
    }
    let sources = day.path("sources").display().to_string();
    day.run("oa-crawl", &["-vv", "run", "echo", "--sources", &sources]);
    day.run(
        "oa-crawl",
        &["try", "zhihui-full-view", "--date", "2026-11-24"],
    );
    day.run("oa-crawl", &["check"]);
    // A program that says all that it knows, in each form.
    let mut script =
        String::from("env; echo \"$OWN_VALUE\"; echo \"$OWN_VALUE\" >&2; cat <<'END'\n");
    // What another program was given is not known here.
    for secret in SECRETS.into_iter().filter(|s| *s != OLD_PASSWORD) {
        for form in forms(secret) {
            script.push_str(&form);
            script.push('\n');
        }
    }
    script.push_str("END\nexit 1\n");
    fs::write(day.path("says-all"), script).unwrap();
    let says_all = day.path("says-all").display().to_string();
    day.run(
        "oa-crawl",
        &[
            "-vv",
            "exec",
            "--task",
            "own",
            "--retries",
            "0",
            "--",
            "sh",
            &says_all,
        ],
    );
    day.run(
        "oa-crawl",
        &[
            "exec",
            "--task",
            "other",
            "--retries",
            "0",
            "--",
            "sh",
            &says_all,
        ],
    );
}

/// Without PostgreSQL, with the password of before, and with one that was never encoded.
fn without_database(day: &mut Day) {
    let port = day.server.port();
    for (what, url) in [
        ("the old password", address(OLD_PASSWORD, port)),
        ("a port where nobody listens", address(PASSWORD, 9)),
        (
            "a host that is none",
            format!(
                "postgresql://oa_daily:{}@no-such-host.invalid/oa",
                encoded(PASSWORD, "-._~")
            ),
        ),
        (
            "a password that is not encoded",
            format!("postgresql://oa_daily:{PASSWORD}@127.0.0.1:{port}/oa"),
        ),
        (
            "the other form",
            format!(
                "host=127.0.0.1 port={port} user=oa_daily dbname=nowhere password='{}'",
                PASSWORD.replace('\\', "\\\\")
            ),
        ),
    ] {
        for (name, arguments) in [
            ("oa-crawl", &["-vv", "run", "zhihui-full-view"][..]),
            ("oa-alert", &["-vv", "check"]),
            ("oa-backup", &["-vv", "full"]),
            ("oa-report", &["health"]),
            ("oa-migrate", &["init"]),
        ] {
            let mut command = day.command(name, arguments);
            command.env("DATABASE_URL", &url);
            let done = day.keep(name, arguments, command);
            assert!(!done.status.success(), "{name} with {what}: {done:?}");
        }
    }
}

fn alerts(day: &mut Day) {
    day.must("oa-alert", &["test", "ding"]);
    for fault in [
        "/dingtalk: code 310000 x2 then ok",
        "/dingtalk: 403 x2 then ok",
        "/feishu: refuse alert",
        "/beat: 403",
    ] {
        day.fault(fault);
        day.run("oa-alert", &["-vv", "test"]);
        day.run("oa-alert", &["-vv", "check"]);
    }
    for arguments in [
        &["list"][..],
        &["list", "--format", "json"],
        &["check-config"],
        &["flush"],
    ] {
        day.run("oa-alert", arguments);
    }
}

fn backups(day: &mut Day) {
    day.must("oa-backup", &["-vv", "full"]);
    day.must("oa-backup", &["full", "--kind", "logical"]);
    day.fault("/bucket: 403");
    for arguments in [
        &["-vv", "copy"][..],
        &["list", "--format", "json"],
        &["list", "--copy"],
        &["status"],
        &["doctor"],
        &["verify"],
    ] {
        day.run("oa-backup", arguments);
    }
    day.run("oa-restore", &["plan", "--to", "latest"]);
    let mut command = day.command("oa-backup", &["list"]);
    write_private(&day.path("key-2"), "another key of the repository\n");
    command.env("DATABASE_URL", address(PASSWORD, day.server.port()));
    day.keep("oa-backup", &["list"], command);
}

fn pages(day: &mut Day) {
    let mut command = day.command("oa-report", &["-vv", "serve", "--listen", "127.0.0.1:0"]);
    let log = day.path("serve.log");
    let file = fs::File::create(&log).unwrap();
    let mut serve = command
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .unwrap();
    let at = || {
        let text = fs::read_to_string(&log).unwrap();
        let at = text.split("http://").find_map(|part| {
            part.split(['/', ' ', '\n'])
                .next()
                .filter(|a| a.starts_with("127.0.0.1:") && !a.ends_with(":1"))
        });
        at.map(str::to_owned)
    };
    wait_until("the page", Duration::from_secs(60), || at().is_some());
    let at = at().unwrap();
    let get = |path: &str| {
        ask(
            &at,
            &format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"),
        )
    };
    let overview = get("/");
    let mut paths: Vec<String> = [
        "/",
        "/metrics",
        "/admin/crawler/health",
        "/admin/crawler/logs",
        "/admin/logs",
        "/api/v1/requests",
        "/api/v1/silences",
        "/admin/crawler/days",
    ]
    .map(str::to_owned)
    .to_vec();
    // Whatever the overview and the log lead to.
    for page in [overview, get("/admin/logs")] {
        paths.extend(
            page.split("href=\"")
                .skip(1)
                .filter_map(|part| part.split('"').next())
                .filter(|p| p.starts_with('/'))
                .map(|p| p.replace("&amp;", "&")),
        );
    }
    paths.sort();
    paths.dedup();
    assert!(paths.len() > 15, "{paths:?}");
    for path in paths {
        let answer = get(&path);
        day.seen.push((format!("page {path}"), answer.into_bytes()));
    }
    let _ = serve.kill();
    let _ = serve.wait();
    day.file(&log);
    for arguments in [
        &["logs", "--format", "json"][..],
        &["logs", "--format", "markdown"],
        &["daily"],
        &["daily", "--format", "json"],
        &["health"],
        &["doctor"],
        &["html"],
    ] {
        day.run("oa-report", arguments);
    }
}

#[test]
fn no_configured_secret_is_in_anything_that_the_programs_leave_behind() {
    let mut day = Day::start();
    day.must("oa-migrate", &["init"]);
    day.run("oa-backup", &["init"]);
    collect(&mut day);
    without_database(&mut day);
    // What waits in the spool, before it is drained.
    day.files("state");
    alerts(&mut day);
    backups(&mut day);
    day.run("oa-crawl", &["drain"]);
    pages(&mut day);
    day.files("state");
    day.files("repository");
    let messages = day.get("/_sim/messages");
    assert!(
        messages.contains("zhihui-full-view") || messages.contains("多空全景"),
        "{messages}"
    );
    // The simulated robots also note to which address a message came.
    let messages: Vec<&str> = messages.split("\"token\":\"").collect();
    let text = |part: &&str| part.split_once('"').map(|(_, text)| text.to_owned());
    let messages: String = messages.iter().skip(1).filter_map(text).collect();
    day.seen
        .push(("messages at the robots".to_owned(), messages.into_bytes()));
    let dump = Command::new(day.server.programs().join("pg_dump"))
        .args(["--inserts", "--dbname", &day.server.superuser_url()])
        .output()
        .unwrap();
    assert!(
        dump.status.success(),
        "{}",
        String::from_utf8_lossy(&dump.stderr)
    );
    assert!(String::from_utf8_lossy(&dump.stdout).contains("INSERT INTO oa.runs"));
    day.seen.push(("the database".to_owned(), dump.stdout));
    assert_no_secret(&day.seen);
    assert_children(&fs::read_to_string(day.path("started")).unwrap());
}

fn assert_no_secret(seen: &[(String, Vec<u8>)]) {
    let forms: Vec<String> = SECRETS.iter().flat_map(|secret| forms(secret)).collect();
    let all = aho_corasick::AhoCorasick::new(&forms).unwrap();
    let mut found = Vec::new();
    for (what, content) in seen {
        for at in all.find_iter(content) {
            let around =
                &content[at.start().saturating_sub(80)..(at.end() + 40).min(content.len())];
            let form = &forms[at.pattern().as_usize()];
            found.push(format!(
                "{form} in {what}: …{}…",
                String::from_utf8_lossy(around)
            ));
        }
    }
    found.truncate(60);
    assert!(
        found.is_empty(),
        "{} places:\n{}",
        found.len(),
        found.join("\n")
    );
}

/// PostgreSQL's programs have the password of the database in their environment, and no other secret; their arguments have none.
fn assert_children(started: &str) {
    for name in ["pg_dump", "pg_dumpall"] {
        assert!(
            started.contains(&format!("/{name} ")),
            "{name} was not started"
        );
    }
    for line in started.lines() {
        for secret in SECRETS {
            let is_password = secret == PASSWORD && line.starts_with("PGPASSWORD=");
            assert!(
                is_password || !forms(secret).iter().any(|form| line.contains(form)),
                "{line}"
            );
        }
    }
}
