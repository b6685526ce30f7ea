//! Whatever a SQLite file holds comes back from its export exactly; whatever byte of an export changes is found.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::path::Path;

use oa_migrate::transfer::check::check;
use oa_migrate::transfer::export::export;
use oa_migrate::transfer::rebuild::rebuild;
use oa_migrate::transfer::{MANIFEST, SUMS};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, params_from_iter};
use support::hostile;
use tempfile::TempDir;

/// Rows of a table with rowids, storage classes and bits, without the program's own code.
fn rows(db: &Connection, select: &str) -> Vec<Vec<String>> {
    let mut statement = db.prepare(select).unwrap();
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let mut all = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let value = |i| match row.get_ref(i).unwrap() {
            ValueRef::Null => "null".to_owned(),
            ValueRef::Integer(n) => format!("integer {n}"),
            ValueRef::Real(x) => format!("real {:x}", x.to_bits()),
            ValueRef::Text(bytes) => format!("text {bytes:?}"),
            ValueRef::Blob(bytes) => format!("blob {bytes:?}"),
        };
        all.push((0..columns).map(value).collect());
    }
    all
}

/// Exports, checks and makes again; gives back the new database.
fn there_and_back(dir: &Path, source: &Path) -> Connection {
    let folder = dir.join("out");
    fs::create_dir(&folder).unwrap();
    let db = Connection::open(source).unwrap();
    export(&db, source, &folder, |_| ()).unwrap();
    let (manifest, checked, others) = check(&folder, |_| ()).unwrap();
    assert!(checked.iter().all(|c| c.findings.is_empty()), "{checked:?}");
    assert!(others.is_empty(), "{others:?}");
    let to = dir.join("again.db");
    rebuild(&folder, &manifest, &to, |_| ()).unwrap();
    let again = Connection::open(&to).unwrap();
    let schema =
        "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name, tbl_name";
    assert_eq!(rows(&again, schema), rows(&db, schema));
    again
}

fn integrity(db: &Connection) -> String {
    db.query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap()
}

#[derive(Debug, Clone)]
struct Generated {
    encoding: &'static str,
    columns: Vec<&'static str>,
    key: &'static str,
    rows: Vec<(Vec<Value>, bool)>,
}

fn generated() -> impl Strategy<Value = Generated> {
    (
        prop::sample::select(vec!["UTF-8", "UTF-8", "UTF-16le", "UTF-16be"]),
        prop::collection::vec(prop::sample::select(hostile::DECLARED.to_vec()), 1..6),
        prop::sample::select(vec![
            "",
            "UNIQUE (c0)",
            "PRIMARY KEY (c0 DESC)",
            "PRIMARY KEY (k)",
            "PRIMARY KEY (k, c0) WITHOUT ROWID",
            "PRIMARY KEY (c0 COLLATE NOCASE DESC, k), UNIQUE (k) WITHOUT ROWID",
        ]),
    )
        .prop_flat_map(|(encoding, columns, key)| {
            let row = prop::collection::vec(hostile::value(), columns.len());
            let rows = prop::collection::vec((row, any::<bool>()), 0..12);
            (Just(encoding), Just(columns), Just(key), rows)
        })
        .prop_map(|(encoding, columns, key, rows)| Generated {
            encoding,
            columns,
            key,
            rows,
        })
}

fn round_trip(case: &Generated) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.db");
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "encoding", case.encoding).unwrap();
    let columns: Vec<String> = case
        .columns
        .iter()
        .enumerate()
        .map(|(i, declared)| format!("c{i} {declared}, "))
        .collect();
    let (key, without) = case
        .key
        .strip_suffix(" WITHOUT ROWID")
        .map_or((case.key, ""), |key| (key, "WITHOUT ROWID"));
    let key = if key.is_empty() {
        String::new()
    } else {
        format!(", {key}")
    };
    db.execute_batch(&format!(
        "CREATE TABLE t ({}k INTEGER{key}) {without}; CREATE INDEX i ON t (c0, k)",
        columns.concat()
    ))
    .unwrap();
    for (number, (row, raw)) in case.rows.iter().enumerate() {
        // Bytes as text, which need not be UTF-8. In UTF-16 SQLite itself does not keep all of them.
        let raw = *raw && case.encoding == "UTF-8";
        let places: Vec<&str> = row
            .iter()
            .map(|v| {
                if raw && matches!(v, Value::Blob(_)) {
                    "CAST(? AS TEXT)"
                } else {
                    "?"
                }
            })
            .collect();
        let inserted = db.execute(
            &format!(
                "INSERT OR IGNORE INTO t VALUES ({}, {})",
                places.join(", "),
                number * 7
            ),
            params_from_iter(row),
        );
        // Where the key is the rowid, nothing but integers goes in.
        assert!(
            inserted.is_ok()
                || inserted.is_err_and(|e| {
                    e.sqlite_error_code() == Some(rusqlite::ErrorCode::TypeMismatch)
                })
        );
    }
    let again = there_and_back(dir.path(), &path);
    let select = if without.is_empty() {
        "SELECT rowid, * FROM t NOT INDEXED"
    } else {
        "SELECT * FROM t NOT INDEXED"
    };
    assert_eq!(rows(&again, select), rows(&db, select));
    assert_eq!(integrity(&again), "ok");
    assert_eq!(
        again
            .query_row("PRAGMA encoding", [], |row| row.get::<_, String>(0))
            .unwrap(),
        case.encoding
    );
}

#[test]
fn generated_tables_with_hostile_values_come_back_exactly() {
    let mut runner = TestRunner::new(Config {
        cases: 150,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&generated(), |case| {
            round_trip(&case);
            Ok(())
        })
        .unwrap();
}

fn made(sql: &str) -> (TempDir, std::path::PathBuf, Connection) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(sql).unwrap();
    (dir, path, db)
}

#[test]
fn rows_that_break_their_tables_rules_come_back_too() {
    let (dir, path, db) = made(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b, c, UNIQUE (a, b));
         INSERT INTO t VALUES (1, NULL, 5, x'00'), (2, '7', '08', 1.0), (3, 2.5, NULL, 'x');
         PRAGMA writable_schema = ON;
         UPDATE sqlite_master SET sql = 'CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER NOT NULL, b TEXT NOT NULL, c INTEGER CHECK (c > 9), UNIQUE (a, b))'
         WHERE name = 't'; PRAGMA writable_schema = RESET;",
    );
    // As another program that opens the file.
    drop(db);
    let db = Connection::open(&path).unwrap();
    let again = there_and_back(dir.path(), &path);
    assert_eq!(
        rows(&again, "SELECT * FROM t NOT INDEXED"),
        rows(&db, "SELECT * FROM t NOT INDEXED")
    );
}

#[test]
fn computed_columns_hidden_rowids_and_full_text_indexes_are_no_obstacle() {
    let (dir, path, db) = made(
        "CREATE TABLE g (a INTEGER, v AS (a + 1) VIRTUAL, s TEXT AS (a || 'x') STORED, UNIQUE (s));
         INSERT INTO g (rowid, a) VALUES (5, 1), (9, 2);
         CREATE TABLE h (rowid TEXT, oid TEXT, _rowid_ TEXT); INSERT INTO h VALUES ('a', 'b', 'c'), ('d', 'e', 'f');
         CREATE TABLE d (\"$rowid\" REAL, n INTEGER PRIMARY KEY DESC); INSERT INTO d VALUES (1, 2);
         CREATE TABLE strict (a ANY, b REAL) STRICT; INSERT INTO strict VALUES ('1', 1), (1, 2);
         CREATE TABLE late (a); INSERT INTO late VALUES (1); ALTER TABLE late ADD COLUMN b REAL NOT NULL DEFAULT 3;
         CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO counted VALUES (41); DELETE FROM counted;",
    );
    let again = there_and_back(dir.path(), &path);
    for select in [
        "SELECT rowid, * FROM g",
        "SELECT * FROM h",
        "SELECT _rowid_, * FROM d",
        "SELECT rowid, * FROM strict",
        "SELECT rowid, * FROM late",
        "SELECT * FROM sqlite_sequence",
    ] {
        assert_eq!(rows(&again, select), rows(&db, select), "{select}");
    }
    assert_eq!(integrity(&again), "ok");

    let (dir, path, db) = made(
        "CREATE TABLE t (x); INSERT INTO t VALUES ('a b'); CREATE VIRTUAL TABLE f USING fts5(x, content='');
         CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO f VALUES (new.x); END; INSERT INTO t VALUES ('c d');",
    );
    let folder = dir.path().join("out");
    fs::create_dir(&folder).unwrap();
    let manifest = export(&db, &path, &folder, |_| ()).unwrap();
    assert_eq!(manifest.left_out, ["f"]);
    let to = dir.path().join("again.db");
    rebuild(&folder, &manifest, &to, |_| ()).unwrap();
    let again = Connection::open(&to).unwrap();
    assert_eq!(
        rows(&again, "SELECT * FROM t"),
        rows(&db, "SELECT * FROM t")
    );
}

#[test]
fn any_changed_byte_of_any_file_is_found_and_the_file_named() {
    let (dir, path, db) = made(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT, UNIQUE (x)); INSERT INTO t VALUES (1, 'a'), (2, NULL);
         CREATE TABLE n (v); INSERT INTO n VALUES (1.5), (x'01'); PRAGMA user_version = 3;",
    );
    let folder = dir.path().join("out");
    fs::create_dir(&folder).unwrap();
    export(&db, &path, &folder, |_| ()).unwrap();
    for entry in fs::read_dir(&folder).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let good = fs::read(&file).unwrap();
        for at in 0..good.len() {
            for mask in [0x01, 0x20, 0x80] {
                let mut bad = good.clone();
                bad[at] ^= mask;
                fs::write(&file, &bad).unwrap();
                let told = match check(&folder, |_| ()) {
                    Ok((_, checked, others)) => checked
                        .into_iter()
                        .flat_map(|c| c.findings)
                        .chain(others)
                        .collect::<Vec<_>>()
                        .join("; "),
                    Err(e) => format!("{e:#}"),
                };
                assert!(told.contains(&name), "{name} byte {at}: {told:?}");
            }
        }
        fs::write(&file, &good).unwrap();
    }
    for name in [MANIFEST, SUMS] {
        let good = fs::read(folder.join(name)).unwrap();
        fs::remove_file(folder.join(name)).unwrap();
        let told = check(&folder, |_| ()).map_or_else(|e| format!("{e:#}"), |c| c.2.join("; "));
        assert!(told.contains(name), "{told}");
        fs::write(folder.join(name), good).unwrap();
    }
    assert!(check(&folder, |_| ()).unwrap().2.is_empty());
}

#[test]
fn a_manifest_cannot_make_the_program_write_elsewhere() {
    let (dir, path, db) = made("CREATE TABLE t (x); INSERT INTO t VALUES (1);");
    let folder = dir.path().join("out");
    fs::create_dir(&folder).unwrap();
    let good = export(&db, &path, &folder, |_| ()).unwrap();
    let elsewhere = dir.path().join("elsewhere.db");
    let attach = format!("ATTACH '{}' AS e", elsewhere.display());
    for (number, sql) in [
        attach.clone(),
        format!("VACUUM INTO '{}'", elsewhere.display()),
        format!("CREATE VIEW v AS SELECT 1; {attach}; CREATE TABLE e.x (a)"),
        format!("/* CREATE VIEW v */ {attach}"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut manifest = good.clone();
        manifest.schema.push(oa_migrate::transfer::SchemaItem {
            kind: "view".to_owned(),
            name: "v".to_owned(),
            sql: sql.clone(),
        });
        let to = dir.path().join(format!("{number}.db"));
        let error = rebuild(&folder, &manifest, &to, |_| ()).unwrap_err();
        assert!(format!("{error:#}").contains("view v"), "{error:#}");
        assert!(!elsewhere.exists(), "{sql}");
    }
}

#[test]
fn the_real_database_comes_back_exactly() {
    let Some(file) = oa_testkit::shared_data().map(|d| d.join("option_tracker.db")) else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let source = dir.path().join("a.db");
    fs::copy(file, &source).unwrap();
    let again = there_and_back(dir.path(), &source);
    let db = Connection::open(&source).unwrap();
    let mut statement = db
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table'")
        .unwrap();
    let names = statement.query_map([], |row| row.get::<_, String>(0));
    for name in names.unwrap().map(Result::unwrap) {
        let select = format!("SELECT rowid, * FROM \"{name}\" NOT INDEXED");
        assert!(rows(&again, &select) == rows(&db, &select), "{name}");
    }
}
