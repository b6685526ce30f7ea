//! The run log and the outbox on a real server: order, causes, many programs at once, texts of others.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Barrier;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use oa_core::base::state_dir::StateDir;
use oa_core::journal::incidents;
use oa_core::journal::spool::{Record, Spool};
use oa_core::journal::store;
use oa_core::model::event::{Alert, Event, Fault};
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::{Attempt, Outcome, Reject, RunError, Status};
use oa_core::pg::schema;
use oa_core::service;
use oa_testkit::Postgres;
use postgres::Client;
use serde_json::json;

use crate::common::{batch, one, policy, start};

#[test]
fn an_upgrade_puts_what_was_recorded_in_the_future_behind_the_rest() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::create_at(&mut client, 13).unwrap();
    client
        .batch_execute(
            "INSERT INTO oa.tasks (name, tool, last_run_id, last_status, last_started_at, last_success_at, next_due_at)
             VALUES ('t', 'oa-crawl', oa.uuid_floor('2099-01-01'), 'success', '2099-01-01', '2099-01-01', '2099-01-02');
             INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at, finished_at)
             SELECT oa.uuid_floor(at::timestamptz), 'oa-crawl', 't', 'cron', 'h', 'm', 'b', 1, 1, '0', status, at::timestamptz, CASE WHEN status <> 'running' THEN at::timestamptz END
             FROM (VALUES ('2025-01-01', 'failed'), ('2025-01-02', 'running'), ('2099-01-01', 'success')) x (at, status);
             INSERT INTO oa.alerts (id, fingerprint, rule, task, severity, kind, title, body, created_at)
             SELECT oa.uuid_floor(at::timestamptz), 'run:t', 'run_failed', 't', 'critical', kind, at, at, at::timestamptz
             FROM (VALUES ('2025-01-01', 'problem'), ('2025-01-02', 'recovery'), ('2099-01-01', 'problem')) x (at, kind)",
        )
        .unwrap();
    schema::upgrade(&mut client).unwrap();
    let mut ask = |query: &str| one::<String>(&mut client, query);
    assert_eq!(
        ask("SELECT string_agg(status, ' ' ORDER BY seq) FROM oa.runs"),
        "success failed running"
    );
    assert_eq!(
        ask(
            "SELECT string_agg((started_at <= now())::text || ' ' || (finished_at IS NULL)::text, ', ' ORDER BY seq) FROM oa.runs"
        ),
        "true false, true false, true true"
    );
    assert_eq!(
        ask("SELECT count(*)::text FROM oa.incidents WHERE resolved_at IS NULL"),
        "0",
        "the next failure is reported"
    );
    assert_eq!(
        ask("SELECT (last_started_at <= now() AND last_success_at <= now())::text FROM oa.tasks"),
        "true"
    );
    assert_eq!(
        ask("SELECT coalesce(sum(runs), 0)::text FROM oa.run_hours WHERE hour > now()"),
        "0"
    );
    assert_eq!(ask("SELECT sum(runs)::text FROM oa.run_hours"), "2");
    assert_eq!(
        ask(
            "SELECT count(*)::text FROM oa.runs r WHERE oa.takes_care(r, now() - interval '1 hour')"
        ),
        "0"
    );
    store::begin(&mut client, &start("t")).unwrap();
    assert!(one::<bool>(
        &mut client,
        "SELECT seq > 3 FROM oa.runs ORDER BY seq DESC LIMIT 1"
    ));
}

#[test]
fn an_upgrade_lets_nothing_of_the_future_hold_or_hide_anything() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::create_at(&mut client, 13).unwrap();
    client
        .batch_execute(
            "INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at, lease_until)
             VALUES (oa.uuid_floor('2099-01-01'), 'oa-crawl', 't', 'cron', 'h', 'm', 'b', 1, 1, '0', 'running', '2099-01-01', '2099-01-02');
             INSERT INTO oa.tasks (name, tool, last_run_id, last_started_at, failing_since, next_due_at, lease_run_id, lease_host, lease_until)
             SELECT 't', 'oa-crawl', id, '2099-01-01', '2099-01-01', '2099-01-02', id, 'h', '2099-01-02' FROM oa.runs;
             INSERT INTO oa.attempts (run_id, attempt, started_at, finished_at, outcome) SELECT id, 1, '2099-01-01', '2099-01-01', 'failed' FROM oa.runs;
             INSERT INTO oa.rejects (run_id, seq, task, reason) SELECT id, 1, 't', 'x' FROM oa.runs;
             INSERT INTO oa.quality (run_id, task, day, collected, duplicates, score, findings) SELECT id, 't', '2099-01-01', 1, 0, 100, '[]' FROM oa.runs;
             INSERT INTO oa.alerts (id, fingerprint, rule, task, severity, kind, title, body, created_at)
             VALUES (oa.uuid_floor('2099-01-01'), 'run:t', 'run_failed', 't', 'critical', 'problem', 'x', 'x', '2099-01-01');
             INSERT INTO oa.deliveries (alert_id, channel, state, tries, first_try_at, next_try_at, leased_until)
             SELECT id, c, s, 1, '2099-01-01', '2099-01-01', '2099-01-01' FROM oa.alerts, (VALUES ('a', 'pending'), ('b', 'sending')) x (c, s);
             INSERT INTO oa.channels VALUES ('a', '2099-01-01');
             INSERT INTO oa.acks (fingerprint, by, acked_at) VALUES ('run:t', 'me', '2099-01-01');
             INSERT INTO oa.silences (task, by, created_at, until) VALUES ('t', 'me', '2099-01-01', '2099-01-01 01:00');
             INSERT INTO oa.backups (id, run_id, repository, kind, level, host, database, server_version, system_id, timeline, restorable_from, restorable_to,
                                     started_at, finished_at, files, size_bytes, added_bytes)
             SELECT 'b', id, 'r', 'logical', 'full', 'h', 'd', 150000, 's', 1, '2099-01-01', '2099-01-01', '2099-01-01', '2099-01-01', 1, 1, 1 FROM oa.runs;
             INSERT INTO oa.drills (run_id, backup_id, repository, host, target, started_at, finished_at, ok)
             VALUES (gen_random_uuid(), 'b', 'r', 'h', '2025-01-02', '2025-01-02', '2025-01-02', false),
                    (gen_random_uuid(), 'b', 'r', 'h', '2099-01-01', '2099-01-01', '2099-01-01', true);
             INSERT INTO oa.run_hours (task, hour, status, runs, seconds, fetched, inserted, updated, unchanged, rejected)
             VALUES ('t', '2099-01-01', 'success', 1, 1, 1, 1, 0, 0, 0);
             INSERT INTO oa.run_days (task, day, status, runs, fetched, rejected) VALUES ('t', '2099-01-01', 'success', 1, 1, 0);
             INSERT INTO oa.run_totals VALUES ('t', 'success', 1, 1, 1, 1, 0, 0, 0);
             INSERT INTO oa.raw (run_id, seq, attempt, url, status, sha256, size_bytes, stored_bytes, fetched_at)
             SELECT id, 0, 1, 'http://x', 200, 'x', 1, 1, '2099-01-01' FROM oa.runs;
             INSERT INTO oa.repositories (repository, measured_at, size_bytes, backups) VALUES ('r', '2099-01-01', 1, 1)",
        )
        .unwrap();
    let tables: Vec<String> = one(
        &mut client,
        "SELECT array_agg(relname::text ORDER BY relname) FROM pg_class
         WHERE relnamespace = 'oa'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> 'schema_history'",
    );
    let count = |client: &mut Client, of: &str| -> i64 {
        one(client, &format!("SELECT count(*) FROM oa.{of}"))
    };
    let before: Vec<i64> = tables.iter().map(|t| count(&mut client, t)).collect();
    for (table, rows) in tables.iter().zip(&before) {
        assert!(*rows > 0, "{table} has rows before the upgrade");
    }
    schema::upgrade(&mut client).unwrap();
    for (table, rows) in tables.iter().zip(before) {
        // What somebody has acknowledged is a part of the incident now.
        let now = match table.as_str() {
            "acks" => "incidents WHERE acknowledged_by = 'me'",
            other => other,
        };
        assert_eq!(count(&mut client, now), rows, "no row of {table} is lost");
    }
    let mut by = |least: &str, columns: &str, from: &str| {
        for column in columns.split(' ') {
            let query = format!(
                "SELECT coalesce(bool_and({column} <= now() + interval '{least}'), true) FROM oa.{from}"
            );
            assert!(one::<bool>(&mut client, &query), "{column} of {from}");
        }
    };
    by("0", "started_at finished_at", "runs");
    by(
        "0",
        "last_started_at last_success_at failing_since expected_since",
        "tasks",
    );
    by("10 minutes", "lease_until", "tasks");
    by("10 minutes", "lease_until", "runs");
    by("0", "next_try_at first_try_at leased_until", "deliveries");
    by("0", "paused_until", "channels");
    by("0", "created_at", "silences");
    by("1 hour", "until", "silences");
    by("0", "started_at finished_at", "backups");
    by("0", "started_at finished_at", "drills");
    client
        .batch_execute("INSERT INTO oa.drills (run_id, backup_id, repository, host, target, started_at, finished_at, ok)
                        VALUES (gen_random_uuid(), 'b', 'r', 'h', now(), now(), now(), false)")
        .unwrap();
    assert!(!one::<bool>(
        &mut client,
        "SELECT ok FROM oa.drills ORDER BY seq DESC LIMIT 1"
    ));
}

/// Applies the outcome of one run of task `t` and gives the kinds of all its alerts so far.
fn outcome_of(client: &mut Client, kind: Option<ErrorKind>) -> String {
    let start = start("t");
    store::begin(client, &start).unwrap();
    let status = if kind.is_some() {
        Status::Failed
    } else {
        Status::Success
    };
    let mut outcome = Outcome::bare(start, status, Utc::now());
    outcome.error = kind.map(|k| RunError::new(k, "x"));
    store::apply(client, &outcome, &policy()).unwrap();
    one(
        client,
        "SELECT coalesce(string_agg(left(kind, 1), '' ORDER BY seq), '') FROM oa.alerts",
    )
}

#[test]
fn another_cause_is_reported_once_while_the_incident_goes_on() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    for (kind, reported) in [
        (Some(ErrorKind::Http5xx), "p"),
        (Some(ErrorKind::Http5xx), "p"),
        // The same site, as ill as before.
        (Some(ErrorKind::Timeout), "p"),
        (Some(ErrorKind::Network), "p"),
        (Some(ErrorKind::Auth), "pp"),
        (Some(ErrorKind::Http5xx), "pp"),
        (Some(ErrorKind::Auth), "pp"),
        (Some(ErrorKind::Dns), "ppp"),
    ] {
        assert_eq!(outcome_of(&mut client, kind), reported, "{kind:?}");
    }
    client
        .batch_execute("UPDATE oa.incidents SET acknowledged_by = 'me', acknowledged_at = now()")
        .unwrap();
    for (kind, reported) in [
        (Some(ErrorKind::Tls), "ppp"),
        (Some(ErrorKind::Shape), "pppp"),
        (Some(ErrorKind::Shape), "pppp"),
        (None, "ppppr"),
        (None, "ppppr"),
        (Some(ErrorKind::Http5xx), "pppprp"),
        (Some(ErrorKind::Auth), "pppprpp"),
    ] {
        assert_eq!(
            outcome_of(&mut client, kind),
            reported,
            "{kind:?}, acknowledged"
        );
    }
}

#[test]
fn many_programs_that_report_at_once_report_once() {
    let server = Postgres::start();
    schema::upgrade(&mut server.connect()).unwrap();
    let at_once = |over: bool| {
        let mut clients: Vec<Client> = (0..16).map(|_| server.connect()).collect();
        let together = Barrier::new(clients.len());
        std::thread::scope(|scope| {
            for client in &mut clients {
                let together = &together;
                scope.spawn(move || {
                    let problem = Event::Machine {
                        fault: Fault::SpoolFull,
                        host: "h".to_owned(),
                        task: None,
                        reason: "x".to_owned(),
                        schema: None,
                        at: Utc::now(),
                    };
                    together.wait();
                    if over {
                        incidents::resolve_machine(client, Fault::SpoolFull, "h", None).unwrap();
                    } else {
                        incidents::raise(client, problem, &policy()).unwrap();
                    }
                });
            }
        });
        let query = "SELECT string_agg(kind, ' ' ORDER BY seq) FROM oa.alerts";
        one::<String>(&mut server.connect(), query)
    };
    assert_eq!(at_once(false), "problem");
    assert_eq!(at_once(true), "problem recovery");
    assert_eq!(at_once(false), "problem recovery problem");
}

#[test]
fn texts_of_others_are_stored_short_and_without_what_steers_a_terminal() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    let hostile = format!(
        "\u{1b}]0;owned\u{7}\u{1b}[31mno\u{0}\r{}",
        "中".repeat(1 << 20)
    );
    let start = start("t");
    let mut outcome = Outcome::bare(start.clone(), Status::Failed, Utc::now());
    let error = RunError::new(ErrorKind::Shape, &hostile);
    outcome.attempts = vec![Attempt {
        number: 1,
        started_at: start.started_at,
        finished_at: Utc::now(),
        outcome: Status::Failed,
        error: Some(error.clone()),
    }];
    outcome.error = Some(error);
    outcome.rejects = vec![Reject {
        target: None,
        source_key: None,
        field: None,
        reason: hostile.clone(),
        record: json!({"v": hostile}),
    }];
    outcome
        .details
        .insert("output".to_owned(), json!(["\u{1b}[1mbold\u{1b}[0m"]));
    store::apply(&mut client, &outcome, &policy()).unwrap();
    for text in [
        "error_message FROM oa.runs",
        "error_message FROM oa.attempts",
        "last_error FROM oa.tasks",
        "reason FROM oa.rejects",
        "event #>> '{error,message}' FROM oa.alerts",
        "details::text FROM oa.runs",
    ] {
        let stored: String = one(&mut client, &format!("SELECT {text}"));
        assert!(stored.len() <= 4096, "{text}: {} bytes", stored.len());
        assert!(
            !stored.contains(|c: char| c.is_control() && c != '\n'),
            "{text}: {stored:?}"
        );
        assert!(!stored.contains("u001b"), "{text}: {stored:?}");
    }
    let stored: String = one(&mut client, "SELECT error_message FROM oa.runs");
    assert!(
        stored.starts_with("no\u{fffd}\n中") && stored.ends_with(" more bytes)"),
        "{stored}"
    );
    assert!(
        one::<i64>(
            &mut client,
            "SELECT length(record ->> 'v')::bigint FROM oa.rejects WHERE raw IS NULL UNION ALL SELECT length(raw)::bigint FROM oa.rejects WHERE record IS NULL"
        ) > 1 << 20,
        "the record itself is whole"
    );
}

#[test]
fn an_upgrade_makes_incidents_of_alerts_and_keeps_who_has_acknowledged_them() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::create_at(&mut client, 17).unwrap();
    client
        .batch_execute(
            "INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at, finished_at, error_kind)
             VALUES (oa.uuid_floor(now()), 'oa-crawl', 'a', 'cron', 'h', 'm', 'b', 1, 1, '0', 'failed', now(), now(), 'timeout');
             INSERT INTO oa.alerts (id, fingerprint, rule, task, run_id, severity, kind, title, body, created_at)
             SELECT gen_random_uuid(), fingerprint, 'run_failed', right(fingerprint, 1), CASE WHEN fingerprint = 'run:a' THEN (SELECT id FROM oa.runs) END,
                    'critical', kind, '【故障】' || fingerprint, 'body', now() - make_interval(hours => ago)
             FROM (VALUES ('run:a', 'problem', 9), ('run:a', 'recovery', 8), ('run:a', 'problem', 3), ('run:a', 'problem', 2),
                          ('run:b', 'problem', 5), ('run:b', 'recovery', 4), ('x', 'message', 1)) v (fingerprint, kind, ago);
             INSERT INTO oa.acks (fingerprint, by, note) VALUES ('run:a', 'wang', 'on it'), ('run:gone', 'li', 'of a task that is no more')",
        )
        .unwrap();
    schema::upgrade(&mut client).unwrap();
    let query = "SELECT string_agg(concat_ws(' ', fingerprint, CASE WHEN resolved_at IS NULL THEN 'open' ELSE 'resolved' END,
                   round(extract(epoch FROM now() - opened_at) / 3600)::int, round(extract(epoch FROM now() - notified_at) / 3600)::int,
                   acknowledged_by, causes::text), ', ' ORDER BY fingerprint) FROM oa.incidents";
    assert_eq!(
        one::<String>(&mut client, query),
        "run:a open 3 2 wang {http_5xx}, run:b resolved 5 5 {}, run:gone resolved 0 0 li {}"
    );
    // It goes on as it was: acknowledged, and another cause that does not heal by itself is news all the same.
    for (kind, alerts) in [(ErrorKind::Network, 7), (ErrorKind::Auth, 8)] {
        let mut outcome = Outcome::bare(start("a"), Status::Failed, Utc::now());
        outcome.error = Some(RunError::new(kind, "x"));
        store::apply(&mut client, &outcome, &policy()).unwrap();
        assert_eq!(
            one::<i64>(&mut client, "SELECT count(*) FROM oa.alerts"),
            alerts
        );
    }
    // Alerts of the version before say what they said.
    let row = client
        .query_one(
            "SELECT event, title, body FROM oa.alerts WHERE fingerprint = 'x'",
            &[],
        )
        .unwrap();
    assert_eq!(
        incidents::event_of(&row, 0, "message", "x"),
        Event::Message {
            title: "【故障】x".to_owned(),
            body: "body".to_owned()
        }
    );
}

#[test]
fn an_upgrade_after_downtime_owes_all_that_was_due_since() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::create_at(&mut client, 18).unwrap();
    client
        .batch_execute(
            "INSERT INTO oa.tasks (name, tool, title, schedule, next_due_at, expected_since)
             SELECT n, 'oa-crawl', n, '0 12 * * *', now() - make_interval(days => ago), now() - interval '30 days'
             FROM (VALUES ('off', 3), ('killed', 3), ('ran', 3), ('fine', -1)) v (n, ago);
             INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at, finished_at, due_at)
             SELECT gen_random_uuid(), 'oa-crawl', name, 'due', 'h', 'm', 'b', 1, 1, '0', CASE name WHEN 'ran' THEN 'success' ELSE 'abandoned' END,
                    next_due_at, next_due_at, next_due_at
             FROM oa.tasks WHERE name IN ('killed', 'ran')",
        )
        .unwrap();
    schema::upgrade(&mut client).unwrap();
    let query = "SELECT string_agg(concat_ws(' ', t.name, t.collects, s.state, d.state, s.due_at = t.next_due_at, t.slots_until = t.next_due_at), ', ' ORDER BY t.name)
                 FROM oa.tasks t LEFT JOIN oa.slots s ON s.task = t.name LEFT JOIN oa.days d ON d.task = t.name";
    assert_eq!(
        one::<String>(&mut client, query),
        "fine t f, killed t open pending t t, off t open pending t t, ran t f"
    );
}

#[test]
fn an_alert_that_an_earlier_version_has_put_into_the_spool_is_drained_with_its_text() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let id = uuid::Uuid::now_v7();
    let stored = json!({"alert": {
        "id": id, "fingerprint": "run:t", "rule": "run_failed", "task": "t", "run_id": null, "severity": "critical", "kind": "problem",
        "title": "【故障】t 采集失败", "body": "**【故障】t 采集失败**\n", "created_at": Utc::now(),
    }});
    let payload = zstd::encode_all(stored.to_string().as_bytes(), 3).unwrap();
    let db = rusqlite::Connection::open(folder.path().join("spool.db")).unwrap();
    db.execute_batch(
        "CREATE TABLE entries (seq INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT, kind TEXT NOT NULL, task TEXT, fingerprint TEXT,
           created_at INTEGER NOT NULL, error TEXT, payload BLOB NOT NULL) STRICT;
         CREATE TABLE told (fingerprint TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    )
    .unwrap();
    let now = Utc::now().timestamp_millis();
    db.execute(
        "INSERT INTO entries (kind, fingerprint, created_at, payload) VALUES ('alert', 'run:t', ?1, ?2)",
        rusqlite::params![now, payload],
    )
    .unwrap();
    db.execute("INSERT INTO told VALUES ('spool_full:h', ?1)", [now])
        .unwrap();
    drop(db);
    let mut spool = Spool::open(&state, 1 << 20).unwrap();
    let full = Event::Machine {
        fault: Fault::SpoolFull,
        host: "h".to_owned(),
        task: None,
        reason: "x".to_owned(),
        schema: None,
        at: Utc::now(),
    };
    spool.raise(full, policy().repeat).unwrap();
    assert_eq!(spool.pending().unwrap().entries, 1, "people know of it");
    let drained = spool
        .drain(&mut client, chrono::TimeDelta::zero(), &policy())
        .unwrap();
    assert_eq!((drained.applied, drained.stuck.len()), (1, 0));
    let row = client
        .query_one(
            "SELECT event, title, body FROM oa.alerts WHERE id = $1",
            &[&id],
        )
        .unwrap();
    let event = incidents::event_of(&row, 0, "run_failed", "run:t");
    assert!(
        matches!(&event, Event::Message { title, .. } if title == "【故障】t 采集失败"),
        "{event:?}"
    );
    assert_eq!(
        one::<i64>(
            &mut client,
            "SELECT count(*) FROM oa.incidents WHERE fingerprint = 'run:t' AND resolved_at IS NULL"
        ),
        1
    );
}

#[test]
fn rows_of_which_none_is_taken_hold_nothing_back_in_the_spool() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    service::create_missing(&mut client).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let mut spool = Spool::open(&state, 1 << 20).unwrap();
    let row = |i: i32| {
        let code = format!("{i} is far too long for a column of twenty characters");
        vec![json!(code), json!("2025-12-01"), json!(i)]
    };
    let mut refused = Outcome::bare(start("t"), Status::Success, Utc::now());
    refused.batches.push(batch((0..1100).map(row).collect()));
    let next = Outcome::bare(start("t"), Status::Success, Utc::now());
    let waiting = [refused, next].map(|outcome| Record::Outcome(Box::new(outcome)));
    spool.put(&waiting).unwrap();
    let drained = spool
        .drain(&mut client, chrono::TimeDelta::zero(), &policy())
        .unwrap();
    assert_eq!((drained.applied, drained.stuck.len()), (2, 0));
    let runs = "SELECT string_agg(status, ' ' ORDER BY seq) FROM oa.runs";
    assert_eq!(one::<String>(&mut client, runs), "failed success");
}

#[test]
fn a_failure_that_waited_in_the_spool_does_not_reopen_what_another_machine_has_put_right() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let mut spool = Spool::open(&state, 1 << 20).unwrap();
    let mut failed = Outcome::bare(start("t"), Status::Failed, Utc::now());
    failed.error = Some(RunError::new(ErrorKind::Auth, "x"));
    failed.start.started_at -= chrono::TimeDelta::minutes(10);
    failed.finished_at -= chrono::TimeDelta::minutes(9);
    failed.alerted = true;
    let problem = incidents::problem(&failed, &store::TaskState::default()).unwrap();
    let alert = Alert::new(problem);
    spool
        .put(&[
            Record::Outcome(Box::new(failed.clone())),
            Record::Alert(alert),
        ])
        .unwrap();
    let success = Outcome::bare(start("t"), Status::Success, Utc::now());
    store::apply(&mut client, &success, &policy()).unwrap();
    let drained = spool
        .drain(&mut client, chrono::TimeDelta::zero(), &policy())
        .unwrap();
    assert_eq!((drained.applied, drained.stuck.len()), (2, 0));
    assert_eq!(
        one::<String>(
            &mut client,
            "SELECT string_agg(kind, ' ' ORDER BY seq) FROM oa.alerts"
        ),
        "problem recovery",
        "people hear that it failed, and that it is over"
    );
    assert_eq!(
        one::<i64>(
            &mut client,
            "SELECT count(*) FROM oa.incidents WHERE resolved_at IS NULL"
        ),
        0
    );
    // What fails now is an incident.
    failed.start = start("t");
    failed.finished_at = Utc::now();
    let alert = Alert::new(incidents::problem(&failed, &store::TaskState::default()).unwrap());
    spool
        .put(&[Record::Outcome(Box::new(failed)), Record::Alert(alert)])
        .unwrap();
    spool
        .drain(&mut client, chrono::TimeDelta::zero(), &policy())
        .unwrap();
    assert_eq!(
        one::<i64>(
            &mut client,
            "SELECT count(*) FROM oa.incidents WHERE resolved_at IS NULL"
        ),
        1
    );
}

#[test]
fn an_incident_that_opens_anew_is_acknowledged_by_nobody() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::create_at(&mut client, 17).unwrap();
    client
        .batch_execute("INSERT INTO oa.acks (fingerprint, by) VALUES ('run:t', 'who has left')")
        .unwrap();
    schema::upgrade(&mut client).unwrap();
    let mut outcome = Outcome::bare(start("t"), Status::Failed, Utc::now());
    outcome.error = Some(RunError::new(ErrorKind::Auth, "x"));
    store::apply(&mut client, &outcome, &policy()).unwrap();
    assert!(one::<bool>(
        &mut client,
        "SELECT resolved_at IS NULL AND acknowledged_by IS NULL AND acknowledged_at IS NULL FROM oa.incidents"
    ));
}

#[test]
fn an_incident_whose_alert_is_gone_still_has_a_title() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    let row = client
        .query_one("SELECT NULL::jsonb, NULL::text, NULL::text", &[])
        .unwrap();
    let Event::Message { title, .. } = incidents::event_of(&row, 0, "run_failed", "run:t") else {
        panic!("not a message");
    };
    assert_eq!(title, "run_failed (run:t)");
}

#[test]
fn who_acknowledges_all_incidents_of_a_task_takes_their_locks_in_one_order() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    client
        .batch_execute(
            "INSERT INTO oa.incidents (fingerprint, rule, task, severity)
             VALUES ('run_missed:t', 'run_missed', 't', 'critical'), ('partial_streak:t', 'partial_streak', 't', 'critical')",
        )
        .unwrap();
    let lock = "SELECT FROM oa.incidents WHERE fingerprint = $1 FOR UPDATE NOWAIT";
    let mut other = server.connect();
    let mut held = other.transaction().unwrap();
    held.execute(lock, &[&"partial_streak:t"]).unwrap();
    std::thread::scope(|threads| {
        let acknowledging = threads
            .spawn(|| incidents::acknowledge(&mut server.connect(), "t", "wang", "").unwrap());
        oa_testkit::wait_until(
            "it waits for the first lock",
            Duration::from_secs(20),
            || {
                one(
                    &mut client,
                    "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)",
                )
            },
        );
        let second = held.execute(lock, &[&"run_missed:t"]);
        drop(held);
        assert_eq!(acknowledging.join().unwrap().len(), 2);
        second.expect("nobody has the second lock before the first");
    });
}

#[test]
fn one_alert_in_the_spool_that_cannot_be_read_keeps_nobody_from_hearing_of_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(&StateDir::open(folder.path()).unwrap(), 1 << 20).unwrap();
    let newer = json!({"alert": {
        "id": uuid::Uuid::now_v7(), "fingerprint": "brand:new", "rule": "brand", "task": null, "run_id": null, "severity": "critical",
        "kind": "problem", "event": {"event": "of_a_newer_version", "v": 2}, "created_at": Utc::now(),
    }});
    let db = rusqlite::Connection::open(folder.path().join("spool.db")).unwrap();
    for payload in [
        b"damaged".to_vec(),
        zstd::encode_all(newer.to_string().as_bytes(), 3).unwrap(),
    ] {
        db.execute(
            "INSERT INTO entries (kind, fingerprint, created_at, payload) VALUES ('alert', 'x', 0, ?1)",
            [payload],
        )
        .unwrap();
    }
    let message = Event::Message {
        title: "t".to_owned(),
        body: "b".to_owned(),
    };
    spool.put(&[Record::Alert(Alert::new(message))]).unwrap();
    let alerts = spool.alerts().unwrap();
    let titles = alerts.iter().map(|alert| match &alert.event {
        Event::Message { title, .. } => title.as_str(),
        _ => "",
    });
    assert_eq!(titles.collect::<Vec<_>>(), ["brand (brand:new)", "t"]);
}

#[test]
fn a_channel_that_was_paused_by_a_clock_that_was_ahead_is_not_paused() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(&StateDir::open(folder.path()).unwrap(), 1 << 20).unwrap();
    let now = Utc::now();
    let minutes = |n| now + TimeDelta::minutes(n);
    spool.pause_channel("ops", minutes(8 * 60)).unwrap();
    assert_eq!(spool.channel_paused("ops", now).unwrap(), None);
    spool.pause_channel("ops", minutes(10)).unwrap();
    spool.pause_channel("ops", minutes(5)).unwrap();
    assert!(spool.channel_paused("ops", minutes(9)).unwrap().is_some());
    assert_eq!(spool.channel_paused("ops", minutes(11)).unwrap(), None);
}
