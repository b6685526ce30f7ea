//! Nothing collected is lost, whatever dies: PostgreSQL, this process, or the disk's patience.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::process::Stdio;
use std::time::Duration;

use common::{DAY, LIST, Service, VIEW};
use oa_core::base::state_dir::StateDir;
use oa_core::journal::spool::Spool;
use oa_sim::sites::zhihui;
use oa_testkit::wait_until;
use serde_json::json;

fn spool(service: &Service) -> Spool {
    Spool::open(&StateDir::open(&service.state()).unwrap(), 1 << 30).unwrap()
}

fn rows_due() -> i64 {
    zhihui::full_view(1, DAY.parse().unwrap()).len() as i64
}

#[test]
fn while_postgresql_is_unreachable_results_wait_in_the_spool_and_are_stored_once_later() {
    let mut service = Service::start();
    service.server.stop();
    let done = service.run("zhihui-full-view");
    assert_eq!(done.code, 75, "{done:?}");
    assert_eq!(done.row()["status"], "success");
    assert!(
        done.row()["spooled"]
            .as_str()
            .unwrap()
            .contains("could not reach PostgreSQL")
    );
    assert_eq!(service.run("zhihui-reports").code, 75);
    service.server.start_again();

    let drained = service.crawl(&["drain", "--format", "json"]);
    assert_eq!(drained.code, 0, "{drained:?}");
    assert_eq!(drained.row()["left"], 0);
    assert_eq!(service.count("market_full_view"), rows_due());
    assert_eq!(service.count("research_reports"), 2434);
    assert_eq!(service.count("oa.runs WHERE status = 'success'"), 2);
    assert_eq!(service.count("oa.raw"), 26);
    assert_eq!(
        service.count("oa.alerts WHERE rule = 'database_unreachable' AND kind = 'problem'"),
        1,
        "reported once, not per run"
    );
    assert_eq!(
        service.crawl(&["drain", "--format", "json"]).row()["applied"],
        0
    );
}

#[test]
fn the_next_run_drains_before_it_stores_its_own() {
    let mut service = Service::start();
    service.server.stop();
    assert_eq!(service.run("zhihui-full-view").code, 75);
    service.server.start_again();
    let row = service.run("zhihui-full-view").row();
    assert_eq!(
        (&row["status"], &row["unchanged"]),
        (&json!("success"), &json!(rows_due())),
        "the spooled rows came first"
    );
    assert_eq!(spool(&service).pending().unwrap().entries, 0);
}

#[test]
fn a_failure_while_postgresql_is_unreachable_is_reported_once_and_not_again_by_the_drain() {
    let mut service = Service::start();
    service.configure("retries = 0\n");
    service.sim.fault(&format!("{VIEW}: 500")).unwrap();
    service.server.stop();
    assert_eq!(service.run("zhihui-full-view").code, 1);
    assert_eq!(service.run("zhihui-full-view").code, 1);
    let waiting = spool(&service).alerts().unwrap();
    let rules: Vec<&str> = waiting.iter().map(|a| a.rule.as_str()).collect();
    assert_eq!(rules, ["run_failed", "database_unreachable"]);
    service.server.start_again();
    assert_eq!(service.crawl(&["drain"]).code, 0);
    assert_eq!(service.count("oa.alerts WHERE kind = 'problem'"), 2);
    assert_eq!(
        service.count("oa.alerts WHERE event ->> 'event' = 'machine_recovered' AND event ->> 'fault' = 'database_unreachable'"),
        1
    );
    assert_eq!(service.count("oa.runs WHERE status = 'failed'"), 2);
}

#[test]
fn postgresql_that_restarts_during_a_run_costs_nothing() {
    let mut service = Service::start();
    service
        .sim
        .fault(&format!("{VIEW}: drip 20000 x1 then ok"))
        .unwrap();
    let child = service
        .command(&["run", "zhihui-full-view", "--date", DAY, "--format", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let sim = &service.sim;
    wait_until("the request", Duration::from_secs(20), || {
        !sim.requests().is_empty() || service.count("oa.runs WHERE status = 'running'") == 1
    });
    service.server.kill();
    service.server.start_again();
    let output = child.wait_with_output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 75)), "{output:?}");
    service.crawl(&["drain"]);
    assert_eq!(service.count("market_full_view"), rows_due());
    assert_eq!(service.count("oa.runs WHERE status = 'success'"), 1);
}

#[test]
fn a_killed_run_is_found_marked_and_reported() {
    let service = Service::start();
    service.run_killed_at("zhihui-full-view", "run.begun");
    assert_eq!(service.count("oa.runs WHERE status = 'running'"), 1);
    assert_eq!(service.run("zhihui-full-view").code, 0);
    assert_eq!(
        service.count(
            "oa.runs WHERE status = 'abandoned' AND error_message LIKE '%ended without recording%'"
        ),
        1
    );
    assert_eq!(service.count("oa.alerts WHERE rule = 'run_abandoned'"), 1);
    assert_eq!(service.count("oa.alerts WHERE kind = 'recovery'"), 1);
}

#[test]
fn killed_anywhere_nothing_is_lost_or_doubled() {
    for point in [
        "run.begun",
        "archive.stored",
        "run.finish.begin",
        "run.finish.stored",
    ] {
        let service = Service::start();
        service.run_killed_at("zhihui-full-view", point);
        let stored = service.count("market_full_view");
        assert_eq!(
            stored,
            if point == "run.finish.stored" {
                rows_due()
            } else {
                0
            },
            "{point}: all or nothing"
        );
        assert_eq!(service.run("zhihui-full-view").code, 0, "{point}");
        assert_eq!(service.count("market_full_view"), rows_due(), "{point}");
        assert_eq!(
            service.count("oa.runs WHERE finished_at IS NULL"),
            0,
            "{point}"
        );
        assert_eq!(
            service.count("oa.runs"),
            2,
            "{point}: every start has its row"
        );
    }
}

#[test]
fn killed_while_spooling_or_draining_nothing_is_lost_or_doubled() {
    for point in ["spool.put.before_commit", "spool.put.after_commit"] {
        let mut service = Service::start();
        service.server.stop();
        // The first entry is the start; it is the outcome that matters, so let the start pass by a run that is complete.
        service.run_killed_at("zhihui-full-view", point);
        assert_eq!(service.run("zhihui-full-view").code, 75, "{point}");
        service.server.start_again();
        assert_eq!(service.crawl(&["drain"]).code, 0, "{point}");
        assert_eq!(service.count("market_full_view"), rows_due(), "{point}");
        assert_eq!(
            service.count("oa.runs WHERE finished_at IS NULL"),
            0,
            "{point}"
        );
    }
    for point in [
        "spool.drain.after_apply",
        "spool.drain.before_delete",
        "spool.drain.after_delete",
    ] {
        let mut service = Service::start();
        service.server.stop();
        assert_eq!(service.run("zhihui-full-view").code, 75);
        service.server.start_again();
        let killed: common::Done = service
            .command(&["drain"])
            .env("OA_FAILPOINT", point)
            .output()
            .unwrap()
            .into();
        assert_eq!(killed.code, -9, "{point}");
        // Killed at every further entry, too.
        while spool(&service).pending().unwrap().entries > 0 {
            let before = spool(&service).pending().unwrap().entries;
            assert_eq!(service.crawl(&["drain"]).code, 0, "{point}");
            assert!(spool(&service).pending().unwrap().entries < before);
        }
        assert_eq!(service.count("market_full_view"), rows_due(), "{point}");
        assert_eq!(service.count("oa.runs"), 1, "{point}");
        assert_eq!(
            service.text("SELECT inserted::text FROM oa.runs"),
            rows_due().to_string(),
            "{point}: the first replay's counts stay"
        );
        assert_eq!(
            service.count("oa.alerts WHERE kind = 'problem'"),
            1,
            "{point}"
        );
        assert_eq!(
            service.count("oa.alerts WHERE kind = 'recovery'"),
            1,
            "{point}"
        );
    }
}

#[test]
fn killed_at_random_moments_nothing_is_lost_or_doubled() {
    let service = Service::start();
    service.configure("retries = 2\n");
    service
        .sim
        .fault(&format!("{VIEW}: 500 x9, truncate x3 then ok"))
        .unwrap();
    // Each is killed at some share of the time that it takes here and now to record its start, up to three times that.
    for i in 0..25u32 {
        let before = service.count("oa.runs");
        let mut child = service
            .command(&["run", "zhihui-full-view", "zhihui-reports", "--date", DAY])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = std::time::Instant::now();
        let mut end = began + Duration::from_millis(u64::from(i) * 37 % 600);
        if i % 2 == 0 {
            wait_until("a run that began", Duration::from_secs(60), || {
                service.count("oa.runs") > before
            });
            end = began + began.elapsed() * (10 + i * 7 % 20) / 10;
        }
        wait_until("the kill", Duration::from_secs(180), || {
            std::time::Instant::now() >= end
        });
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let done = service.crawl(&[
        "run",
        "zhihui-full-view",
        "zhihui-reports",
        "--date",
        DAY,
        "--format",
        "json",
    ]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(service.count("market_full_view"), rows_due());
    assert_eq!(service.count("research_reports"), 2434);
    assert_eq!(service.count("oa.runs WHERE finished_at IS NULL"), 0);
    assert_eq!(service.count("oa.tasks WHERE lease_run_id IS NOT NULL"), 0);
}

#[test]
fn a_task_never_runs_twice_at_once_and_the_second_start_leaves_its_row() {
    let service = Service::start();
    service.sim.fault(&format!("{VIEW}: hang")).unwrap();
    let mut first = service
        .command(&["run", "zhihui-full-view"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the first run", Duration::from_secs(20), || {
        service.count("oa.runs WHERE status = 'running'") == 1
    });
    let second = service.run("zhihui-full-view");
    assert_eq!(
        (second.code, &second.row()["status"]),
        (0, &json!("skipped"))
    );
    assert_eq!(service.count("oa.runs WHERE status = 'skipped' AND error_message LIKE '%runs already on this machine%'"), 1);
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn another_machines_lease_is_respected_until_it_expires() {
    let service = Service::start();
    assert_eq!(service.run("zhihui-full-view").code, 0);
    let mut db = service.db();
    db.batch_execute("UPDATE oa.tasks SET lease_host = 'other-host', lease_run_id = gen_random_uuid(), lease_until = now() + interval '1 hour'").unwrap();
    let busy = service.run("zhihui-full-view");
    assert_eq!(busy.row()["status"], "skipped");
    assert!(busy.row()["error"].as_str().unwrap().contains("other-host"));
    db.batch_execute("UPDATE oa.tasks SET lease_until = now() - interval '1 second'")
        .unwrap();
    assert_eq!(service.run("zhihui-full-view").row()["status"], "success");
}

#[test]
fn a_dead_machines_run_is_abandoned_when_its_lease_has_expired() {
    let service = Service::start();
    service.run_killed_at("zhihui-full-view", "run.begun");
    let mut db = service.db();
    db.batch_execute("UPDATE oa.runs SET host = 'other-host'")
        .unwrap();
    assert_eq!(service.run("zhihui-reports").code, 0);
    assert_eq!(
        service.count("oa.runs WHERE status = 'running'"),
        1,
        "its lease lasts"
    );
    db.batch_execute(
        "UPDATE oa.runs SET lease_until = now() - interval '1 second' WHERE host = 'other-host'",
    )
    .unwrap();
    assert_eq!(service.run("zhihui-reports").code, 0);
    assert_eq!(service.count("oa.runs WHERE status = 'abandoned'"), 1);
}

#[test]
fn a_stop_signal_between_attempts_ends_the_run_with_its_row() {
    let service = Service::start();
    service.sim.fault(&format!("{VIEW}: 500")).unwrap();
    let mut child = service
        .command(&["run", "zhihui-full-view", "--retry-delay", "1h"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the first try", Duration::from_secs(20), || {
        service.count("oa.runs WHERE status = 'retrying'") == 1
    });
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(
        service.count(
            "oa.runs WHERE status = 'failed' AND error_message LIKE '%stopped by a signal%'"
        ),
        1
    );
}

#[test]
fn a_full_spool_refuses_loudly_but_the_archive_still_has_the_answer() {
    let mut service = Service::start();
    service.configure("[spool]\nmax_size = \"1KiB\"\n");
    service.server.stop();
    let done = service.run("zhihui-full-view");
    assert_eq!(done.code, 1);
    assert!(
        done.stderr.contains("the spool")
            && done.stderr.contains("is full")
            && done.stderr.contains("max_size in [spool]"),
        "{done:?}"
    );
    assert!(
        service
            .state()
            .join("raw")
            .read_dir()
            .unwrap()
            .next()
            .is_some()
    );
    service.server.start_again();
    assert_eq!(service.crawl(&["drain"]).code, 0);
    assert_eq!(
        service.count("oa.runs WHERE status = 'failed' AND error_message LIKE '%spool%full%'"),
        1
    );
    assert_eq!(
        service.text(
            "SELECT string_agg(kind, ' ' ORDER BY created_at) FROM oa.alerts WHERE rule = 'spool_full'"
        ),
        "problem recovery"
    );
}

#[test]
fn an_entry_that_postgresql_refuses_holds_back_only_its_own_task() {
    let mut service = Service::start();
    service.server.stop();
    assert_eq!(service.run("zhihui-full-view").code, 75);
    assert_eq!(service.run("zhihui-reports").code, 75);
    service.server.start_again();
    let mut db = service.db();
    db.batch_execute("ALTER TABLE market_full_view RENAME TO away")
        .unwrap();
    let drained = service.crawl(&["drain", "--format", "json"]);
    assert_eq!(drained.code, 1, "{drained:?}");
    assert_eq!(drained.row()["stuck"], 1);
    assert_eq!(service.count("research_reports"), 2434);
    // A newer result queues up behind the stuck one, or the older would overwrite it later.
    let done = service.run("zhihui-full-view");
    assert_eq!(done.code, 75, "{done:?}");
    db.batch_execute("ALTER TABLE away RENAME TO market_full_view")
        .unwrap();
    assert_eq!(service.crawl(&["drain"]).code, 0);
    assert_eq!(service.count("market_full_view"), rows_due());
    assert_eq!(
        service.count("oa.runs WHERE task = 'zhihui-full-view' AND status = 'success'"),
        2
    );
}

#[test]
fn several_programs_drain_at_once_and_each_entry_counts_once() {
    let mut service = Service::start();
    service.server.stop();
    for day in 1..=6 {
        let date = format!("2025-12-0{day}");
        assert_eq!(
            service
                .crawl(&["run", "zhihui-full-view", "--date", &date])
                .code,
            75
        );
    }
    service.server.start_again();
    let children: Vec<_> = (0..5)
        .map(|_| {
            service
                .command(&["drain"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        child.wait().unwrap();
    }
    assert_eq!(service.crawl(&["drain"]).code, 0);
    assert_eq!(service.count("oa.runs WHERE status = 'success'"), 6);
    assert_eq!(
        service.count("(SELECT DISTINCT record_date FROM market_full_view) d"),
        6
    );
}

#[test]
fn a_replayed_older_outcome_does_not_change_the_tasks_present_state() {
    let mut service = Service::start();
    service.configure("retries = 0\n");
    service.sim.fault(&format!("{VIEW}: 500")).unwrap();
    service.server.stop();
    assert_eq!(service.run("zhihui-full-view").code, 1);
    service.server.start_again();
    service.sim.clear_faults();
    // The late failure is drained first, by the run itself, and its success comes after it.
    assert_eq!(service.run("zhihui-full-view").code, 0);
    assert_eq!(service.text("SELECT last_status FROM oa.tasks"), "success");
    assert_eq!(
        service.text("SELECT consecutive_failures::text FROM oa.tasks"),
        "0"
    );
}

#[test]
fn duplicates_that_forbid_the_natural_key_are_named_with_the_remedy_and_the_answer_is_kept() {
    let service = Service::start();
    service
        .db()
        .batch_execute(
            "DROP INDEX market_full_view_key;
             INSERT INTO market_full_view (comm_code, record_date) VALUES ('RB', '2025-12-01'), ('RB', '2025-12-01')",
        )
        .unwrap();
    let done = service.run("zhihui-full-view");
    assert_eq!(done.code, 78, "{done:?}");
    assert!(
        done.row()["error"]
            .as_str()
            .unwrap()
            .contains("run oa-migrate dedupe market_full_view first")
    );
    assert_eq!(service.count("oa.raw"), 1);
    assert_eq!(
        service.count("oa.runs WHERE status = 'failed' AND error_kind = 'db'"),
        1
    );
    assert!(service.alerts("true").contains("dedupe"));
    assert_eq!(service.count("oa.alerts"), 1);
}

#[test]
fn what_a_killed_run_had_fetched_is_in_the_archives_index() {
    let service = Service::start();
    service.run_killed_at("zhihui-reports", "run.finish.begin");
    assert_eq!(service.count("oa.raw"), 0);
    assert_eq!(service.run("zhihui-full-view").code, 0);
    assert_eq!(
        service.count("oa.raw w JOIN oa.runs r ON r.id = w.run_id WHERE r.status = 'abandoned'"),
        25
    );
    let index = service.state().join("raw/index");
    assert_eq!(
        index.read_dir().unwrap().count(),
        0,
        "reported, and so removed"
    );
}

#[test]
fn pages_that_were_fetched_by_failed_attempts_are_in_the_archive_too() {
    let service = Service::start();
    service.configure("retries = 1\n");
    service.sim.fault(&format!("{LIST}?page=5: 500")).unwrap();
    assert_eq!(service.run("zhihui-reports").code, 1);
    assert_eq!(service.count("oa.raw WHERE attempt = 1"), 5);
    assert_eq!(service.count("oa.raw WHERE attempt = 2"), 5);
}
