//! Numbers are stored with the digits that came, and one bad value costs one record.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;

use common::{Done, Service};

fn start() -> Service {
    let service = Service::start();
    let table = "CREATE TABLE public.exact (code text PRIMARY KEY, price numeric, rounded numeric(12,2), approx double precision, whole bigint, note text)";
    service.db().batch_execute(table).unwrap();
    let field = |column: &str, of_type: &str| {
        format!("  {{ column = \"{column}\", from = \"{column}\", type = \"{of_type}\" }},\n")
    };
    let fields: String = [
        ("price", "number"),
        ("rounded", "number"),
        ("approx", "number"),
        ("whole", "integer"),
        ("note", "text"),
    ]
    .map(|(column, of_type)| field(column, of_type))
    .concat();
    let records = service.dir.path().join("records");
    let text = format!(
        r#"
name = "exact"
title = "精确"
provider = "own"
schedule = "0 9 * * *"
max_rejected = 1.0
fetch = {{ kind = "command", command = ["cat", "{}"] }}
store = {{ table = "exact", unique = ["code"], key = ["code"] }}
fields = [
  {{ column = "code", from = "code", type = "text", required = true }},
{fields}]
"#,
        records.display()
    );
    service.add("exact", &text);
    service
}

fn run(service: &Service, records: &str) -> Done {
    fs::write(service.dir.path().join("records"), records).unwrap();
    service.crawl(&["run", "exact", "--format", "json"])
}

fn record(code: &str, number: &str) -> String {
    format!(
        "{{\"code\": \"{code}\", \"price\": {number}, \"rounded\": 1, \"approx\": 1, \"whole\": 1, \"note\": \"\"}}\n"
    )
}

#[test]
fn every_digit_of_a_decimal_is_stored_and_compared() {
    let service = start();
    let numbers = [
        "1234567.890123456789",
        "12345678901234567891",
        "-0.000000000000000000012345678901234567890123456789",
        "123456789012345678901234567890.5",
        "0.1",
        "1.10",
        "9007199254740993",
        "1e30",
    ];
    let lines = |tail: &str| -> String {
        let all = numbers.iter().enumerate();
        all.map(|(i, n)| {
            record(&format!("N{i}"), &format!("{n}{tail}"))
                + &record(&format!("T{i}"), &format!("\"{n}{tail}\""))
        })
        .collect()
    };
    let row = run(&service, &lines("")).row();
    assert_eq!(
        (&row["status"], &row["inserted"]),
        (&"success".into(), &16.into()),
        "{row}"
    );
    for (i, number) in numbers.iter().enumerate() {
        let same =
            format!("public.exact WHERE code IN ('N{i}', 'T{i}') AND price = {number}::numeric");
        assert_eq!(service.count(&same), 2, "{number}");
    }
    assert_eq!(run(&service, &lines("")).row()["unchanged"], 16);
    // A change of the last digit only.
    let changed = lines("").replace(" 1234567.890123456789,", " 1234567.890123456788,");
    let row = run(&service, &changed).row();
    assert_eq!(
        (&row["updated"], &row["unchanged"]),
        (&1.into(), &15.into()),
        "{row}"
    );
    let day = service.text("SELECT details ->> 'day' FROM oa.runs LIMIT 1");
    service
        .db()
        .batch_execute(
            "UPDATE public.exact SET price = price + 0.0000000000000001 WHERE code = 'N0'",
        )
        .unwrap();
    let replay = service.crawl(&["replay", "exact", "--date", &day, "--format", "json"]);
    let row = replay.row();
    assert_eq!(
        row["changes"][0]["columns"]["price"]["from"], "1234567.8901234567880001",
        "{row}"
    );
    assert_eq!(
        row["changes"][0]["columns"]["price"]["to"], "1234567.890123456788",
        "{row}"
    );
}

#[test]
fn what_a_column_cannot_hold_is_said() {
    let service = start();
    let line = r#"{"code": "RB", "price": "1234567.890123456789", "rounded": 1.239, "approx": 1234567.890123456789, "whole": 1, "note": 1.10}"#;
    assert_eq!(run(&service, line).code, 0);
    let findings = service.findings();
    for column in [
        "column rounded is numeric(12,2)",
        "column approx is double precision",
    ] {
        assert!(findings.contains(column), "{findings}");
    }
    assert!(!findings.contains("column price"), "{findings}");
    assert_eq!(
        service.text("SELECT note FROM public.exact"),
        "1.10",
        "as it came"
    );
}

#[test]
fn one_bad_value_rejects_its_record_and_no_other() {
    let service = start();
    let bad = [
        ("A", "NaN"),
        ("B", "Infinity"),
        ("C", "1e400"),
        ("D", "\"x\\ud800\""),
        ("E", "\"a\tb\""),
        ("F", "\"\\q\""),
    ];
    let lines: String = bad
        .iter()
        .map(|(code, value)| record(code, value))
        .collect();
    let whole = record("G", "1").replace("\"whole\": 1", "\"whole\": 9223372036854775808");
    let kept = record("H", "12345678901234567890.123").replace("\"whole\": 1", "\"whole\": 1.5");
    let row = run(
        &service,
        &format!("{lines}{whole}{kept}{}", record("OK", "1")),
    )
    .row();
    assert_eq!(
        (&row["inserted"], &row["rejected"]),
        (&1.into(), &8.into()),
        "{row}"
    );
    assert_eq!(service.text("SELECT code FROM public.exact"), "OK");
    for (code, says) in [
        ("A", "NaN"),
        ("C", "1e400"),
        ("D", "x\\ud800"),
        ("G", "64 bits"),
    ] {
        let reason = format!("SELECT reason FROM oa.rejects WHERE source_key = '{code}'");
        assert!(
            service.text(&reason).contains(says),
            "{}",
            service.text(&reason)
        );
    }
    let digits = "SELECT record ->> 'price' || jsonb_typeof(record -> 'price') FROM oa.rejects WHERE source_key = 'H'";
    assert_eq!(service.text(digits), "12345678901234567890.123number");
}

#[test]
fn a_column_of_single_precision_says_what_it_loses() {
    let service = start();
    service
        .db()
        .batch_execute("ALTER TABLE public.exact ALTER COLUMN approx TYPE real")
        .unwrap();
    let of =
        |value: &str| record("A", "1").replace("\"approx\": 1", &format!("\"approx\": {value}"));
    for exact in ["1", "0.5", "16777216", "0.1", "-0", "1e-7", "4123.5"] {
        assert_eq!(run(&service, &of(exact)).code, 0, "{exact}");
        assert!(
            !service.findings().contains("approx"),
            "{exact}: {}",
            service.findings()
        );
    }
    for lost in ["16777217", "4123.54321", "0.10000000149011612"] {
        assert_eq!(run(&service, &of(lost)).code, 0, "{lost}");
        assert!(
            service.findings().contains("column approx is real"),
            "{lost}: {}",
            service.findings()
        );
    }
}

#[test]
fn names_that_nobody_can_store_cost_their_records_and_no_run() {
    let service = start();
    let long = "x".repeat(100_000);
    let records = [
        record("A", "1"),
        record("B", "1").replace("\"note\"", "\"no\\u0000te\""),
        record("C", "1").replace("\"note\"", &format!("\"\\u001b[31m{long}\"")),
        record("D", "1").replace("\"note\": \"\"", "\"n\\u0000\": NaN"),
        record("E\\u0000", "1"),
        record(&long, "1").replace("\"whole\": 1", "\"whole\": \"x\""),
    ]
    .concat();
    for _ in 0..2 {
        let done = run(&service, &records);
        assert_eq!(done.row()["error"], serde_json::Value::Null, "{done:?}");
        assert_eq!(done.code, 0, "{done:?}");
    }
    assert_eq!(
        service.text("SELECT string_agg(code, ' ' ORDER BY code) FROM exact"),
        "A B C"
    );
    assert_eq!(service.count("oa.rejects"), 6);
    assert_eq!(
        service.count("oa.rejects WHERE length(source_key) > 4096 OR length(field) > 4096 OR length(reason) > 4096"),
        0
    );
    assert_eq!(
        service
            .text("SELECT (length(shape::text) < 1000)::text FROM oa.tasks WHERE name = 'exact'"),
        "true"
    );
}
