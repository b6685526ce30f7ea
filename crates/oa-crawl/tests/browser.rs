//! Sources that need a browser, with the system's Chromium.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::Service;
use common::site::{Answer, Site};
use oa_testkit::wait_until;
use serde_json::{Value, json};

/// Whether the program finds a Chromium: by the same names, in `PATH` as it is handed on to the program.
pub fn has_chromium() -> bool {
    let names = [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| names.iter().any(|name| folder.join(name).is_file()))
}

/// With everything that the sources of browsers need.
fn start() -> Service {
    assert!(
        has_chromium(),
        "these tests need Chromium: install the package chromium (scripts/setup --tests does)"
    );
    let service = Service::start();
    configure(&service, "retries = 0\n");
    service
}

fn configure(service: &Service, more: &str) {
    service.configure(more);
    let env = "ZHIHUI_AUTH_TOKEN=sim-token\nJYK_USER=13800000000\nJYK_PASS=sim-password\n";
    oa_testkit::write_private(&service.dir.path().join(".env"), env);
}

fn cookies(service: &Service, provider: &str, value: &str) {
    let file = service.dir.path().join("export.json");
    let cookie = json!([{"name": "rongda_session", "value": value, "domain": "127.0.0.1", "path": "/", "session": true}]);
    fs::write(&file, cookie.to_string()).unwrap();
    let done = service.crawl(&["cookies", "import", provider, file.to_str().unwrap()]);
    assert_eq!(done.code, 0, "{done:?}");
    // By this oa-alert check knows that only a person can renew them.
    let mark = service.state().join(format!("browser/{provider}.imported"));
    assert!(mark.exists());
}

/// Processes of a browser that this service started.
fn browsers(service: &Service) -> usize {
    let folder = service.state().join("browser");
    let folder = folder.to_str().unwrap();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|p| fs::read(p.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(folder))
        .count()
}

/// Killed processes take a moment to end.
fn no_browser_is_left(service: &Service) {
    wait_until("the end of Chromium", Duration::from_secs(10), || {
        browsers(service) == 0
    });
}

fn status(row: &Value) -> (&str, &Value) {
    (row["status"].as_str().unwrap(), &row["error_kind"])
}

#[test]
fn the_answer_behind_a_page_is_taken_and_stored_by_the_minute() {
    let service = start();
    let row = service.run("openvlab-flow").row();
    assert_eq!(status(&row).0, "success", "{row}");
    assert!(row["inserted"].as_u64().unwrap() > 30, "{row}");
    assert_eq!(
        service.count("option_flows WHERE comm_code !~ '^[A-Z]{1,3}$' OR extract(second FROM record_time) <> 0"),
        0
    );
    no_browser_is_left(&service);
    for folder in [
        service.state().join("browser/profiles"),
        service.temporary(),
    ] {
        let left: Vec<_> = fs::read_dir(folder).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn the_table_of_the_page_stands_in_for_an_answer_that_does_not_come() {
    let service = start();
    let folder = service.export_sources();
    let folder = folder.as_str();
    let file = format!("{folder}/openvlab-flow.toml");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace("\"20s\"", "\"500ms\"");
    fs::write(
        &file,
        text.replace("path = \"/flow\"", "path = \"/flow-static\""),
    )
    .unwrap();
    let done = service.crawl(&[
        "run",
        "openvlab-flow",
        "--sources",
        folder,
        "--format",
        "json",
    ]);
    assert_eq!(
        (&done.row()["status"], &done.row()["inserted"]),
        (&json!("success"), &json!(2)),
        "{done:?}"
    );
    assert_eq!(
        service.text("SELECT string_agg(concat_ws(' ', comm_code, net_flow, volume, change_ratio), ', ' ORDER BY comm_code) FROM option_flows"),
        "RB 1234.5 2000 -1.5, SR -7 3 0"
    );
}

#[test]
fn a_login_is_done_once_and_its_cookies_are_used_again() {
    let service = start();
    let folder = service.export_sources();
    let folder = folder.as_str();
    let file = format!("{folder}/jiaoyikecha-positions.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("pause = \"2s\"", "pause = \"10ms\"")).unwrap();
    configure_timeout(&service, "60s");
    let run = || {
        let task = ["run", "jiaoyikecha-positions", "--sources", folder];
        service
            .crawl(&[&task[..], &["--format", "json"]].concat())
            .row()
    };
    let row = run();
    assert_eq!(
        (status(&row).0, &row["inserted"]),
        ("success", &json!(30)),
        "{row}"
    );
    assert_eq!(
        service.count(
            "institutional_positions WHERE broker_name LIKE '%代客%' AND net_position IS NOT NULL"
        ),
        30
    );
    let logins = |service: &Service| {
        let requests = service.sim.requests();
        requests
            .iter()
            .filter(|r| r.path.ends_with("login.php"))
            .count()
    };
    assert_eq!(logins(&service), 1);
    assert_eq!(run()["unchanged"], 30);
    assert_eq!(logins(&service), 1, "the session was still good");
    let kept = service.state().join("browser/jiaoyikecha.json");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        fs::metadata(kept).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn a_wrong_password_is_reported_at_once_and_never_shown() {
    let service = start();
    let env = "JYK_USER=13800000000\nJYK_PASS=wrong-password-x\n";
    oa_testkit::write_private(&service.dir.path().join(".env"), env);
    configure_timeout(&service, "12s");
    let done = service.run("jiaoyikecha-positions");
    let row = done.row();
    assert_eq!(status(&row), ("failed", &json!("auth")), "{row}");
    assert_eq!(row["attempts"], 1);
    assert!(
        row["error"].as_str().unwrap().contains("could not log in"),
        "{row}"
    );
    assert!(!format!("{done:?}").contains("wrong-password-x"));
    for file in fs::read_dir(service.state().join("failures"))
        .unwrap()
        .flatten()
    {
        let bytes = fs::read(file.path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("wrong-password-x"));
    }
}

#[test]
fn without_a_password_and_without_cookies_the_remedy_is_named() {
    let service = start();
    oa_testkit::write_private(&service.dir.path().join(".env"), "");
    let row = service.run("jiaoyikecha-positions").row();
    assert_eq!(status(&row), ("failed", &json!("auth")), "{row}");
    assert!(
        row["error"]
            .as_str()
            .unwrap()
            .contains("is set (oa-crawl check names it)"),
        "{row}"
    );
}

fn configure_timeout(service: &Service, limit: &str) {
    let text = fs::read_to_string(service.config()).unwrap();
    let text = text.replace("timeout = \"20s\"", &format!("timeout = \"{limit}\""));
    fs::write(service.config(), text).unwrap();
}

#[test]
fn imported_cookies_open_the_page_and_expired_ones_ask_for_a_person() {
    let service = start();
    let row = service.run("rongda-structure").row();
    assert_eq!(status(&row), ("failed", &json!("auth")), "{row}");
    assert!(
        row["error"].as_str().unwrap().contains("login page"),
        "{row}"
    );
    cookies(&service, "rongda", "sim");
    for task in ["rongda-structure", "rongda-positions"] {
        let row = service.run(task).row();
        assert_eq!(
            (status(&row).0, &row["inserted"]),
            ("success", &json!(40)),
            "{row}"
        );
    }
    assert_eq!(
        service.count("technical_indicators WHERE term_structure NOT IN ('contango', 'back') OR strength IS NULL"),
        0
    );
    cookies(&service, "rongda", "old");
    assert_eq!(
        status(&service.run("rongda-structure").row()).1,
        &json!("auth")
    );
    let nothing = service.crawl(&["cookies", "import", "rongda", "/dev/null"]);
    assert_eq!(nothing.code, 1, "{nothing:?}");
    let unknown = service.crawl(&["cookies", "import", "rongd", "/dev/null"]);
    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert!(
        unknown.stderr.contains("did you mean \"rongda\"?"),
        "{unknown:?}"
    );
}

#[test]
fn faults_are_distinguished_and_leave_a_picture() {
    let service = start();
    cookies(&service, "rongda", "sim");
    configure_timeout(&service, "6s");
    let page = "/rongda/analysis_futures_markets/market_structure";
    for (fault, kind) in [
        ("500", "http_5xx"),
        ("hang", "timeout"),
        ("soft-block", "timeout"),
        ("empty", "empty"),
    ] {
        service.sim.clear_faults();
        service.sim.fault(&format!("{page}: {fault}")).unwrap();
        let row = service.run("rongda-structure").row();
        assert_eq!(row["error_kind"], json!(kind), "{fault}: {row}");
    }
    service.sim.clear_faults();
    service.sim.fault("/openvlab/api/flow: 500").unwrap();
    assert_eq!(service.run("openvlab-flow").row()["error_kind"], "http_5xx");
    let pictures: Vec<_> = fs::read_dir(service.state().join("failures"))
        .unwrap()
        .flatten()
        .filter(|f| f.path().extension().is_some_and(|e| e == "png"))
        .collect();
    assert!(pictures.len() >= 3, "{pictures:?}");
    let picture = fs::read(pictures[0].path()).unwrap();
    assert!(picture.starts_with(b"\x89PNG") && picture.len() > 1000);
    no_browser_is_left(&service);
}

/// Sockets on which somebody listens, by their inode.
fn listening() -> Vec<String> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|table| {
            table
                .lines()
                .map(|l| l.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
                .filter(|fields| fields.get(3).is_some_and(|state| state == "0A"))
                .filter_map(|fields| fields.get(9).cloned())
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn while_a_page_is_open_no_other_user_of_the_machine_gets_at_the_browser() {
    use std::os::unix::fs::PermissionsExt;
    let service = start();
    service.sim.fault("/openvlab/api/flow: hang").unwrap();
    // However the folder was made.
    let profiles = service.state().join("browser/profiles");
    fs::create_dir_all(&profiles).unwrap();
    fs::set_permissions(&profiles, fs::Permissions::from_mode(0o777)).unwrap();
    let mut child = service
        .command(&["run", "openvlab-flow"])
        .env("ROBOT_TOKEN", "of-somebody-else")
        .env("ADDRESS", "postgresql://oa:of-somebody-else@db/oa")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the page's own request", Duration::from_secs(30), || {
        let asked = service.sim.requests();
        asked.iter().any(|r| r.path.ends_with("/openvlab/api/flow"))
    });
    let listening = listening();
    assert!(!listening.is_empty(), "the simulated sites listen at least");
    let folder = service.state().join("browser");
    let mut looked_at = 0;
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if !line.contains(folder.to_str().unwrap()) {
            continue;
        }
        looked_at += 1;
        assert!(!line.contains("--remote-debugging-port"), "{line}");
        let has = fs::read(process.path().join("environ")).unwrap_or_default();
        let has = String::from_utf8_lossy(&has).into_owned();
        let secrets = ["of-somebody-else", "oa-test-password"];
        assert!(!secrets.iter().any(|s| has.contains(s)), "{line}: {has}");
        let open = fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten();
        for file in open.flatten().filter_map(|f| fs::read_link(f.path()).ok()) {
            let file = file.display().to_string();
            let socket = file
                .strip_prefix("socket:[")
                .and_then(|f| f.strip_suffix(']'));
            assert!(
                socket.is_none_or(|inode| !listening.iter().any(|l| l == inode)),
                "{line} listens: {file}"
            );
        }
    }
    assert!(looked_at > 0);
    let profile = fs::read_dir(&profiles)
        .unwrap()
        .flatten()
        .next()
        .unwrap()
        .path();
    for path in [&folder, &profiles, &profile] {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", path.display());
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    child.wait().unwrap();
    no_browser_is_left(&service);
}

#[test]
fn a_browser_without_its_sandbox_is_a_finding() {
    let service = start();
    assert_eq!(service.run("openvlab-flow").row()["status"], "success");
    let finding = "without its sandbox";
    let findings = service.text("SELECT findings::text FROM oa.quality");
    assert_eq!(
        findings.contains(finding),
        rustix::process::geteuid().is_root(),
        "{findings}"
    );
}

#[test]
fn a_killed_run_leaves_no_browser_behind() {
    let service = start();
    service.sim.fault("/openvlab/api/flow: hang").unwrap();
    for signal in [rustix::process::Signal::KILL, rustix::process::Signal::TERM] {
        let mut child = service
            .command(&["run", "openvlab-flow"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let asked = service.sim.requests().len();
        wait_until("the page's own request", Duration::from_secs(30), || {
            service.sim.requests().len() > asked + 1 || browsers(&service) > 3
        });
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        child.wait().unwrap();
        no_browser_is_left(&service);
    }
}

#[test]
fn all_sources_at_once_while_postgresql_restarts_store_each_day_once() {
    let mut service = start();
    let folder = service.export_sources();
    let folder = folder.as_str();
    let file = format!("{folder}/jiaoyikecha-positions.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("pause = \"2s\"", "pause = \"10ms\"")).unwrap();
    configure(&service, "parallel = 11\n");
    configure_timeout(&service, "120s");
    cookies(&service, "rongda", "sim");
    let all = ["run", "--all", "--sources", folder, "--format", "json"];
    let running = service
        .command(&all)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("a first answer", Duration::from_secs(30), || {
        !service.sim.requests().is_empty()
    });
    service.server.stop();
    let asked = service.sim.requests().len();
    wait_until(
        "more answers without PostgreSQL",
        Duration::from_secs(60),
        || service.sim.requests().len() > asked + 5,
    );
    service.server.start_again();
    let done: common::Done = running.wait_with_output().unwrap().into();
    let first = service.crawl(&["drain"]);
    assert_eq!(first.code, 0, "{first:?} after {done:?}");
    assert_eq!(service.count("oa.runs"), 11, "{done:?}");
    assert_eq!(
        service.count("oa.runs WHERE status = 'success'"),
        11,
        "{done:?}"
    );
    let tables = "SELECT string_agg(format('%s %s', table_name, (xpath('//c/text()', query_to_xml(format('SELECT count(*) AS c FROM public.%I', table_name), false, true, '')))[1]), ', ' ORDER BY table_name)
                  FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'";
    let stored = service.text(tables);
    let again = service.crawl(&all);
    assert_eq!(again.code, 0, "{again:?}");
    for row in again.rows() {
        assert!(
            row["inserted"] == 0 || row["task"] == "openvlab-flow",
            "{row}"
        );
    }
    // What is read by the minute comes again by the minute.
    let without_flows = |text: &str| {
        let parts = text.split(", ").filter(|t| !t.starts_with("option_flows"));
        parts.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(without_flows(&service.text(tables)), without_flows(&stored));
    no_browser_is_left(&service);
}

/// `oa-crawl try` of a page at `/x` of this site, which may redirect to `named`.
fn attempt(base: &str, named: &str, proxy: Option<&str>) -> common::Done {
    assert!(has_chromium());
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        r#"
name = "page"
title = "页面"
provider = "own"
schedule = "0 9 * * *"
fetch = {{ kind = "browser", base = "{base}", path = "/x", redirects = ["{named}"] }}
browser = {{ steps = [{{ wait_for = "td" }}, {{ take_html = true }}] }}
answer = {{ table = {{ rows = "table tr", cells = "td", columns = ["code"] }} }}
store = {{ table = "commodities", unique = ["code"] }}
fields = [{{ column = "code", from = "code", type = "text", required = true }}]
"#
    );
    fs::write(dir.path().join("page.toml"), text).unwrap();
    let config = "state_dir = \"state\"\n[database]\nurl = \"env:X\"\n[crawl]\ntimeout = \"60s\"\n";
    fs::write(dir.path().join("oa.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_oa-crawl"));
    command
        .args(["--config", "oa.toml", "try", "page.toml"])
        .current_dir(dir.path())
        .envs(proxy.map(|proxy| ("http_proxy", proxy)));
    command.output().unwrap().into()
}

#[test]
fn a_page_elsewhere_that_leads_the_browser_to_this_machine_is_refused() {
    let victim = Site::start(|_| Answer::json("{\"of\": \"this machine\"}"));
    let there = victim.url.clone();
    let proxy = Site::start(move |_| Answer::redirect(302, there.clone()));
    let done = attempt("http://192.0.2.1", "http://192.0.2.2", Some(&proxy.url));
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.stdout.contains("an address of this machine"),
        "{done:?}"
    );
    assert_eq!(victim.asked().len(), 0, "nobody asked it");
}

/// A page that asks for a port of this machine in every way that there is, and shows its table when all of them have ended.
const HOSTILE: &str = include_str!("data/hostile.html");

fn page(content_type: &str, body: &str) -> Answer {
    Answer {
        status: 200,
        headers: vec![("content-type", content_type.to_owned())],
        body: body.to_owned(),
    }
}

#[test]
fn a_page_gets_at_nothing_of_this_machine_that_its_source_does_not_name() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    tcp.set_nonblocking(true).unwrap();
    udp.set_nonblocking(true).unwrap();
    let here = tcp.local_addr().unwrap();
    let named = Site::start(|_| Answer::json("{}"));
    let hostile = HOSTILE
        .replace("TCP_PORT", &here.port().to_string())
        .replace("UDP_PORT", &udp.local_addr().unwrap().port().to_string())
        .replace("NAMED", &named.url);
    let worker = format!(
        "addEventListener('install', e => e.waitUntil(fetch('http://{here}/', {{ mode: 'no-cors' }}).catch(() => 0)))"
    );
    let site = Site::start(move |asked| match asked.path.as_str() {
        "/away" => Answer::redirect(302, format!("http://{here}/away")),
        "/sw.js" => page("text/javascript", &worker),
        _ => page("text/html", &hostile),
    });
    // As a site of this machine, and as one elsewhere, which the operator's proxy reaches.
    for (base, proxy) in [(&*site.url, None), ("http://192.0.2.1", Some(&*site.url))] {
        let done = attempt(base, &named.url, proxy);
        assert_eq!(done.code, 0, "{done:?}");
        assert!(done.stdout.contains("RB"), "{done:?}");
        assert!(!named.asked().is_empty(), "what it names is reached");
        let came = tcp.accept().map(|(_, from)| from);
        assert_eq!(came.unwrap_err().kind(), ErrorKind::WouldBlock, "{base}");
        let came = udp.recv_from(&mut [0; 1500]);
        assert_eq!(came.unwrap_err().kind(), ErrorKind::WouldBlock, "{base}");
    }
}
