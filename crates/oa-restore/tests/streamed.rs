//! A stream of WAL beside the lines of the crontab: seconds can be lost and not an hour, whatever ends it or its server.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use crate::support;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use oa_testkit::wait_until;
use postgres::NoTls;

use support::{Done, Restored, Service};

const LIMIT: Duration = Duration::from_secs(120);

/// A stream that runs until it is dropped.
struct Stream(Child, PathBuf);

impl Stream {
    fn start(service: &Service, every: &str) -> Self {
        Self::start_as(service, every, None)
    }

    /// With an address that stands in `.env`, where somebody may change it.
    fn start_as(service: &Service, every: &str, address: Option<&str>) -> Self {
        let log = File::options()
            .create(true)
            .append(true)
            .open(service.path("stream.log"))
            .unwrap();
        let mut command = service.command("oa-backup", &["stream", "--every", every]);
        if let Some(address) = address {
            keep_address(service, address);
            command.env_remove("DATABASE_URL");
        }
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let stream = Self(child, service.path("stream.log"));
        receives(service);
        stream
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(&self.1).unwrap());
        }
    }
}

fn keep_address(service: &Service, address: &str) {
    let text = format!("DATABASE_URL={address}\n");
    oa_testkit::write_private(&service.path(".env"), text);
}

fn said(service: &Service) -> String {
    fs::read_to_string(service.path("stream.log")).unwrap()
}

/// Until the server has somebody who receives.
fn receives(service: &Service) {
    wait_until("the stream to receive", LIMIT, || {
        let mut client = postgres::Client::connect(&service.server.superuser_url(), NoTls);
        let sent = client.as_mut().ok().and_then(|client| {
            let sql = "SELECT FROM pg_stat_replication WHERE application_name = 'oa_stream' AND flush_lsn IS NOT NULL";
            client.query_opt(sql, &[]).ok()?
        });
        sent.is_some()
    });
}

/// How far the stream is behind, as `status` measures it; `None`: nothing is streamed.
fn lag(service: &Service) -> Option<f64> {
    let status = service.backup(&["status", "--format", "json"]);
    status.json()[0]["stream"]["seconds"].as_f64()
}

fn stored_after(service: &Service, what: &str) {
    let before = service.now();
    wait_until(what, LIMIT, || {
        service.count(&format!("oa.backups WHERE restorable_to > '{before}'")) > 0
    });
}

fn level(done: &Done) -> String {
    done.json()[0]["level"].as_str().unwrap().to_owned()
}

fn restored(service: &Service, sql: &str) -> String {
    let folder = service.path("again").display().to_string();
    let done = service.restore(&[
        "cluster",
        "--to",
        "latest",
        "--target-dir",
        &folder,
        "--start",
        "--yes",
        "--format",
        "json",
    ]);
    assert!([0, 75].contains(&done.code), "{done:?}");
    let server = Restored::of(&done.json()[0]);
    let row = server.connect(service).query_one(sql, &[]).unwrap();
    row.get(0)
}

#[test]
fn a_stream_goes_on_whatever_ends_it_or_its_server() {
    let mut service = Service::start_with("kind = \"physical\"\n", &[("fsync", "on")]);
    service.init();
    service.sql("CREATE TABLE t (id int); CREATE ROLE streamer SUPERUSER LOGIN PASSWORD 'before'");
    // Without any backup it makes a full one, and begins.
    let mut stream = Stream::start(&service, "1s");
    stored_after(&service, "what is streamed to be stored");
    assert!(lag(&service).unwrap() < 10.0);
    let status = service.backup(&["status"]).ok().stdout;
    assert!(status.contains("WAL is streamed: "), "{status}");

    // Beside it the lines of the crontab do what they always do, also across segments.
    service.sql("INSERT INTO t SELECT generate_series(1, 20000); SELECT pg_switch_wal(); INSERT INTO t VALUES (0)");
    let hourly = service.backup(&["incremental", "--format", "json"]).ok();
    assert_eq!(level(&hourly), "incremental");
    service.backup(&["full"]).ok();
    stored_after(&service, "the stream to continue the new full backup");
    let second = service.backup(&["stream"]);
    second.failed(77, "runs already");

    // A server that is the only one to wait for it does not wait for ever.
    service.sql("ALTER SYSTEM SET synchronous_standby_names = 'oa_stream'");
    service.sql("SELECT pg_reload_conf()");
    service.sql("INSERT INTO t VALUES (1)");

    // Killed: the next backup stores what it had received; nothing holds the slot.
    stream.kill();
    let next = service.backup(&["incremental", "--format", "json"]).ok();
    assert_eq!(level(&next), "incremental");
    let url = service.server.superuser_url();
    let (_, host) = url.split_once('@').unwrap();
    let address = |password: &str| format!("postgresql://streamer:{password}@{host}");
    stream = Stream::start_as(&service, "1s", Some(&address("before")));
    stored_after(&service, "a new stream to store");
    service.sql("ALTER ROLE streamer PASSWORD 'after'");
    keep_address(&service, &address("after"));
    stored_after(
        &service,
        "it to store with a password that was changed meanwhile",
    );
    service.sql("ALTER SYSTEM RESET synchronous_standby_names");
    service.sql("SELECT pg_reload_conf()");

    service.server.restart();
    receives(&service);
    stored_after(&service, "what came after the restart to be stored");

    // Somebody ends it on the server, and drops the slot.
    service.sql(
        "SELECT pg_terminate_backend(active_pid, 10000), pg_drop_replication_slot(slot_name) FROM pg_replication_slots",
    );
    wait_until("it to say so", LIMIT, || {
        said(&service).contains("is not on the server")
    });
    receives(&service);
    stored_after(&service, "what came after that to be stored");
    drop(stream);
    assert_eq!(
        service.count("oa.backups WHERE kind = 'physical' AND level = 'full'"),
        2,
        "no gap, so no more full ones than were asked for: {}",
        said(&service)
    );

    // Without a stream nobody makes it anew.
    service.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
    let doctor = service.backup(&["doctor"]);
    for words in ["is not on the server", "next: oa-backup incremental"] {
        assert!(
            doctor.code == 1 && doctor.stdout.contains(words),
            "{doctor:?}"
        );
    }
    service.backup(&["incremental"]).ok();
    service.backup(&["doctor"]).ok();
    service.backup(&["verify", "--read-data"]).ok();
    let rows = restored(&service, "SELECT count(*)::text FROM t");
    assert_eq!(rows, "20002");
}

#[test]
fn what_a_server_committed_seconds_before_it_died_is_restored() {
    let mut service = Service::start_with("kind = \"physical\"\n", &[]);
    service.init();
    service.sql("CREATE TABLE t (id int)");
    let stream = Stream::start(&service, "1h");
    service.sql("INSERT INTO t VALUES (7)");
    assert!(lag(&service).is_some(), "it was received");
    // What it knows the time of: it looks once a second.
    let written = service.now();
    wait_until("it to have looked twice", LIMIT, || {
        service.count(&format!(
            "pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'
             AND query_start > '{written}'::timestamptz + interval '2 seconds'"
        )) > 0
    });
    service.server.kill();
    wait_until("it to be stored", LIMIT, || {
        said(&service).contains("what was received before is stored")
    });
    drop(stream);
    assert_eq!(restored(&service, "SELECT id::text FROM t"), "7");
}

#[test]
fn a_stream_that_cannot_receive_anything_is_in_the_run_log() {
    let service = Service::start_with("kind = \"logical\"\n", &[]);
    service.init();
    service
        .backup(&["stream"])
        .failed(77, "WAL cannot be received");
    assert_eq!(
        service.count("oa.runs WHERE task = 'backup-stream' AND status = 'failed'"),
        1
    );
}
