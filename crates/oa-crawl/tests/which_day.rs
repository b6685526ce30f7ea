//! A site that is not asked for a day shows its present one: no other day is ever made of that.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;

use chrono::{NaiveTime, TimeDelta, Timelike, Utc};
use common::{Done, Service};

const SHOW_ONE_DAY: [&str; 7] = [
    "jiaoyikecha-blueprint",
    "jiaoyikecha-positions",
    "openvlab-flow",
    "rdqh-indicators",
    "rongda-positions",
    "rongda-structure",
    "zhihui-varieties",
];

/// A program as a source, due daily at a time that comes only later today. Says nothing about days but its arguments.
fn quotes(service: &Service, arguments: &str, shows: &str) {
    let now = (Utc::now() + TimeDelta::hours(8)).time();
    let last = NaiveTime::from_hms_opt(23, 59, 0).unwrap();
    let (later, next_day) = now.overflowing_add_signed(TimeDelta::minutes(30));
    let at = if next_day == 0 { later } else { last };
    let folder = service.dir.path().join("own");
    fs::create_dir_all(&folder).unwrap();
    let text = format!(
        r#"
name = "quotes"
title = "报价"
provider = "own"
schedule = "{} {} * * *"
{shows}
fetch = {{ kind = "command", command = ["sh", "-c", "echo '{{\"code\": \"ZZ\", \"name\": \"price\"}}'", {arguments}] }}
store = {{ table = "commodities", unique = ["code"] }}
fields = [
  {{ column = "code", from = "code", type = "text", required = true }},
  {{ column = "name", from = "name", type = "text", required = true }},
  {{ column = "category", value = "{{date}}", type = "text" }},
]
"#,
        at.minute(),
        at.hour()
    );
    fs::write(folder.join("quotes.toml"), text).unwrap();
    service.configure(&format!(
        "sources = \"{}\"\nretries = 0\ncatch_up = \"24h\"\nenable = [\"quotes\"]\n",
        folder.display(),
    ));
}

fn yesterday() -> String {
    let day = (Utc::now() + TimeDelta::hours(8)).date_naive();
    (day - TimeDelta::days(1)).to_string()
}

fn refused(done: &Done, task: &str) {
    assert_eq!(done.code, 77, "{task}: {done:?}");
    assert!(
        done.stderr
            .contains(&format!("{task} cannot be collected for 2025-11-")),
        "{done:?}"
    );
}

#[test]
fn a_past_day_is_refused_where_the_site_is_not_asked_for_a_day() {
    let service = Service::start();
    for task in SHOW_ONE_DAY {
        let span = ["--from", "2025-11-03", "--to", "2025-11-05"];
        for more in [&[][..], &["--dry-run"], &["--again"]] {
            refused(
                &service.crawl(&[&["backfill", task][..], &span, more].concat()),
                task,
            );
        }
        for more in [&[][..], &["--dry-run"], &["--cron"]] {
            refused(
                &service.crawl(&[&["run", task, "--date", "2025-11-03"][..], more].concat()),
                task,
            );
        }
    }
    assert_eq!(service.sim.requests().len(), 0, "nobody was asked");
    assert_eq!(
        service.count("oa.runs WHERE status <> 'skipped' OR error_message NOT LIKE '%cannot be collected for 2025-11-03%'"),
        0
    );
    // The others are collected all the same.
    let done = service.crawl(&[
        "run",
        "zhihui-full-view",
        "zhihui-varieties",
        "--date",
        "2025-11-03",
        "--format",
        "json",
    ]);
    assert_eq!(done.code, 77, "{done:?}");
    let rows = done.rows();
    assert_eq!(
        (&rows[0]["status"], &rows[1]["status"]),
        (&"success".into(), &"skipped".into())
    );
    // Today is what the page is of.
    let done = service.crawl(&["run", "zhihui-varieties"]);
    assert_eq!(done.code, 0, "{done:?}");
}

#[test]
fn a_program_says_by_its_arguments_or_its_file_that_it_knows_days() {
    let service = Service::start();
    for (arguments, shows, code) in [
        ("", "", 77),
        ("\"{date}\"", "", 0),
        ("\"$OA_DATE\"", "", 0),
        ("", "shows = \"any day\"", 0),
        ("\"{date}\"", "shows = \"today\"", 77),
        ("", "shows = \"latest\"", 77),
    ] {
        quotes(&service, arguments, shows);
        let day = ["--from", "2025-11-03", "--to", "2025-11-03", "--again"];
        let done = service.crawl(&[&["backfill", "quotes"][..], &day].concat());
        assert_eq!(done.code, code, "{arguments} {shows}: {done:?}");
    }
}

#[test]
fn a_day_that_was_missed_is_made_up_for_only_while_the_site_shows_it() {
    for (arguments, shows, made_up) in [
        ("", "", false),
        ("\"{date}\"", "", true),
        ("", "shows = \"latest\"", true),
    ] {
        let service = Service::start();
        quotes(&service, arguments, shows);
        let due = || {
            let done = service.crawl(&["run", "--due"]);
            (done.code, service.count("oa.runs"))
        };
        // First seen now: yesterday was nobody's.
        assert_eq!(due(), (0, 0), "{arguments} {shows}");
        assert_eq!(due(), (0, 0), "{arguments} {shows}");
        service
            .db()
            .batch_execute("INSERT INTO oa.slots (task, due_at, day) SELECT task, due_at - interval '1 day', day - 1 FROM oa.slots ORDER BY due_at LIMIT 1")
            .unwrap();
        let (code, runs) = due();
        assert_eq!((code != 77, runs), (made_up, 1), "{arguments} {shows}");
        assert_eq!(due(), (0, 1), "once");
        let made = format!("commodities WHERE category = '{}'", yesterday());
        assert_eq!(
            service.count(&made),
            i64::from(made_up),
            "{arguments} {shows}"
        );
        assert_eq!(service.count("commodities"), i64::from(made_up));
        if !made_up {
            let why = service.text("SELECT status || ' ' || error_message FROM oa.runs");
            let due = format!("skipped the run of {}", yesterday());
            assert!(why.starts_with(&due), "{why}");
            assert!(
                why.contains("was missed and cannot be made up for"),
                "{why}"
            );
            let hole =
                "oa.slots WHERE state = 'unfetchable' AND reason LIKE '%cannot be collected for%'";
            assert_eq!(service.count(hole), 1, "it stays a hole");
            let day = format!(
                "oa.days WHERE state = 'unfetchable' AND day = '{}'",
                yesterday()
            );
            assert_eq!(
                service.count(&day),
                0,
                "a day that was never written is none"
            );
        }
    }
}

#[test]
fn what_was_received_for_one_day_is_not_replayed_as_another() {
    let service = Service::start();
    assert_eq!(service.run("zhihui-full-view").code, 0);
    let run = service.text("SELECT id::text FROM oa.runs");
    let replay = |day: &str| {
        service.crawl(&[
            "replay",
            "zhihui-full-view",
            "--run",
            &run,
            "--date",
            day,
            "--yes",
        ])
    };
    let done = replay("2025-12-02");
    assert_eq!(done.code, 77, "{done:?}");
    assert!(
        done.stderr.contains("is of 2025-12-01, not of 2025-12-02"),
        "{done:?}"
    );
    assert_eq!(service.count("oa.runs"), 1);
    assert_eq!(replay("2025-12-01").code, 0);
}
