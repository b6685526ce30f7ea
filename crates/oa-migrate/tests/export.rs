//! A database as JSON lines and into PostgreSQL; and what is found when somebody touched the files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use serde_json::Value;
use support::{Sandbox, table};

const SQL: &str = "CREATE TABLE \"Odd names, 中文\" (id INTEGER PRIMARY KEY AUTOINCREMENT, v, twice INTEGER AS (id * 2) VIRTUAL, UNIQUE (v, id));
     INSERT INTO \"Odd names, 中文\" (v) VALUES (NULL), (1), (1.0), (0.1), (9e999), (-9e999), (9223372036854775807), (1e300), ('1'), (''), ('多\n\"空\"'),
       (x''), (x'00ff'), (CAST(x'ff41' AS TEXT)), (CAST(x'410042' AS TEXT)), ('{\"$blob\":\"x\"}');
     DELETE FROM \"Odd names, 中文\" WHERE id = 16; INSERT INTO \"Odd names, 中文\" (v) VALUES ('last');
     CREATE TABLE \"b-tree\" (k TEXT COLLATE NOCASE, n REAL, PRIMARY KEY (k, n)) WITHOUT ROWID; INSERT INTO \"b-tree\" VALUES ('b', 1), ('A', 2);
     CREATE TABLE empty (x TEXT CHECK (x <> '')); CREATE INDEX by_v ON \"Odd names, 中文\" (v DESC) WHERE v IS NOT NULL;
     CREATE VIEW seen AS SELECT count(*) AS n FROM empty; CREATE TRIGGER no_more BEFORE INSERT ON empty BEGIN SELECT raise(ABORT, 'no'); END;
     PRAGMA user_version = 7;";

/// The manifest of an export.
fn manifest(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap()
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

    // Into PostgreSQL: the same as what a run makes of the file itself.
    // Without the collation of a key, which is missing there.
    let widen = ["--on-bad-value", "widen", "--allow-missing"];
    let direct = sandbox.migrate(&file, &[&["--schema", "direct"], &widen[..]].concat());
    let report = direct.expect(0).report();
    let imported = sandbox
        .run(&[
            "import",
            "out",
            "--schema",
            "imported",
            "--on-bad-value",
            "widen",
            "--allow-missing",
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
    let manifest = manifest(&sandbox.path("out"));
    let odd = table(&manifest, "Odd names, 中文")["file"]
        .as_str()
        .unwrap();
    let odd = sandbox.path("out").join(odd);
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

#[test]
fn what_run_takes_import_takes_too() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    // Rows that break the rules of their table, a table with rowids of its own, UTF-16, and what has no rows.
    let file = sandbox.sqlite(
        "a.db",
        "PRAGMA encoding = 'UTF-16le'; CREATE TABLE w (k TEXT PRIMARY KEY, n) WITHOUT ROWID; INSERT INTO w VALUES ('ab', 1), ('b', 2), ('āb', 3), ('多', 4);
         CREATE TABLE t (a, b); INSERT INTO t (rowid, a, b) VALUES (70, NULL, 5), (90, 'x', 6), (95, 1, 7); CREATE VIRTUAL TABLE f USING fts5(x, content='');
         PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = 'CREATE TABLE t (a INTEGER NOT NULL, b TEXT)' WHERE name = 't';",
    );
    let direct = sandbox
        .migrate(&file, &["--schema", "direct"])
        .expect(1)
        .report();
    let exported = sandbox.run(&["export", "a.db", "out"]).expect(0);
    assert!(
        exported.stderr.contains("virtual table f"),
        "{}",
        exported.stderr
    );
    let done = sandbox
        .run(&["import", "out", "--schema", "imported", "--format", "json"])
        .expect(1);
    assert!(done.stderr.contains("virtual table f"), "{}", done.stderr);
    let imported = done.report();
    assert_eq!(imported["matched"], true);
    for name in ["w", "t"] {
        for key in ["rows_loaded", "rows_quarantined", "target_hash", "columns"] {
            assert_eq!(
                table(&imported, name)[key],
                table(&direct, name)[key],
                "{name} {key}"
            );
        }
    }
    assert_eq!(table(&imported, "t")["rows_quarantined"], 2);
    let rejected = |report: &serde_json::Value| {
        sandbox.texts(&format!(
            "SELECT source_key || coalesce(reason, '') FROM oa.rejects WHERE run_id = '{}' ORDER BY 1",
            report["run_id"].as_str().unwrap()
        ))
    };
    assert_eq!(rejected(&imported), rejected(&direct));
    assert!(rejected(&imported)[0].starts_with("70"));
}

#[test]
fn a_damaged_database_is_not_exported() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO t SELECT i, hex(randomblob(50)) FROM n;",
    );
    // Two rows of a leaf page change places: every row can still be read.
    let mut bytes = fs::read(&file).unwrap();
    let leaf = (1..bytes.len() / 4096)
        .map(|page| page * 4096)
        .find(|at| bytes[*at] == 0x0d)
        .unwrap();
    let (first, second) = bytes[leaf + 8..leaf + 12].split_at_mut(2);
    first.swap_with_slice(second);
    fs::write(&file, bytes).unwrap();
    let refused = sandbox.run(&["export", "a.db", "out"]).expect(1);
    assert!(
        refused.stderr.contains("a.db is damaged"),
        "{}",
        refused.stderr
    );
    assert!(!sandbox.path("out").exists());
    assert_eq!(parts(&sandbox), 0);
}

/// Folders of exports that are not finished.
fn parts(sandbox: &Sandbox) -> usize {
    fs::read_dir(sandbox.dir.path())
        .unwrap()
        .filter(|e| {
            let name = e.as_ref().unwrap().file_name();
            Path::new(&name).extension().is_some_and(|e| e == "part")
        })
        .count()
}

#[test]
fn what_killed_exports_leave_the_next_one_removes() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    sandbox.sqlite("a.db", SQL);
    for _ in 0..2 {
        sandbox.killed_at("export.written", &["export", "a.db", "out"]);
        assert!(!sandbox.path("out").exists());
        assert_eq!(parts(&sandbox), 1);
    }
    // One that is still at work, and folders that only look alike, stay.
    let working = sandbox.path("out.019aaa00000070008000000000000000.part");
    fs::create_dir(&working).unwrap();
    let lock = fs::File::open(&working).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    fs::create_dir(sandbox.path("out.mine.part")).unwrap();
    fs::create_dir(sandbox.path("out")).unwrap();
    sandbox.run(&["export", "a.db", "out"]).expect(0);
    assert!(working.exists() && sandbox.path("out.mine.part").exists());
    assert_eq!(parts(&sandbox), 2);
    sandbox.run(&["check-export", "out"]).expect(0);
}

#[test]
fn killed_at_random_times_an_export_is_whole_or_not_there() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    sandbox.sqlite(
        "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8000)
         INSERT INTO t SELECT i, randomblob(80) FROM n; CREATE TABLE u AS SELECT * FROM t;",
    );
    let full = std::time::Instant::now();
    sandbox.run(&["export", "a.db", "first"]).expect(0);
    let full = full.elapsed();
    for n in 0..10u32 {
        let mut child = sandbox.spawn(&["export", "a.db", "out"]);
        // Spread over the whole length of an export; not a wait for something.
        std::thread::sleep(full * n / 9);
        child.kill().unwrap();
        child.wait().unwrap();
        if sandbox.path("out").exists() {
            sandbox.run(&["check-export", "out"]).expect(0);
            fs::remove_dir_all(sandbox.path("out")).unwrap();
        }
    }
    sandbox.run(&["export", "a.db", "out"]).expect(0);
    assert_eq!(parts(&sandbox), 0);
}

#[test]
fn an_export_is_of_one_point_in_time_while_others_write() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    let file = sandbox.sqlite(
        "a.db",
        "PRAGMA journal_mode = WAL; CREATE TABLE a (x); CREATE TABLE b (x); CREATE TABLE c (x);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO a SELECT i FROM n;
         INSERT INTO b SELECT x FROM a; INSERT INTO c SELECT x FROM a;",
    );
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let db = Connection::open(&file).unwrap();
            let mut written = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                db.execute_batch(
                    "BEGIN IMMEDIATE; INSERT INTO a VALUES (1); INSERT INTO b VALUES (1); INSERT INTO c VALUES (1); COMMIT",
                )
                .unwrap();
                written += 1;
            }
            written
        });
        for n in 0..4 {
            let out = format!("out{n}");
            let done = sandbox.run(&["export", "a.db", &out]);
            if n == 3 {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            done.expect(0);
            let manifest = manifest(&sandbox.path(&out));
            let rows = ["a", "b", "c"].map(|name| table(&manifest, name)["rows"].as_u64().unwrap());
            assert_eq!(rows, [rows[0]; 3]);
        }
        assert!(writer.join().unwrap() > 0);
    });
}

#[test]
fn an_export_of_somebody_else_makes_only_its_tables() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'x')",
    );
    let folder = sandbox.path("export");
    let (file, shown) = (file.to_str().unwrap(), folder.to_str().unwrap());
    sandbox.run(&["export", file, shown]).expect(0);
    // With its hashes as they must be: only what it says is hostile.
    let manifest = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    let endless = "CREATE TABLE t AS WITH RECURSIVE n(id, v) AS (SELECT 1, 'x' UNION ALL SELECT id + 1, v FROM n) SELECT * FROM n";
    let hostile = manifest.replace("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", endless);
    assert_ne!(hostile, manifest);
    std::fs::write(folder.join("manifest.json"), hostile).unwrap();
    let sums = std::process::Command::new("sh")
        .args(["-c", "sha256sum manifest.json 001-t.jsonl > SHA256SUMS"])
        .current_dir(&folder)
        .status();
    assert!(sums.unwrap().success());
    let done = sandbox.run(&["import", shown]).expect(1);
    assert!(
        done.stderr.contains("is not a CREATE TABLE"),
        "{}",
        done.stderr
    );
    // A pipe or a device in the place of a file is not waited for.
    for name in ["001-t.jsonl", "SHA256SUMS", "manifest.json"] {
        let path = folder.join(name);
        std::fs::remove_file(&path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        for command in ["check-export", "import"] {
            let done = sandbox.run(&[command, shown]).expect(1);
            let said = format!("{}{}", done.stdout, done.stderr);
            assert!(
                said.contains("not a regular file"),
                "{command} {name}: {said}"
            );
        }
    }
    let pipe = folder.join("manifest.json");
    let arguments = ["plan", shown, "--mapping", pipe.to_str().unwrap()];
    let done = sandbox.run(&arguments).expect(2);
    assert!(done.stderr.contains("nobody writes"), "{}", done.stderr);
}

#[test]
fn a_value_for_which_there_is_no_memory_is_an_error_that_names_it() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB); INSERT INTO t VALUES (1, zeroblob(150000000))",
    );
    let done = std::process::Command::new("sh")
        .args(["-c", "ulimit -v 500000; exec \"$0\" run \"$1\""])
        .arg(env!("CARGO_BIN_EXE_oa-migrate"))
        .arg(&file)
        .env("OA_CONFIG", sandbox.path("oa.toml"))
        .env("DATABASE_URL", sandbox.pg.url())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(
        said.contains("150000000 bytes") || said.contains("out of memory"),
        "{said}"
    );
}
