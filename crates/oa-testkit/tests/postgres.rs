//! The private clusters do what tests rely on.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

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
        !std::path::Path::new(&data).exists()
    });
    assert!(std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err());
}
