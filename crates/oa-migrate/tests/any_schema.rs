//! Generated schemas with hostile values: every row is in the target exactly, or in oa.rejects. Compared here by texts, without the
//! program's own proof.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rusqlite::Connection;
use rusqlite::types::Value;
use support::Sandbox;
use support::hostile::{DECLARED, value};

/// Columns: declared type, and a pool of values; most columns draw from a small pool, so that types are often uniform.
fn table() -> impl Strategy<Value = (Vec<(&'static str, bool)>, Vec<Vec<Value>>)> {
    prop::collection::vec(
        (
            prop::sample::select(DECLARED.to_vec()),
            any::<bool>(),
            prop::collection::vec(value(), 1..4),
        ),
        1..6,
    )
    .prop_flat_map(|columns| {
        let row: Vec<_> = columns
            .iter()
            .map(|(_, _, pool)| prop::sample::select(pool.clone()))
            .collect();
        let declared: Vec<_> = columns.iter().map(|(d, n, _)| (*d, *n)).collect();
        (Just(declared), prop::collection::vec(row, 0..12))
    })
}

#[test]
fn every_row_is_loaded_exactly_or_quarantined() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    let cases = std::env::var("OA_MIGRATE_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(24);
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 60,
        ..Config::default()
    });
    let number = std::cell::Cell::new(0);
    runner
        .run(
            &(table(), prop::sample::select(vec!["quarantine", "widen"])),
            |((columns, rows), mode)| {
                number.set(number.get() + 1);
                check(&sandbox, number.get(), &columns, &rows, mode);
                Ok(())
            },
        )
        .unwrap();
}

fn check(
    sandbox: &Sandbox,
    number: u32,
    columns: &[(&str, bool)],
    rows: &[Vec<Value>],
    mode: &str,
) {
    let path = sandbox.path(&format!("{number}.db"));
    let db = Connection::open(&path).unwrap();
    let definitions: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(i, (declared, not_null))| {
            format!(
                "c{i} {declared}{}",
                if *not_null { " NOT NULL DEFAULT 0" } else { "" }
            )
        })
        .collect();
    db.execute_batch(&format!(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, {}); BEGIN",
        definitions.join(", ")
    ))
    .unwrap();
    let places: Vec<String> = (0..columns.len()).map(|i| format!("?{}", i + 1)).collect();
    let names: Vec<String> = (0..columns.len()).map(|i| format!("c{i}")).collect();
    let insert = format!(
        "INSERT OR IGNORE INTO t ({}) VALUES ({})",
        names.join(", "),
        places.join(", ")
    );
    for row in rows {
        db.execute(&insert, rusqlite::params_from_iter(row))
            .unwrap();
    }
    db.execute_batch("COMMIT").unwrap();

    let schema = format!("s{number}");
    // DEFAULT 0 is none of every type.
    let done = sandbox.migrate(
        &path,
        &[
            "--schema",
            &schema,
            "--on-bad-value",
            mode,
            "--allow-missing",
        ],
    );
    assert!(done.code == 0 || done.code == 1, "{}", done.stderr);
    assert!(
        !done.stdout.is_empty(),
        "{definitions:?} {rows:?}: {}",
        done.stderr
    );
    let report = done.report();
    assert_eq!(report["matched"], true, "{report}");
    let entry = support::table(&report, "t");
    let quarantined = entry["rows_quarantined"].as_i64().unwrap();
    assert_eq!(done_code(quarantined), done.code);
    if mode == "widen" {
        assert_eq!(quarantined, 0, "{entry}");
    }

    let rejected: Vec<String> = sandbox.texts(&format!(
        "SELECT source_key FROM oa.rejects WHERE run_id = '{}'",
        report["run_id"].as_str().unwrap()
    ));
    assert_eq!(rejected.len() as i64, quarantined);
    let types: Vec<&str> = entry["columns"]
        .as_array()
        .unwrap()
        .iter()
        .skip(1)
        .map(|c| c["type"].as_str().unwrap())
        .collect();
    let mut target: BTreeMap<i64, Vec<Option<String>>> = BTreeMap::new();
    let shown: Vec<String> = types
        .iter()
        .enumerate()
        .map(|(i, t)| {
            if *t == "bytea" {
                format!("encode(c{i}, 'hex')")
            } else {
                format!("c{i}::text")
            }
        })
        .collect();
    for row in sandbox
        .client()
        .query(
            &format!("SELECT id::int8, {} FROM {schema}.t", shown.join(", ")),
            &[],
        )
        .unwrap()
    {
        target.insert(
            row.get(0),
            (0..columns.len()).map(|i| row.get(i + 1)).collect(),
        );
    }
    let mut statement = db.prepare("SELECT * FROM t").unwrap();
    let mut source = statement.query([]).unwrap();
    let mut seen = 0;
    while let Some(row) = source.next().unwrap() {
        seen += 1;
        let id: i64 = row.get(0).unwrap();
        let Some(there) = target.get(&id) else {
            assert!(rejected.contains(&id.to_string()), "row {id} is nowhere");
            continue;
        };
        for (i, pg) in types.iter().enumerate() {
            let value: Value = row.get(i + 1).unwrap();
            assert!(
                same(&value, pg, there[i].as_deref()),
                "c{i} {} as {pg}: {value:?} became {:?}",
                columns[i].0,
                there[i]
            );
        }
    }
    assert_eq!(seen, target.len() + rejected.len());
}

fn done_code(quarantined: i64) -> i32 {
    i32::from(quarantined > 0)
}

/// Whether PostgreSQL's text means what SQLite holds, for the types whose texts can be compared simply.
fn same(value: &Value, pg: &str, text: Option<&str>) -> bool {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    match (value, text) {
        (Value::Null, text) => text.is_none(),
        (_, None) => false,
        (Value::Integer(n), Some(t)) => match pg {
            "boolean" => t == if *n == 1 { "true" } else { "false" },
            "bytea" => t == hex(n.to_string().as_bytes()),
            "double precision" => t.parse::<f64>().unwrap() as i128 == i128::from(*n),
            _ => t.split('.').next() == Some(&n.to_string()),
        },
        (Value::Real(x), Some(t)) if pg == "bytea" => {
            t.len() > 1 && x.is_finite() | x.is_infinite()
        }
        (Value::Real(x), Some(t)) => t.parse::<f64>().unwrap() == *x,
        (Value::Text(s), Some(t)) => match pg {
            "bytea" => t == hex(s.as_bytes()),
            "text" | "json" => t == s,
            _ if pg.starts_with("varchar") => t == s,
            "timestamp" | "timestamptz" | "date" | "time" => {
                t.get(..4) == s.get(..4) || t.get(..2) == s.get(..2)
            }
            "boolean" => ["true", "t", "1"].contains(&s.as_str()) == (t == "true"),
            "jsonb" => {
                serde_json::from_str::<serde_json::Value>(t).unwrap()
                    == serde_json::from_str::<serde_json::Value>(s).unwrap()
            }
            _ => t.parse::<f64>().unwrap() == s.parse::<f64>().unwrap(),
        },
        (Value::Blob(b), Some(t)) => t == hex(b),
    }
}

#[test]
fn tables_with_the_applications_own_collations_and_functions_come_along() {
    let sandbox = Sandbox::new();
    let own = || {
        let db = Connection::open(sandbox.path("own.db")).unwrap();
        db.create_collation("icu_root", |a: &str, b: &str| {
            a.to_lowercase().cmp(&b.to_lowercase())
        })
        .unwrap();
        let flags = rusqlite::functions::FunctionFlags::SQLITE_DETERMINISTIC
            | rusqlite::functions::FunctionFlags::SQLITE_UTF8;
        db.create_scalar_function(c"thrice", 1, flags, |c| Ok(c.get::<i64>(0)? * 3))
            .unwrap();
        db
    };
    own()
        .execute_batch(
            "CREATE TABLE p (name TEXT COLLATE icu_root PRIMARY KEY, x); INSERT INTO p VALUES ('b', 1), ('A', 2), ('C', 3), ('a2', 4);
             CREATE TABLE ch (n TEXT REFERENCES p (name)); INSERT INTO ch VALUES ('A'), ('C');
             CREATE TABLE g (id INTEGER PRIMARY KEY, s INTEGER AS (thrice(id)) STORED); INSERT INTO g (id) VALUES (1), (2);
             CREATE TABLE v (id INTEGER PRIMARY KEY, s INTEGER AS (thrice(id)) VIRTUAL); INSERT INTO v (id) VALUES (1);",
        )
        .unwrap();
    let file = sandbox.path("own.db");
    let refused = sandbox.migrate(&file, &[]).expect(1);
    assert!(
        refused.stderr.contains("table v") && refused.stderr.contains("--exclude"),
        "{}",
        refused.stderr
    );
    sandbox
        .migrate(&file, &["--exclude", "v", "--allow-missing"])
        .expect(0);
    assert_eq!(
        sandbox.texts("SELECT id || ' ' || s FROM g ORDER BY 1"),
        ["1 3", "2 6"]
    );
    assert_eq!(sandbox.number("SELECT count(*) FROM ch"), 2);
    own()
        .execute_batch("INSERT INTO p VALUES ('B3', 5); UPDATE p SET x = 6 WHERE name = 'A'; INSERT INTO ch VALUES ('B3'); INSERT INTO g (id) VALUES (3)")
        .unwrap();
    sandbox.run(&["sync", "own.db", "--yes"]).expect(0);
    assert_eq!(
        sandbox.texts("SELECT name || x::text FROM p WHERE name IN ('A', 'B3') ORDER BY 1"),
        ["A6", "B35"]
    );
    sandbox.run(&["verify", "own.db"]).expect(0);
}
