//! Backups are made, listed, recorded, and can be read by a second program.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use common::{PASSWORD, Service};
use serde_json::json;

#[test]
fn a_full_backup_and_the_wal_after_it_are_listed_and_recorded() {
    let service = Service::ready("kind = \"physical\"");
    let full = service.take("full");
    let kinds: Vec<_> = full
        .iter()
        .map(|b| (b["kind"].clone(), b["level"].clone()))
        .collect();
    assert_eq!(
        kinds,
        [
            (json!("physical"), json!("full")),
            (json!("physical"), json!("incremental"))
        ]
    );
    service
        .db()
        .batch_execute("UPDATE quotes SET price = 1 WHERE id = 7")
        .unwrap();
    let next = service.take("incremental");
    assert_eq!(next.len(), 1);
    assert_eq!(next[0]["full"], full[0]["id"], "it says what it continues");
    assert!(
        next[0]["added_bytes"].as_u64().unwrap() < 2_000_000,
        "{next:?}"
    );

    assert_eq!(service.list().len(), 3);
    assert_eq!(service.texts("SELECT kind || ' ' || level || ' ' || checked FROM oa.backups ORDER BY started_at, restorable_to"), [
        "physical full structure",
        "physical incremental structure",
        "physical incremental structure"
    ]);
    assert_eq!(
        service.number(
            "SELECT (tables->'public.quotes'->>'rows')::int8 FROM oa.backups WHERE level = 'full'"
        ),
        2000
    );
    assert_eq!(
        service.texts(
            "SELECT DISTINCT status || ' ' || attempts FROM oa.runs WHERE tool = 'oa-backup'"
        ),
        ["success 1"]
    );
    assert_eq!(service.number("SELECT count(*) FROM oa.repositories"), 1);
    // Revisions are of the service's tables.
    assert_eq!(service.number("SELECT count(*) FROM oa.revisions"), 0);
    assert!(
        !service.path("state/backup/full").exists(),
        "the staged copy is gone"
    );
    let status = service.backup(&["status"]).expect(0);
    assert!(
        status.stdout.contains("no restore drill has run yet"),
        "{}",
        status.stdout
    );
    let all = service
        .backup(&["verify", "--read-data", "--format", "json"])
        .expect(0);
    assert!(
        all.json().iter().all(|b| b["result"] == "ok"),
        "{}",
        all.stdout
    );
    assert_eq!(
        service.texts("SELECT DISTINCT checked FROM oa.backups"),
        ["data"]
    );
}

#[test]
fn what_did_not_change_costs_next_to_nothing() {
    let service = Service::ready("kind = \"physical\"");
    service.take("full");
    let first = service.take("full");
    let size = first[0]["size_bytes"].as_u64().unwrap();
    let added = first[0]["added_bytes"].as_u64().unwrap();
    assert!(added * 10 < size, "{added} of {size} bytes stored again");
}

#[test]
fn what_is_stored_while_it_is_copied_is_one_backup_that_the_stock_restic_reads() {
    let service = Service::ready("kind = \"physical\"");
    for (n, rows) in [100_000, 500_000, 100_000, 100_000].iter().enumerate() {
        let sql = format!(
            "CREATE TABLE large_{n} AS SELECT i, md5(i::text || {n}) FROM generate_series(1, {rows}) i"
        );
        service.db().batch_execute(&sql).unwrap();
    }
    let largest = service
        .db()
        .query_one(
            "SELECT pg_relation_filepath('large_1'), pg_relation_size('large_1')",
            &[],
        )
        .unwrap();
    let (name, size): (String, i64) = (largest.get(0), largest.get(1));
    let arguments = ["full", "--limit-rate", "16MiB", "--format", "json"];
    let copying = service.command(&arguments).spawn().unwrap();
    let open = format!("/proc/{}/fd", copying.id());
    let is_read_while_it_grows = || {
        let files = std::fs::read_dir(&open).into_iter().flatten().flatten();
        files.flat_map(|file| file.path().read_link()).any(|file| {
            let here = file.metadata().map_or(0, |file| file.len());
            file.ends_with(&name) && here < size.unsigned_abs()
        })
    };
    oa_testkit::wait_until(
        "a table to be read while it is copied",
        Duration::from_secs(100),
        is_read_while_it_grows,
    );
    oa_testkit::wait_until("a part to be stored", Duration::from_secs(100), || {
        !service.files("repo/snapshots").is_empty()
    });
    assert!(service.list().is_empty(), "a part is no backup");
    let full = common::done(copying.wait_with_output().unwrap())
        .expect(0)
        .json();
    assert!(
        full[0]["added_bytes"].as_u64().unwrap() > 16 << 20,
        "{full:?}"
    );
    if Command::new("restic").arg("version").output().is_err() {
        oa_testkit::skip("restic", "scripts/setup --tests");
        return;
    }
    let restic = |arguments: &[&str]| {
        let output = Command::new("restic")
            .args(["--no-cache", "-r"])
            .arg(service.path("repo"))
            .args(arguments)
            .env("RESTIC_PASSWORD", PASSWORD)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "restic {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    restic(&["check", "--read-data"]);
    let snapshots: serde_json::Value =
        serde_json::from_str(&restic(&["snapshots", "--json"])).unwrap();
    assert_eq!(snapshots.as_array().unwrap().len(), 2);
    let to = service.path("by-restic");
    restic(&[
        "restore",
        full[0]["id"].as_str().unwrap(),
        "--target",
        to.to_str().unwrap(),
    ]);
    let verified = Command::new(service.server.programs().join("pg_verifybackup"))
        .arg(to.join("data"))
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn a_role_that_may_not_replicate_dumps_and_names_what_it_lacks() {
    let mut service = Service::start("");
    service.superuser = false;
    service.server.connect().batch_execute("CREATE TABLE mine (id int PRIMARY KEY); INSERT INTO mine SELECT generate_series(1, 50)").unwrap();
    let mut admin =
        postgres::Client::connect(&service.server.superuser_url(), postgres::NoTls).unwrap();
    admin.batch_execute("GRANT USAGE ON SCHEMA oa TO oa; GRANT ALL ON ALL TABLES IN SCHEMA oa, public TO oa; GRANT SELECT ON ALL SEQUENCES IN SCHEMA oa TO oa; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA oa TO oa").unwrap();
    let init = service.backup(&["init"]).expect(0);
    assert!(
        init.stdout.contains("backups will be logical")
            && init.stdout.contains("ALTER ROLE \"oa\" REPLICATION"),
        "{}",
        init.stdout
    );
    let refused = service.backup(&["full", "--kind", "physical"]).expect(77);
    assert!(
        refused.stderr.contains("ALTER ROLE \"oa\" REPLICATION"),
        "{}",
        refused.stderr
    );
    assert!(
        service.number(
            "SELECT count(*) FROM oa.alerts WHERE task = 'backup-full' AND kind = 'problem'"
        ) == 1,
        "a backup that was refused is reported"
    );
    admin
        .batch_execute("CREATE TABLE public.closed (id int)")
        .unwrap();
    let closed = service.backup(&["full"]).expect(77);
    assert!(
        closed.stderr.contains("pg_read_all_data")
            && closed.stderr.matches("permission denied").count() == 1,
        "{}",
        closed.stderr
    );
    admin.batch_execute("DROP TABLE public.closed").unwrap();
    let full = service.take("full");
    assert_eq!(full[0]["kind"], "logical");
    // Dumps only, where there were physical backups, is reported: nobody would notice.
    admin
        .batch_execute("ALTER ROLE oa REPLICATION; GRANT pg_read_all_data TO oa")
        .unwrap();
    assert_eq!(service.take("full")[0]["kind"], "physical");
    admin.batch_execute("ALTER ROLE oa NOREPLICATION").unwrap();
    let output = service
        .backup(&["incremental", "--format", "json"])
        .expect(1);
    assert!(
        output.stderr.contains("only a dump was made")
            && output.stderr.contains("slot oa_backup keeps holding WAL"),
        "{}",
        output.stderr
    );
    let next = output.json();
    assert_eq!(
        (next[0]["kind"].as_str(), next[0]["level"].as_str()),
        (Some("logical"), Some("incremental"))
    );
    let (first, second) = (
        full[0]["added_bytes"].as_u64().unwrap(),
        next[0]["added_bytes"].as_u64().unwrap(),
    );
    assert!(second < first, "{second} bytes after {first}");
}

#[test]
fn files_of_the_operator_go_along_and_a_problem_with_them_does_not_stop_the_database() {
    let service = Service::ready("kind = \"logical\"\npaths = [\"images\", \"oa.toml\"]");
    let missing = service.backup(&["full", "--format", "json"]).expect(1);
    assert!(
        missing.stderr.contains("images") && missing.stderr.contains("paths in [backup]"),
        "{}",
        missing.stderr
    );
    let kinds: Vec<_> = missing.json().iter().map(|b| b["kind"].clone()).collect();
    assert_eq!(
        kinds,
        ["logical", "files"],
        "the database and the other path are backed up all the same"
    );
    fs::create_dir_all(service.path("images/2025")).unwrap();
    fs::write(service.path("images/2025/蓝图.jpg"), vec![7; 300_000]).unwrap();
    let full = service.take("full");
    // A busy server may not have answered in time: the next run brings what was spooled.
    assert_eq!(
        service.texts("SELECT status FROM oa.runs WHERE task = 'backup-full' ORDER BY id LIMIT 1"),
        ["partial"]
    );
    assert_eq!(
        (full[1]["kind"].as_str(), full[1]["files"].as_u64()),
        (Some("files"), Some(2))
    );
    assert_eq!(
        service.take("incremental").len(),
        1,
        "files that did not change make no backup"
    );
    fs::write(service.path("images/2025/b.jpg"), vec![8; 1000]).unwrap();
    assert_eq!(service.take("incremental").len(), 2);

    // Files come and go while they are stored, as those of a raw archive do.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in (0..100_usize).cycle() {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                fs::write(service.path(&format!("images/{n}.json")), "{}").unwrap();
                let _ = fs::remove_file(service.path(&format!("images/{}.json", (n + 50) % 100)));
            }
        });
        let taken: Vec<_> = (0..2)
            .map(|_| service.backup(&["full", "--format", "json"]))
            .collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for done in taken {
            assert_eq!(done.expect(0).json().len(), 2);
        }
    });
}

#[test]
fn tablespaces_are_part_of_a_physical_backup() {
    let service = Service::ready("kind = \"physical\"");
    let place = service.server.data_dir().parent().unwrap().join("space");
    fs::create_dir(&place).unwrap();
    let owner = fs::metadata(service.server.data_dir()).unwrap();
    use std::os::unix::fs::MetadataExt;
    std::os::unix::fs::chown(&place, Some(owner.uid()), Some(owner.gid())).unwrap();
    service
        .db()
        .batch_execute(&format!(
            "CREATE TABLESPACE space LOCATION '{}'",
            place.display()
        ))
        .unwrap();
    service.db().batch_execute("CREATE TABLE far (id int) TABLESPACE space; INSERT INTO far SELECT generate_series(1, 10000)").unwrap();
    let full = service.take("full");
    let listed = Command::new("restic")
        .args([
            "--no-cache",
            "-r",
            service.path("repo").to_str().unwrap(),
            "ls",
            full[0]["id"].as_str().unwrap(),
        ])
        .env("RESTIC_PASSWORD", PASSWORD)
        .output();
    if let Ok(listed) = listed {
        let text = String::from_utf8(listed.stdout).unwrap();
        assert!(
            text.lines()
                .any(|l| l.starts_with("/tablespaces/") && l.contains("PG_")),
            "{text}"
        );
    }
}

#[test]
fn backups_run_while_rows_are_written_and_block_nobody() {
    let service = Service::ready("kind = \"physical\"");
    let url = service.server.superuser_url();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut db = postgres::Client::connect(&url, postgres::NoTls).unwrap();
            db.batch_execute(
                "SET statement_timeout = '5s'; CREATE TABLE log (id serial PRIMARY KEY, t text)",
            )
            .unwrap();
            let mut n = 0_u32;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                db.execute("INSERT INTO log (t) SELECT md5(random()::text)", &[])
                    .unwrap();
                n += 1;
            }
            n
        });
        for level in ["full", "incremental", "incremental"] {
            service.take(level);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        writer.join().unwrap()
    });
    assert!(written > 10, "{written} rows");
    service.backup(&["verify"]).expect(0);
}

#[test]
fn a_role_that_may_replicate_and_read_is_enough() {
    let mut service = Service::start("kind = \"physical\"\ndatabase_url = \"env:BACKUP_URL\"");
    // As docs/backup.md has it; the run log is kept by the service's own role.
    service
        .db()
        .batch_execute("CREATE ROLE oa_backup LOGIN REPLICATION PASSWORD 'for-backups-only'; GRANT pg_read_all_data, pg_read_all_stats TO oa_backup;
             GRANT USAGE ON SCHEMA oa TO oa; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA oa TO oa; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA oa TO oa")
        .unwrap();
    service.superuser = false;
    let url = service.server.url().replacen("//oa:", "//oa_backup:", 1);
    let (before, after) = url.split_once("oa_backup:").unwrap();
    let (_, host) = after.split_once('@').unwrap();
    let url = format!("{before}oa_backup:for-backups-only@{host}");
    let run = |arguments: &[&str]| {
        common::done(
            service
                .command(arguments)
                .env("BACKUP_URL", &url)
                .output()
                .unwrap(),
        )
    };
    run(&["init"]).expect(0);
    let full = run(&["full", "--format", "json"]).expect(0).json();
    assert_eq!(
        (full[0]["kind"].as_str(), full.len()),
        (Some("physical"), 2)
    );
    assert!(
        full[0]["tables"].as_u64().unwrap() > 20,
        "its tables are counted: {}",
        full[0]
    );
    run(&["incremental"]).expect(0);
    run(&["full", "--kind", "logical"]).expect(0);
}

#[test]
fn a_standby_can_be_backed_up_and_after_its_promotion_as_well() {
    // A standby cannot be copied when its primary writes no full pages.
    let server = oa_testkit::Postgres::start_with(&[("full_page_writes", "on")]);
    let primary = Service::with(
        server,
        "kind = \"physical\"\ndatabase_url = \"env:STANDBY_URL\"",
    );
    let standby = primary.server.start_standby();
    let run = |arguments: &[&str]| {
        let output = primary
            .command(arguments)
            .env("STANDBY_URL", standby.superuser_url())
            .output();
        common::done(output.unwrap())
    };
    run(&["init"]).expect(0);
    let first = run(&["full", "--format", "json"]).expect(0).json();
    assert_eq!(first[0]["timeline"], 1);
    primary
        .db()
        .batch_execute("UPDATE quotes SET price = 2 WHERE id = 9")
        .unwrap();
    oa_testkit::wait_until(
        "the standby to follow",
        std::time::Duration::from_secs(30),
        || {
            let mut db =
                postgres::Client::connect(&standby.superuser_url(), postgres::NoTls).unwrap();
            let row = db.query_one("SELECT price FROM quotes WHERE id = 9", &[]);
            row.unwrap().get::<_, f64>(0) == 2.0
        },
    );
    assert_eq!(
        run(&["incremental", "--format", "json"]).expect(0).json()[0]["level"],
        "incremental"
    );
    standby.promote();
    let mut promoted =
        postgres::Client::connect(&standby.superuser_url(), postgres::NoTls).unwrap();
    promoted
        .batch_execute("INSERT INTO quotes VALUES (99999, 1, 'on the new timeline')")
        .unwrap();
    let after = run(&["incremental", "--format", "json"]).expect(0).json();
    assert_eq!(after.last().unwrap()["timeline"], 2, "{after:?}");
    run(&["full"]).expect(0);
    run(&["verify", "--read-data"]).expect(0);
    assert_eq!(
        primary
            .number("SELECT count(*) FROM oa.runs WHERE tool = 'oa-backup' AND status = 'success'"),
        5
    );
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let service = Service::ready("kind = \"physical\"");
    for (level, words) in [("full", "pg_basebackup"), ("incremental", "pg_receivewal")] {
        let done = service.backup(&[level, "--dry-run"]).expect(0);
        assert!(
            done.stdout.contains(words) && done.stdout.contains("nothing was done"),
            "{}",
            done.stdout
        );
    }
    assert!(service.list().is_empty());
    assert_eq!(service.number("SELECT count(*) FROM oa.runs"), 0);
}

#[test]
fn the_secondary_repository_gets_what_it_lacks() {
    let service = Service::start(
        "kind = \"logical\"
[backup.copy]\nrepository = \"elsewhere\"\npassword = \"env:OTHER_PASSWORD\"",
    );
    let with = |arguments: &[&str]| {
        common::done(
            service
                .command(arguments)
                .env("OTHER_PASSWORD", "another-password")
                .output()
                .unwrap(),
        )
    };
    with(&["init"]).expect(0);
    with(&["full"]).expect(0);
    assert!(with(&["copy"]).expect(0).stdout.starts_with("1 backup"));
    with(&["incremental"]).expect(0);
    assert!(with(&["copy"]).expect(0).stdout.starts_with("1 backup"));
    assert!(with(&["copy"]).expect(0).stdout.starts_with("0 backup"));
    assert_eq!(
        with(&["list", "--copy", "--format", "json"])
            .expect(0)
            .json()
            .len(),
        2
    );
    with(&["verify", "--copy", "--read-data"]).expect(0);
    assert_eq!(
        service.number("SELECT count(DISTINCT repository) FROM oa.backups"),
        2
    );
    // With a key that cannot delete: a copy only adds, and what would delete is refused before it tries.
    let configured = fs::read_to_string(service.path("oa.toml")).unwrap();
    fs::write(
        service.path("oa.toml"),
        format!("{configured}\nappend_only = true\n"),
    )
    .unwrap();
    let contents = || -> BTreeMap<_, _> {
        let files = service.files("elsewhere").into_iter();
        files.map(|f| (f.clone(), fs::read(f).unwrap())).collect()
    };
    let before = contents();
    with(&["incremental"]).expect(0);
    assert!(with(&["copy"]).expect(0).stdout.starts_with("1 backup"));
    let after = contents();
    assert!(
        before
            .iter()
            .all(|(file, content)| after.get(file) == Some(content))
    );
    assert!(after.len() > before.len());
    for arguments in [
        &["prune", "--copy", "--yes"][..],
        &["repair", "--copy", "--yes"],
    ] {
        let refused = with(arguments).expect(77);
        assert!(refused.stderr.contains("append_only"), "{refused:?}");
    }
    with(&["prune", "--missing", "--copy", "--yes"]).expect(0);
    assert_eq!(contents(), after);
    fs::write(service.path("oa.toml"), configured).unwrap();
    // What has disappeared there is missing until it was copied anew.
    fs::remove_file(service.files("elsewhere/snapshots").pop().unwrap()).unwrap();
    let missing = with(&["verify", "--copy"]).expect(1);
    assert!(missing.stderr.contains("oa-backup copy"), "{missing:?}");
    assert!(with(&["copy"]).expect(0).stdout.starts_with("1 backup"));
    with(&["verify", "--copy"]).expect(0);
    assert_eq!(
        service.number("SELECT count(*) FROM oa.backups WHERE missing_since IS NOT NULL"),
        0
    );
    // What is lost in both is given up.
    for folder in ["repo/snapshots", "elsewhere/snapshots"] {
        for file in service.files(folder) {
            fs::remove_file(file).unwrap();
        }
    }
    with(&["verify", "--copy"]).expect(1);
    with(&["copy"]).expect(0);
    with(&["prune", "--missing", "--copy", "--yes"]).expect(0);
    with(&["verify", "--copy"]).expect(0);
}

#[test]
fn retention_removes_what_is_covered_and_keeps_the_newest() {
    let service = Service::ready("kind = \"physical\"\nkeep_daily = 1\nkeep_weekly = 1");
    service.take("full");
    service.take("incremental");
    let second = service.take("full");
    let last = service.take("incremental");
    assert_eq!(service.list().len(), 6);
    let asked = service.backup(&["prune"]).expect(77);
    assert!(asked.stderr.contains("--yes"), "{}", asked.stderr);
    service.backup(&["prune", "--dry-run"]).expect(0);
    assert_eq!(service.list().len(), 6);
    service.backup(&["prune", "--yes"]).expect(0);
    let left: Vec<_> = service.list().iter().map(|b| b["id"].clone()).collect();
    assert!(
        left.contains(&second[0]["id"]) && left.contains(&last[0]["id"]),
        "{left:?}"
    );
    assert_eq!(
        service.number("SELECT count(*) FROM oa.backups WHERE removed_at IS NULL"),
        i64::try_from(left.len()).unwrap()
    );
    service.backup(&["verify", "--read-data"]).expect(0);
    service.take("incremental");
}

#[test]
fn a_server_that_was_upgraded_begins_anew_beside_its_old_backups() {
    let mut service = Service::ready("kind = \"auto\"");
    let before = service.take("full");
    assert_eq!(before.len(), 3, "copy, log and dump");
    let status = service.backup(&["status"]).expect(0);
    let (full, shown) = (before[0]["short_id"].as_str().unwrap(), &status.stdout);
    assert!(
        shown.contains(&format!("newest full backup is {full} (physical")),
        "the dump beside it is newer: {shown}"
    );
    assert_eq!(
        service.texts("SELECT kind || ' ' || left(full_id, 8) FROM oa.repository_state"),
        [format!("physical {full}")]
    );
    let Some(programs) = service.server.upgrade() else {
        return;
    };
    let lacking = service.backup(&["incremental"]).expect(78);
    assert!(
        lacking.stderr.contains("the server is PostgreSQL 16")
            && lacking.stderr.contains("set bin_dir in [backup]"),
        "{}",
        lacking.stderr
    );
    service.configure(&format!(
        "kind = \"auto\"\nbin_dir = \"{}\"",
        programs.display()
    ));
    let output = service
        .backup(&["incremental", "--format", "json"])
        .expect(0);
    assert!(
        output.stderr.contains("no full backup of this server yet"),
        "{}",
        output.stderr
    );
    let new = output.json();
    assert_eq!(new[0]["level"], "full");
    assert!(new[0]["server_version"].as_i64().unwrap() >= 160_000);
    assert_ne!(new[0]["system_id"], before[0]["system_id"]);
    assert_eq!(service.take("incremental")[0]["level"], "incremental");
    service.backup(&["prune", "--yes"]).expect(0);
    let left = service.list();
    assert!(
        before
            .iter()
            .all(|b| left.iter().any(|l| l["id"] == b["id"])),
        "what was before stays: it is all there is of that time"
    );
    service.backup(&["verify", "--read-data"]).expect(0);
}
