//! Files that are not what they should be: a clear error, nothing created, nothing changed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;

use std::fs;

use support::Sandbox;

#[test]
fn unusable_files_are_named_and_nothing_is_touched() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    let before = sandbox.picture();
    let good = sandbox.sqlite(
        "good.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
         INSERT INTO t SELECT i, hex(randomblob(50)) FROM n;",
    );
    let bytes = fs::read(&good).unwrap();
    let mut damaged = bytes.clone();
    damaged[4096 * 3..4096 * 30].fill(0x5a);
    let cases: [(&str, Option<Vec<u8>>, &str); 6] = [
        ("missing.db", None, "there is no file"),
        ("empty.db", Some(vec![]), "is empty (0 bytes)"),
        (
            "text.db",
            Some(b"not a database at all, only some text in a file ".repeat(10)),
            "not a SQLite database",
        ),
        (
            "truncated.db",
            Some(bytes[..bytes.len() / 2].to_vec()),
            "is truncated",
        ),
        ("damaged.db", Some(damaged), "is damaged"),
        (
            "encrypted.db",
            Some(
                (0..8192u32)
                    .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
                    .collect(),
            ),
            "encrypted",
        ),
    ];
    for (name, content, expected) in cases {
        let path = sandbox.path(name);
        if let Some(content) = &content {
            fs::write(&path, content).unwrap();
        }
        let done = sandbox.migrate(&path, &[]);
        assert_eq!(done.code, 1, "{name}: {}", done.stderr);
        assert!(done.stderr.contains(expected), "{name}: {}", done.stderr);
        assert!(done.stderr.contains(name), "{name}: {}", done.stderr);
        assert_eq!(path.exists(), content.is_some(), "{name}");
    }
    assert_eq!(sandbox.picture(), before);
    let folder = sandbox.migrate(sandbox.dir.path(), &[]).expect(1);
    assert!(
        folder.stderr.contains("not a regular file"),
        "{}",
        folder.stderr
    );
    let none = sandbox.sqlite("none.db", "CREATE TABLE t (a); DROP TABLE t;");
    let done = sandbox.migrate(&none, &[]).expect(1);
    assert!(done.stderr.contains("holds no tables"), "{}", done.stderr);
}

#[test]
fn a_link_leads_to_the_file_and_what_is_beside_it() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("app.db");
    let writer = rusqlite::Connection::open(&file).unwrap();
    writer
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT);
             INSERT INTO t VALUES (1, 'a'); PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES (2, 'newest')",
        )
        .unwrap();
    let elsewhere = sandbox.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let link = elsewhere.join("link.db");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let done = sandbox.migrate(&link, &[]).expect(0);
    // Taken for a file without changes, it would be read without them where its folder is read-only.
    assert!(!done.stderr.contains("no -wal file"), "{}", done.stderr);
    assert_eq!(
        sandbox.texts("SELECT x FROM t ORDER BY id"),
        ["a", "newest"]
    );
}

#[test]
fn a_plan_of_a_damaged_file_says_what_to_do() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "damaged.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
         INSERT INTO t SELECT i, hex(randomblob(50)) FROM n;",
    );
    let mut bytes = fs::read(&file).unwrap();
    bytes[4096 * 3..4096 * 30].fill(0x5a);
    fs::write(&file, bytes).unwrap();
    let done = sandbox.run(&["plan", file.to_str().unwrap()]).expect(1);
    assert!(
        done.stderr.contains("table t") && done.stderr.contains("restore it from a backup"),
        "{}",
        done.stderr
    );
}

#[test]
fn a_server_that_is_away_is_exit_code_75() {
    let mut sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", "CREATE TABLE t (a); INSERT INTO t VALUES (1);");
    sandbox.pg.stop();
    let done = sandbox.migrate(&file, &[]).expect(75);
    assert!(
        done.stderr.contains("could not reach PostgreSQL"),
        "{}",
        done.stderr
    );
}
