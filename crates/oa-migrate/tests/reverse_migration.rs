//! The reverse migration keeps what was written to PostgreSQL since, and what never fitted there.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;

use rusqlite::Connection;
use support::{Sandbox, table};

const SQL: &str = "CREATE TABLE \"Quotes\" (id INTEGER PRIMARY KEY AUTOINCREMENT, code VARCHAR(8), price FLOAT, ok BOOLEAN, at DATETIME, day DATE,
                                          amount DECIMAL(10,2), more JSON, doc BLOB, twice INTEGER AS (id * 2) STORED);
     CREATE TABLE log (line TEXT, n REAL);
     CREATE TABLE names (code TEXT COLLATE NOCASE PRIMARY KEY, title TEXT) WITHOUT ROWID;
     CREATE TRIGGER count AFTER INSERT ON \"Quotes\" BEGIN INSERT INTO log VALUES ('trigger', 1); END;
     INSERT INTO log VALUES ('a', 1), ('a', 1), ('b', NULL);
     INSERT INTO names VALUES ('RB', '螺纹钢'), ('hc', '热卷');
     INSERT INTO \"Quotes\" (code, price, ok, at, day, amount, more, doc) VALUES
       ('RB', 0.1, 1, '2025-11-26T09:00:00', '2025-11-26', 12.5, '{\"b\": 1, \"a\": 2}', x'00ff'),
       ('HC', 1e300, 0, '2025-11-26 09:00:00.120', NULL, -3, NULL, NULL);";

fn dump(path: &std::path::Path, sql: &str) -> Vec<String> {
    let db = Connection::open(path).unwrap();
    let mut statement = db.prepare(sql).unwrap();
    statement
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

#[test]
fn what_was_written_since_comes_back_and_the_rest_keeps_its_bytes() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", SQL);
    Connection::open(&file)
        .unwrap()
        .execute_batch("INSERT INTO \"Quotes\" (id, price) VALUES (40, 'dear')")
        .unwrap();
    sandbox.migrate(&file, &[]).expect(1);
    sandbox
        .client()
        .batch_execute(
            "INSERT INTO quotes (code, price, ok, at, day, amount, more, doc)
               VALUES ('I', 1::float8 / 3, true, '2025-11-27 21:00:00', '2025-11-27', 99999999.99, '{\"x\": [1.50, \"多\"]}', '\\x0102');
             UPDATE quotes SET price = -0.5, at = '2025-11-28 00:00:00.000001' WHERE id = 2;
             DELETE FROM log WHERE ctid = (SELECT min(ctid) FROM log WHERE line = 'a'); INSERT INTO log VALUES ('c', 2);
             UPDATE names SET code = 'HC' WHERE code = 'hc'; INSERT INTO names VALUES ('J', NULL);
             CREATE TABLE public.newer AS SELECT 1 AS id; CREATE TABLE public.empty (id int); ALTER TABLE log ADD COLUMN seen boolean;
             ALTER TABLE log ADD COLUMN unused text; UPDATE log SET seen = true WHERE line = 'c'",
        )
        .unwrap();
    let report = sandbox
        .run(&["to-sqlite", "back.db", "--format", "json"])
        .expect(0)
        .report();
    let back = sandbox.path("back.db");
    for (name, counts) in [
        ("Quotes", [1, 1, 0]),
        ("log", [1, 0, 1]),
        ("names", [2, 0, 1]),
    ] {
        let entry = table(&report, name);
        let found = ["inserted", "updated", "deleted"].map(|k| entry[k].as_i64().unwrap());
        assert_eq!(found, counts, "{name}: {entry}");
    }
    assert_eq!(
        report["warnings"],
        serde_json::json!([
            "column seen of log is in PostgreSQL only: 1 row(s) of it were not written and stay there",
            "table newer is in PostgreSQL only: 1 row(s) of it were not written and stay there",
        ])
    );
    // Untouched rows keep their spelling, new ones are written as the newest value is; the row that never fitted is still there.
    let quotes = "SELECT concat_ws('|', id, code, quote(price), typeof(price), ok, at, day, amount, more, hex(doc), twice) FROM \"Quotes\" ORDER BY id";
    assert_eq!(
        dump(&back, quotes),
        [
            "1|RB|0.1|real|1|2025-11-26T09:00:00|2025-11-26|12.5|{\"b\": 1, \"a\": 2}|00FF|2",
            "2|HC|-0.5|real|0|2025-11-28 00:00:00.000001|-3||4",
            "40|'dear'|text||80",
            "41|I|0.33333333333333332|real|1|2025-11-27 21:00:00.000|2025-11-27|99999999.99|{\"x\": [1.50, \"多\"]}|0102|82",
        ]
    );
    assert_eq!(
        dump(&back, "SELECT line FROM log ORDER BY 1"),
        // Three inserts into the old file fired it, none of the rows that came back did.
        ["a", "b", "c", "trigger", "trigger", "trigger"]
    );
    assert_eq!(
        dump(&back, "SELECT code FROM names ORDER BY code"),
        ["HC", "J", "RB"]
    );
    assert_eq!(
        dump(
            &back,
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ),
        ["count"]
    );
    assert_eq!(dump(&back, "PRAGMA integrity_check"), ["ok"]);
    // It can be moved again, and is what PostgreSQL holds.
    sandbox.migrate(&back, &["--schema", "again"]).expect(1);
    let left: Vec<_> = std::fs::read_dir(sandbox.dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.contains(".part"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn nothing_is_overwritten_and_a_lost_base_can_be_named() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", SQL);
    sandbox.run(&["init"]).expect(0);
    let none = sandbox.run(&["to-sqlite", "back.db"]).expect(1);
    assert!(
        none.stderr.contains("begin with oa-migrate run"),
        "{}",
        none.stderr
    );
    sandbox.migrate(&file, &["--allow-missing"]).expect(0);
    sandbox.run(&["to-sqlite", "a.db"]).expect(77);
    for entry in std::fs::read_dir(sandbox.path("state/migrations")).unwrap() {
        let _ = std::fs::remove_file(entry.unwrap().path().join("snapshot.sqlite"));
    }
    let gone = sandbox.run(&["to-sqlite", "back.db"]).expect(1);
    assert!(gone.stderr.contains("--base"), "{}", gone.stderr);
    assert!(!sandbox.path("back.db").exists());
    sandbox
        .run(&["to-sqlite", "back.db", "--base", "a.db"])
        .expect(0);
    sandbox
        .run(&["to-sqlite", "no/such/folder/back.db", "--base", "a.db"])
        .expect(1);
    assert_eq!(
        sandbox.texts("SELECT status FROM oa.runs WHERE task = 'to-sqlite' ORDER BY id"),
        ["success", "failed"]
    );
}

#[test]
fn a_day_without_end_stays_one() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, day DATE); INSERT INTO t VALUES (1, '2025-11-26'), (2, NULL);",
    );
    sandbox.migrate(&file, &[]).expect(0);
    sandbox
        .client()
        .batch_execute(
            "UPDATE t SET day = 'infinity' WHERE id = 2; INSERT INTO t (day) VALUES ('-infinity')",
        )
        .unwrap();
    sandbox.run(&["to-sqlite", "back.db"]).expect(0);
    assert_eq!(
        dump(&sandbox.path("back.db"), "SELECT day FROM t ORDER BY id"),
        ["2025-11-26", "infinity", "-infinity"]
    );
}

#[test]
fn the_real_database_goes_there_changes_and_comes_back() {
    let Some(file) = oa_testkit::shared_data().map(|d| d.join("option_tracker.db")) else {
        return;
    };
    let sandbox = Sandbox::new();
    sandbox.migrate(&file, &[]).expect(0);
    sandbox
        .client()
        .batch_execute(
            "DELETE FROM option_flows WHERE id % 7 = 0; UPDATE market_full_view SET neutral_num = neutral_num + 1 WHERE id % 3 = 0;
             INSERT INTO research_reports (report_id, comm_code, publish_date) VALUES (99999999, 'RB', '2025-12-01')",
        )
        .unwrap();
    let report = sandbox
        .run(&["to-sqlite", "back.db", "--format", "json"])
        .expect(0)
        .report();
    assert_eq!(report["matched"], true);
    assert_eq!(table(&report, "research_reports")["inserted"], 1);
    sandbox
        .run(&["verify", sandbox.path("back.db").to_str().unwrap()])
        .expect(0);
}

#[test]
fn a_changed_row_keeps_its_other_values_and_the_applications_spelling() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE t (name TEXT PRIMARY KEY, at DATETIME, day DATE, n INTEGER, more JSON, on_ BOOLEAN, seen DATETIME);
         INSERT INTO t (rowid, name, at, day, n, more, on_, seen) VALUES
           (7, 'a', '2024-01-02T10:00:00.500Z', '2024-01-02', 1, '{\"b\":1}', 'True', '2024-01-02T10:00'),
           (9, 'b', '2024-01-02T10:00:00Z', NULL, 2, '[1]', 'False', NULL);",
    );
    sandbox.migrate(&file, &[]).expect(0);
    sandbox
        .client()
        .batch_execute(
            "UPDATE t SET n = 5 WHERE name = 'a'; UPDATE t SET at = at + interval '1 hour', on_ = true, seen = '2024-05-06 07:08:00' WHERE name = 'b';
             INSERT INTO t VALUES ('c', '2025-01-01 00:00:00+00', '2025-01-01', 3, '{}', false, 'infinity')",
        )
        .unwrap();
    sandbox.run(&["to-sqlite", "back.db"]).expect(0);
    assert_eq!(
        dump(
            &sandbox.path("back.db"),
            "SELECT concat_ws('|', rowid, name, at, day, n, more, on_, seen) FROM t ORDER BY rowid"
        ),
        [
            "7|a|2024-01-02T10:00:00.500Z|2024-01-02|5|{\"b\":1}|True|2024-01-02T10:00",
            "9|b|2024-01-02T11:00:00Z|2|[1]|True|2024-05-06T07:08",
            "10|c|2025-01-01T00:00:00Z|2025-01-01|3|{}|False|infinity",
        ]
    );
}
