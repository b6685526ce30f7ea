//! Everything a SQLite schema can say.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;

use support::{Sandbox, table, warnings};

#[test]
fn keys_checks_generated_columns_and_indexes_survive() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "rich.db",
        "CREATE TABLE author (id INTEGER PRIMARY KEY AUTOINCREMENT, email TEXT NOT NULL COLLATE NOCASE UNIQUE, born DATE, active BOOLEAN DEFAULT 1 CHECK (active IN (0, 1)),
             made DATETIME DEFAULT CURRENT_TIMESTAMP, note TEXT DEFAULT 'it''s');
         INSERT INTO author (id, email, born) VALUES (1, 'A@x.cn', '1990-01-01'), (5, 'b@x.cn', NULL), (9, 'gone@x.cn', NULL); DELETE FROM author WHERE id = 9;
         CREATE TABLE book (isbn TEXT, author INTEGER NOT NULL REFERENCES author (id) ON DELETE CASCADE ON UPDATE SET NULL, price REAL CHECK (price >= 0), tax REAL,
             total REAL GENERATED ALWAYS AS (price + tax) STORED, title VARCHAR(200), PRIMARY KEY (isbn, author)) WITHOUT ROWID;
         INSERT INTO book (isbn, author, price, tax, title) VALUES ('1', 1, 0.1, 0.2, '期货'), ('2', 5, 10, 0, NULL);
         CREATE UNIQUE INDEX one_price ON book (author, price DESC) WHERE price > 1;
         CREATE INDEX by_length ON book (length(title), lower(isbn));
         CREATE INDEX odd ON book (strftime('%Y', title));
         CREATE VIEW v AS SELECT 1; CREATE TRIGGER tr AFTER INSERT ON book BEGIN SELECT 1; END;
         CREATE TABLE strict_one (k ANY, n INT) STRICT; INSERT INTO strict_one VALUES (1, 1), ('x', 2);
         CREATE VIRTUAL TABLE search USING fts5(title);",
    );
    // The index that cannot be translated and the collation are missing.
    let report = sandbox
        .migrate(&file, &["--allow-missing"])
        .expect(0)
        .report();
    let found = report["warnings"].to_string();
    for expected in ["view v", "trigger tr of book", "virtual table search"] {
        assert!(found.contains(expected), "{found}");
    }
    assert_eq!(report["tables"].as_array().unwrap().len(), 4);
    assert!(
        warnings(&report, "book").contains("index odd not translated (function strftime)"),
        "{}",
        warnings(&report, "book")
    );

    // AUTOINCREMENT never gives a number twice, even of a deleted row.
    assert_eq!(
        sandbox.texts("INSERT INTO author (email) VALUES ('new@x.cn') RETURNING id || ' ' || active::text || ' ' || note"),
        ["10 true it's"]
    );
    assert_eq!(
        sandbox.texts("SELECT total::text FROM book ORDER BY isbn"),
        ["0.30000000000000004", "10"]
    );
    let refused = |sql: &str| {
        sandbox
            .client()
            .batch_execute(sql)
            .unwrap_err()
            .as_db_error()
            .unwrap()
            .code()
            .code()
            .to_owned()
    };
    assert_eq!(
        refused("INSERT INTO author (email) VALUES ('a@X.CN')"),
        "23505"
    );
    assert_eq!(refused("INSERT INTO author (email) VALUES (NULL)"), "23502");
    assert_eq!(
        refused("INSERT INTO book (isbn, author, price) VALUES ('9', 1, -1)"),
        "23514"
    );
    assert_eq!(
        refused("INSERT INTO book (isbn, author, price) VALUES ('9', 77, 1)"),
        "23503"
    );
    assert_eq!(
        refused("INSERT INTO book (isbn, author, price) VALUES ('9', 5, 10)"),
        "23505"
    );
    assert_eq!(refused("UPDATE book SET total = 1"), "428C9");
    sandbox
        .client()
        .batch_execute("DELETE FROM author WHERE id = 1")
        .unwrap();
    assert_eq!(sandbox.number("SELECT count(*) FROM book"), 1);
    let definitions = sandbox
        .texts("SELECT indexdef FROM pg_indexes WHERE tablename = 'book' ORDER BY indexname");
    assert_eq!(definitions.len(), 3, "{definitions:?}");
    assert!(
        definitions[2].ends_with("(author, price DESC) WHERE (price > (1)::double precision)"),
        "{definitions:?}"
    );
}

#[test]
fn names_that_collide_or_are_too_long_are_resolved_and_reported() {
    let sandbox = Sandbox::new();
    let long = "很长的名字".repeat(8);
    let file = sandbox.sqlite(
        "names.db",
        &format!(
            "CREATE TABLE \"Order\" (\"select\" TEXT, \"Se\"\"lect\" TEXT, {long} TEXT); INSERT INTO \"Order\" VALUES ('a', 'b', 'c');
             CREATE TABLE \"order x\" (a); CREATE TABLE {long} (a); CREATE TABLE {long}2 (a); CREATE INDEX \"Taken\" ON {long} (a);"
        ),
    );
    sandbox
        .client()
        .batch_execute("CREATE TABLE taken (a int)")
        .unwrap();
    let report = sandbox.migrate(&file, &[]).expect(0).report();
    assert_eq!(table(&report, "Order")["target"], "order");
    assert!(
        warnings(&report, &long).contains("renamed from"),
        "{report}"
    );
    assert!(
        warnings(&report, &long).contains("index Taken renamed to taken_2"),
        "{report}"
    );
    assert_ne!(
        table(&report, &long)["target"],
        table(&report, &format!("{long}2"))["target"]
    );
    assert_eq!(
        sandbox.texts("SELECT \"select\" || \"se\"\"lect\" FROM \"order\""),
        ["ab"]
    );
    let kept = sandbox
        .migrate(
            &file,
            &[
                "--identifiers",
                "keep",
                "--schema",
                "kept",
                "--include",
                "Order",
            ],
        )
        .expect(0)
        .report();
    assert_eq!(table(&kept, "Order")["target"], "Order");
}

#[test]
fn times_keep_their_clock_or_get_a_zone_on_purpose() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "times.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at DATETIME, zoned TIMESTAMP, day TIME);
         INSERT INTO t VALUES (1, '2025-11-26 19:30:00.000001', '2025-11-26T19:30:00+08:00', '09:00:30'), (2, '0001-01-01T00:00', '2025-11-26 11:30:00Z', '23:59');",
    );
    sandbox.migrate(&file, &[]).expect(0);
    assert_eq!(
        sandbox.texts("SELECT at::text FROM t ORDER BY id"),
        ["2025-11-26 19:30:00.000001", "0001-01-01 00:00:00"]
    );
    assert_eq!(sandbox.number("SELECT count(DISTINCT zoned) FROM t"), 1);
    sandbox
        .migrate(
            &file,
            &["--schema", "z", "--timestamps-in", "Asia/Shanghai"],
        )
        .expect(0);
    assert_eq!(
        sandbox.texts("SELECT (at AT TIME ZONE 'UTC')::text FROM z.t WHERE id = 1"),
        ["2025-11-26 11:30:00.000001"]
    );
}

#[test]
fn a_local_time_that_its_zone_has_not_is_quarantined() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "gap.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at DATETIME); INSERT INTO t VALUES (1, '2024-03-31 02:30:00'), (2, '2024-03-31 04:00:00');",
    );
    let report = sandbox
        .migrate(&file, &["--timestamps-in", "Europe/Berlin"])
        .expect(1)
        .report();
    assert_eq!(table(&report, "t")["rows_quarantined"], 1);
    assert_eq!(
        sandbox.texts("SELECT (at AT TIME ZONE 'UTC')::text FROM t"),
        ["2024-03-31 02:00:00"]
    );
}

#[test]
fn a_generated_column_that_uses_another_becomes_a_plain_one() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "twice.db",
        "CREATE TABLE t (a INT, b INT GENERATED ALWAYS AS (a * 2) STORED, c INT AS (\"B\" + 1) VIRTUAL); INSERT INTO t (a) VALUES (1), (NULL);",
    );
    let done = sandbox.migrate(&file, &[]).expect(1);
    let report = done.report();
    assert_eq!(table(&report, "t")["matched"], true, "{report}");
    let found = warnings(&report, "t");
    assert!(found.contains("it uses generated column b"), "{found}");
    let columns = "SELECT attname || attgenerated::text FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum";
    assert_eq!(sandbox.texts(columns), ["a", "bs", "c"]);
    assert_eq!(
        sandbox.texts("SELECT c::text FROM t ORDER BY a"),
        ["3", "NULL"]
    );
}

#[test]
fn a_table_whose_numbers_are_used_up_is_verified() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "last.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, x); INSERT INTO t VALUES (9223372036854775807, 1);",
    );
    sandbox.migrate(&file, &[]);
    sandbox
        .client()
        .batch_execute("SELECT setval(pg_get_serial_sequence('t', 'id'), 9223372036854775807)")
        .unwrap();
    sandbox.run(&["verify", file.to_str().unwrap()]).expect(0);
}
