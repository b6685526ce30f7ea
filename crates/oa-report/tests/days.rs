//! What sources owe for each day, as people, pipelines and other programs ask for it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::io::Read;
use std::time::Duration;

use common::{Site, TOKEN, TOKEN_HASH};
use flate2::read::GzDecoder;
use oa_testkit::wait_until;
use serde_json::{Value, json};

/// Three sources and a backup, two weeks of December 2025. Monday the 1st to Friday the 12th; the 6th and 7th are a weekend.
fn site() -> Site {
    let site = Site::start(&format!("[report.tokens]\nwang = \"{TOKEN_HASH}\"\n"));
    site.sql(
        "INSERT INTO oa.tasks (name, tool, title, schedule) VALUES ('full-view', 'oa-crawl', '多空全景', '0 15 * * *'), ('night', 'oa-crawl', '夜盘', '50 20 * * *'),
            ('today-only', 'oa-crawl', '', '0 16 * * *'), ('young', 'oa-crawl', '', '0 16 * * *'), ('backup-full', 'oa-backup', '', NULL);
         UPDATE oa.tasks SET collects = tool = 'oa-crawl', backfills = tool = 'oa-crawl' AND name <> 'today-only';
         INSERT INTO oa.days (task, day, expected, state, records, evidence, collected_at)
         SELECT t, d::date, true, 'complete', 75, 'total', d + interval '8 hours'
         FROM unnest(ARRAY['full-view', 'night', 'today-only', 'young']) t, generate_series(date '2025-12-01', date '2025-12-12', interval '1 day') d
         WHERE extract(isodow FROM d) < 6 AND (t <> 'young' OR d >= '2025-12-10');
         -- No night session before a holiday.
         DELETE FROM oa.days WHERE task = 'night' AND day = '2025-12-09'",
    );
    for (task, day, state) in [
        ("full-view", "2025-12-05", "missing"),
        ("full-view", "2025-12-08", "missing"),
        ("full-view", "2025-12-10", "partial"),
        ("night", "2025-12-02", "failed"),
        ("night", "2025-12-03", "stale"),
        ("today-only", "2025-12-04", "failed"),
        ("today-only", "2025-12-05", "unfetchable"),
        ("today-only", "2025-12-11", "failed"),
        ("young", "2025-12-11", "skipped"),
        ("young", "2025-12-12", "pending"),
    ] {
        site.sql(&format!(
            "UPDATE oa.days SET state = '{state}' WHERE task = '{task}' AND day = '{day}'"
        ));
    }
    site.sql(
        "UPDATE oa.days SET reported_at = '2025-12-02 09:00+08', filled_at = '2025-12-03 10:00+08' WHERE task = 'full-view' AND day = '2025-12-01';
         INSERT INTO oa.slots (task, due_at, day, state, reason, closed_at) VALUES
           ('today-only', '2025-12-05 16:00+08', '2025-12-05', 'unfetchable', 'the site shows only today', now()),
           ('full-view', '2025-12-05 15:00+08', '2025-12-05', 'missed', 'nothing was started', now());
         -- A manual run of a day on which nothing is owed.
         INSERT INTO oa.days (task, day, expected, state) VALUES ('full-view', '2025-12-06', false, 'failed'), ('backup-full', '2025-12-02', true, 'missing')",
    );
    site
}

const SPAN: [&str; 4] = ["--from", "2025-12-01", "--to", "2025-12-14"];

#[test]
fn a_day_of_which_runs_are_still_to_come_is_no_hole() {
    let site = Site::start("");
    site.sql(
        "INSERT INTO oa.tasks (name, tool, title, schedule, collects) VALUES ('flow', 'oa-crawl', '', '*/30 * * * *', true);
         INSERT INTO oa.days (task, day, expected, state) VALUES ('flow', (now() AT TIME ZONE 'Asia/Shanghai')::date, true, 'failed');
         INSERT INTO oa.slots (task, due_at, day) VALUES ('flow', now() + interval '10 minutes', (now() AT TIME ZONE 'Asia/Shanghai')::date)",
    );
    let hole = |fails: i32| {
        let (code, table, error) = site.run(&["days", "--fail-on", "hole"]);
        assert_eq!(code, Some(fails), "{table}{error}");
    };
    hole(0);
    // Its last run has failed too.
    site.sql("DELETE FROM oa.slots");
    hole(10);
}

#[test]
fn each_hole_is_shown_with_the_command_that_fills_it() {
    let site = site();
    let days = |more: &[&str]| site.run(&[&["days"], &SPAN[..], more].concat());
    let (code, table, error) = days(&[]);
    assert_eq!(code, Some(0), "{error}");
    for line in [
        "full-view    +  ✓  ✓  ✓  !     !  ✓  %  ✓  ✓  多空全景",
        "night        ✓  ✗  =  ✓  ✓     ✓     ✓  ✓  ✓  夜盘",
        "young                                ✓  -  .",
        "2025-12-05 至 2025-12-08（2 天）  full-view  未采集  nothing was started",
        "    oa-crawl backfill full-view --from 2025-12-05 --to 2025-12-08",
        "    oa-crawl backfill full-view --from 2025-12-10 --to 2025-12-10",
        "    oa-crawl backfill night --from 2025-12-02 --to 2025-12-02",
        "    oa-crawl backfill night --from 2025-12-03 --to 2025-12-03",
        "2025-12-05  today-only  无法补采  the site shows only today",
        "5 个数据源应采 31 天，完整 22 天，缺 9 天，其中无法补采 1 天，后来补齐 1 天，未到时间 1 天",
    ] {
        assert!(table.lines().any(|l| l == line), "{line}\n{table}");
    }
    assert!(
        !table.contains("backfill backup-full") && !table.contains("backfill today-only"),
        "{table}"
    );
    let (_, json, _) = days(&["--format", "json"]);
    let all: Vec<Value> = json
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let of = |task: &str, day: &str| {
        all.iter()
            .find(|d| d["task"] == task && d["day"] == day)
            .unwrap()
    };
    let hole = of("full-view", "2025-12-08");
    assert_eq!(
        (&hole["state"], &hole["hole"], &hole["fill"]),
        (
            &json!("missing"),
            &json!(true),
            &json!("oa-crawl backfill full-view --from 2025-12-08 --to 2025-12-08")
        )
    );
    // Nothing was owed; the site shows only today.
    assert_eq!(of("full-view", "2025-12-06")["hole"], false);
    assert_eq!(of("today-only", "2025-12-04")["fill"], Value::Null);
    assert_eq!(
        of("today-only", "2025-12-05")["reason"],
        "the site shows only today"
    );
    let filled = of("full-view", "2025-12-01");
    assert_eq!(
        (&filled["hole"], &filled["records"]),
        (&json!(false), &json!(75))
    );
    assert_eq!(filled["filled_at"], "2025-12-03T02:00:00Z");
    // Pipelines.
    let code = |more: &[&str]| days(more).0;
    assert_eq!(code(&["--fail-on", "hole"]), Some(10));
    assert_eq!(code(&["young", "--fail-on", "hole"]), Some(0));
    let (code, _, error) = site.run(&["days", "ful-view"]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("did you mean \"full-view\"?"), "{error}");
    for wrong in [
        ["--from", "2025-12-02", "--to", "2025-12-01"],
        ["--from", "soon", "--to", "today"],
    ] {
        let (code, _, error) = site.run(&[&["days"], &wrong[..]].concat());
        assert_eq!(code, Some(2), "{error}");
    }
    let (code, text, _) = site.run(&["days", "--from", "2020-01-01", "--to", "2020-01-31"]);
    assert!(code == Some(0) && text.contains("没有任何采集日"), "{text}");
    // While it is today, it shows that too.
    site.sql(
        "INSERT INTO oa.days (task, day, expected, state) VALUES ('today-only', (now() AT TIME ZONE 'Asia/Shanghai')::date, true, 'failed')",
    );
    let (_, today, _) = site.run(&["days", "today-only", "--from", "yesterday"]);
    assert!(
        today.contains("oa-crawl backfill today-only --from"),
        "{today}"
    );
    // What is given up owes nothing.
    site.sql("UPDATE oa.tasks SET forgotten_at = now() WHERE name = 'night'");
    assert!(!days(&[]).1.contains("backfill night"));
}

#[test]
fn the_api_and_metrics_say_the_same() {
    let site = site();
    let serving = site.serve(Some(TOKEN));
    let answer = serving
        .get("/admin/crawler/days?from=2025-12-01&to=2025-12-14")
        .json();
    assert_eq!(
        answer["summary"],
        json!({"sources": 5, "expected": 31, "complete": 22, "holes": 9, "unfetchable": 1, "filled": 1, "pending": 1})
    );
    // The same for whoever takes it packed, and nothing for whoever has it.
    let path = "/admin/crawler/days?from=2025-12-01&to=2025-12-14";
    let packed = serving.ask("GET", path, &[("Accept-Encoding", "gzip")], "");
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    GzDecoder::new(packed.body.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), answer);
    let known = packed.header("etag").unwrap();
    let again = serving.ask("GET", path, &[("If-None-Match", known)], "");
    assert_eq!(again.status, 304);
    let one = serving
        .get("/api/v1/crawler/days?task=full-view&from=2025-12-08&to=2025-12-08")
        .json();
    assert_eq!(one["days"].as_array().unwrap().len(), 1);
    assert_eq!(
        one["days"][0]["fill"],
        "oa-crawl backfill full-view --from 2025-12-08 --to 2025-12-08"
    );
    for (query, status) in [
        ("task=none", 404),
        // Each by itself is right.
        ("from=2025-12-02&to=2025-12-01", 409),
        ("from=2020-01-01&to=2025-12-01", 409),
        ("from=soon", 400),
        ("form=today", 400),
    ] {
        let path = format!("/admin/crawler/days?{query}");
        assert_eq!(serving.get(&path).status, status, "{query}");
    }
    // The last days that are over, as they are now.
    site.sql("UPDATE oa.days SET day = day + (current_date - date '2025-12-12')");
    let metrics = serving.get("/metrics").text();
    for line in [
        "oa_day_state{task=\"full-view\",state=\"complete\"} 1",
        "oa_day_state{task=\"young\",state=\"skipped\"} 1",
        "oa_day_holes{task=\"today-only\"} 3",
        "oa_day_holes{task=\"young\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    // The page shows them, with what to copy; hostile names stay text.
    site.sql("INSERT INTO oa.tasks (name, tool, title, collects, backfills) VALUES ('a''b <i>', 'oa-crawl', '<script>x</script>', true, true); INSERT INTO oa.days (task, day, expected, state) VALUES ('a''b <i>', current_date - 1, true, 'missing')");
    let line = "oa-crawl backfill 'a'\\''b &lt;i&gt;' --from";
    wait_until("the page shows it", Duration::from_secs(40), || {
        let page = serving.get("/admin/?lang=en").text();
        assert!(page.contains("Days collected, 13 weeks") && !page.contains("<script>x"));
        page.contains(line)
    });
}

#[test]
fn a_day_that_is_lacking_is_something_to_do_although_its_source_is_well_again() {
    let site = Site::start(&format!("[report.tokens]\nwang = \"{TOKEN_HASH}\"\n"));
    site.sql(
        "WITH run AS (
           INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at, finished_at)
           SELECT oa.uuid_floor(now() - interval '1 hour'), 'oa-crawl', 'well', 'due', 'h', 'm', 'b', 1, 1, '0', 'success', now() - interval '1 hour',
                  now() - interval '1 hour' RETURNING *)
         INSERT INTO oa.tasks (name, tool, title, collects, backfills, last_run_id, last_status, last_started_at, last_success_at)
         SELECT task, tool, '<b>多空', true, true, id, status, started_at, started_at FROM run;
         INSERT INTO oa.tasks (name, tool, collects, last_run_id, last_status, last_started_at, last_success_at)
         SELECT 'today-only', 'oa-crawl', true, last_run_id, last_status, last_started_at, last_success_at FROM oa.tasks;
         INSERT INTO oa.days (task, day, expected, state)
         SELECT t, (now() AT TIME ZONE 'Asia/Shanghai')::date - n, true, s
         FROM unnest(ARRAY['well', 'today-only']) t, (VALUES (0, 'failed'), (2, 'complete'), (3, 'partial'), (5, 'missing'), (40, 'failed')) d (n, s)",
    );
    let serving = site.serve(Some(TOKEN));
    wait_until("the page shows it", Duration::from_secs(40), || {
        let page = serving.get("/admin/?lang=en").text();
        assert!(!page.contains("<b>多空"), "{page}");
        page.contains("Days that are lacking and can be filled: 2")
            && page.contains("to fill them: oa-crawl backfill well --from")
    });
    site.sql("UPDATE oa.days SET state = 'complete'");
    wait_until("it is done", Duration::from_secs(40), || {
        !serving
            .get("/admin/?lang=en")
            .text()
            .contains("can be filled")
    });
}
