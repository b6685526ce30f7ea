#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;
use crate::source::parse;

fn full_view() -> Source {
    parse("x", include_str!("../../sources/zhihui-full-view.toml")).unwrap()
}

fn record() -> Value {
    json!({"varietyCode": "rb", "varietyName": "螺纹钢", "excessiveRate": 50.0, "neutralRate": 25.0, "emptyRate": 25.0,
           "excessiveNum": 2, "neutralNum": 1, "emptyNum": 1, "sum": 4, "morePort": "偏多", "moreRate": 50.0})
}

fn with(field: &str, value: Value) -> Value {
    let mut record = record();
    record[field] = value;
    record
}

fn validated(source: &Source, time: CollectionTime, records: &[Value]) -> Validated {
    validate(source, time, &records.to_vec().into()).unwrap()
}

fn run(records: &[Value]) -> Validated {
    let time = CollectionTime::now("2025-12-01".parse().unwrap());
    validated(&full_view(), time, records)
}

fn reason(record: Value) -> (Option<String>, String) {
    let done = run(&[record, super::tests::record()]);
    assert_eq!(done.rejects.len(), 1, "{done:?}");
    (
        done.rejects[0].field.clone(),
        done.rejects[0].reason.clone(),
    )
}

#[test]
fn a_good_record_becomes_a_row_in_the_order_of_the_fields() {
    let done = run(&[record()]);
    assert_eq!(columns(&full_view())[0], "comm_code");
    assert_eq!(
        done.rows.to_vec().unwrap(),
        [vec![
            json!("RB"),
            json!("螺纹钢"),
            json!("2025-12-01"),
            json!(2),
            json!(50.0),
            json!(1),
            json!(25.0),
            json!(1),
            json!(25.0),
            json!(4),
            json!("偏多"),
            json!(50.0),
            json!("bull")
        ]]
    );
    assert!(done.rejects.is_empty() && done.findings.is_empty());
}

#[test]
fn bad_records_are_rejected_with_field_and_reason() {
    assert_eq!(
        reason(with("varietyCode", json!(""))),
        (Some("varietyCode".into()), "is empty".into())
    );
    assert_eq!(
        reason(with("varietyCode", json!("  "))),
        (Some("varietyCode".into()), "is empty".into())
    );
    assert_eq!(
        reason(with("varietyCode", Value::Null)),
        (Some("varietyCode".into()), "is absent".into())
    );
    assert_eq!(
        reason(with("excessiveRate", json!(101))),
        (Some("excessiveRate".into()), "is 101, above 100".into())
    );
    assert_eq!(
        reason(with("excessiveNum", json!(-1))),
        (Some("excessiveNum".into()), "is -1, below 0".into())
    );
    assert_eq!(
        reason(with("excessiveNum", json!(1.5))),
        (
            Some("excessiveNum".into()),
            "is 1.5, which is not a whole number".into()
        )
    );
    assert_eq!(
        reason(with("excessiveNum", json!("many"))),
        (
            Some("excessiveNum".into()),
            "is \"many\", which is not a number".into()
        )
    );
    assert_eq!(
        reason(with("sum", json!(5))).1,
        "excessive_num + neutral_num + empty_num add up to 4, but total_num is 5"
    );
    assert!(
        reason(with("varietyName", json!("a\u{0}b")))
            .1
            .contains("U+0000")
    );
    assert!(
        reason(with("varietyName", json!("长".repeat(51))))
            .1
            .contains("51 characters, 50 are allowed")
    );
    assert!(reason(json!("text")).1.contains("not an object"));
}

#[test]
fn a_number_that_came_as_text_is_converted_and_noted() {
    let done = run(&[with("excessiveNum", json!("2"))]);
    assert_eq!(done.rows.to_vec().unwrap()[0][3], json!(2));
    assert!(
        done.findings[0].starts_with("field excessiveNum came as text"),
        "{:?}",
        done.findings
    );
}

#[test]
fn the_same_record_twice_counts_once_and_a_different_one_is_rejected() {
    let done = run(&[record(), record(), with("morePort", json!("偏空"))]);
    assert_eq!(
        (done.rows.len(), done.duplicates, done.rejects.len()),
        (1, 1, 1)
    );
    assert!(
        done.rejects[0]
            .reason
            .contains("same comm_code and record_date")
    );
}

#[test]
fn a_field_that_vanished_from_all_records_is_a_change_of_shape() {
    let mut renamed = record();
    let value = renamed
        .as_object_mut()
        .unwrap()
        .remove("excessiveNum")
        .unwrap();
    renamed["bullNum"] = value;
    assert_eq!(
        run(&[renamed.clone(), renamed]).missing_everywhere,
        ["excessiveNum"]
    );
}

#[test]
fn unknown_views_are_neutral() {
    for (view, sentiment) in [
        ("看空", "bear"),
        ("偏多", "bull"),
        ("中性", "neutral"),
        ("观望", "neutral"),
    ] {
        assert_eq!(
            run(&[with("morePort", json!(view))]).rows.to_vec().unwrap()[0][12],
            json!(sentiment)
        );
    }
}

/// The full view with more said of a field, as TOML lines.
fn with_rule(column: &str, rule: &str) -> Source {
    let text = include_str!("../../sources/zhihui-full-view.toml");
    let line = format!("column = \"{column}\"\n");
    assert!(text.contains(&line));
    parse("x", &text.replace(&line, &format!("{line}{rule}\n"))).unwrap()
}

#[test]
fn rules_of_a_field_reject_what_breaks_them() {
    let time = CollectionTime::now("2025-12-01".parse().unwrap());
    let reasons = |source: &Source, record: Value| -> Vec<String> {
        let done = validated(source, time, &[record]);
        done.rejects.into_iter().map(|r| r.reason).collect()
    };
    let ports = with_rule("more_port", "one_of = [\"偏多\", \"偏空\"]");
    assert!(reasons(&ports, record()).is_empty());
    assert!(reasons(&ports, with("morePort", Value::Null)).is_empty());
    assert_eq!(
        reasons(&ports, with("morePort", json!("震荡"))),
        ["is \"震荡\", which is not one of 偏多, 偏空"]
    );
    let codes = with_rule("comm_code", "pattern = \"^[A-Z]{1,2}$\"");
    assert!(reasons(&codes, record()).is_empty());
    assert_eq!(
        reasons(&codes, with("varietyCode", json!("RB2601"))),
        ["is \"RB2601\", which does not match ^[A-Z]{1,2}$"]
    );
}

#[test]
fn the_worst_broken_rule_counts_whatever_its_record_is() {
    let time = CollectionTime::now("2025-12-01".parse().unwrap());
    let worst = |rule: &str| {
        let source = with_rule("more_port", rule);
        let records = [
            with("varietyCode", Value::Null),
            with("morePort", json!("x")),
        ];
        validated(&source, time, &records).worst
    };
    assert_eq!(worst("one_of = [\"偏多\"]"), None);
    let (on_bad, text) = worst("one_of = [\"偏多\"]\non_bad = \"partial\"").unwrap();
    assert_eq!(
        (on_bad, text.as_str()),
        (
            OnBad::Partial,
            "morePort is \"x\", which is not one of 偏多"
        )
    );
    let (on_bad, _) = worst("one_of = [\"偏多\"]\non_bad = \"fail\"").unwrap();
    assert_eq!(on_bad, OnBad::Fail);
}
