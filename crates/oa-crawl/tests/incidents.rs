//! A database that is there but does not answer as it should, and a disk that fails: the run goes on as far as it can, what was
//! collected is kept, and a person hears of it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use common::{DAY, Done, Service, VIEW};
use oa_core::base::state_dir::StateDir;
use oa_core::journal::spool::Spool;
use oa_sim::sites::zhihui;
use oa_testkit::wait_until;

fn rows_due() -> i64 {
    zhihui::full_view(1, DAY.parse().unwrap()).len() as i64
}

fn spool(service: &Service) -> Spool {
    Spool::open(&StateDir::open(&service.state()).unwrap(), 1 << 30).unwrap()
}

fn with_statement_timeout(service: &Service) {
    service.configure("");
    let text = fs::read_to_string(service.config()).unwrap();
    let text = text.replace("[database]\n", "[database]\nstatement_timeout = \"1s\"\n");
    fs::write(service.config(), text).unwrap();
}

/// Kinds of the alerts of a rule, in order.
fn alert_kinds(service: &Service, rule: &str) -> String {
    service.text(&format!(
        "SELECT coalesce(string_agg(kind, ' ' ORDER BY created_at), '') FROM oa.alerts WHERE rule = '{rule}'"
    ))
}

#[test]
fn rows_that_meet_a_locked_table_wait_in_the_spool() {
    let service = Service::start();
    with_statement_timeout(&service);
    let mut db = service.db();
    let mut lock = db.transaction().unwrap();
    lock.batch_execute("LOCK TABLE market_full_view IN EXCLUSIVE MODE")
        .unwrap();
    let done = service.run("zhihui-full-view");
    assert_eq!(done.code, 75, "{done:?}");
    assert!(
        done.row()["spooled"].as_str().unwrap().contains("timeout"),
        "{done:?}"
    );
    assert_eq!(spool(&service).pending().unwrap().entries, 1);
    // It waits on while the lock is held, and is no refusal; what others have stored does not wait for it.
    let drained = service.crawl(&["drain"]);
    assert!(!drained.stderr.contains("dedupe"), "{drained:?}");
    assert_eq!(spool(&service).pending().unwrap().entries, 1);
    assert_eq!(service.run("zhihui-reports").code, 0);
    assert_eq!(alert_kinds(&service, "spool_stuck"), "");
    lock.rollback().unwrap();
    assert_eq!(service.crawl(&["drain"]).code, 0);
    assert_eq!(alert_kinds(&service, "spool_stuck"), "");
    assert_eq!(service.count("market_full_view"), rows_due());
    assert_eq!(
        service.text("SELECT string_agg(DISTINCT status, ' ') FROM oa.runs"),
        "success",
        "collected, and never said to have failed"
    );
    assert_eq!(alert_kinds(&service, "database_unreachable"), "");
}

#[test]
fn a_locked_run_log_does_not_keep_a_source_from_being_collected() {
    let service = Service::start();
    with_statement_timeout(&service);
    let mut db = service.db();
    let mut lock = db.transaction().unwrap();
    lock.batch_execute("LOCK TABLE oa.tasks IN EXCLUSIVE MODE")
        .unwrap();
    let done = service.run("zhihui-full-view");
    assert_eq!(done.code, 75, "{done:?}");
    assert_eq!(done.row()["status"], "success");
    lock.rollback().unwrap();
    assert_eq!(service.crawl(&["drain"]).code, 0);
    assert_eq!(service.text("SELECT status FROM oa.runs"), "success");
    assert_eq!(service.count("market_full_view"), rows_due());
}

#[test]
fn a_damaged_spool_is_reported_and_the_database_still_gets_the_rows() {
    let service = Service::start();
    assert_eq!(service.run("zhihui-full-view").code, 0);
    let file = service.state().join("spool.db");
    assert!(file.is_file());
    for of in ["spool.db", "spool.db-wal", "spool.db-shm"] {
        let _ = fs::remove_file(service.state().join(of));
    }
    fs::write(
        &file,
        "not a database, and long enough to be read as one".repeat(100),
    )
    .unwrap();
    let done = service.run("zhihui-reports");
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(service.count("research_reports"), 2434);
    assert!(
        done.stderr.contains("spool.db") && done.stderr.contains("not a database"),
        "{done:?}"
    );
    assert_eq!(alert_kinds(&service, "spool_broken"), "problem");
    fs::remove_file(&file).unwrap();
    assert_eq!(service.run("zhihui-full-view").code, 0);
    assert_eq!(alert_kinds(&service, "spool_broken"), "problem recovery");
}

#[test]
fn without_a_state_directory_the_run_is_refused_recorded_and_reported() {
    let service = Service::start();
    fs::write(service.state(), "a file, where a directory is due").unwrap();
    let done = service.run("zhihui-full-view");
    assert_eq!(done.code, 77, "{done:?}");
    assert!(done.stderr.contains("state"), "{done:?}");
    let recorded = service.text("SELECT status || ': ' || error_message FROM oa.runs");
    assert!(
        recorded.starts_with("failed: ") && recorded.contains("state"),
        "{recorded}"
    );
    assert_eq!(alert_kinds(&service, "run_failed"), "problem");
    fs::remove_file(service.state()).unwrap();
    assert_eq!(service.run("zhihui-full-view").code, 0);
    assert_eq!(alert_kinds(&service, "run_failed"), "problem recovery");
}

#[test]
fn a_refused_entry_is_reported_as_such_until_it_is_stored() {
    let mut service = Service::start();
    service.server.stop();
    assert_eq!(service.run("zhihui-full-view").code, 75);
    service.server.start_again();
    let mut db = service.db();
    db.batch_execute("ALTER TABLE market_full_view RENAME TO away")
        .unwrap();
    for _ in 0..2 {
        assert_eq!(service.crawl(&["drain"]).code, 1);
    }
    assert_eq!(alert_kinds(&service, "spool_stuck"), "problem", "once");
    assert!(
        service
            .alerts("rule = 'spool_stuck'")
            .contains("zhihui-full-view")
    );
    assert_eq!(
        service.count("oa.runs WHERE status = 'abandoned'"),
        0,
        "its outcome is known, and waits"
    );
    assert_eq!(
        alert_kinds(&service, "database_unreachable"),
        "problem recovery"
    );
    db.batch_execute("ALTER TABLE away RENAME TO market_full_view")
        .unwrap();
    assert_eq!(service.crawl(&["drain"]).code, 0);
    assert_eq!(alert_kinds(&service, "spool_stuck"), "problem recovery");
    assert_eq!(service.text("SELECT status FROM oa.runs"), "success");
}

#[test]
fn a_schema_that_does_not_fit_is_reported_without_the_database() {
    let service = Service::start();
    service
        .db()
        .batch_execute("UPDATE oa.schema_history SET version = 99 WHERE version = 1")
        .unwrap();
    for _ in 0..2 {
        let done = service.run("zhihui-full-view");
        assert_eq!(done.code, 78, "{done:?}");
    }
    let waiting = spool(&service).alerts().unwrap();
    let rules: Vec<&str> = waiting.iter().map(|a| a.rule.as_str()).collect();
    assert_eq!(rules, ["schema_unfit"], "once");
}

#[test]
fn a_connection_that_is_cut_between_attempts_is_made_again() {
    let service = Service::start();
    service.configure("retries = 3\n");
    let text = fs::read_to_string(service.config()).unwrap();
    fs::write(
        service.config(),
        text.replace("retry_delay = \"10ms\"", "retry_delay = \"1s\""),
    )
    .unwrap();
    service
        .sim
        .fault(&format!("{VIEW}: 500 x2 then ok"))
        .unwrap();
    let child = service
        .command(&["run", "zhihui-full-view", "--date", DAY, "--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the first try", Duration::from_secs(20), || {
        service.count("oa.attempts") == 1
    });
    service
        .db()
        .batch_execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'oa-crawl'",
        )
        .unwrap();
    wait_until("the second try", Duration::from_secs(20), || {
        service.count("oa.attempts") == 2
    });
    let done: Done = child.wait_with_output().unwrap().into();
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(done.row()["attempts"], 3);
}

#[test]
fn a_source_that_a_signal_keeps_from_starting_has_its_row() {
    let service = Service::start();
    service.configure("parallel = 1\nretries = 0\n");
    service.sim.fault(&format!("{VIEW}: hang")).unwrap();
    let child = service
        .command(&[
            "run",
            "zhihui-full-view",
            "zhihui-reports",
            "--date",
            DAY,
            "--format",
            "json",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the first source", Duration::from_secs(20), || {
        service.count("oa.runs WHERE status = 'running'") == 1
    });
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let done: Done = child.wait_with_output().unwrap().into();
    assert_eq!(done.code, 1, "{done:?}");
    assert_eq!(done.rows().len(), 2);
    assert!(
        done.rows()[0]["error"]
            .as_str()
            .unwrap()
            .contains("stopped by a signal while fetching"),
        "without waiting for the site: {done:?}"
    );
    assert_eq!(
        service.text("SELECT string_agg(task || ' ' || status, ', ' ORDER BY task) FROM oa.runs"),
        "zhihui-full-view failed, zhihui-reports failed"
    );
}

#[test]
fn a_closed_output_changes_nothing_of_the_outcome() {
    let service = Service::start();
    service.configure("retries = 0\n");
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = service
            .command(&["run", "zhihui-full-view", "--date", DAY])
            .stdout(writer)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        status.code()
    };
    assert_eq!(closed(), Some(0));
    service.sim.fault(&format!("{VIEW}: 500")).unwrap();
    assert_eq!(closed(), Some(1));
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_unreachable() {
    let mut service = Service::start();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    service.url = format!(
        "postgres://oa:x@127.0.0.1:{}/oa?sslmode=disable",
        silent.local_addr().unwrap().port()
    );
    let held = std::thread::spawn(move || {
        let mut connections: Vec<_> = silent.incoming().take(3).filter_map(Result::ok).collect();
        for connection in &mut connections {
            let _ = connection.set_read_timeout(Some(Duration::from_secs(30)));
            let _ = connection.read(&mut [0; 64]);
        }
        connections
    });
    let done = service.run("zhihui-full-view");
    assert_eq!(done.code, 75, "{done:?}");
    drop(held);
}
