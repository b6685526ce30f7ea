//! Sources whose answers are HTML tables.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use common::Service;
use serde_json::json;

const INDICATORS: &str = "/rdqh/indicators";

#[test]
fn a_table_in_gbk_is_stored_and_a_second_run_changes_nothing() {
    let service = Service::start();
    let row = service.run("rdqh-indicators").row();
    assert_eq!(
        (&row["status"], &row["inserted"]),
        (&json!("success"), &json!(50)),
        "{row}"
    );
    assert_eq!(
        service.count("technical_indicators t, oa.runs r WHERE record_time::text = (details ->> 'day') || ' 15:00:00'"),
        50
    );
    assert_eq!(
        service.count("technical_indicators WHERE rsi BETWEEN 0 AND 100 AND ma >= 500"),
        50
    );
    assert_eq!(service.run("rdqh-indicators").row()["unchanged"], 50);
    assert_eq!(
        service.text("SELECT jsonb_array_length(findings)::text FROM oa.quality LIMIT 1"),
        "4",
        "numbers that came as text: {}",
        service.text("SELECT findings::text FROM oa.quality LIMIT 1")
    );
}

#[test]
fn every_fault_of_a_table_is_named() {
    let service = Service::start();
    service.configure("retries = 1\n");
    for (fault, kind, attempts) in [
        ("empty", "empty", 2),
        ("soft-block", "blocked", 2),
        ("redirect-login", "auth", 1),
        ("500", "http_5xx", 2),
        ("truncate", "network", 2),
    ] {
        service.sim.clear_faults();
        service
            .sim
            .fault(&format!("{INDICATORS}: {fault}"))
            .unwrap();
        let row = service.run("rdqh-indicators").row();
        assert_eq!(
            (row["error_kind"].as_str(), row["attempts"].as_u64()),
            (Some(kind), Some(attempts)),
            "{fault}: {row}"
        );
    }
    assert_eq!(service.count("technical_indicators"), 0);
}
