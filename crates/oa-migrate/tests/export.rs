//! A database as JSON lines and back, without losing a bit; and what is found when somebody touched the files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use support::{Sandbox, table};

const SQL: &str = "CREATE TABLE \"Odd names, 中文\" (id INTEGER PRIMARY KEY AUTOINCREMENT, v, twice INTEGER AS (id * 2) VIRTUAL, UNIQUE (v, id));
     INSERT INTO \"Odd names, 中文\" (v) VALUES (NULL), (1), (1.0), (0.1), (9e999), (-9e999), (9223372036854775807), (1e300), ('1'), (''), ('多\n\"空\"'),
       (x''), (x'00ff'), (CAST(x'ff41' AS TEXT)), (CAST(x'410042' AS TEXT)), ('{\"$blob\":\"x\"}');
     DELETE FROM \"Odd names, 中文\" WHERE id = 16; INSERT INTO \"Odd names, 中文\" (v) VALUES ('last');
     CREATE TABLE \"b-tree\" (k TEXT COLLATE NOCASE, n REAL, PRIMARY KEY (k, n)) WITHOUT ROWID; INSERT INTO \"b-tree\" VALUES ('b', 1), ('A', 2);
     CREATE TABLE empty (x TEXT CHECK (x <> '')); CREATE INDEX by_v ON \"Odd names, 中文\" (v DESC) WHERE v IS NOT NULL;
     CREATE VIEW seen AS SELECT count(*) AS n FROM empty; CREATE TRIGGER no_more BEFORE INSERT ON empty BEGIN SELECT raise(ABORT, 'no'); END;
     PRAGMA user_version = 7;";

/// Everything in a database, as texts.
fn content(path: &Path) -> Vec<String> {
    let db = Connection::open(path).unwrap();
    let mut all = Vec::new();
    for sql in [
        "SELECT type || name || coalesce(sql, '') FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY 1",
        "SELECT name || seq FROM sqlite_sequence ORDER BY 1",
        "SELECT id || typeof(v) || coalesce(hex(v), '') || twice FROM \"Odd names, 中文\" ORDER BY id",
        "SELECT k || n FROM \"b-tree\" ORDER BY 1",
        "SELECT user_version || '' FROM pragma_user_version",
    ] {
        let mut statement = db.prepare(sql).unwrap();
        let rows = statement
            .query_map([], |row| row.get::<_, String>(0))
            .unwrap();
        all.extend(rows.map(Result::unwrap));
    }
    all
}

#[test]
fn what_was_exported_is_imported_to_the_last_bit() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    let file = sandbox.sqlite("a.db", SQL);
    let listed = sandbox
        .run(&["export", "a.db", "out/", "--format", "csv"])
        .expect(0);
    assert!(
        listed.stdout.contains("-b-tree.jsonl,2,"),
        "{}",
        listed.stdout
    );
    sandbox.run(&["check-export", "out"]).expect(0);

    let manifest = oa_migrate::transfer::Manifest::read(&sandbox.path("out")).unwrap();
    let again = sandbox.path("again.db");
    oa_migrate::transfer::rebuild::rebuild(&sandbox.path("out"), &manifest, &again, |_| ())
        .unwrap();
    assert_eq!(content(&again), content(&file));

    // Into PostgreSQL: the same as what a run makes of the file itself.
    let direct = sandbox.migrate(&file, &["--schema", "direct", "--on-bad-value", "widen"]);
    let report = direct.expect(0).report();
    let imported = sandbox
        .run(&[
            "import",
            "out",
            "--schema",
            "imported",
            "--on-bad-value",
            "widen",
            "--format",
            "json",
        ])
        .expect(0)
        .report();
    assert_eq!(imported["matched"], true);
    assert_eq!(imported["database"], "out");
    for name in ["Odd names, 中文", "b-tree", "empty"] {
        assert_eq!(
            table(&imported, name)["target_hash"],
            table(&report, name)["target_hash"]
        );
    }
    assert_eq!(
        fs::read_dir(sandbox.path("state/import")).unwrap().count(),
        0
    );
    assert_eq!(
        sandbox.texts("SELECT task || ' ' || status FROM oa.runs ORDER BY id"),
        ["export success", "migrate success", "migrate success"]
    );
}

#[test]
fn whatever_was_touched_is_found_and_not_imported() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    sandbox.sqlite("a.db", SQL);
    sandbox.run(&["export", "a.db", "out"]).expect(0);
    let manifest = oa_migrate::transfer::Manifest::read(&sandbox.path("out")).unwrap();
    let of_odd = manifest.tables.iter().find(|t| t.table.starts_with("Odd"));
    let odd = sandbox.path("out").join(&of_odd.unwrap().file);
    let good = fs::read(&odd).unwrap();
    let lines = good.iter().filter(|b| **b == b'\n').count();
    let mut flipped = good.clone();
    *flipped.iter_mut().find(|b| **b == b'7').unwrap() = b'8';
    let cut = &good[..good.len() - 3];
    let renamed = String::from_utf8(good.clone())
        .unwrap()
        .replacen("\"v\"", "\"w\"", 1);
    for (content, expected) in [
        (Some(flipped.as_slice()), "another SHA-256".to_owned()),
        (Some(cut), format!("line {lines}: it does not end")),
        (
            Some(renamed.as_bytes()),
            "line 1: its members are id, w, not id, v".to_owned(),
        ),
        (
            Some(&good[..good.len() / 2]),
            "line(s), the manifest says".to_owned(),
        ),
        (None, "could not open it".to_owned()),
    ] {
        match content {
            Some(bytes) => fs::write(&odd, bytes).unwrap(),
            None => fs::remove_file(&odd).unwrap(),
        }
        let found = sandbox.run(&["check-export", "out"]).expect(1);
        assert!(
            found.stderr.contains(&expected)
                && found
                    .stderr
                    .contains(odd.file_name().unwrap().to_str().unwrap()),
            "{expected}: {}",
            found.stderr
        );
        let refused = sandbox.run(&["import", "out"]).expect(1);
        assert!(
            refused.stderr.contains("check-export out"),
            "{}",
            refused.stderr
        );
    }
    fs::write(&odd, &good).unwrap();
    fs::write(sandbox.path("out/extra.jsonl"), "").unwrap();
    let found = sandbox.run(&["check-export", "out"]).expect(1);
    assert!(
        found.stderr.contains("extra.jsonl is not in the manifest"),
        "{}",
        found.stderr
    );
    fs::write(sandbox.path("out/manifest.json"), "{").unwrap();
    let found = sandbox.run(&["check-export", "out"]).expect(1);
    assert!(
        found.stderr.contains("manifest.json is damaged"),
        "{}",
        found.stderr
    );
    sandbox.run(&["check-export", "."]).expect(1);
}

#[test]
fn an_export_is_there_whole_or_not_at_all() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    sandbox.sqlite("a.db", SQL);
    sandbox.killed_at("export.written", &["export", "a.db", "out"]);
    assert!(!sandbox.path("out").exists());
    sandbox.run(&["export", "a.db", "out"]).expect(0);
    sandbox.run(&["export", "a.db", "out"]).expect(77);
    sandbox.run(&["export", "a.db", "a.db"]).expect(77);
    sandbox.run(&["export", "missing.db", "other"]).expect(1);
    assert!(!sandbox.path("missing.db").exists() && !sandbox.path("other").exists());
    sandbox.run(&["export", "a.db", "no/such/place"]).expect(1);
}

#[test]
fn the_real_database_is_exported_checked_and_imported() {
    let Some(file) = oa_testkit::shared_data().map(|d| d.join("option_tracker.db")) else {
        return;
    };
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    sandbox
        .run(&["export", file.to_str().unwrap(), "out"])
        .expect(0);
    sandbox.run(&["check-export", "out"]).expect(0);
    let report = sandbox
        .run(&["import", "out", "--format", "json"])
        .expect(0)
        .report();
    assert_eq!(report["matched"], true);
    sandbox.run(&["verify", file.to_str().unwrap()]).expect(0);
}
