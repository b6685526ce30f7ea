//! What changes in SQLite after the run reaches the target, exactly, or not at all.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;

use std::path::Path;

use rusqlite::Connection;
use support::{Done, Sandbox, table};

const SQL: &str = "CREATE TABLE place (code VARCHAR(8) PRIMARY KEY, name TEXT NOT NULL);
     CREATE TABLE Trades (id INTEGER PRIMARY KEY AUTOINCREMENT, place VARCHAR(8) REFERENCES place (code), lots INTEGER, price FLOAT,
                          at DATETIME, more JSON, UNIQUE (place, at));
     CREATE TABLE log (line TEXT, n REAL);
     INSERT INTO place VALUES ('SHFE', '上期所'), ('DCE', '大商所'), ('CZCE', '郑商所');
     INSERT INTO Trades (place, lots, price, at, more) VALUES ('SHFE', 1, 0.1, '2025-11-26 09:00:00', '{\"b\":1,\"a\":2}'),
       ('DCE', 2, 1e15, '2025-11-26 09:00:01.5', NULL), ('CZCE', 3, -7, '2025-11-26 09:00:02', '[]');
     INSERT INTO log VALUES ('a', 1), ('a', 1), ('b', NULL);";

fn sync(sandbox: &Sandbox, file: &Path, more: &[&str]) -> Done {
    let mut arguments = vec!["sync", file.to_str().unwrap(), "--format", "json"];
    arguments.extend(more);
    sandbox.run(&arguments)
}

fn counts(done: &Done, name: &str) -> [i64; 4] {
    let report = done.report();
    let entry = table(&report, name);
    ["inserted", "updated", "deleted", "rows_quarantined"].map(|k| entry[k].as_i64().unwrap())
}

#[test]
fn rows_that_came_changed_and_went_are_brought() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", SQL);
    sandbox.migrate(&file, &[]).expect(0);
    assert_eq!(
        counts(&sync(&sandbox, &file, &[]).expect(0), "Trades"),
        [0; 4]
    );

    let db = Connection::open(&file).unwrap();
    db.execute_batch(
        // A parent and its child at once; a natural key that moves to another row; a replaced row; a key that changes its letters.
        "INSERT INTO place VALUES ('INE', '能源中心'); INSERT INTO Trades (place, lots, at) VALUES ('INE', 9, '2025-11-27 21:00:00');
         DELETE FROM Trades WHERE id = 1; INSERT INTO Trades (place, lots, at) VALUES ('SHFE', 4, '2025-11-26 09:00:00');
         UPDATE Trades SET price = price + 0.125, more = '{\"x\":1}' WHERE id = 2; UPDATE Trades SET place = NULL WHERE id = 3;
         DELETE FROM place WHERE code = 'CZCE'; DELETE FROM log WHERE rowid = 1; INSERT INTO log VALUES ('c', 2.5), ('b', NULL)",
    )
    .unwrap();
    let shown = sync(&sandbox, &file, &["--dry-run"]).expect(0);
    assert_eq!(counts(&shown, "Trades"), [2, 2, 1, 0]);
    assert_eq!(sandbox.number("SELECT count(*) FROM trades"), 3);

    let done = sync(&sandbox, &file, &[]).expect(0);
    assert_eq!(done.report()["matched"], true);
    assert_eq!(counts(&done, "Trades"), [2, 2, 1, 0]);
    assert_eq!(counts(&done, "place"), [1, 0, 1, 0]);
    assert_eq!(counts(&done, "log"), [2, 0, 1, 0]);
    sandbox.run(&["verify", file.to_str().unwrap()]).expect(0);
    assert_eq!(
        counts(&sync(&sandbox, &file, &[]).expect(0), "Trades"),
        [0; 4]
    );
    // The next number is beyond all that SQLite gave, and foreign keys are as they were.
    db.execute_batch("INSERT INTO Trades (id) VALUES (70); DELETE FROM Trades WHERE id = 70")
        .unwrap();
    db.execute_batch("UPDATE Trades SET lots = 5 WHERE id = 2")
        .unwrap();
    sync(&sandbox, &file, &[]).expect(0);
    assert_eq!(
        sandbox.number(
            "WITH n AS (INSERT INTO trades (lots) VALUES (1) RETURNING id::int8) SELECT id FROM n"
        ),
        71
    );
    assert_eq!(
        sandbox.number("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND NOT condeferrable AND conrelid = 'trades'::regclass"),
        1
    );
}

#[test]
fn what_somebody_else_wrote_is_never_overwritten() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", SQL);
    sandbox.migrate(&file, &[]).expect(0);
    let db = Connection::open(&file).unwrap();
    for (here, there, named) in [
        (
            "UPDATE Trades SET lots = 20 WHERE id = 2",
            "UPDATE trades SET lots = 21 WHERE id = 2",
            "(keys: 2)",
        ),
        (
            "INSERT INTO Trades (id, lots) VALUES (50, 1)",
            "INSERT INTO trades (id, lots) VALUES (50, 2)",
            "(keys: 50)",
        ),
        (
            "DELETE FROM log WHERE rowid = 3",
            "UPDATE log SET n = 3 WHERE line = 'b'",
            "1 row(s) of log",
        ),
    ] {
        db.execute_batch(here).unwrap();
        let mut client = sandbox.client();
        client.batch_execute(there).unwrap();
        let refused = sync(&sandbox, &file, &[]).expect(1);
        assert!(refused.stderr.contains(named), "{}", refused.stderr);
        drop(client);
        sandbox.migrate(&file, &["--replace"]).expect(0);
    }
    // Written there alone: the proof sees it, and nothing else is brought either.
    sandbox
        .client()
        .batch_execute("UPDATE place SET name = '?' WHERE code = 'DCE'")
        .unwrap();
    db.execute_batch("DELETE FROM Trades").unwrap();
    let refused = sync(&sandbox, &file, &[]).expect(1);
    assert_eq!(
        table(&refused.report(), "place")["difference"]["examples"],
        serde_json::json!(["changed DCE"])
    );
    assert_eq!(sandbox.number("SELECT count(*) FROM trades"), 4);
}

#[test]
fn rows_that_fit_no_more_are_quarantined_and_come_when_they_fit() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", SQL);
    let db = Connection::open(&file).unwrap();
    db.execute_batch("INSERT INTO Trades (id, lots) VALUES (90, 'many'), (91, 'few')")
        .unwrap();
    sandbox.migrate(&file, &[]).expect(1);
    // 0 would say that everything has come.
    let done = sync(&sandbox, &file, &[]).expect(1);
    assert_eq!(table(&done.report(), "Trades")["rows_in_rejects"], 2);
    db.execute_batch(
        "UPDATE Trades SET lots = 12 WHERE id = 90; DELETE FROM Trades WHERE id = 91; UPDATE Trades SET at = 'yesterday' WHERE id = 1;
         INSERT INTO place VALUES ('X', x'ff')",
    )
    .unwrap();
    let said = sandbox
        .run(&["sync", file.to_str().unwrap(), "--dry-run"])
        .expect(1);
    assert!(
        said.stderr
            .contains("place: 1 row(s) would be in oa.rejects"),
        "{}",
        said.stderr
    );
    let done = sync(&sandbox, &file, &[]).expect(1);
    assert_eq!(done.report()["matched"], true, "{}", done.stdout);
    assert_eq!(counts(&done, "Trades"), [1, 0, 1, 1]);
    assert_eq!(counts(&done, "place"), [0, 0, 0, 1]);
    assert_eq!(
        sandbox.texts("SELECT target || ' ' || source_key || ' ' || field FROM oa.rejects WHERE run_id = (SELECT id FROM oa.runs WHERE task = 'sync' ORDER BY id DESC LIMIT 1) ORDER BY 1"),
        ["place 4 name", "trades 1 at"]
    );
    db.execute_batch("UPDATE Trades SET at = '2025-11-28 09:00:00' WHERE id = 1")
        .unwrap();
    let done = sync(&sandbox, &file, &[]).expect(1);
    assert_eq!(counts(&done, "Trades"), [1, 0, 0, 0]);
    let report = sandbox
        .run(&["verify", file.to_str().unwrap(), "--format", "json"])
        .report();
    assert_eq!(report["matched"], true);
    assert_eq!(table(&report, "place")["rows_quarantined"], 1);
    db.execute_batch("DELETE FROM place WHERE code = 'X'")
        .unwrap();
    sync(&sandbox, &file, &["--same-source"]).expect(0);
}

#[test]
fn unique_values_that_change_places_are_brought() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE item (id INTEGER PRIMARY KEY, pos INT NOT NULL UNIQUE, v TEXT); CREATE UNIQUE INDEX of_v ON item (v) WHERE v <> 'z';
         CREATE TABLE part (id INTEGER PRIMARY KEY, item INT REFERENCES item);
         INSERT INTO item VALUES (1, 10, 'a'), (2, 20, 'b'), (3, 30, 'c'); INSERT INTO part VALUES (1, 1), (2, 2)",
    );
    sandbox.migrate(&file, &[]).expect(0);
    sandbox
        .client()
        .batch_execute("COMMENT ON INDEX of_v IS 'kept'; ALTER TABLE item REPLICA IDENTITY USING INDEX item_pos_key; ALTER TABLE item ADD COLUMN own TEXT DEFAULT 'of PostgreSQL'")
        .unwrap();
    let belongings = "SELECT pg_get_indexdef(indexrelid) || indisreplident || coalesce(obj_description(indexrelid, 'pg_class'), '') FROM pg_index WHERE indrelid = 'item'::regclass ORDER BY 1";
    let before = sandbox.texts(belongings);
    let db = Connection::open(&file).unwrap();
    db.execute_batch(
        "UPDATE item SET pos = -1, v = 'x' WHERE id = 1; UPDATE item SET pos = 10, v = 'a' WHERE id = 2; UPDATE item SET pos = 20, v = 'b' WHERE id = 1;
         INSERT INTO part VALUES (3, 3); UPDATE part SET item = 3 WHERE id = 1",
    )
    .unwrap();
    let done = sync(&sandbox, &file, &[]).expect(0);
    assert_eq!(counts(&done, "item"), [0, 2, 0, 0]);
    let then = &sandbox.texts("SELECT clock_timestamp()::text")[0];
    // All move up by one place.
    db.execute_batch("UPDATE item SET pos = pos + 100; UPDATE item SET pos = pos - 90")
        .unwrap();
    sync(&sandbox, &file, &["--yes", "--same-source"]).expect(0);
    assert_eq!(
        sandbox.texts("SELECT id || ' ' || pos || ' ' || v || ' ' || own FROM item ORDER BY id"),
        [
            "1 30 b of PostgreSQL",
            "2 20 a of PostgreSQL",
            "3 40 c of PostgreSQL"
        ]
    );
    // Also while its unique indexes are suspended it is known what changed.
    assert_eq!(
        sandbox.texts(&format!(
            "SELECT id || ' ' || pos || ' ' || v FROM oa.as_of(NULL::item, '{then}') ORDER BY id"
        )),
        ["1 20 b", "2 10 a", "3 30 c"]
    );
    assert_eq!(sandbox.texts(belongings), before);
    sandbox.run(&["verify", file.to_str().unwrap()]).expect(0);
}

#[test]
fn rows_whose_foreign_keys_lead_nowhere_are_quarantined() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (id INTEGER PRIMARY KEY, p INT REFERENCES p); CREATE TABLE g (k TEXT PRIMARY KEY, c INT REFERENCES c (id));
         CREATE TABLE many (p INT REFERENCES p);
         INSERT INTO p VALUES (1), (2), (3); INSERT INTO c VALUES (1, 1), (2, 2), (3, 3); INSERT INTO g VALUES ('x', 1), ('y', 2); INSERT INTO many VALUES (1), (1), (2)",
    );
    sandbox.migrate(&file, &[]).expect(0);
    let db = Connection::open(&file).unwrap();
    // A parent that goes without its children, and children that come without theirs.
    db.execute_batch(
        "PRAGMA foreign_keys = OFF; DELETE FROM p WHERE id = 1; INSERT INTO c VALUES (4, 77), (5, 2); INSERT INTO g VALUES ('m', 5), ('n', 4); UPDATE c SET p = 3 WHERE id = 2;
         INSERT INTO many VALUES (9)",
    )
    .unwrap();
    // Two of three rows of a table would go to oa.rejects: that needs consent.
    sync(&sandbox, &file, &[]).expect(77);
    let done = sync(&sandbox, &file, &["--yes"]).expect(1);
    assert_eq!(done.report()["matched"], true, "{}", done.stdout);
    assert_eq!(counts(&done, "c"), [1, 1, 1, 2]);
    assert_eq!(counts(&done, "g"), [1, 0, 1, 2]);
    // Without a key, what came and went again is counted as both.
    assert_eq!(counts(&done, "many"), [1, 0, 3, 3]);
    assert_eq!(
        sandbox.texts("SELECT id || ' ' || p FROM c ORDER BY id"),
        ["2 3", "3 3", "5 2"]
    );
    assert_eq!(sandbox.texts("SELECT k FROM g ORDER BY k"), ["m", "y"]);
    assert_eq!(
        sandbox.texts(
            "SELECT target || ' ' || field || ' ' || (record ->> field) FROM oa.rejects ORDER BY 1"
        ),
        [
            "c p 1", "c p 77", "g c 1", "g c 4", "many p 1", "many p 1", "many p 9"
        ]
    );
    assert_eq!(
        sandbox.number("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND NOT condeferrable AND connamespace = 'public'::regnamespace"),
        3
    );
    // Corrected, they come.
    db.execute_batch("UPDATE c SET p = 2 WHERE id IN (1, 4)")
        .unwrap();
    // Those of the table many are still in oa.rejects.
    sync(&sandbox, &file, &["--yes", "--same-source"]).expect(1);
    assert_eq!(sandbox.number("SELECT count(*) FROM c"), 5);
    sandbox.run(&["to-sqlite", "back.db"]).expect(0);
    let rows = |path: &Path| {
        Connection::open(path)
            .unwrap()
            .query_row("SELECT group_concat(id || ':' || p) FROM c", [], |r| {
                r.get::<_, String>(0)
            })
            .unwrap()
    };
    assert_eq!(rows(&sandbox.path("back.db")), rows(&file));
}

#[test]
fn killed_around_the_commit_the_next_sync_knows_what_is_there() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", SQL);
    sandbox.migrate(&file, &[]).expect(0);
    let db = Connection::open(&file).unwrap();
    for (n, point) in ["sync.sent", "sync.commit", "sync.committed"]
        .iter()
        .enumerate()
    {
        db.execute("UPDATE Trades SET lots = lots + 100 WHERE id = 2", [])
            .unwrap();
        sandbox.killed_at(point, &["sync", file.to_str().unwrap()]);
        // Changed once more: the base must be the one that PostgreSQL has, not an older one.
        db.execute(
            "UPDATE Trades SET lots = lots + 1, price = ?1 WHERE id = 2",
            [n as f64],
        )
        .unwrap();
        let done = sync(&sandbox, &file, &[]).expect(0);
        assert_eq!(counts(&done, "Trades"), [0, 1, 0, 0], "{point}");
    }
    let lots = "SELECT lots::int8 FROM trades WHERE id = 2";
    assert_eq!(sandbox.number(lots), 305);
    // As on a server that has taken over without having seen it: its number may be another transaction's there.
    db.execute("UPDATE Trades SET lots = 400 WHERE id = 2", [])
        .unwrap();
    sandbox.killed_at("sync.committed", &["sync", file.to_str().unwrap()]);
    assert_eq!(sandbox.number(lots), 400);
    sandbox.superuser("UPDATE trades SET lots = 305 WHERE id = 2; DELETE FROM oa.commits");
    let done = sync(&sandbox, &file, &[]).expect(0);
    assert_eq!(counts(&done, "Trades"), [0, 1, 0, 0]);
    assert_eq!(sandbox.number(lots), 400);
}

#[test]
fn a_sync_without_a_base_or_with_other_columns_says_what_to_do() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", SQL);
    let none = sync(&sandbox, &file, &[]).expect(1);
    assert!(
        none.stderr.contains("begin with oa-migrate run"),
        "{}",
        none.stderr
    );
    sandbox.migrate(&file, &[]).expect(0);
    let db = Connection::open(&file).unwrap();
    db.execute_batch("ALTER TABLE log RENAME COLUMN line TO text")
        .unwrap();
    let other = sync(&sandbox, &file, &[]).expect(1);
    assert!(other.stderr.contains("--replace"), "{}", other.stderr);
    sandbox.migrate(&file, &["--replace"]).expect(0);
    sync(&sandbox, &file, &[]).expect(0);
    for entry in std::fs::read_dir(sandbox.path("state/migrations")).unwrap() {
        let _ = std::fs::remove_file(entry.unwrap().path().join("snapshot.sqlite"));
    }
    let gone = sync(&sandbox, &file, &[]).expect(1);
    assert!(gone.stderr.contains("seven days"), "{}", gone.stderr);
}

#[test]
fn what_a_table_was_before_is_known_whoever_changes_it() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE quotes (id INTEGER PRIMARY KEY, code VARCHAR(8) NOT NULL UNIQUE, price FLOAT); INSERT INTO quotes VALUES (1, 'RB', 1), (2, 'HC', 2), (3, 'I', 3)",
    );
    sandbox.migrate(&file, &[]).expect(0);
    let rows = |at: &str| {
        let from = format!("oa.as_of(NULL::quotes, '{at}')");
        sandbox.texts(&format!("SELECT code || price FROM {from} ORDER BY 1"))
    };
    let now = || sandbox.texts("SELECT clock_timestamp()::text")[0].clone();
    let change = |sql: &str| Connection::open(&file).unwrap().execute_batch(sql).unwrap();
    let migrated = now();

    change(
        "UPDATE quotes SET price = 1.5 WHERE id = 1; DELETE FROM quotes WHERE id = 2; UPDATE quotes SET code = 'J' WHERE id = 3",
    );
    sync(&sandbox, &file, &["--yes", "--same-source"]).expect(0);
    let synced = now();
    assert_eq!(rows(&migrated), ["HC2", "I3", "RB1"]);
    let by = |task: &str| {
        sandbox.texts(&format!(
            "SELECT operation || ' ' || (key ->> 'code') FROM oa.revisions r JOIN oa.runs ON runs.id = r.run_id WHERE task = '{task}' ORDER BY 1"
        ))
    };
    assert_eq!(
        by("sync"),
        ["delete HC", "delete I", "insert J", "update RB"]
    );
    assert_eq!(
        sandbox.number("SELECT count(*) FROM pg_trigger WHERE tgname ~ 'oa_audit'"),
        0
    );

    // By hand, and by another program.
    sandbox.run(&["init", "--audit", "nothing"]).expect(2);
    sandbox.run(&["init", "--audit", "quotes"]).expect(0);
    sandbox.run(&["init", "--audit", "public.quotes"]).expect(0);
    sandbox
        .client()
        .batch_execute("UPDATE quotes SET price = 9")
        .unwrap();
    let by_hand = now();
    assert_eq!(rows(&synced), ["J3", "RB1.5"]);
    assert_eq!(
        sandbox.number("SELECT count(*) FROM oa.revisions WHERE role_name = 'oa'"),
        2
    );

    change("INSERT INTO quotes VALUES (4, 'CU', 4)");
    sandbox.migrate(&file, &["--replace"]).expect(0);
    let replaced = now();
    assert_eq!(rows(&by_hand), ["J9", "RB9"]);
    assert_eq!(by("migrate"), ["insert CU", "update J", "update RB"]);
    sandbox.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(rows(&now()), ["J9", "RB9"]);
    assert_eq!(rows(&replaced), ["CU4", "J3", "RB1.5"]);
    assert_eq!(rows(&migrated), ["HC2", "I3", "RB1"]);
    assert_eq!(sandbox.number("SELECT count(*) FROM pg_trigger WHERE tgname ~ 'oa_audit' AND tgrelid = 'quotes'::regclass"), 5);
    sandbox.run(&["init", "--no-audit", "quotes"]).expect(0);
    assert_eq!(sandbox.number("SELECT count(*) FROM pg_trigger WHERE tgname ~ 'oa_audit' AND tgrelid = 'quotes'::regclass"), 0);

    // Also where nothing was kept of it yet.
    sandbox
        .client()
        .batch_execute("SET search_path = public; CREATE TABLE kept (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, v text); INSERT INTO kept (v) VALUES ('old')")
        .unwrap();
    sandbox.run(&["init", "--audit", "kept"]).expect(0);
    let audited = now();
    let other = sandbox.sqlite(
        "k.db",
        "CREATE TABLE kept (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO kept VALUES (1, 'new'), (2, 'more')",
    );
    sandbox.migrate(&other, &["--replace"]).expect(0);
    assert_eq!(
        sandbox.texts(&format!(
            "SELECT v FROM oa.as_of(NULL::kept, '{audited}') ORDER BY id"
        )),
        ["old"]
    );
}

#[test]
fn new_tables_and_columns_come_along_in_one_transaction() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE book (id INTEGER PRIMARY KEY, title TEXT NOT NULL); INSERT INTO book VALUES (1, 'a'), (2, 'b'), (3, 'c');
         CREATE TABLE log (line TEXT); INSERT INTO log VALUES ('x'), ('y'); CREATE TABLE shelf (id INTEGER PRIMARY KEY); INSERT INTO shelf VALUES (1);
         CREATE TABLE room (id INTEGER PRIMARY KEY); INSERT INTO room VALUES (5);",
    );
    let mapping = "[tables.shelf]\ntarget = \"Regal\"\n";
    std::fs::write(sandbox.path("map.toml"), mapping).unwrap();
    sandbox.migrate(&file, &["--mapping", "map.toml"]).expect(0);
    let grow = "ALTER TABLE book ADD COLUMN pages INTEGER NOT NULL DEFAULT 10; ALTER TABLE book ADD COLUMN made DATETIME; ALTER TABLE log ADD COLUMN level TEXT DEFAULT 'info';
         CREATE TABLE author (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE CHECK (length(name) > 0)); INSERT INTO author VALUES (7, 'Ann');
         CREATE INDEX book_pages ON book (pages); ALTER TABLE book ADD COLUMN author INTEGER REFERENCES author (id);
         CREATE TABLE wrote (a INTEGER REFERENCES author (id), b INTEGER REFERENCES book (id), r INTEGER REFERENCES room (id), PRIMARY KEY (a, b)) WITHOUT ROWID;
         INSERT INTO wrote VALUES (7, 1, 5); ALTER TABLE shelf ADD COLUMN name TEXT; UPDATE shelf SET name = 'top';
         UPDATE book SET made = '2024-01-02 03:04:05', author = 7 WHERE id = 1; INSERT INTO book (id, title, pages) VALUES (4, 'd', 99); DELETE FROM book WHERE id = 3";
    sandbox.sqlite("a.db", grow);
    sandbox.run(&["sync", "a.db", "--dry-run"]).expect(0);
    assert_eq!(
        sandbox.number("SELECT count(*) FROM pg_class WHERE relname = 'author'"),
        0
    );
    sandbox.killed_at("sync.commit", &["sync", "a.db"]);
    assert_eq!(
        sandbox.number("SELECT count(*) FROM pg_class WHERE relname = 'author'"),
        0
    );
    sandbox.killed_at("sync.committed", &["sync", "a.db"]);
    sandbox.run(&["verify", "a.db"]).expect(0);
    assert_eq!(
        sandbox
            .texts("SELECT concat_ws('|', id, title, pages, made, author) FROM book ORDER BY id"),
        ["1|a|10|2024-01-02 03:04:05|7", "2|b|10", "4|d|99"]
    );
    assert_eq!(
        sandbox.texts("SELECT conname::text FROM pg_constraint WHERE contype IN ('f', 'p', 'u', 'c') AND connamespace = 'public'::regnamespace AND conrelid::regclass::text IN ('author', 'wrote', 'book', 'log') ORDER BY 1"),
        ["author_name_check", "author_name_key", "author_pkey", "book_author_fkey", "book_pkey", "wrote_a_fkey", "wrote_b_fkey", "wrote_pkey", "wrote_r_fkey"]
    );
    assert_eq!(
        sandbox.number("SELECT count(*) FROM pg_indexes WHERE indexname = 'book_pages'"),
        1
    );
    assert_eq!(sandbox.texts("SELECT name FROM \"Regal\""), ["top"]);
    // As an application would write.
    sandbox
        .client()
        .batch_execute("INSERT INTO book (title) VALUES ('e'); INSERT INTO author (name) VALUES ('Bob'); INSERT INTO log (line) VALUES ('z')")
        .unwrap();
    assert_eq!(sandbox.texts("SELECT pages::text FROM book WHERE title = 'e' UNION ALL SELECT id::text FROM author WHERE name = 'Bob' UNION ALL SELECT level FROM log WHERE line = 'z'"), ["10", "8", "info"]);
    sandbox.run(&["to-sqlite", "back.db"]).expect(0);
    sandbox
        .client()
        .batch_execute("DELETE FROM book WHERE title = 'e'; DELETE FROM author WHERE name = 'Bob'; DELETE FROM log WHERE line = 'z'")
        .unwrap();
    // They are followed from now on.
    sandbox.sqlite("a.db", "UPDATE author SET name = 'Anna'; UPDATE log SET level = 'error' WHERE line = 'x'; UPDATE book SET pages = 11 WHERE id = 2");
    sandbox.run(&["sync", "a.db", "--yes"]).expect(0);
    assert_eq!(
        sandbox.texts("SELECT name FROM author UNION ALL SELECT level FROM log WHERE line = 'x' UNION ALL SELECT pages::text FROM book WHERE id = 2"),
        ["Anna", "error", "11"]
    );
    sandbox.run(&["rollback", "--yes"]).expect(0);
}

#[test]
fn a_rollback_takes_back_what_a_sync_added_to_the_applications_own_table() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    sandbox
        .client()
        .batch_execute("SET search_path = public; CREATE TABLE book (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, title text NOT NULL)")
        .unwrap();
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE book (id INTEGER PRIMARY KEY, title TEXT NOT NULL); INSERT INTO book VALUES (1, 'a'), (2, 'b')",
    );
    sandbox.migrate(&file, &[]).expect(0);
    sandbox.sqlite(
        "a.db",
        "CREATE TABLE author (id INTEGER PRIMARY KEY); INSERT INTO author VALUES (7);
         ALTER TABLE book ADD COLUMN author INTEGER REFERENCES author (id); ALTER TABLE book ADD COLUMN pages INTEGER NOT NULL DEFAULT 1;
         CREATE INDEX book_pages ON book (pages); CREATE TABLE wrote (b INTEGER REFERENCES book (id)); INSERT INTO wrote VALUES (2)",
    );
    sandbox.run(&["sync", "a.db", "--yes"]).expect(0);
    // What somebody has dropped since is gone already.
    sandbox
        .client()
        .batch_execute("DROP INDEX book_pages; ALTER TABLE book DROP COLUMN pages")
        .unwrap();
    // The new table's key must not keep the rows of the one that stays.
    sandbox.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(
        sandbox.texts("SELECT attname::text FROM pg_attribute WHERE attrelid = 'public.book'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"),
        ["id", "title"]
    );
    assert_eq!(
        sandbox.number("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND 'public.book'::regclass IN (conrelid, confrelid)"),
        0
    );
    assert_eq!(sandbox.number("SELECT count(*) FROM book"), 0);
}

#[test]
fn rows_of_tables_that_inherit_from_one_are_not_its_own() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    sandbox
        .client()
        .batch_execute(
            "SET search_path = public; CREATE TABLE book (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, title text NOT NULL);
             CREATE TABLE old_book () INHERITS (book); INSERT INTO old_book VALUES (2, 'kept');
             CREATE RULE never AS ON INSERT TO book DO INSTEAD NOTHING",
        )
        .unwrap();
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE book (id INTEGER PRIMARY KEY, title TEXT NOT NULL); INSERT INTO book VALUES (1, 'a'), (2, 'b')",
    );
    sandbox.migrate(&file, &[]).expect(0);
    sandbox.run(&["verify", "a.db"]).expect(0);
    sandbox.sqlite(
        "a.db",
        "DELETE FROM book WHERE id = 2; INSERT INTO book VALUES (3, 'c')",
    );
    sandbox.run(&["sync", "a.db"]).expect(0);
    assert_eq!(
        sandbox.texts("SELECT concat_ws(' ', tableoid::regclass, id, title) FROM book ORDER BY 1"),
        ["book 1 a", "book 3 c", "old_book 2 kept"]
    );
    assert_eq!(
        sandbox.texts("SELECT ev_enabled::text FROM pg_rewrite WHERE rulename = 'never'"),
        ["O"]
    );
}

#[test]
fn a_rollback_does_not_lose_the_values_of_a_column_that_has_another_name_now() {
    let sandbox = Sandbox::new();
    sandbox
        .client()
        .batch_execute("CREATE TABLE book (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, title text NOT NULL, note text); INSERT INTO book (title, note) VALUES ('old', 'kept')")
        .unwrap();
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE book (id INTEGER PRIMARY KEY, title TEXT NOT NULL); INSERT INTO book VALUES (1, 'a'), (2, 'b')",
    );
    sandbox.migrate(&file, &["--replace"]).expect(0);
    let rename = |sql: &str| sandbox.client().batch_execute(sql).unwrap();
    rename("ALTER TABLE book RENAME note TO remark");
    let done = sandbox.run(&["rollback", "--yes"]).expect(77);
    assert!(done.stderr.contains("column note"), "{}", done.stderr);
    assert_eq!(sandbox.number("SELECT count(*) FROM book"), 2);
    rename("ALTER TABLE book RENAME remark TO note");
    sandbox.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(sandbox.texts("SELECT title || note FROM book"), ["oldkept"]);
}

#[test]
fn a_look_at_what_would_be_done_does_not_wait_for_readers() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE log (id INTEGER PRIMARY KEY, line TEXT); INSERT INTO log VALUES (1, 'a')",
    );
    sandbox.migrate(&file, &[]).expect(0);
    sandbox.sqlite("a.db", "INSERT INTO log VALUES (2, 'b')");
    let mut reader = sandbox.client();
    reader
        .batch_execute("BEGIN; SELECT count(*) FROM log")
        .unwrap();
    sandbox.run(&["sync", "a.db", "--dry-run"]).expect(0);
    drop(reader);
}
