//! Values that are not what their column declares: kept, never changed in silence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;

use support::{Sandbox, table, warnings};

/// Every row is a case of its own in a column of its own table: `t(id, x DECLARED)`, two good values and one bad one.
const CASES: [(&str, &str, &str, &str); 11] = [
    ("a", "INTEGER", "1), (2", "'abc'"),
    ("b", "TEXT", "'x'), ('y'", "CAST(x'610062' AS TEXT)"),
    ("c", "TEXT", "'x'), ('y'", "CAST(x'ff41' AS TEXT)"),
    ("d", "DATE", "'2025-01-01'), ('2025-01-02'", "'0000-00-00'"),
    ("e", "DATE", "'2025-01-01'), ('2025-01-02'", "'2025-13-45'"),
    ("f", "DATE", "'2025-01-01'), ('2025-01-02'", "''"),
    (
        "g",
        "DATETIME",
        "'2025-01-01 10:00:00'), ('2025-01-02 10:00'",
        "'yesterday'",
    ),
    ("h", "BOOLEAN", "1), (0", "2"),
    ("i", "JSON", "'{}'), ('[1]'", "'{oops'"),
    ("j", "FLOAT", "1.5), (2.5", "'N/A'"),
    ("k", "TEXT", "'x'), ('y'", "x'00ff'"),
];

fn file(sandbox: &Sandbox) -> std::path::PathBuf {
    let sql: String = CASES
        .iter()
        .map(|(name, declared, good, bad)| {
            format!(
                "CREATE TABLE {name} (id INTEGER PRIMARY KEY, x {declared}); INSERT INTO {name} (x) VALUES ({good}), ({bad});"
            )
        })
        .collect();
    sandbox.sqlite("bad.db", &sql)
}

#[test]
fn bad_values_are_quarantined_with_their_bytes_and_the_exit_code_says_so() {
    let sandbox = Sandbox::new();
    let report = sandbox.migrate(&file(&sandbox), &[]).expect(1).report();
    assert_eq!(report["status"], "partial");
    assert_eq!(report["matched"], true);
    for (name, ..) in CASES {
        let entry = table(&report, name);
        assert_eq!(
            (
                &entry["rows_read"],
                &entry["rows_loaded"],
                &entry["rows_quarantined"]
            ),
            (&3.into(), &2.into(), &1.into()),
            "{entry}"
        );
    }
    let rejects = sandbox.texts(
        "SELECT target || ' ' || source_key || ' ' || field || ' ' || encode(raw, 'hex') FROM oa.rejects ORDER BY target",
    );
    assert_eq!(rejects.len(), CASES.len());
    assert_eq!(rejects[0], "a 3 x 616263");
    assert_eq!(rejects[1], "b 3 x 610062");
    assert_eq!(rejects[2], "c 3 x ff41");
    assert_eq!(rejects[10], "k 3 x 00ff");
    let reasons = sandbox.texts("SELECT reason FROM oa.rejects ORDER BY target");
    assert_eq!(reasons[0], "not an integer (bigint)");
    assert_eq!(reasons[3], "not a date YYYY-MM-DD (date)");
    assert_eq!(
        sandbox.texts("SELECT record::text FROM oa.rejects WHERE target = 'c'"),
        [r#"{"x": {"hex": "ff41"}, "id": 3}"#]
    );
}

#[test]
fn widen_loads_every_row_into_types_that_hold_them() {
    let sandbox = Sandbox::new();
    let report = sandbox
        .migrate(&file(&sandbox), &["--on-bad-value", "widen"])
        .expect(0)
        .report();
    for (name, ..) in CASES {
        let entry = table(&report, name);
        assert_eq!(entry["rows_loaded"], 3, "{entry}");
        assert!(warnings(&report, name).contains("taken as"), "{entry}");
    }
    assert_eq!(
        sandbox.texts("SELECT x FROM a ORDER BY id"),
        ["1", "2", "abc"]
    );
    assert_eq!(
        sandbox.texts("SELECT encode(x, 'hex') FROM b ORDER BY id"),
        ["78", "79", "610062"]
    );
}

#[test]
fn fail_changes_nothing() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    let before = sandbox.picture();
    let done = sandbox
        .migrate(&file(&sandbox), &["--on-bad-value", "fail"])
        .expect(1);
    assert!(
        done.stderr
            .contains("table a, column x: 1 value(s) do not fit"),
        "{}",
        done.stderr
    );
    assert_eq!(sandbox.picture(), before);
}

#[test]
fn values_that_a_wider_type_holds_are_loaded() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "wide.db",
        "CREATE TABLE n (id INTEGER PRIMARY KEY, i INTEGER, v VARCHAR(3), f FLOAT, big BIGINT, d DATE, m DECIMAL(6,2), b BLOB);
         INSERT INTO n VALUES (1, 5000000000, '多空看盘', 9e999, 9223372036854775807, '2025-01-01', 12.25, 'text in a blob');
         INSERT INTO n VALUES (2, 1, 'ab', -9e999, 9223372036854775808, '2025-01-01 10:30:00', 0.1234567890123456, x'00ff');
         INSERT INTO n VALUES (9223372036854775807, -9223372036854775808, '', 5e-324, -1, NULL, 1e300, x'');",
    );
    let report = sandbox.migrate(&file, &[]).expect(0).report();
    assert_eq!(table(&report, "n")["rows_loaded"], 3);
    let types: Vec<&str> = table(&report, "n")["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        types,
        [
            "bigint",
            "bigint",
            "text",
            "double precision",
            "numeric",
            "timestamp",
            "numeric",
            "bytea"
        ]
    );
    assert_eq!(
        sandbox.texts("SELECT f::text FROM n ORDER BY id"),
        ["Infinity", "-Infinity", "5e-324"]
    );
    assert_eq!(
        sandbox.texts("SELECT big::text FROM n ORDER BY id"),
        ["9223372036854775807", "9223372036854775808", "-1"]
    );
}

#[test]
fn dangling_foreign_keys_are_quarantined_with_what_hangs_on_them() {
    let sandbox = Sandbox::new();
    let sql = "CREATE TABLE p (id INTEGER PRIMARY KEY);
         CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p ON DELETE CASCADE);
         CREATE TABLE g (id INTEGER PRIMARY KEY, c INTEGER REFERENCES c (id));
         INSERT INTO p VALUES (1); INSERT INTO c VALUES (1, 1), (2, 99), (3, NULL); INSERT INTO g VALUES (1, 1), (2, 2);";
    let file = sandbox.sqlite("fk.db", sql);
    let report = sandbox.migrate(&file, &[]).expect(1).report();
    assert_eq!(table(&report, "c")["rows_quarantined"], 1);
    assert_eq!(table(&report, "g")["rows_quarantined"], 1);
    assert_eq!(
        sandbox.number("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated AND conrelid IN ('c'::regclass, 'g'::regclass)"),
        2
    );
    // widen: all rows, and a key that holds for new ones.
    let wide = sandbox
        .migrate(&file, &["--on-bad-value", "widen", "--schema", "other"])
        .expect(0)
        .report();
    assert_eq!(table(&wide, "c")["rows_loaded"], 3);
    assert!(warnings(&wide, "c").contains("NOT VALID"), "{wide}");
}

#[test]
fn null_where_none_may_be_is_quarantined() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "null.db",
        "CREATE TABLE t (k TEXT PRIMARY KEY, v TEXT); INSERT INTO t VALUES ('a', 'x'), (NULL, 'y'), (NULL, 'z');",
    );
    let report = sandbox.migrate(&file, &[]).expect(1).report();
    assert_eq!(table(&report, "t")["rows_quarantined"], 2);
    assert_eq!(
        sandbox.texts("SELECT record->>'v' FROM oa.rejects ORDER BY seq"),
        ["y", "z"]
    );
}

#[test]
fn bad_values_of_a_utf16_file_are_quarantined_too() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    let file = sandbox.sqlite(
        "a.db",
        "PRAGMA encoding = 'UTF-16be'; CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT, n INTEGER);
         INSERT INTO t VALUES (1, '多空 📈', 1), (2, 'b', 'zwölf'), (3, 'c', 3);",
    );
    let report = sandbox.migrate(&file, &[]).expect(1).report();
    assert_eq!(report["matched"], true);
    assert_eq!(
        sandbox.texts("SELECT x FROM t ORDER BY id"),
        ["多空 📈", "c"]
    );
    assert_eq!(sandbox.texts("SELECT source_key FROM oa.rejects"), ["2"]);
}
