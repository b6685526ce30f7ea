//! The server among the unfriendly: who may ask, what slow and greedy clients get, and what is said while PostgreSQL is down.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{SERVICE, Serving, Site, TOKEN};
use oa_testkit::wait_until;

const PATIENCE: Duration = Duration::from_secs(40);

const PATHS: [&str; 14] = [
    "/admin/",
    "/admin/logs",
    "/admin/backups",
    "/admin/alerts",
    "/admin/tasks/zhihui-reports",
    "/admin/crawler/health",
    "/admin/crawler/logs",
    "/admin/backup/status",
    "/api/v1/alerts",
    "/api/v1/quality",
    "/api/v1/backups",
    "/api/v1/drills",
    "/openapi.json",
    "/metrics",
];

#[test]
fn other_machines_are_served_only_with_a_token() {
    let site = Site::start("");
    let (code, _, error) = site.run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(77), "{error}");
    assert!(error.contains("oa-report token"), "{error}");
    let proxied = Site::start("[report]\nproxies = [\"127.0.0.1\"]\n");
    let (code, _, error) = proxied.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(77), "{error}");
    assert!(error.contains("oa-report token"), "{error}");
    let serving = site.serve(None);
    for path in PATHS {
        let reply = serving.get(path);
        assert_ne!(reply.status, 403, "{path}");
        // Nobody shows it in a frame, guesses what it is, or keeps it for somebody else.
        assert_eq!(reply.header("x-frame-options"), Some("DENY"), "{path}");
        let policy = reply.header("content-security-policy").unwrap();
        assert!(
            policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        let kept = reply.header("cache-control").unwrap();
        assert!(
            matches!(kept, "no-store" | "private, no-cache"),
            "{path}: {kept}"
        );
        // A page of another site whose name leads here.
        let reply = serving.ask("GET", path, &[("Host", "evil.example")], "");
        assert_eq!(reply.status, 403, "{path}");
    }
    // A proxy on this machine asks under this machine's name, for anybody; one that adds nothing asks as nginx does.
    for header in [
        ("X-Forwarded-For", "203.0.113.9"),
        ("Forwarded", "for=203.0.113.9"),
        ("X-Real-IP", "203.0.113.9"),
        ("Via", "1.1 proxy"),
    ] {
        let reply = serving.ask("GET", "/admin/", &[header], "");
        assert_eq!(reply.status, 403, "{header:?}");
        assert!(reply.text().contains("oa-report token"), "{}", reply.text());
    }
    let old = format!("GET /admin/ HTTP/1.0\r\nHost: {}\r\n\r\n", serving.at);
    assert_eq!(serving.raw(old.as_bytes()).status, 403);
    // Whether it is alive a proxy may know.
    let alive = format!("GET /healthz HTTP/1.0\r\nHost: {}\r\n\r\n", serving.at);
    assert_eq!(serving.raw(alive.as_bytes()).status, 200);
    // Taking on needs a name.
    let reply = serving.ask(
        "POST",
        "/api/v1/acks",
        &[("Content-Type", "application/json")],
        "{\"fingerprint\":\"x\"}",
    );
    assert_eq!(reply.status, 403, "{}", reply.text());
}

/// The cookie that a login page gives for a token.
fn log_in(serving: &common::Serving, token: &str, more: &[(&str, &str)]) -> common::Reply {
    let mut headers = vec![("Content-Type", "application/x-www-form-urlencoded")];
    headers.extend_from_slice(more);
    serving.ask(
        "POST",
        "/login",
        &headers,
        &format!("token={token}&next=%2Fadmin%2Fruns%2Fx%3Fa%3Db"),
    )
}

#[test]
fn whoever_logs_in_on_a_page_stays_logged_in_and_a_read_only_token_may_only_look() {
    use sha2::Digest;
    let hash: String = sha2::Sha256::digest(b"looks")
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let site = Site::with_token(&format!(
        "[report]\nproxies = [\"127.0.0.1\"]\n[report.tokens]\nscreen = \"read-only sha256:{hash}\"\n"
    ));
    fs::create_dir(site.dir.path().join("state")).unwrap();
    let serving = site.serve(None);
    assert_eq!(log_in(&serving, "wrong", &[]).status, 401);
    let foreign = [("Origin", "https://evil.example")];
    assert_eq!(log_in(&serving, common::TOKEN, &foreign).status, 403);
    let reply = log_in(&serving, common::TOKEN, &[]);
    assert_eq!(
        (reply.status, reply.header("location")),
        (303, Some("/admin/runs/x?a=b"))
    );
    let set = reply.header("set-cookie").unwrap().to_owned();
    assert!(
        set.contains("HttpOnly; SameSite=Lax") && !set.contains("Secure"),
        "{set}"
    );
    assert!(!set.contains(common::TOKEN));
    let https = log_in(&serving, common::TOKEN, &[("X-Forwarded-Proto", "https")]);
    assert!(https.header("set-cookie").unwrap().ends_with("; Secure"));
    let cookie = set.split(';').next().unwrap().to_owned();
    let with = |path: &str, cookie: &str| serving.ask("GET", path, &[("Cookie", cookie)], "");
    let page = with("/admin/", &format!("oa_lang=zh; {cookie}"));
    assert_eq!(page.status, 200);
    assert!(page.text().contains("我来处理") && page.text().contains("/logout"));
    assert_eq!(with("/api/v1/alerts", &cookie).status, 200);
    // It survives a restart, and other sites cannot use it to write.
    let fingerprint = "run_failed:jiaoyikecha-positions";
    let ack = |headers: &[(&str, &str)]| {
        let mut all = vec![("Content-Type", "application/json")];
        all.extend_from_slice(headers);
        let body = format!("{{\"fingerprint\":\"{fingerprint}\"}}");
        serving.ask("POST", "/api/v1/acks", &all, &body).status
    };
    assert_eq!(
        ack(&[
            ("Cookie", cookie.as_str()),
            ("Sec-Fetch-Site", "cross-site")
        ]),
        403
    );
    let looks = log_in(&serving, "looks", &[]);
    let looks = looks.header("set-cookie").unwrap();
    let looks = looks.split(';').next().unwrap().to_owned();
    let page = with("/admin/", &looks);
    assert!(page.status == 200 && !page.text().contains("我来处理"));
    assert_eq!(ack(&[("Cookie", looks.as_str())]), 403);
    assert_eq!(ack(&[("Cookie", cookie.as_str())]), 201);
    let out = serving.ask("POST", "/logout", &[("Cookie", &cookie)], "");
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    let (code, again) = (serving.stop(), site.serve(None));
    assert_eq!(code, Some(0));
    assert_eq!(
        again
            .ask("GET", "/admin/", &[("Cookie", &cookie)], "")
            .status,
        200
    );
}

#[test]
fn without_the_token_nothing_is_answered_and_guessing_is_cut_off() {
    let site = Site::with_token("");
    let serving = site.serve(None);
    for path in PATHS {
        // A browser asks without a token first, and gets the login page; whatever else asks gets what is wanted.
        let is_page = serving.get(path).text().contains("<form");
        let asked: &[(&str, &str)] = if is_page {
            &[("Authorization", "Basic eDp5")]
        } else {
            &[]
        };
        let (reply, first) = (serving.ask("GET", path, asked, ""), serving.get(path));
        assert_eq!((reply.status, first.status), (401, 401), "{path}");
        assert!(
            reply
                .header("www-authenticate")
                .unwrap()
                .starts_with("Basic"),
            "{path}"
        );
        assert_eq!(first.header("www-authenticate").is_none(), is_page);
        for text in [reply.text(), first.text()] {
            assert!(!text.contains("zhihui-f") && !text.contains("智汇"));
        }
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(serving.get(path).status, 200, "{path}");
    }
    let right = [("Authorization", "Bearer test-token-of-wang")];
    assert_eq!(
        serving
            .ask("GET", "/admin/crawler/health", &right, "")
            .status,
        200
    );
    wait_until("the door is closed for guesses", PATIENCE, || {
        let guess = [("Authorization", "Bearer guess-of-somebody")];
        serving.ask("GET", "/admin/", &guess, "").status == 429
    });
    let reply = serving.ask(
        "GET",
        "/admin/",
        &[("Authorization", "Bearer guess-of-somebody")],
        "",
    );
    assert_eq!(reply.status, 429);
    assert!(reply.header("retry-after").is_some());
    // The right one is let in all the same.
    assert_eq!(
        serving
            .ask("GET", "/admin/crawler/health", &right, "")
            .status,
        200
    );
    let log = fs::read_to_string(site.log()).unwrap();
    assert!(log.contains("wang GET /admin/crawler/health 200"), "{log}");
    assert!(
        !log.contains("test-token") && !log.contains("guess-of"),
        "{log}"
    );
}

#[test]
fn no_answer_holds_a_secret() {
    let site = Site::with_token("");
    // A program has put a password into everything that it could.
    site.sql("UPDATE oa.tasks SET last_error = 'could not open postgresql://oa:hunter22@db/oa';
              UPDATE oa.runs SET error_message = 'GET https://x/?token=hunter22' WHERE status = 'failed'");
    let serving = site.serve(Some(TOKEN));
    let password = site
        .server
        .url()
        .split(':')
        .nth(2)
        .unwrap()
        .split('@')
        .next()
        .unwrap()
        .to_owned();
    for path in PATHS.iter().chain(&[
        "/admin/crawler/logs?status=failed",
        "/admin/logs?status=failed",
    ]) {
        let reply = serving.get(path);
        assert_eq!(reply.status, 200, "{path}");
        let text = reply.text();
        assert!(
            !text.contains(&format!(":{password}@")) && !text.contains("hunter22"),
            "{path}"
        );
    }
}

/// A connection of another address than that of all others here.
fn from_elsewhere(serving: &Serving) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let stream = socket.connect(serving.at.parse().unwrap()).await.unwrap();
        stream.into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream
}

#[test]
fn slow_and_greedy_clients_are_cut_off_while_others_are_served() {
    let site = Site::with_token("");
    let serving = site.serve(Some(TOKEN));
    // More than there are connections, all of one address.
    let mut slow: Vec<TcpStream> = (0..600).map(|_| from_elsewhere(&serving)).collect();
    for stream in &mut slow {
        let _ = stream.write_all(b"GET /admin/ HTTP/1.1\r\nHost: localhost\r\nX-");
    }
    assert_eq!(serving.get("/admin/crawler/health").status, 200);
    let long = "x".repeat(100_000);
    let reply = serving.ask("GET", "/admin/", &[("X-Long", &long)], "");
    assert!(matches!(reply.status, 431 | 0), "{reply:?}");
    assert!(matches!(
        serving.get(&format!("/admin/?task={long}")).status,
        414 | 431 | 0
    ));
    assert_eq!(
        serving
            .get(&format!("/admin/crawler/logs?task={}", "x".repeat(300)))
            .status,
        400
    );
    let many: Vec<(String, String)> = (0..200)
        .map(|i| (format!("X-{i}"), "1".to_owned()))
        .collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert!(matches!(
        serving.ask("GET", "/healthz", &many, "").status,
        431 | 0
    ));
    let json_type = ("Content-Type", "application/json");
    assert_eq!(
        serving
            .ask("POST", "/api/v1/acks", &[json_type], &long)
            .status,
        413
    );
    assert!(matches!(serving.raw(b"nonsense\r\n\r\n").status, 400 | 0));
    assert_eq!(serving.get("/admin/..%2f..%2fetc%2fpasswd").status, 404);
    assert_eq!(serving.get("/assets/..%2fpage.css").status, 404);
    for stream in &mut slow {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut rest = Vec::new();
        let end = stream.read_to_end(&mut rest).map_err(|e| e.kind());
        assert!(
            matches!(end, Ok(_) | Err(ErrorKind::ConnectionReset)),
            "the server ends it: {end:?}"
        );
    }
    assert_eq!(serving.get("/admin/").status, 200);
}

fn health(serving: &Serving) -> serde_json::Value {
    let reply = serving.get("/admin/crawler/health");
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

#[test]
fn while_postgresql_is_away_the_last_news_are_given_and_marked_as_old() {
    let mut site = Site::with_token("");
    let serving = site.serve(Some(TOKEN));
    let page = serving.get("/admin/").text();
    assert!(!page.contains("class=\"stale\""));
    let before = health(&serving);
    site.server.stop();
    wait_until("it is stale", PATIENCE, || {
        health(&serving)["stale"] == true
    });
    let stale = health(&serving);
    assert!(
        stale["message"].as_str().unwrap().contains("PostgreSQL"),
        "{stale}"
    );
    assert!(stale["timestamp"].as_str() >= before["timestamp"].as_str());
    assert_eq!(
        stale["tasks"]["zhihui-reports"],
        health(&serving)["tasks"]["zhihui-reports"]
    );
    assert_eq!(stale["timestamp"], health(&serving)["timestamp"]);
    assert_eq!(serving.get("/admin/backup/status").json()["stale"], true);
    let page = serving.get("/admin/").text();
    assert!(
        page.contains("class=\"stale\"")
            && page.contains("数据库无法访问")
            && page.contains("class=\"strip\""),
        "{page}"
    );
    assert_eq!(
        (
            serving.get("/readyz").status,
            serving.get("/healthz").status
        ),
        (503, 200)
    );
    let logs = serving.get("/admin/crawler/logs");
    assert_eq!((logs.status, logs.header("retry-after")), (503, Some("5")));
    assert!(
        serving
            .get("/metrics")
            .text()
            .contains("\noa_database_up 0\n")
    );
    assert!(serving.get("/admin/logs").text().contains("暂时无法显示"));
    site.server.start_again();
    wait_until("it is fresh", PATIENCE, || {
        health(&serving)["stale"] == false
    });
    assert_eq!(serving.get("/admin/logs").status, 200);
    assert_eq!(serving.get("/readyz").status, 200);
    assert!(
        serving
            .get("/metrics")
            .text()
            .contains("\noa_database_up 1\n")
    );
}

/// Processes that do nothing until this is dropped.
struct Stopped(Vec<rustix::process::Pid>);

impl Stopped {
    /// The server's processes that answer the program.
    fn of(site: &Site) -> Self {
        let rows = site.server.connect().query(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'oa-report'",
            &[],
        );
        let pids: Vec<_> = rows
            .unwrap()
            .iter()
            .filter_map(|r| rustix::process::Pid::from_raw(r.get(0)))
            .collect();
        assert!(!pids.is_empty());
        let stopped = Self(pids);
        stopped.all(rustix::process::Signal::STOP);
        stopped
    }

    fn all(&self, signal: rustix::process::Signal) {
        for pid in &self.0 {
            rustix::process::kill_process(*pid, signal).unwrap();
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.all(rustix::process::Signal::CONT);
    }
}

#[test]
fn a_postgresql_that_hangs_is_away() {
    let site = Site::with_token("");
    let serving = site.serve(Some(TOKEN));
    assert_eq!(health(&serving)["stale"], false);
    let stopped = Stopped::of(&site);
    wait_until("it is stale", PATIENCE, || {
        health(&serving)["stale"] == true
    });
    // From now on nobody waits for it.
    let began = Instant::now();
    let stale = health(&serving);
    assert!(
        stale["message"]
            .as_str()
            .unwrap()
            .starts_with("PostgreSQL has not answered for "),
        "{stale}"
    );
    assert_eq!(serving.get("/admin/backup/status").json()["stale"], true);
    assert_eq!(serving.get("/readyz").status, 503);
    assert!(
        serving
            .get("/metrics")
            .text()
            .contains("\noa_database_up 0\n")
    );
    assert!(serving.get("/admin/").text().contains("class=\"stale\""));
    assert!(began.elapsed() < Duration::from_secs(4));
    drop(stopped);
    wait_until("it is fresh", PATIENCE, || {
        health(&serving)["stale"] == false
    });
    assert_eq!(serving.get("/readyz").status, 200);
}

#[test]
fn a_question_that_postgresql_does_not_answer_is_given_up() {
    let site = Site::with_token("");
    let serving = site.serve(Some(TOKEN));
    assert_eq!(serving.get("/admin/crawler/logs").status, 200);
    let _stopped = Stopped::of(&site);
    let logs = serving.get("/admin/crawler/logs");
    assert_eq!((logs.status, logs.header("retry-after")), (503, Some("5")));
    assert!(
        logs.text().contains("has not answered within 15 s"),
        "{}",
        logs.text()
    );
}

#[test]
fn what_this_program_cannot_read_is_reported_and_does_not_end_the_news() {
    let site = Site::with_token("");
    let serving = site.serve(Some(TOKEN));
    assert_eq!(health(&serving)["stale"], false);
    site.sql("UPDATE oa.tasks SET last_success_at = 'infinity' WHERE name = 'zhihui-reports'");
    wait_until("it is stale", PATIENCE, || {
        health(&serving)["stale"] == true
    });
    assert_eq!(serving.get("/readyz").status, 503);
    site.sql("UPDATE oa.tasks SET last_success_at = now() WHERE name = 'zhihui-reports'");
    wait_until("it is fresh", PATIENCE, || {
        health(&serving)["stale"] == false
    });
}

#[test]
fn it_starts_without_postgresql_and_finds_it_later() {
    let mut site = Site::with_token("");
    site.server.stop();
    let serving = site.serve(Some(TOKEN));
    for path in [
        "/admin/crawler/health",
        "/admin/",
        "/readyz",
        "/admin/backup/status",
    ] {
        assert_eq!(serving.get(path).status, 503, "{path}");
    }
    site.server.start_again();
    wait_until("it is found", PATIENCE, || {
        serving.get("/admin/crawler/health").status == 200
    });
    assert_eq!(serving.get("/admin/").status, 200);
}

#[test]
fn a_schema_of_another_version_is_named() {
    let site = Site::with_token("");
    site.sql("INSERT INTO oa.schema_history (version, name, applied_on, checksum) VALUES (999, 'later', now()::text, '1')");
    let serving = site.serve(Some(TOKEN));
    let reply = serving.get("/admin/crawler/logs");
    assert_eq!(reply.status, 500);
    assert!(
        reply.text().contains("install the newer oa programs"),
        "{}",
        reply.text()
    );
}

#[test]
fn it_ends_when_asked_and_finishes_what_it_began() {
    let site = Site::with_token("");
    let serving = site.serve(Some(TOKEN));
    // A connection that waits for its next request holds up nothing.
    let idle = TcpStream::connect(&serving.at).unwrap();
    assert_eq!(serving.get("/admin/").status, 200);
    assert_eq!(serving.stop(), Some(0));
    drop(idle);
    let (code, _, error) = {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        site.run(&[
            "serve",
            "--listen",
            &taken.local_addr().unwrap().to_string(),
        ])
    };
    assert_eq!(code, Some(1));
    assert!(error.contains("could not listen on"), "{error}");
}

#[test]
fn behind_a_proxy_links_have_its_path_and_the_log_its_client() {
    let site = Site::with_token("[report]\nbase_path = \"/ops/oa\"\nproxies = [\"127.0.0.1\"]\n");
    let serving = site.serve(Some(TOKEN));
    assert!(serving.page.ends_with("/ops/oa/admin/"));
    // The proxy leaves the path, or takes it off.
    for path in ["/ops/oa/admin/", "/admin/"] {
        let page = serving
            .ask(
                "GET",
                path,
                &[("X-Forwarded-For", "198.51.100.7, 203.0.113.9")],
                "",
            )
            .text();
        assert!(
            page.contains("href=\"/ops/oa/admin/logs\"") && page.contains("src=\"/ops/oa/assets/"),
            "{path}"
        );
        assert!(
            !page.contains("href=\"/admin") && !page.contains("action=\"/admin"),
            "{path}"
        );
    }
    let page = serving
        .ask("GET", "/admin/", &[("X-Forwarded-Prefix", "/other")], "")
        .text();
    assert!(page.contains("href=\"/other/admin/logs\""));
    let page = serving
        .ask(
            "GET",
            "/admin/",
            &[("X-Forwarded-Prefix", "//evil.example")],
            "",
        )
        .text();
    assert!(!page.contains("evil"));
    assert_eq!(serving.get("/ops/oa").header("location"), None);
    assert_eq!(
        serving.get("/ops/oa/").header("location"),
        Some("/ops/oa/admin/")
    );
    let log = fs::read_to_string(site.log()).unwrap();
    assert!(
        log.contains("203.0.113.9 wang GET /ops/oa/admin/ 200"),
        "{log}"
    );
    assert!(
        !log.contains("198.51.100.7 wang"),
        "what stands before may be invented"
    );
    drop(serving);
    // From others it is not believed.
    let site = Site::with_token("");
    let serving = site.serve(Some(TOKEN));
    let page = serving
        .ask(
            "GET",
            "/admin/",
            &[
                ("X-Forwarded-Prefix", "/other"),
                ("X-Forwarded-For", "203.0.113.9"),
            ],
            "",
        )
        .text();
    assert!(page.contains("href=\"/admin/logs\""));
    assert!(
        !fs::read_to_string(site.log())
            .unwrap()
            .contains("203.0.113.9")
    );
}

/// The page's own SQL.
fn documented_role() -> String {
    let page = fs::read_to_string(oa_testkit::workspace_root().join("docs/report.md")).unwrap();
    let (_, section) = page
        .split_once("## A role that may only read")
        .expect("the role's section");
    let block = section.split("```sql\n").nth(1).expect("the role's SQL");
    block
        .split("```")
        .next()
        .unwrap()
        .replace("'…'", "'reader-pw'")
}

#[test]
fn the_documented_role_reads_everything_and_writes_nothing() {
    let site = Site::start(&format!(
        "[report]\ndatabase_url = \"env:OA_TEST_READER\"\n[report.tokens]\nwang = \"{}\"\n",
        common::TOKEN_HASH
    ));
    site.sql(SERVICE);
    let mut admin =
        postgres::Client::connect(&site.server.superuser_url(), postgres::NoTls).unwrap();
    admin.batch_execute(&documented_role()).unwrap();
    let reader = site.server.url().replacen("oa:", "oa_reader:", 1);
    let password = site
        .server
        .url()
        .split(':')
        .nth(2)
        .unwrap()
        .split('@')
        .next()
        .unwrap()
        .to_owned();
    let reader = reader.replacen(&format!(":{password}@"), ":reader-pw@", 1);
    oa_testkit::write_private(
        &site.dir.path().join(".env"),
        format!("OA_TEST_READER='{reader}'\n"),
    );
    let serving = site.serve(Some(TOKEN));
    for path in PATHS {
        let reply = serving.get(path);
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
    let mut client = postgres::Client::connect(&reader, postgres::NoTls).unwrap();
    for sql in [
        "DELETE FROM oa.runs",
        "UPDATE oa.tasks SET title = 'x'",
        "UPDATE oa.incidents SET acknowledged_by = 'y'",
        "CREATE TABLE oa.x ()",
    ] {
        assert!(client.batch_execute(sql).is_err(), "{sql}");
    }
    // Taking on is written by the role of the database's own address.
    let body = "{\"fingerprint\":\"run_missed:rdqh-indicators\"}";
    assert_eq!(
        serving
            .ask(
                "POST",
                "/api/v1/acks",
                &[("Content-Type", "application/json")],
                body
            )
            .status,
        201
    );
}
