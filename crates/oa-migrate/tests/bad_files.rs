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
