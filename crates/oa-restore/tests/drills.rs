//! A drill proves that a backup restores, or finds that it does not.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::support;

use std::fs;

use oa_repository::Kind;
use serde_json::Value;
use support::Service;

fn checks(drill: &Value) -> Vec<(String, Option<bool>)> {
    let checks = drill["checks"].as_array().unwrap().iter();
    checks
        .map(|c| (c["name"].as_str().unwrap().to_owned(), c["ok"].as_bool()))
        .collect()
}

#[test]
fn a_drill_restores_the_newest_backup_compares_it_and_is_on_record() {
    let mut service = Service::start_with("kind = \"physical\"\n", &[]);
    service.init();
    service
        .restore(&["drill", "--yes"])
        .failed(1, "oa-backup full");
    service.sql("CREATE TABLE t AS SELECT n AS id, md5(n::text) AS v FROM generate_series(1, 5000) n; ALTER TABLE t ADD PRIMARY KEY (id)");
    service.backup(&["full"]).ok();
    service.sql("UPDATE t SET v = 'changed' WHERE id < 100");
    service.backup(&["incremental"]).ok();
    service.restore(&["drill"]).failed(77, "add --yes");
    let drill = service
        .restore(&["drill", "--yes", "--format", "json"])
        .ok()
        .json();
    let drill = &drill[0];
    assert_eq!(drill["ok"], true);
    assert!(
        drill["rto_seconds"].as_f64().unwrap() > 0.0
            && drill["rpo_seconds"].as_f64().unwrap() >= 0.0
    );
    assert!(drill["tables"].as_u64().unwrap() >= 1, "{drill}");
    let all = ["files", "restore", "amcheck", "tables"].map(|n| (n.to_owned(), Some(true)));
    assert_eq!(checks(drill), all);
    assert_eq!(
        service.count("oa.drills WHERE ok AND rto_seconds > 0 AND tables >= 1 AND error IS NULL"),
        1
    );
    assert_eq!(service.count("oa.runs r JOIN oa.drills d ON d.run_id = r.id WHERE r.task = 'restore-drill' AND r.status = 'success'"), 1);

    // The day when it matters: PostgreSQL is down.
    service.server.stop();
    service.restore(&["drill", "--random", "--yes"]).ok();
    service.restore(&["plan", "--to", "latest"]).ok();
    service.server.start_again();
    service.restore(&["drill", "--yes"]).ok();
    assert_eq!(service.count("oa.drills WHERE ok"), 3);
    assert_eq!(service.left(), Vec::<String>::new());
}

#[test]
fn a_damaged_repository_is_found_by_the_drill_and_somebody_is_notified() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    service.init();
    service.sql(
        "CREATE TABLE t AS SELECT n AS id, md5(n::text) AS v FROM generate_series(1, 20000) n",
    );
    service.backup(&["full"]).ok();
    // The largest pack, where most of the cluster is, gets one byte changed.
    let mut packs: Vec<_> = fs::read_dir(service.path("repository/data"))
        .unwrap()
        .flat_map(|d| fs::read_dir(d.unwrap().path()).unwrap())
        .map(|f| f.unwrap().path())
        .collect();
    packs.sort_by_key(|p| fs::metadata(p).unwrap().len());
    let pack = packs.pop().unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    bytes[1000] ^= 1;
    fs::remove_file(&pack).unwrap();
    fs::write(&pack, bytes).unwrap();
    let drill = service.restore(&["drill", "--yes", "--format", "json"]);
    assert_eq!(drill.code, 1, "{drill:?}");
    let drill = drill.json();
    assert_eq!(drill[0]["ok"], false);
    assert_eq!(
        service.count("oa.drills WHERE NOT ok AND error IS NOT NULL"),
        1
    );
    assert_eq!(
        service.count("oa.runs WHERE task = 'restore-drill' AND status = 'failed'"),
        1
    );
    assert_eq!(
        service.count("oa.alerts WHERE task = 'restore-drill'"),
        0,
        "oa-alert check reports it (drill_failed)"
    );
    assert_eq!(service.left(), Vec::<String>::new());
    let to = service.path("restored");
    let cluster = service.restore(&[
        "cluster",
        "--to",
        "latest",
        "--target-dir",
        to.to_str().unwrap(),
    ]);
    cluster.failed(1, "could not restore a backup");
}

#[test]
fn a_restore_that_takes_longer_than_the_objective_is_reported() {
    let service = Service::start_with("kind = \"physical\"\nrto = \"1ms\"\n", &[]);
    service.init();
    service.backup(&["full"]).ok();
    let drill = service.restore(&["drill", "--cron"]).ok();
    assert!(drill.stderr.contains("the objective is"), "{drill:?}");
    assert_eq!(
        service.count("oa.drills WHERE ok AND rto_seconds > 0.001"),
        1
    );
}

#[test]
fn a_dump_is_rehearsed_too() {
    let service = Service::start_with("kind = \"logical\"\n", &[]);
    service.init();
    service.sql("CREATE TABLE t AS SELECT n AS id FROM generate_series(1, 50) n");
    service.backup(&["full"]).ok();
    let drill = service
        .restore(&["drill", "--yes", "--format", "json"])
        .ok();
    let drill = &drill.json()[0];
    let expected = [
        ("restore", Some(true)),
        ("amcheck", Some(true)),
        ("tables", Some(true)),
    ];
    assert_eq!(checks(drill), expected.map(|(n, ok)| (n.to_owned(), ok)));
}

#[test]
fn rows_that_are_not_as_they_were_recorded_fail_the_drill() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    service.init();
    service.sql(
        "CREATE TABLE t AS SELECT generate_series(1, 50) AS id; ALTER TABLE t ADD PRIMARY KEY (id)",
    );
    service.backup(&["full"]).ok();
    service.restore(&["drill", "--yes"]).ok();
    // What was recorded is another one's row: as many, with another value.
    service.forge(Kind::Physical, |_, meta| {
        let mark = meta.mark.as_mut().unwrap();
        assert!(mark.exact);
        mark.tables.get_mut("public.t").unwrap().hash = Some("0".repeat(32));
    });
    let drill = service.restore(&["drill", "--yes", "--format", "json"]);
    assert_eq!(drill.code, 1, "{drill:?}");
    let found = &drill.json()[0];
    assert_eq!(found["ok"], false);
    let tables = ("tables".to_owned(), Some(false));
    assert!(checks(found).contains(&tables), "{found}");
    assert_eq!(
        service.count(
            "oa.drills WHERE NOT ok AND error = 'table public.t has other rows than were recorded'"
        ),
        1
    );
}

#[test]
fn a_full_backup_whose_log_is_gone_is_rehearsed_by_itself() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    service.init();
    service.sql("CREATE TABLE t AS SELECT generate_series(1, 50) AS id");
    service.backup(&["full"]).ok();
    service.sql("INSERT INTO t SELECT generate_series(51, 99); SELECT pg_switch_wal()");
    service.backup(&["full"]).ok();
    let repository = service.repository();
    let all = repository.backups().unwrap();
    let older = all[0].clone();
    let its_log: Vec<_> = all
        .into_iter()
        .filter(|b| b.meta.full.as_ref() == Some(&older.id))
        .collect();
    assert_eq!(its_log.len(), 1);
    repository.forget(&its_log).unwrap();
    oa_testkit::wait_until(
        "chance to take the older one",
        std::time::Duration::from_secs(200),
        || {
            let drill = service
                .restore(&["drill", "--random", "--yes", "--format", "json"])
                .ok();
            drill.json()[0]["backup"] == older.id.as_str()
        },
    );
}

#[test]
fn a_managed_servers_roles_do_not_take_the_private_servers_rights() {
    let service = Service::start_with("kind = \"logical\"\n", &[]);
    service.init();
    service.sql("CREATE TABLE t AS SELECT generate_series(1, 50) AS id");
    service.backup(&["full"]).ok();
    service.forge(Kind::Logical, |folder, _| {
        let globals = folder.join("globals.sql");
        let text = fs::read_to_string(&globals).unwrap();
        fs::write(
            &globals,
            text + "ALTER ROLE postgres NOSUPERUSER NOLOGIN;\n",
        )
        .unwrap();
    });
    service.restore(&["drill", "--yes"]).ok();
}

#[test]
fn neither_what_roles_set_for_their_sessions_nor_a_closed_template_stops_a_drill() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    service.init();
    service.sql("CREATE TABLE t AS SELECT n AS id, md5(n::text) AS v FROM generate_series(1, 20000) n; ALTER TABLE t ADD PRIMARY KEY (id)");
    service.sql("ALTER ROLE postgres SET statement_timeout = '1ms'; ALTER DATABASE template1 ALLOW_CONNECTIONS false");
    service.backup(&["full"]).ok();
    service.sql("ALTER ROLE postgres RESET ALL");
    service.restore(&["drill", "--yes"]).ok();
}

#[test]
fn the_second_repository_restores_when_the_first_is_gone() {
    let service = Service::start_with(
        "kind = \"physical\"\npaths = [\"precious\"]\n[backup.copy]\nrepository = \"second\"\npassword = \"env:OA_BACKUP_PASSWORD\"\n",
        &[],
    );
    fs::create_dir(service.path("precious")).unwrap();
    fs::write(service.path("precious/picture"), "蓝图").unwrap();
    service.init();
    service.sql("CREATE TABLE t AS SELECT generate_series(1, 50) AS id");
    service.backup(&["full"]).ok();
    service.sql("INSERT INTO t VALUES (51)");
    service.backup(&["incremental"]).ok();
    service.backup(&["copy"]).ok();
    fs::remove_dir_all(service.path("repository")).unwrap();
    service
        .restore(&["drill", "--yes"])
        .failed(78, "oa-backup init");
    service
        .restore(&["plan", "--to", "latest", "--from-copy"])
        .ok();
    service.restore(&["drill", "--from-copy", "--yes"]).ok();
    let second = service.path("second");
    let text = format!("oa.drills WHERE ok AND repository = '{}'", second.display());
    assert_eq!(service.count(&text), 1);
    service
        .restore(&[
            "table",
            "t",
            "--to",
            "latest",
            "--as",
            "copy",
            "--from-copy",
        ])
        .ok();
    assert_eq!(service.count("copy"), 51);
    let target = service.path("restored");
    let arguments = [
        "cluster",
        "--to",
        "latest",
        "--from-copy",
        "--target-dir",
        target.to_str().unwrap(),
        "--start",
        "--format",
        "json",
    ];
    let restored = support::Restored::of(&service.restore(&arguments).ok().json()[0]);
    assert_eq!(support::count(&mut restored.connect(&service), "t"), 51);
    let files = service.path("files");
    service
        .restore(&[
            "files",
            "--to",
            "latest",
            "--from-copy",
            "--target-dir",
            files.to_str().unwrap(),
        ])
        .ok();
}
