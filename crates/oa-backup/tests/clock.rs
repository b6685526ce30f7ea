//! A clock that was wrong costs no backup, and does not look like safety.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::path::PathBuf;

use common::{Done, Service, done};

/// What makes programs see another time, so many days away from now (libfaketime).
fn clock(days: i32) -> Vec<(String, String)> {
    let library = fs::read_dir("/usr/lib")
        .unwrap()
        .flatten()
        .map(|e| e.path().join("faketime/libfaketime.so.1"))
        .find(|p| p.exists())
        .unwrap_or_else(|| PathBuf::from("/usr/lib/faketime/libfaketime.so.1"));
    assert!(
        library.exists(),
        "libfaketime is not installed: scripts/setup"
    );
    [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME", format!("{days:+}d")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("NO_FAKE_STAT", "1".to_owned()),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .to_vec()
}

fn at(service: &Service, clock: &[(String, String)], arguments: &[&str]) -> Done {
    let mut command = service.command(arguments);
    done(
        command
            .envs(clock.iter().map(|(k, v)| (k, v)))
            .output()
            .unwrap(),
    )
}

fn write(service: &Service, what: &str) {
    service
        .db()
        .execute(
            "INSERT INTO quotes SELECT coalesce(max(id), 0) + 1, 0, $1 FROM quotes",
            &[&what],
        )
        .unwrap();
}

/// The newest state that can be restored has this row, which was written last.
fn latest_has(service: &Service, what: &str) {
    let name = what.replace(' ', "_");
    let restored = service
        .restore(&["database", "--to", "latest", "--into", &name, "--yes"])
        .output()
        .unwrap();
    done(restored).expect(0);
    let url = service.url();
    let (address, _) = url.rsplit_once('/').unwrap();
    let mut db = postgres::Client::connect(&format!("{address}/{name}"), postgres::NoTls).unwrap();
    let row = db
        .query_one("SELECT note FROM quotes ORDER BY id DESC LIMIT 1", &[])
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), what);
}

#[test]
fn a_clock_that_jumps_loses_nothing_and_is_reported() {
    let mut service = Service::ready("kind = \"physical\"");
    service.take("full");
    // The machine's clock is forty days ahead for a while.
    let ahead = clock(40);
    service.server.restart_with(&ahead);
    write(&service, "ahead");
    at(&service, &ahead, &["incremental"]).expect(0);
    at(&service, &ahead, &["full"]).expect(0);
    write(&service, "ahead too");
    at(&service, &ahead, &["incremental"]).expect(0);
    // It is corrected.
    service.server.restart_with(&[]);
    write(&service, "corrected");
    service.take("incremental");
    let output = service.backup(&["status"]).expect(0);
    assert!(
        output.stdout.contains("is of the future"),
        "{}",
        output.stdout
    );
    let plan = service.restore(&["plan", "--to", "latest"]).output();
    let plan = done(plan.unwrap()).expect(0);
    assert!(
        plan.stderr.contains("which is in the future"),
        "{}",
        plan.stderr
    );
    let state =
        "SELECT (restorable_to < now()) || ' ' || (full_at < now()) FROM oa.repository_state";
    assert_eq!(
        service.texts(state),
        ["true true"],
        "nor does it look fresher than it is to alerts and report"
    );
    latest_has(&service, "corrected");
    service.backup(&["prune", "--yes"]).expect(0);
    let future = service
        .list()
        .iter()
        .filter(|b| b["level"] == "full")
        .count();
    assert_eq!(
        future, 3,
        "neither that of the future goes, nor the newest, nor the one to which WAL of the future belongs"
    );
    service.take("full");
    service.backup(&["verify"]).expect(0);
    // And then it is years behind, as after a dead battery: nothing may look old enough to go.
    let behind = clock(-1500);
    service.server.restart_with(&behind);
    write(&service, "behind");
    at(&service, &behind, &["incremental"]).expect(0);
    let listed = service.list().len();
    at(&service, &behind, &["prune", "--yes"]).expect(0);
    assert_eq!(service.list().len(), listed);
    at(&service, &behind, &["full"]).expect(0);
    service.server.restart_with(&[]);
    write(&service, "at last");
    service.take("incremental");
    latest_has(&service, "at last");
    service.backup(&["verify", "--read-data"]).expect(0);
}

#[test]
fn a_machine_whose_clock_is_behind_the_servers_goes_on_from_the_newest_full_backup() {
    let mut service = Service::ready("kind = \"physical\"");
    service.take("full");
    let behind = clock(-400);
    at(&service, &behind, &["incremental"]).expect(0);
    at(&service, &behind, &["incremental"]).expect(0);
    let listed = service.list();
    let fulls = listed.iter().filter(|b| b["level"] == "full").count();
    assert_eq!(fulls, 1, "{listed:?}");
    // What is newest, and what "now" is, does not go by that clock, whether the server answers or not.
    // To the second, as it is listed.
    let second = |at: &serde_json::Value| at.as_str().unwrap()[..19].to_owned();
    let newest = second(&listed.last().unwrap()["restorable_to"]);
    let restore = |service: &Service, arguments: &[&str]| {
        let mut command = service.restore(arguments);
        done(command.envs(behind.clone()).output().unwrap()).expect(0)
    };
    let as_of = |service: &Service, to: &str| {
        let plan = restore(service, &["plan", "--to", to, "--format", "json"]);
        let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
        second(&plan["as_of"])
    };
    assert_eq!(as_of(&service, "latest"), newest);
    restore(&service, &["drill", "--yes"]);
    let drilled = "SELECT (finished_at > started_at AND started_at > now() - interval '1 day')::text FROM oa.drills";
    assert_eq!(service.texts(drilled), ["true"]);
    service.server.stop();
    assert_eq!(as_of(&service, "latest"), newest);
    as_of(&service, "1s ago");
}
