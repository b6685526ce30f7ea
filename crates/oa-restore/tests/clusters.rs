//! A cluster comes back whole: from several timelines, with its tablespaces, after kills, without a database server, as any user.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{Restored, Service, done};

fn first<'a>(row: &'a serde_json::Value, key: &str) -> &'a str {
    row[key].as_str().unwrap()
}

#[test]
fn a_restored_cluster_is_backed_up_and_restored_again_over_its_timelines() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    service.init();
    service.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    service.backup(&["full"]).ok();
    service.sql(
        "INSERT INTO t VALUES (2);
         INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, started_at, status, lease_until)
         VALUES (oa.uuid_floor(now()), 'oa-crawl', 'futures', 'cron', 'another', 'm', 'b', 1, 1, '0', now(), 'running', now() + interval '1 hour')",
    );
    let early = service.now();
    service.sql(
        "INSERT INTO t VALUES (3);
         UPDATE oa.runs SET status = 'success', finished_at = now(), lease_until = NULL WHERE task = 'futures'",
    );
    let given_up = service.now();
    service.backup(&["incremental"]).ok();

    // Back to the early target: from there on another timeline.
    let target = service.path("restored");
    let to = target.to_str().unwrap();
    let row = service
        .restore(&[
            "cluster",
            "--to",
            &early,
            "--target-dir",
            to,
            "--start",
            "--format",
            "json",
        ])
        .ok()
        .json();
    let restored = Restored::of(&row[0]);
    let mut client = restored.connect(&service);
    assert_eq!(support::count(&mut client, "t"), 2);
    // What that run has stored since is not in it.
    let runs = "SELECT string_agg(task || ' ' || status, ', ' ORDER BY started_at) FROM oa.runs";
    let runs: String = client.query_one(runs, &[]).unwrap().get(0);
    assert_eq!(runs, "backup-full success, futures abandoned");
    client
        .batch_execute("INSERT INTO t VALUES (40), (41)")
        .unwrap();
    let url = service.server.superuser_url().replace(
        &format!(":{}/", service.server.port()),
        &format!(":{}/", restored.port),
    );
    let on_it = |program: &str, arguments: &[&str]| {
        done(
            service
                .command(program, arguments)
                .env("DATABASE_URL", &url),
        )
    };
    on_it("oa-backup", &["incremental"]).ok();
    client.batch_execute("INSERT INTO t VALUES (42)").unwrap();
    on_it("oa-backup", &["incremental"]).ok();
    for (to, rows) in [
        ("latest", "5"),
        (early.as_str(), "2"),
        (given_up.as_str(), "3"),
    ] {
        let name = format!("copy_{rows}");
        let row = on_it(
            "oa-restore",
            &["table", "t", "--to", to, "--as", &name, "--format", "json"],
        )
        .ok();
        assert_eq!(row.json()[0]["rows"].to_string(), rows, "{to}");
    }
    on_it("oa-restore", &["drill", "--yes"]).ok();
}

#[test]
fn tablespaces_come_back_beside_the_data_directory() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    let space = service.server.data_dir().parent().unwrap().join("space");
    fs::create_dir(&space).unwrap();
    if rustix::process::geteuid().is_root() {
        let owner = fs::metadata(service.server.data_dir()).unwrap();
        use std::os::unix::fs::MetadataExt;
        std::os::unix::fs::chown(&space, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    service.init();
    let mut client = service.superuser();
    client
        .batch_execute(&format!(
            "CREATE TABLESPACE space LOCATION '{}'",
            space.display()
        ))
        .unwrap();
    client.batch_execute("CREATE TABLE there (id int PRIMARY KEY) TABLESPACE space; INSERT INTO there SELECT generate_series(1, 300)").unwrap();
    service.backup(&["full"]).ok();
    client
        .batch_execute("INSERT INTO there VALUES (301)")
        .unwrap();
    service.backup(&["incremental"]).ok();
    service.restore(&["drill", "--yes"]).ok();
    let target = service.path("restored");
    let arguments = [
        "cluster",
        "--to",
        "latest",
        "--target-dir",
        target.to_str().unwrap(),
        "--start",
        "--format",
        "json",
    ];
    for place in ["restore.copied", "restore.changing", "restore.recovered"] {
        service.killed_at(place, &arguments);
    }
    let row = service.restore(&arguments).ok().json();
    let restored = Restored::of(&row[0]);
    let mut client = restored.connect(&service);
    assert_eq!(support::count(&mut client, "there"), 301);
    let row = client
        .query_one(
            "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'space'",
            &[],
        )
        .unwrap();
    let place: String = row.get(0);
    assert!(
        place.starts_with(&format!("{}-tablespaces/", target.display())),
        "{place}"
    );
    assert!(!target.join(".oa-restore").exists());
}

#[test]
fn a_missing_piece_of_the_log_is_said_before_anything_is_done() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    service.init();
    service.sql("CREATE TABLE t (id int)");
    service.backup(&["full"]).ok();
    service.sql("INSERT INTO t VALUES (1); SELECT pg_switch_wal()");
    let early = service.now();
    service.sql("INSERT INTO t VALUES (2); SELECT pg_switch_wal(); INSERT INTO t VALUES (3)");
    service.backup(&["incremental"]).ok();
    service.restore(&["plan", "--to", &early]).ok();
    // The WAL folder loses a segment that is not in the repository yet, behind oa-backup's back: it notices, and makes a
    // full backup. The time in between cannot be restored, and that is reported.
    service.sql("INSERT INTO t VALUES (4); SELECT pg_switch_wal()");
    let lost = service.now();
    service.sql("INSERT INTO t VALUES (5); SELECT pg_switch_wal(); SELECT pg_drop_replication_slot('oa_backup'); CHECKPOINT");
    let staging = service.path("state/backup");
    for entry in fs::read_dir(&staging).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        }
    }
    service
        .backup(&["incremental"])
        .failed(1, "is lost: no time from then");
    let plan = service.restore(&["plan", "--to", &lost]);
    assert_eq!(plan.code, 1, "{plan:?}");
    assert!(
        plan.stderr.contains("gap") || plan.stderr.contains("no full backup"),
        "{plan:?}"
    );
    // Beginning before the gap nothing leads to its other side: that is said with what can be reached, and nothing is written.
    let full = service.backup(&["list", "--format", "json"]).ok().json();
    let full = full.iter().filter(|b| b["level"] == "full");
    let first = full.min_by_key(|b| b["restorable_to"].to_string()).unwrap();
    let first = first["short_id"].as_str().unwrap();
    let target = service.path("never");
    let into = ["--target-dir", target.to_str().unwrap()];
    let refused =
        service.restore(&[&["cluster", "--full", first, "--to", "latest"][..], &into].concat());
    let refused = refused.failed(1, "the WAL has a gap");
    let (_, reach) = refused
        .stderr
        .split_once(&format!("(--full {first} --to "))
        .unwrap();
    let (id, _) = reach.split_once(')').unwrap();
    assert!(!target.exists() && service.left().is_empty());
    service.restore(&["plan", "--full", first, "--to", id]).ok();
    assert!(
        plan.stderr.contains(&format!("(--full {first} --to {id})")),
        "{plan:?}"
    );
    service
        .restore(&["table", "t", "--to", &early, "--as", "early"])
        .ok();
    assert_eq!(service.count("early"), 1);
}

#[test]
fn on_the_worst_day_there_is_no_database_address() {
    let mut service = Service::start_with("paths = [\"precious\"]\n", &[]);
    fs::create_dir(service.path("precious")).unwrap();
    fs::write(service.path("precious/picture"), "蓝图").unwrap();
    service.init();
    service.sql("CREATE TABLE t AS SELECT generate_series(1, 7) AS id");
    service.backup(&["full"]).ok();
    service.server.stop();
    let bare = |arguments: &[&str]| {
        done(
            service
                .command("oa-restore", arguments)
                .env_remove("DATABASE_URL"),
        )
    };
    bare(&["plan", "--to", "latest"]).ok();
    let files = service.path("files");
    bare(&[
        "files",
        "--to",
        "latest",
        "--target-dir",
        files.to_str().unwrap(),
    ])
    .ok();
    let inside = service.path("precious/picture");
    let inside = files.join(inside.canonicalize().unwrap().strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(inside).unwrap(), "蓝图");
    bare(&[
        "files",
        "--to",
        "latest",
        "--target-dir",
        files.to_str().unwrap(),
    ])
    .failed(77, "not empty");
    bare(&["files", "/nowhere", "--to", "latest", "--target-dir", "x"])
        .failed(1, "has no /nowhere");
    let one = service.path("precious/picture").canonicalize().unwrap();
    bare(&[
        "files",
        one.to_str().unwrap(),
        "--to",
        "latest",
        "--target-dir",
        "one",
    ])
    .ok();

    let target = service.path("restored");
    let done_ = bare(&[
        "cluster",
        "--to",
        "latest",
        "--target-dir",
        target.to_str().unwrap(),
        "--format",
        "json",
    ])
    .ok();
    let row = done_.json();
    // The command that it names starts the server, word by word.
    let command = first(&row[0], "start_command").to_owned();
    let started = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert!(started.status.success(), "{command}: {started:?}");
    let restored = Restored::of(&row[0]);
    let mut client = restored.connect(&service);
    assert_eq!(support::count(&mut client, "t"), 7);
    // The run of the backup that this is: it had not ended yet.
    let runs = "oa.runs WHERE task = 'backup-full' AND status = 'success'";
    assert_eq!(support::count(&mut client, runs), 1);

    // With an address, and nobody there.
    service
        .restore(&["table", "t", "--to", "latest", "--as", "x"])
        .failed(75, "could not reach PostgreSQL");
    let again = service.path("again");
    service
        .restore(&[
            "cluster",
            "--to",
            "latest",
            "--target-dir",
            again.to_str().unwrap(),
        ])
        .ok();
    drop(restored);
    service.server.start_again();
    service.backup(&["list"]).ok();
    service.restore(&["drill", "--yes"]).ok();
    assert_eq!(
        service.count("oa.runs WHERE task = 'restore-cluster' AND status = 'success'"),
        1
    );
}

#[test]
fn what_is_wrong_with_configuration_or_place_is_said_with_its_code() {
    let service = Service::start();
    service
        .restore(&["plan", "--to", "latest"])
        .failed(78, "oa-backup init");
    service.init();
    service
        .restore(&["plan", "--to", "latest"])
        .failed(1, "oa-backup full");
    service.backup(&["full", "--kind", "physical"]).ok();
    let wrong = done(
        service
            .command("oa-restore", &["plan", "--to", "latest"])
            .env("OA_BACKUP_PASSWORD", "wrong"),
    );
    wrong.failed(78, "the password does not open the repository");
    service
        .restore(&["plan", "--to", "latest", "--from-copy"])
        .failed(78, "[backup.copy]");
    service
        .restore(&["plan", "--to", "ffffffff"])
        .failed(1, "there is no backup ffffffff");
    service
        .restore(&["table", "a", "b", "--to", "latest", "--as", "c"])
        .failed(2, "one at a time");
    // The programs of the backup's version are gone: only a dump helps then.
    let nowhere = fs::read_to_string(service.config()).unwrap() + "bin_dir = \"/usr/bin\"\n";
    fs::write(service.config(), nowhere).unwrap();
    service
        .restore(&["plan", "--to", "latest"])
        .failed(78, "apt-get install postgresql-15");
    if rustix::process::geteuid().is_root() {
        let text = fs::read_to_string(service.config())
            .unwrap()
            .replace("bin_dir = \"/usr/bin\"\n", "");
        fs::write(service.config(), text).unwrap();
        let closed = service.path("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let inside = closed.join("data");
        let refused = service.restore(&[
            "cluster",
            "--to",
            "latest",
            "--target-dir",
            inside.to_str().unwrap(),
        ]);
        refused.failed(77, "cannot get into");
        assert!(!Path::new(&inside).exists());
    }
}

#[test]
fn somebody_who_is_not_root_restores_as_himself() {
    if !rustix::process::geteuid().is_root() {
        // Then all other tests do just that.
        return;
    }
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    service.init();
    service.sql("CREATE TABLE t AS SELECT generate_series(1, 9) AS id");
    service.backup(&["full"]).ok();
    let give = Command::new("chown")
        .arg("-R")
        .arg("nobody")
        .arg(service.dir.path())
        .status()
        .unwrap();
    assert!(give.success());
    // The build's folder may be closed to him.
    let program = service.path("oa-restore");
    fs::copy(oa_testkit::program("oa-restore"), &program).unwrap();
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"])
            .arg(&program)
            .arg("--config")
            .arg(service.config())
            .args(arguments)
            .current_dir(service.dir.path())
            .env("DATABASE_URL", service.server.superuser_url())
            .env("OA_BACKUP_PASSWORD", support::PASSWORD);
        done(&mut command)
    };
    as_nobody(&["drill", "--yes"]).ok();
    let target = service.path("restored");
    let row = as_nobody(&[
        "cluster",
        "--to",
        "latest",
        "--target-dir",
        target.to_str().unwrap(),
        "--start",
        "--format",
        "json",
    ])
    .ok()
    .json();
    let restored = Restored::of(&row[0]);
    assert_eq!(support::count(&mut restored.connect(&service), "t"), 9);
    assert_eq!(first(&row[0], "owner"), "nobody");
}

#[test]
fn what_was_backed_up_from_a_standby_is_restored_over_its_promotion() {
    let service = Service::start_with(
        "kind = \"physical\"\ndatabase_url = \"env:STANDBY_URL\"\n",
        &[("full_page_writes", "on")],
    );
    service.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let standby = service.server.start_standby();
    let run = |program: &str, arguments: &[&str]| {
        done(
            service
                .command(program, arguments)
                .env("STANDBY_URL", standby.superuser_url()),
        )
    };
    let followed = |rows| {
        oa_testkit::wait_until(
            "the standby to follow",
            std::time::Duration::from_secs(60),
            || {
                let mut client =
                    postgres::Client::connect(&standby.superuser_url(), postgres::NoTls).unwrap();
                support::count(&mut client, "t") == rows
            },
        );
    };
    followed(1);
    run("oa-backup", &["init"]).ok();
    run("oa-backup", &["full"]).ok();
    run("oa-restore", &["drill", "--yes"]).ok();
    service.sql("INSERT INTO t VALUES (2)");
    followed(2);
    run("oa-backup", &["incremental"]).ok();
    run("oa-restore", &["drill", "--yes"]).ok();
    let early = service.now();
    standby.promote();
    let mut promoted =
        postgres::Client::connect(&standby.superuser_url(), postgres::NoTls).unwrap();
    promoted
        .batch_execute("INSERT INTO t VALUES (3), (4)")
        .unwrap();
    run("oa-backup", &["incremental"]).ok();
    run("oa-restore", &["drill", "--yes"]).ok();
    for (to, rows) in [("latest", 4), (early.as_str(), 2)] {
        let name = format!("copy_{rows}");
        run("oa-restore", &["table", "t", "--to", to, "--as", &name]).ok();
        assert_eq!(service.count(&name), rows, "{to}");
    }
}

#[test]
fn a_disk_that_is_too_small_is_named_before_anything_is_written_to_it() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    let Some(disk) = oa_testkit::SmallDisk::mount(&service.path("small"), "8m") else {
        return;
    };
    service.init();
    service.backup(&["full"]).ok();
    fs::set_permissions(
        disk.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let inside = disk.path().join("data");
    service
        .restore(&[
            "cluster",
            "--to",
            "latest",
            "--target-dir",
            inside.to_str().unwrap(),
        ])
        .failed(1, "are needed to restore; free space there");
    assert!(!inside.exists());
    let text = fs::read_to_string(service.config()).unwrap() + "staging = \"small/staging\"\n";
    fs::write(service.config(), text).unwrap();
    service
        .restore(&["drill", "--yes"])
        .failed(1, "set staging in [backup] to a larger disk");
}

#[test]
fn a_second_restore_from_the_same_full_backup_takes_a_timeline_of_its_own() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    service.init();
    service.sql("CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    service.backup(&["full"]).ok();
    service.sql("INSERT INTO t VALUES (2)");
    let first = service.now();
    service.sql("INSERT INTO t VALUES (3)");
    let second = service.now();
    service.sql("INSERT INTO t VALUES (4)");
    service.backup(&["incremental"]).ok();
    let restored = |to: &str, name: &str| {
        let target = service.path(name);
        let target = target.to_str().unwrap().to_owned();
        let arguments = [
            "cluster",
            "--to",
            to,
            "--target-dir",
            &target,
            "--start",
            "--format",
            "json",
        ];
        Restored::of(&service.restore(&arguments).ok().json()[0])
    };
    let timeline = |of: &Restored| -> i32 {
        let row = of.connect(&service).query_one(
            "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int4",
            &[],
        );
        row.unwrap().get(0)
    };
    let one = restored(&first, "one");
    assert_eq!(timeline(&one), 2);
    one.connect(&service)
        .batch_execute("INSERT INTO t VALUES (20); SELECT pg_switch_wal()")
        .unwrap();
    service
        .on(&one.url(&service), "oa-backup", &["incremental"])
        .ok();
    drop(one);
    let two = restored(&second, "two");
    assert_eq!(timeline(&two), 3);
    assert_eq!(support::count(&mut two.connect(&service), "t"), 3);
}

#[test]
fn nothing_of_the_lost_machine_acts_in_the_restored_cluster() {
    let mut service = Service::start_with("kind = \"physical\"\n", &[("wal_level", "logical")]);
    let data = service.server.data_dir();
    service.server.stop();
    let acted = service.path("acted");
    fs::create_dir(&acted).unwrap();
    fs::set_permissions(&acted, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let conf = data.join("postgresql.conf");
    let theirs = format!(
        "archive_mode on\nARCHIVE_COMMAND = 'touch {acted}/archived'\nprimary_conninfo = 'host=127.0.0.1 port=1'\nprimary_slot_name = 'x'\n\
         restore_command = 'touch {acted}/fetched; false'\ndata_directory = '{data}'\nhba_file = '{data}/pg_hba.conf'\nexternal_pid_file = '{acted}/pid'\n\
         log_directory = '{acted}'\nlogging_collector = off\n",
        acted = acted.display(),
        data = data.display()
    );
    let text = fs::read_to_string(&conf).unwrap() + &theirs;
    fs::write(&conf, text).unwrap();
    service.server.start_again();
    service.sql(
        "SET password_encryption = 'md5'; CREATE ROLE old LOGIN PASSWORD 'old'; CREATE TABLE t AS SELECT 1 AS id;
         CREATE UNLOGGED TABLE cache AS SELECT generate_series(1, 9) AS id;",
    );
    service.sql("CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port=1 dbname=x' PUBLICATION p WITH (connect = false, slot_name = 's')");
    service.sql("ALTER SUBSCRIPTION s ENABLE");
    service.init();
    service.backup(&["full"]).ok();
    // As Debian has it: the file is not in the data directory.
    let hba = fs::read(data.join("pg_hba.conf")).unwrap();
    fs::remove_file(data.join("pg_hba.conf")).unwrap();
    service.backup(&["full"]).ok();
    fs::write(data.join("pg_hba.conf"), hba).unwrap();
    service.server.stop();
    for entry in fs::read_dir(&acted).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let target = service.path("restored");
    let arguments = [
        "cluster",
        "--to",
        "latest",
        "--target-dir",
        target.to_str().unwrap(),
        "--start",
        "--format",
        "json",
    ];
    let row = service.restore(&arguments).ok().json();
    let restored = Restored::of(&row[0]);
    let notes = row[0]["notes"].to_string();
    assert!(notes.contains("1 subscription(s)"), "{notes}");
    assert!(
        notes.contains("1 unlogged table(s) of database oa are empty"),
        "{notes}"
    );
    // Whoever has a password of the old kind gets in.
    let url = restored.url(&service);
    let (_, address) = url.split_once('@').unwrap();
    let mut client =
        postgres::Client::connect(&format!("postgresql://old:old@{address}"), postgres::NoTls)
            .unwrap();
    client.query_one("SELECT 1", &[]).unwrap();
    let mut client = restored.connect(&service);
    for (name, value) in [
        ("archive_mode", "off"),
        ("archive_command", "(disabled)"),
        ("primary_conninfo", ""),
        ("primary_slot_name", ""),
        ("restore_command", ""),
        ("data_directory", target.to_str().unwrap()),
        ("external_pid_file", ""),
        ("log_directory", "log"),
        ("max_logical_replication_workers", "0"),
        ("hba_file", target.join("pg_hba.conf").to_str().unwrap()),
    ] {
        let row = client
            .query_one("SELECT current_setting($1)", &[&name])
            .unwrap();
        assert_eq!(row.get::<_, String>(0), value, "{name}");
    }
    client
        .batch_execute("INSERT INTO t VALUES (2); SELECT pg_switch_wal(); CHECKPOINT")
        .unwrap();
    assert_eq!(
        support::count(&mut client, "pg_stat_subscription WHERE pid IS NOT NULL"),
        0
    );
    assert_eq!(fs::read_dir(&acted).unwrap().count(), 0);
}

#[test]
fn a_server_that_does_not_start_says_why_and_parents_stay_open() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    service.init();
    service.backup(&["full"]).ok();
    service.backup(&["full", "--kind", "logical"]).ok();
    let target = service.path("a/b/data");
    let port = service.server.port().to_string();
    let to = [
        "cluster",
        "--to",
        "latest",
        "--target-dir",
        target.to_str().unwrap(),
    ];
    // Of the dump, although it is newer, nothing is said.
    let plan = service
        .restore(&[&to[..], &["--dry-run", "--format", "json"]].concat())
        .ok()
        .json();
    assert_eq!(plan[0]["kind"], "physical");
    let started = service.restore(&[&to[..], &["--start", "--port", &port]].concat());
    started.failed(1, "pg_ctl: could not start server");
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&target), 0o700);
    assert_ne!(mode(&service.path("a/b")), 0o700);
}
