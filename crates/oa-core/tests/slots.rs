//! Which run stands for which slot, and what closes a slot for which no run comes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use oa_core::journal::history;
use oa_core::journal::slots::{self, Decision, Unmade};
use oa_core::journal::store;
use oa_core::model::run::{Outcome, RunStart, Status, Trigger};
use oa_core::pg::schema;
use oa_testkit::Postgres;
use postgres::Client;

use crate::common::policy;

/// Three slots of one day, due three, two and one hours ago; its content came two and a half hours ago.
fn afternoon(client: &mut Client) -> NaiveDate {
    client
        .batch_execute(
            "INSERT INTO oa.tasks (name, tool, title, collects) VALUES ('t', 'oa-test', 't', true);
             INSERT INTO oa.slots (task, due_at, day) SELECT 't', now() - make_interval(hours => h), '2026-11-20' FROM generate_series(1, 3) h;
             INSERT INTO oa.days (task, day, expected, state, run_id, collected_at)
             VALUES ('t', '2026-11-20', true, 'complete', gen_random_uuid(), now() - interval '150 minutes')",
        )
        .unwrap();
    NaiveDate::from_ymd_opt(2026, 11, 20).unwrap()
}

fn filled(client: &mut Client) -> String {
    let query = "SELECT string_agg(state || ' ' || (filled_by IS NOT NULL), ', ' ORDER BY due_at) FROM oa.slots";
    client.query_one(query, &[]).unwrap().get(0)
}

#[test]
fn what_was_collected_before_a_slot_was_due_does_not_fill_it() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    afternoon(&mut client);
    let rows = client.query("SELECT due_at FROM oa.slots", &[]).unwrap();
    let close = rows
        .iter()
        .map(|r| {
            let due_at: DateTime<Utc> = r.get(0);
            (due_at, Unmade::Missed, "off".to_owned())
        })
        .collect();
    let decision = Decision {
        close,
        ..Decision::default()
    };
    assert!(slots::close(&mut client, "t", &decision, true).unwrap());
    assert_eq!(
        filled(&mut client),
        "missed true, missed false, missed false"
    );
    let row = client.query_one("SELECT state FROM oa.days", &[]).unwrap();
    assert_eq!(row.get::<_, &str>(0), "partial");
}

/// Whoever plans for all sources is not kept by one of them.
#[test]
fn slots_that_somebody_has_locked_are_closed_the_next_time() {
    let server = Postgres::start();
    let (mut client, mut other) = (server.connect(), server.connect());
    schema::upgrade(&mut client).unwrap();
    afternoon(&mut client);
    let row = client.query_one("SELECT max(due_at) FROM oa.slots", &[]);
    let decision = Decision {
        close: vec![(row.unwrap().get(0), Unmade::Missed, "off".to_owned())],
        ..Decision::default()
    };
    for lock in [
        "SELECT FROM oa.slots FOR UPDATE",
        "SELECT FROM oa.tasks FOR UPDATE",
        "LOCK TABLE oa.tasks IN EXCLUSIVE MODE",
    ] {
        let mut held = other.transaction().unwrap();
        held.execute(lock, &[]).unwrap();
        for waits in [true, false] {
            let done = slots::close(&mut client, "t", &decision, waits).unwrap();
            assert!(!done, "{lock}");
        }
        held.rollback().unwrap();
    }
    assert!(slots::close(&mut client, "t", &decision, false).unwrap());
}

#[test]
fn a_run_that_waited_in_a_spool_does_not_fill_what_was_due_after_it() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    let day = afternoon(&mut client);
    client
        .batch_execute("UPDATE oa.slots SET state = 'missed', closed_at = now(), reason = 'off'")
        .unwrap();
    let mut start = RunStart::now(
        "oa-test",
        "0",
        "t",
        "t",
        Trigger::Manual,
        Duration::from_secs(60),
    );
    start.started_at = Utc::now() - TimeDelta::minutes(150);
    start.clock_offset = Some(0.0);
    start.day = Some(day);
    let finished_at = start.started_at + TimeDelta::minutes(1);
    let outcome = Outcome::bare(start, Status::Success, finished_at);
    store::apply(&mut client, &outcome, &policy()).unwrap();
    assert_eq!(
        filled(&mut client),
        "missed true, missed false, missed false"
    );
    // What is missing of the day is what a backfill is for.
    client
        .batch_execute(
            "INSERT INTO oa.quality (run_id, task, day, collected, duplicates, score) SELECT id, task, '2026-11-20', 1, 0, 100 FROM oa.runs",
        )
        .unwrap();
    let there = |client: &mut Client| history::collected_days(client, "t", day, day).unwrap();
    assert!(there(&mut client).is_empty());
    client
        .batch_execute("UPDATE oa.slots SET filled_by = gen_random_uuid(), filled_at = now()")
        .unwrap();
    assert_eq!(there(&mut client), [day]);
}

#[test]
fn after_days_without_any_note_what_is_open_waits_for_run_due() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    afternoon(&mut client);
    client
        .batch_execute(
            "UPDATE oa.slots SET state = 'done', run_id = gen_random_uuid(), closed_at = now() WHERE due_at = (SELECT max(due_at) FROM oa.slots);
             INSERT INTO oa.starts (what, host, day, first_at, last_at) SELECT w, 'h', now()::date - 3, now() - interval '3 days', now() - interval '3 days'
             FROM unnest(ARRAY['check', 'due']) w;
             INSERT INTO oa.starts (what, host, day, gap_from, gap_to) VALUES ('check', 'h', now()::date, now() - interval '3 days', now())",
        )
        .unwrap();
    slots::close_unmade(&mut client, TimeDelta::minutes(10)).unwrap();
    assert_eq!(filled(&mut client), "open false, open false, done false");
    client
        .batch_execute("UPDATE oa.starts SET gap_from = NULL, gap_to = NULL")
        .unwrap();
    slots::close_unmade(&mut client, TimeDelta::minutes(10)).unwrap();
    assert_eq!(
        filled(&mut client),
        "missed false, missed false, done false"
    );
}

#[test]
fn what_a_clock_that_was_ahead_took_for_past_is_owed_when_it_comes() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    client
        .batch_execute(
            "INSERT INTO oa.tasks (name, tool, title, collects) VALUES ('t', 'oa-test', 't', true);
             INSERT INTO oa.slots (task, due_at, day, owed) VALUES ('t', now() + interval '1 day', now()::date + 1, false);
             UPDATE oa.clock SET latest = now() + interval '2 days';
             SELECT oa.watch_clock()",
        )
        .unwrap();
    let owed = client.query_one("SELECT owed FROM oa.slots", &[]).unwrap();
    assert!(owed.get::<_, bool>(0));
}

#[test]
fn what_ran_while_the_servers_clock_was_wrong_has_run_and_was_not_reported_in_the_future() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    // Daily, an hour ago the last time. A server that was behind by an hour, one that was ahead by a month (from before the run, and during it),
    // and a machine that was by a day. A run that names no slot, as the last one was closed then; and one that began before it was due.
    client
        .batch_execute(
            "INSERT INTO oa.tasks (name, tool, title) SELECT t, 'oa-test', t FROM unnest(ARRAY['never', 'behind', 'ahead', 'before', 'machine', 'none', 'early']) t;
             INSERT INTO oa.slots (task, due_at, day, state, closed_at, run_id, reported_at)
             SELECT name, now() - interval '25 hours', current_date - 1, 'done', now(), gen_random_uuid(), NULL FROM oa.tasks
             UNION ALL SELECT name, now() - interval '1 hour', current_date, 'open', NULL, NULL, now() + interval '1 month' FROM oa.tasks
             UNION ALL SELECT name, now() + interval '23 hours', current_date + 1, 'open', NULL, NULL, NULL FROM oa.tasks;
             INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at, finished_at, due_at)
             SELECT CASE task WHEN 'before' THEN oa.uuid_floor(due_at + interval '5 minutes') ELSE gen_random_uuid() END, 'oa-test', task, 'cron', 'h',
                    '', '', 1, 1, '', 'success', due_at + after, due_at + after, due_at + names
             FROM oa.slots
             JOIN (VALUES ('behind', interval '-1 hour', interval '0'), ('ahead', '5 minutes', '1 month'), ('before', '1 month', '1 month'), ('machine', '-24 hours', '0'),
                           ('none', '5 minutes', NULL), ('early', '-30 minutes', NULL))
               v (task, after, names) USING (task) WHERE day = current_date",
        )
        .unwrap();
    slots::close_unmade(&mut client, TimeDelta::minutes(10)).unwrap();
    let slots = |client: &mut Client, columns: &str| -> String {
        let query = format!(
            "SELECT string_agg(task || ' ' || {columns}, ', ' ORDER BY task, due_at) FROM oa.slots WHERE due_at > now() - interval '2 hours' AND day <= current_date + 1
               AND (day = current_date OR task = 'never')"
        );
        client.query_one(&query, &[]).unwrap().get(0)
    };
    assert_eq!(
        slots(&mut client, "state || ' ' || (run_id IS NOT NULL)"),
        "ahead done true, before done true, behind done true, early missed false, machine missed false, never missed false, never open false, none done true"
    );
    let (now, day) = (Utc::now(), TimeDelta::days(1));
    slots::reported(&mut client, "never", (now - day, now + day)).unwrap();
    client
        .batch_execute("DELETE FROM oa.slots WHERE task <> 'never'")
        .unwrap();
    assert_eq!(
        slots(&mut client, "coalesce(reported_at <= now(), false)"),
        "never true, never false"
    );
}

#[test]
fn a_source_that_collected_another_day_while_the_clock_was_wrong_has_missed_its_own() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    // A server that was ahead by a month, and one that was behind by an hour, on the same day. Nothing collects it once more.
    client
        .batch_execute(
            "INSERT INTO oa.tasks (name, tool, title, collects) SELECT t, 'oa-test', t, true FROM unnest(ARRAY['ahead', 'behind']) t;
             INSERT INTO oa.slots (task, due_at, day, state, closed_at, run_id)
             SELECT name, now() - interval '25 hours', current_date - 1, 'open', NULL, NULL::uuid FROM oa.tasks
             UNION ALL SELECT name, now() - interval '1 hour', current_date, 'done', now(), gen_random_uuid() FROM oa.tasks;
             INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at, finished_at, due_at)
             SELECT gen_random_uuid(), 'oa-test', task, 'cron', 'h', '', '', 1, 1, '', 'success', due_at + after, due_at + after, due_at + names
             FROM oa.slots JOIN (VALUES ('ahead', interval '5 minutes', interval '1 month'), ('behind', '-1 hour', '0')) v (task, after, names) USING (task)
             WHERE state = 'open';
             INSERT INTO oa.days (task, day, expected, state) VALUES ('ahead', current_date - 1, true, 'pending'), ('behind', current_date - 1, true, 'complete')",
        )
        .unwrap();
    slots::close_unmade(&mut client, TimeDelta::minutes(10)).unwrap();
    let found = "SELECT string_agg(task || ' ' || s.state || ' ' || d.state, ', ' ORDER BY task) FROM oa.slots s JOIN oa.days d USING (task, day)";
    let found: String = client.query_one(found, &[]).unwrap().get(0);
    assert_eq!(found, "ahead missed missing, behind done complete");
}
