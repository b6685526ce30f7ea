//! The private clusters do what tests rely on.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use oa_testkit::{Postgres, wait_until};
use postgres::{Client, NoTls};

#[test]
fn a_cluster_has_a_password_and_an_unprivileged_role() {
    let server = Postgres::start();
    let superuser: bool = server
        .connect()
        .query_one(
            "SELECT rolsuper FROM pg_roles WHERE rolname = current_user",
            &[],
        )
        .unwrap()
        .get(0);
    assert!(!superuser);
    let wrong = server.url().replace("oa-test-password", "wrong");
    let error = Client::connect(&wrong, NoTls).err().expect("refused");
    assert_eq!(error.code().unwrap().code(), "28P01");
}

#[test]
fn two_clusters_do_not_know_each_other() {
    let (one, two) = (Postgres::start(), Postgres::start());
    one.connect()
        .batch_execute("CREATE TABLE only_here (a int)")
        .unwrap();
    assert!(two.connect().query("SELECT * FROM only_here", &[]).is_err());
}

#[test]
fn committed_rows_survive_a_crash_of_the_server() {
    let mut server = Postgres::start();
    server
        .connect()
        .batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
        .unwrap();
    server.kill();
    assert!(Client::connect(&server.url(), NoTls).is_err());
    server.start_again();
    assert_eq!(
        server
            .connect()
            .query_one("SELECT a FROM t", &[])
            .unwrap()
            .get::<_, i32>(0),
        1
    );
}

#[test]
fn settings_win_over_the_kit_s_own_and_may_hold_quotes() {
    let server = Postgres::start_with(&[("fsync", "on"), ("search_path", "public, 'it''s'")]);
    let mut client = server.connect();
    let mut show = |name: &str| -> String {
        client
            .query_one(&format!("SHOW {name}"), &[])
            .unwrap()
            .get(0)
    };
    assert_eq!(show("fsync"), "on");
    assert_eq!(show("search_path"), "public, 'it''s'");
    assert_eq!(
        show("TimeZone"),
        "UTC",
        "no test passes by the machine's zone"
    );
}

#[test]
fn the_server_runs_as_an_unprivileged_user_and_listens_on_loopback_only() {
    use std::os::unix::fs::MetadataExt;
    let server = Postgres::start();
    let pid = std::fs::read_to_string(server.data_dir().join("postmaster.pid")).unwrap();
    let process = format!("/proc/{}", pid.lines().next().unwrap());
    assert_ne!(std::fs::metadata(process).unwrap().uid(), 0);
    let address: String = server
        .connect()
        .query_one("SHOW listen_addresses", &[])
        .unwrap()
        .get(0);
    assert_eq!(address, "127.0.0.1");
}

/// Whether `openssl` may speak TLS with the server and finds the certificate right.
fn tls_is_accepted(port: u16, authority: &Path, name: &str) -> bool {
    Command::new("openssl")
        .args(["s_client", "-starttls", "postgres", "-verify_return_error"])
        .args(["-connect", &format!("127.0.0.1:{port}")])
        .args(["-verify_hostname", name])
        .arg("-CAfile")
        .arg(authority)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("openssl is installed")
        .success()
}

#[test]
fn only_a_cluster_with_tls_speaks_tls_and_proves_itself_to_its_own_authority_only() {
    let (server, authority) = Postgres::start_with_tls();
    let (_another, other_authority) = Postgres::start_with_tls();
    assert!(other_authority.is_file(), "it lives as long as its cluster");
    assert!(tls_is_accepted(server.port(), &authority, "localhost"));
    assert!(!tls_is_accepted(server.port(), &authority, "elsewhere"));
    assert!(!tls_is_accepted(
        server.port(),
        &other_authority,
        "localhost"
    ));
    let plain = Postgres::start();
    assert!(!tls_is_accepted(plain.port(), &authority, "localhost"));
}

/// Run by the test below in a process of its own, which is then killed.
#[test]
fn child_that_is_killed() {
    if std::env::var_os("OA_TESTKIT_CHILD").is_none() {
        return;
    }
    let server = Postgres::start();
    println!("\nserver {} {}", server.port(), server.data_dir().display());
    loop {
        std::thread::park();
    }
}

#[test]
fn a_killed_test_leaves_neither_server_nor_directory() {
    use std::io::{BufRead, BufReader};
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_is_killed", "--nocapture"])
        .env("OA_TESTKIT_CHILD", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines
        .map(Result::unwrap)
        .find(|l| l.starts_with("server "))
        .unwrap();
    let mut words = line.split(' ').skip(1);
    let (port, data) = (
        words.next().unwrap().to_owned(),
        words.next().unwrap().to_owned(),
    );
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the directory to go", Duration::from_secs(30), || {
        !Path::new(&data).parent().unwrap().exists()
    });
    assert!(std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err());
}
