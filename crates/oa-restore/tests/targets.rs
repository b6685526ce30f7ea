//! Any point in time between backups can be restored, exactly.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::support;

use support::{Restored, Service};

#[test]
fn every_form_of_a_target_restores_what_was_there_then() {
    let service = Service::start();
    service.init();
    service.sql(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'before the full')",
    );
    let early = service.now();
    service.backup(&["full"]).ok();
    service.sql("INSERT INTO t VALUES (2, 'second')");
    let between = service.now();
    service.sql("INSERT INTO t VALUES (3, 'third')");
    let place = service.lsn();
    service.sql("INSERT INTO t VALUES (4, 'fourth')");
    service.text("SELECT pg_create_restore_point('before the move')::text");
    service.sql("INSERT INTO t VALUES (5, 'fifth')");
    service.backup(&["incremental"]).ok();
    service.sql("INSERT INTO t VALUES (6, 'sixth')");
    let incremental = service
        .backup(&["incremental", "--format", "json"])
        .ok()
        .json();
    let id = incremental[0]["short_id"].as_str().unwrap().to_owned();
    service.sql("INSERT INTO t VALUES (7, 'never backed up')");

    let full = service.backup(&["list", "--format", "json"]).ok().json()[0]["short_id"]
        .as_str()
        .unwrap()
        .to_owned();
    for (n, (to, rows)) in [
        (between.as_str(), 2_i64),
        (place.as_str(), 3),
        ("name:before the move", 4),
        (id.as_str(), 6),
        ("latest", 6),
        (full.as_str(), 1),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("copy_{n}");
        let done = service
            .restore(&[
                "table", "t", "--to", to, "--as", &name, "--yes", "--format", "json",
            ])
            .ok();
        assert_eq!(done.json()[0]["rows"], rows, "{to}: {done:?}");
        assert_eq!(service.count(&name), rows, "{to}");
    }
    assert_eq!(service.count("t"), 7);
    assert_eq!(service.left(), Vec::<String>::new());

    // What was written a moment ago is backed up first, where it goes back into the server that it is of.
    let now = ["table", "t", "--to", "now", "--as", "copy_now", "--yes"];
    let first = service.restore(&[&now[..], &["--dry-run"]].concat()).ok();
    assert!(first.stdout.contains("would be backed up"), "{first:?}");
    assert_eq!(
        service.count("oa.runs WHERE task = 'backup-incremental'"),
        2
    );
    service.restore(&now).ok();
    assert_eq!(service.count("copy_now"), 7);
    assert_eq!(
        service.count("oa.runs WHERE task = 'backup-incremental'"),
        3
    );
    // What list prints is what --to takes.
    let listed = service.backup(&["list"]).ok().stdout;
    let printed = listed.lines().last().unwrap().split("  ").map(str::trim);
    let printed = printed.filter(|cell| cell.ends_with("CST")).last().unwrap();
    service
        .restore(&[
            "table",
            "t",
            "--to",
            printed,
            "--as",
            "copy_printed",
            "--yes",
        ])
        .ok();
    // It cannot be backed up: then nothing is restored that is not as wanted.
    let mut killed = service.command("oa-restore", &["table", "t", "--to", "now", "--as", "no"]);
    support::done(killed.env("OA_FAILPOINT", "backup.stored")).failed(1, "could not be backed up");
    assert_eq!(service.count("pg_class WHERE relname = 'no'"), 0);

    let late = service.restore(&["plan", "--to", "2099-01-01 10:00"]);
    late.failed(1, "--to latest");
    service
        .restore(&["plan", "--to", &early])
        .failed(1, "the earliest point in time that can be restored is");
    service
        .restore(&["plan", "--to", "yesterday"])
        .failed(2, "yesterday 14:05");
    let plan = service
        .restore(&["plan", "--to", &between, "--format", "json"])
        .ok()
        .json();
    assert_eq!(plan[0]["kind"], "physical");
}

#[test]
fn a_cluster_is_restored_ready_to_run_and_started() {
    let service = Service::start();
    service.init();
    service.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id");
    service.backup(&["full"]).ok();
    service.sql("INSERT INTO t VALUES (1001)");
    service.backup(&["incremental"]).ok();
    let target = service.path("restored");
    let to = target.to_str().unwrap();
    let done = service
        .restore(&[
            "cluster",
            "--to",
            "latest",
            "--target-dir",
            to,
            "--start",
            "--format",
            "json",
        ])
        .ok();
    let restored = Restored::of(&done.json()[0]);
    let mut client = restored.connect(&service);
    assert_eq!(support::count(&mut client, "t"), 1001);
    let row = client
        .query_one("SELECT pg_is_in_recovery(), current_setting('archive_mode'), current_setting('max_connections')", &[])
        .unwrap();
    assert_eq!(
        (
            row.get::<_, bool>(0),
            row.get::<_, String>(1),
            row.get::<_, String>(2)
        ),
        (false, "off".to_owned(), "60".to_owned())
    );
    service
        .restore(&["cluster", "--to", "latest", "--target-dir", to])
        .failed(77, "a server runs in");
    drop(restored);
    service
        .restore(&["cluster", "--to", "latest", "--target-dir", to])
        .failed(77, "not empty");
    service
        .restore(&["cluster", "--to", "latest", "--target-dir", to, "--force"])
        .failed(77, "add --yes");
    // Not even then where the backups are.
    for (name, why) in [
        ("repository", "the repository"),
        ("repository/new", "lies within the repository"),
        (".", "the repository"),
        ("state", "staging"),
    ] {
        let at = service.path(name).display().to_string();
        let arguments = ["--to", "latest", "--target-dir", &at, "--force", "--yes"];
        service
            .restore(&[&["cluster"][..], &arguments[..]].concat())
            .failed(77, why);
    }
    service
        .restore(&[
            "cluster",
            "--to",
            "latest",
            "--target-dir",
            to,
            "--force",
            "--yes",
        ])
        .ok();
    assert_eq!(service.left(), Vec::<String>::new());
}

#[test]
fn of_two_points_with_one_name_the_newer_is_meant() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    service.init();
    service.sql("CREATE TABLE t (id int)");
    let full = || {
        let made = service.backup(&["full", "--format", "json"]).ok();
        made.json()[0]["id"].as_str().unwrap().to_owned()
    };
    let first = full();
    for id in 1..=4 {
        service.sql(&format!("INSERT INTO t VALUES ({id})"));
        if id % 2 == 0 {
            service.text("SELECT pg_create_restore_point('before the move')::text");
        }
    }
    service.sql("INSERT INTO t VALUES (5)");
    service.backup(&["incremental"]).ok();
    service
        .restore(&["table", "t", "--to", "name:before the move", "--as", "copy"])
        .ok();
    assert_eq!(service.count("copy"), 4);
    // What is restored begins with the newest full backup that is whole, or with the one that is named.
    let second = full();
    let begins = |more: &[&str]| {
        let mut arguments = vec!["plan", "--to", "latest", "--format", "json"];
        arguments.extend(more);
        service.restore(&arguments).ok().json()[0]["backup"].clone()
    };
    assert_eq!(begins(&[]), second);
    assert_eq!(begins(&["--full", &first]), first);
    service.sql(&format!(
        "UPDATE oa.backups SET check_error = 'x' WHERE id = '{second}'"
    ));
    assert_eq!(begins(&[]), first);
    assert_eq!(begins(&["--full", &second]), second);
    service
        .restore(&["plan", "--to", "latest", "--full", "0000"])
        .failed(1, "no full physical backup 0000");
    service.sql("UPDATE oa.backups SET check_error = 'x' WHERE level = 'full'");
    assert_eq!(begins(&[]), second);
    let plan = service.restore(&["plan", "--to", "latest"]).ok();
    assert!(
        plan.stderr.contains("the verification of full backup"),
        "{plan:?}"
    );
    service.sql("UPDATE oa.backups SET check_error = NULL");
    // A point on a timeline that was given up is still the one of its name.
    service.text("SELECT pg_create_restore_point('given up')::text");
    let early = service.now();
    service.sql("INSERT INTO t VALUES (6)");
    service.text("SELECT pg_create_restore_point('lost')::text");
    service.sql("INSERT INTO t VALUES (7)");
    service.backup(&["incremental"]).ok();
    let target = service.path("restored");
    let arguments = [
        "cluster",
        "--to",
        &early,
        "--target-dir",
        target.to_str().unwrap(),
        "--start",
        "--format",
        "json",
    ];
    let row = service.restore(&arguments).ok().json();
    let restored = Restored::of(&row[0]);
    let url = restored.url(&service);
    let mut client = restored.connect(&service);
    client
        .batch_execute("INSERT INTO t SELECT generate_series(100, 2000); SELECT pg_switch_wal(); INSERT INTO t VALUES (8)")
        .unwrap();
    service.on(&url, "oa-backup", &["incremental"]).ok();
    for (name, rows) in [("given up", 5), ("lost", 6)] {
        let to = format!("name:{name}");
        let done = service.on(
            &url,
            "oa-restore",
            &[
                "table",
                "t",
                "--to",
                &to,
                "--as",
                &name.replace(' ', "_"),
                "--format",
                "json",
            ],
        );
        assert_eq!(done.ok().json()[0]["rows"], rows, "{name}");
    }
}
