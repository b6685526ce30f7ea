//! Connections, the schema and the run log on a real server.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod functions;
mod tls;

use std::collections::HashSet;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use chrono::Utc;
use oa_core::base::secrets::Secret;
use oa_core::base::state_dir::StateDir;
use oa_core::journal::abandoned;
use oa_core::journal::requests::{self, Action};
use oa_core::journal::store::{self, Lease};
use oa_core::journal::{Persisted, Recorder, StartOutcome, watch};
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::{Attempt, Outcome, RunError, RunStart, Status};
use oa_core::pg::schema::SchemaError;
use oa_core::pg::{self, schema};
use oa_core::pg::{ConnectError, Settings};
use oa_core::service;
use oa_testkit::{Line, Postgres, wait_until};
use postgres::Client;
use serde_json::json;

use crate::common::{batch, one, policy, start};

fn settings(url: &str) -> Settings {
    Settings {
        url: Secret::new(url.to_owned()),
        connect_timeout: Duration::from_secs(3),
        statement_timeout: Duration::from_secs(30),
        program: "oa-test",
    }
}

fn connect(url: &str) -> Result<Client, ConnectError> {
    pg::connect(&settings(url))
}

fn abandoned(client: &mut Client) -> usize {
    let nothing = |_: &RunStart| abandoned::LeftByRun::default();
    abandoned::mark_abandoned(client, &HashSet::new(), nothing, &policy())
        .unwrap()
        .len()
}

#[test]
fn a_session_has_the_programs_name_and_its_limits() {
    let server = Postgres::start();
    let mut client = connect(&server.url()).unwrap();
    assert_eq!(
        one::<String>(&mut client, "SHOW application_name"),
        "oa-test"
    );
    assert_eq!(one::<String>(&mut client, "SHOW statement_timeout"), "30s");
    assert_eq!(one::<String>(&mut client, "SHOW lock_timeout"), "30s");

    // One whose program is gone waits for no lock any more.
    client.batch_execute("CREATE TABLE t ()").unwrap();
    client.batch_execute("BEGIN; LOCK TABLE t").unwrap();
    let line = Line::to(&server);
    let mut waits = connect(line.url()).unwrap();
    let mut look = server.connect();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let mut there_are = |n: i64| {
        wait_until("sessions that wait", Duration::from_secs(20), || {
            one::<i64>(&mut look, waiting) == n
        });
    };
    thread::scope(|scope| {
        let waited = scope.spawn(move || waits.batch_execute("SELECT FROM t"));
        there_are(1);
        line.cut();
        there_are(0);
        assert!(waited.join().unwrap().is_err());
    });
}

#[test]
fn why_there_is_no_connection_is_said_with_the_right_exit_code() {
    let server = Postgres::start();
    let right = server.url();
    let fail = |url: &str| connect(url).err().unwrap();
    let login = fail(&right.replace("oa-test-password", "guessed"));
    assert!(
        matches!(login, ConnectError::Login { .. }) && !login.is_passing(),
        "{login}"
    );
    assert!(!login.to_string().contains("guessed"));
    let login = fail(&right.replace(":oa-test-password", ""));
    assert!(matches!(login, ConnectError::Login { .. }), "{login}");
    let database = fail(&format!("{right}-absent"));
    assert!(
        matches!(database, ConnectError::Database { .. })
            && database.to_string().contains("createdb"),
        "{database}"
    );
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let away = fail(&format!("postgresql://oa:x@{nobody}/oa"));
    assert!(
        matches!(away, ConnectError::Unreachable { .. }) && away.is_passing(),
        "{away}"
    );
    assert!(away.to_string().contains(&nobody.to_string()));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let began = std::time::Instant::now();
    let slow = fail(&format!(
        "postgresql://oa:x@{}/oa",
        silent.local_addr().unwrap()
    ));
    assert!(matches!(slow, ConnectError::Unreachable { .. }), "{slow}");
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn what_is_set_for_the_role_changes_no_statement() {
    let server = Postgres::start();
    let mut superuser = Client::connect(&server.superuser_url(), postgres::NoTls).unwrap();
    let set = |what: &str| format!("ALTER ROLE oa SET {what};");
    let hostile = [
        "standard_conforming_strings = off",
        "quote_all_identifiers = on",
        "DateStyle = 'German, DMY'",
        "IntervalStyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "extra_float_digits = -15",
        "default_transaction_isolation = 'serializable'",
        "idle_session_timeout = '1s'",
        "search_path = pg_catalog",
        "client_min_messages = debug1",
    ];
    superuser.batch_execute(&hostile.map(set).concat()).unwrap();
    let mut client = connect(&server.url()).unwrap();
    // One of the migrations has backslashes in plain literals.
    schema::upgrade(&mut client).unwrap();
    assert!(service::create_missing(&mut client).unwrap().is_empty());
    let mut shown = |sql: &str| one::<String>(&mut client, sql);
    assert_eq!(
        shown("SELECT 'public.commodities'::regclass::text"),
        "public.commodities"
    );
    assert_eq!(shown("SELECT date '2024-05-01'::text"), "2024-05-01");
    assert_eq!(shown("SELECT 0.1::float8::text"), "0.1");
    assert_eq!(shown("SHOW transaction_isolation"), "read committed");
    assert_eq!(shown("SHOW idle_session_timeout"), "0");
    // What a person reads and writes dates as is left to him.
    assert_eq!(shown("SELECT date '02.05.2024'::text"), "2024-05-02");
}

#[test]
fn a_setting_that_the_server_refuses_is_no_server_that_is_down() {
    let server = Postgres::start();
    let url = format!("{}?options=-c%20nosuch%3D1", server.url());
    let long = Settings {
        statement_timeout: Duration::from_secs(40 * 24 * 3600),
        ..settings(&server.url())
    };
    for fault in [
        connect(&url).err().unwrap(),
        pg::connect(&long).err().unwrap(),
    ] {
        let text = fault.to_string();
        assert!(
            matches!(fault, ConnectError::Address(_))
                && !fault.is_passing()
                && text.contains("refuses a setting"),
            "{text}"
        );
    }
}

#[test]
fn an_upgrade_that_cannot_be_says_what_to_do() {
    let server = Postgres::start();
    let mut superuser = Client::connect(&server.superuser_url(), postgres::NoTls).unwrap();
    superuser
        .batch_execute("CREATE ROLE weak LOGIN PASSWORD 'p'")
        .unwrap();
    let weak = server.url().replace("oa:oa-test-password", "weak:p");
    let upgrade = |url: &str| schema::upgrade(&mut connect(url).unwrap()).unwrap_err();
    let error = upgrade(&weak);
    assert!(
        error.to_string().contains("oa-migrate init --roles"),
        "{error}"
    );
    superuser
        .batch_execute("ALTER ROLE oa SET default_transaction_read_only = on")
        .unwrap();
    let error = upgrade(&server.url());
    assert!(
        error.to_string().contains("use the primary") && !error.is_unreachable(),
        "{error}"
    );
    superuser.batch_execute("ALTER ROLE oa RESET ALL").unwrap();
    schema::upgrade(&mut server.connect()).unwrap();
    let error = schema::check(&mut connect(&weak).unwrap()).unwrap_err();
    assert!(
        error.to_string().contains("oa-migrate init --roles"),
        "{error}"
    );

    // Where titles cannot be stored, nothing could be recorded.
    superuser
        .batch_execute(
            "CREATE DATABASE latin OWNER oa ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0",
        )
        .unwrap();
    let (address, _) = server
        .url()
        .rsplit_once('/')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let mut latin = connect(&format!("{address}/latin")).unwrap();
    let error = schema::check_encoding(&mut latin).unwrap_err();
    assert!(
        matches!(error, SchemaError::Encoding(_)) && error.to_string().contains("UTF8"),
        "{error}"
    );
    schema::check_encoding(&mut server.connect()).unwrap();
}

#[test]
fn of_several_hosts_the_one_that_answers_and_may_write_is_taken() {
    let server = Postgres::start();
    let standby = Postgres::start_with(&[("default_transaction_read_only", "on")]);
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!(
        "postgresql://oa:oa-test-password@127.0.0.1:{nobody},127.0.0.1:{},127.0.0.1:{}/oa?target_session_attrs=read-write",
        standby.port(),
        server.port()
    );
    let mut client = connect(&url).unwrap();
    assert_eq!(
        one::<String>(&mut client, "SHOW port"),
        server.port().to_string()
    );
}

#[test]
fn many_programs_that_upgrade_at_once_do_it_once() {
    let server = Postgres::start();
    assert!(matches!(
        schema::check(&mut server.connect()),
        Err(SchemaError::Absent)
    ));
    let applied: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| schema::upgrade(&mut server.connect()).unwrap().len()))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(applied.iter().filter(|n| **n > 0).count(), 1, "{applied:?}");
    schema::check(&mut server.connect()).unwrap();
    let mut client = server.connect();
    client
        .batch_execute("UPDATE oa.schema_history SET version = version + 1000")
        .unwrap();
    assert!(matches!(
        schema::upgrade(&mut client),
        Err(SchemaError::Newer { .. })
    ));
    client
        .batch_execute("DELETE FROM oa.schema_history WHERE version > 0")
        .unwrap();
    assert!(schema::check(&mut client).is_err());
}

#[test]
fn the_services_tables_are_made_once_and_old_ones_get_what_they_lack() {
    let server = Postgres::start();
    let mut client = server.connect();
    client.batch_execute("CREATE TABLE fundamental_reports (id int PRIMARY KEY, comm_code varchar(20) NOT NULL, source text, report_type text, publish_time timestamp); INSERT INTO fundamental_reports VALUES (1, 'RB')").unwrap();
    assert!(service::create_missing(&mut client).unwrap().is_empty());
    assert!(service::create_missing(&mut client).unwrap().is_empty());
    assert_eq!(
        one::<i64>(
            &mut client,
            "SELECT count(*) FROM fundamental_reports WHERE rating IS NULL"
        ),
        1
    );
    client.batch_execute("DROP INDEX institutional_positions_key; INSERT INTO institutional_positions (comm_code, broker_name, record_date) VALUES ('RB', 'x', '2025-12-01'), ('RB', 'x', '2025-12-01')").unwrap();
    assert_eq!(
        service::create_missing(&mut client).unwrap(),
        ["institutional_positions"]
    );
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM institutional_positions"),
        2
    );
}

#[test]
fn a_role_without_the_right_to_create_tables_can_keep_the_run_log() {
    let server = Postgres::start();
    schema::upgrade(&mut server.connect()).unwrap();
    let mut admin = Client::connect(&server.superuser_url(), postgres::NoTls).unwrap();
    admin
        .batch_execute(
            "CREATE ROLE crawler LOGIN PASSWORD 'p'; GRANT USAGE ON SCHEMA oa TO crawler;
             GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA oa TO crawler; DROP TABLE oa.runs_default;
             DELETE FROM oa.runs; DO $$ DECLARE t text; BEGIN FOR t IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'oa.runs'::regclass
             LOOP EXECUTE 'DROP TABLE ' || t; END LOOP; END $$",
        )
        .unwrap();
    let mut crawler = connect(&server.url().replace("oa:oa-test-password", "crawler:p")).unwrap();
    assert_eq!(
        store::begin(&mut crawler, &start("t")).unwrap(),
        Lease::Acquired,
        "partitions are made for it"
    );
    assert!(
        crawler
            .batch_execute("CREATE TABLE oa.mine (a int)")
            .is_err()
    );
}

#[test]
fn an_upgrade_carries_the_rights_of_roles_over_to_what_is_new() {
    let server = Postgres::start();
    let mut owner = server.connect();
    schema::create_at(&mut owner, 10).unwrap();
    let mut admin = Client::connect(&server.superuser_url(), postgres::NoTls).unwrap();
    admin
        .batch_execute(
            "CREATE ROLE crawler LOGIN PASSWORD 'p'; GRANT USAGE ON SCHEMA oa TO crawler;
             GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA oa TO crawler;
             CREATE ROLE reader LOGIN PASSWORD 'p'; GRANT USAGE ON SCHEMA oa TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA oa TO reader",
        )
        .unwrap();
    let done = schema::upgrade(&mut owner).unwrap();
    assert_eq!(
        done[..3],
        [
            "V11__ack_rights",
            "V12__repository_state",
            "V13__troubles_index"
        ]
    );
    connect(&server.url().replace("oa:oa-test-password", "reader:p"))
        .unwrap()
        .batch_execute("SELECT FROM oa.repository_state; SELECT oa.takes_care(r, now()) FROM oa.runs r; SELECT FROM oa.clock; SELECT FROM oa.watches")
        .unwrap();
    // A crawler writes the log without a right to the sequence that orders it.
    let mut crawler = connect(&server.url().replace("oa:oa-test-password", "crawler:p")).unwrap();
    store::begin(&mut crawler, &start("t")).unwrap();
    crawler.batch_execute("SELECT oa.watch_clock()").unwrap();
    // Nor does it lack what messages with buttons need.
    crawler
        .batch_execute(
            "INSERT INTO oa.cards (channel, message, alert, content) VALUES ('c', 'm', gen_random_uuid(), '{}'); UPDATE oa.cards SET tries = 1;
             INSERT INTO oa.listeners (robot, host, place, holder, leased_until) VALUES ('r', 'h', 'p', gen_random_uuid(), now())",
        )
        .unwrap();
    // Whoever could raise an incident can resolve it.
    let may_end = |role: &str| {
        let query = format!("SELECT has_table_privilege('{role}', 'oa.incidents', 'UPDATE')");
        one::<bool>(&mut server.connect(), &query)
    };
    assert_eq!((may_end("crawler"), may_end("reader")), (true, false));
}

#[test]
fn an_outcome_applied_twice_counts_once() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    service::create_missing(&mut client).unwrap();
    let start = start("t");
    store::begin(&mut client, &start).unwrap();
    let mut outcome = Outcome::bare(start.clone(), Status::Success, Utc::now());
    outcome.attempts.push(Attempt {
        number: 1,
        started_at: start.started_at,
        finished_at: Utc::now(),
        outcome: Status::Success,
        error: None,
    });
    outcome.batches.push(batch(vec![vec![
        json!("RB"),
        json!("2025-12-01"),
        json!(1),
    ]]));
    let first = store::apply(&mut client, &outcome, &policy()).unwrap();
    assert_eq!(first.inserted, 1);
    assert_eq!(
        store::apply(&mut client, &outcome, &policy()).unwrap(),
        first
    );
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM oa.attempts"),
        1
    );
    assert_eq!(
        one::<String>(&mut client, "SELECT status FROM crawler_task_logs"),
        "success"
    );
    assert_eq!(
        one::<i64>(
            &mut client,
            "SELECT records_count FROM oa.crawler_task_logs"
        ),
        0,
        "fetched counts, and this outcome says 0"
    );
}

#[test]
fn a_late_outcome_replaces_abandoned_but_counts_as_one_failure() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    let start = start("t");
    store::begin(&mut client, &start).unwrap();
    client
        .batch_execute(
            "UPDATE oa.runs SET host = 'elsewhere', lease_until = now() - interval '1 s'",
        )
        .unwrap();
    assert_eq!(abandoned(&mut client), 1);
    assert_eq!(abandoned(&mut client), 0);
    store::apply(
        &mut client,
        &Outcome::bare(start, Status::Failed, Utc::now()),
        &policy(),
    )
    .unwrap();
    assert_eq!(
        one::<String>(&mut client, "SELECT status FROM oa.runs"),
        "failed"
    );
    assert_eq!(
        one::<i32>(&mut client, "SELECT consecutive_failures FROM oa.tasks"),
        1
    );
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM oa.alerts"), 1);
}

#[test]
fn runs_of_a_month_are_in_its_partition_and_unpartitioned_times_in_the_default() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    store::begin(&mut client, &start("t")).unwrap();
    let month = Utc::now().format("oa.runs_%Y_%m").to_string();
    assert_eq!(
        one::<String>(
            &mut client,
            "SELECT 'oa.' || relname FROM oa.runs r JOIN pg_class c ON c.oid = r.tableoid"
        ),
        month
    );
    let plan: Vec<String> = client
        .query(
            "EXPLAIN SELECT * FROM oa.runs WHERE id = oa.uuid_floor('2025-01-01')",
            &[],
        )
        .unwrap()
        .iter()
        .map(|r| r.get(0))
        .collect();
    assert!(
        plan.iter().filter(|l| l.contains("Scan")).count() == 1,
        "one partition is looked at: {plan:?}"
    );
    // Four programs at the turn of a month, and of many.
    let programs: Vec<_> = (0..4)
        .map(|_| {
            let url = server.url();
            std::thread::spawn(move || {
                let mut client = connect(&url).unwrap();
                (0..24).try_for_each(|month| {
                    client
                        .execute(
                            "SELECT oa.ensure_partitions('2031-01-15'::timestamptz + make_interval(months => $1))",
                            &[&month],
                        )
                        .map(drop)
                })
            })
        })
        .collect();
    for program in programs {
        program.join().unwrap().unwrap();
    }
    // Who reads for long, a dump for example, holds up nobody: what a month to come lacks is made later.
    let ahead = "SELECT oa.ensure_partitions('2035-03-15')::text";
    client
        .batch_execute("SELECT oa.ensure_partitions('2035-02-15')")
        .unwrap();
    let mut dump = connect(&server.url()).unwrap();
    let mut reading = dump.transaction().unwrap();
    reading.query("SELECT FROM oa.raw", &[]).unwrap();
    client.batch_execute("SET lock_timeout = '5s'").unwrap();
    assert_eq!(one::<String>(&mut client, ahead), "4");
    reading.commit().unwrap();
    assert_eq!(one::<String>(&mut client, ahead), "1");
}

/// Whoever asks what became of his commit gets the right answer, whatever clocks do meanwhile; and the table does not grow for ever.
#[test]
fn a_clock_that_jumps_removes_no_commit_that_somebody_may_ask_for() {
    let server = Postgres::start();
    let mut db = server.connect();
    schema::upgrade(&mut db).unwrap();
    let commit = |db: &mut Client| {
        let id = uuid::Uuid::now_v7();
        let mut tx = db.transaction().unwrap();
        tx.batch_execute("UPDATE oa.tasks SET title = title; CREATE TEMP TABLE t (); DROP TABLE t")
            .unwrap();
        tx.execute("SELECT oa.note_commit($1)", &[&id]).unwrap();
        tx.commit().unwrap();
        id
    };
    let is_there = |db: &mut Client, id| {
        let row = db.query_one(
            "SELECT EXISTS (SELECT FROM oa.commits WHERE id = $1)",
            &[&id],
        );
        row.unwrap().get::<_, bool>(0)
    };
    let asked_for = commit(&mut db);
    db.batch_execute("UPDATE oa.commits SET at = at - interval '400 days'")
        .unwrap();
    commit(&mut db);
    assert!(is_there(&mut db, asked_for));
    let many =
        "INSERT INTO oa.commits (id) SELECT gen_random_uuid() FROM generate_series(1, 10000)";
    db.batch_execute(many).unwrap();
    let kept = "INSERT INTO oa.commits (id, n, kept) VALUES (gen_random_uuid(), -1, true)";
    db.batch_execute(kept).unwrap();
    let newer = commit(&mut db);
    assert!(!is_there(&mut db, asked_for));
    assert!(is_there(&mut db, newer));
    assert_eq!(
        one::<i64>(&mut db, "SELECT count(*) FROM oa.commits WHERE kept"),
        1
    );
    let all = one::<i64>(&mut db, "SELECT count(*) FROM oa.commits");
    assert!((10_000..10_003).contains(&all), "{all}");
}

#[test]
fn what_was_committed_counts_once_although_its_confirmation_was_lost() {
    let server = Postgres::start();
    let mut db = server.connect();
    schema::upgrade(&mut db).unwrap();
    let line = Line::to(&server);
    let folder = oa_testkit::temp_dir();
    let recorder = Recorder::new(
        settings(line.url()),
        StateDir::open(folder.path()).unwrap(),
        1 << 30,
        policy(),
    );
    let mut ask = |query: &str| one::<String>(&mut db, query);
    // A connection that is kept, as it is between the runs of one program.
    let keep = || {
        recorder
            .connected(|c| c.query_one("SELECT 1", &[]))
            .unwrap()
            .unwrap()
    };
    let cut = || {
        keep();
        line.cut_at_commit();
    };

    cut();
    let zone = chrono_tz::Asia::Shanghai;
    let begun = recorder.once(|tx| watch::begun(tx, watch::DUE, "h", zone));
    begun.unwrap().unwrap();
    assert!(line.was_cut());
    cut();
    let failed = recorder.once(|tx| watch::failed(tx, watch::DUE, "h"));
    failed.unwrap().unwrap();
    assert!(line.was_cut());
    let starts = "SELECT string_agg(starts || ' ' || failures, ', ') FROM oa.starts";
    assert_eq!(ask(starts), "1 1");
    // Broken before its commit it is done by another connection.
    keep();
    let mut broken = false;
    let failed = recorder.once(|tx| {
        watch::failed(tx, watch::DUE, "h")?;
        if !broken {
            broken = true;
            let pid: i32 = tx.query_one("SELECT pg_backend_pid()", &[])?.get(0);
            ask(&format!("SELECT pg_terminate_backend({pid}, 10000)::text"));
        }
        Ok(())
    });
    failed.unwrap().unwrap();
    assert_eq!(ask(starts), "1 2");

    let run = Action::Run {
        task: "t".to_owned(),
        day: None,
    };
    ask(
        "WITH t AS (INSERT INTO oa.tasks (name, tool, collects) VALUES ('t', 'oa-crawl', true) RETURNING name) SELECT name FROM t",
    );
    requests::put(&mut server.connect(), &run, "wang").unwrap();
    cut();
    let lease = Duration::from_secs(300);
    let taken = recorder.once(|tx| requests::take(tx, &["run"], &["t"], "h", lease));
    assert!(line.was_cut());
    assert_eq!(taken.unwrap().unwrap().unwrap().action, run);

    cut();
    let StartOutcome::Run(begun) = recorder.begin(start("t")).unwrap() else {
        panic!("nobody else runs it");
    };
    assert!(line.was_cut());
    assert_eq!(
        ask("SELECT string_agg(status || ' ' || (finished_at IS NULL)::text, ', ') FROM oa.runs"),
        "running true"
    );
    let mut outcome = Outcome::bare(begun.start().clone(), Status::Failed, Utc::now());
    outcome.error = Some(RunError::new(ErrorKind::Shape, "x"));
    line.cut_at_commit();
    let Persisted::Stored(counts) = recorder.finish(*begun, outcome).unwrap() else {
        panic!("PostgreSQL is there");
    };
    assert!(line.was_cut());
    assert!(counts.alerted, "people are notified at once");
    assert_eq!(
        ask(
            "SELECT string_agg(r.status || ' ' || consecutive_failures, ', ') FROM oa.runs r JOIN oa.tasks t ON t.name = r.task"
        ),
        "failed 1"
    );

    // Somebody else has it: the run is over, also when the task is free by the time it is asked for again.
    ask(
        "WITH t AS (UPDATE oa.tasks SET lease_host = 'other', lease_until = now() + interval '1 hour' RETURNING name) SELECT name FROM t",
    );
    let other = start("t");
    let mut client = server.connect();
    for free in [false, true] {
        let held = store::begin(&mut client, &other).unwrap();
        assert!(matches!(held, Lease::HeldBy { .. }), "{held:?}, {free}");
        client
            .batch_execute("UPDATE oa.tasks SET lease_until = NULL")
            .unwrap();
    }
    assert_eq!(
        ask("SELECT string_agg(status, ', ' ORDER BY seq) FROM oa.runs"),
        "failed, skipped"
    );

    // A server that takes over without having seen it has given the transaction's number to another one.
    let other = Postgres::start();
    let mut there = other.connect();
    schema::upgrade(&mut there).unwrap();
    let number = "SELECT pg_current_xact_id()::text::int8";
    let used = one::<i64>(&mut client, number) + 100;
    while one::<i64>(&mut there, number) < used {}
    keep();
    line.lead_to(&other);
    line.cut_at_commit();
    let begun = recorder.once(|tx| watch::begun(tx, watch::DUE, "h", zone));
    begun.unwrap().unwrap();
    assert!(line.was_cut());
    assert_eq!(ask(starts), "2 2");
    assert_eq!(one::<String>(&mut there, starts), "1 0");
}
