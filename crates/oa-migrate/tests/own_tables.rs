//! The application has made its own tables in PostgreSQL, with types that SQLite does not know; the rows are to go there.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use crate::support;

use oa_testkit::Postgres;
use support::{Sandbox, table, warnings};

const TARGET: &str = "
SET search_path = public;
CREATE TYPE mood AS ENUM ('happy', 'sad');
CREATE DOMAIN email AS text CHECK (value LIKE '%@%');
CREATE TABLE person (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), code char(5), m mood DEFAULT 'sad', r real, ip inet, tags text[],
  span interval, ts timestamp(3), tz timestamptz(3), mail email, v varchar(3), n numeric(5,2), b int2, jb jsonb, CONSTRAINT small CHECK (b < 100));
CREATE INDEX person_mail ON person (mail);
CREATE TABLE pet (id int PRIMARY KEY, owner uuid NOT NULL REFERENCES person (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION bark() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER barks BEFORE UPDATE ON pet FOR EACH ROW EXECUTE FUNCTION bark();";

const SOURCE: &str = "
CREATE TABLE person (id char(32) PRIMARY KEY, code TEXT, m TEXT, r REAL, ip TEXT, tags TEXT, span TEXT, ts DATETIME, tz DATETIME,
  mail TEXT, v TEXT, n NUMERIC, b INTEGER, jb JSON);
CREATE TABLE pet (id INTEGER PRIMARY KEY, owner char(32) NOT NULL REFERENCES person (id));
CREATE VIEW whole AS SELECT 'a' AS code, 'sad' AS m, 1.5 AS r, '10.0.0.1' AS ip, '{a,\"b c\"}' AS tags, '02:03:04' AS span,
  '2024-01-02 03:04:05.120' AS ts, '2024-01-02T03:04:05.123+08:00' AS tz, 'a@b' AS mail, 'ab' AS v, 12.5 AS n, 5 AS b, '{\"a\": 1}' AS jb;
INSERT INTO person SELECT '0123456789ABCDEF0123456789abcdef', * FROM whole;
INSERT INTO person VALUES (x'11111111222233334444555555555555', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '5');
INSERT INTO pet VALUES (1, '0123456789ABCDEF0123456789abcdef');";

/// A key of its own and one value that does not fit.
const MISFITS: [(&str, &str); 9] = [
    ("code", "'abcdef'"),
    ("m", "'angry'"),
    ("r", "1.23456789012"),
    ("ts", "'2024-01-02 03:04:05.1234'"),
    ("mail", "'nobody'"),
    ("v", "'abcd'"),
    ("n", "12.345"),
    ("b", "100"),
    // PostgreSQL would take it for five seconds.
    ("span", "5"),
];

fn uuid(n: usize) -> String {
    format!("{n:08}-2222-3333-4444-555555555555")
}

#[test]
fn rows_go_into_an_applications_own_tables_whatever_their_types() {
    let sandbox = Sandbox::on(Postgres::start());
    sandbox.run(&["init"]).expect(0);
    sandbox.client().batch_execute(TARGET).unwrap();
    let mut sql = SOURCE.to_owned();
    for (n, (column, value)) in MISFITS.iter().enumerate() {
        let id = uuid(n);
        sql.push_str(&format!(
            "INSERT INTO person SELECT '{id}', * FROM whole; UPDATE person SET {column} = {value} WHERE id = '{id}';"
        ));
    }
    sql.push_str(&format!(
        "INSERT INTO person SELECT 'nobody', * FROM whole; INSERT INTO pet VALUES (2, '{}'), (3, 'nobody');",
        uuid(7)
    ));
    let file = sandbox.sqlite("app.db", &sql);

    let report = sandbox.migrate(&file, &[]).expect(1).report();
    assert_eq!(report["status"], "partial", "{report}");
    assert_eq!(report["missing"].as_array().unwrap().len(), 0, "{report}");
    assert_eq!(table(&report, "person")["rows_loaded"], 2);
    assert_eq!(table(&report, "person")["rows_quarantined"], 10);
    assert_eq!(table(&report, "pet")["rows_quarantined"], 2);
    assert!(warnings(&report, "person").contains("varchar(3)"));
    let fields = sandbox.texts(
        "SELECT coalesce(field, reason) FROM oa.rejects WHERE target = 'person' AND source_key NOT IN ('1', '2') ORDER BY source_key::int",
    );
    let mut expected: Vec<&str> = MISFITS.iter().map(|(c, _)| *c).collect();
    expected[7] = "the target's constraint small forbids it";
    expected.push("id");
    assert_eq!(fields, expected);
    assert_eq!(
        sandbox.texts("SELECT concat_ws('|', id, code, m, r, ip, tags, span, ts, tz AT TIME ZONE 'UTC', mail, v, n, b, jb) FROM person ORDER BY id"),
        [
            "01234567-89ab-cdef-0123-456789abcdef|a    |sad|1.5|10.0.0.1|{a,\"b c\"}|02:03:04|2024-01-02 03:04:05.12|2024-01-01 19:04:05.123|a@b|ab|12.50|5|{\"a\": 1}",
            "11111111-2222-3333-4444-555555555555|5"
        ]
    );
    // Everything that the tables had is there.
    assert_eq!(
        sandbox.texts(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'person'::regclass AND attnum > 0 ORDER BY attnum"
        ),
        [
            "uuid", "character(5)", "mood", "real", "inet", "text[]", "interval", "timestamp(3) without time zone",
            "timestamp(3) with time zone", "email", "character varying(3)", "numeric(5,2)", "smallint", "jsonb"
        ]
    );
    assert_eq!(
        sandbox.texts("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'pet'::regclass AND contype = 'f'"),
        ["FOREIGN KEY (owner) REFERENCES person(id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED"]
    );
    assert_eq!(sandbox.number("SELECT count(*) FROM pg_trigger WHERE tgname = 'barks' AND tgrelid = 'public.pet'::regclass"), 1);
    assert_eq!(sandbox.number("SELECT count(*) FROM pg_indexes WHERE indexname = 'person_mail' AND schemaname = 'public'"), 1);
    sandbox.run(&["verify", "app.db"]).expect(1);

    // What changes in SQLite follows, and what does not fit is quarantined.
    sandbox.sqlite(
        "app.db",
        &format!(
            "UPDATE person SET ip = '10.0.0.2', m = 'happy' WHERE id LIKE '0123%'; UPDATE person SET m = 'sad' WHERE id = '{}';
             INSERT INTO person SELECT '{}', * FROM whole; INSERT INTO pet VALUES (4, '{1}'); DELETE FROM pet WHERE id = 1;
             INSERT INTO person SELECT 'bad', * FROM whole; INSERT INTO person SELECT '{}', * FROM whole; UPDATE person SET b = 100 WHERE id = '{2}';",
            uuid(1),
            uuid(20),
            uuid(21)
        ),
    );
    sandbox.run(&["sync", "app.db", "--yes"]).expect(1);
    assert_eq!(
        sandbox.texts("SELECT m || ' ' || ip FROM person WHERE id::text LIKE '0123%'"),
        ["happy 10.0.0.2/32"]
    );
    assert_eq!(sandbox.texts("SELECT owner::text FROM pet"), [uuid(20)]);
    // A condition of the target's table is one that SQLite knows nothing of.
    assert_eq!(
        sandbox.number("SELECT count(*) FROM oa.rejects WHERE reason LIKE '%constraint small%'"),
        2
    );
    assert_eq!(sandbox.number("SELECT count(*) FROM person"), 4);
    sandbox.run(&["verify", "app.db"]).expect(1);

    // And back, with what was written in PostgreSQL.
    sandbox
        .client()
        .batch_execute("UPDATE person SET tags = '{z}' WHERE ip = '10.0.0.2'")
        .unwrap();
    sandbox.run(&["to-sqlite", "back.db"]).expect(0);
    let back = rusqlite::Connection::open(sandbox.path("back.db")).unwrap();
    let text: String = back
        .query_row(
            "SELECT tags || m FROM person WHERE id LIKE '0123%'",
            [],
            |r| r.get(0),
        )
        .unwrap();
    assert_eq!(text, "{z}happy");
    let untouched: String = back
        .query_row(
            "SELECT hex(id) FROM person WHERE typeof(id) = 'blob'",
            [],
            |r| r.get(0),
        )
        .unwrap();
    assert_eq!(untouched, "11111111222233334444555555555555");
}

#[test]
fn a_table_with_rows_is_not_replaced_by_one_without() {
    let sandbox = Sandbox::on(Postgres::start());
    sandbox.run(&["init"]).expect(0);
    sandbox
        .client()
        .batch_execute("CREATE TABLE public.log (id int PRIMARY KEY, at timestamptz); INSERT INTO public.log VALUES (1, now())")
        .unwrap();
    let file = sandbox.sqlite(
        "app.db",
        "CREATE TABLE log (id INTEGER PRIMARY KEY, at DATETIME); INSERT INTO log VALUES (1, '2024-01-02 03:04:05'), (2, '2024-03-31 02:30:00')",
    );
    let done = sandbox.migrate(&file, &["--replace"]).expect(77);
    assert!(done.stderr.contains("--timestamps-in"), "{}", done.stderr);
    assert_eq!(sandbox.number("SELECT count(*) FROM log"), 1);

    // A local time that the clocks never showed is quarantined, and the others are moved.
    let done = sandbox
        .migrate(&file, &["--replace", "--timestamps-in", "Europe/Berlin"])
        .expect(1);
    assert_eq!(table(&done.report(), "log")["rows_loaded"], 1);
    assert_eq!(
        sandbox.texts("SELECT (at AT TIME ZONE 'UTC')::text FROM log"),
        ["2024-01-02 02:04:05"]
    );
}

#[test]
fn the_mapping_takes_any_type_of_the_target() {
    let sandbox = Sandbox::on(Postgres::start());
    sandbox.run(&["init"]).expect(0);
    sandbox
        .client()
        .batch_execute("CREATE TYPE public.mood AS ENUM ('happy', 'sad')")
        .unwrap();
    let file = sandbox.sqlite(
        "app.db",
        "CREATE TABLE t (id TEXT PRIMARY KEY, m TEXT DEFAULT 'sad', big INTEGER, j JSON);
         INSERT INTO t VALUES ('{01234567-89ab-cdef-0123-456789abcdef}', 'happy', 5, 1.5), (x'11111111222233334444555555555555', 'sad', 6, '[1]')",
    );
    let mapping = sandbox.path("map.toml");
    let write = |m: &str| {
        let text = format!(
            "[tables.t.columns.id]\ntype = \"uuid\"\n[tables.t.columns.m]\ntype = \"{m}\"\n"
        );
        std::fs::write(&mapping, text).unwrap();
    };
    write("no_such_type");
    let done = sandbox.migrate(&file, &["--mapping", "map.toml"]).expect(1);
    assert!(done.stderr.contains("with its schema"), "{}", done.stderr);
    write("public.mood");
    sandbox.migrate(&file, &["--mapping", "map.toml"]).expect(0);
    assert_eq!(
        sandbox.texts("SELECT concat_ws('|', id, m, j) FROM t ORDER BY id"),
        [
            "01234567-89ab-cdef-0123-456789abcdef|happy|1.5",
            "11111111-2222-3333-4444-555555555555|sad|[1]"
        ]
    );
    // Integers have 64 bits in SQLite, whatever they are today.
    sandbox
        .client()
        .batch_execute("INSERT INTO t VALUES (gen_random_uuid(), DEFAULT, 1::bigint << 40)")
        .unwrap();
    sandbox.run(&["to-sqlite", "back.db"]).expect(0);
}

#[test]
fn numbers_that_mean_times_become_times_and_come_back_as_numbers() {
    let sandbox = Sandbox::on(Postgres::start());
    sandbox.run(&["init"]).expect(0);
    let file = sandbox.sqlite(
        "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, s INTEGER, ms DATETIME DEFAULT CURRENT_TIMESTAMP, jd REAL, ticks INTEGER, net TEXT, span INTEGER);
         INSERT INTO t VALUES (1, 1704164645, 1704164645123, julianday('2024-01-02 03:04:05'), 638397614451234560, '2024-01-02 03:04:05.1234567', 1500),
           (2, -1, 0, 2451544.5, 0, NULL, -90061001), (3, 1, 1, NULL, 7, NULL, NULL), (4, 1, 'soon', NULL, NULL, NULL, NULL);",
    );
    let plan = sandbox.run(&["plan", "app.db"]).expect(0);
    assert!(
        plan.stdout.contains("from = \"epoch_ms\"") || plan.stderr.contains("from = \"epoch_ms\""),
        "{}{}",
        plan.stdout,
        plan.stderr
    );
    let mut mapping = String::new();
    for (column, from) in [
        ("s", "epoch_s"),
        ("ms", "epoch_ms"),
        ("jd", "julian"),
        ("ticks", "dotnet_ticks"),
        ("net", "cut_to_microseconds"),
        ("span", "duration_ms"),
    ] {
        mapping.push_str(&format!("[tables.t.columns.{column}]\nfrom = \"{from}\"\n"));
    }
    std::fs::write(sandbox.path("map.toml"), mapping).unwrap();
    let report = sandbox
        .migrate(&file, &["--mapping", "map.toml"])
        .expect(1)
        .report();
    assert_eq!(table(&report, "t")["rows_quarantined"], 2, "{report}");
    let shown = "SELECT concat_ws('|', id, s AT TIME ZONE 'UTC', ms AT TIME ZONE 'UTC', jd AT TIME ZONE 'UTC', ticks AT TIME ZONE 'UTC', net, span) FROM t ORDER BY id";
    assert_eq!(
        sandbox.texts(shown),
        [
            "1|2024-01-02 03:04:05|2024-01-02 03:04:05.123|2024-01-02 03:04:05|2024-01-02 03:04:05.123456|2024-01-02 03:04:05.123456|00:00:01.5",
            "2|1969-12-31 23:59:59|1970-01-01 00:00:00|2000-01-01 00:00:00|0001-01-01 00:00:00|-25:01:01.001",
        ]
    );
    sandbox.sqlite("app.db", "UPDATE t SET ms = ms + 1000 WHERE id = 1");
    // Two rows are still in oa.rejects.
    sandbox.run(&["sync", "app.db"]).expect(1);
    sandbox.run(&["verify", "app.db"]).expect(1);
    sandbox
        .client()
        .batch_execute(
            "UPDATE t SET s = s + interval '0.5 s', jd = '2024-01-02 12:00:00+00', span = '1 day 00:00:02' WHERE id = 1",
        )
        .unwrap();
    sandbox.run(&["to-sqlite", "back.db"]).expect(0);
    let back = rusqlite::Connection::open(sandbox.path("back.db")).unwrap();
    let row: String = back
        .query_row(
            "SELECT concat_ws('|', s, typeof(s), ms, typeof(ms), jd, ticks, net, span) FROM t WHERE id = 1",
            [],
            |r| r.get(0),
        )
        .unwrap();
    assert_eq!(
        row,
        "1704164645.5|real|1704164646123|integer|2460312.0|638397614451234560|2024-01-02 03:04:05.1234567|86402000"
    );
}

#[test]
fn numbers_of_sequences_are_not_used_up() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    sandbox
        .client()
        .batch_execute("CREATE TABLE public.s (id serial PRIMARY KEY, t text)")
        .unwrap();
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE s (id INTEGER PRIMARY KEY, t TEXT); INSERT INTO s VALUES (5, 'a'), (9223372036854775807, 'b')",
    );
    sandbox.migrate(&file, &[]).expect(1);
    sandbox
        .client()
        .batch_execute(
            "INSERT INTO public.s (t) VALUES ('c'); INSERT INTO public.s (t) VALUES ('d')",
        )
        .unwrap();
    assert_eq!(
        sandbox.texts("SELECT id || t FROM public.s ORDER BY id"),
        ["5a", "6c", "7d"]
    );

    // Nor by a rehearsal, or by a look at what a sync would do.
    sandbox
        .client()
        .batch_execute(
            "SET search_path = public; CREATE SEQUENCE of_all;
             CREATE TABLE own (id int PRIMARY KEY, n int DEFAULT nextval('of_all') * 10 UNIQUE, m int GENERATED ALWAYS AS IDENTITY, oa_number int CHECK (oa_number <> 13));
             ALTER TABLE own ENABLE ROW LEVEL SECURITY; ALTER TABLE own FORCE ROW LEVEL SECURITY",
        )
        .unwrap();
    let file = sandbox.sqlite(
        "b.db",
        "CREATE TABLE own (id INTEGER PRIMARY KEY, oa_number INTEGER); INSERT INTO own VALUES (1, 1), (2, 13), (3, 3);
         CREATE TABLE numbered (id INTEGER PRIMARY KEY); INSERT INTO numbered VALUES (1), (2), (3), (4)",
    );
    let numbers = || {
        sandbox.texts(
            "SELECT concat_ws(' ', a.last_value, a.is_called, m.last_value, m.is_called) FROM public.of_all a, public.own_m_seq m",
        )
    };
    let new = numbers();
    sandbox.migrate(&file, &["--rehearse"]).expect(1);
    assert_eq!(numbers(), new);
    sandbox.migrate(&file, &[]).expect(1);
    sandbox.sqlite(
        "b.db",
        "INSERT INTO own VALUES (4, 4), (5, 13); DELETE FROM numbered WHERE id < 4; INSERT INTO numbered VALUES (700)",
    );
    let next = || sandbox.number("SELECT last_value FROM public.numbered_id_seq");
    let before = (numbers(), next());
    sandbox.run(&["sync", "b.db", "--dry-run"]).expect(1);
    assert_eq!((numbers(), next()), before);
    // Refused, it has moved none that a table gives next.
    sandbox.run(&["sync", "b.db"]).expect(77);
    assert_eq!(next(), before.1);
    sandbox.run(&["sync", "b.db", "--yes"]).expect(1);
    assert_eq!(next(), 700);
    // The policies are as they were, and what they hide cannot be compared.
    assert_eq!(
        sandbox.number("SELECT count(*) FROM pg_class WHERE relname = 'own' AND relrowsecurity AND relforcerowsecurity"),
        1
    );
    let refused = sandbox.run(&["verify", "b.db"]).expect(77);
    assert!(refused.stderr.contains("NO FORCE"), "{}", refused.stderr);
    sandbox.run(&["to-sqlite", "back.db"]).expect(77);
    // A table that is no affair of the run's is named.
    sandbox
        .client()
        .batch_execute(
            "ALTER TABLE public.own NO FORCE ROW LEVEL SECURITY; CREATE TABLE public.others (id int);
             ALTER TABLE public.others ENABLE ROW LEVEL SECURITY; ALTER TABLE public.others FORCE ROW LEVEL SECURITY",
        )
        .unwrap();
    let back = sandbox.run(&["to-sqlite", "back.db", "--base", "b.db"]);
    assert!(
        back.stderr.contains("others is in PostgreSQL only"),
        "{}",
        back.stderr
    );
    assert_eq!(
        sandbox.texts("SELECT concat_ws(' ', id, n % 10 = 0, m IS NOT NULL, oa_number) FROM public.own ORDER BY id"),
        ["1 t t 1", "3 t t 3", "4 t t 4"]
    );
    sandbox.run(&["verify", "b.db"]).expect(1);
}
