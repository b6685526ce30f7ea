//! Answers that hold their records in several lists: 方期看盘 and the varieties of 智汇期讯.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;

use common::{DAY, Service};
use oa_sim::sites::fangqi;
use serde_json::{Value, json};

const RATINGS: &str = "/fangqi/pc/jiandaoyun/ratingprediction/list";

#[test]
fn ratings_of_both_lists_are_stored_with_what_their_list_means() {
    let service = Service::start();
    for (task, opening, kind, time) in [
        ("fangqi-morning", "早盘提示", "morning", "08:50:00"),
        ("fangqi-night", "夜盘提示", "night", "20:50:00"),
    ] {
        let (up, down) = fangqi::ratings(1, DAY.parse().unwrap(), opening);
        let row = service.run(task).row();
        assert_eq!(
            (&row["status"], &row["inserted"]),
            (&json!("success"), &json!(up.len() + down.len())),
            "{row}"
        );
        let mut db = service.db();
        for (served, rating, sentiment) in up
            .iter()
            .map(|r| (r, "多", "bull"))
            .chain(down.iter().map(|r| (r, "空", "bear")))
        {
            let code = served["smallbreedscode"].as_str().unwrap().to_uppercase();
            let stored: Value = db
                .query_one(
                    "SELECT to_jsonb(t) FROM fundamental_reports t WHERE comm_code = $1 AND report_type = $2",
                    &[&code, &kind],
                )
                .unwrap()
                .get(0);
            assert_eq!(
                (&stored["source"], &stored["rating"], &stored["sentiment"]),
                (&json!("founderfu"), &json!(rating), &json!(sentiment))
            );
            assert_eq!(stored["content_summary"], served["ratingforecast"]);
            assert_eq!(stored["publish_time"], format!("{DAY}T{time}"));
        }
        let again = service.run(task).row();
        assert_eq!(
            (&again["inserted"], &again["updated"], &again["unchanged"]),
            (&json!(0), &json!(0), &row["inserted"])
        );
    }
    assert_eq!(
        service.count("oa.quality WHERE expected = collected AND score = 100"),
        4
    );
}

#[test]
fn a_list_shorter_than_its_count_is_stored_but_no_success() {
    let service = Service::start();
    service.configure("retries = 1\n");
    service.sim.fault(&format!("{RATINGS}: fewer")).unwrap();
    let row = service.run("fangqi-morning").row();
    assert_eq!(
        (&row["status"], &row["error_kind"], &row["attempts"]),
        (&json!("partial"), &json!("partial"), &json!(2))
    );
    let error = row["error"].as_str().unwrap();
    assert!(error.contains("/data/manyCount announces"), "{error}");
    assert!(row["inserted"].as_u64().unwrap() > 0);
    assert_eq!(service.count("oa.alerts"), 1);
}

#[test]
fn every_fault_of_the_ratings_is_named() {
    let service = Service::start();
    service.configure("retries = 1\n");
    for (fault, kind, attempts) in [
        ("expired-token", "auth", 1),
        ("empty", "empty", 2),
        ("stale", "empty", 2),
        ("500", "http_5xx", 2),
        ("soft-block", "blocked", 2),
        ("truncate", "network", 2),
        ("rename manyList=bullList", "shape", 1),
        ("rename manyCount=count", "shape", 1),
        ("rename code=status", "shape", 1),
        ("rename smallbreedscode=breedcode", "shape", 1),
        ("rename ratingforecast=view", "shape", 1),
        ("rename date=day", "empty", 2),
    ] {
        service.sim.clear_faults();
        service.sim.fault(&format!("{RATINGS}: {fault}")).unwrap();
        let row = service.run("fangqi-night").row();
        assert_eq!(
            (row["error_kind"].as_str(), row["attempts"].as_u64()),
            (Some(kind), Some(attempts)),
            "{fault}: {row}"
        );
        assert_eq!(row["status"], "failed", "{fault}: {row}");
    }
    assert_eq!(service.count("fundamental_reports"), 0);
    for fault in ["stringify manyCount", "stringify code", "gbk", "bom"] {
        service.sim.clear_faults();
        service.sim.fault(&format!("{RATINGS}: {fault}")).unwrap();
        assert_eq!(service.run("fangqi-night").code, 0, "{fault}");
    }
}

#[test]
fn a_crontab_line_does_nothing_on_an_evening_without_a_night_session() {
    let service = Service::start();
    // Every day of this and the next year is closed, so that today is, whatever day the test runs on.
    let today = (chrono::Utc::now() + chrono::TimeDelta::hours(8)).date_naive();
    let closed = format!(
        "[[year]]\nyear = {}\nclosed = [\"{today}\"]\n",
        today.format("%Y")
    );
    let calendar = service.dir.path().join("calendar.toml");
    fs::write(&calendar, closed).unwrap();
    let text = fs::read_to_string(service.config()).unwrap();
    fs::write(
        service.config(),
        format!("calendar = \"calendar.toml\"\n{text}"),
    )
    .unwrap();
    let done = service.crawl(&["run", "fangqi-night", "--cron", "--format", "json"]);
    assert_eq!(
        (done.code, &done.row()["status"]),
        (0, &json!("skipped")),
        "{done:?}"
    );
    assert!(service.sim.requests().is_empty());
    assert_eq!(service.count("oa.runs WHERE status = 'skipped'"), 1);
    assert_eq!(service.count("oa.tasks WHERE lease_run_id IS NOT NULL"), 0);
    // Somebody who asks for it by hand gets it.
    assert_eq!(service.crawl(&["run", "fangqi-night"]).code, 0);
}

#[test]
fn varieties_are_read_out_of_their_groups_and_one_in_two_groups_counts_once() {
    let service = Service::start();
    let row = service.run("zhihui-varieties").row();
    assert_eq!(
        (&row["status"], &row["fetched"], &row["inserted"]),
        (&json!("success"), &json!(76), &json!(75))
    );
    assert_eq!(
        service.text("SELECT name || category FROM commodities WHERE code = 'RB'"),
        "螺纹黑色"
    );
    assert_eq!(service.count("oa.quality WHERE duplicates = 1"), 1);
    let again = service.run("zhihui-varieties").row();
    assert_eq!(again["unchanged"], json!(75));
}

#[test]
fn a_list_of_varieties_that_is_far_too_short_is_no_success() {
    let service = Service::start();
    service.configure("retries = 0\n");
    let list = "/zhihui/api/public/variety/list";
    for (fault, status, kind) in [
        ("empty", "failed", "empty"),
        ("expired-token", "failed", "auth"),
        ("rename varietyList=list", "failed", "shape"),
        ("fewer", "partial", "partial"),
    ] {
        service.sim.clear_faults();
        service.sim.fault(&format!("{list}: {fault}")).unwrap();
        let row = service.run("zhihui-varieties").row();
        assert_eq!(
            (&row["status"], &row["error_kind"]),
            (&json!(status), &json!(kind)),
            "{fault}: {row}"
        );
    }
    assert!(
        service
            .text("SELECT error_message FROM oa.runs WHERE status = 'partial'")
            .contains("only 31 records came, at least 50 were due")
    );
}
