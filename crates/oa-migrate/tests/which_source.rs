//! A run belongs to its source: another file is refused, several runs live side by side, and many deletions need consent.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use support::{Done, Sandbox};

fn rows(from: i64, to: i64, word: &str) -> String {
    format!(
        "INSERT INTO t (id, x) WITH RECURSIVE n(i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i < {to}) SELECT i, '{word} ' || i FROM n;"
    )
}

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT);";

fn on(sandbox: &Sandbox, command: &str, file: &Path, more: &[&str]) -> Done {
    let mut arguments = vec![command, file.to_str().unwrap()];
    arguments.extend(more);
    sandbox.run(&arguments)
}

fn execute(file: &Path, sql: &str) {
    Connection::open(file).unwrap().execute_batch(sql).unwrap();
}

fn refused(done: &Done, given: &Path, source: &Path) {
    assert_eq!(done.code, 77, "{}", done.stderr);
    for path in [given, source] {
        assert!(
            done.stderr.contains(path.to_str().unwrap()),
            "{} is not named: {}",
            path.display(),
            done.stderr
        );
    }
    assert!(done.stderr.contains("--same-source"), "{}", done.stderr);
}

#[test]
fn two_sources_in_two_schemas_are_each_synced_to_their_own() {
    let sandbox = Sandbox::new();
    let a = sandbox.sqlite("a.db", &format!("{TABLE} {}", rows(1, 20, "a")));
    let b = sandbox.sqlite("b.db", &format!("{TABLE} {}", rows(1, 20, "b")));
    sandbox.migrate(&a, &["--schema", "a"]).expect(0);
    sandbox.migrate(&b, &["--schema", "b"]).expect(0);
    execute(&a, "INSERT INTO t VALUES (21, 'a 21')");
    on(&sandbox, "sync", &a, &[]).expect(0);
    assert_eq!(sandbox.number("SELECT count(*) FROM a.t"), 21);
    assert_eq!(
        sandbox.number("SELECT count(*) FROM b.t WHERE x LIKE 'b %'"),
        20
    );
    on(&sandbox, "verify", &a, &[]).expect(0);
    on(&sandbox, "verify", &b, &[]).expect(0);
    refused(&on(&sandbox, "sync", &a, &["--schema", "b"]), &a, &b);
    refused(&on(&sandbox, "verify", &a, &["--schema", "b"]), &a, &b);
    on(&sandbox, "sync", &a, &["--schema", "nowhere"]).expect(77);

    // What is to be written back must be said.
    let unclear = sandbox.run(&["to-sqlite", "back.db"]).expect(77);
    assert!(unclear.stderr.contains("--schema"), "{}", unclear.stderr);
    let other = sandbox
        .run(&["to-sqlite", "back.db", "--schema", "b", "--base", "a.db"])
        .expect(77);
    assert!(other.stderr.contains("a.db"), "{}", other.stderr);
    sandbox
        .run(&["to-sqlite", "back.db", "--schema", "a"])
        .expect(0);
    assert_eq!(
        Connection::open(sandbox.path("back.db"))
            .unwrap()
            .query_row("SELECT x FROM t WHERE id = 21", [], |r| r
                .get::<_, String>(0))
            .unwrap(),
        "a 21"
    );
    sandbox
        .run(&["rollback", "--schema", "a", "--yes"])
        .expect(0);
    assert_eq!(sandbox.number("SELECT count(*) FROM b.t"), 20);
    on(&sandbox, "sync", &b, &[]).expect(0);
}

#[test]
fn another_file_is_refused_whatever_it_looks_like() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", &format!("{TABLE} {}", rows(1, 40, "a")));
    let older = sandbox.path("older.db");
    fs::copy(&file, &older).unwrap();
    execute(&file, &rows(41, 60, "a"));
    sandbox.migrate(&file, &[]).expect(0);
    let shape = sandbox.sqlite("shape.db", &format!("{TABLE} {}", rows(1, 60, "other")));
    let shifted = sandbox.sqlite("shifted.db", &format!("{TABLE} {}", rows(900, 960, "a")));
    let empty = sandbox.sqlite("empty.db", TABLE);
    // All of its rows and more.
    let more = sandbox.sqlite("more.db", &format!("{TABLE} {}", rows(1, 70, "a")));
    let link = sandbox.path("link.db");
    std::os::unix::fs::symlink(&shape, &link).unwrap();
    for other in [&shape, &shifted, &empty, &more, &link, &older] {
        for command in ["sync", "verify"] {
            refused(&on(&sandbox, command, other, &[]), other, &file);
        }
        let out = sandbox.run(&["to-sqlite", "out.db", "--base", other.to_str().unwrap()]);
        refused(&out, other, &file);
    }
    assert_eq!(
        sandbox.number("SELECT count(*) FROM t WHERE x LIKE 'a %'"),
        60
    );
    // A link to the source is the source.
    let good = sandbox.path("good.db");
    std::os::unix::fs::symlink(&file, &good).unwrap();
    on(&sandbox, "sync", &good, &[]).expect(0);
}

#[test]
fn a_file_replaced_at_its_path_is_noticed() {
    for replace in ["copy", "rename"] {
        for with in ["other", "older"] {
            let sandbox = Sandbox::new();
            let file = sandbox.sqlite("a.db", &format!("{TABLE} {}", rows(1, 30, "a")));
            let other = sandbox.path("other.db");
            if with == "older" {
                fs::copy(&file, &other).unwrap();
            } else {
                execute(&other, &format!("{TABLE} {}", rows(1, 30, "z")));
            }
            execute(&file, &rows(31, 33, "a"));
            sandbox.migrate(&file, &[]).expect(0);
            if replace == "copy" {
                fs::copy(&other, &file).unwrap();
            } else {
                fs::rename(&other, &file).unwrap();
            }
            let done = on(&sandbox, "sync", &file, &[]);
            refused(&done, &file, &file);
            assert_eq!(
                sandbox.number("SELECT count(*) FROM t WHERE x LIKE 'a %'"),
                33,
                "{replace} {with}"
            );
        }
    }
}

#[test]
fn a_moved_source_is_recognised_and_a_doubtful_one_taken_on_request() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", &format!("{TABLE} {}", rows(1, 50, "a")));
    sandbox.migrate(&file, &[]).expect(0);
    fs::create_dir(sandbox.path("new")).unwrap();
    let moved = sandbox.path("new/b.db");
    fs::rename(&file, &moved).unwrap();
    execute(&moved, "INSERT INTO t VALUES (51, 'a 51')");
    on(&sandbox, "sync", &moved, &[]).expect(0);
    // A copy that goes on while the source stays where it was may be a fork.
    let fork = sandbox.path("fork.db");
    fs::copy(&moved, &fork).unwrap();
    on(&sandbox, "verify", &fork, &[]).expect(0);
    execute(&moved, "INSERT INTO t VALUES (52, 'a 52')");
    execute(&fork, "INSERT INTO t VALUES (52, 'f 52')");
    refused(&on(&sandbox, "sync", &fork, &[]), &fork, &moved);
    on(&sandbox, "sync", &fork, &["--same-source"]).expect(0);
    assert_eq!(sandbox.texts("SELECT x FROM t WHERE id = 52"), ["f 52"]);
}

#[test]
fn two_partial_runs_of_one_source_are_both_synced() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "a.db",
        &format!(
            "{TABLE} {} CREATE TABLE u AS SELECT * FROM t; CREATE TABLE w (k TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO w VALUES ('a'), ('b');",
            rows(1, 20, "a")
        ),
    );
    sandbox
        .migrate(&file, &["--include", "t", "--include", "w"])
        .expect(0);
    let left = on(&sandbox, "verify", &file, &[]).expect(0);
    assert!(left.stderr.contains("table u"), "{}", left.stderr);
    sandbox.migrate(&file, &["--include", "u"]).expect(0);
    execute(
        &file,
        "INSERT INTO t VALUES (21, 'n'); INSERT INTO u VALUES (21, 'n'); INSERT INTO w VALUES ('c')",
    );
    let report = on(&sandbox, "sync", &file, &["--format", "json"])
        .expect(0)
        .report();
    assert_eq!(report["tables"].as_array().unwrap().len(), 3, "{report}");
    for table in ["t", "u"] {
        assert_eq!(sandbox.number(&format!("SELECT count(*) FROM {table}")), 21);
    }
    assert_eq!(sandbox.number("SELECT count(*) FROM w"), 3);
    on(&sandbox, "verify", &file, &[]).expect(0);
    sandbox.run(&["to-sqlite", "back.db"]).expect(0);
    sandbox.run(&["verify", "back.db"]).expect(0);
    // A table that has come since comes along.
    execute(
        &file,
        "CREATE TABLE fresh (a); INSERT INTO fresh VALUES (1)",
    );
    on(&sandbox, "sync", &file, &[]).expect(0);
    assert_eq!(sandbox.number("SELECT count(*) FROM fresh"), 1);
    on(&sandbox, "sync", &file, &[]).expect(0);
}

#[test]
fn many_deletions_need_a_yes() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "a.db",
        &format!("{TABLE} {} CREATE TABLE small (id INTEGER PRIMARY KEY); INSERT INTO small VALUES (1), (2), (3);", rows(1, 100, "a")),
    );
    sandbox.migrate(&file, &[]).expect(0);
    execute(
        &file,
        "DELETE FROM t WHERE id <= 10; DELETE FROM small WHERE id < 2",
    );
    on(&sandbox, "sync", &file, &[]).expect(0);
    execute(
        &file,
        "DELETE FROM t WHERE id <= 16; UPDATE t SET x = 'new' WHERE id > 94",
    );
    let shown = on(&sandbox, "sync", &file, &["--dry-run"]).expect(0);
    assert!(
        shown.stderr.contains("t: 6 of 90 rows deleted, 6 changed"),
        "{}",
        shown.stderr
    );
    let refused = on(&sandbox, "sync", &file, &[]).expect(77);
    assert!(
        refused
            .stderr
            .contains("t: 6 of 90 rows deleted, 6 changed")
            && refused.stderr.contains("--yes"),
        "{}",
        refused.stderr
    );
    assert_eq!(sandbox.number("SELECT count(*) FROM t"), 90);
    on(&sandbox, "sync", &file, &["--yes"]).expect(0);
    assert_eq!(sandbox.number("SELECT count(*) FROM t"), 84);
    on(&sandbox, "verify", &file, &[]).expect(0);
    // All of a small table is more than a tenth of it, too.
    execute(&file, "DELETE FROM small");
    on(&sandbox, "sync", &file, &[]).expect(77);
    assert_eq!(sandbox.number("SELECT count(*) FROM small"), 2);
    on(&sandbox, "sync", &file, &["--yes"]).expect(0);
}

#[test]
fn an_older_copy_in_wal_mode_is_refused_and_a_vacuum_is_not() {
    for replace in ["copy", "rename"] {
        let sandbox = Sandbox::new();
        let file = sandbox.sqlite(
            "a.db",
            &format!("{TABLE} {} PRAGMA journal_mode = wal;", rows(1, 60, "a")),
        );
        let older = sandbox.path("older.db");
        fs::copy(&file, &older).unwrap();
        execute(
            &file,
            "UPDATE t SET x = 'new' WHERE id = 60; INSERT INTO t VALUES (61, 'a 61')",
        );
        sandbox.migrate(&file, &[]).expect(0);
        if replace == "copy" {
            fs::copy(&older, &file).unwrap();
        } else {
            fs::rename(&older, &file).unwrap();
        }
        for command in ["sync", "verify"] {
            refused(&on(&sandbox, command, &file, &[]), &file, &file);
        }
        assert_eq!(sandbox.number("SELECT count(*) FROM t"), 61, "{replace}");
    }
    for mode in ["wal", "delete"] {
        let sandbox = Sandbox::new();
        let file = sandbox.sqlite(
            "a.db",
            &format!(
                "{TABLE} {} PRAGMA journal_mode = {mode};",
                rows(1, 2000, "a")
            ),
        );
        sandbox.migrate(&file, &[]).expect(0);
        execute(
            &file,
            "DELETE FROM t WHERE id BETWEEN 100 AND 200; UPDATE t SET x = 'new' WHERE id = 1; INSERT INTO t VALUES (2001, 'a')",
        );
        on(&sandbox, "sync", &file, &[]).expect(0);
        execute(&file, "DELETE FROM t WHERE id BETWEEN 201 AND 300; VACUUM");
        on(&sandbox, "sync", &file, &[]).expect(0);
        execute(&file, "DELETE FROM t WHERE id BETWEEN 300 AND 310");
        on(&sandbox, "sync", &file, &[]).expect(0);
        assert_eq!(
            sandbox.number("SELECT count(*) FROM t"),
            2001 - 211,
            "{mode}"
        );
    }
}

#[test]
fn runs_into_another_database_are_not_mixed_up() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", &format!("{TABLE} {}", rows(1, 20, "a")));
    sandbox.migrate(&file, &[]).expect(0);
    let url = sandbox.pg.create_database("other");
    let elsewhere = |arguments: &[&str]| {
        let mut command = sandbox.command(arguments);
        support::done(command.env("DATABASE_URL", &url).output().unwrap())
    };
    elsewhere(&["init"]).expect(0);
    let none = elsewhere(&["sync", "a.db"]).expect(1);
    assert!(
        none.stderr.contains("begin with oa-migrate run"),
        "{}",
        none.stderr
    );
    elsewhere(&["run", "a.db"]).expect(0);
    elsewhere(&["rollback", "--yes"]).expect(0);
    on(&sandbox, "sync", &file, &[]).expect(0);
}
