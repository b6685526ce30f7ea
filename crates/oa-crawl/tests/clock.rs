//! A clock that was wrong, of a machine or of the server, closes no due time and hides no failure.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use chrono::TimeDelta;
use common::{Done, Service};

/// What makes programs see another time (libfaketime); nothing for `"0"`.
fn clock(offset: &str) -> Vec<(String, String)> {
    if offset == "0" {
        return Vec::new();
    }
    let library = fs::read_dir("/usr/lib")
        .unwrap()
        .flatten()
        .map(|e| e.path().join("faketime/libfaketime.so.1"))
        .find(|p| p.exists())
        .unwrap_or_else(|| PathBuf::from("/usr/lib/faketime/libfaketime.so.1"));
    assert!(
        library.exists(),
        "libfaketime is not installed: scripts/setup"
    );
    [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME", offset.to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("NO_FAKE_STAT", "1".to_owned()),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .to_vec()
}

/// A source that is due daily at the present time minus half an hour, and fails while the file `fail` is there.
fn tick(service: &Service) {
    let due = common::noon() - TimeDelta::minutes(30);
    let folder = service.dir.path().join("sources");
    fs::create_dir_all(&folder).unwrap();
    let fail = service.dir.path().join("fail");
    let text = format!(
        r#"
name = "tick"
title = "定时"
provider = "local"
schedule = "{} * * *"
fetch = {{ kind = "command", command = ["sh", "-c", 'test ! -e {} && echo "{{\"code\": \"ZZ\", \"name\": \"$OA_DATE\"}}"'] }}
store = {{ table = "commodities", unique = ["code"] }}
fields = [
  {{ column = "code", from = "code", type = "text", required = true }},
  {{ column = "name", from = "name", type = "text", required = true }},
]
"#,
        due.format("%M %H"),
        fail.display()
    );
    fs::write(folder.join("tick.toml"), text).unwrap();
    service.configure_at_noon(
        "enable = [\"tick\"]\nsources = \"sources\"\nretries = 0\n[alert]\noff = [\"clock_off\"]\n",
    );
}

fn at(service: &Service, offset: &str, arguments: &[&str]) -> Done {
    let mut command = service.command(arguments);
    command.envs(clock(offset)).output().unwrap().into()
}

fn due(service: &Service, offset: &str) {
    let done = at(service, offset, &["run", "--due", "--format", "json"]);
    assert_eq!(done.code, 0, "{done:?}");
}

fn other(service: &Service, program: &str, arguments: &[&str]) -> Done {
    let mut command = Command::new(oa_testkit::program(program));
    command
        .arg("--config")
        .arg(service.config())
        .args(arguments)
        .env("DATABASE_URL", &service.url);
    command.output().unwrap().into()
}

fn check(service: &Service) {
    let done = other(service, "oa-alert", &["check"]);
    assert!([0, 1, 2].contains(&done.code), "{done:?}");
}

fn runs(service: &Service) -> i64 {
    service.count("oa.runs WHERE task = 'tick'")
}

fn alerts(service: &Service, rule: &str) -> String {
    service.text(&format!(
        "SELECT coalesce(string_agg(kind, ' ' ORDER BY seq), '') FROM oa.alerts WHERE rule = '{rule}'"
    ))
}

#[test]
fn a_run_of_a_machine_whose_clock_was_wrong_closes_no_due_time_of_the_next_day() {
    // Three days ahead, eight hours ahead (a hardware clock in local time), a day behind; the server is right, a day before today.
    for machine in ["+2d", "-16h", "-2d"] {
        let mut service = Service::start();
        tick(&service);
        service.server.restart_with(&clock("-1d"));
        due(&service, machine);
        let done = at(&service, machine, &["run", "tick"]);
        assert_eq!(done.code, 0, "{machine}: {done:?}");
        let dated = "SELECT bool_and(now() - started_at < interval '5 minutes' AND started_at <= finished_at AND finished_at <= now())::text FROM oa.runs";
        assert_eq!(service.text(dated), "true", "{machine}");
        assert_eq!(
            service.text("SELECT (last_success_at <= now() AND next_due_at <= now() + interval '1 day')::text FROM oa.tasks WHERE name = 'tick'"),
            "true",
            "{machine}"
        );
        // A day later all clocks are right.
        service.server.restart_with(&[]);
        check(&service);
        assert_eq!(alerts(&service, "run_missed"), "problem", "{machine}");
        let health = other(&service, "oa-report", &["health", "--format", "json"]);
        assert!(!health.stdout.contains("\"healthy\""), "{health:?}");
        due(&service, "0");
        due(&service, "0");
        assert_eq!(runs(&service), 3, "{machine}: once");
        check(&service);
        assert_eq!(
            alerts(&service, "run_missed"),
            "problem recovery",
            "{machine}"
        );
    }
}

#[test]
fn due_runs_follow_the_servers_clock_whatever_the_machines_says() {
    for machine in ["+3d", "+8h", "-1d"] {
        let service = Service::start();
        tick(&service);
        due(&service, machine);
        assert_eq!(runs(&service), 1, "{machine}");
        let day = (common::noon() - TimeDelta::minutes(30)).date_naive();
        assert_eq!(
            service.text("SELECT name FROM commodities WHERE code = 'ZZ'"),
            day.to_string(),
            "{machine}: the day of the due time"
        );
        due(&service, machine);
        due(&service, "0");
        assert_eq!(runs(&service), 1, "{machine}: once");
    }
}

#[test]
fn what_the_server_took_while_its_own_clock_was_ahead_closes_no_due_time_later() {
    for machine in ["0", "-3d"] {
        let mut service = Service::start();
        tick(&service);
        // The clocks say what will be right in three days.
        due(&service, machine);
        assert_eq!(runs(&service), 1);
        // They are corrected.
        service.server.restart_with(&clock("-3d"));
        due(&service, "-3d");
        due(&service, "-3d");
        assert_eq!(runs(&service), 2, "{machine}: today's due time, once");
        // Three days later, when the wrong time has come.
        service.server.restart_with(&[]);
        due(&service, "0");
        due(&service, "0");
        assert_eq!(runs(&service), 3, "{machine}: and that day's");
    }
}

#[test]
fn a_clock_that_fell_back_leads_to_one_run_more_at_most() {
    let mut service = Service::start();
    tick(&service);
    due(&service, "0");
    // A dead battery: the machine with the server starts up a day behind.
    service.server.restart_with(&clock("-1d"));
    due(&service, "-1d");
    due(&service, "-1d");
    service.server.restart_with(&[]);
    for _ in 0..3 {
        due(&service, "0");
    }
    assert!((2..=3).contains(&runs(&service)), "{}", runs(&service));
    check(&service);
    assert_eq!(alerts(&service, "run_missed"), "");
}

#[test]
fn an_alert_of_the_future_hides_no_failure_and_sends_no_recovery_twice() {
    for machine in ["+3d", "+8h"] {
        let service = Service::start();
        tick(&service);
        let fail = service.dir.path().join("fail");
        fs::write(&fail, "").unwrap();
        assert_eq!(at(&service, machine, &["run", "tick"]).code, 1);
        assert_eq!(alerts(&service, "run_failed"), "problem");
        // The clock is right again.
        fs::remove_file(&fail).unwrap();
        for _ in 0..3 {
            assert_eq!(at(&service, "0", &["run", "tick"]).code, 0);
        }
        assert_eq!(alerts(&service, "run_failed"), "problem recovery");
        assert_eq!(service.count("oa.incidents WHERE resolved_at IS NULL"), 0);
        fs::write(&fail, "").unwrap();
        assert_eq!(at(&service, "0", &["run", "tick"]).code, 1);
        assert_eq!(
            alerts(&service, "run_failed"),
            "problem recovery problem",
            "{machine}"
        );
        assert_eq!(
            service.text(
                "SELECT (opened_at <= now())::text FROM oa.incidents WHERE resolved_at IS NULL"
            ),
            "true"
        );
    }
}

#[test]
fn an_alert_from_when_the_servers_clock_was_ahead_holds_nothing_back() {
    let mut service = Service::start();
    tick(&service);
    let fail = service.dir.path().join("fail");
    fs::write(&fail, "").unwrap();
    at(&service, "0", &["run", "tick"]);
    service.server.restart_with(&clock("-3d"));
    // It goes on failing: nobody knows how old that alert is, so it is reported again, once.
    at(&service, "-3d", &["run", "tick"]);
    at(&service, "-3d", &["run", "tick"]);
    assert_eq!(alerts(&service, "run_failed"), "problem problem");
    fs::remove_file(&fail).unwrap();
    at(&service, "-3d", &["run", "tick"]);
    at(&service, "-3d", &["run", "tick"]);
    assert_eq!(alerts(&service, "run_failed"), "problem problem recovery");
}

#[test]
fn a_run_that_waited_in_the_spool_is_not_of_the_future() {
    for machine in ["+3d", "-1d"] {
        let mut service = Service::start();
        tick(&service);
        service.server.stop();
        assert_eq!(at(&service, machine, &["run", "tick"]).code, 75);
        service.server.start_again();
        // The clock is right again when the spool drains.
        due(&service, "0");
        assert_eq!(
            service.text(
                "SELECT string_agg((started_at <= finished_at AND finished_at <= now())::text, ' ') FROM oa.runs WHERE task = 'tick'"
            ),
            "true true",
            "{machine}: it was about another day, so the run was still due"
        );
        assert_eq!(
            service
                .text("SELECT (last_success_at <= now())::text FROM oa.tasks WHERE name = 'tick'"),
            "true"
        );
    }
}

/// The day of the source's due time, half an hour ago.
fn its_day() -> String {
    let due = common::noon() - TimeDelta::minutes(30);
    due.date_naive().to_string()
}

#[test]
fn a_due_time_that_passed_while_a_clock_was_ahead_is_made_up_for_the_next_morning() {
    for spooled in [false, true] {
        let mut service = Service::start();
        tick(&service);
        service.server.restart_with(&clock("-2d"));
        due(&service, "-2d");
        assert_eq!(runs(&service), 1);
        // A clock says what will be right in two days, and leaves that as the next due time.
        if spooled {
            service.server.stop();
            let done = at(&service, "+2d", &["run", "--due"]);
            assert_eq!(done.code, 75, "{done:?}");
        } else {
            service.server.restart_with(&clock("+2d"));
            due(&service, "+2d");
        }
        // It is put right before the next due time, one has passed, and the site can still show its day.
        service.server.restart_with(&clock("+23h"));
        let before = runs(&service);
        due(&service, "+23h");
        due(&service, "+23h");
        let of_spool = i64::from(spooled);
        assert_eq!(runs(&service), before + 1 + of_spool, "spooled: {spooled}");
        assert_eq!(
            service.text("SELECT name FROM commodities WHERE code = 'ZZ'"),
            its_day(),
            "spooled: {spooled}"
        );
        assert_eq!(
            service.text("SELECT (next_due_at < now() + interval '1 day')::text FROM oa.tasks WHERE name = 'tick'"),
            "true"
        );
    }
}

#[test]
fn a_run_by_hand_is_for_the_servers_day() {
    for machine in ["+3d", "-3d"] {
        let service = Service::start();
        tick(&service);
        let before = common::noon().date_naive().to_string();
        let done = at(&service, machine, &["run", "tick"]);
        assert_eq!(done.code, 0, "{done:?}");
        let after = common::noon().date_naive().to_string();
        let day = service.text("SELECT name FROM commodities WHERE code = 'ZZ'");
        assert!(day == before || day == after, "{machine}: {day}");
        assert_eq!(
            service.count("oa.runs WHERE other_day"),
            0,
            "{machine}: it counts as today's"
        );
    }
}

#[test]
fn what_was_put_off_while_the_servers_clock_was_ahead_is_not_put_off_for_days() {
    let mut service = Service::start();
    tick(&service);
    service.server.restart_with(&clock("+3d"));
    due(&service, "+3d");
    check(&service);
    // As the programs write it.
    service
        .db()
        .batch_execute(
            "INSERT INTO oa.alerts (id, fingerprint, rule, severity, kind, title, body) VALUES (gen_random_uuid(), 'x', 'x', 'critical', 'problem', 'x', 'x');
             INSERT INTO oa.deliveries (alert_id, channel, state, tries, first_try_at, next_try_at, leased_until)
             SELECT id, c, s, 1, now(), now() + interval '10 minutes', now() + interval '2 minutes' FROM oa.alerts, (VALUES ('a', 'pending'), ('b', 'sending')) x (c, s)
             WHERE fingerprint = 'x';
             INSERT INTO oa.channels VALUES ('a', now() + interval '10 minutes') ON CONFLICT (name) DO UPDATE SET paused_until = excluded.paused_until;
             INSERT INTO oa.silences (task, by, until) VALUES ('tick', 'me', now() + interval '1 hour');
             UPDATE oa.tasks SET lease_until = now() + interval '5 minutes', lease_host = 'other', lease_run_id = gen_random_uuid() WHERE name = 'tick';
             INSERT INTO oa.drills (run_id, backup_id, repository, host, target, started_at, finished_at, ok)
             VALUES (gen_random_uuid(), 'b', 'r', 'h', now(), now() + interval '3 days', now() + interval '3 days', true)",
        )
        .unwrap();
    service.server.restart_with(&[]);
    due(&service, "0");
    service
        .db()
        .batch_execute(
            "INSERT INTO oa.drills (run_id, backup_id, repository, host, target, started_at, finished_at, ok)
             VALUES (gen_random_uuid(), 'b', 'r', 'h', now(), now(), now(), false)",
        )
        .unwrap();
    for (what, least) in [
        (
            "next_try_at FROM oa.deliveries WHERE alert_id IN (SELECT id FROM oa.alerts WHERE fingerprint = 'x')",
            10,
        ),
        (
            "leased_until FROM oa.deliveries WHERE state = 'sending'",
            10,
        ),
        ("first_try_at FROM oa.deliveries WHERE tries = 1", 1),
        ("paused_until FROM oa.channels WHERE name = 'a'", 10),
        ("until FROM oa.silences", 60),
        ("created_at FROM oa.silences", 1),
        ("lease_until FROM oa.tasks WHERE name = 'tick'", 10),
        ("last_success_at FROM oa.tasks WHERE name = 'tick'", 1),
        ("at FROM oa.watches", 1),
        ("expected_since FROM oa.tasks WHERE name = 'tick'", 1),
    ] {
        let (column, from) = what.split_once(' ').unwrap();
        assert_eq!(
            service.text(&format!(
                "SELECT coalesce(bool_and({column} < now() + interval '{least} minutes 30 seconds'), true)::text {from}"
            )),
            "true",
            "{what}"
        );
    }
    assert_eq!(
        service.text("SELECT ok::text FROM oa.drills ORDER BY seq DESC LIMIT 1"),
        "false",
        "the newest rehearsal is the failed one"
    );
    assert_eq!(
        service.text("SELECT (until > now() + interval '50 minutes')::text FROM oa.silences"),
        "true"
    );
}

#[test]
fn a_run_that_goes_on_keeps_its_task_when_the_servers_clock_goes_back() {
    let mut service = Service::start();
    tick(&service);
    due(&service, "0");
    // Another machine has begun before the clock was ahead.
    service
        .db()
        .batch_execute("UPDATE oa.tasks SET lease_until = now() + interval '8 minutes', lease_host = 'other', lease_run_id = gen_random_uuid() WHERE name = 'tick'")
        .unwrap();
    service.server.restart_with(&clock("+3m"));
    due(&service, "+3m");
    service.server.restart_with(&[]);
    let done = at(&service, "0", &["run", "tick", "--format", "json"]);
    assert_eq!(done.row()["status"], "skipped", "{done:?}");
}
