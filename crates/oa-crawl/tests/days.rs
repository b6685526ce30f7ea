//! What a run makes of its day (`oa.days`), and how a page of another day is known.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::sync::{Arc, Mutex};

use common::Service;
use common::site::{Answer, Site};
use serde_json::{Value, json};

/// A site whose answer a test changes.
struct Changing {
    site: Site,
    answer: Arc<Mutex<Value>>,
}

impl Changing {
    fn start() -> Self {
        let answer: Arc<Mutex<Value>> = Arc::default();
        let says = answer.clone();
        Self {
            site: Site::start(move |_| Answer::json(says.lock().unwrap().to_string())),
            answer,
        }
    }

    fn says(&self, answer: Value) {
        *self.answer.lock().unwrap() = answer;
    }
}

/// A source of the site, with more lines at its top and in its answer.
fn quotes(service: &Service, site: &Site, more: &str, answer: &str) {
    let text = format!(
        r#"
name = "quotes"
title = "报价"
provider = "own"
schedule = "30 15 * * *"
{more}
fetch = {{ kind = "http", base = "{}", path = "/{{date}}" }}
answer = {{ records = "/list", {answer} }}
store = {{ table = "commodities", unique = ["code"] }}
fields = [
  {{ column = "code", from = "code", type = "text", required = true }},
  {{ column = "name", from = "price", type = "text", required = true }},
  {{ column = "category", value = "{{date}}", type = "text" }},
]
"#,
        site.url
    );
    service.add("quotes", &text);
}

fn prices(all: &[(&str, &str)]) -> Value {
    let list = all
        .iter()
        .map(|(code, price)| json!({"code": code, "price": price}));
    json!({"list": list.collect::<Vec<_>>(), "total": all.len()})
}

/// Status and kind of error.
fn run(service: &Service, day: &str) -> (String, Value) {
    let row = service
        .crawl(&["run", "quotes", "--date", day, "--format", "json"])
        .row();
    (
        row["status"].as_str().unwrap().to_owned(),
        row["error_kind"].clone(),
    )
}

fn day(service: &Service, day: &str) -> String {
    service.text(&format!(
        "SELECT coalesce((SELECT concat_ws(' ', state, records, announced, usual, evidence) FROM oa.days WHERE task = 'quotes' AND day = '{day}'), '')"
    ))
}

#[test]
fn the_content_of_the_day_before_is_stale() {
    let service = Service::start();
    let site = Changing::start();
    quotes(
        &service,
        &site.site,
        "days = \"trading\"",
        "total = \"/total\"",
    );
    site.says(prices(&[("A", "1"), ("B", "2")]));
    assert_eq!(run(&service, "2026-11-19").0, "success");
    assert_eq!(day(&service, "2026-11-19"), "complete 2 2 total");
    // In another order it is the same page.
    site.says(prices(&[("B", "2"), ("A", "1")]));
    assert_eq!(
        run(&service, "2026-11-20"),
        ("partial".to_owned(), json!("stale"))
    );
    assert_eq!(day(&service, "2026-11-20"), "stale 2 2");
    assert!(
        service.findings().contains("what came for 2026-11-19"),
        "{}",
        service.findings()
    );
    assert_eq!(service.count("oa.alerts WHERE kind = 'problem'"), 1);
    // A stale day is no day to be like, but its content is: the site has stood still since.
    assert_eq!(
        run(&service, "2026-11-23"),
        ("partial".to_owned(), json!("stale"))
    );
    // The day itself may be read again, and a backfill does.
    site.says(prices(&[("B", "2"), ("A", "3")]));
    let again = service.crawl(&[
        "backfill",
        "quotes",
        "--from",
        "2026-11-19",
        "--to",
        "2026-11-23",
        "--pause",
        "0s",
        "--format",
        "json",
    ]);
    let statuses: Vec<Value> = again.rows().iter().map(|r| r["status"].clone()).collect();
    assert_eq!(statuses, [json!("success"), json!("partial")], "{again:?}");
    assert_eq!(day(&service, "2026-11-20"), "complete 2 2 total");
    assert_eq!(run(&service, "2026-11-19").0, "success", "the day itself");
    // Exchanges that are closed move no price, and a source may say that its days are alike.
    quotes(&service, &site.site, "", "total = \"/total\"");
    assert_eq!(run(&service, "2026-11-21").0, "success");
    quotes(
        &service,
        &site.site,
        "may_repeat = true",
        "total = \"/total\"",
    );
    assert_eq!(run(&service, "2026-11-24").0, "success");
}

#[test]
fn a_stale_answer_is_tried_again() {
    let service = Service::start();
    let asked = Arc::new(Mutex::new(0));
    let counted = asked.clone();
    let site = Site::start(move |_| {
        let mut asked = counted.lock().unwrap();
        *asked += 1;
        let price = if *asked < 4 { "1" } else { "2" };
        Answer::json(prices(&[("A", price)]).to_string())
    });
    quotes(&service, &site, "", "total = \"/total\"");
    assert_eq!(run(&service, "2026-11-19").0, "success");
    let own = service.dir.path().join("own");
    service.configure(&format!("retries = 3\nsources = \"{}\"\n", own.display()));
    assert_eq!(run(&service, "2026-11-20").0, "success");
    assert_eq!(*asked.lock().unwrap(), 4);
}

#[test]
fn a_day_that_waited_in_the_spool_is_compared_as_well() {
    let mut service = Service::start();
    let site = Changing::start();
    quotes(&service, &site.site, "", "total = \"/total\"");
    site.says(prices(&[("A", "1")]));
    assert_eq!(run(&service, "2026-11-19").0, "success");
    service.server.stop();
    run(&service, "2026-11-20");
    site.says(prices(&[("A", "2")]));
    run(&service, "2026-11-23");
    service.server.start_again();
    assert_eq!(service.crawl(&["drain"]).code, 0);
    assert_eq!(day(&service, "2026-11-20"), "stale 1 1");
    assert_eq!(day(&service, "2026-11-23"), "complete 1 1 total");
    let runs = "SELECT string_agg(status || ' ' || coalesce(error_kind, '-'), ', ' ORDER BY seq) FROM oa.runs";
    assert_eq!(service.text(runs), "success -, partial stale, success -");
}

#[test]
fn a_day_keeps_the_best_that_came_for_it() {
    let service = Service::start();
    let site = Changing::start();
    quotes(&service, &site.site, "", "total = \"/total\"");
    let more = |n: usize, total: usize| {
        let list: Vec<Value> = (0..n)
            .map(|i| json!({"code": format!("C{i}"), "price": i.to_string()}))
            .collect();
        json!({"list": list, "total": total})
    };
    let steps = [
        (json!({"list": [], "total": 0}), "failed", "failed"),
        (more(2, 4), "partial", "partial 2 4"),
        (more(4, 4), "success", "complete 4 4 total"),
        (more(1, 4), "partial", "complete 4 4 total"),
        (
            json!({"list": [], "total": 0}),
            "failed",
            "complete 4 4 total",
        ),
        // There is more than what is there.
        (more(3, 6), "partial", "partial 3 6"),
        (more(6, 6), "success", "complete 6 6 total"),
    ];
    for (number, (answer, status, known)) in steps.into_iter().enumerate() {
        site.says(answer);
        assert_eq!(run(&service, "2026-11-26").0, status, "{number}");
        assert_eq!(day(&service, "2026-11-26"), known, "{number}");
        if number == 1 {
            let reported = "UPDATE oa.days SET reported_at = now()";
            service.db().batch_execute(reported).unwrap();
        }
    }
    assert_eq!(
        service.count("oa.days WHERE filled_at IS NOT NULL AND NOT expected"),
        1
    );
}

#[test]
fn a_day_says_by_what_it_is_known_to_be_complete() {
    let service = Service::start();
    let site = Changing::start();
    let mut days = (20..=27).map(|n| format!("2026-11-{n}"));
    let mut collected = |answer: &str| {
        quotes(&service, &site.site, "", answer);
        let next = days.next().unwrap();
        site.says(prices(&[("A", &next), ("B", "2")]));
        assert_eq!(run(&service, &next).0, "success");
        day(&service, &next)
    };
    assert_eq!(collected(""), "complete 2");
    assert_eq!(collected("end = \"one answer\""), "complete 2 end");
    assert_eq!(collected("total = \"/total\""), "complete 2 2 total");
    // Three days before, on the same kind of day.
    assert_eq!(collected(""), "complete 2");
    let checked = |answer: &str| {
        quotes(&service, &site.site, "", answer);
        let rows = service.crawl(&["check", "--format", "json"]).rows();
        let of = rows.iter().filter(|r| r["check"] == "quotes");
        of.map(|r| r["detail"].as_str().unwrap().to_owned())
            .collect::<String>()
    };
    assert!(checked("").contains("end = \"one answer\""));
    assert_eq!(checked("end = \"one answer\""), "");
    assert_eq!(checked("total = \"/total\""), "");
}

#[test]
fn an_answer_that_says_another_day_is_never_stored_as_this_one() {
    let service = Service::start();
    let site = Changing::start();
    let records = |first: &str, second: &str| {
        json!({
            "date": first,
            "list": [{"code": "A", "price": "1", "date": first}, {"code": "B", "price": "2", "date": second}],
        })
    };
    let (this, other) = ("2026-11-26", "2026-11-25");
    for (rule, says, status, kind, rows) in [
        (
            "day = \"/date\"",
            records(this, this),
            "success",
            Value::Null,
            2,
        ),
        (
            "day = \"/date\"",
            records(other, this),
            "failed",
            json!("empty"),
            0,
        ),
        (
            "day = { field = \"date\" }",
            records(this, this),
            "success",
            Value::Null,
            2,
        ),
        (
            "day = { field = \"date\" }",
            records(other, other),
            "failed",
            json!("empty"),
            0,
        ),
        // Only what is of the day is stored under it.
        (
            "day = { field = \"date\" }",
            records(this, other),
            "partial",
            json!("invalid"),
            1,
        ),
        (
            "day = { header = \"x-day\" }",
            records(this, this),
            "failed",
            json!("empty"),
            0,
        ),
    ] {
        let clean = "TRUNCATE commodities; DELETE FROM oa.days";
        service.db().batch_execute(clean).unwrap();
        quotes(&service, &site.site, "", rule);
        site.says(says);
        let (got, why) = run(&service, this);
        assert_eq!((got.as_str(), why), (status, kind), "{rule}");
        assert_eq!(service.count("commodities"), rows, "{rule}");
    }
    for wrong in [
        "day = { selector = \"h1\" }",
        "day = \"date\"",
        "day = { place = \"x\" }",
        "day = 1",
    ] {
        quotes(&service, &site.site, "", wrong);
        assert_eq!(service.crawl(&["run", "quotes"]).code, 78, "{wrong}");
    }
}
