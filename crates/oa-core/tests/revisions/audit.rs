//! Tables whose triggers note all that changes them.

use std::cell::RefCell;

use chrono::{DateTime, Utc};
use oa_core::pg::upsert::upsert;
use postgres::Client;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use uuid::Uuid;

use super::{RUN, TABLE, batch, count, differences, one, rows, service, store};

/// Operation, run, role and price before.
type Row = (String, Option<Uuid>, Option<String>, Option<String>);

/// What an SQL session does to an audited table. One that the table refuses changes nothing.
fn by_hand(table: &str, what: u8, a: u8, b: u8, columns: &mut u32) -> String {
    let code = |n: u8| ["'RB'", "'it''s'", "NULL", "'螺纹钢'"][usize::from(n % 4)];
    let same = |n: u8| format!("code IS NOT DISTINCT FROM {}", code(n));
    match what {
        // Of those with a NULL some are equal in all columns.
        0 | 1 if b == 3 => format!(
            "INSERT INTO {table} (code, seen) SELECT {}, '2025-12-01' FROM generate_series(0, {what})",
            code(a)
        ),
        0 | 1 => format!(
            "INSERT INTO {table} (code, \"at%\", seen, price, raw, tags) SELECT {}, '2025-12-0{}', clock_timestamp()::timestamp + g * interval '1 s', {a}.10, '\\x00ff', '{{a,NULL}}'
             FROM generate_series(0, {}) g",
            code(a),
            1 + b % 2,
            a % 2
        ),
        2 => format!(
            "UPDATE {table} SET price = coalesce(price, 0) + 0.000000000000000000010 WHERE {}",
            same(a)
        ),
        3 => format!(
            "UPDATE {table} SET code = {}, \"at%\" = NULL WHERE {}",
            code(b),
            same(a)
        ),
        4 => format!("DELETE FROM {table} WHERE {}", same(a)),
        5 if a == 0 => format!("TRUNCATE {table}"),
        5 => format!("UPDATE {table} SET price = price"),
        // Each has a name of its own: one that is dropped and added again is another one.
        6 => {
            *columns += 1;
            format!("ALTER TABLE {table} ADD COLUMN new{columns} integer DEFAULT {b}")
        }
        7 => format!(
            "ALTER TABLE {table} DROP COLUMN IF EXISTS new{}",
            columns.saturating_sub(u32::from(a))
        ),
        _ => format!(
            "WITH gone AS (DELETE FROM {table} WHERE {} RETURNING seen) UPDATE {table} SET volume = {b} WHERE {}",
            same(a),
            same(b)
        ),
    }
}

#[test]
fn whatever_is_done_to_an_audited_table_is_followed_back() {
    let (_server, mut client) = service();
    client
        .batch_execute(
            r#"CREATE SCHEMA "Süd"; CREATE TABLE "Süd"."Parts %s" (code text, "at%" timestamptz, seen timestamp NOT NULL, price numeric, volume double precision,
               raw bytea, tags text[], doubled numeric GENERATED ALWAYS AS (price * 2) STORED, UNIQUE NULLS NOT DISTINCT (code, "at%")) PARTITION BY HASH (code);
               CREATE TABLE "Süd".part_0 PARTITION OF "Süd"."Parts %s" FOR VALUES WITH (MODULUS 2, REMAINDER 0);
               CREATE TABLE "Süd".part_1 PARTITION OF "Süd"."Parts %s" FOR VALUES WITH (MODULUS 2, REMAINDER 1);
               CREATE TABLE plain (code text, "at%" timestamptz, seen timestamp NOT NULL, price numeric, volume double precision, raw bytea, tags text[]);
               CREATE UNIQUE INDEX ON plain (code, "at%");
               SELECT oa.start_audit('"Süd"."Parts %s"'), oa.start_audit('"Prices of ''25"'), oa.start_audit('plain')"#,
        )
        .unwrap();
    let tables = ["\"Prices of '25\"", "\"Süd\".\"Parts %s\"", "plain"];
    let client = RefCell::new((client, 0));
    let config = Config {
        cases: 30,
        failure_persistence: None,
        ..Config::default()
    };
    let steps = prop::collection::vec((0..10u8, 0..4u8, 0..4u8, rows()), 1..14);
    let checked = TestRunner::new(config).run(&(0..3usize, steps), |(which, steps)| {
        let (client, columns) = &mut *client.borrow_mut();
        let zones = ["Asia/Shanghai", "America/New_York"];
        let table = tables[which];
        client
            .batch_execute(&format!(
                "TRUNCATE {table} RESTART IDENTITY; TRUNCATE oa.revisions"
            ))
            .unwrap();
        let mut copies: Vec<(String, DateTime<Utc>)> = Vec::new();
        for (what, a, b, rows) in steps {
            // Nothing depends on the session's zone.
            let zone = zones[usize::from(b % 2)];
            client
                .batch_execute(&format!("SET timezone = '{zone}'"))
                .unwrap();
            if which == 0 && what == 9 {
                store(client, &batch(rows));
            } else {
                // A partition is written by itself, too.
                let part = format!("\"Süd\".part_{}", b % 2);
                let to = if which == 1 && what == 2 {
                    &part
                } else {
                    table
                };
                let _ = client.batch_execute(&by_hand(to, what, a, b, columns));
            }
            let name = format!("copy_{}", copies.len());
            client
                .batch_execute(&format!(
                    "DROP TABLE IF EXISTS {name}; CREATE TABLE {name} AS TABLE {table}"
                ))
                .unwrap();
            copies.push((
                name,
                client
                    .query_one("SELECT clock_timestamp()", &[])
                    .unwrap()
                    .get(0),
            ));
        }
        for (copy, at) in &copies {
            prop_assert_eq!(
                differences(client, copy, table, at),
                0,
                "{} of {}",
                copy,
                table
            );
        }
        Ok(())
    });
    checked.unwrap();
}

#[test]
fn what_changes_a_row_twice_and_a_clock_that_goes_back_are_followed_back() {
    let (_server, mut client) = service();
    client
        .batch_execute(
            "CREATE TABLE twice (id integer PRIMARY KEY, parent integer REFERENCES twice ON UPDATE CASCADE, v integer, w integer);
             CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN IF pg_trigger_depth() = 1 THEN UPDATE twice SET w = NEW.v WHERE id = NEW.id; END IF; RETURN NULL; END $$;
             CREATE TRIGGER again AFTER INSERT OR UPDATE OF v ON twice FOR EACH ROW EXECUTE FUNCTION again();
             INSERT INTO twice VALUES (1, NULL, 1), (2, 1, 1);
             SELECT oa.start_audit('twice')",
        )
        .unwrap();
    let mut copies: Vec<(String, DateTime<Utc>)> = Vec::new();
    for (i, change) in [
        "SELECT",
        "UPDATE twice SET id = id + 10",
        "UPDATE twice SET v = 2",
        "INSERT INTO twice VALUES (3, 12, 7); UPDATE twice SET id = id + 1 WHERE id = 12",
        "BEGIN; UPDATE twice SET v = 3; UPDATE twice SET v = 4; COMMIT",
        // The clock was a month ahead until now.
        "UPDATE oa.revisions SET at = at + interval '30 days'; INSERT INTO oa.clock_steps (back_to, back_from) VALUES (clock_timestamp(), now() + interval '30 days')",
        "DELETE FROM twice WHERE id = 3",
    ]
    .into_iter()
    .enumerate()
    {
        client.batch_execute(change).unwrap();
        let name = format!("copy_{i}");
        client
            .batch_execute(&format!("CREATE TABLE {name} AS TABLE twice"))
            .unwrap();
        let at = client
            .query_one("SELECT clock_timestamp()", &[])
            .unwrap()
            .get(0);
        copies.push((name, at));
        // Until the clock goes back.
        if i < 5 {
            for (copy, at) in &copies {
                assert_eq!(differences(&mut client, copy, "twice", at), 0, "{copy}");
            }
        }
    }
    for (copy, at) in &copies[5..] {
        assert_eq!(differences(&mut client, copy, "twice", at), 0, "{copy}");
    }
}

#[test]
fn an_audit_knows_runs_from_roles_and_follows_a_renamed_table() {
    let (server, mut client) = service();
    let mut admin = Client::connect(&server.superuser_url(), postgres::NoTls).unwrap();
    client
        .batch_execute("SELECT oa.start_audit('\"Prices of ''25\"')")
        .unwrap();
    // By a run: once, although the table is audited. By a role that may do nothing in schema oa: its name.
    let mut tx = client.transaction().unwrap();
    oa_core::pg::revisions::name_run(&mut tx, RUN).unwrap();
    upsert(&mut tx, &one("RB", "2025-12-01 09:00:00", "1.0"), Some(RUN)).unwrap();
    tx.commit().unwrap();
    admin
        .batch_execute(
            "CREATE ROLE legacy LOGIN PASSWORD 'p'; GRANT SELECT, UPDATE ON \"Prices of '25\" TO legacy; CREATE SCHEMA evil; GRANT ALL ON SCHEMA evil TO legacy",
        )
        .unwrap();
    let url = server.url().replace("oa:oa-test-password", "legacy:p");
    let mut legacy = Client::connect(&url, postgres::NoTls).unwrap();
    legacy
        .batch_execute("CREATE FUNCTION evil.row_to_json(record) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN '{}'; END $$; SET search_path = evil, public, pg_catalog; SET oa.run_id = 'nothing'")
        .unwrap();
    legacy
        .batch_execute("UPDATE \"Prices of '25\" SET price = 2.0")
        .unwrap();
    client
        .batch_execute("ALTER TABLE \"Prices of '25\" RENAME TO \"Named; anew\"")
        .unwrap();
    let at: DateTime<Utc> = client
        .query_one("SELECT clock_timestamp()", &[])
        .unwrap()
        .get(0);
    client
        .batch_execute(&format!("{TABLE}; DELETE FROM \"Named; anew\""))
        .unwrap();
    let rows = client
        .query(
            "SELECT operation, run_id, role_name, old_row ->> 'price' FROM oa.revisions ORDER BY seq",
            &[],
        )
        .unwrap();
    let rows: Vec<Row> = rows
        .iter()
        .map(|r| (r.get(0), r.get(1), r.get(2), r.get(3)))
        .collect();
    let expected = [
        ("insert", Some(RUN), None, None),
        ("update", None, Some("legacy"), Some("1.0")),
        ("delete", None, Some("oa"), Some("2.0")),
    ];
    let text = |t: Option<&str>| t.map(str::to_owned);
    assert_eq!(
        rows,
        expected.map(|(o, r, n, p)| (o.to_owned(), r, text(n), text(p)))
    );
    let price: String = client
        .query_one(
            "SELECT price::text FROM oa.as_of(NULL::\"Named; anew\", $1)",
            &[&at],
        )
        .unwrap()
        .get(0);
    assert_eq!(price, "2.0");
    // The table that has the old name now has a history of its own.
    store(&mut client, &one("CU", "2025-12-01 09:00:00", "9.0"));
    assert_eq!(count(&mut client, "oa.revised_tables"), 2);
    let code: String = client
        .query_one("SELECT string_agg(code, ' ') FROM oa.as_of(NULL::\"Named; anew\", now() - interval '1 day')", &[])
        .unwrap()
        .get::<_, Option<String>>(0)
        .unwrap_or_default();
    assert_eq!(code, "");
    // Nothing of it is in the way.
    client
        .batch_execute("DROP TABLE \"Named; anew\"; SELECT oa.start_audit('\"Prices of ''25\"'); DROP SCHEMA oa CASCADE; DELETE FROM \"Prices of '25\"")
        .unwrap();
}

#[test]
fn what_old_transactions_wrote_is_right_whichever_ended_first_and_whichever_table_was_there() {
    let (server, mut client) = service();
    let mut other = server.connect();
    let now = |client: &mut Client| -> DateTime<Utc> {
        let row = client.query_one("SELECT clock_timestamp()", &[]).unwrap();
        row.get(0)
    };
    client
        .batch_execute(
            "CREATE TABLE p (code text PRIMARY KEY, v integer); CREATE TABLE other (n integer);
             INSERT INTO p SELECT 'c' || n, 0 FROM generate_series(1, 9) n; SELECT oa.start_audit('p');
             UPDATE p SET v = 1 WHERE code = 'c1'; CREATE TABLE copy_0 AS TABLE p",
        )
        .unwrap();
    let first = now(&mut client);
    // The transaction that changes a row last, and brings back one that is gone, began first.
    let mut tx = other.transaction().unwrap();
    tx.batch_execute("INSERT INTO other VALUES (1)").unwrap();
    client
        .batch_execute("UPDATE p SET v = 2 WHERE code IN ('c2', 'c3'); DELETE FROM p WHERE code = 'c4'; CREATE TABLE copy_1 AS TABLE p")
        .unwrap();
    let second = now(&mut client);
    tx.batch_execute("SAVEPOINT a; UPDATE p SET v = 3 WHERE code = 'c2'; INSERT INTO p VALUES ('c4', 4); RELEASE a")
        .unwrap();
    tx.commit().unwrap();
    for (copy, at) in [("copy_0", first), ("copy_1", second)] {
        assert_eq!(differences(&mut client, copy, "p", &at), 0, "{copy}");
    }
    let before: Option<bool> = client
        .query_one("SELECT oa.unchanged_before('p', $1) IS NOT NULL", &[&first])
        .unwrap()
        .get(0);
    assert_eq!(before, Some(true), "old rows are not looked up");
    // A table that is older than the changes, and has come through them, takes its place; then it is changed as well.
    client
        .batch_execute(
            "CREATE TABLE next (LIKE p INCLUDING INDEXES); INSERT INTO next TABLE p;
             UPDATE p SET v = 5 WHERE code = 'c5'; CREATE TABLE copy_2 AS TABLE p",
        )
        .unwrap();
    let third = now(&mut client);
    client
        .batch_execute(
            "UPDATE p SET v = 0 WHERE code = 'c5'; SELECT oa.replace_table('p', 'next', NULL);
             DROP TABLE p; ALTER TABLE next RENAME TO p; UPDATE p SET v = 6 WHERE code = 'c6'",
        )
        .unwrap();
    for (copy, at) in [("copy_0", first), ("copy_1", second), ("copy_2", third)] {
        assert_eq!(
            differences(&mut client, copy, "p", &at),
            0,
            "{copy}, replaced"
        );
    }
    // What takes the place was filled by transactions that had ended before the time.
    client
        .batch_execute(
            "CREATE TABLE later (LIKE p INCLUDING INDEXES); INSERT INTO later TABLE p; UPDATE later SET v = 70 WHERE code = 'c7';
             INSERT INTO later VALUES ('new', 1); DELETE FROM later WHERE code = 'c8'; CREATE TABLE copy_3 AS TABLE p",
        )
        .unwrap();
    let fourth = now(&mut client);
    client
        .batch_execute(
            "SELECT oa.replace_table('p', 'later', NULL); DROP TABLE p; ALTER TABLE later RENAME TO p",
        )
        .unwrap();
    assert_eq!(differences(&mut client, "copy_3", "p", &fourth), 0);
}
