//! Each version of PostgreSQL that is supported; all other tests take the one that is installed. `scripts/test --versions` installs the rest.
#![allow(clippy::unwrap_used)]

use crate::support;

use oa_testkit::Postgres;

use support::{Service, fast_folder};

/// A full backup, what came later, a table put back, a drill and the same from a dump.
fn is_backed_up_and_restored(major: u32) {
    let Some(server) = Postgres::start_version(major) else {
        return;
    };
    let settings = format!("bin_dir = \"{}\"\n", server.programs().display());
    let service = Service::with(server, &settings, &fast_folder());
    let version: String = service.text("SHOW server_version");
    assert!(version.starts_with(&major.to_string()), "{version}");
    service.sql("CREATE TABLE t AS SELECT n AS id, md5(n::text) AS name FROM generate_series(1, 5000) n; ALTER TABLE t ADD PRIMARY KEY (id)");
    service.init();
    let made = service.backup(&["full", "--format", "json"]).ok().json();
    let kinds: Vec<&str> = made.iter().map(|b| b["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["physical", "physical", "logical"]);
    let dump = made[2]["id"].as_str().unwrap().to_owned();
    service.sql("INSERT INTO t SELECT n, 'later' FROM generate_series(5001, 6000) n");
    let before = service.now();
    service.sql("UPDATE t SET name = 'spoilt'");
    let wal = service.backup(&["incremental", "--format", "json"]).ok();
    assert_eq!(wal.json()[0]["level"], "incremental");
    service.backup(&["verify", "--read-data"]).ok();

    service
        .restore(&["table", "t", "--to", &before, "--yes"])
        .ok();
    assert_eq!(service.count("t WHERE name = 'spoilt'"), 0);
    assert_eq!(service.count("t WHERE name = 'later'"), 1000);
    service.backup(&["incremental"]).ok();
    service.restore(&["drill", "--quick", "--yes"]).ok();
    service.restore(&["drill", "--yes"]).ok();
    service
        .restore(&["table", "t", "--to", &dump, "--as", "t_dumped", "--yes"])
        .ok();
    assert_eq!(service.count("t_dumped"), 5000);
    // A day later, after much has changed.
    service.backup(&["full"]).ok();
    service.backup(&["status"]).ok();
}

#[test]
fn postgresql_16_is_backed_up_and_restored() {
    is_backed_up_and_restored(16);
}

#[test]
fn postgresql_17_is_backed_up_and_restored() {
    is_backed_up_and_restored(17);
}

#[test]
fn postgresql_18_is_backed_up_and_restored() {
    is_backed_up_and_restored(18);
}
