//! Whatever changes a task's runs, days or slots locks the task first, and several tasks in the order of their names, so that no two programs wait
//! for each other.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::HashSet;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use chrono_tz::Asia::Shanghai;
use oa_core::journal::abandoned;
use oa_core::journal::due::{self, Scheduled, Times};
use oa_core::journal::slots::{self, Decision, Unmade};
use oa_core::journal::store;
use oa_core::model::run::{Attempt, RunStart, Status, Trigger};
use oa_core::pg::schema;
use oa_core::schedule::Calendar;
use oa_testkit::Postgres;
use postgres::Client;

use crate::common::policy;

#[test]
fn whoever_waits_for_a_task_has_nothing_that_its_run_waits_for() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    let lease = Duration::from_secs(60);
    let run = RunStart::now("oa-test", "0", "t", "t", Trigger::Manual, lease);
    store::begin(&mut client, &run).unwrap();
    client
        .batch_execute(
            "UPDATE oa.runs SET pid_started = 1;
             INSERT INTO oa.slots (task, due_at, day, state) VALUES ('t', now() - interval '2 hours', current_date, 'open'), ('t', now() + interval '1 hour', current_date, 'open');
             INSERT INTO oa.days (task, day, expected, state) VALUES ('t', current_date, true, 'pending')",
        )
        .unwrap();
    let at = client.query_one("SELECT min(due_at) FROM oa.slots", &[]);
    let close = Decision {
        close: vec![(at.unwrap().get(0), Unmade::Missed, "off".to_owned())],
        ..Decision::default()
    };
    let calendar = Calendar::shipped();
    let times = Times {
        zone: Shanghai,
        calendar: &calendar,
    };
    let attempt = Attempt {
        number: 1,
        started_at: Utc::now(),
        finished_at: Utc::now(),
        outcome: Status::Failed,
        error: None,
    };
    let bare = |_: &RunStart| abandoned::LeftByRun::default();
    type Work<'a> = Box<dyn Fn(&mut Client) + Sync + 'a>;
    let work: [(&str, Work<'_>); 4] = [
        (
            "a try",
            Box::new(|c| store::record_attempt(c, &run, &attempt).unwrap()),
        ),
        (
            "the end of a slot",
            Box::new(|c| {
                slots::close(c, "t", &close, true).unwrap();
            }),
        ),
        (
            "another schedule",
            Box::new(|c| {
                let task = Scheduled::program("t", "t", "0 9 * * *");
                due::register(c, "oa-test", &[task], times).unwrap();
            }),
        ),
        (
            "the end of a run that was killed",
            Box::new(|c| {
                let marked = abandoned::mark_abandoned(c, &HashSet::new(), bare, &policy());
                assert_eq!(marked.unwrap(), [run.id]);
            }),
        ),
    ];
    let mut other = server.connect();
    for (what, work) in &work {
        // As whoever stores an outcome: the task, and then what belongs to it.
        let mut held = other.transaction().unwrap();
        held.execute("SELECT FROM oa.tasks FOR UPDATE", &[])
            .unwrap();
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| work(&mut server.connect()));
            oa_testkit::wait_until("it waits for the task", Duration::from_secs(20), || {
                let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)";
                client.query_one(waits, &[]).unwrap().get(0)
            });
            // What nobody can store now, the check leaves to the next one.
            slots::close_unmade(&mut client, TimeDelta::minutes(10)).unwrap();
            for table in ["runs", "slots", "days", "incidents"] {
                let lock = format!("SELECT FROM oa.{table} FOR UPDATE NOWAIT");
                held.execute(&lock, &[])
                    .unwrap_or_else(|e| panic!("{what} has {table}: {e}"));
            }
            drop(held);
            waiting.join().unwrap();
        });
    }
}

#[test]
fn a_clock_that_has_gone_back_locks_tasks_in_the_order_in_which_all_do() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    client
        .batch_execute(
            "INSERT INTO oa.tasks (name, tool, lease_until) SELECT t, 'oa-test', now() + interval '1 day' FROM unnest(ARRAY['b', 'a']) t;
             UPDATE oa.clock SET latest = now() + interval '3 days'",
        )
        .unwrap();
    let mut other = server.connect();
    let mut held = other.transaction().unwrap();
    let lock = "SELECT FROM oa.tasks WHERE name = $1 FOR UPDATE NOWAIT";
    held.execute(lock, &[&"a"]).unwrap();
    std::thread::scope(|threads| {
        let waiting = threads.spawn(|| {
            let mut client = server.connect();
            client.batch_execute("SELECT oa.watch_clock()").unwrap();
        });
        oa_testkit::wait_until("it waits for the task", Duration::from_secs(20), || {
            let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)";
            client.query_one(waits, &[]).unwrap().get(0)
        });
        held.execute(lock, &[&"b"]).unwrap();
        drop(held);
        waiting.join().unwrap();
    });
    let noted = client.query_one("SELECT count(*) FROM oa.clock_steps", &[]);
    assert_eq!(noted.unwrap().get::<_, i64>(0), 1);
}
