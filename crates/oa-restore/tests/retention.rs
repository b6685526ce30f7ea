//! What retention removes, seen from a restore.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::support;

use chrono::TimeDelta;
use oa_repository::Kind;
use support::{Restored, Service, count};

fn on_sql(url: &str, sql: &str) {
    let mut client = postgres::Client::connect(url, postgres::NoTls).unwrap();
    client.batch_execute(sql).unwrap();
}

#[test]
fn after_going_back_to_an_old_backup_prune_keeps_what_the_new_timeline_needs() {
    let service = Service::start_with("kind = \"physical\"\nkeep_weekly = 1\n", &[]);
    service.init();
    service.sql("CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    let old = service.backup(&["full", "--format", "json"]).ok().json();
    // The server goes on for long, so that everything newer has higher LSNs; a full backup of it is of yesterday.
    for _ in 0..6 {
        service.sql("INSERT INTO t SELECT generate_series(1, 10); SELECT pg_switch_wal()");
    }
    service.backup(&["full"]).ok();
    let yesterday = service.forge(Kind::Physical, |folder, meta| {
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().collect();
        let within = folder.join("data/pg_wal");
        std::fs::create_dir_all(&within).unwrap();
        for file in files {
            std::fs::rename(file.path(), within.join(file.file_name())).unwrap();
        }
        assert!(
            meta.wal.is_some(),
            "the WAL up to the full backup's end is the newest"
        );
        meta.restorable_to -= TimeDelta::days(1);
        let all = service.repository().backups().unwrap();
        let full = all
            .iter()
            .rev()
            .find(|b| b.meta.start_lsn.is_some())
            .unwrap();
        (meta.start_lsn, meta.end_lsn) = (full.meta.start_lsn, full.meta.end_lsn);
        (meta.wal, meta.level) = (None, full.meta.level);
    });

    let restored = |to: &str, name: &str| {
        let target = service.path(name);
        let target = target.to_str().unwrap().to_owned();
        let cluster = [
            "cluster",
            "--to",
            to,
            "--target-dir",
            &target,
            "--start",
            "--format",
            "json",
        ];
        Restored::of(&service.restore(&cluster).ok().json()[0])
    };
    let new = restored(old[0]["id"].as_str().unwrap(), "new");
    let url = new.url(&service);
    let mut client = new.connect(&service);
    assert_eq!(count(&mut client, "t"), 1);
    service.on(&url, "oa-backup", &["full"]).ok();
    client.batch_execute("INSERT INTO t VALUES (2)").unwrap();
    let between: String = client
        .query_one("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')", &[])
        .unwrap()
        .get(0);
    client.batch_execute("INSERT INTO t VALUES (3)").unwrap();
    service.on(&url, "oa-backup", &["incremental"]).ok();
    service.on(&url, "oa-backup", &["prune", "--cron"]).ok();
    let left = service.backup(&["list", "--format", "json"]).ok().json();
    assert!(
        left.iter().any(|b| b["id"] == *yesterday),
        "of its day it is the newest"
    );
    assert!(
        left.iter()
            .any(|b| b["timeline"] == 2 && b["level"] == "incremental"),
        "{left:?}"
    );
    service.on(&url, "oa-backup", &["verify"]).ok();
    service.on(&url, "oa-backup", &["incremental"]).ok();
    drop(client);
    drop(new);
    let again = restored(&between, "again");
    assert_eq!(count(&mut again.connect(&service), "t"), 2);
    let latest = restored("latest", "latest");
    assert_eq!(count(&mut latest.connect(&service), "t"), 3);
}

#[test]
fn after_going_back_on_a_new_machine_the_wal_of_the_new_timeline_begins_with_a_full_backup() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    service.init();
    service.sql("CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    let old = service.backup(&["full", "--format", "json"]).ok().json();
    service.backup(&["full"]).ok();
    let last = service
        .backup(&["incremental", "--format", "json"])
        .ok()
        .json();
    let end: String = last[0]["end_lsn"].as_str().unwrap().to_owned();
    let target = service.path("new");
    let row = service
        .restore(&[
            "cluster",
            "--to",
            old[0]["id"].as_str().unwrap(),
            "--target-dir",
            target.to_str().unwrap(),
            "--start",
            "--format",
            "json",
        ])
        .ok()
        .json();
    let new = Restored::of(&row[0]);
    let url = new.url(&service);
    let mut client = new.connect(&service);
    // Nothing that was received before is here, and the new WAL has come into the very segment in which the old one ended.
    std::fs::remove_dir_all(service.path("state/backup")).unwrap();
    let mut behind = |what: &str| -> bool {
        client
            .query_one(&format!("SELECT {what} < '{end}'::pg_lsn"), &[])
            .unwrap()
            .get(0)
    };
    while behind("pg_current_wal_insert_lsn() + 16777216") {
        on_sql(
            &url,
            "SELECT pg_logical_emit_message(false, 'x', 'x'); SELECT pg_switch_wal()",
        );
    }
    while behind("pg_current_wal_insert_lsn()") {
        on_sql(&url, "INSERT INTO t SELECT generate_series(1, 100)");
    }
    let next = service.on(&url, "oa-backup", &["incremental", "--format", "json"]);
    assert_eq!(next.json()[0]["level"], "full", "{next:?}");
    service.on(&url, "oa-backup", &["verify"]).ok();
    service.on(&url, "oa-backup", &["incremental"]).ok();
    let list = service.backup(&["list", "--format", "json"]).ok().json();
    assert!(list.iter().all(|b| b["unrestorable"].is_null()), "{list:?}");
}
