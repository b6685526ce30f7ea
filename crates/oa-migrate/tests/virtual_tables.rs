//! Rows of virtual tables come along, or the exit code says that they did not.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;

use rusqlite::Connection;
use support::{Sandbox, table};

const SQL: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT); INSERT INTO note VALUES (7, 'a b'), (9, 'c');
     CREATE VIRTUAL TABLE body USING fts5(text, tag UNINDEXED); INSERT INTO body (rowid, text, tag) VALUES (7, '多空 看盘', 1), (40, 'x', NULL);
     CREATE VIRTUAL TABLE four USING fts4(a, b, languageid=\"lid\"); INSERT INTO four (docid, a, b, lid) VALUES (3, 'p', 'q', 5);
     CREATE VIRTUAL TABLE three USING fts3(a); INSERT INTO three (docid, a) VALUES (2, 'old');
     CREATE VIRTUAL TABLE place USING rtree(id, x1, x2, +name); INSERT INTO place VALUES (1, 1.5, 2.5, 'q'), (5, -3, 0.25, NULL);
     CREATE VIRTUAL TABLE outside USING fts5(text, content='note', content_rowid='id'); INSERT INTO outside(outside) VALUES ('rebuild');
     CREATE VIRTUAL TABLE words USING fts5vocab('body', 'row');
     CREATE VIRTUAL TABLE hollow USING fts5(a, content='');";

fn one(db: &Connection, sql: &str) -> String {
    db.query_row(sql, [], |r| r.get::<_, rusqlite::types::Value>(0))
        .map(|v| match v {
            rusqlite::types::Value::Integer(n) => n.to_string(),
            rusqlite::types::Value::Text(t) => t,
            other => format!("{other:?}"),
        })
        .unwrap()
}

#[test]
fn rows_of_virtual_tables_are_moved_synced_and_written_back() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", SQL);
    let report = sandbox.migrate(&file, &[]).expect(0).report();
    for (name, rows) in [("body", 2), ("four", 1), ("three", 1), ("place", 2)] {
        assert_eq!(table(&report, name)["rows_loaded"], rows, "{name}");
    }
    let said = report["warnings"].to_string();
    assert!(!said.contains("no rows of its own"), "{said}");
    assert!(said.contains("CREATE VIRTUAL TABLE body"), "{said}");
    assert!(
        said.contains("virtual table outside is not moved: it is an index over note"),
        "{said}"
    );
    assert_eq!(
        sandbox.texts("SELECT concat_ws('|', rowid, text, tag) FROM body ORDER BY rowid"),
        ["7|多空 看盘|1", "40|x"]
    );
    assert_eq!(
        sandbox.texts("SELECT concat_ws('|', id, x1, x2, name) FROM place ORDER BY id"),
        ["1|1.5|2.5|q", "5|-3|0.25"]
    );
    assert_eq!(
        sandbox.texts("SELECT concat_ws('|', rowid, a, b, lid) FROM four"),
        ["3|p|q|5"]
    );
    sandbox.run(&["verify", "a.db"]).expect(0);

    Connection::open(&file)
        .unwrap()
        .execute_batch(
            "INSERT INTO body (rowid, text) VALUES (41, 'new'); UPDATE body SET text = 'y' WHERE rowid = 40; DELETE FROM place WHERE id = 1;
             UPDATE four SET lid = 6 WHERE docid = 3",
        )
        .unwrap();
    sandbox.run(&["sync", "a.db"]).expect(0);
    assert_eq!(
        sandbox.texts("SELECT concat_ws('|', rowid, text) FROM body ORDER BY rowid"),
        ["7|多空 看盘", "40|y", "41|new"]
    );
    assert_eq!(sandbox.number("SELECT count(*) FROM place"), 1);

    sandbox
        .client()
        .batch_execute("UPDATE body SET text = 'written there' WHERE rowid = 7; UPDATE note SET text = 'zebra' WHERE id = 9; INSERT INTO note VALUES (10, 'giraffe')")
        .unwrap();
    sandbox.run(&["to-sqlite", "back.db"]).expect(0);
    let back = Connection::open(sandbox.path("back.db")).unwrap();
    assert_eq!(
        one(&back, "SELECT rowid FROM body WHERE body MATCH 'written'"),
        "7"
    );
    // The index over another table is as new as that table.
    assert_eq!(
        one(
            &back,
            "SELECT rowid FROM outside WHERE outside MATCH 'zebra'"
        ),
        "9"
    );
    assert_eq!(
        one(
            &back,
            "SELECT count(*) FROM outside WHERE outside MATCH 'giraffe'"
        ),
        "1"
    );
    assert_eq!(one(&back, "PRAGMA integrity_check"), "ok");
    sandbox.run(&["verify", "back.db"]).expect(0);
}

#[test]
fn an_export_has_the_rows_and_an_import_moves_them() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", SQL);
    sandbox.run(&["init"]).expect(0);
    sandbox.run(&["export", "a.db", "out"]).expect(0);
    sandbox.run(&["check-export", "out"]).expect(0);
    sandbox.run(&["import", "out", "--schema", "i"]).expect(0);
    assert_eq!(
        sandbox.texts("SELECT concat_ws('|', rowid, text, tag) FROM i.body ORDER BY rowid"),
        ["7|多空 看盘|1", "40|x"]
    );
    assert_eq!(sandbox.number("SELECT count(*) FROM i.place"), 2);
    sandbox.run(&["sync", file.to_str().unwrap()]).expect(0);
}

/// A virtual table whose module no program of this machine has.
fn with_unknown_module(sandbox: &Sandbox) {
    sandbox.sqlite(
        "a.db",
        "CREATE TABLE t (a); INSERT INTO t VALUES (1); PRAGMA writable_schema = ON;
         INSERT INTO sqlite_master VALUES ('table', 'vectors', 'vectors', 0, 'CREATE VIRTUAL TABLE vectors USING vec0(embedding float[4])');
         INSERT INTO sqlite_master VALUES ('table', 'stemmed', 'stemmed', 0, 'CREATE VIRTUAL TABLE stemmed USING fts5(a, tokenize=''mozporter'')');
         CREATE TABLE stemmed_content (id INTEGER PRIMARY KEY, c0); INSERT INTO stemmed_content VALUES (1, 'x');",
    );
}

#[test]
fn what_cannot_be_read_ends_with_1_unless_it_is_excluded_or_allowed() {
    let sandbox = Sandbox::new();
    with_unknown_module(&sandbox);
    let file = sandbox.path("a.db");
    let report = sandbox.migrate(&file, &[]).expect(1).report();
    assert_eq!(report["status"], "partial");
    let missing = report["missing"].to_string();
    for name in ["vectors", "vec0", "stemmed"] {
        assert!(missing.contains(name), "{missing}");
    }
    assert_eq!(sandbox.number("SELECT count(*) FROM t"), 1);
    let verified = sandbox.run(&["verify", "a.db"]).expect(1);
    assert!(verified.stderr.contains("vectors"), "{}", verified.stderr);
    sandbox.run(&["sync", "a.db"]).expect(1);
    sandbox
        .migrate(
            &file,
            &[
                "--schema",
                "s",
                "--exclude",
                "vectors",
                "--exclude",
                "stemmed",
            ],
        )
        .expect(0);
    sandbox.run(&["verify", "a.db", "--schema", "s"]).expect(0);
    sandbox
        .migrate(&file, &["--replace", "--allow-missing"])
        .expect(0);
    sandbox
        .run(&["verify", "a.db", "--schema", "public"])
        .expect(0);

    let exported = sandbox.run(&["export", "a.db", "out"]).expect(1);
    assert!(exported.stderr.contains("vectors"), "{}", exported.stderr);
    sandbox
        .run(&["export", "a.db", "out2", "--allow-missing"])
        .expect(0);
    let imported = sandbox.run(&["import", "out", "--schema", "i"]).expect(1);
    assert!(imported.stderr.contains("vectors"), "{}", imported.stderr);
    sandbox
        .run(&["import", "out", "--schema", "j", "--allow-missing"])
        .expect(0);
}

#[test]
fn an_index_without_its_texts_is_not_called_empty() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE t (a); INSERT INTO t VALUES (1); CREATE VIRTUAL TABLE c USING fts5(a, content=''); INSERT INTO c (rowid, a) VALUES (1, 'word');",
    );
    let report = sandbox.migrate(&file, &[]).expect(1).report();
    assert!(
        report["missing"].to_string().contains("without its texts"),
        "{report}"
    );
    sandbox
        .migrate(&file, &["--replace", "--exclude", "c"])
        .expect(0);
}
