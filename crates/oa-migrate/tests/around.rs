//! The commands around a run: plan and mapping, verify, dedupe, rollback, status.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;

use rusqlite::Connection;
use support::{Sandbox, table};

const TWO_TABLES: &str = "CREATE TABLE Orders (id INTEGER PRIMARY KEY, total REAL, at DATETIME);
     INSERT INTO Orders VALUES (1, 0.1, '2025-01-01 10:00:00'), (2, 1e-300, NULL), (7, 3, '2025-01-02 00:00:00.5');
     CREATE TABLE log (line TEXT); INSERT INTO log VALUES ('a'), ('a'), ('b');";

#[test]
fn verify_names_the_keys_that_differ() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", TWO_TABLES);
    sandbox.migrate(&file, &[]).expect(0);
    let verify = ["verify", file.to_str().unwrap(), "--format", "json"];
    assert_eq!(sandbox.run(&verify).expect(0).report()["matched"], true);

    sandbox
        .client()
        .batch_execute(
            // The first changes the last bit only.
            "UPDATE orders SET total = 0.1::float8 + 1e-17 WHERE id = 1; UPDATE orders SET total = 0.30000000000000004 WHERE id = 2;
             DELETE FROM orders WHERE id = 7; INSERT INTO orders (total) VALUES (5); DELETE FROM log WHERE line = 'b'; INSERT INTO log VALUES ('a')",
        )
        .unwrap();
    let report = sandbox.run(&verify).expect(1).report();
    let difference = &table(&report, "Orders")["difference"];
    assert_eq!(
        (
            &difference["only_source"],
            &difference["only_target"],
            &difference["changed"]
        ),
        (&1.into(), &1.into(), &2.into()),
        "{difference}"
    );
    assert_eq!(
        difference["examples"],
        serde_json::json!(["missing 7", "extra 8", "changed 1", "changed 2"])
    );
    // Without a key, whole rows are named; a third "a" is not the same as two.
    let difference = &table(&report, "log")["difference"];
    assert_eq!(
        difference["examples"],
        serde_json::json!(["missing b", "extra a"])
    );
}

#[test]
fn a_plan_can_be_edited_and_given_to_run() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", TWO_TABLES);
    let plan = sandbox
        .run(&[
            "plan",
            file.to_str().unwrap(),
            "--write-mapping",
            "map.toml",
            "--format",
            "csv",
        ])
        .expect(0);
    assert!(
        plan.stdout
            .contains("Orders,total,REAL,orders.total,double precision"),
        "{}",
        plan.stdout
    );
    assert_eq!(
        sandbox.number("SELECT count(*) FROM pg_class WHERE relname = 'orders'"),
        0
    );
    let map = std::fs::read_to_string(sandbox.path("map.toml"))
        .unwrap()
        .replace("target = \"orders\"", "target = \"Bestellungen\"")
        .replace("double precision", "numeric")
        .replace("[tables.log]", "[tables.log]\nskip = true");
    std::fs::write(sandbox.path("map.toml"), map).unwrap();
    let report = sandbox
        .migrate(&file, &["--mapping", "map.toml"])
        .expect(0)
        .report();
    assert_eq!(report["tables"].as_array().unwrap().len(), 1);
    assert_eq!(
        sandbox.texts("SELECT total::text FROM \"Bestellungen\" WHERE id = 1"),
        ["0.1"]
    );
    std::fs::write(
        sandbox.path("map.toml"),
        "[tables.Orders.columns.nope]\ntype = \"text\"",
    )
    .unwrap();
    let wrong = sandbox.migrate(&file, &["--mapping", "map.toml"]).expect(1);
    assert!(
        wrong.stderr.contains("column nope of table Orders"),
        "{}",
        wrong.stderr
    );
    std::fs::write(
        sandbox.path("map.toml"),
        "[tables.Orders.columns.total]\ntype = \"monney\"",
    )
    .unwrap();
    let wrong = sandbox.migrate(&file, &["--mapping", "map.toml"]).expect(1);
    assert!(
        wrong.stderr.contains("\"monney\" is no type of the target"),
        "{}",
        wrong.stderr
    );
}

#[test]
fn rollback_puts_back_what_was_there_to_the_last_index() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", TWO_TABLES);
    sandbox
        .client()
        .batch_execute("CREATE TABLE orders (id serial PRIMARY KEY, total float8, at timestamp, extra text DEFAULT 'x'); CREATE INDEX mine ON orders (at); INSERT INTO orders (total) VALUES (42)")
        .unwrap();
    sandbox.run(&["init"]).expect(0);
    let before = sandbox.picture();
    sandbox.migrate(&file, &["--replace"]).expect(0);
    assert_eq!(sandbox.number("SELECT count(*) FROM orders"), 3);
    // The target's own column and index are kept, and an insert needs no id.
    assert_eq!(
        sandbox.texts("INSERT INTO orders (total) VALUES (9) RETURNING id || extra"),
        ["8x"]
    );
    assert_eq!(
        sandbox.number(
            "SELECT count(*) FROM pg_indexes WHERE schemaname = 'public' AND indexname = 'mine'"
        ),
        1
    );

    sandbox.run(&["rollback"]).expect(77);
    sandbox.run(&["rollback", "--yes"]).expect(0);
    let after: Vec<String> = sandbox
        .picture()
        .into_iter()
        .filter(|line| !line.starts_with("oa_after_"))
        .collect();
    assert_eq!(after, before);
    assert_eq!(sandbox.texts("SELECT total::text FROM orders"), ["42"]);
    assert!(sandbox.run(&["status"]).expect(0).stdout.contains("已回退"));
    sandbox.run(&["rollback", "--yes"]).expect(1);
}

#[test]
fn a_rollback_goes_back_behind_a_natural_key_that_dedupe_made() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    let rows = "INSERT INTO institutional_positions (comm_code, broker_name, net_position, record_date) VALUES ('RB', 'a', 1, '2025-11-26'), ('RB', 'a', 2, '2025-11-26')";
    sandbox
        .client()
        .batch_execute(&format!("DROP INDEX institutional_positions_key; {rows}"))
        .unwrap();
    let file = sandbox.sqlite(
        "a.db",
        &format!("CREATE TABLE institutional_positions (id INTEGER PRIMARY KEY, comm_code TEXT, broker_name TEXT, net_position INTEGER, record_date DATE); {rows}"),
    );
    sandbox
        .migrate(&file, &["--replace", "--allow-missing"])
        .expect(0);
    sandbox
        .run(&["dedupe", "institutional_positions", "--yes"])
        .expect(0);
    let keys = "SELECT count(*) FROM pg_indexes WHERE indexname = 'institutional_positions_key'";
    assert_eq!(sandbox.number(keys), 1);
    let done = sandbox.run(&["rollback", "--yes"]).expect(0);
    assert!(done.stderr.contains("dedupe"), "{}", done.stderr);
    assert_eq!(sandbox.number(keys), 0);
    assert_eq!(
        sandbox.number("SELECT count(*) FROM institutional_positions"),
        2
    );
}

#[test]
fn dedupe_keeps_the_newest_row_and_moves_the_others() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    sandbox
        .client()
        .batch_execute(
            "DROP INDEX institutional_positions_key;
             INSERT INTO institutional_positions (comm_code, broker_name, net_position, record_date) VALUES
               ('RB', '国泰君安', 1, '2025-11-26'), ('RB', '国泰君安', 2, '2025-11-26'), ('RB', '国泰君安', 3, '2025-11-26'),
               ('RB', NULL, 4, '2025-11-26'), ('RB', NULL, 5, '2025-11-26'), ('HC', '国泰君安', 6, '2025-11-26')",
        )
        .unwrap();
    let refused = sandbox
        .run(&["dedupe", "institutional_positions"])
        .expect(77);
    assert!(
        refused.stderr.contains("Move 2 older row(s) of 1 key(s)"),
        "{}",
        refused.stderr
    );
    assert_eq!(
        sandbox.number("SELECT count(*) FROM institutional_positions"),
        6
    );
    sandbox.killed_at(
        "dedupe.moved",
        &["dedupe", "institutional_positions", "--yes"],
    );
    assert_eq!(
        sandbox.number("SELECT count(*) FROM institutional_positions"),
        6
    );
    sandbox
        .run(&["dedupe", "institutional_positions", "--yes"])
        .expect(0);
    assert_eq!(
        sandbox.texts("SELECT net_position::text FROM institutional_positions ORDER BY 1"),
        ["3", "4", "5", "6"]
    );
    assert_eq!(
        sandbox.texts("SELECT source_key || ' ' || (record->>'net_position') || ' ' || reason FROM oa.rejects ORDER BY seq"),
        [
            "1 1 older row of the natural key; kept is the row with id 3",
            "2 2 older row of the natural key; kept is the row with id 3"
        ]
    );
    // All rows were there before, and it is known which run removed two of them.
    assert_eq!(
        sandbox.number("SELECT count(*) FROM oa.as_of(NULL::institutional_positions, now() - interval '1 hour')"),
        6
    );
    assert_eq!(
        sandbox.texts("SELECT operation || ' ' || (old_row ->> 'net_position') || ' ' || task FROM oa.revisions JOIN oa.runs ON runs.id = run_id ORDER BY old_row ->> 'id'"),
        ["delete 1 dedupe", "delete 2 dedupe"]
    );
    assert_eq!(
        sandbox.number(
            "SELECT count(*) FROM pg_indexes WHERE indexname = 'institutional_positions_key'"
        ),
        1
    );
    sandbox
        .run(&["dedupe", "institutional_positions"])
        .expect(0);
    sandbox.run(&["dedupe", "orders"]).expect(2);
}

#[test]
fn two_tables_of_one_transaction_come_from_the_same_point_in_time() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "live.db",
        "PRAGMA journal_mode = WAL; CREATE TABLE a (n INTEGER PRIMARY KEY); CREATE TABLE b (n INTEGER PRIMARY KEY);",
    );
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn({
        let file = file.clone();
        move || {
            let mut db = Connection::open(file).unwrap();
            let mut n = 0i64;
            while stopped.try_recv().is_err() {
                n += 1;
                let tx = db.transaction().unwrap();
                tx.execute("INSERT INTO a VALUES (?1)", [n]).unwrap();
                tx.execute("INSERT INTO b VALUES (?1)", [n]).unwrap();
                tx.commit().unwrap();
            }
            n as u64
        }
    });
    oa_testkit::wait_until("some rows", std::time::Duration::from_secs(20), || {
        Connection::open(&file)
            .and_then(|c| c.query_row("SELECT count(*) FROM b", [], |r| r.get::<_, i64>(0)))
            .is_ok_and(|n| n > 200)
    });
    let report = sandbox.migrate(&file, &[]).expect(0).report();
    stop.send(()).unwrap();
    let written: u64 = writer.join().unwrap();
    let loaded = table(&report, "a")["rows_loaded"].as_u64().unwrap();
    assert_eq!(table(&report, "b")["rows_loaded"], loaded);
    assert!(loaded > 200 && loaded <= written, "{loaded} of {written}");
}

#[test]
fn a_first_look_needs_no_configuration_and_shows_the_statements() {
    let sandbox = Sandbox::new();
    sandbox.sqlite(
        "a.db",
        "CREATE TABLE a (id INTEGER PRIMARY KEY, made TEXT DEFAULT (datetime('now')), at INTEGER DEFAULT (strftime('%s', 'now')), raw BLOB DEFAULT x'00ff',
                         token TEXT DEFAULT (lower(hex(randomblob(16)))));
         CREATE TABLE a_id_seq (x); CREATE TABLE crawler_task_logs (id INTEGER PRIMARY KEY AUTOINCREMENT);
         INSERT INTO a (id) VALUES (1); INSERT INTO crawler_task_logs VALUES (7); UPDATE sqlite_sequence SET seq = NULL;
         CREATE TABLE parent (id INTEGER PRIMARY KEY, note TEXT); CREATE TABLE child (id INTEGER PRIMARY KEY, p INTEGER REFERENCES parent (id), note TEXT);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO parent SELECT i, 'x' FROM n;
         INSERT INTO child SELECT id, CASE WHEN id > 100 THEN id END, 'a note that takes some room' FROM parent;",
    );
    let looked = |to: &str, more: &[&str]| {
        let folder = sandbox.path("elsewhere");
        std::fs::create_dir_all(&folder).unwrap();
        let mut command = sandbox.command(&[&["--to", to, "plan", "../a.db"], more].concat());
        command
            .current_dir(folder)
            .env_remove("OA_CONFIG")
            .env_remove("DATABASE_URL")
            .env("XDG_STATE_HOME", sandbox.path("home"));
        support::done(command.env("TARGET", sandbox.pg.url()).output().unwrap())
    };
    let ddl = looked("env:TARGET", &["--ddl"]).expect(0).stdout;
    assert!(
        ddl.contains("CREATE TABLE \"public\".\"child\"")
            && ddl.contains("ADD FOREIGN KEY (\"p\")"),
        "{ddl}"
    );
    sandbox
        .run(&["--to", "env:DATABASE_URL", "plan", "a.db"])
        .expect(77);

    sandbox.run(&["init"]).expect(0);
    for schema in ["oa", "information_schema", "pg_catalog"] {
        sandbox.run(&["run", "a.db", "--schema", schema]).expect(77);
    }
    let done = sandbox.run(&["run", "a.db"]).expect(0);
    let last = done.stdout.lines().last().unwrap();
    assert!(
        last.starts_with("success: 6002 row(s)") && last.ends_with("report.md"),
        "{last}"
    );
    let report = std::fs::read_to_string(last.rsplit_once(' ').unwrap().1).unwrap();
    assert!(
        report.contains("| child | id bigint, p bigint, note text |"),
        "{report}"
    );
    assert_eq!(
        sandbox.texts("INSERT INTO a DEFAULT VALUES RETURNING (id = 2 AND length(token) = 32 AND at > 1700000000 AND made LIKE '20%:%' AND raw = '\\x00ff')::text"),
        ["true"]
    );
    assert_eq!(
        sandbox.texts("SELECT id::text FROM public.crawler_task_logs"),
        ["7"]
    );

    // Rows that many others could refer to go, and the index that this takes is gone then.
    sandbox
        .client()
        .batch_execute("DELETE FROM a WHERE id = 2; ANALYZE child")
        .unwrap();
    sandbox.sqlite("a.db", "DELETE FROM parent WHERE id <= 100");
    sandbox.run(&["sync", "a.db", "--yes"]).expect(0);
    assert_eq!(sandbox.number("SELECT count(*) FROM parent"), 2900);
    assert_eq!(
        sandbox.number(
            "SELECT count(*) FROM pg_indexes WHERE tablename = 'child' AND schemaname = 'public'"
        ),
        1
    );
}

#[test]
fn roles_that_were_there_and_cannot_do_their_work_are_named() {
    let sandbox = Sandbox::new();
    sandbox.superuser(
        "CREATE ROLE x_writer NOLOGIN; CREATE ROLE x_reader LOGIN VALID UNTIL '2020-01-01'; CREATE ROLE x_backup LOGIN NOINHERIT REPLICATION;
         CREATE ROLE x_restore LOGIN CONNECTION LIMIT 0",
    );
    for _ in 0..2 {
        let mut init = sandbox.command(&["init", "--roles", "x", "--format", "json"]);
        let done = init.env("DATABASE_URL", sandbox.pg.superuser_url());
        let done = support::done(done.output().unwrap()).expect(0);
        for how in [
            "ALTER ROLE x_writer LOGIN",
            "ALTER ROLE x_reader VALID UNTIL 'infinity'",
            "ALTER ROLE x_backup INHERIT",
            "ALTER ROLE x_restore CONNECTION LIMIT -1",
        ] {
            assert!(done.stdout.contains(how), "{how}: {}", done.stdout);
        }
    }
}
