//! Functions of schema `oa` that act as its owner: what somebody makes of them who may only read, or only write rows.

use oa_core::pg::schema;
use oa_testkit::Postgres;
use postgres::error::SqlState;
use postgres::{Client, NoTls};

use super::{connect, one};

/// A table of one's own whose key is computed by a function of one's own, and a trigger that has the owner note its changes.
const AS_OWNER: &str = "SET default_transaction_read_only = off;
    CREATE FUNCTION pg_temp.mine(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN t; END $$;
    CREATE TEMP TABLE x (id text NOT NULL);
    CREATE UNIQUE INDEX ON x (pg_temp.mine(id));
    CREATE TRIGGER x AFTER INSERT ON x REFERENCING NEW TABLE AS oa_new_rows FOR EACH STATEMENT EXECUTE FUNCTION oa.audit('');
    CREATE OR REPLACE FUNCTION pg_temp.mine(t text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
        IF current_user <> session_user THEN DELETE FROM oa.clock; END IF; RETURN t; END $$;
    INSERT INTO x VALUES ('1')";
/// Sums of runs that were none.
const FORGED: &str = "SET default_transaction_read_only = off; CREATE TEMP TABLE r (LIKE oa.runs);
    CREATE TRIGGER r AFTER INSERT ON r FOR EACH ROW EXECUTE FUNCTION oa.sum_run()";
const PARTITIONS: &str =
    "SET default_transaction_read_only = off; BEGIN; SELECT oa.ensure_partitions('2050-01-01')";

#[test]
fn who_only_reads_gets_nothing_done_by_the_owners_functions() {
    let server = Postgres::start();
    let mut owner = server.connect();
    // As it was left by a version that had not thought of it.
    schema::create_at(&mut owner, schema::needed()).unwrap();
    let mut admin = Client::connect(&server.superuser_url(), NoTls).unwrap();
    admin
        .batch_execute(
            "CREATE ROLE reader LOGIN PASSWORD 'p'; GRANT USAGE ON SCHEMA oa TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA oa TO reader;
             CREATE ROLE crawler LOGIN PASSWORD 'p'; GRANT USAGE ON SCHEMA oa TO crawler;
             GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA oa TO crawler;
             CREATE ROLE app; GRANT USAGE ON SCHEMA oa TO app; CREATE TABLE parts (id int PRIMARY KEY); GRANT SELECT ON parts TO oa;
             SELECT oa.start_audit('parts'); ALTER TABLE parts OWNER TO app",
        )
        .unwrap();
    let of = |role: &str| {
        let url = server
            .url()
            .replace("oa:oa-test-password", &format!("{role}:p"));
        connect(&url).unwrap()
    };
    of("reader").batch_execute(AS_OWNER).unwrap();
    assert!(
        !one::<bool>(&mut owner, "SELECT EXISTS (SELECT FROM oa.clock)"),
        "so it was"
    );
    owner
        .batch_execute("INSERT INTO oa.clock (latest) VALUES (now())")
        .unwrap();
    assert!(schema::upgrade(&mut owner).unwrap().is_empty());
    assert!(schema::upgrade(&mut owner).unwrap().is_empty());
    for (role, sql) in [
        ("reader", AS_OWNER),
        ("crawler", AS_OWNER),
        ("reader", FORGED),
        ("crawler", FORGED),
        ("reader", PARTITIONS),
    ] {
        let refused = of(role).batch_execute(sql).unwrap_err();
        let code = refused.code();
        assert_eq!(
            code,
            Some(&SqlState::INSUFFICIENT_PRIVILEGE),
            "{role} {sql}"
        );
    }
    assert!(one::<bool>(
        &mut owner,
        "SELECT EXISTS (SELECT FROM oa.clock)"
    ));
    // Nobody waits for a look at the clock that a reader does not end.
    owner
        .batch_execute("UPDATE oa.clock SET latest = now() - interval '2 minutes'")
        .unwrap();
    let mut reader = of("reader");
    reader
        .batch_execute("SET default_transaction_read_only = off; BEGIN; SELECT oa.watch_clock()")
        .unwrap();
    let mut crawler = of("crawler");
    crawler
        .batch_execute(
            "SET lock_timeout = '1s'; SELECT oa.watch_clock(), oa.ensure_partitions('2050-01-01')",
        )
        .unwrap();
    let looked = "SELECT latest > now() - interval '1 minute' FROM oa.clock";
    assert!(one::<bool>(&mut owner, looked));
    // What is audited goes on being so, also for whoever exchanges such a table of his own.
    admin
        .batch_execute("INSERT INTO parts VALUES (1); SET ROLE app; SELECT oa.stop_audit('parts'), oa.start_audit('parts'); INSERT INTO parts VALUES (2)")
        .unwrap();
    let noted = "SELECT count(*) FROM oa.revisions WHERE table_name = 'parts'";
    assert_eq!(one::<i64>(&mut owner, noted), 2);
}
