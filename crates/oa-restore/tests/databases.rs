//! The whole database beside the live one, and in its place.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::support;

use std::time::Duration;

use oa_repository::Kind;
use oa_testkit::wait_until;
use postgres::{Client, NoTls};
use support::Service;

#[test]
fn a_database_is_restored_beside_and_swapped_in_and_the_old_one_is_kept() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    service.init();
    service.sql(
        "CREATE TABLE t AS SELECT generate_series(1, 500) AS id; ALTER TABLE t OWNER TO oa;
         ALTER DATABASE oa SET work_mem = '7MB'; CREATE SEQUENCE s START 41; SELECT nextval('s')",
    );
    service.backup(&["full"]).ok();
    let then = service.now();
    service.sql("DELETE FROM t WHERE id > 10");
    service.backup(&["incremental"]).ok();

    let database = |more: &[&str]| {
        let mut arguments = vec!["database", "--to", &then];
        arguments.extend(more);
        service.restore(&arguments)
    };
    database(&["--into", "oa"]).failed(77, "exists already");
    database(&["--into", "beside", "--swap"]).failed(77, "add --yes");
    service.killed_at(
        "restore.brought",
        &["database", "--to", &then, "--into", "beside"],
    );
    let done = database(&["--into", "beside", "--format", "json"])
        .ok()
        .json();
    assert!(done[0]["tables"].as_u64().unwrap() > 10, "{done:?}");
    assert_eq!(service.count("t"), 10);
    let url = service.server.superuser_url();
    let beside = url.replace("/oa", "/beside");
    let mut client = Client::connect(&beside, NoTls).unwrap();
    assert_eq!(support::count(&mut client, "t"), 500);
    let row = client
        .query_one("SELECT nextval('s'), current_setting('work_mem'), tableowner::text FROM pg_tables WHERE tablename = 't'", &[])
        .unwrap();
    assert_eq!(
        (
            row.get::<_, i64>(0),
            row.get::<_, String>(1),
            row.get::<_, String>(2)
        ),
        (42, "7MB".to_owned(), "oa".to_owned())
    );
    let row = client.query_one(
        "SELECT datdba::regrole::text FROM pg_database WHERE datname = 'beside'",
        &[],
    );
    assert_eq!(row.unwrap().get::<_, String>(0), "oa");
    assert_eq!(
        service.count("pg_database WHERE datname LIKE 'oa_restore%'"),
        0
    );

    // Killed between the two renames: nothing has changed.
    let arguments = [
        "database", "--to", &then, "--into", "second", "--swap", "--yes",
    ];
    service.killed_at("restore.swapping", &arguments);
    assert_eq!(service.count("t"), 10);
    assert_eq!(service.count("pg_database WHERE datname = 'second'"), 0);

    // Somebody is in the live database and comes back at once, and it is swapped all the same.
    let busy = std::thread::spawn(move || {
        let mut ended = 0;
        wait_until(
            "the live database to be the restored one",
            Duration::from_secs(100),
            || {
                let Ok(mut client) = Client::connect(&url, NoTls) else {
                    return false;
                };
                loop {
                    match client.query_one("SELECT count(*) FROM t", &[]) {
                        Ok(row) if row.get::<_, i64>(0) == 500 => return true,
                        Ok(_) => std::thread::yield_now(),
                        Err(_) => {
                            ended += 1;
                            return false;
                        }
                    }
                }
            },
        );
        ended
    });
    let done = database(&["--into", "second", "--swap", "--yes", "--format", "json"])
        .ok()
        .json();
    assert!(busy.join().unwrap() >= 1);
    assert_eq!(service.count("t"), 500);
    let kept = done[0]["kept_as"].as_str().unwrap();
    let mut old = Client::connect(
        &service
            .server
            .superuser_url()
            .replace("/oa", &format!("/{kept}")),
        NoTls,
    )
    .unwrap();
    assert_eq!(support::count(&mut old, "t"), 10);
    assert_eq!(
        service.count("oa.runs WHERE task = 'restore-database' AND status = 'success'"),
        1
    );
    assert_eq!(service.left(), Vec::<String>::new());
}

#[test]
fn a_role_that_may_not_replicate_restores_dumps() {
    let service = Service::start_with("kind = \"auto\"\n", &[]);
    let url = service.server.url();
    let as_oa = |program: &str, arguments: &[&str]| {
        support::done(
            service
                .command(program, arguments)
                .env("DATABASE_URL", &url),
        )
    };
    service.sql("ALTER ROLE oa CREATEDB; SET ROLE oa; CREATE TABLE t AS SELECT generate_series(1, 20) AS id");
    as_oa("oa-backup", &["init"]).ok();
    as_oa("oa-backup", &["full"]).ok();
    service.sql("DELETE FROM oa.t");
    let now = service.now();
    let plan = as_oa(
        "oa-restore",
        &["plan", "--to", "latest", "--format", "json"],
    )
    .ok()
    .json();
    assert_eq!(plan[0]["kind"], "logical");
    let late = as_oa("oa-restore", &["plan", "--to", &now]);
    late.failed(1, "later than anything in the repository");
    as_oa("oa-backup", &["incremental"]).ok();
    let behind = as_oa("oa-restore", &["plan", "--to", &now, "--format", "json"]).ok();
    assert!(
        behind.stderr.contains("older than the target"),
        "{behind:?}"
    );
    as_oa("oa-restore", &["table", "t", "--to", &now, "--yes"]).ok();
    assert_eq!(service.count("oa.t"), 20);
    as_oa("oa-restore", &["database", "--to", &now, "--into", "copy"]).ok();
    service.sql("ALTER ROLE oa NOCREATEDB");
    as_oa("oa-restore", &["database", "--to", &now, "--into", "copy2"])
        .failed(77, "as a superuser: ALTER ROLE \"oa\" CREATEDB");
    as_oa(
        "oa-restore",
        &["cluster", "--to", "latest", "--target-dir", "x"],
    )
    .failed(1, "physical");
    as_oa("oa-restore", &["table", "t", "--to", "0/1"]).failed(1, "physical");
}

#[test]
fn of_several_clusters_in_a_repository_the_live_ones_backups_are_taken() {
    let service = Service::start_with("kind = \"physical\"\npaths = [\"/etc/passwd\"]\n", &[]);
    let other = oa_testkit::Postgres::start_anew();
    let there = other.superuser_url();
    service.init();
    service.sql("CREATE TABLE whose AS SELECT 'this' AS name");
    service.backup(&["full"]).ok();
    let mut client = Client::connect(&there, NoTls).unwrap();
    client
        .batch_execute("CREATE TABLE whose AS SELECT 'other' AS name")
        .unwrap();
    oa_core::pg::schema::upgrade(&mut client).unwrap();
    // The other one was backed up last, and has the only dump, which is newer than is allowed for.
    service.on(&there, "oa-backup", &["full"]).ok();
    service
        .on(&there, "oa-backup", &["full", "--kind", "logical"])
        .ok();
    // What is rehearsed is what this one would need.
    service.restore(&["drill", "--yes"]).ok();
    let rehearsed =
        "SELECT count(*)::text FROM oa.drills d JOIN oa.backups b ON b.id = d.backup_id";
    assert_eq!(service.text(rehearsed), "1");
    let text = std::fs::read_to_string(service.config()).unwrap() + "rpo = \"1ms\"\n";
    std::fs::write(service.config(), text).unwrap();
    let swap = [
        "database", "--to", "latest", "--into", "back", "--swap", "--yes",
    ];
    service.restore(&swap).ok();
    assert_eq!(service.text("SELECT name FROM whose"), "this");
    // In what a backup holds its own run has not ended.
    let runs = "SELECT string_agg(task || ' ' || status, ', ' ORDER BY started_at) FROM oa.runs";
    assert_eq!(
        service.text(runs),
        "backup-full success, restore-database success"
    );
    let table = ["table", "whose", "--to", "latest", "--as", "copy"];
    service.restore(&table).ok();
    assert_eq!(service.text("SELECT name FROM copy"), "this");
    let plan = service.restore(&["plan", "--to", "latest"]).ok();
    assert!(plan.stderr.contains("--system"), "{plan:?}");
    // On purpose it can be had all the same.
    let id: String = client
        .query_one(
            "SELECT system_identifier::text FROM pg_control_system()",
            &[],
        )
        .unwrap()
        .get(0);
    service
        .restore(&[
            "table", "whose", "--to", "latest", "--as", "theirs", "--system", &id,
        ])
        .ok();
    assert_eq!(service.text("SELECT name FROM theirs"), "other");
    service
        .restore(&[
            "table", "whose", "--to", "latest", "--as", "x", "--system", "1",
        ])
        .failed(1, "it has system");
    // A third server is neither of them.
    let third = oa_testkit::Postgres::start_anew();
    service
        .on(
            &third.superuser_url(),
            "oa-restore",
            &["table", "whose", "--to", "latest"],
        )
        .failed(1, "say which one with --system");
    // What needs no server takes this service's own, too; without PostgreSQL the WAL that this machine has received says which they are.
    let own = service.text("SELECT system_identifier::text FROM pg_control_system()");
    let plan = ["plan", "--to", "latest", "--format", "json"];
    let into = service.path("files");
    let files = [
        "files",
        "--to",
        "latest",
        "--target-dir",
        into.to_str().unwrap(),
        "--dry-run",
    ];
    assert_eq!(service.restore(&plan).ok().json()[0]["system_id"], own);
    let other = service.restore(&files).ok();
    assert!(other.stderr.contains(&id), "{other:?}");
    let mut elsewhere = files.to_vec();
    elsewhere.extend(["--system", "1"]);
    service.restore(&elsewhere).failed(1, "it has system");
    let down = "postgresql://oa@127.0.0.1:1/oa";
    let forget = |id: &str| {
        std::fs::remove_dir_all(service.path(&format!("state/backup/wal-{id}"))).unwrap();
    };
    forget(&id);
    let found = service.on(down, "oa-restore", &plan).ok().json();
    assert_eq!(found[0]["system_id"], own);
    // Where nobody can say, nothing is taken by chance.
    forget(&own);
    let target = service.path("any");
    let target = ["--target-dir", target.to_str().unwrap(), "--yes"];
    let mut cluster = vec!["cluster", "--to", "latest"];
    cluster.extend(target);
    service
        .on(down, "oa-restore", &cluster)
        .failed(1, "say which one with --system");
    let third = third.superuser_url();
    service
        .on(&third, "oa-restore", &files)
        .failed(1, "say which one with --system");
    service
        .on(&third, "oa-restore", &["drill", "--yes"])
        .failed(1, "name a backup by its id");
}

#[test]
fn a_dump_goes_into_a_server_that_has_nothing() {
    let service = Service::start_with("kind = \"logical\"\n", &[]);
    service.init();
    service.sql(
        "CREATE ROLE reader; CREATE ROLE keeper; CREATE TABLE t AS SELECT generate_series(1, 30) AS id; ALTER TABLE t OWNER TO keeper;
         GRANT SELECT ON t TO reader; ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t TO reader USING (id < 10)",
    );
    service.backup(&["full"]).ok();
    let new = oa_testkit::Postgres::start_anew();
    let at = |database: &str| new.superuser_url().replace("/oa", &format!("/{database}"));
    let mut client = Client::connect(&at("postgres"), NoTls).unwrap();
    for sql in ["DROP DATABASE oa", "DROP ROLE oa"] {
        client.batch_execute(sql).unwrap();
    }
    let done = service
        .on(
            &at("postgres"),
            "oa-restore",
            &[
                "database", "--to", "latest", "--into", "oa", "--format", "json",
            ],
        )
        .ok();
    for text in [
        "not recorded in the run log",
        "role keeper was not there",
        "role oa was not there",
    ] {
        assert!(done.stderr.contains(text), "no {text:?} in {done:?}");
    }
    assert!(done.json()[0]["tables"].as_u64().unwrap() > 10, "{done:?}");
    let mut there = Client::connect(&at("oa"), NoTls).unwrap();
    assert_eq!(support::count(&mut there, "t"), 30);
    let owner = there.query_one(
        "SELECT tableowner::text FROM pg_tables WHERE tablename = 't'",
        &[],
    );
    assert_eq!(owner.unwrap().get::<_, String>(0), "keeper");
    assert_eq!(
        support::count(
            &mut client,
            "pg_roles WHERE rolname IN ('keeper', 'reader', 'oa') AND rolcanlogin"
        ),
        0
    );
    service
        .on(
            &at("postgres"),
            "oa-restore",
            &[
                "database", "--to", "latest", "--into", "oa2", "--swap", "--yes",
            ],
        )
        .failed(77, "--swap would put database oa in the place of postgres");
    // One table, whose roles are not there either.
    there
        .batch_execute("DROP OWNED BY keeper, reader; DROP ROLE keeper; DROP ROLE reader; DROP SCHEMA oa CASCADE")
        .unwrap();
    drop(there);
    service
        .on(&at("oa"), "oa-restore", &["table", "t", "--to", "latest"])
        .ok();
    let mut there = Client::connect(&at("oa"), NoTls).unwrap();
    assert_eq!(support::count(&mut there, "t"), 30);
    // Of several databases one must be meant.
    let (first, second) = (
        service.server.create_database("first"),
        service.server.create_database("second"),
    );
    for url in [&first, &second] {
        oa_core::pg::schema::upgrade(&mut Client::connect(url, NoTls).unwrap()).unwrap();
        service.on(url, "oa-backup", &["full"]).ok();
    }
    service
        .on(
            &at("postgres"),
            "oa-restore",
            &["database", "--to", "latest", "--into", "x"],
        )
        .failed(1, "there are dumps of first, oa, second");
}

#[test]
fn a_database_whose_name_looks_like_an_address_is_restored_and_rehearsed() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    service.init();
    service.sql("CREATE DATABASE \"host=x\"");
    let url = service.server.superuser_url();
    let (server, _) = url.rsplit_once('/').unwrap();
    let url = format!("{server}/host%3Dx");
    let mut client = Client::connect(&url, NoTls).unwrap();
    oa_core::pg::schema::upgrade(&mut client).unwrap();
    client
        .batch_execute("CREATE TABLE t AS SELECT generate_series(1, 5) AS id")
        .unwrap();
    service.on(&url, "oa-backup", &["full"]).ok();
    service.on(&url, "oa-restore", &["drill", "--yes"]).ok();
    let arguments = [
        "database", "--to", "latest", "--into", "old", "--swap", "--yes",
    ];
    service.on(&url, "oa-restore", &arguments).ok();
    let mut client = Client::connect(&url, NoTls).unwrap();
    assert_eq!(support::count(&mut client, "t"), 5);
}

#[test]
fn a_materialized_view_that_cannot_be_refreshed_keeps_nothing_else_from_coming_back() {
    let service = Service::start_with("kind = \"auto\"\n", &[]);
    service.init();
    service.sql(
        "CREATE TABLE divisors AS SELECT 1 AS d; CREATE SCHEMA \"a b\";
         CREATE MATERIALIZED VIEW broken AS SELECT 10 / d AS q FROM divisors;
         CREATE MATERIALIZED VIEW \"a b\".\"whole one\" AS SELECT d FROM divisors;
         CREATE MATERIALIZED VIEW \"of it\" AS SELECT d FROM \"a b\".\"whole one\";
         CREATE UNIQUE INDEX ON \"of it\" (d);
         CREATE MATERIALIZED VIEW \"two\nlines\" AS SELECT d FROM divisors;
         CREATE MATERIALIZED VIEW live_only AS SELECT d / CASE WHEN session_user = 'oa_private' THEN 0 ELSE 1 END AS q FROM divisors;
         CREATE MATERIALIZED VIEW never AS SELECT d FROM divisors WITH NO DATA;
         INSERT INTO divisors VALUES (0)",
    );
    service.backup(&["full"]).ok();
    for kind in ["physical", "logical"] {
        let arguments = [
            "database", "--to", "latest", "--kind", kind, "--into", kind, "--format", "json",
        ];
        let done = service.restore(&arguments).ok();
        let notes = done.json()[0]["notes"].to_string();
        assert!(notes.contains("view public.broken"), "{notes}");
        assert!(!notes.contains("live_only"), "{notes}");
        assert!(
            done.stderr.contains("materialized view public.broken"),
            "{done:?}"
        );
        assert!(done.stderr.contains("division by zero"), "{done:?}");
        let url = service.server.superuser_url();
        let (server, _) = url.rsplit_once('/').unwrap();
        let mut client = Client::connect(&format!("{server}/{kind}"), NoTls).unwrap();
        assert_eq!(support::count(&mut client, "divisors"), 2);
        assert_eq!(support::count(&mut client, "\"of it\""), 2);
        let empty = "(SELECT relname FROM pg_class WHERE relkind = 'm' AND NOT relispopulated) x";
        assert_eq!(support::count(&mut client, empty), 2);
    }
}

#[test]
fn a_dump_that_is_not_what_was_recorded_is_not_let_in() {
    let service = Service::start_with("kind = \"logical\"\n", &[]);
    service.init();
    service.sql("CREATE TABLE t AS SELECT generate_series(1, 30) AS id");
    service.backup(&["full"]).ok();
    service.forge(Kind::Logical, |_, meta| {
        let mark = meta.mark.as_mut().unwrap();
        mark.tables.get_mut("public.t").unwrap().rows = 31;
    });
    service
        .restore(&["database", "--to", "latest", "--into", "x"])
        .failed(1, "table public.t has 30 rows instead of 31");
    assert_eq!(
        service.count("pg_database WHERE datname = 'x' OR datname LIKE 'oa_restore%'"),
        0
    );
    let drill = service.restore(&["drill", "--yes", "--format", "json"]);
    drill.failed(1, "table public.t has 30 rows instead of 31");
    assert_eq!(
        service.count("oa.drills WHERE NOT ok AND error LIKE '%30 rows instead of 31%'"),
        1
    );
}

#[test]
fn after_an_upgrade_dumps_go_in_and_physical_backups_say_which_programs_they_need() {
    let mut service = Service::start();
    service.sql("CREATE TABLE quotes (id int PRIMARY KEY, price numeric NOT NULL); INSERT INTO quotes SELECT i, i / 8.0 FROM generate_series(1, 500) i");
    service.init();
    let before = service.backup(&["full", "--format", "json"]).ok().json();
    let id = |kind: &str| {
        let found = before.iter().find(|b| b["kind"] == kind).unwrap();
        found["id"].as_str().unwrap().to_owned()
    };
    let (full, dump) = (id("physical"), id("logical"));
    let Some(programs) = service.server.upgrade() else {
        return;
    };
    let config = std::fs::read_to_string(service.config()).unwrap();
    let with_newer = format!("{config}\nbin_dir = \"{}\"\n", programs.display());
    std::fs::write(service.config(), with_newer).unwrap();
    service.sql("DELETE FROM quotes");
    service
        .restore(&["database", "--to", &dump, "--into", "before", "--yes"])
        .ok();
    let url = service.server.superuser_url();
    let (address, _) = url.rsplit_once('/').unwrap();
    let mut restored = Client::connect(&format!("{address}/before"), NoTls).unwrap();
    let sum = "SELECT count(*) || ' ' || sum(price) FROM quotes";
    assert_eq!(
        restored.query_one(sum, &[]).unwrap().get::<_, &str>(0),
        "500 15656.25000000000000000000"
    );
    service
        .restore(&["table", "quotes", "--to", &dump, "--yes"])
        .ok();
    assert_eq!(
        service
            .superuser()
            .query_one(sum, &[])
            .unwrap()
            .get::<_, &str>(0),
        "500 15656.25000000000000000000"
    );
    let target = service.path("clusters/old");
    let cluster = [
        "cluster",
        "--to",
        &full,
        "--target-dir",
        target.to_str().unwrap(),
    ];
    service
        .restore(&cluster)
        .failed(78, "only that version can run it");
    assert!(!target.exists());
    // Where the old version's programs are still installed, it comes back as what it was.
    std::fs::write(service.config(), config).unwrap();
    service.restore(&cluster).ok();
    assert!(
        std::fs::read_to_string(target.join("PG_VERSION"))
            .unwrap()
            .starts_with("15")
    );
}

#[test]
fn subscriptions_stay_with_the_live_database() {
    let service = Service::start_with("kind = \"physical\"\n", &[("wal_level", "logical")]);
    service.init();
    service.sql("CREATE TABLE quotes (id int PRIMARY KEY); INSERT INTO quotes VALUES (1)");
    service.sql("CREATE SUBSCRIPTION news CONNECTION 'host=127.0.0.1 port=1 dbname=x' PUBLICATION p WITH (connect = false, slot_name = 'theirs')");
    service.backup(&["full"]).ok();
    service
        .restore(&[
            "database", "--to", "latest", "--into", "before", "--swap", "--yes",
        ])
        .failed(77, "subscription");
    service
        .restore(&["database", "--to", "latest", "--into", "before", "--yes"])
        .ok();
    let count = "SELECT count(*) || ' in all, ' || count(*) FILTER (WHERE datname = 'before') || ' restored' FROM pg_subscription JOIN pg_database d ON d.oid = subdbid";
    let row = service.superuser().query_one(count, &[]).unwrap();
    assert_eq!(row.get::<_, &str>(0), "1 in all, 0 restored");
    service.sql("DROP DATABASE before");
    service.sql("ALTER SUBSCRIPTION news SET (slot_name = NONE); DROP SUBSCRIPTION news");
}

#[test]
fn a_database_that_lets_nobody_in_keeps_no_cluster_from_coming_back() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    service.init();
    service.sql("CREATE DATABASE broken");
    service.sql("ALTER DATABASE broken SET session_preload_libraries = 'not_there'");
    service.sql("CREATE DATABASE half_dropped");
    service.sql("UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'half_dropped'");
    service.backup(&["full"]).ok();
    let target = service.path("clusters/restored");
    let done = service
        .restore(&[
            "cluster",
            "--to",
            "latest",
            "--target-dir",
            target.to_str().unwrap(),
        ])
        .ok();
    assert!(
        done.stderr.contains("could not look into database broken")
            && !done.stderr.contains("half_dropped"),
        "{done:?}"
    );
}
