//! The whole database beside the live one, and in its place.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::Duration;

use oa_testkit::wait_until;
use postgres::{Client, NoTls};
use support::Service;

#[test]
fn a_database_is_restored_beside_and_swapped_in_and_the_old_one_is_kept() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    service.backup(&["init"]).ok();
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
        "database", "--to", &then, "--into", "third", "--swap", "--yes",
    ];
    service.killed_at("restore.swapping", &arguments);
    assert_eq!(service.count("t"), 10);
    assert_eq!(service.count("pg_database WHERE datname = 'third'"), 1);

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
        behind.stderr.contains("older than what was asked for"),
        "{behind:?}"
    );
    as_oa("oa-restore", &["table", "t", "--to", &now, "--yes"]).ok();
    assert_eq!(service.count("oa.t"), 20);
    as_oa("oa-restore", &["database", "--to", &now, "--into", "copy"]).ok();
    as_oa(
        "oa-restore",
        &["cluster", "--to", "latest", "--target-dir", "x"],
    )
    .failed(1, "physical");
    as_oa("oa-restore", &["table", "t", "--to", "0/1"]).failed(1, "physical");
}
