//! Backups that disappear without being pruned, and what says so.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Done, PASSWORD, Service, done};
use oa_testkit::Postgres;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn alert(service: &Service) -> (Done, Vec<String>) {
    let mut command = Command::new(oa_testkit::program("oa-alert"));
    command
        .arg("--config")
        .arg(service.path("oa.toml"))
        .args(["check", "--format", "json"])
        .env("DATABASE_URL", service.url())
        .env("OA_BACKUP_PASSWORD", PASSWORD)
        .stdin(Stdio::null());
    let checked = done(command.output().unwrap());
    let rules = checked
        .json()
        .iter()
        .map(|f| f["rule"].as_str().unwrap().to_owned())
        .collect();
    (checked, rules)
}

fn status(service: &Service, code: i32) -> Value {
    service
        .backup(&["status", "--format", "json"])
        .expect(code)
        .json()
        .pop()
        .unwrap()
}

fn snapshot(service: &Service, backup: &Value) -> std::path::PathBuf {
    service.path(&format!(
        "repo/snapshots/{}",
        backup["id"].as_str().unwrap()
    ))
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(copied.success());
}

#[test]
fn wal_whose_full_backup_is_gone_is_not_ok_anywhere() {
    let service = Service::ready("kind = \"physical\"");
    let full = service.take("full");
    service.take("incremental");
    assert_eq!(status(&service, 0)["ok"], true);
    let short = full[0]["short_id"].as_str().unwrap();
    let (file, moved) = (snapshot(&service, &full[0]), service.path("moved"));
    fs::rename(&file, &moved).unwrap();

    // Before any of oa-backup's own runs has seen it.
    let (checked, rules) = alert(&service);
    assert!(
        checked.code == Some(2) && rules.contains(&"backup_missing".to_owned()),
        "{checked:?}"
    );
    let listed = service.backup(&["list", "--format", "json"]).expect(1);
    let why = format!("its full backup {short} is gone");
    assert!(listed.stderr.contains(&why), "{}", listed.stderr);
    let unrestorable = |b: &Value| b["unrestorable"].as_str().is_some_and(|w| w.contains(&why));
    assert!(listed.json().iter().all(unrestorable) && !listed.json().is_empty());
    let state = status(&service, 1);
    assert!(
        state["ok"] == false && state["rpo_seconds"].is_null(),
        "{state}"
    );
    assert_eq!(state["missing"], serde_json::json!([full[0]["id"]]));
    for arguments in [
        &["verify", "--format", "json"][..],
        &["verify", "--read-data", "--format", "json"],
    ] {
        let verified = service.backup(arguments).expect(1);
        assert!(
            verified.stderr.contains(short) && verified.stderr.contains(&why),
            "{}",
            verified.stderr
        );
        let result = |id: &Value| {
            let rows = verified.json();
            rows.iter().find(|r| r["id"] == *id).unwrap()["result"].clone()
        };
        assert_eq!(result(&full[0]["id"]), "missing");
        assert_eq!(result(&full[1]["id"]), "unrestorable");
    }
    assert_eq!(
        service.texts("SELECT (missing_since IS NOT NULL)::text || ' ' || (removed_at IS NULL)::text FROM oa.backups WHERE level = 'full'"),
        ["true true"]
    );
    assert_eq!(
        service.number("SELECT count(*) FROM oa.repository_state"),
        0
    );
    assert_eq!(alert(&service).0.code, Some(2));
    for arguments in [
        &["plan", "--to", "latest", "--kind", "physical"][..],
        &["plan", "--to", "latest"],
        &["plan", "--to", full[1]["id"].as_str().unwrap()],
    ] {
        let planned = done(service.restore(arguments).output().unwrap()).expect(1);
        assert!(
            planned.stderr.contains(short) && planned.stderr.contains("is gone"),
            "{}",
            planned.stderr
        );
    }

    // It is back, and all is well.
    fs::rename(&moved, &file).unwrap();
    service.backup(&["list"]).expect(0);
    service.backup(&["verify"]).expect(0);
    assert_eq!(status(&service, 0)["ok"], true);
    assert!(!alert(&service).1.contains(&"backup_missing".to_owned()));
    assert_eq!(
        service.number("SELECT count(*) FROM oa.backups WHERE missing_since IS NOT NULL OR unrestorable IS NOT NULL"),
        0
    );
}

#[test]
fn a_repository_that_was_put_back_to_an_older_state_lacks_what_was_recorded() {
    let service = Service::ready("kind = \"logical\"");
    service.take("full");
    copy_folder(&service.path("repo"), &service.path("older"));
    let lost = service.take("full");
    fs::rename(service.path("repo"), service.path("newer")).unwrap();
    fs::rename(service.path("older"), service.path("repo")).unwrap();
    // The next backup goes on, and what is missing is recorded as that: nobody has pruned it.
    service.take("full");
    let row = format!(
        "SELECT (missing_since IS NOT NULL)::text || ' ' || (removed_at IS NULL)::text FROM oa.backups WHERE id = '{}'",
        lost[0]["id"].as_str().unwrap()
    );
    assert_eq!(service.texts(&row), ["true true"]);
    assert_eq!(status(&service, 1)["ok"], false);
    let verified = service.backup(&["verify"]).expect(1);
    assert!(
        verified
            .stderr
            .contains(lost[0]["short_id"].as_str().unwrap()),
        "{}",
        verified.stderr
    );
    assert!(alert(&service).1.contains(&"backup_missing".to_owned()));
    assert_eq!(
        service.number("SELECT count(*) FROM oa.alerts WHERE task = 'backup-verify'"),
        0,
        "oa-alert check reports it"
    );
    // Nobody but a person gives it up.
    service.backup(&["prune", "--cron"]).expect(0);
    service.backup(&["prune", "--missing"]).expect(77);
    assert_eq!(service.texts(&row), ["true true"]);
    service.backup(&["prune", "--missing", "--yes"]).expect(0);
    assert_eq!(service.texts(&row), ["false false"]);
    service.backup(&["verify"]).expect(0);
    assert_eq!(status(&service, 0)["ok"], true);
}

#[test]
fn what_a_prune_removes_is_not_missing_even_if_it_is_killed() {
    let service =
        Service::ready("kind = \"logical\"\nkeep_hourly = 1\nkeep_daily = 1\nkeep_weekly = 1");
    for _ in 0..3 {
        service.take("full");
    }
    service.killed_at("backup.forgotten", &["prune", "--yes"]);
    assert_eq!(service.list().len(), 1);
    service.backup(&["verify"]).expect(0);
    assert!(!alert(&service).1.contains(&"backup_missing".to_owned()));
    assert_eq!(
        service.number(
            "SELECT count(*) FROM oa.backups WHERE removed_at IS NOT NULL AND missing_since IS NULL"
        ),
        2
    );
    service.backup(&["prune", "--yes"]).expect(0);

    // What somebody has pinned stays, under its id, until it is unpinned.
    let pinned = service.list()[0].clone();
    let id = pinned["short_id"].as_str().unwrap();
    service.backup(&["pin", id]).expect(2);
    service
        .backup(&["pin", id, "--reason", "before the move"])
        .expect(0);
    service
        .backup(&["pin", id, "--reason", "before the great move"])
        .expect(0);
    service.take("full");
    service.backup(&["prune", "--yes"]).expect(0);
    let all = service.list();
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(all[0]["id"], pinned["id"]);
    assert_eq!(all[0]["pinned"], "before the great move");
    let table = service.backup(&["list"]).expect(0).stdout;
    assert!(table.contains("before the great move"), "{table}");
    service.backup(&["verify"]).expect(0);
    service.backup(&["unpin", id]).expect(0);
    service.backup(&["prune", "--yes"]).expect(0);
    assert_eq!(service.list().len(), 1);
}

#[test]
fn what_is_pruned_while_it_is_verified_is_no_finding() {
    let service =
        Service::ready("kind = \"logical\"\nkeep_hourly = 1\nkeep_daily = 1\nkeep_weekly = 1");
    for _ in 0..3 {
        service.take("full");
    }
    // It has listed them, and cannot go on to look at them before the other one has removed them.
    let mut holder = service.db();
    holder
        .batch_execute("BEGIN; LOCK TABLE oa.backups IN SHARE MODE")
        .unwrap();
    let mut verify = service.command(&["verify", "--read-data"]);
    let verify = verify.spawn().unwrap();
    let waits =
        "SELECT count(*) FROM pg_locks WHERE relation = 'oa.backups'::regclass AND NOT granted";
    let limit = Duration::from_secs(60);
    oa_testkit::wait_until("verify to have listed the backups", limit, || {
        service.number(waits) == 1
    });
    let pid = Pid::from_raw(i32::try_from(verify.id()).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    holder.batch_execute("COMMIT").unwrap();
    service.backup(&["prune", "--yes"]).expect(0);
    kill_process(pid, Signal::CONT).unwrap();
    let verified = done(verify.wait_with_output().unwrap()).expect(0);
    assert_eq!(verified.stdout.lines().count(), 2, "{}", verified.stdout);
    let recorded = "SELECT count(*) FROM oa.backups WHERE removed_at IS NULL AND missing_since IS NULL AND check_error IS NULL";
    assert_eq!(service.number(recorded), 1);
    assert_eq!(status(&service, 0)["ok"], true);
}

#[test]
fn services_that_share_a_repository_neither_vouch_for_each_other_nor_prune_what_is_not_theirs() {
    let one = Service::ready("kind = \"logical\"");
    let first = one.take("full");
    let other = Service::with(Postgres::start_anew(), "kind = \"logical\"");
    let config = fs::read_to_string(other.path("oa.toml")).unwrap();
    let config = config.replace("\"repo\"", &format!("{:?}", one.path("repo")));
    let config = format!("{config}keep_hourly = 1\nkeep_daily = 1\nkeep_weekly = 1\n");
    fs::write(other.path("oa.toml"), config).unwrap();
    // Before the other one has any of its own, those of this one are not its.
    one.take("full");
    let none = other.backup(&["status"]).expect(1);
    assert!(none.stdout.contains("is of this server"), "{none:?}");
    other.backup(&["doctor"]).expect(1);
    other.backup(&["verify"]).expect(0);
    assert_eq!(other.number("SELECT count(*) FROM oa.backups"), 0);
    other.backup(&["prune", "--yes"]).expect(0);
    assert_eq!(one.list().len(), 2);
    for _ in 0..2 {
        one.take("full");
        other.take("full");
    }
    // Those of the other one are newer, and none of its backups is on record here.
    let newest = one.list().pop().unwrap();
    let json = status(&one, 0);
    assert_eq!(json["backups"], 6);
    assert_ne!(json["newest"], newest["id"]);
    assert_eq!(one.number("SELECT count(*) FROM oa.backups"), 4);
    other.backup(&["prune", "--yes"]).expect(0);
    let left = one.list();
    assert_eq!(left.len(), 5, "{left:?}");
    assert_eq!(left[0]["id"], first[0]["id"]);
    one.backup(&["verify"]).expect(0);
    other.backup(&["verify"]).expect(0);
    // An earlier version has recorded what is not there any more.
    one.db()
        .batch_execute(
            "INSERT INTO oa.backups (id, run_id, repository, kind, level, host, database, server_version, system_id, timeline, restorable_from,
                                     restorable_to, started_at, finished_at, files, size_bytes, added_bytes)
             SELECT 'gone', gen_random_uuid(), repository, kind, level, host, database, server_version, 'another', timeline, restorable_from,
                    restorable_to, started_at, finished_at, files, size_bytes, added_bytes FROM oa.backups LIMIT 1",
        )
        .unwrap();
    one.take("full");
    one.backup(&["verify"]).expect(0);
    assert_eq!(status(&one, 0)["ok"], true);
    // A secondary repository is this service's own affair, too.
    one.configure("kind = \"logical\"\n[backup.copy]\nrepository = \"second\"\npassword = \"env:OA_BACKUP_PASSWORD\"");
    one.create_repositories();
    let copied = one.backup(&["copy"]).expect(0).stdout;
    assert!(
        copied.starts_with("5 backup") && copied.contains("1 of other services"),
        "{copied}"
    );
    let copied = one.backup(&["copy", "--all"]).expect(0).stdout;
    assert!(copied.starts_with("1 backup"), "{copied}");
}

#[test]
fn while_postgresql_is_down_no_backup_is_removed() {
    let mut service =
        Service::ready("kind = \"logical\"\nkeep_hourly = 1\nkeep_daily = 1\nkeep_weekly = 1");
    service.take("full");
    service.take("full");
    service.server.stop();
    service.backup(&["prune", "--cron"]).expect(75);
    assert_eq!(service.list().len(), 2);
    service.server.start_again();
    service.backup(&["prune", "--cron"]).expect(0);
    assert_eq!(service.list().len(), 1);
}

#[test]
fn status_says_what_the_alerts_say() {
    let service = Service::ready("kind = \"logical\"");
    let full = service.take("full");
    assert_eq!(status(&service, 0)["ok"], true);
    let drill = |ok: bool| {
        service
            .db()
            .batch_execute(&format!(
                "INSERT INTO oa.drills (run_id, backup_id, repository, host, target, started_at, finished_at, ok, rto_seconds, error)
                 SELECT gen_random_uuid(), id, repository, host, now(), clock_timestamp(), clock_timestamp(), {ok}, 1, CASE WHEN NOT {ok} THEN 'quotes has 3 rows less' END FROM oa.backups"
            ))
            .unwrap();
    };
    drill(false);
    let failed = status(&service, 1);
    assert!(
        failed["ok"] == false
            && failed["problems"]
                .to_string()
                .contains("quotes has 3 rows less"),
        "{failed}"
    );
    assert!(alert(&service).1.contains(&"drill_failed".to_owned()));
    let output = service.backup(&["status"]).expect(1);
    assert!(
        output.stdout.contains("quotes has 3 rows less"),
        "{}",
        output.stdout
    );
    drill(true);
    assert_eq!(status(&service, 0)["ok"], true);
    // Damage that a verification has found.
    let largest = service
        .files("repo/data")
        .into_iter()
        .max_by_key(|f| fs::metadata(f).unwrap().len())
        .unwrap();
    let moved = largest.with_extension("moved");
    fs::rename(&largest, &moved).unwrap();
    service.backup(&["verify"]).expect(1);
    let list = service.list();
    assert!(
        list.iter().any(|b| b["check_error"].is_string()),
        "{list:?}"
    );
    let damaged = status(&service, 1);
    assert!(
        damaged["problems"]
            .to_string()
            .contains(full[0]["short_id"].as_str().unwrap()),
        "{damaged}"
    );
    fs::rename(&moved, &largest).unwrap();
    service.backup(&["verify"]).expect(0);
    assert_eq!(status(&service, 0)["ok"], true);
    service.configure("kind = \"logical\"\nrpo = \"1ms\"");
    assert_eq!(status(&service, 1)["ok"], false);
}

#[test]
fn with_the_crontab_and_an_ordinary_role_every_dump_counts_as_a_full_one() {
    let mut service = Service::ready("full_every = \"1h\"");
    service
        .db()
        .batch_execute("GRANT pg_read_all_data TO oa; GRANT USAGE ON SCHEMA oa TO oa; GRANT ALL ON ALL TABLES IN SCHEMA oa TO oa; GRANT ALL ON ALL SEQUENCES IN SCHEMA oa TO oa; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA oa TO oa")
        .unwrap();
    service.superuser = false;
    for command in [
        "full",
        "incremental",
        "prune",
        "full",
        "incremental",
        "prune",
    ] {
        service.backup(&[command, "--cron"]).expect(0);
    }
    let left = service.list();
    for level in ["full", "incremental"] {
        assert!(
            left.iter().any(|b| b["level"] == level),
            "no {level} one: {left:?}"
        );
    }
    let state = status(&service, 0);
    let newest = left.last().unwrap();
    assert!(
        state["ok"] == true && state["newest_full"] == newest["id"],
        "{state}"
    );
    // The ones that were asked for as full are long ago, and the dumps of each hour stand in for them.
    service.superuser = true;
    service
        .db()
        .batch_execute("UPDATE oa.backups SET finished_at = finished_at - interval '3 hours' WHERE level = 'full'")
        .unwrap();
    assert_eq!(
        service.texts("SELECT full_id FROM oa.repository_state"),
        [newest["id"].as_str().unwrap()]
    );
    assert!(!alert(&service).1.contains(&"backup_late".to_owned()));
}

#[test]
fn the_doctor_names_one_command_that_helps_and_harms_nothing() {
    let service = Service::start("kind = \"logical\"");
    let follow = |expected: &str| {
        let (order, done) = common::doctors_orders(&service).expect("no command");
        assert_eq!(order, expected);
        done.expect(0);
    };
    follow("oa-backup init");
    follow("oa-backup full");
    let well = service.backup(&["doctor"]).expect(0);
    assert!(well.stdout.starts_with("Nothing is wrong"), "{well:?}");
    let all = service.list();

    fs::remove_file(service.path("repo/config")).unwrap();
    follow("oa-backup repair");
    let key = service.files("repo/keys").remove(0);
    fs::write(&key, "damaged").unwrap();
    follow("oa-backup repair");
    fs::set_permissions(service.path("repo"), fs::Permissions::from_mode(0o755)).unwrap();
    follow(&format!("chmod -R go= {}", service.path("repo").display()));
    service.backup(&["doctor"]).expect(0);

    // Its disk is not mounted: nothing is made on the one underneath.
    fs::rename(service.path("repo"), service.path("mounted")).unwrap();
    fs::create_dir(service.path("repo")).unwrap();
    follow(&format!("df {}", service.path("repo").display()));
    assert_eq!(service.files("repo"), Vec::<std::path::PathBuf>::new());
    fs::remove_dir(service.path("repo")).unwrap();
    fs::rename(service.path("mounted"), service.path("repo")).unwrap();

    service
        .db()
        .batch_execute(
            "UPDATE oa.backups SET check_error = 'x', checked = 'data', checked_at = now()",
        )
        .unwrap();
    // Whoever reads everything finds that nothing is damaged any more, and that is on record.
    follow("oa-backup repair");
    service.backup(&["doctor"]).expect(0);
    service
        .db()
        .batch_execute("UPDATE oa.backups SET checked = 'structure', finished_at = now() - interval '90 days', started_at = now() - interval '90 days'")
        .unwrap();
    follow("oa-backup verify --read-data");
    assert_eq!(service.list()[0]["id"], all[0]["id"]);
}

#[test]
fn what_postgresql_has_recorded_and_does_not_give_is_no_good_news() {
    let mut service = Service::ready("kind = \"logical\"");
    service.take("full");
    status(&service, 0);
    // Between an update of the programs and oa-migrate init.
    service
        .db()
        .batch_execute("UPDATE oa.schema_history SET version = version - 1000 WHERE version > 1")
        .unwrap();
    let said = service.backup(&["status"]).expect(1);
    assert!(
        said.stdout.contains("is not known: ") && said.stdout.contains("oa-migrate init"),
        "{said:?}"
    );
    assert!(status(&service, 1)["ok"] == false);
    let list = service.backup(&["list"]).expect(0);
    assert!(list.stderr.contains("oa-migrate init"), "{list:?}");
    service
        .db()
        .batch_execute("UPDATE oa.schema_history SET version = version + 1000 WHERE version < 0")
        .unwrap();
    status(&service, 0);
    // Whatever else keeps it from being read.
    let rename = "ALTER TABLE oa.drills RENAME TO drills_elsewhere";
    service.db().batch_execute(rename).unwrap();
    let said = service.backup(&["status"]).expect(1);
    assert!(
        said.stdout.contains("\"oa.drills\" does not exist"),
        "{said:?}"
    );
    // After a disaster the repository alone must do.
    service.server.stop();
    let said = service.backup(&["status"]).expect(0);
    assert!(
        said.stdout.contains("nobody knows without PostgreSQL"),
        "{said:?}"
    );
}
