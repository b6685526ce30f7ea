//! Each program does its work as the role that `oa-migrate init --roles` makes for it, and that role can do no more.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::process::Command;

use common::{DAY, Done, Service};
use oa_sim::Options;
use postgres::error::SqlState;
use postgres::{Client, NoTls};

/// The trigger's function acts as the owner, on what its caller made.
const AUDIT_OF_ITS_OWN: &str = "SET transaction_read_only = off; CREATE TEMP TABLE mine (id int PRIMARY KEY);
    CREATE TRIGGER mine AFTER INSERT ON mine REFERENCING NEW TABLE AS oa_new_rows FOR EACH STATEMENT EXECUTE FUNCTION oa.audit('')";

struct Roles {
    service: Service,
}

impl Roles {
    fn url(&self, role: &str) -> String {
        let url = &self.service.url;
        let (_, host) = url.split_once('@').unwrap();
        format!("postgresql://oa_{role}:of-{role}-only@{host}")
    }

    fn run(&self, program: &str, role: &str, arguments: &[&str]) -> Done {
        Command::new(oa_testkit::program(program))
            .arg("--config")
            .arg(self.service.config())
            .args(arguments)
            .env("DATABASE_URL", self.url(role))
            .env("BACKUP_URL", self.url("backup"))
            .env("REPORT_URL", self.url("reader"))
            .env("BACKUP_PASSWORD", "of-the-repository")
            .output()
            .unwrap()
            .into()
    }

    fn ok(&self, program: &str, role: &str, arguments: &[&str]) -> Done {
        let done = self.run(program, role, arguments);
        assert_eq!(done.code, 0, "{program} {arguments:?} as {role}: {done:?}");
        assert!(!done.stderr.contains("permission denied"), "{done:?}");
        done
    }

    fn client(&self, role: &str) -> Client {
        Client::connect(&self.url(role), NoTls).unwrap()
    }

    fn may_not(&self, role: &str, sql: &str) {
        let refused = self.client(role).batch_execute(sql).unwrap_err();
        let code = refused.code().unwrap_or_else(|| panic!("{refused}"));
        assert_eq!(
            code,
            &SqlState::INSUFFICIENT_PRIVILEGE,
            "{role}: {sql}: {refused}"
        );
    }
}

#[test]
fn each_program_works_under_a_role_of_its_own_that_can_do_no_more() {
    let mut service = Service::without_schema(Options::default());
    let superuser = service.server.superuser_url();
    let config = service.config();
    let init = |url: &str| -> Done {
        Command::new(oa_testkit::program("oa-migrate"))
            .arg("--config")
            .arg(&config)
            .args(["init", "--roles", "--format", "json"])
            .env("DATABASE_URL", url)
            .output()
            .unwrap()
            .into()
    };
    let done = init(&service.url);
    assert_eq!(done.code, 77, "who may not make roles hears it: {done:?}");
    // The schema is the superuser's, as where `init` was first run as one.
    service
        .db()
        .batch_execute("DROP SCHEMA oa CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        .unwrap();
    let done = init(&superuser);
    assert_eq!(done.code, 0, "{done:?}");
    let made = done.stdout.matches("made, without a password").count();
    assert_eq!(made, 5, "{done:?}");
    service.url.clone_from(&superuser);
    let mut client = service.db();
    for role in ["owner", "writer", "reader", "backup", "restore"] {
        let sql = format!("ALTER ROLE oa_{role} PASSWORD 'of-{role}-only'");
        client.batch_execute(&sql).unwrap();
    }
    // What a superuser's upgrade makes is given to the owner too.
    client
        .batch_execute("ALTER TABLE oa.requests OWNER TO CURRENT_USER; ALTER FUNCTION oa.prune_slots(timestamptz) OWNER TO CURRENT_USER")
        .unwrap();
    let limit = "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'oa_reader'";
    let limit: i32 = client.query_one(limit, &[]).unwrap().get(0);
    assert!(limit > 0, "it does not take all sessions that there are");
    let again = init(&superuser);
    let strays = |client: &mut Client| -> i64 {
        let row = client.query_one(
            "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'oa'::regnamespace AND relowner <> 'oa_owner'::regrole)
                  + (SELECT count(*) FROM pg_proc WHERE pronamespace = 'oa'::regnamespace AND proowner <> 'oa_owner'::regrole)",
            &[],
        );
        row.unwrap().get(0)
    };
    assert_eq!(strays(&mut client), 0);
    // One that has been done without --roles gives its table to the owner by itself: oa-migrate sync uses it.
    client
        .batch_execute("DROP TABLE oa.commits; DROP FUNCTION oa.note_commit")
        .unwrap();
    client
        .batch_execute(include_str!(
            "../../oa-core/src/pg/migrations/V38__commits.sql"
        ))
        .unwrap();
    assert_eq!(strays(&mut client), 0);
    assert_eq!(again.code, 0, "{again:?}");
    assert_eq!(again.stdout.matches("was there").count(), 5, "{again:?}");
    assert!(!again.stdout.contains("more than it needs"), "{again:?}");

    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        format!(
            "{text}[report]\ndatabase_url = \"env:REPORT_URL\"\n[backup]\nrepository = \"repo\"\npassword = \"env:BACKUP_PASSWORD\"\nkind = \"physical\"\ndatabase_url = \"env:BACKUP_URL\"\nverify_recovery = false\n"
        ),
    )
    .unwrap();
    let roles = Roles { service };
    roles.ok("oa-migrate", "owner", &["init"]);
    let day = ["run", "zhihui-full-view", "--date", DAY];
    roles.ok("oa-crawl", "writer", &day);
    roles.ok("oa-crawl", "writer", &["run", "zhihui-reports"]);
    roles.ok("oa-crawl", "writer", &["check"]);
    roles.ok("oa-crawl", "writer", &["prune"]);
    let task = ["exec", "--task", "own", "--", "true"];
    roles.ok("oa-crawl", "writer", &task);
    let checked = roles.run("oa-alert", "writer", &["check"]);
    assert!(
        !checked.stderr.contains("42501") && checked.code <= 2,
        "{checked:?}"
    );
    roles.ok("oa-alert", "writer", &["send", "--title", "t", "x"]);
    for command in [
        &["health"][..],
        &["logs"],
        &["days"],
        &["backups"],
        &["quality"],
        &["html"],
    ] {
        let done = roles.run("oa-report", "reader", command);
        assert!(
            done.code != 77 && !done.stderr.contains("permission denied"),
            "{done:?}"
        );
        assert!(done.stdout.len() > 20, "{command:?}: {done:?}");
    }
    roles.ok("oa-backup", "writer", &["init"]);
    roles.ok("oa-backup", "writer", &["full"]);
    let rows = roles.service.count("market_full_view");
    let before = roles.service.text("SELECT now()::text");
    roles
        .client("writer")
        .batch_execute("UPDATE market_full_view SET comm_code = comm_code || 'x'")
        .unwrap();
    roles.ok("oa-backup", "writer", &["incremental"]);
    let table = ["table", "market_full_view", "--to", &before, "--yes"];
    roles.ok("oa-restore", "restore", &table);
    assert_eq!(
        roles
            .service
            .count("market_full_view WHERE comm_code NOT LIKE '%x'"),
        rows
    );
    // The restored table is the owner's, and the crawler still writes there.
    roles.ok("oa-crawl", "writer", &day);
    roles.ok(
        "oa-migrate",
        "owner",
        &["init", "--audit", "market_full_view"],
    );

    for sql in [
        // Such transactions are only the default: what it may in any is the question.
        "SET transaction_read_only = off; DELETE FROM oa.runs",
        "SET transaction_read_only = off; INSERT INTO oa.locks SELECT * FROM oa.locks",
        "SET transaction_read_only = off; SELECT FROM oa.locks FOR UPDATE",
        "SELECT FROM pg_authid",
        "SET transaction_read_only = off; UPDATE market_full_view SET comm_code = comm_code",
        "SET transaction_read_only = off; SELECT oa.ensure_partitions('2050-01-01')",
        AUDIT_OF_ITS_OWN,
    ] {
        roles.may_not("reader", sql);
    }
    for sql in [
        "DROP TABLE market_full_view",
        "TRUNCATE market_full_view",
        "DELETE FROM oa.runs",
        "UPDATE oa.schema_history SET version = version",
        "CREATE TABLE mine ()",
        "CREATE SCHEMA mine",
        "SELECT FROM pg_authid",
        AUDIT_OF_ITS_OWN,
    ] {
        roles.may_not("writer", sql);
    }
    for sql in [
        "INSERT INTO oa.locks SELECT * FROM oa.locks",
        "DELETE FROM market_full_view",
        "CREATE TABLE mine ()",
    ] {
        roles.may_not("backup", sql);
    }
    for role in ["owner", "restore"] {
        roles.may_not(role, "SELECT FROM pg_authid");
        roles.may_not(role, "CREATE ROLE mine");
        roles.may_not(role, "CREATE DATABASE mine");
    }
}
