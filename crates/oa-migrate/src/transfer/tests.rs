//! Whatever a SQLite file holds comes back from its export exactly; whatever byte of an export changes is found.
#![allow(clippy::unwrap_used)]

#[path = "../../tests/support/hostile.rs"]
mod hostile;

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, params_from_iter};
use tempfile::TempDir;

use super::check::check;
use super::export::export;
use super::rebuild::rebuild;
use super::{MANIFEST, SUMS, SchemaItem, StoredValue, read_value, write_value};

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
    let check = check(&folder, |_| ()).unwrap();
    assert_eq!(check.findings().next(), None);
    let manifest = check.manifest;
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

/// All that a check says, joined.
fn findings(folder: &Path) -> String {
    check(folder, |_| ()).map_or_else(
        |e| format!("{e:#}"),
        |c| c.findings().cloned().collect::<Vec<_>>().join("; "),
    )
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
    assert_eq!(manifest.skipped, ["f"]);
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
                let found = findings(&folder);
                assert!(found.contains(&name), "{name} byte {at}: {found:?}");
            }
        }
        fs::write(&file, &good).unwrap();
    }
    for name in [MANIFEST, SUMS] {
        let good = fs::read(folder.join(name)).unwrap();
        fs::remove_file(folder.join(name)).unwrap();
        let found = findings(&folder);
        assert!(found.contains(name), "{found}");
        fs::write(folder.join(name), good).unwrap();
    }
    assert_eq!(findings(&folder), "");
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
        manifest.schema.push(SchemaItem {
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

#[test]
fn keys_sequences_and_odd_names_come_back_to_the_last_bit() {
    const SQL: &str = "CREATE TABLE \"Odd names, 中文\" (id INTEGER PRIMARY KEY AUTOINCREMENT, v, twice INTEGER AS (id * 2) VIRTUAL, UNIQUE (v, id));
         INSERT INTO \"Odd names, 中文\" (v) VALUES (NULL), (1), (1.0), (0.1), (9e999), (-9e999), (9223372036854775807), (1e300), ('1'), (''), ('多\n\"空\"'),
           (x''), (x'00ff'), (CAST(x'ff41' AS TEXT)), (CAST(x'410042' AS TEXT)), ('{\"$blob\":\"x\"}');
         DELETE FROM \"Odd names, 中文\" WHERE id = 16; INSERT INTO \"Odd names, 中文\" (v) VALUES ('last');
         CREATE TABLE \"b-tree\" (k TEXT COLLATE NOCASE, n REAL, PRIMARY KEY (k, n)) WITHOUT ROWID; INSERT INTO \"b-tree\" VALUES ('b', 1), ('A', 2);
         CREATE TABLE empty (x TEXT CHECK (x <> '')); CREATE INDEX by_v ON \"Odd names, 中文\" (v DESC) WHERE v IS NOT NULL;
         CREATE VIEW seen AS SELECT count(*) AS n FROM empty; CREATE TRIGGER no_more BEFORE INSERT ON empty BEGIN SELECT raise(ABORT, 'no'); END;
         PRAGMA user_version = 7;";
    let (dir, path, db) = made(SQL);
    let again = there_and_back(dir.path(), &path);
    for select in [
        "SELECT name, seq FROM sqlite_sequence ORDER BY 1",
        "SELECT id, v, twice FROM \"Odd names, 中文\" ORDER BY id",
        "SELECT k, n FROM \"b-tree\" ORDER BY 1",
        "SELECT user_version FROM pragma_user_version",
    ] {
        let found = rows(&again, select);
        assert!(!found.is_empty(), "{select}");
        assert_eq!(found, rows(&db, select), "{select}");
    }
}

fn value_round_trip(value: ValueRef<'_>) -> StoredValue {
    let mut out = Vec::new();
    write_value(value, &mut out).unwrap();
    read_value(serde_json::from_slice(&out).unwrap()).unwrap()
}

proptest! {
    #[test]
    fn every_real_comes_back_to_the_bit(bits: u64) {
        let x = f64::from_bits(bits);
        prop_assume!(!x.is_nan());
        let StoredValue::Plain(Value::Real(back)) = value_round_trip(ValueRef::Real(x)) else { panic!() };
        prop_assert_eq!(back.to_bits(), bits);
    }

    #[test]
    fn integers_texts_and_blobs_come_back(n: i64, text: String, bytes: Vec<u8>) {
        prop_assert_eq!(value_round_trip(ValueRef::Integer(n)), StoredValue::Plain(Value::Integer(n)));
        prop_assert_eq!(value_round_trip(ValueRef::Text(text.as_bytes())), StoredValue::Plain(Value::Text(text.clone())));
        prop_assert_eq!(value_round_trip(ValueRef::Blob(&bytes)), StoredValue::Plain(Value::Blob(bytes.clone())));
        let raw = [b"\xff".as_slice(), &bytes].concat();
        prop_assert_eq!(value_round_trip(ValueRef::Text(&raw)), StoredValue::RawText(raw.clone()));
    }
}
