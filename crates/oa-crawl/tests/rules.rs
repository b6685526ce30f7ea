//! Rules of a source's fields, and what a site changes without a word.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;

use common::{DAY, Done, Service};
use serde_json::{Value, json};

/// A source whose records are the lines of a file.
struct Quotes(Service);

impl Quotes {
    fn start(rule: &str) -> Self {
        let service = Service::start();
        let folder = service.dir.path().join("own");
        fs::create_dir(&folder).unwrap();
        let file = service.dir.path().join("records");
        let text = format!(
            r#"
name = "quotes"
title = "报价"
provider = "own"
schedule = "0 9 * * *"
max_rejected = 0.6
fetch = {{ kind = "command", command = ["cat", "{}"] }}
alert_after = 3
store = {{ table = "quotes", unique = ["code"], key = ["code"] }}

[[fields]]
column = "code"
from = "code"
type = "text"
required = true

[[fields]]
column = "side"
from = "side"
type = "text"
{rule}
"#,
            file.display()
        );
        fs::write(folder.join("quotes.toml"), text).unwrap();
        let table = "CREATE TABLE public.quotes (code text PRIMARY KEY, side text)";
        service.db().batch_execute(table).unwrap();
        service.configure("sources = \"own\"\nretries = 0\n");
        Self(service)
    }

    fn run(&self, records: &[Value]) -> Done {
        let lines: Vec<String> = records.iter().map(Value::to_string).collect();
        fs::write(self.0.dir.path().join("records"), lines.join("\n")).unwrap();
        let arguments = ["run", "quotes", "--format", "json"];
        let mut command = self.0.command(&arguments);
        let output = command.current_dir(self.0.dir.path()).output();
        output.unwrap().into()
    }

    /// Of the last run.
    fn findings(&self) -> Vec<String> {
        let row = self.0.db().query_one(
            "SELECT ARRAY(SELECT jsonb_array_elements_text(findings)) FROM oa.quality ORDER BY run_id DESC LIMIT 1",
            &[],
        );
        row.unwrap().get(0)
    }
}

#[test]
fn a_rule_says_what_becomes_of_the_record_and_of_the_run() {
    let records = [
        json!({"code": "RB", "side": "多"}),
        json!({"code": "HC", "side": "?"}),
    ];
    for (on_bad, status, stored) in [
        ("reject", "success", 1),
        ("partial", "partial", 1),
        ("fail", "failed", 0),
    ] {
        let quotes = Quotes::start(&format!("one_of = [\"多\", \"空\"]\non_bad = \"{on_bad}\""));
        let row = quotes.run(&records).row();
        assert_eq!(row["status"], status, "{row}");
        assert_eq!(quotes.0.count("public.quotes"), stored, "{on_bad}");
        if on_bad == "reject" {
            assert_eq!(
                quotes.0.text("SELECT reason FROM oa.rejects"),
                "is \"?\", which is not one of 多, 空"
            );
        } else {
            assert_eq!(row["error_kind"], "invalid", "{row}");
            let error = row["error"].as_str().unwrap();
            assert!(
                error.ends_with("(on_bad): side is \"?\", which is not one of 多, 空"),
                "{error}"
            );
        }
    }
}

#[test]
fn fields_that_appear_vanish_or_change_are_findings_once() {
    let quotes = Quotes::start("");
    let first = [json!({"code": "RB", "side": "多", "rate": 1})];
    assert_eq!(quotes.run(&first).code, 0);
    assert_eq!(quotes.findings(), Vec::<String>::new());
    let second = [json!({"code": "RB", "side": "多", "rate": "1%", "rank": [1]})];
    for findings in [
        vec![
            "field rank is new in the records, for example: [1]",
            "field rate is a text where it was a number, for example: \"1%\"",
        ],
        vec![],
    ] {
        assert_eq!(quotes.run(&second).code, 0);
        assert_eq!(quotes.findings(), findings);
    }
    assert_eq!(
        quotes
            .run(&[json!({"code": "RB", "side": "多", "rate": 2})])
            .code,
        0
    );
    assert_eq!(
        quotes.findings(),
        ["field rank is in none of the records any more"]
    );
}

#[test]
fn a_conditional_source_reads_what_it_has_when_the_site_says_that_nothing_changed() {
    let service = Service::start();
    let folder = service.export_sources();
    let folder = folder.as_str();
    let file = format!("{folder}/zhihui-reports.toml");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace("kind = \"http\"\n", "kind = \"http\"\nconditional = true\n");
    fs::write(&file, text).unwrap();
    let run = || {
        let arguments = [
            "run",
            "zhihui-reports",
            "--date",
            DAY,
            "--sources",
            folder,
            "--format",
            "json",
        ];
        service.crawl(&arguments).row()
    };
    let count = |status: i32| service.count(&format!("oa.raw WHERE status = {status}"));
    assert_eq!(run()["inserted"], 2434);
    assert_eq!((count(200), count(304)), (25, 0));
    assert_eq!(run()["unchanged"], 2434);
    assert_eq!((count(200), count(304)), (25, 25));
    let replayed = service
        .crawl(&[
            "replay",
            "zhihui-reports",
            "--date",
            DAY,
            "--format",
            "json",
        ])
        .row();
    assert_eq!(
        (&replayed["answers"], &replayed["unchanged"]),
        (&json!(25), &json!(2434))
    );
    // A body that is damaged or gone is asked for again.
    let first = service.text("SELECT sha256 FROM oa.raw ORDER BY run_id, seq LIMIT 1");
    let body = service
        .state()
        .join("raw")
        .join(&first[..2])
        .join(format!("{first}.zst"));
    fs::write(&body, "damaged").unwrap();
    assert_eq!(run()["status"], "success");
    assert_eq!((count(200), count(304)), (26, 49));
    assert_ne!(fs::read(&body).unwrap(), b"damaged", "kept anew");
}

#[test]
fn a_source_that_runs_each_minute_reports_only_repeated_failures() {
    let quotes = Quotes::start("");
    let problems = || quotes.0.count("oa.alerts WHERE kind = 'problem'");
    for expected in [0, 0, 1, 1] {
        assert_eq!(quotes.run(&[]).code, 1);
        assert_eq!(problems(), expected);
    }
    assert_eq!(quotes.run(&[json!({"code": "RB", "side": "多"})]).code, 0);
    assert_eq!(quotes.0.count("oa.alerts WHERE kind = 'recovery'"), 1);
    assert_eq!(quotes.run(&[]).code, 1);
    assert_eq!(problems(), 1, "counted anew");
}

#[test]
fn an_incident_that_comes_and_goes_is_not_reported_each_time() {
    let quotes = Quotes::start("");
    let good = [json!({"code": "RB", "side": "多"})];
    let alerts = |kind: &str| quotes.0.count(&format!("oa.alerts WHERE kind = '{kind}'"));
    let source = quotes.0.dir.path().join("own/quotes.toml");
    let text = fs::read_to_string(&source).unwrap();
    fs::write(&source, text.replace("alert_after = 3", "alert_after = 1")).unwrap();
    for _ in 0..6 {
        assert_eq!(quotes.run(&[]).code, 1);
        assert_eq!(quotes.run(&good).code, 0);
    }
    assert_eq!((alerts("problem"), alerts("recovery")), (4, 3));
    assert_eq!(
        quotes.0.count("oa.incidents WHERE resolved_at IS NULL"),
        1,
        "it counts as open"
    );
    quotes
        .0
        .db()
        .batch_execute("UPDATE oa.incidents SET recoveries = ARRAY(SELECT r - interval '61 minutes' FROM unnest(recoveries) r)")
        .unwrap();
    assert_eq!(quotes.run(&good).code, 0);
    assert_eq!(
        (alerts("problem"), alerts("recovery")),
        (4, 4),
        "it is still down"
    );
    assert_eq!(quotes.0.count("oa.incidents WHERE resolved_at IS NULL"), 0);
}
