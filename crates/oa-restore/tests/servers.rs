//! The private server comes up whatever the source was made and set like, and nothing of the source acts in it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use oa_testkit::Postgres;
use support::{Restored, Service, done, fast_folder};

const PHYSICAL: &str = "kind = \"physical\"\n";

fn cluster(service: &Service, name: &str, more: &[&str]) -> Restored {
    let target = service.path(name);
    let mut arguments = vec!["cluster", "--target-dir", target.to_str().unwrap()];
    arguments.extend(["--start", "--format", "json"]);
    arguments.extend(more);
    Restored::of(&service.restore(&arguments).ok().json()[0])
}

/// Restored in every way.
fn comes_back(service: &Service) {
    service.restore(&["drill", "--yes"]).ok();
    let restored = cluster(service, "restored", &["--to", "latest"]);
    assert_eq!(support::count(&mut restored.connect(service), "t"), 1000);
    service
        .restore(&["table", "t", "--to", "latest", "--as", "t_then"])
        .ok();
    assert_eq!(service.count("t_then"), 1000);
}

#[test]
fn segments_of_64_megabytes() {
    let server = Postgres::start_anew_with(&["--wal-segsize=64", "--data-checksums"]);
    let service = Service::with(server, PHYSICAL, &fast_folder());
    // As Debian has it: the settings are elsewhere.
    fs::remove_file(service.server.data_dir().join("postgresql.conf")).unwrap();
    service.init();
    service.sql("CREATE TABLE t AS SELECT generate_series(1, 500) AS id");
    service.backup(&["full"]).ok();
    service.sql("INSERT INTO t SELECT generate_series(501, 1000)");
    service.backup(&["incremental"]).ok();
    comes_back(&service);
}

#[test]
fn other_encodings_and_languages_than_ours() {
    let server = Postgres::start_anew_with(&["--encoding=LATIN1", "--locale=C"]);
    let service = Service::with(server, PHYSICAL, &fast_folder());
    service.init();
    service.sql(
        "CREATE TABLE t AS SELECT n AS id, 'Ärger'::text AS v FROM generate_series(1, 1000) n",
    );
    service.backup(&["full"]).ok();
    comes_back(&service);
    service.backup(&["full", "--kind", "logical"]).ok();
    service
        .restore(&[
            "table", "t", "--to", "latest", "--kind", "logical", "--as", "t_dump",
        ])
        .ok();
    assert_eq!(service.count("t_dump WHERE v = 'Ärger'"), 1000);
}

#[test]
fn settings_that_were_raised_since_the_full_backup() {
    let mut service = Service::start_with(PHYSICAL, &[("max_prepared_transactions", "0")]);
    service.init();
    service.sql("CREATE TABLE t AS SELECT generate_series(1, 500) AS id");
    service.backup(&["full"]).ok();
    let before = service.now();
    service.sql("SELECT pg_logical_emit_message(true, 'test', 'after')");
    service.backup(&["incremental"]).ok();
    for (name, value) in [
        ("max_connections", "140"),
        ("max_prepared_transactions", "30"),
        ("max_locks_per_transaction", "200"),
        ("max_worker_processes", "20"),
        ("max_wal_senders", "25"),
        ("wal_level", "logical"),
        ("track_commit_timestamp", "on"),
    ] {
        service.server.set(name, value);
    }
    service.server.restart();
    service.sql("CREATE TABLE many (id int)");
    for n in 0..20 {
        service.sql(&format!(
            "BEGIN; INSERT INTO many VALUES ({n}); PREPARE TRANSACTION 'open {n}'"
        ));
    }
    service.sql("INSERT INTO t SELECT generate_series(501, 1000)");
    service.backup(&["incremental"]).ok();
    comes_back(&service);
    let latest = cluster(&service, "latest", &["--to", "latest"]);
    let mut client = latest.connect(&service);
    assert_eq!(support::count(&mut client, "pg_prepared_xacts"), 20);
    assert_eq!(
        support::count(
            &mut client,
            "t WHERE pg_xact_commit_timestamp(xmin) IS NULL"
        ),
        500,
        "the times of the commits since it was on are known"
    );
    let early = cluster(&service, "early", &["--to", &before]);
    assert_eq!(support::count(&mut early.connect(&service), "t"), 500);
}

#[test]
fn a_machine_without_shared_memory_of_posix() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can take it away");
        return;
    }
    let service = Service::with(Postgres::start(), PHYSICAL, &std::env::temp_dir());
    service.init();
    service.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id");
    service.backup(&["full"]).ok();
    let script = "mount -t tmpfs -o mode=755 none /dev/shm && exec \"$@\"";
    let inside = |arguments: &[&str]| {
        let outside = service.command("oa-restore", arguments);
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(outside.get_program())
            .args(outside.get_args())
            .current_dir(service.dir.path())
            .envs(outside.get_envs().filter_map(|(k, v)| Some((k, v?))));
        done(&mut command)
    };
    inside(&["drill", "--yes"]).ok();
    let target = service.path("restored");
    let row = inside(&[
        "cluster",
        "--to",
        "latest",
        "--target-dir",
        target.to_str().unwrap(),
        "--start",
        "--format",
        "json",
    ]);
    let restored = Restored::of(&row.ok().json()[0]);
    assert_eq!(support::count(&mut restored.connect(&service), "t"), 1000);
}

#[test]
fn what_was_written_at_wal_level_minimal_is_not_promised() {
    let mut service = Service::start_with(PHYSICAL, &[]);
    service.init();
    service.sql("CREATE TABLE t AS SELECT generate_series(1, 500) AS id");
    service.backup(&["full"]).ok();
    let before = service.now();
    service.sql("INSERT INTO t SELECT generate_series(501, 600)");
    service.backup(&["incremental"]).ok();
    service.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
    service.server.set("wal_level", "minimal");
    service.server.set("max_wal_senders", "0");
    service.server.restart();
    service.sql("BEGIN; TRUNCATE t; INSERT INTO t SELECT generate_series(1, 800); COMMIT");
    let between = service.now();
    service.server.set("wal_level", "replica");
    service.server.set("max_wal_senders", "10");
    service.server.restart();
    service.sql("INSERT INTO t SELECT generate_series(801, 1000)");
    service
        .backup(&["incremental"])
        .failed(1, "wal_level = minimal");
    service.backup(&["incremental"]).ok();
    service
        .restore(&["plan", "--to", &between, "--kind", "physical"])
        .failed(1, "missing");
    service.restore(&["plan", "--to", &before]).ok();
    comes_back(&service);
    let early = cluster(&service, "early", &["--to", &before]);
    assert_eq!(support::count(&mut early.connect(&service), "t"), 500);
}

/// An event trigger that works only where `public` is looked into, and always fires.
const AUDIT: &str = "
    CREATE TABLE audit (at timestamptz, tag text);
    CREATE FUNCTION audited() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit VALUES (now(), tg_tag); END $$;
    CREATE EVENT TRIGGER audited ON ddl_command_end EXECUTE FUNCTION audited();
    CREATE EVENT TRIGGER always ON ddl_command_start EXECUTE FUNCTION audited();
";

#[test]
fn event_triggers_of_the_source_do_not_act_in_the_private_server() {
    let service = Service::start_with(PHYSICAL, &[]);
    service.init();
    service.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id");
    service.sql(AUDIT);
    service.sql("ALTER EVENT TRIGGER always ENABLE ALWAYS");
    service.backup(&["full"]).ok();
    service.restore(&["drill", "--yes"]).ok();
    // The live server's own are its policy, and those that fire for everybody fire here, too.
    service.sql("ALTER EVENT TRIGGER always ENABLE");
    service.sql("DROP TABLE t");
    service.restore(&["table", "t", "--to", "latest"]).ok();
    assert_eq!(service.count("t"), 1000);
    // One that would refuse it in the end is noticed before anything is recovered; what a killed restore has left goes all the same.
    service.sql(
        "CREATE TABLE oa_restore_0123456789ab (id int);
         CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$;
         CREATE EVENT TRIGGER no_drop ON sql_drop EXECUTE FUNCTION refuse();
         CREATE EVENT TRIGGER no_alter ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION refuse()",
    );
    let beside = ["table", "t", "--to", "latest", "--as", "beside"];
    service
        .restore(&beside)
        .failed(77, "ALTER EVENT TRIGGER \"no_alter\" DISABLE");
    service.sql("ALTER EVENT TRIGGER no_alter DISABLE");
    let doctor = service.backup(&["doctor"]);
    assert!(
        doctor.stdout.contains("oa_restore_0123456789ab"),
        "{doctor:?}"
    );
    service.restore(&beside).ok();
    assert_eq!(service.count("pg_class WHERE relname ~ '^oa_restore_'"), 0);
    // A database that comes back has its event triggers as they were.
    service
        .restore(&["database", "--to", "latest", "--into", "back"])
        .ok();
    let url = service.server.superuser_url().replace("/oa", "/back");
    let mut back = postgres::Client::connect(&url, postgres::NoTls).unwrap();
    assert_eq!(
        support::count(&mut back, "pg_event_trigger WHERE evtenabled = 'A'"),
        1
    );
    assert_eq!(support::count(&mut back, "t"), 1000);
}

#[test]
fn row_security_makes_no_false_alarm() {
    let service = Service::start_with(PHYSICAL, &[]);
    service.sql(
        "ALTER ROLE oa REPLICATION; GRANT pg_read_all_data, pg_read_all_stats TO oa;
         CREATE TABLE sec AS SELECT generate_series(1, 100) AS id; ALTER TABLE sec ADD PRIMARY KEY (id); ALTER TABLE sec ENABLE ROW LEVEL SECURITY;
         CREATE TABLE open (id int PRIMARY KEY); INSERT INTO open SELECT generate_series(1, 7)",
    );
    let url = service.server.url();
    let init = service.on(&url, "oa-backup", &["init"]).ok();
    assert!(init.stdout.contains("BYPASSRLS"), "{init:?}");
    service.on(&url, "oa-backup", &["full"]).ok();
    let drill = service
        .on(&url, "oa-restore", &["drill", "--yes", "--format", "json"])
        .ok();
    assert!(drill.stdout.contains("\"ok\":true"), "{drill:?}");
    service
        .on(&url, "oa-backup", &["full", "--kind", "logical"])
        .failed(77, "ALTER ROLE \"oa\" BYPASSRLS");
    service
        .on(
            &url,
            "oa-restore",
            &["table", "sec", "--to", "latest", "--where", "true", "--yes"],
        )
        .failed(77, "ALTER ROLE \"oa\" BYPASSRLS");
    service.sql("ALTER ROLE oa BYPASSRLS");
    service
        .on(&url, "oa-backup", &["full", "--kind", "logical"])
        .ok();
}

#[test]
fn a_role_that_may_not_create_tables_is_told_before_anything_is_recovered() {
    let service = Service::start_with(PHYSICAL, &[]);
    service.sql(
        "ALTER ROLE oa REPLICATION; GRANT pg_read_all_data, pg_read_all_stats TO oa;
         CREATE SCHEMA closed; GRANT USAGE ON SCHEMA closed TO oa;
         CREATE TABLE closed.t AS SELECT generate_series(1, 100) AS id",
    );
    let url = service.server.url();
    service.on(&url, "oa-backup", &["init"]).ok();
    service.on(&url, "oa-backup", &["full"]).ok();
    for more in [&["--as", "then"][..], &[]] {
        let mut arguments = vec!["table", "closed.t", "--to", "latest", "--yes"];
        arguments.extend(more);
        service
            .on(&url, "oa-restore", &arguments)
            .failed(77, "may not create tables in schema \"closed\"");
    }
}

fn link_of(data: &Path) -> PathBuf {
    let mut links = fs::read_dir(data.join("pg_tblspc")).unwrap();
    fs::read_link(links.next().unwrap().unwrap().path()).unwrap()
}

#[test]
fn a_cluster_that_is_moved_aside_keeps_its_tablespaces() {
    let service = Service::start_with(PHYSICAL, &[]);
    let space = service.server.data_dir().parent().unwrap().join("space");
    fs::create_dir(&space).unwrap();
    let owner = fs::metadata(service.server.data_dir()).unwrap();
    let _ = std::os::unix::fs::chown(&space, Some(owner.uid()), Some(owner.gid()));
    service.init();
    service.sql(&format!(
        "CREATE TABLESPACE space LOCATION '{}'",
        space.display()
    ));
    service.sql("CREATE TABLE there (id int PRIMARY KEY) TABLESPACE space; INSERT INTO there SELECT generate_series(1, 300)");
    service.backup(&["full"]).ok();
    let target = service.path("restored");
    let arguments = [
        "cluster",
        "--to",
        "latest",
        "--target-dir",
        target.to_str().unwrap(),
    ];
    let first = service.restore(&[&arguments[..], &["--format", "json"]].concat());
    let first = first.ok().json().remove(0);
    let place = link_of(&target);
    service.sql("INSERT INTO there SELECT generate_series(301, 500)");
    service.backup(&["incremental"]).ok();

    // Killed right after it was moved aside, and run again.
    let force = [&arguments[..], &["--force", "--yes"]].concat();
    service.killed_at("restore.moved_aside", &force);
    let kept = fs::read_dir(service.dir.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| {
            p.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("restored_before_")
        })
        .unwrap();
    assert_eq!(link_of(&kept), place, "it leads to its own files");
    let again = [&force[..], &["--start", "--format", "json"]].concat();
    let restored = Restored::of(&service.restore(&again).ok().json()[0]);
    assert_ne!(link_of(&target), place);
    assert_eq!(
        support::count(&mut restored.connect(&service), "there"),
        500
    );

    // Both run at the same time, and neither writes into the other.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let command = first["start_command"]
        .as_str()
        .unwrap()
        .replace(&target.display().to_string(), &kept.display().to_string());
    let started = Command::new("bash")
        .args(["-c", &format!("{command} -o '-p {port}'")])
        .current_dir("/")
        .output()
        .unwrap();
    let log = fs::read_to_string(kept.join("server.log"));
    assert!(started.status.success(), "{started:?} {log:?}");
    let old = Restored { data: kept, port };
    let mut client = old.connect(&service);
    client
        .batch_execute("INSERT INTO there SELECT generate_series(1001, 1100); CHECKPOINT")
        .unwrap();
    assert_eq!(support::count(&mut client, "there"), 400);
    let mut client = restored.connect(&service);
    assert_eq!(support::count(&mut client, "there WHERE id > 0"), 500);
}

#[test]
fn large_objects_that_a_table_refers_to_come_with_it() {
    let service = Service::start_with(PHYSICAL, &[]);
    service.init();
    service.sql(
        "CREATE ROLE reader; CREATE DOMAIN lo AS oid; CREATE TABLE docs (id int PRIMARY KEY, doc oid, thumb lo, more oid[]);
         INSERT INTO docs SELECT n, lo_from_bytea(0, convert_to(repeat('x', n * 1000000), 'UTF8')), lo_from_bytea(0, 'small'), ARRAY[lo_from_bytea(0, 'one')]
         FROM generate_series(1, 3) n;
         DO $$ BEGIN EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO reader', (SELECT doc FROM docs WHERE id = 1)); END $$",
    );
    service.backup(&["full"]).ok();
    service.sql("SELECT lo_unlink(doc), lo_unlink(thumb) FROM docs; DROP TABLE docs");
    let row = service
        .restore(&["table", "docs", "--to", "latest", "--format", "json"])
        .ok()
        .json()
        .remove(0);
    assert_eq!(row["large_objects"]["brought"], 6, "{row}");
    assert_eq!(row["large_objects"]["kept"], 3, "{row}");
    assert!(
        row["what"].as_str().unwrap().contains("6 large objects"),
        "{row}"
    );
    assert_eq!(
        service.text("SELECT string_agg(length(lo_get(doc)) || ' ' || convert_from(lo_get(thumb), 'UTF8') || ' ' || length(lo_get(more[1])), ',' ORDER BY id) FROM docs"),
        "1000000 small 3,2000000 small 3,3000000 small 3"
    );
    assert_eq!(
        service.text("SELECT (SELECT lomacl::text FROM pg_largeobject_metadata WHERE oid = doc) FROM docs WHERE id = 1"),
        "{postgres=rw/postgres,reader=r/postgres}"
    );
    assert_eq!(service.count("pg_largeobject_metadata"), 9);
}
