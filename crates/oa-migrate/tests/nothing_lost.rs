//! What a table of the target has besides its rows stays, or the run changes nothing and says what would be lost; what the source
//! has comes along, or the exit code says that it did not.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;

use rusqlite::Connection;
use support::{Sandbox, table, warnings};

const SOURCE: &str = "CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO parent VALUES (1, 'a'), (2, 'b');
     CREATE TABLE item (id INTEGER PRIMARY KEY, owner TEXT, code VARCHAR(3), parent INTEGER REFERENCES parent (id)); INSERT INTO item VALUES (1, 'x', 'abc', 1), (2, 'y', NULL, 2);";

const TARGET: &str = "CREATE ROLE weak; CREATE ROLE reader; CREATE ROLE keeper; GRANT keeper TO oa; GRANT CREATE ON SCHEMA public TO keeper; SET ROLE oa;
     CREATE TABLE parent (id int PRIMARY KEY, name text);
     CREATE TABLE item (id serial PRIMARY KEY, owner text NOT NULL DEFAULT 'nobody', code varchar(3), parent int,
       extra int CONSTRAINT positive CHECK (extra > 0), CONSTRAINT of_parent FOREIGN KEY (parent) REFERENCES parent (id) MATCH FULL ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED)
       WITH (fillfactor = 70, autovacuum_enabled = false);
     ALTER TABLE item ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON item FOR SELECT TO weak USING (owner = current_user AND EXISTS (SELECT 1 FROM parent p WHERE p.id = parent));
     CREATE POLICY \"All of it\" ON item AS RESTRICTIVE TO PUBLIC USING (true) WITH CHECK (owner <> ''); COMMENT ON POLICY own ON item IS 'pc';
     CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.extra := 7; RETURN NEW; END';
     CREATE TRIGGER stamp BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION stamp(); COMMENT ON TRIGGER stamp ON item IS 'tc';
     CREATE TRIGGER sleeping AFTER UPDATE ON item FOR EACH STATEMENT EXECUTE FUNCTION stamp(); ALTER TABLE item DISABLE TRIGGER sleeping;
     CREATE CONSTRAINT TRIGGER late AFTER DELETE ON item DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION stamp();
     CREATE RULE keep AS ON DELETE TO item DO ALSO NOTHING; CREATE PUBLICATION pub FOR TABLE item (id, owner) WHERE (owner <> '');
     CREATE STATISTICS together (dependencies) ON owner, code FROM item; ALTER STATISTICS together SET STATISTICS 50;
     ALTER TABLE item ALTER COLUMN owner SET STATISTICS 500, ALTER COLUMN code SET (n_distinct = -0.5), ALTER COLUMN owner SET STORAGE EXTERNAL, ALTER COLUMN code SET COMPRESSION pglz;
     CREATE UNIQUE INDEX item_owner ON item (owner) INCLUDE (code) WITH (fillfactor = 60); ALTER TABLE item REPLICA IDENTITY USING INDEX item_owner; ALTER TABLE item CLUSTER ON item_owner;
     COMMENT ON TABLE item IS 'it''s'; COMMENT ON COLUMN item.owner IS 'cc'; COMMENT ON INDEX item_owner IS 'ic'; COMMENT ON CONSTRAINT positive ON item IS 'kc'; COMMENT ON CONSTRAINT of_parent ON item IS 'fc';
     GRANT SELECT ON item TO weak; GRANT UPDATE (owner) ON item TO reader WITH GRANT OPTION; GRANT USAGE ON SEQUENCE item_id_seq TO reader; ALTER TABLE item OWNER TO keeper;
     ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader;";

/// Everything that PostgreSQL's own catalogue says, without the program's reading of it.
const PICTURE: &str = "
     SELECT concat_ws(' ', 'table', relrowsecurity, relforcerowsecurity, (SELECT string_agg(o, ',' ORDER BY o) FROM unnest(reloptions) AS o), relreplident, relacl, relowner::regrole) FROM pg_class WHERE oid = 'item'::regclass
     UNION ALL SELECT to_jsonb(p)::text FROM pg_policies p WHERE tablename = 'item' AND schemaname = 'public'
     UNION ALL SELECT concat_ws(' ', tgenabled, pg_get_triggerdef(oid)) FROM pg_trigger WHERE tgrelid = 'item'::regclass AND NOT tgisinternal
     UNION ALL SELECT definition FROM pg_rules WHERE tablename = 'item' AND schemaname = 'public'
     UNION ALL SELECT concat_ws(' ', pubname, attnames, rowfilter) FROM pg_publication_tables WHERE tablename = 'item' AND schemaname = 'public'
     UNION ALL SELECT concat_ws(' ', pg_get_statisticsobjdef(oid), stxstattarget) FROM pg_statistic_ext WHERE stxrelid = 'item'::regclass
     UNION ALL SELECT concat_ws(' ', attname, attstattarget, attoptions, attstorage, attcompression, attnotnull, format_type(atttypid, atttypmod), attacl) FROM pg_attribute WHERE attrelid = 'item'::regclass AND attnum > 0
     UNION ALL SELECT concat_ws(' ', conname, pg_get_constraintdef(oid)) FROM pg_constraint WHERE conrelid = 'item'::regclass
     UNION ALL SELECT concat_ws(' ', pg_get_indexdef(indexrelid), indisclustered, indisreplident) FROM pg_index WHERE indrelid = 'item'::regclass
     UNION ALL SELECT d.description FROM pg_description d WHERE d.objoid IN (SELECT 'item'::regclass::oid UNION SELECT oid FROM pg_trigger WHERE tgrelid = 'item'::regclass
        UNION SELECT oid FROM pg_policy WHERE polrelid = 'item'::regclass UNION SELECT oid FROM pg_constraint WHERE conrelid = 'item'::regclass UNION SELECT indexrelid FROM pg_index WHERE indrelid = 'item'::regclass)
     UNION ALL SELECT relacl::text FROM pg_class WHERE relname = 'item_id_seq' AND relnamespace = 'public'::regnamespace
     ORDER BY 1";

#[test]
fn what_a_table_of_the_target_has_stays_to_the_last_comment() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", SOURCE);
    sandbox.superuser(TARGET);
    let before = sandbox.texts(PICTURE);
    sandbox.migrate(&file, &["--rehearse"]).expect(0);
    assert_eq!(sandbox.texts(PICTURE), before);
    let report = sandbox.migrate(&file, &[]).expect(0).report();
    assert_eq!(report["missing"], serde_json::json!([]));
    assert_eq!(sandbox.texts(PICTURE), before);
    assert_eq!(sandbox.number("SELECT count(*) FROM item"), 2);
    // The rows were loaded without its triggers, and a weak role sees what it may.
    assert_eq!(
        sandbox.number("SELECT count(*) FROM item WHERE extra IS NULL"),
        2
    );
    sandbox.superuser("GRANT SELECT ON parent TO weak; SET ROLE weak; DO $$ BEGIN ASSERT (SELECT count(*) FROM item) = 0; END $$");
    sandbox.run(&["verify", "a.db"]).expect(0);
    rusqlite::Connection::open(&file)
        .unwrap()
        .execute_batch("INSERT INTO item VALUES (3, 'z', NULL, NULL)")
        .unwrap();
    sandbox.run(&["sync", "a.db"]).expect(0);
    assert_eq!(
        sandbox.number("SELECT count(*) FROM item WHERE extra IS NULL"),
        3
    );
    assert_eq!(sandbox.texts(PICTURE), before);

    sandbox.migrate(&file, &["--replace"]).expect(0);
    assert_eq!(sandbox.texts(PICTURE), before);
    sandbox.run(&["rollback", "--yes"]).expect(0);
    sandbox.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(sandbox.texts(PICTURE), before);
    assert_eq!(sandbox.number("SELECT count(*) FROM item"), 0);
}

/// Everything outside `oa`, by its own number: a table that another one replaced would have a new one.
fn relations(sandbox: &Sandbox) -> Vec<String> {
    sandbox.texts("SELECT n.nspname || '.' || c.relname || ' ' || c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^(pg_|information_|oa$|oa_)' AND c.relkind <> 't' ORDER BY 1")
}

#[test]
fn rows_that_the_keys_of_an_applications_table_forbid_are_quarantined() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    sandbox.superuser("CREATE EXTENSION btree_gist SCHEMA public");
    let cases = [
        (
            "CREATE TABLE t (id int, a text); CREATE UNIQUE INDEX lonely ON t (lower(a)) WHERE id < 9",
            "(1, 'x'), (2, 'X'), (3, NULL), (4, NULL), (9, 'x')",
            "lonely",
            "2",
        ),
        (
            "CREATE TABLE t (id int CONSTRAINT key PRIMARY KEY, a text)",
            "(1, 'x'), (1, 'y')",
            "key",
            "2",
        ),
        (
            "CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (2); CREATE TABLE t (id int CONSTRAINT fk REFERENCES p, a text)",
            "(1, 'x'), (2, 'y'), (NULL, 'z')",
            "fk",
            "1",
        ),
        (
            "CREATE TABLE t (id int, a text, CONSTRAINT apart EXCLUDE USING gist (id WITH =, a WITH <>))",
            "(1, 'x'), (1, 'x'), (1, 'y')",
            "apart",
            "3",
        ),
        (
            "CREATE TABLE t (id int, a text); INSERT INTO t VALUES (0, 'old'); ALTER TABLE t ADD CONSTRAINT later CHECK (id > 0) NOT VALID; DELETE FROM t",
            "(0, 'x'), (1, 'y')",
            "later",
            "1",
        ),
        (
            "CREATE TABLE whole (id int, a text) PARTITION BY RANGE (id); CREATE TABLE t PARTITION OF whole FOR VALUES FROM (0) TO (9)",
            "(5, 'x'), (9, 'y')",
            "of the partition",
            "2",
        ),
    ];
    for (number, (make, rows, named, key)) in cases.into_iter().enumerate() {
        let schema = format!("s{number}");
        let name = format!("{number}.db");
        let file = sandbox.sqlite(
            &name,
            &format!("CREATE TABLE t (id INTEGER, a TEXT); INSERT INTO t VALUES {rows};"),
        );
        let make = format!("CREATE SCHEMA {schema}; SET search_path = {schema}, public; {make}");
        sandbox.client().batch_execute(&make).unwrap();
        let before = relations(&sandbox);
        let rehearsals = usize::from(number == 0);
        for more in std::iter::repeat_n(&["--rehearse"][..], rehearsals).chain([&[][..]]) {
            let arguments = [&["--schema", &schema], more].concat();
            let report = sandbox.migrate(&file, &arguments).expect(1).report();
            assert_eq!(report["missing"], serde_json::json!([]), "{report}");
            assert_eq!(report["tables"][0]["rows_quarantined"], 1, "{report}");
            assert_eq!(relations(&sandbox), before, "{named}");
        }
        assert_eq!(
            sandbox.texts("SELECT source_key || ' ' || reason FROM oa.rejects ORDER BY created_at DESC LIMIT 1"),
            [format!("{key} the target's constraint {named} forbids it")]
        );
        assert!(sandbox.number(&format!("SELECT count(*) FROM {schema}.t")) > 0);
        sandbox.run(&["rollback", "--yes"]).expect(0);
        assert_eq!(relations(&sandbox), before, "{named}");
        assert_eq!(
            sandbox.number(&format!("SELECT count(*) FROM {schema}.t")),
            0
        );
    }
}

#[test]
fn what_hangs_on_an_applications_table_stays_and_works() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE t (a INTEGER PRIMARY KEY, news TEXT); INSERT INTO t VALUES (1, 'x'), (2, 'y'); CREATE INDEX t_news ON t (news);
         CREATE TABLE kid (id INTEGER PRIMARY KEY, a INTEGER REFERENCES t (a)); INSERT INTO kid VALUES (1, 2);",
    );
    sandbox
        .client()
        .batch_execute(
            "SET search_path = public; CREATE TABLE t (a int PRIMARY KEY, n serial); CREATE VIEW v AS SELECT * FROM t; CREATE MATERIALIZED VIEW m AS SELECT * FROM v;
             CREATE FUNCTION f() RETURNS SETOF t LANGUAGE sql AS 'SELECT * FROM public.t'; CREATE TABLE child () INHERITS (t); INSERT INTO child VALUES (77);
             CREATE TABLE other (x t); CREATE TABLE guarded (a int); CREATE POLICY p ON guarded USING (EXISTS (SELECT 1 FROM t));
             CREATE TABLE shares (n int DEFAULT nextval('t_n_seq')); CREATE TABLE outside (a int CONSTRAINT of_t REFERENCES t ON DELETE CASCADE);
             COMMENT ON CONSTRAINT of_t ON outside IS 'kept'; CREATE RULE never AS ON INSERT TO t DO INSTEAD NOTHING",
        )
        .unwrap();
    let before = relations(&sandbox);
    let report = sandbox.migrate(&file, &[]).expect(0).report();
    assert!(
        report["warnings"]
            .to_string()
            .contains("REFRESH MATERIALIZED VIEW public.m"),
        "{report}"
    );
    sandbox
        .client()
        .batch_execute("REFRESH MATERIALIZED VIEW m; INSERT INTO outside VALUES (2); UPDATE t SET news = 'seen' WHERE a = 2; INSERT INTO shares DEFAULT VALUES")
        .unwrap();
    let seen = "SELECT concat_ws(' ', (SELECT count(*) FROM v), (SELECT count(*) FROM m), (SELECT count(*) FROM f()), (SELECT n FROM shares), (SELECT a FROM child))";
    assert_eq!(sandbox.texts(seen), ["3 3 3 4 77"]);

    // Rows that others refer to are not taken away from them.
    sandbox.run(&["run", "a.db", "--replace"]).expect(0);
    assert_eq!(sandbox.number("SELECT count(*) FROM outside"), 1);
    sandbox.sqlite("a.db", "DELETE FROM kid; DELETE FROM t WHERE a = 2");
    let done = sandbox.run(&["run", "a.db", "--replace"]).expect(77);
    assert!(done.stderr.contains("public.outside"), "{}", done.stderr);
    assert_eq!(sandbox.number("SELECT count(*) FROM ONLY t"), 2);
    sandbox
        .client()
        .batch_execute("DELETE FROM outside")
        .unwrap();
    sandbox.run(&["run", "a.db", "--replace"]).expect(0);
    assert_eq!(sandbox.number("SELECT count(*) FROM ONLY t"), 1);
    for _ in 0..3 {
        sandbox.run(&["rollback", "--yes"]).expect(0);
    }
    assert_eq!(relations(&sandbox), before);
    assert_eq!(
        sandbox.texts("SELECT obj_description(oid) FROM pg_constraint WHERE conname = 'of_t'"),
        ["kept"]
    );
    assert_eq!(
        sandbox.number("SELECT count(*) FROM pg_rules WHERE rulename = 'never'"),
        1
    );
}

#[test]
fn rows_behind_row_level_security_are_not_taken_for_none() {
    let sandbox = Sandbox::new();
    sandbox.sqlite("a.db", "CREATE TABLE t (a); INSERT INTO t VALUES (1);");
    sandbox
        .client()
        .batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (5); ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        .unwrap();
    assert_eq!(sandbox.number("SELECT count(*) FROM t"), 0);
    let done = sandbox.run(&["run", "a.db"]).expect(77);
    assert!(done.stderr.contains("--replace"), "{}", done.stderr);
    sandbox.superuser("DO $$ BEGIN ASSERT (SELECT a FROM t) = 5; END $$");
    sandbox.run(&["run", "a.db", "--replace"]).expect(0);
    assert_eq!(sandbox.number("SELECT count(*) FROM t"), 0);
    sandbox.superuser("DO $$ BEGIN ASSERT (SELECT a FROM t) = 1; END $$");
}

#[test]
fn deferred_foreign_keys_and_names_of_constraints_come_along() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE p (id INTEGER PRIMARY KEY);
         CREATE TABLE c (id INTEGER PRIMARY KEY, p INT CONSTRAINT \"c P\" REFERENCES p (id) DEFERRABLE INITIALLY DEFERRED, q INT REFERENCES p (id),
           n INT CONSTRAINT small CHECK (n < 10), CONSTRAINT both CHECK (n > 0 AND q > 0));",
    );
    sandbox.migrate(&file, &[]).expect(0);
    sandbox
        .client()
        .batch_execute("BEGIN; INSERT INTO c (p) VALUES (1); INSERT INTO p VALUES (1); COMMIT")
        .unwrap();
    assert_eq!(
        sandbox.texts("SELECT conname || ' ' || condeferred FROM pg_constraint WHERE conrelid = 'c'::regclass AND contype IN ('c', 'f') ORDER BY 1"),
        ["both false", "c p true", "c_q_fkey false", "small false"]
    );
    sandbox
        .client()
        .batch_execute("BEGIN; INSERT INTO c (q) VALUES (9); COMMIT")
        .unwrap_err();
}

#[test]
fn what_the_source_has_and_did_not_come_ends_with_1_and_the_statement() {
    let sandbox = Sandbox::new();
    let cases = [
        (
            "CREATE TABLE t (a TEXT DEFAULT (hex(randomblob(8))));",
            "default of column a",
            "SET DEFAULT",
        ),
        (
            "CREATE TABLE t (a INT, b AS (strftime('%Y', a)));",
            "generated column b",
            "GENERATED ALWAYS",
        ),
        (
            "CREATE TABLE t (a TEXT CHECK (a GLOB 'x*'));",
            "CHECK constraint",
            "ADD CHECK",
        ),
        (
            "CREATE TABLE t (a TEXT COLLATE NOCASE);",
            "collation of column a",
            "citext",
        ),
        (
            "CREATE TABLE t (a TEXT); CREATE INDEX i ON t (strftime('%Y', a));",
            "index i",
            "CREATE INDEX",
        ),
        (
            "CREATE TABLE t (a TEXT); CREATE UNIQUE INDEX i ON t (a) WHERE a LIKE 'x%';",
            "index i",
            "CREATE UNIQUE INDEX",
        ),
        (
            "CREATE TABLE p (k TEXT UNIQUE); INSERT INTO p VALUES ('1'); CREATE TABLE t (a INT REFERENCES p (k)); INSERT INTO t VALUES (1);",
            "foreign key (a)",
            "FOREIGN KEY",
        ),
        (
            "CREATE TABLE t (a TEXT CHECK (a < 'b')); PRAGMA ignore_check_constraints = ON; INSERT INTO t VALUES ('z');",
            "CHECK constraint",
            "ADD CHECK",
        ),
    ];
    for (number, (sql, item, statement)) in cases.into_iter().enumerate() {
        let name = format!("{number}.db");
        let into = ["--schema", &format!("s{number}")];
        let file = sandbox.sqlite(&name, sql);
        let report = sandbox
            .migrate(&file, &[&into[..], &["--rehearse"]].concat())
            .expect(1)
            .report();
        assert!(
            report["missing"].to_string().contains(item),
            "{sql}: {item}: {report}"
        );
        let report = sandbox.migrate(&file, &into).expect(1).report();
        assert_eq!(report["status"], "partial", "{sql}");
        let missing = report["missing"].to_string();
        assert!(
            missing.contains(item) && missing.contains(statement),
            "{sql}: {missing}"
        );
        // The rows are there and proven, and the report for people says the same.
        sandbox.run(&["verify", &name]).expect(0);
        let written = std::fs::read_to_string(
            sandbox
                .path("state/migrations")
                .join(report["run_id"].as_str().unwrap())
                .join("report.md"),
        )
        .unwrap();
        assert!(
            written.contains("## Missing") && written.contains(item),
            "{written}"
        );
        let shown = sandbox
            .run(&[&["run", &name, "--replace"], &into[..]].concat())
            .expect(1);
        assert!(shown.stderr.contains(item), "{}", shown.stderr);
        sandbox
            .migrate(
                &file,
                &[&into[..], &["--replace", "--allow-missing"]].concat(),
            )
            .expect(0);
    }
}

#[test]
fn a_key_without_case_stays_unique_without_case() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE t (k TEXT COLLATE NOCASE PRIMARY KEY, n INT); INSERT INTO t VALUES ('Ab', 1);",
    );
    let report = sandbox
        .migrate(&file, &["--allow-missing"])
        .expect(0)
        .report();
    assert!(warnings(&report, "t").contains("NOCASE"), "{report}");
    let error = sandbox
        .client()
        .batch_execute("INSERT INTO t VALUES ('aB', 2)")
        .unwrap_err();
    assert_eq!(error.code().unwrap().code(), "23505");

    // As the mapping says, also in comparisons.
    sandbox.superuser(
        "CREATE EXTENSION citext WITH SCHEMA public; CREATE COLLATION public.nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    );
    for (schema, how) in [
        ("ct", "type = \"public.citext\""),
        ("icu", "collation = \"public.nocase\""),
    ] {
        let mapping = format!("[tables.t.columns.k]\n{how}\n");
        std::fs::write(sandbox.path("map.toml"), mapping).unwrap();
        let report = sandbox
            .migrate(&file, &["--schema", schema, "--mapping", "map.toml"])
            .expect(0)
            .report();
        assert!(
            warnings(&report, "t").contains("NOCASE becomes"),
            "{report}"
        );
        let own = |sql: &str| format!("SET search_path = {schema}, public; {sql}");
        let mut client = sandbox.client();
        let error = client
            .batch_execute(&own("INSERT INTO t VALUES ('aB', 2)"))
            .unwrap_err();
        assert_eq!(error.code().unwrap().code(), "23505");
        client
            .batch_execute(&own("UPDATE t SET n = 1 / (n - n) WHERE k = 'AB'"))
            .unwrap_err();
    }
    sandbox.sqlite(
        "a.db",
        "UPDATE t SET k = 'AB'; INSERT INTO t VALUES ('c', 3)",
    );
    sandbox.run(&["sync", "a.db", "--same-source"]).expect(0);
    let keys = |schema: &str| sandbox.texts(&format!("SELECT k::text FROM {schema}.t ORDER BY n"));
    assert_eq!([keys("ct"), keys("icu")], [["AB", "c"], ["AB", "c"]]);
    // For the collation there is no difference where SQLite sees one.
    sandbox.sqlite("a.db", "INSERT INTO t VALUES ('é', 4), ('É', 5)");
    let more = [
        "--schema",
        "icu",
        "--mapping",
        "map.toml",
        "--rehearse",
        "--replace",
    ];
    let report = sandbox.migrate(&file, &more).expect(1).report();
    assert_eq!(table(&report, "t")["rows_quarantined"], 1, "{report}");
}

#[test]
fn a_role_that_may_not_create_is_refused_before_anything_is_loaded() {
    let sandbox = Sandbox::new();
    sandbox.sqlite("a.db", "CREATE TABLE t (a); INSERT INTO t VALUES (1);");
    sandbox.run(&["init"]).expect(0);
    sandbox.superuser(
        "CREATE ROLE limited LOGIN PASSWORD 'limited'; GRANT USAGE ON SCHEMA public TO limited; GRANT ALL ON SCHEMA oa TO limited;
         GRANT ALL ON ALL TABLES IN SCHEMA oa TO limited; GRANT ALL ON ALL SEQUENCES IN SCHEMA oa TO limited; GRANT CREATE ON DATABASE oa TO limited",
    );
    let url = format!(
        "postgresql://limited:limited@127.0.0.1:{}/oa",
        sandbox.pg.port()
    );
    for more in [&["run", "a.db", "--rehearse"][..], &["run", "a.db"]] {
        let mut command = sandbox.command(more);
        let done = support::done(command.env("DATABASE_URL", &url).output().unwrap());
        assert_eq!(done.code, 77, "{}", done.stderr);
        assert!(
            done.stderr.contains("GRANT CREATE ON SCHEMA"),
            "{}",
            done.stderr
        );
    }
}

#[test]
fn generated_columns_that_postgresql_computes_differently_become_plain_ones() {
    for (sql, column, values) in [
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, u TEXT AS (upper(a)), l INT AS (id + 1)); INSERT INTO t (a) VALUES ('a'), ('é')",
            "u",
            vec!["A 2", "é 3"],
        ),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a INT, u INT AS (10 / a), l INT AS (id + 1)); INSERT INTO t (a) VALUES (5), (0)",
            "u",
            vec!["2 2", " 3"],
        ),
    ] {
        let sandbox = Sandbox::new();
        let file = sandbox.sqlite("a.db", sql);
        let done = sandbox.migrate(&file, &[]).expect(1);
        let report = done.report();
        assert_eq!(report["matched"], true, "{report}");
        let missing = report["missing"].as_array().unwrap();
        assert!(
            missing
                .iter()
                .any(|m| m["item"] == format!("generated column {column}")),
            "{report}"
        );
        assert_eq!(
            sandbox.texts("SELECT coalesce(u::text, '') || ' ' || l FROM t ORDER BY id"),
            values
        );
        sandbox
            .migrate(&file, &["--replace", "--allow-missing"])
            .expect(0);
        Connection::open(&file)
            .unwrap()
            .execute_batch("UPDATE t SET a = a || '1' WHERE id = 1")
            .unwrap();
        sandbox.run(&["sync", file.to_str().unwrap()]).expect(0);
        sandbox.run(&["verify", file.to_str().unwrap()]).expect(0);
    }
}

#[test]
fn a_default_from_a_sequence_that_is_nobodys_gives_no_number_twice() {
    let sandbox = Sandbox::new();
    sandbox
        .client()
        .batch_execute("CREATE SEQUENCE \"it's\"; CREATE TABLE t (id BIGINT PRIMARY KEY DEFAULT nextval('\"it''s\"'), a TEXT)")
        .unwrap();
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); INSERT INTO t VALUES (1, 'a'), (7, 'b')",
    );
    sandbox.migrate(&file, &[]).expect(0);
    assert_eq!(
        sandbox.number("WITH n AS (INSERT INTO t (a) VALUES ('c') RETURNING id) SELECT id FROM n"),
        8
    );
    let db = Connection::open(&file).unwrap();
    db.execute_batch("INSERT INTO t VALUES (8, 'c'), (20, 'd')")
        .unwrap();
    sandbox
        .client()
        .batch_execute("DELETE FROM t WHERE id = 8")
        .unwrap();
    sandbox.run(&["sync", file.to_str().unwrap()]).expect(0);
    assert_eq!(
        sandbox.number("WITH n AS (INSERT INTO t (a) VALUES ('e') RETURNING id) SELECT id FROM n"),
        21
    );
}

#[test]
fn new_tables_get_the_default_privileges_of_their_schema() {
    let sandbox = Sandbox::new();
    sandbox.superuser("CREATE ROLE looker; CREATE ROLE taker");
    sandbox
        .client()
        .batch_execute(
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT ON TABLES TO looker WITH GRANT OPTION;
             ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO taker",
        )
        .unwrap();
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE t (a INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)",
    );
    sandbox.migrate(&file, &[]).expect(0);
    assert_eq!(
        sandbox.texts(
            "SELECT concat_ws(' ', has_table_privilege('looker', 'public.t', 'SELECT WITH GRANT OPTION'), has_table_privilege('looker', 'public.t', 'UPDATE'),
                              has_sequence_privilege('taker', pg_get_serial_sequence('public.t', 'a'), 'USAGE'))"
        ),
        ["t f t"]
    );
}
