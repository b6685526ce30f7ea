//! The service's own legacy database.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;

use std::path::PathBuf;

use support::{Sandbox, table, warnings};

fn legacy() -> Option<PathBuf> {
    oa_testkit::shared_data().map(|d| d.join("option_tracker.db"))
}

#[test]
fn the_service_keeps_working_on_the_moved_tables() {
    let Some(file) = legacy() else { return };
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    let report = sandbox.migrate(&file, &[]).expect(0).report();
    assert_eq!(report["status"], "success");
    assert_eq!(report["matched"], true);
    for table in report["tables"].as_array().unwrap() {
        assert_eq!(table["rows_read"], table["rows_loaded"], "{table}");
        assert_eq!(table["source_hash"], table["target_hash"], "{table}");
        assert_eq!(table["source_hash"].as_str().unwrap().len(), 64);
    }
    assert_eq!(table(&report, "option_flows")["rows_loaded"], 20_000);

    // It inserts without an id, and the crawlers' own columns are there.
    let id = sandbox.number(
        "INSERT INTO fundamental_reports (comm_code, rating) VALUES ('RB', '多') RETURNING id::int8",
    );
    assert_eq!(
        id,
        table(&report, "fundamental_reports")["rows_loaded"]
            .as_i64()
            .unwrap()
            + 1
    );
    assert_eq!(
        sandbox.texts(
            "SELECT data_type::text FROM information_schema.columns WHERE table_name = 'technical_indicators'
             AND table_schema = 'public' AND column_name IN ('rsi', 'record_time') ORDER BY column_name"
        ),
        ["timestamp without time zone", "double precision"]
    );
    let indexes = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'public' AND indexname IN \
                   ('market_full_view_key', 'research_reports_key', 'ix_option_flows_record_time')";
    assert_eq!(sandbox.number(indexes), 3);
}

#[test]
fn duplicate_natural_keys_are_loaded_and_reported() {
    let Some(file) = legacy() else { return };
    let sandbox = Sandbox::new();
    // Without init: run makes what it needs.
    let report = sandbox.migrate(&file, &[]).expect(0).report();
    let found = warnings(&report, "institutional_positions");
    assert!(found.contains("13 natural key(s)"), "{found}");
    assert!(
        found.contains("oa-migrate dedupe institutional_positions"),
        "{found}"
    );
    assert_eq!(
        sandbox.number("SELECT count(*) FROM institutional_positions"),
        223
    );
    assert_eq!(
        sandbox
            .number("SELECT count(*) FROM information_schema.columns WHERE column_name = 'rating'"),
        1
    );
}

#[test]
fn a_second_run_is_refused_and_replace_keeps_the_first() {
    let Some(file) = legacy() else { return };
    let sandbox = Sandbox::new();
    sandbox.migrate(&file, &[]).expect(0);
    let before = sandbox.picture();
    let refused = sandbox.migrate(&file, &[]).expect(77);
    assert!(refused.stderr.contains("--replace"), "{}", refused.stderr);
    assert_eq!(sandbox.picture(), before);

    sandbox
        .client()
        .execute("UPDATE commodities SET name = 'changed' WHERE id = 1", &[])
        .unwrap();
    sandbox.migrate(&file, &["--replace"]).expect(0);
    let kept = sandbox
        .texts("SELECT nspname::text FROM pg_namespace WHERE starts_with(nspname, 'oa_before_')");
    assert_eq!(
        sandbox.texts(&format!(
            "SELECT name::text FROM {}.commodities WHERE id = 1",
            kept[0]
        )),
        ["changed"]
    );
    assert_eq!(
        sandbox.texts("SELECT name::text FROM commodities WHERE id = 1"),
        ["豆一"]
    );
}

#[test]
fn a_rehearsal_proves_everything_and_keeps_nothing() {
    let Some(file) = legacy() else { return };
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    let before = sandbox.picture();
    let report = sandbox.migrate(&file, &["--rehearse"]).expect(0).report();
    assert_eq!(report["matched"], true);
    assert_eq!(sandbox.picture(), before);
    assert_eq!(sandbox.number("SELECT count(*) FROM option_flows"), 0);
}
