//! Collecting: what comes is stored, what is missing or wrong is said.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use common::{DAY, LIST, Service, VIEW};
use oa_sim::Options;
use oa_sim::sites::zhihui;
use serde_json::{Value, json};

#[test]
fn a_day_is_stored_once_and_collecting_it_again_changes_nothing() {
    let service = Service::start();
    let first = service.run("zhihui-full-view");
    assert_eq!(first.code, 0, "{first:?}");
    let expected = zhihui::full_view(1, DAY.parse().unwrap()).len();
    let row = first.row();
    assert_eq!(
        (
            &row["status"],
            &row["fetched"],
            &row["inserted"],
            &row["attempts"]
        ),
        (
            &json!("success"),
            &json!(expected),
            &json!(expected),
            &json!(1)
        )
    );

    let again = service.run("zhihui-full-view").row();
    assert_eq!(
        (&again["inserted"], &again["updated"], &again["unchanged"]),
        (&json!(0), &json!(0), &json!(expected))
    );
    assert_eq!(service.count("market_full_view"), expected as i64);
    assert_eq!(service.count("oa.runs WHERE status = 'success'"), 2);
    assert_eq!(
        service.count("oa.raw"),
        2,
        "each answer is in the archive's index"
    );
    assert_eq!(service.count("oa.quality WHERE score = 100"), 2);
}

#[test]
fn every_stored_value_is_the_one_that_was_served() {
    let service = Service::start();
    assert_eq!(service.run("zhihui-full-view").code, 0);
    let mut db = service.db();
    for served in zhihui::full_view(1, DAY.parse().unwrap()) {
        let row = db
            .query_one(
                "SELECT to_jsonb(t) FROM market_full_view t WHERE comm_code = $1 AND record_date = $2::text::date",
                &[&served["varietyCode"].as_str().unwrap(), &DAY],
            )
            .unwrap();
        let stored: Value = row.get(0);
        for (column, field) in [
            ("variety_name", "varietyName"),
            ("excessive_num", "excessiveNum"),
            ("total_num", "sum"),
            ("more_port", "morePort"),
        ] {
            assert_eq!(stored[column], served[field], "{served}");
        }
        for (column, field) in [
            ("excessive_ratio", "excessiveRate"),
            ("neutral_ratio", "neutralRate"),
            ("empty_ratio", "emptyRate"),
            ("more_rate", "moreRate"),
        ] {
            assert_eq!(stored[column].as_f64(), served[field].as_f64(), "{served}");
        }
    }
}

#[test]
fn all_pages_are_collected_not_only_the_first_hundred() {
    let service = Service::start();
    let row = service.run("zhihui-reports").row();
    assert_eq!(
        (&row["status"], &row["fetched"], &row["inserted"]),
        (&json!("success"), &json!(2434), &json!(2434))
    );
    assert_eq!(service.count("research_reports"), 2434);
    let mut db = service.db();
    let newest = zhihui::report(1, DAY.parse().unwrap(), 2433);
    let stored: Value = db
        .query_one(
            "SELECT to_jsonb(t) FROM research_reports t WHERE report_id = $1",
            &[&newest["id"].as_i64().unwrap()],
        )
        .unwrap()
        .get(0);
    for (column, field) in [
        ("trade_logic", "tradeLogic"),
        ("related_data", "relatedData"),
        ("report_link", "link"),
        ("publish_date", "publishDate"),
    ] {
        assert_eq!(stored[column], newest[field]);
    }
}

#[test]
fn a_changed_value_is_updated_and_counted() {
    let service = Service::start();
    assert_eq!(service.run("zhihui-full-view").code, 0);
    service.db().batch_execute("UPDATE market_full_view SET total_num = 999 WHERE id IN (SELECT min(id) FROM market_full_view)").unwrap();
    let row = service.run("zhihui-full-view").row();
    assert_eq!((&row["updated"], &row["inserted"]), (&json!(1), &json!(0)));
    assert_eq!(service.count("market_full_view WHERE total_num = 999"), 0);
}

#[test]
fn a_fault_that_heals_costs_attempts_but_no_data() {
    let service = Service::start();
    service
        .sim
        .fault(&format!("{VIEW}: 500 x2 then ok"))
        .unwrap();
    let done = service.run("zhihui-full-view");
    assert_eq!(done.code, 0);
    assert_eq!(
        (&done.row()["status"], &done.row()["attempts"]),
        (&json!("success"), &json!(3))
    );
    assert_eq!(
        service.count("oa.attempts WHERE outcome = 'failed' AND error_kind = 'http_5xx'"),
        2
    );
    assert_eq!(service.count("oa.attempts WHERE outcome = 'success'"), 1);
    assert_eq!(service.count("oa.alerts"), 0);
    assert_eq!(
        service.text("SELECT retry_count::text FROM crawler_task_logs"),
        "2"
    );
}

#[test]
fn a_page_that_fails_once_is_no_missing_page() {
    let service = Service::start();
    service
        .sim
        .fault(&format!("{LIST}?page=7: truncate x1 then ok"))
        .unwrap();
    let row = service.run("zhihui-reports").row();
    assert_eq!(
        (&row["status"], &row["attempts"], &row["fetched"]),
        (&json!("success"), &json!(2), &json!(2434))
    );
}

#[test]
fn a_final_failure_alerts_once_and_the_next_success_resolves_it() {
    let service = Service::start();
    service.sim.fault(&format!("{VIEW}: 502")).unwrap();
    let done = service.run("zhihui-full-view");
    assert_eq!(done.code, 1);
    assert_eq!(
        (&done.row()["status"], &done.row()["attempts"]),
        (&json!("failed"), &json!(4))
    );
    assert!(done.row()["error"].as_str().unwrap().contains("HTTP 502"));
    assert_eq!(service.run("zhihui-full-view").code, 1);
    assert_eq!(
        service.count("oa.alerts WHERE kind = 'problem' AND severity = 'critical'"),
        1,
        "the second failure is held back"
    );
    assert_eq!(
        service.text("SELECT consecutive_failures::text FROM oa.tasks"),
        "2"
    );
    let body = service.alerts("true");
    assert!(
        body.contains("智汇期讯-多空全景 采集失败")
            && body.contains("对方网站自身故障")
            && body.contains("market_full_view"),
        "{body}"
    );

    service.sim.clear_faults();
    assert_eq!(service.run("zhihui-full-view").code, 0);
    assert!(
        service
            .alerts("kind = 'recovery'")
            .contains("其间失败 2 次")
    );
    assert_eq!(
        service.text("SELECT consecutive_failures::text FROM oa.tasks"),
        "0"
    );
}

/// Fault, kind of error, attempts (with one retry allowed).
const FAULTS: [(&str, &str, u64); 20] = [
    ("500", "http_5xx", 2),
    ("404", "http_4xx", 1),
    ("429 retry-after=0", "http_429", 2),
    ("429 retry-after=date", "http_429", 2),
    ("401", "auth", 1),
    ("expired-token", "auth", 1),
    ("redirect-login", "auth", 1),
    ("redirect-loop", "blocked", 2),
    ("soft-block", "blocked", 2),
    ("truncate", "network", 2),
    ("long-length", "network", 2),
    ("reset", "network", 2),
    ("bad-gzip", "network", 2),
    ("gzip-cut", "network", 2),
    ("hang", "timeout", 2),
    ("drip", "timeout", 2),
    ("empty", "empty", 2),
    ("rename sum=total", "shape", 1),
    ("nan sum", "invalid", 1),
    ("rename result=data", "shape", 1),
];

#[test]
fn every_fault_is_named_and_only_transient_ones_are_tried_again() {
    let service = Service::start();
    service.configure("retries = 1\n");
    for (fault, kind, attempts) in FAULTS {
        service.sim.clear_faults();
        service.sim.fault(&format!("{VIEW}: {fault}")).unwrap();
        let limit = if kind == "timeout" { "400ms" } else { "20s" };
        let done = service.crawl(&[
            "run",
            "zhihui-full-view",
            "--date",
            DAY,
            "--timeout",
            limit,
            "--format",
            "json",
        ]);
        let row = done.row();
        assert_eq!(
            (row["error_kind"].as_str(), row["attempts"].as_u64()),
            (Some(kind), Some(attempts)),
            "{fault}: {row}"
        );
        assert_eq!(done.code, 1, "{fault}");
        let status = if kind == "timeout" {
            "timeout"
        } else {
            "failed"
        };
        assert_eq!(row["status"], status, "{fault}");
    }
    assert_eq!(service.count("market_full_view"), 0);
    assert_eq!(service.count("oa.runs WHERE finished_at IS NULL"), 0);
}

#[test]
fn faults_that_lose_nothing_are_read_all_the_same() {
    let service = Service::start();
    for fault in ["gbk", "bom", "stringify sum", "duplicates"] {
        service.sim.clear_faults();
        service.sim.fault(&format!("{VIEW}: {fault}")).unwrap();
        let row = service.run("zhihui-full-view").row();
        assert_eq!(row["status"], "success", "{fault}: {row}");
    }
    assert_eq!(
        service.count("oa.quality WHERE jsonb_array_length(findings) > 0"),
        2,
        "GBK and text numbers are noted"
    );
    assert_eq!(service.count("oa.quality WHERE duplicates = 1"), 1);
}

#[test]
fn fewer_records_than_announced_are_stored_but_no_success() {
    let service = Service::start();
    service.configure("retries = 1\n");
    service.sim.fault(&format!("{LIST}: fewer")).unwrap();
    let done = service.run("zhihui-reports");
    let row = done.row();
    assert_eq!(done.code, 1);
    assert_eq!(
        (&row["status"], &row["inserted"], &row["error_kind"]),
        (&json!("partial"), &json!(2427), &json!("partial"))
    );
    assert!(
        row["error"]
            .as_str()
            .unwrap()
            .contains("announced 2434 records, only 2427")
    );
    let body = service.alerts("severity = 'warning'");
    assert!(body.contains("只收到 2427 条，应有 2434 条"), "{body}");
}

#[test]
fn an_empty_page_that_announces_nothing_does_not_make_a_cut_off_day_complete() {
    let service = Service::start();
    service.configure("retries = 1\n");
    service.sim.fault(&format!("{LIST}?page=3: empty")).unwrap();
    let row = service.run("zhihui-reports").row();
    assert_eq!(
        (&row["status"], &row["fetched"], &row["attempts"]),
        (&json!("partial"), &json!(200), &json!(2))
    );
    assert_eq!(service.count("oa.quality WHERE expected = 2434"), 1);
}

#[test]
fn a_total_that_grows_while_paging_is_read_until_it_is_complete() {
    let service = Service::start();
    service.sim.fault(&format!("{LIST}: grow")).unwrap();
    let row = service.run("zhihui-reports").row();
    assert_eq!(
        (&row["status"], &row["fetched"], &row["attempts"]),
        (&json!("success"), &json!(2464), &json!(1))
    );
}

#[test]
fn records_that_move_across_pages_count_once_and_a_smaller_page_size_loses_none() {
    let service = Service::start();
    service.sim.fault(&format!("{LIST}: duplicates")).unwrap();
    let row = service.run("zhihui-reports").row();
    assert_eq!(
        (&row["status"], &row["fetched"]),
        (&json!("success"), &json!(2434))
    );
    assert_eq!(service.count("oa.quality WHERE duplicates = 5"), 1);
    service.sim.clear_faults();
    service.sim.fault(&format!("{LIST}: cap 20")).unwrap();
    let row = service.run("zhihui-reports").row();
    assert_eq!(
        (&row["status"], &row["fetched"]),
        (&json!("success"), &json!(2434))
    );
}

#[test]
fn a_page_repeated_for_ever_comes_to_an_end() {
    let service = Service::start();
    service.configure("retries = 0\n");
    service.sim.fault(&format!("{LIST}: repeat-page")).unwrap();
    let row = service.run("zhihui-reports").row();
    assert_eq!(
        (&row["status"], &row["fetched"]),
        (&json!("partial"), &json!(100))
    );
    assert!(service.sim.requests().len() < 10);
}

#[test]
fn a_record_without_code_is_rejected_and_kept_with_its_reason() {
    let service = Service::start();
    // On days divisible by five one report has no variety code.
    let done = service.crawl(&[
        "run",
        "zhihui-reports",
        "--date",
        "2025-12-05",
        "--format",
        "json",
    ]);
    let row = done.row();
    assert_eq!(
        (&row["status"], &row["rejected"]),
        (&json!("success"), &json!(1))
    );
    let reject: Value = service
        .db()
        .query_one("SELECT to_jsonb(r) FROM oa.rejects r", &[])
        .unwrap()
        .get(0);
    assert_eq!(
        (&reject["field"], &reject["reason"], &reject["target"]),
        (
            &json!("varietyCode"),
            &json!("is empty"),
            &json!("research_reports")
        )
    );
    assert_eq!(reject["record"]["varietyCode"], "");
    assert_eq!(service.count("research_reports WHERE comm_code = ''"), 0);
}

#[test]
fn yesterdays_data_under_todays_address_are_no_success() {
    let service = Service::start();
    service.configure("retries = 0\n");
    service.sim.fault(&format!("{LIST}: stale")).unwrap();
    let row = service.run("zhihui-reports").row();
    assert_eq!(row["status"], "partial", "{row}");
    assert!(
        row["error"]
            .as_str()
            .unwrap()
            .contains("the site still shows another day")
    );
    assert_eq!(service.count("oa.quality WHERE fresh = false"), 1);
}

#[test]
fn a_row_that_postgresql_refuses_does_not_take_the_others_with_it() {
    let service = Service::start();
    service
        .db()
        .batch_execute("ALTER TABLE market_full_view ADD CHECK (comm_code <> 'RB')")
        .unwrap();
    let row = service.run("zhihui-full-view").row();
    assert_eq!(
        (&row["status"], &row["rejected"]),
        (&json!("success"), &json!(1))
    );
    assert!(
        service
            .text("SELECT reason FROM oa.rejects")
            .contains("violates check constraint")
    );
    // Checked at the commit: the run would fail with all its rows.
    service
        .db()
        .batch_execute(
            "ALTER TABLE market_full_view DROP CONSTRAINT market_full_view_comm_code_check;
             CREATE TABLE known (code text PRIMARY KEY); INSERT INTO known SELECT comm_code FROM market_full_view;
             ALTER TABLE market_full_view ADD CONSTRAINT is_known FOREIGN KEY (comm_code) REFERENCES known DEFERRABLE INITIALLY DEFERRED",
        )
        .unwrap();
    let row = service.run("zhihui-full-view").row();
    let stored = service.count("market_full_view");
    assert_eq!(
        (&row["status"], &row["unchanged"], &row["rejected"]),
        (&json!("success"), &json!(stored), &json!(1)),
        "{row}"
    );
    let reject = "SELECT concat_ws(' ', record ->> 'comm_code', reason) FROM oa.rejects r JOIN oa.runs ON runs.id = run_id ORDER BY runs.seq DESC LIMIT 1";
    let reject = service.text(reject);
    assert!(
        reject.starts_with("RB ") && reject.contains("\"is_known\""),
        "{reject}"
    );
    // More of them than max_rejected, and all: no success.
    service
        .db()
        .batch_execute(
            "ALTER TABLE market_full_view DROP CONSTRAINT is_known;
             CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.comm_code > coalesce(TG_ARGV[0], '') THEN RAISE 'no room for %', NEW.comm_code; END IF; RETURN NEW; END $$;
             CREATE TRIGGER later BEFORE INSERT ON market_full_view FOR EACH ROW EXECUTE FUNCTION later('M')",
        )
        .unwrap();
    let some = service.run("zhihui-full-view");
    assert_eq!(
        (some.code, &some.row()["status"]),
        (1, &json!("partial")),
        "{some:?}"
    );
    service
        .db()
        .batch_execute("DROP TRIGGER later ON market_full_view; CREATE TRIGGER later BEFORE INSERT ON market_full_view FOR EACH ROW EXECUTE FUNCTION later()")
        .unwrap();
    let none = service.run("zhihui-full-view");
    assert_eq!(
        (none.code, &none.row()["status"]),
        (1, &json!("failed")),
        "{none:?}"
    );
    let error = service
        .text("SELECT error_kind || ' ' || error_message FROM oa.runs ORDER BY seq DESC LIMIT 1");
    assert!(
        error.starts_with("invalid PostgreSQL refused all ") && error.contains("no room for"),
        "{error}"
    );
    let attempts = service.text("SELECT string_agg(DISTINCT a.outcome, ' ') FROM oa.attempts a JOIN oa.runs r ON r.id = a.run_id WHERE r.status = 'failed'");
    assert_eq!(attempts, "failed");
    assert_eq!(service.count("oa.incidents WHERE resolved_at IS NULL"), 1);
}

#[test]
fn a_dry_run_shows_what_would_be_stored_and_writes_nothing() {
    let service = Service::start();
    let done = service.crawl(&[
        "run",
        "zhihui-full-view",
        "--date",
        DAY,
        "--dry-run",
        "--format",
        "json",
    ]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(done.row()["example"]["record_date"], DAY);
    assert_eq!(
        (service.count("oa.runs"), service.count("market_full_view")),
        (0, 0)
    );
    assert!(!service.state().join("raw").exists());
}

/// The grants of docs/configuration.md.
#[test]
fn a_role_that_may_only_read_and_write_rows_is_enough() {
    let mut service = Service::start();
    let mut admin =
        postgres::Client::connect(&service.server.superuser_url(), postgres::NoTls).unwrap();
    admin
        .batch_execute(
            "CREATE ROLE oa_crawler LOGIN PASSWORD 'p'; GRANT USAGE ON SCHEMA oa, public TO oa_crawler;
             GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA oa, public TO oa_crawler;
             GRANT DELETE ON oa.raw TO oa_crawler",
        )
        .unwrap();
    service.configure("retries = 0\nraw_keep = \"1ms\"\n");
    service.url = service.url.replace("oa:oa-test-password", "oa_crawler:p");
    let tasks = ["zhihui-full-view", "zhihui-reports", "fangqi-morning"];
    let done = service.crawl(&[&["run"], &tasks[..], &["--date", DAY]].concat());
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(service.run("zhihui-full-view").row()["inserted"], 0);
    assert_eq!(
        service.count("oa.revisions WHERE table_name = 'market_full_view'"),
        service.count("market_full_view")
    );
    service.sim.fault(&format!("{VIEW}: 500")).unwrap();
    assert_eq!(service.run("zhihui-full-view").code, 1);
    service.sim.clear_faults();
    let done = service.run("zhihui-full-view");
    assert_eq!((done.code, &done.row()["status"]), (0, &json!("success")));
    assert_eq!(
        service.text("SELECT string_agg(kind, ' ' ORDER BY id) FROM oa.alerts"),
        "problem recovery",
        "its success resolves the incident and is stored"
    );
    let done = service.crawl(&["prune"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(service.count("oa.raw"), 0);
}

/// A successful run that many days ago, at this time of day.
fn happened(service: &Service, days_ago: i32, collected: i64) {
    service
        .db()
        .execute(
            "WITH run AS (
               INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at, finished_at)
               SELECT oa.uuid_floor(now() - make_interval(days => $1)), 'oa-crawl', 'zhihui-full-view', 'cron', '', '', '', 0, 0, '', 'success',
                      now() - make_interval(days => $1), now() - make_interval(days => $1) RETURNING id, started_at)
             INSERT INTO oa.quality (run_id, task, day, collected, duplicates, score)
             SELECT id, 'zhihui-full-view', (started_at AT TIME ZONE 'Asia/Shanghai')::date, $2, 0, 100 FROM run",
            &[&days_ago, &collected],
        )
        .unwrap();
}

#[test]
fn far_fewer_records_than_such_days_usually_have_are_no_success() {
    let service = Service::start();
    service.configure("retries = 0\n");
    service.sim.fault(&format!("{VIEW}: fewer")).unwrap();
    let run = || {
        service
            .crawl(&["run", "zhihui-full-view", "--format", "json"])
            .row()
    };
    assert_eq!(run()["status"], "success", "five of unknown many are five");
    // Of the weeks before, however many of those days were holidays.
    for week in 1..=8 {
        happened(&service, 7 * week, 75);
        happened(&service, 7 * week + 1, 5);
    }
    let row = run();
    assert_eq!(
        (&row["status"], &row["error_kind"]),
        (&json!("partial"), &json!("partial")),
        "{row}"
    );
    assert!(
        row["error"]
            .as_str()
            .unwrap()
            .contains("only 5 records came, such days usually have 75"),
        "{row}"
    );
    service.sim.clear_faults();
    // What the site has today counts as usual: at a weekend it is far below 75.
    let today = service.text("SELECT (now() AT TIME ZONE 'Asia/Shanghai')::date::text");
    let all = zhihui::full_view(1, today.parse().unwrap()).len();
    let usual = format!("UPDATE oa.quality SET collected = {all} WHERE collected = 75");
    service.db().batch_execute(&usual).unwrap();
    assert_eq!(run()["status"], "success");
    // What is collected for another day has no such history.
    service.sim.fault(&format!("{VIEW}: fewer")).unwrap();
    assert_eq!(service.run("zhihui-full-view").row()["status"], "success");
}

#[test]
fn several_sources_run_together_and_each_has_its_line() {
    let service = Service::start();
    service.configure("retries = 0\n");
    let tasks = |done: &common::Done| -> Vec<String> {
        let rows = done.rows();
        rows.iter()
            .filter(|r| r["state"] != "off")
            .map(|r| r["task"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = service.crawl(&["list", "--format", "json"]);
    let ran = service.crawl(&["run", "--all", "--format", "json"]);
    assert_eq!(tasks(&ran), tasks(&all), "{ran:?}");
    assert_eq!(service.count("oa.runs"), ran.rows().len() as i64);
}

#[test]
fn an_operators_source_file_replaces_the_built_in_one() {
    let service = Service::start();
    let folder = service.dir.path().join("sources");
    std::fs::create_dir(&folder).unwrap();
    let text = include_str!("../sources/zhihui-full-view.toml")
        .replace("/api/report/overallView", "/api/v2/overallView");
    std::fs::write(folder.join("mine.toml"), text).unwrap();
    let done = service.crawl(&[
        "run",
        "zhihui-full-view",
        "--sources",
        folder.to_str().unwrap(),
        "--format",
        "json",
    ]);
    assert!(
        done.row()["error"]
            .as_str()
            .unwrap()
            .contains("/api/v2/overallView"),
        "{done:?}"
    );
}

#[test]
fn real_days_are_stored_as_they_were_collected() {
    let Some(shared) = oa_testkit::shared_data() else {
        return;
    };
    let days = shared.join("zhihui");
    let service = Service::without_schema(Options {
        days: Some(days.clone()),
        ..Options::default()
    });
    let mut client = service.db();
    oa_core::pg::schema::upgrade(&mut client).unwrap();
    oa_core::service::create_missing(&mut client).unwrap();
    for (day, count) in [("2025-11-26", 73), ("2025-11-29", 8), ("2025-12-01", 75)] {
        let row = service
            .crawl(&["run", "zhihui-full-view", "--date", day, "--format", "json"])
            .row();
        assert_eq!(
            (&row["status"], &row["inserted"], &row["rejected"]),
            (&json!("success"), &json!(count), &json!(0)),
            "{day}"
        );
        let file = days.join(format!("{}_多空全景.json", day.replace('-', "")));
        let real: Vec<Value> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        for record in real {
            let stored: Value = client
                .query_one(
                    "SELECT to_jsonb(t) FROM market_full_view t WHERE comm_code = $1 AND record_date = $2::text::date",
                    &[&record["variety_code"].as_str().unwrap(), &day],
                )
                .unwrap()
                .get(0);
            for (column, field) in [
                ("excessive_ratio", "excessive_ratio"),
                ("total_num", "sum"),
                ("more_port", "more_port"),
                ("main_sentiment", "main_sentiment"),
            ] {
                assert_eq!(stored[column].as_f64(), record[field].as_f64(), "{record}");
                assert_eq!(stored[column].as_str(), record[field].as_str(), "{record}");
            }
        }
    }
    let row = service
        .crawl(&["run", "zhihui-reports", "--date", DAY, "--format", "json"])
        .row();
    assert_eq!(
        (&row["status"], &row["inserted"]),
        (&json!("success"), &json!(100))
    );
}
